// wgmma on fp8 (sm_90a): D[64 x kN] += A[64 x 32] . B[32 x kN]. Rows of 128 bytes in LDS are 128 terms; all else is as
// wgmma.h has it. Within the unit products are aligned to the largest and keep some 13 bits behind its first one.
#pragma once
#include "../fp8.h"
#include "wgmma.h"

namespace kgen {

#define KGEN_WGMMA_FP8(n, j, types, a, b, use)                                                                    \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " use ", 0; wgmma.mma_async.sync.aligned.m64n" #n "k32.f32." types \
               " {" KGEN_D##j "}, " a ", " b ", p, 1, 1; }"                                                       \
               : KGEN_C##j                                                                                        \
               : "l"(first), "l"(second), "r"(int(keep)))
#define KGEN_WGMMA_FP8_OF(n, j, a, b, use)        \
  if constexpr (kN == n && kWideA && kWideB)      \
    KGEN_WGMMA_FP8(n, j, "e5m2.e5m2", a, b, use); \
  else if constexpr (kN == n && kWideA)           \
    KGEN_WGMMA_FP8(n, j, "e5m2.e4m3", a, b, use); \
  else if constexpr (kN == n && kWideB)           \
    KGEN_WGMMA_FP8(n, j, "e4m3.e5m2", a, b, use); \
  else if constexpr (kN == n)                     \
    KGEN_WGMMA_FP8(n, j, "e4m3.e4m3", a, b, use);

// One product of 32 terms, operands of wgmma_operand(); without `keep` the sums begin with it.
template <class TypeA, class TypeB, int kSums>
KGEN_DEVICE void wgmma_fp8(float (&c)[kSums], u64 first, u64 second, bool keep) {
  constexpr int kN = 2 * kSums;
  constexpr bool kWideA = kSame<TypeA, fp8_e5m2>, kWideB = kSame<TypeB, fp8_e5m2>;
  static_assert(kN % 16 == 0 && kN >= 16 && kN <= 256);
  KGEN_WGMMA_FP8_OF(16, 0, "%8", "%9", "%10")
  KGEN_WGMMA_FP8_OF(32, 1, "%16", "%17", "%18")
  KGEN_WGMMA_FP8_OF(48, 2, "%24", "%25", "%26")
  KGEN_WGMMA_FP8_OF(64, 3, "%32", "%33", "%34")
  KGEN_WGMMA_FP8_OF(80, 4, "%40", "%41", "%42")
  KGEN_WGMMA_FP8_OF(96, 5, "%48", "%49", "%50")
  KGEN_WGMMA_FP8_OF(112, 6, "%56", "%57", "%58")
  KGEN_WGMMA_FP8_OF(128, 7, "%64", "%65", "%66")
  KGEN_WGMMA_FP8_OF(144, 8, "%72", "%73", "%74")
  KGEN_WGMMA_FP8_OF(160, 9, "%80", "%81", "%82")
  KGEN_WGMMA_FP8_OF(176, 10, "%88", "%89", "%90")
  KGEN_WGMMA_FP8_OF(192, 11, "%96", "%97", "%98")
  KGEN_WGMMA_FP8_OF(208, 12, "%104", "%105", "%106")
  KGEN_WGMMA_FP8_OF(224, 13, "%112", "%113", "%114")
  KGEN_WGMMA_FP8_OF(240, 14, "%120", "%121", "%122")
  KGEN_WGMMA_FP8_OF(256, 15, "%128", "%129", "%130")
}
#undef KGEN_WGMMA_FP8_OF
#undef KGEN_WGMMA_FP8

}  // namespace kgen
