// Reference of gemm_fp8: one output element in double from the stored operands and scales, the Freivalds projection of
// the linear cases, and test data. Shares nothing with the templates under test but prelude.h and the storage types,
// whose bits it reads itself.
//
// Beside the error of fp32 sums it grants what NVIDIA's units lose: they align the products of an instruction and the
// sum so far to the largest of them and keep some 13 bits behind its first one. Over 128 terms, after which plans add
// in fp32, that was measured as 1.3e-4 of the root of the sum of the squared terms (H100, random data), 1.3e-3 over
// 4096 terms: a random walk of cut places. Of 10^8 elements the worst of a kernel took 0.55 of kCut over 128 terms, of
// 10^7 three eighths of what fast_accum is granted.
#pragma once
#include "check.h"
#include "fp8.h"
#include "gemm_fp8_types.h"
#include "gemm_reference_epilogue.h"
#include "prelude.h"

namespace kgen {
namespace gemm_fp8_reference {

inline constexpr double kCut = 0x1p-9;
inline constexpr i64 kBlock = 128;  // terms and columns of a scale

template <int kMantissa>
KGEN_DEVICE float value(Fp8<kMantissa> x) {
  const u32 exponent = (x.bits & 0x7fu) >> kMantissa, mantissa = x.bits & ((1u << kMantissa) - 1);
  const u32 sign = (x.bits & 0x80u) << 24;
  if (kMantissa == 3 ? exponent == 15 && mantissa == 7 : exponent == 31)
    return bit_cast<float>(sign | 0x7f800000u | (kMantissa == 3 ? 1u : mantissa) << 20);
  const u32 bias = 128 - (1u << (6 - kMantissa));
  if (exponent == 0) {
    const float size = float(mantissa) * bit_cast<float>((bias + 1 - kMantissa) << 23);
    return sign ? -size : size;
  }
  return bit_cast<float>(sign | (exponent + bias) << 23 | mantissa << (23 - kMantissa));
}

// The operands, by the names that the epilogue's reference has for those of gemm: one product.
template <class P>
struct View : P {
  static constexpr i64 batch_stride_r = 0, batch_stride_o = 0;
};
template <class C>
struct Named : C {
  static constexpr int epilogue_add_c = 0;
};

template <class C, class P>
KGEN_DEVICE double scale_a(const P& p, i64 row, i64 term) {
  if constexpr (C::scales == scales::tensor)
    return double(p.scale_a[0]);
  else
    return double(p.scale_a[row * p.scale_a_row_stride + term / kBlock * p.scale_a_block_stride]);
}
template <class C, class P>
KGEN_DEVICE double scale_b(const P& p, i64 column, i64 term) {
  if constexpr (C::scales == scales::tensor)
    return double(p.scale_b[0]);
  else
    return double(p.scale_b[column / kBlock * p.scale_b_row_stride + term / kBlock]);
}

// What may be lost to the matrix unit, of the root of the sum of the squared terms.
template <class C, class P>
KGEN_DEVICE double cut(const P& p) {
  return C::fast_accum != 0 ? 4 * kCut * sqrt_d(double((p.k + kBlock - 1) / kBlock)) : kCut;
}

}  // namespace gemm_fp8_reference

template <class C, class P>
KGEN_DEVICE void reference_d(const P& p, i64 element, double& value, double& magnitude) {
  namespace r = gemm_fp8_reference;
  const i64 column = element % p.n, row = element / p.n;
  double sum = 0, absolute = 0, squares = 0;
  for (i64 from = 0; from < p.k; from += r::kBlock) {
    const i64 end = from + r::kBlock < p.k ? from + r::kBlock : p.k;
    const double scale = r::scale_a<C>(p, row, from) * r::scale_b<C>(p, column, from);
    double part = 0, part_absolute = 0, part_squares = 0;
    for (i64 k = from; k < end; ++k) {
      const double term = double(r::value(p.a[row * p.lda + k])) * double(r::value(p.b[column * p.ldb + k]));
      part += term;
      part_absolute += abs_d(term);
      part_squares = fma_d(term, term, part_squares);
    }
    sum = fma_d(scale, part, sum);
    absolute = fma_d(abs_d(scale), part_absolute, absolute);
    squares = fma_d(scale * scale, part_squares, squares);
  }
  absolute += r::cut<C>(p) * sqrt_d(squares) / (4 * sqrt_d(double(p.k + 1)) * 0x1p-24);
  gemm_reference::finish<r::Named<C>>(r::View<P>{p}, 0, row, column, sum, absolute);
  value = sum;
  magnitude = absolute;
}

// Projection of the linear cases: D.x for random x in {-1, 1}^n. First k values t = B.x, then k values of the sum over
// n of B[n, k]^2, both with B's scales.
template <class C, class P>
KGEN_DEVICE void project_vector_d(const P& p, u64 seed, i64 i, double& out) {
  namespace r = gemm_fp8_reference;
  const i64 term = i % p.k;
  double sum = 0;
  for (i64 column = 0; column < p.n; ++column) {
    const double b = r::scale_b<C>(p, column, term) * double(r::value(p.b[column * p.ldb + term]));
    sum = fma_d(i < p.k ? projection_sign(seed, column) : b, b, sum);
  }
  out = sum;
}

// The bound as in gemm_reference.h, with what the matrix unit may lose.
template <class C, class P>
KGEN_DEVICE void project_d(const P& p, u64 seed, const double* vector, i64 row, double& expected, double& bound) {
  namespace r = gemm_fp8_reference;
  double sum = 0, squares = 0;
  for (i64 k = 0; k < p.k; ++k) {
    const double a = r::scale_a<C>(p, row, k) * double(r::value(p.a[row * p.lda + k]));
    sum = fma_d(a, vector[k], sum);
    squares = fma_d(a * a, vector[p.k + k], squares);
  }
  double added = 0, added_squares = 0;
  if constexpr (C::epilogue_bias + C::epilogue_add_residual != 0) {
    const r::View<P> view{p};
    for (i64 column = 0; column < p.n; ++column) {
      double magnitude = 0;
      const double term = gemm_reference::addend<r::Named<C>>(view, 0, row, column, magnitude) +
                          gemm_reference::residual<r::Named<C>>(view, 0, row, column, magnitude);
      added = fma_d(projection_sign(seed, column), term, added);
      added_squares = fma_d(magnitude, magnitude, added_squares);
    }
  }
  expected = sum + added;
  bound = (double(p.k) * 0x1p-24 + r::cut<C>(p)) * sqrt_d(squares) + 8 * 0x1p-24 * sqrt_d(added_squares + squares) +
          4 * 0x1p-24 * sqrt_d(double(p.n));
}

// ------------------------------------------------------------------------------------------------------- test data

// Random numbers; every eighth line has one code alone, any finite one, among negative zeros, so that a wrong value of
// a code, or of a zero, is a wrong row of D; line 13 has the largest. has_nan: line 12 has a NaN.
template <int kMantissa>
KGEN_DEVICE double fp8_element(u64 seed, i64 line, i64 term, i64 k, bool has_nan) {
  const u64 bits = random_bits(seed ^ 0x5eed, u64(line));
  if (term >= k) return bit_cast<double>(0x7ff8000000000000ull);  // between the rows
  if (line % 8 == 5) {
    if (term != i64((bits >> 8) % u64(k))) return -0.0;
    Fp8<kMantissa> code;
    code.bits = u8(line == 13 ? (kMantissa == 3 ? 0x7e : 0x7b) : bits & 0xff);
    const double value = double(gemm_fp8_reference::value(code));
    return is_finite(value) ? value : 1.5;
  }
  if (has_nan && line == 12 && term == k / 2) return bit_cast<double>(0x7ff8000000000000ull);
  return random_value(seed, u64(line * k + term), int(Distribution::normal), 0, 1);
}

template <class T>
inline constexpr int kMantissaOf = kSame<T, fp8_e4m3> ? 3 : 2;

template <class C, class P>
KGEN_DEVICE double init_a(const P& p, u64 seed, i64 element) {
  return fp8_element<kMantissaOf<typename C::dtype>>(seed, element / p.lda, element % p.lda, p.k, true);
}
template <class C, class P>
KGEN_DEVICE double init_b(const P& p, u64 seed, i64 element) {
  return fp8_element<kMantissaOf<typename C::b_dtype>>(seed, element / p.ldb, element % p.ldb, p.k, false);
}

}  // namespace kgen
