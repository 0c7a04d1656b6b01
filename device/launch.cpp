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

LaunchLayout::Value LaunchLayout::scalar(DType dtype, double value) {
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
    case DType::kFp8E4m3:
    case DType::kFp8E5m2:  // tensors alone: no scalar has them
      break;
  }
  return result;
}

Result<std::shared_ptr<const LaunchLayout>> LaunchLayout::make(const Plan& plan) {
  if (plan.params.size() > kMaxParams)
    return fail(ErrorKind::kInternal,
                fmt::format("a plan with {} parameters; at most {}", plan.params.size(), kMaxParams));
  auto made = std::make_shared<LaunchLayout>();
  for (std::size_t i = 0; i < plan.params.size(); ++i) {
    const Param& param = plan.params[i];
    Value& value = made->values_.emplace_back();
    value = {};
    switch (param.role) {
      case Role::kIn:
      case Role::kOut:
      case Role::kInOut:
        made->operands_.push_back({.param = i, .align = param.align});
        break;
      case Role::kWorkspace:
      case Role::kPrepared:
        made->buffers_.push_back({.param = i, .prepared = param.role == Role::kPrepared});
        break;
      case Role::kScalar:
        value = scalar(param.dtype, param.default_value);
        made->scalars_.push_back({.param = i, .dtype = param.dtype});
        break;
      case Role::kDim:
        made->dims_.push_back(i);
        break;
      case Role::kTensorMap: {
        const auto operand = std::ranges::find(plan.params, param.of, &Param::name);
        if (operand == plan.params.end() || made->maps_.size() == LaunchShape::kMostMaps)
          return fail(ErrorKind::kBadInput,
                      fmt::format("tensor map '{}': {}", param.name,
                                  operand == plan.params.end() ? "its operand is no parameter" : "too many of them"));
        made->maps_.push_back({.param = i, .operand = static_cast<std::size_t>(operand - plan.params.begin())});
        break;
      }
    }
  }
  for (const Step& step : plan.steps) made->prepares_.push_back(step.prepare);
  return made;
}

BoundLaunch BoundLaunch::make(std::shared_ptr<const LaunchLayout> layout, const BoundSizes& sizes) {
  BoundLaunch made;
  made.words_.reserve(layout->values_.size() + layout->operands_.size() + layout->buffers_.size());
  made.words_ = layout->values_;
  for (const std::size_t dim : layout->dims_) made.words_[dim].i64 = sizes.params[dim].value;
  const auto add = [&](std::int64_t word) { made.words_.emplace_back().i64 = word; };
  for (const LaunchLayout::Operand& operand : layout->operands_) {
    const BoundSizes::Param& param = sizes.params[operand.param];
    add(param.present ? param.value : -1);
  }
  std::int64_t workspace = 0, prepared = 0;
  for (const LaunchLayout::Buffer& buffer : layout->buffers_) {
    const BoundSizes::Param& param = sizes.params[buffer.param];
    std::int64_t& offset = buffer.prepared ? prepared : workspace;
    add(param.present ? offset : -1);
    if (param.present) offset += (param.value + kBufferAlign - 1) / kBufferAlign * kBufferAlign;
  }
  made.steps_ = sizes.steps;
  made.maps_ = sizes.maps;
  made.workspace_bytes_ = sizes.workspace_bytes;
  made.prepared_bytes_ = sizes.prepared_bytes;
  made.layout_ = std::move(layout);
  return made;
}

Result<BoundLaunch> BoundLaunch::make(const Plan& plan, const BoundPlan& bound) {
  if (bound.params.size() != plan.params.size())
    return fail(ErrorKind::kInternal,
                fmt::format("{} parameters are bound, the plan has {}", bound.params.size(), plan.params.size()));
  BoundSizes sizes{.params = {},
                   .maps = bound.maps,
                   .steps = {},
                   .workspace_bytes = bound.workspace_bytes,
                   .prepared_bytes = bound.prepared_bytes,
                   .flops = bound.flops,
                   .bytes = bound.bytes};
  for (const BoundParam& param : bound.params)
    sizes.params.push_back({param.present, param.role == Role::kDim ? param.value : param.bytes});
  for (const BoundStep& step : bound.steps) {
    const auto known = std::ranges::find(plan.steps, step.kernel, &Step::kernel);
    if (known == plan.steps.end())
      return fail(ErrorKind::kInternal, fmt::format("kernel '{}' is not in the plan", step.kernel));
    sizes.steps.push_back({.index = static_cast<std::uint32_t>(known - plan.steps.begin()),
                           .grid = step.grid,
                           .block = step.block,
                           .lds_bytes = step.lds_bytes});
  }
  KGEN_TRY(auto layout, LaunchLayout::make(plan));
  return make(std::move(layout), sizes);
}

Result<void> BoundLaunch::run(Device& device, const Plan& plan, const LoadedPlan& loaded, const CallArgs& args,
                              Phase phase, Stream stream) const {
  const auto& operands = layout_->operands_;
  const auto& scalars = layout_->scalars_;
  if (args.tensors.size() < operands.size())
    return fail(ErrorKind::kBadInput,
                fmt::format("operand '{}' is missing: {} given", plan.params[operands[args.tensors.size()].param].name,
                            args.tensors.size()));
  if (args.tensors.size() > operands.size())
    return fail(ErrorKind::kBadInput,
                fmt::format("{} operands given, the kernel takes {}", args.tensors.size(), operands.size()));
  if (!args.scalars.empty() && args.scalars.size() < scalars.size())
    return fail(ErrorKind::kBadInput,
                fmt::format("scalar '{}' is missing: {} given", plan.params[scalars[args.scalars.size()].param].name,
                            args.scalars.size()));
  if (workspace_bytes_ > 0 && args.workspace == nullptr && phase == Phase::kRun)
    return fail(ErrorKind::kBadInput, fmt::format("no workspace given; {} bytes are needed", workspace_bytes_));
  if (prepared_bytes_ > 0 && args.prepared == nullptr)
    return fail(ErrorKind::kBadInput, fmt::format("no prepared buffer given; {} bytes are needed", prepared_bytes_));

  Value values[kMaxParams];
  void* pointers[kMaxParams];
  const std::size_t count = layout_->values_.size();
  const Value* word = words_.data();
  std::copy(word, word + count, values);
  word += count;
  for (std::size_t i = 0; i < count; ++i) pointers[i] = &values[i];
  for (std::size_t i = 0; i < operands.size(); ++i, ++word)
    values[operands[i].param].pointer = word->i64 < 0 ? nullptr : args.tensors[i];
  for (const LaunchLayout::Buffer& buffer : layout_->buffers_) {
    const std::int64_t offset = (word++)->i64;
    const DevicePtr base = buffer.prepared ? args.prepared : args.workspace;
    values[buffer.param].pointer = base == nullptr || offset < 0 ? nullptr : static_cast<std::byte*>(base) + offset;
  }
  if (!args.scalars.empty()) {
    for (std::size_t i = 0; i < scalars.size(); ++i)
      values[scalars[i].param] = LaunchLayout::scalar(scalars[i].dtype, args.scalars[i]);
  }
  TensorMapArg maps[LaunchShape::kMostMaps];
  for (std::size_t i = 0; i < maps_.size(); ++i) {
    const LaunchLayout::Map& map = layout_->maps_[i];
    maps[i] = {.param = map.param, .shape = &maps_[i], .base = values[map.operand].pointer};
  }
  for (const BoundSizes::Step& step : steps_) {
    if (layout_->prepares_[step.index] != (phase == Phase::kPrepare)) continue;
    const LaunchShape shape{.grid = {step.grid[0], step.grid[1], step.grid[2]},
                            .block = step.block,
                            .lds_bytes = step.lds_bytes,
                            .maps = std::span(maps, maps_.size())};
    KGEN_CHECK_OK(device.launch(loaded.functions[step.index], shape, pointers, stream));
  }
  return {};
}

Result<void> launch_plan(Device& device, const Plan& plan, const LoadedPlan& loaded, const BoundPlan& bound,
                         const CallArgs& args, Phase phase, Stream stream) {
  KGEN_TRY(const BoundLaunch launch, BoundLaunch::make(plan, bound));
  return launch.run(device, plan, loaded, args, phase, stream);
}

}  // namespace kgen
