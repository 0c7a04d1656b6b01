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
//   where they lie, to boxes of outputs in LDS that the copy engine takes away (out_store 1: a tile at once, during the
//   next tile's products; 2: boxes from two places in turn, which leaves LDS for another stage).
//
//   teams 2: each warpgroup has a whole tile, and one stores while the other multiplies (warpgroup_ring.h).
//
//   cluster_m blocks take neighbouring rows of tiles: each copies its part of B's rows to all of them, so B passes from
//   the L2 once. Parts need not begin at multiples of 1024 bytes: rows are permuted by their address.
//
// Names read from Config: dtype, out_dtype, tile_m, tile_n, slabs_at (LDS bytes), out_store, and those of the ring.
#pragma once
#include "epilogue.h"
#include "mma/wgmma.h"
#include "prelude.h"
#include "tensor_copy.h"
#include "warpgroup_ring.h"

namespace kgen {

template <class C>
struct WarpgroupProduct : WarpgroupRing<C> {
  using T = typename C::dtype;
  static_assert(sizeof(T) == 2);
  using Ring = WarpgroupRing<C>;
  using typename Ring::Place;
  using typename Ring::Tile;
  static constexpr int kTerms = Ring::kTerms, kRowBytes = Ring::kRowBytes;
  static constexpr int kBlocks = C::tile_m / (64 * Ring::kGroups);  // of 64 rows that a warpgroup has
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
  static constexpr bool kInTurn = C::out_store == 2;
  static constexpr int kPart = C::tile_n % 16 == 0 ? 16 : 8;  // columns that are finished while the next are read
  static constexpr int kBoxColumns = C::tile_n % 64 == 0 && !kInTurn ? 64
                                     : C::tile_n % 32 == 0           ? 32
                                     : kPart == 8                    ? 24
                                                                     : 16;
  static constexpr int kBoxBytes = 64 * kBoxColumns * 2;
  static constexpr int kBoxes = kInTurn ? 2 : kBlocks * C::tile_n / kBoxColumns;  // of a warpgroup in LDS
  static constexpr int kTilesM = C::tile_m * Ring::kClusterM, kTilesN = C::tile_n * Ring::kClusterN;  // of a cluster
  static_assert(C::stage_bytes == kStageBytes);
  // Registers of a lane that copies, of one that multiplies.
  static constexpr int kCopying = C::warpgroups == 1 ? 0 : Ring::kGroups < C::warpgroups ? 24 : 56;
  static constexpr int kMultiplying = Ring::kGroups < C::warpgroups ? 240 : 224;
  static_assert(C::tile_m % (64 * Ring::kGroups) == 0 && C::tile_n % kPart == 0 && C::tile_n % Ring::kClusterM == 0 &&
                C::tile_m % Ring::kClusterN == 0);

  // m x n tiles of each of `batches` products of `steps` stages. copy(tile, step, a, b, barrier): has the operands of a
  // step copied, B by copy_b(); called by one work-item. take(sums, group, tile): stores a warpgroup's sums, by
  // store_rows() or store_boxes(). tile.batch is the product.
  template <class Copy, class Take>
  static KGEN_DEVICE void walk(int batches, int m, int n, int steps, const Copy& copy, const Take& take) {
    Ring::template walk<kCopying, kMultiplying>(
        batches, (m + kTilesM - 1) / kTilesM, (n + kTilesN - 1) / kTilesN, steps,
        [&](const Tile& tile, Place& at) {
          KGEN_NO_UNROLL
          for (int step = 0; step < steps; ++step) {
            Ring::begin(at, kStageBytes);
            const u32 a = Ring::stage(at.stage);
            copy(tile, step, a, a + kABytes, Ring::full(at.stage));
            at.advance();
          }
        },
        [&](const Tile& tile, int group, Place& at) {
          Sums sums;
          Ring::template multiply<T>(sums, group % Ring::kGroups * (kBlocks * 64 * kRowBytes), kABytes, steps, at,
                                     [] {});
          take(sums, group, tile);
        });
  }

  // B's rows of this block, of those from `row` on, to all blocks of the cluster. (Sharing A's rows as well, in
  // clusters of two columns or of four blocks, was slower on an H100.)
  static KGEN_DEVICE void copy_b(u32 lds, const TensorMap* map, int term, i64 row, int batch, u32 barrier) {
    if constexpr (C::cluster_m > 1) {
      const int first = Ring::cluster_row() * (C::tile_n / C::cluster_m);
      tensor_copy_to(lds + u32(first * kRowBytes), map, term, int(row) + first, batch, barrier, Ring::column_blocks());
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
    const int first_row = group % Ring::kGroups * (kBlocks * 64) + wave % 4 * 16;
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

  // Pairs of columns that a lane has of a tile: kPairs of kPart columns, kParts times.
  static constexpr int kPairs = kPart / 4, kParts = kBlocks * C::tile_n / kPart;
  struct Pair {
    int row, column;  // of the tile
  };
  static KGEN_DEVICE Pair pair_of(int group, int part, int e) {
    const int thread = int(u32(thread_x()) % 128u), block = group % Ring::kGroups * kBlocks + part * kPart / C::tile_n;
    return {block * 64 + thread / 32 * 16 + thread % 32 / 4 + e % 2 * 8,
            part * kPart % C::tile_n + e / 2 * 8 + thread % 4 * 2};
  }

  // Each pair of columns is finished in its lane: finish(row, column, pair, operands) makes two outputs, a word. Then
  // the copy engine stores them at the tile's row and column through `map`. ahead(row, column): what finish() will
  // need, read for kPart columns while those before them are finished.
  template <class Ahead, class Finish>
  static KGEN_DEVICE void store_boxes(const Sums& sums, int group, const TensorMap* map, i64 row, i64 column, int batch,
                                      const Ahead& ahead, const Finish& finish) {
    const int thread = int(u32(thread_x()) % 128u), lane = lane_id();
    const int at = C::slabs_at + group * (kBoxes * kBoxBytes), first_block = group % Ring::kGroups * kBlocks;
    using Operands = decltype(ahead(0, 0));
    Operands next[kPairs];
    const auto read_ahead = [&](int part) {
      KGEN_UNROLL
      for (int e = 0; e < kPairs; ++e) {
        const Pair place = pair_of(group, part, e);
        next[e] = ahead(place.row, place.column);
      }
    };
    read_ahead(0);
    KGEN_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const int i = part * kPart / C::tile_n, from = part * kPart % C::tile_n, box = part * kPart / kBoxColumns;
      if (part == 0 || (kInTurn && part * kPart % kBoxColumns == 0)) {
        if (thread == 0) {
          if (kInTurn && part != 0)
            tensor_store_wait<1>();
          else
            tensor_store_wait();
        }
        sync_part(group, 128);
      }
      Operands now[kPairs];
      KGEN_UNROLL
      for (int e = 0; e < kPairs; ++e) now[e] = next[e];
      if (part + 1 < kParts) read_ahead(part + 1);
      KGEN_UNROLL
      for (int e = 0; e < kPairs; ++e) {
        const Pair place = pair_of(group, part, e);
        const int half = e % 2, tile_column = from + e / 2 * 8;
        const float pair[2] = {sums[i][tile_column / 2 + 2 * half], sums[i][tile_column / 2 + 2 * half + 1]};
        *lds<u32>(at + box % kBoxes * kBoxBytes +
                  box_offset(thread / 32 * 16 + lane / 4 + 8 * half, tile_column % kBoxColumns / 8) + lane % 4 * 4) =
            finish(place.row, place.column, pair, now[e]);
      }
      if (part + 1 == kParts || (kInTurn && (part + 1) * kPart % kBoxColumns == 0)) {
        async_fence();
        sync_part(group, 128);
        if (thread == 0) {
          KGEN_UNROLL
          for (int b = kInTurn ? box : 0; b <= box; ++b)
            tensor_store(map, int(column) + b * kBoxColumns % C::tile_n,
                         int(row) + (first_block + b * kBoxColumns / C::tile_n) * 64, batch,
                         Ring::lds_at(at + b % kBoxes * kBoxBytes));
          tensor_store_commit();
        }
      }
    }
  }

 private:
  // Bytes from a box's begin to 16-byte chunk `chunk` of a row.
  static KGEN_DEVICE int box_offset(int row, int chunk) {
    constexpr int kChunks = kBoxColumns / 8, kLines = 8 / kChunks;  // rows of a line of all banks
    if constexpr (kBoxColumns == 24) return row * 48 + chunk * 16;  // not permuted: 8 rows lie in all banks anyhow
    return row * (kBoxColumns * 2) + (chunk ^ (row / kLines % kChunks)) * 16;
  }
};

}  // namespace kgen
