#include "tests/fuzz/inputs.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "base/text.h"
#include "cli/cli.h"
#include "device/device.h"
#include "generator/emit.h"
#include "kgen/kgen.h"
#include "tests/db/records.h"
#include "tests/runtime/host_db.h"
#include "tuner/search/recorded.h"
#include "tuner/search/winners.h"

namespace kgen {
namespace {

namespace fs = std::filesystem;

// The programs may run where there is no checkout at the place where they were built.
const std::string kFixtures =
    std::string(std::getenv("KGEN_SOURCE_DIR") ? std::getenv("KGEN_SOURCE_DIR") : KGEN_SOURCE_DIR) +
    "/tests/generator/fixtures";

// A folder in memory, where there is one: writing the input is not what takes the time.
struct Scratch {
  fs::path folder;
  Scratch() {
    std::error_code none;
    const fs::path base = fs::exists("/dev/shm", none) ? "/dev/shm" : fs::temp_directory_path();
    std::string pattern = (base / "kgen_fuzz_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    folder = pattern;
  }
  ~Scratch() {
    std::error_code none;
    fs::remove_all(folder, none);
  }
  std::string file(const std::string& name) const { return (folder / name).string(); }
  void clear() const {
    for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
  }
};

void put(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void require(bool promise, const char* what) {
  if (promise) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

void try_spec(std::string_view text) {
  const auto specs = parse_spec_text(text, kFixtures + "/fuzz.yaml");
  if (!specs) return;
  const Arch arch = *find_arch("sm_80");
  for (std::size_t i = 0; i < specs->size() && i < 4; ++i) {
    const OpSpec& spec = (*specs)[i];
    const auto space = enumerate(spec, arch, 2);
    if (!space) continue;
    for (const Candidate& candidate : space->candidates) {
      if (const auto source = emit(spec, arch, candidate)) (void)bind(source->plan, spec.problem.dims);
    }
  }
}

void try_op(std::string_view text) { (void)load_op_text(text, kFixtures + "/fuzz.yaml", kFixtures); }

void try_expr(std::string_view text) {
  const auto expr = Expr::parse(text);
  if (!expr) return;
  const auto again = Expr::parse(expr->text());
  require(again.has_value(), "an expression's text parses");
  for (const std::int64_t value : {std::int64_t{0}, std::int64_t{7}, std::int64_t{-3}, INT64_MAX, INT64_MIN}) {
    Env env, half;
    for (const std::string& name : expr->names()) {
      env[name] = value;
      if (half.size() * 2 < env.size()) half[name] = value;
    }
    const auto direct = expr->eval(env);
    const auto special = expr->specialised(half).eval(env);
    require(!direct || (special && *special == *direct), "what is bound for good gives the same value");
  }
}

void try_recording(std::string_view text) {
  static const Scratch scratch;
  const std::string file = scratch.file("recording.json"), db = scratch.file("imported.db");
  put(file, text);
  auto recordings = read_recordings(file, true);
  if (recordings) {
    for (const Recording& recording : *recordings) (void)elsewhere(recorded_space(recording));
    (void)winners_yaml(learn_winners(*recordings));
    (void)from_t4(to_t4(*recordings), "again.json");
    cmd_db({}, {"import", db, file, "--json"});
    if (fs::exists(db)) {
      const auto imported = Db::open(db, DbMode::kReadOnly).and_then([](auto&& made) { return made.check(); });
      require(imported && imported->empty(), "what was imported is clean");
    }
  }
  scratch.clear();
}

// A small database that is in order.
void make_db(const std::string& path, bool second) {
  Db db = Db::open(path, DbMode::kReadWrite).value();
  const OpRecord op = testing::host_op(false);
  const std::string plan = plan_to_json(testing::host_plan(false, {}));
  const DeviceInfo info = open_device("host").value()->info();
  const std::string arch(info.arch->name);
  const auto host = db.intern_device({.arch = arch, .name = info.name, .driver = info.driver, .uuid = ""}).value();
  const auto gpu = db.intern_device(testing::sample_device()).value();
  const auto publish = [&](std::int64_t device, const std::string& key, const std::string& kind,
                           const std::string& object_arch, Goal goal, bool is_default, std::optional<SizeRange> range) {
    const auto problem =
        db.intern_problem(op, {.dims_key = key, .dims_json = "{}", .label = "x", .flops = 64, .bytes = 96}).value();
    TrialRecord trial = testing::sample_trial(problem, device);
    trial.is_default = is_default;
    trial.timing = goal.timing;
    trial.recorded_at_ms = 1'700'000'000'000;
    const auto id = db.record(trial).value();
    (void)db.record(testing::sample_trial(problem, device, TrialStatus::kHung));
    ObjectRecord object = testing::sample_object("code of " + key + kind + std::string(600, 'x'));
    object.arch = object_arch;
    object.kind = kind;
    WinnerRecord winner = testing::sample_winner(problem, device, id, object);
    winner.goal = goal;
    winner.is_default = is_default;
    winner.range = range;
    winner.plan_json = plan;
    if (!db.publish(winner, object)) std::abort();
  };
  publish(host, "cols=16 rows=8", "host", arch, {}, false, {});
  publish(host, "cols=64 rows=64", "host", arch, {.timing = "graph"}, true, {});
  publish(host, "cols=16 rows=512", "host", arch, {}, false,
          SizeRange{.dim = "rows", .first = 256, .last = 1024, .loss = 0.02});
  publish(gpu, "cols=16 rows=8", "cubin", "sm_90", {.objective = "energy", .deterministic = true}, false, {});
  if (second) publish(gpu, "cols=32 rows=32", "ptx", "sm_90", {}, false, {});
  if (!db.sign(PrivateKey{})) std::abort();
}

// An input that is no SQLite file is a list of changes to one, a line each: "TABLE COLUMN ROW VALUE"; VALUE is SQL's
// own text, or a number where it is one. What lies under a hash gets the hash that it should have: the files of
// somebody who means it.
void change_db(const std::string& path, std::string_view script) {
  sqlite3* db = nullptr;
  if (sqlite3_open(path.c_str(), &db) != SQLITE_OK) std::abort();
  sqlite3_exec(db, "PRAGMA ignore_check_constraints=ON; PRAGMA synchronous=OFF; BEGIN", nullptr, nullptr, nullptr);
  int lines = 0;
  for (const std::string& line : split(script, '\n')) {
    const std::size_t a = line.find(' '), b = line.find(' ', a + 1), c = line.find(' ', b + 1);
    if (a == std::string::npos || b == std::string::npos || c == std::string::npos || ++lines > 20) continue;
    const std::string table = line.substr(0, a), column = line.substr(a + 1, b - a - 1), value = line.substr(c + 1);
    char* sql = sqlite3_mprintf("UPDATE \"%w\" SET \"%w\"=?1 WHERE rowid=?2", table.c_str(), column.c_str());
    sqlite3_stmt* update = nullptr;
    if (sqlite3_prepare_v2(db, sql, -1, &update, nullptr) == SQLITE_OK) {
      sqlite3_bind_text(update, 1, value.data(), static_cast<int>(value.size()),
                        SQLITE_STATIC);  // STRICT makes it a number
      sqlite3_bind_int64(update, 2, std::strtoll(line.c_str() + b, nullptr, 10));
      sqlite3_step(update);
    }
    sqlite3_finalize(update);
    sqlite3_free(sql);
    if (table == "plan" && column == "json") {
      if (sqlite3_prepare_v2(db, "UPDATE plan SET hash=?1 WHERE rowid=?2", -1, &update, nullptr) == SQLITE_OK) {
        const std::string hash = hash_text(value);
        sqlite3_bind_text(update, 1, hash.data(), static_cast<int>(hash.size()), SQLITE_STATIC);
        sqlite3_bind_int64(update, 2, std::strtoll(line.c_str() + b, nullptr, 10));
        sqlite3_step(update);
      }
      sqlite3_finalize(update);
    }
  }
  sqlite3_exec(db, "COMMIT", nullptr, nullptr, nullptr);
  sqlite3_close(db);
}

void try_runtime(const std::string& path, Outcome& outcome) {
  kgen_db* db = nullptr;
  if (kgen_open(path.c_str(), "host", &db) != KGEN_OK) {
    require(*kgen_last_error() != '\0', "a failure has a text");
    return;
  }
  outcome.opened = true;
  const char* text = kgen_describe(db, nullptr);
  std::vector<std::string> names = {"row_scale", "gemm"};
  if (text != nullptr) {
    const auto about = nlohmann::json::parse(text);
    for (const auto& name : about.at("operators")) names.push_back(name.get<std::string>());
  }
  names.resize(std::min<std::size_t>(names.size(), 6));
  for (const std::string& name : names) {
    (void)kgen_describe(db, name.c_str());
    for (const char* dims : {"rows,cols", "m,n,k"}) {
      kgen_op* op = nullptr;
      if (kgen_open_op(db, name.c_str(), "dtype=fp32", dims, &op) != KGEN_OK) continue;
      for (const std::int64_t rows : {8, 9, 500, 0}) {
        const std::int64_t values[] = {rows, 16, 16};
        kgen_match match{};
        if (kgen_find(op, values, &match) != KGEN_OK) {
          ++outcome.refused;
          continue;
        }
        require(match.kernel != nullptr && match.reason != nullptr, "a match has a kernel and a reason");
        require(printable(match.reason) == match.reason, "a reason is one line that may be shown");
        ++(kgen_preload(match.kernel) == KGEN_OK ? outcome.found : outcome.refused);
      }
      kgen_close_op(op);
    }
  }
  kgen_close(db);
}

// What is given out as a code object is what its hash says; nothing in the file is changed by reading it.
void try_readers(const std::string& path, Outcome& outcome) {
  auto db = Db::open(path, DbMode::kImmutable);
  if (!db) return;
  std::vector<std::string> hashes;
  if (const auto rows = db->winners())
    for (const WinnerRow& row : *rows) hashes.push_back(row.winner.object_hash);
  if (const auto index = db->winner_index())
    for (const auto& entry : index->entries)
      if (const auto row = db->winner(entry.id)) hashes.push_back(row->winner.object_hash);
  for (const std::string& hash : hashes)
    if (const auto object = db->object(hash)) {
      require(hash_bytes(object->bytes) == hash, "a code object matches its hash");
      ++outcome.objects;
    }
}

void try_printing(const std::string& path, Outcome& outcome) {
  cmd_db({}, {"info", path, "--json"});
  cmd_show({}, {path, "--top", "3"});
  outcome.show = cmd_show({}, {path, "--json"});
  cmd_lookup({}, {path, "row_scale", "rows=8", "cols=16", "dtype=fp32", "--arch", "host"});
  cmd_db({}, {"export", path, "--format", "csv"});
  cmd_db({}, {"export", path});
}

void try_merge(const std::string& path, const std::string& scratch, Outcome& outcome) {
  const std::string merged = scratch + "/merged.db";
  outcome.merge = cmd_db({}, {"merge", path, "-o", merged, "--json"});
  if (outcome.merge != 0) return;
  const auto faults = Db::open(merged, DbMode::kReadOnly).and_then([](auto&& made) { return made.check(); });
  require(faults && faults->empty(), "what was merged is clean");
  require(cmd_db({}, {"merge", path, "-o", merged}) == 0, "what was merged once can be merged again");
}

void try_care(const std::string& path, const std::string& scratch, Outcome& outcome) {
  const std::string copy = scratch + "/copy.db";
  std::error_code none;
  if (!fs::copy_file(path, copy, fs::copy_options::overwrite_existing, none)) return;
  const auto migrated = Db::migrate(copy);
  outcome.migrate = migrated ? 0 : exit_code(migrated.error().kind);
  outcome.check = cmd_db({}, {"check", copy});
  cmd_db({}, {"prune", copy, "--failures", "--stale", "--keep-top", "1"});
}

void try_db(std::string_view data) {
  static const Scratch scratch, seeds;
  static const std::string seed = [] {
    make_db(seeds.file("seed.db"), false);
    return read_file(seeds.file("seed.db")).value();
  }();
  const std::string path = scratch.file("tuned.db");
  if (data.starts_with("SQLite")) {
    put(path, data);
  } else {
    put(path, seed);
    change_db(path, data);
  }
  // Some of the tools each time: an input is tried three times as often.
  Outcome outcome;
  try_runtime(path, outcome);
  try_readers(path, outcome);
  switch (std::hash<std::string_view>()(data) % 3) {
    case 0:
      try_printing(path, outcome);
      break;
    case 1:
      try_merge(path, scratch.folder.string(), outcome);
      break;
    default:
      try_care(path, scratch.folder.string(), outcome);
  }
  scratch.clear();
}

void try_trace(std::string_view text) {
  static const Scratch scratch, seeds;
  static const std::string db = [] {
    make_db(seeds.file("seed.db"), true);
    return seeds.file("seed.db");
  }();
  const std::string file = scratch.file("misses.jsonl"), spec = scratch.file("misses.yaml");
  put(file, text);
  if (cmd_doctor({}, {file, "--json"}) == 0 && fs::exists(spec)) {
    // The spec that it writes is one: what it names may not exist, but it is never damaged YAML.
    const auto specs = parse_spec_text(read_file(spec).value(), spec);
    require(specs || specs.error().message.find("YAML") == std::string::npos, "doctor writes YAML");
  }
  cmd_doctor({}, {db, "--trace", file});
  scratch.clear();
}

}  // namespace

Outcome try_database(const std::string& path, const std::string& scratch) {
  Outcome outcome;
  try_runtime(path, outcome);
  try_readers(path, outcome);
  try_printing(path, outcome);
  try_merge(path, scratch, outcome);
  try_care(path, scratch, outcome);
  return outcome;
}

void try_input(std::string_view target, std::string_view data) {
  if (target == "spec") return try_spec(data);
  if (target == "op") return try_op(data);
  if (target == "expr") return try_expr(data);
  if (target == "db") return try_db(data);
  if (target == "recording") return try_recording(data);
  if (target == "trace") return try_trace(data);
  std::abort();
}

}  // namespace kgen
