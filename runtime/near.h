// Which of many tuned kernels is likely to be the fastest for a shape that none of them was tuned for: the nearest few
// are compared by a model of their times (docs/lookup.md says how well it does).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
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
  // nothing runs, or an expression cannot be evaluated. `scratch` keeps its memory from call to call.
  double waves(std::span<const double> dims, std::span<const double> at_once, std::vector<double>& scratch) const;
  // Flops with the dims that the grid does not depend on (the depth of a product), and the others of `tuned`. Below 0:
  // not known; nothing: they are those of `tuned`.
  std::optional<double> flops(std::span<const double> dims, std::span<const double> tuned,
                              std::vector<double>& scratch) const;
  double flops(std::span<const double> dims, std::vector<double>& scratch) const;

 private:
  struct StepTerms {
    ExprSet::Node when = 0;
    std::array<ExprSet::Node, 3> grid{};
    std::int64_t block = 0;
  };

  ExprSet set_, flops_set_;
  std::vector<StepTerms> steps_;  // those of a launch
  ExprSet::Node flops_ = 0;
  std::vector<std::size_t> depth_;  // dims that flops depend on and the grid does not
};

// A tuned kernel as the model sees it. The time at another shape is that at its own, times the ratio of the waves,
// times how much longer a block takes: flops with the dims that the grid does not depend on, over flops without; 1
// where that is not known.
class TimeModel {
 public:
  struct Occupancy {
    int units = 0, waves = 0, wave_size = 0;  // compute units, waves that a unit holds; 0 or less: not known
  };
  TimeModel(const Workload&, std::span<const double> dims, double us, const Occupancy&);
  double us(const Workload&, std::span<const double> dims, std::vector<double>& scratch) const;

 private:
  std::span<const double> at_once() const { return {numbers_.data(), steps_}; }
  std::span<const double> dims() const { return std::span(numbers_).subspan(steps_); }

  std::vector<double> numbers_;  // blocks of each step that run at once, then the dims: one place in memory
  std::size_t steps_;
  double us_, waves_, flops_;
};

// The shapes of tuned rows, to find the nearest of thousands in less than a microsecond. The distance of two shapes is
//   sum over dims of |log2((a + 1) / (b + 1))|
// over those that differ from their defaults in one of the two. Rows that are alike lie together in blocks, and only
// those blocks are looked at whose bounds say that they may have one. Calls take turns.
class NearShapes {
 public:
  struct Near {
    double distance = 0;
    std::size_t row = 0;
  };
  // `given`: which dims differ from their defaults.
  void add(std::size_t row, std::span<const double> dims, const std::vector<bool>& given);
  // The nearest ones, at most `most` of them, nearest first; of those at one distance the one that was added first.
  // Valid until the next call.
  std::span<const Near> nearest(std::span<const double> dims, const std::vector<bool>& given, std::size_t most);
  std::size_t size() const { return rows_.size(); }

 private:
  static constexpr std::size_t kBlock = 16, kLanes = 4;
  std::size_t block_count() const { return (rows_.size() + kBlock - 1) / kBlock; }
  struct Axis {  // a dim's, in which the rows are arranged
    std::vector<float> logs;
    std::vector<bool> given;  // differs from its default
    bool any_given = false;
    // Of the blocks.
    std::vector<float> least, most;
    std::vector<std::uint16_t> differ;  // one bit a row
  };
  struct Asked {
    const Axis* axis = nullptr;
    float log = 0;
    bool given = false;
  };
  void arrange();
  void split(std::span<std::uint32_t> rows) const;
  void measure(std::size_t block, float (&distance)[kBlock]) const;

  std::vector<std::size_t> rows_;
  std::vector<Axis> axes_;
  std::vector<std::uint32_t> order_;  // places among rows_
  bool arranged_ = false;
  // Of the present call.
  std::vector<Asked> asked_;
  std::vector<float> bounds_;
  std::vector<std::uint64_t> keys_;
  std::vector<Near> found_;
};

}  // namespace kgen
