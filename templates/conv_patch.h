// Convolution of few input channels (an image's three), as a product whose terms are spread out in LDS: a pixel of so
// few channels is no whole vector, so the product cannot read it from memory as it lies.
//
//   grid x: tiles of channels, tiles of q, tiles of p, images
//
//   memory ── rows of the block's window, 16 bytes at a time ──▶ window ── each pixel's terms ──▶ A ──┐
//                                                                                                     ├─▶ waves: tile_m
//                                                                                                     x tile_n
//   prepared weights, rows of tile_k terms ──────────────────────────────────────────────────▶ B ─────┘
//
//   LDS  [A: tile_m x tile_k][B: tile_n x tile_k][places: int of each term][window: rows x pitch]; then the sums
//
//   block: tile_m pixels as tile_m / tile_q rows of tile_q; wave: wave_m x wave_n of its tile
//   work-item, on the way to A: one pixel, a 16-byte run of terms after the other; neighbours have neighbouring pixels
//
// All terms are one tile: r*s*c <= tile_k, the rest zero. Legal: nhwc, one group, ldx == c, and rows of the image are
// whole vectors of vec_a, so that a vector lies in the image or beside it as a whole.
#pragma once
#include "conv.h"
#include "conv_types.h"
#include "lds_copy.h"
#include "matrix_tile.h"
#include "prelude.h"
#include "tile.h"
#include "tile_product.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void conv_patch(const P& p) {
  using T = typename C::dtype;
  using Source = MatrixSource<T, true>;
  using Product = TileProduct<C, Source, Source>;
  using Shape = typename Product::Shape;
  using Lds = typename Shape::Lds;
  using Copies = LdsCopies<C::async_pipeline != 0, T>;
  constexpr int kThreads = Product::kThreads, kTileP = C::tile_m / C::tile_q, kVec = C::vec_a;
  constexpr int kPlaces = Shape::kABytes + Shape::kBBytes, kWindow = kPlaces + C::tile_k * int(sizeof(int));
  constexpr int kRun = 16 / int(sizeof(Lds)), kRuns = C::tile_k / kRun;
  constexpr bool kAsync = C::async_pipeline != 0;
  const int thread = thread_x();

  const int height = int(p.h), out_height = int(p.p), out_width = int(p.q);
  const u32 tiles_n = u32((p.k + C::tile_n - 1) / C::tile_n), tiles_q = u32(out_width + C::tile_q - 1) / u32(C::tile_q),
            tiles_p = u32(out_height + kTileP - 1) / u32(kTileP);
  u32 block = u32(block_x());
  const i64 n0 = i64(block % tiles_n) * C::tile_n;
  block /= tiles_n;
  const int q0 = int(block % tiles_q) * C::tile_q;
  block /= tiles_q;
  const int p0 = int(block % tiles_p) * kTileP;
  const i64 image = block / tiles_p;

  const int channels = int(p.c), kernel_w = int(p.s), terms = int(p.r) * kernel_w * channels;
  const int stride_h = int(p.stride_h), stride_w = int(p.stride_w), dil_h = int(p.dil_h), dil_w = int(p.dil_w);
  const int rows = (kTileP - 1) * stride_h + (int(p.r) - 1) * dil_h + 1;
  const int columns = (C::tile_q - 1) * stride_w + (kernel_w - 1) * dil_w + 1;
  // A row of the window begins at a whole vector of the image's row, `shift` elements before its first pixel.
  const int first = (q0 * stride_w - int(p.pad_w)) * channels, shift = first & (kVec - 1);
  const int pieces = (columns * channels + 2 * kVec - 2) / kVec, pitch = pieces * kVec;
  const int row0 = p0 * stride_h - int(p.pad_h), row_length = int(p.w) * channels;

  const T* x = p.x + image * p.h * row_length;
  for (u32 i = u32(thread); i < u32(rows * pieces); i += kThreads) {
    const int row = int(i / u32(pieces)), piece = int(i) - row * pieces;
    const int at = first - shift + piece * kVec, to = kWindow + (row * pitch + piece * kVec) * int(sizeof(T));
    const bool inside = (u32(row0 + row) < u32(height)) & (u32(at) < u32(row_length));
    const T* from = inside ? x + i64(row0 + row) * row_length + at : p.x;
    Copies::template copy<kVec>(to, from, inside);
  }
  const Source weights(p.filters + n0 * C::tile_k, C::tile_k, p.k - n0, C::tile_n, C::tile_k, C::vec_b);
  if constexpr (kAsync) {
    AsyncTileLoader<Source, typename Shape::LayoutB, C::tile_n, C::tile_k, C::vec_b, kThreads, false> load(weights,
                                                                                                           thread);
    load.template issue<false>(0, 0, lds_address(lds_base()) + u32(Shape::kABytes));
  } else {
    const TileLoader<Source, Lds, typename Shape::LayoutB, C::tile_n, C::tile_k, C::vec_b, kThreads, Product::kBInN>
        load(weights, thread);
    load.template copy<false>(0, Shape::kABytes);
  }
  for (int term = thread; term < C::tile_k; term += kThreads) {
    const int tap = int(u32(term) / u32(channels)), channel = term - tap * channels;
    const int down = int(u32(tap) / u32(kernel_w)), right = tap - down * kernel_w;
    *lds<int>(kPlaces + term * int(sizeof(int))) =
        term < terms ? down * dil_h * pitch + right * dil_w * channels + channel : -1;
  }
  using Lanes = LaneOutput<C, Product>;
  Lanes lanes(p, 0, 0, p.k);
  if constexpr (Lanes::kWorks)
    lanes.begin(n0);
  else
    prefetch_channels<C>(p, 0, 0, n0, p.k);
  Copies::wait();
  if constexpr (kThreads > 1) sync_block();

  KGEN_UNROLL
  for (int n = 0; n < (C::tile_m * kRuns + kThreads - 1) / kThreads; ++n) {
    const int item = thread + n * kThreads, pixel = item % C::tile_m, run = item / C::tile_m;
    if (C::tile_m * kRuns % kThreads != 0 && run >= kRuns) break;
    const int at = pixel / C::tile_q * stride_h * pitch + pixel % C::tile_q * stride_w * channels + shift;
    Packed<Lds, kRun> values;
    KGEN_UNROLL
    for (int e = 0; e < kRun; ++e) {
      const int place = *lds<int>(kPlaces + (run * kRun + e) * int(sizeof(int)));
      const T value = *lds<T>(kWindow + (at + (place < 0 ? 0 : place)) * int(sizeof(T)));
      if constexpr (kSame<T, Lds>)
        values.set_bits(e, place < 0 ? 0u : Packed<T, 1>::load(&value).bits(0));
      else
        values.set_bits(e, place < 0 ? 0u : bit_cast<u32>(to_float(value)));
    }
    values.store(lds<Lds>(Shape::LayoutA::offset(pixel, run * kRun)));
  }
  if constexpr (kThreads > 1) sync_block();

  typename Product::Wave wave;
  wave.begin(Product::wave_index(), Product::lane(), weights, weights);
  wave.multiply_tile(0);
  if constexpr (kThreads > 1) sync_block();  // the tiles become the waves' slabs
  constexpr int kN = kConvVector<C, false>;
  using Out = typename C::out_dtype;
  const bool whole = p.k % kN == 0, vectors = vector_aligned<Out, kN>(p.y) && p.ldy % kChunk<Out, kN> == 0;
  const i64 pixel0 = (image * out_height + p0) * out_width + q0;
  Out* to = p.y + pixel0 * p.ldy + n0;
  const int rows_left = out_height - p0, columns_left = out_width - q0, channels_left = int(p.k - n0);
  const auto place = [&](int row, int column) {  // of outputs after `to`; -1: they do not exist
    const int down = row / C::tile_q, right = row % C::tile_q;
    if (down >= rows_left || right >= columns_left || column >= channels_left) return i64(-1);
    return (down * out_width + right) * p.ldy + column;
  };
  if constexpr (Lanes::kWorks) {
    const auto finish = [&](int n, float(&pair)[2]) { lanes.finish(n, pair); };
    Product::each_finished_row(
        wave, finish, whole && vectors,
        [&](int row, int column, const Packed<Out, kN>& outputs) {
          const i64 at = place(row, column);
          if (at >= 0) outputs.store(to + at);
        },
        [&](int row, int column, Out output) {
          const i64 at = place(row, column);
          if (at >= 0) to[at] = output;
        });
  } else {
    Product::template each_row<kN>(wave, [&](int row, int column, const float(&values)[kN], int) {
      if (place(row, column) < 0) return;
      const i64 pixel = pixel0 + row / C::tile_q * out_width + row % C::tile_q;
      finish_channels<C>(p, pixel, n0 + column, p.k, values);
    });
  }
}

// Once: the weights with the terms of a channel padded to tile_k.
template <class C, class P>
KGEN_DEVICE void pad_filters(const P& p) {
  using T = typename C::dtype;
  const i64 item = i64(block_x()) * block_size() + thread_x();
  if (item >= p.k * C::tile_k) return;
  const i64 channel = item / C::tile_k, term = item % C::tile_k, terms = p.r * p.s * p.c;
  p.filters[item] = term < terms ? p.weight[channel * terms + term] : T{};
}

}  // namespace kgen
