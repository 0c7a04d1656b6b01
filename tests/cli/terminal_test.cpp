// What a tune shows: on terminals of several widths, without colours, without Unicode, in a log; and what it leaves.
#include "tests/cli/terminal.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/text.h"
#include "cli/progress.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ContainsRegex;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

// ---- The view alone.

TuneProgress::Work work(const std::string& device, double best_us) {
  TuneProgress::Work work;
  work.device = device;
  work.problem = "gemm decoder_up k=4096 m=2048 n=12288";
  work.stage = "search";
  work.problems_opened = 3;
  work.problems_done = 2;
  work.proposed = 27;
  work.planned = 64;
  work.best_us = best_us;
  work.best_config = "matrix unit=mma_sync tile_m=128 tile_n=256 tile_k=64 waves_m=2 waves_n=4 stages=3 swizzle=8";
  work.flops = 2.0 * 2048 * 12288 * 4096;
  work.bytes = 1e8;
  work.peak_flops = 1e15;
  work.peak_bytes_per_second = 3e12;
  work.tried = {.proposed = 91,
                .compiled = 88,
                .verified = 80,
                .timed = 60,
                .planned = 128,
                .failed = {{TrialStatus::kCompileFailed, 3}, {TrialStatus::kWrong, 1}}};
  return work;
}

TuneProgress progress_of(std::vector<TuneProgress::Work> devices, double elapsed) {
  TuneProgress progress;
  progress.problems = 24;
  for (const TuneProgress::Work& each : devices) {
    progress.problems_done += each.problems_done;
    progress.tried += each.tried;
  }
  progress.devices = std::move(devices);
  progress.elapsed = elapsed;
  progress.left = 3 * elapsed;
  return progress;
}

// Seen twice, five seconds apart; in between ten more candidates were compiled and the best became twice as fast.
TuneView view_of(std::size_t devices) {
  TuneView view;
  std::vector<TuneProgress::Work> before, after;
  for (std::size_t i = 0; i < devices; ++i) {
    before.push_back(work("nvidia:" + std::to_string(i), 600));
    after.push_back(work("nvidia:" + std::to_string(i), 300));
    after.back().tried.compiled += 10;
    after.back().tried.verified += 5;
  }
  view.see(progress_of(before, 10));
  view.see(progress_of(after, 15));
  return view;
}

std::size_t columns_of(const std::string& line) {
  TestScreen screen(1000);
  screen.write(line);
  return screen.widest();
}

TEST(TuneView, TellsWhatIsDoneHowFastTheBestAndFailuresByKind) {
  const auto lines = view_of(1).lines({.columns = 199, .live = true, .blocks = true}, false);
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_THAT(lines[0], AllOf(HasSubstr("  25%  problem 3/24  45.0 s left  15.0 s so far"), HasSubstr("[██████████")));
  EXPECT_EQ(lines[1], "91 tried, 85 verified, 4 failed: 3 compile_failed, 1 wrong");
  EXPECT_EQ(lines[2], "2.0 compiled/s  1.0 verified/s  0.0 timed/s");
  EXPECT_EQ(lines[3], "gemm decoder_up k=4096 m=2048 n=12288  search 27/64 on nvidia:0");
  EXPECT_EQ(lines[4], "best 300.0 us  687.2 TFLOP/s  69% of the roofline  ▁█ 2.00x the first");
  EXPECT_THAT(lines[5], StartsWith("matrix unit=mma_sync tile_m=128"));
}

TEST(TuneView, NoLineIsWiderThanTheScreen) {
  for (const std::size_t columns : {1u, 10u, 39u, 79u, 199u})
    for (const std::size_t devices : {1u, 8u})
      for (const bool blocks : {false, true})
        for (const bool colors : {false, true}) {
          const TuneView view = view_of(devices);
          const Screen screen{.columns = columns, .live = true, .colors = colors, .blocks = blocks};
          for (const std::string& line : view.lines(screen, true)) EXPECT_LE(columns_of(line), columns) << line;
          EXPECT_LE(columns_of(view.line(screen)), columns);
        }
}

TEST(TuneView, ANarrowScreenKeepsTheCountsAndTheBest) {
  const auto lines = view_of(1).lines({.columns = 39, .live = true}, false);
  EXPECT_THAT(lines[0], AllOf(HasSubstr("25%"), HasSubstr("problem 3/24")));
  EXPECT_THAT(lines[1], StartsWith("91 tried, 85 verified, 4 failed"));
  EXPECT_THAT(lines, Contains("best 300.0 us  687.2 TFLOP/s"));
}

TEST(TuneView, EveryDeviceHasALineAndThoseBeyondTheScreenAreCounted) {
  const auto all = view_of(8).lines({.columns = 199, .rows = 24, .live = true}, false);
  ASSERT_EQ(all.size(), 3u + 8);
  EXPECT_THAT(all[0], HasSubstr("16/24 problems done"));
  EXPECT_THAT(all[3], AllOf(StartsWith("nvidia:0 "), HasSubstr("300.0 us"), HasSubstr("687.2 TFLOP/s  69%"),
                            HasSubstr("search 27/64"), HasSubstr("k=4096 m=2048")));
  EXPECT_THAT(all[10], StartsWith("nvidia:7 "));
  const auto some = view_of(8).lines({.columns = 199, .rows = 10, .live = true}, false);
  EXPECT_LT(some.size(), 10u);
  EXPECT_EQ(some.back(), "and 3 devices more");
}

TEST(TuneView, WithoutUtf8ItIsAsciiAndWithoutColoursItHasNoEscapes) {
  for (const std::string& line : view_of(2).lines({.columns = 199, .live = true}, true))
    for (const char c : line) EXPECT_TRUE(c >= ' ' && c <= '~') << line;
}

TEST(TuneView, SaysThatItStops) {
  EXPECT_THAT(view_of(1).lines({.columns = 79, .live = true}, true)[0], HasSubstr("stopping"));
}

TEST(TuneView, ANewProblemBeginsANewCurve) {
  TuneView view = view_of(1);
  TuneProgress::Work next = work("nvidia:0", 100);
  next.problem = "gemm k=1 m=1 n=1";
  view.see(progress_of({next}, 16));
  EXPECT_THAT(view.lines({.columns = 199, .live = true}, false), Not(Contains(HasSubstr("x the first"))));
}

TEST(TuneView, WhatWaitsForMemoryIsToldInBytes) {
  TuneProgress::Work copy = work("host", 100);
  copy.flops = 1e6;
  copy.bytes = 1e8;
  copy.peak_flops = 0;
  TuneView view;
  view.see(progress_of({copy}, 1));
  EXPECT_THAT(view.lines({.columns = 199, .live = true}, false), Contains("best 100.0 us  1000 GB/s"));
}

TEST(TuneView, ALogHasOneLineOfIt) {
  EXPECT_EQ(
      view_of(1).line({.columns = 400}),
      "problem 3/24: 91 tried, 85 verified, 4 failed: 3 compile_failed, 1 wrong; 6.1/s; 45.0 s left; gemm decoder_up "
      "k=4096 m=2048 n=12288: best 300.0 us, 687.2 TFLOP/s, 69% of the roofline: matrix unit=mma_sync tile_m=128 "
      "tile_n=256 tile_k=64 waves_m=2 waves_n=4 stages=3 swizzle=8");
  EXPECT_THAT(view_of(2).line({.columns = 400}), AllOf(HasSubstr(" on nvidia:0: best 300"), HasSubstr(" on nvidia:1")));
}

// ---- kgen tune on a terminal.

class Terminal : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    const auto spec = [](const std::string& sizes, const std::string& budget) {
      return "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: gemm\n    epilogue: bias\n    problems: [{m: " + sizes +
             ", n: 48, k: 32}]\n    tune: {budget: " + budget + "}\n";
    };
    folder_->write("one.yaml", spec("32", "3"));
    folder_->write("two.yaml", spec("[32, 48]", "1"));
    folder_->write("long.yaml", spec("[32, 48, 64]", "500"));
  }
  static void TearDownTestSuite() { delete folder_; }

  std::vector<std::string> tune(const std::string& spec) {
    return {KGEN_EXECUTABLE,
            "tune",
            *folder_ / spec,
            "--device",
            "host",
            "--db",
            *folder_ / ("t" + std::to_string(runs_++))};
  }
  static TempFolder* folder_;
  static int runs_;
};
TempFolder* Terminal::folder_ = nullptr;
int Terminal::runs_ = 0;

TEST_F(Terminal, AtEveryWidthItsLinesStayWithinItAndInTheEndTheTablesAreAlone) {
  for (const std::size_t columns : {40u, 80u, 200u}) {
    SCOPED_TRACE(columns);
    std::size_t widest = 0;  // before the tables
    const TerminalRun run = run_on_terminal(
        tune("one.yaml"), {.columns = columns, .on_output = [&](const std::string& output, int, TestScreen& screen) {
                             if (output.find("AUTOTUNE") == std::string::npos) widest = screen.widest();
                             return std::string();
                           }});
    EXPECT_EQ(run.code, 0) << run.output;
    EXPECT_EQ(run.screen.unknown(), "");
    EXPECT_GT(widest, 0u);
    EXPECT_LT(widest, columns) << "a full line would fold";
    EXPECT_TRUE(run.screen.wraps()) << "it was not put back";
    EXPECT_THAT(run.output, AllOf(HasSubstr("problem 1/1"), HasSubstr(" tried, "), HasSubstr(" verified, "),
                                  HasSubstr("0 failed"), HasSubstr("gemm"), HasSubstr("best "), HasSubstr("\x1b[32m")));
    const auto lines = run.screen.lines();
    ASSERT_THAT(lines, Not(IsEmpty()));
    EXPECT_THAT(lines.front(), StartsWith("AUTOTUNE gemm"));
    EXPECT_THAT(lines, Each(Not(HasSubstr(" tried"))));
  }
}

TEST_F(Terminal, OneProblemEndsWithItsFastestCandidatesAndSeveralWithALineEach) {
  const TerminalRun one = run_on_terminal(tune("one.yaml"), {.columns = 200});
  const auto lines = one.screen.lines();
  ASSERT_GT(lines.size(), 6u) << one.output;
  EXPECT_THAT(lines[0], AllOf(StartsWith("AUTOTUNE gemm"), HasSubstr("epilogue=bias"), HasSubstr("k=32 m=32 n=48")));
  EXPECT_THAT(lines[1], ContainsRegex("candidate +ms +of best"));
  EXPECT_THAT(lines[2], ContainsRegex("^simt .*0\\.[0-9]+ +100.0%"));
  EXPECT_THAT(lines, Contains(HasSubstr("winner")));
  EXPECT_THAT(lines, Contains(HasSubstr("default")));
  EXPECT_THAT(lines, Contains(StartsWith("all with ")));
  EXPECT_THAT(lines, Contains("3 of 3 candidates were timed"));
  const TerminalRun two = run_on_terminal(tune("two.yaml"), {.columns = 200});
  EXPECT_THAT(two.screen.lines(), AllOf(Each(Not(HasSubstr("AUTOTUNE"))), Contains(HasSubstr("k=32 m=32 n=48")),
                                        Contains(HasSubstr("k=32 m=48 n=48"))));
}

TEST_F(Terminal, NoColorIsObeyedAndADumbTerminalGetsNoEscapesAtAll) {
  const TerminalRun plain = run_on_terminal(tune("one.yaml"), {.environment = {"NO_COLOR=1"}});
  EXPECT_THAT(plain.output, AllOf(HasSubstr("\x1b[K"), HasSubstr("█"), Not(ContainsRegex("\x1b\\[[0-9]+m"))));
  const TerminalRun ascii = run_on_terminal(tune("one.yaml"), {.environment = {"LC_ALL=C"}});
  EXPECT_THAT(ascii.output, AllOf(HasSubstr("\x1b[K"), HasSubstr("#"), Not(HasSubstr("█"))));
  const TerminalRun dumb = run_on_terminal(tune("one.yaml"), {.environment = {"TERM=dumb"}});
  EXPECT_EQ(dumb.code, 0);
  EXPECT_THAT(dumb.output, AllOf(HasSubstr("AUTOTUNE"), Not(HasSubstr("\x1b"))));
}

TEST_F(Terminal, ALogGetsALineEveryFewSecondsAndNoEscapes) {
  auto command = tune("long.yaml");
  command.erase(command.begin());
  const Ran ran = run_kgen(command, {.while_running = [](pid_t child) {
                             ::sleep(12);
                             ::kill(child, SIGINT);
                           }});
  EXPECT_EQ(ran.code, 130);
  EXPECT_THAT(ran.out + ran.err, Not(HasSubstr("\x1b")));
  const auto lines = split(ran.err, '\n');
  EXPECT_THAT(lines, Contains(ContainsRegex("^problem [123]/3: [0-9]+ tried, [0-9]+ verified")));
  EXPECT_LE(lines.size(), 4u) << ran.err;
}

TEST(Screen, ColoursAreForcedAndForbiddenByTheEnvironment) {
  ::unsetenv("NO_COLOR");
  ::setenv("CLICOLOR_FORCE", "1", 1);
  EXPECT_TRUE(stderr_screen().colors);
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(stderr_screen().colors);
  ::unsetenv("NO_COLOR");
  ::unsetenv("CLICOLOR_FORCE");
}

TEST_F(Terminal, CtrlCLeavesACleanTerminal) {
  bool typed = false;
  const TerminalRun run =
      run_on_terminal(tune("long.yaml"), {.on_output = [&](const std::string& output, int, TestScreen&) {
                        if (typed || output.find("best ") == std::string::npos) return std::string();
                        typed = true;
                        return std::string("\x03");
                      }});
  EXPECT_EQ(run.code, 130) << run.output;
  EXPECT_TRUE(typed);
  EXPECT_THAT(run.output, HasSubstr("stopping"));
  EXPECT_TRUE(run.screen.wraps());
  const auto lines = run.screen.lines();
  EXPECT_THAT(lines, AllOf(Each(Not(HasSubstr(" tried"))), Each(Not(HasSubstr("^C")))));
  EXPECT_THAT(lines, Contains(HasSubstr("interrupted")));
}

TEST_F(Terminal, ItFollowsTheTerminalsSize) {
  bool narrow = false;
  std::size_t before = 0, at = 0;
  const TerminalRun run =
      run_on_terminal(tune("long.yaml"),
                      {.columns = 120, .on_output = [&](const std::string& output, int terminal, TestScreen& screen) {
                         if (!narrow && output.find("best ") != std::string::npos) {
                           narrow = true;
                           before = screen.widest();
                           struct winsize size{};
                           size.ws_col = 40;
                           size.ws_row = 24;
                           ::ioctl(terminal, TIOCSWINSZ, &size);
                           at = output.size();
                         }
                         return narrow && output.size() > at + 3000 ? std::string("\x03") : std::string();
                       }});
  EXPECT_TRUE(narrow);
  EXPECT_GT(before, 40u);
  // The lines that were drawn after the first two, which may have been under way.
  TestScreen late(40);
  const std::size_t from = run.output.find("\x1b[J", run.output.find("\x1b[J", at) + 1) + 3;
  ASSERT_LT(from, run.output.size());
  late.write(run.output.substr(from, run.output.find("AUTOTUNE", from) - from).substr(0, 2000));
  EXPECT_LT(late.widest(), 40u);
  EXPECT_GT(late.widest(), 20u);
}

}  // namespace
}  // namespace kgen
