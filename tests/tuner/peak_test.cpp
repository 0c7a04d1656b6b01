#include "tuner/peak.h"

#include <gtest/gtest.h>

namespace kgen {
namespace {

DeviceInfo device(const char* arch, int units, int mhz) {
  DeviceInfo info;
  info.arch = find_arch(arch).value();
  info.compute_units = units;
  info.clock_khz = mhz * 1000;
  return info;
}

// The makers' data sheets, dense, at the clock that they are for.
TEST(Peak, IsThatOfTheDataSheet) {
  const DeviceInfo h100 = device("sm_90", 132, 1830), a100 = device("sm_80", 108, 1410),
                   mi250 = device("gfx90a", 104, 1700), mi300 = device("gfx942", 304, 2100);
  EXPECT_NEAR(peak_flops(h100, "bf16"), 989.4e12, 1e12);
  EXPECT_NEAR(peak_flops(h100, "fp8_e5m2"), 1978.9e12, 2e12);
  EXPECT_NEAR(peak_flops(h100, "int8"), 1979e12, 2e12);
  EXPECT_NEAR(peak_flops(a100, "fp16"), 312e12, 1e12);
  EXPECT_NEAR(peak_flops(a100, "fp32"), 19.5e12, 0.1e12);
  EXPECT_NEAR(peak_flops(device("gfx908", 120, 1502), "bf16"), 92.3e12, 1e12);
  EXPECT_NEAR(peak_flops(mi250, "fp16"), 181e12, 1e12);
  EXPECT_NEAR(peak_flops(mi250, "fp32"), 45.3e12, 0.1e12);
  EXPECT_NEAR(peak_flops(mi300, "bf16"), 1307e12, 1e12);
}

TEST(Peak, IsNotKnownWhereNobodySaysIt) {
  EXPECT_EQ(peak_flops(device("host", 8, 3000), "fp32"), 0);
  EXPECT_EQ(peak_flops(device("gfx1100", 96, 2500), "fp16"), 0);
  EXPECT_EQ(peak_flops(device("sm_80", 108, 1410), "fp8_e4m3"), 0) << "its matrix unit does not take it";
  EXPECT_EQ(peak_flops(device("sm_75", 68, 1545), "bf16"), 0) << "its matrix unit does not take it";
  EXPECT_EQ(peak_flops(device("sm_90", 132, 1830), "fp64"), 0);
}

}  // namespace
}  // namespace kgen
