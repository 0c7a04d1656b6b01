#include "base/expr.h"

#include <gmock/gmock.h>

#include <chrono>
#include <thread>

namespace kgen {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Env kEnv{{"a", 7},
               {"b", 2},
               {"k", 3},
               {"n", 4},
               {"b_layout", symbol_value("nk")},
               {"nk", symbol_value("nk")},
               {"kn", symbol_value("kn")},
               {"large", std::int64_t{1} << 50}};

std::int64_t value(std::string_view text) {
  const auto expr = Expr::parse(text);
  if (!expr) {
    ADD_FAILURE() << expr.error().message;
    return -999;
  }
  const auto result = expr->eval(kEnv);
  if (!result) {
    ADD_FAILURE() << result.error().message;
    return -999;
  }
  return *result;
}

std::string parse_error(std::string_view text) {
  const auto expr = Expr::parse(text);
  return expr ? "parsed" : expr.error().message;
}

std::string eval_error(std::string_view text) {
  const auto expr = Expr::parse(text);
  if (!expr) return "did not parse: " + expr.error().message;
  const auto result = expr->eval(kEnv);
  return result ? "value " + std::to_string(*result) : result.error().message;
}

TEST(Expr, ComputesAsCDoes) {
  EXPECT_EQ(value("1 - 2 - 3"), -4);
  EXPECT_EQ(value("100 / 10 / 5"), 2);
  EXPECT_EQ(value("a % 4 * 2"), 6);
  EXPECT_EQ(value("-a % b"), -1);
  EXPECT_EQ(value("2 * -3"), -6);
  EXPECT_EQ(value("!(a == b)"), 1);
  EXPECT_EQ(value("!a == b"), 0);
  EXPECT_EQ(value("a >= 7 && b < 3 || a == 0"), 1);
  EXPECT_EQ(value("a == 1 ? 10 : a == 7 ? 20 : 30"), 20);
  EXPECT_EQ(value("b_layout == nk ? k : n"), 3);
  EXPECT_EQ(value("b_layout == kn ? k : n"), 4);
}

TEST(Expr, HasTheFunctionsOfTheHeader) {
  EXPECT_EQ(value("min(a, b, 3) + max(a, b)"), 9);
  EXPECT_EQ(value("ceil_div(a, b)"), 4);
  EXPECT_EQ(value("floor_div(a, b)"), 3);
  EXPECT_EQ(value("floor_div(-a, b)"), -4);
  EXPECT_EQ(value("ceil_div(-a, b)"), -3);
  EXPECT_EQ(value("round_up(a, 8)"), 8);
  EXPECT_EQ(value("round_up(16, 8)"), 16);
  EXPECT_EQ(value("log2(a)"), 2);
  EXPECT_EQ(value("is_pow2(64) + is_pow2(0) + is_pow2(12)"), 1);
  EXPECT_EQ(value("abs(b - a)"), 5);
}

TEST(Expr, DivisionThatLeavesARemainderIsAnError) {
  EXPECT_EQ(value("6 / 3"), 2);
  EXPECT_THAT(eval_error("a / b * b"), HasSubstr("7 / 2 leaves a remainder"));
  EXPECT_THAT(eval_error("a / (b - 2)"), HasSubstr("division by zero"));
  EXPECT_THAT(eval_error("a % 0"), HasSubstr("division by zero"));
}

TEST(Expr, OnlyTheTakenBranchIsEvaluated) {
  EXPECT_EQ(value("b == 2 ? 5 : a / 0"), 5);
  EXPECT_EQ(value("b != 2 ? a / 0 : 5"), 5);
}

TEST(Expr, ValuesOutsideTheExactRangeAreErrors) {
  EXPECT_EQ(value("large * 7 - 1"), (std::int64_t{1} << 50) * 7 - 1);
  EXPECT_THAT(eval_error("large * 8"), HasSubstr("not below 2^53"));
  EXPECT_THAT(eval_error("large * large * large * large * large * large * large"), HasSubstr("not below 2^53"));
  EXPECT_THAT(parse_error("9007199254740992"), HasSubstr("2^53"));
  const auto expr = Expr::parse("x + 1");
  ASSERT_TRUE(expr);
  EXPECT_FALSE(expr->eval({{"x", INT64_MAX}}));
  EXPECT_FALSE(expr->eval({{"x", INT64_MIN}}));
}

TEST(Expr, ParseErrorsNameTheColumn) {
  EXPECT_THAT(parse_error("a +"), HasSubstr("column 4"));
  EXPECT_THAT(parse_error("(a"), HasSubstr("parenthesis"));
  EXPECT_THAT(parse_error("a b"), HasSubstr("column 3"));
  EXPECT_THAT(parse_error("a = 2"), HasSubstr("column 3"));
  EXPECT_THAT(parse_error("a & b"), HasSubstr("did you mean '&&'?"));
  EXPECT_THAT(parse_error("a ^ 2"), HasSubstr("column 3"));
  EXPECT_THAT(parse_error("1.5"), HasSubstr("integers"));
  EXPECT_THAT(parse_error("2a"), HasSubstr("integers"));
  EXPECT_THAT(parse_error(" "), HasSubstr("empty"));
  EXPECT_THAT(parse_error("cel_div(a, b)"), HasSubstr("did you mean 'ceil_div'?"));
  EXPECT_THAT(parse_error("ceil_div(a)"), HasSubstr("Too few"));
  EXPECT_THAT(parse_error("a ? b"), HasSubstr("else"));
  EXPECT_THAT(parse_error("a ~ b"), HasSubstr("unexpected character"));
}

TEST(Expr, ListsItsNamesSortedAndOnce) {
  const auto expr = Expr::parse("m * k + m - min(tile_m, 4)");
  ASSERT_TRUE(expr);
  EXPECT_THAT(expr->names(), ElementsAre("k", "m", "tile_m"));
  const std::int64_t slots[] = {2, 3, 9};
  EXPECT_EQ(expr->eval_slots(slots).value_or(-1), 3 * 2 + 3 - 4);
  EXPECT_THAT(eval_error("zz + 1"), HasSubstr("unknown name 'zz'"));
}

TEST(Expr, SpecialisedHasTheSameValuesAndFewerNames) {
  struct Case {
    const char* text;
    Env constants;
    std::vector<std::string> left;
  };
  const Case cases[] = {
      {"ceil_div(m, tile) * n", {{"tile", 16}}, {"m", "n"}},
      {"fit % 2 == 0 || (m % tile == 0 && n % 4 == 0)", {{"fit", 2}, {"tile", 16}}, {}},
      {"fit % 2 == 0 || (m % tile == 0 && n % 4 == 0)", {{"fit", 3}, {"tile", 16}}, {"m", "n"}},
      {"m && on", {{"on", 1}}, {"m"}},
      {"off || m", {{"off", 0}}, {"m"}},
      {"off || (m > 3 ? n : 5)", {{"off", 0}}, {"m", "n"}},
      {"m > 5 && off", {{"off", 0}}, {}},
      {"layout == nk ? k : n", {{"layout", 7}, {"nk", 7}}, {"k"}},
      {"m > k ? (tile > 8 ? n : m) : (tile > 8 ? m * tile : -n)", {{"tile", 16}}, {"k", "m", "n"}},
      {"m > k ? tile : 2 * tile + (n > 1 ? 3 : tile)", {{"tile", 16}}, {"k", "m", "n"}},
      {"max(m, tile, 3) + min(tile, 4) - abs(-tile) + round_up(n, tile)", {{"tile", 16}}, {"m", "n"}},
      {"!(m == tile) + is_pow2(tile) + log2(tile) - +m", {{"tile", 16}}, {"m"}},
      {"tile * 2", {{"tile", 16}}, {}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const Expr whole = Expr::parse(c.text).value(), special = whole.specialised(c.constants);
    EXPECT_EQ(special.names(), c.left);
    EXPECT_EQ(special.text(), c.text);
    for (std::int64_t m = 0; m < 40; m += 3) {
      for (std::int64_t n = 0; n < 9; ++n) {
        const Env dims = {{"m", m}, {"n", n}, {"k", 17}};
        Env all = dims;
        all.insert(c.constants.begin(), c.constants.end());
        EXPECT_EQ(special.eval(dims).value_or(-999), whole.eval(all).value_or(-998)) << m << ", " << n;
      }
    }
  }
}

TEST(Expr, SpecialisedKeepsErrorsThatMatter) {
  const auto error = [](const char* text, const Env& constants) {
    const auto value = Expr::parse(text).value().specialised(constants).eval({{"x", 8}});
    return value ? "value " + std::to_string(*value) : value.error().message;
  };
  EXPECT_THAT(error("x / zero", {{"zero", 0}}), HasSubstr("division by zero"));
  EXPECT_THAT(error("3 / two", {{"two", 2}}), HasSubstr("leaves a remainder"));
  EXPECT_EQ(error("one || x / 0", {{"one", 1}}), "value 1") << "what does not matter is not evaluated";
  EXPECT_THAT(error("large * large", {{"large", std::int64_t{1} << 40}}), HasSubstr("not below 2^53"));
  EXPECT_THAT(error("x + y", {}), HasSubstr("unknown name 'y'"));
}

TEST(Expr, DefaultIsZeroWithAnEmptyText) {
  const Expr zero;
  EXPECT_EQ(zero.text(), "");
  EXPECT_EQ(zero.eval({}).value_or(-1), 0);
}

TEST(Expr, CopiesAreIndependent) {
  const auto first = Expr::parse("x * 2 + y");
  ASSERT_TRUE(first);
  const Expr second = *first;
  std::vector<std::thread> threads;
  std::vector<int> wrong(2);
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      const Expr& expr = t == 0 ? *first : second;
      for (std::int64_t i = 0; i < 20000; ++i) {
        const std::int64_t slots[] = {i, t};
        wrong[t] += expr.eval_slots(slots).value_or(-1) != i * 2 + t;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0));
}

TEST(Expr, EvalOfOneExprIsSafeFromManyThreads) {
  const auto expr = Expr::parse("x * 2 + 1");
  ASSERT_TRUE(expr);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (std::int64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5000; ++i) wrong += expr->eval({{"x", t}}).value_or(-1) != 2 * t + 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Expr, SymbolsAreDistinctStableAndLarge) {
  EXPECT_NE(symbol_value("nk"), symbol_value("kn"));
  EXPECT_EQ(symbol_value("nk"), symbol_value("nk"));
  EXPECT_GE(symbol_value("nk"), std::int64_t{1} << 40);
  EXPECT_LT(symbol_value("nk"), std::int64_t{1} << 41);
  EXPECT_EQ(symbol_value("bf16"), 1779066071020);  // stored in databases: must never change
}

TEST(ExprSet, GivesWhatEachExpressionGivesAlone) {
  const std::vector<std::string> texts{"a",
                                       "7",
                                       "a + b * c - 3",
                                       "a / b",
                                       "a % b",
                                       "a % 8 == 0 && b % 8 == 0",
                                       "ceil_div(a, b) * ceil_div(c, 16)",
                                       "floor_div(a - 100, b)",
                                       "floor_div(a - 100, 8) + ceil_div(b - 100, 8) + (c - 100) % 8",
                                       "round_up(a, 64) + round_up(b, c)",
                                       "log2(a) + is_pow2(b) + is_pow2(a - b)",
                                       "b != 0 ? a / b : 0",
                                       "a > b ? (c > 0 ? a % c : 1) : ceil_div(b, a - b)",
                                       "min(a, b, c) + max(a, b, c) + abs(a - c)",
                                       "!(a < b) || -c >= a || a <= c || a == b || a != c",
                                       "a * b * c * a * b * c * a * b",
                                       "a * b + c",
                                       "1 || a / 0",
                                       "a * b == b * a"};
  std::vector<Expr> exprs;
  ExprSet set;
  std::vector<ExprSet::Node> nodes;
  for (const char* name : {"a", "unread", "b"}) set.input(name);
  set.name("c", set.add(Expr::parse("a + 2 * b").value()));
  for (const std::string& text : texts) {
    exprs.push_back(Expr::parse(text).value().specialised({}));
    nodes.push_back(set.add(exprs.back()));
  }
  const ExprSet::Node unknown = set.add(Expr::parse("a + d").value());
  std::vector<double> results;
  std::int64_t refused = 0;
  std::uint64_t random = 1;
  const auto next = [&]() -> std::int64_t {
    random = random * 6364136223846793005 + 1442695040888963407;
    const std::uint64_t bits = random >> 20;
    return static_cast<std::int64_t>(bits & 1 ? bits % 70 : bits & 2 ? std::uint64_t{1} << bits % 40 : bits);
  };
  for (int round = 0; round < 2000; ++round) {
    const std::int64_t a = next(), b = next();
    const Env env{{"a", a}, {"b", b}, {"c", a + 2 * b}};
    set.run(std::vector<double>{static_cast<double>(a), 0, static_cast<double>(b)}, results);
    for (std::size_t i = 0; i < exprs.size(); ++i) {
      const auto alone = exprs[i].eval(env);
      ASSERT_EQ(ExprSet::known(results[nodes[i]]), alone.has_value()) << texts[i] << " with a=" << a << " b=" << b;
      if (alone) {
        ASSERT_EQ(results[nodes[i]], static_cast<double>(*alone)) << texts[i] << " with a=" << a << " b=" << b;
      } else {
        ++refused;
      }
    }
    ASSERT_FALSE(ExprSet::known(results[unknown]));
  }
  EXPECT_GT(refused, 1000) << "errors are compared too";
}

}  // namespace
}  // namespace kgen
