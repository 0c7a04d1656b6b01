// The columns of a kernel row share a tile's pixels in LDS: what is read of x does not grow with them.
//
//   stage of LDS, one kernel row and tile_k channels:
//     pixels   line 0 ─ tile_m + (kTaps - 1) * dil ─────── zeros      pixel of line 0: pad before the tile's first
//              [px][px][px][px][px][px][px][px][px]...[0]             the same row of x above or below all of them
//     weights  [tap 0: tile_n x tile_k][tap 1][tap 2]...
//
//   wave: fragment of 16 output pixels, tap t ◀── lines 16i + t*dil ..., each line by itself: the zeros where the tap
//   lies beside the image
//
// Lines are consecutive pixels of a whole image, so a tap beside it would hit the row above or below; a tap above or
// below is a line of zeros. Legal: stride_w 1, rows of y as long as those of x (2*pad_w = (kTaps - 1)*dil_w), channels
// a multiple of tile_k, margin > (kTaps - 1)*dil_w.
#pragma once
#include "prelude.h"
#include "tile.h"

namespace kgen {

// Plain: the TileShape of one tap.
template <class Plain, int kTaps_, int kMargin>
struct HaloShape : Plain {
  using Tap = Plain;
  static constexpr int kTaps = kTaps_, kLines = Plain::kTileM + kMargin;
  static constexpr int kTapSteps = Plain::kSteps, kSteps = kTaps * kTapSteps;
  static constexpr int kABytes = kLines * Plain::LayoutA::kRowBytes, kTapBytes = Plain::kBBytes;
  static constexpr int kStageBytes = kABytes + kTaps * kTapBytes;
  static constexpr bool kWholeTiles = true;
};

template <class S>
struct HaloWave : WaveTile<typename S::Tap> {
  using Mma = typename S::Mma;
  using Layout = typename S::LayoutA;
  static constexpr int kBuffers = Mma::kPrefetch && S::kSteps > 1 ? 2 : 1;
  static constexpr int kElementBytes = int(sizeof(typename S::Lds));
  static constexpr int kZeros = (S::kLines - 1) * Layout::kRowBytes;
  static constexpr int kWords = (S::kTaps * S::kRm + 31) / 32;

  typename Mma::A a[kBuffers][S::kRm];
  typename Mma::B b[kBuffers][S::kRn];
  int line[Mma::kChunksA], place[Mma::kChunksA];  // of piece e: its first block's line for tap 0, column in the line
  u32 inside[Mma::kChunksA][kWords];              // bit tap * kRm + block: the tap lies in the image
  int dil;

  // `first`: the tile's first line, counted within its image, of rows of `width`; `pad` lines before the first pixel.
  KGEN_DEVICE void begin(int wave, int lane, int first, int width, int pad, int dilation) {
    WaveTile<typename S::Tap>::begin(wave, lane, 0, 0);
    dil = dilation;
    const int row = wave % S::kPlaces / S::kWavesN * S::kWaveM;
    const int first_k = wave / S::kPlaces * (S::kTapSteps * Mma::kK);
    KGEN_UNROLL
    for (int e = 0; e < Mma::kChunksA; ++e) {
      line[e] = row + Mma::a_row(lane, e);
      place[e] = first_k + Mma::a_k(lane, e);
      KGEN_UNROLL
      for (int word = 0; word < kWords; ++word) inside[e][word] = 0;
      int column = int(u32(first + pad + line[e]) % u32(width));
      KGEN_UNROLL
      for (int i = 0; i < S::kRm; ++i) {
        if (i > 0) column += Mma::kM;
        while (column >= width) column -= width;
        KGEN_UNROLL
        for (int tap = 0; tap < S::kTaps; ++tap) {
          const int bit = tap * S::kRm + i;
          if (u32(column + tap * dil - pad) < u32(width)) inside[e][bit / 32] |= 1u << bit % 32;
        }
      }
    }
  }

  // As WaveTile's, of the tile's step `step`: taps one after the other.
  KGEN_DEVICE void load(int buffer, int step, int stage, int next_stage) {
    const int tap = step / S::kTapSteps, inner = step % S::kTapSteps, right = tap * dil;
    KGEN_UNROLL
    for (int e = 0; e < Mma::kChunksA; ++e) {
      const int at = Layout::offset(line[e] + right, place[e]);
      KGEN_UNROLL
      for (int i = 0; i < S::kRm; ++i) {
        const int bit = tap * S::kRm + i;
        const int from = inside[e][bit / 32] >> bit % 32 & 1u ? at + i * Mma::kM * Layout::kRowBytes : kZeros;
        Mma::load_a(a[buffer][i], e, stage + Layout::along_row(from, inner * Mma::kK * kElementBytes));
      }
    }
    KGEN_UNROLL
    for (int j = 0; j < S::kRn; ++j) {
      KGEN_UNROLL
      for (int e = 0; e < Mma::kChunksB; ++e)
        Mma::template load_b<S::kBInN, S::LayoutB::kRowBytes>(
            b[buffer][j], e, S::kABytes + tap * S::kTapBytes + this->places_b.at(j, inner, e, stage, next_stage));
    }
  }

  KGEN_DEVICE void multiply(int buffer) {
    KGEN_UNROLL
    for (int i = 0; i < S::kRm; ++i) {
      KGEN_UNROLL
      for (int j = 0; j < S::kRn; ++j)
        Mma::multiply(this->acc[i][i % 2 ? S::kRn - 1 - j : j], a[buffer][i], b[buffer][i % 2 ? S::kRn - 1 - j : j]);
    }
  }

  KGEN_DEVICE void multiply_tile(int stage) {
    KGEN_UNROLL
    for (int step = 0; step < S::kSteps; ++step) {
      load(0, step, stage, stage);
      multiply(0);
    }
  }
};

// Weights of a kernel row: a tile is tile_k channels of its first column, the other columns lie `channels` apart.
template <class T>
struct TapWeights : MatrixSource<T, true> {
  template <int kLines, int kRuns>
  using Walk = TapWeights;
  int channels, channel;
  i64 to_next_row;  // from the end of the first column's channels

  // `first_term` counts as the pixels' terms do: kernel rows x channels.
  KGEN_DEVICE TapWeights(const T* weight, i64 leading, i64 extent, int taps, int channels_of_tap, i64 first_term,
                         int tile_n, int tile_k, int vec)
      : MatrixSource<T, true>(
            weight + first_term / channels_of_tap * (taps * channels_of_tap) + first_term % channels_of_tap, leading,
            extent, tile_n, tile_k, vec),
        channels(channels_of_tap),
        channel(int(first_term % channels_of_tap)),
        to_next_row(i64(taps - 1) * channels_of_tap) {}
  KGEN_DEVICE void advance() {
    this->base += this->step;
    channel += int(this->step);
    if (channel >= channels) {
      channel = 0;
      this->base += to_next_row;
    }
  }
};

// A loader of TapWeights for each tap of a tile.
template <class Loader, int kTaps, int kTapBytes>
struct TapLoader : Loader {
  using Loader::Loader;

  KGEN_DEVICE Loader of_tap(int tap) const {
    Loader loader = *this;
    if constexpr (requires { loader.plain; })
      loader.plain.source.base += tap * loader.plain.source.channels;
    else
      loader.source.base += tap * loader.source.channels;
    return loader;
  }

  template <bool kMasked>
  KGEN_DEVICE void issue(int t, int k_left, u32 stage) const {
    KGEN_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) of_tap(tap).template issue<kMasked>(t, k_left, stage + u32(tap * kTapBytes));
  }
  template <bool kMasked>
  KGEN_DEVICE void copy(int k_left, int stage) const {
    for (int tap = 0; tap < kTaps; ++tap) of_tap(tap).template copy<kMasked>(k_left, stage + tap * kTapBytes);
  }
};

}  // namespace kgen
