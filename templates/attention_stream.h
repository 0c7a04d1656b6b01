// Decode with keys and values that go from memory to registers and are used there: no LDS and no barrier before the
// end, so little code and many loads under way from the first instructions on.
//
//   grid y: kv heads and parts of the keys; z: sequences
//   block: `waves` waves with kKeys keys of a tile each; the parts of a sequence, blocks of a cluster, take tiles by
//   turns wave:  WaveLanes (attention_stream_lanes.h) or WaveFragments (attention_stream_fragments.h)
//
//     K, V  registers, a tile ahead: K of the next tile is requested when K has been used, V when V has
//     online softmax in each wave ─▶ O, max and sum ─▶ LDS ─▶ o (ClusterParts where blocks share a sequence)
//
// The first tile does not wait for the length: keys below `shortest` are requested before it has arrived, and the tile
// once more where it turns out to differ.
//
// Legal (checked by the rules of the YAML): rows are as aligned as an access; a cluster's tiles take less than 2^31
// elements.
#pragma once
#include "attention_parts.h"

namespace kgen {

// LDS: a row for each head and wave.
template <class C, int kWaveKeys>
struct StreamShape {
  static constexpr int kThreads = C::waves * kWaveSize, kTile = C::waves * kWaveKeys;
  static constexpr int kParts = C::waves, kMaxAt = C::d, kPartStep = C::d + 4;
  static constexpr int kRowStep = kParts * kPartStep, kPerRow = C::d / 4;
  static constexpr int kBlocks = C::split, kPlaces = C::heads * kPerRow / kBlocks;
  static constexpr int kReceived = C::heads * kRowStep * 4, kReceivedStats = kReceived + kBlocks * kPlaces * 16;
  static constexpr int kBarrier = kReceivedStats + kBlocks * kPlaces * 8;
  static_assert(kPerRow % kBlocks == 0 && (kBlocks == 1 ? kReceived : kBarrier + 8) <= C::block_lds);

  // Four columns of a part, or its maximum and sum.
  static KGEN_DEVICE void store(int head, int part, int column, float a, float b, float c, float d) {
    Vec<float, 4> four;
    four[0] = a;
    four[1] = b;
    four[2] = c;
    four[3] = d;
    store_vec<float, 4>(lds<float>(0) + head * kRowStep + part * kPartStep + column, four);
  }
  static KGEN_DEVICE void store_stats(int head, int part, float max, float sum) {
    float* stats = lds<float>(0) + head * kRowStep + part * kPartStep + kMaxAt;
    stats[0] = max;
    stats[1] = sum;
  }
};

template <class C, class Wave, class P>
KGEN_DEVICE void decode_stream(const P& p) {
  using S = typename Wave::Shape;
  using T = typename C::dtype;
  constexpr int kStep = S::kTile * C::split;
  const int part = C::split == 1 ? 0 : block_y() % C::split;
  const i64 kv_head = block_y() / C::split, batch = block_z();
  const int group = C::heads == 1 ? 1 : int(u32(p.hq) / u32(p.hkv));
  const i64 head = kv_head * group;
  const int length = p.lengths[batch], capacity = int(p.smax), ldk = int(p.ldk), ldv = int(p.ldv);
  const int expected = int(p.shortest < p.smax ? p.shortest : p.smax);
  const int wave_index = uniform(thread_x() / kWaveSize);
  int tile = part * S::kTile, first = tile + wave_index * Wave::kKeys;  // first key of the block and of the wave
  Wave wave(lane_id());
  const T* k = p.k_cache + batch * p.batch_stride_k + kv_head * p.head_stride_k + wave.key_offset(first, ldk);
  const T* v = p.v_cache + batch * p.batch_stride_v + kv_head * p.head_stride_v + wave.value_offset(first, ldv);
  wave.load_keys(k, ldk, first, expected);
  wave.load_query(p.q + batch * p.batch_stride_q + head * p.head_stride_q, p.head_stride_q, group);
  wave.load_values(v, ldv, first, expected);
  T* o = p.o + batch * p.batch_stride_o + head * p.head_stride_o;
  if constexpr (C::split > 1) {
    if (thread_x() == 0) ClusterParts<S>::expect(part, group * S::kPerRow);
    cluster_arrive_relaxed();
  }
  // Rows side by side: lane 0 sends for the keys of the wave's next tiles, lane 1 for the values, to the L2.
  const T* ahead = lane_id() == 0 ? p.k_cache + batch * p.batch_stride_k + kv_head * p.head_stride_k
                                  : p.v_cache + batch * p.batch_stride_v + kv_head * p.head_stride_v;
  const bool sends = C::ahead > 0 && lane_id() < 2 && ldk == C::d && ldv == C::d;
  int next = first + kStep;
  const auto send = [&](int limit) {
    const int rows = limit - next < Wave::kKeys ? limit - next : Wave::kKeys;
    if (sends && rows > 0) prefetch_bulk(ahead + i64(next) * C::d, u32(rows) * u32(C::d * sizeof(T)));
    next += kStep;
  };
  KGEN_NO_UNROLL
  for (int i = 0; i < C::ahead; ++i) send(expected);
  const int end = length < capacity ? length : capacity;
  if (end != expected && (end < tile + S::kTile || expected < tile + S::kTile)) {
    wave.load_keys(k, ldk, first, end);
    wave.load_values(v, ldv, first, end);
  }
  wave.begin(attention_scale<int(C::d)>(p) * 1.44269504f);  // to powers of 2
  const i64 step_k = i64(kStep) * ldk, step_v = i64(kStep) * ldv;
  KGEN_NO_UNROLL
  while (tile < end) {
    if constexpr (C::ahead > 0) send(end);
    wave.scores();
    tile += kStep;
    k += step_k;
    v += step_v;
    if (tile < end) wave.load_keys(k, ldk, first + kStep, end);
    wave.softmax(first, end);
    first += kStep;
    wave.add_values();
    if (tile < end) wave.load_values(v, ldv, first, end);
  }
  wave.store(wave_index, group);
  sync_lds();
  const auto finish = [&](int row, int column, float, float total, float(&result)[4]) {
    const float inverse = total == 0.0f ? 0.0f : rcp_f(total);  // a sequence without keys is 0
    KGEN_UNROLL
    for (int n = 0; n < 4; ++n) result[n] *= inverse;
    store_columns<4>(o + row * p.head_stride_o + column, 4, result);
  };
  if constexpr (C::split > 1) {
    ClusterParts<S>::exchange(part, group * S::kPerRow, finish);
  } else {
    KGEN_NO_UNROLL
    for (int item = thread_x(); item < group * S::kPerRow; item += S::kThreads) {
      const float* from = lds<float>(0) + item / S::kPerRow * S::kRowStep;
      float top, total, result[4];
      add_parts<S::kParts>(from + item % S::kPerRow * 4, S::kPartStep, from + S::kMaxAt, S::kPartStep, top, total,
                           result);
      finish(item / S::kPerRow, item % S::kPerRow * 4, top, total, result);
    }
  }
}

}  // namespace kgen
