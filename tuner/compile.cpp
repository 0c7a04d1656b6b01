#include "tuner/compile.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "base/hash.h"
#include "base/text.h"
#include "tuner/compile_cache.h"
#include "tuner/compile_worker.h"
#include "tuner/process.h"

namespace kgen {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kDefaultCacheBytes = std::int64_t{2} << 30;
// A template that makes a compiler run away must not take the machine with it. Real kernels need less than 1 GiB.
constexpr std::int64_t kCompilerMemory = std::int64_t{8} << 30;
constexpr std::int64_t kLargestObject = std::int64_t{256} << 20;
constexpr std::string_view kSanitize = KGEN_SANITIZE;

enum class Kind { kHost, kClang, kHipcc, kNvrtc, kNvcc };

struct Driver {
  Kind kind = Kind::kHost;
  std::string program;      // path; "" for NVRTC
  std::string version;      // "clang 19.1.7"
  std::string fingerprint;  // all that its output may depend on, beside its options
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string default_cache_folder() {
  if (const std::string base = environment("XDG_CACHE_HOME"); !base.empty()) return base + "/kgen";
  if (const std::string home = environment("HOME"); !home.empty()) return home + "/.cache/kgen";
  // Code objects run: what another user could have put there is not taken. Nothing is found and kept then.
  const std::string folder = fs::temp_directory_path().string() + fmt::format("/kgen-cache-{}", ::geteuid());
  struct stat status{};
  const bool ours = (::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) && ::lstat(folder.c_str(), &status) == 0 &&
                    S_ISDIR(status.st_mode) && status.st_uid == ::geteuid() && (status.st_mode & 077) == 0;
  return ours ? folder : "/dev/null/kgen";
}

std::int64_t cache_limit(const CompilerOptions& options) {
  if (options.cache_bytes > 0) return options.cache_bytes;
  const long long named = std::atoll(environment("KGEN_CACHE_BYTES").c_str());
  return named > 0 ? named : kDefaultCacheBytes;
}

std::string first_line(std::string_view text) { return std::string(trim(text.substr(0, text.find('\n')))); }

// The first word of `text` that starts with a digit, from `marker` on: "g++ (Debian 12.2.0-14) 12.2.0" → "12.2.0-14".
std::string version_after(std::string_view text, std::string_view marker) {
  const std::size_t at = text.find(marker);
  if (at == std::string_view::npos) return "";
  const std::size_t start = text.find_first_of("0123456789", at + marker.size());
  if (start == std::string_view::npos) return "";
  return std::string(text.substr(start, text.find_first_not_of("0123456789.", start) - start));
}

// What a short run of a compiler prints; "" when it fails.
std::string ask(const std::vector<std::string>& argv) {
  auto result = run_program(argv, {.timeout_seconds = 30, .output_bytes = std::size_t{1} << 20});
  return result && result->end == RunResult::End::kExited && result->code == 0 ? result->output : "";
}

bool has_word(std::string_view text, std::string_view word) {
  constexpr std::string_view kSpace = " \t\r\n";
  for (std::size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if ((at == 0 || kSpace.find(text[at - 1]) != std::string_view::npos) &&
        (end == text.size() || kSpace.find(text[end]) != std::string_view::npos))
      return true;
  }
  return false;
}

std::string shell_line(const std::vector<std::string>& argv) {
  std::vector<std::string> words;
  words.reserve(argv.size());
  for (const std::string& word : argv) words.push_back(shell_quoted(word));
  return join(words, " ");
}

std::string_view source_extension(Arch arch) {
  switch (arch->vendor) {
    case Vendor::kAmd:
      return "hip";
    case Vendor::kNvidia:
      return "cu";
    case Vendor::kHost:
      break;
  }
  return "cpp";
}

std::string_view object_extension(Kind kind, Arch arch) {
  if (arch->vendor == Vendor::kHost) return "so";
  if (arch->vendor == Vendor::kAmd) return "co";
  return kind == Kind::kClang ? "ptx" : "cubin";
}

// Options without program, source and output. With KGEN_PLAIN_KERNELS a program that is built with sanitizers compiles
// kernels without them, for tests of many kernels' values.
std::vector<std::string> options_for(const Driver& driver, Arch arch) {
  const Kind kind = driver.kind;
  const std::string name(arch->name);
  switch (kind) {
    case Kind::kHost: {
      std::vector<std::string> options = {"-std=c++20", "-march=native", "-shared", "-fPIC", "-w", "-fno-exceptions",
                                          "-fno-rtti",
                                          // Neither changes a value; both stand in the way of vector code.
                                          "-fno-math-errno", "-fno-trapping-math", "-Wl,--as-needed"};
      if (kSanitize.empty()) {
        options.insert(options.begin(), "-O3");
      } else if (!environment("KGEN_PLAIN_KERNELS").empty()) {
        options.insert(options.begin(), "-O1");
      } else {
        for (const char* option : {"-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"})
          options.emplace_back(option);
        options.push_back(fmt::format("-fsanitize={}", kSanitize));
        // As cmake/kgen.cmake has it: what ASan finds anyway is not looked for twice, and its checks are calls.
        if (kSanitize.find("address") != std::string_view::npos) {
          options.emplace_back("-fno-sanitize=null,vptr,object-size");
#ifndef __clang__
          options.insert(options.end(), {"--param", "asan-instrumentation-with-call-threshold=0"});
#endif
        }
      }
      return options;
    }
    case Kind::kClang:
      if (arch->vendor == Vendor::kNvidia)
        // No toolkit is read: a PTX version chosen by us keeps the driver that may load it old (CUDA 10.1).
        return {"-x",
                "cuda",
                "-std=c++20",
                "-O3",
                "-w",
                "-nocudainc",
                "-nocudalib",
                "--cuda-path=/nonexistent",
                "--cuda-gpu-arch=" + name,
                "--cuda-feature=+ptx64",
                "--cuda-device-only",
                "-S"};
      [[fallthrough]];
    case Kind::kHipcc: {
      const bool hipcc = kind == Kind::kHipcc;
      std::vector<std::string> options =
          hipcc ? std::vector<std::string>{"--genco"} : std::vector<std::string>{"-x", "hip", "--offload-device-only"};
      for (const char* option : {"-std=c++20", "-O3", "-w", "-nogpulib", "-nogpuinc", "--no-gpu-bundle-output",
                                 // Else a hash of the temporary folder's name ends up in the object.
                                 "-fuse-cuid=none",
                                 // The oldest that clang 19 writes: old runtimes load it too.
                                 "-mcode-object-version=4"})
        options.emplace_back(option);
      // hipcc adds these itself: calls cost more than the registers they save.
      if (!hipcc)
        options.insert(options.end(),
                       {"-mllvm", "-amdgpu-early-inline-all=true", "-mllvm", "-amdgpu-function-calls=false"});
      options.push_back("--offload-arch=" + name);
      return options;
    }
    case Kind::kNvrtc: {
      std::vector<std::string> options = {"-std=c++20", "-arch=" + arch->compiler_target(), "-w", "--ptxas-options=-v"};
      // Without declarations of textures and of the device runtime: the same code for 3 ms less. 12 knows it in part.
      if (std::atof(version_after(driver.version, "nvrtc").c_str()) >= 13) options.emplace_back("--minimal");
      return options;
    }
    case Kind::kNvcc:
      return {"-std=c++20", "-arch=" + arch->compiler_target(), "-w", "-cubin", "-Xptxas", "-v"};
  }
  return {};
}

// Takes the assembler's report out of the log and its spill counts into `kernels`.
std::string take_ptxas_report(std::string_view log, std::vector<KernelUsage>& kernels) {
  std::string rest;
  KernelUsage* current = nullptr;
  for (const std::string& line : split(log, '\n')) {
    if (const std::size_t at = line.find("Compiling entry function '"); at != std::string::npos) {
      const std::size_t start = line.find('\'', at) + 1;
      const std::string_view name = std::string_view(line).substr(start, line.find('\'', start) - start);
      const auto found =
          std::find_if(kernels.begin(), kernels.end(), [&](const KernelUsage& k) { return k.kernel == name; });
      current = found != kernels.end() ? &*found : nullptr;
    } else if (const std::size_t end = line.find(" bytes spill stores"); end != std::string::npos) {
      const std::size_t comma = line.rfind(',', end);
      if (current != nullptr && comma != std::string::npos) current->spills = std::atoi(line.c_str() + comma + 1) / 4;
    } else if (line.find("ptxas info") == std::string::npos && !trim(line).empty()) {
      rest += line + "\n";
    }
  }
  return rest;
}

class SystemCompiler final : public Compiler {
 public:
  explicit SystemCompiler(const CompilerOptions& options)
      : options_(options),
        cache_(options.cache_folder.empty() ? default_cache_folder() : options.cache_folder, cache_limit(options)),
        nvrtc_(options.self) {}

  Result<std::string> version(Arch arch) override {
    KGEN_TRY(const Driver driver, choose(arch));
    return driver.version;
  }

  void get_ready(Arch arch, int jobs) override {
    if (const auto driver = choose(arch); driver && driver->kind == Kind::kNvrtc)
      nvrtc_.get_ready(jobs, options_for(*driver, arch));
  }

  Result<CompileResult> compile(const std::string& source, Arch arch) override {
    KGEN_TRY(const Driver driver, choose(arch));
    const std::vector<std::string> options = options_for(driver, arch);
    const std::string key = hash_text(fmt::format("{}\n{}\n{}\n{}\n{}", arch->name, static_cast<int>(driver.kind),
                                                  join(options, "\n"), driver.fingerprint, source));
    CompileResult result;
    if (auto cached = cache_.find(key)) {
      result.status = CompileStatus::kCompiled;
      result.code = std::move(*cached);
    } else if (driver.kind == Kind::kNvrtc) {
      KGEN_TRY(result, run_nvrtc(source, options));
    } else {
      KGEN_TRY(result, run_driver(driver, source, arch, options));
    }
    if (result.status == CompileStatus::kCompiled && !result.code.from_cache) {
      finish(result, arch);
      result.code.compiler = driver.version;
      result.code.options = join(options, " ");
      if (result.status == CompileStatus::kCompiled) cache_.store(key, result.code);
    }
    std::string file = fmt::format("kernel.{}", source_extension(arch));
    if (result.status != CompileStatus::kCompiled) {
      if (std::string kept = cache_.keep_source(key, source_extension(arch), source); !kept.empty())
        file = std::move(kept);
    }
    result.command = command(driver, arch, options, file);
    return result;
  }

 private:
  std::vector<std::string> driver_argv(const Driver& driver, Arch arch, const std::vector<std::string>& options,
                                       const std::string& source) const {
    std::vector<std::string> argv = {driver.program};
    argv.insert(argv.end(), options.begin(), options.end());
    argv.insert(argv.end(), {source, "-o", fmt::format("kernel.{}", object_extension(driver.kind, arch))});
    return argv;
  }

  std::string command(const Driver& driver, Arch arch, const std::vector<std::string>& options,
                      const std::string& source) const {
    if (driver.kind == Kind::kNvrtc)
      return shell_line({options_.self, "compile", source, "--arch", std::string(arch->name), "-o", "kernel.cubin"});
    return shell_line(driver_argv(driver, arch, options, source));
  }

  Result<CompileResult> run_nvrtc(const std::string& source, const std::vector<std::string>& options) {
    KGEN_TRY(NvrtcPool::Outcome outcome, nvrtc_.compile(source, options, options_.timeout_seconds));
    CompileResult result;
    result.log = std::move(outcome.log);
    result.code.compile_seconds = outcome.seconds;
    switch (outcome.end) {
      case NvrtcPool::Outcome::End::kTimeout:
        result.status = CompileStatus::kTimeout;
        result.log = fmt::format("error: NVRTC ran longer than {:g} s", options_.timeout_seconds);
        break;
      case NvrtcPool::Outcome::End::kCrashed:
        result.log = "error: the NVRTC worker " + result.log;
        break;
      case NvrtcPool::Outcome::End::kFailed:
        break;
      case NvrtcPool::Outcome::End::kCompiled: {
        result.status = CompileStatus::kCompiled;
        const auto bytes = std::as_bytes(std::span(outcome.cubin));
        result.code.bytes.assign(bytes.begin(), bytes.end());
      }
    }
    return result;
  }

  Result<CompileResult> run_driver(const Driver& driver, const std::string& source, Arch arch,
                                   const std::vector<std::string>& options) {
    KGEN_TRY(const TemporaryFolder folder, TemporaryFolder::make());
    const std::string name = fmt::format("kernel.{}", source_extension(arch));
    KGEN_CHECK_OK(write_file(folder.path() + "/" + name, source));
    const std::vector<std::string> argv = driver_argv(driver, arch, options, name);
    KGEN_TRY(RunResult run, run_program(argv, {.timeout_seconds = options_.timeout_seconds,
                                               .memory_bytes = kCompilerMemory,
                                               .file_bytes = kLargestObject,
                                               .folder = folder.path()}));
    CompileResult result;
    result.log = std::move(run.output);
    result.code.compile_seconds = run.seconds;
    const bool ended_well = run.end == RunResult::End::kExited && run.code == 0;
    if (run.end == RunResult::End::kTimeout) result.status = CompileStatus::kTimeout;
    if (!ended_well) {
      // A compiler that says nothing, or was killed, still needs a reason that can be read.
      if (run.end != RunResult::End::kExited || trim(result.log).empty())
        result.log =
            fmt::format("error: {} {}\n{}", driver.program, describe_end(run, options_.timeout_seconds), result.log);
      return result;
    }
    auto object = read_file(folder.path() + "/" + argv.back());
    if (!object) {
      result.log += fmt::format("error: {} ended well but left no object\n", driver.program);
      return result;
    }
    result.status = CompileStatus::kCompiled;
    const auto bytes = std::as_bytes(std::span(*object));
    result.code.bytes.assign(bytes.begin(), bytes.end());
    return result;
  }

  static void finish(CompileResult& result, Arch arch) {
    auto kernels = inspect_code(result.code.bytes);
    if (!kernels) {
      result.status = CompileStatus::kFailed;
      result.log += fmt::format("error: the compiler left a broken object: {}\n", kernels.error().message);
      result.code.bytes.clear();
      return;
    }
    result.code.kernels = std::move(*kernels);
    result.code.hash = hash_bytes(result.code.bytes);
    if (arch->vendor == Vendor::kNvidia) result.log = take_ptxas_report(result.log, result.code.kernels);
  }

  // --- Which driver
  // ---------------------------------------------------------------------------------------------------

  Result<Driver> choose(Arch arch) {
    const std::scoped_lock lock(choice_mutex_);
    if (const auto found = choices_.find(arch); found != choices_.end()) return found->second;
    Result<Driver> driver = search(arch);
    choices_.emplace(arch, driver);
    return driver;
  }

  bool allowed(std::string_view name) const { return options_.force.empty() || options_.force == name; }

  Result<Driver> search(Arch arch) {
    static const std::set<std::string> kNames = {"", "clang", "hipcc", "nvrtc", "nvcc", "g++"};
    if (!kNames.contains(options_.force))
      return fail(ErrorKind::kBadInput,
                  fmt::format("unknown compiler '{}'; known: clang hipcc nvrtc nvcc g++", options_.force));
    std::vector<std::string> tried;
    switch (arch->vendor) {
      case Vendor::kHost:
        if (auto driver = find_host(tried)) return std::move(*driver);
        break;
      case Vendor::kAmd:
        if (auto driver = find_clang(arch, tried)) return std::move(*driver);
        if (auto driver = find_hipcc(arch, tried)) return std::move(*driver);
        break;
      case Vendor::kNvidia:
        if (auto driver = find_nvrtc(arch, tried)) return std::move(*driver);
        if (auto driver = find_nvcc(arch, tried)) return std::move(*driver);
        if (auto driver = find_clang(arch, tried)) return std::move(*driver);
        break;
    }
    if (tried.empty()) tried.push_back(fmt::format("{} does not compile for it", options_.force));
    if (arch->vendor == Vendor::kAmd) tried.emplace_back("install clang, Debian's clang-19");
    if (arch->vendor == Vendor::kNvidia)
      tried.emplace_back("install the CUDA toolkit or its NVRTC; clang-19 for sm_61 and sm_70");
    return fail(ErrorKind::kNoCompiler, fmt::format("no compiler for {}: {}", arch->name, join(tried, "; ")));
  }

  std::optional<Driver> find_host(std::vector<std::string>& tried) const {
    std::vector<std::string> names;
#ifdef __clang__
    // Kernels with sanitizers run on the runtime that is linked into this program.
    if (!kSanitize.empty()) names = {fmt::format("clang++-{}", __clang_major__), "clang++"};
#endif
    if (names.empty() && allowed("g++")) names = {environment("CXX"), "g++", "c++"};
    if (allowed("clang") && kSanitize.empty()) {
      for (int major = kNewestClang; major >= kOldestClang; --major) names.push_back(fmt::format("clang++-{}", major));
      names.emplace_back("clang++");
    }
    for (const std::string& name : names) {
      const std::string program = find_program(name);
      if (program.empty()) continue;
      const std::string about = ask({program, "--version"});
      // What -march=native means here: objects in a shared cache must not reach a machine that lacks an instruction.
      const std::string target = ask({program, "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"});
      if (about.empty() || target.empty()) continue;
      const bool clang = about.find("clang version") != std::string::npos;
      const std::string number =
          clang ? version_after(about, "clang version") : trim_copy(ask({program, "-dumpfullversion"}));
      return Driver{Kind::kHost, program, fmt::format("{} {}", clang ? "clang" : "g++", number), about + target};
    }
    if (!names.empty()) tried.emplace_back("no g++, c++ or clang++ in PATH; install g++");
    return std::nullopt;
  }

  std::optional<Driver> find_clang(Arch arch, std::vector<std::string>& tried) const {
    if (!allowed("clang")) return std::nullopt;
    std::vector<std::string> names;
    if (const std::string named = environment("KGEN_CLANG"); !named.empty()) {
      names = {named};
    } else {
      for (int major = kNewestClang; major >= kOldestClang; --major) names.push_back(fmt::format("clang-{}", major));
      names.insert(names.end(), {"clang", "/opt/rocm/llvm/bin/clang"});
    }
    const std::string triple = arch->vendor == Vendor::kAmd ? "amdgcn-amd-amdhsa" : "nvptx64-nvidia-cuda";
    for (const std::string& name : names) {
      const std::string program = find_program(name);
      if (program.empty()) continue;
      const std::string about = ask({program, "--version"});
      const std::string number = version_after(about, "clang version");
      if (std::atoi(number.c_str()) < kOldestClang) continue;
      if (!has_word(ask({program, "--target=" + triple, "-nogpulib", "-print-supported-cpus"}), arch->name)) continue;
      return Driver{Kind::kClang, program, "clang " + number, about};
    }
    tried.push_back(
        fmt::format("no clang of version {} or newer here knows it (KGEN_CLANG names another)", kOldestClang));
    return std::nullopt;
  }

  std::optional<Driver> find_hipcc(Arch arch, std::vector<std::string>& tried) const {
    if (!allowed("hipcc")) return std::nullopt;
    for (const char* name : {"hipcc", "/opt/rocm/bin/hipcc"}) {
      const std::string program = find_program(name);
      if (program.empty()) continue;
      const std::string about = ask({program, "--version"});
      const std::string known = ask({program, "--target=amdgcn-amd-amdhsa", "-nogpulib", "-print-supported-cpus"});
      if (!has_word(known, arch->name)) continue;
      return Driver{Kind::kHipcc, program, "hipcc " + version_after(about, "HIP version:"), about};
    }
    tried.emplace_back("no hipcc here knows it");
    return std::nullopt;
  }

  std::optional<Driver> find_nvrtc(Arch arch, std::vector<std::string>& tried) {
    if (!allowed("nvrtc")) return std::nullopt;
    const auto info = nvrtc_.info();
    if (!info) {
      tried.push_back(info.error().message);
      return std::nullopt;
    }
    if (!info->archs.contains(std::atoi(std::string(arch->name.substr(3)).c_str()))) {
      tried.push_back(fmt::format("NVRTC {} does not know it", info->version));
      return std::nullopt;
    }
    return Driver{Kind::kNvrtc, "", "nvrtc " + info->version, "nvrtc " + info->version};
  }

  std::optional<Driver> find_nvcc(Arch arch, std::vector<std::string>& tried) const {
    if (!allowed("nvcc")) return std::nullopt;
    std::vector<std::string> names;
    for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
      if (const std::string home = environment(variable); !home.empty()) names.push_back(home + "/bin/nvcc");
    }
    names.insert(names.end(), {"nvcc", "/usr/local/cuda/bin/nvcc"});
    for (const std::string& name : names) {
      const std::string program = find_program(name);
      if (program.empty() || !has_word(ask({program, "--list-gpu-code"}), arch->name)) continue;
      const std::string about = ask({program, "--version"});
      return Driver{Kind::kNvcc, program, "nvcc " + version_after(about, ", V"), about};
    }
    tried.emplace_back("no nvcc here knows it");
    return std::nullopt;
  }

  static std::string trim_copy(const std::string& text) { return std::string(trim(text)); }

  static constexpr int kOldestClang = 15, kNewestClang = 30;

  const CompilerOptions options_;
  CompileCache cache_;
  NvrtcPool nvrtc_;
  std::mutex choice_mutex_;
  std::map<Arch, Result<Driver>> choices_;
};

}  // namespace

std::string first_error(std::string_view log) {
  for (const std::string& line : split(log, '\n')) {
    if (line.find("error") != std::string::npos) return std::string(trim(line));
  }
  return first_line(trim(log));
}

std::unique_ptr<Compiler> make_compiler(const CompilerOptions& options) {
  return std::make_unique<SystemCompiler>(options);
}

struct CompilePool::Impl {
  struct Job {
    std::string source;
    Arch arch = nullptr;
    Done done;
  };
  explicit Impl(Compiler& c) : compiler(c) {}
  Compiler& compiler;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::multimap<std::int64_t, Job> queue;  // by turn; equal ones stay in the order of submission
  int running = 0;
  bool stopping = false;
  std::vector<std::thread> threads;

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return stopping || !queue.empty(); });
      if (stopping) return;
      Job job = std::move(queue.begin()->second);
      queue.erase(queue.begin());
      ++running;
      lock.unlock();
      job.done(compiler.compile(job.source, job.arch));
      job = {};
      lock.lock();
      --running;
    }
  }
};

CompilePool::CompilePool(Compiler& compiler, int jobs) : impl_(std::make_unique<Impl>(compiler)) {
  for (int i = 0; i < std::max(jobs, 1); ++i) impl_->threads.emplace_back([impl = impl_.get()] { impl->work(); });
}

CompilePool::~CompilePool() {
  {
    const std::scoped_lock lock(impl_->mutex);
    impl_->stopping = true;
    impl_->queue.clear();
  }
  impl_->wake.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
}

void CompilePool::submit(std::string source, Arch arch, Done done, std::int64_t turn) {
  {
    const std::scoped_lock lock(impl_->mutex);
    impl_->queue.emplace(turn, Impl::Job{std::move(source), arch, std::move(done)});
  }
  impl_->wake.notify_one();
}

int CompilePool::pending() const {
  const std::scoped_lock lock(impl_->mutex);
  return static_cast<int>(impl_->queue.size()) + impl_->running;
}

}  // namespace kgen
