#include "cli/command_table.h"

#include <fmt/core.h>

#include "base/plan.h"
#include "base/text.h"
#include "cli/options.h"
#include "generator/spec.h"
#include "tuner/process.h"

namespace kgen {
namespace {

ValueKind kind_of(std::string name, const Words& choices) {
  if (!choices.empty()) return {.words = choices};
  if (name.ends_with("…")) name.resize(name.size() - std::string_view("…").size());
  if (name == "DB") return {.suffixes = {".db"}};
  if (name == "SPEC") return {.suffixes = {".yaml", ".yml"}};
  if (name == "FILE" || name == "SPACE") return {.suffixes = {""}};
  if (name == "DEVICE") return {.words = {"auto", "host", "all", "nvidia:0", "amd:0"}};
  if (name == "DTYPE") return {.words = dtype_names()};
  if (name == "OP") return {.words = builtin_ops()};
  if (name == "SHELL") return {.words = {"bash", "zsh", "fish"}};
  ValueKind kind;
  if (name == "ARCH") {
    for (const ArchInfo& arch : all_archs()) kind.words.emplace_back(arch.name);
    kind.words.emplace_back("all");
  }
  return kind;
}

CommandPage page_of(const Json& json) {
  CommandPage page{
      .name = json.at("name"), .usage = json.at("usage"), .help = json.at("help"), .arguments = {}, .flags = {}};
  for (const Json& argument : json.at("arguments"))
    page.arguments.push_back({.name = argument.at("name"),
                              .kind = kind_of(argument.at("name"), {}),
                              .required = argument.at("required"),
                              .many = argument.at("many"),
                              .help = argument.at("help")});
  for (const Json& flag : json.at("flags"))
    page.flags.push_back({.names = flag.at("names"),
                          .value = flag.at("value"),
                          .kind = kind_of(flag.at("value"), flag.at("choices")),
                          .repeats = flag.at("repeats"),
                          .help = flag.at("help")});
  return page;
}

}  // namespace

// From a process of its own, because commands say what they take on stdout.
Result<std::vector<CommandEntry>> command_table(const Context& context) {
  constexpr double kSeconds = 60;
  Words command{context.self};
  command.insert(command.end(), kHelpAsJson.begin(), kHelpAsJson.end());
  KGEN_TRY(const RunResult run, run_program(command, {.timeout_seconds = kSeconds, .output_bytes = 1 << 20}));
  const Json json = Json::parse(run.output, nullptr, false);
  if (run.end != RunResult::End::kExited || run.code != 0 || !json.is_object())
    return fail(ErrorKind::kInternal, fmt::format("'{}' {}", join(command, " "), describe_end(run, kSeconds)));
  std::vector<CommandEntry> table;
  for (const Json& each : json.at("commands")) {
    CommandEntry entry{.name = each.at("name"), .help = each.at("help"), .pages = {}};
    for (const Json& page : each.at("pages")) entry.pages.push_back(page_of(page));
    table.push_back(std::move(entry));
  }
  return table;
}

}  // namespace kgen
