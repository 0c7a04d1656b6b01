#include <algorithm>
#include <cmath>

#include "tuner/search/search_base.h"

namespace kgen {
namespace {

// Simulated annealing. One walker; a step goes to an untried point that differs in one axis (now and then in two), and
// is accepted on its relative loss, at a temperature that falls over the budget. Where nothing untried is near, the
// walker starts again from a random point.
class Annealing final : public SearchBase {
 public:
  Annealing(const SearchSpace& space, std::uint64_t seed, std::size_t budget)
      : SearchBase(space, seed), index_(space), budget_(budget == 0 ? kBudget : budget) {}

 private:
  static constexpr std::size_t kBudget = 200;
  static constexpr double kHot = 0.3, kCold = 0.003;  // relative losses accepted with probability 1/e
  static constexpr double kFar = 0.25;                // share of steps that change two axes

  std::optional<std::size_t> next() override {
    if (time_ == kFailed) return std::nullopt;
    std::vector<std::size_t> near = index_.neighbours(at_);
    if (!near.empty() && random_.uniform() < kFar) near = index_.neighbours(near[random_.below(near.size())]);
    const auto step = unseen_of(std::move(near));
    if (!step) time_ = kFailed;
    return step;
  }

  void told(std::size_t index, double time_us) override {
    if (time_us == kFailed) return;
    const double share = std::min(1.0, static_cast<double>(++told_) / static_cast<double>(budget_));
    const double temperature = kHot * std::pow(kCold / kHot, share);
    if (time_ != kFailed && random_.uniform() >= std::exp((1 - time_us / time_) / temperature)) return;
    at_ = index;
    time_ = time_us;
  }

  const PointIndex index_;
  const std::size_t budget_;
  std::size_t at_ = 0, told_ = 0;
  double time_ = kFailed;
};

}  // namespace

std::unique_ptr<Strategy> make_annealing(const SearchSpace& space, std::uint64_t seed, std::size_t budget) {
  return std::make_unique<Annealing>(space, seed, budget);
}

}  // namespace kgen
