#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/text.h"
#include "cli/lookup.h"
#include "device/device.h"

namespace kgen {
namespace {

struct Target {
  std::string arch, device_name;
};

// --arch; else the first present device that the file has winners for; else the only architecture in the file.
Result<Target> choose_target(const std::vector<DeviceRecord>& tuned, const std::string& arch_name) {
  if (!arch_name.empty()) {
    KGEN_TRY(const Arch arch, find_arch(arch_name));
    const auto same = std::ranges::find(tuned, arch->name, &DeviceRecord::arch);
    return Target{std::string(arch->name), same == tuned.end() ? "" : same->name};
  }
  std::set<std::string> archs;
  for (const DeviceRecord& device : tuned) archs.insert(device.arch);
  for (const DeviceInfo& device : probe_devices().devices) {
    if (device.arch != nullptr && archs.contains(std::string(device.arch->name)))
      return Target{std::string(device.arch->name), device.name};
  }
  if (archs.size() == 1) return Target{*archs.begin(), tuned.front().name};
  const Words names(archs.begin(), archs.end());
  return fail(ErrorKind::kBadInput, names.empty() ? "the database has no winners"
                                                  : fmt::format("no tuned device is present; choose with --arch {}",
                                                                join(names, ", --arch ")));
}

}  // namespace

void LookupRequest::declare(Options& options) {
  options.argument("DB", path, "a tuned database; the one that ships with kgen where none is named", false);
  options.argument("OP", op, "operator", false);
  options.arguments("dim=val", words, "dims and attributes", false);
  options.text("--dtype", dtype, "the same as dtype=…");
  options.text("--arch", arch, "architecture; the present device's by default");
  options.choice("--timing", goal.timing, {"cold", "warm", "graph"}, "how it will run; cold by default");
  options.choice("--objective", goal.objective, {"time", "energy"}, "what counts; time by default");
  options.flag("--deterministic", goal.deterministic, "only kernels that give the same bits on every launch");
  options.flag("--json", as_json, "one JSON document on stdout");
}

Result<void> LookupRequest::name_db() {
  if (op.empty() || op.find('=') != std::string::npos) {  // no database was named: OP dim=val…
    if (!op.empty()) words.insert(words.begin(), op);
    op = std::exchange(path, "");
  }
  if (op.empty() || op.ends_with(".db"))
    return fail(ErrorKind::kBadInput, "the operator is missing: [tuned.db] OP dim=val…");
  KGEN_TRY(path, named_db(path));
  return {};
}

RowFilter whole_code(Db& db) {
  return [&db, seen = std::make_shared<std::map<std::string, Result<void>>>()](
             const WinnerRow& row, const std::shared_ptr<const StoredPlan>&) -> Result<void> {
    const std::string& hash = row.winner.object_hash;
    auto known = seen->find(hash);
    if (known == seen->end()) {
      const auto object = db.object(hash);
      known = seen->emplace(hash, object ? Result<void>{} : tl::unexpected(object.error())).first;
    }
    return known->second;
  };
}

Result<Lookup> look_up(LookupRequest& request) {
  KGEN_CHECK_OK(request.name_db());
  const std::string& op = request.op;
  Lookup answer;
  KGEN_TRY(Db opened, Db::open(request.path, DbMode::kReadOnly));
  answer.path = request.path;
  answer.db = std::make_unique<Db>(std::move(opened));
  Db& db = *answer.db;
  KGEN_TRY(const WinnerIndex index, db.winner_index());
  const auto record =
      std::find_if(index.ops.rbegin(), index.ops.rend(), [&](const OpRecord& row) { return row.op == op; });
  if (record == index.ops.rend()) {
    Words ops;
    for (const OpRecord& row : index.ops) ops.push_back(row.op);
    return fail(ErrorKind::kBadInput,
                fmt::format("{} has no operator '{}'{}", request.path, op, did_you_mean(op, ops)));
  }
  KGEN_TRY(const auto pairs, key_values(request.words));
  const Words dim_names = split(record->dims, ',');
  Words names = dim_names;
  for (const std::string& word : split(record->attributes, ' ')) names.push_back(word.substr(0, word.find('=')));
  std::string attributes = request.dtype.empty() ? "" : "dtype=" + request.dtype;
  for (const auto& [name, text] : pairs) {
    if (std::ranges::find(names, name) == names.end())
      return fail(ErrorKind::kBadInput,
                  fmt::format("'{}' is neither a dim nor an attribute of {}{}", name, op, did_you_mean(name, names)));
    if (std::ranges::find(dim_names, name) == dim_names.end()) {
      std::string value = text;  // an expression may be typed with spaces; a signature has none
      std::erase_if(value, [](unsigned char c) { return std::isspace(c) != 0; });
      attributes += (attributes.empty() ? "" : " ") + name + "=" + value;
      continue;
    }
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value >= std::int64_t{1} << 53)
      return fail(ErrorKind::kBadInput, fmt::format("{}={} is not a size (an integer from 0 to 2^53)", name, text));
    answer.dims[name] = value;
  }
  KGEN_TRY(const Target target, choose_target(index.devices, request.arch));
  answer.arch = target.arch;
  answer.device_name = target.device_name;
  KGEN_TRY(Dispatcher dispatcher, Dispatcher::load(db, answer.arch, answer.device_name));
  answer.dispatcher = std::make_unique<Dispatcher>(std::move(dispatcher));
  KGEN_TRY(answer.signature, answer.dispatcher->signature(op, attributes));
  answer.match = answer.dispatcher->find(answer.signature, answer.dims, request.goal, whole_code(db), &answer.account);
  return answer;
}

Json lookup_json(const Lookup& answer) {
  const Match& match = answer.match;
  Json json{{"match", match_name(match.kind)},
            {"reason", match.reason},
            {"arch", answer.arch},
            {"device", answer.device_name},
            {"db", answer.path},
            {"signature", answer.signature},
            {"dims", answer.dims},
            {"expected_loss", match.expected_loss ? Json(*match.expected_loss) : Json()}};
  if (match.row == nullptr) return json;
  json["config"] = match.row->trial.config;
  json["timing"] = match.row->winner.goal.timing;
  json["objective"] = match.row->winner.goal.objective;
  json["deterministic"] = match.row->trial.deterministic ? Json(*match.row->trial.deterministic) : Json();
  json["tuned_energy_uj"] = match.row->trial.energy_uj ? Json(*match.row->trial.energy_uj) : Json();
  json["tuned_dims"] = dims_of_key(match.row->problem.dims_key);
  json["tuned_time_us"] = match.row->trial.time_us ? Json(*match.row->trial.time_us) : Json();
  json["untimed"] = untimed(match.row->trial) ? Json(match.row->trial.reason) : Json();
  json["workspace_bytes"] = match.bound.workspace_bytes;
  json["prepared_bytes"] = match.bound.prepared_bytes;
  json["steps"] = Json::array();
  for (const BoundSizes::Step& step : match.bound.steps) {
    const Step& of_plan = match.plan->plan.steps[step.index];
    json["steps"].push_back({{"kernel", of_plan.kernel},
                             {"prepare", of_plan.prepare},
                             {"grid", step.grid},
                             {"block", step.block},
                             {"lds_bytes", step.lds_bytes}});
  }
  return json;
}

int cmd_lookup(const Context&, const Words& args) {
  LookupRequest request;
  Options options("lookup", "[tuned.db] OP dim=val… [flags]", "What the runtime would choose for a shape, and why.");
  request.declare(options);
  if (const auto code = options.parse(args)) return *code;
  const auto found = look_up(request);
  if (!found) return report(found.error());
  const Lookup& answer = *found;
  if (request.as_json) {
    print_json(lookup_json(answer));
  } else {
    fmt::print("{}: {}\n", match_name(answer.match.kind), printable(answer.match.reason));
    if (answer.match.row != nullptr) {
      const TrialRecord& trial = answer.match.row->trial;
      fmt::print("{} on {} ({})\n  {}\n  {} {}{}\n  expected loss: {}\n", printable(answer.signature),
                 printable(answer.device_name), printable(answer.arch), printable(trial.config),
                 untimed(trial) ? "untimed default for" : "tuned at", printable(answer.match.row->problem.dims_key),
                 (trial.time_us ? fmt::format(": {} us {}", number(*trial.time_us), trial.timing) : "") +
                     (trial.energy_uj ? fmt::format(", {} uJ", number(*trial.energy_uj)) : ""),
                 answer.match.kind == MatchKind::kExact ? "none"
                 : answer.match.expected_loss           ? fmt::format("{:.1f} %", 100 * *answer.match.expected_loss)
                                                        : "unknown, this shape was not tuned");
    }
  }
  return answer.match.kind == MatchKind::kNone ? 1 : 0;
}

}  // namespace kgen
