// Search strategies: which candidate next. A strategy sees points of a grid with holes and their times, nothing else,
// so the same code searches a live tuning space and a recorded one.
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

// The legal points. Coordinate 0 is the variant (categorical); the others are the ordinals of the variant's tunables
// among the values that occur, in numeric order where the values are numbers. Points of different variants differ in
// length.
struct SearchSpace {
  std::vector<std::vector<int>> points;
  std::size_t default_index = 0;
  // Points worth trying before anything is known of this problem: defaults of the other variants, what won on other
  // shapes.
  std::vector<std::size_t> seeds;
};
SearchSpace make_search_space(const std::vector<Candidate>& candidates, const Candidate& default_candidate);

constexpr double kFailed = std::numeric_limits<double>::infinity();  // reported for a candidate without a time

// Used by one thread. Proposals run ahead of reports: candidates compile while others are timed. Every strategy
// proposes the default candidate first and no point twice.
class Strategy {
 public:
  virtual ~Strategy() = default;
  // Next point to try. Empty: nothing to try before more is reported; with no report outstanding, the search is over.
  virtual std::optional<std::size_t> propose() = 0;
  // Time of a point in microseconds, or kFailed. Also for points that were never proposed (results of an earlier run).
  virtual void report(std::size_t index, double time_us) = 0;
};

// "auto", "exhaustive", "random", "local". `space` must outlive the strategy. `budget` (0 = unlimited) sizes the first
// random sample and decides for auto: exhaustive when the whole space fits, else local. kBadInput for another name,
// with the nearest.
Result<std::unique_ptr<Strategy>> make_strategy(const std::string& name, const SearchSpace& space, std::uint64_t seed,
                                                std::size_t budget);
const std::vector<std::string>& strategy_names();

// One maker a strategy; each file in search/ defines one.
std::unique_ptr<Strategy> make_exhaustive(const SearchSpace&);
std::unique_ptr<Strategy> make_random(const SearchSpace&, std::uint64_t seed);
std::unique_ptr<Strategy> make_local(const SearchSpace&, std::uint64_t seed, std::size_t budget);

}  // namespace kgen
