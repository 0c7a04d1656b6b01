// `kgen tune`: for each problem, propose candidates, compile ahead, verify and time in a worker process, record,
// publish.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "db/db.h"
#include "device/device.h"
#include "device/telemetry.h"
#include "generator/spec.h"
#include "tuner/compile.h"

namespace kgen {

// A spec's own `tune: {budget: N}` comes before `candidates`; a caller whose user gave a budget clears it in the specs.
// What the DB holds of a problem counts. When the time is up the running candidate ends, and finals are held as usual.
struct Budget {
  int candidates = 0;  // 0 = no limit
  double seconds = 0;  // per problem; 0 = no limit
};

struct TuneRequest {
  std::vector<OpSpec> specs;
  std::string device = "auto";  // or several of one kind, "nvidia:0,nvidia:1": a problem stays on one
  Budget budget{.candidates = 64};
  std::string strategy = "auto";        // of strategy_names()
  std::vector<std::string> warm_start;  // databases and recorded spaces: what other devices or shapes found
  std::string prior = "shipped";        // or "none", or a folder that `kgen db prior` wrote: what to try first
  std::string timing = "cold";          // cold, warm, graph
  std::string objective = "time";       // time, energy
  int jobs = 0;                         // compile processes; 0 = all cores
  std::uint64_t seed = 1;
  bool fresh = false;
  bool publish = true;                    // false: neither finals nor winners; the rows have their trials
  double candidate_timeout_seconds = 30;  // verification and timing of one candidate, reference excluded
  bool host_takes_turns = true;  // false, for tests: a host is tuned as a GPU is, with all that goes on at once
};

// State of a run, for progress lines. Times in seconds, counts of this run.
struct TuneProgress {
  struct Tried {
    std::int64_t proposed = 0, compiled = 0, verified = 0, timed = 0, planned = 0;
    std::map<TrialStatus, std::int64_t> failed;  // by how they ended
    Tried& operator+=(const Tried&);
  };
  // What one device is at.
  struct Work {
    std::string device, problem, stage;  // "nvidia:0", "gemm k=64 m=1 n=64", "search"
    std::size_t problems_opened = 0, problems_done = 0;
    std::int64_t proposed = 0, planned = 0;  // of the problem; planned 0: as many as its time allows
    double since = 0;                        // that it has been at the problem
    double best_us = 0;
    std::string best_config;
    double flops = 0, bytes = 0, peak_flops = 0, peak_bytes_per_second = 0;  // as in TuneOutcome
    Tried tried;
  };
  std::size_t problems = 0, problems_done = 0;
  Tried tried;
  std::vector<Work> devices;         // those at work
  double elapsed = 0, left = 0;      // left 0 = not known
  std::vector<std::string> dropped;  // devices that were given up, and why
};

struct TuneOutcome {
  // What serves a dynamic dim. Regrets and losses: 0.02 = 2 % slower than the best kernel for that size.
  struct Cover {
    std::string dim;
    std::int64_t first = 0, last = 0;
    std::vector<std::string> kernels{};  // configurations
    struct Span {
      std::int64_t first = 0, last = 0;
      std::string config;
      std::int64_t measured_at = 0;
      double time_us = 0, loss = 0;  // at that size; that is expected of a size in the span
    };
    std::vector<Span> spans{};                       // ascending, without gaps
    std::vector<std::int64_t> sizes{};               // that were measured
    double worst = 0, mean = 0;                      // regret at those
    double predicted_worst = 0, predicted_mean = 0;  // at sizes that were not measured
  };
  struct Row {
    std::string op, signature, dims_key, label;
    std::string config;                              // winner's; "" when none was found
    double time_us = 0, mad_us = 0, default_us = 0;  // default_us 0 = default not timed
    double energy_uj = 0, default_energy_uj = 0;     // of a call; 0 = not measured
    bool deterministic = false;                      // was demanded
    double flops = 0, bytes = 0;
    double peak_flops = 0;                  // of the device for this dtype; 0 = unknown
    std::optional<double> expected_loss{};  // of the winner against the best of the space: Strategy::expected_loss()
    std::int64_t candidates = 0, verified = 0;  // trials of this problem in the DB
    double seconds = 0;                         // of this run, from the end of the problem before
    std::string note;                           // "nothing to launch", "all candidates failed: …"
    std::optional<Cover> cover{};               // of a dynamic dim; times, flops and bytes are at its last size
    std::vector<TrialRecord> trials{};          // where nothing was published
  };
  std::vector<Row> rows;
  std::string device_name, arch, timing, objective;
  std::int64_t device_id = 0;  // in the DB
  int compute_units = 0;
  double peak_bytes_per_second = 0;  // measured; 0 = unknown
  double wall_seconds = 0;
  struct Device {
    std::string id;
    std::size_t problems = 0;  // that ended there
    double busy_seconds = 0;
  };
  std::vector<Device> devices;
  std::vector<std::string> dropped;  // devices that were given up in the run, and why
  double device_seconds = 0;         // from the start to the end of each device's work, all together
  // Of them the devices' workers spent so many on references, verification and timing (finals included), and on timing
  // alone: samples, and the flushes between them.
  double gpu_busy_seconds = 0, gpu_timing_seconds = 0;
  // All of device_seconds, each moment once. What is done while the device works costs nothing: "proposing",
  // "compilers" … are what it waited for.
  struct Spent {
    std::string on;
    double seconds = 0;
  };
  std::vector<Spent> where_time_went;
  int jobs = 0;                               // compilations at once
  double compile_seconds = 0;                 // of the compilers, all together, for what was not in the cache
  std::int64_t compiled = 0, from_cache = 0;  // candidates of this run
  std::int64_t verified = 0;                  // candidates that passed verification in this run
  bool interrupted = false;
  bool any_failed = false;  // a problem ended without a winner: exit 1
};

Result<TuneOutcome> tune(const TuneRequest&, Db&, Compiler&, const std::string& self,
                         const std::function<void(const TuneProgress&)>& progress, const std::atomic<bool>& stop);

struct VerifyRow {
  std::string signature, dims_key, config;
  bool passed = false;
  std::string detail;  // worst element, error ratio, relative L2, or why it did not run
  double max_error_ratio = 0, relative_l2 = 0;
};
// The candidate that `config` names ("": the default, "*": the default of every legal variant) of each spec on a
// device. `repeat_line` of a failure is in detail.
Result<std::vector<VerifyRow>> verify_specs(const std::vector<OpSpec>&, const std::string& config,
                                            const std::string& device, Compiler&, const std::string& self);
// Winners of a DB for the present device, loaded from their stored objects. `own_op_paths`: definitions of operators in
// it that are not built in.
Result<std::vector<VerifyRow>> verify_db(Db&, const std::string& op_glob, const std::string& device, Compiler&,
                                         const std::string& self, const std::vector<std::string>& own_op_paths = {});

// The winners of one problem, timed beside each other in one process.
struct BenchRow {
  std::string signature, dims_key, label;
  double flops = 0, bytes = 0;
  struct Entry {
    std::vector<std::size_t> files;  // the databases that have this kernel, by their place
    std::string config;
    double time_us = 0, mad_us = 0;
    double over_best = 1;    // its time over that of the fastest, sittings and samples paired (compare())
    double probability = 1;  // of differences like these if it were not slower
  };
  std::vector<Entry> entries;  // fastest first
  std::string note;            // why they were not timed
  // The device maker's library on the same inputs, in turns with the kernels and checked as they are.
  struct VendorEntry {
    std::string library;  // "cuBLASLt 13.0.2"
    std::string note;     // why it was not timed
    int algorithms = 0;   // that it proposed, of which the fastest was timed
    double time_us = 0, mad_us = 0;
    double over_best = 1;    // median of the paired ratios to the fastest kernel; below 1: it is faster than that
    double probability = 1;  // of differences like these if the fastest kernel were not faster
    double relative_l2 = 0;
  };
  std::optional<VendorEntry> vendor{};  // where it was asked for
};
// The winners of all databases for the present device, those of one problem in turns, each kernel once. Nothing is
// written.
Result<std::vector<BenchRow>> bench_dbs(std::vector<Db>&, const std::string& op_glob, const std::string& device,
                                        const std::string& timing, int rounds, bool against_vendor, Compiler&,
                                        const std::string& self, const std::vector<std::string>& own_op_paths = {});

// Entry of the hidden subcommand `kgen __worker DEVICE`: one device, one candidate at a time, over stdin/stdout. `open`
// and `watch` are open_device() and open_telemetry(), or what a test puts in their place.
int worker_main(const std::string& device,
                const std::function<Result<std::unique_ptr<Device>>(const std::string&)>& open = open_device,
                const std::function<std::unique_ptr<Telemetry>(const DeviceInfo&)>& watch = open_telemetry);

}  // namespace kgen
