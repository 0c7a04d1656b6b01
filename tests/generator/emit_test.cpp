#include "generator/emit.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/text.h"
#include "fixture.h"

namespace kgen {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

OpSpec scale(const char* rows = "64", const char* cols = "8") {
  return fixture("scale", {{"rows", rows},
                           {"cols", cols},
                           {"dtype", "bf16"},
                           {"out_dtype", "fp32"},
                           {"epilogue", "bias"},
                           {"order", "mirrored"}});
}

KernelSource source(const OpSpec& spec, const char* arch_name, const char* config) {
  const auto candidate = parse_candidate(spec, arch(arch_name), config);
  EXPECT_TRUE(candidate) << message(candidate);
  const auto emitted = emit(spec, arch(arch_name), *candidate);
  EXPECT_TRUE(emitted) << message(emitted);
  return *emitted;
}

std::vector<std::string> headings(const std::string& text) {
  std::vector<std::string> list;
  for (const std::string& line : split(text, '\n')) {
    if (line.starts_with("// ---- ")) list.push_back(line.substr(8));
  }
  return list;
}

// The text without the built-in headers, which have their own tests.
std::string without_builtin(const std::string& text) {
  std::string kept;
  bool inside = false;
  for (const std::string& line : split(text, '\n')) {
    if (line.starts_with("// ---- ")) inside = line.starts_with("// ---- templates/");
    if (!inside) kept += line + "\n";
  }
  return kept;
}

// Set KGEN_UPDATE_GOLDEN to write the files anew, then read the difference.
void expect_golden(const std::string& name, const std::string& text) {
  const std::string path = std::string(KGEN_SOURCE_DIR) + "/tests/golden/" + name;
  if (std::getenv("KGEN_UPDATE_GOLDEN")) {
    ASSERT_TRUE(write_file(path, text));
  }
  const auto stored = read_file(path);
  ASSERT_TRUE(stored) << message(stored) << "; run with KGEN_UPDATE_GOLDEN=1";
  EXPECT_EQ(*stored, text);
}

TEST(Emit, TextOfACandidateIsAsStored) {
  expect_golden("scale_wide_sm_80.hip", without_builtin(source(scale(), "sm_80", "wide tile=32 waves=2").text));
  expect_golden("scale_plain_host.hip", without_builtin(source(scale(), "host", "plain parts=2").text));
  const auto reference = emit_reference(scale(), arch("host"));
  ASSERT_TRUE(reference) << message(reference);
  expect_golden("scale_reference_host.hip", without_builtin(reference->text));
  const auto checks = emit_checks(scale(), arch("host"));
  ASSERT_TRUE(checks) << message(checks);
  expect_golden("scale_checks_host.hip", without_builtin(checks->text));
  const OpSpec strip = fixture("strip", {{"height", "2"}, {"count", "3"}, {"cols", "8"}, {"dtype", "fp32"}});
  expect_golden("strip_plain_gfx90a.hip", without_builtin(source(strip, "gfx90a", "plain").text));
}

TEST(Emit, PlanIsAsStored) {
  expect_golden("scale_wide_sm_80.json", plan_to_json(source(scale(), "sm_80", "wide tile=32 waves=2").plan) + "\n");
  const OpSpec strip = fixture("strip", {{"height", "2"}, {"count", "3"}, {"cols", "8"}, {"dtype", "fp32"}});
  expect_golden("strip_plain_gfx90a.json", plan_to_json(source(strip, "gfx90a", "plain parts=2").plan) + "\n");
}

TEST(Emit, SameInputGivesSameBytes) {
  const KernelSource first = source(scale(), "sm_80", "wide"), second = source(scale(), "sm_80", "wide");
  EXPECT_EQ(first.text, second.text);
  EXPECT_EQ(first.hash, second.hash);
  EXPECT_EQ(plan_to_json(first.plan), plan_to_json(second.plan));
}

TEST(Emit, TextAndPlanAreEqualForAllShapesOfASignature) {
  const KernelSource small = source(scale("64", "8"), "sm_80", "plain parts=4");
  const KernelSource large = source(scale("4099", "1024"), "sm_80", "plain parts=4");
  EXPECT_EQ(small.text, large.text);
  EXPECT_EQ(plan_to_json(small.plan), plan_to_json(large.plan));
}

TEST(Emit, EveryHeaderStandsOnceAfterWhatItNeeds) {
  const std::vector<std::string> list = headings(source(scale(), "sm_80", "wide").text);
  const std::vector<std::string> own(std::find(list.begin(), list.end(), "inner/types.h"), list.end());
  EXPECT_THAT(own, ElementsAre("inner/types.h", "inner/common.h", "scale.h", "mma_sync_part.h", "this kernel"));
  EXPECT_EQ(list[0], "templates/prelude.h");
}

TEST(Emit, NothingLocalIsLeftToInclude) {
  for (const char* name : {"sm_80", "host", "gfx1100"}) {
    const std::string text = source(scale(), name, "plain").text;
    EXPECT_EQ(text.find("#include \""), std::string::npos);
    EXPECT_EQ(text.find("#pragma once"), std::string::npos);
    EXPECT_EQ(text.find(kFixtures), std::string::npos) << "the text must not depend on where the op lies";
  }
}

TEST(Emit, OnlyTheHostGetsHostEntries) {
  EXPECT_THAT(source(scale(), "host", "plain").text, HasSubstr("\nKGEN_HOST_ENTRY(scale_rows) {"));
  EXPECT_THAT(source(scale(), "sm_80", "plain").text, Not(HasSubstr("\nKGEN_HOST_ENTRY(scale_rows) {")));
}

TEST(Emit, AStepThatNoShapeNeedsIsLeftOut) {
  const KernelSource one = source(scale(), "host", "plain parts=1"), two = source(scale(), "host", "plain parts=2");
  EXPECT_EQ(one.plan.steps.size(), 1U);
  EXPECT_THAT(one.text, Not(HasSubstr("KGEN_KERNEL(64, 1) scale_sum")));
  ASSERT_EQ(two.plan.steps.size(), 2U);
  EXPECT_EQ(two.plan.steps[1].kernel, "scale_sum");
  EXPECT_THAT(two.text, HasSubstr("KGEN_KERNEL(64, 1) scale_sum"));
}

TEST(Emit, RulesOverDimsAreConditionsOfThePlan) {
  const Plan plan = source(scale("64", "8"), "sm_80", "plain parts=4").plan;
  EXPECT_TRUE(bind(plan, {{"rows", 3}, {"cols", 12}}));
  const auto bad = bind(plan, {{"rows", 3}, {"cols", 10}});
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().kind, ErrorKind::kCheckFailed);
  EXPECT_FALSE(bind(plan, {{"rows", 3}, {"cols", 12}, {"ld", 11}})) << "the op's own rules hold for every shape";

  const Plan wide = source(scale(), "sm_80", "wide tile=16").plan;
  EXPECT_FALSE(bind(wide, {{"rows", 15}, {"cols", 64}})) << "tile <= rows";
  EXPECT_TRUE(bind(wide, {{"rows", 16}, {"cols", 1}})) << "tile <= 2*cols only steers the search";
}

TEST(Emit, PlanBindsGridWorkspaceAndAlignment) {
  const Plan plan = source(scale("64", "8"), "sm_80", "plain threads=32 parts=4").plan;
  const auto bound = bind(plan, {{"rows", 100}, {"cols", 16}});
  ASSERT_TRUE(bound) << message(bound);
  ASSERT_EQ(bound->steps.size(), 2U);
  EXPECT_EQ(bound->steps[0].grid, (std::array<std::uint32_t, 3>{100, 4, 1}));
  EXPECT_EQ(bound->steps[0].block, 32U);
  EXPECT_EQ(bound->steps[0].lds_bytes, 128U);
  EXPECT_EQ(bound->steps[1].grid, (std::array<std::uint32_t, 3>{4, 1, 1}));
  EXPECT_EQ(bound->workspace_bytes, 1792);  // 4*100 floats, rounded up to 256
  EXPECT_EQ(plan.params[0].align, 4);
  EXPECT_EQ(plan.params[1].align, 16);
  EXPECT_EQ(bound->flops, 1600);
}

TEST(Emit, ExtendedOpRenamesForPeopleAndKeepsTheTemplatesNames) {
  const OpSpec strip = fixture("strip", {{"height", "2"}, {"count", "3"}, {"cols", "8"}, {"dtype", "fp32"}});
  const KernelSource emitted = source(strip, "gfx90a", "plain");
  EXPECT_THAT(emitted.text, HasSubstr("const float* __restrict__ image"));
  EXPECT_THAT(emitted.text, HasSubstr("  const float* __restrict__ x;\n"));
  EXPECT_EQ(emitted.text.find("kgen::i64 height"), std::string::npos);
  const auto bound = bind(emitted.plan, {{"height", 2}, {"count", 3}, {"cols", 8}});
  ASSERT_TRUE(bound) << message(bound);
  EXPECT_THAT(bound->params[0].shape, ElementsAre(3, 2, 8));
  EXPECT_THAT(bound->params[0].strides, ElementsAre(16, 8, 1));
  EXPECT_EQ(bound->steps[0].grid[0], 6U);
  const auto reference = emit_reference(strip, arch("host"));
  ASSERT_TRUE(reference) << message(reference);
  EXPECT_THAT(reference->text, HasSubstr("reference_out("));
  EXPECT_THAT(reference->text, HasSubstr("kgen::reference_y<kgen::Config>"));
}

TEST(Emit, ClusterIsCompiledInAndTheGridIsWholeClusters) {
  std::string yaml = *read_file(kFixtures + "/scale.yaml");
  const std::string step = "{kernel: scale_rows, grid: [rows, parts], ";
  ASSERT_NE(yaml.find(step), std::string::npos);
  yaml.replace(yaml.find(step), step.size(),
               "{kernel: scale_rows, grid: [rows, parts], cluster: [parts*parts, parts, 1], ");
  OpSpec spec = scale("64", "8");
  const auto op = load_op_text(yaml, kFixtures + "/scale.yaml", kFixtures);
  ASSERT_TRUE(op) << message(op);
  spec.op = *op;
  const KernelSource pairs = source(spec, "sm_90", "plain parts=2"), ones = source(spec, "sm_90", "plain parts=1");
  EXPECT_THAT(pairs.text, HasSubstr("KGEN_KERNEL(64, 2) KGEN_CLUSTER(4, 2, 1) scale_rows("));
  EXPECT_THAT(ones.text, HasSubstr("KGEN_KERNEL(64, 2) scale_rows("));
  EXPECT_TRUE(bind(pairs.plan, {{"rows", 64}, {"cols", 8}}));
  const auto odd = bind(pairs.plan, {{"rows", 63}, {"cols", 8}});
  ASSERT_FALSE(odd);
  EXPECT_EQ(odd.error().kind, ErrorKind::kCheckFailed);
  EXPECT_FALSE(parse_candidate(spec, arch("sm_90"), "plain parts=4")) << "64 blocks are more than max_cluster";
  EXPECT_FALSE(parse_candidate(spec, arch("sm_80"), "plain parts=2")) << "no clusters there";
}

TEST(Emit, ReferenceAndChecksHaveTheirKernelsAndNoOthers) {
  const auto reference = emit_reference(scale(), arch("sm_90")), checks = emit_checks(scale(), arch("sm_90"));
  ASSERT_TRUE(reference) << message(reference);
  ASSERT_TRUE(checks) << message(checks);
  const auto has = [](const KernelSource& source, const char* name) {
    return source.text.find(std::string("KGEN_KERNEL(256, 1) ") + name + "(") != std::string::npos;
  };
  for (const char* name : {"reference_y", "project_vector_y", "project_y"}) {
    EXPECT_TRUE(has(*reference, name)) << name;
    EXPECT_FALSE(has(*checks, name)) << name;
  }
  for (const char* name : {"fill_bf16", "fill_fp32", "check_bf16", "check_fp32", "check_projection_fp32",
                           "check_gaps_fp32", "check_pattern", "read_all"}) {
    EXPECT_FALSE(has(*reference, name)) << name;
    EXPECT_TRUE(has(*checks, name)) << name;
  }
  EXPECT_FALSE(has(*checks, "fill_fp16"));
  for (const Param& param : reference->plan.params) EXPECT_NE(param.role, Role::kWorkspace);
}

TEST(Emit, ChecksAreTheSameTextForAllOpsOfTheirDtypes) {
  const OpSpec strip = fixture("strip", {{"height", "2"}, {"count", "3"}, {"cols", "8"}, {"dtype", "fp32"}});
  const OpSpec taller = fixture("strip", {{"height", "4"}, {"count", "5"}, {"cols", "8"}, {"dtype", "fp32"}});
  const auto first = emit_checks(strip, arch("host")), second = emit_checks(taller, arch("host"));
  const auto mixed = emit_checks(scale(), arch("host"));
  ASSERT_TRUE(first && second && mixed);
  EXPECT_EQ(first->hash, second->hash);
  EXPECT_EQ(first->text.find("strip"), std::string::npos);
  EXPECT_NE(first->hash, mixed->hash);
}

TEST(Emit, CodeThatDisplacesHasAPartForEachWave) {
  const auto displace = emit_displace(arch("gfx90a"));
  ASSERT_TRUE(displace) << message(displace);
  EXPECT_THAT(displace->text, HasSubstr("KGEN_KERNEL(1024, 1) displace_code(\n    kgen::u64* sink)"));
  EXPECT_THAT(headings(displace->text), Contains("templates/displace.h"));
}

TEST(Emit, ScalarsOfTheSpecBecomeThePlansDefaults) {
  OpSpec spec = scale();
  spec.problem.scalars["factor"] = 7;
  const KernelSource given = source(spec, "host", "plain"), plain = source(scale(), "host", "plain");
  EXPECT_EQ(given.text, plain.text);
  const auto factor = [](const Plan& plan) {
    for (const Param& param : plan.params) {
      if (param.name == "factor") return param.default_value;
    }
    return -1.0;
  };
  EXPECT_EQ(factor(given.plan), 7);
  EXPECT_EQ(factor(plain.plan), 2.5);
}

TEST(Emit, SourceHashOfAnOpFollowsItsTemplates) {
  const auto op = load_op(kFixtures + "/scale.yaml");
  const auto yaml = read_file(kFixtures + "/scale.yaml");
  const auto same = load_op_text(*yaml, "elsewhere.yaml", kFixtures);
  EXPECT_EQ((*op)->source_hash, (*same)->source_hash);
  const auto other = load_op_text(*yaml + "\n# a remark\n", "elsewhere.yaml", kFixtures);
  EXPECT_NE((*op)->source_hash, (*other)->source_hash);
}

TEST(Emit, UsersOpFromAnyFolderNeedsNoCode) {
  const auto specs = parse_spec(std::string(KGEN_SOURCE_DIR) + "/examples/my_op/ops.yaml");
  ASSERT_TRUE(specs) << message(specs);
  ASSERT_EQ(specs->size(), 2U);
  for (const ArchInfo& info : all_archs()) {
    const auto candidate = default_candidate(specs->at(0), &info);
    ASSERT_TRUE(candidate) << message(candidate);
    const auto emitted = emit(specs->at(0), &info, *candidate);
    ASSERT_TRUE(emitted) << message(emitted);
    EXPECT_THAT(headings(emitted->text), Contains("softcap.h"));
  }
}

TEST(Emit, EveryBuiltInOpEmitsForEveryArchitecture) {
  for (const std::string& name : builtin_ops()) {
    const auto specs = parse_spec(fmt::format("{}/tests/operators/problems/{}.yaml", KGEN_SOURCE_DIR, name));
    ASSERT_TRUE(specs) << message(specs);
    ASSERT_FALSE(specs->empty()) << name;
    const OpSpec& spec = specs->front();
    for (const ArchInfo& info : all_archs()) {
      const auto candidate = default_candidate(spec, &info);
      ASSERT_TRUE(candidate) << name << " " << info.name << ": " << message(candidate);
      const auto emitted = emit(spec, &info, *candidate);
      ASSERT_TRUE(emitted) << message(emitted);
      EXPECT_TRUE(plan_from_json(plan_to_json(emitted->plan)));
      EXPECT_TRUE(emit_reference(spec, &info));
    }
  }
}

}  // namespace
}  // namespace kgen
