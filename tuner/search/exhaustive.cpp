#include "tuner/search/strategy.h"

namespace kgen {
namespace {

// Every point once, in the order of the space, the default first.
class Exhaustive final : public Strategy {
 public:
  explicit Exhaustive(const SearchSpace& space) : space_(space), seen_(space.points.size()) {}

  std::optional<std::size_t> propose() override {
    if (!seen_.empty() && !seen_[space_.default_index]) return take(space_.default_index);
    while (next_ < seen_.size() && seen_[next_]) ++next_;
    if (next_ == seen_.size()) return std::nullopt;
    return take(next_);
  }
  void report(std::size_t index, double) override { seen_[index] = true; }

 private:
  std::size_t take(std::size_t index) {
    seen_[index] = true;
    return index;
  }
  const SearchSpace& space_;
  std::vector<bool> seen_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Strategy> make_exhaustive(const SearchSpace& space) { return std::make_unique<Exhaustive>(space); }

}  // namespace kgen
