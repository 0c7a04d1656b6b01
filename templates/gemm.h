// GEMM by tiles: D = epilogue(alpha * A.B + beta * C), SIMT and matrix cores. The skinny kernel is in gemm_skinny.h.
//
//   grid x: tiles of D in groups of group_m rows of tiles (neighbours in time share A and B in the L2), y: parts of K,
//   z: batch
//
//        group_m=2:  0 2 4 ...          split_k > 1: part s of K (whole tiles) writes fp32 sums to
//                    1 3 5 ...          partial[s][batch*m][n]; split_k_reduce adds them and runs the epilogue
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
#include "mma/mma.h"
#include "split_k.h"
#include "tile.h"

namespace kgen {

template <class C>
struct GemmTile {
  using T = typename C::dtype;
  using Unit = Mma<C::arch, T, typename C::accumulate, C::mma_m, C::tile_k>;
  static constexpr bool kKn = C::b_layout == b_layout::kn;
  static constexpr bool kBInN = Unit::kBInN || (kKn && Unit::kReadsN);
  using Shape = TileShape<Unit, C::tile_m, C::tile_n, C::tile_k, C::waves_m, C::waves_n, C::stages, kBInN,
                          C::realign % 2 != 0, C::realign / 2 != 0>;
  using SourceA = MatrixSource<T, true>;
  using SourceB = MatrixSource<T, !kKn>;
  static constexpr int kOuterB = kKn ? C::tile_k : C::tile_n, kInnerB = kKn ? C::tile_n : C::tile_k;
  static constexpr int kThreads = Shape::kThreads;

  // Sums of a wave in LDS for the epilogue: kM rows; the padding puts 8 rows at one column into all banks.
  static constexpr int kPitch = Shape::kWaveN + 4;
  static constexpr int kSlabBytes = Unit::kM * kPitch * int(sizeof(float));
  static constexpr int kLdsBytes = C::stages * Shape::kStageBytes > C::waves_m* C::waves_n* kSlabBytes
                                       ? C::stages* Shape::kStageBytes
                                       : C::waves_m* C::waves_n* kSlabBytes;
  // Columns of one lane in the epilogue: 16 bytes of output.
  static constexpr int kColumns =
      16 / int(sizeof(typename C::out_dtype)) < Unit::kN ? 16 / int(sizeof(typename C::out_dtype)) : Unit::kN;
};

// Row and column of the tile that this block makes.
template <class C>
KGEN_DEVICE void tile_of_block(i64 m, i64 n, i64& tile_row, i64& tile_column) {
  const int rows = int((m + C::tile_m - 1) / C::tile_m), columns = int((n + C::tile_n - 1) / C::tile_n);
  const int index = block_x();
  const int group = index / (C::group_m * columns), first = group * C::group_m;
  const int height = min_int(rows - first, C::group_m), within = index - group * C::group_m * columns;
  tile_row = first + within % height;
  tile_column = within / height;
}

template <class C, class P>
KGEN_DEVICE void gemm_tile(const P& p) {
  using G = GemmTile<C>;
  using S = typename G::Shape;
  using Unit = typename G::Unit;
  const int thread = thread_x(), wave_index = uniform(thread / Unit::kLanes), lane = thread % Unit::kLanes;
  const i64 batch = block_z();
  i64 tile_row, tile_column;
  tile_of_block<C>(p.m, p.n, tile_row, tile_column);
  const i64 m0 = tile_row * C::tile_m, n0 = tile_column * C::tile_n;

  // This part's terms: k0 up to k0 + k.
  i64 k0 = 0, k_end = p.k;
  if constexpr (C::split_k > 1) {
    const i64 part = ((p.k + C::tile_k - 1) / C::tile_k + C::split_k - 1) / C::split_k * C::tile_k;
    k0 = block_y() * part;
    k_end = k0 + part < p.k ? k0 + part : p.k;
  }
  const int k = k_end > k0 ? int(k_end - k0) : 0;

  const typename C::dtype* a = p.a + batch * p.batch_stride_a + m0 * p.lda + k0;
  const typename C::dtype* b = p.b + batch * p.batch_stride_b + (G::kKn ? k0 * p.ldb + n0 : n0 * p.ldb + k0);
  const typename G::SourceA source_a(a, p.lda, p.m - m0, C::tile_m, C::tile_k, C::vec_a);
  const typename G::SourceB source_b(b, p.ldb, p.n - n0, C::tile_n, C::tile_k, C::vec_b);

  WaveTile<S> wave(wave_index, lane, source_a, source_b);
  if constexpr (C::async_pipeline) {
    AsyncTileLoader<typename G::SourceA, typename S::LayoutA, C::tile_m, C::tile_k, C::vec_a, G::kThreads, S::kRealignA>
        load_a(source_a, thread);
    AsyncTileLoader<typename G::SourceB, typename S::LayoutB, G::kOuterB, G::kInnerB, C::vec_b, G::kThreads,
                    S::kRealignB>
        load_b(source_b, thread);
    tile_loop_async<S>(wave, load_a, load_b, k);
  } else {
    using Lds = typename S::Lds;
    TileLoader<typename G::SourceA, Lds, typename S::LayoutA, C::tile_m, C::tile_k, C::vec_a, G::kThreads, false>
        load_a(source_a, thread);
    TileLoader<typename G::SourceB, Lds, typename S::LayoutB, G::kOuterB, G::kInnerB, C::vec_b, G::kThreads,
               G::kKn != G::kBInN>
        load_b(source_b, thread);
    if constexpr (C::arch == Arch::host)
      tile_loop_plain<S>(wave, load_a, load_b, k);
    else
      tile_loop_direct<S>(wave, load_a, load_b, k);
  }

  if constexpr (G::kThreads > Unit::kLanes || Unit::kLanes > 1) sync_block();  // the stages become the waves' slabs
  const int slab = wave_index * G::kSlabBytes;
  float* sums = lds<float>(slab);
  const int wave_row = wave_index / C::waves_n * S::kWaveM, wave_column = wave_index % C::waves_n * S::kWaveN;
  constexpr int kColumns = G::kColumns, kPerRow = S::kWaveN / kColumns, kItems = Unit::kM * kPerRow;
  KGEN_UNROLL
  for (int i = 0; i < S::kRm; ++i) {
    KGEN_UNROLL
    for (int j = 0; j < S::kRn; ++j) Unit::store(wave.acc[i][j], sums + j * Unit::kN, G::kPitch, lane);
    if constexpr (Unit::kLanes > 1) sync_wave();
    KGEN_NO_UNROLL
    for (int item = 0; item < kItems; item += Unit::kLanes) {
      const int at = item + lane;
      if (kItems % Unit::kLanes != 0 && at >= kItems) break;
      const int row = at / kPerRow, column = at % kPerRow * kColumns;
      float values[kColumns];
      KGEN_UNROLL
      for (int c = 0; c < kColumns; c += 4) {
        const Vec<float, 4> part = load_vec<float, 4>(sums + row * G::kPitch + column + c);
        KGEN_UNROLL
        for (int e = 0; e < 4; ++e) values[c + e] = part[e];
      }
      const i64 to_row = m0 + wave_row + i * Unit::kM + row, to_column = n0 + wave_column + column;
      if (to_row >= p.m || to_column >= p.n) continue;
      if constexpr (C::split_k > 1) {
        const i64 left = p.n - to_column;
        epilogue_detail::store_columns<kColumns>(
            p.partial + ((block_y() * p.batch + batch) * p.m + to_row) * p.n + to_column,
            left < kColumns ? int(left) : kColumns, values);
      } else {
        epilogue<C, kColumns>(p, batch, to_row, to_column, values);
      }
    }
    if constexpr (Unit::kLanes > 1) sync_wave();
  }
}

}  // namespace kgen
