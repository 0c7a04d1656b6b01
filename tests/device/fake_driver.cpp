// Built once with FAKE_CUDA, once with FAKE_HIP, and once with FAKE_HIP and FAKE_HIP_R0600 (the structure of ROCm 6).
#include "tests/device/fake_driver.h"

#include <elf.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/host.h"
#include "tests/device/fault_script.h"

namespace {

using fake::Injection;

constexpr int kInvalidValue = 1, kOutOfMemory = 2, kNotInitialized = 3, kDeviceUnavailable = 46, kInvalidDevice = 101,
              kInvalidImage = 200, kInvalidContext = 201, kContextDestroyed = 709, kNotFound = 500,
              kIllegalAddress = 700, kLaunchFailed = 719, kCaptureUnsupported = 900, kUnknown = 999;

const char* setting(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

fake::Control control = [] {
  fake::Control c;
  if (const char* count = setting("KGEN_FAKE_DEVICES")) c.devices = std::atoi(count);
  if (const char* arch = setting("KGEN_FAKE_ARCH")) c.arch = arch;
  return c;
}();
bool initialised = false;

#if defined(FAKE_CUDA)
#define NAME(cuda, hip) cuda
struct FakeContext {
  int device;
};
FakeContext primary[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};  // as many devices at most
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
  kgen::Function host = nullptr;
  bool skipped = false;  // by KGEN_FAKE_SKIP
  unsigned lds_limit = NAME(48u << 10, 64u << 10);
};
struct FakeModule {
  std::string code;
  std::vector<std::unique_ptr<FakeFunction>> functions{};
  std::unique_ptr<kgen::Module> host{};
};
std::mutex mutex;                                  // of what follows
std::vector<std::unique_ptr<FakeModule>> modules;  // a faulted device keeps what it has
std::map<char*, std::size_t> memory_blocks;        // allocations

// What runs kernels that were compiled for this CPU. Never destroyed: drivers outlive the program's own objects.
kgen::Device* host_device() {
  static kgen::Device* const kHost = [] {
    auto host = kgen::host::open_host();
    return host ? host->release() : nullptr;
  }();
  return kHost;
}

// A shared object's length, which module loads are not told.
std::size_t elf_bytes(const char* code) {
  Elf64_Ehdr header;
  std::memcpy(&header, code, sizeof header);
  return header.e_shoff + std::size_t{header.e_shnum} * header.e_shentsize;
}

// Memory of which the most is never touched (a buffer that displaces a cache) costs nothing.
constexpr std::size_t kLazyBytes = std::size_t{64} << 20;

void flip_bit(char* data, std::size_t bytes) {
  if (bytes == 0) return;
  const std::uint64_t lot = fake::lot();
  data[lot / 8 % bytes] = static_cast<char>(data[lot / 8 % bytes] ^ (1 << lot % 8));
}

// Runs `work` and flips a bit of one of the bytes that it changed in device memory.
void corrupt_what_changes(const std::function<void()>& work) {
  std::map<char*, std::string> before;
  {
    const std::lock_guard lock(mutex);
    for (const auto& [data, bytes] : memory_blocks)
      if (bytes < kLazyBytes) before.emplace(data, std::string(data, bytes));
  }
  work();
  std::vector<char*> changed;
  for (const auto& [data, old] : before)
    for (std::size_t i = 0; i < old.size(); ++i)
      if (data[i] != old[i]) changed.push_back(data + i);
  if (!changed.empty()) flip_bit(changed[fake::lot() % changed.size()], 1);
}

// Every call after initialisation begins so.
int ready() {
  if (!initialised) return kNotInitialized;
  if (current_device() < 0) return kInvalidContext;
#if defined(FAKE_CUDA)
  if (current != &foreign && held[current->device] == 0) return kContextDestroyed;
#endif
  if (control.sticky == 0 && fake::lost(current_device())) control.sticky = kUnknown;
  return control.sticky;
}

// As ready(), with the fault that the script has for this call. What it leaves to the caller is in `injection`.
int ready(const char* call, Injection& injection, std::string_view kernel = "") {
  injection = fake::meet(call, kernel, std::max(current_device(), 0));
  if (const int code = ready(); code != 0) return code;
  if (injection.kind == Injection::Kind::kError) return injection.code;
  if (injection.kind == Injection::Kind::kFault) {
    control.sticky = injection.code;
    return std::string_view(call) == "launch" ? 0 : control.sticky;  // the next call finds what a launch has done
  }
  return 0;
}
int ready(const char* call) {
  Injection injection;
  return ready(call, injection);
}
// Of calls that need no context.
int allowed(const char* call, int device = 0) {
  const Injection injection = fake::meet(call, "", device);
  return injection.kind == Injection::Kind::kError || injection.kind == Injection::Kind::kFault ? injection.code : 0;
}

#if defined(FAKE_CUDA)
// The 128 bytes of a map begin at a multiple of 64, what it walks and each of its strides at one of 16.
int make_tensor_map(void* map, const fake::TensorMapCall& call) {
  if (const int code = ready(); code != 0) return code;
  if (control.fail_tensor_map != 0) return control.fail_tensor_map;
  if (reinterpret_cast<std::uintptr_t>(map) % 64 != 0 || reinterpret_cast<std::uintptr_t>(call.base) % 16 != 0)
    return kInvalidValue;
  for (const std::uint64_t stride : call.strides)
    if (stride % 16 != 0) return kInvalidValue;
  if (control.tensor_map_count < 4) control.tensor_maps[control.tensor_map_count] = call;
  std::fill_n(static_cast<std::uint64_t*>(map), 16, ++control.tensor_map_count);
  return 0;
}
#endif

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
  if (const int code = allowed("init"); code != 0) return code;
  if (control.init_error == 0) initialised = true;
  return control.init_error;
}
API(cuDriverGetVersion, hipRuntimeGetVersion)(int* version) {
  *version = NAME(12040, 50221153);
  return 0;
}
API(cuDeviceGetCount, hipGetDeviceCount)(int* count) {
  if (const int code = allowed("device_count"); code != 0) return code;
  *count = control.devices;
  return initialised ? 0 : kNotInitialized;
}
API(cuDeviceGet, hipDeviceGet)(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < control.devices ? 0 : kInvalidDevice;
}
API(cuDeviceGetName, hipDeviceGetName)(char* name, int bytes, int device) {
  if (const int code = allowed("device_name", device); code != 0) return code;
  if (setting("KGEN_FAKE_ARCH") != nullptr) {
    std::strncpy(name, "Stand-in GPU", bytes);
    return 0;
  }
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
      *value = capability < 80 ? 48 << 10 : 227 << 10;
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
  std::strncpy(text, fmt::format("0000:{:02x}:00.0", 10 + device).c_str(), bytes);
  return 0;
}
API(cuMemAlloc_v2, hipMalloc)(void** memory, std::size_t bytes) {
  if (const int code = ready("allocate"); code != 0) return code;
  if (bytes > std::size_t{64} << 30) return kOutOfMemory;
  *memory = bytes < kLazyBytes
                ? std::aligned_alloc(256, (bytes + 255) / 256 * 256)
                : ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (*memory == nullptr || *memory == MAP_FAILED) return kOutOfMemory;
  const std::lock_guard lock(mutex);
  memory_blocks[static_cast<char*>(*memory)] = bytes;
  ++control.allocations;
  return 0;
}
API(cuMemFree_v2, hipFree)(void* memory) {
  const std::lock_guard lock(mutex);
  const auto block = memory_blocks.find(static_cast<char*>(memory));
  if (block == memory_blocks.end()) return kInvalidValue;
  if (block->second < kLazyBytes)
    std::free(memory);
  else
    ::munmap(memory, block->second);
  memory_blocks.erase(block);
  --control.allocations;
  return ready("release");
}
API(cuMemsetD8Async, hipMemsetD8Async)(void* to, unsigned char value, std::size_t bytes, void* stream) {
  Injection injection;
  if (const int code = ready("fill", injection); code != 0) return code;
  if (injection.kind == Injection::Kind::kSkip) return 0;
  const bool corrupt = injection.kind == Injection::Kind::kCorrupt;
  return submit(stream, [=] {
    char* const data = static_cast<char*>(to);
    // Zeros over all of a large allocation: pages that were never written are zeros already.
    if (value == 0 && bytes >= kLazyBytes && reinterpret_cast<std::uintptr_t>(to) % 4096 == 0)
      ::madvise(to, bytes, MADV_DONTNEED);
    else
      std::memset(to, value, bytes);
    if (corrupt) flip_bit(data, bytes);
  });
}
API(cuModuleLoadDataEx, hipModuleLoadDataEx)
(void** module, const void* code, unsigned options, int* names, void** values) {
  Injection injection;
  if (const int error = ready("module_load", injection); error != 0) return error;
  auto loaded = std::make_unique<FakeModule>();
  if (std::memcmp(code, ELFMAG, SELFMAG) == 0 && control.fail_load == 0 && host_device() != nullptr) {
    std::string image(static_cast<const char*>(code), elf_bytes(static_cast<const char*>(code)));
    if (injection.kind == Injection::Kind::kCorrupt) flip_bit(image.data(), image.size());
    auto host = host_device()->load(std::as_bytes(std::span(image)));
    if (!host) {
      if (options > 0) std::strncpy(static_cast<char*>(values[0]), host.error().message.c_str(), 1000);
      return kInvalidImage;
    }
    loaded->host = std::move(*host);
    const std::lock_guard lock(mutex);
    *module = modules.emplace_back(std::move(loaded)).get();
    ++control.modules;
    return 0;
  }
  const std::string text = static_cast<const char*>(code);  // must end in NUL
  if (control.fail_load != 0 || text.rfind(fake::kCode, 0) != 0) {
    for (unsigned i = 0; i < options; ++i)
      if (names[i] == 5) std::strcpy(static_cast<char*>(values[i]), "ptxas fatal : bad line 7\nmore");
    return control.fail_load != 0 ? control.fail_load : kInvalidImage;
  }
  loaded->code = text;
  const std::lock_guard lock(mutex);
  *module = modules.emplace_back(std::move(loaded)).get();
  ++control.modules;
  return 0;
}
API(cuModuleUnload, hipModuleUnload)(void* module) {
  const std::lock_guard lock(mutex);
  std::erase_if(modules, [&](const auto& known) { return known.get() == module; });
  --control.modules;
  return ready("module_unload");
}
API(cuModuleGetFunction, hipModuleGetFunction)(void** function, void* module, const char* name) {
  if (const int code = ready("module_function"); code != 0) return code;
  auto& [code, functions, host] = *static_cast<FakeModule*>(module);
  kgen::Function found = nullptr;
  if (host != nullptr) {
    auto function = host->function(name);
    if (!function) return kNotFound;
    found = *function;
  } else if (code.find(" " + std::string(name)) == std::string::npos) {
    return kNotFound;
  }
  functions.push_back(std::make_unique<FakeFunction>());
  functions.back()->name = name;
  functions.back()->host = found;
  if (const char* skipped = setting("KGEN_FAKE_SKIP"))
    functions.back()->skipped =
        (std::string(",") + skipped + ",").find("," + functions.back()->name + ",") != std::string::npos;
  *function = functions.back().get();
  return 0;
}
API(cuLaunchKernel, hipModuleLaunchKernel)
(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned lds_bytes,
 void* stream, void** params, void**) {
  const auto& kernel = *static_cast<FakeFunction*>(function);
  static std::atomic<bool> first_launch{true};
  if (first_launch.exchange(false)) fake::log_line("begins with " + kernel.name);
  Injection injection;
  if (const int code = ready("launch", injection, kernel.name); code != 0) return code;
  if (lds_bytes > kernel.lds_limit || gx * gy * gz == 0 || bx > 1024) return kInvalidValue;
  ++control.launches;
  const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  std::memcpy(control.grid, grid, sizeof(grid));
  std::memcpy(control.block, block, sizeof(block));
  control.lds_bytes = lds_bytes;
  control.device_of_last_launch = current_device();
  if (kernel.skipped || injection.kind == Injection::Kind::kSkip || control.sticky != 0) return 0;
  if (kernel.host != nullptr) {
    kgen::LaunchShape shape{.grid = {gx, gy, gz}, .block = bx * by * bz, .lds_bytes = lds_bytes};
    const bool corrupt = injection.kind == Injection::Kind::kCorrupt;
    const auto run = [corrupt](const std::function<kgen::Result<void>()>& work) {
      const auto once = [&] {
        if (const auto done = work(); !done) {
          fmt::print(stderr, "{}\n", done.error().message);
          control.sticky = kLaunchFailed;
        }
      };
      corrupt ? corrupt_what_changes(once) : once();
    };
    auto* const s = static_cast<FakeStream*>(stream);
    if (s == nullptr || !s->capturing) {
      run([&] { return host_device()->launch(kernel.host, shape, params, nullptr); });
      return 0;
    }
    // The host device knows how large the parameters are, which must be copied now: a graph of one launch.
    const auto graph = host_device()->capture(
        [&](kgen::Stream inner) { return host_device()->launch(kernel.host, shape, params, inner); });
    if (!graph) return kUnknown;
    return submit(stream, [run, graph = *graph] { run([&] { return host_device()->replay(graph, nullptr); }); });
  }
  if (kernel.name == "axpy") {  // y[i] += a * x[i]; the parameters are copied now, as a driver does
    float *y = *static_cast<float**>(params[0]), *x = *static_cast<float**>(params[1]);
    const float a = *static_cast<float*>(params[2]);
    const std::int64_t n = *static_cast<std::int64_t*>(params[3]);
    return submit(stream, [=] {
      for (std::int64_t i = 0; i < n && i < std::int64_t{gx} * bx; ++i) y[i] += a * x[i];
    });
  }
#if defined(FAKE_CUDA)
  if (kernel.name == "walk") control.walked = *static_cast<std::uint64_t*>(params[0]);
#endif
  if (kernel.name == "wild") control.sticky = kIllegalAddress;  // found by the next call
  return 0;
}
API(cuStreamCreate, hipStreamCreateWithFlags)(void** stream, unsigned) {
  if (const int code = ready("stream_create"); code != 0) return code;
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
  return ready("stream_synchronize");
}
API(cuEventCreate, hipEventCreateWithFlags)(void** event, unsigned) {
  if (const int code = ready("event_create"); code != 0) return code;
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
  Injection injection;
  if (const int code = ready("event_record", injection); code != 0) return code;
  if (injection.kind == Injection::Kind::kSkip) return 0;
  return submit(stream, [=] { static_cast<FakeEvent*>(event)->time = std::chrono::steady_clock::now(); });
}
API(cuEventSynchronize, hipEventSynchronize)(void*) { return ready("event_synchronize"); }
API(cuEventElapsedTime, hipEventElapsedTime)(float* ms, void* from, void* to) {
  *ms =
      std::chrono::duration<float, std::milli>(static_cast<FakeEvent*>(to)->time - static_cast<FakeEvent*>(from)->time)
          .count();
  Injection injection;
  const int code = ready("event_elapsed_ms", injection);
  if (injection.kind == Injection::Kind::kValue) *ms = static_cast<float>(injection.value);
  return code;
}
API(cuStreamBeginCapture_v2, hipStreamBeginCapture)(void* stream, int) {
  if (const int code = ready("capture_begin"); code != 0) return code;
  static_cast<FakeStream*>(stream)->capturing = true;
  return 0;
}
API(cuStreamEndCapture, hipStreamEndCapture)(void* stream, void** graph) {
  auto* s = static_cast<FakeStream*>(stream);
  s->capturing = false;
  if (const int code = ready("capture_end"); code != 0) return code;
  *graph = new FakeGraph{std::move(s->work)};
  s->work.clear();
  ++control.graphs;
  return 0;
}
API(cuGraphInstantiateWithFlags, hipGraphInstantiateWithFlags)(void** exec, void* graph, unsigned long long) {
  if (const int code = ready("graph_instantiate"); code != 0) return code;
  *exec = new FakeGraph(*static_cast<FakeGraph*>(graph));
  ++control.graphs;
  return 0;
}
API(cuGraphLaunch, hipGraphLaunch)(void* exec, void*) {
  Injection injection;
  if (const int code = ready("graph_launch", injection); code != 0) return code;
  if (injection.kind == Injection::Kind::kSkip) return 0;
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
  if (const int code = allowed("cuda_primary_retain", device); code != 0) return code;
  if (fake::lost(device)) return kDeviceUnavailable;
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
  Injection injection;
  if (const int code = ready("copy", injection); code != 0) return code;
  if (injection.kind == Injection::Kind::kSkip) return 0;
  std::memmove(to, from, bytes);
  if (injection.kind == Injection::Kind::kCorrupt) flip_bit(static_cast<char*>(to), bytes);
  return 0;
}
API(cuTensorMapEncodeTiled, )
(void* map, int type, std::uint32_t rank, void* base, const std::uint64_t* shape, const std::uint64_t* strides,
 const std::uint32_t* box, const std::uint32_t* steps, int interleave, int swizzle, int promotion, int fill) {
  if (rank < 1 || rank > 5) return kInvalidValue;
  fake::TensorMapCall call{.type = type,
                           .rank = rank,
                           .base = base,
                           .interleave = interleave,
                           .swizzle = swizzle,
                           .promotion = promotion,
                           .fill = fill};
  std::copy_n(shape, rank, call.shape);
  std::copy_n(strides, rank - 1, call.strides);
  std::copy_n(box, rank, call.box);
  std::copy_n(steps, rank, call.steps);
  return make_tensor_map(map, call);
}
API(cuTensorMapEncodeIm2col, )
(void* map, int type, std::uint32_t rank, void* base, const std::uint64_t* shape, const std::uint64_t* strides,
 const int* lower, const int* upper, std::uint32_t channels, std::uint32_t pixels, const std::uint32_t* steps,
 int interleave, int swizzle, int promotion, int fill) {
  if (rank < 3 || rank > 5) return kInvalidValue;
  fake::TensorMapCall call{.pixels = true,
                           .type = type,
                           .rank = rank,
                           .base = base,
                           .box = {channels, pixels},
                           .interleave = interleave,
                           .swizzle = swizzle,
                           .promotion = promotion,
                           .fill = fill};
  std::copy_n(shape, rank, call.shape);
  std::copy_n(strides, rank - 1, call.strides);
  std::copy_n(steps, rank, call.steps);
  std::copy_n(lower, rank - 2, call.lower);
  std::copy_n(upper, rank - 2, call.upper);
  return make_tensor_map(map, call);
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
  if (const int code = allowed("hip_device_set", device); code != 0) return code;
  if (fake::lost(device)) return kDeviceUnavailable;
  current = device;
  return 0;
}
API(, hipMemcpy)(void* to, const void* from, std::size_t bytes, int kind) {
  Injection injection;
  if (const int code = ready("copy", injection); code != 0) return code;
  if (injection.kind == Injection::Kind::kSkip) return 0;
  if (kind != 4) return kInvalidValue;
  std::memmove(to, from, bytes);
  if (injection.kind == Injection::Kind::kCorrupt) flip_bit(static_cast<char*>(to), bytes);
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
