// gemm_fp8 on sm_90's matrix units. The block is warpgroup_product.h's, whose rows of 128 bytes are 128 terms here, and
// so are its copies and its ways out; the loop over the terms is another one.
//
//   The unit keeps some 14 bits of a sum. So the sums of each stage, 128 terms, are multiplied by its scales (block)
//   and added to totals in fp32, while the products of the next stage run (ahead). fast_accum: the unit keeps the sums.
//
//   grid x: blocks that stay (`resident`; 0: one a tile), in clusters of cluster_m
//
// Legal (checked by the rules of ops/gemm_fp8.yaml): rows of A and B begin at multiples of 16 bytes; with scales of
// blocks tile_n divides 128.
#pragma once
#include "gemm_fp8.h"
#include "mma/wgmma_fp8.h"
#include "warpgroup_product.h"

namespace kgen {
namespace gemm_fp8 {

struct Pair {  // of terms: the unit of 16 bits that rows in LDS are counted in
  u16 bits;
};

template <class C>
struct WarpgroupConfig : EpilogueConfig<C> {
  using dtype = Pair;
};

template <class C>
struct Fp8Product : WarpgroupProduct<WarpgroupConfig<C>> {
  using Base = WarpgroupProduct<WarpgroupConfig<C>>;
  using Base::full;
  using Base::kABytes;
  using Base::kBlocks;
  using Base::kRowBytes;
  using Base::kStageBytes;
  using Base::kSums;
  using Base::release;
  using Base::stage;
  using typename Base::Place;
  using typename Base::Sums;
  using typename Base::Tile;
  static constexpr int kTerms = kRowBytes;
  static constexpr bool kScaled = C::scales == scales::block;
  static constexpr bool kPromoted = C::fast_accum == 0;
  static_assert(kBlock == kTerms && (!kScaled || kBlock % C::tile_n == 0));

  // As walk() of WarpgroupProduct, for one product.
  template <class P, class Copy, class Take>
  static KGEN_DEVICE void walk(const P& p, const Copy& copy, const Take& take) {
    const int steps = int((p.k + kTerms - 1) / kTerms);
    Base::Ring::template walk<(C::warpgroups > 1 ? 24 : 0), 240>(
        1, int((p.m + Base::kTilesM - 1) / Base::kTilesM), int((p.n + Base::kTilesN - 1) / Base::kTilesN), steps,
        [&](const Tile& tile, Place& at) {
          KGEN_NO_UNROLL
          for (int step = 0; step < steps; ++step) {
            Base::Ring::begin(at, kStageBytes);
            copy(tile, step, stage(at.stage), stage(at.stage) + kABytes, full(at.stage));
            at.advance();
          }
        },
        [&](const Tile& tile, int group, Place& at) {
          Sums sums;
          if constexpr (kPromoted)
            multiply_promoted(p, tile, sums, group, steps, at);
          else
            multiply(sums, group, steps, at);
          take(sums, group, tile);
        });
  }

 private:
  static KGEN_DEVICE void hold(Sums& sums) {
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) wgmma_hold(sums[i]);
  }
  // The products of a stage, begun.
  static KGEN_DEVICE void begin(Sums& sums, int group, int s, bool keep) {
    const u64 a = wgmma_operand(stage(s) + u32(group * (kBlocks * 64 * kRowBytes)));
    const u64 b = wgmma_operand(stage(s) + kABytes);
    hold(sums);
    wgmma_fence();
    KGEN_UNROLL
    for (int k = 0; k < kTerms / 32; ++k) {
      KGEN_UNROLL
      for (int i = 0; i < kBlocks; ++i)
        wgmma_fp8<typename C::dtype, typename C::b_dtype>(sums[i], a + u64(i * (64 * kRowBytes / 16) + 2 * k),
                                                          b + u64(2 * k), keep || k > 0);
    }
    wgmma_commit();
    hold(sums);
  }

  static KGEN_DEVICE void multiply(Sums& sums, int group, int steps, Place& at) {
    int before = -1;  // the stage whose products may still be under way
    KGEN_NO_UNROLL
    for (int step = 0; step < steps; ++step) {
      barrier_wait(full(at.stage), at.phase);
      begin(sums, group, at.stage, step > 0);
      wgmma_wait<1>();
      if (before >= 0) release(before);
      before = at.stage;
      at.advance();
    }
    wgmma_wait<0>();
    hold(sums);
    if (before >= 0) release(before);
  }

  // Of A for the rows of this lane, and of B.
  struct StageScales {
    float row[kBlocks][2], column;
  };

  // Scales of one stage after another. Places are kept as they are (opaque): worked out again for every stage they took
  // as long as its products.
  template <class P>
  struct ScaleReader {
    const P& p;
    int row[kBlocks][2], column = 0;

    KGEN_DEVICE ScaleReader(const P& of, const Tile& tile, int group) : p(of) {
      if constexpr (kScaled) {
        const int thread = int(u32(thread_x()) % 128u);
        const int first = int(tile.row) * C::tile_m + group * (kBlocks * 64) + thread / 32 * 16 + thread % 32 / 4;
        KGEN_UNROLL
        for (int i = 0; i < kBlocks; ++i) {
          KGEN_UNROLL
          for (int half = 0; half < 2; ++half)
            row[i][half] = opaque(min_int(first + i * 64 + half * 8, int(p.m) - 1) * int(p.scale_a_row_stride));
        }
        column = opaque(int(u32(tile.column * C::tile_n) / u32(kBlock)) * int(p.scale_b_row_stride));
      }
    }
    KGEN_DEVICE StageScales next() {
      StageScales scales{};
      if constexpr (kScaled) {
        KGEN_UNROLL
        for (int i = 0; i < kBlocks; ++i) {
          KGEN_UNROLL
          for (int half = 0; half < 2; ++half) {
            scales.row[i][half] = p.scale_a[u32(row[i][half])];
            row[i][half] += int(p.scale_a_block_stride);
          }
        }
        scales.column = p.scale_b[u32(column++)];
      }
      return scales;
    }
  };

  // ahead: two sets of sums, so that the products of the next stage are under way while those of this one are added.
  // (With one set both warpgroups wait for their products at the same time, as they share the unit: 108 us instead of
  // 101 in a product of 4096^3 on an H100, 144 instead of 122 with scales of blocks. Turns by barriers were slower
  // still.)
  template <class P>
  static KGEN_DEVICE void multiply_promoted(const P& p, const Tile& tile, Sums& sums, int group, int steps, Place& at) {
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      KGEN_UNROLL
      for (int e = 0; e < kSums; ++e) sums[i][e] = 0.0f;
    }
    ScaleReader<P> scales(p, tile, group);
    int done = at.stage;
    const auto start = [&](Sums& part) {
      barrier_wait(full(at.stage), at.phase);
      begin(part, group, at.stage, false);
      at.advance();
    };
    StageScales now = scales.next();  // of the stage that is added next
    const auto finish = [&](Sums& part) {
      hold(part);
      release(done);
      if (++done == C::stages) done = 0;
      add(sums, part, now);
    };
    Sums first;
    if constexpr (C::ahead == 0) {
      KGEN_NO_UNROLL
      for (int step = 0; step < steps; ++step) {
        start(first);
        wgmma_wait<0>();
        finish(first);
        if (step + 1 < steps) now = scales.next();
      }
    } else {
      // Scales are read once those before them have been used: a wait for some loads is one for all that were begun
      // until then, and stood between the products.
      Sums second;
      start(first);
      int step = 1;
      KGEN_NO_UNROLL
      for (; step + 1 < steps; step += 2) {
        start(second);
        wgmma_wait<1>();
        finish(first);
        now = scales.next();
        start(first);
        wgmma_wait<1>();
        finish(second);
        now = scales.next();
      }
      if (step < steps) {
        start(second);
        wgmma_wait<1>();
        finish(first);
        now = scales.next();
        wgmma_wait<0>();
        finish(second);
      } else {
        wgmma_wait<0>();
        finish(first);
      }
    }
  }

  static KGEN_DEVICE void add(Sums& sums, const Sums& part, const StageScales& scales) {
    KGEN_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      KGEN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const float scale = scales.row[i][half] * scales.column;
        KGEN_UNROLL
        for (int e = 2 * half; e < kSums; e += 4) {
          KGEN_UNROLL
          for (int pair = 0; pair < 2; ++pair) {
            if constexpr (kScaled)
              sums[i][e + pair] = fma_f(scale, part[i][e + pair], sums[i][e + pair]);
            else
              sums[i][e + pair] += part[i][e + pair];
          }
        }
      }
    }
  }
};

}  // namespace gemm_fp8

template <class C, class P>
KGEN_DEVICE void gemm_fp8_warpgroup(const P& args) {
  using Product = gemm_fp8::Fp8Product<C>;
  using Epilogue = gemm_fp8::EpilogueConfig<C>;
  using Tile = typename Product::Tile;
  constexpr int kColumns = Product::kColumns;
  const auto p = gemm_fp8::view_of<C>(args);
  const int m = int(p.m);
  if (thread_x() == 0) {
    tensor_map_prefetch(p.map_a);
    tensor_map_prefetch(p.map_b);
    if constexpr (C::out_store != 0) tensor_map_prefetch(p.map_d);
  }
  const auto first_row = [](const Tile& tile) { return tile.row * C::tile_m; };
  const auto first_column = [](const Tile& tile) { return tile.column * C::tile_n; };
  Product::walk(
      p,
      [&](const Tile& tile, int step, u32 a, u32 b, u32 barrier) {
        tensor_copy(a, p.map_a, step * Product::kTerms, first_row(tile), 0, barrier);
        Product::copy_b(b, p.map_b, step * Product::kTerms, first_column(tile), 0, barrier);
      },
      [&](const typename Product::Sums& sums, int group, const Tile& tile) {
        if constexpr (C::out_store != 0) {
          Product::store_boxes(
              sums, group, p.map_d, first_row(tile), first_column(tile), 0,
              [&](int row, int column) {
                EpilogueOperands<Epilogue, 2> operands;
                if (first_row(tile) + row < m) operands.load(p, 0, first_row(tile) + row, first_column(tile) + column);
                return operands;
              },
              [&](int, int, const float(&pair)[2], const EpilogueOperands<Epilogue, 2>& operands) {
                float t[2];
                epilogue_values<Epilogue, 2>(p, pair, operands, t);
                return rounded_pair<typename C::out_dtype>(t[0], t[1]);
              });
        } else {
          Product::store_rows(
              sums, group,
              [&](int row, int column) {
                EpilogueOperands<Epilogue, kColumns> operands;
                if (first_row(tile) + row < m) operands.load(p, 0, first_row(tile) + row, first_column(tile) + column);
                return operands;
              },
              [&](int row, int column, const float(&values)[kColumns],
                  const EpilogueOperands<Epilogue, kColumns>& operands) {
                if (first_row(tile) + row < m)
                  epilogue<Epilogue, kColumns>(p, 0, first_row(tile) + row, first_column(tile) + column, values,
                                               operands);
              });
        }
      });
}

}  // namespace kgen
