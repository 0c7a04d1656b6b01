#include "tuner/problem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "generator/spec.h"
#include "tuner/process.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;

// It is shown to people who paste it into a shell: there it must be the words that it seems to be, whatever the spec is
// called.
TEST(RepeatLine, IsSafeToPasteWhateverTheSpecNames) {
  const TemporaryFolder work = TemporaryFolder::make().value();
  const std::string folder = work.path() + "/it's $(touch pwned) `touch pwned`";
  std::filesystem::create_directory(folder);
  for (const char* file : {"softcap.yaml", "softcap.h", "softcap_reference.h"})
    std::filesystem::copy_file(std::string(KGEN_SOURCE_DIR "/examples/my_op/") + file, folder + "/" + file);
  const auto specs = parse_spec_text(
      "{kgen: 1, ops: [{op: \"" + folder + "/softcap.yaml\", dtype: fp32, problems: [{n: 64}]}]}", "hostile.yaml");
  ASSERT_TRUE(specs) << specs.error().message;
  const std::string line = repeat_line(specs->front(), "vector x='; touch pwned; '", "host");
  const std::vector<std::string> shell{"bash", "-c", "kgen() { cat \"$2\"; shift 2; printf '%s|' \"$@\"; }; " + line};
  const auto ran = run_program(shell, {.timeout_seconds = 20, .folder = work.path()});
  ASSERT_TRUE(ran) << ran.error().message;
  EXPECT_EQ(ran->code, 0) << ran->output;
  EXPECT_THAT(ran->output, HasSubstr("op: " + folder + "/softcap.yaml"));
  EXPECT_THAT(ran->output, HasSubstr("--config|vector x='; touch pwned; '|--device|host|"));
  EXPECT_FALSE(std::filesystem::exists(work.path() + "/pwned"));
}

TEST(CodeFile, OfACacheThatCannotBeWrittenLiesInAPrivateFolder) {
  CodeObject code;
  code.bytes = {std::byte{1}, std::byte{2}};
  code.hash = "0123";
  const std::filesystem::path file = code_file(code).value();
  EXPECT_EQ(std::filesystem::file_size(file), 2u);
  const auto permissions = std::filesystem::status(file.parent_path()).permissions();
  EXPECT_EQ(permissions & (std::filesystem::perms::group_all | std::filesystem::perms::others_all),
            std::filesystem::perms::none);
}

}  // namespace
}  // namespace kgen
