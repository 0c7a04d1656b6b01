"""kgen's kernels as PyTorch operators.

    import kgen.torch
    ops = kgen.torch.load("tuned.db")
    y = ops.gemm(x, weight, bias=bias, activation="silu")    # within torch.compile(fullgraph=True) and CUDA graphs too

    print(kgen.torch.trace(model, x, path="ops.yaml"))       # what is slow, and the ops.yaml that would tune it
    print(kgen.torch.optimize(model, "tuned.db", x))         # replaces the modules that the DB serves
"""
from ._ops import Ops, load
from ._optimize import Report, optimize, scaled_dot_product_attention
from ._trace import Trace, trace

__all__ = ["load", "Ops", "optimize", "Report", "trace", "Trace", "scaled_dot_product_attention"]
