#include "cli/fold.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/text.h"

namespace kgen {
namespace {

std::uint32_t load_bits(std::string_view bytes, std::size_t at, int size) {
  std::uint32_t bits = 0;
  for (int i = size; i-- > 0;) bits = bits << 8 | static_cast<unsigned char>(bytes[at + static_cast<std::size_t>(i)]);
  return bits;
}

// Exponent of the format's least positive number, and how many bits its exponent field has.
int least_exponent(const FloatFormat& format) { return format.min_exponent - (format.precision - 1); }
std::uint32_t infinity_bits(const FloatFormat& format) {
  const int exponent_bits = 8 * format.bytes - format.precision;
  return ((1u << exponent_bits) - 1) << (format.precision - 1);
}

double decode(std::uint32_t bits, const FloatFormat& format) {
  const std::uint32_t sign = 1u << (8 * format.bytes - 1), infinity = infinity_bits(format);
  const std::uint32_t hidden = 1u << (format.precision - 1), magnitude = bits & (sign - 1);
  double value = 0;
  if (magnitude > infinity)
    value = std::numeric_limits<double>::quiet_NaN();
  else if (magnitude == infinity)
    value = std::numeric_limits<double>::infinity();
  else if (magnitude < hidden)
    value = std::ldexp(magnitude, least_exponent(format));
  else
    value = std::ldexp(magnitude % hidden + hidden, least_exponent(format) + static_cast<int>(magnitude / hidden) - 1);
  return bits & sign ? -value : value;
}

std::uint32_t encode(double value, const FloatFormat& format) {
  const std::uint32_t sign = std::signbit(value) ? 1u << (8 * format.bytes - 1) : 0u, infinity = infinity_bits(format);
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | infinity | 1u << (format.precision - 2);
  if (std::isinf(value)) return sign | infinity;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int least = least_exponent(format), unit = std::max(exponent - format.precision, least);
  // Beyond the largest exponent the sum below would not fit.
  if (exponent > 2 - format.min_exponent) return sign | infinity;
  // A power of two scales exactly, so this is the one rounding; a carry out of the mantissa moves the exponent on.
  const auto mantissa = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, -unit)));
  const std::uint32_t bits = (static_cast<std::uint32_t>(unit - least) << (format.precision - 1)) + mantissa;
  return sign | std::min(bits, infinity);
}

// The value of a key of a .npy header, up to the comma or brace that ends it: the header is a Python literal of three
// keys.
std::string_view header_value(std::string_view header, std::string_view key) {
  const std::size_t at = header.find(key);
  if (at == std::string_view::npos) return {};
  std::string_view rest = header.substr(at + key.size());
  const std::size_t start = rest.find_first_not_of(": ");
  if (start == std::string_view::npos) return {};
  rest = rest.substr(start);
  const std::size_t end = rest.starts_with('(') ? rest.find(')') : rest.find_first_of(",}");
  return end == std::string_view::npos ? std::string_view() : trim(rest.substr(0, end));
}

Result<std::vector<std::int64_t>> parse_shape(const std::string& path, std::string_view text) {
  std::vector<std::int64_t> shape;
  for (const std::string& part : split(text.substr(1), ',')) {
    const std::string_view word = trim(part);
    if (word.empty()) continue;
    std::int64_t size = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), size);
    if (error != std::errc() || end != word.data() + word.size() || size < 0)
      return fail(ErrorKind::kBadInput, fmt::format("{}: '{}' is no size of an array", path, word));
    shape.push_back(size);
  }
  return shape;
}

}  // namespace

Result<FloatFormat> float_format(const std::string& name) {
  if (name == "fp32") return FloatFormat{"fp32", 4, 24, -126};
  if (name == "fp16") return FloatFormat{"fp16", 2, 11, -14};
  if (name == "bf16") return FloatFormat{"bf16", 2, 8, -126};
  const std::vector<std::string> names = {"fp32", "fp16", "bf16"};
  return fail(ErrorKind::kBadInput,
              fmt::format("unknown dtype '{}'{}; it is fp32, fp16 or bf16", name, did_you_mean(name, names)));
}

std::vector<double> decode_floats(std::string_view bytes, const FloatFormat& format) {
  const auto size = static_cast<std::size_t>(format.bytes);
  std::vector<double> values(bytes.size() / size);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = decode(load_bits(bytes, i * size, format.bytes), format);
  return values;
}

std::string encode_floats(const std::vector<double>& values, const FloatFormat& format) {
  std::string bytes;
  bytes.reserve(values.size() * static_cast<std::size_t>(format.bytes));
  for (double value : values) {
    const std::uint32_t bits = encode(value, format);
    for (int i = 0; i < format.bytes; ++i) bytes += static_cast<char>(bits >> (8 * i) & 0xff);
  }
  return bytes;
}

Result<ArrayFile> read_array(const std::string& path) {
  KGEN_TRY(std::string text, read_file(path));
  if (!text.starts_with("\x93NUMPY")) return ArrayFile{"", "", {}, std::move(text)};
  const auto bad = [&](const std::string& what) { return fail(ErrorKind::kBadInput, path + ": " + what); };
  if (text.size() < 12) return bad("the .npy header is cut off");
  const int length_bytes = text[6] == 1 ? 2 : 4;
  const std::size_t start = 8 + static_cast<std::size_t>(length_bytes), length = load_bits(text, 8, length_bytes);
  if (text.size() - start < length) return bad("the .npy header is cut off");
  ArrayFile file{text.substr(0, start + length), "", {}, text.substr(start + length)};
  const std::string_view header = std::string_view(file.header).substr(start);
  const std::string_view type = header_value(header, "'descr'"), shape = header_value(header, "'shape'");
  if (type.size() < 2 || !shape.starts_with('(')) return bad("the .npy header has no descr or no shape");
  if (header_value(header, "'fortran_order'") != "False")
    return bad("the array is in Fortran order; save numpy.ascontiguousarray of it");
  file.type = type.substr(1, type.size() - 2);
  KGEN_TRY(file.shape, parse_shape(path, shape));
  return file;
}

std::string npy_header(const std::string& type, const std::vector<std::int64_t>& shape) {
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", type,
                                 fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  const std::size_t unpadded = 10 + text.size() + 1;  // numpy starts the data at a multiple of 64
  text.append((64 - unpadded % 64) % 64, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xff);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

Result<Folded> fold_batch_norm(const std::vector<double>& weight, const std::vector<double>& bias,
                               const BatchNorm& norm) {
  const std::size_t channels = bias.size();
  Folded folded{std::vector<double>(weight.size()), std::vector<double>(channels)};
  const std::size_t per_channel = channels == 0 ? 0 : weight.size() / channels;
  for (std::size_t k = 0; k < channels; ++k) {
    if (!(norm.var[k] >= 0))
      return fail(ErrorKind::kBadInput,
                  fmt::format("the variance of channel {} is {}; it must be 0 or more", k, norm.var[k]));
    if (!(norm.var[k] + norm.eps > 0))
      return fail(ErrorKind::kBadInput, fmt::format("variance and eps of channel {} are 0 together; give --eps", k));
    const double scale = norm.gamma[k] / std::sqrt(norm.var[k] + norm.eps);
    for (std::size_t i = k * per_channel; i < (k + 1) * per_channel; ++i) folded.weight[i] = weight[i] * scale;
    folded.bias[k] = norm.beta[k] + (bias[k] - norm.mean[k]) * scale;
  }
  return folded;
}

}  // namespace kgen
