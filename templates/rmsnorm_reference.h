// rmsnorm in double: y = x / sqrt(mean(x^2) + eps) * w.
#pragma once
#include "row_norm_reference.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE double init_x(const P& p, u64 seed, i64 element) {
  return row_norm_reference::row_value<C>(p, seed, element, p.ldx, 2.0);
}

template <class C, class P>
KGEN_DEVICE void reference_row_root(const P& p, i64 row, double* out) {
  double squares = 0;
  for (i64 column = 0; column < p.cols; ++column) {
    const double x = to_float(p.x[row * p.ldx + column]);
    squares = fma_d(x, x, squares);
  }
  out[0] = sqrt_d(squares / double(p.cols) + double(p.eps));
}

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 row = element / p.cols, column = element % p.cols;
  value = double(to_float(p.x[row * p.ldx + column])) / p.row_root[row] * double(to_float(p.weight[column]));
  magnitude = abs_d(value);
}

}  // namespace kgen
