#include <numeric>
#include <utility>

#include "tuner/search/search_base.h"

namespace kgen {
namespace {

// Points in a random order without repeats, the default first.
class Random final : public SearchBase {
 public:
  Random(const SearchSpace& space, std::uint64_t seed) : SearchBase(space, seed, 1), order_(space.points.size()) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
  }

 private:
  std::optional<std::size_t> next() override {
    while (true) {  // Fisher-Yates, one draw a proposal
      std::swap(order_[next_], order_[next_ + random_.below(order_.size() - next_)]);
      if (const std::size_t index = order_[next_++]; !seen(index)) return index;
    }
  }
  std::vector<std::size_t> order_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Strategy> make_random(const SearchSpace& space, std::uint64_t seed) {
  return std::make_unique<Random>(space, seed);
}

}  // namespace kgen
