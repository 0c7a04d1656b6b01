// Reads what the user asks for: ops.yaml and entry lists, expanded into problems.
#include "generator/spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>

#include "base/text.h"
#include "generator/keys.h"
#include "generator/yaml.h"

namespace kgen {

namespace fs = std::filesystem;

namespace {

// More than any model has; a cross product beyond it is a typing error, not a wish.
constexpr std::size_t kMaxProblems = 100'000;
constexpr std::size_t kMaxFiles = 1000;

// Builds the error for one named value ("" = the problem as a whole).
using Blame = std::function<tl::unexpected<Error>(const std::string& name, const std::string& what)>;

std::vector<std::string> setting_names(const OpDef& op) {
  std::vector<std::string> names;
  for (const DimDef& dim : op.dims) names.push_back(dim.name);
  for (const AttributeDef& attribute : op.attributes) names.push_back(attribute.name);
  for (const Param& scalar : op.scalars) names.push_back(scalar.name);
  return names;
}

const AttributeDef* find_attribute(const OpDef& op, std::string_view name) {
  for (const AttributeDef& attribute : op.attributes) {
    if (attribute.name == name) return &attribute;
  }
  return nullptr;
}

std::vector<std::string> list_words(const std::string& joined) {
  return joined.empty() ? std::vector<std::string>() : split(joined, ',');
}

Result<std::string> attribute_value(const AttributeDef& attribute, std::string value, const Blame& blame) {
  const auto allow = [&](const std::string& word) -> Result<void> {
    if (attribute.fixed && value != attribute.default_text) {
      return blame(attribute.name, fmt::format("{} is always '{}' here", attribute.name, attribute.default_text));
    }
    const bool integers = attribute.kind == AttributeDef::Kind::kInt || attribute.kind == AttributeDef::Kind::kInts;
    if (integers && attribute.values.empty()) return {};
    if (std::find(attribute.values.begin(), attribute.values.end(), word) != attribute.values.end()) return {};
    std::string hint = did_you_mean(word, attribute.values);
    if (hint.empty()) hint = fmt::format("; choose from {}", join(attribute.values, ", "));
    return blame(attribute.name, fmt::format("'{}' is not a value of {}{}", word, attribute.name, hint));
  };
  if (attribute.axis && value.find(',') != std::string::npos) {
    std::set<std::string> sorted;
    for (const std::string& word : list_words(value)) {
      KGEN_CHECK_OK(allow(word));
      sorted.insert(word);
    }
    return join(std::vector<std::string>(sorted.begin(), sorted.end()), ",");
  }
  if (attribute.kind == AttributeDef::Kind::kExpression) {
    const auto expression = Expression::parse(value, attribute.values);
    if (!expression) return blame(attribute.name, fmt::format("{}: {}", attribute.name, expression.error().message));
    return expression->text;
  }
  if (attribute.kind == AttributeDef::Kind::kList) {
    std::set<std::string> seen;
    for (const std::string& word : list_words(value)) {
      KGEN_CHECK_OK(allow(word));
      if (!seen.insert(word).second) {
        return blame(attribute.name, fmt::format("'{}' stands twice in {}", word, attribute.name));
      }
    }
    return value;
  }
  if (attribute.kind == AttributeDef::Kind::kInts) {
    std::vector<std::string> numbers = list_words(value);
    if (numbers.empty() || numbers.size() > kMaxInts) {
      return blame(attribute.name, fmt::format("{} takes 1 to {} integers", attribute.name, kMaxInts));
    }
    for (std::string& word : numbers) {
      const auto number = parse_int(std::string(trim(word)));
      if (!number) return blame(attribute.name, fmt::format("{}: {}", attribute.name, number.error().message));
      word = std::to_string(*number);
      KGEN_CHECK_OK(allow(word));
    }
    return join(numbers, ",");
  }
  if (attribute.kind == AttributeDef::Kind::kInt) {
    if (value == "true") value = "1";
    if (value == "false") value = "0";
    const auto number = parse_int(value);
    if (!number) return blame(attribute.name, fmt::format("{}: {}", attribute.name, number.error().message));
    value = std::to_string(*number);
  }
  KGEN_CHECK_OK(allow(value));
  return value;
}

// Sizes that no device can hold are an overflow, found here and not in the middle of a launch.
Result<void> check_sizes(const OpDef& op, const Env& env, const Blame& blame) {
  constexpr __int128 kLimit = __int128{1} << 53;
  for (const ArgumentDef& argument : op.arguments) {
    const Param& param = argument.param;
    const auto exists = param.present.eval(env);
    if (!exists) return blame("", fmt::format("'{}' when: {}", param.name, exists.error().message));
    if (*exists == 0) continue;
    __int128 elements = 1, extent = 1;
    for (std::size_t axis = 0; axis < param.shape.size(); ++axis) {
      const auto length = param.shape[axis].eval(env);
      const auto stride = param.strides[axis].eval(env);
      if (!length || !stride) {
        return blame("", fmt::format("shape of '{}': {}", param.name, (length ? stride : length).error().message));
      }
      if (*length < 0 || *stride < 0) {
        return blame("", fmt::format("shape of '{}': axis {} has length {} and stride {}; none may be negative",
                                     param.name, axis, *length, *stride));
      }
      elements *= *length;
      extent += (__int128{*length} - 1) * *stride;
      if (elements >= kLimit || extent >= kLimit) {
        return blame("",
                     fmt::format("'{}' overflows: it would have 2^53 elements or more; give smaller dims", param.name));
      }
    }
  }
  for (const auto& [what, text] : {std::pair{"flops", &op.flops_text}, {"bytes", &op.bytes_text}}) {
    KGEN_TRY(const Expr cost, Expr::parse(*text));
    const auto value = cost.eval(env);
    if (!value) return blame("", fmt::format("{} of the problem: {}; give smaller dims", what, value.error().message));
  }
  return {};
}

Result<Problem> build_problem(const OpDef& op, const std::map<std::string, std::string>& values, const Blame& blame) {
  Problem problem;
  for (const AttributeDef& attribute : op.attributes) {
    const auto given = values.find(attribute.name);
    if (!attribute.axis || given == values.end()) continue;
    KGEN_TRY(const std::string value, attribute_value(attribute, given->second, blame));
    const std::vector<std::string> allowed = allowed_values(attribute, value);
    if (allowed.size() < 2) continue;
    // Every value must make a problem, and the same one.
    for (const std::string& word : allowed) {
      std::map<std::string, std::string> settled = values;
      settled[attribute.name] = word;
      KGEN_TRY(Problem part, build_problem(op, settled, blame));
      part.attributes[attribute.name] = value;
      if (word != allowed.front() && (part.dims != problem.dims || part.attributes != problem.attributes)) {
        return blame(attribute.name, fmt::format("{} cannot take several values here: dims or attributes depend on it",
                                                 attribute.name));
      }
      problem = std::move(part);
    }
    return problem;
  }
  for (const AttributeDef& attribute : op.attributes) {
    std::string value;
    if (const auto given = values.find(attribute.name); given != values.end()) {
      value = given->second;
    } else if (const auto earlier = problem.attributes.find(attribute.default_text);
               earlier != problem.attributes.end()) {
      value = earlier->second;
    } else if (!attribute.default_text.empty() || attribute.kind == AttributeDef::Kind::kList) {
      value = attribute.default_text;
    } else {
      return blame("", fmt::format("op {} needs '{}'; add {}: {}", op.name, attribute.name, attribute.name,
                                   attribute.kind == AttributeDef::Kind::kExpression ? "\"" + op.expression->text + "\""
                                                                                     : join(attribute.values, " or ")));
    }
    KGEN_TRY(problem.attributes[attribute.name], attribute_value(attribute, value, blame));
    if (attribute.kind == AttributeDef::Kind::kExpression &&
        problem.attributes[attribute.name] != op.expression->text) {
      return blame(attribute.name, fmt::format("the operator was made by '{}', not by '{}'", op.expression->text,
                                               problem.attributes[attribute.name]));
    }
  }
  const std::vector<std::string> known = setting_names(op);
  for (const auto& [name, value] : values) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    return blame(name,
                 fmt::format("unknown dim or attribute '{}' of op {}{}", name, op.name, did_you_mean(name, known)));
  }
  Env env = operator_env(op, problem);
  for (const DimDef& dim : op.dims) {
    std::int64_t value = 0;
    if (const auto given = values.find(dim.name); given != values.end()) {
      const auto number = parse_int(given->second);
      if (!number) return blame(dim.name, fmt::format("dim {}: {}", dim.name, number.error().message));
      value = *number;
    } else if (!dim.default_text.empty()) {
      KGEN_TRY(const Expr expr, Expr::parse(dim.default_text));
      const auto number = expr.eval(env);
      if (!number) {
        return blame(
            "", fmt::format("dim {} = {}: {}; give smaller dims", dim.name, dim.default_text, number.error().message));
      }
      value = *number;
    } else {
      return blame("", fmt::format("op {} needs the dim '{}'; add it", op.name, dim.name));
    }
    if (value < 0) return blame(dim.name, fmt::format("dim {} is {}; it must not be negative", dim.name, value));
    problem.dims[dim.name] = value;
    env[dim.name] = value;
  }
  for (const Param& scalar : op.scalars) {
    const auto given = values.find(scalar.name);
    if (given == values.end()) continue;
    char* end = nullptr;
    const double number = std::strtod(given->second.c_str(), &end);
    if (given->second.empty() || *end != '\0') {
      return blame(scalar.name, fmt::format("scalar {}: '{}' is not a number", scalar.name, given->second));
    }
    problem.scalars[scalar.name] = number;
  }
  for (const Rule& rule : op.rules) {
    const auto holds = rule.require.eval(env);
    if (!holds) return blame("", holds.error().message);
    if (*holds == 0) return blame("", fmt::format("{} ('{}' does not hold)", rule.because, rule.require.text()));
  }
  KGEN_CHECK_OK(check_sizes(op, env, blame));
  return problem;
}

// A named value of an entry, with all its alternatives.
struct Setting {
  std::vector<std::string> alternatives;  // of a dynamic dim: its first and its last size
  Yaml node;
  bool dynamic = false;
};
// In the order in which they were first named, so that problems come out in a stable order.
class Settings {
 public:
  void set(const std::string& name, Setting setting) {
    const auto found = std::find_if(list_.begin(), list_.end(), [&](const auto& item) { return item.first == name; });
    if (found != list_.end()) {
      found->second = std::move(setting);
    } else {
      list_.emplace_back(name, std::move(setting));
    }
  }
  const std::vector<std::pair<std::string, Setting>>& list() const { return list_; }

 private:
  std::vector<std::pair<std::string, Setting>> list_;
};

Result<Setting> read_setting(const OpDef& op, const std::string& name, const Yaml& value) {
  Setting setting{{}, value};
  const AttributeDef* attribute = find_attribute(op, name);
  if (attribute && (attribute->kind == AttributeDef::Kind::kList || attribute->kind == AttributeDef::Kind::kInts ||
                    (attribute->axis && value.is_list()))) {
    const bool of_lists = value.is_list() && !value.items().empty() && value.items()[0].is_list();
    const std::vector<Yaml> lists = of_lists ? value.items() : std::vector<Yaml>{value};
    for (const Yaml& list : lists) {
      std::vector<std::string> words;
      if (!list.is_null()) {
        KGEN_TRY(words, list.as_words(name));
      }
      for (const std::string& word : words) {
        if (word.empty() || word.find(',') != std::string::npos) {
          return list.fail(fmt::format("'{}' is not a value of {}", word, name));
        }
      }
      setting.alternatives.push_back(join(words, ","));
    }
    return setting;
  }
  if (value.is_map()) {
    if (std::find_if(op.dims.begin(), op.dims.end(), [&](const DimDef& dim) { return dim.name == name; }) ==
        op.dims.end())
      return value.fail(fmt::format("{} is no dim; only a dim may be a range", name));
    KGEN_CHECK_OK(value.expect_keys(name, keys_of("range")));
    KGEN_TRY(const Yaml range, value.need(name, "range"));
    KGEN_CHECK_OK(range.expect_list(fmt::format("the range of {}", name)));
    if (range.items().size() != 2)
      return range.fail(fmt::format("the range of {} is its first and its last size, as in [1, 4096]", name));
    std::vector<std::int64_t> ends;
    for (const Yaml& end : range.items()) {
      KGEN_TRY(ends.emplace_back(), end.as_int(fmt::format("the range of {}", name)));
      setting.alternatives.push_back(std::to_string(ends.back()));
    }
    if (ends[0] < 1) return range.items()[0].fail(fmt::format("the range of {} begins at 1 or later", name));
    if (ends[1] < ends[0])
      return range.items()[1].fail(
          fmt::format("the range of {} is empty: {} is below {}; give [first, last]", name, ends[1], ends[0]));
    setting.dynamic = true;
    return setting;
  }
  KGEN_TRY(setting.alternatives, value.as_words(name));
  if (setting.alternatives.empty()) return value.fail(fmt::format("{} has no values; give at least one", name));
  return setting;
}

class SpecReader {
 public:
  explicit SpecReader(std::string_view op_glob) : op_glob_(op_glob) {}

  Result<void> read_file_at(const std::string& path, const std::function<tl::unexpected<Error>(std::string)>& blame) {
    auto text = read_file(path);
    if (!text) return blame(text.error().message);
    return read_text(*text, path);
  }

  Result<void> read_text(std::string_view text, const std::string& path) {
    std::error_code ignored;
    const std::string identity = fs::weakly_canonical(path, ignored).string();
    if (std::find(open_files_.begin(), open_files_.end(), identity) != open_files_.end()) {
      return fail(ErrorKind::kBadInput, fmt::format("{}: includes itself; remove the include", path));
    }
    if (++files_ > kMaxFiles) return fail(ErrorKind::kBadInput, fmt::format("{}: more than {} files", path, kMaxFiles));
    open_files_.push_back(identity);
    KGEN_TRY(const Yaml root, Yaml::parse(text, path));
    KGEN_CHECK_OK(read_root(root, path));
    open_files_.pop_back();
    return {};
  }

  std::vector<OpSpec> take() { return std::move(specs_); }

 private:
  Result<void> read_root(const Yaml& root, const std::string& path) {
    if (root.is_null()) return root.fail("the spec is empty; it needs 'ops:' or 'entries:' (see docs/op-format.md)");
    KGEN_CHECK_OK(root.expect_keys("a spec", keys_of("spec")));
    if (const Yaml* version = root.find("kgen")) {
      KGEN_TRY(const std::int64_t number, version->as_int("kgen"));
      if (number != 1) return version->fail(fmt::format("format {} is not known; this kgen reads format 1", number));
    }
    const Yaml* ops = root.find("ops");
    const Yaml* entries = root.find("entries");
    const Yaml* include = root.find("include");
    if (!ops && !entries && !include) {
      return root.fail("the spec asks for nothing; add 'ops:', 'entries:' or 'include:'");
    }
    const Yaml* defaults = root.find("defaults");
    if (defaults) KGEN_CHECK_OK(defaults->expect_map("defaults"));
    const std::string folder = fs::path(path).parent_path().string();
    used_defaults_.clear();
    known_settings_.clear();
    bool skipped = false;
    for (const auto& [list, is_entry] : {std::pair{ops, false}, {entries, true}}) {
      if (!list) continue;
      KGEN_CHECK_OK(list->expect_list(is_entry ? "entries" : "ops"));
      for (const Yaml& item : list->items()) {
        KGEN_TRY(const auto op, op_of(item, folder));
        if (!op) {
          skipped = true;
          continue;
        }
        KGEN_CHECK_OK(is_entry ? read_entry(op, item, defaults) : read_op(op, item, defaults));
      }
    }
    if (defaults && !skipped && (ops || entries)) {
      for (const auto& [key, value] : defaults->entries()) {
        if (key.text() == "tune" || used_defaults_.count(key.text())) continue;
        const std::vector<std::string> known(known_settings_.begin(), known_settings_.end());
        return key.fail(fmt::format("no op of this file has '{}'{}", key.text(), did_you_mean(key.text(), known)));
      }
    }
    if (!include) return {};
    KGEN_TRY(const std::vector<std::string> paths, include->as_words("include"));
    for (std::size_t i = 0; i < paths.size(); ++i) {
      const Yaml& node = include->is_list() ? include->items()[i] : *include;
      const std::string inner = (fs::path(folder) / paths[i]).lexically_normal().string();
      std::error_code ignored;
      if (!fs::is_regular_file(inner, ignored)) {
        return node.fail(fmt::format("include: there is no file '{}'; paths are relative to this file", inner));
      }
      KGEN_CHECK_OK(read_file_at(inner, [&](const std::string& what) { return node.fail("include: " + what); }));
    }
    return {};
  }

  // The op of an item, loaded once; null when the caller did not ask for it.
  Result<std::shared_ptr<const OpDef>> op_of(const Yaml& item, const std::string& folder) {
    KGEN_TRY(const Yaml node, item.need("an entry", "op"));
    KGEN_TRY(const std::string written, node.as_text("op"));
    const bool is_path = written.find('/') != std::string::npos || written.ends_with(".yaml");
    const std::string name = is_path ? fs::path(written).stem().string() : written;
    if (!glob_match(op_glob_, name) && !glob_match(op_glob_, written)) return std::shared_ptr<const OpDef>();
    const std::string key = is_path ? (fs::path(folder) / written).lexically_normal().string() : written;
    if (const auto known = ops_.find(key); known != ops_.end()) return known->second;
    // A path stays one even when nothing of its folder is left ("./x.yaml" beside the spec).
    const std::string target = is_path && key.find('/') == std::string::npos ? "./" + key : key;
    std::error_code ignored;
    const bool exists = !is_path || fs::is_regular_file(target, ignored);
    auto op = load_op(target);
    // What is wrong inside a definition is told at its place, what is wrong with its name here.
    if (!op && (!exists || !is_path)) return node.fail(op.error().message);
    if (!op) return tl::unexpected(op.error());
    ops_[key] = *op;
    return *op;
  }

  // For an operator made by an expression: by the one that the last of `maps` with one names, the first of a list.
  Result<std::shared_ptr<const OpDef>> made_by(std::shared_ptr<const OpDef> op, const std::vector<const Yaml*>& maps) {
    const AttributeDef* attribute = expression_attribute(*op);
    if (!attribute) return op;
    for (auto map = maps.rbegin(); map != maps.rend(); ++map) {
      const Yaml* node = *map && !(*map)->is_list() ? (*map)->find(attribute->name) : nullptr;
      if (!node) continue;
      KGEN_TRY(const std::vector<std::string> words, node->as_words(attribute->name));
      if (words.empty()) continue;
      auto made = made_by_text(op, words[0]);
      if (!made) return node->fail(made.error().message);
      return made;
    }
    return op;
  }
  Result<std::shared_ptr<const OpDef>> made_by_text(const std::shared_ptr<const OpDef>& op, const std::string& text) {
    std::shared_ptr<const OpDef>& known = ops_[op->file + '\n' + text];
    if (!known) {
      KGEN_TRY(known, specialise(op, text));
    }
    return known;
  }

  Result<void> read_op(const std::shared_ptr<const OpDef>& base, const Yaml& item, const Yaml* defaults) {
    Settings settings;
    TuneOptions tune;
    KGEN_TRY(const auto op, made_by(base, {defaults, &item}));
    KGEN_CHECK_OK(apply_defaults(*op, defaults, settings, tune));
    KGEN_CHECK_OK(read_settings(*op, item, keys_of("ops"), settings));
    std::string label;
    if (const Yaml* name = item.find("name")) {
      KGEN_TRY(label, name->as_text("name"));
    }
    if (const Yaml* node = item.find("tune")) KGEN_CHECK_OK(read_tune(*op, *node, tune));
    const Yaml* problems = item.find("problems");
    if (!problems) return expand(op, settings, tune, label, 1, item);
    KGEN_CHECK_OK(problems->expect_list("problems"));
    for (const Yaml& problem : problems->items()) {
      Settings own = settings;
      KGEN_CHECK_OK(problem.expect_map("a problem"));
      KGEN_TRY(const auto own_op, made_by(op, {&problem}));
      KGEN_CHECK_OK(read_settings(*own_op, problem, keys_of("problems"), own));
      std::string own_label = label;
      if (const Yaml* name = problem.find("name")) {
        KGEN_TRY(own_label, name->as_text("name"));
      }
      KGEN_CHECK_OK(expand(op, own, tune, own_label, 1, problem));
    }
    return {};
  }

  Result<void> read_entry(const std::shared_ptr<const OpDef>& base, const Yaml& item, const Yaml* defaults) {
    Settings settings;
    TuneOptions tune;
    KGEN_TRY(const auto op, made_by(base, {defaults, &item, item.find("dims"), item.find("params")}));
    KGEN_CHECK_OK(apply_defaults(*op, defaults, settings, tune));
    KGEN_CHECK_OK(read_settings(*op, item, keys_of("entries"), settings));
    for (const char* part : {"dims", "params"}) {
      const Yaml* map = item.find(part);
      if (!map) continue;
      KGEN_CHECK_OK(map->expect_map(part));
      KGEN_CHECK_OK(read_settings(*op, *map, {}, settings));
    }
    if (const Yaml* node = item.find("tune")) KGEN_CHECK_OK(read_tune(*op, *node, tune));
    std::string label;
    const Yaml* id = item.find("id");
    if (!id) id = item.find("name");
    if (id) {
      KGEN_TRY(label, id->as_text("id"));
    }
    std::int64_t count = 1;
    if (const Yaml* node = item.find("count")) {
      KGEN_TRY(count, node->as_int("count"));
      if (count < 0 || count > 1'000'000'000) return node->fail("count must lie between 0 and 1000000000");
    }
    return expand(op, settings, tune, label, static_cast<int>(count), item);
  }

  Result<void> apply_defaults(const OpDef& op, const Yaml* defaults, Settings& settings, TuneOptions& tune) {
    const std::vector<std::string> known = setting_names(op);
    known_settings_.insert(known.begin(), known.end());
    if (!defaults) return {};
    for (const auto& [key, value] : defaults->entries()) {
      if (key.text() == "tune") {
        KGEN_CHECK_OK(read_tune(op, value, tune));
        continue;
      }
      if (std::find(known.begin(), known.end(), key.text()) == known.end()) continue;
      used_defaults_.insert(key.text());
      KGEN_TRY(Setting setting, read_setting(op, key.text(), value));
      settings.set(key.text(), std::move(setting));
    }
    return {};
  }

  // Every key of `map` but `other` is a dim, an attribute or a scalar.
  static Result<void> read_settings(const OpDef& op, const Yaml& map, const std::vector<std::string>& other,
                                    Settings& settings) {
    const std::vector<std::string> known = setting_names(op);
    for (const auto& [key, value] : map.entries()) {
      const std::string& name = key.text();
      if (std::find(other.begin(), other.end(), name) != other.end()) continue;
      if (std::find(known.begin(), known.end(), name) == known.end()) {
        std::vector<std::string> all = known;
        all.insert(all.end(), other.begin(), other.end());
        std::string hint = did_you_mean(name, all);
        if (hint.empty()) hint = fmt::format("; {} has {}", op.name, join(known, ", "));
        return key.fail(fmt::format("unknown dim or attribute '{}' of op {}{}", name, op.name, hint));
      }
      KGEN_TRY(Setting setting, read_setting(op, name, value));
      settings.set(name, std::move(setting));
    }
    return {};
  }

  static Result<void> read_tune(const OpDef& op, const Yaml& node, TuneOptions& tune) {
    KGEN_CHECK_OK(node.expect_keys("tune", keys_of("tune")));
    if (const Yaml* budget = node.find("budget")) {
      KGEN_TRY(const std::int64_t number, budget->as_int("budget"));
      if (number < 1 || number > 1'000'000'000) return budget->fail("budget must be at least 1 candidate");
      tune.budget = static_cast<int>(number);
    }
    if (const Yaml* deterministic = node.find("deterministic")) {
      KGEN_TRY(tune.deterministic, deterministic->as_bool("deterministic"));
    }
    if (const Yaml* most = node.find("max_kernels")) {
      KGEN_TRY(const std::int64_t number, most->as_int("max_kernels"));
      if (number < 1 || number > 1000) return most->fail("max_kernels must lie between 1 and 1000");
      tune.max_kernels = static_cast<int>(number);
    }
    if (const Yaml* regret = node.find("regret")) {
      KGEN_TRY(tune.regret, regret->as_number("regret"));
      if (!(tune.regret >= 0 && tune.regret <= 1))
        return regret->fail("regret is a share of the best time, from 0 to 1; write 0.03 for 3 %");
    }
    const Yaml* params = node.find("params");
    if (!params) return {};
    KGEN_CHECK_OK(params->expect_map("tune params"));
    std::vector<std::string> known;
    for (const VariantDef& variant : op.variants) {
      for (const TunableDef& tunable : variant.tunables) {
        if (std::find(known.begin(), known.end(), tunable.name) == known.end()) known.push_back(tunable.name);
      }
    }
    for (const auto& [key, value] : params->entries()) {
      if (std::find(known.begin(), known.end(), key.text()) == known.end()) {
        std::string hint = did_you_mean(key.text(), known);
        if (hint.empty()) hint = fmt::format("; {} has {}", op.name, join(known, ", "));
        return key.fail(fmt::format("unknown tunable '{}' of op {}{}", key.text(), op.name, hint));
      }
      KGEN_TRY(std::vector<std::string> words, value.as_words(key.text()));
      if (words.empty()) return value.fail(fmt::format("{} has no values; give at least one", key.text()));
      for (const std::string& word : words) KGEN_CHECK_OK(check_tunable(op, key.text(), word, value));
      std::vector<std::string> unique;
      for (std::string& word : words) {
        if (std::find(unique.begin(), unique.end(), word) == unique.end()) unique.push_back(std::move(word));
      }
      tune.params[key.text()] = std::move(unique);
    }
    return {};
  }

  static Result<void> check_tunable(const OpDef& op, const std::string& name, const std::string& word,
                                    const Yaml& node) {
    std::vector<std::string> enumerators;
    bool numeric = false;
    for (const VariantDef& variant : op.variants) {
      for (const TunableDef& tunable : variant.tunables) {
        if (tunable.name != name) continue;
        numeric = numeric || !tunable.symbolic;
        if (tunable.symbolic) {
          enumerators.insert(enumerators.end(), tunable.values.begin(), tunable.values.end());
        }
      }
    }
    if (numeric) {
      const auto number = parse_int(word);
      if (!number) return node.fail(fmt::format("{}: {}", name, number.error().message));
      if (std::to_string(*number) != word || *number < INT_MIN || *number > INT_MAX) {
        return node.fail(fmt::format("{}: '{}' is no plain 32-bit number", name, word));
      }
    } else if (std::find(enumerators.begin(), enumerators.end(), word) == enumerators.end()) {
      return node.fail(fmt::format("'{}' is not a value of {}{}", word, name, did_you_mean(word, enumerators)));
    }
    return {};
  }

  // One problem for each combination of the settings' alternatives; the first setting varies slowest.
  Result<void> expand(const std::shared_ptr<const OpDef>& op, const Settings& settings, const TuneOptions& tune,
                      const std::string& label, int count, const Yaml& where) {
    const auto& list = settings.list();
    std::size_t total = 1;
    const std::pair<std::string, Setting>* dynamic = nullptr;
    for (const auto& item : list) {
      const Setting& setting = item.second;
      if (setting.dynamic && dynamic != nullptr)
        return setting.node.fail(
            fmt::format("{} and {} are both ranges; one dim of a problem may be one", dynamic->first, item.first));
      if (setting.dynamic) dynamic = &item;
      total *= setting.dynamic ? 1 : setting.alternatives.size();
      if (total + specs_.size() > kMaxProblems) {
        return where.fail(fmt::format("the lists expand to more than {} problems; shorten them", kMaxProblems));
      }
    }
    const Blame blame = [&](const std::string& name, const std::string& what) {
      for (const auto& [other, setting] : list) {
        if (other == name) return setting.node.fail(what);
      }
      return where.fail(what);
    };
    for (std::size_t index = 0; index < total; ++index) {
      std::map<std::string, std::string> values;
      std::size_t rest = index;
      for (auto item = list.rbegin(); item != list.rend(); ++item) {
        const std::vector<std::string>& alternatives = item->second.alternatives;
        const std::size_t choices = item->second.dynamic ? 1 : alternatives.size();
        values[item->first] = item->second.dynamic ? alternatives.back() : alternatives[rest % choices];
        rest /= choices;
      }
      std::shared_ptr<const OpDef> made = op;
      if (const AttributeDef* attribute = expression_attribute(*op); attribute && values.count(attribute->name)) {
        auto by_text = made_by_text(op, values[attribute->name]);
        if (!by_text) return blame(attribute->name, by_text.error().message);
        made = std::move(*by_text);
      }
      KGEN_TRY(Problem problem, build_problem(*made, values, blame));
      problem.label = label;
      problem.count = count;
      OpSpec spec{
          .op = made, .problem = std::move(problem), .tune = tune, .dynamic = std::nullopt, .where = where.where()};
      if (dynamic != nullptr) {
        const std::vector<std::string>& ends = dynamic->second.alternatives;
        spec.dynamic = DynamicDim{dynamic->first, std::stoll(ends.front()), std::stoll(ends.back())};
        if (const auto first = at_size(spec, spec.dynamic->first); !first)
          return dynamic->second.node.fail(first.error().message);
      }
      specs_.push_back(std::move(spec));
    }
    return {};
  }

  std::string op_glob_;
  std::vector<OpSpec> specs_;
  std::map<std::string, std::shared_ptr<const OpDef>> ops_;
  std::vector<std::string> open_files_;
  std::size_t files_ = 0;
  std::set<std::string> used_defaults_, known_settings_;  // of the file that is being read
};

}  // namespace

Env operator_env(const OpDef& op, const Problem& problem) {
  Env env;
  const auto add_symbol = [&](std::string_view name) { env.emplace(name, symbol_value(name)); };
  for (const ArchInfo& arch : all_archs()) {
    add_symbol(arch.name);
    add_symbol(arch.family);
    add_symbol(arch.matrix_unit);
  }
  for (const char* name : {"amd", "nvidia", "host", "none"}) add_symbol(name);
  for (const std::string& name : dtype_names()) add_symbol(name);
  for (const VariantDef& variant : op.variants) {
    for (const TunableDef& tunable : variant.tunables) {
      if (!tunable.symbolic) continue;
      for (const std::string& value : tunable.values) add_symbol(value);
    }
  }
  for (const AttributeDef& attribute : op.attributes) {
    if (attribute.kind == AttributeDef::Kind::kEnum) {
      for (const std::string& value : attribute.values) add_symbol(value);
    }
    const auto given = problem.attributes.find(attribute.name);
    if (given == problem.attributes.end()) continue;
    const std::string value = attribute.axis ? allowed_values(attribute, given->second).front() : given->second;
    switch (attribute.kind) {
      case AttributeDef::Kind::kDType:
        if (const auto dtype = find_dtype(value)) env[attribute.name + "_bytes"] = dtype_bytes(*dtype);
        [[fallthrough]];
      case AttributeDef::Kind::kEnum:
        env[attribute.name] = symbol_value(value);
        break;
      case AttributeDef::Kind::kInt:
        if (const auto number = parse_int(value)) env[attribute.name] = *number;
        break;
      case AttributeDef::Kind::kExpression:
        if (!op.expression) break;
        for (std::size_t kind = 0; kind < kOperandKinds.size(); ++kind) {
          env[fmt::format("{}_{}", attribute.name, kOperandKinds[kind])] =
              static_cast<std::int64_t>(op.expression->operands[kind].size());
        }
        env[attribute.name + "_operations"] = op.expression->operations;
        break;
      case AttributeDef::Kind::kInts: {
        const std::vector<std::string> words = list_words(value);
        std::int64_t most = INT64_MIN;
        for (int i = 0; i < kMaxInts; ++i) {
          const bool here = static_cast<std::size_t>(i) < words.size();
          const std::int64_t number = here ? parse_int(words[static_cast<std::size_t>(i)]).value_or(0) : 0;
          if (here) most = std::max(most, number);
          env[fmt::format("{}_{}", attribute.name, i + 1)] = number;
        }
        env[attribute.name + "_count"] = static_cast<std::int64_t>(words.size());
        env[attribute.name + "_max"] = words.empty() ? 0 : most;
        break;
      }
      case AttributeDef::Kind::kList: {
        const std::vector<std::string> words = list_words(value);
        for (const std::string& word : attribute.values) {
          const auto at = std::find(words.begin(), words.end(), word);
          env[attribute.name + "_" + word] = at == words.end() ? 0 : at - words.begin() + 1;
        }
        break;
      }
    }
  }
  for (const auto& [name, value] : problem.dims) env[name] = value;
  return env;
}

void add_arch_facts(Env& env, Arch arch) {
  constexpr std::string_view kVendors[] = {"host", "amd", "nvidia"};
  env["arch"] = symbol_value(arch->name);
  env["vendor"] = symbol_value(kVendors[static_cast<int>(arch->vendor)]);
  env["family"] = symbol_value(arch->family);
  env["matrix_unit"] = symbol_value(arch->matrix_unit);
  env["wave_size"] = arch->wave_size;
  env["lds_limit"] = arch->lds_limit;
  env["max_block"] = arch->max_block;
  env["max_registers"] = arch->max_registers;
  env["async_copy"] = arch->async_copy;
  env["bf16_matrix"] = arch->bf16_matrix;
  env["fp16_matrix"] = arch->fp16_matrix;
  env["fp32_matrix"] = arch->fp32_matrix;
  env["max_cluster"] = arch->max_cluster;
  env["bulk_copy"] = arch->bulk_copy;
  env["warpgroup_mma"] = arch->warpgroup_mma;
}

std::vector<std::string> allowed_values(const AttributeDef& attribute, const std::string& value) {
  if (!attribute.axis) return {value};
  std::vector<std::string> words = list_words(value);
  const auto place = [&](const std::string& word) {
    if (word == attribute.default_text) return std::ptrdiff_t{-1};
    return std::find(attribute.values.begin(), attribute.values.end(), word) - attribute.values.begin();
  };
  std::sort(words.begin(), words.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
  return words;
}

std::string signature(const OpDef& op, const Problem& problem) {
  std::string text = op.name;
  for (const auto& [name, value] : problem.attributes) text += fmt::format(" {}={}", name, value);
  return text;
}

std::string dims_key(const OpDef& op, const Problem& problem) {
  Problem bare = problem;
  bare.dims.clear();
  Env env = operator_env(op, bare);
  std::map<std::string, std::int64_t> shown;
  for (const DimDef& dim : op.dims) {
    const auto given = problem.dims.find(dim.name);
    if (given == problem.dims.end()) continue;
    env[dim.name] = given->second;
    if (!dim.default_text.empty()) {
      const auto expr = Expr::parse(dim.default_text);
      if (expr && expr->eval(env) == given->second) continue;
    }
    shown[dim.name] = given->second;
  }
  std::vector<std::string> words;
  for (const auto& [name, value] : shown) words.push_back(fmt::format("{}={}", name, value));
  return join(words, " ");
}

Result<std::vector<OpSpec>> parse_spec(const std::string& path, std::string_view op_glob) {
  SpecReader reader(op_glob);
  KGEN_CHECK_OK(reader.read_file_at(path, [](const std::string& what) { return fail(ErrorKind::kBadInput, what); }));
  return reader.take();
}

Result<std::vector<OpSpec>> parse_spec_text(std::string_view yaml, const std::string& path, std::string_view op_glob) {
  SpecReader reader(op_glob);
  KGEN_CHECK_OK(reader.read_text(yaml, path));
  return reader.take();
}

Result<Problem> make_problem(const OpDef& op, const std::vector<std::pair<std::string, std::string>>& words) {
  const std::vector<std::string> known = setting_names(op);
  std::map<std::string, std::string> values;
  for (const auto& [name, value] : words) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string hint = did_you_mean(name, known);
      if (hint.empty()) hint = fmt::format("; {} has {}", op.name, join(known, ", "));
      return fail(ErrorKind::kBadInput, fmt::format("unknown dim or attribute '{}' of op {}{}", name, op.name, hint));
    }
    if (!values.emplace(name, value).second) {
      return fail(ErrorKind::kBadInput, fmt::format("'{}' is given twice", name));
    }
  }
  return build_problem(op, values,
                       [](const std::string&, const std::string& what) { return fail(ErrorKind::kBadInput, what); });
}

Result<OpSpec> at_size(const OpSpec& spec, std::int64_t size) {
  const std::string& dim = spec.dynamic->name;
  std::map<std::string, std::string> values = spec.problem.attributes;
  for (const std::string& word : split(dims_key(*spec.op, spec.problem), ' '))
    if (const auto equals = word.find('='); equals != std::string::npos)
      values[word.substr(0, equals)] = word.substr(equals + 1);
  values[dim] = std::to_string(size);
  OpSpec at = spec;
  at.dynamic.reset();
  KGEN_TRY(at.problem, build_problem(*spec.op, values, [&](const std::string&, const std::string& what) {
             return fail(ErrorKind::kBadInput, fmt::format("at {}={}: {}", dim, size, what));
           }));
  at.problem.scalars = spec.problem.scalars;
  at.problem.label = spec.problem.label;
  at.problem.count = spec.problem.count;
  return at;
}

}  // namespace kgen
