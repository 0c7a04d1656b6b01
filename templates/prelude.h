// The one file that asks which compiler is reading; every template below it is plain C++20.
//
// HIP clang and hipcc (freestanding: no ROCm header, no device library), NVCC and NVRTC (no CUDA header), clang's NVPTX
// back end, and the host's C++ compiler (prelude_host.h). Each section defines the same names: macros KGEN_DEVICE,
// KGEN_KERNEL(block, min_blocks), KGEN_UNROLL, indices, barriers, shuffles, LDS, conversions, raw exp2. What
// can be written once is written once, below the sections.
#pragma once

#if defined(__HIP__) || defined(__CUDA__) || defined(__CUDACC__)
#define KGEN_HOST_DEVICE __attribute__((host)) __attribute__((device))
#else
#define KGEN_HOST_DEVICE
#endif

namespace kgen {

using i8 = signed char;
using u8 = unsigned char;
using i16 = short;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned;
using i64 = long long;
using u64 = unsigned long long;
static_assert(sizeof(i64) == 8 && sizeof(i32) == 4);

// Storage types. Arithmetic is done in float: to_float, from_float<T>.
struct f16 {
  u16 bits;
};
struct bf16 {
  u16 bits;
};

enum class Arch {
  host,
  gfx906,
  gfx908,
  gfx90a,
  gfx942,
  gfx1030,
  gfx1100,
  gfx1151,
  gfx1200,
  gfx1201,
  sm_61,
  sm_70,
  sm_75,
  sm_80,
  sm_86,
  sm_89,
  sm_90
};

// How the copy engine walks a tensor; what is in it only the driver knows. A kernel parameter, used where it stands.
struct alignas(64) TensorMap {
  u64 opaque[16];
};

template <class To, class From>
KGEN_HOST_DEVICE constexpr To bit_cast(const From& value) {
  return __builtin_bit_cast(To, value);
}

template <class A, class B>
inline constexpr bool kSame = false;
template <class A>
inline constexpr bool kSame<A, A> = true;

}  // namespace kgen

// ------------------------------------------------------------------------------------------------ AMD: clang -x hip,
// hipcc
#if defined(__HIP__)
#define KGEN_DEVICE __attribute__((device, always_inline)) inline
#define KGEN_KERNEL(block, min_blocks)                                      \
  extern "C" __attribute__((global, visibility("default"))) __attribute__(( \
      amdgpu_flat_work_group_size(block, block), amdgpu_waves_per_eu(kgen::waves_per_simd(block, min_blocks)))) void
#define KGEN_UNROLL _Pragma("unroll")
#define KGEN_NO_UNROLL _Pragma("nounroll")

extern __attribute__((shared, aligned(128))) unsigned char kgen_lds[];

namespace kgen {

#if defined(__GFX9__)
inline constexpr int kWaveSize = 64, kSimds = 4;
#else
inline constexpr int kWaveSize = 32, kSimds = 2;  // of one compute unit; a workgroup processor has two
#endif

// Waves that each SIMD must be able to hold for `min_blocks` resident blocks.
constexpr int waves_per_simd(int block, int min_blocks) {
  const int waves = (block + kWaveSize - 1) / kWaveSize * min_blocks;
  return (waves + kSimds - 1) / kSimds;
}

KGEN_DEVICE int thread_x() { return int(__builtin_amdgcn_workitem_id_x()); }
KGEN_DEVICE int block_x() { return int(__builtin_amdgcn_workgroup_id_x()); }
KGEN_DEVICE int block_y() { return int(__builtin_amdgcn_workgroup_id_y()); }
KGEN_DEVICE int block_z() { return int(__builtin_amdgcn_workgroup_id_z()); }
KGEN_DEVICE int block_size() { return int(__builtin_amdgcn_workgroup_size_x()); }
// The hidden grid size is in work-items.
KGEN_DEVICE int grid_x() { return int(__builtin_amdgcn_grid_size_x() / u32(__builtin_amdgcn_workgroup_size_x())); }
KGEN_DEVICE int grid_y() { return int(__builtin_amdgcn_grid_size_y() / u32(__builtin_amdgcn_workgroup_size_y())); }
KGEN_DEVICE int grid_z() { return int(__builtin_amdgcn_grid_size_z() / u32(__builtin_amdgcn_workgroup_size_z())); }
KGEN_DEVICE int lane_id() {
  const u32 low = __builtin_amdgcn_mbcnt_lo(~0u, 0u);
  return int(kWaveSize == 64 ? __builtin_amdgcn_mbcnt_hi(~0u, low) : low);
}
// A value that is the same in all lanes, kept in a scalar register.
KGEN_DEVICE int uniform(int value) { return __builtin_amdgcn_readfirstlane(value); }
// A value that is kept where it would be worked out again.
KGEN_DEVICE int opaque(int value) {
  asm volatile("" : "+v"(value));
  return value;
}
template <class T>
KGEN_DEVICE const T* opaque(const T* value) {
  asm volatile("" : "+v"(value));
  return value;
}

KGEN_DEVICE void sync_block() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
// Barrier that orders LDS alone: loads from global memory stay in flight across it (a workgroup fence would wait for
// them on RDNA, whose workgroups may span two caches).
KGEN_DEVICE void sync_lds() {
#if __clang_major__ >= 19
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup", "local");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup", "local");
#else
  sync_block();
#endif
}

// Says to the compiler's scheduler which instructions of a block of code come next.
template <int kKind, int kCount>
KGEN_DEVICE void next_issues() {
#if __clang_major__ >= 17
  __builtin_amdgcn_sched_group_barrier(kKind, kCount, 0);
#endif
}
// Nothing is moved across.
KGEN_DEVICE void keep_order() { __builtin_amdgcn_sched_barrier(0); }

// Orders the LDS accesses of one wave's lanes.
KGEN_DEVICE void sync_wave() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

KGEN_DEVICE unsigned char* lds_base() { return kgen_lds; }

#define KGEN_WINDOWS
#if __clang_major__ >= 19
#define KGEN_BUFFER_LOADS
#endif
// The last word of a raw buffer's descriptor, as the ISA guides have it.
#if defined(__GFX9__)
inline constexpr u32 kRawBuffer = 0x00020000;
#elif defined(__GFX10__)
inline constexpr u32 kRawBuffer = 0x31014000;
#else
inline constexpr u32 kRawBuffer = 0x31004000;
#endif

KGEN_DEVICE u32 shuffle_bits(u32 value, int lane) { return u32(__builtin_amdgcn_ds_bpermute(lane << 2, int(value))); }

KGEN_DEVICE float to_float(f16 x) { return float(__builtin_bit_cast(_Float16, x.bits)); }
KGEN_DEVICE u16 f16_bits(float x) { return __builtin_bit_cast(u16, _Float16(x)); }
KGEN_DEVICE f16 fma_f16(f16 a, f16 b, f16 c) {
  return f16{__builtin_bit_cast(
      u16, __builtin_fmaf16(__builtin_bit_cast(_Float16, a.bits), __builtin_bit_cast(_Float16, b.bits),
                            __builtin_bit_cast(_Float16, c.bits)))};
}
KGEN_DEVICE u32 and_or(u32 a, u32 b, u32 c) { return (a & b) | c; }
// One half of a word in both.
KGEN_DEVICE u32 low_twice(u32 x) { return (x & 0xffffu) | x << 16; }
KGEN_DEVICE u32 high_twice(u32 x) { return x >> 16 | (x & 0xffff0000u); }
// Two f16 in a word.
using HalfPair = _Float16 __attribute__((vector_size(4)));
KGEN_DEVICE u32 add_f16x2(u32 a, u32 b) {
  return __builtin_bit_cast(u32, __builtin_bit_cast(HalfPair, a) + __builtin_bit_cast(HalfPair, b));
}
KGEN_DEVICE u32 mul_f16x2(u32 a, u32 b) {
  return __builtin_bit_cast(u32, __builtin_bit_cast(HalfPair, a) * __builtin_bit_cast(HalfPair, b));
}
KGEN_DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
  return __builtin_bit_cast(u32,
                            __builtin_elementwise_fma(__builtin_bit_cast(HalfPair, a), __builtin_bit_cast(HalfPair, b),
                                                      __builtin_bit_cast(HalfPair, c)));
}
KGEN_DEVICE float fma_f(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
KGEN_DEVICE double fma_d(double a, double b, double c) { return __builtin_fma(a, b, c); }
KGEN_DEVICE float exp2_raw(float x) {
#if __clang_major__ >= 19
  return __builtin_amdgcn_exp2f(x);
#else
  return __builtin_exp2f(x);
#endif
}
KGEN_DEVICE float sqrt_f(float x) { return __builtin_sqrtf(x); }
KGEN_DEVICE double sqrt_d(double x) { return __builtin_sqrt(x); }
KGEN_DEVICE float rsqrt_f(float x) { return 1.0f / __builtin_sqrtf(x); }
KGEN_DEVICE float rcp_f(float x) { return __builtin_amdgcn_rcpf(x); }

}  // namespace kgen

// ---------------------------------------------------------------------------- NVIDIA: NVCC, NVRTC, clang -x cuda
// (NVPTX)
#elif defined(__CUDACC__) || defined(__CUDA__)
#define KGEN_UNROLL _Pragma("unroll")
#define KGEN_NO_UNROLL _Pragma("unroll 1")
#if defined(__clang__)
#define KGEN_DEVICE __attribute__((device, always_inline)) inline
#define KGEN_KERNEL(block, min_blocks) \
  extern "C" __attribute__((global)) __attribute__((launch_bounds(block, min_blocks))) void
#define KGEN_CLUSTER(x, y, z) _Pragma("GCC error \"clusters need NVRTC or NVCC\"")
extern __attribute__((shared, aligned(128))) unsigned char kgen_lds[];
#else
#define KGEN_CLUSTER(x, y, z) __cluster_dims__(x, y, z)
#define KGEN_TENSOR_MAP const __grid_constant__ kgen::TensorMap
#define KGEN_DEVICE __device__ __forceinline__
#define KGEN_KERNEL(block, min_blocks) extern "C" __global__ __launch_bounds__(block, min_blocks) void
extern __shared__ __align__(1024) unsigned char kgen_lds[];  // as tensor copies want it
#endif
#if !defined(__CUDA_ARCH__)  // NVCC's parse for its host side, which runs nothing
#define KGEN_CUDA_ARCH 0
#else
#define KGEN_CUDA_ARCH __CUDA_ARCH__
#endif

namespace kgen {

inline constexpr int kWaveSize = 32;

#if defined(__clang__)
KGEN_DEVICE int thread_x() { return __nvvm_read_ptx_sreg_tid_x(); }
KGEN_DEVICE int block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
KGEN_DEVICE int block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
KGEN_DEVICE int block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
KGEN_DEVICE int block_size() { return __nvvm_read_ptx_sreg_ntid_x(); }
KGEN_DEVICE int grid_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }
KGEN_DEVICE int grid_y() { return __nvvm_read_ptx_sreg_nctaid_y(); }
KGEN_DEVICE int grid_z() { return __nvvm_read_ptx_sreg_nctaid_z(); }
KGEN_DEVICE void sync_block() { __nvvm_bar_sync(0); }
KGEN_DEVICE float fma_f(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
KGEN_DEVICE double fma_d(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
KGEN_DEVICE int thread_x() { return int(threadIdx.x); }
KGEN_DEVICE int block_x() { return int(blockIdx.x); }
KGEN_DEVICE int block_y() { return int(blockIdx.y); }
KGEN_DEVICE int block_z() { return int(blockIdx.z); }
KGEN_DEVICE int block_size() { return int(blockDim.x); }
KGEN_DEVICE int grid_x() { return int(gridDim.x); }
KGEN_DEVICE int grid_y() { return int(gridDim.y); }
KGEN_DEVICE int grid_z() { return int(gridDim.z); }
KGEN_DEVICE void sync_block() { __syncthreads(); }
KGEN_DEVICE float fma_f(float a, float b, float c) { return __fmaf_rn(a, b, c); }
KGEN_DEVICE double fma_d(double a, double b, double c) { return __fma_rn(a, b, c); }
#endif
KGEN_DEVICE void sync_lds() { sync_block(); }
KGEN_DEVICE void sync_wave() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }
KGEN_DEVICE int lane_id() { return thread_x() & 31; }
KGEN_DEVICE int uniform(int value) { return value; }
KGEN_DEVICE int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}
template <class T>
KGEN_DEVICE const T* opaque(const T* value) {
  asm volatile("" : "+l"(value));
  return value;
}

KGEN_DEVICE unsigned char* lds_base() { return kgen_lds; }

KGEN_DEVICE u32 shuffle_bits(u32 value, int lane) {
  u32 result;
  asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(result) : "r"(value), "r"(lane));
  return result;
}

KGEN_DEVICE float to_float(f16 x) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
  return result;
}
KGEN_DEVICE u16 f16_bits(float x) {
  u16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(x));
  return result;
}
KGEN_DEVICE f16 fma_f16(f16 a, f16 b, f16 c) {
  f16 result;
  asm("fma.rn.f16 %0, %1, %2, %3;" : "=h"(result.bits) : "h"(a.bits), "h"(b.bits), "h"(c.bits));
  return result;
}
// a & b | c. Where b and c are constants, ptxas makes two instructions of the plain expression.
KGEN_DEVICE u32 and_or(u32 a, u32 b, u32 c) {
  u32 result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
// One half of a word in both, which the assembler makes part of the f16x2 instruction that takes it.
KGEN_DEVICE u32 low_twice(u32 x) {
  u32 result;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {low, low};}" : "=r"(result) : "r"(x));
  return result;
}
KGEN_DEVICE u32 high_twice(u32 x) {
  u32 result;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {high, high};}" : "=r"(result) : "r"(x));
  return result;
}
// Two f16 in a word.
KGEN_DEVICE u32 add_f16x2(u32 a, u32 b) {
  u32 result;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}
KGEN_DEVICE u32 mul_f16x2(u32 a, u32 b) {
  u32 result;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  return result;
}
KGEN_DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
  u32 result;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
KGEN_DEVICE float exp2_raw(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
KGEN_DEVICE float sqrt_f(float x) {
  float result;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
KGEN_DEVICE double sqrt_d(double x) {
  double result;
  asm("sqrt.rn.f64 %0, %1;" : "=d"(result) : "d"(x));
  return result;
}
KGEN_DEVICE float rsqrt_f(float x) {
  float result;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
KGEN_DEVICE float rcp_f(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Address within the block's shared memory, as PTX instructions take it.
KGEN_DEVICE u32 lds_address(const void* p) {
#if defined(__clang__)
  return u32(u64((__attribute__((address_space(3))) const void*)p));
#else
  return u32(__cvta_generic_to_shared(p));
#endif
}

#if KGEN_CUDA_ARCH >= 800
#define KGEN_ASYNC_COPY
// Copies kBytes (4, 8 or 16) from global memory to LDS without passing registers; bytes from `valid` on become 0 (none
// is read where valid is 0). Both addresses are multiples of kBytes.
template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global, int valid) {
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(lds), "l"(global), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(lds), "l"(global), "n"(kBytes), "r"(valid)
                 : "memory");
}
// All of it, without the mask.
template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global) {
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(lds), "l"(global) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(lds), "l"(global), "n"(kBytes) : "memory");
}
// The same where i < end: the comparison is the instruction's predicate (as an `if` it is a branch, and NVVM keeps a
// register for each).
template <int kBytes>
KGEN_DEVICE void async_copy_below(int i, int end, u32 lds, const void* global, int valid) {
  if constexpr (kBytes == 16)
    asm volatile(
        "{ .reg .pred p; setp.lt.s32 p, %3, %4; @p cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2; }" ::"r"(lds),
        "l"(global), "r"(valid), "r"(i), "r"(end)
        : "memory");
  else
    asm volatile("{ .reg .pred p; setp.lt.s32 p, %4, %5; @p cp.async.ca.shared.global [%0], [%1], %2, %3; }" ::"r"(lds),
                 "l"(global), "n"(kBytes), "r"(valid), "r"(i), "r"(end)
                 : "memory");
}
template <int kBytes>
KGEN_DEVICE void async_copy_below(int i, int end, u32 lds, const void* global) {
  if constexpr (kBytes == 16)
    asm volatile(
        "{ .reg .pred p; setp.lt.s32 p, %2, %3; @p cp.async.cg.shared.global.L2::128B [%0], [%1], 16; }" ::"r"(lds),
        "l"(global), "r"(i), "r"(end)
        : "memory");
  else
    asm volatile("{ .reg .pred p; setp.lt.s32 p, %3, %4; @p cp.async.ca.shared.global [%0], [%1], %2; }" ::"r"(lds),
                 "l"(global), "n"(kBytes), "r"(i), "r"(end)
                 : "memory");
}
KGEN_DEVICE void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Barrier of the `count` work-items (whole waves) of part `part` of a block, 0 … 14, for code that has asynchronous
// copies; other parts pass.
KGEN_DEVICE void sync_part(int part, int count) {
  asm volatile("bar.sync %0, %1;" ::"r"(part + 1), "r"(count) : "memory");
}
// Until at most kPending of the groups committed by this work-item are unfinished.
template <int kPending>
KGEN_DEVICE void async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
#endif

#if KGEN_CUDA_ARCH >= 900
#define KGEN_CLUSTERS
// This block's place in its cluster (x fastest).
KGEN_DEVICE int cluster_rank() {
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return int(rank);
}
// Barrier of all work-items of the cluster that orders their LDS and global accesses, whole or in two halves. A block
// whose LDS others read or write must not end before they have: sync once more at the end.
KGEN_DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
// For what another fence has ordered already (barrier_fence): the full one waits for every access on its way.
KGEN_DEVICE void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
KGEN_DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
KGEN_DEVICE void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
// What lds_address is in this block, as seen in block `rank`; only for the accesses below.
KGEN_DEVICE u32 cluster_address(u32 lds, int rank) {
  u32 result;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(lds), "r"(rank));
  return result;
}
KGEN_DEVICE float load_cluster(u32 address) {
  float result;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(result) : "r"(address) : "memory");
  return result;
}
KGEN_DEVICE void load_cluster(u32 address, float (&values)[4]) {
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(values[0]), "=f"(values[1]), "=f"(values[2]), "=f"(values[3])
               : "r"(address)
               : "memory");
}
KGEN_DEVICE void store_cluster(u32 address, float value) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}
KGEN_DEVICE void store_cluster(u32 address, const float (&values)[4]) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(values[0]), "f"(values[1]),
               "f"(values[2]), "f"(values[3])
               : "memory");
}
// The same without waiting; `barrier` (as cluster_address gives it, of the same block) counts the bytes.
KGEN_DEVICE void send_cluster(u32 address, const float (&values)[4], u32 barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(address),
      "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]), "r"(barrier)
      : "memory");
}
KGEN_DEVICE void send_cluster(u32 address, const float (&values)[2], u32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(address),
               "f"(values[0]), "f"(values[1]), "r"(barrier)
               : "memory");
}

#define KGEN_BULK_COPY
// A barrier of 8 bytes in LDS that counts arrivals and bytes. One work-item makes it, fences, and the block syncs
// before any use. A phase ends when `arrivals` have arrived and all bytes they expected are there; phases are numbered
// 0, 1, 0, 1, …: wait with the number of the phase that should have ended.
KGEN_DEVICE void barrier_make(u32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
KGEN_DEVICE void barrier_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
KGEN_DEVICE void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives when all of this work-item's asynchronous copies so far are there.
KGEN_DEVICE void async_arrive(u32 barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
KGEN_DEVICE void barrier_expect(u32 barrier, u32 bytes) {  // arrives, too
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
KGEN_DEVICE void barrier_wait(u32 barrier, u32 phase) {
  u32 done = 0;
  while (done == 0)
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(done)
        : "r"(barrier), "r"(phase)
        : "memory");
}
// Stores to LDS of the block that both addresses (of cluster_address) lie in; its `barrier` counts the 4 bytes when
// they are there, so that nobody need wait for the whole cluster.
KGEN_DEVICE void store_cluster(u32 address, float value, u32 barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address),
               "r"(bit_cast<u32>(value)), "r"(barrier)
               : "memory");
}
// Copies `bytes` of global memory to LDS; `barrier` counts them when they are there. Addresses and bytes are multiples
// of 16. LDS that the work-items have read before needs a block barrier (and, if they wrote it, async_fence) before.
KGEN_DEVICE void bulk_copy(u32 lds, const void* global, u32 bytes, u32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(lds),
               "l"(global), "r"(bytes), "r"(barrier)
               : "memory");
}
// Orders this work-item's LDS accesses before later bulk copies.
KGEN_DEVICE void async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#endif

}  // namespace kgen

// ------------------------------------------------------------------------------------------------------------- the
// host
#else
#include "prelude_host.h"
#endif

// ------------------------------------------------------------------------------------------------- the same for
// everyone
namespace kgen {

#if !defined(KGEN_ASYNC_COPY)  // declared so that templates parse; a template that calls them here does not link
template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global, int valid);
template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global);
template <int kPending>
KGEN_DEVICE void async_wait();
KGEN_DEVICE void async_commit();
KGEN_DEVICE void sync_part(int part, int count);
#if !defined(__CUDACC__) && !defined(__CUDA__)
KGEN_DEVICE u32 lds_address(const void* p);
#endif
#endif
#if KGEN_CUDA_ARCH < 800
template <int kBytes, class... Valid>
KGEN_DEVICE void async_copy_below(int i, int end, u32 lds, const void* global, Valid... valid) {
  if (i < end) async_copy<kBytes>(lds, global, valid...);
}
#endif
#if !defined( \
    KGEN_CLUSTERS)  // NVRTC wants a definition even where every call is discarded; rules keep them from running
KGEN_DEVICE int cluster_rank() { return 0; }
KGEN_DEVICE void cluster_arrive() {}
KGEN_DEVICE void cluster_arrive_relaxed() {}
KGEN_DEVICE void cluster_wait() {}
KGEN_DEVICE void cluster_sync() {}
KGEN_DEVICE u32 cluster_address(u32, int) { return 0; }
KGEN_DEVICE float load_cluster(u32) { return 0.0f; }
KGEN_DEVICE void load_cluster(u32, float (&)[4]) {}
KGEN_DEVICE void store_cluster(u32, float) {}
KGEN_DEVICE void store_cluster(u32, const float (&)[4]) {}
KGEN_DEVICE void send_cluster(u32, const float (&)[4], u32) {}
KGEN_DEVICE void send_cluster(u32, const float (&)[2], u32) {}
#endif
#if !defined(KGEN_BULK_COPY)
KGEN_DEVICE void barrier_make(u32, int) {}
KGEN_DEVICE void barrier_fence() {}
KGEN_DEVICE void barrier_arrive(u32) {}
KGEN_DEVICE void async_arrive(u32) {}
KGEN_DEVICE void barrier_expect(u32, u32) {}
KGEN_DEVICE void barrier_wait(u32, u32) {}
KGEN_DEVICE void store_cluster(u32, float, u32) {}
KGEN_DEVICE void bulk_copy(u32, const void*, u32, u32) {}
KGEN_DEVICE void async_fence() {}
#endif

// Starts the way of `bytes` of global memory to the L2, whole multiples of 16 as `p` is. sm_90 on; else nothing.
KGEN_DEVICE void prefetch_bulk([[maybe_unused]] const void* p, [[maybe_unused]] u32 bytes) {
#ifdef KGEN_BULK_COPY
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}
// Starts the way of a sector of global memory to the L2, for a load that comes later. AMD and the host: nothing.
KGEN_DEVICE void prefetch([[maybe_unused]] const void* p) {
#if defined(KGEN_CUDA_ARCH)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}

KGEN_DEVICE float to_float(float x) { return x; }
KGEN_DEVICE float to_float(bf16 x) { return bit_cast<float>(u32(x.bits) << 16); }

// Round to nearest even; a NaN keeps its sign and upper payload and stays a NaN.
KGEN_DEVICE u16 bf16_bits(float x) {
#if defined(KGEN_CUDA_ARCH) && KGEN_CUDA_ARCH >= 800
  u16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(x));
  return result;
#else
  const u32 bits = bit_cast<u32>(x);
  const u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return u16((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
#endif
}

template <class T>
KGEN_DEVICE T from_float(float x) {
  if constexpr (kSame<T, f16>) {
    return f16{f16_bits(x)};
  } else if constexpr (kSame<T, bf16>) {
    return bf16{bf16_bits(x)};
  } else {
    static_assert(kSame<T, float>, "from_float makes float, f16 or bf16");
    return x;
  }
}

// Two values rounded to T, of 16 bits, the first in the low half of the word. kPairsRounded: by one instruction, so
// that it is worth keeping the first value until the second is there.
#if defined(KGEN_CUDA_ARCH) && KGEN_CUDA_ARCH >= 800
inline constexpr bool kPairsRounded = true;
template <class T>
KGEN_DEVICE u32 rounded_pair(float low, float high) {
  u32 result;
  if constexpr (kSame<T, bf16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
#else
inline constexpr bool kPairsRounded = false;
template <class T>
KGEN_DEVICE u32 rounded_pair(float low, float high) {
  return u32(from_float<T>(low).bits) | u32(from_float<T>(high).bits) << 16;
}
#endif

// The low halves of two words, and the high ones; a's come first.
KGEN_DEVICE u32 low_halves(u32 a, u32 b) {
#if defined(__HIP__)
  return __builtin_amdgcn_perm(b, a, 0x05040100u);
#else
  return (a & 0xffffu) | b << 16;
#endif
}
KGEN_DEVICE u32 high_halves(u32 a, u32 b) {
#if defined(__HIP__)
  return __builtin_amdgcn_perm(b, a, 0x07060302u);
#else
  return a >> 16 | (b & 0xffff0000u);
#endif
}

// N elements, aligned so that one access moves them (16 bytes at most).
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vec {
  T data[N];
  KGEN_DEVICE T& operator[](int i) { return data[i]; }
  KGEN_DEVICE const T& operator[](int i) const { return data[i]; }
};

#if defined(__CUDACC__) && !defined(__clang__)
// NVCC and NVRTC move a struct of 16-bit members member by member, however it is cast, and in large kernels do not join
// the stores again (a GEMM's epilogue then took as long as its products on an H100, 2026-11-21). So two members are
// joined into a word by arithmetic, and one to four words are one access.
template <int kWords>
struct Words;
template <>
struct Words<1> {
  u32 w[1];
  KGEN_DEVICE static Words load(const void* p) { return {{*static_cast<const u32*>(p)}}; }
  KGEN_DEVICE void store(void* p) const { *static_cast<u32*>(p) = w[0]; }
};
template <>
struct Words<2> {
  u32 w[2];
  KGEN_DEVICE static Words load(const void* p) {
    const uint2 v = *static_cast<const uint2*>(p);
    return {{v.x, v.y}};
  }
  KGEN_DEVICE void store(void* p) const {
    asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(p), "r"(w[0]), "r"(w[1]) : "memory");
  }
};
template <>
struct Words<4> {
  u32 w[4];
  KGEN_DEVICE static Words load(const void* p) {
    const uint4 v = *static_cast<const uint4*>(p);
    return {{v.x, v.y, v.z, v.w}};
  }
  KGEN_DEVICE void store(void* p) const {
    asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
  }
};
#endif

// `p` is aligned as Vec<T, N> is.
template <class T, int N>
KGEN_DEVICE Vec<T, N> load_vec(const T* p) {
#if defined(__CUDACC__) && !defined(__clang__)
  if constexpr (sizeof(T) == 2 && N >= 2) {
    constexpr int kAccess = N < 8 ? N : 8;
    Vec<T, N> v;
    KGEN_UNROLL
    for (int i = 0; i < N; i += kAccess) {
      const auto words = Words<kAccess / 2>::load(p + i);
      KGEN_UNROLL
      for (int e = 0; e < kAccess; ++e) v[i + e] = bit_cast<T>(u16(words.w[e / 2] >> e % 2 * 16));
    }
    return v;
  } else {
    return *reinterpret_cast<const Vec<T, N>*>(p);
  }
#else
  Vec<T, N> v;
  __builtin_memcpy(&v, __builtin_assume_aligned(p, alignof(Vec<T, N>)), sizeof(v));
  return v;
#endif
}
// Kinds of instructions for next_issues().
inline constexpr int kIssueMatrix = 0x8, kIssueGlobalRead = 0x20, kIssueLdsRead = 0x100, kIssueLdsWrite = 0x200;
#if !defined(KGEN_WINDOWS)
template <int kKind, int kCount>
KGEN_DEVICE void next_issues() {}
KGEN_DEVICE void keep_order() {}
#endif

// What lies `offset` bytes from `base` on, of a window of `size` bytes (kOutside at most): zeros where it does not lie
// in it. `base` and `size` are the same in all lanes. kHasWindows: that is one instruction, without a branch.
inline constexpr u32 kOutside = 0xfffffff0u;
#if defined(KGEN_WINDOWS)
inline constexpr bool kHasWindows = true;
#else
inline constexpr bool kHasWindows = false;
#endif
template <int kBytes>
KGEN_DEVICE Vec<u32, (kBytes + 3) / 4> window_load(const void* base, u32 size, u32 offset) {
#if defined(KGEN_BUFFER_LOADS)
  const auto buffer = __builtin_amdgcn_make_buffer_rsrc(const_cast<void*>(base), 0, int(size), int(kRawBuffer));
  if constexpr (kBytes == 16)
    return bit_cast<Vec<u32, kBytes / 4>>(__builtin_amdgcn_raw_buffer_load_b128(buffer, int(offset), 0, 0));
  else if constexpr (kBytes == 8)
    return bit_cast<Vec<u32, kBytes / 4>>(__builtin_amdgcn_raw_buffer_load_b64(buffer, int(offset), 0, 0));
  else if constexpr (kBytes == 4)
    return bit_cast<Vec<u32, kBytes / 4>>(__builtin_amdgcn_raw_buffer_load_b32(buffer, int(offset), 0, 0));
  else
    return {{__builtin_amdgcn_raw_buffer_load_b16(buffer, int(offset), 0, 0)}};
#else
  if (offset >= size) return {};
  const auto* at = static_cast<const unsigned char*>(base) + offset;
  if constexpr (kBytes == 2)
    return {{*reinterpret_cast<const u16*>(at)}};
  else
    return load_vec<u32, kBytes / 4>(reinterpret_cast<const u32*>(at));
#endif
}

// Four words that are read once: on NVIDIA they leave room in the nearest cache for what is read again.
KGEN_DEVICE Vec<u32, 4> load_once(const u32* p) {
#if defined(__CUDACC__) && !defined(__clang__) && KGEN_CUDA_ARCH >= 700
  Vec<u32, 4> v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
      : "l"(p));
  return v;
#else
  return load_vec<u32, 4>(p);
#endif
}

template <class T, int N>
KGEN_DEVICE void store_vec(T* p, const Vec<T, N>& v) {
#if defined(__CUDACC__) && !defined(__clang__)
  if constexpr (sizeof(T) == 2 && N >= 2) {
    constexpr int kAccess = N < 8 ? N : 8;
    KGEN_UNROLL
    for (int i = 0; i < N; i += kAccess) {
      Words<kAccess / 2> words;
      KGEN_UNROLL
      for (int e = 0; e < kAccess; e += 2)
        words.w[e / 2] = u32(bit_cast<u16>(v[i + e])) | u32(bit_cast<u16>(v[i + e + 1])) << 16;
      words.store(p + i);
    }
  } else {
    *reinterpret_cast<Vec<T, N>*>(p) = v;
  }
#else
  __builtin_memcpy(__builtin_assume_aligned(p, alignof(Vec<T, N>)), &v, sizeof(v));
#endif
}

// Dynamic LDS of the block from a byte offset on.
template <class T>
KGEN_DEVICE T* lds(int byte_offset) {
  return reinterpret_cast<T*>(lds_base() + byte_offset);
}

// Value of another lane of the wave; all lanes take part.
template <class T>
KGEN_DEVICE T shuffle(T value, int lane) {
  if constexpr (sizeof(T) == 4) {
    return bit_cast<T>(shuffle_bits(bit_cast<u32>(value), lane));
  } else if constexpr (sizeof(T) == 8) {
    const u64 bits = bit_cast<u64>(value);
    const u32 low = shuffle_bits(u32(bits), lane), high = shuffle_bits(u32(bits >> 32), lane);
    return bit_cast<T>(u64(high) << 32 | low);
  } else {
    static_assert(sizeof(T) == 2, "shuffles move 2, 4 or 8 bytes");
    return bit_cast<T>(u16(shuffle_bits(bit_cast<u16>(value), lane)));
  }
}
template <class T>
KGEN_DEVICE T shuffle_xor(T value, int mask, int /*width*/ = kWaveSize) {
  return shuffle(value, lane_id() ^ mask);
}
// From `delta` lanes above, within groups of `width` lanes (a power of two); past the group's end the own value.
template <class T>
KGEN_DEVICE T shuffle_down(T value, int delta, int width = kWaveSize) {
  const int lane = lane_id();
  return shuffle(value, (lane & (width - 1)) + delta < width ? lane + delta : lane);
}

KGEN_DEVICE float abs_f(float x) { return x < 0.0f ? -x : x; }
KGEN_DEVICE double abs_d(double x) { return x < 0.0 ? -x : x; }

// a / b within 2 ulp, without the long sequence of an exact division; 0 for |b| above 2^126, where rcp_f(b) is
// subnormal and may be flushed. rcp_f() is within 1 ulp of 1 / b.
KGEN_DEVICE float divide_f(float a, float b) { return a * rcp_f(b); }

// Within 3 ulp; infinity above 88.73, 0 below -87.4 (subnormal results are flushed), NaN for NaN.
KGEN_DEVICE float exp_f(float x) {
  const float t = x < -150.0f ? -150.0f : x > 130.0f ? 130.0f : x;
  const float high = t * 1.44269502f;
  const float low = fma_f(t, 1.44269502f, -high) + t * 1.92596303e-8f;  // log2(e) in two floats
  return exp2_raw(high) * fma_f(low, 0.693147182f, 1.0f);
}

// Within 1.5 ulp of erf (two minimax polynomials, joined at |x| = 0.9277; N. Juffa's coefficients).
KGEN_DEVICE float erf_f(float x) {
  const float t = abs_f(x), s = x * x;
  if (t > 0.927734375f) {
    float r = fma_f(-1.72853470e-5f, t, 3.83197126e-4f);
    const float u = fma_f(-3.88396438e-3f, t, 2.42546219e-2f);
    r = fma_f(r, s, u);
    r = fma_f(r, t, -1.06777877e-1f);
    r = fma_f(r, t, -6.34846687e-1f);
    r = fma_f(r, t, -1.28717512e-1f);
    r = 1.0f - exp_f(fma_f(r, t, -t));
    return x < 0.0f ? -r : r;
  }
  float r = -5.96761703e-4f;
  r = fma_f(r, s, 4.99119423e-3f);
  r = fma_f(r, s, -2.67681349e-2f);
  r = fma_f(r, s, 1.12819925e-1f);
  r = fma_f(r, s, -3.76125336e-1f);
  r = fma_f(r, s, 1.28379166e-1f);
  return fma_f(r, x, x);
}

KGEN_DEVICE float tanh_f(float x) {
  const float t = abs_f(x);
  if (t < 0.55f) {  // the quotient below would cancel
    const float s = x * x;
    float r = fma_f(s, 1.57296831e-2f, -5.23002632e-2f);
    r = fma_f(s, r, 1.33152977e-1f);
    r = fma_f(s, r, -3.33327681e-1f);
    return fma_f(r * s, x, x);
  }
  const float r = 1.0f - divide_f(2.0f, 1.0f + exp_f(2.0f * t));
  return x < 0.0f ? -r : r;
}

// Double precision for reference kernels, within a few ulp; freestanding HIP has no library to call.
KGEN_DEVICE double exp_d(double x) {
  if (!(x < 709.0)) return x >= 709.0 ? bit_cast<double>(u64(0x7ff) << 52) : x;
  if (x < -708.0) return 0.0;
  const int k = int(x * 1.4426950408889634 + (x < 0.0 ? -0.5 : 0.5));
  const double r = fma_d(-double(k), 1.9082149292705877e-10, fma_d(-double(k), 0.6931471803691238, x));
  double sum = 1.0;
  for (int i = 14; i > 0; --i) sum = fma_d(sum, r / i, 1.0);
  return sum * bit_cast<double>(u64(k + 1023) << 52);
}
KGEN_DEVICE double tanh_d(double x) {
  const double t = abs_d(x);
  if (t < 0.1) {
    const double s = x * x;  // continued fraction, exact to 1e-17 here
    return x / (1.0 + s / (3.0 + s / (5.0 + s / (7.0 + s / (9.0 + s / 11.0)))));
  }
  const double r = 1.0 - 2.0 / (1.0 + exp_d(2.0 * t));
  return x < 0.0 ? -r : r;
}
KGEN_DEVICE double erf_d(double x) {
  const double t = abs_d(x), s = x * x;
  double r;
  if (t < 2.5) {  // 2/sqrt(pi) exp(-x^2) sum (2 x^2)^n x / (1*3*...*(2n+1))
    double term = t;
    r = t;
    for (int n = 1; n < 60; ++n) {
      term *= 2.0 * s / (2 * n + 1);
      r += term;
    }
    r *= 1.1283791670955126 * exp_d(-s);
  } else if (t < 6.0) {  // continued fraction of erfc
    double f = t;
    for (int n = 60; n > 0; --n) f = t + 0.5 * n / f;
    r = 1.0 - exp_d(-s) / (1.7724538509055161 * f);
  } else {
    r = t - t + 1.0;  // NaN stays (no comparison above holds for it)
    if (t > 1e308) r = 1.0;
  }
  return x < 0.0 ? -r : r;
}

}  // namespace kgen
