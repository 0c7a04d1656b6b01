// Keeps one worker at work: starts it, sets the problem up, ends it when a candidate takes too long, starts another,
// and says how each candidate ended. A device is only used again after a known-good kernel has run on it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tuner/worker.h"

namespace kgen {

class Supervisor {
 public:
  // `self`: the kgen executable. `timeout_seconds`: of one candidate, from its launch; the limits of what else a worker
  // does are multiples of it.
  Supervisor(std::string self, std::string device, double timeout_seconds)
      : self_(std::move(self)), device_(std::move(device)), timeout_(timeout_seconds) {}

  // Starts the first worker. Errors as open_device().
  Result<DeviceInfo> start();

  // The problem that workers are set up for from now on. Every set-up takes the next seed, so inputs are fresh each
  // time.
  void use(CheckCase check, TimingMode timing);

  void submit(TryRequest request);
  std::size_t outstanding() const { return queue_.size(); }
  // Drops what has not been started. True when a candidate is still running.
  bool drop_waiting();

  // Waits for the end of a request, whatever end it is; nullopt after `timeout_seconds` or when `wake_fd` (-1: none)
  // gets readable. kCheckFailed: the problem's reference does not run, so nothing can be verified. kDevice: the device
  // does not come back. With kCheckFailed the queue is emptied.
  Result<std::optional<TryResult>> next(double timeout_seconds, int wake_fd);

  // Samples in turns, beside the candidates; kCheckFailed when one of them failed. Nothing may be outstanding.
  // `meanwhile` is called again and again until it ends; an error of it ends the wait, and the worker.
  Result<RaceResult> race(const RaceRequest&, const std::function<Result<void>()>& meanwhile = {});

  // Runs a known-good kernel where the worker was lost since the last one. Errors as next().
  Result<void> revive() { return ready_ ? Result<void>() : bring_up(); }

  bool counts_energy() const { return worker_ && worker_->counts_energy(); }
  double bandwidth() const { return bandwidth_; }
  // What the worker has spent its time on since the start. A candidate that hung counts as verification.
  struct BusySeconds {
    double reference = 0;     // operands made, reference computed, buffers laid out
    double verification = 0;  // code loaded, run, compared and unloaded
    double timing = 0;        // samples with the flushes between them
    double turns = 0;         // those of the leaders, while nothing was asked for
    double asked() const { return reference + verification + timing; }
    double total() const { return asked() + turns; }
    // To `this` what came between two moments.
    void add(const BusySeconds& from, const BusySeconds& to) {
      reference += to.reference - from.reference;
      verification += to.verification - from.verification;
      timing += to.timing - from.timing;
      turns += to.turns - from.turns;
    }
  };
  const BusySeconds& busy() const { return busy_; }
  // The newest of the present problem, once.
  std::vector<Standing> take_standings() { return std::exchange(standings_, {}); }
  std::uint64_t seed() const { return check_.seed; }  // of the present inputs
  const std::string& method() const { return method_; }

 private:
  Result<void> bring_up();
  // One attempt; nullopt: the device did not come up, try again. Text: the reference does not run.
  Result<std::optional<std::string>> set_up();
  void lose_worker();

  std::string self_, device_;
  double timeout_;
  std::optional<Worker> worker_;
  CheckCase check_;
  TimingMode timing_ = TimingMode::kCold;
  bool ready_ = false;
  bool trusted_ = false;  // a candidate agreed with the present reference
  bool doubted_ = false;  // the problem's reference was computed anew because none did
  struct Waiting {
    TryRequest request;
    bool started = false;
    bool second_attempt = false;
  };
  std::deque<Waiting> queue_;  // sent to the worker, oldest first
  double deadline_ = 0;        // of the oldest
  double bandwidth_ = 0;
  BusySeconds busy_;
  std::vector<Standing> standings_;
  std::string method_;
};

}  // namespace kgen
