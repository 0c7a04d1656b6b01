// The epilogue of every GEMM-like kernel (tile, skinny, split-K reduce): from fp32 sums to stored output.
//
//   t = acc*alpha (+ beta*C[m,n]) (+ bias[n]);  t = t*scale[n] + shift[n];  D = act(t) + R  or  act(t + R);
//   D = D * other[m,n];  one rounding
//
// Which parts exist, and whether the residual comes before or after the activation, is read from Config::epilogue_*
// (1-based position in the op's list, 0 = absent), so an absent part costs nothing; add_c, scale_shift and mul_other
// may be unknown to the op. Names read from the parameters: alpha, n, d, ldd, batch_stride_d; with add_c: beta, c, ldc,
// batch_stride_c; with bias: bias; with scale_shift: scale, shift; with add_residual: residual, ldr, batch_stride_r;
// with mul_other: other, ldo, batch_stride_o. C is not read where beta is 0. Parameters that have a kChannelRows are
// those of an output whose channels are rows: bias, scale and shift then go by row.
#pragma once
#include "columns.h"
#include "fit.h"
#include "prelude.h"

namespace kgen {

// Activations in fp32. Each is finite for |t| up to 1e4 and gives NaN for NaN; where exp overflows, the quotient is 0.
KGEN_DEVICE float relu(float t) { return t < 0.0f ? 0.0f : t; }  // a NaN compares false and stays
KGEN_DEVICE float sigmoid(float t) { return rcp_f(1.0f + exp_f(-t)); }
KGEN_DEVICE float silu(float t) { return divide_f(t, 1.0f + exp_f(-t)); }
KGEN_DEVICE float quick_gelu(float t) { return divide_f(t, 1.0f + exp_f(-1.702f * t)); }
KGEN_DEVICE float gelu_erf(float t) { return 0.5f * t * (1.0f + erf_f(t * 0.70710678118654752f)); }
// t/2*(1+tanh(z)) written as t*sigmoid(2z): one exp and one division, no cancellation for negative t.
KGEN_DEVICE float gelu_tanh(float t) {
  const float two_z = 1.5957691216057308f * t * fma_f(0.044715f * t, t, 1.0f);
  return divide_f(t, 1.0f + exp_f(-two_z));
}

// The same for a result that is rounded to Out. Where that has 16 bits, within 1e-6 of t is enough, and takes a half to
// a third of the instructions. NaN for NaN.
KGEN_DEVICE float short_exp(float t) { return exp2_raw(1.44269502f * t); }
template <class Out>
KGEN_DEVICE float sigmoid(float t) {
  if constexpr (sizeof(Out) != 2) return sigmoid(t);
  return rcp_f(1.0f + short_exp(-t));
}
template <class Out>
KGEN_DEVICE float silu(float t) {
  if constexpr (sizeof(Out) != 2) return silu(t);
  return divide_f(t, 1.0f + short_exp(-t));
}
template <class Out>
KGEN_DEVICE float quick_gelu(float t) {
  if constexpr (sizeof(Out) != 2) return quick_gelu(t);
  return divide_f(t, 1.0f + exp2_raw(-2.45546696f * t));  // -1.702 * log2(e)
}
template <class Out>
KGEN_DEVICE float gelu_tanh(float t) {
  if constexpr (sizeof(Out) != 2) return gelu_tanh(t);
  const float two_z = 1.5957691216057308f * t * fma_f(0.044715f * t, t, 1.0f);
  return divide_f(t, 1.0f + short_exp(-two_z));
}
// With u = |t|/sqrt(2): t*(1 + erf(t/sqrt(2)))/2 = max(t, 0) - |t|*erfc(u)/2, and erfc(u) = exp(-u^2) * polynomial of
// 1/(1 + u/2), of degree 7 within 4.4e-7 (Remez, u up to 7). Small results keep their relative accuracy.
template <class Out>
KGEN_DEVICE float gelu_erf(float t) {
  if constexpr (sizeof(Out) != 2) return gelu_erf(t);
  float a = abs_f(t);
  a = a > 40.0f ? 40.0f : a;  // infinity times 0 would be NaN
  const float k = rcp_f(fma_f(0.353553391f, a, 1.0f));
  float r = fma_f(0.0472128918f, k, -0.189461f);
  r = fma_f(r, k, 0.210408686f);
  r = fma_f(r, k, 0.00750002125f);
  r = fma_f(r, k, 0.14518018f);
  r = fma_f(r, k, 0.137927315f);
  r = fma_f(r, k, 0.141231863f);
  const float half_erfc = r * k * exp2_raw(a * a * -0.721347520f);
  return fma_f(-a, half_erfc, t < 0.0f ? 0.0f : t);
}

// Two of them with one reciprocal: that and exp2 go at a quarter of the rate of a product or less.
KGEN_DEVICE void silu_pair(float (&t)[2]) {
  float b[2];
  KGEN_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float z = -1.44269502f * t[i];
    b[i] = 1.0f + exp2_raw(z < 60.0f ? z : 60.0f);  // the product stays finite, and a NaN stays in its own result
  }
  const float r = rcp_f(b[0] * b[1]);
  t[0] *= b[1] * r;
  t[1] *= b[0] * r;
}

// What an epilogue rounds its result to.
template <class C>
KGEN_HOST_DEVICE constexpr auto epilogue_output() {
  if constexpr (requires { typename C::out_dtype; })
    return typename C::out_dtype{};
  else
    return typename C::dtype{};
}

// 1-based position of the activation in the op's list, 0 where it has none.
template <class C>
inline constexpr int kActivationPosition = C::epilogue_relu + C::epilogue_gelu_erf + C::epilogue_gelu_tanh +
                                           C::epilogue_silu + C::epilogue_quick_gelu + C::epilogue_sigmoid;

// Positions of what not every op knows.
template <class C>
KGEN_HOST_DEVICE constexpr int add_c_position() {
  if constexpr (requires { C::epilogue_add_c; })
    return C::epilogue_add_c;
  else
    return 0;
}
template <class C>
KGEN_HOST_DEVICE constexpr int scale_shift_position() {
  if constexpr (requires { C::epilogue_scale_shift; })
    return C::epilogue_scale_shift;
  else
    return 0;
}
template <class C>
KGEN_HOST_DEVICE constexpr int mul_other_position() {
  if constexpr (requires { C::epilogue_mul_other; })
    return C::epilogue_mul_other;
  else
    return 0;
}

template <class C>
KGEN_DEVICE float activate(float t) {
  using Out = decltype(epilogue_output<C>());
  if constexpr (C::epilogue_relu != 0) return relu(t);
  if constexpr (C::epilogue_gelu_erf != 0) return gelu_erf<Out>(t);
  if constexpr (C::epilogue_gelu_tanh != 0) return gelu_tanh<Out>(t);
  if constexpr (C::epilogue_silu != 0) return silu<Out>(t);
  if constexpr (C::epilogue_quick_gelu != 0) return quick_gelu<Out>(t);
  if constexpr (C::epilogue_sigmoid != 0) return sigmoid<Out>(t);
  return t;
}

template <class C, int N>
KGEN_DEVICE void activate_all(float (&t)[N]) {
  using Out = decltype(epilogue_output<C>());
  if constexpr (C::epilogue_silu != 0 && sizeof(Out) == 2 && N % 2 == 0) {
    KGEN_UNROLL
    for (int i = 0; i < N; i += 2) {
      float pair[2] = {t[i], t[i + 1]};
      silu_pair(pair);
      t[i] = pair[0];
      t[i + 1] = pair[1];
    }
  } else {
    KGEN_UNROLL
    for (int i = 0; i < N; ++i) t[i] = activate<C>(t[i]);
  }
}

namespace epilogue_detail {

using kgen::load_columns;
using kgen::store_columns;

// Rows of D and of what is summed with it are whole aligned vectors (see whole_rows()).
template <class C, class V, class T>
KGEN_DEVICE void load_valid_columns(V& to, const T* p, int valid) {
  if constexpr (whole_rows<C>())
    to.load_whole(p);
  else
    to.load(p, valid);
}

// An op that does not name the bias's type has it in that of its operands.
template <class C>
struct BiasOf {
  using Type = typename C::dtype;
};
template <class C>
  requires requires { typename C::bias_dtype; }
struct BiasOf<C> {
  using Type = typename C::bias_dtype;
};

// What channel-wise operand p has for the columns from `column` on, or for the row where channels are rows.
template <class C, class P, int N, class T>
KGEN_DEVICE void load_channels(const T* p, i64 row, i64 column, int valid, Columns<T, N>& values) {
  if constexpr (requires { P::kChannelRows; })
    values.fill(p + row);
  else
    load_valid_columns<C>(values, p + column, valid);
}

// Of kRows x kColumns elements those that exist, a sector each time.
template <int kRows, int kColumns, class T>
KGEN_DEVICE void prefetch_rows(const T* first, i64 pitch, i64 rows, i64 columns) {
  constexpr int kSector = 32 / int(sizeof(T)), kAcross = (kColumns + kSector - 1) / kSector;
  for (u32 i = u32(thread_x()); i < u32(kRows * kAcross); i += u32(block_size())) {
    const u32 row = i / u32(kAcross), column = i % u32(kAcross) * u32(kSector);
    if (row < rows && column < columns) prefetch(first + row * pitch + column);
  }
}

}  // namespace epilogue_detail

// What the epilogue will read of the kRows x kColumns elements at row, column is called into the L2, so that its way
// from memory is hidden by the products; `rows` and `columns` are left to the edges.
template <class C, int kRows, int kColumns, class P>
KGEN_DEVICE void prefetch_epilogue(const P& p, i64 batch, i64 row, i64 rows, i64 column, i64 columns) {
  using epilogue_detail::prefetch_rows;
  if constexpr (!requires { P::kChannelRows; }) {
    if constexpr (C::epilogue_bias != 0) prefetch_rows<1, kColumns>(p.bias + column, 0, 1, columns);
    if constexpr (scale_shift_position<C>() != 0) {
      prefetch_rows<1, kColumns>(p.scale + column, 0, 1, columns);
      prefetch_rows<1, kColumns>(p.shift + column, 0, 1, columns);
    }
  }
  if constexpr (add_c_position<C>() != 0)
    if (p.beta != 0.0f)
      prefetch_rows<kRows, kColumns>(p.c + batch * p.batch_stride_c + row * p.ldc + column, p.ldc, rows, columns);
  if constexpr (C::epilogue_add_residual != 0)
    prefetch_rows<kRows, kColumns>(p.residual + batch * p.batch_stride_r + row * p.ldr + column, p.ldr, rows, columns);
  if constexpr (mul_other_position<C>() != 0)
    prefetch_rows<kRows, kColumns>(p.other + batch * p.batch_stride_o + row * p.ldo + column, p.ldo, rows, columns);
}

// What the epilogue reads for columns column .. column+N-1 of one row (N a power of two); those at or beyond p.n are
// not read. A kernel whose sums come late reads this before it starts on them: a trip to memory less at its end. Vector
// accesses where all N columns exist and the addresses are aligned, which is decided for each operand at run time (a
// few integer operations; a caller with N == 1 gets the scalar form alone).
template <class C, int N>
struct EpilogueOperands {
  Columns<typename C::out_dtype, N> c = {};  // not read where beta is 0; the others are read wherever they are used
  Columns<typename epilogue_detail::BiasOf<C>::Type, N> bias;
  Columns<float, N> scale, shift;
  Columns<typename C::dtype, N> residual, other;

  template <class P>
  KGEN_DEVICE void load(const P& p, i64 batch, i64 row, i64 column) {
    if (column >= p.n) return;
    const i64 left = p.n - column;
    load(p, batch, row, column, left < N ? int(left) : N);
  }
  // Where `valid` columns exist.
  template <class P>
  KGEN_DEVICE void load(const P& p, i64 batch, i64 row, i64 column, int valid) {
    namespace detail = epilogue_detail;
    if constexpr (add_c_position<C>() != 0) {
      if (p.beta != 0.0f) {
        detail::load_valid_columns<C>(c, p.c + batch * p.batch_stride_c + row * p.ldc + column, valid);
      }
    }
    if constexpr (C::epilogue_bias != 0) {
      detail::load_channels<C, P>(p.bias, row, column, valid, bias);
    }
    if constexpr (scale_shift_position<C>() != 0) {
      detail::load_channels<C, P>(p.scale, row, column, valid, scale);
      detail::load_channels<C, P>(p.shift, row, column, valid, shift);
    }
    if constexpr (C::epilogue_add_residual != 0)
      detail::load_valid_columns<C>(residual, p.residual + batch * p.batch_stride_r + row * p.ldr + column, valid);
    if constexpr (mul_other_position<C>() != 0)
      detail::load_valid_columns<C>(other, p.other + batch * p.batch_stride_o + row * p.ldo + column, valid);
  }
};

// What is to be stored, from sums and operands.
template <class C, int N, class P>
KGEN_DEVICE void epilogue_values(const P& p, const float (&acc)[N], const EpilogueOperands<C, N>& operands,
                                 float (&t)[N]) {
  constexpr bool kResidualFirst = C::epilogue_add_residual != 0 && C::epilogue_add_residual < kActivationPosition<C>;
  KGEN_UNROLL
  for (int i = 0; i < N; ++i) {
    t[i] = acc[i] * p.alpha;
    if constexpr (add_c_position<C>() != 0) t[i] = fma_f(p.beta, operands.c[i], t[i]);
    if constexpr (C::epilogue_bias != 0) t[i] += operands.bias[i];
    if constexpr (scale_shift_position<C>() != 0) t[i] = fma_f(t[i], operands.scale[i], operands.shift[i]);
    if constexpr (kResidualFirst) t[i] += operands.residual[i];
  }
  activate_all<C>(t);
  KGEN_UNROLL
  for (int i = 0; i < N; ++i) {
    if constexpr (C::epilogue_add_residual != 0 && !kResidualFirst) t[i] += operands.residual[i];
    if constexpr (mul_other_position<C>() != 0) t[i] *= operands.other[i];
  }
}

// The same to N columns that exist, at `to`; vectors: that is a multiple of a vector's bytes, asked once for many rows.
template <class C, int N, class P, class Out>
KGEN_DEVICE void epilogue_to(const P& p, Out* to, bool vectors, const float (&acc)[N],
                             const EpilogueOperands<C, N>& operands) {
  constexpr int kWidth = kChunk<Out, N>;
  float t[N];
  epilogue_values<C, N>(p, acc, operands, t);
  KGEN_UNROLL
  for (int i = 0; i < N; i += kWidth) {
    Packed<Out, kWidth> part;
    KGEN_UNROLL
    for (int j = 0; j < kWidth; ++j) part.set(j, t[i + j]);
    if (vectors) {
      part.store(to + i);
    } else {
      KGEN_UNROLL
      for (int j = 0; j < kWidth; ++j) {
        Packed<Out, 1> one;
        one.words[0] = part.bits(j);
        one.store(to + i + j);
      }
    }
  }
}

// Columns column .. column+N-1 of one row from their sums and operands; those at or beyond p.n are not written.
template <class C, int N, class P>
KGEN_DEVICE void epilogue(const P& p, i64 batch, i64 row, i64 column, const float (&acc)[N],
                          const EpilogueOperands<C, N>& operands) {
  if (column >= p.n) return;
  const i64 left = p.n - column;
  const int valid = left < N ? int(left) : N;
  float t[N];
  epilogue_values<C, N>(p, acc, operands, t);
  auto* const to = p.d + batch * p.batch_stride_d + row * p.ldd + column;
  if constexpr (whole_rows<C>())
    store_whole_columns<N>(to, t);
  else
    epilogue_detail::store_columns<N>(to, valid, t);
}

template <class C, int N, class P>
KGEN_DEVICE void epilogue(const P& p, i64 batch, i64 row, i64 column, const float (&acc)[N]) {
  EpilogueOperands<C, N> operands;
  operands.load(p, batch, row, column);
  epilogue(p, batch, row, column, acc, operands);
}

// One element.
template <class C, class P>
KGEN_DEVICE void epilogue(const P& p, i64 batch, i64 row, i64 column, float acc) {
  const float one[1] = {acc};
  epilogue<C, 1>(p, batch, row, column, one);
}

}  // namespace kgen
