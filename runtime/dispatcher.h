// Lookup behind the C ABI, and behind `kgen lookup`: which kernel serves a shape, and why. The rule is in
// docs/lookup.md.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/plan.h"
#include "db/db.h"
#include "device/launch.h"
#include "runtime/near.h"

namespace kgen {

enum class MatchKind { kNone, kExact, kNear, kDefault, kDynamic };
std::string_view match_name(MatchKind);  // "none" "exact" "near" "default" "dynamic"

// Names of a plan's tensors and scalars, in order, as one text.
std::string operands_of(const Plan&);

// A launch plan of the file, shared by the rows that have the same one. Immutable.
struct StoredPlan {
  static Result<std::shared_ptr<const StoredPlan>> make(Plan read, std::string text_hash);
  StoredPlan(Plan read, std::string text_hash);
  StoredPlan(const StoredPlan&) = delete;
  StoredPlan& operator=(const StoredPlan&) = delete;

  const Plan plan;
  const Binder binder;  // of `plan`
  const Workload workload;
  const std::string hash;
  const std::string operands;  // operands_of() it
  std::shared_ptr<const LaunchLayout> layout;
};

struct Match {
  MatchKind kind = MatchKind::kNone;
  std::string reason;                      // one line, without the kind's name in front
  std::shared_ptr<const WinnerRow> row;    // plan_json is empty, config printable; may outlive the Dispatcher
  std::shared_ptr<const StoredPlan> plan;  // likewise
  BoundSizes bound;                        // for the asked shape
  // How much slower than the best kernel for this shape it is expected to be: 0.02 = 2 %. Nothing: not known.
  std::optional<double> expected_loss{};
};

// Microseconds that the kernel may take for the asked shape: as long as at the shape it was tuned for, times what there
// is more to do. 0: not known.
double expected_us(const Match&);

// What a find() went through, in its order: for `kgen explain`. Rows belong to the Dispatcher.
struct Account {
  struct Level {  // of code that runs on the device
    std::string arch;
    bool own = false, only_ptx = false;
    std::size_t rows = 0;  // of the signature, tuned and default
  };
  struct Considered {
    std::string arch;
    MatchKind kind = MatchKind::kNone;  // as what it was looked at
    bool far = false;                   // beyond the limit of what is near
    std::string dims_key;
    const WinnerRow* row = nullptr;  // null: it cannot be read
    double distance = 0;             // near and default ones
    double expected_us = 0;          // of its kernel for the asked shape; 0: not asked, or not known
    double ranked_us = 0;            // that, with what distance, another device or another goal count for
    bool tried = false;              // the ones after the first usable one are not
    std::string refused;             // why it was not taken; "" of the one that was
  };
  std::vector<Level> levels;
  std::vector<Considered> considered;
};

// Whether a row that fits can be used (its code object is whole, say); the error's text becomes part of the reason and
// the next match is tried. A row stays where it is as long as the Dispatcher.
using RowFilter = std::function<Result<void>(const WinnerRow&, const std::shared_ptr<const StoredPlan>&)>;

// All winners of a DB that may run on one architecture: the keys in memory, rows and plans read from the DB at first
// use. The Db must stay where it is for as long as find() is called. Safe from any thread; calls take turns.
class Dispatcher {
 public:
  // `arch` is an architecture's name as the driver gives it; rows whose code it does not run are left out. Prefers rows
  // tuned on a device of the same name, then any of the same arch; where they have nothing that is legal, those of its
  // family, then PTX (code_that_runs_on).
  static Result<Dispatcher> load(Db&, std::string_view arch, std::string_view device_name);
  // Canonical signature from "dtype=bf16 …" words in any order (missing ones take the defaults recorded with the op).
  Result<std::string> signature(std::string_view op, std::string_view attributes) const;
  // Names of the operators that this architecture has rows of, sorted.
  std::vector<std::string> operators() const;
  // What one of them was tuned as on this architecture, newest first. kBadInput for an unknown name.
  Result<std::vector<OpRecord>> records(std::string_view op) const;
  // A plan of the signature, for what all its plans share (operands, dims). kBadInput when this architecture has none.
  Result<const Plan*> any_plan(const std::string& signature) const;
  // Exact, else dynamic, else near, else default, else none. Of rows that fit alike, the one that was tuned for the
  // goal comes first; another one serves too, and the reason says so. Only a kernel whose launches were seen to give
  // the same bits serves a goal that is deterministic.
  // `account`, which may be null, is filled in.
  Match find(const std::string& signature, const Env& dims, const Goal& goal = {}, const RowFilter& filter = {},
             Account* account = nullptr) const;
  // The same for many shapes: the signature and the names of the dims are looked up once. A question is of the
  // Dispatcher that gave it, and gone with it.
  struct Question;
  std::shared_ptr<const Question> question(const std::string& signature, std::vector<std::string> dims) const;
  // `values` beside the question's dims.
  Match find(const Question&, std::span<const std::int64_t> values, const Goal& goal = {}, const RowFilter& filter = {},
             Account* account = nullptr) const;
  Dispatcher(Dispatcher&&) noexcept;
  ~Dispatcher();

 private:
  struct Impl;
  explicit Dispatcher(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kgen
