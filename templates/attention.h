// Attention of some rows of Q that read the same keys: o = softmax(scale * Q.K^T + mask).V, online over tiles of keys,
// on matrix cores and the plain ALU alike. The rows are consecutive queries of a head (attention_prefill.h) or the
// query heads of a kv head (attention_decode.h).
//
//   block: tile_q = waves * wave_q rows of Q; waves_kv waves share rows, each with tile_kv of a tile's tile_keys keys
//
//     Q  [tile_q][d]   LDS, once ─────────────┐            for each tile of keys:
//     K  [tile_keys][d]  LDS, `stages` tiles ─┴▶ S = Q.K^T   registers: wave_q x tile_kv
//                                                 │          x = scale*log2(e)*S, masked to -inf
//     row statistics   registers  ◀──────────────┤          max' = max(max, row of x); sum, O *= 2^(max - max')
//                                                 ▼          P = 2^(x - max'), sum += row of P
//     V  [tile_keys][dv] LDS, `stages` tiles ─▶ O += P.V     P rounded to the dtype, O in registers: wave_q x dv
//
//   P becomes the fragment A of the second product in registers (mma_sync) or through the wave's own slab of LDS.
//   Waves that share rows add up what they have in LDS: o = sum_w 2^(max_w - max) O_w / sum_w 2^(max_w - max) sum_w.
//   split > 1: a part of the keys a block; unnormalised O, max and sum go to a workspace, a second kernel adds them up.
//   in_cluster: the parts are the blocks of a cluster, which write to one another's LDS; there is no second kernel.
//
// Tiles of keys: those that no row of the block sees are skipped, a wave skips those that none of its rows sees. Keys
// beyond the end are read as the last key or as 0 (their scores are replaced), values beyond it as 0, so nothing from
// there reaches a product. In the tiles of a causal mask's edge P is 0 where a row does not see a key, which an
// infinite or NaN element of V there makes a NaN: who finds a value that is not finite in its rows looks for such a key
// and does the row again without matrix cores (repair), so that all other rows pay nothing for it.
//
// Pipelines as in tile.h: a ring of asynchronous copies, or the next tile in registers under the products of this one.
// Where no two waves read the same keys (waves == 1) each wave has a ring of its own, of its keys, and waits for no
// other. Everything that a block reads first (Q, the length, the ring's first tiles) is requested at once: a round trip
// to memory takes as long as the products of many keys. So does code that is read for the first time, at some 2.5
// cycles an instruction (H100, 2026-11-22): loops instead of copies of code, where it is run through once or twice.
//
// Legal (checked by the rules of the YAML): vec_k divides d and all strides of Q and K, vec_v those of V and dv, and
// pointers are as aligned; tile*stride < 2^31; d_pad, dv_pad, tile_kv whole fragments.
#pragma once
#include "attention_parts.h"
#include "mma/mma.h"
#include "tile.h"

namespace kgen {

// Rows in LDS, of any length: an odd number of 16-byte chunks, so that 8 consecutive rows have a chunk in 8 different
// groups of banks. The host has no banks, and its unit wants rows without gaps.
template <class T, int kRow, bool kPad>
struct PaddedLayout {
  static constexpr int kBytes = kRow * int(sizeof(T));
  static constexpr int kRowBytes = kPad ? (kBytes + 31) / 32 * 32 + 16 : kBytes;
  static KGEN_DEVICE int offset(int row, int column) { return row * kRowBytes + column * int(sizeof(T)); }
};

// Everything about a block that is known at compile time.
template <class C>
struct AttentionShape {
  using T = typename C::dtype;
  using UnitS = Mma<C::arch, T, float, C::mma_m, C::fragment_d>;   // Q.K^T
  using UnitO = Mma<C::arch, T, float, C::mma_m, C::fragment_kv>;  // P.V
  using Lds = typename UnitS::Lds;
  static constexpr int kM = UnitS::kM, kN = UnitS::kN, kLanes = UnitS::kLanes;
  static constexpr int kWaves = C::waves * C::waves_kv, kThreads = kWaves * kLanes;
  static constexpr int kRm = C::wave_q / kM, kKeyBlocks = C::tile_kv / kN, kValueBlocks = C::dv_pad / kN;
  static constexpr int kStepsD = C::d_pad / UnitS::kK, kStepsKv = C::tile_kv / UnitO::kK;
  static constexpr int kRowsC = UnitS::kRowsC, kElementsC = UnitS::kRowElementsC;
  static_assert(C::wave_q % kM == 0 && C::tile_kv % kN == 0 && C::dv_pad % kN == 0, "a wave's part is whole blocks");
  static_assert(!C::causal || C::waves_kv == 1, "repair() works on the rows of one wave");
  static_assert(C::d_pad % UnitS::kK == 0 && C::tile_kv % UnitO::kK == 0, "products are whole fragments");

  static constexpr bool kKeysInN = UnitS::kBInN;                      // K lies [d][key] in LDS
  static constexpr bool kValuesInN = UnitO::kBInN || UnitO::kReadsN;  // V lies [key][dv] in LDS, else [dv][key]
  static constexpr bool kPad = UnitS::kSwizzle;
  using RowsD = PaddedLayout<Lds, C::d_pad, kPad>;
  using RowsDv = PaddedLayout<Lds, C::dv_pad, kPad>;
  using RowsKv = PaddedLayout<Lds, C::tile_keys, kPad>;
  using RowsP = PaddedLayout<Lds, C::tile_kv, kPad>;
  using LayoutK = typename ChooseType<kKeysInN, RowsKv, RowsD>::Type;
  using LayoutV = typename ChooseType<kValuesInN, RowsDv, RowsKv>::Type;

  static constexpr int kQueryBytes = C::tile_q * RowsD::kRowBytes;
  static constexpr int kKeyBytes = (kKeysInN ? C::d_pad : C::tile_keys) * LayoutK::kRowBytes;
  static constexpr int kValueBytes = (kValuesInN ? C::tile_keys : C::dv_pad) * LayoutV::kRowBytes;
  static constexpr int kStageBytes = kKeyBytes + kValueBytes;
  static constexpr int kSlabBytes = UnitO::kSumsToA ? 0 : C::wave_q * RowsP::kRowBytes;  // P of a wave
  // LDS: Q, P of each wave, stages; at the end the rows of O of each wave.
  static constexpr int kSlabs = kQueryBytes, kStages = kSlabs + kWaves * kSlabBytes;
  static constexpr int kPitch = C::dv_pad + 4, kMaxAt = C::dv_pad, kSumAt = C::dv_pad + 1;  // behind a row of O
  static constexpr int kOutBytes = kM * kPitch * int(sizeof(float));
  static constexpr int kTail = C::async_pipeline ? 16 : 0, kLength = C::block_lds - kTail, kBarrier = kLength + 8;
  // Blocks of a cluster send one another what they have of O: columns [block][place][4], max and sum [block][place][2].
  static constexpr int kBlocks = C::in_cluster ? C::split : 1, kPlaces = kM * C::dv_pad / 4 / kBlocks;
  static constexpr int kReceived = kWaves * kOutBytes, kReceivedStats = kReceived + kBlocks * kPlaces * 16;
  static constexpr int kParts = C::waves_kv, kPerRow = C::dv_pad / 4, kRowStep = kPitch;
  static constexpr int kPartStep = kOutBytes / int(sizeof(float));
  static_assert(kBlocks == 1 || (kRm == 1 && C::waves == 1 && kM * C::dv_pad % (4 * kBlocks) == 0));
  static_assert(kStages + C::stages * kStageBytes + kTail <= C::block_lds);
  static_assert((kBlocks > 1 ? kReceivedStats + kBlocks * kPlaces * 8 : kReceived) + kTail <= C::block_lds);
  static constexpr bool kToWorkspace = C::split > 1 && kBlocks == 1;
  // Tiles that lie between a part's tiles. A causal mask wants them side by side (repair); else they alternate, so that
  // what a part begins with does not depend on how many there are.
  static constexpr int kTileStep = C::causal ? 1 : C::split;

  using SourceK = MatrixSource<T, true>;
  using SourceV = MatrixSource<T, false>;
  using LoadQ = TileLoader<SourceK, Lds, RowsD, C::tile_q, C::d_pad, C::vec_k, kThreads, false>;
  using LoadK = TileLoader<SourceK, Lds, LayoutK, C::tile_keys, C::d_pad, C::vec_k, kThreads, kKeysInN>;
  using LoadV = TileLoader<SourceV, Lds, LayoutV, C::tile_keys, C::dv_pad, C::vec_v, kThreads, !kValuesInN>;

  // Asynchronous copies: by a wave for itself, or by the block.
  static constexpr bool kOwnRing = C::waves == 1;
  static constexpr int kRingKeys = kOwnRing ? C::tile_kv : C::tile_keys, kRingThreads = kOwnRing ? kLanes : kThreads;
  using RingK = TileLoader<SourceK, Lds, LayoutK, kRingKeys, C::d_pad, C::vec_k, kRingThreads, false>;
  using RingV = TileLoader<SourceV, Lds, LayoutV, kRingKeys, C::dv_pad, C::vec_v, kRingThreads, false>;
};

// What a block works on. Pointers stand at its first row of Q and O, and at the first key of its head.
template <class T>
struct AttentionTask {
  const T *q, *k, *v;
  T* o;
  i64 ldq, ldk, ldv, ldo;
  int rows;           // valid rows of Q
  int keys;           // that any of them sees
  int first_keys;     // that row 0 sees; with a causal mask row r sees r more, else all see the same
  const int* length;  // ragged: `keys` is this, still to be read, but `capacity` at most
  int capacity;       // keys that have memory; `expected` of them, probably, count
  int expected;
  float scale;
  i64 first_row, all_rows;  // of O over all heads, for the workspace
  int part;                 // of `split`
  float *partial, *stats;

  KGEN_DEVICE void set_length(int value) {
    keys = value < capacity ? value : capacity;
    first_keys = keys;
  }
};

KGEN_DEVICE bool is_finite(float x) { return x - x == 0.0f; }

// Byte offset of piece e of the fragment B for columns `block` and K step `step`.
template <class Unit, class LdsLayout, bool kNMajor, int kElementBytes>
struct PlacesB {
  int base[Unit::kChunksB];
  KGEN_DEVICE explicit PlacesB(int lane) {
    KGEN_UNROLL
    for (int e = 0; e < Unit::kChunksB; ++e) {
      const int n = Unit::template b_column<kNMajor>(lane, e), k = Unit::template b_k<kNMajor>(lane, e);
      base[e] = kNMajor ? LdsLayout::offset(k, n) : LdsLayout::offset(n, k);
    }
  }
  KGEN_DEVICE int at(int block, int step, int e) const {
    return base[e] + (kNMajor ? LdsLayout::offset(step * Unit::kK, block * Unit::kN)
                              : LdsLayout::offset(block * Unit::kN, step * Unit::kK));
  }
};

// The rows of one wave.
template <class C>
struct AttentionWave {
  using S = AttentionShape<C>;
  using T = typename S::T;
  using Lds = typename S::Lds;
  using UnitS = typename S::UnitS;
  using UnitO = typename S::UnitO;
  static constexpr int kElement = int(sizeof(Lds));

  typename UnitO::C out[S::kRm][S::kValueBlocks];
  float max[S::kRm][S::kRowsC], sum[S::kRm][S::kRowsC];  // sum: this lane's part of the row's
  typename UnitS::A query[C::q_registers ? S::kStepsD : 1][S::kRm];
  PlacesB<UnitS, typename S::LayoutK, S::kKeysInN, kElement> places_k;
  PlacesB<UnitO, typename S::LayoutV, S::kValuesInN, kElement> places_v;
  int first, part, lane, slab;  // first row of the wave within the block; which part of a tile's keys; its P in LDS
  bool idle;                    // the wave has no rows and only helps to load
  float scale;                  // to powers of 2

  KGEN_DEVICE AttentionWave(int wave, int lane_index, int rows, float scale_e)
      : out{},
        places_k(lane_index),
        places_v(lane_index),
        first(wave / C::waves_kv * C::wave_q),
        part(wave % C::waves_kv),
        lane(lane_index),
        slab(S::kSlabs + wave * S::kSlabBytes),
        idle(wave / C::waves_kv * C::wave_q >= rows),
        scale(scale_e * 1.44269504f) {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int r = 0; r < S::kRowsC; ++r) {
        max[i][r] = negative_infinity();
        sum[i][r] = 0.0f;
      }
    }
  }

  template <class Unit, class LdsLayout>
  KGEN_DEVICE void load_a(typename Unit::A (&a)[S::kRm], int start, int step) const {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int e = 0; e < Unit::kChunksA; ++e)
        Unit::load_a(
            a[i], e,
            start + LdsLayout::offset(i * Unit::kM + Unit::a_row(lane, e), step * Unit::kK + Unit::a_k(lane, e)));
    }
  }
  KGEN_DEVICE void load_query(typename UnitS::A (&a)[S::kRm], int step) const {
    load_a<UnitS, typename S::RowsD>(a, S::RowsD::offset(first, 0), step);
  }
  KGEN_DEVICE void keep_query() {
    if constexpr (C::q_registers != 0) {
      KGEN_UNROLL
      for (int step = 0; step < S::kStepsD; ++step) load_query(query[step], step);
    }
  }

  // step(i) for i < kSteps; a loop where the compiler would otherwise load the fragments of all steps first and run out
  // of registers.
  template <int kSteps, bool kLoop, class Step>
  static KGEN_DEVICE void for_steps(const Step& step) {
    if constexpr (kLoop) {
      KGEN_NO_UNROLL
      for (int i = 0; i < kSteps; ++i) step(i);
    } else {
      KGEN_UNROLL
      for (int i = 0; i < kSteps; ++i) step(i);
    }
  }
  static constexpr bool kLoops = kWaveSize == 32 && !UnitO::kSumsToA;

  // S = Q.K^T with the tile at LDS byte `stage`. A single block of sums is added up in two halves: a chain of products,
  // each of which waits for the one before, is what a short tile takes longest for.
  KGEN_DEVICE void scores(typename UnitS::C (&s)[S::kRm][S::kKeyBlocks], int stage) {
    constexpr int kChains = S::kRm * S::kKeyBlocks == 1 && S::kStepsD % 2 == 0 && kWaveSize == 32 && S::kLanes > 1 &&
                                    UnitO::kSumsToA && !kLoops
                                ? 2
                                : 1;
    typename UnitS::C second = {};
    for_steps<S::kStepsD, kLoops && C::q_registers == 0>([&](int step) {
      typename UnitS::A fresh[S::kRm];
      if constexpr (C::q_registers == 0) load_query(fresh, step);
      KGEN_UNROLL
      for (int j = 0; j < S::kKeyBlocks; ++j) {
        typename UnitS::B b;
        KGEN_UNROLL
        for (int e = 0; e < UnitS::kChunksB; ++e)
          UnitS::template load_b<S::kKeysInN, S::LayoutK::kRowBytes>(b, e, stage + places_k.at(j, step, e));
        KGEN_UNROLL
        for (int i = 0; i < S::kRm; ++i) {
          typename UnitS::C& sums = kChains == 2 && step % 2 == 1 ? second : s[i][j];
          if constexpr (C::q_registers != 0)
            UnitS::multiply(sums, query[step][i], b);
          else
            UnitS::multiply(sums, fresh[i], b);
        }
      }
    });
    if constexpr (kChains == 2) {
      KGEN_UNROLL
      for (int r = 0; r < S::kRowsC; ++r) {
        KGEN_UNROLL
        for (int e = 0; e < S::kElementsC; ++e)
          UnitS::set_c(s[0][0], r, e, UnitS::get_c(s[0][0], r, e) + UnitS::get_c(second, r, e));
      }
    }
  }

  // From scores to P; the statistics and O follow the new maxima. Row r of the block sees keys below
  // first_keys + r * C::causal of this tile.
  template <bool kMasked>
  KGEN_DEVICE void softmax(typename UnitS::C (&s)[S::kRm][S::kKeyBlocks], int first_keys, bool fresh) {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int r = 0; r < S::kRowsC; ++r) {
        const int seen = first_keys + (C::causal ? first + i * S::kM + UnitS::c_row(lane, r) : 0);
        float top = max[i][r];
        KGEN_UNROLL
        for (int j = 0; j < S::kKeyBlocks; ++j) {
          KGEN_UNROLL
          for (int e = 0; e < S::kElementsC; ++e) {
            float x = UnitS::get_c(s[i][j], r, e) * scale;
            if (kMasked && j * S::kN + UnitS::c_column(lane, e) >= seen) x = negative_infinity();
            UnitS::set_c(s[i][j], r, e, x);
            top = Maximum()(top, x);
          }
        }
        KGEN_UNROLL
        for (int mask = 1; mask < S::kLanes; mask *= 2)
          if (UnitS::kRowLanes & mask) top = Maximum()(top, shuffle_xor(top, mask));
        const float shift = softmax_shift(top), rescale = exp2_raw(max[i][r] - shift);
        max[i][r] = top;
        float added = 0.0f;
        KGEN_UNROLL
        for (int j = 0; j < S::kKeyBlocks; ++j) {
          KGEN_UNROLL
          for (int e = 0; e < S::kElementsC; ++e) {
            const float weight = exp2_raw(UnitS::get_c(s[i][j], r, e) - shift);
            UnitS::set_c(s[i][j], r, e, weight);
            added += weight;
          }
        }
        sum[i][r] = fma_f(sum[i][r], rescale, added);
        if (C::ragged && C::async_pipeline && fresh) continue;  // short sequences have one tile
        KGEN_UNROLL
        for (int j = 0; j < S::kValueBlocks; ++j) {
          KGEN_UNROLL
          for (int e = 0; e < S::kElementsC; ++e)
            UnitO::set_c(out[i][j], r, e, UnitO::get_c(out[i][j], r, e) * rescale);
        }
      }
    }
  }

  // P to the wave's slab.
  KGEN_DEVICE void store_weights(const typename UnitS::C (&s)[S::kRm][S::kKeyBlocks]) const {
    constexpr int kRun = UnitS::kRunC;
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int r = 0; r < S::kRowsC; ++r) {
        KGEN_UNROLL
        for (int j = 0; j < S::kKeyBlocks; ++j) {
          KGEN_UNROLL
          for (int e = 0; e < S::kElementsC; e += kRun) {
            Vec<Lds, kRun> run;
            KGEN_UNROLL
            for (int n = 0; n < kRun; ++n) run[n] = from_float<Lds>(UnitS::get_c(s[i][j], r, e + n));
            store_vec<Lds, kRun>(lds<Lds>(slab + S::RowsP::offset(i * S::kM + UnitS::c_row(lane, r),
                                                                  j * S::kN + UnitS::c_column(lane, e))),
                                 run);
          }
        }
      }
    }
  }

  // O += P.V
  KGEN_DEVICE void add_values(const typename UnitS::C (&s)[S::kRm][S::kKeyBlocks], int stage) {
    if constexpr (!UnitO::kSumsToA) {
      store_weights(s);
      if constexpr (S::kLanes > 1) sync_wave();
    }
    for_steps<S::kStepsKv, kLoops>([&](int step) {
      typename UnitO::A a[S::kRm];
      if constexpr (UnitO::kSumsToA) {
        KGEN_UNROLL
        for (int i = 0; i < S::kRm; ++i) a[i] = UnitO::to_a(s[i][step]);
      } else {
        load_a<UnitO, typename S::RowsP>(a, slab, step);
      }
      KGEN_UNROLL
      for (int j = 0; j < S::kValueBlocks; ++j) {
        typename UnitO::B b;
        KGEN_UNROLL
        for (int e = 0; e < UnitO::kChunksB; ++e)
          UnitO::template load_b<S::kValuesInN, S::LayoutV::kRowBytes>(b, e, stage + places_v.at(j, step, e));
        KGEN_UNROLL
        for (int i = 0; i < S::kRm; ++i) UnitO::multiply(out[i][j], a[i], b);
      }
    });
    if constexpr (!UnitO::kSumsToA && S::kLanes > 1) sync_wave();  // the slab is free again
  }

  // Rows `from` on of the wave's part of the values at LDS byte `values` become 0.
  KGEN_DEVICE void clear_values(int values, int from) const {
    constexpr int kChunk = 16 / kElement, kPerRow = C::dv_pad / kChunk;
    KGEN_NO_UNROLL
    for (int item = (from < 0 ? 0 : from) * kPerRow + lane; item < C::tile_kv * kPerRow; item += S::kLanes)
      store_vec<Lds, kChunk>(lds<Lds>(values + S::LayoutV::offset(item / kPerRow, item % kPerRow * kChunk)), {});
    sync_wave();
  }

  // The wave's part of a tile of keys, of which row r of the block sees those below seen + r * C::causal. kDirty: there
  // may be values of keys that no row sees. `fresh`: O is still 0.
  template <bool kDirty>
  KGEN_DEVICE void tile(int stage, int seen, bool fresh) {
    const int start = part * C::tile_kv, first_keys = seen - start;
    if (idle || first_keys + (C::causal ? first + C::wave_q - 1 : 0) <= 0) return;  // no row of the wave sees one
    typename UnitS::C s[S::kRm][S::kKeyBlocks] = {};
    scores(s, stage + (S::kKeysInN ? S::LayoutK::offset(0, start) : S::LayoutK::offset(start, 0)));
    const int values =
        stage + S::kKeyBytes + (S::kValuesInN ? S::LayoutV::offset(start, 0) : S::LayoutV::offset(0, start));
    if constexpr (kDirty) {
      if (first_keys < C::tile_kv) clear_values(values, first_keys);
    }
    // Decode runs through little code once: that of whole tiles would only be read from memory, too.
    if (C::ragged || first_keys + (C::causal ? first : 0) < C::tile_kv) {
      softmax<true>(s, first_keys, fresh);
    } else {
      softmax<false>(s, first_keys, fresh);
    }
    add_values(s, values);
  }

  // Whether this lane's part of the wave's rows of block i has neither infinities nor NaN.
  KGEN_DEVICE bool finite(int i) const {
    float zero = 0.0f;
    KGEN_UNROLL
    for (int j = 0; j < S::kValueBlocks; ++j) {
      KGEN_UNROLL
      for (int r = 0; r < S::kRowsC; ++r) {
        KGEN_UNROLL
        for (int e = 0; e < S::kElementsC; ++e) zero = fma_f(UnitO::get_c(out[i][j], r, e), 0.0f, zero);
      }
    }
    return zero == 0.0f;
  }
  // Of the wave's lanes.
  static KGEN_DEVICE bool any(bool value) {
    u32 bits = value;
    KGEN_UNROLL
    for (int mask = 1; mask < S::kLanes; mask *= 2) bits |= shuffle_xor(bits, mask);
    return bits != 0;
  }

  // Row `row` of the block, which lies at `o` in LDS, again, if a key of tiles begin .. end-1 that the row does not see
  // has a value that is not finite in a column where the row is not. A lane has columns lane, lane + kLanes …
  KGEN_DEVICE void repair(const AttentionTask<T>& task, int row, float* o, int begin, int end) const {
    const int last = min_int(end * C::tile_keys, task.keys);
    const int seen = task.first_keys + row < 0 ? 0 : min_int(task.first_keys + row, last);
    const int first_key = begin * C::tile_keys;
    bool found = false;
    KGEN_NO_UNROLL
    for (int c = lane; c < C::dv; c += S::kLanes) {
      if (is_finite(o[c])) continue;
      KGEN_NO_UNROLL
      for (int key = seen < first_key ? first_key : seen; key < last; ++key)
        found |= !is_finite(to_float(task.v[key * task.ldv + c]));
    }
    if (!any(found)) return;
    KGEN_NO_UNROLL
    for (int c = lane; c < C::dv; c += S::kLanes) o[c] = 0.0f;
    const float shift = softmax_shift(o[S::kMaxAt]);
    KGEN_NO_UNROLL
    for (int key = first_key; key < seen; ++key) {
      float score = 0.0f;
      KGEN_NO_UNROLL
      for (int c = lane; c < C::d; c += S::kLanes)
        score = fma_f(to_float(task.q[row * task.ldq + c]), to_float(task.k[key * task.ldk + c]), score);
      KGEN_UNROLL
      for (int mask = 1; mask < S::kLanes; mask *= 2) score += shuffle_xor(score, mask);
      const float weight = exp2_raw(score * scale - shift);
      KGEN_NO_UNROLL
      for (int c = lane; c < C::dv; c += S::kLanes) o[c] = fma_f(weight, to_float(task.v[key * task.ldv + c]), o[c]);
    }
  }

  // Columns of a row of the block, to memory.
  template <int kColumns>
  static KGEN_DEVICE void finish(const AttentionTask<T>& task, int row, int column, float top, float total,
                                 float (&values)[kColumns]) {
    const int left = C::dv - column, valid = left < kColumns ? left : kColumns;
    if (valid <= 0) return;
    if constexpr (S::kToWorkspace) {
      const i64 at = task.part * task.all_rows + task.first_row + row;
      if (column == 0) {
        task.stats[2 * at] = top;
        task.stats[2 * at + 1] = total;
      }
      store_columns<kColumns>(task.partial + at * C::dv + column, valid, values);
    } else {
      const float inverse = total == 0.0f ? 0.0f : rcp_f(total);  // a row that sees no key is 0
      KGEN_UNROLL
      for (int c = 0; c < kColumns; ++c) values[c] *= inverse;
      store_columns<kColumns>(task.o + row * task.ldo + column, valid, values);
    }
  }

  // Rows of O, or of the workspace, from tiles begin .. end-1. The stages are free: kOutBytes of LDS for each wave, the
  // waves of the same rows side by side.
  KGEN_DEVICE void store(const AttentionTask<T>& task, int begin, int end) {
    constexpr int kColumns = S::kToWorkspace || C::waves_kv > 1 ? 4 : 16 / int(sizeof(T));
    constexpr int kPerRow = C::dv_pad / kColumns;
    constexpr int kPart = S::kOutBytes / int(sizeof(float));
    float* all = lds<float>(first / C::wave_q * C::waves_kv * S::kOutBytes);
    float* rows = all + part * kPart;
    const auto sync = [] {
      if constexpr (C::waves_kv > 1)
        sync_block();
      else if constexpr (S::kLanes > 1)
        sync_wave();
    };
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < S::kValueBlocks; ++j) UnitO::store(out[i][j], rows + j * S::kN, S::kPitch, lane);
      KGEN_UNROLL
      for (int r = 0; r < S::kRowsC; ++r) {
        float total = sum[i][r];
        KGEN_UNROLL
        for (int mask = 1; mask < S::kLanes; mask *= 2)
          if (UnitS::kRowLanes & mask) total += shuffle_xor(total, mask);
        if ((lane & UnitS::kRowLanes) == 0) {
          float* row = rows + UnitS::c_row(lane, r) * S::kPitch;
          row[S::kMaxAt] = max[i][r];
          row[S::kSumAt] = total;
        }
      }
      sync();
      if constexpr (C::causal != 0) {
        if (any(!finite(i))) {
          const int start = first + i * S::kM;
          KGEN_NO_UNROLL
          for (int r = 0; r < min_int(S::kM, task.rows - start); ++r)
            repair(task, start + r, rows + r * S::kPitch, begin, end);
          sync();
        }
      }
      const int items = min_int(S::kM, task.rows - first - i * S::kM) * kPerRow;
      if constexpr (S::kBlocks > 1) {
        const auto last = [&](int row, int column, float top, float total, float(&values)[4]) {
          finish<4>(task, row, column, top, total, values);
        };
        ClusterParts<S>::exchange(task.part, min_int(S::kM, task.rows) * S::kPerRow, last);
      } else {
        KGEN_NO_UNROLL
        for (int item = part * S::kLanes + lane; item < items; item += C::waves_kv * S::kLanes) {
          const int column = item % kPerRow * kColumns, row = item / kPerRow;
          const float* from = all + row * S::kPitch;
          float top, total, values[kColumns];
          add_parts<C::waves_kv>(from + column, kPart, from + S::kMaxAt, kPart, top, total, values);
          finish<kColumns>(task, first + i * S::kM + row, column, top, total, values);
        }
      }
      if (i + 1 < S::kRm) sync();
    }
  }
};

// Tiles of keys of a task as the loaders want them.
template <class C>
struct AttentionKeys {
  using S = AttentionShape<C>;
  using T = typename S::T;
  const AttentionTask<T>& task;

  KGEN_DEVICE typename S::SourceK source_k(int t) const {
    const i64 key = i64(t) * C::tile_keys;
    return typename S::SourceK(task.k + key * task.ldk, task.ldk, task.keys - key, C::tile_keys, C::d_pad, C::vec_k);
  }
  KGEN_DEVICE typename S::SourceV source_v(int t) const {
    const i64 key = i64(t) * C::tile_keys;
    return typename S::SourceV(task.v + key * task.ldv, task.ldv, C::dv, C::dv_pad, C::tile_keys, C::vec_v);
  }
  KGEN_DEVICE int left(int t) const { return task.keys - t * C::tile_keys; }
  KGEN_DEVICE int seen(int t) const { return task.first_keys - t * C::tile_keys; }
};

// The first `rows` rows of kColumns elements from `from` on to LDS; what lies behind them becomes 0.
template <class Loader, int kColumns>
KGEN_DEVICE void copy_rows(int thread, const typename Loader::T* from, i64 ld, int rows, u32 to) {
  constexpr int kBytes = int(sizeof(typename Loader::Piece));
  const Loader loader(decltype(Loader::source)(from, ld, rows, 1, 1, 1), thread);
  KGEN_UNROLL
  for (int i = 0; i < Loader::kCount; ++i) {
    if (!loader.exists(i)) continue;
    const int row = loader.outer(i), column = loader.inner(i);  // its address is not read where 0 bytes are copied
    async_copy<kBytes>(to + u32(loader.place(i, 0)), from + row * ld + column,
                       row < rows && column < kColumns ? kBytes : 0);
  }
}

// The tiles begin, begin + kTileStep … below `end` by asynchronous copies. ragged: `end` is not known yet, and what is
// expected to count is under way before the length has arrived. Returns `end`.
template <class C>
KGEN_DEVICE int attend_async(AttentionWave<C>& wave, AttentionTask<typename C::dtype>& task, int begin, int end) {
  using S = AttentionShape<C>;
  constexpr int kAhead = S::kOwnRing ? C::stages : C::stages - 1;  // tiles under way while one is awaited
  static_assert(kAhead >= 1);
  const u32 lds_start = lds_address(lds_base());
  const int thread = S::kOwnRing ? wave.lane : thread_x();
  const int own = S::kOwnRing ? wave.part * C::tile_kv : 0;  // first key of the ring within a tile
  const auto after = [](int stage) { return stage == (C::stages - 1) * S::kStageBytes ? 0 : stage + S::kStageBytes; };
  int keys = C::ragged ? task.capacity : min_int(task.keys, end * C::tile_keys);
  int next = 0, write_stage = 0;  // the tile to be requested, counted from `begin` on
  const auto next_key = [&] { return (begin + next * S::kTileStep) * C::tile_keys + own; };
  const auto request = [&] {
    const int key = next_key();
    if (key < keys) {
      const u32 to = lds_start + u32(S::kStages + write_stage);
      copy_rows<typename S::RingK, C::d>(thread, task.k + key * task.ldk, task.ldk, keys - key,
                                         to + u32(S::LayoutK::offset(own, 0)));
      copy_rows<typename S::RingV, C::dv>(thread, task.v + key * task.ldv, task.ldv, keys - key,
                                          to + u32(S::kKeyBytes + S::LayoutV::offset(own, 0)));
    }
    async_commit();  // empty groups keep the count of groups at least equal to that of tiles
    write_stage = after(write_stage);
    ++next;
  };
  copy_rows<typename S::LoadQ, C::d>(thread_x(), task.q, task.ldq, task.rows, lds_start);
  if constexpr (C::ragged != 0) {
    if (thread_x() == 0) async_copy<4>(lds_start + u32(S::kLength), task.length);
  }
  async_commit();
  const int expected = C::ragged ? task.expected : keys;
  KGEN_NO_UNROLL
  for (int i = 0; i < kAhead; ++i) {
    if (next_key() < expected)
      request();
    else
      async_commit();
  }
  async_wait<kAhead>();
  sync_block();  // Q and the length
  wave.keep_query();
  if constexpr (C::ragged != 0) {
    task.set_length(*lds<int>(S::kLength));
    keys = task.keys;
    end = (keys + C::tile_keys - 1) / C::tile_keys;
  }
  int stage = 0;
  KGEN_NO_UNROLL
  for (int t = begin, ahead = kAhead; t < end; t += S::kTileStep, ++ahead) {
    // A ring of its own: the stage of the tile before is free. First of all, what was not expected.
    if constexpr (S::kOwnRing || C::ragged != 0) {
      KGEN_NO_UNROLL
      while (next < ahead) request();
    }
    async_wait<kAhead - 1>();
    if constexpr (S::kOwnRing) {
      sync_wave();
    } else {
      sync_block();  // tile t is there for every wave, and every wave is done with the tile before
      request();
    }
    wave.template tile<C::ragged != 0>(S::kStages + stage, task.first_keys - t * C::tile_keys, t == begin);
    if constexpr (S::kOwnRing) sync_wave();  // the tile is read
    stage = after(stage);
  }
  async_wait<0>();  // more was expected than there is
  return end;
}

// Through registers: the next tile is under way while this one is multiplied.
template <class C>
KGEN_DEVICE void attend_direct(AttentionWave<C>& wave, const AttentionKeys<C>& keys, int begin, int end) {
  using S = AttentionShape<C>;
  typename S::LoadK::Registers k;
  typename S::LoadV::Registers v;
  const auto load = [&](int t) {
    const typename S::LoadK load_k(keys.source_k(t), thread_x());
    const typename S::LoadV load_v(keys.source_v(t), thread_x());
    load_k.template load<C::d_pad != C::d>(k, C::d);
    if (keys.left(t) >= C::tile_keys)
      load_v.template load<false>(v, 0);
    else
      load_v.template load<true>(v, keys.left(t));
  };
  load(begin);
  sync_lds();  // Q
  wave.keep_query();
  KGEN_NO_UNROLL
  for (int t = begin; t < end; t += S::kTileStep) {
    typename S::LoadK(keys.source_k(t), thread_x()).store(k, S::kStages);
    typename S::LoadV(keys.source_v(t), thread_x()).store(v, S::kStages + S::kKeyBytes);
    sync_lds();
    if (t + S::kTileStep < end) load(t + S::kTileStep);
    wave.template tile<false>(S::kStages, keys.seen(t), t == begin);
    sync_lds();
  }
}

// The host: nothing in flight.
template <class C>
KGEN_DEVICE void attend_plain(AttentionWave<C>& wave, const AttentionKeys<C>& keys, int begin, int end) {
  using S = AttentionShape<C>;
  const auto sync = [] {
    if constexpr (S::kThreads > 1) sync_block();
  };
  const int thread = thread_x();
  sync();  // Q
  wave.keep_query();
  for (int t = begin; t < end; t += S::kTileStep) {
    typename S::LoadK(keys.source_k(t), thread).template copy<C::d_pad != C::d>(C::d, S::kStages);
    typename S::LoadV(keys.source_v(t), thread).template copy<true>(keys.left(t), S::kStages + S::kKeyBytes);
    sync();
    wave.template tile<false>(S::kStages, keys.seen(t), t == begin);
    sync();
  }
}

template <class C>
KGEN_DEVICE void attend(AttentionTask<typename C::dtype> task) {
  using S = AttentionShape<C>;
  const int thread = thread_x();
  AttentionWave<C> wave(uniform(thread / S::kLanes), thread % S::kLanes, task.rows, task.scale);
  if constexpr (C::ragged != 0 && !C::async_pipeline) task.set_length(*task.length);
  if constexpr (S::kBlocks > 1) {
    if (thread == 0) ClusterParts<S>::expect(task.part, min_int(S::kM, task.rows) * S::kPerRow);
  }
  // This part's tiles.
  const int tiles = (task.keys + C::tile_keys - 1) / C::tile_keys, share = (tiles + C::split - 1) / C::split;
  const int begin = C::causal ? task.part * share : task.part;
  int end = C::causal ? min_int(begin + share, tiles) : tiles;
  if constexpr (C::async_pipeline) {
    if (C::ragged || begin < end) end = attend_async<C>(wave, task, begin, end);
  } else if (begin < end) {
    const typename S::SourceK source_q(task.q, task.ldq, task.rows, C::tile_q, C::d_pad, C::vec_k);
    typename S::LoadQ(source_q, thread).template copy<C::d_pad != C::d>(C::d, 0);
    const AttentionKeys<C> keys{task};
    if constexpr (C::arch == Arch::host)
      attend_plain<C>(wave, keys, begin, end);
    else
      attend_direct<C>(wave, keys, begin, end);
  }
  if constexpr (S::kBlocks > 1) cluster_arrive_relaxed();
  if constexpr (S::kThreads > 1) sync_block();  // LDS becomes the waves' rows of O
  wave.store(task, begin, end);
}

// Adds the parts of a row in their order, kAtOnce in flight: o = sum_s w_s O_s / sum_s w_s sum_s, w_s = 2^(max_s -
// max). A work-item makes 4 columns; `row_of(row)` is where a row of O starts.
template <class C, class P, class RowOf>
KGEN_DEVICE void merge_parts(const P& p, i64 rows, const RowOf& row_of) {
  constexpr int kColumns = 4, kPerRow = (C::dv + kColumns - 1) / kColumns, kAtOnce = C::split < 16 ? C::split : 16;
  static_assert(C::split % kAtOnce == 0);
  const i64 item = i64(block_x()) * block_size() + thread_x();
  if (item >= rows * kPerRow) return;
  const i64 row = item / kPerRow;
  const int column = int(item % kPerRow) * kColumns, valid = min_int(C::dv - column, kColumns);
  float max = negative_infinity(), sum = 0.0f, total[kColumns] = {};
  KGEN_NO_UNROLL
  for (int s = 0; s < C::split; s += kAtOnce) {
    float part[kAtOnce][kColumns], part_max[kAtOnce], part_sum[kAtOnce];
    KGEN_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const i64 at = (s + i) * rows + row;
      part_max[i] = p.stats[2 * at];
      part_sum[i] = p.stats[2 * at + 1];
      load_columns<kColumns>(p.partial + at * C::dv + column, valid, part[i]);
    }
    float top = max;
    KGEN_UNROLL
    for (int i = 0; i < kAtOnce; ++i) top = Maximum()(top, part_max[i]);
    const float shift = softmax_shift(top), rescale = exp2_raw(max - shift);
    max = top;
    sum *= rescale;
    KGEN_UNROLL
    for (int c = 0; c < kColumns; ++c) total[c] *= rescale;
    KGEN_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const float weight = exp2_raw(part_max[i] - shift);
      sum = fma_f(weight, part_sum[i], sum);
      KGEN_UNROLL
      for (int c = 0; c < kColumns; ++c) total[c] = fma_f(weight, part[i][c], total[c]);
    }
  }
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
  KGEN_UNROLL
  for (int c = 0; c < kColumns; ++c) total[c] *= inverse;
  store_columns<kColumns>(row_of(row) + column, valid, total);
}

}  // namespace kgen
