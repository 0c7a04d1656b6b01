#include "runtime/dispatcher.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "base/arch.h"
#include "base/hash.h"
#include "base/text.h"

namespace kgen {
namespace {

// A near match may be this far away in all dims together, in powers of two (docs/lookup.md).
constexpr double kNearLimit = 2;
// What a near row of another device, objective or timing than asked must be quicker by to come first: logarithms.
constexpr double kOtherDevice = 1, kOtherObjective = 30, kOtherTiming = 0.3;

using Attributes = std::map<std::string, std::string, std::less<>>;

// "gemm b_layout=nk epilogue=" → {b_layout: nk}; empty values and absent ones are the same.
Attributes attributes_of(std::string_view signature) {
  Attributes attributes;
  for (const std::string& word : split(signature, ' ')) {
    const std::size_t equals = word.find('=');
    if (equals != std::string::npos && equals + 1 < word.size())
      attributes[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return attributes;
}

std::optional<std::int64_t> to_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// A dims_key with its words sorted by name, whatever order it was written in.
std::string sorted_key(const std::string& key) {
  std::vector<std::string> words = split(key, ' ');
  const auto name = [](const std::string& word) { return std::string_view(word).substr(0, word.find('=')); };
  if (std::ranges::is_sorted(words, {}, name)) return key;
  std::ranges::sort(words, {}, name);
  return join(words, " ");
}

// "k=4096 m=1": an Env is sorted.
std::string key_of(const Env& dims) {
  std::string key;
  for (const auto& [name, value] : dims) {
    if (!key.empty()) key += ' ';
    key += name;
    key += '=';
    char digits[24];
    key.append(digits, std::to_chars(digits, std::end(digits), value).ptr);
  }
  return key;
}

Env dims_of(const std::string& key) {
  Env dims;
  for (const std::string& word : split(key, ' ')) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) continue;
    if (const auto value = to_integer(std::string_view(word).substr(equals + 1))) dims[word.substr(0, equals)] = *value;
  }
  return dims;
}

// What a lookup needs at hand, and the rest once it is needed.
struct Row {
  std::int64_t id = 0;
  std::string key;
  bool is_default = false;
  bool same_device = false;
  Goal goal{};
  std::optional<SizeRange> range{};
  std::optional<Env> tuned{};  // `key`, once a reason named it

  struct Loaded {
    WinnerRow row;
    std::shared_ptr<const StoredPlan> plan;
    std::optional<TimeModel> model{};  // once its time at another shape was asked for
  };
  std::unique_ptr<Loaded> loaded;  // stays where it is: matches point into it
};

// A shape as asked for: every dim, and those that differ from their defaults.
struct Shape {
  const std::vector<std::string>& names;  // the operator's dims
  std::vector<std::int64_t> values;       // beside them
  std::vector<bool> differs;              // is it in `given`?
  Env given;

  Env all() const {
    Env dims;
    for (std::size_t i = 0; i < names.size(); ++i) dims[names[i]] = values[i];
    return dims;
  }
};

// The rows of one op record (a signature has several when its op's dims changed between tunings).
class Group {
 public:
  explicit Group(OpRecord op) : op_(std::move(op)) {}

  const OpRecord& op() const { return op_; }
  std::vector<Row>& rows() { return rows_; }
  void add(Row row) {
    if (row.range) {
      Env others = dims_of(row.key);
      others.erase(row.range->dim);
      covers_[{row.range->dim, key_of(others)}].push_back(rows_.size());
    } else {
      by_key_[row.key].push_back(rows_.size());
    }
    rows_.push_back(std::move(row));
  }
  std::vector<Row*> exact(const std::string& key) {
    std::vector<Row*> found;
    if (const auto it = by_key_.find(key); it != by_key_.end()) {
      for (const std::size_t i : it->second) found.push_back(&rows_[i]);
    }
    return found;
  }

  // Those whose range of a dynamic dim has the shape's size, the others being the same; the least expected loss first.
  std::vector<Row*> covering(const Shape& shape) {
    std::vector<Row*> found;
    std::string dim, key;
    for (const auto& [cover, rows] : covers_) {
      if (cover.first != dim) {
        Env others = shape.given;
        others.erase(dim = cover.first);
        key = key_of(others);
      }
      const auto size = std::ranges::find(shape.names, dim);
      if (cover.second != key || size == shape.names.end()) continue;
      const std::int64_t value = shape.values[static_cast<std::size_t>(size - shape.names.begin())];
      for (const std::size_t i : rows) {
        const SizeRange& range = *rows_[i].range;
        if (range.first <= value && value <= range.last) found.push_back(&rows_[i]);
      }
    }
    return found;
  }

  // Fills in defaults.
  Result<Shape> resolve(const Env& dims) {
    KGEN_CHECK_OK(prepare());
    Shape shape{names_, constants_, std::vector<bool>(names_.size(), false), {}};
    std::vector<bool> asked(names_.size(), false);
    for (const auto& [name, value] : dims) {
      const auto at = static_cast<std::size_t>(std::ranges::find(names_, name) - names_.begin());
      if (at == names_.size())
        return fail(ErrorKind::kBadInput,
                    fmt::format("{} has no dim '{}'{}", op_.op, name, did_you_mean(name, names_)));
      if (value < 0) return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is negative ({})", name, value));
      shape.values[at] = value;
      asked[at] = true;
    }
    for (std::size_t i = 0; i < names_.size(); ++i) {
      if (defaults_[i].expr.text().empty()) {
        if (!asked[i]) return fail(ErrorKind::kBadInput, fmt::format("dim '{}' of {} is missing", names_[i], op_.op));
        shape.differs[i] = true;
      } else {
        KGEN_TRY(const std::int64_t standard, defaults_[i].eval(shape.values));
        if (!asked[i]) shape.values[i] = standard;
        shape.differs[i] = shape.values[i] != standard;
      }
      if (shape.differs[i]) shape.given[names_[i]] = shape.values[i];
    }
    shape.values.resize(names_.size());
    return shape;
  }

  struct NearRow {
    Row* row = nullptr;
    double distance = 0;
  };
  // The rows nearest to a shape, nearest first: the tuned ones, or the operator's defaults.
  std::vector<NearRow> nearest(const Shape& asked, bool defaults, std::size_t most) {
    if (tuned_.size() + defaults_rows_.size() == 0) {
      for (std::size_t i = 0; i < rows_.size(); ++i)
        if (const auto shape = resolve(dims_of(rows_[i].key)))
          (rows_[i].is_default ? defaults_rows_ : tuned_).add(i, shape->values, shape->differs);
    }
    std::vector<NearRow> found;
    for (const auto& [distance, row] : (defaults ? defaults_rows_ : tuned_).nearest(asked.values, asked.differs, most))
      found.push_back({&rows_[row], distance});
    return found;
  }

  // What a row's kernel is likely to take for a shape, in microseconds; its own time where there is no telling.
  double predicted_us(Row& row, const Row::Loaded& loaded, const Shape& asked) {
    const TrialRecord& trial = loaded.row.trial;
    if (loaded.plan->plan.dims != names_) return trial.time_us.value_or(0);
    if (!row.loaded->model) {
      const auto shape = resolve(dims_of(row.key));
      const auto arch = find_arch(loaded.row.device.arch);
      row.loaded->model.emplace(loaded.plan->workload, shape ? shape->values : asked.values, trial.time_us.value_or(0),
                                TimeModel::Occupancy{.units = loaded.row.device.compute_units,
                                                     .waves = trial.occupancy_waves.value_or(0),
                                                     .wave_size = arch ? (*arch)->wave_size : 0});
    }
    return row.loaded->model->us(loaded.plan->workload, asked.values);
  }

 private:
  // An expression over earlier dims and constants, by their places.
  struct Default {
    Expr expr;
    std::vector<std::size_t> slots;
    Result<std::int64_t> eval(const std::vector<std::int64_t>& values) const {
      std::int64_t few[16];
      if (slots.size() > std::size(few)) return fail(ErrorKind::kBadInput, "a default that reads more than 16 names");
      for (std::size_t i = 0; i < slots.size(); ++i) few[i] = values[slots[i]];
      return expr.eval_slots(few);
    }
  };

  // Parses the defaults and binds the names they read beside dims: attributes, and enumerators as themselves.
  Result<void> prepare() {
    if (prepared_) return {};
    defaults_.clear();
    names_ = split(op_.dims, ',');
    constants_.assign(names_.size(), 0);
    std::vector<std::string> texts = split(op_.dim_defaults, '\n');
    texts.resize(names_.size());
    const Attributes attributes = attributes_of(op_.signature);
    std::vector<std::string> known;
    for (const std::string& word : split(op_.attributes, ' ')) known.push_back(word.substr(0, word.find('=')));
    for (const std::string& text : texts) {
      Expr expr;
      if (!trim(text).empty()) {
        KGEN_TRY(expr, Expr::parse(text));
      }
      Default made{std::move(expr), {}};
      for (const std::string& name : made.expr.names()) {
        const auto dim = static_cast<std::size_t>(std::ranges::find(names_, name) - names_.begin());
        if (dim < names_.size() && dim >= defaults_.size())
          return fail(ErrorKind::kBadInput, fmt::format("the default of '{}' reads '{}', which comes after it",
                                                        names_[defaults_.size()], name));
        made.slots.push_back(dim < names_.size() ? dim : constants_.size());
        if (dim == names_.size()) constants_.push_back(symbol(name, attributes, known));
      }
      defaults_.push_back(std::move(made));
    }
    prepared_ = true;
    return {};
  }

  // The members as numbers; empty where one of them is none.
  static std::vector<std::int64_t> integers(const std::vector<std::string>& members) {
    std::vector<std::int64_t> numbers;
    for (const std::string& member : members) {
      const auto number = to_integer(member);
      if (!number) return {};
      numbers.push_back(*number);
    }
    return numbers;
  }

  // docs/op-format.md, "Expressions": an attribute's value, `X_bytes`, what `ints` have, the position of a list
  // attribute's member, or an enumerator.
  static std::int64_t symbol(const std::string& name, const Attributes& attributes,
                             const std::vector<std::string>& known) {
    const auto value_of = [&](const std::string& attribute) {
      const auto it = attributes.find(attribute);
      return it == attributes.end() ? std::string() : it->second;
    };
    for (const std::string& attribute : known) {
      const std::string value = value_of(attribute);
      if (name == attribute) {
        const auto integer = to_integer(value);
        return integer ? *integer : symbol_value(value);
      }
      if (!name.starts_with(attribute + "_")) continue;
      const std::string rest = name.substr(attribute.size() + 1);
      if (rest == "bytes") {
        const auto dtype = find_dtype(value);
        return dtype ? dtype_bytes(*dtype) : 0;
      }
      const auto members = split(value, ',');
      // `ints`: how many, the greatest, and one by its place from 1.
      if (const auto numbers = integers(members); !numbers.empty()) {
        if (rest == "count") return static_cast<std::int64_t>(numbers.size());
        if (rest == "max") return *std::max_element(numbers.begin(), numbers.end());
        if (const auto place = to_integer(rest))
          return *place >= 1 && *place <= static_cast<std::int64_t>(numbers.size())
                     ? numbers[static_cast<std::size_t>(*place - 1)]
                     : 0;
      }
      const auto at = std::find(members.begin(), members.end(), rest);
      return at == members.end() ? 0 : at - members.begin() + 1;
    }
    return symbol_value(name);
  }

  OpRecord op_;
  std::vector<Row> rows_;
  std::unordered_map<std::string, std::vector<std::size_t>> by_key_;
  std::map<std::pair<std::string, std::string>, std::vector<std::size_t>>
      covers_;                        // by dynamic dim and the others' key
  NearShapes tuned_, defaults_rows_;  // made at the first look for near ones
  bool prepared_ = false;
  std::vector<std::string> names_;
  std::vector<Default> defaults_;        // text() == "": required
  std::vector<std::int64_t> constants_;  // what defaults read beside dims; room for the dims in front
};

// "m=5480 n=1280" where they differ from the tuned "m=5476 n=1280": "m=5480".
std::string difference(const Env& of, const Env& from) {
  Env differs;
  for (const auto& [name, value] : of) {
    const auto it = from.find(name);
    if (it == from.end() || it->second != value) differs.emplace(name, value);
  }
  return differs.empty() ? std::string("the same shape") : key_of(differs);
}

}  // namespace

std::string_view match_name(MatchKind kind) {
  switch (kind) {
    case MatchKind::kNone:
      return "none";
    case MatchKind::kExact:
      return "exact";
    case MatchKind::kNear:
      return "near";
    case MatchKind::kDefault:
      return "default";
    case MatchKind::kDynamic:
      return "dynamic";
  }
  return "none";
}

double expected_us(const Match& match) {
  const double tuned = match.row->trial.time_us.value_or(0);
  const ProblemRecord& problem = match.row->problem;
  const double flops = problem.flops > 0 ? match.bound.flops / problem.flops : 0;
  const double bytes = problem.bytes > 0 ? match.bound.bytes / problem.bytes : 0;
  return match.kind == MatchKind::kExact || (flops == 0 && bytes == 0) ? tuned : tuned * std::max(flops, bytes);
}

struct Dispatcher::Impl {
  Db* db = nullptr;
  std::string arch, device;
  std::vector<OpRecord> ops;  // of every architecture in the file
  using Generations = std::map<std::size_t, std::unique_ptr<Group>, std::greater<>>;  // by index in ops, newest first
  // By place in `sources` and by signature.
  std::vector<std::map<std::string, Generations>> levels;
  std::int64_t lds_limit = INT64_MAX;  // bytes a block may have
  std::vector<CodeSource> sources;     // whose code runs here, those that the file has none of included
  std::map<std::string, std::set<std::string>> elsewhere;  // signature → other architectures that have it
  mutable std::mutex mutex;                                // over what is read at first use: rows, plans, defaults
  mutable std::unordered_map<std::string, std::shared_ptr<const StoredPlan>> plans;  // by the hash of their text

  Result<const Row::Loaded*> load(Row& row) const {
    if (row.loaded != nullptr) return row.loaded.get();
    auto loaded = std::make_unique<Row::Loaded>();
    KGEN_TRY(loaded->row, db->winner(row.id));
    std::string& text = loaded->row.winner.plan_json;
    const std::string hash = hash_text(text);
    auto& stored = plans[hash];
    if (stored == nullptr) {
      KGEN_TRY(Plan plan, plan_from_json(text));
      stored = std::make_shared<const StoredPlan>(std::move(plan), hash);
    }
    loaded->plan = stored;
    text = {};  // ten times the size of all the rest
    row.loaded = std::move(loaded);
    return row.loaded.get();
  }

  std::string nothing(const std::string& signature) const {
    if (const auto it = elsewhere.find(signature); it != elsewhere.end()) {
      return fmt::format("'{}' was tuned for {} only, not for {}", signature, fmt::join(it->second, ", "), arch);
    }
    std::vector<std::string> known;
    for (const auto& groups : levels) {
      for (const auto& [name, rows] : groups) known.push_back(name);
    }
    for (const auto& [name, archs] : elsewhere) known.push_back(name);
    return fmt::format("'{}' was never tuned{}", signature, did_you_mean(signature, known));
  }
};

namespace {

// One find(): tries rows in the order of the rule and remembers why some could not be used.
class Search {
 public:
  Search(const Shape& shape, const Goal& goal, const RowFilter& filter, std::string device, std::int64_t lds_limit,
         std::function<Result<const Row::Loaded*>(Row&)> load, std::string_view arch, Account* account)
      : shape_(shape),
        goal_(goal),
        filter_(filter),
        device_(std::move(device)),
        lds_limit_(lds_limit),
        load_(std::move(load)),
        arch_(arch),
        account_(account) {}

  // The first usable of rows that the rule holds equal: same device name first, then tuned before default, then tuned
  // for the goal, then faster (by its energy where that is the objective).
  bool try_rows(std::vector<Row*> rows, MatchKind kind, Match& match) {
    if (rows.size() > 1) {
      const auto rank = [&](Row* row) {
        const auto loaded = load_(*row);
        double cost = HUGE_VAL;
        if (loaded) {
          const TrialRecord& trial = (*loaded)->row.trial;
          const bool energy = row->goal.objective == "energy" && trial.energy_uj;
          cost = energy ? *trial.energy_uj : trial.time_us.value_or(HUGE_VAL);
        }
        // The objective before the timing, and cold before the others where the asked timing is not there.
        return std::tuple(!row->same_device, row->is_default, row->goal.objective != goal_.objective,
                          row->goal.timing != goal_.timing, row->goal.timing != "cold",
                          row->goal.deterministic != goal_.deterministic, row->range ? row->range->loss : cost,
                          row->id);
      };
      std::sort(rows.begin(), rows.end(), [&](Row* a, Row* b) { return rank(a) < rank(b); });
    }
    const std::size_t first = noted();
    for (Row* row : rows) note(*row, kind, "", 0);
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (try_row(*rows[i], kind, "", 0, match, first + i)) return true;
    return false;
  }

  // The first usable of the nearest rows, in the order of what the model expects of them. Rows of another device,
  // objective or timing than asked come after those that take little longer.
  bool try_ranked(Group& group, const std::vector<Group::NearRow>& near, MatchKind kind, std::string_view why,
                  Match& match) {
    struct Ranked {
      double doubt = 0, us = 0;
      Group::NearRow item;
    };
    std::vector<Ranked> ranked;
    for (const Group::NearRow& item : near) {
      const Row& row = *item.row;
      double doubt = kDoubtOfOctave * item.distance + (row.same_device ? 0 : kOtherDevice) +
                     (row.goal.objective == goal_.objective ? 0 : kOtherObjective) +
                     (row.goal.timing == goal_.timing ? 0
                      : row.goal.timing == "cold"     ? kOtherTiming
                                                      : 2 * kOtherTiming) +
                     (row.goal.deterministic == goal_.deterministic ? 0 : 1e-3 * kOtherTiming);
      double us = 0;
      if (const auto loaded = load_(*item.row)) {
        const TrialRecord& trial = (*loaded)->row.trial;
        us = group.predicted_us(*item.row, **loaded, shape_);
        const double share = goal_.objective == "energy" && row.goal.objective == "energy" && trial.energy_uj &&
                                     trial.time_us && *trial.time_us > 0
                                 ? *trial.energy_uj / *trial.time_us
                                 : 1;
        if (us > 0) doubt += std::log(us * share);
      }
      ranked.push_back({doubt, us, item});
    }
    std::ranges::stable_sort(ranked, {}, &Ranked::doubt);
    const std::size_t first = noted();
    for (const Ranked& next : ranked)
      note(*next.item.row, kind, why, next.item.distance, next.us, next.us > 0 ? std::exp(next.doubt) : 0);
    for (std::size_t i = 0; i < ranked.size(); ++i)
      if (try_row(*ranked[i].item.row, kind, why, ranked[i].item.distance, match, first + i)) return true;
    return false;
  }

  bool try_row(Row& row, MatchKind kind, std::string_view why, double distance, Match& match) {
    const std::size_t at = noted();
    note(row, kind, why, distance);
    return try_row(row, kind, why, distance, match, at);
  }

  // Why there is no match.
  std::string why() const {
    std::vector<std::string> reasons = refusals_;
    if (reasons.empty() && !illegal_.empty()) reasons.push_back(illegal_);
    if (!passed_over_.empty()) reasons.push_back(passed_over());
    return join(reasons, "; ");
  }

 private:
  std::size_t noted() const { return account_ ? account_->considered.size() : 0; }
  void note(Row& row, MatchKind kind, std::string_view why, double distance, double expected_us = 0,
            double ranked_us = 0) {
    if (!account_) return;
    const auto loaded = load_(row);
    account_->considered.push_back({.arch = arch_,
                                    .kind = kind,
                                    .far = kind == MatchKind::kNear && !why.empty(),
                                    .dims_key = row.key,
                                    .row = loaded ? &(*loaded)->row : nullptr,
                                    .distance = distance,
                                    .expected_us = expected_us,
                                    .ranked_us = ranked_us,
                                    .refused = {}});
  }

  // `at`: where it is noted.
  bool try_row(Row& row, MatchKind kind, std::string_view why, double distance, Match& match, std::size_t at) {
    std::string refused = use(row, kind, why, distance, match);
    const bool used = refused.empty();
    if (account_) {
      account_->considered[at].tried = true;
      account_->considered[at].refused = std::move(refused);
    }
    return used;
  }

  // Makes the match of a row; why it cannot serve, "" where it does.
  std::string use(Row& row, MatchKind kind, std::string_view why, double distance, Match& match) {
    const auto loaded = load_(row);
    if (!loaded) return refuse(row, loaded.error().message);
    if (goal_.deterministic && (*loaded)->row.trial.deterministic != true) {
      passed_over_.insert(row.id);
      return "its launches were not seen to give the same bits";
    }
    const StoredPlan& stored = *(*loaded)->plan;
    auto bound =
        stored.plan.dims == shape_.names ? stored.binder.bind(shape_.values) : stored.binder.bind(shape_.all());
    if (!bound) {
      if (illegal_.empty()) illegal_ = bound.error().message;
      return bound.error().message;
    }
    for (const BoundStep& step : bound->steps) {
      if (step.lds_bytes <= lds_limit_) continue;
      std::string over = fmt::format("not legal for this device: '{}' takes {} bytes of LDS, a block has {} at most",
                                     step.kernel, step.lds_bytes, lds_limit_);
      if (illegal_.empty()) illegal_ = over;
      return over;
    }
    if (filter_) {
      if (const auto usable = filter_((*loaded)->row, (*loaded)->plan); !usable)
        return refuse(row, usable.error().message);
    }
    match.kind = kind;
    match.row = &(*loaded)->row;
    match.plan = (*loaded)->plan;
    match.bound = std::move(*bound);
    if (!row.tuned) row.tuned = dims_of(row.key);
    const Env& tuned = *row.tuned;
    if (kind == MatchKind::kExact) match.expected_loss = 0;
    if (kind == MatchKind::kDynamic) match.expected_loss = row.range->loss;
    if (kind == MatchKind::kNear) match.expected_loss = std::min(kMostLoss, kLossOfOctave * distance);
    match.reason = kind == MatchKind::kExact ? std::string("tuned for this shape")
                   : kind == MatchKind::kDynamic
                       ? fmt::format("serves {0}={1}..{2}, measured at {0}={3}", row.range->dim, row.range->first,
                                     row.range->last, tuned.count(row.range->dim) ? tuned.at(row.range->dim) : 0)
                       : fmt::format("tuned at {}, legal for {}{}", difference(tuned, shape_.given),
                                     difference(shape_.given, tuned), why);
    if (row.goal.timing != goal_.timing || row.goal.objective != goal_.objective)
      match.reason += fmt::format("; for {} {}, as nothing that fits so well was tuned for {} {}", row.goal.timing,
                                  row.goal.objective, goal_.timing, goal_.objective);
    if (goal_.deterministic) match.reason += "; deterministic";
    if (!passed_over_.empty()) match.reason += "; " + passed_over();
    if (!row.same_device) match.reason += fmt::format("; on {}, not on this {}", match.row->device.name, device_);
    for (const std::string& refusal : refusals_) match.reason += "; " + refusal;
    return "";
  }

  std::string passed_over() const {
    return fmt::format("{} passed over, whose launches were not seen to give the same bits", passed_over_.size());
  }

  std::string refuse(const Row& row, const std::string& why) {
    std::string line = fmt::format("refused the one of {}: {}", row.key, why);
    if (std::find(refusals_.begin(), refusals_.end(), line) == refusals_.end()) refusals_.push_back(std::move(line));
    return why.empty() ? "refused" : why;
  }

  const Shape& shape_;
  const Goal& goal_;
  const RowFilter& filter_;
  std::string device_;
  std::int64_t lds_limit_;
  std::function<Result<const Row::Loaded*>(Row&)> load_;
  std::vector<std::string> refusals_;
  std::set<std::int64_t> passed_over_;  // rows
  std::string illegal_;                 // why the first row that is not legal is not
  std::string arch_;                    // whose rows these are
  Account* account_;
};

// The nearest rows by what the model expects of them, then all others by their distance; up to `limit`.
bool search_near(Group& group, const Shape& shape, Search& search, bool defaults, double limit, MatchKind kind,
                 std::string_view why, Match& match) {
  auto near = group.nearest(shape, defaults, kNearRows);
  std::erase_if(near, [&](const Group::NearRow& item) { return item.distance > limit; });
  if (search.try_ranked(group, near, kind, why, match)) return true;
  if (near.size() < kNearRows) return false;
  for (const Group::NearRow& item : group.nearest(shape, defaults, SIZE_MAX)) {
    if (item.distance > limit) break;
    if (search.try_row(*item.row, kind, why, item.distance, match)) return true;
  }
  return false;
}

bool search_group(Group& group, const std::string& key, const Shape& shape, Search& search, Match& match) {
  if (search.try_rows(group.exact(key), MatchKind::kExact, match)) return true;
  if (search.try_rows(group.covering(shape), MatchKind::kDynamic, match)) return true;
  if (search_near(group, shape, search, false, kNearLimit, MatchKind::kNear, "", match)) return true;
  if (search_near(group, shape, search, true, HUGE_VAL, MatchKind::kDefault,
                  "; the operator's default, no tuned kernel is near", match))
    return true;
  // A legal kernel that is far away still beats no kernel.
  return search_near(group, shape, search, false, HUGE_VAL, MatchKind::kNear, "; far, but nothing nearer is legal",
                     match);
}

}  // namespace

Dispatcher::Dispatcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dispatcher::Dispatcher(Dispatcher&&) noexcept = default;
Dispatcher::~Dispatcher() = default;

Result<Dispatcher> Dispatcher::load(Db& db, std::string_view arch, std::string_view device_name) {
  auto impl = std::make_unique<Impl>();
  impl->db = &db;
  impl->arch = arch;
  impl->device = device_name;
  impl->sources = code_that_runs_on(arch);
  impl->levels.resize(impl->sources.size());
  // A relative may have more LDS than this device. One that is newer than the table has what its relatives have.
  if (const auto own = find_arch(arch.substr(0, arch.find(':'))); own) impl->lds_limit = (*own)->lds_limit;
  KGEN_TRY(WinnerIndex index, db.winner_index());
  for (WinnerIndex::Entry& entry : index.entries) {
    const OpRecord& op = index.ops[entry.op];
    const DeviceRecord& device = index.devices[entry.device];
    const auto source =
        std::ranges::find(impl->sources, device.arch, [](const CodeSource& known) { return known.arch->name; });
    if (source == impl->sources.end() ||
        (source->only_ptx && std::ranges::find(index.ptx_archs, device.arch) == index.ptx_archs.end())) {
      impl->elsewhere[op.signature].insert(device.arch);
      continue;
    }
    auto& group = impl->levels[static_cast<std::size_t>(source - impl->sources.begin())][op.signature][entry.op];
    if (group == nullptr) group = std::make_unique<Group>(op);
    group->add({.id = entry.id,
                .key = sorted_key(entry.dims_key),
                .is_default = entry.is_default,
                .same_device = device.name == device_name,
                .goal = std::move(entry.goal),
                .range = std::move(entry.range),
                .loaded = nullptr});
  }
  impl->ops = std::move(index.ops);
  return Dispatcher(std::move(impl));
}

Result<std::string> Dispatcher::signature(std::string_view op, std::string_view attributes) const {
  std::vector<const OpRecord*> records;  // newest first
  std::set<std::string> names;
  for (auto record = impl_->ops.rbegin(); record != impl_->ops.rend(); ++record) {
    names.insert(record->op);
    if (record->op == op) records.push_back(&*record);
  }
  if (records.empty()) {
    const std::vector<std::string> known(names.begin(), names.end());
    return fail(ErrorKind::kBadInput, fmt::format("the database has no operator '{}'{}", op, did_you_mean(op, known)));
  }

  std::vector<std::string> declared;
  Attributes defaults;
  for (const std::string& word : split(records.front()->attributes, ' ')) {
    const std::size_t equals = word.find('=');
    declared.push_back(word.substr(0, equals));
    defaults[declared.back()] = equals == std::string::npos ? "" : word.substr(equals + 1);
  }
  Attributes given;
  for (const std::string& word : split(attributes, ' ')) {
    if (word.empty()) continue;
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos) {
      return fail(ErrorKind::kBadInput, fmt::format("'{}' is not of the form attribute=value", word));
    }
    if (!defaults.contains(name)) {
      return fail(ErrorKind::kBadInput,
                  fmt::format("{} has no attribute '{}'{}", op, name, did_you_mean(name, declared)));
    }
    if (!given.emplace(name, word.substr(equals + 1)).second) {
      return fail(ErrorKind::kBadInput, fmt::format("attribute '{}' is given twice", name));
    }
  }

  Attributes values;  // without empty ones
  for (const std::string& name : declared) {
    std::string value;
    if (const auto it = given.find(name); it != given.end()) {
      value = it->second;
    } else {
      value = defaults[name];
      // A default may name an earlier attribute.
      if (const auto other = values.find(value); other != values.end()) value = other->second;
      const bool may_be_empty = std::ranges::any_of(
          records, [&](const OpRecord* record) { return !attributes_of(record->signature).contains(name); });
      if (value.empty() && !may_be_empty) {
        std::set<std::string> known;
        for (const OpRecord* record : records) known.insert(attributes_of(record->signature)[name]);
        return fail(ErrorKind::kBadInput,
                    fmt::format("{} needs the attribute '{}' (tuned: {})", op, name, fmt::join(known, ", ")));
      }
    }
    if (!value.empty()) values[name] = value;
  }
  for (const OpRecord* record : records) {
    if (attributes_of(record->signature) == values) return record->signature;
  }
  std::string text(op);
  for (const auto& [name, value] : values) text += fmt::format(" {}={}", name, value);
  return text;
}

std::vector<std::string> Dispatcher::operators() const {
  std::set<std::string> names;
  for (const auto& groups : impl_->levels) {
    for (const auto& [signature, generations] : groups) names.insert(generations.begin()->second->op().op);
  }
  return {names.begin(), names.end()};
}

Result<std::vector<OpRecord>> Dispatcher::records(std::string_view op) const {
  std::map<std::size_t, OpRecord, std::greater<>> found;  // by the index of the newest record of a signature
  std::set<std::string> signatures;
  for (const auto& groups : impl_->levels) {
    for (const auto& [signature, generations] : groups) {
      const auto& [age, group] = *generations.begin();
      if (group->op().op == op && signatures.insert(signature).second) found.emplace(age, group->op());
    }
  }
  if (found.empty()) {
    for (const auto& [signature, archs] : impl_->elsewhere) {
      if (split(signature, ' ').front() == op)
        return fail(ErrorKind::kBadInput,
                    fmt::format("'{}' was tuned for {} only, not for {}", op, fmt::join(archs, ", "), impl_->arch));
    }
    const auto known = operators();
    return fail(ErrorKind::kBadInput, fmt::format("the database has no operator '{}' for {}{}", op, impl_->arch,
                                                  did_you_mean(std::string(op), known)));
  }
  std::vector<OpRecord> records;
  for (auto& [age, record] : found) records.push_back(std::move(record));
  return records;
}

Result<const Plan*> Dispatcher::any_plan(const std::string& signature) const {
  const std::lock_guard lock(impl_->mutex);
  Error first;
  for (const auto& groups : impl_->levels) {
    const auto it = groups.find(signature);
    if (it == groups.end()) continue;
    for (const auto& [age, group] : it->second) {
      for (Row& row : group->rows()) {
        const auto loaded = impl_->load(row);
        if (loaded) return &(*loaded)->plan->plan;
        if (first.message.empty()) first = loaded.error();
      }
    }
  }
  if (first.message.empty()) return fail(ErrorKind::kBadInput, impl_->nothing(signature));
  return tl::unexpected(first);
}

Match Dispatcher::find(const std::string& signature, const Env& dims, const Goal& goal, const RowFilter& filter,
                       Account* account) const {
  const std::lock_guard lock(impl_->mutex);
  Match match;
  std::size_t rows = 0;
  std::string why;
  bool known = false;
  for (std::size_t level = 0; level < impl_->levels.size(); ++level) {
    const CodeSource& source = impl_->sources[level];
    const bool own = source.arch->name == impl_->arch;
    const auto it = impl_->levels[level].find(signature);
    if (account) {
      auto& told = account->levels.emplace_back(
          Account::Level{.arch = std::string(source.arch->name), .own = own, .only_ptx = source.only_ptx});
      if (it != impl_->levels[level].end())
        for (const auto& [age, group] : it->second) told.rows += group->rows().size();
    }
    if (it == impl_->levels[level].end()) continue;
    known = true;
    for (const auto& [age, group] : it->second) {
      const auto shape = group->resolve(dims);
      if (!shape) {
        if (why.empty()) why = shape.error().message;
        continue;
      }
      rows += group->rows().size();
      Search search(
          *shape, goal, filter, impl_->device, impl_->lds_limit, [&](Row& row) { return impl_->load(row); },
          source.arch->name, account);
      if (search_group(*group, key_of(shape->given), *shape, search, match)) {
        if (!own)
          match.reason += fmt::format("; {} of {}, which this {} runs", source.only_ptx ? "PTX" : "code",
                                      source.arch->name, impl_->arch);
        return match;
      }
      if (why.empty()) why = search.why();
    }
  }
  if (!known) {
    match.reason = impl_->nothing(signature);
  } else {
    match.reason = rows == 0 ? why : fmt::format("none of {} tuned kernels serves {}: {}", rows, key_of(dims), why);
  }
  return match;
}

}  // namespace kgen
