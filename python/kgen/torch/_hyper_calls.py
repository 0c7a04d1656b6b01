"""Hyper-connections in a graph as calls of kgen's operators: spelled out (_hyper.py finds them), or kgen's own one behind the other."""
import operator as python

import torch

from . import _hyper, _problems as problems
from ._graph import Seen, bound_of, name_of, path_of, shape_of, value_of
from ._patterns import rms_norm_of


class HyperConnections:
    """A part of the back end's Rewriter."""

    def hyper_connections(self):
        """Those that are spelled out: mhc_pre for the first sublayer, mhc_fused_post_pre from one to the next with the norm of
        what it gives, mhc_post behind the last, hc_head."""
        finder = _hyper.Finder(self.graph, value_of, name_of, bound_of, shape_of)
        sites = finder.pres()
        posts = {}
        for site in sites:
            found = finder.post_of(site) if site.post is not None else None
            if found is not None:
                posts[found.out] = found
        now = {}  # what stands for a node that was replaced
        for site in sites:
            self.hyper_site(site, posts, now)
        for found in list(posts.values()):
            self.hyper_post(found, now)

    def hyper_operands(self, found, now):
        """mhc_post's operands."""
        post, comb = (now.get(node, node) for node in (found.pre.post, found.pre.comb))
        if value_of(post).dim() < value_of(comb).dim():
            post = Seen(post, "unsqueeze", -1)
        return {"x": now.get(found.x, found.x), "residual": now.get(found.streams, found.streams), "post_mix": post, "comb_mix": comb}

    def hyper_problem(self, op, streams, **attributes):
        *lead, n, h = shape_of(value_of(streams))
        tokens = 1
        for size in lead:
            tokens *= size
        return {"op": op, "dtype": problems.dtype(value_of(streams)), "n": n, **attributes}, {"t": tokens, "h": h}

    def hyper_site(self, site, posts, now):
        graph = self.graph
        streams = site.streams
        before = posts.get(streams)
        lead, n = shape_of(value_of(streams))[:-2], shape_of(value_of(streams))[-2]
        words = {} if n == 4 else {"n": n}
        own = {"fn": site.fn, "scale": site.scale, "base": site.base}
        options = {"rms_eps": site.eps, "pre_eps": site.eps, **words}
        behind = next(iter(site.x.users)) if len(site.x.users) == 1 else None
        norm = rms_norm_of(graph, behind) if behind is not None and site.post is not None and name_of(behind) == "rms_norm" else None
        alone = {"residual": now.get(streams, streams), **own}
        if graph.writes.get(graph.root(streams)) or (before is not None and graph.writes.get(graph.root(before.x))):
            return
        if site.post is None:
            tries = [(("hc_head", alone, options), None, False)]
            self.wish(self.hyper_problem("hc_head", streams), nodes=site.piece)
        else:
            options.update(sinkhorn_eps=site.eps, post_mult=site.post_mult, sinkhorn_repeat=site.repeat)
            normed = {**options, "norm": "round_first", "norm_eps": norm[2]} if norm is not None else None
            more = {"norm_weight": norm[1]} if norm is not None else {}
            tries = []
            if before is not None:
                joined = {**self.hyper_operands(before, now), **own}
                tries += [(("mhc_fused_post_pre", {**joined, **more}, normed), before, True)] if norm is not None else []
                tries += [(("mhc_fused_post_pre", joined, options), before, False)]
            tries += [(("mhc_pre", {**alone, **more}, normed), None, True)] if norm is not None else []
            tries += [(("mhc_pre", alone, options), None, False)]
            self.wish(self.hyper_problem(tries[0][0][0], streams, **({"norm": "round_first"} if norm is not None else {})),
                      nodes=site.piece | (before.piece if before is not None else set()) | ({behind} if norm is not None else set()))
        match, found = self.best(tries)
        if self.ops is None and before is not None and site.post is not None:
            posts.pop(streams)
        if match is None:
            self.report.add(path_of(site.x), tries[0][0][0], reason=found)
            return
        (op, operands, chosen), taken, with_norm = found
        if taken is None and before is not None:  # the streams that it reads come first
            self.hyper_post(posts.pop(streams), now)
            operands["residual"] = now.get(streams, streams)
        place = streams if taken is not None else min(operands["residual"].users, key=graph.order.__getitem__)
        path = path_of(site.x)
        with graph.graph.inserting_before(place):
            node = self.emit(op, operands, chosen, match)
            raw = [graph.call(python.getitem, node, index) for index in range(1 if site.post is None else 4 if taken is not None else 3)]
            flat = None
            if site.post is not None and value_of(site.post).dim() == len(lead) + 1:
                flat = graph.graph.call_method("squeeze", (raw[-3], -1))
        graph.order.update(dict.fromkeys([node, *raw, *([flat] if flat is not None else [])], graph.order[place]))
        pairs = [(behind if with_norm else site.x, raw[-1])]
        if site.post is not None:
            with value_of(streams).fake_mode:
                wide = torch.empty((*lead, n, 1), dtype=torch.float32, device=value_of(streams).device)
            raw[-3].meta["example_value"] = wide
            pairs += [(site.post, flat if flat is not None else raw[-3]), (site.comb, raw[-2])]
            now[site.post], now[site.comb] = raw[-3], raw[-2]
        if taken is not None:
            posts.pop(streams)
            pairs.append((streams, raw[0]))
        for old, new in pairs:
            new.meta.setdefault("example_value", old.meta["example_value"])
            now.setdefault(old, new)
            old.replace_all_uses_with(new)
        graph.erase(site.piece | {site.x} | (taken.piece if taken is not None else set()) | ({behind} if with_norm else set()))
        for item in [*raw, *([flat] if flat is not None else [])][::-1]:
            if not item.users and item not in now.values():
                graph.graph.erase_node(item)
        self.report.add(path, op + (" with its norm" if with_norm else ""), match)

    def hyper_post(self, found, now):
        graph = self.graph
        if found.out in now:
            return
        operands = self.hyper_operands(found, now)
        n = shape_of(value_of(found.streams))[-2]
        self.wish(self.hyper_problem("mhc_post", found.streams), nodes=found.piece)
        match, chosen = self.best([(("mhc_post", operands, {} if n == 4 else {"n": n}),)])
        if match is None:
            self.report.add(path_of(found.out), "mhc_post", reason=chosen)
            return
        path = path_of(found.out)
        with graph.graph.inserting_before(found.out):
            new = self.first(self.emit(*chosen[0], match))
        now[found.out] = new
        graph.order[new.args[0]] = graph.order[found.out]
        graph.replace(sorted(found.piece | {found.out}, key=graph.order.__getitem__), new)
        self.report.add(path, "mhc_post", match)

    def hyper(self, node):
        """kgen's own mhc_pre with the mhc_post before it, and with the norm of what it gives: one operator."""
        graph = self.graph
        pre = self.call_of(node, "mhc_pre")
        if pre is None:
            return
        operands, options = pre
        outputs = {user.args[1]: user for user in node.users if name_of(user) == "getitem"}
        if len(outputs) != len(node.users):
            return
        post_node = operands["residual"].args[0] if name_of(operands["residual"]) == "getitem" else None
        post = self.call_of(post_node, "mhc_post")
        behind = next(iter(outputs[2].users)) if 2 in outputs and len(outputs[2].users) == 1 else None
        norm = rms_norm_of(graph, behind) if behind is not None and name_of(behind) == "rms_norm" and "norm_weight" not in operands else None
        streams = operands["residual"]
        if post is not None and (any(graph.order[user] < graph.order[node] for user in streams.users) or len(post_node.users) != 1
                                 or post[1].get("n") != options.get("n")
                                 or not all(graph.unwritten(operand, post_node, node) for operand in post[0].values())):
            post = None
        more = {"norm_weight": norm[1]} if norm is not None and value_of(norm[1]) is not None else {}
        normed = {**options, "norm": "round_first", "norm_eps": norm[2]} if more else {}
        mine = {name: operand for name, operand in operands.items() if name != "residual"}
        tries = [(("mhc_fused_post_pre", {**post[0], **mine, **more}, normed), more, 1)] if post and more else []
        tries += [(("mhc_fused_post_pre", {**post[0], **mine}, options), {}, 1)] if post else []
        tries += [(("mhc_pre", {**operands, **more}, normed), more, 0)] if more else []
        match, found = self.best(tries) if tries else (None, "")
        if match is None:
            if tries:
                self.report.add(path_of(node), "mhc_fused_post_pre", reason=found)
            return
        (op, given, chosen), with_norm, first = found
        path = path_of(node)
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
