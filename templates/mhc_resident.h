// mhc_pre, mhc_fused_post_pre and hc_head in one kernel that reads the streams once: they stay in LDS between the
// projection and what is made of them.
//
//   cluster   kTokens = 16*m_blocks tokens x all of h; then the next ones, `clusters` groups further
//   block     waves*steps*32 elements of each stream      ┌ block 0 ┬ block 1 ┬ … ┐  h
//   wave      `steps` steps of 32 elements                │w1 w2 w3 │w1 w2 w3 │   │
//   lane      of a step: tokens lane/4 + 8*half, elements lane%4*8 … +7 of all streams: 16 bytes each
//
// A lane copies its own pieces to LDS (cp.async), makes the new streams of them (mhc_post), stores these, puts them
// back where they came from and multiplies them with fn straight from its registers: a fragment of m16n8k16 wants from
// lane l rows l/4 and l/4 + 8 and four terms, and as the order of the terms is free, they are parts of its 16 bytes. fn
// lies in memory in the same order, so a lane reads its fragments of it from the L2, and nothing but totals passes from
// lane to lane:
//
//   slots ──▶ spread ──▶ products ──▶ wave's totals ─LDS─▶ block's ─cluster─▶ gates ──▶ slots ──▶ layer_input
//     ▲                                                          └─▶ first wave: Sinkhorn of its share of the tokens
//     └── the next group's steps, each as soon as its slot is free: `slots` of them in flight or waiting
//
// The first wave has no elements (but in hc_head). It makes post and comb while the others go on with the next group,
// for which it reads the mixes.
//
// fn is split into three terms and sums are restarted every step, as mhc_tiles.h says. Blocks of 8 rows: high ones,
// then the middle ones of the same rows, then one of the low terms of the gates; a lane has all terms of a row.
//
// Legality: h and the strides of tokens are multiples of 8; cluster*waves*steps*32 >= h; cluster divides kTokens.
#pragma once
#include "mhc.h"
#include "mma/mma_sync.h"

namespace kgen {
namespace mhc {

// Work-items of the wave that makes post and comb.
template <class C>
struct FirstWave : C {
  static constexpr int threads = 32;
};

// c[16][8] += a[16][16] . b[16][8] with the registers of mma.sync; on the host, for tests, by shuffles.
template <class C>
KGEN_DEVICE void multiply_fragments(u32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if constexpr (C::arch == Arch::host) {
    const int lane = lane_id(), first = lane / 4 * 4;
    for (int k = 0; k < 4; ++k) {
      u32 mine[4], column[2][2];
      for (int i = 0; i < 4; ++i) mine[i] = shuffle(a[i], first + k);
      for (int e = 0; e < 2; ++e) {
        column[e][0] = shuffle(b0, (lane % 4 * 2 + e) * 4 + k);
        column[e][1] = shuffle(b1, (lane % 4 * 2 + e) * 4 + k);
      }
      for (int i = 0; i < 4; ++i) {
        float sum = bit_cast<float>(c[i]);
        for (int half = 0; half < 2; ++half) {
          const u32 x = mine[i / 2 + 2 * half], y = column[i % 2][half];
          sum = fma_f(bit_cast<float>(x << 16), bit_cast<float>(y << 16), sum);
          sum = fma_f(bit_cast<float>(x & 0xffff0000u), bit_cast<float>(y & 0xffff0000u), sum);
        }
        c[i] = bit_cast<u32>(sum);
      }
    }
  } else {
    MmaSyncInstructions<C::arch>::template multiply<bf16>(c, a, b0, b1);
  }
}

template <class C, bool kSpreads>
struct ResidentShape {
  static constexpr int kN = int(C::n), kMixes = kN + kN * kN, kColumns = C::rows + 1;
  static constexpr int kSources = kN + (kSpreads ? 1 : 0);  // vectors of h that a token has
  static constexpr int kHalves = 2 * C::m_blocks, kTokens = 8 * kHalves;
  static constexpr int kHelpers = C::head ? 0 : 1;  // waves without elements
  static constexpr int kStep = 32, kVec = 8, kWave = 32;
  static constexpr int kRowBlocks = (C::rows + 7) / 8, kBlocks = 2 * kRowBlocks + 1;
  static constexpr int kShare = kTokens / C::cluster;  // tokens whose post and comb this block makes
  // LDS, in bytes.
  static constexpr int kPieceBytes = kWave * kVec * 2, kSlotBytes = kSources * kHalves * kPieceBytes;
  static constexpr int kMixesAt = C::waves * C::slots * kSlotBytes;                  // [2][kTokens][kMixes]
  static constexpr int kPartsAt = kMixesAt + (kSpreads ? 8 * kTokens * kMixes : 0);  // [waves][kTokens][kColumns]
  static constexpr int kTotalsAt = kPartsAt + 4 * C::waves * kTokens * kColumns;     // [2][kTokens][kColumns]
  static constexpr int kGatesAt = kTotalsAt + 8 * kTokens * kColumns;                // [kTokens][kN]
  static constexpr int kShareAt = kGatesAt + 4 * kTokens * kN;                       // [kShare][kColumns]
  static constexpr int kShareEnd = kShareAt + (C::head ? 0 : 4 * kShare * kColumns);
  static constexpr int kBarriersAt = (kShareEnd + 127) / 128 * 128;  // [waves][fn_slots], 8 bytes
  static constexpr int kFnAt = kBarriersAt + (8 * C::waves * C::fn_slots + 127) / 128 * 128;  // [waves][fn_slots]
  static constexpr int kFnBytes = kN * kPieceBytes;  // a block of 8 rows for one step
  static constexpr int kEnd = kFnAt + C::waves * C::fn_slots * kFnBytes;
  static_assert(C::threads == (C::waves + kHelpers) * kWave && C::slots >= C::steps && kTokens % C::cluster == 0 &&
                kN <= 4 && kN != 3 && C::block_lds == kEnd);
};

template <class C, bool kSpreads, class P>
struct ResidentBlock {
  using S = ResidentShape<C, kSpreads>;
  using T = typename C::dtype;
  static constexpr int kN = S::kN, kHalves = S::kHalves;
  using Piece = Packed<T, S::kVec>;

  const P& p;
  int wave, lane, rank;
  i64 fn_left;  // blocks of fn yet to be copied
  int fn_count, fn_next, fn_slot;
  u32 fn_phase;

  // First of this lane's elements in a step.
  KGEN_DEVICE i64 place(int step) const {
    return (i64(rank * C::waves + wave) * C::steps + step) * S::kStep + lane % 4 * S::kVec;
  }
  KGEN_DEVICE i64 token(i64 group, int half) const { return group * S::kTokens + half * 8 + lane / 4; }
  // Piece of vector `source` of a token: streams, then x.
  KGEN_DEVICE int piece_at(int slot, int half, int source) const {
    return (wave * C::slots + slot) * S::kSlotBytes + (half * S::kSources + source) * S::kPieceBytes + lane * 16;
  }

  static KGEN_DEVICE int ring(int slot) { return slot < C::slots ? slot : slot - C::slots; }

  template <int kBytes>
  static KGEN_DEVICE void copy(int to, const void* from, bool exists) {
    if constexpr (C::arch == Arch::host) {
      for (int i = 0; i < kBytes / 4; ++i) lds<u32>(to)[i] = exists ? static_cast<const u32*>(from)[i] : 0u;
    } else {
      async_copy<kBytes>(lds_address(lds_base()) + u32(to), from, exists ? kBytes : 0);
    }
  }
  static KGEN_DEVICE void commit() {
    if constexpr (C::arch != Arch::host) async_commit();
  }
  template <int kPending>
  static KGEN_DEVICE void wait() {
    if constexpr (C::arch != Arch::host) async_wait<kPending>();
  }

  // A step of a group on its way to a slot; what does not exist becomes zero.
  KGEN_DEVICE void fetch(i64 group, int step, int slot) const {
    const i64 h = place(step);
    KGEN_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      const bool exists = token(group, half) < p.t && h < p.h;
      const i64 from = exists ? token(group, half) : 0, at = exists ? h : 0;
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) copy<16>(piece_at(slot, half, s), p.residual + from * p.ldr + s * p.h + at, exists);
      if constexpr (kSpreads) copy<16>(piece_at(slot, half, kN), p.x + from * p.ldx + at, exists);
    }
    commit();
  }
  // post and comb of a group's tokens, by the first wave.
  KGEN_DEVICE void fetch_mixes(i64 group, int buffer) const {
    constexpr int kPieces = kN + 1;
    const int to = S::kMixesAt + buffer * 4 * S::kTokens * S::kMixes;
    for (int i = lane; i < S::kTokens * kPieces; i += S::kWave) {
      const int slot = i / kPieces, piece = i % kPieces;
      const bool exists = group * S::kTokens + slot < p.t;
      const i64 from = exists ? group * S::kTokens + slot : 0;
      copy<4 * kN>(to + 4 * kN * i, piece == 0 ? p.post_mix + from * kN : p.comb_mix + (from * kN + piece - 1) * kN,
                   exists);
    }
    commit();
  }

  // A wave's blocks of fn follow one another in memory, so they pass through a ring of `fn_slots` blocks in LDS, round
  // and round, by bulk copies; without slots they are read from the cache.
  KGEN_DEVICE const T* fn_from(int chunk) const {
    const i64 tile = i64(rank * C::waves + wave) * C::steps;
    return p.packed + (tile * S::kBlocks + chunk) * (S::kFnBytes / 2);
  }
  KGEN_DEVICE u32 fn_barrier(int slot) const {
    return lds_address(lds_base()) + u32(S::kBarriersAt + 8 * (wave * C::fn_slots + slot));
  }
  KGEN_DEVICE int fn_at(int slot) const { return S::kFnAt + (wave * C::fn_slots + slot) * S::kFnBytes; }
  // The next block of the ring into `slot`, by one lane.
  KGEN_DEVICE void fetch_fn(int slot) {
    if (lane == 0 && fn_left > 0) {
      barrier_expect(fn_barrier(slot), S::kFnBytes);
      bulk_copy(lds_address(lds_base()) + u32(fn_at(slot)), fn_from(fn_next), S::kFnBytes, fn_barrier(slot));
    }
    --fn_left;
    fn_next = fn_next + 1 < fn_count ? fn_next + 1 : 0;
  }
  // `groups`: how often all of this wave's blocks are needed.
  KGEN_DEVICE void start_fn(i64 groups) {
    const i64 tiles = (p.h + S::kStep - 1) / S::kStep - i64(rank * C::waves + wave) * C::steps;
    fn_count = int(tiles < 0 ? 0 : tiles < C::steps ? tiles : C::steps) * S::kBlocks;
    fn_left = groups * fn_count;
    fn_next = fn_slot = 0;
    fn_phase = 0;
    if constexpr (C::fn_slots > 0) {
      if (lane == 0) {
        for (int i = 0; i < C::fn_slots; ++i) barrier_make(fn_barrier(i), 1);
        barrier_fence();
      }
      sync_wave();
      for (int i = 0; i < C::fn_slots; ++i) fetch_fn(i);
    }
  }
  KGEN_DEVICE void load_fn(int step, int block, Piece (&b)[kN]) {
    if constexpr (C::fn_slots > 0) {
      barrier_wait(fn_barrier(fn_slot), fn_phase);
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) b[s] = Piece::load(lds<T>(fn_at(fn_slot) + s * S::kPieceBytes + lane * 16));
      sync_wave();
      fetch_fn(fn_slot);
      fn_phase ^= fn_slot + 1 == C::fn_slots;
      fn_slot = fn_slot + 1 < C::fn_slots ? fn_slot + 1 : 0;
    } else {
      const T* from = fn_from(step * S::kBlocks + block) + lane * S::kVec;
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) b[s] = Piece::load(from + s * (S::kPieceBytes / 2));
    }
  }

  // The streams of a step: made, stored, put back into their slot and multiplied.
  KGEN_DEVICE void project(i64 group, int step, int slot, const float* mixes, u32 (&total)[C::m_blocks][S::kBlocks][4],
                           float (&squares)[kHalves]) {
    const i64 h = place(step);
    if (h - lane % 4 * S::kVec >= p.h) return;  // a whole step beyond the end: fn has none either
    u32 a[C::m_blocks][kN][2][4];
    KGEN_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      Piece stream[kN], made[kN];
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) stream[s] = Piece::load(lds<T>(piece_at(slot, half, s)));
      if constexpr (kSpreads) {
        const Piece x = Piece::load(lds<T>(piece_at(slot, half, kN)));
        const float* mix =
            mixes + (half * 8 + lane / 4) * S::kMixes;  // read anew for each stream: registers are scarce
        const bool exists = token(group, half) < p.t && h < p.h;
        KGEN_UNROLL
        for (int s = 0; s < kN; ++s) {
          KGEN_UNROLL
          for (int w = 0; w < S::kVec / 2; ++w) {
            float value[2];
            KGEN_UNROLL
            for (int e = 0; e < 2; ++e) {
              float sources[kN];
              KGEN_UNROLL
              for (int i = 0; i < kN; ++i) sources[i] = stream[i][2 * w + e];
              value[e] = spread<kN>(mix, mix + kN, s, x[2 * w + e], sources);
            }
            made[s].words[w] = pair_bits<bf16>(value[0], value[1]);
          }
          made[s].store(lds<T>(piece_at(slot, half, s)));
          if (exists) made[s].store(p.residual_out + (token(group, half) * kN + s) * p.h + h);
        }
      } else {
        KGEN_UNROLL
        for (int s = 0; s < kN; ++s) made[s] = stream[s];
      }
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) {
        float sum = 0;  // of a vector first: a small square would vanish beside the sum
        KGEN_UNROLL
        for (int e = 0; e < S::kVec; ++e) sum = fma_f(made[s][e], made[s][e], sum);
        squares[half] += sum;
        KGEN_UNROLL
        for (int w = 0; w < 4; ++w) a[half / 2][s][w / 2][w % 2 * 2 + half % 2] = made[s].words[w];
      }
    }
    KGEN_UNROLL
    for (int block = 0; block < S::kBlocks; ++block) {
      Piece fn[kN];
      load_fn(step, block, fn);
      KGEN_UNROLL
      for (int m = 0; m < C::m_blocks; ++m) {
        u32 sum[2][4] = {};  // two chains
        KGEN_UNROLL
        for (int s = 0; s < kN; ++s) {
          KGEN_UNROLL
          for (int k = 0; k < 2; ++k)
            multiply_fragments<C>(sum[k], a[m][s][k], fn[s].words[2 * k], fn[s].words[2 * k + 1]);
        }
        KGEN_UNROLL
        for (int i = 0; i < 4; ++i)
          total[m][block][i] = bit_cast<u32>(bit_cast<float>(total[m][block][i]) +
                                             (bit_cast<float>(sum[0][i]) + bit_cast<float>(sum[1][i])));
      }
    }
  }

  // Until step `step` of a group is there: `slots` steps were committed before the first group, and one more for each
  // step that a group had done with.
  template <int kStep = 0>
  static KGEN_DEVICE void wait_for(int step) {
    if (kStep + 1 == C::steps || step == kStep)
      wait<C::slots - 1 - kStep>();
    else if constexpr (kStep + 1 < C::steps)
      wait_for<kStep + 1>(step);
  }

  // This wave's totals to LDS, [kTokens][kColumns], the terms of a row added.
  KGEN_DEVICE void store_parts(const u32 (&total)[C::m_blocks][S::kBlocks][4], float (&squares)[kHalves]) const {
    float* parts = lds<float>(S::kPartsAt) + wave * (S::kTokens * S::kColumns);
    KGEN_UNROLL
    for (int m = 0; m < C::m_blocks; ++m) {
      KGEN_UNROLL
      for (int block = 0; block < S::kRowBlocks; ++block) {
        KGEN_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int slot = m * 16 + i / 2 * 8 + lane / 4, row = block * 8 + lane % 4 * 2 + i % 2;
          float rest = bit_cast<float>(total[m][S::kRowBlocks + block][i]);
          if (block == 0) rest += bit_cast<float>(total[m][S::kBlocks - 1][i]);
          if (S::kRowBlocks * 8 == C::rows || row < C::rows)
            parts[slot * S::kColumns + 1 + row] = bit_cast<float>(total[m][block][i]) + rest;
        }
      }
    }
    KGEN_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      squares[half] += shuffle_xor(squares[half], 1);
      squares[half] += shuffle_xor(squares[half], 2);
      if (lane % 4 == 0) parts[(half * 8 + lane / 4) * S::kColumns] = squares[half];
    }
  }

  // Entry `index` of a group's totals, summed over the cluster's blocks.
  KGEN_DEVICE float cluster_total(int buffer, int index) const {
    const float* mine = lds<float>(S::kTotalsAt) + buffer * (S::kTokens * S::kColumns) + index;
    if constexpr (C::cluster == 1) {
      return *mine;
    } else {
      const u32 at = lds_address(mine);
      float value[C::cluster], total = 0;
      KGEN_UNROLL
      for (int r = 0; r < C::cluster; ++r) value[r] = load_cluster(cluster_address(at, r));
      KGEN_UNROLL
      for (int r = 0; r < C::cluster; ++r) total += value[r];
      return total;
    }
  }

  KGEN_DEVICE void collapse(i64 group, int step, int slot, const float (&gates)[kHalves][kN], T* out,
                            i64 out_stride) const {
    const i64 h = place(step);
    KGEN_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      Piece stream[kN], result;
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) stream[s] = Piece::load(lds<T>(piece_at(slot, half, s)));
      KGEN_UNROLL
      for (int w = 0; w < S::kVec / 2; ++w) {
        float value[2] = {};
        KGEN_UNROLL
        for (int e = 0; e < 2; ++e) {
          KGEN_UNROLL
          for (int s = 0; s < kN; ++s) value[e] = fma_f(gates[half][s], stream[s][2 * w + e], value[e]);
        }
        result.words[w] = pair_bits<bf16>(value[0], value[1]);
      }
      if (token(group, half) < p.t && h < p.h) result.store(out + token(group, half) * out_stride + h);
    }
  }
};

template <class C, bool kSpreads, class T, class P>
KGEN_DEVICE void resident(const P& p, float* post, float* comb, T* out, i64 out_stride) {
  using S = ResidentShape<C, kSpreads>;
  constexpr int kN = S::kN;
  const int thread = thread_x();
  ResidentBlock<C, kSpreads, P> block{p, uniform(thread / S::kWave) - S::kHelpers, thread % S::kWave, 0, 0, 0, 0, 0, 0};
  if constexpr (C::cluster > 1) block.rank = cluster_rank();
  const bool worker = block.wave >= 0;
  const i64 stride = grid_x() / C::cluster, groups = (p.t + S::kTokens - 1) / S::kTokens;
  const i64 first = block_x() / C::cluster;
  const float gate_scale = p.scale[0], gate_base = p.base[thread % kN];  // of the gates that this work-item makes

  if (worker) {
    KGEN_NO_UNROLL
    for (int i = 0; i < C::slots; ++i) block.fetch(first + i / C::steps * stride, i % C::steps, i);
    block.start_fn((groups - first + stride - 1) / stride);
  } else if constexpr (kSpreads) {
    block.fetch_mixes(first, 0);
    block.fetch_mixes(first + stride, 1);
    block.template wait<1>();
  }
  if constexpr (kSpreads) sync_block();

  int buffer = 0, slot0 = 0;  // of this group's first step
  KGEN_NO_UNROLL
  for (i64 group = first; group < groups; group += stride) {
    if (worker) {
      u32 total[C::m_blocks][S::kBlocks][4] = {};
      float squares[S::kHalves] = {};
      const float* mixes = lds<float>(S::kMixesAt) + buffer * (S::kTokens * S::kMixes);
      KGEN_NO_UNROLL
      for (int i = 0; i < C::steps; ++i) {
        block.wait_for(i);
        block.project(group, i, block.ring(slot0 + i), mixes, total, squares);
      }
      block.store_parts(total, squares);
    }
    sync_block();
    float* totals = lds<float>(S::kTotalsAt) + buffer * (S::kTokens * S::kColumns);
    for (int i = thread; i < S::kTokens * S::kColumns; i += C::threads) {
      const float* parts = lds<float>(S::kPartsAt) + i;
      float total = 0;
      KGEN_UNROLL
      for (int w = 0; w < C::waves; ++w) total += parts[w * (S::kTokens * S::kColumns)];
      totals[i] = total;
    }
    if constexpr (C::cluster > 1)
      cluster_sync();
    else
      sync_block();
    float* gates = lds<float>(S::kGatesAt);
    float* share = lds<float>(S::kShareAt);
    static_assert(C::threads % kN == 0);
    for (int i = thread; i < S::kTokens * kN; i += C::threads) {
      const int at = i / kN * S::kColumns;
      const float all_squares = block.cluster_total(buffer, at), mix = block.cluster_total(buffer, at + 1 + i % kN);
      gates[i] = sigmoid(fma_f(mix * inverse_rms<C>(p, &all_squares), gate_scale, gate_base)) + p.pre_eps;
    }
    if (!worker) {
      if constexpr (!C::head) {
        for (int i = block.lane; i < S::kShare * S::kColumns; i += S::kWave)
          share[i] = block.cluster_total(buffer, block.rank * (S::kShare * S::kColumns) + i);
      }
      if constexpr (kSpreads) block.template wait<0>();  // the next group's mixes
    }
    sync_block();
    if (worker) {
      float gate[S::kHalves][kN];
      KGEN_UNROLL
      for (int half = 0; half < S::kHalves; ++half) load_floats(gates + (half * 8 + block.lane / 4) * kN, gate[half]);
      KGEN_NO_UNROLL
      for (int i = 0; i < C::steps; ++i) {
        const int slot = block.ring(slot0 + i), next = i + C::slots;
        block.collapse(group, i, slot, gate, out, out_stride);
        block.fetch(group + next / C::steps * stride, next % C::steps, slot);
      }
    } else {
      if constexpr (kSpreads) block.fetch_mixes(group + 2 * stride, buffer);
      if constexpr (!C::head)
        write_mixes<FirstWave<C>, S::kShare>(p, share, group * S::kTokens + block.rank * S::kShare, post, comb);
    }
    buffer ^= 1;
    slot0 = block.ring(slot0 + C::steps);
  }
  if constexpr (C::cluster > 1) cluster_sync();  // others may still read this block's totals
}

// fn in the order of the fragments: [step of h][block of rows][stream][8 rows][32 elements].
template <class C, class P>
KGEN_DEVICE void pack_fragments(const P& p) {
  constexpr int kN = int(C::n), kStep = 32, kRowBlocks = (C::rows + 7) / 8, kBlocks = 2 * kRowBlocks + 1;
  constexpr int kTile = kBlocks * kN * 8 * kStep;
  const i64 count = (p.h + kStep - 1) / kStep * kTile, at = i64(block_x()) * block_size() + thread_x();
  if (at >= count) return;
  const i64 tile = at / kTile;
  const int rest = int(at - tile * kTile), block = rest / (kN * 8 * kStep), stream = rest / (8 * kStep) % kN;
  const i64 h = tile * kStep + rest % kStep;
  const int term = block / kRowBlocks, row = block % kRowBlocks * 8 + rest / kStep % 8;
  float value = 0;
  if (h < p.h && row < (term == 2 ? kN : C::rows)) value = p.fn[(i64(row) * kN + stream) * p.h + h];
  p.packed[at] = split_term(value, term);
}

}  // namespace mhc

template <class C, class P>
KGEN_DEVICE void mhc_pack_fragments(const P& p) {
  mhc::pack_fragments<C>(p);
}
template <class C, class P>
KGEN_DEVICE void mhc_pre_resident(const P& p) {
  mhc::resident<C, false>(p, p.post_mix, p.comb_mix, p.layer_input, p.ldl);
}
template <class C, class P>
KGEN_DEVICE void mhc_fused_resident(const P& p) {
  mhc::resident<C, true>(p, p.post_mix_out, p.comb_mix_out, p.layer_input, p.ldl);
}
template <class C, class P>
KGEN_DEVICE void hc_head_resident(const P& p) {
  mhc::resident<C, false>(p, static_cast<float*>(nullptr), static_cast<float*>(nullptr), p.collapsed, p.ldc);
}

}  // namespace kgen
