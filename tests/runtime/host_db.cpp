#include "tests/runtime/host_db.h"

#include <cstring>

#include "base/hash.h"
#include "base/text.h"
#include "device/device.h"

namespace kgen::testing {
namespace {

Expr expr(const std::string& text) { return Expr::parse(text).value(); }

Param tensor(const std::string& name, Role role, const std::vector<std::string>& shape,
             const std::vector<std::string>& strides, const std::string& present = "1") {
  Param param{.name = name,
              .role = role,
              .dtype = DType::kFp32,
              .shape = {},
              .strides = {},
              .present = expr(present),
              .align = 16};
  for (const auto& text : shape) param.shape.push_back(expr(text));
  for (const auto& text : strides) param.strides.push_back(expr(text));
  return param;
}

Step step(const std::string& kernel, bool prepare, const std::string& items) {
  return {.kernel = kernel,
          .prepare = prepare,
          .when = expr("1"),
          .grid = {expr("ceil_div(" + items + ", 64)"), expr("1"), expr("1")},
          .block = expr("64"),
          .lds_bytes = expr("0")};
}

}  // namespace

OpRecord host_op(bool with_bias) {
  return {.signature = std::string("row_scale dtype=fp32 epilogue=") + (with_bias ? "bias" : ""),
          .op = "row_scale",
          .dims = "rows,cols,ld",
          .dim_defaults = "\n\ncols",
          .attributes = "dtype= epilogue="};
}

Plan host_plan(bool with_bias, const std::vector<std::string>& needs, int repeats) {
  Plan plan;
  plan.constants = {{"epilogue_bias", with_bias ? 1 : 0}};
  plan.dims = {"rows", "cols", "ld"};
  plan.dim_defaults = {Expr(), Expr(), expr("cols")};  // no text: required
  plan.params.push_back(tensor("a", Role::kIn, {"rows", "cols"}, {"ld", "1"}));
  plan.params.push_back(tensor("w", Role::kIn, {"cols"}, {"1"}));
  plan.params.push_back(tensor("bias", Role::kIn, {"cols"}, {"1"}, "epilogue_bias"));
  plan.params.push_back(tensor("d", Role::kOut, {"rows", "cols"}, {"cols", "1"}));
  plan.params.push_back(tensor("packed", Role::kPrepared, {"cols"}, {}));
  plan.params.push_back(tensor("sums", Role::kWorkspace, {"rows"}, {}));
  Param alpha = tensor("alpha", Role::kScalar, {}, {});
  alpha.default_value = 1;
  plan.params.push_back(alpha);
  for (const auto& name : plan.dims) {
    Param dim = tensor(name, Role::kDim, {}, {});
    dim.dtype = DType::kInt64;
    plan.params.push_back(dim);
  }
  plan.steps = {step("pack", true, "cols"), step("row_sum", false, "rows"), step("spread", false, "rows*cols")};
  plan.steps.insert(plan.steps.begin() + 1, static_cast<std::size_t>(repeats - 1), plan.steps[1]);
  for (const auto& need : needs) plan.needs.push_back(expr(need));
  plan.flops = expr("2*rows*cols");
  plan.bytes = expr("4*rows*cols");
  return plan;
}

Result<void> make_host_db(const std::string& path, const std::string& kernels, const std::vector<HostWinner>& winners,
                          const std::string& arch) {
  KGEN_TRY(const auto host, open_device("host"));
  KGEN_TRY(const std::string code, read_file(kernels));
  KGEN_TRY(Db db, Db::open(path, DbMode::kReadWrite));
  const DeviceInfo& info = host->info();
  KGEN_TRY(const auto device, db.intern_device({.arch = arch, .name = info.name, .driver = info.driver, .uuid = ""}));
  for (const HostWinner& winner : winners) {
    KGEN_TRY(const auto problem, db.intern_problem(host_op(winner.with_bias),
                                                   {.dims_key = winner.dims_key, .dims_json = "{}", .label = ""}));
    TrialRecord trial;
    trial.problem = problem;
    trial.device = device;
    trial.config = winner.config;
    trial.status = TrialStatus::kTimed;
    trial.timing = winner.goal.timing;
    trial.deterministic = winner.same_bits;
    trial.time_us = winner.time_us;
    trial.is_default = winner.is_default;
    KGEN_TRY(const auto id, db.record(trial));
    ObjectRecord object{.hash = {}, .arch = arch, .kind = "host", .bytes = {}};
    const std::string bytes = code + winner.code_suffix;
    object.bytes.resize(bytes.size());
    std::memcpy(object.bytes.data(), bytes.data(), bytes.size());
    object.hash = hash_bytes(object.bytes);
    std::string plan = plan_to_json(host_plan(winner.with_bias, winner.needs, winner.repeats));
    if (!winner.first_role.empty()) {
      const std::string key = "\"role\":";
      const std::size_t begin = plan.find('"', plan.find(key) + key.size()) + 1;
      plan.replace(begin, plan.find('"', begin) - begin, winner.first_role);
    }
    KGEN_CHECK_OK(db.publish({.problem = problem,
                              .device = device,
                              .trial = id,
                              .goal = winner.goal,
                              .plan_json = plan,
                              .object_hash = object.hash,
                              .is_default = winner.is_default},
                             object));
  }
  return {};
}

}  // namespace kgen::testing
