// templates/check.h as the generator instantiates it.
#include "templates/check.h"
#include "templates/prelude.h"

using namespace kgen;

#define CHECKS(name, T)                                                                                            \
  KGEN_KERNEL(256, 1) fill_##name(T* data, i64 count, u64 seed, int distribution, double a, double b) {            \
    fill<T>(data, count, seed, distribution, a, b);                                                                \
  }                                                                                                                \
  KGEN_HOST_ENTRY(fill_##name) {                                                                                   \
    fill_##name(*(T**)params[0], *(i64*)params[1], *(u64*)params[2], *(int*)params[3], *(double*)params[4],        \
                *(double*)params[5]);                                                                              \
  }                                                                                                                \
  KGEN_KERNEL(256, 1)                                                                                              \
  check_##name(const T* got, const i64* layout, const i64* index, i64 count, const double* value,                  \
               const double* magnitude, double factor, double u_out, double tiny, CheckPartial* out) {             \
    check<T>(got, layout, index, count, value, magnitude, factor, u_out, tiny, out);                               \
  }                                                                                                                \
  KGEN_HOST_ENTRY(check_##name) {                                                                                  \
    check_##name(*(const T**)params[0], *(const i64**)params[1], *(const i64**)params[2], *(i64*)params[3],        \
                 *(const double**)params[4], *(const double**)params[5], *(double*)params[6], *(double*)params[7], \
                 *(double*)params[8], *(CheckPartial**)params[9]);                                                 \
  }                                                                                                                \
  KGEN_KERNEL(256, 1)                                                                                              \
  check_projection_##name(const T* got, const i64* layout, u64 seed, i64 rows, const double* expected,             \
                          const double* bound, CheckPartial* out) {                                                \
    check_projection<T>(got, layout, seed, rows, expected, bound, out);                                            \
  }                                                                                                                \
  KGEN_HOST_ENTRY(check_projection_##name) {                                                                       \
    check_projection_##name(*(const T**)params[0], *(const i64**)params[1], *(u64*)params[2], *(i64*)params[3],    \
                            *(const double**)params[4], *(const double**)params[5], *(CheckPartial**)params[6]);   \
  }                                                                                                                \
  KGEN_KERNEL(256, 1)                                                                                              \
  check_gaps_##name(const T* got, const T* before, const i64* layout, i64 count, CheckPartial* out) {              \
    check_gaps<T>(got, before, layout, count, out);                                                                \
  }                                                                                                                \
  KGEN_HOST_ENTRY(check_gaps_##name) {                                                                             \
    check_gaps_##name(*(const T**)params[0], *(const T**)params[1], *(const i64**)params[2], *(i64*)params[3],     \
                      *(CheckPartial**)params[4]);                                                                 \
  }

CHECKS(fp32, float)
CHECKS(fp16, f16)
CHECKS(bf16, bf16)
CHECKS(int32, i32)

KGEN_KERNEL(256, 1) pattern(const unsigned char* base, const i64* zones, i64 count, int expected, i64* bad) {
  check_pattern(base, zones, count, expected, bad);
}
KGEN_HOST_ENTRY(pattern) {
  pattern(*(const unsigned char**)params[0], *(const i64**)params[1], *(i64*)params[2], *(int*)params[3],
          *(i64**)params[4]);
}
KGEN_KERNEL(256, 1) read(const u64* data, i64 count, u64* sink) { read_all(data, count, sink); }
KGEN_HOST_ENTRY(read) { read(*(const u64**)params[0], *(i64*)params[1], *(u64**)params[2]); }
