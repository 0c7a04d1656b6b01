#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
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
  Options options("db info", "[tuned.db] [--json]", "What is inside and from where.");
  options.argument("DB", path, "a tuned database; the one that ships with kgen where none is named", false);
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const auto named = named_db(path);
  if (!named) return report(named.error());
  path = *named;
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
    fmt::print("device {} ({}), {}\n", printable(device.name), printable(device.arch), printable(device.driver));
  for (const auto& [status, count] : info->trials_by_status) fmt::print("{:>8} {}\n", count, status);
  return 0;
}

// A public key as it is, or a file that holds it.
Result<PublicKey> read_public_key(const std::string& text) {
  if (text.starts_with("kgen-p")) return PublicKey::parse(text);
  KGEN_TRY(const std::string content, read_file(text));
  auto key = PublicKey::parse(content);
  if (!key) return fail(ErrorKind::kBadInput, text + ": " + key.error().message);
  return key;
}

// What check() finds, and the signatures. With a key, one by that key must be there and fit.
struct Checked {
  std::vector<std::string> problems;
  std::vector<SignatureRow> signatures;
};
Result<Checked> check_file(const std::string& path, const std::optional<PublicKey>& key) {
  KGEN_TRY(Db db, Db::open(path, DbMode::kReadOnly));
  Checked checked;
  KGEN_TRY(checked.problems, db.check());
  if (const auto signatures = db.signatures()) checked.signatures = *signatures;
  if (!key) return checked;
  const auto own = std::ranges::find(checked.signatures, key->text(), &SignatureRow::key);
  if (own == checked.signatures.end()) {
    const auto missing = db.require_signature(*key);
    checked.problems.push_back(missing ? path + ": its signatures cannot be read" : missing.error().message);
  } else if (!own->fault.empty()) {
    checked.problems.push_back(own->fault);
  }
  return checked;
}

int db_check(const Words& args) {
  std::string path, key_text;
  bool as_json = false;
  Options options("db check", "[tuned.db] [--key KEY] [--json]",
                  "Integrity of the file: structure, references, hashes, values, signatures. Brings a file of an older "
                  "kgen up to date first.");
  options.argument("DB", path, "a tuned database; the one that ships with kgen where none is named", false);
  options.text("--key", key_text, "public key, or the file of it: its owner must have signed the file as it is");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const auto named = named_db(path);
  if (!named) return report(named.error());
  path = *named;
  std::optional<PublicKey> key;
  if (!key_text.empty()) {
    const auto read = read_public_key(key_text);
    if (!read) return report(read.error());
    key = *read;
  }
  const auto migrated = Db::migrate(path);
  if (!migrated) return report(migrated.error());
  const auto checked = check_file(path, key);
  if (!checked) return report(checked.error());
  if (*migrated && !as_json) fmt::print("{}: was of schema {}, is up to date now\n", path, **migrated);
  if (as_json) {
    Json signatures = Json::array();
    for (const SignatureRow& row : checked->signatures)
      signatures.push_back({{"key", row.key}, {"fits", row.fault.empty()}, {"fault", row.fault}});
    print_json({{"db", path},
                {"clean", checked->problems.empty()},
                {"problems", checked->problems},
                {"signatures", signatures}});
  } else {
    constexpr std::size_t kShown = 50;
    for (std::size_t i = 0; i < std::min(checked->problems.size(), kShown); ++i)
      fmt::print("{}: {}\n", path, printable(checked->problems[i]));
    if (checked->problems.size() > kShown)
      fmt::print("{}: and {} more (--json tells all)\n", path, checked->problems.size() - kShown);
    for (const SignatureRow& row : checked->signatures)
      fmt::print("{}: signed by {}{}\n", path, printable(row.key),
                 row.fault.empty() ? ", and as it was then" : "; " + printable(row.fault));
    if (checked->problems.empty()) fmt::print("{}: clean\n", path);
  }
  return checked->problems.empty() ? 0 : 1;
}

int db_keygen(const Words& args) {
  std::string path;
  Options options("db keygen", "FILE", "Makes a key pair to sign databases with: FILE, which you keep, and FILE.pub.");
  options.argument("FILE", path, "where the private key goes; must not exist");
  if (const auto code = options.parse(args)) return *code;
  const PrivateKey key = PrivateKey::generate();
  const std::string text = key.text() + "\n", shared = key.public_key().text();
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return report({ErrorKind::kIo, fmt::format("{}: cannot be made: {}", path, std::strerror(errno))});
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (::close(file) != 0 || !written) {
    ::unlink(path.c_str());
    return report({ErrorKind::kIo, path + ": cannot be written; is the disk full?"});
  }
  if (const auto done = write_file(path + ".pub", shared + "\n"); !done) return report(done.error());
  fmt::print("{}: the private key; who has it can sign\n{}.pub: {}\n", path, path, shared);
  return 0;
}

int db_sign(const Words& args) {
  std::string path, key_path;
  bool as_json = false;
  Options options(
      "db sign", "tuned.db --key FILE [--json]",
      "Signs what the runtime takes from the file: winners, launch plans, code objects. The signature lies in "
      "the file; a later tune or merge makes it unfit.");
  options.argument("DB", path, "a tuned database");
  options.text("--key", key_path, "file of the private key (kgen db keygen)");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  if (key_path.empty()) {
    fmt::print(stderr, "kgen db sign: --key FILE is missing; `kgen db keygen FILE` makes one\n");
    return 2;
  }
  const auto sign = [&]() -> Result<std::string> {
    KGEN_TRY(const std::string text, read_file(key_path));
    auto key = PrivateKey::parse(text);
    if (!key) return fail(ErrorKind::kBadInput, key_path + ": " + key.error().message);
    // Only what is whole is vouched for.
    KGEN_CHECK_OK(Db::migrate(path).map([](auto) {}));
    KGEN_TRY(const Checked checked, check_file(path, std::nullopt));
    if (!checked.problems.empty())
      return fail(ErrorKind::kCheckFailed, fmt::format("{}: {}; not signed", path, checked.problems.front()));
    KGEN_TRY(Db db, Db::open(path, DbMode::kReadWrite));
    KGEN_CHECK_OK(db.sign(*key));
    return key->public_key().text();
  };
  const auto signer = sign();
  if (!signer) return report(signer.error());
  if (as_json) {
    print_json({{"db", path}, {"key", *signer}});
  } else {
    fmt::print("{}: signed by {}\n", path, *signer);
  }
  return 0;
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

Result<std::pair<Pruned, std::pair<std::uintmax_t, std::uintmax_t>>> prune_file(const std::string& path,
                                                                                const PruneRule& rule, bool dry_run) {
  std::error_code unknown;
  std::pair<std::uintmax_t, std::uintmax_t> bytes;
  if (!std::filesystem::exists(path, unknown))
    return fail(ErrorKind::kIo, fmt::format("{}: there is no such file", path));
  Pruned pruned;
  {
    KGEN_TRY(Db db, Db::open(path, DbMode::kReadWrite));
    KGEN_TRY(const DbInfo info, db.info());
    Words archs;
    for (const DeviceRecord& device : info.device_list) archs.push_back(device.arch);
    for (const std::string& arch : rule.archs)
      if (std::ranges::find(archs, arch) == archs.end())
        return fail(ErrorKind::kBadInput,
                    fmt::format("{} has nothing of architecture '{}'{}", path, arch, did_you_mean(arch, archs)));
    bytes.first = std::filesystem::file_size(path, unknown);
    KGEN_TRY(pruned, db.prune(rule, dry_run));
  }
  bytes.second = std::filesystem::file_size(path, unknown);  // closed, the file is one
  return std::pair{pruned, bytes};
}

int db_prune(const Words& args) {
  std::string path, archs;
  PruneRule rule;
  std::int64_t keep_top = 0;
  bool dry_run = false, as_json = false;
  Options options(
      "db prune", "tuned.db RULE… [--op GLOB] [--winners] [--dry-run] [--json]",
      "Removes trials by rule, then what nothing refers to, and makes the file smaller. Winners stay, but with "
      "--arch or --winners.");
  options.argument("DB", path, "a tuned database");
  options.flag("--failures", rule.failures, "rule: trials that gave no time (not compiled, wrong, hung …)");
  options.flag("--stale", rule.stale,
               "rule: trials of an older driver, compiler, operator or kernel source than the newest in the file");
  options.number("--keep-top", keep_top, 1,
                 "rule: timed trials but those of the N fastest candidates of each problem, device and timing");
  options.text("--arch", archs, "rule: everything of these architectures, winners included, e.g. sm_80,gfx90a");
  options.text("--op", rule.op_glob, "only operators whose name matches, e.g. 'conv*'");
  options.flag("--winners", rule.winners, "winners go, too, where a rule names their trial");
  options.flag("--dry-run", dry_run, "say what would go, and change nothing");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  if (keep_top > 0) rule.keep_top = keep_top;
  if (!archs.empty()) rule.archs = split(archs, ',');
  if (!rule.failures && !rule.stale && !rule.keep_top && rule.archs.empty()) {
    fmt::print(stderr, "kgen db prune: no rule; give --failures, --stale, --keep-top N or --arch A\n");
    return 2;
  }
  const auto done = prune_file(path, rule, dry_run);
  if (!done) return report(done.error());
  const auto& [pruned, bytes] = *done;
  if (as_json) {
    print_json({{"db", path},
                {"dry_run", dry_run},
                {"trials",
                 {{"failures", pruned.failures},
                  {"stale", pruned.stale},
                  {"slow", pruned.slow},
                  {"of_archs", pruned.of_archs}}},
                {"winners", pruned.winners},
                {"objects", pruned.objects},
                {"problems", pruned.problems},
                {"devices", pruned.devices},
                {"bytes_before", bytes.first},
                {"bytes_after", bytes.second}});
    return 0;
  }
  fmt::print(
      "{}: {} {} trials ({} failures, {} stale, {} slow, {} of the architectures), {} winners, {} code objects, {} "
      "problems, {} devices\n",
      path, dry_run ? "would remove" : "removed", pruned.failures + pruned.stale + pruned.slow + pruned.of_archs,
      pruned.failures, pruned.stale, pruned.slow, pruned.of_archs, pruned.winners, pruned.objects, pruned.problems,
      pruned.devices);
  if (!dry_run)
    fmt::print("{}: {} before, {} now\n", path, human_bytes(static_cast<double>(bytes.first)),
               human_bytes(static_cast<double>(bytes.second)));
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
  if (files.empty())
    return report({ErrorKind::kBadInput,
                   fmt::format("{}: nothing to learn from; a problem teaches where {} candidates were verified",
                               join(paths, " "), kLeastVerified)});
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
  struct Subcommand {
    const char* name;
    int (*run)(const Words&);
    const char* help;
  };
  static constexpr Subcommand kSubcommands[] = {
      {"info", db_info, "what is inside and from where"},
      {"check", db_check, "integrity, and signatures"},
      {"merge", db_merge, "the union of several files"},
      {"prune", db_prune, "remove trials by rule"},
      {"export", db_export, "every trial as T4 or CSV"},
      {"import", db_import, "trials of T4 files, Kernel Tuner caches or other databases"},
      {"keygen", db_keygen, "make a key pair"},
      {"sign", db_sign, "vouch for what the runtime takes from the file"},
      {"prior", db_prior, "what won on which shape, for new searches"},
  };
  if (args == kHelpAsJson) {
    for (const Subcommand& subcommand : kSubcommands) {
      if (&subcommand != kSubcommands) fmt::print(",\n");
      subcommand.run(args);
    }
    return 0;
  }
  const std::string name = args.empty() ? "" : args.front();
  const Words rest(args.begin() + (args.empty() ? 0 : 1), args.end());
  Words names;
  for (const Subcommand& subcommand : kSubcommands) {
    if (name == subcommand.name) return subcommand.run(rest);
    names.emplace_back(subcommand.name);
  }
  if (name == "--help" || name == "-h") {
    fmt::print("Care of database files.\n\nUsage: kgen db SUBCOMMAND …\n\nSubcommands:\n");
    for (const Subcommand& subcommand : kSubcommands) fmt::print("  {:<7} {}\n", subcommand.name, subcommand.help);
    fmt::print("\n'kgen db SUBCOMMAND --help' tells the flags of one.\n");
    return 0;
  }
  fmt::print(stderr, "kgen db: {}{}; valid: {}\n",
             name.empty() ? "a subcommand is missing" : "unknown subcommand '" + name + "'", did_you_mean(name, names),
             join(names, ", "));
  return 2;
}

}  // namespace kgen
