// mhc_pre, mhc_fused_post_pre and hc_head of a few tokens in one kernel: clusters of blocks share a token's elements
// and add their sums up through each other's LDS.
//
//   cluster   a group of fn's rows x `tokens` tokens        groups: comb (n*n rows) │ gates and post (2n); hc_head:
//   gates
//     block   rank r takes `slice` elements of every stream
//               streams (fused: made here; the last group stores them) → LDS [token][stream][slice]
//       wave  `wave_rows` rows x a share of the slice's vectors    lane 0  lane 1 …
//               a lane: `steps` vectors of each stream and row of fn in registers, asked for before the streams are
//               made
//     block   totals [token][1 + rows] over its slice → LDS
//     cluster totals = sum over the ranks
//               comb: rank = token, Sinkhorn │ gates: layer_input of the slice
//
// Lanes are summed by shuffles, waves and ranks in order: the same bits on every run. cluster == 1 needs no hardware.
// Legality: h and the strides of tokens are multiples of vec and vec_h; threads of whole waves go by token.
#pragma once
#include "mhc.h"

namespace kgen {
namespace mhc {

template <class C>
struct Clustered {
  static constexpr int kN = int(C::n), kColumns = C::rows + 1, kRanks = C::cluster;
  static constexpr int kGroups = C::head ? 1 : 2;
  static constexpr int kMostRows = C::head ? kN : kN * kN > 2 * kN ? kN* kN : 2 * kN;  // of a group
  static constexpr int kTokens = C::tokens, kRows = C::wave_rows, kWaves = C::threads / C::lanes;
  static constexpr int kValues = kTokens * kRows, kPadded = C::padded;  // kValues to a power of two
  static constexpr int kTokenThreads = C::threads / kTokens, kTokenWaves = kWaves / kTokens;
  static_assert(kWaves % kTokens == 0 && kPadded >= kValues);
  // LDS, in floats
  static constexpr int kSums = 0, kSquares = kSums + kWaves * kPadded, kLocal = kSquares + kWaves;
  static constexpr int kTotals = kLocal + kTokens * kColumns, kConstants = kTotals + kTokens * kColumns;
  static constexpr int kMixes = (kConstants + C::rows + 4 + 3) / 4 * 4;
  static constexpr int kWaveMixes = (kN + kN * kN + 3) / 4 * 4, kStreams = kMixes + C::spreads * kWaves * kWaveMixes;
  static_assert(kStreams * 4 == C::streams_at);

  int rank, group, row0, rows, row_groups, unit_waves;  // the group's rows of fn; waves that share rows, and elements
  i64 token0;
  i64 h0;     // of the slice
  int slice;  // elements from stream to stream in LDS
  int count;  // elements that exist

  template <class P>
  KGEN_DEVICE explicit Clustered(const P& p) {
    const int cluster = block_x() / kRanks;
    rank = block_x() % kRanks;
    group = cluster % kGroups;
    const bool comb = !C::head && group == 0;
    row0 = comb ? 2 * kN : 0;
    rows = C::head ? kN : comb ? kN * kN : 2 * kN;
    row_groups = rows / kRows;
    unit_waves = kWaves / row_groups;
    token0 = i64(cluster / kGroups) * kTokens;
    constexpr int kWide = C::vec > C::vec_h ? C::vec : C::vec_h;
    slice = (int(p.h) / kWide + kRanks - 1) / kRanks * kWide;
    h0 = i64(rank) * slice < p.h ? i64(rank) * slice : p.h;
    count = p.h - h0 < slice ? int(p.h - h0) : slice;
  }
};

// Streams of a token at the elements of one vector, as mhc_pre reads them.
template <class C, class P>
struct StoredColumn {
  static constexpr bool kSpreads = false;
  using T = typename C::dtype;
  Packed<T, C::vec_h> stream[int(C::n)];

  KGEN_DEVICE void ask(const P&, i64, int) {}
  KGEN_DEVICE void keep(float*, int) {}
  KGEN_DEVICE void load(const P& p, i64 token, i64 h) {
    KGEN_UNROLL
    for (int i = 0; i < int(C::n); ++i) stream[i] = Packed<T, C::vec_h>::load(p.residual + token * p.ldr + i * p.h + h);
  }
  KGEN_DEVICE Packed<T, C::vec_h> get(int j, const float*) const { return stream[j]; }
};
// As mhc_post makes them.
template <class C, class P>
struct SpreadColumn {
  static constexpr bool kSpreads = true;
  using T = typename C::dtype;
  static constexpr int kN = int(C::n), kMixes = kN + kN * kN, kItems = (kMixes + C::lanes - 1) / C::lanes;
  Column<C, P, C::vec_h> column;
  float mix[kItems];

  // The token's post and comb: a wave's lanes ask for one each, and keep them in LDS for all.
  KGEN_DEVICE void ask(const P& p, i64 token, int lane) {
    KGEN_UNROLL
    for (int k = 0; k < kItems; ++k) {
      const int i = lane + k * C::lanes;
      mix[k] = i < kN ? p.post_mix[token * kN + i] : i < kMixes ? p.comb_mix[token * kN * kN + i - kN] : 0.0f;
    }
  }
  KGEN_DEVICE void keep(float* mixes, int lane) {
    KGEN_UNROLL
    for (int k = 0; k < kItems; ++k)
      if (lane + k * C::lanes < kMixes) mixes[lane + k * C::lanes] = mix[k];
    sync_wave();
  }
  KGEN_DEVICE void load(const P& p, i64 token, i64 h) { column.load(p, token, h); }
  KGEN_DEVICE Packed<T, C::vec_h> get(int j, const float* mixes) const {
    return column.spread_to(j, mixes, mixes + kN);
  }
};

// `steps` vectors of each stream and row: a lane's part of fn.
template <class C>
struct Weights {
  using S = Clustered<C>;
  float w[C::steps][S::kN][S::kRows][C::vec];

  // fn: the first row of the wave, at the slice.
  template <int kStep>
  KGEN_DEVICE void load(const float* fn, u32 h, int vector) {
    KGEN_UNROLL
    for (int s = 0; s < S::kN; ++s) {
      KGEN_UNROLL
      for (int r = 0; r < S::kRows; ++r)
        load_floats(fn + (u32(r * S::kN + s) * h + u32(vector * C::vec)), w[kStep][s][r]);
    }
  }
};

template <class C, int kStep, class T>
KGEN_DEVICE void multiply(const Weights<C>& weights, const T* streams, int slice, int vector,
                          float (&sum)[Clustered<C>::kPadded]) {
  using S = Clustered<C>;
  KGEN_UNROLL
  for (int s = 0; s < S::kN; ++s) {
    KGEN_UNROLL
    for (int k = 0; k < S::kTokens; ++k) {
      const auto x = Packed<T, C::vec>::load(streams + (k * S::kN + s) * slice + vector * C::vec);
      KGEN_UNROLL
      for (int r = 0; r < S::kRows; ++r) {
        float& to = sum[k * S::kRows + r];
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) to = fma_f(weights.w[kStep][s][r][e], x[e], to);
      }
    }
  }
}

template <class C, int kStep = 0>
KGEN_DEVICE void load_steps(Weights<C>& weights, const float* fn, u32 h, int vector, int stride, int vectors) {
  if constexpr (kStep < C::steps) {
    if (vector < vectors) weights.template load<kStep>(fn, h, vector);
    load_steps<C, kStep + 1>(weights, fn, h, vector + stride, stride, vectors);
  }
}
// Each step's registers are loaded again as soon as they have been used.
template <class C, int kStep = 0, class T>
KGEN_DEVICE void multiply_steps(Weights<C>& weights, const float* fn, u32 h, const T* streams, int slice, int vector,
                                int stride, int vectors, float (&sum)[Clustered<C>::kPadded]) {
  if constexpr (kStep < C::steps) {
    if (vector < vectors) multiply<C, kStep>(weights, streams, slice, vector, sum);
    if (vector + C::steps * stride < vectors) weights.template load<kStep>(fn, h, vector + C::steps * stride);
    multiply_steps<C, kStep + 1>(weights, fn, h, streams, slice, vector + stride, stride, vectors, sum);
  }
}

// Sums of a block's waves: totals of its slice.
template <class C>
KGEN_DEVICE void sum_waves(const Clustered<C>& share, const float* sums, const float* squares, float* local) {
  using S = Clustered<C>;
  for (int i = thread_x(); i < S::kTokens * (1 + S::kMostRows); i += C::threads) {
    const int slot = i / (1 + S::kMostRows), column = i % (1 + S::kMostRows), row = column - 1;
    if (column > share.rows) continue;
    float total = 0;
    if (column == 0) {
      for (int w = 0; w < S::kTokenWaves; ++w) total += squares[slot * S::kTokenWaves + w];
    } else {
      for (int w = row / S::kRows; w < S::kWaves; w += share.row_groups)
        total += sums[w * S::kPadded + slot * S::kRows + row % S::kRows];
    }
    local[slot * S::kColumns + (column == 0 ? 0 : share.row0 + column)] = total;
  }
}

// Sums of the ranks' totals: kRanks lanes read one each.
template <class C>
KGEN_DEVICE void sum_ranks(const Clustered<C>& share, const float* local, float* totals) {
  using S = Clustered<C>;
  constexpr int kItems = S::kTokens * (1 + S::kMostRows) * S::kRanks;
  for (int first = 0; first < kItems; first += C::threads) {
    if (first + thread_x() / C::lanes * C::lanes >= kItems) break;  // whole waves: all lanes shuffle
    const int item = first + thread_x() < kItems ? first + thread_x() : kItems - 1, i = item / S::kRanks;
    const int slot = i / (1 + S::kMostRows), column = i % (1 + S::kMostRows);
    const int place = slot * S::kColumns + (column == 0 ? 0 : column <= share.rows ? share.row0 + column : 0);
    const float part = load_cluster(cluster_address(lds_address(local + place), item % S::kRanks));
    const float total = reduce_wave<S::kRanks>(part, Add());
    if (first + thread_x() < kItems && item % S::kRanks == 0 && column <= share.rows) totals[place] = total;
  }
}

// `stored`: where the streams go that are made here.
template <class C, template <class, class> class ColumnOf, class T, class P>
KGEN_DEVICE void cluster_mixes(const P& params, T* stored, float* post, float* comb, T* out, i64 out_stride) {
  using S = Clustered<C>;
  const S share(params);
  const int wave = uniform(thread_x() / C::lanes), lane = thread_x() % C::lanes;
  float* const sums = lds<float>(0);
  float* const squares = sums + S::kSquares;
  float* const local = sums + S::kLocal;
  float* const totals = S::kRanks > 1 ? sums + S::kTotals : local;
  T* const streams = lds<T>(S::kStreams * 4);
  const Staged<C, P> p(params, sums + S::kConstants);

  // What is needed first is asked for first.
  const int slot = thread_x() / S::kTokenThreads, columns = share.count / C::vec_h;
  const bool exists = share.token0 + slot < p.t;
  const i64 token = exists ? share.token0 + slot : p.t - 1;
  int column = thread_x() % S::kTokenThreads;
  ColumnOf<C, P> source;
  source.ask(params, token, lane);
  if (column < columns) source.load(params, token, share.h0 + i64(column) * C::vec_h);
  const Constants<C> constants(params);
  const int row_group = wave % share.row_groups, vectors = share.count / C::vec;
  const int stride = share.unit_waves * C::lanes, first_vector = wave / share.row_groups * C::lanes + lane;
  const float* fn = p.fn + i64(share.row0 + row_group * S::kRows) * S::kN * p.h + share.h0;
  Weights<C> weights;
  load_steps<C>(weights, fn, u32(p.h), first_vector, stride, vectors);

  float* const mixes = sums + S::kMixes + wave * S::kWaveMixes;
  source.keep(mixes, lane);
  float square = 0;
  while (column < columns) {
    const i64 h = share.h0 + i64(column) * C::vec_h;
    KGEN_UNROLL
    for (int j = 0; j < S::kN; ++j) {
      const auto stream = source.get(j, mixes);
      stream.store(streams + (slot * S::kN + j) * share.slice + column * C::vec_h);
      if (source.kSpreads && share.group == S::kGroups - 1 && exists)
        stream.store(stored + (token * S::kN + j) * p.h + h);
      float part = 0;  // of a vector first: a small square would vanish beside the sum
      KGEN_UNROLL
      for (int e = 0; e < C::vec_h; ++e) part = fma_f(stream[e], stream[e], part);
      square += part;
    }
    column += S::kTokenThreads;
    if (column < columns) source.load(params, token, share.h0 + i64(column) * C::vec_h);
  }
  square = reduce_wave<C::lanes>(square, Add());
  if (lane == 0) squares[wave] = square;
  constants.keep(sums + S::kConstants);
  sync_lds();

  float sum[S::kPadded] = {};
  KGEN_NO_UNROLL
  for (int vector = first_vector; vector < vectors; vector += C::steps * stride)
    multiply_steps<C>(weights, fn, u32(p.h), streams, share.slice, vector, stride, vectors, sum);
  int first = 0;
  bool writer = true;
  reduce_lanes<S::kPadded, C::lanes / 2, 1>(sum, lane, first, writer);
  if (writer) {
    KGEN_UNROLL
    for (int i = 0; i < (S::kPadded > C::lanes ? S::kPadded / C::lanes : 1); ++i)
      sums[wave * S::kPadded + first + i] = sum[i];
  }
  sync_lds();
  sum_waves<C>(share, sums, squares, local);
  if constexpr (S::kRanks > 1) {
    cluster_sync();
    sum_ranks<C>(share, local, totals);
    cluster_arrive();
  }
  sync_lds();

  if (!C::head && share.group == 0) {
    if constexpr (!C::head)
      write_mixes<C, S::kTokens, S::kRanks, false>(p, totals, share.token0, share.rank, post, comb);
  } else {
    float gates[S::kN];
    KGEN_UNROLL
    for (int i = 0; i < S::kN; ++i) gates[i] = gate<C>(p, totals + slot * S::kColumns, i);
    for (int v = thread_x() % S::kTokenThreads; v < columns && exists; v += S::kTokenThreads) {
      Packed<T, C::vec_h> stream[S::kN], result = {};
      KGEN_UNROLL
      for (int i = 0; i < S::kN; ++i)
        stream[i] = Packed<T, C::vec_h>::load(streams + (slot * S::kN + i) * share.slice + v * C::vec_h);
      KGEN_UNROLL
      for (int e = 0; e < C::vec_h; ++e) {
        float u = 0;
        KGEN_UNROLL
        for (int i = 0; i < S::kN; ++i) u = fma_f(gates[i], stream[i][e], u);
        result.set(e, u);
      }
      result.store(out + token * out_stride + share.h0 + i64(v) * C::vec_h);
    }
    if constexpr (!C::head) {
      for (int i = thread_x(); i < S::kTokens * S::kN; i += C::threads) {
        const int place = i / S::kN;
        if (place % S::kRanks != share.rank || share.token0 + place >= p.t) continue;
        const float* mine = totals + place * S::kColumns;
        write_post<C>(p, mine, inverse_rms<C>(p, mine), share.token0 + place, i % S::kN, post);
      }
    }
  }
  if constexpr (S::kRanks > 1) cluster_wait();  // the others may still read this block's LDS
}

}  // namespace mhc

template <class C, class P>
KGEN_DEVICE void mhc_pre_cluster(const P& p) {
  using T = typename C::dtype;
  mhc::cluster_mixes<C, mhc::StoredColumn>(p, static_cast<T*>(nullptr), p.post_mix, p.comb_mix, p.layer_input, p.ldl);
}
template <class C, class P>
KGEN_DEVICE void mhc_fused_cluster(const P& p) {
  mhc::cluster_mixes<C, mhc::SpreadColumn>(p, p.residual_out, p.post_mix_out, p.comb_mix_out, p.layer_input, p.ldl);
}
template <class C, class P>
KGEN_DEVICE void hc_head_cluster(const P& p) {
  using T = typename C::dtype;
  mhc::cluster_mixes<C, mhc::StoredColumn>(p, static_cast<T*>(nullptr), static_cast<float*>(nullptr),
                                           static_cast<float*>(nullptr), p.collapsed, p.ldc);
}

}  // namespace kgen
