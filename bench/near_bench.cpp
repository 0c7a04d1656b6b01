// How much the rule for near shapes loses on real data (docs/lookup.md): each problem of a tuned database in turn is
// taken for one that was never tuned; the others each offer the kernel that is their best among those that were tried
// on it too, so that what a choice costs is known.
//
//   near_bench tuned.db…
//
// For each operator: mean and worst loss of the nearest kernel, of the rule (runtime/near.h) and of the best that was
// offered.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/text.h"
#include "db/db.h"
#include "generator/emit.h"
#include "generator/space.h"
#include "runtime/near.h"

namespace kgen {
namespace {

constexpr std::size_t kLeastOffers = 3;  // else there is nothing to choose

struct Tuned {
  OpSpec spec;
  std::vector<double> dims;
  std::vector<bool> given;
  int units = 0;
  std::map<std::string, TrialRecord> trials;  // verified, by config
  double best_us = HUGE_VAL;
};

Result<Tuned> tuned_problem(Db& db, const TrialGroup& group) {
  Tuned tuned;
  std::vector<std::pair<std::string, std::string>> words;
  for (const std::string& word : split(group.op.signature + " " + group.problem.dims_key, ' '))
    if (const auto equals = word.find('='); equals != std::string::npos)
      words.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  KGEN_TRY(tuned.spec.op, load_op(group.op.op));
  KGEN_TRY(tuned.spec.op, specialise(tuned.spec.op, words));
  KGEN_TRY(tuned.spec.problem, make_problem(*tuned.spec.op, words));
  const std::string key = " " + group.problem.dims_key;
  for (const DimDef& dim : tuned.spec.op->dims) {
    tuned.dims.push_back(static_cast<double>(tuned.spec.problem.dims.at(dim.name)));
    tuned.given.push_back(key.find(" " + dim.name + "=") != std::string::npos);
  }
  tuned.units = group.device.compute_units;
  KGEN_TRY(std::vector<TrialRecord> trials, db.trials(group.problem_id, group.device_id));
  for (TrialRecord& trial : trials) {
    if (!trial.time_us || (trial.status != TrialStatus::kTimed && trial.status != TrialStatus::kStoppedEarly)) continue;
    if (trial.status == TrialStatus::kTimed) tuned.best_us = std::min(tuned.best_us, *trial.time_us);
    tuned.trials.insert_or_assign(trial.config, std::move(trial));
  }
  return tuned;
}

// Plans of an operator's kernels by config; those that cannot be made (an older definition's) are left out.
class Plans {
 public:
  explicit Plans(Arch arch) : arch_(arch) {}
  const Plan* plan(const OpSpec& spec, const std::string& config) {
    const auto [at, added] = plans_.try_emplace(config);
    if (added)
      if (const auto candidate = parse_candidate(spec, arch_, config))
        if (auto source = emit(spec, arch_, *candidate)) at->second = std::make_unique<Plan>(std::move(source->plan));
    return at->second.get();
  }

 private:
  Arch arch_;
  std::map<std::string, std::unique_ptr<Plan>> plans_;
};

struct Losses {
  std::vector<double> nearest, rule, offered;
};

void held_out(const std::vector<Tuned>& problems, std::size_t asked_at, Arch arch, Plans& plans, Losses& losses) {
  const Tuned& asked = problems[asked_at];
  NearShapes shapes;
  std::vector<const TrialRecord*> offers(problems.size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    if (i == asked_at) continue;
    for (const auto& [config, trial] : problems[i].trials) {
      const Plan* plan = asked.trials.contains(config) ? plans.plan(problems[i].spec, config) : nullptr;
      if (plan == nullptr || !bind(*plan, asked.spec.problem.dims)) continue;
      if (offers[i] == nullptr || *trial.time_us < *offers[i]->time_us) offers[i] = &trial;
    }
    if (offers[i] == nullptr) continue;
    shapes.add(i, problems[i].dims, problems[i].given);
    ++count;
  }
  if (count < kLeastOffers || !std::isfinite(asked.best_us)) return;
  const auto loss = [&](std::size_t i) {
    return std::max(0.0, *asked.trials.at(offers[i]->config).time_us / asked.best_us - 1);
  };
  const auto near = shapes.nearest(asked.dims, asked.given, kNearRows);
  losses.nearest.push_back(loss(near.front().row));
  double least = HUGE_VAL, best = HUGE_VAL;
  std::vector<double> scratch;
  std::size_t chosen = 0;
  for (const NearShapes::Near& item : near) {
    const TrialRecord& trial = *offers[item.row];
    const Workload workload(*plans.plan(problems[item.row].spec, trial.config));
    const TimeModel model(
        workload, problems[item.row].dims, *trial.time_us,
        {.units = problems[item.row].units, .waves = trial.occupancy_waves.value_or(0), .wave_size = arch->wave_size});
    const double doubt = std::log(model.us(workload, asked.dims, scratch)) + kDoubtOfOctave * item.distance;
    if (doubt < least) least = doubt, chosen = item.row;
  }
  for (std::size_t i = 0; i < problems.size(); ++i)
    if (offers[i] != nullptr) best = std::min(best, loss(i));
  losses.rule.push_back(loss(chosen));
  losses.offered.push_back(best);
}

std::string told(std::vector<double> losses) {
  std::sort(losses.begin(), losses.end());
  double sum = 0;
  for (const double loss : losses) sum += loss;
  const double count = static_cast<double>(losses.size());
  return fmt::format("{:.1f} % / {:.0f} % / {:.0f} %", 100 * sum / count,
                     100 * losses[static_cast<std::size_t>(0.9 * (count - 1))], 100 * losses.back());
}

Result<void> run(const std::vector<std::string>& files) {
  std::map<std::string, Losses> by_op;
  Losses all;
  for (const std::string& file : files) {
    KGEN_TRY(Db db, Db::open(file, DbMode::kReadOnly));
    KGEN_TRY(const std::vector<TrialGroup> groups, db.trial_groups());
    std::map<std::string, std::vector<Tuned>> by_signature;
    std::map<std::string, std::string> archs;
    for (const TrialGroup& group : groups) {
      auto tuned = tuned_problem(db, group);
      if (!tuned) continue;  // of an operator that is not built in
      const std::string name = group.device.arch + " " + group.op.signature;
      archs[name] = group.device.arch;
      by_signature[name].push_back(std::move(*tuned));
    }
    for (const auto& [name, problems] : by_signature) {
      KGEN_TRY(const Arch arch, find_arch(archs[name]));
      Plans plans(arch);
      for (std::size_t i = 0; i < problems.size(); ++i) {
        Losses& losses = by_op[problems[i].spec.op->name];
        held_out(problems, i, arch, plans, losses);
      }
    }
  }
  fmt::print(
      "| operator | shapes | nearest: mean / 9 of 10 / worst | rule | best offered |\n| --- | --- | --- | --- | --- "
      "|\n");
  for (auto& [op, losses] : by_op) {
    if (losses.rule.empty()) continue;
    fmt::print("| {} | {} | {} | {} | {} |\n", op, losses.rule.size(), told(losses.nearest), told(losses.rule),
               told(losses.offered));
    all.nearest.insert(all.nearest.end(), losses.nearest.begin(), losses.nearest.end());
    all.rule.insert(all.rule.end(), losses.rule.begin(), losses.rule.end());
    all.offered.insert(all.offered.end(), losses.offered.begin(), losses.offered.end());
  }
  if (!all.rule.empty())
    fmt::print("| all | {} | {} | {} | {} |\n", all.rule.size(), told(all.nearest), told(all.rule), told(all.offered));
  return {};
}

}  // namespace
}  // namespace kgen

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "near_bench tuned.db…\n");
    return 2;
  }
  if (const auto done = kgen::run({argv + 1, argv + argc}); !done) {
    fmt::print(stderr, "near_bench: {}\n", done.error().message);
    return 1;
  }
  return 0;
}
