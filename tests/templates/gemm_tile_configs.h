// The configurations of the tile kernel that the tests run, each a kernel of gemm_tile_kernels.cpp. GPU wave layouts
// run on the host too, with 32 fibers a wave: Arch::sm_70 stands for SIMT, Arch::sm_61 for a model of mma.sync and
// cp.async.
#pragma once

#include "gemm_case.h"

namespace kgen::testing {

struct HostTile : PlainConfig {
  static constexpr Arch arch = Arch::host;
  static constexpr int mma_m = 4, tile_m = 16, tile_n = 32, tile_k = 16, waves_m = 1, waves_n = 1, waves_k = 1,
                       stages = 1, vec_a = 1, vec_b = 1, group_m = 2, async_pipeline = 0, realign = 0;
};
struct TileHost : HostTile {
  static constexpr int mma_m = 8, vec_a = 4, vec_b = 4;
};
struct TileHostKn : HostTile {
  using dtype = bf16;
  using out_dtype = bf16;
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int mma_m = 6, tile_m = 48, tile_k = 32;
  static constexpr int epilogue_bias = 1, epilogue_gelu_erf = 2, epilogue_add_residual = 3;
};
struct TileHostSplit : HostTile {
  using dtype = f16;
  static constexpr int split_k = 3, vec_a = 8, vec_b = 8, tile_n = 16;
  static constexpr int epilogue_add_c = 1, epilogue_bias = 2;
};

struct SimtTile : HostTile {
  static constexpr Arch arch = Arch::sm_70;
  static constexpr int mma_m = 8, tile_m = 32, tile_n = 32, waves_m = 2, stages = 2;
};
struct TileSimt : SimtTile {
  static constexpr int vec_a = 4, vec_b = 2, waves_n = 2;
};
struct TileSimtSharedTerms : SimtTile {
  static constexpr int vec_a = 4, vec_b = 4, waves_m = 1, waves_k = 2;
};
struct TileSimtKn : SimtTile {
  using dtype = bf16;
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int vec_b = 2, tile_k = 32, stages = 1;
  static constexpr int epilogue_silu = 1, epilogue_mul_other = 2;
};

struct MmaSyncTile : HostTile {
  using dtype = bf16;
  static constexpr Arch arch = Arch::sm_61;
  static constexpr int mma_m = 16, tile_m = 32, tile_n = 32, tile_k = 32, waves_n = 2, stages = 2, vec_a = 8, vec_b = 8;
};
struct TileMmaSyncDirect : MmaSyncTile {};
struct TileMmaSyncUnaligned : MmaSyncTile {
  using dtype = f16;
  using out_dtype = f16;
  static constexpr int tile_m = 64, waves_m = 2, vec_a = 1, vec_b = 1;
};
struct TileMmaSyncAsync : MmaSyncTile {
  static constexpr int stages = 3, async_pipeline = 1;
  static constexpr int epilogue_bias = 1, epilogue_add_residual = 2, epilogue_relu = 3;
};
struct TileMmaSyncRealigned : MmaSyncTile {  // rows in windows aligned to 128 bytes
  static constexpr int tile_k = 64, stages = 3, async_pipeline = 1, realign = 3;
};
struct TileMmaSyncRealignedSplit : MmaSyncTile {  // to 64 bytes, a ring of four, parts that begin within a row
  static constexpr int tile_m = 64, stages = 4, async_pipeline = 1, realign = 2, split_k = 3;
};
struct TileMmaSyncRealignedKn : MmaSyncTile {  // A alone
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int tile_n = 64, tile_k = 64, stages = 4, async_pipeline = 1, realign = 1;
};
struct TileMmaSyncAsyncKn : MmaSyncTile {  // B [k][n] in LDS, read transposed
  using dtype = f16;
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int tile_n = 64, tile_k = 64, stages = 2, vec_b = 4, async_pipeline = 1;
};
struct TileMmaSyncOneStep : MmaSyncTile {  // one K step a tile, a ring of four
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int tile_m = 96, tile_n = 96, tile_k = 16, waves_m = 2, waves_n = 1, stages = 4, async_pipeline = 1,
                       vec_a = 2;
};
struct TileMmaSyncSharedTerms : MmaSyncTile {  // two groups of waves, each with half of every tile's terms
  static constexpr int tile_k = 64, waves_k = 2, stages = 4, async_pipeline = 1;
  static constexpr int epilogue_bias = 1, epilogue_gelu_erf = 2;
};
struct TileMmaSyncSharedOneStep : MmaSyncTile {  // one K step a wave and tile, of two stages
  static constexpr int tile_m = 64, waves_n = 1, tile_k = 64, waves_k = 4, stages = 2, async_pipeline = 1;
};
struct TileMmaSyncHalfSums : MmaSyncTile {
  using dtype = f16;
  using accumulate = f16;
  static constexpr int stages = 3, async_pipeline = 1;
};

}  // namespace kgen::testing
