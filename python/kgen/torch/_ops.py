"""Every operator of a DB as a PyTorch operator: torch.ops.kgen.NAME, with shapes for fake tensors, autocast and CUDA graphs.

All have one schema, for an operator's operands depend on its epilogue:
    kgen::NAME(Tensor[] operands, str[] names, str[] options, int db) -> Tensor[]
and those that write an operand (add_rmsnorm its residual), whose results torch wants one by one:
    kgen::NAME(Tensor[] operands, Tensor(a!)[] written, str[] names, str[] options, int db) -> Tensor
"""
import functools
import threading

import torch

from .. import _tensor
from .._database import Database, open as open_database
from .._library import KgenError

_library = torch.library.Library("kgen", "FRAGMENT")
_lock = threading.Lock()
_defined = set()
_databases = []  # the int in a schema is the place here

# Products of matrices: autocast gives them its type, as it does for torch.matmul; all others keep the types they get.
_MATRIX_OPERATORS = {"gemm", "rmsnorm_gemm", "conv2d", "multi_dilation_conv", "conv3d_patchify", "gptq_gemm", "attention",
                     "decode_attention", "g2l_tail"}


def _written(operator):
    return tuple(dict.fromkeys(operand.name for signature in operator.signatures for operand in signature.operands
                               if operand.role == "inout"))


@functools.lru_cache(maxsize=None)
def _keywords(operator, options):
    """("activation=silu", "eps=1e-06") → keywords of Operator, by what each name is."""
    keywords = {}
    for option in options:
        name, _, text = option.partition("=")
        if name == "frozen":
            keywords[name] = text == "1"
        elif name in operator._names["dim"] and name not in operator._names["attribute"]:
            keywords[name] = int(text)
        else:
            keywords[name] = text
    return keywords


def _run(name, operands, names, options, db):
    operator, options = _databases[db].op(name), tuple(options)
    return operator.run_torch(tuple(names), operands, options, _keywords(operator, options))


def _fake(name, operands, names, options, db):
    operator = _databases[db].op(name)
    keywords = {key: value for key, value in _keywords(operator, tuple(options)).items() if key != "frozen"}
    views = {}
    for key, tensor in zip(names, operands):
        views[key] = _tensor.View(0, _tensor.torch_dtype(tensor.dtype), tuple(tensor.shape), tuple(tensor.stride()),
                                  tensor.device.type, tensor.device.index, "torch")
    made = []
    for shape, strides, dtype in operator.output_specs(views, keywords):
        dtype = getattr(torch, _tensor.FRAMEWORK_NAME[dtype])
        made.append(operands[0].new_empty(shape, dtype=dtype) if strides is None
                    else operands[0].new_empty_strided(shape, strides, dtype=dtype))
    return made


def _autocast(name, device, operands, names, options, db):
    """Casts the operands that have the operator's main type where it was tuned for autocast's."""
    wanted = torch.get_autocast_dtype(device)
    operator = _databases[db].op(name)
    dtype = _tensor.torch_dtype(wanted)
    castable = {operand.name for signature in operator.signatures if signature.attribute("dtype") == dtype
                for operand in signature.inputs if operand.dtype == dtype}
    operands = [tensor.to(wanted) if key in castable and tensor.is_floating_point() and tensor.dtype != torch.float64
                else tensor for key, tensor in zip(names, operands)]
    key = torch._C.DispatchKey.AutocastCUDA if device == "cuda" else torch._C.DispatchKey.AutocastCPU
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
        return getattr(torch.ops.kgen, name).default(operands, names, options, db)


# Strides are part of what a kernel was tuned for: a compiler must not change them.
_STRIDES = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)


def _define(operator):
    name, writes = operator.name, bool(_written(operator))
    arguments = "Tensor[] operands, " + ("Tensor(a!)[] written, " if writes else "") + "str[] names, str[] options, int db"
    outputs = len(operator.signatures[0].outputs)
    results = "Tensor[]" if not writes else "Tensor" if outputs == 1 else f"({', '.join(['Tensor'] * outputs)})"
    _library.define(f"{name}({arguments}) -> {results}", tags=(_STRIDES,))

    def joined(function):
        def written_too(operands, written, names, options, db):
            made = function(name, [*operands, *written], names, options, db)
            return made[0] if outputs == 1 else tuple(made)
        return written_too if writes else lambda operands, names, options, db: function(name, operands, names, options, db)

    for key in ("CUDA", "CPU"):
        _library.impl(name, joined(_run), key)
    torch.library.register_fake(f"kgen::{name}", joined(_fake), lib=_library)
    if name in _MATRIX_OPERATORS and not writes:
        for device, key in (("cuda", "AutocastCUDA"), ("cpu", "AutocastCPU")):
            _library.impl(name, functools.partial(_autocast, name, device), key)


def _text(value):
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (list, tuple)):
        return ",".join([str(item) for item in value])
    return str(value).replace(" ", "")


def _function(operator, db):
    """A plain function of tensors, which torch.compile can trace into: all it does is call the operator."""
    order = tuple(operator.operands)
    written = _written(operator)
    overload = getattr(torch.ops.kgen, operator.name).default

    def call(*tensors, **keywords):
        names, operands, names_written, operands_written, options = [], [], [], [], []
        given = [(name, tensor) for name, tensor in zip(order, tensors)]
        for name, value in given + list(keywords.items()):
            if value is None:
                continue
            if isinstance(value, torch.Tensor):
                if name in written:
                    names_written.append(name)
                    operands_written.append(value)
                else:
                    names.append(name)
                    operands.append(value)
            else:
                options.append(name + "=" + _text(value))
        if written:
            return overload(operands, operands_written, names + names_written, options, db)
        results = overload(operands, names, options, db)
        return results[0] if len(results) == 1 else tuple(results)

    call.__name__ = operator.name
    call.__doc__ = operator.__doc__
    return call


def convolution_options(stride, pad, dil, groups):
    """conv2d's dims from torch's arguments, in the short form (stride, not stride_h and stride_w) where both are one."""
    options = {"groups": groups} if groups != 1 else {}
    for name, value in (("stride", stride), ("pad", pad), ("dil", dil)):
        high, wide = value if isinstance(value, (list, tuple)) else (value, value)
        options.update({name: high} if high == wide else {name + "_h": high, name + "_w": wide})
    return options


class Ops:
    """The operators of a DB as functions of torch tensors that torch.compile keeps in its graph: ops.gemm(a, b).
    `db` is the kgen.Database."""

    def __init__(self, db, number):
        self.db, self.number = db, number
        for name in db.operators:
            setattr(self, name, _function(db.op(name), number))

    def __repr__(self):
        return f"<kgen.torch.Ops of {self.db!r}>"

    def __deepcopy__(self, _):  # of a model that calls them
        return self

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            self.db.op(name)
        except KgenError as error:
            raise AttributeError(str(error)) from None
        raise AttributeError(name)


def load(db, device="auto", **goal):
    """Registers every operator of a tuned DB (a path, or an open kgen.Database) with PyTorch and gives them as Ops."""
    if not isinstance(db, Database):
        db = open_database(db, device, **goal)
    with _lock:
        for name in db.operators:
            if name not in _defined:
                _define(db.op(name))
                _defined.add(name)
        if db not in _databases:
            _databases.append(db)
        return Ops(db, _databases.index(db))
