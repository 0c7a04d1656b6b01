// How operators that pass once over a matrix of rows share it out, and loads of whole vectors with a masked tail.
//
//   [rows, cols]   block: tile of lanes_y*row_steps rows x lanes_x*vec*col_steps columns, tiles of a row side by side
//
//   block   | lane 0 | lane 1 | … | lane lanes_x-1 |  the same again col_steps times        a lane's piece is `vec`
//           | lanes_x …                            |  lanes_y rows of lanes, row_steps times  adjacent columns
//
// One axis of the grid: ceil_div(cols, lanes_x*vec*col_steps)*ceil_div(rows, lanes_y*row_steps) blocks. Read from the
// config: threads (= lanes_x*lanes_y), lanes_x, vec, row_steps, col_steps; flat, where there is such a choice: all is
// one row, and no block divides to find its place.
#pragma once
#include "prelude.h"

namespace kgen {

template <class C>
KGEN_HOST_DEVICE constexpr bool one_row() {
  if constexpr (requires { C::flat; })
    return C::flat != 0;
  else
    return false;
}

template <class C>
struct MatrixTile {
  static constexpr int kLanesY = C::threads / C::lanes_x;
  i64 first_row, first_column;  // of this work-item

  KGEN_DEVICE explicit MatrixTile(i64 cols) {
    constexpr int kColumns = C::lanes_x * C::vec * C::col_steps;
    const u32 across = u32((cols + kColumns - 1) / kColumns), block = u32(block_x());
    const u32 down = one_row<C>() ? 0 : block / across, lane = u32(thread_x());
    first_row = one_row<C>() ? 0 : i64(down) * (kLanesY * C::row_steps) + lane / C::lanes_x;
    first_column = i64(block - down * across) * kColumns + lane % C::lanes_x * C::vec;
  }
  KGEN_DEVICE i64 row(int step) const { return first_row + step * kLanesY; }
  KGEN_DEVICE i64 column(int step) const { return first_column + step * (C::lanes_x * C::vec); }
};

// a / b of numbers that are not negative; a 32-bit division is several times cheaper.
KGEN_DEVICE i64 quotient(i64 a, i64 b) { return u64(a | b) >> 32 ? a / b : i64(u32(a) / u32(b)); }

// How many of `width` values from `at` on exist; 0 or less: none.
KGEN_DEVICE int valid_of(i64 at, i64 end, int width) {
  const i64 left = end - at;
  return left < width ? int(left < 0 ? 0 : left) : width;
}

// p[0 … valid); what lies beyond is not read. `p` is aligned for a whole vector even where only a part exists.
template <int N, class T>
KGEN_DEVICE Vec<T, N> load_valid(const T* p, int valid) {
  if constexpr (N == 1) {
    return Vec<T, 1>{{valid > 0 ? *p : T{}}};
  } else {
    if (valid >= N) return load_vec<T, N>(p);
    Vec<T, N> v{};
    KGEN_UNROLL
    for (int i = 0; i < N - 1; ++i)
      if (i < valid) v[i] = p[i];
    return v;
  }
}

template <int N, class T>
KGEN_DEVICE void store_valid(T* p, int valid, const Vec<T, N>& v) {
  if constexpr (N == 1) {
    if (valid > 0) *p = v[0];
  } else {
    if (valid >= N) {
      store_vec<T, N>(p, v);
      return;
    }
    KGEN_UNROLL
    for (int i = 0; i < N - 1; ++i)
      if (i < valid) p[i] = v[i];
  }
}

}  // namespace kgen
