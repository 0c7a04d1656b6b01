#include "cli/slurm.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <set>
#include <thread>

#include "base/hash.h"
#include "base/text.h"
#include "tuner/process.h"

namespace kgen {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::seconds(5);             // squeue is a burden to the controller of a large cluster
constexpr auto kControllerAway = std::chrono::minutes(10);  // before it is given up
constexpr auto kCancel = std::chrono::seconds(40);          // that cancelled jobs get to end; KillWait is 30 s

// The same text for every run: whatever differs reaches it as arguments.
constexpr std::string_view kJob = R"(#!/bin/sh
# One shard of a kgen tune. Arguments: the folder of the shards, how many there are, and the command.
folder=$1 shards=$2
shift 2
exec "$@" --shard "$SLURM_ARRAY_TASK_ID/$shards" --db "$folder/$SLURM_ARRAY_TASK_ID-of-$shards.db" --json
)";

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// {1, 2, 3, 7} → "1-3,7".
std::string ranges(const std::set<int>& numbers) {
  Words parts;
  for (auto at = numbers.begin(); at != numbers.end();) {
    const int first = *at;
    int last = first;
    while (++at != numbers.end() && *at == last + 1) last = *at;
    parts.push_back(first == last ? std::to_string(first) : fmt::format("{}-{}", first, last));
  }
  return join(parts, ",");
}

// sbatch and its kin; nothing but stdout and stderr together.
Result<RunResult> slurm(const Words& argv) {
  return run_program(argv, {.timeout_seconds = 120, .output_bytes = std::size_t{16} << 20});
}
bool succeeded(const Result<RunResult>& run) { return run && run->end == RunResult::End::kExited && run->code == 0; }

class Array {
 public:
  Array(const SlurmRun& run, const std::function<void(const std::string&)>& show, const std::atomic<bool>& stop)
      : run_(run), show_(show), stop_(stop), folder_(fs::absolute(run.db_path).string() + ".shards") {}

  Result<SlurmOutcome> tune() {
    if (find_program("sbatch").empty())
      return fail(ErrorKind::kBadInput,
                  "--slurm: there is no sbatch here; run it where jobs are submitted, or give --shard i/n to the jobs "
                  "of another scheduler and merge their databases with 'kgen db merge'");
    outcome_.shards = run_.shards;
    outcome_.rows = Json::array();
    KGEN_CHECK_OK(settle());
    auto watched = watch();
    // Whatever has happened: what there is is merged.
    KGEN_CHECK_OK(merge());
    if (!watched) return tl::unexpected(std::move(watched.error()));
    take_results();
    outcome_.wall_seconds = seconds_since(start_);
    if (outcome_.done == run_.shards) {
      std::error_code error;
      fs::remove_all(folder_, error);
    }
    return std::move(outcome_);
  }

 private:
  std::string file(int shard, std::string_view extension) const {
    return fmt::format("{}/{}-of-{}.{}", folder_, shard, run_.shards, extension);
  }
  std::string request() const {
    return hash_text(join(run_.command, "\n")) + "\n" + run_.spec_hash + "\n" + std::to_string(run_.shards) + "\n";
  }

  // A folder of this request, with a database in each place that knows what the whole one knows.
  Result<void> settle() {
    std::error_code error;
    if (fs::exists(folder_, error)) {
      const auto before = read_file(folder_ + "/request");
      if (!before)
        return fail(ErrorKind::kBadInput, fmt::format("{}: is not a folder of shards; move it away", folder_));
      KGEN_TRY(job_, job_of_before());
      if (*before != request()) {
        if (!job_.empty())
          return fail(ErrorKind::kBadInput,
                      fmt::format("{}: the shards of another request are still at work there (job {}); cancel it, wait "
                                  "for it, or give another --db",
                                  folder_, job_));
        KGEN_CHECK_OK(merge());
        fs::remove_all(folder_, error);
      }
    }
    fs::create_directories(folder_, error);
    if (error) return fail(ErrorKind::kIo, fmt::format("{}: cannot create the folder: {}", folder_, error.message()));
    KGEN_CHECK_OK(write_file(folder_ + "/job.sh", kJob));
    {
      KGEN_TRY(Db whole, Db::open(run_.db_path, DbMode::kReadWrite));
      KGEN_TRY(const DbInfo info, whole.info());
      known_trials_ = info.trials;
    }
    for (int shard = 1; shard <= run_.shards && known_trials_ > 0; ++shard) {
      if (fs::exists(file(shard, "db"), error)) continue;
      const std::string part = file(shard, "db") + ".part";
      if (fs::copy_file(run_.db_path, part, fs::copy_options::overwrite_existing, error))
        fs::rename(part, file(shard, "db"), error);
      if (error) return fail(ErrorKind::kIo, fmt::format("{}: cannot be written: {}", part, error.message()));
    }
    return write_file(folder_ + "/request", request());
  }

  // What `kgen tune --json` of a shard that came to its end said.
  std::optional<Json> result(int shard) const {
    const auto text = read_file(file(shard, "json"));
    if (!text) return std::nullopt;
    Json json = Json::parse(*text, nullptr, false);
    if (!json.is_object() || !json.contains("rows") || json.value("interrupted", true)) return std::nullopt;
    return json;
  }
  std::set<int> not_done() const {
    std::set<int> shards;
    for (int shard = 1; shard <= run_.shards; ++shard)
      if (!done_.contains(shard)) shards.insert(shard);
    return shards;
  }
  void look_for_done() {
    for (const int shard : not_done())
      if (!queued_.contains(shard) && result(shard)) done_.insert(shard);
  }

  struct Task {
    int shard = 0;
    std::string state, reason;  // "R", "PD", …
  };
  // nullopt: the controller does not answer.
  static std::optional<std::vector<Task>> tasks_of(const std::string& job) {
    const auto run = slurm({"squeue", "--noheader", "--array", "--jobs=" + job, "--format=%K|%t|%r"});
    std::vector<Task> tasks;
    if (!succeeded(run)) {  // a job that ended a while ago is unknown
      if (run && run->output.find("Invalid job id") != std::string::npos) return tasks;
      return std::nullopt;
    }
    for (const std::string& line : split(run->output, '\n')) {
      const Words fields = split(trim(line), '|');
      if (fields.size() == 3) tasks.push_back({std::atoi(fields[0].c_str()), fields[1], fields[2]});
    }
    return tasks;
  }

  // The array that an earlier run has submitted, if something of it is left.
  Result<std::string> job_of_before() const {
    const auto text = read_file(folder_ + "/job");
    if (!text || trim(*text).empty()) return std::string();
    const std::string job(trim(*text));
    const auto tasks = tasks_of(job);
    if (!tasks)
      return fail(ErrorKind::kIo, fmt::format("squeue does not tell what became of job {}; try again later", job));
    return tasks->empty() ? std::string() : job;
  }

  Result<void> submit(const std::set<int>& shards) {
    std::string folder;  // '%' begins a pattern of sbatch
    for (const char c : folder_) folder += c == '%' ? std::string("%%") : std::string(1, c);
    Words argv{"sbatch",
               "--parsable",
               "--requeue",
               "--job-name=kgen",
               "--open-mode=truncate",
               "--array=" + ranges(shards),
               fmt::format("--output={}/%a-of-{}.json", folder, run_.shards),
               fmt::format("--error={}/%a-of-{}.log", folder, run_.shards)};
    if (!run_.partition.empty()) argv.push_back("--partition=" + run_.partition);
    argv.insert(argv.end(), run_.arguments.begin(), run_.arguments.end());
    argv.insert(argv.end(), {folder_ + "/job.sh", folder_, std::to_string(run_.shards)});
    argv.insert(argv.end(), run_.command.begin(), run_.command.end());
    KGEN_TRY(const RunResult run, slurm(argv));
    if (run.end != RunResult::End::kExited || run.code != 0)
      return fail(ErrorKind::kBadInput,
                  fmt::format("sbatch {}: {}", describe_end(run, 120), trim(split(trim(run.output), '\n').back())));
    // "17" or "17;cluster", after what a site's plugins may print.
    job_ = std::string(trim(split(trim(run.output), '\n').back()));
    job_ = job_.substr(0, job_.find(';'));
    ++outcome_.submitted;
    return write_file(folder_ + "/job", job_ + "\n");
  }

  // Until every shard is done. The error says why that will not be; a stop is none.
  Result<void> watch() {
    look_for_done();
    for (;;) {
      const std::size_t before = done_.size();
      if (job_.empty()) {
        const std::set<int> shards = not_done();
        if (shards.empty() || stop_) return {};
        KGEN_CHECK_OK(submit(shards));
      }
      KGEN_CHECK_OK(watch_job());
      job_.clear();
      queued_.clear();
      look_for_done();
      if (stop_ || not_done().empty()) return {};
      if (done_.size() == before) {
        const int first = *not_done().begin();
        const auto log = read_file(file(first, "log"));
        const std::string last = log ? std::string(trim(split(trim(*log), '\n').back())) : "";
        return fail(ErrorKind::kCheckFailed,
                    fmt::format("{} of {} shards did not come to their end, the first of them says: {}; their logs are "
                                "in {}; the same command goes on",
                                not_done().size(), run_.shards, last.empty() ? "nothing" : last, folder_));
      }
      show_(fmt::format("{} shards were lost and are submitted again", not_done().size()));
    }
  }

  Result<void> watch_job() {
    auto answered = Clock::now();
    std::optional<Clock::time_point> cancelled;
    for (;;) {
      if (stop_ && !cancelled) {
        slurm({"scancel", job_});
        cancelled = Clock::now();
      }
      const auto tasks = tasks_of(job_);
      if (tasks) {
        answered = Clock::now();
        queued_.clear();
        for (const Task& task : *tasks) queued_.insert(task.shard);
        look_for_done();
        show_(line(*tasks));
        if (tasks->empty()) return {};
      } else if (Clock::now() - answered > kControllerAway) {
        return fail(ErrorKind::kIo,
                    fmt::format("squeue has not answered for 10 minutes; job {} may go on, and the same "
                                "command finds it again",
                                job_));
      }
      if (cancelled && Clock::now() - *cancelled > kCancel) return {};
      for (int i = 0; i < 10 && (!stop_ || cancelled); ++i) std::this_thread::sleep_for(kPoll / 10);
    }
  }

  std::string line(const std::vector<Task>& tasks) const {
    constexpr std::size_t kBar = 20;
    const auto running = std::count_if(tasks.begin(), tasks.end(), [](const Task& task) { return task.state != "PD"; });
    const auto waiting = static_cast<std::ptrdiff_t>(tasks.size()) - running;
    const std::size_t filled = kBar * done_.size() / static_cast<std::size_t>(run_.shards);
    std::string text = fmt::format("[{}{}] job {}: {}/{} shards done, {} running, {} waiting", std::string(filled, '#'),
                                   std::string(kBar - filled, '-'), job_, done_.size(), run_.shards, running, waiting);
    if (running == 0 && waiting > 0) text += fmt::format(" ({})", tasks.front().reason);
    return text;
  }

  Result<void> merge() {
    KGEN_TRY(Db whole, Db::open(run_.db_path, DbMode::kReadWrite));
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder_, error)) {
      if (entry.path().extension() != ".db") continue;
      KGEN_TRY(const Merged merged, whole.merge(entry.path().string()));
      outcome_.merged.added += merged.added;
      outcome_.merged.known += merged.known;
      outcome_.merged.winners += merged.winners;
    }
    return {};
  }

  void take_results() {
    for (const int shard : done_) {
      const auto json = result(shard);
      if (!json) continue;
      ++outcome_.done;
      for (const Json& row : json->at("rows")) outcome_.rows.push_back(row);
      outcome_.device = json->value("device", "");
      outcome_.arch = json->value("arch", "");
      outcome_.device_seconds += json->value("device_seconds", 0.0);
      outcome_.verified += json->value("verified", std::int64_t{0});
      outcome_.any_failed |= json->value("any_failed", false);
    }
  }

  const SlurmRun& run_;
  const std::function<void(const std::string&)>& show_;
  const std::atomic<bool>& stop_;
  const std::string folder_;
  const Clock::time_point start_ = Clock::now();
  std::string job_;       // the array that is watched; "" = none
  std::set<int> queued_;  // shards of it that Slurm still has
  std::set<int> done_;
  std::int64_t known_trials_ = 0;
  SlurmOutcome outcome_;
};

}  // namespace

Result<SlurmOutcome> tune_on_slurm(const SlurmRun& run, const std::function<void(const std::string&)>& show,
                                   const std::atomic<bool>& stop) {
  return Array(run, show, stop).tune();
}

}  // namespace kgen
