// The host device: work-items, barriers, shuffles, LDS and its guards, blocks over threads, modules, graphs, events.
#include "device/host.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numeric>
#include <sstream>
#include <thread>
#include <vector>

#include "device/host_abi.h"

extern "C" __attribute__((weak)) void __asan_poison_memory_region(const volatile void*, std::size_t);

namespace kgen {
namespace {

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::span<const std::byte> as_code(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class Host : public testing::Test {
 protected:
  void SetUp() override {
    auto device = host::open_host();
    ASSERT_TRUE(device) << device.error().message;
    device_ = std::move(*device);
    code_ = read_bytes(KGEN_HOST_KERNELS);
    auto module = device_->load(as_code(code_));
    ASSERT_TRUE(module) << module.error().message;
    module_ = std::move(*module);
  }

  Function kernel(const std::string& name) {
    auto function = module_->function(name);
    EXPECT_TRUE(function) << function.error().message;
    return *function;
  }

  template <class... T>
  Result<void> launch(const std::string& name, const LaunchShape& shape, T... values) {
    void* params[] = {&values...};
    return device_->launch(kernel(name), shape, params, nullptr);
  }
  static LaunchShape shape(std::uint32_t grid, std::uint32_t block, std::uint32_t lds = 0) {
    return {{grid, 1, 1}, block, lds};
  }

  std::unique_ptr<Device> device_;
  std::string code_;
  std::unique_ptr<Module> module_;
};

TEST(HostAbi, IsTheSameInDeviceAndPrelude) {
  void* library = dlopen(KGEN_HOST_KERNELS, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto* theirs = static_cast<const std::uint64_t*>(dlsym(library, "test_host_abi"));
  ASSERT_NE(theirs, nullptr);
  using namespace host;
  const std::uint64_t ours[] = {kHostAbi,
                                kHostStackStride,
                                kHostSlabBytes,
                                kWaveSize,
                                sizeof(HostBlock),
                                offsetof(HostBlock, grid),
                                offsetof(HostBlock, size),
                                offsetof(HostBlock, lds),
                                sizeof(HostItem),
                                offsetof(HostItem, thread),
                                sizeof(HostCalls),
                                sizeof(HostParams)};
  for (std::size_t i = 0; i < std::size(ours); ++i) EXPECT_EQ(ours[i], theirs[i]) << i;
  dlclose(library);
}

TEST_F(Host, DescribesItself) {
  const DeviceInfo& info = device_->info();
  EXPECT_EQ(info.id, "host");
  EXPECT_EQ(info.arch->name, "host");
  EXPECT_FALSE(info.name.empty());
  EXPECT_GE(info.compute_units, 1);
  EXPECT_GT(info.l2_bytes, 0);
  EXPECT_GT(info.memory_bytes, 0);
}

TEST_F(Host, ScalesEveryElementOfManyBlocks) {
  const std::int64_t n = 100003;
  std::vector<float> x(n), y(n, -1);
  std::iota(x.begin(), x.end(), 0.0f);
  ASSERT_TRUE(launch("scale", shape((n + 63) / 64, 64), y.data(), x.data(), 2.0f, static_cast<long long>(n)));
  for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(y[i], 2 * x[i]) << i;
}

TEST_F(Host, WorkItemsKnowTheirPlaces) {
  const std::uint32_t grid[3] = {5, 3, 2};
  std::vector<int> out(5 * 3 * 2 * 40 * 8, -1);
  ASSERT_TRUE(launch("places", LaunchShape{{5, 3, 2}, 40, 0}, out.data()));
  const int* at = out.data();
  for (int z = 0; z < 2; ++z)
    for (int y = 0; y < 3; ++y)
      for (int x = 0; x < 5; ++x)
        for (int t = 0; t < 40; ++t, at += 8) {
          const std::vector<int> want = {
              t, x, y, z, static_cast<int>(grid[0]), static_cast<int>(grid[1]), static_cast<int>(grid[2]), t % 32};
          ASSERT_EQ(std::vector<int>(at, at + 8), want);
        }
}

TEST_F(Host, BarriersSeparateEveryRound) {
  for (const int size : {1, 31, 32, 33, 256, 1000, 1024}) {
    const int rounds = 7, blocks = 9;
    std::vector<int> out(size * blocks, -1);
    ASSERT_TRUE(launch("neighbours", shape(blocks, size, size * 4), out.data(), rounds));
    for (int b = 0; b < blocks; ++b)
      for (int t = 0; t < size; ++t) ASSERT_EQ(out[b * size + t], (t + rounds) % size + rounds) << size << " " << t;
  }
}

TEST_F(Host, ShufflesReachTheirLanes) {
  std::vector<int> out(64 * 4, -1);
  ASSERT_TRUE(launch("shuffles", shape(1, 64), out.data()));
  for (int t = 0; t < 64; ++t) {
    const int wave = t / 32 * 32;
    EXPECT_EQ(out[t * 4], wave * 32 + 496) << t;
    EXPECT_EQ(out[t * 4 + 1], t % 16 + 5 < 16 ? t + 5 : t) << t;
    EXPECT_EQ(out[t * 4 + 2], (wave + 7) * 10) << t;
    EXPECT_EQ(out[t * 4 + 3], t ^ 1) << t;
  }
}

TEST_F(Host, WavesReduceThenTheBlockDoes) {
  const int blocks = 50;
  std::vector<float> x(blocks * 128), out(blocks, -1);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17);
  ASSERT_TRUE(launch("wave_sums", shape(blocks, 128, 16), out.data(), x.data()));
  for (int b = 0; b < blocks; ++b)
    EXPECT_EQ(out[b], std::accumulate(x.begin() + b * 128, x.begin() + (b + 1) * 128, 0.0f));
}

TEST_F(Host, BarrierThatSomeNeverReachIsAnErrorAndTheDeviceGoesOn) {
  std::vector<int> out(64, 0);
  const auto broken = launch("half_leaves_before_barrier", shape(3, 64), out.data());
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().kind, ErrorKind::kDevice);
  EXPECT_NE(broken.error().message.find("deadlock"), std::string::npos) << broken.error().message;
  EXPECT_NE(broken.error().message.find("of 64 work-items 32 wait at a barrier, 0 at a shuffle, 32 have returned"),
            std::string::npos)
      << broken.error().message;
  std::vector<int> next(64, -1);
  ASSERT_TRUE(launch("neighbours", shape(1, 64, 256), next.data(), 1));
  EXPECT_EQ(next[0], 2);
}

TEST_F(Host, ShuffleThatALaneMissesIsAnError) {
  std::vector<int> out(64, 0);
  const auto broken = launch("one_lane_misses_shuffle", shape(1, 64), out.data());
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().message.find("31 at a shuffle"), std::string::npos) << broken.error().message;
}

TEST_F(Host, UninitialisedLdsReadsAsNan) {
  unsigned value = 0;
  ASSERT_TRUE(launch("touch_lds", shape(1, 32, 128), &value, 127, 0));
  EXPECT_EQ(value, 0xFFu);
}

TEST_F(Host, WriteBehindOrBeforeTheLdsIsFound) {
  unsigned value = 0;
  ASSERT_TRUE(launch("touch_lds", shape(1, 32, 100), &value, 99, 1));
  for (const int offset : {100, 355, -1}) {
    if (__asan_poison_memory_region != nullptr) {
      EXPECT_DEATH((void)launch("touch_lds", shape(1, 32, 100), &value, offset, 1), "use-after-poison");
    } else {
      const auto broken = launch("touch_lds", shape(1, 32, 100), &value, offset, 1);
      ASSERT_FALSE(broken) << offset;
      EXPECT_NE(broken.error().message.find("wrote outside its 100 bytes of LDS"), std::string::npos);
    }
  }
}

TEST_F(Host, StacksHoldLargePrivateArrays) {
  std::vector<long long> out(64, 0);
  ASSERT_TRUE(launch("deep_stack", shape(1, 64), out.data()));
  for (int t = 0; t < 64; ++t) EXPECT_EQ(out[t], 32768LL * t + 32768LL * 32767 / 2);
}

TEST_F(Host, ReversedOrderShowsAMissingBarrier) {
  std::vector<int> usual(64, 0), reversed(64, 0);
  ASSERT_TRUE(launch("missing_barrier", shape(1, 64, 256), usual.data()));
  ASSERT_EQ(setenv("KGEN_HOST_ORDER", "reverse", 1), 0);
  device_ = std::move(*host::open_host());
  unsetenv("KGEN_HOST_ORDER");
  ASSERT_TRUE(launch("missing_barrier", shape(1, 64, 256), reversed.data()));
  EXPECT_NE(usual, reversed);
}

TEST_F(Host, RefusesLaunchesThatNoDeviceCanDo) {
  EXPECT_FALSE(launch("nothing", shape(0, 64), 0));
  EXPECT_FALSE(launch("nothing", shape(1, 0), 0));
  EXPECT_FALSE(launch("nothing", shape(1, 1025), 0));
  EXPECT_FALSE(launch("nothing", shape(1, 64, device_->info().lds_per_block + 1), 0));
  EXPECT_TRUE(launch("nothing", shape(1, 64, device_->info().lds_per_block), 0));
}

TEST_F(Host, RefusesWhatIsNoCodeObject) {
  for (const std::string& code : {std::string(), std::string("not an ELF file"), code_.substr(0, code_.size() / 4)}) {
    const auto module = device_->load(as_code(code));
    ASSERT_FALSE(module);
    EXPECT_EQ(module.error().kind, ErrorKind::kDevice);
    EXPECT_EQ(module.error().message.find("/proc"), std::string::npos) << module.error().message;
  }
}

TEST_F(Host, RefusesCodeForAnotherAbiOrAnotherCpu) {
  const auto abi = device_->load(as_code(read_bytes(KGEN_HOST_OTHER_ABI)));
  ASSERT_FALSE(abi);
  EXPECT_EQ(abi.error().message, "host: the code object has host ABI 99, this program has 1; compile it again");
  const auto cpu = device_->load(as_code(read_bytes(KGEN_HOST_OTHER_CPU)));
  ASSERT_FALSE(cpu);
  EXPECT_EQ(cpu.error().message, "host: the code object was compiled for a CPU with qubits; compile it here");
}

TEST_F(Host, UnloadedModuleLeavesTheProcess) {
  const auto mappings = [] { return read_bytes("/proc/self/maps"); };
  EXPECT_NE(mappings().find("kgen-kernel"), std::string::npos);
  module_.reset();
  EXPECT_EQ(mappings().find("kgen-kernel"), std::string::npos);
}

TEST_F(Host, MissingKernelIsNamed) {
  const auto function = module_->function("absent");
  ASSERT_FALSE(function);
  EXPECT_NE(function.error().message.find("'absent'"), std::string::npos);
}

TEST_F(Host, ModulesLoadedInTurnsAreNotMistakenForEachOther) {
  // The second differs from the first in what `scale` is.
  const std::string other = read_bytes(KGEN_HOST_OTHER_KERNELS);
  float x = 3, y = 0;
  long long n = 1;
  float alpha = 2;
  for (int round = 0; round < 5; ++round)
    for (const auto& [code, want] : {std::pair<const std::string*, float>{&code_, 6.0f}, {&other, 5.0f}}) {
      auto module = device_->load(as_code(*code));
      ASSERT_TRUE(module) << module.error().message;
      float *py = &y, *px = &x;
      void* params[] = {&py, &px, &alpha, &n};
      ASSERT_TRUE(device_->launch(*(*module)->function("scale"), shape(1, 1), params, nullptr));
      EXPECT_EQ(y, want);
    }
}

TEST_F(Host, LaunchesFromManyThreadsDoNotMix) {
  std::vector<std::jthread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&, c] {
      for (int round = 0; round < 10; ++round) {
        const int size = 64 + c;
        std::vector<int> out(size * 8, -1);
        ASSERT_TRUE(launch("neighbours", shape(8, size, size * 4), out.data(), c + 1));
        for (int t = 0; t < size; ++t) ASSERT_EQ(out[7 * size + t], (t + c + 1) % size + c + 1);
      }
    });
}

TEST_F(Host, GraphRepeatsWhatWasCapturedWithTheValuesOfThatTime) {
  float x = 3, y = 0;
  Event event = nullptr;
  auto graph = device_->capture([&](Stream stream) -> Result<void> {
    float *py = &y, *px = &x, alpha = 2;
    long long n = 1;
    void* params[] = {&py, &px, &alpha, &n};
    KGEN_CHECK_OK(device_->launch(kernel("scale"), shape(1, 1), params, stream));
    KGEN_CHECK_OK(device_->fill(&x, 0, sizeof(x), stream));
    alpha = 100;
    return device_->record(event, stream);
  });
  ASSERT_TRUE(graph) << graph.error().message;
  EXPECT_EQ(y, 0) << "capture must not run anything";
  ASSERT_TRUE(device_->replay(*graph, nullptr));
  EXPECT_EQ(y, 6);
  EXPECT_EQ(x, 0);
  x = 5;
  ASSERT_TRUE(device_->replay(*graph, nullptr));
  EXPECT_EQ(y, 10);
}

TEST_F(Host, FailedCaptureGivesItsError) {
  const auto graph = device_->capture([](Stream) -> Result<void> { return fail(ErrorKind::kBadInput, "no"); });
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().message, "no");
}

TEST_F(Host, EventsAreMonotoneAndMeasureWhatLiesBetween) {
  Event first = nullptr, second = nullptr, third = nullptr;
  ASSERT_TRUE(device_->record(first, nullptr));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_TRUE(device_->record(second, nullptr));
  ASSERT_TRUE(device_->record(third, nullptr));
  EXPECT_GE(*device_->elapsed_us(first, second), 5000);
  EXPECT_GE(*device_->elapsed_us(second, third), 0);
  EXPECT_FALSE(device_->elapsed_us(nullptr, third));
}

TEST_F(Host, MemoryIsAlignedAndFilled) {
  for (const std::size_t bytes : {0, 1, 255, 4096}) {
    const auto memory = device_->allocate(bytes);
    ASSERT_TRUE(memory);
    ASSERT_NE(*memory, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*memory) % 256, 0u);
    ASSERT_TRUE(device_->fill(*memory, 7, bytes, nullptr));
    std::vector<char> copy(bytes, 0);
    ASSERT_TRUE(device_->copy(copy.data(), *memory, bytes));
    EXPECT_EQ(copy, std::vector<char>(bytes, 7));
    device_->release(*memory);
  }
  EXPECT_FALSE(device_->allocate(std::size_t{1} << 60));
}

TEST(HostThreads, NumberIsTakenFromTheEnvironmentAndChecked) {
  ASSERT_EQ(setenv("KGEN_HOST_THREADS", "3", 1), 0);
  EXPECT_EQ(host::host_info()->compute_units, 3);
  for (const char* bad : {"0", "-1", "many", "3x", "99999"}) {
    ASSERT_EQ(setenv("KGEN_HOST_THREADS", bad, 1), 0);
    const auto info = host::host_info();
    ASSERT_FALSE(info) << bad;
    EXPECT_EQ(info.error().kind, ErrorKind::kBadInput);
  }
  unsetenv("KGEN_HOST_THREADS");
}

}  // namespace
}  // namespace kgen
