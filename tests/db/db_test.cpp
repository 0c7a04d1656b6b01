// What is written comes back, and what must not be stored is refused.
#include "db/db.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cmath>
#include <limits>
#include <map>

#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::sample_device;
using testing::sample_object;
using testing::sample_op;
using testing::sample_problem;
using testing::sample_trial;
using testing::sample_winner;
using testing::TempFolder;

class DbTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto db = Db::open(path_, DbMode::kReadWrite);
    ASSERT_TRUE(db) << db.error().message;
    db_ = std::make_unique<Db>(std::move(*db));
    device_ = db_->intern_device(sample_device()).value();
    problem_ = db_->intern_problem(sample_op(), sample_problem()).value();
  }
  std::int64_t record(TrialStatus status = TrialStatus::kTimed) {
    return db_->record(sample_trial(problem_, device_, status)).value();
  }
  Result<void> publish(std::int64_t trial, const std::string& code, bool is_default = false) {
    const auto object = sample_object(code);
    auto winner = sample_winner(problem_, device_, trial, object);
    winner.is_default = is_default;
    return db_->publish(winner, object);
  }
  // SQL that kgen itself would never run. Opens the gates that protect a file.
  void tamper(const std::string& sql) {
    sqlite3* raw = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &raw), SQLITE_OK);
    char* error = nullptr;
    sqlite3_exec(
        raw, ("PRAGMA ignore_check_constraints=ON; PRAGMA foreign_keys=OFF; PRAGMA writable_schema=ON;" + sql).c_str(),
        nullptr, nullptr, &error);
    EXPECT_EQ(error, nullptr) << error;
    sqlite3_close(raw);
  }
  std::string problems() {
    std::string text;
    const auto lines = db_->check().value();
    for (const auto& line : lines) text += line + "\n";
    return text;
  }

  TempFolder folder_;
  std::string path_ = folder_.file("tuned.db");
  std::unique_ptr<Db> db_;
  std::int64_t device_ = 0, problem_ = 0;
};

TEST_F(DbTest, ATimedTrialComesBackWithEveryField) {
  const TrialRecord want = sample_trial(problem_, device_);
  const std::int64_t id = db_->record(want).value();
  const auto trials = db_->trials(problem_, device_, true).value();
  ASSERT_EQ(trials.size(), 1U);
  const TrialRecord& got = trials[0];
  EXPECT_EQ(got.id, id);
  EXPECT_EQ(got.problem, problem_);
  EXPECT_EQ(got.device, device_);
  EXPECT_EQ(got.config, want.config);
  EXPECT_EQ(got.status, want.status);
  EXPECT_EQ(got.reason, want.reason);
  EXPECT_EQ(got.source_hash, want.source_hash);
  EXPECT_EQ(got.op_hash, want.op_hash);
  EXPECT_EQ(got.compiler, want.compiler);
  EXPECT_EQ(got.options, want.options);
  EXPECT_EQ(got.kgen_version, want.kgen_version);
  EXPECT_EQ(got.timing, want.timing);
  EXPECT_EQ(got.time_us, want.time_us);
  EXPECT_EQ(got.mad_us, want.mad_us);
  EXPECT_EQ(got.samples_us, want.samples_us);
  EXPECT_EQ(got.compile_seconds, want.compile_seconds);
  EXPECT_EQ(got.verify_seconds, want.verify_seconds);
  EXPECT_EQ(got.max_error_ratio, want.max_error_ratio);
  EXPECT_EQ(got.relative_l2, want.relative_l2);
  EXPECT_EQ(got.registers, want.registers);
  EXPECT_EQ(got.spills, want.spills);
  EXPECT_EQ(got.lds_bytes, want.lds_bytes);
  EXPECT_EQ(got.occupancy_waves, want.occupancy_waves);
  EXPECT_EQ(got.clock_mhz, want.clock_mhz);
  EXPECT_EQ(got.temperature_c, want.temperature_c);
  EXPECT_EQ(got.throttle, want.throttle);
  EXPECT_EQ(got.states, want.states);
  EXPECT_EQ(got.energy_uj, want.energy_uj);
  EXPECT_EQ(got.energy_mad_uj, want.energy_mad_uj);
  EXPECT_EQ(got.deterministic, want.deterministic);
  EXPECT_EQ(got.is_default, want.is_default);
  EXPECT_GT(got.recorded_at_ms, 1'600'000'000'000) << "the time of recording is filled in";
}

TEST_F(DbTest, AFailedTrialKeepsItsEmptyFieldsEmpty) {
  const std::int64_t id = record(TrialStatus::kCompileFailed);
  const TrialRecord got = db_->trials(problem_, device_, true).value().at(0);
  EXPECT_EQ(got.id, id);
  EXPECT_EQ(got.status, TrialStatus::kCompileFailed);
  EXPECT_FALSE(got.time_us);
  EXPECT_FALSE(got.mad_us);
  EXPECT_FALSE(got.verify_seconds);
  EXPECT_FALSE(got.max_error_ratio);
  EXPECT_FALSE(got.occupancy_waves);
  EXPECT_FALSE(got.clock_mhz);
  EXPECT_FALSE(got.energy_uj);
  EXPECT_FALSE(got.deterministic);
  EXPECT_THAT(got.states, IsEmpty());
  EXPECT_THAT(got.samples_us, IsEmpty());
}

TEST_F(DbTest, SamplesComeOnlyWhenAskedFor) {
  record();
  EXPECT_THAT(db_->trials(problem_, device_).value().at(0).samples_us, IsEmpty());
}

TEST_F(DbTest, EveryStatusHasANameThatFindsIt) {
  for (int i = 0; i <= static_cast<int>(TrialStatus::kTimed); ++i) {
    const auto status = static_cast<TrialStatus>(i);
    EXPECT_EQ(find_status(status_name(status)).value(), status);
    EXPECT_TRUE(db_->record(sample_trial(problem_, device_, status))) << status_name(status);
  }
  EXPECT_FALSE(find_status("finished"));
}

TEST_F(DbTest, InterningTwiceGivesTheSameRow) {
  EXPECT_EQ(db_->intern_device(sample_device()).value(), device_);
  EXPECT_NE(db_->intern_device(sample_device("NVIDIA H200")).value(), device_);
  EXPECT_EQ(db_->intern_problem(sample_op(), sample_problem()).value(), problem_);
  EXPECT_NE(db_->intern_problem(sample_op(), sample_problem(5)).value(), problem_);
}

TEST_F(DbTest, AnOpWhoseDefaultsChangedIsAnotherOp) {
  OpRecord changed = sample_op();
  changed.dim_defaults = "\n1\nm\n2*k";
  EXPECT_NE(db_->intern_problem(changed, sample_problem()).value(), problem_);
}

TEST_F(DbTest, AWinnerComesBackJoinedWithEverythingAboutIt) {
  const std::int64_t trial = record();
  TrialRecord base = sample_trial(problem_, device_);
  base.is_default = true;
  base.time_us = 20;
  ASSERT_TRUE(db_->record(base));
  ASSERT_TRUE(publish(trial, "code"));
  const auto rows = db_->winners().value();
  ASSERT_EQ(rows.size(), 1U);
  const WinnerRow& row = rows[0];
  EXPECT_EQ(row.op.signature, sample_op().signature);
  EXPECT_EQ(row.op.op, sample_op().op);
  EXPECT_EQ(row.op.dims, sample_op().dims);
  EXPECT_EQ(row.op.dim_defaults, sample_op().dim_defaults);
  EXPECT_EQ(row.op.attributes, sample_op().attributes);
  EXPECT_EQ(row.problem.dims_key, "m=4");
  EXPECT_EQ(row.problem.dims_json, sample_problem().dims_json);
  EXPECT_EQ(row.problem.label, "first");
  EXPECT_EQ(row.problem.flops, 64);
  EXPECT_EQ(row.problem.bytes, 96);
  EXPECT_EQ(row.device.arch, "sm_90");
  EXPECT_EQ(row.device.name, sample_device().name);
  EXPECT_EQ(row.device.driver, sample_device().driver);
  EXPECT_EQ(row.device.uuid, sample_device().uuid);
  EXPECT_EQ(row.device.compute_units, 132);
  EXPECT_EQ(row.device.memory_bytes, sample_device().memory_bytes);
  EXPECT_EQ(row.device.l2_bytes, sample_device().l2_bytes);
  EXPECT_EQ(row.device.clock_khz, sample_device().clock_khz);
  EXPECT_EQ(row.trial.id, trial);
  EXPECT_EQ(row.trial.time_us, 12.5);
  EXPECT_EQ(row.winner.problem, problem_);
  EXPECT_EQ(row.winner.device, device_);
  EXPECT_EQ(row.winner.trial, trial);
  EXPECT_EQ(row.winner.plan_json, plan_to_json(Plan{}));
  EXPECT_FALSE(row.winner.is_default);
  EXPECT_EQ(row.default_time_us, 20);

  const ObjectRecord object = db_->object(row.winner.object_hash).value();
  EXPECT_EQ(object.bytes, sample_object("code").bytes);
  EXPECT_EQ(object.arch, "sm_90");
  EXPECT_EQ(object.kind, "cubin");

  const WinnerIndex index = db_->winner_index().value();
  ASSERT_EQ(index.entries.size(), 1U);
  EXPECT_EQ(index.ops.at(index.entries[0].op).signature, row.op.signature);
  EXPECT_EQ(index.devices.at(index.entries[0].device).name, row.device.name);
  EXPECT_EQ(index.entries[0].dims_key, "m=4");
  EXPECT_EQ(db_->winner(index.entries[0].id).value().trial.id, trial);
}

TEST_F(DbTest, PublishingAgainReplacesTheWinnerAndDropsWhatItAloneUsed) {
  ASSERT_TRUE(publish(record(), "first"));
  const std::int64_t second = record();
  ASSERT_TRUE(publish(second, "second"));
  const auto rows = db_->winners().value();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].trial.id, second);
  EXPECT_FALSE(db_->object(sample_object("first").hash)) << "the replaced code object is gone";
  EXPECT_EQ(db_->info().value().objects, 1);
}

TEST_F(DbTest, TheDefaultAndTheWinnerOfAProblemLiveSideBySide) {
  const std::int64_t trial = record();
  ASSERT_TRUE(publish(trial, "code"));
  ASSERT_TRUE(publish(trial, "code", true));
  EXPECT_EQ(db_->winners().value().size(), 2U);
  EXPECT_EQ(db_->info().value().objects, 1) << "equal objects are stored once";
  EXPECT_EQ(problems(), "");
}

TEST_F(DbTest, EveryGoalHasAWinnerOfItsOwn) {
  const auto object = sample_object("code");
  const auto publish_for = [&](std::int64_t trial, const Goal& goal) {
    auto winner = sample_winner(problem_, device_, trial, object);
    winner.goal = goal;
    return db_->publish(winner, object).has_value();
  };
  TrialRecord warm = sample_trial(problem_, device_), changing = sample_trial(problem_, device_);
  warm.timing = "warm";
  changing.deterministic = false;
  const std::int64_t cold_trial = record(), warm_trial = db_->record(warm).value(),
                     changing_trial = db_->record(changing).value();
  EXPECT_TRUE(publish_for(cold_trial, {}));
  EXPECT_TRUE(publish_for(cold_trial, {.objective = "energy"}));
  EXPECT_TRUE(publish_for(cold_trial, {.deterministic = true}));
  EXPECT_TRUE(publish_for(warm_trial, {.timing = "warm"}));
  EXPECT_FALSE(publish_for(cold_trial, {.timing = "graph"})) << "it was timed cold";
  EXPECT_FALSE(publish_for(changing_trial, {.deterministic = true}));
  EXPECT_TRUE(publish_for(changing_trial, {}));
  std::map<std::string, std::int64_t> winners;
  const auto rows = db_->winners().value();
  for (const WinnerRow& row : rows) winners[row.winner.goal.text()] = row.trial.id;
  EXPECT_EQ(winners, (std::map<std::string, std::int64_t>{{"cold time", changing_trial},
                                                          {"cold energy", cold_trial},
                                                          {"cold time, deterministic", cold_trial},
                                                          {"warm time", warm_trial}}));
  const WinnerIndex index = db_->winner_index().value();
  for (const auto& entry : index.entries) {
    const WinnerRow row = db_->winner(entry.id).value();
    EXPECT_EQ(entry.goal, row.winner.goal);
  }
  EXPECT_EQ(problems(), "");
  tamper("UPDATE winner SET timing = 'graph' WHERE timing = 'warm'");
  EXPECT_THAT(problems(), HasSubstr("was timed warm, not graph"));
  tamper("UPDATE trial SET energy_uj = NULL, deterministic = NULL");
  EXPECT_THAT(problems(), HasSubstr("the energy of trial 1 was not measured"));
  EXPECT_THAT(problems(), HasSubstr("were not seen to give the same bits"));
}

TEST_F(DbTest, ACoverTakesThePlaceOfTheOneBeforeAndOfNothingElse) {
  const auto problem = [&](const std::string& key) {
    return db_->intern_problem(sample_op(), {.dims_key = key, .dims_json = "{}", .label = ""}).value();
  };
  const auto ranged = [&](std::int64_t of, const ObjectRecord& object, std::int64_t first, std::int64_t last) {
    WinnerRecord winner = sample_winner(of, device_, db_->record(sample_trial(of, device_)).value(), object);
    winner.range = SizeRange{"m", first, last, 0.02};
    return winner;
  };
  const auto old_object = sample_object("old"), small = sample_object("small"), large = sample_object("large"),
             other = sample_object("other"), tuned = sample_object("tuned");
  const auto m4 = problem("k=8 m=4"), m64 = problem("k=8 m=64"), k9 = problem("k=9 m=4");
  ASSERT_TRUE(db_->publish(sample_winner(m4, device_, db_->record(sample_trial(m4, device_)).value(), tuned), tuned));
  ASSERT_TRUE(db_->publish_cover({ranged(k9, other, 1, 64)}, {other}));
  ASSERT_TRUE(db_->publish_cover({ranged(m4, old_object, 1, 9), ranged(m64, old_object, 10, 64)}, {old_object}));
  // Two spans that were measured at one size, and one at another.
  ASSERT_TRUE(db_->publish_cover({ranged(m4, small, 1, 6), ranged(m64, large, 8, 64), ranged(m4, large, 7, 7)},
                                 {small, large}));
  std::vector<std::string> seen;
  const auto rows = db_->winners().value();
  for (const WinnerRow& row : rows) {
    const auto range = row.winner.range.value_or(SizeRange{"", 0, 0, 0});
    seen.push_back(row.problem.dims_key + " " + range.dim + std::to_string(range.first) + ".." +
                   std::to_string(range.last));
    EXPECT_EQ(range.loss, row.winner.range ? 0.02 : 0);
  }
  EXPECT_THAT(seen, ::testing::UnorderedElementsAre("k=8 m=4 0..0", "k=9 m=4 m1..64", "k=8 m=4 m1..6", "k=8 m=4 m7..7",
                                                    "k=8 m=64 m8..64"));
  EXPECT_FALSE(db_->object(old_object.hash)) << "nothing refers to it any more";
  EXPECT_THAT(db_->check().value(), IsEmpty());
  const WinnerIndex index = db_->winner_index().value();
  EXPECT_EQ(
      std::count_if(index.entries.begin(), index.entries.end(), [](const auto& e) { return e.range.has_value(); }), 4);
}

TEST_F(DbTest, TheDefaultsTimeBesideAWinnerWasTakenTheSameWay) {
  TrialRecord cold = sample_trial(problem_, device_), warm = cold;
  cold.is_default = warm.is_default = true;
  cold.time_us = 20;
  warm.time_us = 10;
  warm.timing = "warm";
  ASSERT_TRUE(db_->record(cold));
  ASSERT_TRUE(db_->record(warm));
  ASSERT_TRUE(publish(record(), "code"));
  EXPECT_EQ(db_->winners().value().at(0).default_time_us, 20);
}

TEST_F(DbTest, ATrialThatWasNotVerifiedIsNeverPublished) {
  const auto wrong = publish(record(TrialStatus::kWrong), "code");
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr("not a verified trial"));
  EXPECT_EQ(db_->info().value().objects, 0) << "nothing of the refused publication stays";
}

TEST_F(DbTest, ATrialOfAnotherProblemIsNeverPublished) {
  const std::int64_t other = db_->intern_problem(sample_op(), sample_problem(9)).value();
  const std::int64_t trial = db_->record(sample_trial(other, device_)).value();
  EXPECT_FALSE(publish(trial, "code"));
}

TEST_F(DbTest, AnObjectThatDoesNotMatchItsHashIsNeverPublished) {
  auto object = sample_object("code");
  const auto winner = sample_winner(problem_, device_, record(), object);
  object.bytes[0] = std::byte{0};
  EXPECT_FALSE(db_->publish(winner, object));
}

TEST_F(DbTest, ImpossibleTrialsAreRefused) {
  const auto refused = [&](auto change) {
    TrialRecord trial = sample_trial(problem_, device_);
    change(trial);
    return !db_->record(trial).has_value();
  };
  EXPECT_TRUE(refused([](TrialRecord& t) { t.time_us = -1; }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.time_us = std::nan(""); }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.time_us = std::numeric_limits<double>::infinity(); }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.time_us.reset(); }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.timing = ""; }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.timing = "tepid"; }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.mad_us = -0.5; }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.energy_uj = -0.5; }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.problem = 999; }));
  EXPECT_TRUE(refused([](TrialRecord& t) { t.device = 999; }));
  EXPECT_FALSE(refused([](TrialRecord&) {}));
  EXPECT_EQ(db_->info().value().trials, 1);
}

TEST_F(DbTest, ForgettingAProblemLeavesTheOthers) {
  ASSERT_TRUE(publish(record(), "code"));
  const std::int64_t other = db_->intern_problem(sample_op(), sample_problem(9)).value();
  ASSERT_TRUE(db_->record(sample_trial(other, device_)));
  ASSERT_TRUE(db_->forget(problem_, device_));
  EXPECT_THAT(db_->trials(problem_, device_).value(), IsEmpty());
  EXPECT_EQ(db_->trials(other, device_).value().size(), 1U);
  EXPECT_THAT(db_->winners().value(), IsEmpty());
  EXPECT_EQ(db_->info().value().objects, 0);
  EXPECT_EQ(problems(), "");
}

TEST_F(DbTest, InfoCountsWhatIsThere) {
  ASSERT_TRUE(publish(record(), "code"));
  record(TrialStatus::kHung);
  record(TrialStatus::kHung);
  const DbInfo info = db_->info().value();
  EXPECT_EQ(info.schema_version, 7);
  EXPECT_EQ(info.devices, 1);
  EXPECT_EQ(info.ops, 1);
  EXPECT_EQ(info.problems, 1);
  EXPECT_EQ(info.trials, 3);
  EXPECT_EQ(info.winners, 1);
  EXPECT_EQ(info.objects, 1);
  EXPECT_GT(info.object_bytes, 0);
  EXPECT_EQ(info.trials_by_status, (std::vector<std::pair<std::string, std::int64_t>>{{"hung", 2}, {"timed", 1}}));
  ASSERT_EQ(info.device_list.size(), 1U);
  EXPECT_EQ(info.device_list[0].name, sample_device().name);
}

TEST_F(DbTest, CheckIsCleanOnWhatKgenWrote) {
  ASSERT_TRUE(publish(record(), "code"));
  record(TrialStatus::kWrong);
  EXPECT_EQ(problems(), "");
}

TEST_F(DbTest, CheckFindsAnObjectThatWasChanged) {
  ASSERT_TRUE(publish(record(), "a code object, long enough"));
  tamper("UPDATE object SET zstd = zeroblob(length(zstd))");
  EXPECT_THAT(problems(), HasSubstr("does not match its hash"));
  const auto object = db_->object(sample_object("a code object, long enough").hash);
  ASSERT_FALSE(object);
  EXPECT_EQ(object.error().kind, ErrorKind::kBadInput);
}

TEST_F(DbTest, CheckFindsAnObjectThatWasExchangedForAnother) {
  ASSERT_TRUE(publish(record(), "code a"));
  ASSERT_TRUE(publish(record(), "code b", true));
  tamper("UPDATE object SET zstd = (SELECT zstd FROM object WHERE id = 2) WHERE id = 1");
  EXPECT_THAT(problems(), HasSubstr(sample_object("code a").hash + " does not match its hash"));
  EXPECT_FALSE(db_->object(sample_object("code a").hash));
  EXPECT_TRUE(db_->object(sample_object("code b").hash));
}

TEST_F(DbTest, CheckFindsAnObjectThatClaimsAnAbsurdSize) {
  ASSERT_TRUE(publish(record(), "code"));
  tamper("UPDATE object SET size = 1 << 60");
  EXPECT_THAT(problems(), HasSubstr("claims 1152921504606846976 bytes"));
  EXPECT_FALSE(db_->object(sample_object("code").hash));
}

TEST_F(DbTest, CheckFindsALaunchPlanThatWasChanged) {
  ASSERT_TRUE(publish(record(), "code"));
  tamper("UPDATE plan SET json = replace(json, '\"flops\":\"\"', '\"flops\":\"1\"')");
  EXPECT_THAT(problems(), HasSubstr("does not match its hash"));
  EXPECT_FALSE(db_->winners());
}

TEST_F(DbTest, CheckFindsOrphans) {
  ASSERT_TRUE(publish(record(), "code"));
  tamper("DELETE FROM winner");
  EXPECT_THAT(problems(), HasSubstr("object " + sample_object("code").hash + " belongs to no winner"));
  EXPECT_THAT(problems(), HasSubstr("launch plan " + hash_text(plan_to_json(Plan{})) + " belongs to no winner"));
}

TEST_F(DbTest, CheckFindsDanglingReferences) {
  record();
  tamper("DELETE FROM problem");
  EXPECT_THAT(problems(), HasSubstr("trial 1 refers to a row of problem that is missing"));
}

TEST_F(DbTest, CheckFindsImpossibleValues) {
  record();
  tamper("UPDATE trial SET time_us = -3");
  EXPECT_THAT(problems(), HasSubstr("CHECK constraint failed in trial"));
  tamper("UPDATE trial SET time_us = 3, status = 'finished'");
  EXPECT_THAT(problems(), HasSubstr("CHECK constraint failed in trial"));
  tamper("UPDATE trial SET time_us = NULL, status = 'timed'");
  EXPECT_THAT(problems(), HasSubstr("CHECK constraint failed in trial"));
  tamper("UPDATE trial SET time_us = 3; UPDATE sample SET us = x'0000c0ff'");
  EXPECT_THAT(problems(), HasSubstr("impossible sample"));
}

TEST_F(DbTest, CheckFindsAWinnerWhoseTrialIsNotVerified) {
  ASSERT_TRUE(publish(record(), "code"));
  tamper("UPDATE trial SET status = 'wrong'");
  EXPECT_THAT(problems(), HasSubstr("winner 1: trial 1 was not verified (wrong)"));
}

TEST_F(DbTest, WhatWasCompiledAloneMayBeADefaultAndNoWinner) {
  TrialRecord trial = sample_trial(problem_, device_, TrialStatus::kCompiled);
  trial.reason = "not timed, not run";
  const auto id = db_->record(trial).value();
  const ObjectRecord object = sample_object("code");
  WinnerRecord winner = sample_winner(problem_, device_, id, object);
  winner.is_default = false;
  EXPECT_FALSE(db_->publish(winner, object));
  winner.is_default = true;
  winner.goal = {.timing = "graph"};
  EXPECT_FALSE(db_->publish(winner, object));
  winner.goal = {};
  ASSERT_TRUE(db_->publish(winner, object));
  EXPECT_THAT(db_->check().value(), IsEmpty());
  const auto rows = db_->winners().value();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_TRUE(untimed(rows[0].trial));
  EXPECT_FALSE(rows[0].trial.time_us);
  // The same by another file's hand.
  tamper("UPDATE winner SET is_default = 0");
  EXPECT_THAT(problems(), HasSubstr("winner 1: trial 1 was not verified (compiled)"));
  tamper("UPDATE winner SET is_default = 1; UPDATE trial SET time_us = 1");
  EXPECT_THAT(problems(), HasSubstr("CHECK constraint failed in trial"));
}

TEST_F(DbTest, CheckFindsAWinnerOfAnotherProblem) {
  ASSERT_TRUE(publish(record(), "code"));
  ASSERT_TRUE(db_->intern_problem(sample_op(), sample_problem(9)));
  tamper("UPDATE trial SET problem = 2");
  EXPECT_THAT(problems(), HasSubstr("winner 1: trial 1 is of another problem or device"));
}

TEST_F(DbTest, TextWithNulAndNonAsciiComesBack) {
  TrialRecord trial = sample_trial(problem_, device_);
  trial.reason = std::string("größer\0than", 13);
  ASSERT_TRUE(db_->record(trial));
  EXPECT_EQ(db_->trials(problem_, device_).value().at(0).reason, trial.reason);
}

}  // namespace
}  // namespace kgen
