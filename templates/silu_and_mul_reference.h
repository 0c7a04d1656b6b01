// silu(left half) * right half in double; some of the left values are so large that exp overflows.
#pragma once
#include "check.h"
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE double init_x(const P& p, u64 seed, i64 element) {
  const i64 column = element % p.ldx;
  if (column >= 2 * p.cols) return bit_cast<double>(u64(0x7ff8) << 48);
  if (column < p.cols && random_bits(seed + 1, u64(element)) % 16 == 0)
    return random_value(seed, u64(element), 1, -1e4, 1e4);
  return random_value(seed, u64(element), 0, 0.0, column < p.cols ? 3.0 : 1.0);
}

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 row = element / p.cols, column = element % p.cols;
  const double gate = to_float(p.x[row * p.ldx + column]), up = to_float(p.x[row * p.ldx + p.cols + column]);
  value = gate / (1 + exp_d(-gate)) * up;
  magnitude = abs_d(value);
}

}  // namespace kgen
