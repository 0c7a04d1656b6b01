// What a block of a tiled kernel does on either side of its operands: which tile and which terms are its own, the tile
// loop over two sources (tile.h), and the way of the sums from the lanes to whole vectors of a row or a column.
//
//   wave's sums ──▶ slab in LDS, kM rows at a time ──▶ a lane: consecutive columns of a row   (each_row)
//                                                      or consecutive rows of a column        (each_column)
//   or finished where they lie, in pairs of columns ──▶ slab of outputs ──▶ a lane: consecutive columns of a row
//                                                                                            (each_finished_row)
//
// Where waves (waves_k) or the blocks of a cluster (cluster_k) share the terms of a tile, a slab is all rows of a wave;
// all that share take their part of its rows, and add the sums in the order of the terms. Blocks send one another the
// sums that they do not finish themselves, into an inbox at LDS byte receive_at, behind stages and slabs.
//
// Names read from Config: dtype, accumulate, out_dtype, arch, mma_m, tile_m, tile_n, tile_k, waves_m, waves_n, stages,
// vec_a, vec_b, async_pipeline; realign, group_m, split_k where they are used; waves_k, cluster_k where the op has
// them.
#pragma once
#include "epilogue.h"
#include "fit.h"
#include "mma/mma.h"
#include "prelude.h"
#include "tile.h"
#include "tile_window.h"

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

// The dimensions of few tiles have 32 bits; said here, products of two of them are one instruction.
template <class C, class... Ints>
KGEN_DEVICE void narrow(Ints&... dims) {
  if constexpr (few_tiles<C>()) ((dims = i64(int(dims))), ...);
}
template <class C>
KGEN_DEVICE i64 narrowed(i64 value) {
  narrow<C>(value);
  return value;
}
// a / b for a < 2^20: a third of the instructions that the compiler takes for any two numbers. The quotient is 0.5 / b
// from a whole number or more, and the error is less.
KGEN_DEVICE u32 small_quotient(u32 a, u32 b) { return u32((float(a) + 0.5f) * rcp_f(float(b))); }

// LDS has room for all sums of a wave: its epilogue stands once in the code, not once for each kM rows.
template <class C>
KGEN_HOST_DEVICE constexpr bool whole_slab() {
  if constexpr (requires { C::whole_slab; })
    return C::whole_slab != 0;
  else
    return false;
}

// Rows of a block of sums that a lane has pairs of columns of, where it has them 8 rows and 8 columns apart; else 0.
template <class Unit>
KGEN_HOST_DEVICE constexpr int lane_rows() {
  if constexpr (requires { Unit::kRunC; })
    return Unit::kM == 16 && Unit::kN == 16 && Unit::kLanes == 32 && Unit::kRunC == 2 && Unit::kRowsC == 2 ? 2 : 0;
  else
    return 0;
}

// The types of a product of two sources under one Config.
template <class C, class SourceA, class SourceB, int kRealign = 0>
struct TileProduct {
  using T = typename C::dtype;
  using Unit = Mma<C::arch, T, typename C::accumulate, C::mma_m, C::tile_k / waves_k<C>()>;
  static constexpr bool kKn = !SourceB::kKMajor;
  static constexpr bool kBInN = Unit::kBInN || (kKn && Unit::kReadsN);
  using Shape = TileShape<Unit, C::tile_m, C::tile_n, C::tile_k, C::waves_m, C::waves_n, C::stages, kBInN,
                          kRealign % 2 != 0, kRealign / 2 != 0, waves_k<C>(), whole_terms<C>(), one_fill<C>()>;
  using Lds = typename Shape::Lds;
  using Wave = WaveTile<Shape>;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kOuterB = kKn ? C::tile_k : C::tile_n, kInnerB = kKn ? C::tile_n : C::tile_k;

  static constexpr int kWavesK = Shape::kWavesK, kClusterK = cluster_k<C>();
  static constexpr int kParts = kWavesK * kClusterK;  // waves that share a place in the tile

  // Sums of a wave in LDS: kM rows, or all; the padding puts 8 rows at one column into all banks.
  static constexpr int kPitch = Shape::kWaveN + 4;
  // Of 32 rows one half is there at a time: else the slabs would take more LDS than the stages.
  static constexpr bool kAllRows = kParts > 1 || whole_slab<C>();
  static constexpr int kHalves = !kAllRows && Unit::kM == 32 ? 2 : 1;
  static constexpr int kSlabRows = kAllRows ? Shape::kWaveM : Unit::kM / kHalves;
  static constexpr int kSlabBytes = kSlabRows * kPitch * int(sizeof(float));
  // Columns (rows) of one lane on the way out: 16 bytes of output.
  static constexpr int kVector = 16 / int(sizeof(typename C::out_dtype));
  static constexpr int kColumns = kVector < Unit::kN ? kVector : Unit::kN;
  static constexpr int kRows = kVector < Unit::kM ? kVector : Unit::kM;

  // Parts of rows that each_row gives a lane where several share the terms: few enough, what they need is read ahead.
  static constexpr int kShareLanes = kWavesK * Unit::kLanes;  // of a block, that share a place in the tile
  static constexpr int kLaneItems =
      (Shape::kWaveM * Shape::kWaveN / kColumns + kClusterK * kShareLanes - 1) / (kClusterK * kShareLanes);
  static constexpr bool kReadsAhead = kParts > 1 && kLaneItems <= 2 && C::async_pipeline;

  // Sums that are finished in the lanes that have them: two columns at a time are rounded to a word, so half as much
  // goes through LDS, and what they need (a bias) is a few words of a lane. Where two waves share the terms, each
  // finishes one half of the columns of every block of sums.
  static constexpr int kLaneRows = lane_rows<Unit>();  // of a block of sums; 0: lanes have no pairs of columns
  static constexpr bool kFinishesInLanes = kLaneRows > 0 && kClusterK == 1 && kWavesK <= 2 && kColumns == 8 &&
                                           sizeof(typename C::out_dtype) == 2 && kSame<typename C::accumulate, float>;
  static constexpr int kBlockPairs = kWavesK == 1 ? 2 : 1;  // of a row of a block, that a lane finishes
  static constexpr int kLanePairs = Shape::kRn * kBlockPairs;
  static constexpr int kOutPitch = Shape::kWaveN + 8;  // puts 8 rows at one column into all banks
  static constexpr int kSentBytes = kWavesK > 1 ? Shape::kRm* Shape::kRn* Unit::kLanes * 16 : 0;  // of a wave

  static KGEN_DEVICE int wave_index() { return uniform(int(u32(thread_x()) / u32(Unit::kLanes))); }
  static KGEN_DEVICE int lane() { return int(u32(thread_x()) % u32(Unit::kLanes)); }

  // Before a product whose terms a cluster shares: add_blocks() waits for all blocks to have been here.
  static KGEN_DEVICE void begin_cluster() {
    if constexpr (kClusterK > 1) {
      if (thread_x() == 0) {
        barrier_make(lds_address(lds_base()) + u32(C::receive_at), 1);
        barrier_fence();
      }
      cluster_arrive_relaxed();
    }
  }

  static KGEN_DEVICE Wave multiply(const SourceA& source_a, const SourceB& source_b, int k) {
    return multiply(source_a, source_b, k, [] {});
  }
  // The product's first `k` terms, summed in the lanes. prefetch(): what is to be done while the operands come.
  template <class Prefetch>
  static KGEN_DEVICE Wave multiply(const SourceA& source_a, const SourceB& source_b, int k, const Prefetch& prefetch) {
    const int thread = thread_x();
    Wave wave;
    const auto underway = [&] {
      begin_cluster();
      wave.begin(wave_index(), lane(), source_a, source_b);
      prefetch();
    };
    if constexpr (C::async_pipeline) {
      AsyncTileLoader<SourceA, typename Shape::LayoutA, C::tile_m, C::tile_k, C::vec_a, kThreads, Shape::kRealignA>
          load_a(source_a, thread);
      AsyncTileLoader<SourceB, typename Shape::LayoutB, kOuterB, kInnerB, C::vec_b, kThreads, Shape::kRealignB> load_b(
          source_b, thread);
      tile_loop_async<Shape>(wave, load_a, load_b, k, underway);
    } else if constexpr (kHasWindows && Windowed<SourceA> && Windowed<SourceB> && requires { Unit::kInstructions; }) {
      underway();
      WindowLoader<SourceA, Lds, typename Shape::LayoutA, C::tile_m, C::tile_k, C::vec_a, kThreads, false> load_a(
          source_a, thread);
      WindowLoader<SourceB, Lds, typename Shape::LayoutB, kOuterB, kInnerB, C::vec_b, kThreads, kKn != kBInN> load_b(
          source_b, thread);
      tile_loop_windows<Shape>(wave, load_a, load_b, k);
    } else {
      underway();
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

  // visit(n, row, column): where the n-th of the kLaneItems parts of rows of this lane begins in the tile.
  template <class Visit>
  static KGEN_DEVICE void each_lane_item(const Visit& visit) {
    constexpr int kPerRow = Shape::kWaveN / kColumns, kItems = Shape::kWaveM * kPerRow;
    const int place = wave_index() % Shape::kPlaces, first = share_lane();
    const int row = place / C::waves_n * Shape::kWaveM, column = place % C::waves_n * Shape::kWaveN;
    KGEN_UNROLL
    for (int n = 0; n < kLaneItems; ++n) {
      const int item = item_of(n, first);
      if (item < kItems) visit(n, row + item / kPerRow, column + item % kPerRow * kColumns);
    }
  }

  // store(row, column, values, n): kN sums of a row of the block's tile, from `column` on; the lane's n-th where it
  // reads ahead. Each lane calls it for its own. A store without n will do, too.
  template <int kN, class Store>
  static KGEN_DEVICE void each_row(const Wave& wave, const Store& store) {
    static_assert(kN % 4 == 0 && Shape::kWaveN % kN == 0, "a row of the wave's tile is whole parts");
    constexpr int kPerRow = Shape::kWaveN / kN;
    each_slab<kN, 1, kSlabRows * kPerRow>(
        wave, [](int item) { return Spot{item / kPerRow, item % kPerRow * kN}; }, store);
  }

  // The same with kN sums of a column, from `row` on.
  template <int kN, class Store>
  static KGEN_DEVICE void each_column(const Wave& wave, const Store& store) {
    static_assert(Unit::kM % kN == 0, "a column of a slab is whole parts");
    constexpr int kPerColumn = kSlabRows / kN;
    each_slab<kN, kPitch, Shape::kWaveN * kPerColumn>(
        wave, [](int item) { return Spot{item % kPerColumn * kN, item / kPerColumn}; }, store);
  }

  // visit(n, column): where the n-th of the kLanePairs pairs of columns of this lane begins in the tile.
  template <class Visit>
  static KGEN_DEVICE void each_lane_pair(const Visit& visit) {
    const int place = wave_index() % Shape::kPlaces, half = wave_index() / Shape::kPlaces;
    const int column = place % C::waves_n * Shape::kWaveN + Unit::c_column(lane(), 0) + half * 8;
    KGEN_UNROLL
    for (int n = 0; n < kLanePairs; ++n) visit(n, column + n * (8 * kWavesK));
  }

  // finish(n, pair): makes results of the sums of the lane's n-th pair of columns. store(row, column, outputs):
  // kColumns of a row, as words (Packed), or, unless `whole`, store_one(row, column, output); each lane calls it for
  // its own.
  template <class Finish, class Store, class StoreOne>
  static KGEN_DEVICE void each_finished_row(const Wave& wave, const Finish& finish, bool whole, const Store& store,
                                            const StoreOne& store_one) {
    using Out = typename C::out_dtype;
    constexpr int kBlocks = kSlabRows / Unit::kM, kPerRow = Shape::kWaveN / kColumns, kItems = kSlabRows * kPerRow;
    constexpr int kPlaceBytes = kSlabRows * kOutPitch * int(sizeof(Out));
    const int index = wave_index(), place = index % Shape::kPlaces, half = index / Shape::kPlaces, my_lane = lane();
    const int wave_row = place / C::waves_n * Shape::kWaveM, wave_column = place % C::waves_n * Shape::kWaveN;
    Out* const slab = lds<Out>(Shape::kPlaces * kWavesK * kSentBytes + place * kPlaceBytes);
    Out* const mine = slab + Unit::c_row(my_lane, 0) * kOutPitch + Unit::c_column(my_lane, 0) + half * 8;
    if constexpr (kWavesK > 1) {
      float* const sent = lds<float>(index * kSentBytes + my_lane * 16);
      KGEN_UNROLL
      for (int block = 0; block < Shape::kRm * Shape::kRn; ++block) {
        Vec<float, 4> four;
        KGEN_UNROLL
        for (int e = 0; e < 4; ++e) {
          const auto& sums = wave.acc[block / Shape::kRn][block % Shape::kRn];
          const float first_half = Unit::get_c(sums, e / 2, e % 2), other_half = Unit::get_c(sums, e / 2, 2 + e % 2);
          four[e] = half == 0 ? other_half : first_half;
        }
        store_vec<float, 4>(sent + block * (Unit::kLanes * 4), four);
      }
      sync_block();
    }
    const float* const got =
        lds<float>((half == 0 ? index + Shape::kPlaces : place) * kSentBytes + my_lane * 16);  // by the other wave
    KGEN_UNROLL
    for (int i = 0; i < Shape::kRm; i += kBlocks) {
      KGEN_UNROLL
      for (int block = 0; block < kBlocks; ++block) {
        KGEN_UNROLL
        for (int j = 0; j < Shape::kRn; ++j) {
          const auto& sums = wave.acc[i + block][j];
          Vec<float, 4> other;
          if constexpr (kWavesK > 1)
            other = load_vec<float, 4>(got + ((i + block) * Shape::kRn + j) * (Unit::kLanes * 4));
          KGEN_UNROLL
          for (int h = 0; h < kBlockPairs; ++h) {
            KGEN_UNROLL
            for (int r = 0; r < kLaneRows; ++r) {
              float pair[2];
              KGEN_UNROLL
              for (int e = 0; e < 2; ++e) {
                if constexpr (kWavesK > 1) {
                  const float first_half = Unit::get_c(sums, r, e), other_half = Unit::get_c(sums, r, 2 + e);
                  pair[e] = (half == 0 ? first_half : other_half) + other[2 * r + e];
                } else {
                  pair[e] = Unit::get_c(sums, r, 2 * h + e);
                }
              }
              finish(j * kBlockPairs + h, pair);
              const u32 word = rounded_pair<Out>(pair[0], pair[1]);
              *reinterpret_cast<u32*>(mine + (block * Unit::kM + r * 8) * kOutPitch + j * Unit::kN + h * 8) = word;
            }
          }
        }
      }
      sync_slab();
      const int first = share_lane(), row = wave_row + i * Unit::kM;
      if (whole) {
        constexpr int kBatch = 4;  // so many are on their way from LDS at once
        KGEN_NO_UNROLL
        for (int item = first; item < kItems; item += kBatch * kShareLanes) {
          Packed<Out, kColumns> outputs[kBatch];
          KGEN_UNROLL
          for (int n = 0; n < kBatch; ++n) {
            const int at = item + n * kShareLanes;
            if (at < kItems)
              outputs[n] = Packed<Out, kColumns>::load(slab + at / kPerRow * kOutPitch + at % kPerRow * kColumns);
          }
          KGEN_UNROLL
          for (int n = 0; n < kBatch; ++n) {
            const int at = item + n * kShareLanes;
            if (at < kItems) store(row + at / kPerRow, wave_column + at % kPerRow * kColumns, outputs[n]);
          }
        }
      } else {
        KGEN_NO_UNROLL
        for (int at = first; at < kSlabRows * Shape::kWaveN; at += kShareLanes)
          store_one(row + at / Shape::kWaveN, wave_column + at % Shape::kWaveN,
                    slab[at / Shape::kWaveN * kOutPitch + at % Shape::kWaveN]);
      }
      if (i + kBlocks < Shape::kRm) sync_slab();
    }
  }

 private:
  struct Spot {
    int row, column;  // in a slab
  };

  // kN sums at `step` elements from each other, of this wave or of all waves of the block that share a place.
  template <int kN, int kStep>
  static KGEN_DEVICE void read_slab(int slab, Spot at, float (&values)[kN]) {
    const float* from = lds<float>(slab) + at.row * kPitch + at.column;
    KGEN_UNROLL
    for (int s = 0; s < kWavesK; ++s, from += Shape::kPlaces * kSlabBytes / int(sizeof(float))) {
      float part[kN];
      if constexpr (kStep == 1)
        load_columns_lds<kN>(from, part);
      else
        KGEN_UNROLL
      for (int e = 0; e < kN; ++e) part[e] = from[e * kStep];
      KGEN_UNROLL
      for (int e = 0; e < kN; ++e) values[e] = s == 0 ? part[e] : values[e] + part[e];
    }
  }
  template <int kN>
  static KGEN_DEVICE void load_columns_lds(const float* from, float (&values)[kN]) {
    KGEN_UNROLL
    for (int c = 0; c < kN; c += 4) {
      const Vec<float, 4> four = load_vec<float, 4>(from + c);
      KGEN_UNROLL
      for (int e = 0; e < 4; ++e) values[c + e] = four[e];
    }
  }

  // Among the lanes of the block that share a place.
  static KGEN_DEVICE int share_lane() { return wave_index() / Shape::kPlaces * Unit::kLanes + lane(); }
  // The n-th item of a lane: they are dealt out to the blocks of the cluster, kShareLanes at a time.
  static KGEN_DEVICE int item_of(int n, int first) {
    if constexpr (kClusterK > 1)
      return (n * kClusterK + cluster_rank()) * kShareLanes + first;
    else
      return n * kShareLanes + first;
  }
  template <int kN, class Store>
  static KGEN_DEVICE void give(const Store& store, int row, int column, const float (&values)[kN], int n) {
    if constexpr (requires { store(row, column, values, n); })
      store(row, column, values, n);
    else
      store(row, column, values);
  }

  // The slabs of all waves that share a place are written, or read.
  static KGEN_DEVICE void sync_slab() {
    if constexpr (kWavesK > 1)
      sync_block();
    else if constexpr (Unit::kLanes > 1)
      sync_wave();
  }

  // store(row, column, values) for each of the kItems items of a slab, by one lane; spot_of(item): where it lies.
  template <int kN, int kStep, int kItems, class SpotOf, class Store>
  static KGEN_DEVICE void each_slab(const Wave& wave, const SpotOf& spot_of, const Store& store) {
    constexpr int kBlocks = kHalves == 1 ? kSlabRows / Unit::kM : 1;
    const int index = wave_index(), place = index % Shape::kPlaces, my_lane = lane();
    const int slab = place * kSlabBytes, first = share_lane();
    float* sums = lds<float>(index * kSlabBytes);
    const int wave_row = place / C::waves_n * Shape::kWaveM, wave_column = place % C::waves_n * Shape::kWaveN;
    KGEN_UNROLL
    for (int part = 0; part < Shape::kRm * kHalves; part += kBlocks) {
      const int i = part / kHalves, half = part % kHalves;
      KGEN_UNROLL
      for (int block = 0; block < kBlocks; ++block) {
        KGEN_UNROLL
        for (int j = 0; j < Shape::kRn; ++j)
          if (kHalves == 1 || my_lane / kSlabRows % 2 == half)
            Unit::store(wave.acc[i + block][j], sums + (block * Unit::kM - half * kSlabRows) * kPitch + j * Unit::kN,
                        kPitch, my_lane);
      }
      sync_slab();
      if constexpr (kClusterK > 1) {
        add_blocks<kN, kStep, kItems>(slab, place, first, spot_of, [&](Spot at, const float(&values)[kN], int n) {
          give<kN>(store, wave_row + at.row, wave_column + at.column, values, n);
        });
      } else {
        const auto take = [&](int item, int n) {
          const Spot at = spot_of(item);
          float values[kN];
          read_slab<kN, kStep>(slab, at, values);
          give<kN>(store, wave_row + i * Unit::kM + half * kSlabRows + at.row, wave_column + at.column, values, n);
        };
        if constexpr (kReadsAhead && kStep == 1) {
          KGEN_UNROLL
          for (int n = 0; n < kLaneItems; ++n)
            if (item_of(n, first) < kItems) take(item_of(n, first), n);
        } else {
          KGEN_NO_UNROLL
          for (int item = first; item < kItems; item += kShareLanes) take(item, 0);
        }
        if (part + kBlocks < Shape::kRm * kHalves) sync_slab();
      }
    }
  }

  // Each block sends its sums of the items that are not its own to the owner, whose barrier counts their bytes, and
  // adds for its own items what it got:
  //
  //   items      | kShareLanes: block 0 | block 1 | … | block 0 | …     inbox   [sender][place][round][lane][kN]
  template <int kN, int kStep, int kItems, class SpotOf, class Take>
  static KGEN_DEVICE void add_blocks(int slab, int place, int first, const SpotOf& spot_of, const Take& take) {
    constexpr int kLanes = kShareLanes, kDeal = kLanes * kClusterK;
    constexpr int kRounds = (kItems + kDeal - 1) / kDeal, kItemBytes = kN * int(sizeof(float));
    constexpr int kPlaceBytes = kRounds * kLanes * kItemBytes, kSenderBytes = Shape::kPlaces * kPlaceBytes;
    const int rank = cluster_rank(), barrier = C::receive_at, inbox = C::receive_at + 16;
    if (thread_x() == 0) {
      int mine = 0;  // items of a place
      KGEN_UNROLL
      for (int round = 0; round < kRounds; ++round) {
        const int left = kItems - (round * kClusterK + rank) * kLanes;
        mine += left < 0 ? 0 : left < kLanes ? left : kLanes;
      }
      barrier_expect(lds_address(lds_base()) + u32(barrier), u32(mine * Shape::kPlaces * kItemBytes * (kClusterK - 1)));
    }
    cluster_wait();  // the barriers of all blocks exist
    const int at_first = place * kPlaceBytes + first * kItemBytes;
    KGEN_UNROLL
    for (int turn = 1; turn < kClusterK; ++turn) {  // each block begins with another one
      const int owner = rank + turn < kClusterK ? rank + turn : rank + turn - kClusterK;
      const int sender = rank < owner ? rank : rank - 1;
      const u32 remote = cluster_address(lds_address(lds_base()), owner);
      KGEN_UNROLL
      for (int round = 0; round < kRounds; ++round) {
        const int item = (round * kClusterK + owner) * kLanes + first;
        if (item >= kItems) break;
        float values[kN];
        read_slab<kN, kStep>(slab, spot_of(item), values);
        KGEN_UNROLL
        for (int c = 0; c < kN; c += 4) {
          const float four[4] = {values[c], values[c + 1], values[c + 2], values[c + 3]};
          send_cluster(remote + u32(inbox + sender * kSenderBytes + at_first + round * kLanes * kItemBytes + c * 4),
                       four, remote + u32(barrier));
        }
      }
    }
    barrier_wait(lds_address(lds_base()) + u32(barrier), 0);
    KGEN_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      const int item = (round * kClusterK + rank) * kLanes + first;
      if (item >= kItems) break;
      const Spot at = spot_of(item);
      float own[kN], values[kN];
      read_slab<kN, kStep>(slab, at, own);
      KGEN_UNROLL
      for (int block = 0; block < kClusterK; ++block) {  // in the order of the terms
        float part[kN];
        const int sender = block < rank ? block : block - 1;
        if (block == rank) {
          KGEN_UNROLL
          for (int e = 0; e < kN; ++e) part[e] = own[e];
        } else {
          load_columns_lds<kN>(lds<float>(inbox + sender * kSenderBytes + at_first + round * kLanes * kItemBytes),
                               part);
        }
        KGEN_UNROLL
        for (int e = 0; e < kN; ++e) values[e] = block == 0 ? part[e] : values[e] + part[e];
      }
      take(at, values, round);
    }
  }
};

// What the epilogue reads for the items of a lane, where that is little enough to be read while the operands come.
template <class C, class Product>
inline constexpr bool kReadsAhead = Product::kReadsAhead && C::split_k == 1;
template <class C, class Product>
struct AheadOf {
  EpilogueOperands<C, Product::kColumns> item[kReadsAhead<C, Product> ? Product::kLaneItems : 1];
};

// While the operands of the tile at row m0 (of `rows`), column n0 come: what its epilogue reads, or at least its way to
// the L2. P: as epilogue() takes it.
template <class C, class Product, class P>
KGEN_DEVICE void read_ahead(const P& p, i64 batch, i64 m0, i64 rows, i64 n0, AheadOf<C, Product>& ahead) {
  if constexpr (kReadsAhead<C, Product>)
    Product::each_lane_item([&](int n, int row, int column) {
      if (m0 + row < rows) ahead.item[n].load(p, batch, narrowed<C>(m0 + row), narrowed<C>(n0 + column));
    });
  else if constexpr (C::async_pipeline && C::split_k == 1)
    prefetch_epilogue<C, C::tile_m, C::tile_n>(p, batch, m0, rows - m0, n0, p.n - n0);
}

// Row and column of the tile that this block makes, of an m x n product: groups of group_m rows of tiles are walked
// together, so that neighbours in time share operands in the L2.
template <class C>
KGEN_DEVICE void tile_of_block(i64 m, i64 n, i64& tile_row, i64& tile_column) {
  const auto tiles = [](i64 extent, int tile) {
    return few_tiles<C>() ? int((u32(extent) + u32(tile - 1)) / u32(tile)) : int((extent + tile - 1) / tile);
  };
  const int rows = tiles(m, C::tile_m), columns = tiles(n, C::tile_n);
  const int index = block_x();
  if (columns == 1) {
    tile_row = index;
    tile_column = 0;
    return;
  }
  if constexpr (C::group_m == 1) {
    tile_row = int(few_tiles<C>() ? small_quotient(u32(index), u32(columns)) : u32(index) / u32(columns));
    tile_column = index - int(tile_row) * columns;
    return;
  }
  const auto divided = [](int a, int b) {
    if constexpr (few_tiles<C>())
      return int(small_quotient(u32(a), u32(b)));
    else
      return a / b;
  };
  const int group = divided(index, C::group_m * columns), first = group * C::group_m;
  const int height = min_int(rows - first, C::group_m), within = index - group * C::group_m * columns;
  tile_column = divided(within, height);
  tile_row = first + within - int(tile_column) * height;
}

// The terms of part `part` of split_k or cluster_k (one of them is 1): from `first` on, as many as are returned.
template <class C>
KGEN_DEVICE int terms_of_part(i64 k, int part, i64& first) {
  constexpr int kParts = C::split_k * cluster_k<C>();
  first = 0;
  i64 end = k;
  if constexpr (kParts > 1) {
    const u32 tiles = (u32(k) + (C::tile_k - 1)) / u32(C::tile_k);
    const i64 length = (tiles + (kParts - 1)) / u32(kParts) * C::tile_k;
    first = part * length;
    end = first + length < k ? first + length : k;
  }
  return end > first ? int(end - first) : 0;
}

}  // namespace kgen
