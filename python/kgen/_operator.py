"""One operator of a tuned DB: from a caller's tensors to a kernel and its arguments."""
import difflib
import functools
import sys
import threading
import warnings

from ctypes import c_double, c_int64, c_void_p

from . import _tensor
from ._expression import Expression
from ._library import BadArgument, KgenError, Match as CMatch, NotFound, _BY_STATUS, check, last_error, load

KINDS = ("none", "exact", "near", "default", "dynamic")


class Match:
    """How a shape is served. `expected_us` is the time measured at the shape that the kernel was tuned for, `expected_loss` how much
    slower than the best kernel for this shape it is expected to be (0.02: 2 %; None: not known)."""

    def __init__(self, op, raw, signature, dims):
        self.op, self.signature, self.dims = op, signature, dims
        self.kind = KINDS[raw.kind]
        self.reason = raw.reason.decode()
        self.config = raw.config.decode()
        self.expected_us = raw.tuned_time_us
        loss = load().kgen_expected_loss(raw.kernel)
        self.expected_loss = loss if loss >= 0 else None
        self.workspace_bytes, self.prepared_bytes = raw.workspace_bytes, raw.prepared_bytes
        self.kernel = raw.kernel
        self.weights = []

    def __repr__(self):
        return f"<kgen.Match {self.op}: {self.reason}; {self.config}; {self.expected_us:g} us>"


class _Operand:
    def __init__(self, item):
        self.name, self.role, self.dtype = item["name"], item["role"], item["dtype"]
        self.shape = [Expression(text) for text in item["shape"]]
        self.strides = [Expression(text) for text in item["strides"]]
        self.present = Expression(item["present"] or "0")


class Signature:
    """What one op was tuned as: attributes, operands, dims."""

    def __init__(self, item):
        self.text = item["signature"]
        self.attributes, self.defaults = item["attributes"], item["defaults"]
        self.constants = item["constants"]
        self.operands = [_Operand(tensor) for tensor in item["tensors"]]
        self.by_name = {operand.name: operand for operand in self.operands}
        self.inputs = [operand for operand in self.operands if operand.role != "out"]
        self.outputs = [operand for operand in self.operands if operand.role == "out"]
        self.scalars = {scalar["name"]: scalar["default"] for scalar in item["scalars"]}
        self.dims = item["dims"]
        self.dim_defaults = {name: Expression(text) if text else None
                             for name, text in zip(item["dims"], item["dim_defaults"])}
        self.flops, self.bytes = Expression(item["flops"]), Expression(item["bytes"])
        # Members of list attributes that stand for an operand: {"epilogue": {"bias": {"bias"}, "add_c": {"c"}}}
        self.lists = {}
        for operand in self.operands:
            for name in operand.present.names:
                for attribute in self.attributes.keys() | self.defaults.keys():
                    if name.startswith(attribute + "_"):
                        self.lists.setdefault(attribute, {}).setdefault(name[len(attribute) + 1:], set()).add(operand.name)
        self.handle = None

    def attribute(self, name):
        return self.attributes.get(name, "")

    def default(self, name):
        """The value of an attribute that was not given; "" where there is none. May name an earlier attribute."""
        text = self.defaults.get(name, "")
        return self.attribute(text) if text in self.defaults and text != name else text

    def is_present(self, operand, env):
        try:
            return operand.present.eval(env) != 0
        except KeyError:
            return None  # depends on dims


class _Mismatch(Exception):
    """Why a signature does not serve a call; `shapes`: all but the shapes of its operands do."""

    def __init__(self, text, shapes=False, fit=0):
        super().__init__(text)
        self.shapes, self.fit = shapes, fit


def _word(value):
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return ",".join(_word(item) for item in value)
    return "".join(str(value).split())


def _merge(shape, strides, axes):
    """The first `axes` + 1 axes as one, or None where memory does not allow it."""
    size, stride = shape[axes], strides[axes]
    for i in range(axes - 1, -1, -1):
        if shape[i] == 1:
            continue
        if size == 1:
            stride = strides[i]
        elif strides[i] != size * stride and size > 0:
            return None
        size *= shape[i]
    return (size,) + tuple(shape[axes + 1:]), (stride,) + tuple(strides[axes + 1:])


class _Binding:
    """A call's operands bound to one signature: all dims, and shapes to give outputs."""

    def __init__(self, signature, views, dims):
        self.signature = signature
        env = self.env = dict(signature.constants)
        self.given = dict(dims)
        env.update(dims)
        operands = [operand for operand in signature.operands if operand.name in views]
        self.lead = None  # axes of the first operand that were merged into one
        self.dropped = self._batch_dropped(operands, views)
        fitted = [(operand, *self._fit(operand, views[operand.name])) for operand in operands]
        self.lead_text = None
        if fitted:
            first, view = fitted[0][0], views[fitted[0][0].name]
            shape = first.shape[1:] if self.dropped else first.shape
            if len(view.shape) > len(shape):
                self.lead = view.shape[:len(view.shape) - len(shape) + 1]
                self.lead_text = shape[0].text
        self._bind(fitted)
        self._check(fitted)

    def _batch_dropped(self, operands, views):
        """Whether operands come without the leading axis that all share and that is 1 by default (batch)."""
        def optional(operand):
            text = operand.shape[0].text if operand.shape else ""
            default = self.signature.dim_defaults.get(text)
            return text if default is not None and default.text == "1" else None

        names = {optional(operand) for operand in operands} - {None}
        if len(names) != 1:
            return None
        name = names.pop()
        without = [operand for operand in operands
                   if optional(operand) == name and len(views[operand.name].shape) == len(operand.shape) - 1]
        if not without or name in self.given:
            return None
        for operand in operands:
            if optional(operand) != name:
                continue
            view, rank = views[operand.name], len(operand.shape) - 1
            if len(view.shape) > rank and _merge(view.shape, view.strides, len(view.shape) - rank) is None:
                return None  # rows that do not follow one another: products that share what has no batch
        return name

    def _fit(self, operand, view):
        """Shape and strides with as many axes as the operand has; None stands for an axis that any size fits."""
        formal, shape, strides = operand.shape, view.shape, view.strides
        rank = len(formal)
        if self.dropped and formal and formal[0].text == self.dropped:
            extra = len(shape) - (rank - 1)
            merged = _merge(shape, strides, extra) if extra > 0 else (shape, strides)
            if extra < 0 or merged is None:
                raise _Mismatch(f"{operand.name} has {len(shape)} axes, not {self._formal(operand)}", True)
            return (1,) + tuple(merged[0]), (0,) + tuple(merged[1])
        extra = len(shape) - rank
        if extra == 0:
            return tuple(shape), tuple(strides)
        if extra == -1 and self.signature.dim_defaults.get(formal[0].text) is not None:
            return (None,) + tuple(shape), (0,) + tuple(strides)
        if extra > 0 and rank > 0:
            merged = _merge(shape, strides, extra)
            if merged is not None:
                return merged
            raise _Mismatch(f"{operand.name}: leading axes of {list(shape)} with strides {list(strides)} cannot be seen "
                            "as one; make it contiguous", True)
        raise _Mismatch(f"{operand.name} has {len(shape)} axes, not {self._formal(operand)}", True)

    def _formal(self, operand):
        return "[" + ", ".join(expression.shown(self.env) for expression in operand.shape) + "]"

    def _bind(self, fitted):
        env, signature = self.env, self.signature
        # An attribute that is an axis (attention's d) is a constant: checked below.
        pending = [(operand, axis, size) for operand, shape, _ in fitted for axis, size in enumerate(shape)
                   if size is not None]
        progress = True
        while progress:
            progress = False
            for item in list(pending):
                operand, axis, size = item
                expression = operand.shape[axis]
                unknown = expression.unknown(env) & set(signature.dims)
                if not unknown:
                    pending.remove(item)
                    continue
                solved = expression.solve(env, size)
                if solved is not None and solved[0] in signature.dim_defaults:
                    env[solved[0]] = solved[1]
                    pending.remove(item)
                    progress = True
        for operand, shape, strides in fitted:
            for expression, size, stride in reversed(list(zip(operand.strides, shape, strides))):
                name = expression.text
                if size is not None and size <= 1:
                    continue
                if name in signature.dim_defaults:
                    env.setdefault(name, stride)
                elif expression.unknown(env) & set(signature.dims):  # from pixel to pixel: layout == nhwc ? w*ldx : h*w
                    solved = expression.solve(env, stride)
                    if solved is not None and solved[0] in signature.dim_defaults:
                        env[solved[0]] = solved[1]
        for name in signature.dims:
            if name in env:
                continue
            default = signature.dim_defaults[name]
            if default is None:
                raise _Mismatch(f"dim '{name}' does not follow from the operands; give {name}=…", True)
            try:
                env[name] = default.eval(env)
            except (ValueError, KeyError, ZeroDivisionError) as error:
                raise _Mismatch(f"dim '{name}' ({default.text}) cannot be computed: {error}", True) from None
            if env[name] < 0:
                raise _Mismatch(f"dim '{name}' ({default.text}) is {env[name]}", True)

    def _check(self, fitted):
        env = self.env
        for operand, shape, strides in fitted:
            expected = self.sizes(operand.shape)
            for axis, (size, want) in enumerate(zip(shape, expected)):
                if size is not None and size != want:
                    dims = ", ".join(f"{name}={env[name]}" for name in self.signature.dims
                                     if name in operand.shape[axis].names)
                    shown = [want if size is None else size for size, want in zip(shape, expected)]
                    raise _Mismatch(f"{operand.name} is {shown}, not {self._formal(operand)} = {list(expected)}"
                                    + (f" ({dims})" if dims else ""), True)
            if 0 in expected:
                continue
            for axis, (stride, want) in enumerate(zip(strides, self.sizes(operand.strides))):
                if expected[axis] > 1 and stride != want:
                    raise _Mismatch(f"{operand.name}: axis {axis} of {list(expected)} has stride {stride}, not {want} "
                                    f"({operand.strides[axis].text}); make it contiguous", True)

    def sizes(self, expressions):
        try:
            return tuple(expression.eval(self.env) for expression in expressions)
        except (ValueError, ZeroDivisionError) as error:
            raise _Mismatch(str(error), True) from None

    def output_layout(self, operand):
        """(shape, strides) as the caller sees it: without the batch that operands did not have, with the axes that were
        merged. No strides: one row behind the other."""
        shape, formal = self.sizes(operand.shape), operand.shape
        strides = self.sizes(operand.strides)
        if not any(name in self.given for stride in operand.strides for name in stride.names) or all(
                size <= 1 or stride == plain for size, stride, plain in zip(shape, strides, _tensor.row_major(shape))):
            strides = None
        if self.dropped and formal[0].text == self.dropped:
            shape, formal, strides = shape[1:], formal[1:], strides and strides[1:]
        if self.lead is not None and formal and formal[0].text == self.lead_text:
            if strides is not None:
                raise BadArgument(f"{operand.name} with gaps between its rows has {self._formal(operand)} axes; give out=")
            shape = tuple(self.lead) + shape[1:]
        return shape, strides


class _Call:
    """Everything about a call that does not depend on its pointers."""

    __slots__ = ("signature", "match", "slots", "outputs", "scalars", "present", "weights", "env", "ready")


class _Plan:
    """A call of torch tensors: the _Call, how outputs are made, where each pointer of the launch comes from."""

    __slots__ = ("call", "device", "launch", "make", "places", "array", "weights", "frozen")


_PLAIN = {str, int, float, bool}


class Operator:
    """db.gemm and so on. Calling it runs it; find() tells which kernel would, prepare() repacks weights ahead."""

    def __init__(self, database, name, description):
        self.name, self._database = name, database
        self.signatures, self._gone = [], []
        self._calls, self._plans = {}, {}
        self._prepared = {}
        self._lock = threading.Lock()
        self._warned = False
        self._renew(description)

    def _renew(self, description):
        """Takes what the DB has now. Handles of before stay open: their kernels may be in use."""
        with self._lock:
            self._gone += [signature for signature in self.signatures if signature.handle is not None]
            self.signatures = [Signature(item) for item in description]
            self._calls, self._plans = {}, {}
        self.operands = list(dict.fromkeys(operand.name for signature in self.signatures
                                           for operand in signature.inputs))
        self._names = {
            "operand": set(self.operands) | {operand.name for signature in self.signatures for operand in signature.outputs},
            "attribute": {name for signature in self.signatures for name in signature.defaults},
            "dim": {name for signature in self.signatures for name in signature.dims},
            "scalar": {name for signature in self.signatures for name in signature.scalars},
        }
        self.__doc__ = self._doc()

    def _doc(self):
        lines = [f"{self.name}({', '.join(self.operands)}, *, out=None, stream=None, activation=None, …)", ""]
        for signature in self.signatures[:1]:
            for operand in signature.operands:
                shape = ", ".join(expression.text for expression in operand.shape)
                lines.append(f"  {operand.name}: {operand.role} [{shape}]")
            lines.append("  attributes: " + " ".join(f"{name}={value}" for name, value in signature.defaults.items()))
            lines.append("  dims: " + ", ".join(signature.dims))
            if signature.scalars:
                lines.append("  scalars: " + ", ".join(f"{name}={value:g}" for name, value in signature.scalars.items()))
        lines.append("tuned as:")
        lines += ["  " + signature.text for signature in self.signatures]
        return "\n".join(lines)

    def __repr__(self):
        return f"<kgen operator {self.name} of {self._database.path}: {len(self.signatures)} signatures>"

    # ---- the call

    def __call__(self, *tensors, out=None, stream=None, frozen=False, **keywords):
        """Runs the operator in stream order and returns its output, or a tuple of outputs. `out`: tensors to write.
        `frozen`: the weights never change, so what the kernel repacks is kept, as prepare() does it."""
        if out is None and stream is None and "torch" in sys.modules:
            split = self._torch_call(tensors, keywords)
            if split is not None:
                names, given, rest = split
                results = self.run_torch(names, given, (rest, frozen), {**dict(rest), "frozen": frozen})
                return results[0] if len(results) == 1 else tuple(results)
        call, views, outs = self._resolve(tensors, out, stream, keywords)
        model = next(iter(views.values()))
        results = []
        for index, (operand, shape, strides, dtype) in enumerate(call.outputs):
            if outs is None:
                tensor = _tensor.empty_like(model, dtype, shape, strides, self._database)
                views[operand.name] = _tensor.view(tensor)
            else:
                tensor = outs[index]
            results.append(tensor)
        self._launch(call, views, self._stream(stream, views), frozen)
        return results[0] if len(results) == 1 else tuple(results)

    def _torch_call(self, tensors, keywords):
        """(names of operands, torch tensors, other arguments), or None where that is not all."""
        kind = sys.modules["torch"].Tensor
        names, given, rest = [], [], []
        for name, value in (*zip(self.operands, tensors), *keywords.items()):
            if isinstance(value, kind):
                names.append(name)
                given.append(value)
            elif type(value) in _PLAIN:
                rest.append((name, value))
            elif isinstance(value, (list, tuple)):
                rest.append((name, _word(value)))
            elif value is not None:
                return None
        if not given or len(tensors) > len(self.operands) or len(set(names)) != len(names):
            return None
        return tuple(names), given, tuple(rest)

    def run_torch(self, names, tensors, options, keywords):
        """Runs it on torch tensors and returns the list of its outputs. What follows from types and shapes is looked up by
        them and by `options`, which stand for `keywords`."""
        key = (names, options, *[(tensor.dtype, tensor.shape, tensor.stride(), tensor.device) for tensor in tensors])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(names, tensors, keywords)
            if len(self._plans) >= 4096:  # shapes without end: start again
                self._plans.clear()
            self._plans[key] = plan
        results = [make() for make in plan.make]
        pointers = [tensor.data_ptr() for tensor in tensors]
        made = [tensor.data_ptr() for tensor in results]
        arguments = plan.array(*[None if place is None else pointers[place] if place >= 0 else made[-1 - place]
                                 for place in plan.places])
        stream = _tensor.raw_stream(plan.device)
        workspace = prepared = None
        match = plan.call.match
        if match.workspace_bytes:
            workspace, held = self._database._torch_scratch(match.workspace_bytes, plan.device)
        if match.prepared_bytes:
            weights = tuple([(name, pointers[place], _version(tensors[place])) for name, place in plan.weights])
            kept = self._prepared.get((match.kernel, weights))
            if kept is None:
                views = {name: self._view(name, tensor, None) for name, tensor in zip(names, tensors)}
                kept = self._prepare(plan.call, views, stream, keep=plan.frozen)[1]
                prepared = kept[0]
            else:
                prepared = kept[0]
        status = plan.launch(match.kernel, arguments, plan.call.scalars, workspace, prepared, stream)
        if status:
            check(status, f"{self.name}: ")
        return results

    def _plan(self, names, tensors, keywords):
        torch = sys.modules["torch"]
        keywords = dict(keywords)
        plan = _Plan()
        plan.frozen = bool(keywords.pop("frozen", False))
        call, _, _ = self._resolve((), None, None, {**keywords, **dict(zip(names, tensors))})
        plan.call, plan.device, plan.launch = call, tensors[0].device, load().kgen_launch
        plan.make = [functools.partial(torch.empty, shape, dtype=getattr(torch, _tensor.FRAMEWORK_NAME[dtype]), device=plan.device)
                     if strides is None else
                     functools.partial(torch.empty_strided, shape, strides, dtype=getattr(torch, _tensor.FRAMEWORK_NAME[dtype]), device=plan.device)
                     for _, shape, strides, dtype in call.outputs]
        outputs = [operand.name for operand, _, _, _ in call.outputs]
        plan.places = [None if name not in call.present else names.index(name) if name in names else -1 - outputs.index(name)
                       for name in call.slots]
        plan.array = c_void_p * len(call.slots)
        plan.weights = [(name, names.index(name)) for name in call.weights]
        return plan

    def find(self, *tensors, out=None, **keywords):
        """The Match for these tensors, or for dims and attributes given by name: find(m=8, n=16, k=32, dtype="fp32")."""
        if tensors or any(_tensor.is_tensor(value) for value in keywords.values()):
            return self._resolve(tensors, out, None, keywords)[0].match
        attributes, dims, scalars, activation = self._sort(keywords)
        if activation is not None:
            raise BadArgument("find() by dims takes the whole list (epilogue=\"bias,silu\"), not activation=")
        words = " ".join(f"{name}={_word(value)}" for name, value in attributes.items())
        names = ",".join(dims)
        handle = self._database._open_op(self.name, words, names)
        try:
            raw = CMatch()
            values = (c_int64 * max(1, len(dims)))(*dims.values())
            _checked(load().kgen_find(handle, values, raw), raw, self.name)
            match = Match(self.name, raw, words, dict(dims))
            match.kernel = None  # goes with the handle
            return match
        finally:
            load().kgen_close_op(handle)

    def prepare(self, *tensors, out=None, stream=None, **keywords):
        """Repacks the weights of this call now, for all later calls with the same weights (by their pointers) that the
        same kernel serves. The DB keeps the weights; after changing one in place, forget() it and prepare again."""
        call, views, _ = self._resolve(tensors, out, stream, keywords)
        check(load().kgen_preload(call.match.kernel), f"{self.name}: ")
        if call.match.prepared_bytes:
            self._prepare(call, views, self._stream(stream, views), keep=True)
        return call.match

    def forget(self, *weights):
        """Drops what prepare() made of these weights; of all of them when none is named."""
        pointers = {_tensor.view(weight).pointer for weight in weights}
        with self._lock:
            for key in [key for key in self._prepared if not weights or pointers & {item[1] for item in key[1]}]:
                del self._prepared[key]

    def output_specs(self, views, keywords):
        """(shape, strides or None, dtype) of each output for Views of the operands; what torch's fake tensors are made from.
        Sizes may be symbols."""
        signature, binding, _ = self._choose(views, (), keywords)
        return [(*binding.output_layout(operand), operand.dtype) for operand in signature.outputs]

    def match_views(self, views, keywords):
        """The Match for Views of the operands, whose pointers do not matter."""
        for name, view in views.items():
            self._placed(name, view)
        return self._call_of(*self._choose(views, (), keywords)).match

    # ---- resolving

    def _sort(self, keywords):
        attributes, dims, scalars, activation = {}, {}, {}, None
        for name, value in keywords.items():
            if name == "activation" and name not in self._names["attribute"]:
                if not any(signature.lists for signature in self.signatures):
                    raise BadArgument(f"{self.name} has no activation")
                activation = value or ""
            elif name in self._names["attribute"]:
                attributes[name] = value
            elif name in self._names["dim"]:
                if isinstance(value, bool) or not isinstance(value, int):
                    try:
                        value = value.__index__()
                    except AttributeError:
                        raise BadArgument(f"{self.name}: dim '{name}' is {value!r}, not an integer") from None
                if value < 0:
                    raise BadArgument(f"{self.name}: dim '{name}' is negative ({value})")
                dims[name] = value
            elif name in self._names["scalar"]:
                scalars[name] = float(value)
            elif name in self._names["operand"]:
                raise BadArgument(f"{self.name}: operand '{name}' is a {type(value).__name__}, not a tensor")
            else:
                raise BadArgument(f"{self.name} has no '{name}'" + _nearest(name, set().union(*self._names.values())
                                                                            | {"out", "stream", "frozen", "activation"}))
        return attributes, dims, scalars, activation

    def _resolve(self, tensors, out, stream, keywords):
        """The _Call for these arguments, from memory if it was made before, and the operands' views."""
        views, rest = {}, {}
        if len(tensors) > len(self.operands):
            raise BadArgument(f"{self.name} takes {len(self.operands)} operands ({', '.join(self.operands)}), not "
                              f"{len(tensors)}")
        for name, tensor in zip(self.operands, tensors):
            if tensor is not None:
                views[name] = self._view(name, tensor, stream)
        for name, value in keywords.items():
            if value is None and (name in self._names["operand"] or name == "activation"):
                continue
            if name in self._names["operand"] and _tensor.is_tensor(value):
                if name in views:
                    raise BadArgument(f"{self.name}: operand '{name}' is given twice")
                views[name] = self._view(name, value, stream)
            else:
                rest[name] = value
        if not views:
            raise BadArgument(f"{self.name} needs its operands ({', '.join(self.operands)})")
        outs = None
        if out is not None:
            outs = tuple(out) if isinstance(out, (list, tuple)) else (out,)
        out_views = () if outs is None else tuple(self._view("out", item, stream) for item in outs)
        key = (tuple((name, view.dtype, view.shape, view.strides) for name, view in views.items()),
               tuple((view.dtype, view.shape, view.strides) for view in out_views),
               tuple((name, _word(value)) for name, value in rest.items()))
        call = self._calls.get(key)
        if call is None:
            call = self._make(views, out_views, rest)
            if len(self._calls) >= 4096:  # shapes without end: start again
                self._calls.clear()
            self._calls[key] = call
        if outs is not None:
            for (operand, _, _, _), view in zip(call.outputs, out_views):
                views[operand.name] = view
        return call, views, outs

    def _view(self, name, tensor, stream):
        try:
            view = _tensor.view(tensor, stream)
        except BadArgument as error:
            raise BadArgument(f"{self.name}: {name}: {error}") from None
        return self._placed(name, view)

    def _placed(self, name, view):
        device, index = self._database._place
        if view.device != device or (index is not None and view.index is not None and view.index != index):
            place = view.device if view.device == "cpu" or view.index is None else f"{view.device}:{view.index}"
            raise BadArgument(f"{self.name}: {name} is on {place}; this DB was opened for {self._database.device}")
        return view

    def _make(self, views, out_views, rest):
        return self._call_of(*self._choose(views, out_views, rest))

    def _choose(self, views, out_views, rest):
        """The signature that serves, the operands bound to it, and the scalars."""
        attributes, dims, scalars, activation = self._sort(rest)
        attributes = {name: _word(value) for name, value in attributes.items()}
        found, reasons, shapes = [], [], []  # reasons: the signatures that fit best first
        for signature in self.signatures:
            try:
                self._accepts(signature, views, out_views, attributes, activation)
                binding = self._bind(signature, views, out_views, dims)
                others = sum(1 for name in signature.defaults
                             if name not in attributes and signature.attribute(name) != signature.default(name))
                found.append((others, len(found), signature, binding))
            except _Mismatch as mismatch:
                (shapes if mismatch.shapes else reasons).append((-mismatch.fit, signature.text, str(mismatch)))
        if not found:
            operands = ", ".join(f"{name} {view.dtype}{list(view.shape)}" for name, view in views.items())
            if shapes:
                texts = list(dict.fromkeys(text for _, _, text in shapes))
                raise BadArgument(f"{self.name}({operands}): " + "; or: ".join(texts[:3]))
            reasons.sort(key=lambda reason: reason[0])
            known = "".join(f"\n  {signature}: {text}" for _, signature, text in reasons[:6])
            more = "" if len(reasons) <= 6 else f"\n  … and {len(reasons) - 6} more"
            raise NotFound(f"{self.name}({operands}): nothing in {self._database.path} was tuned as that:{known}{more}")
        _, _, signature, binding = min(found, key=lambda item: item[:2])
        return signature, binding, scalars

    def _accepts(self, signature, views, out_views, attributes, activation):
        """Attributes, types and presence; shapes come later."""
        unknown = set(attributes) - set(signature.defaults)
        if unknown:
            raise _Mismatch(f"has no attribute '{unknown.pop()}'")
        for name, value in attributes.items():
            if signature.attribute(name) != value:
                raise _Mismatch(f"{name} is {value or 'empty'}, was tuned as {signature.attribute(name) or 'empty'}", fit=1)
        for name, view in views.items():
            operand = signature.by_name.get(name)
            if operand is None:
                raise _Mismatch(f"has no operand '{name}'")
            if operand.dtype != view.dtype:
                raise _Mismatch(f"{name} is {view.dtype}, was tuned as {operand.dtype}")
        for operand in signature.inputs:
            present = signature.is_present(operand, signature.constants)
            if present is False and operand.name in views:
                raise _Mismatch(f"was tuned without {operand.name}", fit=2)
            if present and operand.name not in views:
                raise _Mismatch(f"needs {operand.name}", fit=2)
        if out_views:
            if len(out_views) != len(signature.outputs):
                raise _Mismatch(f"out has {len(out_views)} tensors, the outputs are "
                                + ", ".join(operand.name for operand in signature.outputs), True)
            for operand, view in zip(signature.outputs, out_views):
                if operand.dtype != view.dtype:
                    raise _Mismatch(f"out is {view.dtype}, {operand.name} was tuned as {operand.dtype}", fit=3)
        axes = {expression.text for operand in signature.inputs if operand.name in views for expression in operand.shape}
        for name in signature.defaults:
            if name in attributes:
                continue
            value, default = signature.attribute(name), signature.default(name)
            if name in signature.lists:
                self._accepts_list(name, value, signature.lists[name], activation)
            elif name in axes or (name.endswith("dtype") and (name != "out_dtype" or out_views)):
                continue  # the operands tell
            elif value != default:
                raise _Mismatch(f"was tuned for {name}={value}; ask for it by name", fit=3)

    @staticmethod
    def _accepts_list(name, value, tied, activation):
        members = [member for member in value.split(",") if member]
        free = [member for member in members if member not in tied]
        if free != ([activation] if activation else []):
            raise _Mismatch(f"was tuned with {name}={value or 'nothing'}; ask for activation=\"{','.join(free)}\""
                            if free else f"was tuned without {activation}", fit=3)
        if free and any(member.startswith("add_") for member in members[:members.index(free[0])]):
            raise _Mismatch(f"adds before the activation; ask for it by {name}=\"{value}\"", fit=4)

    def _bind(self, signature, views, out_views, dims):
        named = dict(views)
        for operand, view in zip(signature.outputs, out_views):
            named[operand.name] = view
        unknown = set(dims) - set(signature.dims)
        if unknown:
            raise _Mismatch(f"has no dim '{unknown.pop()}'")
        binding = _Binding(signature, named, dims)
        for operand in signature.inputs:
            present = signature.is_present(operand, binding.env)
            if present is False and operand.name in views and 0 not in views[operand.name].shape:
                raise _Mismatch(f"{operand.name} is not used with {operand.present.text} = 0", True)
            if present and operand.name not in views:
                raise _Mismatch(f"{operand.name} is missing ({operand.present.text})", True)
        return binding

    def _call_of(self, signature, binding, scalars):
        handle = self._handle(signature)
        raw = CMatch()
        values = (c_int64 * len(signature.dims))(*(binding.env.get(name, 0) for name in signature.dims))
        _checked(load().kgen_find(handle, values, raw), raw, self.name)
        call = _Call()
        call.signature, call.env = signature, binding.env
        call.match = Match(self.name, raw, signature.text, {name: binding.env.get(name, 0) for name in signature.dims})
        call.present = {operand.name for operand in signature.operands if signature.is_present(operand, binding.env)}
        call.slots = [operand.name for operand in signature.operands]
        call.outputs = [(operand, *binding.output_layout(operand), operand.dtype) for operand in signature.outputs]
        call.scalars = None
        if signature.scalars:
            call.scalars = (c_double * len(signature.scalars))(*(scalars.get(name, default)
                                                                for name, default in signature.scalars.items()))
        call.weights = call.match.weights = self._weights(signature, call.present)
        return call

    @staticmethod
    def _weights(signature, present):
        """Operands that stay the same from call to call: those without the first operand's leading dim (rows, images)."""
        first = signature.inputs[0]
        lead = next((expression.text for expression in first.shape
                     if expression.text in signature.dim_defaults and signature.dim_defaults[expression.text] is None), None)
        return [operand.name for operand in signature.inputs
                if operand.name in present and all(lead not in expression.names for expression in operand.shape)]

    def _handle(self, signature):
        with self._lock:
            if signature.handle is None:
                words = " ".join(f"{name}={value}" for name, value in signature.attributes.items())
                signature.handle = self._database._open_op(self.name, words, ",".join(signature.dims))
            return signature.handle

    def _close(self):
        with self._lock:
            for signature in [*self.signatures, *self._gone]:
                if signature.handle is not None:
                    load().kgen_close_op(signature.handle)
                    signature.handle = None
            self._gone = []
            self._calls.clear()
            self._plans.clear()
            self._prepared.clear()

    # ---- running

    def _stream(self, stream, views):
        if stream is None:
            return _tensor.current_stream(views.values())
        for attribute in ("cuda_stream", "ptr"):  # torch's, cupy's
            stream = getattr(stream, attribute, stream)
        return int(stream)

    def _pointers(self, call, views):
        return (c_void_p * len(call.slots))(*(views[name].pointer if name in views and name in call.present else None
                                              for name in call.slots))

    def _launch(self, call, views, stream, frozen):
        match = call.match
        workspace = prepared = None
        if match.workspace_bytes:
            workspace, held = self._database._workspace(match.workspace_bytes, stream, next(iter(views.values())))
        if match.prepared_bytes:
            prepared, kept = self._prepare(call, views, stream, keep=frozen)
        status = load().kgen_launch(match.kernel, self._pointers(call, views), call.scalars, workspace, prepared, stream)
        check(status, f"{self.name}: " if status else "")

    def _prepare(self, call, views, stream, keep):
        """(pointer, owner) of the repacked weights: those kept by prepare(), else repacked for this call alone."""
        weights = [views[name] for name in call.weights]
        key = (call.match.kernel, tuple((name, view.pointer, _version(view.keep))
                                        for name, view in zip(call.weights, weights)))
        with self._lock:
            kept = self._prepared.get(key)
        if kept is not None:
            return kept[0], kept
        if keep:
            self._database._refuse_capture(next(iter(views.values())))
        elif not self._warned:
            self._warned = True
            warnings.warn(f"{self.name} repacks its weights in every call; call db.{self.name}.prepare(…) once with the "
                          "same arguments, or give frozen=True", stacklevel=4)
        pointer, owner = self._database._scratch(call.match.prepared_bytes, stream, next(iter(views.values())))
        check(load().kgen_prepare(call.match.kernel, self._pointers(call, views), pointer, stream), f"{self.name}: ")
        entry = (pointer, owner, [view.keep for view in weights])
        if keep:
            self._database.synchronize(stream)  # it is used from any stream later
            with self._lock:
                stale = [other for other in self._prepared if other[0] == key[0]
                         and [item[:2] for item in other[1]] == [item[:2] for item in key[1]]]
                for other in stale:
                    del self._prepared[other]
                self._prepared[key] = entry
        return pointer, entry


def _version(tensor):
    """torch counts the writes to a tensor, but for those that were made in inference mode."""
    try:
        return getattr(tensor, "_version", 0)
    except RuntimeError:
        return 0


def _checked(status, raw, name):
    if status != 0:
        reason = raw.reason.decode() if raw.reason else last_error()
        raise _BY_STATUS.get(status, KgenError)(f"{name}: {reason}")


def _nearest(name, known):
    close = difflib.get_close_matches(name, sorted(known), 1)
    return f"; did you mean '{close[0]}'?" if close else f" (there are {', '.join(sorted(known))})"
