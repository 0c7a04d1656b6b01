// add_rmsnorm in double: residual = round(x + residual), y = rmsnorm of the rounded sum.
#pragma once
#include "row_norm_reference.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE double init_x(const P& p, u64 seed, i64 element) {
  return row_norm_reference::row_value<C>(p, seed, element, p.ldx, 2.0);
}
template <class C, class P>
KGEN_DEVICE double init_residual(const P& p, u64 seed, i64 element) {
  return row_norm_reference::row_value<C>(p, seed, element, p.ldr, -1.0);
}

template <class C, class P>
KGEN_DEVICE void reference_row_root(const P& p, i64 row, double* out) {
  double squares = 0;
  for (i64 column = 0; column < p.cols; ++column) {
    const double sum = row_norm_reference::rounded_sum<C>(p, row, column);
    squares = fma_d(sum, sum, squares);
  }
  out[0] = sqrt_d(squares / double(p.cols) + double(p.eps));
}

template <class C, class P>
KGEN_DEVICE void reference_residual(const P& p, i64 element, double& value, double& magnitude) {
  value = row_norm_reference::rounded_sum<C>(p, element / p.cols, element % p.cols);
  magnitude = abs_d(value);
}

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 row = element / p.cols, column = element % p.cols;
  const double sum = row_norm_reference::rounded_sum<C>(p, row, column);
  value = sum / p.row_root[row] * double(to_float(p.weight[column]));
  magnitude = abs_d(value);
}

}  // namespace kgen
