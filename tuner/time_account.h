// Where the time of a tune goes: every moment of the tuning thread belongs to exactly one activity, and while the
// device has work it belongs to the device, whatever else is done meanwhile. Used by one thread.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <utility>

namespace kgen {

enum class Activity { kStarting, kWaiting, kPreparing, kProposing, kCompilers, kDevice, kFinals, kDatabase, kOther };

class TimeAccount {
 public:
  // Gives back what the time went to before.
  Activity go_on_with(Activity activity) {
    pass();
    return std::exchange(activity_, activity);
  }
  void device_has_work(bool has_work) {
    pass();
    device_ = has_work;
  }
  double seconds(Activity activity) const { return seconds_[static_cast<std::size_t>(activity)]; }

  // An activity for the life of the object.
  class During {
   public:
    During(TimeAccount& account, Activity activity) : account_(account), before_(account.go_on_with(activity)) {}
    ~During() { account_.go_on_with(before_); }
    During(const During&) = delete;
    During& operator=(const During&) = delete;

   private:
    TimeAccount& account_;
    Activity before_;
  };

 private:
  using Clock = std::chrono::steady_clock;
  void pass() {
    const auto now = Clock::now();
    const Activity owner = device_ ? Activity::kDevice : activity_;
    seconds_[static_cast<std::size_t>(owner)] += std::chrono::duration<double>(now - since_).count();
    since_ = now;
  }

  Clock::time_point since_ = Clock::now();
  Activity activity_ = Activity::kOther;
  bool device_ = false;
  std::array<double, static_cast<std::size_t>(Activity::kOther) + 1> seconds_{};
};

}  // namespace kgen
