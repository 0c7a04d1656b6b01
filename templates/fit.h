// What the code may take for granted of the shape: bits of Config's `fit`, where it has one. Small kernels run their
// code once, out of memory, so what is not there costs nothing.
#pragma once
#include "prelude.h"

namespace kgen {

template <class C, int kBit>
KGEN_HOST_DEVICE constexpr bool fits() {
  if constexpr (requires { C::fit; })
    return C::fit / kBit % 2 != 0;
  else
    return false;
}
// The terms are whole tiles.
template <class C>
KGEN_HOST_DEVICE constexpr bool whole_terms() {
  return fits<C, 1>();
}
// Rows of D, and of what the epilogue reads, are whole aligned vectors.
template <class C>
KGEN_HOST_DEVICE constexpr bool whole_rows() {
  return fits<C, 2>();
}
// The stages hold all terms.
template <class C>
KGEN_HOST_DEVICE constexpr bool one_fill() {
  return fits<C, 4>();
}
// Rows and tiles of the product are fewer than 2^20.
template <class C>
KGEN_HOST_DEVICE constexpr bool few_tiles() {
  return fits<C, 8>();
}
// Tiles of terms lie within a tap.
template <class C>
KGEN_HOST_DEVICE constexpr bool whole_taps() {
  return fits<C, 16>();
}
// One product, or one group of channels.
template <class C>
KGEN_HOST_DEVICE constexpr bool one_group() {
  return fits<C, 32>();
}

}  // namespace kgen
