#include "tuner/search/search_base.h"

namespace kgen {
namespace {

// Every point once, in the order of the space, the default first.
class Exhaustive final : public SearchBase {
 public:
  explicit Exhaustive(const SearchSpace& space) : SearchBase(space, 0, 1) {}

 private:
  std::optional<std::size_t> next() override {
    while (seen(next_)) ++next_;
    return next_;
  }
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<Strategy> make_exhaustive(const SearchSpace& space) { return std::make_unique<Exhaustive>(space); }

}  // namespace kgen
