// CDNA matrix cores: gfx908, gfx90a, gfx942. A wave of 64; a tile of 16x16 or 32x32.
//
// Operands are exchanged (the unit gets B as its first operand), so that a lane ends up with consecutive columns of one
// row of D: row lane % kM, columns by g = lane / kM:
//   16x16: columns 4*g + e, e < 4        32x32: columns 8*j + 4*g + e, j < 4, e < 4
// A lane reads 16 consecutive bytes of a row, at K = g * (16 bytes), for 16-bit types 8 elements, for fp32 4;
// instruction i takes elements i*w .. i*w+w-1 of each lane (w = 4; 2 for gfx908's bf16; 1 for fp32), the same
// permutation of K in A and B.
#pragma once
#include "mma.h"

namespace kgen {

// Of one lane; g++, which reads this header for its layouts, knows no vector size that depends on a parameter.
template <int kM>
struct MfmaSums;
template <>
struct MfmaSums<16> {
  using Type = float __attribute__((vector_size(4 * sizeof(float))));
};
template <>
struct MfmaSums<32> {
  using Type = float __attribute__((vector_size(16 * sizeof(float))));
};

template <Arch kArch, class In, int kM_, int kTileK>
  requires(kIsCdna<kArch> && (kM_ == 16 || kM_ == 32))
struct Mma<kArch, In, float, kM_, kTileK> {
  static constexpr int kM = kM_, kN = kM_, kLanes = 64;
  static constexpr int kGroups = kLanes / kM;  // lanes that share a row
  static constexpr int kPiece = 16 / int(sizeof(In));
  // Half a piece where the tile is too short for whole ones.
  static constexpr int kElements = kGroups * kPiece <= kTileK ? kPiece : kTileK / kGroups;
  static constexpr int kK = kGroups * kElements;
  static constexpr bool kSwizzle = true, kReadsN = false, kBInN = false, kPrefetch = true;
  static constexpr int kChunksA = 1, kChunksB = 1;
  static constexpr int kInstructions = kElements / (kSame<In, float>                           ? 1
                                                    : kSame<In, bf16> && kArch == Arch::gfx908 ? 2
                                                                                               : 4);
  using Lds = In;
  struct A {
    Vec<In, kElements> v;
  };
  using B = A;
  using C = typename MfmaSums<kM>::Type;
  static_assert(kTileK % kK == 0 && kElements % 4 == 0, "tile_k holds whole fragments");

  static KGEN_DEVICE int a_row(int lane, int) { return lane % kM; }
  static KGEN_DEVICE int a_k(int lane, int) { return lane / kM * kElements; }
  template <bool>
  static KGEN_DEVICE int b_column(int lane, int) {
    return lane % kM;
  }
  template <bool>
  static KGEN_DEVICE int b_k(int lane, int) {
    return lane / kM * kElements;
  }
  static KGEN_DEVICE void load_a(A& a, int, int offset) { a.v = load_vec<In, kElements>(lds<In>(offset)); }
  template <bool, int>
  static KGEN_DEVICE void load_b(B& b, int, int offset) {
    load_a(b, 0, offset);
  }

  using Half4 = _Float16 __attribute__((vector_size(8)));
  using Short4 = short __attribute__((vector_size(8)));
  using Short2 = short __attribute__((vector_size(4)));

  template <class Operand>
  static KGEN_DEVICE Operand part(const A& a, int i) {
    constexpr int kWidth = int(sizeof(Operand) / sizeof(In));
    Vec<In, kWidth> v;
    KGEN_UNROLL
    for (int e = 0; e < kWidth; ++e) v[e] = a.v[i * kWidth + e];
    return __builtin_bit_cast(Operand, v);
  }

  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    if constexpr (kSame<In, f16>) {
      KGEN_UNROLL
      for (int i = 0; i < kElements / 4; ++i) {
        if constexpr (kM == 16)
          c = __builtin_amdgcn_mfma_f32_16x16x16f16(part<Half4>(b, i), part<Half4>(a, i), c, 0, 0, 0);
        else
          c = __builtin_amdgcn_mfma_f32_32x32x8f16(part<Half4>(b, i), part<Half4>(a, i), c, 0, 0, 0);
      }
    } else if constexpr (kSame<In, bf16>) {
#if defined(__gfx908__)
      KGEN_UNROLL
      for (int i = 0; i < kElements / 2; ++i) {
        if constexpr (kM == 16)
          c = __builtin_amdgcn_mfma_f32_16x16x8bf16(part<Short2>(b, i), part<Short2>(a, i), c, 0, 0, 0);
        else
          c = __builtin_amdgcn_mfma_f32_32x32x4bf16(part<Short2>(b, i), part<Short2>(a, i), c, 0, 0, 0);
      }
#else
      KGEN_UNROLL
      for (int i = 0; i < kElements / 4; ++i) {
        if constexpr (kM == 16)
          c = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(part<Short4>(b, i), part<Short4>(a, i), c, 0, 0, 0);
        else
          c = __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(part<Short4>(b, i), part<Short4>(a, i), c, 0, 0, 0);
      }
#endif
    } else {
      static_assert(kSame<In, float>, "the matrix cores take fp32, fp16 and bf16");
      KGEN_UNROLL
      for (int i = 0; i < kElements; ++i) {
        if constexpr (kM == 16)
          c = __builtin_amdgcn_mfma_f32_16x16x4f32(b.v[i], a.v[i], c, 0, 0, 0);
        else
          c = __builtin_amdgcn_mfma_f32_32x32x2f32(b.v[i], a.v[i], c, 0, 0, 0);
      }
    }
  }

  static constexpr int kRowsC = 1, kRowElementsC = kM * kN / kLanes, kRunC = 4, kRowLanes = kLanes - kM;
  static constexpr bool kSumsToA = false;
  static KGEN_DEVICE int c_row(int lane, int) { return lane % kM; }
  static KGEN_DEVICE int c_column(int lane, int e) { return lane / kM * 4 + e / 4 * 8 + e % 4; }
  static KGEN_DEVICE float get_c(const C& c, int, int e) { return c[e]; }
  static KGEN_DEVICE void set_c(C& c, int, int e, float value) { c[e] = value; }

  static KGEN_DEVICE void store(const C& c, float* rows, int pitch, int lane) {
    float* at = rows + lane % kM * pitch + lane / kM * 4;
    const auto sums = bit_cast<Vec<Vec<float, 4>, kM * kN / kLanes / 4>>(c);
    KGEN_UNROLL
    for (int j = 0; j < kM * kN / kLanes / 4; ++j) store_vec<float, 4>(at + j * 8, sums[j]);
  }
};

}  // namespace kgen
