// Rows of a table; ids are the first row, the last, then random ones. NaN between the table's rows.
#pragma once
#include "check.h"
#include "prelude.h"

namespace kgen {

template <class C, class P>
KGEN_DEVICE double init_ids(const P& p, u64 seed, i64 element) {
  if (element < 2) return element == 0 ? double(p.vocab - 1) : 0.0;
  return double(random_bits(seed, u64(element)) % u64(p.vocab));
}
template <class C, class P>
KGEN_DEVICE double init_table(const P& p, u64 seed, i64 element) {
  if (element % p.ldt >= p.cols) return bit_cast<double>(u64(0x7ff8) << 48);
  return random_value(seed, u64(element), 1, -1.0, 1.0);  // of all distributions the fastest to make; tables are large
}

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  value = to_float(p.table[i64(p.ids[element / p.cols]) * p.ldt + element % p.cols]);
  magnitude = 0;
}

}  // namespace kgen
