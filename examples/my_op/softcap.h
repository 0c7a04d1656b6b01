// y = cap * tanh(x / cap)
//
//   block b:  | vectors of item 0 | items 1 … threads-1 |  then the same again `items` times, one block width further
//
// The last vector may be cut short, so it goes element by element.
#pragma once
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE void softcap(const P& p) {
  using T = typename C::dtype;
  const float inverse = 1.0f / p.cap;
  KGEN_UNROLL
  for (int item = 0; item < C::items; ++item) {
    const i64 first = ((i64(block_x()) * C::items + item) * C::threads + thread_x()) * C::vec;
    if (first + C::vec <= p.n) {
      const Vec<T, C::vec> x = load_vec<T, C::vec>(p.x + first);
      Vec<T, C::vec> y;
      KGEN_UNROLL
      for (int i = 0; i < C::vec; ++i) y[i] = from_float<T>(p.cap * tanh_f(to_float(x[i]) * inverse));
      store_vec<T, C::vec>(p.y + first, y);
    } else {
      for (i64 i = first; i < p.n; ++i) p.y[i] = from_float<T>(p.cap * tanh_f(to_float(p.x[i]) * inverse));
    }
  }
}

}  // namespace kgen
