"""Blocks of several layers in a graph: dilated branches of one weight, the G2L block."""
import collections

from .._epilogue import ACTIVATIONS
from . import _problems as problems
from ._graph import Seen, bound_of, name_of, pair, path_of, shape_of, value_of
from ._patterns import next_step
from ._rewrite import channels_last


class Blocks:
    """A part of the back end's Rewriter."""

    def dilations(self):
        """Convolutions of one image with one weight at several dilations, and the G2L block that they may begin."""
        groups = collections.defaultdict(list)
        for node in self.graph.graph.nodes:
            if name_of(node) == "conv2d" and value_of(node) is not None:
                bound = bound_of(node)
                taps = shape_of(value_of(bound["weight"]))[2:]
                dil = pair(bound["dilation"])
                if bound["groups"] == 1 and pair(bound["stride"]) == (1, 1) and dil[0] == dil[1] \
                        and all(size % 2 for size in taps) and max(taps) > 1 \
                        and pair(bound["padding"]) == tuple(dil[0] * (size // 2) for size in taps):
                    groups[bound["input"], bound["weight"], bound["bias"]].append((dil[0], node))
        for (x, weight, bias), branches in groups.items():
            if len({dil for dil, _ in branches}) < 2:
                continue
            nodes = [node for _, node in branches]
            if all(self.graph.unwritten(operand, nodes[0], nodes[-1]) for operand in (x, weight, bias) if operand is not None):
                self.branches(x, weight, bias, [dil for dil, _ in branches], nodes)

    def branches(self, x, weight, bias, dils, nodes):
        steps = [next_step(self.graph, node) for node in nodes]
        kinds = {step[0] if step is not None else None for step in steps}
        act = kinds.pop() if len(kinds) == 1 else None
        if act not in ACTIVATIONS:
            act = None
        ends = [step[2][-1] if act is not None else node for node, step in zip(nodes, steps)]
        taken = [[node] if act is None else [node, *step[2]] for node, step in zip(nodes, steps)]
        epilogue = ",".join(["bias"] * (bias is not None) + [act] * (act is not None))
        tries = [(("multi_dilation_conv", {"x": seen(x), "weight": self.weight(weight, nhwc), **({"bias": bias} if bias else {})},
                   {"dils": ",".join(map(str, dils)), "layout": "nhwc" if nhwc else "nchw", "epilogue": epilogue}), nhwc)
                 for nhwc, seen, _ in self.layouts(value_of(nodes[0]))]
        self.wish(problems.dilations(value_of(x), value_of(tries[0][0][1]["x"]), value_of(weight), dils, tries[0][0][2]["layout"]) if tries else None,
                  epilogue.split(",") if epilogue else [], nodes=[node for mine in taken for node in mine])
        match, found = self.best(tries) if tries else (None, "x lies in no order that it has")
        if match is None:
            self.report.add(path_of(nodes[0]), "multi_dilation_conv", reason=found)
            if tries and tries[0][1]:
                self.tail(x, None, ends)  # for what it wishes
            return
        (op, operands, options), nhwc = found
        path = path_of(nodes[0])
        with self.graph.graph.inserting_before(nodes[0]):
            whole = self.first(self.emit(op, operands, options, match))
        self.graph.order[whole] = self.graph.order[nodes[0]]
        k, (n, _, h, w) = value_of(weight).shape[0], value_of(nodes[0]).shape
        with value_of(nodes[0]).fake_mode:
            whole.meta["example_value"] = value_of(nodes[0]).new_empty((n, h, w, len(dils) * k) if nhwc else (n, len(dils) * k, h, w))
        self.report.add(path, f"{op}[{epilogue}]", match)
        if nhwc and self.tail(x, whole, ends):
            self.graph.erase([node for mine in taken for node in mine])
            return
        for index, (end, mine) in enumerate(zip(ends, taken)):
            seen = Seen(whole, "narrow", 3 if nhwc else 1, index * k, k)
            seen = Seen(seen, "permute", 0, 3, 1, 2) if nhwc else seen
            with self.graph.graph.inserting_before(end):
                new = self.realize(seen)
            self.graph.replace(mine, new)
            new.meta["example_value"] = seen.value

    def tail(self, x, whole, branches):
        """The rest of a G2L block, which DocLayout-YOLO has: a pointwise convolution of each branch with one weight, a gate on
        all their channels, a mix of three channels each, the shortcut."""
        graph, nodes, points = self.graph, [], []

        def alone(node, wanted):
            step = next_step(graph, node)
            if step is None or step[0] != wanted:
                return None, None
            nodes.extend(step[2])
            return step[2][-1], step[1]

        def pointwise(node, groups):
            if name_of(node) != "conv2d":
                return None
            bound = bound_of(node)
            fine = shape_of(value_of(bound["weight"]))[2:] == (1, 1) and bound["groups"] == groups and pair(bound["stride"]) == (1, 1) \
                and pair(bound["padding"]) == (0, 0) and graph.is_static(bound["weight"])
            nodes.append(node)
            return bound if fine else None

        c = shape_of(value_of(x))[1]
        for branch in branches:
            user = next(iter(branch.users))
            point = pointwise(user, 1) if len(branch.users) == 1 else None
            end, _ = alone(user, "silu") if point is not None else (None, None)
            if end is None or len(end.users) != 1:
                return False
            points.append((point["weight"], point["bias"], end))
        cat = next(iter(points[0][2].users))
        if len(branches) != 3 or len({point[:2] for point in points}) != 1 or name_of(cat) != "cat" \
                or list(bound_of(cat)["tensors"]) != [point[2] for point in points] or bound_of(cat)["dim"] not in (1, -3) \
                or len(cat.users) != 2:
            return False
        nodes.append(cat)
        gate_node = next((user for user in cat.users if name_of(user) == "conv2d"), None)
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
        self.wish(problems.tail(value_of(x), points[0][1] is not None), nodes=nodes)
        if whole is None:
            return False
        wp, bp, _ = points[0]
        operands = {"z": whole, "wp": graph.derive("matrix", _matrix, wp), **({"bp": bp} if bp is not None else {}),
                    "gate_a": graph.derive("row", _row, gate["weight"]), "gate_b": graph.derive("row", _row, gate["bias"]),
                    "wm": graph.derive("matrix", _matrix, mix["weight"]), "bm": mix["bias"], "x": channels_last(x)}
        match, found = self.best([(("g2l_tail", operands, {} if bp is not None else {"bias": 0}),)])
        if match is None:
            self.report.add(path_of(end), "g2l_tail", reason=found)
            return False
        path = path_of(end)
        with graph.graph.inserting_before(end):
            new = self.first(self.emit(*found[0], match))
            new = graph.graph.call_method("permute", (new, 0, 3, 1, 2))
        graph.replace(sorted(nodes, key=graph.order.__getitem__), new)
        self.report.add(path, "g2l_tail", match)
        return True


def _matrix(weight):
    return weight.flatten(1)


def _row(weight):
    return weight.flatten().float()
