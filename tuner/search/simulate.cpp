#include "tuner/search/simulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/arch.h"
#include "tuner/search/winners.h"

namespace kgen {
namespace {

struct Replay {
  SearchSpace space;
  std::vector<double> times_us;
  double optimum_us = kFailed;
  struct Mark {
    double fraction = 0;
    std::optional<double> loss;  // predicted
  };
  std::vector<std::vector<Mark>> marks;  // by repeat
  double strategy_seconds = 0;
  std::size_t proposals = 0, failures = 0;
};

// The same measurements: half of the common configurations have the same time.
bool same_measurements(const RecordedSpace& a, const RecordedSpace& b) {
  const auto key = [](const Config& config) {
    Config sorted = config;
    std::sort(sorted.begin(), sorted.end());
    std::string text;
    for (const auto& [name, value] : sorted) text += name + "=" + value + " ";
    return text;
  };
  std::unordered_map<std::string, double> times;
  for (std::size_t i = 0; i < a.configs.size(); ++i) times.emplace(key(a.configs[i]), a.times_us[i]);
  std::size_t common = 0, same = 0;
  for (std::size_t i = 0; i < b.configs.size(); ++i) {
    const auto at = times.find(key(b.configs[i]));
    if (at == times.end() || at->second == kFailed || b.times_us[i] == kFailed) continue;
    ++common;
    same += std::abs(at->second - b.times_us[i]) <= 1e-6 * b.times_us[i];
  }
  return common > 0 && 2 * same >= common;
}

std::vector<std::size_t> marks_of(std::size_t budget) {
  std::vector<std::size_t> marks;
  for (const std::size_t mark : {25, 50, 100, 200, 400})
    if (mark < budget) marks.push_back(mark);
  marks.push_back(budget);
  return marks;
}

// Fractions at the marks. A strategy that has seen everything keeps its last value.
std::vector<Replay::Mark> run(Replay& replay, const SimulateRequest& request, std::size_t repeat, std::mutex& mutex) {
  using Clock = std::chrono::steady_clock;
  std::vector<Replay::Mark> reached;
  const std::vector<std::size_t> marks = marks_of(request.budget);
  double best = kFailed;
  std::size_t done = 0, failures = 0;
  const auto start = Clock::now();
  Clock::duration asked{};  // for its opinion: no part of a proposal
  const auto strategy =
      make_strategy(request.strategy, replay.space, request.seed * 1'000'003 + repeat, request.budget).value();
  const auto reach = [&] {
    const auto before = Clock::now();
    reached.push_back({replay.optimum_us / best, strategy->expected_loss()});
    asked += Clock::now() - before;
  };
  for (; done < request.budget; ++done) {
    const auto index = strategy->propose();
    if (!index) break;
    strategy->report(*index, replay.times_us[*index]);
    best = std::min(best, replay.times_us[*index]);
    failures += replay.times_us[*index] == kFailed;
    if (done + 1 == marks[reached.size()]) reach();
  }
  while (reached.size() < marks.size()) reach();
  const std::lock_guard lock(mutex);
  replay.strategy_seconds += std::chrono::duration<double>(Clock::now() - start - asked).count();
  replay.proposals += done;
  replay.failures += failures;
  return reached;
}

// What may be known of other shapes of the same operator; nothing for what kgen did not write.
Result<std::vector<Winner>> winners_elsewhere(const Recording& recording, const SimulateRequest& request) {
  const auto same_shape = [&](const std::string& op, const std::string& dims_key) {
    return op == recording.op.op && dims_key == recording.problem.dims_key;
  };
  if (request.shipped_prior && find_arch(recording.device.arch)) {
    KGEN_TRY(std::vector<Winner> winners, winners_of(recording.op.op, ""));
    std::erase_if(winners, [&](const Winner& winner) { return same_shape(winner.op, winner.dims_key); });
    return winners;
  }
  std::vector<Recording> others;
  for (const Recording& other : request.prior)
    if (other.op.op == recording.op.op && !same_shape(other.op.op, other.problem.dims_key)) others.push_back(other);
  return learn_winners(others);
}

}  // namespace

Result<std::vector<Simulation>> simulate(const std::vector<Recording>& recordings,
                                         const std::vector<Recording>& sources, const SimulateRequest& request) {
  KGEN_CHECK_OK(make_strategy(request.strategy, SearchSpace{}, 0, 0).map([](auto&&) {}));
  std::vector<RecordedSpace> others;
  for (const Recording& source : sources) others.push_back(recorded_space(source));

  std::vector<Replay> replays;
  std::vector<Simulation> results;
  for (const Recording& recording : recordings) {
    const RecordedSpace recorded = recorded_space(recording);
    Replay& replay = replays.emplace_back();
    Simulation& result = results.emplace_back();
    replay.space = make_search_space(recorded.configs);
    replay.times_us = recorded.times_us;
    result.space = recording.name();
    result.points = replay.times_us.size();
    for (const double time : replay.times_us) {
      replay.optimum_us = std::min(replay.optimum_us, time);
      result.failed += time == kFailed;
    }
    result.optimum_us = replay.optimum_us;
    if (replay.optimum_us == kFailed)
      return fail(ErrorKind::kBadInput,
                  fmt::format("{}: no configuration succeeded; nothing to search for", result.space));
    std::vector<Elsewhere> elsewheres;
    for (const RecordedSpace& other : others)
      if (!same_measurements(recorded, other)) elsewheres.push_back(elsewhere(other));
    result.sources = warm_start(replay.space, elsewheres);
    for (const TrialRecord& trial : recording.trials)
      if (trial.is_default && replay.space.seeds.empty())
        for (std::size_t i = 0; i < recorded.configs.size(); ++i)
          if (recorded.configs[i] == parse_config(trial.config)) replay.space.seeds.push_back(i);
    KGEN_TRY(const std::vector<Winner> winners, winners_elsewhere(recording, request));
    if (!winners.empty() && find_arch(recording.device.arch)) {
      const auto first = rank_winners(replay.space, winners, recording.op.signature, recording.problem.dims_key,
                                      std::string(find_arch(recording.device.arch).value()->family), kPriorPoints);
      result.prior = first.size();
      replay.space.seeds.insert(replay.space.seeds.end(), first.begin(), first.end());
    }
    replay.marks.resize(request.repeats);
  }

  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  const auto work = [&] {
    for (std::size_t job; (job = next++) < replays.size() * request.repeats;) {
      Replay& replay = replays[job / request.repeats];
      const std::size_t repeat = job % request.repeats;
      replay.marks[repeat] = run(replay, request, repeat, mutex);
    }
  };
  std::vector<std::thread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::thread& thread : threads) thread = std::thread(work);
  for (std::thread& thread : threads) thread.join();

  const std::vector<std::size_t> marks = marks_of(request.budget);
  const auto repeats = static_cast<double>(request.repeats);
  for (std::size_t r = 0; r < replays.size(); ++r) {
    results[r].failures = static_cast<double>(replays[r].failures) / repeats;
    results[r].proposal_us = replays[r].strategy_seconds * 1e6 / static_cast<double>(replays[r].proposals);
    for (std::size_t m = 0; m < marks.size(); ++m) {
      Fraction& fraction = results[r].fractions[marks[m]];
      fraction.worst = 1;
      double squares = 0;
      double losses = 0;
      bool predicted = true;
      for (const auto& reached : replays[r].marks) {
        const auto& [value, loss] = reached[m];
        fraction.mean += value / repeats;
        fraction.worst = std::min(fraction.worst, value);
        fraction.within += (value >= 1 / (1 + kWithin)) / repeats;
        predicted = predicted && loss;
        losses += loss.value_or(0) / repeats;
        fraction.loss_miss += std::abs(loss.value_or(0) - (1 - value)) / repeats;
      }
      if (predicted) fraction.expected_loss = losses;
      for (const auto& reached : replays[r].marks)
        squares += (reached[m].fraction - fraction.mean) * (reached[m].fraction - fraction.mean);
      fraction.deviation = std::sqrt(squares / repeats);
    }
  }
  return results;
}

}  // namespace kgen
