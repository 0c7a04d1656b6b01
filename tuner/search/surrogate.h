// A Gaussian process over the points of a search space: what a point's time is likely to be, and how sure that is.
#pragma once

#include <span>

#include "tuner/search/search_base.h"

namespace kgen {

// A known function of the points that the mean may follow: its weight is normal with this mean and deviation, in
// standard deviations of the targets.
struct Basis {
  std::vector<float> value;  // of every point
  double weight = 0, spread = 0;
  bool doubtful = false;  // weight and spread may turn out to be less
};

// The covariance is a product over the axes of 1 - b + b·κ(distance/l): all orders of interaction, with one relevance b
// an axis, and a length scale l where values have an order. κ is exponential or Matérn 3/2, whichever explains the data
// better; on categories it is 1 or 0. b, l, the noise and how far doubtful bases are followed are the most probable
// ones under weak priors (coordinate search); the constant mean and the scale are integrated out.
class Surrogate {
 public:
  Surrogate(const SearchSpace& space, std::vector<Basis> bases, std::uint64_t seed);

  // Adapts the covariance to data and predicts at `pool` from then on. Targets should be standardised. `rough`: κ is
  // exponential whatever the data say.
  void fit(std::span<const std::size_t> points, std::span<const double> targets, std::vector<std::size_t> pool,
           bool rough = false);
  // Learns more data without adapting: `points` begins with the points of the call before; targets may be other ones.
  void update(std::span<const std::size_t> points, std::span<const double> targets);

  const std::vector<std::size_t>& pool() const { return pool_; }
  double mean(std::size_t at) const;  // at: position in pool
  double deviation(std::size_t at) const;
  // What the same covariance expects of another quantity, at every pool point: `values` are of the data, and it is 0
  // where nothing is known.
  std::vector<float> expect(std::span<const double> values) const;
  // Draws of all of `at` together, one row a draw.
  std::vector<std::vector<double>> draw(const std::vector<std::size_t>& at, std::size_t draws, Random64&) const;

 private:
  enum class Kernel { kExponential, kMatern };
  struct Factor {  // of one axis
    int levels = 0;
    bool ordered = false;
    double relevance = 0.8, length = 0.6;
    std::vector<float> place;          // of each value, in [0, 1]
    std::vector<float> table;          // (levels + 1)²: the last row and column stand for an absent axis
    std::vector<std::uint16_t> level;  // of every point
  };

  void tabulate(Factor&) const;
  double covariance(std::size_t a, std::size_t b) const;
  double evidence(std::span<const std::size_t> points, std::span<const double> targets) const;
  void adapt(std::span<const std::size_t> points, std::span<const double> targets, bool rough);
  void append(std::size_t point);
  double residual(std::size_t point, double target) const;

  const SearchSpace& space_;
  std::vector<Basis> bases_;
  std::vector<std::pair<double, double>> believed_;  // weight and spread of each basis, before any data
  Random64 random_;
  std::vector<Factor> factors_;
  Kernel kernel_ = Kernel::kMatern;
  double noise_ = 1e-3;
  bool adapted_ = false;

  // Cholesky factor of the data's covariance, and its solutions for the pool, the constant and the targets.
  std::vector<std::size_t> points_, pool_;
  std::vector<std::vector<double>> lower_;
  std::vector<std::vector<float>> solved_;  // one row a data point, one column a pool point
  std::vector<double> ones_;
  std::vector<float> variance_, ones_sum_, target_sum_, prior_;  // by pool position
  double constant_ = 0, scale_ = 1;
};

}  // namespace kgen
