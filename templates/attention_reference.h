// Reference of attention and decode_attention (OPS.md f) in double. A row is (batch, query head, query). Shares nothing
// with the templates under test but prelude.h.
//
// The probabilities of all rows are a stage where they fit into kStored doubles, so that an element of O costs one
// product a key; of larger problems, which are sampled, an element works out its row itself.
#pragma once
#include "check.h"
#include "prelude.h"

namespace kgen {
namespace attention_reference {

inline constexpr i64 kStored = i64(1) << 28;  // as in the YAML's stages

// One row: where it reads, and which keys it sees.
template <class T>
struct Row {
  const T *q, *k, *v;
  i64 ldk, ldv, keys;
  int d;
  double scale;

  // scale * q.k of key j; `terms`: the same of absolute values.
  KGEN_DEVICE double score(i64 j, double& terms) const {
    double sum = 0, absolute = 0;
    for (int c = 0; c < d; ++c) {
      const double product = double(to_float(q[c])) * double(to_float(k[j * ldk + c]));
      sum += product;
      absolute += abs_d(product);
    }
    terms = absolute * abs_d(scale);
    return sum * scale;
  }
};

template <class P>
KGEN_DEVICE double scale_of(const P& p, int d) {
  return p.scale == 0.0f ? 1.0 / sqrt_d(double(d)) : double(p.scale);
}

KGEN_DEVICE double minus_infinity() { return -infinity_d(); }
// A NaN stays.
KGEN_DEVICE double larger(double a, double b) { return a > b || is_nan(a) ? a : b; }

// out[j]: probability of key j, 0 where the row does not see it; out[width]: the most absolute terms of a score.
template <class T>
KGEN_DEVICE void probabilities(const Row<T>& row, i64 width, double* out) {
  double max = minus_infinity(), sum = 0, most = 0;
  for (i64 j = 0; j < width; ++j) {
    double terms = 0;
    out[j] = j < row.keys ? row.score(j, terms) : minus_infinity();
    max = larger(max, out[j]);
    most = larger(most, terms);
  }
  if (max == minus_infinity()) max = 0;
  for (i64 j = 0; j < width; ++j) {
    out[j] = exp_d(out[j] - max);
    sum += out[j];
  }
  for (i64 j = 0; j < width; ++j) out[j] = sum == 0 ? 0.0 : out[j] / sum;
  out[width] = most;
}

// Test data comes in the order of memory: where element `element` stands. Heads lie outside of rows ([b, h, s, d]) or
// inside ([b, s, h, d]).
struct Place {
  i64 batch, head, row, column;
};
KGEN_DEVICE Place place_of(i64 element, i64 batch_stride, i64 head_stride, i64 row_stride) {
  Place at;
  at.batch = batch_stride == 0 ? 0 : element / batch_stride;
  const i64 rest = batch_stride == 0 ? element : element % batch_stride;
  if (head_stride >= row_stride) {
    at.head = rest / head_stride;
    at.row = rest % head_stride / row_stride;
    at.column = rest % head_stride % row_stride;
  } else {
    at.head = rest % row_stride / head_stride;
    at.row = rest / row_stride;
    at.column = rest % row_stride % head_stride;
  }
  return at;
}
KGEN_DEVICE double nan_d() { return bit_cast<double>(u64(0x7ff8) << 48); }

// The magnitude that makes OPS.md 0.1's bound, with K = keys + d terms, that of rounding P as well:
//   4 sqrt(K) u_acc magnitude = 4 sqrt(K) u_acc S + 4 R
// S: sum p|v| for the second product, times 1 + 2 max_j scale*sum|q||k_j| because an error of a score, which has that
// many absolute terms, changes o by at most sum p |error| (|v| + |o|).
// R: P is rounded to the dtype before the second product. The errors, at most u p (or half the spacing of subnormals,
// relative to the row's largest P) each and independent, add up like the root of the sum of their squares times |v|;
// that has a standard deviation of R / sqrt(3), so 4 R is seven of them. fp32 is not rounded.
template <class T>
struct Sum {
  double value = 0, absolute = 0, squares = 0;
  double largest = 0;  // probability

  KGEN_DEVICE void add(double p, double v) {
    if (p == 0) return;  // a key that is not seen may be anything
    value += p * v;
    absolute += abs_d(p * v);
    const double u = kSame<T, bf16> ? 0x1p-8 : kSame<T, f16> ? 0x1p-11 : 0.0;
    const double error = (p * u + (kSame<T, f16> ? 0x1p-25 * largest : 0.0)) * v;
    squares += error * error;
  }
  KGEN_DEVICE double magnitude(double most_terms, i64 keys, int d) const {
    return absolute * (1 + 2 * most_terms) + sqrt_d(squares) / (sqrt_d(double(keys + d)) * 0x1p-24);
  }
};

// Column c of the row's O. `stored`: what probabilities() left, or null. `keys`: K of the bound is keys + d.
template <class T>
KGEN_DEVICE void element(const Row<T>& row, const double* stored, i64 width, i64 column, double& value,
                         double& magnitude) {
  Sum<T> sum;
  double most = 0;
  if (stored != nullptr) {
    for (i64 j = 0; j < row.keys; ++j) sum.largest = larger(sum.largest, stored[j]);
    for (i64 j = 0; j < row.keys; ++j) sum.add(stored[j], to_float(row.v[j * row.ldv + column]));
    most = stored[width];
  } else {
    double max = minus_infinity(), total = 0;
    for (i64 j = 0; j < row.keys; ++j) {
      double terms = 0;
      const double score = row.score(j, terms);
      most = larger(most, terms);
      if (score > max) {
        total *= exp_d(max - score);
        max = score;
      }
      total += exp_d(score - max);
    }
    sum.largest = total == 0 ? 0.0 : 1 / total;
    for (i64 j = 0; j < row.keys; ++j) {
      double terms = 0;
      sum.add(exp_d(row.score(j, terms) - max) / total, to_float(row.v[j * row.ldv + column]));
    }
  }
  value = sum.value;
  magnitude = sum.magnitude(most, width, row.d);
}

}  // namespace attention_reference
}  // namespace kgen
