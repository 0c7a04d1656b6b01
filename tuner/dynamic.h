// Problems with a dim whose size is only known at run time (docs/dynamic.md): which sizes are measured, which few
// kernels serve all of them well enough, and which of those serves a size.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "tuner/session.h"

namespace kgen {

// Sizes of [first, last] that are measured in any case: both ends, powers of two and the middles between them, from 64
// on also two an octave that no tile divides. Ascending.
std::vector<std::int64_t> sizes_to_measure(std::int64_t first, std::int64_t last);

// Times in microseconds of kernels at sizes.
struct SizeTimes {
  std::vector<std::int64_t> sizes;      // ascending
  std::vector<std::vector<double>> us;  // [kernel][size]; NaN: not measured, kFailed: has no time there
};
// How much there is to do for a kernel at a size, in any unit that its time follows between two measured sizes.
// Nothing: the kernel is not legal there.
using Work = std::function<std::optional<double>(std::size_t kernel, std::int64_t size)>;

struct Cover {
  struct Span {
    std::int64_t first = 0, last = 0;
    std::size_t kernel = 0;
    double loss = 0;  // that is expected of a size in it
  };
  std::vector<std::size_t> kernels;
  std::vector<Span> spans;     // of the whole range, without gaps but where no kernel is legal
  double worst = 0, mean = 0;  // regret at the measured sizes: 0.02 = 2 % slower than the best that was measured there
  // Of sizes that were not measured: the regret at each measured size but the ends if nothing had been measured there.
  double predicted_worst = 0, predicted_mean = 0;
  std::vector<double> unmeasured{};  // that regret, beside the sizes
};
// As few kernels as hold the regret at every measured size; where that takes more than `most` of them, those with the
// smallest worst regret. Empty where no kernel has a time.
Cover choose_cover(const SizeTimes&, const Work&, std::size_t most, double regret);

// kgen tune for requests with dynamic dims. `tune_fixed` is tune() without them.
using TuneFixed = std::function<Result<TuneOutcome>(const TuneRequest&)>;
Result<TuneOutcome> tune_dynamic(const TuneRequest&, Db&, Compiler&, const TuneFixed& tune_fixed,
                                 const std::atomic<bool>& stop);

}  // namespace kgen
