#include "tuner/supervisor.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace kgen {
namespace {

// In limits of a candidate:
constexpr double kOpen = 2;        // to open the device
constexpr double kProbe = 2;       // to load the check kernels and run one
constexpr double kReference = 10;  // to compute the reference of one problem
constexpr double kQueue = 2;       // from being at the head of the queue to being started
constexpr int kBringUps = 4;       // attempts before a device is given up
constexpr int kReferences = 3;     // attempts before a reference is: the fault may have been the device's

constexpr double kMeanwhile = 0.02;  // seconds between calls of what is done during a race

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Result<DeviceInfo> Supervisor::start() {
  KGEN_TRY(worker_, Worker::start(self_, device_, kOpen * timeout_));
  device_ = worker_->device().id;  // "auto" must not become another device later
  return worker_->device();
}

void Supervisor::use(CheckCase check, TimingMode timing) {
  check_ = std::move(check);
  timing_ = timing;
  ready_ = doubted_ = false;
  standings_.clear();
}

void Supervisor::lose_worker() {
  worker_.reset();
  ready_ = false;
  for (Waiting& waiting : queue_) waiting.started = false;
}

// The text is empty when all is well, else why the problem cannot be verified.
Result<std::optional<std::string>> Supervisor::set_up() {
  if (!worker_) {
    auto worker = Worker::start(self_, device_, kOpen * timeout_);
    if (!worker) return std::optional<std::string>();
    worker_ = std::move(*worker);
  }
  ++check_.seed;
  worker_->setup(check_, timing_);
  double limit = now_seconds() + kProbe * timeout_;
  bool probed = false;
  for (;;) {
    const WorkerEvent event = worker_->receive(std::clamp(limit - now_seconds(), 0.0, 1.0));
    switch (event.kind) {
      case WorkerEvent::Kind::kProbed:
        probed = true;
        limit = now_seconds() + kReference * timeout_;
        continue;
      case WorkerEvent::Kind::kReady:
        method_ = event.text;
        busy_.reference += event.seconds;
        bandwidth_ = worker_->bandwidth();
        return std::optional<std::string>("");
      case WorkerEvent::Kind::kRefused:
        lose_worker();
        return std::optional<std::string>("the reference cannot be computed: " + event.text);
      case WorkerEvent::Kind::kEnded: {
        const bool from_outside = event.killed_from_outside;
        lose_worker();
        if (!probed || from_outside) return std::optional<std::string>();
        return std::optional<std::string>("the worker " + event.text + " while it computed the reference");
      }
      default:
        if (now_seconds() < limit) continue;
        worker_->kill();
        lose_worker();
        if (!probed) return std::optional<std::string>();
        return std::optional<std::string>(fmt::format("the reference took more than {:g} s", kReference * timeout_));
    }
  }
}

Result<void> Supervisor::bring_up() {
  std::optional<std::string> done;
  int references = 0;
  for (int attempt = 0; attempt < kBringUps && !done; ++attempt) {
    // A driver takes a while to clean up after a process that was killed in the middle of a kernel.
    if (attempt > 0) ::usleep(500'000u << attempt);
    KGEN_TRY(done, set_up());
    if (done && !done->empty() && ++references < kReferences) done.reset();
  }
  if (!done)
    return fail(ErrorKind::kDevice, fmt::format("{} does not run a known-good kernel any more; reset it", device_));
  if (!done->empty()) {
    queue_.clear();
    return fail(ErrorKind::kCheckFailed, *done);
  }
  ready_ = true;
  trusted_ = false;
  for (const Waiting& waiting : queue_) worker_->submit(waiting.request);
  deadline_ = now_seconds() + kQueue * timeout_;
  return {};
}

void Supervisor::submit(TryRequest request) {
  if (ready_) worker_->submit(request);
  if (queue_.empty()) deadline_ = now_seconds() + kQueue * timeout_;
  queue_.push_back({std::move(request)});
}

bool Supervisor::drop_waiting() {
  const bool running = !queue_.empty() && queue_.front().started;
  queue_.resize(running ? 1 : 0);
  return running;
}

Result<std::optional<TryResult>> Supervisor::next(double timeout_seconds, int wake_fd) {
  const double until = now_seconds() + timeout_seconds;
  for (;;) {
    if (!queue_.empty() && !ready_) KGEN_CHECK_OK(bring_up());
    const WorkerEvent event = ready_ ? worker_->receive(0) : WorkerEvent{};
    TryResult lost;
    if (!queue_.empty()) lost.ticket = queue_.front().request.ticket;
    switch (event.kind) {
      case WorkerEvent::Kind::kStarted:
        if (queue_.empty() || queue_.front().request.ticket != event.ticket) continue;  // dropped meanwhile
        queue_.front().started = true;
        deadline_ = now_seconds() + timeout_;
        continue;
      case WorkerEvent::Kind::kResult: {
        busy_.timing += event.result.timing_seconds;
        busy_.verification += event.result.seconds - event.result.timing_seconds;
        if (queue_.empty() || queue_.front().request.ticket != event.ticket) continue;
        trusted_ |= event.result.verdict.passed;
        if (event.result.status == TrialStatus::kWrong && !trusted_ && !doubted_) {
          doubted_ = true;  // which of the two is wrong? A reference that the device spoilt fails every candidate
          lose_worker();
          continue;
        }
        queue_.pop_front();
        deadline_ = now_seconds() + kQueue * timeout_;
        if (event.result.status == TrialStatus::kCrashed) lose_worker();
        return std::optional<TryResult>(event.result);
      }
      case WorkerEvent::Kind::kStandings:
        busy_.turns += event.seconds;
        standings_ = event.standings;
        continue;
      case WorkerEvent::Kind::kEnded: {
        if (queue_.empty()) {
          lose_worker();
          continue;
        }
        Waiting& oldest = queue_.front();
        const bool not_its_doing = event.killed_from_outside || !oldest.started;
        lose_worker();
        if (not_its_doing && !oldest.second_attempt) {
          oldest.second_attempt = true;  // unless it happens again
          continue;
        }
        queue_.pop_front();
        lost.status = TrialStatus::kCrashed;
        lost.reason = "the worker " + event.text;
        return std::optional<TryResult>(lost);
      }
      default:
        break;
    }
    if (!queue_.empty() && now_seconds() >= deadline_) {
      worker_->kill();
      Waiting& oldest = queue_.front();
      const bool not_its_doing = !oldest.started;  // the one before it, timed in turns
      lose_worker();
      if (not_its_doing && !oldest.second_attempt) {
        oldest.second_attempt = true;
        continue;
      }
      queue_.pop_front();
      busy_.verification += timeout_;
      lost.status = TrialStatus::kHung;
      lost.reason = fmt::format("no end after {:g} s; its process was killed", timeout_);
      return std::optional<TryResult>(lost);
    }
    const double now = now_seconds();
    if (now >= until) return std::optional<TryResult>();
    double wait = until - now;
    if (!queue_.empty()) wait = std::min(wait, deadline_ - now);
    pollfd fds[2] = {{ready_ ? worker_->fd() : -1, POLLIN, 0}, {wake_fd, POLLIN, 0}};
    ::poll(fds, 2, static_cast<int>(std::clamp(wait * 1e3 + 1, 0.0, 1e4)));
    if (wake_fd >= 0 && (fds[1].revents & POLLIN) != 0 && (fds[0].revents & (POLLIN | POLLHUP)) == 0)
      return std::optional<TryResult>();
  }
}

Result<RaceResult> Supervisor::race(const RaceRequest& request, const std::function<Result<void>()>& meanwhile) {
  if (!ready_) KGEN_CHECK_OK(bring_up());
  worker_->race(request);
  const double limit =
      now_seconds() + timeout_ * static_cast<double>(request.candidates.size() + (request.against_vendor ? 1 : 0));
  for (;;) {
    if (const auto done = meanwhile ? meanwhile() : Result<void>(); !done) {
      worker_->kill();
      lose_worker();
      return tl::unexpected(done.error());
    }
    const WorkerEvent event = worker_->receive(std::clamp(limit - now_seconds(), 0.0, meanwhile ? kMeanwhile : 1.0));
    if (event.kind == WorkerEvent::Kind::kStandings) busy_.turns += event.seconds;
    if (event.kind == WorkerEvent::Kind::kStarted || event.kind == WorkerEvent::Kind::kResult ||
        event.kind == WorkerEvent::Kind::kStandings)
      continue;
    if (event.kind == WorkerEvent::Kind::kRaced) {
      busy_.timing += event.timing_seconds;
      busy_.verification += event.seconds - event.timing_seconds;
      if (event.race.timings.size() == request.candidates.size()) return event.race;
      lose_worker();
      return fail(ErrorKind::kCheckFailed, event.text);
    }
    if (event.kind == WorkerEvent::Kind::kTimeout && now_seconds() < limit) continue;
    if (event.kind == WorkerEvent::Kind::kTimeout) worker_->kill();
    lose_worker();
    return fail(ErrorKind::kCheckFailed,
                event.kind == WorkerEvent::Kind::kEnded ? "the worker " + event.text : "no end in time");
  }
}

}  // namespace kgen
