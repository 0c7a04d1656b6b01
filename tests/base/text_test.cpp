#include "base/text.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

namespace kgen {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Text, NearestFindsTyposAndSwapsButNotStrangers) {
  const std::vector<std::string> names = {"gemm", "conv3d_patchify", "softmax"};
  EXPECT_EQ(nearest("gmem", names), "gemm");
  EXPECT_EQ(nearest("conv3d_patchfy", names), "conv3d_patchify");
  EXPECT_EQ(nearest("attention", names), std::nullopt);
  EXPECT_EQ(nearest("x", names), std::nullopt);
  EXPECT_EQ(did_you_mean("sofmax", names), "; did you mean 'softmax'?");
  EXPECT_EQ(did_you_mean("attention", names), "");
}

TEST(Text, SplitAndJoinAreInverse) {
  EXPECT_THAT(split("a,,b", ','), ElementsAre("a", "", "b"));
  EXPECT_THAT(split("", ','), ElementsAre(""));
  EXPECT_EQ(join(split("a,,b,", ','), ","), "a,,b,");
  EXPECT_EQ(trim(" \t x y \n"), "x y");
  EXPECT_EQ(trim("  "), "");
}

TEST(Text, GlobMatchesStarsAndQuestionMarks) {
  EXPECT_TRUE(glob_match("conv*", "conv3d_patchify"));
  EXPECT_TRUE(glob_match("*", ""));
  EXPECT_TRUE(glob_match("g?mm", "gemm"));
  EXPECT_TRUE(glob_match("*a*b", "xaxxab"));
  EXPECT_FALSE(glob_match("g?mm", "gmm"));
  EXPECT_FALSE(glob_match("conv", "conv3d"));
  EXPECT_FALSE(glob_match("*a*b", "xaxxabc"));
  EXPECT_TRUE(glob_match("{gemm,conv3d_*}", "conv3d_patchify"));
  EXPECT_FALSE(glob_match("{gemm,conv3d_*}", "softmax"));
  EXPECT_TRUE(glob_match("{gemm", "{gemm"));
}

TEST(Text, WrittenFilesReadBackAndLeaveNothingBeside) {
  const std::filesystem::path folder = testing::TempDir() + "/kgen_text_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  const std::string path = folder / "file";
  std::string content(100000, 'x');
  content[5] = '\0';
  ASSERT_TRUE(write_file(path, "before"));
  ASSERT_TRUE(write_file(path, content));
  const auto back = read_file(path);
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, content);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_TRUE(status.st_mode & S_IRUSR);
  std::filesystem::remove_all(folder);
}

TEST(Text, FileErrorsNameThePathAndTheReason) {
  const auto missing = read_file("/nonexistent/file");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind, ErrorKind::kIo);
  EXPECT_THAT(missing.error().message, HasSubstr("/nonexistent/file: cannot read: No such file"));
  const auto unwritable = write_file("/nonexistent/file", "x");
  ASSERT_FALSE(unwritable);
  EXPECT_THAT(unwritable.error().message, HasSubstr("cannot write"));
}

TEST(Text, HumanUnits) {
  EXPECT_EQ(human_count(1234567), "1.23 M");
  EXPECT_EQ(human_count(42), "42");
  EXPECT_EQ(human_count(999.9), "1 k");
  EXPECT_EQ(human_bytes(1258291), "1.2 MiB");
  EXPECT_EQ(human_bytes(100), "100 B");
  EXPECT_EQ(human_seconds(65), "1m 05s");
  EXPECT_EQ(human_seconds(3700), "1h 01m");
  EXPECT_EQ(human_seconds(12.34), "12.3 s");
  EXPECT_EQ(human_seconds(0.0125), "12.5 ms");
  EXPECT_EQ(human_seconds(59.99), "1m 00s");
}

}  // namespace
}  // namespace kgen
