#include "tuner/compile.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/text.h"
#include "tests/compile/kernels.h"
#include "tuner/process.h"

namespace kgen {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Compile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = (fs::temp_directory_path() / "kgen-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    options_.cache_folder = path + "/cache";
    options_.self = fs::read_symlink("/proc/self/exe").string();
  }
  void TearDown() override {
    for (const auto& [name, value] : saved_) {
      if (value)
        ::setenv(name.c_str(), value->c_str(), 1);
      else
        ::unsetenv(name.c_str());
    }
    fs::remove_all(folder_);
  }

  void set_variable(const std::string& name, const std::string& value) {
    const char* before = std::getenv(name.c_str());
    saved_.emplace_back(name, before != nullptr ? std::optional<std::string>(before) : std::nullopt);
    ::setenv(name.c_str(), value.c_str(), 1);
  }

  // A program that stands in for a compiler: what it does after answering what compilers are asked about themselves.
  std::string fake_clang(const std::string& script) {
    const std::string path = (folder_ / "clang-fake").string();
    std::ofstream(path) << "#!/bin/sh\ncase \"$*\" in *--version*) echo 'fake clang version 99.1.2'; exit;; "
                           "*-print-supported-cpus*) echo gfx90a; exit;; esac\n"
                           "for last; do :; done\n"
                        << script << "\n";
    ::chmod(path.c_str(), 0755);
    set_variable("KGEN_CLANG", path);
    options_.force = "clang";
    return path;
  }

  CompileResult compile(const std::string& source, const std::string& arch) {
    auto compiler = make_compiler(options_);
    auto result = compiler->compile(source, *find_arch(arch));
    EXPECT_TRUE(result) << result.error().message;
    return result ? std::move(*result) : CompileResult{};
  }

  std::vector<fs::path> cache_files(const std::string& extension) const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "cache")) {
      if (entry.path().extension() == "." + extension) files.push_back(entry.path());
    }
    return files;
  }

  fs::path folder_;
  CompilerOptions options_;
  std::vector<std::pair<std::string, std::optional<std::string>>> saved_;
};

// Every arch of the table with its default driver and with each that may be forced on it.
struct Case {
  std::string arch, force;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.arch << " by " << (c.force.empty() ? "default" : c.force); }
class CompileEveryArch : public Compile, public ::testing::WithParamInterface<Case> {};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const ArchInfo& arch : all_archs()) {
    const std::string name(arch.name);
    all.push_back({name, ""});
    all.push_back({name, "clang"});
    if (arch.vendor == Vendor::kAmd) all.push_back({name, "hipcc"});
    if (arch.vendor == Vendor::kNvidia) all.insert(all.end(), {{name, "nvrtc"}, {name, "nvcc"}});
    if (arch.vendor == Vendor::kHost) all.push_back({name, "g++"});
  }
  return all;
}

TEST_P(CompileEveryArch, CompilesASmallKernel) {
  options_.force = GetParam().force;
  const Arch arch = *find_arch(GetParam().arch);
  auto compiler = make_compiler(options_);
  auto result = compiler->compile(testing::saxpy_source(), arch);
  if (!result && result.error().kind == ErrorKind::kNoCompiler) GTEST_SKIP() << "not run: " << result.error().message;
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(result->status, CompileStatus::kCompiled) << result->log << result->command;
  EXPECT_EQ(result->log, "");
  ASSERT_EQ(result->code.kernels.size(), 1u);
  EXPECT_EQ(result->code.kernels[0].kernel, "saxpy");
  EXPECT_EQ(result->code.hash, hash_bytes(result->code.bytes));
  EXPECT_EQ(result->code.compiler, *compiler->version(arch));
  EXPECT_TRUE(std::isdigit(result->code.compiler.back())) << result->code.compiler;
  EXPECT_GT(result->code.compile_seconds, 0);
  const std::string_view kind = code_kind(result->code.bytes);
  switch (arch->vendor) {
    case Vendor::kHost:
      EXPECT_EQ(kind, "host");
      break;
    case Vendor::kAmd:
      EXPECT_EQ(kind, "elf-amdgpu");
      break;
    case Vendor::kNvidia:
      EXPECT_EQ(kind, result->code.compiler.starts_with("clang") ? "ptx" : "cubin");
      break;
  }
  if (kind == "elf-amdgpu" || kind == "cubin") {
    EXPECT_GT(result->code.kernels[0].registers, 0);
    EXPECT_EQ(result->code.kernels[0].spills, 0);
    EXPECT_EQ(result->code.kernels[0].max_block, 256);
  }
}

INSTANTIATE_TEST_SUITE_P(All, CompileEveryArch, ::testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.arch + "_" + (info.param.force.empty() ? "default" : info.param.force);
  std::replace(name.begin(), name.end(), '+', 'x');
  return name;
});

TEST_F(Compile, TheHostObjectRuns) {
  const CompileResult result = compile(testing::saxpy_source(), "host");
  ASSERT_EQ(result.status, CompileStatus::kCompiled) << result.log;
  void* library = ::dlopen(result.code.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << ::dlerror();
  auto* entry = reinterpret_cast<void (*)(void**)>(::dlsym(library, "kgen_entry_saxpy"));
  ASSERT_NE(entry, nullptr);
  float y = 1, x = 3, a = 2;
  float *py = &y, *px = &x;
  int n = 1;
  void* params[] = {&py, &px, &a, &n};
  entry(params);
  EXPECT_EQ(y, 7);
  ::dlclose(library);
}

TEST_F(Compile, TheNewestClangIsPreferredForAmd) {
  auto compiler = make_compiler(options_);
  const auto version = compiler->version(*find_arch("gfx90a"));
  if (find_program("clang-19").empty()) GTEST_SKIP() << "not run: no clang-19";
  ASSERT_TRUE(version);
  EXPECT_THAT(*version, StartsWith("clang "));
  EXPECT_GE(std::atoi(version->c_str() + 6), 19);
}

class CompileErrors : public Compile, public ::testing::WithParamInterface<Case> {};
TEST_P(CompileErrors, CarryTheFirstErrorAndACommandThatRepeatsIt) {
  options_.force = GetParam().force;
  auto compiler = make_compiler(options_);
  const Arch arch = *find_arch(GetParam().arch);
  auto result = compiler->compile(
      std::string(testing::kDialect) + "KERNEL(64) k(int* p) {\n  *p = no_such_name;\n  *p = nor_this;\n}\n", arch);
  if (!result && result.error().kind == ErrorKind::kNoCompiler) GTEST_SKIP() << "not run: " << result.error().message;
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, CompileStatus::kFailed);
  EXPECT_THAT(first_error(result->log), HasSubstr("no_such_name"));
  EXPECT_THAT(first_error(result->log), StartsWith("kernel."));
  if (GetParam().force == "nvrtc") {  // this program has no subcommand `compile`
    EXPECT_THAT(result->command, HasSubstr(" compile "));
    EXPECT_THAT(result->command, HasSubstr(" --arch sm_90"));
    return;
  }
  // The command is for a person's shell, so a shell runs it here.
  const std::vector<std::string> argv = {"/bin/sh", "-c", result->command};
  const auto repeated = run_program(argv, {.folder = folder_.string()});
  ASSERT_TRUE(repeated);
  EXPECT_NE(repeated->code, 0);
  EXPECT_THAT(repeated->output, HasSubstr("no_such_name"));
  EXPECT_TRUE(cache_files("bin").empty()) << "a failure was cached";
}
INSTANTIATE_TEST_SUITE_P(Drivers, CompileErrors,
                         ::testing::Values(Case{"host", "g++"}, Case{"host", "clang"}, Case{"gfx90a", "clang"},
                                           Case{"gfx90a", "hipcc"}, Case{"sm_90", "nvrtc"}, Case{"sm_90", "nvcc"},
                                           Case{"sm_61", "clang"}),
                         [](const auto& info) {
                           std::string name = info.param.arch + "_" + info.param.force;
                           std::replace(name.begin(), name.end(), '+', 'x');
                           return name;
                         });

TEST_F(Compile, FirstErrorIsTheLineThatSaysError) {
  EXPECT_EQ(first_error("In file included\nkernel.hip:3:4: error: bad\nkernel.hip:5: error: worse\n"),
            "kernel.hip:3:4: error: bad");
  EXPECT_EQ(first_error("\n  something else\nmore"), "something else");
  EXPECT_EQ(first_error(""), "");
}

TEST_F(Compile, TheCacheAnswersTheSecondTimeWithTheSameObject) {
  const CompileResult first = compile(testing::resources_source(), "gfx90a");
  const CompileResult second = compile(testing::resources_source(), "gfx90a");
  ASSERT_EQ(second.status, CompileStatus::kCompiled);
  EXPECT_FALSE(first.code.from_cache);
  EXPECT_TRUE(second.code.from_cache);
  EXPECT_EQ(first.code.bytes, second.code.bytes);
  EXPECT_EQ(first.code.compile_seconds, second.code.compile_seconds);
  EXPECT_EQ(first.code.options, second.code.options);
  EXPECT_EQ(first.code.compiler, second.code.compiler);
  ASSERT_EQ(second.code.kernels.size(), 2u);
  EXPECT_EQ(first.code.kernels[0].spills, second.code.kernels[0].spills);
  EXPECT_EQ(*read_file(second.code.path),
            std::string(reinterpret_cast<const char*>(first.code.bytes.data()), first.code.bytes.size()));
}

TEST_F(Compile, TheCacheTellsSourcesArchsAndDriversApart) {
  compile(testing::saxpy_source(), "gfx90a");
  EXPECT_FALSE(compile(testing::saxpy_source() + "\n", "gfx90a").code.from_cache);
  EXPECT_FALSE(compile(testing::saxpy_source(), "gfx942").code.from_cache);
  if (find_program("hipcc").empty()) return;
  options_.force = "hipcc";
  EXPECT_FALSE(compile(testing::saxpy_source(), "gfx90a").code.from_cache);
}

TEST_F(Compile, ADamagedCacheEntryIsCompiledAgain) {
  const CompileResult good = compile(testing::saxpy_source(), "gfx90a");
  const auto damage = [&](const std::string& extension, const std::string& content) {
    for (const fs::path& file : cache_files(extension)) ASSERT_TRUE(write_file(file.string(), content));
    const CompileResult again = compile(testing::saxpy_source(), "gfx90a");
    EXPECT_FALSE(again.code.from_cache) << extension << ": " << content;
    EXPECT_EQ(again.code.hash, good.code.hash);
  };
  damage("bin", "");
  damage("bin", "half an object");
  damage("json", "");
  damage("json", "[1, 2");
  damage("json", R"({"hash": 3})");
  damage("json",
         R"({"hash": ")" + good.code.hash + R"(", "compiler": "c", "options": "o", "seconds": 1, "kernels": [["k"]]})");
  EXPECT_TRUE(compile(testing::saxpy_source(), "gfx90a").code.from_cache);
}

TEST_F(Compile, TheSameSourceGivesTheSameBytesEverywhere) {
  for (const char* arch : {"gfx90a", "gfx1100", "sm_90", "sm_61", "host"}) {
    const CompileResult first = compile(testing::saxpy_source(), arch);
    // Line numbers for sanitizer reports hold the folder's name.
    if (first.code.options.find("-fsanitize") != std::string::npos) continue;
    fs::remove_all(folder_ / "cache");
    EXPECT_EQ(compile(testing::saxpy_source(), arch).code.hash, first.code.hash) << arch;
  }
}

TEST_F(Compile, WithoutACacheFolderItStillCompiles) {
  options_.cache_folder = "/dev/null/cache";
  const CompileResult result = compile(testing::saxpy_source(), "gfx90a");
  EXPECT_EQ(result.status, CompileStatus::kCompiled);
  EXPECT_EQ(result.code.path, "");
}

TEST_F(Compile, TheCacheStaysBelowItsLimitAndKeepsWhatWasUsedLast) {
  const CompileResult first = compile(testing::saxpy_source(), "gfx90a");
  const auto entry = static_cast<std::int64_t>(first.code.bytes.size()) + 400;
  options_.cache_bytes = entry * 6;
  auto compiler = make_compiler(options_);
  const Arch arch = *find_arch("gfx90a");
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(compiler->compile(testing::saxpy_source() + "// " + std::to_string(i), arch));
    EXPECT_TRUE(compiler->compile(testing::saxpy_source(), arch)->code.from_cache)
        << "used last, yet removed after " << i;
  }
  std::int64_t total = 0;
  for (const char* extension : {"bin", "json"}) {
    for (const fs::path& file : cache_files(extension)) total += static_cast<std::int64_t>(fs::file_size(file));
  }
  EXPECT_LE(total, options_.cache_bytes + entry);
  EXPECT_FALSE(compiler->compile(testing::saxpy_source() + "// 0", arch)->code.from_cache);
}

TEST_F(Compile, ManyThreadsAndCompilersShareOneCache) {
  std::atomic<int> compiled = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      auto compiler = make_compiler(options_);
      for (int i = 0; i < 6; ++i) {
        const auto result =
            compiler->compile(testing::saxpy_source() + "// " + std::to_string(i % 3), *find_arch("gfx90a"));
        if (result && result->status == CompileStatus::kCompiled && hash_bytes(result->code.bytes) == result->code.hash)
          ++compiled;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(compiled, 24);
  EXPECT_EQ(cache_files("bin").size(), 3u);
}

TEST_F(Compile, ACompilerThatRunsAwayIsKilledAtTheTimeLimit) {
  fake_clang("sleep 100 & wait");
  options_.timeout_seconds = 0.3;
  const CompileResult result = compile(testing::saxpy_source(), "gfx90a");
  EXPECT_EQ(result.status, CompileStatus::kTimeout);
  EXPECT_THAT(first_error(result.log), HasSubstr("longer than 0.3 s"));
}

TEST_F(Compile, ARealTemplateThatNeverEndsIsATimeout) {
  options_.timeout_seconds = 1;
  options_.force = "g++";
  const CompileResult result = compile(
      "template <int a, int b> struct S { static constexpr long v = S<a - 1, b>::v + S<a - 1, b + 1>::v; };\n"
      "template <int b> struct S<0, b> { static constexpr long v = b; };\n"
      "long x = S<800, 0>::v + S<801, 1>::v + S<700, 2000>::v;\n",
      "host");
  EXPECT_EQ(result.status, CompileStatus::kTimeout) << result.log;
}

TEST_F(Compile, ACompilerThatCrashesIsAFailureWithItsSignal) {
  fake_clang("kill -SEGV $$");
  const CompileResult result = compile(testing::saxpy_source(), "gfx90a");
  EXPECT_EQ(result.status, CompileStatus::kFailed);
  EXPECT_THAT(first_error(result.log), HasSubstr("signal 11"));
}

TEST_F(Compile, ACompilerThatFailsSilentlyStillHasAReason) {
  fake_clang("exit 7");
  EXPECT_THAT(first_error(compile(testing::saxpy_source(), "gfx90a").log), HasSubstr("status 7"));
}

TEST_F(Compile, ACompilerThatLeavesNoObjectIsAFailure) {
  fake_clang("exit 0");
  const CompileResult result = compile(testing::saxpy_source(), "gfx90a");
  EXPECT_EQ(result.status, CompileStatus::kFailed);
  EXPECT_THAT(first_error(result.log), HasSubstr("left no object"));
}

TEST_F(Compile, HalfAnObjectIsAFailureAndIsNotCached) {
  const CompileResult good = compile(testing::saxpy_source(), "gfx90a");
  ASSERT_EQ(good.status, CompileStatus::kCompiled);
  fake_clang("head -c " + std::to_string(good.code.bytes.size() / 2) + " " + good.code.path + " > \"$last\"");
  const CompileResult result = compile(testing::saxpy_source(), "gfx90a");
  EXPECT_EQ(result.status, CompileStatus::kFailed);
  EXPECT_THAT(first_error(result.log), HasSubstr("broken object"));
  EXPECT_EQ(cache_files("bin").size(), 1u);
}

TEST_F(Compile, NoTemporaryFolderIsLeftBehind) {
  const fs::path temporary = folder_ / "tmp";
  fs::create_directory(temporary);
  set_variable("TMPDIR", temporary.string());
  compile(testing::saxpy_source(), "gfx90a");
  compile("broken", "gfx90a");
  fake_clang("touch left; sleep 100");
  options_.timeout_seconds = 0.2;
  compile(testing::saxpy_source(), "gfx90a");
  EXPECT_TRUE(fs::is_empty(temporary));
}

TEST_F(Compile, ADriverThatCannotDoTheArchIsNoCompiler) {
  for (const auto& [arch, force] : std::vector<std::pair<std::string, std::string>>{
           {"gfx90a", "g++"}, {"host", "nvrtc"}, {"sm_90", "hipcc"}, {"gfx90a", "nvcc"}}) {
    options_.force = force;
    const auto result = make_compiler(options_)->compile("", *find_arch(arch));
    ASSERT_FALSE(result) << arch << " " << force;
    EXPECT_EQ(result.error().kind, ErrorKind::kNoCompiler);
    EXPECT_THAT(result.error().message, HasSubstr(arch));
  }
  options_.force = "icc";
  EXPECT_EQ(make_compiler(options_)->compile("", *find_arch("host")).error().kind, ErrorKind::kBadInput);
}

TEST_F(Compile, NoCompilerAtAllIsSaidInOneLine) {
  set_variable("PATH", folder_.string());
  set_variable("CXX", "");
  set_variable("KGEN_CLANG", "no-such-clang");
  set_variable("KGEN_NVRTC", folder_.string());
  set_variable("CUDA_HOME", folder_.string());
  options_.self = "";
  for (const char* arch : {"host", "gfx90a"}) {
    const auto result = make_compiler(options_)->compile("", *find_arch(arch));
    ASSERT_FALSE(result) << arch;
    EXPECT_EQ(result.error().kind, ErrorKind::kNoCompiler);
    EXPECT_EQ(result.error().message.find('\n'), std::string::npos);
  }
}

class Nvrtc : public Compile {
 protected:
  void SetUp() override {
    Compile::SetUp();
    options_.force = "nvrtc";
    if (const auto version = make_compiler(options_)->version(*find_arch("sm_90")); !version)
      GTEST_SKIP() << "not run: " << version.error().message;
  }
  // Children of this process that are compile workers.
  static std::vector<pid_t> workers() {
    std::vector<pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const pid_t pid = std::atoi(entry.path().filename().c_str());
      if (pid <= 0) continue;
      const std::string line = read_file((entry.path() / "cmdline").string()).value_or("");
      const std::string stat = read_file((entry.path() / "stat").string()).value_or("");
      const std::string parent = " " + std::to_string(::getpid()) + " ";
      const std::size_t state = stat.rfind(") ");
      if (line.find("__compile-worker") != std::string::npos && state != std::string::npos &&
          stat.substr(state + 3, parent.size()) == parent)
        found.push_back(pid);
    }
    return found;
  }
};

TEST_F(Nvrtc, OneWorkerServesManyCompiles) {
  auto compiler = make_compiler(options_);
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(compiler->compile(testing::saxpy_source() + "// " + std::to_string(i), *find_arch("sm_90")));
  EXPECT_EQ(workers().size(), 1u);
  compiler.reset();
  EXPECT_TRUE(workers().empty());
}

TEST_F(Nvrtc, AWorkerThatIsKilledFailsOneCompileAtMost) {
  auto compiler = make_compiler(options_);
  ASSERT_TRUE(compiler->compile(testing::saxpy_source(), *find_arch("sm_90")));
  for (const pid_t pid : workers()) ::kill(pid, SIGKILL);
  const auto crashed = compiler->compile(testing::saxpy_source() + "// 1", *find_arch("sm_90"));
  ASSERT_TRUE(crashed);
  EXPECT_EQ(crashed->status, CompileStatus::kFailed);
  EXPECT_THAT(first_error(crashed->log), HasSubstr("signal 9"));
  const auto after = compiler->compile(testing::saxpy_source() + "// 2", *find_arch("sm_90"));
  ASSERT_TRUE(after);
  EXPECT_EQ(after->status, CompileStatus::kCompiled);
}

TEST_F(Nvrtc, ASourceThatNeverEndsIsATimeoutAndTheNextCompiles) {
  options_.timeout_seconds = 2;
  auto compiler = make_compiler(options_);
  const auto slow = compiler->compile(
      "constexpr long f(long n) { long s = 0; for (long i = 0; i < n; ++i) for (long j = 0; j < n; ++j) s += i ^ j; "
      "return s; }\n"
      "template <int n> struct S { static constexpr long v = f(900) + S<n - 1>::v; }; template <> struct S<0> { static "
      "constexpr long v = 0; };\n"
      "extern \"C\" __global__ void k(long* p) { *p = S<190>::v; }\n",
      *find_arch("sm_90"));
  ASSERT_TRUE(slow);
  EXPECT_EQ(slow->status, CompileStatus::kTimeout) << slow->log;
  const auto after = compiler->compile(testing::saxpy_source(), *find_arch("sm_90"));
  ASSERT_TRUE(after);
  EXPECT_EQ(after->status, CompileStatus::kCompiled) << after->log;
}

TEST_F(Nvrtc, AsManyWorkersAsJobs) {
  auto compiler = make_compiler(options_);
  std::atomic<int> compiled = 0;
  {
    CompilePool pool(*compiler, 3);
    for (int i = 0; i < 9; ++i) {
      pool.submit(testing::saxpy_source() + "// " + std::to_string(i), *find_arch("sm_90"),
                  [&](Result<CompileResult> result) {
                    if (result && result->status == CompileStatus::kCompiled) ++compiled;
                  });
    }
    while (pool.pending() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_LE(workers().size(), 3u);
    EXPECT_GE(workers().size(), 2u);
  }
  EXPECT_EQ(compiled, 9);
}

TEST_F(Nvrtc, WorkersThatWereMadeReadyCompileAndOneThatEndedMeanwhileIsReplaced) {
  auto compiler = make_compiler(options_);
  compiler->get_ready(find_arch("sm_90").value(), 2);
  ASSERT_EQ(workers().size(), 2u);
  const auto compile = [&](int i) {
    const auto result = compiler->compile(testing::saxpy_source() + "// " + std::to_string(i), *find_arch("sm_90"));
    return result && result->status == CompileStatus::kCompiled && !result->code.kernels.empty() &&
           result->code.kernels.front().kernel == "saxpy";
  };
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&, i] { good += compile(2 * i) + compile(2 * i + 1); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 4);
  EXPECT_EQ(workers().size(), 2u);
  compiler->get_ready(find_arch("sm_90").value(), 3);
  ASSERT_EQ(workers().size(), 3u);
  for (const pid_t pid : workers()) ::kill(pid, SIGKILL);
  std::vector<bool> compiled;
  for (int i = 4; i < 8; ++i) compiled.push_back(compile(i));
  EXPECT_EQ(std::count(compiled.begin(), compiled.end(), false), 2);  // those that had compiled before
  EXPECT_TRUE(compiled.back());
}

// Records what it is asked for; each compile takes as long as the test wants.
class FakeCompiler final : public Compiler {
 public:
  Result<CompileResult> compile(const std::string& source, Arch) override {
    const std::scoped_lock lock(mutex);
    started.push_back(source);
    return CompileResult{};
  }
  Result<std::string> version(Arch) override { return std::string("fake 1"); }
  std::mutex mutex;
  std::vector<std::string> started;
};

TEST(CompilePool, StartsInTheOrderOfSubmission) {
  FakeCompiler compiler;
  std::vector<std::string> wanted;
  {
    CompilePool pool(compiler, 1);
    for (int i = 0; i < 50; ++i) {
      wanted.push_back(std::to_string(i));
      pool.submit(wanted.back(), nullptr, [](const Result<CompileResult>&) {});
    }
    while (pool.pending() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(compiler.started, wanted);
}

TEST(CompilePool, StartsALowerTurnFirstWhateverWasSubmittedBefore) {
  FakeCompiler compiler;
  std::atomic<bool> first_runs = false, go = false;
  {
    CompilePool pool(compiler, 1);
    pool.submit("running", nullptr, [&](const Result<CompileResult>&) {
      first_runs = true;
      while (!go) std::this_thread::yield();
    });
    while (!first_runs) std::this_thread::yield();
    const auto ignore = [](const Result<CompileResult>&) {};
    pool.submit("2a", nullptr, ignore, 2);
    pool.submit("2b", nullptr, ignore, 2);
    pool.submit("1a", nullptr, ignore, 1);
    pool.submit("3", nullptr, ignore, 3);
    pool.submit("1b", nullptr, ignore, 1);
    go = true;
    while (pool.pending() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(compiler.started, (std::vector<std::string>{"running", "1a", "1b", "2a", "2b", "3"}));
}

TEST(CompilePool, DropsWhatHasNotStartedAndWaitsForTheRest) {
  FakeCompiler compiler;
  std::atomic<int> done = 0;
  std::atomic<bool> first_runs = false, go = false;
  std::thread opener;
  {
    CompilePool pool(compiler, 1);
    pool.submit("first", nullptr, [&](const Result<CompileResult>&) {
      first_runs = true;
      while (!go) std::this_thread::yield();
      ++done;
    });
    for (int i = 0; i < 10; ++i) pool.submit("never", nullptr, [&](const Result<CompileResult>&) { ++done; });
    while (!first_runs) std::this_thread::yield();
    EXPECT_EQ(pool.pending(), 11);
    opener = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      go = true;
    });
  }
  opener.join();
  EXPECT_EQ(done, 1);
}

}  // namespace
}  // namespace kgen
