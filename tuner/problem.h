// What tuning, verification and their rows know of one op on one shape and architecture.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "db/db.h"
#include "generator/emit.h"
#include "tuner/compile.h"
#include "tuner/worker.h"

namespace kgen {

OpRecord op_record(const OpSpec&);
ProblemRecord problem_record(const OpSpec&, const BoundPlan&);
DeviceRecord device_record(const DeviceInfo&);

// Does the problem write no element at all? Then there is nothing to launch.
bool writes_nothing(const BoundPlan&);

// What is compiled for the verification of one problem: the op's reference, the checks that it shares with other ops of
// its dtypes, and on a GPU what displaces code before a sample, which all problems share.
struct CheckSources {
  KernelSource reference;
  std::vector<std::string> texts;  // CheckCase::code_paths are of these
};
Result<CheckSources> check_sources(const OpSpec&, Arch);
// What verification needs, from these sources and what became of compiling each. The seed is still to be set.
// kCheckFailed with the compiler's first error when one does not compile.
Result<CheckCase> reference_case(const OpSpec&, Arch, const CheckSources&, const std::vector<CompileResult>&);
// The same, compiled here.
Result<CheckCase> reference_case(const OpSpec&, Arch, Compiler&);

// The tolerances of a candidate that chose its compute type; none where the problem left no choice.
Result<std::vector<CheckCase::Output>> candidate_limits(const OpSpec&, Arch, const std::string& config,
                                                        const BoundPlan&);

// What the kernels of a plan need, worst step first; -1: unknown.
struct PlanUsage {
  int registers = -1, spills = -1, lds_bytes = -1, occupancy_waves = -1;
  std::string pruned;  // rule and number, when the candidate is not worth or not able to be launched; "" = fine
};
PlanUsage plan_usage(const DeviceInfo&, const BoundPlan&, const CodeObject&);

// File that holds the object's bytes, for the worker; written to a temporary folder when the cache could not keep it.
Result<std::string> code_file(const CodeObject&);

// Definitions of operators that are not built in, by name.
using OwnOps = std::map<std::string, std::shared_ptr<const OpDef>>;
Result<OwnOps> read_own_ops(const std::vector<std::string>& paths);

// The problem that a DB row is about, from its signature and dims; with its plan (plan_from_json) also the scalars that
// it was tuned with, which are no part of its identity.
Result<OpSpec> stored_spec(const WinnerRow&, const Plan&, const OwnOps&);

// "kgen verify <(echo '…') --config '…' --device …": runs in bash, needs no other file for built-in ops.
std::string repeat_line(const OpSpec&, const std::string& config, const std::string& device);

}  // namespace kgen
