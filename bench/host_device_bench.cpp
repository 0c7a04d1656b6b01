// What the host device itself costs: a launch, a work-item, a barrier, a shuffle.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "device/device.h"

namespace {

struct Bench {
  std::unique_ptr<kgen::Device> device = std::move(*kgen::open_device("host"));
  std::unique_ptr<kgen::Module> module;

  Bench() {
    std::ifstream file(KGEN_HOST_KERNELS, std::ios::binary);
    const std::string code{std::istreambuf_iterator<char>(file), {}};
    module = std::move(*device->load(std::as_bytes(std::span(code.data(), code.size()))));
  }
  void launch(const char* name, unsigned blocks, unsigned block, void** params) {
    const auto done = device->launch(*module->function(name), {{blocks, 1, 1}, block, 0}, params, nullptr);
    if (!done) {
      std::fprintf(stderr, "%s\n", done.error().message.c_str());
      std::exit(1);
    }
  }
};

void empty_launch(benchmark::State& state) {
  Bench bench;
  int value = 0;
  void* params[] = {&value};
  for (auto _ : state) bench.launch("nothing", state.range(0), 1, params);
}
BENCHMARK(empty_launch)->Arg(1)->Arg(64)->UseRealTime();

void work_item(benchmark::State& state) {
  Bench bench;
  int value = 0;
  void* params[] = {&value};
  for (auto _ : state) bench.launch("nothing", 1, 1024, params);
  state.counters["per_item"] =
      benchmark::Counter(1024.0 * state.iterations(), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(work_item);

// One block, so that one thread does all the switching.
void switches(benchmark::State& state, const char* kernel) {
  Bench bench;
  const int rounds = 1000;
  const auto block = static_cast<unsigned>(state.range(0));
  int value = rounds;
  void* params[] = {&value};
  for (auto _ : state) bench.launch(kernel, 1, block, params);
  state.counters["per_item"] = benchmark::Counter(1.0 * rounds * block * state.iterations(),
                                                  benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK_CAPTURE(switches, barrier, "barriers")->Arg(32)->Arg(64)->Arg(256)->Arg(1024);
BENCHMARK_CAPTURE(switches, shuffle, "shuffle_rounds")->Arg(32)->Arg(256);

}  // namespace
