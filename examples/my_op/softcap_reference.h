// The naive kernel that softcap is checked against: one element, in double.
#pragma once
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const double x = to_float(p.x[element]);
  value = p.cap * tanh_d(x / p.cap);
  magnitude = abs_d(x);  // |y| never exceeds it
}

}  // namespace kgen
