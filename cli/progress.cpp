#include "cli/progress.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/text.h"
#include "cli/cli.h"

namespace kgen {
namespace {

constexpr auto kEvery = std::chrono::seconds(5);  // between lines of a log
constexpr double kRateSeconds = 10;
constexpr std::size_t kCurve = 24;  // columns
constexpr double kGain = 1.005;     // from which on the best has become faster
// Operations a byte; with fewer every device waits for its memory, and GB/s say more than TFLOP/s.
constexpr double kLeastIntensity = 8;

enum class Style { kPlain, kBold, kDim, kGreen, kYellow, kRed };

// A piece of a line. Where the line is too long those of the highest `drop` go first, whole; 0: it is cut.
struct Part {
  std::string text;
  Style style = Style::kPlain;
  int drop = 0;
};

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char byte) { return !continues(byte); }));
}

std::string cut(const std::string& text, std::size_t columns) {
  std::size_t end = 0;
  for (std::size_t count = 0; end < text.size(); ++end)
    if (!continues(text[end]) && count++ == columns) break;
  return text.substr(0, end);
}

std::string painted(const std::string& text, Style style, bool colors) {
  if (!colors || style == Style::kPlain || text.empty()) return text;
  constexpr const char* kCodes[] = {"", "1", "2", "32", "33", "31"};
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<int>(style)], text);
}

std::string fit(std::vector<Part> parts, std::size_t columns, bool colors) {
  const auto total = [&] {
    std::size_t sum = 0;
    for (const Part& part : parts) sum += width(part.text);
    return sum;
  };
  while (total() > columns) {
    const auto next =
        std::max_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.drop < b.drop; });
    if (next->drop == 0) break;
    parts.erase(next);
  }
  std::string line;
  for (const Part& part : parts) {
    const std::string text = cut(part.text, columns);
    columns -= width(text);
    line += painted(text, part.style, colors);
  }
  return line;
}

// What the view's lines take on the screen, without what sets colours.
std::size_t shown_width(const std::string& line) {
  std::size_t count = 0;
  bool escape = false;
  for (const char byte : line) {
    if (byte == '\x1b') escape = true;
    if (!escape && !continues(byte)) ++count;
    if (escape && byte == 'm') escape = false;
  }
  return count;
}

std::string bar(double share, std::size_t columns, bool blocks) {
  constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * 8 * static_cast<double>(columns));
  std::string text;
  for (std::size_t i = 0; i < eighths / 8; ++i) text += blocks ? "█" : "#";
  std::size_t filled = eighths / 8;
  if (blocks && eighths % 8 != 0) text += kEighths[eighths % 8], ++filled;
  return text + std::string(columns - filled, blocks ? ' ' : '-');
}

bool has_gained(const std::vector<double>& best_us) {
  return !best_us.empty() && best_us.front() > kGain * best_us.back();
}

// How fast the best was at each time, from the first to the present one.
std::string curve(const std::vector<double>& best_us, bool blocks) {
  constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr const char* kLetters[] = {".", ":", "-", "=", "+", "*", "#", "@"};
  const std::size_t columns = std::min(best_us.size(), kCurve);
  std::string text;
  for (std::size_t i = 0; i < columns; ++i) {
    const double speed = best_us.back() / best_us[(i + 1) * best_us.size() / columns - 1],
                 least = best_us.back() / best_us.front();
    const std::size_t level = speed >= 1 ? 7 : static_cast<std::size_t>((speed - least) / (1 - least) * 7);
    text += (blocks ? kBlocks : kLetters)[level];
  }
  return text;
}

std::string failures(const TuneProgress::Tried& tried) {
  std::int64_t all = 0;
  Words kinds;
  for (const auto& [status, count] : tried.failed) {
    all += count;
    kinds.push_back(fmt::format("{} {}", count, status_name(status)));
  }
  return all == 0 ? "0 failed" : fmt::format("{} failed: {}", all, join(kinds, ", "));
}

std::int64_t ended(const TuneProgress::Tried& tried) {
  std::int64_t count = tried.verified;
  for (const auto& [status, failed] : tried.failed) count += failed;
  return count;
}

double share_done(const TuneProgress& progress) {
  if (progress.tried.proposed > 0) return progress.elapsed / (progress.elapsed + progress.left);
  return progress.problems > 0 ? static_cast<double>(progress.problems_done) / static_cast<double>(progress.problems)
                               : 0;
}

std::string tried_of(const TuneProgress::Work& work) {
  if (work.planned > 0 && work.proposed < work.planned) return fmt::format("{}/{}", work.proposed, work.planned);
  return std::to_string(work.proposed);
}

// "12.31 us", "652 TFLOP/s", "66% of the roofline": what is known of a device's best.
struct Best {
  std::string time, rate, share, config;
};
Best best_of(const TuneProgress::Work& work) {
  Best best;
  if (work.best_us <= 0) return best;
  best.time = number(work.best_us) + " us";
  if (work.flops > kLeastIntensity * work.bytes)
    best.rate = number(work.flops / work.best_us / 1e6) + " TFLOP/s";
  else if (work.bytes > 0)
    best.rate = number(work.bytes / work.best_us / 1e3) + " GB/s";
  const double share =
      roofline_share(work.flops, work.bytes, work.best_us, work.peak_flops, work.peak_bytes_per_second);
  if (share > 0) best.share = fmt::format("{:.0f}% of the roofline", 100 * share);
  best.config = printable(work.best_config);
  return best;
}

std::string or_nothing(const char* before, const std::string& text) { return text.empty() ? "" : before + text; }

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

}  // namespace

Screen stderr_screen() {
  Screen screen;
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  const char* kind = std::getenv("TERM");
  screen.live = terminal && kind != nullptr && *kind != '\0' && std::string_view(kind) != "dumb";
  const bool forced = is_set("CLICOLOR_FORCE") && std::string_view(std::getenv("CLICOLOR_FORCE")) != "0";
  screen.colors = (screen.live || forced) && !is_set("NO_COLOR");
  // From the environment, as setlocale() would: it would need the locale's files, which a static program may not find.
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (!is_set(name)) continue;
    std::string locale = std::getenv(name);
    std::transform(locale.begin(), locale.end(), locale.begin(), [](unsigned char c) { return std::tolower(c); });
    screen.blocks = locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
    break;
  }
  struct winsize size{};
  if (terminal && ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    screen.columns = size.ws_col - 1u;  // a full line would put the cursor where terminals differ
    if (size.ws_row > 0) screen.rows = size.ws_row;
  } else if (terminal) {
    screen.columns = 79;
  }
  return screen;
}

void TuneView::see(const TuneProgress& progress) {
  if (progress.elapsed < now_.elapsed) moments_.clear(), curves_.clear();  // a part of a run that has several
  now_ = progress;
  const auto count = [](std::int64_t value) { return static_cast<double>(value); };
  moments_.push_back({now_.elapsed, count(now_.tried.compiled), count(now_.tried.verified), count(now_.tried.timed)});
  while (moments_.size() > 2 && now_.elapsed - moments_[1].elapsed >= kRateSeconds) moments_.pop_front();
  for (const TuneProgress::Work& work : now_.devices) {
    Curve& curve = curves_[work.device];
    if (curve.problem != work.problem) curve = {.problem = work.problem};
    if (work.best_us <= 0 || (ended(work.tried) == curve.ended && !curve.best_us.empty())) continue;
    curve.ended = ended(work.tried);
    curve.best_us.push_back(work.best_us);
  }
}

std::vector<std::string> TuneView::lines(const Screen& screen, bool stopping) const {
  const auto line = [&](std::vector<Part> parts) { return fit(std::move(parts), screen.columns, screen.colors); };
  const std::size_t bar_columns = std::clamp<std::size_t>(screen.columns / 4, 8, 40);
  const double share = share_done(now_);
  std::vector<Part> head{
      {"[", Style::kPlain},
      {bar(share, bar_columns, screen.blocks), Style::kGreen},
      {fmt::format("] {:3.0f}%", std::floor(100 * share)), Style::kPlain},
      {now_.devices.size() > 1
           ? fmt::format("  {}/{} problems done", now_.problems_done, now_.problems)
           : fmt::format("  problem {}/{}", std::min(now_.problems_done + 1, now_.problems), now_.problems),
       Style::kBold, 1}};
  if (stopping) {
    head.push_back({"  stopping; Ctrl-C again: at once", Style::kYellow, 2});
  } else if (now_.left > 0) {
    head.push_back({fmt::format("  {} left", human_seconds(now_.left)), Style::kPlain, 2});
  }
  head.push_back({fmt::format("  {} so far", human_seconds(now_.elapsed)), Style::kDim, 3});

  const TuneProgress::Tried& tried = now_.tried;
  std::vector<Part> counts{{fmt::format("{} tried", tried.proposed)},
                           {fmt::format(", {} verified, ", tried.verified)},
                           {failures(tried), tried.failed.empty() ? Style::kPlain : Style::kRed}};
  std::vector<std::string> lines{line(std::move(head)), line(std::move(counts))};
  if (const Moment& first = moments_.front(); now_.elapsed > first.elapsed) {
    const Moment& last = moments_.back();
    const auto rate = [&](double Moment::* of) { return (last.*of - first.*of) / (last.elapsed - first.elapsed); };
    lines.push_back(line({{fmt::format("{:.1f} compiled/s", rate(&Moment::compiled)), Style::kDim, 2},
                          {fmt::format("  {:.1f} verified/s", rate(&Moment::verified)), Style::kDim, 1},
                          {fmt::format("  {:.1f} timed/s", rate(&Moment::timed)), Style::kDim}}));
  }
  if (now_.devices.size() == 1) {
    for (std::string& more : device_lines(now_.devices.front(), screen)) lines.push_back(std::move(more));
  } else {
    std::size_t name_columns = 0;
    for (const TuneProgress::Work& work : now_.devices) name_columns = std::max(name_columns, work.device.size());
    const std::size_t room = screen.rows > lines.size() + 2 ? screen.rows - lines.size() - 2 : 1;
    for (std::size_t i = 0; i < now_.devices.size() && i < room; ++i)
      lines.push_back(device_line(now_.devices[i], screen, name_columns));
    if (now_.devices.size() > room)
      lines.push_back(line({{fmt::format("and {} devices more", now_.devices.size() - room), Style::kDim}}));
  }
  return lines;
}

// Of a run on one device.
std::vector<std::string> TuneView::device_lines(const TuneProgress::Work& work, const Screen& screen) const {
  const auto line = [&](std::vector<Part> parts) { return fit(std::move(parts), screen.columns, screen.colors); };
  if (work.problem.empty()) return {};
  std::vector<std::string> lines{line({{printable(work.problem), Style::kBold},
                                       {fmt::format("  {} {}", work.stage, tried_of(work)), Style::kDim, 1},
                                       {" on " + work.device, Style::kDim, 2}})};
  const Best best = best_of(work);
  if (best.time.empty()) return lines;
  std::vector<Part> parts{{"best "}, {best.time, Style::kGreen}, {or_nothing("  ", best.rate), Style::kGreen}};
  parts.push_back({or_nothing("  ", best.share), Style::kPlain, 1});
  if (const std::vector<double>& times = curves_.at(work.device).best_us; has_gained(times)) {
    parts.push_back({"  " + curve(times, screen.blocks), Style::kGreen, 3});
    parts.push_back({fmt::format(" {:.2f}x the first", times.front() / times.back()), Style::kDim, 2});
  }
  lines.push_back(line(std::move(parts)));
  lines.push_back(line({{best.config, Style::kDim}}));
  return lines;
}

// Of one of several devices.
std::string TuneView::device_line(const TuneProgress::Work& work, const Screen& screen,
                                  std::size_t name_columns) const {
  std::vector<Part> parts{{fmt::format("{:<{}} ", work.device, name_columns), Style::kBold}};
  const Best best = best_of(work);
  parts.push_back({fmt::format(" {:>9}", best.time), Style::kGreen});
  parts.push_back({fmt::format(" {:>14}", best.rate), Style::kGreen, 2});
  if (!best.share.empty())
    parts.push_back({fmt::format("  {:>3}", best.share.substr(0, best.share.find(' '))), Style::kPlain, 3});
  parts.push_back({fmt::format("  {:<15}", work.stage + " " + tried_of(work)), Style::kDim, 1});
  parts.push_back({"  " + printable(work.problem)});
  const std::vector<double>& times = curves_.at(work.device).best_us;
  if (has_gained(times)) parts.push_back({"  " + curve(times, screen.blocks), Style::kGreen, 4});
  return fit(std::move(parts), screen.columns, screen.colors);
}

std::string TuneView::line(const Screen& screen) const {
  std::string text =
      fmt::format("problem {}/{}: {} tried, {} verified, {}", std::min(now_.problems_done + 1, now_.problems),
                  now_.problems, now_.tried.proposed, now_.tried.verified, failures(now_.tried));
  if (now_.elapsed > 0) text += fmt::format("; {:.1f}/s", static_cast<double>(now_.tried.proposed) / now_.elapsed);
  if (now_.left > 0) text += fmt::format("; {} left", human_seconds(now_.left));
  std::vector<Part> parts{{text}};
  for (const TuneProgress::Work& work : now_.devices) {
    const Best best = best_of(work);
    parts.push_back({fmt::format("; {}", printable(work.problem)), Style::kBold});
    if (now_.devices.size() > 1) parts.push_back({" on " + work.device});
    if (best.time.empty()) continue;
    parts.push_back({fmt::format(": best {}{}{}", best.time, or_nothing(", ", best.rate), or_nothing(", ", best.share)),
                     Style::kGreen});
    if (now_.devices.size() == 1) parts.push_back({": " + best.config, Style::kDim});
  }
  return fit(std::move(parts), screen.columns, screen.colors);
}

ProgressPrinter::ProgressPrinter(const std::atomic<bool>& stopping)
    : stopping_(stopping), last_(std::chrono::steady_clock::now()) {}

ProgressPrinter::~ProgressPrinter() { draw({}); }

void ProgressPrinter::operator()(const TuneProgress& progress) {
  if (dropped_ < progress.dropped.size()) draw({});
  for (; dropped_ < progress.dropped.size(); ++dropped_) fmt::print(stderr, "{}\n", progress.dropped[dropped_]);
  view_.see(progress);
  if (const Screen screen = stderr_screen(); screen.live) {
    draw(view_.lines(screen, stopping_));
  } else if (due()) {
    fmt::print(stderr, "{}\n", view_.line(screen));
  }
}

void ProgressPrinter::operator()(const std::string& line) {
  if (const Screen screen = stderr_screen(); screen.live) {
    draw({fit({{line}}, screen.columns, false)});
  } else if (due()) {
    fmt::print(stderr, "{}\n", line);
  }
}

bool ProgressPrinter::due() {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < kEvery) return false;
  last_ = now;
  return true;
}

// One write, so that nothing can come between: up to where the lines begin, the new ones over them, what is left below
// erased. A terminal that has become narrower has folded the old lines. Lines never wrap while they are written, even
// where a character is wider than it is counted here.
void ProgressPrinter::draw(const std::vector<std::string>& lines) {
  if (lines.empty() && drawn_.empty()) return;
  const std::size_t columns = stderr_screen().columns + 1;
  std::size_t up = 0;
  for (const std::size_t old : drawn_) up += std::max<std::size_t>(1, (old + columns - 1) / columns);
  std::string text = up > 0 ? fmt::format("\x1b[{}A\r", up) : "\r";
  drawn_.clear();
  if (!lines.empty()) text += "\x1b[?7l";
  for (const std::string& line : lines) {
    text += line + "\x1b[K\r\n";
    drawn_.push_back(shown_width(line));
  }
  if (!lines.empty()) text += "\x1b[?7h";
  text += "\x1b[J";
  fmt::print(stderr, "{}", text);
  std::fflush(stderr);
}

}  // namespace kgen
