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
// Measured (H100, bf16; docs/results/limits.md): 4096^3 765 TFLOP/s (cuBLAS on the same card 780; mma.sync 400).
// Stores that wait hold the products up, so the copy engine takes outputs away from LDS (184 to 178 us), from boxes in
// turn, which leaves a stage more (182.9 to 178.6). Blocks that do not share B by clusters ask the L2 for more than it
// has, unless they happen to run in step (512 x 4096 x 11008: 63 us in one program, 93 in another, 65 with clusters).
// Calling what the epilogue adds into the L2 beforehand (cp.async.bulk.prefetch) cost 3 us in a product of 28: it
// stands in the copy engine's way; asking for it before the products gained nothing. Of a row that begins in the
// middle of a sector the engine asks for every 32 bytes apart, two sectors each: 4 requests of the L2 instead of one.
// Patch embeddings (5476 x 1280, rows of 2352 bytes): 48 us, with clusters 37, with row_step 2 34.
//
// Legal (checked by the rules of ops/gemm.yaml): rows of A and B begin at multiples of 16 bytes; m, n, k below 2^31.
#pragma once
#include "epilogue.h"
#include "gemm_types.h"
#include "warpgroup_product.h"

namespace kgen {

inline constexpr int kShift = 8;  // half a sector of terms

// To the epilogue every pair of columns exists.
template <class P>
struct WholePairs : P {
  static constexpr i64 n = i64(1) << 40;
};

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
  // Of what the epilogue adds to a pair of columns beyond the matrix the last is read: a branch a pair costs more.
  using Operands = EpilogueOperands<C, 2>;
  const WholePairs<P> whole{p};
  const auto up_to = [](int i, int last) { return i < last ? i : last; };
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
                Operands operands;
                const int in_tiles = up_to(first_row(tile) + row, tile_rows - 1);
                operands.load(whole, product(tile), kPairs ? in_tiles * 2 + tile.batch : in_tiles,
                              up_to(first_column(tile) + column, n - 2));
                return operands;
              },
              [&](int, int, const float(&pair)[2], const Operands& operands) {
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
