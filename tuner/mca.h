// How busy a kernel's main loop keeps the matrix unit, as LLVM's machine model (llvm-mca) estimates it.
//
// The loop: among the innermost ones (from a label to the last backward branch to it, with no other loop that has
// matrix instructions in between) the one with the most matrix instructions. llvm-mca runs its instructions in the
// order in which they stand, both sides of a branch within it included, for one wave alone and in order. Cycles are
// those of the model: four clocks each. The model has fixed latencies (global memory 80 cycles) and knows neither
// bandwidth, bank conflicts, nor other waves, whose work fills the gaps of this one's: the shares rank loops, they
// predict no TFLOP/s.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace kgen {

struct LoopEstimate {
  std::string kernel, arch;
  std::string note;  // why there is no estimate: no loop with matrix instructions, no model of the matrix unit
  int instructions = 0, matrix_instructions = 0, waits = 0;  // of the loop; waits: s_waitcnt and s_barrier
  int not_modelled = 0;                                      // of the instructions; they take no time in the estimate
  double cycles = 0, matrix_cycles = 0;                      // an iteration; the matrix unit's
  double share = 0, share_without_waits = 0;                 // matrix_cycles of cycles
};

// Of every kernel of an AMD code object, an offload bundle, or an AMD compiler's assembly, in the file's order.
// kNoCompiler where llvm-mca or llvm-objdump is missing; kBadInput for other files.
Result<std::vector<LoopEstimate>> estimate_loops(std::span<const std::byte> code);

}  // namespace kgen
