// `kgen tune`: for each problem, propose candidates, compile ahead, verify and time in a worker process, record,
// publish.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "db/db.h"
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
  std::string device = "auto";
  Budget budget{.candidates = 64};
  std::string strategy = "auto";        // of strategy_names()
  std::vector<std::string> warm_start;  // databases and recorded spaces: what other devices or shapes found
  std::string prior = "shipped";        // or "none", or a folder that `kgen db prior` wrote: what to try first
  std::string timing = "cold";          // cold, warm, graph
  int jobs = 0;                         // compile processes; 0 = all cores
  std::uint64_t seed = 1;
  bool fresh = false;
  double candidate_timeout_seconds = 30;  // verification and timing of one candidate, reference excluded
};

// State of a run, for progress lines. Times in seconds, counts over the whole run.
struct TuneProgress {
  std::size_t problems = 0, problems_done = 0;
  std::string current;  // label or dims of the problem in work
  std::int64_t proposed = 0, compiled = 0, verified = 0, timed = 0, failed = 0, planned = 0;
  double best_us = 0, elapsed = 0, left = 0;
  std::string best_config;
};

struct TuneOutcome {
  struct Row {
    std::string op, signature, dims_key, label;
    std::string config;                              // winner's; "" when none was found
    double time_us = 0, mad_us = 0, default_us = 0;  // default_us 0 = default not timed
    double flops = 0, bytes = 0;
    std::optional<double> expected_loss{};  // of the winner against the best of the space: Strategy::expected_loss()
    std::int64_t candidates = 0, verified = 0;  // trials of this problem in the DB
    std::string note;                           // "nothing to launch", "all candidates failed: …"
  };
  std::vector<Row> rows;
  std::string device_name, arch;
  double peak_flops = 0, peak_bytes_per_second = 0;  // measured ceilings of this device; 0 = unknown
  double wall_seconds = 0, gpu_busy_seconds = 0;
  std::int64_t verified = 0;  // candidates that passed verification in this run
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

// Entry of the hidden subcommand `kgen __worker DEVICE`: one device, one candidate at a time, over stdin/stdout.
int worker_main(const std::string& device);

}  // namespace kgen
