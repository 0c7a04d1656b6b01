// Search strategies: which candidate next. A strategy sees points of a grid with holes and their times, nothing else,
// so the same code searches a live tuning space and a recorded one (docs/search.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "generator/space.h"

namespace kgen {

// One choice of a configuration. Values that are all numbers are in ascending order and have an order that a search may
// use; others are categories.
struct Axis {
  std::string name;
  std::vector<std::string> values;
  std::vector<double> numbers{};  // of `values`; empty for categories
};

constexpr int kAbsent = -1;  // ordinal of an axis that a point does not have (tunables of other variants)

struct SearchSpace {
  std::vector<Axis> axes;
  std::vector<std::vector<int>> points;  // the legal ones: an ordinal for each axis
  // Points worth trying before anything is known, the default first.
  std::vector<std::size_t> seeds{};
  // What is known from elsewhere, one list a source (another device, another shape): the time of each point there in
  // any unit, kFailed, or NaN where that source does not know the point (tuner/search/prior.h).
  std::vector<std::vector<double>> elsewhere{};
};

constexpr double kFailed = std::numeric_limits<double>::infinity();  // reported for a candidate without a time

// Configurations as names with values, in any order, turned into points. A configuration need not name every axis.
using Config = std::vector<std::pair<std::string, std::string>>;
SearchSpace make_search_space(const std::vector<Config>& configs);
// The variant is the first axis. The default candidate becomes the first seed.
SearchSpace make_search_space(const std::vector<Candidate>& candidates, const Candidate& default_candidate);

// Used by one thread. Proposals run ahead of reports: candidates compile while others are timed. Every strategy
// proposes the first seed first and no point twice.
class Strategy {
 public:
  virtual ~Strategy() = default;
  // Next point to try. Empty: every point was proposed or reported.
  virtual std::optional<std::size_t> propose() = 0;
  // Time of a point in microseconds, or kFailed. Also for points that were never proposed (results of an earlier run).
  virtual void report(std::size_t index, double time_us) = 0;
  // How much faster than the best that was reported the best of the whole space is likely to be: the expectation of
  // 1 - time of the optimum / best time. 0 where every point was reported; empty where the strategy has no opinion.
  virtual std::optional<double> expected_loss() = 0;
};

// "auto", "exhaustive", "random", "local", "annealing", "genetic", "model". `space` must outlive the strategy. `budget`
// (0 = unlimited) sizes first samples and schedules, and decides for auto: exhaustive when the whole space fits, else
// model. kBadInput for another name, with the nearest.
Result<std::unique_ptr<Strategy>> make_strategy(const std::string& name, const SearchSpace& space, std::uint64_t seed,
                                                std::size_t budget);
const std::vector<std::string>& strategy_names();

// One maker a strategy; each file in search/ defines one.
std::unique_ptr<Strategy> make_exhaustive(const SearchSpace&);
std::unique_ptr<Strategy> make_random(const SearchSpace&, std::uint64_t seed);
std::unique_ptr<Strategy> make_local(const SearchSpace&, std::uint64_t seed, std::size_t budget);
std::unique_ptr<Strategy> make_annealing(const SearchSpace&, std::uint64_t seed, std::size_t budget);
std::unique_ptr<Strategy> make_genetic(const SearchSpace&, std::uint64_t seed, std::size_t budget);
std::unique_ptr<Strategy> make_model(const SearchSpace&, std::uint64_t seed);

}  // namespace kgen
