"""kgen: tuned kernels from a database, on tensors of any framework.

    import kgen
    db = kgen.open("tuned.db")
    y = db.gemm(x, weight, bias=bias, activation="silu")     # torch, numpy, cupy, jax … tensors; the current stream
    print(db.find("gemm", x, weight, bias=bias, activation="silu"))
"""
from ._database import Database, open
from ._library import (BadArgument, BadDatabase, DeviceError, KgenError, LibraryNotFound, Misaligned, NoDevice, NotFound,
                       OutOfMemory, Refused, load as _load)
from ._operator import Match, Operator
from ._tensor import Tensor, bf16

__version__ = "0.1.0"
__all__ = ["open", "Database", "Operator", "Match", "Tensor", "bf16", "library_version", "KgenError", "NotFound",
           "BadArgument", "BadDatabase", "NoDevice", "Refused", "Misaligned", "DeviceError", "OutOfMemory",
           "LibraryNotFound"]


def library_version():
    """The version of the libkgen that is used."""
    return _load().kgen_version().decode()
