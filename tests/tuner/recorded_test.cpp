#include "tuner/search/recorded.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "base/text.h"
#include "tuner/search/simulate.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;

class Recorded : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) {
    EXPECT_TRUE(write_file(folder_ + name, text));
    return folder_ + name;
  }
  const std::string folder_ = ::testing::TempDir() + "kgen_recorded_" + std::to_string(::getpid()) + "/";
};

// Two axes of eight values; the least time is at a = 32, b = 4.
std::string cache(double scale) {
  std::string text = R"({"device_name": "Some Card", "kernel_name": "stencil", "problem_size": [512, 64],
    "tune_params_keys": ["a", "b"], "objective": "time", "cache": {)";
  for (int a = 1, i = 0; a <= 128; a *= 2)
    for (int b = 1; b <= 8; ++b, ++i) {
      const std::string key = std::to_string(a) + "," + std::to_string(b);
      const double time = scale * (1 + std::abs(std::log2(a) - 5) + 0.3 * std::abs(b - 4));
      text += (i == 0 ? "\"" : ",\"") + key + "\": {\"a\": " + std::to_string(a) + ", \"b\": " + std::to_string(b) +
              ", \"time\": " + (a == 128 ? "\"RuntimeFailedConfig\"" : std::to_string(time)) +
              ", \"times\": [1.5, 2.25], \"compile_time\": 500, \"timestamp\": \"2023-12-22 09:53:48.691683+00:00\"}";
    }
  return text + "}}";
}

TEST_F(Recorded, ReadsAKernelTunerCache) {
  const auto recordings = read_recordings(write("stencil-card.json", cache(1))).value();
  ASSERT_EQ(recordings.size(), 1u);
  const Recording& r = recordings[0];
  EXPECT_EQ(r.name(), "stencil-card");
  EXPECT_EQ(r.device.name, "Some Card");
  EXPECT_EQ(r.problem.dims_key, "x=512 y=64");
  ASSERT_EQ(r.trials.size(), 64u);
  const RecordedSpace space = recorded_space(r);
  for (std::size_t i = 0; i < space.configs.size(); ++i)
    EXPECT_EQ(space.times_us[i] == kFailed, space.configs[i][0].second == "128");
  for (const TrialRecord& trial : r.trials) {
    EXPECT_DOUBLE_EQ(*trial.compile_seconds, 0.5);
    EXPECT_EQ(trial.recorded_at_ms, 1703238828692);
    if (trial.config == "a=32 b=4") {
      EXPECT_DOUBLE_EQ(*trial.time_us, 1000);
    }
  }
}

TEST_F(Recorded, AnUnfinishedCacheIsReadToItsEnd) {
  std::string text = cache(1);
  text.resize(text.size() - 2);
  EXPECT_EQ(read_recordings(write("open.json", text + ",\n")).value()[0].trials.size(), 64u);
}

TEST_F(Recorded, T4OutAndInIsTheSame) {
  auto recordings = read_recordings(write("stencil.json", cache(1)), true).value();
  recordings[0].trials[3].registers = 40;
  recordings[0].trials[3].temperature_c = 61;
  recordings[0].trials[3].throttle = "power cap";
  recordings[0].trials[3].energy_uj = 812.5;
  recordings[0].trials[3].deterministic = true;
  recordings[0].trials[3].states = {{1755, 61, true}, {1980, 60, false}};
  recordings[0].trials[4].status = TrialStatus::kStoppedEarly;
  recordings[0].trials[5].status = TrialStatus::kWrong;
  recordings[0].trials[5].reason = "element 3 is 1, not 2";
  const std::string text = to_t4(recordings);
  const auto again = from_t4(text, "stencil.json").value();
  EXPECT_EQ(to_t4(again), text);
  EXPECT_EQ(again[0].trials[5].reason, recordings[0].trials[5].reason);
  EXPECT_EQ(again[0].trials[4].status, TrialStatus::kStoppedEarly);
  EXPECT_EQ(again[0].trials[3].registers, 40);
  EXPECT_EQ(again[0].trials[3].temperature_c, 61);
  EXPECT_EQ(again[0].trials[3].throttle, "power cap");
  EXPECT_EQ(again[0].trials[3].energy_uj, 812.5);
  EXPECT_EQ(again[0].trials[3].deterministic, true);
  EXPECT_EQ(again[0].trials[3].states, recordings[0].trials[3].states);
  EXPECT_THAT(text, HasSubstr("microjoules"));
  EXPECT_EQ(again[0].trials[7].samples_us, recordings[0].trials[7].samples_us);
}

TEST_F(Recorded, ReadsT4OfOtherTools) {
  const char* const kText = R"({"metadata": {"timeunit": "miliseconds"}, "schema_version": "1.0.0", "results": [
    {"timestamp": "", "configuration": {"a": 1, "b": "x y"}, "times": {"compilation": 2000, "runtimes": [1, 2]},
     "invalidity": "correct", "correctness": 1, "measurements": [{"name": "energy", "value": 7},
     {"name": "time", "value": 1.5}], "objectives": ["time"]},
    {"configuration": {"a": 2, "b": "z"}, "invalidity": "compile", "measurements": [], "objectives": ["time"]}]})";
  const auto recordings = read_recordings(write("kernel_T4.json", kText)).value();
  ASSERT_EQ(recordings[0].trials.size(), 2u);
  const TrialRecord& first = recordings[0].trials[0];
  EXPECT_EQ(first.config, "a=1 b=x_y");
  EXPECT_DOUBLE_EQ(*first.time_us, 1500);
  EXPECT_DOUBLE_EQ(*first.compile_seconds, 2);
  EXPECT_EQ(first.samples_us, (std::vector<float>{1000, 2000}));
  EXPECT_EQ(recordings[0].trials[1].status, TrialStatus::kCompileFailed);
}

TEST_F(Recorded, OtherFilesAreRefusedByName) {
  for (const char* text : {"", "{}", "[1, 2]", "{\"results\": 3}", "{\"cache\": {", "not json"}) {
    const auto recordings = read_recordings(write("bad.json", text));
    ASSERT_FALSE(recordings.has_value()) << text;
    EXPECT_EQ(recordings.error().kind, ErrorKind::kBadInput);
    EXPECT_THAT(recordings.error().message, HasSubstr("bad.json"));
  }
}

TEST_F(Recorded, ASimulationFindsTheOptimumAndCountsFailures) {
  const auto recordings = read_recordings(write("stencil.json", cache(1))).value();
  const SimulateRequest request{.strategy = "model", .budget = 40, .repeats = 5, .seed = 3};
  const auto result = simulate(recordings, {}, request).value()[0];
  EXPECT_EQ(result.points, 64u);
  EXPECT_EQ(result.failed, 8u);
  ASSERT_EQ(result.fractions.size(), 2u);  // 25 and the budget
  EXPECT_GT(result.fractions.at(25).mean, 0.9);
  EXPECT_DOUBLE_EQ(result.fractions.at(40).worst, 1);
  const auto again = simulate(recordings, {}, request).value()[0];
  EXPECT_EQ(result.fractions.at(25).mean, again.fractions.at(25).mean);
}

TEST_F(Recorded, ARecordingDoesNotWarmItself) {
  const auto own = read_recordings(write("a.json", cache(1))).value();
  const auto copy = from_t4(to_t4(own), "b.json").value(), other = read_recordings(write("c.json", cache(2))).value();
  const SimulateRequest request{.strategy = "model", .budget = 5, .repeats = 1, .seed = 1};
  EXPECT_EQ(simulate(own, copy, request).value()[0].sources, 0u);
  const auto warmed = simulate(own, other, request).value()[0];
  EXPECT_EQ(warmed.sources, 1u);
  EXPECT_DOUBLE_EQ(warmed.fractions.at(5).mean, 1);
}

}  // namespace
}  // namespace kgen
