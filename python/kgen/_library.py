"""libkgen by ctypes: finding it, the prototypes of kgen/kgen.h, errors as exceptions."""
import ctypes
import os
import pathlib

from ctypes import POINTER, c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p

_SONAME = "libkgen.so.0"
_JIT_SONAME = "libkgen_jit.so.0"


class KgenError(Exception):
    """A failed call. `status` is the kgen_status, the text says what is wrong and what to do."""

    status = 9


class NotFound(KgenError, LookupError):
    """No legal kernel for this problem on this device."""

    status = 1


class BadArgument(KgenError, ValueError):
    status = 2


class BadDatabase(KgenError):
    """Unreadable, corrupted, or from another schema version."""

    status = 3


class NoDevice(KgenError):
    status = 4


class Refused(KgenError):
    """A code object's hash does not match, and no other kernel is legal."""

    status = 5


class Misaligned(KgenError, ValueError):
    """A tensor's pointer is not aligned as the kernel needs."""

    status = 6


class DeviceError(KgenError, RuntimeError):
    status = 7


class OutOfMemory(KgenError, MemoryError):
    status = 8


class LibraryNotFound(KgenError, ImportError):
    """libkgen is not there, or is older than this package."""


_BY_STATUS = {kind.status: kind for kind in
              (NotFound, BadArgument, BadDatabase, NoDevice, Refused, Misaligned, DeviceError, OutOfMemory)}


class Match(ctypes.Structure):
    _fields_ = [("kernel", c_void_p), ("kind", c_int), ("reason", c_char_p), ("config", c_char_p),
                ("tuned_time_us", c_double), ("workspace_bytes", c_size_t), ("prepared_bytes", c_size_t)]


class Goal(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("timing", c_int), ("objective", c_int), ("deterministic", c_int),
                ("reserved", c_int), ("guard", c_int)]


class OpenOptions(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("key", c_char_p)]


class JitOptions(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("database", c_char_p), ("kgen", c_char_p), ("candidates", c_int), ("jobs", c_int)]


MissHook = ctypes.CFUNCTYPE(None, c_void_p, c_char_p, c_char_p, c_char_p, c_int)

# The functions that the package calls: name → (result, arguments).
_PROTOTYPES = {
    "kgen_last_error": (c_char_p, []),
    "kgen_version": (c_char_p, []),
    "kgen_open_with": (c_int, [c_char_p, c_char_p, POINTER(OpenOptions), POINTER(c_void_p)]),
    "kgen_reload": (c_int, [c_void_p, POINTER(c_int)]),
    "kgen_add": (c_int, [c_void_p, c_char_p]),
    "kgen_record": (c_int, [c_void_p, c_char_p]),
    "kgen_set_miss_hook": (c_int, [c_void_p, MissHook, c_void_p]),
    "kgen_close": (None, [c_void_p]),
    "kgen_describe": (c_char_p, [c_void_p, c_char_p]),
    "kgen_open_op_for": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, POINTER(Goal), POINTER(c_void_p)]),
    "kgen_close_op": (None, [c_void_p]),
    "kgen_find": (c_int, [c_void_p, POINTER(c_int64), POINTER(Match)]),
    "kgen_expected_loss": (c_double, [c_void_p]),
    "kgen_preload": (c_int, [c_void_p]),
    "kgen_prepare": (c_int, [c_void_p, POINTER(c_void_p), c_void_p, c_void_p]),
    "kgen_launch": (c_int, [c_void_p, POINTER(c_void_p), POINTER(c_double), c_void_p, c_void_p, c_void_p]),
    "kgen_device_alloc": (c_void_p, [c_void_p, c_size_t]),
    "kgen_device_free": (None, [c_void_p, c_void_p]),
    "kgen_device_copy": (c_int, [c_void_p, c_void_p, c_void_p, c_size_t]),
    "kgen_synchronize": (c_int, [c_void_p, c_void_p]),
}

# Those of libkgen_jit.
_JIT_PROTOTYPES = {
    "kgen_jit_start": (c_int, [c_void_p, POINTER(JitOptions), POINTER(c_void_p)]),
    "kgen_jit_wait": (c_int, [c_void_p, c_double]),
    "kgen_jit_counts": (None, [c_void_p, POINTER(c_int), POINTER(c_int)]),
    "kgen_jit_failure": (c_char_p, [c_void_p]),
    "kgen_jit_stop": (None, [c_void_p]),
    "kgen_jit_last_error": (c_char_p, []),
}


def _candidates():
    """Where libkgen may be, in order: KGEN_LIBRARY alone if it is set; beside the package; the system's loader."""
    named = os.environ.get("KGEN_LIBRARY")
    if named:
        return [named]
    package = pathlib.Path(__file__).resolve().parent
    # PREFIX/lib/libkgen.so.0 beside PREFIX/lib/python/kgen or PREFIX/python/kgen of an unpacked archive
    folders = [package, package.parent, package.parent.parent, package.parent.parent / "lib"]
    beside = [folder / name for folder in folders for name in (_SONAME, "libkgen.so")]
    return [str(path) for path in beside if path.exists()] + [_SONAME, "libkgen.so"]


def shipped_database():
    """The database in the package itself, as a wheel has it; None: libkgen knows where (or that there is none)."""
    path = pathlib.Path(__file__).resolve().parent / "shipped.db"
    return str(path) if path.exists() and not os.environ.get("KGEN_SHIPPED_DB") else None


def _prototyped(path, prototypes):
    library = ctypes.CDLL(path)
    missing = [name for name in prototypes if not hasattr(library, name)]
    if missing:
        raise LibraryNotFound(f"{path} lacks {', '.join(missing)}: it is older than this Python package; "
                              "install libkgen and the package of one kgen version")
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def load():
    """libkgen with its prototypes; the first call finds it."""
    global _loaded
    if _loaded is not None:
        return _loaded
    tried = []
    for path in _candidates():
        try:
            _loaded = _prototyped(path, _PROTOTYPES)
            return _loaded
        except OSError as error:
            tried.append(f"  {path}: {error}")
    raise LibraryNotFound("libkgen.so was not found; set KGEN_LIBRARY to its path, put it beside the kgen package, or "
                          "install it where the loader looks (ldconfig, LD_LIBRARY_PATH). Tried:\n" + "\n".join(tried))


def load_jit():
    """libkgen_jit: KGEN_JIT_LIBRARY alone if it is set, else from beside libkgen or where the loader looks."""
    global _loaded_jit
    if _loaded_jit is not None:
        return _loaded_jit
    folder = os.path.dirname(load()._name)
    named = os.environ.get("KGEN_JIT_LIBRARY")
    tried = []
    for path in [named] if named else [os.path.join(folder, _JIT_SONAME), _JIT_SONAME]:
        try:
            _loaded_jit = _prototyped(path, _JIT_PROTOTYPES)
            return _loaded_jit
        except OSError as error:
            tried.append(f"  {path}: {error}")
    raise LibraryNotFound("libkgen_jit.so was not found; set KGEN_JIT_LIBRARY to its path or install it beside libkgen. "
                          "Tried:\n" + "\n".join(tried))


_loaded = _loaded_jit = None


def last_error():
    return (load().kgen_last_error() or b"").decode("utf-8", "replace")


def check(status, about=""):
    if status != 0:
        raise failure(status, about + last_error())


def failure(status, text):
    return _BY_STATUS.get(status, KgenError)(text)
