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

#include <cstdint>
#include <map>
#include <memory>
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

  // The fast path: values by position in names(). Safe from any thread.
  Result<std::int64_t> eval_slots(const std::int64_t *values) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;  // shared by copies
};

}  // namespace kgen
