// Reference of the pooling operators: one output element in double. Shares nothing with the kernels but prelude.h and
// the layouts' names.
#pragma once
#include "conv_types.h"
#include "prelude.h"

namespace kgen {

namespace pool_reference {

// x[n, c, h, w]
template <class C, class P>
KGEN_DEVICE double pixel(const P& p, i64 n, i64 c, i64 h, i64 w) {
  if (C::layout == layout::nhwc) return to_float(p.x[((n * p.h + h) * p.w + w) * p.ldx + c]);
  return to_float(p.x[((n * p.c + c) * p.h + h) * p.w + w]);
}

}  // namespace pool_reference
}  // namespace kgen
