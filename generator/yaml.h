// YAML as an immutable tree that knows where each node stood, so that every message can say file:line:column. The only
// place that meets yaml-cpp; its exceptions stop here. Hostile documents (deep nesting, alias bombs, huge lists) end in
// an error: nesting and node count are limited while parsing, and an alias shares its anchor's nodes instead of
// copying. Values are cheap to copy and safe to read from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace kgen {

class Yaml {
 public:
  // `file` is only used in messages. An empty document is a null node.
  static Result<Yaml> parse(std::string_view text, const std::string& file);

  bool is_null() const;
  bool is_scalar() const;
  bool is_list() const;
  bool is_map() const;

  const std::string& text() const;                            // scalars; "" otherwise
  const std::vector<Yaml>& items() const;                     // lists; empty otherwise
  const std::vector<std::pair<Yaml, Yaml>>& entries() const;  // maps, in order, keys are scalars, each once
  const Yaml* find(std::string_view key) const;               // null when absent or not a map
  int line() const;                                           // from 1

  // kBadInput "file:line:column: what".
  tl::unexpected<Error> fail(const std::string& what) const;
  std::string where() const;  // "file:line:column"

  // Typed reads; `what` names the thing in the message ("dim 'm'").
  Result<std::string> as_text(std::string_view what) const;
  Result<std::int64_t> as_int(std::string_view what) const;  // decimal
  Result<double> as_number(std::string_view what) const;
  Result<bool> as_bool(std::string_view what) const;
  Result<std::vector<std::string>> as_words(std::string_view what) const;  // a list of scalars, or one scalar
  Result<void> expect_map(std::string_view what) const;
  Result<void> expect_list(std::string_view what) const;
  // A map with no keys but these; an unknown one is an error that names the nearest.
  Result<void> expect_keys(std::string_view what, const std::vector<std::string>& allowed) const;
  // The value of a key that must be there.
  Result<Yaml> need(std::string_view what, std::string_view key) const;

  struct Node;
  explicit Yaml(std::shared_ptr<const Node> node);

 private:
  std::shared_ptr<const Node> node_;
};

// Whole decimal integer that doubles hold exactly (|value| < 2^53), as expressions need it.
Result<std::int64_t> parse_int(std::string_view text);

}  // namespace kgen
