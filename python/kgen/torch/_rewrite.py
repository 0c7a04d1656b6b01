"""Products, norms and attention of a graph as calls of kgen's operators."""
import operator as python

import torch

from .. import _tensor
from .._epilogue import ACTIVATIONS, longest_first
from .._library import KgenError, NotFound
from . import _problems as problems
from ._graph import Seen, bound_of, hint, name_of, pair, path_of, rows_of, shape_of, value_of
from ._ops import convolution_options
from ._patterns import beginning_of, chain_behind, rms_norm_of, ungrouped
from ._report import accepted

_OPERAND = {"bias": "bias", "add": "residual", "mul": "other"}


def _same(operand):
    return operand


class Form:
    """One way to have a product: operator, operands, options and bias; the problem to tune; how kernels see a tensor of the
    result's shape, how the result becomes torch's."""

    def __init__(self, op, operands, options, bias, problem, see=_same, back=_same):
        self.op, self.operands, self.options, self.bias, self.problem = op, operands, options, bias, problem
        self.see, self.back = see, back


class Products:
    def __init__(self, graph, ops, report, accept="near", skip=()):
        self.graph, self.ops, self.report, self.accept, self.skip = graph, ops, report, accept, skip
        self.wishes, self.matches = [], {}

    def has(self, op):
        return (self.ops is None or op in self.ops.db.operators) and op not in self.skip

    def match(self, op, operands, options, dtype=None, result=None):
        """The Match of a call with these operands, by the shapes of the example; KgenError where there is none, ValueError
        where its result is not of the type `result`."""
        views = {}
        for name, operand in operands.items():
            value = value_of(operand)
            kind = dtype if dtype is not None and value.is_floating_point() else value.dtype
            views[name] = _tensor.View(0, _tensor.torch_dtype(kind), shape_of(value), tuple(hint(size) for size in value.stride()),
                                       value.device.type, value.device.index or 0, "torch")
        if self.ops is None or not self.has(op):
            raise NotFound(f"{self.ops.db.path if self.ops is not None else 'no DB'} has no {op}")
        key = (op, result, tuple(options.items()), tuple((name, view.dtype, view.shape, view.strides) for name, view in views.items()))
        if key not in self.matches:  # layers repeat
            try:
                self.matches[key] = self._match(op, views, options, result)
            except (KgenError, ValueError) as error:
                self.matches[key] = error
        if isinstance(self.matches[key], Exception):
            raise self.matches[key]
        return self.matches[key]

    def _match(self, op, views, options, result):
        match = self.ops.db.op(op).match_views(views, options)
        if result is not None:
            given = self.ops.db.op(op).output_specs(views, options)[0][2]
            if given != _tensor.torch_dtype(result):
                raise ValueError(f"{op} gives {given}, torch gives {_tensor.torch_dtype(result)} here (autocast)")
        return match

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
        if isinstance(operand, Seen):
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
            if accepted(match, self.accept):
                first = first or (match, item)
            else:
                reason = match.reason
        return first or (None, reason)

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
        steps = chain_behind(graph, node)
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
                    problem = form.problem
                    if problem is not None and any(step == "add" for step, _, _ in taken):
                        added = next(operand for step, operand, _ in taken if step == "add")
                        problem = problem[0], problems.residual(form.op, problem[1], value_of(form.see(added)), problem[0].get("layout"))
                    self.wish(problem, epilogue, dtype, [node, *(item for _, _, nodes in taken for item in nodes)])
                wished = True
                if self.has(form.op):
                    tries.append(((form.op, given, {**form.options, "epilogue": ",".join(epilogue)}, dtype, value_of(last).dtype), taken, form.back))
                else:
                    missing = f"{self.ops.db.path if self.ops else 'there'} has no {form.op}"
        match, found = self.best(tries)
        if match is None:
            self.report.add(path_of(node), forms[-1].op if forms else "?", reason=found or missing or "it lies in no order that kernels take")
            return
        (op, given, options, *_), taken, back = found
        last = taken[-1][2][-1] if taken else node
        with graph.graph.inserting_before(last):
            new = back(self.first(self.emit(op, given, options, match)))
        path = path_of(node)
        graph.replace([node, *(item for _, _, nodes in taken for item in nodes)], new)
        self.report.add(path, f"{op}[{options['epilogue']}]", match)

    def single(self, nodes, op, operands, options, problem, back=lambda new: new):
        """One operator for `nodes`, of which the last gives the value."""
        last = nodes[-1]
        first = min(nodes, key=self.graph.order.__getitem__)
        if not all(self.graph.unwritten(operand, first, last) for operand in operands.values()):
            return False
        self.wish(problem, nodes=nodes)
        match, found = self.best([((op, operands, options, None, value_of(last).dtype),)])
        if match is None:
            self.report.add(path_of(last), op, reason=found)
            return self.ops is None
        path = path_of(last)
        with self.graph.graph.inserting_before(last):
            new = back(self.first(self.emit(op, operands, options, match)))
        self.graph.replace(nodes, new)
        self.report.add(path, op, match)
        return True

    # ---- which nodes

    def linear(self, node):
        if name_of(node) != "linear":
            return
        bound = bound_of(node)
        x, weight, bias = bound["input"], bound["weight"], bound["bias"]
        if value_of(x) is None or value_of(weight) is None:
            return
        problem = problems.product(value_of(x), value_of(weight).t())
        forms = [Form("gemm", {"a": x, "b": weight}, {}, bias, problem)]
        norm = rms_norm_of(self.graph, x)
        if norm is not None and rows_of(x) <= 16:
            source, gain, eps, _ = norm
            if bias is None and self.gated(node, x, source, gain, eps):
                return
            forms.insert(0, Form("rmsnorm_gemm", {"a": source, "norm": gain, "b": weight}, {"eps": eps}, bias,
                                  problems.product(value_of(source), value_of(weight).t(), "rmsnorm_gemm")))
        self.product(node, forms, value_of(node).dtype)

    def gated(self, node, x, source, gain, eps):
        """act(x.A)*(x.B) of one normalised row as one product with both weights, A above B."""
        graph = self.graph
        steps = chain_behind(graph, node)[:2]
        if [step in ACTIVATIONS or step for step, _, _ in steps] != [True, "mul"]:
            return False
        other, weight = steps[1][1], bound_of(node)["weight"]
        if name_of(other) != "linear" or len(other.users) != 1 or bound_of(other)["input"] is not x or bound_of(other)["bias"] is not None \
                or not graph.is_static(weight, bound_of(other)["weight"]) or shape_of(value_of(node)) != shape_of(value_of(other)):
            return False
        last = steps[1][2][-1]
        both = graph.derive("rows", _both, weight, bound_of(other)["weight"])
        entry, dims = problems.product(value_of(source), value_of(weight).t(), "rmsnorm_gemm")
        operands = {"a": source, "norm": gain, "b": both}
        nodes = sorted([node, other, *steps[0][2], last], key=graph.order.__getitem__)
        if not all(graph.unwritten(operand, nodes[0], last) for operand in (source, gain)):
            return False
        return self.single(nodes, "rmsnorm_gemm", operands, {"eps": eps, "gated": 1, "epilogue": steps[0][0]},
                           ({**entry, "gated": 1, "epilogue": [steps[0][0]]}, dims))

    def matmul(self, node):
        if name_of(node) != "matmul":
            return
        bound = bound_of(node)
        a, b = bound["input"], bound["other"]
        if value_of(a) is None or value_of(b) is None or value_of(a).dim() < 2 or value_of(b).dim() not in (2, 3):
            return
        problem = problems.product(value_of(a), value_of(b))
        forms = [Form("gemm", {"a": a, "b": b}, {"b_layout": "kn"}, None, problem)]
        if problem is not None and problem[0]["b_layout"] == "nk":
            forms.insert(0, Form("gemm", {"a": a, "b": Seen(b, "transpose", -2, -1)}, {}, None, problem))
        self.product(node, forms, value_of(node).dtype)

    def convolution(self, node):
        if name_of(node) == "conv3d":
            self.patches(node)
        if name_of(node) != "conv2d":
            return
        bound = bound_of(node)
        x, weight = bound["input"], bound["weight"]
        options = _convolution_options(bound)
        if options is None or value_of(x) is None or value_of(weight) is None or value_of(x).dim() != 4:
            return
        forms = []
        for nhwc, seen, back in self.layouts(value_of(node)):
            layout = "nhwc" if nhwc else "nchw"
            forms.append(Form("conv2d", {"x": seen(x), "weight": self.weight(weight, nhwc)}, {**options, "layout": layout},
                               bound["bias"], problems.convolution(value_of(x), value_of(seen(x)), value_of(weight), layout, options), seen, back))
        self.product(node, forms, value_of(node).dtype)

    def layouts(self, value):
        """(nhwc, how kernels see a tensor, how torch sees the result) for images that lie as `value` does."""
        graph = self.graph.graph
        nhwc = (True, channels_last, lambda new: graph.call_method("permute", (new, 0, 3, 1, 2)))
        nchw = (False, _channels_first, _same)
        return ([nhwc] if problems.is_nhwc(value) else []) + ([nchw] if value.is_contiguous() else [])

    def weight(self, weight, nhwc):
        if not nhwc:
            return weight
        if self.graph.is_static(weight):
            return self.graph.derive("nhwc", _to_nhwc, weight)
        return Seen(Seen(weight, "permute", 0, 2, 3, 1), "contiguous")

    def patches(self, node):
        bound = bound_of(node)
        x, weight = bound["input"], bound["weight"]
        if value_of(x) is None or value_of(weight) is None or shape_of(value_of(x))[1:] != shape_of(value_of(weight))[1:] \
                or bound["groups"] != 1 or any(pair(bound["padding"], 3)):
            return
        graph = self.graph.graph
        self.product(node, [Form("conv3d_patchify", {"x": Seen(x, "flatten", 1), "weight": weight}, {}, bound["bias"],
                                  problems.patches(value_of(x), value_of(weight)), lambda operand: None,
                                  lambda new: graph.call_method("unflatten", (new, 1, (shape_of(value_of(weight))[0], 1, 1, 1))))],
                     value_of(node).dtype)

    def norms(self, node):
        if name_of(node) == "layer_norm":
            bound = bound_of(node)
            if len(bound["normalized_shape"]) == 1 and bound["weight"] is not None and bound["bias"] is not None:
                self.single([node], "layernorm", {"x": bound["input"], "weight": bound["weight"], "bias": bound["bias"]},
                            {"eps": 1e-5 if bound["eps"] is None else bound["eps"]}, problems.rows("layernorm", value_of(node)))
            return
        norm = rms_norm_of(self.graph, node)
        if norm is not None:
            x, weight, eps, nodes = norm
            if self.has("rmsnorm_gemm") and rows_of(x) <= 16 and all(name_of(user) == "linear" for user in node.users):
                return  # within the products
            self.single(sorted(nodes, key=self.graph.order.__getitem__), "rmsnorm", {"x": x, "weight": weight}, {"eps": eps},
                        problems.rows("rmsnorm", value_of(node)))

    def softmax(self, node):
        if name_of(node) == "softmax":
            bound = bound_of(node)
            if bound["dtype"] is None and bound["dim"] in (-1, value_of(node).dim() - 1):
                self.single([node], "softmax", {"x": bound["input"]}, {}, problems.rows("softmax", value_of(node)))

    def attention(self, node):
        if name_of(node) != "attention":
            return
        bound = bound_of(node)
        query = bound["query"]
        key, between = ungrouped(bound["key"])
        value, more = ungrouped(bound["value"])
        if any(value_of(item) is None or value_of(item).dim() != 4 for item in (query, key, value)) or bound["dropout_p"]:
            return
        if not bound["enable_gqa"] and shape_of(value_of(bound["key"]))[1] != shape_of(value_of(query))[1]:
            return
        options = {} if bound["scale"] is None else {"scale": float(bound["scale"])}
        nodes = [*more, *between, node]
        if bound["attn_mask"] is not None:
            self.decode(nodes, query, key, value, bound, options)
            return
        queries, keys = shape_of(value_of(query))[2], shape_of(value_of(key))[2]
        if bound["is_causal"]:
            if queries != keys:  # torch lets the first query see the first key alone
                self.report.add(path_of(node), "attention", reason="causal with fewer queries than keys")
                return
            options["causal"] = 1
        # The result lies as torch's would: mostly [b, s, h, d], which the next product takes as it is.
        strides = [hint(stride) for stride in value_of(node).stride()]
        plain = all(isinstance(size, int) for size in value_of(node).shape)
        if plain and not value_of(node).is_contiguous():
            options.update(ldo=strides[2], head_stride_o=strides[1])
            if value_of(node).shape[0] > 1:
                options["batch_stride_o"] = strides[0]
        self.single(nodes, "attention", {"q": query, "k": key, "v": value}, options,
                    problems.attention(value_of(query), value_of(key), value_of(value), value_of(node), bool(bound["is_causal"])))

    def decode(self, nodes, query, key, value, bound, options):
        """One query of each sequence over the rows of a cache that a mask `arange(rows) <= position` lets through."""
        graph, node = self.graph, nodes[-1]
        batch, rows = shape_of(value_of(query))[0], shape_of(value_of(key))[2]
        length = beginning_of(graph, bound["attn_mask"], batch, rows)
        if length is None or shape_of(value_of(query))[2] != 1 or bound["is_causal"]:
            self.report.add(path_of(node), "attention", reason="a mask that is not `arange(rows) <= position` stays with torch")
            return
        position, beyond = length
        with value_of(query).fake_mode:
            lengths = torch.empty(batch, dtype=torch.int32, device=value_of(query).device)
        with graph.graph.inserting_before(node):
            made = [graph.call(python.add, position, beyond)] if beyond else []
            made.append(graph.graph.call_method("to", (made[-1] if made else position, torch.int32)))
            made.append(graph.graph.call_method("reshape", (made[-1], -1)))
            made.append(graph.graph.call_method("expand", (made[-1], batch)))
            made.append(graph.call("contiguous", made[-1], value=lengths))
        graph.order.update(dict.fromkeys(made, graph.order[node]))
        self.single(nodes, "decode_attention", {"q": Seen(query, "squeeze", 2), "lengths": made[-1], "k_cache": key, "v_cache": value},
                    options, problems.decode(value_of(query), value_of(key)), lambda new: graph.graph.call_method("unsqueeze", (new, 2)))
        for item in reversed(made):
            if not item.users:
                graph.graph.erase_node(item)


def channels_last(node):
    value = value_of(node)
    if value.dim() != 4:
        return None
    if not problems.is_nhwc(value):
        node = Seen(node, "contiguous", memory_format=torch.channels_last)
    return Seen(node, "permute", 0, 2, 3, 1)


def _channels_first(node):
    return node if value_of(node).is_contiguous() else Seen(node, "contiguous")


def _to_nhwc(weight):
    return weight.permute(0, 2, 3, 1).contiguous()


def _both(above, below):
    return torch.cat([above, below])


def _convolution_options(bound):
    if any(isinstance(bound[name], str) for name in ("stride", "padding", "dilation")):  # padding="same", "valid"
        return None
    return convolution_options(bound["stride"], bound["padding"], bound["dilation"], bound["groups"])
