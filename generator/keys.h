// Every key that a spec or an operator definition may have. The parser takes these and no others, `kgen ops --keys`
// prints them, and docs/reference/spec.md and docs/reference/definition.md are made of that: a key cannot be known to
// one and not to the others.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kgen {

struct Key {
  std::string_view map;  // the mapping it stands in, "tune"
  std::string_view name;
  std::string_view doc;
};

std::span<const Key> all_keys();
// Names of the keys of one mapping, in order. A mapping that there is not is a mistake of the caller and aborts.
std::vector<std::string> keys_of(std::string_view map);

}  // namespace kgen
