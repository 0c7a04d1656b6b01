// Reductions over lanes and blocks, in an order that does not depend on the run: the same bits each time.
//
//   wave:   v0 v1 v2 v3 …   butterfly of shuffle_xor: every lane ends with the result of its group
//   block:  wave results → LDS (one T a wave) → every work-item combines them in the order of the waves
//
// An operation is a callable T(T lower, T upper); all work-items of the block take part, those without data with the
// operation's neutral value. T is a float or a struct of 4-byte members. The result is in every work-item.
#pragma once
#include "prelude.h"

namespace kgen {

struct Add {
  KGEN_DEVICE float operator()(float a, float b) const { return a + b; }
};
// A NaN wins.
struct Maximum {
  KGEN_DEVICE float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

KGEN_DEVICE float negative_infinity() { return bit_cast<float>(0xff800000u); }

// Softmax of a part: its maximum, and the sum of exp(x - maximum). Neutral: {-inf, 0}.
struct MaxSum {
  float max, sum;
};
// What is subtracted before exp: a part without a finite element has the maximum -inf, and -inf - -inf would be NaN.
KGEN_DEVICE float softmax_shift(float max) { return max == negative_infinity() ? 0.0f : max; }
struct MergeMaxSum {
  KGEN_DEVICE MaxSum operator()(MaxSum a, MaxSum b) const {
    const float max = Maximum()(a.max, b.max), shift = softmax_shift(max);
    return {max, a.sum * exp_f(a.max - shift) + b.sum * exp_f(b.max - shift)};
  }
};

// Any struct of 4-byte members from lane ^ mask.
template <class T>
KGEN_DEVICE T shuffle_xor_words(T value, int mask) {
  static_assert(sizeof(T) % 4 == 0);
  struct Words {
    u32 word[sizeof(T) / 4];
  };
  Words words = bit_cast<Words>(value);
  KGEN_UNROLL
  for (int i = 0; i < int(sizeof(T) / 4); ++i) words.word[i] = shuffle_xor(words.word[i], mask);
  return bit_cast<T>(words);
}

// Over groups of kLanes consecutive lanes (a power of two, at most a wave).
template <int kLanes, class T, class Op>
KGEN_DEVICE T reduce_wave(T value, Op op) {
  static_assert((kLanes & (kLanes - 1)) == 0 && kLanes <= kWaveSize);
  KGEN_UNROLL
  for (int mask = kLanes / 2; mask > 0; mask /= 2) {
    const T other = shuffle_xor_words(value, mask);
    if constexpr (kSame<Op, Add>)
      value = op(value, other);
    else  // the same order in both lanes: a compiler that fuses a*b + c*d into one of two ways gives both the same bits
      value = lane_id() & mask ? op(other, value) : op(value, other);
  }
  return value;
}

// Sums v[0 .. kCount-1] (a power of two) over the lanes that differ in the bits kMask … kLow of their number. Each step
// gives half of the values away, so the sums end up spread over the lanes: this lane's are v[0 …], from index `first`
// on (0 at the start). Where there are fewer values than lanes, `writer` (true at the start) is left true in one lane
// of each value.
template <int kCount, int kMask, int kLow>
KGEN_DEVICE void reduce_lanes(float* v, int lane, int& first, bool& writer) {
  if constexpr (kMask >= kLow) {
    const bool upper = (lane & kMask) != 0;
    if constexpr (kCount > 1) {
      constexpr int kHalf = kCount / 2;
      KGEN_UNROLL
      for (int i = 0; i < kHalf; ++i) {
        const float low = v[i], high = v[i + kHalf];
        v[i] = (upper ? high : low) + shuffle_xor(upper ? low : high, kMask);
      }
      if (upper) first += kHalf;
      reduce_lanes<kHalf, kMask / 2, kLow>(v, lane, first, writer);
    } else {
      v[0] += shuffle_xor(v[0], kMask);
      if (upper) writer = false;
      reduce_lanes<1, kMask / 2, kLow>(v, lane, first, writer);
    }
  }
}

// Sums of a wave of kLanes lanes to LDS: `to` [kCount], a power of two. A barrier comes before anyone reads them.
template <int kCount, int kLanes>
KGEN_DEVICE void keep_wave_sums(float (&sum)[kCount], int lane, float* to) {
  int first = 0;
  bool writer = true;
  reduce_lanes<kCount, kLanes / 2, 1>(sum, lane, first, writer);
  if (writer) {
    KGEN_UNROLL
    for (int i = 0; i < (kCount > kLanes ? kCount / kLanes : 1); ++i) to[first + i] = sum[i];
  }
}

// Bytes of LDS that reduce_block() wants for a block of kBlock work-items.
template <class T, int kBlock>
inline constexpr int kReduceLds = kBlock <= kWaveSize && (kBlock & (kBlock - 1)) == 0
                                      ? 0
                                      : (kBlock % kWaveSize == 0 ? kBlock / kWaveSize : kBlock) * int(sizeof(T));

// Over all work-items of a block of any size. `scratch`: kReduceLds<T, kBlock> bytes of LDS that no work-item has used
// since the last barrier; give a second reduction other bytes or a barrier before it.
template <int kBlock, class T, class Op>
KGEN_DEVICE T reduce_block(T value, T* scratch, Op op) {
  if constexpr (kBlock <= kWaveSize && (kBlock & (kBlock - 1)) == 0) {
    return reduce_wave<kBlock>(value, op);
  } else {
    constexpr bool kWaves = kBlock % kWaveSize == 0;
    constexpr int kParts = kWaves ? kBlock / kWaveSize : kBlock;
    if constexpr (kWaves) {
      value = reduce_wave<kWaveSize>(value, op);
      if (lane_id() == 0) scratch[thread_x() / kWaveSize] = value;
    } else {
      scratch[thread_x()] = value;
    }
    sync_lds();
    T total = scratch[0];
    KGEN_UNROLL
    for (int i = 1; i < kParts; ++i) total = op(total, scratch[i]);
    return total;
  }
}

}  // namespace kgen
