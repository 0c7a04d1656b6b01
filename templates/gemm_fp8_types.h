// Enumerators of gemm_fp8's attributes, shared by its templates and its reference.
#pragma once

namespace kgen {

enum class scales {
  tensor,  // one for each operand
  block,   // A: one for each row and 128 terms; B: one for 128 rows and 128 terms
};

enum class unit { mfma, wmma11, wmma12, mma_sync, mfma_fp8, wmma12_fp8, mma_sync_fp8 };  // files of mma/

}  // namespace kgen
