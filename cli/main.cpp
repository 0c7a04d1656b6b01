// kgen: op specs → specialised GPU kernels, tuned on the device in front of it.
#include <fmt/core.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <iterator>
#include <system_error>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "tuner/session.h"

namespace kgen {
namespace {

struct Command {
  const char* name;
  const char* help;
  int (*run)(const Context&, const Words&);
};

constexpr Command kCommands[] = {
    {"tune", "tune the problems of spec files on a device into a database", cmd_tune},
    {"fold", "fold a batch norm into the weight and bias before it", cmd_fold},
    {"gen", "write kernel sources (and code objects) without a GPU", cmd_gen},
    {"compile", "compile one source to one code object", cmd_compile},
    {"inspect", "registers, LDS, spills, occupancy, matrix instructions of code objects", cmd_inspect},
    {"verify", "check winners, or one candidate, against the reference", cmd_verify},
    {"bench", "time winners again, those of several databases in turns", cmd_bench},
    {"show", "what a database holds", cmd_show},
    {"report", "one self-contained page of what databases hold", cmd_report},
    {"lookup", "what the runtime would choose for a shape, and why", cmd_lookup},
    {"explain", "why the runtime chooses what it does for a shape, reason by reason", cmd_explain},
    {"doctor", "a recorded trace of launches against a database, and what to tune", cmd_doctor},
    {"devices", "the devices of this machine", cmd_devices},
    {"ops", "the operators, or one of them in detail", cmd_ops},
    {"simulate", "replay a search on recorded, fully measured spaces", cmd_simulate},
    {"completion", "what bash, zsh or fish need to complete kgen's commands", cmd_completion},
    {"man", "the manual pages", cmd_man},
    {"db", "care of database files: check, merge, prune, sign, export, import …", cmd_db},
};

void print_help() {
  fmt::print("kgen {}: specialised GPU kernels from op specs\n\nUsage: kgen COMMAND …\n\nCommands:\n", KGEN_VERSION);
  for (const Command& command : kCommands) fmt::print("  {:<10} {}\n", command.name, command.help);
  fmt::print("\n'kgen COMMAND --help' tells the flags of a command; 'kgen --version' the version.\n");
}

// The table above and, of each command, its pages (Options), as one JSON document: `kgen --help --json`.
int print_table() {
  fmt::print("{{\"version\": \"{}\", \"commands\": [\n", KGEN_VERSION);
  for (const Command& command : kCommands) {
    fmt::print("{}{{\"name\": {}, \"help\": {}, \"pages\": [\n", &command == kCommands ? "" : ",\n",
               Json(command.name).dump(), Json(command.help).dump());
    if (const int code = command.run(Context{}, kHelpAsJson); code != 0) return code;
    fmt::print("]}}");
  }
  fmt::print("]}}\n");
  return 0;
}

std::string own_path(const char* name) {
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
  return length > 0 ? std::string(path, static_cast<std::size_t>(length)) : name;
}

int dispatch(const char* program, const Words& words) {
  if (words.empty()) {
    print_help();
    return 2;
  }
  const std::string& name = words.front();
  const Words args(words.begin() + 1, words.end());
  if (words == kHelpAsJson) return print_table();
  if (name == "--help" || name == "-h" || name == "help") {
    print_help();
    return 0;
  }
  if (name == "--version") {
    fmt::print("kgen {}\n", KGEN_VERSION);
    return 0;
  }
  // Children of the tuner and the compiler; not for people.
  if (name == "__worker" && args.size() == 1) return worker_main(args[0]);
  if (name == "__compile-worker" && args.empty()) return compile_worker_main();

  Words names = {"--help", "--version"};
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run(Context{own_path(program)}, args);
    names.emplace_back(command.name);
  }
  fmt::print(stderr, "kgen: unknown command '{}'{}; see 'kgen --help'\n", name, did_you_mean(name, names));
  return 2;
}

}  // namespace
}  // namespace kgen

int main(int argc, char** argv) {
  int code = 2;
  try {
    code = kgen::dispatch(argv[0], kgen::Words(argv + 1, argv + argc));
  } catch (const std::system_error& error) {  // fmt cannot write: a full disk, seen before the last flush
    fmt::print(stderr, "kgen: {}\n", error.what());
    return code;
  }
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::perror("kgen: cannot write to stdout");
  return code == 0 ? 2 : code;
}
