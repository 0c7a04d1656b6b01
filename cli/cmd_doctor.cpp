#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "base/json.h"
#include "base/text.h"
#include "cli/lookup.h"
#include "tuner/process.h"

namespace kgen {
namespace {

// One shape of a trace (docs/lookup.md), its lines added up, and how the DB serves it now.
struct Shape {
  std::string op, arch, device;
  std::string attributes;  // "dtype=bf16 b_layout=nk"
  Env dims;
  Goal goal;
  std::string kind, reason;
  double calls = 0, expected_us = 0;  // of a call; 0: not known
  std::optional<double> loss;

  double time_us() const { return kind == "none" ? 0 : calls * expected_us; }
  // What a better kernel could save; where nobody knows, all of it.
  double at_stake_us() const { return kind == "exact" ? 0 : time_us() * (loss ? *loss / (1 + *loss) : 1); }
};

Result<Shape> read_line(const std::string& line) {
  try {
    const Json json = Json::parse(line);
    Shape shape;
    shape.op = json.at("op").get<std::string>();
    for (const auto& [name, value] : json.at("attributes").items()) {
      if (value.get_ref<const std::string&>().empty()) continue;
      shape.attributes += (shape.attributes.empty() ? "" : " ") + name + "=" + value.get<std::string>();
    }
    for (const auto& [name, value] : json.at("dims").items()) shape.dims[name] = exactly<std::int64_t>(value);
    const Words goal = split(json.value("goal", Goal{}.text()), ' ');
    if (goal.size() >= 2) {
      shape.goal.timing = goal[0];
      shape.goal.objective = goal[1].substr(0, goal[1].find(','));
      shape.goal.deterministic = goal.size() > 2;
    }
    shape.arch = json.value("arch", "");
    shape.device = json.value("device", "");
    shape.kind = json.at("kind").get<std::string>();
    shape.reason = json.value("reason", "");
    shape.calls = json.at("count").get<double>();
    shape.expected_us = json.value("expected_us", 0.0);
    if (json.contains("expected_loss")) shape.loss = json["expected_loss"].get<double>();
    return shape;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorKind::kBadInput,
                fmt::format("not a line of a trace ({}); KGEN_TRACE or kgen_record() writes them", error.what()));
  }
}

Result<std::vector<Shape>> read_trace(const std::string& path) {
  KGEN_TRY(const std::string text, read_file(path));
  std::map<std::tuple<std::string, std::string, std::string, Env>, Shape> shapes;
  int number = 0;
  for (const std::string& line : split(text, '\n')) {
    ++number;
    if (trim(line).empty()) continue;
    auto shape = read_line(line);
    if (!shape) return fail(ErrorKind::kBadInput, fmt::format("{}:{}:1: {}", path, number, shape.error().message));
    Shape& known = shapes[{shape->arch, shape->op, shape->attributes, shape->dims}];
    shape->calls += known.calls;
    known = std::move(*shape);  // the last line tells how it is served
  }
  std::vector<Shape> all;
  for (auto& [key, shape] : shapes) all.push_back(std::move(shape));
  return all;
}

// How the DB serves them now.
Result<void> look_up(const std::string& path, std::vector<Shape>& shapes) {
  KGEN_TRY(Db db, Db::open(path, DbMode::kReadOnly));
  const RowFilter whole = whole_code(db);
  std::map<std::pair<std::string, std::string>, Dispatcher> dispatchers;
  for (Shape& shape : shapes) {
    const std::pair target(shape.arch, shape.device);
    auto dispatcher = dispatchers.find(target);
    if (dispatcher == dispatchers.end()) {
      KGEN_TRY(Dispatcher loaded, Dispatcher::load(db, shape.arch, shape.device));
      dispatcher = dispatchers.emplace(target, std::move(loaded)).first;
    }
    shape.kind = "none";
    shape.loss.reset();
    const auto signature = dispatcher->second.signature(shape.op, shape.attributes);
    if (!signature) {
      shape.reason = signature.error().message;
      continue;
    }
    const Match match = dispatcher->second.find(*signature, shape.dims, shape.goal, whole);
    shape.kind = match_name(match.kind);
    shape.reason = match.reason;
    shape.loss = match.expected_loss;
    if (match.row != nullptr) shape.expected_us = expected_us(match);
  }
  return {};
}

// What to tune, worst first, as a spec file.
std::string spec_text(const std::vector<Shape>& shapes) {
  std::vector<std::pair<std::string, std::string>> groups;  // op's lines → problems
  for (const Shape& shape : shapes) {
    if (shape.kind == "exact" || shape.kind == "dynamic") continue;
    std::string head = "  - op: " + yaml_value(shape.op) + "\n";
    for (const std::string& word : split(shape.attributes, ' ')) {
      const std::size_t equals = word.find('=');
      if (equals != std::string::npos)
        head += fmt::format("    {}: {}\n", yaml_value(word.substr(0, equals)), yaml_value(word.substr(equals + 1)));
    }
    Words dims;
    for (const auto& [name, value] : shape.dims) dims.push_back(fmt::format("{}: {}", yaml_value(name), value));
    const std::string line = fmt::format("      - {{{}}}\n", join(dims, ", "));
    const auto known = std::ranges::find(groups, head, &std::pair<std::string, std::string>::first);
    if (known == groups.end()) {
      groups.emplace_back(head, line);
    } else if (known->second.find(line) == std::string::npos) {  // another architecture may have asked for it too
      known->second += line;
    }
  }
  if (groups.empty()) return "";
  std::string text =
      "# Written by kgen doctor: what a trace asked for and the database has no kernel of its own for, worst first.\n"
      "kgen: 1\nops:\n";
  for (const auto& [head, problems] : groups) text += head + "    problems:\n" + problems;
  return text;
}

std::string percent(double part, double whole) { return whole > 0 ? fmt::format("{:.1f}%", 100 * part / whole) : ""; }

}  // namespace

int cmd_doctor(const Context&, const Words& args) {
  std::string path, trace, out;
  std::int64_t top = 20;
  bool as_json = false, shipped = false;
  Options options("doctor", "[tuned.db] --trace misses.jsonl | misses.jsonl [flags]",
                  "What a program launched, against what is tuned for it; and the spec that fills the gaps.");
  options.argument("FILE", path,
                   "a tuned database, the one that ships with kgen where none is named; or the trace where --trace is "
                   "not given",
                   false);
  options.text("--trace", trace, "what KGEN_TRACE=FILE or kgen_record() wrote");
  options.text("-o,--out", out, "where the spec goes; beside the trace, as .yaml, by default");
  options.number("--top", top, 0, "rows of the table; 0: all");
  options.flag("--json", as_json, "one JSON document on stdout");
  if (const auto code = options.parse(args)) return *code;
  const bool against_db = !trace.empty();
  if (!against_db) trace = path;
  if (trace.empty()) return report({ErrorKind::kBadInput, "doctor: the trace is missing; see 'kgen doctor --help'"});
  auto shapes = read_trace(trace);
  if (!shapes) return report(shapes.error());
  if (against_db) {
    shipped = path.empty();
    const auto named = named_db(path);
    if (!named) return report(named.error());
    path = *named;
    if (const auto done = look_up(path, *shapes); !done) return report(done.error());
  }
  std::ranges::stable_sort(*shapes, [](const Shape& a, const Shape& b) {
    const auto rank = [](const Shape& s) {
      return std::tuple(s.kind != "none", -s.at_stake_us(), -s.time_us(), -s.calls);
    };
    return rank(a) < rank(b);
  });
  double total_us = 0, unserved = 0;
  std::map<std::string, double> by_kind;
  for (const Shape& shape : *shapes) {
    total_us += shape.time_us();
    by_kind[shape.kind] += shape.time_us();
    if (shape.kind == "none") unserved += shape.calls;
  }
  const std::string spec = spec_text(*shapes);
  if (out.empty()) out = (trace.ends_with(".jsonl") ? trace.substr(0, trace.size() - 6) : trace) + ".yaml";
  if (!spec.empty()) {
    if (const auto done = write_file(out, spec); !done) return report(done.error());
  }
  // What asks for several goals is tuned for the one that has the most at stake.
  const auto first =
      std::ranges::find_if(*shapes, [](const Shape& s) { return s.kind != "exact" && s.kind != "dynamic"; });
  const std::string command =
      spec.empty() ? ""
                   : fmt::format("kgen tune {} --db {}{}", shell_quoted(out),
                                 shell_quoted(against_db && !shipped ? path : "tuned.db"), goal_flags(first->goal));
  if (as_json) {
    Json json{
        {"shapes", Json::array()}, {"time_us", total_us}, {"time_us_by_kind", by_kind}, {"calls_not_served", unserved}};
    for (const Shape& shape : *shapes)
      json["shapes"].push_back(
          {{"op", shape.op},
           {"attributes", signature_attributes(shape.op + " " + shape.attributes)},
           {"dims", shape.dims},
           {"arch", shape.arch},
           {"match", shape.kind},
           {"reason", shape.reason},
           {"calls", shape.calls},
           {"expected_us", shape.expected_us > 0 && shape.kind != "none" ? Json(shape.expected_us) : Json()},
           {"expected_loss", shape.loss ? Json(*shape.loss) : Json()},
           {"at_stake_us", shape.at_stake_us()}});
    json["db"] = against_db ? Json(path) : Json();
    json["spec"] = spec.empty() ? Json() : Json(out);
    json["command"] = spec.empty() ? Json() : Json(command);
    print_json(json);
    return 0;
  }
  Table table({"op", "shape", "served", "calls", "time ms", "share", "loss", "at stake ms"});
  std::size_t rows = 0;
  for (const Shape& shape : *shapes) {
    if (top > 0 && rows++ == static_cast<std::size_t>(top)) break;
    Words dims;
    for (const auto& [name, value] : shape.dims) dims.push_back(fmt::format("{}={}", name, value));
    table.add({shape.op + (shape.attributes.empty() ? "" : " " + shape.attributes), join(dims, " "), shape.kind,
               fmt::format("{:.0f}", shape.calls), number(shape.time_us() / 1000), percent(shape.time_us(), total_us),
               shape.loss ? fmt::format("{:.1f}%", 100 * *shape.loss) : "", number(shape.at_stake_us() / 1000)});
  }
  table.print();
  if (shapes->size() > rows && top > 0) fmt::print("… and {} more (--top 0 shows all)\n", shapes->size() - rows);
  Words parts;
  for (const char* kind : {"exact", "dynamic", "near", "default"}) {
    if (by_kind.contains(kind)) parts.push_back(fmt::format("{} {}", percent(by_kind[kind], total_us), kind));
  }
  fmt::print("\n{} shapes, {} ms: {}", shapes->size(), number(total_us / 1000), join(parts, ", "));
  if (unserved > 0) fmt::print("; {:.0f} calls found nothing", unserved);
  fmt::print("\n");
  if (against_db) fmt::print("looked up in {}{}\n", path, shipped ? ", which ships with kgen" : "");
  if (spec.empty()) {
    fmt::print("every shape has a kernel of its own\n");
  } else {
    fmt::print("what to tune, worst first, is in {}:\n  {}\n", out, command);
  }
  return 0;
}

}  // namespace kgen
