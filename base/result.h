// Errors as values. Every host function that can fail returns Result<T>; foreign exceptions stop where they enter.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace kgen {

// What went wrong, as far as the exit code and the caller's next step depend on it.
enum class ErrorKind {
  kBadInput,     // spec, flag, file or DB that the user gave: exit code 2
  kNoDevice,     // no usable device or driver: exit code 3
  kNoCompiler,   // no compiler for this architecture: exit code 3
  kCheckFailed,  // the work was done and its result is wrong: exit code 1
  kDevice,       // the driver refused or faulted
  kIo,           // files, pipes, disk full, permissions: exit code 2
  kInternal,     // a bug in kgen
};

// `message` is one line: "file:line:column: what is wrong; what to do".
struct Error {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(ErrorKind kind, std::string message) {
  return tl::unexpected<Error>(Error{kind, std::move(message)});
}

// Process exit code for an error: 1, 2 or 3 (PRODUCT: "Exit codes").
int exit_code(ErrorKind kind);

}  // namespace kgen

// KGEN_TRY(value, expression): bind the value or return the error to the caller.
#define KGEN_TRY_CAT2(a, b) a##b
#define KGEN_TRY_CAT(a, b) KGEN_TRY_CAT2(a, b)
#define KGEN_TRY(decl, expr)                                                                                           \
  auto KGEN_TRY_CAT(kgen_try_, __LINE__) = (expr);                                                                     \
  if (!KGEN_TRY_CAT(kgen_try_, __LINE__)) return tl::unexpected(std::move(KGEN_TRY_CAT(kgen_try_, __LINE__).error())); \
  decl = std::move(*KGEN_TRY_CAT(kgen_try_, __LINE__))
// KGEN_CHECK_OK(expression): for Result<void>.
#define KGEN_CHECK_OK(expr)                                                          \
  do {                                                                               \
    auto kgen_try_result = (expr);                                                   \
    if (!kgen_try_result) return tl::unexpected(std::move(kgen_try_result.error())); \
  } while (0)
