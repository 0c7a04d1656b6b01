// gptq_gemm for few rows of X: streams the packed weight once, sums in fp32.
//
//   block: waves_k waves, lanes_n lanes side by side along N, 4 columns a lane; the other lanes and waves are `slots`
//   that deal out the steps of step_k terms. A step is step_k*bits/32 loads of 16 bytes a lane and lies in one group,
//   so scales and zeros are read, and applied, once a step.
//
//        n →   lane 0    lane 1  …  lanes_n-1
//   k  slot 0  ████      ████       ████        ┐
//   ↓  slot 1  ████      ████       ████        │ steps of step_k terms; `depth` steps of each slot are in flight
//      …                                        ┘
//   grid x: columns, y: parts of K (split_k), added by gptq_reduce in order
//
// Slots of a wave are added by shuffles, waves through LDS, parts by the second kernel: the same bits on every run.
// per_row (act-order): scale and zero are looked up for every term.
//
// Legal: m <= rows_m; `vec` divides the row strides of qweight and scales; groups are whole steps unless per_row. k
// need be no multiple of step_k: one slot takes the last step with what is missing masked.
#pragma once
#include "gemm_skinny.h"
#include "gptq_format.h"

namespace kgen {
namespace gptq {

template <class C>
struct DecodeShape {
  using F = Packing<C>;
  static constexpr int kLaneColumns = 4, kLanesN = C::lanes_n, kColumns = kLaneColumns * kLanesN;
  static constexpr int kThreads = C::waves_k * kWaveSize, kSlots = kThreads / kLanesN;
  static constexpr int kUnits = C::step_k / F::kUnitK, kVectors = kUnits * F::kWords;
  static constexpr int kPiece = F::kUnitK < 8 ? F::kUnitK : 8;  // terms that are added together, and one read of X
  static constexpr int kValues = kLaneColumns * C::rows_m;      // sums of a lane: [column][row of X]
};

template <class C>
struct DecodeStream {
  using T = typename C::dtype;
  using S = DecodeShape<C>;
  using F = Packing<C>;
  static constexpr int kC = S::kLaneColumns;
  static constexpr bool kAhead = C::rows_m * C::step_k <= 64;  // X is read with the weight, `depth` steps ahead
  using Terms = Packed<T, F::kUnitK>;
  struct Step {
    u32 words[S::kVectors][kC];
    Group<C, kC> group;
    Terms x[kAhead ? S::kUnits : 1][C::rows_m];
  };

  const i32* weight;  // of this lane's first column
  i64 column;
  const T* row[C::rows_m];

  template <class P>
  KGEN_DEVICE DecodeStream(const P& p, i64 at) : weight(p.qweight + at), column(at) {
    KGEN_UNROLL
    for (int m = 0; m < C::rows_m; ++m) row[m] = p.x + (m < p.m ? m : p.m - 1) * p.ldx;
  }

  template <bool kEdge, class P>
  KGEN_DEVICE Terms terms(const P& p, int m, int k) const {
    Terms x = {};
    constexpr int kVec = C::vec_x < F::kUnitK ? C::vec_x : F::kUnitK;
    if (kEdge && k >= p.k) return x;
    KGEN_UNROLL
    for (int i = 0; i < F::kUnitK; i += kVec) {
      const Packed<T, kVec> part = Packed<T, kVec>::load(row[m] + k + i);
      if constexpr (kVec == 1)
        x.set_bits(i, part.words[0]);
      else
        for (int w = 0; w < kVec / 2; ++w) x.words[i / 2 + w] = part.words[w];
    }
    return x;
  }

  template <bool kEdge, class P>
  KGEN_DEVICE void load(const P& p, Step& step, int k) const {
    const i32* from = weight + i64(k / F::kUnitK) * F::kWords * p.ldw;
    KGEN_UNROLL
    for (int v = 0; v < S::kVectors; ++v, from += p.ldw) {
      const bool exists = !kEdge || k + v / F::kWords * F::kUnitK < p.k;
      KGEN_UNROLL
      for (int c = 0; c < kC; c += C::vec) {
        Vec<i32, C::vec> part = {};
        if (exists) part = load_vec<i32, C::vec>(from + c);
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) step.words[v][c + e] = u32(part[e]);
      }
    }
    if constexpr (!C::per_row) load_group(p, step.group, group_in_order<C>(k));
    if constexpr (kAhead) {
      KGEN_UNROLL
      for (int u = 0; u < S::kUnits; ++u) {
        KGEN_UNROLL
        for (int m = 0; m < C::rows_m; ++m) step.x[u][m] = terms<kEdge>(p, m, k + u * F::kUnitK);
      }
    }
  }

  template <class P>
  KGEN_DEVICE void load_group(const P& p, Group<C, kC>& group, int index) const {
    if constexpr (C::vec == kC) {
      group.load(p, index, column);
    } else {
      const T* scales = p.scales + index * p.ldg + column;
      KGEN_UNROLL
      for (int c = 0; c < kC; ++c) group.scales.set_bits(c, bit_cast<u16>(scales[c]));
      group.zeros.load(p.qzeros + index * p.ldz, column);
    }
  }

  template <bool kEdge, class P>
  KGEN_DEVICE void add(const P& p, const Step& step, int k, float (&sum)[S::kValues]) const {
    float part[S::kValues] = {};  // of the step, before the scale
    u32 zero[kC];
    KGEN_UNROLL
    for (int c = 0; c < kC; ++c) zero[c] = C::per_row ? 0u : zero_operand<C>(step.group.zeros.zero(column, c));
    KGEN_UNROLL
    for (int u = 0; u < S::kUnits; ++u) {
      Terms x[C::rows_m];
      KGEN_UNROLL
      for (int m = 0; m < C::rows_m; ++m) {
        if constexpr (kAhead)
          x[m] = step.x[u][m];
        else
          x[m] = terms<kEdge>(p, m, k + u * F::kUnitK);
      }
      KGEN_UNROLL
      for (int first = 0; first < F::kPairs; first += S::kPiece / 2) {
        float w[kC][S::kPiece];
        KGEN_UNROLL
        for (int c = 0; c < kC; ++c) {
          u32 words[F::kWords];
          KGEN_UNROLL
          for (int i = 0; i < F::kWords; ++i) words[i] = step.words[u * F::kWords + i][c];
          KGEN_UNROLL
          for (int i = 0; i < S::kPiece / 2; ++i)
            differences<C>(F::pair(words, first + i), zero[c], w[c][2 * i], w[c][2 * i + 1]);
        }
        if constexpr (C::per_row) weigh<kEdge>(p, k + u * F::kUnitK, first, w);
        KGEN_UNROLL
        for (int m = 0; m < C::rows_m; ++m) {
          KGEN_UNROLL
          for (int i = 0; i < S::kPiece; ++i) {
            const float value = x[m][i % 2 ? F::high(first + i / 2) : F::low(first + i / 2)];
            KGEN_UNROLL
            for (int c = 0; c < kC; ++c) {
              float& s = part[c * C::rows_m + m];
              s = fma_f(w[c][i], value, s);
            }
          }
        }
      }
    }
    KGEN_UNROLL
    for (int c = 0; c < kC; ++c) {
      const float scale = C::per_row ? 1.0f : step.group.scales[c];
      KGEN_UNROLL
      for (int m = 0; m < C::rows_m; ++m) {
        float& s = sum[c * C::rows_m + m];
        s = fma_f(part[c * C::rows_m + m], scale, s);
      }
    }
  }

  // Values to weights, each by the group of its row. `w` holds the values as differences to 0.
  template <bool kEdge, class P>
  KGEN_DEVICE void weigh(const P& p, int k, int first, float (&w)[kC][S::kPiece]) const {
    KGEN_UNROLL
    for (int i = 0; i < S::kPiece; ++i) {
      const int at = k + (i % 2 ? F::high(first + i / 2) : F::low(first + i / 2));
      Group<C, kC> group = {};
      if (!kEdge || at < p.k) load_group(p, group, group_of_row<C>(p, at));
      KGEN_UNROLL
      for (int c = 0; c < kC; ++c)
        w[c][i] = (w[c][i] - float(group.zeros.zero(column, c)) + kUnbiased) * group.scales[c];
    }
  }
  // differences() with a zero operand of 0 leaves the 1024 of its halves in.
  static constexpr float kUnbiased = F::kHalves ? -1024.0f : 0.0f;
};

}  // namespace gptq

template <class C, class P>
KGEN_DEVICE void gptq_decode(const P& p) {
  using S = gptq::DecodeShape<C>;
  using Stream = gptq::DecodeStream<C>;
  const int lane = lane_id(), wave = uniform(thread_x() / kWaveSize);
  const int slot = wave * (kWaveSize / S::kLanesN) + lane / S::kLanesN;
  const int local = lane % S::kLanesN * S::kLaneColumns;  // this lane's first column of the block's
  const i64 block_column = i64(block_x()) * S::kColumns, column = block_column + local;

  const int all = int((p.k + C::step_k - 1) / C::step_k), whole = int(p.k / C::step_k);
  const int share = (all + C::split_k - 1) / C::split_k;
  const int begin = block_y() * share, end = begin + share < whole ? begin + share : whole;

  const Stream stream(p, column < p.n ? column : p.n - S::kLaneColumns);
  float sum[S::kValues] = {};
  typename Stream::Step steps[C::depth];
  KGEN_UNROLL
  for (int d = 0; d < C::depth; ++d) {
    const int step = begin + slot + d * S::kSlots;
    if (step < end) stream.template load<false>(p, steps[d], step * C::step_k);
  }
  KGEN_NO_UNROLL
  for (int first = begin + slot; first < end; first += C::depth * S::kSlots) {
    KGEN_UNROLL
    for (int d = 0; d < C::depth; ++d) {
      const int step = first + d * S::kSlots, next = step + C::depth * S::kSlots;
      if (step < end) stream.template add<false>(p, steps[d], step * C::step_k, sum);
      if (next < end) stream.template load<false>(p, steps[d], next * C::step_k);
    }
  }
  if (whole < all && whole >= begin && whole < begin + share && (whole - begin) % S::kSlots == slot) {
    stream.template load<true>(p, steps[0], whole * C::step_k);
    stream.template add<true>(p, steps[0], whole * C::step_k, sum);
  }
  using G = gptq::GemmConfig<C>;
  skinny::finish<G, S::kLanesN, S::kLaneColumns, S::kColumns, S::kThreads>(gptq::GemmView<C, P>(p), 0, wave, local,
                                                                           block_column, sum);
}

}  // namespace kgen
