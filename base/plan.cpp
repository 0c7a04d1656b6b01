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

Binder::Binder(const Plan& plan) : plan_(&plan) {
  for (const auto& [name, value] : plan.constants) {
    if (std::ranges::find(plan.dims, name) != plan.dims.end()) continue;
    constants_[name] = value;
    if (name == "max_block") max_block_ = value;
    if (name == "lds_limit") lds_limit_ = value;
  }
  dim_defaults_ = terms(plan.dim_defaults);
  // A default may read the dims before its own.
  for (std::size_t i = 0; i < dim_defaults_.size(); ++i) {
    for (int& at : dim_defaults_[i].slots) {
      if (at >= static_cast<int>(i)) at = -1;
    }
  }
  needs_ = terms(plan.needs);
  for (const Param& param : plan.params) {
    params_.push_back({.present = term(param.present),
                       .shape = terms(param.shape),
                       .strides = terms(param.strides),
                       .dim = param.role == Role::kDim ? slot(param.name) : -1});
  }
  for (const Step& step : plan.steps) {
    steps_.push_back({.when = term(step.when),
                      .grid = {term(step.grid[0]), term(step.grid[1]), term(step.grid[2])},
                      .block = term(step.block),
                      .lds_bytes = term(step.lds_bytes)});
  }
  flops_ = term(plan.flops);
  bytes_ = term(plan.bytes);
}

int Binder::slot(std::string_view name) const {
  const auto dim = std::ranges::find(plan_->dims, name);
  return dim == plan_->dims.end() ? -1 : static_cast<int>(dim - plan_->dims.begin());
}

Binder::Term Binder::term(const Expr& expr) const {
  Term made{expr.specialised(constants_), {}, {}};
  for (const std::string& name : made.expr.names()) made.slots.push_back(slot(name));
  if (made.slots.empty()) {
    if (const auto value = made.expr.eval_slots(nullptr))
      made.constant = *value;  // an error is told to who asks for it
  }
  return made;
}

std::vector<Binder::Term> Binder::terms(std::span<const Expr> exprs) const {
  std::vector<Term> made;
  for (const Expr& expr : exprs) made.push_back(term(expr));
  return made;
}

Result<std::int64_t> Binder::eval_names(const Term& term, const Values& values) {
  std::int64_t few[16];
  std::vector<std::int64_t> many;
  std::int64_t* read = few;
  if (term.slots.size() > std::size(few)) {
    many.resize(term.slots.size());
    read = many.data();
  }
  for (std::size_t i = 0; i < term.slots.size(); ++i) {
    if (term.slots[i] < 0)
      return fail(ErrorKind::kBadInput, fmt::format("'{}': unknown name '{}'", term.expr.text(), term.expr.names()[i]));
    read[i] = values[static_cast<std::size_t>(term.slots[i])];
  }
  return term.expr.eval_slots(read);
}

Result<void> Binder::eval_sizes(std::span<const Term> terms, const Values& values, const std::string& name,
                                std::vector<std::int64_t>& out) {
  out.reserve(terms.size());
  for (const Term& term : terms) {
    KGEN_TRY(const std::int64_t value, eval(term, values));
    if (value < 0)
      return fail(ErrorKind::kBadInput, fmt::format("'{}': '{}' is negative ({})", name, term.expr.text(), value));
    out.push_back(value);
  }
  return {};
}

// nullopt: the step has nothing to do for this shape.
Result<std::optional<BoundStep>> Binder::bind_step(std::size_t index, const Values& values) const {
  const Step& step = plan_->steps[index];
  const StepTerms& terms = steps_[index];
  KGEN_TRY(const std::int64_t when, eval(terms.when, values));
  if (when == 0) return std::nullopt;
  BoundStep bound;
  bound.kernel = step.kernel;
  bound.prepare = step.prepare;
  // What both CUDA and HIP take: x below 2^31, y and z at most 65535.
  static constexpr std::int64_t kMostBlocks[] = {(std::int64_t{1} << 31) - 1, 65535, 65535};
  bool empty = false;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    KGEN_TRY(const std::int64_t blocks, eval(terms.grid[axis], values));
    if (blocks < 0 || blocks > kMostBlocks[axis])
      return fail(ErrorKind::kCheckFailed, fmt::format("'{}': {} blocks along {} are outside 0 … {}", step.kernel,
                                                       blocks, "xyz"[axis], kMostBlocks[axis]));
    empty |= blocks == 0;
    bound.grid[axis] = static_cast<std::uint32_t>(blocks);
  }
  if (empty) return std::nullopt;
  KGEN_TRY(const std::int64_t block, eval(terms.block, values));
  if (block < 1 || block > max_block_)
    return fail(ErrorKind::kCheckFailed,
                fmt::format("'{}': a block of {} work-items is outside 1 … {}", step.kernel, block, max_block_));
  KGEN_TRY(const std::int64_t lds_bytes, eval(terms.lds_bytes, values));
  if (lds_bytes < 0 || lds_bytes > lds_limit_)
    return fail(ErrorKind::kCheckFailed,
                fmt::format("'{}': {} bytes of LDS are outside 0 … {}", step.kernel, lds_bytes, lds_limit_));
  bound.block = static_cast<std::uint32_t>(block);
  bound.lds_bytes = static_cast<std::uint32_t>(lds_bytes);
  return bound;
}

Result<BoundPlan> Binder::bind(const Env& dims) const {
  for (const auto& [name, value] : dims) {
    if (std::ranges::find(plan_->dims, name) == plan_->dims.end())
      return fail(ErrorKind::kBadInput, fmt::format("unknown dim '{}'{}", name, did_you_mean(name, plan_->dims)));
  }
  Values values(plan_->dims.size());
  for (std::size_t i = 0; i < plan_->dims.size(); ++i) {
    const std::string& name = plan_->dims[i];
    if (const auto given = dims.find(name); given != dims.end()) {
      values[i] = given->second;
    } else if (plan_->dim_defaults[i].text().empty()) {
      return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is missing", name));
    } else {
      KGEN_TRY(values[i], eval(dim_defaults_[i], values));
    }
    if (values[i] < 0) return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is negative ({})", name, values[i]));
  }
  return bind_values(values);
}

Result<BoundPlan> Binder::bind(std::span<const std::int64_t> dims) const {
  if (dims.size() != plan_->dims.size())
    return fail(ErrorKind::kBadInput, fmt::format("{} dims given, the plan has {}", dims.size(), plan_->dims.size()));
  return bind_values(Values(dims.begin(), dims.end()));
}

Result<BoundPlan> Binder::bind_values(const Values& values) const {
  const Plan& plan = *plan_;
  for (const Term& need : needs_) {
    const auto holds = eval(need, values);
    if (!holds) return fail(ErrorKind::kCheckFailed, "not legal for this shape: " + holds.error().message);
    if (*holds == 0)
      return fail(ErrorKind::kCheckFailed, fmt::format("not legal for this shape: needs '{}'", need.expr.text()));
  }
  BoundPlan bound;
  bound.params.resize(plan.params.size());
  for (std::size_t i = 0; i < plan.params.size(); ++i) {
    const Param& param = plan.params[i];
    const ParamTerms& terms = params_[i];
    BoundParam& item = bound.params[i];
    item.name = param.name;
    item.role = param.role;
    item.dtype = param.dtype;
    item.default_value = param.default_value;
    item.align = param.align;
    if (param.role == Role::kDim) {
      if (terms.dim < 0)
        return fail(ErrorKind::kBadInput, fmt::format("parameter '{}' is no dim of the plan", param.name));
      item.value = values[static_cast<std::size_t>(terms.dim)];
    } else if (param.role != Role::kScalar) {
      KGEN_TRY(const std::int64_t present, eval(terms.present, values));
      item.present = present != 0;
    }
    if (!item.present || !(is_tensor(param.role) || is_buffer(param.role))) continue;
    KGEN_CHECK_OK(eval_sizes(terms.shape, values, param.name, item.shape));
    if (is_tensor(param.role)) {
      KGEN_CHECK_OK(eval_sizes(terms.strides, values, param.name, item.strides));
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
  bound.steps.reserve(plan.steps.size());
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    KGEN_TRY(auto item, bind_step(i, values));
    if (item) bound.steps.push_back(std::move(*item));
  }
  KGEN_TRY(const std::int64_t flops, eval(flops_, values));
  KGEN_TRY(const std::int64_t bytes, eval(bytes_, values));
  bound.flops = static_cast<double>(flops);
  bound.bytes = static_cast<double>(bytes);
  return bound;
}

Result<BoundPlan> bind(const Plan& plan, const Env& dims) { return Binder(plan).bind(dims); }

}  // namespace kgen
