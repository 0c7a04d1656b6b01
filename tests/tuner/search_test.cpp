#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <functional>
#include <set>

#include "tuner/search/prior.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;

// Two variants over four tunables with rules that leave holes, like a tiled kernel's space.
std::vector<Candidate> tiled_candidates() {
  std::vector<Candidate> candidates;
  for (const char* variant : {"matrix", "simt"})
    for (int m : {16, 32, 64, 128, 256})
      for (int n : {16, 32, 64, 128, 256})
        for (int k : {16, 32, 64})
          for (int stages : {1, 2, 3, 4}) {
            if (m * n < 512 || m * n > 32768) continue;
            if ((m + n) * k * stages > 40000) continue;
            candidates.push_back({variant,
                                  {{"tile_m", std::to_string(m)},
                                   {"tile_n", std::to_string(n)},
                                   {"tile_k", std::to_string(k)},
                                   {"stages", std::to_string(stages)}}});
          }
  return candidates;
}

int value(const Candidate& candidate, std::size_t at) { return std::stoi(candidate.params[at].second); }

// Smooth with one optimum at matrix 128 x 128 x 32, 3 stages.
double cost(const Candidate& candidate) {
  double time = candidate.variant == "matrix" ? 10 : 60;
  time *= 1 + 0.2 * std::abs(std::log2(value(candidate, 0)) - 7) + 0.15 * std::abs(std::log2(value(candidate, 1)) - 7);
  return time * (1 + 0.2 * std::abs(std::log2(value(candidate, 2)) - 5) + 0.05 * std::abs(value(candidate, 3) - 3));
}

struct Outcome {
  std::vector<std::size_t> order;
  double best = kFailed;
};

// Runs a strategy with `in_flight` proposals waiting for their reports.
Outcome drive(Strategy& strategy, std::size_t budget, std::size_t in_flight,
              const std::function<double(std::size_t)>& time) {
  Outcome outcome;
  std::deque<std::size_t> waiting;
  while (true) {
    while (waiting.size() < in_flight && outcome.order.size() < budget) {
      const auto index = strategy.propose();
      if (!index) break;
      outcome.order.push_back(*index);
      waiting.push_back(*index);
    }
    if (waiting.empty()) return outcome;
    outcome.best = std::min(outcome.best, time(waiting.front()));
    strategy.report(waiting.front(), time(waiting.front()));
    waiting.pop_front();
  }
}

class EveryStrategy : public ::testing::TestWithParam<const char*> {
 protected:
  const std::vector<Candidate> candidates_ = tiled_candidates();
  const SearchSpace space_ = make_search_space(candidates_, candidates_[100]);
  std::function<double(std::size_t)> time_ = [this](std::size_t i) { return cost(candidates_[i]); };
};

TEST_P(EveryStrategy, ProposesTheDefaultFirst) {
  auto strategy = make_strategy(GetParam(), space_, 1, 50).value();
  EXPECT_EQ(strategy->propose(), std::size_t{100});
}

TEST_P(EveryStrategy, VisitsEveryPointOnceThenEnds) {
  for (const std::size_t in_flight : {1, 7, 40}) {
    auto strategy = make_strategy(GetParam(), space_, 1, 0).value();
    const Outcome outcome = drive(*strategy, SIZE_MAX, in_flight, time_);
    EXPECT_EQ(outcome.order.size(), candidates_.size());
    EXPECT_EQ(std::set<std::size_t>(outcome.order.begin(), outcome.order.end()).size(), candidates_.size());
    EXPECT_DOUBLE_EQ(outcome.best, 10);
  }
}

TEST_P(EveryStrategy, NeverProposesWhatAnEarlierRunReported) {
  auto strategy = make_strategy(GetParam(), space_, 1, 50).value();
  const std::set<std::size_t> known{100, 3, 4, 5, 77, 120};
  for (std::size_t index : known) strategy->report(index, index == 5 ? kFailed : time_(index));
  const Outcome outcome = drive(*strategy, SIZE_MAX, 4, time_);
  EXPECT_EQ(outcome.order.size(), candidates_.size() - known.size());
  for (std::size_t index : outcome.order) EXPECT_EQ(known.count(index), 0u);
}

TEST_P(EveryStrategy, IsTheSameForTheSameSeed) {
  auto a = make_strategy(GetParam(), space_, 9, 60).value(), b = make_strategy(GetParam(), space_, 9, 60).value();
  EXPECT_EQ(drive(*a, 60, 5, time_).order, drive(*b, 60, 5, time_).order);
}

TEST_P(EveryStrategy, SurvivesASpaceWhereEverythingFails) {
  auto strategy = make_strategy(GetParam(), space_, 1, 50).value();
  EXPECT_EQ(drive(*strategy, SIZE_MAX, 3, [](std::size_t) { return kFailed; }).order.size(), candidates_.size());
}

INSTANTIATE_TEST_SUITE_P(Search, EveryStrategy,
                         ::testing::Values("exhaustive", "random", "local", "annealing", "genetic", "model"));

TEST(Search, LocalFindsTheOptimumInAFifthOfTheSpace) {
  const auto candidates = tiled_candidates();
  const SearchSpace space = make_search_space(candidates, candidates[0]);
  const auto time = [&](std::size_t i) { return cost(candidates[i]); };
  int local_hits = 0, random_hits = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const std::size_t budget = candidates.size() / 5;
    auto local = make_strategy("local", space, seed, budget).value(),
         random = make_strategy("random", space, seed, budget).value();
    local_hits += drive(*local, budget, 4, time).best == 10;
    random_hits += drive(*random, budget, 4, time).best == 10;
  }
  EXPECT_GE(local_hits, 18);
  EXPECT_LT(random_hits, local_hits);
}

TEST(Search, TheModelNeedsATenthOfTheSpace) {
  const auto candidates = tiled_candidates();
  const SearchSpace space = make_search_space(candidates, candidates[0]);
  int hits = 0;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    auto model = make_strategy("model", space, seed, 0).value();
    hits += drive(*model, candidates.size() / 10, 4, [&](std::size_t i) { return cost(candidates[i]); }).best == 10;
  }
  EXPECT_EQ(hits, 10);
}

TEST(Search, TheModelAvoidsARegionThatFails) {
  const auto candidates = tiled_candidates();
  const SearchSpace space = make_search_space(candidates, candidates[0]);
  const auto time = [&](std::size_t i) { return value(candidates[i], 3) == 4 ? kFailed : cost(candidates[i]); };
  auto model = make_strategy("model", space, 1, 0).value();
  const Outcome outcome = drive(*model, 60, 1, time);
  EXPECT_EQ(outcome.best, 10);
  int failed = 0;
  for (const std::size_t index : outcome.order) failed += time(index) == kFailed;
  EXPECT_LE(failed, 15);  // an even share would be as many
}

TEST(Search, PointsOfDifferentVariantsHaveTheirOwnAxes) {
  const SearchSpace space = make_search_space({{{"variant", "a"}, {"tile", "8"}}, {{"variant", "b"}, {"width", "2"}}});
  EXPECT_EQ(space.points, (std::vector<std::vector<int>>{{0, 0, kAbsent}, {1, kAbsent, 0}}));
}

TEST(Search, AWarmStartBeginsWithWhatIsBestElsewhere) {
  const auto candidates = tiled_candidates();
  SearchSpace space = make_search_space(candidates, candidates[0]);
  Elsewhere similar, stranger;
  for (const Candidate& candidate : candidates) {
    Config config{{"variant", candidate.variant}};
    config.insert(config.end(), candidate.params.begin(), candidate.params.end());
    similar.times.emplace_back(config, 3 * cost(candidate) * (1 + 0.02 * value(candidate, 3)));
    stranger.times.emplace_back(Config{{"other", candidate.variant}}, 1);
  }
  EXPECT_EQ(warm_start(space, {similar, stranger}), 1u);
  ASSERT_EQ(space.elsewhere.size(), 1u);
  auto model = make_strategy("model", space, 1, 0).value();
  EXPECT_EQ(drive(*model, 6, 1, [&](std::size_t i) { return cost(candidates[i]); }).best, 10);
}

TEST(Search, AFewTrialsElsewhereAreEnoughToWarm) {
  const auto candidates = tiled_candidates();
  SearchSpace space = make_search_space(candidates, candidates[0]);
  Elsewhere source;
  for (std::size_t i = 0; i < candidates.size(); i += 17) {
    Config config{{"variant", candidates[i].variant}};
    config.insert(config.end(), candidates[i].params.begin(), candidates[i].params.end());
    source.times.emplace_back(config, i == 17 ? kFailed : cost(candidates[i]));
  }
  EXPECT_EQ(warm_start(space, {source}), 1u);
  auto model = make_strategy("model", space, 1, 0).value();
  EXPECT_LE(drive(*model, 12, 1, [&](std::size_t i) { return cost(candidates[i]); }).best, 12);
}

TEST(Search, AMisleadingSourceIsGivenUp) {
  const auto candidates = tiled_candidates();
  SearchSpace space = make_search_space(candidates, candidates[0]);
  Elsewhere opposite;
  for (const Candidate& candidate : candidates) {
    Config config{{"variant", candidate.variant}};
    config.insert(config.end(), candidate.params.begin(), candidate.params.end());
    opposite.times.emplace_back(config, 1 / cost(candidate));
  }
  EXPECT_EQ(warm_start(space, {opposite}), 1u);
  auto model = make_strategy("model", space, 1, 0).value();
  EXPECT_EQ(drive(*model, candidates.size() / 5, 1, [&](std::size_t i) { return cost(candidates[i]); }).best, 10);
}

TEST(Search, TheExpectedLossIsNoneWhereEverythingWasTriedAndUnknownWithoutAModel) {
  const auto candidates = tiled_candidates();
  const SearchSpace space = make_search_space(candidates, candidates[0]);
  const auto time = [&](std::size_t i) { return cost(candidates[i]); };
  for (const char* name : {"exhaustive", "random", "model"}) {
    auto strategy = make_strategy(name, space, 1, 0).value();
    EXPECT_EQ(strategy->expected_loss(), std::nullopt);  // nothing was timed yet
    drive(*strategy, 10, 1, time);
    EXPECT_EQ(strategy->expected_loss().has_value(), std::string(name) == "model");
    drive(*strategy, SIZE_MAX, 1, time);
    EXPECT_EQ(strategy->expected_loss(), 0.0);
  }
}

TEST(Search, TheExpectedLossFallsWhileTheSearchFindsTheOptimum) {
  const auto candidates = tiled_candidates();
  const SearchSpace space = make_search_space(candidates, candidates[0]);
  auto model = make_strategy("model", space, 1, 0).value();
  double best = kFailed;
  for (std::size_t i = 0; i < candidates.size(); i += 29) {
    model->report(i, cost(candidates[i]));
    best = std::min(best, cost(candidates[i]));
  }
  ASSERT_GT(best, 10.5);
  const double early = model->expected_loss().value();
  EXPECT_GT(early, 0.01);
  drive(*model, candidates.size() / 3, 1, [&](std::size_t i) { return cost(candidates[i]); });
  EXPECT_LT(model->expected_loss().value(), early / 4);
}

TEST(Search, ToAskForTheExpectedLossChangesNoProposal) {
  const auto candidates = tiled_candidates();
  const SearchSpace space = make_search_space(candidates, candidates[0]);
  auto asked = make_strategy("model", space, 3, 0).value(), quiet = make_strategy("model", space, 3, 0).value();
  for (int i = 0; i < 60; ++i) {
    const auto a = asked->propose(), b = quiet->propose();
    ASSERT_EQ(a, b) << i;
    asked->report(*a, cost(candidates[*a]));
    quiet->report(*b, cost(candidates[*b]));
    EXPECT_TRUE(i % 10 != 9 || asked->expected_loss().has_value());
  }
}

TEST(Search, AutoIsExhaustiveOnlyWhereTheSpaceFitsTheBudget) {
  const auto candidates = tiled_candidates();
  const SearchSpace space = make_search_space(candidates, candidates[0]);
  const auto time = [&](std::size_t i) { return cost(candidates[i]); };
  auto fits = make_strategy("auto", space, 1, candidates.size()).value();
  std::vector<std::size_t> in_order(candidates.size());
  for (std::size_t i = 0; i < in_order.size(); ++i) in_order[i] = i;
  EXPECT_EQ(drive(*fits, SIZE_MAX, 1, time).order, in_order);
  auto larger = make_strategy("auto", space, 1, 20).value();
  EXPECT_NE(drive(*larger, 20, 1, time).order, std::vector<std::size_t>(in_order.begin(), in_order.begin() + 20));
}

TEST(Search, OrdinalsFollowNumbersNotSpelling) {
  const std::vector<Candidate> candidates{{"v", {{"tile", "128"}}}, {"v", {{"tile", "16"}}}, {"v", {{"tile", "64"}}}};
  const SearchSpace space = make_search_space(candidates, candidates[2]);
  EXPECT_EQ(space.points, (std::vector<std::vector<int>>{{0, 2}, {0, 0}, {0, 1}}));
  EXPECT_EQ(space.axes[1].numbers, (std::vector<double>{16, 64, 128}));
  EXPECT_EQ(space.seeds, std::vector<std::size_t>{2});
}

TEST(Search, AnUnknownNameGetsTheNearest) {
  const auto strategy = make_strategy("exhaustiv", SearchSpace{}, 1, 1);
  ASSERT_FALSE(strategy.has_value());
  EXPECT_EQ(strategy.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(strategy.error().message, HasSubstr("did you mean 'exhaustive'"));
}

TEST(Search, AnEmptySpaceEndsAtOnce) {
  for (const char* name : {"exhaustive", "random", "local", "annealing", "genetic", "model"}) {
    const SearchSpace space;
    EXPECT_EQ(make_strategy(name, space, 1, 10).value()->propose(), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace kgen
