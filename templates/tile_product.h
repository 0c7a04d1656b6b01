// What a block of a tiled kernel does on either side of its operands: which tile and which terms are its own, the tile
// loop over two sources (tile.h), and the way of the sums from the lanes to whole vectors of a row or a column.
//
//   wave's sums ──▶ slab in LDS, kM rows at a time ──▶ a lane: consecutive columns of a row   (each_row)
//                                                      or consecutive rows of a column        (each_column)
//
// Where waves (waves_k) or the blocks of a cluster (cluster_k) share the terms of a tile, a slab is all rows of a wave;
// all that share take their part of its rows, and add the slabs in the order of the terms, those of other blocks
// through distributed shared memory.
//
// Names read from Config: dtype, accumulate, out_dtype, arch, mma_m, tile_m, tile_n, tile_k, waves_m, waves_n, stages,
// vec_a, vec_b, async_pipeline; realign, group_m, split_k where they are used; waves_k, cluster_k where the op has them.
#pragma once
#include "mma/mma.h"
#include "prelude.h"
#include "tile.h"

namespace kgen {

// Waves of a block, and blocks of a cluster, that share the terms of a tile.
template <class C>
KGEN_HOST_DEVICE constexpr int waves_k() {
  if constexpr (requires { C::waves_k; })
    return C::waves_k;
  else
    return 1;
}
template <class C>
KGEN_HOST_DEVICE constexpr int cluster_k() {
  if constexpr (requires { C::cluster_k; })
    return C::cluster_k;
  else
    return 1;
}

// This work-item among those of all blocks that share a tile, and how many they are.
template <class C>
KGEN_DEVICE int sharer() {
  if constexpr (cluster_k<C>() > 1)
    return cluster_rank() * block_size() + thread_x();
  else
    return thread_x();
}
template <class C>
KGEN_DEVICE int sharers() {
  return cluster_k<C>() * block_size();
}

// The types of a product of two sources under one Config.
template <class C, class SourceA, class SourceB, int kRealign = 0>
struct TileProduct {
  using T = typename C::dtype;
  using Unit = Mma<C::arch, T, typename C::accumulate, C::mma_m, C::tile_k / waves_k<C>()>;
  static constexpr bool kKn = !SourceB::kKMajor;
  static constexpr bool kBInN = Unit::kBInN || (kKn && Unit::kReadsN);
  using Shape = TileShape<Unit, C::tile_m, C::tile_n, C::tile_k, C::waves_m, C::waves_n, C::stages, kBInN,
                          kRealign % 2 != 0, kRealign / 2 != 0, waves_k<C>()>;
  using Lds = typename Shape::Lds;
  using Wave = WaveTile<Shape>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kOuterB = kKn ? C::tile_k : C::tile_n, kInnerB = kKn ? C::tile_n : C::tile_k;

  static constexpr int kWavesK = Shape::kWavesK, kClusterK = cluster_k<C>();
  static constexpr int kParts = kWavesK * kClusterK;  // waves that share a place in the tile

  // Sums of a wave in LDS: kM rows, or all; the padding puts 8 rows at one column into all banks.
  static constexpr int kPitch = Shape::kWaveN + 4;
  static constexpr int kSlabRows = kParts > 1 ? Shape::kWaveM : Unit::kM;
  static constexpr int kSlabBytes = kSlabRows * kPitch * int(sizeof(float));
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
    each_slab<kSlabRows * kPerRow>(wave, [&](int slab, int item, int first_row, int first_column) {
      const int row = item / kPerRow, column = item % kPerRow * kN;
      float values[kN];
      read_slab<kN>(slab, row * kPitch + column, values);
      store(first_row + row, first_column + column, values);
    });
  }

  // The same with kN sums of a column, from `row` on.
  template <int kN, class Store>
  static KGEN_DEVICE void each_column(const Wave& wave, const Store& store) {
    static_assert(Unit::kM % kN == 0, "a column of a slab is whole parts");
    constexpr int kPerColumn = kSlabRows / kN;
    each_slab<Shape::kWaveN * kPerColumn>(wave, [&](int slab, int item, int first_row, int first_column) {
      const int row = item % kPerColumn * kN, column = item / kPerColumn;
      float values[kN];
      KGEN_UNROLL
      for (int r = 0; r < kN; ++r) {
        float value[1];
        read_slab<1>(slab, (row + r) * kPitch + column, value);
        values[r] = value[0];
      }
      store(first_row + row, first_column + column, values);
    });
  }

 private:
  // kN consecutive sums from element `at` on of the slab at byte `slab`, with what the other sharers have of them.
  template <int kN>
  static KGEN_DEVICE void read_slab(int slab, int at, float (&values)[kN]) {
    static_assert(kN == 1 || kN % 4 == 0);
    float parts[kParts][kN];
    KGEN_UNROLL
    for (int s = 0; s < kParts; ++s) {
      const int place = slab + s % kWavesK * (Shape::kPlaces * kSlabBytes) + at * int(sizeof(float));
      u32 remote = 0;
      if constexpr (kClusterK > 1) remote = cluster_address(lds_address(lds_base()) + u32(place), s / kWavesK);
      if constexpr (kN == 1) {
        if constexpr (kClusterK > 1)
          parts[s][0] = load_cluster(remote);
        else
          parts[s][0] = *lds<float>(place);
      } else {
        KGEN_UNROLL
        for (int c = 0; c < kN; c += 4) {
          if constexpr (kClusterK > 1) {
            float four[4];
            load_cluster(remote + u32(c * int(sizeof(float))), four);
            KGEN_UNROLL
            for (int e = 0; e < 4; ++e) parts[s][c + e] = four[e];
          } else {
            const Vec<float, 4> four = load_vec<float, 4>(lds<float>(place) + c);
            KGEN_UNROLL
            for (int e = 0; e < 4; ++e) parts[s][c + e] = four[e];
          }
        }
      }
    }
    KGEN_UNROLL
    for (int c = 0; c < kN; ++c) {
      values[c] = parts[0][c];
      KGEN_UNROLL
      for (int s = 1; s < kParts; ++s) values[c] += parts[s][c];
    }
  }

  // The slabs of all that share it are written, or read.
  static KGEN_DEVICE void sync_slab() {
    if constexpr (kClusterK > 1)
      cluster_sync();
    else if constexpr (kWavesK > 1)
      sync_block();
    else if constexpr (Unit::kLanes > 1)
      sync_wave();
  }

  // take(slab, item, row, column) for each item of a slab, by one lane; row and column are the slab's place in the
  // tile.
  template <int kItems, class Take>
  static KGEN_DEVICE void each_slab(const Wave& wave, const Take& take) {
    constexpr int kLanes = kParts * Unit::kLanes, kBlocks = kSlabRows / Unit::kM;
    const int index = wave_index(), place = index % Shape::kPlaces, my_lane = lane();
    float* sums = lds<float>(index * kSlabBytes);
    int first = index / Shape::kPlaces * Unit::kLanes + my_lane;  // among the lanes that share the slab
    if constexpr (kClusterK > 1) first += cluster_rank() * (kWavesK * Unit::kLanes);
    const int wave_row = place / C::waves_n * Shape::kWaveM, wave_column = place % C::waves_n * Shape::kWaveN;
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; i += kBlocks) {
      KGEN_UNROLL
      for (int block = 0; block < kBlocks; ++block) {
        KGEN_UNROLL
        for (int j = 0; j < Shape::kRn; ++j)
          Unit::store(wave.acc[i + block][j], sums + block * Unit::kM * kPitch + j * Unit::kN, kPitch, my_lane);
      }
      sync_slab();
      KGEN_NO_UNROLL
      for (int item = 0; item < kItems; item += kLanes) {
        const int at = item + first;
        if (kItems % kLanes != 0 && at >= kItems) break;
        take(place * kSlabBytes, at, wave_row + i * Unit::kM, wave_column);
      }
      if (kClusterK > 1 || i + kBlocks < Shape::kRm) sync_slab();  // other blocks read this one's slabs until here
    }
  }
};

// Row and column of the tile that this block makes, of an m x n product: groups of group_m rows of tiles are walked
// together, so that neighbours in time share operands in the L2.
template <class C>
KGEN_DEVICE void tile_of_block(i64 m, i64 n, i64& tile_row, i64& tile_column) {
  const int rows = int((m + C::tile_m - 1) / C::tile_m), columns = int((n + C::tile_n - 1) / C::tile_n);
  const int index = block_x();
  if constexpr (C::group_m == 1) {
    tile_row = index / columns;
    tile_column = index - int(tile_row) * columns;
    return;
  }
  const int group = index / (C::group_m * columns), first = group * C::group_m;
  const int height = min_int(rows - first, C::group_m), within = index - group * C::group_m * columns;
  tile_row = first + within % height;
  tile_column = within / height;
}

// The terms of part `part` of split_k or cluster_k (one of them is 1): from `first` on, as many as are returned.
template <class C>
KGEN_DEVICE int terms_of_part(i64 k, int part, i64& first) {
  constexpr int kParts = C::split_k * cluster_k<C>();
  first = 0;
  i64 end = k;
  if constexpr (kParts > 1) {
    const i64 length = ((k + C::tile_k - 1) / C::tile_k + kParts - 1) / kParts * C::tile_k;
    first = part * length;
    end = first + length < k ? first + length : k;
  }
  return end > first ? int(end - first) : 0;
}

}  // namespace kgen
