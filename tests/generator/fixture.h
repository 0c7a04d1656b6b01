// What the generator's tests share: the fixture operator and one-line access to errors.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "generator/emit.h"

namespace kgen {

inline const std::string kFixtures = std::string(KGEN_SOURCE_DIR) + "/tests/generator/fixtures";

// Message of a failed result, "" of a good one.
template <class T>
std::string message(const Result<T>& result) {
  return result ? "" : result.error().message;
}

inline Arch arch(const char* name) { return find_arch(name).value(); }

// One problem of an op in fixtures/.
inline OpSpec fixture(const std::string& op, const std::vector<std::pair<std::string, std::string>>& words) {
  OpSpec spec;
  const auto loaded = load_op(kFixtures + "/" + op + ".yaml");
  EXPECT_TRUE(loaded) << message(loaded);
  spec.op = *loaded;
  const auto problem = make_problem(*spec.op, words);
  EXPECT_TRUE(problem) << message(problem);
  if (problem) spec.problem = *problem;
  return spec;
}

// A spec that stands in fixtures/, so that `op: ./scale.yaml` is the fixture.
inline Result<std::vector<OpSpec>> parse(const std::string& yaml, std::string_view op_glob = "*") {
  return parse_spec_text(yaml, kFixtures + "/spec.yaml", op_glob);
}

}  // namespace kgen
