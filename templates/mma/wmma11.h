// RDNA3 WMMA (gfx11): 16x16x16, wave32. Every lane holds a whole row of A (column of B): 16 elements, and lanes 16-31
// repeat lanes 0-15. Operands are exchanged, so D row = lane % 16, columns 2*e + lane/16, e < 8.
#pragma once
#include "mma.h"

namespace kgen {

template <Arch kArch, class In, int kTileK>
  requires(kIsRdna3<kArch> && (kSame<In, f16> || kSame<In, bf16>))
struct Mma<kArch, In, float, 16, kTileK> {
  static constexpr int kM = 16, kN = 16, kK = 16, kLanes = 32;
  static constexpr bool kSwizzle = true, kReadsN = false, kBInN = false, kPrefetch = true;
  static constexpr int kChunksA = 2, kChunksB = 2;
  static constexpr int kInstructions = 1;
  using Lds = In;
  struct A {
    Vec<In, 8> v[2];
  };
  using B = A;
  using C = float __attribute__((vector_size(kM * kN / kLanes * sizeof(float))));

  static KGEN_DEVICE int a_row(int lane, int) { return lane % 16; }
  static KGEN_DEVICE int a_k(int, int e) { return e * 8; }
  template <bool>
  static KGEN_DEVICE int b_column(int lane, int) {
    return lane % 16;
  }
  template <bool>
  static KGEN_DEVICE int b_k(int, int e) {
    return e * 8;
  }
  static KGEN_DEVICE void load_a(A& a, int e, int offset) { a.v[e] = load_vec<In, 8>(lds<In>(offset)); }
  template <bool, int>
  static KGEN_DEVICE void load_b(B& b, int e, int offset) {
    load_a(b, e, offset);
  }

  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    if constexpr (kSame<In, f16>) {
      using Operand = _Float16 __attribute__((vector_size(kK * sizeof(In))));
      c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(__builtin_bit_cast(Operand, b), __builtin_bit_cast(Operand, a), c);
    } else {
      using Operand = short __attribute__((vector_size(kK * sizeof(In))));
      c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(__builtin_bit_cast(Operand, b), __builtin_bit_cast(Operand, a),
                                                      c);
    }
  }

  static constexpr int kRowsC = 1, kRowElementsC = 8, kRunC = 1, kRowLanes = 16;
  static constexpr bool kSumsToA = false;
  static KGEN_DEVICE int c_row(int lane, int) { return lane % 16; }
  static KGEN_DEVICE int c_column(int lane, int e) { return 2 * e + lane / 16; }
  static KGEN_DEVICE float get_c(const C& c, int, int e) { return c[e]; }
  static KGEN_DEVICE void set_c(C& c, int, int e, float value) { c[e] = value; }

  static KGEN_DEVICE void store(const C& c, float* rows, int pitch, int lane) {
    float* at = rows + lane % 16 * pitch + lane / 16;
    KGEN_UNROLL
    for (int e = 0; e < 8; ++e) at[2 * e] = c[e];
  }
};

}  // namespace kgen
