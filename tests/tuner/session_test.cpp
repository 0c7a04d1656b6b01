// The tuner on the host device with an op whose candidates are broken on purpose (planted/).
#include "tuner/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "base/text.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kPlanted = KGEN_SOURCE_DIR "/tests/tuner/planted/planted.yaml";

std::string self() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

class Planted : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/kgen_session_XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::vector<OpSpec> specs(const std::string& params, const std::string& problem = "{rows: 1000, terms: 331}",
                                   const std::string& dtype = "bf16") {
    const std::string yaml = "{kgen: 1, ops: [{op: " + std::string(kPlanted) + ", dtype: " + dtype + ", problems: [" +
                             problem + "], tune: {params: {" + params + "}}}]}";
    auto parsed = parse_spec_text(yaml, "planted_spec.yaml");
    EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
    return parsed.value_or(std::vector<OpSpec>{});
  }
  // One cache for all tests: a kernel text compiles once.
  static std::unique_ptr<Compiler> compiler() {
    CompilerOptions options;
    options.cache_folder = KGEN_BINARY_DIR "/planted_cache";
    options.self = self();
    return make_compiler(options);
  }
  Result<TuneOutcome> tune_specs(std::vector<OpSpec> list, TuneRequest request = {}) {
    request.specs = std::move(list);
    request.device = "host";
    request.candidate_timeout_seconds = 15;  // an endless candidate costs this; a loaded machine needs it
    auto db = Db::open(path(), DbMode::kReadWrite);
    if (!db) return tl::unexpected(db.error());
    const auto compile = compiler();
    return tune(request, *db, *compile, self(), [](const TuneProgress&) {}, stop_);
  }
  std::string path() const { return folder_ + "/tuned.db"; }
  std::vector<TrialRecord> trials() {
    auto db = Db::open(path(), DbMode::kReadOnly).value();
    return db.trials(1, 1, true).value();
  }
  // Trials by their `fault`, the last one of each.
  std::map<std::string, TrialRecord> by_fault() {
    std::map<std::string, TrialRecord> found;
    for (const TrialRecord& trial : trials())
      for (const std::string& word : split(trial.config, ' '))
        if (word.starts_with("fault=")) found[word.substr(6)] = trial;
    return found;
  }

  std::string folder_;
  std::atomic<bool> stop_{false};
};

TEST_F(Planted, EveryFaultEndsAsItsOwnStatusAndTheRunFinishes) {
  const auto outcome = tune_specs(
      specs("items: [64], fault: [none, endless, far_read, corner, no_compile, guard, gap, tail, input, scratch]",
            "{rows: 1000, terms: 331, ldy: 3}"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  ASSERT_EQ(outcome->rows.size(), 1u);
  EXPECT_FALSE(outcome->any_failed) << outcome->rows[0].note;
  EXPECT_THAT(outcome->rows[0].config, HasSubstr("fault=none"));
  EXPECT_GT(outcome->rows[0].time_us, 0);
  EXPECT_EQ(outcome->rows[0].verified, 1);

  const auto found = by_fault();
  const std::map<std::string, std::pair<TrialStatus, std::string>> expected{
      {"none", {TrialStatus::kTimed, ""}},
      {"endless", {TrialStatus::kHung, "no end after 15 s"}},
      {"far_read", {TrialStatus::kCrashed, ""}},
      {"corner", {TrialStatus::kWrong, "y[999]"}},
      {"no_compile", {TrialStatus::kCompileFailed, "this candidate does not compile"}},
      {"guard", {TrialStatus::kWrong, "outside its buffers, between y and the end"}},
      {"gap", {TrialStatus::kWrong, "wrote between the rows of y"}},
      {"tail", {TrialStatus::kWrong, "relative L2"}},
      {"input", {TrialStatus::kWrong, "changed its input x: 1 elements, the first at offset 5"}},
      {"scratch", {TrialStatus::kWrong, "wrote 4 bytes outside its buffers, between spare and the end of the scratch"}},
  };
  for (const auto& [fault, end] : expected) {
    ASSERT_EQ(found.count(fault), 1u) << fault;
    const TrialRecord& trial = found.at(fault);
    EXPECT_EQ(status_name(trial.status), status_name(end.first)) << fault << ": " << trial.reason;
    EXPECT_THAT(trial.reason, HasSubstr(end.second)) << fault;
    EXPECT_EQ(trial.reason.find("kgen verify") != std::string::npos, trial.status == TrialStatus::kWrong) << fault;
    EXPECT_EQ(trial.time_us.has_value(), trial.status == TrialStatus::kTimed) << fault;
  }
}

TEST_F(Planted, ASlowCandidateIsVerifiedAndGivenUpEarly) {
  const auto outcome = tune_specs(specs("items: [64], fault: [none, slow]"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  const auto found = by_fault();
  EXPECT_EQ(status_name(found.at("slow").status), "stopped_early");
  EXPECT_LE(found.at("slow").samples_us.size(), 3u);
  EXPECT_EQ(outcome->rows[0].verified, 2);
}

TEST_F(Planted, ResumingRepeatsNothing) {
  const auto list = specs("items: [32, 64], fault: [none, far_read]");
  ASSERT_TRUE(tune_specs(list));
  const std::size_t before = trials().size();
  const auto again = tune_specs(list);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(trials().size(), before);
  EXPECT_EQ(again->verified, 0);
  EXPECT_EQ(again->rows[0].candidates, 4);
  EXPECT_GT(again->rows[0].time_us, 0);
  EXPECT_GT(again->rows[0].default_us, 0);
  EXPECT_EQ(again->gpu_busy_seconds, 0);  // not even the reference was computed
}

TEST_F(Planted, ADynamicDimGetsAFewKernelsThatServeItsWholeRange) {
  const auto list = specs("items: [32, 64], fault: [none]", "{rows: {range: [60, 70]}, terms: 331}");
  ASSERT_EQ(list.size(), 1u);
  const auto outcome = tune_specs(list);
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  ASSERT_EQ(outcome->rows.size(), 1u);
  const TuneOutcome::Row& row = outcome->rows[0];
  EXPECT_EQ(row.dims_key, "rows=60..70 terms=331");
  ASSERT_TRUE(row.cover) << row.note;
  EXPECT_FALSE(outcome->any_failed);
  EXPECT_GE(row.cover->sizes.size(), 3u) << "60 64 70";
  EXPECT_GE(row.cover->kernels.size(), 1u);
  EXPECT_GE(row.verified, 6) << "both kernels at each of them";
  EXPECT_GT(row.time_us, 0);
  std::int64_t next = 60;
  for (const auto& span : row.cover->spans) {
    EXPECT_EQ(span.first, next);
    next = span.last + 1;
  }
  EXPECT_EQ(next, 71);

  std::size_t trials_of_first_run = 0;
  {
    auto db = Db::open(path(), DbMode::kReadOnly).value();
    EXPECT_THAT(db.check().value(), IsEmpty());
    const auto winners = db.winners().value();
    ASSERT_EQ(winners.size(), row.cover->spans.size());
    for (const WinnerRow& winner : winners) {
      ASSERT_TRUE(winner.winner.range);
      EXPECT_EQ(winner.winner.range->dim, "rows");
      EXPECT_FALSE(winner.winner.is_default);
    }
    EXPECT_EQ(db.info().value().objects, static_cast<std::int64_t>(row.cover->kernels.size()));
    trials_of_first_run = static_cast<std::size_t>(db.info().value().trials);
  }
  const auto again = tune_specs(list);
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->verified, 0) << "all of it is known";
  ASSERT_TRUE(again->rows[0].cover);
  EXPECT_EQ(again->rows[0].cover->kernels, row.cover->kernels);
  auto db = Db::open(path(), DbMode::kReadOnly).value();
  EXPECT_EQ(db.winners().value().size(), row.cover->spans.size()) << "in place of those of before";
  EXPECT_EQ(static_cast<std::size_t>(db.info().value().trials), trials_of_first_run);
}

TEST_F(Planted, AKernelThatIsWrongServesNoSize) {
  const auto outcome =
      tune_specs(specs("items: [64], fault: [none, corner]", "{rows: {range: [998, 1003]}, terms: 31}"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  ASSERT_TRUE(outcome->rows[0].cover) << outcome->rows[0].note;
  ASSERT_EQ(outcome->rows[0].cover->kernels.size(), 1u);
  EXPECT_THAT(outcome->rows[0].cover->kernels[0], HasSubstr("fault=none"));
}

TEST_F(Planted, KernelsThatAreLegalForAPartOfTheRangeServeThatPartAtMost) {
  // With two terms 32 items are for at most 510 rows, 128 for more than 500.
  const auto outcome = tune_specs(specs("items: [32, 128], fault: [none]", "{rows: {range: [490, 520]}, terms: 2}"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  ASSERT_TRUE(outcome->rows[0].cover) << outcome->rows[0].note;
  const auto& cover = *outcome->rows[0].cover;
  EXPECT_EQ(cover.kernels.size(), 2u);
  for (const auto& span : cover.spans) {
    const bool few = span.config.find("items=32") != std::string::npos;
    EXPECT_TRUE(few ? span.last <= 510 : span.first > 500) << span.first << " to " << span.last << ": " << span.config;
  }
  EXPECT_EQ(cover.spans.front().first, 490);
  EXPECT_EQ(cover.spans.back().last, 520);
}

TEST_F(Planted, ADynamicDimWithoutAnyWorkingKernelFails) {
  const auto outcome = tune_specs(specs("items: [64], fault: [gap]", "{rows: {range: [1, 3]}, terms: 31, ldy: 2}"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_TRUE(outcome->any_failed);
  EXPECT_FALSE(outcome->rows[0].cover);
  EXPECT_THAT(outcome->rows[0].note, HasSubstr("all candidates failed"));
}

TEST_F(Planted, EveryMomentOfARunIsAccountedForOnce) {
  const auto outcome = tune_specs(specs("items: [32, 64], fault: [none, tail]"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  std::map<std::string, double> spent;
  double sum = 0;
  for (const TuneOutcome::Spent& part : outcome->where_time_went) {
    EXPECT_GE(part.seconds, 0) << part.on;
    EXPECT_TRUE(spent.emplace(part.on, part.seconds).second) << part.on;
    sum += part.seconds;
  }
  EXPECT_NEAR(sum, outcome->wall_seconds, 0.02 * outcome->wall_seconds);
  for (const char* part : {"timing", "verification", "references", "finals", "compilers", "database"})
    EXPECT_GT(spent[part], 0) << part;
  EXPECT_GT(outcome->gpu_timing_seconds, 0);
  EXPECT_GT(outcome->gpu_busy_seconds, outcome->gpu_timing_seconds);
  EXPECT_LT(outcome->gpu_busy_seconds, outcome->wall_seconds);
  EXPECT_EQ(outcome->compile_seconds > 0, outcome->from_cache < outcome->compiled)
      << "none where an earlier run compiled all";
  EXPECT_EQ(outcome->compiled, 4);
}

// As a GPU is tuned: problems after the one in work compile ahead, and the leaders are timed in turns.
TEST_F(Planted, SeveralProblemsAreUnderWayAtOnceAndEachKeepsItsOwnResults) {
  std::vector<OpSpec> list;
  const std::vector<std::string> rows{"1000", "0", "900", "1000", "800"};
  for (const std::string& n : rows)
    for (OpSpec& spec : specs("items: [64, 128], fault: [none, corner]", "{rows: " + n + ", terms: 331}"))
      list.push_back(std::move(spec));
  TuneRequest request;
  request.host_takes_turns = false;
  request.jobs = 3;
  const auto outcome = tune_specs(std::move(list), request);
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  ASSERT_EQ(outcome->rows.size(), rows.size());
  std::int64_t verified = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const TuneOutcome::Row& row = outcome->rows[i];
    verified += row.verified;
    if (rows[i] == "0") {
      EXPECT_EQ(row.note, "nothing to launch");
      continue;
    }
    EXPECT_THAT(row.dims_key, HasSubstr("rows=" + rows[i]));
    EXPECT_THAT(row.config, HasSubstr("fault=none")) << row.note;
    EXPECT_EQ(row.candidates, 4);
    EXPECT_EQ(row.verified, 2);
  }
  EXPECT_EQ(outcome->verified, verified - 2) << "the problem that comes twice is tuned once";
}

// Compiles as `real` does, but 128 items in bf16 only once that is `let`, or after a minute.
class Gate : public Compiler {
 public:
  explicit Gate(Compiler& real) : real_(real) {}
  Result<CompileResult> compile(const std::string& source, Arch arch) override {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    const auto says = [&](const char* words) { return source.find(words) != std::string::npos; };
    while (says("// op         planted dtype=bf16") && says("items=128") && !let) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (std::chrono::steady_clock::now() > end) let = gave_up = true;
    }
    auto result = real_.compile(source, arch);
    if (result) result->code.compile_seconds = 10;  // beside which setting up a problem is short, also on a busy host
    return result;
  }
  Result<std::string> version(Arch arch) override { return real_.version(arch); }
  std::atomic<bool> let{false}, gave_up{false};

 private:
  Compiler& real_;
};

TEST_F(Planted, TheDeviceIsAtLaterProblemsWhileTheOneInWorkWaitsForACompiler) {
  const std::string params = "items: [64, 128], fault: [none]";
  auto list = specs(params, "{rows: 100, terms: 33}");
  for (const char* rows : {"90", "80", "70", "60", "50"})
    for (OpSpec& spec : specs(params, std::string("{rows: ") + rows + ", terms: 33}", "fp32"))
      list.push_back(std::move(spec));
  // One of another operator, which has nothing to learn from the others.
  std::filesystem::copy(std::filesystem::path(kPlanted).parent_path(), folder_ + "/own");
  std::string definition = read_file(folder_ + "/own/planted.yaml").value();
  definition.replace(definition.find("op: planted"), 11, "op: replanted");
  std::ofstream(folder_ + "/own/planted.yaml") << definition;
  auto other = parse_spec_text(
      "{kgen: 1, ops: [{op: " + folder_ + "/own/planted.yaml, dtype: fp32, problems: [{rows: 90, terms: 33}]}]}",
      "spec.yaml");
  ASSERT_TRUE(other.has_value()) << other.error().message;
  other->front().tune.params = list.back().tune.params;
  list.push_back(std::move(other->front()));

  TuneRequest request;
  request.specs = std::move(list);
  request.device = "host";
  request.host_takes_turns = false;
  request.jobs = 4;
  const auto real = compiler();
  Gate gate(*real);
  std::size_t opened = 0;
  const auto look = [&](const TuneProgress& progress) {
    if (progress.problems_done > 0 || progress.devices.empty()) return;
    opened = std::max(opened, progress.devices.front().problems_opened);
    if (opened >= 6 && progress.tried.verified >= 4) gate.let = true;
  };
  auto db = Db::open(path(), DbMode::kReadWrite).value();
  const auto outcome = tune(request, db, gate, self(), look, stop_);
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_FALSE(gate.gave_up) << "nothing of later problems was tried before the first one's compiler had ended";
  EXPECT_EQ(opened, 6u) << "the first, four that may begin with what it wins, and the one of another operator";
  for (const TuneOutcome::Row& row : outcome->rows) {
    EXPECT_EQ(row.verified, 2) << row.dims_key;
    EXPECT_THAT(row.config, HasSubstr("fault=none")) << row.note;
  }
  int finalists = 0;
  for (std::int64_t problem = 1; problem <= 7; ++problem) {
    const auto trials = db.trials(problem, 1, true).value();
    for (const TrialRecord& trial : trials)
      if (trial.reason.starts_with("finalist")) {
        ++finalists;
        EXPECT_THAT(trial.reason, Not(HasSubstr("inputs of seed 1001"))) << "which it was tried with";
      }
  }
  EXPECT_GT(finalists, 0);
}

TEST_F(Planted, FreshStartsOver) {
  const auto list = specs("items: [64], fault: [none]");
  ASSERT_TRUE(tune_specs(list));
  TuneRequest request;
  request.fresh = true;
  const auto again = tune_specs(list, request);
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->verified, 1);
}

TEST_F(Planted, TheBudgetCountsWhatTheDatabaseHolds) {
  TuneRequest request;
  request.budget.candidates = 2;
  const auto list = specs("items: [32, 64, 128], fault: [none]");
  ASSERT_TRUE(tune_specs(list, request));
  request.budget.candidates = 3;
  const auto more = tune_specs(list, request);
  ASSERT_TRUE(more.has_value());
  EXPECT_EQ(more->verified, 1);
  EXPECT_EQ(more->rows[0].candidates, 3);
}

TEST_F(Planted, TheDefaultIsPublishedBesideTheWinner) {
  ASSERT_TRUE(tune_specs(specs("items: [64], fault: [none]")));
  auto db = Db::open(path(), DbMode::kReadOnly).value();
  const auto winners = db.winners().value();
  ASSERT_EQ(winners.size(), 2u);
  EXPECT_NE(winners[0].winner.is_default, winners[1].winner.is_default);
  for (const WinnerRow& row : winners) {
    EXPECT_EQ(db.object(row.winner.object_hash).value().kind, "host");
    EXPECT_TRUE(plan_from_json(row.winner.plan_json).has_value());
  }
  EXPECT_THAT(db.check().value(), IsEmpty());
}

TEST_F(Planted, AProblemThatFailsAltogetherSaysWhyOnceAndHowToRepeatIt) {
  const auto outcome = tune_specs(specs("items: [32, 64], fault: [no_compile]"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_TRUE(outcome->any_failed);
  EXPECT_THAT(outcome->rows[0].note, HasSubstr("all candidates failed: "));
  EXPECT_THAT(outcome->rows[0].note, HasSubstr("this candidate does not compile"));
  EXPECT_THAT(outcome->rows[0].note, HasSubstr("repeat with: "));
}

TEST_F(Planted, ZeroRowsAreNothingToLaunch) {
  const auto outcome = tune_specs(specs("items: [64], fault: [none]", "{rows: 0, terms: 331}"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_EQ(outcome->rows[0].note, "nothing to launch");
  EXPECT_FALSE(outcome->any_failed);
}

TEST_F(Planted, AStopEndsTheRunWithAValidDatabase) {
  stop_ = true;
  const auto outcome = tune_specs(specs("items: [64], fault: [none]"));
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_TRUE(outcome->interrupted);
  EXPECT_THAT(Db::open(path(), DbMode::kReadOnly).value().check().value(), IsEmpty());
}

TEST_F(Planted, GraphTimingIsRecordedAsSuch) {
  TuneRequest request;
  request.timing = "graph";
  const auto outcome = tune_specs(specs("items: [64], fault: [none]"), request);
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_EQ(trials().front().timing, "graph");
}

// The device of session_main.cpp: blocks of 32 take 100 us and 900 uJ, of 64 120 us and 500 uJ, of 128 200 us and 100
// uJ.
TEST_F(Planted, TheFasterWinsUnderTimeAndTheOneThatNeedsLessUnderEnergy) {
  setenv("KGEN_TEST_METERED", "1", 1);
  const auto list = specs("items: [32, 64, 128], fault: [none]", "{rows: 100, terms: 3}");
  for (const char* timing : {"cold", "graph"}) {
    TuneRequest request;
    request.timing = timing;
    const auto by_time = tune_specs(list, request);
    request.objective = "energy";
    const auto by_energy = tune_specs(list, request);
    const auto again = tune_specs(list, request);
    ASSERT_TRUE(by_time && by_energy && again);
    EXPECT_THAT(by_time->rows[0].config, HasSubstr("items=32"));
    EXPECT_EQ(by_time->rows[0].energy_uj, 0) << "not measured";
    EXPECT_THAT(by_energy->rows[0].config, HasSubstr("items=64")) << "128 needs the least but takes twice the time";
    EXPECT_NEAR(by_energy->rows[0].energy_uj, 500, 5);
    EXPECT_NEAR(by_energy->rows[0].time_us, 120, 1);
    EXPECT_EQ(by_energy->rows[0].default_energy_uj, by_energy->rows[0].energy_uj) << "64 is the default";
    EXPECT_EQ(again->rows[0].config, by_energy->rows[0].config);
    EXPECT_EQ(again->gpu_busy_seconds, 0) << "nothing is measured again";
  }
  unsetenv("KGEN_TEST_METERED");
  auto db = Db::open(path(), DbMode::kReadOnly).value();
  std::map<std::string, std::string> winners;
  const auto rows = db.winners().value();
  for (const WinnerRow& row : rows) {
    if (row.winner.is_default) continue;
    winners[row.winner.goal.text()] = row.trial.config;
    EXPECT_EQ(row.trial.energy_uj.has_value(), row.winner.goal.objective == "energy");
    EXPECT_EQ(row.trial.temperature_c, 50);
  }
  const std::string fast = "planted fault=none items=32", frugal = "planted fault=none items=64";
  EXPECT_EQ(winners,
            (std::map<std::string, std::string>{
                {"cold time", fast}, {"cold energy", frugal}, {"graph time", fast}, {"graph energy", frugal}}));
  EXPECT_THAT(db.check().value(), IsEmpty());
  EXPECT_EQ(trials().back().states.back().clock_mhz, 1000);
}

TEST_F(Planted, EnergyWithoutACounterIsRefusedBeforeAnyWork) {
  TuneRequest request;
  request.objective = "energy";
  const auto outcome = tune_specs(specs("items: [64], fault: [none]"), request);
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().kind, ErrorKind::kNoDevice);
  EXPECT_THAT(outcome.error().message, HasSubstr("no energy counter that can be read; tune with --objective time"));
}

TEST_F(Planted, AnIncumbentThatIsNotBeatenClearlyStaysAndSaysSo) {
  setenv("KGEN_TEST_METERED", "1", 1);
  TuneRequest request;
  request.budget.candidates = 1;
  const auto list = specs("items: [64, 96], fault: [none]", "{rows: 100, terms: 3}");
  ASSERT_TRUE(tune_specs(list, request));
  request.budget.candidates = 2;  // blocks of 96 take 119.5 us
  const auto outcome = tune_specs(list, request);
  unsetenv("KGEN_TEST_METERED");
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_THAT(outcome->rows[0].config, HasSubstr("items=64"));
  EXPECT_THAT(outcome->rows[0].note, HasSubstr("items=96 needs 0.4 % less time in turns with it"));
  EXPECT_THAT(outcome->rows[0].note, HasSubstr("it takes 1 % and p < 0.01"));
  EXPECT_THAT(trials().back().reason, HasSubstr("kept the winner of before"));
}

TEST_F(Planted, DeterministicTakesNothingWhoseBitsChange) {
  auto list = specs("items: [64], fault: [none, arrival, declared]", "{rows: 1000, terms: 331}", "fp32");
  const auto free = tune_specs(list);
  ASSERT_TRUE(free.has_value()) << free.error().message;
  EXPECT_EQ(free->rows[0].verified, 3) << "their results are within the tolerance";
  EXPECT_NE(by_fault().at("arrival").deterministic, true);
  EXPECT_NE(by_fault().at("declared").deterministic, true);

  list[0].tune.deterministic = true;
  const auto strict = tune_specs(list);
  ASSERT_TRUE(strict.has_value()) << strict.error().message;
  EXPECT_EQ(strict->rows[0].config, "planted fault=none items=64");
  EXPECT_TRUE(strict->rows[0].deterministic);
  EXPECT_EQ(strict->rows[0].candidates, 2) << "the operator says that `declared` changes";
  const auto found = by_fault();
  EXPECT_EQ(found.at("none").deterministic, true);

  auto db = Db::open(path(), DbMode::kReadOnly).value();
  bool published = false;
  const auto rows = db.winners().value();
  for (const WinnerRow& row : rows) {
    if (!row.winner.goal.deterministic) continue;
    published = true;
    EXPECT_THAT(row.trial.config, HasSubstr("fault=none"));
  }
  EXPECT_TRUE(published);
  EXPECT_THAT(db.check().value(), IsEmpty());
}

TEST_F(Planted, DeterministicLaunchesEachCandidateRepeatedly) {
  auto list = specs("items: [64], fault: [none, arrival]", "{rows: 1000, terms: 331}", "fp32");
  list[0].tune.deterministic = true;
  const auto strict = tune_specs(list);
  ASSERT_TRUE(strict.has_value()) << strict.error().message;
  const TrialRecord trial = by_fault().at("arrival");
  EXPECT_EQ(trial.status, TrialStatus::kWrong);
  EXPECT_THAT(trial.reason, HasSubstr("launches on the same inputs differ in their bits"));
  list[0].tune.deterministic = false;
  const auto free = tune_specs(list);
  ASSERT_TRUE(free.has_value()) << free.error().message;
  EXPECT_EQ(free->rows[0].verified, 2) << "where nobody demands equal bits it is right";
}

TEST_F(Planted, TheSameSeedProposesTheSameCandidatesInTheSameOrder) {
  const auto list = specs("items: [32, 64, 128], fault: [none, slow, corner]", "{rows: 50, terms: 20}");
  TuneRequest request;
  request.strategy = "random";
  request.jobs = 1;
  request.fresh = true;
  request.budget.candidates = 5;
  const auto run = [&](std::uint64_t seed) {
    request.seed = seed;
    const auto outcome = tune_specs(list, request);
    EXPECT_TRUE(outcome.has_value());
    std::vector<std::string> order;
    for (const TrialRecord& trial : trials())
      if (std::find(order.begin(), order.end(), trial.config) == order.end()) order.push_back(trial.config);
    return order;
  };
  const auto first = run(7), second = run(7), other = run(8);
  EXPECT_EQ(first.size(), 5u);
  EXPECT_EQ(first, second);
  EXPECT_NE(first, other);
}

TEST_F(Planted, BadNamesAreRefusedBeforeAnyWork) {
  TuneRequest request;
  request.strategy = "locl";
  auto outcome = tune_specs(specs("items: [64], fault: [none]"), request);
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(outcome.error().message, HasSubstr("did you mean 'local'"));
  request = {};
  request.timing = "hot";
  EXPECT_EQ(tune_specs({}, request).error().kind, ErrorKind::kBadInput);
}

TEST_F(Planted, VerifySpecsTellsRightFromWrong) {
  const auto compile = compiler();
  const auto list = specs("items: [64]");
  const auto right = verify_specs(list, "planted fault=none items=64", "host", *compile, self());
  ASSERT_TRUE(right.has_value()) << right.error().message;
  EXPECT_TRUE(right->at(0).passed) << right->at(0).detail;
  const auto wrong = verify_specs(list, "planted fault=tail items=64", "host", *compile, self());
  ASSERT_TRUE(wrong.has_value()) << wrong.error().message;
  EXPECT_FALSE(wrong->at(0).passed);
  EXPECT_THAT(wrong->at(0).detail, HasSubstr("kgen verify"));
  const auto crash = verify_specs(list, "planted fault=far_read items=64", "host", *compile, self());
  ASSERT_TRUE(crash.has_value()) << crash.error().message;
  EXPECT_THAT(crash->at(0).detail, HasSubstr("crashed"));
}

// The worker's process id, found as a child of this process.
pid_t find_worker(pid_t parent) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream stat(entry.path() / "stat"), cmdline(entry.path() / "cmdline");
    std::string text((std::istreambuf_iterator<char>(stat)), {}), words((std::istreambuf_iterator<char>(cmdline)), {});
    if (words.find("__worker") == std::string::npos) continue;
    const auto close = text.rfind(')');
    if (close != std::string::npos && std::atoi(split(text.substr(close + 2), ' ')[1].c_str()) == parent)
      return std::atoi(name.c_str());
  }
  return -1;
}

// False for a process that has ended, also while nobody has collected it.
bool runs(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  const std::string text((std::istreambuf_iterator<char>(stat)), {});
  const auto close = text.rfind(')');
  return pid > 0 && close != std::string::npos && text[close + 2] != 'Z' && text[close + 2] != 'X';
}

TEST_F(Planted, AWorkerKilledFromOutsideCostsNothing) {
  const auto list = specs("items: [32, 64, 128], fault: [none, slow]");
  std::atomic<bool> done{false};
  int kills = 0;
  std::thread killer([&] {
    for (int round = 0; round < 3 && !done; ++round) {
      std::this_thread::sleep_for(std::chrono::milliseconds(400 + 300 * round));
      const pid_t worker = find_worker(::getpid());
      if (worker > 0 && ::kill(worker, SIGKILL) == 0) ++kills;
    }
  });
  const auto outcome = tune_specs(list);
  done = true;
  killer.join();
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_GT(kills, 0);
  EXPECT_EQ(outcome->rows[0].candidates, 6);
  EXPECT_EQ(outcome->rows[0].verified, 6);
}

TEST_F(Planted, AKilledTunerLosesAtMostTheTrialInFlightAndResumes) {
  const auto list = specs("items: [32, 64, 128], fault: [none, slow]");
  for (int milliseconds : {300, 900, 1500, 2500}) {
    const pid_t child = ::fork();
    if (child == 0) {
      (void)tune_specs(list);
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(milliseconds) * 1000);
    const pid_t worker = find_worker(child);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (int i = 0; i < 500 && runs(worker); ++i) ::usleep(10'000);
    EXPECT_FALSE(runs(worker)) << "the worker outlived its parent";
    if (!std::filesystem::exists(path())) continue;
    auto db = Db::open(path(), DbMode::kReadWrite);
    ASSERT_TRUE(db.has_value()) << db.error().message;
    EXPECT_THAT(db->check().value(), IsEmpty());
  }
  const auto outcome = tune_specs(list);
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_EQ(outcome->rows[0].candidates, 6);
  EXPECT_EQ(outcome->rows[0].verified, 6);
  EXPECT_FALSE(outcome->rows[0].config.empty());
}

}  // namespace
}  // namespace kgen
