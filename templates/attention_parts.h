// Rows of O from parts in LDS, of one block or of all blocks of a cluster; decode_attention's and attention's kernels.
//
//   part: some of the keys; its row of O, not normalised, with the row's maximum and sum behind it, lies in LDS
//   block: o = sum_p 2^(max_p - max) O_p / sum_p 2^(max_p - max) sum_p, four columns a work-item
//   cluster: each block sends four columns with maximum and sum to the block that finishes them
#pragma once
#include "columns.h"
#include "reduce.h"

namespace kgen {

// 1 / sqrt(d), while compiling.
KGEN_HOST_DEVICE constexpr float reciprocal_root(int d) {
  double root = d < 1 ? 1.0 : double(d);
  for (int i = 0; i < 20; ++i) root = 0.5 * (root + (d < 1 ? 1.0 : double(d)) / root);
  return float(1.0 / root);
}
template <int kD, class P>
KGEN_DEVICE float attention_scale(const P& p) {
  constexpr float kDefault = reciprocal_root(kD);
  return p.scale == 0.0f ? kDefault : p.scale;
}

// kColumns columns of a row of O, its maximum and sum, over kCount parts in LDS: part n has columns at from + n *
// step, maximum and sum at stats + n * stats_step.
template <int kCount, int kColumns>
KGEN_DEVICE void add_parts(const float* from, int step, const float* stats, int stats_step, float& top, float& total,
                           float (&values)[kColumns]) {
  if constexpr (kCount == 1) {
    top = stats[0];
    total = stats[1];
    load_columns<kColumns>(from, kColumns, values);
  } else {
    constexpr int kAtOnce = kCount < 4 ? kCount : 4;
    static_assert(kCount % kAtOnce == 0 && kColumns == 4);
    top = negative_infinity();
    total = 0.0f;
    KGEN_UNROLL
    for (int c = 0; c < kColumns; ++c) values[c] = 0.0f;
    KGEN_NO_UNROLL
    for (int p = 0; p < kCount; p += kAtOnce) {
      float part_top[kAtOnce], part_total[kAtOnce], part[kAtOnce][kColumns];
      KGEN_UNROLL
      for (int n = 0; n < kAtOnce; ++n) {
        part_top[n] = stats[n * stats_step];
        part_total[n] = stats[n * stats_step + 1];
        const Vec<float, 4> four = load_vec<float, 4>(from + n * step);
        KGEN_UNROLL
        for (int c = 0; c < kColumns; ++c) part[n][c] = four[c];
      }
      from += kAtOnce * step;
      stats += kAtOnce * stats_step;
      const float before = top;
      KGEN_UNROLL
      for (int n = 0; n < kAtOnce; ++n) top = Maximum()(top, part_top[n]);
      const float shift = softmax_shift(top), rescale = exp2_raw(before - shift);  // at first 0 * 0
      total *= rescale;
      KGEN_UNROLL
      for (int c = 0; c < kColumns; ++c) values[c] *= rescale;
      KGEN_UNROLL
      for (int n = 0; n < kAtOnce; ++n) {
        const float weight = exp2_raw(part_top[n] - shift);
        total = fma_f(weight, part_total[n], total);
        KGEN_UNROLL
        for (int c = 0; c < kColumns; ++c) values[c] = fma_f(weight, part[n][c], values[c]);
      }
    }
  }
}

// Shared by the blocks of a cluster, L::kBlocks of them, whose parts 0 .. L::kParts-1 of row r lie in LDS from byte 0
// on, at float r * L::kRowStep + part * L::kPartStep, maximum and sum at L::kMaxAt from there. An item is four columns
// of a row; item n goes to place n / kBlocks of block n % kBlocks: LDS bytes L::kReceived [block][place][4] floats,
// L::kReceivedStats [block][place][2], L::kBarrier 8.
template <class L>
struct ClusterParts {
  // One work-item, before any block sends: how many bytes this block will get.
  static KGEN_DEVICE void expect(int block, int items) {
    const u32 barrier = lds_address(lds_base()) + L::kBarrier;
    barrier_make(barrier, 1);
    barrier_fence();
    barrier_expect(barrier, u32((items - block + L::kBlocks - 1) / L::kBlocks * L::kBlocks * 24));
  }
  // What this block has to the blocks that finish it, then the own items: a block ends when all has arrived, so none
  // sends to one that ended. finish(row, column, maximum, sum, values).
  template <class Finish>
  static KGEN_DEVICE void exchange(int block, int items, const Finish& finish) {
    const u32 base = lds_address(lds_base());
    cluster_wait();  // for cluster_arrive_relaxed() of blocks that expect and whose kReceived is free
    float top, total, values[4];
    KGEN_NO_UNROLL
    for (int item = thread_x(); item < items; item += L::kThreads) {
      const float* from = lds<float>(0) + item / L::kPerRow * L::kRowStep;
      add_parts<L::kParts>(from + item % L::kPerRow * 4, L::kPartStep, from + L::kMaxAt, L::kPartStep, top, total,
                           values);
      const int to = item % L::kBlocks, place = block * L::kPlaces + item / L::kBlocks;
      const u32 barrier = cluster_address(base + u32(L::kBarrier), to);
      const float stats[2] = {top, total};
      send_cluster(cluster_address(base + u32(L::kReceived + place * 16), to), values, barrier);
      send_cluster(cluster_address(base + u32(L::kReceivedStats + place * 8), to), stats, barrier);
    }
    barrier_wait(base + u32(L::kBarrier), 0);
    KGEN_NO_UNROLL
    for (int item = thread_x() * L::kBlocks + block; item < items; item += L::kThreads * L::kBlocks) {
      const int place = item / L::kBlocks;
      add_parts<L::kBlocks>(lds<float>(L::kReceived + place * 16), L::kPlaces * 4,
                            lds<float>(L::kReceivedStats + place * 8), L::kPlaces * 2, top, total, values);
      finish(item / L::kPerRow, item % L::kPerRow * 4, top, total, values);
    }
  }
};

}  // namespace kgen
