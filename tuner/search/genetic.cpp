#include <algorithm>

#include "tuner/search/search_base.h"

namespace kgen {
namespace {

// A steady-state genetic algorithm: the kPopulation best points are the parents, drawn by rank in tournaments; a child
// takes a run of axes from one and the rest from the other (axes that stand together, like the sides of a tile, are
// inherited together), one axis may mutate, and what is illegal or known is moved to an untried neighbour.
class Genetic final : public SearchBase {
 public:
  Genetic(const SearchSpace& space, std::uint64_t seed, std::size_t budget)
      : SearchBase(space, seed), index_(space), population_(std::clamp<std::size_t>(budget / 8, 6, kPopulation)) {}

 private:
  static constexpr std::size_t kPopulation = 20;
  static constexpr double kMutation = 0.3;
  static constexpr int kAttempts = 20;

  std::optional<std::size_t> next() override {
    if (elite_.size() < population_) return std::nullopt;  // the first generation is random
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const std::size_t mother = parent();
      std::vector<int> child = space_.points[mother];
      const std::vector<int>& father = space_.points[parent()];
      const std::size_t from = random_.below(child.size()), to = from + 1 + random_.below(child.size() - from);
      std::copy(father.begin() + static_cast<std::ptrdiff_t>(from), father.begin() + static_cast<std::ptrdiff_t>(to),
                child.begin() + static_cast<std::ptrdiff_t>(from));
      if (random_.uniform() < kMutation) {
        const std::size_t axis = random_.below(child.size());
        if (child[axis] != kAbsent) child[axis] = static_cast<int>(random_.below(space_.axes[axis].values.size()));
      }
      const auto at = index_.find(child);
      if (at && !seen(*at)) return at;
      if (const auto near = unseen_of(index_.neighbours(at.value_or(mother)))) return near;
    }
    return std::nullopt;
  }

  void told(std::size_t index, double time_us) override {
    if (time_us == kFailed) return;
    const std::pair<double, std::size_t> entry{time_us, index};
    elite_.insert(std::upper_bound(elite_.begin(), elite_.end(), entry), entry);
    if (elite_.size() > population_) elite_.pop_back();
  }

  std::size_t parent() { return elite_[std::min(random_.below(elite_.size()), random_.below(elite_.size()))].second; }

  const PointIndex index_;
  const std::size_t population_;
  std::vector<std::pair<double, std::size_t>> elite_;  // best first
};

}  // namespace

std::unique_ptr<Strategy> make_genetic(const SearchSpace& space, std::uint64_t seed, std::size_t budget) {
  return std::make_unique<Genetic>(space, seed, budget);
}

}  // namespace kgen
