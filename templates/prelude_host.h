// The host part of the prelude: a kernel compiled by the host's C++ compiler into a shared object. Each work-item is a
// fiber of the host device; barriers and shuffles call back into it through a table that kgen_host_bind() receives, so
// the object needs no symbol from the program that loads it.
//
// The layouts of HostItem, HostBlock, HostCalls, HostParams and the stack geometry are shared with device/host_abi.h; a
// change of any of them changes kHostAbi.
#pragma once

#define KGEN_DEVICE __attribute__((always_inline)) inline
#define KGEN_KERNEL(block, min_blocks) static void
#define KGEN_UNROLL  // the host's compiler vectorises loops better than straight lines
#define KGEN_NO_UNROLL

#define KGEN_HOST_EXPORT __attribute__((visibility("default"), used))
// Defines the symbols that the host device looks up for kernel `name`; the body calls `name` with `params`.
#define KGEN_HOST_ENTRY(name)                                                      \
  extern "C" {                                                                     \
  KGEN_HOST_EXPORT kgen::HostParams kgen_params_##name = kgen::host_params(&name); \
  }                                                                                \
  extern "C" KGEN_HOST_EXPORT void kgen_entry_##name([[maybe_unused]] void** params)

namespace kgen {

inline constexpr u32 kHostAbi = 1;
inline constexpr u64 kHostStackStride = 65 * 4096;  // an odd number of pages spreads the stacks over the cache's sets
inline constexpr u64 kHostSlabBytes = u64(512) << 20;  // all stacks of one thread, at a multiple of this size

struct HostBlock {
  u32 index[3];
  u32 grid[3];
  u32 size;  // work-items
  unsigned char* lds;
};
struct HostItem {
  const HostBlock* block;
  void* fiber;
  u32 thread;
};
struct HostCalls {
  void (*sync_block)(HostItem* item);
  u32 (*shuffle)(HostItem* item, u32 value, u32 lane);
};
// Bytes of each kernel parameter, for launches that are recorded and replayed.
struct HostParams {
  u32 count;
  u32 bytes[128];
};
template <class... T>
constexpr HostParams host_params(void (*)(T...)) {
  static_assert(sizeof...(T) <= 128, "a kernel takes at most 128 parameters");
  return {sizeof...(T), {sizeof(T)...}};
}

__attribute__((visibility("hidden"))) inline const HostCalls* host_calls = nullptr;

// The work-item that runs on the present stack: stack i of a slab belongs to item i, and the slab begins with a pointer
// to the items. No thread-local variable is as cheap in a shared object, and a fiber never moves to another stack.
KGEN_DEVICE HostItem* host_item() {
  const u64 frame = u64(__builtin_frame_address(0));
  return *reinterpret_cast<HostItem**>(frame & ~(kHostSlabBytes - 1)) +
         (frame & (kHostSlabBytes - 1)) / kHostStackStride;
}

inline constexpr int kWaveSize = 32;

KGEN_DEVICE int thread_x() { return int(host_item()->thread); }
KGEN_DEVICE int block_x() { return int(host_item()->block->index[0]); }
KGEN_DEVICE int block_y() { return int(host_item()->block->index[1]); }
KGEN_DEVICE int block_z() { return int(host_item()->block->index[2]); }
KGEN_DEVICE int block_size() { return int(host_item()->block->size); }
KGEN_DEVICE int grid_x() { return int(host_item()->block->grid[0]); }
KGEN_DEVICE int grid_y() { return int(host_item()->block->grid[1]); }
KGEN_DEVICE int grid_z() { return int(host_item()->block->grid[2]); }
KGEN_DEVICE int lane_id() { return thread_x() & (kWaveSize - 1); }
KGEN_DEVICE int uniform(int value) { return value; }
KGEN_DEVICE int opaque(int value) { return value; }
template <class T>
KGEN_DEVICE const T* opaque(const T* value) {
  return value;
}
KGEN_DEVICE void sync_block() { host_calls->sync_block(host_item()); }
KGEN_DEVICE void sync_lds() { sync_block(); }
KGEN_DEVICE void sync_wave() { sync_block(); }
KGEN_DEVICE unsigned char* lds_base() { return host_item()->block->lds; }
KGEN_DEVICE u32 shuffle_bits(u32 value, int lane) { return host_calls->shuffle(host_item(), value, u32(lane)); }

KGEN_DEVICE float to_float(f16 x) { return float(__builtin_bit_cast(_Float16, x.bits)); }
KGEN_DEVICE u16 f16_bits(float x) { return __builtin_bit_cast(u16, _Float16(x)); }
KGEN_DEVICE float fma_f(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
KGEN_DEVICE double fma_d(double a, double b, double c) { return __builtin_fma(a, b, c); }
// Rounded once: the double sum is exact wherever its last bits could decide a half's tie (a product is exact in 22
// bits, no half has a bit below 2^-24, and results beyond 2^16 overflow).
KGEN_DEVICE f16 fma_f16(f16 a, f16 b, f16 c) {
  return f16{__builtin_bit_cast(u16, _Float16(double(to_float(a)) * double(to_float(b)) + double(to_float(c))))};
}
KGEN_DEVICE u32 and_or(u32 a, u32 b, u32 c) { return (a & b) | c; }
KGEN_DEVICE u32 low_twice(u32 x) { return (x & 0xffffu) | x << 16; }
KGEN_DEVICE u32 high_twice(u32 x) { return x >> 16 | (x & 0xffff0000u); }
// Two f16 in a word.
KGEN_DEVICE u32 add_f16x2(u32 a, u32 b) {
  return u32(f16_bits(to_float(f16{u16(a)}) + to_float(f16{u16(b)}))) |
         u32(f16_bits(to_float(f16{u16(a >> 16)}) + to_float(f16{u16(b >> 16)}))) << 16;
}
KGEN_DEVICE u32 mul_f16x2(u32 a, u32 b) {
  return u32(f16_bits(to_float(f16{u16(a)}) * to_float(f16{u16(b)}))) |
         u32(f16_bits(to_float(f16{u16(a >> 16)}) * to_float(f16{u16(b >> 16)}))) << 16;
}
KGEN_DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
  return u32(fma_f16(f16{u16(a)}, f16{u16(b)}, f16{u16(c)}).bits) |
         u32(fma_f16(f16{u16(a >> 16)}, f16{u16(b >> 16)}, f16{u16(c >> 16)}).bits) << 16;
}
KGEN_DEVICE float exp2_raw(float x) { return __builtin_exp2f(x); }
KGEN_DEVICE float sqrt_f(float x) { return __builtin_sqrtf(x); }
KGEN_DEVICE double sqrt_d(double x) { return __builtin_sqrt(x); }
KGEN_DEVICE float rsqrt_f(float x) { return 1.0f / __builtin_sqrtf(x); }
KGEN_DEVICE float rcp_f(float x) { return 1.0f / x; }

// "Asynchronous" copies, done at once, so that a ring of them can be tried out here. An address is a place in the
// block's LDS. KGEN_MODELLED_COPIES: a test brings others, which are as late as the hardware's may be.
#if !defined(KGEN_MODELLED_COPIES)
#define KGEN_ASYNC_COPY
KGEN_DEVICE u32 lds_address(const void* p) { return u32(static_cast<const unsigned char*>(p) - lds_base()); }
template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global, int valid) {
  __builtin_memcpy(lds_base() + lds, global, u64(valid));
  __builtin_memset(lds_base() + lds + valid, 0, u64(kBytes - valid));
}
template <int kBytes>
KGEN_DEVICE void async_copy(u32 lds, const void* global) {
  __builtin_memcpy(lds_base() + lds, global, kBytes);
}
KGEN_DEVICE void async_commit() {}
KGEN_DEVICE void sync_part(int, int) { sync_block(); }  // all parts pass as many
template <int kPending>
KGEN_DEVICE void async_wait() {}
#endif

}  // namespace kgen

// What the compiler was allowed to use beyond the oldest CPU of the architecture; the loader refuses the object where
// one is absent, for it would die of an illegal instruction. A function, for an inline variable is never unloaded.
extern "C" KGEN_HOST_EXPORT inline const char* kgen_host_cpu() {
  return ""
#if defined(__SSE4_2__)
         " sse4.2"
#endif
#if defined(__AVX__)
         " avx"
#endif
#if defined(__AVX2__)
         " avx2"
#endif
#if defined(__FMA__)
         " fma"
#endif
#if defined(__F16C__)
         " f16c"
#endif
#if defined(__BMI__)
         " bmi"
#endif
#if defined(__BMI2__)
         " bmi2"
#endif
#if defined(__AVX512F__)
         " avx512f"
#endif
#if defined(__AVX512BW__)
         " avx512bw"
#endif
#if defined(__AVX512DQ__)
         " avx512dq"
#endif
#if defined(__AVX512VL__)
         " avx512vl"
#endif
#if defined(__AVX512VNNI__)
         " avx512vnni"
#endif
#if defined(__AVX512BF16__)
         " avx512bf16"
#endif
#if defined(__AVX512FP16__)
         " avx512fp16"
#endif
#if defined(__AVXVNNI__)
         " avxvnni"
#endif
      ;
}

// Called once after loading: takes the device's functions and answers with the ABI that this object was compiled for.
extern "C" KGEN_HOST_EXPORT inline unsigned kgen_host_bind(const kgen::HostCalls* calls) {
  kgen::host_calls = calls;
  return kgen::kHostAbi;
}
