// libkgen_jit on the host device: a shape that was not tuned becomes one that was, while the program runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/text.h"
#include "kgen/kgen_jit.h"
#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using testing::TempFolder;

// One gemm tuned with the kgen program.
class Jit : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(write_file(folder_.file("ops.yaml"),
                           "kgen: 1\nops:\n  - op: gemm\n    dtype: fp32\n    problems: [{m: 16, n: 16, k: 16}]\n"));
    const std::string command = std::string(KGEN_EXECUTABLE) + " tune " + folder_.file("ops.yaml") +
                                " --device host --budget 1 --db " + folder_.file("tuned.db") + " >" +
                                folder_.file("tune.txt") + " 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << read_file(folder_.file("tune.txt")).value_or("");
    open();
  }
  void open() {
    ASSERT_EQ(kgen_open(folder_.file("tuned.db").c_str(), "host", &db_), KGEN_OK) << kgen_last_error();
    ASSERT_EQ(kgen_open_op(db_, "gemm", "dtype=fp32", "m,n,k", &op_), KGEN_OK) << kgen_last_error();
  }
  void TearDown() override {
    kgen_jit_stop(jit_);
    kgen_close_op(op_);
    kgen_close(db_);
  }
  kgen_match find(std::int64_t m) {
    const std::int64_t values[] = {m, 16, 16};
    kgen_match match;
    EXPECT_EQ(kgen_find(op_, values, &match), KGEN_OK) << kgen_last_error();
    return match;
  }
  kgen_jit_options options() { return {sizeof(kgen_jit_options), user_db_.c_str(), KGEN_EXECUTABLE, 2, 1}; }

  TempFolder folder_;
  std::string user_db_ = folder_.file("data/jit.db");
  kgen_db* db_ = nullptr;
  kgen_op* op_ = nullptr;
  kgen_jit* jit_ = nullptr;
};

TEST_F(Jit, AShapeThatWasNotTunedIsTunedMeanwhileAndServedFromThenOn) {
  const kgen_jit_options options = this->options();
  ASSERT_EQ(kgen_jit_start(db_, &options, &jit_), KGEN_OK) << kgen_jit_last_error();
  const kgen_match near = find(24);
  EXPECT_EQ(near.kind, KGEN_MATCH_NEAR) << "the program goes on with what there is";
  ASSERT_NE(kgen_jit_wait(jit_, 300), 0);
  int tuned = 0, failed = 0;
  kgen_jit_counts(jit_, &tuned, &failed);
  EXPECT_EQ(tuned, 1);
  EXPECT_EQ(failed, 0) << kgen_jit_failure(jit_);
  const kgen_match exact = find(24);
  EXPECT_EQ(exact.kind, KGEN_MATCH_EXACT) << exact.reason;
  EXPECT_EQ(find(16).kind, KGEN_MATCH_EXACT);

  // Both kernels are right.
  for (const kgen_match& match : {near, exact}) {
    std::vector<void*> buffers;
    for (const std::size_t bytes :
         {24 * 16 * 4UL, 16 * 16 * 4UL, 24 * 16 * 4UL, match.workspace_bytes, match.prepared_bytes})
      buffers.push_back(kgen_device_alloc(db_, bytes));
    for (int i = 0; i < 24 * 16; ++i) static_cast<float*>(buffers[0])[i] = static_cast<float>(i % 5);
    for (int i = 0; i < 16 * 16; ++i) static_cast<float*>(buffers[1])[i] = static_cast<float>(i % 3);
    std::vector<void*> tensors(static_cast<std::size_t>(kgen_tensor_count(op_)));
    for (int i = 0; i < kgen_tensor_count(op_); ++i) {
      const std::string name = kgen_tensor_name(op_, i);
      tensors[static_cast<std::size_t>(i)] = name == "a"   ? buffers[0]
                                             : name == "b" ? buffers[1]
                                             : name == "d" ? buffers[2]
                                                           : nullptr;
    }
    ASSERT_EQ(kgen_prepare(match.kernel, tensors.data(), buffers[4], nullptr), KGEN_OK) << kgen_last_error();
    ASSERT_EQ(kgen_launch(match.kernel, tensors.data(), nullptr, buffers[3], buffers[4], nullptr), KGEN_OK)
        << kgen_last_error();
    ASSERT_EQ(kgen_synchronize(db_, nullptr), KGEN_OK);
    const auto at = [&](int buffer, int i) {
      return static_cast<float*>(buffers[static_cast<std::size_t>(buffer)])[i];
    };
    for (int i = 0; i < 24; ++i) {
      for (int j = 0; j < 16; ++j) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += at(0, i * 16 + k) * at(1, j * 16 + k);
        ASSERT_EQ(at(2, i * 16 + j), sum) << i << ", " << j;
      }
    }
    for (void* buffer : buffers) kgen_device_free(db_, buffer);
  }

  // A later program of the user has it at once, and tunes nothing.
  TearDown();
  jit_ = nullptr, op_ = nullptr, db_ = nullptr;
  open();
  ASSERT_EQ(kgen_jit_start(db_, &options, &jit_), KGEN_OK) << kgen_jit_last_error();
  EXPECT_EQ(find(24).kind, KGEN_MATCH_EXACT);
  EXPECT_NE(kgen_jit_wait(jit_, 0), 0);

  struct stat about{};
  ASSERT_EQ(::stat(user_db_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600U) << "for this user alone";
  ASSERT_EQ(::stat(folder_.file("data").c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0700U);
}

TEST_F(Jit, TheUsersFolderIsTheDefault) {
  ::setenv("XDG_DATA_HOME", folder_.file("xdg").c_str(), 1);
  kgen_jit_options options = this->options();
  options.database = nullptr;
  ASSERT_EQ(kgen_jit_start(db_, &options, &jit_), KGEN_OK) << kgen_jit_last_error();
  ::unsetenv("XDG_DATA_HOME");
  EXPECT_TRUE(std::filesystem::exists(folder_.file("xdg/kgen/jit.db")));
}

TEST_F(Jit, StoppingInTheMiddleOfWorkLeavesAWholeFile) {
  const kgen_jit_options options = this->options();
  ASSERT_EQ(kgen_jit_start(db_, &options, &jit_), KGEN_OK) << kgen_jit_last_error();
  for (std::int64_t m = 30; m < 40; ++m) find(m);
  kgen_jit_stop(jit_);
  jit_ = nullptr;
  EXPECT_EQ(kgen_add(db_, user_db_.c_str()), KGEN_OK) << kgen_last_error();
  find(50);  // nobody listens
}

TEST_F(Jit, WhatCannotStartSaysWhy) {
  kgen_jit_options options = this->options();
  options.kgen = "/no/such/kgen";
  EXPECT_EQ(kgen_jit_start(db_, &options, &jit_), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_jit_last_error(), HasSubstr("/no/such/kgen: is no program"));
  options = this->options();
  options.database = "/proc/no/such/jit.db";
  EXPECT_EQ(kgen_jit_start(db_, &options, &jit_), KGEN_BAD_DATABASE);
  options = this->options();
  options.size = 0;
  EXPECT_EQ(kgen_jit_start(db_, &options, &jit_), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_jit_start(nullptr, nullptr, &jit_), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(jit_, nullptr);
}

}  // namespace
}  // namespace kgen
