#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "tuner/search/prior.h"
#include "tuner/search/surrogate.h"

namespace kgen {
namespace {

// Model-based search: a few round, diverse points first, then always the point with the highest expected improvement
// of log(time) under a Gaussian process. Once the good regions are known, slow times are squeezed together and the
// model is made rough: what is left to find stands between cliffs. docs/search.md has what each constant was measured
// at.
class Model final : public SearchBase {
 public:
  Model(const SearchSpace& space, std::uint64_t seed)
      : SearchBase(space, seed),
        index_(space),
        uneven_(unevenness(space)),
        surrogate_(space, make_bases(space, uneven_), seed) {}

 private:
  static constexpr std::size_t kStart = 6;       // diverse points before the model is asked
  static constexpr std::size_t kDraws = 50;      // candidates for each of them
  static constexpr double kAmbition = 0.1;       // least improvement that counts, in deviations of the targets
  static constexpr std::size_t kFine = 50;       // trials from which on the good regions count as known
  static constexpr double kSqueeze = 0.5;        // of the median's distance from the best: what stays as it is
  static constexpr double kMostRisk = 0.95;      // of failing, that the model may be sure of
  static constexpr double kRefit = 0.1;          // growth of the data between two fits
  static constexpr std::size_t kMostData = 240;  // points that the model learns at once
  static constexpr double kScored = 6e5;         // data × pool: bounds the time of a proposal
  static constexpr std::size_t kLeastPool = 2048;
  static constexpr std::size_t kElite = 6;
  static constexpr std::size_t kDrawn = 100, kLossDraws = 200;  // for the expected loss: points, and draws of them

  struct Trial {
    std::size_t point;
    double log_time;  // of a pending one: what the model believes, NaN where it was not asked
    enum { kPending, kTimed, kFailedHere } state;
  };

  std::optional<std::size_t> next() override;
  std::optional<double> predict_loss() override;
  void taken(std::size_t index) override {
    number_.emplace(index, trials_.size());
    trials_.push_back({index, believed_, Trial::kPending});
    believed_ = std::nan("");
  }
  void told(std::size_t index, double time_us) override {
    if (!number_.contains(index)) taken(index);
    Trial& trial = trials_[number_[index]];
    trial.state = time_us < kFailed ? Trial::kTimed : Trial::kFailedHere;
    if (trial.state == Trial::kTimed) trial.log_time = std::log(std::max(time_us, 1e-12));
  }

  std::size_t spread_point();
  bool look(bool squeeze);
  void standardise(const std::vector<std::size_t>& data, std::vector<std::size_t>& points,
                   std::vector<double>& targets);
  std::vector<std::size_t> choose_data(Random64&) const;
  double target(const Trial&) const;
  double unsqueezed(double target) const;  // its inverse, as a log time
  std::vector<std::size_t> make_pool(Random64&) const;

  const PointIndex index_;
  const std::vector<float> uneven_;
  Surrogate surrogate_;
  std::vector<Trial> trials_;
  std::unordered_map<std::size_t, std::size_t> number_;  // point -> its trial
  std::vector<std::size_t> round_;                       // points with the least unevenness
  std::vector<std::size_t> data_;                        // trials that the model knows
  std::size_t known_trials_ = 0, fitted_trials_ = 0;     // of trials_: looked at, looked at by the last fit
  double best_ = 0, median_ = 0, worst_ = 0;             // log times
  double mean_ = 0, deviation_ = 1;                      // of the targets
  double width_ = 0;                                     // of the squeeze; 0: none
  double believed_ = std::nan("");  // log time of the point that is proposed, where the model chose it
};

// The farthest of some round points from all that were taken; steps along an axis count by the square root of their
// share of it, so that a point that differs everywhere a little is far.
std::size_t Model::spread_point() {
  if (round_.empty()) round_ = round_points(space_, uneven_);
  const auto distance = [&](std::size_t a, std::size_t b) {
    double sum = 0;
    for (std::size_t axis = 0; axis < space_.axes.size(); ++axis) {
      const int p = space_.points[a][axis], q = space_.points[b][axis];
      if (p == q) continue;
      const bool ordered = !space_.axes[axis].numbers.empty() && p != kAbsent && q != kAbsent;
      sum += ordered ? std::sqrt(std::abs(p - q) / (static_cast<double>(space_.axes[axis].values.size()) - 1)) : 1;
    }
    return sum;
  };
  std::optional<std::size_t> best;
  double farthest = -1;
  for (std::size_t draw = 0; draw < kDraws; ++draw) {
    const std::size_t point = round_[random_.below(round_.size())];
    if (seen(point)) continue;
    double nearest = 1e9;
    for (const Trial& trial : trials_) nearest = std::min(nearest, distance(point, trial.point));
    if (nearest > farthest) {
      farthest = nearest;
      best = point;
    }
  }
  return best ? *best : *unseen_random();
}

// Those that the model learns: all trials while they are few; later the best ones and a random sample.
std::vector<std::size_t> Model::choose_data(Random64& random) const {
  std::vector<std::size_t> data(trials_.size());
  std::iota(data.begin(), data.end(), std::size_t{0});
  if (data.size() <= kMostData) return data;
  const auto time = [&](std::size_t i) { return trials_[i].state == Trial::kTimed ? trials_[i].log_time : kFailed; };
  std::stable_sort(data.begin(), data.end(), [&](auto a, auto b) { return time(a) < time(b); });
  for (std::size_t i = kMostData / 2; i < kMostData; ++i) std::swap(data[i], data[i + random.below(data.size() - i)]);
  data.resize(kMostData);
  return data;
}

// The points to choose from until the next fit: all, or a random sample with the neighbours of the best.
std::vector<std::size_t> Model::make_pool(Random64& random) const {
  const std::size_t n = space_.points.size();
  const double data = static_cast<double>(std::min(trials_.size(), kMostData));
  const auto limit = std::max(kLeastPool, static_cast<std::size_t>(kScored / data));
  std::vector<std::size_t> pool;
  if (n - seen_count() <= limit) {
    for (std::size_t i = 0; i < n; ++i)
      if (!seen(i)) pool.push_back(i);
    return pool;
  }
  std::vector<std::pair<double, std::size_t>> best;
  for (const Trial& trial : trials_)
    if (trial.state == Trial::kTimed) best.emplace_back(trial.log_time, trial.point);
  const std::size_t elite = std::min(kElite, best.size());
  std::partial_sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(elite), best.end());
  std::vector<bool> in(n);
  const auto add = [&](std::size_t point) {
    if (!in[point] && !seen(point)) pool.push_back(point);
    in[point] = true;
  };
  for (std::size_t e = 0; e < elite; ++e)
    for (const std::size_t point : index_.neighbours(best[e].second)) add(point);
  // A stride that visits every residue would do; draws with repeats are simpler and as good.
  for (std::size_t draw = 0; draw < 2 * limit && pool.size() < limit; ++draw) add(random.below(n));
  return pool;
}

// What the model learns: how far the log time is from the best, near the best as it is, far from it as a logarithm. A
// failure counts as the slowest time seen: far enough to be avoided, near enough not to bend the model.
double Model::target(const Trial& trial) const {
  const double log_time = trial.state == Trial::kFailedHere ? worst_
                          : std::isnan(trial.log_time)      ? median_
                                                            : trial.log_time;
  const double distance = log_time - best_;
  return width_ > 0 ? width_ * std::log1p(std::max(distance / width_, -0.9)) : distance;
}
double Model::unsqueezed(double target) const {
  return best_ + (width_ > 0 ? width_ * std::expm1(target / width_) : target);
}

// What the targets are measured by. False: nothing succeeded yet.
bool Model::look(bool squeeze) {
  std::vector<double> timed;
  for (const Trial& trial : trials_)
    if (trial.state == Trial::kTimed) timed.push_back(trial.log_time);
  if (timed.empty()) return false;
  std::sort(timed.begin(), timed.end());
  best_ = timed.front();
  median_ = timed[timed.size() / 2];
  worst_ = timed.back();
  width_ = squeeze ? kSqueeze * (median_ - best_) : 0;
  return true;
}

// Points and targets of some trials, the targets as standard scores of mean_ and deviation_.
void Model::standardise(const std::vector<std::size_t>& data, std::vector<std::size_t>& points,
                        std::vector<double>& targets) {
  for (const std::size_t i : data) {
    points.push_back(trials_[i].point);
    targets.push_back(target(trials_[i]));
  }
  const double count = static_cast<double>(targets.size());
  mean_ = std::accumulate(targets.begin(), targets.end(), 0.0) / count;
  double squares = 1e-12;
  for (const double target : targets) squares += (target - mean_) * (target - mean_);
  deviation_ = std::sqrt(squares / count);
  for (double& target : targets) target = (target - mean_) / deviation_;
}

// By how much a normal variable is expected to fall short of a goal.
double shortfall(double goal, double mean, double deviation) {
  const double z = (goal - mean) / deviation;
  return deviation * (z * 0.5 * std::erfc(-z * 0.7071067811865476) + std::exp(-0.5 * z * z) * 0.3989422804014327);
}

std::optional<std::size_t> Model::next() {
  const bool fine = trials_.size() >= kFine;
  if (trials_.size() < (space_.elsewhere.empty() ? kStart : 1) || !look(fine)) return spread_point();
  const bool fit =
      fitted_trials_ == 0 || static_cast<double>(trials_.size()) >= static_cast<double>(fitted_trials_) * (1 + kRefit);
  if (fit) {
    data_ = choose_data(random_);
    fitted_trials_ = trials_.size();
  } else {
    for (std::size_t i = known_trials_; i < trials_.size(); ++i) data_.push_back(i);
  }
  known_trials_ = trials_.size();
  std::vector<std::size_t> points;
  std::vector<double> targets;
  standardise(data_, points, targets);
  if (fit) {
    surrogate_.fit(points, targets, make_pool(random_), fine);
  } else {
    surrogate_.update(points, targets);
  }

  // How likely a point is to fail: 1 at the failures seen, 0 at the successes, and alike where points are alike.
  std::vector<double> failed;
  for (const std::size_t i : data_) failed.push_back(trials_[i].state == Trial::kFailedHere ? 1 : 0);
  const bool any_failed = std::count(failed.begin(), failed.end(), 1.0) > 0;
  const std::vector<float> risk = any_failed ? surrogate_.expect(failed) : std::vector<float>{};
  const double goal = -mean_ / deviation_ - kAmbition;
  std::optional<std::size_t> chosen;
  double most = -1;
  for (std::size_t c = 0; c < surrogate_.pool().size(); ++c) {
    if (seen(surrogate_.pool()[c])) continue;
    double improvement = shortfall(goal, surrogate_.mean(c), surrogate_.deviation(c));
    if (any_failed) improvement *= 1 - std::clamp(static_cast<double>(risk[c]), 0.0, kMostRisk);
    if (improvement > most) {
      most = improvement;
      chosen = surrogate_.pool()[c];
      believed_ = unsqueezed(mean_ + deviation_ * surrogate_.mean(c));
    }
  }
  return chosen;
}

// The mean over draws from the posterior of what the best untried point gains, among those that promise most. A
// surrogate of its own, which looks at the fast region from the first trial on: that is the better judge, if not the
// better guide. To ask changes no later proposal.
std::optional<double> Model::predict_loss() {
  if (!look(true)) return std::nullopt;
  Random64 random(1);
  std::vector<std::size_t> points;
  std::vector<double> targets;
  standardise(choose_data(random), points, targets);
  Surrogate surrogate(space_, make_bases(space_, uneven_), 1);
  surrogate.fit(points, targets, make_pool(random), true);
  std::vector<std::pair<double, std::size_t>> promising;
  for (std::size_t c = 0; c < surrogate.pool().size(); ++c)
    promising.emplace_back(-shortfall(-mean_ / deviation_, surrogate.mean(c), surrogate.deviation(c)), c);
  const std::size_t count = std::min(kDrawn, promising.size());
  std::partial_sort(promising.begin(), promising.begin() + static_cast<std::ptrdiff_t>(count), promising.end());
  std::vector<std::size_t> at;
  for (std::size_t i = 0; i < count; ++i) at.push_back(promising[i].second);
  double sum = 0;
  for (const auto& row : surrogate.draw(at, kLossDraws, random)) {
    const double least = *std::min_element(row.begin(), row.end());
    sum += std::max(0.0, -std::expm1(mean_ + deviation_ * least));  // below the best nothing was squeezed
  }
  return sum / static_cast<double>(kLossDraws);
}

}  // namespace

std::unique_ptr<Strategy> make_model(const SearchSpace& space, std::uint64_t seed) {
  return std::make_unique<Model>(space, seed);
}

}  // namespace kgen
