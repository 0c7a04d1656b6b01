// What kernels by warpgroups on sm_90 need below the way their sums leave: a ring of stages that one work-item has the
// copy engine fill (tensor_copy.h) and warpgroups multiply (mma/wgmma.h), and blocks that stay and walk the tiles, so
// that the next tile's operands come while sums are stored.
//
//   warpgroups 1 … n      wait full, wgmma, wait for the stage before ──▶ empty
//   the rest of a block   one work-item: wait empty, expect, copy     ──▶ full
//
//   Warpgroups share a tile, or (teams) take tiles in turns, each a whole one: one team stores while the other
//   multiplies.
//
//   LDS at barriers_at: a full and an empty barrier a stage
//
//   A cluster is cluster_m x cluster_n blocks, neighbours in rows and columns of tiles. Blocks of a row of it may share
//   what is copied of A, those of a column what is copied of B; empty counts the consumers of all blocks that a block
//   copies to, its row and its column.
//
// Names read from Config: warpgroups (that multiply), stages, cluster_m, group_m, barriers_at (LDS bytes); cluster_n
// and teams, 1 where there are none; multiply() and stage() alone: stage_bytes.
#pragma once
#include "mma/wgmma.h"
#include "prelude.h"
#include "tensor_copy.h"

namespace kgen {

// What a Config may leave out.
namespace ring_config {
template <class C>
constexpr int kClusterN = 1;
template <class C>
  requires requires { C::cluster_n; }
constexpr int kClusterN<C> = C::cluster_n;
template <class C>
constexpr int kTeams = 1;
template <class C>
  requires requires { C::teams; }
constexpr int kTeams<C> = C::teams;
}  // namespace ring_config

template <class C>
struct WarpgroupRing {
  static constexpr int kClusterM = C::cluster_m, kClusterN = ring_config::kClusterN<C>;
  static constexpr int kCluster = kClusterM * kClusterN, kTeams = ring_config::kTeams<C>;
  static constexpr int kTerms = 64, kRowBytes = 128;      // of a row of a stage
  static constexpr int kGroups = C::warpgroups / kTeams;  // warpgroups that share a tile
  static constexpr int kTurns = 4;                        // first of the teams' barriers; warpgroups have those below
  static_assert(kTeams <= 2);

  static KGEN_DEVICE u32 lds_at(int byte) { return lds_address(lds_base()) + u32(byte); }
  static KGEN_DEVICE u32 stage(int s) { return lds_at(s * C::stage_bytes); }
  static KGEN_DEVICE u32 full(int s) { return lds_at(C::barriers_at + 16 * s); }
  static KGEN_DEVICE u32 empty(int s) { return full(s) + 8; }
  // Of this block in its cluster.
  static KGEN_DEVICE int cluster_row() { return kClusterM > 1 ? cluster_rank() / kClusterN : 0; }
  static KGEN_DEVICE int cluster_column() { return kClusterN > 1 ? cluster_rank() % kClusterN : 0; }

  // Blocks of this one's row and column of the cluster, a bit each.
  static KGEN_DEVICE int row_blocks() { return ((1 << kClusterN) - 1) << (cluster_row() * kClusterN); }
  static KGEN_DEVICE int column_blocks() {
    int blocks = 0;
    KGEN_UNROLL
    for (int i = 0; i < kClusterM; ++i) blocks |= 1 << (i * kClusterN);
    return blocks << cluster_column();
  }

  // Where a role is: a stage, and the phase of its barriers.
  struct Place {
    int stage = 0;
    u32 phase = 0;
    bool awaited = false;  // by the other team
    KGEN_DEVICE void advance() {
      if (++stage == C::stages) {
        stage = 0;
        phase ^= 1;
      }
    }
    KGEN_DEVICE void skip(int count) {
      stage += count;
      phase ^= u32(stage / C::stages) & 1;
      stage %= C::stages;
    }
  };

  // Where this block's tile of cluster `index` lies: rows x columns of clusters, then those of the next batch. Groups
  // of group_m rows are walked together, so that neighbours in time share operands in the L2.
  struct Tile {
    int row, column, batch;
  };
  static KGEN_DEVICE Tile tile_of(int index, int rows, int columns) {
    const int batch = index / (rows * columns);
    index -= batch * (rows * columns);
    const int group = index / (C::group_m * columns), first = group * C::group_m;
    const int height = rows - first < C::group_m ? rows - first : C::group_m;
    const int within = index - group * (C::group_m * columns), at = within / height;
    return {(first + within - at * height) * kClusterM + cluster_row(), at * kClusterN + cluster_column(), batch};
  }

  // Walks the tiles in both roles. copy(tile, place): begins and has copied each stage of a tile; called by one
  // work-item. use(tile, group, place): multiplies them and stores; called by warpgroup `group`. `steps`: stages of any
  // tile, where there are teams. Where kCopying is not 0 the last warpgroup copies, and those are the registers of its
  // lanes and of the others'; else a last wave does.
  template <int kCopying, int kMultiplying, class Copy, class Use>
  static KGEN_DEVICE void walk(int batches, int rows, int columns, int steps, const Copy& copy, const Use& use) {
    const int thread = thread_x(), group = uniform(int(u32(thread) / 128u));
    const int clusters = int(u32(grid_x()) / u32(kCluster)), first = int(u32(block_x()) / u32(kCluster));
    const int tiles = batches * rows * columns;
    if (thread == 0) {
      KGEN_UNROLL
      for (int s = 0; s < C::stages; ++s) {
        barrier_make(full(s), 1);
        barrier_make(empty(s), kGroups * (kClusterM + kClusterN - 1));
      }
      barrier_fence();
    }
    if constexpr (kCluster > 1)
      cluster_sync();
    else
      sync_block();
    if (group == C::warpgroups) {
      if constexpr (kCopying != 0) fewer_registers<kCopying>();
      if (thread == C::warpgroups * 128) {
        Place at;
        KGEN_NO_UNROLL
        for (int index = first; index < tiles; index += clusters) copy(tile_of(index, rows, columns), at);
      }
      sync_wave();
    } else {
      if constexpr (kCopying != 0) more_registers<kMultiplying>();
      Place at;
      const int team = kTeams > 1 ? group / kGroups : 0;
      if constexpr (kTeams > 1) at.skip(team * steps);
      KGEN_NO_UNROLL
      for (int index = first + team * clusters; index < tiles; index += kTeams * clusters) {
        if constexpr (kTeams > 1) {
          at.awaited = index + clusters < tiles;
          // A full barrier tells two phases apart: nobody waits at one before the stage before it was full.
          if (index != first) sync_part(kTurns + team, C::warpgroups * 128);
        }
        use(tile_of(index, rows, columns), group, at);
        if constexpr (kTeams > 1) at.skip((kTeams - 1) * steps);
      }
      if (lane_id() == 0) tensor_store_wait();  // the copy engine has read what it stores
      sync_wave();
    }
    if constexpr (kCluster > 1) cluster_sync();  // nobody's LDS goes while others write or arrive there
  }

  // The stage is free, and will be full when `bytes` have come.
  static KGEN_DEVICE void begin(const Place& at, u32 bytes) {
    barrier_wait(empty(at.stage), at.phase ^ 1);
    barrier_expect(full(at.stage), bytes);
  }

  // The stage may be written again, as far as this warpgroup goes: to all blocks that copy to it.
  static KGEN_DEVICE void release(int s) {
    const int lane = int(u32(thread_x()) % 128u);
    if constexpr (kCluster > 1) {
      if (lane < kCluster && (lane / kClusterN == cluster_row() || lane % kClusterN == cluster_column()))
        barrier_arrive_cluster(cluster_address(empty(s), lane));
    } else {
      if (lane == 0) barrier_arrive(empty(s));
    }
  }

  // sums = A.B^T of a tile's stages, rows of 64 terms of A at byte a_at of a stage, of B at b_at. begun(): called while
  // the first stage is multiplied.
  template <class T, int kBlocks, int kSums, class Begun>
  static KGEN_DEVICE void multiply(float (&sums)[kBlocks][kSums], int a_at, int b_at, int steps, Place& at,
                                   const Begun& begun) {
    int before = -1;  // the stage whose products may still be under way
    KGEN_NO_UNROLL
    for (int step = 0; step < steps; ++step) {
      barrier_wait(full(at.stage), at.phase);
      const u64 a = wgmma_operand(stage(at.stage) + u32(a_at)), b = wgmma_operand(stage(at.stage) + u32(b_at));
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
      wgmma_fence();
      KGEN_UNROLL
      for (int k = 0; k < kTerms / 16; ++k) {
        KGEN_UNROLL
        for (int i = 0; i < kBlocks; ++i)
          wgmma<T>(sums[i], a + u64(i * (64 * kRowBytes / 16) + 2 * k), b + u64(2 * k), step > 0 || k > 0);
      }
      wgmma_commit();
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
      if (before < 0) begun();
      wgmma_wait<1>();
      if (before >= 0) release(before);
      before = at.stage;
      at.advance();
    }
    if constexpr (kTeams > 1) {
      if (at.awaited) arrive_part(kTurns + 1 - int(u32(thread_x()) / (128u * kGroups)), C::warpgroups * 128);
    }
    wgmma_wait<0>();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    if (before >= 0) release(before);
  }
};

}  // namespace kgen
