// How blocks share the rows and columns of an operator that works on whole rows (norms, softmax).
//
//   in registers: a block takes C::rows_block rows, C::lanes work-items each; a row is read once
//       row r    │ v0 v1 … v(lanes-1) │ item 0       v: C::vec elements, one access
//                │ v0 v1 … v(lanes-1) │ item 1       cols <= lanes*vec*items; vectors past the end are masked
//       row r+1  │ …
//   streaming: a block of C::lanes work-items takes part block_y() of C::parts of one row and walks over it,
//       lanes*vec*items columns at a time; results of parts meet in a workspace [row][part], added up in order.
//
// Legal: vec divides cols and the row strides, and rows are aligned as Vec<T, vec>; lanes a power of two; rows_block ==
// 1 where lanes > wave; cols < 2^30.
#pragma once
#include "columns.h"
#include "reduce.h"

namespace kgen {

// This work-item's place. A row past the last is a repetition of it (`exists` false): reductions need all lanes.
template <class C>
struct RowPlace {
  i64 row;
  bool exists;
  int lane;

  KGEN_DEVICE explicit RowPlace(i64 rows) {
    const u32 at = u32(thread_x());
    lane = int(at % C::lanes);
    row = C::rows_block == 1 ? i64(block_x()) : i64(block_x()) * C::rows_block + at / C::lanes;
    exists = C::rows_block == 1 || row < rows;
    if (!exists) row = rows - 1;
  }
};

// First column of item i in a tile that begins at `begin`.
template <class C>
KGEN_DEVICE int item_column(int begin, int lane, int item) {
  return begin + (item * C::lanes + lane) * C::vec;
}

// The items of a tile. Past `end` the row's first vector is read, so that no load waits for a branch.
template <class C, class T>
KGEN_DEVICE void load_items(const T* row, int begin, int end, int lane, Packed<T, C::vec> (&v)[C::items]) {
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const int column = item_column<C>(begin, lane, i);
    v[i] = Packed<T, C::vec>::load(row + (column < end ? column : 0));
  }
}

// Over the work-items of a row. Reductions of one kernel that follow each other use different slots.
template <class C, int kSlot = 0, class T, class Op>
KGEN_DEVICE T reduce_row(T value, Op op) {
  if constexpr (C::lanes <= kWaveSize)
    return reduce_wave<C::lanes>(value, op);
  else
    return reduce_block<C::lanes>(value, lds<T>(kSlot * kReduceLds<T, C::lanes>), op);
}

// Columns [begin, end) of a streaming block.
struct RowPart {
  int begin, end;
};
template <class C>
KGEN_DEVICE RowPart row_part(i64 cols) {
  if constexpr (C::parts == 1) return {0, int(cols)};
  const i64 width = ((cols + C::parts - 1) / C::parts + C::vec - 1) / C::vec * C::vec;
  const i64 begin = block_y() * width < cols ? block_y() * width : cols;
  return {int(begin), int(cols - begin < width ? cols : begin + width)};
}

// A streaming block's result for one part of a row, and all of them together.
template <class C, class T>
KGEN_DEVICE void store_part(float* partial, i64 row, const T& value) {
  if (thread_x() == 0) reinterpret_cast<T*>(partial)[row * C::parts + block_y()] = value;
}
template <class C, class T, class Op>
KGEN_DEVICE T merge_parts(const float* partial, i64 row, T neutral, Op op) {
  const T* parts = reinterpret_cast<const T*>(partial) + row * C::parts;
  T value = neutral;
  for (int i = thread_x(); i < C::parts; i += C::lanes) value = op(value, parts[i]);
  return reduce_row<C>(value, op);
}

}  // namespace kgen
