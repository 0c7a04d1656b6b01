// Elements of a row in memory, N consecutive ones by one work-item: as words (Packed) or as floats (load_columns,
// store_columns).
#pragma once
#include "prelude.h"

namespace kgen {

// N elements as they lie in memory, in 32-bit words: a compiler that sees 16-bit elements gives each a register of its
// own.
template <class T, int N>
struct Packed {
  static constexpr int kWords = N * int(sizeof(T)) >= 4 ? N * int(sizeof(T)) / 4 : 1;
  Vec<u32, kWords> words;

  // `p` is aligned as Vec<T, N> is.
  static KGEN_DEVICE Packed load(const T* p) {
    Packed v;
    if constexpr (N * sizeof(T) >= 4)
      v.words = load_vec<u32, kWords>(reinterpret_cast<const u32*>(p));
    else
      v.words[0] = bit_cast<u16>(*p);
    return v;
  }
  // The same for what no work-item reads again.
  static KGEN_DEVICE Packed load_once(const T* p) {
    if constexpr (kWords != 4) return load(p);
    Packed v;
    if constexpr (kWords == 4) v.words = kgen::load_once(reinterpret_cast<const u32*>(p));
    return v;
  }
  KGEN_DEVICE void store(T* p) const {
    if constexpr (N * sizeof(T) >= 4)
      store_vec<u32, kWords>(reinterpret_cast<u32*>(p), words);
    else
      *p = bit_cast<T>(u16(words[0]));
  }
  KGEN_DEVICE void zero_unless(bool keep) {
    KGEN_UNROLL
    for (int i = 0; i < kWords; ++i) words[i] = keep ? words[i] : 0u;
  }
  // Bits of element i; those of a 16-bit one in the low half.
  KGEN_DEVICE u32 bits(int i) const {
    if constexpr (sizeof(T) == 4) return words[i];
    return i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xffffu;
  }
  // In the order of i: the odd half of a word is added to the even one.
  KGEN_DEVICE void set_bits(int i, u32 bits) {
    if constexpr (sizeof(T) == 4)
      words[i] = bits;
    else
      words[i / 2] = i % 2 ? words[i / 2] | bits << 16 : bits;
  }
  // Element i as a float.
  KGEN_DEVICE float operator[](int i) const {
    if constexpr (sizeof(T) == 4) return bit_cast<float>(words[i]);
    const u32 word = words[i / 2];
    if constexpr (kSame<T, bf16>) return bit_cast<float>(i % 2 ? word & 0xffff0000u : word << 16);
    return to_float(f16{u16(i % 2 ? word >> 16 : word)});
  }
  // Element i, rounded; all elements, in the order of i, before any of them is read: where pairs are rounded together,
  // the first of one waits in its word.
  KGEN_DEVICE void set(int i, float value) {
    if constexpr (sizeof(T) == 4)
      words[i] = bit_cast<u32>(value);
    else if constexpr (!kPairsRounded || N == 1)
      set_bits(i, bit_cast<u16>(from_float<T>(value)));
    else
      words[i / 2] = i % 2 == 0 ? bit_cast<u32>(value) : rounded_pair<T>(bit_cast<float>(words[i / 2]), value);
  }
};

template <int N, class T>
KGEN_DEVICE Packed<T, N> load_or_zero(const T* p, bool exists) {
  if (!exists) return Packed<T, N>{};
  return Packed<T, N>::load(p);
}

// Elements of T in the widest access that N values make use of (16 bytes at most).
template <class T, int N>
inline constexpr int kChunk = N * int(sizeof(T)) <= 16 ? N : 16 / int(sizeof(T));

template <class T, int N>
KGEN_DEVICE bool vector_aligned(const T* p) {
  return reinterpret_cast<u64>(p) % (kChunk<T, N> * sizeof(T)) == 0;
}

// values[i] = p[i] for i < valid, else 0; whole vectors where the address allows it.
template <int N, class T>
KGEN_DEVICE void load_columns(const T* p, int valid, float (&values)[N]) {
  constexpr int kWidth = kChunk<T, N>;
  static_assert(N % kWidth == 0, "columns are a whole number of vectors");
  if constexpr (kWidth > 1) {
    if (valid >= N && vector_aligned<T, N>(p)) {
      KGEN_UNROLL
      for (int i = 0; i < N; i += kWidth) {
        const Vec<T, kWidth> v = load_vec<T, kWidth>(p + i);
        KGEN_UNROLL
        for (int j = 0; j < kWidth; ++j) values[i + j] = to_float(v[j]);
      }
      return;
    }
  }
  KGEN_UNROLL
  for (int i = 0; i < N; ++i) values[i] = i < valid ? to_float(p[i]) : 0.0f;
}

// The same as they lie in memory: an element becomes a float where it is used, so that what is loaded early is waited
// for late.
template <class T, int N>
struct Columns {
  static constexpr int kWidth = kChunk<T, N>;
  Packed<T, kWidth> part[N / kWidth];

  KGEN_DEVICE float operator[](int i) const { return part[i / kWidth][i % kWidth]; }
  // All of them, and `p` is aligned.
  KGEN_DEVICE void load_whole(const T* p) {
    KGEN_UNROLL
    for (int i = 0; i < N / kWidth; ++i) part[i] = Packed<T, kWidth>::load(p + i * kWidth);
  }
  KGEN_DEVICE void load(const T* p, int valid) {
    if constexpr (kWidth > 1) {
      if (valid >= N && vector_aligned<T, N>(p)) {
        load_whole(p);
        return;
      }
    }
    KGEN_UNROLL
    for (int i = 0; i < N; ++i) set(i, i < valid ? Packed<T, 1>::load(p + i).bits(0) : 0u);
  }
  KGEN_DEVICE void fill(const T* p) {
    const u32 bits = Packed<T, 1>::load(p).bits(0);
    KGEN_UNROLL
    for (int i = 0; i < N; ++i) set(i, bits);
  }

 private:
  KGEN_DEVICE void set(int i, u32 bits) {
    if constexpr (kWidth == 1)
      part[i].words[0] = bits;
    else
      part[i / kWidth].set_bits(i % kWidth, bits);
  }
};

template <int N, class T>
KGEN_DEVICE void store_whole_columns(T* p, const float (&values)[N]) {
  constexpr int kWidth = kChunk<T, N>;
  KGEN_UNROLL
  for (int i = 0; i < N; i += kWidth) {
    Vec<T, kWidth> v;
    KGEN_UNROLL
    for (int j = 0; j < kWidth; ++j) v[j] = from_float<T>(values[i + j]);
    store_vec<T, kWidth>(p + i, v);
  }
}
template <int N, class T>
KGEN_DEVICE void store_columns(T* p, int valid, const float (&values)[N]) {
  constexpr int kWidth = kChunk<T, N>;
  if constexpr (kWidth > 1) {
    if (valid >= N && vector_aligned<T, N>(p)) {
      store_whole_columns<N>(p, values);
      return;
    }
  }
  KGEN_UNROLL
  for (int i = 0; i < N; ++i)
    if (i < valid) p[i] = from_float<T>(values[i]);
}

}  // namespace kgen
