// Displaces what the instruction caches hold, as read_all of check.h does for data: straight code, larger than they
// are, that every compute unit executes once before a sample.
//
//   part 0: x = fma(x, 2, …)  x = fma(x, 2, …)  …       wave 0
//   part 1: x = fma(x, 3, …)  x = fma(x, 3, …)  …       wave 1
//     …
// A wave that fetched all of it alone would wait for one cache line after the other. The waves of a block have a part
// each, so that many lines are on the way at once. Written as assembly, and in groups: as C++ the optimizer takes 0.6 s
// for it.
#pragma once
#include "prelude.h"

namespace kgen {

inline constexpr int kCodeBlock = 1024;
inline constexpr int kCodeParts = kCodeBlock / kWaveSize;

// A group of instructions, of kGroupBytes.
#if defined(__HIP__)
inline constexpr int kGroupBytes = 1024, kCodeBytes = 96 << 10;  // up to 64 KiB serve two compute units
KGEN_DEVICE float code_group(float x, float y) {
  asm volatile(".rept 128\n v_fma_f32 %0, %0, %1, %0\n.endr" : "+v"(x) : "v"(y));
  return x;
}
#elif defined(__CUDACC__) || defined(__CUDA__)
inline constexpr int kGroupBytes = 128, kCodeBytes = 144 << 10;  // a multiprocessor has up to 128 KiB
KGEN_DEVICE float code_group(float x, float y) {
  asm volatile(
      "fma.rn.f32 %0, %0, %1, 0f3F800000; fma.rn.f32 %0, %0, %1, 0f40000000;\n"
      "fma.rn.f32 %0, %0, %1, 0f40400000; fma.rn.f32 %0, %0, %1, 0f40800000;\n"
      "fma.rn.f32 %0, %0, %1, 0f40A00000; fma.rn.f32 %0, %0, %1, 0f40C00000;\n"
      "fma.rn.f32 %0, %0, %1, 0f40E00000; fma.rn.f32 %0, %0, %1, 0f41000000;\n"
      : "+f"(x)
      : "f"(y));
  return x;
}
#else  // a host's caches hold code beside data
inline constexpr int kGroupBytes = 64, kCodeBytes = 64 * kCodeParts;
KGEN_DEVICE float code_group(float x, float y) { return fma_f(x, y, 1.0f); }
#endif

template <int kPart>
KGEN_DEVICE float code_part(float x) {
  KGEN_UNROLL
  for (int i = 0; i < kCodeBytes / kCodeParts / kGroupBytes; ++i) x = code_group(x, float(kPart + 2));
  return x;
}

template <int kPart = 0>
KGEN_DEVICE float code_of_wave(int wave, float x) {
  if constexpr (kPart < kCodeParts) return wave == kPart ? code_part<kPart>(x) : code_of_wave<kPart + 1>(wave, x);
  return x;
}

KGEN_DEVICE void displace_code(u64* sink) {
  const float x = code_of_wave(uniform(thread_x() / kWaveSize), float(thread_x()));
  if (x == 1.0f) *sink = 1;  // so that none of it can be dropped
}

}  // namespace kgen
