// The seeds, every input that once crashed or broke a promise, and damaged versions of each, through the fuzz targets.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "base/text.h"
#include "tests/fuzz/inputs.h"

namespace kgen {
namespace {

// The tools print; a test's log is for the test.
class Quiet {
 public:
  Quiet() {
    std::fflush(stdout);
    std::fflush(stderr);
    for (const int fd : {1, 2}) saved_[fd - 1] = ::dup(fd);
    const int sink = ::open("/dev/null", O_WRONLY);
    for (const int fd : {1, 2}) ::dup2(sink, fd);
    ::close(sink);
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
  ~Quiet() {
    std::fflush(stdout);
    for (const int fd : {1, 2}) {
      ::dup2(saved_[fd - 1], fd);
      ::close(saved_[fd - 1]);
    }
  }

 private:
  int saved_[2] = {};
};

class Fuzz : public ::testing::TestWithParam<const char*> {};

TEST_P(Fuzz, SeedsAndDamagedVersionsOfThemEndInAValueOrAnError) {
  const std::string target = GetParam();
  const bool is_slow = target == "db" || target == "recording" || target == "trace";  // these write files
  std::size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator(KGEN_SOURCE_DIR "/tests/fuzz/corpus/" + target)) {
    const std::string path = file.path().string();
    const auto text = read_file(path);
    ASSERT_TRUE(text) << path;
    RecordProperty("last", path);
    const auto start = std::chrono::steady_clock::now();
    {
      const Quiet quiet;
      try_input(target, *text);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << path;
    const Quiet quiet;
    for (std::size_t cut = 0; cut < text->size(); cut += text->size() / (is_slow ? 4 : 40) + 1) {
      try_input(target, text->substr(0, cut));
      std::string damaged = *text;
      damaged[cut] = static_cast<char>("[]{}:&*!-\0\xff"[cut % 11]);
      try_input(target, damaged);
    }
    ++files;
  }
  EXPECT_GE(files, 3U);
}

INSTANTIATE_TEST_SUITE_P(All, Fuzz, ::testing::Values("spec", "op", "expr", "db", "recording", "trace"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace kgen
