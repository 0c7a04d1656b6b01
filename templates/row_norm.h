// rmsnorm, add_rmsnorm and layernorm: statistics of a row, then every element by them. fp32 inside, one rounding.
//
//   rmsnorm      y = x * inv * w,               inv = 1/sqrt(mean(x^2) + eps)
//   add_rmsnorm  s = x + residual, rounded and stored; then rmsnorm of the rounded s      (C::adds_residual)
//   layernorm    y = (x - mean) * inv * w + b,  inv = 1/sqrt(mean((x - mean)^2) + eps)    (C::centered)
//
// Tiles, waves and lanes: row_tile.h. norm_rows holds its rows in registers; norm_stream passes twice over one row;
// norm_partial and norm_apply are the two passes of several blocks a row.
//
// layernorm works on d = x - (first element of the row): d is exact where |mean| >> std, and 0 in a constant row. In
// registers the deviations are summed in a second pass; streaming merges (count, mean, sum of squared deviations) of
// tiles. Neither computes E[x^2] - E[x]^2.
#pragma once
#include "row_tile.h"

namespace kgen {

// count, mean and sum of squared deviations from it.
struct Moments {
  float count, mean, m2;
};
struct MergeMoments {
  KGEN_DEVICE Moments operator()(const Moments& a, const Moments& b) const {
    const float count = a.count + b.count;
    const float share = count > 0.0f ? b.count / count : 0.0f, delta = b.mean - a.mean;
    return {count, fma_f(delta, share, a.mean), a.m2 + b.m2 + delta * delta * (a.count * share)};
  }
};

// What an element is normalised with: (x - shift - mean) * inv.
struct RowStatistics {
  float shift, mean, inv;
};

// What a square is weighted with in the mean of squares. Lanes weight their own, so that nothing but the root is left
// to do when the sum is known.
template <class P>
KGEN_DEVICE float square_share(const P& p) {
  return rcp_f(float(int(p.cols)));
}
template <class C, class P>
KGEN_DEVICE RowStatistics row_statistics(const P& p, float shift, float mean, float mean_square) {
  return {shift, mean, rsqrt_f(mean_square + p.eps)};
}

// The rows that are normalised: x, or the sum that was stored over the residual.
template <class C, class P>
KGEN_DEVICE auto norm_source(const P& p, i64 row) {
  if constexpr (C::adds_residual)
    return p.residual + row * p.ldr;
  else
    return p.x + row * p.ldx;
}

template <class C, class P>
KGEN_DEVICE float norm_shift(const P& p, i64 row) {
  if constexpr (C::centered)
    return to_float(p.x[row * p.ldx]);
  else
    return 0.0f;
}

// v = round(v + residual), stored over the residual where `exists`.
template <class C, class T, class P>
KGEN_DEVICE void add_residual(const P& p, i64 row, int begin, int end, int lane, bool exists,
                              Packed<T, C::vec> (&v)[C::items]) {
  if constexpr (C::adds_residual) {
    T* residual = p.residual + row * p.ldr;
    Packed<T, C::vec> other[C::items];
    load_items<C>(static_cast<const T*>(residual), begin, end, lane, other);
    KGEN_UNROLL
    for (int i = 0; i < C::items; ++i) {
      Packed<T, C::vec> sum;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) sum.set(e, v[i][e] + other[i][e]);
      v[i] = sum;
      const int column = item_column<C>(begin, lane, i);
      if (exists && column < end) sum.store(residual + column);
    }
  }
}

// One tile of the output; weight and bias are loaded before by load_items().
template <class C, class T, class W, class P>
KGEN_DEVICE void store_normalised(const P& p, i64 row, int begin, int end, int lane, const RowStatistics& s,
                                  const Packed<T, C::vec> (&v)[C::items], const Packed<W, C::vec> (&weight)[C::items],
                                  const Packed<W, C::vec> (&bias)[C::items]) {
  using Out = typename C::out_dtype;
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    const int column = item_column<C>(begin, lane, i);
    if (column >= end) continue;
    Packed<Out, C::vec> y;
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) {
      if constexpr (C::centered)
        y.set(e, fma_f((v[i][e] - s.shift - s.mean) * s.inv, weight[i][e], bias[i][e]));
      else
        y.set(e, v[i][e] * s.inv * weight[i][e]);
    }
    y.store(p.y + row * p.ldy + column);
  }
}

// The bias of a tile; without one (rmsnorm) it is never read.
template <class C, class W, class P>
KGEN_DEVICE void load_bias(const P& p, int begin, int end, int lane, Packed<W, C::vec> (&bias)[C::items]) {
  if constexpr (C::centered) load_items<C>(p.bias, begin, end, lane, bias);
}

template <class C, class P>
KGEN_DEVICE void norm_rows(const P& p) {
  using T = typename C::dtype;
  using W = typename C::weight_dtype;
  const RowPlace<C> at(p.rows);
  const int cols = int(p.cols);
  Packed<T, C::vec> v[C::items];
  Packed<W, C::vec> weight[C::items], bias[C::items];
  load_items<C>(p.x + at.row * p.ldx, 0, cols, at.lane, v);
  add_residual<C>(p, at.row, 0, cols, at.lane, at.exists, v);
  load_items<C>(p.weight, 0, cols, at.lane, weight);
  load_bias<C>(p, 0, cols, at.lane, bias);

  const float shift = norm_shift<C>(p, at.row);
  float mean = 0.0f;
  if constexpr (C::centered) {
    float sum = 0.0f;
    KGEN_UNROLL
    for (int i = 0; i < C::items; ++i) {
      if (item_column<C>(0, at.lane, i) >= cols) continue;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) sum += v[i][e] - shift;
    }
    mean = reduce_row<C, 0>(sum, Add()) / float(cols);
  }
  float squares = 0.0f;
  KGEN_UNROLL
  for (int i = 0; i < C::items; ++i) {
    if (item_column<C>(0, at.lane, i) >= cols) continue;
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) {
      const float d = C::centered ? v[i][e] - shift - mean : v[i][e];
      squares = fma_f(d, d, squares);
    }
  }
  squares = reduce_row<C, 1>(squares * square_share(p), Add());
  if (!at.exists) return;
  store_normalised<C>(p, at.row, 0, cols, at.lane, row_statistics<C>(p, shift, mean, squares), v, weight, bias);
}

// Sum of squares of a part of a row, by tiles and groups of 64 tiles: one fp32 chain over 152064 equal terms (the
// host's single lane) is wrong by 4e-4. (Carrying what each addition loses would turn an infinity into NaN.)
template <class C, class P>
KGEN_DEVICE float part_squares(const P& p, i64 row, const RowPart& part, int lane) {
  using T = typename C::dtype;
  float squares = 0.0f, group = 0.0f;
  int tiles = 0;
  KGEN_NO_UNROLL
  for (int begin = part.begin; begin < part.end; begin += C::lanes * C::vec * C::items) {
    Packed<T, C::vec> v[C::items];
    load_items<C>(p.x + row * p.ldx, begin, part.end, lane, v);
    add_residual<C>(p, row, begin, part.end, lane, true, v);
    float tile = 0.0f;
    KGEN_UNROLL
    for (int i = 0; i < C::items; ++i) {
      if (item_column<C>(begin, lane, i) >= part.end) continue;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) tile = fma_f(v[i][e], v[i][e], tile);
    }
    group += tile;
    if (++tiles % 64 == 0) {
      squares += group;
      group = 0.0f;
    }
  }
  return reduce_row<C>(squares + group, Add());
}

// Moments of x - shift over a part of a row.
template <class C, class P>
KGEN_DEVICE Moments part_moments(const P& p, i64 row, const RowPart& part, int lane, float shift) {
  using T = typename C::dtype;
  Moments moments = {0.0f, 0.0f, 0.0f};
  KGEN_NO_UNROLL
  for (int begin = part.begin; begin < part.end; begin += C::lanes * C::vec * C::items) {
    Packed<T, C::vec> v[C::items];
    load_items<C>(p.x + row * p.ldx, begin, part.end, lane, v);
    Moments tile = {0.0f, 0.0f, 0.0f};
    KGEN_UNROLL
    for (int i = 0; i < C::items; ++i) {
      if (item_column<C>(begin, lane, i) >= part.end) continue;
      tile.count += C::vec;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) tile.mean += v[i][e] - shift;
    }
    if (tile.count > 0.0f) tile.mean /= tile.count;
    KGEN_UNROLL
    for (int i = 0; i < C::items; ++i) {
      if (item_column<C>(begin, lane, i) >= part.end) continue;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) {
        const float d = v[i][e] - shift - tile.mean;
        tile.m2 = fma_f(d, d, tile.m2);
      }
    }
    moments = MergeMoments()(moments, tile);
  }
  return reduce_row<C>(moments, MergeMoments());
}

template <class C, class P>
KGEN_DEVICE void apply_part(const P& p, i64 row, const RowPart& part, int lane, const RowStatistics& s) {
  using T = typename C::dtype;
  using W = typename C::weight_dtype;
  KGEN_NO_UNROLL
  for (int begin = part.begin; begin < part.end; begin += C::lanes * C::vec * C::items) {
    Packed<T, C::vec> v[C::items];
    Packed<W, C::vec> weight[C::items], bias[C::items];
    load_items<C>(static_cast<const T*>(norm_source<C>(p, row)), begin, part.end, lane, v);
    load_items<C>(p.weight, begin, part.end, lane, weight);
    load_bias<C>(p, begin, part.end, lane, bias);
    store_normalised<C>(p, row, begin, part.end, lane, s, v, weight, bias);
  }
}

template <class C, class P>
KGEN_DEVICE void norm_stream(const P& p) {
  const i64 row = block_x();
  const int lane = thread_x();
  const RowPart part = row_part<C>(p.cols);
  const float shift = norm_shift<C>(p, row);
  RowStatistics s;
  if constexpr (C::centered) {
    const Moments m = part_moments<C>(p, row, part, lane, shift);
    s = row_statistics<C>(p, shift, m.mean, m.m2 * square_share(p));
  } else {
    s = row_statistics<C>(p, shift, 0.0f, part_squares<C>(p, row, part, lane) * square_share(p));
  }
  apply_part<C>(p, row, part, lane, s);
}

template <class C, class P>
KGEN_DEVICE void norm_partial(const P& p) {
  const i64 row = block_x();
  const RowPart part = row_part<C>(p.cols);
  if constexpr (C::centered)
    store_part<C>(p.partial, row, part_moments<C>(p, row, part, thread_x(), norm_shift<C>(p, row)));
  else
    store_part<C>(p.partial, row, part_squares<C>(p, row, part, thread_x()));
}

template <class C, class P>
KGEN_DEVICE void norm_apply(const P& p) {
  const i64 row = block_x();
  const float shift = norm_shift<C>(p, row);
  RowStatistics s;
  if constexpr (C::centered) {
    const Moments m = merge_parts<C>(p.partial, row, Moments{0.0f, 0.0f, 0.0f}, MergeMoments());
    s = row_statistics<C>(p, shift, m.mean, m.m2 * square_share(p));
  } else {
    s = row_statistics<C>(p, shift, 0.0f, merge_parts<C>(p.partial, row, 0.0f, Add()) * square_share(p));
  }
  apply_part<C>(p, row, row_part<C>(p.cols), thread_x(), s);
}

}  // namespace kgen
