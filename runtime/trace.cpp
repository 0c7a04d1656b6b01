#include "runtime/trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace kgen {
namespace {

constexpr auto kEvery = std::chrono::seconds(10);

// One write: lines of processes that share the file do not mix.
bool append(const std::string& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) return false;
  ssize_t done = 0;
  do done = ::write(file, text.data(), text.size());
  while (done < 0 && errno == EINTR);
  ::close(file);
  return done == static_cast<ssize_t>(text.size());
}

}  // namespace

Result<std::shared_ptr<Trace>> Trace::open(const std::string& path) {
  if (!append(path, ""))
    return fail(ErrorKind::kIo, fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
  return std::shared_ptr<Trace>(new Trace(path));
}

std::shared_ptr<Seen> Trace::add(std::string head) {
  auto seen = std::make_shared<Seen>(std::move(head));
  bool due = false;
  {
    const std::lock_guard lock(mutex_);
    seen_.push_back(seen);
    due = std::chrono::steady_clock::now() - written_ > kEvery;
  }
  if (due) write();
  return seen;
}

void Trace::write() {
  const std::lock_guard lock(mutex_);
  std::string lines;
  for (const auto& seen : seen_) {
    const std::uint64_t count = seen->count_.load(std::memory_order_relaxed);
    if (count == seen->written_) continue;
    const auto seconds = [](const std::atomic<std::int64_t>& ms) {
      return static_cast<double>(ms.load(std::memory_order_relaxed)) / 1000;
    };
    lines += fmt::format("{{{}, \"count\": {}, \"first\": {:.3f}, \"last\": {:.3f}}}\n", seen->head_,
                         count - seen->written_, seconds(seen->first_ms_), seconds(seen->last_ms_));
    seen->written_ = count;
  }
  // A full disk is no reason to disturb the program; the counts are lost.
  if (!lines.empty()) append(path_, lines);
  written_ = std::chrono::steady_clock::now();
}

}  // namespace kgen
