// The checks that every candidate has to pass: right results pass in every type, planted faults do not.
#include "templates/check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "gemm_case.h"
#include "kernels.h"

namespace kgen {
namespace {

using testing::GemmCase;
using testing::GemmShape;
using testing::PlainConfig;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class T>
struct Type;
template <>
struct Type<float> {
  static constexpr const char* kName = "fp32";
  static constexpr double kRoundoff = 0x1p-24, kTiny = 0x1p-149, kL2Limit = 1e-5;
};
template <>
struct Type<f16> {
  static constexpr const char* kName = "fp16";
  static constexpr double kRoundoff = 0x1p-11, kTiny = 0x1p-24, kL2Limit = 4e-4;
};
template <>
struct Type<bf16> {
  static constexpr const char* kName = "bf16";
  static constexpr double kRoundoff = 0x1p-8, kTiny = 0x1p-133, kL2Limit = 3e-3;
};

testing::Kernels& kernels() {
  static testing::Kernels loaded(KGEN_CHECK_KERNELS);
  return loaded;
}

CheckPartial sum(const std::vector<CheckPartial>& partials) {
  CheckPartial total = empty_partial();
  for (const CheckPartial& partial : partials) merge(total, partial);
  return total;
}

template <class T>
CheckPartial run_check(const std::vector<T>& got, const std::vector<i64>& layout, const std::vector<double>& value,
                       const std::vector<double>& magnitude, double factor, const i64* index = nullptr,
                       std::uint32_t grid = 3) {
  std::vector<CheckPartial> partials(grid);
  kernels().launch(std::string("check_") + Type<T>::kName, {{grid, 1, 1}, 256, kCheckLds}, got.data(), layout.data(),
                   index, i64(value.size()), value.data(), magnitude.data(), factor, Type<T>::kRoundoff, Type<T>::kTiny,
                   partials.data());
  return sum(partials);
}

template <class T>
bool passes(const CheckPartial& partial) {
  return partial.bad == 0 && std::sqrt(partial.error2 / partial.reference2) <= Type<T>::kL2Limit;
}

// An n x n product with bias, whose rows are apart; `got` is the right answer, to be spoiled.
template <class T>
class Product : public ::testing::Test {
 protected:
  struct Config : PlainConfig {
    using dtype = T;
    using out_dtype = T;
    static constexpr int epilogue_bias = 1;
  };
  static constexpr i64 kN = 48, kK = 1176, kGap = 5, kStride = kN + kGap;

  Product()
      : problem_({.m = kN, .n = kN, .k = kK, .gap = int(kGap)}), got_(problem_.d), layout_{2, kN, kN, kStride, 1} {
    for (i64 row = 0; row < kN; ++row)
      for (i64 column = 0; column < kN; ++column) {
        const auto exact = problem_.exact(0, row, column);
        value_.push_back(exact.value);
        magnitude_.push_back(exact.magnitude);
        got_[row * kStride + column] = from_float<T>(accumulated(row, column, kK) + problem_.args.bias[column]);
      }
  }
  // Sum in fp32 of the first `k` products, as a kernel forms it.
  float accumulated(i64 row, i64 column, i64 k) const {
    const auto& p = problem_.args;
    float acc = 0;
    for (i64 i = 0; i < k; ++i) acc += to_float(p.a[row * p.lda + i]) * to_float(p.b[column * p.ldb + i]);
    return acc;
  }
  CheckPartial check() const {
    return run_check(got_, layout_, value_, magnitude_, 4 * std::sqrt(double(kK)) * 0x1p-24);
  }
  CheckPartial project(u64 seed) const {
    std::vector<double> expected(kN), bound(kN);
    for (i64 row = 0; row < kN; ++row) {
      double squares = 0;
      for (i64 column = 0; column < kN; ++column) {
        const i64 at = row * kN + column;
        expected[row] += projection_sign(seed, column) * value_[at];
        squares += std::pow(std::sqrt(double(kK)) * 0x1p-24 * magnitude_[at], 2);
      }
      bound[row] = std::sqrt(squares);
    }
    std::vector<CheckPartial> partials(4);
    kernels().launch(std::string("check_projection_") + Type<T>::kName, {{4, 1, 1}, 256, kCheckLds}, got_.data(),
                     layout_.data(), seed, kN, expected.data(), bound.data(), partials.data());
    return sum(partials);
  }
  T& at(i64 row, i64 column) { return got_[row * kStride + column]; }

  GemmCase<Config> problem_;
  std::vector<T> got_;
  std::vector<i64> layout_;
  std::vector<double> value_, magnitude_;
};

using Types = ::testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(Product, Types);

TYPED_TEST(Product, PassesWhenRight) {
  const CheckPartial result = this->check();
  EXPECT_TRUE(passes<TypeParam>(result)) << result.worst_ratio << " at " << result.worst_element;
  EXPECT_GT(result.worst_ratio, 0);
  for (u64 seed : {1, 2, 3}) {
    const CheckPartial projected = this->project(seed);
    EXPECT_EQ(projected.bad, 0) << projected.worst_ratio;
    EXPECT_LT(projected.worst_ratio, 0.75);
  }
}

TYPED_TEST(Product, FailsWhenTheKTailIsDropped) {
  for (i64 row = 0; row < this->kN; ++row)
    for (i64 column = 0; column < this->kN; ++column)
      this->at(row, column) =
          from_float<TypeParam>(this->accumulated(row, column, this->kK - 24) + this->problem_.args.bias[column]);
  EXPECT_FALSE(passes<TypeParam>(this->check()));
  EXPECT_GT(this->project(1).bad, this->kN / 2);
}

TYPED_TEST(Product, FailsWhenAnAxisIsSwapped) {
  for (i64 row = 0; row < this->kN; ++row)
    for (i64 column = 0; column < row; ++column) std::swap(this->at(row, column), this->at(column, row));
  EXPECT_FALSE(passes<TypeParam>(this->check()));
  EXPECT_GT(this->project(1).bad, this->kN / 2);
}

TYPED_TEST(Product, FailsWhenTheEpilogueIsSkipped) {
  for (i64 row = 0; row < this->kN; ++row)
    for (i64 column = 0; column < this->kN; ++column)
      this->at(row, column) = from_float<TypeParam>(this->accumulated(row, column, this->kK));
  EXPECT_FALSE(passes<TypeParam>(this->check()));
}

TYPED_TEST(Product, NamesTheOneWrongElement) {
  this->at(17, 5) = from_float<TypeParam>(to_float(this->at(17, 5)) + 4.0f);
  const CheckPartial result = this->check();
  EXPECT_EQ(result.bad, 1);
  EXPECT_EQ(result.worst_element, 17 * this->kN + 5);
  EXPECT_EQ(result.worst_got, to_float(this->at(17, 5)));
  EXPECT_EQ(result.worst_reference, this->value_[17 * this->kN + 5]);
  EXPECT_GT(result.worst_ratio, 1);
}

TYPED_TEST(Product, ProjectionNamesTheRowOfALargeError) {
  this->at(31, 7) = from_float<TypeParam>(to_float(this->at(31, 7)) + 400.0f);
  const CheckPartial result = this->project(9);
  EXPECT_EQ(result.bad, 1);
  EXPECT_EQ(result.worst_element, 31);
}

TYPED_TEST(Product, FailsOnAnUnwrittenElement) {
  std::fill_n(reinterpret_cast<unsigned char*>(&this->at(47, 47)), sizeof(TypeParam), 0xff);
  const CheckPartial result = this->check();
  EXPECT_EQ(result.bad, 1);
  EXPECT_EQ(result.worst_element, 47 * this->kN + 47);
  EXPECT_EQ(result.worst_ratio, kInfinity);
  EXPECT_TRUE(std::isnan(result.worst_got));
  EXPECT_EQ(this->project(1).bad, 1);
}

TYPED_TEST(Product, FailsOnInfinity) {
  this->at(0, 0) = from_float<TypeParam>(-std::numeric_limits<float>::infinity());
  EXPECT_EQ(this->check().bad, 1);
  EXPECT_EQ(this->project(1).bad, 1);
}

TYPED_TEST(Product, GivesTheSameSumsOnEveryRun) {
  const CheckPartial first = this->check(), second = this->check();
  EXPECT_EQ(first.error2, second.error2);
  EXPECT_EQ(first.reference2, second.reference2);
}

TYPED_TEST(Product, ChecksSampledElements) {
  const std::vector<i64> index = {5, 17 * this->kN + 5, 2303};
  std::vector<double> value, magnitude;
  for (i64 i : index) value.push_back(this->value_[i]), magnitude.push_back(this->magnitude_[i]);
  const double factor = 4 * std::sqrt(double(this->kK)) * 0x1p-24;
  EXPECT_EQ(run_check(this->got_, this->layout_, value, magnitude, factor, index.data()).bad, 0);
  this->at(17, 5) = from_float<TypeParam>(0);
  const CheckPartial result = run_check(this->got_, this->layout_, value, magnitude, factor, index.data());
  EXPECT_EQ(result.bad, 1);
  EXPECT_EQ(result.worst_element, 17 * this->kN + 5);
}

TEST(Check, ComparesNaNAndInfinity) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  struct Row {
    float got;
    double reference;
    bool right;
  };
  const Row rows[] = {
      {nan, nan, true},         {1, nan, false},           {nan, 1, false},      {inf, kInfinity, true},
      {-inf, kInfinity, false}, {65504, kInfinity, false}, {inf, 70000, true},   {-inf, 70000, false},
      {65504, 70000, false},    {inf, 65520, true},        {65504, 65510, true}, {inf, 60000, false},
      {nan, kInfinity, false},  {inf, nan, false},         {0, 0, true},         {5.9604645e-8f, 0, true}};
  for (const Row& row : rows) {
    const CheckPartial result = run_check<f16>({from_float<f16>(row.got)}, {1, 1, 1}, {row.reference}, {0}, 0);
    EXPECT_EQ(result.bad == 0, row.right) << row.got << " for " << row.reference;
    EXPECT_EQ(result.worst_element, 0);
  }
}

TEST(Check, FindsItsWayThroughAnyLayout) {
  const std::vector<i64> layout = {4, 2, 1, 3, 5, 100, 77, 1, 7};  // [2, 1, 3, 5], the third axis innermost
  std::vector<float> got(200, -1);
  std::vector<double> value, magnitude(30, 1);
  for (i64 a = 0; a < 2; ++a)
    for (i64 c = 0; c < 3; ++c)
      for (i64 d = 0; d < 5; ++d) {
        value.push_back(double(value.size()));
        got[a * 100 + c + d * 7] = float(value.back());
      }
  EXPECT_EQ(run_check(got, layout, value, magnitude, 0).bad, 0);
  got[100 + 2 + 3 * 7] = 3;
  EXPECT_EQ(run_check(got, layout, value, magnitude, 0).worst_element, 15 + 2 * 5 + 3);
}

TEST(Check, FindsWritesBetweenRows) {
  std::vector<bf16> got(2 * 60, bf16{0xffff});
  const std::vector<i64> layout = {3, 2, 4, 8, 60, 11, 1};
  for (i64 e = 0; e < 64; ++e) got[layout_offset(layout.data(), 3, e)] = bf16{0};
  const i64 count = 60 + 3 * 11 + 8;
  auto gaps = [&](const bf16* before) {
    std::vector<CheckPartial> partials(2);
    kernels().launch("check_gaps_bf16", {{2, 1, 1}, 256, kCheckLds}, (const bf16*)got.data(), before, layout.data(),
                     count, partials.data());
    return sum(partials);
  };
  EXPECT_EQ(gaps(nullptr).bad, 0);
  std::vector<bf16> before = got;
  for (i64 at : {8, 11 + 10, 3 * 11 + 8, 59, 60 + 2 * 11 + 9}) {
    got[at] = bf16{0};
    EXPECT_EQ(gaps(nullptr).bad, 1) << at;
    EXPECT_EQ(gaps(nullptr).worst_element, at);
    EXPECT_EQ(gaps(before.data()).worst_element, at);
    got[at] = bf16{0xffff};
  }
  before[9] = bf16{1};
  EXPECT_EQ(gaps(before.data()).worst_element, 9);
}

TEST(Check, ComparesAWholeBufferWithRankZero) {
  const std::vector<f16> before(300, f16{5});
  const i64 nothing = 0;
  for (std::size_t at : {0, 1, 299}) {
    std::vector<f16> got = before;
    got[at] = f16{4};
    CheckPartial partial[2];
    kernels().launch("check_gaps_fp16", {{2, 1, 1}, 256, kCheckLds}, (const f16*)got.data(), before.data(), &nothing,
                     i64(300), (CheckPartial*)partial);
    const CheckPartial result = sum({partial[0], partial[1]});
    EXPECT_EQ(result.bad, 1);
    EXPECT_EQ(result.worst_element, i64(at));
  }
}

TEST(Check, CountsBytesThatDifferInEachZone) {
  std::vector<unsigned char> bytes(5000, 0xa5);
  const std::vector<i64> zones = {0, 256, 1000, 1, 2000, 3000};
  std::vector<i64> bad(3, -1);
  bytes[255] = 1, bytes[256] = 2, bytes[2000] = 3, bytes[4999] = 4;
  kernels().launch("pattern", {{3, 1, 1}, 256, kCheckLds}, (const unsigned char*)bytes.data(), zones.data(), i64(3),
                   0xa5, bad.data());
  EXPECT_EQ(bad, (std::vector<i64>{1, 0, 2}));
}

TEST(Check, ReadsEverything) {
  std::vector<u64> words(10002, 0);
  u64 sink = 7;
  auto read = [&] {
    kernels().launch("read", {{2, 1, 1}, 256, 0}, (const u64*)words.data(), i64(words.size()), &sink);
    return sink;
  };
  EXPECT_EQ(read(), 7u);
  for (std::size_t at : {std::size_t{0}, std::size_t{5001}, words.size() - 1}) {
    sink = 7;
    words[at] = 1;
    EXPECT_EQ(read(), 1u) << at;
    words[at] = 0;
  }
}

template <class T>
std::vector<T> filled(const char* kernel, i64 count, u64 seed, Distribution distribution, double a, double b,
                      std::uint32_t grid = 2) {
  std::vector<T> data(count);
  kernels().launch(kernel, {{grid, 1, 1}, 256, 0}, data.data(), count, seed, int(distribution), a, b);
  return data;
}

TEST(Fill, DoesNotDependOnTheGrid) {
  EXPECT_EQ(filled<float>("fill_fp32", 5000, 3, Distribution::normal, 0, 1, 1),
            filled<float>("fill_fp32", 5000, 3, Distribution::normal, 0, 1, 7));
  EXPECT_NE(filled<float>("fill_fp32", 50, 3, Distribution::normal, 0, 1),
            filled<float>("fill_fp32", 50, 4, Distribution::normal, 0, 1));
}

// The bits that every device must give: a change of the generator makes old failures unrepeatable.
TEST(Fill, KeepsItsBits) {
  const auto normal = filled<float>("fill_fp32", 3, 1, Distribution::normal, 0.5, 2);
  const auto half = filled<bf16>("fill_bf16", 3, 1, Distribution::uniform, -1, 1);
  EXPECT_EQ(normal, (std::vector<float>{float(random_value(1, 0, 0, 0.5, 2)), float(random_value(1, 1, 0, 0.5, 2)),
                                        float(random_value(1, 2, 0, 0.5, 2))}));
  EXPECT_EQ(half[1].bits, from_float<bf16>(float(random_value(1, 1, 1, -1, 1))).bits);
  EXPECT_EQ(random_bits(1, 0), 5797315530330538360u);
}

TEST(Fill, MakesNormalNumbers) {
  const auto x = filled<float>("fill_fp32", 100000, 1, Distribution::normal, 0.5, 2);
  double mean = 0, variance = 0, fourth = 0;
  for (float v : x) mean += v / 1e5;
  for (float v : x) variance += (v - mean) * (v - mean) / 1e5, fourth += std::pow((v - mean) / 2, 4) / 1e5;
  EXPECT_NEAR(mean, 0.5, 0.03);
  EXPECT_NEAR(variance, 4, 0.06);
  EXPECT_NEAR(fourth, 2.9, 0.15);
}

TEST(Fill, MakesIntegersWithBothEnds) {
  const auto x = filled<i32>("fill_int32", 1000, 1, Distribution::integer, -2, 5);
  const std::set<i32> seen(x.begin(), x.end());
  EXPECT_EQ(seen.size(), 8u);
  EXPECT_EQ(*seen.begin(), -2);
  EXPECT_EQ(*seen.rbegin(), 5);
  const auto f = filled<f16>("fill_fp16", 100, 1, Distribution::constant, 0.1, 0);
  for (f16 v : f) EXPECT_EQ(v.bits, from_float<f16>(0.1f).bits);
}

TEST(Fill, MakesUniformNumbers) {
  const auto x = filled<float>("fill_fp32", 100000, 1, Distribution::uniform, -1, 3);
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  EXPECT_GE(*low, -1);
  EXPECT_LT(*high, 3);
  EXPECT_NEAR(std::accumulate(x.begin(), x.end(), 0.0) / 1e5, 1, 0.02);
}

TEST(Projection, SignsAreBalancedAndDependOnTheSeed) {
  double sum = 0, same = 0;
  for (i64 j = 0; j < 10000; ++j) {
    sum += projection_sign(1, j);
    same += projection_sign(1, j) * projection_sign(2, j);
  }
  EXPECT_LT(std::fabs(sum), 400);
  EXPECT_LT(std::fabs(same), 400);
}

}  // namespace
}  // namespace kgen
