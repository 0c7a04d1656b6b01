"""What the models of this folder share: random weights, problems for `kgen tune`, and kgen's operators with weights that stay."""
import json

import torch
import torch.nn.functional as F


class Model:
    """A network in two forms: a plain torch module, and calls of kgen's operators on the same weights.

    Sizes are class attributes; keywords change them (`layers=2`). `gigabytes`: device memory of one process that runs it."""

    dtype = "bf16"
    gigabytes = 4
    freezing = False  # whether torch.compile may fold weights (batch norm) in the max-autotune mode
    mixed = False  # whether it has products of many rows, which Mixed leaves to cuBLAS

    def __init__(self, **sizes):
        for name, value in sizes.items():
            if not hasattr(type(self), name):
                raise ValueError(f"{type(self).__name__} has no {name}")
            setattr(self, name, value)

    @property
    def place(self):
        return {"device": self.device, "dtype": getattr(torch, {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[self.dtype])}

    device = "cuda"

    def module(self):
        """The torch module, with its weights."""
        raise NotImplementedError

    def inputs(self):
        """What both forms are called with."""
        raise NotImplementedError

    def kernels(self, kgen, module):
        """A function of the inputs that does what the module does, by `kgen`'s operators."""
        raise NotImplementedError

    def problems(self):
        """(operator, attributes, dims) of each call in `kernels`: what to tune."""
        raise NotImplementedError

    def ops_yaml(self, budget, problems=None):
        lines = [f"# Of examples/models, {type(self).__name__}.", "kgen: 1", "ops:"]
        for op, attributes, dims in self.problems() if problems is None else problems:
            entry = {"op": op, "dtype": self.dtype, **attributes, "problems": [dims], "tune": {"budget": budget}}
            lines.append("  - " + json.dumps(entry))
        return "\n".join(lines) + "\n"


def randomize(module, seed=1):
    """Weights that keep the scale of what goes through them; the same in every process on one kind of device."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            else:
                parameter.normal_(1, 0.1)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return module.eval().requires_grad_(False)


def folded(conv, norm):
    """Weight [k, r, s, c] and bias of a convolution with the batch norm behind it, folded in float64."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    dtype = conv.weight.dtype
    return weight.permute(0, 2, 3, 1).to(dtype).contiguous(), bias.to(dtype)


def rope_table(positions, rotary, base, device):
    """cos and sin [positions, rotary/2] in float32, from float64."""
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * base ** (-torch.arange(0, rotary, 2, dtype=torch.float64) / rotary)
    return angle.cos().float().to(device), angle.sin().float().to(device)


class Kernels:
    """The operators of a tuned DB, for weights that never change (what a kernel repacks is kept). `served` counts the calls
    by how the DB serves them: exact, near or default."""

    def __init__(self, db):
        self.db, self.served, self.near, self.kinds = db, {}, {}, {}

    def __getattr__(self, name):
        operator = self.db.op(name)

        def call(*tensors, **keywords):
            match = operator.find(*tensors, **keywords)
            self.served[match.kind] = self.served.get(match.kind, 0) + 1
            self.kinds[name] = self.kinds.get(name, 0) + 1
            if match.kind != "exact":
                self.near[f"{name} {match.dims}"] = match.reason
            return operator(*tensors, frozen=True, **keywords)

        setattr(self, name, call)
        return call


class Mixed(Kernels):
    """As Kernels, but products of many rows are cuBLAS's and their attention is cuDNN's or flash, by torch."""

    rows = 256  # from here on

    def __init__(self, db):
        super().__init__(db)
        own_gemm, own_attention = self.gemm, self.attention

        def gemm(a, b, bias=None, residual=None, activation=None):
            if a.shape[0] < self.rows:
                return own_gemm(a, b, bias=bias, residual=residual, activation=activation)
            if residual is not None and bias is None:
                return torch.addmm(residual, a, b.t())
            y = F.linear(a, b, bias)
            if activation == "quick_gelu":
                self.elementwise(x=y, expr="quick_gelu(x)", out=y)
            elif activation == "gelu_erf":
                y = F.gelu(y)
            return y if residual is None else y.add_(residual)

        def attention(q, k, v, causal=0, out=None):
            return out.copy_(F.scaled_dot_product_attention(q, k, v, is_causal=bool(causal)))

        self.gemm, self.attention = gemm, attention
