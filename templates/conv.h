// Convolution as an implicit GEMM: y[pixel, channel] = sum over taps and channels, by the tile loop of every GEMM.
//
//   M = output pixels of all images, N = output channels of a group, K = (kernel row, kernel column, channel)
//   grid x: tiles of pixels x channels (tile_of_block), y: parts of K, z: groups
//
//   x nhwc        pixel of a line ──▶ its tap (0, 0) may lie outside the image: top, left < 0
//   ┌──────────┐
//   │  t t t   │   the tap of a term moves by (down, right), the same for all lines of a work-item; a piece is a run of
//   │  t t t   │   channels of one tap, and counts as zero where top + down or left + right is outside
//   └──────────┘
//
// Weights are the "nk" B as stored. Where x is nchw, or its channels are no whole vectors, a first step copies it to
// nhwc with padded channels (gather packed), and the weights are rewritten once. nchw outputs leave along columns.
//
// Legal (checked by the rules of ops/conv2d.yaml): vec_a divides the run of channels and its strides, vec_b a row of
// weights; offsets within the images of a tile fit 32 bits unless offset_bits says otherwise.
#pragma once
#include "conv_halo.h"
#include "conv_types.h"
#include "epilogue.h"
#include "matrix_tile.h"
#include "prelude.h"
#include "split_k.h"
#include "tile.h"
#include "tile_product.h"

namespace kgen {

// One group's convolution: what the product reads. x and weight are nhwc, at the group's first channel.
template <class T>
struct ConvInput {
  const T* x;
  const T* weight;
  i64 images, height, width, channels, pixel_stride;  // of x; channels: of a group, pixel_stride: between pixels
  i64 out_height, out_width, out_channels;
  i64 kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;

  KGEN_DEVICE i64 pixels() const { return images * out_height * out_width; }
  KGEN_DEVICE i64 terms() const { return kernel_h * kernel_w * channels; }
};

template <class Source, class Offset, int kLines, int kRuns>
struct TapWalk;

// A of the product: lines are output pixels, terms are taps x channels. Offset: int or i64, of elements from the image
// of the tile's first pixel. kFew: pixels are few enough for small_quotient(). kTapTiles: channels are whole tiles, so
// a tile lies within a tap. kFromFirst: the terms begin with the first tap.
template <class T_, class Offset, bool kFew_ = false, bool kTapTiles_ = false, bool kFromFirst_ = false>
struct TapSource {
  using T = T_;
  static constexpr bool kKMajor = true;
  static constexpr bool kGaps = true;
  static constexpr bool kFew = kFew_, kTapTiles = kTapTiles_, kFromFirst = kFromFirst_;
  static constexpr bool kWindowed = sizeof(T) == 2 && sizeof(Offset) == 4;

  const T* image;  // of the tile's first pixel
  i64 image_stride, row_stride, pixel_stride;
  int height, width, out_width, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
  int channels, span;                        // span: columns of the kernel times dil_w
  int image_pixels, first_pixel, last_line;  // first_pixel: of the tile, within its image
  int first_term;
  int step_channel, step_right, step_down;  // to the same piece of the next tile

  KGEN_DEVICE TapSource(const ConvInput<T>& v, i64 first_pixel_of_tile, i64 first_term_of_part, int tile, int tile_k)
      : row_stride(v.width * v.pixel_stride),
        pixel_stride(v.pixel_stride),
        height(int(v.height)),
        width(int(v.width)),
        out_width(int(v.out_width)),
        stride_h(int(v.stride_h)),
        stride_w(int(v.stride_w)),
        pad_h(int(v.pad_h)),
        pad_w(int(v.pad_w)),
        dil_h(int(v.dil_h)),
        dil_w(int(v.dil_w)),
        channels(v.channels > 0 ? int(v.channels) : 1),
        span(int(v.kernel_w * v.dil_w)),
        image_pixels(int(v.out_height * v.out_width)),
        first_term(int(first_term_of_part)) {
    image_stride = v.height * row_stride;
    i64 index = 0;
    if constexpr (kFew)
      index = small_quotient(u32(first_pixel_of_tile), u32(image_pixels));
    else if (v.images != 1)
      index = quotient(first_pixel_of_tile, image_pixels);
    const i64 left = v.pixels() - first_pixel_of_tile;
    image = v.x + index * image_stride;
    first_pixel = int(first_pixel_of_tile - index * image_pixels);
    last_line = (left < tile ? int(left) : tile) - 1;
    if constexpr (kTapTiles) {
      step_channel = tile_k;
      step_down = step_right = 0;
      return;
    }
    const int taps = tile_k / channels, kernel_w = int(v.kernel_w);
    step_channel = tile_k - taps * channels;
    step_down = taps / kernel_w * dil_h;
    step_right = taps % kernel_w * dil_w;
  }

  template <int kLines, int kRuns>
  using Walk = TapWalk<TapSource, Offset, kLines, kRuns>;
};

// What a work-item keeps of kLines pixels and kRuns runs of channels.
template <class Source, class Offset, int kLines, int kRuns>
struct TapWalk : Source {
  using T = typename Source::T;
  Offset offset[kLines];          // of the pixel's tap (0, 0)
  int top[kLines], left[kLines];  // its row and column
  int down[kRuns], right[kRuns], channel[kRuns];

  KGEN_DEVICE TapWalk(const Source& source) : Source(source) {}

  KGEN_DEVICE void begin_line(int i, int outer) {
    const u32 pixel = u32(this->first_pixel + outer);
    u32 index;
    if constexpr (Source::kFew)
      index = small_quotient(pixel, u32(this->image_pixels));
    else
      index = pixel < u32(this->image_pixels) ? 0 : pixel / u32(this->image_pixels);
    const int within = int(pixel - index * u32(this->image_pixels));
    int row;
    if constexpr (Source::kFew)
      row = int(small_quotient(u32(within), u32(this->out_width)));
    else
      row = int(u32(within) / u32(this->out_width));
    top[i] = row * this->stride_h - this->pad_h;
    left[i] = (within - row * this->out_width) * this->stride_w - this->pad_w;
    offset[i] = Offset(i64(index) * this->image_stride + top[i] * this->row_stride + left[i] * this->pixel_stride);
    if (outer > this->last_line) top[i] = -(1 << 30);  // outside with every tap
  }
  KGEN_DEVICE void begin_run(int i, int inner) {
    if constexpr (Source::kTapTiles && Source::kFromFirst) {
      channel[i] = inner;
      down[i] = right[i] = 0;
      return;
    }
    const int term = this->first_term + inner, tap = term / this->channels, columns = this->span / this->dil_w;
    channel[i] = term - tap * this->channels;
    down[i] = tap / columns * this->dil_h;
    right[i] = tap % columns * this->dil_w;
  }
  KGEN_DEVICE void advance() {
    KGEN_UNROLL
    for (int i = 0; i < kRuns; ++i) {
      channel[i] += this->step_channel;
      right[i] += this->step_right;
      down[i] += this->step_down;
      if (channel[i] >= this->channels) {
        channel[i] -= this->channels;
        right[i] += this->dil_w;
      }
      if (right[i] >= this->span) {
        right[i] -= this->span;
        down[i] += this->dil_h;
      }
    }
  }

  KGEN_DEVICE bool in_image(int line, int run) const {
    const int row = top[line] + down[run], column = left[line] + right[run];
    return (u32(row) < u32(this->height)) & (u32(column) < u32(this->width));
  }
  KGEN_DEVICE Offset tap(int run) const {
    return Offset(down[run]) * Offset(this->row_stride) + Offset(right[run]) * Offset(this->pixel_stride) +
           channel[run];
  }
  template <bool kMasked>
  KGEN_DEVICE Place<T> place(int line, int run, int /*outer*/, int /*inner*/, int k, int k_left) const {
    bool valid = in_image(line, run);
    if constexpr (kMasked) valid = valid & (k < k_left);
    return {this->image + (valid ? offset[line] + tap(run) : Offset(0)), valid};
  }

  // Through a window on the images (tile_window.h).
  static constexpr bool kWindowed = Source::kWindowed;
  KGEN_DEVICE const T* window() const { return this->image; }
  KGEN_DEVICE u32 window_offset(int line, int run, int /*outer*/, int /*inner*/) const {
    return in_image(line, run) ? u32(offset[line] + tap(run)) * u32(sizeof(T)) : kOutside;
  }
  KGEN_DEVICE void skip(int terms) { this->first_term += terms; }
};

template <class Source, class Offset, int kLines, int kRuns>
struct HaloWalk;

// The lines of a halo: pixels of whole rows, from some before the tile's first on, under one column of the kernel.
// Terms are kernel rows x channels, channels are whole tiles.
template <class T_, class Offset>
struct HaloSource {
  using T = T_;
  static constexpr bool kKMajor = true;
  static constexpr bool kGaps = true;

  const T* image;  // of the first line, or of the first one that exists
  Offset image_stride, row_stride, pixel_stride;
  int height, width, out_height, stride_h, pad_h, dil_h, channels;
  int first_pixel, last_line;  // first_pixel: of line 0, within its image; negative before the first image
  int first_row, first_channel, tile;

  KGEN_DEVICE HaloSource(const ConvInput<T>& v, i64 first_line, i64 first_term, int lines, int tile_k)
      : image_stride(Offset(v.height * v.width * v.pixel_stride)),
        row_stride(Offset(v.width * v.pixel_stride)),
        pixel_stride(Offset(v.pixel_stride)),
        height{int(v.height)},
        width(int(v.width)),
        out_height(int(v.out_height)),
        stride_h(int(v.stride_h)),
        pad_h(int(v.pad_h)),
        dil_h(int(v.dil_h)),
        channels(int(v.channels)),
        tile(tile_k) {
    const i64 pixels = v.out_height * v.width, left = v.images * pixels - first_line;
    const i64 index = first_line < pixels ? 0 : first_line / pixels;
    image = v.x + index * v.height * v.width * v.pixel_stride;
    first_pixel = int(first_line - index * pixels);
    last_line = (left < lines ? int(left) : lines) - 1;
    first_row = first_term == 0 ? 0 : int(first_term / v.channels);
    first_channel = int(first_term) - first_row * channels;
  }

  template <int kLines, int kRuns>
  using Walk = HaloWalk<HaloSource, Offset, kLines, kRuns>;
};

// One division a work-item: its lines are found from each other.
template <class Source, class Offset, int kLines, int kRuns>
struct HaloWalk : Source {
  using T = typename Source::T;
  Offset offset[kLines];  // of the pixel's first tap
  int top[kLines];        // its row
  int down[kRuns], channel[kRuns];
  Offset tap[kRuns];           // from the pixel's first
  int row, column, index, at;  // of the line that was found last

  KGEN_DEVICE HaloWalk(const Source& source) : Source(source) {}

  KGEN_DEVICE void begin_line(int i, int outer) {
    if (i == 0) {
      at = this->first_pixel + outer;
      row = index = 0;
      int pixel = at;
      for (; pixel < 0; pixel += this->width) --row;
      const int rows = int(u32(pixel) / u32(this->width));
      row += rows;
      column = pixel - rows * this->width;
    } else {
      column += this->first_pixel + outer - at;
      at = this->first_pixel + outer;
      for (; column >= this->width; column -= this->width) ++row;
    }
    for (; row >= this->out_height; row -= this->out_height) ++index;
    const int first_tap = row * this->stride_h - this->pad_h;
    top[i] = first_tap;
    offset[i] =
        Offset(index) * this->image_stride + Offset(top[i]) * this->row_stride + Offset(column) * this->pixel_stride;
    if (outer > this->last_line || row < 0) top[i] = -(1 << 30);  // outside with every tap
  }
  KGEN_DEVICE void begin_run(int i, int inner) {
    down[i] = this->first_row * this->dil_h;
    channel[i] = this->first_channel + inner;
    tap[i] = Offset(down[i]) * this->row_stride + channel[i];
  }
  KGEN_DEVICE void advance() {
    KGEN_UNROLL
    for (int i = 0; i < kRuns; ++i) {
      tap[i] += this->tile;
      channel[i] += this->tile;
      if (channel[i] >= this->channels) {
        tap[i] += Offset(this->dil_h) * this->row_stride - this->channels;
        channel[i] -= this->channels;
        down[i] += this->dil_h;
      }
    }
  }
  template <bool kMasked>
  KGEN_DEVICE Place<T> place(int line, int run, int /*outer*/, int /*inner*/, int /*k*/, int /*k_left*/) const {
    const bool valid = u32(top[line] + down[run]) < u32(this->height);
    return {this->image + (valid ? offset[line] + tap[run] : Offset(0)), valid};
  }
};

template <int kBits>
struct OffsetOf {
  using Type = int;
};
template <>
struct OffsetOf<64> {
  using Type = i64;
};

// Consecutive channels, or with kColumns pixels, of one lane in the epilogue.
template <class C, bool kColumns>
inline constexpr int kConvVector =
    kColumns ? TileProduct<C, MatrixSource<typename C::dtype, true>, MatrixSource<typename C::dtype, true>>::kRows
             : TileProduct<C, MatrixSource<typename C::dtype, true>, MatrixSource<typename C::dtype, true>>::kColumns;

// The sums of the tile at pixel m0, channel n0 to store: what conv_product takes.
template <class C, bool kColumns, class Product, class Wave, class Store>
KGEN_DEVICE void store_sums(const Wave& wave, i64 m0, i64 n0, const Store& store) {
  if constexpr (requires { store.kInLanes; }) {
    store.template leave<Product>(wave, m0, n0);
  } else {
    const auto in_tile = [&](int row, int column, const float(&values)[kConvVector<C, kColumns>], int n) {
      store(narrowed<C>(m0 + row), narrowed<C>(n0 + column), values, n);
    };
    if constexpr (kColumns)
      Product::template each_column<kConvVector<C, kColumns>>(wave, in_tile);
    else
      Product::template each_row<kConvVector<C, kColumns>>(wave, in_tile);
  }
}

template <class C, bool kColumns, class SourceA, class SourceB, class Begin, class Store>
KGEN_DEVICE void store_product(const SourceA& pixels, const SourceB& weights, int k, i64 m0, i64 n0, const Begin& begin,
                               const Store& store) {
  using Product = TileProduct<C, SourceA, SourceB>;
  const auto wave = Product::multiply(pixels, weights, k, begin);
  store_sums<C, kColumns, Product>(wave, m0, n0, store);
}

// The same where the columns of a kernel row share the pixels in LDS; m0: the tile's first pixel, weight: of its first
// channel.
template <class C, bool kColumns, class T, class Begin, class Store>
KGEN_DEVICE void store_halo_product(const ConvInput<T>& v, i64 m0, i64 n0, const T* weight, i64 channels_left,
                                    const Begin& begin, const Store& store) {
  using Source = HaloSource<T, typename OffsetOf<C::offset_bits>::Type>;
  using Product = TileProduct<C, Source, MatrixSource<T, true>>;
  using Shape = HaloShape<typename Product::Shape, C::window, C::margin>;
  using LayoutA = typename Shape::LayoutA;
  using LayoutB = typename Shape::LayoutB;
  const int thread = thread_x(), span = (C::window - 1) * int(v.dil_w);
  ConvInput<T> column = v;  // of the kernel
  column.kernel_w = 1;
  column.pad_w = 0;
  i64 k0;
  const int k = terms_of_part<C>(column.terms(), block_y(), k0);
  const Source pixels(column, m0 - v.pad_w, k0, C::tile_m + span, C::tile_k);
  HaloWave<Shape> wave;
  const auto underway = [&] {
    Product::begin_cluster();
    wave.begin(Product::wave_index(), Product::lane(), pixels.first_pixel, int(v.width), int(v.pad_w), int(v.dil_w));
    begin();
  };
  const TapWeights<T> weights(weight, v.terms(), channels_left, C::window, int(v.channels), k0, C::tile_n, C::tile_k,
                              C::vec_b);
  if constexpr (C::async_pipeline) {
    AsyncTileLoader<Source, LayoutA, Shape::kLines, C::tile_k, C::vec_a, Shape::kThreads, false> load_a(pixels, thread);
    TapLoader<AsyncTileLoader<TapWeights<T>, LayoutB, C::tile_n, C::tile_k, C::vec_b, Shape::kThreads, false>,
              C::window, Shape::kTapBytes>
        load_b(weights, thread);
    tile_loop_async<Shape>(wave, load_a, load_b, k, underway);
  } else {
    using Lds = typename Shape::Lds;
    TileLoader<Source, Lds, LayoutA, Shape::kLines, C::tile_k, C::vec_a, Shape::kThreads, false> load_a(pixels, thread);
    TapLoader<TileLoader<TapWeights<T>, Lds, LayoutB, C::tile_n, C::tile_k, C::vec_b, Shape::kThreads, Product::kBInN>,
              C::window, Shape::kTapBytes>
        load_b(weights, thread);
    underway();
    tile_loop_plain<Shape>(wave, load_a, load_b, k);
  }
  if constexpr (Shape::kThreads > 1) sync_block();  // the stages become the waves' slabs
  store_sums<C, kColumns, Product>(wave, m0, n0, store);
}

// The block's tile of the product. store(i64 pixel, i64 channel, const float (&values)[kConvVector<C, kColumns>], int
// n) (n: TileProduct): consecutive channels of a pixel, or with kColumns consecutive pixels of a channel; channels
// count from the group's first. Some may lie beyond the edges. A store with kInLanes takes the wave's sums as they are
// (LaneOutput). begin(pixel, channel): while the operands come, with the tile's corner.
template <class C, bool kColumns, class Begin, class Store>
KGEN_DEVICE void conv_product(ConvInput<typename C::dtype> v, const Begin& begin, const Store& store) {
  using T = typename C::dtype;
  if constexpr (C::gather == gather::folded) {
    v.channels *= v.kernel_w;
    v.kernel_w = 1;
  }
  const i64 terms = narrowed<C>(v.terms());
  i64 tile_row, tile_column, k0;
  tile_of_block<C>(narrowed<C>(v.pixels()), v.out_channels, tile_row, tile_column);
  const i64 m0 = tile_row * C::tile_m, n0 = tile_column * C::tile_n;
  const int k = terms_of_part<C>(terms, block_y(), k0);
  const auto begin_tile = [&] { begin(m0, n0); };

  if constexpr (C::gather == gather::halo) {
    store_halo_product<C, kColumns, T>(v, m0, n0, v.weight + n0 * terms, v.out_channels - n0, begin_tile, store);
    return;
  }
  const MatrixSource<T, true> weights(v.weight + n0 * terms + k0, terms, v.out_channels - n0, C::tile_n, C::tile_k,
                                      C::vec_b);
  if constexpr (C::gather == gather::rows) {
    const MatrixSource<T, true> pixels(v.x + m0 * v.pixel_stride + k0, v.pixel_stride, narrowed<C>(v.pixels()) - m0,
                                       C::tile_m, C::tile_k, C::vec_a);
    store_product<C, kColumns>(pixels, weights, k, m0, n0, begin_tile, store);
  } else if constexpr (C::gather != gather::halo) {
    constexpr bool kFirst = C::split_k * cluster_k<C>() == 1;
    const TapSource<T, typename OffsetOf<C::offset_bits>::Type, few_tiles<C>(), whole_taps<C>(), kFirst> pixels(
        v, m0, k0, C::tile_m, C::tile_k);
    store_product<C, kColumns>(pixels, weights, k, m0, n0, begin_tile, store);
  }
}

// Channels of a group in the copy of x and in the rewritten weights.
template <class C>
KGEN_DEVICE i64 packed_channels(i64 channels) {
  return (channels + C::vec_a - 1) / C::vec_a * C::vec_a;
}

// A small kernel's time is that of its longest chain; a division of 64 bits would be a large part of it.
template <class C>
KGEN_DEVICE i64 of_group(i64 channels, i64 groups) {
  return one_group<C>() || groups == 1 ? channels : u32(channels) / u32(groups);
}

template <class C, class P>
KGEN_DEVICE ConvInput<typename C::dtype> conv_input(const P& p, i64 group) {
  const i64 channels = of_group<C>(p.c, p.groups), out_channels = of_group<C>(p.k, p.groups);
  ConvInput<typename C::dtype> v;
  v.x = p.x + group * channels;
  v.images = p.n;
  v.height = p.h;
  v.width = p.w;
  v.channels = channels;
  v.pixel_stride = p.ldx;
  v.out_height = p.p;
  v.out_width = p.q;
  v.out_channels = out_channels;
  v.kernel_h = p.r;
  v.kernel_w = p.s;
  v.stride_h = p.stride_h;
  v.stride_w = p.stride_w;
  v.pad_h = p.pad_h;
  v.pad_w = p.pad_w;
  v.dil_h = p.dil_h;
  v.dil_w = p.dil_w;
  v.weight = p.weight + group * out_channels * v.terms();
  if constexpr (C::gather == gather::packed) {
    v.channels = packed_channels<C>(channels);
    v.pixel_stride = p.groups * v.channels;
    v.x = p.image + group * v.channels;
    v.weight = p.packed + group * out_channels * v.terms();
  }
  return v;
}

// The epilogue's names for y and what is added to it. nhwc: rows are the pixels of all images, columns are channels.
template <class C>
struct ConvOutput {
  const typename C::bias_dtype* bias;
  const float *scale, *shift;
  const typename C::dtype* residual;
  typename C::out_dtype* d;
  i64 n, ldd, ldr;
  static constexpr float alpha = 1.0f;
  static constexpr i64 batch_stride_d = 0, batch_stride_r = 0;
};
// nchw: rows are channels, columns are the pixels of one image.
template <class C>
struct ConvPlanes : ConvOutput<C> {
  static constexpr bool kChannelRows = true;
};

// nhwc, channels up to `end`.
template <class C, class P>
KGEN_DEVICE ConvOutput<C> conv_output(const P& p, i64 end) {
  return {p.bias, p.scale, p.shift, p.residual, p.y, end, p.ldy, p.ldr};
}

// Channels channel .. channel+N-1 of a pixel through the epilogue; those from `end` on do not exist.
template <class C, int N, class P>
KGEN_DEVICE void finish_channels(const P& p, i64 pixel, i64 channel, i64 end, const float (&values)[N]) {
  const auto y = conv_output<C>(p, end);
  epilogue<C, N>(y, 0, pixel, channel, values);
}
// The same with what the epilogue reads read before.
template <class C, int N, class P>
KGEN_DEVICE void finish_channels(const P& p, i64 pixel, i64 channel, i64 end, const float (&values)[N],
                                 const EpilogueOperands<C, N>& operands) {
  const auto y = conv_output<C>(p, end);
  epilogue<C, N>(y, 0, pixel, channel, values, operands);
}
// What finish_channels will read for the tile at `pixel` and `channel`, of which those from the ends on do not exist.
template <class C, class P>
KGEN_DEVICE void prefetch_channels(const P& p, i64 pixel, i64 pixels, i64 channel, i64 end) {
  const auto y = conv_output<C>(p, end);
  prefetch_epilogue<C, C::tile_m, C::tile_n>(y, 0, pixel, pixels - pixel, channel, end - channel);
}
// What finish_channels reads of an output channel, into the L2 beforehand.
template <class C, class P>
KGEN_DEVICE void prefetch_channel_operands(const P& p, i64 channel) {
  if constexpr (C::epilogue_bias != 0) prefetch(p.bias + channel);
  if constexpr (C::epilogue_scale_shift != 0) {
    prefetch(p.scale + channel);
    prefetch(p.shift + channel);
  }
}
// Pixels pixel .. pixel+N-1 of a channel of an image; those beyond the image do not exist.
template <class C, int N, class P>
KGEN_DEVICE void finish_pixels(const P& p, i64 image, i64 channel, i64 pixel, const float (&values)[N]) {
  const i64 pixels = p.p * p.q;
  const typename C::dtype* residual = nullptr;
  if constexpr (C::epilogue_add_residual != 0) residual = p.residual + image * p.ldr;
  const ConvPlanes<C> y{{p.bias, p.scale, p.shift, residual, p.y + image * p.ldy, pixels, pixels, pixels}};
  epilogue<C, N>(y, 0, channel, pixel, values);
}

// N pixels of a channel, counted over all images, to y or, with split_k, to this part's sums, which lie as y does.
template <class C, int N, class P>
KGEN_DEVICE void store_pixels(const P& p, i64 pixel, i64 channel, const float (&values)[N]) {
  const i64 pixels = p.p * p.q, image = pixel / pixels, within = pixel - image * pixels;
  if (image >= p.n) return;
  if (N > 1 && within + N > pixels) {  // the run leaves its image
    KGEN_UNROLL
    for (int i = 0; i < N; ++i) {
      const float one[1] = {values[i]};
      store_pixels<C, 1>(p, pixel + i, channel, one);
    }
    return;
  }
  if constexpr (C::split_k > 1)
    store_columns<N>(p.partial + ((block_y() * p.n + image) * p.k + channel) * pixels + within, N, values);
  else
    finish_pixels<C, N>(p, image, channel, within, values);
}

// A nhwc output whose lanes finish the sums that they have: bias and activation alone.
template <class C, class Product>
struct LaneOutput {
  static constexpr bool kInLanes = true;
  static constexpr bool kWorks = Product::kFinishesInLanes && C::split_k == 1 && C::layout == layout::nhwc &&
                                 C::epilogue_scale_shift == 0 && C::epilogue_add_residual == 0;
  using Out = typename C::out_dtype;
  using Bias = typename C::bias_dtype;

  Out* y;            // of the first channel
  const Bias* bias;  // the same
  i64 ldy, pixels, channels;
  Packed<Bias, 2> ahead[Product::kLanePairs];  // the bias of this lane's channels

  template <class P>
  KGEN_DEVICE LaneOutput(const P& p, i64 first, i64 pixels_of_y, i64 out_channels)
      : y(p.y + first), bias(p.bias + first), ldy(p.ldy), pixels(pixels_of_y), channels(out_channels) {}

  // While the operands of the tile at n0 come.
  KGEN_DEVICE void begin(i64 n0) {
    if constexpr (C::epilogue_bias != 0) {
      const i64 left = channels - n0;
      const bool whole = left >= C::tile_n && vector_aligned<Bias, 2>(bias + n0);
      if (whole) {
        Product::each_lane_pair([&](int n, int column) { ahead[n] = Packed<Bias, 2>::load(bias + n0 + column); });
      } else {
        Product::each_lane_pair([&](int n, int column) {
          KGEN_UNROLL
          for (int e = 0; e < 2; ++e)
            ahead[n].set_bits(e, column + e < left ? Packed<Bias, 1>::load(bias + n0 + column + e).bits(0) : 0u);
        });
      }
    }
  }

  KGEN_DEVICE void finish(int n, float (&pair)[2]) const {
    if constexpr (C::epilogue_bias != 0) {
      KGEN_UNROLL
      for (int e = 0; e < 2; ++e) pair[e] += ahead[n][e];
    }
    activate_all<C>(pair);
  }

  template <class Of, class Wave>
  KGEN_DEVICE void leave(const Wave& wave, i64 m0, i64 n0) const {
    constexpr int kN = Product::kColumns;
    const auto finish_pair = [&](int n, float(&pair)[2]) { finish(n, pair); };
    Out* const corner = y + m0 * ldy + n0;
    const i64 rows = pixels - m0, columns = channels - n0;
    const bool whole = columns % kN == 0 && ldy % kN == 0 && vector_aligned<Out, kN>(corner);
    Of::each_finished_row(
        wave, finish_pair, whole,
        [&](int row, int column, const Packed<Out, kN>& outputs) {
          if (row < rows && column < columns) outputs.store(corner + row * ldy + column);
        },
        [&](int row, int column, Out output) {
          if (row < rows && column < columns) corner[row * ldy + column] = output;
        });
  }
};

template <class C, class P>
KGEN_DEVICE void conv_group(P p, i64 group) {
  narrow<C>(p.n, p.h, p.w, p.c, p.k, p.p, p.q, p.r, p.s, p.ldx, p.ldy, p.ldr);
  narrow<C>(p.stride_h, p.stride_w, p.pad_h, p.pad_w, p.dil_h, p.dil_w);
  if constexpr (one_group<C>()) {
    group = 0;
    p.groups = 1;
  }
  const i64 out_channels = of_group<C>(p.k, p.groups), first = group * out_channels;
  const i64 pixels = narrowed<C>(p.n * p.p * p.q);
  const auto input = conv_input<C>(p, group);
  constexpr int kN = kConvVector < C, C::layout == layout::nchw > ;
  if constexpr (C::layout == layout::nchw) {
    const auto store = [&](i64 pixel, i64 channel, const float(&values)[kN], int) {
      if (channel < out_channels) store_pixels<C>(p, pixel, first + channel, values);
    };
    conv_product<C, true>(input, [](i64, i64) {}, store);
  } else {
    using Product = TileProduct<C, MatrixSource<typename C::dtype, true>, MatrixSource<typename C::dtype, true>>;
    if constexpr (LaneOutput<C, Product>::kWorks) {
      LaneOutput<C, Product> output(p, first, pixels, out_channels);
      conv_product<C, false>(input, [&](i64, i64 channel) { output.begin(channel); }, output);
      return;
    }
    AheadOf<C, Product> ahead;
    const auto begin = [&](i64 pixel, i64 channel) {
      read_ahead<C, Product>(conv_output<C>(p, first + out_channels), 0, pixel, pixels, first + channel, ahead);
    };
    conv_product<C, false>(input, begin, [&](i64 pixel, i64 channel, const float(&values)[kN], int n) {
      if (pixel >= pixels || channel >= out_channels) return;
      if constexpr (C::split_k > 1) {
        const i64 left = out_channels - channel;
        store_columns<kN>(p.partial + (block_y() * pixels + pixel) * p.k + first + channel, left < kN ? int(left) : kN,
                          values);
      } else if constexpr (kReadsAhead<C, Product>) {
        finish_channels<C>(p, pixel, first + channel, first + out_channels, values, ahead.item[n]);
      } else {
        finish_channels<C>(p, pixel, first + channel, first + out_channels, values);
      }
    });
  }
}

template <class C, class P>
KGEN_DEVICE void conv_tile(const P& p) {
  conv_group<C>(p, block_z());
}

// Second kernel of a split_k plan.
template <class C, class P>
KGEN_DEVICE void conv_reduce(const P& p) {
  constexpr int kN = C::reduce_columns;
  if constexpr (C::layout == layout::nchw)
    reduce_partial<C>(p.partial, p.n, p.k, p.p * p.q, [&](i64 image, i64 channel, i64 pixel, const float(&sums)[kN]) {
      finish_pixels<C>(p, image, channel, pixel, sums);
    });
  else
    reduce_partial<C>(p.partial, 1, p.n * p.p * p.q, p.k, [&](i64, i64 pixel, i64 channel, const float(&sums)[kN]) {
      finish_channels<C>(p, pixel, channel, p.k, sums);
    });
}

// First step of a packed plan: x as [n, h, w, groups, packed channels], zeros in the padding. A work-item writes one
// vector of vec_a channels; consecutive ones go along what is contiguous in x.
template <class C, class P>
KGEN_DEVICE void pack_image(const P& p) {
  using T = typename C::dtype;
  constexpr int kWidth = C::vec_a;
  const i64 channels = p.c / p.groups, packed = packed_channels<C>(channels), plane = p.h * p.w;
  const i64 vectors = p.groups * packed / kWidth;  // of a pixel
  const i64 item = i64(block_x()) * block_size() + thread_x();
  if (item >= p.n * plane * vectors) return;
  i64 pixel, vector;  // pixel over all images
  if constexpr (C::layout == layout::nhwc) {
    pixel = item / vectors;
    vector = item % vectors;
  } else {
    const i64 within = item % plane, rest = item / plane;
    vector = rest % vectors;
    pixel = rest / vectors * plane + within;
  }
  const i64 group = vector * kWidth / packed, first = vector * kWidth % packed;
  const T* from = C::layout == layout::nhwc
                      ? p.x + pixel * p.ldx + group * channels + first
                      : p.x + pixel / plane * p.ldx + (group * channels + first) * plane + pixel % plane;
  const i64 step = C::layout == layout::nhwc ? 1 : plane;
  Vec<T, kWidth> v = {};
  KGEN_UNROLL
  for (int i = 0; i < kWidth; ++i)
    if (first + i < channels) v[i] = from[i * step];
  store_vec<T, kWidth>(p.image + (pixel * vectors + vector) * kWidth, v);
}

// Once: the weights as [k, r, s, packed channels].
template <class C, class P>
KGEN_DEVICE void pack_weight(const P& p) {
  using T = typename C::dtype;
  constexpr int kWidth = C::vec_a;
  const i64 channels = p.c / p.groups, packed = packed_channels<C>(channels), taps = p.r * p.s;
  const i64 vectors = taps * packed / kWidth;  // of an output channel
  const i64 item = i64(block_x()) * block_size() + thread_x();
  if (item >= p.k * vectors) return;
  const i64 channel = item / vectors, at = item % vectors * kWidth, tap = at / packed, first = at % packed;
  const T* from = p.weight + channel * taps * channels;
  Vec<T, kWidth> v = {};
  KGEN_UNROLL
  for (int i = 0; i < kWidth; ++i)
    if (first + i < channels)
      v[i] = from[C::layout == layout::nhwc ? tap * channels + first + i : (first + i) * taps + tap];
  store_vec<T, kWidth>(p.packed + item * kWidth, v);
}

}  // namespace kgen
