// softmax in double, and logits that show its faults: large ones (exp overflows unless the maximum is subtracted), -inf
// among the others, rows of -inf alone, a NaN, an infinity; NaN between the rows.
#pragma once
#include "check.h"
#include "prelude.h"

namespace kgen {

// A row's kind goes by its number; a single row is of the first kind.
template <class C, class P>
KGEN_DEVICE double init_x(const P& p, u64 seed, i64 element) {
  const double infinity = bit_cast<double>(u64(0x7ff) << 52), nan = bit_cast<double>(u64(0x7ff8) << 48);
  const i64 row = element / p.ldx, column = element % p.ldx;
  if (column >= p.cols) return nan;
  const i64 planted = i64(random_bits(seed + 1, u64(row)) % u64(p.cols));
  switch (int(row % 7)) {
    case 0:
      return random_bits(seed + 2, u64(element)) % 8 == 0 && column != planted
                 ? -infinity
                 : random_value(seed, u64(element), 0, 150.0, 3.0);
    case 1:
      return random_value(seed, u64(element), 0, 0.0, 1.0);
    case 2:
      return -infinity;
    case 3:
      return random_value(seed, u64(element), 0, -200.0, 40.0);
    case 4:
      return column == planted ? nan : random_value(seed, u64(element), 0, 0.0, 1.0);
    case 5:
      return column == planted ? 3.0 : -infinity;
    default:
      return column == planted ? infinity : random_value(seed, u64(element), 0, 0.0, 1.0);
  }
}

template <class C, class P>
KGEN_DEVICE void reference_row_softmax(const P& p, i64 row, double* out) {
  const auto* x = p.x + row * p.ldx;
  double max = -infinity_d(), sum = 0;
  for (i64 column = 0; column < p.cols; ++column) {
    const double value = to_float(x[column]);
    if (value > max || is_nan(value)) max = value;
    if (is_nan(max)) break;
  }
  for (i64 column = 0; column < p.cols; ++column) {
    const double value = to_float(x[column]);
    if (value > -infinity_d() || is_nan(value)) sum += exp_d(value - max);
  }
  out[0] = max;
  out[1] = sum;
}

// `magnitude`: x - max is rounded to fp32 before exp, an error relative to |x - max|.
template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 row = element / p.cols, column = element % p.cols;
  const double max = p.row_softmax[2 * row], sum = p.row_softmax[2 * row + 1];
  const double x = to_float(p.x[row * p.ldx + column]);
  if (is_nan(sum)) {
    value = magnitude = sum;
  } else if (x > -infinity_d()) {
    value = exp_d(x - max) / sum;
    magnitude = value * (1 + abs_d(x - max));
  } else {
    value = magnitude = 0;
  }
}

}  // namespace kgen
