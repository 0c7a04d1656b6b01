#include "tuner/compile_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "base/hash.h"
#include "base/text.h"

namespace kgen {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

Json usage_to_json(const KernelUsage& usage) {
  return {usage.kernel,    usage.registers, usage.agprs,       usage.sgprs,
          usage.lds_bytes, usage.spills,    usage.stack_bytes, usage.max_block};
}

std::optional<KernelUsage> usage_from_json(const Json& json) {
  if (!json.is_array() || json.size() != 8 || !json[0].is_string()) return std::nullopt;
  for (std::size_t i = 1; i < 8; ++i) {
    if (!json[i].is_number_integer()) return std::nullopt;
  }
  return KernelUsage{.kernel = json[0],
                     .registers = json[1],
                     .agprs = json[2],
                     .sgprs = json[3],
                     .lds_bytes = json[4],
                     .spills = json[5],
                     .stack_bytes = json[6],
                     .max_block = json[7]};
}

}  // namespace

// A first prune is due at the first store: other processes may have filled the folder.
CompileCache::CompileCache(std::string folder, std::int64_t limit_bytes)
    : folder_(std::move(folder)), limit_bytes_(limit_bytes), written_(limit_bytes) {}

std::string CompileCache::path(const std::string& key, std::string_view extension) const {
  return fmt::format("{}/{}/{}.{}", folder_, key.substr(0, 2), key, extension);
}

bool CompileCache::write(const std::string& path, std::string_view content) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  if (!write_file(path, content)) return false;
  written_ += static_cast<std::int64_t>(content.size());
  return true;
}

std::optional<CodeObject> CompileCache::find(const std::string& key) {
  auto meta_text = read_file(path(key, "json"));
  auto bytes = read_file(path(key, "bin"));
  if (!meta_text || !bytes) return std::nullopt;
  const Json meta = Json::parse(*meta_text, nullptr, /*allow_exceptions=*/false);
  if (!meta.is_object() || !meta.contains("hash") || !meta["hash"].is_string() || !meta.contains("compiler") ||
      !meta["compiler"].is_string() || !meta.contains("options") || !meta["options"].is_string() ||
      !meta.contains("seconds") || !meta["seconds"].is_number() || !meta.contains("kernels") ||
      !meta["kernels"].is_array())
    return std::nullopt;
  const auto data = std::as_bytes(std::span(*bytes));
  const auto hash = meta["hash"].get<std::string>();
  if (hash_bytes(data) != hash) return std::nullopt;
  CodeObject code;
  code.bytes.assign(data.begin(), data.end());
  code.hash = hash;
  for (const Json& entry : meta["kernels"]) {
    auto usage = usage_from_json(entry);
    if (!usage) return std::nullopt;
    code.kernels.push_back(std::move(*usage));
  }
  code.compiler = meta["compiler"];
  code.options = meta["options"];
  code.path = path(key, "bin");
  code.compile_seconds = meta["seconds"];
  code.from_cache = true;
  // The time of last use decides what is pruned first.
  ::utimensat(AT_FDCWD, code.path.c_str(), nullptr, 0);
  ::utimensat(AT_FDCWD, path(key, "json").c_str(), nullptr, 0);
  return code;
}

void CompileCache::store(const std::string& key, CodeObject& code) {
  Json kernels = Json::array();
  for (const KernelUsage& usage : code.kernels) kernels.push_back(usage_to_json(usage));
  const Json meta = {{"hash", code.hash},
                     {"compiler", code.compiler},
                     {"options", code.options},
                     {"seconds", code.compile_seconds},
                     {"kernels", std::move(kernels)}};
  const std::string_view bytes(reinterpret_cast<const char*>(code.bytes.data()), code.bytes.size());
  // The description goes last: it vouches for the object.
  if (write(path(key, "bin"), bytes) &&
      write(path(key, "json"), meta.dump(-1, ' ', false, Json::error_handler_t::replace)))
    code.path = path(key, "bin");
  prune();
}

std::string CompileCache::keep_source(const std::string& key, std::string_view extension, std::string_view source) {
  const std::string file = path(key, extension);
  return write(file, source) ? file : "";
}

void CompileCache::prune() {
  if (written_ < limit_bytes_ / 16) return;
  const std::unique_lock lock(prune_mutex_, std::try_to_lock);
  if (!lock) return;
  written_ = 0;
  struct Entry {
    fs::file_time_type time;
    std::int64_t bytes;
    fs::path path;
  };
  std::vector<Entry> entries;
  std::int64_t total = 0;
  std::error_code error;
  for (auto it = fs::recursive_directory_iterator(folder_, error); !error && it != fs::end(it); it.increment(error)) {
    std::error_code gone;  // another process prunes too
    const auto bytes = static_cast<std::int64_t>(it->file_size(gone));
    if (gone || !it->is_regular_file(gone)) continue;
    const auto time = it->last_write_time(gone);
    if (gone) continue;
    entries.push_back({time, bytes, it->path()});
    total += bytes;
  }
  if (total <= limit_bytes_) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.time < b.time; });
  // Down to nine tenths, so that the next store does not prune again.
  for (const Entry& entry : entries) {
    if (total <= limit_bytes_ / 10 * 9) break;
    if (fs::remove(entry.path, error)) total -= entry.bytes;
  }
}

}  // namespace kgen
