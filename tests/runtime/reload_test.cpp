// kgen_reload() on the host device: what is served before, while and after the file is replaced.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <latch>
#include <thread>

#include "kgen/kgen.h"
#include "tests/db/records.h"
#include "tests/runtime/host_db.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using testing::HostWinner;
using testing::make_host_db;
using testing::TempFolder;

class Reload : public ::testing::Test {
 protected:
  // A whole file appears under the path at once, as a careful publisher does it.
  void publish(const std::vector<HostWinner>& winners) {
    const std::string fresh = folder_.file("fresh.db");
    const auto made = make_host_db(fresh, KGEN_HOST_KERNEL, winners);
    ASSERT_TRUE(made) << made.error().message;
    std::filesystem::rename(fresh, path_);
  }
  void open() {
    ASSERT_EQ(kgen_open(path_.c_str(), "host", &db_), KGEN_OK) << kgen_last_error();
    ASSERT_EQ(kgen_open_op(db_, "row_scale", "dtype=fp32", "rows,cols", &op_), KGEN_OK) << kgen_last_error();
  }
  void TearDown() override {
    kgen_close_op(op_);
    kgen_close(db_);
  }
  kgen_match find(std::int64_t rows, std::int64_t cols) const {
    const std::int64_t values[] = {rows, cols};
    kgen_match match;
    EXPECT_EQ(kgen_find(op_, values, &match), KGEN_OK) << kgen_last_error();
    return match;
  }
  bool reload() const {
    int changed = -1;
    EXPECT_EQ(kgen_reload(db_, &changed), KGEN_OK) << kgen_last_error();
    return changed == 1;
  }

  // Prepares and launches with all ones: d[r, c] = 2 cols + c.
  static void expect_right_result(const kgen_match& match, std::int64_t rows, std::int64_t cols) {
    std::vector<float> a(static_cast<std::size_t>(rows * cols) + 64, 1.F), w(static_cast<std::size_t>(cols) + 64, 1.F);
    std::vector<float> d(a.size(), -1.F);
    alignas(256) static thread_local std::byte workspace[4096], prepared[4096];
    const auto at16 = [](std::vector<float>& v) {
      auto* data = v.data();
      while (reinterpret_cast<std::uintptr_t>(data) % 64 != 0) ++data;
      return data;
    };
    void* tensors[] = {at16(a), at16(w), nullptr, at16(d)};
    ASSERT_LE(match.workspace_bytes, sizeof workspace);
    ASSERT_LE(match.prepared_bytes, sizeof prepared);
    ASSERT_EQ(kgen_prepare(match.kernel, tensors, prepared, nullptr), KGEN_OK) << kgen_last_error();
    ASSERT_EQ(kgen_launch(match.kernel, tensors, nullptr, workspace, prepared, nullptr), KGEN_OK) << kgen_last_error();
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c)
        ASSERT_EQ(static_cast<float*>(tensors[3])[r * cols + c], static_cast<float>(2 * cols + c)) << r << ", " << c;
    }
  }

  TempFolder folder_;
  std::string path_ = folder_.file("tuned.db");
  kgen_db* db_ = nullptr;
  kgen_op* op_ = nullptr;
};

TEST_F(Reload, TheNewFileIsServedAndOldKernelsStayValid) {
  publish({{.config = "old"}});
  open();
  const kgen_match old = find(8, 16);
  EXPECT_STREQ(old.config, "old");
  publish({{.config = "new"}, {.dims_key = "cols=24 rows=8", .config = "more"}});
  EXPECT_STREQ(find(8, 16).config, "old") << "nothing changes until it is asked for";
  EXPECT_TRUE(reload());
  EXPECT_STREQ(find(8, 16).config, "new");
  EXPECT_STREQ(find(8, 24).reason, "exact: tuned for this shape");
  EXPECT_STREQ(old.config, "old");
  EXPECT_STREQ(old.reason, "exact: tuned for this shape");
  expect_right_result(old, 8, 16);
  expect_right_result(find(8, 16), 8, 16);
}

TEST_F(Reload, AFileThatIsTheSameIsNotReadAgain) {
  publish({{}});
  open();
  const kgen_kernel* before = find(8, 16).kernel;
  EXPECT_FALSE(reload());
  EXPECT_EQ(find(8, 16).kernel, before);
  EXPECT_EQ(kgen_reload(db_, nullptr), KGEN_OK);
  EXPECT_EQ(kgen_reload(nullptr, nullptr), KGEN_BAD_ARGUMENT);
}

TEST_F(Reload, AWriterThatAddsToTheFileIsSeen) {
  publish({{}});
  open();
  EXPECT_STREQ(find(8, 20).reason, "near: tuned at cols=16, legal for cols=20");
  ASSERT_TRUE(make_host_db(path_, KGEN_HOST_KERNEL, {{.dims_key = "cols=20 rows=8"}}));
  EXPECT_TRUE(reload());
  EXPECT_STREQ(find(8, 20).reason, "exact: tuned for this shape");
}

TEST_F(Reload, AFileThatCannotBeUsedLeavesAllAsBefore) {
  publish({{.config = "old"}});
  open();
  const kgen_kernel* before = find(8, 16).kernel;
  std::ofstream(folder_.file("fresh.db")) << "this is no database, but it is long enough to be looked at by everyone "
                                             "who wants to know what is in it, and that they do";
  std::filesystem::rename(folder_.file("fresh.db"), path_);
  int changed = -1;
  EXPECT_EQ(kgen_reload(db_, &changed), KGEN_BAD_DATABASE);
  EXPECT_EQ(changed, 0);
  EXPECT_THAT(kgen_last_error(), HasSubstr("is not a kgen database"));
  EXPECT_EQ(find(8, 16).kernel, before);
  std::filesystem::remove(path_);
  EXPECT_EQ(kgen_reload(db_, nullptr), KGEN_BAD_DATABASE);
  EXPECT_EQ(find(8, 16).kernel, before);
  publish({{.config = "new"}});
  EXPECT_TRUE(reload());
  EXPECT_STREQ(find(8, 16).config, "new");
}

TEST_F(Reload, AnOperatorThatTheNewFileLacksIsNotFound) {
  publish({{}});
  open();
  find(8, 16);
  publish({{.with_bias = true}});
  EXPECT_TRUE(reload());
  const std::int64_t values[] = {8, 16};
  kgen_match match;
  EXPECT_EQ(kgen_find(op_, values, &match), KGEN_NOT_FOUND);
  EXPECT_THAT(match.reason, HasSubstr("was never tuned"));
}

TEST_F(Reload, SixteenThreadsFindLaunchAndReload) {
  publish({{.config = "0"}});
  open();
  constexpr int kThreads = 16, kRounds = 25;
  std::latch start(kThreads);
  std::atomic<int> reloads = 0, versions = 0;
  std::mutex publishing;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      start.arrive_and_wait();
      const kgen_match first = find(8, 16);
      for (int round = 0; round < kRounds; ++round) {
        const std::int64_t cols = 8 + (round * 5 + t) % 40;
        for (int again = 0; again < 20; ++again) {
          const kgen_match match = find(4, cols);
          ASSERT_NE(match.kernel, nullptr);
          ASSERT_EQ(match.prepared_bytes, static_cast<std::size_t>((cols * 4 + 255) / 256 * 256));
        }
        expect_right_result(find(4, cols), 4, cols);
        expect_right_result(first, 8, 16);  // of a reading that may be long gone
        if (t % 4 == 0 && round % 5 == 0) {
          const std::lock_guard lock(publishing);
          publish({{.config = std::to_string(++versions), .code_suffix = std::string(1, static_cast<char>(t))}});
        }
        if (round % 5 == t % 5) reloads += reload() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  reload();
  EXPECT_GE(reloads, 1);
  EXPECT_EQ(find(8, 16).config, std::to_string(versions));
}

}  // namespace
}  // namespace kgen
