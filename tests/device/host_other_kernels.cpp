// A second code object with a kernel of the same name as one in the first, that does something else.
#include "templates/prelude.h"

using namespace kgen;

KGEN_KERNEL(64, 1) scale(float* y, const float* x, float alpha, i64 n) {
  const i64 i = i64(block_x()) * block_size() + thread_x();
  if (i < n) y[i] = alpha + x[i];
}
KGEN_HOST_ENTRY(scale) { scale(*(float**)params[0], *(const float**)params[1], *(float*)params[2], *(i64*)params[3]); }
