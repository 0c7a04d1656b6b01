// Source → code object, with no GPU needed. Compilers run as child processes with a time limit; NVRTC runs inside a
// long-lived `kgen __compile-worker` child. Results are cached on disk by (source, options, compiler version).
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <memory>
#include <string>
#include <vector>

#include "base/arch.h"
#include "base/result.h"

namespace kgen {

// Read from AMD metadata notes, NVIDIA cubins (EIATTR / .nv.info and resource sections) and host objects (-1: unknown).
struct KernelUsage {
  std::string kernel;
  int registers = -1;        // vector registers a lane (AMD: VGPRs incl. AGPRs)
  int agprs = -1, sgprs = -1;
  int lds_bytes = -1;        // static LDS
  int spills = -1;           // spilled registers (AMD) or spill bytes / 4 (NVIDIA)
  int stack_bytes = -1;      // scratch / local memory a lane
  int max_block = -1;
};

struct CodeObject {
  std::vector<std::byte> bytes;
  std::string hash;              // hash_bytes(bytes)
  std::vector<KernelUsage> kernels;
  std::string compiler;          // "clang 19.1.7", "nvrtc 13.0", "g++ 12.2.0"
  std::string options;           // as passed
  std::string path;              // file in the cache that holds the bytes
  double compile_seconds = 0;    // of the compiler; kept when it came from the cache
  bool from_cache = false;
};

enum class CompileStatus { kCompiled, kFailed, kTimeout };
struct CompileResult {
  CompileStatus status = CompileStatus::kFailed;
  CodeObject code;
  std::string log;               // compiler's messages
  std::string command;           // shell line that repeats it (source path filled in)
};

// Seam: tests use a fake.
class Compiler {
 public:
  virtual ~Compiler() = default;
  // kNoCompiler when nothing here compiles for `arch`; a source that does not compile is a CompileResult.
  virtual Result<CompileResult> compile(const std::string& source, Arch arch) = 0;
  // "nvrtc 13.0.88" — what a trial records.
  virtual Result<std::string> version(Arch arch) = 0;
};

struct CompilerOptions {
  std::string cache_folder;      // "" = $XDG_CACHE_HOME/kgen or ~/.cache/kgen
  double timeout_seconds = 60;
  std::string force;             // "", "clang", "hipcc", "nvrtc", "nvcc", "g++": which driver to use
  std::string self;              // path of the kgen executable, for worker children
};
// Thread-safe; several compile() calls run at once.
std::unique_ptr<Compiler> make_compiler(const CompilerOptions&);

// Entry of the hidden subcommand `kgen __compile-worker`.
int compile_worker_main();

// Compiles on `jobs` threads, in submission order of start; `done(ticket, result)` is called on pool threads.
class CompilePool {
 public:
  CompilePool(Compiler&, int jobs);
  ~CompilePool();  // drops what has not started, waits for the rest
  using Done = std::function<void(Result<CompileResult>)>;
  void submit(std::string source, Arch arch, Done done);
  int pending() const;
 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Resources of every kernel in an object file of any supported kind.
Result<std::vector<KernelUsage>> inspect_code(std::span<const std::byte> code);
// Resident waves a compute unit for a kernel with this usage and block size, and which limit binds
// ("registers", "lds", "waves", "block").
struct Occupancy { int waves = 0; int blocks = 0; std::string limit; };
Occupancy occupancy(Arch, const KernelUsage&, int block, int dynamic_lds_bytes);

}  // namespace kgen
