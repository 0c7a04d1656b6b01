#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "fixture.h"

namespace kgen {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::vector<std::string> keys(const std::vector<OpSpec>& specs) {
  std::vector<std::string> list;
  for (const OpSpec& spec : specs) list.push_back(dims_key(*spec.op, spec.problem));
  return list;
}

TEST(Spec, ListsExpandToTheCrossProductWithTheFirstListSlowest) {
  const auto specs = parse(R"(
kgen: 1
ops:
  - op: ./scale.yaml
    dtype: [fp32, bf16]
    name: label
    problems:
      - {rows: [1, 2], cols: 8}
      - {rows: 3, cols: [4, 5], ld: 16, name: other}
)");
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_THAT(keys(*specs),
              ElementsAre("cols=8 rows=1", "cols=8 rows=2", "cols=8 rows=1", "cols=8 rows=2", "cols=4 ld=16 rows=3",
                          "cols=5 ld=16 rows=3", "cols=4 ld=16 rows=3", "cols=5 ld=16 rows=3"));
  EXPECT_EQ(specs->at(0).problem.attributes.at("dtype"), "fp32");
  EXPECT_EQ(specs->at(2).problem.attributes.at("dtype"), "bf16");
  EXPECT_EQ(specs->at(0).problem.label, "label");
  EXPECT_EQ(specs->at(4).problem.label, "other");
  EXPECT_THAT(specs->at(0).where, EndsWith("spec.yaml:8:9"));
}

TEST(Spec, ADimMayBeARange) {
  const auto specs = parse(R"(
ops:
  - op: ./scale.yaml
    dtype: bf16
    problems: [{rows: {range: [3, 4096]}, cols: [8, 9]}]
    tune: {max_kernels: 5, regret: 0.1}
)");
  ASSERT_TRUE(specs) << message(specs);
  ASSERT_EQ(specs->size(), 2U);
  const OpSpec& spec = specs->at(1);
  ASSERT_TRUE(spec.dynamic);
  EXPECT_EQ(spec.dynamic->name, "rows");
  EXPECT_EQ(spec.dynamic->first, 3);
  EXPECT_EQ(spec.dynamic->last, 4096);
  EXPECT_EQ(spec.tune.max_kernels, 5);
  EXPECT_EQ(spec.tune.regret, 0.1);
  EXPECT_EQ(dims_key(*spec.op, spec.problem), "cols=9 rows=4096") << "by its last size where one is needed";
  const auto at = at_size(spec, 77);
  ASSERT_TRUE(at) << message(at);
  EXPECT_FALSE(at->dynamic);
  EXPECT_EQ(dims_key(*at->op, at->problem), "cols=9 rows=77");
  EXPECT_EQ(at->problem.dims.at("ld"), 9);
}

TEST(Spec, DimsThatFollowFromARangeFollow) {
  const auto specs = parse("ops: [{op: ./scale.yaml, dtype: bf16, problems: [{rows: 2, cols: {range: [4, 64]}}]}]");
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_EQ(at_size(specs->at(0), 6)->problem.dims.at("ld"), 6);
}

TEST(Spec, ARangeThatIsNoneIsRefusedAtItsPlace) {
  for (const auto& [range, what] : std::vector<std::pair<std::string, std::string>>{
           {"{range: [5, 4]}", "the range of rows is empty: 4 is below 5"},
           {"{range: [0, 4]}", "the range of rows begins at 1 or later"},
           {"{range: [4]}", "its first and its last size, as in [1, 4096]"},
           {"{range: 4}", "the range of rows must be a list"},
           {"{range: [1, many]}", "'many' is not a whole decimal number"},
           {"{ranges: [1, 4]}", "did you mean 'range'"},
           {"{range: [1, 4], step: 2}", "unknown key 'step'"}}) {
    const auto specs = parse("ops: [{op: ./scale.yaml, dtype: bf16, problems: [{rows: " + range + ", cols: 2}]}]");
    ASSERT_FALSE(specs) << range;
    EXPECT_EQ(specs.error().kind, ErrorKind::kBadInput) << range;
    EXPECT_THAT(specs.error().message, testing::AllOf(HasSubstr("spec.yaml:1:"), HasSubstr(what))) << range;
  }
  const auto both =
      parse("ops: [{op: ./scale.yaml, dtype: bf16, problems: [{rows: {range: [1, 2]}, cols: {range: [1, 2]}}]}]");
  ASSERT_FALSE(both);
  EXPECT_THAT(both.error().message, HasSubstr("one dim of a problem may be one"));
  for (const char* tune : {"max_kernels: 0", "regret: 3", "regret: -0.1", "max_kernels: few"})
    EXPECT_FALSE(parse(std::string("ops: [{op: ./scale.yaml, dtype: bf16, rows: 1, cols: 1, tune: {") + tune + "}}]"))
        << tune;
}

TEST(Spec, AttributesTakeDefaultsAndMayNameAnEarlierOne) {
  const auto specs = parse("ops: [{op: ./scale.yaml, dtype: bf16, problems: [{rows: 1, cols: 2}]}]");
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_EQ(signature(*specs->at(0).op, specs->at(0).problem),
            "scale dtype=bf16 epilogue= order=plain out_dtype=bf16 power=1");
  EXPECT_EQ(specs->at(0).problem.dims, (Env{{"cols", 2}, {"ld", 2}, {"rows", 1}}));
}

TEST(Spec, ListAttributesAreOneValueAndListsOfListsExpand) {
  const auto specs = parse(R"(
ops:
  - {op: ./scale.yaml, dtype: bf16, epilogue: [relu, bias], rows: 1, cols: 1}
  - {op: ./scale.yaml, dtype: bf16, epilogue: [[], [bias]], rows: 1, cols: 1}
)");
  ASSERT_TRUE(specs) << message(specs);
  ASSERT_EQ(specs->size(), 3U);
  EXPECT_EQ(specs->at(0).problem.attributes.at("epilogue"), "relu,bias");
  EXPECT_EQ(specs->at(1).problem.attributes.at("epilogue"), "");
  EXPECT_EQ(specs->at(2).problem.attributes.at("epilogue"), "bias");
  const Env env = problem_env(specs->at(0), arch("host"));
  EXPECT_EQ(env.at("epilogue_relu"), 1);
  EXPECT_EQ(env.at("epilogue_bias"), 2);
  EXPECT_EQ(env.at("dtype_bytes"), 2);
  EXPECT_EQ(env.at("dtype"), symbol_value("bf16"));
}

TEST(Spec, DefaultsApplyToOpsThatKnowThem) {
  const auto specs = parse(R"(
defaults: {dtype: bf16, tune: {budget: 7}}
ops:
  - {op: ./scale.yaml, rows: 1, cols: 1}
  - {op: ./scale.yaml, rows: 1, cols: 1, dtype: fp32, tune: {budget: 9, deterministic: true, params: {tile: [32, 64]}}}
)");
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_EQ(specs->at(0).problem.attributes.at("dtype"), "bf16");
  EXPECT_EQ(specs->at(1).problem.attributes.at("dtype"), "fp32");
  EXPECT_EQ(specs->at(0).tune.budget, 7);
  EXPECT_EQ(specs->at(1).tune.budget, 9);
  EXPECT_FALSE(specs->at(0).tune.deterministic);
  EXPECT_TRUE(specs->at(1).tune.deterministic);
  EXPECT_THAT(specs->at(1).tune.params.at("tile"), ElementsAre("32", "64"));
}

TEST(Spec, EntryListsLoadAsTheyAre) {
  const auto specs = parse(R"(
meta: {model: any, nested: [{a: 1}]}
entries:
  - id: one.entry
    op: ./scale.yaml
    dims: {rows: 5, cols: 7, ld: 7}
    dtype: bf16
    epilogue: []
    params: {power: 2, factor: 1.0e-05}
    grid_thw: [1, 2, 3]
    count: 12
    macs: 99
    roles: ["a", b]
    source: "a repository"
)");
  ASSERT_TRUE(specs) << message(specs);
  const Problem& problem = specs->at(0).problem;
  EXPECT_EQ(problem.label, "one.entry");
  EXPECT_EQ(problem.count, 12);
  EXPECT_EQ(problem.attributes.at("power"), "2");
  EXPECT_DOUBLE_EQ(problem.scalars.at("factor"), 1e-5);
  EXPECT_EQ(dims_key(*specs->at(0).op, problem), "cols=7 rows=5");
}

TEST(Spec, ZeroDimsAreLegal) {
  const auto specs = parse("ops: [{op: ./scale.yaml, dtype: fp32, problems: [{rows: 0, cols: 0}]}]");
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_EQ(specs->at(0).problem.dims.at("rows"), 0);
}

TEST(Spec, OpsThatTheFilterLeavesOutNeedNotExist) {
  const std::string yaml = R"(
entries:
  - {op: no_such_op, dims: {x: -1}, whatever: 1}
  - {op: ./scale.yaml, dims: {rows: 1, cols: 1}, dtype: fp32}
)";
  EXPECT_THAT(message(parse(yaml)), HasSubstr("spec.yaml:3:10: unknown op 'no_such_op'"));
  const auto specs = parse(yaml, "sc*");
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_EQ(specs->size(), 1U);
}

TEST(Spec, IncludesAreRelativeToTheFileAndCyclesAreAnError) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "kgen_spec_include";
  std::filesystem::create_directories(folder / "inner");
  const auto write = [&](const char* name, const std::string& text) { std::ofstream(folder / name) << text; };
  const std::string op = kFixtures + "/scale.yaml";
  write("top.yaml", "include: [inner/a.yaml]\nops: []\n");
  write("inner/a.yaml", "entries: [{op: " + op + ", dims: {rows: 2, cols: 3}, dtype: fp32}]\n");
  const auto specs = parse_spec((folder / "top.yaml").string());
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_THAT(keys(*specs), ElementsAre("cols=3 rows=2"));
  write("inner/a.yaml", "include: ../top.yaml\n");
  EXPECT_THAT(message(parse_spec((folder / "top.yaml").string())), HasSubstr("includes itself"));
  write("inner/a.yaml", "include: nothing.yaml\n");
  EXPECT_THAT(message(parse_spec((folder / "top.yaml").string())), HasSubstr("a.yaml:1:10: include: there is no file"));
  std::filesystem::remove_all(folder);
}

// Each row: a spec and what its message must say, with the position.
struct Bad {
  const char* yaml;
  const char* at;  // ":line:column: "
  const char* what;
};

class BadSpec : public testing::TestWithParam<Bad> {};

TEST_P(BadSpec, IsRefusedWithPositionAndAdvice) {
  const auto specs = parse(GetParam().yaml);
  ASSERT_FALSE(specs) << GetParam().yaml;
  EXPECT_EQ(specs.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(specs.error().message, HasSubstr(std::string("spec.yaml") + GetParam().at));
  EXPECT_THAT(specs.error().message, HasSubstr(GetParam().what));
  EXPECT_EQ(specs.error().message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, BadSpec,
    testing::Values(
        Bad{"ops: [{opp: gemm}]", ":1:7: ", "lacks the key 'op'"}, Bad{"opps: []", ":1:1: ", "did you mean 'ops'"},
        Bad{"kgen: 2\nops: []", ":1:7: ", "format 2 is not known"},
        Bad{"ops: [{op: gem, problems: []}]", ":1:12: ", "did you mean 'gemm'"},
        Bad{"ops: [{op: ./scael.yaml}]", ":1:12: ", "no op definition"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, problems: [{rows: 1, cosl: 1}]}]", ":1:60: ", "did you mean 'cols'"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp23, rows: 1, cols: 1}]", ":1:33: ", "did you mean 'fp32'"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, order: plai, rows: 1, cols: 1}]", ":1:46: ", "did you mean 'plain'"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, epilogue: [bais], rows: 1, cols: 1}]",
            ":1:49: ", "did you mean 'bias'"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, epilogue: [bias, bias], rows: 1, cols: 1}]", ":1:49: ", "twice"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, power: 3, rows: 1, cols: 1}]", ":1:46: ", "choose from 1, 2"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: -1, cols: 1}]", ":1:45: ", "must not be negative"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1.5, cols: 1}]", ":1:45: ", "not a whole decimal number"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 99999999999999999999, cols: 1}]", ":1:45: ", "too large"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 9007199254740992, cols: 1}]", ":1:45: ", "too large"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 4503599627370496, cols: 4}]", ":1:7: ", "overflows"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1, cols: 8, ld: 7}]", ":1:7: ", "row stride is at least"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1}]", ":1:7: ", "needs the dim 'cols'"},
        Bad{"ops: [{op: ./scale.yaml, rows: 1, cols: 1}]", ":1:7: ", "needs 'dtype'"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: [], cols: 1}]", ":1:45: ", "no values"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: [[1]], cols: 1}]", ":1:46: ", "single value"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, factor: x, rows: 1, cols: 1}]", ":1:47: ", "not a number"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1, cols: 1, tune: {budgte: 1}}]",
            ":1:64: ", "did you mean 'budget'"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1, cols: 1, tune: {budget: 0}}]", ":1:72: ", "at least 1"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1, cols: 1, tune: {params: {tlie: 1}}}]",
            ":1:73: ", "did you mean 'tile'"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1, cols: 1, tune: {params: {tile: x}}}]",
            ":1:79: ", "whole decimal"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, rows: 1, cols: 1, tune: {params: {mode: stagde}}}]",
            ":1:79: ", "did you mean 'staged'"},
        Bad{"defaults: {dtyep: fp32}\nops: [{op: ./scale.yaml, dtype: fp32, rows: 1, cols: 1}]",
            ":1:12: ", "did you mean 'dtype'"},
        Bad{"ops: [{op: ./scale.yaml, op: gemm}]", ":1:26: ", "stands twice"},
        Bad{"ops: {op: gemm}", ":1:6: ", "must be a list"}, Bad{"ops: [3]", ":1:7: ", "must be a mapping"},
        Bad{"ops: [{op: ./scale.yaml, dtype: fp32, problems: [3]}]", ":1:50: ", "must be a mapping"},
        Bad{"entries: [{op: ./scale.yaml, dims: {rows: 1, cols: 1}, dtype: fp32, cuont: 1}]",
            ":1:69: ", "did you mean 'count'"},
        Bad{"entries: [{op: ./scale.yaml, dims: {rows: 1, cols: 1}, dtype: fp32, count: -1}]", ":1:76: ", "count"},
        Bad{"ops: [{op: ./strip.yaml, dtype: fp32, height: 2, count: 3, cols: 4, rows: 5}]",
            ":1:7: ", "rows of strip is height*count"},
        Bad{"ops: [{op: ./strip.yaml, dtype: fp32, height: 2, count: 3, cols: 4, order: plain}]",
            ":1:76: ", "always 'mirrored'"},
        Bad{"ops: [\n", ":2:1: ", ""}, Bad{"ops: [*nowhere]", ":1:7: ", ""}, Bad{"", ":1:1: ", "empty"},
        Bad{"include: /nowhere/at/all.yaml", ":1:10: ", "there is no file"},
        Bad{"ops: &all [{op: gemm, problems: *all}]", ":1:33: ", "alias"}));

TEST(Spec, CrossProductBeyondAllReasonIsRefusedBeforeItIsBuilt) {
  std::string list = "[1";
  for (int i = 2; i <= 1000; ++i) list += ", " + std::to_string(i);
  list += "]";
  const auto specs = parse("ops: [{op: ./scale.yaml, dtype: fp32, rows: " + list + ", cols: " + list + "}]");
  EXPECT_THAT(message(specs), HasSubstr("more than 100000 problems"));
}

TEST(Spec, HostileYamlIsAnErrorAndNoCrash) {
  EXPECT_THAT(message(parse("ops: " + std::string(200000, '['))), HasSubstr("spec.yaml:1:"));
  EXPECT_THAT(message(parse("ops: " + std::string(100, '[') + std::string(100, ']'))), HasSubstr("nested deeper"));
  EXPECT_THAT(message(parse(std::string("\0\1\2", 3))), StartsWith(kFixtures));
  EXPECT_THAT(message(parse(std::string(17 << 20, '#'))), HasSubstr("larger than 16 MiB"));
  // Ten anchors, each a list of ten of the one before: 10^10 values if aliases were copied.
  std::string bomb = "meta:\n  - &a0 [1, 2, 3]\n";
  for (int i = 1; i <= 10; ++i) {
    bomb += "  - &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += (j ? ", *a" : "*a") + std::to_string(i - 1);
    bomb += "]\n";
  }
  const auto specs = parse(bomb + "ops: [{op: ./scale.yaml, dtype: fp32, rows: *a10, cols: 1}]\n");
  EXPECT_THAT(message(specs), HasSubstr("single value"));
}

TEST(Spec, AliasesThatNestWithoutEndAreRefused) {
  std::string chain = "meta:\n  - &a0 [1]\n";
  for (int i = 1; i <= 100000; ++i) chain += fmt::format("  - &a{} [*a{}]\n", i, i - 1);
  EXPECT_THAT(message(parse(chain + "ops: []\n")), HasSubstr("aliases nest deeper than 64 levels"));
}

TEST(Spec, WordsOfTheCommandLineMakeTheSameProblem) {
  const auto op = load_op(kFixtures + "/scale.yaml");
  const auto problem =
      make_problem(**op, {{"rows", "3"}, {"cols", "4"}, {"dtype", "bf16"}, {"epilogue", "bias,relu"}, {"factor", "2"}});
  ASSERT_TRUE(problem) << message(problem);
  EXPECT_EQ(dims_key(**op, *problem), "cols=4 rows=3");
  EXPECT_EQ(problem->attributes.at("epilogue"), "bias,relu");
  EXPECT_THAT(message(make_problem(**op, {{"row", "3"}})), HasSubstr("did you mean 'rows'"));
  EXPECT_THAT(message(make_problem(**op, {{"rows", "3"}, {"rows", "3"}})), HasSubstr("twice"));
  EXPECT_THAT(message(make_problem(**op, {{"dtype", "fp32"}, {"rows", "x"}})), HasSubstr("dim rows: 'x'"));
}

TEST(Spec, PatchifyIsGemmOnItsOwnNames) {
  const auto specs = parse_spec_text(
      "entries: [{op: conv3d_patchify, dims: {l: 10, c: 3, t: 2, ph: 14, pw: 14, e: 8, k: 1176}, dtype: bf16}]",
      "x.yaml");
  ASSERT_TRUE(specs) << message(specs);
  EXPECT_EQ(specs->at(0).problem.dims.at("m"), 10);
  EXPECT_EQ(specs->at(0).problem.dims.at("k"), 1176);
  const auto wrong = parse_spec_text(
      "entries: [{op: conv3d_patchify, dims: {l: 10, c: 3, t: 2, ph: 14, pw: 14, e: 8, k: 1175}, dtype: bf16}]",
      "x.yaml");
  EXPECT_THAT(message(wrong), HasSubstr("x.yaml:1:11: k of conv3d_patchify is c*t*ph*pw"));
}

// The model shape lists are not part of the repository; KGEN_SHAPES is the folder that holds them.
TEST(Spec, EveryEntryOfTheShapeListsLoadsAndHasADefault) {
  const char* folder = std::getenv("KGEN_SHAPES");
  if (!folder) GTEST_SKIP() << "KGEN_SHAPES is not set; the model shape lists were NOT checked";
  std::size_t lists = 0, entries = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() != ".yaml") continue;
    ++lists;
    const auto specs = parse_spec(file.path().string());
    ASSERT_TRUE(specs) << message(specs);
    for (const OpSpec& spec : *specs) {
      // Each entry for one architecture, in turn.
      const ArchInfo& info = all_archs()[entries++ % all_archs().size()];
      const auto candidate = default_candidate(spec, &info);
      EXPECT_TRUE(candidate) << spec.where << " " << info.name << ": " << message(candidate);
    }
  }
  EXPECT_GE(lists, 3U);
  EXPECT_GE(entries, 500U);
}

}  // namespace
}  // namespace kgen
