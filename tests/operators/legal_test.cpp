// No candidate that the rules admit fails to compile: random ones of every variant, those among them that only rules of
// the search would keep out, for a spec's `tune: params:` or a user's --config may ask for them. Each goes through the
// compiler's front end, which meets all static assertions. Few by default; for more of them:
//   KGEN_LEGAL_SAMPLES=200  of each operator and architecture    KGEN_LEGAL_SEED=7    KGEN_LEGAL_OPS=attention
// Shapes are those of problems/ and, where KGEN_SHAPES names their folder, those of models and edge cases.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/text.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "generator/spec.h"
#include "tuner/compile.h"
#include "tuner/process.h"

namespace kgen {
namespace {

constexpr int kTries = 400;  // for one candidate; of some variants few points are legal

std::string setting(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

// By operator. A list that is not for all operators here (a user's own) would be no failure of theirs.
const std::map<std::string, std::vector<OpSpec>>& specs_by_op() {
  static const auto kSpecs = [] {
    std::map<std::string, std::vector<OpSpec>> found;
    std::vector<std::string> folders = {KGEN_SOURCE_DIR "/tests/operators/problems"};
    if (const std::string shapes = setting("KGEN_SHAPES", ""); !shapes.empty()) folders.push_back(shapes);
    std::set<std::string> files;
    for (const std::string& folder : folders)
      for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".yaml") files.insert(entry.path().string());
    for (const std::string& file : files) {
      const auto specs = parse_spec(file);
      if (!specs) {
        ADD_FAILURE() << specs.error().message;
        continue;
      }
      for (const OpSpec& spec : *specs) {
        found[spec.op->name].push_back(spec);
        found[spec.op->name].back().tune.params.clear();
      }
    }
    return found;
  }();
  return kSpecs;
}

class Sampler {
 public:
  explicit Sampler(std::uint64_t seed) : engine_(seed) {}

  template <class List>
  const auto& one_of(const List& list) {
    return list[engine_() % list.size()];
  }

  // A legal candidate of a variant, or nothing. Some, half or all of what may be chosen is, the rest takes its default.
  // An integer is now and then one that the variant does not list where `extend`, as `tune: params:` may say it.
  std::optional<Candidate> candidate(OpSpec& spec, Arch arch, const VariantDef& variant, bool extend) {
    for (int i = 0; i < kTries; ++i) {
      const std::uint64_t share = 1 + engine_() % 4;
      const bool other = extend && engine_() % 2 == 0;
      spec.tune.params.clear();
      std::string key = variant.name;
      for (const AttributeDef& attribute : spec.op->attributes) {
        const auto values = allowed_values(attribute, spec.problem.attributes.at(attribute.name));
        if (values.size() > 1) key += fmt::format(" {}={}", attribute.name, one_of(values));
      }
      for (const TunableDef& tunable : variant.tunables) {
        if (engine_() % 4 >= share) continue;
        std::string value = one_of(tunable.values);
        if (other && !tunable.symbolic && engine_() % 2 == 0) {
          const int listed = std::atoi(value.c_str());
          value = std::to_string(one_of(std::vector{listed / 2, listed * 2, listed * 3, listed + 1}));
          spec.tune.params[tunable.name] = {value};
        }
        key += fmt::format(" {}={}", tunable.name, value);
      }
      if (auto parsed = parse_candidate(spec, arch, key)) return std::move(*parsed);
    }
    return std::nullopt;
  }

 private:
  std::mt19937_64 engine_;
};

// The compiler's front end alone, as the tuner's own compiler would be called.
class FrontEnd {
 public:
  explicit FrontEnd(Arch arch) : arch_(arch), compiler_(make_compiler(options(arch))) {}

  // Why not, where it is not there.
  std::string start() {
    const auto version = compiler_->version(arch_);
    if (!version) return version.error().message;
    const auto source = emit_displace(arch_);
    const auto made = source ? compiler_->compile(source->text, arch_) : tl::unexpected(source.error());
    if (!made) return made.error().message;
    if (arch_->vendor != Vendor::kNvidia) words_ = split(made->command, ' ');
    return "";
  }

  // The first error, or "".
  std::string refuses(const std::string& text) {
    if (words_.empty()) {  // NVRTC has no front end alone
      const auto made = compiler_->compile(text, arch_);
      if (!made) return made.error().message;
      return made->status == CompileStatus::kCompiled ? "" : first_error(made->log);
    }
    const auto folder = TemporaryFolder::make();
    if (!folder) return folder.error().message;
    // All but "kernel.hip -o kernel.co".
    std::vector<std::string> argv(words_.begin(), words_.end() - 3);
    argv.push_back(folder->path() + "/" + words_.end()[-3]);
    if (const auto written = write_file(argv.back(), text); !written) return written.error().message;
    argv.emplace_back("-fsyntax-only");
    const auto run = run_program(argv, {});
    if (!run) return run.error().message;
    if (run->end == RunResult::End::kExited && run->code == 0) return "";
    return first_error(run->output) + " (" + describe_end(*run, RunLimits{}.timeout_seconds) + ")";
  }

 private:
  static CompilerOptions options(Arch arch) {
    CompilerOptions made;
    made.cache_folder = KGEN_BINARY_DIR "/compile-cache";
    made.self = std::filesystem::read_symlink("/proc/self/exe").string();
    if (arch->vendor == Vendor::kNvidia) made.force = "nvrtc";  // clang has no clusters
    return made;
  }

  Arch arch_;
  std::unique_ptr<Compiler> compiler_;
  std::vector<std::string> words_;  // of the compiler's command; none of NVRTC
};

constexpr std::string_view kArchs[] = {"gfx90a", "gfx942", "gfx1100", "gfx1201", "sm_90", "host"};

class Legal : public ::testing::TestWithParam<std::string_view> {};

TEST_P(Legal, CandidatesCompile) {
  const Arch arch = *find_arch(GetParam());
  const auto turn = static_cast<std::size_t>(std::ranges::find(kArchs, GetParam()) - std::begin(kArchs));
  const int samples = std::atoi(setting("KGEN_LEGAL_SAMPLES", "0").c_str());
  const std::string seed = setting("KGEN_LEGAL_SEED", "1"), wanted = setting("KGEN_LEGAL_OPS", "");
  FrontEnd front_end(arch);
  if (const std::string absent = front_end.start(); !absent.empty()) GTEST_SKIP() << "NOT RUN: " << absent;
  std::set<std::string> told;
  int compiled = 0;
  std::size_t place = 0;
  for (const auto& [op, specs] : specs_by_op()) {
    // In a quick run each operator has its turn on two of the architectures.
    if (samples == 0 && place++ % 3 != turn % 3) continue;
    if (!wanted.empty() && op.find(wanted) == std::string::npos) continue;
    Sampler sampler(std::stoull(hash_text(fmt::format("{} {} {}", seed, op, GetParam())).substr(0, 15), nullptr, 16));
    for (int i = 0; i < std::max(samples, 1); ++i) {
      OpSpec spec = sampler.one_of(specs);
      const auto candidate = sampler.candidate(spec, arch, sampler.one_of(spec.op->variants), samples > 0);
      if (!candidate) continue;
      const std::string name = fmt::format("{} {} [{}] for {}", signature(*spec.op, spec.problem),
                                           dims_key(*spec.op, spec.problem), candidate->key(), GetParam());
      const auto source = emit(spec, arch, *candidate);
      if (!source) {
        ADD_FAILURE() << name << ": " << source.error().message;
        continue;
      }
      ++compiled;
      const std::string refused = front_end.refuses(source->text);
      // The same assertion of the same operator is told once.
      if (!refused.empty() && told.insert(op + refused.substr(std::min(refused.size(), refused.find("error")))).second)
        ADD_FAILURE() << name << "\n" << refused;
    }
  }
  RecordProperty("compiled", compiled);
  if (samples > 0) std::cout << GetParam() << ": " << compiled << " candidates\n";
}

// Values that a variant does not list, and which some template refuses: a rule says so before any compiler.
TEST(Rules, RefuseWhatTemplatesRefuse) {
  struct Case {
    const char *op, *problem, *arch, *param, *value, *key, *because;
  };
  const Case cases[] = {
      {"attention", "b: 1, hq: 6, hkv: 2, sq: 5, skv: 17", "gfx942", "wave_q", "8", "matrix wave_q=8", "whole blocks"},
      {"attention", "b: 1, hq: 6, hkv: 2, sq: 5, skv: 17", "gfx90a", "tile_kv", "24", "matrix tile_kv=24",
       "whole blocks"},
      {"decode_attention", "b: 2, hq: 8, hkv: 1, smax: 40", "gfx942", "wave_q", "8", "matrix wave_q=8", "whole blocks"},
      {"decode_attention", "b: 2, hq: 8, hkv: 1, smax: 40", "sm_90", "waves", "9", "lanes waves=9 heads=8",
       "in fours"}};
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.op) + " " + c.key);
    const std::string dims = std::string(c.op) == "attention" ? "d: 80" : "d: 128";
    auto specs = parse_spec_text(
        fmt::format("{{kgen: 1, ops: [{{op: {}, dtype: fp16, {}, problems: [{{{}}}]}}]}}", c.op, dims, c.problem),
        "pinned.yaml");
    ASSERT_TRUE(specs) << specs.error().message;
    OpSpec spec = specs->front();
    spec.tune.params[c.param] = {c.value};
    if (std::string(c.key).find("heads=8") != std::string::npos) spec.tune.params["heads"] = {"8"};
    const auto candidate = parse_candidate(spec, *find_arch(c.arch), c.key);
    ASSERT_FALSE(candidate) << candidate->key();
    EXPECT_NE(candidate.error().message.find(c.because), std::string::npos) << candidate.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(Archs, Legal, ::testing::ValuesIn(kArchs),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace kgen
