#include "generator/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <sstream>

#include "base/text.h"

namespace kgen {

namespace {
// Real specs nest about seven levels and hold thousands of nodes; these only stop hostile ones.
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxNodes = 1'000'000;
constexpr std::size_t kMaxBytes = 16 << 20;
}  // namespace

struct Yaml::Node {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::shared_ptr<const std::string> file;
  int line = 1, column = 1;
  std::size_t height = 0;  // levels below, aliases followed: what destroying the tree recurses through
  std::string text;
  std::vector<Yaml> items;
  std::vector<std::pair<Yaml, Yaml>> entries;
};

namespace {

// Builds the tree from the parser's events.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& file) : file_(std::make_shared<const std::string>(file)) {}

  std::shared_ptr<const Yaml::Node> root() const { return root_; }
  std::shared_ptr<const std::string> file() const { return file_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(mark, Yaml::Node::Kind::kNull), anchor, mark);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto known = anchors_.find(anchor);
    if (known == anchors_.end()) throw YAML::ParserException(mark, "an alias may not stand inside its own anchor");
    add(known->second, 0, mark);
  }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, const std::string& value) override {
    auto node = make(mark, Yaml::Node::Kind::kScalar);
    node->text = value;
    add(node, anchor, mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, Yaml::Node::Kind::kList, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, Yaml::Node::Kind::kMap, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    std::shared_ptr<Yaml::Node> node;
    YAML::anchor_t anchor = 0;
    YAML::Mark mark;
    std::shared_ptr<const Yaml::Node> key;  // of the entry that is being read
    std::map<std::string, int> seen;        // keys of a map and the line of each
  };

  std::shared_ptr<Yaml::Node> make(const YAML::Mark& mark, Yaml::Node::Kind kind) {
    if (++nodes_ > kMaxNodes) {
      throw YAML::ParserException(mark, fmt::format("more than {} values; split the file", kMaxNodes));
    }
    auto node = std::make_shared<Yaml::Node>();
    node->kind = kind;
    node->file = file_;
    node->line = mark.line + 1;
    node->column = mark.column + 1;
    return node;
  }
  void open(const YAML::Mark& mark, Yaml::Node::Kind kind, YAML::anchor_t anchor) {
    if (stack_.size() >= kMaxDepth) {
      throw YAML::ParserException(mark, fmt::format("nested deeper than {} levels", kMaxDepth));
    }
    stack_.push_back({make(mark, kind), anchor, mark, nullptr, {}});
  }
  void close() {
    Open top = std::move(stack_.back());
    stack_.pop_back();
    add(top.node, top.anchor, top.mark);
  }
  void add(const std::shared_ptr<const Yaml::Node>& node, YAML::anchor_t anchor, const YAML::Mark& mark) {
    if (anchor != 0) anchors_[anchor] = node;
    if (stack_.empty()) {
      root_ = node;
      return;
    }
    Open& top = stack_.back();
    top.node->height = std::max(top.node->height, node->height + 1);
    if (top.node->height > kMaxDepth) {
      throw YAML::ParserException(mark, fmt::format("aliases nest deeper than {} levels", kMaxDepth));
    }
    if (top.node->kind == Yaml::Node::Kind::kList) {
      top.node->items.emplace_back(node);
    } else if (!top.key) {
      if (node->kind != Yaml::Node::Kind::kScalar) throw YAML::ParserException(mark, "a key must be a plain word");
      const auto [first, fresh] = top.seen.emplace(node->text, mark.line + 1);
      if (!fresh) {
        throw YAML::ParserException(
            mark, fmt::format("key '{}' stands twice (first on line {}); remove one", node->text, first->second));
      }
      top.key = node;
    } else {
      top.node->entries.emplace_back(Yaml(top.key), Yaml(node));
      top.key = nullptr;
    }
  }

  std::shared_ptr<const std::string> file_;
  std::vector<Open> stack_;
  std::map<YAML::anchor_t, std::shared_ptr<const Yaml::Node>> anchors_;
  std::shared_ptr<const Yaml::Node> root_;
  std::size_t nodes_ = 0;
};

}  // namespace

Yaml::Yaml(std::shared_ptr<const Node> node) : node_(std::move(node)) {}

Result<Yaml> Yaml::parse(std::string_view text, const std::string& file) {
  if (text.size() > kMaxBytes) {
    return kgen::fail(ErrorKind::kBadInput,
                      fmt::format("{}: larger than {} MiB; split the file", file, kMaxBytes >> 20));
  }
  Builder builder(file);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    Builder rest(file);
    if (parser.HandleNextDocument(rest)) {
      return kgen::fail(ErrorKind::kBadInput, fmt::format("{}: holds several YAML documents; keep one a file", file));
    }
  } catch (const YAML::Exception& error) {
    return kgen::fail(ErrorKind::kBadInput,
                      fmt::format("{}:{}:{}: {}", file, error.mark.line + 1, error.mark.column + 1, error.msg));
  } catch (const std::exception& error) {
    return kgen::fail(ErrorKind::kBadInput, fmt::format("{}: not readable as YAML: {}", file, error.what()));
  }
  if (builder.root()) return Yaml(builder.root());
  auto empty = std::make_shared<Node>();
  empty->file = builder.file();
  return Yaml(std::move(empty));
}

bool Yaml::is_null() const { return node_->kind == Node::Kind::kNull; }
bool Yaml::is_scalar() const { return node_->kind == Node::Kind::kScalar; }
bool Yaml::is_list() const { return node_->kind == Node::Kind::kList; }
bool Yaml::is_map() const { return node_->kind == Node::Kind::kMap; }
const std::string& Yaml::text() const { return node_->text; }
const std::vector<Yaml>& Yaml::items() const { return node_->items; }
const std::vector<std::pair<Yaml, Yaml>>& Yaml::entries() const { return node_->entries; }
int Yaml::line() const { return node_->line; }

const Yaml* Yaml::find(std::string_view key) const {
  for (const auto& [name, value] : node_->entries) {
    if (name.text() == key) return &value;
  }
  return nullptr;
}

std::string Yaml::where() const { return fmt::format("{}:{}:{}", *node_->file, node_->line, node_->column); }

tl::unexpected<Error> Yaml::fail(const std::string& what) const {
  return kgen::fail(ErrorKind::kBadInput, fmt::format("{}: {}", where(), what));
}

Result<std::string> Yaml::as_text(std::string_view what) const {
  if (!is_scalar()) return fail(fmt::format("{} must be a single value", what));
  return text();
}

Result<std::int64_t> parse_int(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = end == text.data() + text.size();
  constexpr std::int64_t kLimit = std::int64_t{1} << 53;
  if (whole && (status == std::errc::result_out_of_range || value >= kLimit || value <= -kLimit)) {
    return kgen::fail(ErrorKind::kBadInput, fmt::format("{} is too large; integers must stay below 2^53", text));
  }
  if (status != std::errc() || !whole) {
    return kgen::fail(ErrorKind::kBadInput, fmt::format("'{}' is not a whole decimal number", text));
  }
  return value;
}

Result<std::int64_t> Yaml::as_int(std::string_view what) const {
  KGEN_TRY(const std::string word, as_text(what));
  const auto value = parse_int(word);
  if (!value) return fail(fmt::format("{}: {}", what, value.error().message));
  return *value;
}

Result<double> Yaml::as_number(std::string_view what) const {
  KGEN_TRY(const std::string word, as_text(what));
  double value = 0;
  const auto [end, status] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (status != std::errc() || end != word.data() + word.size() || !std::isfinite(value)) {
    return fail(fmt::format("{}: '{}' is not a number", what, word));
  }
  return value;
}

Result<bool> Yaml::as_bool(std::string_view what) const {
  KGEN_TRY(const std::string word, as_text(what));
  if (word == "true") return true;
  if (word == "false") return false;
  return fail(fmt::format("{} must be true or false, not '{}'", what, word));
}

Result<std::vector<std::string>> Yaml::as_words(std::string_view what) const {
  std::vector<std::string> words;
  if (is_scalar()) {
    words.push_back(text());
    return words;
  }
  KGEN_CHECK_OK(expect_list(what));
  for (const Yaml& item : items()) {
    KGEN_TRY(std::string word, item.as_text(what));
    words.push_back(std::move(word));
  }
  return words;
}

Result<void> Yaml::expect_map(std::string_view what) const {
  if (!is_map()) return fail(fmt::format("{} must be a mapping (key: value)", what));
  return {};
}

Result<void> Yaml::expect_list(std::string_view what) const {
  if (!is_list()) return fail(fmt::format("{} must be a list", what));
  return {};
}

Result<void> Yaml::expect_keys(std::string_view what, const std::vector<std::string>& allowed) const {
  KGEN_CHECK_OK(expect_map(what));
  for (const auto& [key, value] : entries()) {
    if (std::find(allowed.begin(), allowed.end(), key.text()) != allowed.end()) continue;
    std::string hint = did_you_mean(key.text(), allowed);
    if (hint.empty()) hint = fmt::format("; known keys: {}", fmt::join(allowed, ", "));
    return key.fail(fmt::format("unknown key '{}' in {}{}", key.text(), what, hint));
  }
  return {};
}

Result<Yaml> Yaml::need(std::string_view what, std::string_view key) const {
  KGEN_CHECK_OK(expect_map(what));
  const Yaml* value = find(key);
  if (!value) return fail(fmt::format("{} lacks the key '{}'; add it", what, key));
  return *value;
}

}  // namespace kgen
