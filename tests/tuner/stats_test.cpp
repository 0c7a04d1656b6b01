#include "tuner/stats.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace kgen {
namespace {

// Skewed like timings: a floor plus an exponential tail.
std::vector<double> timings(std::mt19937_64& random, std::size_t count, double floor, double tail) {
  std::exponential_distribution<double> noise(1 / tail);
  std::vector<double> samples;
  for (std::size_t i = 0; i < count; ++i) samples.push_back(floor + noise(random));
  return samples;
}

TEST(Stats, MedianOfOddEvenAndNone) {
  EXPECT_EQ(median(std::vector<double>{3, 1, 2}), 2);
  EXPECT_EQ(median(std::vector<double>{4, 1, 3, 2}), 2.5);
  EXPECT_EQ(median(std::vector<double>{}), 0);
}

TEST(Stats, MedianDeviationIgnoresOneOutlier) {
  EXPECT_EQ(median_deviation(std::vector<double>{10, 11, 12, 13, 1000}), 1);
}

TEST(Stats, FewSamplesHaveNoInterval) {
  EXPECT_FALSE(median_interval(std::vector<double>{1, 2, 3, 4, 5}).known);
  EXPECT_TRUE(median_interval(std::vector<double>{1, 2, 3, 4, 5, 6}).known);
}

TEST(Stats, IntervalOfTwentySamplesLeavesOutFiveOnEitherSide) {
  std::vector<double> samples;
  for (int i = 1; i <= 20; ++i) samples.push_back(i);
  const MedianInterval interval = median_interval(samples);  // P(Binomial(20, 1/2) <= 5) = 0.0207
  EXPECT_EQ(interval.low, 6);
  EXPECT_EQ(interval.high, 15);
}

TEST(Stats, IntervalHoldsTheTrueMedianAtLeast95PercentOfTheTime) {
  std::mt19937_64 random(1);
  const double truth = 100 + 5 * std::log(2.0);
  int inside = 0;
  for (int round = 0; round < 2000; ++round) {
    const MedianInterval interval = median_interval(timings(random, 12, 100, 5));
    inside += interval.low <= truth && truth <= interval.high;
  }
  EXPECT_GE(inside, 1900);
}

TEST(Stats, EqualPairsSayNothing) {
  const std::vector<double> same{5, 5, 5, 5, 5, 5, 5, 5};
  EXPECT_EQ(probability_not_smaller(same, same), 1);
}

TEST(Stats, SignedRankOfOneSidedPairsIsTheTextbookValue) {
  // All nine differences favour a: W = 45, mean 22.5, variance 71.25 (distinct sizes), z = (45 - 22.5 - 0.5) / 8.44.
  std::vector<double> a, b;
  for (int i = 1; i <= 9; ++i) a.push_back(100), b.push_back(100 + i);
  EXPECT_NEAR(probability_not_smaller(a, b), 0.0046, 0.0002);
  EXPECT_NEAR(probability_not_smaller(b, a), 0.9967, 0.002);
}

TEST(Stats, AnIncumbentKeepsItsPlaceAgainstAnEqual) {
  std::mt19937_64 random(2);
  int replaced = 0;
  for (int round = 0; round < 500; ++round)
    replaced += compare(timings(random, 15, 100, 3), timings(random, 15, 100, 3)).replaces;
  EXPECT_LE(replaced, 5);  // p < 0.01
}

TEST(Stats, AnIncumbentGivesWayToThreePercent) {
  std::mt19937_64 random(3);
  int replaced = 0;
  for (int round = 0; round < 200; ++round)
    replaced += compare(timings(random, 15, 97, 1), timings(random, 15, 100, 1)).replaces;
  EXPECT_GE(replaced, 180);
}

TEST(Stats, AConsistentGainTooSmallToFeelChangesNothing) {
  std::vector<double> challenger, incumbent;
  for (int i = 0; i < 25; ++i) challenger.push_back(99.8), incumbent.push_back(100 + 0.001 * i);
  EXPECT_LT(probability_not_smaller(challenger, incumbent), 0.01);
  const Comparison comparison = compare(challenger, incumbent);
  EXPECT_FALSE(comparison.replaces);
  EXPECT_NEAR(comparison.gain, 0.002, 1e-3);
  EXPECT_LT(comparison.probability, kSignificance);
}

TEST(Stats, ARaceUnderAHeldDownClockDecidesOnlyBetweenWhatWasNotTimedInPeace) {
  const double never = std::numeric_limits<double>::infinity();
  EXPECT_EQ(best_in_peace(1, std::vector<double>{18.45, 19.28, 18.75}), 0u);
  EXPECT_EQ(best_in_peace(2, std::vector<double>{18.45, 19.28, 18.5}), 2u);  // no difference that counts
  EXPECT_EQ(best_in_peace(1, std::vector<double>{18.45, never, 18.75}), 1u);
  EXPECT_EQ(best_in_peace(0, std::vector<double>{18.45, never, never}), 0u);
}

TEST(Stats, WhoCannotWinARaceAnyMoreSitsOut) {
  const std::vector<double> best{10.0, 10.2, 9.9, 10.1, 10.0, 9.8}, near{10.4, 9.8, 10.1, 9.9, 10.2, 10.0},
      far{10.6, 10.7, 10.5, 10.8, 10.6, 10.4};
  EXPECT_EQ(still_in({best, near, far, {}}), (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(still_in({far, near}), (std::vector<bool>{false, true}));
}

TEST(Stats, ARaceEndsWhereNobodyCanBeBetterByWhatCounts) {
  // 0.3 % dearer in every sitting, give or take 0.1: neither out nor able to be 1 % better.
  const std::vector<double> best{10, 11, 10, 11, 10, 11}, near{10.03, 11.02, 10.04, 11.03, 10.02, 11.05};
  EXPECT_EQ(still_in({near, best}), (std::vector<bool>{false, true}));
  EXPECT_EQ(still_in({best, best}), (std::vector<bool>{true, false}));  // the same kernel twice
}

TEST(Stats, ARaceGoesOnWhereSomebodyMayStillBeBetter) {
  // 0.3 % dearer, give or take 0.6: after twelve sittings it may still be the faster one by 0.2 %.
  std::vector<double> best, near;
  for (int sitting = 0; sitting < 12; ++sitting) {
    best.push_back(10);
    near.push_back(sitting % 2 == 0 ? 10.09 : 9.97);
  }
  EXPECT_EQ(still_in({best, near}), (std::vector<bool>{true, true}));
}

TEST(Stats, OneSittingDecidesNothing) {
  EXPECT_EQ(still_in({{10}, {20}, {}}), (std::vector<bool>{true, true, false}));
  EXPECT_EQ(still_in({{}, {}}), (std::vector<bool>{false, false}));
}

TEST(Stats, ARaceOfManySittingsFindsTheBestThatSixDoNot) {
  // As seen on an H100 with a kernel of 7 us: 3 % of scatter from sitting to sitting, 1.5 % between the kernels.
  std::mt19937_64 random(7);
  std::normal_distribution<double> place(0, 0.03);
  int right = 0, right_of_six = 0;
  for (int race = 0; race < 200; ++race) {
    std::vector<std::vector<double>> costs(2);
    std::vector<bool> in{true, true};
    for (int sitting = 0; sitting < 32 && in[0] && in[1]; ++sitting) {
      costs[0].push_back(7.0);
      costs[1].push_back(7.0 * (1.015 + place(random)));
      if (sitting == 5) right_of_six += median(costs[1]) > 7;
      if (sitting >= 5) in = still_in(costs);
    }
    const double mean = std::accumulate(costs[1].begin(), costs[1].end(), 0.0) / static_cast<double>(costs[1].size());
    right += mean > 7;
  }
  EXPECT_GE(right, 194);
  EXPECT_LT(right_of_six, right);
}

}  // namespace
}  // namespace kgen
