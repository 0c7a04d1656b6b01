#include "runtime/shipped.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace kgen {
namespace {

// The file that this code was loaded from: the library, or the program that has it linked. "" where /proc is not there.
std::string own_file() {
  const auto here = reinterpret_cast<std::uintptr_t>(&shipped_db);
  std::ifstream maps("/proc/self/maps");
  std::string line;  // "55d0c000-55d0e000 r-xp 00002000 fe:01 1234   /usr/lib/libkgen.so.0"
  while (std::getline(maps, line)) {
    std::istringstream words(line);
    std::uintptr_t from = 0, to = 0;
    char dash = 0;
    words >> std::hex >> from >> dash >> to;
    if (words && from <= here && here < to && line.find('/') != std::string::npos) return line.substr(line.find('/'));
  }
  return "";
}

}  // namespace

Result<std::string> shipped_db() {
  namespace fs = std::filesystem;
  std::error_code unknown;
  if (const char* named = std::getenv("KGEN_SHIPPED_DB"); named != nullptr && *named != '\0') {
    if (fs::exists(named, unknown)) return std::string(named);
    return fail(ErrorKind::kBadInput,
                fmt::format("no database was named, and KGEN_SHIPPED_DB={} does not exist", named));
  }
  const fs::path own = own_file();
  std::string looked;
  const fs::path folder = own.parent_path();
  // PREFIX/lib and PREFIX/bin; PREFIX/lib/x86_64-linux-gnu; a folder with both.
  for (const fs::path& place : {folder / "../share/kgen", folder / "../../share/kgen", folder}) {
    const fs::path found = (place / "shipped.db").lexically_normal();
    if (!own.empty() && fs::exists(found, unknown)) return found.string();
    looked += (looked.empty() ? "" : ", ") + found.string();
  }
  return fail(ErrorKind::kBadInput,
              fmt::format("no database was named, and none ships with this kgen (looked for {})", looked));
}

}  // namespace kgen
