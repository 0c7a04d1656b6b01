// The progress line of long work, on stderr: redrawn in place on a terminal, a line every few seconds elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "tuner/session.h"

namespace kgen {

// "[#####-----] 48/96  3.1/s  best 12.3 us matrix tile_m=128  left 15.2 s", cut to `columns`.
std::string progress_line(const TuneProgress&, std::size_t columns);

class ProgressPrinter {
 public:
  ProgressPrinter();
  ~ProgressPrinter();  // clears the line on a terminal
  void operator()(const TuneProgress&);
  void operator()(const std::string& line);

 private:
  bool terminal_;
  bool drawn_ = false;
  std::size_t dropped_ = 0;  // devices of which it was told
  std::chrono::steady_clock::time_point last_;
};

}  // namespace kgen
