// Code objects on disk, by key. Safe for several threads and processes: files appear by rename, whole; an entry that is
// damaged or half gone is a miss. A folder that cannot be written makes every lookup a miss and every store a no-op.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "tuner/compile.h"

namespace kgen {

class CompileCache {
 public:
  // `limit_bytes`: the least recently used entries are removed when the folder grows larger.
  CompileCache(std::string folder, std::int64_t limit_bytes);

  // The object with everything compile() said about it, marked from_cache.
  std::optional<CodeObject> find(const std::string& key);
  // Sets code.path.
  void store(const std::string& key, CodeObject& code);
  // Keeps the source of a failed compile so that its command can be repeated; "" when that is not possible.
  std::string keep_source(const std::string& key, std::string_view extension, std::string_view source);

 private:
  std::string path(const std::string& key, std::string_view extension) const;
  bool write(const std::string& path, std::string_view content);
  void prune();

  const std::string folder_;
  const std::int64_t limit_bytes_;
  std::atomic<std::int64_t> written_;  // since the last prune
  std::mutex prune_mutex_;
};

}  // namespace kgen
