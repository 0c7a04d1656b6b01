// Kernels for the tests of the host device, in the form that the generator emits.
#include "templates/prelude.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

using namespace kgen;

KGEN_KERNEL(64, 1) scale(float* y, const float* x, float alpha, i64 n) {
  const i64 i = i64(block_x()) * block_size() + thread_x();
  if (i < n) y[i] = alpha * x[i];
}
KGEN_HOST_ENTRY(scale) { scale(*(float**)params[0], *(const float**)params[1], *(float*)params[2], *(i64*)params[3]); }

// Where each work-item is: (thread, block, grid) of all axes.
KGEN_KERNEL(64, 1) places(int* out) {
  const int block = (block_z() * grid_y() + block_y()) * grid_x() + block_x();
  int* at = out + (i64(block) * block_size() + thread_x()) * 8;
  at[0] = thread_x();
  at[1] = block_x();
  at[2] = block_y();
  at[3] = block_z();
  at[4] = grid_x();
  at[5] = grid_y();
  at[6] = grid_z();
  at[7] = lane_id();
}
KGEN_HOST_ENTRY(places) { places(*(int**)params[0]); }

// `rounds` times: every work-item takes its right neighbour's number and adds one, through LDS.
KGEN_KERNEL(256, 1) neighbours(int* out, int rounds) {
  int* cells = lds<int>(0);
  const int t = thread_x(), size = block_size();
  int value = t;
  for (int round = 0; round < rounds; ++round) {
    cells[t] = value;
    sync_block();
    value = cells[(t + 1) % size] + 1;
    sync_block();
  }
  out[block_x() * size + t] = value;
}
KGEN_HOST_ENTRY(neighbours) { neighbours(*(int**)params[0], *(int*)params[1]); }

KGEN_KERNEL(64, 1) shuffles(int* out) {
  const int t = thread_x();
  int sum = t;
  for (int mask = 1; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
  out[t * 4] = sum;
  out[t * 4 + 1] = shuffle_down(t, 5, 16);
  out[t * 4 + 2] = shuffle(t * 10, 7);
  out[t * 4 + 3] = int(shuffle(1e100 * t, t ^ 1) / 1e100 + 0.5);
}
KGEN_HOST_ENTRY(shuffles) { shuffles(*(int**)params[0]); }

// Waves take turns of their own between barriers.
KGEN_KERNEL(128, 1) wave_sums(float* out, const float* x) {
  float* partial = lds<float>(0);
  const int t = thread_x(), wave = t / 32;
  float sum = x[block_x() * block_size() + t];
  for (int delta = 16; delta > 0; delta /= 2) sum += shuffle_down(sum, delta);
  if (lane_id() == 0) partial[wave] = sum;
  sync_block();
  if (t == 0) {
    float total = 0;
    for (int i = 0; i < block_size() / 32; ++i) total += partial[i];
    out[block_x()] = total;
  }
}
KGEN_HOST_ENTRY(wave_sums) { wave_sums(*(float**)params[0], *(const float**)params[1]); }

KGEN_KERNEL(64, 1) half_leaves_before_barrier(int* out) {
  if (thread_x() >= block_size() / 2) return;
  sync_block();
  out[thread_x()] = 1;
}
KGEN_HOST_ENTRY(half_leaves_before_barrier) { half_leaves_before_barrier(*(int**)params[0]); }

KGEN_KERNEL(64, 1) one_lane_misses_shuffle(int* out) {
  if (thread_x() != 3) out[thread_x()] = shuffle_xor(thread_x(), 1);
  sync_block();
}
KGEN_HOST_ENTRY(one_lane_misses_shuffle) { one_lane_misses_shuffle(*(int**)params[0]); }

KGEN_KERNEL(32, 1) touch_lds(unsigned* out, int offset, int write) {
  unsigned char* bytes = lds<unsigned char>(offset);
  if (thread_x() != 0) return;
  if (write != 0) {
    *bytes = 1;
  } else {
    *out = *bytes;
  }
}
KGEN_HOST_ENTRY(touch_lds) { touch_lds(*(unsigned**)params[0], *(int*)params[1], *(int*)params[2]); }

// 128 KiB of private arrays, alive across a barrier.
KGEN_KERNEL(64, 1) deep_stack(long long* out) {
  volatile int big[32768];
  for (int i = 0; i < 32768; ++i) big[i] = thread_x() + i;
  sync_block();
  long long sum = 0;
  for (int i = 0; i < 32768; ++i) sum += big[i];
  out[thread_x()] = sum;
}
KGEN_HOST_ENTRY(deep_stack) { deep_stack(*(long long**)params[0]); }

// What one item reads before another has written it depends on their order, for want of a barrier.
KGEN_KERNEL(64, 1) missing_barrier(int* out) {
  int* cells = lds<int>(0);
  cells[thread_x()] = 1;
  out[thread_x()] = cells[thread_x() ^ 1];
}
KGEN_HOST_ENTRY(missing_barrier) { missing_barrier(*(int**)params[0]); }

KGEN_KERNEL(64, 1) nothing(int) {}
KGEN_HOST_ENTRY(nothing) { nothing(*(int*)params[0]); }

// `rounds` barriers and no work, to time them.
KGEN_KERNEL(64, 1) barriers(int rounds) {
  for (int i = 0; i < rounds; ++i) sync_block();
}
KGEN_HOST_ENTRY(barriers) { barriers(*(int*)params[0]); }

KGEN_KERNEL(64, 1) shuffle_rounds(int rounds) {
  int value = thread_x();
  for (int i = 0; i < rounds; ++i) value = shuffle_xor(value, 1 + i % 31);
}
KGEN_HOST_ENTRY(shuffle_rounds) { shuffle_rounds(*(int*)params[0]); }

// A plan of three kernels over the same parameters, for the tests of launch_plan.
#define PLAN_PARAMS                                                                                                \
  const float *x, const float *absent, float *y, float *small, float *large, float *packed, float alpha, f16 half, \
      bf16 brain, double wide, i64 n
#define PLAN_VALUES                                                                                                    \
  *(const float**)params[0], *(const float**)params[1], *(float**)params[2], *(float**)params[3], *(float**)params[4], \
      *(float**)params[5], *(float*)params[6], *(f16*)params[7], *(bf16*)params[8], *(double*)params[9],               \
      *(i64*)params[10]

KGEN_KERNEL(64, 1) plan_pack(PLAN_PARAMS) {
  const i64 i = i64(block_x()) * block_size() + thread_x();
  if (i < n) packed[i] = 2 * x[i];
}
KGEN_HOST_ENTRY(plan_pack) { plan_pack(PLAN_VALUES); }

KGEN_KERNEL(64, 1) plan_first(PLAN_PARAMS) {
  const i64 i = i64(block_x()) * block_size() + thread_x();
  if (i == 0) small[0] = to_float(half) + to_float(brain) + float(wide);
  if (i < n) large[i] = alpha * packed[i] + (absent == nullptr ? 0 : 1000);
}
KGEN_HOST_ENTRY(plan_first) { plan_first(PLAN_VALUES); }

KGEN_KERNEL(64, 1) plan_second(PLAN_PARAMS) {
  const i64 i = i64(block_x()) * block_size() + thread_x();
  if (i < n) y[i] = large[i] + small[0];
}
KGEN_HOST_ENTRY(plan_second) { plan_second(PLAN_VALUES); }

// The prelude's side of the layouts that it shares with device/host_abi.h.
extern "C" {
KGEN_HOST_EXPORT u64 test_host_abi[12] = {kHostAbi,
                                          kHostStackStride,
                                          kHostSlabBytes,
                                          kWaveSize,
                                          sizeof(HostBlock),
                                          __builtin_offsetof(HostBlock, grid),
                                          __builtin_offsetof(HostBlock, size),
                                          __builtin_offsetof(HostBlock, lds),
                                          sizeof(HostItem),
                                          __builtin_offsetof(HostItem, thread),
                                          sizeof(HostCalls),
                                          sizeof(HostParams)};
}
