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

// Everything verification runs on the device for one op signature: the op's reference and the op-independent checks of
// templates/check.h. `plan.params` are the op's tensor, scalar and dim parameters in the order of a candidate's plan
// (without workspace). Kernels (block 256, a grid-stride loop over `count`, so any grid is right) take those
// parameters first, then:
//   reference_<out>(…, const i64* index, i64 count, double* value, double* magnitude)
//       element index[i] (i when index is null) of output <out>, row-major over its shape (not its strides), and the
//       sum of the absolute terms (S of OPS 0.1)
//   project_vector_<out>(…, u64 seed, i64 count, double* vector)
//       the intermediate, e.g. t = B·x, count = length
//   project_<out>(…, u64 seed, const double* vector, i64 count, double* expected, double* bound)
//       for each row (all axes of <out> but the last): expected D·x and the error that right rounding may cause
// and, without the op's parameters, for each dtype T among the op's tensors:
//   fill_<T>, check_<T>, check_projection_<T>, check_gaps_<T>, and once check_pattern and read_all: docs/op-format.md,
//   "The check kernels"
// `plan.steps` is empty: the caller asks the module for these kernels by name. A reference reads the operands' fields
// by the names of the op that defines it (an op that extends another may have renamed <out>).
Result<KernelSource> emit_reference(const OpSpec&, Arch);

}  // namespace kgen
