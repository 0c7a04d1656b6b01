// What a program asks for, written down for `kgen doctor`: JSON lines, one a shape, with how often it was launched.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"

namespace kgen {

// One shape of one operator. Counting costs a launch two relaxed writes.
class Seen {
 public:
  // `head`: the members of the JSON object that do not change, without its braces.
  explicit Seen(std::string head) : head_(std::move(head)) {}
  void note() {
    const std::int64_t now = now_ms();
    std::int64_t none = 0;
    first_ms_.compare_exchange_strong(none, now, std::memory_order_relaxed);
    last_ms_.store(now, std::memory_order_relaxed);
    count_.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  friend class Trace;
  static std::int64_t now_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  const std::string head_;
  std::atomic<std::uint64_t> count_ = 0;
  std::atomic<std::int64_t> first_ms_ = 0, last_ms_ = 0;
  std::uint64_t written_ = 0;  // of count_, by the Trace
};

// One file. Lines are added, each with the counts since the line before it, so several processes may share a file and a
// killed one loses little. Safe from any thread.
class Trace {
 public:
  // Fails where the file cannot be written.
  static Result<std::shared_ptr<Trace>> open(const std::string& path);
  ~Trace() { write(); }
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // A shape from now on counted. Writes what is due where that was not done for a while.
  std::shared_ptr<Seen> add(std::string head);
  // Adds a line for each shape that was launched since its last one.
  void write();

 private:
  explicit Trace(std::string path) : path_(std::move(path)) {}
  const std::string path_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Seen>> seen_;
  std::chrono::steady_clock::time_point written_ = std::chrono::steady_clock::now();
};

}  // namespace kgen
