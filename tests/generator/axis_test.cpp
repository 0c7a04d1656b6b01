// Attributes that a problem leaves to the search: gemm's `accumulate`.
#include "tests/generator/fixture.h"

namespace kgen {
namespace {

OpSpec gemm(const std::string& accumulate, const std::string& dtype = "fp16") {
  const auto specs = parse_spec_text("kgen: 1\nops: [{op: gemm, dtype: " + dtype + ", accumulate: " + accumulate +
                                         ", problems: [{m: 64, n: 64, k: 64}]}]",
                                     "spec.yaml");
  EXPECT_TRUE(specs) << message(specs);
  return specs ? specs->at(0) : OpSpec();
}

TEST(Axis, ListIsOneProblemWhoseIdentityHasTheSet) {
  for (const char* list : {"[fp16, fp32]", "[fp32, fp16]", "[fp32, fp16, fp32]"}) {
    const OpSpec spec = gemm(list);
    EXPECT_EQ(spec.problem.attributes.at("accumulate"), "fp16,fp32") << list;
  }
  EXPECT_EQ(gemm("[fp16]").problem.attributes.at("accumulate"), "fp16");
  const auto two = parse_spec_text(
      "kgen: 1\nops: [{op: gemm, dtype: fp16, accumulate: [[fp16], [fp32]], problems: [{m: 1, n: 1, k: 1}]}]", "spec");
  ASSERT_TRUE(two) << message(two);
  EXPECT_EQ(two->size(), 2U);
}

TEST(Axis, IdentityIsReadBack) {
  const OpSpec spec = gemm("[fp16, fp32]");
  const auto problem =
      make_problem(*spec.op, {{"dtype", "fp16"}, {"accumulate", "fp16,fp32"}, {"m", "64"}, {"n", "64"}, {"k", "64"}});
  ASSERT_TRUE(problem) << message(problem);
  EXPECT_EQ(signature(*spec.op, *problem), signature(*spec.op, spec.problem));
  EXPECT_EQ(dims_key(*spec.op, *problem), dims_key(*spec.op, spec.problem));
}

TEST(Axis, EveryValueMustBeAllowed) {
  const auto specs = parse_spec_text(
      "kgen: 1\nops: [{op: gemm, dtype: bf16, accumulate: [fp16, fp32], problems: [{m: 1, n: 1, k: 1}]}]", "spec");
  EXPECT_THAT(message(specs), testing::HasSubstr("sums in fp16 are for fp16 operands"));
}

TEST(Axis, CandidatesCarryTheirValueFirst) {
  const OpSpec spec = gemm("[fp16, fp32]");
  for (const char* name : {"host", "sm_61"}) {
    const auto space = enumerate(spec, arch(name));
    ASSERT_TRUE(space) << message(space);
    std::map<std::string, int> seen;
    for (const Candidate& candidate : space->candidates) {
      ASSERT_EQ(candidate.params.at(0).first, "accumulate");
      ++seen[candidate.params[0].second];
    }
    EXPECT_GT(seen["fp16"], 0) << name;
    EXPECT_GT(seen["fp32"], 0) << name;
    // The usual value leads, and the space is that of both problems.
    EXPECT_EQ(space->candidates[0].params[0].second, "fp32");
    const auto half = enumerate(gemm("fp16"), arch(name)), full = enumerate(gemm("fp32"), arch(name));
    ASSERT_TRUE(half && full);
    EXPECT_EQ(space->candidates.size(), half->candidates.size() + full->candidates.size()) << name;
    EXPECT_EQ(space->candidates[0].key().substr(space->candidates[0].key().find("=fp32") + 5),
              full->candidates[0].key().substr(full->candidates[0].key().find(' ')));
  }
}

TEST(Axis, ConfigNamesTheValue) {
  const OpSpec spec = gemm("[fp16, fp32]");
  const auto usual = parse_candidate(spec, arch("host"), "simt"),
             half = parse_candidate(spec, arch("host"), "simt accumulate=fp16");
  ASSERT_TRUE(usual && half) << message(usual) << message(half);
  EXPECT_EQ(usual->params[0].second, "fp32");
  EXPECT_EQ(half->params[0].second, "fp16");
  EXPECT_EQ(*parse_candidate(spec, arch("host"), half->key()), *half);
  EXPECT_EQ(settled(spec, half->key()).problem.attributes.at("accumulate"), "fp16");
  EXPECT_EQ(settled(spec).problem.attributes.at("accumulate"), "fp32");
  EXPECT_THAT(message(parse_candidate(spec, arch("host"), "simt accumulate=bf16")),
              testing::HasSubstr("does not allow"));
  EXPECT_THAT(message(parse_candidate(gemm("fp16"), arch("host"), "simt accumulate=fp16")),
              testing::HasSubstr("unknown tunable"));
}

TEST(Axis, SourceHasTheCandidatesType) {
  const OpSpec spec = gemm("[fp16, fp32]");
  for (const char* type : {"fp16", "fp32"}) {
    const auto candidate = parse_candidate(spec, arch("host"), std::string("simt accumulate=") + type);
    ASSERT_TRUE(candidate) << message(candidate);
    const auto source = emit(spec, arch("host"), *candidate);
    ASSERT_TRUE(source) << message(source);
    EXPECT_THAT(source->text, testing::HasSubstr(std::string(type) == "fp16" ? "using accumulate = kgen::f16;"
                                                                             : "using accumulate = float;"));
  }
}

TEST(Axis, DeclaredOnlyWhereItCanBe) {
  EXPECT_THAT(message(load_op_text(
                  "kgen: 1\nop: x\ndims: {n: {}}\nattributes:\n  dtype: {kind: dtype, values: [fp32], axis: true}\n",
                  "x.yaml", "")),
              testing::HasSubstr("axis of the search"));
}

}  // namespace
}  // namespace kgen
