"""optimize(): modules whose calls a DB serves, replaced by kgen's operators."""
import torch

from .._library import KgenError
from ._ops import Ops, convolution_options, load
from ._report import Report


class _Replacement(torch.nn.Module):
    """Keeps the parameters of the module in whose place it stands, under their names."""

    op = ""

    def __init__(self, module, ops):
        super().__init__()
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.train(module.training)
        self._call = getattr(ops, self.op)
        self._number = ops.number
        self._origin = type(module).__name__

    def extra_repr(self):
        return f"kgen.{self.op} for {self._origin}"

    def arguments(self, x):
        """The operands and options of the operator for the module's input."""
        raise NotImplementedError

    def forward(self, x):
        operands, options = self.arguments(x)
        return self.result(self._call(**operands, **options, frozen=True), x)

    def result(self, y, x):
        return y


class Linear(_Replacement):
    op = "gemm"

    @staticmethod
    def takes(module):
        return type(module) is torch.nn.Linear

    def arguments(self, x):
        return {"a": x, "b": self.weight, "bias": self.bias}, {}


class PatchEmbedding(_Replacement):
    """A Conv3d whose kernel, stride and input are one size, as Qwen2-VL's patch embedding calls it: [L, C, T, P, P]."""

    op = "conv3d_patchify"

    @staticmethod
    def takes(module):
        return type(module) is torch.nn.Conv3d and tuple(module.kernel_size) == tuple(module.stride) \
            and module.groups == 1 and all(pad == 0 for pad in module.padding) and all(dil == 1 for dil in module.dilation)

    def arguments(self, x):
        if tuple(x.shape[2:]) != tuple(self.weight.shape[2:]):
            raise ValueError(f"the image {list(x.shape[2:])} is not one patch of {list(self.weight.shape[2:])}")
        return {"x": x.reshape(x.shape[0], -1), "weight": self.weight, "bias": self.bias}, {}

    def result(self, y, x):
        return y.view(*y.shape, 1, 1, 1)


class Conv2d(_Replacement):
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
        if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
            if self._nhwc is None or self._nhwc.device != x.device:
                self._nhwc = self.weight.detach().permute(0, 2, 3, 1).contiguous()
            return {"x": x.permute(0, 2, 3, 1), "weight": self._nhwc, "bias": self.bias}, {**self.options, "layout": "nhwc"}
        return {"x": x, "weight": self.weight, "bias": self.bias}, {**self.options, "layout": "nchw"}

    def result(self, y, x):
        nhwc = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
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


_REPLACEMENTS = (GptqLinear, Linear, PatchEmbedding, Conv2d, RmsNorm, LayerNorm)


def scaled_dot_product_attention(ops, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
                                 enable_gqa=False):
    """torch.nn.functional's, by kgen's attention. What that does not have (masks, dropout, causal with fewer queries than
    keys, of which torch lets the first query see the first key alone) stays with torch."""
    aligned = not is_causal or query.shape[-2] == key.shape[-2]
    if attn_mask is None and dropout_p == 0.0 and aligned and query.dim() == 4 \
            and (enable_gqa or query.shape[1] == key.shape[1]):
        return ops.attention(query, key, value, causal=int(is_causal), scale=0.0 if scale is None else float(scale))
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal,
                                                            scale=scale, enable_gqa=enable_gqa)


def optimize(model, db, *inputs, only_exact=False, **keywords):
    """Replaces the modules of `model` whose calls with these inputs the DB serves, in place, and gives a Report.
    `db`: a path, an open kgen.Database or Ops. The model runs once as it is. Weights count as frozen: kernels that
    repack them do so once. `only_exact`: leaves modules whose very shape was not tuned."""
    ops = db if isinstance(db, Ops) else load(db)
    seen = {}

    def record(name):
        return lambda module, args: seen.setdefault(name, args[0]) if args else None

    handles = []
    for name, module in model.named_modules():
        if name and any(kind.takes(module) for kind in _REPLACEMENTS):
            handles.append(module.register_forward_pre_hook(record(name)))
    try:
        with torch.no_grad():
            model(*inputs, **keywords)
    finally:
        for handle in handles:
            handle.remove()

    report = Report()
    for name, x in seen.items():
        parent_name, _, leaf = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        module = getattr(parent, leaf)
        kind = next(kind for kind in _REPLACEMENTS if kind.takes(module))
        if kind.op not in ops.db.operators:
            report.add(name, kind.op, reason=f"{ops.db.path} has no {kind.op}")
            continue
        try:
            with torch.no_grad():
                replacement = kind(module, ops)
                operands, options = replacement.arguments(x)
                match = ops.db.prepare(kind.op, **operands, **options)
        except (KgenError, ValueError) as error:
            report.add(name, kind.op, reason=str(error))
            continue
        if only_exact and match.kind != "exact":
            report.add(name, kind.op, reason=match.reason)
            continue
        setattr(parent, leaf, replacement)
        report.add(name, kind.op, match)
    return report
