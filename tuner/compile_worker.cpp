#include "tuner/compile_worker.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <utility>

#include "base/text.h"
#include "tuner/compile.h"

namespace kgen {
namespace {

// Starting includes loading a library of 100 MB from a disk that may be cold.
constexpr double kStartSeconds = 60;
// A worker is replaced after so many compiles: what NVRTC does not give back stays bounded.
constexpr int kCompilesPerWorker = 1000;

// The part of nvrtc.h that is used; its ABI has been the same since CUDA 11.2.
using nvrtcProgram = struct NvrtcProgram*;
struct Nvrtc {
  int (*version)(int*, int*);
  int (*num_archs)(int*);
  int (*archs)(int*);
  int (*create)(nvrtcProgram*, const char* source, const char* name, int headers, const char* const*,
                const char* const*);
  int (*compile)(nvrtcProgram, int count, const char* const* options);
  int (*log_size)(nvrtcProgram, std::size_t*);
  int (*log)(nvrtcProgram, char*);
  int (*cubin_size)(nvrtcProgram, std::size_t*);
  int (*cubin)(nvrtcProgram, char*);
  int (*destroy)(nvrtcProgram*);
  const char* (*error_text)(int);
};

std::vector<std::string> nvrtc_places() {
  std::vector<std::string> folders;
  if (const char* named = std::getenv("KGEN_NVRTC"); named != nullptr && *named != '\0') {
    const std::string base = named;
    if (base.find(".so") != std::string::npos) return {base};
    // A toolkit's library folder, or a Python environment's site-packages with NVIDIA's wheels.
    for (const char* below : {"", "/lib64", "/lib", "/nvidia/cu13/lib", "/nvidia/cuda_nvrtc/lib"})
      folders.push_back(base + below + "/");
  } else {
    folders = {""};  // the loader's own path
    for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
      if (const char* home = std::getenv(variable); home != nullptr && *home != '\0') {
        folders.push_back(std::string(home) + "/lib64/");
        folders.push_back(std::string(home) + "/lib/");
      }
    }
    folders.emplace_back("/usr/local/cuda/lib64/");
  }
  std::vector<std::string> places;
  for (const std::string& folder : folders) {
    for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}) places.push_back(folder + name);
  }
  return places;
}

Result<Nvrtc> load_nvrtc() {
  void* library = nullptr;
  std::string why;
  for (const std::string& place : nvrtc_places()) {
    library = ::dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    if (why.empty()) why = ::dlerror();
  }
  if (library == nullptr) return fail(ErrorKind::kNoCompiler, "no NVRTC: " + why);
  Nvrtc api{};
  bool complete = true;
  const auto bind = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
    complete = complete && function != nullptr;
  };
  bind(api.version, "nvrtcVersion");
  bind(api.num_archs, "nvrtcGetNumSupportedArchs");
  bind(api.archs, "nvrtcGetSupportedArchs");
  bind(api.create, "nvrtcCreateProgram");
  bind(api.compile, "nvrtcCompileProgram");
  bind(api.log_size, "nvrtcGetProgramLogSize");
  bind(api.log, "nvrtcGetProgramLog");
  bind(api.cubin_size, "nvrtcGetCUBINSize");
  bind(api.cubin, "nvrtcGetCUBIN");
  bind(api.destroy, "nvrtcDestroyProgram");
  bind(api.error_text, "nvrtcGetErrorString");
  if (!complete) return fail(ErrorKind::kNoCompiler, "the NVRTC found is older than CUDA 11.2");
  return api;
}

Message describe(const Result<Nvrtc>& nvrtc) {
  if (!nvrtc) return {"none", nvrtc.error().message};
  int major = 0, minor = 0, count = 0;
  if (nvrtc->version(&major, &minor) != 0 || nvrtc->num_archs(&count) != 0 || count <= 0)
    return {"none", "NVRTC does not tell its version"};
  std::vector<int> archs(static_cast<std::size_t>(count));
  nvrtc->archs(archs.data());
  return {"nvrtc", fmt::format("{}.{}", major, minor), fmt::format("{}", fmt::join(archs, " "))};
}

// Request: source, options… Answer: "ok" or "failed", log, cubin, seconds.
Message compile_one(const Nvrtc& nvrtc, const Message& request) {
  const auto start = std::chrono::steady_clock::now();
  nvrtcProgram program = nullptr;
  int status = nvrtc.create(&program, request[0].c_str(), "kernel.cu", 0, nullptr, nullptr);
  if (status != 0) return {"failed", fmt::format("error: {}", nvrtc.error_text(status)), "", "0"};
  std::vector<const char*> options;
  for (std::size_t i = 1; i < request.size(); ++i) options.push_back(request[i].c_str());
  status = nvrtc.compile(program, static_cast<int>(options.size()), options.data());
  std::size_t size = 0;
  std::string log, cubin;
  if (nvrtc.log_size(program, &size) == 0 && size > 1) {
    log.resize(size);
    nvrtc.log(program, log.data());
    std::erase(log, '\0');  // the compiler's part and the assembler's each bring one
  }
  if (status == 0) status = nvrtc.cubin_size(program, &size);
  if (status == 0) {
    cubin.resize(size);
    status = nvrtc.cubin(program, cubin.data());
  }
  if (status != 0 && log.empty()) log = fmt::format("error: {}", nvrtc.error_text(status));
  nvrtc.destroy(&program);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {status == 0 ? "ok" : "failed", log, cubin, fmt::format("{}", seconds)};
}

}  // namespace

int compile_worker_main() {
  // The device's worker and the tuner itself need little time, but at once.
  [[maybe_unused]] const int niceness = ::nice(5);
  MessageChannel channel = MessageChannel::from_stdio();
  const Result<Nvrtc> nvrtc = load_nvrtc();
  if (!channel.send(describe(nvrtc)) || !nvrtc) return 0;
  while (auto request = channel.receive()) {
    if (request->empty() || !channel.send(compile_one(*nvrtc, *request))) return 1;
  }
  return 0;
}

Result<NvrtcPool::Worker> NvrtcPool::start() const {
  if (self_.empty()) return fail(ErrorKind::kNoCompiler, "no NVRTC: the kgen executable is not known");
  const std::vector<std::string> argv = {self_, "__compile-worker"};
  KGEN_TRY(ChildProcess process, ChildProcess::start(argv));
  return Worker{std::move(process)};
}

// Reads what a worker says when it starts, and the answer to what get_ready() asked.
Result<void> NvrtcPool::greet(Worker& worker) {
  if (worker.greeted) return {};
  const ChildProcess::Received hello = worker.process.receive(kStartSeconds);
  if (hello.kind == ChildProcess::Received::Kind::kTimeout)
    return fail(ErrorKind::kNoCompiler, "no NVRTC: its worker does not answer");
  if (hello.kind == ChildProcess::Received::Kind::kEnded)
    return fail(ErrorKind::kNoCompiler, "no NVRTC: its worker " + hello.why);
  if (hello.message.size() == 2) return fail(ErrorKind::kNoCompiler, hello.message[1]);
  if (hello.message.size() != 3) return fail(ErrorKind::kInternal, "the NVRTC worker sent an unknown greeting");
  if (worker.warming && worker.process.receive(kStartSeconds).kind != ChildProcess::Received::Kind::kMessage)
    return fail(ErrorKind::kNoCompiler, "no NVRTC: its worker ends, or does not end, when it compiles an empty kernel");
  worker.greeted = true;
  const std::scoped_lock lock(mutex_);
  if (!info_) {
    Info info;
    info.version = hello.message[1];
    for (const std::string& arch : split(hello.message[2], ' ')) info.archs.insert(std::atoi(arch.c_str()));
    info_ = std::make_unique<Result<Info>>(std::move(info));
  }
  return {};
}

void NvrtcPool::get_ready(int count, const std::vector<std::string>& options) {
  // NVRTC remembers what it compiled, in other processes too: the name is new each time.
  static const auto stamp = std::chrono::system_clock::now().time_since_epoch().count();
  for (int i = 0; i < count; ++i) {
    {
      const std::scoped_lock lock(mutex_);
      if (static_cast<int>(idle_.size()) >= count) return;
    }
    auto worker = start();
    if (!worker) return;
    Message request = {fmt::format("extern \"C\" __global__ void ready_{}_{}() {{}}", stamp, i)};
    request.insert(request.end(), options.begin(), options.end());
    worker->warming = worker->process.send(request);
    const std::scoped_lock lock(mutex_);
    idle_.insert(idle_.begin(), std::move(*worker));  // used after those that have started
  }
}

Result<NvrtcPool::Info> NvrtcPool::info() {
  {
    const std::scoped_lock lock(mutex_);
    if (info_) return *info_;
  }
  auto worker = start();
  const auto greeted = worker ? greet(*worker) : Result<void>(tl::unexpected(worker.error()));
  const std::scoped_lock lock(mutex_);
  if (greeted)
    idle_.push_back(std::move(*worker));
  else if (!info_)
    info_ = std::make_unique<Result<Info>>(tl::unexpected(greeted.error()));
  return *info_;
}

Result<NvrtcPool::Outcome> NvrtcPool::compile(const std::string& source, const std::vector<std::string>& options,
                                              double timeout_seconds) {
  std::optional<Worker> worker;
  {
    const std::scoped_lock lock(mutex_);
    if (!idle_.empty()) {
      worker = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  // One that was made ready and has ended since is replaced.
  if (!worker || !greet(*worker)) {
    KGEN_TRY(worker, start());
    KGEN_CHECK_OK(greet(*worker));
  }
  Message request = {source};
  request.insert(request.end(), options.begin(), options.end());
  worker->process.send(request);  // a child that is gone shows in receive()
  ChildProcess::Received answer = worker->process.receive(timeout_seconds);

  Outcome outcome;
  switch (answer.kind) {
    case ChildProcess::Received::Kind::kTimeout:
      outcome.end = Outcome::End::kTimeout;
      return outcome;  // the worker is killed on the way out; the next compile starts another
    case ChildProcess::Received::Kind::kEnded:
      outcome.end = Outcome::End::kCrashed;
      outcome.log = answer.why;
      return outcome;
    case ChildProcess::Received::Kind::kMessage:
      break;
  }
  if (answer.message.size() != 4) return fail(ErrorKind::kInternal, "the NVRTC worker sent an unknown answer");
  outcome.end = answer.message[0] == "ok" ? Outcome::End::kCompiled : Outcome::End::kFailed;
  outcome.log = std::move(answer.message[1]);
  outcome.cubin = std::move(answer.message[2]);
  outcome.seconds = std::strtod(answer.message[3].c_str(), nullptr);
  if (++worker->compiles < kCompilesPerWorker) {
    const std::scoped_lock lock(mutex_);
    idle_.push_back(std::move(*worker));
  }
  return outcome;
}

}  // namespace kgen
