// Recorded search spaces from outside: kgen simulate, kgen db export and import.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// A Kernel Tuner cache of 8 x 8 configurations; the least time is at a = 16, b = 5.
std::string cache(double scale) {
  json cache = json::object();
  for (int a = 0; a < 8; ++a)
    for (int b = 1; b <= 8; ++b) {
      json record{{"a", 1 << a}, {"b", b}, {"times", {1.5, 2.5}}, {"compile_time", 100}};
      record["time"] =
          a == 7 ? json("CompilationFailedConfig") : json(scale * (1 + std::abs(a - 4) + 0.2 * std::abs(b - 5)));
      record["timestamp"] = "2024-01-02 03:04:05.678000+00:00";
      cache[std::to_string(1 << a) + "," + std::to_string(b)] = record;
    }
  return json{{"device_name", "Card"},          {"kernel_name", "stencil"}, {"problem_size", {64, 64}},
              {"tune_params_keys", {"a", "b"}}, {"objective", "time"},      {"cache", cache}}
      .dump();
}

class SearchCli : public testing::Test {
 protected:
  json run_json(std::vector<std::string> args) {
    args.emplace_back("--json");
    const Ran ran = run_kgen(args);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return json::parse(ran.out, nullptr, false);
  }
  const TempFolder folder_;
  const std::string space_ = folder_.write("space.json", cache(1)), other_ = folder_.write("other.json", cache(2.5));
};

TEST_F(SearchCli, SimulateTellsFractionsByEvaluations) {
  const std::vector<std::string> args{"simulate", space_,      "--strategy", "model",  "--budget",
                                      "50",       "--repeats", "4",          "--seed", "7"};
  const json result = run_json(args);
  for (const char* key : {"mean_fraction", "worst_fraction", "std"}) {
    ASSERT_TRUE(result.contains(key)) << key;
    EXPECT_EQ(result[key].size(), 2u);
    EXPECT_TRUE(result[key].contains("25") && result[key].contains("50")) << result[key];
  }
  EXPECT_EQ(result["mean_fraction"]["50"], 1.0);
  EXPECT_EQ(result["mean_fraction"], run_json(args)["mean_fraction"]);
}

TEST_F(SearchCli, SimulateWarmStartsFromOthersOnly) {
  const json cold = run_json({"simulate", space_, "--budget", "3", "--warm-start", space_});
  EXPECT_EQ(cold["spaces"][0]["sources"], 0);
  const json warm = run_json({"simulate", space_, "--budget", "3", "--warm-start", space_, other_});
  EXPECT_EQ(warm["spaces"][0]["sources"], 1);
  EXPECT_NEAR(warm["mean_fraction"]["3"].get<double>(), 1.0, 1e-12);
}

TEST_F(SearchCli, SimulateTellsTheExpectedLossAndHowManyRunsAreNearTheBest) {
  const json result = run_json({"simulate", space_, "--strategy", "model", "--budget", "40", "--repeats", "2"});
  EXPECT_LT(result["expected_loss"]["40"], 0.1);
  EXPECT_EQ(result["within_3_percent"]["40"], 1.0);
  EXPECT_TRUE(run_json({"simulate", space_, "--strategy", "random", "--budget", "9"})["expected_loss"]["9"].is_null());
}

TEST_F(SearchCli, APriorIsLearntFromDatabasesAndOnlyFromThose) {
  const std::string db = folder_ / "foreign.db";
  ASSERT_EQ(run_kgen({"db", "import", db, space_}).code, 0);
  const Ran foreign = run_kgen({"db", "prior", db, "-o", folder_ / "prior"});  // not an architecture that kgen knows
  EXPECT_EQ(foreign.code, 2);
  EXPECT_THAT(foreign.err, HasSubstr("nothing to learn from"));
  EXPECT_EQ(run_kgen({"db", "prior", db}).code, 2);
  EXPECT_EQ(run_json({"simulate", space_, "--budget", "5", "--prior", "shipped"})["spaces"][0]["prior"], 0);
}

TEST_F(SearchCli, SimulateRefusesWhatItDoesNotKnow) {
  EXPECT_EQ(run_kgen({"simulate", space_, "--strategy", "moddel"}).code, 2);
  const Ran missing = run_kgen({"simulate", folder_ / "none.json"});
  EXPECT_EQ(missing.code, 2);
  EXPECT_THAT(missing.err, HasSubstr("none.json"));
  EXPECT_EQ(run_kgen({"simulate", folder_.write("bad.json", "{\"cache\": 1}")}).code, 2);
}

TEST_F(SearchCli, ExportAndImportKeepEverything) {
  const std::string first = folder_ / "first.db", second = folder_ / "second.db";
  EXPECT_EQ(run_json({"db", "import", first, space_})["added"], 64);
  EXPECT_EQ(run_json({"db", "import", first, space_})["added"], 0);
  ASSERT_EQ(run_kgen({"db", "export", first, "--format", "t4", "-o", folder_ / "a.json"}).code, 0);
  EXPECT_EQ(run_json({"db", "import", second, folder_ / "a.json"})["added"], 64);
  const Ran again = run_kgen({"db", "export", second, "--format", "t4"});
  EXPECT_EQ(again.out, read_file(folder_ / "a.json").value());
  EXPECT_EQ(run_kgen({"db", "check", second}).code, 0);
  EXPECT_EQ(run_json({"simulate", second, "--budget", "64", "--repeats", "1"})["mean_fraction"]["64"], 1.0);
  const Ran csv = run_kgen({"db", "export", first, "--format", "csv"});
  EXPECT_EQ(std::count(csv.out.begin(), csv.out.end(), '\n'), 65);
  EXPECT_THAT(csv.out, HasSubstr("stencil,stencil,x=64 y=64,Card,,a=16 b=5,timed,1000,"));
}

}  // namespace
}  // namespace kgen
