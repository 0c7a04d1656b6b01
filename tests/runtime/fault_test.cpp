// The C ABI under faults of the driver (tests/device/fault_script.h): whatever a call answers, the library says so,
// does not crash, and goes on where the device does. Each case is a process of its own, for a driver is loaded once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "kgen/kgen.h"
#include "tests/db/records.h"
#include "tests/runtime/host_db.h"

namespace kgen {
namespace {

using testing::make_host_db;
using testing::TempFolder;

constexpr std::int64_t kRows = 8, kCols = 16;

// Two launches of a kernel with all that belongs to them. The status of the first call that failed, KGEN_OK where none
// did, of the first launch and, times 16, of the second; -1: a wrong result, or an error without a text.
int run_twice(const std::string& path, const char* device) {
  struct Handles {
    kgen_db* db = nullptr;
    kgen_op* op = nullptr;
    std::vector<void*> buffers;
    ~Handles() {
      for (void* buffer : buffers) kgen_device_free(db, buffer);
      kgen_close_op(op);
      kgen_close(db);
    }
  } h;
  const auto failed = [](kgen_status status) { return *kgen_last_error() != '\0' ? static_cast<int>(status) : -1; };
  if (const auto s = kgen_open(path.c_str(), device, &h.db); s != KGEN_OK) return failed(s);
  if (const auto s = kgen_open_op(h.db, "row_scale", "dtype=fp32", "rows,cols", &h.op); s != KGEN_OK) return failed(s);
  const auto once = [&]() -> int {
    const std::int64_t dims[] = {kRows, kCols};
    kgen_match match;
    if (const auto s = kgen_find(h.op, dims, &match); s != KGEN_OK) return failed(s);
    std::vector<float> a(kRows * kCols), w(kCols), d(kRows * kCols, -1);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 7) - 3;
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i % 5) - 2;
    std::vector<void*> memory;
    for (std::size_t bytes : {a.size() * 4, w.size() * 4, d.size() * 4, match.workspace_bytes, match.prepared_bytes}) {
      memory.push_back(kgen_device_alloc(h.db, bytes));
      if (memory.back() == nullptr) return failed(KGEN_DEVICE_ERROR);
      h.buffers.push_back(memory.back());
    }
    if (const auto s = kgen_device_copy(h.db, memory[0], a.data(), a.size() * 4); s != KGEN_OK) return failed(s);
    if (const auto s = kgen_device_copy(h.db, memory[1], w.data(), w.size() * 4); s != KGEN_OK) return failed(s);
    void* tensors[] = {memory[0], memory[1], nullptr, memory[2]};
    const double alpha = 1.5;
    if (const auto s = kgen_prepare(match.kernel, tensors, memory[4], nullptr); s != KGEN_OK) return failed(s);
    if (const auto s = kgen_launch(match.kernel, tensors, &alpha, memory[3], memory[4], nullptr); s != KGEN_OK)
      return failed(s);
    if (const auto s = kgen_synchronize(h.db, nullptr); s != KGEN_OK) return failed(s);
    if (const auto s = kgen_device_copy(h.db, d.data(), memory[2], d.size() * 4); s != KGEN_OK) return failed(s);
    for (std::int64_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (std::int64_t k = 0; k < kCols; ++k) sum += a[r * kCols + k] * 2.0 * w[k];
      for (std::int64_t c = 0; c < kCols; ++c)
        if (d[r * kCols + c] != alpha * sum + static_cast<double>(c)) return -1;
    }
    return KGEN_OK;
  };
  const int first = once(), second = once();
  return first < 0 || second < 0 ? -1 : first + 16 * second;
}

class RuntimeFaults : public ::testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  void SetUp() override {
    const bool amd = std::string(GetParam().first) == "amd:1";
    setenv("KGEN_CUDA_LIBRARY", KGEN_FAKE_CUDA, 1);
    setenv("KGEN_HIP_LIBRARY", KGEN_FAKE_HIP, 1);
    setenv("KGEN_FAKE_ARCH", amd ? "gfx1030" : "70", 1);
    setenv("KGEN_HOST_THREADS", "1", 1);
    ASSERT_TRUE(make_host_db(path_, KGEN_HOST_KERNEL, {{}}, GetParam().second));
  }
  void TearDown() override {
    for (const char* name : {"KGEN_CUDA_LIBRARY", "KGEN_HIP_LIBRARY", "KGEN_FAKE_ARCH", "KGEN_HOST_THREADS"})
      unsetenv(name);
  }
  // What run_twice() came to, or 1000 and the signal.
  int under(const std::string& script) const {
    const pid_t child = ::fork();
    if (child == 0) {
      setenv("KGEN_FAKE_FAULTS", script.c_str(), 1);
      ::_exit(run_twice(path_, GetParam().first) & 0xff);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  TempFolder folder_;
  std::string path_ = folder_.file("tuned.db");
};
INSTANTIATE_TEST_SUITE_P(Paths, RuntimeFaults,
                         ::testing::Values(std::pair("amd:1", "gfx1030"), std::pair("nvidia:1", "sm_70")),
                         [](const auto& info) { return std::string(info.param.second); });

constexpr int kCodes[] = {1, 2, 46, 100, 101, 200, 218, 400, 500, 700, 701, 702, 719, 999};

TEST_P(RuntimeFaults, WithoutAnyTheResultIsRight) { EXPECT_EQ(under(""), KGEN_OK); }

// docs/lookup.md, "Devices that the file does not know".
TEST_P(RuntimeFaults, CodeRunsWhereItsArchitectureIsAndWhereTheVendorSaysSo) {
  using Cases = std::vector<std::pair<const char*, int>>;
  const Cases amd = {{"gfx1030:sramecc-:xnack-", KGEN_OK}, {"gfx1031", KGEN_NO_DEVICE}, {"gfx1100", KGEN_NOT_FOUND}};
  const Cases nvidia = {
      {"72", KGEN_OK}, {"75", KGEN_OK}, {"61", KGEN_NOT_FOUND}, {"80", KGEN_NOT_FOUND}, {"120", KGEN_NOT_FOUND}};
  for (const auto& [arch, status] : std::string(GetParam().first) == "amd:1" ? amd : nvidia) {
    setenv("KGEN_FAKE_ARCH", arch, 1);
    EXPECT_EQ(under(""), status) << arch;
  }
}

TEST_P(RuntimeFaults, ACallThatFailsIsAnErrorAndTheNextOneWorks) {
  for (const char* call : {"allocate", "copy", "launch", "stream_synchronize"}) {
    for (int code : kCodes) {
      // After these the library uses the device no more, for a driver would refuse.
      if (code == 700 || code == 702 || code == 719) continue;
      const int status = under(std::string(call) + ":2:error=" + std::to_string(code));
      EXPECT_TRUE(status == KGEN_DEVICE_ERROR || status == KGEN_OUT_OF_MEMORY) << call << " " << code << ": " << status;
    }
  }
}

TEST_P(RuntimeFaults, ALostContextIsAnErrorOfEveryCallAfterIt) {
  for (const char* call : {"allocate", "copy", "launch", "stream_synchronize"}) {
    for (int code : kCodes) {
      const int status = under(std::string(call) + ":2:fault=" + std::to_string(code));
      EXPECT_EQ(status, KGEN_DEVICE_ERROR + 16 * KGEN_DEVICE_ERROR) << call << " " << code;
    }
  }
}

TEST_P(RuntimeFaults, CodeThatDoesNotLoadIsAnErrorAndLoadsTheNextTime) {
  for (const char* call : {"module_load", "module_function"}) {
    for (int code : kCodes) {
      const int status = under(std::string(call) + ":1:error=" + std::to_string(code));
      EXPECT_LT(status, 0xff) << call << " " << code;
      EXPECT_NE(status % 16, KGEN_OK) << call << " " << code;
      if (code != 700 && code != 702 && code != 719) {
        EXPECT_EQ(status / 16, KGEN_OK) << call << " " << code;
      }
    }
  }
}

TEST_P(RuntimeFaults, NoDeviceIsSaid) {
  for (const char* script :
       {"init:*:error=100", "device_count:*:error=3", "cuda_primary_retain:*:error=46;hip_device_set:*:error=46"})
    EXPECT_EQ(under(script), KGEN_NO_DEVICE) << script;
}

}  // namespace
}  // namespace kgen
