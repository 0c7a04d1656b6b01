// Reference of attention: query i of head h sees key j <= i + (skv - sq) of head h div (hq/hkv).
#pragma once
#include "attention_reference.h"

namespace kgen {
namespace attention_reference {

template <class C, class P>
KGEN_DEVICE Row<typename C::dtype> row_of(const P& p, i64 index) {
  const i64 query = index % p.sq, head = index / p.sq % p.hq, batch = index / p.sq / p.hq;
  const i64 kv_head = head / (p.hq / p.hkv);
  Row<typename C::dtype> row;
  row.q = p.q + batch * p.batch_stride_q + head * p.head_stride_q + query * p.ldq;
  row.k = p.k + batch * p.batch_stride_k + kv_head * p.head_stride_k;
  row.v = p.v + batch * p.batch_stride_v + kv_head * p.head_stride_v;
  row.ldk = p.ldk;
  row.ldv = p.ldv;
  row.keys = p.skv;
  if (C::causal != 0) {
    const i64 seen = query + p.skv - p.sq + 1;
    row.keys = seen < 0 ? 0 : seen < p.skv ? seen : p.skv;
  }
  row.d = int(C::d);
  row.scale = scale_of(p, int(C::d));
  return row;
}

}  // namespace attention_reference

template <class C, class P>
KGEN_DEVICE void reference_probabilities(const P& p, i64 item, double* out) {
  attention_reference::probabilities(attention_reference::row_of<C>(p, item), p.skv, out);
}

template <class C, class P>
KGEN_DEVICE void reference_o(const P& p, i64 element, double& value, double& magnitude) {
  namespace r = attention_reference;
  const i64 row = element / C::dv, width = p.skv + 1;
  const bool stored = p.b * p.hq * p.sq * width <= r::kStored;
  r::element(r::row_of<C>(p, row), stored ? p.probabilities + row * width : nullptr, p.skv, element % C::dv, value,
             magnitude);
}

}  // namespace kgen
