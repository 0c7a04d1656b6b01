// Reference and test data of decode_attention.
#pragma once
#include "attention_reference.h"

namespace kgen {
namespace attention_reference {

template <class C, class P>
KGEN_DEVICE Row<typename C::dtype> row_of(const P& p, i64 index) {
  const i64 head = index % p.hq, batch = index / p.hq, kv_head = head / (p.hq / p.hkv);
  Row<typename C::dtype> row;
  row.q = p.q + batch * p.batch_stride_q + head * p.head_stride_q;
  row.k = p.k_cache + batch * p.batch_stride_k + kv_head * p.head_stride_k;
  row.v = p.v_cache + batch * p.batch_stride_v + kv_head * p.head_stride_v;
  row.ldk = p.ldk;
  row.ldv = p.ldv;
  row.keys = p.lengths[batch];
  row.d = int(C::d);
  row.scale = scale_of(p, int(C::d));
  return row;
}

// Cache content in the order of memory: NaN at and beyond the sequence's length and between rows.
template <class C, class P>
KGEN_DEVICE double cache(const P& p, u64 seed, i64 element, i64 batch_stride, i64 head_stride, i64 row_stride) {
  const Place at = place_of(element, batch_stride, head_stride, row_stride);
  const bool exists = at.column < C::d && (batch_stride == 0 || (at.batch < p.b && at.row < p.lengths[at.batch]));
  return exists ? random_value(seed, u64(element), int(Distribution::normal), 0, 1) : nan_d();
}

}  // namespace attention_reference

// shortest .. seq, the first one seq.
template <class C, class P>
KGEN_DEVICE double init_lengths(const P& p, u64 seed, i64 element) {
  const i64 span = p.seq - p.shortest + 1;
  return double(element == 0 || span < 1 ? p.seq : p.shortest + i64(random_bits(seed, u64(element)) % u64(span)));
}
template <class C, class P>
KGEN_DEVICE double init_k_cache(const P& p, u64 seed, i64 element) {
  return attention_reference::cache<C>(p, seed, element, p.batch_stride_k, p.head_stride_k, p.ldk);
}
template <class C, class P>
KGEN_DEVICE double init_v_cache(const P& p, u64 seed, i64 element) {
  return attention_reference::cache<C>(p, seed, element, p.batch_stride_v, p.head_stride_v, p.ldv);
}

template <class C, class P>
KGEN_DEVICE void reference_probabilities(const P& p, i64 item, double* out) {
  attention_reference::probabilities(attention_reference::row_of<C>(p, item), p.smax, out);
}

template <class C, class P>
KGEN_DEVICE void reference_o(const P& p, i64 element, double& value, double& magnitude) {
  namespace r = attention_reference;
  const i64 row = element / C::d, width = p.smax + 1;
  const bool stored = p.b * p.hq * width <= r::kStored;
  r::element(r::row_of<C>(p, row), stored ? p.probabilities + row * width : nullptr, p.smax, element % C::d, value,
             magnitude);
}

}  // namespace kgen
