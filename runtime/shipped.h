// The database that ships with kgen: used where a program or a command names none (docs/database.md).
#pragma once

#include <string>

#include "base/result.h"

namespace kgen {

// $KGEN_SHIPPED_DB where it is set; else share/kgen/shipped.db of the installation that this code is in (the library,
// or the program that has it linked), or shipped.db beside it. kBadInput, with where it was looked for, when there is
// none.
Result<std::string> shipped_db();

}  // namespace kgen
