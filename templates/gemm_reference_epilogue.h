// What the references of gemm and rmsnorm_gemm share (OPS.md a): sums of terms and the epilogue, in double.
#pragma once
#include "activation_reference.h"
#include "check.h"
#include "gemm_types.h"
#include "prelude.h"

namespace kgen {
namespace gemm_reference {

KGEN_DEVICE void accumulate(double a, double b, double& sum, double& magnitude) {
  sum = fma_d(a, b, sum);
  magnitude = fma_d(abs_d(a), abs_d(b), magnitude);
}

// sum += sum_i a[i] b[i*b_stride], magnitude += the same of absolute values.
template <class T>
KGEN_DEVICE void dot(const T* a, const T* b, i64 b_stride, i64 count, double& sum, double& magnitude) {
  constexpr int kWidth = 16 / int(sizeof(T));
  i64 i = 0;
  if (b_stride == 1 && (reinterpret_cast<u64>(a) | reinterpret_cast<u64>(b)) % 16 == 0) {
    for (; i + kWidth <= count; i += kWidth) {
      const Vec<T, kWidth> va = load_vec<T, kWidth>(a + i), vb = load_vec<T, kWidth>(b + i);
      KGEN_UNROLL
      for (int j = 0; j < kWidth; ++j) accumulate(to_float(va[j]), to_float(vb[j]), sum, magnitude);
    }
  }
  for (; i + 4 <= count; i += 4) {
    KGEN_UNROLL
    for (int j = 0; j < 4; ++j) accumulate(to_float(a[i + j]), to_float(b[(i + j) * b_stride]), sum, magnitude);
  }
  for (; i < count; ++i) accumulate(to_float(a[i]), to_float(b[i * b_stride]), sum, magnitude);
}

// What is added to alpha*(A.B) in column n of a row, apart from the residual.
template <class C, class P>
KGEN_DEVICE double addend(const P& p, i64 batch, i64 row, i64 column, double& magnitude) {
  double sum = 0;
  if constexpr (C::epilogue_add_c != 0) {
    if (p.beta != 0) {
      const double term = double(p.beta) * to_float(p.c[batch * p.batch_stride_c + row * p.ldc + column]);
      sum += term;
      magnitude += abs_d(term);
    }
  }
  if constexpr (C::epilogue_bias != 0) {
    const double term = to_float(p.bias[column]);
    sum += term;
    magnitude += abs_d(term);
  }
  return sum;
}

template <class C, class P>
KGEN_DEVICE double residual(const P& p, i64 batch, i64 row, i64 column, double& magnitude) {
  if constexpr (C::epilogue_add_residual != 0) {
    const double term = to_float(p.residual[batch * p.batch_stride_r + row * p.ldr + column]);
    magnitude += abs_d(term);
    return term;
  }
  return 0;
}

// The rest of the epilogue: `t` alpha*(A.B) and `s` its magnitude on entry, value and magnitude of an element of D on
// return. An activation's result counts as a term (its own rounding is relative to it).
template <class C, class P>
KGEN_DEVICE void finish(const P& p, i64 batch, i64 row, i64 column, double& t, double& s) {
  t += addend<C>(p, batch, row, column, s);
  const double added = residual<C>(p, batch, row, column, s);
  constexpr bool kResidualFirst =
      C::epilogue_add_residual != 0 && C::epilogue_add_residual < activation_reference::kActivation<C>;
  if constexpr (kResidualFirst) t += added;
  if constexpr (activation_reference::kActivation<C> != 0) {
    t = activation_reference::activate<C>(t);
    s += abs_d(t);
  }
  if constexpr (!kResidualFirst) t += added;
  if constexpr (C::epilogue_mul_other != 0) {
    const double gate = to_float(p.other[batch * p.batch_stride_o + row * p.ldo + column]);
    t *= gate;
    s *= abs_d(gate);
  }
}

}  // namespace gemm_reference

// C where beta is 0 must not be read: it holds NaN then.
template <class C, class P>
KGEN_DEVICE double init_c(const P& p, u64 seed, i64 element) {
  if (p.beta == 0.0f) return bit_cast<double>(0x7ff8000000000000ull);
  return random_value(seed, u64(element), int(Distribution::normal), 0, 1);
}

}  // namespace kgen
