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
// LDS.
#pragma once
#include "columns.h"
#include "conv.h"
#include "conv_types.h"
#include "prelude.h"

namespace kgen {
namespace direct {

// Elements between neighbours, in both layouts.
struct Strides {
  i64 x_image, x_row, x_column, x_channel;
  i64 w_filter, w_tap, w_channel;
};

template <class C, class P>
KGEN_DEVICE Strides strides(const P& p) {
  const i64 group = p.c / p.groups, taps = p.r * p.s;
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
  constexpr bool kGeneric = C::group_channels == 0;
  constexpr int kVec = C::vec, kGroup = kGeneric ? 1 : C::group_channels, kRows = C::rows, kPixels = C::pixels;
  constexpr int kSlice = C::lanes_c * kVec, kThreads = C::lanes_c * C::lanes_q * C::lanes_p;
  constexpr int kStep = C::window > 0 ? C::step : 1;  // input columns from output to output
  using Inputs = direct::Inputs<T, kVec, kGroup>;
  static_assert(!kGeneric || kVec == 1, "channels of a vector would be of different groups");

  const direct::Strides at = direct::strides<C>(p);
  const int group = kGeneric ? int(p.c / p.groups) : kGroup, taps = int(p.r * p.s);
  const int lane_c = thread_x() % C::lanes_c, lane_q = thread_x() / C::lanes_c % C::lanes_q,
            lane_p = thread_x() / (C::lanes_c * C::lanes_q);
  const int slices = int((p.k + kSlice - 1) / kSlice);
  const int tiles_q = int((p.q + C::lanes_q * kPixels - 1) / (C::lanes_q * kPixels));
  const int tiles_p = int((p.p + C::lanes_p * kRows - 1) / (C::lanes_p * kRows));
  int block = block_x();
  const i64 slice0 = i64(block % slices) * kSlice;
  block /= slices;
  const i64 q0 = (i64(block % tiles_q) * C::lanes_q + lane_q) * kPixels;
  block /= tiles_q;
  const i64 p0 = (i64(block % tiles_p) * C::lanes_p + lane_p) * kRows;
  const i64 image = block / tiles_p, k0 = slice0 + lane_c * kVec;

  if constexpr (kGroup == 1 && !kGeneric && C::layout == layout::nhwc) {
    if (k0 < p.k) prefetch_channel_operands<C>(p, k0);
  }
  float* weights = lds<float>(0);  // [tap][channel of the group][kSlice]
  if constexpr (C::weight_lds != 0) {
    const int filter = taps * group;
    for (int i = thread_x(); i < filter * kSlice; i += kThreads) {
      const int channel = i / filter, term = i % filter, tap = term / group, of_group = term % group;
      const bool exists = slice0 + channel < p.k;
      weights[term * kSlice + channel] =
          exists ? to_float(p.weight[(slice0 + channel) * at.w_filter + tap * at.w_tap + of_group * at.w_channel])
                 : 0.0f;
    }
    sync_block();
  }
  if (k0 >= p.k || q0 >= p.q || p0 >= p.p) return;

  const i64 first_channel = kGeneric ? k0 / (p.k / p.groups) * group : k0 * kGroup;
  const T* x = p.x + image * at.x_image + first_channel * at.x_channel;
  const i64 row0 = p0 * p.stride_h - p.pad_h, column0 = q0 * p.stride_w - p.pad_w;
  float sum[kRows][kPixels][kVec] = {};

  // sum[o][pixel] += weights of one tap times from[pixel * kStep].
  const auto add = [&](int o, int tap, int of_group, const Inputs* from) {
    KGEN_UNROLL
    for (int g = 0; g < kGroup; ++g) {
      Vec<float, kVec> weight;
      if constexpr (C::weight_lds != 0) {
        weight = load_vec<float, kVec>(weights + (tap * group + of_group + g) * kSlice + lane_c * kVec);
      } else {
        KGEN_UNROLL
        for (int v = 0; v < kVec; ++v)
          weight[v] = k0 + v < p.k
                          ? to_float(p.weight[(k0 + v) * at.w_filter + tap * at.w_tap + (of_group + g) * at.w_channel])
                          : 0.0f;
      }
      KGEN_UNROLL
      for (int i = 0; i < kPixels; ++i) {
        KGEN_UNROLL
        for (int v = 0; v < kVec; ++v) sum[o][i][v] = fma_f(from[i * kStep].input(v, g), weight[v], sum[o][i][v]);
      }
    }
  };

  // One row of input for every output row that has a tap in it. Columns beyond the image are 0.
  const int input_rows = int(kRows == 1 ? p.r : (kRows - 1) * p.stride_h + p.r);
  const int row_step = int(kRows == 1 ? p.dil_h : 1);
  KGEN_NO_UNROLL
  for (int of_group = 0; of_group < (kGeneric ? group : 1); ++of_group) {
    KGEN_NO_UNROLL
    for (int e = 0; e < input_rows; ++e) {
      const i64 row = row0 + i64(e) * row_step;
      if (row < 0 || row >= p.h) continue;
      const T* from = x + row * at.x_row + of_group * at.x_channel;
      const auto load = [&](i64 column) { return Inputs(from + column * at.x_column, column >= 0 && column < p.w); };
      const auto each_output = [&](int tap_column, const Inputs* piece) {
        KGEN_UNROLL
        for (int o = 0; o < kRows; ++o) {
          const int tap_row = int(e - o * p.stride_h);
          if (kRows == 1 || (tap_row >= 0 && tap_row < p.r)) add(o, int(tap_row * p.s) + tap_column, of_group, piece);
        }
      };
      if constexpr (C::window > 0) {
        constexpr int kColumns = (kPixels - 1) * kStep + C::window;
        Inputs columns[kColumns];
        KGEN_UNROLL
        for (int i = 0; i < kColumns; ++i) columns[i] = load(column0 + i);
        KGEN_UNROLL
        for (int j = 0; j < C::window; ++j) each_output(j, columns + j);
      } else {
        KGEN_NO_UNROLL
        for (int j = 0; j < p.s; ++j) {
          Inputs columns[kPixels];
          KGEN_UNROLL
          for (int i = 0; i < kPixels; ++i) columns[i] = load(column0 + i * p.stride_w + j * p.dil_w);
          each_output(j, columns);
        }
      }
    }
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
