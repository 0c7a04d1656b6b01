// Replays searches on recorded spaces: a "measurement" is a look-up.
#pragma once

#include <map>

#include "tuner/search/recorded.h"

namespace kgen {

struct SimulateRequest {
  std::string strategy = "auto";
  std::size_t budget = 200, repeats = 100;
  std::uint64_t seed = 1;
  // Begin with the winners of other shapes, as a first `kgen tune` does: with those that ship with kgen, or with those
  // that `prior` teaches. Nothing is learnt from the same operator and shape. Kernels that kgen does not know have
  // none.
  bool shipped_prior = false;
  std::vector<Recording> prior{};
};

constexpr double kWithin = 0.03;

// Optimum over the best time found after so many evaluations (first-time ones; failures count; 0 before the first
// success), over the repeats.
struct Fraction {
  double mean = 0, worst = 0, deviation = 0;
  std::optional<double> expected_loss{};  // mean of what the strategy predicts for 1 - fraction
  double loss_miss = 0;                   // mean distance of the prediction from the truth
  double within = 0;                      // share of the runs whose best is within 3 % of the optimum
};
struct Simulation {
  std::string space;
  std::size_t points = 0, failed = 0;
  double optimum_us = 0;
  std::size_t sources = 0;                    // recordings that warmed the start
  std::size_t prior = 0;                      // points that the prior put first
  double failures = 0;                        // evaluations of a run that failed, mean
  double proposal_us = 0;                     // mean time of the strategy itself
  std::map<std::size_t, Fraction> fractions;  // by evaluations: 25, 50, 100, 200, 400 as far as the budget, and it
};

// One result a recording, in order. `sources` warm the start of every recording that has the same tunables, except
// those with the same measurements: a recording must not help itself, whatever its file is called. Uses all cores;
// results depend on the request only. kBadInput for an unknown strategy or a recording in which nothing succeeded.
Result<std::vector<Simulation>> simulate(const std::vector<Recording>& recordings,
                                         const std::vector<Recording>& sources, const SimulateRequest&);

}  // namespace kgen
