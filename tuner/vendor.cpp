#include "tuner/vendor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace kgen {
namespace {

// The problem's tensors in the order of a launch, and its dims by name.
struct Operands {
  std::vector<const BoundParam*> tensors;
  const BoundPlan& problem;

  explicit Operands(const BoundPlan& bound) : problem(bound) {
    for (const BoundParam& param : bound.params)
      if (param.role == Role::kIn || param.role == Role::kOut || param.role == Role::kInOut) tensors.push_back(&param);
  }
  int place(std::size_t index) const { return tensors[index]->present ? static_cast<int>(index) : -1; }
  std::int64_t dim(std::string_view name) const {
    const auto at = std::ranges::find_if(
        problem.params, [&](const BoundParam& param) { return param.role == Role::kDim && param.name == name; });
    return at == problem.params.end() ? 0 : at->value;
  }
  double scalar(std::string_view name) const {
    const auto at = std::ranges::find_if(
        problem.params, [&](const BoundParam& param) { return param.role == Role::kScalar && param.name == name; });
    return at == problem.params.end() ? 1 : at->default_value;
  }
};

std::string attribute(const OpSpec& spec, const std::string& name) {
  const auto at = spec.problem.attributes.find(name);
  return at == spec.problem.attributes.end() ? std::string() : at->second;
}

// What follows the sums: the activation, and whether the addend comes after it.
Result<void> read_epilogue(const OpSpec& spec, VendorCall& call) {
  bool active = false;
  for (const std::string& step : split(attribute(spec, "epilogue"), ',')) {
    static const std::pair<std::string_view, VendorActivation> kActivations[] = {
        {"relu", VendorActivation::kRelu},
        {"gelu_tanh", VendorActivation::kGeluTanh},
        {"gelu_erf", VendorActivation::kGeluErf},
        {"silu", VendorActivation::kSilu},
        {"sigmoid", VendorActivation::kSigmoid}};
    const auto known = std::ranges::find(kActivations, step, &std::pair<std::string_view, VendorActivation>::first);
    if (known != std::end(kActivations)) {
      call.activation = known->second;
      active = true;
    } else if (step == "add_residual") {
      call.addend_last = active;
    } else if (!step.empty() && step != "bias" && step != "add_c") {
      return fail(ErrorKind::kBadInput, fmt::format("no vendor library has '{}' in its epilogue", step));
    }
  }
  return {};
}

// gemm, and the operators that extend it: they keep its dims and the order of its arguments.
Result<VendorCall> product(const OpSpec& spec, const Operands& operands) {
  enum { kA, kB, kBias, kC, kResidual, kOther, kD, kCount };
  if (operands.tensors.size() != kCount)
    return fail(ErrorKind::kBadInput, fmt::format("no vendor library is known for {}", spec.op->name));
  VendorCall call{.op = VendorOp::kProduct};
  KGEN_CHECK_OK(read_epilogue(spec, call));
  call.a = operands.place(kA);
  call.b = operands.place(kB);
  call.bias = operands.place(kBias);
  call.d = operands.place(kD);
  const bool c = operands.tensors[kC]->present, residual = operands.tensors[kResidual]->present;
  if (c && residual) return fail(ErrorKind::kBadInput, "no vendor library adds two tensors");
  call.addend = c ? kC : residual ? kResidual : -1;
  call.alpha = operands.scalar("alpha");
  call.beta = c ? operands.scalar("beta") : 1;
  call.in = operands.tensors[kA]->dtype;
  call.out = operands.tensors[kD]->dtype;
  call.bias_type = operands.tensors[kBias]->dtype;
  call.addend_type = operands.tensors[c ? kC : kResidual]->dtype;
  call.batch = operands.dim("batch");
  call.m = operands.dim("m");
  call.n = operands.dim("n");
  call.k = operands.dim("k");
  call.lda = operands.dim("lda");
  call.ldb = operands.dim("ldb");
  call.ldc = operands.dim(c ? "ldc" : "ldr");
  call.ldd = operands.dim("ldd");
  call.batch_stride_a = operands.dim("batch_stride_a");
  call.batch_stride_b = operands.dim("batch_stride_b");
  call.batch_stride_c = operands.dim(c ? "batch_stride_c" : "batch_stride_r");
  call.batch_stride_d = operands.dim("batch_stride_d");
  call.b_nk = attribute(spec, "b_layout") != "kn";
  return call;
}

// Memory order nhwc or nchw → n c h w.
std::array<std::int64_t, 4> as_nchw(const std::vector<std::int64_t>& values, bool nhwc) {
  if (nhwc) return {values[0], values[3], values[1], values[2]};
  return {values[0], values[1], values[2], values[3]};
}

Result<VendorCall> convolution(const OpSpec& spec, const Operands& operands) {
  enum { kX, kWeight, kBias, kScale, kShift, kResidual, kY, kCount };
  if (operands.tensors.size() != kCount || operands.tensors[kX]->shape.size() != 4)
    return fail(ErrorKind::kBadInput, fmt::format("no vendor library is known for {}", spec.op->name));
  VendorCall call{.op = VendorOp::kConvolution};
  KGEN_CHECK_OK(read_epilogue(spec, call));
  call.a = operands.place(kX);
  call.b = operands.place(kWeight);
  call.bias = operands.place(kBias);
  call.addend = operands.place(kResidual);
  call.d = operands.place(kY);
  call.in = operands.tensors[kX]->dtype;
  call.out = operands.tensors[kY]->dtype;
  call.bias_type = operands.tensors[kBias]->dtype;
  call.addend_type = operands.tensors[kResidual]->dtype;
  const bool nhwc = attribute(spec, "layout") != "nchw";
  const auto sizes = [&](std::size_t at) { return as_nchw(operands.tensors[at]->shape, nhwc); };
  const auto strides = [&](std::size_t at) { return as_nchw(operands.tensors[at]->strides, nhwc); };
  call.x = sizes(kX), call.x_strides = strides(kX);
  call.weight = sizes(kWeight), call.weight_strides = strides(kWeight);
  call.y = sizes(kY), call.y_strides = strides(kY);
  if (call.addend >= 0) call.addend_strides = strides(kResidual);
  call.pad = {operands.dim("pad_h"), operands.dim("pad_w")};
  call.stride = {operands.dim("stride_h"), operands.dim("stride_w")};
  call.dilation = {operands.dim("dil_h"), operands.dim("dil_w")};
  call.groups = operands.dim("groups");
  return call;
}

}  // namespace

Result<VendorCall> vendor_call(const OpSpec& spec, const BoundPlan& problem) {
  const Operands operands(problem);
  if (spec.op->name == "gemm" || spec.op->base == "gemm") return product(spec, operands);
  if (spec.op->name == "conv2d") return convolution(spec, operands);
  return fail(ErrorKind::kBadInput, fmt::format("no vendor library is known for {}", spec.op->name));
}

}  // namespace kgen
