// Products of tiles on sm_90's matrix units: a warpgroup copies (tensor_copy.h), others multiply (mma/wgmma.h), and the
// blocks stay and walk the tiles, so that the next tile's operands come while sums are stored.
//
//   block tile tile_m x tile_n        LDS: stages, each 64 terms [A tile_m rows | B tile_n rows] of 128 permuted bytes,
//   ┌──────────────┐                       then a full and an empty barrier a stage, then a slab of sums for each wave
//   │ warpgroup 1  │ tile_m/groups
//   ├──────────────┤ rows each, in    producer: wait empty, expect, copy      ──▶ full
//   │ warpgroup 2  │ blocks of 64     consumers: wait full, wgmma, wait for the stage before ──▶ empty
//   └──────────────┘                  wave w: rows 16w .. 16w+15 of each block of 64, lanes as in wgmma.h
//
//   Sums leave by one of two ways: through the slabs, a part of a row for each lane, or finished in pairs of columns
//   where they lie, to a tile of outputs in LDS that the copy engine takes away during the next tile's products
//   (out_store).
//
//   cluster_m blocks take neighbouring rows of tiles: each copies its part of B's rows to all of them, so B passes from
//   the L2 once; an empty barrier counts the consumers of all.
//
// Names read from Config: dtype, out_dtype, tile_m, tile_n, warpgroups (that multiply), stages, cluster_m, group_m,
// barriers_at, slabs_at (LDS bytes), out_store.
#pragma once
#include "epilogue.h"
#include "mma/wgmma.h"
#include "prelude.h"
#include "tensor_copy.h"

namespace kgen {

template <class C>
struct WarpgroupProduct {
  using T = typename C::dtype;
  static_assert(sizeof(T) == 2);
  static constexpr int kTerms = 64;  // of a stage: rows of 128 bytes
  static constexpr int kRowBytes = 128;
  static constexpr int kBlocks = C::tile_m / (64 * C::warpgroups);  // of 64 rows that a warpgroup has
  static constexpr int kABytes = C::tile_m * kRowBytes, kBBytes = C::tile_n * kRowBytes;
  static constexpr int kStageBytes = kABytes + kBBytes;
  static constexpr int kSums = C::tile_n / 2;  // of a lane in a block
  using Sums = float[kBlocks][kSums];
  static constexpr int kColumns = 16 / int(sizeof(typename C::out_dtype));  // of a lane on the way out
  static constexpr int kSlabColumns = C::tile_n % 32 == 0 ? 32 : 16;
  static constexpr int kSlabPitch = kSlabColumns + 8;               // puts pairs of 4 rows into all banks
  static constexpr int kItems = 16 * kSlabColumns / kColumns / 32;  // parts of rows in a slab for each lane
  static constexpr int kSlabs = C::tile_n / kSlabColumns;           // of a block of rows
  // Boxes of outputs in LDS: 64 rows of up to 128 bytes, permuted as tensor maps have it.
  static constexpr int kBoxColumns = C::tile_n % 64 == 0 ? 64 : C::tile_n % 32 == 0 ? 32 : 16;
  static constexpr int kBoxBytes = 64 * kBoxColumns * 2;
  static_assert(C::tile_m % (64 * C::warpgroups) == 0 && C::tile_n % 16 == 0 && C::tile_n % (8 * C::cluster_m) == 0);

  static KGEN_DEVICE u32 stage(int s) { return lds_address(lds_base()) + u32(s * kStageBytes); }
  static KGEN_DEVICE u32 full(int s) { return lds_address(lds_base()) + u32(C::barriers_at + 16 * s); }
  static KGEN_DEVICE u32 empty(int s) { return full(s) + 8; }

  // A ring's place: stages and the phase of their barriers.
  struct Place {
    int stage = 0;
    u32 phase = 0;
    KGEN_DEVICE void advance() {
      if (++stage == C::stages) {
        stage = 0;
        phase ^= 1;
      }
    }
  };

  static KGEN_DEVICE int cluster_row() { return C::cluster_m > 1 ? cluster_rank() : 0; }

  // Where this block's tile of cluster `index` lies, of rows (of clusters) x columns: groups of group_m rows are walked
  // together, so that neighbours in time share operands in the L2.
  struct Tile {
    int row, column, batch;
  };
  static KGEN_DEVICE Tile tile_of(int index, int rows, int columns) {
    const int batch = index / (rows * columns);
    index -= batch * (rows * columns);
    const int group = index / (C::group_m * columns), first = group * C::group_m;
    const int height = rows - first < C::group_m ? rows - first : C::group_m;
    const int within = index - group * (C::group_m * columns), column = within / height;
    return {(first + within - column * height) * C::cluster_m + cluster_row(), column, batch};
  }

  // m x n tiles of each of `batches` products of `steps` stages. copy(tile, step, a, b, barrier): has the operands of a
  // step copied, B by copy_b(); called by one work-item. take(sums, group, tile): stores a warpgroup's sums, by
  // store_rows() or store_boxes().
  template <class Copy, class Take>
  static KGEN_DEVICE void walk(int batches, int m, int n, int steps, const Copy& copy, const Take& take) {
    const int rows = (m + C::tile_m * C::cluster_m - 1) / (C::tile_m * C::cluster_m);
    const int columns = (n + C::tile_n - 1) / C::tile_n;
    const int thread = thread_x(), group = uniform(int(u32(thread) / 128u));
    const int clusters = int(u32(grid_x()) / u32(C::cluster_m)), cluster = int(u32(block_x()) / u32(C::cluster_m));
    const int tiles = batches * rows * columns;
    if (thread == 0) {
      KGEN_UNROLL
      for (int s = 0; s < C::stages; ++s) {
        barrier_make(full(s), 1);
        barrier_make(empty(s), C::warpgroups * C::cluster_m);
      }
      barrier_fence();
    }
    if constexpr (C::cluster_m > 1)
      cluster_sync();
    else
      sync_block();
    if (group == C::warpgroups) {
      if constexpr (C::warpgroups > 1) fewer_registers<56>();
      if (thread == C::warpgroups * 128) {
        Place at;
        KGEN_NO_UNROLL
        for (int index = cluster; index < tiles; index += clusters) {
          const Tile tile = tile_of(index, rows, columns);
          KGEN_NO_UNROLL
          for (int step = 0; step < steps; ++step) {
            barrier_wait(empty(at.stage), at.phase ^ 1);
            barrier_expect(full(at.stage), kStageBytes);
            copy(tile, step, stage(at.stage), stage(at.stage) + kABytes, full(at.stage));
            at.advance();
          }
        }
      }
    } else {
      if constexpr (C::warpgroups > 1) more_registers<224>();
      Place at;
      Sums sums;
      KGEN_NO_UNROLL
      for (int index = cluster; index < tiles; index += clusters) {
        const Tile tile = tile_of(index, rows, columns);
        multiply(sums, group, steps, at);
        take(sums, group, tile);
      }
      if (thread % 128 == 0) tensor_store_wait();  // the copy engine has read what it stores
    }
    if constexpr (C::cluster_m > 1) cluster_sync();  // nobody's LDS goes while others write or arrive there
  }

  // B's rows of this block, of those from `row` on, to all blocks of the cluster. (Sharing A's rows as well, in
  // clusters of two columns or of four blocks, was slower on an H100: fewer of those clusters fit.)
  static KGEN_DEVICE void copy_b(u32 lds, const TensorMap* map, int term, i64 row, int batch, u32 barrier) {
    if constexpr (C::cluster_m > 1) {
      const int first = cluster_row() * (C::tile_n / C::cluster_m);
      tensor_copy_to(lds + u32(first * kRowBytes), map, term, int(row) + first, batch, barrier,
                     (1 << C::cluster_m) - 1);
    } else {
      tensor_copy(lds, map, term, int(row), batch, barrier);
    }
  }

  // A wave's 16 rows of each block, kSlabColumns columns at a time, through its slab of LDS: lanes have pairs of
  // columns, and take parts of rows. finish(row, column, values, operands): kColumns sums of a row of the tile; each
  // lane calls it for its own. ahead(row, column): what finish() will need, read a slab before.
  template <class Ahead, class Finish>
  static KGEN_DEVICE void store_rows(const Sums& sums, int group, const Ahead& ahead, const Finish& finish) {
    constexpr int kPerRow = kSlabColumns / kColumns;
    const int wave = int(u32(thread_x()) / 32u), lane = lane_id();
    float* const slab = lds<float>(C::slabs_at + wave * (16 * kSlabPitch * int(sizeof(float))));
    const int first_row = group * (kBlocks * 64) + wave % 4 * 16;
    using Operands = decltype(ahead(0, 0));
    Operands next[kItems];
    const auto read_ahead = [&](int n) {  // for slab n, counted through all blocks
      KGEN_UNROLL
      for (int item = 0; item < kItems; ++item) {
        const int place = item * 32 + lane;
        next[item] = ahead(first_row + n / kSlabs * 64 + place / kPerRow,
                           n % kSlabs * kSlabColumns + place % kPerRow * kColumns);
      }
    };
    read_ahead(0);
    KGEN_UNROLL
    for (int n = 0; n < kBlocks * kSlabs; ++n) {
      const int i = n / kSlabs, from = n % kSlabs * kSlabColumns;
      KGEN_UNROLL
      for (int j = 0; j < kSlabColumns / 8; ++j) {
        KGEN_UNROLL
        for (int half = 0; half < 2; ++half) {
          Vec<float, 2> pair;
          pair[0] = sums[i][from / 2 + 4 * j + 2 * half];
          pair[1] = sums[i][from / 2 + 4 * j + 2 * half + 1];
          store_vec<float, 2>(slab + (lane / 4 + 8 * half) * kSlabPitch + 8 * j + lane % 4 * 2, pair);
        }
      }
      Operands now[kItems];
      KGEN_UNROLL
      for (int item = 0; item < kItems; ++item) now[item] = next[item];
      if (n + 1 < kBlocks * kSlabs) read_ahead(n + 1);
      sync_wave();
      KGEN_UNROLL
      for (int item = 0; item < kItems; ++item) {
        const int place = item * 32 + lane, row = place / kPerRow, column = place % kPerRow * kColumns;
        float values[kColumns];
        KGEN_UNROLL
        for (int c = 0; c < kColumns; c += 4) {
          const auto four = load_vec<float, 4>(slab + row * kSlabPitch + column + c);
          KGEN_UNROLL
          for (int e = 0; e < 4; ++e) values[c + e] = four[e];
        }
        finish(first_row + i * 64 + row, from + column, values, now[item]);
      }
      sync_wave();
    }
  }

  // Each pair of columns is finished in its lane: finish(row, column, pair, operands) makes two outputs, a word. Then
  // the copy engine stores them at the tile's row and column through `map`. ahead(row, column): what finish() will
  // need, read for 16 columns (4 pairs) while the 16 before them are finished.
  template <class Ahead, class Finish>
  static KGEN_DEVICE void store_boxes(const Sums& sums, int group, const TensorMap* map, i64 row, i64 column, int batch,
                                      const Ahead& ahead, const Finish& finish) {
    constexpr int kPairs = 4, kParts = kBlocks * C::tile_n / 16;
    const int thread = int(u32(thread_x()) % 128u), lane = lane_id();
    const int at = C::slabs_at + group * (kBlocks * C::tile_n / kBoxColumns * kBoxBytes);
    const int first_row = group * (kBlocks * 64) + thread / 32 * 16 + lane / 4;
    using Operands = decltype(ahead(0, 0));
    Operands next[kPairs];
    const auto read_ahead = [&](int part) {
      KGEN_UNROLL
      for (int e = 0; e < kPairs; ++e)
        next[e] =
            ahead(first_row + part * 16 / C::tile_n * 64 + e % 2 * 8, part * 16 % C::tile_n + e / 2 * 8 + lane % 4 * 2);
    };
    read_ahead(0);
    if (thread == 0) tensor_store_wait();
    sync_part(group, 128);
    KGEN_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const int i = part * 16 / C::tile_n, from = part * 16 % C::tile_n;
      Operands now[kPairs];
      KGEN_UNROLL
      for (int e = 0; e < kPairs; ++e) now[e] = next[e];
      if (part + 1 < kParts) read_ahead(part + 1);
      KGEN_UNROLL
      for (int e = 0; e < kPairs; ++e) {
        const int half = e % 2, tile_column = from + e / 2 * 8;
        const float pair[2] = {sums[i][tile_column / 2 + 2 * half], sums[i][tile_column / 2 + 2 * half + 1]};
        const int box = (i * C::tile_n + tile_column) / kBoxColumns, chunk = tile_column % kBoxColumns / 8;
        *lds<u32>(at + box * kBoxBytes + box_offset(thread / 32 * 16 + lane / 4 + 8 * half, chunk) + lane % 4 * 4) =
            finish(first_row + i * 64 + half * 8, tile_column + lane % 4 * 2, pair, now[e]);
      }
    }
    async_fence();
    sync_part(group, 128);
    if (thread == 0) {
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i) {
        KGEN_UNROLL
        for (int c = 0; c < C::tile_n; c += kBoxColumns)
          tensor_store(map, int(column) + c, int(row) + (group * kBlocks + i) * 64, batch,
                       lds_address(lds_base()) + u32(at + (i * C::tile_n + c) / kBoxColumns * kBoxBytes));
      }
      tensor_store_commit();
    }
  }

 private:
  // Bytes from a box's begin to 16-byte chunk `chunk` of a row.
  static KGEN_DEVICE int box_offset(int row, int chunk) {
    constexpr int kChunks = kBoxColumns / 8, kLines = 8 / kChunks;  // rows of a line of all banks
    return row * (kBoxColumns * 2) + (chunk ^ (row / kLines % kChunks)) * 16;
  }

  // The stage may be written again, as far as this warpgroup goes: to all blocks that copy to it.
  static KGEN_DEVICE void release(int s) {
    const int lane = int(u32(thread_x()) % 128u);
    if constexpr (C::cluster_m > 1) {
      if (lane < C::cluster_m) barrier_arrive_cluster(cluster_address(empty(s), lane));
    } else {
      if (lane == 0) barrier_arrive(empty(s));
    }
  }

  static KGEN_DEVICE void multiply(Sums& sums, int group, int steps, Place& at) {
    const u32 a_rows = u32(group * (kBlocks * 64 * kRowBytes));
    int before = -1;  // the stage whose products may still be under way
    KGEN_NO_UNROLL
    for (int step = 0; step < steps; ++step) {
      barrier_wait(full(at.stage), at.phase);
      const u64 a = wgmma_operand(stage(at.stage) + a_rows), b = wgmma_operand(stage(at.stage) + kABytes);
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
      wgmma_wait<1>();
      if (before >= 0) release(before);
      before = at.stage;
      at.advance();
    }
    wgmma_wait<0>();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    if (before >= 0) release(before);
  }
};

}  // namespace kgen
