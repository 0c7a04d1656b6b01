#include "tuner/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "base/text.h"
#include "tuner/process.h"

namespace kgen {

OpRecord op_record(const OpSpec& spec) {
  OpRecord record{.signature = signature(*spec.op, spec.problem),
                  .op = spec.op->name,
                  .dims = {},
                  .dim_defaults = {},
                  .attributes = {}};
  std::vector<std::string> dims, defaults, attributes;
  for (const DimDef& dim : spec.op->dims) {
    dims.push_back(dim.name);
    defaults.push_back(dim.default_text);
  }
  for (const AttributeDef& attribute : spec.op->attributes)
    attributes.push_back(attribute.name + "=" + attribute.default_text);
  record.dims = join(dims, ",");
  record.dim_defaults = join(defaults, "\n");
  record.attributes = join(attributes, " ");
  return record;
}

ProblemRecord problem_record(const OpSpec& spec, const BoundPlan& bound) {
  nlohmann::json dims = nlohmann::json::object();
  for (const auto& [name, value] : spec.problem.dims) dims[name] = value;
  return {.dims_key = dims_key(*spec.op, spec.problem),
          .dims_json = dims.dump(),
          .label = spec.problem.label,
          .flops = bound.flops,
          .bytes = bound.bytes};
}

DeviceRecord device_record(const DeviceInfo& info) {
  return {.arch = std::string(info.arch->name),
          .name = info.name,
          .driver = info.driver,
          .uuid = "",  // cards of one model, driver and host share their results; a card's own id would part them
          .compute_units = info.compute_units,
          .memory_bytes = info.memory_bytes,
          .l2_bytes = info.l2_bytes,
          .clock_khz = info.clock_khz};
}

bool writes_nothing(const BoundPlan& bound) {
  for (const BoundParam& param : bound.params)
    if ((param.role == Role::kOut || param.role == Role::kInOut) && param.present &&
        std::find(param.shape.begin(), param.shape.end(), 0) == param.shape.end())
      return false;
  return true;
}

Result<std::string> code_file(const CodeObject& code) {
  std::error_code error;
  if (!code.path.empty() && std::filesystem::exists(code.path, error)) return code.path;
  static const Result<TemporaryFolder> folder = TemporaryFolder::make();
  if (!folder) return tl::unexpected(folder.error());
  std::string path = folder->path() + "/" + code.hash;
  KGEN_CHECK_OK(write_file(path, {reinterpret_cast<const char*>(code.bytes.data()), code.bytes.size()}));
  return path;
}

Result<CheckSources> check_sources(const OpSpec& spec, Arch arch) {
  CheckSources sources;
  KGEN_TRY(sources.reference, emit_reference(spec, arch));
  KGEN_TRY(KernelSource checks, emit_checks(spec, arch));
  sources.texts = {sources.reference.text, std::move(checks.text)};
  if (arch->vendor != Vendor::kHost) {
    KGEN_TRY(KernelSource displace, emit_displace(arch));
    sources.texts.push_back(std::move(displace.text));
  }
  return sources;
}

Result<CheckCase> reference_case(const OpSpec& spec, Arch arch, const CheckSources& sources,
                                 const std::vector<CompileResult>& compiled) {
  std::vector<std::string> paths;
  for (const CompileResult& result : compiled) {
    if (result.status != CompileStatus::kCompiled)
      return fail(ErrorKind::kCheckFailed,
                  fmt::format("the reference does not compile: {}; repeat with: {}",
                              result.status == CompileStatus::kTimeout ? "time limit" : first_error(result.log),
                              result.command));
    KGEN_TRY(paths.emplace_back(), code_file(result.code));
  }
  return make_check_case(spec, arch, sources.reference, std::move(paths), 0);
}

Result<CheckCase> reference_case(const OpSpec& spec, Arch arch, Compiler& compiler) {
  KGEN_TRY(const CheckSources sources, check_sources(spec, arch));
  std::vector<CompileResult> compiled;
  for (const std::string& text : sources.texts) {
    KGEN_TRY(compiled.emplace_back(), compiler.compile(text, arch));
  }
  return reference_case(spec, arch, sources, compiled);
}

Result<std::vector<CheckCase::Output>> candidate_limits(const OpSpec& spec, Arch arch, const std::string& config,
                                                        const BoundPlan& bound) {
  const OpSpec own = settled(spec, config);
  if (own.problem.attributes == spec.problem.attributes) return std::vector<CheckCase::Output>();
  return output_limits(own, arch, bound.params);
}

PlanUsage plan_usage(const DeviceInfo& device, const BoundPlan& bound, const CodeObject& code) {
  PlanUsage usage;
  const auto most = [](int& into, int value) { into = std::max(into, value); };
  const auto prune = [&](std::string why) {
    if (usage.pruned.empty()) usage.pruned = std::move(why);
  };
  const int lds_limit = device.lds_per_block > 0 ? device.lds_per_block : device.arch->lds_limit;
  for (const BoundStep& step : bound.steps) {
    const auto at = std::find_if(code.kernels.begin(), code.kernels.end(),
                                 [&](const KernelUsage& k) { return k.kernel == step.kernel; });
    const KernelUsage kernel = at == code.kernels.end() ? KernelUsage{.kernel = step.kernel} : *at;
    const int lds = std::max(kernel.lds_bytes, 0) + static_cast<int>(step.lds_bytes);
    most(usage.registers, kernel.registers);
    most(usage.spills, kernel.spills);
    most(usage.lds_bytes, lds);
    if (lds > lds_limit)
      prune(fmt::format("LDS over the limit: {} uses {} bytes, the device has {}", step.kernel, lds, lds_limit));
    const int block_limit =
        kernel.max_block > 0 ? std::min(kernel.max_block, device.arch->max_block) : device.arch->max_block;
    if (static_cast<int>(step.block) > block_limit)
      prune(
          fmt::format("block over the limit: {} has {} work-items, at most {}", step.kernel, step.block, block_limit));
    if (kernel.spills > 0) prune(fmt::format("spills: {} keeps {} registers in memory", step.kernel, kernel.spills));
    if (kernel.registers < 0) continue;
    const Occupancy fit =
        occupancy(device.arch, kernel, static_cast<int>(step.block), static_cast<int>(step.lds_bytes));
    if (usage.occupancy_waves < 0 || fit.waves < usage.occupancy_waves) usage.occupancy_waves = fit.waves;
    if (fit.blocks == 0)
      prune(fmt::format("occupancy 0: no block of {} fits a compute unit (limit: {})", step.kernel, fit.limit));
  }
  return usage;
}

Result<OwnOps> read_own_ops(const std::vector<std::string>& paths) {
  OwnOps own_ops;
  for (const std::string& path : paths) {
    KGEN_TRY(const std::shared_ptr<const OpDef> op, load_op(path));
    own_ops[op->name] = op;
  }
  return own_ops;
}

Result<OpSpec> stored_spec(const WinnerRow& row, const Plan& plan, const OwnOps& own_ops) {
  OpSpec spec;
  if (const auto own = own_ops.find(row.op.op); own != own_ops.end()) {
    spec.op = own->second;
  } else {
    KGEN_TRY(spec.op, load_op(row.op.op));
  }
  std::vector<std::pair<std::string, std::string>> words;
  for (const std::string& word : split(row.op.signature + " " + row.problem.dims_key, ' '))
    if (const auto equals = word.find('='); equals != std::string::npos)
      words.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  KGEN_TRY(spec.op, specialise(spec.op, words));
  KGEN_TRY(spec.problem, make_problem(*spec.op, words));
  for (const Param& param : plan.params)
    if (param.role == Role::kScalar) spec.problem.scalars[param.name] = param.default_value;
  spec.tune.deterministic = row.winner.goal.deterministic;
  return spec;
}

std::string repeat_line(const OpSpec& spec, const std::string& config, const std::string& device) {
  // A path is read from where the spec stands, which is no folder here.
  const auto file = [&] { return std::filesystem::absolute(spec.op->file).lexically_normal().string(); };
  std::string entry = "op: " + (spec.op->folder.empty() ? spec.op->name : file());
  for (const AttributeDef& attribute : spec.op->attributes) {
    const auto at = spec.problem.attributes.find(attribute.name);
    if (at == spec.problem.attributes.end() || attribute.fixed) continue;
    const bool list = attribute.kind == AttributeDef::Kind::kList;
    if (list && at->second.empty()) continue;
    if (attribute.kind == AttributeDef::Kind::kExpression) {
      entry += fmt::format(", {}: \"{}\"", attribute.name, at->second);
      continue;
    }
    entry += fmt::format(", {}: {}", attribute.name,
                         list || at->second.find(',') != std::string::npos ? "[" + at->second + "]" : at->second);
  }
  std::string dims;
  for (const std::string& word : split(dims_key(*spec.op, spec.problem), ' ')) {
    const auto equals = word.find('=');
    if (equals == std::string::npos) continue;
    dims += fmt::format("{}{}: {}", dims.empty() ? "" : ", ", word.substr(0, equals), word.substr(equals + 1));
  }
  for (const Param& scalar : spec.op->scalars) {
    const auto given = spec.problem.scalars.find(scalar.name);
    if (given == spec.problem.scalars.end() || given->second == scalar.default_value) continue;
    entry += fmt::format(", {}: {}", scalar.name, given->second);
  }
  return fmt::format("kgen verify <(echo {}) --config {} --device {}",
                     shell_quoted(fmt::format("{{kgen: 1, ops: [{{{}, problems: [{{{}}}]}}]}}", entry, dims)),
                     shell_quoted(config), device);
}

}  // namespace kgen
