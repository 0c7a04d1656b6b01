// Prefill: the rows of a block are consecutive queries of one head.
//
//   grid x: tiles of queries, with a causal mask the ones that see most keys first; y: query heads and parts of the
//   keys; z: batch
#pragma once
#include "attention.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void attention_tile(const P& p) {
  const int tile = C::causal ? grid_x() - 1 - block_x() : block_x();
  const i64 head = block_y() / C::split, batch = block_z();
  const i64 kv_head = u32(head) / (u32(p.hq) / u32(p.hkv));  // in 64 bits it takes as long as many products
  const i64 first = i64(tile) * C::tile_q;
  AttentionTask<typename C::dtype> task;
  task.q = p.q + batch * p.batch_stride_q + head * p.head_stride_q + first * p.ldq;
  task.k = p.k + batch * p.batch_stride_k + kv_head * p.head_stride_k;
  task.v = p.v + batch * p.batch_stride_v + kv_head * p.head_stride_v;
  task.o = p.o + batch * p.batch_stride_o + head * p.head_stride_o + first * p.ldo;
  task.ldq = p.ldq;
  task.ldk = p.ldk;
  task.ldv = p.ldv;
  task.ldo = p.ldo;
  task.rows = int(p.sq - first < C::tile_q ? p.sq - first : C::tile_q);
  task.keys = int(p.skv);
  task.first_keys = task.keys;
  if constexpr (C::causal != 0) {
    const i64 seen = first + p.skv - p.sq + 1;  // by the first row; negative: none, and the next rows see none either
    task.first_keys = int(seen);
    const i64 by_last = seen + task.rows - 1;
    task.keys = int(by_last < 0 ? 0 : by_last < p.skv ? by_last : p.skv);
  }
  task.scale = attention_scale<int(C::d)>(p);
  task.first_row = (batch * p.hq + head) * p.sq + first;
  task.all_rows = p.b * p.hq * p.sq;
  task.part = block_y() % C::split;
  if constexpr (C::split > 1) {
    task.partial = p.partial;
    task.stats = p.stats;
  }
  attend<C>(task);
}

template <class C, class P>
KGEN_DEVICE void attention_merge(const P& p) {
  merge_parts<C>(p, p.b * p.hq * p.sq, [&](i64 row) {
    const i64 head = row / p.sq;
    return p.o + head / p.hq * p.batch_stride_o + head % p.hq * p.head_stride_o + row % p.sq * p.ldo;
  });
}

}  // namespace kgen
