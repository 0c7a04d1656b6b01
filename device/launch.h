// Launches a bound plan on a device: the one place where kernel parameters are laid out.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/plan.h"
#include "device/device.h"

namespace kgen {

// A plan's kernels, looked up in a module once.
struct LoadedPlan {
  std::unique_ptr<Module> module;
  std::vector<Function> functions;  // beside Plan::steps
};
Result<LoadedPlan> load_plan(Device&, const Plan&, std::span<const std::byte> code);

// Values for one call. `tensors` and `scalars` stand in the order of the plan's tensor and scalar parameters
// (absent tensors null). `workspace` and `prepared` are the bases of blocks of BoundPlan::workspace_bytes and
// prepared_bytes; each buffer starts at the next multiple of 256.
struct CallArgs {
  std::span<DevicePtr const> tensors;
  std::span<const double> scalars;  // empty: defaults
  DevicePtr workspace = nullptr;
  DevicePtr prepared = nullptr;
};

enum class Phase { kPrepare, kRun };

// A bound plan laid out for launching: what depends on the shape alone stands ready, a launch puts in pointers and
// scalars. Immutable, safe from any thread.
class BoundLaunch {
 public:
  struct Operand {
    std::size_t param = 0;  // index in Plan::params
    bool present = true;
    std::int64_t bytes = 0;
    int align = 16;
  };
  BoundLaunch() = default;
  static Result<BoundLaunch> make(const Plan&, const BoundPlan&);

  const std::vector<Operand>& operands() const { return operands_; }  // the plan's tensors
  std::size_t scalar_count() const { return scalars_.size(); }
  std::int64_t workspace_bytes() const { return workspace_bytes_; }
  std::int64_t prepared_bytes() const { return prepared_bytes_; }

  // Launches the steps of one phase in order on the stream. Does not allocate device memory or synchronise, so it is
  // safe inside graph capture. `plan` is that of make(), for messages.
  Result<void> run(Device&, const Plan& plan, const LoadedPlan&, const CallArgs&, Phase, Stream) const;

 private:
  union Value {  // the pointers handed to the driver point at copies of these
    void* pointer;
    std::int64_t i64;
    std::int32_t i32;
    float fp32;
    double fp64;
    std::uint16_t bits16;
    std::int8_t i8;
  };
  struct Buffer {
    std::size_t param = 0;
    bool prepared = false;
    std::int64_t offset = 0;
  };
  struct Scalar {
    std::size_t param = 0;
    DType dtype = DType::kFp32;
  };
  struct Launched {
    std::size_t function = 0;
    bool prepare = false;
    LaunchShape shape{};
  };
  static Value scalar(DType, double);

  std::vector<Value> values_;  // one a parameter; null where the call fills it in
  std::vector<Operand> operands_;
  std::vector<Buffer> buffers_;
  std::vector<Scalar> scalars_;
  std::vector<Launched> steps_;
  std::int64_t workspace_bytes_ = 0, prepared_bytes_ = 0;
};

// BoundLaunch::make() and run() at once.
Result<void> launch_plan(Device&, const Plan&, const LoadedPlan&, const BoundPlan&, const CallArgs&, Phase, Stream);

}  // namespace kgen
