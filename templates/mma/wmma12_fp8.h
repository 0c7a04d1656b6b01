// RDNA4 WMMA on fp8 (gfx12): two 16x16x16 side by side in K, wave32. Operands and sums lie as in wmma12.h, but a lane
// reads 16 consecutive bytes, 16 terms at K = 16*(lane/16); instruction i takes the 8 from 8i on.
#pragma once
#include "../fp8.h"
#include "wmma12.h"

namespace kgen {

template <Arch kArch, class TypeA, class TypeB, int kTileK>
  requires(kIsRdna4<kArch>)
struct Mma<kArch, Fp8Operands<TypeA, TypeB>, float, 16, kTileK> : Mma<kArch, f16, float, 16, kTileK> {
  using Base = Mma<kArch, f16, float, 16, kTileK>;
  using Lds = Fp8Operands<TypeA, TypeB>;
  using typename Base::C;
  static constexpr int kK = 32, kInstructions = 2;
  using Pair = int __attribute__((vector_size(8)));
  struct A {
    Vec<u64, 2> v;
  };
  using B = A;

  static KGEN_DEVICE int a_k(int lane, int) { return lane / 16 * 16; }
  template <bool>
  static KGEN_DEVICE int b_k(int lane, int) {
    return lane / 16 * 16;
  }
  static KGEN_DEVICE void load_a(A& a, int, int offset) { a.v = load_vec<u64, 2>(lds<u64>(offset)); }
  template <bool, int>
  static KGEN_DEVICE void load_b(B& b, int, int offset) {
    load_a(b, 0, offset);
  }

  // As in wmma12.h the unit gets B first. Its own names: fp8 is e4m3, bf8 is e5m2.
  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    constexpr bool kWideA = kSame<TypeA, fp8_e5m2>, kWideB = kSame<TypeB, fp8_e5m2>;
    KGEN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const Pair first = __builtin_bit_cast(Pair, b.v[i]), second = __builtin_bit_cast(Pair, a.v[i]);
      if constexpr (kWideB && kWideA)
        c = __builtin_amdgcn_wmma_f32_16x16x16_bf8_bf8_w32_gfx12(first, second, c);
      else if constexpr (kWideB)
        c = __builtin_amdgcn_wmma_f32_16x16x16_bf8_fp8_w32_gfx12(first, second, c);
      else if constexpr (kWideA)
        c = __builtin_amdgcn_wmma_f32_16x16x16_fp8_bf8_w32_gfx12(first, second, c);
      else
        c = __builtin_amdgcn_wmma_f32_16x16x16_fp8_fp8_w32_gfx12(first, second, c);
    }
  }
};

}  // namespace kgen
