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
  static constexpr int kBarrier = 0, kShares = 4, kSums = kShares + kTokens * kColumns * kRanks;
  static constexpr int kSquares = kSums + kWaves * kPadded, kConstants = kSquares + kWaves;
  static constexpr int kMixes = (kConstants + C::rows + 4 + 3) / 4 * 4;
  static constexpr int kWaveMixes = (kN + kN * kN + 3) / 4 * 4, kStreams = kMixes + C::spreads * kWaves * kWaveMixes;
  static_assert(kStreams * 4 == C::streams_at);

  int rank, group, row0, rows, row_groups;  // the group's rows of fn; as many waves share its elements
  int first_row, first_vector, stride;      // of this work-item: row of fn, vectors of the slice
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
    constexpr int kComb = kN * kN, kGates = C::head ? kN : 2 * kN;
    row0 = comb ? 2 * kN : 0;
    rows = comb ? kComb : kGates;
    row_groups = comb ? kComb / kRows : kGates / kRows;
    const int wave = uniform(thread_x() / C::lanes);
    first_row = row0 + (comb ? wave % (kComb / kRows) : wave % (kGates / kRows)) * kRows;
    stride = (comb ? kWaves / (kComb / kRows) : kWaves / (kGates / kRows)) * C::lanes;
    first_vector = (comb ? wave / (kComb / kRows) : wave / (kGates / kRows)) * C::lanes + thread_x() % C::lanes;
    token0 = i64(cluster / kGroups) * kTokens;
    constexpr int kWide = C::vec > C::vec_h ? C::vec : C::vec_h;
    slice = int((u32(p.h) / kWide + kRanks - 1) / kRanks * kWide);
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
      const int i = lane + k * C::lanes, j = i < kMixes ? i - kN : 0;
      mix[k] = *(i < kN ? p.post_mix + token * kN + i : p.comb_mix + token * kN * kN + j);
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

// Totals of a token: sums over the ranks' shares in LDS [1 + rows][rank].
template <int kRanks>
struct RankTotals {
  const float* shares;

  KGEN_DEVICE float operator[](int i) const {
    float share[kRanks];
    load_floats(shares + i * kRanks, share);
    float total = share[0];
    KGEN_UNROLL
    for (int r = 1; r < kRanks; ++r) total += share[r];
    return total;
  }
  KGEN_DEVICE RankTotals operator+(int i) const { return {shares + i * kRanks}; }
};

// The blocks that need a total of a token: those of the cluster for gates, one for what has one writer.
template <class C>
KGEN_DEVICE bool wants(const Clustered<C>& share, int rank, int slot, int column) {
  return (share.row0 == 0 && column <= int(C::n)) || slot % C::cluster == rank;
}

// Sums of a block's waves, its share of the totals, into the LDS of the blocks that need it.
template <class C>
KGEN_DEVICE void send_shares(const Clustered<C>& share, const float* sums, const float* squares, float* shares,
                             u64* barrier) {
  using S = Clustered<C>;
  for (int i = thread_x(); i < S::kTokens * (1 + S::kMostRows); i += C::threads) {
    const int slot = i / (1 + S::kMostRows), column = i % (1 + S::kMostRows), row = column - 1;
    if (column > share.rows) continue;
    float total = 0;
    if (column == 0) {
      KGEN_UNROLL
      for (int w = 0; w < S::kTokenWaves; ++w) total += squares[slot * S::kTokenWaves + w];
    } else {
      const float* sum = sums + row / S::kRows * S::kPadded + slot * S::kRows + row % S::kRows;
      for (int w = 0; w < S::kWaves; w += share.row_groups) total += sum[w * S::kPadded];
    }
    float* const to = shares + (slot * S::kColumns + (column == 0 ? 0 : share.row0 + column)) * S::kRanks + share.rank;
    if constexpr (S::kRanks == 1) {
      *to = total;
    } else {
      KGEN_UNROLL
      for (int r = 0; r < S::kRanks; ++r)
        if (wants(share, r, slot, column))
          store_cluster(cluster_address(lds_address(to), r), total, cluster_address(lds_address(barrier), r));
    }
  }
}

// `stored`: where the streams go that are made here.
template <class C, template <class, class> class ColumnOf, class T, class P>
KGEN_DEVICE void cluster_mixes(const P& params, T* stored, float* post, float* comb, T* out, i64 out_stride) {
  using S = Clustered<C>;
  const S share(params);
  const int wave = uniform(thread_x() / C::lanes), lane = thread_x() % C::lanes;
  float* const sums = lds<float>(S::kSums * 4);
  float* const squares = lds<float>(S::kSquares * 4);
  float* const shares = lds<float>(S::kShares * 4);
  u64* const barrier = lds<u64>(S::kBarrier * 4);
  T* const streams = lds<T>(S::kStreams * 4);
  const Staged<C, P> p(params, lds<float>(S::kConstants * 4));

  int awaited = 0;  // bytes from the ranks, this block's too
  if constexpr (S::kRanks > 1) {
    const int tokens = (S::kTokens - share.rank + S::kRanks - 1) / S::kRanks;
    awaited =
        share.row0 != 0 ? tokens * (1 + S::kN * S::kN) : S::kTokens * (1 + S::kN) + (C::head ? 0 : tokens * S::kN);
    awaited *= 4 * S::kRanks;
    if (thread_x() == 0) {
      barrier_make(lds_address(barrier), 1);
      barrier_fence();
      barrier_expect(lds_address(barrier), u32(awaited));
    }
    cluster_arrive_relaxed();
  }

  // What is needed first is asked for first.
  const int slot = thread_x() / S::kTokenThreads, columns = share.count / C::vec_h;
  const bool exists = share.token0 + slot < p.t;
  const i64 token = exists ? share.token0 + slot : p.t - 1;
  int column = thread_x() % S::kTokenThreads;
  ColumnOf<C, P> source;
  source.ask(params, token, lane);
  if (column < columns) source.load(params, token, share.h0 + i64(column) * C::vec_h);
  const Constants<C> constants(params);
  const int vectors = share.count / C::vec;
  const float* fn = p.fn + i64(share.first_row) * S::kN * p.h + share.h0;
  Weights<C> weights;
  load_steps<C>(weights, fn, u32(p.h), share.first_vector, share.stride, vectors);

  // The results' pages are looked up while the loads are on their way, not when the kernel could end.
  if (thread_x() == 0 && share.count > 0) {
    if (!C::head && share.group == 0) {
      prefetch(comb);
    } else {
      prefetch(out + share.token0 * out_stride + share.h0);
      if constexpr (ColumnOf<C, P>::kSpreads) prefetch(stored + share.token0 * (S::kN * p.h) + share.h0);
      if constexpr (!C::head) prefetch(post);
    }
  }

  float* const mixes = lds<float>(S::kMixes * 4) + wave * S::kWaveMixes;
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
  constants.keep(lds<float>(S::kConstants * 4));
  sync_lds();

  float sum[S::kPadded] = {};
  KGEN_NO_UNROLL
  for (int vector = share.first_vector; vector < vectors; vector += C::steps * share.stride)
    multiply_steps<C>(weights, fn, u32(p.h), streams, share.slice, vector, share.stride, vectors, sum);
  keep_wave_sums<S::kPadded, C::lanes>(sum, lane, sums + wave * S::kPadded);
  sync_lds();
  if constexpr (S::kRanks > 1) cluster_wait();  // the others' barriers exist
  send_shares<C>(share, sums, squares, shares, barrier);
  if constexpr (S::kRanks > 1) {
    if (awaited == 0) return;
    barrier_wait(lds_address(barrier), 0);  // nobody writes here any more, so the block may end when it likes
  } else {
    sync_lds();
  }
  const RankTotals<S::kRanks> totals{shares};

  if (!C::head && share.group == 0) {
    if constexpr (!C::head)
      write_mixes<C, S::kTokens, S::kRanks, false>(p, totals, share.token0, share.rank, post, comb);
  } else {
    float gates[S::kN];
    const auto mine = totals + slot * S::kColumns;
    const float inverse = inverse_rms<C>(p, mine);
    KGEN_UNROLL
    for (int i = 0; i < S::kN; ++i) gates[i] = gate<C>(p, mine, inverse, i);
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
        const auto of_place = totals + place * S::kColumns;
        write_post<C>(p, of_place, inverse_rms<C>(p, of_place), share.token0 + place, i % S::kN, post);
      }
    }
  }
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
