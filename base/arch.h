// The architectures kgen compiles for, and the facts about them that op definitions may use in expressions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kgen {

enum class Vendor { kHost, kAmd, kNvidia };

// One row of the architecture table. `name` is the compiler's spelling ("gfx90a", "sm_90", "host").
struct ArchInfo {
  std::string_view name;
  std::string_view family;  // "host", "gcn", "cdna", "rdna2", "rdna3", "rdna4", "pascal", "volta", "turing", "ampere",
                            // "ada", "hopper"
  Vendor vendor;
  std::string_view matrix_unit;  // file stem in templates/mma: "mfma", "wmma11", "wmma12", "mma_sync", or "none"
  int wave_size;                 // lanes that execute together (host: 32, as fibers)
  int lds_limit;                 // bytes of LDS / shared memory one block may use
  int lds_per_unit;              // bytes a compute unit / multiprocessor holds
  int max_block;                 // work-items a block
  int max_registers;             // 32-bit vector registers a lane (AMD: VGPR + AGPR as the compiler may allocate)
  int registers_per_unit;        // 32-bit registers a compute unit holds over all its SIMDs
  int max_waves_per_unit;        // resident waves a compute unit
  bool async_copy;               // global → LDS without passing registers (cp.async)
  bool bf16_matrix;              // matrix unit takes bf16
  bool fp16_matrix;
  bool fp32_matrix;  // matrix unit takes true fp32 (CDNA)
  int max_cluster;   // blocks that may read one another's LDS (thread-block cluster); 1: none
  bool bulk_copy;    // a run of global memory → LDS by one work-item, signalled through a barrier (cp.async.bulk)
  // Products by four waves from LDS (wgmma), fed by copies through tensor maps (cp.async.bulk.tensor).
  bool warpgroup_mma;

  // As the compilers are told: "sm_90a" has what only that chip has, and its code runs wherever sm_90's machine code
  // does.
  std::string compiler_target() const { return std::string(name) + (warpgroup_mma ? "a" : ""); }
};

using Arch = const ArchInfo*;  // rows live for the whole program; compare by pointer

std::span<const ArchInfo> all_archs();
// Exact name, else an error that lists the nearest valid name.
Result<Arch> find_arch(std::string_view name);

// Whose code objects a device takes.
struct CodeSource {
  Arch arch = nullptr;
  bool only_ptx =
      false;  // PTX, which the driver compiles for the device; machine code of this architecture does not run
};
// By the name that the driver gives the device ("sm_87", "gfx90a:sramecc+:xnack-"), best first: its own architecture,
// its family (on NVIDIA machine code runs on later minor versions of its major version; AMD has no such promise), then
// PTX of any older architecture. Empty where the table has nothing.
std::vector<CodeSource> code_that_runs_on(std::string_view device_arch);

}  // namespace kgen
