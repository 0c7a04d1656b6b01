// gptq_gemm for few rows of X on a weight that was packed once: it streams from memory to the fragments of the matrix
// unit (or the plain ALU), past LDS or (`ring`) through it.
//
//   chunk: kChunk terms x 16 columns, a fragment of B       a lane's 16 bytes: its terms of that chunk, of kTiles
//                                                           fragments side by side
//        n → 16 columns
//   k  ┌───────────────┐   mma_sync  lane: columns lane/4 and lane/4 + 8, terms lane%4*8 … + 7 of 32 (line_words = 2:
//                                    lane%4*4 … + 3 of 16)
//   ↓  │ 8 terms a lane│   mfma      lane: column lane%16, terms lane/16*8 … + 7 of 32
//      └───────────────┘   wmma12    the same of 16        wmma11  lane: column lane%16, all 16 terms
//
//   packed [blocks of kTiles*16 columns][chunks][lanes][4 words], so that a wave reads 16 bytes a lane from consecutive
//   places all the time. With `load_chunks` they are those of some chunks and as much fewer columns. A of the same
//   fragment is 8 (16) consecutive terms of a row of X a lane: 16-byte loads from memory. The order of the terms within
//   a fragment is the same in A and B, and so is free.
//
//   ring: asynchronous copies bring the steps of each wave (words, factors, terms of X) `depth` - 1 steps ahead
//
//   memory ── copy(step + depth - 1) ──▶ LDS │ slot │ slot │ slot │ ── add_share(step) ──▶ fragments ──▶ sums
//                                            └ X of a step, once for the waves side by side; a wave's words and factors
//
//   With one wave across (waves_n = 1) no wave waits for another until the sums are added; waves side by side wait for
//   each other alone (`loose`: for their copies, and may be a step apart). The sums take the ring's place.
//
//   block: waves_n x waves_k waves; waves_k share the terms, step by step; a wave: loads_n blocks of columns, all rows
//   grid x: columns, y: parts of K: those of a cluster (cluster_k) are added by the blocks that own the columns, which
//   the others send them to, split_k by gptq_reduce, in order
//
// The terms are reordered into `slots`: with act-order stably sorted by group, and the slots of a group are filled up
// to whole steps, so that a step of `chunks` chunks has one scale and zero for each column. Where a slot is not the
// term of its number (`copy_x`), X is copied into the order of the slots first, with zeros where there is no term.
//
// Sums of the waves are added through LDS in order, parts by the second kernel: the same bits on every run.
//
// Legal: m <= rows_m; without copy_x, no act-order, k and groups are whole steps and rows of X whole aligned vectors.
#pragma once
#include "gptq_format.h"
#include "mma/mma.h"

namespace kgen {

enum class unit { fma, mfma, wmma11, wmma12, mma_sync };

template <Arch kArch>
struct MmaSyncInstructions;  // of mma/mma_sync.h, which is there for that unit alone

namespace gptq {

// How the lanes of a wave share a chunk: `kLines` columns (of A: rows) of kWords pairs of consecutive terms, beginning
// with place(lane).
template <class C, unit kUnit = C::unit>
struct ChunkUnit {
  using T = typename C::dtype;
  using Mma = kgen::Mma<C::arch, T, float, 16, 32>;
  using Sums = typename Mma::C;
  static constexpr bool kFloats = false;
  static constexpr int kRows = 16, kLanes = kUnit == unit::wmma11 ? 16 : kWaveSize;  // kLanes: that differ
  static constexpr int kLines = 1, kRowLines = 1;
  static constexpr int kWords = kUnit == unit::wmma11 ? 8 : 4;
  static constexpr int kChunk = kUnit == unit::mfma ? 32 : 16;
  struct Line {
    u32 words[kWords];
  };
  using Weights = Line;

  static KGEN_DEVICE int line(int lane) { return lane % 16; }
  static KGEN_DEVICE int place(int lane) { return kUnit == unit::wmma11 ? 0 : lane / 16 * 8; }
  static KGEN_DEVICE int row(int lane, int) { return line(lane); }

  static KGEN_DEVICE void multiply(Sums& sums, const Line (&a)[1], const Line (&b)[1]) {
    Mma::multiply(sums, bit_cast<typename Mma::A>(a[0]), bit_cast<typename Mma::B>(b[0]));
  }
  // Of the `valid` rows that the slab has.
  static KGEN_DEVICE void store(Sums& sums, float* rows, int pitch, int lane, int) {
    Mma::store(sums, rows, pitch, lane);
  }
};

// mma.sync: its first operand, of 16 rows, is the weight, so that rows of X count in steps of 8 and not of 16.
template <class C>
struct ChunkUnit<C, unit::mma_sync> {
  using T = typename C::dtype;
  static constexpr bool kFloats = false;
  static constexpr int kRows = 8, kLanes = kWaveSize;
  static constexpr int kLines = 2, kRowLines = 1, kWords = int(C::line_words), kChunk = 8 * kWords;
  struct Line {
    u32 words[kWords];
  };
  using Weights = Line;
  struct Sums {
    u32 r[4];  // columns lane/4 and lane/4 + 8, each of rows lane%4*2 and the next
  };

  static KGEN_DEVICE int line(int lane) { return lane / 4; }
  static KGEN_DEVICE int place(int lane) { return lane % 4 * (2 * kWords); }
  static KGEN_DEVICE int row(int lane, int) { return lane / 4; }

  static KGEN_DEVICE void multiply(Sums& sums, const Line (&a)[1], const Line (&b)[2]) {
    KGEN_UNROLL
    for (int i = 0; i < kWords; i += 2) {
      const u32 w[4] = {b[0].words[i], b[1].words[i], b[0].words[i + 1], b[1].words[i + 1]};
      MmaSyncInstructions<C::arch>::template multiply<T>(sums.r, w, a[0].words[i], a[0].words[i + 1]);
    }
  }
  static KGEN_DEVICE void add_scaled(Sums& sums, const Sums& part, const float (&scale)[2]) {
    KGEN_UNROLL
    for (int e = 0; e < 4; ++e)
      sums.r[e] = bit_cast<u32>(fma_f(bit_cast<float>(part.r[e]), scale[e / 2], bit_cast<float>(sums.r[e])));
  }
  static KGEN_DEVICE void store(const Sums& sums, float* rows, int pitch, int lane, int valid) {
    float* at = rows + lane % 4 * 2 * pitch + lane / 4;
    KGEN_UNROLL
    for (int e = 0; e < 4; ++e)
      if (valid >= kRows || lane % 4 * 2 + e % 2 < valid) at[e % 2 * pitch + e / 2 * 8] = bit_cast<float>(sums.r[e]);
  }
};

// The plain ALU: a lane has a column, and 8 terms of every row; weights stay fp32.
template <class C>
struct ChunkUnit<C, unit::fma> {
  using T = typename C::dtype;
  static constexpr bool kFloats = true;
  static constexpr int kRows = C::rows_m, kLanes = kWaveSize;
  static constexpr int kLines = 1, kRowLines = kRows, kWords = 4, kChunk = kWaveSize / 16 * 8;
  struct Line {
    u32 words[kWords];
  };
  struct Weights {
    float of[2 * kWords];
  };
  struct Sums {
    float of[kRows];
  };

  static KGEN_DEVICE int line(int lane) { return lane % 16; }
  static KGEN_DEVICE int place(int lane) { return lane / 16 * 8; }
  static KGEN_DEVICE int row(int, int i) { return i; }

  static KGEN_DEVICE void multiply(Sums& sums, const Line (&a)[kRows], const Weights (&b)[1]) {
    KGEN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto x = bit_cast<Packed<T, 2 * kWords>>(a[r]);
      KGEN_UNROLL
      for (int e = 0; e < 2 * kWords; ++e) sums.of[r] = fma_f(x[e], b[0].of[e], sums.of[r]);
    }
  }
  static KGEN_DEVICE void add_scaled(Sums& sums, const Sums& part, const float (&scale)[1]) {
    KGEN_UNROLL
    for (int r = 0; r < kRows; ++r) sums.of[r] = fma_f(part.of[r], scale[0], sums.of[r]);
  }
  static KGEN_DEVICE void store(Sums& sums, float* rows, int pitch, int lane, int) {
    KGEN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      KGEN_UNROLL
      for (int mask = kWaveSize / 2; mask >= 16; mask /= 2) sums.of[r] += shuffle_xor(sums.of[r], mask);
      if (lane < 16) rows[r * pitch + lane] = sums.of[r];
    }
  }
};

// The packed weight: three bits are kept as four.
template <class C>
struct PackedLayout {
  using Unit = ChunkUnit<C>;
  static constexpr int kBits = C::bits == 3 ? 4 : int(C::bits), kPairs = 16 / kBits;  // of a word
  static constexpr u32 kMask = (1u << kBits) - 1;
  static constexpr int kLinePairs = Unit::kWords;
  static constexpr int kLoadChunks = int(C::load_chunks);  // whose words are a lane's 16 bytes
  static constexpr int kTiles = 128 / (kBits * 2 * kLinePairs * Unit::kLines * kLoadChunks);
  static constexpr int kColumns = 16 * kTiles;            // that lanes read with one access
  static constexpr int kFactors = kTiles * Unit::kLines;  // of them a lane's own
  static constexpr int kStepLoads = C::chunks / kLoadChunks;
  static constexpr int kStep = C::chunks * Unit::kChunk;  // slots of a step
  static_assert(kStep == C::step_k, "the definition knows the unit's chunks");
  static_assert(kTiles >= 1 && C::chunks % kLoadChunks == 0, "16 bytes hold whole columns of a fragment");
  // Slots of a whole group; 0: all terms are one group.
  static constexpr i64 kGroupSlots = C::group_size > 0 ? (C::group_size + kStep - 1) / kStep* kStep : 0;

  // Column of the block that factor f of a lane is for.
  static KGEN_DEVICE int column(int line, int f) {
    return f / Unit::kLines * 16 + line + f % Unit::kLines * (16 / Unit::kLines);
  }
  // Pair i of a lane's 16 bytes: the first value in the low half.
  static KGEN_DEVICE u32 pair(const Vec<u32, 4>& words, int i) {
    return words[i / kPairs] >> (i % kPairs * kBits) & (kMask | kMask << 16);
  }
  // q - zero of the same as two halves; `zero` from zero_operand(). Values above the lowest of a byte stay where they
  // are, in a half of a smaller exponent (1024 / 2^s + q), and so a word takes one shift and not one a pair.
  static KGEN_DEVICE u32 half_pair(const Vec<u32, 4>& words, int i, u32 zero) {
    const int at = i % kPairs * kBits, s = at % 8;
    const u32 base = (0x6400u - (u32(s) << 10)) * 0x10001u;
    const u32 raised = and_or(words[i / kPairs] >> (at - s), (kMask | kMask << 16) << s, base);
    const u32 rest = 0x6000u + 2 * (1024 - (1024 >> s)) - 1024;  // 1024 - 1024 / 2^s
    return add_f16x2(raised, s == 0 ? zero : add_f16x2(zero, rest * 0x10001u));
  }

  // Steps of all terms; with act-order, the most that there can be.
  template <class P>
  static KGEN_DEVICE i64 most_steps(const P& p) {
    if constexpr (C::desc_act) return (p.k + kStep - 1) / kStep + p.groups;
    if constexpr (kGroupSlots > 0)
      return p.k / C::group_size * (kGroupSlots / kStep) + (p.k % C::group_size + kStep - 1) / kStep;
    else
      return (p.k + kStep - 1) / kStep;
  }
  // With act-order `order` holds the number of steps, the group of each and the term of each slot (-1: none).
  template <class P>
  static KGEN_DEVICE int steps(const P& p) {
    if constexpr (C::desc_act) return p.order[0];
    return int(most_steps(p));
  }
  template <class P>
  static KGEN_DEVICE int group(const P& p, int step) {
    if constexpr (C::desc_act) return p.order[1 + step];
    if constexpr (kGroupSlots > 0) return int(u32(step) / u32(kGroupSlots / kStep));
    return 0;
  }
  // The term of a slot that is below steps(); -1 where it has none.
  template <class P>
  static KGEN_DEVICE i64 term(const P& p, i64 slot) {
    if constexpr (C::desc_act) return p.order[1 + most_steps(p) + slot];
    i64 k = slot;
    if constexpr (kGroupSlots > 0) {
      const i64 within = slot % kGroupSlots;
      k = within < C::group_size ? slot / kGroupSlots * C::group_size + within : p.k;
    }
    return k < p.k ? k : -1;
  }
};

}  // namespace gptq

// ---------------------------------------------------------------------------------------------------- one-time steps

// sizes[g] = rows of W that are in group g; a work-item each.
template <class C, class P>
KGEN_DEVICE void gptq_group_sizes(const P& p) {
  const i64 group = i64(block_x()) * block_size() + thread_x();
  if (group >= p.groups) return;
  int size = 0;
  for (i64 k = 0; k < p.k; ++k) size += p.g_idx[k] == group;
  p.sizes[group] = size;
}

// A work-item for each slot: finds the term that stands there, in a stable order by group.
template <class C, class P>
KGEN_DEVICE void gptq_order(const P& p) {
  using L = gptq::PackedLayout<C>;
  const i64 steps = L::most_steps(p), slot = i64(block_x()) * block_size() + thread_x();
  if (slot >= steps * L::kStep) return;
  i64 begin = 0, group = 0;  // the first slot of the group
  for (; group < p.groups; ++group) {
    const i64 end = begin + (p.sizes[group] + L::kStep - 1) / L::kStep * L::kStep;
    if (slot < end) break;
    begin = end;
  }
  i64 term = -1;
  if (group < p.groups) {
    i64 left = slot - begin;  // rows of the group before this one
    for (i64 k = 0; k < p.k; ++k) {
      if (p.g_idx[k] != group) continue;
      if (left-- == 0) {
        term = k;
        break;
      }
    }
  }
  p.order[1 + steps + slot] = i32(term);
  if (slot % L::kStep == 0) p.order[1 + slot / L::kStep] = i32(group);
  if (slot == 0) {
    i64 slots = 0;
    for (i64 g = 0; g < p.groups; ++g) slots += (p.sizes[g] + L::kStep - 1) / L::kStep * L::kStep;
    p.order[0] = i32(slots / L::kStep);
  }
}

// The packed weight; a work-item writes the 16 bytes of a lane.
template <class C, class P>
KGEN_DEVICE void gptq_pack(const P& p) {
  using L = gptq::PackedLayout<C>;
  using Unit = typename L::Unit;
  constexpr int kBits = int(C::bits);
  const i64 loads = L::most_steps(p) * L::kStepLoads, blocks = (p.n + L::kColumns - 1) / L::kColumns;
  const i64 item = i64(block_x()) * block_size() + thread_x();
  if (item >= blocks * loads * Unit::kLanes) return;
  const int lane = int(item % Unit::kLanes);
  const i64 load = item / Unit::kLanes % loads, first_column = item / Unit::kLanes / loads * L::kColumns;
  const bool used = load < i64(L::steps(p)) * L::kStepLoads;
  Vec<u32, 4> words = {};
  KGEN_UNROLL
  for (int word = 0; word < 4; ++word) {
    u32 packed = 0;
    KGEN_NO_UNROLL
    for (int i = 0; i < 2 * L::kPairs; ++i) {
      const int pair = word * L::kPairs + i / 2, element = pair % L::kLinePairs * 2 + i % 2;
      const int line = pair / L::kLinePairs % L::kFactors;
      const i64 chunk = load * L::kLoadChunks + pair / L::kLinePairs / L::kFactors;
      const i64 n = first_column + L::column(Unit::line(lane), line);
      const i64 k = used ? L::term(p, chunk * Unit::kChunk + Unit::place(lane) + element) : -1;
      if (n >= p.n || k < 0) continue;
      const i64 bit = k * kBits;
      const int shift = int(bit % 32);
      u64 bits = u32(p.qweight[bit / 32 * p.ldw + n]);
      if (shift + kBits > 32) bits |= u64(u32(p.qweight[(bit / 32 + 1) * p.ldw + n])) << 32;
      packed |= (u32(bits >> shift) & ((1u << kBits) - 1)) << (i / 2 * L::kBits + i % 2 * 16);
    }
    words[word] = packed;
  }
  store_vec<u32, 4>(reinterpret_cast<u32*>(p.packed) + item * 4, words);
}

// factors [blocks of columns][groups][lines][kFactors]: bits of the scale, and what zero_operand() has in a half.
template <class C, class P>
KGEN_DEVICE void gptq_pack_factors(const P& p) {
  using L = gptq::PackedLayout<C>;
  const i64 blocks = (p.n + L::kColumns - 1) / L::kColumns, item = i64(block_x()) * block_size() + thread_x();
  if (item >= blocks * p.groups * L::kColumns) return;
  const int place = int(item % L::kColumns);
  const i64 group = item / L::kColumns % p.groups;
  const i64 n = item / L::kColumns / p.groups * L::kColumns + L::column(place / L::kFactors, place % L::kFactors);
  u32 factor = 0;
  if (n < p.n) {
    gptq::Group<C, 1> of;
    of.load(p, int(group), n);
    factor = of.scales.bits(0) | (gptq::zero_operand<C>(of.zeros.zero(n, 0)) & 0xffffu) << 16;
  }
  p.factors[item] = i32(factor);
}

// ------------------------------------------------------------------------------------------------------------ product

// X in the order of the slots, in rows of most_steps() steps; a work-item writes 8 of them.
template <class C, class P>
KGEN_DEVICE void gptq_copy_x(const P& p) {
  using L = gptq::PackedLayout<C>;
  using T = typename C::dtype;
  const i64 slots = L::most_steps(p) * L::kStep, item = i64(block_x()) * block_size() + thread_x();
  const i64 row = item / (slots / 8), slot = item % (slots / 8) * 8;
  if (row >= p.m) return;
  Vec<T, 8> values = {};
  if (slot < i64(L::steps(p)) * L::kStep) {
    KGEN_UNROLL
    for (int i = 0; i < 8; ++i) {
      const i64 k = L::term(p, slot + i);
      if (k >= 0) values[i] = p.x[row * p.ldx + k];
    }
  }
  store_vec<T, 8>(p.copied + row * slots + slot, values);
}

namespace gptq {

template <class C>
struct PackedStream {
  using T = typename C::dtype;
  using L = PackedLayout<C>;
  using Unit = typename L::Unit;
  static constexpr int kRm = (C::rows_m + Unit::kRows - 1) / Unit::kRows, kRn = C::loads_n * L::kTiles;
  static constexpr int kFactorPieces = C::loads_n * L::kColumns / 4, kLoadPieces = L::kColumns / 4;
  static constexpr int kFactorCopies = (kFactorPieces + kWaveSize - 1) / kWaveSize;
  struct Step {
    Vec<u32, 4> words[C::loads_n][L::kStepLoads];
    Vec<u32, L::kFactors> factors[C::loads_n];
  };

  const u32* weight[C::loads_n];            // of this lane
  const u32* factor[C::loads_n];            // of the columns' first group
  const u32* copied_factor[kFactorCopies];  // ring: of them those that this lane copies
  const T* x;                               // of the piece that this lane copies first (ring)
  int stride;                               // of x
  int row[kRm][Unit::kRowLines];            // where they start
  int copied_row, copied_to;                // ring: of that piece; its byte in LDS
  typename Unit::Sums sums[kRm][kRn];

  template <class P>
  KGEN_DEVICE PackedStream(const P& p, int lane, int wave_n, i64 block) : copied_row(0), copied_to(0), sums{} {
    const i64 last_block = (p.n + L::kColumns - 1) / L::kColumns - 1, loads = L::most_steps(p) * L::kStepLoads;
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      const i64 at = block + l < last_block ? block + l : last_block;
      weight[l] = reinterpret_cast<const u32*>(p.packed) + (at * loads * Unit::kLanes + lane % Unit::kLanes) * 4;
      factor[l] = reinterpret_cast<const u32*>(p.factors) + at * p.groups * L::kColumns;
    }
    x = C::copy_x ? p.copied : p.x;
    stride = C::copy_x ? int(loads) * (L::kLoadChunks * Unit::kChunk) : int(p.ldx);
    KGEN_UNROLL
    for (int i = 0; i < kRm; ++i) {
      KGEN_UNROLL
      for (int e = 0; e < Unit::kRowLines; ++e) {
        const int at = i * Unit::kRows + Unit::row(lane, e);
        // LDS may be read where no row was copied; few rows are read by several lanes at once instead.
        const int existing = (C::ring && kRm > 2) || at < p.m ? at : int(p.m) - 1;
        row[i][e] = existing * (C::ring ? Unit::kChunk : stride) + Unit::place(lane);
      }
    }
    if constexpr (C::ring) {
      KGEN_UNROLL
      for (int c = 0; c < kFactorCopies; ++c) {
        const int piece = c * kWaveSize + lane;
        const i64 of = block + piece / kLoadPieces, at = of < last_block ? of : last_block;
        copied_factor[c] =
            reinterpret_cast<const u32*>(p.factors) + at * p.groups * L::kColumns + piece % kLoadPieces * 4;
      }
      const int item = wave_n * kWaveSize + lane, piece = item % kStepPieces, first_row = item / kStepPieces;
      copied_to = piece / kPieces * kXChunk + first_row * (Unit::kChunk * 2) + piece % kPieces * 16;
      x += first_row * stride + piece * 8;
      copied_row = p.m < C::rows_m ? int(p.m) - first_row : C::rows_m - first_row;
    }
  }

  template <class P>
  KGEN_DEVICE void load(const P& p, Step& step, int index, int lane) const {
    const int group = L::group(p, index);
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      KGEN_UNROLL
      for (int s = 0; s < L::kStepLoads; ++s)
        step.words[l][s] = load_vec<u32, 4>(weight[l] + (i64(index) * L::kStepLoads + s) * (Unit::kLanes * 4));
      const u32* of_group = factor[l] + i64(group) * L::kColumns;
      step.factors[l] = load_vec<u32, L::kFactors>(of_group + Unit::line(lane) * L::kFactors);
    }
  }
  KGEN_DEVICE void add(const Step& step, int index) { multiply(step, x + i64(index) * L::kStep, Unit::kChunk); }

  // The ring: LDS of `depth` slots, [slot][wave_k][X: chunk, row, terms | wave_n: words, factors]. A lane reads the
  // words that it copied itself; factors are its wave's, X that of all waves side by side.
  // X by chunks and rows; a row's piece of the next chunk begins in other banks, so that copies of a whole row do not
  // meet.
  static constexpr int kXChunk = (C::rows_m + (C::rows_m > 16)) * Unit::kChunk * 2, kXBytes = C::chunks * kXChunk;
  static constexpr int kWordBytes = C::loads_n * L::kStepLoads * Unit::kLanes * 16;
  static constexpr int kWaveBytes = kWordBytes + C::loads_n * (L::kColumns * 4);
  static constexpr int kShareBytes = kXBytes + C::waves_n * kWaveBytes;

  static constexpr int kSlotBytes = C::waves_k * kShareBytes;
  // Work-items copy X by 16-byte pieces, side by side along the rows of a step.
  static constexpr int kPieces = Unit::kChunk / 8, kStepPieces = C::chunks * kPieces;
  static constexpr int kCopyLanes = C::waves_n * kWaveSize, kRowsAtOnce = kCopyLanes / kStepPieces;
  static_assert(kRowsAtOnce * kStepPieces == kCopyLanes, "work-items copy whole rows of a step");

  // Step `index` to the slot whose share of this wave begins at byte `to`.
  template <class P>
  KGEN_DEVICE void copy(const P& p, int index, int to, int lane, int wave_n) const {
    const u32 share = lds_address(lds_base()) + u32(to), words = share + kXBytes + wave_n * kWaveBytes + lane * 16;
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      const u32* from = weight[l] + i64(index) * (L::kStepLoads * Unit::kLanes * 4);
      KGEN_UNROLL
      for (int s = 0; s < L::kStepLoads; ++s)
        async_copy<16>(words + (l * L::kStepLoads + s) * (Unit::kLanes * 16), from + s * (Unit::kLanes * 4));
    }
    const i64 of_group = i64(L::group(p, index)) * L::kColumns;
    KGEN_UNROLL
    for (int c = 0; c < kFactorCopies; ++c) {
      if (lane < kFactorPieces - c * kWaveSize)
        async_copy<16>(words + kWordBytes + c * (kWaveSize * 16), copied_factor[c] + of_group);
    }
    copy_x(index, share);
  }
  KGEN_DEVICE void copy_x(int index, u32 share) const {
    const T* from = x + i64(index) * L::kStep;
    KGEN_UNROLL
    for (int r = 0; r < C::rows_m; r += kRowsAtOnce) {
      if (r < copied_row) async_copy<16>(share + copied_to + r * (Unit::kChunk * 2), from + r * stride);
    }
  }
  KGEN_DEVICE void add_share(int from, int lane, int wave_n) {
    const int words = from + kXBytes + wave_n * kWaveBytes;
    const int factors = words + kWordBytes + Unit::line(lane) * (L::kFactors * 4);
    Step step;
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      KGEN_UNROLL
      for (int s = 0; s < L::kStepLoads; ++s)
        step.words[l][s] =
            load_vec<u32, 4>(lds<u32>(words + lane * 16 + (l * L::kStepLoads + s) * (Unit::kLanes * 16)));
      step.factors[l] = load_vec<u32, L::kFactors>(lds<u32>(factors + l * (L::kColumns * 4)));
    }
    if constexpr (kScaleSums)
      multiply_then_scale(step, lds<T>(from), kXChunk / 2);
    else
      multiply(step, lds<T>(from), kXChunk / 2);
  }

  // The bias of the block's columns is asked for at the start, not when the sums are there. It stays in LDS.
  template <class P>
  KGEN_DEVICE void copy_bias(const P& p, i64 block_column, int columns) const {
    const u32 to = lds_address(lds_base()) + u32(C::bias_at);
    KGEN_NO_UNROLL
    for (int i = 2 * thread_x(); i < columns; i += 2 * C::threads)
      if (block_column + i < p.n) async_copy<4>(to + i * 2, p.bias + block_column + i);
  }

  // All steps of this wave, where waves side by side may be a step apart (`loose`): a slot has a barrier that counts
  // the copies that have arrived, and one that counts the waves that have read it, which is waited for two steps later.
  template <class P>
  KGEN_DEVICE void run_loose_ring(const P& p, int begin, int end, int lane, int wave_n, int wave_k) {
    constexpr int kAhead = C::depth - 2;
    const int first = wave_k * kShareBytes;
    const u32 full = lds_address(lds_base()) + u32(C::barriers_at) + u32(wave_k * (C::depth * 16));
    if (wave_n == 0 && lane < C::depth) {
      barrier_make(full + lane * 16, C::waves_n * kWaveSize);
      barrier_make(full + lane * 16 + 8, C::waves_n);
    }
    sync_block();
    KGEN_UNROLL
    for (int d = 0; d < kAhead; ++d) {
      const int step = begin + wave_k + d * C::waves_k;
      if (step < end) copy(p, step, first + d * kSlotBytes, lane, wave_n);
      async_arrive(full + d * 16);
    }
    int slot = 0, next_slot = kAhead;
    u32 phase = 0, next_phase = 1;
    KGEN_NO_UNROLL
    for (int step = begin + wave_k; step < end; step += C::waves_k) {
      const int next = step + kAhead * C::waves_k;
      if (next < end) {
        barrier_wait(full + next_slot * 16 + 8, next_phase);  // passes in the first round
        copy(p, next, first + next_slot * kSlotBytes, lane, wave_n);
        async_arrive(full + next_slot * 16);
      }
      next_slot = next_slot + 1 < C::depth ? next_slot + 1 : 0;
      next_phase ^= next_slot == 0;
      barrier_wait(full + slot * 16, phase);
      add_share(first + slot * kSlotBytes, lane, wave_n);
      sync_wave();
      if (lane == 0) barrier_arrive(full + slot * 16 + 8);
      slot = slot + 1 < C::depth ? slot + 1 : 0;
      phase ^= slot == 0;
    }
    async_commit();
    async_wait<0>();  // the bias, where there was no step
  }

  // All steps of this wave. Waves side by side share X, so they go through the slots together.
  template <class P>
  KGEN_DEVICE void run_ring(const P& p, int begin, int end, int lane, int wave_n, int wave_k) {
    const int mine = wave_k * kShareBytes;
    KGEN_UNROLL
    for (int d = 0; d < C::depth - 1; ++d) {
      const int step = begin + wave_k + d * C::waves_k;
      if (step < end) copy(p, step, mine + d * kSlotBytes, lane, wave_n);
      async_commit();
    }
    int from = mine, to = mine + (C::depth - 1) * kSlotBytes;
    KGEN_NO_UNROLL
    for (int first = begin; first < end; first += C::waves_k) {
      async_wait<C::depth - 2>();
      if constexpr (C::waves_n == 1)
        sync_wave();
      else if constexpr (C::waves_k == 1)
        sync_block();
      else
        sync_part(wave_k, C::waves_n * kWaveSize);
      const int step = first + wave_k, next = step + (C::depth - 1) * C::waves_k;
      if (next < end) copy(p, next, to, lane, wave_n);
      async_commit();
      if (step < end) add_share(from, lane, wave_n);
      to = from;
      from = from + kSlotBytes < C::depth * kSlotBytes ? from + kSlotBytes : mine;
    }
    async_wait<0>();  // the bias, where there was no step
  }

  // q - zero of the terms of a chunk's line, with their scale or without.
  template <bool kScaled>
  static KGEN_DEVICE void weigh(const Vec<u32, 4> (&loads)[L::kStepLoads], int chunk, int of_chunk, u32 factor,
                                typename Unit::Weights& to) {
    const Vec<u32, 4>& words = loads[chunk / L::kLoadChunks];
    const int line = chunk % L::kLoadChunks * L::kFactors + of_chunk;
    const u32 zero = Packing<C>::kHalves ? high_twice(factor) : factor >> 16;
    KGEN_UNROLL
    for (int i = 0; i < L::kLinePairs; ++i) {
      const int pair = line * L::kLinePairs + i;
      if constexpr (!Unit::kFloats && kSame<T, f16> && Packing<C>::kHalves) {
        to.words[i] = L::half_pair(words, pair, zero);
        if constexpr (kScaled) to.words[i] = mul_f16x2(to.words[i], low_twice(factor));
      } else {
        float low, high;
        differences<C>(L::pair(words, pair), zero, low, high);
        const float scale = kScaled ? scale_of(factor) : 1.0f;
        if constexpr (Unit::kFloats) {
          to.of[2 * i] = low * scale;
          to.of[2 * i + 1] = high * scale;
        } else {
          Packed<T, 2> rounded;
          rounded.set(0, low * scale);
          rounded.set(1, high * scale);
          to.words[i] = rounded.words[0];
        }
      }
    }
  }
  static KGEN_DEVICE float scale_of(u32 factor) { return to_float(bit_cast<T>(u16(factor & 0xffffu))); }

  // This lane's terms of X in a chunk: of some rows, of all.
  static constexpr int kPieceWords = Unit::kWords < 4 ? Unit::kWords : 4;
  KGEN_DEVICE void load_x_row(const T* from, int i, typename Unit::Line (&a)[Unit::kRowLines]) const {
    KGEN_UNROLL
    for (int e = 0; e < Unit::kRowLines; ++e) {
      KGEN_UNROLL
      for (int w = 0; w < Unit::kWords; w += kPieceWords) {
        const auto piece = Packed<T, 2 * kPieceWords>::load(from + row[i][e] + 2 * w);
        KGEN_UNROLL
        for (int j = 0; j < kPieceWords; ++j) a[e].words[w + j] = piece.words[j];
      }
    }
  }
  KGEN_DEVICE void load_x(const T* from, typename Unit::Line (&a)[kRm][Unit::kRowLines]) const {
    KGEN_UNROLL
    for (int i = 0; i < kRm; ++i) load_x_row(from, i, a[i]);
  }

  // Few rows: a step's sums are scaled, not its weights (which are then exact). `next`: from one chunk of X to the
  // next.
  static constexpr bool kScaleSums = C::ring && kRm * C::chunks <= 8;
  KGEN_DEVICE void multiply_then_scale(const Step& step, const T* of_step, int next) {
    typename Unit::Line a[C::chunks][kRm][Unit::kRowLines];
    KGEN_UNROLL
    for (int s = 0; s < C::chunks; ++s) load_x(of_step + s * next, a[s]);
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      KGEN_UNROLL
      for (int t = 0; t < L::kTiles; ++t) {
        typename Unit::Sums part[kRm] = {};
        float scale[Unit::kLines];
        KGEN_UNROLL
        for (int e = 0; e < Unit::kLines; ++e) scale[e] = scale_of(step.factors[l][t * Unit::kLines + e]);
        KGEN_UNROLL
        for (int s = 0; s < C::chunks; ++s) {
          typename Unit::Weights b[Unit::kLines];
          KGEN_UNROLL
          for (int e = 0; e < Unit::kLines; ++e) {
            const int line = t * Unit::kLines + e;
            weigh<false>(step.words[l], s, line, step.factors[l][line], b[e]);
          }
          KGEN_UNROLL
          for (int i = 0; i < kRm; ++i) Unit::multiply(part[i], a[s][i], b);
        }
        KGEN_UNROLL
        for (int i = 0; i < kRm; ++i) Unit::add_scaled(sums[i][l * L::kTiles + t], part[i], scale);
      }
    }
  }
  // Many rows: the weights of a chunk stay while its rows of X pass.
  KGEN_DEVICE void multiply(const Step& step, const T* of_step, int next) {
    KGEN_UNROLL
    for (int s = 0; s < C::chunks; ++s) {
      typename Unit::Line a[kRm][Unit::kRowLines];
      if constexpr (kRm < kRn || !C::ring) load_x(of_step + s * next, a);
      typename Unit::Weights b[kRn][Unit::kLines];
      KGEN_UNROLL
      for (int j = 0; j < kRn; ++j) {
        KGEN_UNROLL
        for (int e = 0; e < Unit::kLines; ++e) {
          const int line = j % L::kTiles * Unit::kLines + e;
          weigh<true>(step.words[j / L::kTiles], s, line, step.factors[j / L::kTiles][line], b[j][e]);
        }
        if constexpr (kRm < kRn || !C::ring) {
          KGEN_UNROLL
          for (int i = 0; i < kRm; ++i) Unit::multiply(sums[i][j], a[i], b[j]);
        }
      }
      if constexpr (kRm >= kRn && C::ring) {
        KGEN_UNROLL
        for (int i = 0; i < kRm; ++i) {
          load_x_row(of_step + s * next, i, a[i]);
          KGEN_UNROLL
          for (int j = 0; j < kRn; ++j) Unit::multiply(sums[i][j], a[i], b[j]);
        }
      }
    }
  }
};

// Sums of the waves that share the terms, in order.
template <class C>
KGEN_DEVICE void add_waves(const float* slab, int at, int to_next, float (&total)[4]) {
  KGEN_UNROLL
  for (int e = 0; e < 4; ++e) total[e] = 0.0f;
  KGEN_UNROLL
  for (int w = 0; w < C::waves_k; ++w) {
    const Vec<float, 4> part = load_vec<float, 4>(slab + w * to_next + at);
    KGEN_UNROLL
    for (int e = 0; e < 4; ++e) total[e] += part[e];
  }
}
// The blocks of a cluster share the sums of its columns: each owns some items (4 columns of a row), and the others send
// it theirs. Its barrier counts the bytes, so that nobody waits for the whole cluster.
//
//   LDS from received_at: barrier (16 bytes) | items of the first other block | of the second | …
template <class C, int kItems>
struct ClusterSums {
  static constexpr int kMost = (kItems + C::cluster_k - 1) / C::cluster_k;  // items of a block
  int items, rank, own, count;  // all items; of them this block has `count` from `own` on
  u32 base;

  KGEN_DEVICE explicit ClusterSums(int all)
      : items(all), rank(cluster_rank()), own(0), count(0), base(lds_address(lds_base()) + u32(C::received_at)) {
    const int share = per_block();
    own = rank * share < items ? rank * share : items;
    count = share < items - own ? share : items - own;
    if (thread_x() == 0) {
      barrier_make(base, 1);
      barrier_fence();
      barrier_expect(base, u32(count * (C::cluster_k - 1) * 16));
    }
    cluster_arrive_relaxed();
  }
  KGEN_DEVICE int per_block() const { return (items + C::cluster_k - 1) / C::cluster_k; }
  // Which item of the others' is sent at place i, beginning with those of the next block.
  KGEN_DEVICE int others(int i) const { return own + count + i < items ? own + count + i : own + count + i - items; }

  KGEN_DEVICE void send(int item, const float (&sums)[4]) const {
    const int to = item / per_block(), place = (rank - (rank > to)) * kMost + item - to * per_block();
    send_cluster(cluster_address(base + 16 + u32(place * 16), to), sums, cluster_address(base, to));
  }
  KGEN_DEVICE void add(int item, float (&total)[4]) const {
    const float* received = lds<float>(C::received_at + 16 + (item - own) * 16);
    KGEN_UNROLL
    for (int r = 0; r + 1 < C::cluster_k; ++r) {
      const Vec<float, 4> part = load_vec<float, 4>(received + r * (kMost * 4));
      KGEN_UNROLL
      for (int e = 0; e < 4; ++e) total[e] += part[e];
    }
  }
};
template <class C, int kItems>
  requires(C::cluster_k == 1)
struct ClusterSums<C, kItems> {
  KGEN_DEVICE explicit ClusterSums(int) {}
};

}  // namespace gptq

template <class C, class P>
KGEN_DEVICE void gptq_packed(const P& p) {
  using G = gptq::GemmConfig<C>;
  using L = gptq::PackedLayout<C>;
  using Unit = typename L::Unit;
  using Stream = gptq::PackedStream<C>;
  // Few registers are left in the loop; a lane's number that comes from another lane is kept, not asked for again.
  const int lane = C::loose ? shuffle(lane_id(), lane_id()) : lane_id(), wave = uniform(thread_x() / kWaveSize);
  const int wave_n = wave % C::waves_n, wave_k = wave / C::waves_n;
  constexpr int kColumns = C::waves_n * C::loads_n * L::kColumns;  // of the block
  const i64 block_column = i64(block_x()) * kColumns;
  constexpr int kParts = C::split_k * C::cluster_k;
  const int all = L::steps(p), share = (all + kParts - 1) / kParts;
  const int begin = block_y() * share, end = begin + share < all ? begin + share : all;

  constexpr int kPerRow = kColumns / 4;
  static_assert(C::cluster_k == 1 || C::ring, "a cluster sends the sums of all rows at once");
  const gptq::ClusterSums<C, C::slab_rows * kPerRow> cluster(int(p.m) * kPerRow);
  Stream stream(p, lane, wave_n, i64(block_x()) * (C::waves_n * C::loads_n) + wave_n * C::loads_n);
  constexpr bool kKeptBias = C::ring && C::epilogue_bias != 0 && C::split_k == 1;
  if constexpr (C::ring) {
    if constexpr (kKeptBias) stream.copy_bias(p, block_column, kColumns);
    if constexpr (C::loose)
      stream.run_loose_ring(p, begin, end, lane, wave_n, wave_k);
    else
      stream.run_ring(p, begin, end, lane, wave_n, wave_k);
    sync_block();  // the sums take the place of the ring
  } else {
    typename Stream::Step steps[C::depth];
    KGEN_UNROLL
    for (int d = 0; d < C::depth; ++d) {
      const int step = begin + wave_k + d * C::waves_k;
      if (step < end) stream.load(p, steps[d], step, lane);
    }
    KGEN_NO_UNROLL
    for (int first = begin + wave_k; first < end; first += C::depth * C::waves_k) {
      KGEN_UNROLL
      for (int d = 0; d < C::depth; ++d) {
        const int step = first + d * C::waves_k, next = step + C::depth * C::waves_k;
        if (step < end) stream.add(steps[d], step);
        if (next < end) stream.load(p, steps[d], next, lane);
      }
    }
  }

  // LDS: sums [wave_k][row][column of the block], the rows of some fragments at a time.
  constexpr int kPitch = kColumns + 4, kSlab = C::slab_rows * kPitch;
  constexpr int kAtOnce = (C::slab_rows + Unit::kRows - 1) / Unit::kRows;
  gptq::GemmView<C, P> view(p);
  if constexpr (kKeptBias) view.bias = lds<typename C::dtype>(C::bias_at) - block_column;
  float* slab = lds<float>(0);
  float* mine = slab + wave_k * kSlab + wave_n * (C::loads_n * L::kColumns);
  KGEN_UNROLL
  for (int i = 0; i < Stream::kRm; i += kAtOnce) {
    KGEN_UNROLL
    for (int r = 0; r < kAtOnce; ++r) {
      KGEN_UNROLL
      for (int j = 0; j < Stream::kRn; ++j)
        Unit::store(stream.sums[i + r][j], mine + r * Unit::kRows * kPitch + j * 16, kPitch, lane,
                    C::slab_rows - r * Unit::kRows);
    }
    sync_lds();
    const int rows = int(p.m) - i * Unit::kRows;
    int items = (rows < C::slab_rows ? rows : C::slab_rows) * kPerRow, first = thread_x();
    if constexpr (C::cluster_k > 1) {
      cluster_wait();  // the barriers of all blocks are there
      KGEN_NO_UNROLL
      for (int i = thread_x(); i < items - cluster.count; i += C::threads) {
        const int item = cluster.others(i);
        float total[4];
        gptq::add_waves<C>(slab, item / kPerRow * kPitch + item % kPerRow * 4, kSlab, total);
        cluster.send(item, total);
      }
      first += cluster.own;
      items = cluster.own + cluster.count;
      barrier_wait(cluster.base, 0);
    }
    KGEN_NO_UNROLL
    for (int item = first; item < items; item += C::threads) {
      const int local = item / kPerRow, at = local * kPitch + item % kPerRow * 4;
      const i64 row = i * Unit::kRows + local, column = block_column + item % kPerRow * 4;
      if (column >= p.n) continue;
      float total[4];
      gptq::add_waves<C>(slab, at, kSlab, total);
      if constexpr (C::cluster_k > 1) cluster.add(item, total);
      if constexpr (C::split_k > 1) {
        const i64 left = p.n - column;
        epilogue_detail::store_columns<4>(p.partial + (block_y() / C::cluster_k * p.m + row) * p.n + column,
                                          left < 4 ? int(left) : 4, total);
      } else {
        epilogue<G, 4>(view, 0, row, column, total);
      }
    }
    if (i + kAtOnce < Stream::kRm) sync_lds();
  }
}

}  // namespace kgen
