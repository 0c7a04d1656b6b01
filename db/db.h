// The tuned database: one SQLite file, the only SQL in the house. Schema in db/schema.sql, forward migrations in
// db/migrate/NNN.sql (PRAGMA user_version). The tuner opens it read-write (WAL); the runtime read-only and immutable.
// A Db is used by one thread at a time; several processes may write one file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kgen {

// Ends of a candidate's life (PRODUCT). The spelling in the file is the name without k, in snake_case.
enum class TrialStatus {
  kCompileFailed, kCompileTimeout, kPruned, kWrong, kLaunchFailed, kHung, kCrashed,
  kStoppedEarly,  // verified, timed until it was clearly slower than the best
  kTimed,         // verified and timed in full
};
std::string_view status_name(TrialStatus);
Result<TrialStatus> find_status(std::string_view name);

struct DeviceRecord {
  std::string arch, name, driver, uuid;
  int compute_units = 0;
  std::int64_t memory_bytes = 0, l2_bytes = 0;
  int clock_khz = 0;
};

struct OpRecord {
  std::string signature;      // "gemm b_layout=nk dtype=bf16 epilogue=bias …" (generator's signature())
  std::string op;
  std::string dims;           // declared order, comma-joined: "batch,m,n,k,lda,…"
  std::string dim_defaults;   // beside dims, '\n'-joined expressions; "" = required
  std::string attributes;     // every attribute with its default, declared order: "dtype= b_layout=nk epilogue=" ("dtype=" required)
};

struct ProblemRecord {
  std::string dims_key;       // "k=4096 m=1 n=12288"
  std::string dims_json;      // every dim
  std::string label;
  double flops = 0, bytes = 0;
};

struct ObjectRecord {         // stored zstd-compressed, addressed by hash
  std::string hash;
  std::string arch;
  std::string kind;           // "elf-amdgpu", "cubin", "ptx", "host"
  std::vector<std::byte> bytes;
};

struct TrialRecord {
  std::int64_t id = 0;        // set by record()
  std::int64_t problem = 0, device = 0;   // ids from intern_*
  std::string config;         // Candidate::key()
  TrialStatus status = TrialStatus::kTimed;
  std::string reason;         // one line: rule with its number, worst element, compiler's first error, …
  std::string source_hash;    // of the emitted text
  std::string op_hash;        // OpDef::source_hash
  std::string compiler, options, kgen_version;
  std::string timing;         // "cold", "warm", "graph", "" when not timed
  std::optional<double> time_us, mad_us;          // median and median absolute deviation of the samples
  std::vector<float> samples_us;                  // raw, in order taken
  std::optional<double> compile_seconds, verify_seconds;
  std::optional<double> max_error_ratio;          // worst |got-ref| / allowed; relative L2 beside it
  std::optional<double> relative_l2;
  std::optional<int> registers, spills, lds_bytes, occupancy_waves;
  std::optional<int> clock_mhz;                   // SM/shader clock sampled while timing
  bool is_default = false;                        // the op's default candidate
};

// What the runtime launches: a verified trial with its plan and code object.
struct WinnerRecord {
  std::int64_t problem = 0, device = 0, trial = 0;
  std::string plan_json;      // base/plan.h
  std::string object_hash;
  bool is_default = false;    // also serves shapes of the signature that were never tuned
};

// Joined rows as readers want them.
struct WinnerRow {
  OpRecord op; ProblemRecord problem; DeviceRecord device; TrialRecord trial; WinnerRecord winner;
  std::optional<double> default_time_us;   // of the default candidate on the same problem and device
};

struct DbInfo {
  int schema_version = 0;
  std::int64_t devices = 0, ops = 0, problems = 0, trials = 0, winners = 0, objects = 0, object_bytes = 0;
  std::vector<std::pair<std::string, std::int64_t>> trials_by_status;
  std::vector<DeviceRecord> device_list;
};

enum class DbMode { kReadWrite, kReadOnly, kImmutable };

class Db {
 public:
  // kReadWrite creates the file and runs migrations; the others refuse a file of another schema version (older: says
  // which command migrates it; newer: says that a newer kgen wrote it). Corrupted or foreign files: kBadInput, untouched.
  static Result<Db> open(const std::string& path, DbMode mode);
  Db(Db&&) noexcept;
  Db& operator=(Db&&) noexcept;
  ~Db();

  // Insert if new; return the row's id.
  Result<std::int64_t> intern_device(const DeviceRecord&);
  Result<std::int64_t> intern_problem(const OpRecord&, const ProblemRecord&);

  // One transaction: the trial with its samples. Returns its id.
  Result<std::int64_t> record(const TrialRecord&);
  // One transaction: object (when new) and winner; replaces the winner of (problem, device, is_default).
  Result<void> publish(const WinnerRecord&, const ObjectRecord&);
  // Removes a problem's trials and winners on a device (`--fresh`).
  Result<void> forget(std::int64_t problem, std::int64_t device);

  // Trials of one problem on one device, oldest first; without samples unless asked.
  Result<std::vector<TrialRecord>> trials(std::int64_t problem, std::int64_t device, bool with_samples = false);
  Result<std::vector<WinnerRow>> winners();
  // Decompressed, hash verified: kBadInput when it does not match.
  Result<ObjectRecord> object(const std::string& hash);
  Result<DbInfo> info();
  // Problems found: integrity, foreign keys, hashes, orphans, impossible values. Empty = clean.
  Result<std::vector<std::string>> check();

 private:
  struct Impl;
  explicit Db(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kgen
