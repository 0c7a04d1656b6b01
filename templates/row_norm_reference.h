// Reference of rmsnorm, add_rmsnorm and layernorm (OPS.md f) in double, and test data that shows their faults: rows
// with |mean| far above the deviation, rows of deviation sqrt(eps), constant rows, a NaN, an infinity; NaN between the
// rows.
#pragma once
#include "check.h"
#include "prelude.h"

namespace kgen {
namespace row_norm_reference {

KGEN_DEVICE double not_a_number() { return bit_cast<double>(u64(0x7ff8) << 48); }

// A row's kind goes by its number; a single row is of the first kind.
template <class C, class P>
KGEN_DEVICE double row_value(const P& p, u64 seed, i64 element, i64 ld, double far_mean) {
  const i64 row = element / ld, column = element % ld;
  if (column >= p.cols) return not_a_number();
  const double small = sqrt_d(p.eps > 1e-8f ? double(p.eps) : 1e-8);
  const i64 planted = i64(random_bits(seed + 1, u64(row)) % u64(p.cols));
  switch (int(row % 7)) {
    case 0:
      return random_value(seed, u64(element), 0, far_mean, 1.0);
    case 1:
      return random_value(seed, u64(element), 0, 0.0, small);
    case 2:
      return random_value(seed, u64(row), 0, 1.0, 3.0);
    case 3:
      return random_value(seed, u64(element), 0, 0.0, 1.0);
    case 4:
      return random_value(seed, u64(element), 0, 0.5, 40.0);
    case 5:
      return column == planted ? not_a_number() : random_value(seed, u64(element), 0, 0.0, 1.0);
    default:
      return column == planted ? infinity_d() : random_value(seed, u64(element), 0, 0.0, 1.0);
  }
}

// The sum that add_rmsnorm normalises: rounded to the residual's type.
template <class C, class P>
KGEN_DEVICE double rounded_sum(const P& p, i64 row, i64 column) {
  using T = typename C::dtype;
  const double sum = double(to_float(p.x[row * p.ldx + column])) + double(to_float(p.residual[row * p.ldr + column]));
  return double(to_float(from_float<T>(float(sum))));
}

}  // namespace row_norm_reference
}  // namespace kgen
