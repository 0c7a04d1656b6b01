#include "tuner/search/strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <unordered_map>

#include "base/text.h"

namespace kgen {
namespace {

std::optional<long long> as_number(const std::string& text) {
  long long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Ordinals of the values one tunable of one variant takes.
struct Axis {
  std::vector<std::string> values;  // in order of first appearance
  std::unordered_map<std::string, int> ordinal;

  void add(const std::string& value) {
    if (ordinal.emplace(value, static_cast<int>(values.size())).second) values.push_back(value);
  }
  void sort_numbers() {
    if (!std::all_of(values.begin(), values.end(), [](auto& value) { return as_number(value).has_value(); })) return;
    std::sort(values.begin(), values.end(), [](auto& a, auto& b) { return *as_number(a) < *as_number(b); });
    for (std::size_t i = 0; i < values.size(); ++i) ordinal[values[i]] = static_cast<int>(i);
  }
};

}  // namespace

SearchSpace make_search_space(const std::vector<Candidate>& candidates, const Candidate& default_candidate) {
  struct Variant {
    int number;
    std::vector<Axis> axes;
  };
  std::map<std::string, Variant> variants;
  for (const Candidate& candidate : candidates) {
    auto [at, added] = variants.try_emplace(candidate.variant, Variant{static_cast<int>(variants.size()), {}});
    std::vector<Axis>& axes = at->second.axes;
    axes.resize(std::max(axes.size(), candidate.params.size()));
    for (std::size_t i = 0; i < candidate.params.size(); ++i) axes[i].add(candidate.params[i].second);
  }
  for (auto& [name, variant] : variants)
    for (Axis& axis : variant.axes) axis.sort_numbers();

  SearchSpace space;
  space.points.reserve(candidates.size());
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    const Variant& variant = variants.at(candidates[c].variant);
    std::vector<int> point{variant.number};
    for (std::size_t i = 0; i < candidates[c].params.size(); ++i)
      point.push_back(variant.axes[i].ordinal.at(candidates[c].params[i].second));
    space.points.push_back(std::move(point));
    if (candidates[c] == default_candidate) space.default_index = c;
  }
  return space;
}

const std::vector<std::string>& strategy_names() {
  static const std::vector<std::string> names{"auto", "exhaustive", "random", "local"};
  return names;
}

Result<std::unique_ptr<Strategy>> make_strategy(const std::string& name, const SearchSpace& space, std::uint64_t seed,
                                                std::size_t budget) {
  const bool fits = budget == 0 || space.points.size() <= budget;
  if (name == "exhaustive" || (name == "auto" && fits)) return make_exhaustive(space);
  if (name == "random") return make_random(space, seed);
  if (name == "local" || name == "auto") return make_local(space, seed, budget);
  return fail(ErrorKind::kBadInput, fmt::format("unknown strategy '{}'{}; there are {}", name,
                                                did_you_mean(name, strategy_names()), join(strategy_names(), ", ")));
}

}  // namespace kgen
