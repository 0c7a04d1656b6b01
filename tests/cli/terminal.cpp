#include "tests/cli/terminal.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace kgen {

constexpr int kSilenceMs = 60000;  // after which a program is ended

std::vector<std::string>& TestScreen::row() {
  if (rows_.size() <= y_) rows_.resize(y_ + 1);
  return rows_[y_];
}

void TestScreen::put(std::string character) {
  if (x_ >= columns_) {
    if (!wraps_) x_ = columns_ - 1;
    if (wraps_) x_ = 0, ++y_;
  }
  std::vector<std::string>& cells = row();
  if (cells.size() <= x_) cells.resize(x_ + 1, " ");
  cells[x_++] = std::move(character);
  widest_ = std::max(widest_, x_);
}

void TestScreen::write(const std::string& bytes) {
  pending_ += bytes;
  std::size_t at = 0;
  while (at < pending_.size()) {
    const auto byte = static_cast<unsigned char>(pending_[at]);
    if (byte == '\x1b') {
      const std::size_t end = pending_.find_first_of("ABCDHJKmhl", at);
      if (end == std::string::npos) break;
      const std::string sequence = pending_.substr(at + 1, end - at);
      const char kind = sequence.back();
      const std::size_t number =
          sequence.size() > 2 && sequence[1] != '?' ? std::strtoul(&sequence[1], nullptr, 10) : 1;
      if (sequence == "[K") {
        row().resize(std::min(row().size(), x_));
      } else if (sequence == "[J") {
        row().resize(std::min(row().size(), x_));
        rows_.resize(y_ + 1);
      } else if (kind == 'A' && sequence[0] == '[') {
        y_ -= std::min(y_, number);
      } else if (sequence == "[?7l" || sequence == "[?7h") {
        wraps_ = kind == 'h';
      } else if (kind != 'm' && unknown_.empty()) {
        unknown_ = sequence;
      }
      at = end + 1;
      continue;
    }
    const std::size_t length = byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    if (at + length > pending_.size()) break;
    if (byte == '\r') {
      x_ = 0;
    } else if (byte == '\n') {
      ++y_;
      row();
    } else {
      put(pending_.substr(at, length));
    }
    at += length;
  }
  pending_.erase(0, at);
}

std::vector<std::string> TestScreen::lines() const {
  std::vector<std::string> lines;
  for (const auto& cells : rows_) {
    std::string line;
    for (const std::string& cell : cells) line += cell;
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(std::move(line));
  }
  while (!lines.empty() && lines.back().empty()) lines.pop_back();
  return lines;
}

TerminalRun run_on_terminal(const std::vector<std::string>& command, const TerminalOptions& options) {
  TerminalRun run{.code = -1, .output = {}, .screen = TestScreen(options.columns)};
  struct winsize size{};
  size.ws_col = static_cast<unsigned short>(options.columns);
  size.ws_row = 24;
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
  if (child < 0) throw std::runtime_error("forkpty");
  if (child == 0) {
    for (const char* name : {"NO_COLOR", "CLICOLOR_FORCE", "LC_CTYPE", "LANG"}) ::unsetenv(name);
    ::setenv("TERM", "xterm-256color", 1);
    ::setenv("LC_ALL", "C.UTF-8", 1);
    for (const std::string& variable : options.environment) {
      const std::size_t equals = variable.find('=');
      ::setenv(variable.substr(0, equals).c_str(), variable.substr(equals + 1).c_str(), 1);
    }
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  char buffer[4096];
  for (;;) {
    struct pollfd ready{.fd = terminal, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, kSilenceMs) == 0) ::kill(child, SIGKILL);
    const ssize_t count = ::read(terminal, buffer, sizeof buffer);
    if (count <= 0) break;  // EIO: the other side is closed
    const std::string bytes(buffer, static_cast<std::size_t>(count));
    run.output += bytes;
    run.screen.write(bytes);
    if (!options.on_output) continue;
    const std::string typed = options.on_output(run.output, terminal, run.screen);
    if (!typed.empty() && ::write(terminal, typed.data(), typed.size()) < 0) break;
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(terminal);
  run.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return run;
}

}  // namespace kgen
