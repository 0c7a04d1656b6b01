#include "tuner/search/prior.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace kgen {
namespace {

constexpr double kUnevenWeight = 0.5, kUnevenSpread = 0.5;
constexpr double kMostUneven = 2.5;                         // log2 of the odd part: five and more are alike
constexpr double kLongAxis = 24;                            // values from which on unevenness counts in full
constexpr double kSourceWeight = 0.9, kSourceSpread = 0.5;  // shared by the sources
constexpr std::size_t kLeastRound = 20;
constexpr double kSourceWork = 4e8;  // data² × points: bounds the time of predicting what a source does not know
constexpr double kMostSourceData = 240;
constexpr std::size_t kLeastTimed = 5;  // fewer tell nothing about a space
constexpr std::size_t kMostSeeds = 8;
constexpr double kLeastGain = 0.01;

double odd_bits(double number) {
  if (number < 1 || number > 1e9 || number != std::floor(number)) return 0;
  auto n = static_cast<std::uint64_t>(number);
  while (n % 2 == 0) n /= 2;
  return std::min(kMostUneven, std::log2(static_cast<double>(n)));
}

// Standard scores of a source's log times; what it does not know is predicted from what it does.
std::vector<float> source_scores(const SearchSpace& space, const std::vector<double>& times) {
  std::vector<std::size_t> known, unknown;
  double sum = 0, squares = 0, count = 0, worst = -kFailed;
  for (std::size_t i = 0; i < times.size(); ++i) {
    (std::isnan(times[i]) ? unknown : known).push_back(i);
    if (!(times[i] < kFailed)) continue;
    const double log = std::log(times[i]);
    sum += log;
    squares += log * log;
    worst = std::max(worst, log);
    ++count;
  }
  const double mean = sum / count, deviation = std::sqrt(std::max(1e-12, squares / count - mean * mean));
  std::vector<float> scores(times.size());
  for (const std::size_t i : known)
    scores[i] = static_cast<float>(((times[i] < kFailed ? std::log(times[i]) : worst) - mean) / deviation);
  if (unknown.empty()) return scores;
  // The best half as it is, where precision matters, and a random sample of the others.
  const auto most = static_cast<std::size_t>(
      std::min(kMostSourceData, std::max(24.0, std::sqrt(kSourceWork / static_cast<double>(unknown.size())))));
  if (known.size() > most) {
    Random64 random(1);
    std::stable_sort(known.begin(), known.end(), [&](auto a, auto b) { return times[a] < times[b]; });
    for (std::size_t i = most / 2; i < most; ++i) std::swap(known[i], known[i + random.below(known.size() - i)]);
    known.resize(most);
  }
  std::vector<double> targets;
  for (const std::size_t i : known) targets.push_back(scores[i]);
  Surrogate surrogate(space, {}, 1);
  surrogate.fit(known, targets, unknown);
  for (std::size_t c = 0; c < unknown.size(); ++c) scores[unknown[c]] = static_cast<float>(surrogate.mean(c));
  return scores;
}

}  // namespace

std::vector<float> unevenness(const SearchSpace& space) {
  std::vector<float> result(space.points.size());
  for (std::size_t a = 0; a < space.axes.size(); ++a) {
    const Axis& axis = space.axes[a];
    if (axis.numbers.size() < 3) continue;
    const double weight = std::min(1.0, static_cast<double>(axis.numbers.size()) / kLongAxis);
    for (std::size_t i = 0; i < space.points.size(); ++i)
      if (const int v = space.points[i][a]; v != kAbsent)
        result[i] += static_cast<float>(weight * odd_bits(axis.numbers[static_cast<std::size_t>(v)]));
  }
  return result;
}

std::vector<std::size_t> round_points(const SearchSpace& space, const std::vector<float>& uneven) {
  std::vector<std::size_t> order(space.points.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return uneven[a] < uneven[b]; });
  std::size_t count = std::min(kLeastRound, order.size());
  while (count < order.size() && uneven[order[count]] <= uneven[order[count - 1]]) ++count;
  order.resize(count);
  return order;
}

std::vector<Basis> make_bases(const SearchSpace& space, const std::vector<float>& uneven) {
  std::vector<Basis> bases;
  if (std::any_of(uneven.begin(), uneven.end(), [](float u) { return u > 0; }))
    bases.push_back({uneven, kUnevenWeight, kUnevenSpread});
  const auto sources = static_cast<double>(space.elsewhere.size());
  for (const auto& times : space.elsewhere)
    bases.push_back({source_scores(space, times), kSourceWeight / sources, kSourceSpread / std::sqrt(sources), true});
  return bases;
}

std::size_t warm_start(SearchSpace& space, const std::vector<Elsewhere>& sources) {
  std::map<std::string, std::size_t> axis_number;
  for (std::size_t a = 0; a < space.axes.size(); ++a) axis_number[space.axes[a].name] = a;
  const PointIndex index(space);
  std::size_t used = 0;
  std::vector<std::vector<double>> shares;  // of each source's best, by point
  for (const Elsewhere& source : sources) {
    std::vector<double> times(space.points.size(), std::nan(""));
    double best = kFailed;
    std::size_t timed = 0;
    for (const auto& [config, time] : source.times) {
      std::vector<int> point(space.axes.size(), kAbsent);
      bool known = true;
      for (const auto& [name, value] : config) {
        const auto at = axis_number.find(name);
        if (at == axis_number.end()) {
          known = false;
          break;
        }
        const auto& values = space.axes[at->second].values;
        const auto v = std::find(values.begin(), values.end(), value);
        known = known && v != values.end();
        point[at->second] = static_cast<int>(v - values.begin());
      }
      if (!known) continue;
      if (const auto i = index.find(point)) {
        times[*i] = time;
        best = std::min(best, time);
        timed += time < kFailed;
      }
    }
    if (timed < kLeastTimed) continue;
    ++used;
    std::vector<double>& share = shares.emplace_back(times.size());
    for (std::size_t i = 0; i < times.size(); ++i) share[i] = times[i] < kFailed ? best / times[i] : 0;
    space.elsewhere.push_back(std::move(times));
  }
  // Greedy cover: each seed adds the most to the sum over the sources of the best share among the seeds.
  std::vector<double> covered(shares.size());
  for (std::size_t s = 0; s < kMostSeeds; ++s) {
    double most = kLeastGain;
    std::size_t chosen = space.points.size();
    for (std::size_t i = 0; i < space.points.size(); ++i) {
      double gain = 0;
      for (std::size_t k = 0; k < shares.size(); ++k) gain += std::max(0.0, shares[k][i] - covered[k]);
      if (gain > most) {
        most = gain;
        chosen = i;
      }
    }
    if (chosen == space.points.size()) break;
    space.seeds.push_back(chosen);
    for (std::size_t k = 0; k < shares.size(); ++k) covered[k] = std::max(covered[k], shares[k][chosen]);
  }
  return used;
}

}  // namespace kgen
