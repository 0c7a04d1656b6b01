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

// What the last `damaged` keys have in a column: by turns an infinity of either sign and a NaN.
KGEN_DEVICE double normal_or_damaged(u64 seed, i64 element, bool damaged, i64 turn) {
  if (!damaged) return random_value(seed, u64(element), int(Distribution::normal), 0, 1);
  return turn % 3 == 0 ? nan_d() : turn % 3 == 1 ? infinity_d() : -infinity_d();
}

}  // namespace attention_reference

// With `damaged` keys the middle query of each head has a NaN, and the keys by turns one element of v and one of k that
// is not finite: not both in one key, for where its weight is 0 it is a matter of taste whether 0 * NaN counts.
template <class C, class P>
KGEN_DEVICE double init_q(const P& p, u64 seed, i64 element) {
  namespace r = attention_reference;
  const r::Place at = r::place_of(element, p.batch_stride_q, p.head_stride_q, p.ldq);
  return r::normal_or_damaged(seed, element, p.damaged > 0 && at.row == p.sq / 2 && at.column == C::d - 1, at.head);
}
template <class C, class P>
KGEN_DEVICE double init_k(const P& p, u64 seed, i64 element) {
  namespace r = attention_reference;
  const r::Place at = r::place_of(element, p.batch_stride_k, p.head_stride_k, p.ldk);
  const i64 left = p.skv - at.row;  // 1: the last key
  return r::normal_or_damaged(seed, element, left <= p.damaged && left % 2 == 0 && at.column == left % C::d, left / 2);
}
template <class C, class P>
KGEN_DEVICE double init_v(const P& p, u64 seed, i64 element) {
  namespace r = attention_reference;
  const r::Place at = r::place_of(element, p.batch_stride_v, p.head_stride_v, p.ldv);
  const i64 left = p.skv - at.row;
  return r::normal_or_damaged(seed, element, left <= p.damaged && left % 2 == 1 && at.column == 3 * left % C::dv,
                              left / 2 + at.head);
}

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
