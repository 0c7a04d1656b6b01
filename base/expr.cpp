#include "base/expr.h"

#include <fmt/core.h>
#include <muParserBase.h>
#include <muParserError.h>
#include <xxhash.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <mutex>
#include <optional>

#include "base/text.h"

namespace kgen {
namespace {

constexpr std::int64_t kLimit = std::int64_t{1} << 53;  // beyond it a double no longer holds every integer
constexpr char kDivide = '~';  // muparser's own '/' gives fractions, so exact division has a sign of its own inside

// Thrown by the callbacks below through muparser, caught in evaluate().
struct EvalError {
  std::string what;
};

std::int64_t integer(double value) {
  if (!(std::fabs(value) < static_cast<double>(kLimit))) throw EvalError{"a value is not below 2^53"};
  return static_cast<std::int64_t>(value);
}

std::int64_t floor_quotient(std::int64_t a, std::int64_t b) {
  if (b == 0) throw EvalError{"division by zero"};
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

double exact_divide(double a, double b) {
  const std::int64_t n = integer(a), d = integer(b);
  if (d == 0) throw EvalError{"division by zero"};
  if (n % d != 0) throw EvalError{fmt::format("{} / {} leaves a remainder; use ceil_div or floor_div", n, d)};
  const std::int64_t quotient = n / d;
  return static_cast<double>(quotient);
}
double modulo(double a, double b) {
  const std::int64_t n = integer(a), d = integer(b);
  if (d == 0) throw EvalError{"division by zero"};
  return static_cast<double>(n % d);
}
double floor_div(double a, double b) { return static_cast<double>(floor_quotient(integer(a), integer(b))); }
double ceil_div(double a, double b) { return static_cast<double>(-floor_quotient(-integer(a), integer(b))); }
double round_up(double a, double b) { return ceil_div(a, b) * b; }
double log2_floor(double a) {
  std::int64_t value = integer(a);
  if (value < 1) throw EvalError{fmt::format("log2 of {}", value)};
  int log = 0;
  while (value >>= 1) ++log;
  return log;
}
double is_pow2(double a) {
  const std::int64_t value = integer(a);
  return value > 0 && (value & (value - 1)) == 0;
}
double absolute(double a) { return std::fabs(a); }
double minimum(const double* values, int count) { return *std::min_element(values, values + count); }
double maximum(const double* values, int count) { return *std::max_element(values, values + count); }
double negate(double a) { return -a; }
double plus(double a) { return a; }
double logical_not(double a) { return a == 0; }

const std::vector<std::string> kFunctions = {"ceil_div", "floor_div", "round_up", "log2",
                                             "is_pow2",  "abs",       "min",      "max"};

bool name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

std::optional<std::int64_t> parse_integer(std::string_view digits) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size() || value >= kLimit) return std::nullopt;
  return value;
}

int read_number(const char* text, int* position, double* value) {
  int length = 0;
  while (digit(text[length])) ++length;
  if (length == 0) return 0;
  *value = static_cast<double>(*parse_integer({text, static_cast<std::size_t>(length)}));  // scan() has checked it
  *position += length;
  return 1;
}

// muparser with integers only, and with exactly the operators and functions that the header lists.
class Parser final : public mu::ParserBase {
 public:
  Parser() {
    InitCharSets();
    InitFun();
    InitConst();
    InitOprt();
    AddValIdent(read_number);
  }

 private:
  void InitCharSets() override {
    DefineNameChars("0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    DefineOprtChars("+-*%<>=!&|?:~");
    DefineInfixOprtChars("+-!");
  }
  void InitFun() override {
    DefineFun("ceil_div", ceil_div, false);
    DefineFun("floor_div", floor_div, false);
    DefineFun("round_up", round_up, false);
    DefineFun("log2", log2_floor, false);
    DefineFun("is_pow2", is_pow2, false);
    DefineFun("abs", absolute, false);
    DefineFun("min", minimum, false);
    DefineFun("max", maximum, false);
  }
  void InitConst() override {}
  void InitOprt() override {
    DefineInfixOprt("-", negate, mu::prPOW);
    DefineInfixOprt("+", plus, mu::prPOW);
    DefineInfixOprt("!", logical_not, mu::prPOW);
    DefineOprt(std::string(1, kDivide), exact_divide, mu::prMUL_DIV);
    DefineOprt("%", modulo, mu::prMUL_DIV);
  }
};

// What parsing finds, shared by copies.
struct Program {
  std::string text;
  std::string for_muparser;
  std::vector<std::string> names;
  std::optional<std::int64_t> constant;  // the whole text is one number …
  bool identity = false;                 // … or one name: most expressions of a plan, and no parser is needed
};

Error at_column(std::size_t column, std::string_view text, const std::string& what) {
  return Error{ErrorKind::kBadInput, fmt::format("column {} of '{}': {}", column + 1, text, what)};
}

// Finds the names and refuses what muparser would take but the header does not allow.
Result<Program> scan(std::string_view text) {
  Program program;
  program.text = text;
  program.for_muparser = text;
  std::size_t tokens = 0, names = 0;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    std::size_t end = i + 1;
    if (std::isspace(static_cast<unsigned char>(c))) {
      program.for_muparser[i] = ' ';
      ++i;
      continue;
    }
    if (name_start(c)) {
      while (end < text.size() && name_char(text[end])) ++end;
      const std::size_t next = text.find_first_not_of(" \t", end);
      if (next == std::string_view::npos || text[next] != '(') {
        program.names.emplace_back(text.substr(i, end - i));
        ++names;
      } else {
        const std::string function(text.substr(i, end - i));
        if (std::find(kFunctions.begin(), kFunctions.end(), function) == kFunctions.end())
          return tl::unexpected(
              at_column(i, text, "unknown function '" + function + "'" + did_you_mean(function, kFunctions)));
      }
    } else if (digit(c)) {
      while (end < text.size() && digit(text[end])) ++end;
      if (end < text.size() && (name_char(text[end]) || text[end] == '.'))
        return tl::unexpected(at_column(i, text, "only integers are allowed"));
      const auto value = parse_integer(text.substr(i, end - i));
      if (!value) return tl::unexpected(at_column(i, text, "a number must be below 2^53"));
      program.constant = value;
    } else if (c == '/') {
      program.for_muparser[i] = kDivide;
    } else if (c == '=' || c == '<' || c == '>' || c == '!') {
      if (end < text.size() && text[end] == '=') {
        ++end;
      } else if (c == '=') {
        return tl::unexpected(at_column(i, text, "'=' assigns nothing here; compare with '=='"));
      }
    } else if (c == '&' || c == '|') {
      if (end >= text.size() || text[end] != c)
        return tl::unexpected(
            at_column(i, text, fmt::format("'{}' is not an operator; did you mean '{}{}'?", c, c, c)));
      ++end;
    } else if (std::string_view("+-*%()?:,").find(c) == std::string_view::npos) {
      return tl::unexpected(at_column(i, text, fmt::format("unexpected character '{}'", c)));
    }
    ++tokens;
    i = end;
  }
  if (tokens == 0) return tl::unexpected(at_column(0, text, "the expression is empty"));
  if (tokens != 1) program.constant.reset();
  program.identity = tokens == 1 && names == 1;
  std::sort(program.names.begin(), program.names.end());
  program.names.erase(std::unique(program.names.begin(), program.names.end()), program.names.end());
  return program;
}

// muparser's message in our terms: the division sign put back, and its own 0-based position left out for our column.
std::string own_words(std::string message) {
  std::replace(message.begin(), message.end(), kDivide, '/');
  for (const char* tail : {" found at position", " at position", " at expression position"}) {
    const std::size_t found = message.find(tail);
    if (found != std::string::npos) message.erase(found);
  }
  return message;
}

// A parser with its variables. Compiled on the first evaluation of each copy.
struct Machine {
  Parser parser;
  std::vector<double> slots;

  explicit Machine(const Program& program) : slots(program.names.size(), 0.0) {
    for (std::size_t i = 0; i < slots.size(); ++i) parser.DefineVar(program.names[i], &slots[i]);
    parser.SetExpr(program.for_muparser);
  }
};

}  // namespace

std::int64_t symbol_value(std::string_view name) {
  constexpr std::uint64_t kBit = std::uint64_t{1} << 40;
  return static_cast<std::int64_t>(kBit | (XXH3_64bits(name.data(), name.size()) & (kBit - 1)));
}

struct Expr::Impl {
  std::shared_ptr<const Program> program;
  std::unique_ptr<Machine> machine;
  std::mutex mutex;  // eval() may be called from any thread

  Result<std::int64_t> evaluate(const std::int64_t* values) {
    const auto error = [&](const std::string& what) {
      return fail(ErrorKind::kBadInput, fmt::format("'{}': {}", program->text, what));
    };
    const std::size_t count = program->names.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (values[i] <= -kLimit || values[i] >= kLimit)
        return error(fmt::format("{} = {} is not below 2^53", program->names[i], values[i]));
    }
    if (program->identity) return values[0];
    if (program->constant) return *program->constant;
    double result = 0;
    try {
      if (!machine) machine = std::make_unique<Machine>(*program);
      for (std::size_t i = 0; i < count; ++i) machine->slots[i] = static_cast<double>(values[i]);
      result = machine->parser.Eval();
    } catch (const EvalError& failure) {
      return error(failure.what);
    } catch (const mu::ParserError& failure) {
      return error(own_words(failure.GetMsg()));
    }
    if (!(std::fabs(result) < static_cast<double>(kLimit))) return error("the result is not below 2^53");
    const auto whole = static_cast<std::int64_t>(result);
    if (static_cast<double>(whole) != result) return error("the result is not an integer");
    return whole;
  }
};

Expr::Expr() = default;
Expr::~Expr() = default;
Expr::Expr(Expr&&) noexcept = default;
Expr& Expr::operator=(Expr&&) noexcept = default;

Expr::Expr(const Expr& other) {
  if (!other.impl_) return;
  impl_ = std::make_unique<Impl>();
  impl_->program = other.impl_->program;
}

Expr& Expr::operator=(const Expr& other) {
  if (this != &other) *this = Expr(other);
  return *this;
}

Result<Expr> Expr::parse(std::string_view text) {
  KGEN_TRY(Program program, scan(text));
  auto impl = std::make_unique<Impl>();
  if (!program.identity && !program.constant) {
    try {
      impl->machine = std::make_unique<Machine>(program);
      // Only compiling finds syntax errors. Evaluating with zeros does it; what it computes does not matter.
      impl->machine->parser.Eval();
    } catch (const EvalError&) {
    } catch (const mu::ParserError& failure) {
      const int position = std::max(0, failure.GetPos());
      return tl::unexpected(at_column(std::min<std::size_t>(static_cast<std::size_t>(position), text.size()), text,
                                      own_words(failure.GetMsg())));
    }
  }
  impl->program = std::make_shared<const Program>(std::move(program));
  Expr expr;
  expr.impl_ = std::move(impl);
  return expr;
}

const std::string& Expr::text() const {
  static const std::string kEmpty;
  return impl_ ? impl_->program->text : kEmpty;
}

const std::vector<std::string>& Expr::names() const {
  static const std::vector<std::string> kNone;
  return impl_ ? impl_->program->names : kNone;
}

Result<std::int64_t> Expr::eval(const Env& env) const {
  if (!impl_) return 0;
  const std::vector<std::string>& names = impl_->program->names;
  std::int64_t few[16];
  std::vector<std::int64_t> many;
  std::int64_t* values = few;
  if (names.size() > std::size(few)) {
    many.resize(names.size());
    values = many.data();
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto found = env.find(names[i]);
    if (found == env.end())
      return fail(ErrorKind::kBadInput, fmt::format("'{}': unknown name '{}'", impl_->program->text, names[i]));
    values[i] = found->second;
  }
  const std::lock_guard lock(impl_->mutex);
  return impl_->evaluate(values);
}

Result<std::int64_t> Expr::eval_slots(const std::int64_t* values) const {
  if (!impl_) return 0;
  return impl_->evaluate(values);
}

}  // namespace kgen
