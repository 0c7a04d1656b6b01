// What the worker processes cost: the same candidates verified and timed through the supervisor's child process and in
// this process, and (NVIDIA) the same sources compiled through NVRTC's children against the time inside them. Both ways
// take turns, round by round; medians of the rounds are compared.
//
//   isolation_bench SPEC [DEVICE] [CANDIDATES] [ROUNDS]      one JSON document on stdout
#include <fmt/core.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/text.h"
#include "device/telemetry.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "tuner/compile_worker.h"
#include "tuner/problem.h"
#include "tuner/session.h"
#include "tuner/stats.h"
#include "tuner/supervisor.h"

namespace kgen {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Every candidate through the child, two on the way as in a tune.
Result<double> isolated(Supervisor& supervisor, const std::vector<TryRequest>& requests) {
  const double start = now_seconds();
  std::size_t sent = 0, done = 0;
  while (done < requests.size()) {
    while (sent < requests.size() && supervisor.outstanding() < 2) supervisor.submit(requests[sent++]);
    KGEN_TRY(const auto ended, supervisor.next(60, -1));
    if (!ended) return fail(ErrorKind::kDevice, "no answer of the worker");
    ++done;
  }
  return now_seconds() - start;
}

double in_process(Examiner& examiner, const std::vector<TryRequest>& requests) {
  const double start = now_seconds();
  for (const TryRequest& request : requests) examiner.attempt(request, [] { return false; });
  return now_seconds() - start;
}

Result<int> run(const std::string& self, const std::string& file, const std::string& device_id, std::size_t count,
                int rounds) {
  KGEN_TRY(const std::vector<OpSpec> specs, parse_spec(file));
  Supervisor supervisor(self, device_id, 60);
  KGEN_TRY(const DeviceInfo info, supervisor.start());
  KGEN_TRY(const auto device, open_device(info.id));
  const auto compiler = make_compiler({.self = self});
  std::string rows, sep;
  double device_in = 0, device_out = 0;
  std::vector<std::string> sources;
  for (const OpSpec& spec : specs) {
    KGEN_TRY(CheckCase check, reference_case(spec, info.arch, *compiler));
    KGEN_TRY(const Space space, enumerate(spec, info.arch));
    std::vector<TryRequest> requests;
    const std::size_t step = std::max<std::size_t>(1, space.candidates.size() / count);
    for (std::size_t i = 0; i < space.candidates.size() && requests.size() < count; i += step) {
      const Candidate& candidate = space.candidates[i];
      KGEN_TRY(const KernelSource source, emit(spec, info.arch, candidate));
      KGEN_TRY(BoundPlan bound, bind(source.plan, spec.problem.dims));
      KGEN_TRY(const CompileResult compiled, compiler->compile(source.text, info.arch));
      if (compiled.status != CompileStatus::kCompiled || !plan_usage(info, bound, compiled.code).pruned.empty())
        continue;
      TryRequest request{.ticket = static_cast<std::int64_t>(i) + 1};
      KGEN_TRY(request.limits, candidate_limits(spec, info.arch, candidate.key(), bound));
      KGEN_TRY(request.code_path, code_file(compiled.code));
      request.bound = std::move(bound);
      requests.push_back(std::move(request));
      if (sources.size() < count) sources.push_back(source.text);
    }
    Examiner examiner(*device, open_telemetry(info));
    check.seed = 1000;
    supervisor.use(check, TimingMode::kCold);
    ++check.seed;  // as the supervisor does at set-up: the same inputs
    KGEN_CHECK_OK(examiner.setup(check, TimingMode::kCold, [] {}));
    // The first rounds bring the worker up and fill the caches of the file system and the driver.
    KGEN_CHECK_OK(isolated(supervisor, requests).map([](double) {}));
    in_process(examiner, requests);
    std::vector<double> inside, outside;
    for (int round = 0; round < rounds; ++round) {
      inside.push_back(in_process(examiner, requests));
      KGEN_TRY(const double seconds, isolated(supervisor, requests));
      outside.push_back(seconds);
    }
    const double n = static_cast<double>(requests.size());
    device_in += median(inside), device_out += median(outside);
    rows += fmt::format(R"({}{{"op":"{}","dims":"{}","candidates":{},"in_process_ms":{:.3f},"isolated_ms":{:.3f}}})",
                        sep, spec.op->name, dims_key(*spec.op, spec.problem), requests.size(), median(inside) / n * 1e3,
                        median(outside) / n * 1e3);
    sep = ",";
  }
  std::string compile = "null";
  if (info.arch->vendor == Vendor::kNvidia) {
    NvrtcPool pool(self);
    KGEN_CHECK_OK(pool.info().map([](auto&&) {}));
    double wall = 0, within = 0;
    for (const std::string& source : sources) {
      const double start = now_seconds();
      KGEN_TRY(const NvrtcPool::Outcome outcome,
               pool.compile(source, {"-std=c++20", "-arch=" + std::string(info.arch->name), "-w"}, 60));
      wall += now_seconds() - start;
      within += outcome.seconds;
    }
    compile = fmt::format(R"({{"sources":{},"within_seconds":{:.4f},"seen_seconds":{:.4f},"overhead":{:.4f}}})",
                          sources.size(), within, wall, wall / within - 1);
  }
  fmt::print("{{\"device\":\"{}\",\"problems\":[{}],\"overhead\":{:.4f},\"compile\":{}}}\n", info.name, rows,
             device_out / device_in - 1, compile);
  return 0;
}

}  // namespace
}  // namespace kgen

int main(int argc, char** argv) {
  using namespace kgen;
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == "__worker" && argc > 2) return worker_main(argv[2]);
  if (first == "__compile-worker") return compile_worker_main();
  if (argc < 2) {
    fmt::print(stderr, "usage: isolation_bench SPEC [DEVICE] [CANDIDATES] [ROUNDS]\n");
    return 2;
  }
  const auto done =
      run(std::filesystem::canonical("/proc/self/exe"), argv[1], argc > 2 ? argv[2] : "auto",
          static_cast<std::size_t>(argc > 3 ? std::atoi(argv[3]) : 24), argc > 4 ? std::atoi(argv[4]) : 5);
  if (done) return *done;
  fmt::print(stderr, "{}\n", done.error().message);
  return exit_code(done.error().kind);
}
