// Which configurations won elsewhere, learnt from tuned databases: what a search of a new problem tries first. The
// lists that ship with kgen are ops/priors/OP.yaml; `kgen db prior` writes them (docs/search.md).
#pragma once

#include <map>

#include "tuner/search/recorded.h"

namespace kgen {

struct Winner {
  std::string op, family;           // ArchInfo::family
  std::string signature, dims_key;  // of the problem that it won
  std::string config;               // Candidate::key()
};

// How unlike two problems of an operator are: one for each word of the signatures and each dim that only one has, and
// for each dim that both have the distance of their logarithms, to the base of two.
double problem_distance(const std::string& signature, const std::string& dims_key, const std::string& other_signature,
                        const std::string& other_dims_key);

// A set cover for each operator and architecture family: as few configurations as there may be so that each recorded
// problem has one that is nearly its fastest, and again so that each has a second one. Problems with few verified
// trials teach nothing. Ordered by operator, family, problem; a problem's own fastest first.
std::vector<Winner> learn_winners(const std::vector<Recording>&);
constexpr std::size_t kLeastVerified = 5;  // trials that a problem needs to teach

// One YAML for each operator, by file name. read_winners() takes it back; kBadInput with file and line.
std::map<std::string, std::string> winners_yaml(const std::vector<Winner>&);
Result<std::vector<Winner>> read_winners(std::string_view yaml, const std::string& file);
// Those that an operator's search may learn from: of `folder`, or ("") what ships with kgen. Empty where there are
// none.
Result<std::vector<Winner>> winners_of(const std::string& op, const std::string& folder);

constexpr std::size_t kPriorPoints = 8;  // that a search begins with, budget permitting
// Points of the space to try first, the most promising first, at most `most`: greedily those whose problems are the
// nearest and not yet served by one before. A configuration that the space lacks stands for the nearest point of its
// variant, if it is near. Winners of this family, else those of the same vendor.
std::vector<std::size_t> rank_winners(const SearchSpace&, const std::vector<Winner>&, const std::string& signature,
                                      const std::string& dims_key, const std::string& family, std::size_t most);

}  // namespace kgen
