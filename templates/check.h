// What verification runs on the device whatever the operator: test data, comparison with reference values, projection
// of an output, and bytes that nobody may write. Entries and their parameters: docs/op-format.md, "The check kernels".
//
// Blocks of 256 work-items, kCheckLds bytes of dynamic LDS, one pass over the data, any grid. Results are the same bits
// on every run of one grid: each block writes its own CheckPartial, and the host adds those up in order.
//
// Acceptance (OPS 0.1): |got - ref| <= E + u_out*(|ref| + E) + tiny with E = 4*sqrt(K)*u_acc*S. check() gets factor =
// 4*sqrt(K)*u_acc and, for each element, S as `magnitude`. The relative L2 error is sqrt(sum error2 / sum reference2).
#pragma once
#include "prelude.h"

namespace kgen {

inline constexpr int kCheckBlock = 256;

// What one block saw. The host adds error2, reference2 and bad, and keeps the worst of the partials that have
// worst_element >= 0 (the first one of equals).
struct CheckPartial {
  double error2, reference2;  // sums of (got-ref)^2 and ref^2 over elements where both are finite
  double worst_ratio;  // |got-ref| / allowed; infinity where one of the two is NaN or infinite and the other is not
  double worst_got, worst_reference, worst_allowed;
  i64 worst_element;  // element (or row) of worst_ratio; -1: none seen
  i64 bad;            // elements with ratio > 1
};
static_assert(sizeof(CheckPartial) == 64);
inline constexpr int kCheckLds = kCheckBlock / kWaveSize * int(sizeof(CheckPartial));

// ------------------------------------------------------------------------------------------------------------ test
// data

// 64 random bits for (seed, index): SplitMix64's output function over a counter, so any element can be made alone.
KGEN_DEVICE u64 random_bits(u64 seed, u64 index) {
  u64 z = (seed ^ 0x6a09e667f3bcc909ull) * 0xd1342543de82ef95ull + (index + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

enum class Distribution { normal, uniform, integer, constant };

// One random value. Every step is exact in double but the last addition, so that host and devices, with or without
// fused multiply-add, get the same bits: a factor is rounded to float (24 bits) and multiplies at most 24 bits more.
KGEN_DEVICE double random_value(u64 seed, u64 index, int distribution, double a, double b) {
  switch (Distribution(distribution)) {
    case Distribution::normal: {  // sum of 12 uniform 16-bit numbers: variance 2^32, bounded by 6 standard deviations
      i64 sum = 0;
      for (int part = 0; part < 3; ++part) {
        const u64 bits = random_bits(seed, 3 * index + u64(part));
        for (int i = 0; i < 4; ++i) sum += i64((bits >> (16 * i)) & 0xffff);
      }
      const double deviate = double(2 * sum - 12 * 65535) * 0x1p-17;
      return a + double(float(b)) * deviate;
    }
    case Distribution::uniform:
      return a + double(float(b - a)) * (double(random_bits(seed, index) >> 40) * 0x1p-24);
    case Distribution::integer: {
      const u64 span = u64(i64(b) - i64(a)) + 1;
      return double(i64(a) + i64(random_bits(seed, index) % span));
    }
    case Distribution::constant:
      break;
  }
  return a;
}

template <class T>
inline constexpr bool kFloating = kSame<T, f16> || kSame<T, bf16> || kSame<T, float>;

// Test data that an op's reference makes itself (init_<argument>): rounded once.
template <class T>
KGEN_DEVICE void store_double(T* to, double value) {
  if constexpr (kFloating<T>)
    *to = from_float<T>(float(value));
  else
    *to = T(value);
}

template <class T>
KGEN_DEVICE void fill(T* data, i64 count, u64 seed, int distribution, double a, double b) {
  const i64 step = i64(grid_x()) * kCheckBlock;
  for (i64 i = i64(block_x()) * kCheckBlock + thread_x(); i < count; i += step) {
    const double value = random_value(seed, u64(i), distribution, a, b);
    if constexpr (kFloating<T>)
      data[i] = from_float<T>(float(value));
    else
      data[i] = T(value);
  }
}

// -----------------------------------------------------------------------------------------------------------
// comparison

template <class T>
KGEN_DEVICE double to_double(T x) {
  if constexpr (kFloating<T>)
    return double(to_float(x));
  else
    return double(x);
}

KGEN_DEVICE double infinity_d() { return bit_cast<double>(0x7ff0000000000000ull); }
KGEN_DEVICE bool is_nan(double x) { return x != x; }
KGEN_DEVICE bool is_finite(double x) { return abs_d(x) < infinity_d(); }

// Smallest magnitude that rounds to infinity in T.
template <class T>
KGEN_DEVICE double overflow_threshold() {
  if constexpr (kSame<T, f16>) return 65520.0;
  if constexpr (kSame<T, bf16>) return 0x1.ffp127;
  if constexpr (kSame<T, float>) return 0x1.ffffffp127;
  return infinity_d();
}

KGEN_DEVICE CheckPartial empty_partial() { return CheckPartial{0, 0, 0, 0, 0, 0, -1, 0}; }

// The larger ratio wins, of equal ratios the lower element.
KGEN_DEVICE void merge(CheckPartial& into, const CheckPartial& other) {
  into.error2 += other.error2;
  into.reference2 += other.reference2;
  into.bad += other.bad;
  const bool later =
      into.worst_element >= 0 && (into.worst_ratio > other.worst_ratio ||
                                  (into.worst_ratio == other.worst_ratio && into.worst_element <= other.worst_element));
  if (other.worst_element < 0 || later) return;
  into.worst_ratio = other.worst_ratio;
  into.worst_got = other.worst_got;
  into.worst_reference = other.worst_reference;
  into.worst_allowed = other.worst_allowed;
  into.worst_element = other.worst_element;
}

// One element against its reference; `allowed` as OPS 0.1. `overflow` as overflow_threshold().
KGEN_DEVICE void compare(CheckPartial& partial, i64 element, double got, double reference, double allowed,
                         double overflow) {
  double ratio = infinity_d();
  if (is_nan(reference)) {
    if (is_nan(got)) ratio = 0;
  } else if (is_finite(got) && is_finite(reference)) {
    const double error = abs_d(got - reference);
    ratio = error == 0 ? 0.0 : error / allowed;
    partial.error2 += error * error;
    partial.reference2 += reference * reference;
  } else if (!is_nan(got) && !is_finite(got) && (got > 0) == (reference > 0) &&
             (!is_finite(reference) || abs_d(reference) + allowed >= overflow)) {
    ratio = 0;  // both infinite, or the reference rounds to infinity
  }
  const bool bad = !(ratio <= 1.0);
  merge(partial, CheckPartial{0, 0, ratio, got, reference, allowed, element, bad});
}

// Sum over the block, in a fixed order; work-item 0 has it.
KGEN_DEVICE CheckPartial reduce_block(CheckPartial partial) {
  struct Words {
    u64 word[sizeof(CheckPartial) / 8];
  };
  for (int delta = kWaveSize / 2; delta > 0; delta /= 2) {
    Words words = bit_cast<Words>(partial);
    for (u64& word : words.word) word = shuffle_down(word, delta);
    merge(partial, bit_cast<CheckPartial>(words));
  }
  CheckPartial* waves = lds<CheckPartial>(0);
  sync_block();  // an earlier reduction's values have been read
  if (lane_id() == 0) waves[thread_x() / kWaveSize] = partial;
  sync_block();
  if (thread_x() == 0)
    for (int wave = 1; wave < kCheckBlock / kWaveSize; ++wave) merge(partial, waves[wave]);
  return partial;
}

KGEN_DEVICE void write_partial(const CheckPartial& partial, CheckPartial* partials) {
  const CheckPartial sum = reduce_block(partial);
  if (thread_x() == 0) partials[block_x()] = sum;
}

// Offset of element `index` (row-major over `axes` axes) of layout [rank, shape…, strides…].
KGEN_DEVICE i64 layout_offset(const i64* layout, int axes, i64 index) {
  const int rank = int(layout[0]);
  i64 offset = 0;
  for (int axis = axes - 1; axis >= 0; --axis) {
    const i64 size = layout[1 + axis];
    if (size == 1) continue;
    if (u64(index | size) >> 32) {
      offset += index % size * layout[1 + rank + axis];
      index /= size;
    } else {  // a 32-bit division is several times cheaper
      offset += i64(u32(index) % u32(size)) * layout[1 + rank + axis];
      index = u32(index) / u32(size);
    }
  }
  return offset;
}

template <class T>
KGEN_DEVICE void check(const T* got, const i64* layout, const i64* index, i64 count, const double* value,
                       const double* magnitude, double factor, double u_out, double tiny, CheckPartial* partials) {
  const int rank = int(layout[0]);
  const double overflow = overflow_threshold<T>();
  const i64 step = i64(grid_x()) * kCheckBlock;
  CheckPartial partial = empty_partial();
  for (i64 i = i64(block_x()) * kCheckBlock + thread_x(); i < count; i += step) {
    const i64 element = index ? index[i] : i;
    const double reference = value[i], e = factor * magnitude[i];
    const double allowed = e + u_out * (abs_d(reference) + e) + tiny;
    compare(partial, element, to_double(got[layout_offset(layout, rank, element)]), reference, allowed, overflow);
  }
  write_partial(partial, partials);
}

// -----------------------------------------------------------------------------------------------------------
// projection

// The random +1 or -1 of column j.
KGEN_DEVICE double projection_sign(u64 seed, i64 j) {
  return (random_bits(seed, u64(j >> 6)) >> (j & 63)) & 1 ? 1.0 : -1.0;
}

template <class T>
KGEN_DEVICE double unit_roundoff() {
  if constexpr (kSame<T, f16>) return 0x1p-11;
  if constexpr (kSame<T, bf16>) return 0x1p-8;
  if constexpr (kSame<T, float>) return 0x1p-24;
  return 0x1p-53;
}

// Freivalds: sum_j projection_sign(seed, j) got[row, j] against expected[row]. Allowed are `bound` and what one
// rounding of each stored element makes of it: independent errors of at most u*|got|, standard deviation
// u*|got|/sqrt(3), whose sum with random signs stays below 4*u*(norm of the row), about 7 standard deviations.
template <class T>
KGEN_DEVICE void check_projection(const T* got, const i64* layout, u64 seed, i64 rows, const double* expected,
                                  const double* bound, CheckPartial* partials) {
  const int rank = int(layout[0]);
  const i64 columns = layout[rank], stride = layout[2 * rank];
  CheckPartial partial = empty_partial();
  for (i64 row = block_x(); row < rows; row += grid_x()) {
    const T* source = got + layout_offset(layout, rank - 1, row);
    CheckPartial sums = empty_partial();  // error2: the projection; reference2: squared norm
    for (i64 j = thread_x(); j < columns; j += kCheckBlock) {
      const double x = to_double(source[j * stride]);
      sums.error2 += projection_sign(seed, j) * x;
      sums.reference2 += x * x;
    }
    sums = reduce_block(sums);
    if (thread_x() != 0) continue;
    const double allowed = bound[row] + 4.0 * unit_roundoff<T>() * sqrt_d(sums.reference2);
    compare(partial, row, sums.error2, expected[row], allowed, infinity_d());
  }
  if (thread_x() == 0) partials[block_x()] = partial;
}

// -------------------------------------------------------------------------------------------- what nobody may write

// Elements between the rows of a strided output: those of the extent that no element of the shape maps to. A layout of
// rank 0 maps nothing, so that all of a buffer is compared.
template <class T>
KGEN_DEVICE void check_gaps(const T* got, const T* before, const i64* layout, i64 count, CheckPartial* partials) {
  constexpr int kMaxRank = 8;
  const int rank = int(layout[0]);
  i64 size[kMaxRank], stride[kMaxRank];  // axes of more than one element, by falling stride
  int axes = 0;
  for (int axis = 0; axis < rank && axis < kMaxRank; ++axis) {
    if (layout[1 + axis] == 1) continue;
    int at = axes++;
    for (; at > 0 && stride[at - 1] < layout[1 + rank + axis]; --at) {
      size[at] = size[at - 1];
      stride[at] = stride[at - 1];
    }
    size[at] = layout[1 + axis];
    stride[at] = layout[1 + rank + axis];
  }
  const i64 step = i64(grid_x()) * kCheckBlock;
  CheckPartial partial = empty_partial();
  for (i64 i = i64(block_x()) * kCheckBlock + thread_x(); i < count; i += step) {
    i64 rest = i;
    bool inside = rank > 0;
    for (int axis = 0; axis < axes; ++axis) {
      const i64 at = rest / stride[axis];
      inside = inside && at < size[axis];
      rest -= at * stride[axis];
    }
    if (inside && rest == 0) continue;
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(got + i);
    const unsigned char* expected = before ? reinterpret_cast<const unsigned char*>(before + i) : nullptr;
    bool same = true;
    for (int byte = 0; byte < int(sizeof(T)); ++byte) same = same && bytes[byte] == (expected ? expected[byte] : 0xff);
    if (!same) merge(partial, CheckPartial{0, 0, infinity_d(), to_double(got[i]), 0, 0, i, 1});
  }
  write_partial(partial, partials);
}

KGEN_DEVICE void check_pattern(const unsigned char* base, const i64* zones, i64 count, int pattern, i64* bad) {
  const i64 zone = block_x();
  if (zone >= count) return;
  const unsigned char* bytes = base + zones[2 * zone];
  CheckPartial partial = empty_partial();
  for (i64 i = thread_x(); i < zones[2 * zone + 1]; i += kCheckBlock) partial.bad += int(bytes[i]) != pattern;
  partial = reduce_block(partial);
  if (thread_x() == 0) bad[zone] = partial.bad;
}

// ----------------------------------------------------------------------------------------------------------- bandwidth

// Any block size: a host's work-items run one after another, so there the caches like blocks of one.
KGEN_DEVICE void read_all(const u64* data, i64 count, u64* sink) {
  constexpr int kFlight = 4;  // loads in flight a work-item
  const i64 pairs = count / 2, step = i64(grid_x()) * block_size();
  u64 sum = 0;
  i64 i = i64(block_x()) * block_size() + thread_x();
  for (; i + (kFlight - 1) * step < pairs; i += kFlight * step) {
    Vec<u64, 2> words[kFlight];
    KGEN_UNROLL
    for (int f = 0; f < kFlight; ++f) words[f] = load_vec<u64, 2>(data + 2 * (i + f * step));
    KGEN_UNROLL
    for (int f = 0; f < kFlight; ++f) sum += words[f][0] + words[f][1];
  }
  for (; i < pairs; i += step) sum += data[2 * i] + data[2 * i + 1];
  if (sum == 1) *sink = sum;
}

}  // namespace kgen
