// What a block of a tiled kernel does on either side of its operands: which tile and which terms are its own, the tile
// loop over two sources (tile.h), and the way of the sums from the lanes to whole vectors of a row or a column.
//
//   wave's sums ──▶ slab in LDS, kM rows at a time ──▶ a lane: consecutive columns of a row   (each_row)
//                                                      or consecutive rows of a column        (each_column)
//
// Names read from Config: dtype, accumulate, out_dtype, arch, mma_m, tile_m, tile_n, tile_k, waves_m, waves_n, stages,
// vec_a, vec_b, async_pipeline; realign, group_m, split_k where they are used.
#pragma once
#include "mma/mma.h"
#include "prelude.h"
#include "tile.h"

namespace kgen {

// The types of a product of two sources under one Config.
template <class C, class SourceA, class SourceB, int kRealign = 0>
struct TileProduct {
  using T = typename C::dtype;
  using Unit = Mma<C::arch, T, typename C::accumulate, C::mma_m, C::tile_k>;
  static constexpr bool kKn = !SourceB::kKMajor;
  static constexpr bool kBInN = Unit::kBInN || (kKn && Unit::kReadsN);
  using Shape = TileShape<Unit, C::tile_m, C::tile_n, C::tile_k, C::waves_m, C::waves_n, C::stages, kBInN,
                          kRealign % 2 != 0, kRealign / 2 != 0>;
  using Lds = typename Shape::Lds;
  using Wave = WaveTile<Shape>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kOuterB = kKn ? C::tile_k : C::tile_n, kInnerB = kKn ? C::tile_n : C::tile_k;

  // Sums of a wave in LDS: kM rows; the padding puts 8 rows at one column into all banks.
  static constexpr int kPitch = Shape::kWaveN + 4;
  static constexpr int kSlabBytes = Unit::kM * kPitch * int(sizeof(float));
  // Columns (rows) of one lane on the way out: 16 bytes of output.
  static constexpr int kVector = 16 / int(sizeof(typename C::out_dtype));
  static constexpr int kColumns = kVector < Unit::kN ? kVector : Unit::kN;
  static constexpr int kRows = kVector < Unit::kM ? kVector : Unit::kM;

  static KGEN_DEVICE int wave_index() { return uniform(thread_x() / Unit::kLanes); }
  static KGEN_DEVICE int lane() { return thread_x() % Unit::kLanes; }

  // The product's first `k` terms, summed in the lanes.
  static KGEN_DEVICE Wave multiply(const SourceA& source_a, const SourceB& source_b, int k) {
    const int thread = thread_x();
    Wave wave(wave_index(), lane(), source_a, source_b);
    if constexpr (C::async_pipeline) {
      AsyncTileLoader<SourceA, typename Shape::LayoutA, C::tile_m, C::tile_k, C::vec_a, kThreads, Shape::kRealignA>
          load_a(source_a, thread);
      AsyncTileLoader<SourceB, typename Shape::LayoutB, kOuterB, kInnerB, C::vec_b, kThreads, Shape::kRealignB> load_b(
          source_b, thread);
      tile_loop_async<Shape>(wave, load_a, load_b, k);
    } else {
      TileLoader<SourceA, Lds, typename Shape::LayoutA, C::tile_m, C::tile_k, C::vec_a, kThreads, false> load_a(
          source_a, thread);
      TileLoader<SourceB, Lds, typename Shape::LayoutB, kOuterB, kInnerB, C::vec_b, kThreads, kKn != kBInN> load_b(
          source_b, thread);
      if constexpr (C::arch == Arch::host)
        tile_loop_plain<Shape>(wave, load_a, load_b, k);
      else
        tile_loop_direct<Shape>(wave, load_a, load_b, k);
    }
    if constexpr (kThreads > 1) sync_block();  // the stages become the waves' slabs
    return wave;
  }

  // store(row, column, values): kN sums of a row of the block's tile, from `column` on. Each lane calls it for its own.
  template <int kN, class Store>
  static KGEN_DEVICE void each_row(const Wave& wave, const Store& store) {
    static_assert(kN % 4 == 0 && Shape::kWaveN % kN == 0, "a row of the wave's tile is whole parts");
    constexpr int kPerRow = Shape::kWaveN / kN;
    each_slab<Unit::kM * kPerRow>(wave, [&](const float* sums, int item, int first_row, int first_column) {
      const int row = item / kPerRow, column = item % kPerRow * kN;
      float values[kN];
      KGEN_UNROLL
      for (int c = 0; c < kN; c += 4) {
        const Vec<float, 4> part = load_vec<float, 4>(sums + row * kPitch + column + c);
        KGEN_UNROLL
        for (int e = 0; e < 4; ++e) values[c + e] = part[e];
      }
      store(first_row + row, first_column + column, values);
    });
  }

  // The same with kN sums of a column, from `row` on.
  template <int kN, class Store>
  static KGEN_DEVICE void each_column(const Wave& wave, const Store& store) {
    static_assert(Unit::kM % kN == 0, "a column of a slab is whole parts");
    constexpr int kPerColumn = Unit::kM / kN;
    each_slab<Shape::kWaveN * kPerColumn>(wave, [&](const float* sums, int item, int first_row, int first_column) {
      const int row = item % kPerColumn * kN, column = item / kPerColumn;
      float values[kN];
      KGEN_UNROLL
      for (int r = 0; r < kN; ++r) values[r] = sums[(row + r) * kPitch + column];
      store(first_row + row, first_column + column, values);
    });
  }

 private:
  // take(sums, item, row, column) for each item of a slab, by one lane; row and column are the slab's place in the
  // tile.
  template <int kItems, class Take>
  static KGEN_DEVICE void each_slab(const Wave& wave, const Take& take) {
    const int index = wave_index(), my_lane = lane();
    float* sums = lds<float>(index * kSlabBytes);
    const int wave_row = index / C::waves_n * Shape::kWaveM, wave_column = index % C::waves_n * Shape::kWaveN;
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < Shape::kRn; ++j) Unit::store(wave.acc[i][j], sums + j * Unit::kN, kPitch, my_lane);
      if constexpr (Unit::kLanes > 1) sync_wave();
      KGEN_NO_UNROLL
      for (int item = 0; item < kItems; item += Unit::kLanes) {
        const int at = item + my_lane;
        if (kItems % Unit::kLanes != 0 && at >= kItems) break;
        take(sums, at, wave_row + i * Unit::kM, wave_column);
      }
      if constexpr (Unit::kLanes > 1) sync_wave();
    }
  }
};

// Row and column of the tile that this block makes, of an m x n product: groups of group_m rows of tiles are walked
// together, so that neighbours in time share operands in the L2.
template <class C>
KGEN_DEVICE void tile_of_block(i64 m, i64 n, i64& tile_row, i64& tile_column) {
  const int rows = int((m + C::tile_m - 1) / C::tile_m), columns = int((n + C::tile_n - 1) / C::tile_n);
  const int index = block_x();
  const int group = index / (C::group_m * columns), first = group * C::group_m;
  const int height = min_int(rows - first, C::group_m), within = index - group * C::group_m * columns;
  tile_row = first + within % height;
  tile_column = within / height;
}

// The terms of part `part` of split_k: from `first` on, as many as are returned.
template <class C>
KGEN_DEVICE int terms_of_part(i64 k, int part, i64& first) {
  first = 0;
  i64 end = k;
  if constexpr (C::split_k > 1) {
    const i64 length = ((k + C::tile_k - 1) / C::tile_k + C::split_k - 1) / C::split_k * C::tile_k;
    first = part * length;
    end = first + length < k ? first + length : k;
  }
  return end > first ? int(end - first) : 0;
}

}  // namespace kgen
