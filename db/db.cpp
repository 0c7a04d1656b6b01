#include "db/db.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/hash.h"
#include "base/plan.h"
#include "base/text.h"
#include "db/sql.h"

namespace kgen {
namespace {

static_assert(std::endian::native == std::endian::little, "samples are stored as little-endian float32");

constexpr int kApplicationId = 0x6b67656e;  // "kgen"
constexpr int kBusyMilliseconds = 60'000;
// A file may claim any size. No code object is as large as this, nor shrinks as much: a small file cannot ask for hours
// of decompression.
constexpr std::int64_t kMaxObjectBytes = 64 << 20;
constexpr std::int64_t kMaxObjectRatio = 256, kFreeObjectBytes = 1 << 20;
bool credible(std::int64_t size, std::size_t frame_bytes) {
  return size >= 0 && size <= kMaxObjectBytes &&
         size <= kFreeObjectBytes + kMaxObjectRatio * static_cast<std::int64_t>(frame_bytes);
}

constexpr std::pair<TrialStatus, std::string_view> kStatusNames[] = {
    {TrialStatus::kCompileFailed, "compile_failed"},
    {TrialStatus::kCompileTimeout, "compile_timeout"},
    {TrialStatus::kCompiled, "compiled"},
    {TrialStatus::kPruned, "pruned"},
    {TrialStatus::kWrong, "wrong"},
    {TrialStatus::kLaunchFailed, "launch_failed"},
    {TrialStatus::kHung, "hung"},
    {TrialStatus::kCrashed, "crashed"},
    {TrialStatus::kStoppedEarly, "stopped_early"},
    {TrialStatus::kTimed, "timed"},
};

struct Connection {
  sqlite3* db = nullptr;
  std::string path;

  explicit Connection(std::string file) : path(std::move(file)) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { close(); }
  void close() {
    if (db != nullptr) sqlite3_close_v2(db);
    db = nullptr;
  }

  // `what` may quote the file.
  tl::unexpected<Error> bad(std::string_view what) const {
    return fail(ErrorKind::kBadInput, fmt::format("{}: {}", path, printable(what.substr(0, 1000))));
  }

  // SQLite's last error as one line that says what to do.
  tl::unexpected<Error> error(int rc) const {
    const char* text = db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
      case SQLITE_NOTADB:
        return bad("is not a kgen database");
      case SQLITE_CORRUPT:
        return bad(fmt::format("is damaged ({}); restore a copy, or tune into a new file", text));
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
        return fail(ErrorKind::kIo, fmt::format("{}: is locked by another process; try again when it is done", path));
      case SQLITE_FULL:
        return fail(ErrorKind::kIo, fmt::format("{}: no space left on the disk; nothing of this step was kept", path));
      case SQLITE_READONLY:
        return fail(ErrorKind::kIo,
                    fmt::format("{}: cannot be written; check the permissions of the file and its folder", path));
      case SQLITE_CANTOPEN: {
        const int why = db != nullptr ? sqlite3_system_errno(db) : 0;
        return fail(ErrorKind::kIo,
                    fmt::format("{}: cannot be opened: {}", path, why != 0 ? std::strerror(why) : text));
      }
      case SQLITE_IOERR:
      case SQLITE_PERM:
      case SQLITE_AUTH:
        return fail(ErrorKind::kIo, fmt::format("{}: {}", path, text));
      case SQLITE_TOOBIG:
        return bad(fmt::format("holds a value that is too large ({})", text));
      default:
        return fail(ErrorKind::kInternal, fmt::format("{}: {}", path, text));
    }
  }

  Result<void> run(const std::string& sql) const {
    const int rc = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr);
    if (rc != SQLITE_OK) return error(rc);
    return {};
  }
};

// One prepared statement. Parameters are bound in order; columns are read in order with next<T>() or by number.
class Statement {
 public:
  template <class... Args>
  static Result<Statement> make(const Connection& connection, std::string_view sql, const Args&... args) {
    Statement statement(connection);
    const int rc =
        sqlite3_prepare_v2(connection.db, sql.data(), static_cast<int>(sql.size()), &statement.stmt_, nullptr);
    if (rc != SQLITE_OK) return connection.error(rc);
    int index = 0;
    (statement.bind(++index, args), ...);
    return statement;
  }
  Statement(Statement&& other) noexcept
      : connection_(other.connection_), stmt_(std::exchange(other.stmt_, nullptr)), column_(other.column_) {}
  ~Statement() { sqlite3_finalize(stmt_); }

  // True when there is a row.
  Result<bool> step() {
    column_ = 0;
    const int rc = sqlite3_step(stmt_);
    if (rc == SQLITE_ROW) return true;
    if (rc == SQLITE_DONE) return false;
    return connection_->error(rc);
  }
  // Runs it once more with other values; text and bytes that were bound must live until end().
  template <class... Args>
  void again(const Args&... args) {
    end();
    int index = 0;
    (bind(++index, args), ...);
  }
  // Lets go of the file.
  void end() { sqlite3_reset(stmt_); }

  // For statements without rows.
  Result<void> finish() {
    KGEN_TRY([[maybe_unused]] const bool row, step());
    return {};
  }

  std::string text() {
    const int column = column_++;
    const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(stmt_, column));
    return data == nullptr ? std::string()
                           : std::string(data, static_cast<std::size_t>(sqlite3_column_bytes(stmt_, column)));
  }
  std::int64_t integer() { return sqlite3_column_int64(stmt_, column_++); }
  // Columns of 32 bits: a damaged file may hold any 64.
  int small() { return sqlite3_column_int(stmt_, column_++); }
  double real() { return sqlite3_column_double(stmt_, column_++); }
  std::optional<double> optional_real() {
    if (is_null()) return std::nullopt;
    return real();
  }
  std::optional<int> optional_small() {
    if (is_null()) return std::nullopt;
    return small();
  }
  std::span<const std::byte> blob() {
    const int column = column_++;
    const auto* data = static_cast<const std::byte*>(sqlite3_column_blob(stmt_, column));
    const int size = sqlite3_column_bytes(stmt_, column);
    return data == nullptr ? std::span<const std::byte>() : std::span(data, static_cast<std::size_t>(size));
  }

 private:
  explicit Statement(const Connection& connection) : connection_(&connection) {}
  // Skips the column when it is null.
  bool is_null() {
    if (sqlite3_column_type(stmt_, column_) != SQLITE_NULL) return false;
    ++column_;
    return true;
  }
  void bind(int i, std::int64_t value) { sqlite3_bind_int64(stmt_, i, value); }
  void bind(int i, int value) { sqlite3_bind_int(stmt_, i, value); }
  void bind(int i, bool value) { sqlite3_bind_int(stmt_, i, value ? 1 : 0); }
  void bind(int i, double value) { sqlite3_bind_double(stmt_, i, value); }
  void bind(int i, std::string_view text) {
    sqlite3_bind_text64(stmt_, i, text.data() == nullptr ? "" : text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
  }
  void bind(int i, const std::string& text) { bind(i, std::string_view(text)); }
  void bind(int i, std::span<const std::byte> bytes) {
    sqlite3_bind_blob64(stmt_, i, bytes.empty() ? "" : static_cast<const void*>(bytes.data()), bytes.size(),
                        SQLITE_STATIC);
  }
  template <class T>
  void bind(int i, const std::optional<T>& value) {
    if (value) {
      bind(i, *value);
    } else {
      sqlite3_bind_null(stmt_, i);
    }
  }

  const Connection* connection_;
  sqlite3_stmt* stmt_ = nullptr;
  int column_ = 0;
};

// Runs a statement that gives no rows.
template <class... Args>
Result<void> execute(const Connection& connection, std::string_view sql, const Args&... args) {
  KGEN_TRY(auto statement, Statement::make(connection, sql, args...));
  return statement.finish();
}

// First column of the first row; nullopt when there is none.
template <class... Args>
Result<std::optional<std::int64_t>> query_integer(const Connection& connection, std::string_view sql,
                                                  const Args&... args) {
  KGEN_TRY(auto statement, Statement::make(connection, sql, args...));
  KGEN_TRY(const bool row, statement.step());
  if (!row) return std::nullopt;
  return statement.integer();
}

// Takes the write lock at once, so that a transaction never fails half-way because another writer came first.
class Transaction {
 public:
  static Result<Transaction> begin(const Connection& connection) {
    KGEN_CHECK_OK(connection.run("BEGIN IMMEDIATE"));
    return Transaction(connection);
  }
  Transaction(Transaction&& other) noexcept : connection_(std::exchange(other.connection_, nullptr)) {}
  ~Transaction() {
    if (connection_ != nullptr) sqlite3_exec(connection_->db, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Result<void> commit() {
    KGEN_CHECK_OK(connection_->run("COMMIT"));
    connection_ = nullptr;
    return {};
  }

 private:
  explicit Transaction(const Connection& connection) : connection_(&connection) {}
  const Connection* connection_;
};

// ALTER TABLE leaves other white space than CREATE TABLE; SQL text is compared without it.
std::string squeeze(std::string sql) {
  std::erase_if(sql, [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; });
  return sql;
}

using SchemaTexts = std::map<std::string, std::string>;  // "table trial" → squeezed SQL

// Calls `row(name, sql)` for each entry of the schema; stops at the first error.
template <class Row>
Result<void> for_each_entry(const Connection& connection, const Row& row) {
  KGEN_TRY(auto rows, Statement::make(connection, "SELECT type, name, coalesce(sql, '') FROM sqlite_schema"));
  for (;;) {
    KGEN_TRY(const bool more, rows.step());
    if (!more) return {};
    const std::string type = rows.text();
    const std::string name = rows.text();
    KGEN_CHECK_OK(row(type + " " + name, squeeze(rows.text())));
  }
}

// What a file of that version holds.
Result<SchemaTexts> make_schema(int version) {
  Connection memory(":memory:");
  if (const int rc = sqlite3_open(":memory:", &memory.db); rc != SQLITE_OK) return memory.error(rc);
  if (version == sql::kVersion) {
    KGEN_CHECK_OK(memory.run(sql::kSchema));
  } else {
    for (int v = 0; v < version; ++v) KGEN_CHECK_OK(memory.run(sql::kMigrations[v]));
  }
  SchemaTexts texts;
  KGEN_CHECK_OK(for_each_entry(memory, [&](const std::string& name, std::string text) -> Result<void> {
    texts[name] = std::move(text);
    return {};
  }));
  return texts;
}

// A file from elsewhere is data: it may hold our tables and nothing that runs (views, triggers, expression indices).
Result<void> require_schema(const Connection& connection, int version) {
  static const Result<SchemaTexts> present = make_schema(sql::kVersion);
  const Result<SchemaTexts> older = version == sql::kVersion ? SchemaTexts() : make_schema(version);
  const Result<SchemaTexts>& want = version == sql::kVersion ? present : older;
  if (!want) return tl::unexpected(want.error());
  std::set<std::string> have;
  KGEN_CHECK_OK(for_each_entry(connection, [&](const std::string& name, const std::string& text) -> Result<void> {
    const auto it = want->find(name);
    if (it == want->end()) return connection.bad(fmt::format("holds {}, which kgen did not make; refused", name));
    if (it->second != text) return connection.bad(fmt::format("{} is not as kgen made it; refused", name));
    have.insert(name);
    return {};
  }));
  for (const auto& [name, text] : *want) {
    if (!have.contains(name))
      return connection.bad(fmt::format("{} is missing; restore a copy, or tune into a new file", name));
  }
  return {};
}

// 0 for an empty file that may become ours; else the version of a kgen database.
Result<int> read_version(const Connection& connection) {
  KGEN_TRY(const auto application, query_integer(connection, "PRAGMA application_id"));
  KGEN_TRY(const auto version, query_integer(connection, "PRAGMA user_version"));
  if (application == kApplicationId && version >= 1) {
    if (*version > sql::kVersion) {
      return connection.bad(fmt::format("was written by a newer kgen (schema {}, this one knows {}); update kgen",
                                        *version, sql::kVersion));
    }
    return static_cast<int>(*version);
  }
  KGEN_TRY(const auto tables, query_integer(connection, "SELECT count(*) FROM sqlite_schema"));
  if (application != 0 || version != 0 || tables != 0) {
    return connection.bad("is an SQLite file of another program, not a kgen database");
  }
  return 0;
}

std::int64_t file_size(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  return in ? static_cast<std::int64_t>(in.tellg()) : -1;
}

std::uint32_t big_endian(const unsigned char* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
}

// Looks at the first bytes without SQLite, which would already replay journals of a file that is not ours.
Result<void> probe_file(const Connection& connection) {
  std::ifstream in(connection.path, std::ios::binary | std::ios::ate);
  if (!in) return {};  // SQLite says why
  const std::streamoff size = in.tellg();
  if (size <= 0) return {};
  unsigned char header[100] = {};
  in.seekg(0);
  in.read(reinterpret_cast<char*>(header), sizeof(header));
  if (in.gcount() < static_cast<std::streamsize>(sizeof(header)) || std::memcmp(header, "SQLite format 3", 16) != 0) {
    return connection.bad("is not a kgen database");
  }
  const std::uint32_t application = big_endian(header + 68);
  const std::uint32_t page = (std::uint32_t{header[16]} << 8 | header[17]) == 1 ? 65536 : header[16] << 8 | header[17];
  // A tuner that was killed before its first checkpoint leaves one page without our mark; the rest is in the -wal.
  if (application != kApplicationId && (application != 0 || size > page)) {
    return connection.bad("is an SQLite file of another program, not a kgen database");
  }
  // SQLite itself misses a cut inside the last page.
  if (page < 512 || (size % page != 0 && file_size(connection.path + "-wal") <= 0)) {
    return connection.bad("is cut off or damaged; restore a copy, or tune into a new file");
  }
  return {};
}

std::string file_uri(const std::string& path, std::string_view query) {
  std::string uri = "file:";
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      uri += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    } else {
      uri += c;
    }
  }
  return uri.append("?").append(query);
}

// Opens the file and makes the connection safe to use on a file from anywhere. Nothing is read yet.
Result<void> connect(Connection& connection, const std::string& name, int flags) {
  connection.close();
  // Every call of a Db holds its mutex; SQLite's own, one lock for each column that is read, took a quarter of the
  // runtime's opening.
  const int rc = sqlite3_open_v2(name.c_str(), &connection.db, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  if (rc != SQLITE_OK) return connection.error(rc);
  sqlite3_extended_result_codes(connection.db, 1);
  sqlite3_busy_timeout(connection.db, kBusyMilliseconds);
  sqlite3_db_config(connection.db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection.db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(connection.db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(connection.db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  // What our own statements need, and no more for what a file's schema may hold.
  static constexpr std::pair<int, int> kLimits[] = {
      {SQLITE_LIMIT_LENGTH, static_cast<int>(kMaxObjectBytes + (kMaxObjectBytes >> 3))},
      {SQLITE_LIMIT_SQL_LENGTH, 100'000},
      {SQLITE_LIMIT_COLUMN, 100},
      {SQLITE_LIMIT_EXPR_DEPTH, 60},
      {SQLITE_LIMIT_COMPOUND_SELECT, 3},
      {SQLITE_LIMIT_VDBE_OP, 25'000},
      {SQLITE_LIMIT_FUNCTION_ARG, 10},
      {SQLITE_LIMIT_ATTACHED, 1},
      {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50},
      {SQLITE_LIMIT_VARIABLE_NUMBER, 50},
      {SQLITE_LIMIT_TRIGGER_DEPTH, 0},
  };
  for (const auto& [limit, value] : kLimits) sqlite3_limit(connection.db, limit, value);
  // NORMAL: a killed process loses nothing that was committed, a power cut at most the last transactions, never the
  // file.
  return connection.run(
      "PRAGMA foreign_keys=ON; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA synchronous=NORMAL;");
}

Result<void> open_for_reading(Connection& connection, DbMode mode) {
  const std::string& path = connection.path;
  if (file_size(path) < 0) {
    return fail(ErrorKind::kIo,
                fmt::format("{}: cannot be opened: {}", path, std::strerror(errno != 0 ? errno : ENOENT)));
  }
  const bool unmerged = file_size(path + "-wal") > 0;
  const bool live = unmerged || file_size(path + "-shm") >= 0;
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const bool writable = ::access(path.c_str(), W_OK) == 0 && ::access(folder.c_str(), W_OK) == 0;

  const std::string immutable = file_uri(path, "mode=ro&immutable=1");
  constexpr int kReadFlags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
  if (live || (mode == DbMode::kReadOnly && writable)) {
    const auto attempt = [&]() -> Result<void> {
      // Where possible with write permission (and query_only), for only then SQLite removes its -wal and -shm at the
      // end.
      KGEN_CHECK_OK(writable ? connect(connection, path, SQLITE_OPEN_READWRITE)
                             : connect(connection, file_uri(path, "mode=ro"), kReadFlags));
      KGEN_CHECK_OK(connection.run("PRAGMA query_only=ON"));
      return execute(connection, "SELECT 1 FROM sqlite_schema");
    };
    auto done = attempt();
    if (done || done.error().kind != ErrorKind::kIo) return done;
    if (unmerged) {
      return fail(ErrorKind::kIo,
                  fmt::format("{0}: the newest rows are in {0}-wal, which cannot be merged in this folder; "
                              "copy both files to a writable folder",
                              path));
    }
  }
  return connect(connection, immutable, kReadFlags);
}

// Two processes may open a new file at once; switching to WAL does not wait by itself.
Result<void> enter_wal(const Connection& connection) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kBusyMilliseconds);
  for (;;) {
    const int rc = sqlite3_exec(connection.db, "PRAGMA journal_mode=WAL", nullptr, nullptr, nullptr);
    if (rc == SQLITE_OK) return {};
    if ((rc & 0xff) != SQLITE_BUSY || std::chrono::steady_clock::now() > deadline) return connection.error(rc);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// Makes an empty file ours, or an older one present, in one transaction.
Result<void> migrate(const Connection& connection) {
  KGEN_TRY(auto transaction, Transaction::begin(connection));
  KGEN_TRY(const int version, read_version(connection));  // again: another process may have been faster
  if (version == 0) KGEN_CHECK_OK(connection.run(sql::kSchema));
  if (version != 0) KGEN_CHECK_OK(require_schema(connection, version));  // renaming tables reads all of a schema
  for (int v = version == 0 ? sql::kVersion : version; v < sql::kVersion; ++v) {
    KGEN_CHECK_OK(connection.run(sql::kMigrations[v]));
  }
  KGEN_CHECK_OK(
      connection.run(fmt::format("PRAGMA application_id={}; PRAGMA user_version={}", kApplicationId, sql::kVersion)));
  KGEN_CHECK_OK(require_schema(connection, sql::kVersion));
  return transaction.commit();
}

Result<void> open_for_writing(Connection& connection) {
  KGEN_CHECK_OK(connect(connection, connection.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  KGEN_TRY(const int version, read_version(connection));
  if (sqlite3_db_readonly(connection.db, "main") != 0) return connection.error(SQLITE_READONLY);
  KGEN_CHECK_OK(enter_wal(connection));
  if (version != sql::kVersion) return migrate(connection);
  return require_schema(connection, sql::kVersion);
}

constexpr std::string_view kTrialColumns =
    "t.id, t.problem, t.device, t.config, t.status, t.reason, t.source_hash, t.op_hash, c.version, c.options, "
    "c.kgen_version, t.timing, t.time_us, t.mad_us, t.compile_seconds, t.verify_seconds, t.max_error_ratio, "
    "t.relative_l2, "
    "t.registers, t.spills, t.lds_bytes, t.occupancy_waves, t.clock_mhz, t.is_default, t.recorded_at, "
    "t.temperature_c, t.throttle, t.energy_uj, t.energy_mad_uj, t.deterministic";

Result<TrialRecord> read_trial(const Connection& connection, Statement& s) {
  TrialRecord t;
  t.id = s.integer();
  t.problem = s.integer();
  t.device = s.integer();
  t.config = s.text();
  const auto status = find_status(s.text());
  if (!status) return connection.bad(fmt::format("trial {}: {}", t.id, status.error().message));
  t.status = *status;
  t.reason = s.text();
  t.source_hash = s.text();
  t.op_hash = s.text();
  t.compiler = s.text();
  t.options = s.text();
  t.kgen_version = s.text();
  t.timing = s.text();
  t.time_us = s.optional_real();
  t.mad_us = s.optional_real();
  t.compile_seconds = s.optional_real();
  t.verify_seconds = s.optional_real();
  t.max_error_ratio = s.optional_real();
  t.relative_l2 = s.optional_real();
  t.registers = s.optional_small();
  t.spills = s.optional_small();
  t.lds_bytes = s.optional_small();
  t.occupancy_waves = s.optional_small();
  t.clock_mhz = s.optional_small();
  t.is_default = s.small() != 0;
  t.recorded_at_ms = s.integer();
  t.temperature_c = s.optional_small();
  t.throttle = s.text();
  t.energy_uj = s.optional_real();
  t.energy_mad_uj = s.optional_real();
  if (const auto same = s.optional_small()) t.deterministic = *same != 0;
  return t;
}

std::vector<SampleState> to_states(std::span<const std::byte> blob) {
  std::vector<SampleState> states;
  const auto at = [&](std::size_t i) { return static_cast<int>(blob[i]); };
  for (std::size_t i = 0; i + 4 <= blob.size(); i += 4)
    states.push_back({.clock_mhz = at(i) + 256 * at(i + 1), .temperature_c = at(i + 2), .throttled = at(i + 3) != 0});
  return states;
}
std::vector<std::byte> from_states(std::span<const SampleState> states) {
  std::vector<std::byte> blob;
  for (const SampleState& state : states) {
    const int clock = std::clamp(state.clock_mhz, 0, 0xffff);
    for (const int byte : {clock % 256, clock / 256, std::clamp(state.temperature_c, 0, 255), state.throttled ? 1 : 0})
      blob.push_back(static_cast<std::byte>(byte));
  }
  return blob;
}

std::vector<float> to_samples(std::span<const std::byte> blob) {
  std::vector<float> samples(blob.size() / sizeof(float));
  if (!samples.empty()) std::memcpy(samples.data(), blob.data(), samples.size() * sizeof(float));
  return samples;
}

constexpr std::string_view kDeviceColumns =
    "d.arch, d.name, d.driver, d.uuid, d.compute_units, d.memory_bytes, d.l2_bytes, d.clock_khz";

DeviceRecord read_device(Statement& s) {
  DeviceRecord d;
  d.arch = s.text();
  d.name = s.text();
  d.driver = s.text();
  d.uuid = s.text();
  d.compute_units = s.small();
  d.memory_bytes = s.integer();
  d.l2_bytes = s.integer();
  d.clock_khz = s.small();
  return d;
}

constexpr std::string_view kOpColumns = "o.signature, o.op, o.dims, o.dim_defaults, o.attributes";

OpRecord read_op(Statement& s) {
  OpRecord o;
  o.signature = s.text();
  o.op = s.text();
  o.dims = s.text();
  o.dim_defaults = s.text();
  o.attributes = s.text();
  return o;
}

// Of the columns dim, first, last, loss.
std::optional<SizeRange> read_range(Statement& s) {
  SizeRange range;
  range.dim = s.text();
  range.first = s.integer();
  range.last = s.integer();
  range.loss = s.real();
  if (range.dim.empty()) return std::nullopt;
  return range;
}

Goal read_goal(Statement& s) {
  Goal goal;
  goal.timing = s.text();
  goal.objective = s.text();
  goal.deterministic = s.small() != 0;
  return goal;
}

// Winner rows, each with its op, problem, device, trial, plan and the time of the default candidate beside it.
std::string winner_query(std::string_view where) {
  return fmt::format(
      "SELECT w.id, w.is_default, w.timing, w.objective, w.deterministic, w.dim, w.first, w.last, w.loss, pl.hash, "
      "pl.json, "
      "ob.hash, p.dims_key, "
      "p.dims_json, p.label, p.flops, p.bytes, "
      "(SELECT b.time_us FROM trial b WHERE b.problem = w.problem AND b.device = w.device AND b.is_default = 1 "
      "AND b.status IN ('timed', 'stopped_early') AND b.timing = w.timing ORDER BY b.id DESC LIMIT 1), "
      "(SELECT b.energy_uj FROM trial b WHERE b.problem = w.problem AND b.device = w.device AND b.is_default = 1 "
      "AND b.energy_uj IS NOT NULL AND b.timing = w.timing ORDER BY b.id DESC LIMIT 1), {}, {}, {} "
      "FROM winner w JOIN problem p ON p.id = w.problem JOIN op o ON o.id = p.op JOIN device d ON d.id = w.device "
      "JOIN trial t ON t.id = w.trial JOIN compiler c ON c.id = t.compiler "
      "JOIN plan pl ON pl.id = w.plan JOIN object ob ON ob.id = w.object {}",
      kOpColumns, kDeviceColumns, kTrialColumns, where);
}

// What a signature covers, by digest: the answer of winner_index() as a whole, rows and objects each by itself, so that
// nothing more need be read to check it than is used.
struct Manifest {
  std::map<std::string, std::string> digests;  // of "index", "winner ID", "object HASH"

  std::string text() const {
    std::string text = "kgen signature 1\n";
    for (const auto& [name, digest] : digests) text += name + " " + digest + "\n";
    return text;
  }
};

// The text of a manifest that was found to be signed, so kgen wrote it; every line at hand by its first two words. (A
// map of 10,000 strings takes as long to make as all else that opening does.)
class SignedManifest {
 public:
  explicit SignedManifest(std::string text) : text_(std::make_unique<const std::string>(std::move(text))) {
    std::string_view rest = *text_;
    rest.remove_prefix(std::min(rest.find('\n') + 1, rest.size()));  // what it is
    while (!rest.empty()) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      const std::size_t space = line.rfind(' ');
      if (space != std::string_view::npos) lines_.emplace_back(line.substr(0, space), line.substr(space + 1));
    }
    if (!std::ranges::is_sorted(lines_)) std::ranges::sort(lines_);  // kgen wrote them in order
  }
  bool has(const std::string& name, const std::string& digest) const {
    return std::ranges::binary_search(lines_, std::pair<std::string_view, std::string_view>(name, digest));
  }
  std::vector<std::string> objects() const {
    constexpr std::string_view kObject = "object ";
    std::vector<std::string> hashes;
    for (const auto& [name, digest] : lines_)
      if (name.starts_with(kObject)) hashes.emplace_back(name.substr(kObject.size()));
    return hashes;
  }

 private:
  std::unique_ptr<const std::string> text_;
  std::vector<std::pair<std::string_view, std::string_view>> lines_;  // sorted
};

void add(Digest& digest, const OpRecord& op) {
  digest.add(op.signature).add(op.op).add(op.dims).add(op.dim_defaults).add(op.attributes);
}
void add(Digest& digest, const DeviceRecord& d) {
  digest.add(d.arch).add(d.name).add(d.driver).add(d.uuid).add(d.compute_units);
  digest.add(d.memory_bytes).add(d.l2_bytes).add(d.clock_khz);
}
void add(Digest& digest, const Goal& goal) { digest.add(goal.timing).add(goal.objective).add(goal.deterministic); }
void add(Digest& digest, const std::optional<SizeRange>& range) {
  digest.add(range.has_value());
  if (range) digest.add(range->dim).add(range->first).add(range->last).add(range->loss);
}

std::string digest_of(const WinnerIndex& index) {
  Digest digest;
  digest.add(static_cast<std::int64_t>(index.ops.size()));
  for (const OpRecord& op : index.ops) add(digest, op);
  digest.add(static_cast<std::int64_t>(index.devices.size()));
  for (const DeviceRecord& device : index.devices) add(digest, device);
  digest.add(static_cast<std::int64_t>(index.ptx_archs.size()));
  for (const std::string& arch : index.ptx_archs) digest.add(arch);
  for (const WinnerIndex::Entry& entry : index.entries) {
    digest.add(entry.id).add(static_cast<std::int64_t>(entry.op)).add(static_cast<std::int64_t>(entry.device));
    digest.add(entry.dims_key).add(entry.is_default);
    add(digest, entry.goal);
    add(digest, entry.range);
  }
  return digest.hex();
}

// The default candidate's times are no part of it: they are for tables, and follow later trials.
std::string digest_of(const WinnerRow& row) {
  Digest digest;
  add(digest, row.op);
  digest.add(row.problem.dims_key).add(row.problem.dims_json).add(row.problem.label);
  digest.add(row.problem.flops).add(row.problem.bytes);
  add(digest, row.device);
  const TrialRecord& t = row.trial;
  digest.add(t.config).add(status_name(t.status)).add(t.reason).add(t.source_hash).add(t.op_hash);
  digest.add(t.compiler).add(t.options).add(t.kgen_version).add(t.timing).add(t.time_us).add(t.mad_us);
  digest.add(t.compile_seconds).add(t.verify_seconds).add(t.max_error_ratio).add(t.relative_l2);
  digest.add(t.registers).add(t.spills).add(t.lds_bytes).add(t.occupancy_waves).add(t.clock_mhz);
  digest.add(t.is_default).add(t.recorded_at_ms).add(t.temperature_c).add(t.throttle);
  digest.add(t.energy_uj).add(t.energy_mad_uj).add(t.deterministic);
  add(digest, row.winner.goal);
  add(digest, row.winner.range);
  digest.add(row.winner.is_default).add(row.winner.plan_json).add(row.winner.object_hash);
  return digest.hex();
}

std::string digest_of(const ObjectRecord& object) {
  return Digest().add(object.arch).add(object.kind).add(std::span<const std::byte>(object.bytes)).hex();
}

// Of a winner_query(). `id`, where it is not null, gets the winner's.
Result<WinnerRow> read_winner(const Connection& connection, Statement& s, const std::optional<SignedManifest>& manifest,
                              std::int64_t* winner = nullptr) {
  WinnerRow row;
  const std::int64_t id = s.integer();
  if (winner != nullptr) *winner = id;
  row.winner.is_default = s.small() != 0;
  row.winner.goal = read_goal(s);
  row.winner.range = read_range(s);
  const std::string plan_hash = s.text();
  row.winner.plan_json = s.text();
  if (hash_text(row.winner.plan_json) != plan_hash) {
    return connection.bad(fmt::format("launch plan {} does not match its hash; refused", plan_hash));
  }
  row.winner.object_hash = s.text();
  row.problem.dims_key = s.text();
  row.problem.dims_json = s.text();
  row.problem.label = s.text();
  row.problem.flops = s.real();
  row.problem.bytes = s.real();
  row.default_time_us = s.optional_real();
  row.default_energy_uj = s.optional_real();
  row.op = read_op(s);
  row.device = read_device(s);
  KGEN_TRY(row.trial, read_trial(connection, s));
  row.winner.problem = row.trial.problem;
  row.winner.device = row.trial.device;
  row.winner.trial = row.trial.id;
  if (manifest && !manifest->has(fmt::format("winner {}", id), digest_of(row)))
    return connection.bad(fmt::format("winner {} is not as it was signed; refused", id));
  return row;
}

std::int64_t now_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

Result<std::int64_t> insert_trial(const Connection& connection, const TrialRecord& t) {
  KGEN_CHECK_OK(execute(connection,
                        "INSERT INTO compiler (version, options, kgen_version) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                        t.compiler, t.options, t.kgen_version));
  KGEN_TRY(const auto compiler,
           query_integer(connection, "SELECT id FROM compiler WHERE version=? AND options=? AND kgen_version=?",
                         t.compiler, t.options, t.kgen_version));
  KGEN_CHECK_OK(execute(
      connection,
      "INSERT INTO trial (problem, device, compiler, config, status, reason, source_hash, op_hash, timing, time_us, "
      "mad_us, "
      "compile_seconds, verify_seconds, max_error_ratio, relative_l2, registers, spills, lds_bytes, occupancy_waves, "
      "clock_mhz, is_default, recorded_at, temperature_c, throttle, energy_uj, energy_mad_uj, deterministic) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      t.problem, t.device, *compiler, t.config, status_name(t.status), t.reason, t.source_hash, t.op_hash, t.timing,
      t.time_us, t.mad_us, t.compile_seconds, t.verify_seconds, t.max_error_ratio, t.relative_l2, t.registers, t.spills,
      t.lds_bytes, t.occupancy_waves, t.clock_mhz, t.is_default, t.recorded_at_ms != 0 ? t.recorded_at_ms : now_ms(),
      t.temperature_c, t.throttle, t.energy_uj, t.energy_mad_uj, t.deterministic));
  const std::int64_t id = sqlite3_last_insert_rowid(connection.db);
  if (!t.samples_us.empty()) {
    std::vector<std::byte> states;
    if (t.states.size() == t.samples_us.size()) states = from_states(t.states);
    KGEN_CHECK_OK(execute(connection, "INSERT INTO sample (trial, us, states) VALUES (?, ?, ?)", id,
                          std::as_bytes(std::span(t.samples_us)), std::span<const std::byte>(states)));
  }
  return id;
}

// The plans and objects that some winners refer to.
struct References {
  std::set<std::int64_t> plans, objects;
};

template <class... Args>
Result<References> winner_references(const Connection& connection, const std::string& where, const Args&... args) {
  KGEN_TRY(auto rows, Statement::make(connection, "SELECT plan, object FROM winner WHERE " + where, args...));
  References found;
  for (;;) {
    KGEN_TRY(const bool row, rows.step());
    if (!row) return found;
    found.plans.insert(rows.integer());
    found.objects.insert(rows.integer());
  }
}

// Removes those of them that no winner refers to any more.
Result<void> drop_unused(const Connection& connection, const References& references) {
  for (const std::int64_t id : references.plans) {
    KGEN_CHECK_OK(execute(
        connection, "DELETE FROM plan WHERE id=?1 AND NOT EXISTS (SELECT 1 FROM winner WHERE winner.plan=?1)", id));
  }
  for (const std::int64_t id : references.objects) {
    KGEN_CHECK_OK(execute(
        connection, "DELETE FROM object WHERE id=?1 AND NOT EXISTS (SELECT 1 FROM winner WHERE winner.object=?1)", id));
  }
  return {};
}

// A code object as it is stored.
struct Packed {
  const ObjectRecord* object = nullptr;
  std::vector<std::byte> frame;
};
Result<Packed> pack(const ObjectRecord& object) {
  if (object.hash != hash_bytes(object.bytes)) {
    return fail(ErrorKind::kInternal, fmt::format("publish: object {} does not match its bytes", object.hash));
  }
  Packed packed{.object = &object, .frame = std::vector<std::byte>(ZSTD_compressBound(object.bytes.size()))};
  const std::size_t size =
      ZSTD_compress(packed.frame.data(), packed.frame.size(), object.bytes.data(), object.bytes.size(), 6);
  if (ZSTD_isError(size)) return fail(ErrorKind::kInternal, fmt::format("zstd: {}", ZSTD_getErrorName(size)));
  packed.frame.resize(size);
  if (!credible(static_cast<std::int64_t>(object.bytes.size()), size))
    return fail(ErrorKind::kInternal,
                fmt::format("publish: object {} has {} bytes, or shrinks to {}: readers refuse that", object.hash,
                            object.bytes.size(), size));
  return packed;
}

Result<void> insert_object(const Connection& connection, const Packed& packed) {
  const ObjectRecord& object = *packed.object;
  return execute(connection,
                 "INSERT INTO object (hash, arch, kind, size, zstd) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                 object.hash, object.arch, object.kind, static_cast<std::int64_t>(object.bytes.size()),
                 std::span<const std::byte>(packed.frame));
}

// Inserts or replaces; its object is there already.
Result<void> insert_winner(const Connection& connection, const WinnerRecord& w) {
  KGEN_TRY(
      const auto verified,
      query_integer(connection,
                    "SELECT 1 FROM trial WHERE id=?1 AND problem=?2 AND device=?3 AND (deterministic IS 1 OR NOT ?5) "
                    "AND ((status IN ('timed', 'stopped_early') AND timing=?4) OR (status = 'compiled' AND ?6))",
                    w.trial, w.problem, w.device, w.goal.timing, w.goal.deterministic,
                    w.is_default && !w.range && w.goal == Goal{}));
  if (!verified) {
    return fail(ErrorKind::kInternal,
                fmt::format("publish: trial {} is not a verified trial of problem {} on device {} for {}", w.trial,
                            w.problem, w.device, w.goal.text()));
  }
  KGEN_TRY(const auto object, query_integer(connection, "SELECT id FROM object WHERE hash=?", w.object_hash));
  if (!object) return fail(ErrorKind::kInternal, fmt::format("publish: object {} is missing", w.object_hash));
  const std::string plan_hash = hash_text(w.plan_json);
  KGEN_CHECK_OK(execute(connection, "INSERT INTO plan (hash, json) VALUES (?, ?) ON CONFLICT DO NOTHING", plan_hash,
                        w.plan_json));
  const SizeRange range = w.range.value_or(SizeRange{});
  return execute(connection,
                 "INSERT INTO winner (problem, device, timing, objective, deterministic, is_default, trial, plan, "
                 "object, dim, first, last, loss) "
                 "VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT id FROM plan WHERE hash=?), ?, ?, ?, ?, ?) "
                 "ON CONFLICT (problem, device, timing, objective, deterministic, is_default, dim, first) DO UPDATE "
                 "SET trial=excluded.trial, plan=excluded.plan, object=excluded.object, last=excluded.last, "
                 "loss=excluded.loss",
                 w.problem, w.device, w.goal.timing, w.goal.objective, w.goal.deterministic, w.is_default, w.trial,
                 plan_hash, *object, range.dim, range.first, range.last, range.loss);
}

// "k=8 m=4 n=2" without m: "k=8 n=2".
std::string other_dims(const std::string& key, const std::string& dim) {
  std::vector<std::string> words = split(key, ' ');
  std::erase_if(words, [&](const std::string& word) { return word.starts_with(dim + "="); });
  return join(words, " ");
}

// Removes the winners that cover the same dim of the same operator with the same other dims for the same goal.
Result<void> remove_cover(const Connection& connection, const WinnerRecord& w, References& references) {
  KGEN_TRY(auto rows,
           Statement::make(connection,
                           "SELECT w.id, w.plan, w.object, p.dims_key, own.dims_key FROM winner w "
                           "JOIN problem p ON p.id = w.problem JOIN problem own ON own.id = ? AND own.op = p.op "
                           "WHERE w.device=? AND w.timing=? AND w.objective=? AND w.deterministic=? AND w.dim=?",
                           w.problem, w.device, w.goal.timing, w.goal.objective, w.goal.deterministic, w.range->dim));
  std::vector<std::int64_t> ids;
  for (;;) {
    KGEN_TRY(const bool row, rows.step());
    if (!row) break;
    const std::int64_t id = rows.integer(), plan = rows.integer(), object = rows.integer();
    const std::string key = rows.text(), own = rows.text();
    if (other_dims(key, w.range->dim) != other_dims(own, w.range->dim)) continue;
    ids.push_back(id);
    references.plans.insert(plan);
    references.objects.insert(object);
  }
  for (const std::int64_t id : ids) KGEN_CHECK_OK(execute(connection, "DELETE FROM winner WHERE id=?", id));
  return {};
}

Result<std::vector<std::byte>> decompress(const Connection& connection, const std::string& hash, std::int64_t size,
                                          std::span<const std::byte> frame) {
  if (!credible(size, frame.size()))
    return connection.bad(
        fmt::format("object {} claims {} bytes of {} compressed ones; refused", hash, size, frame.size()));
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  const std::size_t got = ZSTD_decompress(bytes.data(), bytes.size(), frame.data(), frame.size());
  if (ZSTD_isError(got) || got != bytes.size() || hash_bytes(bytes) != hash) {
    return connection.bad(fmt::format("object {} does not match its hash; refused", hash));
  }
  return bytes;
}

}  // namespace

std::string_view status_name(TrialStatus status) {
  for (const auto& [value, name] : kStatusNames) {
    if (value == status) return name;
  }
  return "unknown";
}

std::string Goal::text() const {
  return fmt::format("{} {}{}", timing, objective, deterministic ? ", deterministic" : "");
}

Result<TrialStatus> find_status(std::string_view name) {
  for (const auto& [value, text] : kStatusNames) {
    if (text == name) return value;
  }
  return fail(ErrorKind::kBadInput, fmt::format("unknown trial status '{}'", name));
}

struct Db::Impl {
  explicit Impl(const std::string& path) : connection(path) {}
  Connection connection;
  std::mutex mutex;
  std::optional<Statement> winner_rows;    // of winner(): preparing it takes longer than the row
  std::optional<SignedManifest> manifest;  // of a signature that is required
};

Db::Db(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Db::Db(Db&&) noexcept = default;
Db& Db::operator=(Db&&) noexcept = default;
// SQLite merges and removes the -wal when the file's last connection closes: a finished tune leaves one file.
Db::~Db() = default;

Result<Db> Db::open(const std::string& path, DbMode mode) {
  auto impl = std::make_unique<Impl>(path);
  Connection& connection = impl->connection;
  KGEN_CHECK_OK(probe_file(connection));
  if (mode == DbMode::kReadWrite) {
    KGEN_CHECK_OK(open_for_writing(connection));
  } else {
    KGEN_CHECK_OK(open_for_reading(connection, mode));
    KGEN_TRY(const int version, read_version(connection));
    if (version == 0) return connection.bad("is empty; `kgen tune` fills it");
    if (version < sql::kVersion) {
      return connection.bad(
          fmt::format("was written by an older kgen (schema {}, this one reads {}); "
                      "`kgen db check {}` brings it up to date",
                      version, sql::kVersion, path));
    }
    KGEN_CHECK_OK(require_schema(connection, sql::kVersion));
  }
  return Db(std::move(impl));
}

Result<std::optional<int>> Db::migrate(const std::string& path) {
  int version = 0;
  {
    Connection connection(path);
    KGEN_CHECK_OK(probe_file(connection));
    KGEN_CHECK_OK(open_for_reading(connection, DbMode::kReadOnly));
    KGEN_TRY(version, read_version(connection));
  }
  if (version == 0 || version == sql::kVersion) return std::nullopt;
  KGEN_CHECK_OK(open(path, DbMode::kReadWrite).map([](auto&&) {}));
  return version;
}

Result<std::int64_t> Db::intern_device(const DeviceRecord& d) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  KGEN_TRY(auto transaction, Transaction::begin(connection));
  KGEN_CHECK_OK(
      execute(connection,
              "INSERT INTO device (arch, name, driver, uuid, compute_units, memory_bytes, l2_bytes, clock_khz) "
              "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
              d.arch, d.name, d.driver, d.uuid, d.compute_units, d.memory_bytes, d.l2_bytes, d.clock_khz));
  KGEN_TRY(const auto id,
           query_integer(connection, "SELECT id FROM device WHERE arch=? AND name=? AND driver=? AND uuid=?", d.arch,
                         d.name, d.driver, d.uuid));
  KGEN_CHECK_OK(transaction.commit());
  return *id;
}

Result<std::int64_t> Db::intern_problem(const OpRecord& o, const ProblemRecord& p) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  KGEN_TRY(auto transaction, Transaction::begin(connection));
  KGEN_CHECK_OK(execute(connection,
                        "INSERT INTO op (signature, op, dims, dim_defaults, attributes) VALUES (?, ?, ?, ?, ?) "
                        "ON CONFLICT DO NOTHING",
                        o.signature, o.op, o.dims, o.dim_defaults, o.attributes));
  KGEN_TRY(
      const auto op,
      query_integer(connection, "SELECT id FROM op WHERE signature=? AND dims=? AND dim_defaults=? AND attributes=?",
                    o.signature, o.dims, o.dim_defaults, o.attributes));
  KGEN_CHECK_OK(execute(connection,
                        "INSERT INTO problem (op, dims_key, dims_json, label, flops, bytes) VALUES (?, ?, ?, ?, ?, ?) "
                        "ON CONFLICT (op, dims_key) DO NOTHING",
                        *op, p.dims_key, p.dims_json, p.label, p.flops, p.bytes));
  KGEN_TRY(const auto id,
           query_integer(connection, "SELECT id FROM problem WHERE op=? AND dims_key=?", *op, p.dims_key));
  KGEN_CHECK_OK(transaction.commit());
  return *id;
}

Result<std::int64_t> Db::record(const TrialRecord& t) {
  const std::lock_guard lock(impl_->mutex);
  KGEN_TRY(auto transaction, Transaction::begin(impl_->connection));
  KGEN_TRY(const std::int64_t id, insert_trial(impl_->connection, t));
  KGEN_CHECK_OK(transaction.commit());
  return id;
}

Result<void> Db::record_all(const std::vector<TrialRecord>& trials) {
  const std::lock_guard lock(impl_->mutex);
  KGEN_TRY(auto transaction, Transaction::begin(impl_->connection));
  for (const TrialRecord& trial : trials) KGEN_CHECK_OK(insert_trial(impl_->connection, trial).map([](auto) {}));
  return transaction.commit();
}

Result<void> Db::publish(const WinnerRecord& w, const ObjectRecord& object) {
  if (w.range) return publish_cover({w}, {object});
  KGEN_TRY(const Packed packed, pack(object));
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  KGEN_TRY(auto transaction, Transaction::begin(connection));
  KGEN_TRY(const References replaced,
           winner_references(
               connection,
               "problem=? AND device=? AND timing=? AND objective=? AND deterministic=? AND is_default=? AND dim=''",
               w.problem, w.device, w.goal.timing, w.goal.objective, w.goal.deterministic, w.is_default));
  KGEN_CHECK_OK(insert_object(connection, packed));
  KGEN_CHECK_OK(insert_winner(connection, w));
  KGEN_CHECK_OK(drop_unused(connection, replaced));
  return transaction.commit();
}

Result<void> Db::publish_cover(const std::vector<WinnerRecord>& winners, const std::vector<ObjectRecord>& objects) {
  std::vector<Packed> all_packed;
  for (const ObjectRecord& object : objects) {
    KGEN_TRY(Packed packed, pack(object));
    all_packed.push_back(std::move(packed));
  }
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  KGEN_TRY(auto transaction, Transaction::begin(connection));
  References replaced;
  for (const WinnerRecord& w : winners) {
    if (!w.range || w.range->dim.empty()) return fail(ErrorKind::kInternal, "publish_cover: a winner has no range");
    KGEN_CHECK_OK(remove_cover(connection, w, replaced));
  }
  for (const Packed& packed : all_packed) KGEN_CHECK_OK(insert_object(connection, packed));
  for (const WinnerRecord& w : winners) KGEN_CHECK_OK(insert_winner(connection, w));
  KGEN_CHECK_OK(drop_unused(connection, replaced));
  return transaction.commit();
}

Result<Merged> Db::merge(const std::string& path) {
  {
    KGEN_TRY(Db other, open(path, DbMode::kReadOnly));
    KGEN_TRY(const std::vector<std::string> faults, other.check());
    if (!faults.empty())
      return fail(ErrorKind::kBadInput, fmt::format("{}: {}; nothing was taken from it", path, faults.front()));
  }
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  std::error_code unknown;
  if (std::filesystem::equivalent(path, connection.path, unknown))
    return fail(ErrorKind::kBadInput, fmt::format("{}: cannot be merged into itself", path));
  KGEN_CHECK_OK(execute(connection, "ATTACH ? AS other", path));
  // What is sorted stays in memory; a quarter of a gigabyte holds a million trials.
  KGEN_CHECK_OK(connection.run("PRAGMA main.cache_size=-262144; PRAGMA other.cache_size=-65536"));
  const auto take = [&]() -> Result<Merged> {
    Merged merged;
    KGEN_TRY(auto transaction, Transaction::begin(connection));
    KGEN_CHECK_OK(connection.run(sql::kMerge));
    const auto count = [&](std::string_view table) -> Result<std::int64_t> {
      KGEN_TRY(const auto rows, query_integer(connection, fmt::format("SELECT count(*) FROM temp.{}", table)));
      return *rows;
    };
    KGEN_TRY(merged.added, count("fresh"));
    KGEN_TRY(merged.known, count("trial_of"));
    merged.known -= merged.added;
    KGEN_TRY(merged.winners, count("taken"));
    for (const char* table : {"device_of", "compiler_of", "op_of", "problem_of", "known", "trial_of", "twins",
                              "first_of", "fresh", "candidate", "side", "taken", "replaced"})
      KGEN_CHECK_OK(connection.run(fmt::format("DROP TABLE temp.{}", table)));
    KGEN_CHECK_OK(transaction.commit());
    return merged;
  };
  auto merged = take();
  KGEN_CHECK_OK(connection.run("DETACH other; PRAGMA main.cache_size=-2000"));
  return merged;
}

Result<void> Db::forget(std::int64_t problem, std::int64_t device) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  KGEN_TRY(auto transaction, Transaction::begin(connection));
  KGEN_TRY(const References removed, winner_references(connection, "problem=? AND device=?", problem, device));
  KGEN_CHECK_OK(execute(connection, "DELETE FROM winner WHERE problem=? AND device=?", problem, device));
  KGEN_CHECK_OK(execute(connection,
                        "DELETE FROM sample WHERE trial IN (SELECT id FROM trial WHERE problem=? AND device=?)",
                        problem, device));
  KGEN_CHECK_OK(execute(connection, "DELETE FROM trial WHERE problem=? AND device=?", problem, device));
  KGEN_CHECK_OK(drop_unused(connection, removed));
  return transaction.commit();
}

Result<std::vector<TrialRecord>> Db::trials(std::int64_t problem, std::int64_t device, bool with_samples) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  const std::string sql = fmt::format(
      "SELECT {}, {} FROM trial t JOIN compiler c ON c.id = t.compiler {} WHERE t.problem=? AND t.device=? ORDER BY "
      "t.id",
      kTrialColumns, with_samples ? "s.us, s.states" : "NULL, NULL",
      with_samples ? "LEFT JOIN sample s ON s.trial = t.id" : "");
  KGEN_TRY(auto rows, Statement::make(connection, sql, problem, device));
  std::vector<TrialRecord> out;
  for (;;) {
    KGEN_TRY(const bool row, rows.step());
    if (!row) return out;
    KGEN_TRY(auto trial, read_trial(connection, rows));
    trial.samples_us = to_samples(rows.blob());
    trial.states = to_states(rows.blob());
    out.push_back(std::move(trial));
  }
}

Result<std::vector<TrialGroup>> Db::trial_groups() {
  const std::lock_guard lock(impl_->mutex);
  KGEN_TRY(auto rows, Statement::make(impl_->connection,
                                      fmt::format("SELECT g.problem, g.device, p.dims_key, p.dims_json, p.label, "
                                                  "p.flops, p.bytes, {}, {} "
                                                  "FROM (SELECT DISTINCT problem, device FROM trial) g "
                                                  "JOIN problem p ON p.id = g.problem JOIN op o ON o.id = p.op "
                                                  "JOIN device d ON d.id = g.device ORDER BY g.problem, g.device",
                                                  kOpColumns, kDeviceColumns)));
  std::vector<TrialGroup> out;
  for (;;) {
    KGEN_TRY(const bool row, rows.step());
    if (!row) return out;
    TrialGroup& group = out.emplace_back();
    group.problem_id = rows.integer();
    group.device_id = rows.integer();
    group.problem.dims_key = rows.text();
    group.problem.dims_json = rows.text();
    group.problem.label = rows.text();
    group.problem.flops = rows.real();
    group.problem.bytes = rows.real();
    group.op = read_op(rows);
    group.device = read_device(rows);
  }
}

Result<std::vector<WinnerRow>> Db::winners() {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  KGEN_TRY(auto rows, Statement::make(connection, winner_query("ORDER BY w.id")));
  std::vector<WinnerRow> out;
  for (;;) {
    KGEN_TRY(const bool row, rows.step());
    if (!row) return out;
    KGEN_TRY(out.emplace_back(), read_winner(connection, rows, impl_->manifest));
  }
}

Result<WinnerIndex> Db::winner_index() {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  WinnerIndex index;
  std::map<std::int64_t, std::size_t> op_of, device_of;
  KGEN_TRY(auto ops, Statement::make(connection, fmt::format("SELECT o.id, {} FROM op o ORDER BY o.id", kOpColumns)));
  for (;;) {
    KGEN_TRY(const bool row, ops.step());
    if (!row) break;
    op_of[ops.integer()] = index.ops.size();
    index.ops.push_back(read_op(ops));
  }
  KGEN_TRY(auto devices,
           Statement::make(connection, fmt::format("SELECT d.id, {} FROM device d ORDER BY d.id", kDeviceColumns)));
  for (;;) {
    KGEN_TRY(const bool row, devices.step());
    if (!row) break;
    device_of[devices.integer()] = index.devices.size();
    index.devices.push_back(read_device(devices));
  }
  KGEN_TRY(auto archs, Statement::make(connection, "SELECT DISTINCT arch FROM object WHERE kind = 'ptx'"));
  for (;;) {
    KGEN_TRY(const bool row, archs.step());
    if (!row) break;
    index.ptx_archs.push_back(archs.text());
  }
  KGEN_TRY(auto rows, Statement::make(connection,
                                      "SELECT w.id, p.op, w.device, p.dims_key, w.is_default, w.timing, w.objective, "
                                      "w.deterministic, w.dim, w.first, w.last, w.loss FROM winner w JOIN problem p ON "
                                      "p.id = w.problem ORDER BY w.id"));
  for (;;) {
    KGEN_TRY(const bool row, rows.step());
    if (!row) break;
    WinnerIndex::Entry entry;
    entry.id = rows.integer();
    const auto op = op_of.find(rows.integer());
    const auto device = device_of.find(rows.integer());
    if (op == op_of.end() || device == device_of.end()) {
      return connection.bad(fmt::format("winner {} refers to a row that is missing; restore a copy", entry.id));
    }
    entry.op = op->second;
    entry.device = device->second;
    entry.dims_key = rows.text();
    entry.is_default = rows.small() != 0;
    entry.goal = read_goal(rows);
    entry.range = read_range(rows);
    index.entries.push_back(std::move(entry));
  }
  if (impl_->manifest && !impl_->manifest->has("index", digest_of(index)))
    return connection.bad("its winners are not those that were signed; refused");
  return index;
}

Result<WinnerRow> Db::winner(std::int64_t id) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  if (!impl_->winner_rows) {
    KGEN_TRY(auto made, Statement::make(connection, winner_query("WHERE w.id=?"), id));
    impl_->winner_rows.emplace(std::move(made));
  } else {
    impl_->winner_rows->again(id);
  }
  Statement& rows = *impl_->winner_rows;
  auto found = [&]() -> Result<WinnerRow> {
    KGEN_TRY(const bool row, rows.step());
    if (!row) return connection.bad(fmt::format("winner {} is no longer there", id));
    return read_winner(connection, rows, impl_->manifest);
  }();
  rows.end();
  return found;
}

Result<ObjectRecord> Db::object(const std::string& hash) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  KGEN_TRY(auto rows,
           Statement::make(connection, "SELECT hash, arch, kind, size, zstd FROM object WHERE hash=?", hash));
  KGEN_TRY(const bool row, rows.step());
  if (!row) return connection.bad(fmt::format("object {} is missing", hash));
  ObjectRecord object;
  object.hash = rows.text();
  object.arch = rows.text();
  object.kind = rows.text();
  const std::int64_t size = rows.integer();
  KGEN_TRY(object.bytes, decompress(connection, hash, size, rows.blob()));
  if (impl_->manifest && !impl_->manifest->has("object " + hash, digest_of(object)))
    return connection.bad(fmt::format("object {} is not as it was signed; refused", hash));
  return object;
}

Result<DbInfo> Db::info() {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  DbInfo info;
  info.schema_version = sql::kVersion;
  const std::pair<const char*, std::int64_t*> counts[] = {
      {"SELECT count(*) FROM device", &info.devices},
      {"SELECT count(*) FROM op", &info.ops},
      {"SELECT count(*) FROM problem", &info.problems},
      {"SELECT count(*) FROM trial", &info.trials},
      {"SELECT count(*) FROM winner", &info.winners},
      {"SELECT count(*) FROM object", &info.objects},
      {"SELECT coalesce(sum(length(zstd)), 0) FROM object", &info.object_bytes},
  };
  for (const auto& [sql, count] : counts) {
    KGEN_TRY(const auto value, query_integer(connection, sql));
    *count = *value;
  }
  KGEN_TRY(auto statuses,
           Statement::make(connection, "SELECT status, count(*) FROM trial GROUP BY status ORDER BY status"));
  for (;;) {
    KGEN_TRY(const bool row, statuses.step());
    if (!row) break;
    std::string status = statuses.text();
    info.trials_by_status.emplace_back(std::move(status), statuses.integer());
  }
  KGEN_TRY(auto devices,
           Statement::make(connection, fmt::format("SELECT {} FROM device d ORDER BY d.id", kDeviceColumns)));
  for (;;) {
    KGEN_TRY(const bool row, devices.step());
    if (!row) return info;
    info.device_list.push_back(read_device(devices));
  }
}

Result<void> Db::sign(const PrivateKey& key) {
  impl_->manifest.reset();
  Manifest manifest;
  KGEN_TRY(const WinnerIndex index, winner_index());
  manifest.digests["index"] = digest_of(index);
  std::set<std::string> objects;
  {
    const std::lock_guard lock(impl_->mutex);
    KGEN_TRY(auto rows, Statement::make(impl_->connection, winner_query("ORDER BY w.id")));
    for (;;) {
      KGEN_TRY(const bool more, rows.step());
      if (!more) break;
      std::int64_t id = 0;
      KGEN_TRY(const WinnerRow row, read_winner(impl_->connection, rows, std::nullopt, &id));
      manifest.digests[fmt::format("winner {}", id)] = digest_of(row);
      objects.insert(row.winner.object_hash);
    }
  }
  for (const std::string& hash : objects) {
    KGEN_TRY(const ObjectRecord read, object(hash));
    manifest.digests["object " + hash] = digest_of(read);
  }
  const std::string text = manifest.text();
  const Signature signature = kgen::sign(key, text);
  const std::lock_guard lock(impl_->mutex);
  return execute(impl_->connection,
                 "INSERT INTO signature (key, manifest, signature) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                 "SET manifest=excluded.manifest, signature=excluded.signature",
                 key.public_key().text(), text, std::span<const std::byte>(signature));
}

Result<void> Db::require_signature(const PublicKey& key) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  const std::string name = key.text();
  KGEN_TRY(auto rows, Statement::make(connection, "SELECT manifest, signature FROM signature WHERE key=?", name));
  KGEN_TRY(const bool signed_by_it, rows.step());
  if (!signed_by_it) {
    KGEN_TRY(const auto others, query_integer(connection, "SELECT count(*) FROM signature"));
    return connection.bad(fmt::format("is not signed with the required key {}{}", name,
                                      *others > 0 ? ", but with another" : "; `kgen db sign` does it"));
  }
  const std::string text = rows.text();
  if (!is_signed(key, text, rows.blob()))
    return connection.bad(fmt::format("has a signature of {} that is wrong; refused", name));
  impl_->manifest.emplace(text);
  return {};
}

Result<std::vector<SignatureRow>> Db::signatures() {
  std::vector<SignatureRow> all;
  {
    const std::lock_guard lock(impl_->mutex);
    KGEN_TRY(auto rows, Statement::make(impl_->connection, "SELECT key FROM signature ORDER BY key"));
    for (;;) {
      KGEN_TRY(const bool more, rows.step());
      if (!more) break;
      all.push_back({.key = rows.text(), .fault = ""});
    }
  }
  auto before = std::exchange(impl_->manifest, std::nullopt);
  for (SignatureRow& row : all) {
    const auto fits = [&]() -> Result<void> {
      KGEN_TRY(const PublicKey key, PublicKey::parse(row.key));
      KGEN_CHECK_OK(require_signature(key));
      KGEN_CHECK_OK(winner_index().map([](auto&&) {}));
      KGEN_CHECK_OK(winners().map([](auto&&) {}));
      for (const std::string& hash : impl_->manifest->objects()) KGEN_CHECK_OK(object(hash).map([](auto&&) {}));
      return {};
    }();
    const std::string path = impl_->connection.path + ": ";
    if (!fits) row.fault = fits.error().message.substr(fits.error().message.starts_with(path) ? path.size() : 0);
    impl_->manifest.reset();
  }
  impl_->manifest = std::move(before);
  return all;
}

Result<Pruned> Db::prune(const PruneRule& rule, bool dry_run) {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  const auto count = [&](std::string_view what) -> Result<std::int64_t> {
    KGEN_TRY(const auto rows, query_integer(connection, fmt::format("SELECT count(*) FROM {}", what)));
    return *rows;
  };
  Pruned pruned;
  {
    KGEN_TRY(auto transaction, Transaction::begin(connection));
    const std::pair<const char*, std::int64_t*> tables[] = {{"main.winner", &pruned.winners},
                                                            {"main.object", &pruned.objects},
                                                            {"main.problem", &pruned.problems},
                                                            {"main.device", &pruned.devices}};
    for (const auto& [table, rows] : tables) {
      KGEN_TRY(*rows, count(table));
    }
    KGEN_CHECK_OK(
        connection.run("CREATE TEMP TABLE rule (keep_top, failures, stale, winners);"
                       "CREATE TEMP TABLE rule_op (op); CREATE TEMP TABLE rule_arch (arch)"));
    KGEN_CHECK_OK(execute(connection, "INSERT INTO rule VALUES (?, ?, ?, ?)", rule.keep_top, rule.failures, rule.stale,
                          rule.winners));
    std::vector<std::string> ops;
    {
      KGEN_TRY(auto rows, Statement::make(connection, "SELECT DISTINCT op FROM op"));
      for (;;) {
        KGEN_TRY(const bool more, rows.step());
        if (!more) break;
        if (std::string op = rows.text(); glob_match(rule.op_glob, op)) ops.push_back(std::move(op));
      }
    }
    for (const std::string& op : ops) KGEN_CHECK_OK(execute(connection, "INSERT INTO rule_op VALUES (?)", op));
    for (const std::string& arch : rule.archs)
      KGEN_CHECK_OK(execute(connection, "INSERT INTO rule_arch VALUES (?)", arch));
    KGEN_CHECK_OK(connection.run(sql::kPrune));
    KGEN_TRY(pruned.failures, count("doomed WHERE why = 'failure'"));
    KGEN_TRY(pruned.stale, count("doomed WHERE why = 'stale'"));
    KGEN_TRY(pruned.slow, count("doomed WHERE why = 'slow'"));
    KGEN_TRY(pruned.of_archs, count("doomed WHERE why = 'arch'"));
    for (const auto& [table, rows] : tables) {
      KGEN_TRY(const std::int64_t left, count(table));
      *rows -= left;
    }
    if (dry_run) return pruned;  // rolled back
    for (const char* table : {"rule", "rule_op", "rule_arch", "subject", "doomed"})
      KGEN_CHECK_OK(connection.run(fmt::format("DROP TABLE temp.{}", table)));
    KGEN_CHECK_OK(transaction.commit());
  }
  KGEN_CHECK_OK(connection.run("VACUUM"));
  return pruned;
}

Result<std::vector<std::string>> Db::check() {
  const std::lock_guard lock(impl_->mutex);
  const Connection& connection = impl_->connection;
  std::vector<std::string> problems;

  // Each query's rows are problems. One that cannot run (a damaged page) is a problem too, and the next is tried.
  const auto report = [&](std::string_view sql, const auto& line) {
    const auto run = [&]() -> Result<void> {
      KGEN_TRY(auto rows, Statement::make(connection, sql));
      for (;;) {
        KGEN_TRY(const bool row, rows.step());
        if (!row) return {};
        if (std::string problem = line(rows); !problem.empty()) problems.push_back(std::move(problem));
      }
    };
    const auto done = run();
    if (!done && (problems.empty() || problems.back() != done.error().message))
      problems.push_back(done.error().message);
  };
  const auto as_text = [](Statement& row) { return row.text(); };

  // Structure, column types and the CHECK constraints of the schema.
  report("PRAGMA integrity_check", [](Statement& row) {
    std::string text = row.text();
    return text == "ok" ? std::string() : text;
  });
  report("PRAGMA foreign_key_check", [](Statement& row) {
    const std::string table = row.text();
    const std::int64_t id = row.integer();
    return fmt::format("{} {} refers to a row of {} that is missing", table, id, row.text());
  });
  report("SELECT hash, size, zstd FROM object", [&](Statement& row) {
    const std::string hash = row.text();
    const std::int64_t size = row.integer();
    const auto bytes = decompress(connection, hash, size, row.blob());
    return bytes ? std::string() : bytes.error().message;
  });
  report("SELECT hash, json FROM plan", [](Statement& row) {
    const std::string hash = row.text();
    const std::string json = row.text();
    if (hash_text(json) != hash) return fmt::format("launch plan {} does not match its hash", hash);
    const auto plan = plan_from_json(json);
    return plan ? std::string() : fmt::format("launch plan {}: {}", hash, plan.error().message);
  });
  report(
      "SELECT 'object ' || hash || ' belongs to no winner' FROM object o "
      "WHERE NOT EXISTS (SELECT 1 FROM winner WHERE object = o.id)",
      as_text);
  report(
      "SELECT 'launch plan ' || hash || ' belongs to no winner' FROM plan p "
      "WHERE NOT EXISTS (SELECT 1 FROM winner WHERE plan = p.id)",
      as_text);
  report(
      "SELECT 'winner ' || w.id || ': trial ' || t.id || ' was not verified (' || t.status || ')' FROM winner w "
      "JOIN trial t ON t.id = w.trial WHERE t.status NOT IN ('timed', 'stopped_early') "
      "AND NOT (t.status = 'compiled' AND w.is_default = 1 AND w.dim = '' AND w.objective = 'time')",
      as_text);
  report(
      "SELECT 'winner ' || w.id || ': trial ' || t.id || ' is of another problem or device' FROM winner w "
      "JOIN trial t ON t.id = w.trial WHERE t.problem <> w.problem OR t.device <> w.device",
      as_text);
  report(
      "SELECT 'winner ' || w.id || ': trial ' || t.id || ' was timed ' || t.timing || ', not ' || w.timing FROM winner "
      "w "
      "JOIN trial t ON t.id = w.trial WHERE t.timing <> w.timing AND t.status <> 'compiled'",
      as_text);
  report(
      "SELECT 'winner ' || w.id || ': the energy of trial ' || t.id || ' was not measured' FROM winner w "
      "JOIN trial t ON t.id = w.trial WHERE w.objective = 'energy' AND w.is_default = 0 AND t.energy_uj IS NULL",
      as_text);
  report(
      "SELECT 'winner ' || w.id || ': launches of trial ' || t.id || ' were not seen to give the same bits' FROM "
      "winner w "
      "JOIN trial t ON t.id = w.trial WHERE w.deterministic = 1 AND t.deterministic IS NOT 1",
      as_text);
  report(
      "SELECT 'winner ' || w.id || ': object ' || o.hash || ' is for ' || o.arch || ', its device is ' || d.arch FROM "
      "winner w JOIN object o ON o.id = w.object JOIN device d ON d.id = w.device WHERE o.arch <> d.arch",
      as_text);
  report(
      "SELECT 'winner ' || w.id || ' covers the dim ' || w.dim || ', which ' || o.op || ' has not' FROM winner w "
      "JOIN problem p ON p.id = w.problem JOIN op o ON o.id = p.op "
      "WHERE w.dim <> '' AND instr(',' || o.dims || ',', ',' || w.dim || ',') = 0",
      as_text);
  report(
      "SELECT 'device ' || id || ': impossible size or clock' FROM device "
      "WHERE min(compute_units, memory_bytes, l2_bytes, clock_khz) < 0",
      as_text);
  report(
      "SELECT 'op ' || id || ': signature of another operator' FROM op WHERE signature <> op AND "
      "substr(signature, 1, length(op) + 1) <> op || ' '",
      as_text);
  report(
      "SELECT 'problem ' || id || ': impossible work, or dims that are no JSON' FROM problem "
      "WHERE max(flops, bytes) > 1e300 OR NOT json_valid(dims_json)",
      as_text);
  report(
      "SELECT 'trial ' || id || ': impossible registers, spills, LDS, occupancy, temperature or time of day' FROM "
      "trial "
      "WHERE min(coalesce(registers, 0), coalesce(spills, 0), coalesce(lds_bytes, 0), coalesce(occupancy_waves, 0), "
      "recorded_at) < 0 OR abs(temperature_c) > 1000 OR max(coalesce(max_error_ratio, 0), coalesce(relative_l2, 0)) > "
      "1e300 AND status IN ('timed', 'stopped_early')",
      as_text);
  report("SELECT trial, us FROM sample", [](Statement& row) {
    const std::int64_t trial = row.integer();
    for (const float us : to_samples(row.blob())) {
      if (!(us >= 0) || std::isinf(us)) return fmt::format("trial {}: impossible sample {} us", trial, us);
    }
    return std::string();
  });
  return problems;
}

}  // namespace kgen
