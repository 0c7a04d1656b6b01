"""optimize(): modules whose calls a DB serves, replaced by kgen's operators."""
import math
import re
import weakref

import torch
from torch.overrides import TorchFunctionMode

from .._library import KgenError
from ._problems import is_nhwc
from ._ops import Ops, convolution_options, load
from ._report import Report, accepted, check_accept
from ._fold import folded_bias, folded_weight


class _Kept(torch.nn.Module):
    """Keeps the parameters of the module in whose place it stands, under their names."""

    def __init__(self, module):
        super().__init__()
        for name, parameter in module._parameters.items():  # also those that are None: a layer without bias
            self.register_parameter(name, parameter)
        for name, buffer in module._buffers.items():
            self.register_buffer(name, buffer, persistent=name not in module._non_persistent_buffers_set)
        self.train(module.training)
        self._origin = type(module).__name__


class Passed(_Kept):
    """A batch norm or an activation that went into the product before it."""

    def extra_repr(self):
        return f"{self._origin}, within the product before it"

    def forward(self, x):
        return x


class _Replacement(_Kept):
    op = ""

    def __init__(self, module, ops):
        super().__init__(module)
        self._call = getattr(ops, self.op)
        self._number = ops.number

    def extra_repr(self):
        return f"kgen.{self.op} for {self._origin}"

    def arguments(self, x):
        """The operands and options of the operator for the module's inputs."""
        raise NotImplementedError

    def forward(self, *inputs):
        operands, options = self.arguments(*inputs)
        return self.result(self._call(**operands, **options, frozen=True), *inputs)

    def result(self, y, x):
        return y


class _Product(_Replacement):
    """A linear layer or convolution; with a batch norm and an activation behind it after fuse()."""

    activation = None
    folded = None  # (weight, bias) with the batch norm in them

    def fuse(self, norm, activation):
        self.activation = activation
        if norm is not None:
            with torch.no_grad():
                self.folded = (folded_weight(norm.eps, self.weight, norm.weight, norm.running_var),
                               folded_bias(norm.eps, self.weight, norm.weight, norm.running_var, self.bias, norm.running_mean, norm.bias))
        return self

    def extra_repr(self):
        behind = (["batch norm"] if self.folded is not None else []) + ([self.activation] if self.activation else [])
        return super().extra_repr() + "".join(" + " + part for part in behind)

    def weights(self):
        return (self.weight, self.bias) if self.folded is None else self.folded


class Linear(_Product):
    op = "gemm"

    @staticmethod
    def takes(module):
        return type(module) is torch.nn.Linear

    def arguments(self, x):
        weight, bias = self.weights()
        return {"a": x, "b": weight, "bias": bias}, {"activation": self.activation}


class PatchEmbedding(_Product):
    """A Conv3d whose kernel, stride and input are one size, as Qwen2-VL's patch embedding calls it: [L, C, T, P, P]."""

    op = "conv3d_patchify"

    @staticmethod
    def takes(module):
        return type(module) is torch.nn.Conv3d and tuple(module.kernel_size) == tuple(module.stride) \
            and module.groups == 1 and all(pad == 0 for pad in module.padding) and all(dil == 1 for dil in module.dilation)

    def arguments(self, x):
        if tuple(x.shape[2:]) != tuple(self.weight.shape[2:]):
            raise ValueError(f"the image {list(x.shape[2:])} is not one patch of {list(self.weight.shape[2:])}")
        weight, bias = self.weights()
        return {"x": x.reshape(x.shape[0], -1), "weight": weight, "bias": bias}, {}

    def result(self, y, x):
        return y.view(*y.shape, 1, 1, 1)


class Conv2d(_Product):
    """In the memory order of its input: channels_last runs as nhwc, with the weight copied into that order once."""

    op = "conv2d"

    def __init__(self, module, ops):
        super().__init__(module, ops)
        self.options = convolution_options(module.stride, module.padding, module.dilation, module.groups)
        self._nhwc = None

    @staticmethod
    def takes(module):
        return type(module) is torch.nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)

    def arguments(self, x):
        weight, bias = self.weights()
        options = {**self.options, "activation": self.activation}
        if is_nhwc(x) and not x.is_contiguous():
            if self._nhwc is None or self._nhwc.device != x.device:
                self._nhwc = weight.detach().permute(0, 2, 3, 1).contiguous()
            return {"x": x.permute(0, 2, 3, 1), "weight": self._nhwc, "bias": bias}, {**options, "layout": "nhwc"}
        return {"x": x, "weight": weight, "bias": bias}, {**options, "layout": "nchw"}

    def result(self, y, x):
        nhwc = is_nhwc(x) and not x.is_contiguous()
        return y.permute(0, 3, 1, 2) if nhwc else y


class RmsNorm(_Replacement):
    """torch.nn.RMSNorm and classes of that name elsewhere. Those that round between the norm and the weight differ by
    at most that rounding."""

    op = "rmsnorm"

    def __init__(self, module, ops):
        super().__init__(module, ops)
        eps = next((getattr(module, name) for name in ("eps", "variance_epsilon") if hasattr(module, name)), None)
        self.eps = torch.finfo(self.weight.dtype).eps if eps is None else float(eps)

    @staticmethod
    def takes(module):
        weight = getattr(module, "weight", None)
        return type(module).__name__.endswith("RMSNorm") and isinstance(weight, torch.Tensor) and weight.dim() == 1 \
            and (hasattr(module, "eps") or hasattr(module, "variance_epsilon"))

    def arguments(self, x):
        return {"x": x, "weight": self.weight}, {"eps": self.eps}


class LayerNorm(_Replacement):
    op = "layernorm"

    def __init__(self, module, ops):
        super().__init__(module, ops)
        self.eps = float(module.eps)

    @staticmethod
    def takes(module):
        return type(module) is torch.nn.LayerNorm and len(module.normalized_shape) == 1 \
            and module.weight is not None and module.bias is not None

    def arguments(self, x):
        return {"x": x, "weight": self.weight, "bias": self.bias}, {"eps": self.eps}


class GptqLinear(_Replacement):
    """Linear layers in the GPTQ format: qweight, qzeros, scales, g_idx, as AutoGPTQ and its kin name them."""

    op = "gptq_gemm"

    def __init__(self, module, ops):
        super().__init__(module, ops)
        k = self.qweight.shape[0] * 32 // int(module.bits)
        group = int(getattr(module, "group_size", -1))
        self.options = {"bits": int(module.bits), "group_size": group}
        g_idx = getattr(module, "g_idx", None)
        order = torch.arange(k) // (group if group > 0 else k)
        if g_idx is not None and not torch.equal(g_idx.cpu().long(), order):
            self.options["desc_act"] = 1
        if callable(getattr(module, "qzero_format", None)) and module.qzero_format() == 2:
            self.options["v2"] = 1
        if all(signature.attribute("sym") == "1" for signature in ops.db.op(self.op).signatures):
            self.options["sym"] = 1  # tells of the data that it was tuned with, not of what it computes

    @staticmethod
    def takes(module):
        return all(isinstance(getattr(module, name, None), torch.Tensor) for name in ("qweight", "qzeros", "scales")) \
            and hasattr(module, "bits")

    def arguments(self, x):
        operands = {"x": x, "qweight": self.qweight, "qzeros": self.qzeros, "scales": self.scales}
        if getattr(self, "bias", None) is not None:
            operands["bias"] = self.bias
        if "desc_act" in self.options:
            operands["g_idx"] = self.g_idx
        return operands, self.options


class HyperPre(_Replacement):
    """The mixing before a sublayer of hyper-connections (mHC): parameters fn [n*n + 2*n, n*h], scale [3] and base, forward of
    streams [.., n, h] to the sublayer's input, post and comb in any order, which their shapes tell."""

    op = "mhc_pre"
    # The operator's scalars, and how modules call them.
    scalars = {"rms_eps": ("rms_eps", "norm_eps", "eps"), "pre_eps": ("pre_eps", "hc_eps", "eps"),
               "sinkhorn_eps": ("sinkhorn_eps", "hc_eps", "eps"), "post_mult": ("post_mult", "post_mult_value"),
               "sinkhorn_repeat": ("sinkhorn_repeat", "sinkhorn_iters", "hc_sinkhorn_iters", "repeat")}

    def __init__(self, module, ops):
        super().__init__(module, ops)
        self._names = self.parameters_of(module)
        self.options = {}
        for name, spellings in self.scalars.items():
            value = next((getattr(module, spelling) for spelling in spellings if hasattr(module, spelling)), None)
            if isinstance(value, (int, float)):
                self.options[name] = value
        self.order = None  # of the module's results: kgen's index and the shape of each

    @staticmethod
    def parameters_of(module):
        """The names of the module's own fn, scale and base, with or without a prefix (hc_fn)."""
        own = [name for name, _ in module.named_parameters(recurse=False)] + [name for name, _ in module.named_buffers(recurse=False)]
        found = [[name for name in own if re.search(rf"(^|_){word}$", name)] for word in ("fn", "scale", "base")]
        return [names[0] for names in found] if all(len(names) == 1 for names in found) else None

    @classmethod
    def streams(cls, module):
        names = cls.parameters_of(module)
        if names is None:
            return 0
        fn, scale, base = (getattr(module, name) for name in names)
        if fn.dim() != 2 or base.numel() != fn.shape[0]:
            return 0
        rows, n = fn.shape[0], math.isqrt(fn.shape[0] + 1) - 1
        if scale.numel() == 3 and n * n + 2 * n == rows and fn.shape[1] % n == 0:
            return n
        return -rows if scale.numel() == 1 and fn.shape[1] % rows == 0 else 0

    @classmethod
    def takes(cls, module):
        return cls.streams(module) > 0

    def arguments(self, streams):
        fn, scale, base = (getattr(self, name) for name in self._names)
        n = self.streams(self)
        return {"residual": streams, "fn": fn, "scale": scale, "base": base}, {**self.options, **({} if n == 4 else {"n": n})}

    def learn(self, result):
        n = abs(self.streams(self))
        kinds = []
        for tensor in result:
            shape = tuple(tensor.shape)
            kind = 1 if shape[-2:] == (n, n) and tensor.dtype == torch.float32 else 0 if shape[-2:] == (n, 1) or shape[-1] == n else 2
            kinds.append((kind, shape[-1] == n and kind == 0))
        if sorted(kind for kind, _ in kinds) != [0, 1, 2]:
            raise ValueError("its results are not the sublayer's input, post and comb")
        self.order = kinds

    def result(self, y, streams):
        return tuple(y[kind].squeeze(-1) if flat else y[kind] for kind, flat in self.order) if self.order else y


class HyperHead(HyperPre):
    """What collapses the streams behind the last layer: fn [n, n*h], scale [1], base [n]."""

    op = "hc_head"
    scalars = {"rms_eps": ("rms_eps", "norm_eps", "eps"), "pre_eps": ("pre_eps", "hc_eps", "eps")}

    @classmethod
    def takes(cls, module):
        return cls.streams(module) < 0

    def arguments(self, streams):
        operands, options = super().arguments(streams)
        n = -self.streams(self)
        return operands, {**{name: value for name, value in options.items() if name != "n"}, **({} if n == 4 else {"n": n})}

    def learn(self, result):
        pass

    def result(self, y, streams):
        return y


class HyperPost(_Replacement):
    """The mixing behind a sublayer: a module without parameters, called Hyper…Post or mhc…post, of (x, streams, post, comb)."""

    op = "mhc_post"

    @staticmethod
    def takes(module):
        return re.search(r"(hyper|mhc|hc).*post", type(module).__name__, re.I) is not None and not list(module.parameters())

    def arguments(self, x, streams, post, comb):
        n = streams.shape[-2]
        post = post if post.dim() == comb.dim() else post.unsqueeze(-1)
        return {"x": x, "residual": streams, "post_mix": post, "comb_mix": comb}, {} if n == 4 else {"n": n}

    def result(self, y, *_):
        return y


_REPLACEMENTS = (GptqLinear, Linear, PatchEmbedding, Conv2d, RmsNorm, LayerNorm, HyperPre, HyperHead, HyperPost)
_ACTIVATIONS = ((torch.nn.ReLU, lambda module: "relu"), (torch.nn.SiLU, lambda module: "silu"), (torch.nn.Sigmoid, lambda module: "sigmoid"),
                (torch.nn.GELU, lambda module: {"none": "gelu_erf", "tanh": "gelu_tanh"}[module.approximate]))


def _activation(module):
    return next((name(module) for kind, name in _ACTIVATIONS if type(module) is kind), None)


def _not_attention(query, key, attn_mask, dropout_p, is_causal, enable_gqa):
    """Why a call of torch's attention stays with torch, or None."""
    if attn_mask is not None or dropout_p:
        return "masks and dropout stay with torch"
    if query.dim() != 4:
        return f"{query.dim()} axes, not [batch, heads, rows, d]"
    if is_causal and query.shape[-2] != key.shape[-2]:
        return "causal with fewer queries than keys stays with torch"
    if not enable_gqa and query.shape[1] != key.shape[1]:
        return "fewer heads of keys than of queries, without enable_gqa"
    return None


def _attention_options(query, value, is_causal, scale=None):
    """The result lies as the queries do, [b, s, h, d] or [b, h, s, d] in memory, so that what follows need not copy it."""
    options = {"causal": int(is_causal), "scale": 0.0 if scale is None else float(scale)}
    batch, heads, rows, _ = query.shape
    if heads > 1 and rows > 1 and query.stride(1) < query.stride(2):
        options.update(ldo=heads * value.shape[3], head_stride_o=value.shape[3])
        if batch > 1:
            options["batch_stride_o"] = rows * heads * value.shape[3]
    return options


def scaled_dot_product_attention(ops, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
                                 enable_gqa=False):
    """torch.nn.functional's, by kgen's attention. What that does not have (masks, dropout, causal with fewer queries than
    keys, of which torch lets the first query see the first key alone) stays with torch."""
    if _not_attention(query, key, attn_mask, dropout_p, is_causal, enable_gqa) is None:
        return ops.attention(query, key, value, **_attention_options(query, value, is_causal, scale))
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal,
                                                            scale=scale, enable_gqa=enable_gqa)


class _Attention(TorchFunctionMode):
    """Within it, torch's attention is kgen's where the DB has it. `seen`: also tells of the calls."""

    def __init__(self, ops, seen=None):
        super().__init__()
        self.ops, self.seen = ops, seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.nn.functional.scaled_dot_product_attention:
            return function(*args, **kwargs)
        if self.seen is not None:
            self.seen(*args, **kwargs)
            return function(*args, **kwargs)
        try:
            return scaled_dot_product_attention(self.ops, *args, **kwargs)
        except KgenError:  # a shape that the DB does not serve
            return function(*args, **kwargs)


class _Forward:
    """A module's forward within _Attention."""

    def __init__(self, forward, ops):
        self.forward, self.ops = forward, ops

    def __call__(self, *args, **kwargs):
        with _Attention(self.ops):
            return self.forward(*args, **kwargs)


# A result further than this from the module's own is another function (an RMS norm whose weight counts from zero, say).
_TOLERANCE = 0.02


def _difference(got, want):
    """The relative L2 difference of results; 0 where the module's own is no number."""
    got, want = ([item] if isinstance(item, torch.Tensor) else list(item) for item in (got, want))
    worst = 0.0
    for mine, own in zip(got, want):
        if mine.shape != own.shape or mine.dtype != own.dtype:
            raise ValueError(f"its result would be {mine.dtype} {list(mine.shape)}, not {own.dtype} {list(own.shape)}")
        norm = own.float().norm().item()
        if math.isfinite(norm):
            worst = max(worst, (mine.float() - own.float()).norm().item() / max(norm, 1e-30))
    return worst


def _require_faster(own, mine, device):
    """ValueError where `own` takes the GPU less time than `mine`. Both have run before. A wait on the device before each call lets
    the CPU run ahead, so that what is timed are kernels, as in a graph; data are warm. Elsewhere nothing is asked."""
    if device.type != "cuda":
        return
    samples = ([], [])
    for _ in range(7):
        for call, times in zip((own, mine), samples):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda._sleep(2_000_000)  # about 1 ms
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3)
    before, after = (sorted(times)[len(times) // 2] for times in samples)
    if before < after:
        raise ValueError(f"what is there is faster: {before:.1f} us, kgen {after:.1f} us")


class _Recording:
    """One run of the model as it is: what each module that could be replaced was called with, whether kgen gives the same,
    what follows what, and who calls attention."""

    def __init__(self, model, ops, accept, only_faster):
        self.ops, self.accept, self.only_faster, self.report = ops, accept, only_faster, Report()
        self.verdicts = {}      # (op, kernel, dims) → why it is left, or None
        self.timing = False     # what runs now is no call of the model
        self.replacements = {}  # name → the module that takes its place
        self.attention = {}     # name → the Match of its attention
        self.calls = {}         # name → how often it was called
        self.made = []          # (weak reference to a result, name of the module that made it)
        self.follows = {}       # name → name of the module whose result it was given
        self.stack = []
        self.modules = dict(model.named_modules())
        self.handles = []
        for name, module in self.modules.items():
            self.handles.append(module.register_forward_pre_hook(self._before(name, module)))
            self.handles.append(module.register_forward_hook(self._after(name, module)))

    def close(self):
        for handle in self.handles:
            handle.remove()

    def _before(self, name, module):
        chained = isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)) or _activation(module) is not None

        def hook(_, args):
            if self.timing:
                return
            self.stack.append(name)
            self.calls[name] = self.calls.get(name, 0) + 1
            if chained and args:
                self.follows[name] = next((maker for made, maker in reversed(self.made) if made() is args[0]), None)
        return hook

    def _after(self, name, module):
        kind = next((kind for kind in _REPLACEMENTS if kind.takes(module)), None) if name else None
        chained = isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))

        def hook(_, args, result):
            if self.timing:
                return
            self.stack.pop()
            if kind is not None and self.calls[name] == 1 and args:
                self._try(name, module, kind, args, result)
            if chained and isinstance(result, torch.Tensor):
                self.made = [*((made, maker) for made, maker in self.made[-64:] if made() is not None), (weakref.ref(result), name)]
        return hook

    def _try(self, name, module, kind, args, result):
        if kind.op not in self.ops.db.operators:
            self.report.add(name, kind.op, reason=f"{self.ops.db.path} has no {kind.op}")
            return
        try:
            replacement = kind(module, self.ops)
            if hasattr(replacement, "learn"):
                replacement.learn(result)
            operands, options = replacement.arguments(*args)
            match = self.ops.db.prepare(kind.op, **operands, **options)
            if not accepted(match, self.accept):
                raise ValueError(match.reason)
            difference = _difference(replacement(*args), result)
            if difference > _TOLERANCE:
                raise ValueError(f"kgen.{kind.op} gives something else (relative difference {difference:.2g})")
            self.require_faster(kind.op, match, lambda: module(*args), lambda: replacement(*args), result)
        except (KgenError, ValueError, TypeError) as error:
            self.report.add(name, kind.op, reason=str(error))
            return
        self.replacements[name] = replacement
        self.report.add(name, kind.op, match)

    def require_faster(self, op, match, own, mine, result):
        """As _require_faster(), once for each kernel and shape."""
        if not self.only_faster:
            return
        key = op, match.config, str(match.dims)
        if key not in self.verdicts:
            self.timing = True
            try:
                self.verdicts[key] = _require_faster(own, mine, next(_tensors(result)).device)
            except ValueError as error:
                self.verdicts[key] = str(error)
            finally:
                self.timing = False
        if self.verdicts[key] is not None:
            raise ValueError(self.verdicts[key])

    def saw_attention(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        name = self.stack[-1] if self.stack else ""
        if name in self.attention or self.timing:
            return
        self.attention[name] = None
        reason = _not_attention(query, key, attn_mask, dropout_p, is_causal, enable_gqa)
        try:
            if reason is not None:
                raise ValueError(reason)
            match = self.ops.db.prepare("attention", query, key, value, **_attention_options(query, value, is_causal))
            if not accepted(match, self.accept):
                raise ValueError(match.reason)
            operands, options = (query, key, value), {"is_causal": is_causal, "scale": scale}
            self.require_faster("attention", match, lambda: torch.nn.functional.scaled_dot_product_attention(*operands, **options),
                                lambda: scaled_dot_product_attention(self.ops, *operands, **options), query)
        except (KgenError, ValueError) as error:
            self.report.add(name or "model", "attention", reason=str(error))
            return
        self.attention[name] = match
        self.report.add(name or "model", "attention", match)

    def chains(self):
        """(product, batch norm or None, activation or None), names of modules that only follow one another."""
        behind = {}
        for name, maker in self.follows.items():
            if maker is not None and self.calls[name] == self.calls[maker] == 1:
                behind.setdefault(maker, []).append(name)
        for name, module in self.modules.items():
            if type(module) not in (torch.nn.Linear, torch.nn.Conv2d) or len(behind.get(name, ())) != 1:
                continue
            after, = behind[name]
            norm = act = None
            if isinstance(self.modules[after], (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                own = self.modules[after]
                if own.training or own.running_mean is None:
                    continue
                norm, after = after, next(iter(behind.get(after, ())), None)
            if after is not None and _activation(self.modules[after]) is not None:
                act = after
            yield name, norm, act


def _put(model, name, module):
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def optimize(model, db, *inputs, accept="near", only_faster=True, **keywords):
    """Replaces the modules of `model` whose calls with these inputs the DB serves, in place, and gives a Report.
    `db`: a path, an open kgen.Database or Ops. The model runs once as it is, and every replacement must give what its module
    gives; where products are joined with what follows them it runs again. Weights count as frozen: kernels that repack them do
    so once. `accept`: "exact" leaves modules whose very shape was not tuned, "default" takes the operators' default kernels too.
    `only_faster`: on a GPU a module that takes less time there than kgen's kernel stays."""
    ops = db if isinstance(db, Ops) else load(db)
    recording = _Recording(model, ops, check_accept(accept), only_faster)
    try:
        with torch.no_grad(), _Attention(ops, recording.saw_attention):
            want = model(*inputs, **keywords)
    finally:
        recording.close()
    report = recording.report
    for name, replacement in recording.replacements.items():
        _put(model, name, replacement)
    for name, match in recording.attention.items():
        if match is not None:
            module = recording.modules[name]
            module.forward = _Forward(module.forward, ops)

    joined = {}  # name → what stood there
    rows = []
    for product, norm, act in recording.chains():
        original = recording.modules[product]
        kind = Linear if isinstance(original, torch.nn.Linear) else Conv2d
        if kind.op not in ops.db.operators:
            continue
        fused = kind(original, ops)
        modules = recording.modules
        fused.fuse(modules[norm] if norm else None, _activation(modules[act]) if act else None)
        rows.append((product, norm, act, fused))
        for name, module in ((product, fused), (norm, norm and Passed(modules[norm])), (act, act and Passed(modules[act]))):
            if name:
                joined[name] = model.get_submodule(name)
                _put(model, name, module)
    if rows:
        _check_joined(model, rows, joined, want, recording, inputs, keywords)
    return report


def _check_joined(model, rows, joined, want, recording, inputs, keywords):
    """Runs the model with its joined products; those that the DB does not serve, or all if the result is another, go back."""
    report, ops = recording.report, recording.ops
    for product, norm, act, fused in rows:
        fused.tried = None

        def before(*args, product=product, norm=norm, act=act):
            result = joined[product](*args)
            for name in (norm, act):
                result = joined[name](result) if name else result
            return result

        def first(*args, fused=fused, before=before):
            if fused.tried is None:
                operands, options = fused.arguments(*args)
                try:
                    fused.tried = ops.db.prepare(fused.op, **operands, **options)
                    if not accepted(fused.tried, recording.accept):
                        raise ValueError(fused.tried.reason)
                    after = lambda: type(fused).forward(fused, *args)
                    before(*args)
                    recording.require_faster(f"joined {fused.op}", fused.tried, lambda: before(*args), after, after())
                except (KgenError, ValueError) as error:
                    fused.tried = error
            if isinstance(fused.tried, Exception):
                return before(*args)
            return type(fused).forward(fused, *args)
        fused.forward = first
    with torch.no_grad():
        got = model(*inputs, **keywords)
    same = _same_results(got, want)
    for product, norm, act, fused in rows:
        del fused.forward
        tried = fused.__dict__.pop("tried")
        label = f"{fused.op} with " + " and ".join((["batch norm"] if norm else []) + ([fused.activation] if act else []))
        if same and tried is not None and not isinstance(tried, Exception):
            report[:] = [row for row in report if row.name != product]
            report.add(product, label, tried)
            continue
        report.add(product, label, reason="the model's result would be another" if not same else str(tried))
        for name in (product, norm, act):
            if name:
                _put(model, name, joined[name])


def _same_results(got, want):
    flat = [list(_tensors(item)) for item in (got, want)]
    try:
        return len(flat[0]) == len(flat[1]) and _difference(*flat) <= _TOLERANCE
    except ValueError:
        return False


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
