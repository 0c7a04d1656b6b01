// What the references of convolutions share: the sum over taps of one output element in double, and the epilogue.
// Shares nothing with the templates under test but prelude.h and the enumerators.
#pragma once
#include "activation_reference.h"
#include "conv_types.h"
#include "prelude.h"

namespace kgen {
namespace conv_reference {

using activation_reference::activate;
using activation_reference::kActivation;

// What the epilogue makes of the sum `t`, whose absolute terms add up to `magnitude`.
template <class C, class P>
KGEN_DEVICE void finish(const P& p, i64 channel, double residual, double& t, double& magnitude) {
  if constexpr (C::epilogue_bias != 0) {
    const double bias = to_float(p.bias[channel]);
    t += bias;
    magnitude += abs_d(bias);
  }
  if constexpr (C::epilogue_scale_shift != 0) {
    const double scale = p.scale[channel], shift = p.shift[channel];
    t = t * scale + shift;
    magnitude = magnitude * abs_d(scale) + abs_d(shift);
  }
  magnitude += abs_d(residual);
  constexpr bool kResidualFirst = C::epilogue_add_residual != 0 && C::epilogue_add_residual < kActivation<C>;
  if constexpr (kResidualFirst) t += residual;
  if constexpr (kActivation<C> != 0) {
    t = activate<C>(t);
    magnitude += abs_d(t);  // an activation's own rounding is relative to its result
  }
  if constexpr (!kResidualFirst) t += residual;
}

// One output element: taps from (top, left) on, `down` and `right` apart, those outside the image being 0. The inputs
// are `channels` channels from `first` on, the weights those of filter `filter`.
template <class C, class P>
KGEN_DEVICE void taps(const P& p, i64 image, i64 top, i64 left, i64 down, i64 right, i64 first, i64 channels,
                      i64 filter, double& sum, double& magnitude) {
  constexpr bool kNhwc = C::layout == layout::nhwc;
  sum = magnitude = 0;
  for (i64 i = 0; i < p.r; ++i) {
    const i64 y = top + i * down;
    if (y < 0 || y >= p.h) continue;
    for (i64 j = 0; j < p.s; ++j) {
      const i64 x = left + j * right;
      if (x < 0 || x >= p.w) continue;
      for (i64 c = 0; c < channels; ++c) {
        const double a = to_float(kNhwc ? p.x[((image * p.h + y) * p.w + x) * p.ldx + first + c]
                                        : p.x[image * p.ldx + ((first + c) * p.h + y) * p.w + x]);
        const double b = to_float(kNhwc ? p.weight[((filter * p.r + i) * p.s + j) * channels + c]
                                        : p.weight[((filter * channels + c) * p.r + i) * p.s + j]);
        sum = fma_d(a, b, sum);
        magnitude = fma_d(abs_d(a), abs_d(b), magnitude);
      }
    }
  }
}

}  // namespace conv_reference
}  // namespace kgen
