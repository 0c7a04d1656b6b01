// gptq_gemm for many rows of X on sm_90's matrix units: Y^T = W^T . X^T, so that the weights are the operand in
// registers, where they become 16-bit numbers, and X goes to the units as the copy engine laid it into LDS.
//
//   block tile tile_n columns of W x tile_m rows of X       LDS: a ring of stages of 64 terms each,
//
//                      tile_m rows of X                       X      tile_m rows of 128 permuted bytes (tensor map)
//                    ┌──────────────────┐                     words  tile_n/64 blocks of 2304 bytes (bulk copies)
//   warpgroup 1, its │ 64 columns of W  │
//   blocks of 64     ├──────────────────┤                   as all X, boxes of Y, all words, a full and an empty
//   warpgroup 2      │ 64 columns of W  │                   barrier a stage
//                    └──────────────────┘
//   wave w of a warpgroup: columns 16w … 16w + 15 of a block, lanes as in wgmma.h
//
//   producer: wait empty, copy ──▶ full    consumers: wait full, words ─▶ fragments ─▶ wgmma, which is under way while
//                                          the next stage's fragments are made; then ──▶ empty
//
//   A block of 64 columns and 64 terms, packed once: 128 lanes x 4 words, then 32 pairs of factors.
//
//     word j of a lane: terms 16j … 16j + 15, its 8 values of the fragment; 4 bits each (fewer are kept as 4)
//     bits   0-3  16-19 │  4-7  20-23 │   8-11  24-27 │ 12-15  28-31      factors: bits of the scale, and of what is
//     column lane/4     │ + 8         │ lane/4        │ + 8               added to a value (zero_of()) in the high
//     terms  2*(lane%4), + 1          │ + 8, + 9                          half; those of columns c and c + 8 together
//
//   Rows of Y are columns of the sums: stmatrix turns them on their way to boxes of out_rows x 64, which the copy
//   engine stores. The bias is added before.
//
//   The blocks stay and walk the tiles, group_n rows of them along W's columns at a time. Parts of K (split_k) are
//   added by gptq_reduce, in order.
//
// Legal (checked by the rules of ops/gptq_gemm.yaml): no act-order, groups are whole stages, rows of X and Y begin at
// multiples of 16 bytes.
#pragma once
#include "gptq_format.h"
#include "mma/wgmma.h"
#include "prelude.h"
#include "tensor_copy.h"

namespace kgen {
namespace gptq {

template <class C>
struct WarpgroupTile {
  using T = typename C::dtype;
  static constexpr int kTerms = 64, kSteps = kTerms / 16;
  static constexpr int kBlocks = C::tile_n / (64 * C::warpgroups);  // of 64 columns that a warpgroup has
  static constexpr int kBlockWords = 128 * kSteps + 64, kBlockBytes = kBlockWords * 4;
  static constexpr int kXBytes = C::tile_m * 128, kWordsBytes = C::tile_n / 64 * kBlockBytes;
  static constexpr int kBoxBytes = C::out_rows * 128;
  static constexpr int kSums = C::tile_m / 2;  // of a lane in a block
  static_assert(sizeof(T) == 2 && C::tile_m % 16 == 0);
  using Factors = Vec<u32, 2>;

  // What is added to a pair of values as it was raised: -(1024 + zero), of the columns + 8 -(64 + zero), for their bits
  // lie higher; bf16 -(128 + zero). All exact.
  static KGEN_DEVICE u32 zero_of(u32 zero, bool second) {
    if constexpr (kSame<T, bf16>) return bf16_bits(-float(128 + zero));
    return f16_bits(-float((second ? 64 : 1024) + zero));
  }

  struct Scales {
    u32 zero[2], scale[2];  // of both columns, twice in a word
    KGEN_DEVICE explicit Scales(const Factors& factors) {
      KGEN_UNROLL
      for (int i = 0; i < 2; ++i) {
        zero[i] = high_twice(factors[i]);
        scale[i] = low_twice(factors[i]);
      }
    }
  };
  static KGEN_DEVICE u32 weights(u32 raised, const Scales& s, int i) {
    if constexpr (kSame<T, bf16>) return mul_bf16x2(add_bf16x2(raised, s.zero[i]), s.scale[i]);
    return mul_f16x2(add_f16x2(raised, s.zero[i]), s.scale[i]);
  }
  // A word's values, rounded once.
  static KGEN_DEVICE void unpack(u32 (&fragment)[4], u32 word, const Scales& s) {
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const u32 bits = word >> (8 * half);
      if constexpr (kSame<T, bf16>) {
        fragment[2 * half] = weights(and_or(bits, 0x000f000fu, 0x43004300u), s, 0);
        fragment[2 * half + 1] = weights(and_or(bits >> 4, 0x000f000fu, 0x43004300u), s, 1);
      } else {
        fragment[2 * half] = weights(and_or(bits, 0x000f000fu, 0x64006400u), s, 0);
        fragment[2 * half + 1] = weights(and_or(bits, 0x00f000f0u, 0x54005400u), s, 1);
      }
    }
  }

  static KGEN_DEVICE u32 at(int byte) { return lds_address(lds_base()) + u32(byte); }
  static KGEN_DEVICE u32 full(int s) { return at(C::barriers_at + 16 * s); }
  static KGEN_DEVICE u32 empty(int s) { return full(s) + 8; }

  // The ring's place: a stage and the phase of its barriers.
  struct Place {
    int stage = 0;
    u32 phase = 0;
    KGEN_DEVICE void advance() {
      if (++stage == C::stages) {
        stage = 0;
        phase ^= 1;
      }
    }
  };

  // Where tile `index` begins, and its steps (split_k parts of K: all tiles of one, then of the next). Groups of
  // group_n rows along W's columns are walked together, so that neighbours in time share operands in the L2.
  struct Tile {
    int n, m, part, step, end;
  };
  static KGEN_DEVICE Tile tile_of(int index, int across, int down, int steps) {
    const int part = C::split_k > 1 ? index / (across * down) : 0;
    index -= part * (across * down);
    const int group = index / (C::group_n * down), first = group * C::group_n;
    const int height = across - first < C::group_n ? across - first : C::group_n;
    const int within = index - group * (C::group_n * down), row = within / height;
    return {(first + within - row * height) * C::tile_n, row * C::tile_m, part, int(i64(steps) * part / C::split_k),
            int(i64(steps) * (part + 1) / C::split_k)};
  }

  // A stage that a warpgroup has done with: its products need the words of all its waves.
  static KGEN_DEVICE void release(int s) {
    if (u32(thread_x()) % 128u == 0) barrier_arrive(empty(s));
  }

  template <class P>
  static KGEN_DEVICE void copy(const P& p, const Tile& tile, int step, int steps, int s) {
    const int last_block = int((p.n + 63) / 64) - 1;
    barrier_expect(full(s), u32(kXBytes + kWordsBytes));
    KGEN_UNROLL
    for (int i = 0; i < C::tile_n / 64; ++i) {
      const int block = tile.n / 64 + i < last_block ? tile.n / 64 + i : last_block;
      bulk_copy(at(C::words_at + s * kWordsBytes + i * kBlockBytes),
                p.packed + (i64(block) * steps + step) * kBlockWords, kBlockBytes, full(s));
    }
    tensor_copy(at(s * kXBytes), p.map_x, step * kTerms, tile.m, 0, full(s));
  }

  // The products of stage `step`. Those of the one before may be under way until these are, and its fragments with
  // them.
  static KGEN_DEVICE void multiply(float (&sums)[kBlocks][kSums], u32 (&fragments)[kBlocks][kSteps][4], int group,
                                   int step, Place& place, int& before) {
    const int thread = int(u32(thread_x()) % 128u), pair = thread / 32 * 8 + thread % 32 / 4;
    barrier_wait(full(place.stage), place.phase);
    const u32* const first = lds<u32>(C::words_at + place.stage * kWordsBytes + group * (kBlocks * kBlockBytes));
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      const auto words = load_vec<u32, 4>(first + i * kBlockWords + thread * 4);
      const Scales scales(load_vec<u32, 2>(first + i * kBlockWords + 128 * kSteps + pair * 2));
      KGEN_UNROLL
      for (int k = 0; k < kSteps; ++k) unpack(fragments[i][k], words[k], scales);
    }
    const u64 x = wgmma_operand(at(place.stage * kXBytes));
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    wgmma_fence();
    KGEN_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i) wgmma<T>(sums[i], fragments[i][k], x + u64(2 * k), step > 0 || k > 0);
    }
    wgmma_commit();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    wgmma_wait<1>();
    if (before >= 0) release(before);
    before = place.stage;
    place.advance();
  }
  static KGEN_DEVICE void multiply(float (&sums)[kBlocks][kSums], int group, int steps, Place& place) {
    u32 even[kBlocks][kSteps][4], odd[kBlocks][kSteps][4];
    int before = -1;  // the stage whose products may be under way
    KGEN_NO_UNROLL
    for (int step = 0;; step += 2) {  // left where a stage is done: the compiler must see which fragments are free
      multiply(sums, even, group, step, place, before);
      if (step + 1 >= steps) break;
      multiply(sums, odd, group, step + 1, place, before);
      if (step + 2 >= steps) break;
    }
    wgmma_wait<0>();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    if (before >= 0) release(before);
  }

  // A part's sums as they are: eight lanes have neighbouring columns, 32 bytes.
  template <class P>
  static KGEN_DEVICE void store_part(const P& p, const float (&sums)[kBlocks][kSums], int group, const Tile& tile) {
    const int wave = int(u32(thread_x()) % 128u) / 32, lane = lane_id();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      const i64 n = tile.n + (group * kBlocks + i) * 64 + wave * 16 + lane / 4;
      const i64 m = tile.m + lane % 4 * 2;
      float* const to = p.partial + (tile.part * p.m + m) * p.n + n;
      KGEN_UNROLL
      for (int c = 0; c < kSums; ++c) {
        const int row = c / 4 * 8 + c % 2, column = c / 2 % 2 * 8;
        if (m + row < p.m && n + column < p.n) to[row * p.n + column] = sums[i][c];
      }
    }
  }

  // Boxes of out_rows rows of Y, two in turn: `box` is the next.
  template <class P>
  static KGEN_DEVICE void store(const P& p, const float (&sums)[kBlocks][kSums], int group, const Tile& tile,
                                int& box) {
    const int thread = int(u32(thread_x()) % 128u), wave = thread / 32, lane = lane_id();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      const int n = tile.n + (group * kBlocks + i) * 64;
      float bias[2] = {};
      if constexpr (C::epilogue_bias != 0) {
        KGEN_UNROLL
        for (int e = 0; e < 2; ++e) {
          const int column = n + wave * 16 + lane / 4 + 8 * e;
          if (column < p.n) bias[e] = to_float(p.bias[column]);
        }
      }
      KGEN_UNROLL
      for (int first = 0; first < C::tile_m; first += C::out_rows) {
        const u32 to = at(C::boxes_at + (group * 2 + box) * kBoxBytes);
        if (thread == 0) tensor_store_wait<1>();
        sync_part(group, 128);
        KGEN_UNROLL
        for (int row = 0; row < C::out_rows; row += 16) {
          u32 pairs[4];
          KGEN_UNROLL
          for (int f = 0; f < 4; ++f) {
            const int c = (first + row) / 2 + f * 2;  // rows of Y + 8 * (f / 2), columns + 8 * (f % 2)
            pairs[f] = rounded_pair<T>(sums[i][c] + bias[f % 2], sums[i][c + 1] + bias[f % 2]);
          }
          // Lane 8f + r: row r of fragment f.
          const int box_row = row + lane / 16 * 8 + lane % 8, chunk = wave * 2 + lane / 8 % 2;
          store_fragments_transposed(to + u32(box_row * 128 + (chunk ^ lane % 8) * 16), pairs);
        }
        async_fence();
        sync_part(group, 128);
        if (thread == 0) {
          if (tile.m + first < p.m) tensor_store(p.map_y, n, tile.m + first, 0, to);
          tensor_store_commit();
        }
        box ^= 1;
      }
    }
  }
};

}  // namespace gptq

// The packed weight [blocks of columns][steps]: 128 work-items a block of 64 columns and 64 terms.
template <class C, class P>
KGEN_DEVICE void gptq_warpgroup_pack(const P& p) {
  using L = gptq::WarpgroupTile<C>;
  constexpr int kBits = int(C::bits);
  const i64 steps = (p.k + L::kTerms - 1) / L::kTerms, block = block_x() / steps, step = block_x() % steps;
  const int thread = thread_x(), lane = thread % 32;
  u32* const to = reinterpret_cast<u32*>(p.packed) + i64(block_x()) * L::kBlockWords;
  Vec<u32, 4> words = {};
  KGEN_NO_UNROLL
  for (int value = 0; value < 32; ++value) {
    const int word = value / 8, place = value % 8, f = place % 4;  // register f of the fragment, its half place / 4
    const i64 n = block * 64 + thread / 32 * 16 + lane / 4 + f % 2 * 8;
    const i64 k = step * L::kTerms + word * 16 + lane % 4 * 2 + f / 2 * 8 + place / 4;
    if (n >= p.n || k >= p.k) continue;
    const i64 bit = k * kBits;
    const int shift = int(bit % 32);
    u64 bits = u32(p.qweight[bit / 32 * p.ldw + n]);
    if (shift + kBits > 32) bits |= u64(u32(p.qweight[(bit / 32 + 1) * p.ldw + n])) << 32;
    const u32 q = (u32(bits >> shift) & ((1u << kBits) - 1)) << (place * 4);
    KGEN_UNROLL
    for (int w = 0; w < 4; ++w) words[w] |= w == word ? q : 0u;
  }
  store_vec<u32, 4>(to + thread * 4, words);
  if (thread < 64) {
    const bool second = thread % 2 != 0;
    const i64 n = block * 64 + thread / 16 * 16 + thread / 2 % 8 + (second ? 8 : 0);
    u32 factor = 0;
    if (n < p.n) {
      gptq::Group<C, 1> of;
      of.load(p, gptq::group_in_order<C>(int(step * L::kTerms)), n);
      factor = of.scales.bits(0) | L::zero_of(of.zeros.zero(n, 0), second) << 16;
    }
    to[128 * L::kSteps + thread] = factor;
  }
}

template <class C, class P>
KGEN_DEVICE void gptq_warpgroup(const P& p) {
  using L = gptq::WarpgroupTile<C>;
  using Tile = typename L::Tile;
  const int thread = thread_x(), group = uniform(int(u32(thread) / 128u));
  const int across = int((p.n + C::tile_n - 1) / C::tile_n), down = int((p.m + C::tile_m - 1) / C::tile_m);
  const int steps = int((p.k + L::kTerms - 1) / L::kTerms);
  const int blocks = grid_x(), block = block_x();
  if (thread == 0) {
    tensor_map_prefetch(p.map_x);
    tensor_map_prefetch(p.map_y);
    KGEN_UNROLL
    for (int s = 0; s < C::stages; ++s) {
      barrier_make(L::full(s), 1);
      barrier_make(L::empty(s), C::warpgroups);
    }
    barrier_fence();
  }
  sync_block();
  typename L::Place place;
  if (group == C::warpgroups) {
    fewer_registers<40>();
    if (thread == C::warpgroups * 128) {
      KGEN_NO_UNROLL
      for (int index = block; index < across * down * C::split_k; index += blocks) {
        const Tile tile = L::tile_of(index, across, down, steps);
        KGEN_NO_UNROLL
        for (int step = tile.step; step < tile.end; ++step) {
          barrier_wait(L::empty(place.stage), place.phase ^ 1);
          L::copy(p, tile, step, steps, place.stage);
          place.advance();
        }
      }
    }
  } else {
    more_registers<232>();
    float sums[L::kBlocks][L::kSums];
    int box = 0;
    KGEN_NO_UNROLL
    for (int index = block; index < across * down * C::split_k; index += blocks) {
      const Tile tile = L::tile_of(index, across, down, steps);
      L::multiply(sums, group, tile.end - tile.step, place);
      if constexpr (C::split_k > 1)
        L::store_part(p, sums, group, tile);
      else
        L::store(p, sums, group, tile, box);
    }
    if (int(u32(thread) % 128u) == 0) tensor_store_wait();
  }
}

}  // namespace kgen
