// The model of time and the search for near shapes, on made-up plans.
#include "runtime/near.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace kgen {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Expr expr(const std::string& text) { return Expr::parse(text).value(); }

// A product of tiles, m and n over the grid, k within a block; the second step only where there are splits.
Plan tiled(int tile, int splits = 1) {
  Plan plan;
  plan.constants = {{"tile", tile}, {"splits", splits}, {"threads", 128}};
  plan.dims = {"m", "n", "k"};
  plan.dim_defaults.resize(3);
  plan.steps.push_back({.kernel = "pack",
                        .prepare = true,
                        .when = expr("1"),
                        .grid = {expr("n"), expr("1"), expr("1")},
                        .block = expr("64"),
                        .lds_bytes = expr("0")});
  plan.steps.push_back({.kernel = "product",
                        .prepare = false,
                        .when = expr("1"),
                        .grid = {expr("ceil_div(m, tile) * ceil_div(n, tile)"), expr("splits"), expr("1")},
                        .block = expr("threads"),
                        .lds_bytes = expr("0")});
  plan.steps.push_back({.kernel = "sum",
                        .prepare = false,
                        .when = expr("splits > 1"),
                        .grid = {expr("m"), expr("1"), expr("1")},
                        .block = expr("threads"),
                        .lds_bytes = expr("0")});
  plan.flops = expr("2*m*n*k");
  return plan;
}

constexpr TimeModel::Occupancy kSmall{.units = 4, .waves = 8, .wave_size = 32};  // 2 blocks of 128 a unit: 8 at once

double predicted(const Plan& plan, const std::vector<double>& tuned, double us, const std::vector<double>& asked) {
  const Workload workload(plan);
  std::vector<double> scratch;
  return TimeModel(workload, tuned, us, kSmall).us(workload, asked, scratch);
}

TEST(Near, TimeFollowsTheWavesOfTheGrid) {
  EXPECT_DOUBLE_EQ(predicted(tiled(16), {128, 16, 64}, 10, {128, 16, 64}), 10);
  EXPECT_DOUBLE_EQ(predicted(tiled(16), {128, 16, 64}, 10, {1, 16, 64}), 10) << "one wave, however full";
  EXPECT_DOUBLE_EQ(predicted(tiled(16), {128, 16, 64}, 10, {129, 16, 64}), 20) << "nine blocks are two waves of eight";
  EXPECT_DOUBLE_EQ(predicted(tiled(16), {128, 16, 64}, 10, {256, 32, 64}), 40);
}

TEST(Near, TimeFollowsTheDepthThatTheGridDoesNotShow) {
  EXPECT_DOUBLE_EQ(predicted(tiled(16), {128, 16, 64}, 10, {128, 16, 192}), 30);
  EXPECT_DOUBLE_EQ(predicted(tiled(16), {128, 16, 64}, 10, {129, 16, 32}), 10) << "two waves of half the depth";
}

TEST(Near, ATileThatIsPartlyFilledCostsAWholeOne) {
  const double small = predicted(tiled(16), {64, 64, 64}, 10, {72, 64, 64});
  const double large = predicted(tiled(64), {64, 64, 64}, 10, {72, 64, 64});
  EXPECT_DOUBLE_EQ(small, 15) << "20 blocks instead of 16: three waves instead of two";
  EXPECT_DOUBLE_EQ(large, 10) << "two blocks instead of one are still one wave";
}

TEST(Near, EveryStepOfALaunchCounts) {
  // 8 + 8 blocks and 64 sums of rows: one wave and eight, of 16 blocks two.
  EXPECT_DOUBLE_EQ(predicted(tiled(16, 2), {64, 16, 64}, 9, {128, 16, 64}), 9 * 18.0 / 9);
}

TEST(Near, WhatIsNotKnownChangesNothing) {
  Plan plan = tiled(16);
  plan.steps[1].grid[0] = expr("ceil_div(m, what)");
  EXPECT_DOUBLE_EQ(predicted(plan, {64, 16, 64}, 10, {6400, 16, 64}), 10);
  const Workload workload(tiled(16));
  const TimeModel unknown(workload, std::vector<double>{64, 16, 64}, 10, {});
  std::vector<double> scratch;
  EXPECT_DOUBLE_EQ(unknown.us(workload, std::vector<double>{128, 16, 64}, scratch), 20) << "one block at once";
}

TEST(Near, TheNearestShapesComeInOrder) {
  NearShapes shapes;
  const std::vector<bool> given{true, true};
  const std::vector<std::vector<double>> tuned{{1023, 7}, {127, 7}, {63, 7}, {63, 15}, {127, 7}};
  for (std::size_t i = 0; i < tuned.size(); ++i) shapes.add(10 + i, tuned[i], given);
  const auto rows = [&](const std::vector<double>& asked, std::size_t most) {
    std::vector<std::size_t> found;
    for (const auto& near : shapes.nearest(asked, given, most)) found.push_back(near.row);
    return found;
  };
  EXPECT_THAT(rows({127, 7}, 1), ElementsAre(11));
  EXPECT_THAT(rows({127, 7}, 3), ElementsAre(11, 14, 12)) << "equal ones in the order of their adding";
  EXPECT_THAT(rows({127, 7}, 100), ElementsAre(11, 14, 12, 13, 10));
  EXPECT_NEAR(shapes.nearest(std::vector<double>{31, 15}, given, 1)[0].distance, 1, 1e-5);
  EXPECT_THAT(NearShapes().nearest({}, {}, 5), IsEmpty());
}

TEST(Near, DimsAtTheirDefaultInBothShapesAreNotCounted) {
  NearShapes shapes;
  shapes.add(0, std::vector<double>{64, 64}, {true, false});  // the second dim follows
  shapes.add(1, std::vector<double>{64, 200}, {true, true});  // it was given
  const auto follows = shapes.nearest(std::vector<double>{128, 128}, {true, false}, 2);
  ASSERT_EQ(follows.size(), 2u);
  EXPECT_EQ(follows[0].row, 0u);
  EXPECT_NEAR(follows[0].distance, std::log2(129.0 / 65), 1e-5);
  EXPECT_NEAR(follows[1].distance, std::log2(129.0 / 65) + std::log2(201.0 / 129), 1e-5);
  const auto given = shapes.nearest(std::vector<double>{64, 199}, {true, true}, 2);
  EXPECT_EQ(given[0].row, 1u);
}

TEST(Near, BlocksThatAreLeftOutHaveNoneOfTheNearest) {
  std::uint64_t random = 1;
  const auto next = [&](std::uint64_t below) {
    random = random * 6364136223846793005 + 1442695040888963407;
    return (random >> 33) % below;
  };
  for (const std::size_t count : {3U, 16U, 17U, 100U, 1000U}) {
    NearShapes shapes;
    std::vector<std::vector<double>> dims;
    std::vector<std::vector<bool>> given;
    const auto shape = [&] {
      // Few sizes, so that there are many of the same distance; a dim that only some rows were given.
      std::vector<double> made;
      for (int i = 0; i < 3; ++i) made.push_back(static_cast<double>((std::uint64_t{1} << next(12)) + next(2)));
      made.push_back(next(3) == 0 ? static_cast<double>(next(100)) : made[0]);
      return made;
    };
    for (std::size_t i = 0; i < count; ++i) {
      dims.push_back(shape());
      given.push_back({true, true, true, dims.back()[3] != dims.back()[0]});
      shapes.add(i, dims.back(), given.back());
    }
    for (int round = 0; round < 50; ++round) {
      const std::vector<double> asked = shape();
      const std::vector<bool> asked_given{true, true, true, asked[3] != asked[0]};
      std::vector<std::pair<float, std::size_t>> all;
      for (std::size_t i = 0; i < count; ++i) {
        float distance = 0;
        for (std::size_t dim = 0; dim < 4; ++dim) {
          if (asked_given[dim] || given[i][dim])
            distance += std::fabs(std::log2(static_cast<float>(asked[dim]) + 1) -
                                  std::log2(static_cast<float>(dims[i][dim]) + 1));
        }
        all.emplace_back(distance, i);
      }
      std::ranges::sort(all);
      for (const std::size_t most : {std::size_t{1}, std::size_t{6}, count}) {
        const auto found = shapes.nearest(asked, asked_given, most);
        ASSERT_EQ(found.size(), std::min(most, count));
        for (std::size_t i = 0; i < found.size(); ++i) {
          ASSERT_EQ(found[i].row, all[i].second) << count << " rows, the " << i << "th of " << most;
          ASSERT_FLOAT_EQ(static_cast<float>(found[i].distance), all[i].first);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kgen
