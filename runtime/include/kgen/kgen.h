/* libkgen: looks up the tuned kernel for an operation and launches it. C11. No compiler, no YAML, no Python needed.
 *
 * 1. Handles are opaque; every kgen_open*() has its kgen_close*().
 * 2. Every call returns a kgen_status; kgen_last_error() gives the text of the calling thread's last failure.
 * 3. All functions may be called from several threads, but for closing a handle that another thread still uses.
 * 4. kgen_find() and kgen_launch() do not allocate device memory or synchronise: safe inside graph capture once the
 *    kernel is loaded (kgen_preload()).
 * 5. Null pointers are errors (KGEN_BAD_ARGUMENT) unless a parameter says otherwise. Strings are UTF-8, NUL-terminated.
 */
#ifndef KGEN_KGEN_H_
#define KGEN_KGEN_H_

#include <stddef.h>
#include <stdint.h>

#include "kgen/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kgen_status {
  KGEN_OK = 0,
  KGEN_NOT_FOUND = 1, /* no legal kernel for this problem on this device */
  KGEN_BAD_ARGUMENT = 2,
  KGEN_BAD_DATABASE = 3, /* unreadable, corrupted, of another schema version, or not signed with the required key */
  KGEN_NO_DEVICE = 4,
  KGEN_REFUSED = 5,    /* a code object's hash or signature does not match, and no other kernel is legal */
  KGEN_MISALIGNED = 6, /* a tensor pointer is not aligned as the kernel needs */
  KGEN_DEVICE_ERROR = 7,
  KGEN_OUT_OF_MEMORY = 8,
  KGEN_INTERNAL = 9
} kgen_status;

/* How a kernel was chosen. */
typedef enum kgen_match_kind {
  KGEN_MATCH_NONE = 0,
  KGEN_MATCH_EXACT = 1,   /* tuned for this very shape */
  KGEN_MATCH_NEAR = 2,    /* tuned for another shape, legal for this one */
  KGEN_MATCH_DEFAULT = 3, /* the operator's default kernel */
  KGEN_MATCH_DYNAMIC = 4  /* one of the kernels that were tuned for a range of sizes of one dim */
} kgen_match_kind;

typedef struct kgen_db kgen_db;
typedef struct kgen_op kgen_op;
typedef struct kgen_kernel kgen_kernel; /* one kernel bound to one shape; owned by its kgen_op */
typedef void* kgen_stream;              /* CUstream or hipStream_t; NULL = default stream */

/* Text of this thread's last failure, "" when there was none. Valid until the thread's next kgen call. */
KGEN_API const char* kgen_last_error(void);
KGEN_API const char* kgen_status_name(kgen_status status);
KGEN_API const char* kgen_version(void);

/* Opens a tuned DB for one device: "auto", "nvidia:N", "amd:N" or "host". On a GPU the caller's current context is used
 * (the primary context is retained when there is none). Opening reads the index of the file; the row and the code
 * object of a kernel are read when kgen_find() first chooses it. A hit of kgen_find() and kgen_launch() never touch the
 * file. `path` NULL: the database that ships with kgen ($KGEN_SHIPPED_DB, else share/kgen/shipped.db of the
 * installation); a program that has its own opens that and adds the shipped one. */
KGEN_API kgen_status kgen_open(const char* path, const char* device, kgen_db** db);
typedef struct kgen_open_options {
  size_t size; /* sizeof(kgen_open_options): later versions may append members, 0 of which means as before */
  /* Not NULL: only what the owner of this key signed (`kgen db sign`) is looked up, loaded and launched, from this file
   * and from those that kgen_add() and kgen_reload() read. "kgen-public:" and 64 hex digits, as `kgen db keygen` prints
   * it. */
  const char* key;
} kgen_open_options;
/* kgen_open() with options, NULL for none. A file that has no such signature, or does not fit it, is KGEN_BAD_DATABASE;
 * a kernel that was changed under the running program is refused when it is first looked up. */
KGEN_API kgen_status kgen_open_with(const char* path, const char* device, const kgen_open_options* options,
                                    kgen_db** db);
/* Reads the file again where it is not the one that was read (another inode, size or time: a few microseconds to see,
 * so it may be asked often); `changed`, which may be NULL, says whether it was. From then on kgen_find() answers from
 * the new file, in every thread and for every kgen_op of the DB; kernels that were handed out before stay valid until
 * their kgen_op is closed. A tuner replaces or extends the file meanwhile as it likes: a file that cannot be used is
 * KGEN_BAD_DATABASE, and all is as before. Lookups go on while this runs; a shape's next lookup is a first one. */
KGEN_API kgen_status kgen_reload(kgen_db* db, int* changed);
/* Adds a file to those that are looked up, which need not exist yet; reloads see it once it does. Among answers of one
 * kind (a tuned shape comes before a range, that before a near one …) the first file's counts. An operator's handle can
 * be opened where any of the files has it. NULL: the one that ships with kgen. */
KGEN_API kgen_status kgen_add(kgen_db* db, const char* path);
/* Writes down what the program launches, as JSON lines for `kgen doctor`: each shape that is first looked up from now
 * on, how it was served, how often it was launched (launches of a replayed graph are not seen) or looked for in vain.
 * Lines are added every ten seconds where new shapes come, with the next call of this function, and at the end. NULL
 * ends it. The environment's KGEN_TRACE=FILE does it for every DB that is opened. A hit of kgen_find() costs nothing
 * more. */
KGEN_API kgen_status kgen_record(kgen_db* db, const char* path);
/* Called in the thread of a first kgen_find() that gave no kernel tuned for the shape or for a range of sizes with it:
 * `kind` says what serves instead (KGEN_MATCH_NONE: nothing), `attributes` and `dims` are words, "dtype=bf16
 * b_layout=nk" and "m=1 n=4096 k=4096". It returns soon, and calls no function of the library but kgen_version(). NULL
 * ends it. libkgen_jit is such a hook. */
typedef void (*kgen_miss_hook)(void* user, const char* op, const char* attributes, const char* dims,
                               kgen_match_kind kind);
KGEN_API kgen_status kgen_set_miss_hook(kgen_db* db, kgen_miss_hook hook, void* user);
KGEN_API void kgen_close(kgen_db* db); /* NULL is ignored; a kgen_op that is still open keeps what it needs */

/* Opens an operator. `attributes` as in ops.yaml, separated by spaces, lists by commas, in any order; what is left out
 * takes its default: "dtype=bf16 b_layout=nk epilogue=bias,silu". `dims` names the dims that kgen_find() will give, in
 * its order, separated by commas: "m,n,k"; the others take their defaults. NULL or "" for none. */
KGEN_API kgen_status kgen_open_op(kgen_db* db, const char* op, const char* attributes, const char* dims, kgen_op** out);
KGEN_API void kgen_close_op(kgen_op* op); /* NULL is ignored */

/* What kernels shall be best at. A kernel that was tuned for the very goal comes first among those that fit a shape
 * alike; where there is none the next best serves, and the reason of the match says so. A demand for determinism is
 * never dropped: only kernels whose launches were seen to give the same bits are chosen, else KGEN_NOT_FOUND or
 * KGEN_REFUSED. */
typedef enum kgen_timing {
  KGEN_TIMING_COLD = 0, /* data come from memory */
  KGEN_TIMING_WARM = 1, /* data are in the cache from the call before */
  KGEN_TIMING_GRAPH = 2 /* replayed from a graph, data come from memory */
} kgen_timing;
typedef enum kgen_objective { KGEN_OBJECTIVE_TIME = 0, KGEN_OBJECTIVE_ENERGY = 1 } kgen_objective;
typedef struct kgen_goal {
  size_t size;       /* sizeof(kgen_goal): later versions may append members, 0 of which means as before */
  int timing;        /* kgen_timing */
  int objective;     /* kgen_objective */
  int deterministic; /* not 0: the same inputs give the same bits on every launch */
  int reserved;      /* 0 */
  /* Not 0: the first kgen_find() of a shape times the kernel that was tuned against the operator's default one, a dozen
   * launches of each on buffers of its own, and keeps the faster; the reason has both times. That find allocates device
   * memory and waits for the device, so it stands outside of a graph capture. */
  int guard;
} kgen_goal;

/* kgen_open_op() for a goal; NULL: cold time, as kgen_open_op(). */
KGEN_API kgen_status kgen_open_op_for(kgen_db* db, const char* op, const char* attributes, const char* dims,
                                      const kgen_goal* goal, kgen_op** out);

/* What the DB has for this device, as JSON, for callers that make an operator's arguments from their own tensors.
 * `op` NULL: {"device": {"id", "name", "arch", "vendor"}, "operators": [names]}. An operator's name: a list of what it
 * was tuned as, newest first, each {"op", "signature", "attributes": {name: value}, "defaults": {name: value, "" where
 * there is none; a value may name an earlier attribute}, "dims": [names], "dim_defaults", "tensors": [{"name", "role",
 * "dtype", "shape", "strides", "present"}], "scalars": [{"name", "dtype", "default"}], "constants": {name: integer},
 * "flops", "bytes"}. Sizes are expressions over dims and constants (docs/op-format.md). NULL on failure. Valid until
 * kgen_close(). */
KGEN_API const char* kgen_describe(kgen_db* db, const char* op);

typedef struct kgen_match {
  const kgen_kernel* kernel; /* valid until its kgen_op is closed */
  kgen_match_kind kind;
  const char* reason;     /* one line, e.g. "near: tuned at m=5476, legal for m=5480"; valid as long as `kernel` */
  const char* config;     /* the candidate, "matrix tile_m=128 …" */
  double tuned_time_us;   /* measured time at the shape it was tuned for; 0 when unknown */
  size_t workspace_bytes; /* device memory kgen_launch() needs */
  size_t prepared_bytes;  /* device memory for kgen_prepare(); 0 = no prepare step */
} kgen_match;

/* Looks up the kernel for a shape: `values` beside the dims named at kgen_open_op() (NULL when it named none). A shape
 * that was asked for before is answered from memory, without a lock. KGEN_NOT_FOUND and KGEN_REFUSED: `match` has no
 * kernel, its `reason` says why (valid until the thread's next kgen call). */
KGEN_API kgen_status kgen_find(kgen_op* op, const int64_t* values, kgen_match* match);
/* How much slower than the best kernel for its shape the kernel is expected to be: 0.02 = 2 %; 0 for one that was tuned
 * for this very shape; negative: not known. */
KGEN_API double kgen_expected_loss(const kgen_kernel* kernel);
/* Loads the kernel's code object now (else the first launch does). */
KGEN_API kgen_status kgen_preload(const kgen_kernel* kernel);

/* Operands in the operator's declared order. */
KGEN_API int kgen_tensor_count(const kgen_op* op);
KGEN_API const char* kgen_tensor_name(const kgen_op* op, int index);
KGEN_API int kgen_scalar_count(const kgen_op* op);
KGEN_API const char* kgen_scalar_name(const kgen_op* op, int index);

/* Runs the one-time steps: repacks weights into `prepared` (match.prepared_bytes of device memory, kept by the caller
 * and given to every launch). Operands that are no weights may be NULL. A no-op when prepared_bytes is 0. */
KGEN_API kgen_status kgen_prepare(const kgen_kernel* kernel, void* const* tensors, void* prepared, kgen_stream stream);

/* Launches, in stream order; does not wait. `tensors`: kgen_tensor_count() device pointers, NULL for operands the
 * problem does not have. `workspace` and `prepared` are aligned to 256 bytes, tensors as KGEN_MISALIGNED tells.
 * `scalars`: kgen_scalar_count() values, NULL for defaults. `workspace`, `prepared`: NULL when their size is 0. */
KGEN_API kgen_status kgen_launch(const kgen_kernel* kernel, void* const* tensors, const double* scalars,
                                 void* workspace, const void* prepared, kgen_stream stream);

/* Device memory through the same driver, for programs that have no other: NULL on failure. */
KGEN_API void* kgen_device_alloc(kgen_db* db, size_t bytes);
KGEN_API void kgen_device_free(kgen_db* db, void* pointer);
KGEN_API kgen_status kgen_device_copy(kgen_db* db, void* to, const void* from, size_t bytes);
KGEN_API kgen_status kgen_synchronize(kgen_db* db, kgen_stream stream);
KGEN_API const char* kgen_device_name(const kgen_db* db);

#ifdef __cplusplus
}
#endif
#endif /* KGEN_KGEN_H_ */
