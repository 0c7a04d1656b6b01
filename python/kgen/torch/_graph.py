"""The graph that the back end changes: what its nodes are, whose memory they show, what is computed from parameters."""
import collections
import operator as python
import re

import torch
import torch.nn.functional as F

from .._library import BadArgument

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
ARGUMENTS = {
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


def name_of(node):
    return _NAMES.get(node.target) if isinstance(node, torch.fx.Node) and node.op in ("call_function", "call_method") else None


def bound_of(node):
    """The arguments of a node of ARGUMENTS by name, with their defaults."""
    names = ARGUMENTS[name_of(node)]
    bound = {name: _BIND.get(name) for name in names}
    bound.update(zip(names, node.args))
    bound.update(node.kwargs)
    if node.op == "call_method" and "self" in bound:
        bound["input"] = bound.pop("self")
    return bound


def value_of(node):
    """The fake tensor that a node stands for, or None."""
    if isinstance(node, Seen):
        return node.value
    if not isinstance(node, torch.fx.Node):
        return None
    value = node.meta.get("example_value")
    return value if isinstance(value, torch.Tensor) else None


def hint(size):
    """A size as a number; that of the example where it is a symbol. Asking a symbol itself would fix it."""
    return size if isinstance(size, int) else int(size.node.hint)


def shape_of(value):
    return tuple(hint(size) for size in value.shape)


def pair(value, count=2):
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * count


def is_inplace(node):
    if node.op == "call_method":
        return node.target.endswith("_") and not node.target.endswith("__")
    if node.op != "call_function":
        return False
    if node.target in (python.iadd, python.imul, python.isub, python.itruediv, python.setitem, F.relu_, torch.relu_):
        return True
    return node.kwargs.get("inplace") is True or node.kwargs.get("out") is not None \
        or (name_of(node) == "batch_norm" and bound_of(node)["training"])


def rows_of(node):
    rows = 1
    for size in shape_of(value_of(node))[:-1]:
        rows *= size
    return rows


def path_of(node):
    stack = node.meta.get("nn_module_stack")
    path = next(reversed(stack.values()))[0] if stack else ""
    path = re.sub(r"_modules\['(\w+)'\]", r"\1", re.sub(r"^L\['\w+'\]\.?", "", path))
    return path or node.name


class Seen:
    """A node as a kernel sees it: after a method or two, which are only put into the graph with the call."""

    def __init__(self, node, method, *arguments, **keywords):
        inner = node.calls if isinstance(node, Seen) else []
        self.calls = [*inner, (method, arguments, keywords)]
        self.node = node.node if isinstance(node, Seen) else node
        self.value = getattr(value_of(node), method)(*arguments, **keywords)


class Derived:
    """A tensor that is computed from parameters."""

    def __init__(self, node, function, sources):
        self.node, self.function, self.sources = node, function, sources


class Graph:
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
            if is_inplace(node):
                self.writes[self.root(node.args[0] if node.args else node.kwargs.get("input"))].append(self.order[node])
        self.static = {node for node, example in zip(self.placeholders, examples)
                       if self._is_parameter(node, example) and not self.writes.get(node)}

    @staticmethod
    def _is_parameter(node, example):
        if not isinstance(example, torch.Tensor) or value_of(node) is None:
            return False
        if isinstance(example, torch.nn.Parameter):
            return True
        return bool((node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type"))

    def root(self, node):
        """Whose memory a node shows."""
        node = node.node if isinstance(node, Seen) else node
        while isinstance(node, torch.fx.Node) and node.op in ("call_function", "call_method"):
            target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
            if not (is_inplace(node) or target in _VIEWS):
                break
            node = node.args[0] if node.args else node.kwargs.get("input")
        return node

    def unwritten(self, node, since, until):
        """Whether the memory of `node` stays as it is from one node to another."""
        first, last = self.order[since], self.order[until]
        return not any(first < place <= last for place in self.writes.get(self.root(node), ()))

    def is_static(self, *nodes):
        return all(node in self.static for node in nodes if not isinstance(node, Seen)) \
            and not any(isinstance(node, Seen) for node in nodes)

    def derive(self, key, function, *sources):
        """The node of function(*sources), which are parameters or None; one for each key."""
        key = (key, sources)
        node = self._by_key.get(key)
        if node is not None:
            return node
        values = [None if source is None else value_of(source) for source in sources]
        with torch.no_grad(), values[0].fake_mode:
            value = function(*values)
        last = next(node for node in reversed(self.graph.nodes) if node.op == "placeholder")
        with self.graph.inserting_after(last):
            node = self.graph.placeholder(f"kgen_derived_{len(self.derived)}")
        node.meta.update(example_value=value, tensor_dict={"_dynamo_static_input_type": "unguarded"})
        node._dynamo_source = torch._dynamo.source.LocalSource(node.name)
        self.order[node] = self.order[last]
        self.static.add(node)
        self.derived.append(Derived(node, function, sources))
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


class Compiled:
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
        if len(self.sets) >= 1024:  # parameters without end: start again
            self.sets.clear()
        kept = self.sets[tuple(map(id, sources))] = versions, values, sources
        return kept


def _version(tensor):
    return None if tensor.is_inference() else tensor._version


def copied(module):
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


def example_of(node):
    """What is computed from parameters, as the rest's compiler sees it: dynamo gives that another fake mode than its own."""
    context = torch._guards.TracingContext.try_get()
    value = value_of(node)
    with context.fake_mode if context is not None and context.fake_mode is not None else value.fake_mode:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
