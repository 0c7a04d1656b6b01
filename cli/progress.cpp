#include "cli/progress.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "cli/cli.h"

namespace kgen {
namespace {

constexpr auto kEvery = std::chrono::seconds(5);  // between lines where there is no terminal

std::size_t terminal_columns() {
  struct winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string progress_line(const TuneProgress& progress, std::size_t columns) {
  constexpr int kBar = 20;
  const double share =
      progress.planned > 0
          ? std::clamp(static_cast<double>(progress.proposed) / static_cast<double>(progress.planned), 0.0, 1.0)
          : 0.0;
  const int filled = static_cast<int>(share * kBar);
  std::string line = fmt::format("[{}{}] problem {}/{}", std::string(filled, '#'), std::string(kBar - filled, '-'),
                                 std::min(progress.problems_done + 1, progress.problems), progress.problems);
  line += fmt::format("  {} tried, {} verified, {} failed", progress.proposed, progress.verified, progress.failed);
  if (progress.elapsed > 0)
    line += fmt::format("  {:.1f}/s", static_cast<double>(progress.proposed) / progress.elapsed);
  if (progress.left > 0) line += "  left " + human_seconds(progress.left);
  if (progress.best_us > 0) line += fmt::format("  best {} us {}", number(progress.best_us), progress.best_config);
  line += "  " + progress.current;
  if (line.size() > columns) line.resize(columns);
  return line;
}

ProgressPrinter::ProgressPrinter() : terminal_(::isatty(STDERR_FILENO) == 1), last_(std::chrono::steady_clock::now()) {}

ProgressPrinter::~ProgressPrinter() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressPrinter::operator()(const TuneProgress& progress) {
  for (; dropped_ < progress.dropped.size(); ++dropped_)
    fmt::print(stderr, "{}{}\n", drawn_ ? "\r\x1b[K" : "", progress.dropped[dropped_]);
  (*this)(progress_line(progress, terminal_ ? terminal_columns() - 1 : 200));
}

void ProgressPrinter::operator()(const std::string& line) {
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[K{}", line.substr(0, terminal_columns() - 1));
    std::fflush(stderr);
    drawn_ = true;
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < kEvery) return;
  last_ = now;
  fmt::print(stderr, "{}\n", line);
}

}  // namespace kgen
