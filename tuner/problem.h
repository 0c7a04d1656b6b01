// What tuning, verification and their rows know of one op on one shape and architecture.
#pragma once

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

// What verification needs, from emit_reference() of the spec and what became of compiling it. The seed is still to be
// set. kCheckFailed with the compiler's first error when the reference does not compile.
Result<CheckCase> reference_case(const OpSpec&, Arch, const KernelSource& reference, const CompileResult&);

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

// "kgen verify <(echo '…') --config '…' --device …": runs in bash, needs no other file for built-in ops.
std::string repeat_line(const OpSpec&, const std::string& config, const std::string& device);

}  // namespace kgen
