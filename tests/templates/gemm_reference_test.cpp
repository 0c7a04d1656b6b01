// The gemm reference against plain loops, and its projection: right results stay far inside the bound, wrong ones do
// not.
#include "templates/gemm_reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "gemm_configs.h"
#include "kernels.h"

namespace kgen {
namespace {

using namespace testing;

Kernels& kernels() {
  static Kernels loaded(KGEN_GEMM_KERNELS);
  return loaded;
}

template <class C>
struct Values {
  std::vector<double> value, magnitude;
};

template <class C>
Values<C> launch(const std::string& kernel, const GemmCase<C>& problem, i64 count, u64 seed = 0,
                 const double* vector = nullptr) {
  Values<C> out{std::vector<double>(count), std::vector<double>(count)};
  ReferenceArgs<C> args{problem.args, seed, count, vector, out.value.data(), out.magnitude.data()};
  kernels().launch(kernel, {{std::uint32_t((count + 255) / 256), 1, 1}, 256, 0}, args);
  return out;
}

template <class C>
void expect_reference(const char* config, const GemmShape& shape) {
  GemmCase<C> problem(shape);
  const i64 count = shape.batch * shape.m * shape.n;
  const Values<C> out = launch(std::string("reference_") + config, problem, count);
  for (i64 i = 0; i < count; ++i) {
    const auto exact = problem.exact(i / shape.n / shape.m, i / shape.n % shape.m, i % shape.n);
    ASSERT_NEAR(out.value[i], exact.value, 1e-12 * exact.magnitude) << config << " element " << i;
    ASSERT_NEAR(out.magnitude[i], exact.magnitude, 1e-12 * exact.magnitude) << config << " element " << i;
  }
}

TEST(GemmReference, AgreesWithPlainLoops) {
  for (int gap : {0, 3, 8})
    for (i64 k : {0, 1, 37, 64}) {
      const GemmShape shape{
          .m = 5, .n = 11, .k = k, .batch = 2, .gap = gap, .shared_b = gap == 3, .alpha = 0.5f, .beta = -2};
      expect_reference<ReferenceNk>("ReferenceNk", shape);
      expect_reference<ReferenceKn>("ReferenceKn", shape);
      expect_reference<ReferenceErf>("ReferenceErf", shape);
      expect_reference<ReferenceSilu>("ReferenceSilu", shape);
      expect_reference<ReferenceSigmoid>("ReferenceSigmoid", shape);
      expect_reference<ReferenceRelu>("ReferenceRelu", shape);
    }
}

TEST(GemmReference, DoesNotReadCWhereBetaIsZero) {
  GemmCase<ReferenceKn> problem({.m = 2, .n = 3, .k = 4, .beta = 0});
  problem.args.c = nullptr;
  const auto out = launch("reference_ReferenceKn", problem, 6);
  EXPECT_NEAR(out.value[5], problem.exact(0, 1, 2).value, 1e-12);
}

// Sums as a kernel forms them, in C::accumulate.
template <class C>
float accumulated(const GemmCase<C>& problem, i64 batch, i64 row, i64 column, i64 terms) {
  using A = typename C::accumulate;
  const auto& p = problem.args;
  A acc = from_float<A>(0);
  for (i64 k = 0; k < terms; ++k) {
    const auto a = p.a[batch * p.batch_stride_a + row * p.lda + k];
    const auto b =
        p.b[batch * p.batch_stride_b + (C::b_layout == b_layout::nk ? column * p.ldb + k : k * p.ldb + column)];
    if constexpr (kSame<A, f16>)
      acc = fma_f16(a, b, acc);
    else
      acc = fma_f(to_float(a), to_float(b), acc);
  }
  return to_float(acc);
}

// Largest |error| / allowed over the rows of a D with `terms` of the k products, and rows beyond it.
template <class C>
struct Projected {
  double worst = 0;
  i64 bad = 0;
};
template <class C>
Projected<C> project(const char* config, const GemmShape& shape, u64 seed, i64 dropped) {
  using D = typename C::out_dtype;
  GemmCase<C> problem(shape);
  const i64 length = 2 * shape.batch * shape.k, rows = shape.batch * shape.m;
  const auto vector = launch(std::string("vector_") + config, problem, length, seed);
  const auto row_values = launch(std::string("project_") + config, problem, rows, seed, vector.value.data());
  Projected<C> result;
  for (i64 row = 0; row < rows; ++row) {
    double got = 0, squares = 0;
    for (i64 column = 0; column < shape.n; ++column) {
      const i64 batch = row / shape.m, m = row % shape.m;
      const auto& p = problem.args;
      const i64 at = batch * p.batch_stride_d + m * p.ldd + column;
      float t = p.alpha * accumulated(problem, batch, m, column, shape.k - dropped);
      if (C::epilogue_add_c) t += p.beta * to_float(p.c[at]);
      if (C::epilogue_bias) t += p.bias[column];
      if (C::epilogue_add_residual) t += to_float(p.residual[at]);
      const double stored = to_float(from_float<D>(t));
      got += projection_sign(seed, column) * stored;
      squares += stored * stored;
    }
    const double allowed = row_values.magnitude[row] + 4 * unit_roundoff<D>() * std::sqrt(squares);
    const double ratio = std::fabs(got - row_values.value[row]) / allowed;
    result.worst = std::fmax(result.worst, ratio);
    result.bad += !(ratio <= 1);
  }
  return result;
}

const GemmShape kLinear{.m = 6, .n = 200, .k = 1176, .batch = 2, .gap = 8, .alpha = 0.5f, .beta = 2};

TEST(GemmProjection, HoldsForRightResults) {
  for (u64 seed : {1, 2, 3}) {
    EXPECT_LT(project<LinearNk>("LinearNk", kLinear, seed, 0).worst, 0.75);
    EXPECT_LT(project<LinearKn>("LinearKn", kLinear, seed, 0).worst, 0.75);
    EXPECT_LT(project<LinearFp16Sums>("LinearFp16Sums", kLinear, seed, 0).worst, 0.75);
  }
}

TEST(GemmProjection, SeesADroppedKTail) {
  EXPECT_GE(project<LinearNk>("LinearNk", kLinear, 1, 24).bad, 10);
  EXPECT_EQ(project<LinearKn>("LinearKn", kLinear, 1, 8).bad, 12);
  EXPECT_GE(project<LinearFp16Sums>("LinearFp16Sums", kLinear, 1, 24).bad, 6);
}

}  // namespace
}  // namespace kgen
