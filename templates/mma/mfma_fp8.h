// CDNA 3's matrix cores on fp8 (gfx942): a wave of 64; a tile of 16x16 or 32x32. Operands and sums lie as in mfma.h: a
// lane reads 16 consecutive bytes of a row, 16 terms; instruction i takes the 8 from 8i on. The formats are FNUZ: the
// loader of gemm_fp8.h makes them of OCP's.
#pragma once
#include "../fp8.h"
#include "mfma.h"

namespace kgen {

template <Arch kArch, class TypeA, class TypeB, int kM_, int kTileK>
  requires(kArch == Arch::gfx942 && (kM_ == 16 || kM_ == 32))
struct Mma<kArch, Fp8Operands<TypeA, TypeB>, float, kM_, kTileK> : Mma<kArch, f16, float, kM_, kTileK> {
  using Base = Mma<kArch, f16, float, kM_, kTileK>;
  using Lds = Fp8Operands<TypeA, TypeB>;
  using Base::kGroups;
  using typename Base::C;
  static constexpr int kM = kM_, kElements = 16, kK = kGroups * kElements, kInstructions = 2;
  struct A {
    Vec<u64, 2> v;
  };
  using B = A;
  static_assert(kTileK % kK == 0, "tile_k holds whole fragments");

  static KGEN_DEVICE int a_k(int lane, int) { return lane / kM * kElements; }
  template <bool>
  static KGEN_DEVICE int b_k(int lane, int) {
    return lane / kM * kElements;
  }
  static KGEN_DEVICE void load_a(A& a, int, int offset) { a.v = load_vec<u64, 2>(lds<u64>(offset)); }
  template <bool, int>
  static KGEN_DEVICE void load_b(B& b, int, int offset) {
    load_a(b, 0, offset);
  }

  // As in mfma.h the unit gets B first. Its own names: fp8 is e4m3, bf8 is e5m2.
  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    constexpr bool kWideA = kSame<TypeA, fp8_e5m2>, kWideB = kSame<TypeB, fp8_e5m2>;
    KGEN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const i64 first = i64(b.v[i]), second = i64(a.v[i]);
      if constexpr (kM == 16) {
        if constexpr (kWideB && kWideA)
          c = __builtin_amdgcn_mfma_f32_16x16x32_bf8_bf8(first, second, c, 0, 0, 0);
        else if constexpr (kWideB)
          c = __builtin_amdgcn_mfma_f32_16x16x32_bf8_fp8(first, second, c, 0, 0, 0);
        else if constexpr (kWideA)
          c = __builtin_amdgcn_mfma_f32_16x16x32_fp8_bf8(first, second, c, 0, 0, 0);
        else
          c = __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(first, second, c, 0, 0, 0);
      } else {
        if constexpr (kWideB && kWideA)
          c = __builtin_amdgcn_mfma_f32_32x32x16_bf8_bf8(first, second, c, 0, 0, 0);
        else if constexpr (kWideB)
          c = __builtin_amdgcn_mfma_f32_32x32x16_bf8_fp8(first, second, c, 0, 0, 0);
        else if constexpr (kWideA)
          c = __builtin_amdgcn_mfma_f32_32x32x16_fp8_bf8(first, second, c, 0, 0, 0);
        else
          c = __builtin_amdgcn_mfma_f32_32x32x16_fp8_fp8(first, second, c, 0, 0, 0);
      }
    }
  }
};

}  // namespace kgen
