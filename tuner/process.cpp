#include "tuner/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

#include "base/text.h"

extern char** environ;

namespace kgen {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxMessage = std::size_t{1} << 30;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Milliseconds for poll() until `deadline`, at most `most`.
int poll_ms(Clock::time_point deadline, int most) {
  const double left = std::chrono::duration<double, std::milli>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp(left + 1, 0.0, static_cast<double>(most)));
}

void close_fd(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) == 0) read = fds[0], write = fds[1];
  }
  ~Pipe() { close_fd(read), close_fd(write); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
};

// Starts argv in a new process group with the given descriptors as 0, 1 and 2.
Result<pid_t> spawn(std::span<const std::string> argv, int in, int out, int err, const std::string& folder) {
  std::vector<char*> args;
  args.reserve(argv.size() + 1);
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);

  std::vector<std::string> variables = {"LC_ALL=C", "CCACHE_DISABLE=1"};
  if (!folder.empty()) variables.push_back("TMPDIR=" + folder);
  std::vector<char*> environment;
  environment.reserve(256);
  for (std::string& variable : variables) environment.push_back(variable.data());
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view name = std::string_view(*entry).substr(0, std::string_view(*entry).find('='));
    if (name != "LC_ALL" && name != "CCACHE_DISABLE" && (folder.empty() || name != "TMPDIR"))
      environment.push_back(*entry);
  }
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  if (!folder.empty()) posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  for (int signal : {SIGINT, SIGTERM, SIGPIPE, SIGHUP}) sigaddset(&defaults, signal);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, args[0], &actions, &attributes, args.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail(ErrorKind::kIo, fmt::format("cannot start '{}': {}", argv[0], std::strerror(error)));
  return pid;
}

void limit(pid_t pid, __rlimit_resource which, std::uint64_t soft, std::uint64_t hard) {
  struct rlimit now;
  if (::prlimit(pid, which, nullptr, &now) != 0) return;
  const struct rlimit wanted = {std::min<rlim_t>(soft, now.rlim_max), std::min<rlim_t>(hard, now.rlim_max)};
  ::prlimit(pid, which, &wanted, nullptr);
}

std::string describe_status(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("was killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("exited with status {}", WEXITSTATUS(status));
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

std::string pack(const Message& message) {
  std::string body;
  const auto add = [&](std::uint32_t n) { body.append(reinterpret_cast<const char*>(&n), sizeof n); };
  for (const std::string& part : message) {
    add(static_cast<std::uint32_t>(part.size()));
    body += part;
  }
  const auto size = static_cast<std::uint32_t>(body.size());
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + body;
}

// Takes one message off the front of `buffer`, if a whole one is there.
std::optional<Message> unpack(std::string& buffer) {
  std::uint32_t size = 0;
  if (buffer.size() < sizeof size) return std::nullopt;
  std::memcpy(&size, buffer.data(), sizeof size);
  if (buffer.size() - sizeof size < size) return std::nullopt;
  Message message;
  std::string_view body(buffer.data() + sizeof size, size);
  while (body.size() >= sizeof size) {
    std::uint32_t part = 0;
    std::memcpy(&part, body.data(), sizeof part);
    body.remove_prefix(sizeof part);
    message.emplace_back(body.substr(0, part));
    body.remove_prefix(std::min<std::size_t>(part, body.size()));
  }
  buffer.erase(0, sizeof size + size);
  return message;
}

// A peer that has closed its end must give an error, not SIGPIPE, and a library may not change the process's handlers.
bool write_all(int fd, std::string_view data) {
  sigset_t pipe, before;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  bool broken = false;
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      broken = true;
      if (errno == EPIPE) {
        const struct timespec now = {0, 0};
        while (sigtimedwait(&pipe, nullptr, &now) < 0 && errno == EINTR) {
        }
      }
      break;
    }
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return !broken;
}

}  // namespace

Result<RunResult> run_program(std::span<const std::string> argv, const RunLimits& limits) {
  const auto start = Clock::now();
  const auto deadline = after(limits.timeout_seconds);
  Pipe pipe;
  int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (pipe.read < 0 || null < 0) {
    close_fd(null);
    return fail(ErrorKind::kIo, fmt::format("cannot start '{}': {}", argv[0], std::strerror(errno)));
  }
  auto spawned = spawn(argv, null, pipe.write, pipe.write, limits.folder);
  close_fd(null);
  KGEN_TRY(const pid_t pid, std::move(spawned));
  close_fd(pipe.write);
  limit(pid, RLIMIT_CORE, 0, 0);
  // Ends the program even if we are killed before its time is up. A compiler may use several threads: hence the factor.
  const auto cpu = static_cast<std::uint64_t>(limits.timeout_seconds * 4) + 2;
  limit(pid, RLIMIT_CPU, cpu, cpu + 5);
  if (limits.memory_bytes > 0) limit(pid, RLIMIT_AS, limits.memory_bytes, limits.memory_bytes);
  if (limits.file_bytes > 0) limit(pid, RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes);

  RunResult result;
  ::fcntl(pipe.read, F_SETFL, O_NONBLOCK);
  const auto drain = [&] {  // false once every writer has closed
    char chunk[16384];
    for (;;) {
      const ssize_t n = ::read(pipe.read, chunk, sizeof chunk);
      if (n == 0) return false;
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      const std::size_t room = limits.output_bytes - std::min(limits.output_bytes, result.output.size());
      result.output.append(chunk, std::min(room, static_cast<std::size_t>(n)));
    }
  };
  // A grandchild may hold the pipe open after the program's end, and a program may close it long before: watch both.
  bool open = true;
  for (;;) {
    if (open) {
      pollfd event = {pipe.read, POLLIN, 0};
      ::poll(&event, 1, poll_ms(deadline, 20));
      open = drain();
    } else {
      ::usleep(500);
    }
    siginfo_t ended = {};
    // Its id stays taken until it is waited for, so the group can be killed by that id after its end as well.
    if (::waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == pid) break;
    if (Clock::now() >= deadline) {
      result.end = RunResult::End::kTimeout;
      break;
    }
  }
  ::kill(-pid, SIGKILL);
  const int status = wait_for(pid);
  if (open) drain();
  result.seconds = since(start);
  if (result.end != RunResult::End::kTimeout) {
    result.end = WIFSIGNALED(status) ? RunResult::End::kSignalled : RunResult::End::kExited;
    result.code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
  }
  return result;
}

std::string describe_end(const RunResult& result, double timeout_seconds) {
  switch (result.end) {
    case RunResult::End::kTimeout:
      return fmt::format("ran longer than {:g} s", timeout_seconds);
    case RunResult::End::kSignalled:
      return fmt::format("was killed by signal {} ({})", result.code, strsignal(result.code));
    case RunResult::End::kExited:
      break;
  }
  return fmt::format("exited with status {}", result.code);
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  if (path == nullptr || name.empty()) return "";
  for (const std::string& folder : split(path, ':')) {
    std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

std::string shell_quoted(const std::string& word) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+./:,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

Result<TemporaryFolder> TemporaryFolder::make() {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path base = fs::temp_directory_path(error);
  if (error) base = "/tmp";
  std::string path = (base / "kgen-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr)  // 0700
    return fail(ErrorKind::kIo,
                fmt::format("{}: cannot make a folder in it; set TMPDIR to one that can be written", base.string()));
  return TemporaryFolder(std::move(path));
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  if (!path_.empty()) std::filesystem::remove_all(path_, error);
}

Result<ChildProcess> ChildProcess::start(std::span<const std::string> argv) {
  Pipe to, from;
  int errors = ::memfd_create("stderr", MFD_CLOEXEC);
  if (to.read < 0 || from.read < 0 || errors < 0) {
    close_fd(errors);
    return fail(ErrorKind::kIo, fmt::format("cannot start '{}': {}", argv[0], std::strerror(errno)));
  }
  auto pid = spawn(argv, to.read, from.write, errors, "");
  if (!pid) {
    close_fd(errors);
    return tl::unexpected(std::move(pid.error()));
  }
  limit(*pid, RLIMIT_CORE, 0, 0);
  return ChildProcess(*pid, std::exchange(to.write, -1), std::exchange(from.read, -1), errors);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      to_(std::exchange(other.to_, -1)),
      from_(std::exchange(other.from_, -1)),
      errors_(std::exchange(other.errors_, -1)),
      buffer_(std::move(other.buffer_)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(to_, other.to_);
  std::swap(from_, other.from_);
  std::swap(errors_, other.errors_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) {
    kill();
    wait_for(pid_);
  }
  close_fd(to_);
  close_fd(from_);
  close_fd(errors_);
}

void ChildProcess::kill() {
  if (pid_ > 0) ::kill(-pid_, SIGKILL);
}

bool ChildProcess::send(const Message& message) { return to_ >= 0 && write_all(to_, pack(message)); }

std::string ChildProcess::reap() {
  if (pid_ <= 0) return "has ended";
  // It has closed its stdout: either it is ending by itself, or it is of no more use.
  int status = 0;
  for (int i = 0; i < 200; ++i) {
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      break;
    }
    ::usleep(1000);
  }
  if (pid_ > 0) {
    kill();
    status = wait_for(pid_);
    pid_ = -1;
  }
  std::string why = describe_status(status);
  constexpr off_t kTail = 2000;
  const off_t size = ::lseek(errors_, 0, SEEK_END);
  std::string tail(static_cast<std::size_t>(std::clamp<off_t>(size, 0, kTail)), '\0');
  const ssize_t n = ::pread(errors_, tail.data(), tail.size(), std::max<off_t>(0, size - kTail));
  tail.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  if (!trim(tail).empty()) why += ": " + std::string(trim(tail));
  return why;
}

ChildProcess::Received ChildProcess::receive(double timeout_seconds) {
  Received received;
  const auto deadline = after(timeout_seconds);
  for (;;) {
    if (auto message = unpack(buffer_)) {
      received.kind = Received::Kind::kMessage;
      received.message = std::move(*message);
      return received;
    }
    if (from_ < 0 || pid_ <= 0) {
      received.why = "has ended";
      return received;
    }
    pollfd event = {from_, POLLIN, 0};
    const int ready = ::poll(&event, 1, poll_ms(deadline, 1000));
    if (ready == 0 && Clock::now() >= deadline) {
      received.kind = Received::Kind::kTimeout;
      return received;
    }
    if (ready <= 0) continue;
    char chunk[65536];
    const ssize_t n = ::read(from_, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || buffer_.size() > kMaxMessage) {
      received.why = reap();
      return received;
    }
    buffer_.append(chunk, static_cast<std::size_t>(n));
  }
}

MessageChannel MessageChannel::from_stdio() {
  const int in = ::fcntl(0, F_DUPFD_CLOEXEC, 3);
  const int out = ::fcntl(1, F_DUPFD_CLOEXEC, 3);
  ::dup2(2, 1);
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null >= 0) {
    ::dup2(null, 0);
    ::close(null);
  }
  // A reader that is gone raises POLLERR on our end of the pipe, whatever the main thread is busy with.
  std::thread([out] {
    pollfd event = {out, 0, 0};
    for (;;) {
      if (::poll(&event, 1, -1) > 0 && (event.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) ::_exit(1);
    }
  }).detach();
  return {in, out};
}

std::optional<Message> MessageChannel::receive() {
  std::string buffer;
  // Exactly one message is read, so that nothing of the next one is lost with the buffer.
  const auto fill = [&](std::size_t size) {
    while (buffer.size() < size) {
      const std::size_t have = buffer.size();
      buffer.resize(size);
      const ssize_t n = ::read(in_, buffer.data() + have, size - have);
      buffer.resize(have + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      if (n == 0 || (n < 0 && errno != EINTR)) return false;
    }
    return true;
  };
  std::uint32_t size = 0;
  if (!fill(sizeof size)) return std::nullopt;
  std::memcpy(&size, buffer.data(), sizeof size);
  if (size > kMaxMessage || !fill(sizeof size + size)) return std::nullopt;
  return unpack(buffer);
}

bool MessageChannel::waiting() const {
  pollfd event = {in_, POLLIN, 0};
  return ::poll(&event, 1, 0) > 0;
}

bool MessageChannel::send(const Message& message) { return write_all(out_, pack(message)); }

}  // namespace kgen
