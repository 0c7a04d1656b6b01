// Batch norm folded into the weights before it: conv(x, w') + b' = BN(conv(x, w) + b).
//
//   s[k] = gamma[k] / sqrt(var[k] + eps),   w'[k, …] = w[k, …] * s[k],   b'[k] = beta[k] + (b[k] - mean[k]) * s[k]
//
// All in float64, each result rounded once, to nearest even, to its storage type. Pure functions; bytes are
// little-endian.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kgen {

// A storage type of weights: `precision` significant bits (the hidden one included), least normal number
// 2^min_exponent.
struct FloatFormat {
  std::string_view name;
  int bytes;
  int precision;
  int min_exponent;
};
Result<FloatFormat> float_format(const std::string& name);  // fp32, fp16, bf16

// Values of `bytes`, whose size is a multiple of format.bytes.
std::vector<double> decode_floats(std::string_view bytes, const FloatFormat& format);
// Nearest values, ties to even; what is beyond the largest finite one becomes infinity, a NaN stays one.
std::string encode_floats(const std::vector<double>& values, const FloatFormat& format);

// What a .npy file says of its array, or the whole of a raw file.
struct ArrayFile {
  std::string header;               // of a .npy file, as it stands; "" for a raw file
  std::string type;                 // "<f4", …; "" for a raw file
  std::vector<std::int64_t> shape;  // empty for a raw file
  std::string data;
};
// Reads .npy by its first bytes (versions 1 to 3, C order) and anything else as raw elements.
Result<ArrayFile> read_array(const std::string& path);
// A .npy version 1 header for an array in C order.
std::string npy_header(const std::string& type, const std::vector<std::int64_t>& shape);

struct BatchNorm {
  std::vector<double> gamma, beta, mean, var;  // one a channel
  double eps = 1e-5;
};
struct Folded {
  std::vector<double> weight, bias;
};
// `weight` holds equally many elements of each channel, channel by channel; `bias` one a channel.
// kBadInput for a variance that is negative or NaN, or where variance and eps are both 0.
Result<Folded> fold_batch_norm(const std::vector<double>& weight, const std::vector<double>& bias,
                               const BatchNorm& norm);

}  // namespace kgen
