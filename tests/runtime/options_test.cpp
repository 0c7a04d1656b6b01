// What a program may switch on: a second file, the record of what was launched, the miss hook, the guard.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "kgen/kgen.h"
#include "tests/db/records.h"
#include "tests/runtime/host_db.h"

namespace kgen {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HostWinner;
using testing::make_host_db;
using ::testing::StartsWith;
using testing::TempFolder;
using Json = nlohmann::json;

class Options : public ::testing::Test {
 protected:
  std::string make(const std::string& name, const std::vector<HostWinner>& winners) {
    const std::string path = folder_.file(name);
    const auto made = make_host_db(path, KGEN_HOST_KERNEL, winners);
    EXPECT_TRUE(made) << made.error().message;
    return path;
  }
  void open(const std::string& path) { ASSERT_EQ(kgen_open(path.c_str(), "host", &db_), KGEN_OK) << kgen_last_error(); }
  void open_op(const char* attributes = "dtype=fp32", const kgen_goal* goal = nullptr) {
    kgen_close_op(op_);
    op_ = nullptr;
    ASSERT_EQ(kgen_open_op_for(db_, "row_scale", attributes, "rows,cols", goal, &op_), KGEN_OK) << kgen_last_error();
  }
  kgen_match find(std::int64_t rows, std::int64_t cols, kgen_status want = KGEN_OK) {
    const std::int64_t values[] = {rows, cols};
    kgen_match match;
    EXPECT_EQ(kgen_find(op_, values, &match), want) << kgen_last_error();
    return match;
  }
  void launch(const kgen_match& match, std::int64_t rows, std::int64_t cols) {
    std::vector<void*> buffers;
    for (const std::int64_t bytes :
         {rows * cols * 4, cols * 4, rows * cols * 4, static_cast<std::int64_t>(match.workspace_bytes),
          static_cast<std::int64_t>(match.prepared_bytes)})
      buffers.push_back(kgen_device_alloc(db_, static_cast<std::size_t>(bytes)));
    void* tensors[] = {buffers[0], buffers[1], nullptr, buffers[2]};
    EXPECT_EQ(kgen_launch(match.kernel, tensors, nullptr, buffers[3], buffers[4], nullptr), KGEN_OK)
        << kgen_last_error();
    for (void* buffer : buffers) kgen_device_free(db_, buffer);
  }
  void close() {
    kgen_close_op(op_);
    kgen_close(db_);
    op_ = nullptr;
    db_ = nullptr;
  }
  void TearDown() override { close(); }
  std::vector<Json> lines(const std::string& path) {
    std::vector<Json> found;
    for (const std::string& line : split(read_file(path).value_or(""), '\n'))
      if (!line.empty()) found.push_back(Json::parse(line));
    return found;
  }

  TempFolder folder_;
  kgen_db* db_ = nullptr;
  kgen_op* op_ = nullptr;
};

TEST_F(Options, ATunedShapeOfAnAddedFileComesBeforeANearOneOfTheFirst) {
  open(make("first.db", {{.config = "first"}}));
  const std::string second =
      make("second.db", {{.config = "second"}, {.dims_key = "cols=20 rows=8", .config = "more"}});
  open_op();
  EXPECT_STREQ(find(8, 20).config, "first");
  ASSERT_EQ(kgen_add(db_, second.c_str()), KGEN_OK) << kgen_last_error();
  EXPECT_STREQ(find(8, 20).reason, "exact: tuned for this shape");
  EXPECT_STREQ(find(8, 20).config, "more");
  EXPECT_STREQ(find(8, 16).config, "first") << "among equals the first file's counts";
  EXPECT_STREQ(find(8, 17).config, "first");
}

TEST_F(Options, AnAddedFileNeedNotExistYetAndItsOperatorsCount) {
  open(make("first.db", {{}}));
  ASSERT_EQ(kgen_add(db_, folder_.file("later.db").c_str()), KGEN_OK) << kgen_last_error();
  EXPECT_EQ(kgen_open_op(db_, "row_scale", "dtype=fp32 epilogue=bias", "rows,cols", &op_), KGEN_NOT_FOUND);
  make("later.db", {{.config = "later", .with_bias = true}});
  int changed = 0;
  ASSERT_EQ(kgen_reload(db_, &changed), KGEN_OK);
  EXPECT_EQ(changed, 1);
  open_op("dtype=fp32 epilogue=bias");
  EXPECT_STREQ(find(8, 16).config, "later");
  std::string text(4096, 'x');
  ASSERT_TRUE(write_file(folder_.file("bad.db"), text));
  EXPECT_EQ(kgen_add(db_, folder_.file("bad.db").c_str()), KGEN_BAD_DATABASE);
  EXPECT_EQ(kgen_reload(db_, nullptr), KGEN_OK) << "a file that could not be added is forgotten";
}

TEST_F(Options, LaunchesAreRecordedWithTheirCountsAndKinds) {
  open(make("tuned.db", {{.config = "tuned", .needs = {"cols % 4 == 0"}, .time_us = 12}}));
  const std::string path = folder_.file("trace.jsonl");
  ASSERT_EQ(kgen_record(db_, path.c_str()), KGEN_OK) << kgen_last_error();
  open_op();
  for (int i = 0; i < 3; ++i) launch(find(8, 16), 8, 16);
  launch(find(16, 16), 16, 16);
  for (int i = 0; i < 2; ++i) find(8, 17, KGEN_NOT_FOUND);
  find(8, 20);  // never launched
  ASSERT_EQ(kgen_record(db_, path.c_str()), KGEN_OK);
  launch(find(8, 16), 8, 16);  // it was first seen by the record before
  launch(find(8, 24), 8, 24);
  close();
  const std::vector<Json> found = lines(path);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[0]["op"], "row_scale");
  EXPECT_EQ(found[0]["attributes"]["dtype"], "fp32");
  EXPECT_EQ(found[0]["dims"], (Json{{"rows", 8}, {"cols", 16}}));
  EXPECT_EQ(found[0]["kind"], "exact");
  EXPECT_EQ(found[0]["count"], 3);
  EXPECT_EQ(found[0]["expected_us"], 12);
  EXPECT_EQ(found[0]["arch"], "host");
  EXPECT_GE(found[0]["last"], found[0]["first"]);
  EXPECT_EQ(found[1]["kind"], "near");
  EXPECT_EQ(found[1]["count"], 1);
  EXPECT_EQ(found[2]["kind"], "none");
  EXPECT_EQ(found[2]["count"], 2);
  EXPECT_THAT(found[2]["reason"], HasSubstr("needs 'cols % 4 == 0'"));
  EXPECT_EQ(found[3]["dims"]["cols"], 24);
}

TEST_F(Options, TheEnvironmentRecordsEveryDb) {
  const std::string path = folder_.file("trace.jsonl"), file = make("tuned.db", {{}});
  ::setenv("KGEN_TRACE", path.c_str(), 1);
  open(file);
  ::setenv("KGEN_TRACE", folder_.file("no/such/folder").c_str(), 1);
  kgen_db* none = nullptr;
  EXPECT_EQ(kgen_open(file.c_str(), "host", &none), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_last_error(), AllOf(StartsWith("KGEN_TRACE: "), HasSubstr("cannot be written")));
  ::unsetenv("KGEN_TRACE");
  open_op();
  launch(find(8, 16), 8, 16);
  close();
  EXPECT_EQ(lines(path).size(), 1U);
}

// A key that a program demands.
class RequiredKey : public Options {
 protected:
  kgen_status open_with(const std::string& path, const char* key) {
    close();
    kgen_open_options options{};
    options.size = sizeof options;
    options.key = key;
    return kgen_open_with(path.c_str(), "host", &options, &db_);
  }
  std::string make_signed(const std::string& name, const std::vector<HostWinner>& winners) {
    std::string path = make(name, winners);
    EXPECT_TRUE(Db::open(path, DbMode::kReadWrite).value().sign(key_));
    return path;
  }
  static void sql(const std::string& path, const std::string& text) {
    sqlite3* raw = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &raw), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(raw, text.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(raw);
    sqlite3_close(raw);
  }
  const PrivateKey key_ = PrivateKey::generate();
  const std::string public_ = key_.public_key().text();
};

TEST_F(RequiredKey, AFileThatItsOwnerSignedIsUsedAndOthersAreNot) {
  const std::string path = make_signed("tuned.db", {{}});
  ASSERT_EQ(open_with(path, public_.c_str()), KGEN_OK) << kgen_last_error();
  open_op();
  launch(find(8, 16), 8, 16);
  EXPECT_EQ(open_with(path, PrivateKey::generate().public_key().text().c_str()), KGEN_BAD_DATABASE);
  EXPECT_THAT(kgen_last_error(), HasSubstr("is not signed with the required key"));
  EXPECT_EQ(open_with(make("unsigned.db", {{}}), public_.c_str()), KGEN_BAD_DATABASE);
  EXPECT_EQ(open_with(path, nullptr), KGEN_OK) << "none is required";
  close();
  EXPECT_EQ(kgen_open_with(path.c_str(), "host", nullptr, &db_), KGEN_OK);
}

TEST_F(RequiredKey, KeysAndOptionsThatAreNoneAreNamed) {
  const std::string path = make_signed("tuned.db", {{}});
  EXPECT_EQ(open_with(path, "release.key"), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_last_error(), HasSubstr("open_options.key: not a public key"));
  EXPECT_EQ(open_with(path, key_.text().c_str()), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_last_error(), HasSubstr("private key"));
  kgen_open_options options{};
  EXPECT_EQ(kgen_open_with(path.c_str(), "host", &options, &db_), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_last_error(), HasSubstr("set it to sizeof(kgen_open_options)"));
  struct {
    kgen_open_options known{sizeof(kgen_open_options) + 8, nullptr};
    std::uint64_t more = 0;
  } later;
  EXPECT_EQ(kgen_open_with(path.c_str(), "host", &later.known, &db_), KGEN_OK) << "a later header, nothing asked";
  close();
  later.more = 1;
  EXPECT_EQ(kgen_open_with(path.c_str(), "host", &later.known, &db_), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_last_error(), HasSubstr("update libkgen"));
}

TEST_F(RequiredKey, AnObjectThatWasExchangedIsRefusedAndTheNextMatchServes) {
  const std::string path =
      make_signed("tuned.db", {{.code_suffix = "a"}, {.dims_key = "cols=16 rows=9", .code_suffix = "b"}});
  // The other kernel's bytes under the first one's hash: what somebody can do who finds a collision of XXH3 is found by
  // the digest; here already by the hash.
  sql(path, "UPDATE object SET zstd=(SELECT zstd FROM object WHERE id=2) WHERE id=1");
  ASSERT_EQ(open_with(path, public_.c_str()), KGEN_OK) << kgen_last_error();
  open_op();
  const kgen_match match = find(8, 16);
  EXPECT_EQ(match.kind, KGEN_MATCH_NEAR);
  EXPECT_THAT(match.reason, HasSubstr("refused the one of cols=16 rows=8"));
  sql(path, "UPDATE trial SET time_us=1");
  ASSERT_EQ(open_with(path, public_.c_str()), KGEN_OK);
  EXPECT_NE(kgen_open_op(db_, "row_scale", "dtype=fp32", "rows,cols", &op_), KGEN_OK);
  EXPECT_THAT(kgen_last_error(), HasSubstr("is not as it was signed"));
}

TEST_F(RequiredKey, AddedAndReloadedFilesNeedItToo) {
  const std::string path = make_signed("tuned.db", {{}});
  ASSERT_EQ(open_with(path, public_.c_str()), KGEN_OK);
  EXPECT_EQ(kgen_add(db_, make("local.db", {{.dims_key = "cols=32 rows=8"}}).c_str()), KGEN_BAD_DATABASE);
  EXPECT_THAT(kgen_last_error(), HasSubstr("local.db: is not signed"));
  EXPECT_EQ(kgen_add(db_, make_signed("theirs.db", {{.dims_key = "cols=32 rows=8"}}).c_str()), KGEN_OK);
  make("next.db", {{}, {.dims_key = "cols=64 rows=8"}});
  std::filesystem::rename(folder_.file("next.db"), path);
  EXPECT_EQ(kgen_reload(db_, nullptr), KGEN_BAD_DATABASE);
  open_op();
  launch(find(8, 16), 8, 16);  // as before
  EXPECT_TRUE(Db::open(path, DbMode::kReadWrite).value().sign(key_));
  int changed = 0;
  EXPECT_EQ(kgen_reload(db_, &changed), KGEN_OK) << kgen_last_error();
  EXPECT_EQ(changed, 1);
  EXPECT_EQ(find(8, 64).kind, KGEN_MATCH_EXACT);
}

TEST_F(Options, TextsOfTheFileThatAreShownHaveNoControlCharacters) {
  const std::string path = make("tuned.db", {{.config = "plain\x1b[2J\n", .needs = {"rows % 8 == 0"}}});
  open(path);
  open_op();
  EXPECT_STREQ(find(8, 16).config, "plain\\x1b[2J\\x0a");
}

TEST_F(Options, TheMissHookHearsOfEachShapeThatNothingWasTunedFor) {
  open(make("tuned.db", {{.needs = {"cols % 4 == 0"}}}));
  std::vector<std::string> heard;
  const auto hook = [](void* user, const char* op, const char* attributes, const char* dims, kgen_match_kind kind) {
    static_cast<std::vector<std::string>*>(user)->push_back(std::string(op) + "|" + attributes + "|" + dims + "|" +
                                                            std::to_string(kind));
  };
  ASSERT_EQ(kgen_set_miss_hook(db_, hook, &heard), KGEN_OK);
  open_op();
  find(8, 16);
  for (int i = 0; i < 3; ++i) find(8, 20);
  find(8, 17, KGEN_NOT_FOUND);
  EXPECT_THAT(heard, ElementsAre("row_scale|dtype=fp32 epilogue=|cols=20 rows=8|2",
                                 "row_scale|dtype=fp32 epilogue=|cols=17 rows=8|0"));
  ASSERT_EQ(kgen_set_miss_hook(db_, nullptr, nullptr), KGEN_OK);
  find(8, 24);
  EXPECT_EQ(heard.size(), 2U);
}

TEST_F(Options, TheGuardKeepsTheFasterOfTunedAndDefault) {
  open(
      make("tuned.db", {{.config = "slow", .repeats = 400},
                        {.config = "quick default", .is_default = true},
                        {.dims_key = "cols=32 rows=8", .config = "quick"},
                        {.dims_key = "cols=32 rows=8", .config = "slow default", .is_default = true, .repeats = 400}}));
  open_op();
  EXPECT_STREQ(find(8, 16).config, "slow");
  kgen_goal goal = {sizeof goal, KGEN_TIMING_COLD, KGEN_OBJECTIVE_TIME, 0, 0, 1};
  open_op("dtype=fp32", &goal);
  const kgen_match match = find(8, 16);
  EXPECT_EQ(match.kind, KGEN_MATCH_DEFAULT);
  EXPECT_STREQ(match.config, "quick default");
  EXPECT_THAT(match.reason,
              AllOf(StartsWith("default: the operator's default; guarded: "), HasSubstr("the tuned one ")));
  launch(match, 8, 16);
  EXPECT_EQ(find(8, 16).kernel, match.kernel) << "timed once";
  const kgen_match kept = find(8, 32);
  EXPECT_STREQ(kept.config, "quick");
  EXPECT_THAT(kept.reason, AllOf(StartsWith("exact: tuned for this shape; guarded: "), HasSubstr("the default ")));
}

TEST_F(Options, AGoalOfAnOlderProgramAsksForNoGuard) {
  open(make("tuned.db", {{.config = "slow", .repeats = 400}, {.config = "quick default", .is_default = true}}));
  kgen_goal goal = {24, KGEN_TIMING_COLD, KGEN_OBJECTIVE_TIME, 0, 77, 77};  // what stood behind its smaller struct
  open_op("dtype=fp32", &goal);
  EXPECT_STREQ(find(8, 16).reason, "exact: tuned for this shape");
}

}  // namespace
}  // namespace kgen
