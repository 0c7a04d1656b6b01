// Candidate → one self-contained source text and the plan to launch it. Pure: the same input gives the same bytes.
#pragma once

#include <string>

#include "base/plan.h"
#include "generator/space.h"

namespace kgen {

struct KernelSource {
  std::string text;  // HIP/CUDA/host C++; no local includes; compiles alone
  Plan plan;
  std::string hash;  // of text
};

// The text and the plan's constants know no dim: they are equal for every shape of one signature and candidate, but for
// scalars' default values and what rules over dims let through. Plan::constants holds what the plan's expressions read.
Result<KernelSource> emit(const OpSpec&, Arch, const Candidate&);

// The reference of one op signature, which verification runs on the device. `plan.params` are the op's tensor, scalar
// and dim parameters in the order of a candidate's plan (without workspace). Kernels (block 256, a grid-stride loop
// over `count`, so any grid is right) take those parameters first, then:
//   reference_<out>(…, const i64* index, i64 count, double* value, double* magnitude)
//       element index[i] (i when index is null) of output <out>, row-major over its shape (not its strides), and the
//       sum of the absolute terms (S of OPS 0.1)
//   project_vector_<out>(…, u64 seed, i64 count, double* vector)
//       the intermediate, e.g. t = B·x, count = length
//   project_<out>(…, u64 seed, const double* vector, i64 count, double* expected, double* bound)
//       for each row (all axes of <out> but the last): expected D·x and the error that right rounding may cause
// `plan.steps` is empty: the caller asks the module for these kernels by name. A reference reads the operands' fields
// by the names of the op that defines it (an op that extends another may have renamed <out>).
Result<KernelSource> emit_reference(const OpSpec&, Arch);

// What verification runs whatever the operator, the same text for all ops with these dtypes: for each dtype T among the
// op's tensors fill_<T>, check_<T>, check_projection_<T>, check_gaps_<T>, and once check_pattern and read_all:
// docs/op-format.md, "The check kernels". No plan.
Result<KernelSource> emit_checks(const OpSpec&, Arch);

// displace_code(u64* sink) of templates/displace.h, blocks of kDisplaceBlock: straight code that is larger than the
// instruction caches of a GPU. No plan.
inline constexpr int kDisplaceBlock = 1024;
Result<KernelSource> emit_displace(Arch);

}  // namespace kgen
