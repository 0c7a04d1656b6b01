#include "generator/expression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "generator/emit.h"
#include "generator/space.h"
#include "generator/spec.h"

namespace kgen {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Expression parsed(const std::string& text) {
  auto expression = Expression::parse(text, {"bias"});
  EXPECT_TRUE(expression.has_value()) << text << ": " << expression.error().message;
  return expression ? *expression : Expression();
}

std::string error(const std::string& text) {
  const auto expression = Expression::parse(text, {"bias"});
  EXPECT_FALSE(expression.has_value()) << text;
  return expression ? "" : expression.error().message;
}

TEST(Expression, FindsOperandsByKindInOrderOfAppearance) {
  const Expression e = parsed("relu(x * scale[row] + shift[ row ]) + y * a[] - bias + b[col]*x");
  EXPECT_THAT(e.of(OperandKind::kMatrix), ElementsAre("x", "y"));
  EXPECT_THAT(e.of(OperandKind::kRow), ElementsAre("scale", "shift"));
  EXPECT_THAT(e.of(OperandKind::kCol), ElementsAre("bias", "b"));
  EXPECT_THAT(e.of(OperandKind::kScalar), ElementsAre("a"));
  EXPECT_THAT(e.of(OperandKind::kOutput), ElementsAre("out"));
  EXPECT_EQ(e.operations, 8);
  EXPECT_EQ(e.text, "relu(x*scale[row]+shift[row])+y*a[]-bias+b[col]*x");
}

TEST(Expression, CanonicalTextParsesToTheSame) {
  for (const char* text :
       {"x + y", "x - -y", " a = x ; b = a*a ;", "x<y&&!(x==0)?1:2e-3", "min(x, y, .5)", "bias[row]"}) {
    const Expression once = parsed(text), twice = parsed(once.text);
    EXPECT_EQ(once.text, twice.text);
    EXPECT_EQ(once.code, twice.code);
    EXPECT_EQ(once.text.find(' '), std::string::npos);
  }
}

TEST(Expression, WritesCodeWithItsPrecedenceMadePlain) {
  EXPECT_THAT(parsed("x + y*2").code, ElementsAre("output[0] = (matrix[0] + (matrix[1] * T(2.0)));"));
  EXPECT_THAT(parsed("x - y - 1.5").code, ElementsAre("output[0] = ((matrix[0] - matrix[1]) - T(1.5));"));
  EXPECT_THAT(parsed("max(x, y, 0)").code, ElementsAre("output[0] = F::max(F::max(matrix[0], matrix[1]), T(0.0));"));
  EXPECT_THAT(
      parsed("x > 0 || x < -1 ? x : -x").code,
      ElementsAre("output[0] = (((matrix[0] > T(0.0)) || (matrix[0] < (-T(1.0)))) ? matrix[0] : (-matrix[0]));"));
}

TEST(Expression, ReadsOutputsThatStandBefore) {
  const Expression e = parsed("s = x + y; out = relu(s)");
  EXPECT_THAT(e.of(OperandKind::kOutput), ElementsAre("s", "out"));
  EXPECT_THAT(e.code, ElementsAre("output[0] = (matrix[0] + matrix[1]);", "output[1] = F::relu(output[0]);"));
}

TEST(Expression, ErrorsNameTheColumn) {
  EXPECT_THAT(error("relx(x)"), HasSubstr("column 1 of 'relx(x)': unknown function 'relx'; did you mean 'relu'"));
  EXPECT_THAT(error("x + "), HasSubstr("column 5"));
  EXPECT_THAT(error("x + (y"), HasSubstr("')' is missing at the end"));
  EXPECT_THAT(error("x $ y"), HasSubstr("column 3 of 'x $ y': unexpected character '$'"));
  EXPECT_THAT(error("x[rows]"), HasSubstr("column 3"));
  EXPECT_THAT(error("min(x)"), HasSubstr("min takes 2 to 8 arguments, not 1"));
  EXPECT_THAT(error("x < y"), HasSubstr("a comparison is no number"));
  EXPECT_THAT(error("(x < y) + 1"), HasSubstr("'+' takes numbers"));
  EXPECT_THAT(error("x && y ? 1 : 0"), HasSubstr("'&&' joins comparisons"));
  EXPECT_THAT(error("x ? 1 : 0"), HasSubstr("must be a comparison"));
  EXPECT_THAT(error("x + x[row]"), HasSubstr("'x' is a matrix operand before and a row operand here"));
  EXPECT_THAT(error("s = x; s = y"), HasSubstr("'s' is assigned twice"));
  EXPECT_THAT(error("a = s; s = x"), HasSubstr("'s' is read before it is assigned"));
  EXPECT_THAT(error("x; y"), HasSubstr("assigns an output"));
  EXPECT_THAT(error("relu + x"), HasSubstr("'relu' is a function"));
  EXPECT_THAT(error("12a"), HasSubstr("this is not a number"));
  EXPECT_THAT(error(""), HasSubstr("the expression is empty"));
  EXPECT_THAT(error("x y"), HasSubstr("column 3"));
  EXPECT_THAT(error(std::string(500, '(')), HasSubstr("nested too deeply"));
  EXPECT_THAT(error(std::string(500, '-') + "x"), HasSubstr("nested too deeply"));
  EXPECT_THAT(error(std::string(5000, 'x')), HasSubstr("longer than"));
}

constexpr const char* kSpec = R"(
kgen: 1
ops:
  - op: elementwise
    dtype: bf16
    problems:
      - {rows: 3, cols: 8, expr: "x + y", ld_y: 16}
      - {rows: 3, cols: 8, expr: "s = gelu_erf( x + bias ); t = s*a[]", a: 2}
)";

TEST(ExpressionOp, IsMadeForEachProblem) {
  const auto specs = parse_spec_text(kSpec, "spec.yaml");
  ASSERT_TRUE(specs) << specs.error().message;
  ASSERT_EQ(specs->size(), 2u);
  const OpSpec &sum = (*specs)[0], &gelu = (*specs)[1];
  EXPECT_EQ(sum.op->arguments.size(), 3u);
  EXPECT_EQ(sum.problem.dims.at("ld_y"), 16);
  EXPECT_EQ(sum.problem.dims.at("ld_out"), 8);
  EXPECT_EQ(gelu.op->arguments.size(), 4u);
  EXPECT_EQ(gelu.problem.scalars.at("a"), 2);
  EXPECT_NE(sum.op->source_hash, gelu.op->source_hash);
  EXPECT_THAT(signature(*gelu.op, gelu.problem), HasSubstr("expr=s=gelu_erf(x+bias);t=s*a[]"));
  const auto source = emit(gelu, *find_arch("sm_90"), *default_candidate(gelu, *find_arch("sm_90")));
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT(source->text, HasSubstr("output[0] = F::gelu_erf((matrix[0] + col[0]));"));
  EXPECT_THAT(source->text, HasSubstr("const kgen::bf16* __restrict__ bias"));
}

TEST(ExpressionOp, ComesBackFromItsSignature) {
  const auto specs = parse_spec_text(kSpec, "spec.yaml");
  ASSERT_TRUE(specs) << specs.error().message;
  for (const OpSpec& spec : *specs) {
    const std::vector<std::pair<std::string, std::string>> words(spec.problem.attributes.begin(),
                                                                 spec.problem.attributes.end());
    const auto generic = load_op("elementwise");
    ASSERT_TRUE(generic) << generic.error().message;
    const auto op = specialise(*generic, words);
    ASSERT_TRUE(op) << op.error().message;
    EXPECT_EQ((*op)->source_hash, spec.op->source_hash);
    auto with_dims = words;
    for (const auto& [name, value] : spec.problem.dims) with_dims.emplace_back(name, std::to_string(value));
    const auto problem = make_problem(**op, with_dims);
    ASSERT_TRUE(problem) << problem.error().message;
    EXPECT_EQ(signature(**op, *problem), signature(*spec.op, spec.problem));
  }
}

TEST(ExpressionOp, RefusesWhatItCannotMake) {
  const auto message = [](const std::string& problem) {
    const auto specs =
        parse_spec_text("kgen: 1\nops: [{op: elementwise, dtype: bf16, problems: [{" + problem + "}]}]", "s");
    EXPECT_FALSE(specs) << problem;
    return specs ? "" : specs.error().message;
  };
  EXPECT_THAT(message("rows: 1, cols: 2"), HasSubstr("needs 'expr'"));
  EXPECT_THAT(message("rows: 1, cols: 2, expr: 'geluerf(x)'"), HasSubstr("did you mean 'gelu_erf'"));
  EXPECT_THAT(message("rows: 1, cols: 2, expr: 'x + rows'"), HasSubstr("rows"));
  EXPECT_THAT(message("rows: 1, cols: 2, expr: 'x + int'"), HasSubstr("reserved word"));
  EXPECT_THAT(message("rows: 1, cols: 2, expr: 'x', ld_y: 3"), HasSubstr("ld_y"));
  EXPECT_THAT(message("rows: 1, cols: 4, expr: 'x', ld_x: 3"), HasSubstr("row stride"));
}

}  // namespace
}  // namespace kgen
