#include <fmt/core.h>

#include <charconv>
#include <cmath>
#include <limits>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/fold.h"
#include "cli/options.h"

namespace kgen {
namespace {

struct Request {
  std::string weight, bias, gamma, beta, mean, var, dtype, bias_dtype, eps = "1e-5", output_weight, output_bias;
  std::int64_t channels = 0;
};
struct Report {
  std::string dtype, bias_dtype;
  std::int64_t channels = 0, elements = 0, overflows = 0;
};

Error in_flag(const std::string& flag, const Error& error) { return {error.kind, flag + ": " + error.message}; }
tl::unexpected<Error> bad(std::string message) { return fail(ErrorKind::kBadInput, std::move(message)); }

// numpy has no bfloat16: arrays of it are 16-bit integers or raw bytes there.
std::string dtype_of_npy(const std::string& type) {
  if (type == "<f4") return "fp32";
  if (type == "<f2") return "fp16";
  if (type == "<u2" || type == "|V2" || type == "<V2") return "bf16";
  return "";
}
std::string npy_of_dtype(std::string_view dtype) { return dtype == "fp32" ? "<f4" : dtype == "fp16" ? "<f2" : "<u2"; }

// One fp32 a channel; `absent` where no file is given.
Result<std::vector<double>> read_vector(const std::string& flag, const std::string& path, std::int64_t channels,
                                        double absent) {
  if (path.empty()) return std::vector<double>(static_cast<std::size_t>(channels), absent);
  KGEN_TRY(const ArrayFile file, read_array(path));
  if (!file.type.empty() && file.type != "<f4")
    return bad(fmt::format("{}: {} holds '{}'; vectors are fp32 ('<f4')", flag, path, file.type));
  if (std::int64_t(file.data.size()) != 4 * channels)
    return bad(fmt::format("{}: {} holds {} bytes; {} channels of fp32 are {}", flag, path, file.data.size(), channels,
                           4 * channels));
  KGEN_TRY(const FloatFormat format, float_format("fp32"));
  return decode_floats(file.data, format);
}

Result<double> parse_eps(const std::string& text) {
  double eps = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), eps);
  if (error != std::errc() || end != text.data() + text.size() || !(eps >= 0) || std::isinf(eps))
    return bad(fmt::format("--eps: '{}' is no number from 0 on", text));
  return eps;
}

// Finite values that became infinite by rounding to storage.
std::int64_t overflows(const std::vector<double>& values, const std::string& bytes, const FloatFormat& format) {
  const std::vector<double> stored = decode_floats(bytes, format);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < values.size(); ++i) count += std::isfinite(values[i]) && std::isinf(stored[i]);
  return count;
}

Result<Report> fold(const Request& request) {
  KGEN_TRY(const ArrayFile weight, read_array(request.weight));
  const bool npy = !weight.type.empty();
  const std::string dtype = request.dtype.empty() ? dtype_of_npy(weight.type) : request.dtype;
  if (dtype.empty())
    return bad(npy ? fmt::format("{}: its type '{}' is none of '<f4' (fp32), '<f2' (fp16), '<u2' (bf16)",
                                 request.weight, weight.type)
                   : std::string("--dtype is needed for a raw --weight"));
  const auto format = float_format(dtype);
  if (!format) return tl::unexpected(in_flag("--dtype", format.error()));
  if (npy && dtype_of_npy(weight.type) != dtype)
    return bad(fmt::format("{}: it holds '{}', which is not {}", request.weight, weight.type, dtype));
  const auto bias_format = float_format(request.bias_dtype.empty() ? dtype : request.bias_dtype);
  if (!bias_format) return tl::unexpected(in_flag("--bias-dtype", bias_format.error()));

  std::int64_t channels = request.channels;
  if (npy) {
    if (weight.shape.empty()) return bad(fmt::format("{}: a weight's first axis is its channels", request.weight));
    if (channels != 0 && channels != weight.shape[0])
      return bad(fmt::format("--channels {}: the first axis of {} is {}", channels, request.weight, weight.shape[0]));
    channels = weight.shape[0];
    std::int64_t bytes = format->bytes;
    for (std::int64_t size : weight.shape)
      if (__builtin_mul_overflow(bytes, size, &bytes)) bytes = std::numeric_limits<std::int64_t>::max();
    if (bytes != std::int64_t(weight.data.size()))
      return bad(
          fmt::format("{}: its shape asks for {} bytes, the file holds {}", request.weight, bytes, weight.data.size()));
  } else if (channels == 0) {
    return bad("--channels is needed for a raw --weight");
  } else if (weight.data.size() % static_cast<std::size_t>(channels * format->bytes) != 0) {
    return bad(fmt::format("{}: {} bytes are not {} channels of whole {} elements", request.weight, weight.data.size(),
                           channels, dtype));
  }

  BatchNorm norm;
  KGEN_TRY(norm.gamma, read_vector("--gamma", request.gamma, channels, 1));
  KGEN_TRY(norm.beta, read_vector("--beta", request.beta, channels, 0));
  KGEN_TRY(norm.mean, read_vector("--mean", request.mean, channels, 0));
  KGEN_TRY(norm.var, read_vector("--var", request.var, channels, 1));
  KGEN_TRY(norm.eps, parse_eps(request.eps));
  KGEN_TRY(const std::vector<double> bias, read_vector("--bias", request.bias, channels, 0));
  const auto folded = fold_batch_norm(decode_floats(weight.data, *format), bias, norm);
  if (!folded) return tl::unexpected(in_flag("--var", folded.error()));

  const std::string weight_bytes = encode_floats(folded->weight, *format);
  const std::string bias_bytes = encode_floats(folded->bias, *bias_format);
  KGEN_CHECK_OK(write_file(request.output_weight, weight.header + weight_bytes));
  KGEN_CHECK_OK(write_file(request.output_bias,
                           (npy ? npy_header(npy_of_dtype(bias_format->name), {channels}) : "") + bias_bytes));
  return Report{dtype, std::string(bias_format->name), channels, std::int64_t(folded->weight.size()),
                overflows(folded->weight, weight_bytes, *format) + overflows(folded->bias, bias_bytes, *bias_format)};
}

}  // namespace

int cmd_fold(const Context&, const Words& args) {
  Request request;
  bool json = false;
  Options options("fold", "--weight FILE --mean FILE --var FILE --output-weight FILE --output-bias FILE …",
                  "Fold a batch norm into the weight and bias of the layer before it: w*s, beta + (bias - mean)*s with "
                  "s = gamma/sqrt(var + eps), in float64, each rounded once. Files are .npy or raw little-endian "
                  "elements; the outputs are of the kind that --weight is.");
  options.text("--weight", request.weight, "weight, channels first: [K, …]");
  options.text("--dtype", request.dtype, "fp32, fp16 or bf16; a .npy weight says it itself (bf16 is '<u2' there)");
  options.number("--channels", request.channels, 1, "K; the first axis of a .npy weight");
  options.text("--gamma", request.gamma, "fp32 [K]; without it 1");
  options.text("--beta", request.beta, "fp32 [K]; without it 0");
  options.text("--mean", request.mean, "fp32 [K], running mean");
  options.text("--var", request.var, "fp32 [K], running variance");
  options.text("--bias", request.bias, "fp32 [K], bias before the batch norm; without it 0");
  options.text("--eps", request.eps, "added to the variance (1e-5)");
  options.text("--bias-dtype", request.bias_dtype, "type of the bias that is written; without it the weight's");
  options.text("--output-weight", request.output_weight, "folded weight, of the weight's type and shape");
  options.text("--output-bias", request.output_bias, "folded bias [K]");
  options.flag("--json", json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  for (const auto& [flag, value] : {std::pair{"--weight", &request.weight},
                                    {"--mean", &request.mean},
                                    {"--var", &request.var},
                                    {"--output-weight", &request.output_weight},
                                    {"--output-bias", &request.output_bias}})
    if (value->empty())
      return report(Error{ErrorKind::kBadInput, fmt::format("fold: {} is needed; see 'kgen fold --help'", flag)});

  const auto done = fold(request);
  if (!done) return report(done.error());
  if (done->overflows != 0)
    fmt::print(stderr, "kgen: warning: {} folded values are beyond the largest {} and became infinity\n",
               done->overflows, done->dtype);
  if (json)
    print_json({{"output_weight", request.output_weight},
                {"output_bias", request.output_bias},
                {"dtype", done->dtype},
                {"bias_dtype", done->bias_dtype},
                {"channels", done->channels},
                {"elements", done->elements},
                {"overflows", done->overflows}});
  else
    fmt::print("{}: {} elements of {}, {} channels; {}: bias of {}\n", request.output_weight, done->elements,
               done->dtype, done->channels, request.output_bias, done->bias_dtype);
  return 0;
}

}  // namespace kgen
