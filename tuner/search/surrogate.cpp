#include "tuner/search/surrogate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

namespace kgen {
namespace {

// Weak priors, in the units of the parameters that are searched: logit of relevance, log of length and noise.
constexpr double kRelevance = 1.4, kRelevanceSpread = 1.2;
constexpr double kLength = 0.6, kLengthSpread = 0.8;
constexpr double kNoise = 1e-3, kNoiseSpread = 2;
constexpr double kLeastSpread = 0.3;    // of a doubtful basis, as a share of what was believed before
constexpr double kScaleCount = 2;       // observations that the prior scale 1 is worth
constexpr std::size_t kFitPoints = 96;  // for the covariance's parameters; more cost time and change little

double logit(double x) { return std::log(x / (1 - x)); }
double square(double x) { return x * x; }

}  // namespace

Surrogate::Surrogate(const SearchSpace& space, std::vector<Basis> bases, std::uint64_t seed)
    : space_(space), bases_(std::move(bases)), random_(seed) {
  for (const Basis& basis : bases_) believed_.emplace_back(basis.weight, basis.spread);
  for (std::size_t a = 0; a < space.axes.size(); ++a) {
    const Axis& axis = space.axes[a];
    Factor factor;
    factor.levels = static_cast<int>(axis.values.size());
    if (factor.levels < 2) continue;
    factor.ordered = factor.levels > 2 && !axis.numbers.empty();
    if (factor.ordered) {
      // Half way between rank and logarithm: sizes act by their ratio, but long axes are often linear.
      const double least = axis.numbers.front(), most = axis.numbers.back();
      for (std::size_t v = 0; v < axis.numbers.size(); ++v) {
        const double rank = static_cast<double>(v) / (factor.levels - 1);
        const double log = least > 0 ? std::log(axis.numbers[v] / least) / std::log(most / least) : rank;
        factor.place.push_back(static_cast<float>((rank + log) / 2));
      }
    }
    factor.level.reserve(space.points.size());
    for (const auto& point : space.points)
      factor.level.push_back(static_cast<std::uint16_t>(point[a] == kAbsent ? factor.levels : point[a]));
    factors_.push_back(std::move(factor));
  }
}

void Surrogate::tabulate(Factor& factor) const {
  const auto size = static_cast<std::size_t>(factor.levels + 1);
  factor.table.assign(size * size, static_cast<float>(1 - factor.relevance));
  for (std::size_t i = 0; i < size; ++i) factor.table[i * size + i] = 1;
  if (!factor.ordered) return;
  for (std::size_t i = 0; i + 1 < size; ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const double distance = std::abs(factor.place[i] - factor.place[j]) / factor.length * std::sqrt(3.0);
      const double kappa =
          kernel_ == Kernel::kMatern ? (1 + distance) * std::exp(-distance) : std::exp(-distance / std::sqrt(3.0));
      factor.table[i * size + j] = factor.table[j * size + i] =
          static_cast<float>(1 - factor.relevance + factor.relevance * kappa);
    }
}

double Surrogate::covariance(std::size_t a, std::size_t b) const {
  double product = 1;
  for (const Factor& factor : factors_)
    product *= factor.table[factor.level[a] * static_cast<std::size_t>(factor.levels + 1) + factor.level[b]];
  for (const Basis& basis : bases_) product += square(basis.spread) * basis.value[a] * basis.value[b];
  return product;
}

double Surrogate::residual(std::size_t point, double target) const {
  for (const Basis& basis : bases_) target -= basis.weight * basis.value[point];
  return target;
}

// Logarithm of the posterior density of the covariance's parameters, up to a constant.
double Surrogate::evidence(std::span<const std::size_t> points, std::span<const double> targets) const {
  const std::size_t n = points.size();
  std::vector<double> matrix(n * n), one(n), target(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) matrix[j * n + i] = covariance(points[i], points[j]);
    matrix[i * n + i] += noise_;
    one[i] = 1;
    target[i] = residual(points[i], targets[i]);
  }
  // Right-looking Cholesky: row k of `matrix` becomes column k of the factor; inner loops run along rows.
  double log_determinant = 0, one_one = 0, one_target = 0, target_target = 0;
  for (std::size_t k = 0; k < n; ++k) {
    double* const column = &matrix[k * n];
    const double pivot = std::sqrt(std::max(column[k], 1e-10));
    log_determinant += 2 * std::log(pivot);
    for (std::size_t i = k; i < n; ++i) column[i] /= pivot;
    one[k] /= pivot;
    target[k] /= pivot;
    one_one += one[k] * one[k];
    one_target += one[k] * target[k];
    target_target += target[k] * target[k];
    for (std::size_t i = k + 1; i < n; ++i) {
      const double factor = column[i];
      double* const row = &matrix[i * n];
      for (std::size_t j = i; j < n; ++j) row[j] -= factor * column[j];
      one[i] -= factor * one[k];
      target[i] -= factor * target[k];
    }
  }
  const double rest = target_target - one_target * one_target / one_one + kScaleCount;
  const double count = static_cast<double>(n) + kScaleCount;
  double value = -0.5 * count * std::log(rest / count) - 0.5 * log_determinant;
  value -= 0.5 * square(std::log(noise_ / kNoise) / kNoiseSpread);
  for (const Factor& factor : factors_) {
    value -= 0.5 * square((logit(factor.relevance) - kRelevance) / kRelevanceSpread);
    if (factor.ordered) value -= 0.5 * square(std::log(factor.length / kLength) / kLengthSpread);
  }
  return value;
}

void Surrogate::adapt(std::span<const std::size_t> points, std::span<const double> targets, bool rough) {
  const auto use = [&](Kernel kernel) {
    kernel_ = kernel;
    for (Factor& factor : factors_) tabulate(factor);
    return evidence(points, targets);
  };
  double best = use(Kernel::kExponential);
  if (!rough) {
    if (const double matern = use(Kernel::kMatern); matern >= best) {
      best = matern;
    } else {
      use(Kernel::kExponential);
    }
  }
  // Each parameter in turn is moved up and down by a random step.
  const auto move = [&](Factor& factor, double Factor::* parameter, auto&& moved) {
    const double old = factor.*parameter;
    double keep = old;
    for (const int direction : {-1, 1}) {
      factor.*parameter = moved(old, direction);
      tabulate(factor);
      if (const double value = evidence(points, targets); value > best) {
        best = value;
        keep = factor.*parameter;
      }
    }
    factor.*parameter = keep;
    tabulate(factor);
  };
  const int sweeps = adapted_ ? 1 : 3;
  adapted_ = true;
  for (int sweep = 0; sweep < sweeps; ++sweep)
    for (Factor& factor : factors_) {
      move(factor, &Factor::relevance, [&](double old, int direction) {
        const double at = std::clamp(logit(old) + direction * (0.4 + random_.uniform()), -5.0, 6.0);
        return 1 / (1 + std::exp(-at));
      });
      if (!factor.ordered) continue;
      move(factor, &Factor::length, [&](double old, int direction) {
        return std::clamp(old * std::exp(direction * (0.2 + 0.6 * random_.uniform())), 0.03, 8.0);
      });
    }
  // How far each doubtful basis is followed. Its spread stays, so that it may be followed again.
  for (std::size_t b = 0; b < bases_.size(); ++b) {
    if (!bases_[b].doubtful) continue;
    std::pair keep{bases_[b].weight, bases_[b].spread};
    for (const double trust : {1.0, 0.5, 0.2, 0.0}) {
      bases_[b].weight = trust * believed_[b].first;
      bases_[b].spread = std::max(trust, kLeastSpread) * believed_[b].second;
      if (const double value = evidence(points, targets); value > best) {
        best = value;
        keep = {bases_[b].weight, bases_[b].spread};
      }
    }
    std::tie(bases_[b].weight, bases_[b].spread) = keep;
  }
  double keep = noise_;
  for (const double other : {noise_ / 3, noise_ * 3}) {
    noise_ = std::clamp(other, 1e-5, 0.3);
    if (const double value = evidence(points, targets); value > best) {
      best = value;
      keep = noise_;
    }
  }
  noise_ = keep;
}

void Surrogate::fit(std::span<const std::size_t> points, std::span<const double> targets, std::vector<std::size_t> pool,
                    bool rough) {
  if (points.size() <= kFitPoints) {
    adapt(points, targets, rough);
  } else {
    // The best third, where precision matters, and a random sample of the others.
    std::vector<std::size_t> order(points.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return targets[a] < targets[b]; });
    for (std::size_t i = kFitPoints / 3; i < kFitPoints; ++i)
      std::swap(order[i], order[i + random_.below(order.size() - i)]);
    std::vector<std::size_t> some_points(kFitPoints);
    std::vector<double> some_targets(kFitPoints);
    for (std::size_t i = 0; i < kFitPoints; ++i) {
      some_points[i] = points[order[i]];
      some_targets[i] = targets[order[i]];
    }
    adapt(some_points, some_targets, rough);
  }
  pool_ = std::move(pool);
  points_.clear();
  lower_.clear();
  solved_.clear();
  ones_.clear();
  prior_.assign(pool_.size(), 0);
  variance_.assign(pool_.size(), 1);
  ones_sum_.assign(pool_.size(), 0);
  for (const Basis& basis : bases_)
    for (std::size_t c = 0; c < pool_.size(); ++c) {
      const double value = basis.value[pool_[c]];
      prior_[c] += static_cast<float>(basis.weight * value);
      variance_[c] += static_cast<float>(square(basis.spread * value));
    }
  update(points, targets);
}

// One more row of the Cholesky factor and of its solution for the pool.
void Surrogate::append(std::size_t point) {
  std::vector<double> row;
  double pivot = covariance(point, point) + noise_, one = 1;
  for (std::size_t k = 0; k < points_.size(); ++k) {
    double value = covariance(point, points_[k]);
    for (std::size_t j = 0; j < k; ++j) value -= row[j] * lower_[k][j];
    row.push_back(value / lower_[k][k]);
    pivot -= square(row[k]);
    one -= row[k] * ones_[k];
  }
  pivot = std::sqrt(std::max(pivot, 1e-8));
  row.push_back(pivot);
  ones_.push_back(one / pivot);

  const std::size_t n = pool_.size();
  std::vector<float> solved(n, 1.0f);
  for (const Factor& factor : factors_) {
    const float* const table = &factor.table[factor.level[point] * static_cast<std::size_t>(factor.levels + 1)];
    for (std::size_t c = 0; c < n; ++c) solved[c] *= table[factor.level[pool_[c]]];
  }
  for (const Basis& basis : bases_) {
    const auto weight = static_cast<float>(square(basis.spread) * basis.value[point]);
    for (std::size_t c = 0; c < n; ++c) solved[c] += weight * basis.value[pool_[c]];
  }
  const auto one_weight = static_cast<float>(ones_.back()), inverse = static_cast<float>(1 / pivot);
  for (std::size_t k = 0; k < points_.size(); ++k) {
    const auto weight = static_cast<float>(row[k]);
    const float* const other = solved_[k].data();
    for (std::size_t c = 0; c < n; ++c) solved[c] -= weight * other[c];
  }
  for (std::size_t c = 0; c < n; ++c) {
    solved[c] *= inverse;
    variance_[c] -= solved[c] * solved[c];
    ones_sum_[c] += one_weight * solved[c];
  }
  lower_.push_back(std::move(row));
  solved_.push_back(std::move(solved));
  points_.push_back(point);
}

void Surrogate::update(std::span<const std::size_t> points, std::span<const double> targets) {
  while (points_.size() < points.size()) append(points[points_.size()]);
  std::vector<double> solution(points_.size());
  double one_one = 0, one_target = 0, target_target = 0;
  target_sum_.assign(pool_.size(), 0);
  for (std::size_t i = 0; i < points_.size(); ++i) {
    double value = residual(points_[i], targets[i]);
    for (std::size_t j = 0; j < i; ++j) value -= lower_[i][j] * solution[j];
    solution[i] = value / lower_[i][i];
    one_one += square(ones_[i]);
    one_target += ones_[i] * solution[i];
    target_target += square(solution[i]);
    const auto weight = static_cast<float>(solution[i]);
    const float* const solved = solved_[i].data();
    for (std::size_t c = 0; c < pool_.size(); ++c) target_sum_[c] += weight * solved[c];
  }
  constant_ = one_target / one_one;
  const double rest = target_target - constant_ * one_target + kScaleCount;
  scale_ = std::sqrt(rest / (static_cast<double>(points_.size()) + kScaleCount));
}

double Surrogate::mean(std::size_t at) const { return prior_[at] + constant_ * (1 - ones_sum_[at]) + target_sum_[at]; }
double Surrogate::deviation(std::size_t at) const { return std::sqrt(std::max(1e-9f, variance_[at])) * scale_; }

std::vector<float> Surrogate::expect(std::span<const double> values) const {
  std::vector<float> expected(pool_.size());
  std::vector<double> solution;
  for (std::size_t i = 0; i < points_.size(); ++i) {
    double value = values[i];
    for (std::size_t j = 0; j < i; ++j) value -= lower_[i][j] * solution[j];
    solution.push_back(value / lower_[i][i]);
    const auto weight = static_cast<float>(solution[i]);
    for (std::size_t c = 0; c < pool_.size(); ++c) expected[c] += weight * solved_[i][c];
  }
  return expected;
}

std::vector<std::vector<double>> Surrogate::draw(const std::vector<std::size_t>& at, std::size_t draws,
                                                 Random64& random) const {
  const std::size_t n = at.size();
  std::vector<std::vector<double>> lower(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double value = covariance(pool_[at[i]], pool_[at[j]]);
      for (const auto& solved : solved_) value -= static_cast<double>(solved[at[i]]) * solved[at[j]];
      for (std::size_t k = 0; k < j; ++k) value -= lower[i][k] * lower[j][k];
      lower[i].push_back(j < i ? value / lower[j][j] : std::sqrt(std::max(value, 1e-6)));
    }
  }
  std::vector<std::vector<double>> rows(draws);
  std::vector<double> normal(n);
  for (auto& row : rows) {
    // Box and Muller, so that the draws are the same with every standard library.
    for (double& z : normal)
      z = std::sqrt(-2 * std::log(1 - random.uniform())) * std::cos(6.283185307179586 * random.uniform());
    for (std::size_t i = 0; i < n; ++i) {
      double value = 0;
      for (std::size_t k = 0; k <= i; ++k) value += lower[i][k] * normal[k];
      row.push_back(mean(at[i]) + scale_ * value);
    }
  }
  return rows;
}

}  // namespace kgen
