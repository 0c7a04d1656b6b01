// Convolution as an implicit GEMM on sm_90's matrix units: nhwc, one group. M = output pixels of all images, N = output
// channels, K = (kernel row, kernel column, channel) in steps of 64 channels of one tap.
//
//   block tile tile_m pixels x tile_n channels
//   ┌──────────────┐
//   │ warpgroup 1  │ tile_m/warpgroups pixels each, in blocks of 64
//   ├──────────────┤
//   │ warpgroup 2  │ wave w: pixels 16w .. 16w+15 of each block, lanes as in wgmma.h
//   ├──────────────┤
//   │ a wave more  │ one lane that copies
//   └──────────────┘
//
//   LDS: stages, each the [tile_m pixels | tile_n channels] of a step, rows of 128 permuted bytes; then a tile of
//   outputs in boxes of 64 channels, permuted alike; then barriers
//
//   copy:     wait empty, copy the pixels under a tap (im2col; as they lie where the kernel is 1x1) and the tap's
//             weights ──▶ full; wait taken, copy the residual to where the outputs will be ──▶ ready
//   multiply: wait full, wgmma, wait for the step before ──▶ empty
//   leave:    wait ready; each lane finishes the pairs of channels that it has, residual to output in place; the copy
//             engine stores 16 pixels of a wave at a time during the next tile's first products ──▶ taken
//
//   Blocks stay and walk the tiles. A cluster is cluster_m x cluster_n of them, neighbours: pixels come to the
//   cluster_n blocks of a row and weights to the cluster_m blocks of a column by one copy, each block copying its part
//   to all; empty counts the consumers of all blocks that a block copies to, its row and its column.
//
// Legal (checked by the rules of ops/conv2d.yaml): rows of x, weight, y and the residual begin at multiples of 16 bytes
// and are whole 16 bytes; padding, stride and dilation are what a tensor map of pixels can say.
#pragma once
#include "conv_types.h"
#include "epilogue.h"
#include "mma/wgmma.h"
#include "prelude.h"
#include "tensor_copy.h"

namespace kgen {

template <class C, class P>
struct WarpgroupConv {
  using T = typename C::dtype;
  using Out = typename C::out_dtype;
  static_assert(sizeof(T) == 2 && sizeof(Out) == 2);
  static constexpr int kTerms = 64, kRowBytes = 128;
  static constexpr int kBlocks = C::tile_m / (64 * C::warpgroups);  // of 64 pixels that a warpgroup has
  static constexpr int kABytes = C::tile_m * kRowBytes, kBBytes = C::tile_n * kRowBytes;
  static constexpr int kStageBytes = kABytes + kBBytes;
  static constexpr int kPartA = C::tile_m / C::cluster_n, kPartB = C::tile_n / C::cluster_m;  // that a block copies
  static constexpr int kCluster = C::cluster_m * C::cluster_n;
  static constexpr int kSums = C::tile_n / 2;  // of a lane in a block of pixels
  static constexpr int kBoxes = C::tile_n / 64;
  static constexpr bool kRows = requires(const P& params) { params.map_rows; };  // 1x1, stride 1: pixels as they lie
  static constexpr bool kResidual = C::epilogue_add_residual != 0;
  static_assert(C::tile_m % (64 * C::warpgroups) == 0 && C::tile_n % 64 == 0 && (!kRows || C::cluster_n == 1));

  const P& p;
  int pixels, rows, columns, channel_steps, steps;  // rows, columns: of clusters
  int rank_m = 0, rank_n = 0;

  KGEN_DEVICE explicit WarpgroupConv(const P& params) : p(params) {
    constexpr int kRows = C::tile_m * C::cluster_m, kColumns = C::tile_n * C::cluster_n;
    pixels = int(p.n * p.p * p.q);
    rows = (pixels + kRows - 1) / kRows;
    columns = (int(p.k) + kColumns - 1) / kColumns;
    channel_steps = (int(p.c) + kTerms - 1) / kTerms;
    steps = int(p.r * p.s) * channel_steps;
    if constexpr (kCluster > 1) {
      rank_m = cluster_rank() / C::cluster_n;
      rank_n = cluster_rank() % C::cluster_n;
    }
  }

  static KGEN_DEVICE u32 stage(int s) { return lds_address(lds_base()) + u32(s * kStageBytes); }
  static KGEN_DEVICE u32 full(int s) { return lds_address(lds_base()) + u32(C::barriers_at + 16 * s); }
  static KGEN_DEVICE u32 empty(int s) { return full(s) + 8; }
  static KGEN_DEVICE u32 ready() { return full(C::stages); }
  static KGEN_DEVICE u32 taken() { return ready() + 8; }

  // A ring's place: stages and the phase of their barriers.
  struct Place {
    int stage = 0;
    u32 phase = 0;
    KGEN_DEVICE void advance() {
      if (++stage == C::stages) {
        stage = 0;
        phase ^= 1;
      }
    }
  };

  // Calls body(pixel, channel) for the first ones of each tile of this block. Groups of group_m rows of clusters are
  // walked together, so that neighbours in time share operands in the L2.
  template <class Body>
  KGEN_DEVICE void each_tile(const Body& body) const {
    const int clusters = int(u32(grid_x()) / u32(kCluster)), tiles = rows * columns;
    KGEN_NO_UNROLL
    for (int index = int(u32(block_x()) / u32(kCluster)); index < tiles; index += clusters) {
      const int group = index / (C::group_m * columns), first = group * C::group_m;
      const int height = rows - first < C::group_m ? rows - first : C::group_m;
      const int within = index - group * (C::group_m * columns), column = within / height;
      body(((first + within - column * height) * C::cluster_m + rank_m) * C::tile_m,
           (column * C::cluster_n + rank_n) * C::tile_n);
    }
  }

  KGEN_DEVICE void run() const {
    const int thread = thread_x(), wave = uniform(int(u32(thread) / 32u));
    if (thread == C::warpgroups * 128) {
      if constexpr (kRows)
        tensor_map_prefetch(p.map_rows);
      else
        tensor_map_prefetch(p.map_x);
      tensor_map_prefetch(p.map_weight);
      tensor_map_prefetch(p.map_y);
    }
    if (thread == 0) {
      KGEN_UNROLL
      for (int s = 0; s < C::stages; ++s) {
        barrier_make(full(s), 1);
        barrier_make(empty(s), C::warpgroups * (C::cluster_m + C::cluster_n - 1));
      }
      barrier_make(ready(), 1);
      barrier_make(taken(), C::warpgroups * 4);
      barrier_fence();
    }
    if constexpr (kCluster > 1)
      cluster_sync();
    else
      sync_block();
    if (wave == C::warpgroups * 4) {
      if (lane_id() == 0) copy();
      sync_wave();
    } else {
      Place at;
      u32 turn = 0;
      bool stored = false;
      each_tile([&](int pixel, int channel) {
        float sums[kBlocks][kSums];
        ChannelOperands operands;
        operands.load(p, channel);
        multiply(sums, wave / 4, at, stored);
        if constexpr (kResidual) barrier_wait(ready(), turn);
        leave(sums, wave, pixel, channel, operands);
        turn ^= 1;
        stored = true;
      });
      if (lane_id() == 0) tensor_store_wait();
      sync_wave();
    }
    if constexpr (kCluster > 1) cluster_sync();  // nobody's LDS goes while others write or arrive there
  }

 private:
  KGEN_DEVICE void copy() const {
    const int line = int(p.q), image_pixels = int(p.p * p.q), kernel_w = int(p.s);
    const int residual_step = steps > C::stages ? steps - C::stages : steps - 1;
    Place at;
    u32 turn = 1;
    each_tile([&](int pixel, int channel) {
      const int first = pixel + rank_n * kPartA, image = first / image_pixels, within = first - image * image_pixels;
      const int row = within / line, h = row * int(p.stride_h) - int(p.pad_h),
                w = (within - row * line) * int(p.stride_w) - int(p.pad_w);
      int c = 0, tap = 0, r = 0, s = 0;
      KGEN_NO_UNROLL
      for (int step = 0; step < steps; ++step) {
        barrier_wait(empty(at.stage), at.phase ^ 1);
        barrier_expect(full(at.stage), kStageBytes);
        const u32 a = stage(at.stage) + u32(rank_n * (kPartA * kRowBytes)),
                  b = stage(at.stage) + u32(kABytes + rank_m * (kPartB * kRowBytes));
        const int right = s * int(p.dil_w), down = r * int(p.dil_h);
        if constexpr (kRows)
          tensor_copy(a, p.map_rows, c, first, 0, full(at.stage));
        else if constexpr (C::cluster_n > 1)
          tensor_copy_pixels_to(a, p.map_x, c, w, h, image, right, down, full(at.stage),
                                ((1 << C::cluster_n) - 1) << (rank_m * C::cluster_n));
        else
          tensor_copy_pixels(a, p.map_x, c, w, h, image, right, down, full(at.stage));
        if constexpr (C::cluster_m > 1)
          tensor_copy_to(b, p.map_weight, c, channel + rank_m * kPartB, tap, full(at.stage), column_blocks());
        else
          tensor_copy(b, p.map_weight, c, channel, tap, full(at.stage));
        at.advance();
        c += kTerms;
        if (c >= channel_steps * kTerms) {
          c = 0;
          ++tap;
          if (++s == kernel_w) {
            s = 0;
            ++r;
          }
        }
        if constexpr (kResidual) {
          if (step == residual_step) {
            barrier_wait(taken(), turn);
            barrier_expect(ready(), C::tile_m * C::tile_n * 2);
            KGEN_UNROLL
            for (int box = 0; box < kBoxes; ++box)
              tensor_copy(lds_address(lds_base()) + u32(C::outputs_at + box * (C::tile_m * kRowBytes)), p.map_residual,
                          channel + box * 64, pixel, 0, ready());
          }
        }
      }
      turn ^= 1;
    });
  }

  // The blocks of this one's column of the cluster, a bit each.
  KGEN_DEVICE int column_blocks() const {
    int blocks = 0;
    KGEN_UNROLL
    for (int i = 0; i < C::cluster_m; ++i) blocks |= 1 << (i * C::cluster_n);
    return blocks << rank_n;
  }

  KGEN_DEVICE void release(int s) const {
    const int lane = int(u32(thread_x()) % 128u);
    if constexpr (kCluster > 1) {
      if (lane < kCluster && (lane / C::cluster_n == rank_m || lane % C::cluster_n == rank_n))
        barrier_arrive_cluster(cluster_address(empty(s), lane));
    } else {
      if (lane == 0) barrier_arrive(empty(s));
    }
  }

  KGEN_DEVICE void multiply(float (&sums)[kBlocks][kSums], int group, Place& at, bool stored) const {
    const u32 a_rows = u32(group * (kBlocks * 64 * kRowBytes));
    int before = -1;  // the stage whose products may still be under way
    KGEN_NO_UNROLL
    for (int step = 0; step < steps; ++step) {
      barrier_wait(full(at.stage), at.phase);
      const u64 a = wgmma_operand(stage(at.stage) + a_rows), b = wgmma_operand(stage(at.stage) + kABytes);
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
      wgmma_fence();
      KGEN_UNROLL
      for (int k = 0; k < kTerms / 16; ++k) {
        KGEN_UNROLL
        for (int i = 0; i < kBlocks; ++i)
          wgmma<T>(sums[i], a + u64(i * (64 * kRowBytes / 16) + 2 * k), b + u64(2 * k), step > 0 || k > 0);
      }
      wgmma_commit();
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
      if (before < 0) {
        if (stored && lane_id() == 0) {
          tensor_store_wait();
          if constexpr (kResidual) barrier_arrive(taken());
        }
        sync_wave();
      }
      wgmma_wait<1>();
      if (before >= 0) release(before);
      before = at.stage;
      at.advance();
    }
    wgmma_wait<0>();
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
    if (before >= 0) release(before);
  }

  // What the epilogue reads of the tile's channels: lane l of a wave has pairs 32i + l.
  template <class E>
  struct Channels {
    Columns<E, 2> pair[kBoxes];
    KGEN_DEVICE void load(const E* from, i64 channel, i64 end) {
      KGEN_UNROLL
      for (int i = 0; i < kBoxes; ++i) {
        const i64 at = channel + i * 64 + lane_id() * 2;
        pair[i].load(from + at, at >= end ? 0 : end - at < 2 ? 1 : 2);
      }
    }
    // The pair at channels 8j + 2*(lane % 4) of the tile.
    KGEN_DEVICE Columns<E, 2> of(int j) const {
      Columns<E, 2> found;
      KGEN_UNROLL
      for (int word = 0; word < Packed<E, 2>::kWords; ++word)
        found.part[0].words[word] = shuffle_bits(pair[j / 8].part[0].words[word], j % 8 * 4 + lane_id() % 4);
      return found;
    }
  };
  struct ChannelOperands {
    Channels<typename C::bias_dtype> bias;
    Channels<float> scale, shift;
    KGEN_DEVICE void load(const P& p, i64 channel) {
      if constexpr (C::epilogue_bias != 0) bias.load(p.bias, channel, p.k);
      if constexpr (C::epilogue_scale_shift != 0) {
        scale.load(p.scale, channel, p.k);
        shift.load(p.shift, channel, p.k);
      }
    }
  };
  struct Plain {
    static constexpr float alpha = 1.0f;
  };

  KGEN_DEVICE void leave(const float (&sums)[kBlocks][kSums], int wave, int pixel, int channel,
                         const ChannelOperands& operands) const {
    const int lane = opaque(lane_id()),
              first = wave / 4 * (kBlocks * 64) + wave % 4 * 16;  // no address is kept for long
    const int mine = C::outputs_at + (first + lane / 4) * kRowBytes + (lane / 4 * 16 | lane % 4 * 4);
    KGEN_UNROLL
    for (int box = 0; box < kBoxes; ++box) {
      KGEN_UNROLL
      for (int chunk = 0; chunk < 8; ++chunk) {
        const int j = box * 8 + chunk;
        EpilogueOperands<C, 2> of_pair;
        if constexpr (C::epilogue_bias != 0) of_pair.bias = operands.bias.of(j);
        if constexpr (C::epilogue_scale_shift != 0) {
          of_pair.scale = operands.scale.of(j);
          of_pair.shift = operands.shift.of(j);
        }
        KGEN_UNROLL
        for (int i = 0; i < kBlocks; ++i) {
          KGEN_UNROLL
          for (int half = 0; half < 2; ++half) {
            u32* const place = lds<u32>((mine ^ chunk * 16) + (box * C::tile_m + i * 64 + half * 8) * kRowBytes);
            if constexpr (kResidual) of_pair.residual.part[0].words[0] = *place;
            const float pair[2] = {sums[i][4 * j + 2 * half], sums[i][4 * j + 2 * half + 1]};
            float finished[2];
            epilogue_values<C, 2>(Plain{}, pair, of_pair, finished);
            Packed<Out, 2> packed;
            packed.set(0, finished[0]);
            packed.set(1, finished[1]);
            *place = packed.words[0];
          }
        }
      }
      async_fence();
      sync_wave();
      if (lane == 0) {
        KGEN_UNROLL
        for (int i = 0; i < kBlocks; ++i) {
          const int row = first + i * 64;
          tensor_store(p.map_y, channel + box * 64, pixel + row, 0,
                       lds_address(lds_base()) + u32(C::outputs_at + (box * C::tile_m + row) * kRowBytes));
        }
        tensor_store_commit();
      }
    }
  }
};

template <class C, class P>
KGEN_DEVICE void conv_warpgroup(const P& p) {
  WarpgroupConv<C, P>(p).run();
}

}  // namespace kgen
