// `kgen explain` from outside: it tells the same choice as `kgen lookup`, and what led to it.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/text.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class Explain : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    for (const char* file : {"softcap.yaml", "softcap.h", "softcap_reference.h"})
      std::filesystem::copy_file(std::string(KGEN_SOURCE_DIR "/examples/my_op/") + file, *folder_ / file);
    folder_->write("spec.yaml",
                   "kgen: 1\ndefaults: {dtype: fp32}\nops:\n"
                   "  - {op: gemm, problems: [{m: [8, 16, 64], n: 16, k: 16}], tune: {budget: 3}}\n"
                   "  - op: ./softcap.yaml\n    problems: [{n: 4096}]\n"
                   "    tune: {params: {threads: [64, 128], vec: [1], items: [1]}}\n");
    const Ran tuned = run_kgen({"tune", *folder_ / "spec.yaml", "--device", "host", "--db", db()});
    ASSERT_EQ(tuned.code, 0) << tuned.err;
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string db() { return *folder_ / "tuned.db"; }
  static json explain(std::vector<std::string> args, int code = 0) {
    args.insert(args.begin(), "explain");
    args.insert(args.end(), {"--arch", "host", "--json"});
    const Ran ran = run_kgen(args);
    EXPECT_EQ(ran.code, code) << ran.err;
    json document = json::parse(ran.out, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << ran.out;
    return document;
  }

  static TempFolder* folder_;
};
TempFolder* Explain::folder_ = nullptr;

TEST_F(Explain, AnExactMatchNamesItsRaceAndThatItIsUpToDate) {
  const json told = explain({db(), "gemm", "m=16", "n=16", "k=16", "dtype=fp32"});
  EXPECT_EQ(told["match"], "exact");
  ASSERT_FALSE(told["considered"].empty());
  EXPECT_EQ(told["considered"][0]["as"], "exact");
  EXPECT_TRUE(told["considered"][0]["serves"]);
  EXPECT_EQ(told["considered"][0]["config"], told["config"]);
  EXPECT_EQ(told["chain"][0]["arch"], "host");
  EXPECT_GT(told["chain"][0]["kernels"], 0);
  EXPECT_EQ(told["winner"]["config"], told["config"]);
  EXPECT_EQ(told["winner"]["candidates"], 3);
  EXPECT_EQ(told["winner"]["timing"], "cold");
  EXPECT_GT(told["winner"]["gain_over_default"], 0);
  EXPECT_EQ(told["stale"], json::array()) << "it was tuned by this very program";
  EXPECT_GT(told["advice"]["not_tried"], 0);
  EXPECT_THAT(told["advice"]["command"].get<std::string>(), HasSubstr("--budget "));

  const Ran text = run_kgen({"explain", db(), "gemm", "m=16", "n=16", "k=16", "dtype=fp32", "--arch", "host"});
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, AllOf(HasSubstr("exact: tuned for this shape"), HasSubstr("3 candidates were tried"),
                              HasSubstr("up to date"), HasSubstr("kgen tune <(echo ")));
}

TEST_F(Explain, ANearMatchListsItsRivalsAsTheSearchRankedThem) {
  const std::vector<std::string> asked = {db(), "gemm", "m=24", "n=16", "k=16", "dtype=fp32"};
  const json told = explain(asked);
  EXPECT_EQ(told["match"], "near");
  std::vector<std::string> words = asked;
  words.insert(words.begin(), "lookup");
  words.insert(words.end(), {"--arch", "host", "--json"});
  const json answer = json::parse(run_kgen(words).out);
  EXPECT_EQ(told["config"], answer["config"]);
  EXPECT_EQ(told["reason"], answer["reason"]);
  double ranked = 0;
  std::size_t near = 0, serving = 0;
  for (const json& item : told["considered"]) {
    if (item["as"] != "near") continue;
    ++near;
    serving += item["serves"].get<bool>();
    EXPECT_GT(item["distance"], 0);
    EXPECT_GE(item["ranked_us"].get<double>(), item["expected_us"].get<double>()) << "distance counts";
    EXPECT_GE(item["ranked_us"].get<double>(), ranked) << "in the order in which they are tried";
    ranked = item["ranked_us"];
  }
  EXPECT_EQ(near, 3u) << told["considered"].dump(1);
  EXPECT_EQ(serving, 1u);
  EXPECT_GT(told["expected_loss"], 0);
  EXPECT_GT(told["expected_us"], 0);
}

// The command is what a user pastes into a shell; here its spec goes through a file.
TEST_F(Explain, ItsCommandGivesTheShapeAKernelOfItsOwn) {
  const json before = explain({db(), "gemm", "m=40", "n=16", "k=16", "dtype=fp32", "epilogue=bias,silu"}, 1);
  EXPECT_EQ(before["match"], "none");
  const std::string command = before["advice"]["command"];
  const std::size_t from = command.find("echo '") + 6, to = command.find("')", from);
  ASSERT_NE(to, std::string::npos) << command;
  EXPECT_THAT(command.substr(to), AllOf(HasSubstr("--db " + db()), HasSubstr("--device host")));
  const std::string tuned = *folder_ / "own.db";
  std::filesystem::copy_file(db(), tuned);
  const Ran tune = run_kgen({"tune", folder_->write("own.yaml", command.substr(from, to - from)), "--db", tuned,
                             "--device", "host", "--budget", "1"});
  ASSERT_EQ(tune.code, 0) << tune.err;
  const json after = explain({tuned, "gemm", "m=40", "n=16", "k=16", "dtype=fp32", "epilogue=bias,silu"});
  EXPECT_EQ(after["match"], "exact");
}

TEST_F(Explain, WhereAllWasTriedNothingIsLeftToDo) {
  const std::string tuned = *folder_ / "all.db";
  const std::string spec = folder_->write(
      "all.yaml", "kgen: 1\nops: [{op: gemm, dtype: fp32, problems: [{m: 8, n: 16, k: 16}], tune: {budget: 100}}]\n");
  std::filesystem::copy_file(db(), tuned);
  ASSERT_EQ(run_kgen({"tune", spec, "--db", tuned, "--device", "host"}).code, 0);
  const json told = explain({tuned, "gemm", "m=8", "n=16", "k=16", "dtype=fp32"});
  EXPECT_EQ(told["advice"]["not_tried"], 0);
  EXPECT_TRUE(told["advice"]["command"].is_null());
}

TEST_F(Explain, AnOperatorThatWasChangedSinceIsStale) {
  const std::string own = *folder_ / "softcap.yaml";
  const std::vector<std::string> asked = {db(), "softcap", "n=4096", "dtype=fp32", "--own-op", own};
  const json fresh = explain(asked);
  EXPECT_EQ(fresh["stale"], json::array());
  const auto header = read_file(*folder_ / "softcap.h");
  ASSERT_TRUE(header && write_file(*folder_ / "softcap.h", *header + "// another line\n"));
  const json stale = explain(asked);
  ASSERT_TRUE(write_file(*folder_ / "softcap.h", *header));
  ASSERT_EQ(stale["stale"].size(), 2u) << "definition and source";
  EXPECT_THAT(stale["advice"]["command"].get<std::string>(), HasSubstr("PATH/softcap.yaml"));
  const json unknown = explain({db(), "softcap", "n=4096", "dtype=fp32"});
  EXPECT_EQ(unknown["match"], "exact") << "without its definition it is still explained";
}

TEST_F(Explain, ADamagedCodeObjectIsRefusedAsTheRuntimeDoes) {
  const std::string copy = *folder_ / "damaged.db";
  auto content = read_file(db());
  ASSERT_TRUE(content);
  for (std::size_t at = 0; (at = content->find("\x28\xb5\x2f\xfd", at)) != std::string::npos; ++at)
    for (std::size_t i = at + 100; i < at + 108 && i < content->size(); ++i)
      (*content)[i] = static_cast<char>(~(*content)[i]);
  ASSERT_TRUE(write_file(copy, *content));
  const json told = explain({copy, "gemm", "m=16", "n=16", "k=16", "dtype=fp32"}, 1);
  EXPECT_EQ(told["match"], "none");
  EXPECT_TRUE(told["considered"][0]["tried"]);
  EXPECT_FALSE(told["considered"][0]["serves"]);
  EXPECT_THAT(told["considered"][0]["refused"].get<std::string>(), testing::Not(testing::IsEmpty()));
}

// A program that replays graphs is helped by winners for graphs alone, so the line that doctor and explain give says
// so.
TEST_F(Explain, TheCommandAsksForTheGoalThatWasAskedFor) {
  const json told =
      explain({db(), "gemm", "m=40", "n=16", "k=16", "dtype=fp32", "--timing", "graph", "--deterministic"});
  EXPECT_THAT(told["advice"]["command"].get<std::string>(), HasSubstr(" --timing graph --deterministic"));
  const std::string trace = folder_->write(
      "graph.jsonl",
      R"({"op": "gemm", "attributes": {"dtype": "fp32"}, "dims": {"m": 40, "n": 16, "k": 16}, "goal": "graph time", )"
      R"("arch": "host", "device": "", "kind": "near", "reason": "", "expected_us": 10, "count": 3, "first": 1, "last": 2})"
      "\n");
  const Ran doctor = run_kgen({"doctor", db(), "--trace", trace, "--json"});
  ASSERT_EQ(doctor.code, 0) << doctor.err;
  EXPECT_THAT(json::parse(doctor.out)["command"].get<std::string>(), HasSubstr(" --timing graph"));
}

TEST_F(Explain, WhatCannotBeAskedIsBadInput) {
  EXPECT_EQ(run_kgen({"explain", db(), "gem", "m=16"}).code, 2);
  EXPECT_THAT(run_kgen({"explain", db(), "gemm", "mm=16", "dtype=fp32"}).err, HasSubstr("did you mean 'm'"));
  EXPECT_EQ(run_kgen({"explain", db(), "gemm", "m=-1", "dtype=fp32"}).code, 2);
  EXPECT_EQ(run_kgen({"explain", db(), "gemm", "m=16", "--arch", "gfx943"}).code, 2);
  EXPECT_EQ(run_kgen({"explain", "/no/such.db", "gemm", "m=16"}).code, 2);
  EXPECT_EQ(run_kgen({"explain"}).code, 2);
  EXPECT_EQ(run_kgen({"explain", db(), "gemm", "m=16", "n=16", "k=16", "dtype=fp32", "--own-op", "/no/such.yaml"}).code,
            2);
}

}  // namespace
}  // namespace kgen
