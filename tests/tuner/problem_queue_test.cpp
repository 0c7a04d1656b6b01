#include "tuner/problem_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

namespace kgen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

std::vector<OpSpec> gemms(const std::string& m, const std::string& n = "64") {
  return parse_spec_text("{kgen: 1, ops: [{op: gemm, dtype: fp32, problems: [{m: " + m + ", n: " + n + ", k: 64}]}]}",
                         "queue.yaml")
      .value();
}
std::string key(const OpSpec& spec) { return signature(*spec.op, spec.problem) + dims_key(*spec.op, spec.problem); }
std::set<std::string> keys(const std::vector<OpSpec>& specs) {
  std::set<std::string> all;
  for (const OpSpec& spec : specs) all.insert(key(spec));
  return all;
}

constexpr bool kGoOn = false;

TEST(Shard, IsReadAndBadOnesAreRefused) {
  const auto shard = parse_shard("3/16");
  ASSERT_TRUE(shard);
  EXPECT_EQ(shard->index, 3);
  EXPECT_EQ(shard->count, 16);
  for (const char* bad : {"", "3", "0/4", "5/4", "-1/4", "1/0", "1/4x", "a/b", "1/99999999999"}) {
    const auto refused = parse_shard(bad);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().kind, ErrorKind::kBadInput);
    EXPECT_THAT(refused.error().message, HasSubstr("i/n"));
  }
}

TEST(Shard, EveryProblemIsInOneOfThemWhateverTheOrderOfTheList) {
  std::vector<OpSpec> specs = gemms("[1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144]", "[64, 96]");
  std::vector<OpSpec> shuffled = specs;
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(7));
  for (const int count : {1, 2, 5, 16, 40}) {
    std::multiset<std::string> dealt;
    std::size_t least = specs.size(), most = 0;
    for (int index = 1; index <= count; ++index) {
      const auto part = take_shard(specs, {index, count});
      EXPECT_EQ(keys(part), keys(take_shard(shuffled, {index, count})));
      for (const OpSpec& spec : part) dealt.insert(key(spec));
      least = std::min(least, part.size());
      most = std::max(most, part.size());
    }
    EXPECT_EQ(dealt.size(), specs.size());
    EXPECT_EQ(std::set<std::string>(dealt.begin(), dealt.end()), keys(specs));
    EXPECT_LE(most - least, 1u) << count;
  }
}

TEST(Shard, TheSameProblemTwiceIsInTheSameOne) {
  const std::vector<OpSpec> specs = gemms("[1, 2, 1, 3, 1]");
  int with = 0;
  for (int index = 1; index <= 3; ++index) {
    const auto part = take_shard(specs, {index, 3});
    const auto ones =
        std::count_if(part.begin(), part.end(), [&](const OpSpec& spec) { return key(spec) == key(specs[0]); });
    EXPECT_TRUE(ones == 0 || ones == 3);
    with += ones == 3;
  }
  EXPECT_EQ(with, 1);
}

TEST(ProblemQueue, OneDeviceGetsThemInTheOrderOfTheList) {
  ProblemQueue queue(gemms("[3, 1, 2]"), 1);
  EXPECT_EQ(queue.take(kGoOn), 0u);
  EXPECT_EQ(queue.take_ahead(0), 1u);
  EXPECT_EQ(queue.take_ahead(1), 2u);
  EXPECT_EQ(queue.take_ahead(2), std::nullopt);
}

TEST(ProblemQueue, SeveralDevicesGetTheLargestFirstAndDoNotHoardTheLast) {
  ProblemQueue queue(gemms("[30, 10, 40, 20, 50]"), 2);
  EXPECT_EQ(queue.take(kGoOn), 4u);
  EXPECT_EQ(queue.take(kGoOn), 2u);
  EXPECT_EQ(queue.take_ahead(0), 0u) << "three are left";
  EXPECT_EQ(queue.take_ahead(1), std::nullopt) << "it would be the third in a row while the other may need it";
  EXPECT_EQ(queue.take_ahead(0), 3u);
  EXPECT_EQ(queue.take_ahead(0), std::nullopt) << "the last one goes to whoever is free first";
  EXPECT_EQ(queue.take(kGoOn), 1u);
}

TEST(ProblemQueue, TheSameProblemIsAtOneDeviceAtATime) {
  ProblemQueue queue(gemms("[7, 7, 1]"), 2);
  EXPECT_EQ(queue.take(kGoOn), 0u);
  EXPECT_EQ(queue.take(kGoOn), 2u) << "past the twin of the one at work";
  std::thread first([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    queue.done(0);
  });
  EXPECT_EQ(queue.take(kGoOn), 1u) << "waits for it";
  first.join();
}

TEST(ProblemQueue, WhatADeadDeviceHadGoesToOneThatWaits) {
  ProblemQueue queue(gemms("[2, 1]"), 2);
  EXPECT_EQ(queue.take(kGoOn), 0u);
  EXPECT_EQ(queue.take(kGoOn), 1u);
  queue.done(1);
  std::thread dying([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    queue.give_back({0});
  });
  EXPECT_EQ(queue.take(kGoOn), 0u);
  dying.join();
  EXPECT_FALSE(queue.all_done());
  queue.done(0);
  EXPECT_TRUE(queue.all_done());
  EXPECT_EQ(queue.take(kGoOn), std::nullopt);
}

TEST(ProblemQueue, AStopEndsTheWait) {
  ProblemQueue queue(gemms("[1]"), 2);
  EXPECT_EQ(queue.take(kGoOn), 0u);
  std::atomic<bool> stop = false;
  std::thread stopping([&] { stop = true; });
  EXPECT_EQ(queue.take(stop), std::nullopt);
  stopping.join();
}

}  // namespace
}  // namespace kgen
