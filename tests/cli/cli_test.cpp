// The commands from outside: exit codes, JSON that is one document, texts for people, and a tune that is stopped.
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/text.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;

// One database for all tests, tuned on the CPU: the example operator and a built-in one on shapes that take no time.
class Cli : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    for (const char* file : {"softcap.yaml", "softcap.h", "softcap_reference.h"})
      std::filesystem::copy_file(std::string(KGEN_SOURCE_DIR "/examples/my_op/") + file, *folder_ / file);
    folder_->write(
        "spec.yaml",
        "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: ./softcap.yaml\n    name: caps\n    problems: [{n: 4096}]\n"
        "    tune: {params: {threads: [64, 128], vec: [1, 4], items: [1]}}\n");
    folder_->write("gemm.yaml",
                   "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: gemm\n    problems: [{m: 16, n: 16, k: 16}]\n"
                   "    tune: {budget: 2}\n");
    tuned_ = new Ran(
        run_kgen({"tune", *folder_ / "spec.yaml", *folder_ / "gemm.yaml", "--device", "host", "--db", db(), "--json"}));
  }
  static void TearDownTestSuite() {
    delete folder_;
    delete tuned_;
  }
  static std::string db() { return *folder_ / "tuned.db"; }
  // Runs, expects success and one JSON document.
  static json run_json(std::vector<std::string> args) {
    args.push_back("--json");
    const Ran ran = run_kgen(args);
    EXPECT_EQ(ran.code, 0) << ran.err;
    json document = json::parse(ran.out, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << ran.out;
    return document;
  }

  static TempFolder* folder_;
  static Ran* tuned_;
};
TempFolder* Cli::folder_ = nullptr;
Ran* Cli::tuned_ = nullptr;

TEST_F(Cli, VersionAndHelpAreExit0) {
  EXPECT_EQ(run_kgen({"--version"}).out, "kgen " KGEN_VERSION "\n");
  const Ran help = run_kgen({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* command : {"tune", "gen", "compile", "inspect", "verify", "bench", "show", "lookup", "explain",
                              "doctor", "devices", "fold", "ops", "db", "report"}) {
    EXPECT_THAT(help.out, HasSubstr(std::string("\n  ") + command));
    const Ran own = run_kgen({command, "--help"});
    EXPECT_EQ(own.code, 0) << command;
    EXPECT_THAT(own.out, HasSubstr("Usage: kgen " + std::string(command)));
    EXPECT_THAT(own.err, IsEmpty());
  }
  EXPECT_EQ(run_kgen({}).code, 2);
}

TEST_F(Cli, TuneEndsWithWinnersAsOneJsonDocument) {
  ASSERT_EQ(tuned_->code, 0) << tuned_->err;
  const json document = json::parse(tuned_->out);
  ASSERT_EQ(document["rows"].size(), 2u);
  const json& row = document["rows"][0];
  EXPECT_EQ(row["op"], "softcap");
  EXPECT_EQ(row["label"], "caps");
  EXPECT_EQ(row["dims"], (json{{"n", 4096}}));
  EXPECT_GT(row["time_us"], 0);
  EXPECT_GE(row["gain"], 1.0);
  EXPECT_EQ(row["candidates"], 4);
  EXPECT_EQ(row["verified"], 4);
}

TEST_F(Cli, TuneResumesAndTheTableNamesTheWinner) {
  const auto before = run_json({"db", "info", db()})["trials"];
  const Ran again = run_kgen({"tune", *folder_ / "spec.yaml", "--device", "host", "--db", db()});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, AllOf(HasSubstr("softcap"), HasSubstr("n=4096"), HasSubstr("threads="), HasSubstr("gain")));
  EXPECT_EQ(run_json({"db", "info", db()})["trials"], before) << "what the database holds was tried again";
}

TEST_F(Cli, BudgetOnTheCommandLineReplacesTheSpecs) {
  const std::string small = *folder_ / "small.db";
  run_json({"tune", *folder_ / "gemm.yaml", "--device", "host", "--db", small, "--budget", "1"});
  EXPECT_EQ(run_json({"db", "info", small})["trials"], 1) << "the spec asks for 2";
}

TEST_F(Cli, ADynamicDimIsTunedShownAndLookedUp) {
  const std::string spec = folder_->write(
      "dynamic.yaml",
      "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: ./softcap.yaml\n    name: caps\n    problems: "
      "[{n: {range: [1000, 1012]}}]\n    tune: {params: {threads: [64, 128], vec: [1], items: [1]}, max_kernels: 2}\n");
  const std::string own = *folder_ / "dynamic.db";
  const json document = run_json({"tune", spec, "--device", "host", "--db", own});
  ASSERT_EQ(document["rows"].size(), 1u);
  const json& row = document["rows"][0];
  EXPECT_EQ(row["dims"], (json{{"n", {1000, 1012}}}));
  const json& cover = row["dynamic"];
  EXPECT_EQ(cover["sizes"].front(), 1000);
  EXPECT_EQ(cover["sizes"].back(), 1012);
  EXPECT_LE(cover["kernels"].size(), 2u);
  EXPECT_GE(cover["kernels"].size(), 1u);
  EXPECT_GE(cover["regret"]["worst"], cover["regret"]["mean"]);
  EXPECT_GE(cover["predicted_regret"]["worst"], cover["predicted_regret"]["mean"]);
  EXPECT_EQ(cover["spans"].front()["first"], 1000);
  EXPECT_EQ(cover["spans"].back()["last"], 1012);

  const Ran again = run_kgen({"tune", spec, "--device", "host", "--db", own});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out,
              AllOf(HasSubstr("n=1000..1012"), HasSubstr("predicted for others"), HasSubstr(" 0 candidates")));

  for (const char* n : {"n=1000", "n=1005", "n=1012"}) {
    const json answer = run_json({"lookup", own, "softcap", n, "dtype=fp32"});
    EXPECT_EQ(answer["match"], "dynamic");
    EXPECT_TRUE(answer["expected_loss"].is_number()) << answer;
    EXPECT_THAT(answer["reason"].get<std::string>(), HasSubstr("serves n="));
  }
  const json outside = run_json({"lookup", own, "softcap", "n=1013", "dtype=fp32"});
  EXPECT_EQ(outside["match"], "near");
  EXPECT_LT(outside["expected_loss"], 0.01);
  EXPECT_EQ(run_json({"show", own})["winners"][0]["serves"]["dim"], "n");
}

TEST_F(Cli, ShowPrintsTheWinnerInEveryFormat) {
  const json document = run_json({"show", db(), "--op", "softcap"});
  EXPECT_EQ(run_json({"show", db()})["winners"].size(), 2u);
  ASSERT_EQ(document["winners"].size(), 1u);
  EXPECT_EQ(document["winners"][0]["attributes"]["dtype"], "fp32");
  EXPECT_EQ(document["winners"][0]["dims"]["n"], 4096);
  const json ranked = run_json({"show", db(), "--op", "softcap", "--top", "3"});
  const json& candidates = ranked["winners"][0]["candidates"];
  ASSERT_THAT(candidates.size(), AnyOf(2u, 3u));
  EXPECT_EQ(candidates[0]["share_of_best"], 1.0);
  EXPECT_LE(candidates[0]["time_us"], candidates[1]["time_us"]);
  const Ran csv = run_kgen({"show", db(), "--format", "csv"});
  EXPECT_THAT(csv.out, HasSubstr("op,signature,dims"));
  EXPECT_THAT(csv.out, HasSubstr("softcap,softcap dtype=fp32,n=4096,caps,"));
  EXPECT_THAT(run_kgen({"show", db(), "--op", "nothing*"}).out, testing::Not(HasSubstr("softcap")));
}

TEST_F(Cli, WinnersAreShownAndLookedUpByTheirGoal) {
  const std::string goals = *folder_ / "goals.db";
  for (const char* timing : {"cold", "warm"})
    run_json({"tune", *folder_ / "spec.yaml", "--device", "host", "--db", goals, "--budget", "2", "--timing", timing,
              "--deterministic"});
  std::set<std::string> timings;
  const json shown = run_json({"show", goals});
  for (const json& winner : shown["winners"]) {
    timings.insert(winner["timing"]);
    EXPECT_EQ(winner["objective"], "time");
    EXPECT_EQ(winner["deterministic"], true);
    EXPECT_TRUE(winner["energy_uj"].is_null());
  }
  EXPECT_EQ(timings, (std::set<std::string>{"cold", "warm"}));
  EXPECT_THAT(run_kgen({"show", goals}).out, HasSubstr("warm time, deterministic"));
  const std::vector<std::string> ask = {"lookup", goals, "softcap", "n=4096", "--dtype", "fp32", "--arch", "host"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), ask.begin(), ask.end());
    return run_json(more);
  };
  EXPECT_EQ(with({})["timing"], "cold");
  const json warm = with({"--timing", "warm", "--deterministic"});
  EXPECT_EQ(warm["timing"], "warm");
  EXPECT_EQ(warm["deterministic"], true);
  EXPECT_EQ(warm["reason"], "tuned for this shape; deterministic");
  const json graph = with({"--timing", "graph", "--objective", "energy"});
  EXPECT_EQ(graph["match"], "exact");
  EXPECT_EQ(graph["timing"], "cold");
  EXPECT_THAT(graph["reason"].get<std::string>(), HasSubstr("as nothing that fits so well was tuned for graph energy"));
}

TEST_F(Cli, EnergyOfADeviceWithoutACounterIsExit3AndTunesNothing) {
  const std::string energy = *folder_ / "energy.db";
  const Ran ran =
      run_kgen({"tune", *folder_ / "gemm.yaml", "--device", "host", "--db", energy, "--objective", "energy"});
  EXPECT_EQ(ran.code, 3);
  EXPECT_THAT(ran.err, HasSubstr("no energy counter"));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  EXPECT_EQ(run_json({"db", "info", energy})["trials"], 0);
}

TEST_F(Cli, BenchTimesTheWinnersOfSeveralFilesInTurns) {
  const std::string other = *folder_ / "other.db";
  run_json({"tune", *folder_ / "gemm.yaml", "--device", "host", "--db", other, "--budget", "1"});
  const json document = run_json({"bench", db(), other, "--op", "gemm", "--device", "host", "--rounds", "9"});
  ASSERT_EQ(document["rows"].size(), 1u);
  const json& entries = document["rows"][0]["entries"];
  std::set<int> files;
  for (const json& entry : entries) {
    EXPECT_GT(entry["time_us"], 0);
    for (const json& file : entry["files"]) files.insert(file.get<int>());
  }
  EXPECT_EQ(files, (std::set<int>{0, 1}));
  EXPECT_EQ(entries[0]["over_best"], 1.0);
  const Ran table =
      run_kgen({"bench", db(), "--op", "softcap", "--own-op", *folder_ / "softcap.yaml", "--device", "host"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out, AllOf(HasSubstr("softcap"), HasSubstr("100.0%")));
}

TEST_F(Cli, LookupSaysHowItMatched) {
  const json exact = run_json({"lookup", db(), "softcap", "n=4096", "--dtype", "fp32", "--arch", "host"});
  EXPECT_EQ(exact["match"], "exact");
  EXPECT_EQ(exact["expected_loss"], 0);
  EXPECT_GT(exact["steps"][0]["grid"][0], 0);
  const json near = run_json({"lookup", db(), "softcap", "n=5000", "--dtype", "fp32", "--arch", "host"});
  EXPECT_EQ(near["match"], "near");
  EXPECT_THAT(near["reason"].get<std::string>(), HasSubstr("4096"));
  const Ran none = run_kgen({"lookup", db(), "softcap", "n=4096", "--dtype", "fp32", "--arch", "gfx90a"});
  EXPECT_NE(none.code, 0);
  const Ran typo = run_kgen({"lookup", db(), "softcap", "nn=4096", "--dtype", "fp32"});
  EXPECT_EQ(typo.code, 2);
}

// What the runtime would refuse is no hit.
TEST_F(Cli, DoctorPassesOverDamagedCodeObjects) {
  const std::string damaged = *folder_ / "doctor_damaged.db";
  auto content = read_file(db());
  ASSERT_TRUE(content);
  for (std::size_t at = 0; (at = content->find("\x28\xb5\x2f\xfd", at)) != std::string::npos; ++at)
    for (std::size_t i = at + 100; i < at + 108 && i < content->size(); ++i)
      (*content)[i] = static_cast<char>(~(*content)[i]);
  ASSERT_TRUE(write_file(damaged, *content));
  const std::string trace = folder_->write(
      "whole.jsonl",
      R"({"op": "gemm", "attributes": {"dtype": "fp32"}, "dims": {"m": 16, "n": 16, "k": 16}, "goal": "cold time", )"
      R"("arch": "host", "device": "", "kind": "exact", "reason": "", "expected_us": 10, "count": 5, "first": 1.5, )"
      R"("last": 2.5})"
      "\n");
  EXPECT_EQ(run_json({"doctor", db(), "--trace", trace})["shapes"][0]["match"], "exact");
  const json told = run_json({"doctor", damaged, "--trace", trace});
  EXPECT_EQ(told["shapes"][0]["match"], "none");
  EXPECT_EQ(told["calls_not_served"], 5);
}

TEST_F(Cli, DoctorSaysWhatAProgramLacksAndWritesTheSpecThatFillsIt) {
  const auto line = [](const std::string& dims, const std::string& epilogue, const std::string& kind, int count) {
    return R"({"op": "gemm", "attributes": {"dtype": "fp32", "epilogue": ")" + epilogue + R"("}, "dims": )" + dims +
           R"(, "goal": "cold time", "arch": "host", "device": "", "kind": ")" + kind +
           R"(", "reason": "", "expected_us": 10, "count": )" + std::to_string(count) +
           R"(, "first": 1.5, "last": 2.5})" + "\n";
  };
  const std::string tuned = *folder_ / "doctor.db";
  std::filesystem::copy_file(db(), tuned);
  const std::string trace =
      folder_->write("program.jsonl", line(R"({"m": 16, "n": 16, "k": 16})", "", "near", 100) +
                                          line(R"({"m": 24, "n": 16, "k": 16})", "", "near", 30) +
                                          line(R"({"m": 24, "n": 16, "k": 16})", "", "near", 12) +
                                          line(R"({"m": 16, "n": 16, "k": 16})", "bias,silu", "none", 3));
  const json before = run_json({"doctor", tuned, "--trace", trace});
  ASSERT_EQ(before["shapes"].size(), 3u);
  EXPECT_EQ(before["shapes"][0]["match"], "none") << "what nothing serves comes first";
  EXPECT_EQ(before["shapes"][1]["match"], "near");
  EXPECT_EQ(before["shapes"][1]["calls"], 42) << "lines of one shape are added up";
  EXPECT_GT(before["shapes"][1]["at_stake_us"], 0);
  EXPECT_EQ(before["shapes"][2]["match"], "exact") << "the database has what the trace did not find";
  EXPECT_EQ(before["calls_not_served"], 3);
  EXPECT_EQ(before["spec"], *folder_ / "program.yaml");
  EXPECT_THAT(*read_file(*folder_ / "program.yaml"), AllOf(HasSubstr("epilogue: [bias, silu]"), HasSubstr("m: 24")));

  // With the spec and no other edit nothing is left.
  run_json({"tune", *folder_ / "program.yaml", "--device", "host", "--db", tuned, "--budget", "1"});
  const json after = run_json({"doctor", tuned, "--trace", trace});
  for (const json& shape : after["shapes"]) EXPECT_EQ(shape["match"], "exact");
  EXPECT_TRUE(after["spec"].is_null());

  // Without a database the trace itself tells how it was served.
  const Ran alone = run_kgen({"doctor", trace, "-o", *folder_ / "alone.yaml"});
  EXPECT_EQ(alone.code, 0) << alone.err;
  EXPECT_THAT(alone.out, AllOf(HasSubstr("100.0% near"), HasSubstr("kgen tune ")));
  const Ran bad = run_kgen({"doctor", folder_->write("bad.jsonl", line("{}", "", "near", 1) + "{}\n")});
  EXPECT_EQ(bad.code, 2);
  EXPECT_THAT(bad.err, HasSubstr("bad.jsonl:2:1: not a line of a trace"));
  EXPECT_EQ(run_kgen({"doctor", "/no/such/file"}).code, 2);
}

// A norm's eps is no part of the problem's identity, yet the winner was compiled and tuned with it.
TEST_F(Cli, VerifyUsesTheScalarsThatAWinnerWasTunedWith) {
  const std::string spec = *folder_ / "norm.yaml", tuned = *folder_ / "norm.db";
  ASSERT_TRUE(write_file(
      spec,
      "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: rmsnorm\n    problems: [{rows: 4, cols: 64, eps: 0.25}]\n"));
  run_json({"tune", spec, "--device", "host", "--db", tuned, "--budget", "1"});
  const json winners = run_json({"verify", tuned, "--device", "host"});
  EXPECT_EQ(winners["failed"], 0) << winners.dump();
  EXPECT_GE(winners["passed"], 1);
}

TEST_F(Cli, VerifyChecksWinnersAndSingleCandidates) {
  const json winners = run_json({"verify", db(), "--device", "host", "--own-op", *folder_ / "softcap.yaml"});
  EXPECT_GE(winners["passed"], 2);
  EXPECT_EQ(winners["failed"], 0);
  const json one =
      run_json({"verify", *folder_ / "spec.yaml", "--config", "threads=64,vec=1,items=1", "--device", "host"});
  EXPECT_EQ(one["passed"], 1);
  EXPECT_THAT(one["rows"][0]["config"].get<std::string>(), HasSubstr("threads=64"));
  const json each = run_json({"verify", *folder_ / "gemm.yaml", "--config", "*", "--device", "host"});
  std::set<std::string> variants;  // one row each, whatever order
  for (const json& row : each["rows"]) {
    const std::string config = row["config"];
    EXPECT_TRUE(variants.insert(config.substr(0, config.find(' '))).second) << config;
  }
  EXPECT_GE(variants.size(), 2u);
  EXPECT_EQ(each["passed"], variants.size());
  const Ran bad = run_kgen({"verify", *folder_ / "spec.yaml", "--config", "thraeds=64", "--device", "host"});
  EXPECT_EQ(bad.code, 2);
  EXPECT_THAT(bad.err, HasSubstr("threads"));
}

TEST_F(Cli, GenTellsAllThatALaunchNeeds) {
  const json document = run_json({"gen", *folder_ / "spec.yaml", "--arch", "host,gfx90a", "-o", *folder_ / "gen"});
  ASSERT_EQ(document["files"].size(), 8u);
  for (const json& file : document["files"]) {
    EXPECT_TRUE(std::filesystem::exists(file["file"].get<std::string>()));
    EXPECT_EQ(file["steps"][0]["kernel"], "softcap");
    EXPECT_EQ(file["steps"][0]["grid"].size(), 3u);
    EXPECT_GT(file["steps"][0]["block"], 0);
    EXPECT_EQ(file["arguments"][0]["name"], "x");
    EXPECT_EQ(file["arguments"][0]["role"], "in");
    EXPECT_EQ(file["arguments"][0]["shape"], json({4096}));
    EXPECT_EQ(file["arguments"][1]["role"], "out");
    EXPECT_EQ(file["workspace_bytes"], 0);
  }
  EXPECT_EQ(run_json({"gen", *folder_ / "spec.yaml", "--arch", "host", "-o", *folder_ / "few", "--limit", "2"})["files"]
                .size(),
            2u);
  std::map<std::string, int> of_variant;
  const json each =
      run_json({"gen", *folder_ / "gemm.yaml", "--arch", "gfx90a", "-o", *folder_ / "each", "--per-variant", "2"});
  for (const json& file : each["files"]) {
    const std::string config = file["config"];
    ++of_variant[config.substr(0, config.find(' '))];
  }
  EXPECT_GE(of_variant.size(), 2u);
  for (const auto& [variant, count] : of_variant) EXPECT_THAT(count, AllOf(testing::Ge(1), testing::Le(2))) << variant;
}

TEST_F(Cli, GeneratedSourcesCompileAndInspect) {
  const json document =
      run_json({"gen", *folder_ / "spec.yaml", "--arch", "host", "-o", *folder_ / "one", "--limit", "1", "--compile"});
  EXPECT_EQ(document["archs"]["host"]["compiled"], 1);
  EXPECT_EQ(document["archs"]["host"]["failed"], 0);
  const std::string object = document["files"][0]["object"];
  EXPECT_TRUE(std::filesystem::exists(object));
  const json compiled =
      run_json({"compile", document["files"][0]["file"], "--arch", "host", "-o", *folder_ / "again.so"});
  EXPECT_EQ(compiled["kind"], "host");
  const json inspected = run_json({"inspect", *folder_ / "again.so", object});
  ASSERT_EQ(inspected["files"].size(), 2u);
  EXPECT_EQ(inspected["files"][0]["kernels"][0]["kernel"], "softcap");
  const Ran broken = run_kgen({"compile", folder_->write("broken.hip", "int f() { return undeclared; }\n"), "--arch",
                               "host", "-o", *folder_ / "broken.so"});
  EXPECT_EQ(broken.code, 1);
  EXPECT_THAT(broken.err, HasSubstr("undeclared"));
  EXPECT_FALSE(std::filesystem::exists(*folder_ / "broken.so"));
}

TEST_F(Cli, InspectEstimatesHowBusyTheMatrixUnitIs) {
  const std::string loop = folder_->write(
      "loop.s",
      "\t.amdgcn_target \"amdgcn-amd-amdhsa--gfx942\"\nk:\n.L1:\n\tv_mfma_f32_32x32x8_f16 v[0:15], v[16:17], v[18:19], "
      "v[0:15]\n\ts_cbranch_scc1 .L1\n");
  const Ran without = run_kgen({"inspect", "--mca", loop}, {.environment = {"PATH=/nowhere"}});
  EXPECT_EQ(without.code, 3);
  EXPECT_THAT(without.err, HasSubstr("Debian: llvm-19"));
  EXPECT_EQ(run_kgen({"inspect", loop}).code, 2) << "an assembly has no resources to read";
  const Ran text = run_kgen({"inspect", "--mca", loop});
  if (text.code == 3) GTEST_SKIP() << text.err;
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, AllOf(HasSubstr("estimates by LLVM's machine model"), HasSubstr("gfx942")));
  const json told = run_json({"inspect", "--mca", loop})["files"][0]["kernels"][0];
  EXPECT_EQ(told["matrix_instructions"], 1);
  EXPECT_EQ(told["matrix_cycles"], 8);
  EXPECT_GT(told["matrix_share"], 0);
  EXPECT_EQ(run_kgen({"inspect", "--mca", db()}).code, 2);
}

TEST_F(Cli, DevicesAlwaysHaveTheHost) {
  const json document = run_json({"devices"});
  ASSERT_FALSE(document["devices"].empty());
  EXPECT_EQ(document["devices"].back()["id"], "host");
}

TEST_F(Cli, OpsListsTheBuiltInOnesAndShowsOne) {
  const json all = run_json({"ops"});
  std::vector<std::string> names;
  for (const json& op : all["ops"]) names.push_back(op["op"]);
  EXPECT_THAT(names, testing::IsSupersetOf({"gemm", "conv3d_patchify"}));
  const json gemm = run_json({"ops", "gemm"});
  EXPECT_EQ(gemm["attributes"][0]["name"], "dtype");
  EXPECT_FALSE(gemm["variants"].empty());
  EXPECT_EQ(run_kgen({"ops", "gmem"}).code, 2);
  EXPECT_THAT(run_kgen({"ops", "gmem"}).err, HasSubstr("did you mean 'gemm'?"));
}

TEST_F(Cli, DbCheckFindsADamagedCodeObjectAndLookupDoesNotHideIt) {
  EXPECT_TRUE(run_json({"db", "check", db()})["clean"]);
  const std::string copy = *folder_ / "damaged.db";
  auto content = read_file(db());
  ASSERT_TRUE(content);
  int damaged = 0;  // inside every zstd frame: some of them are left over in free pages
  for (std::size_t at = 0; (at = content->find("\x28\xb5\x2f\xfd", at)) != std::string::npos; ++at, ++damaged)
    for (std::size_t i = at + 100; i < at + 108 && i < content->size(); ++i)
      (*content)[i] = static_cast<char>(~(*content)[i]);
  ASSERT_GT(damaged, 0);
  ASSERT_TRUE(write_file(copy, *content));
  const Ran check = run_kgen({"db", "check", copy});
  EXPECT_EQ(check.code, 1) << check.out << check.err;
  EXPECT_THAT(check.out + check.err, HasSubstr("object"));
  const Ran verify = run_kgen({"verify", copy, "--device", "host"});
  EXPECT_NE(verify.code, 0) << verify.out;
}

TEST_F(Cli, DbCheckBringsAnOldFileUpToDate) {
  const std::string path = *folder_ / "old.db";
  const auto old = read_file("tests/db/data/version1.db");
  ASSERT_TRUE(old);
  ASSERT_TRUE(write_file(path, *old));
  const Ran before = run_kgen({"show", path});
  EXPECT_EQ(before.code, 2);
  EXPECT_THAT(before.err, HasSubstr("kgen db check"));
  const Ran check = run_kgen({"db", "check", path});
  EXPECT_EQ(check.code, 0) << check.out << check.err;
  EXPECT_THAT(check.out, HasSubstr("was of schema 1, is up to date now"));
  EXPECT_EQ(run_kgen({"show", path}).code, 0) << "the advice of the refusal helps";
}

TEST_F(Cli, CtrlCLeavesAValidDatabase) {
  const TempFolder folder;
  const std::string spec = folder.write("spec.yaml",
                                        "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: gemm\n"
                                        "    problems: [{m: [32, 64, 96, 128], n: 96, k: 96}]\n");
  const std::string path = folder / "tuned.db";
  const Ran ran = run_kgen({"tune", spec, "--device", "host", "--db", path}, {.while_running = [&](pid_t child) {
                             ::sleep(3);
                             ::kill(child, SIGINT);
                           }});
  EXPECT_EQ(ran.code, 130) << ran.err;
  const Ran check = run_kgen({"db", "check", path});
  EXPECT_EQ(check.code, 0) << check.out << check.err;
}

}  // namespace
}  // namespace kgen
