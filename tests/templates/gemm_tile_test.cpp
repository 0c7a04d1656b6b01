// The tile kernel on the host device: tails of every dim, strides, batches, splits, epilogues; the host's own unit,
// SIMT waves of 32 fibers, and the tensor-core path with its hardware modelled.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "gemm_tile_configs.h"
#include "kernels.h"

namespace kgen {
namespace {

using namespace testing;

Kernels& kernels() {
  static Kernels loaded(KGEN_GEMM_TILE_KERNELS);
  return loaded;
}

std::uint32_t ceil_div(i64 a, i64 b) { return std::uint32_t((a + b - 1) / b); }

template <class C>
void launch(const char* config, GemmCase<C>& problem) {
  const GemmShape& shape = problem.shape;
  std::vector<float> partial(C::split_k > 1 ? C::split_k * shape.batch * shape.m * shape.n : 0, NAN);
  problem.args.partial = partial.data();
  const int lanes = C::arch == Arch::host ? 1 : 32, element = C::mma_m == 16 ? sizeof(typename C::dtype) : 4;
  const int stages = C::stages * (C::tile_m + C::tile_n) * C::tile_k * element;
  const int waves = C::waves_m * C::waves_n * C::waves_k;
  const int slabs = waves * (C::waves_k > 1 ? C::tile_m / C::waves_m : C::mma_m) * (C::tile_n / C::waves_n + 4) * 4;
  const Launch grid{{ceil_div(shape.m, C::tile_m) * ceil_div(shape.n, C::tile_n), std::uint32_t(C::split_k),
                     std::uint32_t(shape.batch)},
                    std::uint32_t(waves * lanes),
                    std::uint32_t(stages > slabs ? stages : slabs)};
  kernels().launch(std::string("tile_") + config, grid, problem.args);
  if (C::split_k > 1) {
    const i64 items = shape.batch * shape.m * ceil_div(shape.n, C::reduce_columns);
    kernels().launch(std::string("reduce_") + config, {{ceil_div(items, 256), 1, 1}, 256, 0}, problem.args);
  }
}

// The nearest shape that the vectors of the configuration allow.
template <class C>
GemmShape legal(GemmShape shape) {
  constexpr bool kNk = C::b_layout == b_layout::nk;
  const i64 k_step = kNk && C::vec_b > C::vec_a ? C::vec_b : C::vec_a;
  shape.k = ceil_div(shape.k, k_step) * k_step;
  if (!kNk) shape.n = ceil_div(shape.n, C::vec_b) * C::vec_b;
  shape.gap = ceil_div(shape.gap, 8) * 8;
  if (C::vec_a == 1 && C::vec_b == 1) shape.gap = shape.gap ? 5 : 0;
  return shape;
}

template <class C>
void expect_right(const char* config) {
  for (const GemmShape& wanted : {
           GemmShape{.m = 1, .n = 1, .k = 1},
           GemmShape{.m = 33, .n = 50, .k = 13, .gap = 3},
           GemmShape{.m = 65, .n = 31, .k = 65, .batch = 2, .shared_b = true},
           GemmShape{.m = 32, .n = 64, .k = 64, .alpha = 0.75f, .beta = 0.0f},
           GemmShape{.m = 17, .n = 40, .k = 1176, .gap = 1, .alpha = 1.5f, .beta = -0.5f},
           GemmShape{.m = 40, .n = 24, .k = 1176},
           GemmShape{.m = 9, .n = 33, .k = 0},
       }) {
    const GemmShape shape = legal<C>(wanted);
    GemmCase<C> problem(shape);
    launch<C>(config, problem);
    ASSERT_EQ(problem.wrong(), "") << config << " m " << shape.m << " n " << shape.n << " k " << shape.k;
  }
}

#define TILE_TEST(Name, Config) \
  TEST(GemmTile, Name) { expect_right<Config>(#Config); }
TILE_TEST(IsRightOnTheHost, TileHost)
TILE_TEST(IsRightOnTheHostForKn, TileHostKn)
TILE_TEST(IsRightOnTheHostWhenKIsSplit, TileHostSplit)
TILE_TEST(IsRightForSimtWaves, TileSimt)
TILE_TEST(IsRightForSimtWavesThatShareTerms, TileSimtSharedTerms)
TILE_TEST(IsRightForSimtWavesThatTransposeB, TileSimtKn)
TILE_TEST(IsRightForMmaSyncThroughRegisters, TileMmaSyncDirect)
TILE_TEST(IsRightForMmaSyncOnUnalignedData, TileMmaSyncUnaligned)
TILE_TEST(IsRightForMmaSyncWithAsynchronousCopies, TileMmaSyncAsync)
TILE_TEST(IsRightForMmaSyncWithRealignedWindows, TileMmaSyncRealigned)
TILE_TEST(IsRightForMmaSyncWithRealignedWindowsOfParts, TileMmaSyncRealignedSplit)
TILE_TEST(IsRightForMmaSyncWithRealignedWindowsOfA, TileMmaSyncRealignedKn)
TILE_TEST(IsRightForMmaSyncWithTransposedFragments, TileMmaSyncAsyncKn)
TILE_TEST(IsRightForMmaSyncWithOneStepATile, TileMmaSyncOneStep)
TILE_TEST(IsRightForMmaSyncWavesThatShareTerms, TileMmaSyncSharedTerms)
TILE_TEST(IsRightForMmaSyncWavesThatShareTermsOneStepEach, TileMmaSyncSharedOneStep)

TEST(GemmTile, SumsInHalfWhereAsked) {
  GemmCase<TileMmaSyncHalfSums> problem({.m = 33, .n = 40, .k = 96});
  launch<TileMmaSyncHalfSums>("TileMmaSyncHalfSums", problem);
  double error = 0, size = 0;
  for (i64 row = 0; row < 33; ++row)
    for (i64 column = 0; column < 40; ++column) {
      const double exact = problem.exact(0, row, column).value, got = problem.d[row * 40 + column];
      error += (got - exact) * (got - exact), size += exact * exact;
    }
  const double relative = std::sqrt(error / size);
  EXPECT_LT(relative, 1e-2);
  EXPECT_GT(relative, 1e-5) << "the sums were not rounded to half";
}

}  // namespace
}  // namespace kgen
