// Made by kgen; serves every shape that its launch plan admits.
// y = factor * x, with the corners of the format that a real operator seldom needs at once
//
// op         scale dtype=bf16 epilogue=bias order=mirrored out_dtype=fp32 power=1
// candidate  plain threads=64 parts=2
// arch       host
// compile    g++ -std=c++20 -O3 -march=native -shared -fPIC -x c++ kernel.hip -o kernel.so

// ---- inner/types.h
namespace kgen {
enum class order { plain, mirrored };
enum class mode { direct, staged };
}  // namespace kgen

// ---- inner/common.h
// Shared by both kernels.

namespace kgen {

template <class C, class P>
KGEN_DEVICE void scale_one(const P& p, i64 element) {
  using T = typename C::out_dtype;
  if (element >= p.rows * p.cols) return;
  const i64 row = element / p.cols, column = element % p.cols;
  const i64 source = C::order == order::mirrored ? p.cols - 1 - column : column;
  float value = to_float(p.x[row * p.ld + source]) * p.factor;
  if constexpr (C::epilogue_bias != 0) value += p.bias[column];
  p.y[element] = from_float<T>(value);
}

}  // namespace kgen

// ---- scale.h
// Scales rows.

namespace kgen {

template <class C, class P>
KGEN_DEVICE void scale_tile(const P& p) {
  scale_one<C>(p, i64(block_x()) * C::tile + thread_x());
}
template <class C, class P>
KGEN_DEVICE void scale_rows(const P& p) {
  for (i64 i = thread_x(); i < p.cols; i += C::threads) scale_one<C>(p, i64(block_x()) * p.cols + i);
}
template <class C, class P>
KGEN_DEVICE void scale_sum(const P&) {}

}  // namespace kgen

// ---- this kernel
namespace kgen {

// Everything that is fixed when the kernel is compiled.
struct Config {
  using dtype = kgen::bf16;
  using out_dtype = float;
  static constexpr auto order = kgen::order::mirrored;
  static constexpr int epilogue_bias = 1;
  static constexpr int epilogue_relu = 0;
  static constexpr kgen::i64 power = 1;
  static constexpr int threads = 64;
  static constexpr int parts = 2;
  static constexpr kgen::Arch arch = kgen::Arch::host;
  static constexpr int wave_size = 32;
  static constexpr int lds_limit = 65536;
  static constexpr int max_block = 1024;
  static constexpr bool async_copy = false;
};

// Every kernel parameter by name; absent operands are null.
struct Args {
  const kgen::bf16* __restrict__ x;
  const float* __restrict__ bias;
  float* __restrict__ y;
  float* __restrict__ partial;
  float factor;
  kgen::i64 rows;
  kgen::i64 cols;
  kgen::i64 ld;
};

}  // namespace kgen

KGEN_KERNEL(64, 2) scale_rows(
    const kgen::bf16* __restrict__ x, const float* __restrict__ bias, float* __restrict__ y,
    float* __restrict__ partial, float factor, kgen::i64 rows, kgen::i64 cols, kgen::i64 ld) {
  const kgen::Args args{
    x, bias, y, partial, factor, rows, cols, ld};
  kgen::scale_rows<kgen::Config>(args);
}
KGEN_HOST_ENTRY(scale_rows) {
  scale_rows(
    *static_cast<const kgen::bf16* const*>(params[0]), *static_cast<const float* const*>(params[1]),
    *static_cast<float* const*>(params[2]), *static_cast<float* const*>(params[3]),
    *static_cast<const float*>(params[4]), *static_cast<const kgen::i64*>(params[5]),
    *static_cast<const kgen::i64*>(params[6]), *static_cast<const kgen::i64*>(params[7]));
}

KGEN_KERNEL(64, 1) scale_sum(
    const kgen::bf16* __restrict__ x, const float* __restrict__ bias, float* __restrict__ y,
    float* __restrict__ partial, float factor, kgen::i64 rows, kgen::i64 cols, kgen::i64 ld) {
  const kgen::Args args{
    x, bias, y, partial, factor, rows, cols, ld};
  kgen::scale_sum<kgen::Config>(args);
}
KGEN_HOST_ENTRY(scale_sum) {
  scale_sum(
    *static_cast<const kgen::bf16* const*>(params[0]), *static_cast<const float* const*>(params[1]),
    *static_cast<float* const*>(params[2]), *static_cast<float* const*>(params[3]),
    *static_cast<const float*>(params[4]), *static_cast<const kgen::i64*>(params[5]),
    *static_cast<const kgen::i64*>(params[6]), *static_cast<const kgen::i64*>(params[7]));
}

