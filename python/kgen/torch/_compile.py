"""torch.compile(model, backend="kgen", options={"db": "tuned.db"}): kgen's operators within a compiled graph.

The graph is dynamo's, before any decomposition: a linear layer is one node there, whatever torch's version, and what is left
of the graph goes to another back end (inductor) as it came, with kgen's operators in it. In order:
  1. batch norms are folded into the convolution or linear layer before them;
  2. blocks: dilated branches of one weight, the tail of a G2L block, hyper-connections;
  3. products, each with as much behind it as the DB has an epilogue for; attention, norms, softmax.
What is computed from parameters (folded and permuted weights) is an input of the new graph, made once for each set of
parameters that the graph is called with.
"""
import collections
import functools
import json
import logging
import os
import warnings

import torch

from .._library import BadArgument
from . import _problems as problems
from ._blocks import Blocks
from ._graph import Compiled, Graph, copied, example_of, value_of
from ._hyper_calls import HyperConnections
from ._ops import Ops, load
from ._patterns import fold_batch_norms
from ._report import Report, check_accept
from ._rewrite import Products

log = logging.getLogger("kgen")

_OPTIONS = {"db": "a path, an open kgen.Database or kgen.torch.Ops", "device": "of a path", "backend": "for the rest",
            "mode": "of inductor", "options": "of inductor", "accept": "exact, near or default",
            "report": "a list to which a Report is added for each graph", "skip": "operators of the DB to leave alone"}


class Rewriter(Products, Blocks, HyperConnections):
    """Puts kgen's operators into a graph."""

    def run(self):
        self.hyper_connections()
        self.dilations()
        for node in list(self.graph.graph.nodes):
            self.hyper(node)
        for pass_ in (self.attention, self.norms, self.linear, self.matmul, self.convolution, self.softmax):
            for node in list(self.graph.graph.nodes):
                if node.op in ("call_function", "call_method") and value_of(node) is not None \
                        and not getattr(node, "_erased", False) and node not in self.graph.claimed:
                    pass_(node)


@functools.lru_cache(maxsize=None)
def _loaded(path, device):
    return load(path, device)


def backend(module, examples, *, options=None, mode=None, **unknown):
    """torch.compile's back end. Options (torch.compile(…, options={…})):
      db: a path (else $KGEN_DB), an open kgen.Database or kgen.torch.Ops; device: of a path
      backend: what compiles the rest, "inductor" by default, "eager", or a function; mode, options: of inductor
      accept: "near"; "exact" leaves what was not tuned for its very shape, "default" takes the operators' default kernels too
      skip: operators of the DB to leave alone
      report: a list, to which a Report is added for each graph (they are logged to "kgen" as well)"""
    options = dict(options or {}, **({"mode": mode} if mode else {}), **unknown)
    for name in options:
        if name not in _OPTIONS:
            raise BadArgument(f"the kgen back end has no option '{name}' (" + ", ".join(_OPTIONS) + ")")
    db = options.get("db") or os.environ.get("KGEN_DB")
    if db is None:
        raise BadArgument("torch.compile(backend=\"kgen\") needs a DB: options={\"db\": \"tuned.db\"}, or KGEN_DB")
    ops = db if isinstance(db, Ops) else load(db) if not isinstance(db, (str, os.PathLike)) \
        else _loaded(os.fspath(db), options.get("device", "auto"))
    accept = check_accept(options.get("accept", "near"))
    report = Report()
    graph = None
    if torch.is_grad_enabled() and any(isinstance(item, torch.Tensor) and item.requires_grad for item in examples):
        report.add("graph", "none", reason="gradients are wanted, which kgen's operators do not have: use torch.no_grad()")
    else:
        try:
            graph = rewrite(module, examples, ops, report, accept, options.get("skip", ()))
        except Exception as error:  # a graph of a kind that this does not know is compiled as if kgen were not there
            warnings.warn(f"kgen leaves a graph alone: {type(error).__name__}: {error}")
            log.warning("a graph is left alone", exc_info=True)
            report[:] = []
            report.add("graph", "none", reason=f"{type(error).__name__}: {error}")
    log.info("%s", report)
    if options.get("report") is not None:
        options["report"].append(report)
    inner = _rest(options)
    if graph is None:
        return inner(module, examples)
    if not graph.derived:
        return inner(graph.module, examples)
    return Compiled(inner(graph.module, [*examples, *(example_of(derived.node) for derived in graph.derived)]), graph)


def rewrite(module, examples, ops, report, accept="near", skip=()):
    """A copy of a graph of dynamo with kgen's operators in it. What it computes from parameters are further inputs."""
    module = copied(module)
    graph = Graph(module, examples)
    fold_batch_norms(graph)
    rewriter = Rewriter(graph, ops, report, accept, skip)
    rewriter.run()
    graph.wishes = rewriter.wishes
    for derived in list(graph.derived):
        if not derived.node.users and not any(derived.node in other.sources for other in graph.derived):
            graph.derived.remove(derived)
            graph.graph.erase_node(derived.node)
    graph.graph.lint()
    module.recompile()
    return graph


def problems_of(model, *inputs, path=None, **keywords):
    """The problems that the back end "kgen" could have kernels for in this model, with all that it would fuse, as a list of
    (entry, dims, count). `path`: also writes them as an ops.yaml for `kgen tune`."""
    found = collections.OrderedDict()

    def collect(module, examples):
        for entry, dims in rewrite(module, examples, None, Report()).wishes:
            key = json.dumps([entry, dims], sort_keys=True)
            found[key] = entry, dims, (found[key][2] if key in found else 0) + 1
        return module.forward

    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(model, backend=collect, dynamic=False)(*inputs, **keywords)
    torch._dynamo.reset()
    if path is not None:
        problems.write(path, ((entry, dims, f"{count} calls") for entry, dims, count in found.values()),
                       "From kgen.torch.problems")
    return list(found.values())


def _rest(options):
    chosen = options.get("backend", "inductor")
    compile_rest = torch._dynamo.lookup_backend(chosen) if isinstance(chosen, str) else chosen
    if chosen != "inductor":
        return compile_rest
    patches = {**(torch._inductor.list_mode_options(options["mode"]) if options.get("mode") else {}),
               **(options.get("options") or {})}
    return functools.partial(compile_rest, config_patches=patches) if patches else compile_rest


def register():
    """Makes "kgen" known to torch.compile."""
    from torch._dynamo.backends import registry
    from .._torch_backend import compile_graph
    if "kgen" not in registry._COMPILER_FNS:
        torch._dynamo.register_backend(compile_graph, name="kgen")
