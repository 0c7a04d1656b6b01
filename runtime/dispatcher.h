// Lookup behind the C ABI, and behind `kgen lookup`: which kernel serves a shape, and why.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/plan.h"
#include "db/db.h"

namespace kgen {

enum class MatchKind { kNone, kExact, kNear, kDefault };
std::string_view match_name(MatchKind);  // "none" "exact" "near" "default"

struct Match {
  MatchKind kind = MatchKind::kNone;
  std::string reason;                  // one line
  const WinnerRow* row = nullptr;      // owned by the Dispatcher
  const Plan* plan = nullptr;          // owned by the Dispatcher
  BoundPlan bound;                     // for the asked shape
};

// All winners of a DB that may run on one architecture, in memory. Immutable, safe from any thread.
class Dispatcher {
 public:
  // `arch` is an architecture's name; rows of other architectures are left out. Prefers rows tuned on a device of the
  // same name, then any of the same arch.
  static Result<Dispatcher> load(Db&, std::string_view arch, std::string_view device_name);
  // Canonical signature from "dtype=bf16 …" words in any order (missing ones take the defaults recorded with the op).
  Result<std::string> signature(std::string_view op, std::string_view attributes) const;
  // Exact, else near (rule in docs/lookup.md), else default, else none.
  Match find(const std::string& signature, const Env& dims) const;
  Dispatcher(Dispatcher&&) noexcept;
  ~Dispatcher();

 private:
  struct Impl;
  explicit Dispatcher(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kgen
