#include "base/plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace kgen {
namespace {

using Json = nlohmann::ordered_json;

struct DTypeRow {
  DType dtype;
  const char* name;
  int bytes;
};
constexpr DTypeRow kDTypes[] = {
    {DType::kFp64, "fp64", 8}, {DType::kFp32, "fp32", 4},   {DType::kFp16, "fp16", 2},   {DType::kBf16, "bf16", 2},
    {DType::kInt8, "int8", 1}, {DType::kInt32, "int32", 4}, {DType::kInt64, "int64", 8},
};

struct RoleRow {
  Role role;
  const char* name;
};
constexpr RoleRow kRoles[] = {
    {Role::kIn, "in"},
    {Role::kOut, "out"},
    {Role::kInOut, "inout"},
    {Role::kWorkspace, "workspace"},
    {Role::kPrepared, "prepared"},
    {Role::kScalar, "scalar"},
    {Role::kDim, "dim"},
};

Result<Role> find_role(std::string_view name) {
  for (const RoleRow& row : kRoles) {
    if (name == row.name) return row.role;
  }
  return fail(ErrorKind::kBadInput, fmt::format("unknown role '{}'", name));
}

bool is_buffer(Role role) { return role == Role::kWorkspace || role == Role::kPrepared; }
bool is_tensor(Role role) { return role == Role::kIn || role == Role::kOut || role == Role::kInOut; }

// In JSON an expression is its text; "" is the constant 0.
Result<Expr> parse_expr(const Json& text) {
  const std::string& words = text.get_ref<const std::string&>();
  return words.empty() ? Expr() : Expr::parse(words);
}

Result<std::vector<Expr>> parse_exprs(const Json& texts) {
  std::vector<Expr> exprs;
  for (const Json& text : texts) {
    KGEN_TRY(exprs.emplace_back(), parse_expr(text));
  }
  return exprs;
}

Json exprs_to_json(std::span<const Expr> exprs) {
  Json texts = Json::array();
  for (const Expr& expr : exprs) texts.push_back(expr.text());
  return texts;
}

Result<Plan> plan_from(const Json& json) {
  Plan plan;
  for (const auto& [name, value] : json.at("constants").items()) plan.constants[name] = value.get<std::int64_t>();
  plan.dims = json.at("dims").get<std::vector<std::string>>();
  KGEN_TRY(plan.dim_defaults, parse_exprs(json.at("dim_defaults")));
  if (plan.dims.size() != plan.dim_defaults.size())
    return fail(ErrorKind::kBadInput, "dims and dim_defaults differ in length");
  for (const Json& item : json.at("params")) {
    Param param;
    param.name = item.at("name").get<std::string>();
    KGEN_TRY(param.role, find_role(item.at("role").get_ref<const std::string&>()));
    KGEN_TRY(param.dtype, find_dtype(item.at("dtype").get_ref<const std::string&>()));
    KGEN_TRY(param.shape, parse_exprs(item.at("shape")));
    KGEN_TRY(param.strides, parse_exprs(item.at("strides")));
    KGEN_TRY(param.present, parse_expr(item.at("present")));
    param.default_value = item.at("default").get<double>();
    param.align = item.at("align").get<int>();
    if (is_tensor(param.role) && param.shape.size() != param.strides.size())
      return fail(ErrorKind::kBadInput, fmt::format("'{}': shape and strides differ in length", param.name));
    if (is_buffer(param.role) && param.shape.size() != 1)
      return fail(ErrorKind::kBadInput, fmt::format("'{}': a buffer has one size", param.name));
    plan.params.push_back(std::move(param));
  }
  for (const Json& item : json.at("steps")) {
    Step step;
    step.kernel = item.at("kernel").get<std::string>();
    step.prepare = item.at("prepare").get<bool>();
    KGEN_TRY(step.when, parse_expr(item.at("when")));
    if (item.at("grid").size() != step.grid.size()) return fail(ErrorKind::kBadInput, "a grid has three sizes");
    for (std::size_t axis = 0; axis < step.grid.size(); ++axis) {
      KGEN_TRY(step.grid[axis], parse_expr(item.at("grid")[axis]));
    }
    KGEN_TRY(step.block, parse_expr(item.at("block")));
    KGEN_TRY(step.lds_bytes, parse_expr(item.at("lds_bytes")));
    plan.steps.push_back(std::move(step));
  }
  KGEN_TRY(plan.needs, parse_exprs(json.at("needs")));
  KGEN_TRY(plan.flops, parse_expr(json.at("flops")));
  KGEN_TRY(plan.bytes, parse_expr(json.at("bytes")));
  return plan;
}

// Sums and products of sizes; nullopt-like failure is kept aside so that formulas stay readable.
struct Checked {
  std::int64_t value = 0;
  bool overflow = false;
  void multiply(std::int64_t by) { overflow |= __builtin_mul_overflow(value, by, &value); }
  void add(std::int64_t by) { overflow |= __builtin_add_overflow(value, by, &value); }
};

Result<std::int64_t> padded_sum(std::int64_t sum, std::int64_t bytes, const std::string& name) {
  Checked total{sum};
  total.add(bytes);
  total.add(255);
  if (total.overflow) return fail(ErrorKind::kBadInput, fmt::format("the size of '{}' overflows", name));
  return total.value / 256 * 256;
}

Result<std::vector<std::int64_t>> evaluate(std::span<const Expr> exprs, const Env& env, const std::string& name) {
  std::vector<std::int64_t> values;
  for (const Expr& expr : exprs) {
    KGEN_TRY(const std::int64_t value, expr.eval(env));
    if (value < 0)
      return fail(ErrorKind::kBadInput, fmt::format("'{}': '{}' is negative ({})", name, expr.text(), value));
    values.push_back(value);
  }
  return values;
}

// Bytes from the first to the last element.
Result<std::int64_t> extent(const BoundParam& param) {
  Checked last;
  for (std::size_t axis = 0; axis < param.shape.size(); ++axis) {
    if (param.shape[axis] == 0) return 0;
    Checked offset{param.shape[axis] - 1};
    offset.multiply(param.strides[axis]);
    last.add(offset.value);
    last.overflow |= offset.overflow;
  }
  last.add(1);
  last.multiply(dtype_bytes(param.dtype));
  if (last.overflow) return fail(ErrorKind::kBadInput, fmt::format("the size of '{}' overflows", param.name));
  return last.value;
}

Result<Env> bind_dims(const Plan& plan, const Env& dims) {
  Env env = plan.constants;
  for (const auto& [name, value] : dims) {
    if (std::find(plan.dims.begin(), plan.dims.end(), name) == plan.dims.end())
      return fail(ErrorKind::kBadInput, fmt::format("unknown dim '{}'{}", name, did_you_mean(name, plan.dims)));
  }
  for (std::size_t i = 0; i < plan.dims.size(); ++i) {
    const std::string& name = plan.dims[i];
    std::int64_t value = 0;
    if (const auto given = dims.find(name); given != dims.end()) {
      value = given->second;
    } else if (plan.dim_defaults[i].text().empty()) {
      return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is missing", name));
    } else {
      KGEN_TRY(value, plan.dim_defaults[i].eval(env));
    }
    if (value < 0) return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is negative ({})", name, value));
    env[name] = value;
  }
  return env;
}

// nullopt: the step has nothing to do for this shape.
Result<std::optional<BoundStep>> bind_step(const Step& step, const Env& env) {
  KGEN_TRY(const std::int64_t when, step.when.eval(env));
  if (when == 0) return std::nullopt;
  BoundStep bound;
  bound.kernel = step.kernel;
  bound.prepare = step.prepare;
  // What both CUDA and HIP take: x below 2^31, y and z at most 65535.
  static constexpr std::int64_t kMostBlocks[] = {(std::int64_t{1} << 31) - 1, 65535, 65535};
  bool empty = false;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    KGEN_TRY(const std::int64_t blocks, step.grid[axis].eval(env));
    if (blocks < 0 || blocks > kMostBlocks[axis])
      return fail(ErrorKind::kCheckFailed, fmt::format("'{}': {} blocks along {} are outside 0 … {}", step.kernel,
                                                       blocks, "xyz"[axis], kMostBlocks[axis]));
    empty |= blocks == 0;
    bound.grid[axis] = static_cast<std::uint32_t>(blocks);
  }
  if (empty) return std::nullopt;
  const auto limit = [&](const char* name, std::int64_t otherwise) {
    const auto found = env.find(name);
    return found == env.end() ? otherwise : found->second;
  };
  KGEN_TRY(const std::int64_t block, step.block.eval(env));
  if (block < 1 || block > limit("max_block", 1024))
    return fail(ErrorKind::kCheckFailed, fmt::format("'{}': a block of {} work-items is outside 1 … {}", step.kernel,
                                                     block, limit("max_block", 1024)));
  KGEN_TRY(const std::int64_t lds_bytes, step.lds_bytes.eval(env));
  if (lds_bytes < 0 || lds_bytes > limit("lds_limit", 1 << 30))
    return fail(ErrorKind::kCheckFailed, fmt::format("'{}': {} bytes of LDS are outside 0 … {}", step.kernel, lds_bytes,
                                                     limit("lds_limit", 1 << 30)));
  bound.block = static_cast<std::uint32_t>(block);
  bound.lds_bytes = static_cast<std::uint32_t>(lds_bytes);
  return bound;
}

}  // namespace

std::string_view dtype_name(DType dtype) { return std::ranges::find(kDTypes, dtype, &DTypeRow::dtype)->name; }
int dtype_bytes(DType dtype) { return std::ranges::find(kDTypes, dtype, &DTypeRow::dtype)->bytes; }
std::string_view role_name(Role role) { return std::ranges::find(kRoles, role, &RoleRow::role)->name; }

Result<DType> find_dtype(std::string_view name) {
  std::vector<std::string> names;
  for (const DTypeRow& row : kDTypes) {
    if (name == row.name) return row.dtype;
    names.emplace_back(row.name);
  }
  return fail(ErrorKind::kBadInput, fmt::format("unknown dtype '{}'{}", name, did_you_mean(name, names)));
}

std::string plan_to_json(const Plan& plan) {
  Json json;
  json["constants"] = Json::object();
  for (const auto& [name, value] : plan.constants) json["constants"][name] = value;
  json["dims"] = plan.dims;
  json["dim_defaults"] = exprs_to_json(plan.dim_defaults);
  json["params"] = Json::array();
  for (const Param& param : plan.params) {
    json["params"].push_back({{"name", param.name},
                              {"role", role_name(param.role)},
                              {"dtype", dtype_name(param.dtype)},
                              {"shape", exprs_to_json(param.shape)},
                              {"strides", exprs_to_json(param.strides)},
                              {"present", param.present.text()},
                              {"default", param.default_value},
                              {"align", param.align}});
  }
  json["steps"] = Json::array();
  for (const Step& step : plan.steps) {
    json["steps"].push_back({{"kernel", step.kernel},
                             {"prepare", step.prepare},
                             {"when", step.when.text()},
                             {"grid", exprs_to_json(step.grid)},
                             {"block", step.block.text()},
                             {"lds_bytes", step.lds_bytes.text()}});
  }
  json["needs"] = exprs_to_json(plan.needs);
  json["flops"] = plan.flops.text();
  json["bytes"] = plan.bytes.text();
  return json.dump();
}

Result<Plan> plan_from_json(std::string_view text) {
  try {
    auto plan = plan_from(Json::parse(text));
    if (!plan) return fail(ErrorKind::kBadInput, "launch plan: " + plan.error().message);
    return plan;
  } catch (const nlohmann::json::exception& failure) {
    return fail(ErrorKind::kBadInput, fmt::format("launch plan: {}", failure.what()));
  }
}

Result<BoundPlan> bind(const Plan& plan, const Env& dims) {
  KGEN_TRY(const Env env, bind_dims(plan, dims));
  for (const Expr& need : plan.needs) {
    const auto holds = need.eval(env);
    if (!holds) return fail(ErrorKind::kCheckFailed, "not legal for this shape: " + holds.error().message);
    if (*holds == 0)
      return fail(ErrorKind::kCheckFailed, fmt::format("not legal for this shape: needs '{}'", need.text()));
  }
  BoundPlan bound;
  for (const Param& param : plan.params) {
    BoundParam item;
    item.name = param.name;
    item.role = param.role;
    item.dtype = param.dtype;
    item.default_value = param.default_value;
    item.align = param.align;
    if (param.role == Role::kDim) {
      const auto value = env.find(param.name);
      if (value == env.end())
        return fail(ErrorKind::kBadInput, fmt::format("parameter '{}' is no dim of the plan", param.name));
      item.value = value->second;
    } else if (param.role != Role::kScalar) {
      KGEN_TRY(const std::int64_t present, param.present.eval(env));
      item.present = present != 0;
    }
    if (item.present && (is_tensor(param.role) || is_buffer(param.role))) {
      KGEN_TRY(item.shape, evaluate(param.shape, env, param.name));
      if (is_tensor(param.role)) {
        KGEN_TRY(item.strides, evaluate(param.strides, env, param.name));
      } else {
        item.strides.assign(1, 1);
      }
      if (item.strides.size() != item.shape.size())
        return fail(ErrorKind::kBadInput, fmt::format("'{}': shape and strides differ in length", param.name));
      KGEN_TRY(item.bytes, extent(item));
      std::int64_t* total = param.role == Role::kWorkspace  ? &bound.workspace_bytes
                            : param.role == Role::kPrepared ? &bound.prepared_bytes
                                                            : nullptr;
      if (total != nullptr) {
        KGEN_TRY(*total, padded_sum(*total, item.bytes, param.name));
      }
    }
    bound.params.push_back(std::move(item));
  }
  for (const Step& step : plan.steps) {
    KGEN_TRY(auto item, bind_step(step, env));
    if (item) bound.steps.push_back(std::move(*item));
  }
  KGEN_TRY(const std::int64_t flops, plan.flops.eval(env));
  KGEN_TRY(const std::int64_t bytes, plan.bytes.eval(env));
  bound.flops = static_cast<double>(flops);
  bound.bytes = static_cast<double>(bytes);
  return bound;
}

}  // namespace kgen
