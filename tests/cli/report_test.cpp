// `kgen report` from outside; the page itself is tried by page_test.mjs in a headless browser, where there is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/text.h"
#include "db/db.h"
#include "tests/cli/run_kgen.h"
#include "tests/db/records.h"

namespace kgen {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kTag = "<img src=x onerror=alert(1)>", kScript = "</script><script>alert(1)</script>";

// Two files: one tuned on the CPU, and one made by hand, with two devices, 10,000 trials of one problem, and texts that
// mean something in HTML.
class ReportTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    const std::string spec = folder_->write("gemm.yaml",
                                            "kgen: 1\ndefaults: {dtype: fp32}\nops:\n  - op: gemm\n    problems: "
                                            "[{m: [16, 32], n: 16, k: 16}]\n    tune: {budget: 4}\n");
    const Ran tuned = run_kgen({"tune", spec, "--device", "host", "--db", *folder_ / "tuned.db", "--json"});
    ASSERT_EQ(tuned.code, 0) << tuned.err;
    make(*folder_ / "made.db");
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::int64_t problem(Db& db, const std::string& op, int size) {
    OpRecord record = testing::sample_op();
    record.op = op;
    record.signature = op + " b_layout=nk dtype=bf16";
    return db.intern_problem(record, testing::sample_problem(size)).value();
  }
  static void make(const std::string& path) {
    Db db = Db::open(path, DbMode::kReadWrite).value();
    const std::int64_t twice = problem(db, "twice", 1);
    for (const double time_us : {20.0, 10.0}) {
      const std::int64_t device =
          db.intern_device(testing::sample_device(time_us > 15 ? "<b>Card</b>" : "Card 2")).value();
      TrialRecord trial = testing::sample_trial(twice, device);
      trial.time_us = time_us;
      const ObjectRecord object = testing::sample_object("code");
      const std::int64_t id = db.record(trial).value();
      ASSERT_TRUE(db.publish(testing::sample_winner(twice, device, id, object), object));
    }
    const std::int64_t device = db.intern_device(testing::sample_device("Card 2")).value();
    const std::int64_t many = problem(db, "many", 2);
    std::vector<TrialRecord> trials;
    for (int i = 0; i < 9'999; ++i) {
      const TrialStatus status = i % 10 == 3 ? TrialStatus::kPruned : TrialStatus::kTimed;
      TrialRecord trial = testing::sample_trial(many, device, status);
      trial.config =
          "wide a=" + std::to_string(i % 10) + " b=" + std::to_string(i / 10 % 10) + " c=" + std::to_string(i / 100);
      trial.reason =
          status == TrialStatus::kPruned ? "spills: keeps " + std::to_string(i) + " registers in memory" : "";
      if (status == TrialStatus::kTimed) trial.time_us = 10.0 + (i % 10) + 0.1 * (i / 10 % 10) + 0.01 * (i % 83);
      trials.push_back(trial);
    }
    ASSERT_TRUE(db.record_all(trials));
    TrialRecord best = testing::sample_trial(many, device);
    best.config = "wide a=0 b=0 c=100";
    best.time_us = 9.5;
    const ObjectRecord object = testing::sample_object("code");
    ASSERT_TRUE(db.publish(testing::sample_winner(many, device, db.record(best).value(), object), object));
    TrialRecord hostile = testing::sample_trial(problem(db, kTag, 3), device, TrialStatus::kCrashed);
    hostile.reason = kScript;
    ASSERT_TRUE(db.record(hostile));
  }
  static std::string tuned() { return *folder_ / "tuned.db"; }
  static std::string made() { return *folder_ / "made.db"; }

  static TempFolder* folder_;
};
TempFolder* ReportTest::folder_ = nullptr;

TEST_F(ReportTest, TheDocumentHasEveryTrialAndTheSourceOfTheWinner) {
  const Ran ran = run_kgen({"report", tuned(), "--json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json document = json::parse(ran.out);
  ASSERT_EQ(document["problems"].size(), 2u);
  const json info = json::parse(run_kgen({"db", "info", tuned(), "--json"}).out);
  std::size_t trials = 0;
  for (const json& problem : document["problems"]) {
    trials += problem["trials"]["status"].size();
    ASSERT_EQ(problem["winners"].size(), 1u);
    const json& winner = problem["winners"][0];
    EXPECT_EQ(winner["source_note"], "");
    std::string source;
    for (const json& block : winner["source"])
      source += document["blocks"][block.get<std::size_t>()].get<std::string>() + "\n\n";
    EXPECT_THAT(source, HasSubstr(winner["kernels"][0].get<std::string>()));
    EXPECT_THAT(winner["repeat"][0].get<std::string>(), AllOf(HasSubstr("kgen verify <(echo "), HasSubstr("op: gemm")));
    EXPECT_FALSE(problem["trials"]["samples_ns"][winner["trial"].get<std::size_t>()].empty());
  }
  EXPECT_EQ(trials, info["trials"]);
}

TEST_F(ReportTest, AnOperatorThatIsNotBuiltInIsReportedWithoutItsSource) {
  const Ran ran = run_kgen({"report", made(), "--op", "twice", "--json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const json document = json::parse(ran.out);
  ASSERT_EQ(document["problems"].size(), 2u) << "one a device";
  const json& winner = document["problems"][0]["winners"][0];
  EXPECT_TRUE(winner["source"].is_null());
  EXPECT_THAT(winner["source_note"].get<std::string>(), HasSubstr("'twice' is not built in"));
}

TEST_F(ReportTest, WhatCannotBeReportedIsBadInput) {
  const std::string page = *folder_ / "none.html";
  Ran ran = run_kgen({"report", tuned(), "--op", "convolve", "-o", page});
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.err, HasSubstr("no trial in"));
  ran = run_kgen({"report", *folder_ / "absent.db", "-o", page});
  EXPECT_EQ(ran.code, 2);
  EXPECT_FALSE(std::filesystem::exists(page));
  EXPECT_FALSE(std::filesystem::exists(*folder_ / "absent.db"));
}

TEST_F(ReportTest, WithoutItsPageItSaysSo) {
  if (KGEN_HAS_PAGE) GTEST_SKIP() << "not run: this build has the page";
  const Ran ran = run_kgen({"report", tuned(), "-o", *folder_ / "none.html"});
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.err, AllOf(HasSubstr("without npm"), HasSubstr("--json")));
}

TEST_F(ReportTest, ThePageIsOneFileThatNamesNoOtherAndTextsCannotEndItsScripts) {
  if (!KGEN_HAS_PAGE) GTEST_SKIP() << "not run: built without npm, so there is no page";
  const std::string page = *folder_ / "page.html";
  const Ran ran = run_kgen({"report", made(), tuned(), "-o", page});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("page.html: 6 problems of 2 files"));
  const std::string text = read_file(page).value();
  EXPECT_THAT(text, AllOf(HasSubstr("default-src 'none'"), Not(HasSubstr(kScript)), Not(HasSubstr(kTag))));
  EXPECT_THAT(
      text, AllOf(Not(HasSubstr("<script src")), Not(HasSubstr("<link rel=\"stylesheet")), Not(HasSubstr("@import"))));
}

TEST_F(ReportTest, ThePageStandsRealClicksInABrowser) {
  if (!KGEN_HAS_PAGE) GTEST_SKIP() << "not run: built without npm, so there is no page";
  if (std::string(KGEN_CHROMIUM).empty()) GTEST_SKIP() << "not run: no Chromium to try the page of kgen report in";
  const std::string page = *folder_ / "clicked.html", log = *folder_ / "clicked.log";
  ASSERT_EQ(run_kgen({"report", made(), tuned(), "-o", page}).code, 0);
  const std::string line =
      std::string("'" KGEN_NODE "' '" KGEN_SOURCE_DIR "/tests/report/page_test.mjs' '" KGEN_BINARY_DIR
                  "/report/node_modules' '" KGEN_CHROMIUM "' '") +
      page + "' > '" + log + "' 2>&1";
  const int code = std::system(line.c_str());
  EXPECT_EQ(code, 0) << read_file(log).value();
}

}  // namespace
}  // namespace kgen
