// Inside the library of compile.h: what reading code objects takes and other files of it need, too.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kgen {

// Path of an LLVM tool, the newest version's first: "llvm-objdump-19", else the one without a number, else ROCm's.
// kNoCompiler, one line with what to install, where there is none.
Result<std::string> find_llvm_tool(const std::string& name);

// The AMD code objects of an offload bundle, or the file itself.
Result<std::vector<std::span<const std::byte>>> unbundle(std::span<const std::byte> file);

// llvm-objdump's listing of an AMD code object, branches naming their targets "L7", whose lines read "… <L7>:".
Result<std::string> disassemble(std::span<const std::byte> object);

}  // namespace kgen
