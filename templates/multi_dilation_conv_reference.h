// Reference of multi_dilation_conv (OPS.md b.2): one output element in double; branch d of the concatenated channels has
// dilation dils(d) and is padded so that it keeps the image's size.
#pragma once
#include "conv_reference.h"
#include "conv_types.h"
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  constexpr bool kNhwc = C::layout == layout::nhwc;
  const i64 outputs = C::dils_count * p.k;
  i64 image, output, row, column;
  if constexpr (kNhwc) {
    output = element % outputs;
    column = element / outputs % p.w;
    row = element / outputs / p.w % p.h;
    image = element / outputs / p.w / p.h;
  } else {
    column = element % p.w;
    row = element / p.w % p.h;
    output = element / p.w / p.h % outputs;
    image = element / p.w / p.h / outputs;
  }
  const i64 channel = output % p.k, dilation = C::dils(int(output / p.k));
  double sum = 0, absolute = 0;
  for (i64 i = 0; i < p.r; ++i) {
    const i64 y = row + (i - p.r / 2) * dilation;
    if (y < 0 || y >= p.h) continue;
    for (i64 j = 0; j < p.s; ++j) {
      const i64 x = column + (j - p.s / 2) * dilation;
      if (x < 0 || x >= p.w) continue;
      for (i64 c = 0; c < p.c; ++c) {
        const double a = to_float(kNhwc ? p.x[((image * p.h + y) * p.w + x) * p.ldx + c]
                                        : p.x[image * p.ldx + (c * p.h + y) * p.w + x]);
        const double b = to_float(kNhwc ? p.weight[((channel * p.r + i) * p.s + j) * p.c + c]
                                        : p.weight[((channel * p.c + c) * p.r + i) * p.s + j]);
        sum = fma_d(a, b, sum);
        absolute = fma_d(abs_d(a), abs_d(b), absolute);
      }
    }
  }
  conv_reference::finish<C>(p, channel, 0.0, sum, absolute);
  value = sum;
  magnitude = absolute;
}

}  // namespace kgen
