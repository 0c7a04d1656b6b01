// Displaces what the instruction caches hold, as read_all of check.h does for data: straight code, larger than they
// are, that every compute unit executes once before a sample.
//
//   part 0: x = fma(x, 2, 0)  x = fma(x, 2, 1)  …  x = fma(x, 2, kCodeSteps - 1)       wave 0
//   part 1: x = fma(x, 3, 0)  x = fma(x, 3, 1)  …                                      wave 1
//     …
// A wave that fetched all of it alone would wait for one cache line after the other. The waves of a block have a part
// each, so that many lines are on the way at once. No two instructions are alike, and floating-point sums are not put
// together, so compilers fold nothing; an instruction takes 16 bytes on NVIDIA, 8 or more on AMD.
#pragma once
#include "prelude.h"

namespace kgen {

inline constexpr int kCodeBlock = 1024;
inline constexpr int kCodeParts = kCodeBlock / kWaveSize;
#if defined(__HIP__)
inline constexpr int kCodeSteps = 12288 / kCodeParts;  // 96 KiB at least; up to 64 serve two compute units
#else
inline constexpr int kCodeSteps = 9216 / kCodeParts;  // 144 KiB; a multiprocessor has up to 128
#endif

template <int kPart>
KGEN_DEVICE float code_part(float x) {
  KGEN_UNROLL
  for (int i = 0; i < kCodeSteps; ++i) x = fma_f(x, float(kPart + 2), float(i));
  return x;
}

template <int kPart = 0>
KGEN_DEVICE float code_of_wave(int wave, float x) {
  if constexpr (kPart < kCodeParts) return wave == kPart ? code_part<kPart>(x) : code_of_wave<kPart + 1>(wave, x);
  return x;
}

KGEN_DEVICE void displace_code(u64* sink) {
  const float x = code_of_wave(uniform(thread_x() / kWaveSize), float(thread_x()));
  if (x == 1.0f) *sink = 1;  // it never is
}

}  // namespace kgen
