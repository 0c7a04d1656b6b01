// The GPU launch path over both tables of driver symbols, on drivers that live in host memory.
#include "device/gpu.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <latch>
#include <thread>
#include <vector>

#include "tests/device/fake_driver.h"

namespace kgen::gpu {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// A value of an environment variable, for one scope.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Setting() { unsetenv(name_); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* name_;
};

struct Driver {
  const char* name;
  Vendor vendor;
  const char* library;
  const char* arch;       // as the fake driver reports it
  const char* arch_name;  // as DeviceInfo shows it
  const char* table_arch;
  const char* illegal_address;
};
void PrintTo(const Driver& driver, std::ostream* out) { *out << driver.name; }

const Driver kDrivers[] = {
    {"cuda", Vendor::kNvidia, KGEN_FAKE_CUDA, "90", "sm_90", "sm_90", "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {"hip5", Vendor::kAmd, KGEN_FAKE_HIP5, "gfx90a:sramecc+:xnack-", "gfx90a:sramecc+:xnack-", "gfx90a",
     "hipErrorIllegalAddress"},
    {"hip6", Vendor::kAmd, KGEN_FAKE_HIP6, "gfx1100", "gfx1100", "gfx1100", "hipErrorIllegalAddress"},
};

class Gpu : public testing::TestWithParam<Driver> {
 protected:
  void SetUp() override {
    void* library = dlopen(GetParam().library, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    control_ = reinterpret_cast<fake::Control* (*)()>(dlsym(library, "fake_control"))();
    *control_ = fake::Control{};
    control_ = reinterpret_cast<fake::Control* (*)()>(dlsym(library, "fake_control"))();
    control_->arch = GetParam().arch;
    set_context_ = reinterpret_cast<int (*)(void*)>(dlsym(library, "cuCtxSetCurrent"));
    get_context_ = reinterpret_cast<int (*)(void**)>(dlsym(library, "cuCtxGetCurrent"));
    set_device_ = reinterpret_cast<int (*)(int)>(dlsym(library, "hipSetDevice"));
    get_device_ = reinterpret_cast<int (*)(int*)>(dlsym(library, "hipGetDevice"));
    if (set_context_ != nullptr) set_context_(nullptr);
    if (set_device_ != nullptr) set_device_(0);
    library_.emplace(cuda() ? "KGEN_CUDA_LIBRARY" : "KGEN_HIP_LIBRARY", GetParam().library);
  }

  bool cuda() const { return GetParam().vendor == Vendor::kNvidia; }
  std::string id(int ordinal) const { return (cuda() ? "nvidia:" : "amd:") + std::to_string(ordinal); }

  std::unique_ptr<Device> open(int ordinal = 0) {
    auto device = open_device(id(ordinal));
    EXPECT_TRUE(device) << device.error().message;
    return device ? std::move(*device) : nullptr;
  }
  static std::span<const std::byte> code(const std::string& text) {
    return std::as_bytes(std::span(text.data(), text.size()));
  }
  static std::unique_ptr<Module> load(Device& device) {
    auto module = device.load(code(std::string(fake::kCode) + " axpy walk wild"));
    EXPECT_TRUE(module) << module.error().message;
    return std::move(*module);
  }
  // y += a * x
  static Result<void> axpy(Device& device, Module& module, float* y, float* x, float a, std::int64_t n, Stream stream,
                           std::uint32_t lds_bytes = 0) {
    void* params[] = {&y, &x, &a, &n};
    return device.launch(*module.function("axpy"),
                         LaunchShape{{static_cast<std::uint32_t>((n + 63) / 64), 1, 1}, 64, lds_bytes}, params, stream);
  }

  fake::Control* control_ = nullptr;
  int (*set_context_)(void*) = nullptr;
  int (*get_context_)(void**) = nullptr;
  int (*set_device_)(int) = nullptr;
  int (*get_device_)(int*) = nullptr;
  std::optional<Setting> library_;
};
INSTANTIATE_TEST_SUITE_P(Drivers, Gpu, testing::ValuesIn(kDrivers),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Gpu, TellsWhatTheDriverKnows) {
  const auto device = open(1);
  const DeviceInfo& info = device->info();
  EXPECT_EQ(info.id, id(1));
  EXPECT_EQ(info.name, "Fake Two");
  EXPECT_EQ(info.arch_name, GetParam().arch_name);
  EXPECT_EQ(info.arch->name, GetParam().table_arch);
  EXPECT_THAT(info.driver, HasSubstr(cuda() ? "CUDA 12.4" : "HIP 5.2.21153"));
  EXPECT_EQ(info.uuid, cuda() ? "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f" : "0000:0b:00.0");
  EXPECT_EQ(info.memory_bytes, std::int64_t{64} << 30);
  EXPECT_EQ(info.compute_units, cuda() ? 132 : 104);
  EXPECT_EQ(info.lds_per_block, cuda() ? 227 << 10 : 64 << 10);
  EXPECT_EQ(info.clock_khz, cuda() ? 1980000 : 1700000);
  // gfx1100 has 96 MB behind its L2 that the driver does not tell of.
  EXPECT_EQ(info.l2_bytes >> 20, cuda() ? 50 : info.arch->name == "gfx1100" ? 96 : 8);
}

TEST_P(Gpu, LaunchesWithTheGeometryAndTheParametersGiven) {
  const auto device = open();
  const auto module = load(*device);
  std::vector<float> x(100, 2), y(100, 1);
  auto *dx = static_cast<float*>(*device->allocate(400)), *dy = static_cast<float*>(*device->allocate(400));
  ASSERT_TRUE(device->copy(dx, x.data(), 400));
  ASSERT_TRUE(device->copy(dy, y.data(), 400));
  ASSERT_TRUE(axpy(*device, *module, dy, dx, 3, 100, nullptr, 1024));
  ASSERT_TRUE(device->synchronize(nullptr));
  ASSERT_TRUE(device->copy(y.data(), dy, 400));
  EXPECT_EQ(y, std::vector<float>(100, 7));
  EXPECT_EQ(control_->grid[0], 2u);
  EXPECT_EQ(control_->block[0], 64u);
  EXPECT_EQ(control_->block[1] * control_->block[2], 1u);
  EXPECT_EQ(control_->lds_bytes, 1024u);
  ASSERT_TRUE(device->fill(dy, 0, 400, nullptr));
  ASSERT_TRUE(device->copy(y.data(), dy, 400));
  EXPECT_EQ(y, std::vector<float>(100, 0));
  device->release(dx);
  device->release(dy);
  EXPECT_EQ(control_->allocations, 0);
}

TEST_P(Gpu, AsksForLargeLdsWhereTheDriverWantsToBeAsked) {
  const auto device = open();
  const auto module = load(*device);
  float x = 1, y = 0;
  for (const std::uint32_t lds : {50u << 10, 60u << 10, 10u << 10, 64u << 10}) {
    const auto done = axpy(*device, *module, &y, &x, 1, 1, nullptr, lds);
    EXPECT_TRUE(done) << lds << ": " << done.error().message;
  }
  const auto refused = axpy(*device, *module, &y, &x, 1, 1, nullptr, 300 << 10);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("launching axpy (grid 1x1x1, block 64, LDS 307200)"));
  EXPECT_EQ(y, 4);
}

TEST_P(Gpu, EveryKernelMayBeLaunchedInClustersOfSixteen) {
  const auto device = open();
  const auto module = load(*device);
  float x = 1, y = 0;
  ASSERT_TRUE(axpy(*device, *module, &y, &x, 1, 1, nullptr, 0));
  EXPECT_EQ(control_->large_clusters, cuda() ? 1 : 0);
}

TEST_P(Gpu, EveryThreadLaunchesOnTheDeviceItOpened) {
  const auto device = open(1);
  const auto module = load(*device);
  for (int i = 0; i < 3; ++i)
    std::thread([&] {
      float x = 1, y = 0;
      control_->device_of_last_launch = -1;
      const auto done = axpy(*device, *module, &y, &x, 1, 1, nullptr);
      EXPECT_TRUE(done) << done.error().message;
      EXPECT_EQ(control_->device_of_last_launch, 1);
    }).join();
}

TEST_P(Gpu, LeavesTheProgramsOwnDeviceCurrent) {
  const auto device = open(0);
  const auto module = load(*device);
  float x = 1, y = 0;
  if (cuda()) {
    set_context_(control_->foreign_context);
  } else {
    set_device_(1);
  }
  ASSERT_TRUE(axpy(*device, *module, &y, &x, 1, 1, nullptr));
  EXPECT_EQ(control_->device_of_last_launch, 0);
  if (cuda()) {
    void* current = nullptr;
    get_context_(&current);
    EXPECT_EQ(current, control_->foreign_context);
  } else {
    int current = -1;
    get_device_(&current);
    EXPECT_EQ(current, 1);
  }
}

// ---- Tensor maps. The numbers behind the names of <cuda.h> stand here as well, for the library uses none of its
// headers.

constexpr int kTypeFp16 = 6, kTypeFp32 = 7, kTypeBf16 = 9;
constexpr int kSwizzleNone = 0, kSwizzle32 = 1, kSwizzle64 = 2, kSwizzle128 = 3;
constexpr int kPromoteL2To256 = 3;

// [2, 100, 48] in bf16 with rows of 56 elements, 64 rows of 32 elements at a time.
TensorMapShape rows_of_48() {
  return {.dtype = DType::kBf16,
          .rank = 3,
          .shape = {48, 100, 2},
          .strides = {2, 112, 11200},
          .box = {32, 64, 1},
          .steps = {1, 1, 1}};
}

Result<void> walk(Device& device, Module& module, std::span<const TensorMapArg> maps) {
  void* params[] = {nullptr, nullptr, nullptr, nullptr};
  return device.launch(*module.function("walk"), LaunchShape{.block = 32, .maps = maps}, params, nullptr);
}

class GpuTensorMap : public Gpu {};
INSTANTIATE_TEST_SUITE_P(Drivers, GpuTensorMap, testing::Values(kDrivers[0]),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(GpuTensorMap, IsAskedForWithTheShapesNumbersAndTheCallsPointerAndBecomesTheParameter) {
  const auto device = open();
  const auto module = load(*device);
  const DevicePtr memory = *device->allocate(1 << 16);
  const TensorMapShape shape = rows_of_48();
  const TensorMapArg map{.param = 0, .shape = &shape, .base = memory};
  const auto done = walk(*device, *module, {&map, 1});
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_EQ(control_->tensor_map_count, 1);
  const fake::TensorMapCall& call = control_->tensor_maps[0];
  EXPECT_FALSE(call.pixels);
  EXPECT_EQ(call.type, kTypeBf16);
  EXPECT_EQ(call.rank, 3u);
  EXPECT_EQ(call.base, memory);
  EXPECT_THAT(call.shape, ElementsAre(48, 100, 2, 0, 0));
  EXPECT_THAT(call.strides, ElementsAre(112, 11200, 0, 0)) << "that of the fastest axis is none";
  EXPECT_THAT(call.box, ElementsAre(32, 64, 1, 0, 0));
  EXPECT_THAT(call.steps, ElementsAre(1, 1, 1, 0, 0));
  EXPECT_EQ(call.interleave, 0);
  EXPECT_EQ(call.swizzle, kSwizzle64);
  EXPECT_EQ(call.promotion, kPromoteL2To256);
  EXPECT_EQ(call.fill, 0) << "outside is 0, not a NaN";
  EXPECT_EQ(control_->walked, 1u) << "the kernel got another parameter than the map";

  // The next launch makes its own, for its own pointer.
  const TensorMapArg moved{.param = 0, .shape = &shape, .base = static_cast<char*>(memory) + 256};
  ASSERT_TRUE(walk(*device, *module, {&moved, 1}));
  EXPECT_EQ(control_->tensor_maps[1].base, moved.base);
  EXPECT_EQ(control_->walked, 2u);
  device->release(memory);
}

TEST_P(GpuTensorMap, OfPixelsIsAskedForWithItsCorners) {
  const auto device = open();
  const auto module = load(*device);
  const DevicePtr memory = *device->allocate(1 << 16);
  const TensorMapShape shape{.dtype = DType::kFp16,
                             .rank = 4,
                             .pixels = true,
                             .shape = {64, 10, 20, 3},
                             .strides = {2, 128, 1280, 25600},
                             .box = {64, 128},
                             .steps = {1, 2, 3, 1},
                             .lower = {-1, -3},
                             .upper = {2, 5}};
  const TensorMapArg map{.param = 0, .shape = &shape, .base = memory};
  const auto done = walk(*device, *module, {&map, 1});
  ASSERT_TRUE(done) << done.error().message;
  const fake::TensorMapCall& call = control_->tensor_maps[0];
  EXPECT_TRUE(call.pixels);
  EXPECT_EQ(call.type, kTypeFp16);
  EXPECT_EQ(call.rank, 4u);
  EXPECT_EQ(call.base, memory);
  EXPECT_THAT(call.shape, ElementsAre(64, 10, 20, 3, 0));
  EXPECT_THAT(call.strides, ElementsAre(128, 1280, 25600, 0));
  EXPECT_THAT(call.lower, ElementsAre(-1, -3, 0));
  EXPECT_THAT(call.upper, ElementsAre(2, 5, 0));
  EXPECT_THAT(call.box, ElementsAre(64, 128, 0, 0, 0)) << "channels, pixels";
  EXPECT_THAT(call.steps, ElementsAre(1, 2, 3, 1, 0));
  EXPECT_EQ(call.swizzle, kSwizzle128);
  EXPECT_EQ(call.promotion, kPromoteL2To256);
  EXPECT_EQ(call.fill, 0);
  EXPECT_EQ(control_->walked, 1u);
  device->release(memory);
}

TEST_P(GpuTensorMap, RowsOfABoxArePermutedByTheirBytes) {
  const auto device = open();
  const auto module = load(*device);
  const DevicePtr memory = *device->allocate(1 << 16);
  struct Case {
    DType dtype;
    std::uint32_t elements;
    int type, swizzle;
  };
  for (const Case& c : {Case{DType::kBf16, 64, kTypeBf16, kSwizzle128}, Case{DType::kFp32, 32, kTypeFp32, kSwizzle128},
                        Case{DType::kFp32, 16, kTypeFp32, kSwizzle64}, Case{DType::kFp16, 16, kTypeFp16, kSwizzle32},
                        Case{DType::kInt8, 128, 0, kSwizzle128}, Case{DType::kBf16, 8, kTypeBf16, kSwizzleNone},
                        Case{DType::kBf16, 128, kTypeBf16, kSwizzleNone}}) {
    SCOPED_TRACE(std::string(dtype_name(c.dtype)) + " x " + std::to_string(c.elements));
    control_->tensor_map_count = 0;
    TensorMapShape shape = rows_of_48();
    shape.dtype = c.dtype;
    shape.box[0] = c.elements;
    const TensorMapArg map{.param = 0, .shape = &shape, .base = memory};
    ASSERT_TRUE(walk(*device, *module, {&map, 1}));
    EXPECT_EQ(control_->tensor_maps[0].type, c.type);
    EXPECT_EQ(control_->tensor_maps[0].swizzle, c.swizzle);
  }
  device->release(memory);
}

TEST_P(GpuTensorMap, OneThatTheKernelDoesNotUseIsNotAskedFor) {
  const auto device = open();
  const auto module = load(*device);
  const DevicePtr memory = *device->allocate(1 << 16);
  const TensorMapShape unused{}, shape = rows_of_48();
  const TensorMapArg maps[] = {{.param = 1, .shape = &unused, .base = nullptr},
                               {.param = 0, .shape = &shape, .base = memory}};
  ASSERT_TRUE(walk(*device, *module, maps));
  EXPECT_EQ(control_->tensor_map_count, 1);
  EXPECT_EQ(control_->tensor_maps[0].base, memory);
  EXPECT_EQ(control_->walked, 1u);
  device->release(memory);
}

TEST_P(GpuTensorMap, ThatTheDriverRefusesIsALaunchThatFailsAndHarmsNothing) {
  const auto device = open();
  const auto module = load(*device);
  const DevicePtr memory = *device->allocate(1 << 16);
  const TensorMapShape shape = rows_of_48();
  const int launches = control_->launches;
  const TensorMapArg odd{.param = 0, .shape = &shape, .base = static_cast<char*>(memory) + 2};
  const auto refused = walk(*device, *module, {&odd, 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kDevice);
  EXPECT_THAT(refused.error().message, HasSubstr("launching walk (grid 1x1x1, block 32, LDS 0): "));
  const TensorMapArg map{.param = 0, .shape = &shape, .base = memory};
  control_->fail_tensor_map = 801;
  EXPECT_THAT(walk(*device, *module, {&map, 1}).error().message, HasSubstr("801"));
  EXPECT_EQ(control_->launches, launches) << "a kernel was begun without its map";
  control_->fail_tensor_map = 0;
  EXPECT_TRUE(walk(*device, *module, {&map, 1})) << "the device is as good as before";
  device->release(memory);
}

// HIP has no such copy engine; drivers of CUDA before 12.0 do not know it either.
class GpuWithoutCopyEngine : public Gpu {};
INSTANTIATE_TEST_SUITE_P(Drivers, GpuWithoutCopyEngine, testing::Values(kDrivers[1], kDrivers[2]),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(GpuWithoutCopyEngine, ALaunchWithATensorMapFails) {
  const auto device = open();
  const auto module = load(*device);
  const TensorMapShape shape = rows_of_48();
  const TensorMapArg map{.param = 0, .shape = &shape, .base = nullptr};
  const auto refused = walk(*device, *module, {&map, 1});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("launching walk"));
  EXPECT_EQ(control_->launches, 0);
}

class GpuContext : public Gpu {};  // HIP has none
INSTANTIATE_TEST_SUITE_P(Drivers, GpuContext, testing::Values(kDrivers[0]),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(GpuContext, OfTheProgramIsUsedWhereItIsOnTheDevice) {
  set_context_(control_->foreign_context);
  open(1);
  EXPECT_EQ(control_->primary_retains, 0);
  set_context_(nullptr);
  open(1);
  EXPECT_EQ(control_->primary_retains, 1);
  EXPECT_EQ(control_->primary_releases, 1);
}

// What was current when the last user of a primary context went away is destroyed with it.
TEST_P(GpuContext, ADeviceCanBeOpenedAgainInEveryThreadThatUsedOneThatIsClosed) {
  auto first = open(0), second = open(0);
  const auto works = [](Device& device) {
    const auto memory = device.allocate(64);
    if (memory) device.release(*memory);
    return memory.has_value();
  };
  std::latch used(1), closed(1);
  bool again = false;
  std::thread other([&] {
    EXPECT_TRUE(works(*first));
    used.count_down();
    closed.wait();
    again = works(*open(0));
  });
  used.wait();
  EXPECT_TRUE(works(*second));
  first.reset();
  second.reset();
  closed.count_down();
  other.join();
  EXPECT_TRUE(again);
  EXPECT_TRUE(works(*open(0)));
}

TEST_P(Gpu, FaultIsNamedAndEndsTheUseOfTheDevice) {
  auto device = open();
  auto module = load(*device);
  const auto memory = device->allocate(4);
  ASSERT_TRUE(device->launch(*module->function("wild"), LaunchShape{}, nullptr, nullptr));
  const auto fault = device->synchronize(nullptr);
  ASSERT_FALSE(fault);
  EXPECT_EQ(fault.error().kind, ErrorKind::kDevice);
  EXPECT_EQ(fault.error().message, id(0) + ": waiting for the device: " + GetParam().illegal_address +
                                       " (an illegal memory access was encountered)");
  control_->sticky = 0;  // even if the driver has forgotten
  const auto later = device->synchronize(nullptr);
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().kind, ErrorKind::kDevice);
  EXPECT_THAT(later.error().message, HasSubstr("unusable in this process since"));
  EXPECT_FALSE(device->allocate(4));
  EXPECT_FALSE(device->load(code(std::string(fake::kCode) + " axpy")));
  device->release(*memory);
  std::free(*memory);
  module.reset();
  device.reset();
}

TEST_P(Gpu, RefusedLaunchDoesNotEndTheUseOfTheDevice) {
  const auto device = open();
  const auto module = load(*device);
  EXPECT_FALSE(device->launch(*module->function("wild"), LaunchShape{{0, 1, 1}, 64, 0}, nullptr, nullptr));
  EXPECT_TRUE(device->synchronize(nullptr));
}

TEST_P(Gpu, BadCodeObjectIsRefusedWithTheDriversFirstLine) {
  const auto device = open();
  const auto module = device->load(code("nonsense"));
  ASSERT_FALSE(module);
  EXPECT_EQ(module.error().kind, ErrorKind::kDevice);
  EXPECT_THAT(module.error().message, HasSubstr("loading a code object of"));
  EXPECT_THAT(module.error().message, HasSubstr(cuda() ? "ptxas fatal : bad line 7: error 200" : "hipErrorOther"));
  EXPECT_THAT(module.error().message, Not(HasSubstr("\n")));
}

TEST_P(Gpu, CodeNeedsNoNulAtItsEnd) {
  const auto device = open();
  const std::string text = std::string(fake::kCode) + " axpyX";
  const auto module = device->load(code(text).first(text.size() - 1));
  ASSERT_TRUE(module);
  EXPECT_TRUE((*module)->function("axpy"));
  EXPECT_FALSE((*module)->function("axpyX"));
}

TEST_P(Gpu, MissingKernelIsNamed) {
  const auto device = open();
  const auto module = load(*device);
  const auto function = module->function("absent");
  ASSERT_FALSE(function);
  EXPECT_EQ(function.error().message, id(0) + ": no kernel 'absent' in the code object");
}

TEST_P(Gpu, GraphReplaysWhatWasCaptured) {
  const auto device = open();
  const auto module = load(*device);
  float x = 1, y = 0;
  const auto graph = device->capture([&](Stream stream) -> Result<void> {
    KGEN_CHECK_OK(axpy(*device, *module, &y, &x, 2, 1, stream));
    return axpy(*device, *module, &y, &x, 3, 1, stream);
  });
  ASSERT_TRUE(graph) << graph.error().message;
  EXPECT_EQ(y, 0);
  ASSERT_TRUE(device->replay(*graph, nullptr));
  ASSERT_TRUE(device->replay(*graph, nullptr));
  EXPECT_EQ(y, 10);
  const auto failed = device->capture([&](Stream stream) { return device->synchronize(stream); });
  EXPECT_FALSE(failed);
  EXPECT_EQ(control_->streams, 0);
}

TEST_P(Gpu, EventsMeasureMicroseconds) {
  const auto device = open();
  Event from = nullptr, to = nullptr;
  ASSERT_TRUE(device->record(from, nullptr));
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  ASSERT_TRUE(device->record(to, nullptr));
  const auto us = device->elapsed_us(from, to);
  ASSERT_TRUE(us);
  EXPECT_GE(*us, 2900);
  EXPECT_LT(*us, 1e6);
  EXPECT_FALSE(device->elapsed_us(nullptr, to));
}

TEST_P(Gpu, GivesBackAllThatItMade) {
  {
    const auto device = open();
    auto module = load(*device);
    Event event = nullptr;
    ASSERT_TRUE(device->record(event, nullptr));
    ASSERT_TRUE(device->capture([&](Stream) -> Result<void> { return {}; }));
    EXPECT_EQ(control_->modules, 1);
  }
  EXPECT_EQ(control_->modules, 0);
  EXPECT_EQ(control_->events, 0);
  EXPECT_EQ(control_->graphs, 0);
  EXPECT_EQ(control_->streams, 0);
  EXPECT_EQ(control_->primary_retains, control_->primary_releases);
}

TEST_P(Gpu, ModuleMayOutliveItsDevice) {
  auto device = open();
  const auto module = load(*device);
  device.reset();
  EXPECT_TRUE(module->function("axpy"));
}

TEST_P(Gpu, NumberBeyondTheLastDeviceIsNoDevice) {
  const auto device = open_device(id(2));
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().kind, ErrorKind::kNoDevice);
  EXPECT_EQ(device.error().message, id(2) + ": no such device; there are " + id(0) + " to " + id(1));
}

TEST_P(Gpu, ProbeListsItsDevicesBeforeTheHost) {
  const Setting other(cuda() ? "KGEN_HIP_LIBRARY" : "KGEN_CUDA_LIBRARY", "/nowhere/libnone.so");
  const DeviceProbe probe = probe_devices();
  ASSERT_EQ(probe.devices.size(), 3u);
  EXPECT_EQ(probe.devices[0].id, id(0));
  EXPECT_EQ(probe.devices[1].id, id(1));
  EXPECT_EQ(probe.devices[2].id, "host");
  ASSERT_EQ(probe.notes.size(), 1u);
  EXPECT_THAT(probe.notes[0], HasSubstr("/nowhere/libnone.so not found; install"));
  EXPECT_EQ((*open_device("auto"))->info().id, id(0));
}

TEST_P(Gpu, UnknownArchitectureIsSkippedWithANote) {
  control_->arch = cuda() ? "52" : "gfx1234";
  const Setting other(cuda() ? "KGEN_HIP_LIBRARY" : "KGEN_CUDA_LIBRARY", "/nowhere/libnone.so");
  const auto device = open_device(id(0));
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().kind, ErrorKind::kNoDevice);
  EXPECT_THAT(device.error().message, HasSubstr("kgen has no code for"));
  const DeviceProbe probe = probe_devices();
  EXPECT_EQ(probe.devices.size(), 1u);
  EXPECT_EQ(probe.notes.size(), 3u);
  EXPECT_EQ((*open_device("auto"))->info().id, "host");
}

TEST_P(Gpu, DriverThatFindsNothingIsNoDevice) {
  control_->init_error = 100;
  const auto device = open_device(id(0));
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().kind, ErrorKind::kNoDevice);
  EXPECT_THAT(device.error().message, HasSubstr(cuda() ? "CUDA_ERROR_NO_DEVICE" : "hipErrorNoDevice"));
  control_->init_error = 0;
  control_->devices = 0;
  EXPECT_FALSE(open_device(id(0)));
}

TEST(GpuLibrary, WithoutADriverThereIsNoDevice) {
  const Setting cuda("KGEN_CUDA_LIBRARY", "libm.so.6");
  const auto device = open_device("nvidia:0");
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().kind, ErrorKind::kNoDevice);
  EXPECT_THAT(device.error().message, HasSubstr("libm.so.6 has no cuInit"));
}

TEST(GpuLibrary, AmdWithoutAKernelDriverIsNoDevice) {
  if (access("/dev/kfd", F_OK) == 0) GTEST_SKIP() << "this machine has an AMD GPU";
  const auto device = open_device("amd:0");
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().kind, ErrorKind::kNoDevice);
  EXPECT_THAT(device.error().message, HasSubstr("/dev/kfd"));
}

TEST(GpuLibrary, RealHipRuntimeWithoutAGpuIsNoDeviceAndNoCrash) {
  if (access("/dev/kfd", F_OK) == 0) GTEST_SKIP() << "this machine has an AMD GPU";
  if (dlopen("libamdhip64.so.5", RTLD_NOW | RTLD_LOCAL) == nullptr) GTEST_SKIP() << "libamdhip64.so.5 is not installed";
  const Setting hip("KGEN_HIP_LIBRARY", "libamdhip64.so.5");
  const auto device = open_device("amd:0");
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().kind, ErrorKind::kNoDevice);
  EXPECT_THAT(device.error().message, HasSubstr("no usable device"));
}

TEST(GpuId, MalformedIdsAreBadInput) {
  for (const char* id : {"", "nvdia:0", "nvidia:", "nvidia:x", "nvidia:-1", "amd:1x", "hosts"}) {
    const auto device = open_device(id);
    ASSERT_FALSE(device) << id;
    EXPECT_EQ(device.error().kind, ErrorKind::kBadInput) << id;
  }
  EXPECT_THAT(open_device("nvdia:0").error().message, HasSubstr("did you mean 'nvidia'?"));
}

TEST(GpuArch, NvidiaFallsBackWithinAMajorVersion) {
  EXPECT_EQ(match_nvidia_arch(9, 0)->arch->name, "sm_90");
  EXPECT_EQ(match_nvidia_arch(9, 0)->note, "");
  EXPECT_EQ(match_nvidia_arch(8, 7)->arch->name, "sm_86");
  EXPECT_EQ(match_nvidia_arch(8, 7)->note, "is sm_87, runs code for sm_86");
  EXPECT_FALSE(match_nvidia_arch(6, 0));
  EXPECT_EQ(match_nvidia_arch(12, 0)->arch->name, "sm_70");
  EXPECT_THAT(match_nvidia_arch(12, 0)->note, testing::HasSubstr("stored as PTX"));
}

TEST(GpuArch, AmdNamesLoseTheirFeatures) {
  EXPECT_EQ(match_amd_arch("gfx90a:sramecc+:xnack-")->arch->name, "gfx90a");
  EXPECT_EQ(match_amd_arch("gfx1201")->arch->name, "gfx1201");
  const auto unknown = match_amd_arch("gfx1101");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, HasSubstr("gfx1100"));
}

}  // namespace
}  // namespace kgen::gpu
