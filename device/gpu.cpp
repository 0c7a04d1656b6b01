#include "device/gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstring>
#include <fstream>
#include <mutex>

#include "base/text.h"

namespace kgen::gpu {
namespace {

// Enumerators of the drivers' device attributes (cuda.h; hip_runtime_api.h, where the order has stood since ROCm 4.2).
struct Attributes {
  int compute_units, clock_khz, l2_bytes, lds_per_block;
};
constexpr Attributes kCudaAttributes = {16, 13, 38, 97};
constexpr Attributes kHipAttributes = {63, 5, 19, 74};
constexpr int kCudaMajor = 75, kCudaMinor = 76;

constexpr int kCudaMaxDynamicShared = 8;                       // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr std::uint32_t kCudaDefaultDynamicShared = 48 << 10;  // more must be asked for
constexpr int kCudaLargeClusters = 14;                         // CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
constexpr int kCudaJitErrorLog = 5, kCudaJitErrorLogBytes = 6;
constexpr int kHipCopyDefault = 4;
constexpr int kCaptureThreadLocal = 1;
constexpr unsigned kStreamNonBlocking = 1;
constexpr int kErrorNotFound = 500;

// Memory-side cache behind L2 in bytes, which the drivers do not report (AMD's "Infinity Cache", the largest product of
// each architecture).
std::int64_t memory_side_cache(std::string_view arch) {
  constexpr std::array<std::pair<std::string_view, int>, 6> kMegabytes = {
      {{"gfx942", 256}, {"gfx1030", 128}, {"gfx1100", 96}, {"gfx1151", 32}, {"gfx1200", 32}, {"gfx1201", 64}}};
  for (const auto& [name, megabytes] : kMegabytes)
    if (name == arch) return std::int64_t{megabytes} << 20;
  return 0;
}

// Errors after which a device's context answers nothing else.
bool is_fault(int code) {
  constexpr std::array kFaults = {214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721};
  return std::find(kFaults.begin(), kFaults.end(), code) != kFaults.end();
}

std::string kernel_driver_version(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  for (const std::string& word : split(line, ' '))
    if (!word.empty() && std::isdigit(static_cast<unsigned char>(word[0])) != 0 && word.find('.') != std::string::npos)
      return word;
  return {};
}

std::string driver_text(const GpuApi& api) {
  int version = 0;
  if (api.driver_version(&version) != 0) version = 0;
  if (api.vendor == Vendor::kNvidia) {
    const std::string kernel = kernel_driver_version("/proc/driver/nvidia/version");
    return fmt::format("CUDA {}.{}{}{}", version / 1000, version % 1000 / 10, kernel.empty() ? "" : ", NVIDIA ",
                       kernel);
  }
  const std::string kernel = kernel_driver_version("/sys/module/amdgpu/version");
  return fmt::format("HIP {}.{}.{}{}{}", version / 10000000, version / 100000 % 100, version % 100000,
                     kernel.empty() ? "" : ", amdgpu ", kernel);
}

// The architecture as HIP names it. It stands in a structure whose layout has changed between versions, always behind
// the name's 256 bytes and always as text, so it is looked for instead of being read at an offset.
Result<std::string> hip_arch_name(const GpuApi& api, int ordinal) {
  std::array<char, 8192> properties{};  // the structure has 792 bytes in ROCm 5, 1472 in ROCm 6
  if (const int code = api.hip_properties(properties.data(), ordinal); code != 0)
    return fail(ErrorKind::kNoDevice, fmt::format("{}:{}: no properties: {}", api.prefix, ordinal, api.error(code)));
  const std::string_view text(properties.data(), properties.size());
  for (std::size_t at = text.find("gfx", 256); at != std::string_view::npos; at = text.find("gfx", at + 1)) {
    const std::string_view name = text.substr(at, text.find('\0', at) - at);
    if (name.size() >= 6 && name.size() < 64 && std::isdigit(static_cast<unsigned char>(name[3])) != 0)
      return std::string(name);
  }
  return fail(ErrorKind::kNoDevice,
              fmt::format("{}:{}: the driver does not name the architecture", api.prefix, ordinal));
}

std::string arch_names(Vendor vendor) {
  std::vector<std::string> names;
  for (const ArchInfo& row : all_archs())
    if (row.vendor == vendor) names.emplace_back(row.name);
  return join(names, " ");
}

}  // namespace

Result<ArchMatch> match_nvidia_arch(int major, int minor) {
  for (int older = minor; older >= 0; --older) {
    const std::string name = fmt::format("sm_{}{}", major, older);
    const auto archs = all_archs();
    const auto row = std::find_if(archs.begin(), archs.end(), [&](const ArchInfo& info) { return info.name == name; });
    if (row == archs.end()) continue;
    if (older == minor) return ArchMatch{&*row, ""};
    return ArchMatch{&*row, fmt::format("is sm_{}{}, runs code for {}", major, minor, name)};
  }
  // A later chip: what it takes of the architectures that are compiled to PTX. sm_70 is the newest of them.
  const Arch portable = *find_arch("sm_70");
  if (major > 9) {
    return ArchMatch{portable, fmt::format("is sm_{}{}, newer than this kgen; runs code for {} that is stored as PTX",
                                           major, minor, portable->name)};
  }
  return fail(ErrorKind::kNoDevice, fmt::format("is sm_{}{}, which kgen has no code for; known are {}", major, minor,
                                                arch_names(Vendor::kNvidia)));
}

Result<ArchMatch> match_amd_arch(std::string_view name) {
  const std::string_view base = name.substr(0, name.find(':'));
  for (const ArchInfo& row : all_archs())
    if (row.name == base) return ArchMatch{&row, ""};
  return fail(
      ErrorKind::kNoDevice,
      fmt::format("is {}, which kgen has no code for; known are {} (HSA_OVERRIDE_GFX_VERSION=x.y.z makes the driver "
                  "present a close relative)",
                  base, arch_names(Vendor::kAmd)));
}

Result<DeviceInfo> describe(const GpuApi& api, int ordinal, std::string* note) {
  DeviceInfo info;
  info.id = fmt::format("{}:{}", api.prefix, ordinal);
  const auto broken = [&](const char* what, int code) {
    return fail(ErrorKind::kNoDevice, fmt::format("{}: {}: {}", info.id, what, api.error(code)));
  };
  int count = 0, device = 0;
  if (const int code = api.device_count(&count); code != 0) return broken("counting devices", code);
  if (ordinal < 0 || ordinal >= count)
    return fail(ErrorKind::kNoDevice,
                fmt::format("{}: no such device; there {} {}", info.id, count == 1 ? "is" : "are",
                            count == 1 ? fmt::format("{}:0 alone", api.prefix)
                                       : fmt::format("{}:0 to {}:{}", api.prefix, api.prefix, count - 1)));
  if (const int code = api.device_get(&device, ordinal); code != 0) return broken("opening the device", code);
  std::array<char, 256> text{};
  if (const int code = api.device_name(text.data(), text.size() - 1, device); code != 0)
    return broken("device name", code);
  info.name = text.data();
  const auto attribute = [&](int which) {
    int value = 0;
    return api.device_attribute(&value, which, device) == 0 ? value : 0;
  };
  const bool cuda = api.vendor == Vendor::kNvidia;
  const Attributes& attributes = cuda ? kCudaAttributes : kHipAttributes;
  Result<ArchMatch> match;
  if (cuda) {
    const int major = attribute(kCudaMajor), minor = attribute(kCudaMinor);
    info.arch_name = fmt::format("sm_{}{}", major, minor);
    match = match_nvidia_arch(major, minor);
  } else {
    KGEN_TRY(info.arch_name, hip_arch_name(api, ordinal));
    match = match_amd_arch(info.arch_name);
  }
  if (!match) return fail(match.error().kind, fmt::format("{}: {} {}", info.id, info.name, match.error().message));
  info.arch = match->arch;
  if (note != nullptr && !match->note.empty()) *note = fmt::format("{}: {} {}", info.id, info.name, match->note);
  info.driver = driver_text(api);
  std::array<unsigned char, 16> uuid{};
  if (cuda && api.cuda_uuid(uuid.data(), device) == 0) {
    info.uuid = "GPU";
    for (std::size_t i = 0; i < uuid.size(); ++i)
      info.uuid += fmt::format("{}{:02x}", i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
  } else if (text.fill(0); api.device_pci_bus(text.data(), text.size() - 1, device) == 0) {
    info.uuid = text.data();
  }
  std::size_t memory = 0;
  if (api.device_memory(&memory, device) == 0) info.memory_bytes = static_cast<std::int64_t>(memory);
  info.compute_units = attribute(attributes.compute_units);
  info.clock_khz = attribute(attributes.clock_khz);
  info.l2_bytes = std::max<std::int64_t>(attribute(attributes.l2_bytes), memory_side_cache(info.arch->name));
  info.lds_per_block = attribute(attributes.lds_per_block);
  return info;
}

namespace {

// What a device and its modules share. Lives as long as any of them.
class Context {
 public:
  Context(const GpuApi& driver, DeviceInfo device_info, int device_ordinal)
      : api(driver), info(std::move(device_info)), ordinal(device_ordinal) {}
  ~Context() {
    if (!retained_) return;
    // A thread must not keep a context as its current one that the release may destroy: the next device to be opened
    // would take it for the program's own (H100, 2026-11-22: CUDA_ERROR_CONTEXT_IS_DESTROYED).
    void* current = nullptr;
    if (api.cuda_context_current(&current) == 0 && current == cuda_) api.cuda_context_set(nullptr);
    api.cuda_primary_release(device_);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Result<void> open() {
    if (api.vendor == Vendor::kAmd) {
      const int code = api.hip_device_set(ordinal);
      return code == 0 ? Result<void>{} : no_device(code);
    }
    if (const int code = api.device_get(&device_, ordinal); code != 0) return no_device(code);
    void* current = nullptr;
    int owner = -1;
    if (api.cuda_context_current(&current) == 0 && current != nullptr && api.cuda_context_device(&owner) == 0 &&
        owner == device_ && current_is_alive()) {
      cuda_ = current;
      return {};
    }
    if (const int code = api.cuda_primary_retain(&cuda_, device_); code != 0) return no_device(code);
    retained_ = true;
    return {};
  }

  // Makes the device current in this thread, for the life of the object; another one that the program had made current
  // comes back after.
  class Current {
   public:
    explicit Current(const Context& context) : context_(context) {
      const GpuApi& api = context.api;
      if (api.vendor == Vendor::kAmd) {
        if (api.hip_device_current(&device_) != 0) device_ = context.ordinal;
        if (device_ != context.ordinal) code_ = api.hip_device_set(context.ordinal);
        return;
      }
      code_ = api.cuda_context_current(&previous_);
      if (code_ == 0 && previous_ != context.cuda_) code_ = api.cuda_context_set(context.cuda_);
    }
    ~Current() {
      if (context_.api.vendor == Vendor::kAmd) {
        if (device_ != context_.ordinal) context_.api.hip_device_set(device_);
      } else if (previous_ != nullptr && previous_ != context_.cuda_) {
        context_.api.cuda_context_set(previous_);
      }
    }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
    int code() const { return code_; }

   private:
    const Context& context_;
    void* previous_ = nullptr;
    int device_ = 0;
    int code_ = 0;
  };

  // Calls the driver with the device current; `what` names the work in the error.
  template <class Call, class What>
  Result<void> call(Call&& driver_call, What&& what) {
    if (lost_.load(std::memory_order_acquire))
      return fail(ErrorKind::kDevice, fmt::format("{}: unusable in this process since {}", info.id, fault_));
    const Current current(*this);
    const int code = current.code() != 0 ? current.code() : driver_call();
    if (code == 0) return {};
    return error(code, what());
  }

  bool lost() const { return lost_.load(std::memory_order_acquire); }

  Result<void> error(int code, const std::string& what) {
    const std::string text = fmt::format("{}: {}", what, api.error(code));
    if (is_fault(code)) {
      const std::lock_guard lock(mutex_);
      if (!lost_) {
        fault_ = text;
        lost_.store(true, std::memory_order_release);
      }
    }
    return fail(ErrorKind::kDevice, fmt::format("{}: {}", info.id, text));
  }

  const GpuApi api;
  const DeviceInfo info;
  const int ordinal;

 private:
  // A context that was destroyed stays the current one of other threads, and still tells its device.
  bool current_is_alive() const {
    void* event = nullptr;
    if (api.event_create(&event, 0) != 0) return false;
    api.event_destroy(event);
    return true;
  }
  Result<void> no_device(int code) const {
    return fail(ErrorKind::kNoDevice, fmt::format("{}: cannot be used: {}", info.id, api.error(code)));
  }

  int device_ = 0;
  void* cuda_ = nullptr;
  bool retained_ = false;
  std::mutex mutex_;
  std::atomic<bool> lost_{false};
  std::string fault_;  // written once, before lost_
};

// CUtensorMap
struct alignas(64) TensorMap {
  std::array<std::uint64_t, 16> opaque;
};

// 0, or the driver's error. Rows of a box of 128, 64 or 32 bytes are permuted by as many in LDS; elements outside the
// tensor count as 0.
int make_tensor_map(const GpuApi& api, const TensorMapArg& map, TensorMap& made) {
  constexpr int kNotSupported = 801;  // CUDA_ERROR_NOT_SUPPORTED
  const TensorMapShape& shape = *map.shape;
  const auto [type, bytes] = [&]() -> std::pair<int, std::uint32_t> {  // CUtensorMapDataType
    switch (shape.dtype) {
      case DType::kInt8:
      case DType::kFp8E4m3:
      case DType::kFp8E5m2:
        return {0, 1};
      case DType::kInt32:
        return {3, 4};
      case DType::kInt64:
        return {5, 8};
      case DType::kFp16:
        return {6, 2};
      case DType::kFp32:
        return {7, 4};
      case DType::kFp64:
        return {8, 8};
      case DType::kBf16:
        return {9, 2};
    }
    return {};
  }();
  const std::uint32_t row = shape.box[0] * bytes;
  const int swizzle = row == 128 ? 3 : row == 64 ? 2 : row == 32 ? 1 : 0;
  constexpr int kPromote256 = 3;  // to the L2 in 256 bytes
  const auto rank = static_cast<std::uint32_t>(shape.rank);
  if (shape.pixels) {
    if (api.cuda_tensor_map_pixels == nullptr) return kNotSupported;
    return api.cuda_tensor_map_pixels(&made, type, rank, map.base, shape.shape.data(), shape.strides.data() + 1,
                                      shape.lower.data(), shape.upper.data(), shape.box[0], shape.box[1],
                                      shape.steps.data(), 0, swizzle, kPromote256, 0);
  }
  if (api.cuda_tensor_map == nullptr) return kNotSupported;
  return api.cuda_tensor_map(&made, type, rank, map.base, shape.shape.data(), shape.strides.data() + 1,
                             shape.box.data(), shape.steps.data(), 0, swizzle, kPromote256, 0);
}

struct GpuFunction {
  std::string name;
  void* raw = nullptr;
  std::atomic<std::uint32_t> lds_bytes{kCudaDefaultDynamicShared};  // dynamic LDS that the driver was told to allow
};

class GpuModule : public Module {
 public:
  GpuModule(std::shared_ptr<Context> context, void* raw) : context_(std::move(context)), raw_(raw) {}
  ~GpuModule() override {
    if (!context_->lost())
      (void)context_->call([&] { return context_->api.module_unload(raw_); }, [] { return "unloading"; });
  }
  GpuModule(const GpuModule&) = delete;
  GpuModule& operator=(const GpuModule&) = delete;

  Result<Function> function(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    for (const auto& known : functions_)
      if (known->name == name) return known.get();
    auto found = std::make_unique<GpuFunction>();
    found->name = name;
    int code = 0;
    const Result<void> done =
        context_->call([&] { return code = context_->api.module_function(&found->raw, raw_, name.c_str()); },
                       [&] { return fmt::format("looking for kernel '{}'", name); });
    if (code == kErrorNotFound)
      return fail(ErrorKind::kDevice, fmt::format("{}: no kernel '{}' in the code object", context_->info.id, name));
    if (!done) return tl::unexpected(done.error());
    // Clusters of more than 8 blocks are launched where they fit; drivers before 11.8 know neither.
    if (context_->api.cuda_function_attribute != nullptr)
      (void)context_->api.cuda_function_attribute(found->raw, kCudaLargeClusters, 1);
    functions_.push_back(std::move(found));
    return functions_.back().get();
  }

 private:
  const std::shared_ptr<Context> context_;
  void* const raw_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<GpuFunction>> functions_;
};

class GpuDevice : public Device {
 public:
  explicit GpuDevice(std::shared_ptr<Context> context) : context_(std::move(context)), api_(context_->api) {}
  ~GpuDevice() override {
    if (context_->lost()) return;
    const Context::Current current(*context_);
    for (void* graph : graphs_) api_.graph_exec_destroy(graph);
    for (void* event : events_) api_.event_destroy(event);
  }
  GpuDevice(const GpuDevice&) = delete;
  GpuDevice& operator=(const GpuDevice&) = delete;

  const DeviceInfo& info() const override { return context_->info; }

  Result<DevicePtr> allocate(std::size_t bytes) override {
    void* memory = nullptr;
    KGEN_CHECK_OK(
        context_->call([&] { return api_.allocate(&memory, std::max<std::size_t>(bytes, 1)); },
                       [&] { return fmt::format("allocating {}", human_bytes(static_cast<double>(bytes))); }));
    return memory;
  }

  void release(DevicePtr memory) override {
    if (memory != nullptr)
      (void)context_->call([&] { return api_.release(memory); }, [] { return "releasing memory"; });
  }

  Result<void> copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes == 0) return {};
    return context_->call(
        [&] {
          const int code = api_.vendor == Vendor::kNvidia ? api_.cuda_copy(to, from, bytes)
                                                          : api_.hip_copy(to, from, bytes, kHipCopyDefault);
          // Copies within the device return before they are done.
          return code != 0 ? code : api_.stream_synchronize(nullptr);
        },
        [&] { return fmt::format("copying {}", human_bytes(static_cast<double>(bytes))); });
  }

  Result<void> fill(DevicePtr to, unsigned char value, std::size_t bytes, Stream stream) override {
    if (bytes == 0) return {};
    return context_->call([&] { return api_.fill(to, value, bytes, stream); },
                          [&] { return fmt::format("filling {}", human_bytes(static_cast<double>(bytes))); });
  }

  Result<std::unique_ptr<Module>> load(std::span<const std::byte> code) override {
    // PTX is text and must end in NUL.
    std::string image(reinterpret_cast<const char*>(code.data()), code.size());
    std::array<char, 4096> log{};
    std::array<int, 2> options = {kCudaJitErrorLog, kCudaJitErrorLogBytes};
    std::array<void*, 2> values = {log.data(), reinterpret_cast<void*>(log.size() - 1)};
    const unsigned count = api_.vendor == Vendor::kNvidia ? options.size() : 0;
    void* module = nullptr;
    KGEN_CHECK_OK(context_->call(
        [&] { return api_.module_load(&module, image.c_str(), count, options.data(), values.data()); },
        [&] {
          const std::string_view text = log.data();
          const std::string_view line = text.substr(0, text.find('\n'));
          return fmt::format("loading a code object of {}{}{}", human_bytes(static_cast<double>(image.size())),
                             line.empty() ? "" : ": ", line);
        }));
    return std::make_unique<GpuModule>(context_, module);
  }

  Result<void> launch(Function function, const LaunchShape& shape, void** params, Stream stream) override {
    auto& kernel = *static_cast<GpuFunction*>(function);
    return context_->call(
        [&] {
          if (api_.cuda_function_attribute != nullptr &&
              shape.lds_bytes > kernel.lds_bytes.load(std::memory_order_relaxed)) {
            const int code =
                api_.cuda_function_attribute(kernel.raw, kCudaMaxDynamicShared, static_cast<int>(shape.lds_bytes));
            if (code != 0) return code;
            kernel.lds_bytes.store(shape.lds_bytes, std::memory_order_relaxed);
          }
          TensorMap maps[LaunchShape::kMostMaps];
          for (std::size_t i = 0; i < shape.maps.size(); ++i) {
            params[shape.maps[i].param] = &maps[i];
            if (shape.maps[i].shape->rank == 0) continue;
            if (const int code = make_tensor_map(api_, shape.maps[i], maps[i]); code != 0) return code;
          }
          return api_.launch(kernel.raw, shape.grid[0], shape.grid[1], shape.grid[2], shape.block, 1, 1,
                             shape.lds_bytes, stream, params, nullptr);
        },
        [&] {
          return fmt::format("launching {} (grid {}x{}x{}, block {}, LDS {})", kernel.name, shape.grid[0],
                             shape.grid[1], shape.grid[2], shape.block, shape.lds_bytes);
        });
  }

  Result<void> synchronize(Stream stream) override {
    return context_->call([&] { return api_.stream_synchronize(stream); }, [] { return "waiting for the device"; });
  }

  Result<void> record(Event& event, Stream stream) override {
    if (event == nullptr) {
      KGEN_CHECK_OK(context_->call([&] { return api_.event_create(&event, 0); }, [] { return "creating an event"; }));
      const std::lock_guard lock(mutex_);
      events_.push_back(event);
    }
    return context_->call([&] { return api_.event_record(event, stream); }, [] { return "recording an event"; });
  }

  Result<double> elapsed_us(Event from, Event to) override {
    if (from == nullptr || to == nullptr)
      return fail(ErrorKind::kDevice, fmt::format("{}: an event that was never recorded", info().id));
    float ms = 0;
    KGEN_CHECK_OK(context_->call([&] { return api_.event_synchronize(to); }, [] { return "waiting for an event"; }));
    KGEN_CHECK_OK(
        context_->call([&] { return api_.event_elapsed_ms(&ms, from, to); }, [] { return "reading events"; }));
    // What a driver in trouble says must not become a winner's time.
    if (!std::isfinite(ms) || ms < 0)
      return fail(ErrorKind::kDevice, fmt::format("{}: the driver tells {} ms between two events", info().id, ms));
    return double{ms} * 1000;
  }

  Result<Graph> capture(const std::function<Result<void>(Stream)>& work) override {
    void *stream = nullptr, *graph = nullptr, *exec = nullptr;
    KGEN_CHECK_OK(context_->call([&] { return api_.stream_create(&stream, kStreamNonBlocking); },
                                 [] { return "creating a stream"; }));
    Result<void> done = context_->call([&] { return api_.capture_begin(stream, kCaptureThreadLocal); },
                                       [] { return "beginning a graph capture"; });
    if (done) {
      done = work(stream);
      Result<void> ended =
          context_->call([&] { return api_.capture_end(stream, &graph); }, [] { return "ending a graph capture"; });
      if (done) done = std::move(ended);
    }
    if (done)
      done = context_->call([&] { return api_.graph_instantiate(&exec, graph, 0); }, [] { return "making a graph"; });
    if (graph != nullptr)
      (void)context_->call([&] { return api_.graph_destroy(graph); }, [] { return "dropping a graph"; });
    (void)context_->call([&] { return api_.stream_destroy(stream); }, [] { return "dropping a stream"; });
    if (!done) return tl::unexpected(done.error());
    const std::lock_guard lock(mutex_);
    graphs_.push_back(exec);
    return exec;
  }

  Result<void> replay(Graph graph, Stream stream) override {
    return context_->call([&] { return api_.graph_launch(graph, stream); }, [] { return "launching a graph"; });
  }

 private:
  const std::shared_ptr<Context> context_;
  const GpuApi& api_;
  std::mutex mutex_;
  std::vector<void*> events_, graphs_;
};

}  // namespace

Result<std::unique_ptr<Device>> open_gpu(const GpuApi& api, int ordinal) {
  KGEN_TRY(DeviceInfo info, describe(api, ordinal, nullptr));
  auto context = std::make_shared<Context>(api, std::move(info), ordinal);
  KGEN_CHECK_OK(context->open());
  return std::make_unique<GpuDevice>(std::move(context));
}

}  // namespace kgen::gpu
