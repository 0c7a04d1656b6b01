// Child processes: programs that are run once with limits, and long-lived workers that answer messages. No shell is
// involved anywhere; arguments reach the program as they are.
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace kgen {

struct RunLimits {
  double timeout_seconds = 60;
  std::size_t output_bytes = 64 << 10;  // of stdout and stderr together; the rest is read and dropped
  std::int64_t memory_bytes = 0;        // address space; 0 = as the parent's
  std::int64_t file_bytes = 0;          // largest file the program may write; 0 = as the parent's
  std::string folder = {};              // working and temporary folder; "" = the parent's
};

struct RunResult {
  enum class End { kExited, kSignalled, kTimeout };
  End end = End::kExited;
  int code = 0;        // exit status, or the signal
  std::string output;  // stdout and stderr, interleaved
  double seconds = 0;
};

// Limits of memory and file size take hold a moment after the start.
// Runs argv[0] (looked up in PATH when it has no slash) in its own process group and waits. At the time limit, and in
// any case once the program has ended, the whole group is killed. Messages are asked for in English. Error only when
// the program cannot start.
Result<RunResult> run_program(std::span<const std::string> argv, const RunLimits& limits);

// "was killed by signal 11 (Segmentation fault)", "exited with status 2", "ran longer than 60 s".
std::string describe_end(const RunResult&, double timeout_seconds);

// Path of a program as exec would find it: itself when it has a slash, else the first hit in PATH; "" when there is
// none.
std::string find_program(const std::string& name);

// A word as a shell reads it back, for command lines that people are shown. None is ever run.
std::string shell_quoted(const std::string& word);

// A folder that this user alone can look into, removed with all that is in it.
class TemporaryFolder {
 public:
  static Result<TemporaryFolder> make();
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  TemporaryFolder& operator=(TemporaryFolder&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// A message: a list of byte strings, framed with their lengths.
using Message = std::vector<std::string>;

// A child that reads messages on its stdin and answers on its stdout. Used by one thread at a time, except kill().
class ChildProcess {
 public:
  static Result<ChildProcess> start(std::span<const std::string> argv);
  ChildProcess(ChildProcess&&) noexcept;
  ChildProcess& operator=(ChildProcess&&) noexcept;
  ~ChildProcess();  // kills the process group

  struct Received {
    enum class Kind { kMessage, kTimeout, kEnded };
    Kind kind = Kind::kEnded;
    Message message;
    std::string why;  // kEnded: "was killed by signal 11 (Segmentation fault)" and the last lines of its stderr
  };
  // False when the child has gone; receive() then says why.
  bool send(const Message&);
  // After kTimeout the child still runs: wait again or kill().
  Received receive(double timeout_seconds);
  void kill();
  pid_t pid() const { return pid_; }
  int fd() const { return from_; }  // readable when something has come, for poll()

 private:
  ChildProcess(pid_t pid, int to, int from, int errors) : pid_(pid), to_(to), from_(from), errors_(errors) {}
  std::string reap();
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1, errors_ = -1;
  std::string buffer_;
};

// The child's end. from_stdio() takes fd 0 and fd 1 for itself and points fd 1 at stderr, so that a stray print cannot
// damage the stream. When the parent goes away, receive() gives nullopt; a child that is busy then is ended by a
// watching thread.
class MessageChannel {
 public:
  static MessageChannel from_stdio();
  std::optional<Message> receive();
  bool waiting() const;  // receive() has something to read
  bool send(const Message&);

 private:
  MessageChannel(int in, int out) : in_(in), out_(out) {}
  int in_, out_;
};

}  // namespace kgen
