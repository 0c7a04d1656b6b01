#include <algorithm>
#include <random>
#include <set>
#include <unordered_map>

#include "tuner/search/strategy.h"

namespace kgen {
namespace {

struct PointHash {
  std::size_t operator()(const std::vector<int>& point) const {
    std::size_t hash = 1469598103934665603ull;
    for (int value : point) hash = (hash ^ static_cast<std::size_t>(value)) * 1099511628211ull;
    return hash;
  }
};

// Hill climbing with restarts. It starts from the default, the seeds and a stratified random sample (one point from
// each of equal runs of the space, whose order is lexicographic, so every variant and every value of the first tunables
// is met), then tries the untried neighbours of the best point that still has some. A neighbour differs in one tunable,
// by the nearest legal value on either side: rules leave holes in the grid, and stopping at a hole would cut the space
// into islands. When every point within kReach of the best is surrounded, a random untried point restarts the climb;
// every kExplore-th proposal is random anyway, because timing ahead of reports would otherwise fill the queue with
// neighbours of one early favourite.
class Local final : public Strategy {
 public:
  Local(const SearchSpace& space, std::uint64_t seed, std::size_t budget)
      : space_(space), seen_(space.points.size()), random_(seed) {
    const std::size_t n = space.points.size();
    for (std::size_t i = 0; i < n; ++i) {
      index_.emplace(space.points[i], i);
      const auto& point = space.points[i];
      auto& limits = limits_[point.empty() ? 0 : point[0]];
      limits.resize(std::max(limits.size(), point.size()));
      for (std::size_t c = 0; c < point.size(); ++c) limits[c] = std::max(limits[c], point[c]);
    }
    if (n == 0) return;
    start_.push_back(space.default_index);
    start_.insert(start_.end(), space.seeds.begin(), space.seeds.end());
    const std::size_t sample = std::min(n, budget == 0 ? kSample : std::max<std::size_t>(4, budget / 4));
    std::vector<std::size_t> drawn;
    for (std::size_t s = 0; s < sample; ++s) {
      const std::size_t from = n * s / sample, to = n * (s + 1) / sample;
      drawn.push_back(from + random_() % (to - from));
    }
    // Shuffled, so that a budget that ends early has still seen all regions.
    for (std::size_t i = drawn.size(); i > 1; --i) std::swap(drawn[i - 1], drawn[random_() % i]);
    start_.insert(start_.end(), drawn.begin(), drawn.end());
  }

  std::optional<std::size_t> propose() override {
    while (next_start_ < start_.size())
      if (const std::size_t index = start_[next_start_++]; !seen_[index]) return take(index);
    if (++proposals_ % kExplore != 0)
      if (const auto index = untried_neighbour()) return take(*index);
    return untried_random();
  }

  void report(std::size_t index, double time_us) override {
    if (!seen_[index]) take(index);
    if (time_us < kFailed) open_.emplace(time_us, index);
    best_ = std::min(best_, time_us);
  }

 private:
  static constexpr std::size_t kSample = 32;
  static constexpr std::size_t kExplore = 8;
  static constexpr double kReach = 1.5;

  std::size_t take(std::size_t index) {
    seen_[index] = true;
    ++taken_;
    return index;
  }

  std::optional<std::size_t> untried_neighbour() {
    while (!open_.empty() && open_.begin()->first <= best_ * kReach) {
      const std::vector<int>& point = space_.points[open_.begin()->second];
      std::vector<std::size_t> found;
      for (std::size_t c = 1; c < point.size(); ++c)
        for (int direction : {-1, 1}) {
          std::vector<int> other = point;
          for (other[c] += direction; other[c] >= 0 && other[c] <= limits_[point[0]][c]; other[c] += direction)
            if (const auto at = index_.find(other); at != index_.end()) {
              if (!seen_[at->second]) found.push_back(at->second);
              break;
            }
        }
      if (!found.empty()) return found[random_() % found.size()];
      open_.erase(open_.begin());  // surrounded
    }
    return std::nullopt;
  }

  std::optional<std::size_t> untried_random() {
    const std::size_t n = seen_.size();
    if (taken_ >= n) return std::nullopt;
    std::size_t index = random_() % n;
    while (seen_[index]) index = (index + 1) % n;
    return take(index);
  }

  const SearchSpace& space_;
  std::unordered_map<std::vector<int>, std::size_t, PointHash> index_;
  std::unordered_map<int, std::vector<int>> limits_;  // variant -> largest ordinal of each coordinate
  std::vector<bool> seen_;                            // proposed or reported
  std::vector<std::size_t> start_;
  std::size_t next_start_ = 0, proposals_ = 0, taken_ = 0;
  std::set<std::pair<double, std::size_t>> open_;  // timed points that may have untried neighbours, best first
  double best_ = kFailed;
  std::mt19937_64 random_;
};

}  // namespace

std::unique_ptr<Strategy> make_local(const SearchSpace& space, std::uint64_t seed, std::size_t budget) {
  return std::make_unique<Local>(space, seed, budget);
}

}  // namespace kgen
