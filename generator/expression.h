// The arithmetic of a pointwise operator, as text: "relu(x*scale[row] + shift[row])" or, with several outputs,
// "sum = x + y; out = relu(sum)". Parsed here into the operands that it reads, a canonical text and the C++ that
// computes it (docs/op-format.md, "Operators made by an expression").
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kgen {

// How an operand of an expression lies over the matrix: everywhere, one value a column, one value a row, one value.
enum class OperandKind { kMatrix, kCol, kRow, kScalar, kOutput };
inline constexpr std::array<std::string_view, 5> kOperandKinds = {"matrix", "col", "row", "scalar", "output"};

struct Expression {
  std::string text;  // canonical: no spaces, so that it is one word of a signature; parses to the same expression
  std::array<std::vector<std::string>, kOperandKinds.size()> operands;  // by kind, in order of appearance
  int operations = 0;                                                   // operators and function calls
  // Statements that assign output[i], reading matrix[i], col[i], row[i] and scalar[i] (and outputs made before). A
  // number is T(…), a function F::name(…).
  std::vector<std::string> code;

  const std::vector<std::string>& of(OperandKind kind) const { return operands[static_cast<std::size_t>(kind)]; }

  // `columns` are names that mean one value a column even without "[col]". Errors name the column in `text`.
  static Result<Expression> parse(std::string_view text, const std::vector<std::string>& columns);
};

}  // namespace kgen
