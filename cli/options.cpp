#include "cli/options.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/text.h"
#include "cli/cli.h"

namespace kgen {

struct Options::Impl {
  CLI::App app;
  std::string command;
  std::vector<std::string> flags = {"--help"};
  Json told;  // `--help --json`

  // `value`: what the flag takes; "" = nothing.
  CLI::Option* add_flag_name(const std::string& flag, CLI::Option* option, const std::string& value,
                             const std::string& help, const std::vector<std::string>& choices = {},
                             bool repeats = false) {
    const std::vector<std::string> names = split(flag, ',');
    flags.insert(flags.end(), names.begin(), names.end());
    told["flags"].push_back(
        {{"names", names}, {"value", value}, {"choices", choices}, {"repeats", repeats}, {"help", help}});
    return option;
  }
  void add_argument(const std::string& name, CLI::Option* option, const std::string& help, bool required, bool many) {
    option->required(required)->option_text(" ");
    told["arguments"].push_back({{"name", name}, {"required", required}, {"many", many}, {"help", help}});
  }
  int usage_error(const std::string& what) const {
    fmt::print(stderr, "kgen {}: {}; see 'kgen {} --help'\n", command, what, command);
    return 2;
  }
};

namespace {
// What a flag takes. Flags have one meaning in all commands.
std::string value_of(const std::string& flag) {
  static constexpr std::pair<std::string_view, std::string_view> kValues[] = {{"--arch", "ARCH"},
                                                                              {"--bias", "FILE"},
                                                                              {"--bias-dtype", "DTYPE"},
                                                                              {"--beta", "FILE"},
                                                                              {"--budget", "BUDGET"},
                                                                              {"--config", "CONFIG"},
                                                                              {"--db", "DB"},
                                                                              {"--device", "DEVICE"},
                                                                              {"--dtype", "DTYPE"},
                                                                              {"--gamma", "FILE"},
                                                                              {"--key", "FILE"},
                                                                              {"--mean", "FILE"},
                                                                              {"--op", "OP"},
                                                                              {"--out", "FILE"},
                                                                              {"--output", "FILE"},
                                                                              {"--output-bias", "FILE"},
                                                                              {"--output-weight", "FILE"},
                                                                              {"--own-op", "SPEC"},
                                                                              {"--prior", "FILE"},
                                                                              {"--shard", "I/N"},
                                                                              {"--trace", "FILE"},
                                                                              {"--var", "FILE"},
                                                                              {"--warm-start", "FILE"},
                                                                              {"--weight", "FILE"}};
  const std::string name = flag.substr(flag.rfind(',') + 1);  // the long one
  for (const auto& [known, value] : kValues)
    if (known == name) return std::string(value);
  return "TEXT";
}

// Help as CLI11 prints it, with the usage line given (App::usage() came after Debian's 2.1).
class UsageLine : public CLI::Formatter {
 public:
  explicit UsageLine(std::string line) : line_(std::move(line)) {}
  std::string make_usage(const CLI::App*, std::string) const override { return line_ + "\n"; }

 private:
  std::string line_;
};
}  // namespace

Options::Options(const std::string& command, const std::string& usage, const std::string& help)
    : impl_(std::make_unique<Impl>()) {
  impl_->command = command;
  impl_->told = {{"name", command},
                 {"usage", usage},
                 {"help", help},
                 {"arguments", Json::array()},
                 {"flags",
                  {{{"names", {"-h", "--help"}},
                    {"value", ""},
                    {"choices", Json::array()},
                    {"repeats", false},
                    {"help", "print this help; with --json as one JSON document"}}}}};
  impl_->app.name("kgen " + command);
  impl_->app.description(help);
  impl_->app.formatter(std::make_shared<UsageLine>("Usage: kgen " + command + " " + usage));
  impl_->app.allow_extras();  // so that parse() can name the nearest flag
}
Options::~Options() = default;

void Options::argument(const std::string& name, std::string& value, const std::string& help, bool required) {
  impl_->add_argument(name, impl_->app.add_option(name, value, help), help, required, false);
}
void Options::arguments(const std::string& name, std::vector<std::string>& values, const std::string& help,
                        bool required) {
  impl_->add_argument(name, impl_->app.add_option(name, values, help), help, required, true);
}
void Options::text(const std::string& flag, std::string& value, const std::string& help) {
  const std::string takes = value_of(flag);
  impl_->add_flag_name(flag, impl_->app.add_option(flag, value, help), takes, help)->option_text(takes);
}
void Options::list(const std::string& flag, std::vector<std::string>& values, const std::string& help) {
  const std::string takes = value_of(flag);
  impl_->add_flag_name(flag, impl_->app.add_option(flag, values, help), takes, help, {}, true)
      ->expected(1)
      ->take_all()
      ->option_text(takes);
}
void Options::words(const std::string& flag, std::vector<std::string>& values, const std::string& help) {
  const std::string takes = value_of(flag) + "…";
  impl_->add_flag_name(flag, impl_->app.add_option(flag, values, help), takes, help, {}, true)
      ->expected(1, 1 << 20)
      ->option_text(takes);
}
void Options::choice(const std::string& flag, std::string& value, const std::vector<std::string>& choices,
                     const std::string& help) {
  const auto valid = [choices](const std::string& word) {
    if (std::find(choices.begin(), choices.end(), word) != choices.end()) return std::string();
    const std::string hint = did_you_mean(word, choices);
    return fmt::format("unknown value '{}'{}", word, hint.empty() ? "; valid: " + join(choices, ", ") : hint);
  };
  const std::string takes = join(choices, "|");
  impl_->add_flag_name(flag, impl_->app.add_option(flag, value, help), takes, help, choices)
      ->check(CLI::Validator(valid, ""))
      ->option_text(takes);
}
void Options::number(const std::string& flag, std::int64_t& value, std::int64_t least, const std::string& help) {
  const auto valid = [least](const std::string& word) {
    std::int64_t number = 0;
    if (CLI::detail::lexical_cast(word, number) && number >= least) return std::string();
    return fmt::format("'{}' is not an integer from {} on", word, least);
  };
  impl_->add_flag_name(flag, impl_->app.add_option(flag, value, help), "N", help)
      ->check(CLI::Validator(valid, ""))
      ->option_text("N");
}
void Options::flag(const std::string& flag, bool& value, const std::string& help) {
  impl_->add_flag_name(flag, impl_->app.add_flag(flag, value, help), "", help);
}

std::optional<int> Options::parse(const std::vector<std::string>& args) {
  if (args == kHelpAsJson) {
    print_json(impl_->told);
    return 0;
  }
  try {
    impl_->app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
    const std::vector<std::string> extras = impl_->app.remaining();
    if (extras.empty()) return std::nullopt;
    const std::string word = extras.front().substr(0, extras.front().find('='));
    if (!word.starts_with("-")) return impl_->usage_error(fmt::format("unexpected argument '{}'", word));
    return impl_->usage_error(fmt::format("unknown flag '{}'{}", word, did_you_mean(word, impl_->flags)));
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", impl_->app.help());
    return 0;
  } catch (const CLI::ParseError& error) {
    // A flag that is misspelt often leaves a required argument missing: name the flag then.
    for (const std::string& arg : args) {
      const std::string word = arg.substr(0, arg.find('='));
      if (word.starts_with("--") && word.size() > 2 && std::ranges::find(impl_->flags, word) == impl_->flags.end())
        return impl_->usage_error(fmt::format("unknown flag '{}'{}", word, did_you_mean(word, impl_->flags)));
    }
    std::string what = error.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    return impl_->usage_error(what);
  }
}

}  // namespace kgen
