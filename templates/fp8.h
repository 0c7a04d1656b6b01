// Storage types of 8 bits, as OCP has them: fp8_e4m3 (bias 7, no infinity, largest 448, NaN is 0x7f and 0xff) and
// fp8_e5m2 (bias 15, largest 57344, infinity and NaN as in IEEE: the high byte of an f16). Kernels read them; only test
// data is rounded to them.
#pragma once
#include "prelude.h"

namespace kgen {

template <int kMantissa>
struct Fp8 {
  static constexpr int kBias = kMantissa == 3 ? 7 : 15;
  u8 bits;

  Fp8() = default;
  // To nearest, ties to even; what is beyond the largest number becomes that.
  KGEN_DEVICE explicit Fp8(double value) : bits(rounded(value)) {}
  KGEN_DEVICE explicit operator double() const { return double(to_float(*this)); }

 private:
  static KGEN_DEVICE u8 rounded(double value) {
    constexpr int kLargest = kMantissa == 3 ? 0x7e : 0x7b;
    const u64 wide = bit_cast<u64>(value);
    const int sign = int(wide >> 63) << 7;
    const double size = abs_d(value);
    if (value != value) return u8(sign | 0x7f);
    if (size >= (kMantissa == 3 ? 448.0 : 57344.0)) return u8(sign | kLargest);
    int exponent = int(wide >> 52 & 0x7ff) - 1023;
    if (exponent < 1 - kBias) exponent = 1 - kBias;
    const double steps = size * bit_cast<double>(u64(1023 + kMantissa - exponent) << 52);
    const int whole = int((steps + 0x1p52) - 0x1p52);
    return u8(sign | (((exponent + kBias - 1) << kMantissa) + whole));
  }
};

using fp8_e4m3 = Fp8<3>;
using fp8_e5m2 = Fp8<2>;

// The f16 with the same bits where e5m2 has them, and e4m3 with its exponent counted from f16's bias: 2^-8 of it.
template <int kMantissa>
KGEN_DEVICE float to_float(Fp8<kMantissa> x) {
  if constexpr (kMantissa == 2) {
    return to_float(f16{u16(x.bits << 8)});
  } else {
    const u32 magnitude = x.bits & 0x7fu;
    const float value = to_float(f16{u16((x.bits & 0x80u) << 8 | magnitude << 7)}) * 256.0f;
    return magnitude == 0x7fu ? bit_cast<float>(0x7fc00000u) : value;
  }
}

// What stands in LDS for a unit that takes fp8: the bytes of either operand.
template <class A_, class B_>
struct Fp8Operands {
  using A = A_;
  using B = B_;
  u8 bits;
};
// CDNA 3 takes other formats (FNUZ): the same bits mean half as much, 0x80 is its only NaN, and what OCP has for NaN
// and infinity are numbers. So zero and NaN are exchanged on the way to LDS, and the sums are a quarter. Infinity
// becomes NaN.
template <Arch kArch>
inline constexpr bool kFnuz = kArch == Arch::gfx942;

}  // namespace kgen
