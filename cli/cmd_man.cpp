#include <fmt/chrono.h>
#include <fmt/core.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/command_table.h"
#include "cli/options.h"

namespace kgen {
namespace {

// Text as roff sets it: nothing in it is a request, hyphens are what a user types.
std::string roff(const std::string& text) {
  std::string set;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (text[i] == '\\') {
      set += "\\e";
    } else if (text[i] == '-') {
      set += "\\-";
    } else if ((text[i] == '.' || text[i] == '\'') && i == 0) {
      set += std::string("\\&") + text[i];
    } else if (byte < 0x80) {
      set += text[i];
    } else if (text.compare(i, 3, "…") == 0) {
      set += "...";
      i += 2;
    } else if (text.compare(i, 3, "→") == 0) {
      set += "\\(->";
      i += 2;
    }
  }
  return set;
}

std::string page_name(const std::string& command) {
  std::string name = "kgen-" + command;
  for (char& c : name)
    if (c == ' ') c = '-';
  return name;
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

// Of the sources when the builder says so (reproducible-builds.org), else today.
std::string date() {
  const char* epoch = std::getenv("SOURCE_DATE_EPOCH");
  const std::time_t time = epoch != nullptr ? static_cast<std::time_t>(std::atoll(epoch)) : std::time(nullptr);
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(time));
}

std::string head(const std::string& name, const std::string& help) {
  return fmt::format(
      ".\\\" made by 'kgen man'\n.TH {} 1 {} \"kgen {}\" \"kgen manual\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n",
      upper(name), date(), KGEN_VERSION, roff(name), roff(help));
}

constexpr const char* kExit = R"(.SH EXIT STATUS
.TP
.B 0
done
.TP
.B 1
the work was done and something failed its check
.TP
.B 2
bad usage or bad input
.TP
.B 3
no usable device or compiler
)";

// For the name line: of a family's page, its first clause.
std::string summary(const CommandEntry& entry, const CommandPage& page) {
  return entry.is_family() ? page.help.substr(0, page.help.find_first_of(":;.,")) : entry.help;
}

std::string page_text(const CommandEntry& entry, const CommandPage& page) {
  std::string text = head(page_name(page.name), summary(entry, page));
  text += fmt::format(".B kgen {}\n{}\n.SH DESCRIPTION\n{}\n", roff(page.name), roff(page.usage), roff(page.help));
  if (!page.arguments.empty()) text += ".SH ARGUMENTS\n";
  for (const CommandArgument& argument : page.arguments)
    text += fmt::format(".TP\n.I {}\n{}{}\n", roff(argument.name), roff(argument.help),
                        argument.many ? "; several may be given" : "");
  text += ".SH OPTIONS\n";
  for (const CommandFlag& flag : page.flags) {
    Words names;
    for (const std::string& name : flag.names) names.push_back("\\fB" + roff(name) + "\\fR");
    std::string value = flag.value.empty() ? "" : " \\fI" + roff(flag.value) + "\\fR";
    text += fmt::format(".TP\n{}{}\n{}\n", join(names, ", "), value, roff(flag.help));
  }
  return text + kExit + ".SH SEE ALSO\n.BR kgen (1)\n";
}

std::string main_text(const std::vector<CommandEntry>& table) {
  std::string text = head("kgen", "specialised GPU kernels from op specs, tuned on the device");
  text +=
      ".B kgen\n.I COMMAND\n[\\fIflags\\fR]\n.br\n.B kgen\n\\fICOMMAND\\fR \\fB\\-\\-help\\fR\n.br\n"
      ".B kgen \\-\\-version\n.SH DESCRIPTION\n"
      "kgen turns YAML op specs into specialised kernels, times the candidates on the GPU in front of it, keeps "
      "every\nresult in one SQLite file, and ships a small library that looks the winner up and launches it.\n"
      ".SH COMMANDS\n";
  for (const CommandEntry& entry : table) {
    for (const CommandPage& page : entry.pages) {
      text += fmt::format(".TP\n.BR {} (1)\n{}\n", roff(page_name(page.name)), roff(summary(entry, page)));
    }
  }
  text +=
      ".SH OPTIONS\n.TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nprint the commands; with \\fB\\-\\-json\\fR, "
      "everything that this manual was made from\n.TP\n\\fB\\-\\-version\\fR\nprint the version\n";
  text += kExit;
  return text +
         ".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nno colours\n.TP\n.B CLICOLOR_FORCE\ncolours where there is no terminal, "
         "too\n.TP\n.BR TERM\n\\(lqdumb\\(rq: a line every few seconds, as in a log\n"
         ".TP\n.BR LC_ALL \", \" LC_CTYPE \", \" LANG\nblock characters where the locale is of UTF\\-8\n";
}

Result<void> write_pages(const std::vector<CommandEntry>& table, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  KGEN_CHECK_OK(write_file(folder + "/kgen.1", main_text(table)));
  for (const CommandEntry& entry : table)
    for (const CommandPage& page : entry.pages)
      KGEN_CHECK_OK(write_file(fmt::format("{}/{}.1", folder, page_name(page.name)), page_text(entry, page)));
  return {};
}

Result<void> man(const Context& context, std::string command, const std::string& folder) {
  KGEN_TRY(const std::vector<CommandEntry> table, command_table(context));
  if (!folder.empty()) return write_pages(table, folder);
  if (command.empty()) {
    fmt::print("{}", main_text(table));
    return {};
  }
  if (command.starts_with("kgen-")) command.erase(0, 5);
  Words names;
  for (const CommandEntry& entry : table)
    for (const CommandPage& page : entry.pages) {
      names.push_back(page_name(page.name).substr(5));
      if (names.back() != command) continue;
      fmt::print("{}", page_text(entry, page));
      return {};
    }
  return fail(ErrorKind::kBadInput,
              fmt::format("man: there is no page of '{}'{}", command, did_you_mean(command, names)));
}

}  // namespace

int cmd_man(const Context& context, const Words& args) {
  std::string command, folder;
  Options options("man", "[COMMAND] | -o FOLDER",
                  "The manual page of a command ('db-check' for 'kgen db check'), or all of them as files.");
  options.argument("COMMAND", command, "whose page goes to stdout; without it that of kgen", false);
  options.text("-o,--output", folder, "folder to write all pages into, as kgen.1, kgen-tune.1 and so on");
  if (const auto code = options.parse(args)) return *code;
  const auto done = man(context, command, folder);
  return done ? 0 : report(done.error());
}

}  // namespace kgen
