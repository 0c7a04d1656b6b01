// Reference of operators made by an expression: one element in double from the stored operands. Every value carries a
// magnitude, the sum of the absolute terms that went into it, through each operation. Shares nothing with the kernels
// but prelude.h and the expression itself.
#pragma once
#include "prelude.h"

namespace kgen {
namespace elementwise_reference {

struct Tracked {
  double value, magnitude;
  Tracked() = default;
  KGEN_DEVICE Tracked(double v) : value(v), magnitude(abs_d(v)) {}
  KGEN_DEVICE Tracked(double v, double m) : value(v), magnitude(m) {}
};

KGEN_DEVICE Tracked operator+(Tracked a, Tracked b) { return {a.value + b.value, a.magnitude + b.magnitude}; }
KGEN_DEVICE Tracked operator-(Tracked a, Tracked b) { return {a.value - b.value, a.magnitude + b.magnitude}; }
KGEN_DEVICE Tracked operator-(Tracked a) { return {-a.value, a.magnitude}; }
KGEN_DEVICE Tracked operator*(Tracked a, Tracked b) { return {a.value * b.value, a.magnitude * b.magnitude}; }
// d(a/b) = da/b - a db/b^2
KGEN_DEVICE Tracked operator/(Tracked a, Tracked b) {
  const double q = a.value / b.value;
  return {q, (a.magnitude + abs_d(q) * b.magnitude) / abs_d(b.value)};
}
KGEN_DEVICE bool operator<(Tracked a, Tracked b) { return a.value < b.value; }
KGEN_DEVICE bool operator<=(Tracked a, Tracked b) { return a.value <= b.value; }
KGEN_DEVICE bool operator>(Tracked a, Tracked b) { return a.value > b.value; }
KGEN_DEVICE bool operator>=(Tracked a, Tracked b) { return a.value >= b.value; }
KGEN_DEVICE bool operator==(Tracked a, Tracked b) { return a.value == b.value; }
KGEN_DEVICE bool operator!=(Tracked a, Tracked b) { return a.value != b.value; }

// f(x) with its slope there: an error of x arrives times the slope.
KGEN_DEVICE Tracked with_slope(Tracked x, double y, double slope) { return {y, abs_d(y) + abs_d(slope) * x.magnitude}; }

struct Functions {
  KGEN_DEVICE static Tracked relu(Tracked x) { return {x.value < 0 ? 0.0 : x.value, x.magnitude}; }
  KGEN_DEVICE static Tracked gelu_erf(Tracked x) {
    return with_slope(x, x.value / 2 * (1 + erf_d(x.value * 0.70710678118654752440)), 1.2);
  }
  KGEN_DEVICE static Tracked gelu_tanh(Tracked x) {
    const double t = x.value;
    return with_slope(x, t / 2 * (1 + tanh_d(0.79788456080286535588 * (t + 0.044715 * t * t * t))), 1.2);
  }
  KGEN_DEVICE static Tracked silu(Tracked x) { return with_slope(x, x.value / (1 + exp_d(-x.value)), 1.1); }
  KGEN_DEVICE static Tracked quick_gelu(Tracked x) {
    return with_slope(x, x.value / (1 + exp_d(-1.702 * x.value)), 1.1);
  }
  KGEN_DEVICE static Tracked sigmoid(Tracked x) {
    const double y = 1 / (1 + exp_d(-x.value));
    return with_slope(x, y, y * (1 - y));
  }
  KGEN_DEVICE static Tracked exp(Tracked x) {
    const double y = exp_d(x.value);
    return with_slope(x, y, y);
  }
  KGEN_DEVICE static Tracked sqrt(Tracked x) {
    const double y = sqrt_d(x.value);
    return y > 0 ? with_slope(x, y, 0.5 / y) : Tracked(y, sqrt_d(x.magnitude));
  }
  KGEN_DEVICE static Tracked rsqrt(Tracked x) {
    const double y = 1 / sqrt_d(x.value);
    return with_slope(x, y, 0.5 * y / x.value);
  }
  KGEN_DEVICE static Tracked abs(Tracked x) { return {abs_d(x.value), x.magnitude}; }
  KGEN_DEVICE static Tracked tanh(Tracked x) {
    const double y = tanh_d(x.value);
    return with_slope(x, y, 1 - y * y);
  }
  KGEN_DEVICE static Tracked erf(Tracked x) {
    return with_slope(x, erf_d(x.value), 1.1283791670955126 * exp_d(-x.value * x.value));
  }
  // NaN wins; an error of either side may arrive.
  KGEN_DEVICE static Tracked min(Tracked a, Tracked b) {
    const bool second = b.value < a.value || b.value != b.value;
    return {second ? b.value : a.value, a.magnitude > b.magnitude ? a.magnitude : b.magnitude};
  }
  KGEN_DEVICE static Tracked max(Tracked a, Tracked b) {
    const bool second = b.value > a.value || b.value != b.value;
    return {second ? b.value : a.value, a.magnitude > b.magnitude ? a.magnitude : b.magnitude};
  }
};

template <class C, int I = 0, class P>
KGEN_DEVICE void load_matrices(const P& p, i64 r, i64 c, Tracked* values) {
  if constexpr (I < C::expr_matrix) {
    values[I] = Tracked(to_float(C::template matrix<I>(p)[r * C::template ld_matrix<I>(p) + c]));
    load_matrices<C, I + 1>(p, r, c, values);
  }
}
template <class C, int I = 0, class P>
KGEN_DEVICE void load_cols(const P& p, i64 c, Tracked* values) {
  if constexpr (I < C::expr_col) {
    values[I] = Tracked(to_float(C::template col<I>(p)[c]));
    load_cols<C, I + 1>(p, c, values);
  }
}
template <class C, int I = 0, class P>
KGEN_DEVICE void load_rows(const P& p, i64 r, Tracked* values) {
  if constexpr (I < C::expr_row) {
    values[I] = Tracked(to_float(C::template row<I>(p)[r]));
    load_rows<C, I + 1>(p, r, values);
  }
}
template <class C, int I = 0, class P>
KGEN_DEVICE void load_scalars(const P& p, Tracked* values) {
  if constexpr (I < C::expr_scalar) {
    values[I] = Tracked(C::template scalar<I>(p));
    load_scalars<C, I + 1>(p, values);
  }
}

}  // namespace elementwise_reference

// Element of output I.
template <class C, int I, class P>
KGEN_DEVICE void reference_output(const P& p, i64 element, double& value, double& magnitude) {
  namespace detail = elementwise_reference;
  const i64 r = element / p.cols, c = element % p.cols;
  detail::Tracked matrix[C::expr_matrix + 1], col[C::expr_col + 1], row[C::expr_row + 1], scalar[C::expr_scalar + 1],
      output[C::expr_output];
  detail::load_matrices<C>(p, r, c, matrix);
  detail::load_cols<C>(p, c, col);
  detail::load_rows<C>(p, r, row);
  detail::load_scalars<C>(p, scalar);
  C::template expr<detail::Functions>(matrix, col, row, scalar, output);
  value = output[I].value;
  magnitude = output[I].magnitude;
}

}  // namespace kgen
