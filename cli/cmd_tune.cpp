#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <regex>

#include "base/hash.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/slurm.h"
#include "generator/spec.h"
#include "tuner/problem_queue.h"
#include "tuner/process.h"
#include "tuner/search/strategy.h"
#include "tuner/session.h"

namespace kgen {
namespace {

std::atomic<bool> stop_requested = false;  // the one thing that a signal handler can reach

// The first Ctrl-C ends the run after the candidate in work; a second one ends the program at once (SA_RESETHAND).
void stop_on_signals() {
  struct sigaction action{};
  action.sa_handler = [](int) { stop_requested = true; };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  for (int signal : {SIGINT, SIGTERM}) ::sigaction(signal, &action, nullptr);
}

// "200" candidates, or "90s", "10m", "2h" for each problem.
Result<Budget> parse_budget(const std::string& text) {
  static const std::regex kForm(R"((\d{1,9})([smh]?))");
  std::smatch match;
  if (!std::regex_match(text, match, kForm) || std::stol(match[1]) == 0)
    return fail(ErrorKind::kBadInput,
                fmt::format("--budget '{}' is neither a number of candidates nor a time like 90s or 10m", text));
  const long amount = std::stol(match[1]);
  const std::string unit = match[2];
  if (unit.empty()) return Budget{.candidates = static_cast<int>(amount)};
  return Budget{.seconds = static_cast<double>(amount) * (unit == "s" ? 1 : unit == "m" ? 60 : 3600)};
}

struct Figures {
  double tflops = 0, gbps = 0, share = 0, gain = 0;  // gain: of the objective, over the default
};
Figures figures(const TuneOutcome& outcome, const TuneOutcome::Row& row) {
  Figures result;
  if (row.time_us <= 0) return result;
  result.tflops = row.flops / row.time_us / 1e6;
  result.gbps = row.bytes / row.time_us / 1e3;
  result.share = roofline_share(row.flops, row.bytes, row.time_us, row.peak_flops, outcome.peak_bytes_per_second);
  if (row.default_us > 0) result.gain = row.default_us / row.time_us;
  if (outcome.objective == "energy") result.gain = row.energy_uj > 0 ? row.default_energy_uj / row.energy_uj : 0;
  return result;
}

double share_of(const TuneOutcome& outcome, double seconds) {
  return outcome.device_seconds > 0 ? seconds / outcome.device_seconds : 0;
}

// "all" as the list of this machine's GPUs, found in a process of its own: a driver that hangs or crashes while it
// looks for its devices costs that process. Without a GPU what "auto" is.
Result<std::string> all_gpus(const Context& context) {
  constexpr double kSeconds = 120;
  const Words command{context.self, "devices", "--json"};
  KGEN_TRY(const RunResult run, run_program(command, {.timeout_seconds = kSeconds, .output_bytes = 1 << 20}));
  // A driver may have said something on stderr, which comes along.
  const std::size_t begin = std::min(run.output.find('{'), run.output.size());
  const Json json = Json::parse(run.output.substr(begin, run.output.rfind('}') + 1 - begin), nullptr, false);
  if (run.end != RunResult::End::kExited || run.code != 0 || !json.is_object())
    return fail(ErrorKind::kNoDevice, fmt::format("--device all: '{} devices' {}; name the devices, as in --device "
                                                  "nvidia:0,nvidia:1",
                                                  context.self, describe_end(run, kSeconds)));
  Words ids;
  for (const Json& device : json.at("devices"))
    if (device.at("id") != "host" && !device.at("arch").is_null()) ids.push_back(device.at("id"));
  return ids.empty() ? "auto" : join(ids, ",");
}

Json cover_json(const TuneOutcome::Cover& cover) {
  Json json{{"dim", cover.dim},
            {"first", cover.first},
            {"last", cover.last},
            {"kernels", cover.kernels},
            {"sizes", cover.sizes},
            {"regret", {{"worst", cover.worst}, {"mean", cover.mean}}},
            {"predicted_regret", {{"worst", cover.predicted_worst}, {"mean", cover.predicted_mean}}},
            {"spans", Json::array()}};
  for (const auto& span : cover.spans)
    json["spans"].push_back({{"first", span.first},
                             {"last", span.last},
                             {"config", span.config},
                             {"measured_at", span.measured_at},
                             {"time_us", span.time_us},
                             {"expected_loss", span.loss}});
  return json;
}

Json outcome_json(const TuneOutcome& outcome, const std::string& db) {
  Json json;
  json["db"] = db;
  json["device"] = outcome.device_name;
  json["arch"] = outcome.arch;
  json["timing"] = outcome.timing;
  json["objective"] = outcome.objective;
  json["peak_bytes_per_second"] = outcome.peak_bytes_per_second;
  json["wall_seconds"] = outcome.wall_seconds;
  json["devices"] = Json::array();
  for (const TuneOutcome::Device& device : outcome.devices)
    json["devices"].push_back(
        {{"id", device.id}, {"problems", device.problems}, {"busy_seconds", device.busy_seconds}});
  json["dropped"] = outcome.dropped;
  json["device_seconds"] = outcome.device_seconds;
  json["gpu_busy_seconds"] = outcome.gpu_busy_seconds;
  json["gpu_timing_seconds"] = outcome.gpu_timing_seconds;
  json["gpu_busy_share"] = share_of(outcome, outcome.gpu_busy_seconds);
  json["where_time_went"] = Json::object();
  for (const TuneOutcome::Spent& spent : outcome.where_time_went) json["where_time_went"][spent.on] = spent.seconds;
  json["jobs"] = outcome.jobs;
  json["compile_seconds"] = outcome.compile_seconds;
  json["compiled"] = outcome.compiled;
  json["from_cache"] = outcome.from_cache;
  json["verified"] = outcome.verified;
  json["interrupted"] = outcome.interrupted;
  json["any_failed"] = outcome.any_failed;
  json["rows"] = Json::array();
  for (const TuneOutcome::Row& row : outcome.rows) {
    const Figures f = figures(outcome, row);
    json["rows"].push_back({{"op", row.op},
                            {"signature", row.signature},
                            {"attributes", signature_attributes(row.signature)},
                            {"dims", dims_of_key(row.dims_key)},
                            {"label", row.label},
                            {"config", row.config},
                            {"time_us", row.time_us},
                            {"mad_us", row.mad_us},
                            {"default_us", row.default_us},
                            {"energy_uj", row.energy_uj},
                            {"default_energy_uj", row.default_energy_uj},
                            {"deterministic", row.deterministic},
                            {"flops", row.flops},
                            {"bytes", row.bytes},
                            {"peak_flops", row.peak_flops},
                            {"tflops", f.tflops},
                            {"gbps", f.gbps},
                            {"roofline", f.share},
                            {"gain", f.gain},
                            {"expected_loss", row.expected_loss ? Json(*row.expected_loss) : Json()},
                            {"candidates", row.candidates},
                            {"verified", row.verified},
                            {"seconds", row.seconds},
                            {"note", row.note}});
    if (row.cover) {
      json["rows"].back()["dims"][row.cover->dim] = {row.cover->first, row.cover->last};
      json["rows"].back()["dynamic"] = cover_json(*row.cover);
    }
  }
  return json;
}

void print_cover(const TuneOutcome::Row& row) {
  const TuneOutcome::Cover& cover = *row.cover;
  fmt::print(
      "\n{} {}: {} kernel{}, chosen from times at {} sizes (figures above: {}={})\n"
      "regret: at those sizes {:.1f} % at most, {:.1f} % on average; predicted for others {:.1f} % at most, {:.1f} % "
      "on "
      "average\n",
      row.op, row.dims_key, cover.kernels.size(), cover.kernels.size() == 1 ? "" : "s", cover.sizes.size(), cover.dim,
      cover.last, 100 * cover.worst, 100 * cover.mean, 100 * cover.predicted_worst, 100 * cover.predicted_mean);
  Table table({cover.dim, "kernel", "time us", "at", "expected loss"});
  for (const auto& span : cover.spans)
    table.add({span.first == span.last ? std::to_string(span.first) : fmt::format("{}..{}", span.first, span.last),
               span.config, number(span.time_us), std::to_string(span.measured_at),
               fmt::format("{:.1f}%", 100 * span.loss)});
  table.print();
}

// Columns of a terminal on stdout; 0: there is none.
std::size_t stdout_columns() {
  struct winsize size{};
  return ::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// What the search of one problem found, as torch's max-autotune prints it: the fastest candidates, and the default.
// Tunables that have one value in all of these are told once.
Result<void> print_autotune(const TuneOutcome& outcome, Db& db) {
  constexpr std::size_t kShown = 10;
  const TuneOutcome::Row& row = outcome.rows.front();
  KGEN_TRY(const std::vector<WinnerRow> winners, db.winners());
  const auto winner = std::find_if(winners.begin(), winners.end(), [&](const WinnerRow& each) {
    return each.winner.device == outcome.device_id && each.op.signature == row.signature &&
           each.problem.dims_key == row.dims_key && !each.winner.is_default && !each.winner.range &&
           each.winner.goal == Goal{outcome.timing, outcome.objective, row.deterministic};
  });
  if (winner == winners.end()) return {};
  KGEN_TRY(const std::vector<TrialRecord> trials, ranked(db, *winner));
  std::vector<const TrialRecord*> shown;
  for (std::size_t i = 0; i < trials.size(); ++i)
    if (i < kShown || trials[i].is_default || trials[i].config == row.config) shown.push_back(&trials[i]);
  std::map<std::string, std::size_t> users;  // of each word
  for (const TrialRecord* trial : shown)
    for (const std::string& word : split(trial->config, ' ')) ++users[word];

  Table table({"candidate", "ms", "of best", "TFLOP/s", ""});
  Words common;
  for (const TrialRecord* trial : shown) {
    const double time_us = trial->time_us.value_or(0);
    Words own, marks;
    const Words words = split(trial->config, ' ');
    for (const std::string& word : words)
      if (word == words.front() || users[word] < shown.size()) own.push_back(word);
    if (trial == shown.front())
      std::copy_if(words.begin() + 1, words.end(), std::back_inserter(common),
                   [&](const std::string& word) { return users[word] == shown.size(); });
    if (trial->config == row.config) marks.push_back("winner");
    if (trial->is_default) marks.push_back("default");
    table.add({join(own, " "), fmt::format("{:.4f}", time_us / 1e3), percent_of(*trials.front().time_us, time_us),
               number(row.flops / time_us / 1e6), join(marks, ", ")});
  }
  fmt::print("AUTOTUNE {}{} {}\n", row.op, short_attributes(winner->op), row.dims_key);
  table.print(stdout_columns());
  if (shown.size() > 1 && !common.empty()) fmt::print("all with {}\n", printable(join(common, " ")));
  fmt::print("{} of {} candidates were timed\n\n", trials.size(), row.candidates);
  return {};
}

void print_outcome(const TuneOutcome& outcome, const std::string& db) {
  const bool energy = outcome.objective == "energy";
  Words head{"op", "shape", "winner", "time us", "TFLOP/s", "GB/s", "roofline", "gain", "expected loss"};
  if (energy) head.insert(head.end() - 2, "energy uJ");
  Table table(head);
  for (const TuneOutcome::Row& row : outcome.rows) {
    const Figures f = figures(outcome, row);
    Words cells{row.label.empty() ? row.op : row.op + " " + row.label,
                row.dims_key,
                row.config.empty() ? "none"
                : row.cover
                    ? fmt::format("{} kernel{}", row.cover->kernels.size(), row.cover->kernels.size() == 1 ? "" : "s")
                    : row.config,
                number(row.time_us),
                number(f.tflops),
                number(f.gbps),
                f.share > 0 ? fmt::format("{:.0f}%", f.share * 100) : "",
                f.gain > 0 ? fmt::format("{:.2f}x", f.gain) : "",
                row.expected_loss ? fmt::format("{:.1f}%", 100 * *row.expected_loss) : ""};
    if (energy) cells.insert(cells.end() - 2, number(row.energy_uj));
    table.add(std::move(cells));
  }
  table.print(stdout_columns());
  for (const TuneOutcome::Row& row : outcome.rows) {
    if (row.cover) print_cover(row);
    if (!row.note.empty()) fmt::print("{} {}: {}\n", row.op, row.dims_key, row.note);
  }
  for (const std::string& dropped : outcome.dropped) fmt::print("{}\n", dropped);
  const std::string many = outcome.devices.size() > 1 ? fmt::format("{} x ", outcome.devices.size()) : "";
  fmt::print("\n{}{} ({}): {} candidates verified in {}; results in {}{}\n", many, outcome.device_name, outcome.arch,
             outcome.verified, human_seconds(outcome.wall_seconds), db,
             outcome.interrupted ? "; interrupted, run again to go on" : "");
  std::vector<std::string> parts;
  for (const TuneOutcome::Spent& spent : outcome.where_time_went)
    if (const double share = share_of(outcome, spent.seconds); share >= 0.015)
      parts.push_back(fmt::format("{} {:.0f}%", spent.on, share * 100));
  if (outcome.devices.size() > 1) {
    Words shares;
    for (const TuneOutcome::Device& device : outcome.devices)
      shares.push_back(fmt::format("{} {}", device.id, device.problems));
    fmt::print("problems by device: {}\n", join(shares, ", "));
  }
  fmt::print("{:.1f} candidates/s; device busy {:.0f}% of the time, timing {:.0f}%\nwaited for: {}\n",
             outcome.wall_seconds > 0 ? static_cast<double>(outcome.verified) / outcome.wall_seconds : 0,
             share_of(outcome, outcome.gpu_busy_seconds) * 100, share_of(outcome, outcome.gpu_timing_seconds) * 100,
             join(parts, ", "));
}

struct TuneFlags {
  Words files;
  std::string db_path = "tuned.db", budget, op_glob = "*", shard, partition;
  Words sbatch;
  std::int64_t array_size = 0;
  bool json = false, deterministic = false, slurm = false;
};

Result<std::vector<OpSpec>> read_specs(const TuneFlags& flags) {
  std::vector<OpSpec> specs;
  for (const std::string& file : flags.files) {
    KGEN_TRY(std::vector<OpSpec> more, parse_spec(file, flags.op_glob));
    std::move(more.begin(), more.end(), std::back_inserter(specs));
  }
  if (specs.empty())
    return fail(ErrorKind::kBadInput,
                fmt::format("no problem to tune: {} matches '--op {}'", join(flags.files, " "), flags.op_glob));
  return specs;
}

Result<TuneOutcome> run(const Context& context, TuneRequest request, const TuneFlags& flags) {
  if (!flags.budget.empty()) {
    KGEN_TRY(request.budget, parse_budget(flags.budget));
  }
  KGEN_TRY(request.specs, read_specs(flags));
  if (!flags.budget.empty())  // the command line is nearer to the user than the file
    for (OpSpec& spec : request.specs) spec.tune.budget = 0;
  for (OpSpec& spec : request.specs) spec.tune.deterministic |= flags.deterministic;
  if (!flags.shard.empty()) {
    KGEN_TRY(const Shard part, parse_shard(flags.shard));
    request.specs = take_shard(request.specs, part);
  }
  if (request.device == "all") {
    KGEN_TRY(request.device, all_gpus(context));
  }
  KGEN_TRY(Db db, Db::open(flags.db_path, DbMode::kReadWrite));
  // A compiler gets twice what a candidate may take on the device.
  const std::unique_ptr<Compiler> compiler = compiler_for(context, 2 * request.candidate_timeout_seconds);
  KGEN_TRY(TuneOutcome outcome, [&] {
    ProgressPrinter printer(stop_requested);
    return tune(request, db, *compiler, context.self, std::ref(printer), stop_requested);
  }());
  if (!flags.json && outcome.rows.size() == 1) KGEN_CHECK_OK(print_autotune(outcome, db));
  return outcome;
}

// The command line of a shard: this one without what is for the whole.
Words shard_command(const Context& context, const Words& args) {
  constexpr std::string_view kFlags[] = {"--slurm", "--json"};
  constexpr std::string_view kValued[] = {"--db", "--partition", "--array-size", "--sbatch"};
  Words command{context.self, "tune"};
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string name = args[i].substr(0, args[i].find('='));
    if (std::ranges::find(kFlags, name) != std::end(kFlags)) continue;
    if (std::ranges::find(kValued, name) == std::end(kValued)) {
      command.push_back(args[i]);
    } else if (name == args[i]) {
      ++i;
    }
  }
  return command;
}

Result<SlurmOutcome> run_slurm(const Context& context, const TuneFlags& flags, const Words& args) {
  constexpr int kMostShards = 64;  // where nobody says how many
  KGEN_TRY(const std::vector<OpSpec> specs, read_specs(flags));
  if (!flags.budget.empty()) KGEN_CHECK_OK(parse_budget(flags.budget).map([](auto&&) {}));
  SlurmRun run{.command = shard_command(context, args),
               .spec_hash = {},
               .db_path = flags.db_path,
               .shards = flags.array_size > 0 ? static_cast<int>(flags.array_size)
                                              : std::min(kMostShards, static_cast<int>(specs.size())),
               .partition = flags.partition,
               .arguments = flags.sbatch};
  for (const std::string& file : flags.files) {
    KGEN_TRY(const std::string text, read_file(file));
    run.spec_hash = hash_text(run.spec_hash + text);
  }
  ProgressPrinter printer(stop_requested);
  return tune_on_slurm(run, std::ref(printer), stop_requested);
}

int end_slurm(const SlurmOutcome& outcome, const TuneFlags& flags) {
  if (flags.json) {
    print_json(
        {{"db", flags.db_path},
         {"device", outcome.device},
         {"arch", outcome.arch},
         {"shards", outcome.shards},
         {"shards_done", outcome.done},
         {"arrays", outcome.submitted},
         {"wall_seconds", outcome.wall_seconds},
         {"device_seconds", outcome.device_seconds},
         {"verified", outcome.verified},
         {"merged",
          {{"added", outcome.merged.added}, {"known", outcome.merged.known}, {"winners", outcome.merged.winners}}},
         {"any_failed", outcome.any_failed},
         {"rows", outcome.rows}});
  } else {
    Table table({"op", "shape", "winner", "time us", "TFLOP/s", "GB/s", "gain"});
    for (const Json& row : outcome.rows) {
      Words dims;
      for (const auto& [dim, value] : row.at("dims").items()) dims.push_back(dim + "=" + value.dump());
      const double gain = row.value("gain", 0.0);
      table.add({std::string(trim(row.value("op", "") + " " + row.value("label", ""))), join(dims, " "),
                 row.value("config", "") == "" ? "none" : row.value("config", ""), number(row.value("time_us", 0.0)),
                 number(row.value("tflops", 0.0)), number(row.value("gbps", 0.0)),
                 gain > 0 ? fmt::format("{:.2f}x", gain) : ""});
    }
    table.print();
    for (const Json& row : outcome.rows)
      if (const std::string note = row.value("note", ""); !note.empty())
        fmt::print("{} {}: {}\n", row.value("op", ""), row.at("dims").dump(), note);
    fmt::print(
        "\n{} ({}): {}/{} shards done in {}, {} of device time; {} candidates verified; {} trials and {} winners "
        "merged into {}{}\n",
        outcome.device, outcome.arch, outcome.done, outcome.shards, human_seconds(outcome.wall_seconds),
        human_seconds(outcome.device_seconds), outcome.verified, outcome.merged.added, outcome.merged.winners,
        flags.db_path, outcome.done < outcome.shards ? "; interrupted, run again to go on" : "");
  }
  if (outcome.done < outcome.shards) return 128 + SIGINT;
  return outcome.any_failed ? 1 : 0;
}

}  // namespace

int cmd_tune(const Context& context, const Words& args) {
  TuneFlags flags;
  TuneRequest request;
  std::int64_t jobs = 0, seed = 1, timeout = 30;
  Options options("tune", "SPEC… [flags]",
                  "Enumerate, compile, verify, time and publish; resumes from what the database holds.");
  options.arguments("SPEC", flags.files, "ops.yaml or entry-list files");
  options.text("--db", flags.db_path, "database to write (tuned.db)");
  options.text("--device", request.device,
               "auto, host, amd:N, nvidia:N, several of them (nvidia:0,nvidia:1), or all: every GPU at once");
  options.text("--budget", flags.budget,
               "candidates (200) or time (90s, 10m) for each problem; 64 candidates by default");
  options.choice("--strategy", request.strategy, strategy_names(), "how to search");
  options.number("--jobs", jobs, 0, "compilations at once; 0: all cores");
  options.number("--timeout", timeout, 1,
                 "seconds after which a candidate on the device has hung; compilers get twice that");
  options.number("--seed", seed, 0, "of the search and of the test data");
  options.text("--op", flags.op_glob, "only operators whose name matches, e.g. 'conv*'");
  options.flag("--fresh", request.fresh, "forget what the database holds of these problems on this device");
  options.list("--warm-start", request.warm_start,
               "a database or recorded space of other devices or shapes to begin from; may be repeated");
  options.text("--prior", request.prior, "what to try first: shipped, none, or a folder that 'kgen db prior' wrote");
  options.choice("--timing", request.timing, {"cold", "warm", "graph"}, "state of the caches while timing");
  options.choice("--objective", request.objective, {"time", "energy"}, "what a winner needs the least of");
  options.flag("--deterministic", flags.deterministic, "only candidates that give the same bits on every launch");
  options.text("--shard", flags.shard, "i/n: only the i-th of n parts of the problems, as one of n machines would");
  options.flag("--slurm", flags.slurm, "run the shards as an array of Slurm jobs, watch it, merge; resumes");
  options.text("--partition", flags.partition, "of Slurm, for --slurm");
  options.number("--array-size", flags.array_size, 1, "shards for --slurm; by default one a problem, 64 at most");
  options.list("--sbatch", flags.sbatch, "one more argument for sbatch, as in --sbatch=--gpus=1; may be repeated");
  options.flag("--json", flags.json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  request.jobs = static_cast<int>(std::min<std::int64_t>(jobs, 1024));
  request.seed = static_cast<std::uint64_t>(seed);
  request.candidate_timeout_seconds = static_cast<double>(std::min<std::int64_t>(timeout, 86400));

  const bool for_slurm = !flags.partition.empty() || flags.array_size > 0 || !flags.sbatch.empty();
  if (for_slurm && !flags.slurm)
    return report(Error{ErrorKind::kBadInput, "tune: --partition, --array-size and --sbatch are for --slurm"});
  if (flags.slurm && !flags.shard.empty())
    return report(Error{ErrorKind::kBadInput, "tune: --slurm makes the shards; leave out --shard"});
  stop_on_signals();
  if (flags.slurm) {
    const auto outcome = run_slurm(context, flags, args);
    return outcome ? end_slurm(*outcome, flags) : report(outcome.error());
  }
  const auto outcome = run(context, request, flags);
  if (!outcome) return report(outcome.error());
  if (flags.json) {
    print_json(outcome_json(*outcome, flags.db_path));
  } else {
    print_outcome(*outcome, flags.db_path);
  }
  if (outcome->interrupted) return 128 + SIGINT;  // as the shell says it: what follows must not take this for done
  return outcome->any_failed ? 1 : 0;
}

}  // namespace kgen
