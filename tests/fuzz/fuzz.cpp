// The libFuzzer targets (scripts/fuzz.sh): one program for each kind of input. At its end it tells the slowest input,
// in seconds of this process's CPU: on a busy machine the clock says little.
#include <cstdint>
#include <cstdio>
#include <ctime>

#include "tests/fuzz/inputs.h"

namespace {

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

struct Slowest {
  double seconds = 0;
  std::size_t bytes = 0, above_a_second = 0;
  ~Slowest() {
    std::fprintf(stderr, "slowest input: %.3f s of CPU, %zu bytes; inputs of more than a second: %zu\n", seconds, bytes,
                 above_a_second);
  }
} slowest;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const double start = cpu_seconds();
  kgen::try_input(KGEN_FUZZ_INPUT, {reinterpret_cast<const char*>(data), size});
  const double seconds = cpu_seconds() - start;
  if (seconds > slowest.seconds) {
    slowest.seconds = seconds;
    slowest.bytes = size;
  }
  if (seconds > 1) {
    ++slowest.above_a_second;
    std::fprintf(stderr, "slow input: %.3f s of CPU\n", seconds);
  }
  return 0;
}
