// Reads operator definitions (ops/*.yaml): structure, names and expressions are all checked here, so that a definition
// that loads can be enumerated and emitted for any problem.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <climits>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <set>
#include <utility>

#include "base/hash.h"
#include "base/text.h"
#include "generator/embedded.h"
#include "generator/flatten.h"
#include "generator/keys.h"
#include "generator/spec.h"
#include "generator/yaml.h"

namespace kgen {

namespace fs = std::filesystem;

namespace {

using Names = std::set<std::string, std::less<>>;

constexpr std::size_t kMostMaps = 4;  // LaunchShape::kMostMaps, which this folder does not see

const Names& reserved_words() {
  static const Names words = {
      "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch", "char",
      "char8_t", "char16_t", "char32_t", "class", "compl", "concept", "const", "consteval", "constexpr", "constinit",
      "const_cast", "continue", "co_await", "co_return", "co_yield", "decltype", "default", "delete", "do", "double",
      "dynamic_cast", "else", "enum", "explicit", "export", "extern", "false", "float", "for", "friend", "goto", "if",
      "inline", "int", "long", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr", "operator", "or",
      "or_eq", "private", "protected", "public", "register", "reinterpret_cast", "requires", "return", "short",
      "signed", "sizeof", "static", "static_assert", "static_cast", "struct", "switch", "template", "this",
      "thread_local", "throw", "true", "try", "typedef", "typeid", "typename", "union", "unsigned", "using", "virtual",
      "void", "volatile", "wchar_t", "while", "xor", "xor_eq",
      // functions of expressions
      "min", "max", "abs", "ceil_div", "floor_div", "round_up", "log2", "is_pow2",
      // names of the emitted source
      "kgen", "params"};
  return words;
}

const std::vector<std::string>& arch_facts() {
  static const std::vector<std::string> names = {"arch",        "vendor",      "family",       "matrix_unit",
                                                 "wave_size",   "lds_limit",   "max_block",    "max_registers",
                                                 "async_copy",  "bf16_matrix", "fp16_matrix",  "fp32_matrix",
                                                 "max_cluster", "bulk_copy",   "warpgroup_mma"};
  return names;
}

bool is_identifier(std::string_view word) {
  if (word.empty() || word.size() > 64 || std::isdigit(static_cast<unsigned char>(word[0]))) return false;
  return std::all_of(word.begin(), word.end(), [](unsigned char c) { return std::isalnum(c) || c == '_'; });
}

// What expressions may read of an attribute of kind `expression`.
std::vector<std::string> expression_names(const std::string& attribute) {
  std::vector<std::string> names = {attribute + "_operations"};
  for (const std::string_view kind : kOperandKinds) names.push_back(fmt::format("{}_{}", attribute, kind));
  return names;
}

// What expressions may read of an attribute of kind `ints`.
std::vector<std::string> ints_names(const std::string& attribute) {
  std::vector<std::string> names = {attribute + "_count", attribute + "_max"};
  for (int i = 1; i <= kMaxInts; ++i) names.push_back(fmt::format("{}_{}", attribute, i));
  return names;
}

Result<std::string> identifier(const Yaml& node, std::string_view what) {
  KGEN_TRY(std::string word, node.as_text(what));
  if (!is_identifier(word)) {
    return node.fail(fmt::format("'{}' cannot name a {}; use letters, digits and '_'", word, what));
  }
  if (reserved_words().count(word)) return node.fail(fmt::format("'{}' is a reserved word; rename the {}", word, what));
  return word;
}

// Everything an op definition can hold, read in declared order into `op`.
class OpReader {
 public:
  OpReader(const Yaml& root, const std::string& file, const std::string& folder) : root_(root) {
    op_.file = file;
    op_.folder = folder;
  }
  OpReader& made_by(Expression expression, std::vector<OperandGroup> groups, std::string_view yaml) {
    op_.expression = std::move(expression);
    op_.groups = std::move(groups);
    op_.yaml = yaml;
    return *this;
  }

  Result<OpDef> read() {
    if (root_.find("extends")) return read_extension();
    KGEN_CHECK_OK(root_.expect_keys("an operator definition", keys_of("definition")));
    KGEN_CHECK_OK(read_head());
    KGEN_CHECK_OK(read_attributes());
    KGEN_CHECK_OK(read_dims());
    problem_names_ = dim_names_;
    problem_names_.insert(attribute_names_.begin(), attribute_names_.end());
    KGEN_CHECK_OK(read_arguments());
    if (const Yaml* rules = root_.find("rules")) KGEN_CHECK_OK(read_rules(*rules, problem_names_, op_.rules));
    KGEN_CHECK_OK(read_cost());
    KGEN_CHECK_OK(read_reference());
    KGEN_CHECK_OK(read_variants());
    return std::move(op_);
  }

 private:
  Result<void> read_head() {
    KGEN_TRY(const Yaml version, root_.need("an operator definition", "kgen"));
    KGEN_TRY(const std::int64_t number, version.as_int("kgen"));
    if (number != 1) return version.fail(fmt::format("format {} is not known; this kgen reads format 1", number));
    KGEN_TRY(const Yaml name, root_.need("an operator definition", "op"));
    KGEN_TRY(op_.name, identifier(name, "operator"));
    KGEN_TRY(op_.doc, optional_text(root_, "doc"));
    values_.insert(arch_facts().begin(), arch_facts().end());
    return {};
  }

  // An operator that is another one on other names (docs/op-format.md, "extends").
  Result<OpDef> read_extension() {
    KGEN_CHECK_OK(root_.expect_keys("an operator that extends another", keys_of("extension")));
    const Yaml& extends = *root_.find("extends");
    KGEN_TRY(std::string base_name, extends.as_text("extends"));
    if (base_name.find('/') != std::string::npos || base_name.ends_with(".yaml")) {
      base_name = (fs::path(op_.file).parent_path() / base_name).string();
    }
    const auto base = load_op(base_name);
    if (!base) return extends.fail(base.error().message);
    if (!(*base)->base.empty()) {
      return extends.fail(fmt::format("'{}' itself extends '{}'; extend that one", (*base)->name, (*base)->base));
    }
    if ((*base)->expression) return extends.fail(fmt::format("'{}' is made by an expression", (*base)->name));
    std::string file = std::move(op_.file);
    op_ = **base;
    op_.base = (*base)->name;
    op_.file = std::move(file);
    KGEN_CHECK_OK(read_head());
    learn_names(**base);

    std::vector<DimDef> base_dims = std::move(op_.dims);
    op_.dims.clear();
    KGEN_CHECK_OK(read_dims());
    const Names own = dim_names_;
    for (DimDef& dim : op_.dims) dim.parameter = false;
    for (const DimDef& dim : base_dims) dim_names_.insert(dim.name);
    problem_names_ = dim_names_;
    problem_names_.insert(attribute_names_.begin(), attribute_names_.end());
    if (const Yaml* bind = root_.find("bind")) KGEN_CHECK_OK(read_bind(*bind, own, base_dims));
    op_.dims.insert(op_.dims.end(), base_dims.begin(), base_dims.end());
    if (const Yaml* arguments = root_.find("arguments")) KGEN_CHECK_OK(read_renames(*arguments));
    if (const Yaml* rules = root_.find("rules")) KGEN_CHECK_OK(read_rules(*rules, problem_names_, op_.rules));
    return std::move(op_);
  }

  void learn_names(const OpDef& base) {
    for (const auto& [name, value] : operator_env(base, {})) symbols_.insert(name);
    for (const AttributeDef& attribute : base.attributes) {
      attribute_names_.insert(attribute.name);
      if (attribute.kind == AttributeDef::Kind::kDType) attribute_names_.insert(attribute.name + "_bytes");
      if (attribute.kind == AttributeDef::Kind::kInts) {
        for (const std::string& name : ints_names(attribute.name)) attribute_names_.insert(name);
      }
      if (attribute.kind != AttributeDef::Kind::kList) continue;
      for (const std::string& word : attribute.values) attribute_names_.insert(attribute.name + "_" + word);
    }
    for (const DimDef& dim : base.dims) values_.insert(dim.name);
    for (const VariantDef& variant : base.variants) {
      for (const TunableDef& tunable : variant.tunables) values_.insert(tunable.name);
      for (const DerivedDef& derived : variant.derived) values_.insert(derived.name);
    }
    for (const std::string& name : attribute_names_) symbols_.erase(name);
  }

  Result<void> read_bind(const Yaml& bind, const Names& own, std::vector<DimDef>& base_dims) {
    KGEN_CHECK_OK(bind.expect_map("bind"));
    Names scope = own;
    scope.insert(attribute_names_.begin(), attribute_names_.end());
    std::vector<std::string> known;
    for (const DimDef& dim : base_dims) known.push_back(dim.name);
    for (const AttributeDef& attribute : op_.attributes) known.push_back(attribute.name);
    for (const auto& [key, value] : bind.entries()) {
      const std::string& name = key.text();
      const auto dim =
          std::find_if(base_dims.begin(), base_dims.end(), [&](const DimDef& d) { return d.name == name; });
      if (dim != base_dims.end()) {
        KGEN_TRY(dim->default_text, expression_text(value, fmt::format("bind of '{}'", name), scope));
        Rule rule;
        rule.line = key.line();
        KGEN_TRY(rule.require, Expr::parse(fmt::format("{} == ({})", name, dim->default_text)));
        rule.because = fmt::format("{} of {} is {}", name, op_.name, dim->default_text);
        op_.rules.push_back(std::move(rule));
        continue;
      }
      const auto attribute = std::find_if(op_.attributes.begin(), op_.attributes.end(),
                                          [&](const AttributeDef& a) { return a.name == name; });
      if (attribute == op_.attributes.end()) {
        return key.fail(
            fmt::format("'{}' is neither a dim nor an attribute of {}{}", name, op_.base, did_you_mean(name, known)));
      }
      KGEN_TRY(const std::vector<std::string> words, value.as_words(fmt::format("bind of '{}'", name)));
      if (attribute->kind != AttributeDef::Kind::kList && words.size() != 1) {
        return value.fail(fmt::format("attribute '{}' is bound to one value", name));
      }
      for (const std::string& word : words) {
        if (std::find(attribute->values.begin(), attribute->values.end(), word) == attribute->values.end()) {
          return value.fail(
              fmt::format("'{}' is not a value of '{}'{}", word, name, did_you_mean(word, attribute->values)));
        }
      }
      attribute->default_text = join(words, ",");
      attribute->fixed = true;
      attribute->axis = false;
    }
    return {};
  }

  Result<void> read_renames(const Yaml& arguments) {
    KGEN_CHECK_OK(arguments.expect_map("arguments"));
    std::vector<std::string> known;
    for (const ArgumentDef& argument : op_.arguments) known.push_back(argument.field);
    for (const auto& [key, value] : arguments.entries()) {
      KGEN_TRY(const std::string name, identifier(key, "argument"));
      const std::string what = fmt::format("argument '{}'", name);
      KGEN_CHECK_OK(value.expect_keys(what, keys_of("renamed argument")));
      KGEN_TRY(const Yaml from, value.need(what, "from"));
      const auto found = std::find_if(op_.arguments.begin(), op_.arguments.end(),
                                      [&](const ArgumentDef& a) { return a.field == from.text(); });
      if (found == op_.arguments.end()) {
        return from.fail(
            fmt::format("{} has no argument '{}'{}", op_.base, from.text(), did_you_mean(from.text(), known)));
      }
      const std::string old = std::exchange(found->param.name, name);
      if (const auto terms = op_.reference.terms_text.extract(old); !terms.empty()) {
        op_.reference.terms_text[name] = terms.mapped();
      }
      if (op_.reference.projection && op_.reference.projection->output == old) op_.reference.projection->output = name;
      for (VariantDef& variant : op_.variants) {
        if (const auto align = variant.align_text.extract(old); !align.empty()) {
          variant.align_text[name] = align.mapped();
        }
      }
      KGEN_CHECK_OK(read_layout(value, what, *found));
    }
    Names params;
    for (const DimDef& dim : op_.dims) params.insert(dim.name);
    for (const Param& scalar : op_.scalars) params.insert(scalar.name);
    for (const ArgumentDef& argument : op_.arguments) {
      KGEN_CHECK_OK(add_param(arguments, argument.param.name, params));
    }
    for (const VariantDef& variant : op_.variants) {
      Names with_buffers = params;
      for (const ArgumentDef& buffer : variant.buffers) {
        KGEN_CHECK_OK(add_param(arguments, buffer.param.name, with_buffers));
      }
      for (const ArgumentDef& map : variant.tensor_maps) {
        KGEN_CHECK_OK(add_param(arguments, map.param.name, with_buffers));
      }
    }
    return {};
  }

  // Shape, strides and test data, as far as `map` has them.
  Result<void> read_layout(const Yaml& map, const std::string& what, ArgumentDef& argument) const {
    const Yaml* shape = map.find("shape");
    if (shape) {
      KGEN_TRY(argument.param.shape, expressions(*shape, what + " shape", problem_names_));
      if (argument.param.shape.empty()) return shape->fail(what + " needs at least one axis");
      KGEN_TRY(argument.param.strides, dense_strides(argument.param.shape));
    }
    if (const Yaml* strides = map.find("strides")) {
      KGEN_TRY(argument.param.strides, expressions(*strides, what + " strides", problem_names_));
      if (argument.param.strides.size() != argument.param.shape.size()) {
        return strides->fail(fmt::format("{} has {} axes but {} strides", what, argument.param.shape.size(),
                                         argument.param.strides.size()));
      }
    }
    if (const Yaml* init = map.find("init")) return read_init(*init, argument.init);
    return {};
  }

  static Result<std::string> optional_text(const Yaml& map, const std::string& key) {
    const Yaml* value = map.find(key);
    if (!value) return std::string();
    return value->as_text(key);
  }

  // An expression that reads nothing but `scope` and enumerators.
  Result<Expr> expression(const Yaml& node, std::string_view what, const Names& scope) const {
    KGEN_TRY(const std::string text, node.as_text(what));
    auto parsed = Expr::parse(text);
    if (!parsed) return node.fail(fmt::format("{} '{}': {}", what, text, parsed.error().message));
    for (const std::string& name : parsed->names()) {
      if (scope.count(name) || symbols_.count(name)) continue;
      std::vector<std::string> known(scope.begin(), scope.end());
      known.insert(known.end(), symbols_.begin(), symbols_.end());
      std::string hint = did_you_mean(name, known);
      if (hint.empty()) {
        const bool exists = values_.count(name) || dim_names_.count(name);
        hint = exists ? "; it is not known at this place" : "; see docs/op-format.md for what an expression may read";
      }
      return node.fail(fmt::format("{} '{}' reads unknown name '{}'{}", what, text, name, hint));
    }
    return parsed;
  }
  Result<std::string> expression_text(const Yaml& node, std::string_view what, const Names& scope) const {
    KGEN_TRY(const Expr parsed, expression(node, what, scope));
    return parsed.text();
  }
  Result<std::vector<Expr>> expressions(const Yaml& node, std::string_view what, const Names& scope) const {
    KGEN_CHECK_OK(node.expect_list(what));
    std::vector<Expr> list;
    for (const Yaml& item : node.items()) {
      KGEN_TRY(Expr value, expression(item, what, scope));
      list.push_back(std::move(value));
    }
    return list;
  }

  Result<void> add_symbol(const Yaml& node, const std::string& word) {
    if (values_.count(word) || dim_names_.count(word)) {
      return node.fail(fmt::format("enumerator '{}' has the name of a value; rename one of them", word));
    }
    symbols_.insert(word);
    return {};
  }
  // Registers a name that expressions may read.
  Result<void> add_value(const Yaml& node, const std::string& word, Names& scope) {
    if (values_.count(word) || dim_names_.count(word) || scope.count(word)) {
      return node.fail(fmt::format("'{}' is taken; choose another name", word));
    }
    if (symbols_.count(word)) {
      return node.fail(fmt::format("'{}' is also an enumerator; rename one of them", word));
    }
    scope.insert(word);
    return {};
  }
  // Registers a kernel parameter.
  Result<void> add_param(const Yaml& node, const std::string& word, Names& params) {
    if (!params.insert(word).second) return node.fail(fmt::format("parameter '{}' stands twice; rename one", word));
    return {};
  }

  Result<void> read_attributes() {
    // Enumerators that exist without being declared: facts' values and dtypes.
    for (const ArchInfo& arch : all_archs()) {
      symbols_.emplace(arch.name);
      symbols_.emplace(arch.family);
      symbols_.emplace(arch.matrix_unit);
    }
    for (const char* word : {"amd", "nvidia", "host", "none"}) symbols_.emplace(word);
    for (const std::string& name : dtype_names()) symbols_.emplace(name);
    KGEN_TRY(const Yaml attributes, root_.need("an operator definition", "attributes"));
    KGEN_CHECK_OK(attributes.expect_map("attributes"));
    for (const auto& [key, value] : attributes.entries()) {
      AttributeDef attribute;
      KGEN_TRY(attribute.name, identifier(key, "attribute"));
      const std::string what = fmt::format("attribute '{}'", attribute.name);
      KGEN_CHECK_OK(value.expect_keys(what, keys_of("attribute")));
      KGEN_TRY(attribute.doc, optional_text(value, "doc"));
      KGEN_TRY(const Yaml kind_node, value.need(what, "kind"));
      KGEN_TRY(const std::string kind, kind_node.as_text("kind"));
      static const std::vector<std::string> kinds = {"enum", "dtype", "list", "int", "ints", "expression"};
      const auto found = std::find(kinds.begin(), kinds.end(), kind);
      if (found == kinds.end()) {
        return kind_node.fail(
            fmt::format("unknown kind '{}'{}; kinds: {}", kind, did_you_mean(kind, kinds), join(kinds, ", ")));
      }
      using Kind = AttributeDef::Kind;
      attribute.kind = std::array{
          Kind::kEnum, Kind::kDType, Kind::kList, Kind::kInt, Kind::kInts, Kind::kExpression}[found - kinds.begin()];
      KGEN_CHECK_OK(add_value(key, attribute.name, attribute_names_));
      if (attribute.kind == Kind::kExpression) {
        KGEN_CHECK_OK(read_expression(key, value, attribute));
        op_.attributes.push_back(std::move(attribute));
        continue;
      }
      for (const char* word : {"example", "columns"}) {
        if (const Yaml* given = value.find(word)) return given->fail(fmt::format("{} is for kind expression", word));
      }
      if (const Yaml* values = value.find("values")) {
        KGEN_CHECK_OK(values->expect_list(what + " values"));
        for (const Yaml& item : values->items()) {
          KGEN_TRY(const std::string word, item.as_text(what + " value"));
          if (attribute.kind == Kind::kInt || attribute.kind == Kind::kInts) {
            KGEN_CHECK_OK(item.as_int(what + " value"));
          } else if (attribute.kind == Kind::kDType) {
            if (const auto dtype = find_dtype(word); !dtype) return item.fail(dtype.error().message);
          } else {
            KGEN_CHECK_OK(identifier(item, "value"));
          }
          attribute.values.push_back(word);
          if (attribute.kind == Kind::kEnum) KGEN_CHECK_OK(add_symbol(item, word));
          if (attribute.kind == Kind::kList) {
            KGEN_CHECK_OK(add_value(item, attribute.name + "_" + word, attribute_names_));
          }
        }
      }
      if (attribute.kind == Kind::kInts) {
        for (const std::string& name : ints_names(attribute.name))
          KGEN_CHECK_OK(add_value(key, name, attribute_names_));
      }
      if (attribute.values.empty() && attribute.kind != Kind::kInt && attribute.kind != Kind::kInts)
        return value.fail(what + " lacks values; list them");
      if (attribute.kind == Kind::kDType) KGEN_CHECK_OK(add_value(key, attribute.name + "_bytes", attribute_names_));
      KGEN_CHECK_OK(read_attribute_default(value, attribute));
      if (const Yaml* axis = value.find("axis")) {
        KGEN_TRY(const std::string word, axis->as_text("axis"));
        if (word != "true" && word != "false") return axis->fail("axis is true or false");
        attribute.axis = word == "true";
        if (attribute.axis &&
            (attribute.name == "dtype" || (attribute.kind != Kind::kEnum && attribute.kind != Kind::kDType)))
          return axis->fail(
              "only an attribute of kind enum or dtype, and not dtype itself, can be an axis of the search");
      }
      op_.attributes.push_back(std::move(attribute));
    }
    if (op_.attributes.empty() || op_.attributes[0].name != "dtype" ||
        op_.attributes[0].kind != AttributeDef::Kind::kDType) {
      return attributes.fail("the first attribute must be dtype, of kind dtype");
    }
    return {};
  }

  Result<void> read_expression(const Yaml& key, const Yaml& value, AttributeDef& attribute) {
    for (const char* word : {"default", "values", "axis"}) {
      if (const Yaml* given = value.find(word)) return given->fail(fmt::format("an expression has no {}", word));
    }
    if (!op_.expression || expression_attribute(op_)) {
      return key.fail("an operator is made by one expression at most, an attribute of the definition itself");
    }
    if (const Yaml* columns = value.find("columns")) {
      KGEN_TRY(attribute.values, columns->as_words("columns"));
    }
    for (const std::string& name : expression_names(attribute.name)) {
      KGEN_CHECK_OK(add_value(key, name, attribute_names_));
    }
    return {};
  }

  Result<void> read_attribute_default(const Yaml& value, AttributeDef& attribute) const {
    const Yaml* given = value.find("default");
    if (!given) return {};
    KGEN_TRY(const std::vector<std::string> words, given->as_words("default"));
    const bool is_list = attribute.kind == AttributeDef::Kind::kList || attribute.kind == AttributeDef::Kind::kInts;
    if (!is_list && words.size() != 1) return given->fail("default must be a single value");
    for (const std::string& word : words) {
      const bool allowed =
          std::find(attribute.values.begin(), attribute.values.end(), word) != attribute.values.end() ||
          ((attribute.kind == AttributeDef::Kind::kInt || attribute.kind == AttributeDef::Kind::kInts) &&
           attribute.values.empty() && parse_int(word));
      const bool earlier = !is_list && std::any_of(op_.attributes.begin(), op_.attributes.end(),
                                                   [&](const AttributeDef& other) { return other.name == word; });
      if (!allowed && !earlier) {
        return given->fail(fmt::format("default '{}' is neither a value of '{}' nor an earlier attribute{}", word,
                                       attribute.name, did_you_mean(word, attribute.values)));
      }
    }
    attribute.default_text = join(words, ",");
    return {};
  }

  Result<void> read_dims() {
    KGEN_TRY(const Yaml dims, root_.need("an operator definition", "dims"));
    KGEN_CHECK_OK(dims.expect_map("dims"));
    for (const auto& [key, value] : dims.entries()) {
      DimDef dim;
      KGEN_TRY(dim.name, identifier(key, "dim"));
      const std::string what = fmt::format("dim '{}'", dim.name);
      if (!value.is_null()) {
        KGEN_CHECK_OK(value.expect_keys(what, keys_of("dim")));
        KGEN_TRY(dim.doc, optional_text(value, "doc"));
        if (const Yaml* given = value.find("default")) {
          Names scope = attribute_names_;
          scope.insert(dim_names_.begin(), dim_names_.end());
          KGEN_TRY(dim.default_text, expression_text(*given, what + " default", scope));
        }
      }
      Names fresh = attribute_names_;
      KGEN_CHECK_OK(add_value(key, dim.name, fresh));
      dim_names_.insert(dim.name);
      op_.dims.push_back(std::move(dim));
    }
    if (op_.dims.empty()) return dims.fail("an operator needs at least one dim");
    params_ = dim_names_;
    return {};
  }

  Result<std::string> dtype_of(const Yaml& map, const std::string& what) const {
    KGEN_TRY(const Yaml node, map.need(what, "dtype"));
    KGEN_TRY(std::string word, node.as_text(what + " dtype"));
    if (find_dtype(word)) return word;
    std::vector<std::string> known = dtype_names();
    for (const AttributeDef& attribute : op_.attributes) {
      if (attribute.kind != AttributeDef::Kind::kDType) continue;
      if (attribute.name == word) return word;
      known.push_back(attribute.name);
    }
    return node.fail(fmt::format("'{}' is neither a dtype nor a dtype attribute{}", word, did_you_mean(word, known)));
  }

  Result<void> read_init(const Yaml& node, InitDef& init) const {
    KGEN_CHECK_OK(node.expect_keys("init", keys_of("init")));
    if (const Yaml* kind = node.find("distribution")) {
      static const std::vector<std::string> kinds = {"normal", "uniform", "int", "constant", "kernel"};
      KGEN_TRY(init.distribution, kind->as_text("distribution"));
      if (std::find(kinds.begin(), kinds.end(), init.distribution) == kinds.end()) {
        return kind->fail(fmt::format("unknown distribution '{}'{}; known: {}", init.distribution,
                                      did_you_mean(init.distribution, kinds), join(kinds, ", ")));
      }
    }
    for (const auto& [key, slot] : {std::pair{"mean", &init.mean},
                                    {"scale", &init.scale},
                                    {"lo", &init.lo},
                                    {"hi", &init.hi},
                                    {"value", &init.mean}}) {
      if (const Yaml* value = node.find(key)) {
        KGEN_TRY(*slot, value->as_number(key));
      }
    }
    return {};
  }

  Result<void> read_arguments() {
    KGEN_TRY(const Yaml arguments, root_.need("an operator definition", "arguments"));
    KGEN_CHECK_OK(arguments.expect_map("arguments"));
    for (const auto& [key, value] : arguments.entries()) {
      ArgumentDef argument;
      KGEN_TRY(argument.param.name, identifier(key, "argument"));
      KGEN_CHECK_OK(add_param(key, argument.param.name, params_));
      const std::string what = fmt::format("argument '{}'", argument.param.name);
      KGEN_CHECK_OK(value.expect_keys(what, keys_of("argument")));
      KGEN_TRY(const Yaml role, value.need(what, "role"));
      if (role.text() == "in") {
        argument.param.role = Role::kIn;
      } else if (role.text() == "out") {
        argument.param.role = Role::kOut;
      } else if (role.text() == "inout") {
        argument.param.role = Role::kInOut;
      } else {
        return role.fail(fmt::format("{}: role must be in, out or inout, not '{}'", what, role.text()));
      }
      KGEN_TRY(argument.dtype_text, dtype_of(value, what));
      for (const AttributeDef& attribute : op_.attributes) {
        if (attribute.axis && attribute.name == argument.dtype_text)
          return value.fail(fmt::format("{}: its dtype cannot be '{}', an axis of the search", what, attribute.name));
      }
      KGEN_CHECK_OK(value.need(what, "shape"));
      KGEN_CHECK_OK(read_layout(value, what, argument));
      KGEN_TRY(argument.param.present, present(value, what, problem_names_));
      argument.field = argument.param.name;
      op_.arguments.push_back(std::move(argument));
    }
    const bool writes = std::any_of(op_.arguments.begin(), op_.arguments.end(),
                                    [](const ArgumentDef& a) { return a.param.role != Role::kIn; });
    if (!writes) return arguments.fail("no argument has role out; an operator must write something");
    return read_scalars();
  }

  static Result<std::vector<Expr>> dense_strides(const std::vector<Expr>& shape) {
    std::vector<Expr> strides(shape.size());
    std::string product = "1";
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      KGEN_TRY(strides[axis], Expr::parse(product));
      product = product == "1" ? fmt::format("({})", shape[axis].text())
                               : fmt::format("({})*{}", shape[axis].text(), product);
    }
    return strides;
  }

  Result<Expr> present(const Yaml& map, const std::string& what, const Names& scope) const {
    if (const Yaml* when = map.find("when")) return expression(*when, what + " when", scope);
    return Expr::parse("1");
  }

  Result<void> read_scalars() {
    const Yaml* scalars = root_.find("scalars");
    if (!scalars || scalars->is_null()) return {};  // an expression may leave none
    KGEN_CHECK_OK(scalars->expect_map("scalars"));
    for (const auto& [key, value] : scalars->entries()) {
      Param scalar;
      scalar.role = Role::kScalar;
      KGEN_TRY(scalar.name, identifier(key, "scalar"));
      KGEN_CHECK_OK(add_param(key, scalar.name, params_));
      const std::string what = fmt::format("scalar '{}'", scalar.name);
      KGEN_CHECK_OK(value.expect_keys(what, keys_of("scalar")));
      KGEN_TRY(const Yaml node, value.need(what, "dtype"));
      KGEN_TRY(const std::string word, node.as_text("dtype"));
      const auto dtype = find_dtype(word);
      static const Names allowed = {"fp64", "fp32", "int32", "int64"};
      if (!dtype || !allowed.count(word)) {
        return node.fail(fmt::format("{}: dtype must be fp32, fp64, int32 or int64, not '{}'", what, word));
      }
      scalar.dtype = *dtype;
      KGEN_TRY(scalar.present, Expr::parse("1"));
      if (const Yaml* given = value.find("default")) {
        KGEN_TRY(scalar.default_value, given->as_number(what + " default"));
      }
      op_.scalars.push_back(std::move(scalar));
    }
    return {};
  }

  Result<void> read_rules(const Yaml& list, const Names& scope, std::vector<Rule>& rules) const {
    KGEN_CHECK_OK(list.expect_list("rules"));
    for (const Yaml& item : list.items()) {
      KGEN_TRY(Rule rule, read_rule(item, scope));
      rules.push_back(std::move(rule));
    }
    return {};
  }
  Result<Rule> read_rule(const Yaml& item, const Names& scope) const {
    Rule rule;
    rule.line = item.line();
    KGEN_CHECK_OK(item.expect_keys("a rule", keys_of("rule")));
    KGEN_TRY(const Yaml require, item.need("a rule", "require"));
    KGEN_TRY(rule.require, expression(require, "rule", scope));
    KGEN_TRY(const Yaml because, item.need("a rule", "because"));
    KGEN_TRY(rule.because, because.as_text("because"));
    if (const Yaml* search = item.find("search")) {
      KGEN_TRY(rule.search, search->as_bool("search"));
    }
    if (const Yaml* deterministic = item.find("deterministic")) {
      KGEN_TRY(rule.deterministic, deterministic->as_bool("deterministic"));
      // A kernel serves other shapes than the one it was found for.
      const auto& names = rule.require.names();
      for (const DimDef& dim : op_.dims)
        if (rule.deterministic && std::find(names.begin(), names.end(), dim.name) != names.end())
          return item.fail(
              fmt::format("a rule with 'deterministic' reads the dim '{}'; it may read tunables, attributes "
                          "and arch facts",
                          dim.name));
    }
    return rule;
  }

  Result<void> read_cost() {
    KGEN_TRY(const Yaml cost, root_.need("an operator definition", "cost"));
    KGEN_CHECK_OK(cost.expect_keys("cost", keys_of("cost")));
    KGEN_TRY(const Yaml flops, cost.need("cost", "flops"));
    KGEN_TRY(op_.flops_text, expression_text(flops, "flops", problem_names_));
    KGEN_TRY(const Yaml bytes, cost.need("cost", "bytes"));
    KGEN_TRY(op_.bytes_text, expression_text(bytes, "bytes", problem_names_));
    return {};
  }

  Result<void> read_reference() {
    ReferenceDef& reference = op_.reference;
    KGEN_TRY(const Yaml node, root_.need("an operator definition", "reference"));
    KGEN_CHECK_OK(node.expect_keys("reference", keys_of("reference")));
    KGEN_TRY(const Yaml header, node.need("reference", "header"));
    KGEN_TRY(reference.header, header.as_text("header"));
    KGEN_TRY(const Yaml terms, node.need("reference", "terms"));
    KGEN_CHECK_OK(terms.expect_map("terms"));
    std::vector<std::string> outputs;
    for (const ArgumentDef& argument : op_.arguments) {
      if (argument.param.role != Role::kIn) outputs.push_back(argument.param.name);
    }
    const auto output = [&](const Yaml& name) -> Result<std::string> {
      KGEN_TRY(std::string word, name.as_text("output"));
      if (std::find(outputs.begin(), outputs.end(), word) != outputs.end()) return word;
      return name.fail(fmt::format("'{}' is not an output{}", word, did_you_mean(word, outputs)));
    };
    for (const auto& [key, value] : terms.entries()) {
      KGEN_TRY(const std::string word, output(key));
      KGEN_TRY(reference.terms_text[word], expression_text(value, "terms", problem_names_));
    }
    for (const std::string& word : outputs) {
      if (!reference.terms_text.count(word)) return terms.fail(fmt::format("terms lack the output '{}'; add it", word));
    }
    KGEN_TRY(const Yaml cost, node.need("reference", "cost"));
    KGEN_TRY(reference.cost_text, expression_text(cost, "reference cost", problem_names_));
    if (const Yaml* projection = node.find("projection")) {
      KGEN_CHECK_OK(projection->expect_keys("projection", keys_of("projection")));
      ReferenceDef::Projection found;
      KGEN_TRY(const Yaml name, projection->need("projection", "output"));
      KGEN_TRY(found.output, output(name));
      found.when_text = "1";
      if (const Yaml* when = projection->find("when")) {
        KGEN_TRY(found.when_text, expression_text(*when, "projection when", problem_names_));
      }
      KGEN_TRY(const Yaml length, projection->need("projection", "length"));
      KGEN_TRY(found.length_text, expression_text(length, "projection length", problem_names_));
      reference.projection = std::move(found);
    }
    if (const Yaml* stages = node.find("stages")) KGEN_CHECK_OK(read_stages(*stages));
    if (const Yaml* tolerance = node.find("tolerance")) {
      KGEN_CHECK_OK(tolerance->expect_map("tolerance"));
      for (const auto& [key, value] : tolerance->entries()) {
        KGEN_TRY(const std::string word, output(key));
        KGEN_TRY(reference.tolerance[word], read_tolerance(value));
      }
    }
    return check_template(header, reference.header, {});
  }

  Result<void> read_stages(const Yaml& stages) {
    KGEN_CHECK_OK(stages.expect_map("stages"));
    Names params = params_;
    for (const auto& [key, value] : stages.entries()) {
      ReferenceDef::Stage stage;
      KGEN_TRY(stage.name, identifier(key, "stage"));
      KGEN_CHECK_OK(add_param(key, stage.name, params));
      const std::string what = fmt::format("stage '{}'", stage.name);
      KGEN_CHECK_OK(value.expect_keys(what, keys_of("stage")));
      KGEN_TRY(const Yaml items, value.need(what, "items"));
      KGEN_TRY(stage.items_text, expression_text(items, what + " items", problem_names_));
      stage.width_text = "1";
      if (const Yaml* width = value.find("width")) {
        KGEN_TRY(stage.width_text, expression_text(*width, what + " width", problem_names_));
      }
      op_.reference.stages.push_back(std::move(stage));
    }
    return {};
  }

  static Result<ReferenceDef::Tolerance> read_tolerance(const Yaml& node) {
    ReferenceDef::Tolerance tolerance;
    KGEN_CHECK_OK(node.expect_keys("tolerance", keys_of("tolerance")));
    for (const auto& [key, slot] :
         {std::pair{"roundings", &tolerance.roundings}, {"atol", &tolerance.atol}, {"rtol", &tolerance.rtol}}) {
      if (const Yaml* value = node.find(key)) {
        KGEN_TRY(*slot, value->as_number(key));
        if (*slot < 0) return value->fail(fmt::format("{} must not be negative", key));
      }
    }
    if (const Yaml* exact = node.find("exact")) {
      KGEN_TRY(tolerance.exact, exact->as_bool("exact"));
    }
    if (const Yaml* limits = node.find("l2")) {
      KGEN_CHECK_OK(limits->expect_map("l2"));
      for (const auto& [key, value] : limits->entries()) {
        if (const auto dtype = find_dtype(key.text()); !dtype) return key.fail(dtype.error().message);
        KGEN_TRY(tolerance.l2_limit[key.text()], value.as_number("l2"));
      }
    }
    return tolerance;
  }

  // A template path: its ${names} are known, and the file is there.
  Result<void> check_template(const Yaml& node, const std::string& path, const Names& symbolic) const {
    std::string pattern;
    for (std::size_t at = 0; at < path.size();) {
      if (path.compare(at, 2, "${") != 0) {
        pattern += path[at++];
        continue;
      }
      const auto end = path.find('}', at);
      if (end == std::string::npos) return node.fail(fmt::format("'{}': '${{' without '}}'", path));
      const std::string name = path.substr(at + 2, end - at - 2);
      std::vector<std::string> known(symbolic.begin(), symbolic.end());
      for (const AttributeDef& attribute : op_.attributes) {
        if (attribute.kind != AttributeDef::Kind::kList && attribute.kind != AttributeDef::Kind::kExpression)
          known.push_back(attribute.name);
      }
      known.insert(known.end(), {"arch", "vendor", "family", "matrix_unit"});
      if (std::find(known.begin(), known.end(), name) == known.end()) {
        return node.fail(fmt::format("'${{{}}}' is not an attribute, arch fact or symbolic tunable{}", name,
                                     did_you_mean(name, known)));
      }
      pattern += '*';
      at = end + 1;
    }
    if (pattern == path) {
      Flattener probe(op_.folder);
      if (const auto found = probe.add(path); !found) return node.fail(found.error().message);
    } else if (Flattener(op_.folder).matching(pattern).empty()) {
      return node.fail(fmt::format("no template matches '{}'", path));
    }
    return {};
  }

  Result<void> read_variants() {
    KGEN_TRY(const Yaml variants, root_.need("an operator definition", "variants"));
    KGEN_CHECK_OK(variants.expect_map("variants"));
    for (const auto& [key, value] : variants.entries()) {
      KGEN_TRY(const std::string name, identifier(key, "variant"));
      KGEN_TRY(VariantDef variant, read_variant(name, value));
      op_.variants.push_back(std::move(variant));
    }
    if (op_.variants.empty()) return variants.fail("an operator needs at least one variant");
    return {};
  }

  Result<VariantDef> read_variant(const std::string& name, const Yaml& node) {
    VariantDef variant;
    variant.name = name;
    const std::string what = fmt::format("variant '{}'", name);
    KGEN_CHECK_OK(node.expect_keys(what, keys_of("variant")));
    KGEN_TRY(variant.doc, optional_text(node, "doc"));

    Names constants = attribute_names_;  // what is fixed when the kernel is compiled
    constants.insert(arch_facts().begin(), arch_facts().end());
    Names symbolic;
    if (const Yaml* tunables = node.find("tunables")) {
      KGEN_CHECK_OK(tunables->expect_map("tunables"));
      for (const auto& [key, value] : tunables->entries()) {
        KGEN_TRY(TunableDef tunable, read_tunable(key, value, constants));
        if (tunable.symbolic) symbolic.insert(tunable.name);
        variant.tunables.push_back(std::move(tunable));
      }
    }
    if (const Yaml* derived = node.find("derived")) {
      KGEN_CHECK_OK(derived->expect_map("derived"));
      for (const auto& [key, value] : derived->entries()) {
        DerivedDef one;
        one.line = key.line();
        KGEN_TRY(one.name, identifier(key, "derived value"));
        KGEN_TRY(one.value, expression(value, fmt::format("derived value '{}'", one.name), constants));
        KGEN_CHECK_OK(add_value(key, one.name, constants));
        variant.derived.push_back(std::move(one));
      }
    }
    Names all = constants;
    all.insert(dim_names_.begin(), dim_names_.end());

    if (const Yaml* when = node.find("when")) {
      Names outside = problem_names_;
      outside.insert(arch_facts().begin(), arch_facts().end());
      KGEN_TRY(Rule rule, read_rule(*when, outside));
      variant.rules.push_back(std::move(rule));
    }
    if (const Yaml* rules = node.find("rules")) KGEN_CHECK_OK(read_rules(*rules, all, variant.rules));

    KGEN_TRY(const Yaml templates, node.need(what, "templates"));
    KGEN_CHECK_OK(templates.expect_list("templates"));
    for (const Yaml& item : templates.items()) {
      KGEN_TRY(std::string path, item.as_text("template"));
      KGEN_CHECK_OK(check_template(item, path, symbolic));
      variant.templates.push_back(std::move(path));
    }
    if (variant.templates.empty()) return templates.fail(what + " needs a template");

    Names params = params_;
    if (const Yaml* buffers = node.find("buffers")) {
      KGEN_CHECK_OK(buffers->expect_map("buffers"));
      for (const auto& [key, value] : buffers->entries()) {
        KGEN_TRY(ArgumentDef buffer, read_buffer(key, value, all));
        KGEN_CHECK_OK(add_param(key, buffer.param.name, params));
        variant.buffers.push_back(std::move(buffer));
      }
    }
    if (const Yaml* maps = node.find("tensor_maps")) {
      KGEN_CHECK_OK(maps->expect_map("tensor_maps"));
      for (const auto& [key, value] : maps->entries()) {
        KGEN_TRY(ArgumentDef map, read_tensor_map(key, value, all));
        KGEN_CHECK_OK(add_param(key, map.param.name, params));
        if (variant.tensor_maps.size() == kMostMaps)
          return key.fail(fmt::format("{} has more than {} tensor maps", what, kMostMaps));
        variant.tensor_maps.push_back(std::move(map));
      }
    }
    if (const Yaml* align = node.find("align")) {
      KGEN_CHECK_OK(align->expect_map("align"));
      std::vector<std::string> operands;
      for (const ArgumentDef& argument : op_.arguments) operands.push_back(argument.param.name);
      for (const auto& [key, value] : align->entries()) {
        if (std::find(operands.begin(), operands.end(), key.text()) == operands.end()) {
          return key.fail(fmt::format("'{}' is not an argument{}", key.text(), did_you_mean(key.text(), operands)));
        }
        KGEN_TRY(variant.align_text[key.text()], expression_text(value, "align", constants));
      }
    }
    KGEN_TRY(const Yaml steps, node.need(what, "steps"));
    KGEN_CHECK_OK(steps.expect_list("steps"));
    Names kernels;
    for (const Yaml& item : steps.items()) {
      KGEN_TRY(StepDef step, read_step(item, constants, all));
      if (!kernels.insert(step.kernel).second) {
        return item.fail(fmt::format("kernel '{}' stands in two steps; give each step its own kernel", step.kernel));
      }
      KGEN_CHECK_OK(add_launch_rules(item, step, variant));
      variant.steps.push_back(std::move(step));
    }
    if (variant.steps.empty()) return steps.fail(what + " needs a step");
    return variant;
  }

  Result<TunableDef> read_tunable(const Yaml& key, const Yaml& node, Names& scope) {
    TunableDef tunable;
    KGEN_TRY(tunable.name, identifier(key, "tunable"));
    const std::string what = fmt::format("tunable '{}'", tunable.name);
    KGEN_CHECK_OK(node.expect_keys(what, keys_of("tunable")));
    KGEN_TRY(tunable.doc, optional_text(node, "doc"));
    KGEN_TRY(const Yaml values, node.need(what, "values"));
    KGEN_CHECK_OK(values.expect_list(what + " values"));
    if (values.items().empty()) return values.fail(what + " needs at least one value");
    tunable.symbolic = !parse_int(values.items()[0].text());
    for (const Yaml& item : values.items()) {
      KGEN_TRY(const std::string word, item.as_text(what + " value"));
      if (tunable.symbolic) {
        KGEN_CHECK_OK(identifier(item, "value"));
        KGEN_CHECK_OK(add_symbol(item, word));
      } else {
        KGEN_TRY(const std::int64_t number, item.as_int(what + " value"));
        if (std::to_string(number) != word || number < INT_MIN || number > INT_MAX) {
          return item.fail(fmt::format("{}: '{}' is no plain 32-bit number", what, word));
        }
      }
      if (std::find(tunable.values.begin(), tunable.values.end(), word) != tunable.values.end()) {
        return item.fail(fmt::format("{} has the value '{}' twice; remove one", what, word));
      }
      tunable.values.push_back(word);
    }
    Names with_dims = scope;
    with_dims.insert(dim_names_.begin(), dim_names_.end());
    if (const Yaml* given = node.find("default")) {
      KGEN_TRY(tunable.default_text, expression_text(*given, what + " default", with_dims));
    } else {
      tunable.default_text = tunable.values[0];
    }
    KGEN_CHECK_OK(add_value(key, tunable.name, scope));
    return tunable;
  }

  // `of` is the argument's name in Args, which an operator that extends this one keeps.
  Result<ArgumentDef> read_tensor_map(const Yaml& key, const Yaml& node, const Names& scope) const {
    ArgumentDef map;
    KGEN_TRY(map.param.name, identifier(key, "tensor map"));
    map.field = map.param.name;
    map.param.role = Role::kTensorMap;
    const std::string what = fmt::format("tensor map '{}'", map.param.name);
    KGEN_CHECK_OK(node.expect_keys(what, keys_of("tensor map")));
    if (const Yaml* when = node.find("when")) {
      KGEN_TRY(map.param.present, expression(*when, what + " when", scope));
    } else {
      KGEN_TRY(map.param.present, Expr::parse("1"));
    }
    KGEN_TRY(const Yaml of, node.need(what, "of"));
    const auto argument = std::find_if(op_.arguments.begin(), op_.arguments.end(),
                                       [&](const ArgumentDef& a) { return a.field == of.text(); });
    if (argument == op_.arguments.end()) return of.fail(fmt::format("'{}' is not an argument", of.text()));
    map.param.of = argument->field;
    map.dtype_text = argument->dtype_text;
    const auto list = [&](const char* name, bool needed, std::vector<Expr>& to) -> Result<void> {
      if (const Yaml* given = node.find(name)) {
        KGEN_TRY(to, expressions(*given, fmt::format("{} {}", what, name), scope));
      } else if (needed) {
        KGEN_TRY(const Yaml missing, node.need(what, name));
      }
      return {};
    };
    KGEN_CHECK_OK(list("shape", true, map.param.shape));
    KGEN_CHECK_OK(list("strides", true, map.param.strides));
    KGEN_CHECK_OK(list("box", true, map.param.box));
    KGEN_CHECK_OK(list("lower", false, map.param.lower));
    KGEN_CHECK_OK(list("upper", false, map.param.upper));
    KGEN_CHECK_OK(list("steps", false, map.param.steps));
    const std::size_t axes = map.param.shape.size();
    const bool pixels = !map.param.lower.empty();
    if (axes < 1 || axes > TensorMapShape::kMostAxes || map.param.strides.size() != axes ||
        map.param.box.size() != (pixels ? 2 : axes) || (pixels && axes != 4) ||
        map.param.upper.size() != map.param.lower.size() || map.param.steps.size() != map.param.lower.size() ||
        (pixels && map.param.lower.size() != 2))
      return node.fail(what +
                       " needs 1 to 5 axes with as many strides and sizes of its box; of pixels: shape and "
                       "strides of n, h, w, c, box [pixels, channels], and lower, upper, steps of h, w");
    return map;
  }

  Result<ArgumentDef> read_buffer(const Yaml& key, const Yaml& node, const Names& scope) const {
    ArgumentDef buffer;
    KGEN_TRY(buffer.param.name, identifier(key, "buffer"));
    const std::string what = fmt::format("buffer '{}'", buffer.param.name);
    KGEN_CHECK_OK(node.expect_keys(what, keys_of("buffer")));
    KGEN_TRY(const Yaml role, node.need(what, "role"));
    if (role.text() != "workspace" && role.text() != "prepared") {
      return role.fail(fmt::format("{}: role must be workspace or prepared, not '{}'", what, role.text()));
    }
    buffer.field = buffer.param.name;
    buffer.param.role = role.text() == "workspace" ? Role::kWorkspace : Role::kPrepared;
    KGEN_TRY(buffer.dtype_text, dtype_of(node, what));
    KGEN_TRY(const Yaml count, node.need(what, "count"));
    KGEN_TRY(Expr elements, expression(count, what + " count", scope));
    KGEN_TRY(buffer.param.present, Expr::parse(fmt::format("({}) > 0", elements.text())));
    buffer.param.shape.push_back(std::move(elements));
    KGEN_TRY(Expr one, Expr::parse("1"));
    buffer.param.strides.push_back(std::move(one));
    return buffer;
  }

  Result<StepDef> read_step(const Yaml& node, const Names& constants, const Names& all) const {
    StepDef step;
    KGEN_CHECK_OK(node.expect_keys("a step", keys_of("step")));
    KGEN_TRY(const Yaml kernel, node.need("a step", "kernel"));
    KGEN_TRY(step.kernel, identifier(kernel, "kernel"));
    const std::string what = fmt::format("step '{}'", step.kernel);
    if (const Yaml* prepare = node.find("prepare")) {
      KGEN_TRY(step.prepare, prepare->as_bool("prepare"));
    }
    const auto read = [&](const char* key, const char* missing, const Names& scope, Expr& slot) -> Result<void> {
      const Yaml* value = node.find(key);
      KGEN_TRY(slot, value ? expression(*value, fmt::format("{} {}", what, key), scope) : Expr::parse(missing));
      return {};
    };
    KGEN_CHECK_OK(read("when", "1", all, step.when));
    KGEN_TRY(const Yaml grid, node.need(what, "grid"));
    const std::vector<Yaml> axes = grid.is_list() ? grid.items() : std::vector<Yaml>{grid};
    if (axes.empty() || axes.size() > 3) return grid.fail(what + ": grid has one to three axes");
    for (std::size_t axis = 0; axis < 3; ++axis) {
      KGEN_TRY(step.grid[axis], axis < axes.size() ? expression(axes[axis], what + " grid", all) : Expr::parse("1"));
    }
    // The cluster and the block size are compiled into the kernel, so they may not depend on the shape.
    for (Expr& axis : step.cluster) {
      KGEN_TRY(axis, Expr::parse("1"));
    }
    if (const Yaml* cluster = node.find("cluster")) {
      if (!cluster->is_list() || cluster->items().size() != 3) return cluster->fail(what + ": cluster has three axes");
      const std::vector<Yaml> sizes = cluster->items();
      for (std::size_t axis = 0; axis < 3; ++axis) {
        KGEN_TRY(step.cluster[axis], expression(sizes[axis], what + " cluster", constants));
      }
    }
    KGEN_CHECK_OK(node.need(what, "block"));
    KGEN_CHECK_OK(read("block", "1", constants, step.block));
    KGEN_CHECK_OK(read("lds_bytes", "0", all, step.lds_bytes));
    KGEN_CHECK_OK(read("min_blocks", "1", constants, step.min_blocks));
    return step;
  }

  // What any launch needs, so that no definition has to say it.
  static Result<void> add_launch_rules(const Yaml& node, const StepDef& step, VariantDef& variant) {
    const std::string skipped = step.when.text() == "1" ? "" : fmt::format("({}) == 0 || ", step.when.text());
    const auto add = [&](const std::string& require, const std::string& because) -> Result<void> {
      Rule rule;
      rule.line = node.line();
      KGEN_TRY(rule.require, Expr::parse(skipped + require));
      rule.because = because;
      variant.rules.push_back(std::move(rule));
      return {};
    };
    KGEN_CHECK_OK(add(fmt::format("(({0}) >= 1 && ({0}) <= max_block)", step.block.text()),
                      fmt::format("the block of {} must have 1 to max_block work-items", step.kernel)));
    if (step.has_cluster()) {
      KGEN_CHECK_OK(add(fmt::format("(min({0}, min({1}, {2})) >= 1 && ({0})*({1})*({2}) <= max_cluster)",
                                    step.cluster[0].text(), step.cluster[1].text(), step.cluster[2].text()),
                        fmt::format("the cluster of {} must have 1 to max_cluster blocks", step.kernel)));
      for (std::size_t axis = 0; axis < 3; ++axis) {
        if (step.cluster[axis].text() == "1") continue;
        KGEN_CHECK_OK(add(fmt::format("(({}) % max({}, 1) == 0)", step.grid[axis].text(), step.cluster[axis].text()),
                          fmt::format("the grid of {} must be whole clusters", step.kernel)));
      }
    }
    if (step.lds_bytes.text() == "0") return {};
    return add(fmt::format("({}) <= lds_limit", step.lds_bytes.text()),
               fmt::format("the LDS of {} must fit lds_limit", step.kernel));
  }

  Yaml root_;
  OpDef op_;
  Names symbols_;  // enumerators
  Names values_;   // arch facts
  Names dim_names_, attribute_names_, problem_names_;
  Names params_;  // kernel parameters: dims, arguments, scalars
};

// Every byte that decides what this op's kernels are.
Result<std::string> hash_sources(const OpDef& op, std::string_view yaml) {
  Flattener all(op.folder);
  KGEN_CHECK_OK(all.add("prelude.h"));
  KGEN_CHECK_OK(all.add("check.h"));
  KGEN_CHECK_OK(all.add(op.reference.header));
  for (const VariantDef& variant : op.variants) {
    for (const std::string& path : variant.templates) {
      std::string pattern;
      for (std::size_t at = 0; at < path.size();) {
        const bool name = path.compare(at, 2, "${") == 0;
        pattern += name ? '*' : path[at];
        at = name ? path.find('}', at) + 1 : at + 1;
      }
      if (pattern == path) {
        KGEN_CHECK_OK(all.add(path));
        continue;
      }
      for (const std::string& match : all.matching(pattern)) KGEN_CHECK_OK(all.add(match));
    }
  }
  return hash_text(std::string(yaml) + all.text());
}

}  // namespace

namespace {

// The example and the column names of the attribute of kind `expression`, where the definition has one.
struct ExpressionKeys {
  std::string example;
  std::vector<std::string> columns;
};
Result<std::optional<ExpressionKeys>> expression_keys(const Yaml& root) {
  const Yaml* attributes = root.find("attributes");
  if (!attributes || !attributes->is_map()) return std::nullopt;
  for (const auto& [key, value] : attributes->entries()) {
    const Yaml* kind = value.find("kind");
    if (!kind || kind->text() != "expression") continue;
    ExpressionKeys keys;
    const std::string what = fmt::format("attribute '{}'", key.text());
    KGEN_TRY(const Yaml example, value.need(what, "example"));
    KGEN_TRY(keys.example, example.as_text("example"));
    if (const Yaml* columns = value.find("columns")) {
      KGEN_TRY(keys.columns, columns->as_words("columns"));
    }
    return keys;
  }
  return std::nullopt;
}

// The YAML with each line that has "<kind>" repeated for every operand of that kind, and the names that were made.
std::string put_in(std::string_view yaml, const Expression& expression, std::vector<OperandGroup>& groups) {
  const auto name_char = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  std::vector<std::string> lines = split(std::string(yaml), '\n');
  for (std::size_t kind = 0; kind < kOperandKinds.size(); ++kind) {
    const std::string mark = fmt::format("<{}>", kOperandKinds[kind]);
    const std::vector<std::string>& operands = expression.operands[kind];
    std::vector<std::string> made;
    for (const std::string& line : lines) {
      if (line.find(mark) == std::string::npos) {
        made.push_back(line);
        continue;
      }
      for (std::size_t at = line.find(mark); at != std::string::npos; at = line.find(mark, at + 1)) {
        std::size_t first = at, last = at + mark.size();
        while (first > 0 && name_char(line[first - 1])) --first;
        while (last < line.size() && name_char(line[last])) ++last;
        const std::string before = line.substr(first, at - first),
                          after = line.substr(at + mark.size(), last - at - mark.size());
        OperandGroup group{fmt::format("{}{}{}", before, kOperandKinds[kind], after), {}};
        for (const std::string& operand : operands) group.members.push_back(before + operand + after);
        const bool known =
            std::any_of(groups.begin(), groups.end(), [&](const auto& g) { return g.name == group.name; });
        if (!known) groups.push_back(std::move(group));
      }
      for (const std::string& operand : operands) {
        std::string copy = line;
        for (std::size_t at = copy.find(mark); at != std::string::npos; at = copy.find(mark, at + operand.size())) {
          copy.replace(at, mark.size(), operand);
        }
        made.push_back(std::move(copy));
      }
    }
    lines = std::move(made);
  }
  return join(lines, "\n");
}

// An operator made by `text`, or by the example where it is null.
Result<std::shared_ptr<const OpDef>> make_op(std::string_view yaml, const std::string& file, const std::string& folder,
                                             const ExpressionKeys& keys, const std::string* text) {
  KGEN_TRY(Expression expression, Expression::parse(text ? *text : keys.example, keys.columns));
  std::vector<OperandGroup> groups;
  const std::string full = put_in(yaml, expression, groups);
  KGEN_TRY(const Yaml root, Yaml::parse(full, file));
  KGEN_TRY(OpDef op, OpReader(root, file, folder).made_by(std::move(expression), std::move(groups), yaml).read());
  // What is no kernel parameter is none for templates either.
  std::erase_if(op.groups, [&](const OperandGroup& group) {
    return !std::all_of(group.members.begin(), group.members.end(), [&](const std::string& name) {
      return std::any_of(op.dims.begin(), op.dims.end(), [&](const DimDef& d) { return d.name == name; }) ||
             std::any_of(op.scalars.begin(), op.scalars.end(), [&](const Param& p) { return p.name == name; }) ||
             std::any_of(op.arguments.begin(), op.arguments.end(), [&](const auto& a) { return a.field == name; });
    });
  });
  KGEN_TRY(op.source_hash, hash_sources(op, full + op.expression->text));
  return std::make_shared<const OpDef>(std::move(op));
}

}  // namespace

const AttributeDef* expression_attribute(const OpDef& op) {
  for (const AttributeDef& attribute : op.attributes) {
    if (attribute.kind == AttributeDef::Kind::kExpression) return &attribute;
  }
  return nullptr;
}

Result<std::shared_ptr<const OpDef>> specialise(std::shared_ptr<const OpDef> op, const std::string& expression) {
  const AttributeDef* attribute = expression_attribute(*op);
  if (!attribute) return op;
  KGEN_TRY(const Expression parsed, Expression::parse(expression, attribute->values));
  if (parsed.text == op->expression->text) return op;
  auto made = make_op(op->yaml, op->file, op->folder, {"", attribute->values}, &parsed.text);
  if (!made) return fail(made.error().kind, fmt::format("'{}': {}", expression, made.error().message));
  return made;
}

Result<std::shared_ptr<const OpDef>> specialise(std::shared_ptr<const OpDef> op,
                                                const std::vector<std::pair<std::string, std::string>>& words) {
  const AttributeDef* attribute = expression_attribute(*op);
  for (const auto& [name, value] : words) {
    if (attribute && name == attribute->name) return specialise(op, value);
  }
  return op;
}

Result<std::shared_ptr<const OpDef>> load_op_text(std::string_view yaml, const std::string& file,
                                                  const std::string& folder) {
  KGEN_TRY(const Yaml root, Yaml::parse(yaml, file));
  KGEN_TRY(const auto keys, expression_keys(root));
  if (keys) return make_op(yaml, file, folder, *keys, nullptr);
  KGEN_TRY(OpDef op, OpReader(root, file, folder).read());
  if (op.base.empty()) {
    KGEN_TRY(op.source_hash, hash_sources(op, yaml));
  } else {
    op.source_hash = hash_text(std::string(yaml) + op.source_hash);
  }
  return std::make_shared<const OpDef>(std::move(op));
}

namespace {

// A checkout's ops/ and templates/, read once and kept.
class Checkout {
 public:
  explicit Checkout(const fs::path& root) {
    std::error_code ignored;
    for (const char* folder : {"ops", "templates"}) {
      for (const auto& entry : fs::recursive_directory_iterator(root / folder, ignored)) {
        auto text = entry.is_regular_file() ? read_file(entry.path().string()) : fail(ErrorKind::kBadInput, "");
        if (!text) continue;
        kept_.push_back({fs::relative(entry.path(), root, ignored).generic_string(), std::move(*text)});
      }
    }
    for (const auto& [path, text] : kept_) files_.push_back({path, text});
  }
  const std::vector<EmbeddedFile>& files() const { return files_; }

 private:
  std::deque<std::pair<std::string, std::string>> kept_;
  std::vector<EmbeddedFile> files_;
};

}  // namespace

const std::vector<EmbeddedFile>& source_files() {
  static const char* const root = std::getenv("KGEN_SOURCES");
  if (root == nullptr) return embedded_files();
  static const Checkout checkout{root};
  return checkout.files();
}

std::optional<std::string_view> embedded_file(std::string_view path) {
  for (const EmbeddedFile& file : source_files()) {
    if (file.path == path) return file.content;
  }
  return std::nullopt;
}

std::vector<std::string> builtin_ops() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : source_files()) {
    if (fs::path(file.path).parent_path() == "ops") names.push_back(fs::path(file.path).stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::shared_ptr<const OpDef>> load_op(const std::string& name_or_path) {
  const bool is_path =
      name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".yaml") || name_or_path.ends_with(".yml");
  if (is_path) {
    std::error_code ignored;
    if (!fs::is_regular_file(name_or_path, ignored)) {
      return fail(ErrorKind::kBadInput, fmt::format("there is no op definition at '{}'", name_or_path));
    }
    KGEN_TRY(const std::string text, read_file(name_or_path));
    const std::string folder = fs::path(name_or_path).parent_path().string();
    return load_op_text(text, name_or_path, folder.empty() ? "." : folder);
  }
  const std::string file = fmt::format("ops/{}.yaml", name_or_path);
  if (const auto text = embedded_file(file)) return load_op_text(*text, file, "");
  const std::vector<std::string> known = builtin_ops();
  return fail(ErrorKind::kBadInput,
              fmt::format("unknown op '{}'{}; built-in ops: {}; your own op is given by its path, ./{}.yaml",
                          name_or_path, did_you_mean(name_or_path, known), join(known, ", "), name_or_path));
}

}  // namespace kgen
