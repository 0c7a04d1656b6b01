// Source → code object, with no GPU needed. Compilers run as child processes with a time limit; NVRTC runs inside a
// long-lived `kgen __compile-worker` child. Results are cached on disk by (source, options, compiler version).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/arch.h"
#include "base/result.h"

namespace kgen {

// Read from AMD metadata notes, NVIDIA cubins (EIATTR / .nv.info and resource sections), PTX and host objects (-1:
// unknown).
struct KernelUsage {
  std::string kernel;
  int registers = -1;  // vector registers a lane (AMD: VGPRs incl. AGPRs)
  int agprs = -1, sgprs = -1;
  int lds_bytes = -1;  // static LDS
  // Spilled vector and scalar registers (AMD) or bytes of spill stores / 4 (NVIDIA). A cubin does not tell spills from
  // local arrays: from the file alone this is 0 without a stack and -1 with one; compile() adds the assembler's own
  // count.
  int spills = -1;
  int stack_bytes = -1;  // scratch / local memory a lane
  int max_block = -1;
};

struct CodeObject {
  std::vector<std::byte> bytes;
  std::string hash;  // hash_bytes(bytes)
  std::vector<KernelUsage> kernels;
  std::string compiler;        // "clang 19.1.7", "nvrtc 13.0", "g++ 12.2.0"
  std::string options;         // as passed
  std::string path;            // file in the cache that holds the bytes; "" when the cache cannot be written
  double compile_seconds = 0;  // of the compiler; kept when it came from the cache
  bool from_cache = false;
};

enum class CompileStatus { kCompiled, kFailed, kTimeout };
struct CompileResult {
  CompileStatus status = CompileStatus::kFailed;
  CodeObject code;
  std::string log;      // compiler's messages; the source is called kernel.hip, kernel.cu or kernel.cpp in them
  std::string command;  // shell line that repeats it; the source of a failure is kept in the cache folder for that
};

// The line of a compiler's log that says what is wrong: the first one with "error", else the first one; "" for an empty
// log.
std::string first_error(std::string_view log);

// Seam: tests use a fake.
class Compiler {
 public:
  virtual ~Compiler() = default;
  // kNoCompiler when nothing here compiles for `arch`; a source that does not compile is a CompileResult. A compiler
  // that crashes or leaves a broken object is kFailed with that as its reason.
  virtual Result<CompileResult> compile(const std::string& source, Arch arch) = 0;
  // "nvrtc 13.0.88" — what a trial records.
  virtual Result<std::string> version(Arch arch) = 0;
  // `jobs` compiles for `arch` come soon: what takes a while to start is started, without a wait.
  virtual void get_ready(Arch /*arch*/, int /*jobs*/) {}
};

struct CompilerOptions {
  std::string cache_folder;      // "" = $XDG_CACHE_HOME/kgen or ~/.cache/kgen
  std::int64_t cache_bytes = 0;  // oldest entries go when the cache is larger; 0 = $KGEN_CACHE_BYTES or 2 GiB
  double timeout_seconds = 60;
  std::string force;  // "", "clang", "hipcc", "nvrtc", "nvcc", "g++": which driver to use
  std::string self;   // path of the kgen executable, for worker children; "" = no NVRTC
};
// Thread-safe; several compile() calls run at once. Drivers, the first that knows the architecture
// (docs/decisions/0003-compiler-drivers.md): host: $CXX, g++, c++, clang++. AMD: $KGEN_CLANG or the newest clang >= 15,
// else hipcc. NVIDIA: NVRTC ($KGEN_NVRTC, the loader's path, $CUDA_HOME, /usr/local/cuda), nvcc, else clang's PTX back
// end.
std::unique_ptr<Compiler> make_compiler(const CompilerOptions&);

// Entry of the hidden subcommand `kgen __compile-worker`.
int compile_worker_main();

// Compiles on `jobs` threads; `done(result)` is called on one of them. Of what waits, the lowest turn starts first, and
// of one turn what was submitted first.
class CompilePool {
 public:
  CompilePool(Compiler&, int jobs);
  ~CompilePool();  // drops what has not started, waits for the rest
  using Done = std::function<void(Result<CompileResult>)>;
  void submit(std::string source, Arch arch, Done done, std::int64_t turn = 0);
  int pending() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What a code object is, from its first bytes: "elf-amdgpu" (also inside an offload bundle), "cubin", "ptx", "host", or
// "" for anything else.
std::string_view code_kind(std::span<const std::byte> code);
// Resources of every kernel in an object file of any supported kind, in the file's order. A malformed file is
// kBadInput.
Result<std::vector<KernelUsage>> inspect_code(std::span<const std::byte> code);
// Matrix instructions by mnemonic ("v_mfma_f32_16x16x16_f16", "HMMA", "mma.sync"), empty when there are none. AMD code
// is read with llvm-objdump: kNoCompiler where that is missing.
Result<std::map<std::string, int>> matrix_instructions(std::span<const std::byte> code);
// Resident waves a compute unit for a kernel with this usage and block size, and which limit binds
// ("registers", "lds", "waves", "block").
struct Occupancy {
  int waves = 0;
  int blocks = 0;
  std::string limit;
};
Occupancy occupancy(Arch, const KernelUsage&, int block, int dynamic_lds_bytes);

}  // namespace kgen
