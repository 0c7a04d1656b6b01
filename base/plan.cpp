#include "base/plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/json.h"
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
    {DType::kFp64, "fp64", 8},   {DType::kFp32, "fp32", 4},        {DType::kFp16, "fp16", 2},
    {DType::kBf16, "bf16", 2},   {DType::kInt8, "int8", 1},        {DType::kInt32, "int32", 4},
    {DType::kInt64, "int64", 8}, {DType::kFp8E4m3, "fp8_e4m3", 1}, {DType::kFp8E5m2, "fp8_e5m2", 1},
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
    {Role::kTensorMap, "tensor_map"},
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
  for (const auto& [name, value] : json.at("constants").items()) plan.constants[name] = exactly<std::int64_t>(value);
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
    param.align = exactly<int>(item.at("align"));
    if (is_tensor(param.role) && param.shape.size() != param.strides.size())
      return fail(ErrorKind::kBadInput, fmt::format("'{}': shape and strides differ in length", param.name));
    if (is_buffer(param.role) && param.shape.size() != 1)
      return fail(ErrorKind::kBadInput, fmt::format("'{}': a buffer has one size", param.name));
    if (param.role == Role::kTensorMap) {
      param.of = item.at("of").get<std::string>();
      KGEN_TRY(param.box, parse_exprs(item.at("box")));
      KGEN_TRY(param.lower, parse_exprs(item.at("lower")));
      KGEN_TRY(param.upper, parse_exprs(item.at("upper")));
      KGEN_TRY(param.steps, parse_exprs(item.at("steps")));
    }
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

}  // namespace

std::string_view dtype_name(DType dtype) { return std::ranges::find(kDTypes, dtype, &DTypeRow::dtype)->name; }
int dtype_bytes(DType dtype) { return std::ranges::find(kDTypes, dtype, &DTypeRow::dtype)->bytes; }
std::string_view role_name(Role role) { return std::ranges::find(kRoles, role, &RoleRow::role)->name; }

std::vector<std::string> dtype_names() {
  std::vector<std::string> names;
  for (const DTypeRow& row : kDTypes) names.emplace_back(row.name);
  return names;
}

Result<DType> find_dtype(std::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (name == row.name) return row.dtype;
  }
  return fail(ErrorKind::kBadInput, fmt::format("unknown dtype '{}'{}", name, did_you_mean(name, dtype_names())));
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
    if (param.role != Role::kTensorMap) continue;
    Json& map = json["params"].back();
    map["of"] = param.of;
    map["box"] = exprs_to_json(param.box);
    map["lower"] = exprs_to_json(param.lower);
    map["upper"] = exprs_to_json(param.upper);
    map["steps"] = exprs_to_json(param.steps);
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

class Binder::Values {
 public:
  Values(const Binder& binder, Dims dims, const std::vector<double>& results)
      : binder_(binder), dims_(dims), results_(results) {}

  // False: there is no such value, and explained() says why.
  bool read(const Term& term, std::int64_t& value) const {
    const double result = results_[term.node];
    if (!ExprSet::known(result)) return false;
    value = static_cast<std::int64_t>(result);
    return true;
  }
  // Bytes from the first to the last element.
  Result<std::int64_t> extent(const Param& param, const ParamTerms& terms) const {
    Checked last;
    bool empty = false;
    for (std::size_t axis = 0; axis < terms.shape.size(); ++axis) {
      std::int64_t length = 0, stride = 1;
      if (!read(terms.shape[axis], length) || length < 0) return no_size(param, terms.shape[axis]);
      if (is_tensor(param.role) && (!read(terms.strides[axis], stride) || stride < 0))
        return no_size(param, terms.strides[axis]);
      empty |= length == 0;
      Checked offset{length - 1};
      offset.multiply(stride);
      last.add(offset.value);
      last.overflow |= offset.overflow;
    }
    if (empty) return 0;
    last.add(1);
    last.multiply(terms.element_bytes);
    if (last.overflow) return fail(ErrorKind::kBadInput, fmt::format("the size of '{}' overflows", param.name));
    return last.value;
  }
  // The error that there is, in words.
  tl::unexpected<Error> explained(const Term& term) const {
    Env env;
    for (std::size_t i = 0; i < dims_.size(); ++i) env[binder_.plan_->dims[i]] = static_cast<std::int64_t>(dims_[i]);
    const auto value = term.expr->specialised(binder_.constants_).eval(env);
    if (!value) return tl::unexpected(value.error());
    return fail(ErrorKind::kInternal, fmt::format("'{}' has no value", term.expr->text()));
  }

 private:
  tl::unexpected<Error> no_size(const Param& param, const Term& term) const {
    std::int64_t value = 0;
    if (!read(term, value)) return explained(term);
    return fail(ErrorKind::kBadInput, fmt::format("'{}': '{}' is negative ({})", param.name, term.expr->text(), value));
  }

  const Binder& binder_;
  const Dims dims_;
  const std::vector<double>& results_;
};

Binder::Binder(const Plan& plan) : plan_(&plan) {
  for (const auto& [name, value] : plan.constants) {
    if (std::ranges::find(plan.dims, name) != plan.dims.end()) continue;
    constants_[name] = value;
    if (name == "max_block") max_block_ = value;
    if (name == "lds_limit") lds_limit_ = value;
  }
  for (const std::string& dim : plan.dims) set_.input(dim);
  needs_ = terms(plan.needs);
  for (const Param& param : plan.params) {
    const auto dim = std::ranges::find(plan.dims, param.name);
    params_.push_back(
        {.present = term(param.present),
         .shape = terms(param.shape),
         .strides = terms(param.strides),
         .box = terms(param.box),
         .lower = terms(param.lower),
         .upper = terms(param.upper),
         .steps = terms(param.steps),
         .dim = param.role == Role::kDim && dim != plan.dims.end() ? static_cast<int>(dim - plan.dims.begin()) : -1,
         .element_bytes = dtype_bytes(param.dtype)});
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

Binder::Term Binder::term(const Expr& expr) { return {set_.add(expr.specialised(constants_)), &expr}; }

std::vector<Binder::Term> Binder::terms(std::span<const Expr> exprs) {
  std::vector<Term> made;
  for (const Expr& expr : exprs) made.push_back(term(expr));
  return made;
}

Result<TensorMapShape> Binder::tensor_map(const Param& param, const ParamTerms& terms, const Values& values) {
  TensorMapShape map{
      .dtype = param.dtype, .rank = static_cast<int>(terms.shape.size()), .pixels = !terms.lower.empty()};
  const std::size_t corners = map.pixels ? 2 : 0;
  if (map.rank < 1 || map.rank > TensorMapShape::kMostAxes || terms.strides.size() != terms.shape.size() ||
      terms.box.size() != (map.pixels ? 2 : terms.shape.size()) || (map.pixels && map.rank != 4) ||
      terms.lower.size() != corners || terms.upper.size() != corners || terms.steps.size() != corners)
    return fail(ErrorKind::kBadInput, fmt::format("'{}': axes of a tensor map differ in number", param.name));
  const auto read = [&](const std::vector<Term>& list, std::size_t from_last, std::int64_t least, std::int64_t most,
                        auto& value) -> Result<void> {
    const Term& term = list[list.size() - 1 - from_last];
    std::int64_t number = 0;
    if (!values.read(term, number)) return values.explained(term);
    if (number < least || number > most)
      return fail(ErrorKind::kCheckFailed, fmt::format("'{}': '{}' is {}, a tensor map takes {} to {}", param.name,
                                                       term.expr->text(), number, least, most));
    value = static_cast<std::remove_reference_t<decltype(value)>>(number);
    return {};
  };
  // What the driver takes (cuTensorMapEncodeTiled): sizes to 2^32, strides to 2^40 bytes in steps of 16.
  for (std::size_t axis = 0; axis < terms.shape.size(); ++axis) {
    KGEN_CHECK_OK(read(terms.shape, axis, 1, std::int64_t{1} << 32, map.shape[axis]));
    // Nobody tells the driver the fastest axis's: elements lie side by side.
    KGEN_CHECK_OK(
        read(terms.strides, axis, axis == 0 ? 1 : 0, axis == 0 ? 1 : std::int64_t{1} << 39, map.strides[axis]));
    map.strides[axis] *= static_cast<std::uint64_t>(terms.element_bytes);
    map.steps[axis] = 1;
    if (axis > 0 && map.strides[axis] % 16 != 0)
      return fail(ErrorKind::kCheckFailed, fmt::format("'{}': a stride of {} bytes, a tensor map takes multiples of 16",
                                                       param.name, map.strides[axis]));
  }
  for (std::size_t axis = 0; axis < terms.box.size(); ++axis)
    KGEN_CHECK_OK(read(terms.box, axis, 1, map.pixels && axis == 1 ? 1024 : 256, map.box[axis]));
  for (std::size_t axis = 0; axis < corners; ++axis) {
    KGEN_CHECK_OK(read(terms.lower, axis, -128, 127, map.lower[axis]));
    KGEN_CHECK_OK(read(terms.upper, axis, -128, 127, map.upper[axis]));
    KGEN_CHECK_OK(read(terms.steps, axis, 1, 8, map.steps[axis + 1]));
  }
  return map;
}

Result<void> Binder::sizes(Dims dims, std::vector<double>& results, BoundSizes& bound) const {
  const Plan& plan = *plan_;
  if (dims.size() != plan.dims.size())
    return fail(ErrorKind::kBadInput, fmt::format("{} dims given, the plan has {}", dims.size(), plan.dims.size()));
  set_.run(dims, results);
  const Values values(*this, dims, results);
  for (const Term& need : needs_) {
    std::int64_t holds = 0;
    if (!values.read(need, holds))
      return fail(ErrorKind::kCheckFailed, "not legal for this shape: " + values.explained(need).value().message);
    if (holds == 0)
      return fail(ErrorKind::kCheckFailed, fmt::format("not legal for this shape: needs '{}'", need.expr->text()));
  }
  bound.workspace_bytes = bound.prepared_bytes = 0;
  bound.params.assign(plan.params.size(), {});
  bound.maps.clear();
  for (std::size_t i = 0; i < plan.params.size(); ++i) {
    const Param& param = plan.params[i];
    const ParamTerms& terms = params_[i];
    BoundSizes::Param& item = bound.params[i];
    if (param.role == Role::kScalar) continue;
    if (param.role == Role::kDim) {
      if (terms.dim < 0)
        return fail(ErrorKind::kBadInput, fmt::format("parameter '{}' is no dim of the plan", param.name));
      item.value = static_cast<std::int64_t>(dims[static_cast<std::size_t>(terms.dim)]);
      continue;
    }
    std::int64_t present = 0;
    if (!values.read(terms.present, present)) return values.explained(terms.present);
    item.present = present != 0;
    if (param.role == Role::kTensorMap) {
      bound.maps.emplace_back();
      if (item.present) {
        KGEN_TRY(bound.maps.back(), tensor_map(param, terms, values));
      }
      continue;
    }
    if (!item.present) continue;
    if (is_tensor(param.role) ? terms.strides.size() != terms.shape.size() : terms.shape.size() != 1)
      return fail(ErrorKind::kBadInput, fmt::format("'{}': shape and strides differ in length", param.name));
    KGEN_TRY(item.value, values.extent(param, terms));
    std::int64_t* total = param.role == Role::kWorkspace  ? &bound.workspace_bytes
                          : param.role == Role::kPrepared ? &bound.prepared_bytes
                                                          : nullptr;
    if (total != nullptr) {
      KGEN_TRY(*total, padded_sum(*total, item.value, param.name));
    }
  }
  bound.steps.clear();
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const StepTerms& terms = steps_[i];
    std::int64_t when = 0, block = 0, lds_bytes = 0;
    if (!values.read(terms.when, when)) return values.explained(terms.when);
    if (when == 0) continue;
    BoundSizes::Step item{.index = static_cast<std::uint32_t>(i)};
    // What both CUDA and HIP take: x below 2^31, y and z at most 65535.
    static constexpr std::int64_t kMostBlocks[] = {(std::int64_t{1} << 31) - 1, 65535, 65535};
    bool empty = false;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      std::int64_t blocks = 0;
      if (!values.read(terms.grid[axis], blocks)) return values.explained(terms.grid[axis]);
      if (blocks < 0 || blocks > kMostBlocks[axis])
        return fail(ErrorKind::kCheckFailed, fmt::format("'{}': {} blocks along {} are outside 0 … {}", step.kernel,
                                                         blocks, "xyz"[axis], kMostBlocks[axis]));
      empty |= blocks == 0;
      item.grid[axis] = static_cast<std::uint32_t>(blocks);
    }
    if (empty) continue;
    if (!values.read(terms.block, block)) return values.explained(terms.block);
    if (block < 1 || block > max_block_)
      return fail(ErrorKind::kCheckFailed,
                  fmt::format("'{}': a block of {} work-items is outside 1 … {}", step.kernel, block, max_block_));
    if (!values.read(terms.lds_bytes, lds_bytes)) return values.explained(terms.lds_bytes);
    if (lds_bytes < 0 || lds_bytes > lds_limit_)
      return fail(ErrorKind::kCheckFailed,
                  fmt::format("'{}': {} bytes of LDS are outside 0 … {}", step.kernel, lds_bytes, lds_limit_));
    item.block = static_cast<std::uint32_t>(block);
    item.lds_bytes = static_cast<std::uint32_t>(lds_bytes);
    bound.steps.push_back(item);
  }
  for (const auto& [term, total] : {std::pair(&flops_, &bound.flops), std::pair(&bytes_, &bound.bytes)}) {
    *total = results[term->node];
    if (!ExprSet::known(*total)) return values.explained(*term);
  }
  return {};
}

Result<std::vector<double>> Binder::values(const Env& given) const {
  const Plan& plan = *plan_;
  for (const auto& [name, value] : given) {
    if (std::ranges::find(plan.dims, name) == plan.dims.end())
      return fail(ErrorKind::kBadInput, fmt::format("unknown dim '{}'{}", name, did_you_mean(name, plan.dims)));
  }
  Env dims = constants_;  // and a default may read the dims before its own
  std::vector<double> values;
  for (std::size_t i = 0; i < plan.dims.size(); ++i) {
    const std::string& name = plan.dims[i];
    std::int64_t value = 0;
    if (const auto found = given.find(name); found != given.end()) {
      value = found->second;
    } else if (plan.dim_defaults[i].text().empty()) {
      return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is missing", name));
    } else {
      KGEN_TRY(value, plan.dim_defaults[i].eval(dims));
    }
    if (value < 0) return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is negative ({})", name, value));
    dims[name] = value;
    values.push_back(static_cast<double>(value));
    if (!ExprSet::known(values.back()))
      return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is {}; sizes go from 0 to 2^53", name, value));
  }
  return values;
}

Result<BoundPlan> Binder::bind(const Env& given) const {
  const Plan& plan = *plan_;
  KGEN_TRY(const std::vector<double> dims, values(given));
  std::vector<double> results;
  BoundSizes made;
  KGEN_CHECK_OK(sizes(dims, results, made));
  BoundPlan bound{.params = {},
                  .maps = made.maps,
                  .steps = {},
                  .workspace_bytes = made.workspace_bytes,
                  .prepared_bytes = made.prepared_bytes,
                  .flops = made.flops,
                  .bytes = made.bytes};
  for (std::size_t i = 0; i < plan.params.size(); ++i) {
    const Param& param = plan.params[i];
    BoundParam& item = bound.params.emplace_back(BoundParam{.name = param.name,
                                                            .role = param.role,
                                                            .dtype = param.dtype,
                                                            .present = made.params[i].present,
                                                            .shape = {},
                                                            .strides = {},
                                                            .default_value = param.default_value,
                                                            .align = param.align,
                                                            .of = param.of});
    (param.role == Role::kDim ? item.value : item.bytes) = made.params[i].value;
    if (!item.present || !(is_tensor(param.role) || is_buffer(param.role))) continue;
    // sizes() has seen that they are there.
    for (const Term& length : params_[i].shape) item.shape.push_back(static_cast<std::int64_t>(results[length.node]));
    for (const Term& stride : params_[i].strides)
      item.strides.push_back(static_cast<std::int64_t>(results[stride.node]));
    if (is_buffer(param.role)) item.strides.assign(1, 1);
  }
  for (const BoundSizes::Step& step : made.steps) {
    const Step& from = plan.steps[step.index];
    bound.steps.push_back({.kernel = from.kernel,
                           .prepare = from.prepare,
                           .grid = step.grid,
                           .block = step.block,
                           .lds_bytes = step.lds_bytes});
  }
  return bound;
}

Result<BoundPlan> bind(const Plan& plan, const Env& dims) { return Binder(plan).bind(dims); }

}  // namespace kgen
