// Operators that only move data: concat and upsample_nearest2x. Bits are copied, never converted.
//
// concat               y row | x0 row | x1 row | …; tile of rows x columns of y (matrix_tile.h), lane: vec columns of
// row_steps
//                      rows, all of one operand, since every operand is a whole number of vectors
// upsample_nearest2x   NHWC: tile of input pixels x channels, a lane's vector is written to four pixels
//                      NCHW: tile of input lines x columns, a lane's vec columns become 2*vec columns of two lines
#pragma once
#include "conv_types.h"
#include "matrix_tile.h"
#include "prelude.h"

namespace kgen {

// Where column `column` of a row of y comes from; it lies in one of the operands.
template <class P>
KGEN_DEVICE auto concat_source(const P& p, i64 row, i64 column) {
  if (column < p.inner_0) return p.x_0 + row * p.ldx_0 + column;
  column -= p.inner_0;
  if (column < p.inner_1) return p.x_1 + row * p.ldx_1 + column;
  column -= p.inner_1;
  if (column < p.inner_2) return p.x_2 + row * p.ldx_2 + column;
  column -= p.inner_2;
  if (column < p.inner_3) return p.x_3 + row * p.ldx_3 + column;
  column -= p.inner_3;
  if (column < p.inner_4) return p.x_4 + row * p.ldx_4 + column;
  column -= p.inner_4;
  if (column < p.inner_5) return p.x_5 + row * p.ldx_5 + column;
  column -= p.inner_5;
  if (column < p.inner_6) return p.x_6 + row * p.ldx_6 + column;
  column -= p.inner_6;
  return p.x_7 + row * p.ldx_7 + column;
}

template <class C, class P>
KGEN_DEVICE void concat(const P& p) {
  using T = typename C::dtype;
  const i64 cols = p.inner_0 + p.inner_1 + p.inner_2 + p.inner_3 + p.inner_4 + p.inner_5 + p.inner_6 + p.inner_7;
  const MatrixTile<C> tile(cols);
  Vec<T, C::vec> values[C::col_steps][C::row_steps];
  KGEN_UNROLL
  for (int c = 0; c < C::col_steps; ++c) {
    KGEN_UNROLL
    for (int r = 0; r < C::row_steps; ++r)
      if (tile.column(c) < cols && tile.row(r) < p.outer)
        values[c][r] = load_vec<T, C::vec>(concat_source(p, tile.row(r), tile.column(c)));
  }
  KGEN_UNROLL
  for (int c = 0; c < C::col_steps; ++c) {
    KGEN_UNROLL
    for (int r = 0; r < C::row_steps; ++r)
      if (tile.column(c) < cols && tile.row(r) < p.outer)
        store_vec<T, C::vec>(p.y + tile.row(r) * p.ldy + tile.column(c), values[c][r]);
  }
}

template <class C, class P>
KGEN_DEVICE void upsample_nearest2x(const P& p) {
  using T = typename C::dtype;
  constexpr bool kNhwc = C::layout == layout::nhwc;
  const i64 rows = kNhwc ? p.n * p.h * p.w : p.n * p.c * p.h, cols = kNhwc ? p.c : p.w;
  const MatrixTile<C> tile(cols);
  Vec<T, C::vec> values[C::row_steps];
  KGEN_UNROLL
  for (int step = 0; step < C::row_steps; ++step) {
    const i64 row = tile.row(step);
    if (row < rows)
      values[step] = load_valid<C::vec>(p.x + row * (kNhwc ? p.ldx : p.w) + tile.first_column,
                                        valid_of(tile.first_column, cols, C::vec));
  }
  KGEN_UNROLL
  for (int step = 0; step < C::row_steps; ++step) {
    const i64 row = tile.row(step);
    const int valid = valid_of(tile.first_column, cols, C::vec);
    if (row >= rows || valid == 0) continue;
    if constexpr (kNhwc) {
      const i64 line = quotient(row, p.w), pixel = row - line * p.w;
      T* to = p.y + (4 * line * p.w + 2 * pixel) * p.ldy + tile.first_column;
      store_valid<C::vec>(to, valid, values[step]);
      store_valid<C::vec>(to + p.ldy, valid, values[step]);
      store_valid<C::vec>(to + 2 * p.w * p.ldy, valid, values[step]);
      store_valid<C::vec>(to + (2 * p.w + 1) * p.ldy, valid, values[step]);
    } else {
      Vec<T, 2 * C::vec> pairs;
      KGEN_UNROLL
      for (int e = 0; e < 2 * C::vec; ++e) pairs[e] = values[step][e / 2];
      T* to = p.y + 4 * row * p.w + 2 * tile.first_column;
      store_valid<2 * C::vec>(to, 2 * valid, pairs);
      store_valid<2 * C::vec>(to + 2 * p.w, 2 * valid, pairs);
    }
  }
}

}  // namespace kgen
