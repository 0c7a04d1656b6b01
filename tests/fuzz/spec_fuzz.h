// What the fuzzer and the replay of its corpus do with one input.
#pragma once

#include <string>
#include <string_view>

#include "generator/emit.h"

namespace kgen {

// Any text, taken as a spec and as an operator definition, ends in a value or an error; what loads can be enumerated
// and emitted or says why not.
inline void try_spec(std::string_view text) {
  const std::string folder = std::string(KGEN_SOURCE_DIR) + "/tests/generator/fixtures";
  if (const auto specs = parse_spec_text(text, folder + "/fuzz.yaml")) {
    const Arch arch = *find_arch("sm_80");
    for (std::size_t i = 0; i < specs->size() && i < 4; ++i) {
      const OpSpec& spec = (*specs)[i];
      const auto space = enumerate(spec, arch, 2);
      if (!space) continue;
      for (const Candidate& candidate : space->candidates) {
        if (const auto source = emit(spec, arch, candidate)) (void)bind(source->plan, spec.problem.dims);
      }
    }
  }
  (void)load_op_text(text, folder + "/fuzz.yaml", folder);
}

}  // namespace kgen
