#include "tuner/session.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <future>
#include <latch>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>
#include <unordered_map>

#include "base/hash.h"
#include "base/text.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "tuner/dynamic.h"
#include "tuner/peak.h"
#include "tuner/problem.h"
#include "tuner/problem_queue.h"
#include "tuner/search/strategy.h"
#include "tuner/search/winners.h"
#include "tuner/stats.h"
#include "tuner/supervisor.h"
#include "tuner/time_account.h"

namespace kgen {
namespace {

constexpr double kPollSeconds = 0.2;   // how often a stop request and the progress line are looked at
constexpr double kWaitSeconds = 0.02;  // between looks at the compilers while the reference is one of theirs
constexpr std::size_t kPipeline = 2;   // candidates at the worker: one running, one on the way
// Problems behind the one in work whose candidates compile where it leaves cores idle. Each begins from what was won
// before the one in work when it opens at the earliest, so that a run can be repeated.
constexpr std::size_t kOpenAhead = 4;
// So many where nothing is won before that they would begin from: those of other operators. Several devices take no
// more than the others, or one would be left with them at the end.
constexpr std::size_t kMostAhead = 12;
constexpr std::int64_t kChecksTurn = -1;  // at the compilers: references first, for no result comes without them
constexpr std::size_t kPreparing = 2;     // of them at once; each takes a core for up to 2 s
// Each of them has as many candidates under way as there are compile jobs, for what comes after is better chosen by
// results; where all of a space is tried anyway, so many times as many.
constexpr std::size_t kAllAhead = 4;
// The device visits a problem behind the one in work while that one waits for compilers: with as many of its candidates
// compiled, or all that it has under way, and where setting up its inputs, and again those of the one in work, is short
// beside a compilation.
constexpr std::size_t kVisit = 6;
constexpr double kVisitSetUp = 0.5;
constexpr std::size_t kFinalists = 6;
// Beside them the fastest of each part of the run is a finalist, up to so much slower than the best: other work on the
// card that begins in the middle of the run makes what is timed from then on look slow.
constexpr std::size_t kParts = 4;
constexpr double kPartReach = 1.5;
constexpr std::size_t kSources = 6;      // recordings that warm the start of a problem
constexpr double kPeacefulClock = 1.05;  // a clock so much higher than a race's was not held down as then
constexpr double kFinalistReach = 1.08;  // of the best median
constexpr double kDefaultReach = 2;      // the default runs with the finalists up to here: the gain over it is paired
constexpr double kEnergyReach = 1.3;     // the same where energy decides: a slower kernel may need less
constexpr int kEnergyRounds = 8;         // the signed-rank test cannot reach p < 0.01 below 7
constexpr double kRaceUs = 400e3;        // device time that a race may take
constexpr int kMaxRounds = 25, kMaxSittings = 32;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Finished compilations on their way from the pool's threads to the tuning thread, with a descriptor to wait on.
class Finished {
 public:
  Finished() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Finished() { ::close(fd_); }
  Finished(const Finished&) = delete;
  Finished& operator=(const Finished&) = delete;

  void push(std::int64_t ticket, Result<CompileResult> result) {
    {
      const std::lock_guard lock(mutex_);
      items_.emplace_back(ticket, std::move(result));
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(fd_, &one, sizeof one);
  }
  std::vector<std::pair<std::int64_t, Result<CompileResult>>> take() {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(fd_, &count, sizeof count);
    const std::lock_guard lock(mutex_);
    return std::exchange(items_, {});
  }
  int fd() const { return fd_; }

 private:
  int fd_;
  std::mutex mutex_;
  std::vector<std::pair<std::int64_t, Result<CompileResult>>> items_;
};

// A candidate between proposal and record.
struct Item {
  std::size_t index = 0;
  Candidate candidate{};
  KernelSource source{};
  BoundPlan bound{};
  CompileResult compiled{};
  PlanUsage usage{};
};

// The last fresh trial of a candidate: same source text and compiler, so its result still holds.
struct Known {
  TrialRecord trial{};
  bool verified() const { return trial.status == TrialStatus::kTimed || trial.status == TrialStatus::kStoppedEarly; }
};

// What asks all sessions of a run to end: the user, or an error that is not one of a device.
struct Stop {
  const std::atomic<bool>& asked;
  std::atomic<bool> failed{false};
  operator bool() const { return asked || failed; }  // NOLINT: it stands for a flag
};

// The winners of this device, timing and objective. Thread-safe.
class Winners {
 public:
  using Key = std::tuple<std::int64_t, bool, bool>;  // problem, is_default, deterministic
  struct Incumbent {
    std::int64_t trial = 0;
    std::string config{};
  };
  std::optional<Incumbent> find(const Key& key) const {
    const std::lock_guard lock(mutex_);
    const auto at = incumbents_.find(key);
    return at == incumbents_.end() ? std::nullopt : std::optional(at->second);
  }
  void set(const Key& key, Incumbent incumbent) {
    const std::lock_guard lock(mutex_);
    incumbents_[key] = std::move(incumbent);
  }
  // False where that was done before: what a device that was lost has recorded since then counts.
  bool forget(std::int64_t problem) {
    const std::lock_guard lock(mutex_);
    if (!forgotten_.insert(problem).second) return false;
    std::erase_if(incumbents_, [&](const auto& entry) { return std::get<0>(entry.first) == problem; });
    return true;
  }
  // Kernels that won, for the search of other problems of the operator.
  void add(Winner winner) {
    const std::lock_guard lock(mutex_);
    won_.push_back(std::move(winner));
  }
  std::size_t count() const {
    const std::lock_guard lock(mutex_);
    return won_.size();
  }
  // Of the first `count`, the newest first.
  std::vector<Winner> of(const std::string& op, std::size_t count) const {
    const std::lock_guard lock(mutex_);
    std::vector<Winner> found;
    for (auto winner = won_.rend() - static_cast<std::ptrdiff_t>(count); winner != won_.rend(); ++winner)
      if (winner->op == op) found.push_back(*winner);
    return found;
  }

 private:
  mutable std::mutex mutex_;
  std::map<Key, Incumbent> incumbents_;
  std::set<std::int64_t> forgotten_;
  std::vector<Winner> won_;
};

// What the sessions of a run share.
struct Shared {
  Shared(const TuneRequest& r, Db& d, Compiler& c, const std::atomic<bool>& stop_asked, std::size_t devices)
      : request(r),
        db(d),
        compiler(c),
        stop{stop_asked},
        queue(r.specs, devices),
        at_work(static_cast<int>(devices)),
        alive(static_cast<int>(devices)) {}

  // Of a candidate that was at work when a device was lost: may another try it? Once.
  bool second_chance(const TrialRecord& trial) {
    const std::lock_guard lock(mutex);
    return alive > 0 && suspects.emplace(trial.problem, trial.config).second;
  }

  const TuneRequest& request;
  Db& db;
  Compiler& compiler;
  Stop stop;
  ProblemQueue queue;
  std::mutex mutex;
  std::set<std::pair<std::int64_t, std::string>> suspects;
  std::atomic<int> at_work;  // sessions: those that wait for a problem leave their part of the cores to others
  std::atomic<int> alive;    // sessions
  bool many = false;         // there was more than one
  // Set before the first problem:
  DeviceInfo device;  // of each session, but for its id
  std::int64_t device_id = 0;
  std::string compiler_version;
  TimingMode timing = TimingMode::kCold;
  std::map<std::string, std::vector<Winner>> priors;  // by operator
  std::vector<Recording> warm_start;                  // of other devices or shapes
  Winners winners;
};

// Works on problems of a run with one device. Used by one thread.
class Session {
 public:
  using Show = std::function<void(const TuneProgress::Work&, bool force)>;
  Session(Shared& shared, CompilePool& pool, int jobs, const std::string& self, std::string device, Show progress)
      : shared_(shared),
        request_(shared.request),
        db_(shared.db),
        compiler_(shared.compiler),
        stop_(shared.stop),
        timing_(shared.timing),
        winners_(shared.winners),
        show_(std::move(progress)),
        supervisor_(self, std::move(device), request_.candidate_timeout_seconds),
        all_jobs_(jobs),
        pool_(pool) {
    account_.go_on_with(Activity::kStarting);
  }

  // Starts the device's worker; it ends with the thread that calls this.
  Result<void> start();
  // Problems of the queue, until there are none. kDevice: the device is of no more use, and what it had is given back.
  Result<void> work();
  // Once it has ended. Rows are by their place in the request.
  struct Done {
    TuneOutcome sums;
    std::map<std::size_t, TuneOutcome::Row> rows;
  };
  Done& outcome() { return done_; }
  const DeviceInfo& device() const { return device_; }
  bool counts_energy() const { return supervisor_.counts_energy(); }

 private:
  struct Problem;  // the one in work

  Result<std::unique_ptr<Problem>> prepare(std::size_t index);
  void compile_checks(Problem&);
  Result<void> open(Problem&, std::size_t number, std::size_t won);
  Result<void> work_on_all();
  Result<std::unique_ptr<Problem>> begin();
  void look_ahead();
  bool opens_later(std::size_t number) const;
  Result<void> open_ahead();
  std::size_t compiling() const;
  Result<void> work_on(Problem&);
  Result<void> replay(Problem&);
  Result<void> verify_ready(Problem&);
  Result<void> search(Problem&);
  Result<bool> propose(Problem&);
  Result<void> propose_ahead(Problem&);
  Result<void> compile_ahead();
  Result<void> take_compiled();
  Result<void> send_ready(Problem&);
  void put_on_device(Problem&);
  double set_up_seconds() const { return supervisor_.busy().reference - set_up_from_; }
  bool stays_away(const Problem&) const;
  bool worth_a_visit(const Problem&, double own_set_up_seconds) const;
  Result<void> choose_for_device(Problem&);
  Result<void> finish(Problem&, std::int64_t ticket, const TryResult&);
  Result<void> record(Problem&, const Item&, TrialStatus, std::string reason, const TryResult*,
                      const Energy* = nullptr);
  Result<void> record_doubtful();
  Result<void> see_that_device_works();
  Result<void> conclude(Problem&);
  void take_stock(Problem&);
  Result<void> publish(Problem&, const std::string& config, bool is_default);
  Result<std::string> hold_finals(Problem&, const std::string& incumbent);
  Goal goal(const Problem&) const;
  void seed_search(Problem&, std::size_t won);
  void warm_search(Problem&);
  Result<Item> rebuild(Problem&, const std::string& config);
  Result<TryResult> examine(Problem&, const Item&, TryRequest);
  Result<std::vector<std::string>> reverify(Problem&, const std::vector<std::string>& configs);
  bool out_of_budget(const Problem&) const;
  // On the host, compilers and kernels share the cores: there they take turns, batch by batch, or nothing would be
  // timed right.
  bool takes_turns() const { return device_.arch->vendor == Vendor::kHost && request_.host_takes_turns; }
  void show(const Problem*, bool force);
  void sum_up();

  // Compilations that may be under way for this device.
  std::size_t jobs() const {
    return static_cast<std::size_t>(std::max(1, all_jobs_ / std::max(1, shared_.at_work.load())));
  }

  Shared& shared_;
  const TuneRequest& request_;
  Db& db_;
  Compiler& compiler_;
  const Stop& stop_;
  const TimingMode& timing_;
  Winners& winners_;
  const Show show_;
  Supervisor supervisor_;
  Finished finished_;
  const int all_jobs_;
  CompilePool& pool_;  // its threads write to finished_

  DeviceInfo device_;
  struct Begun {
    std::size_t index = 0;  // in the request
    std::size_t won = 0;    // how many had won then
  };
  std::vector<Begun> begun_;  // problems, here
  std::int64_t next_ticket_ = 1;
  // What is compiled for verification, by hash of its text: problems share checks.
  std::mutex check_mutex_;  // of check_code_: problems are prepared on threads of their own
  std::map<std::string, std::shared_future<Result<CompileResult>>> check_code_;
  // Candidates that ended with the worker, on one of several devices: it may be the device that was lost, and no fault
  // of theirs.
  std::vector<TrialRecord> doubtful_;
  std::vector<std::size_t> in_hand_;  // taken from the queue and not done
  Problem* current_ = nullptr;        // the one in work
  Problem* on_device_ = nullptr;      // the one that the worker is set up for
  double set_up_from_ = 0;            // the worker's time for references before that
  double all_compile_seconds_ = 0;    // of all that compiled, also where it came from the cache
  Done done_;
  TuneOutcome& outcome_ = done_.sums;
  TuneProgress::Work progress_;
  const double start_ = now_seconds();
  TimeAccount account_;
  Supervisor::BusySeconds searching_;  // the worker's, outside finals
  // The problems after the one in work, in order. Their spaces are enumerated on threads of their own; those that are
  // prepared are opened. Last, because those threads read the members above.
  struct Upcoming {
    std::size_t index = 0;  // in the request
    std::future<Result<std::unique_ptr<Problem>>> preparing;
    std::unique_ptr<Problem> opened{};
    bool prepared() const { return opened || preparing.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  };
  std::deque<Upcoming> upcoming_;
};

struct Session::Problem {
  Problem(std::size_t i, const OpSpec& s) : index_in_request(i), spec(s) {}

  const std::size_t index_in_request;
  const OpSpec& spec;
  std::int64_t turn = 0;  // its place in the run: what it compiles goes before what later ones do
  std::int64_t id = 0;
  bool nothing_to_launch = false;
  CheckSources checks;
  std::vector<std::shared_future<Result<CompileResult>>> check_code;  // beside checks.texts
  Space space;
  Candidate default_candidate;
  SearchSpace search_space;
  std::unique_ptr<Strategy> strategy;
  CheckCase check;
  std::unordered_map<std::string, std::size_t> index;  // by config
  std::map<std::string, Known> known;                  // by config
  std::map<std::int64_t, std::string> sent;            // to the worker: config by ticket
  std::map<std::string, double> standings;             // by config, the newest
  std::size_t budget = 0;                              // 0 = no limit
  double seconds = 0;                                  // 0 = no limit
  double start = 0;                                    // of its work; 0 = it is not in work yet
  std::map<std::int64_t, Item> items;                  // in flight, by ticket
  std::deque<std::int64_t> ready;                      // compiled, in order of their end
  std::size_t compiling = 0;
  double set_up_seconds = 0;               // of its inputs and reference on the device; 0 = not yet
  std::int64_t planned = 0, proposed = 0;  // of this run
  bool tries_all = false;                  // the budget covers the space: no result decides what is tried
  double best_us = 0;
  std::string best_config;
  std::string first_failure;     // and how to repeat it
  std::string blocked;           // why nothing can be verified
  bool failed = false;           // ended without a winner
  bool default_checked = false;  // the default passed with the finalists
  TuneOutcome::Row row;
};

void Session::show(const Problem* problem, bool force) {
  if (problem != nullptr) {
    progress_.proposed = problem->proposed;
    progress_.planned = problem->seconds > 0 ? 0 : problem->planned;
    progress_.since = problem->start > 0 ? now_seconds() - problem->start : 0;
    progress_.best_us = problem->best_us;
    progress_.best_config = problem->best_config;
    progress_.flops = problem->row.flops;
    progress_.bytes = problem->row.bytes;
    progress_.peak_flops = problem->row.peak_flops;
    progress_.peak_bytes_per_second = supervisor_.bandwidth();
  }
  show_(progress_, force);
}

bool Session::out_of_budget(const Problem& problem) const {
  if (stop_) return true;
  if (problem.budget > 0 && problem.known.size() + problem.items.size() >= problem.budget) return true;
  return problem.seconds > 0 && problem.start > 0 && now_seconds() - problem.start >= problem.seconds;
}

// What the DB knows of this problem counts as if it had just been tried, as long as source and compiler are the same.
Result<void> Session::replay(Problem& problem) {
  KGEN_TRY(const std::vector<TrialRecord> trials, db_.trials(problem.id, shared_.device_id));
  std::unordered_map<std::string, std::string> source_hashes;
  for (const TrialRecord& trial : trials) {
    const auto at = problem.index.find(trial.config);
    if (at == problem.index.end() || trial.compiler != shared_.compiler_version || untimed(trial)) continue;
    if (!trial.timing.empty() && trial.timing != request_.timing) continue;
    // What only its bits speak against is right where nobody demands them, and who demands them has seen them.
    const bool verified = Known{trial}.verified(), demanded = problem.spec.tune.deterministic;
    if (demanded ? verified && !trial.deterministic
                 : trial.status == TrialStatus::kWrong && trial.deterministic == false)
      continue;
    auto [hash, added] = source_hashes.try_emplace(trial.config);
    if (added)
      if (const auto source = emit(problem.spec, device_.arch, problem.space.candidates[at->second]))
        hash->second = source->hash;
    if (trial.source_hash != hash->second) continue;
    problem.known[trial.config] = Known{trial};
    if (demanded && verified && trial.deterministic == false)
      problem.known[trial.config].trial.status = TrialStatus::kWrong;
  }
  for (const auto& [config, known] : problem.known) {
    const double time = known.verified() ? known.trial.time_us.value_or(kFailed) : kFailed;
    problem.strategy->report(problem.index.at(config), time);
    if (known.trial.status == TrialStatus::kTimed && (problem.best_us == 0 || time < problem.best_us)) {
      problem.best_us = time;
      problem.best_config = config;
    }
    if (!known.verified() && problem.first_failure.empty()) problem.first_failure = known.trial.reason;
  }
  return {};
}

// Emits the next candidate and hands it to the compile pool. False: nothing to propose now.
Result<bool> Session::propose(Problem& problem) {
  const TimeAccount::During proposing(account_, Activity::kProposing);
  const auto index = problem.strategy->propose();
  if (!index) return false;
  Item item{.index = *index, .candidate = problem.space.candidates[*index]};
  ++problem.proposed;
  ++progress_.tried.proposed;
  auto source = emit(problem.spec, device_.arch, item.candidate);
  if (!source) {
    KGEN_CHECK_OK(record(problem, item, TrialStatus::kCompileFailed, source.error().message, nullptr));
    return true;
  }
  item.source = std::move(*source);
  auto bound = kgen::bind(item.source.plan, problem.spec.problem.dims);
  if (!bound) {
    KGEN_CHECK_OK(record(problem, item, TrialStatus::kPruned, bound.error().message, nullptr));
    return true;
  }
  item.bound = std::move(*bound);
  const std::int64_t ticket = next_ticket_++;
  ++problem.compiling;
  pool_.submit(
      item.source.text, device_.arch,
      [this, ticket](Result<CompileResult> result) { finished_.push(ticket, std::move(result)); }, problem.turn);
  problem.items.emplace(ticket, std::move(item));
  return true;
}

std::size_t Session::compiling() const {
  std::size_t count = current_ != nullptr ? current_->compiling : 0;
  for (const Upcoming& next : upcoming_) count += next.opened ? next.opened->compiling : 0;
  return count;
}

// Keeps every core at work: with candidates of this problem, as far ahead of their results as there are cores, and
// where they leave cores idle (results are waited for, the budget is used up) with those of the problems after it.
Result<void> Session::propose_ahead(Problem& problem) {
  const std::size_t jobs = this->jobs();
  while (problem.compiling + problem.ready.size() < jobs + kPipeline && !out_of_budget(problem)) {
    KGEN_TRY(const bool proposed, propose(problem));
    if (!proposed) break;
  }
  return compile_ahead();
}

// The part of propose_ahead() for the problems after this one, whose turn at the compilers comes when nothing of this
// one waits: else they would be used up before it leaves cores idle. Some wait in the queue, for the time that finals
// take.
Result<void> Session::compile_ahead() {
  KGEN_CHECK_OK(open_ahead());
  const std::size_t jobs = this->jobs();
  for (const Upcoming& next : upcoming_) {
    if (!next.opened || next.opened->nothing_to_launch || !next.opened->blocked.empty()) continue;
    const std::size_t most = next.opened->tries_all ? kAllAhead * jobs : jobs;
    while (compiling() < 2 * jobs && next.opened->items.size() < most && !out_of_budget(*next.opened)) {
      KGEN_TRY(const bool proposed, propose(*next.opened));
      if (!proposed) break;
    }
  }
  return {};
}

Result<void> Session::take_compiled() {
  for (auto& [number, result] : finished_.take()) {
    const std::int64_t ticket = number;
    Problem* owner = current_->items.contains(ticket) ? current_ : nullptr;
    for (const Upcoming& next : upcoming_)
      if (next.opened && next.opened->items.contains(ticket)) owner = next.opened.get();
    if (owner == nullptr) continue;  // its problem has ended
    Problem& problem = *owner;
    --problem.compiling;
    if (!result) return tl::unexpected(std::move(result.error()));
    // Ctrl-C may reach the compilers too: what they report then is not the candidate's fault.
    if (stop_) {
      problem.items.erase(ticket);
      continue;
    }
    Item& item = problem.items.at(ticket);
    item.compiled = std::move(*result);
    if (item.compiled.status == CompileStatus::kCompiled) {
      ++progress_.tried.compiled;
      ++outcome_.compiled;
      all_compile_seconds_ += item.compiled.code.compile_seconds;
      if (item.compiled.code.from_cache)
        ++outcome_.from_cache;
      else
        outcome_.compile_seconds += item.compiled.code.compile_seconds;
      item.usage = plan_usage(device_, item.bound, item.compiled.code);
      if (item.usage.pruned.empty()) {
        problem.ready.push_back(ticket);
        continue;
      }
      KGEN_CHECK_OK(record(problem, item, TrialStatus::kPruned, item.usage.pruned, nullptr));
    } else {
      const bool timeout = item.compiled.status == CompileStatus::kTimeout;
      const std::string why =
          timeout ? "the compiler did not end within its time limit" : first_error(item.compiled.log);
      if (problem.first_failure.empty()) problem.first_failure = why + "; repeat with: " + item.compiled.command;
      KGEN_CHECK_OK(
          record(problem, item, timeout ? TrialStatus::kCompileTimeout : TrialStatus::kCompileFailed, why, nullptr));
    }
    problem.items.erase(ticket);
  }
  return {};
}

Result<void> Session::send_ready(Problem& problem) {
  while (!problem.ready.empty() && supervisor_.outstanding() < kPipeline) {
    const std::int64_t ticket = problem.ready.front();
    problem.ready.pop_front();
    const Item& item = problem.items.at(ticket);
    problem.sent[ticket] = item.candidate.key();
    KGEN_TRY(const std::string path, code_file(item.compiled.code));
    KGEN_TRY(std::vector<CheckCase::Output> limits,
             candidate_limits(problem.spec, device_.arch, item.candidate.key(), item.bound));
    supervisor_.submit({.ticket = ticket,
                        .code_path = path,
                        .bound = item.bound,
                        .limits = std::move(limits),
                        .repeats = problem.spec.tune.deterministic ? Repeats::kDemanded : Repeats::kNone,
                        .measure = true,
                        .idle = !takes_turns(),
                        .best_us = problem.best_us});
    account_.device_has_work(true);
  }
  return {};
}

Result<void> Session::record(Problem& problem, const Item& item, TrialStatus status, std::string reason,
                             const TryResult* result, const Energy* energy) {
  TrialRecord trial;
  trial.problem = problem.id;
  trial.device = shared_.device_id;
  trial.config = item.candidate.key();
  trial.status = status;
  trial.reason = std::move(reason);
  trial.source_hash = item.source.hash;
  trial.op_hash = problem.spec.op->source_hash;
  trial.compiler = shared_.compiler_version;
  trial.options = item.compiled.code.options;
  trial.kgen_version = KGEN_VERSION;
  trial.is_default = item.candidate == problem.default_candidate;
  if (item.compiled.status == CompileStatus::kCompiled) trial.compile_seconds = item.compiled.code.compile_seconds;
  const auto known_number = [](int value) { return value >= 0 ? std::optional<int>(value) : std::nullopt; };
  trial.registers = known_number(item.usage.registers);
  trial.spills = known_number(item.usage.spills);
  trial.lds_bytes = known_number(item.usage.lds_bytes);
  trial.occupancy_waves = known_number(item.usage.occupancy_waves);
  if (result != nullptr) {
    trial.verify_seconds = result->verify_seconds;
    if (result->verdict.passed || status == TrialStatus::kWrong) {
      trial.max_error_ratio = result->verdict.max_error_ratio;
      trial.relative_l2 = result->verdict.relative_l2;
    }
    if (!result->timing.samples_us.empty()) {
      trial.timing = request_.timing;
      trial.time_us = result->timing.median_us;
      trial.mad_us = result->timing.mad_us;
      if (result->timing.clock_mhz > 0) trial.clock_mhz = result->timing.clock_mhz;
      if (result->timing.temperature_c != 0) trial.temperature_c = result->timing.temperature_c;
      trial.throttle = result->timing.throttle;
      trial.samples_us.assign(result->timing.samples_us.begin(), result->timing.samples_us.end());
      trial.states = result->timing.states;
    }
    if (energy != nullptr) {
      trial.energy_uj = energy->median_uj;
      trial.energy_mad_uj = energy->mad_uj;
    }
    if (result->verdict.same_bits) {  // a few equal launches prove nothing where the definition says otherwise
      OpSpec strict = problem.spec;
      strict.tune.deterministic = true;
      trial.deterministic =
          *result->verdict.same_bits && parse_candidate(strict, device_.arch, trial.config).has_value();
    }
  }
  if (shared_.many && (status == TrialStatus::kHung || status == TrialStatus::kCrashed)) {
    doubtful_.push_back(trial);
  } else {
    if (result != nullptr) KGEN_CHECK_OK(record_doubtful());
    const TimeAccount::During writing(account_, Activity::kDatabase);
    KGEN_TRY(trial.id, db_.record(trial));
  }
  const bool verified = status == TrialStatus::kTimed || status == TrialStatus::kStoppedEarly;
  const bool first = problem.known.find(trial.config) == problem.known.end();
  if (first) {
    problem.strategy->report(item.index, verified ? trial.time_us.value_or(kFailed) : kFailed);
    if (verified) ++outcome_.verified, ++progress_.tried.verified;
    if (status == TrialStatus::kTimed) ++progress_.tried.timed;
    if (!verified) ++progress_.tried.failed[status];
  }
  if (status == TrialStatus::kTimed && trial.time_us && (problem.best_us == 0 || *trial.time_us < problem.best_us)) {
    problem.best_us = *trial.time_us;
    problem.best_config = trial.config;
  }
  if (!verified && problem.first_failure.empty()) problem.first_failure = trial.reason;
  Known& known = problem.known[trial.config];  // a statement of its own: the right side of = is evaluated first
  known.trial = std::move(trial);
  return {};
}

// The device has run something since, or the problem has ended without its help.
Result<void> Session::record_doubtful() {
  for (const TrialRecord& trial : std::exchange(doubtful_, {})) KGEN_CHECK_OK(db_.record(trial).map([](auto) {}));
  return {};
}

// Before a failure counts where other devices could do better.
Result<void> Session::see_that_device_works() {
  if (stop_) return {};
  const auto works = supervisor_.revive();
  return works || works.error().kind == ErrorKind::kCheckFailed ? Result<void>() : works;
}

Result<void> Session::finish(Problem& problem, std::int64_t ticket, const TryResult& result) {
  const auto at = problem.items.find(ticket);
  if (at == problem.items.end()) return {};
  std::string reason = result.reason;
  if (result.status == TrialStatus::kWrong)
    reason += fmt::format("; input seed {}; repeat with: {}", supervisor_.seed(),
                          repeat_line(problem.spec, at->second.candidate.key(), device_.id));
  KGEN_CHECK_OK(record(problem, at->second, result.status, reason, &result));
  problem.items.erase(at);
  return {};
}

Result<void> Session::search(Problem& problem) {
  const bool turns = takes_turns();
  const Supervisor::BusySeconds at_start = supervisor_.busy();
  for (;;) {
    if (!turns || (supervisor_.outstanding() == 0 && problem.ready.empty())) KGEN_CHECK_OK(propose_ahead(problem));
    KGEN_CHECK_OK(choose_for_device(problem));
    if ((!turns || problem.compiling == 0) && !stop_ && (on_device_ == &problem || stays_away(problem)))
      KGEN_CHECK_OK(send_ready(*on_device_));
    show(&problem, false);
    // After a stop, or when the time is up, only the candidate that runs now is waited for; the others are as if they
    // had never been proposed. Otherwise: nothing was proposed above with nothing in flight, so the space or the budget
    // is used up.
    const bool time_up = problem.seconds > 0 && problem.best_us > 0 && now_seconds() - problem.start >= problem.seconds;
    if (stop_ || time_up ? !supervisor_.drop_waiting() : problem.items.empty() && supervisor_.outstanding() == 0) break;
    account_.device_has_work(supervisor_.outstanding() > 0);
    const Activity before = account_.go_on_with(Activity::kCompilers);
    auto ended = supervisor_.next(kPollSeconds, finished_.fd());
    account_.go_on_with(before);
    account_.device_has_work(supervisor_.outstanding() > 0);
    if (!ended && ended.error().kind == ErrorKind::kCheckFailed) {
      on_device_->blocked = ended.error().message;
      if (on_device_ == &problem) break;
      continue;
    }
    if (!ended) return tl::unexpected(std::move(ended.error()));
    if (*ended) KGEN_CHECK_OK(finish(*on_device_, (*ended)->ticket, **ended));
    if (const auto standings = supervisor_.take_standings(); !standings.empty()) {
      on_device_->standings.clear();
      for (const Standing& standing : standings)
        on_device_->standings[on_device_->sent.at(standing.ticket)] = standing.median_us;
    }
    KGEN_CHECK_OK(take_compiled());
  }
  account_.device_has_work(false);
  if (on_device_ != &problem) put_on_device(problem);
  searching_.add(at_start, supervisor_.busy());
  problem.items.clear();
  problem.ready.clear();
  problem.compiling = 0;
  return {};
}

Result<Item> Session::rebuild(Problem& problem, const std::string& config) {
  Item item{.index = problem.index.at(config), .candidate = problem.space.candidates[problem.index.at(config)]};
  KGEN_TRY(item.source, emit(problem.spec, device_.arch, item.candidate));
  KGEN_TRY(item.bound, kgen::bind(item.source.plan, problem.spec.problem.dims));
  KGEN_TRY(item.compiled, compiler_.compile(item.source.text, device_.arch));
  if (item.compiled.status != CompileStatus::kCompiled)
    return fail(ErrorKind::kInternal,
                fmt::format("{} compiled before and does not now: {}", config, first_error(item.compiled.log)));
  item.usage = plan_usage(device_, item.bound, item.compiled.code);
  return item;
}

Result<TryResult> Session::examine(Problem& problem, const Item& item, TryRequest request) {
  request.ticket = next_ticket_++;
  request.bound = item.bound;
  KGEN_TRY(request.limits, candidate_limits(problem.spec, device_.arch, item.candidate.key(), item.bound));
  KGEN_TRY(request.code_path, code_file(item.compiled.code));
  const std::int64_t ticket = request.ticket;
  supervisor_.submit(std::move(request));
  for (;;) {
    KGEN_TRY(const auto ended, supervisor_.next(kPollSeconds, finished_.fd()));
    if (ended && ended->ticket == ticket) return *ended;
    KGEN_CHECK_OK(take_compiled());
    if (!stop_) KGEN_CHECK_OK(compile_ahead());
    show(nullptr, false);
  }
}

// Checks candidates on inputs that they have not seen. Failures are recorded and left out of the answer.
Result<std::vector<std::string>> Session::reverify(Problem& problem, const std::vector<std::string>& configs) {
  std::vector<std::string> passed;
  for (const std::string& config : configs) {
    KGEN_TRY(const Item item, rebuild(problem, config));
    KGEN_TRY(
        TryResult result,
        examine(problem, item,
                {.repeats = problem.spec.tune.deterministic ? Repeats::kDemanded : Repeats::kTold, .measure = false}));
    if (result.verdict.passed) {
      problem.known.at(config).trial.reason = result.reason;
      problem.known.at(config).trial.deterministic = result.verdict.same_bits;
      passed.push_back(config);
      continue;
    }
    KGEN_CHECK_OK(record(problem, item, result.status,
                         fmt::format("on a second set of inputs (seed {}): {}; repeat with: {}", supervisor_.seed(),
                                     result.reason, repeat_line(problem.spec, config, device_.id)),
                         &result));
  }
  return passed;
}

Result<void> Session::publish(Problem& problem, const std::string& config, bool is_default) {
  const TrialRecord& trial = problem.known.at(config).trial;
  const Winners::Key key{problem.id, is_default, problem.spec.tune.deterministic};
  if (const auto present = winners_.find(key); present && present->trial == trial.id) return {};
  KGEN_TRY(const Item item, rebuild(problem, config));
  const CodeObject& code = item.compiled.code;
  const WinnerRecord winner{.problem = problem.id,
                            .device = shared_.device_id,
                            .trial = trial.id,
                            .goal = goal(problem),
                            .plan_json = plan_to_json(item.source.plan),
                            .object_hash = code.hash,
                            .is_default = is_default};
  const ObjectRecord object{.hash = code.hash,
                            .arch = std::string(device_.arch->name),
                            .kind = std::string(code_kind(code.bytes)),
                            .bytes = code.bytes};
  const TimeAccount::During writing(account_, Activity::kDatabase);
  KGEN_CHECK_OK(db_.publish(winner, object));
  winners_.set(key, {.trial = trial.id, .config = config});
  if (!is_default)
    winners_.add(
        {problem.row.op, std::string(device_.arch->family), problem.row.signature, problem.row.dims_key, config});
  return {};
}

Goal Session::goal(const Problem& problem) const {
  return {.timing = request_.timing, .objective = request_.objective, .deterministic = problem.spec.tune.deterministic};
}

// Those that were timed in full, fastest first: the leaders by their times in turns.
static std::vector<std::string> by_time(const std::map<std::string, Known>& known,
                                        const std::map<std::string, double>& standings = {}) {
  std::vector<std::pair<double, std::string>> times;
  for (const auto& [config, entry] : known) {
    if (entry.trial.status != TrialStatus::kTimed) continue;
    const auto standing = standings.find(config);
    times.emplace_back(standing != standings.end() ? standing->second : *entry.trial.time_us, config);
  }
  std::sort(times.begin(), times.end());
  std::vector<std::string> configs;
  for (auto& [time, config] : times) configs.push_back(std::move(config));
  return configs;
}

// The fastest of each part of what was timed in full, in the order of time, as far as they are within kPartReach.
static std::vector<std::string> best_of_parts(const std::map<std::string, Known>& known,
                                              const std::vector<std::string>& ranked) {
  std::vector<std::string> order = ranked, best;
  const auto time_of = [&](const std::string& config) { return *known.at(config).trial.time_us; };
  std::sort(order.begin(), order.end(), [&](auto& a, auto& b) { return known.at(a).trial.id < known.at(b).trial.id; });
  for (std::size_t part = 0; part < kParts; ++part) {
    const auto from = order.begin() + static_cast<std::ptrdiff_t>(part * order.size() / kParts),
               to = order.begin() + static_cast<std::ptrdiff_t>((part + 1) * order.size() / kParts);
    const auto fastest = std::min_element(from, to, [&](auto& a, auto& b) { return time_of(a) < time_of(b); });
    if (fastest != to && time_of(*fastest) <= kPartReach * time_of(ranked.front())) best.push_back(*fastest);
  }
  return best;
}

// Finalists: checked on fresh inputs, timed in turns, and where energy counts, its use measured in turns. The best of
// them; an incumbent is one of them and stays unless a challenger is significantly better. "": none passed.
Result<std::string> Session::hold_finals(Problem& problem, const std::string& incumbent) {
  const bool energy = request_.objective == "energy";
  const double reach = energy ? kEnergyReach : kFinalistReach;
  for (;;) {
    const std::vector<std::string> ranked = by_time(problem.known, problem.standings);
    std::vector<std::string> finalists;
    for (const std::string& config : ranked)
      if (finalists.size() < kFinalists &&
          *problem.known.at(config).trial.time_us <= reach * *problem.known.at(ranked.front()).trial.time_us)
        finalists.push_back(config);
    if (finalists.empty()) return std::string();
    const auto add = [&](const std::string& config) {
      const auto at = problem.known.find(config);
      if (at != problem.known.end() && at->second.verified() &&
          std::find(finalists.begin(), finalists.end(), config) == finalists.end())
        finalists.push_back(config);
    };
    if (!energy)
      for (const std::string& config : best_of_parts(problem.known, ranked)) add(config);
    if (!incumbent.empty()) {
      const auto present = winners_.find({problem.id, false, problem.spec.tune.deterministic});
      const TrialRecord& trial = problem.known.at(incumbent).trial;
      const bool news = (energy && !trial.energy_uj) ||
                        std::any_of(finalists.begin(), finalists.end(),
                                    [&](auto& config) { return problem.known.at(config).trial.id > present->trial; });
      if (!news) return incumbent;
      add(incumbent);
    }
    const std::string default_key = problem.default_candidate.key();
    const auto standard = problem.known.find(default_key);
    if (standard != problem.known.end() &&
        (energy || standard->second.trial.time_us.value_or(HUGE_VAL) <=
                       kDefaultReach * *problem.known.at(ranked.front()).trial.time_us))
      add(default_key);
    put_on_device(problem);
    auto checked = reverify(problem, finalists);
    if (!checked && checked.error().kind == ErrorKind::kCheckFailed) {
      problem.blocked = checked.error().message;
      return std::string();
    }
    if (!checked) return tl::unexpected(std::move(checked.error()));
    if (checked->empty()) continue;  // the next best are looked at
    finalists = std::move(*checked);
    problem.default_checked = std::find(finalists.begin(), finalists.end(), default_key) != finalists.end();

    if (finalists.size() == 1 && !energy) return finalists.front();

    RaceRequest race;
    std::vector<Item> items;
    double round_us = 0;
    for (const std::string& config : finalists) {
      KGEN_TRY(Item item, rebuild(problem, config));
      KGEN_TRY(const std::string path, code_file(item.compiled.code));
      TryRequest entry{.ticket = 0, .code_path = path, .bound = item.bound};
      KGEN_TRY(entry.limits, candidate_limits(problem.spec, device_.arch, config, item.bound));
      race.candidates.push_back(std::move(entry));
      items.push_back(std::move(item));
      round_us += *problem.known.at(config).trial.time_us;
    }
    race.rounds =
        static_cast<int>(std::clamp(kRaceUs / round_us, double(MeasureLimits::kMinRounds), double(kMaxRounds)));
    // A round costs little beside what a sitting tells; on the host, whose kernels take longer, it does not.
    if (!takes_turns()) {
      race.sittings = static_cast<int>(
          std::clamp(kRaceUs / (round_us * MeasureLimits::kMinRounds), 1.0, static_cast<double>(kMaxSittings)));
      race.rounds = std::max(race.rounds, race.sittings * MeasureLimits::kMinRounds);
      race.narrow = !energy;  // which is measured in the first sitting, of all
    }
    race.energy_rounds = energy ? kEnergyRounds : 0;
    // Else the compilers run out of work: a race takes as long as two compilations.
    const auto run = supervisor_.race(race, [&]() -> Result<void> {
      KGEN_CHECK_OK(take_compiled());
      if (stop_) return {};
      return compile_ahead();
    });
    if (!run && run.error().kind != ErrorKind::kCheckFailed) return tl::unexpected(run.error());
    if (!run && energy) {
      problem.blocked = "the energy of the finalists was not measured: " + run.error().message;
      return std::string();
    }
    if (!run && shared_.many) KGEN_CHECK_OK(see_that_device_works());
    if (!run) return finalists.front();  // the fastest of the search, checked twice, wins without a race

    // Who sat to the end wins: whoever did not was out.
    std::size_t last = 0;
    for (const Timing& timing : run->timings) last = std::max(last, timing.samples_us.size());
    const auto cost = [&](std::size_t i) {
      if (energy) return median(run->energies[i].samples_uj);
      return run->timings[i].samples_us.size() == last ? run->timings[i].median_us : HUGE_VAL;
    };
    std::size_t best = 0;
    for (std::size_t i = 1; i < finalists.size(); ++i)
      if (cost(i) < cost(best)) best = i;
    if (!energy && !run->timings[best].throttle.empty()) {
      std::vector<double> before;
      for (const std::string& config : finalists) {
        const TrialRecord& trial = problem.known.at(config).trial;
        const bool peaceful =
            trial.status == TrialStatus::kTimed &&
            (trial.throttle.empty() || trial.clock_mhz.value_or(0) > kPeacefulClock * run->timings[best].clock_mhz);
        before.push_back(peaceful ? trial.time_us.value_or(HUGE_VAL) : HUGE_VAL);
      }
      best = best_in_peace(best, before);
    }
    std::string kept;  // why the incumbent stays
    if (const auto at = std::find(finalists.begin(), finalists.end(), incumbent); at != finalists.end()) {
      const auto i = static_cast<std::size_t>(at - finalists.begin());
      const Comparison comparison = energy ? compare(run->energies[best].samples_uj, run->energies[i].samples_uj)
                                           : compare(run->timings[best], run->timings[i]);
      if (best != i && !comparison.replaces) {
        kept = fmt::format(
            "kept the winner of before: {} needs {:.1f} % less {} in turns with it (p = {:.2g}), which is not "
            "significant; it takes {:g} % and p < {:g}",
            finalists[best], 100 * comparison.gain, request_.objective, comparison.probability, 100 * kLeastGain,
            kSignificance);
        best = i;
      }
    }
    problem.row.note = kept;
    // The winner's row comes last: rows after a winner's are news to the next run.
    std::vector<std::size_t> order(finalists.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::swap(order[best], order.back());
    for (std::size_t i : order) {
      TryResult result;
      result.verdict.passed = true;
      const TrialRecord& before = problem.known.at(finalists[i]).trial;
      result.verdict.max_error_ratio = before.max_error_ratio.value_or(0);
      result.verdict.relative_l2 = before.relative_l2.value_or(0);
      result.verdict.same_bits = before.deterministic;
      result.verify_seconds = before.verify_seconds.value_or(0);
      result.timing = run->timings[i];
      std::string reason = fmt::format("finalist: timed in turns with {} others, inputs of seed {}",
                                       finalists.size() - 1, supervisor_.seed());
      if (i == best && !kept.empty()) reason += "; " + kept;
      if (!before.reason.empty()) reason += "; " + before.reason;
      KGEN_CHECK_OK(
          record(problem, items[i], TrialStatus::kTimed, reason, &result, energy ? &run->energies[i] : nullptr));
    }
    return finalists[best];
  }
}

// The winner of the finals is published, and beside it what serves shapes that were never tuned: the default candidate,
// or where that does not work, the winner.
Result<void> Session::conclude(Problem& problem) {
  const bool deterministic = problem.spec.tune.deterministic;
  std::string incumbent;
  if (const auto present = winners_.find({problem.id, false, deterministic})) {
    // Else stale: its source or compiler has changed.
    const auto known = problem.known.find(present->config);
    if (known != problem.known.end() && known->second.verified()) incumbent = present->config;
  }
  std::string winner = incumbent;
  if (!stop_) {
    KGEN_TRY(winner, hold_finals(problem, incumbent));
    if (!problem.blocked.empty()) return {};
  } else if (incumbent.empty() && request_.objective == "time") {
    // No time for finals, but the best so far is better than nothing. The next run holds the finals.
    const auto configs = by_time(problem.known);
    if (!configs.empty()) winner = configs.front();
  }
  const auto at = problem.known.find(problem.default_candidate.key());
  const bool default_works = at != problem.known.end() && at->second.verified();
  if (default_works) {
    problem.row.default_us = at->second.trial.time_us.value_or(0);
    problem.row.default_energy_uj = at->second.trial.energy_uj.value_or(0);
  }
  if (winner.empty()) return {};
  if (!stop_ || incumbent.empty()) KGEN_CHECK_OK(publish(problem, winner, false));
  const TrialRecord& trial = problem.known.at(winner).trial;
  problem.row.config = winner;
  problem.row.time_us = trial.time_us.value_or(0);
  problem.row.mad_us = trial.mad_us.value_or(0);
  problem.row.energy_uj = trial.energy_uj.value_or(0);
  std::string serves = winner;
  if (default_works && at->first != winner) {
    const auto published = winners_.find({problem.id, true, deterministic});
    const bool done = published && published->trial == at->second.trial.id;
    if (done || stop_ || problem.default_checked) {
      serves = done || problem.default_checked ? at->first : winner;
    } else {
      auto checked = reverify(problem, {at->first});
      if (!checked) return tl::unexpected(std::move(checked.error()));
      if (!checked->empty()) serves = at->first;
    }
  }
  if (!stop_ || incumbent.empty()) KGEN_CHECK_OK(publish(problem, serves, true));
  return {};
}

// What is told of a problem that nothing is published of.
void Session::take_stock(Problem& problem) {
  for (const auto& [config, entry] : problem.known) problem.row.trials.push_back(entry.trial);
  if (const auto at = problem.known.find(problem.default_candidate.key());
      at != problem.known.end() && at->second.verified())
    problem.row.default_us = at->second.trial.time_us.value_or(0);
  if (problem.best_us <= 0) return;
  problem.row.config = problem.best_config;
  problem.row.time_us = problem.best_us;
  winners_.add({problem.row.op, std::string(device_.arch->family), problem.row.signature, problem.row.dims_key,
                problem.best_config});
}

// What won on the nearest shapes, in this database and in the prior, then the other variants' defaults: half of the
// budget at most.
void Session::seed_search(Problem& problem, std::size_t won) {
  const std::size_t most = problem.budget == 0 ? SIZE_MAX : std::max<std::size_t>(2, problem.budget / 2);
  auto& seeds = problem.search_space.seeds;
  const auto add = [&](std::size_t point) {
    if (seeds.size() < most && std::find(seeds.begin(), seeds.end(), point) == seeds.end()) seeds.push_back(point);
  };
  std::vector<Winner> winners = winners_.of(problem.row.op, won);
  if (const auto prior = shared_.priors.find(problem.row.op); prior != shared_.priors.end())
    winners.insert(winners.end(), prior->second.begin(), prior->second.end());
  for (const std::size_t point : rank_winners(problem.search_space, winners, problem.row.signature,
                                              problem.row.dims_key, std::string(device_.arch->family), kPriorPoints))
    add(point);
  for (const VariantDef& variant : problem.spec.op->variants)
    if (const auto candidate = parse_candidate(problem.spec, device_.arch, variant.name))
      if (const auto at = problem.index.find(candidate->key()); at != problem.index.end()) add(at->second);
}

// Recordings of the same operator, the most alike first: the same shape, then by how far the dims are apart. Those of
// other programs count where their tunables fit.
void Session::warm_search(Problem& problem) {
  const auto distance = [&](const Recording& recording) {
    return problem_distance(problem.row.signature, problem.row.dims_key, recording.op.signature,
                            recording.problem.dims_key);
  };
  std::vector<std::pair<double, const Recording*>> near;
  for (const Recording& recording : shared_.warm_start) {
    const bool own = !recording.device.arch.empty();  // written by kgen
    if (!own || recording.op.op == problem.row.op) near.emplace_back(distance(recording), &recording);
  }
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  near.resize(std::min(near.size(), kSources));
  std::vector<Elsewhere> sources;
  for (const auto& [far, recording] : near) sources.push_back(elsewhere(recorded_space(*recording)));
  warm_start(problem.search_space, sources);
}

// The reference and the checks start to compile, before any candidate that waits for a compiler: what is compiled is of
// no use without them, and they take up to four times as long.
void Session::compile_checks(Problem& problem) {
  const std::lock_guard lock(check_mutex_);
  for (const std::string& text : problem.checks.texts) {
    auto [code, added] = check_code_.try_emplace(hash_text(text));
    if (added) {
      auto promise = std::make_shared<std::promise<Result<CompileResult>>>();
      code->second = promise->get_future().share();
      pool_.submit(
          text, device_.arch, [promise](Result<CompileResult> result) { promise->set_value(std::move(result)); },
          kChecksTurn);
    }
    problem.check_code.push_back(code->second);
  }
}

// What of a problem needs neither device nor database. Safe beside the rest of the session.
Result<std::unique_ptr<Session::Problem>> Session::prepare(std::size_t index) {
  const OpSpec& spec = request_.specs[index];
  auto prepared = std::make_unique<Problem>(index, spec);
  Problem& problem = *prepared;
  problem.row.op = spec.op->name;
  problem.row.deterministic = spec.tune.deterministic;
  problem.row.signature = signature(*spec.op, spec.problem);
  problem.row.dims_key = dims_key(*spec.op, spec.problem);
  problem.row.label = spec.problem.label;
  KGEN_TRY(problem.checks, check_sources(spec, device_.arch));
  KGEN_TRY(const BoundPlan reference_bound, kgen::bind(problem.checks.reference.plan, spec.problem.dims));
  if (writes_nothing(reference_bound)) {
    problem.nothing_to_launch = true;
    problem.row.note = "nothing to launch";
    return prepared;
  }
  compile_checks(problem);
  KGEN_TRY(problem.default_candidate, default_candidate(spec, device_.arch));
  if (spec.tune.configs.empty()) {
    KGEN_TRY(problem.space, enumerate(spec, device_.arch));
  } else {
    problem.space.candidates.push_back(problem.default_candidate);
    for (const std::string& config : spec.tune.configs) {
      const auto candidate = parse_candidate(spec, device_.arch, config);
      if (candidate && *candidate != problem.default_candidate) problem.space.candidates.push_back(*candidate);
    }
  }
  for (std::size_t i = 0; i < problem.space.candidates.size(); ++i)
    problem.index.emplace(problem.space.candidates[i].key(), i);
  problem.search_space = make_search_space(problem.space.candidates, problem.default_candidate);
  return prepared;
}

// Takes a prepared problem, `number` of those of this session, into it, with the first `won` of what has won to begin
// from.
Result<void> Session::open(Problem& problem, std::size_t number, std::size_t won) {
  ++progress_.problems_opened;
  problem.turn = static_cast<std::int64_t>(number);
  if (problem.nothing_to_launch) return {};
  const OpSpec& spec = problem.spec;
  const bool listed = !spec.tune.configs.empty();
  if (!listed)
    problem.budget =
        static_cast<std::size_t>(spec.tune.budget > 0 ? spec.tune.budget : std::max(request_.budget.candidates, 0));
  seed_search(problem, won);
  warm_search(problem);
  problem.seconds = request_.budget.seconds;
  KGEN_TRY(problem.strategy, make_strategy(listed ? "exhaustive" : request_.strategy, problem.search_space,
                                           request_.seed, problem.budget));

  KGEN_TRY(const KernelSource default_source, emit(spec, device_.arch, problem.default_candidate));
  KGEN_TRY(const BoundPlan default_bound, kgen::bind(default_source.plan, spec.problem.dims));
  problem.row.flops = default_bound.flops;
  problem.row.bytes = default_bound.bytes;
  problem.row.peak_flops = peak_flops(device_, spec.problem.attributes.at("dtype"));
  KGEN_TRY(problem.id, db_.intern_problem(op_record(spec), problem_record(spec, default_bound)));
  if (request_.fresh && winners_.forget(problem.id)) KGEN_CHECK_OK(db_.forget(problem.id, shared_.device_id));
  KGEN_CHECK_OK(replay(problem));
  const std::size_t size = problem.space.candidates.size();
  problem.tries_all = problem.seconds <= 0 && (problem.budget == 0 || problem.budget >= size);
  const std::size_t wanted = problem.budget > 0 ? std::min(problem.budget, size) : size;
  problem.planned = static_cast<std::int64_t>(wanted - std::min(wanted, problem.known.size()));
  progress_.tried.planned += problem.planned;

  return {};
}

// Every set-up of a problem takes the next seed, so that its finals have inputs that no candidate has seen.
void Session::put_on_device(Problem& problem) {
  if (on_device_ != nullptr) {
    on_device_->check.seed = supervisor_.seed();
    on_device_->set_up_seconds = std::max(on_device_->set_up_seconds, set_up_seconds());
  }
  supervisor_.use(problem.check, timing_);
  on_device_ = &problem;
  set_up_from_ = supervisor_.busy().reference;
}

// Is the device at another problem, and not wanted at this one yet? For finals it is once the compilers have work.
bool Session::stays_away(const Problem& problem) const {
  if (on_device_ == &problem || !on_device_->blocked.empty()) return false;
  return problem.items.empty() ? compiling() < jobs() : problem.ready.size() < std::min(kVisit, problem.items.size());
}

bool Session::worth_a_visit(const Problem& problem, double own_set_up_seconds) const {
  const auto compiled = [](const auto& code) {
    return code.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  };
  const double compilation = all_compile_seconds_ / static_cast<double>(std::max<std::int64_t>(1, outcome_.compiled));
  return problem.seconds <= 0 && problem.blocked.empty() && !problem.ready.empty() &&
         problem.ready.size() >= std::min(kVisit, problem.items.size()) &&
         own_set_up_seconds + problem.set_up_seconds < kVisitSetUp * compilation &&
         std::all_of(problem.check_code.begin(), problem.check_code.end(), compiled);
}

// The problem in work has the device when it has something for it. Else one behind it has, whose model then has results
// to propose from, and whose candidates keep compilers at work that this one leaves idle.
Result<void> Session::choose_for_device(Problem& problem) {
  if (supervisor_.outstanding() > 0 || stop_) return {};
  if (stays_away(problem) && !on_device_->ready.empty()) return {};
  if (problem.ready.empty() && problem.seconds <= 0 && (!problem.items.empty() || compiling() < jobs())) {
    const double own = on_device_ == &problem ? set_up_seconds() : problem.set_up_seconds;
    for (const Upcoming& next : upcoming_) {
      if (!next.opened || !worth_a_visit(*next.opened, own)) continue;
      KGEN_CHECK_OK(verify_ready(*next.opened));
      if (next.opened->blocked.empty()) return {};
    }
  }
  if (on_device_ != &problem && !problem.ready.empty()) put_on_device(problem);
  return {};
}

// Waits for the compiled reference and checks and makes them the supervisor's problem.
Result<void> Session::verify_ready(Problem& problem) {
  if (on_device_ == &problem || !problem.blocked.empty()) return {};
  if (!problem.check.code_paths.empty()) {
    put_on_device(problem);
    return {};
  }
  const TimeAccount::During waiting(account_, Activity::kCompilers);
  std::vector<CompileResult> compiled;
  for (std::size_t i = 0; i < problem.check_code.size(); ++i) {
    while (problem.check_code[i].wait_for(std::chrono::duration<double>(kWaitSeconds)) != std::future_status::ready) {
      KGEN_CHECK_OK(take_compiled());
      if (!stop_) KGEN_CHECK_OK(compile_ahead());
      show(&problem, false);
    }
    auto code = problem.check_code[i].get();
    // Without it nothing is verified, so a compiler that died of something else gets a second chance.
    if (code && code->status != CompileStatus::kCompiled && !stop_)
      code = compiler_.compile(problem.checks.texts[i], device_.arch);
    if (!code) return tl::unexpected(std::move(code.error()));
    compiled.push_back(std::move(*code));
  }
  auto check = reference_case(problem.spec, device_.arch, problem.checks, compiled);
  if (!check && check.error().kind == ErrorKind::kCheckFailed) {
    problem.blocked = check.error().message;
    return {};
  }
  if (!check) return tl::unexpected(std::move(check.error()));
  problem.check = std::move(*check);
  problem.check.seed = request_.seed * 1000;
  // Energy is measured in replays of a graph, cold ones too.
  problem.check.rotate =
      timing_ == TimingMode::kGraph || (request_.objective == "energy" && timing_ == TimingMode::kCold);
  put_on_device(problem);
  return {};
}

Result<void> Session::work_on(Problem& problem) {
  if (problem.nothing_to_launch) return {};
  problem.start = now_seconds();
  progress_.problem =
      problem.row.op + (problem.row.label.empty() ? " " : " " + problem.row.label + " ") + problem.row.dims_key;
  progress_.stage = "reference";
  show(&problem, true);
  KGEN_CHECK_OK(propose_ahead(problem));
  KGEN_CHECK_OK(verify_ready(problem));
  progress_.stage = "search";
  if (problem.blocked.empty()) KGEN_CHECK_OK(search(problem));
  progress_.stage = "finals";
  show(&problem, true);
  if (problem.blocked.empty() && !request_.publish) {
    take_stock(problem);
  } else if (problem.blocked.empty()) {
    const TimeAccount::During finals(account_, Activity::kFinals);
    KGEN_CHECK_OK(conclude(problem));
  }
  progress_.tried.planned += problem.proposed - problem.planned;

  problem.row.candidates = static_cast<std::int64_t>(problem.known.size());
  for (const auto& [config, entry] : problem.known) problem.row.verified += entry.verified();
  if (!problem.row.config.empty()) {
    if (request_.publish) problem.row.expected_loss = problem.strategy->expected_loss();
    return {};
  }
  if (!problem.blocked.empty()) {
    problem.row.note = "not verified: " + problem.blocked;
  } else if (stop_) {
    problem.row.note = problem.best_us > 0 ? "stopped before the energy of the finalists was measured"
                                           : "stopped before a candidate was timed";
    return {};
  } else {
    problem.row.note = "all candidates failed: " + problem.first_failure;
  }
  problem.failed = true;
  return {};
}

// The device's part of the search is split by what its worker says.
void Session::sum_up() {
  account_.go_on_with(Activity::kOther);
  const auto spent = [&](Activity activity) { return account_.seconds(activity); };
  const Supervisor::BusySeconds& busy = supervisor_.busy();
  outcome_.device_seconds = now_seconds() - start_;
  outcome_.gpu_busy_seconds = busy.total();
  outcome_.gpu_timing_seconds = busy.timing + busy.turns;
  outcome_.where_time_went = {{"timing", searching_.timing},
                              {"verification", searching_.verification},
                              {"references", searching_.reference},
                              {"between candidates", std::max(0.0, spent(Activity::kDevice) - searching_.asked())},
                              {"finals", spent(Activity::kFinals)},
                              {"compilers", spent(Activity::kCompilers)},
                              {"proposing", spent(Activity::kProposing)},
                              {"preparing", spent(Activity::kPreparing)},
                              {"database", spent(Activity::kDatabase)},
                              {"starting", spent(Activity::kStarting)},
                              {"waiting for a problem", spent(Activity::kWaiting)},
                              {"other", spent(Activity::kOther)}};
  outcome_.peak_bytes_per_second = supervisor_.bandwidth();
}

// The next problem, to be worked at now; null: there is none left.
Result<std::unique_ptr<Session::Problem>> Session::begin() {
  std::unique_ptr<Problem> problem;
  if (upcoming_.empty()) {
    const Activity before = account_.go_on_with(Activity::kWaiting);
    --shared_.at_work;
    const auto next = shared_.queue.take(stop_);
    ++shared_.at_work;
    account_.go_on_with(before);
    if (!next) return problem;
    const TimeAccount::During preparing(account_, Activity::kPreparing);
    in_hand_.push_back(*next);
    KGEN_TRY(problem, prepare(*next));
    KGEN_CHECK_OK(open(*problem, begun_.size(), winners_.count()));
  } else {
    const TimeAccount::During preparing(account_, Activity::kPreparing);
    if (!upcoming_.front().opened) upcoming_.front().preparing.wait();
    KGEN_CHECK_OK(open_ahead());
    problem = std::move(upcoming_.front().opened);
    upcoming_.pop_front();
  }
  begun_.push_back({problem->index_in_request, winners_.count()});
  current_ = problem.get();
  look_ahead();
  return problem;
}

// Starts to prepare the problems after the one in work. A host times its kernels on the cores that would prepare.
void Session::look_ahead() {
  if (takes_turns()) return;
  for (;;) {
    const auto preparing =
        std::count_if(upcoming_.begin(), upcoming_.end(), [](auto& next) { return !next.prepared(); });
    if (upcoming_.size() == (shared_.many ? kOpenAhead : kMostAhead) ||
        static_cast<std::size_t>(preparing) == kPreparing)
      return;
    const auto next = shared_.queue.take_ahead(upcoming_.size());
    if (!next) return;
    in_hand_.push_back(*next);
    upcoming_.push_back({*next, std::async(std::launch::async, [this, i = *next] { return prepare(i); })});
  }
}

// Does the problem, `number` of this session, begin with what one wins that has not ended?
bool Session::opens_later(std::size_t number) const {
  const auto op = [&](std::size_t i) {
    return request_.specs[i < begun_.size() ? begun_[i].index : upcoming_[i - begun_.size()].index].op->name;
  };
  for (std::size_t i = begun_.size() - 1; i + kOpenAhead < number; ++i)
    if (op(i) == op(number)) return true;
  return false;
}

// Opens the next problem that is prepared, and starts to prepare others.
Result<void> Session::open_ahead() {
  look_ahead();
  for (std::size_t k = 0; k < upcoming_.size(); ++k) {
    Upcoming& next = upcoming_[k];
    if (next.opened) continue;
    if (!next.prepared()) break;
    const TimeAccount::During preparing(account_, Activity::kPreparing);
    const std::size_t number = begun_.size() + k;
    if (opens_later(number)) continue;
    if (k >= kOpenAhead && compiling() >= jobs()) break;  // what is left for the end is of use there
    KGEN_TRY(next.opened, next.preparing.get());
    const std::size_t after = std::min(number - std::min(number, kOpenAhead), begun_.size() - 1);
    KGEN_CHECK_OK(open(*next.opened, number, begun_[after].won));
    break;  // one at a time: it takes a while, in which the compilers get nothing
  }
  return {};
}

Result<void> Session::start() {
  KGEN_TRY(device_, supervisor_.start());
  progress_.device = device_.id;
  return {};
}

Result<void> Session::work() {
  account_.go_on_with(Activity::kOther);
  auto worked = work_on_all();
  --shared_.at_work;
  --shared_.alive;
  if (!worked && worked.error().kind == ErrorKind::kDevice)
    std::erase_if(doubtful_, [&](const TrialRecord& trial) { return shared_.second_chance(trial); });
  if (auto written = record_doubtful(); !written) worked = std::move(written);
  if (!worked && worked.error().kind != ErrorKind::kDevice) shared_.stop.failed = true;
  upcoming_.clear();  // and what prepares them has ended
  shared_.queue.give_back(in_hand_);
  progress_.tried.planned = progress_.tried.proposed;
  sum_up();
  return worked;
}

Result<void> Session::work_on_all() {
  while (!stop_) {
    KGEN_TRY(const std::unique_ptr<Problem> problem, begin());
    if (problem == nullptr) break;
    KGEN_CHECK_OK(work_on(*problem));
    if (on_device_ == problem.get()) on_device_ = nullptr;
    current_ = nullptr;
    if (!doubtful_.empty() || (shared_.many && !problem->blocked.empty())) KGEN_CHECK_OK(see_that_device_works());
    KGEN_CHECK_OK(record_doubtful());
    problem->row.seconds = now_seconds() - problem->start;
    outcome_.any_failed |= problem->failed;
    done_.rows.emplace(problem->index_in_request, std::move(problem->row));
    std::erase(in_hand_, problem->index_in_request);
    shared_.queue.done(problem->index_in_request);
    ++progress_.problems_done;
    show(nullptr, true);
  }
  return {};
}

// Sums up what the sessions show. Thread-safe.
class Board {
 public:
  Board(const std::function<void(const TuneProgress&)>& show, const TuneRequest& request, std::size_t sessions)
      : show_(show),
        problems_(request.specs.size()),
        seconds_each_(request.budget.seconds),
        parts_(sessions),
        alive_(sessions, true) {}

  void show(std::size_t session, const TuneProgress::Work& part, bool force) {
    const std::lock_guard lock(mutex_);
    parts_[session] = part;
    const double now = now_seconds();
    if (!show_ || (!force && now - shown_ < kPollSeconds)) return;
    shown_ = now;
    TuneProgress all;
    all.problems = problems_;
    all.elapsed = now - start_;
    all.dropped = dropped_;
    std::size_t opened = 0;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      all.problems_done += parts_[i].problems_done;
      opened += parts_[i].problems_opened;
      all.tried += parts_[i].tried;
      if (alive_[i]) all.devices.push_back(parts_[i]);
    }
    all.left = seconds_left(all, static_cast<double>(std::min(opened, problems_)));
    show_(all);
  }
  void drop(std::size_t session, std::string why) {
    TuneProgress::Work part;
    {
      const std::lock_guard lock(mutex_);
      dropped_.push_back(std::move(why));
      alive_[session] = false;
      part = parts_[session];
      part.tried.planned = part.tried.proposed;
    }
    show(session, part, true);
  }
  const std::vector<std::string>& dropped() const { return dropped_; }

 private:
  // At the rate so far, with as much for each problem that nobody has looked at yet as for the others; no longer than
  // the time that problems have.
  double seconds_left(const TuneProgress& all, double opened) const {
    const double done = static_cast<double>(all.tried.proposed), planned = static_cast<double>(all.tried.planned),
                 problems = static_cast<double>(problems_);
    double left = 0;
    if (done > 0) left = std::max(0.0, planned * problems / opened - done) * all.elapsed / done;
    if (seconds_each_ <= 0 || all.devices.empty()) return left;
    double most = (problems - static_cast<double>(all.problems_done)) * seconds_each_;
    for (const TuneProgress::Work& work : all.devices) most -= std::min(work.since, seconds_each_);
    most = std::max(0.0, most / static_cast<double>(all.devices.size()));
    return done > 0 ? std::min(left, most) : most;
  }

  std::mutex mutex_;
  const std::function<void(const TuneProgress&)>& show_;
  const std::size_t problems_;
  const double seconds_each_;  // 0 = no limit
  std::vector<TuneProgress::Work> parts_;
  std::vector<bool> alive_;
  std::vector<std::string> dropped_;
  double start_ = now_seconds(), shown_ = 0;
};

// All bad input is found before any device is started …
Result<void> check_request(Shared& shared) {
  const TuneRequest& request = shared.request;
  KGEN_TRY(shared.timing, find_timing(request.timing));
  if (request.objective != "time" && request.objective != "energy")
    return fail(ErrorKind::kBadInput,
                fmt::format("unknown objective '{}'{}; there are time, energy", request.objective,
                            did_you_mean(request.objective, std::vector<std::string>{"time", "energy"})));
  KGEN_CHECK_OK(make_strategy(request.strategy, SearchSpace{}, 0, 0).map([](auto&&) {}));
  for (const std::string& file : request.warm_start) {
    KGEN_TRY(std::vector<Recording> recordings, read_recordings(file));
    std::move(recordings.begin(), recordings.end(), std::back_inserter(shared.warm_start));
  }
  return {};
}

// … or, where it takes the device to tell, before any work is done.
Result<void> get_ready(Shared& shared, const std::vector<Session*>& sessions, int jobs) {
  const TuneRequest& request = shared.request;
  const DeviceInfo& device = shared.device = sessions.front()->device();
  for (const Session* session : sessions) {
    const DeviceInfo& other = session->device();
    if (device_record(other).same_kind(device_record(device))) continue;
    return fail(
        ErrorKind::kBadInput,
        fmt::format("{} is {} with {}, {} is {} with {}: devices that differ need a run each, --device {} and "
                    "--device {}",
                    device.id, device.name, device.driver, other.id, other.name, other.driver, device.id, other.id));
  }
  for (const Session* session : sessions)
    if (request.objective == "energy" && !session->counts_energy())
      return fail(ErrorKind::kNoDevice,
                  fmt::format("{} ({}) has no energy counter that can be read; tune with --objective time",
                              session->device().id, device.name));
  for (const OpSpec& spec : request.specs) {
    KGEN_CHECK_OK(enumerate(spec, device.arch, 1).map([](auto&&) {}));
    if (request.prior != "none" && !shared.priors.contains(spec.op->name)) {
      KGEN_TRY(shared.priors[spec.op->name],
               winners_of(spec.op->name, request.prior == "shipped" ? "" : request.prior));
    }
  }
  KGEN_TRY(shared.compiler_version, shared.compiler.version(device.arch));
  shared.compiler.get_ready(device.arch, jobs);
  KGEN_TRY(shared.device_id, shared.db.intern_device(device_record(device)));
  KGEN_TRY(const std::vector<WinnerRow> winners, shared.db.winners());
  for (const WinnerRow& row : winners) {
    if (row.winner.device != shared.device_id) continue;
    if (!row.winner.range && row.winner.goal.timing == request.timing && row.winner.goal.objective == request.objective)
      shared.winners.set({row.winner.problem, row.winner.is_default, row.winner.goal.deterministic},
                         {row.winner.trial, row.trial.config});
    if (!row.winner.is_default)
      shared.winners.add(
          {row.op.op, std::string(device.arch->family), row.op.signature, row.problem.dims_key, row.trial.config});
  }
  return {};
}

// What the sessions did, as one.
TuneOutcome sum_up(const Shared& shared, std::list<Session>& sessions) {
  TuneOutcome all;
  all.timing = shared.request.timing;
  all.objective = shared.request.objective;
  all.device_name = shared.device.name;
  all.arch = std::string(shared.device.arch->name);
  all.device_id = shared.device_id;
  all.compute_units = shared.device.compute_units;
  all.interrupted = shared.stop.asked;
  std::map<std::size_t, TuneOutcome::Row> rows;
  for (Session& session : sessions) {
    Session::Done& done = session.outcome();
    const TuneOutcome& sums = done.sums;
    all.devices.push_back({session.device().id, done.rows.size(), sums.gpu_busy_seconds});
    all.device_seconds += sums.device_seconds;
    all.gpu_busy_seconds += sums.gpu_busy_seconds;
    all.gpu_timing_seconds += sums.gpu_timing_seconds;
    all.compile_seconds += sums.compile_seconds;
    all.compiled += sums.compiled;
    all.from_cache += sums.from_cache;
    all.verified += sums.verified;
    all.any_failed |= sums.any_failed;
    all.peak_bytes_per_second = std::max(all.peak_bytes_per_second, sums.peak_bytes_per_second);
    if (all.where_time_went.empty()) {
      all.where_time_went = sums.where_time_went;
    } else {
      for (std::size_t i = 0; i < sums.where_time_went.size(); ++i)
        all.where_time_went[i].seconds += sums.where_time_went[i].seconds;
    }
    rows.merge(done.rows);
  }
  for (auto& [index, row] : rows) all.rows.push_back(std::move(row));
  return all;
}

// A session for each device, each on a thread of its own. Devices that fail are taken off the list, as long as one is
// left.
Result<TuneOutcome> tune_fixed(const TuneRequest& request, std::vector<std::string>& devices, Db& db,
                               Compiler& compiler, const std::string& self,
                               const std::function<void(const TuneProgress&)>& progress,
                               const std::atomic<bool>& stop) {
  const double start = now_seconds();
  Shared shared(request, db, compiler, stop, devices.size());
  shared.many = devices.size() > 1;
  KGEN_CHECK_OK(check_request(shared));
  const int jobs =
      request.jobs > 0 ? request.jobs : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  Board board(progress, request, devices.size());
  std::list<Session> sessions;
  CompilePool pool(compiler, jobs);  // after the sessions, which its threads write to
  std::vector<Result<void>> ends(devices.size());
  std::latch started(static_cast<std::ptrdiff_t>(devices.size())), ready(1);
  bool go = false;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    Session& session =
        sessions.emplace_back(shared, pool, jobs, self, devices[i],
                              [&board, i](const TuneProgress::Work& part, bool force) { board.show(i, part, force); });
    threads.emplace_back([&, i] {
      ends[i] = session.start();
      if (!ends[i]) --shared.at_work, --shared.alive;
      started.count_down();
      ready.wait();
      if (!go) return;
      if (ends[i]) ends[i] = session.work();
      if (!ends[i] && devices.size() > 1 && !shared.stop)
        board.drop(i, fmt::format("{} is dropped{}: {}", devices[i],
                                  shared.alive > 0 ? ", and its problem goes to another device" : "",
                                  ends[i].error().message));
    });
  }
  started.wait();
  // A device that is not there is bad input; one that is there and does not start is dropped.
  Result<void> prepared;
  std::vector<Session*> usable;
  std::size_t i = 0;
  for (Session& session : sessions) {
    const Result<void>& end = ends[i++];
    if (end) {
      usable.push_back(&session);
    } else if (prepared && end.error().kind != ErrorKind::kDevice) {
      prepared = end;
    }
  }
  if (usable.empty()) prepared = ends.front();
  if (prepared) prepared = get_ready(shared, usable, jobs);
  go = prepared.has_value();
  ready.count_down();
  for (std::thread& thread : threads) thread.join();
  if (!prepared) return tl::unexpected(std::move(prepared.error()));

  std::vector<std::string> left;
  std::optional<Error> lost;
  for (std::size_t k = 0; k < devices.size(); ++k) {
    if (ends[k]) {
      left.push_back(devices[k]);
    } else if (ends[k].error().kind != ErrorKind::kDevice) {
      return tl::unexpected(std::move(ends[k].error()));
    } else {
      lost = std::move(ends[k].error());
    }
  }
  if (left.empty() && !stop && !shared.queue.all_done())
    return fail(ErrorKind::kNoDevice, lost->message + "; what was found is kept, and the same command goes on");
  if (!left.empty()) devices = std::move(left);
  TuneOutcome outcome = sum_up(shared, sessions);
  outcome.dropped = board.dropped();
  outcome.jobs = jobs;
  outcome.wall_seconds = now_seconds() - start;
  return outcome;
}

}  // namespace

TuneProgress::Tried& TuneProgress::Tried::operator+=(const Tried& other) {
  proposed += other.proposed;
  compiled += other.compiled;
  verified += other.verified;
  timed += other.timed;
  planned += other.planned;
  for (const auto& [status, count] : other.failed) failed[status] += count;
  return *this;
}

Result<TuneOutcome> tune(const TuneRequest& request, Db& db, Compiler& compiler, const std::string& self,
                         const std::function<void(const TuneProgress&)>& progress, const std::atomic<bool>& stop) {
  std::vector<std::string> devices = split(request.device, ',');
  for (const std::string& device : devices)
    if (std::count(devices.begin(), devices.end(), device) > 1)
      return fail(ErrorKind::kBadInput, fmt::format("--device {}: {} is there twice", request.device, device));
  const auto tune_part = [&](const TuneRequest& part) {
    return tune_fixed(part, devices, db, compiler, self, progress, stop);
  };
  const bool dynamic = std::any_of(request.specs.begin(), request.specs.end(),
                                   [](const OpSpec& spec) { return spec.dynamic.has_value(); });
  return dynamic ? tune_dynamic(request, db, compiler, tune_part, stop) : tune_part(request);
}

}  // namespace kgen
