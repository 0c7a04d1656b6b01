// The configurations of the skinny kernel, the reference and the packing that the tests run, each a kernel of
// gemm_kernels.cpp.
#pragma once

#include "gemm_case.h"

namespace kgen::testing {

struct Skinny : PlainConfig {
  static constexpr int rows_m = 1, rows_per_wave = 2, unroll = 2, vec_b = 4, waves_n = 2, waves_k = 1, lanes_n = 8,
                       a_lds = 0, k_fit = 0;
  static constexpr int pack_b = 0, pack_n = 1, pack_k = 8;
};
struct SkinnyPlain : Skinny {};
struct SkinnyBf16 : Skinny {
  using dtype = bf16;
  using out_dtype = bf16;
  static constexpr int rows_per_wave = 4, unroll = 4, vec_b = 8, waves_k = 2;
  static constexpr int epilogue_bias = 1, epilogue_gelu_erf = 2, epilogue_add_residual = 3;
};
struct SkinnyHalfRows : Skinny {  // several rows of A, from LDS
  using dtype = f16;
  using out_dtype = f16;
  static constexpr int rows_m = 4, rows_per_wave = 8, unroll = 1, vec_b = 8, waves_n = 1, waves_k = 4, a_lds = 1;
  static constexpr int epilogue_silu = 1, epilogue_mul_other = 2;
};
struct SkinnySixteenRows : Skinny {
  using dtype = bf16;
  static constexpr int rows_m = 16, rows_per_wave = 1, vec_b = 2;
};
struct SkinnySplit : Skinny {  // more splits than k has steps in the small cases
  using dtype = bf16;
  static constexpr int rows_m = 2, vec_b = 8, split_k = 5, a_lds = 1;
  static constexpr int epilogue_add_c = 1, epilogue_bias = 2;
};
struct SkinnyUnaligned : Skinny {
  using dtype = bf16;
  static constexpr int rows_m = 2, vec_b = 1, unroll = 4, waves_k = 4;
};
struct SkinnyKn : Skinny {
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int rows_m = 2, vec_b = 4, lanes_n = 4, waves_k = 2;
};
struct SkinnyKnSplit : Skinny {
  using dtype = f16;
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int vec_b = 8, lanes_n = 32, split_k = 3, a_lds = 1;
  static constexpr int epilogue_bias = 1, epilogue_relu = 2;
};
struct SkinnyKnUnaligned : Skinny {
  using dtype = bf16;
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int rows_m = 8, vec_b = 1, lanes_n = 1, unroll = 4;
};

struct SkinnyPacked : Skinny {  // kn B, read as nk from the packed copy
  using dtype = f16;
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int rows_m = 2, vec_b = 8, pack_b = 1, split_k = 2;
};

struct ReferenceNk : PlainConfig {
  using dtype = bf16;
  using out_dtype = float;
  static constexpr int epilogue_bias = 1, epilogue_gelu_tanh = 2, epilogue_add_residual = 3, epilogue_mul_other = 4;
};
struct ReferenceKn : PlainConfig {
  using dtype = f16;
  using out_dtype = f16;
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int epilogue_add_c = 1, epilogue_add_residual = 2, epilogue_quick_gelu = 3;
};
struct ReferenceErf : PlainConfig {
  static constexpr int epilogue_gelu_erf = 1;
};
struct ReferenceSilu : PlainConfig {
  static constexpr int epilogue_silu = 1;
};
struct ReferenceSigmoid : PlainConfig {
  static constexpr int epilogue_sigmoid = 1;
};
struct ReferenceRelu : PlainConfig {
  static constexpr int epilogue_relu = 1;
};
struct LinearNk : PlainConfig {
  using dtype = bf16;
  using out_dtype = bf16;
  static constexpr int epilogue_bias = 1, epilogue_add_residual = 2, epilogue_add_c = 3;
};
struct LinearKn : PlainConfig {
  using dtype = f16;
  using out_dtype = float;
  static constexpr auto b_layout = kgen::b_layout::kn;
};
struct LinearFp16Sums : PlainConfig {
  using dtype = f16;
  using out_dtype = f16;
  using accumulate = f16;
};

struct PackNk : PlainConfig {
  using dtype = bf16;
  static constexpr int pack_n = 32, pack_k = 64;
};
struct PackKn : PlainConfig {
  static constexpr auto b_layout = kgen::b_layout::kn;
  static constexpr int pack_n = 16, pack_k = 8;
};

// Parameters of the reference kernels.
template <class C>
struct ReferenceArgs : GemmArgs<C> {
  u64 seed;
  i64 count;
  const double* vector;
  double *value, *magnitude;
};

}  // namespace kgen::testing
