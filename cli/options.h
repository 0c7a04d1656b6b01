// Flags and arguments of one subcommand: a narrow layer over CLI11, so that one file compiles it and every command
// words its errors alike (unknown flags name the nearest valid one, exit code 2).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kgen {

// Every command answers these arguments with what it takes, which is what completions and manual pages are made from.
inline const std::vector<std::string> kHelpAsJson = {"--help", "--json"};

class Options {
 public:
  // `usage` is the argument part of the usage line, `help` one line.
  Options(const std::string& command, const std::string& usage, const std::string& help);
  ~Options();

  // The variables must outlive parse(). A required argument has no default.
  void argument(const std::string& name, std::string& value, const std::string& help, bool required = true);
  void arguments(const std::string& name, std::vector<std::string>& values, const std::string& help,
                 bool required = true);
  void text(const std::string& flag, std::string& value, const std::string& help);
  void list(const std::string& flag, std::vector<std::string>& values, const std::string& help);  // one value a flag
  // Every word up to the next flag is a value.
  void words(const std::string& flag, std::vector<std::string>& values, const std::string& help);
  void choice(const std::string& flag, std::string& value, const std::vector<std::string>& choices,
              const std::string& help);
  void number(const std::string& flag, std::int64_t& value, std::int64_t least, const std::string& help);
  void flag(const std::string& flag, bool& value, const std::string& help);

  // nullopt: go on. Else the exit code: help was printed (0) or the usage is wrong and has been reported (2).
  std::optional<int> parse(const std::vector<std::string>& args);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kgen
