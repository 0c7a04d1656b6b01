// Candidate → one self-contained source text and the plan to launch it. Pure: the same input gives the same bytes.
#pragma once

#include <string>

#include "base/plan.h"
#include "generator/space.h"

namespace kgen {

struct KernelSource {
  std::string text;     // HIP/CUDA/host C++; no local includes; compiles alone
  Plan plan;
  std::string hash;     // of text
};

Result<KernelSource> emit(const OpSpec&, Arch, const Candidate&);

// Everything verification runs on the device for one op signature: the op's reference and the op-independent checks of
// templates/check.h. `plan.params` are the op's tensor, scalar and dim parameters in the order of a candidate's plan
// (without workspace). Kernels (block 256, each work-item handles item block*256+thread when below `count`) take those
// parameters first, then:
//   reference_<out>(…, const i64* index, i64 count, double* value, double* magnitude)
//       element index[i] (i when index is null) of output <out>, row-major over its shape (not its strides), and the sum of
//       the absolute terms (S of OPS 0.1)
//   project_vector_<out>(…, u64 seed, i64 count, double* vector)              the intermediate, e.g. t = B·x, count = length
//   project_<out>(…, u64 seed, const double* vector, i64 count, double* expected, double* bound)
//       for each row (all axes of <out> but the last): expected D·x and the error that right rounding may cause
// and, without the op's parameters, for each dtype T among the op's tensors:
//   fill_<T>(T* data, i64 count, u64 seed, int distribution, double a, double b)
//   check_<T>(…): documented in templates/check.h
Result<KernelSource> emit_reference(const OpSpec&, Arch);

}  // namespace kgen
