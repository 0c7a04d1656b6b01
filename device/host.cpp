#include "device/host.h"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "device/host_abi.h"
#include "device/host_block.h"

namespace kgen::host {
namespace {

using Clock = std::chrono::steady_clock;

// ------------------------------------------------------------------------------------------------------------- modules

// One kernel of a module.
struct HostFunction {
  std::string name;
  HostEntry entry = nullptr;
  const HostParams* params = nullptr;
};

// dlopen() takes a path it has seen for the library it saw there, even when the file behind it is another by now; and
// file numbers come back. So each load spells the directory in another way: a counter in binary, as "/" and "./".
std::string unique_fd_path(int fd) {
  static std::atomic<unsigned> counter{0};
  std::string path = "/proc/self/fd/";
  for (unsigned rest = ++counter; rest > 0; rest /= 2) path += rest % 2 != 0 ? "./" : "/";
  return path + std::to_string(fd);
}

// dlopen() trusts the file's length and dies of SIGBUS where it is too short.
bool is_whole_library(std::span<const std::byte> code) {
  Elf64_Ehdr header;
  if (code.size() < sizeof(header)) return false;
  std::memcpy(&header, code.data(), sizeof(header));
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phentsize != sizeof(Elf64_Phdr)) return false;
  if (header.e_phoff > code.size() || header.e_phnum * sizeof(Elf64_Phdr) > code.size() - header.e_phoff) return false;
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, code.data() + header.e_phoff + i * sizeof(segment), sizeof(segment));
    if (segment.p_offset > code.size() || segment.p_filesz > code.size() - segment.p_offset) return false;
  }
  return true;
}

#if defined(__x86_64__)
// The first of the blank-separated features that this CPU lacks, or "".
std::string missing_cpu_feature(std::string_view features) {
  // The builtin takes nothing but literals.
  static const std::map<std::string_view, bool> kHas = {
      {"sse4.2", __builtin_cpu_supports("sse4.2") != 0},
      {"avx", __builtin_cpu_supports("avx") != 0},
      {"avx2", __builtin_cpu_supports("avx2") != 0},
      {"fma", __builtin_cpu_supports("fma") != 0},
      {"f16c", __builtin_cpu_supports("f16c") != 0},
      {"bmi", __builtin_cpu_supports("bmi") != 0},
      {"bmi2", __builtin_cpu_supports("bmi2") != 0},
      {"avx512f", __builtin_cpu_supports("avx512f") != 0},
      {"avx512bw", __builtin_cpu_supports("avx512bw") != 0},
      {"avx512dq", __builtin_cpu_supports("avx512dq") != 0},
      {"avx512vl", __builtin_cpu_supports("avx512vl") != 0},
      {"avx512vnni", __builtin_cpu_supports("avx512vnni") != 0},
      {"avx512bf16", __builtin_cpu_supports("avx512bf16") != 0},
      {"avx512fp16", __builtin_cpu_supports("avx512fp16") != 0},
      {"avxvnni", __builtin_cpu_supports("avxvnni") != 0},
  };
  for (const std::string& feature : split(features, ' ')) {
    const auto known = kHas.find(feature);
    if (!feature.empty() && (known == kHas.end() || !known->second)) return feature;
  }
  return {};
}
#else
std::string missing_cpu_feature(std::string_view) { return {}; }
#endif

class HostModule : public Module {
 public:
  static Result<std::unique_ptr<Module>> load(std::span<const std::byte> code) {
    if (!is_whole_library(code))
      return fail(ErrorKind::kDevice, "host: the code object does not load: not a whole ELF shared object");
    const int fd = memfd_create("kgen-kernel", MFD_CLOEXEC);
    if (fd < 0)
      return fail(ErrorKind::kDevice, fmt::format("host: no memory for a code object: {}", std::strerror(errno)));
    for (std::size_t done = 0; done < code.size();) {
      const ssize_t count = write(fd, code.data() + done, code.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) {
        const int error = errno;
        close(fd);
        return fail(ErrorKind::kDevice, fmt::format("host: no memory for a code object: {}", std::strerror(error)));
      }
      done += static_cast<std::size_t>(count);
    }
    void* library = dlopen(unique_fd_path(fd).c_str(), RTLD_NOW | RTLD_LOCAL);
    close(fd);
    if (library == nullptr) {
      const std::string reason = dlerror();
      // The path in front of the reason means nothing to a reader.
      const auto colon = reason.find(": ");
      return fail(ErrorKind::kDevice, "host: the code object does not load: " +
                                          (colon == std::string::npos ? reason : reason.substr(colon + 2)));
    }
    std::unique_ptr<HostModule> module(new HostModule(library));
    const auto bind = reinterpret_cast<HostBind>(dlsym(library, "kgen_host_bind"));
    if (bind == nullptr)
      return fail(ErrorKind::kDevice, "host: the code object was not compiled for the host device (no kgen_host_bind)");
    if (const unsigned abi = bind(&BlockRunner::calls()); abi != kHostAbi)
      return fail(
          ErrorKind::kDevice,
          fmt::format("host: the code object has host ABI {}, this program has {}; compile it again", abi, kHostAbi));
    if (const auto cpu = reinterpret_cast<HostCpu>(dlsym(library, "kgen_host_cpu")); cpu != nullptr)
      if (const std::string lacking = missing_cpu_feature(cpu()); !lacking.empty())
        return fail(ErrorKind::kDevice,
                    fmt::format("host: the code object was compiled for a CPU with {}; compile it here", lacking));
    return module;
  }

  ~HostModule() override { dlclose(library_); }
  HostModule(const HostModule&) = delete;
  HostModule& operator=(const HostModule&) = delete;

  Result<Function> function(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    for (const auto& known : functions_)
      if (known->name == name) return known.get();
    auto found = std::make_unique<HostFunction>();
    found->name = name;
    found->entry = reinterpret_cast<HostEntry>(dlsym(library_, ("kgen_entry_" + name).c_str()));
    found->params = static_cast<const HostParams*>(dlsym(library_, ("kgen_params_" + name).c_str()));
    if (found->entry == nullptr || found->params == nullptr)
      return fail(ErrorKind::kDevice, fmt::format("host: no kernel '{}' in the code object", name));
    functions_.push_back(std::move(found));
    return functions_.back().get();
  }

 private:
  explicit HostModule(void* library) : library_(library) {}
  void* library_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<HostFunction>> functions_;
};

// ------------------------------------------------------------------------------------------------------------- threads

struct Job {
  HostEntry entry;
  void** params;
  LaunchShape shape;
  std::uint64_t blocks;
  std::atomic<std::uint64_t> next{0};
  std::atomic<bool> failed{false};
  std::string error{};  // of the first block that failed; written by its finder alone

  void work(BlockRunner& runner) {
    for (;;) {
      const std::uint64_t block = next.fetch_add(1, std::memory_order_relaxed);
      if (block >= blocks || failed.load(std::memory_order_relaxed)) return;
      const std::uint64_t plane = block / shape.grid[0];
      const std::uint32_t index[3] = {static_cast<std::uint32_t>(block % shape.grid[0]),
                                      static_cast<std::uint32_t>(plane % shape.grid[1]),
                                      static_cast<std::uint32_t>(plane / shape.grid[1])};
      std::string problem = runner.run(entry, params, shape, index);
      if (!problem.empty() && !failed.exchange(true)) error = std::move(problem);
    }
  }
};

// Threads that help with the blocks of one job at a time. The caller works too and waits for those alone that took
// part, so a job is never held up by a thread that wakes late, nor by threads that a fork() left behind.
class Pool {
 public:
  Pool(int helpers, bool reverse) : reverse_(reverse), own_(reverse) {
    for (int i = 0; i < helpers; ++i) threads_.emplace_back([this] { help(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  bool usable() const { return own_.usable(); }

  void run(Job& job) {
    const std::lock_guard one_at_a_time(run_mutex_);
    const std::uint64_t helpers = std::min<std::uint64_t>(job.blocks - 1, threads_.size());
    if (helpers > 0) {
      {
        const std::lock_guard lock(mutex_);
        job_ = &job;
        wanted_ = helpers;
      }
      if (helpers == threads_.size()) {
        wake_.notify_all();
      } else {
        for (std::uint64_t i = 0; i < helpers; ++i) wake_.notify_one();
      }
    }
    job.work(own_);
    if (helpers > 0) {
      std::unique_lock lock(mutex_);
      wanted_ = 0;
      done_.wait(lock, [&] { return helping_ == 0; });
      job_ = nullptr;
    }
  }

 private:
  void help() {
    BlockRunner runner(reverse_);
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || wanted_ > 0; });
      if (stop_) return;
      if (!runner.usable()) {
        wanted_ = 0;
        return;
      }
      --wanted_;
      ++helping_;
      Job& job = *job_;
      lock.unlock();
      job.work(runner);
      lock.lock();
      if (--helping_ == 0) done_.notify_one();
    }
  }

  const bool reverse_;
  BlockRunner own_;  // runs on the stack of whoever calls run()
  std::mutex run_mutex_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  std::uint64_t wanted_ = 0, helping_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

// -------------------------------------------------------------------------------------------------------------- device

// A launch, fill or record to be repeated.
using Operation = std::function<Result<void>()>;
struct HostGraph {
  std::vector<Operation> operations;
};
struct HostEvent {
  Clock::time_point time;
};

Result<int> thread_count() {
  if (const char* text = std::getenv("KGEN_HOST_THREADS"); text != nullptr && *text != '\0') {
    int count = 0;
    const auto [end, error] = std::from_chars(text, text + std::strlen(text), count);
    if (error != std::errc{} || *end != '\0' || count < 1 || count > 4096)
      return fail(ErrorKind::kBadInput,
                  fmt::format("KGEN_HOST_THREADS='{}': not a number of threads from 1 to 4096", text));
    return count;
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// First line of a file, or "".
std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    if (const auto colon = line.find(':'); colon != std::string::npos) return std::string(trim(line.substr(colon + 1)));
  }
  return "CPU";
}

// Of the last cache level that the CPU names, in bytes.
std::int64_t last_cache_bytes() {
  std::int64_t bytes = 0;
  for (int index = 0; index < 8; ++index) {
    const std::string text = first_line(fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/size", index));
    std::int64_t size = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
    if (error != std::errc{}) continue;
    const std::string unit(end, text.data() + text.size());
    bytes = std::max(bytes, size * (unit == "K" ? 1024 : unit == "M" ? 1024 * 1024 : 1));
  }
  return bytes > 0 ? bytes : std::int64_t{32} << 20;
}

int clock_khz() {
  const std::string text = first_line("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq");
  int khz = 0;
  std::from_chars(text.data(), text.data() + text.size(), khz);
  return khz;
}

class HostDevice : public Device {
 public:
  HostDevice(DeviceInfo info, bool reverse) : info_(std::move(info)), pool_(info_.compute_units - 1, reverse) {}
  bool usable() const { return pool_.usable(); }

  const DeviceInfo& info() const override { return info_; }

  Result<DevicePtr> allocate(std::size_t bytes) override {
    void* memory = nullptr;
    if (bytes > static_cast<std::size_t>(info_.memory_bytes) ||
        posix_memalign(&memory, 256, std::max<std::size_t>(bytes, 1)) != 0)
      return fail(ErrorKind::kDevice, fmt::format("host: out of memory: {} bytes", bytes));
    return memory;
  }
  void release(DevicePtr memory) override { std::free(memory); }

  Result<void> copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memmove(to, from, bytes);
    return {};
  }

  Result<void> fill(DevicePtr to, unsigned char value, std::size_t bytes, Stream stream) override {
    return perform(stream, [to, value, bytes]() -> Result<void> {
      if (bytes > 0) std::memset(to, value, bytes);
      return {};
    });
  }

  Result<std::unique_ptr<Module>> load(std::span<const std::byte> code) override { return HostModule::load(code); }

  Result<void> launch(Function function, const LaunchShape& shape, void** params, Stream stream) override {
    const auto& kernel = *static_cast<const HostFunction*>(function);
    if (HostGraph* graph = recording(stream); graph != nullptr) {
      std::vector<std::vector<std::byte>> values;
      for (std::uint32_t i = 0; i < kernel.params->count; ++i) {
        const auto* value = static_cast<const std::byte*>(params[i]);
        values.emplace_back(value, value + kernel.params->bytes[i]);
      }
      graph->operations.emplace_back([this, &kernel, shape, values]() mutable -> Result<void> {
        std::vector<void*> pointers;
        for (auto& value : values) pointers.push_back(value.data());
        return execute(kernel, shape, pointers.data());
      });
      return {};
    }
    return execute(kernel, shape, params);
  }

  Result<void> synchronize(Stream) override { return {}; }

  Result<void> record(Event& event, Stream stream) override {
    if (event == nullptr) {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::make_unique<HostEvent>());
      event = events_.back().get();
    }
    return perform(stream, [target = static_cast<HostEvent*>(event)]() -> Result<void> {
      target->time = Clock::now();
      return {};
    });
  }

  Result<double> elapsed_us(Event from, Event to) override {
    if (from == nullptr || to == nullptr) return fail(ErrorKind::kDevice, "host: an event that was never recorded");
    return std::chrono::duration<double, std::micro>(static_cast<HostEvent*>(to)->time -
                                                     static_cast<HostEvent*>(from)->time)
        .count();
  }

  Result<Graph> capture(const std::function<Result<void>(Stream)>& work) override {
    auto graph = std::make_unique<HostGraph>();
    HostGraph* const stream = graph.get();
    {
      const std::lock_guard lock(mutex_);
      capturing_.push_back(stream);
      ++captures_;
    }
    Result<void> done = work(stream);
    const std::lock_guard lock(mutex_);
    std::erase(capturing_, stream);
    --captures_;
    if (!done) return tl::unexpected(done.error());
    graphs_.push_back(std::move(graph));
    return stream;
  }

  Result<void> replay(Graph graph, Stream) override {
    for (const Operation& operation : static_cast<HostGraph*>(graph)->operations) KGEN_CHECK_OK(operation());
    return {};
  }

 private:
  // The graph that is being recorded under the name of this stream, or null.
  HostGraph* recording(Stream stream) {
    if (stream == nullptr || captures_.load(std::memory_order_relaxed) == 0) return nullptr;
    const std::lock_guard lock(mutex_);
    const auto found = std::find(capturing_.begin(), capturing_.end(), stream);
    return found == capturing_.end() ? nullptr : *found;
  }

  Result<void> perform(Stream stream, Operation operation) {
    HostGraph* graph = recording(stream);
    if (graph == nullptr) return operation();
    graph->operations.push_back(std::move(operation));
    return {};
  }

  Result<void> execute(const HostFunction& kernel, const LaunchShape& shape, void** params) {
    std::uint64_t blocks = shape.grid[0];
    if (__builtin_mul_overflow(blocks, shape.grid[1], &blocks) ||
        __builtin_mul_overflow(blocks, shape.grid[2], &blocks) || blocks == 0)
      return fail(ErrorKind::kDevice, fmt::format("host: launch of {}: the grid is empty or too large", kernel.name));
    if (shape.block < 1 || shape.block > static_cast<std::uint32_t>(info_.arch->max_block))
      return fail(ErrorKind::kDevice, fmt::format("host: launch of {}: a block has 1 to {} work-items, not {}",
                                                  kernel.name, info_.arch->max_block, shape.block));
    if (shape.lds_bytes > static_cast<std::uint32_t>(info_.lds_per_block))
      return fail(ErrorKind::kDevice, fmt::format("host: launch of {}: {} bytes of LDS, a block may have {}",
                                                  kernel.name, shape.lds_bytes, info_.lds_per_block));
    Job job{kernel.entry, params, shape, blocks};
    pool_.run(job);
    if (job.failed) return fail(ErrorKind::kDevice, fmt::format("host: {}: {}", kernel.name, job.error));
    return {};
  }

  const DeviceInfo info_;
  Pool pool_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<HostEvent>> events_;
  std::vector<std::unique_ptr<HostGraph>> graphs_;
  std::vector<HostGraph*> capturing_;
  std::atomic<int> captures_{0};  // size of capturing_, readable without the lock
};

}  // namespace

Result<DeviceInfo> host_info() {
  KGEN_TRY(const int threads, thread_count());
  KGEN_TRY(const Arch arch, find_arch("host"));
  DeviceInfo info;
  info.id = "host";
  info.name = cpu_name();
  info.arch = arch;
  info.arch_name = arch->name;
  info.driver = fmt::format("host ABI {}", kHostAbi);
  info.compute_units = threads;
  info.memory_bytes = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  info.l2_bytes = last_cache_bytes();
  info.clock_khz = clock_khz();
  info.lds_per_block = arch->lds_limit;
  return info;
}

Result<std::unique_ptr<Device>> open_host() {
  KGEN_TRY(DeviceInfo info, host_info());
  const char* order = std::getenv("KGEN_HOST_ORDER");
  const bool reverse = order != nullptr && std::strcmp(order, "reverse") == 0;
  auto device = std::make_unique<HostDevice>(std::move(info), reverse);
  if (!device->usable())
    return fail(ErrorKind::kNoDevice, "host: no address space for the stacks of work-items; raise `ulimit -v`");
  return device;
}

}  // namespace kgen::host
