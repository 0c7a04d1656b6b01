// Second kernel of a split-K plan: adds the partial sums in a fixed order (the same bits on every run), then the
// epilogue.
//
//   partial [split_k][batch*m][n] fp32  →  d;  a work-item takes C::reduce_columns consecutive columns of one row,
//   grid = ceil_div(batch*m * ceil_div(n, reduce_columns), block), one axis
#pragma once
#include "epilogue.h"
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void split_k_reduce(const P& p) {
  constexpr int kColumns = C::reduce_columns;
  const i64 groups = (p.n + kColumns - 1) / kColumns;
  const i64 item = i64(block_x()) * block_size() + thread_x();
  const i64 rows = p.batch * p.m;
  if (item >= rows * groups) return;
  const i64 row = item / groups, column = item % groups * kColumns;
  const i64 left = p.n - column;
  const int valid = left < kColumns ? int(left) : kColumns;
  float sum[kColumns] = {};
  const float* source = p.partial + row * p.n + column;
  for (int s = 0; s < C::split_k; ++s, source += rows * p.n) {
    float part[kColumns];
    epilogue_detail::load_columns<kColumns>(source, valid, part);
    KGEN_UNROLL
    for (int i = 0; i < kColumns; ++i) sum[i] += part[i];
  }
  epilogue<C, kColumns>(p, row / p.m, row % p.m, column, sum);
}

}  // namespace kgen
