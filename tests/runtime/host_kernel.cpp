// A code object for the host device, written by hand in the form that the generator emits:
//   d[r, c] = alpha * (sum over k of a[r, k] * 2 * w[k]) + c (+ bias[c])
// in three kernels, so that prepare steps and workspace have something to do.
#include "templates/prelude.h"

namespace {
using kgen::i64;

struct Args {
  const float *a, *w, *bias;
  float *d, *packed, *sums;
  float alpha;
  i64 rows, cols, ld;
  explicit Args(void **p)
      : a(*(const float **)p[0]),
        w(*(const float **)p[1]),
        bias(*(const float **)p[2]),
        d(*(float **)p[3]),
        packed(*(float **)p[4]),
        sums(*(float **)p[5]),
        alpha(*(float *)p[6]),
        rows(*(i64 *)p[7]),
        cols(*(i64 *)p[8]),
        ld(*(i64 *)p[9]) {}
};
i64 item() { return i64(kgen::block_x()) * kgen::block_size() + kgen::thread_x(); }
}  // namespace

#define PARAMS \
  const float *, const float *, const float *, float *, float *, float *, float, kgen::i64, kgen::i64, kgen::i64

KGEN_KERNEL(64, 1) pack(PARAMS) {}
KGEN_HOST_ENTRY(pack) {
  const Args p(params);
  if (item() < p.cols) p.packed[item()] = 2 * p.w[item()];
}

KGEN_KERNEL(64, 1) row_sum(PARAMS) {}
KGEN_HOST_ENTRY(row_sum) {
  const Args p(params);
  if (item() >= p.rows) return;
  float sum = 0;
  for (i64 k = 0; k < p.cols; ++k) sum += p.a[item() * p.ld + k] * p.packed[k];
  p.sums[item()] = sum;
}

KGEN_KERNEL(64, 1) spread(PARAMS) {}
KGEN_HOST_ENTRY(spread) {
  const Args p(params);
  if (item() >= p.rows * p.cols) return;
  const i64 c = item() % p.cols;
  p.d[item()] = p.alpha * p.sums[item() / p.cols] + float(c) + (p.bias != nullptr ? p.bias[c] : 0.f);
}
