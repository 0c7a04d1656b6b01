#include "base/plan.h"

#include <gmock/gmock.h>

namespace kgen {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Expr expr(std::string_view text) {
  auto parsed = Expr::parse(text);
  if (!parsed) throw std::runtime_error(parsed.error().message);
  return std::move(*parsed);
}

// C = A·B with split-K, as the generator would write it.
Plan gemm_plan() {
  Plan plan;
  plan.constants = {{"tile", 64}, {"split_k", 2}, {"max_block", 1024}, {"lds_limit", 65536}};
  plan.dims = {"m", "n", "k", "lda"};
  plan.dim_defaults = {Expr(), Expr(), Expr(), expr("k")};
  plan.params.push_back({"a", Role::kIn, DType::kBf16, {expr("m"), expr("k")}, {expr("lda"), expr("1")}, expr("1")});
  plan.params.push_back({"bias", Role::kIn, DType::kFp32, {expr("n / 0")}, {expr("1")}, expr("0")});
  plan.params.push_back({"c", Role::kOut, DType::kFp32, {expr("m"), expr("n")}, {expr("n"), expr("1")}, expr("1")});
  plan.params.push_back(
      {"partial", Role::kWorkspace, DType::kFp32, {expr("split_k * m * n")}, {}, expr("split_k > 1")});
  plan.params.push_back({"counts", Role::kWorkspace, DType::kInt32, {expr("3")}, {}, expr("1")});
  plan.params.push_back({"packed", Role::kPrepared, DType::kBf16, {expr("n * k")}, {}, expr("1")});
  plan.params.push_back({"alpha", Role::kScalar, DType::kFp32, {}, {}, Expr(), 1.5});
  for (const char* dim : {"m", "n", "k", "lda"})
    plan.params.push_back({dim, Role::kDim, DType::kInt64, {}, {}, Expr()});
  plan.steps.push_back({"pack", true, expr("1"), {expr("n"), expr("1"), expr("1")}, expr("256"), expr("0")});
  plan.steps.push_back({"tile",
                        false,
                        expr("1"),
                        {expr("ceil_div(m, tile) * ceil_div(n, tile)"), expr("split_k"), expr("1")},
                        expr("256"),
                        expr("tile * 16")});
  plan.steps.push_back({"reduce",
                        false,
                        expr("split_k > 1"),
                        {expr("ceil_div(m * n, 256)"), expr("1"), expr("1")},
                        expr("256"),
                        Expr()});
  plan.steps.push_back({"never", false, expr("split_k > 2"), {expr("1"), expr("1"), expr("1")}, expr("256"), Expr()});
  plan.needs = {expr("lda % 8 == 0"), expr("k > 0")};
  plan.flops = expr("2 * m * n * k");
  plan.bytes = expr("2 * (m * k + n * k) + 4 * m * n");
  return plan;
}

std::vector<std::string> kernels(const BoundPlan& bound) {
  std::vector<std::string> names;
  for (const BoundStep& step : bound.steps) names.push_back(step.kernel);
  return names;
}

TEST(Plan, BindEvaluatesEverySizeOfAShape) {
  const auto bound = bind(gemm_plan(), {{"m", 100}, {"n", 70}, {"k", 40}});
  ASSERT_TRUE(bound) << bound.error().message;
  EXPECT_THAT(bound->params[0].shape, ElementsAre(100, 40));
  EXPECT_THAT(bound->params[0].strides, ElementsAre(40, 1));
  EXPECT_EQ(bound->params[0].bytes, 100 * 40 * 2);
  EXPECT_FALSE(bound->params[1].present);  // and its shape, which divides by zero, was not looked at
  EXPECT_EQ(bound->params[3].bytes, 2 * 100 * 70 * 4);
  EXPECT_EQ(bound->workspace_bytes, (2 * 100 * 70 * 4 + 255) / 256 * 256 + 256);
  EXPECT_EQ(bound->prepared_bytes, (70 * 40 * 2 + 255) / 256 * 256);
  EXPECT_EQ(bound->params[6].default_value, 1.5);
  EXPECT_EQ(bound->params[10].value, 40);  // lda took its default
  EXPECT_THAT(kernels(*bound), ElementsAre("pack", "tile", "reduce"));
  EXPECT_TRUE(bound->steps[0].prepare);
  EXPECT_EQ(bound->steps[1].grid[0], 4u);
  EXPECT_EQ(bound->steps[1].grid[1], 2u);
  EXPECT_EQ(bound->steps[1].block, 256u);
  EXPECT_EQ(bound->steps[1].lds_bytes, 1024u);
  EXPECT_EQ(bound->flops, 2.0 * 100 * 70 * 40);
}

TEST(Plan, ExtentOfAStridedTensorEndsAtItsLastElement) {
  const auto bound = bind(gemm_plan(), {{"m", 3}, {"n", 70}, {"k", 40}, {"lda", 48}});
  ASSERT_TRUE(bound) << bound.error().message;
  EXPECT_EQ(bound->params[0].bytes, (2 * 48 + 39 + 1) * 2);
}

TEST(Plan, AShapeThatIsEmptyHasNothingToLaunch) {
  const auto bound = bind(gemm_plan(), {{"m", 0}, {"n", 70}, {"k", 40}});
  ASSERT_TRUE(bound) << bound.error().message;
  EXPECT_EQ(bound->params[0].bytes, 0);
  EXPECT_THAT(kernels(*bound), ElementsAre("pack"));
}

TEST(Plan, BindTellsBadInputFromAnIllegalShape) {
  const Plan plan = gemm_plan();
  EXPECT_EQ(bind(plan, {{"m", 1}, {"n", 1}}).error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(bind(plan, {{"m", 1}, {"n", 1}}).error().message, HasSubstr("'k' is missing"));
  EXPECT_THAT(bind(plan, {{"m", 1}, {"n", 1}, {"k", 8}, {"ldaa", 8}}).error().message,
              HasSubstr("did you mean 'lda'?"));
  EXPECT_THAT(bind(plan, {{"m", -1}, {"n", 1}, {"k", 8}}).error().message, HasSubstr("negative"));
  const auto illegal = bind(plan, {{"m", 1}, {"n", 1}, {"k", 9}});
  ASSERT_FALSE(illegal);
  EXPECT_EQ(illegal.error().kind, ErrorKind::kCheckFailed);
  EXPECT_THAT(illegal.error().message, HasSubstr("lda % 8 == 0"));
}

TEST(Plan, SizesThatOverflowAreBadInputAndGridsBeyondTheLimitIllegal) {
  const Plan plan = gemm_plan();
  const auto huge = bind(plan, {{"m", std::int64_t{1} << 40}, {"n", std::int64_t{1} << 40}, {"k", 8}});
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().kind, ErrorKind::kBadInput);
  Plan tall = plan;
  tall.steps[1].grid[1] = expr("m");
  const auto illegal = bind(tall, {{"m", 65536}, {"n", 1}, {"k", 8}});
  ASSERT_FALSE(illegal);
  EXPECT_EQ(illegal.error().kind, ErrorKind::kCheckFailed);
  EXPECT_THAT(illegal.error().message, HasSubstr("65536 blocks along y"));
  Plan wide = plan;
  wide.steps[1].block = expr("2048");
  EXPECT_THAT(bind(wide, {{"m", 1}, {"n", 1}, {"k", 8}}).error().message, HasSubstr("2048 work-items"));
  Plan hungry = plan;
  hungry.steps[1].lds_bytes = expr("65537");
  EXPECT_THAT(bind(hungry, {{"m", 1}, {"n", 1}, {"k", 8}}).error().message, HasSubstr("65537 bytes of LDS"));
}

// The same with A walked by the copy engine, 64 columns of 128 rows at a time.
Plan mapped_plan() {
  Plan plan = gemm_plan();
  Param map;
  map.name = "map_a";
  map.role = Role::kTensorMap;
  map.dtype = DType::kBf16;
  map.shape = {expr("1"), expr("m"), expr("k")};
  map.strides = {expr("m * lda"), expr("lda"), expr("1")};
  map.box = {expr("1"), expr("2 * tile"), expr("64")};
  map.present = expr("m > 1");
  map.of = "a";
  plan.params.push_back(map);
  return plan;
}

TEST(Plan, ATensorMapIsBoundTheFastestAxisFirstAndInBytes) {
  const auto bound = bind(mapped_plan(), {{"m", 100}, {"n", 70}, {"k", 40}, {"lda", 48}});
  ASSERT_TRUE(bound) << bound.error().message;
  EXPECT_EQ(bound->params.back().of, "a");
  ASSERT_EQ(bound->maps.size(), 1u);
  const TensorMapShape& map = bound->maps[0];
  EXPECT_EQ(map.rank, 3);
  EXPECT_FALSE(map.pixels);
  EXPECT_THAT(std::vector(map.shape.begin(), map.shape.begin() + 3), ElementsAre(40, 100, 1));
  EXPECT_THAT(std::vector(map.strides.begin(), map.strides.begin() + 3), ElementsAre(2, 96, 9600));
  EXPECT_THAT(std::vector(map.box.begin(), map.box.begin() + 3), ElementsAre(64, 128, 1));
  EXPECT_THAT(std::vector(map.steps.begin(), map.steps.begin() + 3), ElementsAre(1, 1, 1));
}

TEST(Plan, ATensorMapThatTheKernelDoesNotUseIsEmpty) {
  const auto bound = bind(mapped_plan(), {{"m", 1}, {"n", 70}, {"k", 40}});
  ASSERT_TRUE(bound) << bound.error().message;
  ASSERT_EQ(bound->maps.size(), 1u);
  EXPECT_EQ(bound->maps[0].rank, 0);
}

TEST(Plan, WhatTheDriverRefusesOfATensorMapIsAnIllegalShape) {
  const Env dims = {{"m", 100}, {"n", 70}, {"k", 40}};
  Plan uneven = mapped_plan();
  uneven.params.back().strides[1] = expr("lda + 4");  // 88 bytes
  auto bound = kgen::bind(uneven, dims);
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().kind, ErrorKind::kCheckFailed);
  EXPECT_THAT(bound.error().message, HasSubstr("a stride of 88 bytes"));
  Plan wide = mapped_plan();
  wide.params.back().box[1] = expr("tile * 5");
  bound = kgen::bind(wide, dims);
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().kind, ErrorKind::kCheckFailed);
  EXPECT_THAT(bound.error().message, HasSubstr("'tile * 5' is 320, a tensor map takes 1 to 256"));
  Plan spread = mapped_plan();
  spread.params.back().strides.back() = expr("lda / 4");
  bound = kgen::bind(spread, dims);
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().kind, ErrorKind::kCheckFailed);
  EXPECT_THAT(bound.error().message, HasSubstr("a tensor map takes 1 to 1"));
  Plan uneven_axes = mapped_plan();
  uneven_axes.params.back().box.pop_back();
  bound = kgen::bind(uneven_axes, dims);
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().kind, ErrorKind::kBadInput);
}

TEST(Plan, AMapOfPixelsHasItsCornersWidthFirst) {
  Plan plan = mapped_plan();
  Param& map = plan.params.back();
  map.shape = {expr("2"), expr("m"), expr("n"), expr("k")};
  map.strides = {expr("m * n * k"), expr("n * k"), expr("k"), expr("1")};
  map.box = {expr("128"), expr("64")};
  map.lower = {expr("0 - 3"), expr("0 - 1")};
  map.upper = {expr("5"), expr("2")};
  map.steps = {expr("1"), expr("2")};
  const auto bound = bind(*plan_from_json(plan_to_json(plan)), {{"m", 20}, {"n", 10}, {"k", 64}});
  ASSERT_TRUE(bound) << bound.error().message;
  const TensorMapShape& pixels = bound->maps[0];
  EXPECT_TRUE(pixels.pixels);
  EXPECT_EQ(pixels.rank, 4);
  EXPECT_THAT(pixels.lower, ElementsAre(-1, -3));
  EXPECT_THAT(pixels.upper, ElementsAre(2, 5));
  EXPECT_THAT(std::vector(pixels.steps.begin(), pixels.steps.begin() + 4), ElementsAre(1, 2, 1, 1));
  EXPECT_THAT(std::vector(pixels.box.begin(), pixels.box.begin() + 2), ElementsAre(64, 128));
}

TEST(Plan, JsonRoundTripKeepsEverything) {
  const Plan plan = gemm_plan();
  const std::string json = plan_to_json(plan);
  const auto back = plan_from_json(json);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(plan_to_json(*back), json);
  const Env dims{{"m", 100}, {"n", 70}, {"k", 40}};
  EXPECT_EQ(bind(*back, dims)->workspace_bytes, bind(plan, dims)->workspace_bytes);
  EXPECT_EQ(back->dim_defaults[0].text(), "");
}

TEST(Plan, DamagedJsonIsBadInput) {
  const std::string json = plan_to_json(gemm_plan());
  for (std::size_t cut = 0; cut < json.size(); cut += 7) {
    const auto plan = plan_from_json(std::string_view(json).substr(0, cut));
    ASSERT_FALSE(plan) << cut;
    EXPECT_EQ(plan.error().kind, ErrorKind::kBadInput);
  }
  EXPECT_FALSE(plan_from_json("[]"));
  EXPECT_FALSE(plan_from_json("{\"constants\": {\"a\": \"text\"}}"));
}

// A plan of a later kgen, whose kernels take something that this one cannot give them.
TEST(Plan, ARoleThatIsNotKnownIsBadInputThatNamesIt) {
  std::string json = plan_to_json(mapped_plan());
  const std::string known = "\"tensor_map\"";
  ASSERT_NE(json.find(known), std::string::npos);
  json.replace(json.find(known), known.size(), "\"tensor_mop\"");
  const auto plan = plan_from_json(json);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(plan.error().message, HasSubstr("unknown role 'tensor_mop'"));
}

TEST(Plan, NamesOfDtypesAndRolesAreThoseOfTheFormat) {
  for (const char* name : {"fp64", "fp32", "fp16", "bf16", "int8", "int32", "int64", "fp8_e4m3", "fp8_e5m2"}) {
    ASSERT_TRUE(find_dtype(name));
    EXPECT_EQ(dtype_name(*find_dtype(name)), name);
  }
  EXPECT_EQ(dtype_bytes(DType::kBf16), 2);
  EXPECT_EQ(dtype_bytes(DType::kFp8E5m2), 1);
  EXPECT_EQ(role_name(Role::kInOut), "inout");
  EXPECT_EQ(role_name(Role::kTensorMap), "tensor_map");
  EXPECT_THAT(find_dtype("bf15").error().message, HasSubstr("did you mean 'bf16'?"));
}

}  // namespace
}  // namespace kgen
