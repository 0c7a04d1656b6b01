// What the worker processes cost: the same candidates verified and timed through the supervisor's child process and in
// this process, and (NVIDIA) the same sources compiled through NVRTC's children against the time inside them. Both ways
// take turns, round by round; medians of the rounds are compared. Where the difference lies is told by the parts of
// both (means of all rounds): loading, checking, samples and how many, unloading, the time between candidates, and what
// the process did. How many samples a candidate gets depends on how they scatter, which differs from process to process
// with the places in memory: `overhead_alike` counts the samples of the child at its own time each, but as many as
// there were in process.
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

// What the candidates of some rounds took, summed up.
struct Parts {
  // Seconds; between: outside of any candidate, receiving and answering of a worker included.
  double load = 0, check = 0, sampling = 0, unload = 0, between = 0, receive = 0, answer = 0;
  double samples = 0, candidates = 0;
  TryResult::Process process;

  void add(const TryResult& result) {
    load += result.load_seconds;
    check += result.verify_seconds - result.load_seconds;
    sampling += result.timing_seconds;
    unload += result.seconds - result.verify_seconds - result.timing_seconds;
    between -= result.seconds;
    receive += result.receive_seconds;
    answer += result.answer_seconds;
    samples += static_cast<double>(result.timing.samples_us.size());
    candidates += 1;
    process.cpu_seconds += result.process.cpu_seconds;
    process.page_faults += result.process.page_faults;
    process.waits += result.process.waits;
    process.preemptions += result.process.preemptions;
  }
  double seconds() const { return load + check + sampling + unload + between; }
  // With as many samples as `other` took.
  double seconds_as(const Parts& other) const {
    return samples > 0 ? seconds() + sampling * (other.samples / samples - 1) : seconds();
  }
  std::string json() const {
    const auto ms = [&](double seconds) { return seconds / candidates * 1e3; };
    const auto each = [&](auto count) { return static_cast<double>(count) / candidates; };
    return fmt::format(
        R"({{"load_ms":{:.3f},"check_ms":{:.3f},"sampling_ms":{:.3f},"samples":{:.2f},"unload_ms":{:.3f},)"
        R"("between_ms":{:.3f},"receive_ms":{:.3f},"answer_ms":{:.3f},"cpu_ms":{:.3f},"page_faults":{:.1f},"waits":{:.1f},"preemptions":{:.2f}}})",
        ms(load), ms(check), ms(sampling), each(samples), ms(unload), ms(between), ms(receive), ms(answer),
        ms(process.cpu_seconds), each(process.page_faults), each(process.waits), each(process.preemptions));
  }
};

// Every candidate through the child, two on the way as in a tune.
Result<double> isolated(Supervisor& supervisor, const std::vector<TryRequest>& requests, Parts& parts) {
  const double start = now_seconds();
  std::size_t sent = 0, done = 0;
  while (done < requests.size()) {
    while (sent < requests.size() && supervisor.outstanding() < 2) supervisor.submit(requests[sent++]);
    KGEN_TRY(const auto ended, supervisor.next(60, -1));
    if (!ended) return fail(ErrorKind::kDevice, "no answer of the worker");
    parts.add(*ended);
    ++done;
  }
  const double seconds = now_seconds() - start;
  parts.between += seconds;
  return seconds;
}

double in_process(Examiner& examiner, const std::vector<TryRequest>& requests, Parts& parts) {
  const double start = now_seconds();
  for (const TryRequest& request : requests) parts.add(examiner.attempt(request));
  const double seconds = now_seconds() - start;
  parts.between += seconds;
  return seconds;
}

// Microseconds that displacing the caches takes before a sample: data alone, and on a GPU code as well.
Result<std::string> displacing(Device& device, Compiler& compiler, const OpSpec& spec) {
  KGEN_TRY(const CheckSources sources, check_sources(spec, device.info().arch));
  std::vector<std::unique_ptr<Module>> modules;
  for (const std::string& text : sources.texts) {
    KGEN_TRY(const CompileResult compiled, compiler.compile(text, device.info().arch));
    KGEN_TRY(modules.emplace_back(), device.load(compiled.code.bytes));
  }
  std::vector<std::string> names;
  Measurer::Displace displace;
  KGEN_TRY(displace.read_all, modules[1]->function("read_all"));
  for (std::size_t kernels = 2; kernels <= modules.size(); ++kernels) {
    if (kernels > 2) {
      KGEN_TRY(displace.code, modules[2]->function("displace_code"));
    }
    Measurer measurer(device, displace);
    std::vector<double> samples;
    Event from = nullptr, to = nullptr;
    for (int i = 0; i < 24; ++i) {
      KGEN_CHECK_OK(measurer.flush());
      KGEN_CHECK_OK(device.record(from, nullptr));
      KGEN_CHECK_OK(measurer.flush());
      KGEN_CHECK_OK(device.record(to, nullptr));
      KGEN_TRY(const double us, device.elapsed_us(from, to));
      samples.push_back(us);
    }
    names.push_back(fmt::format("{:.1f}", median(samples)));
  }
  return "[" + join(names, ",") + "]";
}

Result<int> run(const std::string& self, const std::string& file, const std::string& device_id, std::size_t count,
                int rounds) {
  KGEN_TRY(const std::vector<OpSpec> specs, parse_spec(file));
  Supervisor supervisor(self, device_id, 60);
  KGEN_TRY(const DeviceInfo info, supervisor.start());
  KGEN_TRY(const auto device, open_device(info.id));
  const auto compiler = make_compiler({.self = self});
  std::string rows, sep;
  double device_in = 0, device_out = 0, alike_in = 0, alike_out = 0;
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
    Parts first, parts_in, parts_out;
    KGEN_CHECK_OK(isolated(supervisor, requests, first).map([](double) {}));
    in_process(examiner, requests, first);
    std::vector<double> inside, outside;
    for (int round = 0; round < rounds; ++round) {
      inside.push_back(in_process(examiner, requests, parts_in));
      KGEN_TRY(const double seconds, isolated(supervisor, requests, parts_out));
      outside.push_back(seconds);
    }
    alike_in += parts_in.seconds(), alike_out += parts_out.seconds_as(parts_in);
    const double n = static_cast<double>(requests.size());
    device_in += median(inside), device_out += median(outside);
    rows += fmt::format(
        R"({}{{"op":"{}","dims":"{}","candidates":{},"in_process_ms":{:.3f},"isolated_ms":{:.3f},"in_process":{},"isolated":{}}})",
        sep, spec.op->name, dims_key(*spec.op, spec.problem), requests.size(), median(inside) / n * 1e3,
        median(outside) / n * 1e3, parts_in.json(), parts_out.json());
    sep = ",";
  }
  std::string displace = "[]", compile = "null";
  if (!specs.empty()) {
    KGEN_TRY(displace, displacing(*device, *compiler, specs.front()));
  }
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
  fmt::print(
      R"({{"device":"{}","problems":[{}],"overhead":{:.4f},"overhead_alike":{:.4f},"displace_us":{},"compile":{}}})"
      "\n",
      info.name, rows, device_out / device_in - 1, alike_out / alike_in - 1, displace, compile);
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
