// The C ABI on the host device with a kernel made by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <latch>
#include <thread>

#include "kgen/kgen.h"
#include "tests/db/records.h"
#include "tests/runtime/host_db.h"

namespace kgen {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HostWinner;
using testing::make_host_db;
using ::testing::StartsWith;
using ::testing::StrEq;
using testing::TempFolder;

class CApi : public ::testing::Test {
 protected:
  void make(const std::vector<HostWinner>& winners) {
    const auto made = make_host_db(path_, KGEN_HOST_KERNEL, winners);
    ASSERT_TRUE(made) << made.error().message;
  }
  void open() { ASSERT_EQ(kgen_open(path_.c_str(), "host", &db_), KGEN_OK) << kgen_last_error(); }
  void open_op(const char* attributes = "dtype=fp32", const char* dims = "rows,cols") {
    ASSERT_EQ(kgen_open_op(db_, "row_scale", attributes, dims, &op_), KGEN_OK) << kgen_last_error();
  }
  kgen_match find(std::int64_t rows, std::int64_t cols, kgen_status want = KGEN_OK) {
    const std::int64_t values[] = {rows, cols};
    kgen_match match;
    EXPECT_EQ(kgen_find(op_, values, &match), want) << kgen_last_error();
    return match;
  }
  float* alloc(std::size_t count) {
    buffers_.push_back(kgen_device_alloc(db_, count * sizeof(float)));
    return static_cast<float*>(buffers_.back());
  }
  void TearDown() override {
    for (void* buffer : buffers_) kgen_device_free(db_, buffer);
    kgen_close_op(op_);
    kgen_close(db_);
  }

  // The row of cols=17 is refused for this reason, and the one of cols=16 is used.
  void expect_next_match(const char* why) {
    open();
    open_op();
    const kgen_match match = find(8, 17);
    EXPECT_EQ(match.kind, KGEN_MATCH_NEAR);
    EXPECT_STREQ(match.config, "whole");
    EXPECT_THAT(match.reason,
                AllOf(StartsWith("near: tuned at cols=16, legal for cols=17; refused the one of cols=17 rows=8: "),
                      HasSubstr(why)));
    expect_right_result(8, 17, false, 1);
  }
  // Prepares, launches and compares with the formula in host_kernel.cpp.
  void expect_right_result(std::int64_t rows, std::int64_t cols, bool with_bias, double alpha) {
    const kgen_match match = find(rows, cols);
    ASSERT_NE(match.kernel, nullptr);
    float *a = alloc(rows * cols), *w = alloc(cols), *bias = alloc(cols), *d = alloc(rows * cols);
    for (std::int64_t i = 0; i < rows * cols; ++i) a[i] = static_cast<float>(i % 7 - 3);
    for (std::int64_t i = 0; i < cols; ++i) w[i] = static_cast<float>(i % 5 - 2);
    for (std::int64_t i = 0; i < cols; ++i) bias[i] = static_cast<float>(i % 3);
    void* workspace = kgen_device_alloc(db_, match.workspace_bytes);
    void* prepared = kgen_device_alloc(db_, match.prepared_bytes);
    buffers_.insert(buffers_.end(), {workspace, prepared});
    void* tensors[] = {a, w, with_bias ? bias : nullptr, d};
    void* weights[] = {nullptr, w, nullptr, nullptr};
    ASSERT_EQ(kgen_prepare(match.kernel, weights, prepared, nullptr), KGEN_OK) << kgen_last_error();
    ASSERT_EQ(kgen_launch(match.kernel, tensors, &alpha, workspace, prepared, nullptr), KGEN_OK) << kgen_last_error();
    ASSERT_EQ(kgen_synchronize(db_, nullptr), KGEN_OK) << kgen_last_error();
    for (std::int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::int64_t k = 0; k < cols; ++k) sum += a[r * cols + k] * 2.0 * w[k];
      for (std::int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(d[r * cols + c], alpha * sum + static_cast<double>(c) + (with_bias ? bias[c] : 0.0))
            << r << ", " << c;
      }
    }
  }
  void sql(const char* text) {
    sqlite3* raw = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &raw), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(raw, text, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(raw);
    sqlite3_close(raw);
  }

  TempFolder folder_;
  std::string path_ = folder_.file("tuned.db");
  kgen_db* db_ = nullptr;
  kgen_op* op_ = nullptr;
  std::vector<void*> buffers_;
};

TEST_F(CApi, ATunedShapeIsFoundPreparedLaunchedAndRight) {
  make({{.config = "plain vec=4", .time_us = 12.5}});
  open();
  open_op();
  const kgen_match match = find(8, 16);
  EXPECT_EQ(match.kind, KGEN_MATCH_EXACT);
  EXPECT_STREQ(match.reason, "exact: tuned for this shape");
  EXPECT_STREQ(match.config, "plain vec=4");
  EXPECT_EQ(match.tuned_time_us, 12.5);
  EXPECT_EQ(match.workspace_bytes, 256U);
  EXPECT_EQ(match.prepared_bytes, 256U);
  EXPECT_EQ(kgen_expected_loss(match.kernel), 0);
  const kgen_match near = find(16, 16);
  EXPECT_EQ(near.kind, KGEN_MATCH_NEAR);
  EXPECT_GT(kgen_expected_loss(near.kernel), 0);
  EXPECT_LT(kgen_expected_loss(near.kernel), 0.1);
  EXPECT_LT(kgen_expected_loss(nullptr), 0);
  EXPECT_STRNE(kgen_last_error(), "");
  expect_right_result(8, 16, false, 1.5);
}

TEST_F(CApi, WhatTheFileHasIsDescribed) {
  make({{}});
  open();
  const char* file = kgen_describe(db_, nullptr);
  ASSERT_NE(file, nullptr) << kgen_last_error();
  EXPECT_THAT(file, AllOf(HasSubstr(R"("operators":["row_scale"])"), HasSubstr(R"("vendor":"host")")));
  const char* op = kgen_describe(db_, "row_scale");
  ASSERT_NE(op, nullptr) << kgen_last_error();
  EXPECT_THAT(op, AllOf(HasSubstr(R"("attributes":{"dtype":"fp32")"), HasSubstr(R"("name":"w","role":"in")"),
                        HasSubstr(R"("scalars":[{"name":"alpha")"), ::testing::Not(HasSubstr("workspace"))));
  EXPECT_EQ(kgen_describe(db_, "row_scale"), op);
  EXPECT_EQ(kgen_describe(db_, "row_scales"), nullptr);
  EXPECT_THAT(kgen_last_error(), HasSubstr("did you mean 'row_scale'"));
}

TEST_F(CApi, AnUntunedShapeIsServedByTheNearestKernel) {
  make({{}});
  open();
  open_op();
  const kgen_match match = find(13, 17);
  EXPECT_EQ(match.kind, KGEN_MATCH_NEAR);
  EXPECT_STREQ(match.reason, "near: tuned at cols=16 rows=8, legal for cols=17 rows=13");
  expect_right_result(13, 17, false, 1);
}

TEST_F(CApi, TheDefaultServesWhatNothingElseDoes) {
  make({{.config = "tuned", .needs = {"cols % 4 == 0"}}, {.config = "default", .is_default = true}});
  open();
  open_op();
  const kgen_match match = find(8, 17);
  EXPECT_EQ(match.kind, KGEN_MATCH_DEFAULT);
  EXPECT_STREQ(match.config, "default");
  expect_right_result(8, 17, false, 1);
}

TEST_F(CApi, OptionalOperandsFollowTheAttributes) {
  make({{.with_bias = true}});
  open();
  open_op("epilogue=bias dtype=fp32");
  expect_right_result(8, 16, true, -0.5);
  const kgen_match match = find(8, 16);
  void* tensors[] = {buffers_[0], buffers_[1], nullptr, buffers_[3]};
  EXPECT_EQ(kgen_launch(match.kernel, tensors, nullptr, buffers_[4], buffers_[5], nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_STREQ(kgen_last_error(), "operand 'bias' is null");
}

TEST_F(CApi, ScalarsDefaultWhenNull) {
  make({{}});
  open();
  open_op();
  expect_right_result(8, 16, false, 2);
  const kgen_match match = find(8, 16);
  void* tensors[] = {buffers_[0], buffers_[1], nullptr, buffers_[3]};
  const auto* d = static_cast<const float*>(buffers_[3]);
  const float twice = d[0];
  ASSERT_EQ(kgen_launch(match.kernel, tensors, nullptr, buffers_[4], buffers_[5], nullptr), KGEN_OK);
  ASSERT_EQ(kgen_synchronize(db_, nullptr), KGEN_OK);
  EXPECT_EQ(d[0], twice / 2) << "alpha is 1 by default";
}

TEST_F(CApi, AnOperatorIsOpenedForAGoal) {
  make({{.config = "cold"},
        {.config = "graph", .goal = {.timing = "graph"}, .same_bits = true},
        {.config = "frugal", .goal = {.timing = "graph", .objective = "energy"}}});
  open();
  const auto config_for = [&](const kgen_goal* goal, kgen_status want = KGEN_OK) {
    kgen_close_op(op_);
    op_ = nullptr;
    EXPECT_EQ(kgen_open_op_for(db_, "row_scale", "dtype=fp32", "rows,cols", goal, &op_), KGEN_OK) << kgen_last_error();
    const kgen_match match = find(8, 16, want);
    return want == KGEN_OK ? std::string(match.config) + "|" + match.reason : std::string(match.reason);
  };
  kgen_goal goal = {sizeof goal, KGEN_TIMING_GRAPH, KGEN_OBJECTIVE_TIME, 0, 0, 0};
  EXPECT_EQ(config_for(nullptr), "cold|exact: tuned for this shape");
  EXPECT_EQ(config_for(&goal), "graph|exact: tuned for this shape");
  goal.objective = KGEN_OBJECTIVE_ENERGY;
  EXPECT_EQ(config_for(&goal), "frugal|exact: tuned for this shape");
  goal.deterministic = 1;
  EXPECT_THAT(config_for(&goal),
              AllOf(StartsWith("graph|exact"), HasSubstr("for graph time"), HasSubstr("deterministic")));

  kgen_op* none = nullptr;
  goal.timing = 7;
  EXPECT_EQ(kgen_open_op_for(db_, "row_scale", "dtype=fp32", "rows,cols", &goal, &none), KGEN_BAD_ARGUMENT);
  goal = {};
  EXPECT_EQ(kgen_open_op_for(db_, "row_scale", "dtype=fp32", "rows,cols", &goal, &none), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_last_error(), HasSubstr("set it to sizeof(kgen_goal)"));
  struct {
    kgen_goal goal;
    std::uint64_t more;
  } later = {{sizeof later, KGEN_TIMING_COLD, KGEN_OBJECTIVE_TIME, 0, 0, 0}, 0};
  EXPECT_EQ(config_for(&later.goal), "cold|exact: tuned for this shape");
  later.more = 1;
  EXPECT_EQ(kgen_open_op_for(db_, "row_scale", "dtype=fp32", "rows,cols", &later.goal, &none), KGEN_BAD_ARGUMENT)
      << "a demand that this version does not know is not dropped";
}

TEST_F(CApi, OperandsAreNamedInOrder) {
  make({{}});
  open();
  open_op();
  ASSERT_EQ(kgen_tensor_count(op_), 4);
  EXPECT_STREQ(kgen_tensor_name(op_, 0), "a");
  EXPECT_STREQ(kgen_tensor_name(op_, 2), "bias");
  EXPECT_STREQ(kgen_tensor_name(op_, 3), "d");
  ASSERT_EQ(kgen_scalar_count(op_), 1);
  EXPECT_STREQ(kgen_scalar_name(op_, 0), "alpha");
  EXPECT_EQ(kgen_tensor_name(op_, 4), nullptr);
  EXPECT_STREQ(kgen_last_error(), "index 4 is not below 4");
  EXPECT_EQ(kgen_scalar_name(op_, -1), nullptr);
}

TEST_F(CApi, ARepeatedFindGivesTheSameKernel) {
  make({{}});
  open();
  open_op();
  const kgen_kernel* first = find(8, 16).kernel;
  std::vector<const kgen_kernel*> kernels;
  for (std::int64_t cols = 1; cols <= 500; ++cols) kernels.push_back(find(8, cols).kernel);
  EXPECT_EQ(find(8, 16).kernel, first) << "handles stay valid while the table grows";
  for (std::int64_t cols = 1; cols <= 500; ++cols) {
    ASSERT_EQ(find(8, cols).kernel, kernels[static_cast<std::size_t>(cols - 1)]);
  }
}

TEST_F(CApi, EightThreadsFindAndLaunchTheSameShapes) {
  make({{}});
  open();
  open_op();
  std::vector<std::thread> threads;
  std::vector<std::vector<const kgen_kernel*>> seen(8);
  std::latch start(8);
  for (std::size_t t = 0; t < seen.size(); ++t) {
    threads.emplace_back([this, t, &seen, &start] {
      start.arrive_and_wait();
      for (int round = 0; round < 3; ++round) {
        for (std::int64_t i = 0; i < 150; ++i) {
          const std::int64_t cols = 1 + i;  // all threads ask for the same new shape at the same time
          const std::int64_t values[] = {4, cols};
          kgen_match match;
          ASSERT_EQ(kgen_find(op_, values, &match), KGEN_OK);
          ASSERT_EQ(match.prepared_bytes, static_cast<std::size_t>((cols * 4 + 255) / 256 * 256));
          seen[t].push_back(match.kernel);
        }
      }
      const std::int64_t values[] = {4, 16};
      kgen_match match;
      ASSERT_EQ(kgen_find(op_, values, &match), KGEN_OK);
      ASSERT_EQ(kgen_preload(match.kernel), KGEN_OK);
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& kernels : seen) EXPECT_EQ(kernels, seen[0]) << "one kernel a shape, whoever asked first";
}

TEST_F(CApi, AMisalignedPointerIsRefusedWithTheOperandsName) {
  make({{}});
  open();
  open_op();
  expect_right_result(8, 16, false, 1);
  const kgen_match match = find(8, 16);
  void* tensors[] = {static_cast<char*>(buffers_[0]) + 4, buffers_[1], nullptr, buffers_[3]};
  EXPECT_EQ(kgen_launch(match.kernel, tensors, nullptr, buffers_[4], buffers_[5], nullptr), KGEN_MISALIGNED);
  EXPECT_THAT(kgen_last_error(), AllOf(StartsWith("operand 'a' at 0x"), HasSubstr("is not aligned to 16 bytes")));
  tensors[0] = buffers_[0];
  EXPECT_EQ(kgen_launch(match.kernel, tensors, nullptr, static_cast<char*>(buffers_[4]) + 16, buffers_[5], nullptr),
            KGEN_MISALIGNED);
  EXPECT_THAT(kgen_last_error(), StartsWith("workspace at 0x"));
}

TEST_F(CApi, MissingBuffersAreNamed) {
  make({{}});
  open();
  open_op();
  expect_right_result(8, 16, false, 1);
  const kgen_match match = find(8, 16);
  void* tensors[] = {buffers_[0], buffers_[1], nullptr, buffers_[3]};
  EXPECT_EQ(kgen_launch(match.kernel, tensors, nullptr, nullptr, buffers_[5], nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_STREQ(kgen_last_error(), "workspace is null; 256 bytes are needed");
  EXPECT_EQ(kgen_launch(match.kernel, tensors, nullptr, buffers_[4], nullptr, nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_STREQ(kgen_last_error(), "prepared is null; 256 bytes are needed");
  EXPECT_EQ(kgen_prepare(match.kernel, tensors, nullptr, nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_launch(match.kernel, nullptr, nullptr, buffers_[4], buffers_[5], nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_STREQ(kgen_last_error(), "tensors is null");
}

TEST_F(CApi, AZeroDimLaunchesNothing) {
  make({{}});
  open();
  open_op();
  const kgen_match match = find(0, 16);
  ASSERT_NE(match.kernel, nullptr);
  void* tensors[] = {nullptr, alloc(16), nullptr, nullptr};
  float* prepared = alloc(64);
  EXPECT_EQ(match.workspace_bytes, 0U);
  EXPECT_EQ(kgen_launch(match.kernel, tensors, nullptr, nullptr, prepared, nullptr), KGEN_OK) << kgen_last_error();
}

TEST_F(CApi, AShapeWithoutALegalKernelSaysWhy) {
  make({{.needs = {"cols % 4 == 0"}}});
  open();
  open_op();
  for (int i = 0; i < 2; ++i) {  // the second answer comes from memory
    const kgen_match match = find(8, 17, KGEN_NOT_FOUND);
    EXPECT_EQ(match.kernel, nullptr);
    EXPECT_EQ(match.kind, KGEN_MATCH_NONE);
    EXPECT_THAT(match.reason, HasSubstr("needs 'cols % 4 == 0'"));
    EXPECT_THAT(kgen_last_error(), StrEq(match.reason));
  }
}

TEST_F(CApi, ADamagedCodeObjectIsRefusedAndTheNextMatchIsUsed) {
  make({{.config = "whole"}, {.dims_key = "cols=17 rows=8", .config = "damaged", .code_suffix = "x"}});
  sql("UPDATE object SET zstd = zeroblob(length(zstd)) WHERE id = 2");
  expect_next_match("does not match its hash");
}

// The file of a later kgen, whose kernels take what this one cannot give them.
TEST_F(CApi, APlanWithAnUnknownRoleIsRefusedAndTheNextMatchIsUsed) {
  make({{.config = "whole"}, {.dims_key = "cols=17 rows=8", .config = "later", .first_role = "tensor_mop"}});
  expect_next_match("unknown role 'tensor_mop'");
}

TEST_F(CApi, AnOperatorWhoseEveryPlanHasAnUnknownRoleIsNotOpened) {
  make({{.first_role = "tensor_mop"}});
  open();
  EXPECT_EQ(kgen_open_op(db_, "row_scale", "dtype=fp32", "rows,cols", &op_), KGEN_NOT_FOUND);
  EXPECT_THAT(kgen_last_error(), HasSubstr("unknown role 'tensor_mop'"));
}

TEST_F(CApi, WhenEveryCodeObjectIsDamagedTheLookupIsRefused) {
  make({{}});
  sql("UPDATE object SET zstd = zeroblob(length(zstd))");
  open();
  open_op();
  const kgen_match match = find(8, 16, KGEN_REFUSED);
  EXPECT_EQ(match.kernel, nullptr);
  EXPECT_THAT(match.reason, HasSubstr("does not match its hash"));
}

TEST_F(CApi, ACodeObjectOfAnotherArchIsRefused) {
  make({{}});
  sql("UPDATE object SET arch = 'gfx90a'");
  open();
  open_op();
  EXPECT_THAT(find(8, 16, KGEN_REFUSED).reason, HasSubstr("is for gfx90a"));
}

TEST_F(CApi, AnObjectThatIsNoCodeIsADeviceError) {
  make({{}});
  const auto object = testing::sample_object("no code at all");
  {
    Db db = Db::open(path_, DbMode::kReadWrite).value();
    auto row = db.winners().value().at(0);
    auto fake = object;
    fake.arch = "host";
    row.winner.object_hash = fake.hash;
    ASSERT_TRUE(db.publish(row.winner, fake));
  }
  open();
  open_op();
  const kgen_match match = find(8, 16);
  EXPECT_NE(kgen_preload(match.kernel), KGEN_OK);
  EXPECT_THAT(std::string(kgen_last_error()), ::testing::Not(::testing::IsEmpty()));
}

TEST_F(CApi, BadDatabasesAreSaidSo) {
  EXPECT_EQ(kgen_open(folder_.file("none.db").c_str(), "host", &db_), KGEN_BAD_DATABASE);
  EXPECT_THAT(kgen_last_error(), HasSubstr("none.db: cannot be opened: No such file or directory"));
  EXPECT_EQ(db_, nullptr);
  make({{}});
  sql("PRAGMA user_version=99");
  EXPECT_EQ(kgen_open(path_.c_str(), "host", &db_), KGEN_BAD_DATABASE);
  EXPECT_THAT(kgen_last_error(), HasSubstr("newer kgen"));
}

TEST_F(CApi, UnknownDevicesAreSaidSo) {
  make({{}});
  EXPECT_EQ(kgen_open(path_.c_str(), "hots", &db_), KGEN_BAD_ARGUMENT);
  EXPECT_THAT(kgen_last_error(), HasSubstr("hots"));
  EXPECT_EQ(kgen_open(path_.c_str(), "amd:97", &db_), KGEN_NO_DEVICE);
  EXPECT_EQ(db_, nullptr);
}

TEST_F(CApi, AutoOpensWhatIsThere) {
  make({{}});
  ASSERT_EQ(kgen_open(path_.c_str(), "auto", &db_), KGEN_OK) << kgen_last_error();
  EXPECT_NE(kgen_device_name(db_), nullptr);
}

TEST_F(CApi, WrongWordsAreNamed) {
  make({{}});
  open();
  const auto fails = [&](const char* op, const char* attributes, const char* dims, kgen_status want) {
    EXPECT_EQ(kgen_open_op(db_, op, attributes, dims, &op_), want);
    EXPECT_EQ(op_, nullptr);
    return std::string(kgen_last_error());
  };
  EXPECT_EQ(fails("row_scal", "", "", KGEN_BAD_ARGUMENT),
            "the database has no operator 'row_scal'; did you mean 'row_scale'?");
  EXPECT_EQ(fails("row_scale", "dtyp=fp32", "", KGEN_BAD_ARGUMENT),
            "row_scale has no attribute 'dtyp'; did you mean 'dtype'?");
  EXPECT_EQ(fails("row_scale", "", "", KGEN_BAD_ARGUMENT), "row_scale needs the attribute 'dtype' (tuned: fp32)");
  EXPECT_THAT(fails("row_scale", "dtype=fp16", "rows,cols", KGEN_NOT_FOUND), HasSubstr("was never tuned"));
  EXPECT_EQ(fails("row_scale", "dtype=fp32", "rows,col", KGEN_BAD_ARGUMENT), "unknown dim 'col'; did you mean 'cols'?");
  EXPECT_EQ(fails("row_scale", "dtype=fp32", "rows,rows", KGEN_BAD_ARGUMENT), "dim 'rows' is named twice");
  EXPECT_EQ(fails("row_scale", "dtype=fp32", "rows", KGEN_BAD_ARGUMENT), "dim 'cols' has no default and must be named");
}

TEST_F(CApi, SizesOutOfRangeAreBadArguments) {
  make({{}});
  open();
  open_op();
  find(-1, 16, KGEN_BAD_ARGUMENT);
  EXPECT_STREQ(kgen_last_error(), "dim 'rows' is -1; sizes go from 0 to 2^53");
  find(8, INT64_MAX, KGEN_BAD_ARGUMENT);
  find(std::int64_t{1} << 52, std::int64_t{1} << 52, KGEN_NOT_FOUND);
}

TEST_F(CApi, NullAndForeignHandlesAreErrors) {
  make({{}});
  open();
  open_op();
  kgen_match match;
  const std::int64_t values[] = {8, 16};
  EXPECT_EQ(kgen_open(path_.c_str(), nullptr, &db_), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_open(path_.c_str(), "host", nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_open_op(nullptr, "row_scale", "", "", &op_), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_open_op(db_, nullptr, "", "", &op_), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_find(nullptr, values, &match), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_find(op_, nullptr, &match), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_find(op_, values, nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_find(reinterpret_cast<kgen_op*>(db_), values, &match), KGEN_BAD_ARGUMENT);
  EXPECT_STREQ(kgen_last_error(), "op is null or no handle of that kind");
  EXPECT_EQ(kgen_open_op(reinterpret_cast<kgen_db*>(op_), "row_scale", "", "", &op_), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_preload(nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_preload(reinterpret_cast<kgen_kernel*>(op_)), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_launch(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_prepare(nullptr, nullptr, nullptr, nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_device_alloc(nullptr, 8), nullptr);
  EXPECT_EQ(kgen_device_copy(nullptr, nullptr, nullptr, 8), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_device_copy(db_, nullptr, nullptr, 8), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_synchronize(nullptr, nullptr), KGEN_BAD_ARGUMENT);
  EXPECT_EQ(kgen_device_name(nullptr), nullptr);
  EXPECT_EQ(kgen_tensor_count(nullptr), 0);
  kgen_close(nullptr);
  kgen_close_op(nullptr);
  kgen_device_free(db_, nullptr);
  kgen_device_free(nullptr, nullptr);
}

TEST_F(CApi, AnOpOutlivesItsDb) {
  make({{}});
  open();
  open_op();
  kgen_close(db_);
  db_ = nullptr;
  EXPECT_EQ(kgen_preload(find(8, 16).kernel), KGEN_OK) << kgen_last_error();
}

TEST_F(CApi, TheLastErrorBelongsToTheThread) {
  EXPECT_EQ(kgen_preload(nullptr), KGEN_BAD_ARGUMENT);
  std::thread([] { EXPECT_STREQ(kgen_last_error(), ""); }).join();
  EXPECT_STREQ(kgen_last_error(), "kernel is null or no handle of that kind");
}

TEST_F(CApi, EveryStatusHasAName) {
  for (int status = KGEN_OK; status <= KGEN_INTERNAL; ++status) {
    EXPECT_STRNE(kgen_status_name(static_cast<kgen_status>(status)), "unknown status");
  }
  EXPECT_STREQ(kgen_status_name(static_cast<kgen_status>(99)), "unknown status");
  EXPECT_STREQ(kgen_version(), KGEN_VERSION);
}

}  // namespace
}  // namespace kgen
