// Integer expressions over named values, as op definitions and launch plans use
// them. They are computed in double, so every value and result must be an
// integer below 2^53; anything else is an error.
//
// Syntax: + - * / % ( ) < <= > >= == != && || ! ?: and min max abs;
// ceil_div(a,b) floor_div(a,b) round_up(a,b) log2(a) is_pow2(a). log2 rounds
// down. `/` is exact division: a remainder is an error at evaluation (use
// ceil_div or floor_div).
// && and || evaluate both sides, so guard a division with ?: ("b != 0 ? a / b :
// 0"), which evaluates one branch. Enumerators (bf16, nk, mfma, gfx90a …) are
// names too: symbol_value("nk") is the value bound to the name `nk`.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kgen {

// Names bound to integers. Kept sorted so that texts made from it are the same
// every time.
using Env = std::map<std::string, std::int64_t, std::less<>>;

// A stable integer for an enumerator's name, equal names giving equal values in
// every process and version (hash of the text, in [2^40, 2^41), so that it
// meets no dimension by accident).
std::int64_t symbol_value(std::string_view name);

class Expr {
 public:
  Expr();  // the constant 0, text() == ""

  // Parses; the error names the column in `text`. Parsing does not need the
  // values of the names.
  static Result<Expr> parse(std::string_view text);

  const std::string &text() const;
  // Names the expression reads, sorted, each once.
  const std::vector<std::string> &names() const;

  // Value with every name bound by `env`. Names that are missing are an error
  // naming them. Safe from any thread.
  Result<std::int64_t> eval(const Env &env) const;

  // The same expression with these names bound for good, and what follows from
  // them worked out. What does not matter any more is not evaluated: the right
  // side of `1 || x / 0` is gone, and its error with it. text() stays.
  Expr specialised(const Env &constants) const;

  // Values by position in names(). Safe from any thread.
  Result<std::int64_t> eval_slots(const std::int64_t *values) const;

 private:
  friend class ExprSet;
  struct Program;
  std::shared_ptr<const Program> program_;  // shared by copies
};

// Expressions that are evaluated together, for shape after shape: straight code over numbers, in which what they have
// in common is worked out once. Immutable once it is made, then safe from any thread.
class ExprSet {
 public:
  using Node = std::uint32_t;  // a value, by its place among run()'s results

  // What later expressions mean by `name`: one of run()'s values, or what was worked out before.
  Node input(const std::string &name);
  void name(const std::string &name, Node node) { names_.insert_or_assign(name, node); }
  // A name that is not known makes an expression that has no value.
  Node add(const Expr &);

  // `values`: of the inputs, in the order in which they were made. `results` grows to what it needs. What Expr::eval()
  // refuses has a result that is not known().
  void run(std::span<const double> values, std::vector<double> &results) const;
  static bool known(double result) { return std::fabs(result) < 9007199254740992; }  // 2^53

 private:
  struct Operation {
    std::uint32_t code;
    Node a, b, c, to;
    bool operator==(const Operation &) const = default;
  };
  class Translator;
  Node constant(double);
  Node operation(std::uint32_t code, Node a, Node b = 0, Node c = 0);

  struct Input {
    std::uint32_t value = 0;  // which of run()'s
    Node node = 0;
  };
  Node read(Node);

  std::map<std::string, Node, std::less<>> names_;
  std::vector<double> initial_;  // what run() starts with: constants
  std::vector<Node> inputs_;
  std::vector<Input> read_;  // those that an expression reads
  std::vector<Operation> operations_;
};

}  // namespace kgen
