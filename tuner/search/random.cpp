#include <numeric>
#include <random>
#include <utility>

#include "tuner/search/strategy.h"

namespace kgen {
namespace {

// Points in a random order without repeats, the default first.
class Random final : public Strategy {
 public:
  Random(const SearchSpace& space, std::uint64_t seed)
      : order_(space.points.size()), seen_(space.points.size()), random_(seed) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    if (!order_.empty()) std::swap(order_.front(), order_[space.default_index]);
  }

  std::optional<std::size_t> propose() override {
    for (; next_ < order_.size(); ++next_) {
      // Fisher-Yates, one draw a proposal; the draw is ours because std::uniform_int_distribution differs by library.
      if (next_ > 0) std::swap(order_[next_], order_[next_ + random_() % (order_.size() - next_)]);
      const std::size_t index = order_[next_];
      if (seen_[index]) continue;
      seen_[index] = true;
      ++next_;
      return index;
    }
    return std::nullopt;
  }
  void report(std::size_t index, double) override { seen_[index] = true; }

 private:
  std::vector<std::size_t> order_;
  std::vector<bool> seen_;
  std::size_t next_ = 0;
  std::mt19937_64 random_;
};

}  // namespace

std::unique_ptr<Strategy> make_random(const SearchSpace& space, std::uint64_t seed) {
  return std::make_unique<Random>(space, seed);
}

}  // namespace kgen
