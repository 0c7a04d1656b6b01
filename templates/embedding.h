// y[row] = table[ids[row]]: rows are copied as they are.
//
//   block: rows_block rows, lanes work-items each, lanes*vec*items columns of them (block_y() says which); all loads of
// a work-item are in flight at once (row_tile.h). An id outside the table is the caller's error.
#pragma once
#include "row_tile.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void embedding(const P& p) {
  using T = typename C::dtype;
  const RowPlace<C> at(p.rows);
  const int begin = block_y() * (C::lanes * C::vec * C::items), cols = int(p.cols);
  Packed<T, C::vec> v[C::items];
  load_items<C>(p.table + i64(p.ids[at.row]) * p.ldt, begin, cols, at.lane, v);
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const int column = item_column<C>(begin, at.lane, i);
    if (at.exists && column < cols) v[i].store(p.y + at.row * p.ldy + column);
  }
}

}  // namespace kgen
