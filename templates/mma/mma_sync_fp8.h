// NVIDIA tensor cores on fp8 through mma.sync m16n8k32 (sm_89 on): 16x16x32. A lane's words lie as those of
// mma_sync.h, with four terms where that has two, so layouts, ldmatrix and sums are its.
#pragma once
#include "../fp8.h"
#include "mma_sync.h"

namespace kgen {

template <Arch kArch, class TypeA, class TypeB, int kTileK>
  requires(kArch == Arch::sm_89 || kArch == Arch::sm_90)
struct Mma<kArch, Fp8Operands<TypeA, TypeB>, float, 16, kTileK> : MmaSync<MmaSyncInstructions<kArch>, f16, float> {
  using Base = MmaSync<MmaSyncInstructions<kArch>, f16, float>;
  using Lds = Fp8Operands<TypeA, TypeB>;
  using typename Base::A;
  using typename Base::B;
  using typename Base::C;
  static constexpr int kK = 32;

  static KGEN_DEVICE int a_k(int lane, int) { return lane / 16 * 16; }
  template <bool>
  static KGEN_DEVICE int b_k(int lane, int) {
    return lane / 8 % 2 * 16;
  }

#define KGEN_MMA_FP8(a_type, b_type)                                         \
  asm("mma.sync.aligned.m16n8k32.row.col.f32." a_type "." b_type             \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                       \
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1))
  static KGEN_DEVICE void multiply_half(u32 (&c)[4], const A& a, u32 b0, u32 b1) {
    if constexpr (kSame<TypeA, fp8_e4m3> && kSame<TypeB, fp8_e4m3>)
      KGEN_MMA_FP8("e4m3", "e4m3");
    else if constexpr (kSame<TypeA, fp8_e4m3>)
      KGEN_MMA_FP8("e4m3", "e5m2");
    else if constexpr (kSame<TypeB, fp8_e4m3>)
      KGEN_MMA_FP8("e5m2", "e4m3");
    else
      KGEN_MMA_FP8("e5m2", "e5m2");
  }
#undef KGEN_MMA_FP8
  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    multiply_half(c.r[0], a, b.r[0], b.r[1]);
    multiply_half(c.r[1], a, b.r[2], b.r[3]);
  }
};

}  // namespace kgen
