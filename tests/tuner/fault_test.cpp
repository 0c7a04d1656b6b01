// The tuner under faults of drivers and compilers, by tests/device/fault_script.h: whole tunes through the launch path
// of AMD and of NVIDIA GPUs, on drivers that run the kernels here. scripts/trust.py does the same at length.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/text.h"
#include "tuner/session.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kPlanted = KGEN_SOURCE_DIR "/tests/tuner/planted/planted.yaml";
constexpr const char* kVariables[] = {"KGEN_CUDA_LIBRARY", "KGEN_HIP_LIBRARY", "KGEN_CLANG",       "KGEN_FAKE_OBJECTS",
                                      "KGEN_FAKE_SKIP",    "KGEN_FAKE_ARCH",   "KGEN_FAKE_FAULTS", "KGEN_FAKE_STATE",
                                      "KGEN_FAKE_LOG",     "KGEN_HOST_THREADS"};

struct Path {
  const char* name;
  const char* device;
  const char* arch;  // as the driver is told
};
void PrintTo(const Path& path, std::ostream* out) { *out << path.name; }

class Faults : public ::testing::TestWithParam<Path> {
 protected:
  void SetUp() override {
    char name[] = "/tmp/kgen_faults_XXXXXX";
    folder_ = ::mkdtemp(name);
    setenv("KGEN_CUDA_LIBRARY", KGEN_FAKE_CUDA, 1);
    setenv("KGEN_HIP_LIBRARY", KGEN_FAKE_HIP, 1);
    setenv("KGEN_CLANG", KGEN_FAKE_CLANG, 1);
    setenv("KGEN_FAKE_OBJECTS", KGEN_BINARY_DIR "/fault_objects", 1);
    setenv("KGEN_FAKE_SKIP", "read_all,displace_code", 1);
    setenv("KGEN_FAKE_ARCH", GetParam().arch, 1);
    setenv("KGEN_HOST_THREADS", "1", 1);
  }
  void TearDown() override {
    for (const char* variable : kVariables) unsetenv(variable);
    std::filesystem::remove_all(folder_);
  }

  // Nine candidates: three are right, and six wrong on purpose. `cold`: the compiler has to run.
  Result<TuneOutcome> tune_under(const std::string& script, bool cold = false, const std::string& timing = "cold") {
    for (const char* file : {"/state", "/log"}) std::filesystem::remove(folder_ + file);
    setenv("KGEN_FAKE_FAULTS", script.c_str(), 1);
    setenv("KGEN_FAKE_STATE", (folder_ + "/state").c_str(), 1);
    setenv("KGEN_FAKE_LOG", (folder_ + "/log").c_str(), 1);
    const std::string yaml = "{kgen: 1, ops: [{op: " + std::string(kPlanted) +
                             ", dtype: fp32, problems: [{rows: 70, terms: 40}], tune: {params: {items: [32, 64, 128], "
                             "fault: [none, corner, tail]}}}]}";
    TuneRequest request;
    KGEN_TRY(request.specs, parse_spec_text(yaml, "faults.yaml"));
    request.device = GetParam().device;
    request.timing = timing;
    request.candidate_timeout_seconds = 4;
    request.jobs = 2;
    CompilerOptions options;
    options.cache_folder = cold ? folder_ + "/cache" : KGEN_BINARY_DIR "/fault_cache";
    options.timeout_seconds = 8;
    options.self = std::filesystem::read_symlink("/proc/self/exe").string();
    KGEN_TRY(Db db, Db::open(folder_ + "/tuned.db", DbMode::kReadWrite));
    const auto compiler = make_compiler(options);
    const std::atomic<bool> stop{false};
    auto outcome = tune(request, db, *compiler, options.self, [](const TuneProgress&) {}, stop);
    setenv("KGEN_FAKE_FAULTS", "", 1);
    return outcome;
  }

  std::vector<std::string> log() const {
    auto text = read_file(folder_ + "/log");
    return text ? split(*text, '\n') : std::vector<std::string>();
  }
  int injected() const {
    int count = 0;
    for (const std::string& line : log()) count += line.find(" fault ") != std::string::npos;
    return count;
  }
  // How each candidate ended first.
  std::map<std::string, TrialStatus> ends() const {
    auto db = Db::open(folder_ + "/tuned.db", DbMode::kReadOnly).value();
    std::map<std::string, TrialStatus> found;
    const std::vector<TrialRecord> trials = db.trials(1, 1, true).value();
    for (const TrialRecord& trial : trials)
      found.try_emplace(trial.config, trial.status == TrialStatus::kStoppedEarly ? TrialStatus::kTimed : trial.status);
    return found;
  }
  static TrialStatus right_end(const std::string& config) {
    return config.find("fault=none") != std::string::npos ? TrialStatus::kTimed : TrialStatus::kWrong;
  }
  // Every candidate has a row, and `most` at the most ended in another way than they should.
  void expect_little_lost(int most) const {
    const auto found = ends();
    EXPECT_EQ(found.size(), 9u);
    int others = 0;
    for (const auto& [config, status] : found) others += status != right_end(config);
    EXPECT_LE(others, most);
    expect_no_harm();
  }
  // The file is whole, nothing wrong is published, and no process used the device before it ran a known-good kernel.
  void expect_no_harm() const {
    auto db = Db::open(folder_ + "/tuned.db", DbMode::kReadOnly).value();
    EXPECT_THAT(db.check().value(), IsEmpty());
    const auto winners = db.winners().value();
    for (const WinnerRow& row : winners) EXPECT_THAT(row.trial.config, HasSubstr("fault=none"));
    for (const std::string& line : log()) {
      if (line.find("begins with") != std::string::npos) {
        EXPECT_THAT(line, HasSubstr("begins with fill_"));
      }
    }
  }

  std::string folder_;
};
INSTANTIATE_TEST_SUITE_P(Paths, Faults,
                         ::testing::Values(Path{"amd", "amd:1", "gfx1030"}, Path{"nvidia", "nvidia:1", "70"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Faults, WithoutAnyAWholeTuneGoesThroughTheLaunchPath) {
  for (const char* timing : {"cold", "graph"}) {
    const auto outcome = tune_under("", false, timing);
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
    ASSERT_EQ(outcome->rows.size(), 1u);
    EXPECT_THAT(outcome->rows[0].config, HasSubstr("fault=none")) << outcome->rows[0].note;
    EXPECT_GT(outcome->rows[0].time_us, 0);
    expect_little_lost(0);
  }
}

TEST_P(Faults, AFaultCostsTheTrialInFlightAtMost) {
  const std::vector<std::string> scripts = {"launch:60:fault=700",
                                            "launch/planted:2:error=701",
                                            "launch/planted:1:corrupt",
                                            "launch/planted:1:skip",
                                            "launch/check_fp32:6:skip",
                                            "launch/check_pattern:6:skip",
                                            "event_synchronize:3:fault=719",
                                            "copy:12:error=any",
                                            "copy:20:corrupt",
                                            "module_load:2:corrupt",
                                            "module_function:8:error=500",
                                            "allocate:9:error=2",
                                            "event_elapsed_ms:2:value=nan",
                                            "event_elapsed_ms:9:value=-1",
                                            "any:150:crash",
                                            "any:120:exit",
                                            "any:130:kill",
                                            "any:100:babble",
                                            "any:110:lost=1"};
  // Every other one on each path; scripts/trust.py has them all on both.
  for (std::size_t i = std::string_view(GetParam().name) == "amd"; i < scripts.size(); i += 2) {
    const std::string& script = scripts[i];
    SCOPED_TRACE(script);
    std::filesystem::remove(folder_ + "/tuned.db");
    const auto outcome = tune_under(script);
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
    EXPECT_EQ(injected(), 1);
    EXPECT_FALSE(outcome->any_failed) << outcome->rows[0].note;
    expect_little_lost(1);
  }
}

TEST_P(Faults, AHangCostsItsLimitAndTheRunGoesOn) {
  const auto outcome = tune_under("launch/planted:2:hang");
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_EQ(injected(), 1);
  expect_little_lost(1);
  int hung = 0;
  for (const auto& [config, status] : ends()) hung += status == TrialStatus::kHung;
  EXPECT_EQ(hung, 1);
}

TEST_P(Faults, ChecksThatDoNotRunOrRefuseNothingVerifyNothing) {
  for (const char* script :
       {"launch/check_fp32:*:skip", "launch/check_fp32:2+:skip", "fill:*:skip;launch/check:*:skip"}) {
    SCOPED_TRACE(script);
    std::filesystem::remove(folder_ + "/tuned.db");
    const auto outcome = tune_under(script);
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
    EXPECT_TRUE(outcome->any_failed);
    for (const auto& [config, status] : ends()) EXPECT_NE(status, TrialStatus::kTimed) << config;
    expect_no_harm();
  }
}

// One spoilt reference would make all candidates wrong, for good.
TEST_P(Faults, AReferenceThatNoCandidateAgreesWithIsComputedAgain) {
  for (const char* script : {"launch/reference:1:corrupt", "launch/reference:1:skip"}) {
    SCOPED_TRACE(script);
    std::filesystem::remove(folder_ + "/tuned.db");
    const auto outcome = tune_under(script);
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
    EXPECT_EQ(injected(), 1);
    expect_little_lost(0);
  }
}

TEST_P(Faults, AFaultWhileTheReferenceIsComputedCostsNoCandidate) {
  for (const char* script : {"allocate:3:error=2", "launch/reference:1:fault=719", "launch/reference:1:crash"}) {
    SCOPED_TRACE(script);
    std::filesystem::remove(folder_ + "/tuned.db");
    const auto outcome = tune_under(script);
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
    EXPECT_EQ(injected(), 1);
    expect_little_lost(0);
  }
}

TEST_P(Faults, ATimeThatCannotBeIsNobodysTime) {
  const bool amd = std::string_view(GetParam().name) == "amd";
  for (const char* time : amd ? std::vector{"0", "inf"} : std::vector{"-1", "nan"}) {
    SCOPED_TRACE(time);
    std::filesystem::remove(folder_ + "/tuned.db");
    const auto outcome = tune_under("event_elapsed_ms:*:value=" + std::string(time));
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
    EXPECT_TRUE(outcome->any_failed);
    for (const auto& [config, status] : ends()) EXPECT_NE(status, TrialStatus::kTimed) << config;
    EXPECT_THAT(Db::open(folder_ + "/tuned.db", DbMode::kReadOnly).value().winners().value(), IsEmpty());
  }
}

TEST_P(Faults, ADeviceLostForGoodEndsTheRunAndItsReturnGoesOnWithIt) {
  const auto lost = tune_under("any:150:lost=0");
  ASSERT_FALSE(lost.has_value());
  EXPECT_EQ(lost.error().kind, ErrorKind::kNoDevice);
  EXPECT_THAT(lost.error().message, HasSubstr("does not run a known-good kernel any more"));
  expect_no_harm();
  const auto outcome = tune_under("");
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  expect_little_lost(1);
}

TEST_P(Faults, ACompilerInTroubleCostsTheCandidateThatItCompiles) {
  const bool amd = std::string_view(GetParam().name) == "amd";
  for (const char* action : amd ? std::vector{"error=1", "kill", "half"} : std::vector{"crash", "babble", "skip"}) {
    SCOPED_TRACE(action);
    std::filesystem::remove_all(folder_ + "/cache");
    std::filesystem::remove(folder_ + "/tuned.db");
    const auto outcome = tune_under("compile:4:" + std::string(action), true);
    ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
    EXPECT_EQ(injected(), 1);
    expect_little_lost(1);
  }
}

TEST_P(Faults, AReferenceThatDoesNotCompileIsCompiledAgain) {
  const auto outcome = tune_under("compile:1:kill;compile:2:kill", true);  // one of the two that start at once
  ASSERT_TRUE(outcome.has_value()) << outcome.error().message;
  EXPECT_EQ(injected(), 2);
  expect_little_lost(1);
}

}  // namespace
}  // namespace kgen
