// The projection of mhc.h on mma.sync with streams that never lie in LDS as a tile: a work-item makes (mhc_post) or
// reads the elements that its fragments hold, for the order of K is free as long as fn is packed in the same.
//
//   block  waves_m groups of 16 tokens x waves_k shares of K, part of h     one step of a wave: 32 elements of h
//   ┌──────────────┬──────────────┐                                           lane:  tokens lane/4 and lane/4 + 8
//   │ wave         │ wave         │ 16 tokens                                        elements 8*(lane%4) … + 7 of
//   ├──────────────┼──────────────┤                                                  each stream: two K steps of it
//   │ h … h + 31   │ h + 32 …     │                                           fn:    32 elements of all terms, one
//   └──────────────┴──────────────┘                                                  LDS copy for the waves of a column
//
// A stage of LDS holds a step of every wave: fn's terms, which all waves of a column read, and the streams and x as
// they are in memory, which the work-item that copied them reads alone. Both come by cp.async, stages - 1 steps ahead.
//
// Terms of fn, restarted sums and squares: as in mhc_tiles.h. Legality: h and the strides of tokens are multiples of 8.
#pragma once
#include "mhc.h"
#include "mma/mma_sync.h"
#include "tile.h"

namespace kgen {
namespace mhc {

template <class C>
struct Fragments {
  static constexpr bool kSpreads = C::spreads;
  static constexpr int kN = int(C::n), kMixes = kN + kN * kN, kMixPitch = (kMixes + 3) / 4 * 4;
  static constexpr int kStep = 32, kTokens = 16;  // of a wave: elements of h, tokens
  static constexpr int kTileM = kTokens * C::waves_m, kTileH = kStep * C::waves_k;
  static constexpr int kWaves = C::waves_m * C::waves_k, kThreads = kWaves * 32;
  static constexpr int kBlocks = C::tile_n / 8;  // of 8 terms
  static constexpr int kSources = kN + (kSpreads ? 1 : 0);
  static constexpr int kFnBytes = kBlocks * kN * 512, kStreamBytes = 2 * kSources * 512;  // of a step
  static constexpr int kStageBytes = C::waves_k * kFnBytes + kWaves * kStreamBytes;
  static constexpr int kPitch = C::tile_n + 4;  // of the sums in LDS
  static_assert(kThreads == C::threads && kStageBytes == C::stage_bytes);
};

// Element e of two bf16 in a word.
KGEN_DEVICE float element(u32 word, int e) { return bit_cast<float>(e ? word & 0xffff0000u : word << 16); }

// 8 elements of each stream of a token, and of x where mhc_post makes the streams anew: as fragments a[stream][K step],
// of which they are rows lane/4 + 8*half. Returns the sum of their squares.
template <class C, class T, int kSources>
KGEN_DEVICE float make_fragments(const Vec<u32, 4> (&from)[kSources], const float* lds_mix, int half,
                                 u32 (&a)[int(C::n)][2][4]) {
  constexpr int kN = int(C::n);
  constexpr bool kSpreads = C::spreads;
  float mix[(kN + kN * kN + 3) / 4 * 4];
  if constexpr (kSpreads) load_floats(lds_mix, mix);
  float squares = 0;
  KGEN_UNROLL
  for (int w = 0; w < 4; ++w) {
    float low[kSources], high[kSources];
    KGEN_UNROLL
    for (int s = 0; s < kSources; ++s) {
      low[s] = element(from[s][w], 0);
      high[s] = element(from[s][w], 1);
    }
    KGEN_UNROLL
    for (int j = 0; j < kN; ++j) {
      u32 pair = from[j][w];
      if constexpr (kSpreads) {
        float low_sum = mix[j] * low[kN], high_sum = mix[j] * high[kN];
        KGEN_UNROLL
        for (int i = 0; i < kN; ++i) {
          low_sum = fma_f(mix[kN + i * kN + j], low[i], low_sum);
          high_sum = fma_f(mix[kN + i * kN + j], high[i], high_sum);
        }
        pair = rounded_pair<T>(low_sum, high_sum);
      }
      a[j][w / 2][w % 2 * 2 + half] = pair;
      squares = fma_f(element(pair, 0), element(pair, 0), squares);
      squares = fma_f(element(pair, 1), element(pair, 1), squares);
    }
  }
  return squares;
}
// Such streams to `at` elements from `to`, where the token's first has them in memory.
template <class C, class T>
KGEN_DEVICE void store_fragments(T* to, u32 at, u32 stride, int half, const u32 (&a)[int(C::n)][2][4]) {
  KGEN_UNROLL
  for (int j = 0; j < int(C::n); ++j) {
    Vec<u32, 4> words;
    KGEN_UNROLL
    for (int w = 0; w < 4; ++w) words[w] = a[j][w / 2][w % 2 * 2 + half];
    store_vec<u32, 4>(reinterpret_cast<u32*>(to + (at + u32(j) * stride)), words);
  }
}

// fn as the fragments take it: [step of h][block of 8 terms][stream][lane][8 elements].
template <class C, class P>
KGEN_DEVICE void pack_fragments(const P& p) {
  constexpr int kN = int(C::n), kStep = 32, kStepElements = C::tile_n * kN * kStep;
  const i64 steps = (p.h + kStep * C::fn_steps - 1) / (kStep * C::fn_steps) * C::fn_steps;
  const i64 at = i64(block_x()) * block_size() + thread_x();
  if (at >= steps * kStepElements) return;
  const i64 step = at / kStepElements;
  const int rest = int(at - step * kStepElements), lane = rest / 8 % 32, stream = rest / 256 % kN;
  const int term = rest / (256 * kN) * 8 + lane / 4;
  const i64 h = step * kStep + lane % 4 * 8 + rest % 8;
  float value = 0;
  if (h < p.h && term < 2 * C::rows + kN) value = p.fn[(i64(term % C::rows) * kN + stream) * p.h + h];
  p.packed[at] = split_term(value, term < C::rows ? 0 : term < 2 * C::rows ? 1 : 2);
}

template <class C, class P>
struct FragmentWave {
  using S = Fragments<C>;
  using T = typename C::dtype;
  using Instructions = MmaSyncInstructions<C::arch>;
  static constexpr int kN = S::kN;
  static constexpr bool kSpreads = S::kSpreads;

  const P& p;
  const int wave, lane, wave_k;
  const int token_slot;  // of the first of the lane's two tokens
  const T *source, *x;   // the block's tokens
  T* out;
  int last;  // token of the block
  // Elements from the block's tokens to the lane's of the next step to fetch, and of the present one; carried along,
  // for a compiler keeps the parts of an address that do not change in registers of their own.
  u32 source_at[2], x_at[2], out_at[2];
  int fetch_h, h;
  float total[S::kBlocks][4];
  float squares[2];

  KGEN_DEVICE FragmentWave(const P& params, i64 token0, i64 first_h)
      : p(params),
        wave(uniform(thread_x() / 32)),
        lane(thread_x() % 32),
        wave_k(wave % C::waves_k),
        token_slot(wave / C::waves_k * S::kTokens + lane / 4),
        source(params.residual + token0 * params.ldr),
        h(int(first_h) + wave_k * S::kStep + lane % 4 * 8),
        total{},
        squares{} {
    last = p.t - token0 < S::kTileM ? int(p.t - token0) - 1 : S::kTileM - 1;
    if constexpr (kSpreads) {
      x = p.x + token0 * p.ldx;
      out = p.residual_out + token0 * (kN * p.h);
    }
    fetch_h = h;
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const u32 slot = u32(min_int(token_slot + 8 * half, last));
      source_at[half] = slot * u32(p.ldr) + u32(h);
      x_at[half] = slot * u32(p.ldx) + u32(h);
      out_at[half] = slot * u32(kN * p.h) + u32(h);
    }
  }

  // Where this lane's piece of a source lies in a stage.
  KGEN_DEVICE int stream_at(int half, int s) const {
    return C::waves_k * S::kFnBytes + wave * S::kStreamBytes + (half * S::kSources + s) * 512 + lane * 16;
  }
  // Asks for the streams of the next step: to `stage`, a byte of LDS.
  KGEN_DEVICE void fetch(int stage) {
    const u32 to = lds_address(lds_base()) + u32(stage), stride = u32(p.h);
    const bool valid = C::whole || u32(fetch_h) < stride;
    fetch_h += S::kTileH;
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const u32 at = valid ? source_at[half] : 0;
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s)
        async_copy<16>(to + u32(stream_at(half, s)), source + (at + u32(s) * stride), valid ? 16 : 0);
      source_at[half] += S::kTileH;
      if constexpr (kSpreads) {
        async_copy<16>(to + u32(stream_at(half, kN)), x + (valid ? x_at[half] : 0), valid ? 16 : 0);
        x_at[half] += S::kTileH;
      }
    }
  }

  // The streams of a step as fragments: a[stream][K step].
  KGEN_DEVICE void make(int stage, const float* mixes, u32 (&a)[kN][2][4]) {
    const u32 stride = u32(p.h);
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      sync_wave();  // else the loads of both halves come first, and their registers are too many
      Vec<u32, 4> from[S::kSources];
      KGEN_UNROLL
      for (int s = 0; s < S::kSources; ++s) from[s] = load_vec<u32, 4>(lds<u32>(stage + stream_at(half, s)));
      squares[half] += make_fragments<C, T>(from, mixes + (token_slot + 8 * half) * S::kMixPitch, half, a);
      if constexpr (kSpreads) {
        if (token_slot + 8 * half <= last && (C::whole || u32(h) < stride))
          store_fragments<C>(out, out_at[half], stride, half, a);
      }
    }
  }

  KGEN_DEVICE void advance() {
    h += S::kTileH;
    out_at[0] += S::kTileH;
    out_at[1] += S::kTileH;
  }

  KGEN_DEVICE void multiply(int stage, const u32 (&a)[kN][2][4]) {
    constexpr int kGroup = 4;  // chains of products at once
    const int fn = stage + wave_k * S::kFnBytes + lane * 16;
    KGEN_UNROLL
    for (int first = 0; first < S::kBlocks; first += kGroup) {
      u32 acc[kGroup][4] = {};
      KGEN_UNROLL
      for (int s = 0; s < kN; ++s) {
        KGEN_UNROLL
        for (int j = 0; j < kGroup && first + j < S::kBlocks; ++j) {
          const Vec<u32, 4> b = load_vec<u32, 4>(lds<u32>(fn + ((first + j) * kN + s) * 512));
          Instructions::template multiply<bf16>(acc[j], a[s][0], b[0], b[1]);
          Instructions::template multiply<bf16>(acc[j], a[s][1], b[2], b[3]);
        }
      }
      KGEN_UNROLL
      for (int j = 0; j < kGroup && first + j < S::kBlocks; ++j) {
        KGEN_UNROLL
        for (int e = 0; e < 4; ++e) total[first + j][e] += bit_cast<float>(acc[j][e]);
      }
    }
  }

  // Sums [waves_k][tile_m][kPitch] and squares [waves_k][tile_m] into LDS.
  KGEN_DEVICE void keep(float* sums, float* lds_squares) {
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = wave_k * S::kTileM + token_slot + 8 * half;
      KGEN_UNROLL
      for (int j = 0; j < S::kBlocks; ++j) {
        Vec<float, 2> pair;
        pair[0] = total[j][2 * half];
        pair[1] = total[j][2 * half + 1];
        store_vec<float, 2>(sums + row * S::kPitch + j * 8 + lane % 4 * 2, pair);
      }
      float sum = squares[half];
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      if (lane % 4 == 0) lds_squares[row] = sum;
    }
  }
};

template <class C, class P>
KGEN_DEVICE void project_fragments(const P& p) {
  using S = Fragments<C>;
  const int thread = thread_x(), part = block_x() % C::parts;
  const i64 token0 = i64(block_x() / C::parts) * S::kTileM;
  const int tiles = int((p.h + S::kTileH - 1) / S::kTileH), share = (tiles + C::parts - 1) / C::parts;
  const int first = min_int(part * share, tiles), count = min_int(share, tiles - first);
  FragmentWave<C, P> wave(p, token0, i64(first) * S::kTileH);

  constexpr int kPieces = C::waves_k * S::kFnBytes / 16;
  const bf16* fn = p.packed + i64(first) * (kPieces * 8) + thread * 8;
  int left = count, read_stage = 0, write_stage = 0;
  // The tile `ahead` after the present one.
  const auto fetch = [&](int ahead) {
    if (ahead < left) {
      wave.fetch(write_stage);
      const u32 to = lds_address(lds_base()) + u32(write_stage + thread * 16);
      KGEN_UNROLL
      for (int i = 0; i < kPieces; i += S::kThreads)
        if (i + S::kThreads <= kPieces || i + thread < kPieces) async_copy<16>(to + u32(i) * 16, fn + i * 8);
      fn += kPieces * 8;
      write_stage = write_stage == (C::stages - 1) * S::kStageBytes ? 0 : write_stage + S::kStageBytes;
    }
    async_commit();
  };
  KGEN_UNROLL
  for (int tile = 0; tile < C::stages - 1; ++tile) fetch(tile);
  float* mixes = lds<float>(C::mixes_at);
  if constexpr (C::stages == 1) fetch(0);
  if constexpr (S::kSpreads) {
    for (int i = thread; i < S::kTileM * S::kMixes; i += S::kThreads) {
      const int slot = i / S::kMixes, mix = i % S::kMixes;
      const i64 token = token0 + slot < p.t ? token0 + slot : p.t - 1;
      mixes[slot * S::kMixPitch + mix] =
          mix < S::kN ? p.post_mix[token * S::kN + mix] : p.comb_mix[token * S::kN * S::kN + mix - S::kN];
    }
  }
  KGEN_NO_UNROLL
  for (; left > 0; --left) {
    if constexpr (C::stages == 1) {
      if (left < count) {
        sync_lds();
        fetch(0);
      }
    }
    async_wait<(C::stages > 2 ? C::stages - 2 : 0)>();
    sync_lds();  // the tile has come for all, and all have done with the one before
    if constexpr (C::stages > 1) fetch(C::stages - 1);
    u32 a[S::kN][2][4];
    wave.make(read_stage, mixes, a);
    wave.multiply(read_stage, a);
    wave.advance();
    read_stage = read_stage == (C::stages - 1) * S::kStageBytes ? 0 : read_stage + S::kStageBytes;
  }
  sync_lds();

  float* sums = lds<float>(0);
  float* squares = sums + C::waves_k * S::kTileM * S::kPitch;
  wave.keep(sums, squares);
  sync_lds();
  for (int i = thread; i < S::kTileM * (C::rows + 1); i += S::kThreads) {
    const int slot = i / (C::rows + 1), column = i % (C::rows + 1);
    if (token0 + slot >= p.t) continue;
    float total = 0;
    KGEN_UNROLL
    for (int k = 0; k < C::waves_k; ++k) {
      const int row = k * S::kTileM + slot;
      if (column == 0) {
        total += squares[row];
      } else {
        const float* terms = sums + row * S::kPitch + column - 1;
        float rest = terms[C::rows];
        if (column <= S::kN) rest += terms[2 * C::rows];
        total += terms[0] + rest;
      }
    }
    p.partial[(part * p.t + token0 + slot) * (C::rows + 1) + column] = total;
  }
}

// The second kernel has blocks of another size.
template <class C>
struct FragmentsFinish : C {
  static constexpr int threads = C::finish_threads;
};

}  // namespace mhc

template <class C, class P>
KGEN_DEVICE void mhc_pack_fragments(const P& p) {
  mhc::pack_fragments<C>(p);
}
template <class C, class P>
KGEN_DEVICE void mhc_project_fragments(const P& p) {
  mhc::project_fragments<C>(p);
}
template <class C, class P>
KGEN_DEVICE void mhc_post_project_fragments(const P& p) {
  mhc::project_fragments<C>(p);
}

template <class C, class P>
KGEN_DEVICE void mhc_fused_fragments_finish(const P& p) {
  mhc_fused_finish<mhc::FragmentsFinish<C>>(p);
}

}  // namespace kgen
