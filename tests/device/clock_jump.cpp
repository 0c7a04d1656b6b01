// A library to preload: the time of day jumps by up to ten years in either direction about five times a second.
// KGEN_FAKE_LOG gets a line for each jump that somebody saw. The steady clock is left alone, as a system's is.
#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/time.h>
#include <time.h>

#include <atomic>

#include "tests/device/fault_script.h"

namespace {

constexpr long kInterval = 200'000'000, kSecond = 1'000'000'000;  // nanoseconds

int real_time(clockid_t clock, timespec* time) {
  static const auto kReal = reinterpret_cast<int (*)(clockid_t, timespec*)>(dlsym(RTLD_NEXT, "clock_gettime"));
  return kReal(clock, time);
}

long offset_seconds() {
  static std::atomic<long> last{-1};
  static std::atomic<long> offset{0};
  timespec steady{};
  real_time(CLOCK_MONOTONIC, &steady);
  const long now = (steady.tv_sec * kSecond + steady.tv_nsec) / kInterval;
  long before = last.load();
  if (before != now && last.compare_exchange_strong(before, now)) {
    constexpr long kTenYears = 10L * 365 * 86400;
    const long jump = static_cast<long>(fake::lot() % (2 * kTenYears)) - kTenYears;
    offset = jump;
    fake::log_line(fmt::format("fault the clock is {} days off", jump / 86400));
  }
  return offset;
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int code = real_time(clock, time);
  if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += offset_seconds();
  return code;
}
__attribute__((visibility("default"))) int gettimeofday(timeval* time, void*) noexcept {
  timespec now{};
  const int code = clock_gettime(CLOCK_REALTIME, &now);
  *time = {now.tv_sec, now.tv_nsec / 1000};
  return code;
}
__attribute__((visibility("default"))) time_t time(time_t* into) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (into != nullptr) *into = now.tv_sec;
  return now.tv_sec;
}
}
