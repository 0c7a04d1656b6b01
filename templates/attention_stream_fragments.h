// A wave of decode_stream on NVIDIA's matrix cores, 16 keys and up to 8 query heads of a kv head, in fragments of
// m16n8k16 (g = lane / 4, c = lane % 4). The order of the terms of a product is free, so what a lane gets by one access
// of 16 bytes, a piece, is a fragment as it is:
//
//   K: a lane has pieces c, c + 4 … of keys g and g + 8. A piece as A stands for two rows, its even and its odd words:
//      times the even words of q, row g of the product is one half of q.k, times the odd ones, row g + 8 the other
//   V: a lane has pieces g, g + 8 … of keys 2c, 2c + 1, 2c + 8, 2c + 9; O^T = V^T . P^T with rows in an order that
//   makes
//      the same element of two keys a register of A
//   P: a lane has heads 2c and 2c + 1 of keys g and g + 8; transposed within the wave it is B
#pragma once
#include "attention_stream.h"
#include "mma/mma_sync.h"

namespace kgen {

KGEN_DEVICE u32 transposed_8x8(u32 pair) {
  u32 result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// The low or the high halves of two words.
template <bool kHigh>
KGEN_DEVICE u32 half_pair(u32 low, u32 high) {
  u32 result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "n"(kHigh ? 0x7632 : 0x5410));
  return result;
}

template <class C>
struct WaveFragments {
  using T = typename C::dtype;
  using Piece = Packed<T, 8>;
  using Unit = MmaSyncInstructions<C::arch>;
  static constexpr int kKeys = 16;
  using Shape = StreamShape<C, kKeys>;
  static constexpr int kPiecesK = C::d / 32, kPiecesV = C::d / 64;  // that a lane has of a key
  static constexpr int kBlocks = C::d / 16;                         // of 16 rows of O^T
  static_assert(C::d % 64 == 0 && sizeof(T) == 2 && kWaveSize == 32);
  int g, c;
  Piece keys[2][kPiecesK] = {}, values[4][kPiecesV] = {}, query[kPiecesK];
  u32 out[kBlocks][4] = {}, weights[2];
  float scores_[2][2], max[2], sum[2], scale;  // [key][head]

  KGEN_DEVICE explicit WaveFragments(int lane) : g(lane / 4), c(lane % 4) {}
  KGEN_DEVICE i64 key_offset(int first, int ld) const { return (first + g) * ld + c * 8; }
  KGEN_DEVICE i64 value_offset(int first, int ld) const { return (first + 2 * c) * ld + g * 8; }

  // What is behind the limit stays as it was: its scores are replaced.
  KGEN_DEVICE void load_keys(const T* from, int ld, int first, int limit) {
    KGEN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const bool exists = first + g + i * 8 < limit;
      const T* row = from + i * 8 * ld;
      KGEN_UNROLL
      for (int n = 0; n < kPiecesK; ++n)
        if (exists) keys[i][n] = Piece::load_once(row + n * 32);
    }
  }
  KGEN_DEVICE void load_values(const T* from, int ld, int first, int limit) {
    KGEN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int key = i % 2 + i / 2 * 8;
      const bool exists = first + 2 * c + key < limit;
      const T* row = from + key * ld;
      KGEN_UNROLL
      for (int n = 0; n < kPiecesV; ++n) {
        values[i][n] = {};
        if (exists) values[i][n] = Piece::load_once(row + n * 64);
      }
    }
  }
  KGEN_DEVICE void load_query(const T* from, i64 ld, int group) {
    KGEN_UNROLL
    for (int n = 0; n < kPiecesK; ++n) query[n] = load_or_zero<8>(from + g * ld + c * 8 + n * 32, g < group);
  }
  KGEN_DEVICE void begin(float factor) {
    scale = factor;
    KGEN_UNROLL
    for (int h = 0; h < 2; ++h) {
      max[h] = negative_infinity();
      sum[h] = 0.0f;
    }
  }

  KGEN_DEVICE void scores() {
    u32 even[2][4] = {}, odd[2][4] = {};
    KGEN_UNROLL
    for (int n = 0; n < kPiecesK; ++n) {
      KGEN_UNROLL
      for (int i = 0; i < 2; ++i) {
        Unit::template multiply<T>(even[i], keys[i][n].words.data, query[n].words[0], query[n].words[2]);
        Unit::template multiply<T>(odd[i], keys[i][n].words.data, query[n].words[1], query[n].words[3]);
      }
    }
    KGEN_UNROLL
    for (int i = 0; i < 2; ++i) {
      KGEN_UNROLL
      for (int h = 0; h < 2; ++h) scores_[i][h] = bit_cast<float>(even[i][h]) + bit_cast<float>(odd[i][h + 2]);
    }
  }
  KGEN_DEVICE void softmax(int first, int limit) {
    float top[2];
    KGEN_UNROLL
    for (int h = 0; h < 2; ++h) {
      top[h] = max[h];
      KGEN_UNROLL
      for (int i = 0; i < 2; ++i) {
        float& s = scores_[i][h];
        s = first + g + i * 8 < limit ? s * scale : negative_infinity();
        top[h] = Maximum()(top[h], s);
      }
    }
    KGEN_UNROLL
    for (int mask = 4; mask < 32; mask *= 2) {
      KGEN_UNROLL
      for (int h = 0; h < 2; ++h) top[h] = Maximum()(top[h], shuffle_xor(top[h], mask));
    }
    KGEN_UNROLL
    for (int h = 0; h < 2; ++h) {
      const float shift = softmax_shift(top[h]), rescale = exp2_raw(max[h] - shift);
      max[h] = top[h];
      KGEN_UNROLL
      for (int i = 0; i < 2; ++i) scores_[i][h] = exp2_raw(scores_[i][h] - shift);
      sum[h] = fma_f(sum[h], rescale, scores_[0][h] + scores_[1][h]);
      KGEN_UNROLL
      for (int j = 0; j < kBlocks; ++j) {
        out[j][h] = bit_cast<u32>(bit_cast<float>(out[j][h]) * rescale);
        out[j][h + 2] = bit_cast<u32>(bit_cast<float>(out[j][h + 2]) * rescale);
      }
    }
    KGEN_UNROLL
    for (int i = 0; i < 2; ++i) weights[i] = transposed_8x8(rounded_pair<T>(scores_[i][0], scores_[i][1]));
  }

  // Element `slot` of a lane's columns, of keys `key` and the next.
  KGEN_DEVICE u32 value_pair(int slot, int key) const {
    const u32 low = values[key][slot / 8].words[slot % 8 / 2], high = values[key + 1][slot / 8].words[slot % 8 / 2];
    return slot % 2 ? half_pair<true>(low, high) : half_pair<false>(low, high);
  }
  KGEN_DEVICE void add_values() {
    KGEN_UNROLL
    for (int j = 0; j < kBlocks; ++j) {
      const u32 a[4] = {value_pair(j, 0), value_pair(j + kBlocks, 0), value_pair(j, 2), value_pair(j + kBlocks, 2)};
      Unit::template multiply<T>(out[j], a, weights[0], weights[1]);
    }
  }
  KGEN_DEVICE float out_of(int head, int slot) const {
    return bit_cast<float>(out[slot % kBlocks][head + slot / kBlocks * 2]);
  }
  KGEN_DEVICE void store(int wave, int group) {
    KGEN_UNROLL
    for (int mask = 4; mask < 32; mask *= 2) {
      KGEN_UNROLL
      for (int h = 0; h < 2; ++h) sum[h] += shuffle_xor(sum[h], mask);
    }
    KGEN_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int head = 2 * c + h;
      if (head >= group) continue;
      KGEN_UNROLL
      for (int slot = 0; slot < C::d / 8; slot += 4)
        Shape::store(head, wave, slot / 8 * 64 + g * 8 + slot % 8, out_of(h, slot), out_of(h, slot + 1),
                     out_of(h, slot + 2), out_of(h, slot + 3));
      if (g == 0) Shape::store_stats(head, wave, max[h], sum[h]);
    }
  }
};

template <class C, class P>
KGEN_DEVICE void decode_fragments(const P& p) {
  decode_stream<C, WaveFragments<C>>(p);
}

}  // namespace kgen
