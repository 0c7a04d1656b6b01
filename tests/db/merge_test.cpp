// Files merge without loss or duplicates, in any order, and a second time changes nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "db/db.h"
#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::sample_device;
using testing::sample_object;
using testing::sample_op;
using testing::sample_problem;
using testing::sample_trial;
using testing::sample_winner;
using testing::TempFolder;

class Merge : public ::testing::Test {
 protected:
  // A file with some of the problems, devices and trials that all files draw from, and winners among them.
  std::string make(int seed) {
    const std::string path = folder_.file("part" + std::to_string(seed) + ".db");
    Db db = Db::open(path, DbMode::kReadWrite).value();
    std::mt19937 random(static_cast<unsigned>(seed));
    const auto draw = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    for (int i = 0; i < 12; ++i) {
      DeviceRecord device = sample_device();
      device.uuid = "GPU-" + std::to_string(draw(2));
      ProblemRecord problem = sample_problem();
      problem.dims_key = "m=" + std::to_string(draw(3));
      problem.label = draw(2) == 0 ? "" : "layer";
      const std::int64_t device_id = db.intern_device(device).value();
      const std::int64_t problem_id = db.intern_problem(sample_op(), problem).value();
      // The files have many trials in common: what differs follows from `which` alone.
      const int which = draw(6);
      if (draw(4) == 0) {
        TrialRecord failed = sample_trial(problem_id, device_id, static_cast<TrialStatus>(draw(7)));
        failed.recorded_at_ms = 1'700'000'000'000 + draw(3);
        EXPECT_TRUE(db.record(failed));
      }
      TrialRecord trial = sample_trial(problem_id, device_id);
      trial.config = "matrix tile_m=" + std::to_string(which);
      trial.time_us = 10 + which;
      trial.recorded_at_ms = 1'700'000'000'000 + which;
      if (which % 2 == 0) trial.throttle = "power cap";
      const std::int64_t id = db.record(trial).value();
      const ObjectRecord object = sample_object("code " + std::to_string(which));
      WinnerRecord winner = sample_winner(problem_id, device_id, id, object);
      if (draw(3) == 0) winner.goal.objective = "energy";
      if (draw(3) == 0) winner.goal.deterministic = true;
      if (draw(4) == 0) winner.range = SizeRange{.dim = "m", .first = 1, .last = 8 + draw(2), .loss = draw(3) / 100.};
      EXPECT_TRUE(db.publish(winner, object));
    }
    return path;
  }
  // All that a file says, whatever its ids, each once: every column of every table.
  static std::vector<std::string> content(const std::string& path) {
    static constexpr const char* kRows = R"(
      WITH device_key AS (SELECT id, arch || name || driver || uuid AS k FROM device),
           problem_key AS (SELECT p.id, o.signature || o.dims || o.dim_defaults || o.attributes || ' ' || p.dims_key AS k
                           FROM problem p JOIN op o ON o.id = p.op),
           trial_key AS (
             SELECT t.id, p.k || d.k || c.version || c.options || c.kgen_version || t.config || t.status || t.reason || t.source_hash ||
               t.op_hash || t.timing || quote(t.time_us) || quote(t.mad_us) || quote(t.compile_seconds) || quote(t.verify_seconds) ||
               quote(t.max_error_ratio) || quote(t.relative_l2) || quote(t.registers) || quote(t.spills) || quote(t.lds_bytes) ||
               quote(t.occupancy_waves) || quote(t.clock_mhz) || t.is_default || t.recorded_at || quote(t.temperature_c) || t.throttle ||
               quote(t.energy_uj) || quote(t.energy_mad_uj) || quote(t.deterministic) || quote(s.us) || quote(s.states) AS k
             FROM trial t JOIN problem_key p ON p.id = t.problem JOIN device_key d ON d.id = t.device
             JOIN compiler c ON c.id = t.compiler LEFT JOIN sample s ON s.trial = t.id)
      SELECT 'trial ' || k FROM trial_key
      UNION SELECT 'device ' || k || compute_units || ' ' || memory_bytes || ' ' || l2_bytes || ' ' || clock_khz
        FROM device JOIN device_key USING (id)
      UNION SELECT 'problem ' || k || dims_json || label || flops || ' ' || bytes FROM problem JOIN problem_key USING (id)
      UNION SELECT 'winner ' || p.k || d.k || w.timing || w.objective || w.deterministic || w.is_default || t.k || l.hash || l.json || o.hash ||
          o.arch || o.kind || o.size || hex(o.zstd) || w.dim || w.first || ' ' || w.last || ' ' || w.loss
        FROM winner w JOIN problem_key p ON p.id = w.problem JOIN device_key d ON d.id = w.device JOIN trial_key t ON t.id = w.trial
        JOIN plan l ON l.id = w.plan JOIN object o ON o.id = w.object)";
    sqlite3* raw = nullptr;
    EXPECT_EQ(sqlite3_open(path.c_str(), &raw), SQLITE_OK);
    sqlite3_stmt* rows = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(raw, kRows, -1, &rows, nullptr), SQLITE_OK) << sqlite3_errmsg(raw);
    std::vector<std::string> lines;
    while (sqlite3_step(rows) == SQLITE_ROW)
      lines.emplace_back(reinterpret_cast<const char*>(sqlite3_column_text(rows, 0)));
    sqlite3_finalize(rows);
    sqlite3_close(raw);
    std::sort(lines.begin(), lines.end());
    return lines;
  }
  std::string merged(const std::vector<std::string>& files, const std::string& name) {
    const std::string path = folder_.file(name);
    Db db = Db::open(path, DbMode::kReadWrite).value();
    for (const std::string& file : files) {
      const auto done = db.merge(file);
      EXPECT_TRUE(done) << done.error().message;
    }
    EXPECT_THAT(db.check().value(), IsEmpty());
    return path;
  }

  TempFolder folder_;
};

TEST_F(Merge, TheOrderDoesNotMatterNothingIsLostAndTwiceIsOnce) {
  for (int round = 0; round < 10; ++round) {
    std::vector<std::string> files;
    for (int i = 0; i < 4; ++i) files.push_back(make(100 * round + i));
    const std::string name = std::to_string(round);
    const auto all = content(merged(files, "forward" + name + ".db"));
    std::vector<std::string> back(files.rbegin(), files.rend());
    EXPECT_EQ(content(merged(back, "backward" + name + ".db")), all);
    std::vector<std::string> often = files;
    often.insert(often.end(), back.begin(), back.end());
    EXPECT_EQ(content(merged(often, "often" + name + ".db")), all);
    // By parts: (a b) (c d).
    const auto half = [&](std::size_t i, const std::string& at) {
      return merged({files[i], files[i + 1]}, at + name + ".db");
    };
    EXPECT_EQ(content(merged({half(0, "left"), half(2, "right")}, "parts" + name + ".db")), all);
    // A label that one file lacks may come from another, and a winner may have been beaten; trials and devices are all
    // there.
    for (const std::string& file : files)
      for (const std::string& line : content(file))
        if (line.starts_with("trial") || line.starts_with("device")) {
          EXPECT_TRUE(std::binary_search(all.begin(), all.end(), line)) << line;
        }
  }
}

TEST_F(Merge, SixteenShardsMakeTheSingleRunsTrials) {
  // What a run does, whole and as shards of its problems, each on one file (kgen tune --shard i/n).
  const auto run = [&](const std::string& name, int shard, int shards) {
    const std::string path = folder_.file(name);
    Db db = Db::open(path, DbMode::kReadWrite).value();
    const std::int64_t device = db.intern_device(sample_device()).value();
    for (int m = shard; m < 48; m += shards) {
      const std::int64_t problem = db.intern_problem(sample_op(), sample_problem(m)).value();
      std::int64_t best = 0;
      for (int which = 0; which < 5; ++which) {
        const bool failed = (m + which) % 4 == 0;
        TrialRecord trial = sample_trial(problem, device, failed ? TrialStatus::kWrong : TrialStatus::kTimed);
        trial.config = "matrix tile_m=" + std::to_string(which);
        if (!failed) trial.time_us = 10 + (m * 7 + which * 3) % 11;
        trial.recorded_at_ms = 1'700'000'000'000 + m * 5 + which;
        const std::int64_t id = db.record(trial).value();
        if (!failed) best = id;
      }
      const ObjectRecord object = sample_object("code " + std::to_string(m % 6));
      EXPECT_TRUE(db.publish(sample_winner(problem, device, best, object), object));
    }
    return path;
  };
  const auto single = content(run("single.db", 0, 1));
  EXPECT_EQ(single.size(), 48U * 5 + 48 + 48 + 1) << "trials, problems, winners and a device";
  std::vector<std::string> shards;
  for (int i = 0; i < 16; ++i) shards.push_back(run("shard" + std::to_string(i) + ".db", i, 16));
  const std::string all = merged(shards, "all.db");
  EXPECT_EQ(content(all), single);
  Db db = Db::open(all, DbMode::kReadWrite).value();
  for (const std::string& shard : shards) {
    const Merged again = db.merge(shard).value();
    EXPECT_EQ(again.added, 0);
    EXPECT_EQ(again.winners, 0);
    EXPECT_EQ(again.known, 15);
  }
  EXPECT_EQ(db.merge(folder_.file("single.db"))->added, 0);
  EXPECT_EQ(content(all), single);
}

TEST_F(Merge, OfTwoWinnersTheOneThatNeedsLessStays) {
  const auto with = [&](double time, const std::string& code) {
    const std::string path = folder_.file(code + ".db");
    Db db = Db::open(path, DbMode::kReadWrite).value();
    const std::int64_t device = db.intern_device(sample_device()).value();
    const std::int64_t problem = db.intern_problem(sample_op(), sample_problem()).value();
    TrialRecord trial = sample_trial(problem, device);
    trial.time_us = time;
    const ObjectRecord object = sample_object(code);
    EXPECT_TRUE(db.publish(sample_winner(problem, device, db.record(trial).value(), object), object));
    return path;
  };
  const std::string slow = with(20, "slow"), fast = with(10, "fast");
  Db db = Db::open(folder_.file("all.db"), DbMode::kReadWrite).value();
  EXPECT_EQ(db.merge(slow)->winners, 1);
  EXPECT_EQ(db.merge(fast)->winners, 1);
  EXPECT_EQ(db.merge(slow)->winners, 0);
  ASSERT_EQ(db.winners()->size(), 1U);
  EXPECT_EQ(db.winners()->front().trial.time_us, 10);
  EXPECT_EQ(db.info()->objects, 1) << "the loser's code is gone";
  EXPECT_EQ(db.info()->trials, 2) << "its trial is not";
}

TEST_F(Merge, AFileThatIsNotWholeIsRefusedAndNothingIsTaken) {
  const std::string good = make(1);
  Db db = Db::open(folder_.file("all.db"), DbMode::kReadWrite).value();
  ASSERT_TRUE(db.merge(good));
  const std::int64_t trials = db.info()->trials;
  const std::string bad = make(2);
  std::filesystem::resize_file(bad, std::filesystem::file_size(bad) / 2);
  const auto refused = db.merge(bad);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kBadInput) << refused.error().message;
  EXPECT_EQ(db.info()->trials, trials);
  EXPECT_THAT(db.merge(folder_.file("all.db")).error().message, HasSubstr("into itself"));
  EXPECT_FALSE(db.merge(folder_.file("none.db")));
}

}  // namespace
}  // namespace kgen
