#include "base/gunzip.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>

namespace kgen {
namespace {

// What the system's gzip makes of a text.
std::string gzip(const std::string& text, const std::string& flags) {
  const std::string path = ::testing::TempDir() + "kgen_gunzip_test";
  std::FILE* file = std::fopen(path.c_str(), "wb");
  std::fwrite(text.data(), 1, text.size(), file);
  std::fclose(file);
  std::string out;
  std::FILE* pipe = ::popen(("gzip -c " + flags + " " + path).c_str(), "r");
  std::array<char, 4096> buffer{};
  for (std::size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) out.append(buffer.data(), n);
  ::pclose(pipe);
  std::remove(path.c_str());
  return out;
}

std::string sample(std::size_t size) {
  std::string text;
  std::uint32_t state = 1;
  while (text.size() < size) {
    state = state * 1664525 + 1013904223;
    text += state % 7 == 0 ? std::string(state >> 20 & 63, 'a') : std::to_string(state >> 9);
  }
  return text;
}

TEST(Gunzip, ReadsWhatGzipWrites) {
  for (const char* flags : {"-1", "-6", "-9", "-9n"})
    for (const std::size_t size : {0, 1, 100, 70'000, 400'000}) {
      const std::string text = sample(size), packed = gzip(text, flags);
      ASSERT_TRUE(is_gzip(packed));
      const auto unpacked = gunzip(packed);
      ASSERT_TRUE(unpacked.has_value()) << unpacked.error().message;
      EXPECT_EQ(*unpacked, text);
    }
}

TEST(Gunzip, DamageIsSeen) {
  const std::string packed = gzip(sample(5000), "-6");
  for (std::size_t length = 0; length < packed.size(); length += 7)
    EXPECT_FALSE(gunzip(packed.substr(0, length)).has_value());
  for (std::size_t at = 30; at < packed.size(); at += 11) {
    std::string broken = packed;
    broken[at] = static_cast<char>(broken[at] ^ 0x10);
    EXPECT_FALSE(gunzip(broken).has_value()) << at;
  }
  EXPECT_FALSE(gunzip(packed, 100).has_value());
}

}  // namespace
}  // namespace kgen
