"""kgen's kernels as PyTorch operators.

    import kgen.torch
    ops = kgen.torch.load("tuned.db")
    y = ops.gemm(x, weight, bias=bias, activation="silu")    # within torch.compile(fullgraph=True) and CUDA graphs too
"""
from ._ops import Ops, load

__all__ = ["load", "Ops"]
