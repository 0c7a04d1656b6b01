// Small text and file helpers used by every folder.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kgen {

// Nearest candidate by edit distance (at most a third of the length away), for "did you mean".
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);
// "; did you mean 'x'?" or "".
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

std::vector<std::string> split(std::string_view text, char separator);
std::string join(std::span<const std::string> parts, std::string_view separator);
std::string_view trim(std::string_view text);
// Shell-style pattern with *, ? and {one,other} (not nested).
bool glob_match(std::string_view pattern, std::string_view text);

Result<std::string> read_file(const std::string& path);
// Writes a temporary file beside `path`, then renames: readers never see half a file.
Result<void> write_file(const std::string& path, std::string_view content);

// Text from elsewhere as one line that does nothing to a terminal: control and direction characters, and bytes that are
// no UTF-8, become "\xNN".
std::string printable(std::string_view text);

// 1234567 -> "1.23 M"; bytes -> "1.2 MiB"; seconds -> "1m 05s".
std::string human_count(double value);
std::string human_bytes(double bytes);
std::string human_seconds(double seconds);

}  // namespace kgen
