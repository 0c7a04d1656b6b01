// Pointwise operators made by an expression: outputs = expr(matrices, one value a column, one value a row, scalars).
//
//   tile of rows and columns (matrix_tile.h) → lane: vec adjacent columns of row_steps rows
//
// A lane first loads everything that it needs (values of columns once for all of its rows), then computes in fp32 and
// rounds each output once. With C::flat the matrices have no gaps and are one long row.
#pragma once
#include "epilogue.h"
#include "matrix_tile.h"
#include "prelude.h"

namespace kgen {

// What an expression may call, in fp32, of which the result is rounded to Out.
template <class Out>
struct FloatFunctions {
  KGEN_DEVICE static float relu(float x) { return kgen::relu(x); }
  KGEN_DEVICE static float gelu_erf(float x) { return kgen::gelu_erf<Out>(x); }
  KGEN_DEVICE static float gelu_tanh(float x) { return kgen::gelu_tanh<Out>(x); }
  KGEN_DEVICE static float silu(float x) { return kgen::silu<Out>(x); }
  KGEN_DEVICE static float quick_gelu(float x) { return kgen::quick_gelu<Out>(x); }
  KGEN_DEVICE static float sigmoid(float x) { return kgen::sigmoid<Out>(x); }
  KGEN_DEVICE static float exp(float x) { return exp_f(x); }
  KGEN_DEVICE static float sqrt(float x) { return sqrt_f(x); }
  KGEN_DEVICE static float rsqrt(float x) { return rsqrt_f(x); }
  KGEN_DEVICE static float abs(float x) { return abs_f(x); }
  KGEN_DEVICE static float tanh(float x) { return tanh_f(x); }
  KGEN_DEVICE static float erf(float x) { return erf_f(x); }
  // A NaN on either side stays.
  KGEN_DEVICE static float min(float a, float b) { return b < a || b != b ? b : a; }
  KGEN_DEVICE static float max(float a, float b) { return b > a || b != b ? b : a; }
};

namespace elementwise_detail {

// How many of a lane's elements from `column` on exist. With C::whole it is all or none, and no code for a part.
template <class C>
KGEN_DEVICE int valid_columns(i64 column, i64 cols) {
  if constexpr (C::whole)
    return column < cols ? C::vec : 0;
  else
    return valid_of(column, cols, C::vec);
}

// An array of at least one element, for operands that may be none.
KGEN_HOST_DEVICE constexpr int some(int count) { return count > 0 ? count : 1; }

template <class C, int I = 0, class P>
KGEN_DEVICE void load_matrices(const P& p, i64 row, i64 column, int valid, Vec<typename C::dtype, C::vec>* values) {
  if constexpr (I < C::expr_matrix) {
    values[I] = load_valid<C::vec>(C::template matrix<I>(p) + row * C::template ld_matrix<I>(p) + column, valid);
    load_matrices<C, I + 1>(p, row, column, valid, values);
  }
}
template <class C, int I = 0, class P>
KGEN_DEVICE void load_cols(const P& p, i64 column, int valid, Vec<typename C::col_dtype, C::vec>* values) {
  if constexpr (I < C::expr_col) {
    values[I] = load_valid<C::vec>(C::template col<I>(p) + column, valid);
    load_cols<C, I + 1>(p, column, valid, values);
  }
}
template <class C, int I = 0, class P>
KGEN_DEVICE void load_rows(const P& p, i64 row, float* values) {
  if constexpr (I < C::expr_row) {
    values[I] = to_float(C::template row<I>(p)[row]);
    load_rows<C, I + 1>(p, row, values);
  }
}
template <class C, int I = 0, class P>
KGEN_DEVICE void load_scalars(const P& p, float* values) {
  if constexpr (I < C::expr_scalar) {
    values[I] = C::template scalar<I>(p);
    load_scalars<C, I + 1>(p, values);
  }
}
template <class C, int I = 0, class P>
KGEN_DEVICE void store_outputs(const P& p, i64 row, i64 column, int valid,
                               const Vec<typename C::out_dtype, C::vec>* values) {
  if constexpr (I < C::expr_output) {
    store_valid<C::vec>(C::template output<I>(p) + row * C::template ld_output<I>(p) + column, valid, values[I]);
    store_outputs<C, I + 1>(p, row, column, valid, values);
  }
}

}  // namespace elementwise_detail

template <class C, class P>
KGEN_DEVICE void elementwise(const P& p) {
  namespace detail = elementwise_detail;
  constexpr int kVec = C::vec, kRows = C::row_steps, kCols = C::col_steps;
  constexpr int kMatrices = detail::some(C::expr_matrix), kColValues = detail::some(C::expr_col),
                kRowValues = detail::some(C::expr_row), kScalars = detail::some(C::expr_scalar);
  const i64 rows = C::flat ? 1 : p.rows, cols = C::flat ? p.rows * p.cols : p.cols;
  const MatrixTile<C> tile(cols);

  float scalars[kScalars], row_values[kRows][kRowValues];
  Vec<typename C::dtype, kVec> values[kCols][kRows][kMatrices];
  Vec<typename C::col_dtype, kVec> col_values[kCols][kColValues];
  detail::load_scalars<C>(p, scalars);
  KGEN_UNROLL
  for (int r = 0; r < kRows; ++r)
    if (tile.row(r) < rows) detail::load_rows<C>(p, tile.row(r), row_values[r]);
  KGEN_UNROLL
  for (int c = 0; c < kCols; ++c) {
    const i64 column = tile.column(c);
    const int valid = detail::valid_columns<C>(column, cols);
    if (valid == 0) continue;
    detail::load_cols<C>(p, column, valid, col_values[c]);
    KGEN_UNROLL
    for (int r = 0; r < kRows; ++r)
      if (tile.row(r) < rows) detail::load_matrices<C>(p, tile.row(r), column, valid, values[c][r]);
  }

  KGEN_UNROLL
  for (int c = 0; c < kCols; ++c) {
    const i64 column = tile.column(c);
    const int valid = detail::valid_columns<C>(column, cols);
    if (valid == 0) continue;
    KGEN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (tile.row(r) >= rows) continue;
      Vec<typename C::out_dtype, kVec> made[C::expr_output];
      KGEN_UNROLL
      for (int i = 0; i < kVec; ++i) {
        float matrix[kMatrices], col[kColValues], output[C::expr_output];
        KGEN_UNROLL
        for (int m = 0; m < C::expr_matrix; ++m) matrix[m] = to_float(values[c][r][m][i]);
        KGEN_UNROLL
        for (int m = 0; m < C::expr_col; ++m) col[m] = to_float(col_values[c][m][i]);
        C::template expr<FloatFunctions<typename C::out_dtype>>(matrix, col, row_values[r], scalars, output);
        KGEN_UNROLL
        for (int o = 0; o < C::expr_output; ++o) made[o][i] = from_float<typename C::out_dtype>(output[o]);
      }
      detail::store_outputs<C>(p, tile.row(r), column, valid, made);
    }
  }
}

}  // namespace kgen
