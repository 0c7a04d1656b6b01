// Vectors from memory to LDS, by asynchronous copies where there are any: copy() all that is needed, then wait(), then
// a barrier.
#pragma once
#include "columns.h"
#include "prelude.h"

namespace kgen {

template <bool kAsync, class T>
struct LdsCopies {
  // kVec elements to LDS byte `to`, zeros where they do not exist; `from` can be read either way.
  template <int kVec>
  static KGEN_DEVICE void copy(int to, const T* from, bool exists) {
    load_or_zero<kVec>(from, exists).store(lds<T>(to));
  }
  static KGEN_DEVICE void wait() {}
};
template <class T>
struct LdsCopies<true, T> {
  template <int kVec>
  static KGEN_DEVICE void copy(int to, const T* from, bool exists) {
    constexpr int kBytes = kVec * int(sizeof(T));
    async_copy<kBytes>(lds_address(lds_base()) + u32(to), from, exists ? kBytes : 0);
  }
  static KGEN_DEVICE void wait() {
    async_commit();
    async_wait<0>();
  }
};

}  // namespace kgen
