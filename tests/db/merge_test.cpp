// Files merge without loss or duplicates, in any order, and a second time changes nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
      TrialRecord trial = sample_trial(problem_id, device_id);
      trial.config = "matrix tile_m=" + std::to_string(which);
      trial.time_us = 10 + which;
      trial.recorded_at_ms = 1'700'000'000'000 + which;
      if (which % 2 == 0) trial.throttle = "power cap";
      const std::int64_t id = db.record(trial).value();
      const ObjectRecord object = sample_object("code " + std::to_string(which));
      EXPECT_TRUE(db.publish(sample_winner(problem_id, device_id, id, object), object));
    }
    return path;
  }
  // All that a file says, whatever its ids.
  static std::vector<std::string> content(const std::string& path) {
    Db db = Db::open(path, DbMode::kReadOnly).value();
    std::vector<std::string> lines;
    const auto groups = db.trial_groups().value();
    for (const TrialGroup& group : groups) {
      const auto trials = db.trials(group.problem_id, group.device_id, true).value();
      for (const TrialRecord& t : trials)
        lines.push_back("trial " + group.problem.dims_key + group.problem.label + group.device.uuid + t.config +
                        std::to_string(*t.time_us) + t.throttle + std::to_string(t.samples_us.size()) +
                        std::to_string(t.recorded_at_ms));
    }
    const auto winners = db.winners().value();
    for (const WinnerRow& w : winners)
      lines.push_back("winner " + w.problem.dims_key + w.device.uuid + w.trial.config + w.winner.object_hash);
    std::sort(lines.begin(), lines.end());
    lines.erase(std::unique(lines.begin(), lines.end()), lines.end());  // the same trial twice says nothing new
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
  for (int round = 0; round < 3; ++round) {
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
    for (const std::string& file : files)
      for (std::string line : content(file)) {
        if (!line.starts_with("trial")) continue;
        // A label that one file lacks may come from another.
        const auto known = [&](const std::string& l) { return std::binary_search(all.begin(), all.end(), l); };
        std::string labelled = line;
        if (const auto at = line.find("GPU"); line.find("layer") == std::string::npos) labelled.insert(at, "layer");
        EXPECT_TRUE(known(line) || known(labelled)) << line;
      }
  }
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
