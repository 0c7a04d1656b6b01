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
import operator as python
import os
import re

import torch
import torch.nn.functional as F

from .. import _tensor
from .._epilogue import ACTIVATIONS, longest_first
from .._library import BadArgument, KgenError, NotFound
from . import _problems as problems
from ._fold import folded_bias, folded_weight
from ._ops import Ops, convolution_options, load
from ._report import Report

log = logging.getLogger("kgen")

_OPTIONS = {"db": "a path, an open kgen.Database or kgen.torch.Ops", "device": "of a path", "backend": "for the rest",
            "mode": "of inductor", "options": "of inductor", "only_exact": "leaves what was not tuned for its very shape",
            "report": "a list to which a Report is added for each graph", "skip": "operators of the DB to leave alone"}

# One name for each function that is looked for, and the names of its arguments.
_FUNCTIONS = {
    "linear": (F.linear,), "conv1d": (torch.conv1d,), "conv2d": (torch.conv2d,), "conv3d": (torch.conv3d,),
    "batch_norm": (F.batch_norm, torch.batch_norm), "layer_norm": (F.layer_norm,), "rms_norm": (F.rms_norm, torch.rms_norm),
    "attention": (F.scaled_dot_product_attention,), "softmax": (F.softmax, torch.softmax, "softmax"),
    "matmul": (python.matmul, torch.matmul, torch.mm, torch.bmm, "matmul", "mm", "bmm"),
    "add": (python.add, python.iadd, torch.add, "add", "add_"), "mul": (python.mul, python.imul, torch.mul, "mul", "mul_"),
    "relu": (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), "gelu": (F.gelu,),
    "silu": (F.silu, "silu"), "sigmoid": (torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"),
    "pow": (torch.pow, python.pow, "pow"), "mean": (torch.mean, "mean"), "rsqrt": (torch.rsqrt, "rsqrt"),
    "to": ("to",), "float": ("float",), "type_as": ("type_as",), "half": ("half",), "bfloat16": ("bfloat16",),
    "t": (torch.t, "t"), "transpose": (torch.transpose, "transpose"), "cat": (torch.cat, torch.concat),
    "getitem": (python.getitem,), "le": (python.le, torch.le), "lt": (python.lt, torch.lt), "gt": (python.gt,),
    "ge": (python.ge,), "expand": ("expand",), "reshape": (torch.reshape, "reshape", "view"),
    "unsqueeze": (torch.unsqueeze, "unsqueeze"), "arange": (torch.arange,),
    "repeat_interleave": (torch.repeat_interleave, "repeat_interleave"),
}
_NAMES = {function: name for name, functions in _FUNCTIONS.items() for function in functions}
_convolution = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_ARGUMENTS = {
    "linear": ("input", "weight", "bias"), "conv1d": _convolution, "conv2d": _convolution, "conv3d": _convolution,
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "attention": ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
    "softmax": ("input", "dim", "stacklevel", "dtype"), "matmul": ("input", "other"), "add": ("input", "other", "alpha"),
    "mul": ("input", "other"), "gelu": ("input", "approximate"), "mean": ("input", "dim", "keepdim"),
    "pow": ("input", "exponent"), "cat": ("tensors", "dim"), "transpose": ("input", "dim0", "dim1"),
}
_BIND = {"training": False, "momentum": 0.1, "eps": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "dim": 0,
         "dropout_p": 0.0, "is_causal": False, "enable_gqa": False, "approximate": "none", "alpha": 1, "keepdim": False}
_CASTS = ("to", "float", "type_as", "half", "bfloat16")
_VIEWS = {"view", "reshape", "transpose", "permute", "t", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "chunk",
          "split", "unbind", "narrow", "select", "detach", "contiguous", "getitem", "view_as", "expand_as", "mT", "T"}


def _name(node):
    return _NAMES.get(node.target) if isinstance(node, torch.fx.Node) and node.op in ("call_function", "call_method") else None


def _bound(node):
    """The arguments of a node of _ARGUMENTS by name, with their defaults."""
    names = _ARGUMENTS[_name(node)]
    bound = {name: _BIND.get(name) for name in names}
    bound.update(zip(names, node.args))
    bound.update(node.kwargs)
    if node.op == "call_method" and "self" in bound:
        bound["input"] = bound.pop("self")
    return bound


def _value(node):
    """The fake tensor that a node stands for, or None."""
    if isinstance(node, _Seen):
        return node.value
    if not isinstance(node, torch.fx.Node):
        return None
    value = node.meta.get("example_value")
    return value if isinstance(value, torch.Tensor) else None


def _hint(size):
    """A size as a number; that of the example where it is a symbol. Asking a symbol itself would fix it."""
    return size if isinstance(size, int) else int(size.node.hint)


def _shape(value):
    return tuple(_hint(size) for size in value.shape)


def _pair(value, count=2):
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * count


def _is_nhwc(value):
    shape, strides = _shape(value), tuple(_hint(size) for size in value.stride())
    _, c, h, w = shape
    return strides[1] == 1 and (c > 1 or h * w == 1) and (w == 1 or strides[3] >= c)


def _is_inplace(node):
    if node.op == "call_method":
        return node.target.endswith("_") and not node.target.endswith("__")
    if node.op != "call_function":
        return False
    if node.target in (python.iadd, python.imul, python.isub, python.itruediv, python.setitem, F.relu_, torch.relu_):
        return True
    return node.kwargs.get("inplace") is True or node.kwargs.get("out") is not None \
        or (_name(node) == "batch_norm" and _bound(node)["training"])


class _Derived:
    """A tensor that is computed from parameters."""

    def __init__(self, node, function, sources):
        self.node, self.function, self.sources = node, function, sources


class _Graph:
    """The graph that is changed: what its inputs are, what is written, and what is computed from parameters alone."""

    def __init__(self, module, examples):
        self.module, self.graph, self.examples = module, module.graph, examples
        self.placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.inputs = {node: index for index, node in enumerate(self.placeholders)}
        self.derived, self._by_key = [], {}
        self.claimed = set()  # by a problem that is only wished for
        self.order = {node: index for index, node in enumerate(self.graph.nodes)}
        self.writes = collections.defaultdict(list)  # root → places where its memory is written
        for node in self.graph.nodes:
            if _is_inplace(node):
                self.writes[self.root(node.args[0] if node.args else node.kwargs.get("input"))].append(self.order[node])
        self.static = {node for node, example in zip(self.placeholders, examples)
                       if self._is_parameter(node, example) and not self.writes.get(node)}

    @staticmethod
    def _is_parameter(node, example):
        if not isinstance(example, torch.Tensor) or _value(node) is None:
            return False
        if isinstance(example, torch.nn.Parameter):
            return True
        return bool((node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type"))

    def root(self, node):
        """Whose memory a node shows."""
        node = node.node if isinstance(node, _Seen) else node
        while isinstance(node, torch.fx.Node) and node.op in ("call_function", "call_method"):
            target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
            if not (_is_inplace(node) or target in _VIEWS):
                break
            node = node.args[0] if node.args else node.kwargs.get("input")
        return node

    def unwritten(self, node, since, until):
        """Whether the memory of `node` stays as it is from one node to another."""
        first, last = self.order[since], self.order[until]
        return not any(first < place <= last for place in self.writes.get(self.root(node), ()))

    def is_static(self, *nodes):
        return all(node in self.static for node in nodes if not isinstance(node, _Seen)) \
            and not any(isinstance(node, _Seen) for node in nodes)

    def derive(self, key, function, *sources):
        """The node of function(*sources), which are parameters or None; one for each key."""
        key = (key, sources)
        node = self._by_key.get(key)
        if node is not None:
            return node
        values = [None if source is None else _value(source) for source in sources]
        with torch.no_grad(), values[0].fake_mode:
            value = function(*values)
        last = next(node for node in reversed(self.graph.nodes) if node.op == "placeholder")
        with self.graph.inserting_after(last):
            node = self.graph.placeholder(f"kgen_derived_{len(self.derived)}")
        node.meta.update(example_value=value, tensor_dict={"_dynamo_static_input_type": "unguarded"})
        node._dynamo_source = torch._dynamo.source.LocalSource(node.name)
        self.order[node] = self.order[last]
        self.static.add(node)
        self.derived.append(_Derived(node, function, sources))
        self._by_key[key] = node
        return node

    def replace(self, nodes, new):
        """`new` stands for the last of `nodes`; those that nobody uses any more are erased."""
        last = nodes[-1]
        new.meta.update({key: last.meta[key] for key in ("nn_module_stack", "stack_trace", "source_fn_stack") if key in last.meta})
        new.meta["example_value"] = last.meta["example_value"]
        self.order[new] = self.order[last]
        last.replace_all_uses_with(new)
        self.erase(nodes)

    def erase(self, nodes):
        for node in sorted(nodes, key=self.order.__getitem__, reverse=True):
            if not node.users:
                self.graph.erase_node(node)

    def call(self, function, *arguments, value=None):
        node = self.graph.call_method(function, arguments) if isinstance(function, str) \
            else self.graph.call_function(function, arguments)
        if value is not None:
            node.meta["example_value"] = value
        return node


class _Compiled:
    """The compiled graph behind what is computed from parameters, once for each set of them."""

    def __init__(self, inner, graph):
        self.inner, self.derived = inner, graph.derived
        self.places = {derived.node: index for index, derived in enumerate(graph.derived)}
        self.inputs = dict(graph.inputs)
        self.sources = sorted({graph.inputs[source] for derived in graph.derived for source in derived.sources
                               if source in graph.inputs})
        self.sets = {}

    def __call__(self, *args):
        sources = [args[index] for index in self.sources]
        kept = self.sets.get(tuple(map(id, sources)))
        versions = [_version(source) for source in sources]
        if kept is None or kept[0] != versions:
            kept = self._make(args, sources, versions)
        return self.inner(*args, *kept[1])

    def _make(self, args, sources, versions):
        if sources and sources[0].is_cuda and torch.cuda.is_current_stream_capturing():
            raise BadArgument("weights are folded and permuted in the first call: call the compiled model once before its "
                              "graph is captured")
        values = []
        with torch.no_grad():
            for derived in self.derived:
                values.append(derived.function(*(None if source is None else values[self.places[source]]
                                                 if source in self.places else args[self.inputs[source]]
                                                 for source in derived.sources)))
        kept = self.sets[tuple(map(id, sources))] = versions, values, sources
        return kept


def _version(tensor):
    return None if tensor.is_inference() else tensor._version


# ---- 1. batch norm

def _fold_batch_norms(graph):
    for node in list(graph.graph.nodes):
        if _name(node) != "batch_norm":
            continue
        norm = _bound(node)
        product = norm["input"]
        if norm["training"] or norm["running_mean"] is None or _name(product) not in ("linear", "conv1d", "conv2d", "conv3d"):
            continue
        bound = _bound(product)
        sources = [bound["weight"], norm["weight"], norm["running_var"], bound["bias"], norm["running_mean"], norm["bias"]]
        if len(product.users) != 1 or not graph.is_static(*(source for source in sources if source is not None)) \
                or _value(product) is None or (_name(product) == "linear" and _value(product).dim() != 2):
            continue
        eps = 1e-5 if norm["eps"] is None else norm["eps"]
        bound["weight"] = graph.derive(("fold weight", eps), functools.partial(folded_weight, eps), *sources[:3])
        bound["bias"] = graph.derive(("fold bias", eps), functools.partial(folded_bias, eps), *sources)
        product.args = tuple(bound[name] for name in _ARGUMENTS[_name(product)])
        product.kwargs = {}
        node.replace_all_uses_with(product)
        graph.graph.erase_node(node)


# ---- matching

def _strip_casts(node):
    while _name(node) in _CASTS and _value(node) is not None and node.args \
            and isinstance(node.args[0], torch.fx.Node) and _value(node.args[0]) is not None:
        node = node.args[0]
    return node


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _next_step(graph, node):
    """(step, other operand, nodes) of what alone follows a product's value, or None."""
    users = list(node.users)
    value = _value(node)
    if value is None or any(user in graph.claimed for user in users):
        return None
    if len(users) == 2:  # x*sigmoid(x), x*sigmoid(1.702*x)
        for product in users:
            if _name(product) != "mul":
                continue
            bound = _bound(product)
            gate = bound["other"] if bound["input"] is node else bound["input"]
            if _name(gate) == "sigmoid" and len(gate.users) == 1 and _value(product).dtype == value.dtype:
                inner = gate.args[0]
                if inner is node:
                    return "silu", None, [gate, product]
                if _name(inner) == "mul" and len(inner.users) == 1 and inner in users:
                    factors = _bound(inner)
                    number = factors["other"] if factors["input"] is node else factors["input"]
                    if _is_number(number) and abs(number - 1.702) < 1e-6:
                        return "quick_gelu", None, [inner, gate, product]
        return None
    if len(users) != 1:
        return None
    user = users[0]
    name, made = _name(user), _value(user)
    if name is None or made is None or made.dtype != value.dtype:
        return None
    if name in ("relu", "silu", "sigmoid") and (user.args and user.args[0] is node or user.kwargs.get("input") is node):
        return name, None, [user]
    if name == "gelu":
        return {"none": "gelu_erf", "tanh": "gelu_tanh"}[_bound(user)["approximate"]], None, [user]
    if name in ("add", "mul"):
        bound = _bound(user)
        left, right = bound["input"], bound["other"]
        other = right if left is node else left
        if bound.get("alpha", 1) != 1 or other is node or _value(other) is None or _value(other).dtype != value.dtype \
                or (_is_inplace(user) and left is not node):
            return None
        if name == "add" and _value(other).dim() == 1 and _shape(other.meta["example_value"]) == _shape(value)[-1:] \
                and graph.is_static(other):
            return "bias", other, [user]
        if tuple(_shape(_value(other))) == tuple(_shape(value)):
            return name, other, [user]
    return None


def _chain(graph, node):
    """What follows a node's value, step by step: [(step, operand, nodes)]."""
    steps = []
    last = node
    while len(steps) < 6:
        step = _next_step(graph, last)
        if step is None:
            return steps
        steps.append(step)
        last = step[2][-1]
    return steps


def _rms_norm(graph, node):
    """(x, weight, eps, nodes) of a root-mean-square norm that ends here: torch's own or spelled out."""
    name = _name(node)
    if name == "rms_norm":
        bound = _bound(node)
        if len(bound["normalized_shape"]) != 1 or bound["weight"] is None:
            return None
        eps = bound["eps"] if bound["eps"] is not None else torch.finfo(_value(bound["input"]).dtype).eps
        return bound["input"], bound["weight"], float(eps), [node]
    if name != "mul" or _value(node) is None:
        return None
    bound = _bound(node)
    for weight, rest in ((bound["input"], bound["other"]), (bound["other"], bound["input"])):
        if not graph.is_static(weight) or _value(weight).dim() != 1:
            continue
        nodes = [node]
        while _name(rest) in _CASTS:
            nodes.append(rest)
            rest = rest.args[0]
        if _name(rest) != "mul":
            continue
        nodes.append(rest)
        inner = _bound(rest)
        for x, scale in ((inner["input"], inner["other"]), (inner["other"], inner["input"])):
            if _name(scale) != "rsqrt":
                continue
            total = scale.args[0] if scale.args else scale.kwargs.get("input")
            if _name(total) != "add" or not _is_number(_bound(total)["other"]):
                continue
            mean = _bound(total)["input"]
            if _name(mean) != "mean" or _bound(mean)["dim"] not in (-1, [-1], (-1,)) or not _bound(mean)["keepdim"]:
                continue
            square = _bound(mean)["input"]
            if _name(square) == "pow" and _bound(square)["exponent"] == 2:
                squared = _bound(square)["input"]
            elif _name(square) == "mul" and _bound(square)["input"] is _bound(square)["other"]:
                squared = _bound(square)["input"]
            else:
                continue
            if squared is not x:
                continue
            nodes += [scale, total, mean, square]
            while _name(x) in _CASTS:
                nodes.append(x)
                x = x.args[0]
            if _value(x) is None or _value(x).dtype != _value(node).dtype or _shape(_value(x)) != _shape(_value(node)):
                continue
            return x, weight, float(_bound(total)["other"]), nodes
    return None


def _ungrouped(node):
    """A tensor of keys or values before its heads were repeated for the queries that share them, the nodes between."""
    nodes = []
    if _name(node) == "repeat_interleave" and (node.args[2:3] == (1,) or node.kwargs.get("dim") in (1, -3)):
        return node.args[0], [node]
    if _name(node) == "reshape" and _name(node.args[0]) == "expand":
        wide = node.args[0]
        source = wide.args[0]
        if _value(wide) is not None and _value(wide).dim() == 5 and _name(source) in ("getitem", "unsqueeze") \
                and _value(source) is not None and _shape(_value(source))[2] == 1:
            base = source.args[0]
            if _value(base) is not None and _value(base).dim() == 4 \
                    and _shape(_value(base))[:2] + _shape(_value(base))[2:] == _shape(_value(source))[:2] + _shape(_value(source))[3:] \
                    and _shape(_value(node))[2:] == _shape(_value(base))[2:]:
                return base, [node, wide, source]
    return node, nodes


# ---- 3. calls

class _Rewriter:
    def __init__(self, graph, ops, report, only_exact=False, skip=()):
        self.graph, self.ops, self.report, self.only_exact, self.skip = graph, ops, report, only_exact, skip
        self.wishes = []

    def has(self, op):
        return (self.ops is None or op in self.ops.db.operators) and op not in self.skip

    def match(self, op, operands, options, dtype=None):
        """The Match of a call with these operands, by the shapes of the example; KgenError where there is none."""
        views = {}
        for name, operand in operands.items():
            value = _value(operand)
            kind = dtype if dtype is not None and value.is_floating_point() else value.dtype
            views[name] = _tensor.View(0, _tensor.torch_dtype(kind), _shape(value), tuple(_hint(size) for size in value.stride()),
                                       value.device.type, value.device.index or 0, "torch")
        if self.ops is None or not self.has(op):
            raise NotFound(f"{self.ops.db.path if self.ops is not None else 'no DB'} has no {op}")
        return self.ops.db.op(op).match_views(views, options)

    def emit(self, op, operands, options, match):
        """The operator's node where the graph inserts now."""
        graph = self.graph
        if match.weights and all(graph.is_static(operands[name]) for name in match.weights if name in operands):
            options = {**options, "frozen": 1}
        nodes = [self.realize(operand) for operand in operands.values()]
        words = [f"{name}={value}" for name, value in options.items()]
        return graph.graph.call_function(getattr(torch.ops.kgen, op).default, (nodes, list(operands), words, self.ops.number))

    def realize(self, operand):
        node = operand
        if isinstance(operand, _Seen):
            node = operand.node
            for method, arguments, keywords in operand.calls:
                node = self.graph.graph.call_method(method, (node, *arguments), keywords)
        return node

    def first(self, node):
        return self.graph.graph.call_function(python.getitem, (node, 0))

    def best(self, tries):
        """(match, try) of the first try that was tuned for its very shape, else of the first that is served at all; or
        (None, reason). A try begins with match's arguments."""
        reason, first = "", None
        for item in tries:
            try:
                match = self.match(*item[0])
            except (KgenError, ValueError) as error:
                reason = reason or str(error)
                continue
            if match.kind == "exact":
                return match, item
            first = first or (match, item)
        if first is None:
            return None, reason
        return (None, first[0].reason) if self.only_exact else first

    def wish(self, problem, epilogue=None, dtype=None, nodes=()):
        """Remembers a problem that a DB should have, and without a DB what it is for."""
        if problem is None:
            return
        if self.ops is None:
            self.graph.claimed.update(nodes)
        entry, dims = problem
        entry = dict(entry)
        if dtype is not None:
            entry["dtype"] = _tensor.torch_dtype(dtype)
        if epilogue is not None:
            entry["epilogue"] = epilogue
        self.wishes.append((entry, dims))

    def product(self, node, forms, dtype=None):
        """A product and the longest chain behind it that the DB has, in one of its forms."""
        graph = self.graph
        steps = _chain(graph, node)
        tries, missing = [], None
        for form in forms:
            fixed = 0 if form.bias is None else 1
            wished = False
            for count, epilogue in longest_first(["bias"] * fixed + [step for step, _, _ in steps], fixed):
                taken = steps[:count - fixed]
                last = taken[-1][2][-1] if taken else node
                given = {**form.operands, **({} if form.bias is None else {"bias": form.bias})}
                fine = all(graph.unwritten(operand, node, last) for operand in given.values())
                for step, operand, nodes in taken:
                    if operand is not None:
                        fine = fine and graph.unwritten(operand, nodes[-1], last)
                        given[_OPERAND[step]] = operand if step == "bias" else form.see(operand)
                if not fine or any(operand is None for operand in given.values()):
                    continue
                if not wished and form is forms[0]:
                    self.wish(form.problem, epilogue, dtype, [node, *(item for _, _, nodes in taken for item in nodes)])
                wished = True
                if self.has(form.op):
                    tries.append(((form.op, given, {**form.options, "epilogue": ",".join(epilogue)}, dtype), taken, form.back))
                else:
                    missing = f"{self.ops.db.path if self.ops else 'there'} has no {form.op}"
        match, found = self.best(tries)
        if match is None:
            self.report.add(_path(node), forms[-1].op if forms else "?", reason=found or missing or "it lies in no order that kernels take")
            return
        (op, given, options, _), taken, back = found
        last = taken[-1][2][-1] if taken else node
        with graph.graph.inserting_before(last):
            new = back(self.first(self.emit(op, given, options, match)))
        path = _path(node)
        graph.replace([node, *(item for _, _, nodes in taken for item in nodes)], new)
        self.report.add(path, f"{op}[{options['epilogue']}]", match)

    def single(self, nodes, op, operands, options, problem, back=lambda new: new):
        """One operator for `nodes`, of which the last gives the value."""
        last = nodes[-1]
        first = min(nodes, key=self.graph.order.__getitem__)
        if not all(self.graph.unwritten(operand, first, last) for operand in operands.values()):
            return False
        self.wish(problem, nodes=nodes)
        match, found = self.best([((op, operands, options),)])
        if match is None:
            self.report.add(_path(last), op, reason=found)
            return self.ops is None
        path = _path(last)
        with self.graph.graph.inserting_before(last):
            new = back(self.first(self.emit(op, operands, options, match)))
        self.graph.replace(nodes, new)
        self.report.add(path, op, match)
        return True

    # ---- which nodes

    def run(self):
        self.dilations()
        for node in list(self.graph.graph.nodes):
            self.hyper(node)
        for pass_ in (self.attention, self.norms, self.linear, self.matmul, self.convolution, self.softmax):
            for node in list(self.graph.graph.nodes):
                if node.op in ("call_function", "call_method") and _value(node) is not None \
                        and not getattr(node, "_erased", False) and node not in self.graph.claimed:
                    pass_(node)

    def hyper(self, node):
        """kgen's own mhc_pre with the mhc_post before it, and with the norm of what it gives: one operator."""
        graph = self.graph
        pre = self.call_of(node, "mhc_pre")
        if pre is None:
            return
        operands, options = pre
        outputs = {user.args[1]: user for user in node.users if _name(user) == "getitem"}
        if len(outputs) != len(node.users):
            return
        post_node = operands["residual"].args[0] if _name(operands["residual"]) == "getitem" else None
        post = self.call_of(post_node, "mhc_post")
        behind = next(iter(outputs[2].users)) if 2 in outputs and len(outputs[2].users) == 1 else None
        norm = _rms_norm(graph, behind) if behind is not None and _name(behind) == "rms_norm" and "norm_weight" not in operands else None
        streams = operands["residual"]
        if post is not None and (any(graph.order[user] < graph.order[node] for user in streams.users) or len(post_node.users) != 1
                                 or post[1].get("n") != options.get("n")
                                 or not all(graph.unwritten(operand, post_node, node) for operand in post[0].values())):
            post = None
        more = {"norm_weight": norm[1]} if norm is not None and _value(norm[1]) is not None else {}
        normed = {**options, "norm": "round_first", "norm_eps": norm[2]} if more else {}
        mine = {name: operand for name, operand in operands.items() if name != "residual"}
        tries = [(("mhc_fused_post_pre", {**post[0], **mine, **more}, normed), more, 1)] if post and more else []
        tries += [(("mhc_fused_post_pre", {**post[0], **mine}, options), {}, 1)] if post else []
        tries += [(("mhc_pre", {**operands, **more}, normed), more, 0)] if more else []
        match, found = self.best(tries) if tries else (None, "")
        if match is None:
            if tries:
                self.report.add(_path(node), "mhc_fused_post_pre", reason=found)
            return
        (op, given, chosen), with_norm, first = found
        path = _path(node)
        with graph.graph.inserting_before(node):
            new = self.emit(op, given, chosen, match)
            made = {index: graph.call(python.getitem, new, index) for index in range(3 + first)}
        graph.order.update(dict.fromkeys([new, *made.values()], graph.order[node]))
        for index, output in outputs.items():
            chain = [output, behind] if index == 2 and with_norm else [output]
            graph.replace(chain, made[index + first])
        if first:
            made[0].meta["example_value"] = streams.meta["example_value"]
            streams.replace_all_uses_with(made[0], delete_user_cb=lambda user: user is not node)
        graph.erase([node, *([streams, post_node] if first else [])])
        for item in made.values():
            if not item.users:
                graph.graph.erase_node(item)
        self.report.add(path, op + (" with its norm" if with_norm else ""), match)

    def call_of(self, node, op):
        """(operands by name, options) of one of kgen's own operators of this file, or None."""
        if self.ops is None or not isinstance(node, torch.fx.Node) or not self.has(op) \
                or node.target is not getattr(torch.ops.kgen, op).default or node.args[3] != self.ops.number:
            return None
        operands, names, options, _ = node.args
        return dict(zip(names, operands)), {name: value for name, _, value in (item.partition("=") for item in options)
                                            if name != "frozen"}

    def dilations(self):
        """Convolutions of one image with one weight at several dilations, and the G2L block that they may begin."""
        groups = collections.defaultdict(list)
        for node in self.graph.graph.nodes:
            if _name(node) == "conv2d" and _value(node) is not None:
                bound = _bound(node)
                taps = _shape(_value(bound["weight"]))[2:]
                dil = _pair(bound["dilation"])
                if bound["groups"] == 1 and _pair(bound["stride"]) == (1, 1) and dil[0] == dil[1] \
                        and all(size % 2 for size in taps) and max(taps) > 1 \
                        and _pair(bound["padding"]) == tuple(dil[0] * (size // 2) for size in taps):
                    groups[bound["input"], bound["weight"], bound["bias"]].append((dil[0], node))
        for (x, weight, bias), branches in groups.items():
            if len({dil for dil, _ in branches}) < 2:
                continue
            nodes = [node for _, node in branches]
            if all(self.graph.unwritten(operand, nodes[0], nodes[-1]) for operand in (x, weight, bias) if operand is not None):
                self.branches(x, weight, bias, [dil for dil, _ in branches], nodes)

    def branches(self, x, weight, bias, dils, nodes):
        steps = [_next_step(self.graph, node) for node in nodes]
        kinds = {step[0] if step is not None else None for step in steps}
        act = kinds.pop() if len(kinds) == 1 else None
        if act not in ACTIVATIONS:
            act = None
        ends = [step[2][-1] if act is not None else node for node, step in zip(nodes, steps)]
        taken = [[node] if act is None else [node, *step[2]] for node, step in zip(nodes, steps)]
        epilogue = ",".join(["bias"] * (bias is not None) + [act] * (act is not None))
        tries = [(("multi_dilation_conv", {"x": seen(x), "weight": self.weight(weight, nhwc), **({"bias": bias} if bias else {})},
                   {"dils": ",".join(map(str, dils)), "layout": "nhwc" if nhwc else "nchw", "epilogue": epilogue}), nhwc)
                 for nhwc, seen, _ in self.layouts(_value(nodes[0]))]
        self.wish(problems.dilations(_value(x), _value(weight), dils, tries[0][0][2]["layout"]) if tries else None,
                  epilogue.split(",") if epilogue else [], nodes=[node for mine in taken for node in mine])
        match, found = self.best(tries) if tries else (None, "x lies in no order that it has")
        if match is None:
            self.report.add(_path(nodes[0]), "multi_dilation_conv", reason=found)
            if tries and tries[0][1]:
                self.tail(x, None, ends)  # for what it wishes
            return
        (op, operands, options), nhwc = found
        path = _path(nodes[0])
        with self.graph.graph.inserting_before(nodes[0]):
            whole = self.first(self.emit(op, operands, options, match))
        self.graph.order[whole] = self.graph.order[nodes[0]]
        k, (n, _, h, w) = _value(weight).shape[0], _value(nodes[0]).shape
        with _value(nodes[0]).fake_mode:
            whole.meta["example_value"] = _value(nodes[0]).new_empty((n, h, w, len(dils) * k) if nhwc else (n, len(dils) * k, h, w))
        self.report.add(path, f"{op}[{epilogue}]", match)
        if nhwc and self.tail(x, whole, ends):
            self.graph.erase([node for mine in taken for node in mine])
            return
        for index, (end, mine) in enumerate(zip(ends, taken)):
            seen = _Seen(whole, "narrow", 3 if nhwc else 1, index * k, k)
            seen = _Seen(seen, "permute", 0, 3, 1, 2) if nhwc else seen
            with self.graph.graph.inserting_before(end):
                new = self.realize(seen)
            self.graph.replace(mine, new)
            new.meta["example_value"] = seen.value

    def tail(self, x, whole, branches):
        """The rest of a G2L block, which DocLayout-YOLO has: a pointwise convolution of each branch with one weight, a gate on
        all their channels, a mix of three channels each, the shortcut."""
        graph, nodes, points = self.graph, [], []

        def alone(node, wanted):
            step = _next_step(graph, node)
            if step is None or step[0] != wanted:
                return None, None
            nodes.extend(step[2])
            return step[2][-1], step[1]

        def pointwise(node, groups):
            if _name(node) != "conv2d":
                return None
            bound = _bound(node)
            fine = _shape(_value(bound["weight"]))[2:] == (1, 1) and bound["groups"] == groups and _pair(bound["stride"]) == (1, 1) \
                and _pair(bound["padding"]) == (0, 0) and graph.is_static(bound["weight"])
            nodes.append(node)
            return bound if fine else None

        c = _shape(_value(x))[1]
        for branch in branches:
            user = next(iter(branch.users))
            point = pointwise(user, 1) if len(branch.users) == 1 else None
            end, _ = alone(user, "silu") if point is not None else (None, None)
            if end is None or len(end.users) != 1:
                return False
            points.append((point["weight"], point["bias"], end))
        cat = next(iter(points[0][2].users))
        if len(branches) != 3 or len({point[:2] for point in points}) != 1 or _name(cat) != "cat" \
                or list(_bound(cat)["tensors"]) != [point[2] for point in points] or _bound(cat)["dim"] not in (1, -3) \
                or len(cat.users) != 2:
            return False
        nodes.append(cat)
        gate_node = next((user for user in cat.users if _name(user) == "conv2d"), None)
        gate = pointwise(gate_node, 3 * c)
        end = gate_node
        for wanted in ("silu", "sigmoid", "mul"):
            end, other = alone(end, wanted) if end is not None and gate is not None else (None, None)
        if end is None or other is not cat or len(end.users) != 1:
            return False
        mix_node = next(iter(end.users))
        mix = pointwise(mix_node, c)
        end = mix_node
        for wanted in ("silu", "add"):
            end, other = alone(end, wanted) if end is not None and mix is not None else (None, None)
        if end is None or other is not x or gate["bias"] is None or mix["bias"] is None \
                or (whole is not None and not graph.unwritten(x, whole, end)):
            return False
        self.wish(problems.tail(_value(x), points[0][1] is not None), nodes=nodes)
        if whole is None:
            return False
        wp, bp, _ = points[0]
        operands = {"z": whole, "wp": graph.derive("matrix", _matrix, wp), **({"bp": bp} if bp is not None else {}),
                    "gate_a": graph.derive("row", _row, gate["weight"]), "gate_b": graph.derive("row", _row, gate["bias"]),
                    "wm": graph.derive("matrix", _matrix, mix["weight"]), "bm": mix["bias"], "x": _channels_last(x)}
        match, found = self.best([(("g2l_tail", operands, {} if bp is not None else {"bias": 0}),)])
        if match is None:
            self.report.add(_path(end), "g2l_tail", reason=found)
            return False
        path = _path(end)
        with graph.graph.inserting_before(end):
            new = self.first(self.emit(*found[0], match))
            new = graph.graph.call_method("permute", (new, 0, 3, 1, 2))
        graph.replace(sorted(nodes, key=graph.order.__getitem__), new)
        self.report.add(path, "g2l_tail", match)
        return True

    def linear(self, node):
        if _name(node) != "linear":
            return
        bound = _bound(node)
        x, weight, bias = bound["input"], bound["weight"], bound["bias"]
        if _value(x) is None or _value(weight) is None:
            return
        problem = problems.product(_value(x), _value(weight).t())
        forms = [_Form("gemm", {"a": x, "b": weight}, {}, bias, problem)]
        norm = _rms_norm(self.graph, x)
        if norm is not None and _rows(x) <= 16:
            source, gain, eps, _ = norm
            if bias is None and self.gated(node, x, source, gain, eps):
                return
            forms.insert(0, _Form("rmsnorm_gemm", {"a": source, "norm": gain, "b": weight}, {"eps": eps}, bias,
                                  problems.product(_value(source), _value(weight).t(), "rmsnorm_gemm")))
        self.product(node, forms, _value(node).dtype)

    def gated(self, node, x, source, gain, eps):
        """act(x.A)*(x.B) of one normalised row as one product with both weights, A above B."""
        graph = self.graph
        steps = _chain(graph, node)[:2]
        if [step in ACTIVATIONS or step for step, _, _ in steps] != [True, "mul"]:
            return False
        other, weight = steps[1][1], _bound(node)["weight"]
        if _name(other) != "linear" or len(other.users) != 1 or _bound(other)["input"] is not x or _bound(other)["bias"] is not None \
                or not graph.is_static(weight, _bound(other)["weight"]) or _shape(_value(node)) != _shape(_value(other)):
            return False
        last = steps[1][2][-1]
        both = graph.derive("rows", _both, weight, _bound(other)["weight"])
        entry, dims = problems.product(_value(source), _value(weight).t(), "rmsnorm_gemm")
        operands = {"a": source, "norm": gain, "b": both}
        nodes = sorted([node, other, *steps[0][2], last], key=graph.order.__getitem__)
        if not all(graph.unwritten(operand, nodes[0], last) for operand in (source, gain)):
            return False
        return self.single(nodes, "rmsnorm_gemm", operands, {"eps": eps, "gated": 1, "epilogue": steps[0][0]},
                           ({**entry, "gated": 1, "epilogue": [steps[0][0]]}, dims))

    def matmul(self, node):
        if _name(node) != "matmul":
            return
        bound = _bound(node)
        a, b = bound["input"], bound["other"]
        if _value(a) is None or _value(b) is None or _value(a).dim() < 2 or _value(b).dim() not in (2, 3):
            return
        problem = problems.product(_value(a), _value(b))
        forms = [_Form("gemm", {"a": a, "b": b}, {"b_layout": "kn"}, None, problem)]
        if problem is not None and problem[0]["b_layout"] == "nk":
            forms.insert(0, _Form("gemm", {"a": a, "b": _Seen(b, "transpose", -2, -1)}, {}, None, problem))
        self.product(node, forms, _value(node).dtype)

    def convolution(self, node):
        if _name(node) == "conv3d":
            self.patches(node)
        if _name(node) != "conv2d":
            return
        bound = _bound(node)
        x, weight = bound["input"], bound["weight"]
        options = _convolution_options(bound)
        if options is None or _value(x) is None or _value(weight) is None or _value(x).dim() != 4:
            return
        forms = []
        for nhwc, seen, back in self.layouts(_value(node)):
            layout = "nhwc" if nhwc else "nchw"
            forms.append(_Form("conv2d", {"x": seen(x), "weight": self.weight(weight, nhwc)}, {**options, "layout": layout},
                               bound["bias"], problems.convolution(_value(x), _value(weight), layout, options), seen, back))
        self.product(node, forms, _value(node).dtype)

    def layouts(self, value):
        """(nhwc, how kernels see a tensor, how torch sees the result) for images that lie as `value` does."""
        graph = self.graph.graph
        nhwc = (True, _channels_last, lambda new: graph.call_method("permute", (new, 0, 3, 1, 2)))
        nchw = (False, _channels_first, _same)
        return ([nhwc] if _is_nhwc(value) else []) + ([nchw] if value.is_contiguous() else [])

    def weight(self, weight, nhwc):
        if not nhwc:
            return weight
        if self.graph.is_static(weight):
            return self.graph.derive("nhwc", _to_nhwc, weight)
        return _Seen(_Seen(weight, "permute", 0, 2, 3, 1), "contiguous")

    def patches(self, node):
        bound = _bound(node)
        x, weight = bound["input"], bound["weight"]
        if _value(x) is None or _value(weight) is None or _shape(_value(x))[1:] != _shape(_value(weight))[1:] \
                or bound["groups"] != 1 or any(_pair(bound["padding"], 3)):
            return
        graph = self.graph.graph
        self.product(node, [_Form("conv3d_patchify", {"x": _Seen(x, "flatten", 1), "weight": weight}, {}, bound["bias"],
                                  problems.patches(_value(x), _value(weight)), lambda operand: None,
                                  lambda new: graph.call_method("unflatten", (new, 1, (_shape(_value(weight))[0], 1, 1, 1))))],
                     _value(node).dtype)

    def norms(self, node):
        if _name(node) == "layer_norm":
            bound = _bound(node)
            if len(bound["normalized_shape"]) == 1 and bound["weight"] is not None and bound["bias"] is not None:
                self.single([node], "layernorm", {"x": bound["input"], "weight": bound["weight"], "bias": bound["bias"]},
                            {"eps": 1e-5 if bound["eps"] is None else bound["eps"]}, problems.rows("layernorm", _value(node)))
            return
        norm = _rms_norm(self.graph, node)
        if norm is not None:
            x, weight, eps, nodes = norm
            if self.has("rmsnorm_gemm") and _rows(x) <= 16 and all(_name(user) == "linear" for user in node.users):
                return  # within the products
            self.single(sorted(nodes, key=self.graph.order.__getitem__), "rmsnorm", {"x": x, "weight": weight}, {"eps": eps},
                        problems.rows("rmsnorm", _value(node)))

    def softmax(self, node):
        if _name(node) == "softmax":
            bound = _bound(node)
            if bound["dtype"] is None and bound["dim"] in (-1, _value(node).dim() - 1):
                self.single([node], "softmax", {"x": bound["input"]}, {}, problems.rows("softmax", _value(node)))

    def attention(self, node):
        if _name(node) != "attention":
            return
        bound = _bound(node)
        query = bound["query"]
        key, between = _ungrouped(bound["key"])
        value, more = _ungrouped(bound["value"])
        if any(_value(item) is None or _value(item).dim() != 4 for item in (query, key, value)) or bound["dropout_p"]:
            return
        if not bound["enable_gqa"] and _shape(_value(bound["key"]))[1] != _shape(_value(query))[1]:
            return
        options = {} if bound["scale"] is None else {"scale": float(bound["scale"])}
        nodes = [*more, *between, node]
        if bound["attn_mask"] is not None:
            self.decode(nodes, query, key, value, bound, options)
            return
        queries, keys = _shape(_value(query))[2], _shape(_value(key))[2]
        if bound["is_causal"]:
            if queries != keys:  # torch lets the first query see the first key alone
                self.report.add(_path(node), "attention", reason="causal with fewer queries than keys")
                return
            options["causal"] = 1
        # The result lies as torch's would: mostly [b, s, h, d], which the next product takes as it is.
        strides = [_hint(stride) for stride in _value(node).stride()]
        plain = all(isinstance(size, int) for size in _value(node).shape)
        if plain and not _value(node).is_contiguous():
            options.update(ldo=strides[2], head_stride_o=strides[1])
            if _value(node).shape[0] > 1:
                options["batch_stride_o"] = strides[0]
        self.single(nodes, "attention", {"q": query, "k": key, "v": value}, options,
                    problems.attention(_value(query), _value(key), _value(value), _value(node), bool(bound["is_causal"])))

    def decode(self, nodes, query, key, value, bound, options):
        """One query of each sequence over the rows of a cache that a mask `arange(rows) <= position` lets through."""
        graph, node = self.graph, nodes[-1]
        length = _prefix(graph, bound["attn_mask"])
        if length is None or _shape(_value(query))[2] != 1 or bound["is_causal"]:
            self.report.add(_path(node), "attention", reason="a mask that is not `arange(rows) <= position` stays with torch")
            return
        position, beyond = length
        batch = _shape(_value(query))[0]
        with _value(query).fake_mode:
            lengths = torch.empty(batch, dtype=torch.int32, device=_value(query).device)
        with graph.graph.inserting_before(node):
            made = [graph.call(python.add, position, beyond)] if beyond else []
            made.append(graph.graph.call_method("to", (made[-1] if made else position, torch.int32)))
            made.append(graph.graph.call_method("reshape", (made[-1], -1)))
            made.append(graph.graph.call_method("expand", (made[-1], batch)))
            made.append(graph.call("contiguous", made[-1], value=lengths))
        graph.order.update(dict.fromkeys(made, graph.order[node]))
        self.single(nodes, "decode_attention", {"q": _Seen(query, "squeeze", 2), "lengths": made[-1], "k_cache": key, "v_cache": value},
                    options, problems.decode(_value(query), _value(key)), lambda new: graph.graph.call_method("unsqueeze", (new, 2)))
        for item in reversed(made):
            if not item.users:
                graph.graph.erase_node(item)


_OPERAND = {"bias": "bias", "add": "residual", "mul": "other"}


def _same(operand):
    return operand


class _Form:
    """One way to have a product: operator, operands, options and bias; the problem to tune; how kernels see a tensor of the
    result's shape, how the result becomes torch's."""

    def __init__(self, op, operands, options, bias, problem, see=_same, back=_same):
        self.op, self.operands, self.options, self.bias, self.problem = op, operands, options, bias, problem
        self.see, self.back = see, back


def _rows(node):
    rows = 1
    for size in _shape(_value(node))[:-1]:
        rows *= size
    return rows


def _path(node):
    stack = node.meta.get("nn_module_stack")
    path = next(reversed(stack.values()))[0] if stack else ""
    path = re.sub(r"_modules\['(\w+)'\]", r"\1", re.sub(r"^L\['\w+'\]\.?", "", path))
    return path or node.name


class _Seen:
    """A node as a kernel sees it: after a method or two, which are only put into the graph with the call."""

    def __init__(self, node, method, *arguments, **keywords):
        inner = node.calls if isinstance(node, _Seen) else []
        self.calls = [*inner, (method, arguments, keywords)]
        self.node = node.node if isinstance(node, _Seen) else node
        self.value = getattr(_value(node), method)(*arguments, **keywords)


def _channels_last(node):
    value = _value(node)
    if value.dim() != 4:
        return None
    if not _is_nhwc(value):
        node = _Seen(node, "contiguous", memory_format=torch.channels_last)
    return _Seen(node, "permute", 0, 2, 3, 1)


def _channels_first(node):
    return node if _value(node).is_contiguous() else _Seen(node, "contiguous")


def _to_nhwc(weight):
    return weight.permute(0, 2, 3, 1).contiguous()


def _both(above, below):
    return torch.cat([above, below])


def _matrix(weight):
    return weight.flatten(1)


def _row(weight):
    return weight.flatten().float()


def _convolution_options(bound):
    if any(isinstance(bound[name], str) for name in ("stride", "padding", "dilation")):  # padding="same", "valid"
        return None
    return convolution_options(bound["stride"], bound["padding"], bound["dilation"], bound["groups"])


def _prefix(graph, mask):
    """(position, how many more rows) of a mask that lets the first rows through: `arange(rows) <= position`; or None."""
    while _name(mask) in ("getitem", "unsqueeze", "reshape", "expand") and _value(mask) is not None:
        mask = mask.args[0]
    name = _name(mask)
    if name not in ("le", "lt", "ge", "gt") or _value(mask) is None:
        return None
    left, right = mask.args
    if name in ("ge", "gt"):
        left, right = right, left
    while _name(left) in ("getitem", "unsqueeze", "reshape", "expand"):
        left = left.args[0]
    if not _is_range(graph, left):
        return None
    value = _value(right)
    if value is None or value.is_floating_point():
        return None
    return right, 1 if name in ("le", "ge") else 0


def _is_range(graph, node):
    """Whether a node is arange(n): made here, or a parameter with those values."""
    if _name(node) == "arange":
        return len(node.args) == 1 or (len(node.args) == 2 and node.args[0] == 0)
    if not graph.is_static(node) or node not in graph.inputs:
        return False
    example = graph.examples[graph.inputs[node]]
    if _tensor_is_fake(example) or example.dim() != 1:
        return False
    return torch.equal(example, torch.arange(example.numel(), device=example.device, dtype=example.dtype))


def _tensor_is_fake(tensor):
    return isinstance(tensor, torch._subclasses.FakeTensor)


# ---- the back end

@functools.lru_cache(maxsize=None)
def _loaded(path, device):
    return load(path, device)


def backend(module, examples, *, options=None, mode=None, **unknown):
    """torch.compile's back end. Options (torch.compile(…, options={…})):
      db: a path (else $KGEN_DB), an open kgen.Database or kgen.torch.Ops; device: of a path
      backend: what compiles the rest, "inductor" by default, "eager", or a function; mode, options: of inductor
      only_exact: leaves what was not tuned for its very shape; skip: operators of the DB to leave alone
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
    report = Report()
    graph = None
    if torch.is_grad_enabled() and any(isinstance(item, torch.Tensor) and item.requires_grad for item in examples):
        report.add("graph", "none", reason="gradients are wanted, which kgen's operators do not have: use torch.no_grad()")
    else:
        graph = rewrite(module, examples, ops, report, options.get("only_exact", False), options.get("skip", ()))
    log.info("%s", report)
    if options.get("report") is not None:
        options["report"].append(report)
    inner = _rest(options)
    if graph is None:
        return inner(module, examples)
    if not graph.derived:
        return inner(graph.module, examples)
    return _Compiled(inner(graph.module, [*examples, *(_example(derived.node) for derived in graph.derived)]), graph)


def _example(node):
    """What is computed from parameters, as the rest's compiler sees it: dynamo gives that another fake mode than its own."""
    context = torch._guards.TracingContext.try_get()
    value = _value(node)
    with context.fake_mode if context is not None and context.fake_mode is not None else value.fake_mode:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


def _copied(module):
    """A module of the same graph: dynamo goes on to use its own, and must not see new inputs."""
    graph, nodes = torch.fx.Graph(), {}
    result = graph.graph_copy(module.graph, nodes)
    graph.output(result)
    for old, new in nodes.items():
        if hasattr(old, "_dynamo_source"):
            new._dynamo_source = old._dynamo_source
    made = torch.fx.GraphModule(module, graph)
    made.meta.update(module.meta)
    if hasattr(module, "_param_name_to_source"):
        made._param_name_to_source = module._param_name_to_source
    return made


def rewrite(module, examples, ops, report, only_exact=False, skip=()):
    """A copy of a graph of dynamo with kgen's operators in it. What it computes from parameters are further inputs."""
    module = _copied(module)
    graph = _Graph(module, examples)
    _fold_batch_norms(graph)
    rewriter = _Rewriter(graph, ops, report, only_exact, skip)
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
