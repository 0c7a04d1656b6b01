// Reference of the mHC operators (OPS.md e) in double, from the stored inputs. Shares nothing with the kernels but
// prelude.h, check.h and the enumerations.
//
// Acceptance is OPS.md e.6: absolute and relative limits from the YAML, so magnitudes are 0 but for one thing. Where a
// value is rounded in the middle (the streams of the fused form, layer_input before a norm that rounds first), fp32 and
// double may round a near-tie to different neighbours, and both are right. An element within kernel accuracy of a tie
// counts as uncertain by one step of its type; what such elements can change is carried on through first derivatives
// and allowed on top (slack). With terms = 1 a magnitude m allows m * 4 * 2^-24, which allow() undoes.
//
// Test data: OPS.md e.6; token 2 is all zeros; problems of 6 tokens get some logits beyond +-100.
#pragma once
#include "check.h"
#include "mhc_types.h"
#include "prelude.h"

namespace kgen {
namespace mhc_reference {

KGEN_DEVICE double allow(double slack) { return slack * 0x1p22; }

KGEN_DEVICE double sigmoid_d(double x) { return 1.0 / (1.0 + exp_d(-x)); }

// ---- test data

inline constexpr i64 kZeroToken = 2, kHugeTokens = 6;

KGEN_DEVICE double stream_value(u64 seed, i64 element, i64 token) {
  return token == kZeroToken ? 0.0 : random_value(seed, u64(element), 0, 0.0, 1.0);
}

KGEN_DEVICE double scale_value(i64 element) { return element == 0 ? 0.7 : element == 1 ? 1.1 : 1.3; }

// `tokens` of the problem.
KGEN_DEVICE double base_value(u64 seed, i64 element, i64 tokens) {
  const double huge = tokens != kHugeTokens ? 0.0 : element % 5 == 1 ? 120.0 : element % 5 == 3 ? -120.0 : 0.0;
  return huge + random_value(seed, u64(element), 0, 0.0, 1.0);
}

// ---- rounding in the middle

// Distance from a value to the next of T, for normal numbers.
template <class T>
KGEN_DEVICE double step_of(double x) {
  const i64 exponent = i64(bit_cast<u64>(abs_d(x)) >> 52) - (kSame<T, bf16> ? 7 : 10);
  return exponent > 0 ? bit_cast<double>(u64(exponent) << 52) : 0.0;
}

// x rounded to T; `slack` becomes one step where a value within `error` of x rounds elsewhere.
template <class T>
KGEN_DEVICE double round_to(double x, double error, double& slack) {
  const double rounded = to_float(from_float<T>(float(x)));
  const double low = to_float(from_float<T>(float(x - error))), high = to_float(from_float<T>(float(x + error)));
  slack = low != high ? (step_of<T>(x) > high - low ? step_of<T>(x) : high - low) : 0.0;
  return rounded;
}

// ---- streams

// Stream j of a token at h as mhc_post makes it, before rounding; magnitude: the sum of the absolute terms.
template <class C, class P>
KGEN_DEVICE double spread(const P& p, i64 token, int j, i64 h, double& magnitude) {
  constexpr int kN = int(C::n);
  const double first = double(p.post_mix[token * kN + j]) * to_float(p.x[token * p.ldx + h]);
  double sum = first;
  magnitude = abs_d(first);
  for (int i = 0; i < kN; ++i) {
    const double term =
        double(p.comb_mix[(token * kN + i) * kN + j]) * to_float(p.residual[token * p.ldr + i * p.h + h]);
    sum += term;
    magnitude += abs_d(term);
  }
  return sum;
}

// The streams that the pre part works on, and how uncertain an element is.
template <class C, bool kFused, class P>
KGEN_DEVICE double stream(const P& p, i64 token, int i, i64 h, double& slack) {
  slack = 0;
  if constexpr (kFused) {
    double magnitude;
    const double exact = spread<C>(p, token, i, h, magnitude);
    return round_to<typename C::dtype>(exact, double(C::n + 2) * 0x1p-24 * magnitude, slack);
  } else {
    return to_float(p.residual[token * p.ldr + i * p.h + h]);
  }
}

// ---- stages. A row of the totals is [value, slack]; column 0 the squares, then the raw mixes.

template <class C, bool kFused, class P>
KGEN_DEVICE void total(const P& p, i64 columns, i64 item, double* out) {
  const i64 token = item / columns, column = item % columns;
  double sum = 0, uncertain = 0;
  for (int i = 0; i < int(C::n); ++i) {
    for (i64 h = 0; h < p.h; ++h) {
      double slack;
      const double x = stream<C, kFused>(p, token, i, h, slack);
      const double factor = column == 0 ? x : double(p.fn[(column - 1) * C::n * p.h + i * p.h + h]);
      sum = fma_d(x, factor, sum);
      uncertain += slack * abs_d(factor) * (column == 0 ? 2.0 : 1.0);
    }
  }
  out[0] = sum;
  out[1] = uncertain;
}

// Logit of fn row `row`, and its slack.
template <class C, class P>
KGEN_DEVICE double logit(const P& p, const double* totals, int kind, int row, double& slack) {
  const double mean = totals[0] / (double(C::n) * double(p.h)) + p.rms_eps, inverse = 1.0 / sqrt_d(mean);
  const double mix = totals[2 * (1 + row)] * inverse;
  // d inverse / inverse = -d squares / (2 (squares + n h eps))
  const double relative = totals[1] == 0 ? 0.0 : totals[1] / (2.0 * double(C::n) * double(p.h) * mean);
  slack = abs_d(double(p.scale[kind])) * (totals[2 * (1 + row) + 1] * inverse + abs_d(mix) * relative);
  return mix * p.scale[kind] + p.base[row];
}

// Softmax over each row, + eps, columns; then repeat - 1 times rows, columns.
template <int kN>
KGEN_DEVICE void sinkhorn(double (&x)[kN][kN], int repeat, double eps) {
  for (int i = 0; i < kN; ++i) {
    double max = x[i][0], sum = 0;
    for (int j = 1; j < kN; ++j) max = x[i][j] > max ? x[i][j] : max;
    for (int j = 0; j < kN; ++j) sum += exp_d(x[i][j] - max);
    for (int j = 0; j < kN; ++j) x[i][j] = exp_d(x[i][j] - max) / sum + eps;
  }
  for (int round = 0; round < repeat || round == 0; ++round) {
    for (int i = 0; i < kN && round > 0; ++i) {
      double sum = eps;
      for (int j = 0; j < kN; ++j) sum += x[i][j];
      for (int j = 0; j < kN; ++j) x[i][j] /= sum;
    }
    for (int j = 0; j < kN; ++j) {
      double sum = eps;
      for (int i = 0; i < kN; ++i) sum += x[i][j];
      for (int i = 0; i < kN; ++i) x[i][j] /= sum;
    }
  }
}

// out: n gates, n post, n*n comb, then the slack of each.
template <class C, class P>
KGEN_DEVICE void coefficients(const P& p, const double* totals, double* out) {
  constexpr int kN = int(C::n), kCount = 2 * kN + kN * kN;
  double* slack = out + kCount;
  double uncertain;
  for (int i = 0; i < kN; ++i) {
    const double gate = sigmoid_d(logit<C>(p, totals, 0, i, uncertain));
    out[i] = gate + p.pre_eps;
    slack[i] = gate * (1 - gate) * uncertain;
    const double post = sigmoid_d(logit<C>(p, totals, 1, kN + i, uncertain));
    out[kN + i] = p.post_mult * post;
    slack[kN + i] = abs_d(p.post_mult) * post * (1 - post) * uncertain;
  }
  double matrix[kN][kN], most = 0;
  for (int i = 0; i < kN; ++i)
    for (int j = 0; j < kN; ++j) {
      matrix[i][j] = logit<C>(p, totals, 2, 2 * kN + i * kN + j, uncertain);
      most = uncertain > most ? uncertain : most;
    }
  sinkhorn<kN>(matrix, p.sinkhorn_repeat, p.sinkhorn_eps);
  // The result is diag(u) exp(L) diag(v) (but for eps); no entry's logarithm moves by more than a few times those of L.
  for (int i = 0; i < kN * kN; ++i) {
    out[2 * kN + i] = matrix[i / kN][i % kN];
    slack[2 * kN + i] = 4.0 * most * matrix[i / kN][i % kN];
  }
}

// sum_i gates[i] * stream i, and its slack.
template <class C, bool kFused, class P>
KGEN_DEVICE double collapse(const P& p, const double* gates, const double* gate_slacks, i64 token, i64 h,
                            double& slack) {
  double sum = 0;
  slack = 0;
  for (int i = 0; i < int(C::n); ++i) {
    double uncertain;
    const double x = stream<C, kFused>(p, token, i, h, uncertain);
    sum = fma_d(gates[i], x, sum);
    slack += abs_d(gates[i]) * uncertain + (gate_slacks ? gate_slacks[i] * abs_d(x) : 0.0);
  }
  return sum;
}

// layer_input as the norm sees it.
template <class C, bool kFused, class P>
KGEN_DEVICE double normed_input(const P& p, const double* mixes, i64 token, i64 h, double& slack) {
  constexpr int kCount = int(2 * C::n + C::n * C::n);
  const double* mine = mixes + token * 2 * kCount;
  const double exact = collapse<C, kFused>(p, mine, mine + kCount, token, h, slack);
  if constexpr (C::norm == norm::round_first) {
    double uncertain;
    const double rounded = round_to<typename C::dtype>(exact, 1e-5 + slack, uncertain);
    slack = uncertain;
    return rounded;
  }
  return exact;
}

template <class C, bool kFused, class P>
KGEN_DEVICE void norm_squares(const P& p, const double* mixes, i64 token, double* out) {
  double sum = 0, uncertain = 0;
  for (i64 h = 0; h < p.h; ++h) {
    double slack;
    const double x = normed_input<C, kFused>(p, mixes, token, h, slack);
    sum = fma_d(x, x, sum);
    uncertain += 2 * abs_d(x) * slack;
  }
  out[0] = sum;
  out[1] = uncertain;
}

template <class C, bool kFused, class P>
KGEN_DEVICE void layer_input(const P& p, const double* mixes, const double* squares, i64 element, double& value,
                             double& magnitude) {
  const i64 token = element / p.h, h = element % p.h;
  double slack;
  value = normed_input<C, kFused>(p, mixes, token, h, slack);
  if constexpr (C::norm != norm::none) {
    const double mean = squares[2 * token] / double(p.h) + p.norm_eps, inverse = 1.0 / sqrt_d(mean);
    const double factor = inverse * to_float(p.norm_weight[h]);
    slack = abs_d(factor) * slack + abs_d(value * factor) * squares[2 * token + 1] / (2.0 * double(p.h) * mean);
    // The sums' own 1e-5 of the limits grow with the norm.
    slack += 1e-5 * abs_d(factor);
    value *= factor;
  }
  magnitude = allow(slack);
}

// Post or comb (from `first` on, `count` a token).
template <class C>
KGEN_DEVICE void coefficient(const double* mixes, i64 element, int first, int count, double& value, double& magnitude) {
  constexpr int kCount = int(2 * C::n + C::n * C::n);
  const double* mine = mixes + element / count * 2 * kCount + first + element % count;
  value = mine[0];
  magnitude = allow(mine[kCount]);
}

}  // namespace mhc_reference

// ---- test data

template <class C, class P>
KGEN_DEVICE double init_residual(const P& p, u64 seed, i64 element) {
  return mhc_reference::stream_value(seed, element, element / p.ldr);
}
template <class C, class P>
KGEN_DEVICE double init_x(const P& p, u64 seed, i64 element) {
  return mhc_reference::stream_value(seed, element, element / p.ldx);
}
template <class C, class P>
KGEN_DEVICE double init_fn(const P& p, u64 seed, i64 element) {
  return random_value(seed, u64(element), 0, 0.0, 1.0) / sqrt_d(double(C::n) * double(p.h));
}
template <class C, class P>
KGEN_DEVICE double init_scale(const P&, u64, i64 element) {
  return mhc_reference::scale_value(element);
}
template <class C, class P>
KGEN_DEVICE double init_base(const P& p, u64 seed, i64 element) {
  return mhc_reference::base_value(seed, element, p.t);
}
// Columns sum to 1; the values above the diagonal are larger, so that a transpose shows.
template <class C, class P>
KGEN_DEVICE double init_comb_mix(const P&, u64 seed, i64 element) {
  constexpr int kN = int(C::n);
  const i64 matrix = element / (kN * kN) * (kN * kN);
  const int row = int(element - matrix) / kN, column = int(element - matrix) % kN;
  double own = 0, sum = 0;
  for (int i = 0; i < kN; ++i) {
    const double weight = random_value(seed, u64(matrix + i * kN + column), 1, 0.1, 1.0) * (i < column ? 3.0 : 1.0);
    sum += weight;
    if (i == row) own = weight;
  }
  return own / sum;
}

// ---- mhc_pre

template <class C, class P>
KGEN_DEVICE void reference_totals(const P& p, i64 item, double* out) {
  mhc_reference::total<C, false>(p, 1 + 2 * C::n + C::n * C::n, item, out);
}
template <class C, class P>
KGEN_DEVICE void reference_mixes(const P& p, i64 token, double* out) {
  mhc_reference::coefficients<C>(p, p.totals + token * 2 * (1 + 2 * C::n + C::n * C::n), out);
}
template <class C, class P>
KGEN_DEVICE void reference_squares(const P& p, i64 token, double* out) {
  mhc_reference::norm_squares<C, false>(p, p.mixes, token, out);
}
template <class C, class P>
KGEN_DEVICE void reference_post_mix(const P& p, i64 element, double& value, double& magnitude) {
  mhc_reference::coefficient<C>(p.mixes, element, int(C::n), int(C::n), value, magnitude);
}
template <class C, class P>
KGEN_DEVICE void reference_comb_mix(const P& p, i64 element, double& value, double& magnitude) {
  mhc_reference::coefficient<C>(p.mixes, element, int(2 * C::n), int(C::n * C::n), value, magnitude);
}

// ---- mhc_fused_post_pre

template <class C, class P>
KGEN_DEVICE void reference_new_totals(const P& p, i64 item, double* out) {
  mhc_reference::total<C, true>(p, 1 + 2 * C::n + C::n * C::n, item, out);
}
template <class C, class P>
KGEN_DEVICE void reference_new_mixes(const P& p, i64 token, double* out) {
  mhc_reference::coefficients<C>(p, p.new_totals + token * 2 * (1 + 2 * C::n + C::n * C::n), out);
}
template <class C, class P>
KGEN_DEVICE void reference_new_squares(const P& p, i64 token, double* out) {
  mhc_reference::norm_squares<C, true>(p, p.new_mixes, token, out);
}
template <class C, class P>
KGEN_DEVICE void reference_post_mix_out(const P& p, i64 element, double& value, double& magnitude) {
  mhc_reference::coefficient<C>(p.new_mixes, element, int(C::n), int(C::n), value, magnitude);
}
template <class C, class P>
KGEN_DEVICE void reference_comb_mix_out(const P& p, i64 element, double& value, double& magnitude) {
  mhc_reference::coefficient<C>(p.new_mixes, element, int(2 * C::n), int(C::n * C::n), value, magnitude);
}
// As mhc_post's output.
template <class C, class P>
KGEN_DEVICE void reference_residual_out(const P& p, i64 element, double& value, double& magnitude) {
  const i64 token = element / (C::n * p.h), rest = element % (C::n * p.h);
  value = mhc_reference::spread<C>(p, token, int(rest / p.h), rest % p.h, magnitude);
  magnitude = 0;
}

template <class C, class P>
KGEN_DEVICE void reference_layer_input(const P& p, i64 element, double& value, double& magnitude) {
  if constexpr (requires { p.new_mixes; })
    mhc_reference::layer_input<C, true>(p, p.new_mixes, p.new_squares, element, value, magnitude);
  else
    mhc_reference::layer_input<C, false>(p, p.mixes, p.squares, element, value, magnitude);
}

// ---- mhc_post

template <class C, class P>
KGEN_DEVICE void reference_streams(const P& p, i64 element, double& value, double& magnitude) {
  reference_residual_out<C>(p, element, value, magnitude);
}

// ---- hc_head

template <class C, class P>
KGEN_DEVICE void reference_gate_totals(const P& p, i64 item, double* out) {
  mhc_reference::total<C, false>(p, 1 + C::n, item, out);
}
template <class C, class P>
KGEN_DEVICE void reference_gates(const P& p, i64 token, double* out) {
  double slack;
  for (int i = 0; i < int(C::n); ++i)
    out[i] = mhc_reference::sigmoid_d(mhc_reference::logit<C>(p, p.gate_totals + token * 2 * (1 + C::n), 0, i, slack)) +
             p.pre_eps;
}
template <class C, class P>
KGEN_DEVICE void reference_collapsed(const P& p, i64 element, double& value, double& magnitude) {
  value = mhc_reference::collapse<C, false>(p, p.gates + element / p.h * C::n, nullptr, element / p.h, element % p.h,
                                            magnitude);
  magnitude = 0;
}

}  // namespace kgen
