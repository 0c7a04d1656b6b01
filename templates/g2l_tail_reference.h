// Reference of g2l_tail (OPS.md b.2, steps 2 to 6): one output element in double from the stored operands, step by
// step.
#pragma once
#include "prelude.h"

namespace kgen {

// `magnitude` is what rounding errors scale with: errors of the product pass the activations with slopes of at most 1.1
// (silu) and the gate with v*sigmoid'(..)*silu'(..)*a, at most (1 + |a v|/4 * 1.1).
template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const auto silu = [](double t) { return t / (1 + exp_d(-t)); };
  const i64 co = element % p.c, pixel = element / p.c;
  double mixed = to_float(p.bm[co]), size = abs_d(mixed);
  for (i64 i = 0; i < 3; ++i) {
    const i64 cat = 3 * co + i, branch = cat / p.c, channel = cat % p.c;
    const auto* z = p.z + pixel * p.ldz + branch * p.c;
    const auto* w = p.wp + channel * p.ldp;
    double product = 0, terms = 0;
    for (i64 j = 0; j < p.c; ++j) {
      const double term = double(to_float(z[j])) * double(to_float(w[j]));
      product += term;
      terms += abs_d(term);
    }
    if constexpr (C::bias != 0) {
      product += to_float(p.bp[channel]);
      terms += abs_d(double(to_float(p.bp[channel])));
    }
    const double v = silu(product), a = p.gate_a[cat], b = p.gate_b[cat];
    const double gated = v * (1 / (1 + exp_d(-silu(a * v + b))));
    const double weight = to_float(p.wm[cat]);
    mixed += weight * gated;
    size += abs_d(weight) * (1.1 * terms * (1 + 0.3 * abs_d(a * v)) + abs_d(v) * (1 + abs_d(b)));
  }
  const double x = to_float(p.x[pixel * p.ldx + co]);
  value = x + silu(mixed);
  magnitude = abs_d(x) + 1.1 * size;
}

}  // namespace kgen
