"""kgen's kernels as PyTorch operators.

    import kgen.torch
    ops = kgen.torch.load("tuned.db")
    y = ops.gemm(x, weight, bias=bias, activation="silu")    # within torch.compile(fullgraph=True) and CUDA graphs too

    print(kgen.torch.trace(model, x, path="ops.yaml"))       # what is slow, and the ops.yaml that would tune it
    print(kgen.torch.optimize(model, "tuned.db", x))         # replaces the modules that the DB serves
    kgen.torch.problems(model, x, path="ops.yaml")           # what the back end below could use, with all that it would fuse
    fast = torch.compile(model, backend="kgen", options={"db": "tuned.db"})      # within the compiled graph
"""
from ._compile import backend, problems_of as problems, register as _register
from ._ops import Ops, load
from ._optimize import optimize, scaled_dot_product_attention
from ._report import Report
from ._trace import Trace, trace

_register()

__all__ = ["load", "Ops", "backend", "problems", "optimize", "Report", "trace", "Trace", "scaled_dot_product_attention"]
