// The miss hook that tunes: a queue, a thread, and the tuner behind them.
#include "kgen/kgen_jit.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/text.h"
#include "db/db.h"
#include "generator/spec.h"
#include "tuner/compile.h"
#include "tuner/process.h"
#include "tuner/session.h"

namespace {

using namespace kgen;  // NOLINT(google-build-using-namespace): the ABI's own names live outside the namespace

constexpr int kCandidates = 16;

thread_local std::string last_error;

struct Wanted {
  std::string op, attributes, dims;
  auto operator<=>(const Wanted&) const = default;
};

// Folders for this user alone, and an empty file that is, too: what Db makes beside it has the file's permissions.
Result<void> make_private(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty() && !std::filesystem::exists(folder)) {
    std::filesystem::create_directories(folder.parent_path(), error);
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
      return fail(ErrorKind::kIo, fmt::format("{}: cannot be made: {}", folder.string(), std::strerror(errno)));
  }
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return fail(ErrorKind::kIo, fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
  ::close(file);
  return {};
}

Result<std::string> default_database() {
  const char* data = std::getenv("XDG_DATA_HOME");
  if (data != nullptr && *data == '/') return std::string(data) + "/kgen/jit.db";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/')
    return fail(ErrorKind::kBadInput, "neither XDG_DATA_HOME nor HOME names a folder; give options.database");
  return std::string(home) + "/.local/share/kgen/jit.db";
}

Result<std::string> kgen_program() {
  Dl_info about{};
  if (::dladdr(reinterpret_cast<const void*>(&kgen_jit_last_error), &about) != 0 && about.dli_fname != nullptr) {
    std::error_code error;
    const auto library = std::filesystem::canonical(about.dli_fname, error);
    const auto beside = library.parent_path().parent_path() / "bin" / "kgen";
    if (!error && ::access(beside.c_str(), X_OK) == 0) return beside.string();
  }
  if (std::string found = find_program("kgen"); !found.empty()) return found;
  return fail(ErrorKind::kBadInput, "the kgen program is neither beside libkgen_jit nor in PATH; give options.kgen");
}

std::vector<std::pair<std::string, std::string>> pairs_of(const std::string& words) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& word : split(words, ' ')) {
    const std::size_t equals = word.find('=');
    if (equals != std::string::npos && equals + 1 < word.size())
      pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

}  // namespace

struct kgen_jit {
  kgen_db* db = nullptr;
  std::string path, program, device;
  int candidates = kCandidates, jobs = 1;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Wanted> queue;
  std::set<Wanted> seen;  // queued at any time
  bool working = false;
  int tuned = 0, failed = 0;
  std::string failure;
  std::string failure_told;  // what kgen_jit_failure() gave
  std::atomic<bool> stop = false;
  std::thread thread;

  void run() {
    CompilerOptions options;
    options.self = program;
    const std::unique_ptr<Compiler> compiler = make_compiler(options);
    for (;;) {
      Wanted wanted;
      {
        std::unique_lock lock(mutex);
        working = false;
        changed.notify_all();
        changed.wait(lock, [&] { return stop || !queue.empty(); });
        if (stop) return;
        wanted = std::move(queue.front());
        queue.pop_front();
        working = true;
      }
      Result<void> done;
      try {
        done = tune_one(wanted, *compiler);
      } catch (const std::exception& error) {
        done = fail(ErrorKind::kInternal, error.what());
      }
      if (done && kgen_reload(db, nullptr) != KGEN_OK) done = fail(ErrorKind::kInternal, kgen_last_error());
      const std::lock_guard lock(mutex);
      if (done) {
        ++tuned;
      } else if (!stop) {
        ++failed;
        failure = fmt::format("{} {} {}: {}", wanted.op, wanted.attributes, wanted.dims, done.error().message);
      }
    }
  }

  Result<void> tune_one(const Wanted& wanted, Compiler& compiler) {
    KGEN_TRY(auto op, load_op(wanted.op));
    auto words = pairs_of(wanted.attributes);
    KGEN_TRY(op, specialise(op, words));
    for (auto& pair : pairs_of(wanted.dims)) words.push_back(std::move(pair));
    KGEN_TRY(Problem problem, make_problem(*op, words));
    TuneRequest request;
    request.specs.push_back({.op = std::move(op), .problem = std::move(problem), .tune = {}, .where = {}});
    request.device = device;
    request.budget.candidates = candidates;
    request.jobs = jobs;
    // Closed after each: then the file is whole for every reader.
    KGEN_TRY(Db file, Db::open(path, DbMode::kReadWrite));
    KGEN_TRY(const TuneOutcome outcome, tune(request, file, compiler, program, [](const TuneProgress&) {}, stop));
    if (outcome.rows.empty() || outcome.rows.front().config.empty())
      return fail(ErrorKind::kCheckFailed, outcome.rows.empty() ? "it was stopped" : outcome.rows.front().note);
    return {};
  }

  static void on_miss(void* user, const char* op, const char* attributes, const char* dims, kgen_match_kind) {
    auto* self = static_cast<kgen_jit*>(user);
    const std::lock_guard lock(self->mutex);
    Wanted wanted{op, attributes, dims};
    if (!self->seen.insert(wanted).second) return;
    self->queue.push_back(std::move(wanted));
    self->changed.notify_all();
  }
};

namespace {

Result<std::unique_ptr<kgen_jit>> start(kgen_db* db, const kgen_jit_options* options) {
  auto jit = std::make_unique<kgen_jit>();
  jit->db = db;
  const kgen_jit_options given = options == nullptr ? kgen_jit_options{} : *options;
  if (given.candidates < 0 || given.jobs < 0) return fail(ErrorKind::kBadInput, "candidates and jobs are not negative");
  if (given.candidates > 0) jit->candidates = given.candidates;
  jit->jobs = given.jobs > 0 ? given.jobs : std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
  if (given.database != nullptr) {
    jit->path = given.database;
  } else {
    KGEN_TRY(jit->path, default_database());
  }
  if (given.kgen != nullptr) {
    jit->program = given.kgen;
    if (::access(given.kgen, X_OK) != 0)
      return fail(ErrorKind::kBadInput, fmt::format("{}: is no program: {}", given.kgen, std::strerror(errno)));
  } else {
    KGEN_TRY(jit->program, kgen_program());
  }
  const char* about = kgen_describe(db, nullptr);
  if (about == nullptr) return fail(ErrorKind::kBadInput, kgen_last_error());
  jit->device = nlohmann::json::parse(about).at("device").at("id").get<std::string>();
  KGEN_CHECK_OK(make_private(jit->path));
  KGEN_CHECK_OK(Db::open(jit->path, DbMode::kReadWrite).map([](const Db&) {}));
  if (kgen_add(db, jit->path.c_str()) != KGEN_OK) return fail(ErrorKind::kIo, kgen_last_error());
  return jit;
}

}  // namespace

extern "C" {

const char* kgen_jit_last_error(void) { return last_error.c_str(); }

kgen_status kgen_jit_start(kgen_db* db, const kgen_jit_options* options, kgen_jit** out) {
  last_error.clear();
  try {
    if (out == nullptr) {
      last_error = "a null argument to kgen_jit_start";
      return KGEN_BAD_ARGUMENT;
    }
    *out = nullptr;
    if (options != nullptr && options->size != sizeof(kgen_jit_options)) {
      last_error = fmt::format("options.size is {}; set it to sizeof(kgen_jit_options)", options->size);
      return KGEN_BAD_ARGUMENT;
    }
    auto jit = start(db, options);
    if (!jit) {
      last_error = jit.error().message;
      return jit.error().kind == ErrorKind::kIo ? KGEN_BAD_DATABASE : KGEN_BAD_ARGUMENT;
    }
    kgen_jit* started = jit->get();
    started->thread = std::thread([started] { started->run(); });
    if (const auto status = kgen_set_miss_hook(db, &kgen_jit::on_miss, started); status != KGEN_OK) {
      last_error = kgen_last_error();
      kgen_jit_stop(jit->release());
      return status;
    }
    *out = jit->release();
    return KGEN_OK;
  } catch (const std::exception& error) {
    last_error = error.what();
    return KGEN_INTERNAL;
  }
}

int kgen_jit_wait(kgen_jit* jit, double seconds) {
  if (jit == nullptr) return 1;
  std::unique_lock lock(jit->mutex);
  return jit->changed.wait_for(lock, std::chrono::duration<double>(seconds),
                               [&] { return jit->queue.empty() && !jit->working; })
             ? 1
             : 0;
}

void kgen_jit_counts(kgen_jit* jit, int* tuned, int* failed) {
  if (jit == nullptr) return;
  const std::lock_guard lock(jit->mutex);
  if (tuned != nullptr) *tuned = jit->tuned;
  if (failed != nullptr) *failed = jit->failed;
}

const char* kgen_jit_failure(kgen_jit* jit) {
  if (jit == nullptr) return "";
  const std::lock_guard lock(jit->mutex);
  jit->failure_told = jit->failure;
  return jit->failure_told.c_str();
}

void kgen_jit_stop(kgen_jit* jit) {
  if (jit == nullptr) return;
  kgen_set_miss_hook(jit->db, nullptr, nullptr);  // waits for those that are being called
  {
    const std::lock_guard lock(jit->mutex);
    jit->stop = true;
    jit->changed.notify_all();
  }
  if (jit->thread.joinable()) jit->thread.join();
  delete jit;
}

}  // extern "C"
