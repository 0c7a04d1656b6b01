/* consumer TUNED.DB: finds, prepares and launches the hand-made kernel of tests/runtime/host_kernel.cpp. */
#include <kgen/kgen.h>
#include <stdio.h>

#define CHECK(call)                                                                        \
  do {                                                                                     \
    const kgen_status status = (call);                                                     \
    if (status != KGEN_OK) {                                                               \
      fprintf(stderr, "%s: %s: %s\n", #call, kgen_status_name(status), kgen_last_error()); \
      return 1;                                                                            \
    }                                                                                      \
  } while (0)

enum { kRows = 8, kCols = 16 };

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  kgen_db* db;
  kgen_op* op;
  kgen_match match;
  const int64_t values[] = {kCols, kRows};
  CHECK(kgen_open(argv[1], "host", &db));
  CHECK(kgen_open_op(db, "row_scale", "dtype=fp32", "cols,rows", &op));
  CHECK(kgen_find(op, values, &match));
  CHECK(kgen_preload(match.kernel));
  printf("%s on %s: %s\n", match.config, kgen_device_name(db), match.reason);

  float* a = kgen_device_alloc(db, sizeof(float) * kRows * kCols);
  float* w = kgen_device_alloc(db, sizeof(float) * kCols);
  float* d = kgen_device_alloc(db, sizeof(float) * kRows * kCols);
  void* workspace = kgen_device_alloc(db, match.workspace_bytes);
  void* prepared = kgen_device_alloc(db, match.prepared_bytes);
  if (!a || !w || !d || !workspace || !prepared) return 1;
  for (int i = 0; i < kRows * kCols; ++i) a[i] = (float)(i % 7);
  for (int i = 0; i < kCols; ++i) w[i] = (float)i;

  void* tensors[] = {a, w, NULL, d};
  CHECK(kgen_prepare(match.kernel, tensors, prepared, NULL));
  CHECK(kgen_launch(match.kernel, tensors, NULL, workspace, prepared, NULL));
  CHECK(kgen_synchronize(db, NULL));
  for (int r = 0; r < kRows; ++r) {
    float sum = 0;
    for (int k = 0; k < kCols; ++k) sum += a[r * kCols + k] * 2 * w[k];
    for (int c = 0; c < kCols; ++c) {
      if (d[r * kCols + c] != sum + (float)c) {
        fprintf(stderr, "d[%d, %d] is %g and should be %g\n", r, c, (double)d[r * kCols + c], (double)(sum + (float)c));
        return 1;
      }
    }
  }
  kgen_device_free(db, a);
  kgen_device_free(db, w);
  kgen_device_free(db, d);
  kgen_device_free(db, workspace);
  kgen_device_free(db, prepared);
  kgen_close_op(op);
  kgen_close(db);
  printf("result correct\n");
  return 0;
}
