// One row a work-item; `fault` breaks it in one way.
#pragma once
#include "prelude.h"

namespace kgen {

enum class fault {
  none,
  endless,
  far_read,
  corner,
  no_compile,
  guard,
  gap,
  tail,
  input,
  scratch,
  slow,
  arrival,
  declared
};

// A sum whose terms come in the order of their arrival: another one for every row of every launch.
inline int arrived = 0;

template <class C, class P>
KGEN_DEVICE void planted(const P& p) {
  static_assert(C::fault != fault::no_compile, "planted: this candidate does not compile");
  using T = typename C::dtype;
  const i64 row = i64(block_x()) * C::items + thread_x();
  if (row >= p.rows) return;
  float sum = 0;
  const i64 terms = C::fault == fault::tail ? p.terms - p.terms % 16 : p.terms;
  for (i64 repeat = 0; repeat < (C::fault == fault::slow ? 20 : 1); ++repeat) {
    volatile float part = 0;  // not folded over the repeats
    for (i64 j = 0; j < terms; ++j) part = part + to_float(p.x[row * p.ldx + j]) * to_float(p.w[j]);
    sum = part;
  }
  if constexpr (C::fault == fault::arrival || C::fault == fault::declared)
    sum *= 1 + 2.4e-7f * float(__atomic_fetch_add(&arrived, 1, __ATOMIC_RELAXED) % 3);
  if constexpr (C::fault == fault::endless) {
    volatile bool stay = true;
    while (stay) {
    }
  }
  if constexpr (C::fault == fault::far_read) sum += to_float(p.x[i64(1) << 44]);
  if (C::fault == fault::corner && row == p.rows - 1) sum += 1;
  p.y[row * p.ldy] = from_float<T>(sum);
  if (C::fault == fault::guard && row == p.rows - 1) p.y[row * p.ldy + 1] = from_float<T>(sum);
  if (C::fault == fault::gap && row == 0 && p.ldy > 1) p.y[1] = from_float<T>(sum);
  if (C::fault == fault::input && row == 0) const_cast<T*>(p.x)[5] = from_float<T>(0);
  if (C::fault == fault::scratch && row == 0) p.spare[p.rows] = 1;
}

}  // namespace kgen
