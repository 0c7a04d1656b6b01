// Opening a file: whatever it is, one clear line, and the file is never left worse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <functional>

#include "base/text.h"
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
using ::testing::StartsWith;
using testing::TempFolder;

constexpr DbMode kAllModes[] = {DbMode::kReadWrite, DbMode::kReadOnly, DbMode::kImmutable};

std::string bytes_of(const std::string& path) { return read_file(path).value(); }

void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// Runs SQL on a file without any of kgen's care.
void sql(const std::string& path, const std::string& text) {
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &raw), SQLITE_OK);
  char* error = nullptr;
  sqlite3_exec(raw, text.c_str(), nullptr, nullptr, &error);
  EXPECT_EQ(error, nullptr) << error;
  sqlite3_close(raw);
}

// A file with one winner, closed.
void make_db(const std::string& path) {
  Db db = Db::open(path, DbMode::kReadWrite).value();
  const auto device = db.intern_device(sample_device()).value();
  const auto problem = db.intern_problem(sample_op(), sample_problem()).value();
  const auto trial = db.record(sample_trial(problem, device)).value();
  const auto object = sample_object("code");
  ASSERT_TRUE(db.publish(sample_winner(problem, device, trial, object), object));
}

// Opening fails in every mode with this text, and leaves the bytes and the folder as they were.
void expect_refused(const std::string& path, const std::string& text,
                    std::initializer_list<DbMode> modes = {DbMode::kReadWrite, DbMode::kReadOnly, DbMode::kImmutable}) {
  const std::string before = bytes_of(path);
  for (const DbMode mode : modes) {
    const auto db = Db::open(path, mode);
    ASSERT_FALSE(db) << "mode " << static_cast<int>(mode);
    EXPECT_EQ(db.error().kind, ErrorKind::kBadInput);
    EXPECT_THAT(db.error().message, StartsWith(path + ": "));
    EXPECT_THAT(db.error().message, HasSubstr(text));
    EXPECT_EQ(db.error().message.find('\n'), std::string::npos) << "one line";
  }
  EXPECT_EQ(bytes_of(path), before);
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
}

// Runs `work` in a child process as a user without privileges; false when it failed there.
bool as_nobody(const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) ::_exit(2);
    ::_exit(work() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(DbOpen, AClosedFileIsOneFile) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  make_db(path);
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
  EXPECT_FALSE(std::filesystem::exists(path + "-shm"));
  for (const DbMode mode : kAllModes) {
    Db db = Db::open(path, mode).value();
    EXPECT_EQ(db.winners().value().size(), 1U);
  }
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
  EXPECT_FALSE(std::filesystem::exists(path + "-shm"));
}

TEST(DbOpen, ReadingDoesNotChangeAByte) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  make_db(path);
  const std::string before = bytes_of(path);
  for (const DbMode mode : {DbMode::kReadOnly, DbMode::kImmutable}) {
    Db db = Db::open(path, mode).value();
    EXPECT_THAT(db.check().value(), IsEmpty());
    EXPECT_FALSE(db.intern_device(sample_device("another"))) << "not writable";
  }
  EXPECT_EQ(bytes_of(path), before);
}

TEST(DbOpen, AMissingFileIsNamedAndNotMade) {
  const TempFolder folder;
  for (const DbMode mode : {DbMode::kReadOnly, DbMode::kImmutable}) {
    const auto db = Db::open(folder.file("none.db"), mode);
    ASSERT_FALSE(db);
    EXPECT_EQ(db.error().kind, ErrorKind::kIo);
    EXPECT_THAT(db.error().message, HasSubstr("none.db: cannot be opened: No such file or directory"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(DbOpen, AFolderThatIsMissingIsNamed) {
  const TempFolder folder;
  const auto db = Db::open(folder.file("no/such/tuned.db"), DbMode::kReadWrite);
  ASSERT_FALSE(db);
  EXPECT_EQ(db.error().kind, ErrorKind::kIo);
  EXPECT_THAT(db.error().message, HasSubstr("No such file or directory"));
}

TEST(DbOpen, AFolderInPlaceOfAFileIsRefused) {
  const TempFolder folder;
  for (const DbMode mode : kAllModes) EXPECT_FALSE(Db::open(folder.path().string(), mode));
}

TEST(DbOpen, AnEmptyFileIsFilledByAWriterAndRefusedByAReader) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  put(path, "");
  expect_refused(path, "is empty", {DbMode::kReadOnly, DbMode::kImmutable});
  EXPECT_TRUE(Db::open(path, DbMode::kReadWrite));
  EXPECT_TRUE(Db::open(path, DbMode::kImmutable));
}

TEST(DbOpen, AnythingButADatabaseIsRefused) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  put(path, "kgen: 1\nops: []\n");
  expect_refused(path, "is not a kgen database");
  put(path, std::string(8192, 'x'));
  expect_refused(path, "is not a kgen database");
  put(path, std::string("SQLite format 3\0", 16) + std::string(4080, '\0'));
  for (const DbMode mode : kAllModes) EXPECT_FALSE(Db::open(path, mode));
}

TEST(DbOpen, AnotherProgramsDatabaseIsRefused) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  sql(path, "CREATE TABLE trial (id INTEGER PRIMARY KEY)");
  expect_refused(path, "another program");
  sql(path, "PRAGMA application_id=42");
  expect_refused(path, "another program");
  sql(path, "PRAGMA journal_mode=WAL");
  expect_refused(path, "another program");
}

TEST(DbOpen, ANewerSchemaIsRefused) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  make_db(path);
  sql(path, "PRAGMA user_version=8");
  expect_refused(path, "was written by a newer kgen (schema 8, this one knows 7)");
}

TEST(DbOpen, AnOlderSchemaIsRefusedForReadingAndMigratedForWriting) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::filesystem::copy_file("tests/db/data/version1.db", path);
  expect_refused(path, "was written by an older kgen (schema 1, this one reads 7)",
                 {DbMode::kReadOnly, DbMode::kImmutable});

  {
    Db db = Db::open(path, DbMode::kReadWrite).value();
    EXPECT_THAT(db.check().value(), IsEmpty());
  }
  Db db = Db::open(path, DbMode::kImmutable).value();
  EXPECT_EQ(db.info().value().schema_version, 7);
  const auto rows = db.winners().value();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].problem.dims_key, "k=8 m=4");
  EXPECT_EQ(rows[0].trial.time_us, 12.5);
  EXPECT_EQ(rows[0].trial.recorded_at_ms, 0) << "unknown for trials of version 1";
  EXPECT_EQ(db.object(rows[0].winner.object_hash).value().bytes, sample_object("code of version 1").bytes);
  const auto trials = db.trials(1, 1, true).value();
  ASSERT_EQ(trials.size(), 2U);
  EXPECT_EQ(trials[0].samples_us, (std::vector<float>{12.5F, 12.5F}));
  EXPECT_EQ(trials[1].status, TrialStatus::kHung);
}

TEST(DbOpen, WinnersOfVersion3AreThoseOfTheirTimingAndOfTime) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::filesystem::copy_file("tests/db/data/version3.db", path);
  Db db = Db::open(path, DbMode::kReadWrite).value();
  EXPECT_THAT(db.check().value(), IsEmpty());
  const auto rows = db.winners().value();
  ASSERT_EQ(rows.size(), 3U);
  for (const WinnerRow& row : rows) {
    EXPECT_EQ(row.winner.goal, (Goal{.timing = row.problem.dims_key == "k=8 m=4" ? "graph" : "cold"}));
    EXPECT_FALSE(row.trial.energy_uj);
    EXPECT_FALSE(row.trial.deterministic) << "not checked";
  }
  EXPECT_EQ(rows[0].trial.temperature_c, 61);
  EXPECT_EQ(rows[0].trial.throttle, "power cap");
  EXPECT_TRUE(rows[1].winner.is_default);
  const auto trials = db.trials(1, 1, true).value();
  EXPECT_EQ(trials[0].samples_us, (std::vector<float>{12.5F, 12.5F}));
  EXPECT_THAT(trials[0].states, IsEmpty());
}

TEST(DbOpen, WinnersOfVersion4ServeTheirProblemsAlone) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::filesystem::copy_file("tests/db/data/version4.db", path);
  Db db = Db::open(path, DbMode::kReadWrite).value();
  EXPECT_THAT(db.check().value(), IsEmpty());
  const auto rows = db.winners().value();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].winner.goal, (Goal{.timing = "cold", .objective = "energy", .deterministic = true}));
  EXPECT_EQ(rows[0].trial.energy_uj, 5250.5);
  EXPECT_TRUE(rows[1].winner.is_default);
  for (const WinnerRow& row : rows) EXPECT_FALSE(row.winner.range);
}

TEST(DbOpen, EveryEarlierVersionReachesThisOneAndIsWhole) {
  for (int version = 1; version < 7; ++version) {
    SCOPED_TRACE(version);
    const TempFolder folder;
    const std::string path = folder.file("tuned.db");
    std::filesystem::copy_file("tests/db/data/version" + std::to_string(version) + ".db", path);
    EXPECT_EQ(Db::migrate(path).value(), version);
    Db db = Db::open(path, DbMode::kImmutable).value();
    EXPECT_THAT(db.check().value(), IsEmpty());
    EXPECT_GE(db.info().value().trials, 2);
    EXPECT_THAT(db.signatures().value(), IsEmpty());
    const auto rows = db.winners().value();
    ASSERT_FALSE(rows.empty());
    EXPECT_EQ(rows[0].trial.config, "matrix tile_m=128");
    EXPECT_EQ(rows[0].trial.time_us, 12.5);
    EXPECT_TRUE(db.object(rows[0].winner.object_hash));
  }
}

TEST(DbOpen, RangesAndSamplesOfVersion6Stay) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::filesystem::copy_file("tests/db/data/version6.db", path);
  Db db = Db::open(path, DbMode::kReadWrite).value();
  const auto rows = db.winners().value();
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[2].winner.range, (SizeRange{.dim = "m", .first = 1, .last = 64, .loss = 0.02}));
  EXPECT_EQ(rows[0].trial.energy_uj, 5250.5);
  EXPECT_EQ(db.trials(1, 1, true).value()[0].samples_us, (std::vector<float>{12.5F, 12.5F}));
}

TEST(DbOpen, AnOldFileWithAnythingThatIsNotOursIsRefusedBeforeItIsMigrated) {
  for (const char* change :
       {"CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "CREATE TRIGGER evil AFTER INSERT ON trial BEGIN DELETE FROM winner; END",
        "CREATE TABLE more (id INTEGER PRIMARY KEY)", "DROP INDEX trial_by_problem"}) {
    SCOPED_TRACE(change);
    const TempFolder folder;
    const std::string path = folder.file("tuned.db");
    std::filesystem::copy_file("tests/db/data/version3.db", path);
    sql(path, change);
    const auto refused = Db::migrate(path);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::kBadInput) << refused.error().message;
    EXPECT_THAT(Db::open(path, DbMode::kImmutable).error().message, HasSubstr("older kgen")) << "still version 3";
  }
}

// What a file may hold that is meant to harm: refused in one line, within a second, or without effect.
class Hostile : public ::testing::Test {
 protected:
  Hostile() { make_db(path_); }
  // The faults that `kgen db check` tells, after this SQL.
  std::vector<std::string> faults(const std::string& change) {
    sql(path_, change);
    return Db::open(path_, DbMode::kReadOnly).value().check().value();
  }
  TempFolder folder_;
  std::string path_ = folder_.file("tuned.db");
};

TEST_F(Hostile, AnObjectThatClaimsMoreThanItCanHoldIsRefusedBeforeMemoryIsTaken) {
  for (const char* size : {"9223372036854775807", "68719476736", "67108865", "60000000"}) {
    SCOPED_TRACE(size);
    EXPECT_THAT(faults(std::string("UPDATE object SET size=") + size),
                ::testing::Contains(HasSubstr("compressed ones; refused")));
    Db db = Db::open(path_, DbMode::kImmutable).value();
    EXPECT_FALSE(db.object(db.winners().value()[0].winner.object_hash));
  }
}

TEST_F(Hostile, AFrameThatUnpacksToMoreThanWasDeclaredIsRefused) {
  // 4 MiB of zeros in a few hundred bytes, declared as one.
  const ObjectRecord zeros = [] {
    ObjectRecord object{.hash = {}, .arch = "sm_90", .kind = "cubin", .bytes = std::vector<std::byte>(4 << 20)};
    object.hash = hash_bytes(object.bytes);
    return object;
  }();
  Db db = Db::open(path_, DbMode::kReadWrite).value();
  const auto published = db.publish(sample_winner(1, 1, 1, zeros), zeros);
  ASSERT_FALSE(published) << "what readers refuse is not written";
  EXPECT_THAT(published.error().message, HasSubstr("readers refuse"));
  EXPECT_THAT(faults("UPDATE object SET size=1"), ::testing::Contains(HasSubstr("does not match its hash")));
}

TEST_F(Hostile, AnOversizedBlobIsRefused) {
  // 100 MB of text in a column that holds a word.
  sql(path_, "UPDATE op SET attributes=hex(zeroblob(50000000))");
  Db db = Db::open(path_, DbMode::kImmutable).value();
  EXPECT_FALSE(db.winners());
  EXPECT_FALSE(db.winner_index());
}

TEST_F(Hostile, AnObjectForAnotherArchitectureIsAFault) {
  EXPECT_THAT(faults("UPDATE object SET arch='gfx942'"),
              ::testing::Contains(HasSubstr("is for gfx942, its device is sm_90")));
}

TEST_F(Hostile, ValuesThatCannotBeAreFaults) {
  for (const char* change :
       {"UPDATE device SET compute_units=-1", "UPDATE trial SET registers=-5", "UPDATE trial SET recorded_at=-1",
        "UPDATE problem SET flops=9e999", "UPDATE problem SET dims_json='{'", "UPDATE op SET op='other'",
        "UPDATE trial SET temperature_c=100000", "UPDATE winner SET dim='zz', last=8"}) {
    SCOPED_TRACE(change);
    EXPECT_EQ(faults(std::string("PRAGMA ignore_check_constraints=ON; ") + change).size(), 1U);
    std::filesystem::remove(path_);
    make_db(path_);
  }
}

TEST_F(Hostile, ATextWithControlCharactersIsOneLineInAMessage) {
  sql(path_, "UPDATE plan SET hash='x' || char(10, 27) || '[31mred' || char(155) || '2J'");
  Db db = Db::open(path_, DbMode::kImmutable).value();
  const auto rows = db.winners();
  ASSERT_FALSE(rows);
  EXPECT_THAT(rows.error().message, HasSubstr("x\\x0a\\x1b[31mred\\xc2\\x9b2J"));
}

TEST_F(Hostile, ASchemaOfAMillionCharactersIsRefused) {
  std::string columns = "a0";
  for (int i = 1; i < 1500; ++i)
    columns += ", a_rather_long_name_of_a_column_" + std::to_string(i) + " TEXT DEFAULT 'x'";
  sql(path_, "CREATE TABLE wide (" + columns + ")");
  for (const DbMode mode : kAllModes) EXPECT_FALSE(Db::open(path_, mode));
}

TEST_F(Hostile, ReadingARecursiveQueryInAGeneratedColumnNeverHappens) {
  sql(path_,
      "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=replace(sql, 'json TEXT NOT NULL', "
      "'json TEXT NOT NULL CHECK (json <> (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
      "SELECT count(*) FROM n))') WHERE name='plan'");
  for (const DbMode mode : kAllModes) EXPECT_FALSE(Db::open(path_, mode));
}

TEST(DbOpen, MigrateChangesOldFilesOnly) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::filesystem::copy_file("tests/db/data/version1.db", path);
  EXPECT_EQ(Db::migrate(path).value(), 1);
  EXPECT_EQ(Db::migrate(path).value(), std::nullopt);
  EXPECT_TRUE(Db::open(path, DbMode::kReadOnly));
  EXPECT_FALSE(Db::migrate(folder.file("absent.db")));
  EXPECT_FALSE(std::filesystem::exists(folder.file("absent.db")));
}

TEST(DbOpen, AMigrationThatFailsLeavesTheOldFile) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  std::filesystem::copy_file("tests/db/data/version1.db", path);
  sql(path, "CREATE TABLE extra (id INTEGER PRIMARY KEY)");
  EXPECT_FALSE(Db::open(path, DbMode::kReadWrite));
  sql(path, "DROP TABLE extra");
  EXPECT_TRUE(Db::open(path, DbMode::kReadWrite)) << "still version 1, and whole";
}

TEST(DbOpen, ASchemaWithAnythingThatIsNotOursIsRefused) {
  for (const char* change : {
           "CREATE TRIGGER evil AFTER INSERT ON trial BEGIN DELETE FROM winner; END",
           "CREATE VIEW v AS SELECT load_extension('evil')",
           "CREATE TABLE more (id INTEGER PRIMARY KEY)",
           "CREATE INDEX more ON trial (abs(time_us))",
           "ALTER TABLE winner ADD COLUMN more INTEGER",
           "DROP INDEX trial_by_problem",
           "DROP TABLE sample",
       }) {
    SCOPED_TRACE(change);
    const TempFolder folder;
    const std::string path = folder.file("tuned.db");
    make_db(path);
    sql(path, change);
    expect_refused(path, path + ": ");
  }
}

TEST(DbOpen, AViewInPlaceOfATableIsRefused) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  make_db(path);
  sql(path, "DROP TABLE sample; CREATE VIEW sample AS SELECT 1 AS trial, x'00000000' AS us");
  expect_refused(path, "view sample, which kgen did not make");
}

TEST(DbOpen, ATruncatedFileIsRefused) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  make_db(path);
  const std::string whole = bytes_of(path);
  for (const std::size_t size : {std::size_t{1}, std::size_t{50}, std::size_t{99}, std::size_t{100}, std::size_t{4096},
                                 whole.size() / 2, whole.size() - 4096, whole.size() - 1}) {
    SCOPED_TRACE(size);
    put(path, whole.substr(0, size));
    expect_refused(path, path);
  }
}

TEST(DbOpen, PathsWithUriCharactersWork) {
  const TempFolder folder;
  const std::string path = folder.file("a b?mode=rw#100%25.db");
  make_db(path);
  EXPECT_EQ(Db::open(path, DbMode::kImmutable).value().winners().value().size(), 1U);
  EXPECT_EQ(Db::open(path, DbMode::kReadOnly).value().winners().value().size(), 1U);
}

TEST(DbOpen, AReadOnlyFolderCanBeReadAndSaysSoWhenWritten) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  make_db(path);
  ::chmod(path.c_str(), 0444);
  ::chmod(folder.path().c_str(), 0555);
  for (const DbMode mode : {DbMode::kReadOnly, DbMode::kImmutable}) {
    EXPECT_TRUE(as_nobody([&] {
      auto db = Db::open(path, mode);
      return db && db->winners().value().size() == 1;
    }));
  }
  EXPECT_TRUE(as_nobody([&] {
    const auto db = Db::open(path, DbMode::kReadWrite);
    return !db && db.error().kind == ErrorKind::kIo &&
           db.error().message.find("cannot be written") != std::string::npos;
  }));
  EXPECT_TRUE(as_nobody([&] {
    const auto db = Db::open(folder.file("new.db"), DbMode::kReadWrite);
    return !db && db.error().kind == ErrorKind::kIo;
  }));
  ::chmod(folder.path().c_str(), 0755);
}

TEST(DbOpen, RowsThatAreStillInTheWalAreSeen) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  Db writer = Db::open(path, DbMode::kReadWrite).value();
  ASSERT_TRUE(writer.intern_device(sample_device()));
  ASSERT_GT(std::filesystem::file_size(path + "-wal"), 0U);
  for (const DbMode mode : {DbMode::kReadOnly, DbMode::kImmutable}) {
    EXPECT_EQ(Db::open(path, mode).value().info().value().devices, 1);
  }
}

TEST(DbOpen, AWalThatCannotBeMergedIsNeverSkipped) {
  const TempFolder folder;
  const TempFolder frozen;
  const std::string path = frozen.file("tuned.db");
  {
    Db writer = Db::open(folder.file("tuned.db"), DbMode::kReadWrite).value();
    ASSERT_TRUE(writer.intern_device(sample_device()));
    std::filesystem::copy_file(folder.file("tuned.db"), path);
    std::filesystem::copy_file(folder.file("tuned.db-wal"), path + "-wal");
  }
  ::chmod(frozen.path().c_str(), 0555);
  EXPECT_TRUE(as_nobody([&] {
    const auto db = Db::open(path, DbMode::kImmutable);
    return !db && db.error().kind == ErrorKind::kIo && db.error().message.find("-wal") != std::string::npos;
  }));
  ::chmod(frozen.path().c_str(), 0755);
  EXPECT_EQ(Db::open(path, DbMode::kImmutable).value().info().value().devices, 1);
}

TEST(DbOpen, AFullDiskLosesOnlyTheStepInHand) {
  const TempFolder folder;
  const std::string path = folder.file("tuned.db");
  make_db(path);
  const auto fill_up = [&path] {
    // No disk can be filled here: a limit on file size makes the same write fail.
    Db db = Db::open(path, DbMode::kReadWrite).value();
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{256 * 1024, 256 * 1024};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    TrialRecord trial = sample_trial(1, 1);
    trial.samples_us.assign(10'000, 1.F);
    for (int i = 0; i < 100; ++i) {
      const auto id = db.record(trial);
      if (id) continue;
      std::fputs(id.error().message.c_str(), stderr);
      ::_exit(id.error().kind == ErrorKind::kIo && db.check().value().empty() ? 7 : 1);
    }
  };
  EXPECT_EXIT(fill_up(), ::testing::ExitedWithCode(7), "tuned.db: ");
  Db db = Db::open(path, DbMode::kReadWrite).value();
  EXPECT_THAT(db.check().value(), IsEmpty());
  EXPECT_EQ(db.winners().value().size(), 1U);
  EXPECT_TRUE(db.record(sample_trial(1, 1)));
}

}  // namespace
}  // namespace kgen
