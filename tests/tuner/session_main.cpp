// The session's children are this program again, as they are the kgen binary in the product.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <string_view>
#include <thread>

#include "tuner/compile.h"
#include "tuner/process.h"
#include "tuner/session.h"

namespace kgen {
namespace {

// The host with a clock and an energy counter that go by the block size of what is launched, as if it were a card:
// blocks of 32 are the fastest and the hungriest.
class MeteredDevice : public Device {
 public:
  struct Cost {
    double us = 0, uj = 0;
    void operator+=(const Cost& other) { us += other.us, uj += other.uj; }
  };
  explicit MeteredDevice(std::unique_ptr<Device> host) : host_(std::move(host)) {}
  const DeviceInfo& info() const override { return host_->info(); }
  Result<DevicePtr> allocate(std::size_t bytes) override { return host_->allocate(bytes); }
  void release(DevicePtr pointer) override { host_->release(pointer); }
  Result<void> copy(void* to, const void* from, std::size_t bytes) override { return host_->copy(to, from, bytes); }
  Result<void> fill(DevicePtr to, unsigned char value, std::size_t bytes, Stream stream) override {
    return host_->fill(to, value, bytes, stream);
  }
  Result<std::unique_ptr<Module>> load(std::span<const std::byte> code) override { return host_->load(code); }
  Result<void> launch(Function function, const LaunchShape& shape, void** params, Stream stream) override {
    *spent_ += shape.block == 32   ? Cost{100, 900}
               : shape.block == 64 ? Cost{120, 500}
               : shape.block == 96 ? Cost{119.5, 500}
                                   : Cost{200, 100};
    return host_->launch(function, shape, params, stream);
  }
  Result<void> synchronize(Stream stream) override { return host_->synchronize(stream); }
  Result<void> record(Event& event, Stream) override {
    if (event == nullptr) event = &events_.emplace_back();
    *static_cast<double*>(event) = total_.us;
    return {};
  }
  Result<double> elapsed_us(Event from, Event to) override {
    return *static_cast<double*>(to) - *static_cast<double*>(from);
  }
  Result<Graph> capture(const std::function<Result<void>(Stream)>& work) override {
    Cost cost;
    spent_ = &cost;
    auto graph = host_->capture(work);
    spent_ = &total_;
    if (graph) graphs_[*graph] = cost;
    return graph;
  }
  Result<void> replay(Graph graph, Stream stream) override {
    total_ += graphs_.at(graph);
    return host_->replay(graph, stream);
  }
  const Cost& total() const { return total_; }

 private:
  std::unique_ptr<Device> host_;
  Cost total_, *spent_ = &total_;
  std::deque<double> events_;
  std::map<Graph, Cost> graphs_;
};

// Its counter steps every 20 ms.
class Meter : public Telemetry {
 public:
  explicit Meter(const MeteredDevice& device) : device_(device) {}
  DeviceState read() override {
    if (const double step = std::floor(device_.total().us / 20e3); step != step_) {
      step_ = step;
      shown_ = std::llround(device_.total().uj);
    }
    return {.clock_mhz = 1000, .temperature_c = 50, .energy_uj = shown_, .throttle = "", .passing = false};
  }

 private:
  const MeteredDevice& device_;
  double step_ = 0;
  std::int64_t shown_ = 0;
};

int metered_worker(const std::string& device) {
  MeteredDevice* opened = nullptr;
  return worker_main(
      device,
      [&](const std::string& id) -> Result<std::unique_ptr<Device>> {
        KGEN_TRY(auto host, open_device(id));
        auto metered = std::make_unique<MeteredDevice>(std::move(host));
        opened = metered.get();
        return metered;
      },
      [&](const DeviceInfo&) { return std::make_unique<Meter>(*opened); });
}

// The first one of a run (KGEN_TEST_UNSTARTED_STATE is not there yet) answers one try. When the second one comes it
// ends or says nothing any more, as if what it did in between, with nobody's candidate, had broken it.
int unstarted_worker(const std::string& device) {
  const std::string state = std::getenv("KGEN_TEST_UNSTARTED_STATE");
  if (std::ifstream(state).good()) return worker_main(device);
  std::ofstream(state) << "was here";
  MessageChannel parent = MessageChannel::from_stdio();
  const std::vector<std::string> argv{std::filesystem::read_symlink("/proc/self/exe").string(), "__worker", device};
  auto child = ChildProcess::start(argv).value();
  std::thread answers([&] {
    for (auto got = child.receive(60); got.kind == ChildProcess::Received::Kind::kMessage; got = child.receive(60))
      parent.send(got.message);
  });
  answers.detach();
  int tries = 0;
  while (const auto message = parent.receive()) {
    tries += message->front().find("\"op\":\"try\"") != std::string::npos;
    if (tries < 2)
      child.send(*message);
    else if (std::string_view(std::getenv("KGEN_TEST_UNSTARTED")) == "end")
      std::_Exit(1);
  }
  std::_Exit(0);
}

}  // namespace
}  // namespace kgen

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "__worker" && argc > 2 && std::getenv("KGEN_TEST_UNSTARTED") != nullptr)
    return kgen::unstarted_worker(argv[2]);
  if (command == "__worker" && argc > 2)
    return std::getenv("KGEN_TEST_METERED") != nullptr ? kgen::metered_worker(argv[2]) : kgen::worker_main(argv[2]);
  if (command == "__compile-worker") return kgen::compile_worker_main();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
