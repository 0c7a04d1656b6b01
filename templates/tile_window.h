// The tile loop of AMD's GPUs: tiles of both operands through registers to LDS, read from memory in windows.
//
//   memory ── buffer loads ──▶ registers ──▶ LDS stage ──▶ fragments ──▶ matrix unit
//             the next tile    one tile      tile t        a turn ahead of the products
//
// A window (prelude.h) has zeros where an offset is outside, so neither the edges of M and N nor the end of K need a
// branch: what a lane reads is an offset that stays the same from tile to tile, and the window moves. Only the first
// tile may be partial (its missing terms are outside); all others are whole. What lies behind the last tile is closed.
//
// One stage: tile t+1 is asked for under the first products of tile t; when all waves have read the last fragments, it
// takes the place of tile t under the last products. Two stages: under the first products tile t+1, asked for a tile
// before, goes to the other stage, and tile t+2 is asked for.
#pragma once
#include "prelude.h"
#include "tile.h"

namespace kgen {

// Sources that can be read through a window: their offsets are of 32 bits.
template <class Source>
concept Windowed = requires { Source::kWindowed; } && Source::kWindowed;

// As TileLoader, through a window.
template <class Source, class Lds, class LdsLayout, int kOuter, int kInner, int kVec, int kThreads, bool kTransposed>
struct WindowLoader : TileLoader<Source, Lds, LdsLayout, kOuter, kInner, kVec, kThreads, kTransposed> {
  using Base = TileLoader<Source, Lds, LdsLayout, kOuter, kInner, kVec, kThreads, kTransposed>;
  using typename Base::Registers;
  using T = typename Source::T;
  static constexpr int kBytes = kVec * int(sizeof(T));
  static constexpr int kFetches = Base::kCount * Base::kSpan;
  static constexpr int kStores = Base::kCount * Base::kRunsOfPiece;
  static constexpr bool kKeeps = !Source::kGaps;  // a piece has one offset for all tiles

  u32 kept[kKeeps ? Base::kCount : 1][Base::kSpan];

  KGEN_DEVICE WindowLoader(const Source& from, int thread_index) : Base(from, thread_index) {
    if constexpr (kKeeps) {
      KGEN_UNROLL
      for (int i = 0; i < Base::kCount; ++i) {
        KGEN_UNROLL
        for (int s = 0; s < Base::kSpan; ++s) kept[i][s] = find(i, s);
      }
    }
  }

  KGEN_DEVICE u32 find(int i, int s) const {
    const int line = this->outer(i) + s, run = this->inner(i);
    const u32 at = this->source.window_offset(Base::kWholeLines ? i * Base::kSpan + s : line,
                                              Base::kWholeLines ? 0 : run / kVec, line, run);
    return this->exists(i) ? at : kOutside;
  }
  KGEN_DEVICE void read(Registers& r, int i, int s, u32 offset, u32 size) const {
    r.v[i][s].words = window_load<kBytes>(this->source.window(), size, offset);
  }

  // The first tile, of `terms` terms.
  KGEN_DEVICE void fetch_first(Registers& r, int terms) {
    KGEN_UNROLL
    for (int i = 0; i < Base::kCount; ++i) {
      KGEN_UNROLL
      for (int s = 0; s < Base::kSpan; ++s) {
        const u32 at = kKeeps ? kept[kKeeps ? i : 0][s] : find(i, s);
        read(r, i, s, this->k_of(i, s) < terms ? at : kOutside, kOutside);
      }
    }
    if (terms == (Source::kKMajor ? kInner : kOuter)) {
      this->source.advance();
    } else {
      this->source.skip(terms);
      if constexpr (Source::kGaps) this->begin_runs();
    }
  }
  // The next tile; nothing is read where it does not exist.
  KGEN_DEVICE void fetch(Registers& r, bool exists) {
    const u32 size = exists ? kOutside : 0;
    KGEN_UNROLL
    for (int i = 0; i < Base::kCount; ++i) {
      KGEN_UNROLL
      for (int s = 0; s < Base::kSpan; ++s) read(r, i, s, kKeeps ? kept[kKeeps ? i : 0][s] : find(i, s), size);
    }
    this->source.advance();
  }
};

// What a wave issues for a tile: fragments are read, and tiles moved, in the time of its matrix instructions. A turn is
// the steps whose fragments are read at once.
template <class S, class Wave, class LoaderA, class LoaderB>
struct Issues {
  using Mma = typename S::Mma;
  static constexpr int kProducts = S::kRm * S::kRn * Mma::kInstructions * Wave::kTurn;
  static constexpr int kReads = (S::kRm * Mma::kChunksA + S::kRn * Mma::kChunksB) * Wave::kTurn;
  static constexpr int kStores = LoaderA::kStores + LoaderB::kStores, kFetches = LoaderA::kFetches + LoaderB::kFetches;

  // `kCount` instructions of a kind behind kMatrix matrix instructions.
  template <int kKind, int kCount, int kMatrix>
  static KGEN_DEVICE void spread() {
    KGEN_UNROLL
    for (int i = 0; i < kMatrix; ++i) {
      next_issues<kIssueMatrix, 1>();
      KGEN_UNROLL
      for (int n = kCount * i / kMatrix; n < kCount * (i + 1) / kMatrix; ++n) next_issues<kKind, 1>();
    }
  }
  // A turn that has kMatrix of its products left, and reads the next one's fragments under the first of them.
  template <int kMatrix>
  static KGEN_DEVICE void turn() {
    constexpr int kUnder = min_int(kReads, (kMatrix + 1) / 2);
    spread<kIssueLdsRead, kReads, kUnder>();
    KGEN_UNROLL
    for (int i = kUnder; i < kMatrix; ++i) next_issues<kIssueMatrix, 1>();
  }
  // Products under which a tile goes to LDS, and under which one is asked for: some leave room for the fragments.
  static constexpr int kUnderStores = min_int((kStores + 3) / 4, (kProducts + 2) / 3);
  static constexpr int kUnderFetches = min_int((kFetches + 3) / 4, (kProducts + 2) / 3);
  static constexpr int kLeft = kProducts - kUnderFetches - (S::kStages == 2 ? kUnderStores : 0);
  static KGEN_DEVICE void first_turns() {
    if constexpr (S::kStages == 2) spread<kIssueLdsWrite, kStores, kUnderStores>();
    spread<kIssueGlobalRead, kFetches, kUnderFetches>();
    turn < kLeft<1 ? 1 : kLeft>();
    KGEN_UNROLL
    for (int i = 2; i < Wave::kTurns; ++i) turn<kProducts>();
  }
  static KGEN_DEVICE void last_turn() {
    if constexpr (S::kStages == 1) spread<kIssueLdsWrite, kStores, kUnderStores>();
    turn<S::kStages == 1 ? kProducts - kUnderStores : kProducts>();
  }
};

// acc += the products over `k` terms.
template <class S, class Wave, class LoaderA, class LoaderB>
KGEN_DEVICE void tile_loop_windows(Wave& wave, LoaderA& load_a, LoaderB& load_b, int k) {
  using Plan = Issues<S, Wave, LoaderA, LoaderB>;
  constexpr bool kTwo = S::kStages == 2;
  const int tiles = (k + S::kTileK - 1) / S::kTileK;
  if (tiles == 0) return;
  typename LoaderA::Registers a;
  typename LoaderB::Registers b;
  const auto fetch = [&](bool exists) {
    load_a.fetch(a, exists);
    load_b.fetch(b, exists);
  };
  const auto store = [&](int stage) {
    load_a.store(a, stage);
    load_b.store(b, stage + S::kABytes);
  };
  int stage = 0;
  const auto load = [&](int turn) {
    KGEN_UNROLL
    for (int i = turn * Wave::kTurn; i < (turn + 1) * Wave::kTurn; ++i) wave.load(i % Wave::kBuffers, i, stage, stage);
  };
  const auto multiply = [&](int turn) {
    KGEN_UNROLL
    for (int i = turn * Wave::kTurn; i < (turn + 1) * Wave::kTurn; ++i) wave.multiply(i % Wave::kBuffers);
  };
  // All turns but the last one's products.
  const auto turns = [&] {
    KGEN_UNROLL
    for (int turn = 1; turn < Wave::kTurns; ++turn) {
      load(turn);
      multiply(turn - 1);
    }
  };
  const int first = k - (tiles - 1) * S::kTileK;
  load_a.fetch_first(a, first);
  load_b.fetch_first(b, first);
  store(0);
  if constexpr (kTwo) fetch(tiles > 1);
  sync_lds();
  load(0);
  KGEN_NO_UNROLL
  for (int t = 1; t < tiles; ++t) {
    const int next = kTwo ? stage ^ S::kStageBytes : stage;
    if constexpr (kTwo) store(next);
    fetch(!kTwo || t + 1 < tiles);
    turns();
    if constexpr (Wave::kTurns > 1) Plan::first_turns();
    keep_order();
    if constexpr (Wave::kTurns == 1) multiply(0);
    if constexpr (!kTwo) {
      sync_lds();
      store(next);
    }
    sync_lds();
    stage = next;
    load(0);
    if constexpr (Wave::kTurns > 1) {
      multiply(Wave::kTurns - 1);
      Plan::last_turn();
    }
  }
  turns();
  multiply(Wave::kTurns - 1);
}

}  // namespace kgen
