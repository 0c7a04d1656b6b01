/* libkgen_jit: tunes what a program asks for and the tuned DB does not have, while the program runs. C11. Opt-in, a
 * library of its own: libkgen has no compiler, this one has the generator and drives the compilers that are installed.
 *
 * A shape that kgen_find() serves by another than an exact match is queued. One background thread takes shapes in turn;
 * candidates are compiled, verified and timed by child processes (the kgen program), so that a kernel that was never
 * run cannot harm this one. Winners go into a DB of the user's own, which is added to the DB (kgen_add) and reloaded
 * after each, so the next kgen_find() of the shape is exact; later programs of the user find them at once. Each shape
 * is tried once. Timing on a device that the program uses meanwhile disturbs both; the winner is right in any case.
 */
#ifndef KGEN_KGEN_JIT_H_
#define KGEN_KGEN_JIT_H_

#include "kgen/kgen.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kgen_jit kgen_jit;

typedef struct kgen_jit_options {
  size_t size;          /* sizeof(kgen_jit_options): later versions may append members, 0 of which means as before */
  const char* database; /* the user's DB; NULL: kgen/jit.db in $XDG_DATA_HOME or ~/.local/share, for this user alone */
  const char* kgen;     /* the kgen program; NULL: ../bin/kgen from this library, else from PATH */
  int candidates;       /* that a shape gets; 0: 16 */
  int jobs;             /* compilations at once; 0: half of the cores */
} kgen_jit_options;

/* Starts it for a DB; `options` may be NULL. The miss hook of `db` is taken. KGEN_BAD_DATABASE: the user's DB cannot be
 * used. KGEN_BAD_ARGUMENT: the kgen program was not found, …; kgen_jit_last_error() says what. */
KGEN_API kgen_status kgen_jit_start(kgen_db* db, const kgen_jit_options* options, kgen_jit** out);
/* Waits until nothing is queued or in work, at most so many seconds; not 0 when that is so. For a program that warms
 * up. */
KGEN_API int kgen_jit_wait(kgen_jit* jit, double seconds);
/* What became of what was queued: shapes that were tuned, and those that could not be. */
KGEN_API void kgen_jit_counts(kgen_jit* jit, int* tuned, int* failed);
/* The last reason why a shape could not be tuned, "" when there is none. Valid until the next call for `jit`. */
KGEN_API const char* kgen_jit_failure(kgen_jit* jit);
/* Ends it after the candidate in work. Before kgen_close() of its DB. NULL is ignored. */
KGEN_API void kgen_jit_stop(kgen_jit* jit);
/* Text of this thread's last failure of kgen_jit_start(), "" when there was none. */
KGEN_API const char* kgen_jit_last_error(void);

#ifdef __cplusplus
}
#endif
#endif /* KGEN_KGEN_JIT_H_ */
