#include "tuner/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <set>
#include <string>
#include <vector>

namespace kgen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A device whose clock moves by what the script says a launch takes; it writes down what was enqueued.
class ScriptedDevice : public Device {
 public:
  ScriptedDevice() {
    info_.arch = find_arch("sm_90").value();
    info_.l2_bytes = 50 << 20;
    info_.compute_units = 2;
  }
  const DeviceInfo& info() const override { return info_; }
  Result<DevicePtr> allocate(std::size_t bytes) override {
    allocated_ += static_cast<std::int64_t>(bytes);
    return reinterpret_cast<DevicePtr>(std::uintptr_t{4096});
  }
  void release(DevicePtr) override {}
  Result<void> copy(void*, const void*, std::size_t) override { return {}; }
  Result<void> fill(DevicePtr, unsigned char, std::size_t, Stream) override { return {}; }
  Result<std::unique_ptr<Module>> load(std::span<const std::byte>) override {
    return fail(ErrorKind::kInternal, "none");
  }
  Result<void> launch(Function function, const LaunchShape&, void**, Stream) override {
    log_ += function == &code_ ? 'c' : 'f';
    clock_ += 100;
    return {};
  }
  Result<void> synchronize(Stream) override { return {}; }
  Result<void> record(Event& event, Stream) override {
    if (event == nullptr) event = &times_.emplace_back();
    *static_cast<double*>(event) = clock_;
    return {};
  }
  Result<double> elapsed_us(Event from, Event to) override {
    log_ += '.';
    read_.push_back(from);
    return *static_cast<double*>(to) - *static_cast<double*>(from);
  }
  Result<Graph> capture(const std::function<Result<void>(Stream)>& work) override {
    const double clock = clock_, energy = energy_uj_;
    KGEN_CHECK_OK(work(nullptr));
    graphs_.emplace_back(clock_ - clock, energy_uj_ - energy);
    clock_ = clock, energy_uj_ = energy;
    return &graphs_.back();
  }
  Result<void> replay(Graph graph, Stream) override {
    log_ += 'g';
    const auto& [us, uj] = *static_cast<std::pair<double, double>*>(graph);
    clock_ += us, energy_uj_ += uj;
    return {};
  }

  // A kernel that takes these times in turn, the last one for ever.
  Measurer::Launch kernel(char name, std::deque<double> times, double energy_uj = 0) {
    return [this, name, times, energy_uj](int set, Stream) mutable -> Result<void> {
      log_ += name;
      energy_uj_ += energy_uj;
      sets_.push_back(set);
      clock_ += times.front();
      if (times.size() > 1) times.pop_front();
      return {};
    };
  }

  DeviceInfo info_;
  char code_ = 0;  // stands for the kernel that displaces code
  std::string log_;
  std::vector<int> sets_;
  std::vector<Event> read_;  // the begin of each time that was asked for
  std::deque<double> times_;
  std::deque<std::pair<double, double>> graphs_;  // time and energy of each
  double clock_ = 0, energy_uj_ = 0;
  std::int64_t allocated_ = 0;
};

TEST(Measure, ASteadyKernelNeedsSixSamples) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', {50}), 1, {}).value();
  EXPECT_EQ(timing.samples_us.size(), 6u);
  EXPECT_EQ(timing.median_us, 50);
  EXPECT_FALSE(timing.stopped_early);
}

TEST(Measure, ColdFlushesBeforeEachSampleAndWaitsForNothingInBetween) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  ASSERT_TRUE(measurer.measure(TimingMode::kCold, device.kernel('k', {50}), 1, {}));
  EXPECT_EQ(device.log_, "fkfkfk...fkfkfk...");
  EXPECT_GE(device.allocated_, 256 << 20);
}

TEST(Measure, ColdDisplacesCodeBesideTheDataInSearchAndRaces) {
  ScriptedDevice device;
  Measurer measurer(device, {.read_all = nullptr, .code = &device.code_});
  ASSERT_TRUE(measurer.measure(TimingMode::kCold, device.kernel('k', {50}), 1, {}));
  EXPECT_EQ(device.log_, "fckfckfck...fckfckfck...");
  device.log_.clear();
  ASSERT_TRUE(measurer.in_turns(TimingMode::kCold, {device.kernel('a', {50}), device.kernel('b', {60})}, 1, 1));
  EXPECT_EQ(device.log_, "abfca.fcb.");
  device.log_.clear();
  ASSERT_TRUE(measurer.measure(TimingMode::kWarm, device.kernel('k', {50}), 1, {}));
  EXPECT_EQ(device.log_.find('c'), std::string::npos);
}

TEST(Measure, BandwidthIsThatOfTheDataAlone) {
  ScriptedDevice device;
  Measurer measurer(device, {.read_all = nullptr, .code = &device.code_});
  ASSERT_TRUE(measurer.bandwidth());
  EXPECT_EQ(device.log_.find('c'), std::string::npos);
}

TEST(Measure, TheFlushIsNotPartOfTheTime) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  EXPECT_EQ(measurer.measure(TimingMode::kCold, device.kernel('k', {7}), 1, {}).value().median_us, 7);
}

TEST(Measure, WarmFlushesNothingAndDropsTheFirstRun) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const Timing timing = measurer.measure(TimingMode::kWarm, device.kernel('k', {900, 50}), 1, {}).value();
  EXPECT_EQ(timing.median_us, 50);
  EXPECT_EQ(*std::max_element(timing.samples_us.begin(), timing.samples_us.end()), 50);
  EXPECT_EQ(device.log_.find('f'), std::string::npos);
}

TEST(Measure, NoiseIsSampledUpToTheLimit) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  std::deque<double> noisy;
  for (int i = 0; i < 40; ++i) noisy.push_back(50 + 20 * (i * 7 % 5));
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', noisy), 1, {}).value();
  EXPECT_EQ(timing.samples_us.size(), 20u);
}

TEST(Measure, AClearlySlowerKernelIsGivenUpAfterThreeSamples) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', {90}), 1, {.best_us = 50}).value();
  EXPECT_TRUE(timing.stopped_early);
  EXPECT_EQ(timing.samples_us.size(), 3u);
}

TEST(Measure, OneFastSampleSavesAKernelFromBeingGivenUp) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const Timing timing =
      measurer.measure(TimingMode::kCold, device.kernel('k', {90, 60, 90, 51}), 1, {.best_us = 50}).value();
  EXPECT_FALSE(timing.stopped_early);
}

TEST(Measure, AHopelessVerificationLaunchMeansOneSample) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const MeasureLimits limits{.best_us = 50, .expected_us = 9000};
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', {9000}), 1, limits).value();
  EXPECT_TRUE(timing.stopped_early);
  EXPECT_EQ(timing.samples_us.size(), 1u);
}

TEST(Measure, ASlowVerificationLaunchAloneGivesNothingUp) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const MeasureLimits limits{.best_us = 50, .expected_us = 9000};
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', {51}), 1, limits).value();
  EXPECT_FALSE(timing.stopped_early);
  EXPECT_EQ(timing.samples_us.size(), 6u);
}

TEST(Measure, SittingsCountAlikeHoweverTheirSamplesLie) {
  Timing first{.samples_us = {10, 10, 10, 11}, .median_us = 10, .throttle = "power"},
      second{.samples_us = {14, 15, 14}, .median_us = 14, .throttle = "power"};
  const Timing all = join({first, second});
  EXPECT_THAT(all.samples_us, testing::ElementsAre(10, 10, 10, 11, 14, 15, 14));
  EXPECT_DOUBLE_EQ(all.median_us, 12) << "not 11, the median of all samples";
  EXPECT_EQ(all.throttle, "power");
  EXPECT_DOUBLE_EQ(join({second}).median_us, 14);
}

TEST(Measure, SittingsOfTwoHeightsAreComparedByTheirMeans) {
  Timing low, both;
  for (int sitting = 0; sitting < 9; ++sitting) {
    low.sittings_us.push_back(7.2);
    both.sittings_us.push_back(sitting < 5 ? 7.2 : 7.4);
  }
  EXPECT_NEAR(compare(low, both).gain, 1 - 7.2 * 9 / (7.2 * 5 + 7.4 * 4), 1e-12) << "not 0, the median of the ratios";
  EXPECT_FALSE(compare(low, both).replaces) << "four differences are not significant";
  for (double& sitting : both.sittings_us) sitting += 0.1;
  EXPECT_TRUE(compare(low, both).replaces);
  both.sittings_us.resize(8);  // too few for the test of significance
  EXPECT_EQ(compare(low, both).probability, 1);
}

TEST(Measure, ALongKernelTakesEightTimesItsLengthAtMost) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  std::deque<double> noisy;
  for (int i = 0; i < 40; ++i) noisy.push_back(100e3 + 20e3 * (i * 7 % 5));
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', noisy), 1, {}).value();
  EXPECT_LE(timing.samples_us.size(), 8u);
}

TEST(Measure, AGraphRotatesThroughTheBufferSets) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const Timing timing = measurer.measure(TimingMode::kGraph, device.kernel('k', {10}), 5, {}).value();
  EXPECT_EQ(timing.median_us, 10);
  ASSERT_EQ(device.sets_.size(), 15u);
  for (std::size_t i = 0; i < device.sets_.size(); ++i) EXPECT_EQ(device.sets_[i], static_cast<int>(i % 5));
}

TEST(Measure, FinalistsTakeTurns) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  const auto timings =
      measurer
          .in_turns(TimingMode::kCold, {device.kernel('a', {999, 1, 2, 3}), device.kernel('b', {999, 4, 5, 6})}, 1, 3)
          .value();
  ASSERT_EQ(timings.size(), 2u);
  EXPECT_THAT(timings[0].samples_us, ElementsAre(1, 2, 3));
  EXPECT_THAT(timings[1].samples_us, ElementsAre(4, 5, 6));
  EXPECT_EQ(timings[1].median_us, 5);
  EXPECT_EQ(device.log_, "abfa.fb.fb.fa.fb.fa.") << "every second round backwards, then the next begins one further on";
}

TEST(Measure, FinalistsOfARoundShareTheirMarks) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  for (const int kernels : {1, 2, 3, 4}) {
    std::vector<Measurer::Launch> launches;
    for (int i = 0; i < kernels; ++i) launches.push_back(device.kernel('k', {10}));
    device.read_.clear();
    ASSERT_TRUE(measurer.in_turns(TimingMode::kCold, launches, 1, 5));
    ASSERT_EQ(device.read_.size(), static_cast<std::size_t>(5 * kernels));
    std::set<Event> rounds;
    for (std::size_t i = 0; i < device.read_.size(); ++i) {
      EXPECT_EQ(device.read_[i],
                device.read_[i / static_cast<std::size_t>(kernels) * static_cast<std::size_t>(kernels)]);
      rounds.insert(device.read_[i]);
    }
    EXPECT_EQ(rounds.size(), 5u) << "each round has others";
  }
}

// A card that is hot for its first reads.
class Card : public Telemetry {
 public:
  explicit Card(int hot_reads) : hot_(hot_reads) {}
  DeviceState read() override {
    ++reads_;
    if (hot_-- > 0)
      return {.clock_mhz = 400, .temperature_c = 95, .energy_uj = {}, .throttle = "thermal", .passing = true};
    return {.clock_mhz = 1700, .temperature_c = 70, .energy_uj = {}, .throttle = "power cap", .passing = false};
  }
  int hot_, reads_ = 0;
};

TEST(Measure, SamplesOfAHotCardAreTakenAgain) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  Card card(1);
  measurer.watch(&card);
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', {70, 70, 70, 10}), 1, {}).value();
  EXPECT_EQ(*std::max_element(timing.samples_us.begin(), timing.samples_us.end()), 10) << "the hot ones are gone";
  EXPECT_EQ(timing.clock_mhz, 1700);
  EXPECT_EQ(timing.temperature_c, 70);
  EXPECT_EQ(timing.throttle, "power cap") << "how a loaded card runs: told, not waited for";
}

TEST(Measure, ARoundOnAHotCardIsHeldAgain) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  Card card(1);
  measurer.watch(&card);
  const auto timings =
      measurer
          .in_turns(TimingMode::kCold, {device.kernel('a', {999, 70, 1, 2}), device.kernel('b', {999, 80, 4, 5})}, 1, 2)
          .value();
  EXPECT_THAT(timings[0].samples_us, ElementsAre(1, 2));
  EXPECT_THAT(timings[1].samples_us, ElementsAre(4, 5));
  EXPECT_EQ(timings[0].clock_mhz, 1700);
}

TEST(Measure, EverySampleKeepsTheStateOfTheCard) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  Card card(0);
  measurer.watch(&card);
  const Timing timing = measurer.measure(TimingMode::kCold, device.kernel('k', {50}), 1, {}).value();
  ASSERT_EQ(timing.states.size(), timing.samples_us.size());
  for (const SampleState& state : timing.states)
    EXPECT_EQ(state, (SampleState{.clock_mhz = 1700, .temperature_c = 70, .throttled = true}));
}

// A counter that steps every 20 ms of the device's clock, and never in the first `still_us`.
class Counter : public Telemetry {
 public:
  Counter(const ScriptedDevice& device, double still_us) : device_(device), still_us_(still_us) {}
  DeviceState read() override {
    DeviceState state;
    if (device_.clock_ >= still_us_ && device_.clock_ >= next_) {
      shown_ = static_cast<std::int64_t>(device_.energy_uj_);
      next_ = device_.clock_ + 20e3;
    }
    state.energy_uj = shown_;
    return state;
  }
  const ScriptedDevice& device_;
  double still_us_, next_ = 0;
  std::int64_t shown_ = 0;
};

TEST(Measure, EnergyIsThatOfACallInEveryTiming) {
  for (const TimingMode mode : {TimingMode::kCold, TimingMode::kWarm, TimingMode::kGraph}) {
    ScriptedDevice device;
    Measurer measurer(device, {});
    Counter counter(device, 0);
    measurer.watch(&counter);
    const auto energies =
        measurer.energy_in_turns(mode, {device.kernel('a', {40}, 7000), device.kernel('b', {5}, 300)}, 3, 4).value();
    ASSERT_EQ(energies[0].samples_uj.size(), 4u);
    EXPECT_NEAR(energies[0].median_uj, 7000, 70);
    EXPECT_NEAR(energies[1].median_uj, 300, 3);
    EXPECT_EQ(device.log_.find('f'), std::string::npos) << "no flush, whose energy would be the kernel's";
    EXPECT_EQ(*std::max_element(device.sets_.begin(), device.sets_.end()), mode == TimingMode::kWarm ? 0 : 2);
  }
}

TEST(Measure, TheEnergyOfALongKernelIsMeasuredToo) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  Counter counter(device, 0);
  measurer.watch(&counter);
  EXPECT_NEAR(measurer.energy_in_turns(TimingMode::kCold, {device.kernel('a', {30e3}, 9e6)}, 2, 2).value()[0].median_uj,
              9e6, 1);
}

TEST(Measure, AnEnergyCounterThatStandsStillIsAnError) {
  ScriptedDevice device;
  Measurer measurer(device, {});
  Counter counter(device, 1e12);
  measurer.watch(&counter);
  const auto energies = measurer.energy_in_turns(TimingMode::kWarm, {device.kernel('a', {40}, 7000)}, 1, 1);
  ASSERT_FALSE(energies.has_value());
  EXPECT_THAT(energies.error().message, HasSubstr("stands still"));
}

TEST(Measure, AnUnknownTimingGetsTheNearest) {
  EXPECT_EQ(find_timing("warm").value(), TimingMode::kWarm);
  EXPECT_THAT(find_timing("colt").error().message, HasSubstr("did you mean 'cold'"));
}

}  // namespace
}  // namespace kgen
