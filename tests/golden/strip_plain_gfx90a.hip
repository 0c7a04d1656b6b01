// Made by kgen; serves every shape that its launch plan admits.
// scale under other names
//
// op         strip dtype=fp32 epilogue= order=mirrored out_dtype=fp32 power=1
// candidate  plain threads=64 parts=1
// arch       gfx90a
// compile    hipcc --genco --offload-arch=gfx90a -std=c++20 -O3 kernel.hip -o kernel.co
//      or    clang++ -x hip --offload-device-only --no-gpu-bundle-output -nogpuinc -nogpulib --offload-arch=gfx90a -std=c++20 -O3 kernel.hip -o kernel.co

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
  using dtype = float;
  using out_dtype = float;
  static constexpr auto order = kgen::order::mirrored;
  static constexpr int epilogue_bias = 0;
  static constexpr int epilogue_relu = 0;
  static constexpr kgen::i64 power = 1;
  static constexpr int threads = 64;
  static constexpr int parts = 1;
  static constexpr kgen::Arch arch = kgen::Arch::gfx90a;
  static constexpr int wave_size = 64;
  static constexpr int lds_limit = 65536;
  static constexpr int max_block = 1024;
  static constexpr bool async_copy = false;
};

// Every kernel parameter by name; absent operands are null.
struct Args {
  const float* __restrict__ x;
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
    const float* __restrict__ image, const float* __restrict__ bias, float* __restrict__ out,
    float* __restrict__ partial, float factor, kgen::i64 rows, kgen::i64 cols, kgen::i64 ld) {
  const kgen::Args args{
    image, bias, out, partial, factor, rows, cols, ld};
  kgen::scale_rows<kgen::Config>(args);
}

