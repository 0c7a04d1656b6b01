// The plain ALU as a matrix unit, for every type and architecture.
//
// GPU: a wave is a grid of 8 x (wave/8) lanes; a fragment is 16 bytes of K. A lane owns row lane / columns of 8 and, of
// 8 columns, one (wave64) or two (wave32); larger register tiles come from the tile loop's blocks. LDS holds float, so
// that a value is widened once and not by every lane that reads it; f16 where sums are f16.
//
// Host: a wave is one work-item. B lies [k][n] and both operands are float in LDS, so that the compiler turns the inner
// loop over kN columns into vector instructions; a fragment is a whole tile_k of LDS, read while multiplying.
#pragma once
#include "mma.h"

namespace kgen {

template <class Acc>
struct SimtElement {
  using Type = float;
};
template <>
struct SimtElement<f16> {
  using Type = f16;
};

template <Arch kArch, class In, class Acc, int kTileK>
  requires(kArch != Arch::host)
struct Mma<kArch, In, Acc, 8, kTileK> {
  static constexpr int kLanes = kWaveSize, kLaneColumns = kLanes / 8;
  using Lds = typename SimtElement<Acc>::Type;
  static constexpr int kM = 8, kN = 8, kK = 16 / int(sizeof(Lds));
  static constexpr bool kSwizzle = true, kReadsN = false, kBInN = false, kPrefetch = false;
  static constexpr int kChunksA = 1, kChunksB = 8 / kLaneColumns;
  struct A {
    Vec<Lds, kK> v;
  };
  struct B {
    Vec<Lds, kK> v[kChunksB];
  };
  struct C {
    Acc v[kChunksB];
  };

  static KGEN_DEVICE int a_row(int lane, int) { return lane / kLaneColumns; }
  static KGEN_DEVICE int a_k(int, int) { return 0; }
  template <bool>
  static KGEN_DEVICE int b_column(int lane, int e) {
    return lane % kLaneColumns + e * kLaneColumns;
  }
  template <bool>
  static KGEN_DEVICE int b_k(int, int) {
    return 0;
  }
  static KGEN_DEVICE void load_a(A& a, int, int offset) { a.v = load_vec<Lds, kK>(lds<Lds>(offset)); }
  template <bool, int>
  static KGEN_DEVICE void load_b(B& b, int e, int offset) {
    b.v[e] = load_vec<Lds, kK>(lds<Lds>(offset));
  }

  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    KGEN_UNROLL
    for (int e = 0; e < kChunksB; ++e) {
      KGEN_UNROLL
      for (int k = 0; k < kK; ++k) {
        if constexpr (kSame<Acc, f16>)
          c.v[e] = fma_f16(a.v[k], b.v[e][k], c.v[e]);
        else
          c.v[e] = fma_f(a.v[k], b.v[e][k], c.v[e]);
      }
    }
  }

  static constexpr int kRowsC = 1, kRowElementsC = kChunksB, kRunC = 1, kRowLanes = kLaneColumns - 1;
  static constexpr bool kSumsToA = false;
  static KGEN_DEVICE int c_row(int lane, int) { return lane / kLaneColumns; }
  static KGEN_DEVICE int c_column(int lane, int e) { return lane % kLaneColumns + e * kLaneColumns; }
  static KGEN_DEVICE float get_c(const C& c, int, int e) { return to_float(c.v[e]); }
  static KGEN_DEVICE void set_c(C& c, int, int e, float value) { c.v[e] = value; }

  static KGEN_DEVICE void store(const C& c, float* rows, int pitch, int lane) {
    float* at = rows + lane / kLaneColumns * pitch + lane % kLaneColumns;
    KGEN_UNROLL
    for (int e = 0; e < kChunksB; ++e) at[e * kLaneColumns] = to_float(c.v[e]);
  }
};

#if !defined(__HIP__) && !defined(__CUDA__) && !defined(__CUDACC__)
template <class In, class Acc, int kM_, int kTileK>
struct Mma<Arch::host, In, Acc, kM_, kTileK> {
  static constexpr int kM = kM_, kN = 16, kK = kTileK, kLanes = 1;
  static constexpr bool kSwizzle = false, kReadsN = true, kBInN = true, kPrefetch = false;
  static constexpr int kChunksA = kM, kChunksB = 1;  // a piece of A is a row
  using Lds = float;
  struct A {
    const float* rows[kM];
  };
  struct B {
    const float* rows;
    int pitch;
  };
  using Row = float __attribute__((vector_size(4 * kN), aligned(4), may_alias));
  struct C {
    Acc v[kM][kN];
  };

  static KGEN_DEVICE int a_row(int, int e) { return e; }
  static KGEN_DEVICE int a_k(int, int) { return 0; }
  template <bool>
  static KGEN_DEVICE int b_column(int, int) {
    return 0;
  }
  template <bool>
  static KGEN_DEVICE int b_k(int, int) {
    return 0;
  }
  static KGEN_DEVICE void load_a(A& a, int e, int offset) { a.rows[e] = lds<float>(offset); }
  template <bool, int kRowBytes>
  static KGEN_DEVICE void load_b(B& b, int, int offset) {
    b.rows = lds<float>(offset);
    b.pitch = kRowBytes / int(sizeof(float));
  }

  static KGEN_DEVICE void multiply(C& c, const A& a, const B& b) {
    if constexpr (kSame<Acc, float>) {
      Row sum[kM];
      for (int i = 0; i < kM; ++i) sum[i] = *reinterpret_cast<const Row*>(c.v[i]);
      for (int k = 0; k < kTileK; ++k) {
        const Row row = *reinterpret_cast<const Row*>(b.rows + k * b.pitch);
        for (int i = 0; i < kM; ++i) sum[i] += a.rows[i][k] * row;
      }
      for (int i = 0; i < kM; ++i) *reinterpret_cast<Row*>(c.v[i]) = sum[i];
    } else {
      for (int i = 0; i < kM; ++i)
        for (int k = 0; k < kTileK; ++k)
          for (int j = 0; j < kN; ++j)
            c.v[i][j] = fma_f16(from_float<f16>(a.rows[i][k]), from_float<f16>(b.rows[k * b.pitch + j]), c.v[i][j]);
    }
  }

  static constexpr int kRowsC = kM, kRowElementsC = kN, kRunC = kN, kRowLanes = 0;
  static constexpr bool kSumsToA = false;
  static KGEN_DEVICE int c_row(int, int r) { return r; }
  static KGEN_DEVICE int c_column(int, int e) { return e; }
  static KGEN_DEVICE float get_c(const C& c, int r, int e) { return to_float(c.v[r][e]); }
  static KGEN_DEVICE void set_c(C& c, int r, int e, float value) { c.v[r][e] = value; }

  static KGEN_DEVICE void store(const C& c, float* rows, int pitch, int) {
    for (int i = 0; i < kM; ++i)
      for (int j = 0; j < kN; ++j) rows[i * pitch + j] = to_float(c.v[i][j]);
  }
};
#endif

}  // namespace kgen
