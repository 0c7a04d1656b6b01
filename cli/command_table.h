// The commands with what they take, as `kgen --help --json` tells it: what completions and manual pages are made from.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "cli/cli.h"

namespace kgen {

// What may stand for a flag's value or an argument.
struct ValueKind {
  Words words{};     // one of these
  Words suffixes{};  // a file whose name ends so; {""}: any file
};

struct CommandFlag {
  Words names;        // {"-o", "--output"}
  std::string value;  // "FILE"; "" = takes none
  ValueKind kind;
  bool repeats = false;
  std::string help;
};
struct CommandArgument {
  std::string name;
  ValueKind kind;
  bool required = false, many = false;
  std::string help;
};
// One manual page: "tune", "db check".
struct CommandPage {
  std::string name, usage, help;
  std::vector<CommandArgument> arguments;
  std::vector<CommandFlag> flags;
};
struct CommandEntry {
  std::string name, help;
  std::vector<CommandPage> pages;  // several: of a family, whose names begin with the command's
  bool is_family() const { return pages.size() > 1; }
};

Result<std::vector<CommandEntry>> command_table(const Context&);

}  // namespace kgen
