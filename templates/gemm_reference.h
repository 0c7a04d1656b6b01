// Reference of the gemm family (OPS.md a): one output element in double from the stored operands, and the Freivalds
// projection of the linear cases. Shares nothing with the templates under test but prelude.h.
//
// A work-item makes one element; consecutive ones have consecutive n, so a row of A is broadcast, "kn" B is coalesced
// and "nk" B is read by 16-byte vectors along k where the rows are aligned. 100 GMAC take about 0.1 s of double
// arithmetic on an H100.
#pragma once
#include "gemm_reference_epilogue.h"

namespace kgen {
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
  r::finish<C>(p, batch, row, column, t, s);
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
