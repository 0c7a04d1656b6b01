// The tuning space of an op on an architecture: legal candidates only, pruned while they are generated.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "generator/spec.h"

namespace kgen {

// A variant with a value for each attribute that the problem leaves to the search and for each of its tunables. Values
// of symbolic tunables are symbol_value(name).
struct Candidate {
  std::string variant;
  std::vector<std::pair<std::string, std::string>> params;  // attributes, then tunables, spelled as in the YAML
  // "matrix tile_m=128 tile_n=64 …": canonical, what the DB stores and --config takes back.
  std::string key() const;
  bool operator==(const Candidate&) const = default;
};

struct RuleCount {
  std::string variant, rule, because;
  std::int64_t removed = 0;  // partial assignments cut by this rule
};

struct Space {
  std::vector<Candidate> candidates;
  double raw_points = 0;           // product of the value counts, summed over the variants
  std::vector<RuleCount> removed;  // in the order of the rules
};

// The spec as a candidate sees it, one value for each attribute: those that `config` (a candidate's key) names, else
// the first allowed one.
OpSpec settled(const OpSpec&, std::string_view config = "");

// Everything an expression of this op may read for this problem and arch: dims, attributes, arch facts, symbols.
Env problem_env(const OpSpec&, Arch);

// All legal candidates that are worth trying (rules with `search: true` cut the others, unless nothing would be left),
// in a stable order, the default first. At most `limit` of them. kBadInput when the space is empty, naming the rule
// that removed the last one.
Result<Space> enumerate(const OpSpec&, Arch, std::size_t limit = SIZE_MAX);

// The default candidate: the first variant whose tunables' defaults are legal (a default that tune.params leaves out is
// replaced by the first value), else the first legal candidate. It is the first of enumerate()'s list.
Result<Candidate> default_candidate(const OpSpec&, Arch);

// The default of every variant where it is legal, within what tune.params asks for, for each value of attributes that
// are axes of the search.
Result<std::vector<Candidate>> variant_defaults(const OpSpec&, Arch);

// Parses "variant k=v …" or "k=v,…" (missing ones take defaults; without a variant, the first that has all the tunables
// and is legal) and checks it against the rules, but not those that only steer the search.
Result<Candidate> parse_candidate(const OpSpec&, Arch, std::string_view text);

}  // namespace kgen
