// `kgen verify`: candidates of a spec, or winners of a DB, through the same worker and checks as in tuning.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "tuner/problem.h"
#include "tuner/session.h"
#include "tuner/stats.h"
#include "tuner/supervisor.h"
#include "tuner/vendor.h"

namespace kgen {
namespace {

constexpr int kSittingRounds = 5;  // of `kgen bench`

constexpr double kTimeoutSeconds = 60;

class Verifier {
 public:
  Verifier(const std::string& device, Compiler& compiler, const std::string& self)
      : compiler_(compiler), supervisor_(self, device, kTimeoutSeconds) {}

  Result<void> start() {
    KGEN_TRY(device_, supervisor_.start());
    return {};
  }
  const DeviceInfo& device() const { return device_; }

  // The problem of what follows. kCheckFailed: its reference does not compile.
  Result<void> use(const OpSpec& spec, TimingMode timing) {
    KGEN_TRY(CheckCase check, reference_case(spec, device_.arch, compiler_));
    check.seed = seed_++;
    check.rotate = timing == TimingMode::kGraph;
    problem_ = check.problem;
    supervisor_.use(std::move(check), timing);
    return {};
  }
  const BoundPlan& problem() const { return problem_; }
  Result<RaceResult> race(const RaceRequest& request) { return supervisor_.race(request); }

  // Errors are those that end the run; a candidate that fails, or whose reference does not run, is a row.
  Result<VerifyRow> check(const OpSpec& spec, const std::string& config, const BoundPlan& bound,
                          const CodeObject& code) {
    VerifyRow row{.signature = signature(*spec.op, spec.problem),
                  .dims_key = dims_key(*spec.op, spec.problem),
                  .config = config,
                  .passed = false,
                  .detail = {}};
    if (writes_nothing(bound)) {
      row.passed = true;
      row.detail = "nothing to launch";
      return row;
    }
    const auto not_run = [&](const Error& error) -> Result<VerifyRow> {
      if (error.kind != ErrorKind::kCheckFailed) return tl::unexpected(error);
      row.detail = "not verified: " + error.message;
      return row;
    };
    if (const auto used = use(spec, TimingMode::kCold); !used) return not_run(used.error());
    TryRequest request{.ticket = ++ticket_,
                       .repeats = spec.tune.deterministic ? Repeats::kDemanded : Repeats::kTold,
                       .measure = false};
    request.bound = bound;
    KGEN_TRY(request.limits, candidate_limits(spec, device_.arch, config, bound));
    KGEN_TRY(request.code_path, code_file(code));
    supervisor_.submit(std::move(request));
    for (;;) {
      const auto ended = supervisor_.next(1, -1);
      if (!ended) return not_run(ended.error());
      if (!*ended) continue;
      const TryResult& result = **ended;
      row.passed = result.verdict.passed;
      row.max_error_ratio = result.verdict.max_error_ratio;
      row.relative_l2 = result.verdict.relative_l2;
      row.detail = result.reason.empty() ? supervisor_.method() : result.reason;
      if (!row.passed)
        row.detail = fmt::format("{}: {}; input seed {}; repeat with: {}", status_name(result.status), result.reason,
                                 supervisor_.seed(), repeat_line(spec, config, device_.id));
      return row;
    }
  }

 private:
  Compiler& compiler_;
  Supervisor supervisor_;
  DeviceInfo device_;
  BoundPlan problem_;
  std::uint64_t seed_ = 1;
  std::int64_t ticket_ = 0;
};

// A winner as it is stored, ready to be run.
struct Stored {
  OpSpec spec;
  BoundPlan bound;
  CodeObject code;
};
Result<Stored> load_winner(Db& db, const WinnerRow& winner, const OwnOps& own_ops) {
  Stored stored;
  KGEN_TRY(const Plan plan, plan_from_json(winner.winner.plan_json));
  KGEN_TRY(stored.spec, stored_spec(winner, plan, own_ops));
  KGEN_TRY(stored.bound, kgen::bind(plan, stored.spec.problem.dims));
  KGEN_TRY(ObjectRecord object, db.object(winner.winner.object_hash));
  stored.code.hash = object.hash;
  stored.code.bytes = std::move(object.bytes);
  return stored;
}

bool ends_the_run(const Error& error) {
  return error.kind == ErrorKind::kDevice || error.kind == ErrorKind::kNoCompiler || error.kind == ErrorKind::kNoDevice;
}

// The default candidate, the one that `config` names, or ("*") the default of every variant that is legal.
Result<std::vector<Candidate>> wanted_candidates(const OpSpec& spec, Arch arch, const std::string& config) {
  if (config == "*") return variant_defaults(spec, arch);
  std::vector<Candidate> candidates;
  KGEN_TRY(candidates.emplace_back(),
           config.empty() ? default_candidate(spec, arch) : parse_candidate(spec, arch, config));
  return candidates;
}

}  // namespace

Result<std::vector<VerifyRow>> verify_specs(const std::vector<OpSpec>& specs, const std::string& config,
                                            const std::string& device, Compiler& compiler, const std::string& self) {
  Verifier verifier(device, compiler, self);
  KGEN_CHECK_OK(verifier.start());
  const Arch arch = verifier.device().arch;
  std::vector<VerifyRow> rows;
  for (const OpSpec& spec : specs) {
    KGEN_TRY(const std::vector<Candidate> candidates, wanted_candidates(spec, arch, config));
    for (const Candidate& candidate : candidates) {
      KGEN_TRY(const KernelSource source, emit(spec, arch, candidate));
      KGEN_TRY(const BoundPlan bound, kgen::bind(source.plan, spec.problem.dims));
      KGEN_TRY(const CompileResult compiled, compiler.compile(source.text, arch));
      if (compiled.status != CompileStatus::kCompiled) {
        rows.push_back({.signature = signature(*spec.op, spec.problem),
                        .dims_key = dims_key(*spec.op, spec.problem),
                        .config = candidate.key(),
                        .passed = false,
                        .detail = fmt::format("{}; repeat with: {}",
                                              compiled.status == CompileStatus::kTimeout
                                                  ? "the compiler did not end within its time limit"
                                                  : first_error(compiled.log),
                                              compiled.command)});
        continue;
      }
      KGEN_TRY(VerifyRow row, verifier.check(spec, candidate.key(), bound, compiled.code));
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

Result<std::vector<VerifyRow>> verify_db(Db& db, const std::string& op_glob, const std::string& device,
                                         Compiler& compiler, const std::string& self,
                                         const std::vector<std::string>& own_op_paths) {
  KGEN_TRY(const OwnOps own_ops, read_own_ops(own_op_paths));
  Verifier verifier(device, compiler, self);
  KGEN_CHECK_OK(verifier.start());
  KGEN_TRY(const std::vector<WinnerRow> winners, db.winners());
  std::vector<VerifyRow> rows;
  for (const WinnerRow& winner : winners) {
    if (winner.device.arch != verifier.device().arch->name) continue;  // code of another architecture does not run here
    if (!op_glob.empty() && !glob_match(op_glob, winner.op.op)) continue;
    VerifyRow refused{.signature = winner.op.signature,
                      .dims_key = winner.problem.dims_key,
                      .config = winner.trial.config,
                      .passed = false,
                      .detail = {}};
    const auto run = [&]() -> Result<VerifyRow> {
      KGEN_TRY(const Stored stored, load_winner(db, winner, own_ops));
      return verifier.check(stored.spec, winner.trial.config, stored.bound, stored.code);
    };
    auto row = run();
    if (!row && ends_the_run(row.error())) return tl::unexpected(std::move(row.error()));
    if (!row) refused.detail = "not verified: " + row.error().message;
    rows.push_back(row ? std::move(*row) : std::move(refused));
  }
  return rows;
}

Result<std::vector<BenchRow>> bench_dbs(std::vector<Db>& dbs, const std::string& op_glob, const std::string& device,
                                        const std::string& timing, int rounds, bool against_vendor, Compiler& compiler,
                                        const std::string& self, const std::vector<std::string>& own_op_paths) {
  KGEN_TRY(const TimingMode mode, find_timing(timing));
  KGEN_TRY(const OwnOps own_ops, read_own_ops(own_op_paths));
  Verifier verifier(device, compiler, self);
  KGEN_CHECK_OK(verifier.start());

  struct Group {
    BenchRow row;
    std::vector<std::pair<WinnerRow, Db*>> kernels;  // beside row.entries
  };
  std::vector<Group> groups;
  std::map<std::string, std::size_t> group_of;                       // by signature and dims
  std::map<std::pair<std::size_t, std::string>, std::size_t> known;  // by group, object and plan
  for (std::size_t file = 0; file < dbs.size(); ++file) {
    KGEN_TRY(const std::vector<WinnerRow> winners, dbs[file].winners());
    for (const WinnerRow& winner : winners) {
      if ((winner.winner.is_default && !untimed(winner.trial)) || winner.device.arch != verifier.device().arch->name)
        continue;
      if (!op_glob.empty() && !glob_match(op_glob, winner.op.op)) continue;
      const auto [at, added] = group_of.emplace(winner.op.signature + " | " + winner.problem.dims_key, groups.size());
      if (added) {
        BenchRow& row = groups.emplace_back().row;
        row.signature = winner.op.signature;
        row.dims_key = winner.problem.dims_key;
        row.label = winner.problem.label;
        row.flops = winner.problem.flops;
        row.bytes = winner.problem.bytes;
      }
      Group& group = groups[at->second];
      const auto [kernel, is_new] = known.emplace(
          std::pair(at->second, winner.winner.object_hash + winner.winner.plan_json), group.row.entries.size());
      if (is_new) {
        group.row.entries.emplace_back().config = winner.trial.config;
        group.kernels.emplace_back(winner, &dbs[file]);
      }
      std::vector<std::size_t>& files = group.row.entries[kernel->second].files;
      if (files.empty() || files.back() != file) files.push_back(file);
    }
  }

  std::vector<BenchRow> rows;
  for (Group& group : groups) {
    BenchRow& row = group.row;
    const auto run = [&]() -> Result<void> {
      RaceRequest request{.candidates = {}, .rounds = rounds};
      if (verifier.device().arch->vendor != Vendor::kHost) request.sittings = std::max(1, rounds / kSittingRounds);
      for (const auto& [winner, db] : group.kernels) {
        KGEN_TRY(Stored stored, load_winner(*db, winner, own_ops));
        if (request.candidates.empty()) {
          KGEN_CHECK_OK(verifier.use(stored.spec, mode));
          if (against_vendor) {
            row.vendor = BenchRow::VendorEntry();  // clang refuses emplace() of a nested class with defaults
            auto call = vendor_call(stored.spec, verifier.problem());
            request.against_vendor = call.has_value();
            if (call)
              request.vendor = *call;
            else
              row.vendor->note = call.error().message;
          }
        }
        TryRequest& entry = request.candidates.emplace_back();
        KGEN_TRY(entry.code_path, code_file(stored.code));
        KGEN_TRY(entry.limits,
                 candidate_limits(stored.spec, verifier.device().arch, winner.trial.config, stored.bound));
        entry.bound = std::move(stored.bound);
      }
      auto raced = verifier.race(request);
      if (!raced && request.against_vendor && !ends_the_run(raced.error())) {
        // The library may be what broke; the kernels are timed without it.
        row.vendor->note = raced.error().message;
        request.against_vendor = false;
        raced = verifier.race(request);
      }
      KGEN_TRY(const RaceResult race, std::move(raced));
      std::size_t best = 0;
      for (std::size_t i = 1; i < race.timings.size(); ++i)
        if (race.timings[i].median_us < race.timings[best].median_us) best = i;
      for (std::size_t i = 0; i < race.timings.size(); ++i) {
        const Comparison comparison = compare(race.timings[best], race.timings[i]);
        row.entries[i].time_us = race.timings[i].median_us;
        row.entries[i].mad_us = race.timings[i].mad_us;
        row.entries[i].over_best = 1 / (1 - comparison.gain);
        row.entries[i].probability = comparison.probability;
      }
      if (request.against_vendor) {
        const VendorResult& vendor = race.vendor;
        row.vendor->library = vendor.library;
        row.vendor->note = vendor.note;
        row.vendor->algorithms = vendor.algorithms;
        if (vendor.note.empty()) {
          const Comparison comparison = compare(race.timings[best], vendor.timing);
          row.vendor->time_us = vendor.timing.median_us;
          row.vendor->mad_us = vendor.timing.mad_us;
          row.vendor->over_best = 1 / (1 - comparison.gain);
          row.vendor->probability = comparison.probability;
          row.vendor->relative_l2 = vendor.relative_l2;
        }
      }
      std::stable_sort(row.entries.begin(), row.entries.end(),
                       [](const auto& a, const auto& b) { return a.time_us < b.time_us; });
      return {};
    };
    if (const auto done = run(); !done) {
      if (ends_the_run(done.error())) return tl::unexpected(done.error());
      row.note = "not timed: " + done.error().message;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace kgen
