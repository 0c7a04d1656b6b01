// A terminal for tests: a program on a pseudo-terminal, and the screen that its output makes.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace kgen {

// The few control sequences that kgen writes, and lines that fold at the right edge; any other is a failure.
class TestScreen {
 public:
  explicit TestScreen(std::size_t columns) : columns_(columns) {}
  void write(const std::string& bytes);
  void resize(std::size_t columns) { columns_ = columns; }
  // Without what is blank at the right and at the end; a character is one column.
  std::vector<std::string> lines() const;
  std::size_t widest() const { return widest_; }  // columns ever used
  bool wraps() const { return wraps_; }
  const std::string& unknown() const { return unknown_; }  // the first sequence that is not known

 private:
  std::vector<std::string>& row();
  void put(std::string character);

  std::size_t columns_, x_ = 0, y_ = 0, widest_ = 0;
  bool wraps_ = true;
  std::vector<std::vector<std::string>> rows_;
  std::string pending_, unknown_;
};

struct TerminalRun {
  int code = -1;       // exit status; 128 + signal when one ended it
  std::string output;  // all bytes
  TestScreen screen{80};
};
struct TerminalOptions {
  std::size_t columns = 80;
  std::vector<std::string> environment{};  // "NAME=value"; TERM, the locale and NO_COLOR are set for all
  // Called with all output so far whenever there is more; what it returns is typed.
  std::function<std::string(const std::string& output, int terminal, TestScreen&)> on_output{};
};
TerminalRun run_on_terminal(const std::vector<std::string>& command, const TerminalOptions& options = {});

}  // namespace kgen
