// Estimates of real kernels' loops, compiled here, and of an assembly whose numbers can be told by hand.
#include "tuner/mca.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "base/arch.h"
#include "tests/compile/kernels.h"
#include "tuner/compile.h"
#include "tuner/inspect.h"
#include "tuner/process.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> as_code(const std::string& text) { return std::as_bytes(std::span(text)); }

class Mca : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!find_llvm_tool("llvm-mca") || !find_llvm_tool("llvm-objdump")) GTEST_SKIP() << "no llvm-mca here";
  }
  // nullopt (and a skipped test) when this machine has no compiler for it.
  static std::optional<CodeObject> build(const std::string& source, const std::string& arch) {
    static const TemporaryFolder folder = TemporaryFolder::make().value();
    const auto compiler = make_compiler({.cache_folder = folder.path(), .force = "clang", .self = ""});
    auto result = compiler->compile(source, *find_arch(arch));
    if (!result) {
      EXPECT_EQ(result.error().kind, ErrorKind::kNoCompiler) << result.error().message;
      return std::nullopt;
    }
    EXPECT_EQ(int(result->status), int(CompileStatus::kCompiled)) << result->log;
    return std::move(result->code);
  }
};

// Two matrix instructions in an inner loop, one in the loop around it.
std::string mfma_source() {
  return std::string(testing::kDialect) + R"(
typedef _Float16 half4 __attribute__((ext_vector_type(4)));
typedef float float16v __attribute__((ext_vector_type(16)));
KERNEL(64) product(float16v* d, const half4* a, const half4* b, int m, int n) {
  float16v x = {}, y = {};
#pragma clang loop unroll(disable)
  for (int j = 0; j < m; ++j) {
    y = __builtin_amdgcn_mfma_f32_32x32x8f16(a[j], b[j], y, 0, 0, 0);
#pragma clang loop unroll(disable)
    for (int i = 0; i < n; ++i) {
      const half4 left = a[i * 64 + THREAD], right = b[i * 64 + THREAD];
      x = __builtin_amdgcn_mfma_f32_32x32x8f16(left, right, x, 0, 0, 0);
      y = __builtin_amdgcn_mfma_f32_32x32x8f16(right, left, y, 0, 0, 0);
    }
  }
  d[THREAD] = x + y;
}
KERNEL(64) scale(float* y, int n) {
#pragma clang loop unroll(disable)
  for (int i = 0; i < n; ++i) y[i * 64 + THREAD] *= 2;
}
)";
}

TEST_F(Mca, TheInnermostLoopOfARealKernelIsEstimated) {
  // A 32x32x8 product takes 64 clocks of the unit on gfx90a and 32 on gfx942: AMD's ISA guides of CDNA2 and CDNA3.
  for (const auto& [arch, cycles_each] : {std::pair("gfx90a", 16), std::pair("gfx942", 8)}) {
    const auto code = build(mfma_source(), arch);
    if (!code) GTEST_SKIP() << "no compiler for " << arch;
    const auto loops = estimate_loops(code->bytes);
    ASSERT_TRUE(loops) << loops.error().message;
    ASSERT_EQ(loops->size(), 2u);
    const LoopEstimate& product = loops->at(0);
    EXPECT_EQ(product.kernel, "product");
    EXPECT_EQ(product.arch, arch);
    EXPECT_EQ(product.note, "");
    EXPECT_EQ(product.matrix_instructions, 2) << "the inner loop's";
    EXPECT_DOUBLE_EQ(product.matrix_cycles, 2 * cycles_each);
    EXPECT_GT(product.waits, 0) << "it waits for its loads";
    EXPECT_GE(product.cycles, product.matrix_cycles);
    EXPECT_DOUBLE_EQ(product.share, product.matrix_cycles / product.cycles);
    EXPECT_LT(product.share, 0.5) << "one wave that waits for global memory each time";
    EXPECT_GE(product.share_without_waits, product.share);
    EXPECT_LE(product.share_without_waits, 1.0);
    EXPECT_EQ(product.not_modelled, 0);
    EXPECT_EQ(loops->at(1).kernel, "scale");
    EXPECT_EQ(loops->at(1).note, "no matrix instructions");
  }
}

TEST_F(Mca, WhereTheModelHasNoMatrixUnitNothingIsGuessed) {
  const auto code = build(std::string(testing::kDialect) + R"(
typedef _Float16 half16 __attribute__((ext_vector_type(16)));
typedef float float8 __attribute__((ext_vector_type(8)));
KERNEL(32) product(float8* d, const half16* a, int n) {
  float8 x = {};
#pragma clang loop unroll(disable)
  for (int i = 0; i < n; ++i) x = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a[i], a[i + 1], x);
  d[THREAD] = x;
}
)",
                          "gfx1100");
  if (!code) GTEST_SKIP() << "no compiler for gfx1100";
  const auto loops = estimate_loops(code->bytes);
  ASSERT_TRUE(loops) << loops.error().message;
  ASSERT_EQ(loops->size(), 1u);
  EXPECT_EQ(loops->at(0).matrix_instructions, 1);
  EXPECT_THAT(loops->at(0).note, HasSubstr("no matrix unit for gfx1100"));
  EXPECT_EQ(loops->at(0).share, 0);
}

// Eight products that do not depend on one another keep the unit busy without a gap; the loop above it has fewer.
constexpr const char* kAssembly = R"(
	.text
	.amdgcn_target "amdgcn-amd-amdhsa--gfx942"
	.globl	busy
	.type	busy,@function
busy:                                   ; @busy
; %bb.0:
	s_mov_b32 s0, 0
.LBB0_1:                                ; a loop with one
	v_mfma_f32_32x32x8_f16 v[0:15], v[128:129], v[130:131], v[0:15]
	s_cbranch_scc1 .LBB0_1
.LBB0_2:                                ; %loop
                                        ; =>This Inner Loop Header: Depth=1
{}	s_add_u32 s0, s0, 1
	s_cmp_lt_u32 s0, 64                   // a comment of the other kind
	s_cbranch_scc1 .LBB0_2
; %bb.3:
	s_endpgm
.Lfunc_end0:
	.size	busy, .Lfunc_end0-busy
	.section	.rodata
once:
	v_mfma_f32_32x32x8_f16 v[0:15], v[128:129], v[130:131], v[0:15]
	s_endpgm
)";

TEST_F(Mca, AssemblyIsReadAsACompilerWritesIt) {
  std::string products;
  for (int i = 0; i < 8; ++i)
    products +=
        fmt::format("\tv_mfma_f32_32x32x8_f16 v[{0}:{1}], v[128:129], v[130:131], v[{0}:{1}]\n", 16 * i, 16 * i + 15);
  const std::string text = fmt::format(fmt::runtime(kAssembly), products);
  const auto loops = estimate_loops(as_code(text));
  ASSERT_TRUE(loops) << loops.error().message;
  ASSERT_EQ(loops->size(), 2u);
  EXPECT_EQ(loops->at(0).kernel, "busy");
  EXPECT_EQ(loops->at(0).instructions, 11);
  EXPECT_EQ(loops->at(0).matrix_instructions, 8);
  EXPECT_DOUBLE_EQ(loops->at(0).matrix_cycles, 64);
  EXPECT_GT(loops->at(0).share, 0.6);
  EXPECT_LE(loops->at(0).share, 1.0);
  EXPECT_EQ(loops->at(1).kernel, "once");
  EXPECT_EQ(loops->at(1).note, "its matrix instructions stand in no loop");

  const auto unknown = estimate_loops(as_code(fmt::format(fmt::runtime(kAssembly), products + "\tv_new_op v0, v1\n")));
  ASSERT_TRUE(unknown) << unknown.error().message;
  EXPECT_EQ(unknown->at(0).not_modelled, 1) << "and it is said";
  const auto other = estimate_loops(as_code(fmt::format(
      fmt::runtime(kAssembly), products + "\tv_mfma_f32_99x99x99_f16 v[0:15], v[128:129], v[130:131], v[0:15]\n")));
  ASSERT_TRUE(other) << other.error().message;
  EXPECT_EQ(other->at(0).not_modelled, 1);
}

TEST_F(Mca, BufferAccessesAreWaitedForAsGlobalMemoryIs) {
  const auto share = [](const char* access) {
    const auto loops = estimate_loops(as_code(fmt::format(
        fmt::runtime(kAssembly),
        fmt::format("\tv_mfma_f32_32x32x8_f16 v[0:15], v[128:129], v[130:131], v[0:15]\n\t{}\n\ts_waitcnt vmcnt(0)\n",
                    access))));
    EXPECT_TRUE(loops) << access << ": " << loops.error().message;
    if (!loops) return 0.0;
    EXPECT_EQ(loops->at(0).not_modelled, 0) << access;
    return loops->at(0).share;
  };
  const double global = share("global_load_dwordx4 v[16:19], v20, s[0:1]");
  EXPECT_GT(global, 0);
  for (const char* access : {"buffer_load_dwordx4 v[16:19], v20, s[0:3], 0 offen",
                             "buffer_load_dwordx2 v[16:17], v20, s[0:3], s4 offen offset:16",
                             "buffer_load_dword v16, off, s[0:3], 0 offset:104"})
    EXPECT_DOUBLE_EQ(share(access), global) << access;
  EXPECT_GT(share("buffer_store_dword v16, off, s[0:3], 0 offset:104"), 0);
}

TEST_F(Mca, WhatIsNoAmdCodeIsBadInput) {
  for (const std::string& bad : {std::string(), std::string("int main() {}"), std::string("\0\1\2", 3),
                                 std::string("\t.amdgcn_target \"amdgcn-amd-amdhsa--gfx942\"\n"),
                                 std::string("\t.amdgcn_target \"amdgcn-amd-amdhsa--gfx4711\"\n"),
                                 std::string("// x\n.version 8.0\n.target sm_90\n.visible .entry k() { ret; }\n")}) {
    const auto loops = estimate_loops(as_code(bad));
    ASSERT_FALSE(loops) << bad;
    EXPECT_EQ(int(loops.error().kind), int(ErrorKind::kBadInput)) << loops.error().message;
  }
  const auto code = build(mfma_source(), "gfx942");
  if (!code) GTEST_SKIP() << "no compiler for gfx942";
  for (const std::size_t length : {20u, 64u, 300u}) {
    const auto cut = std::span(code->bytes).first(length);
    const auto loops = estimate_loops(cut);
    EXPECT_FALSE(loops) << length;
  }
}

TEST_F(Mca, WithoutTheToolItSaysWhichPackageHasIt) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", "/nowhere", 1);
  const auto loops = estimate_loops(as_code(kAssembly));
  ::setenv("PATH", path.c_str(), 1);
  ASSERT_FALSE(loops);
  EXPECT_EQ(int(loops.error().kind), int(ErrorKind::kNoCompiler)) << loops.error().message;
  EXPECT_THAT(loops.error().message, HasSubstr("Debian: llvm-19"));
}

}  // namespace
}  // namespace kgen
