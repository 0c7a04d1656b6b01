// Made by kgen; serves every shape that its launch plan admits.
// y = factor * x, with the corners of the format that a real operator seldom needs at once
//
// op         scale dtype=bf16 epilogue=bias order=mirrored out_dtype=fp32 power=1
// reference
// arch       host
// compile    g++ -std=c++20 -O3 -march=native -shared -fPIC -x c++ kernel.hip -o kernel.so

// ---- inner/types.h
namespace kgen {
enum class order { plain, mirrored };
enum class mode { direct, staged };
}  // namespace kgen

// ---- scale_reference.h
namespace kgen {

template <class C, class P>
KGEN_DEVICE void reference_y(const P& p, i64 element, double& value, double& magnitude) {
  const i64 row = element / p.cols, column = element % p.cols;
  const i64 source = C::order == order::mirrored ? p.cols - 1 - column : column;
  value = double(to_float(p.x[row * p.ld + source])) * p.factor;
  if constexpr (C::epilogue_bias != 0) value += p.bias[column];
  magnitude = abs_d(value);
}
template <class C, class P>
KGEN_DEVICE void project_vector_y(const P& p, u64 seed, i64 i, double& out) {
  out = projection_sign(seed, i) * p.factor;
}
template <class C, class P>
KGEN_DEVICE void project_y(const P& p, u64 seed, const double* vector, i64 row, double& expected, double& bound) {
  expected = bound = 0;
  for (i64 i = 0; i < p.cols; ++i) {
    const i64 source = C::order == order::mirrored ? p.cols - 1 - i : i;
    expected += vector[i] * to_float(p.x[row * p.ld + source]);
    if constexpr (C::epilogue_bias != 0) expected += projection_sign(seed, i) * p.bias[i];
  }
}

}  // namespace kgen

// ---- this op
namespace kgen {

// The op's attributes; there is nothing to tune.
struct Config {
  using dtype = kgen::bf16;
  using out_dtype = float;
  static constexpr auto order = kgen::order::mirrored;
  static constexpr int epilogue_bias = 1;
  static constexpr int epilogue_relu = 0;
  static constexpr kgen::i64 power = 1;
  static constexpr kgen::Arch arch = kgen::Arch::host;
  static constexpr int wave_size = 32;
  static constexpr int lds_limit = 65536;
  static constexpr int max_block = 1024;
  static constexpr bool async_copy = false;
};

// Every kernel parameter by name; absent operands are null.
struct Args {
  const kgen::bf16* x;
  const float* bias;
  float* y;
  float factor;
  kgen::i64 rows;
  kgen::i64 cols;
  kgen::i64 ld;
};

}  // namespace kgen

KGEN_KERNEL(256, 1) reference_y(
    const kgen::bf16* x, const float* bias, float* y, float factor, kgen::i64 rows, kgen::i64 cols,
    kgen::i64 ld, const kgen::i64* index, kgen::i64 count, double* value, double* magnitude) {
  const kgen::Args args{
    x, bias, y, factor, rows, cols, ld};
  const kgen::i64 step = kgen::i64(kgen::grid_x()) * 256;
  for (kgen::i64 i = kgen::i64(kgen::block_x()) * 256 + kgen::thread_x(); i < count; i += step) {
    kgen::reference_y<kgen::Config>(args, index ? index[i] : i, value[i], magnitude[i]);
  }
}
KGEN_HOST_ENTRY(reference_y) {
  reference_y(
    *static_cast<const kgen::bf16* const*>(params[0]), *static_cast<const float* const*>(params[1]),
    *static_cast<float* const*>(params[2]), *static_cast<const float*>(params[3]),
    *static_cast<const kgen::i64*>(params[4]), *static_cast<const kgen::i64*>(params[5]),
    *static_cast<const kgen::i64*>(params[6]), *static_cast<const kgen::i64* const*>(params[7]),
    *static_cast<const kgen::i64*>(params[8]), *static_cast<double* const*>(params[9]),
    *static_cast<double* const*>(params[10]));
}

KGEN_KERNEL(256, 1) project_vector_y(
    const kgen::bf16* x, const float* bias, float* y, float factor, kgen::i64 rows, kgen::i64 cols,
    kgen::i64 ld, kgen::u64 seed, kgen::i64 count, double* vector) {
  const kgen::Args args{
    x, bias, y, factor, rows, cols, ld};
  const kgen::i64 step = kgen::i64(kgen::grid_x()) * 256;
  for (kgen::i64 i = kgen::i64(kgen::block_x()) * 256 + kgen::thread_x(); i < count; i += step) {
    kgen::project_vector_y<kgen::Config>(args, seed, i, vector[i]);
  }
}
KGEN_HOST_ENTRY(project_vector_y) {
  project_vector_y(
    *static_cast<const kgen::bf16* const*>(params[0]), *static_cast<const float* const*>(params[1]),
    *static_cast<float* const*>(params[2]), *static_cast<const float*>(params[3]),
    *static_cast<const kgen::i64*>(params[4]), *static_cast<const kgen::i64*>(params[5]),
    *static_cast<const kgen::i64*>(params[6]), *static_cast<const kgen::u64*>(params[7]),
    *static_cast<const kgen::i64*>(params[8]), *static_cast<double* const*>(params[9]));
}

KGEN_KERNEL(256, 1) project_y(
    const kgen::bf16* x, const float* bias, float* y, float factor, kgen::i64 rows, kgen::i64 cols,
    kgen::i64 ld, kgen::u64 seed, const double* vector, kgen::i64 count, double* expected, double* bound) {
  const kgen::Args args{
    x, bias, y, factor, rows, cols, ld};
  const kgen::i64 step = kgen::i64(kgen::grid_x()) * 256;
  for (kgen::i64 i = kgen::i64(kgen::block_x()) * 256 + kgen::thread_x(); i < count; i += step) {
    kgen::project_y<kgen::Config>(args, seed, vector, i, expected[i], bound[i]);
  }
}
KGEN_HOST_ENTRY(project_y) {
  project_y(
    *static_cast<const kgen::bf16* const*>(params[0]), *static_cast<const float* const*>(params[1]),
    *static_cast<float* const*>(params[2]), *static_cast<const float*>(params[3]),
    *static_cast<const kgen::i64*>(params[4]), *static_cast<const kgen::i64*>(params[5]),
    *static_cast<const kgen::i64*>(params[6]), *static_cast<const kgen::u64*>(params[7]),
    *static_cast<const double* const*>(params[8]), *static_cast<const kgen::i64*>(params[9]),
    *static_cast<double* const*>(params[10]), *static_cast<double* const*>(params[11]));
}

