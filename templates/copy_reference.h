// References of the operators that only move data. They share nothing with the kernels but prelude.h and names of
// layouts.
#pragma once
#include "prelude.h"

namespace kgen {

template <class T>
KGEN_DEVICE void copied(T from, double& value, double& magnitude) {
  value = to_float(from);
  magnitude = 0;
}

}  // namespace kgen
