#include "tuner/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include "base/text.h"
#include "tuner/stats.h"

namespace kgen {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr double kLookSeconds = 0.02;  // a look costs up to 0.3 ms
constexpr int kGraphLaunches = 16;     // at least; more when more buffer sets rotate

}  // namespace

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
    return std::clamp(2 * device_.info().l2_bytes, 8 * kMiB, 32 * kMiB) / kMiB * kMiB;
  return std::max((2 * device_.info().l2_bytes + kMiB - 1) / kMiB * kMiB, 256 * kMiB);
}

Result<void> Measurer::flush() {
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
  return device_.launch(read_all_, shape, params, nullptr);
}

Result<Graph> Measurer::capture(const Launch& launch, int sets) {
  const int launches = std::max(sets, kGraphLaunches / sets * sets);
  return device_.capture([&](Stream stream) -> Result<void> {
    for (int i = 0; i < launches; ++i) KGEN_CHECK_OK(launch(i % sets, stream));
    return {};
  });
}

Result<void> Measurer::sample(TimingMode mode, const Launch& launch, Graph graph, int sets, int count,
                              std::vector<double>& out) {
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
  const double launches = mode == TimingMode::kGraph ? std::max(sets, kGraphLaunches / sets * sets) : 1;
  for (int i = 0; i < count; ++i) {
    const Marks& mark = marks_[(first + static_cast<std::size_t>(i)) % kMarks];
    KGEN_TRY(const double us, device_.elapsed_us(mark.from, mark.to));
    out.push_back(us / launches);
  }
  return {};
}

void Measurer::sum_up(Timing& timing) const {
  timing.median_us = median(timing.samples_us);
  timing.mad_us = median_deviation(timing.samples_us);
  timing.clock_mhz = state_.clock_mhz.value_or(0);
  timing.temperature_c = state_.temperature_c.value_or(0);
  timing.throttle = state_.throttle;
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
  std::vector<double>& samples = timing.samples_us;
  pauses_ = 0;
  for (;;) {
    const std::size_t before = samples.size();
    KGEN_CHECK_OK(sample(mode, launch, graph, sets, batch, samples));
    if (pause()) {
      samples.resize(before);
      start = now_seconds();
      continue;
    }
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
    if (narrow || taken >= L::kMaxSamples || (taken >= L::kFirstSamples && spent_us >= cap)) {
      if (!limits.idle || taken >= L::kIdleSamples || spent_us >= L::kIdleUs || !limits.idle()) break;
      batch = fastest > 2e3 ? 1 : 4;
      continue;
    }
    // Short kernels in threes and fours, so that waiting for the device is paid less often; long ones one by one.
    batch = fastest > 2e3 ? 1 : std::min(L::kMaxSamples - taken, taken < L::kMinSamples ? L::kMinSamples - taken : 4);
  }
  sum_up(timing);
  return timing;
}

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
    // Else each of an even number would meet the same few marks in every round.
    if (launches.size() % 2 == 0) ++next_mark_;
    if (round >= MeasureLimits::kMinRounds && now_seconds() - start > MeasureLimits::kWallSeconds) break;
    for (std::size_t k = 0; k < launches.size(); ++k) {
      // Warm means warm for this kernel: the one before it in the round has displaced its data.
      if (mode == TimingMode::kWarm) KGEN_CHECK_OK(launches[k](0, nullptr));
      KGEN_CHECK_OK(sample(mode, launches[k], graphs[k], sets, 1, timings[k].samples_us));
    }
    if (pause()) {  // the round as a whole, or its candidates would not be alike
      for (Timing& timing : timings) timing.samples_us.pop_back();
      start = now_seconds();
      --round;
    }
  }
  for (Timing& timing : timings) sum_up(timing);
  return timings;
}

Result<double> Measurer::bandwidth() {
  std::vector<double> read_us;
  for (int i = 0; i < 6; ++i) {
    if (marks_.empty()) marks_.resize(kMarks);
    KGEN_CHECK_OK(flush());
    KGEN_CHECK_OK(device_.record(marks_[0].from, nullptr));
    KGEN_CHECK_OK(flush());
    KGEN_CHECK_OK(device_.record(marks_[0].to, nullptr));
    KGEN_TRY(const double us, device_.elapsed_us(marks_[0].from, marks_[0].to));
    read_us.push_back(us);
  }
  const double best = *std::min_element(read_us.begin(), read_us.end());
  return best > 0 ? static_cast<double>(flush_bytes()) / (best * 1e-6) : 0;
}

}  // namespace kgen
