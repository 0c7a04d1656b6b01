#include "runtime/shipped.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace kgen {

Result<std::string> shipped_db() {
  namespace fs = std::filesystem;
  std::error_code unknown;
  if (const char* named = std::getenv("KGEN_SHIPPED_DB"); named != nullptr && *named != '\0') {
    if (fs::exists(named, unknown)) return std::string(named);
    return fail(ErrorKind::kBadInput,
                fmt::format("no database was named, and KGEN_SHIPPED_DB={} does not exist", named));
  }
  std::vector<fs::path> files = {fs::read_symlink("/proc/self/exe", unknown)};
  if (Dl_info about{}; ::dladdr(reinterpret_cast<const void*>(&shipped_db), &about) != 0 && about.dli_fname != nullptr)
    files.insert(files.begin(), fs::canonical(about.dli_fname, unknown));
  std::string looked;
  for (const fs::path& file : files) {
    if (file.empty() || (&file != &files.front() && file == files.front())) continue;
    const fs::path folder = file.parent_path();
    // PREFIX/lib and PREFIX/bin; PREFIX/lib/x86_64-linux-gnu; a folder with both.
    for (const fs::path& place : {folder / "../share/kgen", folder / "../../share/kgen", folder}) {
      const fs::path found = (place / "shipped.db").lexically_normal();
      if (fs::exists(found, unknown)) return found.string();
      looked += (looked.empty() ? "" : ", ") + found.string();
    }
  }
  return fail(ErrorKind::kBadInput,
              fmt::format("no database was named, and none ships with this kgen (looked for {})", looked));
}

}  // namespace kgen
