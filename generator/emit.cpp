#include "generator/emit.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <set>

#include "base/hash.h"
#include "base/text.h"
#include "generator/flatten.h"
#include "generator/yaml.h"

namespace kgen {

namespace {

constexpr int kReferenceBlock = 256;

std::string_view cpp_type(DType dtype) {
  switch (dtype) {
    case DType::kFp64:
      return "double";
    case DType::kFp32:
      return "float";
    case DType::kFp16:
      return "kgen::f16";
    case DType::kBf16:
      return "kgen::bf16";
    case DType::kInt8:
      return "kgen::i8";
    case DType::kInt32:
      return "kgen::i32";
    case DType::kInt64:
      return "kgen::i64";
    case DType::kFp8E4m3:
      return "kgen::fp8_e4m3";
    case DType::kFp8E5m2:
      return "kgen::fp8_e5m2";
  }
  std::abort();
}

// One kernel parameter as the text declares it.
struct Parameter {
  std::string type, name;
  std::string field;        // its name in Args
  bool by_address = false;  // Args has a pointer to it
};

// "a, b, c" in lines of at most 110 columns, each after the first indented by four.
std::string wrap(const std::vector<std::string>& words) {
  std::string text;
  std::size_t column = 4;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string word = words[i] + (i + 1 < words.size() ? "," : "");
    if (i > 0 && column + 1 + word.size() > 110) {
      text += "\n    ";
      column = 4;
    } else if (i > 0) {
      text += ' ';
      ++column;
    }
    text += word;
    column += word.size();
  }
  return text;
}

std::string declaration(const std::vector<Parameter>& params) {
  std::vector<std::string> words;
  for (const Parameter& param : params) words.push_back(fmt::format("{} {}", param.type, param.name));
  return wrap(words);
}

std::string args_struct(const std::vector<Parameter>& params) {
  std::string text = "// Every kernel parameter by name; absent operands are null.\nstruct Args {\n";
  for (const Parameter& param : params)
    text += fmt::format("  {} {};\n", param.by_address ? "const TensorMap*" : param.type, param.field);
  return text + "};\n";
}

std::string args_value(const std::vector<Parameter>& params) {
  std::vector<std::string> names;
  for (const Parameter& param : params) names.push_back((param.by_address ? "&" : "") + param.name);
  return fmt::format("{{\n    {}}}", wrap(names));
}

// A kernel, and for the host the symbol that its device looks up.
std::string entry(Arch arch, const std::string& name, const std::vector<Parameter>& params, const std::string& bounds,
                  const std::string& body, const std::string& cluster = "") {
  std::string text =
      fmt::format("\nKGEN_KERNEL({}){} {}(\n    {}) {{\n{}}}\n", bounds, cluster, name, declaration(params), body);
  if (arch->vendor != Vendor::kHost) return text;
  std::vector<std::string> values;
  for (std::size_t i = 0; i < params.size(); ++i) {
    std::string type = params[i].type;
    if (const auto restrict_at = type.find(" __restrict__"); restrict_at != std::string::npos) type.resize(restrict_at);
    values.push_back(type.ends_with('*') ? fmt::format("*static_cast<{} const*>(params[{}])", type, i)
                                         : fmt::format("*static_cast<const {}*>(params[{}])", type, i));
  }
  return text + fmt::format("KGEN_HOST_ENTRY({}) {{\n  {}(\n    {});\n}}\n", name, name, wrap(values));
}

// How a reference header's function for an argument is called: an expression's operands go by kind and place.
std::string function_name(const OpDef& op, const ArgumentDef& argument) {
  for (std::size_t kind = 0; op.expression && kind < kOperandKinds.size(); ++kind) {
    const std::vector<std::string>& names = op.expression->operands[kind];
    const auto at = std::find(names.begin(), names.end(), argument.field);
    if (at != names.end()) return fmt::format("{}<kgen::Config, {}>", kOperandKinds[kind], at - names.begin());
  }
  return argument.field + "<kgen::Config>";
}

// The functor, the number of operands of each kind, and operand i of each group.
std::string expression_lines(const OpDef& op, const std::string& attribute) {
  const Expression& expression = *op.expression;
  std::string text = fmt::format("  // {}\n", expression.text);
  for (std::size_t kind = 0; kind < kOperandKinds.size(); ++kind) {
    text += fmt::format("  static constexpr int {}_{} = {};\n", attribute, kOperandKinds[kind],
                        expression.operands[kind].size());
  }
  text += "  template <class F, class T>\n  static KGEN_DEVICE void " + attribute + "(";
  for (std::size_t kind = 0; kind < kOperandKinds.size(); ++kind) {
    text += fmt::format("{}[[maybe_unused]] {}T* {}", kind == 0 ? "" : ",\n      ",
                        kOperandKinds[kind] == "output" ? "" : "const ", kOperandKinds[kind]);
  }
  text += ") {\n";
  for (const std::string& statement : expression.code) text += fmt::format("    {}\n", statement);
  text += "  }\n";
  for (const OperandGroup& group : op.groups) {
    text += fmt::format("  template <int I, class P>\n  static KGEN_DEVICE auto {}([[maybe_unused]] const P& p) {{\n",
                        group.name);
    for (std::size_t i = 0; i < group.members.size(); ++i) {
      text += fmt::format("    if constexpr (I == {}) return p.{};\n", i, group.members[i]);
    }
    text += "  }\n";
  }
  return text;
}

std::string attribute_lines(const OpDef& op, const Problem& problem) {
  std::string text;
  for (const AttributeDef& attribute : op.attributes) {
    const std::string& value = problem.attributes.at(attribute.name);
    switch (attribute.kind) {
      case AttributeDef::Kind::kDType:
        text += fmt::format("  using {} = {};\n", attribute.name, cpp_type(*find_dtype(value)));
        break;
      case AttributeDef::Kind::kEnum:
        text += fmt::format("  static constexpr auto {0} = kgen::{0}::{1};\n", attribute.name, value);
        break;
      case AttributeDef::Kind::kInt:
        text += fmt::format("  static constexpr kgen::i64 {} = {};\n", attribute.name, value);
        break;
      case AttributeDef::Kind::kExpression:
        text += expression_lines(op, attribute.name);
        break;
      case AttributeDef::Kind::kInts: {
        // A function, since not every device compiler can read a constant array.
        const std::vector<std::string> words = split(value, ',');
        std::string choice;
        for (std::size_t i = 0; i + 1 < words.size(); ++i) choice += fmt::format("i == {} ? {} : ", i, words[i]);
        text += fmt::format(
            "  static constexpr int {0}_count = {1};\n"
            "  static KGEN_DEVICE constexpr kgen::i64 {0}([[maybe_unused]] int i) {{ return {2}{3}; }}\n",
            attribute.name, words.size(), choice, words.back());
        break;
      }
      case AttributeDef::Kind::kList: {
        const std::vector<std::string> words = value.empty() ? std::vector<std::string>() : split(value, ',');
        for (const std::string& word : attribute.values) {
          const auto at = std::find(words.begin(), words.end(), word);
          text += fmt::format("  static constexpr int {}_{} = {};\n", attribute.name, word,
                              at == words.end() ? 0 : at - words.begin() + 1);
        }
        break;
      }
    }
  }
  return text;
}

std::string arch_lines(Arch arch) {
  return fmt::format(
      "  static constexpr kgen::Arch arch = kgen::Arch::{};\n"
      "  static constexpr int wave_size = {};\n"
      "  static constexpr int lds_limit = {};\n"
      "  static constexpr int max_block = {};\n"
      "  static constexpr bool async_copy = {};\n",
      arch->name, arch->wave_size, arch->lds_limit, arch->max_block, arch->async_copy);
}

// The command that compiles the text without kgen.
std::string compile_line(Arch arch) {
  switch (arch->vendor) {
    case Vendor::kHost:
      return "g++ -std=c++20 -O3 -march=native -shared -fPIC -x c++ kernel.hip -o kernel.so";
    case Vendor::kAmd:
      return fmt::format(
          "hipcc --genco --offload-arch={0} -std=c++20 -O3 kernel.hip -o kernel.co\n"
          "//      or    clang++ -x hip --offload-device-only --no-gpu-bundle-output -nogpuinc -nogpulib "
          "--offload-arch={0} -std=c++20 -O3 kernel.hip -o kernel.co",
          arch->name);
    case Vendor::kNvidia:
      break;
  }
  // Dropped by CUDA 13; clang's own back end still knows them and needs no CUDA.
  if (arch->family == "pascal" || arch->family == "volta") {
    return fmt::format(
        "clang++ -x cuda --cuda-path=/nonexistent --cuda-feature=+ptx64 -nocudainc -nocudalib --cuda-device-only "
        "--cuda-gpu-arch={} -std=c++20 -O3 -S kernel.hip -o kernel.ptx",
        arch->name);
  }
  return fmt::format("nvcc -x cu -std=c++20 -arch={} -cubin kernel.hip -o kernel.cubin", arch->compiler_target());
}

std::string arch_heading(Arch arch) {
  return fmt::format("// arch       {}\n// compile    {}\n\n", arch->name, compile_line(arch));
}

std::string heading(const OpSpec& spec, Arch arch, const std::string& what) {
  std::string text = "// Made by kgen; serves every shape that its launch plan admits.\n";
  for (const std::string& line : split(spec.op->doc, '\n')) {
    if (!trim(line).empty()) text += fmt::format("// {}\n", trim(line));
  }
  text += fmt::format("//\n// op         {}\n// {}\n", signature(*spec.op, spec.problem), what);
  return text + arch_heading(arch);
}

Result<DType> resolve_dtype(const OpSpec& spec, const std::string& text) {
  const auto attribute = spec.problem.attributes.find(text);
  return find_dtype(attribute == spec.problem.attributes.end() ? text : attribute->second);
}

// The operands, buffers, scalars and dims of a plan, and as the text declares them.
struct ParamList {
  std::vector<Param> plan;
  std::vector<Parameter> text;
};

Result<ParamList> make_params(const OpSpec& spec, const VariantDef* variant, const Env& env) {
  const OpDef& op = *spec.op;
  ParamList list;
  const auto add_tensor = [&](const ArgumentDef& argument) -> Result<void> {
    Param param = argument.param;
    KGEN_TRY(param.dtype, resolve_dtype(spec, argument.dtype_text));
    if (variant) {
      if (const auto align = variant->align_text.find(param.name); align != variant->align_text.end()) {
        KGEN_TRY(const Expr expr, Expr::parse(align->second));
        KGEN_TRY(const std::int64_t bytes, expr.eval(env));
        if (bytes < 1 || bytes > 256) {
          return fail(ErrorKind::kBadInput, fmt::format("{}: align of '{}' is {}; it must lie between 1 and 256",
                                                        op.file, param.name, bytes));
        }
        param.align = static_cast<int>(bytes);
      }
    }
    list.text.push_back(
        {fmt::format("{}{}* __restrict__", param.role == Role::kIn ? "const " : "", cpp_type(param.dtype)), param.name,
         argument.field});
    list.plan.push_back(std::move(param));
    return {};
  };
  for (const ArgumentDef& argument : op.arguments) KGEN_CHECK_OK(add_tensor(argument));
  if (variant) {
    for (const ArgumentDef& buffer : variant->buffers) KGEN_CHECK_OK(add_tensor(buffer));
  }
  for (const Param& declared : op.scalars) {
    Param scalar = declared;
    if (const auto given = spec.problem.scalars.find(scalar.name); given != spec.problem.scalars.end()) {
      scalar.default_value = given->second;
    }
    list.text.push_back({std::string(cpp_type(scalar.dtype)), scalar.name, scalar.name});
    list.plan.push_back(std::move(scalar));
  }
  for (const DimDef& dim : op.dims) {
    if (!dim.parameter) continue;
    Param param;
    param.name = dim.name;
    param.role = Role::kDim;
    param.dtype = DType::kInt64;
    KGEN_TRY(param.present, Expr::parse("1"));
    list.text.push_back({std::string(cpp_type(param.dtype)), dim.name, dim.name});
    list.plan.push_back(std::move(param));
  }
  for (std::size_t i = 0; variant && i < variant->tensor_maps.size(); ++i) {
    const ArgumentDef& map = variant->tensor_maps[i];
    Param param = map.param;
    KGEN_TRY(param.dtype, resolve_dtype(spec, map.dtype_text));
    param.of = std::find_if(op.arguments.begin(), op.arguments.end(), [&](const ArgumentDef& argument) {
                 return argument.field == map.param.of;
               })->param.name;
    list.text.push_back({"KGEN_TENSOR_MAP", param.name, param.name, true});
    list.plan.push_back(std::move(param));
  }
  return list;
}

bool reads_dims(const Expr& expr, const OpDef& op) {
  return std::any_of(expr.names().begin(), expr.names().end(), [&](const std::string& name) {
    return std::any_of(op.dims.begin(), op.dims.end(), [&](const DimDef& dim) { return dim.name == name; });
  });
}

// What is the same in the plan of a candidate and of the reference.
Result<Plan> base_plan(const OpDef& op, std::vector<Param> params) {
  Plan plan;
  plan.params = std::move(params);
  for (const DimDef& dim : op.dims) {
    plan.dims.push_back(dim.name);
    KGEN_TRY(plan.dim_defaults.emplace_back(), dim.default_text.empty() ? Expr() : Expr::parse(dim.default_text));
  }
  for (const Rule& rule : op.rules) {
    if (reads_dims(rule.require, op)) plan.needs.push_back(rule.require);
  }
  KGEN_TRY(plan.flops, Expr::parse(op.flops_text));
  KGEN_TRY(plan.bytes, Expr::parse(op.bytes_text));
  return plan;
}

// Keeps of `env` what the plan's expressions read; the dims stay open.
void set_constants(Plan& plan, const Env& env) {
  const std::set<std::string, std::less<>> dims(plan.dims.begin(), plan.dims.end());
  const auto use = [&](const Expr& expr) {
    for (const std::string& name : expr.names()) {
      if (!dims.count(name)) plan.constants[name] = env.at(name);
    }
  };
  const auto use_all = [&](const std::vector<Expr>& list) { std::for_each(list.begin(), list.end(), use); };
  use_all(plan.dim_defaults);
  use_all(plan.needs);
  for (const Param& param : plan.params) {
    use_all(param.shape);
    use_all(param.strides);
    use_all(param.box);
    use_all(param.lower);
    use_all(param.upper);
    use_all(param.steps);
    use(param.present);
  }
  for (const Step& step : plan.steps) {
    use(step.when);
    std::for_each(step.grid.begin(), step.grid.end(), use);
    use(step.block);
    use(step.lds_bytes);
  }
  use(plan.flops);
  use(plan.bytes);
}

// "mma/${matrix_unit}.h" for this problem and candidate.
Result<std::string> template_path(const OpSpec& spec, Arch arch, const Candidate& candidate, const std::string& path) {
  constexpr std::string_view kVendors[] = {"host", "amd", "nvidia"};
  std::string out;
  for (std::size_t at = 0; at < path.size();) {
    if (path.compare(at, 2, "${") != 0) {
      out += path[at++];
      continue;
    }
    const auto end = path.find('}', at);
    const std::string name = path.substr(at + 2, end - at - 2);
    at = end + 1;
    const auto param = std::find_if(candidate.params.begin(), candidate.params.end(),
                                    [&](const auto& item) { return item.first == name; });
    if (name == "arch") {
      out += arch->name;
    } else if (name == "vendor") {
      out += kVendors[static_cast<int>(arch->vendor)];
    } else if (name == "family") {
      out += arch->family;
    } else if (name == "matrix_unit") {
      out += arch->matrix_unit;
    } else if (const auto given = spec.problem.attributes.find(name); given != spec.problem.attributes.end()) {
      out += given->second;
    } else if (param != candidate.params.end()) {
      out += param->second;
    } else {
      return fail(ErrorKind::kBadInput, fmt::format("{}: '{}': unknown name '{}'", spec.op->file, path, name));
    }
  }
  return out;
}

Result<int> small_constant(const OpDef& op, const std::string& what, const Expr& expr, const Env& env) {
  const auto value = expr.eval(env);
  if (!value) return fail(ErrorKind::kBadInput, fmt::format("{}: {}: {}", op.file, what, value.error().message));
  if (*value < INT_MIN || *value > INT_MAX) {
    return fail(ErrorKind::kBadInput, fmt::format("{}: {} is {}, which is no 32-bit number", op.file, what, *value));
  }
  return static_cast<int>(*value);
}

}  // namespace

Result<KernelSource> emit(const OpSpec& asked, Arch arch, const Candidate& candidate) {
  const OpSpec spec = settled(asked, candidate.key());
  const OpDef& op = *spec.op;
  const auto found = std::find_if(op.variants.begin(), op.variants.end(),
                                  [&](const VariantDef& item) { return item.name == candidate.variant; });
  if (found == op.variants.end()) {
    return fail(ErrorKind::kBadInput, fmt::format("op {} has no variant '{}'", op.name, candidate.variant));
  }
  const VariantDef& variant = *found;
  Env env = problem_env(spec, arch);
  for (const DimDef& dim : op.dims) env.erase(dim.name);  // the text and the plan's constants know no shape

  std::string config = "// Everything that is fixed when the kernel is compiled.\nstruct Config {\n";
  config += attribute_lines(op, spec.problem);
  for (const TunableDef& tunable : variant.tunables) {
    const auto given = std::find_if(candidate.params.begin(), candidate.params.end(),
                                    [&](const auto& item) { return item.first == tunable.name; });
    if (given == candidate.params.end()) {
      return fail(ErrorKind::kBadInput, fmt::format("candidate '{}' lacks '{}'", candidate.key(), tunable.name));
    }
    if (tunable.symbolic) {
      env[tunable.name] = symbol_value(given->second);
      config += fmt::format("  static constexpr auto {0} = kgen::{0}::{1};\n", tunable.name, given->second);
      continue;
    }
    KGEN_TRY(env[tunable.name], parse_int(given->second));
    config += fmt::format("  static constexpr int {} = {};\n", tunable.name, given->second);
  }
  for (const DerivedDef& derived : variant.derived) {
    KGEN_TRY(const int value, small_constant(op, fmt::format("derived value '{}'", derived.name), derived.value, env));
    env[derived.name] = value;
    config += fmt::format("  static constexpr int {} = {};\n", derived.name, value);
  }
  config += arch_lines(arch) + "};\n";

  KGEN_TRY(ParamList params, make_params(spec, &variant, env));
  KernelSource source;
  KGEN_TRY(source.plan, base_plan(op, std::move(params.plan)));
  for (const Rule& rule : variant.rules) {
    if (!rule.search && reads_dims(rule.require, op)) source.plan.needs.push_back(rule.require);
  }
  std::string entries;
  for (const StepDef& step : variant.steps) {
    // A step that no shape can need is no kernel of this candidate.
    if (!reads_dims(step.when, op)) {
      KGEN_TRY(const std::int64_t wanted, step.when.eval(env));
      if (wanted == 0) continue;
    }
    Step planned;
    planned.kernel = step.kernel;
    planned.prepare = step.prepare;
    planned.when = step.when;
    for (std::size_t axis = 0; axis < 3; ++axis) planned.grid[axis] = step.grid[axis];
    planned.block = step.block;
    planned.lds_bytes = step.lds_bytes;
    source.plan.steps.push_back(std::move(planned));
    KGEN_TRY(const int block, small_constant(op, fmt::format("block of '{}'", step.kernel), step.block, env));
    KGEN_TRY(const int min_blocks,
             small_constant(op, fmt::format("min_blocks of '{}'", step.kernel), step.min_blocks, env));
    int cluster[3];
    for (std::size_t axis = 0; axis < 3; ++axis) {
      KGEN_TRY(cluster[axis], small_constant(op, fmt::format("cluster of '{}'", step.kernel), step.cluster[axis], env));
    }
    entries += entry(arch, step.kernel, params.text, fmt::format("{}, {}", block, min_blocks),
                     fmt::format("  const kgen::Args args{};\n  kgen::{}<kgen::Config>(args);\n",
                                 args_value(params.text), step.kernel),
                     cluster[0] * cluster[1] * cluster[2] == 1
                         ? ""
                         : fmt::format(" KGEN_CLUSTER({}, {}, {})", cluster[0], cluster[1], cluster[2]));
  }
  set_constants(source.plan, env);

  Flattener headers(op.folder);
  KGEN_CHECK_OK(headers.add("prelude.h"));
  for (const std::string& path : variant.templates) {
    KGEN_TRY(const std::string full, template_path(spec, arch, candidate, path));
    KGEN_CHECK_OK(headers.add(full));
  }
  source.text = heading(spec, arch, "candidate  " + candidate.key()) + headers.text() +
                fmt::format("\n// ---- this kernel\nnamespace kgen {{\n\n{}\n{}\n}}  // namespace kgen\n", config,
                            args_struct(params.text)) +
                entries;
  source.hash = hash_text(source.text);
  return source;
}

Result<KernelSource> emit_reference(const OpSpec& asked, Arch arch) {
  const OpSpec spec = settled(asked);
  const OpDef& op = *spec.op;
  Env env = problem_env(spec, arch);
  for (const DimDef& dim : op.dims) env.erase(dim.name);
  KGEN_TRY(ParamList params, make_params(spec, nullptr, env));
  // Stages stand behind the op's own parameters. What fills a buffer reads others, so that none of them is restrict.
  for (Parameter& param : params.text) {
    if (const auto at = param.type.find(" __restrict__"); at != std::string::npos) param.type.resize(at);
  }
  for (const ReferenceDef::Stage& stage : op.reference.stages) {
    params.text.push_back({"const double*", stage.name, stage.name});
  }
  const std::string bounds = fmt::format("{}, 1", kReferenceBlock);
  const std::string args = args_value(params.text);
  // Grid-stride, so that any grid is right.
  const auto loop = [&](const std::string& statement) {
    return fmt::format(
        "  const kgen::Args args{1};\n"
        "  const kgen::i64 step = kgen::i64(kgen::grid_x()) * {0};\n"
        "  for (kgen::i64 i = kgen::i64(kgen::block_x()) * {0} + kgen::thread_x(); i < count; i += step) {{\n"
        "    {2}\n"
        "  }}\n",
        kReferenceBlock, args, statement);
  };
  const auto with = [&](std::vector<Parameter> more) {
    std::vector<Parameter> all = params.text;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  std::string entries;
  for (const ArgumentDef& argument : op.arguments) {
    if (argument.init.distribution != "kernel") continue;
    KGEN_TRY(const DType dtype, resolve_dtype(spec, argument.dtype_text));
    entries += entry(
        arch, "init_" + argument.param.name,
        with(
            {{"kgen::u64", "seed", ""}, {"kgen::i64", "count", ""}, {fmt::format("{}*", cpp_type(dtype)), "data", ""}}),
        bounds,
        loop(fmt::format("kgen::store_double(data + i, kgen::init_{}(args, seed, i));", function_name(op, argument))));
  }
  for (const ReferenceDef::Stage& stage : op.reference.stages) {
    entries += entry(arch, "reference_stage_" + stage.name,
                     with({{"kgen::i64", "width", ""}, {"kgen::i64", "count", ""}, {"double*", "out", ""}}), bounds,
                     loop(fmt::format("kgen::reference_{}<kgen::Config>(args, i, out + i * width);", stage.name)));
  }
  for (const ArgumentDef& argument : op.arguments) {
    if (argument.param.role == Role::kIn) continue;
    const std::string& name = argument.param.name;
    entries += entry(arch, "reference_" + name,
                     with({{"const kgen::i64*", "index", ""},
                           {"kgen::i64", "count", ""},
                           {"double*", "value", ""},
                           {"double*", "magnitude", ""}}),
                     bounds,
                     loop(fmt::format("kgen::reference_{}(args, index ? index[i] : i, value[i], magnitude[i]);",
                                      function_name(op, argument))));
    if (!op.reference.projection || op.reference.projection->output != name) continue;
    entries +=
        entry(arch, "project_vector_" + name,
              with({{"kgen::u64", "seed", ""}, {"kgen::i64", "count", ""}, {"double*", "vector", ""}}), bounds,
              loop(fmt::format("kgen::project_vector_{}<kgen::Config>(args, seed, i, vector[i]);", argument.field)));
    entries += entry(arch, "project_" + name,
                     with({{"kgen::u64", "seed", ""},
                           {"const double*", "vector", ""},
                           {"kgen::i64", "count", ""},
                           {"double*", "expected", ""},
                           {"double*", "bound", ""}}),
                     bounds,
                     loop(fmt::format("kgen::project_{}<kgen::Config>(args, seed, vector, i, expected[i], bound[i]);",
                                      argument.field)));
  }

  KernelSource source;
  KGEN_TRY(source.plan, base_plan(op, std::move(params.plan)));
  set_constants(source.plan, env);
  Flattener headers(op.folder);
  KGEN_CHECK_OK(headers.add("prelude.h"));
  KGEN_CHECK_OK(headers.add("check.h"));
  KGEN_CHECK_OK(headers.add(op.reference.header));
  source.text = heading(spec, arch, "reference") + headers.text() +
                fmt::format(
                    "\n// ---- this op\nnamespace kgen {{\n\n// The op's attributes; there is nothing to tune.\n"
                    "struct Config {{\n{}{}}};\n\n{}\n}}  // namespace kgen\n",
                    attribute_lines(op, spec.problem), arch_lines(arch), args_struct(params.text)) +
                entries;
  source.hash = hash_text(source.text);
  return source;
}

Result<KernelSource> emit_checks(const OpSpec& asked, Arch arch) {
  const OpSpec spec = settled(asked);
  std::set<std::string> dtypes;
  for (const ArgumentDef& argument : spec.op->arguments) {
    KGEN_TRY(const DType dtype, resolve_dtype(spec, argument.dtype_text));
    dtypes.insert(std::string(dtype_name(dtype)));
  }
  const std::string bounds = fmt::format("{}, 1", kReferenceBlock);
  std::string entries;
  // The checks of templates/check.h take their parameters as they stand there.
  const auto check = [&](const std::string& name, const std::string& function, const std::vector<Parameter>& all) {
    std::vector<std::string> names;
    for (const Parameter& param : all) names.push_back(param.name);
    entries += entry(arch, name, all, bounds, fmt::format("  kgen::{}({});\n", function, join(names, ", ")));
  };
  const Parameter layout{"const kgen::i64*", "layout", ""}, count{"kgen::i64", "count", ""},
      seed{"kgen::u64", "seed", ""}, partials{"kgen::CheckPartial*", "partials", ""};
  for (const std::string& dtype : dtypes) {
    const std::string type(cpp_type(*find_dtype(dtype)));
    const Parameter got{fmt::format("const {}*", type), "got", ""};
    check(
        "fill_" + dtype, "fill",
        {{type + "*", "data", ""}, count, seed, {"int", "distribution", ""}, {"double", "a", ""}, {"double", "b", ""}});
    check("check_" + dtype, "check",
          {got,
           layout,
           {"const kgen::i64*", "index", ""},
           count,
           {"const double*", "value", ""},
           {"const double*", "magnitude", ""},
           {"double", "factor", ""},
           {"double", "u_out", ""},
           {"double", "tiny", ""},
           partials});
    check("check_projection_" + dtype, "check_projection",
          {got,
           layout,
           seed,
           {"kgen::i64", "rows", ""},
           {"const double*", "expected", ""},
           {"const double*", "bound", ""},
           partials});
    check("check_gaps_" + dtype, "check_gaps",
          {got, {fmt::format("const {}*", type), "before", ""}, layout, count, partials});
  }
  check("check_pattern", "check_pattern",
        {{"const unsigned char*", "base", ""},
         {"const kgen::i64*", "zones", ""},
         count,
         {"int", "pattern", ""},
         {"kgen::i64*", "bad", ""}});
  check("read_all", "read_all", {{"const kgen::u64*", "data", ""}, count, {"kgen::u64*", "sink", ""}});

  Flattener headers("");
  KGEN_CHECK_OK(headers.add("prelude.h"));
  KGEN_CHECK_OK(headers.add("check.h"));
  if (std::ranges::any_of(dtypes, [](const std::string& name) { return name.starts_with("fp8_"); })) {
    KGEN_CHECK_OK(headers.add("fp8.h"));
  }
  KernelSource source;
  source.text =
      fmt::format(
          "// Made by kgen: what verification runs on the device whatever the operator.\n//\n// dtypes     {}\n",
          join(std::vector<std::string>(dtypes.begin(), dtypes.end()), ", ")) +
      arch_heading(arch) + headers.text() + entries;
  source.hash = hash_text(source.text);
  return source;
}

Result<KernelSource> emit_displace(Arch arch) {
  Flattener headers("");
  KGEN_CHECK_OK(headers.add("prelude.h"));
  KGEN_CHECK_OK(headers.add("displace.h"));
  KernelSource source;
  source.text = "// Made by kgen: displaces what the instruction caches hold.\n//\n" + arch_heading(arch) +
                headers.text() +
                entry(arch, "displace_code", {{"kgen::u64*", "sink", ""}}, fmt::format("{}, 1", kDisplaceBlock),
                      "  kgen::displace_code(sink);\n");
  source.hash = hash_text(source.text);
  return source;
}

}  // namespace kgen
