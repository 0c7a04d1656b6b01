// What a launch costs the host: the driver's own call, kgen_launch(), and kgen_find() with it, of one kernel in turns.
//
//   launch_bench tuned.db DEVICE M,N,K…       gemm in bf16 (on the host device fp32); one JSON line a shape
//
// The bare call is cuLaunchKernel with parameters that stand ready; on the host device, which has no driver,
// Device::launch. Batches of 50 launches, the device idle before each, so that the driver's queue never fills; the
// median batch counts.
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "base/text.h"
#include "db/db.h"
#include "device/device.h"
#include "device/launch.h"
#include "kgen/kgen.h"
#include "runtime/dispatcher.h"

namespace {

using namespace kgen;  // NOLINT(google-build-using-namespace): a program of one file

constexpr int kBatch = 50, kBatches = 400;

[[noreturn]] void stop(const std::string& what) {
  fmt::print(stderr, "launch_bench: {}\n", what);
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (!result) stop(result.error().message);
  return std::move(*result);
}
void must(kgen_status status) {
  if (status != KGEN_OK) stop(kgen_last_error());
}

// One launch as the driver gets it.
struct Bare {
  LaunchShape shape;
  std::vector<std::uint64_t> values;
  std::vector<void*> pointers;
  Function function = nullptr;
};

// Keeps launches instead of making them.
class Recorder : public Device {
 public:
  Recorder(const DeviceInfo& info, std::size_t params) : info_(info), params_(params) {}
  std::vector<Bare> launches;

  const DeviceInfo& info() const override { return info_; }
  Result<void> launch(Function function, const LaunchShape& shape, void** params, Stream) override {
    Bare& bare = launches.emplace_back();
    bare.shape = shape;
    bare.function = function;
    for (std::size_t i = 0; i < params_; ++i)
      std::memcpy(&bare.values.emplace_back(), params[i], sizeof(std::uint64_t));
    return {};
  }
  Result<DevicePtr> allocate(std::size_t) override { return none(); }
  void release(DevicePtr) override {}
  Result<void> copy(void*, const void*, std::size_t) override { return none(); }
  Result<void> fill(DevicePtr, unsigned char, std::size_t, Stream) override { return none(); }
  Result<std::unique_ptr<Module>> load(std::span<const std::byte>) override { return none(); }
  Result<void> synchronize(Stream) override { return none(); }
  Result<void> record(Event&, Stream) override { return none(); }
  Result<double> elapsed_us(Event, Event) override { return none(); }
  Result<Graph> capture(const std::function<Result<void>(Stream)>&) override { return none(); }
  Result<void> replay(Graph, Stream) override { return none(); }

 private:
  static tl::unexpected<Error> none() { return fail(ErrorKind::kInternal, "only launches are recorded"); }
  const DeviceInfo& info_;
  std::size_t params_;
};

using CuLaunch = int (*)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
                         void**);
using CuLoad = int (*)(void**, const void*);
using CuFunction = int (*)(void**, void*, const char*);
using CuAttribute = int (*)(void*, int, int);

struct Driver {
  CuLaunch launch = nullptr;
  CuLoad load = nullptr;
  CuFunction function = nullptr;
  CuAttribute attribute = nullptr;

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) stop(dlerror());
    launch = reinterpret_cast<CuLaunch>(dlsym(library, "cuLaunchKernel"));
    load = reinterpret_cast<CuLoad>(dlsym(library, "cuModuleLoadData"));
    function = reinterpret_cast<CuFunction>(dlsym(library, "cuModuleGetFunction"));
    attribute = reinterpret_cast<CuAttribute>(dlsym(library, "cuFuncSetAttribute"));
  }
};

void measure(const std::string& path, const std::string& device_name, std::int64_t m, std::int64_t n, std::int64_t k) {
  const std::string dtype = device_name == "host" ? "fp32" : "bf16";
  struct Handles {  // closed last: what follows may use their context
    kgen_db* db = nullptr;
    kgen_op* op = nullptr;
    Handles() = default;
    Handles(const Handles&) = delete;
    Handles& operator=(const Handles&) = delete;
    ~Handles() {
      kgen_close_op(op);
      kgen_close(db);
    }
  } handles;
  kgen_db*& db = handles.db;
  kgen_op*& op = handles.op;
  must(kgen_open(path.c_str(), device_name.c_str(), &db));
  must(kgen_open_op(db, "gemm", ("dtype=" + dtype).c_str(), "m,n,k", &op));
  const std::int64_t values[] = {m, n, k};
  kgen_match match;
  must(kgen_find(op, values, &match));
  const std::int64_t bytes = device_name == "host" ? 4 : 2;
  std::map<std::string, void*> memory;
  const auto alloc = [&](const std::string& name, std::int64_t size) {
    memory[name] = kgen_device_alloc(db, static_cast<std::size_t>(size));
    if (memory[name] == nullptr) stop(kgen_last_error());
  };
  alloc("a", m * k * bytes), alloc("b", n * k * bytes), alloc("d", m * n * bytes);
  alloc("workspace", static_cast<std::int64_t>(match.workspace_bytes));
  alloc("prepared", static_cast<std::int64_t>(match.prepared_bytes));
  std::vector<void*> tensors;
  for (int i = 0; i < kgen_tensor_count(op); ++i) {
    const auto it = memory.find(kgen_tensor_name(op, i));
    tensors.push_back(it == memory.end() ? nullptr : it->second);
  }
  must(kgen_prepare(match.kernel, tensors.data(), memory["prepared"], nullptr));

  // The same kernel apart from the library.
  const auto device = must(open_device(device_name));
  Db file = must(Db::open(path, DbMode::kImmutable));
  const Dispatcher dispatcher = must(Dispatcher::load(file, device->info().arch->name, device->info().name));
  const std::string signature = must(dispatcher.signature("gemm", "dtype=" + dtype));
  const Match found = dispatcher.find(signature, {{"m", m}, {"n", n}, {"k", k}});
  const Plan& plan = found.plan->plan;
  const ObjectRecord object = must(file.object(found.row->winner.object_hash));
  const LoadedPlan loaded = must(load_plan(*device, plan, object.bytes));
  const BoundLaunch bound = BoundLaunch::make(found.plan->layout, found.bound);
  Recorder recorder(device->info(), plan.params.size());
  const CallArgs args{
      .tensors = tensors, .scalars = {}, .workspace = memory["workspace"], .prepared = memory["prepared"]};
  if (const auto done = bound.run(recorder, plan, loaded, args, Phase::kRun, nullptr); !done)
    stop(done.error().message);
  for (Bare& bare : recorder.launches) {
    for (std::uint64_t& value : bare.values) bare.pointers.push_back(&value);
  }
  std::function<void()> bare;
  if (device->info().arch->vendor == Vendor::kNvidia) {
    static const Driver driver;
    void* module = nullptr;
    if (driver.load(&module, object.bytes.data()) != 0) stop("cuModuleLoadData failed");
    for (Bare& one : recorder.launches) {
      const auto at = std::ranges::find(loaded.functions, one.function) - loaded.functions.begin();
      if (driver.function(&one.function, module, plan.steps[static_cast<std::size_t>(at)].kernel.c_str()) != 0)
        stop("cuModuleGetFunction failed");
      constexpr int kMaxDynamicShared = 8;
      if (driver.attribute(one.function, kMaxDynamicShared, static_cast<int>(one.shape.lds_bytes)) != 0)
        stop("cuFuncSetAttribute failed");
    }
    bare = [&launches = recorder.launches] {
      for (Bare& one : launches) {
        if (driver.launch(one.function, one.shape.grid[0], one.shape.grid[1], one.shape.grid[2], one.shape.block, 1, 1,
                          one.shape.lds_bytes, nullptr, one.pointers.data(), nullptr) != 0)
          stop("cuLaunchKernel failed");
      }
    };
  } else {
    bare = [&] {
      for (Bare& one : recorder.launches) (void)device->launch(one.function, one.shape, one.pointers.data(), nullptr);
    };
  }

  const auto launch = [&](const kgen_kernel* kernel) {
    must(kgen_launch(kernel, tensors.data(), nullptr, memory["workspace"], memory["prepared"], nullptr));
  };
  const std::pair<const char*, std::function<void()>> ways[] = {{"bare", bare},
                                                                {"kgen_launch", [&] { launch(match.kernel); }},
                                                                {"kgen_find_and_launch",
                                                                 [&] {
                                                                   kgen_match hit;
                                                                   must(kgen_find(op, values, &hit));
                                                                   launch(hit.kernel);
                                                                 }},
                                                                {"kgen_find", [&] {
                                                                   kgen_match hit;
                                                                   must(kgen_find(op, values, &hit));
                                                                 }}};
  std::map<std::string, std::vector<double>> times;
  for (int batch = -10; batch < kBatches; ++batch) {
    for (const auto& [name, run] : ways) {
      must(kgen_synchronize(db, nullptr));
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < kBatch; ++i) run();
      const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
      if (batch >= 0) times[name].push_back(took.count() / kBatch);
    }
  }
  must(kgen_synchronize(db, nullptr));
  fmt::print(
      R"({{"device": "{}", "m": {}, "n": {}, "k": {}, "config": "{}", "match": "{}", "params": {}, "kernels": {})",
      device->info().name, m, n, k, match.config, match.reason, plan.params.size(), recorder.launches.size());
  for (auto& [name, samples] : times) {
    std::sort(samples.begin(), samples.end());
    fmt::print(R"(, "{}_ns": {:.0f})", name, samples[samples.size() / 2]);
  }
  fmt::print("}}\n");
  for (const auto& [name, pointer] : memory) kgen_device_free(db, pointer);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    fmt::print(stderr, "usage: launch_bench tuned.db DEVICE M,N,K…\n");
    return 2;
  }
  for (int i = 3; i < argc; ++i) {
    const auto dims = split(argv[i], ',');
    if (dims.size() != 3) return 2;
    measure(argv[1], argv[2], std::stoll(dims[0]), std::stoll(dims[1]), std::stoll(dims[2]));
  }
  return 0;
}
