// gptq_gemm for few rows of X on a weight that was packed once: it streams from memory to the fragments of the matrix
// unit (or the plain ALU), past LDS.
//
//   chunk: kChunk terms x 16 columns, a fragment of B       a lane's 16 bytes: its terms of that chunk, of kTiles
//                                                           fragments side by side
//        n → 16 columns
//   k  ┌───────────────┐   mma_sync  lane: columns lane/4 and lane/4 + 8, terms lane%4*8 … + 7 of 32
//   ↓  │ 8 terms a lane│   mfma      lane: column lane%16, terms lane/16*8 … + 7 of 32
//      └───────────────┘   wmma12    the same of 16        wmma11  lane: column lane%16, all 16 terms
//
//   packed [blocks of kTiles*16 columns][chunks][lanes][4 words], so that a wave reads 16 bytes a lane from consecutive
//   places all the time. A of the same fragment is 8 (16) consecutive terms of a row of X a lane: 16-byte loads from
//   memory. The order of the terms within a fragment is the same in A and B, and so is free.
//
//   block: waves_n x waves_k waves; waves_k share the terms, step by step; a wave: loads_n blocks of columns, all rows
//   grid x: columns, y: parts of K: those of a cluster (cluster_k) are added in its LDS, split_k by gptq_reduce, in
//   order
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
  static constexpr int kLines = 2, kRowLines = 1, kWords = 4, kChunk = 32;
  struct Line {
    u32 words[kWords];
  };
  using Weights = Line;
  struct Sums {
    u32 r[4];  // columns lane/4 and lane/4 + 8, each of rows lane%4*2 and the next
  };

  static KGEN_DEVICE int line(int lane) { return lane / 4; }
  static KGEN_DEVICE int place(int lane) { return lane % 4 * 8; }
  static KGEN_DEVICE int row(int lane, int) { return lane / 4; }

  static KGEN_DEVICE void multiply(Sums& sums, const Line (&a)[1], const Line (&b)[2]) {
    KGEN_UNROLL
    for (int i = 0; i < 4; i += 2) {
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
  static constexpr int kLinePairs = Unit::kWords, kTiles = 128 / (kBits * 2 * kLinePairs * Unit::kLines);
  static constexpr int kColumns = 16 * kTiles;            // that lanes read with one access
  static constexpr int kFactors = kTiles * Unit::kLines;  // of them a lane's own
  static constexpr int kStep = C::chunks * Unit::kChunk;  // slots of a step
  static_assert(kStep == C::step_k, "the definition knows the unit's chunks");
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
  // are: 1024 + 2^s q, scaled by 2^-s, is exact too, and so a word takes one shift and not one a pair.
  static KGEN_DEVICE u32 half_pair(const Vec<u32, 4>& words, int i, u32 zero) {
    const int at = i % kPairs * kBits, s = at % 8;
    const u32 raised = and_or(words[i / kPairs] >> (at - s), (kMask | kMask << 16) << s, 0x64006400u);
    if (s == 0) return add_f16x2(raised, zero);
    const u32 scale = u32(15 - s) << 10, rest = 0x6000u + 2 * (1024 - (1024 >> s)) - 1024;  // 2^-s, 1024 - 1024 * 2^-s
    return fma_f16x2(raised, scale * 0x10001u, add_f16x2(zero, rest * 0x10001u));
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
  const i64 chunks = L::most_steps(p) * C::chunks, blocks = (p.n + L::kColumns - 1) / L::kColumns;
  const i64 item = i64(block_x()) * block_size() + thread_x();
  if (item >= blocks * chunks * Unit::kLanes) return;
  const int lane = int(item % Unit::kLanes);
  const i64 chunk = item / Unit::kLanes % chunks, first_column = item / Unit::kLanes / chunks * L::kColumns;
  const bool used = chunk < i64(L::steps(p)) * C::chunks;
  Vec<u32, 4> words = {};
  KGEN_UNROLL
  for (int word = 0; word < 4; ++word) {
    u32 packed = 0;
    KGEN_NO_UNROLL
    for (int i = 0; i < 2 * L::kPairs; ++i) {
      const int pair = word * L::kPairs + i / 2, element = pair % L::kLinePairs * 2 + i % 2;
      const i64 n = first_column + L::column(Unit::line(lane), pair / L::kLinePairs);
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
  struct Step {
    Vec<u32, 4> words[C::loads_n][C::chunks];
    Vec<u32, L::kFactors> factors[C::loads_n];
  };

  const u32* weight[C::loads_n];  // of this lane
  const u32* factor[C::loads_n];  // of the columns' first group
  const T* x;                     // of the piece that this lane copies first (ring)
  int stride;                     // of x
  int row[kRm][Unit::kRowLines];  // where they start
  int copied_row, copied_to;      // ring: of that piece; its byte in LDS
  typename Unit::Sums sums[kRm][kRn];

  template <class P>
  KGEN_DEVICE PackedStream(const P& p, int lane, int wave_n, i64 block) : copied_row(0), copied_to(0), sums{} {
    const i64 last_block = (p.n + L::kColumns - 1) / L::kColumns - 1, chunks = L::most_steps(p) * C::chunks;
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      const i64 at = block + l < last_block ? block + l : last_block;
      weight[l] = reinterpret_cast<const u32*>(p.packed) + (at * chunks * Unit::kLanes + lane % Unit::kLanes) * 4;
      factor[l] = reinterpret_cast<const u32*>(p.factors) + at * p.groups * L::kColumns;
    }
    x = C::copy_x ? p.copied : p.x;
    stride = C::copy_x ? int(chunks) * Unit::kChunk : int(p.ldx);
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
      const int item = wave_n * kWaveSize + lane, at = item / kPieces, chunk = at / kRowsAtOnce;
      copied_row = chunk < kChunksAtOnce ? at % kRowsAtOnce : C::rows_m;  // beyond the last: copies nothing
      copied_to = (chunk * C::rows_m + copied_row) * (Unit::kChunk * 2) + item % kPieces * 16;
      x += copied_row * stride + chunk * Unit::kChunk + item % kPieces * 8;
      copied_row = p.m - copied_row < C::rows_m ? int(p.m) - copied_row : C::rows_m - copied_row;
    }
  }

  template <class P>
  KGEN_DEVICE void load(const P& p, Step& step, int index, int lane) const {
    const int group = L::group(p, index);
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      KGEN_UNROLL
      for (int s = 0; s < C::chunks; ++s)
        step.words[l][s] = load_vec<u32, 4>(weight[l] + (i64(index) * C::chunks + s) * (Unit::kLanes * 4));
      const u32* of_group = factor[l] + i64(group) * L::kColumns;
      step.factors[l] = load_vec<u32, L::kFactors>(of_group + Unit::line(lane) * L::kFactors);
    }
  }
  KGEN_DEVICE void add(const Step& step, int index) { multiply(step, x + i64(index) * L::kStep, Unit::kChunk); }

  // The ring: LDS of `depth` slots, [slot][wave_k][X: chunk, row, terms | wave_n: words, factors]. A lane reads the
  // words that it copied itself; factors are its wave's, X that of all waves side by side.
  static constexpr int kXBytes = C::rows_m * L::kStep * 2, kWordBytes = C::loads_n * C::chunks * Unit::kLanes * 16;
  static constexpr int kFactorBytes = C::loads_n * L::kColumns * 4, kWaveBytes = kWordBytes + kFactorBytes;
  static constexpr int kShareBytes = kXBytes + C::waves_n * kWaveBytes;

  static constexpr int kSlotBytes = C::waves_k * kShareBytes;
  // Work-items that copy X: 16-byte pieces of a row's chunk, rows, chunks.
  static constexpr int kPieces = Unit::kChunk / 8, kItems = C::waves_n * kWaveSize / kPieces;
  static constexpr int kRowsAtOnce = C::rows_m < kItems ? C::rows_m : kItems;
  static constexpr int kChunksAtOnce = C::chunks < kItems / kRowsAtOnce ? C::chunks : kItems / kRowsAtOnce;
  static_assert(C::chunks % kChunksAtOnce == 0);

  // Step `index` to the slot whose share of this wave begins at byte `to`.
  template <class P>
  KGEN_DEVICE void copy(const P& p, int index, int to, int lane, int wave_n) const {
    const u32 share = lds_address(lds_base()) + u32(to), words = share + kXBytes + wave_n * kWaveBytes + lane * 16;
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      const u32* from = weight[l] + i64(index) * (C::chunks * Unit::kLanes * 4);
      KGEN_UNROLL
      for (int s = 0; s < C::chunks; ++s)
        async_copy<16>(words + (l * C::chunks + s) * (Unit::kLanes * 16), from + s * (Unit::kLanes * 4));
    }
    const i64 of_group = i64(L::group(p, index)) * L::kColumns;
    if (lane < L::kColumns / 4) {
      KGEN_UNROLL
      for (int l = 0; l < C::loads_n; ++l)
        async_copy<16>(words + kWordBytes + l * (L::kColumns * 4), factor[l] + of_group + lane * 4);
    }
    const T* from = x + i64(index) * L::kStep;
    KGEN_UNROLL
    for (int r = 0; r < C::rows_m; r += kRowsAtOnce) {
      if (r >= copied_row) continue;
      KGEN_UNROLL
      for (int s = 0; s < C::chunks; s += kChunksAtOnce)
        async_copy<16>(share + copied_to + (s * C::rows_m + r) * (Unit::kChunk * 2),
                       from + r * stride + s * Unit::kChunk);
    }
  }
  KGEN_DEVICE void add_share(int from, int lane, int wave_n) {
    const int words = from + kXBytes + wave_n * kWaveBytes, factors = words + Unit::line(lane) * (L::kFactors * 4);
    Step step;
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      KGEN_UNROLL
      for (int s = 0; s < C::chunks; ++s)
        step.words[l][s] = load_vec<u32, 4>(lds<u32>(words + lane * 16 + (l * C::chunks + s) * (Unit::kLanes * 16)));
      step.factors[l] = load_vec<u32, L::kFactors>(lds<u32>(factors + kWordBytes + l * (L::kColumns * 4)));
    }
    if constexpr (kScaleSums)
      multiply_then_scale(step, lds<T>(from), C::rows_m * Unit::kChunk);
    else
      multiply(step, lds<T>(from), C::rows_m * Unit::kChunk);
  }

  // The bias of the block's columns is asked for at the start, not when the sums are there. It stays in LDS.
  template <class P>
  KGEN_DEVICE void copy_bias(const P& p, i64 block_column, int columns) const {
    const u32 to = lds_address(lds_base()) + u32(C::bias_at);
    KGEN_NO_UNROLL
    for (int i = 2 * thread_x(); i < columns; i += 2 * C::threads)
      if (block_column + i < p.n) async_copy<4>(to + i * 2, p.bias + block_column + i);
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
      else
        sync_block();
      const int step = first + wave_k, next = step + (C::depth - 1) * C::waves_k;
      if (next < end) copy(p, next, to, lane, wave_n);
      async_commit();
      if (step < end) add_share(from, lane, wave_n);
      to = from;
      from = from + kSlotBytes < C::depth * kSlotBytes ? from + kSlotBytes : mine;
    }
    async_wait<0>();  // the bias, where there was no step
  }

  // q - zero of the terms of a line, with their scale or without.
  template <bool kScaled>
  static KGEN_DEVICE void weigh(const Vec<u32, 4>& words, int line, u32 factor, typename Unit::Weights& to) {
    const u32 half = factor >> 16, zero = Packing<C>::kHalves ? half | half << 16 : half;
    const u32 bits = factor & 0xffffu;
    KGEN_UNROLL
    for (int i = 0; i < L::kLinePairs; ++i) {
      const int pair = line * L::kLinePairs + i;
      if constexpr (!Unit::kFloats && kSame<T, f16> && Packing<C>::kHalves) {
        to.words[i] = L::half_pair(words, pair, zero);
        if constexpr (kScaled) to.words[i] = mul_f16x2(to.words[i], bits | bits << 16);
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
  KGEN_DEVICE void load_x_row(const T* from, int i, typename Unit::Line (&a)[Unit::kRowLines]) const {
    KGEN_UNROLL
    for (int e = 0; e < Unit::kRowLines; ++e) {
      KGEN_UNROLL
      for (int w = 0; w < Unit::kWords; w += 4) {
        const Packed<T, 8> piece = Packed<T, 8>::load(from + row[i][e] + 2 * w);
        KGEN_UNROLL
        for (int j = 0; j < 4; ++j) a[e].words[w + j] = piece.words[j];
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
            weigh<false>(step.words[l][s], line, step.factors[l][line], b[e]);
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
          weigh<true>(step.words[j / L::kTiles][s], line, step.factors[j / L::kTiles][line], b[j][e]);
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
// And of the blocks of a cluster: all are read before any is added.
template <class C>
KGEN_DEVICE void add_cluster(const float* sums, float (&total)[4]) {
  float parts[C::cluster_k][4];
  KGEN_UNROLL
  for (int r = 0; r < C::cluster_k; ++r) load_cluster(cluster_address(lds_address(sums), r), parts[r]);
  KGEN_UNROLL
  for (int e = 0; e < 4; ++e) total[e] = parts[0][e];
  KGEN_UNROLL
  for (int r = 1; r < C::cluster_k; ++r) {
    KGEN_UNROLL
    for (int e = 0; e < 4; ++e) total[e] += parts[r][e];
  }
}

}  // namespace gptq

template <class C, class P>
KGEN_DEVICE void gptq_packed(const P& p) {
  using G = gptq::GemmConfig<C>;
  using L = gptq::PackedLayout<C>;
  using Unit = typename L::Unit;
  using Stream = gptq::PackedStream<C>;
  const int lane = lane_id(), wave = uniform(thread_x() / kWaveSize);
  const int wave_n = wave % C::waves_n, wave_k = wave / C::waves_n;
  constexpr int kColumns = C::waves_n * C::loads_n * L::kColumns;  // of the block
  const i64 block_column = i64(block_x()) * kColumns;
  constexpr int kParts = C::split_k * C::cluster_k;
  const int all = L::steps(p), share = (all + kParts - 1) / kParts;
  const int begin = block_y() * share, end = begin + share < all ? begin + share : all;

  Stream stream(p, lane, wave_n, i64(block_x()) * (C::waves_n * C::loads_n) + wave_n * C::loads_n);
  constexpr bool kKeptBias = C::ring && C::epilogue_bias != 0 && C::split_k == 1;
  if constexpr (C::ring) {
    if constexpr (kKeptBias) stream.copy_bias(p, block_column, kColumns);
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
  constexpr int kPitch = kColumns + 4, kSlab = C::slab_rows * kPitch, kPerRow = kColumns / 4;
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
    const int rows = int(p.m) - i * Unit::kRows, items = (rows < C::slab_rows ? rows : C::slab_rows) * kPerRow;
    int first = thread_x(), stride = C::threads;
    if constexpr (C::cluster_k > 1) {
      KGEN_NO_UNROLL
      for (int item = thread_x(); item < items; item += C::threads) {
        const int at = item / kPerRow * kPitch + item % kPerRow * 4;
        float total[4];
        gptq::add_waves<C>(slab, at, kSlab, total);
        store_vec<float, 4>(slab + at, Vec<float, 4>{{total[0], total[1], total[2], total[3]}});
      }
      cluster_sync();
      first += cluster_rank() * C::threads;
      stride *= C::cluster_k;
    }
    KGEN_NO_UNROLL
    for (int item = first; item < items; item += stride) {
      const int local = item / kPerRow, at = local * kPitch + item % kPerRow * 4;
      const i64 row = i * Unit::kRows + local, column = block_column + item % kPerRow * 4;
      if (column >= p.n) continue;
      float total[4];
      if constexpr (C::cluster_k > 1)
        gptq::add_cluster<C>(slab + at, total);
      else
        gptq::add_waves<C>(slab, at, kSlab, total);
      if constexpr (C::split_k > 1) {
        const i64 left = p.n - column;
        epilogue_detail::store_columns<4>(p.partial + (block_y() / C::cluster_k * p.m + row) * p.n + column,
                                          left < 4 ? int(left) : 4, total);
      } else {
        epilogue<G, 4>(view, 0, row, column, total);
      }
    }
    if constexpr (C::cluster_k > 1) cluster_sync();  // a block's LDS stays while others read it
    if (i + kAtOnce < Stream::kRm) sync_lds();
  }
}

}  // namespace kgen
