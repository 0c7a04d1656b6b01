#include "tuner/peak.h"

#include <algorithm>
#include <iterator>

namespace kgen {
namespace {

// Multiplications and additions a clock and compute unit. Sources: NVIDIA's architecture white papers (tensor cores
// with fp32 accumulation: on GeForce cards of sm_75, sm_86 and sm_89 half of these, which the driver does not tell);
// AMD's CDNA white papers and ISA documents. RDNA is left out: whether HIP counts its compute units or pairs of them
// depends on the driver.
struct Peak {
  const char* arch;
  double fp32, fp16, bf16, int8, fp8;  // 0: not known, or no unit of its own
};
constexpr Peak kPeaks[] = {
    {"sm_61", 256, 0, 0, 0, 0},
    {"sm_70", 128, 0, 0, 0, 0},
    {"sm_75", 128, 1024, 0, 2048, 0},
    {"sm_80", 128, 2048, 2048, 4096, 0},
    {"sm_86", 256, 1024, 1024, 2048, 0},
    {"sm_89", 256, 1024, 1024, 2048, 2048},
    {"sm_90", 256, 4096, 4096, 8192, 8192},
    {"gfx906", 128, 0, 0, 0, 0},
    {"gfx908", 256, 1024, 512, 1024, 0},
    {"gfx90a", 256, 1024, 1024, 1024, 0},
    {"gfx942", 256, 2048, 2048, 4096, 4096},
};

}  // namespace

double peak_flops(const DeviceInfo& device, const std::string& dtype) {
  const auto peak = std::find_if(std::begin(kPeaks), std::end(kPeaks),
                                 [&](const Peak& row) { return device.arch->name == row.arch; });
  if (peak == std::end(kPeaks)) return 0;
  const double per_clock = dtype == "fp32"             ? peak->fp32
                           : dtype == "fp16"           ? peak->fp16
                           : dtype == "bf16"           ? peak->bf16
                           : dtype == "int8"           ? peak->int8
                           : dtype.starts_with("fp8_") ? peak->fp8
                                                       : 0;
  return per_clock * device.compute_units * device.clock_khz * 1e3;
}

}  // namespace kgen
