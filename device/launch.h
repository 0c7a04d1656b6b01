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

// Launches the steps of one phase in order on the stream. Does not allocate device memory or synchronise, so it is safe
// inside graph capture. `bound.steps` keeps the functions by name through `plan.steps`.
Result<void> launch_plan(Device&, const Plan&, const LoadedPlan&, const BoundPlan&, const CallArgs&, Phase, Stream);

}  // namespace kgen
