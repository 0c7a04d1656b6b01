// Direct convolution for few channels a group (depthwise, the G2L mix), where a product would be mostly padding. One
// pass over memory, fp32 sums in registers; the weights of a block's channels lie in LDS as floats.
//
//   grid x: channel slices, tiles of q, tiles of p, images
//   block: lanes_c x lanes_q x lanes_p work-items, channels fastest
//
//   work-item: `vec` channels x `rows` x `pixels` outputs          input columns are read once for all their outputs:
//
//     rows=2  ┌────┬────┬────┬────┐                                window=3 step=1   x0 x1 x2 x3 x4 x5
//             │    │    │    │    │ each square: vec channels        pixels=4        [ y0  ]
//             ├────┼────┼────┼────┤                                                     [ y1  ]
//             │    │    │    │    │                                                        [ y2  ]
//             └────┴────┴────┴────┘                                                           [ y3  ]
//
//   nhwc: lanes along channels, an access is vec consecutive elements; nchw: vec = 1, lanes along w
//
// group_channels: input channels of a group where each has one output channel (k == groups) and they are neighbours in
// memory, known when compiled; 0: any groups, one output channel a work-item, a loop over the group's channels. window,
// step: s and stride_w known when compiled (dil_w == 1), else window = 0 and a tap is read for each output on its own.
// rows > 1 needs dil_h == 1. weight_lds = 0 reads the weights from memory, for groups whose weights do not fit into
// LDS. high: r known when compiled (then stride_h == step and dil_h == 1), else 0.
//
// input: `lines` waits for memory once for the weights and once for each row of the kernel, with few registers. `ahead`
// and `tile` ask for everything, weights and bias too, before they wait for any of it: into registers, or into LDS,
// where an input is read once for the whole block:
//
//   LDS  [weights: tap][channel of the group][channel][inputs: row of the window][column][channel], zeros outside
#pragma once
#include "columns.h"
#include "conv.h"
#include "conv_types.h"
#include "lds_copy.h"
#include "prelude.h"

namespace kgen {
namespace direct {

// Elements between neighbours, in both layouts.
struct Strides {
  i64 x_image, x_row, x_column, x_channel;
  i64 w_filter, w_tap, w_channel;
};

template <class C, class P>
KGEN_DEVICE Strides strides(const P& p, int group, int taps) {
  if constexpr (C::layout == layout::nhwc)
    return {p.h * p.w * p.ldx, p.w * p.ldx, p.ldx, 1, taps * group, group, 1};
  else
    return {p.ldx, p.w, 1, p.h * p.w, taps * group, 1, taps};
}

// The inputs of kVec channels at one pixel, kGroup of each, as they lie in memory.
template <class T, int kVec, int kGroup>
struct Inputs {
  Packed<T, kVec> part[kGroup];

  KGEN_DEVICE Inputs() {}
  KGEN_DEVICE Inputs(const T* from, bool exists) {
    KGEN_UNROLL
    for (int g = 0; g < kGroup; ++g) part[g] = load_or_zero<kVec>(from + g * kVec, exists);
  }
  KGEN_DEVICE float input(int channel, int of_group) const {
    const int i = channel * kGroup + of_group;
    return part[i / kVec][i % kVec];
  }
};

}  // namespace direct

template <class C, class P>
KGEN_DEVICE void conv_direct(const P& p) {
  using T = typename C::dtype;
  constexpr bool kGeneric = C::group_channels == 0, kAhead = C::input == input::ahead, kTile = C::input == input::tile;
  constexpr int kVec = C::vec, kGroup = kGeneric ? 1 : C::group_channels, kRows = C::rows, kPixels = C::pixels;
  constexpr int kSlice = C::lanes_c * kVec, kThreads = C::lanes_c * C::lanes_q * C::lanes_p;
  constexpr int kStep = C::window > 0 ? C::step : 1;  // input columns from output to output
  constexpr int kColumns = (kPixels - 1) * kStep + C::window;
  using Inputs = direct::Inputs<T, kVec, kGroup>;
  using Copies = LdsCopies<C::async_tile != 0, T>;
  static_assert(!kGeneric || kVec == 1, "channels of a vector would be of different groups");

  const int height = int(p.h), width = int(p.w), out_height = int(p.p), out_width = int(p.q);
  const int kernel_h = C::high > 0 ? C::high : int(p.r), kernel_w = C::window > 0 ? C::window : int(p.s);
  const int stride_h = C::high > 0 ? C::step : int(p.stride_h), stride_w = C::window > 0 ? C::step : int(p.stride_w);
  const int dil_h = C::high > 0 ? 1 : int(p.dil_h), dil_w = C::window > 0 ? 1 : int(p.dil_w);
  const int group = kGeneric ? int(p.c / p.groups) : kGroup, taps = kernel_h * kernel_w;
  const direct::Strides at = direct::strides<C>(p, group, taps);
  const int lane_c = thread_x() % C::lanes_c, lane_q = thread_x() / C::lanes_c % C::lanes_q,
            lane_p = thread_x() / (C::lanes_c * C::lanes_q);
  const u32 slices = u32((p.k + kSlice - 1) / kSlice);
  const u32 tiles_q = u32(out_width + C::lanes_q * kPixels - 1) / u32(C::lanes_q * kPixels);
  const u32 tiles_p = u32(out_height + C::lanes_p * kRows - 1) / u32(C::lanes_p * kRows);
  u32 block = u32(block_x());
  const i64 slice0 = i64(block % slices) * kSlice;
  block /= slices;
  const int block_q = int(block % tiles_q) * (C::lanes_q * kPixels), q0 = block_q + lane_q * kPixels;
  block /= tiles_q;
  const int block_p = int(block % tiles_p) * (C::lanes_p * kRows), p0 = block_p + lane_p * kRows;
  const i64 image = block / tiles_p, k0 = slice0 + lane_c * kVec;
  const bool exists = k0 < p.k && q0 < out_width && p0 < out_height;

  if constexpr (kGroup == 1 && !kGeneric && C::layout == layout::nhwc && !kAhead && !kTile) {
    if (k0 < p.k) prefetch_channel_operands<C>(p, k0);
  }

  // Weights of the block's channels, [term][part of a lane's channels][lane][channel of the part] in LDS, so that lanes
  // read neighbours.
  constexpr int kPart = kVec < 4 ? kVec : 4;
  float* weights = lds<float>(0);
  const int filter = taps * group, kept = filter * kSlice;
  const auto weight_at = [&](int i) {
    const int channel = i % kSlice, term = i / kSlice, tap = term / group, of_group = term % group;
    return slice0 + channel < p.k
               ? p.weight[(slice0 + channel) * at.w_filter + tap * at.w_tap + of_group * at.w_channel]
               : T{};
  };
  const auto keep = [&](int i, T weight) {
    const int channel = i % kSlice, lane = channel / kVec, v = channel % kVec;
    weights[i - channel + v / kPart * (C::lanes_c * kPart) + lane * kPart + v % kPart] = to_float(weight);
  };
  constexpr int kHeld = (kAhead || kTile) && C::weight_lds != 0 && C::high > 0
                            ? (C::high * C::window * kGroup * kSlice + kThreads - 1) / kThreads
                            : 0;  // of a work-item, on their way
  T held[kHeld > 0 ? kHeld : 1];
  KGEN_UNROLL
  for (int n = 0; n < kHeld; ++n)
    if (thread_x() + n * kThreads < kept) held[n] = weight_at(thread_x() + n * kThreads);

  // What the epilogue reads for all pixels.
  constexpr bool kEarly = (kAhead || kTile) && C::epilogue_add_residual == 0 && C::layout == layout::nhwc;
  EpilogueOperands<C, kVec> operands;
  if constexpr (kEarly) operands.load(conv_output<C>(p, p.k), 0, 0, k0);

  const i64 first_channel = kGeneric ? k0 / (p.k / p.groups) * group : k0 * kGroup;
  const T* x = p.x + image * at.x_image + first_channel * at.x_channel;
  const int row0 = p0 * stride_h - int(p.pad_h), column0 = q0 * stride_w - int(p.pad_w);

  constexpr int kAheadRows = kAhead ? (kRows - 1) * C::step + C::high : 1;
  Inputs ahead[kAheadRows][kAhead ? kColumns : 1];
  if constexpr (kAhead) {
    KGEN_UNROLL
    for (int e = 0; e < kAheadRows; ++e) {
      const int row = row0 + e;
      const bool inside = exists && u32(row) < u32(height);
      const T* from = x + row * at.x_row + column0 * at.x_column;
      KGEN_UNROLL
      for (int i = 0; i < kColumns; ++i)
        ahead[e][i] = Inputs(from + i * at.x_column, inside && u32(column0 + i) < u32(width));
    }
  }

  const int tile_columns = (C::lanes_q * kPixels - 1) * stride_w + (kernel_w - 1) * dil_w + 1;
  const int tile_at = (C::weight_lds * kept * int(sizeof(float)) + 15) / 16 * 16;
  constexpr int kLaneBytes = kVec * kGroup * int(sizeof(T)), kPixelBytes = C::lanes_c * kLaneBytes;
  if constexpr (kTile) {
    const int tile_rows = (C::lanes_p * kRows - 1) * stride_h + (kernel_h - 1) * dil_h + 1;
    const int tile_row0 = block_p * stride_h - int(p.pad_h), tile_column0 = block_q * stride_w - int(p.pad_w);
    const int row_step = int(at.x_row), column_step = int(at.x_column), pixels = tile_rows * tile_columns;
    const int inside_columns = k0 < p.k ? width : 0;
    const T* from = x + tile_row0 * at.x_row + tile_column0 * at.x_column;
    constexpr int kLanes = kThreads / C::lanes_c;
    constexpr int kTilePixels = C::high > 0 && C::window > 0 ? ((C::lanes_p * kRows - 1) * C::step + C::high) *
                                                                   ((C::lanes_q * kPixels - 1) * C::step + C::window)
                                                             : 0;
    const auto bring = [&](int pixel) {
      const int row = int(u32(pixel) / u32(tile_columns)), column = pixel - row * tile_columns;
      const bool inside = (u32(tile_row0 + row) < u32(height)) & (u32(tile_column0 + column) < u32(inside_columns));
      const T* source = inside ? from + (row * row_step + column * column_step) : p.x;
      KGEN_UNROLL
      for (int g = 0; g < kGroup; ++g)
        Copies::template copy<kVec>(tile_at + pixel * kPixelBytes + lane_c * kLaneBytes + g * kVec * int(sizeof(T)),
                                    source + g * kVec, inside);
    };
    const int first = thread_x() / C::lanes_c;
    if constexpr (kTilePixels > 0) {
      KGEN_UNROLL
      for (int n = 0; n < (kTilePixels + kLanes - 1) / kLanes; ++n)
        if ((n + 1) * kLanes <= kTilePixels || first + n * kLanes < kTilePixels) bring(first + n * kLanes);
    } else {
      KGEN_NO_UNROLL
      for (int pixel = first; pixel < pixels; pixel += kLanes) bring(pixel);
    }
  }

  if constexpr (kHeld > 0) {
    KGEN_UNROLL
    for (int n = 0; n < kHeld; ++n)
      if (thread_x() + n * kThreads < kept) keep(thread_x() + n * kThreads, held[n]);
  } else if constexpr (C::weight_lds != 0) {
    for (int i = thread_x(); i < kept; i += kThreads) keep(i, weight_at(i));
  }
  if constexpr (kTile) Copies::wait();
  if constexpr (C::weight_lds != 0 || kTile) sync_block();
  if (!exists) return;

  float sum[kRows][kPixels][kVec] = {};
  // sum[o][pixel] += weights of one tap times from[pixel * kStep].
  const auto add = [&](int o, int tap, int of_group, const Inputs* from) {
    KGEN_UNROLL
    for (int g = 0; g < kGroup; ++g) {
      Vec<float, kPart> weight[kVec / kPart];
      if constexpr (C::weight_lds != 0) {
        KGEN_UNROLL
        for (int i = 0; i < kVec / kPart; ++i)
          weight[i] = load_vec<float, kPart>(weights + (tap * group + of_group + g) * kSlice +
                                             (i * C::lanes_c + lane_c) * kPart);
      } else {
        KGEN_UNROLL
        for (int v = 0; v < kVec; ++v)
          weight[v / kPart][v % kPart] =
              k0 + v < p.k ? to_float(p.weight[(k0 + v) * at.w_filter + tap * at.w_tap + (of_group + g) * at.w_channel])
                           : 0.0f;
      }
      KGEN_UNROLL
      for (int i = 0; i < kPixels; ++i) {
        KGEN_UNROLL
        for (int v = 0; v < kVec; ++v)
          sum[o][i][v] = fma_f(from[i * kStep].input(v, g), weight[v / kPart][v % kPart], sum[o][i][v]);
      }
    }
  };
  const int input_rows = kRows == 1 ? kernel_h : (kRows - 1) * stride_h + kernel_h;
  const int row_step = kRows == 1 ? dil_h : 1;
  // Row e of the window, from which each output row that has a tap in it takes kPixels columns.
  const auto each_output = [&](int e, int tap_column, int of_group, const Inputs* piece) {
    KGEN_UNROLL
    for (int o = 0; o < kRows; ++o) {
      const int tap_row = e - o * stride_h;
      if (kRows == 1 || (tap_row >= 0 && tap_row < kernel_h)) add(o, tap_row * kernel_w + tap_column, of_group, piece);
    }
  };

  if constexpr (kAhead) {
    KGEN_UNROLL
    for (int e = 0; e < kAheadRows; ++e) {
      KGEN_UNROLL
      for (int j = 0; j < C::window; ++j) each_output(e, j, 0, ahead[e] + j);
    }
  } else if constexpr (kTile) {
    const auto row_of_tile = [&](int e) {
      const int row = lane_p * kRows * stride_h + e * row_step;
      const auto load = [&](int column) {
        const int pixel = row * tile_columns + lane_q * kPixels * stride_w + column;
        return Inputs(lds<T>(tile_at + pixel * kPixelBytes + lane_c * kLaneBytes), true);
      };
      if constexpr (C::window > 0) {
        Inputs columns[kColumns];
        KGEN_UNROLL
        for (int i = 0; i < kColumns; ++i) columns[i] = load(i);
        KGEN_UNROLL
        for (int j = 0; j < C::window; ++j) each_output(e, j, 0, columns + j);
      } else {
        KGEN_NO_UNROLL
        for (int j = 0; j < kernel_w; ++j) {
          Inputs columns[kPixels];
          KGEN_UNROLL
          for (int i = 0; i < kPixels; ++i) columns[i] = load(i * stride_w + j * dil_w);
          each_output(e, j, 0, columns);
        }
      }
    };
    if constexpr (C::high > 0) {
      KGEN_UNROLL
      for (int e = 0; e < (kRows - 1) * C::step + C::high; ++e) row_of_tile(e);
    } else {
      KGEN_NO_UNROLL
      for (int e = 0; e < input_rows; ++e) row_of_tile(e);
    }
  } else {
    KGEN_NO_UNROLL
    for (int of_group = 0; of_group < (kGeneric ? group : 1); ++of_group) {
      KGEN_NO_UNROLL
      for (int e = 0; e < input_rows; ++e) {
        const int row = row0 + e * row_step;
        if (u32(row) >= u32(height)) continue;
        const T* from = x + row * at.x_row + of_group * at.x_channel;
        const auto load = [&](int column) { return Inputs(from + column * at.x_column, u32(column) < u32(width)); };
        if constexpr (C::window > 0) {
          Inputs columns[kColumns];
          KGEN_UNROLL
          for (int i = 0; i < kColumns; ++i) columns[i] = load(column0 + i);
          KGEN_UNROLL
          for (int j = 0; j < C::window; ++j) each_output(e, j, of_group, columns + j);
        } else {
          KGEN_NO_UNROLL
          for (int j = 0; j < kernel_w; ++j) {
            Inputs columns[kPixels];
            KGEN_UNROLL
            for (int i = 0; i < kPixels; ++i) columns[i] = load(column0 + i * stride_w + j * dil_w);
            each_output(e, j, of_group, columns);
          }
        }
      }
    }
  }

  if constexpr (kEarly) {  // one place in y, and one question of whether it takes vectors, for all pixels
    using Out = typename C::out_dtype;
    const auto y = conv_output<C>(p, p.k);
    const bool vectors = vector_aligned<Out, kVec>(p.y) && p.ldy % kChunk<Out, kVec> == 0;
    Out* to = p.y + ((image * out_height + p0) * out_width + q0) * p.ldy + k0;
    const int columns_left = out_width - q0, rows_left = out_height - p0;
    KGEN_UNROLL
    for (int o = 0; o < kRows; ++o) {
      if (kRows > 1 && o >= rows_left) break;
      KGEN_UNROLL
      for (int i = 0; i < kPixels; ++i)
        if (kPixels == 1 || i < columns_left)
          epilogue_to<C, kVec>(y, to + (o * out_width + i) * p.ldy, vectors, sum[o][i], operands);
    }
    return;
  }

  KGEN_UNROLL
  for (int o = 0; o < kRows; ++o) {
    if (kRows > 1 && p0 + o >= p.p) break;
    const i64 pixel = (p0 + o) * p.q + q0;  // of its image
    if constexpr (C::layout == layout::nhwc) {
      KGEN_UNROLL
      for (int i = 0; i < kPixels; ++i)
        if (kPixels == 1 || q0 + i < p.q)
          finish_channels<C, kVec>(p, image * p.p * p.q + pixel + i, k0, p.k, sum[o][i]);
    } else {
      float row[kPixels];
      KGEN_UNROLL
      for (int i = 0; i < kPixels; ++i) row[i] = sum[o][i][0];
      if (q0 + kPixels <= p.q) {
        finish_pixels<C, kPixels>(p, image, k0, pixel, row);
      } else {
        KGEN_UNROLL
        for (int i = 0; i < kPixels; ++i) {
          const float one[1] = {row[i]};
          if (q0 + i < p.q) finish_pixels<C, 1>(p, image, k0, pixel + i, one);
        }
      }
    }
  }
}

}  // namespace kgen
