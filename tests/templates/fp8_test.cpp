// Storage types of 8 bits: every code, and what their loader makes of them on the way to LDS.
#include "templates/fp8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "templates/gemm_fp8.h"
#include "templates/gemm_fp8_reference.h"

namespace kgen {
namespace {

// From the definition of the format.
template <int kMantissa>
double number_of(int code) {
  constexpr int kBias = kMantissa == 3 ? 7 : 15;
  const int exponent = (code & 0x7f) >> kMantissa, mantissa = code & ((1 << kMantissa) - 1);
  double size = 0;
  if (kMantissa == 3 ? (code & 0x7f) == 0x7f : exponent == 31 && mantissa != 0)
    size = std::numeric_limits<double>::quiet_NaN();
  else if (kMantissa == 2 && exponent == 31)
    size = std::numeric_limits<double>::infinity();
  else
    size = std::ldexp(mantissa + (exponent > 0 ? 1 << kMantissa : 0), std::max(exponent, 1) - kBias - kMantissa);
  return code & 0x80 ? -size : size;
}
bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

// FNUZ: a bias more, one NaN, no infinity and no negative zero.
template <int kMantissa>
double fnuz_number_of(int code) {
  constexpr int kBias = kMantissa == 3 ? 8 : 16;
  if (code == 0x80) return std::numeric_limits<double>::quiet_NaN();
  const int exponent = (code & 0x7f) >> kMantissa, mantissa = code & ((1 << kMantissa) - 1);
  const double size =
      std::ldexp(mantissa + (exponent > 0 ? 1 << kMantissa : 0), std::max(exponent, 1) - kBias - kMantissa);
  return code & 0x80 ? -size : size;
}

template <int kMantissa>
void every_code() {
  for (int code = 0; code < 256; ++code) {
    SCOPED_TRACE(code);
    Fp8<kMantissa> x;
    x.bits = static_cast<u8>(code);
    const double number = number_of<kMantissa>(code);
    EXPECT_TRUE(same(to_float(x), number));
    EXPECT_TRUE(same(double(gemm_fp8_reference::value(x)), number)) << gemm_fp8_reference::value(x);
    if (std::isfinite(number)) {
      EXPECT_EQ(Fp8<kMantissa>(number).bits, code);
    }

    // In each place of a word, among other codes.
    for (int place = 0; place < 4; ++place) {
      const u32 word = (0x3c80ff01u & ~(0xffu << (8 * place))) | u32(code) << (8 * place);
      u32 halves[2];
      gemm_fp8::widen<kMantissa>(word, halves);
      EXPECT_TRUE(same(to_float(f16{u16(halves[place / 2] >> place % 2 * 16)}), number));
      const double fnuz = fnuz_number_of<kMantissa>(int(gemm_fp8::to_fnuz<kMantissa>(word) >> 8 * place & 0xff));
      EXPECT_TRUE(std::isfinite(number) ? 2 * fnuz == number : std::isnan(fnuz)) << fnuz;
    }
  }
}

TEST(Fp8, EveryCodeOfE4m3HasItsNumberEverywhere) { every_code<3>(); }
TEST(Fp8, EveryCodeOfE5m2HasItsNumberEverywhere) { every_code<2>(); }

template <int kMantissa>
void rounding() {
  for (int code = 0; code < (kMantissa == 3 ? 0x7e : 0x7b); ++code) {
    const double low = number_of<kMantissa>(code), high = number_of<kMantissa>(code + 1), middle = (low + high) / 2;
    EXPECT_EQ(Fp8<kMantissa>(middle).bits, code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(Fp8<kMantissa>(std::nextafter(middle, 0.0)).bits, code);
    EXPECT_EQ(Fp8<kMantissa>(-std::nextafter(middle, 1e9)).bits, 0x80 | (code + 1));
  }
}

TEST(Fp8, NumbersAreRoundedToTheNearestCodeAndTiesToTheEvenOne) {
  rounding<3>();
  rounding<2>();
}

TEST(Fp8, NumbersBeyondTheLargestBecomeThatAndNanStays) {
  EXPECT_EQ(fp8_e4m3(1e9).bits, 0x7e);
  EXPECT_EQ(fp8_e5m2(-1e9).bits, 0xfb);
  EXPECT_EQ(fp8_e4m3(std::nan("")).bits & 0x7f, 0x7f);
  EXPECT_EQ(fp8_e4m3(-0.0).bits, 0x80);
}

}  // namespace
}  // namespace kgen
