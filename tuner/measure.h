// Timing of one kernel (or a plan of several) with device events.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "db/db.h"
#include "device/device.h"
#include "device/telemetry.h"
#include "tuner/stats.h"

namespace kgen {

// cold: the last-level cache is displaced before each sample, by reading another buffer, and on a GPU the instruction
// caches, by running other code. Reading, not writing: dirty
// lines would be written back during the kernel and charged to it (H100, decode GEMMs: 9 to 28 % slower; 2026-11-21).
// warm: back to back on the same buffers. graph: a captured graph of several launches, each on the next of several sets
// of buffers that together exceed the cache, so that launch gaps are those of a replay and data still come from memory.
enum class TimingMode { kCold, kWarm, kGraph };
Result<TimingMode> find_timing(const std::string& name);

struct Timing {
  std::vector<double> samples_us;     // raw, in the order taken; graph: time of a replay divided by its launches
  std::vector<double> sittings_us{};  // the median of each sitting; empty where there was one
  std::vector<SampleState> states{};  // of the card at each sample; empty where it says nothing
  double median_us = 0, mad_us = 0;
  bool stopped_early = false;  // clearly slower than the best known
  // Of the card while the samples were taken: the middle clock, the highest temperature, all that held the clock down;
  // 0 and "": not known. A slow-down that passes was waited for first.
  int clock_mhz = 0, temperature_c = 0;
  std::string throttle;
};

// One timing of several sittings: all their samples, and as the median the mean of theirs. Each sitting's is off by
// what its places in memory do, so their mean is nearer to the truth than the median of all samples.
Timing join(std::vector<Timing> sittings);

// stats.h's comparison of two timings of one race: by their sittings where these are enough for the test, for the
// samples of one sitting are not independent of each other; else by the samples.
Comparison compare(const Timing& challenger, const Timing& incumbent);

struct Energy {
  std::vector<double> samples_uj;  // of a call, one a round
  double median_uj = 0, mad_uj = 0;
};

struct MeasureLimits {
  double best_us = 0;      // fastest candidate so far; 0 = none
  double expected_us = 0;  // from the verification launch; 0 = unknown
  // Samples stop when the 95 % interval of the median is within +-1 %, at kMaxSamples, or when they add up to the cap:
  // 30 ms, or eight samples of slower kernels.
  static constexpr int kFirstSamples = 3, kMinSamples = 6, kMaxSamples = 20;
  static constexpr double kCapUs = 30e3, kNarrow = 0.01;
  // Wall time, flushes included, after which the fewest samples or rounds are enough: a host that is busy with other
  // work may take a second for one launch.
  static constexpr double kWallSeconds = 1.5;
  static constexpr int kMinRounds = 9;  // in_turns: the signed-rank test cannot reach p < 0.01 below 7
  // After kFirstSamples a candidate whose fastest sample is above kHopeless times the best (plus the timer's step) is
  // given up: samples scatter upwards, so the fastest one is the fairest to it. Where the verification launch was above
  // that already, one sample is enough.
  static constexpr double kHopeless = 1.5, kTimerUs = 1.0;
  // Samples taken while heat or a power brake held the clock down are taken again after a pause, so many times.
  static constexpr int kCoolDowns = 3;
  static constexpr double kCoolDownSeconds = 2;
  // Energy counters step every 10 to 100 ms: a sample lasts from one step to another this much device time later, after
  // a lead in which the card reaches its power. It runs in batches, between which the counter is read, so a batch is
  // how well a step is hit. A counter that does not step for so long stands still.
  static constexpr double kEnergyUs = 150e3, kEnergyLeadUs = 50e3, kEnergyBatchUs = 1e3, kEnergyStillUs = 2e6;
};

class Measurer {
 public:
  // Kernels that displace what the caches hold, from modules that outlive this.
  struct Displace {
    Function read_all = nullptr;  // of templates/check.h: data
    Function code = nullptr;      // of templates/displace.h; null where the instruction caches are left alone (host)
  };
  // Allocates the flush buffer at the first cold sample.
  Measurer(Device& device, Displace displace) : device_(device), displace_(displace) {}
  ~Measurer();
  Measurer(const Measurer&) = delete;
  Measurer& operator=(const Measurer&) = delete;

  // The card is asked for its state while samples are taken. Must outlive this; null: nothing is asked.
  void watch(Telemetry* telemetry) { telemetry_ = telemetry; }

  // Enqueues one run of the candidate on buffer set `set` (0 unless graph).
  using Launch = std::function<Result<void>(int set, Stream)>;

  Result<Timing> measure(TimingMode, const Launch&, int sets, const MeasureLimits&);
  // The same number of samples from each, in turns (A B C, C B A, B C A …), so that drift of clocks and heat meets all
  // alike, and all of a round by the same marks.
  // `rounds` of them, fewer (kMinRounds at least) when they take long.
  Result<std::vector<Timing>> in_turns(TimingMode, const std::vector<Launch>&, int sets, int rounds);
  // Energy of a call of each, in turns: calls back to back, as in a graph replay. The rotating sets of graph timing
  // serve cold timing too, or the flush would cost more than the kernel. kDevice where the counter does not count.
  Result<std::vector<Energy>> energy_in_turns(TimingMode, const std::vector<Launch>&, int sets, int rounds);
  // Displaces what the last-level cache and the instruction caches hold.
  Result<void> flush();
  // Bytes a second of reading a buffer that no cache holds.
  Result<double> bandwidth();
  std::int64_t flush_bytes() const;

 private:
  struct Marks {
    Event from = nullptr, to = nullptr;
  };
  static int graph_launches(int sets);
  Result<Graph> capture(const Launch&, int sets);
  // `count` samples enqueued together, then read.
  Result<void> sample(TimingMode, const Launch&, Graph, int sets, int count, Timing& out);
  // Of one call where `run` makes `calls` of them.
  Result<double> energy_of_call(const std::function<Result<void>()>& run, double calls);

  Result<void> displace_data();

  Device& device_;
  const Displace displace_;
  // True after a pause: the card was slowed down while the last samples were taken, so they do not count.
  bool pause();
  void note_throttle(Timing&) const;

  Telemetry* telemetry_ = nullptr;
  DeviceState state_;  // as last read, by sample()
  double looked_ = 0;
  int pauses_ = 0;  // of the present candidate or race
  DevicePtr flush_buffer_ = nullptr;
  // Where the driver keeps a pair of events changes what they read by up to 1.1 us, in a pattern of four (H100): the
  // samples of a candidate go through the pairs in turn, so that all candidates meet all; those of a round share one.
  static constexpr std::size_t kMarks = 64;
  static_assert(kMarks > MeasureLimits::kMaxSamples);
  std::vector<Marks> marks_;
  std::size_t next_mark_ = 0;
};

}  // namespace kgen
