// The worker: a child process that owns the device, so that a candidate which hangs or faults costs one process and not
// the run. It keeps a problem's inputs, reference and buffers while candidates come and go.
//
// Messages are one JSON document each, in the frames of tuner/process.h. To the worker: setup, try, race. From it:
// hello (or refused, and it ends), then for each setup probed and ready (or refused), for each try started and result,
// for each race started and raced; after a try, while nothing else is asked, standings. Requests are answered in order;
// two may be on the way, so the worker need not wait for the next. A try has its plan's parameters as a second
// document: they are most of it, the same for many candidates, and 60 us of work to read, so they are read where they
// have changed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "db/db.h"
#include "device/device.h"
#include "tuner/measure.h"
#include "tuner/process.h"
#include "tuner/verify.h"

namespace kgen {

// One candidate to verify and, if asked, to time.
struct TryRequest {
  std::int64_t ticket = 0;
  std::string code_path{};
  BoundPlan bound{};
  std::vector<CheckCase::Output> limits{};  // of the candidate's compute type; none: the case's
  Repeats repeats = Repeats::kNone;         // further launches whose bits are compared
  bool measure = true;
  bool idle = false;   // while nothing is asked after it, the fastest so far are timed in turns (Standing)
  double best_us = 0;  // of the problem so far; 0 = none
};

struct TryResult {
  std::int64_t ticket = 0;
  TrialStatus status = TrialStatus::kTimed;  // kTimed also for "verified, timing not asked for"
  std::string reason{};
  Verdict verdict{};
  Timing timing{};
  // Wall time of the check, of its part until the code was loaded, of the samples, of all.
  double verify_seconds = 0, load_seconds = 0, timing_seconds = 0, seconds = 0;
  // What the process that examined it did meanwhile: its CPU time, pages that it touched for the first time, how often
  // it waited, and how often others took its core (bench/isolation_bench.cpp).
  struct Process {
    double cpu_seconds = 0;
    std::int64_t page_faults = 0, waits = 0, preemptions = 0;
  };
  Process process{};
  // Of a worker: from a whole request until work on it began, and what the answer before this one took to send.
  double receive_seconds = 0, answer_seconds = 0;
};

// One of the fastest of the problem so far, timed in turns while the device had nothing else to do: their medians tell
// them apart better than those of samples that were taken minutes apart.
struct Standing {
  std::int64_t ticket = 0;
  double median_us = 0;
};

struct RaceRequest {
  std::vector<TryRequest> candidates;
  int rounds = 0;
  int energy_rounds = 0;  // 0: energy is not measured
  // The rounds are split over so many sittings (fewer where preparing one takes long), each with buffers and code in
  // other places of memory: where they lie makes a kernel up to 4 % faster or slower for the life of a process (H100,
  // kernels of 15 us; 2026-11-22), which no number of rounds in one place tells.
  int sittings = 1;
  double preparing_seconds = 0.5;  // that the sittings may take before they begin, all together
  // After kSittingsOfAll those that cannot win any more (stats.h) sit out, and the race ends when one is left.
  bool narrow = false;
  // The vendor's library runs in turns with the candidates, with the algorithm of its choice that was the fastest.
  bool against_vendor = false;
  VendorCall vendor{};
};
struct VendorResult {
  std::string library;                // "cuBLASLt 13.0.2"; "" where none was opened
  std::string note;                   // why it was not timed; "" where it was
  int algorithms = 0, algorithm = 0;  // that were tried; the one that was timed
  double max_error_ratio = 0, relative_l2 = 0;
  Timing timing{};
};
struct RaceResult {  // beside the candidates; a timing's samples are those of its sittings one after the other
  std::vector<Timing> timings;
  std::vector<Energy> energies;  // empty where energy was not asked for
  VendorResult vendor{};
};

// What the worker does with its device, without the process around it. Used by one thread.
class Examiner {
 public:
  // `telemetry` may be null.
  Examiner(Device&, std::unique_ptr<Telemetry> telemetry);

  // As Bench::open(); the device's bandwidth is measured at the first one.
  Result<void> setup(const CheckCase&, TimingMode, const std::function<void()>& probed);
  // Verifies and times. An end that is the candidate's doing is a status.
  TryResult attempt(const TryRequest&);
  // A few rounds of the leaders in turns, where the last attempt was `idle`; false: more would tell nothing.
  bool take_turns();
  // As take_turns() left them; those with too few samples are left out.
  std::vector<Standing> standings() const;
  // kCheckFailed: a candidate that fails its check. `timing_seconds`: of the samples and the energy alone.
  Result<RaceResult> race(const RaceRequest&, double& timing_seconds);

  // After an error: does the device still run a known-good kernel?
  bool healthy() { return bench_->healthy(); }
  const std::string& method() const { return bench_->method(); }
  double bandwidth() const { return bandwidth_; }

 private:
  Measurer::Launch launcher(const LoadedCandidate&);
  Result<LoadedCandidate> load(const TryRequest&);
  Result<LoadedCandidate> load_vendor(const VendorCall&, std::shared_ptr<VendorKernel>&, VendorResult&);
  Result<void> examine(const TryRequest&, TryResult&);
  void lead(LoadedCandidate, std::int64_t ticket, double alone_us);

  Device& device_;
  const std::unique_ptr<Telemetry> telemetry_;
  TimingMode timing_ = TimingMode::kCold;
  CheckCase check_;
  std::unique_ptr<Bench> bench_;
  std::map<VendorOp, Result<std::unique_ptr<VendorLibrary>>> libraries_;  // once they were asked for
  double setup_seconds_ = 0;
  double bandwidth_ = 0;
  double best_us_ = 0;  // of the problem
  struct Leader {
    std::int64_t ticket = 0;
    double alone_us = 0;             // median of its own samples
    std::vector<double> samples_us;  // of the rounds
    LoadedCandidate candidate;
  };
  std::vector<Leader> leaders_;  // after bench_, whose code they are
};

struct WorkerEvent {
  enum class Kind {
    kProbed,   // the device works; the reference is being computed
    kReady,    // text: how outputs are compared
    kRefused,  // setup failed; text says why, the worker can go on with another problem
    kStarted,  // ticket: its time starts now
    kResult,
    kStandings,  // seconds: of the turns since those before
    kRaced,
    kTimeout,  // nothing came in time; the worker still runs
    kEnded,    // the process is gone; text says how
  };
  Kind kind = Kind::kTimeout;
  std::string text;
  std::int64_t ticket = 0;
  double seconds = 0, timing_seconds = 0;  // of all, and of a race's samples
  bool killed_from_outside = false;        // kEnded: by a signal that no kernel raises
  TryResult result;
  std::vector<Standing> standings;  // kStandings
  RaceResult race;                  // kRaced
};

// The parent's end. Used by one thread.
class Worker {
 public:
  // Starts `self __worker DEVICE` and waits until it has opened the device. Errors as open_device().
  static Result<Worker> start(const std::string& self, const std::string& device, double timeout_seconds);

  const DeviceInfo& device() const { return device_; }
  bool counts_energy() const { return counts_energy_; }
  double bandwidth() const { return bandwidth_; }  // bytes a second, measured at the first setup; 0 before
  bool setup(const CheckCase&, TimingMode);        // false: the worker is gone, receive() says how
  bool submit(const TryRequest&);
  bool race(const RaceRequest&);
  WorkerEvent receive(double timeout_seconds);
  int fd() const { return child_.fd(); }  // readable when something has come
  void kill() { child_.kill(); }

 private:
  explicit Worker(ChildProcess child) : child_(std::move(child)) {}
  ChildProcess child_;
  DeviceInfo device_;
  bool counts_energy_ = false;
  double bandwidth_ = 0;
};

}  // namespace kgen
