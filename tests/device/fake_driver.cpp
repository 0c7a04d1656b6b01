// Built once with FAKE_CUDA, once with FAKE_HIP, and once with FAKE_HIP and FAKE_HIP_R0600 (the structure of ROCm 6).
#include "tests/device/fake_driver.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr int kInvalidValue = 1, kOutOfMemory = 2, kNotInitialized = 3, kInvalidDevice = 101, kInvalidImage = 200,
              kInvalidContext = 201, kContextDestroyed = 709, kNotFound = 500, kIllegalAddress = 700,
              kCaptureUnsupported = 900;

fake::Control control;
bool initialised = false;

#if defined(FAKE_CUDA)
#define NAME(cuda, hip) cuda
struct FakeContext {
  int device;
};
FakeContext primary[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
FakeContext foreign = {1};
int held[8] = {};  // a primary context that nobody retains is destroyed
thread_local FakeContext* current = nullptr;
int current_device() { return current == nullptr ? -1 : current->device; }
#else
#define NAME(cuda, hip) hip
thread_local int current = 0;
int current_device() { return current; }
#endif

using Work = std::function<void()>;
struct FakeStream {
  bool capturing = false;
  std::vector<Work> work;
};
struct FakeGraph {
  std::vector<Work> work;
};
struct FakeEvent {
  std::chrono::steady_clock::time_point time;
};
struct FakeFunction {
  std::string name;
  unsigned lds_limit = NAME(48u << 10, 64u << 10);
};
struct FakeModule {
  std::string code;
  std::vector<std::unique_ptr<FakeFunction>> functions{};
};
std::vector<std::unique_ptr<FakeModule>> modules;  // a faulted device keeps what it has

// Every call after initialisation begins so.
int ready() {
  if (!initialised) return kNotInitialized;
  if (current_device() < 0) return kInvalidContext;
#if defined(FAKE_CUDA)
  if (current != &foreign && held[current->device] == 0) return kContextDestroyed;
#endif
  return control.sticky;
}

int submit(void* stream, Work work) {
  if (auto* s = static_cast<FakeStream*>(stream); s != nullptr && s->capturing) {
    s->work.push_back(std::move(work));
  } else {
    work();
  }
  return 0;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) fake::Control* fake_control() {
#if defined(FAKE_CUDA)
  control.foreign_context = &foreign;
#endif
  return &control;
}

#define API(cuda, hip) __attribute__((visibility("default"))) int NAME(cuda, hip)

API(cuInit, hipInit)(unsigned) {
  if (control.init_error == 0) initialised = true;
  return control.init_error;
}
API(cuDriverGetVersion, hipRuntimeGetVersion)(int* version) {
  *version = NAME(12040, 50221153);
  return 0;
}
API(cuDeviceGetCount, hipGetDeviceCount)(int* count) {
  *count = control.devices;
  return initialised ? 0 : kNotInitialized;
}
API(cuDeviceGet, hipDeviceGet)(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < control.devices ? 0 : kInvalidDevice;
}
API(cuDeviceGetName, hipDeviceGetName)(char* name, int bytes, int device) {
  // The name looks like an architecture, as that of some integrated GPUs does.
  std::strncpy(name, device == 0 ? NAME("Fake H100", "gfx999") : "Fake Two", bytes);
  return 0;
}
API(cuDeviceGetAttribute, hipDeviceGetAttribute)(int* value, int attribute, int) {
#if defined(FAKE_CUDA)
  const int capability = std::atoi(control.arch);
  switch (attribute) {
    case 16:
      *value = 132;
      return 0;
    case 13:
      *value = 1980000;
      return 0;
    case 38:
      *value = 50 << 20;
      return 0;
    case 97:
      *value = 227 << 10;
      return 0;
    case 75:
      *value = capability / 10;
      return 0;
    case 76:
      *value = capability % 10;
      return 0;
  }
#else
  switch (attribute) {
    case 63:
      *value = 104;
      return 0;
    case 5:
      *value = 1700000;
      return 0;
    case 19:
      *value = 8 << 20;
      return 0;
    case 74:
      *value = 64 << 10;
      return 0;
  }
#endif
  return kInvalidValue;
}
API(cuDeviceTotalMem_v2, hipDeviceTotalMem)(std::size_t* bytes, int) {
  *bytes = std::size_t{64} << 30;
  return 0;
}
API(cuDeviceGetPCIBusId, hipDeviceGetPCIBusId)(char* text, int bytes, int device) {
  std::strncpy(text, device == 0 ? "0000:0a:00.0" : "0000:0b:00.0", bytes);
  return 0;
}
API(cuMemAlloc_v2, hipMalloc)(void** memory, std::size_t bytes) {
  if (const int code = ready(); code != 0) return code;
  if (bytes > std::size_t{64} << 30) return kOutOfMemory;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  ++control.allocations;
  return 0;
}
API(cuMemFree_v2, hipFree)(void* memory) {
  std::free(memory);
  --control.allocations;
  return ready();
}
API(cuMemsetD8Async, hipMemsetD8Async)(void* to, unsigned char value, std::size_t bytes, void* stream) {
  if (const int code = ready(); code != 0) return code;
  return submit(stream, [=] { std::memset(to, value, bytes); });
}
API(cuModuleLoadDataEx, hipModuleLoadDataEx)
(void** module, const void* code, unsigned options, int* names, void** values) {
  if (const int error = ready(); error != 0) return error;
  const std::string text = static_cast<const char*>(code);  // must end in NUL
  if (control.fail_load != 0 || text.rfind(fake::kCode, 0) != 0) {
    for (unsigned i = 0; i < options; ++i)
      if (names[i] == 5) std::strcpy(static_cast<char*>(values[i]), "ptxas fatal : bad line 7\nmore");
    return control.fail_load != 0 ? control.fail_load : kInvalidImage;
  }
  modules.push_back(std::make_unique<FakeModule>());
  modules.back()->code = text;
  *module = modules.back().get();
  ++control.modules;
  return 0;
}
API(cuModuleUnload, hipModuleUnload)(void* module) {
  std::erase_if(modules, [&](const auto& known) { return known.get() == module; });
  --control.modules;
  return ready();
}
API(cuModuleGetFunction, hipModuleGetFunction)(void** function, void* module, const char* name) {
  if (const int code = ready(); code != 0) return code;
  if (static_cast<FakeModule*>(module)->code.find(" " + std::string(name)) == std::string::npos) return kNotFound;
  auto& functions = static_cast<FakeModule*>(module)->functions;
  functions.push_back(std::make_unique<FakeFunction>());
  functions.back()->name = name;
  *function = functions.back().get();
  return 0;
}
API(cuLaunchKernel, hipModuleLaunchKernel)
(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned lds_bytes,
 void* stream, void** params, void**) {
  if (const int code = ready(); code != 0) return code;
  const auto& kernel = *static_cast<FakeFunction*>(function);
  if (lds_bytes > kernel.lds_limit || gx * gy * gz == 0 || bx > 1024) return kInvalidValue;
  ++control.launches;
  const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  std::memcpy(control.grid, grid, sizeof(grid));
  std::memcpy(control.block, block, sizeof(block));
  control.lds_bytes = lds_bytes;
  control.device_of_last_launch = current_device();
  if (kernel.name == "axpy") {  // y[i] += a * x[i]; the parameters are copied now, as a driver does
    float *y = *static_cast<float**>(params[0]), *x = *static_cast<float**>(params[1]);
    const float a = *static_cast<float*>(params[2]);
    const std::int64_t n = *static_cast<std::int64_t*>(params[3]);
    return submit(stream, [=] {
      for (std::int64_t i = 0; i < n && i < std::int64_t{gx} * bx; ++i) y[i] += a * x[i];
    });
  }
  if (kernel.name == "wild") control.sticky = kIllegalAddress;  // found by the next call
  return 0;
}
API(cuStreamCreate, hipStreamCreateWithFlags)(void** stream, unsigned) {
  if (const int code = ready(); code != 0) return code;
  *stream = new FakeStream;
  ++control.streams;
  return 0;
}
API(cuStreamDestroy_v2, hipStreamDestroy)(void* stream) {
  delete static_cast<FakeStream*>(stream);
  --control.streams;
  return 0;
}
API(cuStreamSynchronize, hipStreamSynchronize)(void* stream) {
  if (stream != nullptr && static_cast<FakeStream*>(stream)->capturing) return kCaptureUnsupported;
  return ready();
}
API(cuEventCreate, hipEventCreateWithFlags)(void** event, unsigned) {
  if (const int code = ready(); code != 0) return code;
  *event = new FakeEvent;
  ++control.events;
  return 0;
}
API(cuEventDestroy_v2, hipEventDestroy)(void* event) {
  delete static_cast<FakeEvent*>(event);
  --control.events;
  return 0;
}
API(cuEventRecord, hipEventRecord)(void* event, void* stream) {
  if (const int code = ready(); code != 0) return code;
  return submit(stream, [=] { static_cast<FakeEvent*>(event)->time = std::chrono::steady_clock::now(); });
}
API(cuEventSynchronize, hipEventSynchronize)(void*) { return ready(); }
API(cuEventElapsedTime, hipEventElapsedTime)(float* ms, void* from, void* to) {
  *ms =
      std::chrono::duration<float, std::milli>(static_cast<FakeEvent*>(to)->time - static_cast<FakeEvent*>(from)->time)
          .count();
  return ready();
}
API(cuStreamBeginCapture_v2, hipStreamBeginCapture)(void* stream, int) {
  static_cast<FakeStream*>(stream)->capturing = true;
  return ready();
}
API(cuStreamEndCapture, hipStreamEndCapture)(void* stream, void** graph) {
  auto* s = static_cast<FakeStream*>(stream);
  s->capturing = false;
  *graph = new FakeGraph{s->work};
  ++control.graphs;
  return ready();
}
API(cuGraphInstantiateWithFlags, hipGraphInstantiateWithFlags)(void** exec, void* graph, unsigned long long) {
  *exec = new FakeGraph(*static_cast<FakeGraph*>(graph));
  ++control.graphs;
  return ready();
}
API(cuGraphLaunch, hipGraphLaunch)(void* exec, void*) {
  if (const int code = ready(); code != 0) return code;
  for (const Work& work : static_cast<FakeGraph*>(exec)->work) work();
  return 0;
}
API(cuGraphDestroy, hipGraphDestroy)(void* graph) {
  delete static_cast<FakeGraph*>(graph);
  --control.graphs;
  return 0;
}
API(cuGraphExecDestroy, hipGraphExecDestroy)(void* exec) {
  delete static_cast<FakeGraph*>(exec);
  --control.graphs;
  return 0;
}

#if defined(FAKE_CUDA)
API(cuCtxGetCurrent, )(void** context) {
  *context = current;
  return initialised ? 0 : kNotInitialized;
}
API(cuCtxSetCurrent, )(void* context) {
  current = static_cast<FakeContext*>(context);
  return 0;
}
API(cuCtxGetDevice, )(int* device) {
  *device = current_device();
  return current == nullptr ? kInvalidContext : 0;
}
API(cuDevicePrimaryCtxRetain, )(void** context, int device) {
  *context = &primary[device];
  ++control.primary_retains;
  ++held[device];
  return 0;
}
API(cuDevicePrimaryCtxRelease_v2, )(int device) {
  ++control.primary_releases;
  --held[device];
  return 0;
}
API(cuMemcpy, )(void* to, const void* from, std::size_t bytes) {
  if (const int code = ready(); code != 0) return code;
  std::memmove(to, from, bytes);
  return 0;
}
API(cuFuncSetAttribute, )(void* function, int attribute, int value) {
  if (attribute == 14 && value == 1) ++control.large_clusters;
  if (attribute == 14) return ready();
  if (attribute != 8 || value > 227 << 10) return kInvalidValue;
  static_cast<FakeFunction*>(function)->lds_limit = value;
  return ready();
}
API(cuDeviceGetUuid, )(unsigned char* uuid, int device) {
  for (int i = 0; i < 16; ++i) uuid[i] = static_cast<unsigned char>(device * 16 + i);
  return 0;
}
API(cuGetErrorName, )(int code, const char** name) {
  *name = code == kIllegalAddress ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == 100 ? "CUDA_ERROR_NO_DEVICE" : nullptr;
  return *name != nullptr ? 0 : kInvalidValue;
}
API(cuGetErrorString, )(int code, const char** text) {
  *text = code == kIllegalAddress ? "an illegal memory access was encountered" : nullptr;
  return *text != nullptr ? 0 : kInvalidValue;
}
#else
API(, hipGetDevice)(int* device) {
  *device = current;
  return 0;
}
API(, hipSetDevice)(int device) {
  if (device >= control.devices) return kInvalidDevice;
  current = device;
  return 0;
}
API(, hipMemcpy)(void* to, const void* from, std::size_t bytes, int kind) {
  if (const int code = ready(); code != 0) return code;
  if (kind != 4) return kInvalidValue;
  std::memmove(to, from, bytes);
  return 0;
}
// The structure of ROCm 5 has 792 bytes with the architecture at 396.
API(, hipGetDeviceProperties)(void* properties, int) {
  std::memset(properties, 0, 792);
  std::strcpy(static_cast<char*>(properties), "gfx999");
#if defined(FAKE_HIP_R0600)
  std::strcpy(static_cast<char*>(properties) + 396, "gfx123");  // a caller of the old function is told another
#else
  std::strcpy(static_cast<char*>(properties) + 396, control.arch);
#endif
  return 0;
}
#if defined(FAKE_HIP_R0600)
API(, hipGetDevicePropertiesR0600)(void* properties, int) {
  std::memset(properties, 0, 1472);
  std::strcpy(static_cast<char*>(properties), "gfx999");
  std::strcpy(static_cast<char*>(properties) + 1160, control.arch);
  return 0;
}
#endif
__attribute__((visibility("default"))) const char* hipGetErrorName(int code) {
  return code == kIllegalAddress ? "hipErrorIllegalAddress" : code == 100 ? "hipErrorNoDevice" : "hipErrorOther";
}
__attribute__((visibility("default"))) const char* hipGetErrorString(int code) {
  return code == kIllegalAddress ? "an illegal memory access was encountered" : "something else";
}
#endif
}
