#include <algorithm>
#include <set>

#include "tuner/search/search_base.h"

namespace kgen {
namespace {

// Hill climbing with restarts. It starts from the seeds and a stratified random sample (one point from each of equal
// runs of the space, whose order is lexicographic, so every variant and every value of the first tunables is met), then
// tries the untried steps from the best point that still has some. When every point within kReach of the best is
// surrounded, a random untried point restarts the climb; every kExplore-th proposal is random anyway, because timing
// ahead of reports would otherwise fill the queue with neighbours of one early favourite.
class Local final : public SearchBase {
 public:
  Local(const SearchSpace& space, std::uint64_t seed, std::size_t budget) : SearchBase(space, seed), index_(space) {
    const std::size_t n = space.points.size();
    const std::size_t sample = std::min(n, budget == 0 ? kSample : std::max<std::size_t>(4, budget / 4));
    for (std::size_t s = 0; s < sample; ++s) {
      const std::size_t from = n * s / sample, to = n * (s + 1) / sample;
      start_.push_back(from + random_.below(to - from));
    }
    random_.shuffle(start_);  // so that a budget that ends early has still seen all regions
  }

 private:
  static constexpr std::size_t kSample = 32;
  static constexpr std::size_t kExplore = 8;
  static constexpr double kReach = 1.5;

  std::optional<std::size_t> next() override {
    while (next_start_ < start_.size())
      if (const std::size_t index = start_[next_start_++]; !seen(index)) return index;
    if (++proposals_ % kExplore == 0) return std::nullopt;
    while (!open_.empty() && open_.begin()->first <= best_ * kReach) {
      if (const auto index = unseen_of(index_.steps(open_.begin()->second))) return index;
      open_.erase(open_.begin());  // surrounded
    }
    return std::nullopt;
  }

  void told(std::size_t index, double time_us) override {
    if (time_us < kFailed) open_.emplace(time_us, index);
    best_ = std::min(best_, time_us);
  }

  const PointIndex index_;
  std::vector<std::size_t> start_;
  std::size_t next_start_ = 0, proposals_ = 0;
  std::set<std::pair<double, std::size_t>> open_;  // timed points that may have untried steps, best first
  double best_ = kFailed;
};

}  // namespace

std::unique_ptr<Strategy> make_local(const SearchSpace& space, std::uint64_t seed, std::size_t budget) {
  return std::make_unique<Local>(space, seed, budget);
}

}  // namespace kgen
