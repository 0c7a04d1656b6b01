// A wave of decode_stream on the plain ALU, for kv heads that serve few query heads.
//
//   team: d / vec lanes that have a whole key, `vec` elements each; an access of the wave is kTeams keys
//   wave: `unroll` accesses of K are under way at once, and as many of V
//
//     s = q.k        each lane its elements, then the sum over the team
//     max, sum, O    of each team's own keys; at the end the teams become one
#pragma once
#include "attention_stream.h"

namespace kgen {

template <class C>
struct WaveLanes {
  using T = typename C::dtype;
  using Piece = Packed<T, C::vec>;
  static constexpr int kTeam = C::d / C::vec, kTeams = kWaveSize / kTeam, kKeys = C::unroll * kTeams;
  using Shape = StreamShape<C, kKeys>;
  static_assert(kTeam * C::vec == C::d && kTeams * kTeam == kWaveSize && C::vec % 4 == 0);
  int team, column;
  Piece keys[C::unroll] = {}, values[C::unroll] = {}, queries[C::heads];
  float query[C::heads][C::vec], out[C::heads][C::vec] = {}, max[C::heads], sum[C::heads];
  float weight[C::heads][C::unroll];

  KGEN_DEVICE explicit WaveLanes(int lane) : team(lane / kTeam), column(lane % kTeam * C::vec) {}
  KGEN_DEVICE i64 key_offset(int first, int ld) const { return (first + team) * ld + column; }
  KGEN_DEVICE i64 value_offset(int first, int ld) const { return key_offset(first, ld); }

  KGEN_DEVICE void load(const T* from, int ld, int key, int limit, Piece (&to)[C::unroll]) const {
    KGEN_UNROLL
    for (int u = 0; u < C::unroll; ++u) {
      to[u] = {};
      if (key + u * kTeams < limit) to[u] = Piece::load_once(from + u * kTeams * ld);
    }
  }
  KGEN_DEVICE void load_keys(const T* from, int ld, int first, int limit) { load(from, ld, first + team, limit, keys); }
  KGEN_DEVICE void load_values(const T* from, int ld, int first, int limit) {
    load(from, ld, first + team, limit, values);
  }
  KGEN_DEVICE void load_query(const T* from, i64 ld, int group) {
    KGEN_UNROLL
    for (int h = 0; h < C::heads; ++h)
      queries[h] = load_or_zero<C::vec>(from + h * ld + column, C::heads == 1 || h < group);
  }
  KGEN_DEVICE void begin(float scale) {
    KGEN_UNROLL
    for (int h = 0; h < C::heads; ++h) {
      max[h] = negative_infinity();
      sum[h] = 0.0f;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) query[h][e] = queries[h][e] * scale;
    }
  }

  KGEN_DEVICE void scores() {
    KGEN_UNROLL
    for (int u = 0; u < C::unroll; ++u) {
      KGEN_UNROLL
      for (int h = 0; h < C::heads; ++h) {
        float score = 0.0f;
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) score = fma_f(query[h][e], keys[u][e], score);
        weight[h][u] = score;
      }
    }
    KGEN_UNROLL
    for (int mask = 1; mask < kTeam; mask *= 2) {
      KGEN_UNROLL
      for (int h = 0; h < C::heads; ++h) {
        KGEN_UNROLL
        for (int u = 0; u < C::unroll; ++u) weight[h][u] += shuffle_xor(weight[h][u], mask);
      }
    }
  }
  KGEN_DEVICE void softmax(int first, int limit) {
    KGEN_UNROLL
    for (int h = 0; h < C::heads; ++h) {
      float top = max[h];
      KGEN_UNROLL
      for (int u = 0; u < C::unroll; ++u) {
        if (first + team + u * kTeams >= limit) weight[h][u] = negative_infinity();
        top = Maximum()(top, weight[h][u]);
      }
      const float shift = softmax_shift(top), rescale = exp2_raw(max[h] - shift);
      max[h] = top;
      sum[h] *= rescale;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) out[h][e] *= rescale;
      KGEN_UNROLL
      for (int u = 0; u < C::unroll; ++u) {
        weight[h][u] = exp2_raw(weight[h][u] - shift);
        sum[h] += weight[h][u];
      }
    }
  }
  KGEN_DEVICE void add_values() {
    KGEN_UNROLL
    for (int u = 0; u < C::unroll; ++u) {
      KGEN_UNROLL
      for (int h = 0; h < C::heads; ++h) {
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) out[h][e] = fma_f(weight[h][u], values[u][e], out[h][e]);
      }
    }
  }
  // The teams of the wave become one.
  KGEN_DEVICE void store(int wave, int) {
    KGEN_UNROLL
    for (int mask = kTeam; mask < kWaveSize; mask *= 2) {
      KGEN_UNROLL
      for (int h = 0; h < C::heads; ++h) {
        const float top = Maximum()(max[h], shuffle_xor(max[h], mask)), weight = exp2_raw(max[h] - softmax_shift(top));
        max[h] = top;
        sum[h] *= weight;
        sum[h] += shuffle_xor(sum[h], mask);
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) {
          out[h][e] *= weight;
          out[h][e] += shuffle_xor(out[h][e], mask);
        }
      }
    }
    if (team != 0) return;
    KGEN_UNROLL
    for (int h = 0; h < C::heads; ++h) {
      KGEN_UNROLL
      for (int e = 0; e < C::vec; e += 4)
        Shape::store(h, wave, column + e, out[h][e], out[h][e + 1], out[h][e + 2], out[h][e + 3]);
      if (column == 0) Shape::store_stats(h, wave, max[h], sum[h]);
    }
  }
};

template <class C, class P>
KGEN_DEVICE void decode_lanes(const P& p) {
  decode_stream<C, WaveLanes<C>>(p);
}

}  // namespace kgen
