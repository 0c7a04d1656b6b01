// softmax over rows: y = exp(x - max) / sum(exp(x - max)); -inf gives 0, also where the whole row is -inf.
//
// Tiles, waves and lanes: row_tile.h. softmax_rows holds its rows in registers; softmax_stream finds (max, sum) of a
// row in one pass, with the sum rescaled where the maximum grows, and writes in a second one; softmax_partial and
// softmax_apply are these passes of several blocks a row.
#pragma once
#include "row_tile.h"

namespace kgen {

// 1/sum; a row without anything above -inf has the sum 0 and gives 0.
KGEN_DEVICE float softmax_scale(float sum) { return sum == 0.0f ? 0.0f : 1.0f / sum; }

// The elements of a tile as floats, -inf past its end.
template <class C, class T>
KGEN_DEVICE void load_logits(const T* row, int begin, int end, int lane, float (&v)[C::items][C::vec]) {
  Packed<T, C::vec> packed[C::items];
  load_items<C>(row, begin, end, lane, packed);
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const bool exists = item_column<C>(begin, lane, i) < end;
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) v[i][e] = exists ? packed[i][e] : negative_infinity();
  }
}

template <class C>
KGEN_DEVICE float tile_maximum(const float (&v)[C::items][C::vec]) {
  float max = negative_infinity();
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) max = Maximum()(max, v[i][e]);
  }
  return max;
}

// v = exp(v - shift); returns the sum.
template <class C>
KGEN_DEVICE float tile_exp(float (&v)[C::items][C::vec], float shift) {
  float sum = 0.0f;
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) sum += v[i][e] = exp_f(v[i][e] - shift);
  }
  return sum;
}

template <class C, class P>
KGEN_DEVICE void store_scaled(const P& p, i64 row, int begin, int end, int lane, const float (&v)[C::items][C::vec],
                              float scale) {
  using Out = typename C::out_dtype;
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const int column = item_column<C>(begin, lane, i);
    if (column >= end) continue;
    Packed<Out, C::vec> y;
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) y.set(e, v[i][e] * scale);
    y.store(p.y + row * p.ldy + column);
  }
}

template <class C, class P>
KGEN_DEVICE void softmax_rows(const P& p) {
  const RowPlace<C> at(p.rows);
  const int cols = int(p.cols);
  float v[C::items][C::vec];
  load_logits<C>(p.x + at.row * p.ldx, 0, cols, at.lane, v);
  const float max = reduce_row<C, 0>(tile_maximum<C>(v), Maximum());
  const float sum = reduce_row<C, 1>(tile_exp<C>(v, softmax_shift(max)), Add());
  if (at.exists) store_scaled<C>(p, at.row, 0, cols, at.lane, v, softmax_scale(sum));
}

template <class C, class P>
KGEN_DEVICE MaxSum softmax_part(const P& p, i64 row, const RowPart& part, int lane) {
  MaxSum total = {negative_infinity(), 0.0f};
  KGEN_NO_UNROLL
  for (int begin = part.begin; begin < part.end; begin += C::lanes * C::vec * C::items) {
    float v[C::items][C::vec];
    load_logits<C>(p.x + row * p.ldx, begin, part.end, lane, v);
    const float max = Maximum()(total.max, tile_maximum<C>(v)), shift = softmax_shift(max);
    total.sum = total.sum * exp_f(total.max - shift) + tile_exp<C>(v, shift);
    total.max = max;
  }
  return reduce_row<C>(total, MergeMaxSum());
}

template <class C, class P>
KGEN_DEVICE void apply_softmax(const P& p, i64 row, const RowPart& part, int lane, const MaxSum& total) {
  const float shift = softmax_shift(total.max), scale = softmax_scale(total.sum);
  KGEN_NO_UNROLL
  for (int begin = part.begin; begin < part.end; begin += C::lanes * C::vec * C::items) {
    float v[C::items][C::vec];
    load_logits<C>(p.x + row * p.ldx, begin, part.end, lane, v);
    tile_exp<C>(v, shift);
    store_scaled<C>(p, row, begin, part.end, lane, v, scale);
  }
}

template <class C, class P>
KGEN_DEVICE void softmax_stream(const P& p) {
  const i64 row = block_x();
  const RowPart part = row_part<C>(p.cols);
  apply_softmax<C>(p, row, part, thread_x(), softmax_part<C>(p, row, part, thread_x()));
}

template <class C, class P>
KGEN_DEVICE void softmax_partial(const P& p) {
  const i64 row = block_x();
  store_part<C>(p.partial, row, softmax_part<C>(p, row, row_part<C>(p.cols), thread_x()));
}

template <class C, class P>
KGEN_DEVICE void softmax_apply(const P& p) {
  const i64 row = block_x();
  const MaxSum total = merge_parts<C>(p.partial, row, MaxSum{negative_infinity(), 0.0f}, MergeMaxSum());
  apply_softmax<C>(p, row, row_part<C>(p.cols), thread_x(), total);
}

}  // namespace kgen
