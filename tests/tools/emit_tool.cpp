// Prints what the generator makes of a spec, for people who write templates:
//   emit_tool SPEC ARCH [config]            source of a candidate (default: the default one) and its plan as a comment
//   emit_tool --reference SPEC ARCH         source of the reference and the checks
//   emit_tool --list SPEC ARCH [limit]      candidates, one a line
// The first problem of the spec is taken.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "generator/emit.h"

namespace {

kgen::Result<void> print(const std::vector<std::string>& words) {
  const bool reference = !words.empty() && words[0] == "--reference";
  const bool list = !words.empty() && words[0] == "--list";
  const std::size_t first = reference || list ? 1 : 0;
  if (words.size() < first + 2) {
    return kgen::fail(kgen::ErrorKind::kBadInput, "usage: emit_tool [--reference|--list] SPEC ARCH [config|limit]");
  }
  KGEN_TRY(const auto specs, kgen::parse_spec(words[first]));
  if (specs.empty()) return kgen::fail(kgen::ErrorKind::kBadInput, words[first] + ": no problems");
  KGEN_TRY(const kgen::Arch arch, kgen::find_arch(words[first + 1]));
  const std::string more = words.size() > first + 2 ? words[first + 2] : "";
  if (reference) {
    KGEN_TRY(const auto source, kgen::emit_reference(specs[0], arch));
    fmt::print("{}", source.text);
    return {};
  }
  if (list) {
    KGEN_TRY(const auto space, kgen::enumerate(specs[0], arch, more.empty() ? SIZE_MAX : std::stoul(more)));
    for (const auto& candidate : space.candidates) fmt::print("{}\n", candidate.key());
    for (const auto& rule : space.removed) {
      fmt::print(stderr, "{:>10} {} {} ({})\n", rule.removed, rule.variant, rule.rule, rule.because);
    }
    fmt::print(stderr, "{} of {:.0f} points are legal\n", space.candidates.size(), space.raw_points);
    return {};
  }
  KGEN_TRY(const kgen::Candidate candidate,
           more.empty() ? kgen::default_candidate(specs[0], arch) : kgen::parse_candidate(specs[0], arch, more));
  KGEN_TRY(const auto source, kgen::emit(specs[0], arch, candidate));
  fmt::print("{}\n// plan: {}\n", source.text, kgen::plan_to_json(source.plan));
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto done = print(words);
  if (done) return 0;
  fmt::print(stderr, "{}\n", done.error().message);
  return kgen::exit_code(done.error().kind);
}
