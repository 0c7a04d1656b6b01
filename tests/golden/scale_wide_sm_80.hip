// Made by kgen; serves every shape that its launch plan admits.
// y = factor * x, with the corners of the format that a real operator seldom needs at once
//
// op         scale dtype=bf16 epilogue=bias order=mirrored out_dtype=fp32 power=1
// candidate  wide tile=32 waves=2 mode=staged
// arch       sm_80
// compile    nvcc -x cu -std=c++20 -arch=sm_80 -cubin kernel.hip -o kernel.cubin

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

// ---- mma_sync_part.h
namespace kgen {
inline constexpr int kMatrixPart = 1;
}

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
  static constexpr int tile = 32;
  static constexpr int waves = 2;
  static constexpr auto mode = kgen::mode::staged;
  static constexpr int share = 16;
  static constexpr int lds = 2048;
  static constexpr kgen::Arch arch = kgen::Arch::sm_80;
  static constexpr int wave_size = 32;
  static constexpr int lds_limit = 166912;
  static constexpr int max_block = 1024;
  static constexpr bool async_copy = true;
};

// Every kernel parameter by name; absent operands are null.
struct Args {
  const kgen::bf16* __restrict__ x;
  const float* __restrict__ bias;
  float* __restrict__ y;
  float factor;
  kgen::i64 rows;
  kgen::i64 cols;
  kgen::i64 ld;
};

}  // namespace kgen

KGEN_KERNEL(64, 1) scale_tile(
    const kgen::bf16* __restrict__ x, const float* __restrict__ bias, float* __restrict__ y, float factor,
    kgen::i64 rows, kgen::i64 cols, kgen::i64 ld) {
  const kgen::Args args{
    x, bias, y, factor, rows, cols, ld};
  kgen::scale_tile<kgen::Config>(args);
}

