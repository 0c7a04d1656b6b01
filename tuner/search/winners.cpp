#include "tuner/search/winners.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "base/arch.h"
#include "base/text.h"
#include "generator/spec.h"
#include "generator/yaml.h"
#include "tuner/stats.h"

namespace kgen {
namespace {

constexpr double kNearlyFastest = 0.97;  // of a problem's best: what serves it
constexpr int kServings = 2;             // configurations that each problem is given
constexpr double kHalving = 1;           // distance of problems at which a winner counts half
constexpr double kServed = 0.3;          // what another winner of a problem counts after the first
constexpr double kSame = 1e3;            // what a winner of the very problem counts
constexpr double kNext = 0.8;            // what the next in a problem's list counts
constexpr double kCategoryStep = 4;      // of configurations, in octaves of their numbers
constexpr double kReach = 3;             // farthest point that may stand for a winner, likewise
constexpr std::size_t kConsidered = 8;   // winners looked at for each point that is asked for

std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::map<std::string, std::string> words_of(const std::string& text) {
  std::map<std::string, std::string> words;
  for (const auto& [name, value] : parse_config(text)) words[name] = value;
  return words;
}

// How far two values of an axis are apart.
double step(const std::string& a, const std::string& b) {
  if (a == b) return 0;
  const auto x = number(a), y = number(b);
  if (!x || !y || *x < 0 || *y < 0) return kCategoryStep;
  return std::abs(std::log2((*x + 1) / (*y + 1)));
}

// The point that a configuration is, or else the nearest within reach.
std::optional<std::size_t> nearest_point(const SearchSpace& space, const PointIndex& index, const std::string& config) {
  const std::map<std::string, std::string> words = words_of(config);
  std::vector<std::vector<double>> cost(space.axes.size());  // by ordinal; the last is that of an absent axis
  std::vector<int> exact(space.axes.size(), kAbsent);
  for (std::size_t a = 0; a < space.axes.size(); ++a) {
    const auto word = words.find(space.axes[a].name);
    for (std::size_t v = 0; v < space.axes[a].values.size(); ++v) {
      cost[a].push_back(word == words.end() ? 1 : step(word->second, space.axes[a].values[v]));
      if (word != words.end() && word->second == space.axes[a].values[v]) exact[a] = static_cast<int>(v);
    }
    cost[a].push_back(word == words.end() ? 0 : 1);
  }
  if (const auto at = index.find(exact)) return at;
  std::optional<std::size_t> nearest;
  double least = kReach;
  for (std::size_t i = 0; i < space.points.size(); ++i) {
    double sum = 0;
    for (std::size_t a = 0; a < cost.size() && sum < least; ++a) {
      const int v = space.points[i][a];
      sum += v == kAbsent ? cost[a].back() : cost[a][static_cast<std::size_t>(v)];
    }
    if (sum >= least) continue;
    least = sum;
    nearest = i;
  }
  return nearest;
}

std::string vendor_of(const std::string& family) {
  for (const ArchInfo& arch : all_archs())
    if (arch.family == family) return std::to_string(static_cast<int>(arch.vendor));
  return "";
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

}  // namespace

double problem_distance(const std::string& signature, const std::string& dims_key, const std::string& other_signature,
                        const std::string& other_dims_key) {
  double sum = 0;
  const auto add = [&](const std::string& a, const std::string& b, bool dims) {
    const auto mine = words_of(a), theirs = words_of(b);
    for (const auto& [name, value] : mine) {
      const auto at = theirs.find(name);
      const bool compare = at != theirs.end() && dims;
      if (compare) {
        const double x = std::max(1.0, number(value).value_or(1)), y = std::max(1.0, number(at->second).value_or(1));
        sum += std::abs(std::log2(x / y));
      } else if (at == theirs.end() || at->second != value) {
        ++sum;
      }
    }
    for (const auto& [name, value] : theirs) sum += !mine.contains(name);
  };
  add(signature, other_signature, false);
  add(dims_key, other_dims_key, true);
  return sum;
}

std::vector<Winner> learn_winners(const std::vector<Recording>& recordings) {
  struct Problem {
    std::map<std::string, std::vector<double>> recorded_us;  // of a recording the last counts
    std::map<std::string, double> times_us;                  // of verified configurations: the median of recordings
    double best_us = kFailed;
    std::vector<std::string> winners;
    std::set<std::string> last;  // of each recording: its finals end with the winner, timed in turns with others
  };
  using Key = std::tuple<std::string, std::string, std::string, std::string, std::string>;
  std::map<Key, Problem> problems;
  for (const Recording& recording : recordings) {
    const auto arch = find_arch(recording.device.arch);
    if (!arch) continue;  // not written by kgen
    Problem& problem = problems[{recording.op.op, std::string((*arch)->family), recording.op.signature,
                                 recording.problem.dims_key, recording.device.name}];
    std::map<std::string, double> last;
    for (const TrialRecord& trial : recording.trials) {
      const bool timed = trial.status == TrialStatus::kTimed || trial.status == TrialStatus::kStoppedEarly;
      last[trial.config] = timed ? trial.time_us.value_or(kFailed) : kFailed;
    }
    if (!recording.trials.empty()) problem.last.insert(recording.trials.back().config);
    for (const auto& [config, us] : last) problem.recorded_us[config].push_back(us);
  }
  for (auto& [key, problem] : problems)
    for (auto& [config, us] : problem.recorded_us)
      if (us.back() != kFailed) {
        std::erase(us, kFailed);
        problem.times_us[config] = median(us);
      }
  std::erase_if(problems, [](const auto& entry) { return entry.second.times_us.size() < kLeastVerified; });
  for (auto& [key, problem] : problems)
    for (const auto& [config, time] : problem.times_us) problem.best_us = std::min(problem.best_us, time);

  for (auto begin = problems.begin(); begin != problems.end();) {
    auto end = begin;
    while (end != problems.end() && std::get<0>(end->first) == std::get<0>(begin->first) &&
           std::get<1>(end->first) == std::get<1>(begin->first))
      ++end;
    for (std::size_t serving = 1; serving <= kServings; ++serving) {
      // By configuration: the sum of its shares over the problems that it serves and that are not served yet. Equal
      // sums: the first by name, so that the same databases give the same list.
      for (;;) {
        std::map<std::string, double> gain;
        for (auto at = begin; at != end; ++at) {
          const Problem& problem = at->second;
          if (problem.winners.size() >= serving) continue;
          for (const auto& [config, time] : problem.times_us) {
            const double share = problem.best_us / time;
            // The second serving comes from what is next.
            if (share < (serving == 1 ? kNearlyFastest : kNearlyFastest * kNearlyFastest)) continue;
            if (std::find(problem.winners.begin(), problem.winners.end(), config) != problem.winners.end()) continue;
            gain[config] += share;
          }
        }
        if (gain.empty()) break;
        const std::string best =
            std::max_element(gain.begin(), gain.end(), [](auto& a, auto& b) { return a.second < b.second; })->first;
        for (auto at = begin; at != end; ++at) {
          Problem& problem = at->second;
          const auto time = problem.times_us.find(best);
          if (problem.winners.size() >= serving || time == problem.times_us.end()) continue;
          if (problem.best_us / time->second < (serving == 1 ? kNearlyFastest : kNearlyFastest * kNearlyFastest))
            continue;
          if (std::find(problem.winners.begin(), problem.winners.end(), best) == problem.winners.end())
            problem.winners.push_back(best);
        }
      }
    }
    begin = end;
  }
  std::vector<Winner> winners;
  std::set<std::tuple<std::string, std::string, std::string, std::string, std::string>> known;
  for (auto& [key, problem] : problems) {
    const auto& [op, family, signature, dims, device] = key;
    std::stable_sort(problem.winners.begin(), problem.winners.end(),
                     [&](auto& a, auto& b) { return problem.times_us.at(a) < problem.times_us.at(b); });
    // The fastest comes last, since what serves several problems serves a new one better (docs/search.md): of those
    // that won a race, for what was timed in the search alone may owe its time to noise.
    const std::string* fastest = nullptr;
    for (const auto& [config, us] : problem.times_us) {
      const bool raced = problem.last.contains(config) && us * kNearlyFastest <= problem.best_us;
      if (raced && (fastest == nullptr || us < problem.times_us.at(*fastest))) fastest = &config;
    }
    if (fastest != nullptr &&
        std::find(problem.winners.begin(), problem.winners.end(), *fastest) == problem.winners.end())
      problem.winners.push_back(*fastest);
    for (const std::string& config : problem.winners)
      if (known.emplace(op, family, signature, dims, config).second)
        winners.push_back({op, family, signature, dims, config});
  }
  return winners;
}

std::map<std::string, std::string> winners_yaml(const std::vector<Winner>& winners) {
  std::map<std::string, std::string> files;
  const Winner* before = nullptr;
  for (const Winner& winner : winners) {
    std::string& text = files[winner.op];
    if (text.empty()) {
      text =
          "# Configurations that were fastest, by architecture family, operator and shape: where a search begins.\n"
          "# Written by `kgen db prior`.\n";
      before = nullptr;
    }
    const bool family = before == nullptr || before->family != winner.family;
    const bool signature = family || before->signature != winner.signature;
    const bool dims = signature || before->dims_key != winner.dims_key;
    if (family) text += winner.family + ":\n";
    if (signature) text += "  " + quoted(winner.signature) + ":\n";
    if (dims) text += "    " + quoted(winner.dims_key) + ":\n";
    text += "      - " + winner.config + "\n";
    before = &winner;
  }
  return files;
}

Result<std::vector<Winner>> read_winners(std::string_view yaml, const std::string& file) {
  KGEN_TRY(const Yaml root, Yaml::parse(yaml, file));
  const std::string op = std::filesystem::path(file).stem().string();
  std::vector<Winner> winners;
  if (root.is_null()) return winners;
  KGEN_CHECK_OK(root.expect_map("a list of winners"));
  for (const auto& [family, signatures] : root.entries()) {
    if (vendor_of(family.text()).empty())
      return family.fail(fmt::format("unknown architecture family '{}'", family.text()));
    KGEN_CHECK_OK(signatures.expect_map("a family's problems"));
    for (const auto& [signature, shapes] : signatures.entries()) {
      KGEN_CHECK_OK(shapes.expect_map("a signature's shapes"));
      for (const auto& [dims, configs] : shapes.entries()) {
        KGEN_CHECK_OK(configs.expect_list("a shape's configurations"));
        for (const Yaml& config : configs.items()) {
          KGEN_TRY(std::string text, config.as_text("a configuration"));
          winners.push_back({op, family.text(), signature.text(), dims.text(), std::move(text)});
        }
      }
    }
  }
  return winners;
}

Result<std::vector<Winner>> winners_of(const std::string& op, const std::string& folder) {
  if (folder.empty()) {
    const std::string file = fmt::format("ops/priors/{}.yaml", op);
    const auto text = embedded_file(file);
    return text ? read_winners(*text, file) : std::vector<Winner>{};
  }
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored))
    return fail(
        ErrorKind::kBadInput,
        fmt::format("--prior '{}' is neither shipped nor none nor a folder that 'kgen db prior' wrote", folder));
  const std::string file = fmt::format("{}/{}.yaml", folder, op);
  if (!std::filesystem::exists(file, ignored)) return std::vector<Winner>{};
  KGEN_TRY(const std::string text, read_file(file));
  return read_winners(text, file);
}

std::vector<std::size_t> rank_winners(const SearchSpace& space, const std::vector<Winner>& winners,
                                      const std::string& signature, const std::string& dims_key,
                                      const std::string& family, std::size_t most) {
  struct Entry {
    const Winner* winner;
    double weight;
    std::size_t place = 0, problem = 0;  // in its problem's list; number of the problem
    std::size_t point = 0;
    bool same = false;  // the very problem: all that won it come first
  };
  const bool own = std::any_of(winners.begin(), winners.end(), [&](auto& w) { return w.family == family; });
  const std::string vendor = vendor_of(family);
  std::vector<Entry> entries;
  std::map<std::pair<std::string, std::string>, std::pair<std::size_t, std::size_t>>
      problems;  // number, entries so far
  for (const Winner& winner : winners) {
    if (own ? winner.family != family : vendor.empty() || vendor_of(winner.family) != vendor) continue;
    auto& [number, count] = problems.try_emplace({winner.signature, winner.dims_key}, problems.size(), 0).first->second;
    const double distance = problem_distance(signature, dims_key, winner.signature, winner.dims_key);
    entries.push_back({&winner, std::exp2(-distance / kHalving), count++, number, 0, distance == 0});
  }
  std::stable_sort(entries.begin(), entries.end(), [](auto& a, auto& b) { return a.weight > b.weight; });
  entries.resize(std::min(entries.size(), kConsidered * most));
  const PointIndex index(space);
  std::erase_if(entries, [&](Entry& entry) {
    const auto point = nearest_point(space, index, entry.winner->config);
    if (point) entry.point = *point;
    return !point;
  });

  std::vector<double> served(problems.size(), 1);
  std::vector<std::size_t> ranked;
  while (ranked.size() < most) {
    std::map<std::size_t, double> gain;
    for (const Entry& entry : entries)
      gain[entry.point] += (entry.same ? kSame : entry.weight * served[entry.problem]) * std::pow(kNext, entry.place);
    if (gain.empty()) break;
    const std::size_t best =
        std::max_element(gain.begin(), gain.end(), [](auto& a, auto& b) { return a.second < b.second; })->first;
    ranked.push_back(best);
    std::set<std::size_t> now;
    for (const Entry& entry : entries)
      if (entry.point == best && now.insert(entry.problem).second) served[entry.problem] *= kServed;
    std::erase_if(entries, [&](const Entry& entry) { return entry.point == best; });
  }
  return ranked;
}

}  // namespace kgen
