#include <gtest/gtest.h>

#include <filesystem>

#include "base/text.h"
#include "spec_fuzz.h"

namespace kgen {
namespace {

// Seeds, and every input that once crashed.
TEST(Fuzz, CorpusReplaysWithoutACrash) {
  std::size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator(std::string(KGEN_SOURCE_DIR) + "/tests/fuzz/corpus")) {
    const auto text = read_file(file.path().string());
    ASSERT_TRUE(text) << file.path();
    SCOPED_TRACE(file.path().string());
    try_spec(*text);
    // Cut and damaged versions of it, as a cheap stand-in where libFuzzer is not at hand.
    for (std::size_t cut = 0; cut < text->size(); cut += text->size() / 40 + 1) {
      try_spec(text->substr(0, cut));
      std::string damaged = *text;
      damaged[cut] = static_cast<char>("[]{}:&*!-\0\xff"[cut % 11]);
      try_spec(damaged);
    }
    ++files;
  }
  EXPECT_GE(files, 8U);
}

}  // namespace
}  // namespace kgen
