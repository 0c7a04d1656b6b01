// Untimed defaults from outside: `kgen gen --db` makes them, and whatever shows them says that nobody timed them; the
// database that ships is the one of a command that names none.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "tests/cli/run_kgen.h"

namespace kgen {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class ShippedCli : public testing::Test {
 protected:
  static Ran gen(const std::string& file, const std::vector<std::string>& more = {}) {
    std::vector<std::string> args{"gen", spec(), "--arch", "gfx90a,gfx1201", "--db", file, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return run_kgen(args);
  }
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    folder_->write("spec.yaml",
                   "kgen: 1\ndefaults: {dtype: bf16}\nops:\n  - {op: rmsnorm, problems: [{rows: 4, cols: 256}]}\n"
                   "  - {op: silu_and_mul, problems: [{rows: [2, 8], cols: 64}]}\n");
    const Ran made = gen(db());
    ASSERT_EQ(made.code, 0) << made.err;
    const json told = json::parse(made.out);
    ASSERT_EQ(told["defaults"].size(), 6U);
    for (const json& row : told["defaults"]) EXPECT_EQ(row["reason"], "not timed, not run");
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string db() { return *folder_ / "untimed.db"; }
  static std::string spec() { return *folder_ / "spec.yaml"; }
  static json run_json(std::vector<std::string> args, const RunOptions& options = {}) {
    args.emplace_back("--json");
    const Ran ran = run_kgen(args, options);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return json::parse(ran.out, nullptr, false);
  }

  static TempFolder* folder_;
};
TempFolder* ShippedCli::folder_ = nullptr;

TEST_F(ShippedCli, TheFileIsCleanAndMakingItAgainAddsNothing) {
  EXPECT_EQ(run_kgen({"db", "check", db()}).code, 0);
  const json before = run_json({"db", "info", db()});
  EXPECT_EQ(before["trials_by_status"], (json{{"compiled", 6}}));
  EXPECT_EQ(before["winners"], 6);
  const std::string again = *folder_ / "again.db";
  std::filesystem::copy_file(db(), again);
  EXPECT_EQ(gen(again).code, 0);
  json after = run_json({"db", "info", again});
  after["db"] = before["db"];
  EXPECT_EQ(after, before);
  // Merged with itself it stays one row a shape.
  EXPECT_EQ(run_kgen({"db", "merge", db(), again, "-o", *folder_ / "union.db"}).code, 0);
  EXPECT_EQ(run_json({"db", "info", *folder_ / "union.db"})["winners"], 6);
}

TEST_F(ShippedCli, WhateverShowsThemSaysThatTheyAreUntimed) {
  const Ran table = run_kgen({"show", db()});
  EXPECT_THAT(table.out, AllOf(HasSubstr("untimed"), HasSubstr("any gfx90a"), HasSubstr("not timed, not run")));
  EXPECT_THAT(run_kgen({"show", db(), "--top", "3"}).out, HasSubstr("untimed"));
  const json shown = run_json({"show", db()});
  for (const json& row : shown["winners"]) {
    EXPECT_TRUE(row["untimed"]);
    EXPECT_EQ(row["status"], "compiled");
    EXPECT_TRUE(row["time_us"].is_null());
  }
  const std::vector<std::string> shape{"rmsnorm", "rows=4", "cols=256", "dtype=bf16", "--arch", "gfx90a"};
  const auto with = [&](std::initializer_list<std::string> head) {
    std::vector<std::string> args = head;
    args.insert(args.end(), shape.begin(), shape.end());
    return args;
  };
  EXPECT_THAT(run_kgen(with({"lookup", db()})).out,
              AllOf(HasSubstr("default: the operator's default for this shape, not timed, not run"),
                    HasSubstr("untimed default for")));
  const json found = run_json(with({"lookup", db()}));
  EXPECT_EQ(found["match"], "default");
  EXPECT_EQ(found["untimed"], "not timed, not run");
  EXPECT_TRUE(found["tuned_time_us"].is_null());
  EXPECT_THAT(run_kgen(with({"explain", db()})).out, AllOf(HasSubstr("untimed default"), HasSubstr("run on no card"),
                                                           Not(HasSubstr("why this kernel is the winner"))));
  EXPECT_TRUE(run_json(with({"explain", db()}))["winner"]["untimed"]);
  const json page = run_json({"report", db()});
  ASSERT_EQ(page["problems"].size(), 6U);
  for (const json& problem : page["problems"]) {
    EXPECT_TRUE(problem["winners"].empty());
    EXPECT_EQ(page["texts"][problem["trials"]["status"][0].get<std::size_t>()], "compiled");
  }
  // Neither a time nor a failure for who learns from the file.
  EXPECT_THAT(run_kgen({"db", "export", db(), "--format", "csv"}).out, Not(HasSubstr("rmsnorm")));
}

TEST_F(ShippedCli, WhatTheEmulatorSaidOfASourceIsToldAndAWrongOneIsLeftOut) {
  const json listed = run_json({"gen", spec(), "--arch", "gfx90a", "--per-variant", "1", "-o", *folder_ / "out"});
  std::string lines;
  for (const json& file : listed["files"]) {
    const bool wrong = file["op"] == "silu_and_mul";
    lines += json{{"arch", "gfx90a"},
                  {"source_hash", file["source_hash"]},
                  {"dims", {{"cols", 64}, {"rows", 2}}},
                  {"verdict", wrong ? "WRONG" : "right"},
                  {"reason", wrong ? "element 3" : ""}}
                 .dump() +
             "\n";
  }
  const std::string checked = folder_->write("checked.jsonl", lines), file = *folder_ / "checked.db";
  const Ran made = gen(file, {"--checked", checked});
  EXPECT_EQ(made.code, 1) << "silu_and_mul has no default left on gfx90a";
  EXPECT_THAT(made.err,
              AllOf(HasSubstr("silu_and_mul"), HasSubstr("gfx90a"), HasSubstr("wrong in the emulator: element 3")));
  const json shown = run_json({"show", file});
  for (const json& row : shown["winners"]) {
    EXPECT_FALSE(row["arch"] == "gfx90a" && row["op"] == "silu_and_mul");
    EXPECT_EQ(row["reason"], row["arch"] == "gfx90a" ? "not timed; right in an instruction emulator at cols=64 rows=2"
                                                     : "not timed, not run");
  }
  const Ran bad = gen(file, {"--checked", folder_->write("bad.jsonl", "\n{\"arch\": 1}\n")});
  EXPECT_EQ(bad.code, 2);
  EXPECT_THAT(bad.err, HasSubstr("bad.jsonl:2:1: not a line of"));
  EXPECT_EQ(run_kgen({"gen", spec(), "--arch", "gfx90a", "--checked", checked}).code, 2);
}

TEST_F(ShippedCli, ACommandThatNamesNoDatabaseAsksTheOneThatShips) {
  const RunOptions shipped{.environment = {"KGEN_SHIPPED_DB=" + db()}};
  EXPECT_EQ(run_json({"show"}, shipped)["db"], db());
  EXPECT_EQ(run_json({"db", "info"}, shipped)["db"], db());
  const json found =
      run_json({"lookup", "silu_and_mul", "rows=2", "cols=64", "dtype=bf16", "--arch", "gfx1201"}, shipped);
  EXPECT_EQ(found["db"], db());
  EXPECT_EQ(found["match"], "default");
  const std::string trace = folder_->write(
      "misses.jsonl",
      R"({"op":"rmsnorm","attributes":{"dtype":"bf16"},"dims":{"rows":4,"cols":256},"goal":"cold time","arch":"gfx90a","device":"card","kind":"none","reason":"","config":"","count":3,"first":1,"last":2})"
      "\n");
  const Ran doctor = run_kgen({"doctor", "--trace", trace}, shipped);
  EXPECT_THAT(doctor.out, AllOf(HasSubstr("looked up in " + db() + ", which ships with kgen"), HasSubstr("default")))
      << doctor.err;
  const Ran none = run_kgen({"show"}, {.environment = {"KGEN_SHIPPED_DB=/nowhere.db"}});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("no database was named"));
  const Ran no_op = run_kgen({"lookup", db()}, shipped);
  EXPECT_EQ(no_op.code, 2);
  EXPECT_THAT(no_op.err, HasSubstr("the operator is missing"));
}

}  // namespace
}  // namespace kgen
