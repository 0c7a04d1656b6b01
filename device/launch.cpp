#include "device/launch.h"

#include <fmt/format.h>

namespace kgen {
namespace {

constexpr std::int64_t kBufferAlign = 256;

// A by-value parameter; the pointers handed to the driver point into one of these.
union Value {
  void* pointer;
  std::int64_t i64;
  std::int32_t i32;
  float fp32;
  double fp64;
  std::uint16_t bits16;
  std::int8_t i8;
};

// Round to nearest even, as the kernels do.
std::uint16_t bf16_bits(float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

Value scalar(DType dtype, double value) {
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

Result<void> launch_plan(Device& device, const Plan& plan, const LoadedPlan& loaded, const BoundPlan& bound,
                         const CallArgs& args, Phase phase, Stream stream) {
  constexpr std::size_t kMaxParams = 128;
  if (bound.params.size() > kMaxParams)
    return fail(ErrorKind::kInternal,
                fmt::format("a plan with {} parameters; at most {}", bound.params.size(), kMaxParams));
  Value values[kMaxParams];
  void* pointers[kMaxParams];
  std::size_t tensor = 0, scalar_index = 0;
  std::int64_t workspace = 0, prepared = 0;
  const auto place = [](DevicePtr base, std::int64_t& offset, std::int64_t bytes) -> DevicePtr {
    if (base == nullptr) return nullptr;
    DevicePtr at = static_cast<std::byte*>(base) + offset;
    offset += (bytes + kBufferAlign - 1) / kBufferAlign * kBufferAlign;
    return at;
  };
  for (std::size_t i = 0; i < bound.params.size(); ++i) {
    const BoundParam& param = bound.params[i];
    Value& value = values[i];
    pointers[i] = &value;
    switch (param.role) {
      case Role::kIn:
      case Role::kOut:
      case Role::kInOut:
        if (tensor >= args.tensors.size())
          return fail(ErrorKind::kBadInput,
                      fmt::format("operand '{}' is missing: {} given", param.name, args.tensors.size()));
        value.pointer = param.present ? args.tensors[tensor] : nullptr;
        ++tensor;
        break;
      case Role::kWorkspace:
        value.pointer = param.present ? place(args.workspace, workspace, param.bytes) : nullptr;
        break;
      case Role::kPrepared:
        value.pointer = param.present ? place(args.prepared, prepared, param.bytes) : nullptr;
        break;
      case Role::kScalar: {
        if (!args.scalars.empty() && scalar_index >= args.scalars.size())
          return fail(ErrorKind::kBadInput,
                      fmt::format("scalar '{}' is missing: {} given", param.name, args.scalars.size()));
        value = scalar(param.dtype, args.scalars.empty() ? param.default_value : args.scalars[scalar_index]);
        ++scalar_index;
        break;
      }
      case Role::kDim:
        value.i64 = param.value;
        break;
    }
  }
  if (tensor != args.tensors.size())
    return fail(ErrorKind::kBadInput,
                fmt::format("{} operands given, the kernel takes {}", args.tensors.size(), tensor));
  if (bound.workspace_bytes > 0 && args.workspace == nullptr && phase == Phase::kRun)
    return fail(ErrorKind::kBadInput, fmt::format("no workspace given; {} bytes are needed", bound.workspace_bytes));
  if (bound.prepared_bytes > 0 && args.prepared == nullptr)
    return fail(ErrorKind::kBadInput,
                fmt::format("no prepared buffer given; {} bytes are needed", bound.prepared_bytes));

  for (const BoundStep& step : bound.steps) {
    if (step.prepare != (phase == Phase::kPrepare)) continue;
    Function function = nullptr;
    for (std::size_t i = 0; i < plan.steps.size() && function == nullptr; ++i)
      if (plan.steps[i].kernel == step.kernel) function = loaded.functions[i];
    if (function == nullptr)
      return fail(ErrorKind::kInternal, fmt::format("kernel '{}' is not in the plan", step.kernel));
    const LaunchShape shape{{step.grid[0], step.grid[1], step.grid[2]}, step.block, step.lds_bytes};
    KGEN_CHECK_OK(device.launch(function, shape, pointers, stream));
  }
  return {};
}

}  // namespace kgen
