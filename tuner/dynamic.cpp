#include "tuner/dynamic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include "base/text.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "tuner/problem.h"
#include "tuner/search/strategy.h"

namespace kgen {
namespace {

constexpr std::int64_t kDense = 64;   // four sizes an octave from here on, two before
constexpr std::size_t kSearched = 3;  // every so manieth size is searched, the others try what was found there
constexpr double kContender = 1.10;   // of the best at a searched size: tried at every size
constexpr std::size_t kContendersOfSize = 6;
constexpr std::size_t kContenders = 32;
constexpr double kNeighbour = 1.3;  // of the best beside a size that is added: tried there
constexpr int kRefinements = 5;
constexpr std::size_t kMostSizes = 160;
constexpr double kJump = 1.05;            // beyond growth with the size: such a step is searched behind
constexpr double kBehind = 1.15;          // … unless so close behind it was searched already
constexpr int kJumpRounds = 3;            // of kRefinements
constexpr std::size_t kJumpSearches = 5;  // in a round
constexpr double kReach = 1.5;            // sizes so much smaller or larger try what such a search found
constexpr double kUnsure = 0.05;          // predicted regret at a size beside which others are measured
constexpr double kEdge = 0.04;   // neighbours that are farther apart, relative, may have such a tile between them
constexpr double kStay = 1.005;  // a neighbouring span's kernel goes on where another gains less
constexpr std::int64_t kCellsOfOctave =
    256;  // sizes that a choice is made for; those between take the next larger one's

bool has_time(double us) { return std::isfinite(us); }

// What the kernels take at the measured sizes, and between them.
class Predictor {
 public:
  Predictor(const SizeTimes& times, const Work& work) : times_(times), work_(work) {}

  // kFailed where the kernel is not legal or was never timed. `without`: a size (by its place) that is not looked at.
  double us(std::size_t kernel, std::int64_t size, std::size_t without = SIZE_MAX) const {
    const std::vector<double>& measured = times_.us[kernel];
    std::size_t below = SIZE_MAX, above = SIZE_MAX;
    for (std::size_t i = 0; i < times_.sizes.size(); ++i) {
      if (i == without || std::isnan(measured[i])) continue;
      if (times_.sizes[i] == size) return measured[i];
      if (times_.sizes[i] < size) below = i;
      if (times_.sizes[i] > size && above == SIZE_MAX) above = i;
    }
    // Beside a size where it has failed it may fail as well.
    for (const std::size_t beside : {below, above})
      if (beside != SIZE_MAX && !has_time(measured[beside])) return kFailed;
    const auto here = work(kernel, size);
    if (!here || (below == SIZE_MAX && above == SIZE_MAX)) return kFailed;
    if (below == SIZE_MAX) return measured[above];
    const auto low = work(kernel, times_.sizes[below]);
    if (above == SIZE_MAX) return measured[below] * (low && *low > 0 ? std::max(1.0, *here / *low) : 1);
    const auto high = work(kernel, times_.sizes[above]);
    const double from = static_cast<double>(times_.sizes[below]), to = static_cast<double>(times_.sizes[above]);
    double share = (static_cast<double>(size) - from) / (to - from);
    if (low && high && *high > *low) share = std::clamp((*here - *low) / (*high - *low), 0.0, 1.0);
    return measured[below] + share * (measured[above] - measured[below]);
  }

 private:
  std::optional<double> work(std::size_t kernel, std::int64_t size) const {
    const auto [at, added] = known_.try_emplace({kernel, size});
    if (added) at->second = work_(kernel, size);
    return at->second;
  }

  const SizeTimes& times_;
  const Work& work_;
  mutable std::map<std::pair<std::size_t, std::int64_t>, std::optional<double>> known_;
};

std::vector<double> best_times(const SizeTimes& times) {
  std::vector<double> best(times.sizes.size(), kFailed);
  for (const std::vector<double>& row : times.us)
    for (std::size_t i = 0; i < best.size(); ++i)
      if (has_time(row[i])) best[i] = std::min(best[i], row[i]);
  return best;
}

// [kernel][size], infinite where there is no time; 0 where no kernel has one.
std::vector<std::vector<double>> regrets(const SizeTimes& times, const std::vector<double>& best) {
  std::vector<std::vector<double>> regret = times.us;
  for (std::vector<double>& row : regret)
    for (std::size_t i = 0; i < best.size(); ++i)
      row[i] = !has_time(best[i]) ? 0 : has_time(row[i]) ? row[i] / best[i] - 1 : kFailed;
  return regret;
}

struct Scored {
  double worst = 0, mean = 0;
};
Scored score(const std::vector<std::vector<double>>& regret, const std::vector<std::size_t>& kernels) {
  Scored scored;
  const std::size_t sizes = regret.front().size();
  for (std::size_t i = 0; i < sizes; ++i) {
    double least = kFailed;
    for (const std::size_t kernel : kernels) least = std::min(least, regret[kernel][i]);
    scored.worst = std::max(scored.worst, least);
    scored.mean += least / static_cast<double>(sizes);
  }
  return scored;
}

// A greedy set cover; empty where there is none.
std::vector<std::size_t> cover_within(const std::vector<std::vector<double>>& regret, double limit) {
  const std::size_t sizes = regret.front().size();
  std::vector<std::size_t> chosen;
  std::vector<bool> served(sizes, false);
  for (std::size_t left = sizes; left > 0;) {
    std::size_t best = 0, most = 0;
    double least = kFailed;
    for (std::size_t kernel = 0; kernel < regret.size(); ++kernel) {
      std::size_t count = 0;
      double sum = 0;
      for (std::size_t i = 0; i < sizes; ++i)
        if (!served[i] && regret[kernel][i] <= limit) ++count, sum += regret[kernel][i];
      if (count > most || (count == most && count > 0 && sum < least)) best = kernel, most = count, least = sum;
    }
    if (most == 0) return {};  // the limit is below what the best has: cannot be
    chosen.push_back(best);
    for (std::size_t i = 0; i < sizes; ++i)
      if (regret[best][i] <= limit) served[i] = true;
    left = static_cast<std::size_t>(std::count(served.begin(), served.end(), false));
  }
  for (std::size_t i = chosen.size(); i-- > 0;) {  // early ones may have become needless
    std::vector<std::size_t> fewer = chosen;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    if (!fewer.empty() && score(regret, fewer).worst <= limit) chosen = std::move(fewer);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

// Exchanges that lower the mean and keep the worst within the limit.
void improve(const std::vector<std::vector<double>>& regret, double limit, std::vector<std::size_t>& chosen) {
  double mean = score(regret, chosen).mean;
  for (bool better = true; better;) {
    better = false;
    for (std::size_t& kernel : chosen) {
      for (std::size_t other = 0; other < regret.size(); ++other) {
        const std::size_t before = kernel;
        kernel = other;
        const Scored now = score(regret, chosen);
        if (now.worst <= limit && now.mean < mean - 1e-9) {
          mean = now.mean;
          better = true;
        } else {
          kernel = before;
        }
      }
    }
  }
  std::sort(chosen.begin(), chosen.end());
}

// Sizes that a choice is made for: the ends of cells that are 1/256 of an octave wide at least, and those measured.
std::vector<std::int64_t> cells(const std::vector<std::int64_t>& sizes) {
  std::set<std::int64_t> points(sizes.begin(), sizes.end());
  const std::int64_t last = sizes.back();
  for (std::int64_t size = sizes.front(); size < last;) {
    points.insert(size);
    std::int64_t step = 1;
    while (step * 2 * kCellsOfOctave <= size) step *= 2;
    size = (size / step + 1) * step;
  }
  return {points.begin(), points.end()};
}

}  // namespace

std::vector<std::int64_t> sizes_to_measure(std::int64_t first, std::int64_t last) {
  std::set<std::int64_t> sizes{first, last};
  const auto add = [&](double size) {
    if (const auto whole = static_cast<std::int64_t>(std::llround(size)); whole > first && whole < last)
      sizes.insert(whole);
  };
  for (double octave = 1; octave <= static_cast<double>(last); octave *= 2) {
    add(octave);
    if (octave >= 2) add(1.5 * octave);
    // Tiles are powers of two as a rule: these fill the last one in part.
    if (octave >= kDense) add(std::exp2(0.25) * octave), add(std::exp2(0.75) * octave);
  }
  return {sizes.begin(), sizes.end()};
}

Cover choose_cover(const SizeTimes& times, const Work& work, std::size_t most, double limit) {
  Cover cover;
  const std::vector<double> best = best_times(times);
  if (std::none_of(best.begin(), best.end(), has_time)) return cover;
  const auto regret = regrets(times, best);
  cover.kernels = cover_within(regret, limit);
  if (cover.kernels.size() > most || cover.kernels.empty()) {
    std::vector<double> limits;  // the worst regret is one that was measured
    for (const auto& row : regret)
      for (const double value : row)
        if (value > limit && has_time(value)) limits.push_back(value);
    std::sort(limits.begin(), limits.end());
    std::size_t low = 0, high = limits.size();
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      const auto kernels = cover_within(regret, limits[middle]);
      const bool fits = !kernels.empty() && kernels.size() <= most;
      if (fits) cover.kernels = kernels;
      fits ? high = middle : low = middle + 1;
    }
    if (cover.kernels.size() > most || cover.kernels.empty()) return Cover{};  // no `most` kernels serve all sizes
  }
  improve(regret, std::max(limit, score(regret, cover.kernels).worst), cover.kernels);
  const Scored scored = score(regret, cover.kernels);
  cover.worst = scored.worst;
  cover.mean = scored.mean;

  const Predictor predictor(times, work);
  const auto choose = [&](std::int64_t size, std::size_t present, std::size_t without) {
    std::size_t chosen = SIZE_MAX;
    double least = kFailed;
    for (const std::size_t kernel : cover.kernels) {
      const double us = predictor.us(kernel, size, without);
      if (us < least) least = us, chosen = kernel;
    }
    if (present != SIZE_MAX && has_time(least) && predictor.us(present, size, without) <= kStay * least)
      chosen = present;
    return chosen;
  };

  // As if a size had not been measured.
  const std::size_t count = times.sizes.size();
  std::vector<double>& unmeasured = cover.unmeasured;
  unmeasured.assign(count, 0);
  std::size_t judged = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const bool end = i == 0 || i + 1 == count;
    const std::size_t chosen = choose(times.sizes[i], SIZE_MAX, end ? SIZE_MAX : i);
    if (chosen == SIZE_MAX || !has_time(best[i])) continue;
    // A kernel that was not tried here is not known to be better than those that were.
    unmeasured[i] = std::max(0.0, predictor.us(chosen, times.sizes[i]) / best[i] - 1);
    if (end) continue;
    cover.predicted_worst = std::max(cover.predicted_worst, unmeasured[i]);
    cover.predicted_mean += unmeasured[i];
    ++judged;
  }
  if (judged > 0) cover.predicted_mean /= static_cast<double>(judged);

  std::int64_t from = times.sizes.front();
  std::size_t present = SIZE_MAX, after = 0;
  double weight = 0;
  for (const std::int64_t size : cells(times.sizes)) {
    while (after + 1 < count && times.sizes[after] < size) ++after;
    const std::size_t before = times.sizes[after] == size ? after : after - 1;
    const std::size_t chosen = choose(size, present, SIZE_MAX);
    const double cell = static_cast<double>(size - from + 1);
    if (chosen != SIZE_MAX) {
      const double loss = (unmeasured[before] + unmeasured[after]) / 2;
      if (chosen != present || cover.spans.empty()) {
        cover.spans.push_back({.first = from, .last = size, .kernel = chosen, .loss = loss});
        weight = cell;
      } else {
        Cover::Span& span = cover.spans.back();
        weight += cell;
        span.loss += (loss - span.loss) * cell / weight;
        span.last = size;
      }
    }
    present = chosen;
    from = size + 1;
  }
  std::set<std::size_t> used;
  for (const Cover::Span& span : cover.spans) used.insert(span.kernel);
  cover.kernels.assign(used.begin(), used.end());
  return cover;
}

namespace {

// One problem with a dynamic dim.
class Dynamic {
 public:
  Dynamic(const TuneRequest& request, const OpSpec& spec, Db& db, Compiler& compiler, const TuneFixed& tune_fixed,
          const std::atomic<bool>& stop, TuneOutcome& outcome)
      : request_(request),
        spec_(spec),
        db_(db),
        compiler_(compiler),
        tune_fixed_(tune_fixed),
        stop_(stop),
        outcome_(outcome) {}

  Result<TuneOutcome::Row> run();

 private:
  using Configs = std::vector<std::string>;

  Result<void> measure(const std::map<std::int64_t, Configs>& wanted);
  Configs contenders(const std::set<std::int64_t>& searched) const;
  std::set<std::int64_t> behind_jumps() const;
  Result<void> search_behind_jumps(Configs& tried);
  Configs near(std::int64_t size, const Configs& configs) const;
  SizeTimes times(const Configs& configs) const;
  Result<const KernelSource*> source(const std::string& config) const;
  std::optional<double> work(const std::string& config, std::int64_t size) const;
  Cover choose(Configs& configs) const;
  Result<void> publish(const Cover&, const Configs&);
  const TrialRecord* nearest_trial(const std::string& config, const Cover::Span&, std::int64_t& size) const;
  void add(TuneOutcome&& part);

  const TuneRequest& request_;
  const OpSpec& spec_;
  Db& db_;
  Compiler& compiler_;
  const TuneFixed& tune_fixed_;
  const std::atomic<bool>& stop_;
  TuneOutcome& outcome_;
  std::map<std::int64_t, std::map<std::string, TrialRecord>> known_;  // by size, config
  std::map<std::int64_t, TuneOutcome::Row> rows_;                     // by size, of the last round
  std::set<std::int64_t> searched_;
  mutable std::map<std::string, KernelSource> sources_;             // by config
  mutable std::map<std::string, std::unique_ptr<Binder>> binders_;  // of their plans
  mutable std::map<std::int64_t, std::optional<Env>> dims_;         // by size
  double size_seconds_ = 0;                                         // 0 = no limit
};

bool verified(const TrialRecord& trial) {
  return trial.status == TrialStatus::kTimed || trial.status == TrialStatus::kStoppedEarly;
}

void Dynamic::add(TuneOutcome&& part) {
  outcome_.device_name = part.device_name;
  outcome_.arch = part.arch;
  outcome_.timing = part.timing;
  outcome_.objective = part.objective;
  outcome_.device_id = part.device_id;
  outcome_.compute_units = part.compute_units;
  outcome_.jobs = part.jobs;
  outcome_.peak_bytes_per_second = std::max(outcome_.peak_bytes_per_second, part.peak_bytes_per_second);
  outcome_.wall_seconds += part.wall_seconds;
  outcome_.gpu_busy_seconds += part.gpu_busy_seconds;
  outcome_.gpu_timing_seconds += part.gpu_timing_seconds;
  outcome_.compile_seconds += part.compile_seconds;
  outcome_.compiled += part.compiled;
  outcome_.from_cache += part.from_cache;
  outcome_.verified += part.verified;
  outcome_.interrupted |= part.interrupted;
  for (const TuneOutcome::Spent& spent : part.where_time_went) {
    const auto at = std::find_if(outcome_.where_time_went.begin(), outcome_.where_time_went.end(),
                                 [&](const TuneOutcome::Spent& other) { return other.on == spent.on; });
    if (at == outcome_.where_time_went.end())
      outcome_.where_time_went.push_back(spent);
    else
      at->seconds += spent.seconds;
  }
}

// Tries the configurations at the sizes ("": what a search finds). Those with a result of before cost nothing.
Result<void> Dynamic::measure(const std::map<std::int64_t, Configs>& wanted) {
  for (const bool seen : {true, false}) {
    TuneRequest request = request_;
    request.publish = false;
    request.fresh = request_.fresh && !seen;  // --fresh forgets what was known before this run
    request.budget.seconds = size_seconds_;
    request.specs.clear();
    std::vector<std::int64_t> sizes;
    for (const auto& [size, configs] : wanted) {
      if (request_.fresh ? (known_.count(size) > 0) != seen : !seen) continue;
      KGEN_TRY(OpSpec spec, at_size(spec_, size));
      spec.tune.configs = configs;
      request.specs.push_back(std::move(spec));
      sizes.push_back(size);
      if (configs.empty()) searched_.insert(size);
    }
    if (sizes.empty() || stop_) continue;
    KGEN_TRY(TuneOutcome part, tune_fixed_(request));
    for (std::size_t i = 0; i < part.rows.size(); ++i) {
      for (TrialRecord& trial : part.rows[i].trials) known_[sizes[i]].insert_or_assign(trial.config, std::move(trial));
      part.rows[i].trials.clear();
      rows_[sizes[i]] = std::move(part.rows[i]);
    }
    add(std::move(part));
  }
  return {};
}

// What is nearly the best at a size that was searched: the best of each first, then the second …
Dynamic::Configs Dynamic::contenders(const std::set<std::int64_t>& searched) const {
  std::vector<Configs> ranked;
  for (const auto& [size, trials] : known_) {
    if (!searched.contains(size)) continue;
    std::vector<std::pair<double, std::string>> order;
    for (const auto& [config, trial] : trials)
      if (verified(trial)) order.emplace_back(trial.time_us.value_or(kFailed), config);
    std::sort(order.begin(), order.end());
    Configs& best = ranked.emplace_back();
    for (const auto& [us, config] : order)
      if (best.size() < kContendersOfSize && us <= kContender * order.front().first) best.push_back(config);
  }
  Configs chosen;
  for (std::size_t rank = 0; rank < kContendersOfSize; ++rank)
    for (const Configs& best : ranked)
      if (rank < best.size() && chosen.size() < kContenders &&
          std::find(chosen.begin(), chosen.end(), best[rank]) == chosen.end())
        chosen.push_back(best[rank]);
  return chosen;
}

// Where the best time leaps from one measured size to the next by far more than the sizes do, tiles of what was tried
// begin another wave there, and a tile that nobody tried may fit in the one before: in the middle of the sizes that
// follow with about the same time, up to one that was searched. The highest steps first.
std::set<std::int64_t> Dynamic::behind_jumps() const {
  std::vector<std::pair<std::int64_t, double>> best;  // by size
  for (const auto& [size, trials] : known_) {
    double least = kFailed;
    for (const auto& [config, trial] : trials)
      if (verified(trial)) least = std::min(least, trial.time_us.value_or(kFailed));
    if (has_time(least)) best.emplace_back(size, least);
  }
  std::vector<std::pair<double, std::int64_t>> found;
  for (std::size_t i = 1; i < best.size(); ++i) {
    const auto [size, us] = best[i];
    const double jump = us / best[i - 1].second * static_cast<double>(best[i - 1].first) / static_cast<double>(size);
    const auto next = searched_.lower_bound(size);
    if (jump < kJump || (next != searched_.end() && static_cast<double>(*next) <= kBehind * static_cast<double>(size)))
      continue;
    std::int64_t end = size;
    for (std::size_t j = i + 1; j < best.size() && end == size; ++j)
      if (searched_.contains(best[j].first) || j + 1 == best.size() || best[j + 1].second > kJump * us)
        end = best[j].first;
    const std::int64_t middle = size + (end - size) / 2;
    if (at_size(spec_, middle)) found.emplace_back(jump, middle);
  }
  std::sort(found.rbegin(), found.rend());
  std::set<std::int64_t> sizes;
  for (const auto& [jump, size] : found)
    if (sizes.size() < kJumpSearches) sizes.insert(size);
  return sizes;
}

Result<void> Dynamic::search_behind_jumps(Configs& tried) {
  std::map<std::int64_t, Configs> wanted;
  const std::set<std::int64_t> sizes = behind_jumps();
  for (const std::int64_t size : sizes) wanted[size];
  KGEN_CHECK_OK(measure(wanted));
  Configs fresh;
  for (std::string& config : contenders(sizes))
    if (std::find(tried.begin(), tried.end(), config) == tried.end()) fresh.push_back(std::move(config));
  if (fresh.empty() || stop_) return {};
  wanted.clear();
  for (const auto& [size, trials] : known_)
    for (const std::int64_t searched : sizes)
      if (static_cast<double>(std::max(size, searched)) <= kReach * static_cast<double>(std::min(size, searched)))
        wanted[size] = near(size, fresh);
  tried.insert(tried.end(), fresh.begin(), fresh.end());
  return measure(wanted);
}

// The configurations in the order of their times at the nearest size where they have one: what is slow is given up
// early.
Dynamic::Configs Dynamic::near(std::int64_t size, const Configs& configs) const {
  std::vector<std::pair<double, std::string>> order;
  for (const std::string& config : configs) {
    double nearest = kFailed, us = kFailed;
    for (const auto& [other, trials] : known_) {
      const auto at = trials.find(config);
      const double far = std::abs(std::log2(static_cast<double>(size) / static_cast<double>(other)));
      if (at == trials.end() || !verified(at->second) || far >= nearest) continue;
      nearest = far;
      us = at->second.time_us.value_or(kFailed) * static_cast<double>(size) / static_cast<double>(other);
    }
    order.emplace_back(us, config);
  }
  std::sort(order.begin(), order.end());
  Configs sorted;
  for (auto& [us, config] : order) sorted.push_back(std::move(config));
  return sorted;
}

SizeTimes Dynamic::times(const Configs& configs) const {
  SizeTimes times;
  times.us.assign(configs.size(), {});
  for (const auto& [size, trials] : known_) {
    times.sizes.push_back(size);
    for (std::size_t i = 0; i < configs.size(); ++i) {
      const auto at = trials.find(configs[i]);
      times.us[i].push_back(at == trials.end()     ? NAN
                            : verified(at->second) ? at->second.time_us.value_or(kFailed)
                                                   : kFailed);
    }
  }
  return times;
}

Result<const KernelSource*> Dynamic::source(const std::string& config) const {
  const auto at = sources_.find(config);
  if (at != sources_.end()) return &at->second;
  KGEN_TRY(const Arch arch, find_arch(outcome_.arch));
  // At a size where it was tried: it need not be legal at the others.
  OpSpec spec = spec_;
  for (const auto& [size, trials] : known_) {
    if (!trials.contains(config)) continue;
    KGEN_TRY(spec, at_size(spec_, size));
    if (parse_candidate(spec, arch, config)) break;
  }
  KGEN_TRY(const Candidate candidate, parse_candidate(spec, arch, config));
  KGEN_TRY(KernelSource source, emit(spec, arch, candidate));
  return &(sources_[config] = std::move(source));
}

// Blocks in waves of what the device holds at once; half of it as if a wave could not begin before the one before it
// has ended.
std::optional<double> Dynamic::work(const std::string& config, std::int64_t size) const {
  auto [dims, new_size] = dims_.try_emplace(size);
  if (new_size)
    if (const auto spec = at_size(spec_, size)) dims->second = spec->problem.dims;
  auto [binder, new_config] = binders_.try_emplace(config);
  if (new_config)
    if (const auto made = source(config)) binder->second = std::make_unique<Binder>((*made)->plan);
  if (!dims->second || binder->second == nullptr) return std::nullopt;
  const auto bound = binder->second->bind(*dims->second);
  const auto arch = find_arch(outcome_.arch);
  if (!bound || !arch) return std::nullopt;
  int waves = -1;
  for (const auto& [measured, trials] : known_)
    if (const auto at = trials.find(config); at != trials.end())
      waves = std::max(waves, at->second.occupancy_waves.value_or(-1));
  double sum = 0;
  for (const BoundStep& step : bound->steps) {
    if (step.prepare) continue;
    const double of_block = std::max(1.0, std::ceil(static_cast<double>(step.block) / (*arch)->wave_size));
    const double at_once = std::max(1, outcome_.compute_units) * std::max(1.0, std::floor(waves / of_block));
    const double blocks = static_cast<double>(step.grid[0]) * step.grid[1] * step.grid[2] / at_once;
    sum += 0.5 * blocks + 0.5 * std::ceil(blocks);
  }
  return sum;
}

// Of all that was measured; `configs` become those beside Cover::kernels.
Cover Dynamic::choose(Configs& configs) const {
  std::set<std::string> all;
  for (const auto& [size, trials] : known_)
    for (const auto& [config, trial] : trials) all.insert(config);
  for (const auto& [size, trials] : known_)  // what was wrong once serves no size
    for (const auto& [config, trial] : trials)
      if (trial.status == TrialStatus::kWrong || trial.status == TrialStatus::kHung ||
          trial.status == TrialStatus::kCrashed)
        all.erase(config);
  configs.assign(all.begin(), all.end());
  // Those of a single size tell what is best there, and serve if nothing else does.
  const SizeTimes measured = times(configs);
  return choose_cover(
      measured, [&](std::size_t kernel, std::int64_t size) { return work(configs[kernel], size); },
      static_cast<std::size_t>(spec_.tune.max_kernels), spec_.tune.regret);
}

const TrialRecord* Dynamic::nearest_trial(const std::string& config, const Cover::Span& span,
                                          std::int64_t& size) const {
  const TrialRecord* found = nullptr;
  std::pair<bool, std::int64_t> least;
  for (const auto& [measured, trials] : known_) {
    const auto at = trials.find(config);
    if (at == trials.end() || !verified(at->second)) continue;
    // Inside the span its largest one, else the nearest.
    const std::pair<bool, std::int64_t> rank = {
        measured < span.first || measured > span.last,
        measured < span.first ? span.first - measured : std::abs(span.last - measured)};
    if (found != nullptr && rank >= least) continue;
    least = rank;
    found = &at->second;
    size = measured;
  }
  return found;
}

Result<void> Dynamic::publish(const Cover& cover, const Configs& configs) {
  KGEN_TRY(const Arch arch, find_arch(outcome_.arch));
  std::vector<ObjectRecord> objects;
  std::map<std::string, std::string> hashes;  // by config
  for (const std::size_t kernel : cover.kernels) {
    const std::string& config = configs[kernel];
    KGEN_TRY(const KernelSource* made, source(config));
    KGEN_TRY(const CompileResult compiled, compiler_.compile(made->text, arch));
    if (compiled.status != CompileStatus::kCompiled)
      return fail(ErrorKind::kInternal,
                  fmt::format("{} compiled before and does not now: {}", config, first_error(compiled.log)));
    hashes[config] = compiled.code.hash;
    objects.push_back({.hash = compiled.code.hash,
                       .arch = std::string(arch->name),
                       .kind = std::string(code_kind(compiled.code.bytes)),
                       .bytes = compiled.code.bytes});
  }
  std::vector<WinnerRecord> winners;
  for (const Cover::Span& span : cover.spans) {
    const std::string& config = configs[span.kernel];
    std::int64_t size = 0;
    const TrialRecord* trial = nearest_trial(config, span, size);
    winners.push_back({.problem = trial->problem,
                       .device = outcome_.device_id,
                       .trial = trial->id,
                       .goal = {.timing = request_.timing,
                                .objective = request_.objective,
                                .deterministic = spec_.tune.deterministic},
                       .plan_json = plan_to_json(sources_.at(config).plan),
                       .object_hash = hashes.at(config),
                       .is_default = false,
                       .range = SizeRange{spec_.dynamic->name, span.first, span.last, span.loss}});
  }
  return db_.publish_cover(winners, objects);
}

Result<TuneOutcome::Row> Dynamic::run() {
  const DynamicDim& dim = *spec_.dynamic;
  const double before = outcome_.wall_seconds;
  TuneOutcome::Row row;
  row.op = spec_.op->name;
  row.signature = signature(*spec_.op, spec_.problem);
  row.label = spec_.problem.label;
  row.deterministic = spec_.tune.deterministic;
  for (const std::string& word : split(dims_key(*spec_.op, spec_.problem), ' '))
    row.dims_key += (row.dims_key.empty() ? "" : " ") +
                    (word.starts_with(dim.name + "=") ? fmt::format("{}={}..{}", dim.name, dim.first, dim.last) : word);

  std::vector<std::int64_t> sizes = sizes_to_measure(dim.first, dim.last);
  std::erase_if(sizes, [&](std::int64_t size) { return !at_size(spec_, size); });  // rules of the operator
  if (request_.budget.seconds > 0) size_seconds_ = request_.budget.seconds / (2.0 * static_cast<double>(sizes.size()));

  // A search at some sizes, what is good there at all of them, then more sizes where the choice is not clear.
  std::map<std::int64_t, Configs> wanted;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    if (i % kSearched == 0 || i + 1 == sizes.size()) wanted[sizes[i]];
  KGEN_CHECK_OK(measure(wanted));
  Configs tried = contenders(searched_);
  Cover cover;
  Configs configs;
  if (!tried.empty() && !stop_) {
    wanted.clear();
    for (const std::int64_t size : sizes) wanted[size] = near(size, tried);
    KGEN_CHECK_OK(measure(wanted));
    for (int round = 0; round <= kRefinements && !stop_; ++round) {
      cover = choose(configs);
      if (round == kRefinements) break;
      const SizeTimes measured = times(tried);
      const std::vector<double> best = best_times(measured);
      const auto serving = [&](std::int64_t size) {
        const auto span = std::find_if(cover.spans.begin(), cover.spans.end(),
                                       [&](const Cover::Span& s) { return s.first <= size && size <= s.last; });
        return span == cover.spans.end() ? SIZE_MAX : span->kernel;
      };
      wanted.clear();
      for (std::size_t i = 0; i + 1 < measured.sizes.size(); ++i) {
        const std::int64_t low = measured.sizes[i], high = measured.sizes[i + 1];
        if (known_.size() + wanted.size() >= kMostSizes) break;
        const bool unsure = std::max(cover.unmeasured[i], cover.unmeasured[i + 1]) > kUnsure;
        // A tile that is filled in part may take longer than a full one: the first size of the last tile, once.
        std::int64_t edge = high;
        const std::size_t kernel = serving(high);
        const auto at_high = kernel == SIZE_MAX ? std::nullopt : work(configs[kernel], high);
        if (round == 0 && at_high && static_cast<double>(high - low) > kEdge * static_cast<double>(low) &&
            work(configs[kernel], low) != at_high) {
          for (std::int64_t before = low; edge - before > 1;) {
            const std::int64_t half = (before + edge) / 2;
            (work(configs[kernel], half) == at_high ? edge : before) = half;
          }
        }
        if (edge == high && serving(low) == serving(high) && !unsure) continue;
        const std::int64_t middle = edge < high ? edge : (low + high) / 2;
        if (middle <= low || middle >= high || !at_size(spec_, middle)) continue;
        Configs good;
        for (std::size_t k = 0; k < tried.size(); ++k)
          if (measured.us[k][i] <= kNeighbour * best[i] || measured.us[k][i + 1] <= kNeighbour * best[i + 1])
            good.push_back(tried[k]);
        wanted[middle] = near(middle, good);
      }
      const bool leaps = round < kJumpRounds && !behind_jumps().empty();
      if (wanted.empty() && !leaps) break;
      KGEN_CHECK_OK(measure(wanted));
      if (leaps) KGEN_CHECK_OK(search_behind_jumps(tried));
    }
  }
  row.seconds = outcome_.wall_seconds - before;
  for (const auto& [size, trials] : known_) {
    row.candidates += static_cast<std::int64_t>(trials.size());
    for (const auto& [config, trial] : trials) row.verified += verified(trial);
  }
  if (stop_) {
    row.note = "stopped before its kernels were chosen";
    return row;
  }
  if (cover.spans.empty()) {
    outcome_.any_failed = true;
    row.note = tried.empty()
                   ? (rows_.empty() ? "nothing was tried" : rows_.rbegin()->second.note)
                   : fmt::format("no {} kernels serve all sizes; allow more (max_kernels)", spec_.tune.max_kernels);
    return row;
  }
  KGEN_CHECK_OK(publish(cover, configs));

  TuneOutcome::Cover told{.dim = dim.name,
                          .first = dim.first,
                          .last = dim.last,
                          .worst = cover.worst,
                          .mean = cover.mean,
                          .predicted_worst = cover.predicted_worst,
                          .predicted_mean = cover.predicted_mean};
  for (const auto& [size, trials] : known_) told.sizes.push_back(size);
  for (const std::size_t kernel : cover.kernels) told.kernels.push_back(configs[kernel]);
  for (const Cover::Span& span : cover.spans) {
    std::int64_t size = 0;
    const TrialRecord* trial = nearest_trial(configs[span.kernel], span, size);
    told.spans.push_back({.first = span.first,
                          .last = span.last,
                          .config = configs[span.kernel],
                          .measured_at = size,
                          .time_us = trial->time_us.value_or(0),
                          .loss = span.loss});
  }
  // Times and rates are those of the largest size.
  row.config = told.spans.back().config;
  const auto& at_last = known_.at(dim.last);
  if (const auto at = at_last.find(row.config); at != at_last.end()) {
    row.time_us = at->second.time_us.value_or(0);
    row.mad_us = at->second.mad_us.value_or(0);
  }
  const TuneOutcome::Row& last = rows_.at(dim.last);
  row.default_us = last.default_us;
  row.flops = last.flops;
  row.bytes = last.bytes;
  row.peak_flops = last.peak_flops;
  row.expected_loss = cover.predicted_mean;
  row.cover = std::move(told);
  return row;
}

}  // namespace

Result<TuneOutcome> tune_dynamic(const TuneRequest& request, Db& db, Compiler& compiler, const TuneFixed& tune_fixed,
                                 const std::atomic<bool>& stop) {
  if (request.objective != "time")
    return fail(ErrorKind::kBadInput, "a dynamic dim is covered by time; tune it without --objective energy");
  TuneOutcome outcome;
  TuneRequest fixed = request;
  std::erase_if(fixed.specs, [](const OpSpec& spec) { return spec.dynamic.has_value(); });
  if (!fixed.specs.empty()) {
    KGEN_TRY(outcome, tune_fixed(fixed));
  }
  for (const OpSpec& spec : request.specs) {
    if (!spec.dynamic || stop) continue;
    KGEN_TRY(TuneOutcome::Row row, Dynamic(request, spec, db, compiler, tune_fixed, stop, outcome).run());
    outcome.rows.push_back(std::move(row));
  }
  outcome.interrupted |= stop;
  return outcome;
}

}  // namespace kgen
