#include "generator/flatten.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/text.h"
#include "generator/embedded.h"
#include "generator/spec.h"

namespace kgen {

namespace fs = std::filesystem;

namespace {

constexpr int kMaxIncludeDepth = 32;

std::string normal(const fs::path& path) { return path.lexically_normal().generic_string(); }

// The path between the quotes of an `#include "…"` line.
std::optional<std::string> local_include(std::string_view line) {
  line = trim(line);
  if (!line.starts_with('#')) return std::nullopt;
  line = trim(line.substr(1));
  if (!line.starts_with("include")) return std::nullopt;
  line = trim(line.substr(7));
  if (!line.starts_with('"')) return std::nullopt;
  const auto end = line.find('"', 1);
  if (end == std::string_view::npos) return std::nullopt;
  return std::string(line.substr(1, end - 1));
}

}  // namespace

Result<Flattener::File> Flattener::find(const std::string& path, const File* includer) const {
  std::vector<std::pair<bool, std::string>> tries;
  if (includer) tries.emplace_back(includer->own, normal(fs::path(includer->path).parent_path() / path));
  tries.emplace_back(true, normal(path));
  tries.emplace_back(false, normal(fs::path("templates") / path));
  tries.emplace_back(false, normal(path));
  for (const auto& [own, name] : tries) {
    if (own && !folder_.empty()) {
      const std::string full = (fs::path(folder_) / name).string();
      std::error_code ignored;
      if (!fs::is_regular_file(full, ignored)) continue;
      KGEN_TRY(std::string content, read_file(full));
      return File{true, name, std::move(content)};
    }
    if (own) continue;
    if (const auto content = embedded_file(name)) return File{false, name, std::string(*content)};
  }
  return fail(ErrorKind::kBadInput,
              fmt::format("template '{}' not found{}", path,
                          folder_.empty() ? "" : fmt::format(" in {} nor among the built-in ones", folder_)));
}

Result<void> Flattener::add(const std::string& path) {
  KGEN_TRY(const File file, find(path, nullptr));
  return append(file, 0);
}

Result<void> Flattener::append(const File& file, int depth) {
  if (!seen_.emplace(file.own, file.path).second) return {};
  if (depth > kMaxIncludeDepth) {
    return fail(ErrorKind::kBadInput, fmt::format("{}: includes nest deeper than {}", file.path, kMaxIncludeDepth));
  }
  std::string body;
  bool only_comments = true;
  bool started = false;
  const auto flush = [&] {
    body.erase(0, body.find_first_not_of('\n'));
    if (body.empty()) return;
    text_ +=
        fmt::format("{}// ---- {}{}\n{}", text_.empty() ? "" : "\n", file.path, started ? " (continued)" : "", body);
    started = true;
    body.clear();
  };
  std::string_view rest = file.content;
  for (int number = 1; !rest.empty(); ++number) {
    const auto end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (trim(line) == "#pragma once") continue;
    const auto include = local_include(line);
    if (!include) {
      only_comments = only_comments && (trim(line).empty() || trim(line).starts_with("//"));
      body += line;
      body += '\n';
      continue;
    }
    const auto inner = find(*include, &file);
    if (!inner) {
      return fail(inner.error().kind, fmt::format("{}:{}: {}", file.path, number, inner.error().message));
    }
    // A header's opening comment stays with its code: includes go above it.
    if (!only_comments) flush();
    KGEN_CHECK_OK(append(*inner, depth + 1));
  }
  flush();
  return {};
}

std::vector<std::string> Flattener::matching(const std::string& pattern) const {
  std::set<std::string> found;
  for (const EmbeddedFile& file : source_files()) {
    if (!file.path.starts_with("templates/")) continue;
    const std::string_view name = file.path.substr(std::string_view("templates/").size());
    if (glob_match(pattern, name)) found.emplace(name);
  }
  if (!folder_.empty()) {
    const fs::path parent = fs::path(pattern).parent_path();
    std::error_code error;
    for (fs::directory_iterator item(fs::path(folder_) / parent, error), end; !error && item != end;
         item.increment(error)) {
      const std::string name = normal(parent / item->path().filename());
      std::error_code ignored;
      if (glob_match(pattern, name) && item->is_regular_file(ignored)) found.insert(name);
    }
  }
  return {found.begin(), found.end()};
}

}  // namespace kgen
