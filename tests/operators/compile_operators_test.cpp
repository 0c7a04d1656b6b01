// Every variant of every built-in operator and every reference compiles for every architecture, and the default
// configurations spill no registers.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <string>

#include "generator/emit.h"
#include "generator/space.h"
#include "generator/spec.h"
#include "tuner/compile.h"

namespace kgen {
namespace {

const char* const kProblems = R"(
kgen: 1
ops:
  - op: gemm
    dtype: bf16
    epilogue: [bias, gelu_erf, add_residual]
    problems: [{m: 8, n: 4096, k: 1176}]
  - op: gemm
    dtype: fp16
    b_layout: kn
    out_dtype: fp32
    epilogue: [add_c, silu, mul_other]
    problems: [{m: 1, n: 4096, k: 4096}]
  - op: gemm
    dtype: fp32
    problems: [{m: 197, n: 768, k: 768}]
  - op: conv3d_patchify
    dtype: bf16
    epilogue: [bias]
    problems: [{l: 5476, c: 3, t: 2, ph: 14, pw: 14, e: 1280}]
)";

std::vector<std::string> arch_names() {
  std::vector<std::string> names;
  for (const ArchInfo& arch : all_archs()) names.emplace_back(arch.name);
  return names;
}

class Operators : public ::testing::TestWithParam<std::string> {};

TEST_P(Operators, CompileWithoutSpills) {
  const auto arch = find_arch(GetParam());
  ASSERT_TRUE(arch);
  const auto specs = parse_spec_text(kProblems, "problems");
  ASSERT_TRUE(specs) << specs.error().message;

  std::map<std::string, KernelSource> sources;  // name for people → source
  for (const OpSpec& spec : *specs) {
    const std::string problem = signature(*spec.op, spec.problem);
    auto reference = emit_reference(spec, *arch);
    ASSERT_TRUE(reference) << problem << ": " << reference.error().message;
    sources.emplace(problem + " reference", std::move(*reference));
    int offered = 0;
    for (const VariantDef& variant : spec.op->variants) {
      const auto candidate = parse_candidate(spec, *arch, variant.name);
      if (!candidate) continue;  // not for this architecture, type or shape
      auto source = emit(spec, *arch, *candidate);
      ASSERT_TRUE(source) << problem << " " << candidate->key() << ": " << source.error().message;
      sources.emplace(problem + " " + candidate->key(), std::move(*source));
      ++offered;
    }
    EXPECT_GT(offered, 0) << problem;
  }

  CompilerOptions options;
  options.cache_folder = KGEN_BINARY_DIR "/compile-cache";
  options.timeout_seconds = 300;
  options.self = std::filesystem::read_symlink("/proc/self/exe").string();
  const auto compiler = make_compiler(options);
  if (const auto version = compiler->version(*arch); !version) GTEST_SKIP() << "NOT RUN: " << version.error().message;

  std::mutex mutex;
  std::map<std::string, CompileResult> results;
  {
    CompilePool pool(*compiler, 2);
    std::size_t finished = 0;
    std::condition_variable changed;
    for (const auto& [name, source] : sources) {
      pool.submit(source.text, *arch, [&, name = name](Result<CompileResult> result) {
        const std::lock_guard lock(mutex);
        if (result)
          results.emplace(name, std::move(*result));
        else
          ADD_FAILURE() << name << ": " << result.error().message;
        ++finished;
        changed.notify_one();
      });
    }
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return finished == sources.size(); });
  }
  for (const auto& [name, result] : results) {
    EXPECT_EQ(result.status, CompileStatus::kCompiled) << name << "\n"
                                                       << first_error(result.log) << "\n"
                                                       << result.command;
    for (const KernelUsage& usage : result.code.kernels) EXPECT_LE(usage.spills, 0) << name << " " << usage.kernel;
  }
}

INSTANTIATE_TEST_SUITE_P(Archs, Operators, ::testing::ValuesIn(arch_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kgen
