"""Hyper-connections (mHC) in a graph, however they are spelled: found by the projection of the streams and by shapes, and believed
only if the piece of the graph computes on random streams what the operators' definition says (ops/mhc_pre.yaml)."""
import operator as python

import torch


def _mixes(streams, fn, eps):
    flat = streams.flatten(-2).float()
    return flat @ fn.t() * torch.rsqrt(flat.square().mean(-1, keepdim=True) + eps)


def _collapse(streams, gate):
    return (gate[..., None] * streams.float()).sum(-2).to(streams.dtype)


def reference_pre(streams, fn, scale, base, eps, post_mult, repeat):
    n = streams.shape[-2]
    mix = _mixes(streams, fn, eps)
    gate = torch.sigmoid(mix[..., :n] * scale[0] + base[:n]) + eps
    post = post_mult * torch.sigmoid(mix[..., n:2 * n] * scale[1] + base[n:2 * n])
    comb = (mix[..., 2 * n:] * scale[2] + base[2 * n:]).unflatten(-1, (n, n)).softmax(-1) + eps
    comb = comb / (comb.sum(-2, keepdim=True) + eps)
    for _ in range(repeat - 1):
        comb = comb / (comb.sum(-1, keepdim=True) + eps)
        comb = comb / (comb.sum(-2, keepdim=True) + eps)
    return post, comb, _collapse(streams, gate)


def reference_head(streams, fn, scale, base, eps):
    return _collapse(streams, torch.sigmoid(_mixes(streams, fn, eps) * scale + base) + eps)


def reference_post(x, streams, post, comb):
    wide = post[..., None] * x[..., None, :].float() + torch.einsum("...ij,...ih->...jh", comb, streams.float())
    return wide.to(streams.dtype)


class Pre:
    """A place where streams are mixed for a sublayer (or, `post` and `comb` None, collapsed behind the last)."""

    def __init__(self, streams, fn, scale, base, eps, post_mult, repeat, x, post, comb):
        self.streams, self.fn, self.scale, self.base = streams, fn, scale, base
        self.eps, self.post_mult, self.repeat = eps, post_mult, repeat
        self.x, self.post, self.comb, self.piece = x, post, comb, set()


class Post:
    def __init__(self, out, x, streams, pre):
        self.out, self.x, self.streams, self.pre, self.piece = out, x, streams, pre, set()


class Finder:
    """`value`, `name`, `bound`, `shape`: of the back end."""

    def __init__(self, graph, value, name, bound, shape):
        self.graph, self.value, self.name, self.bound, self.shape = graph, value, name, bound, shape
        self.nodes = [node for node in graph.graph.nodes if node.op in ("call_function", "call_method")]

    def pres(self):
        return [found for found in (self._pre(node) for node in self.nodes) if found is not None]

    # ---- sets of nodes

    def _behind(self, start):
        seen = {start}
        for node in self.nodes:
            if any(item in seen for item in node.all_input_nodes):
                seen.add(node)
        return seen - {start}

    @staticmethod
    def _before(ends, stops=()):
        seen, left = set(), list(ends)
        while left:
            node = left.pop()
            if node not in seen and node not in stops:
                seen.add(node)
                left.extend(node.all_input_nodes)
        return seen

    def _own(self, node):
        """Not merely a view of another."""
        return self.graph.root(node) is node

    def _is(self, node, shape, dtype):
        value = self.value(node)
        return value is not None and value.dtype == dtype and self.shape(value) == shape

    # ---- finding

    def _projection(self, node):
        """(streams, fn) where `node` multiplies the streams of each token, as one row, with a parameter."""
        if self.name(node) not in ("linear", "matmul") or self.value(node) is None or self.value(node).dtype != torch.float32:
            return None
        bound = self.bound(node)
        fn = bound.get("weight", bound.get("other"))
        if bound.get("bias") is not None:
            return None
        while self.name(fn) in ("t", "transpose") or (isinstance(fn, torch.fx.Node) and fn.op == "call_method" and fn.target in ("t", "float")):
            fn = fn.args[0]
        if fn not in self.graph.inputs or not self.graph.is_static(fn) or self.value(fn).dim() != 2:
            return None
        rows, wide = self.shape(self.value(fn))
        streams = bound["input"]
        while isinstance(streams, torch.fx.Node) and streams.op in ("call_method", "call_function"):
            value = self.value(streams)
            if value is not None and value.dtype in (torch.bfloat16, torch.float16) and value.dim() >= 3 \
                    and value.shape[-1] * value.shape[-2] == wide:
                break
            if not streams.all_input_nodes or len(streams.all_input_nodes) != 1:
                break
            streams = streams.all_input_nodes[0]
        value = self.value(streams)
        if value is None or value.dtype not in (torch.bfloat16, torch.float16) or value.dim() < 3:
            return None
        n, h = self.shape(value)[-2:]
        if n * h != wide or rows not in (n, n * n + 2 * n) or self.shape(self.value(node)) != (*self.shape(value)[:-2], rows):
            return None
        return streams, fn

    def _pre(self, node):
        found = self._projection(node)
        if found is None:
            return None
        streams, fn = found
        value = self.value(streams)
        (*lead, n, h), rows = self.shape(value), self.shape(self.value(fn))[0]
        behind = self._behind(node)
        x = next((item for item in self.nodes if item in behind and self._own(item) and self._is(item, (*lead, h), value.dtype)), None)
        if x is None:
            return None
        head = rows == n
        before_x = self._before([x], (streams,))
        rest = behind - self._behind(x) - {x}
        combs = [] if head else [item for item in self.nodes if item in rest and self._own(item) and self._is(item, (*lead, n, n), torch.float32)]
        posts = [item for item in self.nodes if item in rest - before_x - self._before(combs[-1:]) and self._own(item)
                 and (self._is(item, (*lead, n), torch.float32) or self._is(item, (*lead, n, 1), torch.float32))]
        if not head and not (combs and posts):
            return None
        post, comb = (None, None) if head else (posts[-1], combs[-1])
        piece = self._before([item for item in (x, post, comb) if item is not None], (streams,))
        vectors = [item for item in piece if item in self.graph.inputs and self.graph.is_static(item) and self.value(item).dim() <= 1]
        scales = [item for item in vectors if self.value(item).numel() == (1 if head else 3)]
        bases = [item for item in vectors if self.value(item).numel() == rows]
        added = {number for item in piece if self.name(item) == "add" for number in item.args if isinstance(number, float)}
        if len(scales) != 1 or len(bases) != 1 or len(added) != 1:
            return None
        divisions = sum(1 for item in piece if item.target in (python.truediv, torch.div, "div") and self._is(item, (*lead, n, n), torch.float32))
        factors = [number for item in (self._before([post], before_x) if post is not None else ()) if self.name(item) == "mul"
                   for number in item.args if isinstance(number, (int, float))]
        site = Pre(streams, fn, scales[0], bases[0], added.pop(), float(factors[0]) if len(factors) == 1 else 1.0, (divisions + 1) // 2,
                   x, post, comb)
        site.piece = {item for item in piece if item.op != "placeholder"} - {streams}
        return site if self._holds(site) else None

    def post_of(self, site):
        """The Post that takes what a Pre gave."""
        value = self.value(site.streams)
        shape = self.shape(value)
        behind = self._behind(site.comb)
        out = next((item for item in self.nodes if item in behind and self._own(item) and self._is(item, shape, value.dtype)), None)
        if out is None:
            return None
        known = {site.streams, site.post, site.comb}
        frontier, seen, left = set(), set(), [out]
        while left:
            node = left.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in known or (node is not out and self._is(node, (*shape[:-2], shape[-1]), value.dtype)) or node.op == "placeholder":
                frontier.add(node)
                continue
            left.extend(node.all_input_nodes)
        others = frontier - known
        if not known <= frontier or len(others) != 1:
            return None
        found = Post(out, others.pop(), site.streams, site)
        found.piece = seen - frontier
        return found if self._holds_post(found) else None

    # ---- believing

    def _run(self, ends, given):
        """The values of nodes from those of others."""
        values = dict(given)
        wanted = self._before(ends, tuple(given))
        for node in self.graph.graph.nodes:
            if node not in wanted or node in values:
                continue
            if node.op == "placeholder":
                values[node] = self.graph.examples[self.graph.inputs[node]]
                continue
            arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
            if node.op == "call_method":
                values[node] = getattr(arguments[0], node.target)(*arguments[1:], **keywords)
            elif node.op == "call_function":
                values[node] = node.target(*arguments, **keywords)
            else:
                return None
        return [values[node] for node in ends]

    def _random(self, node, positive=False):
        value = self.value(node)
        made = torch.randn(self.shape(value), device=value.device, dtype=torch.float32)
        return (made.abs() if positive else made).to(value.dtype)

    def _believe(self, ends, given, reference):
        def same(mine, own):
            limit = 2e-2 if own.dtype in (torch.bfloat16, torch.float16) else 1e-3
            own, mine = own.float(), mine.float().reshape(own.shape)
            return ((mine - own).norm() <= limit * own.norm()).item()

        with torch.no_grad(), torch.utils._python_dispatch._disable_current_modes():
            try:
                given = {node: make() for node, make in given.items()}
                got = self._run(ends, given)
                want = reference(given)
                return got is not None and all(same(mine, own) for mine, own in zip(got, want))
            except (RuntimeError, ValueError, TypeError, KeyError):
                return False

    def _example(self, node):
        return self.graph.examples[self.graph.inputs[node]]

    def _holds(self, site):
        def reference(given):
            streams = given[site.streams]
            fn, scale, base = (self._example(node) for node in (site.fn, site.scale, site.base))
            if site.post is None:
                return [reference_head(streams, fn, scale, base, site.eps)]
            post, comb, x = reference_pre(streams, fn, scale, base, site.eps, site.post_mult, site.repeat)
            return [x, post, comb]
        ends = [node for node in (site.x, site.post, site.comb) if node is not None]
        return self._believe(ends, {site.streams: lambda: self._random(site.streams)}, reference)

    def _holds_post(self, site):
        def reference(given):
            post, comb = given[site.pre.post], given[site.pre.comb]
            return [reference_post(given[site.x], given[site.streams], post if post.dim() < comb.dim() else post.squeeze(-1), comb)]
        given = {site.x: lambda: self._random(site.x), site.streams: lambda: self._random(site.streams),
                 site.pre.post: lambda: self._random(site.pre.post, True), site.pre.comb: lambda: self._random(site.pre.comb, True)}
        return self._believe([site.out], given, reference)
