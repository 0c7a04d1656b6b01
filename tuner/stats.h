// Order statistics of timings. Timings are skewed (interrupts only ever add), so nothing here assumes a normal shape.
#pragma once

#include <span>
#include <vector>

namespace kgen {

// Middle value, mean of the two middle ones for an even count; 0 for none.
double median(std::span<const double> samples);
// Median of |sample - median|.
double median_deviation(std::span<const double> samples);

// Interval that holds the true median with at least 95 % (binomial order statistics, no shape assumed). Below 6 samples
// no such interval exists and `known` is false.
struct MedianInterval {
  double low = 0, high = 0;
  bool known = false;
};
MedianInterval median_interval(std::span<const double> samples);

// Wilcoxon signed-rank test of pairs taken under the same conditions: the probability of differences like these if `a`
// were not smaller than `b` (one-sided, normal approximation with tie and continuity correction; 1 when all pairs are
// equal).
double probability_not_smaller(std::span<const double> a, std::span<const double> b);

// Does a challenger, whose costs (times, energies) were sampled in turns with the incumbent's, cost so much less that
// the incumbent gives way? Yes when the median of the paired ratios is at least kLeastGain below one and the
// signed-rank test says so at p < kSignificance. Both are needed: with many samples the test alone would follow
// differences nobody can feel, and a ratio alone follows noise.
constexpr double kLeastGain = 0.01, kSignificance = 0.01;
struct Comparison {
  double gain = 0;         // 1 - median of the paired ratios
  double probability = 1;  // probability_not_smaller()
  bool replaces = false;
};
Comparison compare(std::span<const double> challenger, std::span<const double> incumbent);

// Who of a race goes on. `costs`: of each, its median cost in every sitting of a race so far, the same sittings of all;
// empty: it is out already. Out is what is dearer than the best by kSure standard errors of its paired ratios. Where
// nobody can be better by kWorthARace any more, the best alone goes on. (Replayed on 36 recorded races of 7 to 9
// kernels of 7 us in 32 sittings, H100, 2026-11-23: ended at 1 %, after 8 sittings on average, 2.2 % of the winners are
// more than 1 % slower than the best of all races; at 0.2 %, after 23, 0.5 %, as many as after all 32.)
constexpr double kSure = 3, kWorthARace = 0.002;
std::vector<bool> still_in(const std::vector<std::vector<double>>& costs);

// Other work that makes a card lower its clock changes who is the fastest (H100, a GPTQ layer beside a load at the
// power limit: 3.9 % lost by its winner). So a race in such a time decides only between what was not timed before it
// came: its `best` gives way to the one that took the least time in peace, if that is kLeastGain less. `before_us`: of
// each in peace, infinite where there is none.
std::size_t best_in_peace(std::size_t best, std::span<const double> before_us);

}  // namespace kgen
