// Decode: one query a sequence; the rows of a block are the query heads that share a kv head, so that K and V are read
// once for all of them.
//
//   grid x: tiles of a kv head's query heads (one, as a rule); y: kv heads and parts of the keys; z: sequences
//
// Each sequence is divided by its own length, so parts of short ones may have no keys; they count for nothing in the
// sum.
#pragma once
#include "attention.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void decode_tile(const P& p) {
  const i64 kv_head = block_y() / C::split, batch = block_z();
  const int group = int(u32(p.hq) / u32(p.hkv));  // a division in 64 bits takes as long as many products
  const int first = block_x() * C::tile_q;
  const i64 head = kv_head * group + first;
  AttentionTask<typename C::dtype> task;
  task.q = p.q + batch * p.batch_stride_q + head * p.head_stride_q;
  task.k = p.k_cache + batch * p.batch_stride_k + kv_head * p.head_stride_k;
  task.v = p.v_cache + batch * p.batch_stride_v + kv_head * p.head_stride_v;
  task.o = p.o + batch * p.batch_stride_o + head * p.head_stride_o;
  task.ldq = p.head_stride_q;
  task.ldk = p.ldk;
  task.ldv = p.ldv;
  task.ldo = p.head_stride_o;
  task.rows = min_int(group - first, C::tile_q);
  task.length = p.lengths + batch;
  task.capacity = int(p.smax);
  task.expected = int(p.shortest < p.smax ? p.shortest : p.smax);
  task.keys = task.first_keys = 0;
  task.scale = attention_scale<int(C::d)>(p);
  task.first_row = batch * p.hq + head;
  task.all_rows = p.b * p.hq;
  task.part = block_y() % C::split;
  if constexpr (C::split > 1) {
    task.partial = p.partial;
    task.stats = p.stats;
  }
  attend<C>(task);
}

template <class C, class P>
KGEN_DEVICE void decode_merge(const P& p) {
  merge_parts<C>(p, p.b * p.hq,
                 [&](i64 row) { return p.o + row / p.hq * p.batch_stride_o + row % p.hq * p.head_stride_o; });
}

}  // namespace kgen
