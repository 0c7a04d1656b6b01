// What long work shows on stderr: on a terminal a few lines that are redrawn in place, elsewhere a line every few
// seconds. No mode of the terminal is changed, so whatever ends the program leaves it as it was.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "tuner/session.h"

namespace kgen {

// What stderr can show. Colours: not with NO_COLOR; without a terminal only with CLICOLOR_FORCE. `live`: lines can be
// redrawn, as on every terminal but TERM=dumb. Block characters where the locale is of UTF-8.
struct Screen {
  std::size_t columns = 200, rows = 24;
  bool live = false, colors = false, blocks = false;
};
Screen stderr_screen();

// A tune as text. Remembers what it was shown, for rates of the last seconds and the curves of the best.
class TuneView {
 public:
  void see(const TuneProgress&);
  // Of what was seen last, none wider than the screen.
  std::vector<std::string> lines(const Screen&, bool stopping) const;
  std::string line(const Screen&) const;  // the same in one, for a log

 private:
  struct Moment {
    double elapsed = 0, compiled = 0, verified = 0, timed = 0;
  };
  struct Curve {
    std::string problem;
    std::int64_t ended = 0;
    std::vector<double> best_us{};  // after each candidate
  };
  std::vector<std::string> device_lines(const TuneProgress::Work&, const Screen&) const;
  std::string device_line(const TuneProgress::Work&, const Screen&, std::size_t name_columns) const;

  TuneProgress now_;
  std::deque<Moment> moments_;
  std::map<std::string, Curve> curves_;  // by device
};

class ProgressPrinter {
 public:
  explicit ProgressPrinter(const std::atomic<bool>& stopping);
  ~ProgressPrinter();  // takes the lines off the terminal
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;
  void operator()(const TuneProgress&);
  void operator()(const std::string& line);

 private:
  void draw(const std::vector<std::string>& lines);
  bool due();  // another line of a log

  const std::atomic<bool>& stopping_;
  TuneView view_;
  std::vector<std::size_t> drawn_;  // width of each line on the terminal; the cursor is below them
  std::size_t dropped_ = 0;         // devices of which it was told
  std::chrono::steady_clock::time_point last_;
};

}  // namespace kgen
