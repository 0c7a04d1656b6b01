#include "base/result.h"

namespace kgen {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kBadInput:
    case ErrorKind::kIo:
      return 2;
    case ErrorKind::kNoDevice:
    case ErrorKind::kNoCompiler:
      return 3;
    case ErrorKind::kCheckFailed:
    case ErrorKind::kDevice:
    case ErrorKind::kInternal:
      return 1;
  }
  return 1;
}

}  // namespace kgen
