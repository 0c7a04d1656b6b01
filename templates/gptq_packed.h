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
//   grid x: columns, y: parts of K (split_k), added by gptq_reduce in order
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
  static constexpr int kLines = kUnit == unit::mma_sync ? 2 : 1, kRowLines = kLines;
  static constexpr int kWords = kUnit == unit::wmma11 ? 8 : 4;
  static constexpr int kChunk = kUnit == unit::mma_sync || kUnit == unit::mfma ? 32 : 16;
  struct Line {
    u32 words[kWords];
  };
  using Weights = Line;

  static KGEN_DEVICE int line(int lane) { return kUnit == unit::mma_sync ? lane / 4 : lane % 16; }
  static KGEN_DEVICE int place(int lane) {
    if constexpr (kUnit == unit::mma_sync) return lane % 4 * 8;
    return kUnit == unit::wmma11 ? 0 : lane / 16 * 8;
  }
  static KGEN_DEVICE int row(int lane, int i) { return line(lane) + i * 8; }

  static KGEN_DEVICE void multiply(Sums& sums, const Line (&a)[kLines], const Line (&b)[kLines]) {
    if constexpr (kUnit == unit::mma_sync) {
      KGEN_UNROLL
      for (int i = 0; i < 2; ++i) {
        const typename Mma::A x = {
            {a[0].words[2 * i], a[1].words[2 * i], a[0].words[2 * i + 1], a[1].words[2 * i + 1]}};
        const typename Mma::B w = {
            {b[0].words[2 * i], b[0].words[2 * i + 1], b[1].words[2 * i], b[1].words[2 * i + 1]}};
        Mma::multiply(sums, x, w);
      }
    } else {
      Mma::multiply(sums, bit_cast<typename Mma::A>(a[0]), bit_cast<typename Mma::B>(b[0]));
    }
  }
  static KGEN_DEVICE void store(Sums& sums, float* rows, int pitch, int lane) { Mma::store(sums, rows, pitch, lane); }
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
  static KGEN_DEVICE void store(Sums& sums, float* rows, int pitch, int lane) {
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
  static constexpr int kRm = C::rows_m / Unit::kRows, kRn = C::loads_n * L::kTiles;
  struct Step {
    Vec<u32, 4> words[C::loads_n][C::chunks];
    Vec<u32, L::kFactors> factors[C::loads_n];
  };

  const u32* weight[C::loads_n];  // of this lane
  const u32* factor[C::loads_n];
  const T* x;
  int row[kRm][Unit::kRowLines];  // where they start
  typename Unit::Sums sums[kRm][kRn];

  template <class P>
  KGEN_DEVICE PackedStream(const P& p, int lane, i64 block) : sums{} {
    const i64 last = (p.n + L::kColumns - 1) / L::kColumns - 1, chunks = L::most_steps(p) * C::chunks;
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      const i64 at = block + l < last ? block + l : last;
      weight[l] = reinterpret_cast<const u32*>(p.packed) + (at * chunks * Unit::kLanes + lane % Unit::kLanes) * 4;
      const i64 line = at * p.groups * (16 / Unit::kLines) + Unit::line(lane);
      factor[l] = reinterpret_cast<const u32*>(p.factors) + line * L::kFactors;
    }
    x = (C::copy_x ? p.copied : p.x) + Unit::place(lane);
    const int stride = C::copy_x ? int(chunks) * Unit::kChunk : int(p.ldx);
    KGEN_UNROLL
    for (int i = 0; i < kRm; ++i) {
      KGEN_UNROLL
      for (int e = 0; e < Unit::kRowLines; ++e) {
        const int at = i * Unit::kRows + Unit::row(lane, e);
        row[i][e] = (at < p.m ? at : int(p.m) - 1) * stride;
      }
    }
  }

  template <class P>
  KGEN_DEVICE void load(const P& p, Step& step, int index) const {
    const int group = L::group(p, index);
    KGEN_UNROLL
    for (int l = 0; l < C::loads_n; ++l) {
      KGEN_UNROLL
      for (int s = 0; s < C::chunks; ++s)
        step.words[l][s] = load_vec<u32, 4>(weight[l] + (i64(index) * C::chunks + s) * (Unit::kLanes * 4));
      step.factors[l] = load_vec<u32, L::kFactors>(factor[l] + i64(group) * L::kColumns);
    }
  }

  // scale * (q - zero) of the terms of a line.
  static KGEN_DEVICE void weigh(const Vec<u32, 4>& words, int line, u32 factor, typename Unit::Weights& to) {
    const u32 half = factor >> 16, zero = Packing<C>::kHalves ? half | half << 16 : half;
    const u32 bits = factor & 0xffffu;
    KGEN_UNROLL
    for (int i = 0; i < L::kLinePairs; ++i) {
      const u32 pair = L::pair(words, line * L::kLinePairs + i);
      if constexpr (!Unit::kFloats && kSame<T, f16> && Packing<C>::kHalves) {
        to.words[i] = mul_f16x2(add_f16x2(pair | 0x64006400u, zero), bits | bits << 16);
      } else {
        float low, high;
        differences<C>(pair, zero, low, high);
        const float scale = to_float(bit_cast<T>(u16(bits)));
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

  KGEN_DEVICE void add(const Step& step, int index) {
    KGEN_UNROLL
    for (int s = 0; s < C::chunks; ++s) {
      const T* from = x + (i64(index) * C::chunks + s) * Unit::kChunk;
      typename Unit::Line a[kRm][Unit::kRowLines];
      KGEN_UNROLL
      for (int i = 0; i < kRm; ++i) {
        KGEN_UNROLL
        for (int e = 0; e < Unit::kRowLines; ++e) {
          KGEN_UNROLL
          for (int w = 0; w < Unit::kWords; w += 4) {
            const Packed<T, 8> piece = Packed<T, 8>::load(from + row[i][e] + 2 * w);
            KGEN_UNROLL
            for (int j = 0; j < 4; ++j) a[i][e].words[w + j] = piece.words[j];
          }
        }
      }
      KGEN_UNROLL
      for (int l = 0; l < C::loads_n; ++l) {
        KGEN_UNROLL
        for (int t = 0; t < L::kTiles; ++t) {
          typename Unit::Weights b[Unit::kLines];
          KGEN_UNROLL
          for (int e = 0; e < Unit::kLines; ++e) {
            const int line = t * Unit::kLines + e;
            weigh(step.words[l][s], line, step.factors[l][line], b[e]);
          }
          KGEN_UNROLL
          for (int i = 0; i < kRm; ++i) Unit::multiply(sums[i][l * L::kTiles + t], a[i], b);
        }
      }
    }
  }
};

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
  const int all = L::steps(p), share = (all + C::split_k - 1) / C::split_k;
  const int begin = block_y() * share, end = begin + share < all ? begin + share : all;

  Stream stream(p, lane, i64(block_x()) * (C::waves_n * C::loads_n) + wave_n * C::loads_n);
  typename Stream::Step steps[C::depth];
  KGEN_UNROLL
  for (int d = 0; d < C::depth; ++d) {
    const int step = begin + wave_k + d * C::waves_k;
    if (step < end) stream.load(p, steps[d], step);
  }
  KGEN_NO_UNROLL
  for (int first = begin + wave_k; first < end; first += C::depth * C::waves_k) {
    KGEN_UNROLL
    for (int d = 0; d < C::depth; ++d) {
      const int step = first + d * C::waves_k, next = step + C::depth * C::waves_k;
      if (step < end) stream.add(steps[d], step);
      if (next < end) stream.load(p, steps[d], next);
    }
  }

  // LDS: sums [wave_k][row][column of the block], the rows of one fragment at a time.
  constexpr int kPitch = kColumns + 4, kSlab = Unit::kRows * kPitch, kPerRow = kColumns / 4;
  const gptq::GemmView<C, P> view(p);
  float* slab = lds<float>(0);
  float* mine = slab + wave_k * kSlab + wave_n * (C::loads_n * L::kColumns);
  KGEN_UNROLL
  for (int i = 0; i < Stream::kRm; ++i) {
    KGEN_UNROLL
    for (int j = 0; j < Stream::kRn; ++j) Unit::store(stream.sums[i][j], mine + j * 16, kPitch, lane);
    sync_lds();
    KGEN_NO_UNROLL
    for (int item = thread_x(); item < Unit::kRows * kPerRow; item += C::threads) {
      const int local = item / kPerRow, at = local * kPitch + item % kPerRow * 4;
      const i64 row = i * Unit::kRows + local, column = block_column + item % kPerRow * 4;
      if (row >= p.m || column >= p.n) continue;
      float total[4] = {};
      KGEN_NO_UNROLL
      for (int w = 0; w < C::waves_k; ++w) {
        const Vec<float, 4> part = load_vec<float, 4>(slab + w * kSlab + at);
        KGEN_UNROLL
        for (int e = 0; e < 4; ++e) total[e] += part[e];
      }
      if constexpr (C::split_k > 1) {
        const i64 left = p.n - column;
        epilogue_detail::store_columns<4>(p.partial + (block_y() * p.m + row) * p.n + column, left < 4 ? int(left) : 4,
                                          total);
      } else {
        epilogue<G, 4>(view, 0, row, column, total);
      }
    }
    if (i + 1 < Stream::kRm) sync_lds();
  }
}

}  // namespace kgen
