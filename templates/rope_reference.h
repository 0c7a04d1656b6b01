// rope in double from the table given, and that table: cos and sin of position * base^(-2i/rotary_dim) in double,
// rounded once.
#pragma once
#include "check.h"
#include "prelude.h"
#include "rope_types.h"

namespace kgen {
namespace rope_reference {

// Natural logarithm of x >= 1: 2 atanh((m-1)/(m+1)) of the mantissa, within some 1e-15.
KGEN_DEVICE double log_d(double x) {
  int exponent = 0;
  while (x > 1.4142135623730951) {
    x *= 0.5;
    ++exponent;
  }
  const double t = (x - 1) / (x + 1), s = t * t;
  double sum = 0;
  for (int i = 39; i > 0; i -= 2) sum = fma_d(sum, s, 1.0 / i);
  return 2 * t * sum + exponent * 0.6931471805599453;
}

// sin(x + quarter*pi/2) for 0 <= x < 1e6: the nearest multiple of pi/2 is taken off in two parts, then Taylor.
KGEN_DEVICE double sin_quarters(double x, int quarter) {
  const i64 n = i64(x * 0.6366197723675814 + 0.5);
  const double r = fma_d(-double(n), 6.123233995736766e-17, fma_d(-double(n), 1.5707963267948966, x)), s = r * r;
  const int turn = int((n + quarter) & 3);
  double sum = 0;
  for (int i = 20; i >= 2; i -= 2) {  // of sin: x - x^3/(2*3) …, of cos: 1 - x^2/(1*2) …
    const double divisor = turn % 2 == 0 ? double(i) * (i + 1) : double(i - 1) * i;
    sum = -s / divisor * (1 + sum);
  }
  const double value = turn % 2 == 0 ? r * (1 + sum) : 1 + sum;
  return turn >= 2 ? -value : value;
}

template <class P>
KGEN_DEVICE double angle(const P& p, i64 element) {
  const i64 half = p.rotary_dim / 2, position = element / half, i = element % half;
  return double(position) * exp_d(-2.0 * double(i) / double(p.rotary_dim) * log_d(double(p.base)));
}

}  // namespace rope_reference

template <class C, class P>
KGEN_DEVICE double init_positions(const P& p, u64 seed, i64 element) {
  return double(random_bits(seed, u64(element)) % u64(p.max_position));
}
template <class C, class P>
KGEN_DEVICE double init_cos(const P& p, u64, i64 element) {
  return rope_reference::sin_quarters(rope_reference::angle(p, element), 1);
}
template <class C, class P>
KGEN_DEVICE double init_sin(const P& p, u64, i64 element) {
  return rope_reference::sin_quarters(rope_reference::angle(p, element), 0);
}

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 column = element % p.d, head = element / p.d % p.heads, token = element / p.d / p.heads;
  const auto* x = p.x + token * p.ldx + head * p.head_stride_x;
  const double own = to_float(x[column]);
  if (column >= p.rotary_dim) {
    value = own;
    magnitude = 0;
    return;
  }
  const i64 half = p.rotary_dim / 2;
  i64 pair, partner;
  bool second;
  if constexpr (C::style == style::neox) {
    pair = column % half;
    second = column >= half;
    partner = second ? column - half : column + half;
  } else {
    pair = column / 2;
    second = column % 2 != 0;
    partner = second ? column - 1 : column + 1;
  }
  const i64 at = i64(p.positions[token]) * half + pair;
  const double other = to_float(x[partner]), cosine = to_float(p.cos[at]), sine = to_float(p.sin[at]);
  value = own * cosine + (second ? other * sine : -other * sine);
  magnitude = abs_d(own * cosine) + abs_d(other * sine);
}

}  // namespace kgen
