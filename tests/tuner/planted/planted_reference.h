#pragma once
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  value = magnitude = 0;
  for (i64 j = 0; j < p.terms; ++j) {
    const double term = double(to_float(p.x[element * p.ldx + j])) * double(to_float(p.w[j]));
    value += term;
    magnitude += term < 0 ? -term : term;
  }
}

}  // namespace kgen
