// mhc_fused_post_pre of some dozens of tokens in one kernel: a cluster takes 16 tokens and its blocks share h, the
// waves of a block share its part, and the streams stay in the registers of the work-items that made them
// (mhc_fragments.h) until the totals are known.
//
//   cluster   16 tokens                              rank r: `waves` x `steps` steps of 32 elements of h
//     wave    `steps` of them
//               streams, x → registers → new streams → memory, and as fragments in registers
//               fn → LDS of the lane that uses it, `depth` blocks of 8 terms ahead; no barrier: nobody else reads it
//     block   sums over the waves → LDS of the ranks that need them, counted by a barrier there
//               all: layer_input of their elements │ rank = token: post, comb
//
// Waves and ranks are summed in order: the same bits on every run.
#pragma once
#include "mhc_cluster.h"
#include "mhc_fragments.h"

namespace kgen {
namespace mhc {

template <class C>
struct FragmentCluster {
  static constexpr int kN = int(C::n), kMixes = kN + kN * kN, kMixPitch = (kMixes + 3) / 4 * 4;
  static constexpr int kTokens = 16, kStep = 32, kColumns = C::rows + 1, kRanks = C::cluster;
  static constexpr int kBlocks = C::tile_n / 8, kUnits = kBlocks * C::steps;  // of a wave
  static constexpr int kUnitBytes = kN * 512, kRingBytes = C::depth * kUnitBytes;
  static constexpr int kPitch = C::tile_n + 4;  // of the sums
  static_assert(kTokens * kPitch * 4 <= kRingBytes && C::depth <= kUnits);
  // LDS, in bytes
  static constexpr int kShares = 16, kMixesAt = kShares + 4 * kTokens * kColumns * kRanks;
  static constexpr int kSquares = kMixesAt + 4 * kTokens * kMixPitch, kConstants = kSquares + 4 * C::waves * kTokens;
  static constexpr int kRing = (kConstants + 4 * (C::rows + 3) + 15) / 16 * 16;
  static_assert(kRing == C::ring_at);

  // Whether a block needs a total: those of the cluster need the gates', one the others of a token.
  static KGEN_DEVICE bool wants(int rank, int slot, int column) { return column <= kN || slot % kRanks == rank; }
  // Bytes that come to it from all ranks, itself too.
  static KGEN_DEVICE u32 awaited(int rank) {
    const int own = (kTokens - rank + kRanks - 1) / kRanks;
    return u32(4 * kRanks * (kTokens * (1 + kN) + own * (C::rows - kN)));
  }
};

template <class C, class P>
KGEN_DEVICE void fragment_cluster(const P& params) {
  using S = FragmentCluster<C>;
  using T = typename C::dtype;
  using Instructions = MmaSyncInstructions<C::arch>;
  constexpr int kN = S::kN;
  const int thread = thread_x(), wave = uniform(thread / 32), lane = thread % 32;
  const int rank = block_x() % S::kRanks;
  const i64 token0 = i64(block_x() / S::kRanks) * S::kTokens;
  u64* const barrier = lds<u64>(0);
  float* const shares = lds<float>(S::kShares);
  float* const mixes = lds<float>(S::kMixesAt);
  float* const squares = lds<float>(S::kSquares);
  const Staged<C, P> p(params, lds<float>(S::kConstants));

  // What is needed first is asked for first.
  const int last = p.t - token0 < S::kTokens ? int(p.t - token0) - 1 : S::kTokens - 1;
  const u32 stride = u32(p.h);
  const T* const source = p.residual + token0 * p.ldr;
  const T* const x = p.x + token0 * p.ldx;
  const int all_steps = int((p.h + S::kStep - 1) / S::kStep), share = (all_steps + S::kRanks - 1) / S::kRanks;
  const int first_step = rank * share + wave;
  Vec<u32, 4> from[C::steps][2][kN + 1];
  int h[C::steps];
  bool exists[C::steps];
  KGEN_UNROLL
  for (int k = 0; k < C::steps; ++k) {
    h[k] = (first_step + k * C::waves) * S::kStep + lane % 4 * 8;
    exists[k] = k * C::waves + wave < share && h[k] < int(p.h);
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const u32 slot = u32(min_int(lane / 4 + 8 * half, last)), at = slot * u32(p.ldr) + u32(h[k]);
      KGEN_UNROLL
      for (int s = 0; s <= kN; ++s) {
        from[k][half][s] = Vec<u32, 4>{};
        const T* place = s < kN ? source + (at + u32(s) * stride) : x + (slot * u32(p.ldx) + u32(h[k]));
        if (exists[k]) from[k][half][s] = load_vec<u32, 4>(reinterpret_cast<const u32*>(place));
      }
    }
  }
  float mix[(S::kTokens * S::kMixes + C::threads - 1) / C::threads];
  KGEN_UNROLL
  for (int i = 0; i < S::kTokens * S::kMixes; i += C::threads) {
    const int at = i + thread < S::kTokens * S::kMixes ? i + thread : 0, m = at % S::kMixes;
    const i64 token = token0 + min_int(at / S::kMixes, last);
    mix[i / C::threads] = m < kN ? p.post_mix[token * kN + m] : p.comb_mix[token * kN * kN + m - kN];
  }
  const Constants<C> constants(params);
  // The results' pages are looked up while the loads are on their way, not when the kernel could end.
  if (thread == 0 && first_step < all_steps) {
    prefetch(params.layer_input + token0 * p.ldl + i64(first_step) * S::kStep);
    prefetch(params.residual_out + token0 * (kN * p.h) + i64(first_step) * S::kStep);
    prefetch(params.post_mix_out);
    prefetch(params.comb_mix_out);
  }
  // Unit u: block u % kBlocks of the terms of step u / kBlocks.
  const int ring = S::kRing + wave * S::kRingBytes + lane * 16;
  const bf16* const fn = p.packed + i64(first_step) * (S::kBlocks * S::kUnitBytes / 2) + lane * 8;
  const auto fetch = [&](int unit) {
    if (unit < S::kUnits && exists[unit / S::kBlocks < C::steps ? unit / S::kBlocks : 0]) {
      const u32 to = lds_address(lds_base()) + u32(ring + unit % C::depth * S::kUnitBytes);
      const bf16* const at =
          fn + (unit / S::kBlocks * (C::waves * S::kBlocks) + unit % S::kBlocks) * (S::kUnitBytes / 2);
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) async_copy<16>(to + u32(s * 512), at + s * 256);
    }
    async_commit();
  };
  KGEN_UNROLL
  for (int unit = 0; unit < C::depth; ++unit) fetch(unit);
  if constexpr (S::kRanks > 1) {
    if (thread == 0) {
      barrier_make(lds_address(barrier), 1);
      barrier_fence();
      barrier_expect(lds_address(barrier), S::awaited(rank));
    }
    cluster_arrive_relaxed();
  }
  KGEN_UNROLL
  for (int i = 0; i < S::kTokens * S::kMixes; i += C::threads)
    if (i + thread < S::kTokens * S::kMixes)
      mixes[(i + thread) / S::kMixes * S::kMixPitch + (i + thread) % S::kMixes] = mix[i / C::threads];
  constants.keep(lds<float>(S::kConstants));
  sync_lds();

  u32 a[C::steps][kN][2][4];
  float square[2] = {}, total[S::kBlocks][4] = {};
  T* const out = p.residual_out + token0 * (kN * p.h);
  KGEN_UNROLL
  for (int k = 0; k < C::steps; ++k) {
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      sync_wave();  // keeps the halves apart, as in mhc_fragments.h
      const int slot = lane / 4 + 8 * half;
      square[half] += make_fragments<C, T>(from[k][half], mixes + slot * S::kMixPitch, half, a[k]);
      if (slot <= last && exists[k]) store_fragments<C>(out, u32(slot * kN) * stride + u32(h[k]), stride, half, a[k]);
    }
  }
  KGEN_UNROLL
  for (int unit = 0; unit < S::kUnits; ++unit) {
    const int k = unit / S::kBlocks, j = unit % S::kBlocks;
    async_wait<C::depth - 1>();
    if (k * C::waves + wave < share) {
      u32 acc[2][4] = {};
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) {
        Vec<u32, 4> b = load_vec<u32, 4>(lds<u32>(ring + unit % C::depth * S::kUnitBytes + s * 512));
        if (!exists[k]) b = Vec<u32, 4>{};  // no copy came: what lies there may be no number
        Instructions::template multiply<bf16>(acc[0], a[k][s][0], b[0], b[1]);
        Instructions::template multiply<bf16>(acc[1], a[k][s][1], b[2], b[3]);
      }
      KGEN_UNROLL
      for (int e = 0; e < 4; ++e) total[j][e] += bit_cast<float>(acc[0][e]) + bit_cast<float>(acc[1][e]);
    }
    fetch(unit + C::depth);
  }

  // The wave's sums take the place of its ring.
  async_wait<0>();
  sync_wave();
  float* const sums = lds<float>(S::kRing);
  constexpr int kWaveFloats = S::kRingBytes / 4;
  KGEN_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int slot = lane / 4 + 8 * half;
    KGEN_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
      Vec<float, 2> pair;
      pair[0] = total[j][2 * half];
      pair[1] = total[j][2 * half + 1];
      store_vec<float, 2>(sums + wave * kWaveFloats + slot * S::kPitch + j * 8 + lane % 4 * 2, pair);
    }
    square[half] += shuffle_xor(square[half], 1);
    square[half] += shuffle_xor(square[half], 2);
    if (lane % 4 == 0) squares[wave * S::kTokens + slot] = square[half];
  }
  sync_lds();
  if constexpr (S::kRanks > 1) cluster_wait();  // the others' barriers exist
  for (int i = thread; i < S::kTokens * S::kColumns; i += C::threads) {
    const int slot = i / S::kColumns, column = i % S::kColumns;
    float sum = 0;
    KGEN_UNROLL
    for (int w = 0; w < C::waves; ++w) {
      if (column == 0) {
        sum += squares[w * S::kTokens + slot];
      } else {
        const float* terms = sums + w * kWaveFloats + slot * S::kPitch + column - 1;
        float rest = terms[C::rows];
        if (column <= kN) rest += terms[2 * C::rows];
        sum += terms[0] + rest;
      }
    }
    float* const to = shares + (slot * S::kColumns + column) * S::kRanks + rank;
    KGEN_UNROLL
    for (int r = 0; r < S::kRanks; ++r)
      if (S::wants(r, slot, column))
        store_cluster(cluster_address(lds_address(to), r), sum, cluster_address(lds_address(barrier), r));
  }
  barrier_wait(lds_address(barrier), 0);  // nobody writes here any more, so the block may end when it likes
  const RankTotals<S::kRanks> totals{shares};

  write_mixes<C, S::kTokens, S::kRanks, true>(p, totals, token0, rank, p.post_mix_out, p.comb_mix_out);
  KGEN_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int slot = lane / 4 + 8 * half;
    const auto mine = totals + slot * S::kColumns;
    const float inverse = inverse_rms<C>(p, mine);
    float gates[kN];
    KGEN_UNROLL
    for (int i = 0; i < kN; ++i) gates[i] = gate<C>(p, mine, inverse, i);
    KGEN_UNROLL
    for (int k = 0; k < C::steps; ++k) {
      if (!exists[k] || slot > last) continue;
      Vec<u32, 4> result;
      KGEN_UNROLL
      for (int w = 0; w < 4; ++w) {
        float low = 0, high = 0;
        KGEN_UNROLL
        for (int i = 0; i < kN; ++i) {
          const u32 pair = a[k][i][w / 2][w % 2 * 2 + half];
          low = fma_f(gates[i], element(pair, 0), low);
          high = fma_f(gates[i], element(pair, 1), high);
        }
        result[w] = rounded_pair<T>(low, high);
      }
      store_vec<u32, 4>(reinterpret_cast<u32*>(p.layer_input + (token0 + slot) * p.ldl + h[k]), result);
    }
  }
}

}  // namespace mhc

template <class C, class P>
KGEN_DEVICE void mhc_fused_fragment_cluster(const P& p) {
  mhc::fragment_cluster<C>(p);
}

}  // namespace kgen
