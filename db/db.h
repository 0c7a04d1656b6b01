// The tuned database: one SQLite file, the only SQL in the house. Schema in db/schema.sql, forward migrations in
// db/migrate/NNN.sql (PRAGMA user_version). The tuner opens it read-write (WAL); the runtime read-only and immutable.
// A Db may be used from several threads (calls take turns); several processes may write one file.
// docs/database.md tells what each table holds and what survives which accident.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "db/sign.h"

namespace kgen {

// Ends of a candidate's life (PRODUCT). The spelling in the file is the name without k, in snake_case.
enum class TrialStatus {
  kCompileFailed,
  kCompileTimeout,
  kCompiled,  // and not run: what serves as a default where nothing was tuned; its reason says what is known of it
  kPruned,
  kWrong,
  kLaunchFailed,
  kHung,
  kCrashed,
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
  // What makes two of them one row.
  bool same_kind(const DeviceRecord& other) const {
    return arch == other.arch && name == other.name && driver == other.driver && uuid == other.uuid;
  }
};

struct OpRecord {
  std::string signature;  // "gemm b_layout=nk dtype=bf16 epilogue=bias …" (generator's signature())
  std::string op;
  std::string dims;          // declared order, comma-joined: "batch,m,n,k,lda,…"
  std::string dim_defaults;  // beside dims, '\n'-joined expressions; "" = required
  std::string attributes;  // every attribute with its default, declared order: "dtype= b_layout=nk epilogue=" ("dtype="
                           // required)
};

struct ProblemRecord {
  std::string dims_key;   // "k=4096 m=1 n=12288"
  std::string dims_json;  // every dim
  std::string label;
  double flops = 0, bytes = 0;
};

struct ObjectRecord {  // stored zstd-compressed, addressed by hash
  std::string hash;
  std::string arch;
  std::string kind;  // "elf-amdgpu", "cubin", "ptx", "host"
  std::vector<std::byte> bytes;
};

// What a winner is the best at.
struct Goal {
  std::string timing = "cold";     // how it was timed: cold, warm, graph
  std::string objective = "time";  // what counts: time, energy
  bool deterministic = false;      // results had to be the same bits on every launch
  auto operator<=>(const Goal&) const = default;
  std::string text() const;  // "cold time", "graph energy, deterministic"
};

// The card while a sample was taken.
struct SampleState {
  int clock_mhz = 0, temperature_c = 0;  // 0: not known
  bool throttled = false;                // something held the clock down: TrialRecord::throttle
  bool operator==(const SampleState&) const = default;
};

struct TrialRecord {
  std::int64_t id = 0;                   // set by record()
  std::int64_t problem = 0, device = 0;  // ids from intern_*
  std::string config;                    // Candidate::key()
  TrialStatus status = TrialStatus::kTimed;
  std::string reason;       // one line: rule with its number, worst element, compiler's first error, …
  std::string source_hash;  // of the emitted text
  std::string op_hash;      // OpDef::source_hash
  std::string compiler, options, kgen_version;
  std::string timing;                              // "cold", "warm", "graph", "" when not timed
  std::optional<double> time_us, mad_us;           // median and median absolute deviation of the samples
  std::vector<float> samples_us;                   // raw, in order taken
  std::vector<SampleState> states;                 // beside the samples; empty where nothing is known
  std::optional<double> energy_uj, energy_mad_uj;  // of a call, where it was measured
  std::optional<double> compile_seconds, verify_seconds;
  std::optional<double> max_error_ratio;  // worst |got-ref| / allowed; relative L2 beside it
  std::optional<double> relative_l2;
  std::optional<int> registers, spills, lds_bytes, occupancy_waves;
  std::optional<int> clock_mhz, temperature_c;  // of the card while timing
  std::string throttle;                         // what held its clock down, "thermal, power cap"; "" nothing known
  std::optional<bool> deterministic;            // several launches gave the same bits; absent: not checked
  bool is_default = false;                      // the op's default candidate
  std::int64_t recorded_at_ms = 0;              // Unix time; record() fills in the present time for 0
};

// Sizes of one dim that a winner serves beside its own problem's.
struct SizeRange {
  std::string dim;
  std::int64_t first = 0, last = 0;
  double loss = 0;  // expected against the best kernel for such a size: 0.02 = 2 % slower
  bool operator==(const SizeRange&) const = default;
};

// What the runtime launches: a verified trial with its plan and code object.
struct WinnerRecord {
  std::int64_t problem = 0, device = 0, trial = 0;
  Goal goal;
  std::string plan_json;  // base/plan.h
  std::string object_hash;
  bool is_default = false;           // also serves shapes of the signature that were never tuned
  std::optional<SizeRange> range{};  // one of several that cover a dynamic dim; nothing: of its problem alone
};

// Compiled, and never run on its device.
inline bool untimed(const TrialRecord& trial) { return trial.status == TrialStatus::kCompiled; }

// Joined rows as readers want them.
struct WinnerRow {
  OpRecord op;
  ProblemRecord problem;
  DeviceRecord device;
  TrialRecord trial;
  WinnerRecord winner;
  // Of the default candidate on the same problem and device, timed the same way.
  std::optional<double> default_time_us, default_energy_uj;
};

// What a lookup needs to know about every winner, without the long columns. Ordered by id.
struct WinnerIndex {
  struct Entry {
    std::int64_t id = 0;             // for Db::winner()
    std::size_t op = 0, device = 0;  // indices into ops and devices
    std::string dims_key;
    Goal goal;
    bool is_default = false;
    std::optional<SizeRange> range{};
  };
  std::vector<OpRecord> ops;  // oldest first; a signature has several where its op's dims or defaults were changed
  std::vector<DeviceRecord> devices;
  std::vector<Entry> entries;
  std::vector<std::string> ptx_archs;  // architectures with code objects that are PTX
};

// A problem on a device of which there are trials.
struct TrialGroup {
  std::int64_t problem_id = 0, device_id = 0;
  OpRecord op;
  ProblemRecord problem;
  DeviceRecord device;
};

struct DbInfo {
  int schema_version = 0;
  std::int64_t devices = 0, ops = 0, problems = 0, trials = 0, winners = 0, objects = 0, object_bytes = 0;
  std::vector<std::pair<std::string, std::int64_t>> trials_by_status;
  std::vector<DeviceRecord> device_list;
};

// kReadOnly sees what other processes write meanwhile. kImmutable takes no locks and expects that nobody writes (a file
// with a live or unmerged -wal beside it is opened as kReadOnly, so that it is never read stale).
enum class DbMode { kReadWrite, kReadOnly, kImmutable };

struct Merged {
  std::int64_t added = 0, known = 0;  // trials
  std::int64_t winners = 0;           // taken: new here, or needing less than what was here
};

// What Db::prune() removes; the parts add up.
struct PruneRule {
  std::string op_glob = "*";  // of these operators only
  bool failures = false;      // trials that gave no time
  bool stale = false;         // trials of an older driver, compiler, operator or source than the newest in the file
  std::optional<std::int64_t>
      keep_top{};  // verified trials that are not of the N fastest candidates of their problem, device and timing
  std::vector<std::string> archs{};  // everything of these architectures, winners included
  bool winners = false;  // winners too, where `failures`, `stale` or `keep_top` name their trial; else these stay
};

struct Pruned {
  std::int64_t failures = 0, stale = 0, slow = 0, of_archs = 0;  // trials by what removed them
  std::int64_t winners = 0, objects = 0, problems = 0, devices = 0;
};

// A signature of the file.
struct SignatureRow {
  std::string key;    // PublicKey::text()
  std::string fault;  // what it does not fit any more; "" where all is as it was signed
};

class Db {
 public:
  // kReadWrite creates the file and runs migrations; the others refuse a file of another schema version (older: says
  // which command migrates it; newer: says that a newer kgen wrote it). Corrupted or foreign files: kBadInput,
  // untouched. No permission, disk full, locked for longer than a minute: kIo.
  static Result<Db> open(const std::string& path, DbMode mode);
  // Brings the file of an older kgen to the present schema; the version that it had, or nullopt when there was nothing
  // to do. Never creates a file.
  static Result<std::optional<int>> migrate(const std::string& path);
  Db(Db&&) noexcept;
  Db& operator=(Db&&) noexcept;
  ~Db();

  // Insert if new; return the row's id.
  Result<std::int64_t> intern_device(const DeviceRecord&);
  Result<std::int64_t> intern_problem(const OpRecord&, const ProblemRecord&);

  // One transaction: the trial with its samples. Returns its id.
  Result<std::int64_t> record(const TrialRecord&);
  // Many in one transaction: all or none.
  Result<void> record_all(const std::vector<TrialRecord>&);
  // One transaction: object and plan (when new) and winner; replaces the winner of (problem, device, goal, is_default).
  // The trial must be one of that problem, device and timing with status kTimed or kStoppedEarly; the winner of a goal
  // that is deterministic needs one that was seen to be so. A default may also be kCompiled, under the goal Goal{}.
  Result<void> publish(const WinnerRecord&, const ObjectRecord&);
  // The winners that cover a dynamic dim, in one transaction, each with its range; their objects each once. They take
  // the place of all that covered that dim before, on the same device, for the same goal and the same other dims.
  Result<void> publish_cover(const std::vector<WinnerRecord>&, const std::vector<ObjectRecord>&);
  // Removes a problem's trials and winners on a device (`--fresh`).
  Result<void> forget(std::int64_t problem, std::int64_t device);

  // Adds what another file has and this has not (db/merge.sql), in one transaction. The file is checked first: one that
  // is not clean is refused with kBadInput, an older one as by open().
  Result<Merged> merge(const std::string& path);

  // Removes what the rule names, and what nothing refers to afterwards, in one transaction; then makes the file
  // smaller. Dry: says what it would remove, and changes nothing.
  Result<Pruned> prune(const PruneRule&, bool dry_run);

  // Signs what winner_index(), winner() and object() give, in place of an earlier signature by the same key. Whatever
  // changes that later (a tune, a merge) makes the signature unfit; trials that do not win may come and go.
  Result<void> sign(const PrivateKey&);
  // From here on these three give nothing but what the key's owner signed, however the file changes meanwhile.
  // kBadInput where there is no such signature; what it does not fit is said by the call that would give it.
  Result<void> require_signature(const PublicKey&);
  // Every signature of the file, compared with all that it covers.
  Result<std::vector<SignatureRow>> signatures();

  // Trials of one problem on one device, oldest first; without samples unless asked.
  Result<std::vector<TrialRecord>> trials(std::int64_t problem, std::int64_t device, bool with_samples = false);
  Result<std::vector<TrialGroup>> trial_groups();
  Result<std::vector<WinnerRow>> winners();
  // The same in two steps, for the runtime: one short scan, then single rows with their plan.
  Result<WinnerIndex> winner_index();
  Result<WinnerRow> winner(std::int64_t id);
  // Decompressed, hash verified: kBadInput when it does not match.
  Result<ObjectRecord> object(const std::string& hash);
  Result<DbInfo> info();
  // Problems found: integrity, foreign keys, hashes, orphans, impossible values. Empty = clean. Signatures:
  // signatures().
  Result<std::vector<std::string>> check();

 private:
  struct Impl;
  explicit Db(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kgen
