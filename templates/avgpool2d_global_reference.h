// Reference of avgpool2d_global: the mean of a channel's pixels in double (0/0 is NaN where there is no pixel).
#pragma once
#include "pool2d_reference.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 n = element / p.c, c = element % p.c;
  double sum = 0, absolute = 0;
  for (i64 h = 0; h < p.h; ++h) {
    for (i64 w = 0; w < p.w; ++w) {
      const double v = pool_reference::pixel<C>(p, n, c, h, w);
      sum += v;
      absolute += abs_d(v);
    }
  }
  value = sum / double(p.h * p.w);
  magnitude = absolute / double(p.h * p.w);
}

}  // namespace kgen
