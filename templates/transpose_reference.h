// Reference of transpose: element (j, i) of y is element (i, j) of x.
#pragma once
#include "copy_reference.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 i = element % p.rows, j = element / p.rows % p.cols, b = element / p.rows / p.cols;
  copied(p.x[b * p.batch_stride_x + i * p.ldx + j], value, magnitude);
}

}  // namespace kgen
