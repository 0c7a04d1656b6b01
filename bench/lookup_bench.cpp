// What a lookup costs through the C ABI (docs/results/lookup.md): a file of 10,000 winners for the host device, made
// here with launch plans of the generator and code objects of filler bytes, for nothing is launched.
//
//   lookup_bench [--keep=FILE] [Google Benchmark's flags]     FILE is made once and used again
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/hash.h"
#include "db/db.h"
#include "device/device.h"
#include "generator/emit.h"
#include "generator/spec.h"
#include "kgen/kgen.h"
#include "tuner/problem.h"

namespace {

constexpr std::size_t kWinners = 10'000, kObjectBytes = 40'000, kCandidates = 16;
constexpr const char* kDtypes[] = {"fp32", "fp16", "bf16"};
constexpr const char* kLayouts[] = {"nk", "kn"};
constexpr const char* kEpilogues[] = {"", "bias", "silu", "bias,gelu_tanh"};
constexpr std::size_t kSignatures = std::size(kDtypes) * std::size(kLayouts) * std::size(kEpilogues);

struct Shape {
  std::int64_t m, n, k;
};

// Linear layers of ViT-base, Llama-2 7B to 70B, Qwen2.5 7B and Qwen2-VL's encoder, at sizes from one token to a page.
const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = [] {
    constexpr std::int64_t kRows[] = {1, 2, 4, 8, 16, 32, 64, 128, 197, 256, 512, 1024, 2048, 4096, 5476};
    constexpr std::pair<std::int64_t, std::int64_t> kLayers[] = {
        {768, 768},    {2304, 768},   {3072, 768},   {768, 3072},   {1000, 768},   {4096, 4096},
        {12288, 4096}, {11008, 4096}, {22016, 4096}, {4096, 11008}, {32000, 4096}, {5120, 5120},
        {15360, 5120}, {13824, 5120}, {5120, 13824}, {8192, 8192},  {10240, 8192}, {28672, 8192},
        {8192, 28672}, {3584, 3584},  {4608, 3584},  {512, 3584},   {18944, 3584}, {3584, 18944},
        {1280, 1280},  {3840, 1280},  {5120, 1280},  {1280, 5120},  {1280, 1176},  {152064, 3584}};
    std::vector<Shape> made;
    for (const auto& [n, k] : kLayers)
      for (const std::int64_t m : kRows) made.push_back({m, n, k});
    return made;
  }();
  return all;
}
std::size_t shapes_of(std::size_t signature) {
  return kWinners / kSignatures + (signature < kWinners % kSignatures ? 1 : 0);
}

struct Words {
  std::string dtype, layout, epilogue;
  explicit Words(std::size_t signature)
      : dtype(kDtypes[signature % 3]), layout(kLayouts[signature / 3 % 2]), epilogue(kEpilogues[signature / 6]) {}
  std::string attributes() const { return fmt::format("dtype={} b_layout={} epilogue={}", dtype, layout, epilogue); }
};

template <class T>
T must(kgen::Result<T> result) {
  if (!result) {
    fmt::print(stderr, "lookup_bench: {}\n", result.error().message);
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}
void must(kgen_status status) {
  if (status == KGEN_OK) return;
  fmt::print(stderr, "lookup_bench: {}\n", kgen_last_error());
  std::exit(1);
}

void make_file(const std::string& path) {
  using namespace kgen;
  const auto host = must(open_device("host"));
  Db db = must(Db::open(path, DbMode::kReadWrite));
  const std::int64_t device = must(db.intern_device(device_record(host->info())));
  std::mt19937_64 random(1);
  for (std::size_t s = 0; s < kSignatures; ++s) {
    const Words words(s);
    std::string yaml = fmt::format("kgen: 1\nops:\n  - op: gemm\n    dtype: {}\n    b_layout: {}\n    epilogue: [{}]\n",
                                   words.dtype, words.layout, words.epilogue);
    yaml += "    problems:\n";
    for (std::size_t i = 0; i < shapes_of(s); ++i)
      yaml += fmt::format("      - {{m: {}, n: {}, k: {}}}\n", shapes()[i].m, shapes()[i].n, shapes()[i].k);
    const auto specs = must(parse_spec_text(yaml, "bench.yaml"));
    const auto candidates = must(enumerate(specs.front(), host->info().arch, kCandidates)).candidates;
    std::vector<std::string> plans;
    std::vector<ObjectRecord> objects;
    for (const Candidate& candidate : candidates) {
      plans.push_back(plan_to_json(must(emit(specs.front(), host->info().arch, candidate)).plan));
      ObjectRecord object{.hash = {}, .arch = "host", .kind = "host", .bytes = {}};
      for (std::size_t i = 0; i < kObjectBytes; ++i) object.bytes.push_back(static_cast<std::byte>(random() & 0x1f));
      object.hash = hash_bytes(object.bytes);
      objects.push_back(std::move(object));
    }
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const std::size_t c = random() % candidates.size();
      const std::int64_t problem = must(db.intern_problem(
          op_record(specs[i]), {.dims_key = dims_key(*specs[i].op, specs[i].problem), .dims_json = "{}", .label = ""}));
      TrialRecord trial;
      trial.problem = problem;
      trial.device = device;
      trial.config = candidates[c].key();
      trial.timing = "cold";
      trial.time_us = 10 + static_cast<double>(random() % 1000);
      trial.samples_us.assign(20, static_cast<float>(*trial.time_us));
      const std::int64_t id = must(db.record(trial));
      must(db.publish({.problem = problem,
                       .device = device,
                       .trial = id,
                       .goal = {},
                       .plan_json = plans[c],
                       .object_hash = objects[c].hash,
                       .is_default = false},
                      objects[c]));
    }
  }
  must(db.sign(PrivateKey{}));
}

// In a process of its own, so that the memory of this one is the runtime's.
void make_file_apart(const std::string& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    make_file(path);
    std::_Exit(0);
  }
  int status = 1;
  if (child < 0 || ::waitpid(child, &status, 0) != child || status != 0) std::exit(1);
}

std::string file;

struct Handles {
  kgen_db* db = nullptr;
  std::vector<kgen_op*> ops;

  explicit Handles(const char* key = nullptr) {
    kgen_open_options options{};
    options.size = sizeof options;
    options.key = key;
    must(kgen_open_with(file.c_str(), "host", &options, &db));
  }
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    for (kgen_op* op : ops) kgen_close_op(op);
    kgen_close(db);
  }
  void open_ops() {
    while (ops.size() < kSignatures) ops.push_back(open_op(ops.size()));
  }
  kgen_op* open_op(std::size_t signature) const {
    kgen_op* op = nullptr;
    must(kgen_open_op(db, "gemm", Words(signature).attributes().c_str(), "m,n,k", &op));
    return op;
  }
  void find_all() {
    kgen_match match;
    for (std::size_t s = 0; s < kSignatures; ++s) {
      for (std::size_t i = 0; i < shapes_of(s); ++i) must(kgen_find(ops[s], &shapes()[i].m, &match));
    }
  }
};

// Shared by what needs every shape found; never closed.
const Handles& warm() {
  static Handles* handles = [] {
    auto* made = new Handles;
    made->open_ops();
    made->find_all();
    return made;
  }();
  return *handles;
}

void open_and_first_lookup(benchmark::State& state, bool with_key) {
  const std::string key = kgen::PrivateKey{}.public_key().text();
  for (auto _ : state) {
    Handles handles(with_key ? key.c_str() : nullptr);
    kgen_op* op = handles.open_op(3);
    handles.ops.push_back(op);
    kgen_match match;
    must(kgen_find(op, &shapes()[7].m, &match));
    if (match.kind != KGEN_MATCH_EXACT) std::exit(1);
  }
}
BENCHMARK_CAPTURE(open_and_first_lookup, no_key, false)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(open_and_first_lookup, required_key, true)->Unit(benchmark::kMillisecond)->UseRealTime();

// A row that no find() has chosen before, its shape exact: it is read from the file and checked.
void row_first_time(benchmark::State& state) {
  for (auto _ : state) {
    state.PauseTiming();
    auto handles = std::make_unique<Handles>();
    handles->open_ops();
    state.ResumeTiming();
    handles->find_all();
    state.PauseTiming();
    handles.reset();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(kWinners) * state.iterations());
}
BENCHMARK(row_first_time)->Unit(benchmark::kMillisecond)->Iterations(1)->UseRealTime();

// Shapes in random order, out of so many that were found before.
void hit(benchmark::State& state) {
  const Handles& handles = warm();
  struct Ask {
    kgen_op* op;
    Shape shape;
  };
  std::vector<Ask> asks;
  const auto distinct = static_cast<std::size_t>(state.range(0));
  for (std::size_t i = 0; asks.size() < distinct; ++i)
    for (std::size_t s = 0; s < kSignatures && asks.size() < distinct; ++s)
      if (i < shapes_of(s)) asks.push_back({handles.ops[s], shapes()[i]});
  while (asks.size() < 4096) asks.push_back(asks[asks.size() % distinct]);
  std::shuffle(asks.begin(), asks.end(), std::mt19937_64(static_cast<std::uint64_t>(state.thread_index())));
  std::size_t next = 0;
  kgen_match match;
  for (auto _ : state) {
    const Ask& ask = asks[next];
    if (++next == asks.size()) next = 0;
    benchmark::DoNotOptimize(kgen_find(ask.op, &ask.shape.m, &match));
    benchmark::DoNotOptimize(match);
  }
  if (match.kind != KGEN_MATCH_EXACT) std::exit(1);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(hit)->ArgName("shapes")->Arg(1)->Arg(100)->Arg(10'000);
BENCHMARK(hit)
    ->ArgName("shapes")
    ->Arg(10'000)
    ->ThreadRange(1, static_cast<int>(std::thread::hardware_concurrency()))
    ->UseRealTime();

// The first shape of each operator that was not tuned: the operator's rows are put in order for it. With their rows in
// memory, or read from the file.
void near_first_of_operator(benchmark::State& state, bool in_memory) {
  for (auto _ : state) {
    state.PauseTiming();
    auto handles = std::make_unique<Handles>();
    handles->open_ops();
    if (in_memory) handles->find_all();
    state.ResumeTiming();
    kgen_match match;
    for (kgen_op* op : handles->ops) {
      const Shape shape = {6000, 4096, 4096};
      must(kgen_find(op, &shape.m, &match));
    }
    state.PauseTiming();
    handles.reset();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(kSignatures) * state.iterations());
}
BENCHMARK_CAPTURE(near_first_of_operator, rows_in_memory, true)->Unit(benchmark::kMicrosecond)->Iterations(3);
BENCHMARK_CAPTURE(near_first_of_operator, rows_in_file, false)->Unit(benchmark::kMicrosecond)->Iterations(3);

// A shape that nobody asked for before and that was not tuned, of an operator whose rows are in memory and in order.
void near_first_time(benchmark::State& state) {
  Handles handles;
  handles.open_ops();
  handles.find_all();
  kgen_match match;
  for (kgen_op* op : handles.ops) {
    const Shape shape = {5999, 4096, 4096};
    must(kgen_find(op, &shape.m, &match));
  }
  std::int64_t m = 6000;
  std::size_t s = 0, layer = 0;
  for (auto _ : state) {
    const Shape& base = shapes()[layer * 15];
    const Shape shape = {m, base.n, base.k};
    must(kgen_find(handles.ops[s], &shape.m, &match));
    if (++s == kSignatures) {
      s = 0;
      ++m;
      if (++layer == 25) layer = 0;
    }
  }
  if (match.kind != KGEN_MATCH_NEAR) std::exit(1);
}
BENCHMARK(near_first_time)->Iterations(20'000)->Unit(benchmark::kMicrosecond);

double resident_mib() {
  std::size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1048576;
}

void report_memory() {
  const double start = resident_mib();
  Handles handles;
  const auto since = [&] { return fmt::format("{:.1f} MiB", resident_mib() - start); };
  benchmark::AddCustomContext("resident after opening", since());
  handles.open_ops();
  benchmark::AddCustomContext(fmt::format("resident with {} operator handles", kSignatures), since());
  handles.find_all();
  benchmark::AddCustomContext(fmt::format("resident with {} shapes found", kWinners), since());
}

}  // namespace

int main(int argc, char** argv) {
  bool keep = false;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with("--keep=")) {
      file = argv[i] + 7;
      keep = true;
      std::rotate(argv + i, argv + i + 1, argv + argc);
      --argc;
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  if (!keep) file = (std::filesystem::temp_directory_path() / fmt::format("lookup_bench_{}.db", ::getpid())).string();
  if (!std::filesystem::exists(file)) make_file_apart(file);
  benchmark::AddCustomContext("file", fmt::format("{} winners, {:.1f} MiB", kWinners,
                                                  static_cast<double>(std::filesystem::file_size(file)) / 1048576));
  report_memory();
  benchmark::RunSpecifiedBenchmarks();
  if (!keep) std::filesystem::remove(file);
  return 0;
}
