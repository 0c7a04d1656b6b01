// Reference of gptq_gemm (OPS.md d): Wd[k, n] = scale[g, n] * (q[k, n] - zero[g, n]), g = g_idx[k], exact in double,
// and the sum of X[m, k] * Wd[k, n] (+ bias). Shares nothing with the templates under test but prelude.h.
#pragma once
#include "check.h"
#include "prelude.h"

namespace kgen {
namespace gptq_reference {

// Bits `bit` … bit + bits - 1 of a stream of words that are `stride` apart, the lowest bits first.
KGEN_DEVICE u32 field(const i32* words, i64 stride, i64 bit, int bits) {
  const i64 word = bit / 32;
  const int shift = int(bit % 32);
  u64 stream = u32(words[word * stride]);
  if (shift + bits > 32) stream |= u64(u32(words[(word + 1) * stride])) << 32;
  return u32(stream >> shift) & ((1u << bits) - 1);
}

template <class C, class P>
KGEN_DEVICE double weight(const P& p, i64 k, i64 n) {
  constexpr int kBits = int(C::bits);
  i64 group = 0;
  if constexpr (C::desc_act)
    group = p.g_idx[k];
  else if constexpr (C::group_size > 0)
    group = k / C::group_size;
  const int q = int(field(p.qweight + n, p.ldw, k * kBits, kBits));
  const int zero = int(field(p.qzeros + group * p.ldz, 1, n * kBits, kBits)) + (C::v2 ? 0 : 1);
  return double(to_float(p.scales[group * p.ldg + n])) * (q - zero);
}

// Plans may round a weight to the storage type once (OPS.md d). The errors of the terms are independent, each below
// u |x w| (0.43 u of it on average), so their sum is below 3 u sqrt(sum (x w)^2).
template <class C>
KGEN_DEVICE double weight_unit() {
  return kSame<typename C::dtype, bf16> ? 0x1p-8 : 0x1p-11;
}

}  // namespace gptq_reference

// The magnitude is the sum of |x w|, plus what the rounded weights may add, divided by the factor 4 sqrt(terms) 2^-24
// that the check multiplies it with.
template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  namespace r = gptq_reference;
  const i64 m = element / p.n, n = element % p.n;
  double sum = 0, absolute = 0, squares = 0;
  for (i64 k = 0; k < p.k; ++k) {
    const double term = double(to_float(p.x[m * p.ldx + k])) * r::weight<C>(p, k, n);
    sum += term;
    absolute += abs_d(term);
    squares = fma_d(term, term, squares);
  }
  const double rounded = 3 * r::weight_unit<C>() * sqrt_d(squares);
  if constexpr (C::epilogue_bias) {
    const double bias = to_float(p.bias[n]);
    sum += bias;
    absolute += abs_d(bias);
  }
  value = sum;
  magnitude = absolute + rounded / (4 * sqrt_d(double(p.k + 1)) * 0x1p-24);
}

// Projection y.x for random x in {-1, 1}^n: first k values t = Wd.x, then k values sum_n Wd[k, n]^2.
template <class C, class P>
KGEN_DEVICE void project_vector_y(const P& p, u64 seed, i64 i, double& out) {
  const i64 k = i % p.k;
  double sum = 0;
  for (i64 n = 0; n < p.n; ++n) {
    const double w = gptq_reference::weight<C>(p, k, n);
    sum = fma_d(i < p.k ? projection_sign(seed, n) : w, w, sum);
  }
  out = sum;
}

// The bound as in gemm_reference.h; the rounded weights add the root of the sum of their squares.
template <class C, class P>
KGEN_DEVICE void project_y(const P& p, u64 seed, const double* vector, i64 row, double& expected, double& bound) {
  double sum = 0, squares = 0;
  for (i64 k = 0; k < p.k; ++k) {
    const double x = to_float(p.x[row * p.ldx + k]);
    sum = fma_d(x, vector[k], sum);
    squares = fma_d(x * x, vector[p.k + k], squares);
  }
  double added = 0, added_squares = 0;
  if constexpr (C::epilogue_bias) {
    for (i64 n = 0; n < p.n; ++n) {
      const double bias = to_float(p.bias[n]);
      added = fma_d(projection_sign(seed, n), bias, added);
      added_squares = fma_d(bias, bias, added_squares);
    }
  }
  expected = sum + added;
  bound = (double(p.k) * 0x1p-24 + 3 * gptq_reference::weight_unit<C>()) * sqrt_d(squares) +
          8 * 0x1p-24 * sqrt_d(added_squares + squares) + 4 * 0x1p-24 * sqrt_d(double(p.n));
}

// ------------------------------------------------------------------------------------------------------- test data

template <class C, class P>
KGEN_DEVICE double init_qweight(const P&, u64 seed, i64 element) {
  return double(i32(u32(random_bits(seed, u64(element)) >> 32)));
}

// sym: every zero is the middle of the range. Else any bits; one word of four is all ones, where v1 means 2^bits.
template <class C, class P>
KGEN_DEVICE double init_qzeros(const P& p, u64 seed, i64 element) {
  u32 word = 0;
  if constexpr (C::sym) {
    const u32 stored = (1u << (C::bits - 1)) - (C::v2 ? 0u : 1u);
    for (int bit = 0; bit < 32; ++bit) {
      const i64 place = p.ldz > 0 ? (element % p.ldz * 32 + bit) % C::bits : 0;
      word |= (stored >> place & 1u) << bit;
    }
  } else {
    const u64 bits = random_bits(seed, u64(element));
    word = bits % 4 == 0 ? ~0u : u32(bits >> 32);
  }
  return double(i32(word));
}

// Positive normals of one size, no two neighbours alike.
template <class C, class P>
KGEN_DEVICE double init_scales(const P&, u64 seed, i64 element) {
  return random_value(seed, u64(element), int(Distribution::uniform), 0.004, 0.016);
}

// act-order: row k stands at a*k + b mod K in the order of the groups, a bijection, so that groups keep their size.
template <class C, class P>
KGEN_DEVICE double init_g_idx(const P& p, u64 seed, i64 element) {
  if constexpr (C::group_size <= 0) return 0;
  i64 factor = p.k * 5 / 8 | 1;
  for (;; factor += 2) {
    i64 a = factor, b = p.k;
    while (b != 0) {
      const i64 rest = a % b;
      a = b;
      b = rest;
    }
    if (a == 1) break;
  }
  const i64 place = (factor * element + i64(random_bits(seed, 0) % u64(p.k))) % p.k;
  return double(place / C::group_size);
}

}  // namespace kgen
