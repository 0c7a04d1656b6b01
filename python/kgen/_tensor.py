"""Tensors of any framework as (pointer, dtype, shape, strides), without importing one; and kgen's own Tensor."""
import ctypes
import functools
import math
import struct
import sys

from ctypes import POINTER, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p

from ._library import BadArgument, OutOfMemory, check, last_error, load

DTYPE_BYTES = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int32": 4, "int64": 8, "fp8_e4m3": 1, "fp8_e5m2": 1}

_TYPESTR = {"f8": "fp64", "f4": "fp32", "f2": "fp16", "i1": "int8", "i4": "int32", "i8": "int64"}
_TORCH = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "int32": "int32",
          "int64": "int64", "float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2"}
FRAMEWORK_NAME = {kgen: name for name, kgen in _TORCH.items()}  # torch's, numpy's and ml_dtypes' names are the same
_ML_DTYPES = {name: _TORCH[name] for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}  # numpy has no such types
_DLPACK = {(2, 64): "fp64", (2, 32): "fp32", (2, 16): "fp16", (4, 16): "bf16", (0, 8): "int8", (0, 32): "int32",
           (0, 64): "int64", (10, 8): "fp8_e4m3", (12, 8): "fp8_e5m2"}
_DLPACK_CODE = {name: code for code, name in _DLPACK.items()}
_DLPACK_DEVICE = {1: "cpu", 3: "cpu", 11: "cpu", 2: "cuda", 13: "cuda", 10: "cuda"}  # 3, 11: pinned; 10: ROCm
NO_STREAM = 0


class View:
    """What a kernel needs to know of a tensor. Strides in elements; `keep` is what owns the memory."""

    __slots__ = ("pointer", "dtype", "shape", "strides", "device", "index", "framework", "stream", "keep")

    def __init__(self, pointer, dtype, shape, strides, device, index, framework, stream=None, keep=None):
        self.pointer, self.dtype, self.shape, self.strides = pointer, dtype, shape, strides
        self.device, self.index, self.framework, self.stream, self.keep = device, index, framework, stream, keep


def row_major(shape):
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def count(shape):
    total = 1
    for size in shape:
        total *= size
    return total


class _DLDataType(ctypes.Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class _DLTensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
                ("dtype", _DLDataType), ("shape", POINTER(c_int64)), ("strides", POINTER(c_int64)),
                ("byte_offset", c_uint64)]


class _DLManagedTensor(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, POINTER(_DLManagedTensor))
_DLManagedTensor._fields_ = [("dl_tensor", _DLTensor), ("manager_ctx", c_void_p), ("deleter", _Deleter)]

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = c_void_p, [ctypes.py_object, c_char_p]
_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype, _capsule_new.argtypes = ctypes.py_object, [c_void_p, c_char_p, c_void_p]
_capsule_valid = ctypes.pythonapi.PyCapsule_IsValid
_capsule_valid.restype, _capsule_valid.argtypes = ctypes.c_int, [c_void_p, c_char_p]
_capsule_raw = ctypes.PyDLL(None).PyCapsule_GetPointer
_capsule_raw.restype, _capsule_raw.argtypes = c_void_p, [c_void_p, c_char_p]


def _array_interface(obj, interface, device):
    typestr = interface["typestr"]
    dtype = _TYPESTR.get(typestr[1:]) if typestr[0] in "<|=" else None
    if dtype is None:
        name = getattr(getattr(obj, "dtype", None), "name", "")
        dtype = _ML_DTYPES.get(name)
    if dtype is None:
        raise BadArgument(f"an array of type '{typestr}' has no kgen dtype ({', '.join(DTYPE_BYTES)}); uint16 bits are "
                          "taken for bf16 through kgen.bf16(array)")
    size = DTYPE_BYTES[dtype]
    shape = tuple(interface["shape"])
    strides = interface.get("strides")
    if strides is None:
        strides = row_major(shape)
    else:
        if any(step % size for step in strides):
            raise BadArgument("an array whose strides are no whole elements is not taken; copy it first")
        strides = tuple(step // size for step in strides)
    return interface["data"][0] or 0, dtype, shape, strides, device


def _dlpack(obj, stream):
    device_type, index = obj.__dlpack_device__()
    device = _DLPACK_DEVICE.get(int(device_type))
    if device is None:
        raise BadArgument(f"a tensor on DLPack device {int(device_type)} is not taken (1: CPU, 2: CUDA, 10: ROCm)")
    if device == "cuda":
        # The numbers of the protocol: CUDA's legacy default stream is 1, ROCm's is 0.
        wanted = stream or (1 if int(device_type) != 10 else 0)
        capsule = obj.__dlpack__(stream=wanted)
    else:
        capsule = obj.__dlpack__()
    managed = ctypes.cast(_capsule_pointer(capsule, b"dltensor"), POINTER(_DLManagedTensor)).contents
    tensor = managed.dl_tensor
    dtype = _DLPACK.get((tensor.dtype.code, tensor.dtype.bits)) if tensor.dtype.lanes == 1 else None
    if dtype is None:
        raise BadArgument(f"a tensor of DLPack type ({tensor.dtype.code}, {tensor.dtype.bits} bits) has no kgen dtype "
                          f"({', '.join(DTYPE_BYTES)})")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else row_major(shape)
    pointer = (tensor.data or 0) + tensor.byte_offset
    # The capsule was not renamed, so dropping it frees the export; it lives as long as this view.
    return View(pointer, dtype, shape, strides, device, index, "dlpack", keep=(obj, capsule))


_PLAIN = {str, int, float, bool, type(None), list, tuple}


def is_tensor(obj):
    if type(obj) in _PLAIN:
        return False
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(obj, torch.Tensor):
        return True
    return hasattr(obj, "__array_interface__") or hasattr(obj, "__dlpack__") or \
        hasattr(obj, "__cuda_array_interface__") or isinstance(obj, Tensor)


_torch_dtypes = {}  # torch.float32 → "fp32"


def torch_dtype(dtype):
    name = _torch_dtypes.get(dtype)
    if name is None:
        name = _TORCH.get(str(dtype)[6:])
        if name is None:
            raise BadArgument(f"a tensor of {dtype} has no kgen dtype ({', '.join(DTYPE_BYTES)})")
        _torch_dtypes[dtype] = name
    return name


def view(obj, stream=None):
    """The View of a tensor of torch, numpy, cupy, jax … or kgen. Nothing is copied."""
    if isinstance(obj, Tensor):
        return View(obj.pointer, obj.dtype, obj.shape, row_major(obj.shape), obj.device, obj.index, "kgen", keep=obj)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(obj, torch.Tensor):
        place = obj.device
        return View(obj.data_ptr(), torch_dtype(obj.dtype), tuple(obj.shape), obj.stride(), place.type, place.index or 0,
                    "torch", keep=obj)
    interface = getattr(obj, "__cuda_array_interface__", None)
    if interface is not None:
        pointer, dtype, shape, strides, device = _array_interface(obj, interface, "cuda")
        framework = "cupy" if type(obj).__module__.partition(".")[0] == "cupy" else "other"
        return View(pointer, dtype, shape, strides, device, None, framework, interface.get("stream"), obj)
    interface = getattr(obj, "__array_interface__", None)
    if interface is not None:
        pointer, dtype, shape, strides, device = _array_interface(obj, interface, "cpu")
        return View(pointer, dtype, shape, strides, device, 0, "numpy", keep=obj)
    if hasattr(obj, "__dlpack__"):
        return _dlpack(obj, stream)
    raise BadArgument(f"a {type(obj).__name__} is no tensor: it has none of __dlpack__, __cuda_array_interface__, "
                      "__array_interface__")


class _Bf16:
    """uint16 bits of another array, taken for bf16."""

    def __init__(self, array):
        self.array = array
        interface = dict(array.__array_interface__)
        if interface["typestr"][1:] not in ("u2", "i2"):
            raise BadArgument(f"kgen.bf16 takes 16-bit integers, not '{interface['typestr']}'")
        self.__array_interface__ = interface
        self.dtype = type("dtype", (), {"name": "bfloat16"})

    @property
    def shape(self):
        return tuple(self.__array_interface__["shape"])


def bf16(array):
    """A numpy array of uint16, taken for the bits of bf16 (numpy has no such type; ml_dtypes' is taken as it is)."""
    return _Bf16(array)


def current_stream(views):
    """The stream that the tensors' framework works on now."""
    for item in views:
        if item.framework == "torch" and item.device == "cuda":
            return sys.modules["torch"].cuda.current_stream(item.index).cuda_stream
        if item.framework == "cupy":
            return sys.modules["cupy"].cuda.get_current_stream().ptr
        if item.stream is not None:
            return item.stream
    return NO_STREAM


def raw_stream(device):
    """The number of the stream that torch works on now, on a torch device."""
    if device.type != "cuda":
        return NO_STREAM
    torch = sys.modules["torch"]
    number = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # without making an object for it
    return number(device.index or 0) if number is not None else torch.cuda.current_stream(device).cuda_stream


def empty_like(model, dtype, shape, strides, database):
    """A new tensor of the framework and device of the View `model`."""
    if strides is not None and model.framework != "torch":
        raise BadArgument("an output with gaps between its rows is made for torch alone; give out=")
    if model.framework == "torch":
        torch = sys.modules["torch"]
        if strides is not None:
            return torch.empty_strided(shape, strides, dtype=getattr(torch, FRAMEWORK_NAME[dtype]), device=model.keep.device)
        return torch.empty(shape, dtype=getattr(torch, FRAMEWORK_NAME[dtype]), device=model.keep.device)
    if model.framework == "cupy" and dtype != "bf16":
        return sys.modules["cupy"].empty(shape, dtype=FRAMEWORK_NAME[dtype])
    if model.framework == "numpy" and "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        if dtype != "bf16":
            return numpy.empty(shape, dtype=FRAMEWORK_NAME[dtype])
        if isinstance(model.keep, _Bf16) or "ml_dtypes" not in sys.modules:
            return _Bf16(numpy.empty(shape, dtype=numpy.uint16))
        return numpy.empty(shape, dtype=sys.modules["ml_dtypes"].bfloat16)
    return Tensor(database, shape, dtype)


_FORMATS = {"fp64": "d", "fp32": "f", "fp16": "e", "int8": "b", "int32": "i", "int64": "q"}


@functools.cache
def _fp8_values(dtype):
    """The number of each of the 256 codes."""
    mantissa, bias = (3, 7) if dtype == "fp8_e4m3" else (2, 15)

    def value(code):
        exponent, low = code >> mantissa & 0x7f >> mantissa, code & ((1 << mantissa) - 1)
        if code & 0x7f == 0x7f or (mantissa == 2 and exponent == 31):
            size = math.inf if code & 0x7f == 0x7c else math.nan
        else:
            size = math.ldexp(low + (1 << mantissa if exponent else 0), max(exponent, 1) - bias - mantissa)
        return -size if code & 0x80 else size

    return [value(code) for code in range(256)]


def _fp8_code(dtype, number):
    """To nearest, ties to even; what is beyond the largest number becomes that, NaN stays one."""
    if math.isnan(number):
        return 0x7f
    values = _fp8_values(dtype)
    finite = (code for code in range(0x7f) if math.isfinite(values[code]))
    code = min(finite, key=lambda code: (abs(values[code] - abs(number)) if math.isfinite(number) else -values[code], code & 1))
    return code | (0x80 if math.copysign(1, number) < 0 else 0)


_exports = {}  # DLPack exports that their consumers still hold, by address


@_Deleter
def _delete_export(managed):
    _exports.pop(ctypes.addressof(managed.contents), None)


@ctypes.PYFUNCTYPE(None, c_void_p)
def _drop_capsule(capsule):
    if _capsule_valid(capsule, b"dltensor"):  # nobody took it
        _exports.pop(_capsule_raw(capsule, b"dltensor"), None)


class Tensor:
    """Row-major memory of a database's device, for programs that have no framework. Any framework takes it through
    __dlpack__ (or numpy through __array_interface__ on the host)."""

    def __init__(self, database, shape, dtype="fp32"):
        if dtype not in DTYPE_BYTES:
            raise BadArgument(f"there is no dtype '{dtype}' ({', '.join(DTYPE_BYTES)})")
        self.database, self.dtype = database, dtype
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(size < 0 for size in self.shape):
            raise BadArgument(f"a size of {self.shape} is negative")
        self.device, self.index = database._place
        self.nbytes = count(self.shape) * DTYPE_BYTES[dtype]
        self.pointer = None
        self.pointer = load().kgen_device_alloc(database._opened(), self.nbytes)
        if not self.pointer:
            raise OutOfMemory(last_error())

    def __del__(self):
        if getattr(self, "pointer", None) and self.database._handle:
            load().kgen_device_free(self.database._handle, self.pointer)

    def __repr__(self):
        return f"kgen.Tensor({list(self.shape)}, {self.dtype}, {self.database.device})"

    def write(self, data):
        """Copies from a buffer of the same size, or from numbers in (nested) lists."""
        if isinstance(data, (list, tuple, int, float)):
            data = self._pack(data)
        data = memoryview(data).cast("B")
        if data.nbytes != self.nbytes:
            raise BadArgument(f"{data.nbytes} bytes do not fill {self!r} of {self.nbytes}")
        source = (ctypes.c_char * data.nbytes).from_buffer_copy(data)
        check(load().kgen_device_copy(self.database._handle, self.pointer, source, data.nbytes))
        return self

    def tobytes(self):
        check(load().kgen_synchronize(self.database._handle, None))
        to = ctypes.create_string_buffer(self.nbytes)
        check(load().kgen_device_copy(self.database._handle, to, self.pointer, self.nbytes))
        return to.raw

    def tolist(self):
        data = self.tobytes()
        if self.dtype == "bf16":
            words = struct.unpack(f"<{len(data) // 2}H", data)
            flat = list(struct.unpack(f"<{len(words)}f", b"".join(struct.pack("<HH", 0, word) for word in words)))
        elif self.dtype.startswith("fp8_"):
            flat = [_fp8_values(self.dtype)[code] for code in data]
        else:
            flat = list(struct.unpack(f"={count(self.shape)}{_FORMATS[self.dtype]}", data))
        for size in reversed(self.shape[1:]):
            flat = [flat[i:i + size] for i in range(0, len(flat), size)] if size else []
        return flat if self.shape else flat[0]

    def _pack(self, data):
        flat = [data]
        while flat and isinstance(flat[0], (list, tuple)):
            flat = [item for row in flat for item in row]
        if len(flat) != count(self.shape):
            raise BadArgument(f"{len(flat)} numbers do not fill {self!r}")
        if self.dtype.startswith("fp8_"):
            return bytes(_fp8_code(self.dtype, number) for number in flat)
        if self.dtype != "bf16":
            return struct.pack(f"={len(flat)}{_FORMATS[self.dtype]}", *flat)
        words = struct.unpack(f"<{len(flat)}I", struct.pack(f"<{len(flat)}f", *flat))
        # to nearest, ties to even; NaN stays one
        return struct.pack(f"<{len(flat)}H", *((word >> 16) | 0x40 if (word & 0x7fffffff) > 0x7f800000
                                               else ((word + 0x7fff + ((word >> 16) & 1)) >> 16) & 0xffff for word in words))

    @property
    def __array_interface__(self):
        if self.device != "cpu" or self.dtype not in _FORMATS:
            raise AttributeError("__array_interface__")
        kind = {name: text for text, name in _TYPESTR.items()}[self.dtype]
        return {"shape": self.shape, "typestr": ("|" if kind == "i1" else "<") + kind, "data": (self.pointer, False),
                "version": 3}

    def __dlpack_device__(self):
        return ({"cpu": 1, "cuda": 2, "rocm": 10}[self._dlpack_kind()], self.index or 0)

    def _dlpack_kind(self):
        return "rocm" if self.device == "cuda" and self.database.vendor == "amd" else self.device

    def __dlpack__(self, stream=None, **_):
        if self.device == "cuda" and stream != -1:
            check(load().kgen_synchronize(self.database._handle, None))
        shape = (c_int64 * max(1, len(self.shape)))(*self.shape)
        strides = (c_int64 * max(1, len(self.shape)))(*row_major(self.shape))
        code, bits = _DLPACK_CODE[self.dtype]
        kind, index = self.__dlpack_device__()
        managed = _DLManagedTensor(_DLTensor(self.pointer, kind, index, len(self.shape), _DLDataType(code, bits, 1),
                                             shape, strides, 0), None, _delete_export)
        address = ctypes.addressof(managed)
        _exports[address] = (managed, shape, strides, self)
        return _capsule_new(address, b"dltensor", ctypes.cast(_drop_capsule, c_void_p))
