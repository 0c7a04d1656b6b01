// The projection of mhc.h by tiles (tile.h), for the matrix cores or the plain ALU: tokens x fn rows.
//
//   block tile_m tokens x all fn rows, part of h            one tile of K: tile_h elements of each of the n streams
//   ┌─────────────┐                                           k = i*tile_h + h     stream 0 │ stream 1 │ …
//   │ wave        │ tile_n = rows, padded                   A: the streams, made (mhc_post) or read, → LDS, and on the
//   way ├─────────────┤  (split: high, middle, low)                squared: a work-item has vectors of all n streams at
//   one h │ wave        │                                         B: fn in this order, packed once and padded with
//   zeros └─────────────┘
//
// split: fn = high + middle (+ low), all bf16, so that products with bf16 streams are exact: columns 0 … rows-1 of the
// tile are high, the next `rows` middle, the last n low, of the gates alone. The sums of a row's terms are added at the
// end. The totals go to `partial` as project's do.
//
// Errors of a mix of standard deviation 1 (t = 96, h = 7168, n = 4, N(0,1)-like data of OPS.md e.6; emulated in numpy,
// standard deviation / largest; not measured on a device):
//   fn in two terms            2.6e-6 / 7e-6     rounding of middle: (0.43 * 2^-8)^2, a random walk over n*h terms
//   whose
//                                                squares sum to 1. Over 65536 tokens 4.6 sigma are met, 1.2e-5; a gate
//                                                moves by 0.7/4 of it, and four gates on four streams of 4 sigma each
//                                                come to the 1e-5 that layer_input may be off. So gates have three.
//   fn in three terms          0                 24 bits are all of fp32 (but what lies below bf16's range)
//   sums of 16 k, truncated    4e-5 / 1.3e-4     tensor cores cut what they add to a sum: n*h/16 = 1792 additions lose
//   up
//     (8 k: 7e-5 / 2.4e-4)                       to 2^-23 of it each, always towards zero, and do not average out
//   ... restarted every tile   3e-7 / 1.2e-6     8 additions to sums of sqrt(128/(n*h)) = 0.07, of either sign; then
//   one
//                                                rounding a tile in fp32 (TilewiseSums). 1e-6 in layer_input
//   squares, one chain         4e-6 (relative, of the root) small squares vanish beside a sum of thousands
//   squares, by tile           2e-7
// Post and comb are within 2e-5 with two terms: 2 * 1.1/4 * 1.2e-5 = 7e-6.
//
// Legality: n*tile_h is a power of two; h is a multiple of vec, and so are the strides of tokens.
#pragma once
#include "mhc.h"
#include "mma/mma.h"
#include "tile.h"

namespace kgen {
namespace mhc {

template <class C>
struct Tiles {
  using Element = typename ChooseType<C::split, bf16, float>::Type;
  using Unit = Mma<C::arch, Element, float, C::mma_m, C::tile_k>;
  using Shape =
      TileShape<Unit, C::tile_m, C::tile_n, C::tile_k, C::waves_m, C::waves_n, C::stages, Unit::kBInN, false, false>;
  using Lds = typename Shape::Lds;
  static constexpr int kThreads = Shape::kThreads;
  static constexpr int kPitch = C::tile_n + 4;  // of the sums in LDS; puts 8 rows at one column into all banks
  static_assert(C::tile_k == int(C::n) * C::tile_h && kThreads == C::threads);
};

// Sums over one tile of K, then added to `total` by the plain ALU, which rounds to nearest.
template <class S>
struct TilewiseSums : WaveTile<S> {
  using Unit = typename S::Mma;
  typename Unit::C total[S::kRm][S::kRn] = {};
  using WaveTile<S>::WaveTile;

  KGEN_DEVICE void multiply_tile(int stage) {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < S::kRn; ++j) this->acc[i][j] = typename Unit::C{};
    }
    WaveTile<S>::multiply_tile(stage);
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < S::kRn; ++j) add(total[i][j], this->acc[i][j]);
    }
  }

 private:
  static KGEN_DEVICE void add(typename Unit::C& to, const typename Unit::C& part) {
    KGEN_UNROLL
    for (int r = 0; r < Unit::kRowsC; ++r) {
      KGEN_UNROLL
      for (int e = 0; e < Unit::kRowElementsC; ++e)
        Unit::set_c(to, r, e, Unit::get_c(to, r, e) + Unit::get_c(part, r, e));
    }
  }
};

// fn in the order of the tiles: [tile of h][tile_n][stream][tile_h].
template <class C, class P>
KGEN_DEVICE void pack_fn(const P& p) {
  constexpr int kN = int(C::n);
  const i64 tiles = (p.h + C::tile_h - 1) / C::tile_h, count = tiles * C::tile_n * C::tile_k;
  const i64 at = i64(block_x()) * block_size() + thread_x();
  if (at >= count) return;
  const i64 tile = at / (C::tile_n * C::tile_k);
  const int rest = int(at - tile * (C::tile_n * C::tile_k)), row = rest / C::tile_k, k = rest % C::tile_k;
  const i64 h = tile * C::tile_h + k % C::tile_h;
  float value = 0;
  if (h < p.h && row < (C::split ? 2 * C::rows + kN : C::rows))
    value = p.fn[(i64(row % C::rows) * kN + k / C::tile_h) * p.h + h];
  if constexpr (C::split) {
    p.packed[at] = split_term(value, row < C::rows ? 0 : row < 2 * C::rows ? 1 : 2);
  } else {
    p.packed[at] = value;
  }
}

// A template, since NVRTC refuses the call where no architecture defines it, even in a branch that is left out.
template <class C>
KGEN_DEVICE void commit_pieces() {
  async_commit();
}

// Tiles of the streams, as TileLoader moves them: memory → registers → LDS.
template <class C, bool kSpreads, class P>
struct StreamsLoader {
  using T = typename C::dtype;
  using G = Tiles<C>;
  using Lds = typename G::Lds;
  using Layout = typename G::Shape::LayoutA;
  static constexpr int kN = int(C::n), kMixes = kN + kN * kN;
  static constexpr int kPerToken = C::tile_h / C::vec, kPieces = C::tile_m * kPerToken;
  static constexpr int kCount = (kPieces + G::kThreads - 1) / G::kThreads;
  static constexpr int kRun = C::vec * int(sizeof(Lds)) <= 16 ? C::vec : 16 / int(sizeof(Lds));

  struct Source {
    i64 h;
    KGEN_DEVICE void advance() { h += C::tile_h; }
  };
  // With a ring, tiles come to LDS by cp.async, C::ring - 1 of them ahead. A work-item copies and reads its own pieces
  // alone, so no barrier is needed: [ring][piece][stream, then x][work-item].
  static constexpr int kSources = kN + (kSpreads ? 1 : 0), kPieceBytes = C::vec * int(sizeof(T));
  static constexpr int kSlotBytes = kCount * kSources * G::kThreads * kPieceBytes;
  struct Registers {
    Packed<T, C::vec> x[kSpreads && C::ring == 0 ? kCount : 1], stream[C::ring == 0 ? kCount : 1][kN];
    i64 h;
  };

  const P& p;
  i64 token0;
  const float* mixes;  // LDS [tile_m][kMixes]
  Source source;
  i64 h_end;
  int fetch_slot, store_slot;
  float squares[kCount];

  KGEN_DEVICE StreamsLoader(const P& params, i64 first_token, i64 h, i64 end, const float* lds_mixes)
      : p(params),
        token0(first_token),
        mixes(lds_mixes),
        source{h},
        h_end(end),
        fetch_slot(0),
        store_slot(0),
        squares{} {
    for (int i = 0; i < C::ring - 1; ++i) fetch(h + i * C::tile_h);
  }

  static KGEN_DEVICE int ring_at(int slot, int i, int s) {
    return C::ring_at + slot * kSlotBytes + ((i * kSources + s) * G::kThreads + thread_x()) * kPieceBytes;
  }
  KGEN_DEVICE void fetch(i64 tile_start) {
    if constexpr (C::ring > 0) {
      if (tile_start < h_end) {
        KGEN_UNROLL
        for (int i = 0; i < kCount; ++i) {
          if (!exists(i)) continue;
          const i64 token = token0 + slot(i) < p.t ? token0 + slot(i) : p.t - 1;
          const i64 h = tile_start + column(i) < p.h ? tile_start + column(i) : p.h - C::vec;
          const u32 to = lds_address(lds_base());
          KGEN_UNROLL
          for (int s = 0; s < kN; ++s)
            async_copy<kPieceBytes>(to + u32(ring_at(fetch_slot, i, s)), p.residual + token * p.ldr + s * p.h + h);
          if constexpr (kSpreads)
            async_copy<kPieceBytes>(to + u32(ring_at(fetch_slot, i, kN)), p.x + token * p.ldx + h);
        }
      }
      commit_pieces<C>();
      fetch_slot = fetch_slot + 1 < C::ring ? fetch_slot + 1 : 0;
    }
  }

  static KGEN_DEVICE int piece(int i) { return i * G::kThreads + thread_x(); }
  static KGEN_DEVICE bool exists(int i) { return kPieces % G::kThreads == 0 || piece(i) < kPieces; }
  static KGEN_DEVICE int slot(int i) { return piece(i) / kPerToken; }
  static KGEN_DEVICE int column(int i) { return piece(i) % kPerToken * C::vec; }

  // Places beyond the tokens or h repeat the last ones; store() zeroes the latter.
  template <bool>
  KGEN_DEVICE void load(Registers& r, int) {
    r.h = source.h;
    if constexpr (C::ring > 0) {
      fetch(source.h + (C::ring - 1) * C::tile_h);
    } else {
      KGEN_UNROLL
      for (int i = 0; i < kCount; ++i) {
        if (!exists(i)) continue;
        const i64 token = token0 + slot(i) < p.t ? token0 + slot(i) : p.t - 1;
        const i64 h = source.h + column(i) < p.h ? source.h + column(i) : p.h - C::vec;
        if constexpr (kSpreads) r.x[i] = Packed<T, C::vec>::load(p.x + token * p.ldx + h);
        KGEN_UNROLL
        for (int s = 0; s < kN; ++s) r.stream[i][s] = Packed<T, C::vec>::load(p.residual + token * p.ldr + s * p.h + h);
      }
    }
  }
  KGEN_DEVICE void store(const Registers& r, int stage) {
    if constexpr (C::ring > 0) async_wait<C::ring - 1>();
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (!exists(i)) continue;
      const i64 token = token0 + slot(i), h = r.h + column(i);
      Packed<T, C::vec> stream[kN], x = {};
      if constexpr (C::ring > 0) {
        KGEN_UNROLL
        for (int s = 0; s < kN; ++s) stream[s] = Packed<T, C::vec>::load(lds<T>(ring_at(store_slot, i, s)));
        if constexpr (kSpreads) x = Packed<T, C::vec>::load(lds<T>(ring_at(store_slot, i, kN)));
      } else {
        KGEN_UNROLL
        for (int s = 0; s < kN; ++s) stream[s] = r.stream[i][s];
        if constexpr (kSpreads) x = r.x[i];
      }
      float tile_squares = 0;
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) {
        Packed<T, C::vec> value = stream[s];
        if constexpr (kSpreads) {
          const float* post = mixes + slot(i) * kMixes;
          value = {};
          KGEN_UNROLL
          for (int e = 0; e < C::vec; ++e) {
            float sources[kN];
            KGEN_UNROLL
            for (int j = 0; j < kN; ++j) sources[j] = stream[j][e];
            value.set(e, spread<kN>(post, post + kN, s, x[e], sources));
          }
          if (token < p.t && h < p.h) value.store(p.residual_out + (token * kN + s) * p.h + h);
        }
        value.zero_unless(h < p.h);
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) tile_squares = fma_f(value[e], value[e], tile_squares);
        KGEN_UNROLL
        for (int part = 0; part < C::vec; part += kRun) {
          Packed<Lds, kRun> run = {};
          KGEN_UNROLL
          for (int e = 0; e < kRun; ++e) run.set(e, value[part + e]);
          run.store(lds<Lds>(stage + Layout::offset(slot(i), s * C::tile_h + column(i) + part)));
        }
      }
      squares[i] += tile_squares;
    }
    if constexpr (C::ring > 0) store_slot = store_slot + 1 < C::ring ? store_slot + 1 : 0;
  }
  template <bool>
  KGEN_DEVICE void copy(int, int stage) {
    Registers r;
    load<false>(r, 0);
    store(r, stage);
  }
};

template <class C, bool kSpreads, class P>
KGEN_DEVICE void project_tiles(const P& p) {
  using G = Tiles<C>;
  using S = typename G::Shape;
  using Unit = typename G::Unit;
  using Source = MatrixSource<typename G::Element, true>;
  using LoadA = StreamsLoader<C, kSpreads, P>;
  constexpr int kVecB = 16 / int(sizeof(typename G::Element));
  const int thread = thread_x(), wave_index = uniform(thread / Unit::kLanes), lane = thread % Unit::kLanes;
  const int part = block_x() % C::parts;
  const i64 token0 = i64(block_x() / C::parts) * C::tile_m;
  const int tiles = int((p.h + C::tile_h - 1) / C::tile_h), share = (tiles + C::parts - 1) / C::parts;
  const int first = min_int(part * share, tiles), count = min_int(share, tiles - first);

  float* mixes = lds<float>(C::mixes_at);
  LoadA load_a(p, token0, i64(first) * C::tile_h, i64(first + count) * C::tile_h, mixes);
  if constexpr (kSpreads) {
    for (int i = thread; i < C::tile_m * LoadA::kMixes; i += G::kThreads) {
      const i64 token = token0 + i / LoadA::kMixes < p.t ? token0 + i / LoadA::kMixes : p.t - 1;
      const int mix = i % LoadA::kMixes;
      mixes[i] = mix < LoadA::kN ? p.post_mix[token * LoadA::kN + mix]
                                 : p.comb_mix[token * LoadA::kN * LoadA::kN + mix - LoadA::kN];
    }
    sync_lds();
  }
  Source source_b(p.packed + i64(first) * (C::tile_n * C::tile_k), C::tile_k, C::tile_n, C::tile_n, C::tile_k, kVecB);
  source_b.step = C::tile_n * C::tile_k;
  TileLoader<Source, typename G::Lds, typename S::LayoutB, C::tile_n, C::tile_k, kVecB, G::kThreads, S::kBInN> load_b(
      source_b, thread);
  TilewiseSums<S> wave(wave_index, lane, source_b, source_b);
  if constexpr (C::arch == Arch::host)
    tile_loop_plain<S>(wave, load_a, load_b, count * C::tile_k);
  else
    tile_loop_direct<S>(wave, load_a, load_b, count * C::tile_k);
  sync_lds();

  // LDS: sums [tile_m][kPitch], then the squares [tile_m][kPerToken].
  float* sums = lds<float>(0);
  float* squares = sums + C::tile_m * G::kPitch;
  const int row = wave_index / C::waves_n * S::kWaveM, column = wave_index % C::waves_n * S::kWaveN;
  KGEN_UNROLL
  for (int i = 0; i < S::kRm; ++i) {
    KGEN_UNROLL
    for (int j = 0; j < S::kRn; ++j)
      Unit::store(wave.total[i][j], sums + (row + i * Unit::kM) * G::kPitch + column + j * Unit::kN, G::kPitch, lane);
  }
  KGEN_UNROLL
  for (int i = 0; i < LoadA::kCount; ++i)
    if (LoadA::exists(i)) squares[LoadA::piece(i)] = load_a.squares[i];
  sync_lds();
  for (int i = thread; i < C::tile_m * (C::rows + 1); i += G::kThreads) {
    const int slot = i / (C::rows + 1), total_column = i % (C::rows + 1);
    if (token0 + slot >= p.t) continue;
    float total = 0;
    if (total_column == 0) {
      for (int e = 0; e < LoadA::kPerToken; ++e) total += squares[slot * LoadA::kPerToken + e];
    } else {
      const float* terms = sums + slot * G::kPitch + total_column - 1;
      total = terms[0];
      if constexpr (C::split) {
        float rest = terms[C::rows];
        if (total_column <= int(C::n)) rest += terms[2 * C::rows];
        total += rest;
      }
    }
    p.partial[(part * p.t + token0 + slot) * (C::rows + 1) + total_column] = total;
  }
}

}  // namespace mhc

template <class C, class P>
KGEN_DEVICE void mhc_pack_fn(const P& p) {
  mhc::pack_fn<C>(p);
}
template <class C, class P>
KGEN_DEVICE void mhc_project_tiles(const P& p) {
  mhc::project_tiles<C, false>(p);
}
template <class C, class P>
KGEN_DEVICE void mhc_post_project_tiles(const P& p) {
  mhc::project_tiles<C, true>(p);
}

}  // namespace kgen
