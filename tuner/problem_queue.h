// The problems of a run on their way to the devices, and its split into the runs of several machines.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "generator/spec.h"

namespace kgen {

// Positions in `specs`, those with the most arithmetic first, equal ones by what they are: the order of the list does
// not matter to it. The same problem twice is in neighbouring places.
std::vector<std::size_t> largest_first(const std::vector<OpSpec>& specs);

// "3/16": the third of 16 parts.
struct Shard {
  int index = 1, count = 1;
};
Result<Shard> parse_shard(const std::string& text);
// The part of the problems that is a shard's. Every problem is in exactly one, the same one twice in the same; all
// shards have large ones and small ones, and as many, give or take one.
std::vector<OpSpec> take_shard(const std::vector<OpSpec>& specs, const Shard& shard);

// Hands each problem to one device at a time. Thread-safe.
class ProblemQueue {
 public:
  // In the order of the list for one device; the largest first for several, so that none is left with one at the end.
  ProblemQueue(const std::vector<OpSpec>& specs, std::size_t devices);

  // The next one, for a device that has none. Waits as long as all that are left are at other devices, which may give
  // them back, and where the same problem is at work. Nothing: all are done, or `stop`.
  template <class Stop>
  std::optional<std::size_t> take(const Stop& stop) {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (stop || done_ == keys_.size()) return std::nullopt;
      if (const auto next = first_free(true)) return next;
      changed_.wait_for(lock, kLook);
    }
  }
  // One more for a device that has so many ahead of the one at work. Nothing where it would be missed by another
  // device that gets idle first.
  std::optional<std::size_t> take_ahead(std::size_t ahead);
  void done(std::size_t index);
  // What a device had taken and has not done.
  void give_back(const std::vector<std::size_t>& indices);
  bool all_done() const;

 private:
  static constexpr auto kLook = std::chrono::milliseconds(200);  // between looks at `stop`
  // The first in order; `past_busy`: what cannot be taken now is passed over, else it ends the search.
  std::optional<std::size_t> first_free(bool past_busy);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> keys_;   // by index: what makes two of them the same problem
  std::vector<std::size_t> order_;  // of all
  std::vector<bool> free_;          // by index
  std::set<std::string> taken_;     // keys of those at devices
  std::size_t done_ = 0, devices_;
};

}  // namespace kgen
