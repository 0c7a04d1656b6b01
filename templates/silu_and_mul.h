// y = silu(x[:, :cols]) * x[:, cols:]
//
//   The output is one run of vectors, row after row:   block b │ item 0: one vector a work-item │ item 1 … │ block b+1
//   Each is read from the left and the right half of its row; 2*items loads are in flight in a work-item.
//
// Legal: vec divides cols and the row strides; cols < 2^30.
#pragma once
#include "columns.h"
#include "epilogue.h"
#include "matrix_tile.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void silu_and_mul(const P& p) {
  using T = typename C::dtype;
  using V = Packed<T, C::vec>;
  const i64 first = i64(block_x()) * (C::threads * C::items), row_vectors = p.cols / C::vec;
  const i64 first_row = quotient(first, row_vectors);
  const u32 first_column = u32(first - first_row * row_vectors);
  V gate[C::items], up[C::items];
  T* to[C::items];
  bool exists[C::items];
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const u32 at = first_column + u32(i * C::threads + thread_x()), rows_on = at / u32(row_vectors);
    const i64 row = first_row + rows_on;
    const i64 column = i64(at - rows_on * u32(row_vectors)) * C::vec;
    exists[i] = row < p.rows;
    const T* from = p.x + (exists[i] ? row : 0) * p.ldx + column;
    gate[i] = V::load(from);
    up[i] = V::load(from + p.cols);
    to[i] = p.y + row * p.ldy + column;
  }
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    if (!exists[i]) continue;
    V y;
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) y.set(e, silu<T>(gate[i][e]) * up[i][e]);
    y.store(to[i]);
  }
}

}  // namespace kgen
