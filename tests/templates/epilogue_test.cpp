// The epilogue's functions called as plain code: accuracy of the activations, order of the parts, vector against scalar
// form.
#include "templates/epilogue.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gemm_case.h"

namespace kgen {
namespace {

using testing::GemmCase;
using testing::GemmShape;
using testing::PlainConfig;

struct Activation {
  const char* name;
  float (*f)(float);
  double (*exact)(double);
};
const Activation kActivations[] = {
    {"relu", [](float t) { return relu(t); }, [](double t) { return t < 0 ? 0 : t; }},
    {"gelu_erf", [](float t) { return gelu_erf(t); }, [](double t) { return t / 2 * std::erfc(-t / std::sqrt(2.0)); }},
    {"gelu_tanh", [](float t) { return gelu_tanh(t); },
     [](double t) { return t / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (t + 0.044715 * t * t * t))); }},
    {"silu", [](float t) { return silu(t); }, [](double t) { return t / (1 + std::exp(-t)); }},
    {"quick_gelu", [](float t) { return quick_gelu(t); }, [](double t) { return t / (1 + std::exp(-1.702 * t)); }},
    {"sigmoid", [](float t) { return sigmoid(t); }, [](double t) { return 1 / (1 + std::exp(-t)); }},
};

// The acceptance test gives a single product a*b = t an error of 4 u |t| plus what is relative to the result.
TEST(Activations, AreWithinTheBoundOfASingleTerm) {
  for (const Activation& a : kActivations) {
    double worst = 0;
    float at = 0;
    for (int i = -200000; i <= 200000; ++i) {
      const float t = float(i) * 1e-4f * (i % 3 == 0 ? 1.0f : i % 3 == 1 ? 7.0f : 0.01f);
      const double exact = a.exact(t), e = 4 * 0x1p-24 * (std::fabs(t) + std::fabs(exact));
      const double ratio = std::fabs(a.f(t) - exact) / (e + 0x1p-24 * std::fabs(exact) + 0x1p-126);
      if (ratio > worst) worst = ratio, at = t;
    }
    EXPECT_LT(worst, 0.75) << a.name << " at " << at;
  }
}

TEST(Activations, StayFiniteForLargeArguments) {
  for (const Activation& a : kActivations) {
    for (float t : {1e4f, -1e4f, 88.7f, -88.7f, 89.5f, -89.5f, 130.0f, -150.0f, 1e30f, -1e30f, 0.0f}) {
      EXPECT_TRUE(std::isfinite(a.f(t))) << a.name << " " << t;
      const double exact = std::fabs(t) <= 1e4f ? a.exact(t) : a.f(t);
      EXPECT_NEAR(a.f(t), exact, 1e-6 * std::fabs(t) + 1e-7) << a.name << " " << t;
    }
  }
}

TEST(Activations, KeepNaN) {
  for (const Activation& a : kActivations)
    EXPECT_TRUE(std::isnan(a.f(std::numeric_limits<float>::quiet_NaN()))) << a.name;
}

// Applies the epilogue to the exact product rounded to float, N columns at a time.
template <class C, int N>
void apply(GemmCase<C>& problem) {
  for (i64 batch = 0; batch < problem.shape.batch; ++batch)
    for (i64 row = 0; row < problem.shape.m; ++row)
      for (i64 column = 0; column < problem.shape.n; column += N) {
        float acc[N] = {};
        for (int i = 0; i < N && column + i < problem.shape.n; ++i)
          for (i64 k = 0; k < problem.shape.k; ++k) {
            const auto& p = problem.args;
            acc[i] += to_float(p.a[batch * p.batch_stride_a + row * p.lda + k]) *
                      to_float(p.b[batch * p.batch_stride_b + (column + i) * p.ldb + k]);
          }
        epilogue<C, N>(problem.args, batch, row, column, acc);
      }
}

template <class C>
void expect_right(const char* name, GemmShape shape) {
  for (int gap : {0, 3, 8}) {
    shape.gap = gap;
    GemmCase<C> scalar(shape);
    apply<C, 1>(scalar);
    EXPECT_EQ(scalar.wrong(), "") << name << " gap " << gap;
    GemmCase<C> four(shape), eight(shape);
    apply<C, 4>(four);
    apply<C, 8>(eight);
    const std::size_t bytes = scalar.d.size() * sizeof(scalar.d[0]);
    EXPECT_EQ(std::memcmp(scalar.d.data(), four.d.data(), bytes), 0) << name << " gap " << gap;
    EXPECT_EQ(std::memcmp(scalar.d.data(), eight.d.data(), bytes), 0) << name << " gap " << gap;
  }
}

struct Bf16 : PlainConfig {
  using dtype = bf16;
  using out_dtype = bf16;
};
struct Half : PlainConfig {
  using dtype = f16;
  using out_dtype = f16;
};
struct TransformerOrder : Bf16 {
  static constexpr int epilogue_bias = 1, epilogue_gelu_erf = 2, epilogue_add_residual = 3;
};
struct ResNetOrder : Half {
  static constexpr int epilogue_bias = 1, epilogue_add_residual = 2, epilogue_relu = 3;
};
struct Gated : PlainConfig {
  static constexpr int epilogue_silu = 1, epilogue_mul_other = 2;
};
struct Everything : Bf16 {
  using out_dtype = float;
  static constexpr int epilogue_add_c = 1, epilogue_bias = 2, epilogue_gelu_tanh = 3, epilogue_add_residual = 4,
                       epilogue_mul_other = 5;
};
struct QuickGelu : PlainConfig {
  static constexpr int epilogue_quick_gelu = 1;
};
struct SigmoidAfterResidual : Half {
  static constexpr int epilogue_add_residual = 1, epilogue_sigmoid = 2;
};

const GemmShape kShape{.m = 3, .n = 21, .k = 9, .batch = 2, .alpha = 0.75f, .beta = -1.5f};

TEST(Epilogue, AppliesItsPartsInTheOrderOfTheList) {
  expect_right<PlainConfig>("plain", kShape);
  expect_right<TransformerOrder>("transformer", kShape);
  expect_right<ResNetOrder>("resnet", kShape);
  expect_right<Gated>("gated", kShape);
  expect_right<Everything>("everything", kShape);
  expect_right<QuickGelu>("quick_gelu", kShape);
  expect_right<SigmoidAfterResidual>("sigmoid", kShape);
}

TEST(Epilogue, DoesNotReadCWhereBetaIsZero) {
  GemmShape shape = kShape;
  shape.beta = 0;
  GemmCase<Everything> problem(shape);
  problem.args.c = nullptr;
  apply<Everything, 4>(problem);
  EXPECT_EQ(problem.wrong(), "");
}

}  // namespace
}  // namespace kgen
