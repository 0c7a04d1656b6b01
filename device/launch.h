// Launches a bound plan on a device: the one place where kernel parameters are laid out.
#pragma once

#include <memory>
#include <optional>
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

// What launches of one plan have in common, whatever the shape. Immutable.
class LaunchLayout {
 public:
  struct Operand {
    std::size_t param = 0;  // index in Plan::params
    int align = 16;
  };
  static Result<std::shared_ptr<const LaunchLayout>> make(const Plan&);
  const std::vector<Operand>& operands() const { return operands_; }  // the plan's tensors
  std::size_t scalar_count() const { return scalars_.size(); }

 private:
  friend class BoundLaunch;
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
  };
  struct Map {
    std::size_t param = 0, operand = 0;  // in Plan::params
  };
  struct Scalar {
    std::size_t param = 0;
    DType dtype = DType::kFp32;
  };
  static Value scalar(DType, double);

  std::vector<Value> values_;  // one a parameter: defaults of scalars, else null
  std::vector<std::size_t> dims_;
  std::vector<Operand> operands_;
  std::vector<Buffer> buffers_;
  std::vector<Map> maps_;
  std::vector<Scalar> scalars_;
  std::vector<bool> prepares_;  // beside Plan::steps
};

// A bound plan laid out for launching: what depends on the shape alone stands ready, a launch puts in pointers and
// scalars. Immutable, safe from any thread.
class BoundLaunch {
 public:
  BoundLaunch() = default;
  static Result<BoundLaunch> make(const Plan&, const BoundPlan&);
  // `sizes` is of the layout's plan.
  static BoundLaunch make(std::shared_ptr<const LaunchLayout> layout, const BoundSizes& sizes);

  const LaunchLayout& layout() const { return *layout_; }
  // Of an operand; nothing where the shape has none.
  std::optional<std::int64_t> operand_bytes(std::size_t operand) const {
    const std::int64_t bytes = words_[layout_->values_.size() + operand].i64;
    return bytes < 0 ? std::nullopt : std::optional(bytes);
  }
  std::int64_t workspace_bytes() const { return workspace_bytes_; }
  std::int64_t prepared_bytes() const { return prepared_bytes_; }

  // Launches the steps of one phase in order on the stream. Does not allocate device memory or synchronise, so it is
  // safe inside graph capture. `plan` is that of make(), for messages.
  Result<void> run(Device&, const Plan& plan, const LoadedPlan&, const CallArgs&, Phase, Stream) const;

 private:
  using Value = LaunchLayout::Value;

  std::shared_ptr<const LaunchLayout> layout_;
  // One a parameter (null where the call fills it in), then bytes of the operands (-1: absent), then offsets of the
  // buffers (-1: absent): one piece of memory, for a near match makes one of these in its two microseconds.
  std::vector<Value> words_;
  std::vector<BoundSizes::Step> steps_;
  std::vector<TensorMapShape> maps_;  // beside the layout's
  std::int64_t workspace_bytes_ = 0, prepared_bytes_ = 0;
};

// BoundLaunch::make() and run() at once.
Result<void> launch_plan(Device&, const Plan&, const LoadedPlan&, const BoundPlan&, const CallArgs&, Phase, Stream);

}  // namespace kgen
