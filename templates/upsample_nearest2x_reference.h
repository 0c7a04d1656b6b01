// Reference of upsample_nearest2x: pixel (i, j) of the output is pixel (i/2, j/2) of the input.
#pragma once
#include "conv_types.h"
#include "copy_reference.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  if constexpr (C::layout == layout::nhwc) {
    const i64 c = element % p.c, j = element / p.c % (2 * p.w), i = element / p.c / (2 * p.w) % (2 * p.h);
    const i64 n = element / p.c / (2 * p.w) / (2 * p.h);
    copied(p.x[((n * p.h + i / 2) * p.w + j / 2) * p.ldx + c], value, magnitude);
  } else {
    const i64 j = element % (2 * p.w), i = element / (2 * p.w) % (2 * p.h), plane = element / (2 * p.w) / (2 * p.h);
    copied(p.x[(plane * p.h + i / 2) * p.w + j / 2], value, magnitude);
  }
}

}  // namespace kgen
