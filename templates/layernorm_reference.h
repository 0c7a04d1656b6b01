// layernorm in double: y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w + b.
#pragma once
#include "row_norm_reference.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE double init_x(const P& p, u64 seed, i64 element) {
  return row_norm_reference::row_value<C>(p, seed, element, p.ldx, kSame<typename C::dtype, float> ? 1e4 : 256.0);
}

// mean, root of the variance and eps, mean of |x - mean|
template <class C, class P>
KGEN_DEVICE void reference_row_moments(const P& p, i64 row, double* out) {
  const auto* x = p.x + row * p.ldx;
  double sum = 0, squares = 0, absolute = 0;
  for (i64 column = 0; column < p.cols; ++column) sum += double(to_float(x[column]));
  const double mean = sum / double(p.cols);
  for (i64 column = 0; column < p.cols; ++column) {
    const double d = double(to_float(x[column])) - mean;
    squares = fma_d(d, d, squares);
    absolute += abs_d(d);
  }
  out[0] = mean;
  out[1] = sqrt_d(squares / double(p.cols) + double(p.eps));
  out[2] = absolute / double(p.cols);
}

// `magnitude` leaves out |mean|: working on differences is what the operator asks for.
template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 row = element / p.cols, column = element % p.cols;
  const double* moments = p.row_moments + 3 * row;
  const double d = double(to_float(p.x[row * p.ldx + column])) - moments[0];
  const double weight = to_float(p.weight[column]), bias = to_float(p.bias[column]);
  value = d / moments[1] * weight + bias;
  magnitude = (abs_d(d) + moments[2]) / moments[1] * abs_d(weight) + abs_d(bias);
}

}  // namespace kgen
