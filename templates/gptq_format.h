// The weight of gptq_gemm as it lies in memory, and how a value becomes scale * (q - zero).
//
//   qweight [k*bits/32][n]: words down K        4 bits: k = 8r..8r+7 of column n in word (r, n), the first lowest
//   qzeros  [groups][n*bits/32]: words along N  3 bits: 32 values in 3 words; values 10 and 21 straddle two of them
//   scales  [groups][n]
//
// A `unit` is the fewest words that hold whole values: 1, for 3 bits 3. Its values are taken in pairs, one in each half
// of a word, so that 16-bit arithmetic does two at once: 0x6400 | q is the half 1024 + q, exact, and so is its
// difference to 1024 + zero (zero <= 256). Where halves are slow or absent the same values pass through integers.
#pragma once
#include "columns.h"
#include "epilogue.h"
#include "gemm_types.h"
#include "prelude.h"
#include "split_k.h"

namespace kgen {
namespace gptq {

// Config as the gemm family's headers read it: those parts of the epilogue that this operator does not have.
template <class C>
struct GemmConfig : C {
  using out_dtype = typename C::dtype;
  static constexpr int epilogue_relu = 0, epilogue_gelu_erf = 0, epilogue_gelu_tanh = 0, epilogue_silu = 0,
                       epilogue_quick_gelu = 0, epilogue_sigmoid = 0, epilogue_add_residual = 0, epilogue_mul_other = 0,
                       epilogue_add_c = 0;
};

// Args as the gemm family's headers read them: d = a.b + bias, where b is the expanded weight of a plan that has one.
template <class C, class P>
struct GemmView {
  using T = typename C::dtype;
  static constexpr i64 batch = 1, batch_stride_a = 0, batch_stride_b = 0, batch_stride_d = 0;
  static constexpr float alpha = 1.0f;
  const T* a;
  const T* b;
  const T* bias;
  T* d;
  float* partial;
  i64 m, n, k, lda, ldb, ldd;

  KGEN_DEVICE explicit GemmView(const P& p)
      : a(p.x),
        b(nullptr),
        bias(p.bias),
        d(p.y),
        partial(p.partial),
        m(p.m),
        n(p.n),
        k(p.k),
        lda(p.ldx),
        ldb(0),
        ldd(p.ldy) {}
};

template <class C>
struct Packing {
  static constexpr int kBits = int(C::bits);
  static constexpr int kWords = kBits == 3 ? 3 : 1;   // of a unit
  static constexpr int kUnitK = kWords * 32 / kBits;  // values of a unit
  static constexpr int kPairs = kUnitK / 2;
  static constexpr u32 kMask = (1u << kBits) - 1;
  static constexpr bool kInOrder = kBits == 3;  // pair i is values 2i, 2i+1; else i, i + kPairs
  static constexpr bool kHalves = C::arch != Arch::host && C::arch != Arch::sm_61;

  static constexpr KGEN_DEVICE int low(int pair) { return kInOrder ? 2 * pair : pair; }
  static constexpr KGEN_DEVICE int high(int pair) { return kInOrder ? 2 * pair + 1 : pair + kPairs; }

  // Value i of a unit of 3 bits.
  static KGEN_DEVICE u32 value(const u32 (&words)[kWords], int i) {
    const int word = i * kBits / 32, shift = i * kBits % 32;
    u32 bits = words[word] >> shift;
    if (shift + kBits > 32) bits |= words[word + 1] << (32 - shift);
    return bits & kMask;
  }
  static KGEN_DEVICE u32 pair(const u32 (&words)[kWords], int i) {
    if constexpr (kInOrder)
      return value(words, 2 * i) | value(words, 2 * i + 1) << 16;
    else
      return words[0] >> (i * kBits) & (kMask | kMask << 16);
  }
};

// What is subtracted from a pair of values: -(1024 + zero) twice as f16, or the zero itself.
template <class C>
KGEN_DEVICE u32 zero_operand(u32 zero) {
  return Packing<C>::kHalves ? (0xe400u + zero) * 0x10001u : zero;
}

// q - zero of both values of a pair.
template <class C>
KGEN_DEVICE void differences(u32 pair, u32 zero, float& low, float& high) {
  if constexpr (Packing<C>::kHalves) {
    const u32 halves = add_f16x2(pair | 0x64006400u, zero);
    low = to_float(f16{u16(halves)});
    high = to_float(f16{u16(halves >> 16)});
  } else {
    low = float(int(pair & 0xffffu) - int(zero));
    high = float(int(pair >> 16) - int(zero));
  }
}

// The zeros of N neighbouring columns (N divides 4, the first column is a multiple of N): the words that hold them.
template <class C, int N>
struct Zeros {
  static constexpr int kBits = int(C::bits);
  static constexpr int kWords = kBits == 3 ? 2 : 1;
  u32 words[kWords];

  KGEN_DEVICE void load(const i32* row, i64 column) {
    const i64 word = column * kBits / 32;
    words[0] = u32(row[word]);
    if constexpr (kWords == 2) words[1] = int(column * kBits % 32) + N * kBits > 32 ? u32(row[word + 1]) : 0u;
  }
  // Format v1 stores zero - 1; the sum is not wrapped, so a field of ones means 2^bits.
  KGEN_DEVICE u32 zero(i64 column, int i) const {
    const int shift = int(column * kBits % 32);
    u64 bits = words[0];
    if constexpr (kWords == 2) bits |= u64(words[1]) << 32;
    return (u32(bits >> shift >> (i * kBits)) & Packing<C>::kMask) + (C::v2 ? 0u : 1u);
  }
};

// Group of row k where groups follow one another.
template <class C>
KGEN_DEVICE int group_in_order(int k) {
  if constexpr (C::group_size > 0) return int(u32(k) / u32(C::group_size));
  return 0;
}
template <class C, class P>
KGEN_DEVICE int group_of_row(const P& p, int k) {
  if constexpr (C::desc_act) return p.g_idx[k];
  return group_in_order<C>(k);
}

// Scales and zeros of N columns in one group.
template <class C, int N>
struct Group {
  using T = typename C::dtype;
  Packed<T, N> scales;
  Zeros<C, N> zeros;

  template <class P>
  KGEN_DEVICE void load(const P& p, int group, i64 column) {
    scales = Packed<T, N>::load(p.scales + group * p.ldg + column);
    zeros.load(p.qzeros + group * p.ldz, column);
  }
};

}  // namespace gptq

// Adds the parts of a split K.
template <class C, class P>
KGEN_DEVICE void gptq_reduce(const P& p) {
  split_k_reduce<gptq::GemmConfig<C>>(gptq::GemmView<C, P>(p));
}

}  // namespace kgen
