// The tile loop of every GEMM-like kernel: acc += A[tile_m x K] . B[K x tile_n] through LDS, for SIMT and matrix cores
// alike.
//
//   memory ── Source (addresses, masks) ──▶ TileLoader ──▶ LDS stage [A | B] ──▶ WaveTile (fragments, Mma) ──▶ acc
//
//   block tile tile_m x tile_n              wave tile
//   ┌────────┬────────┐                     ┌──┬──┬──┬──┐
//   │ wave 0 │ wave 1 │ waves_m x waves_n   │  kM x kN  │ kRm x kRn blocks; what a lane holds of a block
//   ├────────┼────────┤                     ├──┼──┼──┼──┤ is said in mma/mma.h
//   │ wave 2 │ wave 3 │                     └──┴──┴──┴──┘
//   └────────┴────────┘
//   waves_k such blocks of waves share the K steps of every tile: wave group g takes steps g*kSteps .. of each, and
//   tile_product.h adds the groups' sums
//
// Pipelines. Async (cp.async): a ring of `stages` LDS stages, all filled at once and then each as soon as it has been
// read (a ring as long as K takes one trip to memory); one barrier a tile; the first fragments of the next tile are
// loaded under the last products of this one. Direct: the next tile is loaded into
// registers while this one is multiplied, then written to the other LDS stage (or, with one stage, to the same after a
// barrier). Host: load, barrier, multiply, barrier.
//
// K is cut into tiles of kTileK; only the last may be partial, and its missing part is zero in both operands.
#pragma once
#include "columns.h"
#include "mma/mma.h"
#include "prelude.h"

namespace kgen {

KGEN_HOST_DEVICE constexpr int min_int(int a, int b) { return a < b ? a : b; }

// How the 16-byte chunks of a row are permuted so that 8 consecutive rows have a chunk in 8 different groups of banks.
enum class Permutation {
  none,
  swizzle,   // the same chunk of each row is read: chunk ^ f(row), f of period 8
  realigned  // the chunk moves by an odd number from row to row, so only rows a whole round apart meet
};

// Byte offsets in a matrix of kRow elements a row in LDS.
template <class T, int kRow, Permutation kPermutation>
struct Layout {
  static constexpr int kRowBytes = kRow * int(sizeof(T));
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kGroup = (kChunks & -kChunks) < 8 ? (kChunks & -kChunks) : 8;  // chunks that change places
  static constexpr int kRowsPerLine =
      8 / kGroup;  // rows after which the banks repeat; in all 32 banks where kChunks < 8
  static_assert(kRowBytes % 16 == 0);
  static KGEN_DEVICE int offset(int row, int column) {
    const int byte = column * int(sizeof(T));
    if constexpr (kPermutation == Permutation::swizzle)
      return row * kRowBytes + (byte ^ (row / kRowsPerLine % kGroup * 16));
    if constexpr (kPermutation == Permutation::realigned && kChunks < 8)
      return row * kRowBytes + (byte ^ (row / kChunks % kRowsPerLine * 16));
    return row * kRowBytes + byte;
  }
  // `bytes` further along a row than `at` columns, which are less than the steps that make up `bytes`: the bits that
  // the permutation changes are free in `at` and pass through the exclusive or.
  static KGEN_DEVICE int along_row(int at, int bytes) {
    const int changed = bytes % (kGroup * 16);
    return (at ^ changed) + (bytes - changed);
  }
};

// An address that can be read, and whether what lies there is an element of the tile; else the tile has a zero.
template <class T>
struct Place {
  const T* at;
  bool valid;
};

// A matrix in memory as tiles are read from it: `outer` lines of contiguous `inner` elements. K runs along the lines
// when kKMajor, else across them. Positions are relative to the tile; what lies beyond the edge of M or N makes
// products in rows or columns that are not stored: asynchronous copies leave it out, and else the last valid place is
// read instead. Offsets within a tile are 32-bit.
//
// Another operand (an image's taps: conv.h) is another type with T, kKMajor, kGaps, place, advance and Walk: what a
// work-item keeps while it goes through the tiles. A Walk that has state for the lines and runs of its work-item gets
// begin_line(i, outer) and begin_run(i, inner) first (kGaps).
template <class T_, bool kKMajor_>
struct MatrixSource {
  using T = T_;
  static constexpr bool kKMajor = kKMajor_;
  static constexpr bool kGaps = false;  // places within the terms may have no element, and count as zero
  template <int kLines, int kRuns>
  using Walk = MatrixSource;
  const T* base;  // first element of the present tile
  i64 step;       // to the next tile along K
  int ld;
  int last;  // greatest valid line (kKMajor) or vector start within a line

  // `first`: element at the tile's corner; `extent`: lines or columns from there to the matrix's edge, a multiple of
  // `vec`.
  KGEN_DEVICE MatrixSource(const T* first, i64 leading, i64 extent, int tile, int tile_k, int vec)
      : base(first),
        step(kKMajor ? i64(tile_k) : tile_k * leading),
        ld(int(leading)),
        last((extent < tile ? int(extent) : tile) - (kKMajor ? 1 : vec)) {}
  KGEN_DEVICE int offset(int outer, int inner) const {
    return kKMajor ? min_int(outer, last) * ld + inner : outer * ld + min_int(inner, last);
  }
  // Lines (kKMajor) or places of a line that lie in the matrix.
  KGEN_DEVICE int inside(int vec) const { return kKMajor ? last + 1 : last + vec; }
  // The same place in M or N at the tile's first k, which always exists.
  KGEN_DEVICE int offset_at_first_k(int offset, int k) const { return offset - (kKMajor ? k : k * ld); }
  KGEN_DEVICE const T* at(int offset) const { return base + offset; }
  // Where a piece is read, at line `outer` and place `inner` of the tile, whose term k of k_left that is; what is read
  // counts where `valid` says so. kMasked: k may be beyond the terms.
  template <bool kMasked>
  KGEN_DEVICE Place<T> place(int /*line*/, int /*run*/, int outer, int inner, int k, int k_left) const {
    const int from = offset(outer, inner);
    if constexpr (!kMasked)
      return {at(from), true};
    else
      return {at(k < k_left ? from : offset_at_first_k(from, k)), k < k_left};
  }
  KGEN_DEVICE void advance() { base += step; }
  // Through a window on the present tile (tile_window.h): the rules keep 2^31 elements from being reached.
  static constexpr bool kWindowed = sizeof(T) == 2;
  KGEN_DEVICE const T* window() const { return base; }
  KGEN_DEVICE u32 window_offset(int /*line*/, int /*run*/, int outer, int inner) const {
    return (kKMajor ? outer : inner) <= last ? (u32(outer) * u32(ld) + u32(inner)) * u32(sizeof(T)) : kOutside;
  }
  KGEN_DEVICE void skip(int terms) { base += kKMajor ? i64(terms) : i64(terms) * ld; }
};

// Lines that a work-item transposes at once: 16 bytes, or of halves fewer where the tile has too little for all.
template <class Lds>
KGEN_HOST_DEVICE constexpr int span(int lines_each) {
  constexpr int kWhole = 16 / int(sizeof(Lds));
  return sizeof(Lds) > 2 || lines_each >= kWhole ? kWhole : lines_each >= 4 ? 4 : 2;
}

// Moves tiles of kOuter x kInner from a Source to LDS, kVec elements an access, kThreads work-items together.
// kTransposed: LDS rows run along `outer`; a piece is then kSpan lines x kVec elements, written as kVec runs of kSpan.
template <class Source, class Lds, class LdsLayout, int kOuter, int kInner, int kVec, int kThreads, bool kTransposed>
struct TileLoader {
  using T = typename Source::T;
  static constexpr int kPiecesPerLine = kInner / kVec;
  static constexpr int kSpan = kTransposed ? span<Lds>(kOuter * kPiecesPerLine / kThreads) : 1;
  static constexpr int kPieces = kOuter / kSpan * kPiecesPerLine;
  static constexpr int kCount = (kPieces + kThreads - 1) / kThreads;  // of one work-item
  static constexpr bool kRagged = kPieces % kThreads != 0;
  static_assert(kInner % kVec == 0 && kOuter % kSpan == 0, "a tile is whole vectors");

  // Halves are transposed by neighbours along K, which fill a row of LDS together.
  static constexpr bool kAlongK = kTransposed && sizeof(Lds) == 2;
  static constexpr int kSpansPerTile = kOuter / kSpan;
  static constexpr bool kWholeLines =
      !kAlongK && kThreads % kPiecesPerLine == 0;  // piece i is piece 0 some lines further
  static constexpr int kLineStep = kThreads / kPiecesPerLine * kSpan;
  // Different lines and places within a line that this work-item's pieces have.
  static constexpr int kLines = kWholeLines ? kCount * kSpan : kOuter, kRuns = kWholeLines ? 1 : kPiecesPerLine;

  typename Source::template Walk<kLines, kRuns> source;
  u32 thread;

  KGEN_DEVICE TileLoader(const Source& from, int thread_index) : source(from), thread(u32(thread_index)) {
    if constexpr (Source::kGaps) {
      KGEN_UNROLL
      for (int i = 0; i < kLines; ++i) source.begin_line(i, kWholeLines ? outer(i / kSpan) + i % kSpan : i);
      begin_runs();
    }
  }
  KGEN_DEVICE void begin_runs() {
    KGEN_UNROLL
    for (int i = 0; i < kRuns; ++i) source.begin_run(i, kWholeLines ? inner(0) : i * kVec);
  }

  KGEN_DEVICE bool exists(int i) const { return !kRagged || thread + u32(i * kThreads) < kPieces; }
  KGEN_DEVICE int outer(int i) const {
    if constexpr (kAlongK) return int((thread + u32(i * kThreads)) % kSpansPerTile * kSpan);
    return kWholeLines ? int(thread / kPiecesPerLine * kSpan) + i * kLineStep
                       : int((thread + u32(i * kThreads)) / kPiecesPerLine * kSpan);
  }
  KGEN_DEVICE int inner(int i) const {
    if constexpr (kAlongK) return int((thread + u32(i * kThreads)) / kSpansPerTile * kVec);
    return int((kWholeLines ? thread : thread + u32(i * kThreads)) % kPiecesPerLine * kVec);
  }
  // A piece is written in runs of at most 16 bytes.
  static constexpr int kRunBytes = kTransposed ? kSpan * int(sizeof(Lds)) : min_int(kVec * int(sizeof(Lds)), 16);
  static constexpr int kRunsOfPiece = kTransposed ? kVec : kVec * int(sizeof(Lds)) / kRunBytes;
  // Where element e of piece i goes, or the run across its lines. Eight lines keep the layout's permutation.
  KGEN_DEVICE int place(int i, int e) const {
    if constexpr (kTransposed)
      return LdsLayout::offset(inner(i) + e, outer(i));
    else if constexpr (kWholeLines && kLineStep % 8 == 0)
      return LdsLayout::offset(outer(0), inner(0) + e) + i * kLineStep * LdsLayout::kRowBytes;
    else
      return LdsLayout::offset(outer(i), inner(i) + e);
  }
  KGEN_DEVICE int k_of(int i, int s) const { return Source::kKMajor ? inner(i) : outer(i) + s; }

  using Piece = Packed<T, kVec>;

  template <bool kMasked>
  KGEN_DEVICE Place<T> find(int i, int s, int k_left) const {
    const int line = outer(i) + s, run = inner(i);
    return source.template place<kMasked>(kWholeLines ? i * kSpan + s : line, kWholeLines ? 0 : run / kVec, line, run,
                                          k_of(i, s), k_left);
  }

  template <bool kMasked>
  KGEN_DEVICE Piece load_piece(int i, int s, int k_left) const {
    const Place<T> place = find<kMasked>(i, s, k_left);
    Piece v = Piece::load(place.at);
    if constexpr (kMasked || Source::kGaps) v.zero_unless(place.valid);
    return v;
  }

  // The bits of an element as an Lds.
  static KGEN_DEVICE u32 to_lds(u32 bits) {
    if constexpr (sizeof(T) == sizeof(Lds))
      return bits;
    else
      return bit_cast<u32>(to_float(bit_cast<T>(u16(bits))));
  }

  // Through runs of at most 16 bytes, which stay within a chunk of the layout.
  KGEN_DEVICE void store_piece(int i, const Piece (&v)[kSpan], int stage) const {
    if constexpr (kTransposed) {
      KGEN_UNROLL
      for (int e = 0; e < kVec; ++e) {
        Packed<Lds, kSpan> run;
        KGEN_UNROLL
        for (int s = 0; s < kSpan; s += kAlongK && kVec > 1 ? 2 : 1) {
          if constexpr (kAlongK && kVec > 1) {
            const u32 a = v[s].words[e / 2], b = v[s + 1].words[e / 2];
            run.words[s / 2] = e % 2 ? high_halves(a, b) : low_halves(a, b);
          } else {
            run.set_bits(s, to_lds(v[s].bits(e)));
          }
        }
        run.store(lds<Lds>(stage + place(i, e)));
      }
    } else if constexpr (kSame<T, Lds>) {
      v[0].store(lds<Lds>(stage + place(i, 0)));
    } else {
      constexpr int kRun = kVec * int(sizeof(Lds)) <= 16 ? kVec : 16 / int(sizeof(Lds));
      KGEN_UNROLL
      for (int part = 0; part < kVec; part += kRun) {
        Packed<Lds, kRun> run;
        KGEN_UNROLL
        for (int e = 0; e < kRun; ++e) run.set_bits(e, to_lds(v[0].bits(part + e)));
        run.store(lds<Lds>(stage + place(i, part)));
      }
    }
  }

  // What is in flight between memory and LDS.
  struct Registers {
    Piece v[kCount][kSpan];
  };

  template <bool kMasked>
  KGEN_DEVICE void load(Registers& r, int k_left) const {
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (exists(i)) {
        KGEN_UNROLL
        for (int s = 0; s < kSpan; ++s) r.v[i][s] = load_piece<kMasked>(i, s, k_left);
      }
    }
  }
  KGEN_DEVICE void store(const Registers& r, int stage) const {
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (exists(i)) store_piece(i, r.v[i], stage);
  }
  // Piece by piece, without the detour: for a single work-item with many pieces.
  template <bool kMasked>
  KGEN_DEVICE void copy(int k_left, int stage) const {
    KGEN_NO_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (!exists(i)) continue;
      Piece v[kSpan];
      for (int s = 0; s < kSpan; ++s) v[s] = load_piece<kMasked>(i, s, k_left);
      store_piece(i, v, stage);
    }
  }
};

// Elements from an aligned window's start (a multiple of kInner elements in memory) to where a line starts; 0 where
// lines are not read in windows.
template <bool kRealign, int kInner, class Source>
KGEN_DEVICE int window_shift(const Source& source, int outer) {
  if constexpr (kRealign) {
    constexpr u64 kElement = sizeof(typename Source::T);
    const u64 line = reinterpret_cast<u64>(source.base + i64(outer) * source.ld);
    return int(line % (kInner * kElement) / kElement);
  } else {
    return 0;
  }
}

// As TileLoader, by cp.async.
//
// kRealign: where lines do not start at multiples of a sector (K = 1176: 2352 bytes), a copy of 16 bytes straddles what
// the hardware moves at once and takes twice as long. Instead each line is read in windows that are aligned in memory
// and lie in LDS as they do there. A window begins `shift` elements before its tile, so a tile lies in its own window
// and the next one; the fragments' places take the shift of their line into account.
//
//   memory         |....aaaa|aaaabbbb|bbbbcccc|cc......|   windows of 8 pieces, a line that starts at piece 4
//   LDS, 3 stages  [....aaaa] [aaaabbbb] [bbbbcccc]        tile a: the 4 last pieces of window 0, the 4 first of window
//   1
template <class Source, class LdsLayout, int kOuter, int kInner, int kVec, int kThreads, bool kRealign>
struct AsyncTileLoader {
  using T = typename Source::T;
  using Plain = TileLoader<Source, T, LdsLayout, kOuter, kInner, kVec, kThreads, false>;
  static constexpr int kBytes = kVec * int(sizeof(T));
  static constexpr int kCount = Plain::kCount;
  static constexpr int kPerLine = Plain::kPiecesPerLine;
  // Offsets from a base that moves are kept: an instruction a copy then makes its address, not four.
  static constexpr bool kKeeps =
      !kRealign && kCount <= 16 && requires(const Source& source) { source.offset_at_first_k(0, 0); };
  // Lines of one work-item are a multiple of 8 apart, so one shift serves them all.
  static_assert(!kRealign || (Source::kKMajor && kBytes == 16 && Plain::kWholeLines && Plain::kLineStep % 8 == 0 &&
                              kPerLine <= 8 && !Plain::kRagged));

  // Pieces beyond the edge of M or N are left out: if all read the last line, the blocks of a column of tiles would
  // meet at one place of the L2 (H100, bf16, tiles of 128 x 128, k=4096, n=12288: 143 us at m=144 where m=256 takes
  // 81).
  static constexpr bool kLeavesOut = requires(const Source& source) { source.inside(kVec); } &&
                                     (Source::kKMajor || (Plain::kWholeLines && !Plain::kRagged));

  Plain plain;
  int first_k;  // of this work-item's pieces, relative to the tile's start; negative: before it (kRealign)
  int kept[kKeeps ? kCount : 1];
  int inside;  // pieces from the first on that lie in the matrix (kLeavesOut)

  KGEN_DEVICE AsyncTileLoader(const Source& source, int thread_index) : plain(source, thread_index), inside(kCount) {
    first_k = plain.inner(0) - window_shift<kRealign, kInner>(source, plain.outer(0));
    if constexpr (kLeavesOut && Source::kKMajor)
      inside = int((u32(source.inside(kVec) * kPerLine + (kThreads - 1)) - plain.thread) / u32(kThreads));
    else if constexpr (kLeavesOut)
      inside = plain.inner(0) < source.inside(kVec) ? kCount : 0;
    if constexpr (kKeeps) {
      KGEN_UNROLL
      for (int i = 0; i < kCount; ++i) kept[i] = plain.source.offset(plain.outer(i), plain.inner(i));
    }
  }

  template <bool kMasked>
  KGEN_DEVICE Place<T> find(int i, int k_left) {
    if constexpr (kRealign) {
      const bool valid = !kMasked || first_k < k_left;
      return {plain.source.at(valid ? plain.source.offset(plain.outer(i), first_k) : 0), valid};
    } else if constexpr (kKeeps) {
      const int k = plain.k_of(i, 0);
      const bool valid = !kMasked || k < k_left;
      const int from = kept[i] = opaque(kept[i]);  // else the compiler keeps wider ones
      return {plain.source.at(valid ? from : plain.source.offset_at_first_k(from, k)), valid};
    } else {
      return plain.template find<kMasked>(i, 0, k_left);
    }
  }

  // The pieces of tile (or window) number `t` to LDS byte `stage`. kMasked: only k_left terms are left from the tile's
  // start on.
  template <bool kMasked>
  KGEN_DEVICE void issue(int t, int k_left, u32 stage) {
    if (kRealign && kMasked && t == 0 && first_k < 0) return;  // before the line
    KGEN_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (!kLeavesOut && !plain.exists(i)) continue;
      const u32 to = stage + u32(plain.place(i, 0));
      const Place<T> from = find<kMasked>(i, k_left);
      const int at = kLeavesOut ? i : 0, end = kLeavesOut ? inside : 1;
      if constexpr (kMasked || Source::kGaps)
        async_copy_below<kBytes>(at, end, to, from.at, from.valid ? kBytes : 0);
      else
        async_copy_below<kBytes>(at, end, to, from.at);
    }
  }
  KGEN_DEVICE void advance() { plain.source.advance(); }
  // Between two loops of tiles: how far the first one came is no part of the second one's addresses.
  KGEN_DEVICE void settle() {
    if constexpr (kKeeps) plain.source.base = opaque(plain.source.base);
  }
};

// Byte offsets within a tile of what a lane reads: piece e of the fragment at block `block` of M or N and K step
// `step`.
template <class LdsLayout, bool kKMajor, int kBlocks, int kBlockRows, int kStepK, int kPieces, int kElementBytes>
struct FragmentPlaces {
  static constexpr int kBases = kKMajor ? 1 : kBlocks;
  int base[kBases][kPieces];

  KGEN_DEVICE void set(int e, int row, int k, int /*shift*/) {
    KGEN_UNROLL
    for (int i = 0; i < kBases; ++i)
      base[i][e] = kKMajor ? LdsLayout::offset(row, k) : LdsLayout::offset(k, row + i * kBlockRows);
  }
  // f(row) has period 8, so a block or step of a multiple of 8 rows keeps it.
  KGEN_DEVICE int at(int block, int step, int e, int stage, int /*next_stage*/) const {
    if constexpr (kKMajor)
      return stage + LdsLayout::along_row(base[0][e], step * kStepK * kElementBytes) +
             block * kBlockRows * LdsLayout::kRowBytes;
    else
      return stage + base[block][e] + step * kStepK * LdsLayout::kRowBytes;
  }
};

// The same where each line lies `shift` elements further on, past the row's end in the next stage (AsyncTileLoader's
// kRealign). Blocks are a multiple of 8 lines, which have the same shift.
template <class LdsLayout, int kRow, int kSteps, int kBlockRows, int kStepK, int kPieces>
struct ShiftedPlaces {
  int place[kSteps][kPieces];
  u32 in_next;  // bit step * kPieces + e

  KGEN_DEVICE ShiftedPlaces() : in_next(0) {}
  KGEN_DEVICE void set(int e, int row, int k, int shift) {
    KGEN_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const int column = k + step * kStepK + shift;
      place[step][e] = LdsLayout::offset(row, column % kRow);
      in_next |= column >= kRow ? 1u << (step * kPieces + e) : 0u;
    }
  }
  KGEN_DEVICE int at(int block, int step, int e, int stage, int next_stage) const {
    return ((in_next >> (step * kPieces + e)) & 1u ? next_stage : stage) + place[step][e] +
           block * kBlockRows * LdsLayout::kRowBytes;
  }
};

template <bool kFirst, class A, class B>
struct ChooseType {
  using Type = A;
};
template <class A, class B>
struct ChooseType<false, A, B> {
  using Type = B;
};

// The geometry of one block; everything is known at compile time.
template <class Mma_, int kTileM_, int kTileN_, int kTileK_, int kWavesM_, int kWavesN_, int kStages_, bool kBInN_,
          bool kRealignA_, bool kRealignB_, int kWavesK_ = 1, bool kWholeTiles_ = false, bool kOneFill_ = false>
struct TileShape {
  using Mma = Mma_;
  using Lds = typename Mma::Lds;
  static constexpr int kTileM = kTileM_, kTileN = kTileN_, kTileK = kTileK_, kWavesM = kWavesM_, kWavesN = kWavesN_;
  static constexpr int kStages = kStages_, kWavesK = kWavesK_;
  static constexpr bool kBInN = kBInN_;                                  // B is [k][n] in LDS
  static constexpr bool kRealignA = kRealignA_, kRealignB = kRealignB_;  // lines along K are read in aligned windows
  static constexpr bool kWholeTiles = kWholeTiles_;                      // K is whole tiles
  static constexpr bool kOneFill = kOneFill_;                            // the stages hold all of K
  static constexpr bool kShort = kWholeTiles_;                           // code that is run through once or twice
  static constexpr int kPlaces = kWavesM * kWavesN;                      // of waves in the tile
  static constexpr int kThreads = kPlaces * kWavesK * Mma::kLanes;
  static constexpr int kWaveM = kTileM / kWavesM, kWaveN = kTileN / kWavesN;
  static constexpr int kRm = kWaveM / Mma::kM, kRn = kWaveN / Mma::kN;
  static constexpr int kSteps = kTileK / (Mma::kK * kWavesK);  // of a tile that a wave takes
  static_assert(kWaveM % Mma::kM == 0 && kWaveN % Mma::kN == 0 && kTileK % (Mma::kK * kWavesK) == 0,
                "a wave tile is whole Mma tiles");
  static constexpr Permutation kPlain = Mma::kSwizzle ? Permutation::swizzle : Permutation::none;
  using LayoutA = Layout<Lds, kTileK, kRealignA ? Permutation::realigned : kPlain>;
  using LayoutB = Layout<Lds, kBInN ? kTileN : kTileK, kRealignB ? Permutation::realigned : kPlain>;
  static constexpr int kABytes = kTileM * LayoutA::kRowBytes;
  static constexpr int kBBytes = (kBInN ? kTileK : kTileN) * LayoutB::kRowBytes;
  static constexpr int kStageBytes = kABytes + kBBytes;
};

// One, or on CDNA up to half of the tile's steps where each has few matrix instructions to hide reads under.
template <class S>
KGEN_HOST_DEVICE constexpr int steps_of_turn() {
  if constexpr (requires { S::Mma::kInstructions; } && S::Mma::kLanes == 64) {
    int steps = 1;
    while (steps * S::kRm * S::kRn * S::Mma::kInstructions < 8 && 4 * steps <= S::kSteps) steps *= 2;
    return steps;
  } else {
    return 1;
  }
}

// A wave's part of the product: accumulators, and fragments of one K step or of a ring of them.
template <class S>
struct WaveTile {
  using Mma = typename S::Mma;
  // Steps whose fragments are read at once, while those before are multiplied.
  static constexpr int kTurn = steps_of_turn<S>(), kTurns = S::kSteps / kTurn;
  static constexpr int kBuffers = Mma::kPrefetch && S::kSteps > 1 ? 2 * kTurn : 1;
  static constexpr int kElementBytes = int(sizeof(typename S::Lds));

  typename ChooseType<
      S::kRealignA, ShiftedPlaces<typename S::LayoutA, S::kTileK, S::kSteps, Mma::kM, Mma::kK, Mma::kChunksA>,
      FragmentPlaces<typename S::LayoutA, true, S::kRm, Mma::kM, Mma::kK, Mma::kChunksA, kElementBytes>>::Type places_a;
  typename ChooseType<
      S::kRealignB, ShiftedPlaces<typename S::LayoutB, S::kTileK, S::kSteps, Mma::kN, Mma::kK, Mma::kChunksB>,
      FragmentPlaces<typename S::LayoutB, !S::kBInN, S::kRn, Mma::kN, Mma::kK, Mma::kChunksB, kElementBytes>>::Type
      places_b;
  typename Mma::A a[kBuffers][S::kRm];
  typename Mma::B b[kBuffers][S::kRn];
  typename Mma::C acc[S::kRm][S::kRn];

  KGEN_DEVICE WaveTile() {}
  template <class SourceA, class SourceB>
  KGEN_DEVICE WaveTile(int wave, int lane, const SourceA& source_a, const SourceB& source_b) {
    begin(wave, lane, source_a, source_b);
  }
  template <class SourceA, class SourceB>
  KGEN_DEVICE void begin(int wave, int lane, const SourceA& source_a, const SourceB& source_b) {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < S::kRn; ++j) acc[i][j] = typename Mma::C{};
    }
    const int place = wave % S::kPlaces, first_k = wave / S::kPlaces * (S::kSteps * Mma::kK);
    const int row = place / S::kWavesN * S::kWaveM, column = place % S::kWavesN * S::kWaveN;
    KGEN_UNROLL
    for (int e = 0; e < Mma::kChunksA; ++e) {
      const int at = row + Mma::a_row(lane, e);
      places_a.set(e, at, first_k + Mma::a_k(lane, e), window_shift<S::kRealignA, S::kTileK>(source_a, at));
    }
    KGEN_UNROLL
    for (int e = 0; e < Mma::kChunksB; ++e) {
      const int at = column + Mma::template b_column<S::kBInN>(lane, e);
      places_b.set(e, at, first_k + Mma::template b_k<S::kBInN>(lane, e),
                   window_shift<S::kRealignB, S::kTileK>(source_b, at));
    }
  }

  // Fragments of K step `step` of the tile in the stage at LDS byte `stage`; the tile after it is at `next_stage`.
  KGEN_DEVICE void load(int buffer, int step, int stage, int next_stage) {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int e = 0; e < Mma::kChunksA; ++e) Mma::load_a(a[buffer][i], e, places_a.at(i, step, e, stage, next_stage));
    }
    KGEN_UNROLL
    for (int j = 0; j < S::kRn; ++j) {
      KGEN_UNROLL
      for (int e = 0; e < Mma::kChunksB; ++e)
        Mma::template load_b<S::kBInN, S::LayoutB::kRowBytes>(b[buffer][j], e,
                                                              S::kABytes + places_b.at(j, step, e, stage, next_stage));
    }
  }

  KGEN_DEVICE void multiply(int buffer) {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < S::kRn; ++j)  // back and forth, so that a fragment stays in the operand cache
        Mma::multiply(acc[i][i % 2 ? S::kRn - 1 - j : j], a[buffer][i], b[buffer][i % 2 ? S::kRn - 1 - j : j]);
    }
  }

  // All products of the tile in a stage.
  KGEN_DEVICE void multiply_tile(int stage) {
    load(0, 0, stage, stage);
    KGEN_UNROLL
    for (int step = 0; step < S::kSteps; ++step) {
      if constexpr (kBuffers >= 2) {
        if (step + 1 < S::kSteps) load((step + 1) % kBuffers, step + 1, stage, stage);
        multiply(step % kBuffers);
      } else {
        if (step > 0) load(0, step, stage, stage);
        multiply(0);
      }
    }
  }
};

// acc += the products over `k` terms, through registers. Wave: a WaveTile<S>, or what has its multiply_tile().
template <class S, class Wave, class LoaderA, class LoaderB>
KGEN_DEVICE void tile_loop_direct(Wave& wave, LoaderA& load_a, LoaderB& load_b, int k) {
  const int tiles = (k + S::kTileK - 1) / S::kTileK, full = k / S::kTileK;
  if (tiles == 0) return;
  typename LoaderA::Registers a;
  typename LoaderB::Registers b;
  const auto load = [&](int t) {
    if (t < full) {
      load_a.template load<false>(a, 0);
      load_b.template load<false>(b, 0);
    } else {
      load_a.template load<true>(a, k - t * S::kTileK);
      load_b.template load<true>(b, k - t * S::kTileK);
    }
    load_a.source.advance();
    load_b.source.advance();
  };
  const auto store = [&](int stage) {
    load_a.store(a, stage);
    load_b.store(b, stage + S::kABytes);
  };
  load(0);
  store(0);
  sync_lds();
  int stage = 0;
  KGEN_NO_UNROLL
  for (int t = 1; t < tiles; ++t) {
    load(t);
    wave.multiply_tile(stage);
    if constexpr (S::kStages == 1)
      sync_lds();
    else
      stage ^= S::kStageBytes;
    store(stage);
    sync_lds();
  }
  wave.multiply_tile(stage);
}

// acc += the products over `k` terms, one stage, nothing in flight.
template <class S, class Wave, class LoaderA, class LoaderB>
KGEN_DEVICE void tile_loop_plain(Wave& wave, LoaderA& load_a, LoaderB& load_b, int k) {
  for (int k_left = k; k_left > 0; k_left -= S::kTileK) {
    if (k_left >= S::kTileK) {
      load_a.template copy<false>(0, 0);
      load_b.template copy<false>(0, S::kABytes);
    } else {
      load_a.template copy<true>(k_left, 0);
      load_b.template copy<true>(k_left, S::kABytes);
    }
    load_a.source.advance();
    load_b.source.advance();
    if constexpr (S::kThreads > 1) sync_lds();
    wave.multiply_tile(0);
    if constexpr (S::kThreads > 1) sync_lds();
  }
}

// All products of a tile but those of its last step, whose fragments are then loaded; kFirst: the buffer of the first.
template <class S, int kFirst, class Wave>
KGEN_DEVICE void multiply_but_last(Wave& wave, int stage, int next_stage) {
  KGEN_UNROLL
  for (int step = 1; step < S::kSteps; ++step) {
    wave.load((kFirst + step) % 2, step, stage, next_stage);
    wave.multiply((kFirst + step - 1) % 2);
  }
}

// acc += the products over `k` terms, by asynchronous copies.
// underway(): called once, when the first copies are on their way; a wave may begin there.
template <class S, class Wave, class LoaderA, class LoaderB, class Underway>
KGEN_DEVICE void tile_loop_async(Wave& wave, LoaderA& load_a, LoaderB& load_b, int k, const Underway& underway) {
  constexpr int kBuffers = Wave::kBuffers;
  constexpr int kLate = S::kRealignA || S::kRealignB ? 1 : 0;  // windows after its own that a tile waits for
  static_assert(S::kStages >= 2 + kLate, "a ring needs two stages, and one for windows");
  static_assert(kLate == 0 || kBuffers >= 2, "windows need two K steps a tile");
  constexpr int kRing = S::kStages * S::kStageBytes;
  const int tiles = (k + S::kTileK - 1) / S::kTileK, full = k / S::kTileK;
  if (!S::kShort && tiles == 0) {  // in short code: nothing is issued, and the loop takes no turn
    underway();
    return;
  }
  const u32 lds_start = lds_address(lds_base());
  const auto after = [](int stage) { return stage + S::kStageBytes == kRing ? 0 : stage + S::kStageBytes; };
  int write_stage = 0, read_stage = 0;
  const auto issue = [&](int t) {
    const u32 to = lds_start + u32(write_stage);
    if (t >= kLate && t < full) {
      load_a.template issue<false>(t, 0, to);
      load_b.template issue<false>(t, 0, to + S::kABytes);
    } else if constexpr (!S::kWholeTiles) {
      if (t < tiles + kLate) {
        load_a.template issue<true>(t, k - t * S::kTileK, to);
        load_b.template issue<true>(t, k - t * S::kTileK, to + S::kABytes);
      }
    }
    load_a.advance();
    load_b.advance();
    async_commit();  // empty groups keep the count of groups equal to that of tiles
    write_stage = after(write_stage);
  };
  const auto refill = [&](int t) {
    if constexpr (S::kOneFill)
      async_commit();
    else
      issue(t);
  };
  KGEN_NO_UNROLL
  for (int t = 0; t < S::kStages; ++t) issue(t);
  if constexpr (requires { load_a.settle(); }) load_a.settle();
  if constexpr (requires { load_b.settle(); }) load_b.settle();
  underway();
  async_wait<S::kStages - 1 - kLate>();
  sync_block();
  // Tile t+1, which is to be read now, has arrived for every work-item, and every wave has read its last fragments of
  // tile t.
  const auto next_tile = [&] {
    async_wait<S::kStages - 2 - kLate>();
    sync_block();
  };
  if constexpr (kBuffers == 2) {
    int next_stage = after(0);
    wave.load(0, 0, 0, next_stage);
    const auto turn = [&] {
      read_stage = next_stage;
      next_stage = after(next_stage);
      next_tile();
    };
    KGEN_NO_UNROLL
    for (int t = 0; t < tiles; ++t) {
      // The last step by itself: NVRTC does not unroll a loop that holds a long issue().
      multiply_but_last<S, 0>(wave, read_stage, next_stage);
      turn();
      if constexpr (S::kShort) wave.load(S::kSteps % 2, 0, read_stage, next_stage);
      refill(t + S::kStages);  // into the stage of tile t, which the barrier set free
      if constexpr (!S::kShort) wave.load(S::kSteps % 2, 0, read_stage, next_stage);
      wave.multiply((S::kSteps - 1) % 2);
      if constexpr (S::kSteps % 2 != 0) {  // the next tile begins in the other buffer
        if (++t >= tiles) break;
        multiply_but_last<S, 1>(wave, read_stage, next_stage);
        turn();
        wave.load(0, 0, read_stage, next_stage);
        refill(t + S::kStages);
        wave.multiply(1);
      }
    }
  } else {
    KGEN_NO_UNROLL
    for (int t = 0; t < tiles; ++t) {
      wave.multiply_tile(read_stage);
      read_stage = after(read_stage);
      next_tile();
      refill(t + S::kStages);
    }
  }
}

}  // namespace kgen
