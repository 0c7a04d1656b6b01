#include <fmt/core.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "generator/spec.h"
#include "tuner/problem.h"

namespace kgen {
namespace {

struct Request {
  Words files;
  std::string archs, folder = "out", op_glob = "*";
  std::string db, checked;  // the database for untimed defaults, and what the emulator said of them
  std::int64_t limit = 0, per_variant = 0, jobs = 0;
  bool compile = false, json = false;
};

// One source text. Several problems share it: dims are arguments of the kernels.
struct Source {
  Arch arch = nullptr;
  std::string path, text, hash;
  std::string object_path, log, command;  // with --compile
  CompileStatus status = CompileStatus::kFailed;
  std::vector<KernelUsage> kernels;
  int matrix_instructions = -1;  // -1: not known
  BoundPlan bound;               // of its first problem, for the rules that prune
  std::string pruned;
  CodeObject code;  // with --db
  PlanUsage usage;
};

// What the emulator said of a source: by architecture and hash of the text.
struct Verdicts {
  std::map<std::pair<std::string, std::string>, std::string> right, wrong;  // at which dims, and why

  static Result<Verdicts> read(const std::string& path) {
    Verdicts verdicts;
    if (path.empty()) return verdicts;
    KGEN_TRY(const std::string text, read_file(path));
    int number = 0;
    for (const std::string& line : split(text, '\n')) {
      ++number;
      if (trim(line).empty()) continue;
      const Json json = Json::parse(line, nullptr, false);
      if (!json.is_object() || !json.contains("source_hash") || !json.contains("dims") || !json["dims"].is_object())
        return fail(ErrorKind::kBadInput,
                    fmt::format("{}:{}:1: not a line of tests/operators/emulate.py --results", path, number));
      const auto word = [&](const char* name) {
        const auto at = json.find(name);
        return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
      };
      const std::pair key(word("arch"), word("source_hash"));
      Words dims;
      for (const auto& [name, value] : json["dims"].items())
        dims.push_back(name + "=" + (value.is_string() ? value.get<std::string>() : value.dump()));
      if (word("verdict") == "right") verdicts.right.try_emplace(key, join(dims, " "));
      if (word("verdict") == "WRONG") verdicts.wrong.try_emplace(key, word("reason"));
    }
    return verdicts;
  }
};

struct Summary {
  int compiled = 0, failed = 0, pruned = 0, spilling = 0, with_matrix = 0;
};

Json launch_json(const BoundPlan& bound) {
  Json json;
  json["steps"] = Json::array();
  for (const BoundStep& step : bound.steps) {
    json["steps"].push_back({{"kernel", step.kernel},
                             {"prepare", step.prepare},
                             {"grid", step.grid},
                             {"block", step.block},
                             {"lds_bytes", step.lds_bytes}});
  }
  // Every kernel takes all arguments in this order; buffers that are not present are null.
  json["arguments"] = Json::array();
  for (const BoundParam& param : bound.params) {
    Json item{{"name", param.name}, {"role", role_name(param.role)}, {"dtype", dtype_name(param.dtype)}};
    if (param.role == Role::kDim) {
      item["value"] = param.value;
    } else if (param.role == Role::kScalar) {
      item["value"] = param.default_value;
    } else {
      item["present"] = param.present;
      item["shape"] = param.shape;
      item["strides"] = param.strides;
      item["bytes"] = param.bytes;
      item["align"] = param.align;
    }
    json["arguments"].push_back(std::move(item));
  }
  json["workspace_bytes"] = bound.workspace_bytes;
  json["prepared_bytes"] = bound.prepared_bytes;
  return json;
}

// All candidates, or `limit` of them spread evenly over the space, the default candidate among them.
Result<std::vector<Candidate>> sample(const OpSpec& spec, Arch arch, std::size_t limit) {
  KGEN_TRY(Space space, enumerate(spec, arch));
  if (limit == 0 || space.candidates.size() <= limit) return std::move(space.candidates);
  KGEN_TRY(const Candidate first, default_candidate(spec, arch));
  std::vector<Candidate> picked = {first};
  for (std::size_t i = 0; picked.size() < limit && i < limit; ++i) {
    const Candidate& candidate = space.candidates[i * space.candidates.size() / limit];
    if (!(candidate == first)) picked.push_back(candidate);
  }
  return picked;
}

const char* object_extension(Arch arch) {
  switch (arch->vendor) {
    case Vendor::kAmd:
      return ".hsaco";
    case Vendor::kNvidia:
      return ".cubin";
    case Vendor::kHost:
      return ".so";
  }
  return "";
}

// The default of every variant, and up to `limit` candidates of each spread evenly over what is worth trying.
Result<std::vector<Candidate>> sample_variants(const OpSpec& spec, Arch arch, std::size_t limit) {
  KGEN_TRY(std::vector<Candidate> picked, variant_defaults(spec, arch));
  if (limit < 2) return picked;
  KGEN_TRY(const Space space, enumerate(spec, arch));
  for (const VariantDef& variant : spec.op->variants) {
    std::vector<const Candidate*> own;
    for (const Candidate& candidate : space.candidates)
      if (candidate.variant == variant.name) own.push_back(&candidate);
    for (std::size_t i = 1; i < limit && !own.empty(); ++i) {
      const Candidate& candidate = *own[i * own.size() / limit];
      if (std::find(picked.begin(), picked.end(), candidate) == picked.end()) picked.push_back(candidate);
    }
  }
  return picked;
}

class Generator {
 public:
  Generator(const Context& context, const Request& request) : request_(request), compiler_(compiler_for(context)) {}

  // With --db: the default candidate of each problem goes into the file, or that of the next variant where it is no
  // good.
  Result<int> store() {
    KGEN_TRY(const Verdicts verdicts, Verdicts::read(request_.checked));
    KGEN_TRY(Db db, Db::open(request_.db, DbMode::kReadWrite));
    Json rows = Json::array();
    std::vector<std::string> whys;
    std::vector<const Launch*> taken;
    for (const Default& wanted : defaults_) taken.push_back(choose(wanted, verdicts, whys.emplace_back(wanted.why)));
    KGEN_TRY(const std::vector<bool> left_out, served_by_others(taken));
    std::map<std::string, std::map<std::string, int>> counts;  // by architecture
    for (std::size_t i = 0; i < defaults_.size(); ++i) {
      const Default& wanted = defaults_[i];
      const std::string arch(wanted.arch->name);
      Json row{{"arch", arch},
               {"op", wanted.op.op},
               {"signature", wanted.op.signature},
               {"dims", dims_of_key(wanted.problem.dims_key)},
               {"label", wanted.problem.label},
               {"stored", taken[i] != nullptr && !left_out[i]},
               {"config", Json()},
               {"reason", whys[i]}};
      if (taken[i] == nullptr) {
        ++counts[arch]["none"];
      } else if (left_out[i]) {
        ++counts[arch]["left out"];
        row.update({{"config", taken[i]->config}, {"reason", "served by defaults of its signature that are stored"}});
      } else {
        const Source& source = sources_[taken[i]->source];
        const auto right = verdicts.right.find({arch, source.hash});
        std::string reason = right == verdicts.right.end() ? "not timed, not run"
                             : right->second.empty()
                                 ? "not timed; right in an instruction emulator"
                                 : "not timed; right in an instruction emulator at " + right->second;
        if (!source.pruned.empty()) reason += "; " + source.pruned;
        ++counts[arch]["stored"];
        counts[arch]["checked"] += right != verdicts.right.end();
        row.update({{"config", taken[i]->config}, {"reason", reason}});
        KGEN_CHECK_OK(publish(db, wanted, *taken[i], reason));
      }
      rows.push_back(std::move(row));
    }
    int none = 0;
    Table table({"arch", "stored", "right in the emulator", "served by these", "none"});
    for (auto& [arch, count] : counts) {
      none += count["none"];
      table.add({arch, std::to_string(count["stored"]), std::to_string(count["checked"]),
                 std::to_string(count["left out"]), std::to_string(count["none"])});
    }
    if (request_.json)
      print_json({{"db", request_.db}, {"defaults", rows}});
    else
      table.print();
    for (const Json& row : rows) {  // the first stands for all
      if (!row["config"].is_null()) continue;
      fmt::print(stderr, "no default for {} on {}: {}\n", row["signature"].get<std::string>(),
                 row["arch"].get<std::string>(), printable(row["reason"].get<std::string>()));
      break;
    }
    return none > 0 ? 1 : 0;
  }

  Result<void> emit_all() {
    KGEN_TRY(const std::vector<Arch> archs, parse_archs(request_.archs));
    std::vector<OpSpec> specs;
    for (const std::string& file : request_.files) {
      KGEN_TRY(std::vector<OpSpec> more, parse_spec(file, request_.op_glob));
      std::move(more.begin(), more.end(), std::back_inserter(specs));
    }
    if (specs.empty())
      return fail(ErrorKind::kBadInput,
                  fmt::format("no problem: {} matches '--op {}'", join(request_.files, " "), request_.op_glob));
    for (Arch arch : archs) {
      if (!request_.db.empty()) {
        for (const OpSpec& spec : specs) KGEN_CHECK_OK(emit_defaults(spec, arch));
        continue;
      }
      std::error_code error;
      std::filesystem::create_directories(request_.folder + "/" + std::string(arch->name), error);
      if (error)
        return fail(ErrorKind::kIo,
                    fmt::format("{}/{}: cannot create the folder: {}", request_.folder, arch->name, error.message()));
      for (const OpSpec& spec : specs) KGEN_CHECK_OK(emit_problem(spec, arch));
    }
    return {};
  }

  Result<void> compile_all() {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t done = 0;
    std::optional<Error> failure;
    {
      const int jobs = request_.jobs > 0 ? static_cast<int>(request_.jobs)
                                         : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
      CompilePool pool(*compiler_, jobs);  // last: its threads use the rest
      for (Source& source : sources_) {
        pool.submit(std::move(source.text), source.arch, [&, this](Result<CompileResult> result) {
          std::optional<Error> error;
          if (!result) {
            error = std::move(result.error());
          } else if (auto kept = keep(source, *result); !kept) {
            error = std::move(kept.error());
          }
          const std::lock_guard lock(mutex);
          if (error && !failure) failure = std::move(error);
          ++done;
          changed.notify_one();
        });
      }
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return done == sources_.size() || failure; });
    }
    if (failure) return tl::unexpected(*failure);
    return {};
  }

  int print() const {
    const std::map<std::string_view, Summary> summaries = summarise();
    int failed = 0;
    for (const auto& [arch, summary] : summaries) failed += summary.failed;
    if (request_.json) {
      print_as_json(summaries);
    } else if (!request_.compile) {
      fmt::print("{} problems' candidates in {} sources under {}\n", launches_.size(), sources_.size(),
                 request_.folder);
    } else {
      Table table({"arch", "compiled", "failed", "pruned", "spilling", "matrix"});
      for (const auto& [arch, s] : summaries)
        table.add({std::string(arch), std::to_string(s.compiled), std::to_string(s.failed), std::to_string(s.pruned),
                   std::to_string(s.spilling), std::to_string(s.with_matrix)});
      table.print();
    }
    for (const Source& source : sources_) {  // the first failure stands for all: they mostly share their cause
      if (!request_.compile || source.status == CompileStatus::kCompiled) continue;
      fmt::print(stderr, "{}: {}\n  repeat it with: {}\n", source.path,
                 source.status == CompileStatus::kTimeout ? "the compiler ran out of time" : first_error(source.log),
                 source.command);
      break;
    }
    return failed > 0 ? 1 : 0;
  }

  bool compiles() const { return request_.compile; }

 private:
  struct Launch {
    std::size_t source = 0;
    std::string op, signature, dims_key, label, config;
    BoundPlan bound;
    std::string plan;  // with --db
  };
  // What a problem may have as its default on an architecture, best first.
  struct Default {
    Arch arch = nullptr;
    OpRecord op;
    ProblemRecord problem;
    std::string op_hash, why;  // why there is none
    Env dims{};
    std::vector<Launch> launches{};
  };

  // The first candidate that compiles, fits and was not wrong; one that only spills where there is no other.
  const Launch* choose(const Default& wanted, const Verdicts& verdicts, std::string& why) const {
    const Launch* spilling = nullptr;
    for (const Launch& launch : wanted.launches) {
      const Source& source = sources_[launch.source];
      const auto wrong = verdicts.wrong.find({std::string(wanted.arch->name), source.hash});
      const std::string fault = source.status != CompileStatus::kCompiled ? first_error(source.log)
                                : wrong != verdicts.wrong.end()           ? "wrong in the emulator: " + wrong->second
                                                                          : source.pruned;
      if (fault.empty()) return &launch;
      if (spilling == nullptr && fault.starts_with("spills")) spilling = &launch;
      if (why.empty()) why = launch.config + ": " + fault;
    }
    return spilling;
  }

  // With --limit: which defaults are left out, because one of the few sources that most problems of their signature
  // have is legal for their shape.
  Result<std::vector<bool>> served_by_others(const std::vector<const Launch*>& taken) const {
    std::vector<bool> left_out(taken.size(), false);
    if (request_.limit == 0) return left_out;
    std::map<std::pair<Arch, std::string>, std::map<std::size_t, std::vector<std::size_t>>> groups;  // by source
    for (std::size_t i = 0; i < taken.size(); ++i)
      if (taken[i] != nullptr) groups[{defaults_[i].arch, defaults_[i].op.signature}][taken[i]->source].push_back(i);
    for (const auto& [signature, by_source] : groups) {
      std::vector<const std::vector<std::size_t>*> order;
      for (const auto& [source, problems] : by_source) order.push_back(&problems);
      std::ranges::stable_sort(order, std::greater(), [](const auto* problems) { return problems->size(); });
      std::vector<Plan> kept;
      for (const auto* problems : order) {
        const bool popular = kept.size() < static_cast<std::size_t>(request_.limit);
        bool needed = false;
        for (const std::size_t i : *problems) {
          left_out[i] = !popular && std::ranges::any_of(kept, [&](const Plan& plan) {
            return kgen::bind(plan, defaults_[i].dims).has_value();
          });
          needed |= !left_out[i];
        }
        if (!needed) continue;
        KGEN_TRY(kept.emplace_back(), plan_from_json(taken[problems->front()]->plan));
      }
    }
    return left_out;
  }

  Result<void> emit_defaults(const OpSpec& spec, Arch arch) {
    Default wanted{.arch = arch,
                   .op = op_record(spec),
                   .problem = {},
                   .op_hash = spec.op->source_hash,
                   .why = "",
                   .dims = spec.problem.dims};
    wanted.problem.dims_key = dims_key(*spec.op, spec.problem);
    wanted.problem.label = spec.problem.label;
    const auto candidates = variant_defaults(spec, arch);
    if (!candidates) wanted.why = candidates.error().message;
    for (std::size_t i = 0; candidates && i < candidates->size(); ++i) {
      KGEN_TRY(KernelSource kernel, emit(spec, arch, (*candidates)[i]));
      KGEN_TRY(BoundPlan bound, kgen::bind(kernel.plan, spec.problem.dims));
      wanted.problem = problem_record(spec, bound);
      const std::size_t source = source_of(arch, kernel.hash, std::string(arch->name) + "/" + kernel.hash, bound);
      if (sources_[source].text.empty()) sources_[source].text = std::move(kernel.text);
      wanted.launches.push_back(
          {source, {}, {}, {}, {}, (*candidates)[i].key(), std::move(bound), plan_to_json(kernel.plan)});
    }
    defaults_.push_back(std::move(wanted));
    return {};
  }

  Result<void> publish(Db& db, const Default& wanted, const Launch& launch, const std::string& reason) {
    const Source& source = sources_[launch.source];
    const std::string arch(wanted.arch->name);
    DeviceRecord device;
    device.arch = arch;
    device.name = "any " + arch;
    KGEN_TRY(const std::int64_t device_id, db.intern_device(device));
    KGEN_TRY(const std::int64_t problem, db.intern_problem(wanted.op, wanted.problem));
    KGEN_CHECK_OK(db.forget(problem, device_id));
    TrialRecord trial;
    trial.problem = problem;
    trial.device = device_id;
    trial.config = launch.config;
    trial.status = TrialStatus::kCompiled;
    trial.reason = reason;
    trial.source_hash = source.hash;
    trial.op_hash = wanted.op_hash;
    trial.compiler = source.code.compiler;
    trial.options = source.code.options;
    trial.kgen_version = KGEN_VERSION;
    trial.is_default = true;
    const auto known_number = [](int value) { return value >= 0 ? std::optional<int>(value) : std::nullopt; };
    trial.registers = known_number(source.usage.registers);
    trial.spills = known_number(source.usage.spills);
    trial.lds_bytes = known_number(source.usage.lds_bytes);
    trial.occupancy_waves = known_number(source.usage.occupancy_waves);
    KGEN_TRY(trial.id, db.record(trial));
    return db.publish({.problem = problem,
                       .device = device_id,
                       .trial = trial.id,
                       .goal = {},
                       .plan_json = launch.plan,
                       .object_hash = source.code.hash,
                       .is_default = true},
                      {.hash = source.code.hash,
                       .arch = arch,
                       .kind = std::string(code_kind(source.code.bytes)),
                       .bytes = source.code.bytes});
  }

  // Adds it where it is new.
  std::size_t source_of(Arch arch, const std::string& hash, const std::string& path, const BoundPlan& bound) {
    const auto [found, added] = by_path_.try_emplace(path, sources_.size());
    if (added) {
      Source& source = sources_.emplace_back();
      source.arch = arch;
      source.path = path;
      source.hash = hash;
      source.bound = bound;
    }
    return found->second;
  }

  Result<void> emit_problem(const OpSpec& spec, Arch arch) {
    KGEN_TRY(const std::vector<Candidate> candidates,
             request_.per_variant > 0 ? sample_variants(spec, arch, static_cast<std::size_t>(request_.per_variant))
                                      : sample(spec, arch, static_cast<std::size_t>(request_.limit)));
    for (const Candidate& candidate : candidates) {
      KGEN_TRY(KernelSource kernel, emit(spec, arch, candidate));
      KGEN_TRY(BoundPlan bound, kgen::bind(kernel.plan, spec.problem.dims));
      const std::string path = fmt::format("{}/{}/{}_{}_{}.hip", request_.folder, arch->name, spec.op->name,
                                           candidate.variant, kernel.hash.substr(0, 12));
      const std::size_t before = sources_.size(), source = source_of(arch, kernel.hash, path, bound);
      if (source == before) {
        KGEN_CHECK_OK(write_file(path, kernel.text));
        if (request_.compile) sources_[source].text = std::move(kernel.text);
      }
      launches_.push_back({source,
                           spec.op->name,
                           signature(*spec.op, spec.problem),
                           dims_key(*spec.op, spec.problem),
                           spec.problem.label,
                           candidate.key(),
                           std::move(bound),
                           {}});
    }
    return {};
  }

  // Runs on the pool's threads; each source is one thread's.
  Result<void> keep(Source& source, CompileResult& result) const {
    source.status = result.status;
    source.log = std::move(result.log);
    source.command = std::move(result.command);
    if (result.status != CompileStatus::kCompiled) return {};
    const std::vector<std::byte>& bytes = result.code.bytes;
    const char* extension = code_kind(bytes) == "ptx" ? ".ptx" : object_extension(source.arch);
    source.object_path = std::filesystem::path(source.path).replace_extension(extension);
    source.kernels = std::move(result.code.kernels);
    if (source.arch->matrix_unit != "none") {
      if (const auto counts = matrix_instructions(bytes)) {
        source.matrix_instructions = 0;
        for (const auto& [name, count] : *counts) source.matrix_instructions += count;
      }
    }
    CodeObject usage;
    usage.kernels = source.kernels;
    DeviceInfo device;  // rules by the architecture's limits alone
    device.arch = source.arch;
    device.lds_per_block = source.arch->lds_limit;
    source.usage = plan_usage(device, source.bound, usage);
    source.pruned = source.usage.pruned;
    if (!request_.db.empty()) {
      source.code = std::move(result.code);
      return {};
    }
    return write_file(source.object_path, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }

  static bool spills(const Source& source) {
    return std::ranges::any_of(source.kernels, [](const KernelUsage& usage) { return usage.spills > 0; });
  }

  std::map<std::string_view, Summary> summarise() const {
    std::map<std::string_view, Summary> summaries;
    if (!request_.compile) return summaries;
    for (const Source& source : sources_) {
      Summary& summary = summaries[source.arch->name];
      const bool compiled = source.status == CompileStatus::kCompiled;
      summary.compiled += compiled;
      summary.failed += !compiled;
      summary.pruned += !source.pruned.empty();
      summary.spilling += spills(source);
      summary.with_matrix += source.matrix_instructions > 0;
    }
    return summaries;
  }

  void print_as_json(const std::map<std::string_view, Summary>& summaries) const {
    Json json;
    json["files"] = Json::array();
    for (const Launch& launch : launches_) {
      const Source& source = sources_[launch.source];
      Json item{{"file", source.path},
                {"arch", source.arch->name},
                {"op", launch.op},
                {"signature", launch.signature},
                {"dims", dims_of_key(launch.dims_key)},
                {"label", launch.label},
                {"config", launch.config},
                {"source_hash", source.hash}};
      item.update(launch_json(launch.bound));
      if (request_.compile) {
        item["status"] = source.status == CompileStatus::kCompiled  ? "compiled"
                         : source.status == CompileStatus::kTimeout ? "compile_timeout"
                                                                    : "compile_failed";
        item["object"] = source.object_path;
        item["spills"] = spills(source);
        item["pruned"] = source.pruned;
        item["matrix_instructions"] = source.matrix_instructions < 0 ? Json() : Json(source.matrix_instructions);
        if (source.status != CompileStatus::kCompiled) {
          item["error"] = first_error(source.log);
          item["command"] = source.command;
        }
      }
      json["files"].push_back(std::move(item));
    }
    if (request_.compile) {
      json["archs"] = Json::object();
      for (const auto& [arch, s] : summaries)
        json["archs"][std::string(arch)] = {{"compiled", s.compiled},
                                            {"failed", s.failed},
                                            {"pruned", s.pruned},
                                            {"spilling", s.spilling},
                                            {"with_matrix_instructions", s.with_matrix}};
    }
    print_json(json);
  }

  const Request& request_;
  std::unique_ptr<Compiler> compiler_;
  std::vector<Source> sources_;
  std::vector<Launch> launches_;
  std::vector<Default> defaults_;  // with --db
  std::map<std::string, std::size_t> by_path_;
};

}  // namespace

int cmd_gen(const Context& context, const Words& args) {
  Request request;
  Options options("gen", "SPEC… --arch A[,B…] [flags]", "Write self-contained kernel sources without a GPU.");
  options.arguments("SPEC", request.files, "ops.yaml or entry-list files");
  options.text("--arch", request.archs, "architectures, separated by commas, or 'all'");
  options.text("-o,--output", request.folder, "folder to write (out)");
  options.text("--op", request.op_glob, "only operators whose name matches");
  options.number("--limit", request.limit, 0,
                 "candidates of each problem, spread evenly; 0: all. With --db: sources of each signature, those that "
                 "most problems have, and "
                 "more only where none of them is legal");
  options.number("--per-variant", request.per_variant, 0,
                 "instead: candidates of each variant, its default and others spread evenly");
  options.flag("--compile", request.compile, "compile them too");
  options.text("--db", request.db,
               "instead of files: compile the default candidate of each problem into this database, as untimed");
  options.text("--checked", request.checked,
               "with --db: what the instruction emulator said of sources (JSON lines of tests/operators/emulate.py)");
  options.number("--jobs", request.jobs, 0, "compilations at once; 0: all cores");
  options.flag("--json", request.json,
               "one JSON document on stdout: all that is needed to launch each file without kgen");
  if (const auto code = options.parse(args)) return *code;
  if (request.archs.empty())
    return report(Error{ErrorKind::kBadInput, "gen: --arch is missing; see 'kgen gen --help'"});

  if (!request.checked.empty() && request.db.empty())
    return report(Error{ErrorKind::kBadInput, "gen: --checked goes with --db"});
  if (!request.db.empty()) request.compile = true;

  Generator generator(context, request);
  if (const auto emitted = generator.emit_all(); !emitted) return report(emitted.error());
  if (generator.compiles()) {
    if (const auto compiled = generator.compile_all(); !compiled) return report(compiled.error());
  }
  if (request.db.empty()) return generator.print();
  const auto stored = generator.store();
  return stored ? *stored : report(stored.error());
}

}  // namespace kgen
