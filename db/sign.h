// Ed25519 signatures over what the runtime takes from a file (libsodium). docs/database.md says what they promise.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace kgen {

// "kgen-public:" and 64 hex digits: may be told to everybody, stands in programs that demand it.
struct PublicKey {
  std::array<unsigned char, 32> bytes{};
  std::string text() const;
  // kBadInput for anything but text(), white space around it apart.
  static Result<PublicKey> parse(std::string_view text);
};

// "kgen-private:" and 64 hex digits (the seed): who has it can sign. A file of it is nobody else's to read.
struct PrivateKey {
  std::array<unsigned char, 32> seed{};
  std::string text() const;
  PublicKey public_key() const;
  static Result<PrivateKey> parse(std::string_view text);
  static PrivateKey generate();
  PrivateKey() = default;
  PrivateKey(const PrivateKey&) = default;
  PrivateKey& operator=(const PrivateKey&) = default;
  ~PrivateKey();  // wipes it
};

using Signature = std::array<std::byte, 64>;
Signature sign(const PrivateKey&, std::string_view text);
bool is_signed(const PublicKey&, std::string_view text, std::span<const std::byte> signature);

// BLAKE2b-256 over fields, each with its length in front, so that no two lists of fields give the same bytes. Unlike
// XXH3 (base/hash.h) it stands against those who look for collisions.
class Digest {
 public:
  Digest();
  Digest& add(std::span<const std::byte> bytes);
  Digest& add(std::string_view text) { return add(std::as_bytes(std::span(text))); }
  Digest& add(const std::string& text) { return add(std::string_view(text)); }
  Digest& add(const char* text) { return add(std::string_view(text)); }  // else it would be a bool
  Digest& add(std::int64_t value) { return add(std::as_bytes(std::span(&value, 1))); }
  Digest& add(int value) { return add(std::int64_t{value}); }
  Digest& add(bool value) { return add(std::int64_t{value}); }
  Digest& add(double value) { return add(std::bit_cast<std::int64_t>(value)); }
  template <class T>
  Digest& add(const std::optional<T>& value) {
    add(value.has_value());
    return value ? add(*value) : *this;
  }
  std::string hex();  // 64 digits; ends it

 private:
  void flush();
  alignas(64) std::array<unsigned char, 384> state_;  // crypto_generichash_state
  std::string waiting_;                               // fields are short: hashed many at once
};

}  // namespace kgen
