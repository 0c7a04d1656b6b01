#include "generator/space.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/text.h"
#include "generator/yaml.h"

namespace kgen {

namespace {

// Which candidates count.
enum class Scope {
  kSearch,  // worth trying: the spec's values, all rules
  kAsked,   // the spec's values, without the rules that only steer the search
  kLegal,   // those of the operator too: what a stored or typed config may hold
};

// One variant's tunables, derived values and rules over one flat array of numbers, so that a rule costs a few loads and
// a few instructions of Expr. An expression is evaluated as soon as the last tunable that it depends on is bound; its
// last results are remembered by the values that it reads, most of which stay the same from one point to the next.
class VariantSpace {
 public:
  static Result<VariantSpace> make(const OpSpec& spec, const Env& env, const VariantDef& variant, Scope scope) {
    VariantSpace space(spec, variant);
    std::map<std::string, Slot, std::less<>> slots;
    for (std::size_t i = 0; i < variant.tunables.size(); ++i) {
      const TunableDef& tunable = variant.tunables[i];
      slots[tunable.name] = {static_cast<int>(i), static_cast<int>(i)};
      space.axes_.push_back(axis_values(spec, tunable, scope));
    }
    space.values_.resize(variant.tunables.size());
    for (const DerivedDef& derived : variant.derived) {
      KGEN_TRY(Step step, space.bind(derived.value, env, slots));
      step.target = static_cast<int>(space.values_.size());
      step.line = derived.line;
      space.values_.push_back(0);
      slots[derived.name] = {step.target, step.depth};
      space.derived_.push_back(std::move(step));
    }
    std::vector<const Rule*> rules;
    for (const Rule& rule : variant.rules)
      if ((!rule.search || scope == Scope::kSearch) && (!rule.deterministic || spec.tune.deterministic))
        rules.push_back(&rule);
    // A rule that names the one value a tunable may have comes first, and that value is worked out where what it
    // depends on is bound, not once for each value of the tunable.
    std::stable_partition(rules.begin(), rules.end(),
                          [&](auto* rule) { return only_value(*rule, variant).has_value(); });
    for (const Rule* each : rules) {
      const Rule& rule = *each;
      Expr require = rule.require;
      if (const auto only = only_value(rule, variant)) {
        KGEN_TRY(const Expr value, Expr::parse(only->second));
        KGEN_TRY(Step step, space.bind(value, env, slots));
        const std::string name = fmt::format("{}_only", only->first);
        step.target = static_cast<int>(space.values_.size());
        step.line = rule.line;
        space.values_.push_back(0);
        slots[name] = {step.target, step.depth};
        space.derived_.push_back(std::move(step));
        KGEN_TRY(require, Expr::parse(fmt::format("{} == {}", only->first, name)));
      }
      KGEN_TRY(Step step, space.bind(require, env, slots));
      step.line = rule.line;
      space.rules_.push_back(std::move(step));
      space.rule_defs_.push_back(&rule);
      space.removed_.push_back({variant.name, rule.require.text(), rule.because, 0});
    }
    return space;
  }

  double raw_points() const {
    double product = 1;
    for (const Axis& axis : axes_) product *= static_cast<double>(axis.words.size());
    return product;
  }
  const std::vector<RuleCount>& removed() const { return removed_; }
  // What the rule that cut most recently removed, and why; "" when none did.
  std::string last_cut() const {
    if (last_rule_ < 0) return "";
    std::string point = variant_->name;
    for (int axis = 0; axis <= last_depth_; ++axis) {
      const auto i = static_cast<std::size_t>(axis);
      point += fmt::format(" {}={}", variant_->tunables[i].name, axes_[i].words[last_at_[i]]);
    }
    const Rule& rule = *rule_defs_[static_cast<std::size_t>(last_rule_)];
    return fmt::format("'{}' by the rule '{}' ({}), {}:{}", point, rule.require.text(), rule.because, spec_->op->file,
                       rule.line);
  }

  // Appends legal candidates until there are `limit`.
  Result<void> walk(std::vector<Candidate>& out, std::size_t limit) {
    if (out.size() >= limit) return {};
    std::vector<std::size_t> at(axes_.size());
    KGEN_TRY(const bool possible, offered());
    if (!possible) return {};
    return descend(0, at, out, limit);
  }

  // Position of a value on an axis, or nothing.
  std::optional<std::size_t> position(std::size_t axis, std::string_view word) const {
    const auto& words = axes_[axis].words;
    const auto found = std::find(words.begin(), words.end(), word);
    if (found == words.end()) return std::nullopt;
    return static_cast<std::size_t>(found - words.begin());
  }
  const std::vector<std::string>& words(std::size_t axis) const { return axes_[axis].words; }

  // The default's position on each axis: the first value where the default is not offered.
  Result<std::vector<std::size_t>> defaults(const Env& env) const {
    Env scope = env;
    std::vector<std::size_t> at;
    for (std::size_t axis = 0; axis < axes_.size(); ++axis) {
      const TunableDef& tunable = variant_->tunables[axis];
      KGEN_TRY(const Expr expr, Expr::parse(tunable.default_text));
      const auto value = expr.eval(scope);
      if (!value) {
        return fail(ErrorKind::kBadInput, fmt::format("{}: default of tunable '{}': {}", spec_->op->file, tunable.name,
                                                      value.error().message));
      }
      const auto& numbers = axes_[axis].numbers;
      const auto found = std::find(numbers.begin(), numbers.end(), *value);
      at.push_back(found == numbers.end() ? 0 : static_cast<std::size_t>(found - numbers.begin()));
      scope[tunable.name] = numbers[at.back()];
    }
    return at;
  }

  // Whether the rules that read no tunable hold.
  Result<bool> offered() { return settle(-1, std::vector<std::size_t>(axes_.size())); }

  // Whether a full assignment is legal; last_cut() tells which rule is not met.
  Result<bool> legal(const std::vector<std::size_t>& at) {
    for (int depth = -1; depth < static_cast<int>(axes_.size()); ++depth) {
      if (depth >= 0) set(static_cast<std::size_t>(depth), at[static_cast<std::size_t>(depth)]);
      KGEN_TRY(const bool ok, settle(depth, at));
      if (!ok) return false;
    }
    return true;
  }

  Candidate candidate(const std::vector<std::size_t>& at) const {
    Candidate result{variant_->name, {}};
    result.params.reserve(axes_.size());
    for (std::size_t axis = 0; axis < axes_.size(); ++axis) {
      result.params.emplace_back(variant_->tunables[axis].name, axes_[axis].words[at[axis]]);
    }
    return result;
  }

 private:
  struct Axis {
    std::vector<std::string> words;
    std::vector<std::int64_t> numbers;  // beside words
  };
  struct Slot {
    int index = 0, depth = -1;
  };
  // "fit == (…)": the tunable, and what is in the brackets.
  static std::optional<std::pair<std::string, std::string>> only_value(const Rule& rule, const VariantDef& variant) {
    const std::string& text = rule.require.text();
    const std::size_t equal = text.find(" == (");
    if (equal == std::string::npos || text.back() != ')') return std::nullopt;
    const std::string name = text.substr(0, equal);
    if (std::none_of(variant.tunables.begin(), variant.tunables.end(), [&](auto& t) { return t.name == name; }))
      return std::nullopt;
    const std::string value = text.substr(equal + 5, text.size() - equal - 6);
    int open = 0;
    for (const char c : value) {
      open += c == '(' ? 1 : c == ')' ? -1 : 0;
      if (open < 0) return std::nullopt;  // "(…) + (…)"
    }
    return std::pair(name, value);
  }

  // An expression over the flat array.
  struct Step {
    Expr expr;
    std::vector<int> from;                // index into values_ for each name; -1: fixed
    std::vector<std::int64_t> arguments;  // beside from
    int depth = -1;                       // the last tunable it depends on
    int target = -1;                      // derived values: where the result goes
    int line = 0;
    std::vector<int> reads{};            // those of `from` that are not fixed
    std::vector<std::int64_t> memory{};  // kRemembered times: what was read, and the result
  };

  VariantSpace(const OpSpec& spec, const VariantDef& variant) : spec_(&spec), variant_(&variant) {}

  static Axis axis_values(const OpSpec& spec, const TunableDef& tunable, Scope scope) {
    std::vector<std::string> words = tunable.values;
    const auto given = spec.tune.params.find(tunable.name);
    if (given != spec.tune.params.end()) {
      if (scope != Scope::kLegal) words.clear();
      for (const std::string& word : given->second) {
        const bool declared = std::find(tunable.values.begin(), tunable.values.end(), word) != tunable.values.end();
        const bool fits = tunable.symbolic ? declared : parse_int(word).has_value();
        if (fits && std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
      }
    }
    Axis axis;
    for (std::string& word : words) {
      axis.numbers.push_back(tunable.symbolic ? symbol_value(word) : *parse_int(word));
      axis.words.push_back(std::move(word));
    }
    return axis;
  }

  Result<Step> bind(const Expr& expr, const Env& env, const std::map<std::string, Slot, std::less<>>& slots) const {
    Step step;
    step.expr = expr;
    for (const std::string& name : expr.names()) {
      if (const auto slot = slots.find(name); slot != slots.end()) {
        step.from.push_back(slot->second.index);
        step.arguments.push_back(0);
        step.depth = std::max(step.depth, slot->second.depth);
        step.reads.push_back(slot->second.index);
        continue;
      }
      const auto value = env.find(name);
      if (value == env.end()) {
        return fail(ErrorKind::kBadInput, fmt::format("{}: '{}' reads '{}', which has no value for this problem",
                                                      spec_->op->file, expr.text(), name));
      }
      step.from.push_back(-1);
      step.arguments.push_back(value->second);
    }
    return step;
  }

  // kUndefined where there is no value; evaluate() tells why.
  std::int64_t value(Step& step) {
    const std::size_t width = step.reads.size() + 1;
    if (step.memory.empty()) step.memory.assign(kRemembered * width, kUnknown);
    std::uint64_t hash = 0;
    for (const int index : step.reads)
      hash = (hash ^ static_cast<std::uint64_t>(values_[static_cast<std::size_t>(index)])) * 0x9E3779B97F4A7C15ULL;
    std::int64_t* const entry = &step.memory[(hash >> 32) % kRemembered * width];
    bool same = entry[width - 1] != kUnknown;
    for (std::size_t i = 0; same && i + 1 < width; ++i)
      same = entry[i] == values_[static_cast<std::size_t>(step.reads[i])];
    if (same) return entry[width - 1];
    for (std::size_t i = 0; i + 1 < width; ++i) entry[i] = values_[static_cast<std::size_t>(step.reads[i])];
    return entry[width - 1] = evaluate(step).value_or(kUndefined);
  }

  Result<std::int64_t> evaluate(Step& step) {
    for (std::size_t i = 0; i < step.from.size(); ++i) {
      if (step.from[i] >= 0) step.arguments[i] = values_[static_cast<std::size_t>(step.from[i])];
    }
    return step.expr.eval_slots(step.arguments.data());
  }

  void set(std::size_t axis, std::size_t position) { values_[axis] = axes_[axis].numbers[position]; }

  // Evaluates what became known at `depth`; false when a rule cuts. A value that cannot be computed (8 / 3) is only an
  // error where no rule removes the point, so that a rule may say "waves divide the tile" and a derived value divide.
  Result<bool> settle(int depth, const std::vector<std::size_t>& at) {
    Step* undefined = nullptr;
    for (Step& step : derived_) {
      if (step.depth != depth) continue;
      const std::int64_t result = value(step);
      values_[static_cast<std::size_t>(step.target)] = result;
      if (result == kUndefined && undefined == nullptr) undefined = &step;
    }
    for (std::size_t i = 0; i < rules_.size(); ++i) {
      Step& step = rules_[i];
      if (step.depth != depth) continue;
      const std::int64_t result = value(step);
      if (result == kUndefined && undefined == nullptr) undefined = &step;
      if (result != 0) continue;
      ++removed_[i].removed;
      last_rule_ = static_cast<int>(i);
      last_depth_ = depth;
      last_at_ = at;
      return false;
    }
    if (undefined == nullptr) return true;
    const auto why = evaluate(*undefined);
    if (why) return true;  // a value that is 2^53 for once
    return fail(why.error().kind, fmt::format("{}:{}: {}", spec_->op->file, undefined->line, why.error().message));
  }

  Result<void> descend(std::size_t axis, std::vector<std::size_t>& at, std::vector<Candidate>& out, std::size_t limit) {
    if (axis == axes_.size()) {
      out.push_back(candidate(at));
      return {};
    }
    for (std::size_t i = 0; i < axes_[axis].words.size() && out.size() < limit; ++i) {
      at[axis] = i;
      set(axis, i);
      KGEN_TRY(const bool ok, settle(static_cast<int>(axis), at));
      if (ok) KGEN_CHECK_OK(descend(axis + 1, at, out, limit));
    }
    return {};
  }

  // Not below 2^53, so that an expression that reads it fails too instead of computing nonsense.
  static constexpr std::int64_t kUndefined = std::int64_t{1} << 53;
  static constexpr std::int64_t kUnknown = kUndefined + 1;
  static constexpr std::size_t kRemembered = 512;

  const OpSpec* spec_;
  const VariantDef* variant_;
  std::vector<Axis> axes_;
  std::vector<std::int64_t> values_;  // tunables, then derived values
  std::vector<Step> derived_, rules_;
  std::vector<const Rule*> rule_defs_;  // beside rules_
  std::vector<RuleCount> removed_;
  int last_rule_ = -1, last_depth_ = -1;
  std::vector<std::size_t> last_at_;
};

// "m=4 n=8 dtype=bf16 on sm_90", for messages.
std::string problem_text(const OpSpec& spec, Arch arch) {
  return fmt::format("{}{}{} {} on {}", spec.where, spec.where.empty() ? "" : ": ", signature(*spec.op, spec.problem),
                     dims_key(*spec.op, spec.problem), arch->name);
}

}  // namespace

std::string Candidate::key() const {
  std::string text = variant;
  for (const auto& [name, value] : params) text += fmt::format(" {}={}", name, value);
  return text;
}

Env problem_env(const OpSpec& spec, Arch arch) {
  Env env = operator_env(*spec.op, spec.problem);
  add_arch_facts(env, arch);
  return env;
}

namespace {

// The first variant whose defaults are legal; nothing when no variant's are.
Result<std::optional<Candidate>> legal_defaults(const OpSpec& spec, const Env& env) {
  for (const VariantDef& variant : spec.op->variants) {
    KGEN_TRY(VariantSpace part, VariantSpace::make(spec, env, variant, Scope::kAsked));
    if (part.raw_points() == 0) continue;
    KGEN_TRY(const bool offered, part.offered());
    if (!offered) continue;
    KGEN_TRY(const std::vector<std::size_t> at, part.defaults(env));
    KGEN_TRY(const bool legal, part.legal(at));
    if (legal) return part.candidate(at);
  }
  return std::nullopt;
}

Result<Space> enumerate_settled(const OpSpec& spec, Arch arch, std::size_t limit) {
  const Env env = problem_env(spec, arch);
  KGEN_TRY(const std::optional<Candidate> first, legal_defaults(spec, env));
  std::string last_cut;
  // Where nothing is worth trying (a dim of zero, say) but something is legal, that is tried.
  for (const Scope scope : {Scope::kSearch, Scope::kAsked}) {
    Space space;
    for (const VariantDef& variant : spec.op->variants) {
      KGEN_TRY(VariantSpace part, VariantSpace::make(spec, env, variant, scope));
      space.raw_points += part.raw_points();
      KGEN_CHECK_OK(part.walk(space.candidates, limit));
      space.removed.insert(space.removed.end(), part.removed().begin(), part.removed().end());
      if (std::string cut = part.last_cut(); !cut.empty()) last_cut = std::move(cut);
    }
    // The default is always worth trying: everything else is measured against it.
    if (first && limit > 0) {
      const auto found = std::find(space.candidates.begin(), space.candidates.end(), *first);
      if (found != space.candidates.end()) {
        space.candidates.erase(found);
      } else if (space.candidates.size() == limit) {
        space.candidates.pop_back();
      }
      space.candidates.insert(space.candidates.begin(), *first);
    }
    if (!space.candidates.empty() || limit == 0) return space;
  }
  return fail(
      ErrorKind::kBadInput,
      fmt::format("{}: no candidate is legal; the last one was removed: {}; widen 'tune: params' or relax the rule",
                  problem_text(spec, arch), last_cut.empty() ? "no tunable has a value" : last_cut));
}

Result<Candidate> default_of_settled(const OpSpec& spec, Arch arch) {
  KGEN_TRY(const std::optional<Candidate> found, legal_defaults(spec, problem_env(spec, arch)));
  if (found) return *found;
  KGEN_TRY(const Space space, enumerate_settled(spec, arch, 1));
  return space.candidates[0];
}

Result<Candidate> parse_settled(const OpSpec& spec, Arch arch, std::string_view text) {
  std::string wanted;  // variant; "" = any
  std::vector<std::pair<std::string, std::string>> given;
  std::string words(text);
  std::replace(words.begin(), words.end(), ',', ' ');
  for (const std::string& word : split(words, ' ')) {
    if (word.empty()) continue;
    const auto equals = word.find('=');
    if (equals != std::string::npos) {
      given.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    } else if (wanted.empty() && given.empty()) {
      wanted = word;
    } else {
      return fail(ErrorKind::kBadInput, fmt::format("config '{}': '{}' is not 'tunable=value'", text, word));
    }
  }
  std::vector<std::string> variants, tunables;
  for (const VariantDef& variant : spec.op->variants) {
    variants.push_back(variant.name);
    if (!wanted.empty() && variant.name != wanted) continue;
    for (const TunableDef& tunable : variant.tunables) tunables.push_back(tunable.name);
  }
  if (!wanted.empty() && std::find(variants.begin(), variants.end(), wanted) == variants.end()) {
    std::string hint = did_you_mean(wanted, variants);
    if (hint.empty()) hint = fmt::format("; {} has {}", spec.op->name, join(variants, ", "));
    return fail(ErrorKind::kBadInput, fmt::format("config '{}': unknown variant '{}'{}", text, wanted, hint));
  }
  for (const auto& [name, value] : given) {
    if (std::find(tunables.begin(), tunables.end(), name) != tunables.end()) continue;
    return fail(ErrorKind::kBadInput,
                fmt::format("config '{}': unknown tunable '{}'{}", text, name, did_you_mean(name, tunables)));
  }

  // The first variant that has all the tunables and is legal with them.
  const Env env = problem_env(spec, arch);
  std::string why;
  for (const VariantDef& variant : spec.op->variants) {
    if (!wanted.empty() && variant.name != wanted) continue;
    KGEN_TRY(VariantSpace part, VariantSpace::make(spec, env, variant, Scope::kLegal));
    KGEN_TRY(std::vector<std::size_t> at, part.defaults(env));
    std::string missing;
    for (const auto& [name, value] : given) {
      const auto tunable = std::find_if(variant.tunables.begin(), variant.tunables.end(),
                                        [&, &key = name](const TunableDef& item) { return item.name == key; });
      if (tunable == variant.tunables.end()) {
        missing = fmt::format("variant {} has no tunable '{}'", variant.name, name);
        break;
      }
      const auto axis = static_cast<std::size_t>(tunable - variant.tunables.begin());
      const auto position = part.position(axis, value);
      if (!position) {
        missing = fmt::format("'{}' is not a value of {}; choose from {}", value, name, join(part.words(axis), ", "));
        break;
      }
      at[axis] = *position;
    }
    if (!missing.empty()) {
      if (why.empty()) why = missing;
      continue;
    }
    KGEN_TRY(const bool legal, part.legal(at));
    if (legal) return part.candidate(at);
    if (why.empty()) why = "not legal: removed " + part.last_cut();
  }
  return fail(ErrorKind::kBadInput, fmt::format("config '{}' for {}: {}", text, problem_text(spec, arch), why));
}

// One way to settle the attributes that the problem leaves to the search.
struct Choice {
  OpSpec spec;
  std::vector<std::pair<std::string, std::string>> params;

  Candidate name(Candidate candidate) const {
    candidate.params.insert(candidate.params.begin(), params.begin(), params.end());
    return candidate;
  }
};

std::vector<Choice> choices(const OpSpec& spec) {
  std::vector<Choice> all = {{spec, {}}};
  for (const AttributeDef& attribute : spec.op->attributes) {
    const auto given = spec.problem.attributes.find(attribute.name);
    if (!attribute.axis || given == spec.problem.attributes.end()) continue;
    const std::vector<std::string> words = allowed_values(attribute, given->second);
    if (words.size() < 2) continue;
    std::vector<Choice> more;
    for (const Choice& choice : all) {
      for (const std::string& word : words) {
        Choice& next = more.emplace_back(choice);
        next.spec.problem.attributes[attribute.name] = word;
        next.params.emplace_back(attribute.name, word);
      }
    }
    all = std::move(more);
  }
  return all;
}

}  // namespace

OpSpec settled(const OpSpec& spec, std::string_view config) {
  const std::vector<Choice> all = choices(spec);
  const std::vector<std::string> words = split(std::string(config), ' ');
  for (const Choice& choice : all) {
    const bool named = std::all_of(choice.params.begin(), choice.params.end(), [&](const auto& param) {
      return std::find(words.begin(), words.end(), param.first + "=" + param.second) != words.end();
    });
    if (named) return choice.spec;
  }
  return all.front().spec;
}

Result<Space> enumerate(const OpSpec& spec, Arch arch, std::size_t limit) {
  Space space;
  std::optional<Error> error;
  for (const Choice& choice : choices(spec)) {
    Result<Space> part = enumerate_settled(choice.spec, arch, limit - space.candidates.size());
    if (!part) {  // a compute type that this architecture lacks leaves the others
      if (!error) error = std::move(part.error());
      continue;
    }
    space.raw_points += part->raw_points;
    for (Candidate& candidate : part->candidates) space.candidates.push_back(choice.name(std::move(candidate)));
    space.removed.insert(space.removed.end(), part->removed.begin(), part->removed.end());
  }
  if (space.candidates.empty() && error) return tl::unexpected(std::move(*error));
  return space;
}

Result<Candidate> default_candidate(const OpSpec& spec, Arch arch) {
  std::optional<Error> error;
  for (const Choice& choice : choices(spec)) {
    Result<Candidate> found = default_of_settled(choice.spec, arch);
    if (found) return choice.name(std::move(*found));
    if (!error) error = std::move(found.error());
  }
  return tl::unexpected(std::move(*error));
}

Result<std::vector<Candidate>> variant_defaults(const OpSpec& spec, Arch arch) {
  std::vector<Candidate> found;
  for (const Choice& choice : choices(spec)) {
    const Env env = problem_env(choice.spec, arch);
    for (const VariantDef& variant : spec.op->variants) {
      KGEN_TRY(VariantSpace part, VariantSpace::make(choice.spec, env, variant, Scope::kAsked));
      if (part.raw_points() == 0) continue;
      KGEN_TRY(const bool offered, part.offered());
      if (!offered) continue;
      KGEN_TRY(const std::vector<std::size_t> at, part.defaults(env));
      KGEN_TRY(const bool legal, part.legal(at));
      if (legal) {
        found.push_back(choice.name(part.candidate(at)));
      } else if (!spec.tune.params.empty()) {  // values that were asked for are not to be left out
        std::vector<Candidate> first;
        KGEN_CHECK_OK(part.walk(first, 1));
        if (!first.empty()) found.push_back(choice.name(std::move(first[0])));
      }
    }
  }
  if (!found.empty()) return found;
  KGEN_TRY(found.emplace_back(), default_candidate(spec, arch));
  return found;
}

Result<Candidate> parse_candidate(const OpSpec& spec, Arch arch, std::string_view text) {
  std::string words(text);
  std::replace(words.begin(), words.end(), ',', ' ');
  std::string rest;  // what is not about an attribute
  std::vector<std::string> given;
  const std::vector<Choice> all = choices(spec);
  for (const std::string& word : split(words, ' ')) {
    const std::string name = word.substr(0, word.find('='));
    const auto& axes = all.front().params;
    const bool axis = std::any_of(axes.begin(), axes.end(), [&](const auto& param) { return param.first == name; });
    if (axis && word != name) {
      given.push_back(word);
    } else {
      rest += (rest.empty() ? "" : " ") + word;
    }
  }
  std::optional<Error> error;
  for (const Choice& choice : all) {
    const bool asked = std::all_of(given.begin(), given.end(), [&](const std::string& word) {
      return std::any_of(choice.params.begin(), choice.params.end(),
                         [&](const auto& param) { return param.first + "=" + param.second == word; });
    });
    if (!asked) continue;
    Result<Candidate> found = parse_settled(choice.spec, arch, rest);
    if (found) return choice.name(std::move(*found));
    if (!error) error = std::move(found.error());
  }
  if (error) return tl::unexpected(std::move(*error));
  return fail(ErrorKind::kBadInput,
              fmt::format("config '{}': the problem does not allow {}", text, join(given, " and ")));
}

}  // namespace kgen
