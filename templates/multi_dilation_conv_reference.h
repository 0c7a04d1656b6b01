// Reference of multi_dilation_conv (OPS.md b.2): one output element in double; branch d of the concatenated channels
// has dilation dils(d) and is padded so that it keeps the image's size.
#pragma once
#include "conv_reference_taps.h"
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
  double sum, absolute;
  conv_reference::taps<C>(p, image, row - p.r / 2 * dilation, column - p.s / 2 * dilation, dilation, dilation, 0, p.c,
                          channel, sum, absolute);
  conv_reference::finish<C>(p, channel, 0.0, sum, absolute);
  value = sum;
  magnitude = absolute;
}

}  // namespace kgen
