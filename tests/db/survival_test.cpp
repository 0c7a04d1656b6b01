// Killed writers, several writers, damaged files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include "base/text.h"
#include "db/db.h"
#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::IsEmpty;
using testing::sample_device;
using testing::sample_object;
using testing::sample_op;
using testing::sample_problem;
using testing::sample_trial;
using testing::sample_winner;
using testing::TempFolder;

// Records `count` trials (forever when negative), each published; writes a byte to `acknowledge` after each.
bool write_trials(const std::string& path, int m, int count, int acknowledge) {
  auto db = Db::open(path, DbMode::kReadWrite);
  if (!db) return false;
  const auto device = db->intern_device(sample_device());
  const auto problem = db->intern_problem(sample_op(), sample_problem(m));
  if (!device || !problem) return false;
  for (int i = 0; i != count; ++i) {
    const auto trial = db->record(sample_trial(*problem, *device));
    if (!trial) return false;
    const auto object = sample_object("code " + std::to_string(m) + " " + std::to_string(i) + std::string(20'000, 'x'));
    if (!db->publish(sample_winner(*problem, *device, *trial, object), object)) return false;
    if (acknowledge >= 0 && ::write(acknowledge, "x", 1) != 1) return false;
  }
  return true;
}

TEST(DbSurvival, AKilledWriterLosesNothingThatItHadRecorded) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::mt19937 random(7);
  const auto below = [&](int limit) { return std::uniform_int_distribution<int>(0, limit - 1)(random); };
  std::int64_t acknowledged = 0;
  for (int round = 0; round < 20; ++round) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe[0]);
      write_trials(path, 4, -1, pipe[1]);
      ::_exit(1);
    }
    ::close(pipe[1]);
    // Dies a random moment after a random number of trials: at once, while it opens the file, or in the middle of one.
    char byte = 0;
    for (int wait = below(8); wait > 0 && ::read(pipe[0], &byte, 1) == 1; --wait) ++acknowledged;
    std::this_thread::sleep_for(std::chrono::microseconds(below(5'000)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(pipe[0], &byte, 1) == 1) ++acknowledged;
    ::close(pipe[0]);

    Db db = Db::open(path, DbMode::kReadWrite).value();
    EXPECT_THAT(db.check().value(), IsEmpty());
    const std::int64_t trials = db.info().value().trials;
    EXPECT_GE(trials, acknowledged);
    EXPECT_LE(trials, acknowledged + 1) << "at most the trial in hand is beyond what was acknowledged";
    acknowledged = trials;
  }
  EXPECT_GT(acknowledged, 20) << "the writers did work";
}

TEST(DbSurvival, AFileWhoseWriterWasKilledIsReadWhole) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  const pid_t child = ::fork();
  if (child == 0) {
    auto db = Db::open(path, DbMode::kReadWrite);
    if (!db || !db->intern_device(sample_device())) ::_exit(1);
    ::kill(::getpid(), SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  ASSERT_GT(std::filesystem::file_size(path + "-wal"), 0U);
  EXPECT_EQ(Db::open(path, DbMode::kImmutable).value().info().value().devices, 1);
}

TEST(DbSurvival, SeveralWritersFillOneNewFileTogether) {
  constexpr int kWriters = 4;
  constexpr int kTrials = 25;
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::vector<pid_t> children;
  for (int writer = 0; writer < kWriters; ++writer) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(write_trials(path, 100 + writer, kTrials, -1) ? 0 : 1);
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  Db db = Db::open(path, DbMode::kReadOnly).value();
  EXPECT_THAT(db.check().value(), IsEmpty());
  const DbInfo info = db.info().value();
  EXPECT_EQ(info.trials, kWriters * kTrials);
  EXPECT_EQ(info.winners, kWriters);
  EXPECT_EQ(info.devices, 1);
}

TEST(DbSurvival, ThreadsMayShareOneDb) {
  const TempFolder folder;
  Db db = Db::open(folder.file("tuned.db"), DbMode::kReadWrite).value();
  const auto device = db.intern_device(sample_device()).value();
  const auto problem = db.intern_problem(sample_op(), sample_problem()).value();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10; ++n) {
        EXPECT_TRUE(db.record(sample_trial(problem, device)));
        EXPECT_TRUE(db.trials(problem, device));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(db.info().value().trials, 40);
}

// Everything a reader does. What it returns does not matter: it must return.
void read_all(const std::string& path) {
  for (const DbMode mode : {DbMode::kImmutable, DbMode::kReadOnly, DbMode::kReadWrite}) {
    auto db = Db::open(path, mode);
    if (!db) {
      EXPECT_FALSE(db.error().message.empty());
      continue;
    }
    (void)db->check();
    (void)db->info();
    (void)db->trials(1, 1, true);
    if (const auto rows = db->winners()) {
      for (const auto& row : *rows) {
        (void)plan_from_json(row.winner.plan_json);
        const auto object = db->object(row.winner.object_hash);
        EXPECT_TRUE(!object || hash_bytes(object->bytes) == row.winner.object_hash);
      }
    }
    if (const auto index = db->winner_index()) {
      for (const auto& entry : index->entries) (void)db->winner(entry.id);
    }
  }
}

TEST(DbSurvival, DamagedFilesAreReportedAndNeverCrash) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  ASSERT_TRUE(write_trials(path, 4, 12, -1));
  ASSERT_TRUE(write_trials(path, 5, 3, -1));
  const std::string whole = read_file(path).value();
  const std::string copy = folder.file("damaged.db");
  std::mt19937 random(11);
  const auto below = [&](std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
  };
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    switch (round % 4) {
      case 0:  // one bit
        bytes[below(bytes.size())] ^= static_cast<char>(1U << below(8));
        break;
      case 1:  // several bytes of one page's head, where its structure is
        for (int i = 0; i < 4; ++i)
          bytes[below(bytes.size() / 4096) * 4096 + below(64)] = static_cast<char>(below(256));
        break;
      case 2:  // cut off
        bytes.resize(below(bytes.size()));
        break;
      default:  // a stretch of noise
        for (std::size_t at = below(bytes.size()), i = 0; i < 200 && at + i < bytes.size(); ++i) {
          bytes[at + i] = static_cast<char>(below(256));
        }
    }
    std::filesystem::remove(copy + "-wal");
    std::filesystem::remove(copy + "-shm");
    std::ofstream(copy, std::ios::binary | std::ios::trunc) << bytes;
    read_all(copy);
  }
}

TEST(DbSurvival, CheckSeesAFlippedBitInEveryByteOfAnObject) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  ASSERT_TRUE(write_trials(path, 4, 1, -1));
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &raw), SQLITE_OK);
  sqlite3_stmt* read = nullptr;
  sqlite3_stmt* write = nullptr;
  ASSERT_EQ(sqlite3_prepare_v2(raw, "SELECT zstd FROM object", -1, &read, nullptr), SQLITE_OK);
  ASSERT_EQ(sqlite3_prepare_v2(raw, "UPDATE object SET zstd = ?", -1, &write, nullptr), SQLITE_OK);
  ASSERT_EQ(sqlite3_step(read), SQLITE_ROW);
  const std::string whole(static_cast<const char*>(sqlite3_column_blob(read, 0)),
                          static_cast<std::size_t>(sqlite3_column_bytes(read, 0)));
  sqlite3_finalize(read);
  ASSERT_GT(whole.size(), 10U);
  Db db = Db::open(path, DbMode::kReadOnly).value();
  std::size_t seen = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] ^= 4;
    sqlite3_bind_blob(write, 1, flipped.data(), static_cast<int>(flipped.size()), SQLITE_STATIC);
    ASSERT_EQ(sqlite3_step(write), SQLITE_DONE);
    sqlite3_reset(write);
    if (!db.check().value().empty()) ++seen;
  }
  sqlite3_finalize(write);
  sqlite3_close(raw);
  EXPECT_EQ(seen, whole.size());
}

}  // namespace
}  // namespace kgen
