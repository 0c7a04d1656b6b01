#include "base/expr.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "base/text.h"

namespace kgen {
namespace {

constexpr double kLimit = 9007199254740992;  // 2^53: beyond it a double no longer holds every integer
constexpr int kDeepest = 200;                // parentheses and branches inside one another

enum class Code : std::uint8_t {
  kNumber,  // push value
  kName,    // push the slot `arg`
  kJump,    // over `arg` instructions
  kJumpIfZero,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,  // exact
  kModulo,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kEqual,
  kNotEqual,
  kAnd,
  kOr,
  kNegate,
  kNot,
  kCeilDiv,
  kFloorDiv,
  kRoundUp,
  kLog2,
  kIsPow2,
  kAbs,
  kMin,  // of `arg` values
  kMax,
};

struct Instruction {
  Code code;
  std::uint32_t arg = 0;
  double value = 0;
};

struct Function {
  const char *name;
  Code code;
  int arguments;  // 0: one or more
};
constexpr Function kFunctions[] = {
    {"ceil_div", Code::kCeilDiv, 2}, {"floor_div", Code::kFloorDiv, 2},
    {"round_up", Code::kRoundUp, 2}, {"log2", Code::kLog2, 1},
    {"is_pow2", Code::kIsPow2, 1},   {"abs", Code::kAbs, 1},
    {"min", Code::kMin, 0},          {"max", Code::kMax, 0},
};

// Infix operators, loosest first; those of a level are applied from left to
// right.
struct Infix {
  std::string_view sign;
  int level;
  Code code;
};
constexpr Infix kInfix[] = {
    {"||", 0, Code::kOr},        {"&&", 1, Code::kAnd},          {"==", 2, Code::kEqual},   {"!=", 2, Code::kNotEqual},
    {"<=", 2, Code::kLessEqual}, {">=", 2, Code::kGreaterEqual}, {"<", 2, Code::kLess},     {">", 2, Code::kGreater},
    {"+", 3, Code::kAdd},        {"-", 3, Code::kSubtract},      {"*", 4, Code::kMultiply}, {"/", 4, Code::kDivide},
    {"%", 4, Code::kModulo},
};
constexpr int kTightest = 4;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

bool whole(double value) { return ExprSet::known(value); }
bool name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

Error at_column(std::size_t column, std::string_view text, const std::string &what) {
  return Error{ErrorKind::kBadInput, fmt::format("column {} of '{}': {}", column + 1, text, what)};
}

}  // namespace

// What parsing finds; never changes afterwards, so copies of an Expr share it.
struct Expr::Program {
  std::string text;
  std::vector<std::string> names;  // sorted
  std::vector<Instruction> code;
  std::size_t depth = 0;  // most values on the stack
  bool identity = false;  // the whole text is one name …
  bool constant = false;  // … or one number: most expressions of a plan

  void find_kind() {
    identity = code.size() == 1 && code[0].code == Code::kName;
    constant = code.size() == 1 && code[0].code == Code::kNumber && whole(code[0].value);
  }
};

namespace {

// Recursive descent; names are numbered in order of appearance until the end.
// The first error ends it.
class Compiler {
 public:
  Compiler(std::string_view text, std::vector<Instruction> &code) : text_(text), code_(code) {}

  Result<void> run() {
    skip_blanks();
    if (at_ == text_.size()) return tl::unexpected(at_column(0, text_, "the expression is empty"));
    KGEN_CHECK_OK(branch());
    if (at_ == text_.size()) return {};
    return refuse(text_[at_] == ')' ? "a closing parenthesis without an opening one" : unexpected());
  }

  std::vector<std::string> names;
  std::size_t depth = 0;

 private:
  tl::unexpected<Error> refuse(const std::string &what) const { return tl::unexpected(at_column(at_, text_, what)); }

  std::string unexpected() const {
    if (at_ == text_.size()) return "a value is missing at the end";
    const char c = text_[at_], next = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (c == '=' && next != '=') return "'=' assigns nothing here; compare with '=='";
    if ((c == '&' || c == '|') && next != c)
      return fmt::format("'{}' is not an operator; did you mean '{}{}'?", c, c, c);
    return fmt::format("unexpected character '{}'", c);
  }

  void skip_blanks() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }
  bool accept(char sign) {
    if (at_ == text_.size() || text_[at_] != sign) return false;
    ++at_;
    skip_blanks();
    return true;
  }

  // `by`: how many values more the stack holds afterwards.
  void put(Code code, int by, std::uint32_t arg = 0, double value = 0) {
    code_.push_back({code, arg, value});
    height_ = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(height_) + by);
    depth = std::max(depth, height_);
  }
  std::uint32_t here() const { return static_cast<std::uint32_t>(code_.size()); }

  Result<void> branch() {
    if (++nested_ > kDeepest) return refuse("nested too deeply");
    KGEN_CHECK_OK(infix(0));
    if (accept('?')) {
      const std::uint32_t test = here();
      put(Code::kJumpIfZero, -1);
      KGEN_CHECK_OK(branch());
      if (!accept(':')) return refuse("'?' without ':', the else branch");
      const std::uint32_t skip = here();
      put(Code::kJump, -1);  // one of the branches leaves its value
      code_[test].arg = here() - test - 1;
      KGEN_CHECK_OK(branch());
      code_[skip].arg = here() - skip - 1;
    }
    --nested_;
    return {};
  }

  const Infix *peek(int level) const {
    const std::string_view rest = text_.substr(at_);
    for (const Infix &infix : kInfix) {
      if (infix.level == level && rest.starts_with(infix.sign)) return &infix;
    }
    return nullptr;
  }

  Result<void> infix(int level) {
    if (level > kTightest) return prefix();
    KGEN_CHECK_OK(infix(level + 1));
    while (const Infix *found = peek(level)) {
      at_ += found->sign.size();
      skip_blanks();
      KGEN_CHECK_OK(infix(level + 1));
      put(found->code, -1);
    }
    return {};
  }

  Result<void> prefix() {
    std::vector<Code> signs;
    for (;;) {
      if (accept('-')) {
        signs.push_back(Code::kNegate);
      } else if (at_ < text_.size() && text_[at_] == '!' && !text_.substr(at_).starts_with("!=")) {
        accept('!');
        signs.push_back(Code::kNot);
      } else if (!accept('+')) {
        break;
      }
    }
    KGEN_CHECK_OK(value());
    for (auto sign = signs.rbegin(); sign != signs.rend(); ++sign) put(*sign, 0);
    return {};
  }

  Result<void> value() {
    if (at_ == text_.size()) return refuse(unexpected());
    const char c = text_[at_];
    if (accept('(')) {
      KGEN_CHECK_OK(branch());
      if (!accept(')')) return refuse(at_ == text_.size() ? "a closing parenthesis is missing" : unexpected());
      return {};
    }
    std::size_t end = at_;
    if (digit(c)) {
      while (end < text_.size() && digit(text_[end])) ++end;
      if (end < text_.size() && (name_char(text_[end]) || text_[end] == '.'))
        return refuse("only integers are allowed");
      std::int64_t number = 0;
      const auto [stop, error] = std::from_chars(text_.data() + at_, text_.data() + end, number);
      if (error != std::errc{} || static_cast<double>(number) >= kLimit) return refuse("a number must be below 2^53");
      move(end);
      put(Code::kNumber, 1, 0, static_cast<double>(number));
      return {};
    }
    if (!name_start(c)) return refuse(unexpected());
    while (end < text_.size() && name_char(text_[end])) ++end;
    const std::string name(text_.substr(at_, end - at_));
    const std::size_t start = at_;
    move(end);
    if (at_ < text_.size() && text_[at_] == '(') return call(name, start);
    const auto known = std::find(names.begin(), names.end(), name);
    put(Code::kName, 1, static_cast<std::uint32_t>(known - names.begin()));
    if (known == names.end()) names.push_back(name);
    return {};
  }

  void move(std::size_t to) {
    at_ = to;
    skip_blanks();
  }

  Result<void> call(const std::string &name, std::size_t start) {
    const auto *function = std::ranges::find(kFunctions, name, &Function::name);
    if (function == std::end(kFunctions)) {
      std::vector<std::string> known;
      for (const Function &other : kFunctions) known.emplace_back(other.name);
      at_ = start;
      return refuse("unknown function '" + name + "'" + did_you_mean(name, known));
    }
    accept('(');
    int count = 0;
    if (at_ < text_.size() && text_[at_] != ')') {
      do {
        KGEN_CHECK_OK(branch());
        ++count;
      } while (accept(','));
    }
    if (at_ == text_.size()) return refuse("a closing parenthesis is missing");
    if (text_[at_] != ')') return refuse(unexpected());
    if (count < std::max(function->arguments, 1)) return refuse(fmt::format("Too few arguments for '{}'", name));
    if (function->arguments > 0 && count > function->arguments)
      return refuse(fmt::format("Too many arguments for '{}'", name));
    accept(')');
    put(function->code, 1 - count, static_cast<std::uint32_t>(count));
    return {};
  }

  std::string_view text_;
  std::vector<Instruction> &code_;
  std::size_t at_ = 0, height_ = 0;
  int nested_ = 0;
};

double floor_quotient(std::int64_t a, std::int64_t b) {
  return static_cast<double>(a / b - (a % b != 0 && (a < 0) != (b < 0)));
}

// One operator of integers where the result is not just that of doubles; an
// error's text otherwise.
std::string apply(Code code, double left, double right, double &result) {
  if (!whole(left) || !whole(right)) return "a value is not below 2^53";
  const auto a = static_cast<std::int64_t>(left), b = static_cast<std::int64_t>(right);
  if (code == Code::kLog2) {
    if (a < 1) return fmt::format("log2 of {}", a);
    int log = 0;
    for (std::int64_t rest = a; rest >>= 1;) ++log;
    result = log;
    return {};
  }
  if (code == Code::kIsPow2) {
    result = a > 0 && (a & (a - 1)) == 0;
    return {};
  }
  if (b == 0) return "division by zero";
  switch (code) {
    case Code::kDivide:
      if (a % b != 0) return fmt::format("{} / {} leaves a remainder; use ceil_div or floor_div", a, b);
      result = static_cast<double>(a / b);
      break;
    case Code::kModulo:
      result = static_cast<double>(a % b);
      break;
    case Code::kFloorDiv:
      result = floor_quotient(a, b);
      break;
    case Code::kCeilDiv:
      result = -floor_quotient(-a, b);
      break;
    default:
      result = -floor_quotient(-a, b) * right;
      break;
  }
  return {};
}

// A division without words: not `known` where there is an error. Powers of two, which tile sizes are, need no division.
struct Quotient {
  bool known = false;
  std::int64_t rounded_down = 0;
  bool rest = false;
  double down() const { return known ? static_cast<double>(rounded_down) : kUnknown; }
  double up() const { return known ? static_cast<double>(rounded_down + (rest ? 1 : 0)) : kUnknown; }
};

[[gnu::always_inline]] inline Quotient divide(double left, double right) {
  if (!whole(left) || !whole(right) || right == 0) return {};
  const auto a = static_cast<std::int64_t>(left), b = static_cast<std::int64_t>(right);
  if (b > 0 && (b & (b - 1)) == 0)
    return {true, a >> __builtin_ctzll(static_cast<std::uint64_t>(b)), (a & (b - 1)) != 0};
  if ((static_cast<std::uint64_t>(a | b) >> 32) == 0) {
    const auto small = static_cast<std::uint32_t>(a), by = static_cast<std::uint32_t>(b);
    return {true, small / by, small % by != 0};
  }
  return {true, static_cast<std::int64_t>(floor_quotient(a, b)), a % b != 0};
}

[[gnu::always_inline]] inline double remainder(double left, double right) {
  if (!whole(left) || !whole(right) || right == 0) return kUnknown;
  const auto a = static_cast<std::int64_t>(left), b = static_cast<std::int64_t>(right);
  if (a >= 0 && b > 0 && (b & (b - 1)) == 0) return static_cast<double>(a & (b - 1));
  if ((static_cast<std::uint64_t>(a | b) >> 32) == 0)
    return static_cast<std::uint32_t>(a) % static_cast<std::uint32_t>(b);
  return static_cast<double>(a % b);
}

// Computes; an error's text, "" when there is none.
std::string run(const std::vector<Instruction> &code, std::size_t depth, const std::int64_t *values, double &result) {
  double few[32];
  std::vector<double> many;
  double *stack = few;
  if (depth > std::size(few)) {
    many.resize(depth);
    stack = many.data();
  }
  double *top = stack - 1;  // the last value
  const std::size_t count = code.size();
  for (std::size_t at = 0; at < count; ++at) {
    const Instruction &instruction = code[at];
    switch (instruction.code) {
      case Code::kNumber:
        *++top = instruction.value;
        continue;
      case Code::kName:
        *++top = static_cast<double>(values[instruction.arg]);
        continue;
      case Code::kJump:
        at += instruction.arg;
        continue;
      case Code::kJumpIfZero:
        if (*top-- == 0) at += instruction.arg;
        continue;
      case Code::kNegate:
        *top = -*top;
        continue;
      case Code::kNot:
        *top = *top == 0;
        continue;
      case Code::kAbs:
        *top = std::fabs(*top);
        continue;
      case Code::kLog2:
      case Code::kIsPow2:
        if (const std::string what = apply(instruction.code, *top, 1, *top); !what.empty()) return what;
        continue;
      case Code::kMin:
      case Code::kMax: {
        double *first = top - (instruction.arg - 1);
        *first = instruction.code == Code::kMin ? *std::min_element(first, top + 1) : *std::max_element(first, top + 1);
        top = first;
        continue;
      }
      default:
        break;
    }
    const double right = *top--;
    double &left = *top;
    switch (instruction.code) {
      case Code::kAdd:
        left += right;
        break;
      case Code::kSubtract:
        left -= right;
        break;
      case Code::kMultiply:
        left *= right;
        break;
      case Code::kLess:
        left = left < right;
        break;
      case Code::kLessEqual:
        left = left <= right;
        break;
      case Code::kGreater:
        left = left > right;
        break;
      case Code::kGreaterEqual:
        left = left >= right;
        break;
      case Code::kEqual:
        left = left == right;
        break;
      case Code::kNotEqual:
        left = left != right;
        break;
      case Code::kAnd:
        left = left != 0 && right != 0;
        break;
      case Code::kOr:
        left = left != 0 || right != 0;
        break;
      default:
        if (const std::string what = apply(instruction.code, left, right, left); !what.empty()) return what;
        break;
    }
  }
  result = *top;
  return {};
}

// Works constants out. Each entry of the stack is the code of one value.
class Folder {
 public:
  // `known`: beside the names; those without a value have the place among the
  // names that stay.
  struct Name {
    std::optional<double> value;
    std::uint32_t slot = 0;
  };
  Folder(const std::vector<Instruction> &code, const std::vector<Name> &names) : code_(code), names_(names) {}

  std::vector<Instruction> fold() { return fold(0, code_.size()); }

 private:
  using Value = std::vector<Instruction>;
  static bool constant(const Value &value) { return value.size() == 1 && value[0].code == Code::kNumber; }
  static Value number(double value) { return {{Code::kNumber, 0, value}}; }
  static void append(Value &to, const Value &more) { to.insert(to.end(), more.begin(), more.end()); }

  Value fold(std::size_t begin, std::size_t end) const {
    std::vector<Value> stack;
    const auto pop = [&] {
      Value value = std::move(stack.back());
      stack.pop_back();
      return value;
    };
    for (std::size_t at = begin; at < end; ++at) {
      const Instruction &instruction = code_[at];
      switch (instruction.code) {
        case Code::kNumber:
          stack.push_back({instruction});
          continue;
        case Code::kName: {
          const Name &name = names_[instruction.arg];
          stack.push_back(name.value ? number(*name.value) : Value{{Code::kName, name.slot, 0}});
          continue;
        }
        case Code::kJumpIfZero: {
          Value test = pop();
          const std::size_t jump = at + instruction.arg;  // the last of the first branch
          const std::size_t after = jump + 1 + code_[jump].arg;
          if (constant(test)) {
            stack.push_back(test[0].value != 0 ? fold(at + 1, jump) : fold(jump + 1, after));
          } else {
            const Value yes = fold(at + 1, jump), no = fold(jump + 1, after);
            test.push_back({Code::kJumpIfZero, static_cast<std::uint32_t>(yes.size() + 1), 0});
            append(test, yes);
            test.push_back({Code::kJump, static_cast<std::uint32_t>(no.size()), 0});
            append(test, no);
            stack.push_back(std::move(test));
          }
          at = after - 1;
          continue;
        }
        default:
          break;
      }
      std::size_t count = 2;
      if (instruction.code == Code::kMin || instruction.code == Code::kMax) {
        count = instruction.arg;
      } else if (instruction.code == Code::kNegate || instruction.code == Code::kNot ||
                 instruction.code == Code::kAbs || instruction.code == Code::kLog2 ||
                 instruction.code == Code::kIsPow2) {
        count = 1;
      }
      Value made;
      bool all = true;
      for (std::size_t i = stack.size() - count; i < stack.size(); ++i) {
        all &= constant(stack[i]);
        append(made, stack[i]);
      }
      const bool logical = instruction.code == Code::kAnd || instruction.code == Code::kOr;
      if (logical && !all) {
        const Value right = pop(), left = pop();
        stack.push_back(logic(instruction.code, left, right, std::move(made)));
        continue;
      }
      stack.resize(stack.size() - count);
      made.push_back(instruction);
      double result = 0;
      if (all && run(made, count + 1, nullptr, result).empty()) made = number(result);
      stack.push_back(std::move(made));
    }
    return std::move(stack.back());
  }

  // One side or none is a number; `both` is the code of both.
  static Value logic(Code code, const Value &left, const Value &right, Value both) {
    const bool decides = code == Code::kOr;  // the truth of a side that decides alone
    for (const auto &[side, other] : {std::pair(&left, &right), std::pair(&right, &left)}) {
      if (!constant(*side)) continue;
      if (((*side)[0].value != 0) == decides) return number(decides ? 1 : 0);
      Value truth = *other;
      const Code last = truth.back().code;
      const bool is_truth = (last >= Code::kLess && last <= Code::kOr) || last == Code::kNot || last == Code::kIsPow2;
      if (!is_truth || std::ranges::count(truth, Code::kJumpIfZero, &Instruction::code) > 0) {
        truth.push_back({Code::kNumber, 0, 0});
        truth.push_back({Code::kNotEqual, 0, 0});
      }
      return truth;
    }
    both.push_back({code, 0, 0});
    return both;
  }

  const std::vector<Instruction> &code_;
  const std::vector<Name> &names_;
};

}  // namespace

std::int64_t symbol_value(std::string_view name) {
  constexpr std::uint64_t kBit = std::uint64_t{1} << 40;
  return static_cast<std::int64_t>(kBit | (XXH3_64bits(name.data(), name.size()) & (kBit - 1)));
}

Expr::Expr() = default;

Result<Expr> Expr::parse(std::string_view text) {
  auto program = std::make_shared<Program>();
  Compiler compiler(text, program->code);
  KGEN_CHECK_OK(compiler.run());
  program->text = text;
  program->depth = compiler.depth;
  program->names = compiler.names;
  std::sort(program->names.begin(), program->names.end());
  for (Instruction &instruction : program->code) {
    if (instruction.code != Code::kName) continue;
    const auto slot = std::lower_bound(program->names.begin(), program->names.end(), compiler.names[instruction.arg]);
    instruction.arg = static_cast<std::uint32_t>(slot - program->names.begin());
  }
  program->find_kind();
  Expr expr;
  expr.program_ = std::move(program);
  return expr;
}

Expr Expr::specialised(const Env &constants) const {
  if (!program_) return *this;
  std::vector<Folder::Name> names;
  auto program = std::make_shared<Program>();
  program->text = program_->text;
  program->depth = program_->depth + 1;  // the truth of a value is compared with a number
  std::vector<std::string> left;
  for (const std::string &name : program_->names) {
    Folder::Name &made = names.emplace_back();
    const auto known = constants.find(name);
    if (known != constants.end() && whole(static_cast<double>(known->second))) {
      made.value = static_cast<double>(known->second);
    } else {
      made.slot = static_cast<std::uint32_t>(left.size());
      left.push_back(name);
    }
  }
  program->code = Folder(program_->code, names).fold();
  // Names that no longer matter need no value.
  std::vector<std::uint32_t> slots(left.size(), UINT32_MAX);
  for (Instruction &instruction : program->code) {
    if (instruction.code == Code::kName) slots[instruction.arg] = 0;
  }
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (slots[i] == UINT32_MAX) continue;
    slots[i] = static_cast<std::uint32_t>(program->names.size());
    program->names.push_back(left[i]);
  }
  for (Instruction &instruction : program->code) {
    if (instruction.code == Code::kName) instruction.arg = slots[instruction.arg];
  }
  program->find_kind();
  Expr made;
  made.program_ = std::move(program);
  return made;
}

const std::string &Expr::text() const {
  static const std::string kEmpty;
  return program_ ? program_->text : kEmpty;
}

const std::vector<std::string> &Expr::names() const {
  static const std::vector<std::string> kNone;
  return program_ ? program_->names : kNone;
}

Result<std::int64_t> Expr::eval(const Env &env) const {
  if (!program_) return 0;
  const std::vector<std::string> &names = program_->names;
  std::int64_t few[16];
  std::vector<std::int64_t> many;
  std::int64_t *values = few;
  if (names.size() > std::size(few)) {
    many.resize(names.size());
    values = many.data();
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto found = env.find(names[i]);
    if (found == env.end())
      return fail(ErrorKind::kBadInput, fmt::format("'{}': unknown name '{}'", program_->text, names[i]));
    values[i] = found->second;
  }
  return eval_slots(values);
}

Result<std::int64_t> Expr::eval_slots(const std::int64_t *values) const {
  if (!program_) return 0;
  const Program &program = *program_;
  const auto error = [&](const std::string &what) {
    return fail(ErrorKind::kBadInput, fmt::format("'{}': {}", program.text, what));
  };
  for (std::size_t i = 0; i < program.names.size(); ++i) {
    if (!whole(static_cast<double>(values[i])))
      return error(fmt::format("{} = {} is not below 2^53", program.names[i], values[i]));
  }
  if (program.identity) return values[0];
  if (program.constant) return static_cast<std::int64_t>(program.code[0].value);

  double result = 0;
  if (const std::string what = run(program.code, program.depth, values, result); !what.empty()) return error(what);
  if (!whole(result)) return error("the result is not below 2^53");
  return static_cast<std::int64_t>(result);
}

// The stack's code as operations on results. Both branches of ?: are worked out; what is not known in the one that does
// not count does no harm.
class ExprSet::Translator {
 public:
  Translator(ExprSet &set, const std::vector<Instruction> &code, std::vector<Node> names)
      : set_(set), code_(code), names_(std::move(names)) {}

  Node translate(std::size_t begin, std::size_t end) const {
    std::vector<Node> stack;
    const auto pop = [&] {
      const Node node = stack.back();
      stack.pop_back();
      return node;
    };
    for (std::size_t at = begin; at < end; ++at) {
      const Instruction &instruction = code_[at];
      const auto code = static_cast<std::uint32_t>(instruction.code);
      switch (instruction.code) {
        case Code::kNumber:
          stack.push_back(set_.constant(instruction.value));
          break;
        case Code::kName:
          stack.push_back(names_[instruction.arg]);
          break;
        case Code::kJumpIfZero: {
          const std::size_t jump = at + instruction.arg;  // the last of the first branch
          const std::size_t after = jump + 1 + code_[jump].arg;
          const Node test = pop();
          const Node yes = translate(at + 1, jump), no = translate(jump + 1, after);
          stack.push_back(set_.operation(code, test, yes, no));
          at = after - 1;
          break;
        }
        case Code::kNegate:
        case Code::kNot:
        case Code::kAbs:
        case Code::kLog2:
        case Code::kIsPow2:
          stack.push_back(set_.operation(code, pop()));
          break;
        case Code::kMin:
        case Code::kMax: {
          Node best = pop();
          for (std::uint32_t i = 1; i < instruction.arg; ++i) best = set_.operation(code, pop(), best);
          stack.push_back(best);
          break;
        }
        default: {
          const Node right = pop(), left = pop();
          stack.push_back(set_.operation(code, left, right));
        }
      }
    }
    return stack.back();
  }

 private:
  ExprSet &set_;
  const std::vector<Instruction> &code_;
  const std::vector<Node> names_;
};

ExprSet::Node ExprSet::input(const std::string &name) {
  inputs_.push_back(static_cast<Node>(initial_.size()));
  initial_.push_back(kUnknown);
  this->name(name, inputs_.back());
  return inputs_.back();
}

// A name's node is now read: where it is an input, run() has to bring it.
ExprSet::Node ExprSet::read(Node node) {
  const auto input = std::ranges::lower_bound(inputs_, node);
  if (input != inputs_.end() && *input == node && std::ranges::find(read_, node, &Input::node) == read_.end())
    read_.push_back({static_cast<std::uint32_t>(input - inputs_.begin()), node});
  return node;
}

ExprSet::Node ExprSet::constant(double value) {
  // Results of operations and inputs stand there as unknown, which equals nothing.
  const auto same = std::ranges::find(initial_, value);
  if (same != initial_.end()) return static_cast<Node>(same - initial_.begin());
  initial_.push_back(value);
  return static_cast<Node>(initial_.size() - 1);
}

ExprSet::Node ExprSet::operation(std::uint32_t code, Node a, Node b, Node c) {
  constexpr std::size_t kLookBack = 500;  // a file may have very long expressions
  const std::size_t first = operations_.size() - std::min(operations_.size(), kLookBack);
  for (std::size_t i = first; i < operations_.size(); ++i) {
    if (const Operation &same = operations_[i]; same == Operation{code, a, b, c, same.to}) return same.to;
  }
  const auto to = static_cast<Node>(initial_.size());
  initial_.push_back(kUnknown);
  operations_.push_back({code, a, b, c, to});
  return to;
}

ExprSet::Node ExprSet::add(const Expr &expr) {
  if (!expr.program_) return constant(0);
  std::vector<Node> names;
  for (const std::string &name : expr.names()) {
    const auto known = names_.find(name);
    if (known == names_.end()) {
      initial_.push_back(kUnknown);
      return static_cast<Node>(initial_.size() - 1);
    }
    names.push_back(read(known->second));
  }
  const std::vector<Instruction> &code = expr.program_->code;
  return Translator(*this, code, std::move(names)).translate(0, code.size());
}

void ExprSet::run(std::span<const double> values, std::vector<double> &results) const {
  results.assign(initial_.begin(), initial_.end());
  double *const at = results.data();
  for (const Input &input : read_) at[input.node] = values[input.value];
  for (const Operation &operation : operations_) {
    const double a = at[operation.a], b = at[operation.b];
    double &to = at[operation.to];
    const auto truth = [&](bool holds) { return std::isunordered(a, b) ? kUnknown : static_cast<double>(holds); };
    switch (static_cast<Code>(operation.code)) {
      case Code::kAdd:
        to = a + b;
        break;
      case Code::kSubtract:
        to = a - b;
        break;
      case Code::kMultiply:
        to = a * b;
        break;
      case Code::kLess:
        to = truth(a < b);
        break;
      case Code::kLessEqual:
        to = truth(a <= b);
        break;
      case Code::kGreater:
        to = truth(a > b);
        break;
      case Code::kGreaterEqual:
        to = truth(a >= b);
        break;
      case Code::kEqual:
        to = truth(a == b);
        break;
      case Code::kNotEqual:
        to = truth(a != b);
        break;
      case Code::kAnd:
        to = truth(a != 0 && b != 0);
        break;
      case Code::kOr:
        to = truth(a != 0 || b != 0);
        break;
      case Code::kNegate:
        to = -a;
        break;
      case Code::kNot:
        to = std::isnan(a) ? a : static_cast<double>(a == 0);
        break;
      case Code::kAbs:
        to = std::fabs(a);
        break;
      case Code::kMin:
        to = std::isunordered(a, b) ? kUnknown : std::min(a, b);
        break;
      case Code::kMax:
        to = std::isunordered(a, b) ? kUnknown : std::max(a, b);
        break;
      case Code::kJumpIfZero:
        to = std::isnan(a) ? a : a != 0 ? b : at[operation.c];
        break;
      case Code::kDivide: {
        const Quotient quotient = divide(a, b);
        to = quotient.rest ? kUnknown : quotient.down();
        break;
      }
      case Code::kModulo:
        to = remainder(a, b);
        break;
      case Code::kFloorDiv:
        to = divide(a, b).down();
        break;
      case Code::kCeilDiv:
        to = divide(a, b).up();
        break;
      case Code::kRoundUp:
        to = divide(a, b).up() * b;
        break;
      case Code::kLog2:
        to = whole(a) && a >= 1 ? 63 - __builtin_clzll(static_cast<std::uint64_t>(a)) : kUnknown;
        break;
      case Code::kIsPow2:
        to = !whole(a) ? kUnknown : a > 0 && (static_cast<std::uint64_t>(a) & (static_cast<std::uint64_t>(a) - 1)) == 0;
        break;
      case Code::kNumber:
      case Code::kName:
      case Code::kJump:
        break;  // are no operations
    }
  }
}

}  // namespace kgen
