// What stands behind the handles of the C ABI: c_api.cpp keeps its promises with these.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "db/db.h"
#include "device/device.h"
#include "device/launch.h"
#include "kgen/kgen.h"
#include "runtime/dispatcher.h"
#include "runtime/kernel_table.h"
#include "runtime/trace.h"

namespace kgen {

// First word of every handle: a pointer to something else is told apart from a handle.
inline constexpr std::uint32_t kDbMagic = 0x6b67'6462;
inline constexpr std::uint32_t kOpMagic = 0x6b67'6f70;
inline constexpr std::uint32_t kKernelMagic = 0x6b67'6b6e;

// A code object with the plan that launches it: whole bytes until it is loaded, then the kernels.
struct Code {
  std::shared_ptr<const StoredPlan> plan;
  std::mutex mutex;
  std::vector<std::byte> bytes;
  std::atomic<bool> ready = false;
  LoadedPlan loaded;
};

// Tells a file from the one that was read: another inode, size or time, its -wal included.
struct FileIdentity {
  std::array<std::int64_t, 8> words{};
  bool operator==(const FileIdentity&) const = default;
  static FileIdentity of(const std::string& path);
};

// One reading of a file.
struct Reading {
  FileIdentity identity;
  std::unique_ptr<Db> db;
  std::unique_ptr<Dispatcher> dispatcher;  // of `db`
  std::mutex mutex;
  std::unordered_map<std::string, std::shared_ptr<Code>> codes;  // by the hashes of object and plan
  std::unordered_map<const WinnerRow*, std::shared_ptr<Code>> by_row;
};

// What lookups see: the opened file, then those that were added; null for one that is not there yet. Replaced as a
// whole by a reload, and gone with the last one who looks something up in it.
struct State {
  std::vector<std::shared_ptr<Reading>> files;
  // The first file's answer, else another's, else the first file's refusal.
  template <class Ask>
  auto first(const Ask& ask) const {
    auto answer = ask(*files.front()->dispatcher);
    for (std::size_t i = 1; i < files.size() && !answer; ++i) {
      if (files[i] == nullptr) continue;
      if (auto other = ask(*files[i]->dispatcher)) answer = std::move(other);
    }
    return answer;
  }
};

// A program's own function for what no tuned kernel serves.
struct MissHook {
  kgen_miss_hook call = nullptr;
  void* user = nullptr;
};

// What a kgen_db and its kgen_ops share. Safe from any thread.
class Core {
 public:
  // Reads the file, which every file of this Core must be signed by `key` for, where there is one. The error is a fault
  // of the file.
  static Result<std::shared_ptr<Core>> open(const std::string& path, std::optional<PublicKey> key,
                                            std::unique_ptr<Device>);

  Device& device() const { return *device_; }
  // Counts readings of the file; what was made from an older one is still right, but no longer the newest.
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  // The newest reading and its number.
  std::pair<std::shared_ptr<State>, std::uint64_t> state() const;
  // Reads those files again that are others than before. False: none is. After an error all is as before.
  Result<bool> reload();
  // Adds a file, which need not exist yet.
  Result<void> add(const std::string& path);

  // The code object of a row, read and checked at its first use; one that is not whole is refused every time.
  Result<std::shared_ptr<Code>> code(Reading&, const WinnerRow&, const std::shared_ptr<const StoredPlan>&);

  // Null: nothing is recorded.
  std::shared_ptr<Trace> trace() const;
  void set_trace(std::shared_ptr<Trace>);
  bool hooked() const { return hooked_.load(std::memory_order_acquire); }
  // Calls the miss hook, if there is one. Setting another waits for calls that are under way.
  void miss(const char* op, const char* attributes, const char* dims, kgen_match_kind) const;
  void set_miss_hook(MissHook);

  // Keeps a text for as long as the DB is open.
  const char* keep(std::string text);

 private:
  Core(std::optional<PublicKey> key, std::unique_ptr<Device> device) : device_(std::move(device)), key_(key) {}
  Result<std::shared_ptr<Code>> read_code(Reading&, const WinnerRow&, const std::shared_ptr<const StoredPlan>&);
  Result<std::shared_ptr<Reading>> read(const std::string& path, const FileIdentity&) const;
  Result<bool> refresh(std::vector<std::string> paths);

  const std::unique_ptr<Device> device_;
  const std::optional<PublicKey> key_;
  alignas(64) std::atomic<std::uint64_t> generation_ = 1;  // read by every lookup: apart from what changes
  alignas(64) mutable std::mutex mutex_;                   // over all that follows
  std::shared_ptr<State> state_;
  std::unordered_map<std::string, std::weak_ptr<Code>> codes_;  // what older readings have loaded serves newer ones
  std::mutex reload_mutex_;
  std::vector<std::string> paths_;
  std::shared_ptr<Trace> trace_;
  mutable std::shared_mutex hook_mutex_;
  MissHook miss_hook_;
  std::atomic<bool> traced_ = false,
                    hooked_ = false;  // whether there are these: most first lookups take no lock for them
  std::set<std::string> texts_;
};

}  // namespace kgen

struct kgen_db {
  std::uint32_t magic = kgen::kDbMagic;
  std::shared_ptr<kgen::Core> core;
};

// What a hit reads comes first, in one line of the cache.
struct alignas(64) kgen_kernel {
  std::uint32_t magic = kgen::kKernelMagic;
  kgen_status status = KGEN_OK;  // KGEN_NOT_FOUND: a shape that has no kernel
  kgen_match match{};
  kgen::Core* core = nullptr;
  std::shared_ptr<kgen::Code> code;
  kgen::BoundLaunch launch;
  std::string reason;
  std::shared_ptr<const kgen::WinnerRow> row;  // has the text of match.config
  std::shared_ptr<kgen::Seen> seen;            // null: nothing is recorded
  double expected_loss = -1;                   // negative: not known
};

struct kgen_op {
  explicit kgen_op(std::size_t dim_count) : first(dim_count), table(&first) {}

  std::uint32_t magic = kgen::kOpMagic;
  std::shared_ptr<kgen::Core> core;
  std::string signature;
  kgen::Goal goal;
  bool guarded = false;
  std::vector<std::string> dims, tensors, scalars;
  std::string operands;  // as StoredPlan::operands

  // Shapes found in one reading of the file. Those of older readings stay: their kernels were handed out.
  struct Table {
    explicit Table(std::size_t dim_count) : kernels(dim_count) {}
    std::uint64_t generation = 0;
    kgen::KernelTable kernels;
  };
  Table first;
  std::atomic<Table*> table;
  std::mutex mutex;  // over inserts and all that follows
  // What lookups ask each file of a reading.
  struct Questions {
    std::uint64_t generation = 0;
    std::vector<std::shared_ptr<const kgen::Dispatcher::Question>> files;  // null for one that is not there yet
  };
  std::shared_ptr<const Questions> questions;
  std::vector<std::unique_ptr<Table>> newer;
  std::vector<std::unique_ptr<kgen_kernel>> kernels;
};
