"""Tuning while the program runs: libkgen_jit (kgen/kgen_jit.h)."""
import os

from ctypes import byref, c_int, c_void_p, sizeof

from ._library import BadArgument, JitOptions, failure, load_jit


class Jit:
    """What Database.tune_misses() started. Ends with stop(), the end of a `with` block, or the Database's close()."""

    def __init__(self, database, options):
        self._database, self._handle = database, None
        library, handle = load_jit(), c_void_p()
        status = library.kgen_jit_start(database._opened(), byref(options), byref(handle))
        if status != 0:
            raise failure(status, (library.kgen_jit_last_error() or b"").decode("utf-8", "replace"))
        self._handle = handle.value
        self._seen = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _opened(self):
        if not self._handle:
            raise BadArgument("the tuning of misses was stopped")
        return self._handle

    def _counts(self):
        tuned, failed = c_int(), c_int()
        load_jit().kgen_jit_counts(self._opened(), byref(tuned), byref(failed))
        return tuned.value, failed.value

    def _changed(self):
        """Whether shapes were tuned since this was last asked."""
        before, self._seen = self._seen, self._counts()[0] if self._handle else self._seen
        return before != self._seen

    @property
    def tuned(self):
        """Shapes that were tuned."""
        return self._counts()[0]

    @property
    def failed(self):
        """Shapes that could not be tuned; `failure` says why the last one could not."""
        return self._counts()[1]

    @property
    def failure(self):
        return (load_jit().kgen_jit_failure(self._opened()) or b"").decode("utf-8", "replace")

    def wait(self, seconds=60.0):
        """Waits until nothing is queued or in work, at most so long; whether that is so. Calls use what was tuned from
        then on."""
        done = bool(load_jit().kgen_jit_wait(self._opened(), seconds))
        self._database.reload()
        return done

    def stop(self):
        """Ends it after the candidate in work."""
        handle, self._handle = self._handle, None
        if handle:
            load_jit().kgen_jit_stop(handle)


def options(database, kgen, candidates, jobs):
    encoded = [None if path is None else os.fsencode(path) for path in (database, kgen)]
    return JitOptions(sizeof(JitOptions), *encoded, candidates, jobs)
