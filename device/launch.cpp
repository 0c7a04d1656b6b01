#include "device/launch.h"

#include <fmt/format.h>

#include <algorithm>

namespace kgen {
namespace {

constexpr std::int64_t kBufferAlign = 256;

constexpr std::size_t kMaxParams = 128;

// Round to nearest even, as the kernels do.
std::uint16_t bf16_bits(float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

Result<LoadedPlan> load_plan(Device& device, const Plan& plan, std::span<const std::byte> code) {
  LoadedPlan loaded;
  KGEN_TRY(loaded.module, device.load(code));
  for (const Step& step : plan.steps) {
    KGEN_TRY(Function function, loaded.module->function(step.kernel));
    loaded.functions.push_back(function);
  }
  return loaded;
}

BoundLaunch::Value BoundLaunch::scalar(DType dtype, double value) {
  Value result{};
  switch (dtype) {
    case DType::kFp64:
      result.fp64 = value;
      break;
    case DType::kFp32:
      result.fp32 = static_cast<float>(value);
      break;
    case DType::kFp16:
      result.bits16 = __builtin_bit_cast(std::uint16_t, static_cast<_Float16>(value));
      break;
    case DType::kBf16:
      result.bits16 = bf16_bits(static_cast<float>(value));
      break;
    case DType::kInt8:
      result.i8 = static_cast<std::int8_t>(value);
      break;
    case DType::kInt32:
      result.i32 = static_cast<std::int32_t>(value);
      break;
    case DType::kInt64:
      result.i64 = static_cast<std::int64_t>(value);
      break;
  }
  return result;
}

Result<BoundLaunch> BoundLaunch::make(const Plan& plan, const BoundPlan& bound) {
  if (bound.params.size() > kMaxParams)
    return fail(ErrorKind::kInternal,
                fmt::format("a plan with {} parameters; at most {}", bound.params.size(), kMaxParams));
  BoundLaunch made;
  made.workspace_bytes_ = bound.workspace_bytes;
  made.prepared_bytes_ = bound.prepared_bytes;
  made.values_.resize(bound.params.size());
  std::int64_t workspace = 0, prepared = 0;
  for (std::size_t i = 0; i < bound.params.size(); ++i) {
    const BoundParam& param = bound.params[i];
    Value& value = made.values_[i];
    value = {};
    switch (param.role) {
      case Role::kIn:
      case Role::kOut:
      case Role::kInOut:
        made.operands_.push_back({.param = i, .present = param.present, .bytes = param.bytes, .align = param.align});
        break;
      case Role::kWorkspace:
      case Role::kPrepared: {
        if (!param.present) break;
        std::int64_t& offset = param.role == Role::kPrepared ? prepared : workspace;
        made.buffers_.push_back({.param = i, .prepared = param.role == Role::kPrepared, .offset = offset});
        offset += (param.bytes + kBufferAlign - 1) / kBufferAlign * kBufferAlign;
        break;
      }
      case Role::kScalar:
        value = scalar(param.dtype, param.default_value);
        made.scalars_.push_back({.param = i, .dtype = param.dtype});
        break;
      case Role::kDim:
        value.i64 = param.value;
        break;
    }
  }
  for (const BoundStep& step : bound.steps) {
    const auto known = std::ranges::find(plan.steps, step.kernel, &Step::kernel);
    if (known == plan.steps.end())
      return fail(ErrorKind::kInternal, fmt::format("kernel '{}' is not in the plan", step.kernel));
    made.steps_.push_back({.function = static_cast<std::size_t>(known - plan.steps.begin()),
                           .prepare = step.prepare,
                           .shape = {{step.grid[0], step.grid[1], step.grid[2]}, step.block, step.lds_bytes}});
  }
  return made;
}

Result<void> BoundLaunch::run(Device& device, const Plan& plan, const LoadedPlan& loaded, const CallArgs& args,
                              Phase phase, Stream stream) const {
  if (args.tensors.size() < operands_.size())
    return fail(ErrorKind::kBadInput,
                fmt::format("operand '{}' is missing: {} given", plan.params[operands_[args.tensors.size()].param].name,
                            args.tensors.size()));
  if (args.tensors.size() > operands_.size())
    return fail(ErrorKind::kBadInput,
                fmt::format("{} operands given, the kernel takes {}", args.tensors.size(), operands_.size()));
  if (!args.scalars.empty() && args.scalars.size() < scalars_.size())
    return fail(ErrorKind::kBadInput,
                fmt::format("scalar '{}' is missing: {} given", plan.params[scalars_[args.scalars.size()].param].name,
                            args.scalars.size()));
  if (workspace_bytes_ > 0 && args.workspace == nullptr && phase == Phase::kRun)
    return fail(ErrorKind::kBadInput, fmt::format("no workspace given; {} bytes are needed", workspace_bytes_));
  if (prepared_bytes_ > 0 && args.prepared == nullptr)
    return fail(ErrorKind::kBadInput, fmt::format("no prepared buffer given; {} bytes are needed", prepared_bytes_));

  Value values[kMaxParams];
  void* pointers[kMaxParams];
  std::ranges::copy(values_, values);
  for (std::size_t i = 0; i < values_.size(); ++i) pointers[i] = &values[i];
  for (std::size_t i = 0; i < operands_.size(); ++i)
    values[operands_[i].param].pointer = operands_[i].present ? args.tensors[i] : nullptr;
  for (const Buffer& buffer : buffers_) {
    const DevicePtr base = buffer.prepared ? args.prepared : args.workspace;
    values[buffer.param].pointer = base == nullptr ? nullptr : static_cast<std::byte*>(base) + buffer.offset;
  }
  if (!args.scalars.empty()) {
    for (std::size_t i = 0; i < scalars_.size(); ++i)
      values[scalars_[i].param] = scalar(scalars_[i].dtype, args.scalars[i]);
  }
  for (const Launched& step : steps_) {
    if (step.prepare != (phase == Phase::kPrepare)) continue;
    KGEN_CHECK_OK(device.launch(loaded.functions[step.function], step.shape, pointers, stream));
  }
  return {};
}

Result<void> launch_plan(Device& device, const Plan& plan, const LoadedPlan& loaded, const BoundPlan& bound,
                         const CallArgs& args, Phase phase, Stream stream) {
  KGEN_TRY(const BoundLaunch launch, BoundLaunch::make(plan, bound));
  return launch.run(device, plan, loaded, args, phase, stream);
}

}  // namespace kgen
