// Reference of conv2d (OPS.md b): one output element in double, taps outside the image 0. Shares nothing with the
// templates under test but prelude.h and the enumerators.
#pragma once
#include "conv_reference_taps.h"
#include "conv_types.h"
#include "prelude.h"

namespace kgen {

// Element of y in the order of its shape.
template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  constexpr bool kNhwc = C::layout == layout::nhwc;
  i64 channel, row, column;
  if constexpr (kNhwc) {
    channel = element % p.k;
    column = element / p.k % p.q;
    row = element / p.k / p.q % p.p;
  } else {
    column = element % p.q;
    row = element / p.q % p.p;
    channel = element / p.q / p.p % p.k;
  }
  const i64 image = element / p.k / p.q / p.p;
  const i64 group_channels = p.c / p.groups, group = channel / (p.k / p.groups);
  double sum, absolute;
  conv_reference::taps<C>(p, image, row * p.stride_h - p.pad_h, column * p.stride_w - p.pad_w, p.dil_h, p.dil_w,
                          group * group_channels, group_channels, channel, sum, absolute);
  double residual = 0;
  if constexpr (C::epilogue_add_residual != 0)
    residual = to_float(kNhwc ? p.residual[((image * p.p + row) * p.q + column) * p.ldr + channel]
                              : p.residual[image * p.ldr + (channel * p.p + row) * p.q + column]);
  conv_reference::finish<C>(p, channel, residual, sum, absolute);
  value = sum;
  magnitude = absolute;
}

}  // namespace kgen
