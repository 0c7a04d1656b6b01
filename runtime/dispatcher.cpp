#include "runtime/dispatcher.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
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
// A default that nobody timed comes after all that were.
constexpr double kUntimed = 100;

// A reason mostly has fewer characters, with the name of its kind in front.
constexpr std::size_t kReasonSize = 96;

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
  std::ranges::sort(words, {},
                    [](const std::string& word) { return std::string_view(word).substr(0, word.find('=')); });
  return join(words, " ");
}

void append(std::string& text, std::string_view name, std::int64_t value) {
  char digits[24];
  text += name;
  text += '=';
  text.append(digits, std::to_chars(digits, std::end(digits), value).ptr);
}

// "k=4096 m=1": an Env is sorted.
std::string key_of(const Env& dims) {
  std::string key;
  for (const auto& [name, value] : dims) {
    if (!key.empty()) key += ' ';
    append(key, name, value);
  }
  return key;
}

// A dim that differs from its default: by its place in the order of names.
struct Given {
  std::uint32_t place = 0;
  std::int64_t value = 0;
  bool operator==(const Given&) const = default;
};

// What a lookup needs at hand, and the rest once it is needed. What is read of the rows that are near comes first: most
// of them are not in the cache.
struct Row {
  struct Loaded {
    std::shared_ptr<const WinnerRow> row;
    std::shared_ptr<const StoredPlan> plan;
    bool same_dims = false;            // the plan's are those of the group, in its order
    std::optional<TimeModel> model{};  // once its time at another shape was asked for
  };
  std::unique_ptr<Loaded> loaded{};
  const Goal* goal = nullptr;  // one of Impl::goals
  bool same_device = false;
  bool is_default = false;
  std::uint32_t first = 0, count = 0;  // what it was tuned at, in Group::given_
  std::int64_t id = 0;
  std::string key{};
  std::optional<SizeRange> range{};
};

// A shape as asked for: every dim, and those that differ from their defaults.
struct Shape {
  std::vector<double> values;  // beside the operator's dims
  std::vector<bool> differs;   // likewise
  std::vector<Given> given;    // by name
};

// Makes shapes of the values of certain dims.
struct Resolver {
  struct Dim {
    ExprSet::Node standard = 0;
    std::size_t input = 0;  // where it is asked for: of `set`
    bool asked = false, has_standard = false;
  };
  std::vector<std::string> names;  // as the values come
  std::string refusal;             // why no values make a shape
  std::vector<Dim> dims;
  std::vector<std::uint32_t> asked;  // dims, by their places among the sorted names
  std::vector<std::size_t> inputs;   // of `set`: which of the values
  ExprSet set;
};

// The rows of one op record (a signature has several when its op's dims changed between tunings).
class Group {
 public:
  explicit Group(OpRecord op) : op_(std::move(op)), names_(split(op_.dims, ',')) {}

  const OpRecord& op() const { return op_; }
  const std::vector<std::string>& names() const { return names_; }
  std::vector<Row>& rows() { return rows_; }
  void add(Row row) { rows_.push_back(std::move(row)); }

  // For values of these dims; the others take their defaults.
  Result<const Resolver*> resolver(const std::vector<std::string>& names) {
    KGEN_CHECK_OK(prepare());
    auto& made = resolvers_[names];
    if (made == nullptr) {
      made = std::make_unique<Resolver>();
      made->names = names;
      fill(*made);
    }
    return made.get();
  }

  Result<void> resolve(const Resolver& resolver, std::span<const std::int64_t> values, Shape& shape) {
    if (!resolver.refusal.empty()) return fail(ErrorKind::kBadInput, resolver.refusal);
    inputs_.clear();
    for (const std::size_t from : resolver.inputs) {
      if (values[from] < 0)
        return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is negative ({})", resolver.names[from], values[from]));
      inputs_.push_back(static_cast<double>(values[from]));
    }
    resolver.set.run(inputs_, results_);
    shape.values.resize(names_.size());
    for (std::size_t i = 0; i < names_.size(); ++i) {
      const Resolver::Dim& dim = resolver.dims[i];
      shape.values[i] = dim.asked ? inputs_[dim.input] : results_[dim.standard];
      if (!ExprSet::known(shape.values[i]) || (dim.has_standard && !ExprSet::known(results_[dim.standard])))
        return no_default(i, shape.values);
    }
    shape.differs.assign(names_.size(), false);
    shape.given.clear();
    for (const std::uint32_t place : resolver.asked) {
      const std::size_t i = by_name_[place];
      const Resolver::Dim& dim = resolver.dims[i];
      if (dim.has_standard && shape.values[i] == results_[dim.standard]) continue;
      shape.differs[i] = true;
      shape.given.push_back({place, static_cast<std::int64_t>(shape.values[i])});
    }
    return {};
  }

  std::vector<Row*> exact(const Shape& shape) {
    std::vector<Row*> found;
    const std::pair<std::uint64_t, std::uint32_t> from{hash(shape.given), 0};
    for (auto at = std::ranges::lower_bound(by_hash_, from); at != by_hash_.end() && at->first == from.first; ++at) {
      if (Row& row = rows_[at->second]; std::ranges::equal(tuned(row), shape.given)) found.push_back(&row);
    }
    return found;
  }

  // Those whose range of a dynamic dim has the shape's size, the others being the same.
  std::vector<Row*> covering(const Shape& shape) {
    std::vector<Row*> found;
    for (const Cover& cover : covers_) {
      const auto covered = [&](const Given& dim) { return dim.place == cover.place; };
      std::vector<Given> others = shape.given;
      std::erase_if(others, covered);
      if (others != cover.others) continue;
      const auto value = static_cast<std::int64_t>(shape.values[by_name_[cover.place]]);
      for (const std::uint32_t i : cover.rows) {
        if (const SizeRange& range = *rows_[i].range; range.first <= value && value <= range.last)
          found.push_back(&rows_[i]);
      }
    }
    return found;
  }

  // The rows nearest to a shape, nearest first, by their place in rows(): the tuned ones, or the operator's defaults.
  // Valid until the next call.
  std::span<const NearShapes::Near> nearest(const Shape& asked, bool defaults, std::size_t most) {
    if (tuned_.size() + defaults_rows_.size() == 0) {
      Shape shape;
      for (std::size_t i = 0; i < rows_.size(); ++i)
        if (resolve(rows_[i], shape))
          (rows_[i].is_default ? defaults_rows_ : tuned_).add(i, shape.values, shape.differs);
    }
    return (defaults ? defaults_rows_ : tuned_).nearest(asked.values, asked.differs, most);
  }

  // What a row's kernel is likely to take for a shape, in microseconds; its own time where there is no telling.
  double predicted_us(const Row& row, const Shape& asked) {
    Row::Loaded& loaded = *row.loaded;
    if (!loaded.model) {
      const TrialRecord& trial = loaded.row->trial;
      if (!loaded.same_dims) return trial.time_us.value_or(0);
      Shape shape;
      const bool resolved = resolve(row, shape).has_value();
      const auto arch = find_arch(loaded.row->device.arch);
      loaded.model.emplace(loaded.plan->workload, resolved ? shape.values : asked.values, trial.time_us.value_or(0),
                           TimeModel::Occupancy{.units = loaded.row->device.compute_units,
                                                .waves = trial.occupancy_waves.value_or(0),
                                                .wave_size = arch ? (*arch)->wave_size : 0});
    }
    return loaded.model->us(loaded.plan->workload, asked.values, results_);
  }

  // What the dims of a row, or of a shape, are that differ from their defaults.
  std::span<const Given> tuned(const Row& row) const { return {given_.data() + row.first, row.count}; }
  std::int64_t tuned(const Row& row, const std::string& dim) const {
    for (const Given& given : tuned(row)) {
      if (names_[by_name_[given.place]] == dim) return given.value;
    }
    return 0;
  }
  // "m=5480 n=1280" where they differ from the tuned "m=5476 n=1280": "m=5480".
  void append_difference(std::string& text, std::span<const Given> of, std::span<const Given> from) const {
    const std::size_t start = text.size();
    auto other = from.begin();
    for (const Given& given : of) {
      while (other != from.end() && other->place < given.place) ++other;
      if (other != from.end() && *other == given) continue;
      if (text.size() > start) text += ' ';
      append(text, names_[by_name_[given.place]], given.value);
    }
    if (text.size() == start) text += "the same shape";
  }
  std::string key_of(const Shape& shape) const {
    std::string key;
    if (!shape.given.empty()) append_difference(key, shape.given, {});
    return key;
  }
  Env all(const Shape& shape) const {
    Env dims;
    for (std::size_t i = 0; i < names_.size(); ++i) dims[names_[i]] = static_cast<std::int64_t>(shape.values[i]);
    return dims;
  }

 private:
  struct Cover {
    std::uint32_t place = 0;    // of the dynamic dim
    std::vector<Given> others;  // the same in all its rows
    std::vector<std::uint32_t> rows;
  };

  static std::uint64_t hash(std::span<const Given> given) {
    std::uint64_t hash = 0x9e3779b97f4a7c15;
    for (const Given& dim : given) {
      hash = (hash ^ dim.place) * 0xff51afd7ed558ccd;
      hash = (hash ^ static_cast<std::uint64_t>(dim.value)) * 0xff51afd7ed558ccd;
      hash ^= hash >> 32;
    }
    return hash;
  }

  // Why dim `i` of a shape has no value; `before`: those before it.
  tl::unexpected<Error> no_default(std::size_t i, const std::vector<double>& before) const {
    Env env;
    for (std::size_t j = 0; j < i; ++j) env[names_[j]] = static_cast<std::int64_t>(before[j]);
    if (const auto standard = defaults_[i].eval(env); !standard) return tl::unexpected(standard.error());
    return fail(ErrorKind::kBadInput, fmt::format("dim '{}' is too large; sizes go from 0 to 2^53", names_[i]));
  }

  void fill(Resolver& made) const {
    for (const std::string& name : made.names) {
      if (std::ranges::find(names_, name) == names_.end()) {
        made.refusal = fmt::format("{} has no dim '{}'{}", op_.op, name, did_you_mean(name, names_));
        return;
      }
    }
    for (std::size_t i = 0; i < names_.size(); ++i) {
      Resolver::Dim& dim = made.dims.emplace_back();
      const auto from = std::ranges::find(made.names, names_[i]);
      dim.asked = from != made.names.end();
      dim.has_standard = !defaults_[i].text().empty();
      if (dim.has_standard) dim.standard = made.set.add(defaults_[i]);
      if (dim.asked) {
        dim.input = made.inputs.size();
        made.set.input(names_[i]);
        made.inputs.push_back(static_cast<std::size_t>(from - made.names.begin()));
      } else if (dim.has_standard) {
        made.set.name(names_[i], dim.standard);
      } else {
        made.refusal = fmt::format("dim '{}' of {} is missing", names_[i], op_.op);
        return;
      }
    }
    for (std::uint32_t place = 0; place < by_name_.size(); ++place)
      if (made.dims[by_name_[place]].asked) made.asked.push_back(place);
  }

  // The shape that a row was tuned at. Keys mostly name the same dims.
  Result<void> resolve(const Row& row, Shape& shape) {
    const auto read = [&](auto&& each) {
      for (std::string_view rest = row.key; !rest.empty();) {
        const std::string_view word = rest.substr(0, rest.find(' '));
        rest.remove_prefix(std::min(rest.size(), word.size() + 1));
        const std::size_t equals = word.find('=');
        if (equals == std::string_view::npos) continue;
        const auto value = to_integer(word.substr(equals + 1));
        if (value && !each(word.substr(0, equals), *value)) return false;
      }
      return true;
    };
    key_values_.clear();
    const auto known = [&](std::string_view name, std::int64_t value) {
      if (key_values_.size() == last_->names.size() || last_->names[key_values_.size()] != name) return false;
      key_values_.push_back(value);
      return true;
    };
    if (last_ == nullptr || !read(known) || key_values_.size() != last_->names.size()) {
      Env dims;
      read([&](std::string_view name, std::int64_t value) {
        dims[std::string(name)] = value;
        return true;
      });
      std::vector<std::string> names;
      key_values_.clear();
      for (const auto& [name, value] : dims) {
        names.push_back(name);
        key_values_.push_back(value);
      }
      KGEN_TRY(last_, resolver(names));
    }
    return resolve(*last_, key_values_, shape);
  }

  // Parses the defaults and binds the names they read beside dims: attributes, and enumerators as themselves. Then
  // takes in what the rows were tuned at; a row of unknown dims serves nothing.
  Result<void> prepare() {
    if (prepared_) return {};
    defaults_.clear();
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
      Env symbols;
      for (const std::string& name : expr.names()) {
        const auto dim = static_cast<std::size_t>(std::ranges::find(names_, name) - names_.begin());
        if (dim < names_.size() && dim >= defaults_.size())
          return fail(ErrorKind::kBadInput, fmt::format("the default of '{}' reads '{}', which comes after it",
                                                        names_[defaults_.size()], name));
        if (dim == names_.size()) symbols[name] = symbol(name, attributes, known);
      }
      defaults_.push_back(expr.specialised(symbols));
    }
    by_name_.resize(names_.size());
    std::iota(by_name_.begin(), by_name_.end(), std::size_t{0});
    std::ranges::sort(by_name_, {}, [&](std::size_t dim) -> const std::string& { return names_[dim]; });
    prepared_ = true;
    Shape shape;
    for (std::uint32_t i = 0; i < rows_.size(); ++i) {
      Row& row = rows_[i];
      if (!resolve(row, shape)) continue;
      row.first = static_cast<std::uint32_t>(given_.size());
      row.count = static_cast<std::uint32_t>(shape.given.size());
      given_.insert(given_.end(), shape.given.begin(), shape.given.end());
      if (!row.range)
        by_hash_.emplace_back(hash(shape.given), i);
      else
        add_cover(i, shape.given);
    }
    std::ranges::sort(by_hash_);
    return {};
  }

  void add_cover(std::uint32_t row, std::vector<Given> others) {
    const auto place = static_cast<std::uint32_t>(
        std::ranges::find(by_name_, rows_[row].range->dim, [&](std::size_t dim) { return names_[dim]; }) -
        by_name_.begin());
    if (place == by_name_.size()) return;
    std::erase_if(others, [&](const Given& dim) { return dim.place == place; });
    auto cover = std::ranges::find_if(
        covers_, [&](const Cover& known) { return known.place == place && known.others == others; });
    if (cover == covers_.end()) cover = covers_.insert(cover, {place, std::move(others), {}});
    cover->rows.push_back(row);
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
  const std::vector<std::string> names_;  // of the dims
  bool prepared_ = false;
  std::vector<std::size_t> by_name_;                              // dims, sorted by their names
  std::vector<Expr> defaults_;                                    // text() == "": required
  std::vector<Given> given_;                                      // of all rows
  std::vector<std::pair<std::uint64_t, std::uint32_t>> by_hash_;  // rows that were tuned for one shape; sorted
  std::vector<Cover> covers_;
  NearShapes tuned_, defaults_rows_;  // made at the first look for near ones
  std::map<std::vector<std::string>, std::unique_ptr<Resolver>> resolvers_;
  const Resolver* last_ = nullptr;
  // Memory of the present call.
  std::vector<std::int64_t> key_values_;
  std::vector<double> inputs_, results_;
};

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

std::string operands_of(const Plan& plan) {
  std::string names;
  for (const Param& param : plan.params) {
    if (param.role == Role::kDim || param.role == Role::kWorkspace || param.role == Role::kPrepared ||
        param.role == Role::kTensorMap)
      continue;
    names += param.role == Role::kScalar ? '|' : ',';
    names += param.name;
  }
  return names;
}

StoredPlan::StoredPlan(Plan read, std::string text_hash)
    : plan(std::move(read)), binder(plan), workload(plan), hash(std::move(text_hash)), operands(operands_of(plan)) {}

Result<std::shared_ptr<const StoredPlan>> StoredPlan::make(Plan read, std::string text_hash) {
  auto made = std::make_shared<StoredPlan>(std::move(read), std::move(text_hash));
  KGEN_TRY(made->layout, LaunchLayout::make(made->plan));
  return made;
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
  std::set<Goal> goals;                                    // of the rows
  mutable std::mutex mutex;                                // over what is read at first use: rows, plans, defaults
  mutable std::unordered_map<std::string, std::shared_ptr<const StoredPlan>> plans;  // by the hash of their text

  // Memory of the present find().
  mutable Shape shape;
  mutable std::vector<double> results;

  Result<const Row::Loaded*> load(const Group& group, Row& row) const {
    if (row.loaded != nullptr) return row.loaded.get();
    auto loaded = std::make_unique<Row::Loaded>();
    KGEN_TRY(WinnerRow read, db->winner(row.id));
    std::string& text = read.winner.plan_json;
    const std::string hash = hash_text(text);
    auto& stored = plans[hash];
    if (stored == nullptr) {
      KGEN_TRY(Plan plan, plan_from_json(text));
      KGEN_TRY(stored, StoredPlan::make(std::move(plan), hash));
    }
    loaded->plan = stored;
    loaded->same_dims = stored->plan.dims == group.names();
    text = {};  // ten times the size of all the rest
    read.trial.config = printable(read.trial.config);
    read.trial.reason = printable(read.trial.reason);
    loaded->row = std::make_shared<const WinnerRow>(std::move(read));
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

// One find() in one group: tries rows in the order of the rule and remembers why some could not be used.
template <class Impl>
class Search {
 public:
  // `arch`: whose rows these are, for the account, which may be null.
  Search(const Impl& impl, Group& group, const Shape& shape, const Goal& goal, const RowFilter& filter,
         std::string_view arch, Account* account)
      : impl_(impl), group_(group), shape_(shape), goal_(goal), filter_(filter), arch_(arch), account_(account) {}

  bool run(Match& match) {
    std::vector<Row*> exact = group_.exact(shape_);
    std::erase_if(exact, [&](Row* row) { return untimed(*row); });
    if (try_rows(std::move(exact), MatchKind::kExact, match)) return true;
    if (try_rows(group_.covering(shape_), MatchKind::kDynamic, match)) return true;
    if (try_near(false, kNearLimit, MatchKind::kNear, "", match)) return true;
    if (try_near(true, HUGE_VAL, MatchKind::kDefault, "; the operator's default, no tuned kernel is near", match))
      return true;
    // A legal kernel that is far away still beats no kernel.
    return try_near(false, HUGE_VAL, MatchKind::kNear, "; far, but nothing nearer is legal", match);
  }

  // Why there is no match.
  std::string why() const {
    std::vector<std::string> reasons = refusals_;
    if (reasons.empty() && !illegal_.empty()) reasons.push_back(illegal_);
    if (!passed_over_.empty()) reasons.push_back(passed_over());
    return join(reasons, "; ");
  }

 private:
  // The first usable of rows that the rule holds equal: same device name first, then tuned before default, then tuned
  // for the goal, then faster (by its energy where that is the objective).
  bool try_rows(std::vector<Row*> rows, MatchKind kind, Match& match) {
    if (rows.size() > 1) {
      const auto rank = [&](Row* row) {
        const auto loaded = impl_.load(group_, *row);
        double cost = HUGE_VAL;
        if (loaded) {
          const TrialRecord& trial = (*loaded)->row->trial;
          const bool energy = row->goal->objective == "energy" && trial.energy_uj;
          cost = energy ? *trial.energy_uj : trial.time_us.value_or(HUGE_VAL);
        }
        // The objective before the timing, and cold before the others where the asked timing is not there.
        return std::tuple(!row->same_device, row->is_default, row->goal->objective != goal_.objective,
                          row->goal->timing != goal_.timing, row->goal->timing != "cold",
                          row->goal->deterministic != goal_.deterministic, row->range ? row->range->loss : cost,
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

  // The nearest rows by what the model expects of them, then all others by their distance; up to `limit`. Rows of
  // another device, objective or timing than asked come after those that take little longer.
  bool try_near(bool defaults, double limit, MatchKind kind, std::string_view why, Match& match) {
    struct Ranked {
      double doubt = 0, distance = 0;
      Row* row = nullptr;
    };
    std::array<Ranked, kNearRows> ranked;
    std::size_t count = 0;
    for (const auto& [distance, at] : group_.nearest(shape_, defaults, kNearRows)) {
      if (distance > limit) break;
      Row& row = group_.rows()[at];
      const Ranked next{kDoubtOfOctave * distance + (row.same_device ? 0 : kOtherDevice) + other_goal(*row.goal) +
                            log_cost(row) + (defaults && untimed(row) ? kUntimed : 0),
                        distance, &row};
      // Of equals the nearer one first.
      const auto place = std::upper_bound(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(count), next,
                                          [](const Ranked& a, const Ranked& b) { return a.doubt < b.doubt; });
      std::move_backward(place, ranked.begin() + static_cast<std::ptrdiff_t>(count),
                         ranked.begin() + static_cast<std::ptrdiff_t>(count) + 1);
      *place = next;
      ++count;
    }
    const std::size_t first = noted();
    for (std::size_t i = 0; i < count && account_; ++i) {
      const double us = impl_.load(group_, *ranked[i].row) ? group_.predicted_us(*ranked[i].row, shape_) : 0;
      note(*ranked[i].row, kind, why, ranked[i].distance, us, us > 0 ? std::exp(ranked[i].doubt) : 0);
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (try_row(*ranked[i].row, kind, why, ranked[i].distance, match, first + i)) return true;
    }
    if (count < kNearRows) return false;
    for (const auto& [distance, at] : group_.nearest(shape_, defaults, SIZE_MAX)) {
      if (distance > limit) break;
      const std::size_t next = noted();
      note(group_.rows()[at], kind, why, distance);
      if (try_row(group_.rows()[at], kind, why, distance, match, next)) return true;
    }
    return false;
  }

  // Its own shape is nothing that an untimed default was tuned for.
  bool untimed(Row& row) const {
    if (!row.is_default) return false;
    const auto loaded = impl_.load(group_, row);
    return loaded && kgen::untimed((*loaded)->row->trial);
  }

  std::size_t noted() const { return account_ ? account_->considered.size() : 0; }
  void note(Row& row, MatchKind kind, std::string_view why, double distance, double expected_us = 0,
            double ranked_us = 0) {
    if (!account_) return;
    const auto loaded = impl_.load(group_, row);
    account_->considered.push_back({.arch = std::string(arch_),
                                    .kind = kind,
                                    .far = kind == MatchKind::kNear && !why.empty(),
                                    .dims_key = sorted_key(row.key),
                                    .row = loaded ? (*loaded)->row.get() : nullptr,
                                    .distance = distance,
                                    .expected_us = expected_us,
                                    .ranked_us = ranked_us,
                                    .refused = {}});
  }

  // `at`: where it is noted.
  bool try_row(Row& row, MatchKind kind, std::string_view why, double distance, Match& match, std::size_t at) {
    std::string refused;
    const bool used = use(row, kind, why, distance, match, refused);
    if (account_) {
      account_->considered[at].tried = true;
      account_->considered[at].refused = std::move(refused);
    }
    return used;
  }

  double other_goal(const Goal& goal) {
    if (&goal == last_goal_) return last_doubt_;
    last_goal_ = &goal;
    return last_doubt_ = (goal.objective == goal_.objective ? 0 : kOtherObjective) +
                         (goal.timing == goal_.timing ? 0
                          : goal.timing == "cold"     ? kOtherTiming
                                                      : 2 * kOtherTiming) +
                         (goal.deterministic == goal_.deterministic ? 0 : 1e-3 * kOtherTiming);
  }

  double log_cost(Row& row) {
    const auto loaded = impl_.load(group_, row);
    if (!loaded) return 0;
    double cost = group_.predicted_us(row, shape_);
    if (goal_.objective == "energy" && row.goal->objective == "energy") {
      const TrialRecord& trial = (*loaded)->row->trial;
      if (trial.energy_uj && trial.time_us && *trial.time_us > 0) cost *= *trial.energy_uj / *trial.time_us;
    }
    return cost > 0 ? std::log(cost) : 0;
  }

  // Makes the match of a row, or says in `refused` why it cannot serve.
  bool use(Row& row, MatchKind kind, std::string_view why, double distance, Match& match, std::string& refused) {
    const auto loaded = impl_.load(group_, row);
    if (!loaded) return refuse(row, refused = loaded.error().message);
    if (goal_.deterministic && (*loaded)->row->trial.deterministic != true) {
      passed_over_.insert(row.id);
      refused = "its launches were not seen to give the same bits";
      return false;
    }
    const auto fits = bind(**loaded, match.bound);
    if (!fits) {
      match.bound = {};
      refused = fits.error().message;
      if (illegal_.empty()) illegal_ = refused;
      return false;
    }
    if (filter_) {
      if (const auto usable = filter_(*(*loaded)->row, (*loaded)->plan); !usable)
        return refuse(row, refused = usable.error().message);
    }
    match.kind = kind;
    match.row = (*loaded)->row;
    match.plan = (*loaded)->plan;
    if (kind == MatchKind::kExact) match.expected_loss = 0;
    if (kind == MatchKind::kDynamic) match.expected_loss = row.range->loss;
    if (kind == MatchKind::kNear) match.expected_loss = std::min(kMostLoss, kLossOfOctave * distance);
    match.reason = reason(row, kind, why);
    const bool timed = !kgen::untimed(match.row->trial);
    if (timed && (row.goal->timing != goal_.timing || row.goal->objective != goal_.objective))
      match.reason += fmt::format("; for {} {}, as nothing that fits so well was tuned for {} {}", row.goal->timing,
                                  row.goal->objective, goal_.timing, goal_.objective);
    if (goal_.deterministic) match.reason += "; deterministic";
    if (!passed_over_.empty()) match.reason += "; " + passed_over();
    if (timed && !row.same_device)
      match.reason += fmt::format("; on {}, not on this {}", match.row->device.name, impl_.device);
    for (const std::string& refusal : refusals_) match.reason += "; " + refusal;
    return true;
  }

  std::string reason(const Row& row, MatchKind kind, std::string_view why) const {
    if (kind == MatchKind::kExact) return "tuned for this shape";
    if (kind == MatchKind::kDynamic)
      return fmt::format("serves {0}={1}..{2}, measured at {0}={3}", row.range->dim, row.range->first, row.range->last,
                         group_.tuned(row, row.range->dim));
    std::string text;
    text.reserve(kReasonSize);
    const TrialRecord& trial = row.loaded->row->trial;
    const bool timed = !kgen::untimed(trial);
    const bool its_own = std::ranges::equal(group_.tuned(row), shape_.given);
    text += timed ? "tuned at " : its_own ? "the operator's default for this shape, " : "the operator's default for ";
    if (!timed && its_own) return text + trial.reason;
    group_.append_difference(text, group_.tuned(row), shape_.given);
    text += ", legal for ";
    group_.append_difference(text, shape_.given, group_.tuned(row));
    if (timed)
      text += why;
    else
      text += ", " + trial.reason;
    return text;
  }

  // Whether the row's plan may be launched for the shape.
  Result<void> bind(const Row::Loaded& loaded, BoundSizes& bound) const {
    const StoredPlan& stored = *loaded.plan;
    if (loaded.same_dims) {
      KGEN_CHECK_OK(stored.binder.sizes(shape_.values, impl_.results, bound));
    } else {
      KGEN_TRY(const auto values, stored.binder.values(group_.all(shape_)));
      KGEN_CHECK_OK(stored.binder.sizes(values, impl_.results, bound));
    }
    for (const BoundSizes::Step& step : bound.steps) {
      if (step.lds_bytes > impl_.lds_limit)
        return fail(ErrorKind::kCheckFailed,
                    fmt::format("not legal for this device: '{}' takes {} bytes of LDS, a block has {} at most",
                                stored.plan.steps[step.index].kernel, step.lds_bytes, impl_.lds_limit));
    }
    return {};
  }

  std::string passed_over() const {
    return fmt::format("{} passed over, whose launches were not seen to give the same bits", passed_over_.size());
  }

  bool refuse(const Row& row, const std::string& why) {
    std::string line = fmt::format("refused the one of {}: {}", sorted_key(row.key), why);
    if (std::find(refusals_.begin(), refusals_.end(), line) == refusals_.end()) refusals_.push_back(std::move(line));
    return false;
  }

  const Impl& impl_;
  Group& group_;
  const Shape& shape_;
  const Goal& goal_;
  const RowFilter& filter_;
  const std::string_view arch_;
  Account* const account_;
  const Goal* last_goal_ = nullptr;
  double last_doubt_ = 0;
  std::vector<std::string> refusals_;
  std::set<std::int64_t> passed_over_;  // rows
  std::string illegal_;                 // why the first row that is not legal is not
};

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
  const Goal* goal = nullptr;
  // Rows of one operator and device mostly follow one another.
  Group* group = nullptr;  // null: their code does not run here
  std::optional<std::pair<std::size_t, std::size_t>> of;
  for (WinnerIndex::Entry& entry : index.entries) {
    const OpRecord& op = index.ops[entry.op];
    const DeviceRecord& device = index.devices[entry.device];
    if (of != std::pair(entry.op, entry.device)) {
      of = {entry.op, entry.device};
      const auto source =
          std::ranges::find(impl->sources, device.arch, [](const CodeSource& known) { return known.arch->name; });
      if (source == impl->sources.end() ||
          (source->only_ptx && std::ranges::find(index.ptx_archs, device.arch) == index.ptx_archs.end())) {
        impl->elsewhere[op.signature].insert(device.arch);
        group = nullptr;
      } else {
        auto& known = impl->levels[static_cast<std::size_t>(source - impl->sources.begin())][op.signature][entry.op];
        if (known == nullptr) known = std::make_unique<Group>(op);
        group = known.get();
      }
    }
    if (group == nullptr) continue;
    if (goal == nullptr || *goal != entry.goal) goal = &*impl->goals.insert(std::move(entry.goal)).first;
    group->add({.goal = goal,
                .same_device = device.name == device_name,
                .is_default = entry.is_default,
                .id = entry.id,
                .key = std::move(entry.dims_key),
                .range = std::move(entry.range)});
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
        const auto loaded = impl_->load(*group, row);
        if (loaded) return &(*loaded)->plan->plan;
        if (first.message.empty()) first = loaded.error();
      }
    }
  }
  if (first.message.empty()) return fail(ErrorKind::kBadInput, impl_->nothing(signature));
  return tl::unexpected(first);
}

struct Dispatcher::Question {
  struct Entry {
    std::size_t level = 0;
    Group* group = nullptr;
    const Resolver* resolver = nullptr;
    std::string fault;  // why there is none
  };
  std::string signature;
  std::vector<std::string> dims;
  std::vector<Entry> entries;  // in the order in which they are gone through
};

std::shared_ptr<const Dispatcher::Question> Dispatcher::question(const std::string& signature,
                                                                 std::vector<std::string> dims) const {
  const std::lock_guard lock(impl_->mutex);
  auto made = std::make_shared<Question>();
  made->signature = signature;
  made->dims = std::move(dims);
  for (std::size_t level = 0; level < impl_->levels.size(); ++level) {
    const auto it = impl_->levels[level].find(signature);
    if (it == impl_->levels[level].end()) continue;
    for (const auto& [age, group] : it->second) {
      Question::Entry& entry = made->entries.emplace_back();
      entry.level = level;
      entry.group = group.get();
      if (const auto resolver = group->resolver(made->dims))
        entry.resolver = *resolver;
      else
        entry.fault = resolver.error().message;
    }
  }
  return made;
}

Match Dispatcher::find(const std::string& signature, const Env& dims, const Goal& goal, const RowFilter& filter,
                       Account* account) const {
  std::vector<std::string> names;
  std::vector<std::int64_t> values;
  for (const auto& [name, value] : dims) {
    names.push_back(name);
    values.push_back(value);
  }
  return find(*question(signature, std::move(names)), values, goal, filter, account);
}

Match Dispatcher::find(const Question& question, std::span<const std::int64_t> values, const Goal& goal,
                       const RowFilter& filter, Account* account) const {
  const std::lock_guard lock(impl_->mutex);
  Match match;
  for (std::size_t level = 0; account && level < impl_->levels.size(); ++level) {
    const CodeSource& source = impl_->sources[level];
    auto& told = account->levels.emplace_back(Account::Level{
        .arch = std::string(source.arch->name), .own = source.arch->name == impl_->arch, .only_ptx = source.only_ptx});
    for (const Question::Entry& entry : question.entries)
      if (entry.level == level) told.rows += entry.group->rows().size();
  }
  std::size_t rows = 0;
  std::string why;
  for (const Question::Entry& entry : question.entries) {
    Shape& shape = impl_->shape;
    const auto resolved = entry.resolver == nullptr ? Result<void>(fail(ErrorKind::kBadInput, entry.fault))
                                                    : entry.group->resolve(*entry.resolver, values, shape);
    if (!resolved) {
      if (why.empty()) why = resolved.error().message;
      continue;
    }
    rows += entry.group->rows().size();
    Search search(*impl_, *entry.group, shape, goal, filter, impl_->sources[entry.level].arch->name, account);
    if (search.run(match)) {
      if (const CodeSource& source = impl_->sources[entry.level]; source.arch->name != impl_->arch)
        match.reason += fmt::format("; {} of {}, which this {} runs", source.only_ptx ? "PTX" : "code",
                                    source.arch->name, impl_->arch);
      return match;
    }
    if (why.empty()) why = search.why();
  }
  if (question.entries.empty()) {
    match.reason = impl_->nothing(question.signature);
  } else if (rows == 0) {
    match.reason = why;
  } else {
    Env dims;
    for (std::size_t i = 0; i < values.size(); ++i) dims[question.dims[i]] = values[i];
    match.reason = fmt::format("none of {} tuned kernels serves {}: {}", rows, key_of(dims), why);
  }
  return match;
}

}  // namespace kgen
