// Every operator of problems/ compiles for every GPU architecture: each variant and each type, in the default
// configuration and without spilling registers, and the references in turn. Every (operator, architecture) takes the
// fewest problems that show all its variants and types, each architecture other ones. Counts go to
// coverage/compiled_ARCH.jsonl for scripts/coverage.py. The host's turn is host_verify.py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/text.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "generator/spec.h"
#include "tuner/compile.h"

namespace kgen {
namespace {

// Shapes of models, whose defaults take larger tiles than those of problems/.
const char* const kModels = R"(
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
  for (const ArchInfo& arch : all_archs())
    if (arch.vendor != Vendor::kHost) names.emplace_back(arch.name);
  return names;
}

std::vector<std::string> problem_files() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(KGEN_SOURCE_DIR "/tests/operators/problems"))
    files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

struct Named {
  std::string op, dtype, name;  // name: for people
  KernelSource source;
  bool may_spill = false;
};

// Adds the default candidates of a spec that bring a variant or a type that `seen` lacks; all of them without `seen`.
void add_candidates(const OpSpec& spec, Arch arch, std::set<std::string>* seen, std::vector<Named>& sources) {
  const std::string problem = signature(*spec.op, spec.problem), dtype = spec.problem.attributes.at("dtype");
  if (seen != nullptr && seen->count(spec.op->name + " " + dtype) != 0 &&
      std::all_of(spec.op->variants.begin(), spec.op->variants.end(),
                  [&](const VariantDef& variant) { return seen->count(spec.op->name + " variant " + variant.name); }))
    return;
  const auto candidates = variant_defaults(spec, arch);
  if (!candidates && !spec.tune.params.empty()) return;  // narrowed to what this architecture lacks
  ASSERT_TRUE(candidates) << problem << ": " << candidates.error().message;
  for (const Candidate& candidate : *candidates) {
    if (seen != nullptr) {
      const bool type = seen->insert(spec.op->name + " " + dtype).second;
      const bool variant = seen->insert(spec.op->name + " variant " + candidate.variant).second;
      if (!type && !variant) continue;
    }
    auto source = emit(spec, arch, candidate);
    ASSERT_TRUE(source) << problem << " " << candidate.key() << ": " << source.error().message;
    sources.push_back({spec.op->name, dtype, problem + " " + candidate.key(), std::move(*source), seen != nullptr});
  }
}

void add_reference(const OpSpec& spec, Arch arch, std::vector<Named>& sources) {
  const std::string problem = signature(*spec.op, spec.problem);
  auto reference = emit_reference(spec, arch);
  ASSERT_TRUE(reference) << problem << ": " << reference.error().message;
  sources.push_back({spec.op->name, "", problem + " reference", std::move(*reference), true});
  auto checks = emit_checks(spec, arch);
  ASSERT_TRUE(checks) << problem << ": " << checks.error().message;
  sources.push_back({spec.op->name, "", problem + " checks", std::move(*checks), true});
  auto displace = emit_displace(arch);
  ASSERT_TRUE(displace) << displace.error().message;
  sources.push_back({spec.op->name, "", "what displaces code", std::move(*displace), true});
}

// Without KGEN_ALL_ARCHS these share the operators out: each is compiled for one of AMD's and one of NVIDIA's.
constexpr std::string_view kQuick[] = {"gfx90a", "gfx1100", "gfx1201", "sm_61", "sm_75", "sm_90"};
constexpr std::size_t kShares = 3;

class Operators : public ::testing::TestWithParam<std::string> {};

// A default that spills for some problem is pruned when it is tuned; it is told here, and counted as no tick in
// docs/coverage.md. For the shapes of models none may, and no operator may have nothing else.
TEST_P(Operators, CompileWithoutSpills) {
  const auto arch = find_arch(GetParam());
  ASSERT_TRUE(arch);
  const bool all = std::getenv("KGEN_ALL_ARCHS") != nullptr;
  const auto share = static_cast<std::size_t>(std::ranges::find(kQuick, GetParam()) - std::begin(kQuick));
  if (!all && share == std::size(kQuick)) GTEST_SKIP() << "not run: architectures that KGEN_ALL_ARCHS=1 compiles for";
  const std::size_t turn = static_cast<std::size_t>(*arch - &all_archs()[0]);
  std::vector<Named> sources;
  const std::vector<std::string> files = problem_files();
  for (std::size_t f = 0; f < files.size(); ++f) {
    if (!all && f % kShares != share % kShares) continue;
    const auto specs = parse_spec(files[f]);
    if (!specs) {
      ADD_FAILURE() << specs.error().message;
      continue;
    }
    std::set<std::string> seen;
    for (std::size_t i = 0; i < specs->size(); ++i)
      add_candidates((*specs)[(turn + i) % specs->size()], *arch, &seen, sources);
    if (!specs->empty()) add_reference((*specs)[turn % specs->size()], *arch, sources);
  }
  const auto models = parse_spec_text(kModels, "models");
  ASSERT_TRUE(models) << models.error().message;
  for (const OpSpec& spec : *models)
    if (all || share % kShares == 0) add_candidates(spec, *arch, nullptr, sources);

  CompilerOptions options;
  options.cache_folder = KGEN_BINARY_DIR "/compile-cache";
  options.timeout_seconds = 300;
  options.self = std::filesystem::read_symlink("/proc/self/exe").string();
  const auto compiler = make_compiler(options);
  if (const auto version = compiler->version(*arch); !version) GTEST_SKIP() << "NOT RUN: " << version.error().message;

  std::mutex mutex;
  std::vector<std::optional<CompileResult>> results(sources.size());
  {
    CompilePool pool(*compiler, 2);
    std::size_t finished = 0;
    std::condition_variable changed;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      pool.submit(sources[i].source.text, *arch, [&, i](Result<CompileResult> result) {
        const std::lock_guard lock(mutex);
        if (result)
          results[i] = std::move(*result);
        else
          ADD_FAILURE() << sources[i].name << ": " << result.error().message;
        ++finished;
        changed.notify_one();
      });
    }
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return finished == sources.size(); });
  }
  struct Count {
    int compiled = 0, failed = 0;
  };
  std::map<std::pair<std::string, std::string>, Count> counts;  // by operator and type
  for (std::size_t i = 0; i < sources.size(); ++i) {
    bool fine = results[i] && results[i]->status == CompileStatus::kCompiled;
    if (results[i]) {
      EXPECT_TRUE(fine) << sources[i].name << "\n" << first_error(results[i]->log) << "\n" << results[i]->command;
    }
    if (sources[i].dtype.empty()) continue;  // a reference: it may spill
    for (const KernelUsage& usage : fine ? results[i]->code.kernels : std::vector<KernelUsage>()) {
      if (usage.spills <= 0) continue;
      fine = false;
      if (sources[i].may_spill)
        std::cout << "spills " << usage.spills << " registers: " << GetParam() << " " << sources[i].name << " "
                  << usage.kernel << "\n";
      else
        ADD_FAILURE() << sources[i].name << " " << usage.kernel << " spills " << usage.spills << " registers";
    }
    Count& count = counts[{sources[i].op, sources[i].dtype}];
    ++(fine ? count.compiled : count.failed);
  }
  std::string lines;
  std::map<std::string, int> usable;
  for (const auto& [key, count] : counts) usable[key.first] += count.compiled;
  for (const auto& [op, count] : usable) EXPECT_GT(count, 0) << op << ": every default spills";
  for (const auto& [key, count] : counts)
    lines += fmt::format(
        "{{\"what\": \"compiled\", \"op\": \"{}\", \"dtype\": \"{}\", \"arch\": \"{}\", "
        "\"count\": {}, \"failed\": {}}}\n",
        key.first, key.second, GetParam(), count.compiled + count.failed, count.failed);
  std::filesystem::create_directories(KGEN_BINARY_DIR "/coverage");
  const auto written = write_file(KGEN_BINARY_DIR "/coverage/compiled_" + GetParam() + ".jsonl", lines);
  EXPECT_TRUE(written) << written.error().message;
}

INSTANTIATE_TEST_SUITE_P(Archs, Operators, ::testing::ValuesIn(arch_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kgen
