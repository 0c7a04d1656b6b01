// Specs and databases from elsewhere are data: no shell sees them, files are written where the user said, and what is
// temporary is private.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include "base/text.h"
#include "db/db.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

// All below a folder, by relative path.
std::set<std::string> files(const std::string& folder) {
  std::set<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    found.insert(fs::relative(entry.path(), folder).string());
  return found;
}

mode_t mode_of(const std::string& path) {
  struct stat status{};
  return ::lstat(path.c_str(), &status) == 0 ? status.st_mode & 0777 : 0;
}

TEST(Security, NoCompilerFlagOfASpecIsTaken) {
  const TempFolder folder;
  const std::string gemm = "op: gemm, dtype: fp32, problems: [{m: 8, n: 8, k: 8}]";
  for (const std::string& spec : {
           "{kgen: 1, ops: [{" + gemm + ", flags: [-fplugin=./evil.so]}]}",
           "{kgen: 1, ops: [{" + gemm + ", compiler_flags: -fplugin=./evil.so}]}",
           "{kgen: 1, ops: [{" + gemm + ", tune: {options: [-fplugin=./evil.so]}}]}",
           "{kgen: 1, ops: [{" + gemm + ", tune: {params: {cxxflags: [-fplugin=./evil.so]}}}]}",
           "{kgen: 1, defaults: {flags: -fplugin=./evil.so}, ops: [{" + gemm + "}]}",
           "{kgen: 1, compiler: {flags: -fplugin=./evil.so}, ops: [{" + gemm + "}]}",
       }) {
    const Ran ran = run_kgen({"gen", folder.write("spec.yaml", spec), "--arch", "host", "-o", folder / "out"});
    EXPECT_EQ(ran.code, 2) << spec;
    EXPECT_THAT(ran.err, HasSubstr("spec.yaml:1:")) << spec;
  }
}

TEST(Security, TextOfASpecReachesNoShellAndNoFileNameOutsideTheFolder) {
  const TempFolder folder;
  fs::create_directory(folder / "q'$(touch pwned)");
  for (const char* file : {"softcap.yaml", "softcap.h", "softcap_reference.h"})
    fs::copy_file(std::string(KGEN_SOURCE_DIR "/examples/my_op/") + file, folder / "q'$(touch pwned)/" + file);
  const std::string spec =
      folder.write("spec.yaml",
                   "kgen: 1\ndefaults: {dtype: fp32}\nops:\n"
                   "  - op: \"./q'$(touch pwned)/softcap.yaml\"\n    name: \"../../x; touch pwned; `touch pwned`\"\n"
                   "    problems: [{n: 64, name: \"$(touch pwned)\"}]\n"
                   "    tune: {params: {threads: [64], vec: [1], items: [1]}}\n");
  const std::set<std::string> before = files(folder.path());
  const Ran gen =
      run_kgen({"gen", spec, "--arch", "host", "-o", "out", "--compile", "--limit", "2"}, {.folder = folder.path()});
  EXPECT_EQ(gen.code, 0) << gen.err;
  const Ran tune = run_kgen({"tune", spec, "--db", "tuned.db", "--device", "host"}, {.folder = folder.path()});
  EXPECT_EQ(tune.code, 0) << tune.err;
  for (const std::string& file : files(folder.path())) {
    const bool expected = before.contains(file) || file == "out" || file.starts_with("out/") || file == "tuned.db";
    EXPECT_TRUE(expected) << file;
    EXPECT_THAT(file.substr(file.rfind('/') + 1), testing::Not(HasSubstr("x;"))) << file;
  }
}

TEST(Security, NamesThatWouldBecomePathsAreRefused) {
  const TempFolder folder;
  std::string text = read_file(KGEN_SOURCE_DIR "/examples/my_op/softcap.yaml").value();
  const std::size_t at = text.find("\nop: softcap");
  ASSERT_NE(at, std::string::npos);
  folder.write("softcap.h", "");
  folder.write("softcap_reference.h", "");
  for (const std::string name : {"../../evil", "/tmp/evil", "a/b", "..", "$(touch pwned)"}) {
    std::string hostile = text;
    hostile.replace(at, 12, "\nop: \"" + name + "\"");
    folder.write("softcap.yaml", hostile);
    const std::string spec =
        folder.write("spec.yaml", "{kgen: 1, ops: [{op: ./softcap.yaml, dtype: fp32, problems: [{n: 64}]}]}");
    const Ran ran = run_kgen({"gen", spec, "--arch", "host", "-o", folder / "out"});
    EXPECT_EQ(ran.code, 2) << name;
    EXPECT_THAT(ran.err, HasSubstr("cannot name a operator")) << name;
    EXPECT_FALSE(fs::exists(folder / "out"));
  }
}

TEST(Security, ADatabaseFromElsewhereNamesNoFileOutsideTheFolder) {
  const TempFolder folder;
  {
    Db db = Db::open(folder / "hostile.db", DbMode::kReadWrite).value();
    const auto device = db.intern_device({.arch = "sm_90", .name = "card", .driver = "CUDA 13.0", .uuid = ""}).value();
    const OpRecord op{
        .signature = "../evil dtype=fp32", .op = "../evil", .dims = "n", .dim_defaults = "", .attributes = ""};
    const auto problem =
        db.intern_problem(op, {.dims_key = "n=4", .dims_json = R"({"n":4})", .label = "", .flops = 1, .bytes = 1})
            .value();
    for (int i = 0; i < 8; ++i) {
      TrialRecord trial;
      trial.problem = problem;
      trial.device = device;
      trial.config = "vector vec=" + std::to_string(i);
      trial.source_hash = trial.op_hash = "0";
      trial.timing = "cold";
      trial.time_us = 10 + i;
      ASSERT_TRUE(db.record(trial));
    }
  }
  const Ran ran = run_kgen({"db", "prior", folder / "hostile.db", "-o", folder / "prior"});
  EXPECT_EQ(ran.code, 2) << ran.out;
  EXPECT_THAT(ran.err, HasSubstr("'../evil' is no name of an operator"));
  EXPECT_FALSE(fs::exists(folder / "evil.yaml"));
}

// Without HOME the cache is a folder in the temporary one, where others may write too.
TEST(Security, TemporaryFilesArePrivateAndACacheThatOthersMayWriteIsNotUsed) {
  const TempFolder folder;
  const std::string spec = folder.write(
      "spec.yaml",
      "kgen: 1\nops:\n  - op: softmax\n    dtype: fp32\n    problems: [{rows: 4, cols: 64}]\n    tune: {budget: 1}\n");
  const std::string temporary = folder / "tmp", cache = temporary + "/kgen-cache-" + std::to_string(::geteuid());
  fs::create_directory(temporary);
  std::set<std::string> open_to_others;
  const auto tune = [&](const std::string& db) {
    return run_kgen(
        {"tune", spec, "--db", folder / db, "--device", "host"},
        {.environment = {"TMPDIR=" + temporary, "HOME=", "XDG_CACHE_HOME="}, .while_running = [&](pid_t child) {
           for (siginfo_t end{}; end.si_pid == 0;) {
             std::error_code gone;
             for (const auto& entry : fs::directory_iterator(temporary, gone))
               if (const mode_t mode = mode_of(entry.path()); (mode & 077) != 0 && entry.path() != cache)
                 open_to_others.insert(entry.path().filename());
             std::this_thread::sleep_for(std::chrono::milliseconds(2));
             ::waitid(P_PID, static_cast<id_t>(child), &end, WEXITED | WNOHANG | WNOWAIT);
           }
         }});
  };
  const Ran first = tune("first.db");
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(open_to_others, IsEmpty());
  EXPECT_EQ(mode_of(cache), 0700u);
  EXPECT_EQ(files(temporary).count(fs::path(cache).filename()), 1u);
  for (const auto& entry : fs::directory_iterator(temporary)) EXPECT_EQ(entry.path(), cache) << "left behind";

  fs::remove_all(cache);
  fs::create_directory(cache);
  fs::permissions(cache, fs::perms::all);
  const Ran second = tune("second.db");
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_TRUE(fs::is_empty(cache)) << "anybody could have put objects there that would run";
  EXPECT_THAT(open_to_others, IsEmpty());
  for (const auto& entry : fs::directory_iterator(temporary)) EXPECT_EQ(entry.path(), cache) << "left behind";
}

}  // namespace
}  // namespace kgen
