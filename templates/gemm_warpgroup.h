// GEMM on sm_90's matrix units: D = epilogue(alpha * A.B + beta * C), A [m, k] and B [n, k] through tensor maps.
// warpgroup_product.h draws the block.
//
//   grid x: blocks that stay (`resident`; 0: one a tile), in clusters of cluster_m; tiles of all products in groups of
//   group_m rows of clusters
//
//   row_step 2: a tile has every other row of A. Where rows begin in the middle of a sector (32 bytes) every other
//   time, a tile of odd rows takes its terms from 8 before the first on, zeros by the map, so all of A's rows begin
//   with a sector. They are walked as a second product would be: `batch` is the first row.
//
// Measured (H100, bf16, against mma.sync's tiles and cuBLAS): 4096^3 774 TFLOP/s (was 400; 777), 512 x 12288 x 4096 741
// (738). Stores that wait hold the products up: with a tile of outputs in LDS that the copy engine takes away
// (out_store) 4096^3 went from 184 to 178 us. Calling what the epilogue adds into the L2 beforehand
// (cp.async.bulk.prefetch) cost 3 us in a product of 28: it stands in the copy engine's way. Of a row that begins in
// the middle of a sector the engine asks for every 32 bytes apart, two sectors each: 4 requests of the L2 instead of
// one. Patch embeddings (5476 x 1280, rows of 2352 bytes): 48 us, with clusters, which copy B once, 37, with row_step
// 2 34.
//
// Legal (checked by the rules of ops/gemm.yaml): rows of A and B begin at multiples of 16 bytes; m, n, k below 2^31.
#pragma once
#include "epilogue.h"
#include "gemm_types.h"
#include "warpgroup_product.h"

namespace kgen {

inline constexpr int kShift = 8;  // half a sector of terms

template <class C, class P>
KGEN_DEVICE void gemm_warpgroup(const P& p) {
  using Product = WarpgroupProduct<C>;
  using Tile = typename Product::Tile;
  constexpr int kColumns = Product::kColumns;
  // Of row_step = 2 a tile's `batch` says which rows it has: every other one from this on.
  constexpr bool kPairs = C::row_step == 2;
  const int m = int(p.m), n = int(p.n), tile_rows = kPairs ? m / 2 : m;
  if (thread_x() == 0) {
    tensor_map_prefetch(p.map_a);
    tensor_map_prefetch(p.map_b);
    if constexpr (C::out_store != 0) tensor_map_prefetch(p.map_d);
  }
  const auto first_row = [](const Tile& tile) { return tile.row * C::tile_m; };
  const auto first_column = [](const Tile& tile) { return tile.column * C::tile_n; };
  const auto product = [](const Tile& tile) { return kPairs ? 0 : tile.batch; };
  const auto row_of = [&](const Tile& tile, int row) {
    return kPairs ? (first_row(tile) + row) * 2 + tile.batch : first_row(tile) + row;
  };
  Product::walk(
      kPairs ? 2 : int(p.batch), tile_rows, n,
      int((p.k + (kPairs ? kShift : 0) + Product::kTerms - 1) / Product::kTerms),
      [&](const Tile& tile, int step, u32 a, u32 b, u32 barrier) {
        const int term = step * Product::kTerms - (kPairs ? tile.batch * kShift : 0);
        tensor_copy(a, p.map_a, term, first_row(tile), tile.batch, barrier);
        Product::copy_b(b, p.map_b, term, first_column(tile), product(tile), barrier);
      },
      [&](const typename Product::Sums& sums, int group, const Tile& tile) {
        if constexpr (C::out_store != 0) {
          Product::store_boxes(
              sums, group, p.map_d, first_row(tile), first_column(tile), tile.batch,
              [&](int row, int column) {
                EpilogueOperands<C, 2> operands;
                if (first_row(tile) + row < tile_rows)
                  operands.load(p, product(tile), row_of(tile, row), first_column(tile) + column);
                return operands;
              },
              [&](int, int, const float(&pair)[2], const EpilogueOperands<C, 2>& operands) {
                float t[2];
                epilogue_values<C, 2>(p, pair, operands, t);
                return rounded_pair<typename C::out_dtype>(t[0], t[1]);
              });
        } else {
          Product::store_rows(
              sums, group,
              [&](int row, int column) {
                EpilogueOperands<C, kColumns> operands;
                if (first_row(tile) + row < tile_rows)
                  operands.load(p, product(tile), row_of(tile, row), first_column(tile) + column);
                return operands;
              },
              [&](int row, int column, const float(&values)[kColumns], const EpilogueOperands<C, kColumns>& operands) {
                if (first_row(tile) + row < tile_rows)
                  epilogue<C, kColumns>(p, product(tile), row_of(tile, row), first_column(tile) + column, values,
                                        operands);
              });
        }
      });
}

}  // namespace kgen
