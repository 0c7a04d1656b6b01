#include <fmt/core.h>

#include <algorithm>
#include <future>

#include "cli/cli.h"
#include "cli/options.h"
#include "tuner/search/simulate.h"

namespace kgen {
namespace {

// Files are large: read side by side.
Result<std::vector<Recording>> read_all(const Words& files) {
  std::vector<std::future<Result<std::vector<Recording>>>> reading;
  for (const std::string& file : files)
    reading.push_back(std::async(std::launch::async, [&file] { return read_recordings(file); }));
  std::vector<Recording> all;
  for (auto& read : reading) {
    KGEN_TRY(std::vector<Recording> recordings, read.get());
    std::move(recordings.begin(), recordings.end(), std::back_inserter(all));
  }
  if (all.empty() && !files.empty()) return fail(ErrorKind::kBadInput, files.front() + ": no trials in it");
  return all;
}

Json fractions_json(const std::map<std::size_t, Fraction>& fractions, double Fraction::* member) {
  Json json = Json::object();
  for (const auto& [evaluations, fraction] : fractions) json[std::to_string(evaluations)] = fraction.*member;
  return json;
}

// Over the spaces: means of means and of deviations; the worst run of all.
std::map<std::size_t, Fraction> over_spaces(const std::vector<Simulation>& results) {
  std::map<std::size_t, Fraction> total;
  for (const auto& [evaluations, unused] : results.front().fractions) {
    Fraction& sum = total[evaluations];
    sum.worst = 1;
    sum.expected_loss = 0;
    for (const Simulation& result : results) {
      const Fraction& own = result.fractions.at(evaluations);
      sum.mean += own.mean;
      sum.deviation += own.deviation;
      sum.within += own.within;
      sum.loss_miss += own.loss_miss;
      if (!own.expected_loss) sum.expected_loss.reset();
      if (sum.expected_loss) *sum.expected_loss += *own.expected_loss;
      sum.worst = std::min(sum.worst, own.worst);
    }
    sum.mean /= static_cast<double>(results.size());
    sum.deviation /= static_cast<double>(results.size());
    sum.within /= static_cast<double>(results.size());
    sum.loss_miss /= static_cast<double>(results.size());
    if (sum.expected_loss) *sum.expected_loss /= static_cast<double>(results.size());
  }
  return total;
}
Fraction worst_space(const std::vector<Simulation>& results, std::size_t evaluations) {
  Fraction worst{.mean = 1};
  for (const Simulation& result : results)
    if (result.fractions.at(evaluations).mean <= worst.mean) worst = result.fractions.at(evaluations);
  return worst;
}

void add_fractions(Json& json, const std::map<std::size_t, Fraction>& fractions) {
  json["mean_fraction"] = fractions_json(fractions, &Fraction::mean);
  json["worst_fraction"] = fractions_json(fractions, &Fraction::worst);
  json["std"] = fractions_json(fractions, &Fraction::deviation);
  json["expected_loss"] = Json::object();  // null: the strategy predicts none
  for (const auto& [evaluations, fraction] : fractions)
    json["expected_loss"][std::to_string(evaluations)] =
        fraction.expected_loss ? Json(*fraction.expected_loss) : Json();
  json["within_3_percent"] = fractions_json(fractions, &Fraction::within);
}

void print_json_results(const SimulateRequest& request, const std::vector<Simulation>& results) {
  Json json{
      {"strategy", request.strategy}, {"budget", request.budget}, {"repeats", request.repeats}, {"seed", request.seed}};
  add_fractions(json, over_spaces(results));
  json["worst_space"] = Json::object();
  for (const auto& [evaluations, unused] : results.front().fractions)
    json["worst_space"][std::to_string(evaluations)] = worst_space(results, evaluations).mean;
  json["spaces"] = Json::array();
  for (const Simulation& result : results) {
    Json space{{"space", result.space},           {"configurations", result.points},  {"failed", result.failed},
               {"optimum_us", result.optimum_us}, {"sources", result.sources},        {"prior", result.prior},
               {"failures", result.failures},     {"proposal_us", result.proposal_us}};
    add_fractions(space, result.fractions);
    json["spaces"].push_back(std::move(space));
  }
  print_json(json);
}

void print_table(const SimulateRequest& request, const std::vector<Simulation>& results) {
  Words header{"space", "configs", "sources"};
  for (const auto& [evaluations, unused] : results.front().fractions) header.push_back(std::to_string(evaluations));
  Table table(header);
  for (const Simulation& result : results) {
    Words row{result.space, std::to_string(result.points), std::to_string(result.sources)};
    for (const auto& [evaluations, fraction] : result.fractions)
      row.push_back(fmt::format("{:.3f} ±{:.3f}", fraction.mean, fraction.deviation));
    table.add(row);
  }
  Words mean{"mean", "", ""}, worst{"worst space", "", ""}, within{"runs within 3 %", "", ""};
  Words loss{"predicted loss", "", ""}, miss{"its mean error", "", ""};
  for (const auto& [evaluations, fraction] : over_spaces(results)) {
    mean.push_back(fmt::format("{:.4f}", fraction.mean));
    worst.push_back(fmt::format("{:.4f}", worst_space(results, evaluations).mean));
    if (fraction.expected_loss) {
      loss.push_back(fmt::format("{:.4f}", *fraction.expected_loss));
      miss.push_back(fmt::format("{:.4f}", fraction.loss_miss));
    }
    within.push_back(fmt::format("{:.1f} %", 100 * fraction.within));
  }
  table.add(mean);
  table.add(worst);
  table.add(within);
  if (loss.size() == mean.size()) {
    table.add(loss);
    table.add(miss);
  }
  table.print();
  fmt::print("\noptimum / best found after so many evaluations: mean ± deviation of {} repeats; strategy {}, seed {}\n",
             request.repeats, request.strategy, request.seed);
}

}  // namespace

int cmd_simulate(const Context&, const Words& args) {
  Words files, warm, prior;
  SimulateRequest request;
  std::int64_t budget = 200, repeats = 100, seed = 1;
  bool json = false;
  Options options(
      "simulate", "SPACE… [flags]",
      "Replay a search on recorded spaces: Kernel Tuner caches, T4 files (.json, .json.gz) or kgen databases.");
  options.arguments("SPACE", files, "recorded spaces");
  options.choice("--strategy", request.strategy, strategy_names(), "how to search");
  options.number("--budget", budget, 1, "evaluations a run (200)");
  options.number("--repeats", repeats, 1, "runs a space, each with its own seed (100)");
  options.number("--seed", seed, 0, "of the first run (1)");
  options.words("--warm-start", warm,
                "recordings of the same kernel elsewhere; one with the same measurements is not used");
  options.words("--prior", prior, "begin with what won on other shapes: 'shipped', or databases to learn that from");
  options.flag("--json", json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  request.budget = static_cast<std::size_t>(budget);
  request.repeats = static_cast<std::size_t>(repeats);
  request.seed = static_cast<std::uint64_t>(seed);

  const auto recordings = read_all(files);
  if (!recordings) return report(recordings.error());
  const auto sources = read_all(warm);
  if (!sources) return report(sources.error());
  request.shipped_prior = prior == Words{"shipped"};
  if (!request.shipped_prior) {
    auto teachers = read_all(prior);
    if (!teachers) return report(teachers.error());
    request.prior = std::move(*teachers);
  }
  const auto results = simulate(*recordings, *sources, request);
  if (!results) return report(results.error());
  if (!warm.empty())
    for (const Simulation& result : *results)
      if (result.sources == 0) fmt::print(stderr, "{}: no source of --warm-start has its tunables\n", result.space);
  if (json) {
    print_json_results(request, *results);
  } else {
    print_table(request, *results);
  }
  return 0;
}

}  // namespace kgen
