// Which kernel serves a shape, and why: on hand-made winners and plans, without a device.
#include "runtime/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::sample_device;
using testing::sample_object;
using testing::sample_trial;
using testing::TempFolder;

constexpr const char* kSignature = "gemm b_layout=nk dtype=bf16 epilogue=";

struct Tuned {
  std::string dims_key;
  std::string config;  // stands for the kernel
  double time_us = 10;
  bool is_default = false;
  std::vector<std::string> needs = {};
  std::string device = "NVIDIA H100 80GB HBM3";
  std::string arch = "sm_90";
  std::string signature = kSignature;
  std::string dim_defaults = "1\n\n\n\nb_layout == nk ? k : n\nm*k*dtype_bytes*(1 + epilogue_bias)";
  std::string attributes = "dtype= b_layout=nk out_dtype=dtype epilogue=";
  Goal goal = {};
  bool same_bits = true;
  double energy_uj = 100;
  std::string kind = "cubin";
  std::int64_t lds_bytes = 0;  // of its one step, where not 0
  std::optional<SizeRange> range = {};
  std::string untimed = {};  // what is known of a default that was compiled alone
};

class DispatcherTest : public ::testing::Test {
 protected:
  DispatcherTest() : db_(Db::open(folder_.file("tuned.db"), DbMode::kReadWrite).value()) {}

  void add(const Tuned& tuned) {
    DeviceRecord device = sample_device(tuned.device);
    device.arch = tuned.arch;
    const auto device_id = db_.intern_device(device).value();
    const OpRecord op{.signature = tuned.signature,
                      .op = "gemm",
                      .dims = "batch,m,n,k,ldb,stride",
                      .dim_defaults = tuned.dim_defaults,
                      .attributes = tuned.attributes};
    const auto problem = db_.intern_problem(op, {.dims_key = tuned.dims_key, .dims_json = "{}", .label = ""}).value();
    TrialRecord trial = sample_trial(problem, device_id);
    trial.config = tuned.config;
    trial.time_us = tuned.time_us;
    trial.timing = tuned.goal.timing;
    trial.deterministic = tuned.same_bits;
    trial.energy_uj = tuned.energy_uj;
    if (!tuned.untimed.empty()) {
      trial = sample_trial(problem, device_id, TrialStatus::kCompiled);
      trial.config = tuned.config;
      trial.reason = tuned.untimed;
    }
    const auto trial_id = db_.record(trial).value();
    Plan plan;
    plan.dims = {"batch", "m", "n", "k", "ldb", "stride"};
    plan.dim_defaults.resize(plan.dims.size());
    for (const auto& need : tuned.needs) plan.needs.push_back(Expr::parse(need).value());
    if (tuned.lds_bytes > 0) {
      plan.steps.push_back({.kernel = "large",
                            .prepare = false,
                            .when = Expr::parse("1").value(),
                            .grid = {Expr::parse("1").value(), Expr::parse("1").value(), Expr::parse("1").value()},
                            .block = Expr::parse("64").value(),
                            .lds_bytes = Expr::parse(std::to_string(tuned.lds_bytes)).value()});
    }
    ObjectRecord object = sample_object(tuned.config);
    object.arch = tuned.arch;
    object.kind = tuned.kind;
    ASSERT_TRUE(db_.publish({.problem = problem,
                             .device = device_id,
                             .trial = trial_id,
                             .goal = tuned.goal,
                             .plan_json = plan_to_json(plan),
                             .object_hash = object.hash,
                             .is_default = tuned.is_default,
                             .range = tuned.range},
                            object));
  }
  // Kept until the end of the test: matches point into it.
  const Dispatcher& load(const std::string& arch = "sm_90", const std::string& device = "NVIDIA H100 80GB HBM3") {
    dispatchers_.push_back(std::make_unique<Dispatcher>(Dispatcher::load(db_, arch, device).value()));
    return *dispatchers_.back();
  }
  static std::string config(const Match& match) { return match.row == nullptr ? "" : match.row->trial.config; }

  TempFolder folder_;
  Db db_;
  std::vector<std::unique_ptr<Dispatcher>> dispatchers_;
};

TEST_F(DispatcherTest, TheTunedShapeIsExact) {
  add({.dims_key = "k=4096 m=16 n=4096", .config = "a"});
  add({.dims_key = "k=4096 m=17 n=4096", .config = "b"});
  const Dispatcher& dispatcher = load();
  const Match match = dispatcher.find(kSignature, {{"m", 17}, {"n", 4096}, {"k", 4096}});
  EXPECT_EQ(match.kind, MatchKind::kExact);
  EXPECT_EQ(config(match), "b");
  EXPECT_EQ(match.reason, "tuned for this shape");
  ASSERT_NE(match.plan, nullptr);
  EXPECT_EQ(match.plan->plan.dims.size(), 6U);
}

TEST_F(DispatcherTest, AnUntimedDefaultIsADefaultAtItsOwnShapeToo) {
  add({.dims_key = "k=4096 m=16 n=4096",
       .config = "a",
       .is_default = true,
       .device = "any sm_90",
       .untimed = "not timed"});
  add({.dims_key = "k=4096 m=64 n=4096",
       .config = "b",
       .is_default = true,
       .device = "any sm_90",
       .untimed = "not timed"});
  const Dispatcher& dispatcher = load();
  const Match match = dispatcher.find(kSignature, {{"m", 16}, {"n", 4096}, {"k", 4096}});
  EXPECT_EQ(match.kind, MatchKind::kDefault);
  EXPECT_EQ(config(match), "a");
  EXPECT_EQ(match.reason, "the operator's default for this shape, not timed");
  EXPECT_FALSE(match.expected_loss);
  const Match other = dispatcher.find(kSignature, {{"m", 48}, {"n", 4096}, {"k", 4096}}, {.timing = "graph"});
  EXPECT_EQ(other.kind, MatchKind::kDefault);
  EXPECT_EQ(config(other), "b");
  EXPECT_EQ(other.reason, "the operator's default for m=64, legal for m=48, not timed");
  EXPECT_EQ(dispatcher.find(kSignature, {{"m", 16}, {"n", 4096}, {"k", 4096}}, {.deterministic = true}).kind,
            MatchKind::kNone)
      << "nobody saw its launches give the same bits";
}

TEST_F(DispatcherTest, WhatWasTimedComesBeforeAnUntimedDefault) {
  add({.dims_key = "k=4096 m=16 n=4096",
       .config = "here",
       .is_default = true,
       .device = "any sm_90",
       .untimed = "not timed"});
  add({.dims_key = "k=64 m=1 n=64", .config = "timed far", .time_us = 1e6, .is_default = true});
  const Env dims{{"m", 16}, {"n", 4096}, {"k", 4096}};
  EXPECT_EQ(config(load().find(kSignature, dims)), "timed far");
  add({.dims_key = "k=4096 m=32 n=4096", .config = "near"});
  EXPECT_EQ(config(load().find(kSignature, dims)), "near");
  add({.dims_key = "k=4096 m=16 n=4096", .config = "exact", .device = "another card"});
  const Match match = load().find(kSignature, dims);
  EXPECT_EQ(config(match), "exact");
  EXPECT_EQ(match.kind, MatchKind::kExact);
}

TEST_F(DispatcherTest, DimsThatAreGivenAtTheirDefaultsAreStillExact) {
  add({.dims_key = "k=4096 m=16 n=128", .config = "a"});
  const Dispatcher& dispatcher = load();
  const Env dims{{"batch", 1}, {"m", 16}, {"n", 128}, {"k", 4096}, {"ldb", 4096}, {"stride", 16 * 4096 * 2}};
  EXPECT_EQ(dispatcher.find(kSignature, dims).kind, MatchKind::kExact);
}

TEST_F(DispatcherTest, DefaultsMayReadAttributes) {
  const std::string signature = "gemm b_layout=kn dtype=fp32 epilogue=relu,bias";
  add({.dims_key = "k=4096 m=16 n=128", .config = "a", .signature = signature});
  const Dispatcher& dispatcher = load();
  // kn: ldb = n; fp32: 4 bytes; bias is the second of the epilogue.
  const Env dims{{"m", 16}, {"n", 128}, {"k", 4096}, {"ldb", 128}, {"stride", 16 * 4096 * 4 * 3}};
  EXPECT_EQ(dispatcher.find(signature, dims).kind, MatchKind::kExact);
  const Match other = dispatcher.find(signature, {{"m", 16}, {"n", 128}, {"k", 4096}, {"ldb", 4096}});
  EXPECT_EQ(other.kind, MatchKind::kNear) << "4096 would be the default of nk";
  EXPECT_THAT(other.reason, HasSubstr("far")) << "32 times the tuned ldb";
}

TEST_F(DispatcherTest, DefaultsMayReadTheIntegersOfAnAttribute) {
  const std::string signature = "gemm b_layout=nk dils=1,3,5 dtype=fp32 epilogue=";
  add({.dims_key = "k=4096 m=16 n=128",
       .config = "a",
       .signature = signature,
       .dim_defaults = "1\n\n\n\ndils_count*k\n1000*dils_max + 10*dils_2 + dils_4",
       .attributes = "dtype= b_layout=nk dils= epilogue="});
  const Dispatcher& dispatcher = load();
  const Env given{{"m", 16}, {"n", 128}, {"k", 4096}, {"ldb", 3 * 4096}, {"stride", 5030}};
  EXPECT_EQ(dispatcher.find(signature, given).kind, MatchKind::kExact);
}

TEST_F(DispatcherTest, TheOrderOfWordsInAStoredKeyDoesNotMatter) {
  add({.dims_key = "m=16 n=128 k=4096", .config = "a"});
  EXPECT_EQ(load().find(kSignature, {{"m", 16}, {"n", 128}, {"k", 4096}}).kind, MatchKind::kExact);
}

TEST_F(DispatcherTest, AnUntunedShapeTakesTheNearestLegalOne) {
  add({.dims_key = "k=1176 m=5476 n=1280", .config = "near"});
  add({.dims_key = "k=1176 m=1024 n=1280", .config = "farther"});
  add({.dims_key = "k=1176 m=5480 n=1280", .config = "nearest, not legal", .needs = {"m % 8 == 0"}});
  const Match match = load().find(kSignature, {{"m", 5481}, {"n", 1280}, {"k", 1176}});
  EXPECT_EQ(match.kind, MatchKind::kNear);
  EXPECT_EQ(config(match), "near");
  EXPECT_EQ(match.reason, "tuned at m=5476, legal for m=5481");
}

TEST_F(DispatcherTest, DistanceCountsEveryDimAlike) {
  // 2 times in one dim and 1.5 times in another (1.58) against 2.5 times in one (1.32).
  add({.dims_key = "k=2048 m=1536 n=1024", .config = "two dims"});
  add({.dims_key = "k=1024 m=2560 n=1024", .config = "one dim"});
  EXPECT_EQ(config(load().find(kSignature, {{"m", 1024}, {"n", 1024}, {"k", 1024}})), "one dim");
}

TEST_F(DispatcherTest, AStrideThatFollowsFromTheOthersDoesNotCountTwice) {
  add({.dims_key = "k=1024 m=64 n=1024", .config = "k half"});              // ldb and stride half as well
  add({.dims_key = "k=2048 ldb=4096 m=64 n=1024", .config = "ldb twice"});  // ldb differs alone
  add({.dims_key = "k=2048 m=160 n=1024", .config = "m 2.5 times"});
  const Dispatcher& dispatcher = load();
  EXPECT_EQ(config(dispatcher.find(kSignature, {{"m", 64}, {"n", 1024}, {"k", 2000}})), "k half");
  EXPECT_EQ(config(dispatcher.find(kSignature, {{"m", 64}, {"n", 1024}, {"k", 2048}, {"ldb", 4100}})), "ldb twice");
}

TEST_F(DispatcherTest, ASizeInARangeIsServedByTheRangesKernel) {
  // One cover is one publication; a range each of two dims stands for two covers here.
  add({.dims_key = "k=4096 m=64 n=128", .config = "m", .range = SizeRange{"m", 17, 100, 0.015}});
  add({.dims_key = "k=64 m=4096 n=128", .config = "k", .range = SizeRange{"k", 1, 100, 0.02}});
  add({.dims_key = "k=4096 m=65 n=128", .config = "exact"});
  const Dispatcher& dispatcher = load();
  const Match match = dispatcher.find(kSignature, {{"m", 17}, {"n", 128}, {"k", 4096}});
  EXPECT_EQ(match.kind, MatchKind::kDynamic);
  EXPECT_EQ(config(match), "m");
  EXPECT_EQ(match.expected_loss, 0.015);
  EXPECT_EQ(match.reason, "serves m=17..100, measured at m=64");
  EXPECT_EQ(config(dispatcher.find(kSignature, {{"m", 100}, {"n", 128}, {"k", 4096}})), "m");
  EXPECT_EQ(config(dispatcher.find(kSignature, {{"m", 4096}, {"n", 128}, {"k", 7}})), "k");

  const Match exact = dispatcher.find(kSignature, {{"m", 65}, {"n", 128}, {"k", 4096}});
  EXPECT_EQ(exact.kind, MatchKind::kExact) << "a kernel of the very shape comes first";
  EXPECT_EQ(exact.expected_loss, 0);
  EXPECT_EQ(dispatcher.find(kSignature, {{"m", 64}, {"n", 128}, {"k", 4096}}).kind, MatchKind::kDynamic)
      << "where it was measured it need not be the best";
  for (const Env& outside : {Env{{"m", 16}, {"n", 128}, {"k", 4096}}, Env{{"m", 101}, {"n", 128}, {"k", 4096}},
                             Env{{"m", 64}, {"n", 129}, {"k", 4096}}})
    EXPECT_EQ(dispatcher.find(kSignature, outside).kind, MatchKind::kNear) << "outside of every range";
}

TEST_F(DispatcherTest, ARangesKernelThatIsNotLegalLeavesTheSizeToTheNextRule) {
  add({.dims_key = "k=4096 m=64 n=128",
       .config = "even",
       .needs = {"m % 2 == 0"},
       .range = SizeRange{"m", 1, 100, 0.01}});
  add({.dims_key = "k=4096 m=90 n=128", .config = "any"});
  EXPECT_EQ(config(load().find(kSignature, {{"m", 50}, {"n", 128}, {"k", 4096}})), "even");
  EXPECT_EQ(config(load().find(kSignature, {{"m", 51}, {"n", 128}, {"k", 4096}})), "any");
}

TEST_F(DispatcherTest, AtTheSameDistanceTheFasterOneIsTaken) {
  add({.dims_key = "k=1024 m=63 n=1024", .config = "slow", .time_us = 20});
  add({.dims_key = "k=1024 m=255 n=1024", .config = "fast", .time_us = 5});
  EXPECT_EQ(config(load().find(kSignature, {{"m", 127}, {"n", 1024}, {"k", 1024}})), "fast");
}

TEST_F(DispatcherTest, OfTheNearOnesTheOneThatIsExpectedToBeTheFastestIsTaken) {
  add({.dims_key = "k=1024 m=96 n=1024", .config = "nearer, but slow", .time_us = 30});
  add({.dims_key = "k=1024 m=64 n=1024", .config = "quick", .time_us = 10});
  add({.dims_key = "k=1024 m=300 n=1024", .config = "quicker, but far", .time_us = 9});
  const Match match = load().find(kSignature, {{"m", 100}, {"n", 1024}, {"k", 1024}});
  EXPECT_EQ(config(match), "quick");
  ASSERT_TRUE(match.expected_loss);
  EXPECT_NEAR(*match.expected_loss, 0.03 * std::log2(101.0 / 65), 1e-6);
}

TEST_F(DispatcherTest, WhereTheNearestAreNotLegalTheNextNearestIsTaken) {
  for (int m = 100; m < 110; ++m)
    add({.dims_key = "k=1024 m=" + std::to_string(m) + " n=1024",
         .config = "none " + std::to_string(m),
         .needs = {"m % 64 == 0"}});
  add({.dims_key = "k=1024 m=200 n=1024", .config = "legal"});
  const Match match = load().find(kSignature, {{"m", 99}, {"n", 1024}, {"k", 1024}});
  EXPECT_EQ(match.kind, MatchKind::kNear);
  EXPECT_EQ(config(match), "legal");
}

TEST_F(DispatcherTest, BeyondTheLimitTheDefaultIsTaken) {
  add({.dims_key = "k=4096 m=4096 n=4096", .config = "tuned"});
  add({.dims_key = "k=4096 m=4096 n=4096", .config = "default", .time_us = 20, .is_default = true});
  const Dispatcher& dispatcher = load();
  const Match near = dispatcher.find(kSignature, {{"m", 1025}, {"n", 4096}, {"k", 4096}});
  EXPECT_EQ(near.kind, MatchKind::kNear) << near.reason;
  const Match far = dispatcher.find(kSignature, {{"m", 1}, {"n", 4096}, {"k", 4096}});
  EXPECT_EQ(far.kind, MatchKind::kDefault);
  EXPECT_EQ(config(far), "default");
  EXPECT_EQ(far.reason, "tuned at m=4096, legal for m=1; the operator's default, no tuned kernel is near");
}

TEST_F(DispatcherTest, TheDefaultIsOnlyTakenWhereItIsLegal) {
  add({.dims_key = "k=4096 m=4096 n=4096", .config = "tuned", .needs = {"k % 8 == 0"}});
  add({.dims_key = "k=4096 m=4096 n=4096", .config = "default", .is_default = true, .needs = {"k % 4 == 0"}});
  const Dispatcher& dispatcher = load();
  EXPECT_EQ(dispatcher.find(kSignature, {{"m", 4096}, {"n", 4096}, {"k", 4092}}).kind, MatchKind::kDefault);
  const Match none = dispatcher.find(kSignature, {{"m", 4096}, {"n", 4096}, {"k", 4091}});
  EXPECT_EQ(none.kind, MatchKind::kNone);
  EXPECT_EQ(none.row, nullptr);
  EXPECT_EQ(none.reason,
            "none of 2 tuned kernels serves k=4091 m=4096 n=4096: not legal for this shape: needs 'k % 8 == 0'");
}

TEST_F(DispatcherTest, WithoutADefaultAFarKernelStillBeatsNone) {
  add({.dims_key = "k=4096 m=4096 n=4096", .config = "tuned"});
  const Match match = load().find(kSignature, {{"m", 1}, {"n", 4096}, {"k", 4096}});
  EXPECT_EQ(match.kind, MatchKind::kNear);
  EXPECT_THAT(match.reason, HasSubstr("far, but nothing nearer is legal"));
}

TEST_F(DispatcherTest, AZeroDimIsLegal) {
  add({.dims_key = "k=16 m=16 n=16", .config = "tuned"});
  const Match match = load().find(kSignature, {{"m", 0}, {"n", 16}, {"k", 16}});
  EXPECT_NE(match.kind, MatchKind::kNone);
  EXPECT_TRUE(match.bound.steps.empty());
}

TEST_F(DispatcherTest, TheWinnerComesBeforeTheDefaultOfTheSameShape) {
  add({.dims_key = "k=8 m=8 n=8", .config = "default", .time_us = 9, .is_default = true});
  add({.dims_key = "k=8 m=8 n=8", .config = "winner", .time_us = 9});
  EXPECT_EQ(config(load().find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}})), "winner");
}

TEST_F(DispatcherTest, ADefaultThatWasTunedForTheShapeIsExact) {
  add({.dims_key = "k=8 m=8 n=8", .config = "default", .is_default = true});
  EXPECT_EQ(load().find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}}).kind, MatchKind::kExact);
}

TEST_F(DispatcherTest, RowsOfTheSameDeviceNameComeFirst) {
  add({.dims_key = "k=8 m=8 n=8", .config = "other", .time_us = 1, .device = "NVIDIA H200"});
  add({.dims_key = "k=8 m=8 n=8", .config = "same", .time_us = 2});
  const Env dims{{"m", 8}, {"n", 8}, {"k", 8}};
  EXPECT_EQ(config(load().find(kSignature, dims)), "same");
  EXPECT_EQ(config(load("sm_90", "NVIDIA H200").find(kSignature, dims)), "other");
}

TEST_F(DispatcherTest, ARowOfAnotherDeviceOfTheArchServesAndSaysSo) {
  add({.dims_key = "k=8 m=8 n=8", .config = "other", .device = "NVIDIA H200"});
  const Match match = load().find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}});
  EXPECT_EQ(match.kind, MatchKind::kExact);
  EXPECT_EQ(match.reason, "tuned for this shape; on NVIDIA H200, not on this NVIDIA H100 80GB HBM3");
}

TEST_F(DispatcherTest, RowsOfAnotherArchAreNeverUsed) {
  add({.dims_key = "k=8 m=8 n=8", .config = "a", .arch = "gfx90a"});
  const Dispatcher& dispatcher = load();
  const Match match = dispatcher.find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}});
  EXPECT_EQ(match.kind, MatchKind::kNone);
  EXPECT_EQ(match.reason, std::string("'") + kSignature + "' was tuned for gfx90a only, not for sm_90");
  EXPECT_FALSE(dispatcher.any_plan(kSignature));
}

TEST_F(DispatcherTest, ADeviceWithoutRowsIsServedByOlderMembersOfItsFamily) {
  add({.dims_key = "k=8 m=8 n=8", .config = "sm_80", .device = "NVIDIA A100", .arch = "sm_80"});
  const Env dims = {{"m", 8}, {"n", 8}, {"k", 8}};
  EXPECT_EQ(load("sm_86", "A10").find(kSignature, dims).reason,
            "tuned for this shape; on NVIDIA A100, not on this A10; code of sm_80, which this sm_86 runs");
  EXPECT_EQ(config(load("sm_87", "Orin").find(kSignature, dims)), "sm_80") << "a chip that no table knows";
  EXPECT_TRUE(load("sm_87", "Orin").any_plan(kSignature));
  for (const char* other : {"sm_75", "sm_90", "sm_120", "gfx90a"})
    EXPECT_EQ(load(other, "other").find(kSignature, dims).kind, MatchKind::kNone) << other;
  add({.dims_key = "k=8 m=64 n=64", .config = "own", .device = "A10", .arch = "sm_86"});
  EXPECT_EQ(config(load("sm_86", "A10").find(kSignature, dims)), "own") << "its own rows come first, even far ones";
}

TEST_F(DispatcherTest, PtxServesNewerArchitecturesAndMachineCodeDoesNot) {
  const Env dims = {{"m", 8}, {"n", 8}, {"k", 8}};
  add({.dims_key = "k=8 m=8 n=8", .config = "ptx", .device = "V100", .arch = "sm_70", .kind = "ptx"});
  add({.dims_key = "k=8 m=8 n=8", .config = "cubin", .device = "NVIDIA A100", .arch = "sm_80"});
  EXPECT_THAT(load("sm_75", "T4").find(kSignature, dims).reason, HasSubstr("code of sm_70, which this sm_75 runs"));
  for (const char* newer : {"sm_90", "sm_120"}) {
    const Match match = load(newer, "newer").find(kSignature, dims);
    EXPECT_EQ(config(match), "ptx") << newer;
    EXPECT_THAT(match.reason, HasSubstr(std::string("PTX of sm_70, which this ") + newer + " runs"));
  }
  EXPECT_EQ(config(load("sm_89", "L4").find(kSignature, dims)), "cubin") << "the family before what is generic";
  EXPECT_EQ(load("sm_61", "older").find(kSignature, dims).kind, MatchKind::kNone);
}

TEST_F(DispatcherTest, AmdCodeServesItsOwnArchitectureOnly) {
  add({.dims_key = "k=8 m=8 n=8", .config = "a", .device = "RX 7900", .arch = "gfx1100"});
  const Env dims = {{"m", 8}, {"n", 8}, {"k", 8}};
  EXPECT_EQ(load("gfx1151", "Strix Halo").find(kSignature, dims).kind, MatchKind::kNone);
  EXPECT_EQ(config(load("gfx1100:sramecc-", "RX 7900").find(kSignature, dims)), "a");
}

TEST_F(DispatcherTest, AKernelThatNeedsMoreLdsThanTheDeviceHasIsNotLegal) {
  add({.dims_key = "k=8 m=8 n=8", .config = "large", .device = "A100", .arch = "sm_80", .lds_bytes = 160 << 10});
  const Env dims = {{"m", 8}, {"n", 8}, {"k", 8}};
  EXPECT_EQ(config(load("sm_80", "A100").find(kSignature, dims)), "large");
  const Match none = load("sm_86", "A10").find(kSignature, dims);
  EXPECT_EQ(none.kind, MatchKind::kNone);
  EXPECT_THAT(none.reason, HasSubstr("'large' takes 163840 bytes of LDS, a block has 101376 at most"));
}

TEST_F(DispatcherTest, AFilterSendsTheSearchToTheNextMatch) {
  add({.dims_key = "k=8 m=8 n=8", .config = "bad"});
  add({.dims_key = "k=8 m=9 n=8", .config = "good"});
  const auto filter = [](const WinnerRow& row, const auto&) -> Result<void> {
    if (row.trial.config == "bad") return fail(ErrorKind::kBadInput, "its object is damaged");
    return {};
  };
  const Match match = load().find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}}, {}, filter);
  EXPECT_EQ(match.kind, MatchKind::kNear);
  EXPECT_EQ(config(match), "good");
  EXPECT_EQ(match.reason, "tuned at m=9, legal for m=8; refused the one of k=8 m=8 n=8: its object is damaged");
  const Match none =
      load().find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}}, {},
                  [](const WinnerRow&, const auto&) -> Result<void> { return fail(ErrorKind::kBadInput, "no"); });
  EXPECT_EQ(none.kind, MatchKind::kNone);
  EXPECT_THAT(none.reason, AllOf(HasSubstr("refused the one of k=8 m=8 n=8: no"), HasSubstr("k=8 m=9 n=8: no")));
}

TEST_F(DispatcherTest, AnOpWhoseDefaultsChangedKeepsItsOldRowsRight) {
  add({.dims_key = "k=8 m=8 n=8", .config = "old"});
  add({.dims_key = "k=8 m=8 n=8", .config = "new", .dim_defaults = "1\n\n\n\n2*k\nm*k"});
  const Dispatcher& dispatcher = load();
  EXPECT_EQ(config(dispatcher.find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}})), "new")
      << "the newest definition counts";
}

TEST_F(DispatcherTest, TheGoalThatWasAskedForComesFirst) {
  const char* const kShape = "k=8 m=8 n=8";
  add({.dims_key = kShape, .config = "cold", .time_us = 9});
  add({.dims_key = kShape, .config = "graph", .time_us = 5, .goal = {.timing = "graph"}});
  add({.dims_key = kShape, .config = "cold energy", .time_us = 12, .goal = {.objective = "energy"}});
  const Dispatcher& dispatcher = load();
  const auto ask = [&](const Goal& goal) { return dispatcher.find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}}, goal); };
  EXPECT_EQ(config(ask({})), "cold");
  EXPECT_EQ(ask({}).reason, "tuned for this shape");
  EXPECT_EQ(config(ask({.timing = "graph"})), "graph");
  EXPECT_EQ(config(ask({.objective = "energy"})), "cold energy");
  const Match warm = ask({.timing = "warm"});
  EXPECT_EQ(config(warm), "cold") << "before the faster one of a graph";
  EXPECT_EQ(warm.kind, MatchKind::kExact);
  EXPECT_EQ(warm.reason, "tuned for this shape; for cold time, as nothing that fits so well was tuned for warm time");
  EXPECT_EQ(config(ask({.timing = "graph", .objective = "energy"})), "cold energy") << "the objective counts more";
}

TEST_F(DispatcherTest, TheShapeCountsMoreThanTheGoal) {
  add({.dims_key = "k=8 m=8 n=8", .config = "exact"});
  add({.dims_key = "k=8 m=9 n=8", .config = "near", .goal = {.objective = "energy"}});
  EXPECT_EQ(config(load().find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}}, {.objective = "energy"})), "exact");
}

TEST_F(DispatcherTest, OfTwoForEnergyTheOneThatNeedsLessServes) {
  const Goal energy{.objective = "energy"};
  add({.dims_key = "k=8 m=7 n=8", .config = "a", .time_us = 1, .goal = energy, .energy_uj = 90});
  add({.dims_key = "k=8 m=9 n=8", .config = "b", .time_us = 2, .goal = energy, .energy_uj = 80});
  add({.dims_key = "k=8 m=8 n=8",
       .config = "c",
       .time_us = 3,
       .device = "NVIDIA H200",
       .goal = energy,
       .energy_uj = 70});
  add({.dims_key = "k=8 m=8 n=8",
       .config = "d",
       .time_us = 4,
       .device = "NVIDIA H20",
       .goal = energy,
       .energy_uj = 60});
  EXPECT_EQ(config(load().find(kSignature, {{"m", 8}, {"n", 8}, {"k", 8}}, energy)), "d");
}

TEST_F(DispatcherTest, DeterminismIsNeverDropped) {
  add({.dims_key = "k=8 m=8 n=8", .config = "free", .same_bits = false});
  const Env dims{{"m", 8}, {"n", 8}, {"k", 8}};
  const Goal strict{.deterministic = true};
  EXPECT_EQ(config(load().find(kSignature, dims)), "free");
  const Match none = load().find(kSignature, dims, strict);
  EXPECT_EQ(none.kind, MatchKind::kNone);
  EXPECT_THAT(none.reason, HasSubstr("1 passed over, whose launches were not seen to give the same bits"));
  add({.dims_key = "k=8 m=9 n=8", .config = "near"});
  const Match near = load().find(kSignature, dims, strict);
  EXPECT_EQ(config(near), "near") << "one of an ordinary tune, seen to give the same bits";
  EXPECT_THAT(near.reason, AllOf(HasSubstr("; deterministic"), HasSubstr("1 passed over")));
  add({.dims_key = "k=8 m=8 n=8", .config = "strict", .time_us = 50, .goal = strict});
  EXPECT_EQ(config(load().find(kSignature, dims, strict)), "strict");
  EXPECT_EQ(config(load().find(kSignature, dims)), "free");
}

TEST_F(DispatcherTest, BadDimsAreNamed) {
  add({.dims_key = "k=8 m=8 n=8", .config = "a"});
  const Dispatcher& dispatcher = load();
  const auto reason = [&](const Env& dims) {
    const Match match = dispatcher.find(kSignature, dims);
    EXPECT_EQ(match.kind, MatchKind::kNone);
    return match.reason;
  };
  EXPECT_EQ(reason({{"m", 8}, {"n", 8}}), "dim 'k' of gemm is missing");
  EXPECT_THAT(reason({{"m", 8}, {"n", 8}, {"k", 8}, {"strid", 1}}),
              HasSubstr("gemm has no dim 'strid'; did you mean 'stride'?"));
  EXPECT_EQ(reason({{"m", -8}, {"n", 8}, {"k", 8}}), "dim 'm' is negative (-8)");
}

TEST_F(DispatcherTest, AttributesComeInAnyOrderAndDefaultWhenLeftOut) {
  add({.dims_key = "k=8 m=8 n=8", .config = "a"});
  add({.dims_key = "k=8 m=8 n=8",
       .config = "b",
       .signature = "gemm b_layout=kn dtype=fp16 epilogue=bias,silu out_dtype=fp16"});
  const Dispatcher& dispatcher = load();
  EXPECT_EQ(dispatcher.signature("gemm", "epilogue=bias,silu dtype=fp16 b_layout=kn").value(),
            "gemm b_layout=kn dtype=fp16 epilogue=bias,silu out_dtype=fp16");
  EXPECT_EQ(dispatcher.signature("gemm", "  out_dtype=fp16   epilogue=bias,silu b_layout=kn dtype=fp16 ").value(),
            "gemm b_layout=kn dtype=fp16 epilogue=bias,silu out_dtype=fp16");
  EXPECT_THAT(dispatcher.signature("gemm", "dtype=fp16 epilogue=silu,bias").value(), Not(HasSubstr("epilogue=bias")))
      << "the order inside a list is part of the operator";
}

TEST_F(DispatcherTest, AWrongAttributeIsNamedWithTheNearestOne) {
  add({.dims_key = "k=8 m=8 n=8", .config = "a"});
  const Dispatcher& dispatcher = load();
  const auto error = [&](const char* op, const char* attributes) {
    const auto signature = dispatcher.signature(op, attributes);
    EXPECT_FALSE(signature);
    return signature ? "" : signature.error().message;
  };
  EXPECT_EQ(error("gem", "dtype=bf16"), "the database has no operator 'gem'; did you mean 'gemm'?");
  EXPECT_EQ(error("gemm", "dtyp=bf16"), "gemm has no attribute 'dtyp'; did you mean 'dtype'?");
  EXPECT_EQ(error("gemm", "dtype"), "'dtype' is not of the form attribute=value");
  EXPECT_EQ(error("gemm", "dtype=bf16 dtype=fp16"), "attribute 'dtype' is given twice");
  EXPECT_EQ(error("gemm", "b_layout=nk"), "gemm needs the attribute 'dtype' (tuned: bf16)");
}

TEST_F(DispatcherTest, ASignatureThatWasNeverTunedIsSaidSo) {
  add({.dims_key = "k=8 m=8 n=8", .config = "a"});
  const Dispatcher& dispatcher = load();
  const auto signature = dispatcher.signature("gemm", "dtype=fp64").value();
  const Match match = dispatcher.find(signature, {{"m", 8}, {"n", 8}, {"k", 8}});
  EXPECT_EQ(match.kind, MatchKind::kNone);
  EXPECT_THAT(match.reason, HasSubstr("dtype=fp64"));
  EXPECT_THAT(match.reason, HasSubstr("was never tuned"));
}

TEST_F(DispatcherTest, ThreadsMayFindAtTheSameTime) {
  for (int m = 1; m <= 64; ++m)
    add({.dims_key = "k=8 m=" + std::to_string(m) + " n=8", .config = "m" + std::to_string(m)});
  const Dispatcher& dispatcher = load();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&dispatcher] {
      for (int m = 1; m <= 80; ++m) {
        const Match match = dispatcher.find(kSignature, {{"m", m}, {"n", 8}, {"k", 8}});
        EXPECT_EQ(config(match), "m" + std::to_string(std::min(m, 64)));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace kgen
