// Attention on sm_90's matrix units: o = softmax(scale * Q.K^T + mask).V, online over tiles of keys. A warpgroup copies
// (tensor_copy.h), the others multiply (mma/wgmma.h), and the blocks stay and walk the tiles of queries.
//
//   block tile: tile_q = 64 * warpgroups rows of one head     LDS, rows of 128 permuted bytes in pieces of 64 columns:
//   ┌──────────────┐                                            Q [pieces of d][tile_q]
//   │ warpgroup 0  │ 64 rows; wave w: rows 16w .. 16w+15,       K `stages` times [pieces of d][tile_kv]
//   ├──────────────┤ lanes as in wgmma.h: a row lies            V `stages` times [pieces of dv][tile_kv]
//   │ warpgroup 1  │ in four lanes                              a full and an empty barrier for each
//   └──────────────┘
//     copies     wait empty, expect, copy ──▶ full: Q, K of the last tile; then for each tile before it: K, V of the
//                                                  tile behind it; V of the first tile
//     multiplies S = Q.K^T of tile t (LDS, LDS)     ─┐ under way together; S is ready first, and while the second runs:
//                O += P.V of tile t + 1 (registers) ─┘ max' = max(max, row of S), P = 2^(c*(S - max')), sum
//                then O *= 2^(c*(max - max')), P rounded to the dtype: its sums' layout is that of fragments of A
//
//   turns: the warpgroups start their products in turn, so that one has the matrix units while others take
//   exponentials. Keys are walked from the last to the first, so that the tiles with a mask come first, in a loop of
//   their own. Causal tiles of queries are ordered by length, long ones first, and dealt out forwards and backwards by
//   turns.
//   share_last: the tiles of a last round that leaves blocks without work are cut into as many parts as there are
//   blocks, along the keys; the parts go to a workspace, and a second kernel adds them up.
//
// Beyond d, dv, sq and skv the copies are 0. Where a row does not see a key P is 0, which a value that is not finite
// makes a NaN: such rows are looked through again, as in attention.h.
//
// Legal (checked by the rules of ops/attention.yaml): rows of Q, K and V begin at multiples of 16 bytes.
#pragma once
#include "attention_parts.h"
#include "mma/wgmma.h"
#include "prelude.h"
#include "tensor_copy.h"

namespace kgen {

template <class C, class P>
struct AttentionWarpgroup {
  using T = typename C::dtype;
  static_assert(sizeof(T) == 2);
  static constexpr int kRowBytes = 128, kPiece = 64;
  static constexpr int kPiecesK = (C::d + kPiece - 1) / kPiece, kPiecesV = (C::dv + kPiece - 1) / kPiece;
  static constexpr int kTileKv = C::tile_kv, kTileQ = C::tile_q;
  static constexpr int kQBytes = kPiecesK * kTileQ * kRowBytes;
  static constexpr int kKBytes = kPiecesK * kTileKv * kRowBytes, kVBytes = kPiecesV * kTileKv * kRowBytes;
  static constexpr int kScores = kTileKv / 2, kSums = C::dv_pad / 2;   // of a lane, in two rows
  static constexpr int kBlocks = C::dv_pad / 8;                        // of columns of O
  static constexpr bool kShared = C::warpgroups > 1 || C::blocks > 1;  // registers: the copying lanes give theirs away
  static constexpr int kConsumers = 128 * C::warpgroups;

  static KGEN_DEVICE u32 base() { return lds_address(lds_base()); }
  static KGEN_DEVICE u32 k_at(int stage) { return base() + u32(kQBytes + stage * kKBytes); }
  static KGEN_DEVICE u32 v_at(int stage) { return base() + u32(kQBytes + C::stages * kKBytes + stage * kVBytes); }
  static KGEN_DEVICE u32 q_full() { return base() + u32(C::barriers_at); }
  static KGEN_DEVICE u32 k_full(int stage) { return q_full() + 16u + u32(16 * stage); }
  static KGEN_DEVICE u32 v_full(int stage) { return k_full(C::stages + stage); }
  static KGEN_DEVICE u32 empty(u32 full) { return full + 8; }

  // A ring's place: stages and the phase of their barriers.
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

  const P& p;
  const int heads, row_tiles;

  KGEN_DEVICE explicit AttentionWarpgroup(const P& args)
      : p(args), heads(int(args.hq * args.b)), row_tiles(int((args.sq + kTileQ - 1) / kTileQ)) {}

  struct Tile {
    int batch, head, kv_head, first;  // query
    int seen;                         // keys by the first query; may be negative
    int keys;                         // by any of its queries
    int steps;                        // tiles of keys
    int begin, end;                   // those that this block takes
    int slot;                         // of the workspace; -1: the block takes all of them
  };
  KGEN_DEVICE int count() const { return heads * row_tiles; }
  KGEN_DEVICE Tile tile(int index) const {
    Tile tile;
    const int head = C::causal ? index % heads : index / row_tiles;
    const int row = C::causal ? row_tiles - 1 - index / heads : index - head * row_tiles;
    tile.batch = int(u32(head) / u32(p.hq));
    tile.head = head - tile.batch * int(p.hq);
    tile.kv_head = int(u32(tile.head) / (u32(p.hq) / u32(p.hkv)));
    tile.first = row * kTileQ;
    tile.seen = tile.keys = int(p.skv);
    if constexpr (C::causal != 0) {
      tile.seen = tile.first + int(p.skv) - int(p.sq) + 1;
      const int rows = int(p.sq) - tile.first < kTileQ ? int(p.sq) - tile.first : kTileQ;
      const int by_last = tile.seen + rows - 1;
      tile.keys = by_last < 0 ? 0 : by_last < tile.keys ? by_last : tile.keys;
    }
    tile.steps = (tile.keys + kTileKv - 1) / kTileKv;
    tile.begin = 0;
    tile.end = tile.steps;
    tile.slot = -1;
    return tile;
  }

  // The tiles that are left when all blocks have taken as many: `units` tiles of keys, dealt out evenly.
  struct Rest {
    int first, steps, units;  // tile of queries; tiles of keys of each
    KGEN_DEVICE explicit Rest(const AttentionWarpgroup& a)
        : first(a.count() / C::resident * C::resident),
          steps((int(a.p.skv) + kTileKv - 1) / kTileKv),
          units((a.count() - first) * steps) {}
    KGEN_DEVICE int begin(int block) const { return block * units / C::resident; }
    KGEN_DEVICE int block_of(int unit) const { return ((unit + 1) * C::resident - 1) / units; }
  };

  // What a block takes the round-th time; false: nothing any more.
  KGEN_DEVICE bool take(int round, Tile& work) const {
    const int blocks = grid_x(), block = block_x();
    const int index = round * blocks + (C::causal && round % 2 ? blocks - 1 - block : block);
    if constexpr (C::share_last != 0) {
      const int rounds = count() / C::resident;
      if (round >= rounds) {
        // Fewer tiles than blocks are left, so a block has parts of two at most.
        const Rest rest(*this);
        const int begin = rest.begin(block), end = rest.begin(block + 1), edge = (begin / rest.steps + 1) * rest.steps;
        const int from = round == rounds ? begin : edge, to = round == rounds && edge < end ? edge : end;
        if (round > rounds + 1 || from >= to) return false;
        work = tile(rest.first + from / rest.steps);
        work.begin = from % rest.steps;
        work.end = work.begin + to - from;
        work.slot = 2 * block + round - rounds;
        return true;
      }
    }
    if (index >= count()) return false;
    work = tile(index);
    return true;
  }

  // ---------------------------------------------------------------------------------------------------- copies
  template <int kPieces, int kRows>
  static KGEN_DEVICE void copy_rows(u32 lds, const TensorMap* map, int row, int head, int batch, u32 barrier) {
    barrier_expect(barrier, kPieces * kRows * kRowBytes);
    KGEN_UNROLL
    for (int piece = 0; piece < kPieces; ++piece)
      tensor_copy(lds + u32(piece * kRows * kRowBytes), map, piece * kPiece, row, head, batch, barrier);
  }
  KGEN_DEVICE void copy_k(const Tile& tile, int step, Place& at) const {
    const u32 full = k_full(at.stage);
    barrier_wait(empty(full), at.phase ^ 1);
    copy_rows<kPiecesK, kTileKv>(k_at(at.stage), p.map_k, step * kTileKv, tile.kv_head, tile.batch, full);
    at.advance();
  }
  KGEN_DEVICE void copy_v(const Tile& tile, int step, Place& at) const {
    const u32 full = v_full(at.stage);
    barrier_wait(empty(full), at.phase ^ 1);
    copy_rows<kPiecesV, kTileKv>(v_at(at.stage), p.map_v, step * kTileKv, tile.kv_head, tile.batch, full);
    at.advance();
  }
  KGEN_DEVICE void copy_all() const {
    Place k, v;
    Tile at;
    u32 phase = 0;  // of Q
    KGEN_NO_UNROLL
    for (int round = 0; take(round, at); ++round) {
      if (at.steps == 0) continue;
      barrier_wait(empty(q_full()), phase ^ 1);
      copy_rows<kPiecesK, kTileQ>(base(), p.map_q, at.first, at.head, at.batch, q_full());
      phase ^= 1;
      copy_k(at, at.end - 1, k);
      KGEN_NO_UNROLL
      for (int step = at.end - 2; step >= at.begin; --step) {
        copy_k(at, step, k);
        copy_v(at, step + 1, v);
      }
      copy_v(at, at.begin, v);
    }
  }

  // -------------------------------------------------------------------------------------------------- products
  static KGEN_DEVICE void release(u32 full) {
    if (u32(thread_x()) % 128u == 0) barrier_arrive(empty(full));
  }
  // S of the stage's keys, under way when it returns.
  static KGEN_DEVICE void begin_scores(float (&s)[kScores], int group, int stage) {
    const u64 q = wgmma_operand(base() + u32(group * (64 * kRowBytes))), k = wgmma_operand(k_at(stage));
    KGEN_UNROLL
    for (int term = 0; term < C::d_pad / 16; ++term) {
      wgmma<T>(s, q + u64(term / 4 * (kTileQ * kRowBytes / 16) + term % 4 * 2),
               k + u64(term / 4 * (kTileKv * kRowBytes / 16) + term % 4 * 2), term > 0);
    }
    wgmma_commit();
  }
  // O += P.V of the stage's keys, under way when it returns.
  static KGEN_DEVICE void begin_values(float (&o)[kSums], const u32 (&weights)[kTileKv / 16][4], int stage) {
    const u64 v = wgmma_operand(v_at(stage), kTileKv * kRowBytes);
    KGEN_UNROLL
    for (int term = 0; term < kTileKv / 16; ++term)
      wgmma<T, true>(o, weights[term], v + u64(term * (16 * kRowBytes / 16)), true);
    wgmma_commit();
  }

  // Of the lane's two rows: largest score, its own part of the sum of weights.
  struct Rows {
    float top[2], total[2];
  };
  // Scores to weights. left: how many columns from the lane's first one on each row sees.
  template <bool kMasked>
  static KGEN_DEVICE void softmax(float (&s)[kScores], const int (&left)[2], float scale, Rows& rows,
                                  float (&rescale)[2]) {
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      float top = rows.top[half];
      KGEN_UNROLL
      for (int j = 0; j < kTileKv / 8; ++j) {
        KGEN_UNROLL
        for (int e = 0; e < 2; ++e) {
          float& x = s[4 * j + 2 * half + e];
          if (kMasked && 8 * j + e >= left[half]) x = negative_infinity();
          top = larger(top, x);
        }
      }
      top = larger(top, shuffle_xor(top, 1));
      top = larger(top, shuffle_xor(top, 2));
      const float shift = softmax_shift(top) * scale;
      rescale[half] = exp2_raw(fma_f(rows.top[half], scale, -shift));
      rows.top[half] = top;
      float total[2] = {rows.total[half] * rescale[half], 0.0f};
      KGEN_UNROLL
      for (int j = 0; j < kTileKv / 8; ++j) {
        KGEN_UNROLL
        for (int e = 0; e < 2; ++e) {
          float& x = s[4 * j + 2 * half + e];
          x = exp2_raw(fma_f(x, scale, -shift));
          total[e] += x;
        }
      }
      rows.total[half] = total[0] + total[1];
    }
  }
  static KGEN_DEVICE void round_weights(const float (&s)[kScores], u32 (&weights)[kTileKv / 16][4]) {
    KGEN_UNROLL
    for (int i = 0; i < kScores / 2; ++i) weights[i / 4][i % 4] = rounded_pair<T>(s[2 * i], s[2 * i + 1]);
  }

  // What a warpgroup has of its rows.
  struct State {
    Place k, v;
    Rows rows;
    float o[kSums], s[kScores], rescale[2];
    u32 weights[kTileKv / 16][4];
  };
  // Weights of a tile, and behind its scores the values of the tile after it.
  template <bool kMasked>
  static KGEN_DEVICE void step(State& at, int group, float scale, const int (&left)[2]) {
    const u32 k_barrier = k_full(at.k.stage), v_barrier = v_full(at.v.stage);
    barrier_wait(k_barrier, at.k.phase);
    if constexpr (C::turns != 0) sync_part(group, kConsumers);
    wgmma_hold(at.s);
    wgmma_hold(at.o);
    wgmma_fence();
    begin_scores(at.s, group, at.k.stage);
    barrier_wait(v_barrier, at.v.phase);
    begin_values(at.o, at.weights, at.v.stage);
    if constexpr (C::turns != 0) {
      KGEN_UNROLL
      for (int other = 1; other < C::warpgroups; ++other)
        arrive_part(int(u32(group + other) % u32(C::warpgroups)), kConsumers);
    }
    wgmma_wait<1>();
    wgmma_hold(at.s);
    release(k_barrier);
    at.k.advance();
    softmax<kMasked>(at.s, left, scale, at.rows, at.rescale);
    wgmma_wait<0>();
    wgmma_hold(at.o);
    release(v_barrier);
    at.v.advance();
    round_weights(at.s, at.weights);
    KGEN_UNROLL
    for (int i = 0; i < kSums; ++i) at.o[i] *= at.rescale[i / 2 % 2];
  }

  KGEN_DEVICE void multiply_all(int group) const {
    const int lane = lane_id(), wave_row = group * 64 + int(u32(thread_x()) % 128u / 32u) * 16;
    const float given = attention_scale<int(C::d)>(p), scale = 1.44269504f * abs_f(given);
    State at;
    Tile task;
    u32 phase = 0;
    if constexpr (C::turns != 0) {
      KGEN_NO_UNROLL
      for (int other = 0; other < group; ++other) arrive_part(other, kConsumers);
    }
    KGEN_NO_UNROLL
    for (int round = 0; take(round, task); ++round) {
      KGEN_UNROLL
      for (int half = 0; half < 2; ++half) {
        at.rows.top[half] = negative_infinity();
        at.rows.total[half] = 0.0f;
      }
      KGEN_UNROLL
      for (int i = 0; i < kSums; ++i) at.o[i] = 0.0f;
      if (task.steps > 0) {
        // Columns from the lane's first one on that its rows see, of a tile.
        int seen[2], left[2];
        KGEN_UNROLL
        for (int half = 0; half < 2; ++half) {
          seen[half] = task.seen + (C::causal ? wave_row + lane / 4 + 8 * half : 0);
          seen[half] = (seen[half] < int(p.skv) ? seen[half] : int(p.skv)) - lane % 4 * 2;
        }
        const auto look = [&](int n) {
          left[0] = seen[0] - n * kTileKv;
          left[1] = seen[1] - n * kTileKv;
        };
        int n = task.end - 1;
        barrier_wait(q_full(), phase);
        phase ^= 1;
        if (given < 0.0f) negate_rows(group);
        barrier_wait(k_full(at.k.stage), at.k.phase);
        wgmma_hold(at.s);
        wgmma_fence();
        begin_scores(at.s, group, at.k.stage);
        wgmma_wait<0>();
        wgmma_hold(at.s);
        release(k_full(at.k.stage));
        at.k.advance();
        look(n);
        softmax<true>(at.s, left, scale, at.rows, at.rescale);
        round_weights(at.s, at.weights);
        --n;
        if constexpr (C::causal != 0) {
          const int whole = task.seen + group * 64;  // keys that all rows of the warpgroup see
          KGEN_NO_UNROLL
          for (; n >= task.begin && (n + 1) * kTileKv > whole; --n) {
            look(n);
            step<true>(at, group, scale, left);
          }
        }
        KGEN_NO_UNROLL
        for (; n >= task.begin; --n) step<false>(at, group, scale, left);
        release(q_full());
        barrier_wait(v_full(at.v.stage), at.v.phase);
        wgmma_hold(at.o);
        wgmma_fence();
        begin_values(at.o, at.weights, at.v.stage);
        wgmma_wait<0>();
        wgmma_hold(at.o);
        release(v_full(at.v.stage));
        at.v.advance();
      }
      if (C::share_last != 0 && task.slot >= 0)
        store_part(task, wave_row, at.o, at.rows, scale);
      else
        store(task, wave_row, at.o, at.rows, 1.44269504f * given);
    }
  }

  // The warpgroup's rows of Q: a scale below 0 is that of -Q, and so the largest score has the largest weight.
  static KGEN_DEVICE void negate_rows(int group) {
    KGEN_NO_UNROLL
    for (int i = int(u32(thread_x()) % 128u); i < kPiecesK * 64 * kRowBytes / 4; i += 128) {
      constexpr int kWords = 64 * kRowBytes / 4;
      u32* word = lds<u32>((i / kWords * kTileQ + group * 64) * kRowBytes) + i % kWords;
      *word ^= 0x80008000u;
    }
    async_fence();
    sync_part(C::warpgroups + group, 128);
  }

  // ----------------------------------------------------------------------------------------------------- output
  // Of the wave's lanes.
  static KGEN_DEVICE u32 any(u32 bits) {
    KGEN_UNROLL
    for (int mask = 1; mask < 32; mask *= 2) bits |= shuffle_xor(bits, mask);
    return bits;
  }
  KGEN_DEVICE void store(const Tile& at, int wave_row, const float (&o)[kSums], const Rows& rows, float scale) const {
    const int lane = lane_id();
    const i64 head = at.batch * p.batch_stride_o + at.head * p.head_stride_o;
    T* const out = p.o + head + i64(at.first) * p.ldo;
    const bool whole = C::dv % 8 == 0 && (u64(p.o) | u64(p.ldo * 2) | u64(head * 2)) % 16 == 0;
    float total[2];
    u32 odd = 0;  // rows that are not finite
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      total[half] = rows.total[half] + shuffle_xor(rows.total[half], 1);
      total[half] += shuffle_xor(total[half], 2);
      const float inverse = total[half] == 0.0f ? 0.0f : rcp_f(total[half]);  // a row that sees no key is 0
      const int row = wave_row + lane / 4 + 8 * half;
      T* const to = out + i64(row) * p.ldo;
      const bool inside = at.first + row < p.sq;
      u32 words[kBlocks];
      KGEN_UNROLL
      for (int j = 0; j < kBlocks; ++j)
        words[j] = rounded_pair<T>(o[4 * j + 2 * half] * inverse, o[4 * j + 2 * half + 1] * inverse);
      if constexpr (C::causal != 0) {
        float zero = 0.0f;
        KGEN_UNROLL
        for (int j = 0; j < kSums; j += 4) zero = fma_f(o[j + 2 * half], 0.0f, fma_f(o[j + 2 * half + 1], 0.0f, zero));
        if (zero != 0.0f && inside) odd |= 1u << (lane / 4 + 8 * half);
      }
      if (whole) {
        // Of four blocks of 8 columns each lane has a pair; then it has all of one.
        KGEN_UNROLL
        for (int j = 0; j < kBlocks; j += 4) {
          Vec<u32, 4> four;
          KGEN_UNROLL
          for (int n = 0; n < 4; ++n) four[n] = words[j + n < kBlocks ? j + n : 0];
          KGEN_UNROLL
          for (int mask = 1; mask < 4; mask *= 2) {
            const bool upper = lane & mask;
            KGEN_UNROLL
            for (int n = 0; n < 4; ++n) {
              if (n & mask) continue;
              const u32 got = shuffle_xor(upper ? four[n] : four[n + mask], mask);
              four[n] = upper ? got : four[n];
              four[n + mask] = upper ? four[n + mask] : got;
            }
          }
          const int column = (j + lane % 4) * 8;
          if (inside && column < C::dv) store_vec<u32, 4>(reinterpret_cast<u32*>(to + column), four);
        }
      } else if (inside) {
        KGEN_UNROLL
        for (int j = 0; j < kBlocks; ++j) {
          const int column = j * 8 + lane % 4 * 2;
          if (column < C::dv) to[column] = T{u16(words[j])};
          if (column + 1 < C::dv) to[column + 1] = T{u16(words[j] >> 16)};
        }
      }
    }
    if constexpr (C::causal != 0) {
      odd = any(odd);
      KGEN_NO_UNROLL
      for (int r = 0; odd != 0 && r < 16; ++r) {
        const int from = r % 8 * 4;
        const float top = shuffle(r < 8 ? rows.top[0] : rows.top[1], from);
        const float all = shuffle(r < 8 ? total[0] : total[1], from);
        if (odd >> r & 1) repair(at, wave_row + r, out, softmax_shift(top) * abs_f(scale), all, scale);
      }
    }
  }

  // Sums as they are, largest scores and sums of weights, to the workspace.
  KGEN_DEVICE void store_part(const Tile& at, int wave_row, const float (&o)[kSums], const Rows& rows,
                              float scale) const {
    const int lane = lane_id();
    KGEN_UNROLL
    for (int half = 0; half < 2; ++half) {
      float total = rows.total[half] + shuffle_xor(rows.total[half], 1);
      total += shuffle_xor(total, 2);
      const int row = at.slot * kTileQ + wave_row + lane / 4 + 8 * half;
      if (lane % 4 == 0) {
        p.stats[2 * row] = rows.top[half] * scale;
        p.stats[2 * row + 1] = total;
      }
      KGEN_UNROLL
      for (int j = 0; j < kBlocks; ++j) {
        Vec<float, 2> pair;
        pair[0] = o[4 * j + 2 * half];
        pair[1] = o[4 * j + 2 * half + 1];
        store_vec<float, 2>(p.partial + row * C::dv_pad + 8 * j + lane % 4 * 2, pair);
      }
    }
  }
  // Four columns of a row of the tiles that blocks shared.
  KGEN_DEVICE void merge(i64 item) const {
    constexpr int kPerRow = (C::dv + 3) / 4;
    const Rest rest(*this);
    const int index = int(item / (kPerRow * kTileQ));
    const int row = int(item / kPerRow - i64(index) * kTileQ), column = int(item % kPerRow) * 4;
    if (index >= count() - rest.first) return;
    const Tile at = tile(rest.first + index);
    if (at.first + row >= p.sq) return;
    float top = negative_infinity(), total = 0.0f, sums[4] = {};
    const int last = rest.block_of((index + 1) * rest.steps - 1);
    KGEN_NO_UNROLL
    for (int block = rest.block_of(index * rest.steps); block <= last; ++block) {
      const int begin = rest.begin(block);
      if (begin == rest.begin(block + 1)) continue;
      const int from = (2 * block + (begin < index * rest.steps)) * kTileQ + row;
      const float part_top = p.stats[2 * from], before = top;
      const Vec<float, 4> part = load_vec<float, 4>(p.partial + from * C::dv_pad + column);
      top = larger(top, part_top);
      const float shift = softmax_shift(top), rescale = exp2_raw(before - shift), weight = exp2_raw(part_top - shift);
      total = fma_f(total, rescale, weight * p.stats[2 * from + 1]);
      KGEN_UNROLL
      for (int c = 0; c < 4; ++c) sums[c] = fma_f(sums[c], rescale, weight * part[c]);
    }
    const float inverse = total == 0.0f ? 0.0f : rcp_f(total);
    KGEN_UNROLL
    for (int c = 0; c < 4; ++c) sums[c] *= inverse;
    store_columns<4>(
        p.o + at.batch * p.batch_stride_o + at.head * p.head_stride_o + i64(at.first + row) * p.ldo + column,
        C::dv - column < 4 ? C::dv - column : 4, sums);
  }

  // The row again, without matrix units, if a key of the tile that it does not see has a value that is not finite.
  KGEN_DEVICE void repair(const Tile& at, int row, T* out, float shift, float total, float scale) const {
    constexpr int kColumns = (C::dv + 31) / 32;
    const int lane = lane_id(), by_row = at.seen + row, seen = by_row < 0 ? 0 : by_row < at.keys ? by_row : at.keys;
    const T* const q = p.q + at.batch * p.batch_stride_q + at.head * p.head_stride_q + i64(at.first + row) * p.ldq;
    const T* const k = p.k + at.batch * p.batch_stride_k + at.kv_head * p.head_stride_k;
    const T* const v = p.v + at.batch * p.batch_stride_v + at.kv_head * p.head_stride_v;
    const int copied = at.steps * kTileKv < p.skv ? at.steps * kTileKv : int(p.skv);
    float sums[kColumns];
    u32 found = 0;
    KGEN_UNROLL
    for (int c = 0; c < kColumns; ++c) sums[c] = 0.0f;
    KGEN_NO_UNROLL
    for (int key = seen; key < copied; ++key) {
      KGEN_NO_UNROLL
      for (int c = lane; c < C::dv; c += 32) {
        const float x = to_float(v[key * p.ldv + c]);
        found |= x - x != 0.0f;
      }
    }
    if (any(found) == 0) return;
    KGEN_NO_UNROLL
    for (int key = 0; key < seen; ++key) {
      float score = 0.0f;
      KGEN_NO_UNROLL
      for (int c = lane; c < C::d; c += 32) score = fma_f(to_float(q[c]), to_float(k[key * p.ldk + c]), score);
      KGEN_UNROLL
      for (int mask = 1; mask < 32; mask *= 2) score += shuffle_xor(score, mask);
      const float weight = exp2_raw(score * scale - shift);
      KGEN_UNROLL
      for (int c = 0; c < kColumns; ++c)
        if (lane + 32 * c < C::dv) sums[c] = fma_f(weight, to_float(v[key * p.ldv + lane + 32 * c]), sums[c]);
    }
    const float inverse = total == 0.0f ? 0.0f : rcp_f(total);
    sync_wave();  // behind what other lanes stored there
    KGEN_UNROLL
    for (int c = 0; c < kColumns; ++c)
      if (lane + 32 * c < C::dv) out[i64(row) * p.ldo + lane + 32 * c] = from_float<T>(sums[c] * inverse);
  }

  KGEN_DEVICE void run() const {
    const int thread = thread_x(), group = uniform(int(u32(thread) / 128u));
    if (thread == 0) {
      tensor_map_prefetch(p.map_q);
      tensor_map_prefetch(p.map_k);
      tensor_map_prefetch(p.map_v);
      KGEN_UNROLL
      for (int i = 0; i <= 2 * C::stages; ++i) {
        barrier_make(q_full() + u32(16 * i), 1);
        barrier_make(empty(q_full() + u32(16 * i)), C::warpgroups);
      }
      barrier_fence();
    }
    sync_block();
    if (group == C::warpgroups) {
      if constexpr (kShared) fewer_registers<C::warpgroups == 3 ? 32 : 40>();
      if (thread == kConsumers) copy_all();
    } else {
      if constexpr (kShared) more_registers<C::warpgroups == 3 ? 160 : C::warpgroups == 2 ? 232 : 216>();
      multiply_all(group);
    }
  }
};

template <class C, class P>
KGEN_DEVICE void attention_warpgroup(const P& p) {
  AttentionWarpgroup<C, P>(p).run();
}

template <class C, class P>
KGEN_DEVICE void attention_share(const P& p) {
  AttentionWarpgroup<C, P>(p).merge(i64(block_x()) * block_size() + thread_x());
}

}  // namespace kgen
