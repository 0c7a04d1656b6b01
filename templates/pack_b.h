// One-time step of a plan with pack_b: B rewritten as [batch][round_up(n, pack_n)][round_up(k, pack_k)] with zeros in
// the padding, so that the kernel reads aligned rows of "nk" B whatever its layout, strides and sizes were.
//
// A work-item writes one 16-byte vector; grid = ceil_div(batch * rows * stride / (16 / element bytes), 256), one axis.
#pragma once
#include "gemm_types.h"
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE i64 packed_rows(const P& p) {
  return (p.n + C::pack_n - 1) / C::pack_n * C::pack_n;
}
// Row stride of the packed B.
template <class C, class P>
KGEN_DEVICE i64 packed_stride(const P& p) {
  return (p.k + C::pack_k - 1) / C::pack_k * C::pack_k;
}

template <class C, class P>
KGEN_DEVICE void pack_b(const P& p) {
  using T = typename C::dtype;
  constexpr int kWidth = 16 / int(sizeof(T));
  static_assert(C::pack_k % kWidth == 0, "a packed row is whole vectors");
  const i64 rows = packed_rows<C>(p), stride = packed_stride<C>(p);
  const i64 item = i64(block_x()) * block_size() + thread_x();
  const i64 row = item / (stride / kWidth), k = item % (stride / kWidth) * kWidth;  // row over all batches
  if (row >= p.batch * rows) return;
  const i64 n = row % rows;
  const T* b = p.b + row / rows * p.batch_stride_b;
  Vec<T, kWidth> v = {};
  for (int i = 0; i < kWidth; ++i)
    if (n < p.n && k + i < p.k) v[i] = C::b_layout == b_layout::nk ? b[n * p.ldb + k + i] : b[(k + i) * p.ldb + n];
  store_vec<T, kWidth>(p.packed + row * stride + k, v);
}

}  // namespace kgen
