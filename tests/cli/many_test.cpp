// Runs on several devices and runs in shards, from outside. The devices are those of the stand-in driver
// (tests/device).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/text.h"
#include "db/db.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// (problem, config, did it verify?): what does not depend on the time that a kernel took.
using Found = std::set<std::tuple<std::string, std::string, std::string>>;

struct Trials {
  Found found;
  std::vector<std::string> twice;              // that the search has tried more than once
  std::map<std::string, std::string> winners;  // by problem
};

Trials trials_of(const std::string& path) {
  Db db = Db::open(path, DbMode::kReadOnly).value();
  EXPECT_THAT(db.check().value(), IsEmpty());
  Trials trials;
  const auto groups = db.trial_groups().value();
  for (const TrialGroup& group : groups) {
    std::set<std::string> tried;
    const auto rows = db.trials(group.problem_id, group.device_id).value();
    for (const TrialRecord& trial : rows) {
      const bool verified = trial.status == TrialStatus::kTimed || trial.status == TrialStatus::kStoppedEarly;
      trials.found.emplace(group.problem.dims_key, trial.config,
                           verified ? "verified" : std::string(status_name(trial.status)));
      if (trial.reason.starts_with("finalist")) continue;  // timed once more, on purpose
      if (!tried.insert(trial.config).second) trials.twice.push_back(group.problem.dims_key + ": " + trial.config);
    }
  }
  const auto winners = db.winners().value();
  for (const WinnerRow& row : winners)
    if (!row.winner.is_default) {
      EXPECT_TRUE(trials.winners.emplace(row.problem.dims_key, row.trial.config).second);
    }
  return trials;
}

class Many : public testing::Test {
 protected:
  // On stand-in devices, `faults` in the grammar of tests/device/fault_script.h.
  Ran tune(const std::vector<std::string>& args, const std::string& faults = "", const std::string& devices = "2") {
    std::vector<std::string> all{"tune", spec_, "--jobs", "2", "--json", "--strategy", "exhaustive"};
    all.insert(all.end(), args.begin(), args.end());
    if (std::find(args.begin(), args.end(), "--db") == args.end()) all.insert(all.end(), {"--db", db_});
    const std::string state = folder_ / ("state" + std::to_string(++runs_));
    return run_kgen(
        all,
        {.environment = {"KGEN_CUDA_LIBRARY=" KGEN_FAKE_CUDA, "KGEN_HIP_LIBRARY=/nowhere/libnone.so",
                         "KGEN_CLANG=" KGEN_FAKE_CLANG, "KGEN_FAKE_OBJECTS=" KGEN_BINARY_DIR "/many_cache",
                         "KGEN_FAKE_DEVICES=" + devices, "KGEN_FAKE_ARCH=70", "KGEN_FAKE_SKIP=read_all,displace_code",
                         "KGEN_HOST_THREADS=1", "KGEN_FAKE_STATE=" + state, "KGEN_FAKE_FAULTS=" + faults}});
  }
  static json document(const Ran& ran) {
    json parsed = json::parse(ran.out, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << ran.out << ran.err;
    return parsed;
  }

  TempFolder folder_;
  int runs_ = 0;
  const std::string db_ = folder_ / "tuned.db";
  const std::string spec_ = folder_.write(
      "ops.yaml",
      "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: softmax\n"
      "    problems: [{rows: [1, 2, 3, 4, 5, 6], cols: 64}]\n"
      "    tune: {params: {vec: [1, 2, 4], lanes: [8, 16], items: [1, 2, 4], rows_block: [1], parts: [1]}}\n");
  static constexpr std::size_t kProblems = 6;
};

TEST_F(Many, DevicesShareTheProblemsAndEachIsTunedOnce) {
  const Ran ran = tune({"--device", "all"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json told = document(ran);
  EXPECT_EQ(told["rows"].size(), kProblems);
  ASSERT_EQ(told["devices"].size(), 2u);
  EXPECT_EQ(told["devices"][0]["id"], "nvidia:0");
  EXPECT_EQ(told["devices"][1]["id"], "nvidia:1");
  EXPECT_GT(told["devices"][0]["problems"], 0);
  EXPECT_GT(told["devices"][1]["problems"], 0);
  EXPECT_EQ(told["devices"][0]["problems"].get<int>() + told["devices"][1]["problems"].get<int>(), kProblems);
  EXPECT_THAT(told["dropped"], IsEmpty());
  for (std::size_t i = 0; i < kProblems; ++i)
    EXPECT_EQ(told["rows"][i]["dims"]["rows"], 1 + i) << "in the spec's order";
  const Trials both = trials_of(db_);
  EXPECT_THAT(both.twice, IsEmpty());
  EXPECT_EQ(both.winners.size(), kProblems);

  const Ran one = tune({"--device", "nvidia:0", "--db", folder_ / "one.db"});
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(trials_of(folder_ / "one.db").found, both.found);

  const Ran again = tune({"--device", "all"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(document(again)["verified"], 0) << "cards of one kind share what they found";
}

TEST_F(Many, ADeviceThatDiesIsDroppedAndItsProblemsAreTunedElsewhereAsIfNothingHadBeen) {
  const Ran calm = tune({"--device", "all", "--db", folder_ / "calm.db"});
  ASSERT_EQ(calm.code, 0) << calm.err;
  const Ran ran = tune({"--device", "all"}, "launch@1:15:lost=0");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json told = document(ran);
  ASSERT_EQ(told["dropped"].size(), 1u);
  EXPECT_THAT(told["dropped"][0].get<std::string>(), HasSubstr("nvidia:1 is dropped, and its problem goes to another"));
  EXPECT_THAT(ran.err, HasSubstr("nvidia:1 is dropped"));
  EXPECT_EQ(told["rows"].size(), kProblems);
  const Trials trials = trials_of(db_);
  EXPECT_EQ(trials.found, trials_of(folder_ / "calm.db").found) << "no candidate is blamed for the device's end";
  EXPECT_THAT(trials.twice, IsEmpty());
  EXPECT_EQ(trials.winners.size(), kProblems);
}

TEST_F(Many, WithoutADeviceLeftTheRunEndsAndTheSameCommandGoesOn) {
  const Ran dead = tune({"--device", "nvidia:0,nvidia:1"}, "launch@0:25:lost=0;launch@1:15:lost=0");
  EXPECT_EQ(dead.code, 3) << dead.err;
  EXPECT_THAT(dead.err, HasSubstr("the same command goes on"));
  EXPECT_THAT(Db::open(db_, DbMode::kReadOnly).value().check().value(), IsEmpty());
  const Ran ran = tune({"--device", "nvidia:0,nvidia:1"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(trials_of(db_).winners.size(), kProblems);
  EXPECT_THAT(trials_of(db_).twice, IsEmpty());
}

TEST_F(Many, ACandidateThatTakesTwoDevicesWithItIsNotTriedOnAThird) {
  folder_.write("ops.yaml",
                "{kgen: 1, ops: [{op: softmax, dtype: fp32, problems: [{rows: 4, cols: 64}], tune: {params: "
                "{vec: [1, 2, 4], lanes: [8, 16], items: [1, 2, 4], rows_block: [1], parts: [1]}}}]}");
  // The first two launches of a softmax anywhere; the search begins with the same candidate everywhere.
  const Ran ran = tune({"--device", "all"}, "launch/softmax:1:lost=0;launch/softmax:2:lost=0", "3");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(document(ran)["dropped"].size(), 2u) << ran.err;
  const Trials trials = trials_of(db_);
  EXPECT_EQ(trials.winners.size(), 1u);
  const auto crashed = std::count_if(trials.found.begin(), trials.found.end(),
                                     [](const auto& trial) { return std::get<2>(trial) == "crashed"; });
  EXPECT_EQ(crashed, 1);
  EXPECT_GT(trials.found.size(), 1u) << "and the others are tuned";
}

TEST_F(Many, DevicesThatAreNotThereOrTwiceAreRefused) {
  const Ran twice = tune({"--device", "nvidia:0,nvidia:0"});
  EXPECT_EQ(twice.code, 2);
  EXPECT_THAT(twice.err, HasSubstr("nvidia:0 is there twice"));
  const Ran absent = tune({"--device", "nvidia:0,nvidia:7"});
  EXPECT_NE(absent.code, 0);
  EXPECT_THAT(absent.err, HasSubstr("nvidia:7"));
  const Ran kinds = tune({"--device", "nvidia:0,host"});
  EXPECT_EQ(kinds.code, 2);
  EXPECT_THAT(kinds.err, AllOf(HasSubstr("need a run each"), HasSubstr("--device host")));
  EXPECT_EQ(tune({"--device", "nvidia:0,"}).code, 2);
}

TEST_F(Many, SixteenShardsMergedAreTheTrialsOfOneRunAndMergingAgainChangesNothing) {
  const auto host = [&](std::vector<std::string> more) {
    std::vector<std::string> args{"tune",       spec_,        "--device", "host", "--seed", "7",
                                  "--strategy", "exhaustive", "--jobs",   "1",    "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const Ran ran = run_kgen(args);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return document(ran);
  };
  host({"--db", db_});
  std::vector<std::string> merge{"db", "merge"};
  std::size_t rows = 0;
  for (int i = 1; i <= 16; ++i) {
    merge.push_back(folder_ / ("shard" + std::to_string(i) + ".db"));
    rows += host({"--db", merge.back(), "--shard", std::to_string(i) + "/16"})["rows"].size();
  }
  EXPECT_EQ(rows, kProblems);
  const std::string merged = folder_ / "merged.db";
  merge.insert(merge.end(), {"-o", merged});
  ASSERT_EQ(run_kgen(merge).code, 0);
  const Trials one = trials_of(db_), many = trials_of(merged);
  EXPECT_EQ(one.found, many.found);
  EXPECT_THAT(many.twice, IsEmpty());
  EXPECT_EQ(many.winners.size(), kProblems);

  const auto size = [&] {
    const DbInfo info = Db::open(merged, DbMode::kReadOnly).value().info().value();
    return std::tuple(info.trials, info.winners, info.problems, info.devices, info.objects);
  };
  const auto before = size();
  ASSERT_EQ(run_kgen(merge).code, 0);
  EXPECT_EQ(size(), before);
}

TEST_F(Many, FlagsOfShardsThatMakeNoSenseAreRefused) {
  EXPECT_EQ(tune({"--shard", "0/4"}).code, 2);
  EXPECT_EQ(tune({"--shard", "5/4"}).code, 2);
  EXPECT_EQ(tune({"--array-size", "4"}).code, 2);
  EXPECT_EQ(tune({"--slurm", "--shard", "1/4"}).code, 2);
  const Ran nowhere = run_kgen({"tune", spec_, "--db", db_, "--slurm"}, {.environment = {"PATH=/nowhere"}});
  EXPECT_EQ(nowhere.code, 2);
  EXPECT_THAT(nowhere.err, AllOf(HasSubstr("no sbatch here"), HasSubstr("--shard i/n")));
}

}  // namespace
}  // namespace kgen
