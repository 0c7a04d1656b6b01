#include "tuner/stats.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace kgen {

double median(std::span<const double> samples) {
  if (samples.empty()) return 0;
  std::vector<double> sorted(samples.begin(), samples.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  if (sorted.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(sorted.begin(), middle)) / 2;
}

double median_deviation(std::span<const double> samples) {
  const double center = median(samples);
  std::vector<double> deviations;
  deviations.reserve(samples.size());
  for (double sample : samples) deviations.push_back(std::abs(sample - center));
  return median(deviations);
}

MedianInterval median_interval(std::span<const double> samples) {
  const std::size_t n = samples.size();
  if (n == 0) return {};
  std::vector<double> sorted(samples.begin(), samples.end());
  std::sort(sorted.begin(), sorted.end());
  // [sorted[k], sorted[n-1-k]] misses the median with probability 2 P(Binomial(n, 1/2) <= k). Take the largest k that
  // keeps the miss within 5 %.
  double term = std::pow(0.5, static_cast<double>(n));  // P(X = 0); n stays below 1000
  double tail = term;
  if (2 * tail > 0.05) return {sorted.front(), sorted.back(), false};
  std::size_t k = 0;
  while (k + 1 < n / 2) {
    term *= static_cast<double>(n - k) / static_cast<double>(k + 1);
    if (2 * (tail + term) > 0.05) break;
    tail += term;
    ++k;
  }
  return {sorted[k], sorted[n - 1 - k], true};
}

double probability_not_smaller(std::span<const double> a, std::span<const double> b) {
  struct Difference {
    double size;
    bool a_is_smaller;
  };
  std::vector<Difference> differences;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (a[i] != b[i]) differences.push_back({std::abs(a[i] - b[i]), a[i] < b[i]});
  if (differences.empty()) return 1;
  std::sort(differences.begin(), differences.end(), [](auto& x, auto& y) { return x.size < y.size; });
  const double n = static_cast<double>(differences.size());
  double rank_sum = 0;  // of the pairs where a is smaller
  double tie_term = 0;
  for (std::size_t i = 0; i < differences.size();) {
    std::size_t j = i;
    while (j < differences.size() && differences[j].size == differences[i].size) ++j;
    const double rank = (static_cast<double>(i + 1) + static_cast<double>(j)) / 2;
    const double ties = static_cast<double>(j - i);
    tie_term += ties * ties * ties - ties;
    for (; i < j; ++i)
      if (differences[i].a_is_smaller) rank_sum += rank;
  }
  const double mean = n * (n + 1) / 4;
  const double variance = n * (n + 1) * (2 * n + 1) / 24 - tie_term / 48;
  if (variance <= 0) return 1;
  const double z = (rank_sum - mean - 0.5) / std::sqrt(variance);
  return 0.5 * std::erfc(z / std::sqrt(2.0));
}

Comparison compare(std::span<const double> challenger, std::span<const double> incumbent) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < std::min(challenger.size(), incumbent.size()); ++i)
    if (incumbent[i] > 0) ratios.push_back(challenger[i] / incumbent[i]);
  Comparison result;
  if (ratios.empty()) return result;
  result.gain = 1 - median(ratios);
  result.probability = probability_not_smaller(challenger, incumbent);
  result.replaces = result.gain >= kLeastGain && result.probability < kSignificance;
  return result;
}

std::vector<bool> still_in(const std::vector<std::vector<double>>& costs) {
  const auto mean = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  };
  std::vector<bool> in(costs.size());
  std::size_t best = costs.size();
  for (std::size_t i = 0; i < costs.size(); ++i) {
    in[i] = !costs[i].empty();
    if (in[i] && (best == costs.size() || mean(costs[i]) < mean(costs[best]))) best = i;
  }
  if (best == costs.size() || costs[best].size() < 2) return in;
  bool matters = false;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    if (!in[i] || i == best) continue;
    std::vector<double> over, squares;
    for (std::size_t k = 0; k < costs[best].size(); ++k) over.push_back(costs[i][k] / costs[best][k] - 1);
    for (const double each : over) squares.push_back((each - mean(over)) * (each - mean(over)));
    const double error = std::sqrt(mean(squares) / static_cast<double>(over.size() - 1));
    in[i] = mean(over) < kSure * error || mean(over) == 0;
    matters |= in[i] && mean(over) - kSure * error < -kWorthARace;
  }
  if (!matters) {
    in.assign(costs.size(), false);
    in[best] = true;
  }
  return in;
}

std::size_t best_in_peace(std::size_t best, std::span<const double> before_us) {
  if (std::isinf(before_us[best])) return best;
  const auto fastest = std::min_element(before_us.begin(), before_us.end());
  return *fastest < (1 - kLeastGain) * before_us[best] ? static_cast<std::size_t>(fastest - before_us.begin()) : best;
}

}  // namespace kgen
