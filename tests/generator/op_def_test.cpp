// Operator definitions that must be refused, each made from the fixture by one replacement.
#include <algorithm>
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

// Tensor maps of the fixture's first variant; `what` is wrong in line `line` of them.
struct BadMaps {
  const char* maps;
  int line;
  const char* what;
};

class BadTensorMaps : public testing::TestWithParam<BadMaps> {};

constexpr std::string_view kFirstSteps = "    steps:\n      - {kernel: scale_tile";

Result<std::shared_ptr<const OpDef>> load_with_maps(const std::string& maps, std::string* text = nullptr) {
  std::string yaml = read_file(kFixtures + "/scale.yaml").value();
  yaml.insert(yaml.find(kFirstSteps), "    tensor_maps:\n" + maps);
  if (text != nullptr) *text = yaml;
  return load_op_text(yaml, "bad.yaml", kFixtures);
}

TEST_P(BadTensorMaps, AreRefusedWithTheirLine) {
  std::string yaml;
  const auto op = load_with_maps(GetParam().maps, &yaml);
  ASSERT_FALSE(op);
  EXPECT_EQ(op.error().kind, ErrorKind::kBadInput);
  const auto before =
      std::count(yaml.begin(), yaml.begin() + static_cast<std::ptrdiff_t>(yaml.find("tensor_maps:")), '\n');
  EXPECT_THAT(op.error().message, StartsWith("bad.yaml:" + std::to_string(before + 1 + GetParam().line) + ":"));
  EXPECT_THAT(op.error().message, HasSubstr(GetParam().what));
}

#define GOOD "{of: x, shape: [rows, cols], strides: [ld, 1], box: [tile, 64]}\n"
INSTANTIATE_TEST_SUITE_P(
    Rows, BadTensorMaps,
    testing::Values(
        BadMaps{"      map_x: {of: z, shape: [rows, cols], strides: [ld, 1], box: [8, 64]}\n", 1,
                "'z' is not an argument"},
        BadMaps{"      map_x: {of: partial, shape: [rows, cols], strides: [ld, 1], box: [8, 64]}\n", 1,
                "'partial' is not an argument"},
        BadMaps{"      map_x: {shape: [rows, cols], strides: [ld, 1], box: [8, 64]}\n", 1, "lacks the key 'of'"},
        BadMaps{"      map_x: {of: x, shape: [rows, cols], strides: [ld, 1]}\n", 1, "lacks the key 'box'"},
        BadMaps{"      map_x: {of: x, shape: [rows, cols], stride: [ld, 1], box: [8, 64]}\n", 1,
                "did you mean 'strides'"},
        BadMaps{"      a: " GOOD "      b: {of: x, shape: [rows, cols], strides: [ld, 1], box: [tiel, 64]}\n", 2,
                "tensor map 'b' box 'tiel' reads unknown name 'tiel'; did you mean 'tile'"},
        BadMaps{"      map_x: {of: x, shape: [rows, cols], strides: [ld, 1], box: [8 +, 64]}\n", 1,
                "tensor map 'map_x' box '8 +'"},
        BadMaps{"      map_x: {of: x, when: clos > 1, shape: [rows, cols], strides: [ld, 1], box: [8, 64]}\n", 1,
                "unknown name 'clos'"},
        BadMaps{"      map_x: {of: x, shape: [rows, cols], strides: [ld, 1], box: [8]}\n", 1, "needs 1 to 5 axes"},
        BadMaps{
            "      map_x: {of: x, shape: [1, 1, 1, 1, rows, cols], strides: [1, 1, 1, 1, ld, 1], box: [1, 1, 1, 1, 8, "
            "64]}\n",
            1, "needs 1 to 5 axes"},
        BadMaps{
            "      map_x: {of: x, shape: [1, 1, rows, cols], strides: [ld, ld, ld, 1], box: [8, 64], lower: [0, 0], "
            "upper: [0, 0]}\n",
            1, "lower, upper, steps of h, w"},
        BadMaps{
            "      map_x: {of: x, shape: [1, rows, cols], strides: [ld, ld, 1], box: [8, 64], lower: [0, 0], upper: "
            "[0, 0], steps: [1, 1]}\n",
            1, "of pixels: shape and strides of n, h, w, c"},
        BadMaps{"      rows: " GOOD, 1, "'rows' stands twice"},
        BadMaps{"      ma-p: " GOOD, 1, "cannot name a tensor map"},
        BadMaps{"      a: " GOOD "      b: " GOOD "      c: " GOOD "      d: " GOOD "      e: " GOOD, 5,
                "variant 'wide' has more than 4 tensor maps"}));

TEST(OpDef, AVariantHasUpToFourTensorMaps) {
  const auto op = load_with_maps("      a: " GOOD "      b: " GOOD "      c: " GOOD "      d: " GOOD);
  ASSERT_TRUE(op) << message(op);
  ASSERT_EQ((*op)->variants[0].tensor_maps.size(), 4u);
  EXPECT_EQ((*op)->variants[0].tensor_maps[3].param.of, "x");
}
#undef GOOD

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
