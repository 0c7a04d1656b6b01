// Second kernel of a split-K plan: adds the partial sums in a fixed order (the same bits on every run), then the
// epilogue.
//
//   partial [split_k][batch*m][n] fp32  →  d;  a work-item takes C::reduce_columns consecutive columns of one row,
//   grid = ceil_div(batch*m * ceil_div(n, reduce_columns), block), one axis
#pragma once
#include "epilogue.h"
#include "prelude.h"

namespace kgen {

// store(batch, row, column, sums): reduce_columns sums of a row of [batches][m][n].
template <class C, class Store>
KGEN_DEVICE void reduce_partial(const float* partial, i64 batches, i64 m, i64 n, const Store& store) {
  constexpr int kColumns = C::reduce_columns;
  const i64 groups = (n + kColumns - 1) / kColumns;
  const i64 item = i64(block_x()) * block_size() + thread_x();
  const i64 rows = batches * m;
  if (item >= rows * groups) return;
  const i64 row = item / groups, column = item % groups * kColumns;
  const i64 left = n - column;
  const int valid = left < kColumns ? int(left) : kColumns;
  float sum[kColumns] = {};
  const float* source = partial + row * n + column;
  for (int s = 0; s < C::split_k; ++s, source += rows * n) {
    float part[kColumns];
    load_columns<kColumns>(source, valid, part);
    KGEN_UNROLL
    for (int i = 0; i < kColumns; ++i) sum[i] += part[i];
  }
  store(row / m, row % m, column, sum);
}

template <class C, class P>
KGEN_DEVICE void split_k_reduce(const P& p) {
  constexpr int kColumns = C::reduce_columns;
  reduce_partial<C>(p.partial, p.batch, p.m, p.n, [&](i64 batch, i64 row, i64 column, const float(&sum)[kColumns]) {
    epilogue<C, kColumns>(p, batch, row, column, sum);
  });
}

}  // namespace kgen
