#include "tuner/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/text.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using Kind = ChildProcess::Received::Kind;

std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

bool alive(pid_t pid) {
  // A killed grandchild may stay a zombie for a moment until init takes it.
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat").value_or("");
  return !stat.empty() && stat.find(") Z") == std::string::npos;
}

TEST(RunProgram, GivesExitStatusAndBothOutputs) {
  const auto result = run_program(shell("echo out; echo err >&2; exit 3"), {});
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->end, RunResult::End::kExited);
  EXPECT_EQ(result->code, 3);
  EXPECT_EQ(result->output, "out\nerr\n");
}

TEST(RunProgram, PassesArgumentsUnchangedByAnyShell) {
  const std::vector<std::string> argv = {"printf", "%s|", "a b", "$HOME", ";ls", "'", "\"", "*"};
  const auto result = run_program(argv, {});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->output, "a b|$HOME|;ls|'|\"|*|");
}

TEST(RunProgram, KillsTheWholeGroupAtTheTimeLimit) {
  const auto start = std::chrono::steady_clock::now();
  const auto result = run_program(shell("sleep 100 & echo $!; wait"), {.timeout_seconds = 0.3});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->end, RunResult::End::kTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  const pid_t grandchild = std::atoi(result->output.c_str());
  ASSERT_GT(grandchild, 1);
  for (int i = 0; i < 100 && alive(grandchild); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(alive(grandchild));
}

TEST(RunProgram, DoesNotWaitForAGrandchildThatHoldsTheOutputOpen) {
  const auto result = run_program(shell("sleep 100 & echo $!"), {.timeout_seconds = 60});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->end, RunResult::End::kExited);
  EXPECT_LT(result->seconds, 10);
  const pid_t grandchild = std::atoi(result->output.c_str());
  for (int i = 0; i < 100 && alive(grandchild); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(alive(grandchild));
}

TEST(RunProgram, WaitsForAProgramThatClosedItsOutput) {
  const auto result = run_program(shell("exec >&- 2>&-; sleep 0.2; exit 5"), {});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->code, 5);
}

TEST(RunProgram, KeepsTheFirstPartOfALongOutput) {
  const auto result = run_program(shell("echo first; yes | head -c 1000000"), {.output_bytes = 1000});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->code, 0);
  EXPECT_EQ(result->output.size(), 1000u);
  EXPECT_EQ(result->output.substr(0, 6), "first\n");
}

TEST(RunProgram, TellsTheSignalThatEndedAProgram) {
  const auto result = run_program(shell("kill -SEGV $$"), {});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->end, RunResult::End::kSignalled);
  EXPECT_EQ(result->code, SIGSEGV);
  EXPECT_THAT(describe_end(*result, 1), HasSubstr("signal 11"));
}

TEST(RunProgram, StopsAFileThatGrowsPastItsLimit) {
  const std::string file = ::testing::TempDir() + "/kgen_large_file";
  const auto result = run_program(shell("sleep 0.3; exec head -c 1000000 /dev/zero > " + file), {.file_bytes = 1000});
  ASSERT_TRUE(result);
  EXPECT_FALSE(result->end == RunResult::End::kExited && result->code == 0);
  EXPECT_LE(read_file(file)->size(), 1000u);
  ::unlink(file.c_str());
}

TEST(RunProgram, FailsForAProgramThatDoesNotExist) {
  const std::vector<std::string> argv = {"kgen-no-such-program"};
  const auto result = run_program(argv, {});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("kgen-no-such-program"));
}

TEST(FindProgram, SearchesThePathOnlyForBareNames) {
  EXPECT_THAT(find_program("sh"), HasSubstr("/sh"));
  EXPECT_EQ(find_program("/bin/sh"), "/bin/sh");
  EXPECT_EQ(find_program("kgen-no-such-program"), "");
  EXPECT_EQ(find_program("/no/such/sh"), "");
}

// A child made of this program: see ChildMain below.
std::vector<std::string> child(const std::string& mode) { return {"/proc/self/exe", "--child=" + mode}; }

TEST(ChildProcess, AnswersMessagesOfAnySizeAndContent) {
  auto process = ChildProcess::start(child("echo"));
  ASSERT_TRUE(process) << process.error().message;
  const std::string large(3'000'000, '\xff'), zeros(5, '\0');
  for (const Message& message : {Message{"a", "", zeros}, Message{}, Message{large, "b"}}) {
    ASSERT_TRUE(process->send(message));
    const auto answer = process->receive(30);
    ASSERT_EQ(answer.kind, Kind::kMessage) << answer.why;
    EXPECT_TRUE(answer.message == message);
  }
}

TEST(ChildProcess, StrayPrintsDoNotReachTheMessages) {
  auto process = ChildProcess::start(child("noisy"));
  ASSERT_TRUE(process);
  ASSERT_TRUE(process->send({"x"}));
  const auto answer = process->receive(30);
  ASSERT_EQ(answer.kind, Kind::kMessage) << answer.why;
  EXPECT_EQ(answer.message, Message{"x"});
}

TEST(ChildProcess, TimesOutAndCanBeAskedAgain) {
  auto process = ChildProcess::start(child("slow"));
  ASSERT_TRUE(process);
  ASSERT_TRUE(process->send({"x"}));
  EXPECT_EQ(process->receive(0.05).kind, Kind::kTimeout);
  EXPECT_EQ(process->receive(30).kind, Kind::kMessage);
}

TEST(ChildProcess, TellsHowItsChildEndedAndWhatItSaid) {
  auto process = ChildProcess::start(child("crash"));
  ASSERT_TRUE(process);
  ASSERT_TRUE(process->send({"x"}));
  const auto answer = process->receive(30);
  ASSERT_EQ(answer.kind, Kind::kEnded);
  EXPECT_THAT(answer.why, HasSubstr("signal 9"));
  EXPECT_THAT(answer.why, HasSubstr("last words"));
  EXPECT_EQ(process->receive(1).kind, Kind::kEnded);
  process->send({"to nobody"});  // no SIGPIPE
}

TEST(ChildProcess, DestructionEndsABusyChild) {
  pid_t pid = 0;
  {
    auto process = ChildProcess::start(child("hang"));
    ASSERT_TRUE(process);
    pid = process->pid();
    ASSERT_TRUE(process->send({"x"}));
    EXPECT_EQ(process->receive(0.1).kind, Kind::kTimeout);
    EXPECT_TRUE(alive(pid));
  }
  EXPECT_FALSE(alive(pid));
}

TEST(MessageChannel, TellsWhetherAMessageWaits) {
  auto process = ChildProcess::start(child("peek"));
  ASSERT_TRUE(process);
  ASSERT_TRUE(process->send({"a"}));
  const auto alone = process->receive(30);
  ASSERT_EQ(alone.kind, Kind::kMessage) << alone.why;
  EXPECT_EQ(alone.message[0], "nothing waits");
  ASSERT_TRUE(process->send({"b"}));
  ASSERT_TRUE(process->send({"c"}));
  EXPECT_EQ(process->receive(30).message.at(0), "another waits");
}

TEST(ChildProcess, ABusyChildEndsWhenItsParentIsKilled) {
  auto parent = ChildProcess::start(child("parent"));
  ASSERT_TRUE(parent);
  const auto answer = parent->receive(30);
  ASSERT_EQ(answer.kind, Kind::kMessage) << answer.why;
  const pid_t grandchild = std::atoi(answer.message[0].c_str());
  EXPECT_TRUE(alive(grandchild));
  ::kill(parent->pid(), SIGKILL);  // the parent alone: its child is in a group of its own
  for (int i = 0; i < 250 && alive(grandchild); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(alive(grandchild));
}

int child_main(const std::string& mode) {
  MessageChannel channel = MessageChannel::from_stdio();
  if (mode == "parent") {
    auto process = ChildProcess::start(child("hang"));
    if (!process || !process->send({"x"})) return 1;
    process->receive(0.5);  // the grandchild is busy by now
    channel.send({std::to_string(process->pid())});
    ::pause();
  }
  while (auto message = channel.receive()) {
    if (mode == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(500));
    if (mode == "hang") std::this_thread::sleep_for(std::chrono::seconds(1000));
    if (mode == "peek") {
      if (message->front() == "b")
        for (int i = 0; i < 500 && !channel.waiting(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      (*message)[0] = channel.waiting() ? "another waits" : "nothing waits";
    }
    if (mode == "noisy") {
      std::puts("stray");
      std::fflush(stdout);
    }
    if (mode == "crash") {
      std::fputs("last words\n", stderr);
      ::kill(::getpid(), SIGKILL);
    }
    if (!channel.send(*message)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace kgen

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]).starts_with("--child=")) return kgen::child_main(argv[1] + 8);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
