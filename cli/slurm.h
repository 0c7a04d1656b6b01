// `kgen tune --slurm`: the shards of a run as an array of Slurm jobs, watched to their end and merged. Slurm is the
// engine: what waits, runs where and is started again after a lost node is its business.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "cli/cli.h"

namespace kgen {

struct SlurmRun {
  Words command;  // `kgen tune SPEC… flags` that a shard runs, without --db, --shard and --json
  std::string spec_hash;
  std::string db_path;  // what the shards are merged into; they lie in DB_PATH.shards until then
  int shards = 1;
  std::string partition = {};  // "" = Slurm's default
  Words arguments = {};        // further ones for sbatch
};

struct SlurmOutcome {
  int shards = 0, done = 0;
  int submitted = 0;  // arrays
  Merged merged;      // all shards together
  Json rows;          // of the shards that are done, as `kgen tune --json` writes them
  std::string device, arch;
  double device_seconds = 0, wall_seconds = 0;
  std::int64_t verified = 0;
  bool any_failed = false;
};

// Resumes: a run of the same request that is under way is watched, shards that were lost are submitted again, and what
// earlier runs found is known to the shards. After a stop, or where no shard comes to its end any more, what there is
// has been merged; the folder stays, and the same command goes on. `show` gets a line for people.
Result<SlurmOutcome> tune_on_slurm(const SlurmRun&, const std::function<void(const std::string&)>& show,
                                   const std::atomic<bool>& stop);

}  // namespace kgen
