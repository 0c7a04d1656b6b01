// What is believed before the first measurement: of values in general, and from what was measured elsewhere.
#pragma once

#include "tuner/search/surrogate.h"

namespace kgen {

// How far the numbers of each point are from powers of two: the logarithm of the odd part, less where an axis has few
// values. Hardware comes in powers of two (lanes, banks, cache lines, registers), and so do problems.
std::vector<float> unevenness(const SearchSpace&);

// The points with the least unevenness, some tens at least.
std::vector<std::size_t> round_points(const SearchSpace&, const std::vector<float>& uneven);

// What the mean of the model may follow: unevenness, and each source of space.elsewhere.
std::vector<Basis> make_bases(const SearchSpace&, const std::vector<float>& uneven);

// Times of a configuration elsewhere; kFailed for one that failed.
struct Elsewhere {
  std::vector<std::pair<Config, double>> times;
};
// Adds to space.elsewhere each source that knows points of the space, and to its seeds a short list of points such that
// each source has a good one among them. Returns how many sources were of use.
std::size_t warm_start(SearchSpace&, const std::vector<Elsewhere>& sources);

}  // namespace kgen
