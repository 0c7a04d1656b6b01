// The table "Bad input" of the product's description, row by row, from outside.
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;

// One line on stderr, no stack trace, nothing on stdout.
void expect_one_line(const Ran& ran, int code) {
  EXPECT_EQ(ran.code, code) << ran.err;
  EXPECT_THAT(ran.out, IsEmpty());
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
}

Ran gen(const TempFolder& folder, const std::string& spec, const std::string& arch = "host") {
  return run_kgen({"gen", folder.write("spec.yaml", spec), "--arch", arch, "-o", folder / "out", "--limit", "1"});
}

Ran tune(const TempFolder& folder, const std::string& spec, std::vector<std::string> flags = {}) {
  std::vector<std::string> args = {"tune", folder.write("spec.yaml", spec), "--db", folder / "tuned.db"};
  if (std::find(flags.begin(), flags.end(), "--device") == flags.end()) flags.insert(flags.end(), {"--device", "host"});
  args.insert(args.end(), flags.begin(), flags.end());
  return run_kgen(args);
}

std::string gemm(const std::string& problem, const std::string& rest = "") {
  return "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: gemm\n    problems:\n      - " + problem + "\n" + rest;
}
constexpr const char* kSmall = "{m: 8, n: 8, k: 8}";

// ---- ranges of a dynamic dim

TEST(BadRange, IsExit2AtItsPlace) {
  const TempFolder folder;
  for (const auto& [range, what] : std::vector<std::pair<std::string, std::string>>{
           {"{range: [9, 4]}", "is empty"}, {"{range: [0, 4]}", "begins at 1"}, {"{range: 7}", "must be a list"}}) {
    const Ran ran = tune(folder, gemm("{m: " + range + ", n: 8, k: 8}"));
    expect_one_line(ran, 2);
    EXPECT_THAT(ran.err, AllOf(HasSubstr("spec.yaml:6:"), HasSubstr(what)));
  }
  const Ran energy = tune(folder, gemm("{m: {range: [1, 4]}, n: 8, k: 8}"), {"--objective", "energy"});
  expect_one_line(energy, 2);
  EXPECT_THAT(energy.err, HasSubstr("a dynamic dim is covered by time"));
}

// ---- unknown key, op, dim, dtype, arch, device, strategy: exit 2, position, nearest valid name

struct Typo {
  const char* what;
  std::string spec;
  const char* position;  // of the wrong word, "" = not looked at
  const char* nearest;
};
void PrintTo(const Typo& typo, std::ostream* out) { *out << typo.what; }

class UnknownName : public testing::TestWithParam<Typo> {};

TEST_P(UnknownName, IsReportedWithItsPositionAndTheNearestValidName) {
  const TempFolder folder;
  const Ran ran = gen(folder, GetParam().spec);
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err,
              AllOf(HasSubstr("spec.yaml:" + std::string(GetParam().position)), HasSubstr(GetParam().nearest)));
}

INSTANTIATE_TEST_SUITE_P(
    BadInput, UnknownName,
    testing::Values(Typo{"key", gemm(kSmall, "    problms: []\n"), "7:5:", "'problems'"},
                    Typo{"op", "kgen: 1\nops:\n  - op: gmem\n    problems: [{m: 1}]\n", "3:9:", "'gemm'"},
                    Typo{"dim", gemm("{m: 8, n: 8, k: 8, ldaa: 8}"), "6:28:", "'lda'"},
                    Typo{"dtype", "kgen: 1\nops:\n  - op: gemm\n    dtype: bf15\n    problems: [{m: 8, n: 8, k: 8}]\n",
                         "4:", "'bf16'"},
                    Typo{"attribute", gemm(kSmall, "    b_layuot: nk\n"), "7:5:", "'b_layout'"},
                    Typo{"value", gemm(kSmall, "    epilogue: [bais]\n"), "7:", "'bias'"},
                    Typo{"tunable", gemm(kSmall, "    tune: {params: {tile_mm: [64]}}\n"), "7:", "'tile_m'"},
                    Typo{"version", "kgen: 2\nops: []\n", "1:", "1"}),
    [](const auto& info) { return info.param.what; });

TEST(BadInput, AnUnknownArchNamesTheNearest) {
  const TempFolder folder;
  const Ran ran = gen(folder, gemm(kSmall), "gfx90b");
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err, HasSubstr("did you mean 'gfx90"));
}

TEST(BadInput, AnUnknownDeviceNamesTheNearest) {
  const TempFolder folder;
  const Ran ran = tune(folder, gemm(kSmall), {"--device", "nvida:0"});
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err, HasSubstr("nvidia"));
}

TEST(BadInput, AnUnknownStrategyNamesTheNearest) {
  const TempFolder folder;
  const Ran ran = tune(folder, gemm(kSmall), {"--strategy", "randon"});
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err, HasSubstr("did you mean 'random'?"));
}

TEST(BadInput, AnUnknownTimingOrBudgetIsRefused) {
  const TempFolder folder;
  expect_one_line(tune(folder, gemm(kSmall), {"--timing", "cool"}), 2);
  expect_one_line(tune(folder, gemm(kSmall), {"--objective", "enrgy"}), 2);
  expect_one_line(tune(folder, gemm(kSmall), {"--budget", "10x"}), 2);
  expect_one_line(tune(folder, gemm(kSmall), {"--budget", "0"}), 2);
  expect_one_line(tune(folder, gemm(kSmall), {"--seed", "-1"}), 2);
}

TEST(BadInput, AnUnknownCommandNamesTheNearest) {
  const Ran ran = run_kgen({"tnue"});
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err, HasSubstr("did you mean 'tune'?"));
}

TEST(BadInput, AnUnknownFlagNamesTheNearest) {
  for (const char* command : {"tune", "gen", "compile", "inspect", "verify", "show", "lookup", "devices", "ops"}) {
    const Ran ran = run_kgen({command, "--jsno"});
    SCOPED_TRACE(command);
    expect_one_line(ran, 2);
    EXPECT_THAT(ran.err, HasSubstr("did you mean '--json'?"));
  }
}

TEST(BadInput, MissingArgumentsAndFilesAreBadUsage) {
  expect_one_line(run_kgen({"tune"}), 2);
  expect_one_line(run_kgen({"gen", "spec.yaml"}), 2);
  expect_one_line(run_kgen({"db", "chekc"}), 2);
  const Ran ran = run_kgen({"gen", "/nonexistent/spec.yaml", "--arch", "host"});
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err, HasSubstr("/nonexistent/spec.yaml"));
}

// ---- dims: zero is legal, negative, overflowing and non-integer ones are not

TEST(BadInput, ZeroDimsHaveNothingToLaunch) {
  const TempFolder folder;
  const Ran ran = tune(folder, gemm("{m: 0, n: 8, k: 8}"), {"--json"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  const auto json = nlohmann::json::parse(ran.out);
  ASSERT_EQ(json["rows"].size(), 1u);
  EXPECT_EQ(json["rows"][0]["note"], "nothing to launch");
}

TEST(BadInput, DimsThatAreNoSizesAreRefusedWithTheirPosition) {
  for (const char* value : {"-1", "1.5", "lots", "99999999999999999999", "[]", "{}"}) {
    SCOPED_TRACE(value);
    const TempFolder folder;
    const Ran ran = gen(folder, gemm("{m: " + std::string(value) + ", n: 8, k: 8}"));
    expect_one_line(ran, 2);
    EXPECT_THAT(ran.err, HasSubstr("spec.yaml:6:"));
  }
}

TEST(BadInput, SizesWhoseProductOverflowsAreRefused) {
  const TempFolder folder;
  const Ran ran = gen(folder, gemm("{m: 2147483648, n: 2147483648, k: 2147483648}"));
  expect_one_line(ran, 2);
}

// ---- a space that is empty after the rules: exit 2, and which rule removed the last candidate

TEST(BadInput, AnEmptySpaceNamesTheRuleThatEmptiedIt) {
  const TempFolder folder;
  const Ran ran = gen(folder, "kgen: 1\nops:\n  - op: " KGEN_SOURCE_DIR
                              "/examples/my_op/softcap.yaml\n    dtype: fp32\n"
                              "    problems: [{n: 64}]\n    tune: {params: {vec: [8]}}\n");
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err, AllOf(HasSubstr("vec*dtype_bytes <= 16"), HasSubstr("an access is 16 bytes at most")));
}

// ---- a template that does not compile for any candidate: exit 1, the first error once, with the command

TEST(BadInput, ATemplateThatNeverCompilesGivesItsFirstErrorOnce) {
  const TempFolder folder;
  for (const char* file : {"softcap.yaml", "softcap_reference.h"})
    std::filesystem::copy_file(std::string(KGEN_SOURCE_DIR "/examples/my_op/") + file, folder / file);
  folder.write("softcap.h",
               "#pragma once\n#include \"prelude.h\"\nnamespace kgen {\ntemplate <class C, class P>\n"
               "KGEN_DEVICE void softcap(const P& p) { this_is_not_declared; neither_is_this; }\n}\n");
  const std::string spec =
      "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: ./softcap.yaml\n    problems: [{n: 64}]\n"
      "    tune: {params: {threads: [64, 128], vec: [1], items: [1]}}\n";
  const Ran tuned = tune(folder, spec);
  EXPECT_EQ(tuned.code, 1) << tuned.err;
  const std::string all = tuned.out + tuned.err;
  std::size_t count = 0;
  for (std::size_t at = 0; (at = all.find("this_is_not_declared", at)) != std::string::npos; ++at) ++count;
  EXPECT_EQ(count, 1u) << all;
  const Ran generated = run_kgen({"gen", folder / "spec.yaml", "--arch", "host", "-o", folder / "out", "--compile"});
  EXPECT_EQ(generated.code, 1);
  EXPECT_THAT(generated.err, AllOf(HasSubstr("this_is_not_declared"), HasSubstr("repeat it with: ")));
}

// ---- no compiler, no driver, no permission, disk full, read-only DB, DB from a newer kgen, corrupted DB

TEST(BadInput, NoCompilerIsExit3) {
  const TempFolder folder;
  const Ran ran = run_kgen({"compile", folder.write("empty.hip", ""), "--arch", "host", "-o", folder / "x.so"},
                           {.environment = {"PATH=/nonexistent", "CXX="}});
  expect_one_line(ran, 3);
}

TEST(BadInput, NoDriverOrNoSuchDeviceIsExit3) {
  for (const char* device : {"nvidia:99", "amd:99"}) {
    const TempFolder folder;
    const Ran ran = tune(folder, gemm(kSmall), {"--device", device});
    expect_one_line(ran, 3);
  }
}

TEST(BadInput, ADatabaseThatCannotBeWrittenIsExit2) {
  const TempFolder folder;
  const Ran ran =
      run_kgen({"tune", folder.write("spec.yaml", gemm(kSmall)), "--device", "host", "--db", "/proc/tuned.db"});
  expect_one_line(ran, 2);
  EXPECT_THAT(ran.err, HasSubstr("/proc/tuned.db"));
}

TEST(BadInput, AReadOnlyDatabaseIsExit2AndStaysAsItWas) {
  const TempFolder folder;
  ASSERT_EQ(tune(folder, gemm("{m: 0, n: 8, k: 8}")).code, 0);
  const auto before = read_file(folder / "tuned.db");
  namespace fs = std::filesystem;
  fs::permissions(folder / "tuned.db", fs::perms::owner_read | fs::perms::group_read | fs::perms::others_read);
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::group_exec |
                                     fs::perms::others_read | fs::perms::others_exec);
  fs::permissions(folder / "spec.yaml", fs::perms::others_read, fs::perm_options::add);
  const Ran ran =
      run_kgen({"tune", folder / "spec.yaml", "--device", "host", "--db", folder / "tuned.db"}, {.unprivileged = true});
  if (ran.code == 127) GTEST_SKIP() << "the unprivileged user cannot reach the binary";
  expect_one_line(ran, 2);
  EXPECT_EQ(read_file(folder / "tuned.db").value_or(""), before.value_or("-"));
}

TEST(BadInput, AFullDiskUnderStdoutIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  EXPECT_EQ(std::system(KGEN_EXECUTABLE " ops > /dev/full 2> /dev/null") >> 8, 2);
}

class DamagedDb : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(tune(folder_, gemm("{m: 0, n: 8, k: 8}")).code, 0);
    auto content = read_file(path());
    ASSERT_TRUE(content);
    content_ = *content;
  }
  std::string path() const { return folder_ / "tuned.db"; }
  // Every command refuses the file with exit 2 and one line, and leaves it alone.
  void expect_refused(const char* why) {
    ASSERT_TRUE(write_file(path(), content_));
    const std::vector<std::vector<std::string>> commands = {
        {"show", path()},
        {"lookup", path(), "gemm", "m=1"},
        {"db", "info", path()},
        {"tune", folder_ / "spec.yaml", "--device", "host", "--db", path()},
    };
    for (const auto& command : commands) {
      SCOPED_TRACE(command.front());
      const Ran ran = run_kgen(command);
      expect_one_line(ran, 2);
      EXPECT_THAT(ran.err, AllOf(HasSubstr("tuned.db"), HasSubstr(why)));
      EXPECT_EQ(read_file(path()).value_or(""), content_);
    }
  }

  TempFolder folder_;
  std::string content_;
};

TEST_F(DamagedDb, OfANewerKgenIsRefused) {
  content_[63] = 99;  // the low byte of user_version in SQLite's file header
  expect_refused("newer");
}

TEST_F(DamagedDb, ThatIsNoDatabaseIsRefused) {
  content_ = "not a database, though it has the name of one\n";
  expect_refused("not");
}

TEST_F(DamagedDb, ThatIsCutShortIsRefused) {
  content_.resize(content_.size() / 2 + 100);
  expect_refused("");
}

TEST_F(DamagedDb, ThatDoesNotExistIsNotMade) {
  const Ran ran = run_kgen({"show", folder_ / "other.db"});
  expect_one_line(ran, 2);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other.db"));
}

}  // namespace
}  // namespace kgen
