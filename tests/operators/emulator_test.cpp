// Candidates of the built-in operators, compiled for AMD and run in an instruction emulator (KGEN_AMD_EMU,
// TINYGRAD_DIR): results by numpy, every access inside its buffer, no race on LDS. tests/operators/emulate.py does the
// work.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/text.h"

namespace kgen {
namespace {

// Exit status of a shell command; what it prints goes to two files.
int shell(const std::string& command, const std::string& output, const std::string& errors) {
  const int status = std::system((command + " >" + output + " 2>" + errors).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string text_of(const std::string& path) {
  auto text = read_file(path);
  return text ? *text : text.error().message;
}

class Emulator : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::getenv("KGEN_AMD_EMU") == nullptr || std::getenv("TINYGRAD_DIR") == nullptr)
      GTEST_SKIP() << "NOT RUN: set KGEN_AMD_EMU (folder of run_co.py) and TINYGRAD_DIR to run AMD kernels";
    std::string path = (std::filesystem::temp_directory_path() / "kgen-emulator-XXXXXX").string();
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  std::string folder_;
};

TEST_P(Emulator, RunsCandidatesOfEveryVariantRight) {
  const std::string manifest = folder_ + "/manifest.json", log = folder_ + "/log", errors = folder_ + "/errors";
  const std::string generate =
      std::string("'" KGEN_EXECUTABLE "' gen '" KGEN_SOURCE_DIR "/tests/operators/problems/gemm.yaml' --arch ") +
      GetParam() + " --limit " KGEN_EMULATOR_LIMIT " --compile --json --output " + folder_;
  ASSERT_EQ(shell(generate, manifest, errors), 0) << text_of(errors);
  const std::string emulate = "/usr/bin/python3 '" KGEN_SOURCE_DIR "/tests/operators/emulate.py' " + manifest;
  EXPECT_EQ(shell(emulate, log, errors), 0) << text_of(log) << text_of(errors);
}

INSTANTIATE_TEST_SUITE_P(Archs, Emulator, testing::Values("gfx90a", "gfx942", "gfx1100", "gfx1201"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace kgen
