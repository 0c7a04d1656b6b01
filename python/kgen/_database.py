"""kgen.open() and what it gives."""
import difflib
import json
import os
import threading
import weakref

from ctypes import byref, c_int, c_void_p, sizeof

from . import _jit, _tensor
from ._library import (BadArgument, BadDatabase, Goal, KgenError, MissHook, OpenOptions, OutOfMemory, check, last_error,
                       load, shipped_database)
from ._operator import KINDS, Operator

_TIMINGS = {"cold": 0, "warm": 1, "graph": 2}
_OBJECTIVES = {"time": 0, "energy": 1}


class _DeviceBuffer:
    """Memory of the device through libkgen, for callers whose framework has no allocator that is known here."""

    def __init__(self, database, size):
        self.database, self.size = database, size
        self.pointer = load().kgen_device_alloc(database._handle, size)
        if not self.pointer:
            raise OutOfMemory(last_error())

    def __del__(self):
        if getattr(self, "pointer", None) and self.database._handle:
            load().kgen_device_free(self.database._handle, self.pointer)


class Database:
    """A tuned DB, opened for one device. Operators are attributes: db.gemm(a, b, bias=bias, activation="silu").
    Safe from several threads."""

    def __init__(self, path=None, device="auto", *, timing="cold", objective="time", deterministic=False, guard=False, key=None):
        self._handle = self._jit = None
        self._hook = MissHook()
        self.path = os.fspath(path) if path is not None else shipped_database()
        self._goal = self._read_goal(timing, objective, deterministic, guard)
        handle = c_void_p()
        library = load()
        if self.path is not None and not os.path.exists(self.path):
            raise BadDatabase(f"{self.path} does not exist; `kgen tune ops.yaml --db {self.path}` makes one")
        options = OpenOptions(sizeof(OpenOptions), key.encode() if key is not None else None)
        check(library.kgen_open_with(self.path and os.fsencode(self.path), device.encode(), byref(options), byref(handle)))
        self._handle = handle.value
        self.path = self.path or "the shipped database"
        about = json.loads(self._describe(None))
        self.device, self.device_name = about["device"]["id"], about["device"]["name"]
        self.arch, self.vendor = about["device"]["arch"], about["device"]["vendor"]
        self.operators = about["operators"]
        self._place = ("cpu", 0) if self.vendor == "host" else ("cuda", int(self.device.partition(":")[2] or 0))
        self._operators = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._tensors = weakref.WeakSet()

    @staticmethod
    def _read_goal(timing, objective, deterministic, guard):
        for value, known, what in ((timing, _TIMINGS, "timing"), (objective, _OBJECTIVES, "objective")):
            if value not in known:
                raise BadArgument(f"there is no {what} '{value}' ({', '.join(known)})")
        return Goal(sizeof(Goal), _TIMINGS[timing], _OBJECTIVES[objective], int(deterministic), 0, int(guard))

    def __repr__(self):
        return f"<kgen.Database {self.path} for {self.device} ({self.device_name}): {', '.join(self.operators)}>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None):
            self.close()

    def __dir__(self):
        return [*super().__dir__(), *self.operators]

    def close(self):
        """Unloads; work that is still running on the device must have ended. Operators and Tensors are gone then."""
        if not self._handle:
            return
        if self._jit is not None:
            self._jit.stop()
        for operator in self._operators.values():
            operator._close()
        self._local = threading.local()
        for tensor in list(self._tensors):
            load().kgen_device_free(self._handle, tensor.pointer)
            tensor.pointer = None
        handle, self._handle = self._handle, None
        load().kgen_close(handle)

    def _opened(self):
        if not self._handle:
            raise BadArgument(f"{self.path} was closed")
        return self._handle

    def _describe(self, op):
        text = load().kgen_describe(self._opened(), op)
        if text is None:
            raise KgenError(last_error())
        return text

    def __getattr__(self, name):
        if name.startswith("_") or "operators" not in self.__dict__:
            raise AttributeError(name)
        try:
            return self.op(name)
        except BadArgument as error:
            raise AttributeError(str(error)) from None

    def op(self, name):
        """The operator of that name, as db.NAME."""
        self._opened()
        operator = self._operators.get(name)
        if operator is not None:
            return operator
        if name not in self.operators:
            close = difflib.get_close_matches(name, self.operators, 1)
            hint = f"; did you mean '{close[0]}'?" if close else f" (it has {', '.join(self.operators) or 'none'})"
            raise BadArgument(f"{self.path} has no operator '{name}' for {self.arch}{hint}")
        description = json.loads(self._describe(name.encode()))
        with self._lock:
            return self._operators.setdefault(name, Operator(self, name, description))

    def reload(self):
        """Reads those files again that were replaced or extended since, in microseconds where none was; whether one was.
        Calls from then on are answered from the new ones; weights that were prepared for a kernel that no longer serves
        are kept for the graphs that may read them, until forget()."""
        changed = c_int()
        check(load().kgen_reload(self._opened(), byref(changed)))
        tuned = self._jit is not None and self._jit._changed()
        if changed.value or tuned:
            self._renew()
        return bool(changed.value or tuned)

    def add(self, path=None):
        """Adds a file to those that are looked up, which need not exist yet: reload() sees it once it does. Among answers of
        one kind the first file's counts. None: the one that ships with kgen."""
        path = path if path is not None else shipped_database()
        check(load().kgen_add(self._opened(), path and os.fsencode(path)))
        self._renew()

    def record(self, path):
        """Writes down what is launched from now on, for `kgen doctor`; None ends it. (KGEN_TRACE=FILE does it for a whole
        program.)"""
        check(load().kgen_record(self._opened(), None if path is None else os.fsencode(path)))
        self._renew()  # what was looked up before is looked up again, and so recorded

    def on_miss(self, function):
        """Calls function(op, attributes, dims, kind) at the first lookup of each shape that gives no kernel tuned for it or
        for a range of sizes with it, in the thread of that lookup: a name, dicts of words and of sizes, and what serves
        instead ("near", "default", "none"). It returns soon and calls nothing of the Database. None ends it."""
        hook = MissHook()
        if function is not None:
            def call(_, op, attributes, dims, kind):
                words = [dict(word.split("=", 1) for word in text.decode().split()) for text in (attributes, dims)]
                function(op.decode(), words[0], {name: int(size) for name, size in words[1].items()}, KINDS[kind])
            hook = MissHook(call)
        check(load().kgen_set_miss_hook(self._opened(), hook, None))
        self._hook = hook  # the library calls it until there is another

    def tune_misses(self, database=None, *, kgen=None, candidates=0, jobs=0):
        """Tunes shapes that were never tuned, in the background, in processes of their own, and looks the winners up from the
        user's own `database` (default: kgen/jit.db in $XDG_DATA_HOME): a Jit. Takes the place of on_miss()."""
        if self._jit is not None and self._jit._handle:
            raise BadArgument("misses are tuned already; stop() that first")
        self._jit = _jit.Jit(self, _jit.options(database, kgen, candidates, jobs))
        self._renew()
        return self._jit

    def find(self, op, *tensors, **keywords):
        """The Match for an operator's tensors, or for dims and attributes by name: what would run, and why."""
        return self.op(op).find(*tensors, **keywords)

    def prepare(self, op, *tensors, **keywords):
        """Loads the kernel of this call and repacks its weights, ahead of the first call (or of a graph's capture)."""
        return self.op(op).prepare(*tensors, **keywords)

    def empty(self, shape, dtype="fp32"):
        """A Tensor of this device with undefined contents."""
        tensor = _tensor.Tensor(self, shape, dtype)
        self._tensors.add(tensor)
        return tensor

    def tensor(self, data, dtype="fp32", shape=None):
        """A Tensor of numbers in (nested) lists, or of the bytes of a buffer with `shape`."""
        if shape is None:
            shape, row = [], data
            while isinstance(row, (list, tuple)):
                shape.append(len(row))
                row = row[0] if row else None
        return self.empty(shape, dtype).write(data)

    def synchronize(self, stream=None):
        """Waits for the stream and reports a fault of earlier launches."""
        check(load().kgen_synchronize(self._opened(), stream))

    def _renew(self):
        """What the files have now."""
        self.operators = json.loads(self._describe(None))["operators"]
        with self._lock:
            for name, operator in self._operators.items():
                operator._renew(json.loads(self._describe(name.encode())) if name in self.operators else [])

    # ---- for operators

    def _open_op(self, name, attributes, dims):
        handle = c_void_p()
        check(load().kgen_open_op_for(self._opened(), name.encode(), attributes.encode(), dims.encode(), byref(self._goal),
                                      byref(handle)), f"{name}: ")
        return handle.value

    def _scratch(self, size, stream, model):
        """(pointer, owner) of device memory that lives as long as its owner."""
        if self._torchs_own(stream, model):  # its allocator knows about its stream and graph capture
            return self._torch_scratch(size, model.keep.device)
        owner = _DeviceBuffer(self, size)
        return owner.pointer, owner

    @staticmethod
    def _torch_scratch(size, device):
        import torch
        owner = torch.empty(size + 256, dtype=torch.uint8, device=device)
        return -(-owner.data_ptr() // 256) * 256, owner

    def _workspace(self, size, stream, model):
        """(pointer, owner) of scratch memory. One buffer for each thread and stream, which only grows: launches of a
        stream come one after the other, and the host device runs within the call. Torch has a cache of its own, which
        also knows what a captured graph must keep."""
        if self._torchs_own(stream, model):
            return self._scratch(size, stream, model)
        buffers = self._local.__dict__.setdefault("buffers", {})
        buffer = buffers.get(stream)
        if buffer is None or buffer.size < size:
            if buffer is not None:
                self.synchronize(stream)
            buffer = buffers[stream] = _DeviceBuffer(self, max(size, 2 * buffer.size if buffer is not None else 0))
        return buffer.pointer, buffer

    @staticmethod
    def _torchs_own(stream, model):
        """Whether the launch goes to the stream that torch's allocator hands out memory for."""
        return model.framework == "torch" and (model.device != "cuda" or stream == _tensor.current_stream([model]))

    @staticmethod
    def _refuse_capture(model):
        """What is repacked within a captured graph would only be there once the graph is replayed."""
        if model.framework == "torch" and model.device == "cuda":
            import torch
            if torch.cuda.is_current_stream_capturing():
                raise BadArgument("weights are prepared before a graph is captured, not within: call prepare() first")


def open(path=None, device="auto", *, timing="cold", objective="time", deterministic=False, guard=False, key=None):
    """Opens a tuned DB for one device: "auto", "nvidia:N", "amd:N" or "host"; without a path the one that ships with kgen. `guard`: the first lookup of a shape times the
    tuned kernel against the operator's default one and keeps the faster. With `key` ("kgen-public:...", as `kgen db
    keygen` prints it) only what the key's owner signed is used."""
    return Database(path, device, timing=timing, objective=objective, deterministic=deterministic, guard=guard, key=key)
