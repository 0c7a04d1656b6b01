#include "db/sign.h"

#include <fmt/format.h>
#include <sodium.h>

#include <cstdlib>
#include <new>

#include "base/text.h"

namespace kgen {
namespace {

constexpr std::string_view kPublic = "kgen-public:", kPrivate = "kgen-private:";

// Once a process; fails only where the system gives no randomness, without which there is nothing to be done.
void start() {
  static const int started = sodium_init();
  if (started < 0) std::abort();
}

std::string hex_of(std::span<const unsigned char> bytes) {
  std::string text(bytes.size() * 2 + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), bytes.data(), bytes.size());
  text.pop_back();
  return text;
}

bool read_key(std::string_view text, std::string_view head, std::array<unsigned char, 32>& bytes) {
  text = trim(text);
  if (!text.starts_with(head) || text.size() != head.size() + 64) return false;
  std::size_t got = 0;
  return sodium_hex2bin(bytes.data(), bytes.size(), text.data() + head.size(), 64, nullptr, &got, nullptr) == 0 &&
         got == bytes.size();
}

}  // namespace

std::string PublicKey::text() const { return std::string(kPublic) + hex_of(bytes); }

Result<PublicKey> PublicKey::parse(std::string_view text) {
  start();
  PublicKey key;
  if (read_key(text, kPublic, key.bytes)) return key;
  if (trim(text).starts_with(kPrivate))
    return fail(ErrorKind::kBadInput, "this is a private key, which stays with who signs; give the public one");
  return fail(ErrorKind::kBadInput,
              fmt::format("not a public key: '{}' and 64 hex digits, as `kgen db keygen` prints it", kPublic));
}

std::string PrivateKey::text() const { return std::string(kPrivate) + hex_of(seed); }

PublicKey PrivateKey::public_key() const {
  start();
  PublicKey key;
  unsigned char secret[crypto_sign_SECRETKEYBYTES];
  crypto_sign_seed_keypair(key.bytes.data(), secret, seed.data());
  sodium_memzero(secret, sizeof secret);
  return key;
}

Result<PrivateKey> PrivateKey::parse(std::string_view text) {
  start();
  PrivateKey key;
  if (read_key(text, kPrivate, key.seed)) return key;
  if (trim(text).starts_with(kPublic))
    return fail(ErrorKind::kBadInput, "this is a public key; signing takes the private one");
  return fail(ErrorKind::kBadInput,
              fmt::format("not a private key: '{}' and 64 hex digits, as `kgen db keygen` writes it", kPrivate));
}

PrivateKey PrivateKey::generate() {
  start();
  PrivateKey key;
  randombytes_buf(key.seed.data(), key.seed.size());
  return key;
}

PrivateKey::~PrivateKey() { sodium_memzero(seed.data(), seed.size()); }

Signature sign(const PrivateKey& key, std::string_view text) {
  start();
  PublicKey unused;
  unsigned char secret[crypto_sign_SECRETKEYBYTES];
  crypto_sign_seed_keypair(unused.bytes.data(), secret, key.seed.data());
  Signature signature;
  crypto_sign_detached(reinterpret_cast<unsigned char*>(signature.data()), nullptr,
                       reinterpret_cast<const unsigned char*>(text.data()), text.size(), secret);
  sodium_memzero(secret, sizeof secret);
  return signature;
}

bool is_signed(const PublicKey& key, std::string_view text, std::span<const std::byte> signature) {
  start();
  return signature.size() == crypto_sign_BYTES &&
         crypto_sign_verify_detached(reinterpret_cast<const unsigned char*>(signature.data()),
                                     reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                                     key.bytes.data()) == 0;
}

namespace {
crypto_generichash_state* state_of(std::array<unsigned char, 384>& bytes) {
  return std::launder(reinterpret_cast<crypto_generichash_state*>(bytes.data()));
}
}  // namespace

Digest::Digest() {
  static_assert(sizeof(crypto_generichash_state) <= 384 && alignof(crypto_generichash_state) <= 64);
  start();
  new (state_.data()) crypto_generichash_state;
  crypto_generichash_init(state_of(state_), nullptr, 0, 32);
}

void Digest::flush() {
  crypto_generichash_update(state_of(state_), reinterpret_cast<const unsigned char*>(waiting_.data()), waiting_.size());
  waiting_.clear();
}

Digest& Digest::add(std::span<const std::byte> bytes) {
  const std::uint64_t size = bytes.size();
  waiting_.append(reinterpret_cast<const char*>(&size), sizeof size);
  waiting_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (waiting_.size() > 4096) flush();
  return *this;
}

std::string Digest::hex() {
  flush();
  std::array<unsigned char, 32> out{};
  crypto_generichash_final(state_of(state_), out.data(), out.size());
  return hex_of(out);
}

}  // namespace kgen
