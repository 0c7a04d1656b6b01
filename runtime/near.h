// Which of many tuned kernels is likely to be the fastest for a shape that none of them was tuned for: the nearest few
// are compared by a model of their times (docs/lookup.md says how well it does).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/plan.h"

namespace kgen {

// Of the nearest rows so many are compared. (H100, bench/near_bench.cpp: 4 lose 1 % more on average, 12 nothing less.)
constexpr std::size_t kNearRows = 6;
// How much slower a kernel gets, against the best one, for each octave that a dim is away from what it was tuned for:
// the logarithm that is added to its predicted time, and the loss that is expected of the one that is chosen, at most.
constexpr double kDoubtOfOctave = 0.2, kLossOfOctave = 0.03, kMostLoss = 0.2;

// What a launch plan makes of a shape: as much of it as the model needs, without binding all of it. Immutable.
class Workload {
 public:
  explicit Workload(const Plan&);
  std::size_t steps() const { return steps_.size(); }
  // Work-items of a block of a step.
  std::int64_t block(std::size_t step) const { return steps_[step].block; }
  // Waves of blocks, each step's rounded up, where `at_once` blocks of a step run at once. `dims` beside Plan::dims. 0:
  // nothing runs, or an expression cannot be evaluated.
  double waves(std::span<const std::int64_t> dims, std::span<const double> at_once) const;
  // How much longer a block takes for `dims` than for `tuned`: flops with the dims that the grid does not depend on
  // (the depth of a product), over flops without. 1 where that is not known.
  double depth(std::span<const std::int64_t> dims, std::span<const std::int64_t> tuned) const;

 private:
  struct Term {
    Expr expr;
    std::vector<int> slots;  // of its names, among the dims
    bool known = true;       // all its names
    double fixed = -1;       // the value of what reads no dim
  };
  struct StepTerms {
    Term when;
    std::array<Term, 3> grid;
    std::int64_t block = 0;
  };
  Term term(const Plan&, const Expr&);
  double eval(const Term&, std::span<const std::int64_t> dims) const;  // below 0: not possible

  std::vector<StepTerms> steps_;  // those of a launch
  Term flops_;
  std::vector<bool> in_grid_;  // beside Plan::dims
};

// A tuned kernel as the model sees it. The time at another shape is that at its own, times the ratio of the waves,
// times that of a block's depth.
class TimeModel {
 public:
  struct Occupancy {
    int units = 0, waves = 0, wave_size = 0;  // compute units, waves that a unit holds; 0 or less: not known
  };
  TimeModel(const Workload&, std::vector<std::int64_t> dims, double us, const Occupancy&);
  double us(const Workload&, std::span<const std::int64_t> dims) const;

 private:
  std::vector<std::int64_t> dims_;
  std::vector<double> at_once_;
  double us_, waves_;
};

// The shapes of tuned rows, to find the nearest of hundreds in less than a microsecond. The distance of two shapes is
//   sum over dims of |log2((a + 1) / (b + 1))|
// over those that differ from their defaults in one of the two.
class NearShapes {
 public:
  struct Near {
    double distance = 0;
    std::size_t row = 0;
  };
  // `given`: which dims differ from their defaults.
  void add(std::size_t row, std::span<const std::int64_t> dims, const std::vector<bool>& given);
  // The nearest ones, at most `most` of them, nearest first; of those at one distance the one that was added first.
  std::vector<Near> nearest(std::span<const std::int64_t> dims, const std::vector<bool>& given, std::size_t most) const;
  std::size_t size() const { return rows_.size(); }

 private:
  std::vector<std::size_t> rows_;
  std::vector<std::vector<float>> logs_;         // [dim][added]
  std::vector<std::vector<std::size_t>> given_;  // [dim]: those that differ from its default, by their place
};

}  // namespace kgen
