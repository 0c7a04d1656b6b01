#include "tuner/worker.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "base/text.h"
#include "tuner/session.h"
#include "tuner/stats.h"

// Everything that crosses the pipe, spelled once for both directions: to_json and from_json of the library.
namespace kgen {

using Json = nlohmann::json;

// JSON has no infinities and no NaN; error ratios do.
static Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}
static double number(const Json& json) {
  if (json.is_number()) return json.get<double>();
  const auto text = json.get<std::string>();
  return text == "nan" ? NAN : text == "inf" ? HUGE_VAL : -HUGE_VAL;
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(BoundParam, name, role, dtype, present, shape, strides, bytes, value, default_value,
                                   align, of)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(BoundStep, kernel, prepare, grid, block, lds_bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TensorMapShape, dtype, rank, pixels, shape, strides, box, steps, lower, upper)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(BoundPlan, params, maps, steps, workspace_bytes, prepared_bytes, flops, bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CheckCase::Fill, distribution, a, b)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CheckCase::Output, name, factor, u_out, tiny, l2_limit)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CheckCase::Stage, name, items, width)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CheckCase, code_paths, problem, fills, outputs, stages, projected, projection_length,
                                   seed, rotate)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TryRequest, ticket, code_path, bound, limits, repeats, measure, idle, best_us)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(VendorCall, op, a, b, bias, addend, d, in, out, bias_type, addend_type, alpha, beta,
                                   activation, addend_last, batch, m, n, k, lda, ldb, ldc, ldd, batch_stride_a,
                                   batch_stride_b, batch_stride_c, batch_stride_d, b_nk, x, x_strides, weight,
                                   weight_strides, y, y_strides, addend_strides, pad, stride, dilation, groups)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RaceRequest, candidates, rounds, energy_rounds, sittings, preparing_seconds, narrow,
                                   against_vendor, vendor)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SampleState, clock_mhz, temperature_c, throttled)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Timing, samples_us, sittings_us, states, median_us, mad_us, stopped_early, clock_mhz,
                                   temperature_c, throttle)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Energy, samples_uj, median_uj, mad_uj)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(VendorResult, library, note, algorithms, algorithm, max_error_ratio, relative_l2,
                                   timing)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RaceResult, timings, energies, vendor)

static void to_json(Json& json, const Verdict& verdict) {
  json = {{"passed", verdict.passed},
          {"reason", verdict.reason},
          {"max_error_ratio", number(verdict.max_error_ratio)},
          {"relative_l2", number(verdict.relative_l2)},
          {"launch_us", verdict.launch_us}};
  if (verdict.same_bits) json["same_bits"] = *verdict.same_bits;
}
static void from_json(const Json& json, Verdict& verdict) {
  json.at("passed").get_to(verdict.passed);
  json.at("reason").get_to(verdict.reason);
  verdict.max_error_ratio = number(json.at("max_error_ratio"));
  verdict.relative_l2 = number(json.at("relative_l2"));
  json.at("launch_us").get_to(verdict.launch_us);
  if (json.contains("same_bits")) verdict.same_bits = json.at("same_bits").get<bool>();
}
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Standing, ticket, median_us)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TryResult::Process, cpu_seconds, page_faults, waits, preemptions)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TryResult, ticket, status, reason, verdict, timing, verify_seconds, load_seconds,
                                   timing_seconds, seconds, process, receive_seconds, answer_seconds)

namespace {

// Names and texts of a database need not be UTF-8; a message must be.
std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

constexpr std::size_t kLeaders = 4;
constexpr double kLeaderReach = 1.1;        // of the fastest leader
constexpr int kRoundsAtOnce = 4;            // between looks at what waits; 1 of kernels that are not
constexpr double kShortUs = 500;            // short
constexpr std::size_t kEnoughRounds = 400;  // after which more tell nothing
constexpr double kTellSeconds = 0.05;       // between standings
constexpr int kSittingsOfAll = 6;
constexpr std::int64_t kSittingsPart = 8;  // of the device's memory that past sittings may hold: an eighth

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TryResult::Process process_so_far() {
  struct rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return {.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime),
          .page_faults = usage.ru_minflt,
          .waits = usage.ru_nvcsw,
          .preemptions = usage.ru_nivcsw};
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

// The child's end.
class WorkerLoop {
 public:
  WorkerLoop(Device& device, std::unique_ptr<Telemetry> telemetry, MessageChannel& channel)
      : examiner_(device, std::move(telemetry)), channel_(channel) {}

  // False when the worker has to end: the device is broken for this process, or the parent is gone.
  bool handle(const Message& parts) {
    received_ = now_seconds();
    const Json message = Json::parse(parts[0]);
    const auto& op = message.at("op").get_ref<const std::string&>();
    if (op == "setup")
      return setup(message.at("case").get<CheckCase>(), static_cast<TimingMode>(message.at("timing").get<int>()));
    if (op == "try" && parts.size() == 2) {
      auto request = message.at("request").get<TryRequest>();
      if (parts[1] != params_text_) {
        params_ = Json::parse(parts[1]).get<std::vector<BoundParam>>();
        params_text_ = parts[1];
      }
      request.bound.params = params_;
      return attempt(request);
    }
    if (op == "race") return race(message.at("request").get<RaceRequest>());
    return false;
  }

 private:
  bool send(const Json& json) { return channel_.send({to_text(json)}); }

  bool setup(const CheckCase& check, TimingMode timing) {
    const double start = now_seconds();
    if (const auto done = examiner_.setup(check, timing, [&] { send({{"event", "probed"}}); }); !done) {
      send({{"event", "refused"}, {"text", one_line(done.error().message)}});
      return done.error().kind != ErrorKind::kDevice;
    }
    return send({{"event", "ready"},
                 {"text", examiner_.method()},
                 {"seconds", now_seconds() - start},
                 {"bandwidth", examiner_.bandwidth()}});
  }

  bool attempt(const TryRequest& request) {
    if (!send({{"event", "started"}, {"ticket", request.ticket}})) return false;
    const double start = now_seconds();
    TryResult result = examiner_.attempt(request);
    const double end = now_seconds();
    result.receive_seconds = start - received_;
    result.answer_seconds = answer_seconds_;
    const bool sent = send({{"event", "result"}, {"result", result}});
    answer_seconds_ = now_seconds() - end;
    return sent && result.status != TrialStatus::kCrashed && pass_time();
  }

  // The leaders in turns until something is asked.
  bool pass_time() {
    const auto tell = [&](double since) {
      return send({{"event", "standings"}, {"standings", examiner_.standings()}, {"seconds", now_seconds() - since}});
    };
    double since = now_seconds();
    bool told = true;
    while (!channel_.waiting() && examiner_.take_turns()) {
      told = false;
      if (now_seconds() - since < kTellSeconds) continue;
      if (!tell(since)) return false;
      since = now_seconds();
      told = true;
    }
    return told || tell(since);
  }

  bool race(const RaceRequest& request) {
    if (!send({{"event", "started"}, {"ticket", 0}})) return false;
    const double start = now_seconds();
    double timing_seconds = 0;
    const auto result = examiner_.race(request, timing_seconds);
    const std::string text = result ? "" : one_line(result.error().message);
    return send({{"event", "raced"},
                 {"race", result.value_or(RaceResult{})},
                 {"text", text},
                 {"timing_seconds", timing_seconds},
                 {"seconds", now_seconds() - start}}) &&
           (result.has_value() || examiner_.healthy());
  }

  Examiner examiner_;
  MessageChannel& channel_;
  std::string params_text_;  // of the last try, and what it says
  std::vector<BoundParam> params_;
  double received_ = 0, answer_seconds_ = 0;
};

}  // namespace

Examiner::Examiner(Device& device, std::unique_ptr<Telemetry> telemetry)
    : device_(device), telemetry_(std::move(telemetry)) {}

Result<void> Examiner::setup(const CheckCase& check, TimingMode timing, const std::function<void()>& probed) {
  timing_ = timing;
  leaders_.clear();
  bench_.reset();
  best_us_ = 0;
  check_ = check;
  const double start = now_seconds();
  KGEN_TRY(bench_, Bench::open(device_, check, probed));
  bench_->measurer().watch(telemetry_.get());
  setup_seconds_ = now_seconds() - start;
  if (bandwidth_ == 0) bandwidth_ = bench_->measurer().bandwidth().value_or(0);
  return {};
}

Measurer::Launch Examiner::launcher(const LoadedCandidate& candidate) {
  return [this, &candidate](int set, Stream stream) { return bench_->launch(candidate, set, stream); };
}

Result<LoadedCandidate> Examiner::load(const TryRequest& request) {
  KGEN_TRY(const std::string code, read_file(request.code_path));
  KGEN_TRY(LoadedCandidate candidate, bench_->load(request.bound, std::as_bytes(std::span(code))));
  candidate.limits = request.limits;
  return candidate;
}

// An error is a refusal or a fault of the device.
Result<void> Examiner::examine(const TryRequest& request, TryResult& result) {
  if (!request.idle) leaders_.clear();
  const double start = now_seconds();
  KGEN_TRY(LoadedCandidate candidate, load(request));
  result.load_seconds = now_seconds() - start;
  KGEN_TRY(result.verdict, bench_->verify(candidate, request.repeats));
  const double verified = now_seconds();
  result.verify_seconds = verified - start;
  result.reason = result.verdict.reason;
  if (!result.verdict.passed) {
    result.status = TrialStatus::kWrong;
    return {};
  }
  if (!request.measure) return {};
  // The request was on the way while the one before it was timed, so the parent may not have known of that one's time.
  if (best_us_ == 0 || (request.best_us > 0 && request.best_us < best_us_)) best_us_ = request.best_us;
  const MeasureLimits limits{.best_us = best_us_, .expected_us = result.verdict.launch_us};
  KGEN_TRY(result.timing, bench_->measurer().measure(timing_, launcher(candidate), bench_->sets(), limits));
  result.timing_seconds = now_seconds() - verified;
  result.status = result.timing.stopped_early ? TrialStatus::kStoppedEarly : TrialStatus::kTimed;
  if (best_us_ == 0 || result.timing.median_us < best_us_) best_us_ = result.timing.median_us;
  if (!request.idle || result.timing.stopped_early || !result.timing.throttle.empty()) return {};
  lead(std::move(candidate), result.ticket, result.timing.median_us);
  return {};
}

// Takes the candidate among the leaders if it is fast enough.
void Examiner::lead(LoadedCandidate candidate, std::int64_t ticket, double alone_us) {
  leaders_.push_back({.ticket = ticket, .alone_us = alone_us, .samples_us = {}, .candidate = std::move(candidate)});
  std::stable_sort(leaders_.begin(), leaders_.end(), [](auto& a, auto& b) { return a.alone_us < b.alone_us; });
  while (leaders_.size() > kLeaders || leaders_.back().alone_us > kLeaderReach * leaders_.front().alone_us)
    leaders_.pop_back();
}

bool Examiner::take_turns() {
  if (leaders_.empty()) return false;
  std::vector<Measurer::Launch> launches;
  std::size_t rounds = kEnoughRounds;
  for (const Leader& leader : leaders_) {
    launches.push_back(launcher(leader.candidate));
    rounds = std::min(rounds, leader.samples_us.size());
  }
  if (rounds >= kEnoughRounds) return false;
  const int at_once = leaders_.front().alone_us < kShortUs ? kRoundsAtOnce : 1;
  const auto turn = bench_->measurer().in_turns(timing_, launches, bench_->sets(), at_once);
  if (!turn) {  // nobody's trial: who is asked for next finds out whether the device still works
    leaders_.clear();
    return false;
  }
  for (std::size_t i = 0; i < leaders_.size(); ++i) {
    const std::vector<double>& samples = (*turn)[i].samples_us;
    leaders_[i].samples_us.insert(leaders_[i].samples_us.end(), samples.begin(), samples.end());
  }
  return true;
}

std::vector<Standing> Examiner::standings() const {
  std::vector<Standing> standings;
  for (const Leader& leader : leaders_)
    if (leader.samples_us.size() >= MeasureLimits::kMinRounds)
      standings.push_back({.ticket = leader.ticket, .median_us = median(leader.samples_us)});
  return standings;
}

TryResult Examiner::attempt(const TryRequest& request) {
  TryResult result{.ticket = request.ticket};
  const TryResult::Process before = process_so_far();
  const double start = now_seconds();
  if (const auto done = examine(request, result); !done) {
    result.status = healthy() ? TrialStatus::kLaunchFailed : TrialStatus::kCrashed;
    result.reason = one_line(done.error().message);
  }
  result.seconds = now_seconds() - start;
  const TryResult::Process after = process_so_far();
  result.process = {.cpu_seconds = after.cpu_seconds - before.cpu_seconds,
                    .page_faults = after.page_faults - before.page_faults,
                    .waits = after.waits - before.waits,
                    .preemptions = after.preemptions - before.preemptions};
  return result;
}

// The first time the library is asked for its algorithms, and the fastest of those that are right is kept.
Result<LoadedCandidate> Examiner::load_vendor(const VendorCall& call, std::shared_ptr<VendorKernel>& kernel,
                                              VendorResult& told) {
  if (kernel != nullptr) {
    KGEN_TRY(LoadedCandidate candidate, bench_->load(kernel));
    candidate.algorithm = told.algorithm;
    KGEN_TRY(const Verdict verdict, bench_->verify(candidate, Repeats::kNone));
    if (!verdict.passed) return fail(ErrorKind::kCheckFailed, verdict.reason);
    return candidate;
  }
  auto library = libraries_.find(call.op);
  if (library == libraries_.end())
    library = libraries_.emplace(call.op, open_vendor_library(device_.info(), call.op)).first;
  if (!library->second) return tl::unexpected(library->second.error());
  told.library = (*library->second)->name();
  KGEN_TRY(std::shared_ptr<VendorKernel> prepared, (*library->second)->prepare(call));
  KGEN_TRY(LoadedCandidate candidate, bench_->load(prepared));
  told.algorithms = prepared->algorithms();
  std::string why;
  double best_us = 0;
  for (candidate.algorithm = 0; candidate.algorithm < told.algorithms; ++candidate.algorithm) {
    const auto verdict = bench_->verify(candidate, Repeats::kNone);
    if (!verdict || !verdict->passed) {
      if (why.empty()) why = verdict ? verdict->reason : verdict.error().message;
      continue;
    }
    // The check's launch loaded code, so it tells nothing of the time.
    const MeasureLimits limits{.best_us = best_us, .expected_us = 0};
    KGEN_TRY(const Timing timing, bench_->measurer().measure(timing_, launcher(candidate), bench_->sets(), limits));
    if (best_us > 0 && timing.median_us >= best_us) continue;
    best_us = timing.median_us;
    told.algorithm = candidate.algorithm;
    told.max_error_ratio = verdict->max_error_ratio;
    told.relative_l2 = verdict->relative_l2;
  }
  if (best_us == 0) return fail(ErrorKind::kCheckFailed, fmt::format("{}: {}", told.library, why));
  candidate.algorithm = told.algorithm;
  kernel = std::move(prepared);
  return candidate;
}

Result<RaceResult> Examiner::race(const RaceRequest& request, double& timing_seconds) {
  leaders_.clear();
  const double affordable = request.preparing_seconds / std::max(setup_seconds_, 1e-3);
  const int sittings = std::max(1, static_cast<int>(std::min<double>(request.sittings, affordable)));
  RaceResult result;
  std::vector<std::vector<Timing>> parts(request.candidates.size());
  // A place that is given back is where the next sitting lies, so that sittings take place in the same two by turns
  // (H100). What they held is kept, so each has places of its own.
  struct Past {
    std::unique_ptr<Bench> bench;
    std::vector<LoadedCandidate> candidates{};
    std::int64_t bytes = 0;
  };
  std::deque<Past> past;
  std::int64_t past_bytes = 0;
  const auto forget = [&] {
    past_bytes -= past.front().bytes;
    past.pop_front();
  };
  std::vector<LoadedCandidate> candidates;
  std::vector<std::size_t> sitters(request.candidates.size());
  std::iota(sitters.begin(), sitters.end(), 0);
  std::shared_ptr<VendorKernel> vendor;
  std::vector<Timing> vendor_parts;
  timing_seconds = 0;
  for (int sitting = 0; sitting < sittings; ++sitting) {
    if (request.narrow && sitting >= kSittingsOfAll) {
      std::vector<std::vector<double>> costs(parts.size());
      for (const std::size_t i : sitters)
        for (const Timing& part : parts[i]) costs[i].push_back(part.median_us);
      const std::vector<bool> in = still_in(costs);
      std::erase_if(sitters, [&](std::size_t i) { return !in[i]; });
      if (sitters.size() == 1) break;
    }
    if (sitting > 0) {
      while (!past.empty() && past_bytes + bench_->bytes() > device_.info().memory_bytes / kSittingsPart) forget();
      auto fresh = Bench::open(device_, check_, [] {});
      for (; !fresh && healthy() && !past.empty(); fresh = Bench::open(device_, check_, [] {})) forget();
      if (!fresh) {
        if (healthy()) break;  // no memory for two
        return tl::unexpected(std::move(fresh.error()));
      }
      Past before{.bench = std::exchange(bench_, std::move(*fresh)), .candidates = std::move(candidates)};
      before.bytes = before.bench->bytes();
      for (const LoadedCandidate& candidate : before.candidates) before.bytes += candidate.scratch.bytes();
      past_bytes += before.bytes;
      past.push_back(std::move(before));
      bench_->measurer().watch(telemetry_.get());
      // Where code lies decides by up to 4 % (conv3x3 of 7 us, H100), and that follows the order of loading.
      std::rotate(sitters.begin(), sitters.begin() + 1, sitters.end());
    }
    std::vector<LoadedCandidate> loaded;
    for (const std::size_t i : sitters) {
      KGEN_TRY(LoadedCandidate candidate, load(request.candidates[i]));
      KGEN_TRY(const Verdict verdict, bench_->verify(candidate, Repeats::kNone));
      if (!verdict.passed) return fail(ErrorKind::kCheckFailed, verdict.reason);
      loaded.push_back(std::move(candidate));
    }
    const bool against_vendor = request.against_vendor && result.vendor.note.empty();
    if (against_vendor) {
      auto opponent = load_vendor(request.vendor, vendor, result.vendor);
      if (opponent) {
        loaded.push_back(std::move(*opponent));
      } else {
        if (!healthy()) return tl::unexpected(std::move(opponent.error()));
        result.vendor.note = one_line(opponent.error().message);
      }
    }
    candidates = std::move(loaded);
    std::vector<Measurer::Launch> launches;
    for (const LoadedCandidate& candidate : candidates) launches.push_back(launcher(candidate));
    const double start = now_seconds();
    KGEN_TRY(std::vector<Timing> timings,
             bench_->measurer().in_turns(timing_, launches, bench_->sets(), std::max(1, request.rounds / sittings)));
    for (std::size_t i = 0; i < timings.size(); ++i)
      (i < sitters.size() ? parts[sitters[i]] : vendor_parts).push_back(std::move(timings[i]));
    if (request.energy_rounds > 0 && sitting == 0) {  // the one that always takes place
      KGEN_TRY(result.energies,
               bench_->measurer().energy_in_turns(timing_, launches, bench_->sets(), request.energy_rounds));
    }
    timing_seconds += now_seconds() - start;
  }
  for (std::vector<Timing>& timings : parts) result.timings.push_back(join(std::move(timings)));
  if (!vendor_parts.empty() && result.vendor.note.empty()) result.vendor.timing = join(std::move(vendor_parts));
  return result;
}

int worker_main(const std::string& device_id,
                const std::function<Result<std::unique_ptr<Device>>(const std::string&)>& open,
                const std::function<std::unique_ptr<Telemetry>(const DeviceInfo&)>& watch) {
  // The kernel ends this process with its parent even while a driver call never returns.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Ctrl-C is for the tuner: it lets the running candidate end.
  ::signal(SIGINT, SIG_IGN);
  MessageChannel channel = MessageChannel::from_stdio();
  auto device = open(device_id);
  if (!device) {
    const Json refusal{
        {"event", "refused"}, {"kind", static_cast<int>(device.error().kind)}, {"text", device.error().message}};
    channel.send({to_text(refusal)});
    return exit_code(device.error().kind);
  }
  const DeviceInfo& info = (*device)->info();
  auto telemetry = watch(info);
  const Json hello{{"event", "hello"},
                   {"counts_energy", telemetry != nullptr && telemetry->read().energy_uj.has_value()},
                   {"id", info.id},
                   {"name", info.name},
                   {"arch", std::string(info.arch->name)},
                   {"arch_name", info.arch_name},
                   {"driver", info.driver},
                   {"uuid", info.uuid},
                   {"compute_units", info.compute_units},
                   {"memory_bytes", info.memory_bytes},
                   {"l2_bytes", info.l2_bytes},
                   {"clock_khz", info.clock_khz},
                   {"lds_per_block", info.lds_per_block}};
  if (!channel.send({to_text(hello)})) return 0;
  bool broken = false;
  {
    WorkerLoop loop(**device, std::move(telemetry), channel);
    while (auto message = channel.receive()) {
      try {
        if (!message->empty() && loop.handle(*message)) continue;
      } catch (const Json::exception& error) {
        fmt::print(stderr, "bad message: {}\n", error.what());
      }
      broken = true;
      break;
    }
    // A faulted driver may hang in its own clean-up, so nothing is destroyed.
    if (broken) std::_Exit(1);
  }
  return 0;
}

Result<Worker> Worker::start(const std::string& self, const std::string& device, double timeout_seconds) {
  const std::vector<std::string> argv{self, "__worker", device};
  KGEN_TRY(ChildProcess child, ChildProcess::start(argv));
  Worker worker(std::move(child));
  const auto received = worker.child_.receive(timeout_seconds);
  if (received.kind != ChildProcess::Received::Kind::kMessage)
    return fail(ErrorKind::kDevice, fmt::format("{}: the worker process {} while opening the device", device,
                                                received.kind == ChildProcess::Received::Kind::kTimeout
                                                    ? fmt::format("did not answer for {:g} s", timeout_seconds)
                                                    : received.why));
  try {
    const Json json = Json::parse(received.message.at(0));
    if (json.at("event") != "hello")
      return fail(static_cast<ErrorKind>(json.at("kind").get<int>()), json.at("text").get<std::string>());
    DeviceInfo& info = worker.device_;
    KGEN_TRY(info.arch, find_arch(json.at("arch").get<std::string>()));
    json.at("counts_energy").get_to(worker.counts_energy_);
    json.at("id").get_to(info.id);
    json.at("name").get_to(info.name);
    json.at("arch_name").get_to(info.arch_name);
    json.at("driver").get_to(info.driver);
    json.at("uuid").get_to(info.uuid);
    json.at("compute_units").get_to(info.compute_units);
    json.at("memory_bytes").get_to(info.memory_bytes);
    json.at("l2_bytes").get_to(info.l2_bytes);
    json.at("clock_khz").get_to(info.clock_khz);
    json.at("lds_per_block").get_to(info.lds_per_block);
  } catch (const std::exception& error) {
    return fail(ErrorKind::kInternal, fmt::format("{}: bad answer of the worker process: {}", device, error.what()));
  }
  return worker;
}

bool Worker::setup(const CheckCase& check, TimingMode timing) {
  return child_.send({to_text(Json{{"op", "setup"}, {"case", check}, {"timing", static_cast<int>(timing)}})});
}
bool Worker::submit(const TryRequest& request) {
  TryRequest lean = request;
  lean.bound.params.clear();
  return child_.send({to_text(Json{{"op", "try"}, {"request", lean}}), to_text(request.bound.params)});
}
bool Worker::race(const RaceRequest& request) {
  return child_.send({to_text(Json{{"op", "race"}, {"request", request}})});
}

WorkerEvent Worker::receive(double timeout_seconds) {
  using Kind = WorkerEvent::Kind;
  WorkerEvent event;
  auto received = child_.receive(timeout_seconds);
  if (received.kind == ChildProcess::Received::Kind::kTimeout) return event;
  if (received.kind == ChildProcess::Received::Kind::kEnded) {
    event.kind = Kind::kEnded;
    event.text = one_line(received.why);
    // No kernel raises these: somebody, or the kernel short of memory, ended the process.
    for (int signal : {SIGKILL, SIGTERM, SIGHUP, SIGINT})
      event.killed_from_outside |= event.text.starts_with(fmt::format("was killed by signal {} ", signal));
    return event;
  }
  try {
    const Json json = Json::parse(received.message.at(0));
    const auto& name = json.at("event").get_ref<const std::string&>();
    event.text = json.value("text", "");
    event.ticket = json.value("ticket", std::int64_t{0});
    event.seconds = json.value("seconds", 0.0);
    event.timing_seconds = json.value("timing_seconds", 0.0);
    if (name == "probed") event.kind = Kind::kProbed;
    if (name == "ready") {
      event.kind = Kind::kReady;
      bandwidth_ = json.at("bandwidth").get<double>();
    }
    if (name == "refused") event.kind = Kind::kRefused;
    if (name == "started") event.kind = Kind::kStarted;
    if (name == "result") {
      event.kind = Kind::kResult;
      json.at("result").get_to(event.result);
      event.ticket = event.result.ticket;
    }
    if (name == "standings") {
      event.kind = Kind::kStandings;
      json.at("standings").get_to(event.standings);
    }
    if (name == "raced") {
      event.kind = Kind::kRaced;
      json.at("race").get_to(event.race);
    }
  } catch (const std::exception& error) {
    event.kind = Kind::kEnded;
    event.text = fmt::format("bad message of the worker process: {}", error.what());
    child_.kill();
  }
  return event;
}

}  // namespace kgen
