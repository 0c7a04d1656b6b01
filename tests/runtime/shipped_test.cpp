// The database that ships with kgen, as a program finds it that names none, on stand-ins of an H100 and of AMD cards
// (tests/device/fake_driver.h): each shape of it is an exact match where it was tuned, and an untimed default where
// not. Each device is a process of its own, for a driver is loaded once.
#include "runtime/shipped.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/text.h"
#include "kgen/kgen.h"
#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempFolder;

// Looks every shape up that the file has for an architecture, as `device`. The number of those that are not served as
// they should be, each told; 100 where the file cannot be opened.
int look_up_all(const std::string& path, const std::string& arch, const char* device) {
  kgen_db* db = nullptr;
  if (kgen_open(nullptr, device, &db) != KGEN_OK) {
    std::fprintf(stderr, "%s\n", kgen_last_error());
    return 100;
  }
  Db read = Db::open(path, DbMode::kImmutable).value();
  const std::vector<WinnerRow> rows = read.winners().value();
  int wrong = 0;
  for (const WinnerRow& row : rows) {
    if (row.device.arch != arch || (row.winner.is_default && !untimed(row.trial))) continue;
    std::vector<std::string> names, words = split(row.op.signature, ' ');
    std::vector<std::int64_t> values;
    for (const std::string& word : split(row.problem.dims_key, ' ')) {
      const std::size_t equals = word.find('=');
      names.push_back(word.substr(0, equals));
      values.push_back(std::stoll(word.substr(equals + 1)));
    }
    words.erase(words.begin());
    kgen_op* op = nullptr;
    kgen_match match{};
    const bool timed = !untimed(row.trial);
    const bool found =
        kgen_open_op(db, row.op.op.c_str(), join(words, " ").c_str(), join(names, ",").c_str(), &op) == KGEN_OK &&
        kgen_find(op, values.data(), &match) == KGEN_OK;
    const std::string reason = found ? match.reason : kgen_last_error();
    const bool as_it_should = found && (timed ? match.kind == KGEN_MATCH_EXACT && match.tuned_time_us > 0
                                              : match.kind == KGEN_MATCH_DEFAULT && match.tuned_time_us == 0 &&
                                                    reason.find("for this shape, not timed") != std::string::npos);
    if (!as_it_should && ++wrong < 10)
      std::fprintf(stderr, "%s %s %s: kind %d, %s\n", arch.c_str(), row.op.signature.c_str(),
                   row.problem.dims_key.c_str(), match.kind, reason.c_str());
    kgen_close_op(op);
  }
  kgen_close(db);
  return std::min(wrong, 99);
}

class Shipped : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("KGEN_CUDA_LIBRARY", KGEN_FAKE_CUDA, 1);
    setenv("KGEN_HIP_LIBRARY", KGEN_FAKE_HIP, 1);
  }
  void TearDown() override {
    for (const char* name : {"KGEN_CUDA_LIBRARY", "KGEN_HIP_LIBRARY", "KGEN_FAKE_ARCH", "KGEN_SHIPPED_DB"})
      unsetenv(name);
  }
  static void expect_all_served(const std::string& path) {
    setenv("KGEN_SHIPPED_DB", path.c_str(), 1);
    Db db = Db::open(path, DbMode::kImmutable).value();
    EXPECT_THAT(db.check().value(), IsEmpty());
    const DbInfo info = db.info().value();
    std::set<std::string> archs;
    for (const DeviceRecord& device : info.device_list) archs.insert(device.arch);
    for (const std::string& arch : archs) {
      const bool amd = arch.starts_with("gfx");
      const pid_t child = ::fork();
      if (child == 0) {
        setenv("KGEN_FAKE_ARCH", amd ? arch.c_str() : arch.substr(3).c_str(), 1);
        ::_exit(look_up_all(path, arch, arch == "host" ? "host" : amd ? "amd:0" : "nvidia:0"));
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
          << arch << ": " << (WIFEXITED(status) ? WEXITSTATUS(status) : -1)
          << " shapes are not served as they should be";
    }
  }
};

// A file with the same kinds of rows.
void make_small(const std::string& path) {
  Db db = Db::open(path, DbMode::kReadWrite).value();
  const OpRecord op{.signature = "gemm b_layout=nk dtype=bf16 epilogue=",
                    .op = "gemm",
                    .dims = "m,n,k",
                    .dim_defaults = "\n\n",
                    .attributes = "dtype= b_layout=nk epilogue="};
  Plan plan;
  plan.dims = {"m", "n", "k"};
  plan.dim_defaults.resize(3);
  for (const char* arch : {"sm_90", "gfx90a", "gfx1201"}) {
    const bool amd = std::string(arch).starts_with("gfx");
    DeviceRecord device = testing::sample_device();
    if (amd) device = {.arch = arch, .name = std::string("any ") + arch, .driver = "", .uuid = ""};
    const auto device_id = db.intern_device(device).value();
    for (const char* dims : {"k=64 m=1 n=64", "k=64 m=16 n=64"}) {
      const auto problem = db.intern_problem(op, {.dims_key = dims, .dims_json = "{}", .label = ""}).value();
      TrialRecord trial = testing::sample_trial(problem, device_id, amd ? TrialStatus::kCompiled : TrialStatus::kTimed);
      if (amd) trial.reason = "not timed, not run";
      ObjectRecord object = testing::sample_object(std::string(arch) + dims);
      object.arch = arch;
      object.kind = amd ? "elf-amdgpu" : "cubin";
      WinnerRecord winner = testing::sample_winner(problem, device_id, db.record(trial).value(), object);
      winner.is_default = amd;
      winner.plan_json = plan_to_json(plan);
      ASSERT_TRUE(db.publish(winner, object));
    }
  }
}

TEST_F(Shipped, EveryShapeOfASmallOneIsServedAsItSays) {
  const TempFolder folder;
  make_small(folder.file("shipped.db"));
  expect_all_served(folder.file("shipped.db"));
}

TEST_F(Shipped, EveryShapeOfTheRealOneIsServedAsItSays) {
  if (!std::filesystem::exists(KGEN_SHIPPED_DB_BUILT)) GTEST_SKIP() << "NOT RUN: db/shipped.db.tar.xz is not there";
  EXPECT_LT(std::filesystem::file_size(KGEN_SHIPPED_DB_BUILT), 24U << 20);
  expect_all_served(KGEN_SHIPPED_DB_BUILT);
}

TEST_F(Shipped, AnOwnFileComesFirstAndTheShippedOneAfterIt) {
  const TempFolder folder;
  const std::string shipped = folder.file("shipped.db"), own = folder.file("own.db");
  make_small(shipped);
  make_small(own);
  {
    Db db = Db::open(own, DbMode::kReadWrite).value();  // has one shape of the two, on the one device
    const auto rows = db.winners().value();
    for (const WinnerRow& row : rows)
      if (row.problem.dims_key != "k=64 m=1 n=64" || row.device.arch != "sm_90") {
        ASSERT_TRUE(db.forget(row.winner.problem, row.winner.device));
      }
  }
  setenv("KGEN_SHIPPED_DB", shipped.c_str(), 1);
  setenv("KGEN_FAKE_ARCH", "90", 1);
  const pid_t child = ::fork();
  if (child == 0) {
    kgen_db* db = nullptr;
    kgen_op* op = nullptr;
    kgen_match match{};
    const std::int64_t there[] = {16, 64, 64};
    const auto kind = [&] {
      return kgen_open_op(db, "gemm", "dtype=bf16", "m,n,k", &op) == KGEN_OK && kgen_find(op, there, &match) == KGEN_OK
                 ? match.kind
                 : KGEN_MATCH_NONE;
    };
    if (kgen_open(own.c_str(), "nvidia:0", &db) != KGEN_OK) ::_exit(1);
    const int alone = kind();
    if (kgen_add(db, nullptr) != KGEN_OK) ::_exit(2);
    ::_exit(alone == KGEN_MATCH_NEAR && kind() == KGEN_MATCH_EXACT ? 0 : 3);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST_F(Shipped, WithoutOneTheErrorSaysWhereItWasLookedFor) {
  setenv("KGEN_SHIPPED_DB", "/nowhere/at.db", 1);
  kgen_db* db = nullptr;
  EXPECT_EQ(kgen_open(nullptr, "host", &db), KGEN_BAD_DATABASE);
  EXPECT_THAT(kgen_last_error(), HasSubstr("no database was named, and KGEN_SHIPPED_DB=/nowhere/at.db does not exist"));
  unsetenv("KGEN_SHIPPED_DB");
  if (const auto found = shipped_db(); !found) {
    EXPECT_THAT(found.error().message, HasSubstr("share/kgen/shipped.db"));
  }
}

}  // namespace
}  // namespace kgen
