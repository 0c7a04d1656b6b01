#include "tuner/search/winners.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "generator/spec.h"

namespace kgen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kSignature = "gemm dtype=bf16 epilogue=";

Recording recording(const std::string& dims_key, const std::vector<std::pair<std::string, double>>& times,
                    const std::string& arch = "sm_90") {
  Recording r;
  r.op.op = "gemm";
  r.op.signature = kSignature;
  r.problem.dims_key = dims_key;
  r.device.arch = arch;
  for (const auto& [config, time] : times) {
    TrialRecord& trial = r.trials.emplace_back();
    trial.config = config;
    trial.status = time > 0 ? TrialStatus::kTimed : TrialStatus::kWrong;
    if (time > 0) trial.time_us = time;
  }
  return r;
}

std::vector<std::string> configs_of(const std::vector<Winner>& winners, const std::string& dims_key) {
  std::vector<std::string> configs;
  for (const Winner& winner : winners)
    if (winner.dims_key == dims_key) configs.push_back(winner.config);
  return configs;
}

TEST(Winners, OneConfigurationServesEveryProblemThatItIsNearlyFastestFor) {
  const std::vector<Winner> winners =
      learn_winners({recording("m=1", {{"v t=1", 10}, {"v t=2", 10.2}, {"v t=3", 30}, {"v t=4", 40}, {"v t=5", 50}}),
                     recording("m=2", {{"v t=1", 20}, {"v t=2", 10}, {"v t=3", 30}, {"v t=4", 40}, {"v t=5", 50}})});
  EXPECT_EQ(configs_of(winners, "m=2").front(), "v t=2");
  EXPECT_THAT(configs_of(winners, "m=1"), ElementsAre("v t=1", "v t=2"));  // the cover's, and its own
  EXPECT_EQ(winners.front().family, "hopper");
}

TEST(Winners, AWrongCandidateAndAProblemWithFewTrialsTeachNothing) {
  const std::vector<Winner> winners = learn_winners(
      {recording("m=1", {{"v t=0", -1}, {"v t=1", 10}, {"v t=2", 20}, {"v t=3", 30}, {"v t=4", 40}, {"v t=5", 50}}),
       recording("m=2", {{"v t=9", 1}})});
  EXPECT_THAT(configs_of(winners, "m=1"), ElementsAre("v t=1"));
  EXPECT_TRUE(configs_of(winners, "m=2").empty());
}

TEST(Winners, TheirFileGivesThemBack) {
  const std::vector<Winner> winners{{"gemm", "hopper", "gemm expr=\"a\\b\" dtype=bf16", "k=4096 m=1", "v t=1"},
                                    {"gemm", "hopper", "gemm dtype=bf16", "", "v t=2 u=3"},
                                    {"rope", "cdna", "rope dtype=bf16", "s=1", "plain"}};
  const auto files = winners_yaml(winners);
  ASSERT_EQ(files.size(), 2u);
  const auto gemm = read_winners(files.at("gemm"), "some/folder/gemm.yaml").value();
  ASSERT_EQ(gemm.size(), 2u);
  EXPECT_EQ(gemm[0].signature, winners[0].signature);
  EXPECT_EQ(gemm[1].dims_key, "");
  EXPECT_EQ(gemm[1].config, "v t=2 u=3");
  EXPECT_EQ(gemm[1].op, "gemm");
  EXPECT_EQ(read_winners(files.at("rope"), "rope.yaml").value()[0].family, "cdna");
}

TEST(Winners, ABrokenFileIsBadInputWithItsLine) {
  for (const char* text :
       {"hoper: {}", "hopper: 3", "hopper:\n  gemm:\n    m=1: v t=1", "hopper: {gemm: {m=1: [[1]]}}"}) {
    const auto winners = read_winners(text, "gemm.yaml");
    ASSERT_FALSE(winners.has_value()) << text;
    EXPECT_EQ(winners.error().kind, ErrorKind::kBadInput);
    EXPECT_THAT(winners.error().message, HasSubstr("gemm.yaml:"));
  }
  EXPECT_FALSE(winners_of("gemm", "/nowhere").has_value());
}

TEST(Winners, EveryListThatShipsIsOfABuiltInOperatorAndCanBeRead) {
  const std::vector<std::string> ops = builtin_ops();
  std::size_t lists = 0;
  for (const std::string& op : ops) {
    const auto winners = winners_of(op, "");
    ASSERT_TRUE(winners.has_value()) << winners.error().message;
    lists += !winners->empty();
  }
  EXPECT_GT(lists, 10u);
}

class Ranked : public ::testing::Test {
 protected:
  std::vector<std::size_t> rank(const std::vector<Winner>& winners, const std::string& dims_key,
                                const std::string& family = "hopper") const {
    return rank_winners(space_, winners, kSignature, dims_key, family, 4);
  }
  static Winner winner(const std::string& dims_key, const std::string& config, const std::string& family = "hopper") {
    return {"gemm", family, kSignature, dims_key, config};
  }
  const SearchSpace space_ = make_search_space({{{"variant", "a"}, {"tile", "16"}},
                                                {{"variant", "a"}, {"tile", "32"}},
                                                {{"variant", "a"}, {"tile", "64"}},
                                                {{"variant", "b"}, {"width", "2"}}});
};

TEST_F(Ranked, TheNearestShapesComeFirst) {
  const std::vector<Winner> winners{winner("m=1", "a tile=16"), winner("m=64", "a tile=64"),
                                    winner("m=8", "b width=2")};
  EXPECT_THAT(rank(winners, "m=2"), ElementsAre(0, 3, 2));
  EXPECT_THAT(rank(winners, "m=128"), ElementsAre(2, 3, 0));
}

TEST_F(Ranked, WhatServesManyShapesComesBeforeWhatServesOne) {
  const std::vector<Winner> winners{winner("m=8", "a tile=16"), winner("m=16", "a tile=64"),
                                    winner("m=4", "a tile=64")};
  EXPECT_EQ(rank(winners, "m=11").front(), 2u);
}

TEST_F(Ranked, AnIllegalConfigurationStandsForTheNearestOfItsVariant) {
  EXPECT_THAT(rank({winner("m=1", "a tile=128")}, "m=1"), ElementsAre(2));
  EXPECT_THAT(rank({winner("m=1", "a tile=1024")}, "m=1"), ElementsAre());
  EXPECT_THAT(rank({winner("m=1", "c tile=16")}, "m=1"), ElementsAre());
}

TEST_F(Ranked, AnotherFamilyHelpsOnlyItsVendorAndOnlyWhereThereIsNothingNearer) {
  const std::vector<Winner> winners{winner("m=1", "a tile=16"), winner("m=1", "a tile=64", "ampere")};
  EXPECT_THAT(rank(winners, "m=1", "ampere"), ElementsAre(2));
  EXPECT_EQ(rank(winners, "m=1", "turing").size(), 2u);
  EXPECT_TRUE(rank(winners, "m=1", "cdna").empty());
}

}  // namespace
}  // namespace kgen
