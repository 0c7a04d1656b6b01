// Reference of the gemm family (OPS.md a): one output element in double from the stored operands, and the Freivalds
// projection of the linear cases. Shares nothing with the templates under test but prelude.h.
//
// A work-item makes one element; consecutive ones have consecutive n, so a row of A is broadcast, "kn" B is coalesced
// and "nk" B is read by 16-byte vectors along k where the rows are aligned. 100 GMAC take about 0.1 s of double
// arithmetic on an H100.
#pragma once
#include "activation_reference.h"
#include "check.h"
#include "gemm_types.h"
#include "prelude.h"

namespace kgen {
namespace gemm_reference {

KGEN_DEVICE void accumulate(double a, double b, double& sum, double& magnitude) {
  sum = fma_d(a, b, sum);
  magnitude = fma_d(abs_d(a), abs_d(b), magnitude);
}

// sum += sum_i a[i] b[i*b_stride], magnitude += the same of absolute values.
template <class T>
KGEN_DEVICE void dot(const T* a, const T* b, i64 b_stride, i64 count, double& sum, double& magnitude) {
  constexpr int kWidth = 16 / int(sizeof(T));
  i64 i = 0;
  if (b_stride == 1 && (reinterpret_cast<u64>(a) | reinterpret_cast<u64>(b)) % 16 == 0) {
    for (; i + kWidth <= count; i += kWidth) {
      const Vec<T, kWidth> va = load_vec<T, kWidth>(a + i), vb = load_vec<T, kWidth>(b + i);
      KGEN_UNROLL
      for (int j = 0; j < kWidth; ++j) accumulate(to_float(va[j]), to_float(vb[j]), sum, magnitude);
    }
  }
  for (; i + 4 <= count; i += 4) {
    KGEN_UNROLL
    for (int j = 0; j < 4; ++j) accumulate(to_float(a[i + j]), to_float(b[(i + j) * b_stride]), sum, magnitude);
  }
  for (; i < count; ++i) accumulate(to_float(a[i]), to_float(b[i * b_stride]), sum, magnitude);
}

// What is added to alpha*(A.B) in column n of a row, apart from the residual.
template <class C, class P>
KGEN_DEVICE double addend(const P& p, i64 batch, i64 row, i64 column, double& magnitude) {
  double sum = 0;
  if constexpr (C::epilogue_add_c != 0) {
    if (p.beta != 0) {
      const double term = double(p.beta) * to_float(p.c[batch * p.batch_stride_c + row * p.ldc + column]);
      sum += term;
      magnitude += abs_d(term);
    }
  }
  if constexpr (C::epilogue_bias != 0) {
    const double term = to_float(p.bias[column]);
    sum += term;
    magnitude += abs_d(term);
  }
  return sum;
}

template <class C, class P>
KGEN_DEVICE double residual(const P& p, i64 batch, i64 row, i64 column, double& magnitude) {
  if constexpr (C::epilogue_add_residual != 0) {
    const double term = to_float(p.residual[batch * p.batch_stride_r + row * p.ldr + column]);
    magnitude += abs_d(term);
    return term;
  }
  return 0;
}

}  // namespace gemm_reference

// Element of D in the order [batch, m, n]. `magnitude` is |alpha| sum |a||b| plus the magnitudes of what the epilogue
// adds, where an activation's result counts as a term (its own rounding is relative to it), times |gate|.
template <class C, class P>
KGEN_DEVICE void reference_d(const P& p, i64 element, double& value, double& magnitude) {
  namespace r = gemm_reference;
  const i64 column = element % p.n, row = element / p.n % p.m, batch = element / p.n / p.m;
  const auto* a = p.a + batch * p.batch_stride_a + row * p.lda;
  const auto* b = p.b + batch * p.batch_stride_b;
  double t = 0, s = 0;
  if constexpr (C::b_layout == b_layout::nk)
    r::dot(a, b + column * p.ldb, 1, p.k, t, s);
  else
    r::dot(a, b + column, p.ldb, p.k, t, s);
  t *= double(p.alpha);
  s *= abs_d(double(p.alpha));
  t += r::addend<C>(p, batch, row, column, s);
  const double residual = r::residual<C>(p, batch, row, column, s);
  constexpr bool kResidualFirst =
      C::epilogue_add_residual != 0 && C::epilogue_add_residual < activation_reference::kActivation<C>;
  if constexpr (kResidualFirst) t += residual;
  if constexpr (activation_reference::kActivation<C> != 0) {
    t = activation_reference::activate<C>(t);
    s += abs_d(t);
  }
  if constexpr (!kResidualFirst) t += residual;
  if constexpr (C::epilogue_mul_other != 0) {
    const double gate = to_float(p.other[batch * p.batch_stride_o + row * p.ldo + column]);
    t *= gate;
    s *= abs_d(gate);
  }
  value = t;
  magnitude = s;
}

// Projection of the linear cases (no activation, no gate): D.x for random x in {-1, 1}^n.
//
// vector: for each batch, k values t = B.x, then k values w[k] = sum_n B[k,n]^2.
template <class C, class P>
KGEN_DEVICE void project_vector_d(const P& p, u64 seed, i64 i, double& out) {
  constexpr int kFlight = 8;  // independent loads
  const i64 batch = i / (2 * p.k), term = i % p.k;
  const bool squares = i / p.k % 2 != 0;
  const bool nk = C::b_layout == b_layout::nk;
  const i64 stride = nk ? p.ldb : 1;
  const auto* b = p.b + batch * p.batch_stride_b + term * (nk ? 1 : p.ldb);
  double sum = 0;
  for (i64 column = 0; column < p.n; column += kFlight) {
    float x[kFlight];
    KGEN_UNROLL
    for (int j = 0; j < kFlight; ++j) x[j] = column + j < p.n ? to_float(b[(column + j) * stride]) : 0.0f;
    KGEN_UNROLL
    for (int j = 0; j < kFlight; ++j)
      sum = fma_d(squares ? double(x[j]) : projection_sign(seed, column + j), x[j], sum);
  }
  out = sum;
}

// C where beta is 0 must not be read: it holds NaN then.
template <class C, class P>
KGEN_DEVICE double init_c(const P& p, u64 seed, i64 element) {
  if (p.beta == 0.0f) return bit_cast<double>(0x7ff8000000000000ull);
  return random_value(seed, u64(element), int(Distribution::normal), 0, 1);
}

// `bound` is what right accumulation may add to the projection's error; the output's rounding is added by
// check_projection. Errors of one row's elements are independent, so their sum with random signs grows like the root of
// the sum of squares.
//   fp32: each below sqrt(K) u S with S^2 <= K sum_k a^2 b^2 (Cauchy), for any data; summed over the row: K u
//   sqrt(sum_k a^2 w). fp16: u (partial sum) / sqrt(3) a step, partial sums growing like a random walk (data of zero
//   mean): u K sigma^2 / sqrt(6) an element; taken 6 times, 2.5 u sqrt(K) sqrt(sum_k a^2 w).
template <class C, class P>
KGEN_DEVICE void project_d(const P& p, u64 seed, const double* vector, i64 row, double& expected, double& bound) {
  namespace r = gemm_reference;
  const i64 batch = row / p.m, m = row % p.m;
  const auto* a = p.a + batch * p.batch_stride_a + m * p.lda;
  const double* t = vector + batch * 2 * p.k;
  const double* w = t + p.k;
  double sum = 0, squares = 0;
  for (i64 k = 0; k < p.k; ++k) {
    const double x = to_float(a[k]);
    sum = fma_d(x, t[k], sum);
    squares = fma_d(x * x, w[k], squares);
  }
  double added = 0, added_squares = 0;
  if constexpr (C::epilogue_add_c + C::epilogue_bias + C::epilogue_add_residual != 0) {
    for (i64 column = 0; column < p.n; ++column) {
      double magnitude = 0;
      const double term = r::addend<C>(p, batch, m, column, magnitude) + r::residual<C>(p, batch, m, column, magnitude);
      added = fma_d(projection_sign(seed, column), term, added);
      added_squares = fma_d(magnitude, magnitude, added_squares);
    }
  }
  const double alpha = double(p.alpha), terms = double(p.k);
  const bool half = kSame<typename C::accumulate, f16>;
  const double accumulation = half ? 2.5 * 0x1p-11 * sqrt_d(terms) : terms * 0x1p-24;
  expected = fma_d(alpha, sum, added);
  bound = accumulation * abs_d(alpha) * sqrt_d(squares) +
          8 * 0x1p-24 * sqrt_d(added_squares + alpha * alpha * squares) +
          4 * 0x1p-24 * sqrt_d(double(p.n));  // stored subnormals
}

}  // namespace kgen
