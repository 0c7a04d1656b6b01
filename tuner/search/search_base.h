// What the strategies share: which points were taken, where a point's neighbours are, and draws that are the same with
// every standard library.
#pragma once

#include <random>
#include <unordered_map>

#include "tuner/search/strategy.h"

namespace kgen {

class Random64 {
 public:
  explicit Random64(std::uint64_t seed) : engine_(seed) {}
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }  // [0, 1)
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  std::mt19937_64 engine_;
};

// Finds points by their ordinals. The space must outlive it.
class PointIndex {
 public:
  explicit PointIndex(const SearchSpace&);
  std::optional<std::size_t> find(const std::vector<int>& point) const;
  // Points that differ in one axis, by any value.
  std::vector<std::size_t> neighbours(std::size_t index) const;
  // Points that differ in one axis: by the nearest legal value on either side where values have an order (rules leave
  // holes in the grid, and stopping at a hole would cut the space into islands), else by any value.
  std::vector<std::size_t> steps(std::size_t index) const;

 private:
  struct Hash {
    std::size_t operator()(const std::vector<int>& point) const;
  };
  const SearchSpace& space_;
  std::unordered_map<std::vector<int>, std::size_t, Hash> index_;
};

// Keeps the promises of Strategy; a strategy says only what it would like next and hears what came of it.
class SearchBase : public Strategy {
 public:
  std::optional<std::size_t> propose() final;
  void report(std::size_t index, double time_us) final;
  std::optional<double> expected_loss() final { return seen_count_ == seen_.size() ? 0 : predict_loss(); }

 protected:
  // `seeds`: how many of the space's seeds come before next() is asked.
  SearchBase(const SearchSpace& space, std::uint64_t seed, std::size_t seeds = SIZE_MAX)
      : space_(space), random_(seed), seen_(space.points.size()), seeds_(std::min(seeds, space.seeds.size())) {}

  // A point that is not seen yet, or nothing: a random one is taken then. `taken` and `told` are called for every
  // point, also seeds, random ones and those of an earlier run (told without taken).
  virtual std::optional<std::size_t> next() = 0;
  virtual void taken(std::size_t) {}
  virtual void told(std::size_t, double /*time_us*/) {}
  virtual std::optional<double> predict_loss() { return std::nullopt; }

  bool seen(std::size_t index) const { return seen_[index]; }
  std::size_t seen_count() const { return seen_count_; }
  std::optional<std::size_t> unseen_random();
  // Of some points, a random one that is not seen.
  std::optional<std::size_t> unseen_of(std::vector<std::size_t> points);

  const SearchSpace& space_;
  Random64 random_;

 private:
  std::vector<bool> seen_;  // proposed or reported
  std::size_t seeds_, next_seed_ = 0, seen_count_ = 0;
};

}  // namespace kgen
