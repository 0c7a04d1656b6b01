// What the worker does with its device beside verifying: leaders in turns, and races in many places. And who is blamed
// for a worker that ends.
#include "tuner/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "base/text.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "tuner/compile.h"
#include "tuner/problem.h"
#include "tuner/supervisor.h"

namespace kgen {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kPlanted = KGEN_SOURCE_DIR "/tests/tuner/planted/planted.yaml";

std::string self() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

// The host, which writes down where buffers lie and what is loaded. A place that was given back is the next one's, as
// with a GPU's driver.
class Places : public Device {
 public:
  Places() : host_(open_device("host").value()), info_(host_->info()) {}
  ~Places() override {
    for (const auto& [bytes, places] : free_)
      for (const DevicePtr place : places) host_->release(place);
  }
  const DeviceInfo& info() const override { return info_; }
  Result<DevicePtr> allocate(std::size_t bytes) override {
    std::vector<DevicePtr>& free = free_[bytes];
    if (free.empty()) {
      KGEN_TRY(free.emplace_back(), host_->allocate(bytes));
    }
    const DevicePtr place = free.back();
    free.pop_back();
    taken_[bytes].push_back(place);
    live_ += static_cast<std::int64_t>(sizes_[place] = bytes);
    most_ = std::max(most_, live_);
    return place;
  }
  void release(DevicePtr place) override {
    live_ -= static_cast<std::int64_t>(sizes_[place]);
    free_[sizes_[place]].push_back(place);
  }
  Result<void> copy(void* to, const void* from, std::size_t bytes) override { return host_->copy(to, from, bytes); }
  Result<void> fill(DevicePtr to, unsigned char value, std::size_t bytes, Stream stream) override {
    return host_->fill(to, value, bytes, stream);
  }
  Result<std::unique_ptr<Module>> load(std::span<const std::byte> code) override {
    loads_.emplace_back(reinterpret_cast<const char*>(code.data()), code.size());
    return host_->load(code);
  }
  Result<void> launch(Function function, const LaunchShape& shape, void** params, Stream stream) override {
    if (broken_) return fail(ErrorKind::kDevice, "broken");
    return host_->launch(function, shape, params, stream);
  }
  Result<void> synchronize(Stream stream) override { return host_->synchronize(stream); }
  Result<void> record(Event& event, Stream stream) override { return host_->record(event, stream); }
  Result<double> elapsed_us(Event from, Event to) override { return host_->elapsed_us(from, to); }
  Result<Graph> capture(const std::function<Result<void>(Stream)>& work) override { return host_->capture(work); }
  Result<void> replay(Graph graph, Stream stream) override { return host_->replay(graph, stream); }

  std::unique_ptr<Device> host_;
  DeviceInfo info_;
  std::map<std::size_t, std::vector<DevicePtr>> taken_;  // by size, in order
  std::map<std::size_t, std::vector<DevicePtr>> free_;
  std::map<DevicePtr, std::size_t> sizes_;
  std::int64_t live_ = 0, most_ = 0;
  std::vector<std::string> loads_;
  bool broken_ = false;
};

class WorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string yaml = "{kgen: 1, ops: [{op: " + std::string(kPlanted) +
                             ", dtype: fp32, problems: [{rows: 700, terms: 40}], tune: {params: {items: [32, 64, 128], "
                             "fault: [none]}}}]}";
    CompilerOptions options;
    options.cache_folder = KGEN_BINARY_DIR "/planted_cache";
    options.self = self();
    const auto compiler = make_compiler(options);
    const OpSpec spec = parse_spec_text(yaml, "worker.yaml").value().front();
    const Arch arch = device_.info().arch;
    check_ = reference_case(spec, arch, *compiler).value();
    const Space space = enumerate(spec, arch).value();
    for (const Candidate& candidate : space.candidates) {
      const KernelSource source = emit(spec, arch, candidate).value();
      const CompileResult compiled = compiler->compile(source.text, arch).value();
      ASSERT_EQ(compiled.status, CompileStatus::kCompiled) << compiled.log;
      TryRequest request{.ticket = static_cast<std::int64_t>(requests_.size()) + 1};
      request.bound = bind(source.plan, spec.problem.dims).value();
      request.limits = candidate_limits(spec, arch, candidate.key(), request.bound).value();
      request.code_path = code_file(compiled.code).value();
      request.idle = true;
      requests_.push_back(std::move(request));
    }
    ASSERT_THAT(requests_, SizeIs(3));
  }
  // Which candidates were loaded since, by their place in requests_.
  std::vector<int> loaded() const {
    std::vector<int> order;
    for (const std::string& code : device_.loads_)
      for (std::size_t i = 0; i < requests_.size(); ++i)
        if (read_file(requests_[i].code_path).value() == code) order.push_back(static_cast<int>(i));
    return order;
  }

  Places device_;
  CheckCase check_;
  std::vector<TryRequest> requests_;
};

TEST_F(WorkerTest, LeadersTakeTurnsUntilMoreTellsNothing) {
  Examiner examiner(device_, nullptr);
  ASSERT_TRUE(examiner.setup(check_, TimingMode::kWarm, [] {}).has_value());
  EXPECT_FALSE(examiner.take_turns()) << "nobody leads yet";
  for (const TryRequest& request : requests_) ASSERT_TRUE(examiner.attempt(request).verdict.passed);
  EXPECT_THAT(examiner.standings(), IsEmpty()) << "an attempt holds its result back for nothing";
  int turns = 0;
  while (examiner.take_turns()) ASSERT_LT(++turns, 1000);
  EXPECT_GT(turns, 20);
  std::set<std::int64_t> told;
  for (const Standing& standing : examiner.standings()) {
    EXPECT_GT(standing.median_us, 0);
    told.insert(standing.ticket);
  }
  EXPECT_FALSE(told.empty());
  for (const std::int64_t ticket : told) EXPECT_TRUE(ticket >= 1 && ticket <= 3);

  TryRequest finalist = requests_[0];
  finalist.idle = false;
  ASSERT_TRUE(examiner.attempt(finalist).verdict.passed);
  EXPECT_FALSE(examiner.take_turns()) << "finals wait for nobody";
  EXPECT_THAT(examiner.standings(), IsEmpty());
}

TEST_F(WorkerTest, AFaultInATurnIsNobodysEnd) {
  Examiner examiner(device_, nullptr);
  ASSERT_TRUE(examiner.setup(check_, TimingMode::kWarm, [] {}).has_value());
  ASSERT_TRUE(examiner.attempt(requests_[0]).verdict.passed);
  device_.broken_ = true;
  EXPECT_FALSE(examiner.take_turns());
  device_.broken_ = false;
  EXPECT_TRUE(examiner.attempt(requests_[1]).verdict.passed);
}

TEST_F(WorkerTest, EachSittingOfARaceHasPlacesOfItsOwn) {
  device_.info_.memory_bytes = std::int64_t{1} << 40;
  Examiner examiner(device_, nullptr);
  ASSERT_TRUE(examiner.setup(check_, TimingMode::kWarm, [] {}).has_value());
  device_.loads_.clear();
  RaceRequest race{
      .candidates = {requests_[0], requests_[1], requests_[2]}, .rounds = 20, .sittings = 5, .preparing_seconds = 1e9};
  double seconds = 0;
  const auto result = examiner.race(race, seconds);
  ASSERT_TRUE(result.has_value()) << result.error().message;
  for (const Timing& timing : result->timings) EXPECT_THAT(timing.sittings_us, SizeIs(5));
  // The inputs and their pristine copy, of the same size, in each of five sittings.
  const auto arenas = std::find_if(device_.taken_.begin(), device_.taken_.end(),
                                   [](const auto& taken) { return taken.first > 700 * 40 * 4; });
  ASSERT_NE(arenas, device_.taken_.end());
  const std::set<DevicePtr> places(arenas->second.begin(), arenas->second.end());
  EXPECT_THAT(arenas->second, SizeIs(10));
  EXPECT_THAT(places, SizeIs(10));
  // Code is loaded beginning with another candidate each time.
  EXPECT_THAT(loaded(), ElementsAre(0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2, 1, 2, 0));
}

TEST_F(WorkerTest, ACardOfLittleMemoryHoldsTwoSittingsAtMost) {
  device_.info_.memory_bytes = 1;
  Examiner examiner(device_, nullptr);
  ASSERT_TRUE(examiner.setup(check_, TimingMode::kCold, [] {}).has_value());
  const std::int64_t one = device_.live_;
  RaceRequest race{.candidates = {requests_[0], requests_[1]}, .rounds = 20, .sittings = 5, .preparing_seconds = 1e9};
  double seconds = 0;
  ASSERT_TRUE(examiner.race(race, seconds).has_value());
  EXPECT_LT(device_.most_, 5 * one / 2);
}

TEST_F(WorkerTest, WhatIsDoneDuringARaceIsCalledUntilItEndsAndMayEndIt) {
  Supervisor supervisor(self(), "host", 30);
  ASSERT_TRUE(supervisor.start().has_value());
  supervisor.use(check_, TimingMode::kWarm);
  const RaceRequest race{.candidates = {requests_[0], requests_[1]}, .rounds = 9};
  int calls = 0;
  const auto raced = supervisor.race(race, [&]() -> Result<void> {
    ++calls;
    return {};
  });
  ASSERT_TRUE(raced.has_value()) << raced.error().message;
  EXPECT_GT(calls, 1);
  const auto ended = supervisor.race(race, []() -> Result<void> { return fail(ErrorKind::kInternal, "no more"); });
  ASSERT_FALSE(ended.has_value());
  EXPECT_EQ(ended.error().message, "no more");
  EXPECT_TRUE(supervisor.race(race).has_value()) << "another worker goes on";
}

// The worker of these tests (session_main.cpp) ends, or goes silent, when it is asked for the second time.
class Blame : public WorkerTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void TearDown() override {
    unsetenv("KGEN_TEST_UNSTARTED");
    unsetenv("KGEN_TEST_UNSTARTED_STATE");
    std::filesystem::remove(state_);
  }
  const std::string state_ = "/tmp/kgen_unstarted_" + std::to_string(::getpid());
};
INSTANTIATE_TEST_SUITE_P(Ways, Blame, ::testing::Values("end", "silence"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Blame, WhoWasNotStartedIsAskedAgain) {
  setenv("KGEN_TEST_UNSTARTED", GetParam(), 1);
  setenv("KGEN_TEST_UNSTARTED_STATE", state_.c_str(), 1);
  Supervisor supervisor(self(), "host", 2);
  ASSERT_TRUE(supervisor.start().has_value());
  supervisor.use(check_, TimingMode::kWarm);
  for (int i = 0; i < 2; ++i) {
    supervisor.submit(requests_[static_cast<std::size_t>(i)]);
    const auto ended = supervisor.next(60, -1);
    ASSERT_TRUE(ended.has_value() && ended->has_value());
    EXPECT_TRUE((*ended)->verdict.passed) << (*ended)->reason;
    EXPECT_EQ((*ended)->ticket, i + 1);
  }
  EXPECT_TRUE(std::filesystem::exists(state_)) << "the first worker did not end";
}

}  // namespace
}  // namespace kgen
