#include <fmt/core.h>

#include <algorithm>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/command_table.h"
#include "cli/options.h"
#include "tuner/process.h"

namespace kgen {
namespace {

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size())
    text.replace(at, what.size(), with);
  return text;
}

// The first sentence, for a list.
std::string brief(const std::string& help) { return help.substr(0, help.find_first_of(";\n")); }

std::vector<CommandPage> pages_of(const std::vector<CommandEntry>& table) {
  std::vector<CommandPage> pages;
  for (const CommandEntry& entry : table) pages.insert(pages.end(), entry.pages.begin(), entry.pages.end());
  return pages;
}

std::string last_word(const std::string& name) { return name.substr(name.rfind(' ') + 1); }

Words names_of(const std::vector<CommandEntry>& table) {
  Words names;
  for (const CommandEntry& entry : table) names.push_back(entry.name);
  return names;
}

Words names_of(const CommandEntry& family) {
  Words names;
  for (const CommandPage& page : family.pages) names.push_back(last_word(page.name));
  return names;
}

// ---- bash: "word,word", "@.db,.sql" (files), "" (nothing) for each flag and argument, looked up by one function.

std::string bash_kind(const ValueKind& kind) {
  return kind.words.empty() ? kind.suffixes.empty() ? "" : "@" + join(kind.suffixes, ",") : join(kind.words, ",");
}

constexpr const char* kBash = R"(# bash completion of kgen @VERSION@, made by 'kgen completion bash'
_kgen() {
  local line=${COMP_LINE:0:COMP_POINT} cur command flags= takes= arguments= kind= word waits=
  local -a words
  read -ra words <<<"$line"
  if [[ $line == *[[:space:]] ]]; then words+=(""); fi
  cur=${words[-1]}
  unset 'words[-1]'
  COMPREPLY=()
  if ((${#words[@]} < 2)); then
    _kgen_reply "@COMMANDS@,--help,--version"
    return
  fi
  command=${words[1]}
  words=("${words[@]:2}")
  case $command in
@FAMILIES@
  esac
  case $command in
@PAGES@
  esac
  local -a kinds
  IFS=' ' read -ra kinds <<<"$arguments"
  for word in "${words[@]}"; do
    if [[ -n $waits ]]; then waits=; continue; fi
    if [[ $word == -* ]]; then
      if [[ $word != *=* ]]; then waits=$(_kgen_takes "$word"); fi
    elif ((${#kinds[@]} > 1)); then
      kinds=("${kinds[@]:1}")
    elif [[ ${kinds[0]} != *+ ]]; then
      kinds=()
    fi
  done
  if [[ -n $waits ]]; then
    _kgen_reply "${waits#*:}"
  elif [[ $cur == --*=* ]]; then
    word=$(_kgen_takes "${cur%%=*}")
    local head=${cur%%=*}=
    cur=${cur#*=}
    _kgen_reply "${word#*:}" "$head"
  elif [[ $cur == -* ]]; then
    _kgen_reply "$flags"
  elif ((${#kinds[@]} > 0)); then
    kind=${kinds[0]%+}
    _kgen_reply "${kind#:}"
  fi
}

# What a flag takes, as ":kind"; nothing where it takes nothing.
_kgen_takes() {
  local entry
  for entry in $takes; do
    if [[ ${entry%%:*} == "$1" ]]; then printf ':%s' "${entry#*:}"; fi
  done
}

# _kgen_reply KIND [HEAD]: what of KIND begins with $cur, HEAD before it.
_kgen_reply() {
  local IFS=$'\n' suffix reply
  if [[ $1 == @* ]]; then
    compopt -o filenames 2>/dev/null
    local -a suffixes
    IFS=, read -ra suffixes <<<"${1#@}"
    for suffix in "${suffixes[@]}"; do COMPREPLY+=($(compgen -f -X "!*$suffix" -- "$cur")); done
    if ((${#COMPREPLY[@]} == 0 || ${#suffixes[@]} == 0)); then COMPREPLY+=($(compgen -f -- "$cur")); fi
    COMPREPLY+=($(compgen -d -- "$cur"))
    COMPREPLY=($(printf '%s\n' "${COMPREPLY[@]}" | sort -u))
  else
    COMPREPLY=($(compgen -W "${1//,/$'\n'}" -- "$cur"))
  fi
  # Readline takes a word to begin after the last ':' or '='.
  local whole=${2-}$cur breaks=${COMP_WORDBREAKS//[^:=]/} before=
  if [[ -n $breaks && $whole == *["$breaks"]* ]]; then before=${whole%"${whole##*["$breaks"]}"}; fi
  local i
  for i in "${!COMPREPLY[@]}"; do
    reply=${2-}${COMPREPLY[i]}
    COMPREPLY[i]=${reply#"$before"}
  done
}

complete -F _kgen kgen
)";

std::string bash(const std::vector<CommandEntry>& table) {
  std::string families, pages;
  for (const CommandEntry& entry : table)
    if (entry.is_family())
      families += fmt::format(
          "    {0})\n      if ((${{#words[@]}} == 0)); then _kgen_reply \"{1}\"; return; fi\n"
          "      command=\"{0} ${{words[0]}}\"\n      words=(\"${{words[@]:1}}\") ;;\n",
          entry.name, join(names_of(entry), ","));
  for (const CommandPage& page : pages_of(table)) {
    Words flags, takes, arguments;
    for (const CommandFlag& flag : page.flags) {
      flags.insert(flags.end(), flag.names.begin(), flag.names.end());
      for (const std::string& name : flag.names)
        if (!flag.value.empty()) takes.push_back(name + ":" + bash_kind(flag.kind));
    }
    for (const CommandArgument& argument : page.arguments)
      arguments.push_back(":" + bash_kind(argument.kind) + (argument.many ? "+" : ""));
    pages += fmt::format("    '{}')\n      flags='{}'\n      takes='{}'\n      arguments='{}' ;;\n", page.name,
                         join(flags, ","), join(takes, " "), join(arguments, " "));
  }
  std::string text = replaced(kBash, "@VERSION@", KGEN_VERSION);
  text = replaced(text, "@COMMANDS@", join(names_of(table), ","));
  text = replaced(text, "@FAMILIES@\n", families);
  return replaced(text, "@PAGES@\n", pages);
}

// ---- zsh: _arguments does the work.

std::string zsh_text(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string zsh_kind(const ValueKind& kind) {
  if (!kind.words.empty()) {
    Words words;
    for (const std::string& word : kind.words) words.push_back(zsh_text(word));
    return "(" + join(words, " ") + ")";
  }
  if (kind.suffixes.empty()) return " ";
  if (kind.suffixes.front().empty()) return "_files";
  Words patterns;
  for (const std::string& suffix : kind.suffixes) patterns.push_back("*" + suffix);
  return "_files -g \"" + join(patterns, " ") + "\"";
}

std::string zsh_list(const std::string& variable, const std::vector<std::pair<std::string, std::string>>& items) {
  std::string text = fmt::format("    local -a {0}\n    {0}=(\n", variable);
  for (const auto& [name, help] : items) text += "      " + shell_quoted(name + ":" + help) + "\n";
  return text + "    )\n    _describe -t commands command " + variable + "\n    return\n";
}

std::string zsh(const std::vector<CommandEntry>& table) {
  std::string text = fmt::format(
      "#compdef kgen\n# zsh completion of kgen {}, made by 'kgen completion zsh'\n_kgen() {{\n", KGEN_VERSION);
  std::vector<std::pair<std::string, std::string>> commands;
  for (const CommandEntry& entry : table) commands.emplace_back(entry.name, entry.help);
  text += "  if (( CURRENT == 2 )); then\n" + zsh_list("commands", commands) + "  fi\n  local command=$words[2]\n";
  text += "  shift words\n  (( CURRENT-- ))\n";
  for (const CommandEntry& entry : table) {
    if (!entry.is_family()) continue;
    std::vector<std::pair<std::string, std::string>> items;
    for (const CommandPage& page : entry.pages) items.emplace_back(last_word(page.name), brief(page.help));
    text +=
        fmt::format("  if [[ $command == {} ]]; then\n    if (( CURRENT == 2 )); then\n", entry.name) +
        zsh_list("subcommands", items) +
        fmt::format("    fi\n    command=\"{} $words[2]\"\n    shift words\n    (( CURRENT-- ))\n  fi\n", entry.name);
  }
  text += "  case $command in\n";
  for (const CommandPage& page : pages_of(table)) {
    text += "    (" + shell_quoted(page.name) + ")\n      _arguments";
    for (const CommandFlag& flag : page.flags) {
      const std::string others = flag.repeats ? "*" : flag.names.size() > 1 ? "(" + join(flag.names, " ") + ")" : "";
      for (const std::string& name : flag.names) {
        std::string spec = others + name;
        if (!flag.value.empty() && name.starts_with("--")) spec += "=";
        spec += "[" + zsh_text(brief(flag.help)) + "]";
        if (!flag.value.empty()) spec += ":" + zsh_text(flag.value) + ":" + zsh_kind(flag.kind);
        text += " \\\n        " + shell_quoted(spec);
      }
    }
    std::size_t place = 1;
    for (const CommandArgument& argument : page.arguments)
      text += " \\\n        " +
              shell_quoted(fmt::format("{}:{}{}:{}", argument.many ? "*" : std::to_string(place++),
                                       argument.required ? "" : ":", zsh_text(argument.name), zsh_kind(argument.kind)));
    text += " ;;\n";
  }
  return text + "  esac\n}\nif [[ $funcstack[1] == _kgen ]]; then _kgen \"$@\"; else compdef _kgen kgen; fi\n";
}

// ---- fish: one line a flag.

std::string fish_quoted(const std::string& text) {
  return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
}

std::string fish_values(const ValueKind& kind) {
  if (!kind.words.empty()) return "-x -a " + fish_quoted(join(kind.words, " "));
  if (kind.suffixes.empty()) return "-x";
  if (kind.suffixes.front().empty()) return "-r -F";
  Words calls;
  for (const std::string& suffix : kind.suffixes) calls.push_back("__fish_complete_suffix " + suffix);
  return "-x -a " + fish_quoted("(" + join(calls, "; ") + ")");
}

constexpr const char* kFish = R"(# fish completion of kgen @VERSION@, made by 'kgen completion fish'
# Is the command line one of this command, and of so many words at least?
function __kgen_is
  set -l words (commandline -opc)
  set -l count (count $argv)
  test (count $words) -gt $count; or return 1
  set -l last (math $count + 1)
  test "$words[2..$last]" = "$argv"
end
complete -c kgen -f
complete -c kgen -n __fish_is_first_token -l help -d 'print help'
complete -c kgen -n __fish_is_first_token -l version -d 'print the version'
)";

std::string fish(const std::vector<CommandEntry>& table) {
  std::string text = replaced(kFish, "@VERSION@", KGEN_VERSION);
  for (const CommandEntry& entry : table) {
    text += fmt::format("complete -c kgen -n __fish_is_first_token -a {} -d {}\n", entry.name, fish_quoted(entry.help));
    if (!entry.is_family()) continue;
    for (const CommandPage& page : entry.pages)
      text += fmt::format("complete -c kgen -n '__kgen_is {}; and not __fish_seen_subcommand_from {}' -a {} -d {}\n",
                          entry.name, join(names_of(entry), " "), last_word(page.name), fish_quoted(brief(page.help)));
  }
  for (const CommandPage& page : pages_of(table)) {
    const std::string of_command = fmt::format("complete -c kgen -n '__kgen_is {}'", page.name);
    for (const CommandFlag& flag : page.flags) {
      text += of_command;
      for (const std::string& name : flag.names)
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (!flag.value.empty()) text += " " + fish_values(flag.kind);
      text += " -d " + fish_quoted(brief(flag.help)) + "\n";
    }
    for (const CommandArgument& argument : page.arguments) {
      std::string values = fish_values(argument.kind);
      if (values == "-x") continue;
      if (values == "-r -F") values = "-F";
      if (values.starts_with("-x ")) values = values.substr(3);
      text += fmt::format("{} {}\n", of_command, values);
    }
  }
  return text;
}

}  // namespace

int cmd_completion(const Context& context, const Words& args) {
  std::string shell;
  Options options("completion", "bash|zsh|fish",
                  "What a shell needs to complete commands, flags and values; e.g. source <(kgen completion bash).");
  options.argument("SHELL", shell, "bash, zsh or fish");
  if (const auto code = options.parse(args)) return *code;
  const Words shells{"bash", "zsh", "fish"};
  if (std::ranges::find(shells, shell) == shells.end()) {
    const std::string hint = did_you_mean(shell, shells);
    return report({ErrorKind::kBadInput, fmt::format("completion: unknown shell '{}'{}", shell,
                                                     hint.empty() ? "; valid: " + join(shells, ", ") : hint)});
  }
  const auto table = command_table(context);
  if (!table) return report(table.error());
  fmt::print("{}", shell == "bash" ? bash(*table) : shell == "zsh" ? zsh(*table) : fish(*table));
  return 0;
}

}  // namespace kgen
