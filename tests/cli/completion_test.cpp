// Completions and manual pages: the shells themselves are asked what they complete, the formatters what they warn of.
#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/text.h"
#include "tests/cli/run_kgen.h"
#include "tests/cli/terminal.h"

namespace kgen {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::Not;
using testing::UnorderedElementsAre;

using Words = std::vector<std::string>;

bool installed(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0;
}

// stdout and stderr of a line for sh.
std::string output_of(const std::string& line) {
  std::string output;
  FILE* pipe = ::popen((line + " 2>&1").c_str(), "r");
  char buffer[4096];
  while (const std::size_t count = std::fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, count);
  ::pclose(pipe);
  return output;
}

std::set<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::set<std::string> words;
  for (std::string line; std::getline(stream, line);)
    if (!line.empty()) words.insert(line.substr(0, line.find('\t')));
  return words;
}

std::set<std::string> flags_of(const json& page) {
  std::set<std::string> names;
  for (const json& flag : page["flags"]) names.insert(flag["names"].begin(), flag["names"].end());
  return names;
}

class Completion : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    for (const std::string shell : {"bash", "zsh", "fish"}) {
      const Ran ran = run_kgen({"completion", shell});
      EXPECT_EQ(ran.code, 0) << ran.err;
      folder_->write("kgen." + shell, ran.out);
    }
    std::filesystem::create_directory(*folder_ / "work");
    std::filesystem::create_directory(*folder_ / "work/more");
    for (const char* name : {"ops.yaml", "other.yml", "tuned.db", "space.json"})
      folder_->write(std::string("work/") + name, "");
    const Ran ran = run_kgen({"--help", "--json"});
    table_ = json::parse(ran.out, nullptr, false);
    ASSERT_TRUE(table_.is_object()) << ran.out;
  }
  static void TearDownTestSuite() { delete folder_; }

  // What bash offers at the end of the line, through the function that it calls.
  static std::set<std::string> bash(const std::string& line) {
    folder_->write("ask.sh", "source " + *folder_ / "kgen.bash" + "\ncd " + *folder_ / "work" +
                                 "\nCOMP_LINE=$1 COMP_POINT=${#1}\n_kgen\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n");
    return words_of(output_of("bash " + *folder_ / "ask.sh" + " '" + line + "'"));
  }
  static std::set<std::string> fish(const std::string& line) {
    return words_of(output_of("cd " + *folder_ / "work" + " && HOME=" + folder_->path() + " fish -N -c 'source " +
                              *folder_ / "kgen.fish" + "; complete -C \"" + line + "\"'"));
  }
  static json pages() {
    json pages = json::array();
    for (const json& command : table_["commands"])
      for (const json& page : command["pages"]) pages.push_back(page);
    return pages;
  }

  static TempFolder* folder_;
  static json table_;
};
TempFolder* Completion::folder_ = nullptr;
json Completion::table_;

TEST_F(Completion, TheTableHasEveryCommandAndFlagOfTheHelp) {
  const std::regex command_line("\n  ([a-z]+) +"), flag_line("(?:^|[ ,])(--?[a-z][a-z-]*)");
  std::set<std::string> helped, told;
  const std::string help = run_kgen({"--help"}).out;
  for (std::sregex_iterator at(help.begin(), help.end(), command_line), end; at != end; ++at) helped.insert((*at)[1]);
  for (const json& command : table_["commands"]) told.insert(command["name"]);
  EXPECT_EQ(told, helped);
  EXPECT_GE(told.size(), 17u);
  EXPECT_GE(pages().size(), 25u);
  for (const json& page : pages()) {
    Words words = split(page["name"].get<std::string>(), ' ');
    words.push_back("--help");
    std::istringstream text(run_kgen(words).out);
    std::set<std::string> flags;
    for (std::string line; std::getline(text, line);)
      if (line.starts_with("  -"))
        for (const std::string& name : split(line.substr(2, line.find(' ', 2) - 2), ',')) flags.insert(name);
    EXPECT_EQ(flags, flags_of(page)) << page["name"];
    words.push_back("--json");
    EXPECT_EQ(json::parse(run_kgen(words).out, nullptr, false), page) << "a command tells the same on its own";
  }
}

TEST_F(Completion, AnUnknownShellIsExit2AndNamesTheNearest) {
  const Ran ran = run_kgen({"completion", "fissh"});
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.err, HasSubstr("did you mean 'fish'"));
}

TEST_F(Completion, BashCompletesEveryCommandAndEveryFlag) {
  std::set<std::string> commands{"--help", "--version"};
  for (const json& command : table_["commands"]) {
    commands.insert(command["name"]);
    if (command["pages"].size() == 1) continue;
    std::set<std::string> subcommands;
    for (const json& page : command["pages"]) {
      const std::string name = page["name"];
      subcommands.insert(name.substr(name.find(' ') + 1));
    }
    EXPECT_EQ(bash("kgen " + command["name"].get<std::string>() + " "), subcommands);
  }
  EXPECT_EQ(bash("kgen "), commands);
  for (const json& page : pages()) EXPECT_EQ(bash("kgen " + page["name"].get<std::string>() + " -"), flags_of(page));
}

TEST_F(Completion, BashCompletesValuesAndFiles) {
  EXPECT_THAT(bash("kgen tu"), ElementsAre("tune"));
  EXPECT_THAT(bash("kgen tune "), ElementsAre("more", "ops.yaml", "other.yml"));
  EXPECT_THAT(bash("kgen show "), ElementsAre("more", "tuned.db"));
  EXPECT_THAT(bash("kgen simulate sp"), ElementsAre("space.json"));
  EXPECT_THAT(bash("kgen tune ops.yaml --db "), ElementsAre("more", "tuned.db"));
  EXPECT_THAT(bash("kgen tune --strategy "), IsSupersetOf({"auto", "random", "model"}));
  EXPECT_THAT(bash("kgen tune --strategy=ra"), ElementsAre("random"));
  EXPECT_THAT(bash("kgen tune --timing w"), ElementsAre("warm"));
  EXPECT_THAT(bash("kgen tune --device n"), ElementsAre("nvidia:0"));
  EXPECT_THAT(bash("kgen tune --device nvidia:"), ElementsAre("0")) << "readline begins a word after a colon";
  EXPECT_THAT(bash("kgen tune --op gp"), ElementsAre("gptq_gemm"));
  EXPECT_THAT(bash("kgen gen ops.yaml --arch gfx90"), ElementsAre("gfx906", "gfx908", "gfx90a"));
  EXPECT_THAT(bash("kgen db export tuned.db --format "), ElementsAre("csv", "t4"));
  EXPECT_THAT(bash("kgen lookup tuned.db gp"), ElementsAre("gptq_gemm")) << "the second argument is an operator";
  EXPECT_THAT(bash("kgen lookup --timing cold tuned.db gp"), ElementsAre("gptq_gemm"))
      << "a flag's value is no argument";
  EXPECT_THAT(bash("kgen lookup tuned.db gemm "), IsEmpty());
  EXPECT_THAT(bash("kgen tune --budget "), IsEmpty());
  EXPECT_THAT(bash("kgen nonsense "), IsEmpty());
}

TEST_F(Completion, FishCompletesEveryCommandAndFlag) {
  if (!installed("fish")) GTEST_SKIP() << "NOT RUN: fish is not installed";
  std::set<std::string> commands;
  for (const json& command : table_["commands"]) commands.insert(command["name"]);
  EXPECT_EQ(fish("kgen "), commands);
  for (const json& page : pages()) {
    const std::set<std::string> offered = fish("kgen " + page["name"].get<std::string>() + " --");
    for (const std::string& flag : flags_of(page)) {
      if (!flag.starts_with("--")) continue;
      EXPECT_THAT(offered, Contains(flag)) << page["name"];
    }
  }
  EXPECT_THAT(fish("kgen tune --timing "), ElementsAre("cold", "graph", "warm"));
  EXPECT_THAT(fish("kgen db exp"), ElementsAre("export"));
  EXPECT_THAT(fish("kgen tune --op gp"), ElementsAre("gptq_gemm"));
}

// Keys typed into a zsh with nothing configured but the completion.
TEST_F(Completion, ZshCompletesCommandsFlagsAndValues) {
  if (!installed("zsh")) GTEST_SKIP() << "NOT RUN: zsh is not installed";
  EXPECT_EQ(output_of("zsh -n " + *folder_ / "kgen.zsh"), "");
  folder_->write(".zshrc", "PROMPT='READY> '\nautoload -Uz compinit && compinit -D -u\nsource " +
                               *folder_ / "kgen.zsh" + "\ncd " + *folder_ / "work" + "\n");
  const Words typed{"kgen tu\t\x15", "kgen tune --stra\trando\t\x15", "kgen db expo\t--form\t\t\x15",
                    "kgen lookup tuned.db gpt\t\x15"};
  std::size_t next = 0, from = 0;
  const TerminalRun run =
      run_on_terminal({"zsh", "-i"}, {.columns = 200,
                                      .environment = {"ZDOTDIR=" + folder_->path(), "TERM=dumb"},
                                      .on_output = [&](const std::string& output, int, TestScreen&) -> std::string {
                                        static const Words kSigns{"READY> ", "kgen tune ", "=random ", "csv  t4",
                                                                  "tuned.db gptq_gemm "};
                                        if (next > typed.size() || output.find(kSigns[next], from) == std::string::npos)
                                          return "";
                                        from = output.size();
                                        return next++ < typed.size() ? typed[next - 1] : "\x15 exit\r";
                                      }});
  EXPECT_EQ(next, typed.size() + 1) << run.output;
}

TEST_F(Completion, EveryPageIsInTheManualWithEveryFlag) {
  const std::string man = *folder_ / "man";
  const Ran ran = run_kgen({"man", "-o", man}, {.environment = {"SOURCE_DATE_EPOCH=86400"}});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const auto read = [&](const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(man + "/" + name).rdbuf();
    return text.str();
  };
  const auto roff = [](const std::string& text) { return std::regex_replace(text, std::regex("-"), "\\-"); };
  const std::string all = read("kgen.1");
  EXPECT_THAT(all, HasSubstr("1970-01-02"));
  for (const json& page : pages()) {
    std::string name = "kgen-" + page["name"].get<std::string>();
    std::replace(name.begin(), name.end(), ' ', '-');
    EXPECT_THAT(all, HasSubstr(roff(name) + " (1)"));
    const std::string text = read(name + ".1");
    for (const std::string& flag : flags_of(page)) EXPECT_THAT(text, HasSubstr("\\fB" + roff(flag) + "\\fR")) << name;
  }
  EXPECT_EQ(run_kgen({"man", "db-check"}, {.environment = {"SOURCE_DATE_EPOCH=86400"}}).out, read("kgen-db-check.1"));
  EXPECT_EQ(run_kgen({"man", "tnue"}).code, 2);

  const std::string pages = man + "/*.1";
  const std::pair<std::string, std::string> checks[] = {
      {"groff", "groff -man -ww -Tutf8 -z " + pages},
      {"man", "for page in " + pages + "; do man --warnings -E UTF-8 -l $page >/dev/null; done"},
      {"mandoc", "mandoc -T lint -W warning " + pages}};
  for (const auto& [program, line] : checks)
    if (installed(program)) {
      EXPECT_EQ(output_of(line), "") << program;
    }
  if (!installed("groff") || !installed("man") || !installed("mandoc"))
    GTEST_SKIP() << "NOT RUN: of groff, man and mandoc those that are not installed";
}

}  // namespace
}  // namespace kgen
