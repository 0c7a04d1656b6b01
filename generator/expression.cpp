#include "generator/expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <utility>

#include "base/text.h"

namespace kgen {

namespace {

constexpr std::size_t kMaxText = 2000, kMaxOperands = 32;
constexpr int kMaxDepth = 100;

// Functions and how many arguments they take.
const std::map<std::string, std::pair<std::size_t, std::size_t>, std::less<>>& functions() {
  static const std::map<std::string, std::pair<std::size_t, std::size_t>, std::less<>> known = {
      {"relu", {1, 1}},    {"gelu_erf", {1, 1}}, {"gelu_tanh", {1, 1}}, {"silu", {1, 1}},  {"quick_gelu", {1, 1}},
      {"sigmoid", {1, 1}}, {"exp", {1, 1}},      {"sqrt", {1, 1}},      {"rsqrt", {1, 1}}, {"abs", {1, 1}},
      {"tanh", {1, 1}},    {"erf", {1, 1}},      {"min", {2, 8}},       {"max", {2, 8}}};
  return known;
}

// Names that the emitted text gives its own parameters and variables.
const std::set<std::string, std::less<>>& taken_names() {
  static const std::set<std::string, std::less<>> names = {"row",   "col",       "args",     "index", "count",
                                                           "value", "magnitude", "seed",     "data",  "step",
                                                           "i",     "vector",    "expected", "bound", "width"};
  return names;
}

struct Token {
  enum class Kind { kName, kNumber, kSign, kEnd };
  Kind kind = Kind::kEnd;
  std::string_view text;
  std::size_t at = 0;
};

// Precedence of a binary operator, higher binds tighter; 0: none.
int precedence(std::string_view sign) {
  if (sign == "||") return 1;
  if (sign == "&&") return 2;
  if (sign == "==" || sign == "!=") return 3;
  if (sign == "<" || sign == "<=" || sign == ">" || sign == ">=") return 4;
  if (sign == "+" || sign == "-") return 5;
  if (sign == "*" || sign == "/") return 6;
  return 0;
}

class Parser {
 public:
  Parser(std::string_view text, const std::vector<std::string>& columns) : text_(text), columns_(columns) {}

  Result<Expression> run() {
    if (text_.size() > kMaxText) return error(kMaxText, fmt::format("it is longer than {} characters", kMaxText));
    KGEN_CHECK_OK(scan());
    if (here().kind == Token::Kind::kEnd) return error(0, "the expression is empty");
    const bool assigns = std::any_of(tokens_.begin(), tokens_.end(), [](const Token& t) { return t.text == "="; });
    for (bool first = true; first || here().kind != Token::Kind::kEnd; first = false) {
      KGEN_CHECK_OK(statement(assigns));
      if (here().text == ";") {
        ++next_;
      } else if (here().kind != Token::Kind::kEnd) {
        return error(here().at, fmt::format("'{}' is not expected here", here().text));
      }
    }
    // The last ';' of a list says nothing.
    for (std::size_t i = 0; i + 1 < tokens_.size(); ++i) {
      if (i + 2 == tokens_.size() && tokens_[i].text == ";") break;
      made_.text += tokens_[i].text;
    }
    return std::move(made_);
  }

 private:
  struct Value {
    std::string code;
    bool condition = false;  // of a comparison: chooses, but is no number
  };

  tl::unexpected<Error> error(std::size_t at, const std::string& what) const {
    return fail(ErrorKind::kBadInput, fmt::format("column {} of '{}': {}", at + 1, text_, what));
  }

  Result<void> scan() {
    const auto is = [&](std::size_t i, auto test) {
      return i < text_.size() && test(static_cast<unsigned char>(text_[i])) != 0;
    };
    const auto digit = [](unsigned char c) { return std::isdigit(c); };
    const auto name = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
    for (std::size_t i = 0; i < text_.size();) {
      if (is(i, [](unsigned char c) { return std::isspace(c); })) {
        ++i;
        continue;
      }
      Token token{Token::Kind::kSign, {}, i};
      std::size_t end = i + 1;
      if (is(i, digit) || (text_[i] == '.' && is(i + 1, digit))) {
        token.kind = Token::Kind::kNumber;
        end = i;
        while (is(end, digit)) ++end;
        if (end < text_.size() && text_[end] == '.') ++end;
        while (is(end, digit)) ++end;
        if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
          ++end;
          if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
          if (!is(end, digit)) return error(i, "a number's exponent has no digits");
          while (is(end, digit)) ++end;
        }
        if (is(end, name) || end - i > 40) return error(i, "this is not a number");
      } else if (is(i, name)) {
        token.kind = Token::Kind::kName;
        while (is(end, name)) ++end;
      } else {
        const std::string_view two = text_.substr(i, 2);
        if (two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "&&" || two == "||") {
          end = i + 2;
        } else if (std::string_view("+-*/()[]<>!?:,;=").find(text_[i]) == std::string_view::npos) {
          return error(i, fmt::format("unexpected character '{}'", text_[i]));
        }
      }
      token.text = text_.substr(i, end - i);
      tokens_.push_back(token);
      i = end;
    }
    tokens_.push_back({Token::Kind::kEnd, {}, text_.size()});
    return {};
  }

  const Token& here() const { return tokens_[next_]; }
  const Token& after() const { return tokens_[std::min(next_ + 1, tokens_.size() - 1)]; }
  Result<void> expect(std::string_view sign) {
    if (here().text != sign) {
      return error(here().at, here().kind == Token::Kind::kEnd
                                  ? fmt::format("'{}' is missing at the end", sign)
                                  : fmt::format("'{}' stands where '{}' is expected", here().text, sign));
    }
    ++next_;
    return {};
  }

  Result<void> statement(bool assigns) {
    std::string name = "out";
    const std::size_t at = here().at;
    if (assigns) {
      if (here().kind != Token::Kind::kName || after().text != "=") {
        return error(at, "each of several statements assigns an output: name = …");
      }
      name = here().text;
      next_ += 2;
    } else if (!made_.of(OperandKind::kOutput).empty()) {
      return error(at, "each of several statements assigns an output: name = …");
    }
    const std::size_t value_at = here().at;
    KGEN_TRY(const Value value, choice());
    if (value.condition) return error(value_at, "a comparison is no number; write: comparison ? 1 : 0");
    if (const auto known = kinds_.find(name); known != kinds_.end()) {
      return error(at, known->second.first == OperandKind::kOutput
                           ? fmt::format("'{}' is assigned twice", name)
                           : fmt::format("'{}' is read before it is assigned", name));
    }
    KGEN_TRY(const std::string code, operand(name, OperandKind::kOutput, at));
    made_.code.push_back(fmt::format("{} = {};", code, value.code));
    return {};
  }

  // C++ of an operand, which is new or has been seen with the same kind.
  Result<std::string> operand(const std::string& name, OperandKind kind, std::size_t at) {
    if (functions().contains(name)) return error(at, fmt::format("'{}' is a function; it takes (…)", name));
    if (taken_names().contains(name)) return error(at, fmt::format("'{}' is taken; choose another name", name));
    if (name.size() > 64) return error(at, "a name has at most 64 characters");
    auto found = kinds_.find(name);
    if (found == kinds_.end()) {
      if (kinds_.size() == kMaxOperands) return error(at, fmt::format("there are more than {} operands", kMaxOperands));
      auto& list = made_.operands[static_cast<std::size_t>(kind)];
      found = kinds_.emplace(name, std::pair{kind, list.size()}).first;
      list.push_back(name);
    }
    if (found->second.first != kind && found->second.first != OperandKind::kOutput) {
      return error(at, fmt::format("'{}' is a {} operand before and a {} operand here", name,
                                   kOperandKinds[static_cast<std::size_t>(found->second.first)],
                                   kOperandKinds[static_cast<std::size_t>(kind)]));
    }
    return fmt::format("{}[{}]", kOperandKinds[static_cast<std::size_t>(found->second.first)], found->second.second);
  }

  Result<Value> choice() {
    if (++depth_ > kMaxDepth) return error(here().at, "it is nested too deeply");
    const std::size_t at = here().at;
    KGEN_TRY(Value value, binary(1));
    if (here().text == "?") {
      if (!value.condition) return error(at, "what stands before '?' must be a comparison");
      ++next_;
      std::size_t arm = here().at;
      KGEN_TRY(const Value yes, choice());
      if (yes.condition) return error(arm, "a comparison is no number");
      KGEN_CHECK_OK(expect(":"));
      arm = here().at;
      KGEN_TRY(const Value no, choice());
      if (no.condition) return error(arm, "a comparison is no number");
      value = {fmt::format("({} ? {} : {})", value.code, yes.code, no.code), false};
      ++made_.operations;
    }
    --depth_;
    return value;
  }

  Result<Value> binary(int lowest) {
    const std::size_t at = here().at;
    KGEN_TRY(Value left, unary());
    while (here().kind == Token::Kind::kSign && precedence(here().text) >= lowest) {
      const Token sign = here();
      const int level = precedence(sign.text);
      ++next_;
      const std::size_t right_at = here().at;
      KGEN_TRY(const Value right, binary(level + 1));
      for (const auto& [side, side_at] : {std::pair<const Value*, std::size_t>{&left, at}, {&right, right_at}}) {
        if (side->condition == (level <= 2)) continue;
        return error(side_at, level <= 2 ? fmt::format("'{}' joins comparisons, and this is a number", sign.text)
                                         : fmt::format("'{}' takes numbers, and this is a comparison", sign.text));
      }
      left = {fmt::format("({} {} {})", left.code, sign.text, right.code), level <= 4};
      ++made_.operations;
    }
    return left;
  }

  Result<Value> unary() {
    const Token sign = here();
    if (sign.text != "-" && sign.text != "+" && sign.text != "!") return primary();
    if (++depth_ > kMaxDepth) return error(sign.at, "it is nested too deeply");
    ++next_;
    KGEN_TRY(Value value, unary());
    if (value.condition != (sign.text == "!")) {
      return error(sign.at, sign.text == "!" ? "'!' takes a comparison" : "a comparison is no number");
    }
    if (sign.text != "+") {
      value.code = fmt::format("({}{})", sign.text, value.code);
      ++made_.operations;
    }
    --depth_;
    return value;
  }

  Result<Value> primary() {
    const Token token = here();
    if (token.kind == Token::Kind::kEnd) return error(token.at, "something is missing at the end");
    if (token.text == "(") {
      ++next_;
      KGEN_TRY(Value value, choice());
      KGEN_CHECK_OK(expect(")"));
      return value;
    }
    if (token.kind == Token::Kind::kNumber) {
      ++next_;
      const bool whole = token.text.find_first_of(".eE") == std::string_view::npos;
      return Value{fmt::format("T({}{})", token.text, whole ? ".0" : ""), false};
    }
    if (token.kind != Token::Kind::kName) return error(token.at, fmt::format("'{}' is not expected here", token.text));
    const std::string name(token.text);
    if (after().text == "(") return call(name, token.at);
    ++next_;
    OperandKind kind =
        std::find(columns_.begin(), columns_.end(), name) == columns_.end() ? OperandKind::kMatrix : OperandKind::kCol;
    if (here().text == "[") {
      ++next_;
      if (const auto made = kinds_.find(name); made != kinds_.end() && made->second.first == OperandKind::kOutput) {
        return error(token.at, fmt::format("'{}' is an output; it takes no brackets", name));
      }
      if (here().text == "row") {
        kind = OperandKind::kRow;
        ++next_;
      } else if (here().text == "col") {
        kind = OperandKind::kCol;
        ++next_;
      } else if (here().text == "]") {
        kind = OperandKind::kScalar;
      } else {
        return error(here().at, "brackets hold row, col or nothing (one value for all)");
      }
      KGEN_CHECK_OK(expect("]"));
    }
    KGEN_TRY(std::string code, operand(name, kind, token.at));
    return Value{std::move(code), false};
  }

  Result<Value> call(const std::string& name, std::size_t at) {
    const auto function = functions().find(name);
    if (function == functions().end()) {
      std::vector<std::string> known;
      for (const auto& [word, counts] : functions()) known.push_back(word);
      std::string hint = did_you_mean(name, known);
      if (hint.empty()) hint = fmt::format("; there are {}", join(known, ", "));
      return error(at, fmt::format("unknown function '{}'{}", name, hint));
    }
    next_ += 2;
    std::string code;
    std::size_t arguments = 0;
    for (;; ++next_) {
      const std::size_t argument_at = here().at;
      KGEN_TRY(const Value value, choice());
      if (value.condition) return error(argument_at, "a comparison is no number");
      code = arguments == 0 ? value.code : fmt::format("F::{}({}, {})", name, code, value.code);
      ++arguments;
      if (here().text != ",") break;
    }
    KGEN_CHECK_OK(expect(")"));
    const auto [fewest, most] = function->second;
    if (arguments < fewest || arguments > most) {
      return error(at, fmt::format("{} takes {} argument{}, not {}", name,
                                   fewest == most ? std::to_string(most) : fmt::format("{} to {}", fewest, most),
                                   most == 1 ? "" : "s", arguments));
    }
    if (most == 1) code = fmt::format("F::{}({})", name, code);
    ++made_.operations;
    return Value{std::move(code), false};
  }

  std::string_view text_;
  const std::vector<std::string>& columns_;
  std::vector<Token> tokens_;
  std::size_t next_ = 0;
  int depth_ = 0;
  std::map<std::string, std::pair<OperandKind, std::size_t>, std::less<>> kinds_;
  Expression made_;
};

}  // namespace

Result<Expression> Expression::parse(std::string_view text, const std::vector<std::string>& columns) {
  return Parser(text, columns).run();
}

}  // namespace kgen
