// `kgen explain`: the answer of `kgen lookup` with all that led to it. What the runtime's search looked at comes from
// the search itself (Account); why the winner won comes from the trials; staleness from emitting its source again.
#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "cli/lookup.h"
#include "device/device.h"
#include "tuner/problem.h"
#include "tuner/stats.h"

namespace kgen {
namespace {

using Considered = Account::Considered;

// Lines for people under a heading, and the same as values.
struct Section {
  std::string title;
  Words lines{};
  Json json{};
};

std::string us(double value) { return number(value) + " us"; }

Section chain(const Lookup& answer) {
  Section section{.title = "Whose code this device runs, in the order in which it is looked at",
                  .lines = {},
                  .json = Json::array()};
  for (const Account::Level& level : answer.account.levels) {
    const char* code = level.own ? "its own" : level.only_ptx ? "PTX, which the driver compiles" : "of its family";
    section.lines.push_back(fmt::format(
        "{} ({}): {}", level.arch, code,
        level.rows == 0 ? "no kernel of this signature" : fmt::format("{} kernels of this signature", level.rows)));
    section.json.push_back({{"arch", level.arch},
                            {"code", level.own        ? "own"
                                     : level.only_ptx ? "ptx"
                                                      : "family"},
                            {"kernels", level.rows}});
  }
  if (section.lines.empty()) section.lines.emplace_back("none that this kgen knows of");
  return section;
}

std::string phase(const Considered& item) { return item.far ? "far" : std::string(match_name(item.kind)); }

std::string outcome(const Considered& item) {
  if (!item.tried) return "not needed";
  return item.refused.empty() ? "serves" : item.refused;
}

Section considered(const Lookup& answer) {
  Section section{
      .title = "What was considered, in the order of the rule (docs/lookup.md)", .lines = {}, .json = Json::array()};
  for (const Considered& item : answer.account.considered) {
    const double tuned = item.row == nullptr ? 0 : item.row->trial.time_us.value_or(0);
    std::string line = fmt::format("{} {}", phase(item), item.dims_key);
    if (item.kind == MatchKind::kExact && item.row != nullptr && item.row->winner.is_default)
      line += " (the one that also serves other shapes)";
    if (item.kind == MatchKind::kNear || item.kind == MatchKind::kDefault)
      line += fmt::format(", distance {:.3g}", item.distance);
    if (tuned > 0) line += fmt::format(", {} there", us(tuned));
    if (item.row != nullptr && untimed(item.row->trial)) line += ", untimed";
    if (item.expected_us > 0)
      line += fmt::format(", {} expected here, counts as {}", us(item.expected_us), us(item.ranked_us));
    section.lines.push_back(line + ": " + outcome(item));
    section.json.push_back({{"as", phase(item)},
                            {"arch", item.arch},
                            {"dims", dims_of_key(item.dims_key)},
                            {"config", item.row ? Json(item.row->trial.config) : Json()},
                            {"device", item.row ? Json(item.row->device.name) : Json()},
                            {"goal", item.row ? Json(item.row->winner.goal.text()) : Json()},
                            {"distance", item.distance},
                            {"tuned_time_us", tuned > 0 ? Json(tuned) : Json()},
                            {"untimed", item.row != nullptr && untimed(item.row->trial)},
                            {"expected_us", item.expected_us > 0 ? Json(item.expected_us) : Json()},
                            {"ranked_us", item.expected_us > 0 ? Json(item.ranked_us) : Json()},
                            {"tried", item.tried},
                            {"serves", item.tried && item.refused.empty()},
                            {"refused", item.refused}});
  }
  // What the rule asks for first and the file has not.
  const auto has = [&](MatchKind kind) {
    return std::ranges::any_of(answer.account.considered, [&](const Considered& item) { return item.kind == kind; });
  };
  Words missing;
  if (!has(MatchKind::kExact)) missing.emplace_back("no kernel was tuned for this very shape");
  if (!has(MatchKind::kExact) && !has(MatchKind::kDynamic)) missing.emplace_back("none for a range of sizes with it");
  if (!missing.empty()) section.lines.insert(section.lines.begin(), join(missing, ", "));
  if (std::ranges::any_of(answer.account.considered, [](const Considered& item) { return item.expected_us > 0; }))
    section.lines.emplace_back(
        "(expected: by waves of blocks and depth; it counts as more for its distance, for another device and another "
        "goal)");
  return section;
}

// "finalist: timed in turns with 4 others, inputs of seed 7": equal in all rows of one race.
std::string race_of(const TrialRecord& trial) {
  return trial.reason.starts_with("finalist: ") ? trial.reason.substr(0, trial.reason.find(';')) : "";
}

Result<Section> why_it_won(const Lookup& answer) {
  const WinnerRow& row = *answer.match.row;
  const TrialRecord& winner = row.trial;
  Section section{
      .title = "Why this kernel is the winner of " + row.problem.dims_key, .lines = {}, .json = Json::object()};
  if (untimed(winner)) {
    section.title = "What the kernel is: an untimed default of " + row.problem.dims_key;
    section.lines = {winner.config,
                     fmt::format("compiled for {}, and run on no card: {}", row.device.arch, winner.reason),
                     "it won against nothing: kgen takes it where the space was never searched"};
    section.json = {
        {"config", winner.config}, {"device", row.device.name}, {"untimed", true}, {"reason", winner.reason}};
    return section;
  }
  KGEN_TRY(const std::vector<TrialRecord> trials, answer.db->trials(row.winner.problem, row.winner.device, true));
  std::set<std::string> tried, verified;
  std::map<std::string, std::set<std::string>> failed;  // by status, configurations without a time
  std::map<std::string, double> best;                   // times that were taken as the winner's was
  std::vector<const TrialRecord*> race;                 // the others of the winner's final
  for (const TrialRecord& trial : trials) {
    tried.insert(trial.config);
    if (!trial.time_us)
      failed[std::string(status_name(trial.status))].insert(trial.config);
    else
      verified.insert(trial.config);
    if (trial.time_us && trial.timing == winner.timing) best[trial.config] = *trial.time_us;
    if (trial.id == winner.id) break;  // what came later did not decide
    if (!race_of(winner).empty() && race_of(trial) == race_of(winner)) race.push_back(&trial);
  }
  Words failures;
  Json failures_json = Json::object();
  for (const auto& [status, configs] : failed) {
    failures.push_back(fmt::format("{} {}", configs.size(), status));
    failures_json[status] = configs.size();
  }
  section.lines.push_back(winner.config);
  section.lines.push_back(fmt::format("{} {} tried on {}, {} verified and timed{}", tried.size(),
                                      tried.size() == 1 ? "candidate was" : "candidates were", row.device.name,
                                      verified.size(), failures.empty() ? "" : "; " + join(failures, ", ")));
  section.json = {{"config", winner.config},
                  {"device", row.device.name},
                  {"candidates", tried.size()},
                  {"verified", verified.size()},
                  {"failures", failures_json}};
  if (row.winner.range)
    section.lines.push_back(fmt::format("one of the kernels that together cover {}={}..{} with the least regret",
                                        row.winner.range->dim, row.winner.range->first, row.winner.range->last));
  const bool energy = row.winner.goal.objective == "energy";
  if (!winner.reason.empty()) section.lines.push_back(winner.reason);
  section.json["reason"] = winner.reason;
  section.json["race"] = Json::array();
  // A race with as many others has so many rows before the winner's, its last; another one of the same seed has its
  // own.
  std::size_t others = 0;
  for (const std::string& word : split(race_of(winner), ' '))
    if (!word.empty() && word.find_first_not_of("0123456789") == std::string::npos) {
      others = std::stoul(word);
      break;
    }
  if (race.size() > others) race.erase(race.begin(), race.end() - static_cast<std::ptrdiff_t>(others));
  const auto self = std::ranges::find(trials, winner.id, &TrialRecord::id);
  for (const TrialRecord* other : race) {
    // Who could not win any more left the race early: as many samples as both have are compared.
    const std::vector<double> ours(self->samples_us.begin(), self->samples_us.end()),
        theirs(other->samples_us.begin(), other->samples_us.end());
    const Comparison comparison = compare(ours, theirs);
    section.json["race"].push_back({{"config", other->config},
                                    {"time_us", *other->time_us},
                                    {"energy_uj", other->energy_uj ? Json(*other->energy_uj) : Json()},
                                    {"winner_gain", comparison.gain},
                                    {"probability", comparison.probability}});
    if (energy && other->energy_uj && winner.energy_uj)
      section.lines.push_back(fmt::format("  against {}: {} uJ, {} more", other->config, number(*other->energy_uj),
                                          fmt::format("{:.1f} %", 100 * (*other->energy_uj / *winner.energy_uj - 1))));
    else
      section.lines.push_back(fmt::format("  against {}: {}, {:.1f} % {} in paired samples (p = {:.2g})", other->config,
                                          us(*other->time_us), 100 * std::abs(comparison.gain),
                                          comparison.gain >= 0 ? "slower" : "faster", comparison.probability));
  }
  if (winner.time_us)
    section.lines.push_back(fmt::format("{} as the median of {} samples{}, {} caches, for the least {}",
                                        us(*winner.time_us), self == trials.end() ? 0 : self->samples_us.size(),
                                        winner.mad_us ? fmt::format(" (+- {})", us(*winner.mad_us)) : "",
                                        winner.timing == "warm" ? "warm" : "cold", row.winner.goal.objective) +
                            (winner.timing == "graph" ? ", in graph replay" : ""));
  if (!winner.throttle.empty()) section.lines.push_back("the card was held down by: " + winner.throttle);
  if (winner.deterministic)
    section.lines.push_back(*winner.deterministic ? "its launches were seen to give the same bits"
                                                  : "its launches do not all give the same bits");
  section.json["time_us"] = winner.time_us ? Json(*winner.time_us) : Json();
  section.json["timing"] = winner.timing;
  section.json["objective"] = row.winner.goal.objective;
  const auto gain = energy
                        ? (row.default_energy_uj && winner.energy_uj ? *row.default_energy_uj / *winner.energy_uj : 0)
                        : (row.default_time_us && winner.time_us ? *row.default_time_us / *winner.time_us : 0);
  section.json["gain_over_default"] = gain > 0 ? Json(gain) : Json();
  if (winner.is_default)
    section.lines.emplace_back("it is the operator's default candidate");
  else if (gain > 0)
    section.lines.push_back(fmt::format("{:.2f} times as good as the default candidate", gain));
  if (row.winner.is_default) section.lines.emplace_back("it also serves shapes that were never tuned");
  return section;
}

// What would be made of the winner today, as far as this machine can tell.
Section staleness(const Context& context, const Lookup& answer, const std::optional<OpSpec>& spec,
                  const std::string& no_spec) {
  Section section{.title = "Is it up to date?", .lines = {}, .json = Json::array()};
  const WinnerRow& row = *answer.match.row;
  const TrialRecord& trial = row.trial;
  const auto tell = [&](const char* what, const std::string& then, const std::string& now) {
    if (then.empty() || then == now) return;
    section.lines.push_back(fmt::format("its {} is not the present one: {} then, {} now", what, then, now));
    section.json.push_back({{"what", what}, {"then", then}, {"now", now}});
  };
  const auto arch = find_arch(row.device.arch);
  if (spec && arch) {
    tell("operator's definition", trial.op_hash, spec->op->source_hash);
    const auto candidate = parse_candidate(*spec, *arch, trial.config);
    const auto source = candidate ? emit(*spec, *arch, *candidate) : tl::unexpected(candidate.error());
    if (source)
      tell("kernel's source", trial.source_hash, source->hash);
    else
      section.lines.push_back("this kgen does not generate it any more: " + source.error().message);
  } else {
    section.lines.push_back("not compared with the operator's present definition: " + no_spec);
  }
  if (arch) {
    const auto version = compiler_for(context)->version(*arch);
    if (version)
      tell("compiler", trial.compiler, *version);
    else
      section.lines.push_back(
          fmt::format("its compiler ({}) is not compared: {}", trial.compiler, version.error().message));
  }
  for (const DeviceInfo& device : probe_devices().devices)
    if (device.name == row.device.name) {
      tell("driver", row.device.driver, device.driver);
      break;
    }
  tell("kgen", trial.kgen_version, KGEN_VERSION);
  if (section.lines.empty())
    section.lines.emplace_back("yes: definition, source, compiler, driver and kgen are the present ones");
  return section;
}

// The command that gives this shape a kernel of its own, or a better one; "" where there is nothing left to try.
Section advice(const Lookup& answer, const LookupRequest& request, const std::optional<OpSpec>& spec, bool stale) {
  Section section{.title = "To do better", .lines = {}, .json = Json::object()};
  section.json["command"] = Json();
  const bool exact = answer.match.kind == MatchKind::kExact;
  std::string budget;
  if (exact && !stale && spec && answer.match.row != nullptr) {
    const WinnerRow& row = *answer.match.row;
    const auto arch = find_arch(row.device.arch);
    const auto trials = answer.db->trials(row.winner.problem, row.winner.device);
    const auto space = arch ? enumerate(*spec, *arch) : fail(ErrorKind::kBadInput, "");
    if (trials && space) {
      std::set<std::string> tried;
      for (const TrialRecord& trial : *trials) tried.insert(trial.config);
      const std::size_t all = space->candidates.size();
      const auto left =
          std::ranges::count_if(space->candidates, [&](const Candidate& c) { return !tried.contains(c.key()); });
      section.json["space"] = all;
      section.json["not_tried"] = left;
      if (left == 0) {
        section.lines.push_back(fmt::format("nothing: all {} candidates of the space were tried", all));
        return section;
      }
      section.lines.push_back(
          fmt::format("{} of the {} candidates of the space were not tried; tune on where it left off:", left, all));
      budget = fmt::format(" --budget {}", std::min<std::size_t>(2 * tried.size(), all));
    }
  }
  if (section.lines.empty())
    section.lines.emplace_back(exact ? stale ? "tune again with what is here now:" : "tune on where it left off:"
                                     : "give the shape a kernel of its own:");
  std::string device;
  for (const DeviceInfo& here : probe_devices().devices)
    if (device.empty() && here.arch != nullptr && here.arch->name == answer.arch) device = here.id;
  Words attributes = split(answer.signature, ' ');
  const std::string op = attributes.front();
  attributes.erase(attributes.begin());
  std::string entry = "op: " + (load_op(op) ? op : "PATH/" + op + ".yaml");
  for (const std::string& word : attributes)
    if (const std::size_t equals = word.find('='); equals != std::string::npos && equals + 1 < word.size())
      entry += fmt::format(", {}: {}", yaml_value(word.substr(0, equals)), yaml_value(word.substr(equals + 1)));
  Words dims;
  for (const auto& [name, value] : answer.dims) dims.push_back(fmt::format("{}: {}", name, value));
  const std::string command = fmt::format(
      "kgen tune <(echo {}) --db {}{}{}{}",
      shell_quoted(fmt::format("{{kgen: 1, ops: [{{{}, problems: [{{{}}}]}}]}}", entry, join(dims, ", "))),
      shell_quoted(request.path), device.empty() ? "" : " --device " + device, goal_flags(request.goal), budget);
  section.lines.push_back("  " + command);
  if (device.empty()) section.lines.push_back(fmt::format("on a machine with a {}; there is none here", answer.arch));
  if (!load_op(op)) section.lines.push_back(fmt::format("where PATH/{}.yaml is the definition of the operator", op));
  section.json["command"] = command;
  return section;
}

}  // namespace

int cmd_explain(const Context& context, const Words& args) {
  LookupRequest request;
  Words own_op_paths;
  Options options("explain", "[tuned.db] OP dim=val… [flags]",
                  "Why the runtime chooses what it does for a shape: the reasons one by one, in words.");
  request.declare(options);
  options.list("--own-op", own_op_paths, "definition of the operator where it is not built in; may be given again");
  if (const auto code = options.parse(args)) return *code;
  const auto found = look_up(request);
  if (!found) return report(found.error());
  const Lookup& answer = *found;
  const auto own_ops = read_own_ops(own_op_paths);
  if (!own_ops) return report(own_ops.error());

  std::vector<std::pair<const char*, Section>> sections;
  sections.emplace_back("chain", chain(answer));
  sections.emplace_back("considered", considered(answer));
  std::optional<OpSpec> spec;
  bool stale = false;
  if (answer.match.row != nullptr) {
    auto stored = stored_spec(*answer.match.row, answer.match.plan->plan, *own_ops);
    std::string no_spec;
    if (stored)
      spec = std::move(*stored);
    else
      no_spec = stored.error().message;
    auto won = why_it_won(answer);
    if (!won) return report(won.error());
    sections.emplace_back("winner", std::move(*won));
    sections.emplace_back("stale", staleness(context, answer, spec, no_spec));
    stale = !sections.back().second.json.empty();
  }
  sections.emplace_back("advice", advice(answer, request, spec, stale));

  const Match& match = answer.match;
  const std::string head = fmt::format("{}: {}", match_name(match.kind), match.reason);
  const std::string loss =
      match.kind == MatchKind::kNone    ? "nothing serves it"
      : match.kind == MatchKind::kExact ? "no loss expected: the kernel was tuned for the shape"
      : match.expected_loss
          ? fmt::format("expected to be {:.1f} % slower than a kernel of its own", 100 * *match.expected_loss)
          : "how much slower than a kernel of its own it is, is not known";
  if (request.as_json) {
    Json json = lookup_json(answer);
    json["expected_us"] = match.row != nullptr && expected_us(match) > 0 ? Json(expected_us(match)) : Json();
    json["text"] = Json::array({head, loss});
    for (auto& [name, section] : sections) {
      json[name] = section.json;
      json["text"].push_back(section.title);
      for (const std::string& line : section.lines) json["text"].push_back("  " + line);
    }
    print_json(json);
  } else {
    Words dims;
    for (const auto& [name, value] : answer.dims) dims.push_back(fmt::format("{}={}", name, value));
    fmt::print("{} for {}, {}, on {}{}\n\n", printable(answer.signature), printable(join(dims, " ")),
               request.goal.text(), printable(answer.arch),
               answer.device_name.empty() ? "" : " (" + printable(answer.device_name) + ")");
    fmt::print("{}\n  {}\n", printable(head), loss);
    for (const auto& [name, section] : sections) {
      fmt::print("\n{}\n", printable(section.title));
      for (const std::string& line : section.lines) fmt::print("  {}\n", printable(line));
    }
  }
  return match.kind == MatchKind::kNone ? 1 : 0;
}

}  // namespace kgen
