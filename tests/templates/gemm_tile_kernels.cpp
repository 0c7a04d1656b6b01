// The tile kernel in the configurations of gemm_tile_configs.h. Each takes its parameters as one struct.
#define KGEN_MODELLED_COPIES  // mma_sync_model.h
#include "gemm_tile_configs.h"
#include "mma_sync_model.h"
#include "templates/gemm.h"
#include "templates/mma/fma.h"

using namespace kgen;

#define TILE(Config)                                                                                                \
  KGEN_KERNEL(1, 1) tile_##Config(testing::GemmArgs<testing::Config> p) { gemm_tile<testing::Config>(p); }          \
  KGEN_HOST_ENTRY(tile_##Config) { tile_##Config(*static_cast<testing::GemmArgs<testing::Config>*>(params[0])); }   \
  KGEN_KERNEL(256, 1) reduce_##Config(testing::GemmArgs<testing::Config> p) { split_k_reduce<testing::Config>(p); } \
  KGEN_HOST_ENTRY(reduce_##Config) { reduce_##Config(*static_cast<testing::GemmArgs<testing::Config>*>(params[0])); }
TILE(TileHost)
TILE(TileHostKn)
TILE(TileHostSplit)
TILE(TileSimt)
TILE(TileSimtSharedTerms)
TILE(TileSimtKn)
TILE(TileMmaSyncDirect)
TILE(TileMmaSyncUnaligned)
TILE(TileMmaSyncAsync)
TILE(TileMmaSyncRealigned)
TILE(TileMmaSyncRealignedSplit)
TILE(TileMmaSyncRealignedKn)
TILE(TileMmaSyncAsyncKn)
TILE(TileMmaSyncOneStep)
TILE(TileMmaSyncSharedTerms)
TILE(TileMmaSyncSharedOneStep)
TILE(TileMmaSyncHalfSums)
