"""What is looked for in a graph: chains behind a product, norms, repeated heads, masks, batch norms."""
import functools

import torch

from ._fold import folded_bias, folded_weight
from ._graph import ARGUMENTS, bound_of, is_inplace, name_of, shape_of, value_of

_CASTS = ("to", "float", "type_as", "half", "bfloat16")


def fold_batch_norms(graph):
    for node in list(graph.graph.nodes):
        if name_of(node) != "batch_norm":
            continue
        norm = bound_of(node)
        product = norm["input"]
        if norm["training"] or norm["running_mean"] is None or name_of(product) not in ("linear", "conv1d", "conv2d", "conv3d"):
            continue
        bound = bound_of(product)
        sources = [bound["weight"], norm["weight"], norm["running_var"], bound["bias"], norm["running_mean"], norm["bias"]]
        if len(product.users) != 1 or not graph.is_static(*(source for source in sources if source is not None)) \
                or value_of(product) is None or (name_of(product) == "linear" and value_of(product).dim() != 2):
            continue
        eps = 1e-5 if norm["eps"] is None else norm["eps"]
        bound["weight"] = graph.derive(("fold weight", eps), functools.partial(folded_weight, eps), *sources[:3])
        bound["bias"] = graph.derive(("fold bias", eps), functools.partial(folded_bias, eps), *sources)
        product.args = tuple(bound[name] for name in ARGUMENTS[name_of(product)])
        product.kwargs = {}
        node.replace_all_uses_with(product)
        graph.graph.erase_node(node)


def strip_casts(node):
    while name_of(node) in _CASTS and value_of(node) is not None and node.args \
            and isinstance(node.args[0], torch.fx.Node) and value_of(node.args[0]) is not None:
        node = node.args[0]
    return node


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def next_step(graph, node):
    """(step, other operand, nodes) of what alone follows a product's value, or None."""
    users = list(node.users)
    value = value_of(node)
    if value is None or any(user in graph.claimed for user in users):
        return None
    if len(users) == 2:  # x*sigmoid(x), x*sigmoid(1.702*x)
        for product in users:
            if name_of(product) != "mul":
                continue
            bound = bound_of(product)
            gate = bound["other"] if bound["input"] is node else bound["input"]
            if name_of(gate) == "sigmoid" and len(gate.users) == 1 and value_of(product).dtype == value.dtype:
                inner = gate.args[0]
                if inner is node:
                    return "silu", None, [gate, product]
                if name_of(inner) == "mul" and len(inner.users) == 1 and inner in users:
                    factors = bound_of(inner)
                    number = factors["other"] if factors["input"] is node else factors["input"]
                    if is_number(number) and abs(number - 1.702) < 1e-6:
                        return "quick_gelu", None, [inner, gate, product]
        return None
    if len(users) != 1:
        return None
    user = users[0]
    name, made = name_of(user), value_of(user)
    if name is None or made is None or made.dtype != value.dtype:
        return None
    if name in ("relu", "silu", "sigmoid") and (user.args and user.args[0] is node or user.kwargs.get("input") is node):
        return name, None, [user]
    if name == "gelu":
        return {"none": "gelu_erf", "tanh": "gelu_tanh"}[bound_of(user)["approximate"]], None, [user]
    if name in ("add", "mul"):
        bound = bound_of(user)
        left, right = bound["input"], bound["other"]
        other = right if left is node else left
        if bound.get("alpha", 1) != 1 or other is node or value_of(other) is None or value_of(other).dtype != value.dtype \
                or (is_inplace(user) and left is not node):
            return None
        if name == "add" and value_of(other).dim() == 1 and shape_of(other.meta["example_value"]) == shape_of(value)[-1:] \
                and graph.is_static(other):
            return "bias", other, [user]
        if tuple(shape_of(value_of(other))) == tuple(shape_of(value)):
            return name, other, [user]
    return None


def chain_behind(graph, node):
    """What follows a node's value, step by step: [(step, operand, nodes)]."""
    steps = []
    last = node
    while len(steps) < 6:
        step = next_step(graph, last)
        if step is None:
            return steps
        steps.append(step)
        last = step[2][-1]
    return steps


def rms_norm_of(graph, node):
    """(x, weight, eps, nodes) of a root-mean-square norm that ends here: torch's own or spelled out."""
    name = name_of(node)
    if name == "rms_norm":
        bound = bound_of(node)
        if len(bound["normalized_shape"]) != 1 or bound["weight"] is None:
            return None
        eps = bound["eps"] if bound["eps"] is not None else torch.finfo(value_of(bound["input"]).dtype).eps
        return bound["input"], bound["weight"], float(eps), [node]
    if name != "mul" or value_of(node) is None:
        return None
    bound = bound_of(node)
    for weight, rest in ((bound["input"], bound["other"]), (bound["other"], bound["input"])):
        if not graph.is_static(weight) or value_of(weight).dim() != 1:
            continue
        nodes = [node]
        while name_of(rest) in _CASTS:
            nodes.append(rest)
            rest = rest.args[0]
        if name_of(rest) != "mul":
            continue
        nodes.append(rest)
        inner = bound_of(rest)
        for x, scale in ((inner["input"], inner["other"]), (inner["other"], inner["input"])):
            if name_of(scale) != "rsqrt":
                continue
            total = scale.args[0] if scale.args else scale.kwargs.get("input")
            if name_of(total) != "add" or not is_number(bound_of(total)["other"]):
                continue
            mean = bound_of(total)["input"]
            if name_of(mean) != "mean" or bound_of(mean)["dim"] not in (-1, [-1], (-1,)) or not bound_of(mean)["keepdim"]:
                continue
            square = bound_of(mean)["input"]
            if name_of(square) == "pow" and bound_of(square)["exponent"] == 2:
                squared = bound_of(square)["input"]
            elif name_of(square) == "mul" and bound_of(square)["input"] is bound_of(square)["other"]:
                squared = bound_of(square)["input"]
            else:
                continue
            if squared is not x:
                continue
            nodes += [scale, total, mean, square]
            while name_of(x) in _CASTS:
                nodes.append(x)
                x = x.args[0]
            if value_of(x) is None or value_of(x).dtype != value_of(node).dtype or shape_of(value_of(x)) != shape_of(value_of(node)):
                continue
            return x, weight, float(bound_of(total)["other"]), nodes
    return None


def ungrouped(node):
    """A tensor of keys or values before its heads were repeated for the queries that share them, the nodes between."""
    nodes = []
    if name_of(node) == "repeat_interleave" and (node.args[2:3] == (1,) or node.kwargs.get("dim") in (1, -3)):
        return node.args[0], [node]
    if name_of(node) == "reshape" and name_of(node.args[0]) == "expand":
        wide = node.args[0]
        source = wide.args[0]
        if value_of(wide) is not None and value_of(wide).dim() == 5 and name_of(source) in ("getitem", "unsqueeze") \
                and value_of(source) is not None and shape_of(value_of(source))[2] == 1:
            base = source.args[0]
            if value_of(base) is not None and value_of(base).dim() == 4 \
                    and shape_of(value_of(base))[:2] + shape_of(value_of(base))[2:] == shape_of(value_of(source))[:2] + shape_of(value_of(source))[3:] \
                    and shape_of(value_of(node))[2:] == shape_of(value_of(base))[2:]:
                return base, [node, wide, source]
    return node, nodes


def _inner(node):
    """A tensor before it got axes of one element."""
    while name_of(node) in ("getitem", "unsqueeze", "reshape", "expand"):
        if name_of(node) == "getitem":
            items = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
            if any(item is not None and item is not Ellipsis and item != slice(None) for item in items):
                break
        elif name_of(node) == "expand" and shape_of(value_of(node))[-1:] != shape_of(value_of(node.args[0]))[-1:]:
            break
        if value_of(node) is None or value_of(node.args[0]) is None:
            break
        node = node.args[0]
    return node


def beginning_of(graph, mask, batch, rows):
    """(position, how many more rows) of a mask [batch or 1, 1, 1, rows] that lets the first rows of each sequence through:
    `arange(rows) <= position`; or None."""
    value = value_of(mask)
    if value is None or value.dtype != torch.bool or shape_of(value)[-1] != rows or any(size != 1 for size in shape_of(value)[-3:-1]):
        return None
    compared = _inner(mask)
    name = name_of(compared)
    if name not in ("le", "lt", "ge", "gt") or len(compared.args) != 2:
        return None
    left, right = compared.args if name in ("le", "lt") else compared.args[::-1]
    left, position = _inner(left), value_of(right)
    if not _is_range(graph, left, rows) or position is None or position.is_floating_point() or position.dtype == torch.bool:
        return None
    if position.numel() != 1 and (position.numel() != batch or value.dim() != 4 or shape_of(value)[0] != batch):
        return None
    return right, 1 if name in ("le", "ge") else 0


def _is_range(graph, node, rows):
    """Whether a node is arange(rows): made here, or a parameter with those values."""
    if name_of(node) == "arange":
        ends = node.args if len(node.args) != 2 else node.args[1:] if node.args[0] == 0 else ()
        return len(ends) == 1 and ends[0] == rows and not set(node.kwargs) - {"device", "dtype"}
    if node not in graph.inputs or not graph.is_static(node):
        return False
    example = graph.examples[graph.inputs[node]]
    if isinstance(example, torch._subclasses.FakeTensor) or tuple(example.shape) != (rows,):
        return False
    return torch.equal(example, torch.arange(rows, device=example.device, dtype=example.dtype))
