// Reference of maxpool2d: the largest pixel of a window, NaN where the window has one, -inf where it has no pixel.
#pragma once
#include "check.h"
#include "pool2d_reference.h"

namespace kgen {

// Mostly negative, so that a padding of 0 shows; few NaN and infinities.
template <class C, class P>
KGEN_DEVICE double init_x(const P&, u64 seed, i64 element) {
  const u64 bits = random_bits(seed, u64(element));
  if (bits % 211 == 0) return bit_cast<double>(0x7ff8000000000000ull);
  if (bits % 199 == 0) return -infinity_d();
  return random_value(seed + 1, u64(element), 1, -8.0, bits % 61 == 0 ? 1.0 : -1.0);
}

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const bool nhwc = C::layout == layout::nhwc;
  const i64 c = nhwc ? element % p.c : element / (p.p * p.q) % p.c;
  const i64 pixel = nhwc ? element / p.c : element / (p.c * p.p * p.q) * (p.p * p.q) + element % (p.p * p.q);
  const i64 out_w = pixel % p.q, out_h = pixel / p.q % p.p, n = pixel / (p.q * p.p);
  value = -infinity_d();
  magnitude = 0;
  bool nan = false;
  for (i64 i = 0; i < p.r; ++i) {
    for (i64 j = 0; j < p.s; ++j) {
      const i64 h = out_h * p.stride - p.pad + i, w = out_w * p.stride - p.pad + j;
      if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
      const double tap = pool_reference::pixel<C>(p, n, c, h, w);
      if (tap != tap) nan = true;
      if (tap > value) value = tap;
    }
  }
  if (nan) value = bit_cast<double>(0x7ff8000000000000ull);
}

}  // namespace kgen
