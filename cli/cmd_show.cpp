#include <fmt/core.h>

#include <algorithm>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"

namespace kgen {
namespace {

Json optional_json(const auto& value) { return value ? Json(*value) : Json(); }

Json trial_json(const TrialRecord& trial) {
  return {{"config", trial.config},
          {"status", status_name(trial.status)},
          {"reason", trial.reason},
          {"is_default", trial.is_default},
          {"untimed", untimed(trial)},
          {"time_us", optional_json(trial.time_us)},
          {"mad_us", optional_json(trial.mad_us)},
          {"timing", trial.timing},
          {"energy_uj", optional_json(trial.energy_uj)},
          {"energy_mad_uj", optional_json(trial.energy_mad_uj)},
          {"deterministic", optional_json(trial.deterministic)},
          {"max_error_ratio", optional_json(trial.max_error_ratio)},
          {"relative_l2", optional_json(trial.relative_l2)},
          {"registers", optional_json(trial.registers)},
          {"spills", optional_json(trial.spills)},
          {"lds_bytes", optional_json(trial.lds_bytes)},
          {"occupancy_waves", optional_json(trial.occupancy_waves)},
          {"clock_mhz", optional_json(trial.clock_mhz)},
          {"temperature_c", optional_json(trial.temperature_c)},
          {"throttle", trial.throttle},
          {"compile_seconds", optional_json(trial.compile_seconds)},
          {"verify_seconds", optional_json(trial.verify_seconds)},
          {"compiler", trial.compiler},
          {"options", trial.options},
          {"source_hash", trial.source_hash},
          {"op_hash", trial.op_hash},
          {"kgen_version", trial.kgen_version}};
}

Json winner_json(const WinnerRow& row) {
  Json json{{"op", row.op.op},
            {"signature", row.op.signature},
            {"attributes", signature_attributes(row.op.signature)},
            {"dims", dims_of_key(row.problem.dims_key)},
            {"label", row.problem.label},
            {"device", row.device.name},
            {"arch", row.device.arch},
            {"driver", row.device.driver},
            {"flops", row.problem.flops},
            {"bytes", row.problem.bytes},
            {"objective", row.winner.goal.objective},
            {"deterministic_demanded", row.winner.goal.deterministic},
            {"default_us", optional_json(row.default_time_us)},
            {"default_energy_uj", optional_json(row.default_energy_uj)},
            {"object_hash", row.winner.object_hash}};
  if (const auto& range = row.winner.range)
    json["serves"] = {
        {"dim", range->dim}, {"first", range->first}, {"last", range->last}, {"expected_loss", range->loss}};
  json.update(trial_json(row.trial));
  return json;
}

// The shape that a winner was timed at, and the sizes that it serves.
std::string shape_text(const WinnerRow& row) {
  const auto& range = row.winner.range;
  return range ? fmt::format("{} for {}..{}", row.problem.dims_key, range->first, range->last) : row.problem.dims_key;
}

double time_of(const TrialRecord& trial) { return trial.time_us.value_or(0); }
std::string time_text(const TrialRecord& trial) { return untimed(trial) ? "untimed" : number(time_of(trial)); }
// What for; an untimed default for nothing.
std::string goal_text(const WinnerRow& row) { return untimed(row.trial) ? row.trial.reason : row.winner.goal.text(); }

void print_csv(const Words& row) {
  for (std::size_t i = 0; i < row.size(); ++i) fmt::print("{}{}", i ? "," : "", csv_cell(row[i]));
  fmt::print("\n");
}

std::string exact(double value) { return value == 0 ? "" : fmt::format("{}", value); }

Result<void> show(const std::string& named, const std::string& op_glob, std::size_t top, const std::string& format) {
  KGEN_TRY(const std::string path, named_db(named));
  KGEN_TRY(Db db, Db::open(path, DbMode::kReadOnly));
  KGEN_TRY(std::vector<WinnerRow> rows, db.winners());
  std::erase_if(rows, [&](const WinnerRow& row) {
    return (row.winner.is_default && !untimed(row.trial)) || !glob_match(op_glob, row.op.op);
  });
  Json json{{"db", path}, {"winners", Json::array()}};
  Table table(top > 0 ? Words{"op", "shape", "device", "tuned for", "candidate", "time us", "of best", "energy uJ"}
                      : Words{"op", "shape", "device", "tuned for", "winner", "time us", "TFLOP/s", "GB/s", "gain",
                              "energy uJ"});
  if (format == "csv")
    print_csv({"op", "signature", "dims", "label", "device", "arch", "config", "status", "time_us", "mad_us",
               "default_us", "flops", "bytes", "registers", "spills", "timing", "objective", "energy_uj"});
  for (const WinnerRow& row : rows) {
    std::vector<TrialRecord> trials = {row.trial};
    if (top > 0 && !untimed(row.trial)) {
      KGEN_TRY(trials, ranked(db, row));
      if (trials.size() > top) trials.resize(top);
    }
    Json item = winner_json(row);
    for (const TrialRecord& trial : trials) {
      const double time = time_of(trial);
      if (format == "csv") {
        print_csv({row.op.op, row.op.signature, row.problem.dims_key, row.problem.label, row.device.name,
                   row.device.arch, trial.config, std::string(status_name(trial.status)), exact(time),
                   exact(trial.mad_us.value_or(0)), exact(row.default_time_us.value_or(0)), exact(row.problem.flops),
                   exact(row.problem.bytes), trial.registers ? std::to_string(*trial.registers) : "",
                   trial.spills ? std::to_string(*trial.spills) : "", trial.timing, row.winner.goal.objective,
                   exact(trial.energy_uj.value_or(0))});
      }
      if (top > 0) {
        table.add({row.op.op + short_attributes(row.op), shape_text(row), row.device.name, goal_text(row), trial.config,
                   time_text(trial), percent_of(time_of(trials.front()), time), number(trial.energy_uj.value_or(0))});
        Json candidate = trial_json(trial);
        candidate["share_of_best"] = time > 0 ? Json(time_of(trials.front()) / time) : Json();
        item["candidates"].push_back(std::move(candidate));
      } else {
        table.add({row.op.op + short_attributes(row.op), shape_text(row), row.device.name, goal_text(row), trial.config,
                   time_text(trial), time > 0 ? number(row.problem.flops / time / 1e6) : "",
                   time > 0 ? number(row.problem.bytes / time / 1e3) : "",
                   time > 0 && row.default_time_us ? fmt::format("{:.2f}x", *row.default_time_us / time) : "",
                   number(trial.energy_uj.value_or(0))});
      }
    }
    json["winners"].push_back(std::move(item));
  }
  if (format == "json") print_json(json);
  if (format == "table") table.print();
  return {};
}

}  // namespace

int cmd_show(const Context&, const Words& args) {
  std::string path, op_glob = "*", format = "table";
  std::int64_t top = 0;
  bool json = false;
  Options options("show", "[tuned.db] [flags]", "The winners, or with --top the ranked candidates of each problem.");
  options.argument("DB", path, "a tuned database; the one that ships with kgen where none is named", false);
  options.text("--op", op_glob, "only operators whose name matches");
  options.number("--top", top, 1, "candidates of each problem, fastest first");
  options.choice("--format", format, {"table", "json", "csv"}, "how to print");
  options.flag("--json", json, "the same as --format json");
  if (const auto code = options.parse(args)) return *code;
  const auto shown = show(path, op_glob, static_cast<std::size_t>(top), json ? "json" : format);
  return shown ? 0 : report(shown.error());
}

}  // namespace kgen
