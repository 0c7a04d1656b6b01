// The files of ops/ and templates/ as bytes inside the binary.
#pragma once

#include <string_view>
#include <vector>

namespace kgen {

struct EmbeddedFile {
  std::string_view path;  // from the repository root: "templates/mma/mfma.h"
  std::string_view content;
};
const std::vector<EmbeddedFile>& embedded_files();

}  // namespace kgen
