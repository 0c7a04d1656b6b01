// Operator definitions that must be refused, each made from the fixture by one replacement.
#include <regex>

#include "base/text.h"
#include "fixture.h"
#include "generator/embedded.h"

namespace kgen {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct BadOp {
  const char* from;
  const char* to;
  const char* what;
};

class BadOpDef : public testing::TestWithParam<BadOp> {};

TEST_P(BadOpDef, IsRefusedWithPosition) {
  std::string yaml = read_file(kFixtures + "/scale.yaml").value();
  const std::string from = GetParam().from;
  const auto at = yaml.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  yaml.replace(at, from.size(), GetParam().to);
  const auto op = load_op_text(yaml, "bad.yaml", kFixtures);
  ASSERT_FALSE(op) << GetParam().to;
  EXPECT_EQ(op.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(op.error().message, StartsWith("bad.yaml:"));
  EXPECT_THAT(op.error().message, HasSubstr(GetParam().what));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, BadOpDef,
    testing::Values(BadOp{"kgen: 1", "kgen: 7", "format 7 is not known"}, BadOp{"kgen: 1", "", "lacks the key 'kgen'"},
                    BadOp{"parts == 1", "parts == 1 || rows < 2", "a rule with 'deterministic' reads the dim 'rows'"},
                    BadOp{"deterministic: true", "determinstic: true", "did you mean 'deterministic'"},
                    BadOp{"op: scale", "op: sc-ale", "cannot name a operator"},
                    BadOp{"variants:", "variant:", "did you mean 'variants'"},
                    BadOp{"rows: {doc", "int: {doc", "reserved word"},
                    BadOp{"default: cols", "default: clos", "reads unknown name 'clos'; did you mean 'cols'"},
                    BadOp{"default: cols", "default: cols +", "dim 'ld' default 'cols +'"},
                    BadOp{"rows: {doc: rows}", "dtype: {doc: rows}", "'dtype' is taken"},
                    BadOp{"rows: {doc: rows}", "plain: {doc: rows}", "'plain' is also an enumerator"},
                    BadOp{"kind: enum", "kind: enmu", "did you mean 'enum'"},
                    BadOp{"attributes:\n", "attributes:\n  first: {kind: int}\n", "first attribute must be dtype"},
                    BadOp{"default: plain", "default: plai", "did you mean 'plain'"},
                    BadOp{"values: [fp32, bf16]", "values: [fp32, fb16]", "fb16"},
                    BadOp{"dtype: fp32, shape: [cols]", "dtype: fp23, shape: [cols]", "did you mean 'fp32'"},
                    BadOp{"role: in,", "role: inn,", "role must be in, out or inout"},
                    BadOp{"strides: [ld, 1]", "strides: [1]", "2 axes but 1 strides"},
                    BadOp{"role: out", "role: in", "must write something"},
                    BadOp{"bias: {role", "rows: {role", "stands twice"},
                    BadOp{"distribution: constant", "distribution: const", "unknown distribution 'const'"},
                    BadOp{"flops: rows*cols,", "flops: tile,", "reads unknown name 'tile'"},
                    BadOp{"header: scale_reference.h", "header: missing.h", "template 'missing.h' not found"},
                    BadOp{"terms: {y: 1}", "terms: {}", "terms lack the output 'y'"},
                    BadOp{"output: y", "output: x", "'x' is not an output"},
                    BadOp{"templates: [scale.h, ", "templates: [scael.h, ", "template 'scael.h' not found"},
                    BadOp{"${matrix_unit}", "${matrix}", "not an attribute, arch fact or symbolic tunable"},
                    BadOp{"${matrix_unit}", "${matrix_unit", "without '}'"},
                    BadOp{"values: [8, 16, 32]", "values: [8, 16, 8]", "value '8' twice"},
                    BadOp{"values: [8, 16, 32]", "values: [8, x]", "whole decimal"},
                    BadOp{"values: [8, 16, 32]", "values: []", "at least one value"},
                    BadOp{"tile: {values", "rows: {values", "'rows' is taken"},
                    BadOp{"share: tile / waves", "share: tile / rows", "reads unknown name 'rows'"},
                    BadOp{"share: tile / waves", "share: lds / waves", "reads unknown name 'lds'"},
                    BadOp{", because: waves share the tile", "", "lacks the key 'because'"},
                    BadOp{"block: waves*wave_size", "block: rows", "reads unknown name 'rows'"},
                    BadOp{"{kernel: scale_sum", "{kernel: scale_rows", "stands in two steps"},
                    BadOp{"role: workspace", "role: scratch", "workspace or prepared"},
                    BadOp{"align: {x:", "align: {z:", "'z' is not an argument"},
                    BadOp{"grid: [rows, parts]", "grid: [1, 1, 1, 1]", "one to three axes"},
                    BadOp{"grid: [rows, parts]", "grid: [rows, parts], cluster: [1, parts]", "cluster has three axes"},
                    BadOp{"grid: [rows, parts]", "grid: [1, 1], cluster: [rows, 1, 1]", "unknown name 'rows'"}));

TEST(OpDef, ExtensionMayNotBeExtended) {
  const auto op =
      load_op_text("kgen: 1\nop: x\nextends: ./strip.yaml\ndims: {u: {}}\n", kFixtures + "/x.yaml", kFixtures);
  EXPECT_THAT(message(op), HasSubstr("itself extends 'scale'"));
}

TEST(OpDef, ExtensionMayNotReuseAName) {
  const auto op =
      load_op_text("kgen: 1\nop: x\nextends: ./scale.yaml\ndims: {tile: {}}\n", kFixtures + "/x.yaml", kFixtures);
  EXPECT_THAT(message(op), HasSubstr("'tile' is taken"));
}

TEST(OpDef, BindNamesABaseDimOrAttribute) {
  const auto op = load_op_text("kgen: 1\nop: x\nextends: ./scale.yaml\ndims: {u: {}}\nbind: {rwos: u}\n",
                               kFixtures + "/x.yaml", kFixtures);
  EXPECT_THAT(message(op),
              HasSubstr("x.yaml:5:8: 'rwos' is neither a dim nor an attribute of scale; did you mean 'rows'"));
}

TEST(OpDef, BuiltInOpsLoad) {
  const std::vector<std::string> names = builtin_ops();
  EXPECT_THAT(names, testing::IsSupersetOf({"conv3d_patchify", "gemm"}));
  for (const std::string& name : names) {
    const auto op = load_op(name);
    ASSERT_TRUE(op) << message(op);
    EXPECT_EQ((*op)->name, name);
    EXPECT_EQ((*op)->source_hash.size(), 32U);
  }
}

// No built-in operator has a rule with `deterministic: true` (docs/verification.md, "Determinism").
TEST(Templates, NoneAddsInTheOrderOfArrival) {
  const std::regex atomic(R"(\b(red|atom)\.|atomicAdd|atomic_f?add|__(hip|opencl)?_?atomic_|atomicrmw)");
  int looked_at = 0;
  for (const EmbeddedFile& file : source_files()) {
    if (!file.path.starts_with("templates/")) continue;
    ++looked_at;
    EXPECT_FALSE(std::regex_search(std::string(file.content), atomic)) << file.path;
  }
  EXPECT_GT(looked_at, 50);
}

}  // namespace
}  // namespace kgen
