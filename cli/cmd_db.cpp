#include <fmt/core.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"

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

}  // namespace

int cmd_db(const Context&, const Words& args) {
  const Words names = {"info", "check"};
  const std::string name = args.empty() ? "" : args.front();
  const Words rest(args.begin() + (args.empty() ? 0 : 1), args.end());
  if (name == "info") return db_info(rest);
  if (name == "check") return db_check(rest);
  if (name == "--help" || name == "-h") {
    fmt::print("Usage: kgen db info|check tuned.db [--json]\n");
    return 0;
  }
  fmt::print(stderr, "kgen db: {}{}; valid: {}\n",
             name.empty() ? "a subcommand is missing" : "unknown subcommand '" + name + "'", did_you_mean(name, names),
             join(names, ", "));
  return 2;
}

}  // namespace kgen
