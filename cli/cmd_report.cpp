// `kgen report`: what database files hold, as the JSON that report/src reads, inside the page.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <unordered_map>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "generator/emit.h"
#include "report/page.h"
#include "tuner/problem.h"
#include "tuner/process.h"

namespace kgen {
namespace {

// Texts that repeat, each once; the document names them by number.
class Texts {
 public:
  std::size_t operator()(const std::string& text) {
    const auto [at, added] = number_.emplace(text, list_.size());
    if (added) list_.push_back(text);
    return at->second;
  }
  const Words& list() const { return list_; }

 private:
  std::unordered_map<std::string, std::size_t> number_;
  Words list_;
};

// Sources share most of their text: what stands between empty lines is kept once, and a source is the numbers of such
// blocks.
Json blocks_of(const std::string& source, Texts& blocks) {
  Json numbers = Json::array();
  for (std::size_t at = 0;;) {
    const std::size_t end = source.find("\n\n", at);
    numbers.push_back(blocks(source.substr(at, end - at)));
    if (end == std::string::npos) return numbers;
    at = end + 2;
  }
}

// What the database cannot tell but this kgen can: the source, with a note where it is not what was timed or not to be
// had, and the command that repeats a candidate, before and after the candidate.
struct Regenerated {
  std::string source, note;
  Words repeat, kernels;
};

Regenerated regenerate(const WinnerRow& row, const OwnOps& own_ops) {
  Regenerated out;
  const auto make = [&]() -> Result<void> {
    // A name from a file is not to be taken for a path.
    if (const Words known = builtin_ops();
        !own_ops.contains(row.op.op) && std::find(known.begin(), known.end(), row.op.op) == known.end())
      return fail(ErrorKind::kBadInput,
                  fmt::format("operator '{}' is not built in: give its definition with --own-op", row.op.op));
    KGEN_TRY(const Plan plan, plan_from_json(row.winner.plan_json));
    for (const Step& step : plan.steps) out.kernels.push_back(step.kernel);
    KGEN_TRY(const OpSpec spec, stored_spec(row, plan, own_ops));
    const std::string line = repeat_line(spec, row.trial.config, row.device.arch == "host" ? "host" : "auto");
    const std::string config = shell_quoted(row.trial.config);
    const std::size_t at = line.rfind(config);
    out.repeat = {line.substr(0, at), line.substr(at + config.size())};
    KGEN_TRY(const Arch arch, find_arch(row.device.arch));
    KGEN_TRY(const Candidate candidate, parse_candidate(spec, arch, row.trial.config));
    KGEN_TRY(KernelSource source, emit(spec, arch, candidate));
    if (source.hash != row.trial.source_hash)
      out.note = fmt::format("this kgen makes another source of it: {} now, {} when it was timed", source.hash,
                             row.trial.source_hash);
    out.source = std::move(source.text);
    return {};
  };
  if (const auto made = make(); !made) out.note = made.error().message;
  return out;
}

Json optional_json(const auto& value) { return value ? Json(*value) : Json(); }

// Four digits more than anybody reads; shorter than the shortest text that gives the same double.
Json rounded(const std::optional<double>& value) {
  if (!value || !std::isfinite(*value)) return {};
  return *value == 0 ? Json(0) : Json(std::stod(fmt::format("{:.7g}", *value)));
}

// One array a column, so that no name is repeated. Samples are whole nanoseconds.
Json trials_json(const std::vector<TrialRecord>& trials, Texts& texts) {
  Json json = Json::object();
  const auto column = [&](const char* name, const auto& value) {
    Json values = Json::array();
    for (const TrialRecord& trial : trials) values.push_back(value(trial));
    json[name] = std::move(values);
  };
  using T = const TrialRecord&;
  column("config", [&](T t) { return Json(texts(t.config)); });
  column("status", [&](T t) { return Json(texts(std::string(status_name(t.status)))); });
  column("reason", [&](T t) { return Json(texts(t.reason)); });
  column("timing", [&](T t) { return Json(texts(t.timing)); });
  column("throttle", [&](T t) { return Json(texts(t.throttle)); });
  column("compiler",
         [&](T t) { return Json(texts(fmt::format("{}\n{}\n{}", t.compiler, t.options, t.kgen_version))); });
  column("source_hash", [&](T t) { return Json(texts(t.source_hash)); });
  column("is_default", [](T t) { return Json(t.is_default ? 1 : 0); });
  column("time_us", [](T t) { return rounded(t.time_us); });
  column("mad_us", [](T t) { return rounded(t.mad_us); });
  column("energy_uj", [](T t) { return rounded(t.energy_uj); });
  column("compile_seconds", [](T t) { return rounded(t.compile_seconds); });
  column("verify_seconds", [](T t) { return rounded(t.verify_seconds); });
  column("max_error_ratio", [](T t) { return rounded(t.max_error_ratio); });
  column("registers", [](T t) { return optional_json(t.registers); });
  column("spills", [](T t) { return optional_json(t.spills); });
  column("lds_bytes", [](T t) { return optional_json(t.lds_bytes); });
  column("occupancy_waves", [](T t) { return optional_json(t.occupancy_waves); });
  column("clock_mhz", [](T t) { return optional_json(t.clock_mhz); });
  column("temperature_c", [](T t) { return optional_json(t.temperature_c); });
  column("deterministic", [](T t) { return optional_json(t.deterministic); });
  column("recorded_at_ms", [](T t) { return Json(t.recorded_at_ms); });
  column("samples_ns", [](T t) {
    Json samples = Json::array();
    for (const float us : t.samples_us) samples.push_back(std::isfinite(us) ? Json(std::llround(1000.0 * us)) : Json());
    return samples;
  });
  return json;
}

Json device_json(const DeviceRecord& device) {
  return {{"arch", device.arch},
          {"name", device.name},
          {"driver", device.driver},
          {"uuid", device.uuid},
          {"compute_units", device.compute_units},
          {"memory_bytes", device.memory_bytes},
          {"l2_bytes", device.l2_bytes},
          {"clock_khz", device.clock_khz}};
}

// Adds a file's problems to `json`.
Result<void> add_file(const std::string& path, const std::string& op_glob, const OwnOps& own_ops, Texts& texts,
                      Texts& blocks, Json& json) {
  KGEN_TRY(Db db, Db::open(path, DbMode::kReadOnly));
  KGEN_TRY(const DbInfo info, db.info());
  KGEN_TRY(const std::vector<WinnerRow> winners, db.winners());
  KGEN_TRY(const std::vector<TrialGroup> groups, db.trial_groups());
  const std::size_t file = json["files"].size();
  json["files"].push_back({{"path", path},
                           {"schema_version", info.schema_version},
                           {"trials", info.trials},
                           {"winners", info.winners},
                           {"objects", info.objects},
                           {"object_bytes", info.object_bytes}});
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<const WinnerRow*>> winners_of;
  for (const WinnerRow& row : winners)
    if (!row.winner.is_default) winners_of[{row.winner.problem, row.winner.device}].push_back(&row);

  for (const TrialGroup& group : groups) {
    if (!glob_match(op_glob, group.op.op)) continue;
    KGEN_TRY(const std::vector<TrialRecord> trials, db.trials(group.problem_id, group.device_id, true));
    Json device = device_json(group.device);
    Json& devices = json["devices"];
    const auto at = std::find(devices.begin(), devices.end(), device);
    const auto device_number = at - devices.begin();
    if (at == devices.end()) devices.push_back(std::move(device));
    Json item{{"file", file},
              {"device", device_number},
              {"op", group.op.op},
              {"signature", group.op.signature},
              {"attributes", short_attributes(group.op)},
              {"dims", group.problem.dims_key},
              {"label", group.problem.label},
              {"flops", group.problem.flops},
              {"bytes", group.problem.bytes},
              {"winners", Json::array()}};
    for (const WinnerRow* row : winners_of[{group.problem_id, group.device_id}]) {
      const auto trial =
          std::find_if(trials.begin(), trials.end(), [&](const auto& t) { return t.id == row->trial.id; });
      if (trial == trials.end()) continue;
      const Regenerated made = regenerate(*row, own_ops);
      Json winner{{"trial", trial - trials.begin()},
                  {"goal", row->winner.goal.text()},
                  {"default_us", rounded(row->default_time_us)},
                  {"object_hash", row->winner.object_hash},
                  {"kernels", made.kernels},
                  {"repeat", made.repeat},
                  {"source_note", made.note}};
      winner["source"] = made.source.empty() ? Json() : blocks_of(made.source, blocks);
      if (const auto& range = row->winner.range)
        winner["serves"] = {{"dim", range->dim}, {"first", range->first}, {"last", range->last}, {"loss", range->loss}};
      item["winners"].push_back(std::move(winner));
    }
    item["trials"] = trials_json(trials, texts);
    json["problems"].push_back(std::move(item));
  }
  return {};
}

Result<Json> report_json(const Words& files, const std::string& op_glob, const Words& own_op_paths) {
  KGEN_TRY(const OwnOps own_ops, read_own_ops(own_op_paths));
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  Json json{{"kgen_version", KGEN_VERSION},
            {"made_at_ms", std::chrono::duration_cast<std::chrono::milliseconds>(now).count()},
            {"files", Json::array()},
            {"devices", Json::array()},
            {"problems", Json::array()}};
  Texts texts, blocks;
  for (const std::string& file : files) KGEN_CHECK_OK(add_file(file, op_glob, own_ops, texts, blocks, json));
  if (json["problems"].empty())
    return fail(ErrorKind::kBadInput, fmt::format("nothing to report: no trial in {}{}", join(files, ", "),
                                                  op_glob == "*" ? "" : fmt::format(" matches '--op {}'", op_glob)));
  json["texts"] = texts.list();
  json["blocks"] = blocks.list();
  return json;
}

Result<std::string> filled_page(const Json& json) {
  if (kReportPage.empty())
    return fail(ErrorKind::kBadInput,
                "this kgen was built without npm and has no page to fill; build it where npm is, or use --json");
  const std::size_t slot = kReportPage.find(kReportSlot);
  // Texts from a database must not end the script element that they stand in.
  std::string data;
  for (const char c : json.dump(-1, ' ', false, Json::error_handler_t::replace))
    c == '<' ? data += "\\u003c" : data += c;
  return fmt::format("{}{}{}", kReportPage.substr(0, slot), data, kReportPage.substr(slot + kReportSlot.size()));
}

}  // namespace

int cmd_report(const Context&, const Words& args) {
  Words files, own_ops;
  std::string op_glob = "*", output = "report.html";
  bool as_json = false;
  Options options("report", "[tuned.db…] [-o report.html]",
                  "One self-contained page: every candidate, why the winners won, several databases side by side.");
  options.arguments("DB", files, "tuned databases; the one that ships with kgen where none is named", false);
  options.text("-o,--output", output, "file to write (report.html)");
  options.text("--op", op_glob, "only operators whose name matches");
  options.list("--own-op", own_ops,
               "definition of an operator in the databases that is not built in; may be given again");
  options.flag("--json", as_json, "instead of the page, its data as one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const auto named = named_dbs(files);
  if (!named) return report(named.error());
  files = *named;
  const auto json = report_json(files, op_glob, own_ops);
  if (!json) return report(json.error());
  if (as_json) {
    print_json(*json);
    return 0;
  }
  const auto page = filled_page(*json);
  if (!page) return report(page.error());
  if (const auto written = write_file(output, *page); !written) return report(written.error());
  fmt::print("{}: {} problems of {} files, {}\n", output, (*json)["problems"].size(), files.size(),
             human_bytes(static_cast<double>(page->size())));
  return 0;
}

}  // namespace kgen
