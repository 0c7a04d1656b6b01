// Content hashes: XXH3-128 as 32 lower-case hex digits. Not for security; signatures are a separate thing.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kgen {

std::string hash_bytes(std::span<const std::byte> data);
std::string hash_text(std::string_view text);

}  // namespace kgen
