// maxpool2d and avgpool2d_global (OPS.md f).
//
// maxpool2d, NHWC   output [n*p*q pixels, c]: tile of pixels x channels (matrix_tile.h) → lane: vec channels of
// row_steps
//                   pixels; r*s loads of whole vectors each
//            NCHW   output [n*c*p rows, q]: tile of rows x columns → lane: vec adjacent columns, whose windows overlap,
//            so
//                   that what one lane reads another finds in the cache
//
// Padding is -inf, so a tap outside the image is left out. With C::window (the kernel's size when compiled) such a tap
// reads the nearest pixel of the image instead, which lies in the window too: no branch, all loads in flight.
//
// avgpool2d_global  a lane sums every lanes_y-th (NHWC: pixel of vec channels; NCHW: vector of a plane) in fp32; the
//                   block adds its lanes_y sums in a fixed order through LDS.
#pragma once
#include "conv_types.h"
#include "matrix_tile.h"
#include "prelude.h"

namespace kgen {

// A NaN on either side stays.
KGEN_DEVICE float pool_max(float a, float b) { return b > a || b != b ? b : a; }

KGEN_DEVICE int clamp_index(int i, int size) { return i < 0 ? 0 : i >= size ? size - 1 : i; }

KGEN_DEVICE float minus_infinity() { return bit_cast<float>(0xff800000u); }

// Maxima over the window whose first tap is row y0; tap(i, j) is called for row i and column j of the window.
template <class C, int N, class Image, class P>
KGEN_DEVICE void pool_window(const P& p, const Image& image, int y0, int x0, float (&best)[N]) {
  KGEN_UNROLL
  for (int e = 0; e < N; ++e) best[e] = minus_infinity();
  if constexpr (C::window > 0) {
    KGEN_UNROLL
    for (int i = 0; i < C::window; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < C::window; ++j) image.take(clamp_index(y0 + i, int(p.h)), x0 + j, best);
    }
  } else {
    const int y_end = y0 + int(p.r) < int(p.h) ? y0 + int(p.r) : int(p.h), x_end = x0 + int(p.s);
    for (int y = y0 < 0 ? 0 : y0; y < y_end; ++y)
      for (int x = x0; x < x_end; ++x) image.take(y, x, best);
  }
}

// vec channels of one image, NHWC.
template <class C, class T>
struct ChannelsImage {
  const T* image;
  i64 ldx;
  int width, valid;
  KGEN_DEVICE void take(int y, int x, float (&best)[C::vec]) const {
    if constexpr (C::window > 0)
      x = clamp_index(x, width);
    else if (x < 0 || x >= width)
      return;
    const T* pixel = image + (i64(y) * width + x) * ldx;
    Vec<T, C::vec> v;
    if constexpr (C::window > 0)
      v = load_vec<T, C::vec>(pixel);  // channels are whole vectors
    else
      v = load_valid<C::vec>(pixel, valid);
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) best[e] = pool_max(best[e], to_float(v[e]));
  }
};

// vec outputs side by side on one plane, NCHW: the tap of output e lies e*stride further.
template <class C, class T>
struct PlaneImage {
  const T* plane;
  int width, stride;
  KGEN_DEVICE void take(int y, int x, float (&best)[C::vec]) const {
    const T* row = plane + i64(y) * width;
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) {
      const int at = x + e * stride;
      if constexpr (C::window > 0)
        best[e] = pool_max(best[e], to_float(row[clamp_index(at, width)]));
      else if (at >= 0 && at < width)
        best[e] = pool_max(best[e], to_float(row[at]));
    }
  }
};

template <class C, class P>
KGEN_DEVICE void maxpool2d(const P& p) {
  using T = typename C::dtype;
  constexpr bool kNhwc = C::layout == layout::nhwc;
  const i64 rows = kNhwc ? p.n * p.p * p.q : p.n * p.c * p.p, cols = kNhwc ? p.c : p.q;
  const MatrixTile<C> tile(cols);
  KGEN_UNROLL
  for (int step = 0; step < C::row_steps; ++step) {
    const i64 row = tile.row(step);
    if (row >= rows) continue;
    // row: output pixel (NHWC), or line of an output plane (NCHW)
    const i64 line = kNhwc ? quotient(row, p.q) : row, image = quotient(line, p.p);
    const int y0 = int(line - image * p.p) * int(p.stride) - int(p.pad);
    KGEN_UNROLL
    for (int piece = 0; piece < C::col_steps; ++piece) {
      const i64 column = tile.column(piece);
      const int valid = valid_of(column, cols, C::vec);
      if (valid == 0) continue;
      float best[C::vec];
      T* to;
      if constexpr (kNhwc) {
        const int x0 = int(row - line * p.q) * int(p.stride) - int(p.pad);
        const ChannelsImage<C, T> pixels{p.x + image * p.h * p.w * p.ldx + column, p.ldx, int(p.w), valid};
        pool_window<C>(p, pixels, y0, x0, best);
        to = p.y + row * p.ldy + column;
      } else {
        const int x0 = int(column) * int(p.stride) - int(p.pad);
        const PlaneImage<C, T> plane{p.x + image * p.h * p.w, int(p.w), int(p.stride)};
        pool_window<C>(p, plane, y0, x0, best);
        to = p.y + row * cols + column;
      }
      Vec<T, C::vec> made;
      KGEN_UNROLL
      for (int e = 0; e < C::vec; ++e) made[e] = from_float<T>(best[e]);
      store_valid<C::vec>(to, valid, made);
    }
  }
}

template <class C, class P>
KGEN_DEVICE void avgpool2d_global(const P& p) {
  using T = typename C::dtype;
  constexpr bool kNhwc = C::layout == layout::nhwc;
  constexpr int kLanesY = C::threads / C::lanes_x, kSums = kNhwc ? C::vec : 1;
  const i64 pixels = p.h * p.w;
  // Neighbours read neighbours: lanes of one lane_y are side by side with NHWC, lanes of one lane_x with NCHW.
  const int lane_x = kNhwc ? thread_x() % C::lanes_x : thread_x() / kLanesY;
  const int lane_y = kNhwc ? thread_x() / C::lanes_x : thread_x() % kLanesY;
  // lane_x is vec channels of an image with NHWC, a plane with NCHW
  const i64 across = kNhwc ? (p.c + C::lanes_x * C::vec - 1) / (C::lanes_x * C::vec) : 1;
  const i64 image = i64(block_x()) / across;
  const i64 column = kNhwc ? ((i64(block_x()) - image * across) * C::lanes_x + lane_x) * C::vec : 0;
  const i64 plane = i64(block_x()) * C::lanes_x + lane_x;
  const int channels = kNhwc ? valid_of(column, p.c, C::vec) : plane < p.n * p.c;
  float sum[kSums] = {};
  if (channels > 0) {
    if constexpr (kNhwc) {
      const T* from = p.x + image * pixels * p.ldx + column;
      i64 at = lane_y;
      for (; at + (C::unroll - 1) * kLanesY < pixels; at += C::unroll * kLanesY) {
        Vec<T, C::vec> v[C::unroll];
        KGEN_UNROLL
        for (int u = 0; u < C::unroll; ++u) v[u] = load_valid<C::vec>(from + (at + u * kLanesY) * p.ldx, channels);
        KGEN_UNROLL
        for (int u = 0; u < C::unroll; ++u) {
          KGEN_UNROLL
          for (int e = 0; e < C::vec; ++e) sum[e] += to_float(v[u][e]);
        }
      }
      for (; at < pixels; at += kLanesY) {
        const Vec<T, C::vec> v = load_valid<C::vec>(from + at * p.ldx, channels);
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) sum[e] += to_float(v[e]);
      }
    } else {
      const T* from = p.x + plane * pixels;
      for (i64 at = lane_y * C::vec; at < pixels; at += kLanesY * C::vec) {
        const Vec<T, C::vec> v = load_valid<C::vec>(from + at, valid_of(at, pixels, C::vec));
        KGEN_UNROLL
        for (int e = 0; e < C::vec; ++e) sum[0] += to_float(v[e]);  // beyond the end the vector holds zeros
      }
    }
  }
  if constexpr (kLanesY > 1) {
    float* sums = lds<float>(0);  // [lane_y][lane_x][kSums]
    KGEN_UNROLL
    for (int e = 0; e < kSums; ++e) sums[(lane_y * C::lanes_x + lane_x) * kSums + e] = sum[e];
    sync_block();
    if (lane_y > 0) return;
    for (int other = 1; other < kLanesY; ++other) {
      KGEN_UNROLL
      for (int e = 0; e < kSums; ++e) sum[e] += sums[(other * C::lanes_x + lane_x) * kSums + e];
    }
  }
  if (channels == 0) return;
  const float count = float(pixels);
  if constexpr (kNhwc) {
    Vec<T, C::vec> made;
    KGEN_UNROLL
    for (int e = 0; e < C::vec; ++e) made[e] = from_float<T>(sum[e] / count);
    store_valid<C::vec>(p.y + image * p.ldy + column, channels, made);
  } else {
    p.y[plane] = from_float<T>(sum[0] / count);
  }
}

}  // namespace kgen
