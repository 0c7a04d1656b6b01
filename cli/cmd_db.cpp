#include <fmt/core.h>

#include <filesystem>
#include <set>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "tuner/search/winners.h"

namespace kgen {
namespace {

int db_info(const Words& args) {
  std::string path;
  bool as_json = false;
  Options options("db info", "tuned.db [--json]", "What is inside and from where.");
  options.argument("DB", path, "a tuned database");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  auto db = Db::open(path, DbMode::kReadOnly);
  if (!db) return report(db.error());
  const auto info = db->info();
  if (!info) return report(info.error());
  if (as_json) {
    Json json{{"db", path},
              {"schema_version", info->schema_version},
              {"ops", info->ops},
              {"problems", info->problems},
              {"trials", info->trials},
              {"winners", info->winners},
              {"objects", info->objects},
              {"object_bytes", info->object_bytes}};
    json["trials_by_status"] = Json::object();
    for (const auto& [status, count] : info->trials_by_status) json["trials_by_status"][status] = count;
    json["devices"] = Json::array();
    for (const DeviceRecord& device : info->device_list)
      json["devices"].push_back(
          {{"name", device.name}, {"arch", device.arch}, {"driver", device.driver}, {"uuid", device.uuid}});
    print_json(json);
    return 0;
  }
  fmt::print("{}: schema {}, {} operators, {} problems, {} trials, {} winners, {} code objects ({})\n", path,
             info->schema_version, info->ops, info->problems, info->trials, info->winners, info->objects,
             human_bytes(static_cast<double>(info->object_bytes)));
  for (const DeviceRecord& device : info->device_list)
    fmt::print("device {} ({}), {}\n", device.name, device.arch, device.driver);
  for (const auto& [status, count] : info->trials_by_status) fmt::print("{:>8} {}\n", count, status);
  return 0;
}

int db_check(const Words& args) {
  std::string path;
  bool as_json = false;
  Options options(
      "db check", "tuned.db [--json]",
      "Integrity of the file: structure, references, hashes, values. Brings a file of an older kgen up to date first.");
  options.argument("DB", path, "a tuned database");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const auto migrated = Db::migrate(path);
  if (!migrated) return report(migrated.error());
  auto db = Db::open(path, DbMode::kReadOnly);
  if (!db) return report(db.error());
  if (*migrated && !as_json) fmt::print("{}: was of schema {}, is up to date now\n", path, **migrated);
  const auto problems = db->check();
  if (!problems) return report(problems.error());
  if (as_json) {
    print_json({{"db", path}, {"clean", problems->empty()}, {"problems", *problems}});
  } else {
    for (const std::string& problem : *problems) fmt::print("{}: {}\n", path, problem);
    if (problems->empty()) fmt::print("{}: clean\n", path);
  }
  return problems->empty() ? 0 : 1;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

// One line a trial; a column for what people sort and filter by.
std::string to_csv(const std::vector<Recording>& recordings) {
  std::string out =
      "op,signature,dims,device,arch,config,status,time_us,mad_us,timing,compile_seconds,registers,spills,lds_bytes,"
      "occupancy_waves,reason,clock_mhz,temperature_c,throttle,energy_uj,deterministic\n";
  const auto optional = [](const auto& value) { return value ? fmt::format("{}", *value) : std::string(); };
  for (const Recording& r : recordings)
    for (const TrialRecord& t : r.trials) {
      const Words cells{r.op.op,
                        r.op.signature,
                        r.problem.dims_key,
                        r.device.name,
                        r.device.arch,
                        t.config,
                        std::string(status_name(t.status)),
                        optional(t.time_us),
                        optional(t.mad_us),
                        t.timing,
                        optional(t.compile_seconds),
                        optional(t.registers),
                        optional(t.spills),
                        optional(t.lds_bytes),
                        optional(t.occupancy_waves),
                        t.reason,
                        optional(t.clock_mhz),
                        optional(t.temperature_c),
                        t.throttle,
                        optional(t.energy_uj),
                        t.deterministic ? *t.deterministic ? "1" : "0" : ""};
      for (std::size_t c = 0; c < cells.size(); ++c) out += (c == 0 ? "" : ",") + csv_cell(cells[c]);
      out += '\n';
    }
  return out;
}

int db_export(const Words& args) {
  std::string path, format = "t4", op_glob = "*", output;
  Options options("db export", "tuned.db [--format t4|csv] [--op GLOB] [-o FILE]",
                  "Every trial as T4 (JSON, with samples) or as CSV.");
  options.argument("DB", path, "a tuned database");
  options.choice("--format", format, {"t4", "csv"}, "T4 unless csv is asked for");
  options.text("--op", op_glob, "only operators whose name matches, e.g. 'conv*'");
  options.text("-o,--output", output, "file to write instead of stdout");
  if (const auto code = options.parse(args)) return *code;
  auto recordings = read_recordings(path, true);
  if (!recordings) return report(recordings.error());
  std::erase_if(*recordings, [&](const Recording& r) { return !glob_match(op_glob, r.op.op); });
  const std::string text = format == "t4" ? to_t4(*recordings) + "\n" : to_csv(*recordings);
  if (output.empty()) {
    fmt::print("{}", text);
  } else if (const auto written = write_file(output, text); !written) {
    return report(written.error());
  }
  return 0;
}

// What a trial is recognised by, so that the same file imported twice adds nothing. A file without times of day gets
// the time of the import, which cannot tell.
std::string trial_key(const TrialRecord& t, bool dated) {
  return fmt::format("{}|{}|{}|{}", t.config, status_name(t.status), t.time_us.value_or(0),
                     dated ? t.recorded_at_ms : 0);
}

Result<std::pair<std::size_t, std::size_t>> import_into(const std::string& path, const Words& files,
                                                        const std::string& device) {
  std::vector<Recording> all;
  for (const std::string& file : files) {
    KGEN_TRY(std::vector<Recording> recordings, read_recordings(file, true));
    std::move(recordings.begin(), recordings.end(), std::back_inserter(all));
  }
  KGEN_TRY(Db db, Db::open(path, DbMode::kReadWrite));
  std::size_t added = 0, known = 0;
  for (Recording& recording : all) {
    if (!device.empty()) recording.device.name = device;
    if (recording.device.name.empty()) recording.device.name = "unknown";
    KGEN_TRY(const std::int64_t problem, db.intern_problem(recording.op, recording.problem));
    KGEN_TRY(const std::int64_t device_id, db.intern_device(recording.device));
    KGEN_TRY(const std::vector<TrialRecord> present, db.trials(problem, device_id));
    std::set<std::string> keys;
    for (const TrialRecord& trial : present)
      for (const bool dated : {false, true}) keys.insert(trial_key(trial, dated));
    std::vector<TrialRecord> fresh;
    for (TrialRecord& trial : recording.trials) {
      if (!keys.insert(trial_key(trial, trial.recorded_at_ms != 0)).second) continue;
      trial.problem = problem;
      trial.device = device_id;
      fresh.push_back(std::move(trial));
    }
    KGEN_CHECK_OK(db.record_all(fresh));
    added += fresh.size();
    known += recording.trials.size() - fresh.size();
  }
  return std::pair{added, known};
}

int db_import(const Words& args) {
  std::string path, device;
  Words files;
  bool as_json = false;
  Options options("db import", "tuned.db FILE… [--device NAME] [--json]",
                  "Trials of T4 files, Kernel Tuner caches (.json, .json.gz) or other databases, once each.");
  options.argument("DB", path, "database to add to; made if it is not there");
  options.arguments("FILE", files, "what to read");
  options.text("--device", device, "name of the device, where the files do not say it");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const auto count = import_into(path, files, device);
  if (!count) return report(count.error());
  if (as_json) {
    print_json({{"db", path}, {"added", count->first}, {"known", count->second}});
  } else {
    fmt::print("{}: {} trials added, {} were there\n", path, count->first, count->second);
  }
  return 0;
}

int db_merge(const Words& args) {
  std::string output;
  Words files;
  bool as_json = false;
  Options options("db merge", "tuned.db… -o INTO.db [--json]",
                  "The union of databases: trials once each, and of the winners of a problem the one that needs less.");
  options.arguments("DB", files, "databases to take from");
  options.text("-o,--output", output, "database to add to; made if it is not there");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  if (output.empty()) {
    fmt::print(stderr, "kgen db merge: -o INTO.db is missing\n");
    return 2;
  }
  auto db = Db::open(output, DbMode::kReadWrite);
  if (!db) return report(db.error());
  Json list = Json::array();
  for (const std::string& file : files) {
    const auto merged = db->merge(file);
    if (!merged) return report(merged.error());
    list.push_back({{"file", file}, {"added", merged->added}, {"known", merged->known}, {"winners", merged->winners}});
    if (!as_json)
      fmt::print("{}: {} trials added, {} were there; {} winners taken\n", file, merged->added, merged->known,
                 merged->winners);
  }
  if (as_json) print_json({{"db", output}, {"files", list}});
  return 0;
}

int db_prior(const Words& args) {
  Words paths;
  std::string folder;
  Options options("db prior", "tuned.db… -o FOLDER",
                  "What won on which shape, one YAML an operator: what `kgen tune` tries first on new shapes.");
  options.arguments("DB", paths, "tuned databases");
  options.text("-o,--output", folder, "folder to write OP.yaml files into");
  if (const auto code = options.parse(args)) return *code;
  if (folder.empty()) {
    fmt::print(stderr, "kgen db prior: -o FOLDER is missing\n");
    return 2;
  }
  std::vector<Recording> all;
  for (const std::string& path : paths) {
    auto recordings = read_recordings(path);
    if (!recordings) return report(recordings.error());
    std::move(recordings->begin(), recordings->end(), std::back_inserter(all));
  }
  const auto files = winners_yaml(learn_winners(all));
  if (files.empty()) return report({ErrorKind::kBadInput, join(paths, " ") + ": nothing to learn from"});
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  // A database is data from anywhere, and names in it become names of files.
  for (const auto& [op, text] : files)
    if (op.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != std::string::npos)
      return report({ErrorKind::kBadInput,
                     fmt::format("{}: '{}' is no name of an operator; nothing was written", join(paths, " "), op)});
  for (const auto& [op, text] : files)
    if (const auto written = write_file(fmt::format("{}/{}.yaml", folder, op), text); !written)
      return report(written.error());
  fmt::print("{}: {} operators\n", folder, files.size());
  return 0;
}

}  // namespace

int cmd_db(const Context&, const Words& args) {
  const Words names = {"info", "check", "merge", "export", "import", "prior"};
  const std::string name = args.empty() ? "" : args.front();
  const Words rest(args.begin() + (args.empty() ? 0 : 1), args.end());
  if (name == "info") return db_info(rest);
  if (name == "check") return db_check(rest);
  if (name == "merge") return db_merge(rest);
  if (name == "export") return db_export(rest);
  if (name == "import") return db_import(rest);
  if (name == "prior") return db_prior(rest);
  if (name == "--help" || name == "-h") {
    fmt::print(
        "Usage: kgen db info|check|export tuned.db …\n       kgen db merge tuned.db… -o INTO.db\n       kgen db import "
        "tuned.db FILE…\n       kgen db prior tuned.db… -o FOLDER\n");
    return 0;
  }
  fmt::print(stderr, "kgen db: {}{}; valid: {}\n",
             name.empty() ? "a subcommand is missing" : "unknown subcommand '" + name + "'", did_you_mean(name, names),
             join(names, ", "));
  return 2;
}

}  // namespace kgen
