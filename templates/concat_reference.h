// Reference of concat: element (row, column) of y from the operand that the column falls into.
#pragma once
#include "copy_reference.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  using T = typename C::dtype;
  const T* const operands[8] = {p.x_0, p.x_1, p.x_2, p.x_3, p.x_4, p.x_5, p.x_6, p.x_7};
  const i64 inner[8] = {p.inner_0, p.inner_1, p.inner_2, p.inner_3, p.inner_4, p.inner_5, p.inner_6, p.inner_7};
  const i64 strides[8] = {p.ldx_0, p.ldx_1, p.ldx_2, p.ldx_3, p.ldx_4, p.ldx_5, p.ldx_6, p.ldx_7};
  i64 cols = 0;
  for (int i = 0; i < 8; ++i) cols += inner[i];
  const i64 row = element / cols;
  i64 column = element % cols;
  for (int i = 0; i < 8; ++i) {
    if (column >= 0 && column < inner[i]) copied(operands[i][row * strides[i] + column], value, magnitude);
    column -= inner[i];
  }
}

}  // namespace kgen
