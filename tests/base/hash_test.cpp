#include "base/hash.h"

#include <gtest/gtest.h>

namespace kgen {
namespace {

TEST(Hash, MatchesXxh3128OfTheReferenceTool) {
  EXPECT_EQ(hash_text(""), "99aa06d3014798d86001c324468d497f");  // `xxhsum -H2 /dev/null`
}

TEST(Hash, BytesAndTextOfEqualContentAgree) {
  const std::string text = "kgen";
  EXPECT_EQ(hash_text(text), hash_bytes(std::as_bytes(std::span(text))));
  EXPECT_NE(hash_text("kgen"), hash_text("kgem"));
}

}  // namespace
}  // namespace kgen
