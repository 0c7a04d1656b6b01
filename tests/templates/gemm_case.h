// A gemm problem on the host for the template tests: stored operands with NaN between their rows, and the answer in
// double by plain loops of its own (OPS.md a), which share nothing with the templates or their reference.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "templates/gemm_types.h"
#include "templates/prelude.h"

namespace kgen::testing {

// A Config without tunables; tests derive from it and hide what differs.
struct PlainConfig {
  using dtype = float;
  using out_dtype = float;
  using bias_dtype = float;
  using accumulate = float;
  static constexpr auto b_layout = kgen::b_layout::nk;
  static constexpr int epilogue_bias = 0, epilogue_relu = 0, epilogue_gelu_erf = 0, epilogue_gelu_tanh = 0,
                       epilogue_silu = 0, epilogue_quick_gelu = 0, epilogue_sigmoid = 0, epilogue_add_residual = 0,
                       epilogue_mul_other = 0, epilogue_add_c = 0;
  static constexpr int split_k = 1, reduce_columns = 4;
};

template <class C>
struct GemmArgs {
  using T = typename C::dtype;
  using D = typename C::out_dtype;
  const T* a = nullptr;
  const T* b = nullptr;
  const D* c = nullptr;
  const float* bias = nullptr;
  const T* residual = nullptr;
  const T* other = nullptr;
  D* d = nullptr;
  float* partial = nullptr;
  T* packed = nullptr;
  float alpha = 1, beta = 1;
  i64 batch = 1, m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0, ldr = 0, ldo = 0, ldd = 0, batch_stride_a = 0,
      batch_stride_b = 0, batch_stride_c = 0, batch_stride_r = 0, batch_stride_o = 0, batch_stride_d = 0;
};

struct GemmShape {
  i64 m = 1, n = 1, k = 1, batch = 1;
  int gap = 0;            // elements between rows, of all operands
  bool shared_b = false;  // batch stride 0
  float alpha = 1, beta = 1;
};

template <class C>
class GemmCase {
 public:
  using T = typename C::dtype;
  using D = typename C::out_dtype;
  static constexpr bool kNk = C::b_layout == b_layout::nk;

  explicit GemmCase(const GemmShape& s, unsigned seed = 1) : shape(s), random_(seed) {
    args.batch = s.batch, args.m = s.m, args.n = s.n, args.k = s.k;
    args.alpha = s.alpha, args.beta = s.beta;
    args.lda = s.k + s.gap, args.ldb = (kNk ? s.k : s.n) + s.gap;
    args.ldc = args.ldr = args.ldo = args.ldd = s.n + s.gap;
    const i64 b_rows = kNk ? s.n : s.k;
    args.batch_stride_a = s.m * args.lda;
    args.batch_stride_b = s.shared_b ? 0 : b_rows * args.ldb;
    args.batch_stride_c = args.batch_stride_r = args.batch_stride_o = args.batch_stride_d = s.m * args.ldd;
    a_ = matrix<T>(s.batch, s.m, s.k, args.lda);
    b_ = matrix<T>(s.shared_b ? 1 : s.batch, b_rows, kNk ? s.k : s.n, args.ldb);
    args.a = a_.data(), args.b = b_.data();
    if (C::epilogue_add_c) args.c = (c_ = matrix<D>(s.batch, s.m, s.n, args.ldc)).data();
    if (C::epilogue_bias) args.bias = (bias_ = matrix<float>(1, 1, s.n, s.n)).data();
    if (C::epilogue_add_residual) args.residual = (residual_ = matrix<T>(s.batch, s.m, s.n, args.ldr)).data();
    if (C::epilogue_mul_other) args.other = (other_ = matrix<T>(s.batch, s.m, s.n, args.ldo)).data();
    d.assign(extent(s.batch, s.m, s.n, args.ldd), D());
    std::fill_n(reinterpret_cast<unsigned char*>(d.data()), d.size() * sizeof(D), 0xff);
    args.d = d.data();
  }
  GemmCase(const GemmCase&) = delete;
  GemmCase& operator=(const GemmCase&) = delete;

  // The answer for one element and the sum of the absolute terms.
  struct Exact {
    double value = 0, magnitude = 0;
  };
  Exact exact(i64 batch, i64 row, i64 column, i64 k_from = 0) const {
    Exact sum;
    for (i64 k = k_from; k < shape.k; ++k) {
      const double a = to_float(args.a[batch * args.batch_stride_a + row * args.lda + k]);
      const double b =
          to_float(args.b[batch * args.batch_stride_b + (kNk ? column * args.ldb + k : k * args.ldb + column)]);
      sum.value += a * b;
      sum.magnitude += std::fabs(a * b);
    }
    sum.value *= double(args.alpha);
    sum.magnitude *= std::fabs(double(args.alpha));
    const i64 at =
        batch * args.batch_stride_d + row * args.ldd + column;  // c, residual, other and d have one layout here
    auto add = [&](double term) {
      sum.value += term;
      sum.magnitude += std::fabs(term);
    };
    if (C::epilogue_add_c && args.beta != 0) add(double(args.beta) * to_float(args.c[at]));
    if (C::epilogue_bias) add(args.bias[column]);
    const int activation = C::epilogue_relu + C::epilogue_gelu_erf + C::epilogue_gelu_tanh + C::epilogue_silu +
                           C::epilogue_quick_gelu + C::epilogue_sigmoid;
    if (C::epilogue_add_residual && C::epilogue_add_residual < activation) add(to_float(args.residual[at]));
    if (activation) {
      sum.value = activated(sum.value);
      sum.magnitude += std::fabs(sum.value);
    }
    if (C::epilogue_add_residual > activation) add(to_float(args.residual[at]));
    if (C::epilogue_mul_other) {
      sum.value *= to_float(args.other[at]);
      sum.magnitude *= std::fabs(to_float(args.other[at]));
    }
    return sum;
  }

  // Empty when D is right by OPS 0.1 and nothing between its rows was written, else the first element that is not.
  std::string wrong() const {
    const double u_out = sizeof(D) == 4 ? 0x1p-24 : kSame<D, f16> ? 0x1p-11 : 0x1p-8;
    const double tiny = sizeof(D) == 4 ? 0x1p-149 : kSame<D, f16> ? 0x1p-24 : 0x1p-133;
    for (i64 i = 0; i < i64(d.size()); ++i) {
      const i64 row_of_all = i / args.ldd, column = i % args.ldd;
      if (column >= shape.n) {
        for (std::size_t byte = 0; byte < sizeof(D); ++byte)
          if (reinterpret_cast<const unsigned char*>(&d[i])[byte] != 0xff)
            return "written between rows, element " + std::to_string(i);
        continue;
      }
      const Exact e = exact(row_of_all / shape.m, row_of_all % shape.m, column);
      const double bound = 4 * std::sqrt(double(shape.k + 1)) * 0x1p-24 * e.magnitude;
      const double allowed = bound + u_out * (std::fabs(e.value) + bound) + tiny, got = to_float(d[i]);
      if (!(std::fabs(got - e.value) <= allowed))
        return "row " + std::to_string(row_of_all) + " column " + std::to_string(column) + ": " + std::to_string(got) +
               " instead of " + std::to_string(e.value);
    }
    return "";
  }

  GemmShape shape;
  GemmArgs<C> args;
  std::vector<D> d;

 private:
  static std::size_t extent(i64 batch, i64 rows, i64 columns, i64 stride) {
    return rows * columns == 0 ? 0 : std::size_t((batch * rows - 1) * stride + columns);
  }
  template <class E>
  std::vector<E> matrix(i64 batch, i64 rows, i64 columns, i64 stride) {
    std::vector<E> data(extent(batch, rows, columns, stride), from_float<E>(std::numeric_limits<float>::quiet_NaN()));
    std::normal_distribution<float> normal;
    for (i64 row = 0; row < batch * rows; ++row)
      for (i64 column = 0; column < columns; ++column) data[row * stride + column] = from_float<E>(normal(random_));
    return data;
  }
  static double activated(double t) {
    if (C::epilogue_relu) return std::fmax(t, 0);
    if (C::epilogue_gelu_erf) return t / 2 * (1 + std::erf(t / std::sqrt(2.0)));
    if (C::epilogue_gelu_tanh) return t / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (t + 0.044715 * t * t * t)));
    if (C::epilogue_silu) return t / (1 + std::exp(-t));
    if (C::epilogue_quick_gelu) return t / (1 + std::exp(-1.702 * t));
    return 1 / (1 + std::exp(-t));
  }

  std::mt19937 random_;
  std::vector<T> a_, b_;
  std::vector<D> c_;
  std::vector<T> residual_, other_;
  std::vector<float> bias_;
};

}  // namespace kgen::testing
