#include "base/hash.h"

#include <xxhash.h>

namespace kgen {
namespace {

std::string hash128(const void* data, std::size_t size) {
  XXH128_canonical_t canonical;  // big-endian: the same digits on every machine
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, size));
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * sizeof(canonical.digest));
  for (unsigned char byte : canonical.digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

std::string hash_bytes(std::span<const std::byte> data) { return hash128(data.data(), data.size()); }
std::string hash_text(std::string_view text) { return hash128(text.data(), text.size()); }

}  // namespace kgen
