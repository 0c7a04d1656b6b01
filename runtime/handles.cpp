#include "runtime/handles.h"

#include <fmt/format.h>
#include <sys/stat.h>

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

Result<std::shared_ptr<Core>> Core::open(const std::string& path, const FileIdentity& identity, Db db,
                                         std::unique_ptr<Device> device) {
  std::shared_ptr<Core> core(new Core(path, std::move(device)));
  KGEN_TRY(core->state_, core->read(identity, std::move(db)));
  return core;
}

Result<std::shared_ptr<State>> Core::read(const FileIdentity& identity, Db db) const {
  auto state = std::make_shared<State>();
  state->identity = identity;
  state->db = std::make_unique<Db>(std::move(db));
  const DeviceInfo& info = device_->info();
  KGEN_TRY(Dispatcher dispatcher, Dispatcher::load(*state->db, info.arch->name, info.name));
  state->dispatcher = std::make_unique<Dispatcher>(std::move(dispatcher));
  return state;
}

std::pair<std::shared_ptr<State>, std::uint64_t> Core::state() const {
  const std::lock_guard lock(mutex_);
  return {state_, generation_.load(std::memory_order_relaxed)};
}

Result<bool> Core::reload() {
  const std::lock_guard turn(reload_mutex_);
  // Taken before the file is read: what changes meanwhile makes another one, and the next reload reads again.
  const FileIdentity identity = FileIdentity::of(path_);
  if (identity == state().first->identity) return false;
  KGEN_TRY(Db db, Db::open(path_, DbMode::kImmutable));
  KGEN_TRY(std::shared_ptr<State> fresh, read(identity, std::move(db)));
  const std::lock_guard lock(mutex_);
  state_.swap(fresh);
  generation_.fetch_add(1, std::memory_order_release);
  std::erase_if(codes_, [](const auto& entry) { return entry.second.expired(); });
  return true;
}

Result<std::shared_ptr<Code>> Core::code(State& state, const WinnerRow& row,
                                         const std::shared_ptr<const StoredPlan>& plan) {
  const std::string key = row.winner.object_hash + plan->hash;
  const std::lock_guard lock(state.mutex);
  auto& known = state.codes[key];
  if (known != nullptr) return known;
  {
    const std::lock_guard registry(mutex_);
    if (const auto it = codes_.find(key); it != codes_.end()) known = it->second.lock();
  }
  if (known != nullptr) return known;
  KGEN_TRY(ObjectRecord object, state.db->object(row.winner.object_hash));
  if (object.arch != device_->info().arch->name)
    return fail(ErrorKind::kBadInput, fmt::format("object {} is for {}", object.hash, object.arch));
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
