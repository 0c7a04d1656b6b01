#include "tuner/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include "base/text.h"
#include "generator/emit.h"
#include "tuner/stats.h"

namespace kgen {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // kernels of the host too: a flush of 32 MiB takes 15 ms, and no time is believed
#else
constexpr bool kSanitized = false;
#endif

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void sum_up(Timing& timing) {
  timing.median_us = median(timing.samples_us);
  timing.mad_us = median_deviation(timing.samples_us);
  std::vector<double> clocks;
  for (const SampleState& state : timing.states) {
    if (state.clock_mhz > 0) clocks.push_back(state.clock_mhz);
    timing.temperature_c = std::max(timing.temperature_c, state.temperature_c);
  }
  timing.clock_mhz = static_cast<int>(median(clocks));
}

constexpr double kLookSeconds = 0.02;  // a look costs up to 0.3 ms
constexpr int kGraphLaunches = 16;     // at least; more when more buffer sets rotate

}  // namespace

Timing join(std::vector<Timing> sittings) {
  if (sittings.size() == 1) return std::move(sittings.front());
  Timing all;
  double medians = 0;
  for (const Timing& sitting : sittings) {
    medians += sitting.median_us;
    all.sittings_us.push_back(sitting.median_us);
    all.samples_us.insert(all.samples_us.end(), sitting.samples_us.begin(), sitting.samples_us.end());
    all.states.insert(all.states.end(), sitting.states.begin(), sitting.states.end());
    if (all.throttle.find(sitting.throttle) == std::string::npos)
      all.throttle += (all.throttle.empty() ? "" : ", ") + sitting.throttle;
  }
  sum_up(all);
  all.median_us = medians / static_cast<double>(std::max<std::size_t>(sittings.size(), 1));
  return all;
}

Comparison compare(const Timing& challenger, const Timing& incumbent) {
  const std::size_t common = std::min(challenger.sittings_us.size(), incumbent.sittings_us.size());
  if (common < static_cast<std::size_t>(MeasureLimits::kMinRounds))
    return compare(challenger.samples_us, incumbent.samples_us);
  Comparison result = compare(challenger.sittings_us, incumbent.sittings_us);
  // Each is a median already, and few different values: where samples have two heights (conv3x3, H100) the median of
  // the ratios jumps from 0 to 2.7 % for kernels that are 1 % apart. Their means do not.
  const auto sum = [&](const std::vector<double>& sittings) {
    return std::accumulate(sittings.begin(), sittings.begin() + static_cast<std::ptrdiff_t>(common), 0.0);
  };
  result.gain = 1 - sum(challenger.sittings_us) / sum(incumbent.sittings_us);
  result.replaces = result.gain >= kLeastGain && result.probability < kSignificance;
  return result;
}

Result<TimingMode> find_timing(const std::string& name) {
  static const std::vector<std::string> names{"cold", "warm", "graph"};
  for (std::size_t i = 0; i < names.size(); ++i)
    if (name == names[i]) return static_cast<TimingMode>(i);
  return fail(ErrorKind::kBadInput,
              fmt::format("unknown timing '{}'{}; there are cold, warm, graph", name, did_you_mean(name, names)));
}

Measurer::~Measurer() {
  if (flush_buffer_ != nullptr) device_.release(flush_buffer_);
}

std::int64_t Measurer::flush_bytes() const {
  // A virtual machine reports the whole socket's last-level cache (300 MiB seen) and owns a slice of it; reading twice
  // that for each sample would take longer than the kernels do.
  if (device_.info().arch->vendor == Vendor::kHost)
    return kSanitized ? kMiB : std::clamp(2 * device_.info().l2_bytes, 8 * kMiB, 32 * kMiB) / kMiB * kMiB;
  return std::max((2 * device_.info().l2_bytes + kMiB - 1) / kMiB * kMiB, 256 * kMiB);
}

Result<void> Measurer::displace_data() {
  if (flush_buffer_ == nullptr) {
    KGEN_TRY(flush_buffer_, device_.allocate(static_cast<std::size_t>(flush_bytes() + 256)));
    KGEN_CHECK_OK(device_.fill(flush_buffer_, 0, static_cast<std::size_t>(flush_bytes() + 256), nullptr));
  }
  void* data = flush_buffer_;
  std::int64_t count = flush_bytes() / 8;
  void* sink = static_cast<char*>(flush_buffer_) + flush_bytes();
  void* params[] = {&data, &count, &sink};
  LaunchShape shape;
  const bool host = device_.info().arch->vendor == Vendor::kHost;
  shape.grid[0] = static_cast<std::uint32_t>(std::max(1, device_.info().compute_units * (host ? 1 : 8)));
  shape.block = host ? 1 : 256;
  return device_.launch(displace_.read_all, shape, params, nullptr);
}

Result<void> Measurer::flush() {
  KGEN_CHECK_OK(displace_data());
  if (displace_.code == nullptr) return {};
  // Two blocks a compute unit, as many as it holds at once: where one comes to lie elsewhere, the other is there.
  void* sink = static_cast<char*>(flush_buffer_) + flush_bytes();
  void* params[] = {&sink};
  const LaunchShape shape{.grid = {static_cast<std::uint32_t>(2 * std::max(1, device_.info().compute_units)), 1, 1},
                          .block = kDisplaceBlock};
  return device_.launch(displace_.code, shape, params, nullptr);
}

int Measurer::graph_launches(int sets) { return std::max(sets, kGraphLaunches / sets * sets); }

Result<Graph> Measurer::capture(const Launch& launch, int sets) {
  const int launches = graph_launches(sets);
  return device_.capture([&](Stream stream) -> Result<void> {
    for (int i = 0; i < launches; ++i) KGEN_CHECK_OK(launch(i % sets, stream));
    return {};
  });
}

Result<void> Measurer::sample(TimingMode mode, const Launch& launch, Graph graph, int sets, int count, Timing& out) {
  if (marks_.size() < kMarks) marks_.resize(kMarks);
  const std::size_t first = next_mark_;
  next_mark_ += static_cast<std::size_t>(count);
  // All is enqueued before anything is read: record, launch, record queue up behind the flush, so the time between the
  // two marks holds no launch overhead of the CPU.
  for (int i = 0; i < count; ++i) {
    Marks& mark = marks_[(first + static_cast<std::size_t>(i)) % kMarks];
    if (mode == TimingMode::kCold) KGEN_CHECK_OK(flush());
    KGEN_CHECK_OK(device_.record(mark.from, nullptr));
    if (mode == TimingMode::kGraph) {
      KGEN_CHECK_OK(device_.replay(graph, nullptr));
    } else {
      KGEN_CHECK_OK(launch(0, nullptr));
    }
    KGEN_CHECK_OK(device_.record(mark.to, nullptr));
  }
  // While the device works: an idle card tells another clock.
  if (telemetry_ != nullptr && now_seconds() - looked_ > kLookSeconds) {
    state_ = telemetry_->read();
    looked_ = now_seconds();
  }
  const double launches = mode == TimingMode::kGraph ? graph_launches(sets) : 1;
  for (int i = 0; i < count; ++i) {
    const Marks& mark = marks_[(first + static_cast<std::size_t>(i)) % kMarks];
    KGEN_TRY(const double us, device_.elapsed_us(mark.from, mark.to));
    out.samples_us.push_back(us / launches);
    if (telemetry_ != nullptr)
      out.states.push_back({.clock_mhz = state_.clock_mhz.value_or(0),
                            .temperature_c = state_.temperature_c.value_or(0),
                            .throttled = !state_.throttle.empty()});
  }
  return {};
}

void Measurer::note_throttle(Timing& timing) const {
  std::vector<std::string> words = split(timing.throttle, ',');
  for (const std::string& part : split(state_.throttle, ',')) {
    const std::string word(trim(part));
    const bool known = std::any_of(words.begin(), words.end(), [&](const auto& w) { return trim(w) == word; });
    if (word.empty() || known) continue;
    timing.throttle += (timing.throttle.empty() ? "" : ", ") + word;
    words.push_back(word);
  }
}

bool Measurer::pause() {
  if (!state_.passing || pauses_ == MeasureLimits::kCoolDowns) return false;
  ++pauses_;
  looked_ = 0;
  std::this_thread::sleep_for(std::chrono::duration<double>(MeasureLimits::kCoolDownSeconds));
  return true;
}

Result<Timing> Measurer::measure(TimingMode mode, const Launch& launch, int sets, const MeasureLimits& limits) {
  using L = MeasureLimits;
  Timing timing;
  Graph graph = nullptr;
  if (mode == TimingMode::kGraph) {
    KGEN_TRY(graph, capture(launch, sets));
    KGEN_CHECK_OK(device_.replay(graph, nullptr));  // the first replay uploads the graph
  } else if (mode == TimingMode::kWarm) {
    KGEN_CHECK_OK(launch(0, nullptr));
  }
  const auto hopeless = [&](double us) {
    return limits.best_us > 0 && us > L::kHopeless * limits.best_us + L::kTimerUs;
  };
  const bool far_off = hopeless(limits.expected_us);
  int batch = far_off ? 1 : L::kFirstSamples;
  double spent_us = 0;
  double start = now_seconds();
  const std::vector<double>& samples = timing.samples_us;
  pauses_ = 0;
  for (;;) {
    const std::size_t before = samples.size();
    KGEN_CHECK_OK(sample(mode, launch, graph, sets, batch, timing));
    if (pause()) {
      timing.samples_us.resize(before);
      timing.states.resize(std::min(before, timing.states.size()));
      start = now_seconds();
      continue;
    }
    note_throttle(timing);
    spent_us = std::accumulate(samples.begin() + static_cast<std::ptrdiff_t>(before), samples.end(), spent_us);
    const int taken = static_cast<int>(samples.size());
    const double fastest = *std::min_element(samples.begin(), samples.end());
    if (before == 0 && hopeless(fastest)) {
      timing.stopped_early = true;
      break;
    }
    if (far_off && taken < L::kFirstSamples) {  // the verification launch was the outlier
      batch = L::kFirstSamples - taken;
      continue;
    }
    if (taken >= L::kMinSamples && now_seconds() - start > L::kWallSeconds) break;
    const MedianInterval interval = median_interval(samples);
    const bool narrow =
        taken >= L::kMinSamples && interval.known && interval.high - interval.low <= 2 * L::kNarrow * median(samples);
    const double cap = std::max(L::kCapUs, 8 * fastest);
    if (narrow || taken >= L::kMaxSamples || (taken >= L::kFirstSamples && spent_us >= cap)) break;
    // Short kernels in threes and fours, so that waiting for the device is paid less often; long ones one by one.
    batch = fastest > 2e3 ? 1 : std::min(L::kMaxSamples - taken, taken < L::kMinSamples ? L::kMinSamples - taken : 4);
  }
  sum_up(timing);
  if (!(timing.median_us > 0))  // it would win whatever it is
    return fail(ErrorKind::kDevice, fmt::format("{}: the device's clock stands still", device_.info().id));
  return timing;
}

namespace {
// Every second round is the one before it backwards, then the next begins one further on: nobody is always the first,
// or always behind the same neighbour.
std::size_t whose_turn(std::size_t count, int round, std::size_t turn) {
  const std::size_t place = round % 2 == 0 ? turn : count - 1 - turn;
  return (place + static_cast<std::size_t>(round / 2)) % count;
}
}  // namespace

Result<std::vector<Timing>> Measurer::in_turns(TimingMode mode, const std::vector<Launch>& launches, int sets,
                                               int rounds) {
  std::vector<Timing> timings(launches.size());
  std::vector<Graph> graphs(launches.size(), nullptr);
  for (std::size_t k = 0; k < launches.size(); ++k) {
    if (mode == TimingMode::kGraph) {
      KGEN_TRY(graphs[k], capture(launches[k], sets));
      KGEN_CHECK_OK(device_.replay(graphs[k], nullptr));
    } else {
      KGEN_CHECK_OK(launches[k](0, nullptr));
    }
  }
  double start = now_seconds();
  pauses_ = 0;
  for (int round = 0; round < rounds; ++round) {
    if (round >= MeasureLimits::kMinRounds && now_seconds() - start > MeasureLimits::kWallSeconds) break;
    const std::size_t mark = next_mark_;  // one pair for all of a round: what it adds, it adds to each
    for (std::size_t turn = 0; turn < launches.size(); ++turn) {
      const std::size_t k = whose_turn(launches.size(), round, turn);
      next_mark_ = mark;
      // Warm means warm for this kernel: the one before it in the round has displaced its data.
      if (mode == TimingMode::kWarm) KGEN_CHECK_OK(launches[k](0, nullptr));
      KGEN_CHECK_OK(sample(mode, launches[k], graphs[k], sets, 1, timings[k]));
    }
    if (pause()) {  // the round as a whole, or its candidates would not be alike
      for (Timing& timing : timings) {
        timing.samples_us.pop_back();
        if (!timing.states.empty()) timing.states.pop_back();
      }
      start = now_seconds();
      --round;
    } else {
      for (Timing& timing : timings) note_throttle(timing);
    }
  }
  for (Timing& timing : timings) {
    sum_up(timing);
    if (!(timing.median_us > 0))
      return fail(ErrorKind::kDevice, fmt::format("{}: the device's clock stands still", device_.info().id));
  }
  return timings;
}

Result<double> Measurer::energy_of_call(const std::function<Result<void>()>& run, double calls) {
  using L = MeasureLimits;
  if (marks_.size() < kMarks) marks_.resize(kMarks);
  int runs = 1;  // of a batch
  const auto enqueue = [&](std::int64_t batch) -> Result<void> {
    Marks& mark = marks_[static_cast<std::size_t>(batch % 2)];
    KGEN_CHECK_OK(device_.record(mark.from, nullptr));
    for (int i = 0; i < runs; ++i) KGEN_CHECK_OK(run());
    return device_.record(mark.to, nullptr);
  };
  const auto wait = [&](std::int64_t batch) {
    const Marks& mark = marks_[static_cast<std::size_t>(batch % 2)];
    return device_.elapsed_us(mark.from, mark.to);
  };
  KGEN_CHECK_OK(enqueue(0));
  KGEN_TRY(const double run_us, wait(0));
  runs = static_cast<int>(std::clamp(L::kEnergyBatchUs / std::max(run_us, 1e-3), 1.0, 1e4));

  struct Step {
    double us;
    std::int64_t energy_uj, runs;
  };
  std::optional<Step> begin;
  std::optional<std::int64_t> before;
  double us = 0, stepped_us = 0;
  std::int64_t done = 0;
  // The next batch waits in the queue while the counter is read, so the card never idles.
  KGEN_CHECK_OK(enqueue(0));
  for (std::int64_t batch = 0;; ++batch) {
    KGEN_CHECK_OK(enqueue(batch + 1));
    KGEN_TRY(const double batch_us, wait(batch));
    us += batch_us;
    done += runs;
    state_ = telemetry_->read();
    looked_ = now_seconds();
    const std::optional<std::int64_t> energy = state_.energy_uj;
    const bool stepped = energy && before && *energy != *before;
    if (energy) before = energy;
    if (stepped) stepped_us = us;
    const bool enough = begin && stepped && us - begin->us >= L::kEnergyUs;
    if (enough || us - stepped_us > L::kEnergyStillUs) {
      KGEN_CHECK_OK(wait(batch + 1));
      if (enough)
        return static_cast<double>(*energy - begin->energy_uj) / (static_cast<double>(done - begin->runs) * calls);
      return fail(ErrorKind::kDevice, fmt::format("{}: the energy counter stands still", device_.info().id));
    }
    if (stepped && !begin && us >= L::kEnergyLeadUs) begin = Step{us, *energy, done};
  }
}

Result<std::vector<Energy>> Measurer::energy_in_turns(TimingMode mode, const std::vector<Launch>& launches, int sets,
                                                      int rounds) {
  if (telemetry_ == nullptr) return fail(ErrorKind::kDevice, fmt::format("{}: no energy counter", device_.info().id));
  std::vector<Energy> energies(launches.size());
  std::vector<std::function<Result<void>()>> runs;
  std::vector<double> calls;  // of a run
  const int used = mode == TimingMode::kWarm ? 1 : sets;
  for (const Launch& launch : launches) {
    if (marks_.size() < kMarks) marks_.resize(kMarks);
    KGEN_CHECK_OK(launch(0, nullptr));
    KGEN_CHECK_OK(device_.record(marks_[0].from, nullptr));
    KGEN_CHECK_OK(launch(0, nullptr));
    KGEN_CHECK_OK(device_.record(marks_[0].to, nullptr));
    KGEN_TRY(const double us, device_.elapsed_us(marks_[0].from, marks_[0].to));
    if (us > MeasureLimits::kEnergyBatchUs) {  // gaps between launches do not show
      runs.emplace_back([&launch, used, set = 0]() mutable { return launch(set++ % used, nullptr); });
      calls.push_back(1);
      continue;
    }
    KGEN_TRY(const Graph graph, capture(launch, used));
    runs.emplace_back([this, graph] { return device_.replay(graph, nullptr); });
    calls.push_back(graph_launches(used));
    KGEN_CHECK_OK(runs.back()());
  }
  pauses_ = 0;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t k = 0; k < launches.size(); ++k) {
      KGEN_TRY(const double uj, energy_of_call(runs[k], calls[k]));
      energies[k].samples_uj.push_back(uj);
    }
    if (!pause()) continue;
    for (Energy& energy : energies) energy.samples_uj.pop_back();
    --round;
  }
  for (Energy& energy : energies) {
    energy.median_uj = median(energy.samples_uj);
    energy.mad_uj = median_deviation(energy.samples_uj);
  }
  return energies;
}

Result<double> Measurer::bandwidth() {
  std::vector<double> read_us;
  for (int i = 0; i < 6; ++i) {
    if (marks_.empty()) marks_.resize(kMarks);
    KGEN_CHECK_OK(displace_data());
    KGEN_CHECK_OK(device_.record(marks_[0].from, nullptr));
    KGEN_CHECK_OK(displace_data());
    KGEN_CHECK_OK(device_.record(marks_[0].to, nullptr));
    KGEN_TRY(const double us, device_.elapsed_us(marks_[0].from, marks_[0].to));
    read_us.push_back(us);
  }
  const double best = *std::min_element(read_us.begin(), read_us.end());
  return best > 0 ? static_cast<double>(flush_bytes()) / (best * 1e-6) : 0;
}

}  // namespace kgen
