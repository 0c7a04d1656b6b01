// GEMM on sm_90's matrix units as gemm_warpgroup.h, the other way round: rows of B (a linear layer's features) are the
// rows of the matrix unit's products, and rows of A their columns. So a tile has any number of rows of A that 8
// divides, and tiles can be made to come out even on the card's units.
//
//   block tile: tile_m rows of A x tile_n of B      LDS: stages, each 64 terms [B tile_n rows | A tile_m rows] of 128
//                                                        permuted bytes, a full and an empty barrier a stage, then
//   sums of a warpgroup: kBlocks x [64 of B][tile_m]     boxes of D, [box_rows of A][64 of B]
//
//   A lane has neighbours in A's direction; on their way to a box 8 x 8 sums at a time exchange rows and columns
//   (stmatrix). The copy engine takes the boxes away during the next tile's products.
//
//   grid x: blocks that stay (`resident`; 0: one a tile), in clusters of cluster_m that share B's rows; roles, ring and
//   the order of tiles as in warpgroup_product.h; row_step as in gemm_warpgroup.h
//
// Legal (checked by the rules of ops/gemm.yaml): as gemm_warpgroup.h with out_store; what the epilogue adds has one
// value a column of D (bias).
#pragma once
#include "epilogue.h"
#include "gemm_types.h"
#include "mma/wgmma.h"
#include "prelude.h"
#include "tensor_copy.h"
#include "warpgroup_ring.h"

namespace kgen {

template <class C>
struct ProductAcross : WarpgroupRing<C> {
  using T = typename C::dtype;
  using Ring = WarpgroupRing<C>;
  using typename Ring::Place;
  using typename Ring::Tile;
  static_assert(sizeof(T) == 2 && C::tile_n % 128 == 0 && C::tile_m % 8 == 0 && C::box_rows % 8 == 0);
  static constexpr int kTerms = Ring::kTerms, kRowBytes = Ring::kRowBytes;
  static constexpr int kBlocks = C::tile_n / (64 * C::warpgroups), kSums = C::tile_m / 2;
  static constexpr int kBBytes = C::tile_n * kRowBytes;
  // A block's sums leave in `boxes` boxes of box_rows rows of A, the last one over a part of the one before where they
  // do not come out even; two places in turn take them.
  static constexpr int kBoxes = kBlocks * C::boxes, kPlaces = kBoxes > 1 ? 2 : 1, kBoxBytes = C::box_rows * kRowBytes;
  using Sums = float[kBlocks][kSums];

  // A tile by its first row of A and of B.
  static KGEN_DEVICE Tile begin_of(const Tile& tile) {
    return {tile.row * C::tile_m, tile.column * C::tile_n, tile.batch};
  }

  // Walks `batches` products of m rows of A, n of B and `terms`. copy(tile, term, a, b, barrier), by one work-item;
  // take(sums, group, tile), by a warpgroup. Tiles by their first rows.
  template <class Copy, class Take>
  static KGEN_DEVICE void walk(int batches, int m, int n, int terms, const Copy& copy, const Take& take) {
    constexpr int kRows = C::tile_m * C::cluster_m;
    const int steps = (terms + kTerms - 1) / kTerms;
    Ring::template walk<56, 224>(
        batches, (m + kRows - 1) / kRows, (n + C::tile_n - 1) / C::tile_n, steps,
        [&](const Tile& tile, Place& at) {
          KGEN_NO_UNROLL
          for (int step = 0; step < steps; ++step) {
            Ring::begin(at, C::stage_bytes);
            const u32 b = Ring::stage(at.stage);
            copy(begin_of(tile), step * kTerms, b + kBBytes, b, Ring::full(at.stage));
            at.advance();
          }
        },
        [&](const Tile& tile, int group, Place& at) {
          Sums sums;
          multiply(sums, group, terms, steps, at);
          take(sums, group, begin_of(tile));
        });
  }

  // B's rows from `row` on: this block's part of them, to all blocks of the cluster.
  static KGEN_DEVICE void copy_b(u32 lds, const TensorMap* map, int term, int row, int batch, u32 barrier) {
    const int first = Ring::cluster_row() * (C::tile_n / C::cluster_m);
    if constexpr (C::cluster_m > 1)
      tensor_copy_to(lds + u32(first * kRowBytes), map, term, row + first, batch, barrier, (1 << C::cluster_m) - 1);
    else
      tensor_copy(lds, map, term, row, batch, barrier);
  }

  // finish(block, half, pair): two outputs, a word, of sums of row lane / 4 + 8 * half of the wave's part of a block.
  template <class Finish>
  static KGEN_DEVICE void store(const Sums& sums, int group, const TensorMap* map, const Tile& tile,
                                const Finish& finish) {
    const int thread = int(u32(thread_x()) % 128u), lane = lane_id(), wave = thread / 32;
    if (thread == 0) tensor_store_wait();
    sync_part(group, 128);
    KGEN_UNROLL
    for (int n = 0; n < kBoxes; ++n) {
      const int i = n / C::boxes, begin = n % C::boxes * C::box_rows;
      const int first = begin < C::tile_m - C::box_rows ? begin : C::tile_m - C::box_rows;
      const u32 box = Ring::lds_at(C::boxes_at + (group * kPlaces + n % kPlaces) * kBoxBytes);
      KGEN_UNROLL
      for (int j = 0; j < C::box_rows / 8; j += 2) {  // 8 rows of A each
        u32 words[4] = {};
        KGEN_UNROLL
        for (int e = 0; e < 4; ++e) {
          if (j + e / 2 < C::box_rows / 8) {
            const float* const from = &sums[i][4 * (first / 8 + j + e / 2) + e % 2 * 2];
            const float pair[2] = {from[0], from[1]};
            words[e] = finish(i, e % 2, pair);
          }
        }
        // Of fragment lane / 8, 8 of B's rows in a chunk.
        const int row = 8 * (j + lane / 16) + lane % 8, chunk = wave * 2 + lane / 8 % 2;
        const u32 to = box + u32(row * kRowBytes + (chunk ^ lane % 8) * 16);
        if (j + 1 < C::box_rows / 8)
          store_fragments_transposed(to, words);
        else
          store_fragments_transposed(to, {words[0], words[1]});
      }
      async_fence();
      if (thread == 0 && n > 0 && n + 1 < kBoxes) tensor_store_wait();  // the next one's place has been read
      sync_part(group, 128);
      if (thread == 0) {
        tensor_store(map, tile.column + (group * kBlocks + i) * 64, tile.row + first, tile.batch, box);
        tensor_store_commit();
      }
    }
  }

 private:
  // The products of a stage's first kSlices times 16 terms, begun.
  template <int kSlices>
  static KGEN_DEVICE void begin(Sums& sums, int group, bool keep, const Place& at) {
    barrier_wait(Ring::full(at.stage), at.phase);
    const u64 b = wgmma_operand(Ring::stage(at.stage) + u32(group * (kBlocks * 64 * kRowBytes)));
    const u64 a = wgmma_operand(Ring::stage(at.stage) + kBBytes);
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    wgmma_fence();
    KGEN_UNROLL
    for (int k = 0; k < kSlices; ++k) {
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i)
        wgmma<T>(sums[i], b + u64(i * (64 * kRowBytes / 16) + 2 * k), a + u64(2 * k), keep || k > 0);
    }
    wgmma_commit();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
  }

  static KGEN_DEVICE void multiply(Sums& sums, int group, int terms, int steps, Place& at) {
    const bool half = terms - (steps - 1) * kTerms <= kTerms / 2;  // the last stage is zeros from the middle on
    int before = -1;                                               // the stage whose products may still be under way
    KGEN_NO_UNROLL
    for (int step = 0; step < steps - int(half); ++step) {
      begin<kTerms / 16>(sums, group, step > 0, at);
      wgmma_wait<1>();
      if (before >= 0) Ring::release(before);
      before = at.stage;
      at.advance();
    }
    if (half) {
      begin<kTerms / 32>(sums, group, steps > 1, at);
      wgmma_wait<0>();
      if (before >= 0) Ring::release(before);
      before = at.stage;
      at.advance();
    }
    wgmma_wait<0>();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    Ring::release(before);
  }
};

// To the epilogue B's rows are rows of the output, which a bias goes by.
template <class P>
struct AcrossParameters : P {
  static constexpr bool kChannelRows = true;
};

template <class C, class P>
KGEN_DEVICE void gemm_across(const P& p) {
  using Product = ProductAcross<C>;
  using Tile = typename Product::Tile;
  using Operands = EpilogueOperands<C, 2>;
  constexpr bool kPairs = C::row_step == 2;
  constexpr int kShift = 8;  // half a sector of terms
  if (thread_x() == 0) {
    tensor_map_prefetch(p.map_a);
    tensor_map_prefetch(p.map_b);
    tensor_map_prefetch(p.map_d);
  }
  const AcrossParameters<P> across{p};
  const int n = int(p.n);
  Product::walk(
      kPairs ? 2 : int(p.batch), kPairs ? int(p.m) / 2 : int(p.m), n, int(p.k) + (kPairs ? kShift : 0),
      [&](const Tile& tile, int from, u32 a, u32 b, u32 barrier) {
        const int term = from - (kPairs ? tile.batch * kShift : 0);
        Product::copy_b(b, p.map_b, term, tile.column, kPairs ? 0 : tile.batch, barrier);
        tensor_copy(a, p.map_a, term, tile.row, tile.batch, barrier);
      },
      [&](const typename Product::Sums& sums, int group, const Tile& tile) {
        Operands operands[Product::kBlocks][2];
        const int thread = int(u32(thread_x()) % 128u);
        KGEN_UNROLL
        for (int i = 0; i < 2 * Product::kBlocks; ++i) {
          const int row =
              tile.column + (group * Product::kBlocks + i / 2) * 64 + thread / 32 * 16 + lane_id() / 4 + i % 2 * 8;
          if (row < n) operands[i / 2][i % 2].load(across, 0, row, 0);
        }
        Product::store(sums, group, p.map_d, tile, [&](int block, int half, const float(&pair)[2]) {
          float t[2];
          epilogue_values<C, 2>(across, pair, operands[block][half], t);
          return rounded_pair<typename C::out_dtype>(t[0], t[1]);
        });
      });
}

}  // namespace kgen
