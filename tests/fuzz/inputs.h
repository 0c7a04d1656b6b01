// What the fuzz targets and the replay of their seeds do with one input. The targets: "spec" (a YAML spec), "op" (an
// operator definition), "expr" (an expression), "db" (a database file, opened by the runtime and by the tools),
// "recording" (a T4 file or a Kernel Tuner cache), "trace" (a record of misses).
#pragma once

#include <string>
#include <string_view>

namespace kgen {

// Any input ends in a value or an error. Aborts where what came out breaks a promise. Writes to stdout what the tools
// print.
void try_input(std::string_view target, std::string_view data);

// What became of a database file.
struct Outcome {
  bool opened = false;         // by the runtime
  int found = 0, refused = 0;  // lookups with a kernel; with none, or with one that could not be loaded
  int objects = 0;             // code objects that were given out, each with the hash that it has
  int check = -1, merge = -1, show = -1, migrate = -1;  // exit codes of the tools
};

// Everything the runtime and the tools do with a database file; `scratch` is a folder for what they write. Aborts where
// a code object does not match its hash, or what was merged is not clean.
Outcome try_database(const std::string& path, const std::string& scratch);

}  // namespace kgen
