// The skinny kernel and the split-K reduction on the host device: tails, splits, layouts, epilogues; and the packing of
// B.
#include "templates/gemm_skinny.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "gemm_configs.h"
#include "kernels.h"
#include "templates/pack_b.h"

namespace kgen {
namespace {

using namespace testing;

Kernels& kernels() {
  static Kernels loaded(KGEN_GEMM_KERNELS);
  return loaded;
}

std::uint32_t ceil_div(i64 a, i64 b) { return std::uint32_t((a + b - 1) / b); }

// Memory for the packed B, filled by the packing kernel.
template <class C>
std::vector<Vec<typename C::dtype, 8>> pack(const char* config, GemmCase<C>& problem) {
  auto& p = problem.args;
  const i64 elements = p.batch * packed_rows<C>(p) * packed_stride<C>(p);
  std::vector<Vec<typename C::dtype, 8>> storage(ceil_div(elements, 8));  // 16-byte aligned
  p.packed = reinterpret_cast<typename C::dtype*>(storage.data());
  const i64 vectors = elements * i64(sizeof(typename C::dtype)) / 16;
  if (vectors > 0) kernels().launch(std::string("pack_") + config, {{ceil_div(vectors, 256), 1, 1}, 256, 0}, p);
  return storage;
}

template <class C>
std::string run(const char* config, const GemmShape& shape, unsigned seed = 1) {
  using S = skinny::Shape<C>;
  GemmCase<C> problem(shape, seed);
  std::vector<float> partial(C::split_k > 1 ? C::split_k * shape.batch * shape.m * shape.n : 0);
  problem.args.partial = partial.data();
  std::vector<Vec<typename C::dtype, 8>> packed;
  if constexpr (C::pack_b != 0) packed = pack<C>(config, problem);
  const i64 chunk = ceil_div(ceil_div(shape.k, C::split_k), S::kStep) * i64(S::kStep);
  const i64 staged =
      C::a_lds ? C::rows_m * i64(ceil_div(chunk, C::vec_b)) * C::vec_b * i64(sizeof(typename C::dtype)) : 0;
  const Launch launch{{ceil_div(shape.n, S::kColumns), std::uint32_t(C::split_k), std::uint32_t(shape.batch)},
                      std::uint32_t(S::kThreads),
                      std::uint32_t(S::kSumsBytes + staged)};
  kernels().launch(std::string("skinny_") + config, launch, problem.args);
  if (C::split_k > 1) {
    const i64 items = shape.batch * shape.m * ceil_div(shape.n, C::reduce_columns);
    kernels().launch(std::string("reduce_") + config, {{ceil_div(items, 256), 1, 1}, 256, 0}, problem.args);
  }
  return problem.wrong();
}

// Every shape, with and without a gap between rows; k and n as they are where the vectors allow it.
template <class C>
void expect_right(const char* config) {
  constexpr bool kNk = skinny::Shape<C>::kNk;
  for (i64 m : {i64(1), i64(C::rows_m)})
    for (i64 n : {1, 7, 64, 129})
      for (i64 k : {0, 1, 13, 300, 1176})
        for (int gap : {0, 5}) {
          GemmShape shape{
              .m = m, .n = n, .k = k, .batch = 2, .gap = gap, .shared_b = n == 7, .alpha = 1.5f, .beta = 0.5f};
          if (!kNk) shape.n = ceil_div(n, C::vec_b) * C::vec_b;
          // Rows start at multiples of vec_b elements.
          while ((kNk ? shape.k : shape.n) % C::vec_b != 0 && (shape.k + shape.gap) % C::vec_b != 0) ++shape.gap;
          if (kNk)
            while ((shape.k + shape.gap) % C::vec_b != 0) ++shape.gap;
          else
            shape.gap = ceil_div(shape.gap, C::vec_b) * C::vec_b;
          ASSERT_EQ(run<C>(config, shape), "")
              << config << " m " << m << " n " << shape.n << " k " << k << " gap " << shape.gap;
        }
}

#define SKINNY_TEST(Name, Config) \
  TEST(Skinny, Name) { expect_right<Config>(#Config); }
SKINNY_TEST(IsRightForOneRow, SkinnyPlain)
SKINNY_TEST(IsRightInBf16WithWavesAlongK, SkinnyBf16)
SKINNY_TEST(IsRightForFourRowsFromLds, SkinnyHalfRows)
SKINNY_TEST(IsRightForSixteenRows, SkinnySixteenRows)
SKINNY_TEST(IsRightWhenKIsSplitOverBlocks, SkinnySplit)
SKINNY_TEST(IsRightForUnalignedRows, SkinnyUnaligned)
SKINNY_TEST(IsRightForKn, SkinnyKn)
SKINNY_TEST(IsRightForKnSplitOverBlocks, SkinnyKnSplit)
SKINNY_TEST(IsRightForKnOneColumnALane, SkinnyKnUnaligned)
SKINNY_TEST(IsRightForPackedB, SkinnyPacked)

TEST(Skinny, GivesTheSameBitsOnEveryRun) {
  const GemmShape shape{.m = 2, .n = 100, .k = 1176};
  std::vector<float> results[2];
  for (auto& result : results) {
    GemmCase<SkinnySplit> problem(shape);
    std::vector<float> partial(SkinnySplit::split_k * shape.m * shape.n);
    problem.args.partial = partial.data();
    using S = skinny::Shape<SkinnySplit>;
    kernels().launch("skinny_SkinnySplit", {{ceil_div(shape.n, S::kColumns), 5, 1}, std::uint32_t(S::kThreads), 65536},
                     problem.args);
    kernels().launch("reduce_SkinnySplit", {{1, 1, 1}, 256, 0}, problem.args);
    result = problem.d;
  }
  EXPECT_EQ(results[0], results[1]);
}

template <class C>
void expect_packed(const char* config, const GemmShape& shape) {
  GemmCase<C> problem(shape);
  auto& p = problem.args;
  const i64 rows = packed_rows<C>(p), stride = packed_stride<C>(p);
  EXPECT_EQ(rows % C::pack_n, 0);
  EXPECT_EQ(stride % C::pack_k, 0);
  const auto storage = pack<C>(config, problem);
  for (i64 batch = 0; batch < shape.batch; ++batch)
    for (i64 n = 0; n < rows; ++n)
      for (i64 k = 0; k < stride; ++k) {
        const i64 at = batch * p.batch_stride_b + (C::b_layout == b_layout::nk ? n * p.ldb + k : k * p.ldb + n);
        const float expected = n < shape.n && k < shape.k ? to_float(p.b[at]) : 0.0f;
        ASSERT_EQ(to_float(p.packed[(batch * rows + n) * stride + k]), expected) << batch << " " << n << " " << k;
      }
}

TEST(PackB, PadsRowsAndColumnsWithZeros) {
  expect_packed<PackNk>("PackNk", {.n = 37, .k = 147, .batch = 2, .gap = 3});
  expect_packed<PackNk>("PackNk", {.n = 32, .k = 64});
  expect_packed<PackNk>("PackNk", {.n = 1, .k = 1, .batch = 2, .shared_b = true});
  expect_packed<PackKn>("PackKn", {.n = 19, .k = 21, .batch = 2, .gap = 1});
}

}  // namespace
}  // namespace kgen
