// Small kernels that every compiler takes, so that these tests need no template.
#pragma once

#include <string>

namespace kgen::testing {

inline constexpr const char* kDialect = R"(
#if defined(__HIP__)
#define KERNEL(block) extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, block))) void
#define SHARED __attribute__((shared))
#define THREAD int(__builtin_amdgcn_workitem_id_x())
#elif defined(__CUDACC__) && !defined(__clang__)
#define KERNEL(block) extern "C" __global__ void __launch_bounds__(block)
#define SHARED __shared__
#define THREAD int(threadIdx.x)
#elif defined(__CUDA__)
#define KERNEL(block) extern "C" __attribute__((global)) __attribute__((launch_bounds(block))) void
#define SHARED __attribute__((shared))
#define THREAD int(__nvvm_read_ptx_sreg_tid_x())
#else
#define KERNEL(block) static void
#define SHARED static
#define THREAD 0
#define HOST_ENTRY(name) extern "C" __attribute__((visibility("default"))) void kgen_entry_##name(void** params)
#endif
)";

inline std::string saxpy_source() {
  return std::string(kDialect) + R"(
KERNEL(256) saxpy(float* y, const float* x, float a, int n) {
  const int i = THREAD;
  if (i < n) y[i] += a * x[i];
}
#if defined(HOST_ENTRY)
HOST_ENTRY(saxpy) { saxpy(*(float**)params[0], *(const float**)params[1], *(float*)params[2], *(int*)params[3]); }
#endif
)";
}

// `spills` has 260 values live at once, for its stores may overlap its loads: with 1024 work-items a block there are
// not so many registers. `stack_and_lds` has static LDS and an array that is indexed at run time: a stack without
// spills.
inline std::string resources_source() {
  return std::string(kDialect) + R"(
KERNEL(1024) spills(float* p, const float* q) {
  float a[260];
#pragma unroll
  for (int i = 0; i < 260; ++i) a[i] = q[i * 1024 + THREAD];
#pragma unroll
  for (int i = 0; i < 260; ++i) p[i * 1024 + THREAD] = a[i];
}
KERNEL(128) stack_and_lds(float* p, int n) {
  SHARED float s[100];
  float a[32];
  for (int i = 0; i < 32; ++i) a[i] = p[i];
  for (int j = 0; j < n; ++j) a[(j * n) & 31] += a[(j + n) & 31];
  s[THREAD % 100] = a[n & 31];
  p[THREAD] = a[(n + 1) & 31] + s[99 - THREAD % 100];
}
#if defined(HOST_ENTRY)
HOST_ENTRY(spills) { spills(*(float**)params[0], *(float**)params[1]); }
HOST_ENTRY(stack_and_lds) { stack_and_lds(*(float**)params[0], *(int*)params[1]); }
#endif
)";
}

}  // namespace kgen::testing
