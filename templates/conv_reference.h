// Reference of conv2d (OPS.md b): one output element in double, taps outside the image 0. Shares nothing with the
// templates under test but prelude.h and the enumerators.
#pragma once
#include "conv_types.h"
#include "prelude.h"

namespace kgen {
namespace conv_reference {

template <class C>
KGEN_DEVICE double activate(double t) {
  if constexpr (C::epilogue_relu != 0) return t < 0 ? 0.0 : t;
  if constexpr (C::epilogue_gelu_erf != 0) return t / 2 * (1 + erf_d(t * 0.70710678118654752440));
  if constexpr (C::epilogue_gelu_tanh != 0)
    return t / 2 * (1 + tanh_d(0.79788456080286535588 * (t + 0.044715 * t * t * t)));
  if constexpr (C::epilogue_silu != 0) return t / (1 + exp_d(-t));
  if constexpr (C::epilogue_quick_gelu != 0) return t / (1 + exp_d(-1.702 * t));
  if constexpr (C::epilogue_sigmoid != 0) return 1 / (1 + exp_d(-t));
  return t;
}

template <class C>
inline constexpr int kActivation = C::epilogue_relu + C::epilogue_gelu_erf + C::epilogue_gelu_tanh + C::epilogue_silu +
                                   C::epilogue_quick_gelu + C::epilogue_sigmoid;

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

}  // namespace conv_reference

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
  double sum = 0, absolute = 0;
  for (i64 i = 0; i < p.r; ++i) {
    const i64 y = row * p.stride_h - p.pad_h + i * p.dil_h;
    if (y < 0 || y >= p.h) continue;
    for (i64 j = 0; j < p.s; ++j) {
      const i64 x = column * p.stride_w - p.pad_w + j * p.dil_w;
      if (x < 0 || x >= p.w) continue;
      const i64 c0 = group * group_channels;
      const auto* a =
          kNhwc ? p.x + ((image * p.h + y) * p.w + x) * p.ldx + c0 : p.x + image * p.ldx + (c0 * p.h + y) * p.w + x;
      const auto* b = kNhwc ? p.weight + ((channel * p.r + i) * p.s + j) * group_channels
                            : p.weight + (channel * group_channels * p.r + i) * p.s + j;
      const i64 a_stride = kNhwc ? 1 : p.h * p.w, b_stride = kNhwc ? 1 : p.r * p.s;
      for (i64 c = 0; c < group_channels; ++c) {
        const double term = double(to_float(a[c * a_stride])) * double(to_float(b[c * b_stride]));
        sum += term;
        absolute += abs_d(term);
      }
    }
  }
  double residual = 0;
  if constexpr (C::epilogue_add_residual != 0)
    residual = to_float(kNhwc ? p.residual[((image * p.p + row) * p.q + column) * p.ldr + channel]
                              : p.residual[image * p.ldr + (channel * p.p + row) * p.q + column]);
  conv_reference::finish<C>(p, channel, residual, sum, absolute);
  value = sum;
  magnitude = absolute;
}

}  // namespace kgen
