// `kgen fold` from outside: files in, files out, against arithmetic and rounding written here anew.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "base/text.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
template <class T>
std::vector<T> read_values(const std::string& path, std::size_t skip = 0) {
  const std::string text = *read_file(path);
  std::vector<T> values((text.size() - skip) / sizeof(T));
  std::memcpy(values.data(), text.data() + skip, values.size() * sizeof(T));
  return values;
}
std::vector<float> random_floats(std::size_t count, unsigned seed, float least = -2, float most = 2) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(least, most);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

double bf16_value(std::uint16_t bits) {
  const std::uint32_t wide = std::uint32_t(bits) << 16;
  float value = 0;
  std::memcpy(&value, &wide, 4);
  return value;
}
double fp16_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double value = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 31) value = mantissa ? NAN : INFINITY;
  return bits >> 15 ? -value : value;
}

// `bits` is the stored value nearest to `exact`, the even one of two.
template <class Value>
void expect_nearest(std::uint16_t bits, double exact, Value value) {
  const double error = std::fabs(value(bits) - exact);
  for (const int step : {-1, 1}) {
    if ((bits & 0x7fff) == 0 && step < 0) continue;  // below 0 the sign would change
    const double other = std::fabs(value(static_cast<std::uint16_t>(bits + step)) - exact);
    ASSERT_TRUE(error < other || (error == other && bits % 2 == 0)) << value(bits) << " for " << exact;
  }
}

class Fold : public testing::Test {
 protected:
  // Files of 3 channels with 8 weights each.
  void SetUp() override {
    vectors_ = {{"gamma", random_floats(3, 1)},
                {"beta", random_floats(3, 2)},
                {"mean", random_floats(3, 3)},
                {"var", random_floats(3, 4, 0.01f, 4)},
                {"bias", random_floats(3, 5)}};
    for (const auto& [name, values] : vectors_) folder_.write(name, bytes_of(values));
  }
  Ran fold(std::vector<std::string> args) {
    std::vector<std::string> all = {"fold"};
    for (const char* name : {"gamma", "beta", "mean", "var", "bias"}) {
      if (std::find(args.begin(), args.end(), std::string("--") + name) != args.end()) continue;
      all.push_back(std::string("--") + name);
      all.push_back(folder_ / name);
    }
    all.insert(all.end(), {"--output-weight", folder_ / "w.out", "--output-bias", folder_ / "b.out"});
    all.insert(all.end(), args.begin(), args.end());
    return run_kgen(all);
  }
  double scale(std::size_t k, double eps) {
    return double(vectors_["gamma"][k]) / std::sqrt(double(vectors_["var"][k]) + eps);
  }
  double shift(std::size_t k, double eps) {
    return double(vectors_["beta"][k]) + (double(vectors_["bias"][k]) - double(vectors_["mean"][k])) * scale(k, eps);
  }
  TempFolder folder_;
  std::map<std::string, std::vector<float>> vectors_;
};

TEST_F(Fold, ScalesByHand) {
  const std::vector<float> weight = {1, -2, 3, 0.5f};
  const std::string w = folder_.write("w", bytes_of(weight));
  const std::string gamma = folder_.write("g2", bytes_of(std::vector<float>{3, 1})),
                    var = folder_.write("v2", bytes_of(std::vector<float>{0.25f, 4})),
                    mean = folder_.write("m2", bytes_of(std::vector<float>{1, -2})),
                    beta = folder_.write("b2", bytes_of(std::vector<float>{10, 20})),
                    bias = folder_.write("c2", bytes_of(std::vector<float>{3, 2}));
  const Ran ran = fold({"--weight", w, "--dtype", "fp32", "--channels", "2", "--gamma", gamma, "--var", var, "--mean",
                        mean, "--beta", beta, "--bias", bias, "--eps", "0"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(read_values<float>(folder_ / "w.out"), (std::vector<float>{6, -12, 1.5f, 0.25f}));
  EXPECT_EQ(read_values<float>(folder_ / "b.out"), (std::vector<float>{22, 22}));
}

TEST_F(Fold, RoundsOnceToNearestEven) {
  const std::vector<float> source = random_floats(3000, 6);
  std::vector<std::uint16_t> weight(source.size());
  for (const bool half : {false, true}) {
    const auto value = half ? fp16_value : bf16_value;
    for (std::size_t i = 0; i < source.size(); ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &source[i], 4);
      // Any bits will do; fp16's exponents reach down to its subnormals.
      weight[i] = static_cast<std::uint16_t>(half ? (bits & 0x83ff) | (i % 20) << 10 : bits >> 16);
    }
    const Ran ran = fold({"--weight", folder_.write("w", bytes_of(weight)), "--dtype", half ? "fp16" : "bf16",
                          "--channels", "3", "--eps", "0.001"});
    ASSERT_EQ(ran.code, 0) << ran.err;
    const auto got = read_values<std::uint16_t>(folder_ / "w.out");
    const auto bias = read_values<std::uint16_t>(folder_ / "b.out");
    ASSERT_EQ(got.size(), weight.size());
    ASSERT_EQ(bias.size(), 3u);
    for (std::size_t i = 0; i < got.size(); ++i)
      expect_nearest(got[i], value(weight[i]) * scale(i / 1000, 0.001), value);
    for (std::size_t k = 0; k < 3; ++k) expect_nearest(bias[k], shift(k, 0.001), value);
  }
}

TEST_F(Fold, OverflowBecomesInfinityAndIsTold) {
  const std::vector<std::uint16_t> weight = {0x7bff, 0xfbff, 0x0001};  // 65504, -65504, 2^-24
  const std::string ones = folder_.write("ones", bytes_of(std::vector<float>(3, 1))),
                    zeros = folder_.write("zeros", bytes_of(std::vector<float>(3, 0))),
                    gamma = folder_.write("g3", bytes_of(std::vector<float>{2, 2, 0.5f}));
  const Ran ran =
      fold({"--weight", folder_.write("w", bytes_of(weight)), "--dtype", "fp16", "--channels", "3", "--gamma", gamma,
            "--beta", zeros, "--mean", zeros, "--var", ones, "--bias", zeros, "--eps", "0", "--json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("2 folded values"));
  EXPECT_EQ(nlohmann::json::parse(ran.out)["overflows"], 2);
  EXPECT_EQ(read_values<std::uint16_t>(folder_ / "w.out"), (std::vector<std::uint16_t>{0x7c00, 0xfc00, 0}));
}

TEST_F(Fold, NpyKeepsTypeAndShape) {
  std::string header = "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 1, 2, 2), }";
  header.resize(117, ' ');
  header += '\n';
  const std::string start = std::string("\x93NUMPY\x01\x00", 8) + char(118) + '\0' + header;
  const std::vector<std::uint16_t> weight(12, 0x3c00);  // 1
  const std::string path = folder_.write("w.npy", start + bytes_of(weight));
  const Ran ran = fold({"--weight", path, "--bias-dtype", "fp32"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(read_file(folder_ / "w.out")->substr(0, 128), start);
  const auto got = read_values<std::uint16_t>(folder_ / "w.out", 128);
  ASSERT_EQ(got.size(), 12u);
  for (std::size_t i = 0; i < 12; ++i) expect_nearest(got[i], scale(i / 4, 1e-5), fp16_value);
  const std::string bias = *read_file(folder_ / "b.out");
  EXPECT_THAT(bias, AllOf(HasSubstr("'descr': '<f4'"), HasSubstr("'shape': (3,)")));
  ASSERT_EQ(bias.size(), 128u + 12u);
  const auto values = read_values<float>(folder_ / "b.out", 128);
  for (std::size_t k = 0; k < 3; ++k) EXPECT_EQ(values[k], float(shift(k, 1e-5)));
}

TEST_F(Fold, BadInputIsExit2AndSaysWhat) {
  const std::string w = folder_.write("w", std::string(48, '\0'));
  const std::vector<std::string> good = {"--weight", w, "--dtype", "bf16", "--channels", "3"};
  const auto expect = [&](std::vector<std::string> more, const std::string& text) {
    std::vector<std::string> args = good;
    for (std::size_t i = 0; i < more.size(); i += 2) {
      const auto at = std::find(args.begin(), args.end(), more[i]);
      if (at == args.end())
        args.insert(args.end(), {more[i], more[i + 1]});
      else
        *(at + 1) = more[i + 1];
    }
    const Ran ran = fold(args);
    EXPECT_EQ(ran.code, 2);
    EXPECT_THAT(ran.err, HasSubstr(text));
  };
  ASSERT_EQ(fold(good).code, 0);
  expect({"--dtype", "bf61"}, "unknown dtype 'bf61'; did you mean 'bf16'?");
  expect({"--channels", "5"}, "5 channels of whole bf16");
  expect({"--eps", "-1"}, "--eps: '-1'");
  expect({"--weight", folder_ / "absent"}, "absent");
  expect({"--gamma", folder_.write("short", std::string(8, '\0'))}, "holds 8 bytes; 3 channels of fp32 are 12");
  expect({"--var", folder_.write("negative", bytes_of(std::vector<float>{1, -0.5f, 1}))},
         "variance of channel 1 is -0.5");
  expect({"--var", folder_.write("nan", bytes_of(std::vector<float>{1, 1, NAN}))}, "variance of channel 2 is nan");
  expect({"--var", folder_.write("zero", bytes_of(std::vector<float>{1, 1, 0})), "--eps", "0"}, "0 together");
  expect({"--weight", folder_.write("cut.npy", std::string("\x93NUMPY\x01\x00\x76\x00{", 11))}, "header is cut off");
  EXPECT_THAT(run_kgen({"fold", "--weight", w}).err, HasSubstr("--mean is needed"));
}

}  // namespace
}  // namespace kgen
