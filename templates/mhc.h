// Manifold-constrained hyper-connections: mhc_pre, mhc_post, mhc_fused_post_pre, hc_head.
//
// A token has n streams of h elements. A mix is one fn row's product with the token's n*h elements; the totals of a
// token are 1 + rows numbers: the sum of squares, then the raw mixes (n pre, n post, n*n comb; hc_head: n gates).
//
//   project      streams ──▶ partial [part][token][1 + rows]     blocks: parts of h x groups of `tokens` tokens
//                (fused: makes the streams, stores them)
//   finish       partial ──▶ post, comb                          blocks 0 …: coefficient_tokens tokens each
//                        ──▶ layer_input                         the others: a chunk of one token's h
//   one_pass     both, a block a group of tokens, no partials
//
//   project, a block:       units (stream, vector of h) →
//     wave  row group 0   │ lane 0  lane 1 … │ wave + row_groups … │   a lane: `tokens` x (1 + rows/row_groups) sums
//     wave  row group 1   │ lane 0  lane 1 … │                     │   and one vector of fn for each row
//
// Lanes are summed by shuffles, waves through LDS in order, parts by finish in order: the same bits on every run.
// Legality: h is a multiple of vec, and so are the strides of tokens.
#pragma once
#include "columns.h"
#include "epilogue.h"
#include "mhc_types.h"
#include "prelude.h"
#include "reduce.h"

namespace kgen {
namespace mhc {

// Term 0, 1 or 2 of a number as a sum of bf16.
KGEN_DEVICE bf16 split_term(float value, int term) {
  const float high = to_float(from_float<bf16>(value)), rest = high - high == 0.0f ? value - high : 0.0f;
  const float middle = to_float(from_float<bf16>(rest));
  return from_float<bf16>(term == 0 ? high : term == 1 ? middle : rest - middle);
}

template <int N>
KGEN_DEVICE void load_floats(const float* p, float (&v)[N]) {
  constexpr int kWidth = N < 4 ? N : 4;
  KGEN_UNROLL
  for (int i = 0; i < N; i += kWidth) {
    const Vec<float, kWidth> part = load_vec<float, kWidth>(p + i);
    KGEN_UNROLL
    for (int e = 0; e < kWidth; ++e) v[i + e] = part[e];
  }
}

// Stream j after mhc_post, before it is rounded; comb is [source][destination].
template <int kN>
KGEN_DEVICE float spread(const float* post, const float* comb, int j, float x, const float (&stream)[kN]) {
  float sum = post[j] * x;
  KGEN_UNROLL
  for (int i = 0; i < kN; ++i) sum = fma_f(comb[i * kN + j], stream[i], sum);
  return sum;
}

// All streams of a token at the elements of one vector, as they are in memory.
template <class C, class P, int kVec>
struct Column {
  using T = typename C::dtype;
  static constexpr int kN = int(C::n);
  Packed<T, kVec> x, stream[kN];

  KGEN_DEVICE void load(const P& p, i64 token, i64 h) {
    x = Packed<T, kVec>::load(p.x + token * p.ldx + h);
    KGEN_UNROLL
    for (int i = 0; i < kN; ++i) stream[i] = Packed<T, kVec>::load(p.residual + token * p.ldr + i * p.h + h);
  }
  KGEN_DEVICE Packed<T, kVec> spread_to(int j, const float* post, const float* comb) const {
    Packed<T, kVec> out = {};
    KGEN_UNROLL
    for (int e = 0; e < kVec; ++e) {
      float sources[kN];
      KGEN_UNROLL
      for (int i = 0; i < kN; ++i) sources[i] = stream[i][e];
      out.set(e, spread<kN>(post, comb, j, x[e], sources));
    }
    return out;
  }
};

// ------------------------------------------------------------------------------------------- where streams come from

// From memory.
template <class C, class P>
struct StoredStreams {
  using T = typename C::dtype;
  static constexpr bool kSpreads = false;
  const P& p;

  KGEN_DEVICE StoredStreams(const P& params, i64, float*) : p(params) {}
  // Streams first … first + kStreams - 1 of a token.
  template <int kStreams>
  KGEN_DEVICE void load(i64 token, int, int first, i64 h, bool, Packed<T, C::vec> (&out)[kStreams]) const {
    KGEN_UNROLL
    for (int s = 0; s < kStreams; ++s)
      out[s] = Packed<T, C::vec>::load(p.residual + token * p.ldr + (first + s) * p.h + h);
  }
};

// Made by mhc_post, rounded as they are stored.
template <class C, class P>
struct SpreadStreams {
  using T = typename C::dtype;
  static constexpr bool kSpreads = true;
  static constexpr int kN = int(C::n), kMixes = kN + kN * kN;  // of a token: post, comb
  const P& p;
  const float* mixes;  // LDS [tokens][kMixes]

  KGEN_DEVICE SpreadStreams(const P& params, i64 token0, float* lds_mixes) : p(params), mixes(lds_mixes) {
    for (int i = thread_x(); i < C::tokens * kMixes; i += C::threads) {
      const i64 token = token0 + i / kMixes < p.t ? token0 + i / kMixes : p.t - 1;
      const int mix = i % kMixes;
      lds_mixes[i] = mix < kN ? p.post_mix[token * kN + mix] : p.comb_mix[token * kN * kN + mix - kN];
    }
    sync_lds();
  }
  // `slot`: the token's number within the block.
  template <int kStreams>
  KGEN_DEVICE void load(i64 token, int slot, int first, i64 h, bool store, Packed<T, C::vec> (&out)[kStreams]) const {
    Column<C, P, C::vec> column;
    column.load(p, token, h);
    const float* post = mixes + slot * kMixes;
    KGEN_UNROLL
    for (int s = 0; s < kStreams; ++s) {
      out[s] = column.spread_to(first + s, post, post + kN);
      if (store) out[s].store(p.residual_out + (token * kN + first + s) * p.h + h);
    }
  }
};

// ------------------------------------------------------------------------------------------------------ projection

template <class C>
struct Projection {
  static constexpr int kN = int(C::n), kColumns = C::rows + 1;
  static constexpr int kWaves = C::threads / C::lanes;
  static constexpr int kRows = C::rows / C::row_groups;  // of a wave
  static constexpr int kShare = kRows + 1;               // sums of a lane for one token: squares, then its rows
  static constexpr int kPadded = C::padded;              // tokens*kShare, to a power of two
  static_assert(kWaves % C::row_groups == 0 && C::rows % C::row_groups == 0 && kN % C::streams == 0 &&
                kPadded >= C::tokens * kShare);
};

template <class C, class Source, class P>
KGEN_DEVICE void accumulate(const P& p, const Source& source, i64 token0, i64 h_begin, i64 h_end, int wave, int lane,
                            float (&sum)[Projection<C>::kPadded]) {
  using S = Projection<C>;
  using T = typename C::dtype;
  constexpr int kStep = S::kWaves / C::row_groups * C::lanes;
  const int row0 = wave % C::row_groups * S::kRows;
  const bool store = wave % C::row_groups == 0;
  const int vectors = int((h_end - h_begin) / C::vec), units = vectors * (S::kN / C::streams);
  KGEN_NO_UNROLL
  for (int unit = wave / C::row_groups * C::lanes + lane; unit < units; unit += kStep) {
    const int group = C::streams == S::kN ? 0 : unit / vectors, stream = group * C::streams;
    const i64 h = h_begin + i64(unit - group * vectors) * C::vec;
    Packed<T, C::vec> value[C::tokens][C::streams];
    KGEN_UNROLL
    for (int k = 0; k < C::tokens; ++k) {
      const bool exists = token0 + k < p.t;
      source.template load<C::streams>(exists ? token0 + k : p.t - 1, k, stream, h, store && exists, value[k]);
    }
    KGEN_UNROLL
    for (int s = 0; s < C::streams; ++s) {
      float x[C::tokens][C::vec];
      KGEN_UNROLL
      for (int k = 0; k < C::tokens; ++k) {
        float squares = 0;  // of a vector first: a small square would vanish beside the sum
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) {
          x[k][e] = value[k][s][e];
          squares = fma_f(x[k][e], x[k][e], squares);
        }
        sum[k * S::kShare] += squares;
      }
      const float* fn = p.fn + (i64(row0) * S::kN + stream + s) * p.h + h;
      KGEN_UNROLL
      for (int r = 0; r < S::kRows; ++r) {
        float weight[C::vec];
        load_floats(fn + i64(r) * S::kN * p.h, weight);
        KGEN_UNROLL
        for (int k = 0; k < C::tokens; ++k) {
          float& to = sum[k * S::kShare + 1 + r];
          KGEN_UNROLL
          for (int e = 0; e < C::vec; ++e) to = fma_f(weight[e], x[k][e], to);
        }
      }
    }
  }
}

// store(slot, column, total) for the totals of the block's tokens over h_begin … h_end. LDS: `mixes` floats of the
// source, then kWaves*kPadded.
template <class C, template <class, class> class Source, class P, class Store>
KGEN_DEVICE void project(const P& p, i64 token0, i64 h_begin, i64 h_end, float* mixes, float* sums,
                         const Store& store) {
  using S = Projection<C>;
  const int wave = uniform(thread_x() / C::lanes), lane = thread_x() % C::lanes;
  float sum[S::kPadded] = {};
  const Source<C, P> source(p, token0, mixes);
  accumulate<C>(p, source, token0, h_begin, h_end, wave, lane, sum);
  keep_wave_sums<S::kPadded, C::lanes>(sum, lane, sums + wave * S::kPadded);
  sync_lds();
  for (int i = thread_x(); i < C::tokens * S::kColumns; i += C::threads) {
    const int slot = i / S::kColumns, column = i % S::kColumns;
    const int row = column == 0 ? 0 : (column - 1) % S::kRows + 1, group = column == 0 ? 0 : (column - 1) / S::kRows;
    float total = 0;
    for (int w = group; w < S::kWaves; w += C::row_groups) total += sums[w * S::kPadded + slot * S::kShare + row];
    store(slot, column, total);
  }
}

// ------------------------------------------------------------------------------------ from totals to coefficients

// The parameters with base and scale in LDS: the last steps of a kernel should not wait for memory once more. A block
// asks for them at its start and keeps them where a barrier follows.
template <class C>
struct Constants {
  static constexpr int kCount = C::rows + (C::head ? 1 : 3), kItems = (kCount + C::threads - 1) / C::threads;
  float value[kItems];

  template <class P>
  KGEN_DEVICE explicit Constants(const P& p) {
    KGEN_UNROLL
    for (int k = 0; k < kItems; ++k) {
      const int i = thread_x() + k * C::threads;
      value[k] = i < C::rows ? p.base[i] : i < kCount ? p.scale[i - C::rows] : 0.0f;
    }
  }
  KGEN_DEVICE void keep(float* lds_constants) const {
    KGEN_UNROLL
    for (int k = 0; k < kItems; ++k)
      if (thread_x() + k * C::threads < kCount) lds_constants[thread_x() + k * C::threads] = value[k];
  }
};
template <class C, class P>
struct Staged : P {
  const float *base, *scale;
  KGEN_DEVICE Staged(const P& p, const float* constants) : P(p), base(constants), scale(constants + C::rows) {}
};

// Mix of a fn row, scaled and shifted as the gate or matrix that it belongs to. `totals` [1 + rows]: memory, or
// whatever has operator[].
template <class C, class P, class Totals>
KGEN_DEVICE float logit(const P& p, const Totals& totals, float inverse, int kind, int row) {
  return fma_f(totals[1 + row] * inverse, p.scale[kind], p.base[row]);
}

// 1 / root mean square of the token's n*h elements.
template <class C, class P, class Totals>
KGEN_DEVICE float inverse_rms(const P& p, const Totals& totals) {
  return rsqrt_f(fma_f(totals[0], rcp_f(float(int(C::n) * p.h)), p.rms_eps));
}

template <class C, class P, class Totals>
KGEN_DEVICE float gate(const P& p, const Totals& totals, float inverse, int i) {
  return sigmoid(logit<C>(p, totals, inverse, 0, i)) + p.pre_eps;
}
template <class C, class P>
KGEN_DEVICE float gate(const P& p, const float* totals, int i) {
  return gate<C>(p, totals, inverse_rms<C>(p, totals), i);
}

// Rows and columns lane, lane + kLanes, … of the n x n matrix of a token; those beyond n are never read. The rounds
// leave the elements alone and keep a factor of each row and column: 1/d, where dividing by (sum + eps) makes d the sum
// of element * other factor, + eps * d. So a round's chain of operations is short: n shuffles at once, a sum, a
// reciprocal.
template <int kN, int kLanes>
struct Matrix {
  static constexpr int kRows = (kN + kLanes - 1) / kLanes;
  float x[kRows][kN];
  float columns[kRows][kN];
  float row_factor[kRows], row_sum[kRows], column_factor[kRows], column_sum[kRows];

  static KGEN_DEVICE int row(int lane, int k) { return lane + k * kLanes; }

  KGEN_DEVICE void softmax_rows() {
    KGEN_UNROLL
    for (int k = 0; k < kRows; ++k) {
      float max = x[k][0];
      KGEN_UNROLL
      for (int j = 1; j < kN; ++j) max = Maximum()(max, x[k][j]);
      float sum = 0;
      KGEN_UNROLL
      for (int j = 0; j < kN; ++j) {
        x[k][j] = exp_f(x[k][j] - max);
        sum += x[k][j];
      }
      scale_row(k, rcp_f(sum));
    }
  }
  KGEN_DEVICE void add(float eps) {
    KGEN_UNROLL
    for (int k = 0; k < kRows; ++k) {
      KGEN_UNROLL
      for (int j = 0; j < kN; ++j) x[k][j] += eps;
    }
  }
  // Before the rounds: the columns from the rows.
  KGEN_DEVICE void transpose(int lane) {
    KGEN_UNROLL
    for (int i = 0; i < kN; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < kN; ++j) {
        const float value = of_lane(x[i / kLanes][j], i % kLanes);
        if (j % kLanes == lane) columns[j / kLanes][i] = value;
      }
    }
    KGEN_UNROLL
    for (int k = 0; k < kRows; ++k) row_factor[k] = row_sum[k] = column_factor[k] = column_sum[k] = 1;
  }
  KGEN_DEVICE void divide_rows(float eps) { divide(eps, x, column_factor, row_sum, row_factor); }
  KGEN_DEVICE void divide_columns(float eps) { divide(eps, columns, row_factor, column_sum, column_factor); }
  // After them: the rows with all factors.
  KGEN_DEVICE void scale() {
    KGEN_UNROLL
    for (int j = 0; j < kN; ++j) {
      const float factor = of_lane(column_factor[j / kLanes], j % kLanes);
      KGEN_UNROLL
      for (int k = 0; k < kRows; ++k) x[k][j] *= row_factor[k] * factor;
    }
  }

 private:
  static KGEN_DEVICE float of_lane(float value, int lane) {
    if constexpr (kLanes == 1)
      return value;
    else
      return shuffle(value, (lane_id() & ~(kLanes - 1)) + lane);
  }
  KGEN_DEVICE void scale_row(int k, float scale) {
    KGEN_UNROLL
    for (int j = 0; j < kN; ++j) x[k][j] *= scale;
  }
  static KGEN_DEVICE void divide(float eps, const float (&lines)[kRows][kN], const float (&others)[kRows],
                                 float (&sums)[kRows], float (&factors)[kRows]) {
    float other[kN];
    KGEN_UNROLL
    for (int i = 0; i < kN; ++i) other[i] = of_lane(others[i / kLanes], i % kLanes);
    KGEN_UNROLL
    for (int k = 0; k < kRows; ++k) {
      float even = eps * sums[k], odd = 0;  // two short chains
      KGEN_UNROLL
      for (int i = 0; i < kN; i += 2) {
        even = fma_f(lines[k][i], other[i], even);
        if (i + 1 < kN) odd = fma_f(lines[k][i + 1], other[i + 1], odd);
      }
      sums[k] = even + odd;
      factors[k] = rcp_f(sums[k]);
    }
  }
};

template <class C, class P, class Totals>
KGEN_DEVICE void write_post(const P& p, const Totals& totals, float inverse, i64 token, int row, float* post) {
  constexpr int kN = int(C::n);
  post[token * kN + row] = p.post_mult * sigmoid(logit<C>(p, totals, inverse, 1, kN + row));
}

// comb, and post where kPost, of tokens first_slot, first_slot + kStride … of kTokens tokens from their totals
// [kTokens] [1 + rows]; C::token_lanes lanes take a token.
template <class C, int kTokens, int kStride, bool kPost, class P, class Totals>
KGEN_DEVICE void write_mixes(const P& p, const Totals& totals, i64 token0, int first_slot, float* post, float* comb) {
  constexpr int kN = int(C::n), kLanes = C::token_lanes, kItems = (kTokens + kStride - 1) / kStride * kLanes;
  KGEN_NO_UNROLL
  for (int first = 0; first < kItems; first += C::threads) {
    if (first + thread_x() / C::lanes * C::lanes >= kItems) break;  // whole waves: all lanes shuffle
    const int item = first + thread_x(), lane = item % kLanes, place = first_slot + item / kLanes * kStride;
    const bool exists = item < kItems && place < kTokens && token0 + place < p.t;
    const int slot = place < kTokens ? place : kTokens - 1;
    const i64 token = token0 + slot;
    const auto mine = totals + slot * (C::rows + 1);
    const float inverse = inverse_rms<C>(p, mine);
    Matrix<kN, kLanes> matrix;
    KGEN_UNROLL
    for (int k = 0; k < matrix.kRows; ++k) {
      const int row = matrix.row(lane, k) < kN ? matrix.row(lane, k) : kN - 1;
      KGEN_UNROLL
      for (int j = 0; j < kN; ++j) matrix.x[k][j] = logit<C>(p, mine, inverse, 2, 2 * kN + row * kN + j);
    }
    matrix.softmax_rows();
    matrix.add(p.sinkhorn_eps);
    matrix.transpose(lane);
    matrix.divide_columns(p.sinkhorn_eps);
    KGEN_NO_UNROLL
    for (int round = 1; round < p.sinkhorn_repeat; ++round) {
      matrix.divide_rows(p.sinkhorn_eps);
      matrix.divide_columns(p.sinkhorn_eps);
    }
    matrix.scale();
    KGEN_UNROLL
    for (int k = 0; k < matrix.kRows; ++k) {
      const int row = matrix.row(lane, k);
      if (!exists || row >= kN) continue;
      if constexpr (kPost) write_post<C>(p, mine, inverse, token, row, post);
      KGEN_UNROLL
      for (int j = 0; j < kN; ++j) comb[(token * kN + row) * kN + j] = matrix.x[k][j];
    }
  }
}

template <class C, int kTokens, class P>
KGEN_DEVICE void write_mixes(const P& p, const float* totals, i64 token0, float* post, float* comb) {
  write_mixes<C, kTokens, 1, true>(p, totals, token0, 0, post, comb);
}

// ----------------------------------------------------------------------------------------------------- layer_input

// out[h] = sum_i gates[i] * stream i [h] for h_begin … h_end of one token, then the norm, which needs all of h in one
// block: it makes the sums twice, the second time from the cache.
template <class C, norm kNorm, class T, class P>
KGEN_DEVICE void collapse(const P& p, const T* streams, const float* gates, i64 h_begin, i64 h_end, T* out,
                          float* scratch) {
  constexpr int kN = int(C::n);
  float weight[kN];
  KGEN_UNROLL
  for (int i = 0; i < kN; ++i) weight[i] = gates[i];
  const auto sums = [&](i64 h, float(&u)[C::vec_h]) {
    Packed<T, C::vec_h> stream[kN];
    KGEN_UNROLL
    for (int i = 0; i < kN; ++i) stream[i] = Packed<T, C::vec_h>::load(streams + i * p.h + h);
    KGEN_UNROLL
    for (int e = 0; e < C::vec_h; ++e) {
      u[e] = 0;
      KGEN_UNROLL
      for (int i = 0; i < kN; ++i) u[e] = fma_f(weight[i], stream[i][e], u[e]);
      if constexpr (kNorm == norm::round_first) u[e] = to_float(from_float<T>(u[e]));
    }
  };
  float inverse = 1;
  if constexpr (kNorm != norm::none) {
    float squares = 0;
    for (i64 h = h_begin + i64(thread_x()) * C::vec_h; h < h_end; h += C::threads * C::vec_h) {
      float u[C::vec_h];
      sums(h, u);
      KGEN_UNROLL
      for (int e = 0; e < C::vec_h; ++e) squares = fma_f(u[e], u[e], squares);
    }
    sync_lds();
    squares = reduce_block<C::threads>(squares, scratch, Add());
    inverse = rsqrt_f(squares / float(p.h) + p.norm_eps);
  }
  for (i64 h = h_begin + i64(thread_x()) * C::vec_h; h < h_end; h += C::threads * C::vec_h) {
    float u[C::vec_h];
    sums(h, u);
    Packed<T, C::vec_h> result = {}, factor = {};
    if constexpr (kNorm != norm::none) factor = Packed<T, C::vec_h>::load(p.norm_weight + h);
    KGEN_UNROLL
    for (int e = 0; e < C::vec_h; ++e) result.set(e, kNorm == norm::none ? u[e] : u[e] * inverse * factor[e]);
    result.store(out + h);
  }
}

// A work-item's first vectors of the streams of h_begin … h_end, asked for before the gates are known.
template <class C, class T>
struct EarlyStreams {
  static constexpr int kCount = 2;
  Packed<T, C::vec_h> stream[kCount][int(C::n)];

  KGEN_DEVICE EarlyStreams(const T* streams, i64 stride, i64 h_begin, i64 h_end) {
    KGEN_UNROLL
    for (int k = 0; k < kCount; ++k) {
      const i64 h = h_begin + i64(thread_x() + k * C::threads) * C::vec_h;
      if (h >= h_end) break;
      KGEN_UNROLL
      for (int i = 0; i < int(C::n); ++i) stream[k][i] = Packed<T, C::vec_h>::load(streams + i * stride + h);
    }
  }
};

// The same without a norm, from such vectors.
template <class C, class T, class P>
KGEN_DEVICE void collapse_early(const P& p, const EarlyStreams<C, T>& early, const T* streams, const float* gates,
                                i64 h_begin, i64 h_end, T* out) {
  constexpr int kN = int(C::n);
  const auto mix = [&](const Packed<T, C::vec_h>(&stream)[kN], i64 h) {
    Packed<T, C::vec_h> result = {};
    KGEN_UNROLL
    for (int e = 0; e < C::vec_h; ++e) {
      float u = 0;
      KGEN_UNROLL
      for (int i = 0; i < kN; ++i) u = fma_f(gates[i], stream[i][e], u);
      result.set(e, u);
    }
    result.store(out + h);
  };
  i64 h = h_begin + i64(thread_x()) * C::vec_h;
  KGEN_UNROLL
  for (int k = 0; k < early.kCount; ++k, h += C::threads * C::vec_h)
    if (h < h_end) mix(early.stream[k], h);
  for (; h < h_end; h += C::threads * C::vec_h) {
    Packed<T, C::vec_h> stream[kN];
    KGEN_UNROLL
    for (int i = 0; i < kN; ++i) stream[i] = Packed<T, C::vec_h>::load(streams + i * p.h + h);
    mix(stream, h);
  }
}

// ----------------------------------------------------------------------------------------------------------- kernels

template <class C, template <class, class> class Source, class P>
KGEN_DEVICE void project_part(const P& p) {
  using S = Projection<C>;
  const int part = block_x() % C::parts;
  const i64 token0 = i64(block_x() / C::parts) * C::tokens;
  const i64 share = (p.h / C::vec + C::parts - 1) / C::parts * C::vec;
  const i64 h_begin = part * share < p.h ? part * share : p.h;
  const i64 h_end = h_begin + share < p.h ? h_begin + share : p.h;
  float* mixes = lds<float>(0);
  float* sums = mixes + (Source<C, P>::kSpreads ? C::tokens * (S::kN + S::kN * S::kN) : 0);
  project<C, Source>(p, token0, h_begin, h_end, mixes, sums, [&](int slot, int column, float total) {
    if (token0 + slot < p.t) p.partial[(part * p.t + token0 + slot) * S::kColumns + column] = total;
  });
}

// Totals 0 … kCount-1 of kTokens tokens, summed over the parts: LDS [kTokens][1 + rows]. Groups of work-items take
// different parts and are added in order.
template <class C, int kTokens, int kCount, class P>
KGEN_DEVICE void sum_parts(const P& p, i64 token0, float* totals, float* scratch) {
  constexpr int kColumns = C::rows + 1, kItems = kTokens * kCount;
  constexpr int kMost = C::threads / kItems, kGroups = kMost < 1 ? 1 : kMost < C::parts ? kMost : C::parts;
  constexpr int kFlight = 8;
  const auto sum = [&](int item, int group) {
    const int slot = item / kCount, column = item % kCount;
    const i64 token = token0 + slot < p.t ? token0 + slot : p.t - 1;
    const float* from = p.partial + token * kColumns + column;
    float total = 0;
    for (int part = group; part < C::parts; part += kFlight * kGroups) {
      float value[kFlight];
      KGEN_UNROLL
      for (int f = 0; f < kFlight; ++f)
        value[f] = part + f * kGroups < C::parts ? from[(part + f * kGroups) * p.t * kColumns] : 0.0f;
      KGEN_UNROLL
      for (int f = 0; f < kFlight; ++f) total += value[f];
    }
    return total;
  };
  if constexpr (kGroups == 1) {
    for (int item = thread_x(); item < kItems; item += C::threads)
      totals[item / kCount * kColumns + item % kCount] = sum(item, 0);
  } else {
    if (thread_x() < kGroups * kItems) scratch[thread_x()] = sum(thread_x() % kItems, thread_x() / kItems);
    sync_lds();
    if (thread_x() < kItems) {
      float total = scratch[thread_x()];
      for (int group = 1; group < kGroups; ++group) total += scratch[group * kItems + thread_x()];
      totals[thread_x() / kCount * kColumns + thread_x() % kCount] = total;
    }
  }
  sync_lds();
}

// `streams` of the first token, `stride` elements from token to token.
template <class C, norm kNorm, class T, class P>
KGEN_DEVICE void finish(const P& params, const T* streams, i64 stride, float* post, float* comb, T* out,
                        i64 out_stride) {
  constexpr int kN = int(C::n), kTokens = C::head ? 1 : C::coefficient_tokens;
  float* totals = lds<float>(0);
  float* scratch = totals + kTokens * (C::rows + 1);
  const Constants<C> constants(params);
  const Staged<C, P> p(params, scratch + C::threads);
  i64 block = block_x();
  if constexpr (!C::head) {
    const i64 coefficient_blocks = (p.t + kTokens - 1) / kTokens;
    if (block < coefficient_blocks) {
      sum_parts<C, kTokens, C::rows + 1>(params, block * kTokens, totals, scratch);
      constants.keep(scratch + C::threads);
      sync_lds();
      write_mixes<C, kTokens>(p, totals, block * kTokens, post, comb);
      return;
    }
    block -= coefficient_blocks;
  }
  if constexpr (C::backwards) block = p.t * C::chunks - 1 - block;  // what was written last is still in the L2
  const i64 token = block / C::chunks, chunk = block % C::chunks;
  const i64 share = (p.h / C::vec_h + C::chunks - 1) / C::chunks * C::vec_h;
  const i64 h_begin = chunk * share < p.h ? chunk * share : p.h;
  const i64 h_end = h_begin + share < p.h ? h_begin + share : p.h;
  [[maybe_unused]] const EarlyStreams<C, T> early(streams + token * stride, p.h, h_begin,
                                                  kNorm == norm::none ? h_end : h_begin);
  sum_parts<C, 1, 1 + kN>(params, token, totals, scratch);
  constants.keep(scratch + C::threads);
  sync_lds();
  float gates[kN];
  const float inverse = inverse_rms<C>(p, totals);
  KGEN_UNROLL
  for (int i = 0; i < kN; ++i) gates[i] = gate<C>(p, totals, inverse, i);
  if constexpr (kNorm == norm::none)
    collapse_early<C, T>(params, early, streams + token * stride, gates, h_begin, h_end, out + token * out_stride);
  else
    collapse<C, kNorm, T>(params, streams + token * stride, gates, h_begin, h_end, out + token * out_stride, scratch);
}

template <class C, template <class, class> class Source, norm kNorm, class T, class P>
KGEN_DEVICE void one_pass(const P& p, const T* streams, i64 stride, float* post, float* comb, T* out, i64 out_stride) {
  using S = Projection<C>;
  const i64 token0 = i64(block_x()) * C::tokens;
  float* mixes = lds<float>(0);
  float* sums = mixes + (Source<C, P>::kSpreads ? C::tokens * (S::kN + S::kN * S::kN) : 0);
  float* totals = sums + S::kWaves * S::kPadded;
  project<C, Source>(p, token0, 0, p.h, mixes, sums,
                     [&](int slot, int column, float total) { totals[slot * S::kColumns + column] = total; });
  sync_block();  // the fused form reads its streams back
  KGEN_NO_UNROLL
  for (int slot = 0; slot < C::tokens; ++slot) {
    const i64 token = token0 + slot;
    if (token >= p.t) break;
    float gates[S::kN];
    KGEN_UNROLL
    for (int i = 0; i < S::kN; ++i) gates[i] = gate<C>(p, totals + slot * S::kColumns, i);
    collapse<C, kNorm, T>(p, streams + token * stride, gates, 0, p.h, out + token * out_stride, sums);
  }
  if constexpr (!C::head) write_mixes<C, C::tokens>(p, totals, token0, post, comb);
}

}  // namespace mhc

template <class C, class P>
KGEN_DEVICE void mhc_project(const P& p) {
  mhc::project_part<C, mhc::StoredStreams>(p);
}
template <class C, class P>
KGEN_DEVICE void mhc_pre_finish(const P& p) {
  mhc::finish<C, C::norm>(p, p.residual, p.ldr, p.post_mix, p.comb_mix, p.layer_input, p.ldl);
}
template <class C, class P>
KGEN_DEVICE void mhc_pre_one_pass(const P& p) {
  mhc::one_pass<C, mhc::StoredStreams, C::norm>(p, p.residual, p.ldr, p.post_mix, p.comb_mix, p.layer_input, p.ldl);
}

template <class C, class P>
KGEN_DEVICE void hc_head_finish(const P& p) {
  mhc::finish<C, norm::none>(p, p.residual, p.ldr, static_cast<float*>(nullptr), static_cast<float*>(nullptr),
                             p.collapsed, p.ldc);
}
template <class C, class P>
KGEN_DEVICE void hc_head_one_pass(const P& p) {
  mhc::one_pass<C, mhc::StoredStreams, norm::none>(p, p.residual, p.ldr, static_cast<float*>(nullptr),
                                                   static_cast<float*>(nullptr), p.collapsed, p.ldc);
}

template <class C, class P>
KGEN_DEVICE void mhc_post_project(const P& p) {
  mhc::project_part<C, mhc::SpreadStreams>(p);
}
template <class C, class P>
KGEN_DEVICE void mhc_fused_finish(const P& p) {
  mhc::finish<C, C::norm>(p, static_cast<const typename C::dtype*>(p.residual_out), C::n * p.h, p.post_mix_out,
                          p.comb_mix_out, p.layer_input, p.ldl);
}
template <class C, class P>
KGEN_DEVICE void mhc_fused_one_pass(const P& p) {
  mhc::one_pass<C, mhc::SpreadStreams, C::norm>(p, static_cast<const typename C::dtype*>(p.residual_out), C::n * p.h,
                                                p.post_mix_out, p.comb_mix_out, p.layer_input, p.ldl);
}

// mhc_post: block b takes chunk b % chunks of token b / chunks; a work-item `items` vectors, `threads` vectors apart.
template <class C, class P>
KGEN_DEVICE void mhc_post(const P& p) {
  constexpr int kN = int(C::n);
  constexpr int kChunk = C::threads * C::vec * C::items;
  const i64 chunks = (p.h + kChunk - 1) / kChunk;
  const i64 token = block_x() / chunks, h0 = block_x() % chunks * kChunk + i64(thread_x()) * C::vec;
  mhc::Column<C, P, C::vec> column[C::items];
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const i64 h = h0 + i64(i) * C::threads * C::vec;
    if (h < p.h) column[i].load(p, token, h);
  }
  float post[kN], comb[kN * kN];
  KGEN_UNROLL
  for (int j = 0; j < kN; ++j) post[j] = p.post_mix[token * kN + j];
  KGEN_UNROLL
  for (int j = 0; j < kN * kN; ++j) comb[j] = p.comb_mix[token * kN * kN + j];
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const i64 h = h0 + i64(i) * C::threads * C::vec;
    if (h >= p.h) break;
    KGEN_UNROLL
    for (int j = 0; j < kN; ++j) column[i].spread_to(j, post, comb).store(p.streams + (token * kN + j) * p.h + h);
  }
}

}  // namespace kgen
