#include "runtime/handles.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/arch.h"

namespace kgen {

FileIdentity FileIdentity::of(const std::string& path) {
  FileIdentity identity;
  std::size_t next = 0;
  for (const std::string& file : {path, path + "-wal"}) {
    struct stat about{};
    if (::stat(file.c_str(), &about) == 0 && about.st_size > 0) {
      identity.words[next] = static_cast<std::int64_t>(about.st_ino);
      identity.words[next + 1] = about.st_size;
      identity.words[next + 2] = about.st_mtim.tv_sec;
      identity.words[next + 3] = about.st_mtim.tv_nsec;
    }
    next += 4;
  }
  return identity;
}

Result<std::shared_ptr<Core>> Core::open(const std::string& path, std::optional<PublicKey> key,
                                         std::unique_ptr<Device> device) {
  std::shared_ptr<Core> core(new Core(key, std::move(device)));
  core->state_ = std::make_shared<State>();
  core->paths_ = {path};
  KGEN_TRY(core->state_->files.emplace_back(), core->read(path, FileIdentity::of(path)));
  return core;
}

Result<std::shared_ptr<Reading>> Core::read(const std::string& path, const FileIdentity& identity) const {
  auto reading = std::make_shared<Reading>();
  reading->identity = identity;
  KGEN_TRY(Db db, Db::open(path, DbMode::kImmutable));
  if (key_) KGEN_CHECK_OK(db.require_signature(*key_));
  reading->db = std::make_unique<Db>(std::move(db));
  const DeviceInfo& info = device_->info();
  KGEN_TRY(Dispatcher dispatcher, Dispatcher::load(*reading->db, info.arch_name, info.name));
  reading->dispatcher = std::make_unique<Dispatcher>(std::move(dispatcher));
  return reading;
}

std::pair<std::shared_ptr<State>, std::uint64_t> Core::state() const {
  const std::lock_guard lock(mutex_);
  return {state_, generation_.load(std::memory_order_relaxed)};
}

Result<bool> Core::reload() {
  const std::lock_guard turn(reload_mutex_);
  return refresh(paths_);
}

Result<void> Core::add(const std::string& path) {
  const std::lock_guard turn(reload_mutex_);
  std::vector<std::string> paths = paths_;
  paths.push_back(path);
  return refresh(std::move(paths)).map([](bool) {});
}

Result<bool> Core::refresh(std::vector<std::string> paths) {
  const auto before = state().first;
  auto fresh = std::make_shared<State>();
  for (std::size_t i = 0; i < paths.size(); ++i) {
    // Taken before the file is read: what changes meanwhile makes another one, and the next reload reads again.
    const FileIdentity identity = FileIdentity::of(paths[i]);
    std::shared_ptr<Reading> reading = i < before->files.size() ? before->files[i] : nullptr;
    const bool absent = i > 0 && identity == FileIdentity{};
    if (absent) {
      reading = nullptr;
    } else if (reading == nullptr || identity != reading->identity) {
      KGEN_TRY(reading, read(paths[i], identity));
    }
    fresh->files.push_back(std::move(reading));
  }
  const std::lock_guard lock(mutex_);
  paths_ = std::move(paths);
  if (fresh->files == state_->files) return false;
  state_.swap(fresh);
  generation_.fetch_add(1, std::memory_order_release);
  std::erase_if(codes_, [](const auto& entry) { return entry.second.expired(); });
  return true;
}

std::shared_ptr<Trace> Core::trace() const {
  if (!traced_.load(std::memory_order_acquire)) return nullptr;
  const std::lock_guard lock(mutex_);
  return trace_;
}
void Core::set_trace(std::shared_ptr<Trace> trace) {
  const std::lock_guard lock(mutex_);
  trace_.swap(trace);
  traced_.store(trace_ != nullptr, std::memory_order_release);
}
void Core::miss(const char* op, const char* attributes, const char* dims, kgen_match_kind kind) const {
  const std::shared_lock lock(hook_mutex_);
  if (miss_hook_.call != nullptr) miss_hook_.call(miss_hook_.user, op, attributes, dims, kind);
}
void Core::set_miss_hook(MissHook hook) {
  const std::unique_lock lock(hook_mutex_);
  miss_hook_ = hook;
  hooked_.store(hook.call != nullptr, std::memory_order_release);
}

Result<std::shared_ptr<Code>> Core::code(Reading& file, const WinnerRow& row,
                                         const std::shared_ptr<const StoredPlan>& plan) {
  const std::lock_guard lock(file.mutex);
  if (const auto known = file.by_row.find(&row); known != file.by_row.end()) return known->second;
  KGEN_TRY(auto code, read_code(file, row, plan));
  file.by_row[&row] = code;
  return code;
}

Result<std::shared_ptr<Code>> Core::read_code(Reading& file, const WinnerRow& row,
                                              const std::shared_ptr<const StoredPlan>& plan) {
  const std::string key = row.winner.object_hash + plan->hash;
  auto& known = file.codes[key];
  if (known != nullptr) return known;
  {
    const std::lock_guard registry(mutex_);
    if (const auto it = codes_.find(key); it != codes_.end()) known = it->second.lock();
  }
  if (known != nullptr) return known;
  KGEN_TRY(ObjectRecord object, file.db->object(row.winner.object_hash));
  const auto sources = code_that_runs_on(device_->info().arch_name);
  const auto source = std::ranges::find(sources, object.arch, [](const CodeSource& s) { return s.arch->name; });
  if (source == sources.end() || object.arch != row.device.arch)
    return fail(ErrorKind::kBadInput, fmt::format("object {} is for {}", object.hash, object.arch));
  if (source->only_ptx && object.kind != "ptx")
    return fail(ErrorKind::kBadInput, fmt::format("object {} is machine code for {}", object.hash, object.arch));
  known = std::make_shared<Code>();
  known->plan = plan;
  known->bytes = std::move(object.bytes);
  const std::lock_guard registry(mutex_);
  codes_[key] = known;
  return known;
}

const char* Core::keep(std::string text) {
  const std::lock_guard lock(mutex_);
  return texts_.insert(std::move(text)).first->c_str();
}

}  // namespace kgen
