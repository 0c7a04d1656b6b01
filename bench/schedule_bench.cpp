// How many compile jobs a tune keeps at work, without a GPU or a compiler: the real session, with compilations that
// sleep and a device that answers after a while. What differs between two builds is the order of work alone; figures of
// one build differ by a few percent from run to run.
//
//   schedule_bench SPEC [JOBS] [BUDGET] [RUNS]      a line a run
#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <thread>

#include "base/hash.h"
#include "tuner/process.h"
#include "tuner/session.h"

namespace kgen {
namespace {

using Json = nlohmann::json;

void sleep_ms(double ms) { std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms)); }

// In [0, 1), of a text and a purpose.
double drawn(const std::string& text, const char* purpose) {
  return static_cast<double>(std::stoull(hash_text(text + purpose).substr(0, 12), nullptr, 16)) * 0x1.0p-48;
}

// Mean ms of a compilation on one H100 machine, all of its 16 cores busy, by the text's line of its operator
// (2026-11-23).
constexpr std::pair<std::string_view, double> kCompileMs[] = {{"// op         gemm ", 560},
                                                              {"// op         conv2d ", 600},
                                                              {"// op         gptq_gemm ", 740},
                                                              {"// op         mhc_pre ", 810},
                                                              {"// op         mhc_post ", 190},
                                                              {"// op         rope ", 140},
                                                              {"// op         softmax ", 130},
                                                              {"// op         layernorm ", 230},
                                                              {"// op         silu_and_mul ", 140},
                                                              {"// op         decode_attention ", 380},
                                                              {"// op         attention ", 1260},
                                                              {"// op         conv3d_patchify ", 470},
                                                              {"// op         multi_dilation_conv ", 1140}};
constexpr double kOtherCompileMs = 300, kCompileSpread = 0.4;  // log-normal
constexpr double kCandidateMs = 4, kSetUpMs = 10, kRaceMs = 350;

class SleepingCompiler : public Compiler {
 public:
  Result<CompileResult> compile(const std::string& source, Arch) override {
    CompileResult result{.status = CompileStatus::kCompiled, .code = {}, .log = {}, .command = {}};
    const std::string words = hash_text(source);
    for (const char c : words) result.code.bytes.push_back(static_cast<std::byte>(c));
    result.code.hash = hash_bytes(result.code.bytes);
    {
      const std::lock_guard lock(mutex_);
      result.code.from_cache = !compiled_.insert(result.code.hash).second;
    }
    if (result.code.from_cache) return result;
    double ms = kOtherCompileMs;
    for (const auto& [mark, mean] : kCompileMs)
      if (source.find(mark) != std::string::npos) ms = mean;
    const double u = std::max(drawn(source, "u"), 1e-12), v = drawn(source, "v");
    const double normal = std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
    ms *= std::exp(kCompileSpread * normal - kCompileSpread * kCompileSpread / 2);
    const auto start = Clock::now();
    sleep_ms(ms);
    result.code.compile_seconds = ms / 1e3;
    const std::lock_guard lock(mutex_);
    spans_.emplace_back(seconds(start - start_), seconds(Clock::now() - start_));
    return result;
  }
  Result<std::string> version(Arch) override { return std::string("none 1.0"); }

  // Compilations under way, the mean of each second since the start.
  std::vector<double> each_second() const {
    std::vector<double> means;
    for (const auto& [from, to] : spans_)
      for (auto second = static_cast<std::size_t>(from); static_cast<double>(second) < to; ++second) {
        means.resize(std::max(means.size(), second + 1));
        const auto at = static_cast<double>(second);
        means[second] += std::min(to, at + 1) - std::max(from, at);
      }
    return means;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }
  const Clock::time_point start_ = Clock::now();
  std::vector<std::pair<double, double>> spans_;
  std::mutex mutex_;
  std::set<std::string> compiled_;
};

// Speaks as the worker of tuner/worker.h, and as an H100. Every candidate is right, and has a time of its own.
int worker() {
  MessageChannel channel = MessageChannel::from_stdio();
  const auto send = [&](const Json& json) { return channel.send({json.dump()}); };
  send({{"event", "hello"},
        {"counts_energy", false},
        {"id", "nvidia:0"},
        {"name", "no device"},
        {"arch", "sm_90"},
        {"arch_name", "sm_90"},
        {"driver", "none"},
        {"uuid", ""},
        {"compute_units", 132},
        {"memory_bytes", std::int64_t{80} << 30},
        {"l2_bytes", 50 << 20},
        {"clock_khz", 1980000},
        {"lds_per_block", 232448}});
  const auto timing = [](double us) {
    return Json{{"samples_us", std::vector<double>(8, us)},
                {"sittings_us", Json::array()},
                {"states", Json::array()},
                {"median_us", us},
                {"mad_us", 0.01 * us},
                {"stopped_early", false},
                {"clock_mhz", 1980},
                {"temperature_c", 40},
                {"throttle", ""}};
  };
  while (const auto message = channel.receive()) {
    const Json json = Json::parse(message->at(0));
    const auto op = json.at("op").get<std::string>();
    if (op == "setup") {
      send({{"event", "probed"}});
      sleep_ms(kSetUpMs);
      send({{"event", "ready"}, {"text", "none"}, {"seconds", kSetUpMs / 1e3}, {"bandwidth", 3e12}});
    } else if (op == "try") {
      const Json& request = json.at("request");
      const auto ticket = request.at("ticket").get<std::int64_t>();
      const double us = 10 + 20 * drawn(request.at("code_path").get<std::string>(), "time");
      send({{"event", "started"}, {"ticket", ticket}});
      sleep_ms(kCandidateMs);
      send({{"event", "result"},
            {"result",
             {{"ticket", ticket},
              {"status", TrialStatus::kTimed},
              {"reason", ""},
              {"verdict",
               {{"passed", true}, {"reason", ""}, {"max_error_ratio", 0}, {"relative_l2", 0}, {"launch_us", us}}},
              {"timing", timing(us)},
              {"verify_seconds", 1e-3},
              {"load_seconds", 1e-3},
              {"timing_seconds", kCandidateMs / 1e3 - 1e-3},
              {"seconds", kCandidateMs / 1e3},
              {"process", {{"cpu_seconds", 0}, {"page_faults", 0}, {"waits", 0}, {"preemptions", 0}}},
              {"receive_seconds", 0},
              {"answer_seconds", 0}}}});
    } else {
      send({{"event", "started"}, {"ticket", 0}});
      sleep_ms(kRaceMs);
      Json timings = Json::array();
      for (const Json& candidate : json.at("request").at("candidates"))
        timings.push_back(timing(10 + 20 * drawn(candidate.at("code_path").get<std::string>(), "time")));
      send({{"event", "raced"},
            {"race",
             {{"timings", timings},
              {"energies", Json::array()},
              {"vendor",
               {{"library", ""},
                {"note", ""},
                {"algorithms", 0},
                {"algorithm", 0},
                {"max_error_ratio", 0},
                {"relative_l2", 0},
                {"timing", timing(0)}}}}},
            {"text", ""},
            {"timing_seconds", kRaceMs / 1e3},
            {"seconds", kRaceMs / 1e3}});
    }
  }
  return 0;
}

Result<int> run(const std::string& self, const std::string& spec, int jobs, int budget, int runs) {
  for (int i = 0; i < runs; ++i) {
    KGEN_TRY(const TemporaryFolder folder, TemporaryFolder::make());
    KGEN_TRY(Db db, Db::open(folder.path() + "/tuned.db", DbMode::kReadWrite));
    TuneRequest request;
    KGEN_TRY(request.specs, parse_spec(spec));
    request.device = "nvidia:0";
    request.budget.candidates = budget;
    request.jobs = jobs;
    request.seed = static_cast<std::uint64_t>(i + 1);
    SleepingCompiler compiler;
    const std::atomic<bool> stop{false};
    KGEN_TRY(const TuneOutcome outcome, tune(request, db, compiler, self, nullptr, stop));
    fmt::print("{} candidates in {:.2f} s, {:.1f} a second, {:.2f} of {} jobs at work;", outcome.verified,
               outcome.wall_seconds, static_cast<double>(outcome.verified) / outcome.wall_seconds,
               outcome.compile_seconds / outcome.wall_seconds, outcome.jobs);
    for (const auto& [on, seconds] : outcome.where_time_went) fmt::print(" {} {:.2f}", on, seconds);
    fmt::print("; jobs in each second:");
    for (const double mean : compiler.each_second()) fmt::print(" {:.0f}", mean);
    for (const TuneOutcome::Row& row : outcome.rows) fmt::print("; {} {:.2f}", row.op, row.seconds);
    fmt::print("\n");
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace kgen

int main(int argc, char** argv) {
  using namespace kgen;
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == "__worker") return worker();
  if (argc < 2) {
    fmt::print(stderr, "usage: schedule_bench SPEC [JOBS] [BUDGET] [RUNS]\n");
    return 2;
  }
  const auto number = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  const auto done =
      run(std::filesystem::canonical("/proc/self/exe"), argv[1], number(2, 16), number(3, 60), number(4, 1));
  if (done) return *done;
  fmt::print(stderr, "{}\n", done.error().message);
  return exit_code(done.error().kind);
}
