// GEMM by tiles: D = epilogue(alpha * A.B + beta * C), SIMT and matrix cores. The skinny kernel is in gemm_skinny.h.
//
//   grid x: tiles of D in groups of group_m rows of tiles (neighbours in time share A and B in the L2), y: parts of K,
//   z: batch
//
//        group_m=2:  0 2 4 ...          split_k > 1: part s of K (whole tiles) writes fp32 sums to
//                    1 3 5 ...          partial[s][batch*m][n]; split_k_reduce adds them and runs the epilogue
//                                       cluster_k > 1: the parts are one cluster, whose blocks add their sums in LDS
//
// The block's product is tile.h's loop. Then each wave passes its sums through LDS, kM rows at a time, so that a lane
// holds consecutive columns of one row and the epilogue reads and writes whole vectors.
//
// Legal (checked by the rules of ops/gemm.yaml): tile_k a power of two; a wave tile is whole Mma tiles; vec_a divides
// k, lda and batch_stride_a, vec_b the run of B (k or n), ldb and batch_stride_b, and the pointers are as aligned;
// tile*ld < 2^31.
#pragma once
#include "epilogue.h"
#include "gemm_types.h"
#include "split_k.h"
#include "tile.h"
#include "tile_product.h"

namespace kgen {

// The sums of the tile at row m0, column n0 through the epilogue, or to `partial` where K is split.
template <class C, class Product, class P>
KGEN_DEVICE void store_product(const P& p, i64 batch, i64 m0, i64 n0, const typename Product::Wave& wave,
                               const AheadOf<C, Product>& ahead) {
  constexpr int kColumns = Product::kColumns;
  Product::template each_row<kColumns>(wave, [&](int row, int column, const float(&values)[kColumns], int n) {
    const i64 to_row = narrowed<C>(m0 + row), to_column = narrowed<C>(n0 + column);
    if (to_row >= p.m || to_column >= p.n) return;
    if constexpr (C::split_k > 1) {
      const i64 left = p.n - to_column;
      epilogue_detail::store_columns<kColumns>(
          p.partial + ((block_y() * p.batch + batch) * p.m + to_row) * p.n + to_column,
          left < kColumns ? int(left) : kColumns, values);
    } else if constexpr (kReadsAhead<C, Product>) {
      epilogue<C, kColumns>(p, batch, to_row, to_column, values, ahead.item[n]);
    } else {
      epilogue<C, kColumns>(p, batch, to_row, to_column, values);
    }
  });
}

template <class C, class P>
KGEN_DEVICE void gemm_tile(P p) {
  using T = typename C::dtype;
  constexpr bool kKn = C::b_layout == b_layout::kn;
  using SourceA = MatrixSource<T, true>;
  using SourceB = MatrixSource<T, !kKn>;
  using Product = TileProduct<C, SourceA, SourceB, C::realign>;
  narrow<C>(p.m, p.n, p.k, p.lda, p.ldb, p.ldd);
  if constexpr (requires { p.ldc; }) narrow<C>(p.ldc, p.ldr, p.ldo);  // gptq's view has none of these operands
  const i64 batch = one_group<C>() ? 0 : block_z();
  i64 tile_row, tile_column, k0;
  tile_of_block<C>(p.m, p.n, tile_row, tile_column);
  const i64 m0 = tile_row * C::tile_m, n0 = tile_column * C::tile_n;
  const int k = terms_of_part<C>(p.k, block_y(), k0);

  const T* a = p.a + batch * p.batch_stride_a + m0 * p.lda + k0;
  const T* b = p.b + batch * p.batch_stride_b + (kKn ? k0 * p.ldb + n0 : n0 * p.ldb + k0);
  const SourceA source_a(a, p.lda, p.m - m0, C::tile_m, C::tile_k, C::vec_a);
  const SourceB source_b(b, p.ldb, p.n - n0, C::tile_n, C::tile_k, C::vec_b);
  AheadOf<C, Product> ahead;
  const auto wave =
      Product::multiply(source_a, source_b, k, [&] { read_ahead<C, Product>(p, batch, m0, p.m, n0, ahead); });

  store_product<C, Product>(p, batch, m0, n0, wave, ahead);
}

}  // namespace kgen
