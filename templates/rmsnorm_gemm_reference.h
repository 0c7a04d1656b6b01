// rmsnorm_gemm in double: every row of A divided by its root and weighed, then the sum of products and gemm's epilogue,
// or the activation times a second product.
#pragma once
#include "gemm_reference_epilogue.h"

namespace kgen {

// Rows by number: a mean beside 0, the deviation sqrt(eps) (where eps counts), a large one, a NaN among others; NaN in
// the gaps.
template <class C, class P>
KGEN_DEVICE double init_a(const P& p, u64 seed, i64 element) {
  const i64 batch = p.batch_stride_a > 0 ? element / p.batch_stride_a : 0, rest = element - batch * p.batch_stride_a;
  const i64 row = rest / p.lda, k = rest % p.lda;
  if (k >= p.k) return bit_cast<double>(0x7ff8000000000000ull);
  const double small = sqrt_d(p.eps > 1e-8f ? double(p.eps) : 1e-8);
  switch (int(row % 4)) {
    case 0:
      return random_value(seed, u64(element), int(Distribution::normal), 0.5, 1.0);
    case 1:
      return random_value(seed, u64(element), int(Distribution::normal), 0.0, small);
    case 2:
      return random_value(seed, u64(element), int(Distribution::normal), 0.0, 40.0);
    default:
      return k == i64(random_bits(seed + 1, u64(row)) % u64(p.k)) ? bit_cast<double>(0x7ff8000000000000ull)
                                                                  : random_value(seed, u64(element), 0, 0.0, 1.0);
  }
}

// sqrt(mean(a^2) + eps) of a row.
template <class C, class P>
KGEN_DEVICE void reference_row_root(const P& p, i64 item, double* out) {
  const auto* a = p.a + item / p.m * p.batch_stride_a + item % p.m * p.lda;
  double squares = 0;
  for (i64 k = 0; k < p.k; ++k) squares = fma_d(to_float(a[k]), to_float(a[k]), squares);
  out[0] = sqrt_d(squares / double(p.k) + double(p.eps));
}

template <class C, class P>
KGEN_DEVICE void reference_d(const P& p, i64 element, double& value, double& magnitude) {
  namespace r = gemm_reference;
  const i64 column = element % p.n, row = element / p.n % p.m, batch = element / p.n / p.m;
  const auto* a = p.a + batch * p.batch_stride_a + row * p.lda;
  const auto* b = p.b + batch * p.batch_stride_b + column * p.ldb;
  const double root = p.row_root[batch * p.m + row], alpha = double(p.alpha);
  double t = 0, s = 0;
  for (i64 k = 0; k < p.k; ++k) r::accumulate(to_float(a[k]) / root * to_float(p.norm[k]), to_float(b[k]), t, s);
  t *= alpha;
  s *= abs_d(alpha);
  r::finish<C>(p, batch, row, column, t, s);
  if constexpr (C::gated != 0) {
    const auto* up = b + p.n * p.ldb;
    double u = 0, su = 0;
    for (i64 k = 0; k < p.k; ++k) r::accumulate(to_float(a[k]) / root * to_float(p.norm[k]), to_float(up[k]), u, su);
    s = s * abs_d(alpha * u) + abs_d(t) * su * abs_d(alpha);
    t *= alpha * u;
  }
  value = t;
  magnitude = s;
}

}  // namespace kgen
