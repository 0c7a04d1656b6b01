#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "fixture.h"

namespace kgen {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<std::string> keys(const Result<Space>& space) {
  std::vector<std::string> list;
  if (space) {
    for (const Candidate& candidate : space->candidates) list.push_back(candidate.key());
  }
  return list;
}

const std::vector<std::pair<std::string, std::string>> kShape = {{"rows", "64"}, {"cols", "6"}, {"dtype", "bf16"}};

TEST(Space, RulesOfDeterminismHoldWhereItIsDemanded) {
  OpSpec spec = fixture("scale", kShape);
  EXPECT_TRUE(parse_candidate(spec, arch("sm_80"), "plain parts=2"));
  spec.tune.deterministic = true;
  const auto space = enumerate(spec, arch("sm_80"));
  EXPECT_THAT(keys(space), Contains("plain threads=32 parts=1"));
  EXPECT_THAT(keys(space), Not(Contains("plain threads=32 parts=2")));
  EXPECT_THAT(message(parse_candidate(spec, arch("sm_80"), "plain parts=2")), HasSubstr("order of their arrival"));
}

TEST(Space, HoldsExactlyTheCandidatesThatSatisfyEveryRule) {
  const OpSpec spec = fixture("scale", kShape);
  const auto space = enumerate(spec, arch("sm_80"));
  ASSERT_TRUE(space) << message(space);
  EXPECT_EQ(space->raw_points, 3 * 3 * 2 + 2 * 3);
  // tile % waves == 0, tile <= 2*cols (search), cols % parts == 0; the default is there though the search would skip
  // it.
  EXPECT_THAT(keys(space),
              ElementsAre("wide tile=16 waves=2 mode=staged", "wide tile=8 waves=1 mode=direct",
                          "wide tile=8 waves=1 mode=staged", "wide tile=8 waves=2 mode=direct",
                          "wide tile=8 waves=2 mode=staged", "plain threads=32 parts=1", "plain threads=32 parts=2",
                          "plain threads=64 parts=1", "plain threads=64 parts=2"));
}

TEST(Space, CountsWhatEachRuleCut) {
  const auto space = enumerate(fixture("scale", kShape), arch("sm_80"));
  ASSERT_TRUE(space) << message(space);
  const auto cut = [&](const std::string& rule) {
    for (const RuleCount& count : space->removed) {
      if (count.rule == rule) return count.removed;
    }
    return std::int64_t{-1};
  };
  EXPECT_EQ(cut("tile <= 2*cols"), 2);     // 16 and 32, before waves and mode are bound
  EXPECT_EQ(cut("tile % waves == 0"), 1);  // 8 / 3
  EXPECT_EQ(cut("cols % parts == 0"), 2);  // 4, under both values of threads
  EXPECT_EQ(cut("tile <= rows"), 0);
}

TEST(Space, RejectsTileThatWavesDoNotDivide) {
  const OpSpec spec = fixture("scale", kShape);
  const auto bad = parse_candidate(spec, arch("sm_80"), "wide tile=32 waves=3");
  EXPECT_THAT(message(bad), HasSubstr("tile % waves == 0"));
  EXPECT_THAT(message(bad), HasSubstr("waves share the tile"));
}

TEST(Space, DropsAVariantThatTheArchitectureLacks) {
  for (const std::string& key : keys(enumerate(fixture("scale", kShape), arch("gfx90a")))) {
    EXPECT_EQ(key.find("wide"), std::string::npos) << key;
  }
  const auto flat = enumerate(fixture("scale", {{"rows", "3"}, {"cols", "6"}, {"dtype", "bf16"}}), arch("sm_80"));
  EXPECT_THAT(keys(flat), Not(Contains(HasSubstr("wide")))) << "the variant's `when` reads rows";
}

TEST(Space, IsTheSameEveryTime) {
  const OpSpec spec = fixture("scale", kShape);
  EXPECT_EQ(keys(enumerate(spec, arch("sm_90"))), keys(enumerate(spec, arch("sm_90"))));
}

TEST(Space, StopsAtTheLimitAndKeepsTheDefault) {
  const auto space = enumerate(fixture("scale", kShape), arch("sm_80"), 3);
  EXPECT_THAT(keys(space), ElementsAre("wide tile=16 waves=2 mode=staged", "wide tile=8 waves=1 mode=direct",
                                       "wide tile=8 waves=1 mode=staged"));
}

TEST(Space, TheDefaultLeadsAndIsTheFirstLegalVariantsDefaults) {
  const OpSpec spec = fixture("scale", kShape);
  EXPECT_EQ(default_candidate(spec, arch("sm_80"))->key(), "wide tile=16 waves=2 mode=staged");
  EXPECT_EQ(default_candidate(spec, arch("sm_75"))->key(), "wide tile=16 waves=2 mode=direct");
  EXPECT_EQ(default_candidate(spec, arch("host"))->key(), "plain threads=64 parts=1");
  const OpSpec low = fixture("scale", {{"rows", "8"}, {"cols", "6"}, {"dtype", "bf16"}});
  EXPECT_EQ(default_candidate(low, arch("sm_80"))->key(), "plain threads=64 parts=1") << "tile=16 does not fit 8 rows";
}

TEST(Space, TuneParamsNarrowAndExtendTheValues) {
  OpSpec spec = fixture("scale", kShape);
  spec.tune.params["threads"] = {"128", "64"};
  spec.tune.params["parts"] = {"3"};
  spec.tune.params["tile"] = {"4"};
  EXPECT_THAT(keys(enumerate(spec, arch("host"))),
              ElementsAre("plain threads=64 parts=3", "plain threads=128 parts=3"));
}

TEST(Space, EmptySpaceNamesTheRuleThatRemovedTheLastCandidate) {
  OpSpec spec = fixture("scale", kShape);
  spec.where = "ops.yaml:3:7";
  spec.tune.params["parts"] = {"4"};
  const auto space = enumerate(spec, arch("host"));
  ASSERT_FALSE(space);
  EXPECT_EQ(space.error().kind, ErrorKind::kBadInput);
  EXPECT_THAT(space.error().message, HasSubstr("ops.yaml:3:7: "));
  EXPECT_THAT(space.error().message, HasSubstr("cols % parts == 0"));
  EXPECT_THAT(space.error().message, HasSubstr("parts divide the columns"));
  EXPECT_THAT(space.error().message, HasSubstr("plain threads=64 parts=4"));
  EXPECT_FALSE(default_candidate(spec, arch("host")));
}

TEST(Space, LaunchLimitsOfTheDeviceAreRulesToo) {
  OpSpec spec = fixture("scale", kShape);
  spec.tune.params["threads"] = {"1024", "2048"};
  EXPECT_THAT(keys(enumerate(spec, arch("host"))), Not(Contains(HasSubstr("2048"))));
  spec.tune.params["tile"] = {"4096"};
  const OpSpec tall = fixture("scale", {{"rows", "4096"}, {"cols", "4096"}, {"dtype", "bf16"}});
  spec.problem = tall.problem;
  for (const std::string& key : keys(enumerate(spec, arch("sm_80")))) {
    EXPECT_EQ(key.find("mode=staged"), std::string::npos) << key << " would need 4096*64 bytes of LDS";
  }
}

TEST(Space, ConfigTextRoundTrips) {
  const OpSpec spec = fixture("scale", kShape);
  const auto space = enumerate(spec, arch("sm_80"));
  for (const Candidate& candidate : space->candidates) {
    EXPECT_EQ(parse_candidate(spec, arch("sm_80"), candidate.key()).value(), candidate);
  }
  EXPECT_EQ(parse_candidate(spec, arch("sm_80"), "parts=2")->key(), "plain threads=64 parts=2");
  EXPECT_EQ(parse_candidate(spec, arch("sm_80"), "tile=32,waves=1")->key(), "wide tile=32 waves=1 mode=staged")
      << "a rule that steers the search does not forbid";
  EXPECT_EQ(parse_candidate(spec, arch("sm_80"), "")->key(), default_candidate(spec, arch("sm_80"))->key());
  EXPECT_THAT(message(parse_candidate(spec, arch("sm_80"), "wied tile=8")), HasSubstr("did you mean 'wide'"));
  EXPECT_THAT(message(parse_candidate(spec, arch("sm_80"), "tlie=8")), HasSubstr("did you mean 'tile'"));
  EXPECT_THAT(message(parse_candidate(spec, arch("sm_80"), "tile=9")), HasSubstr("choose from 8, 16, 32"));
  EXPECT_THAT(message(parse_candidate(spec, arch("host"), "wide")), HasSubstr("needs mma_sync"));
}

TEST(Space, ZeroDimsLeaveSomethingToChooseFrom) {
  for (const char* name : {"host", "sm_80", "gfx942"}) {
    const OpSpec spec = fixture("scale", {{"rows", "0"}, {"cols", "0"}, {"dtype", "fp32"}});
    const auto space = enumerate(spec, arch(name));
    EXPECT_TRUE(space) << message(space);
  }
}

TEST(Space, AValueThatCannotBeComputedIsAnErrorOnlyWhereNoRuleCuts) {
  OpSpec spec = fixture("scale", kShape);
  auto op = std::make_shared<OpDef>(*spec.op);
  auto& rules = op->variants[0].rules;
  rules.erase(std::find_if(rules.begin(), rules.end(),
                           [](const Rule& rule) { return rule.require.text() == "tile % waves == 0"; }));
  spec.op = op;
  const auto space = enumerate(spec, arch("sm_80"));
  EXPECT_THAT(message(space), HasSubstr("scale.yaml"));
  EXPECT_THAT(message(space), HasSubstr("remainder"));
}

// A million points; `rules` as YAML list items.
OpSpec million(const std::string& rules) {
  std::string yaml = R"(
kgen: 1
op: million
dims: {rows: {}, cols: {}, ld: {default: cols}}
attributes: {dtype: {kind: dtype, values: [fp32]}}
arguments: {y: {role: out, dtype: dtype, shape: [rows]}}
cost: {flops: rows, bytes: rows}
reference: {header: scale_reference.h, terms: {y: 1}, cost: rows}
variants:
  only:
    templates: [scale.h]
    tunables:
)";
  for (char name = 'a'; name <= 'f'; ++name) {
    yaml += fmt::format("      {}: {{values: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}\n", name);
  }
  yaml += "    derived: {ab: a*b, cd: c*d}\n    rules:\n" + rules;
  yaml += "    steps: [{kernel: scale_rows, grid: rows, block: 64}]\n";
  OpSpec spec;
  const auto op = load_op_text(yaml, "million.yaml", kFixtures);
  EXPECT_TRUE(op) << message(op);
  spec.op = *op;
  spec.problem = make_problem(*spec.op, {{"rows", "8"}, {"cols", "8"}, {"dtype", "fp32"}}).value();
  return spec;
}

double seconds_to_enumerate(const OpSpec& spec, std::size_t& found) {
  const auto start = std::chrono::steady_clock::now();
  const auto space = enumerate(spec, arch("host"));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_TRUE(space) << message(space);
  EXPECT_EQ(space->raw_points, 1e6);
  found = space->candidates.size();
  return seconds;
}

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
constexpr double kLimitSeconds = 1;
#else
constexpr double kLimitSeconds = 30;  // not a measurement, only no hang
#endif

TEST(Space, AMillionRawPointsTakeUnderASecond) {
  std::size_t found = 0;
  const double usual =
      seconds_to_enumerate(million("      - {require: ab <= 30, because: one}\n"
                                   "      - {require: \"cd % 4 == 0\", because: two}\n"
                                   "      - {require: \"ab*cd <= 400 && cols % a == 0\", because: three}\n"
                                   "      - {require: \"e % 2 == 0\", because: four}\n"
                                   "      - {require: \"(f + e) % 5 == 0\", because: five}\n"),
                           found);
  std::size_t expected = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const int a = i / 100000 + 1, b = i / 10000 % 10 + 1, c = i / 1000 % 10 + 1, d = i / 100 % 10 + 1,
              e = i / 10 % 10 + 1, f = i % 10 + 1;
    expected += a * b <= 30 && c * d % 4 == 0 && a * b * c * d <= 400 && 8 % a == 0 && e % 2 == 0 && (f + e) % 5 == 0;
  }
  EXPECT_EQ(found, expected + 0) << "the default (all 1) is not legal here";
  // The worst case: nothing can be cut before the last tunable is bound.
  const double worst =
      seconds_to_enumerate(million("      - {require: \"(a + b + c + d + e + f) % 50 == 0\", because: all}\n"), found);
  fmt::print("a million points: {:.3f} s with rules on parts, {:.3f} s with one rule on all\n", usual, worst);
  EXPECT_LT(usual, kLimitSeconds);
  EXPECT_LT(worst, kLimitSeconds);
}

}  // namespace
}  // namespace kgen
