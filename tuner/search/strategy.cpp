#include "tuner/search/strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "base/text.h"

namespace kgen {
namespace {

std::optional<double> as_number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

void sort_numbers(Axis& axis) {
  for (const std::string& value : axis.values)
    if (!as_number(value)) return;
  std::sort(axis.values.begin(), axis.values.end(), [](auto& a, auto& b) { return *as_number(a) < *as_number(b); });
  for (const std::string& value : axis.values) axis.numbers.push_back(*as_number(value));
}

}  // namespace

SearchSpace make_search_space(const std::vector<Config>& configs) {
  SearchSpace space;
  std::unordered_map<std::string, std::size_t> axis_number;
  std::vector<std::unordered_map<std::string, int>> ordinals;
  for (const Config& config : configs)
    for (const auto& [name, value] : config) {
      const auto [at, added] = axis_number.emplace(name, space.axes.size());
      if (added) {
        space.axes.push_back({name, {}});
        ordinals.emplace_back();
      }
      if (ordinals[at->second].emplace(value, 0).second) space.axes[at->second].values.push_back(value);
    }
  for (std::size_t a = 0; a < space.axes.size(); ++a) {
    sort_numbers(space.axes[a]);
    for (std::size_t v = 0; v < space.axes[a].values.size(); ++v)
      ordinals[a][space.axes[a].values[v]] = static_cast<int>(v);
  }
  space.points.reserve(configs.size());
  for (const Config& config : configs) {
    std::vector<int>& point = space.points.emplace_back(space.axes.size(), kAbsent);
    for (const auto& [name, value] : config) point[axis_number[name]] = ordinals[axis_number[name]][value];
  }
  return space;
}

SearchSpace make_search_space(const std::vector<Candidate>& candidates, const Candidate& default_candidate) {
  std::vector<Config> configs;
  configs.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    Config& config = configs.emplace_back(Config{{"variant", candidate.variant}});
    config.insert(config.end(), candidate.params.begin(), candidate.params.end());
  }
  SearchSpace space = make_search_space(configs);
  const auto at = std::find(candidates.begin(), candidates.end(), default_candidate);
  if (at != candidates.end()) space.seeds.push_back(static_cast<std::size_t>(at - candidates.begin()));
  return space;
}

const std::vector<std::string>& strategy_names() {
  static const std::vector<std::string> names{"auto", "exhaustive", "random", "local", "annealing", "genetic", "model"};
  return names;
}

Result<std::unique_ptr<Strategy>> make_strategy(const std::string& name, const SearchSpace& space, std::uint64_t seed,
                                                std::size_t budget) {
  const bool fits = budget == 0 || space.points.size() <= budget;
  if (name == "exhaustive" || (name == "auto" && fits)) return make_exhaustive(space);
  if (name == "random") return make_random(space, seed);
  if (name == "local") return make_local(space, seed, budget);
  if (name == "annealing") return make_annealing(space, seed, budget);
  if (name == "genetic") return make_genetic(space, seed, budget);
  if (name == "model" || name == "auto") return make_model(space, seed);
  return fail(ErrorKind::kBadInput, fmt::format("unknown strategy '{}'{}; there are {}", name,
                                                did_you_mean(name, strategy_names()), join(strategy_names(), ", ")));
}

}  // namespace kgen
