/* Looks tuned kernels up and launches them: the whole use of libkgen in one C11 file.
 *
 *   kgen_example tuned.db [DEVICE]       DEVICE: auto (default), host, nvidia:N, amd:N
 *
 * Serves the two problems of examples/quickstart.yaml, and one shape that was not tuned. Each result is compared with a
 * plain double loop. Works on a CPU and on a GPU alike, for memory and copies go through kgen_device_*().
 */
#include <kgen/kgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static kgen_db* db;

static void stop(const char* what) {
  fprintf(stderr, "%s: %s\n", what, kgen_last_error());
  exit(1);
}

/* A copy in device memory; plain device memory when `data` is NULL. */
static void* to_device(const void* data, size_t bytes) {
  void* pointer = kgen_device_alloc(db, bytes);
  if (pointer == NULL) stop("kgen_device_alloc");
  if (data != NULL && kgen_device_copy(db, pointer, data, bytes) != KGEN_OK) stop("kgen_device_copy");
  return pointer;
}

static float* random_floats(size_t count) {
  float* data = malloc(count * sizeof(float));
  if (data == NULL) exit(1);
  for (size_t i = 0; i < count; ++i) data[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  return data;
}

/* Where operand `name` stands in the list that kgen_launch() takes. */
static int operand(const kgen_op* op, const char* name) {
  for (int i = 0; i < kgen_tensor_count(op); ++i) {
    const char *a = kgen_tensor_name(op, i), *b = name;
    while (*a != '\0' && *a == *b) ++a, ++b;
    if (*a == *b) return i;
  }
  fprintf(stderr, "the operator has no operand '%s'\n", name);
  exit(1);
}

/* A problem that is a matrix product whatever its operator: d[m, n] = a[m, k] * b[n, k]^T (+ bias[n]). */
struct problem {
  const char *op, *attributes, *dims;
  int64_t values[6];
  int64_t m, n, k;
  const char *a, *b, *bias, *d; /* names of the operands; bias may be NULL */
};

static int run(const struct problem* p) {
  kgen_op* op;
  kgen_match match;
  if (kgen_open_op(db, p->op, p->attributes, p->dims, &op) != KGEN_OK) stop("kgen_open_op");
  if (kgen_find(op, p->values, &match) != KGEN_OK) stop("kgen_find");
  printf("%s %s m=%lld n=%lld k=%lld\n  %s\n  %s\n", p->op, p->attributes, (long long)p->m, (long long)p->n,
         (long long)p->k, match.reason, match.config);

  const size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
  float *a = random_floats(m * k), *b = random_floats(n * k), *bias = random_floats(n), *d = random_floats(m * n);
  void* device_a = to_device(a, m * k * sizeof(float));
  void* device_b = to_device(b, n * k * sizeof(float));
  void* device_bias = to_device(bias, n * sizeof(float));
  void* device_d = to_device(d, m * n * sizeof(float));
  void* workspace = to_device(NULL, match.workspace_bytes);
  void* prepared = to_device(NULL, match.prepared_bytes);

  /* Operands that the problem does not have stay NULL. */
  void** tensors = calloc((size_t)kgen_tensor_count(op), sizeof(void*));
  if (tensors == NULL) exit(1);
  tensors[operand(op, p->a)] = device_a;
  tensors[operand(op, p->b)] = device_b;
  if (p->bias != NULL) tensors[operand(op, p->bias)] = device_bias;
  tensors[operand(op, p->d)] = device_d;

  if (kgen_prepare(match.kernel, tensors, prepared, NULL) != KGEN_OK) stop("kgen_prepare"); /* once per weight */
  if (kgen_launch(match.kernel, tensors, NULL, workspace, prepared, NULL) != KGEN_OK) stop("kgen_launch");
  if (kgen_synchronize(db, NULL) != KGEN_OK) stop("kgen_synchronize");
  if (kgen_device_copy(db, d, device_d, m * n * sizeof(float)) != KGEN_OK) stop("kgen_device_copy");

  /* fp32 sums of k terms: the bound that kgen's own verification uses. */
  int wrong = 0;
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum = p->bias != NULL ? bias[j] : 0.0, terms = fabs(sum);
      for (size_t t = 0; t < k; ++t) {
        const double product = (double)a[i * k + t] * b[j * k + t];
        sum += product;
        terms += fabs(product);
      }
      const double unit = ldexp(1, -24), bound = 4 * sqrt((double)k + 1) * unit * terms + unit * fabs(sum);
      if (!(fabs(d[i * n + j] - sum) <= bound) && wrong++ == 0) {
        printf("  d[%zu, %zu] is %g and should be %g\n", i, j, d[i * n + j], sum);
      }
    }
  }
  printf("  result %s\n", wrong == 0 ? "correct" : "WRONG");

  void* pointers[] = {device_a, device_b, device_bias, device_d, workspace, prepared};
  for (size_t i = 0; i < sizeof(pointers) / sizeof(pointers[0]); ++i) kgen_device_free(db, pointers[i]);
  free(a);
  free(b);
  free(bias);
  free(d);
  free(tensors);
  kgen_close_op(op);
  return wrong == 0;
}

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: %s tuned.db [auto|host|nvidia:N|amd:N]\n", argv[0]);
    return 2;
  }
  if (kgen_open(argv[1], argc == 3 ? argv[2] : "auto", &db) != KGEN_OK) stop("kgen_open");
  printf("kgen %s on %s\n", kgen_version(), kgen_device_name(db));

  const struct problem problems[] = {
      {.op = "gemm",
       .attributes = "dtype=fp32 epilogue=bias",
       .dims = "m,n,k",
       .values = {64, 192, 192},
       .m = 64,
       .n = 192,
       .k = 192,
       .a = "a",
       .b = "b",
       .bias = "bias",
       .d = "d"},
      {.op = "gemm",
       .attributes = "dtype=fp32 epilogue=bias",
       .dims = "m,n,k",
       .values = {61, 192, 192},
       .m = 61,
       .n = 192,
       .k = 192,
       .a = "a",
       .b = "b",
       .bias = "bias",
       .d = "d"},
      {.op = "conv3d_patchify",
       .attributes = "dtype=fp32",
       .dims = "l,c,t,ph,pw,e",
       .values = {64, 3, 2, 14, 14, 64},
       .m = 64,
       .n = 64,
       .k = 3 * 2 * 14 * 14,
       .a = "x",
       .b = "weight",
       .d = "y"},
  };
  int correct = 1;
  for (size_t i = 0; i < sizeof(problems) / sizeof(problems[0]); ++i) correct &= run(&problems[i]);
  kgen_close(db);
  return correct ? 0 : 1;
}
