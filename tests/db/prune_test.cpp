// Pruning: what a rule names goes, and winners stay but where the rule says otherwise.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "db/db.h"
#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::sample_device;
using testing::sample_object;
using testing::sample_op;
using testing::sample_problem;
using testing::sample_trial;
using testing::sample_winner;
using testing::TempFolder;

class Prune : public ::testing::Test {
 protected:
  std::int64_t device(const std::string& arch, const std::string& driver = "CUDA 13.0") {
    DeviceRecord record = sample_device();
    record.arch = arch;
    record.driver = driver;
    return db_.intern_device(record).value();
  }
  std::int64_t add(std::int64_t problem, std::int64_t device, const std::string& config, double time,
                   TrialStatus status = TrialStatus::kTimed) {
    TrialRecord trial = sample_trial(problem, device, status);
    trial.config = config;
    if (trial.time_us) trial.time_us = time;
    trial.recorded_at_ms = ++clock_;
    trial.source_hash = "source of " + config + source_;
    trial.compiler = compiler_;
    trial.op_hash = op_hash_;
    return db_.record(trial).value();
  }
  void publish(std::int64_t problem, std::int64_t device, std::int64_t trial, const std::string& arch) {
    ObjectRecord object = sample_object("code " + std::to_string(trial));
    object.arch = arch;
    ASSERT_TRUE(db_.publish(sample_winner(problem, device, trial, object), object));
  }
  std::vector<std::string> left(std::int64_t problem, std::int64_t device) {
    std::vector<std::string> configs;
    const auto trials = db_.trials(problem, device).value();
    for (const TrialRecord& trial : trials) configs.push_back(trial.config);
    EXPECT_THAT(db_.check().value(), IsEmpty());
    return configs;
  }

  TempFolder folder_;
  Db db_ = Db::open(folder_.file("tuned.db"), DbMode::kReadWrite).value();
  std::int64_t clock_ = 1'700'000'000'000, problem_ = db_.intern_problem(sample_op(), sample_problem()).value();
  std::string source_, compiler_ = "nvrtc 13.0", op_hash_ = "op";
};

TEST_F(Prune, FailuresGoAndAllElseStays) {
  const auto card = device("sm_90");
  add(problem_, card, "hung", 0, TrialStatus::kHung);
  add(problem_, card, "slow", 9);
  add(problem_, card, "wrong", 0, TrialStatus::kWrong);
  publish(problem_, card, add(problem_, card, "best", 5), "sm_90");
  EXPECT_EQ(db_.prune({.failures = true}, true)->failures, 2);
  EXPECT_EQ(left(problem_, card).size(), 4U) << "a dry run changes nothing";
  EXPECT_EQ(db_.prune({.op_glob = "conv*", .failures = true}, false)->failures, 0);
  EXPECT_EQ(db_.prune({.failures = true}, false)->failures, 2);
  EXPECT_THAT(left(problem_, card), ElementsAre("slow", "best"));
}

TEST_F(Prune, OfTheFastestCandidatesAllTrialsStay) {
  const auto card = device("sm_90");
  for (const auto& [config, time] : {std::pair{"a", 5.}, {"b", 4.}, {"c", 3.}, {"d", 2.}, {"c", 2.5}})
    add(problem_, card, config, time);
  publish(problem_, card, 1, "sm_90");  // an old winner that others have overtaken
  add(problem_, card, "hung", 0, TrialStatus::kHung);
  const Pruned pruned = db_.prune({.keep_top = 2}, false).value();
  EXPECT_EQ(pruned.slow, 1);
  EXPECT_EQ(pruned.winners, 0);
  EXPECT_THAT(left(problem_, card), ElementsAre("a", "c", "d", "c", "hung"));
  EXPECT_EQ(db_.prune({.keep_top = 2, .winners = true}, false)->winners, 1);
  EXPECT_THAT(left(problem_, card), ElementsAre("c", "d", "c", "hung"));
  EXPECT_EQ(db_.info()->objects, 0);
}

TEST_F(Prune, StaleIsWhatANewerDriverCompilerOperatorOrSourceHasOvertaken) {
  const auto old_driver = device("sm_90", "CUDA 12.0");
  add(problem_, old_driver, "driver", 5);
  const auto card = device("sm_90"), other = device("gfx942");
  compiler_ = "nvrtc 12.0";
  add(problem_, card, "compiler", 5);
  compiler_ = "clang 19";
  add(problem_, other, "of another architecture", 5);
  compiler_ = "nvrtc 13.0";
  op_hash_ = "old op";
  add(problem_, card, "operator", 5);
  op_hash_ = "op";
  source_ = " before";
  add(problem_, card, "source", 5);
  source_ = "";
  add(problem_, card, "source", 5);
  compiler_ = op_hash_ = "";
  add(problem_, card, "imported", 5);
  EXPECT_EQ(db_.prune({.stale = true}, false)->stale, 4);
  EXPECT_THAT(left(problem_, card), ElementsAre("source", "imported"));
  EXPECT_THAT(left(problem_, other), ElementsAre("of another architecture"));
  EXPECT_EQ(db_.info()->devices, 2) << "the card with its old driver is gone";
  EXPECT_EQ(db_.prune({.stale = true}, false)->stale, 0) << "nothing new is stale afterwards";
}

TEST_F(Prune, AnArchitectureGoesWithItsWinners) {
  const auto card = device("sm_90"), other = device("gfx942");
  publish(problem_, card, add(problem_, card, "a", 5), "sm_90");
  const auto second = db_.intern_problem(sample_op(), sample_problem(77)).value();
  publish(second, other, add(second, other, "b", 5), "gfx942");
  const Pruned pruned = db_.prune({.archs = {"gfx942"}}, false).value();
  EXPECT_EQ(pruned.of_archs, 1);
  EXPECT_EQ(pruned.winners, 1);
  EXPECT_EQ(pruned.objects, 1);
  EXPECT_EQ(pruned.problems, 1);
  EXPECT_EQ(pruned.devices, 1);
  EXPECT_THAT(left(problem_, card), ElementsAre("a"));
  EXPECT_EQ(db_.winners()->size(), 1U);
}

TEST_F(Prune, TheFileBecomesSmaller) {
  const auto card = device("sm_90");
  for (int i = 0; i < 2000; ++i)
    add(problem_, card, "config " + std::to_string(i), 5 + i, i % 2 ? TrialStatus::kTimed : TrialStatus::kWrong);
  const std::string path = folder_.file("tuned.db");
  const auto size = [&] {
    {
      const Db closed = std::move(db_);
    }  // what was in its -wal is in the file now
    const auto bytes = std::filesystem::file_size(path);
    db_ = Db::open(path, DbMode::kReadWrite).value();
    return bytes;
  };
  const auto before = size();
  ASSERT_TRUE(db_.prune({.failures = true, .keep_top = 10}, false));
  EXPECT_LT(size(), before / 4);
  EXPECT_EQ(left(problem_, card).size(), 10U);
}

}  // namespace
}  // namespace kgen
