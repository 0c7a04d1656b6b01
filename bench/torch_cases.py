"""What each operator is in PyTorch, for bench/side_by_side.py: operands under kgen's names, the vendor's ways to compute it,
and a float32 reference.

A case is made from a winner's dims and attributes (those of the DB: defaults are left out). Layouts are kgen's: convolutions
and pooling NHWC, which PyTorch calls channels_last; vendors get the same memory as views, so that no transposition is timed.
"""
import math
import re
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ACTIVATIONS = {
    "relu": torch.relu,
    "silu": F.silu,
    "gelu_erf": F.gelu,
    "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
    "quick_gelu": lambda t: t * torch.sigmoid(1.702 * t),
    "sigmoid": torch.sigmoid,
}


@dataclass
class Case:
    operands: dict  # kgen's argument name -> tensor (outputs filled with NaN where the type has one)
    outputs: list  # names of the operands that are written
    reference: object  # () -> list of tensors beside `outputs`; None: not checked here
    vendors: dict  # name -> callable that gives a tensor, or a list beside `outputs`
    compiled: dict = field(default_factory=dict)  # name -> (function, arguments[, its options]) for torch.compile
    bare: set = field(default_factory=set)  # vendors that do not do the whole problem: for information
    whole: tuple = ()  # (function, arguments) of the whole problem, for torch.compile's max-autotune
    in_place: bool = False  # an output is an operand too: each call reads what the last one wrote
    pick: object = None  # what of the outputs the reference has, where that is not all of them

    def picked(self, outputs):
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        return outputs if self.pick is None else self.pick(outputs)


def random(*shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype)


def empty(*shape, dtype):
    if dtype.is_floating_point:
        return torch.full(shape, float("nan"), device="cuda", dtype=dtype)
    return torch.empty(shape, device="cuda", dtype=dtype)


def floats(tensors):
    return [t if t is None or not t.is_floating_point() else t.float() for t in tensors]


def words(attributes, name="epilogue"):
    return [word for word in attributes.get(name, "").split(",") if word]


def finish(y, epilogue, residual=None, other=None):
    for step in epilogue:
        if step == "add_residual":
            y = y + residual
        elif step == "mul_other":
            y = y * other
        elif step != "bias":
            y = ACTIVATIONS[step](y)
    return y


def gemm(dims, attributes):
    m, n, k, batch = dims["m"], dims["n"], dims["k"], dims.get("batch", 1)
    epilogue, dtype = words(attributes), DTYPES[attributes["dtype"]]
    nk = attributes.get("b_layout", "nk") == "nk"
    if "add_c" in epilogue:
        return None
    lead = (batch,) if batch > 1 else ()
    a = random(*lead, m, k, dtype=dtype)
    b = random(*lead, *((n, k) if nk else (k, n)), dtype=dtype, scale=k**-0.5)
    d = empty(*lead, m, n, dtype=DTYPES[attributes.get("out_dtype", attributes["dtype"])])
    operands = {"a": a, "b": b, "d": d}
    if "bias" in epilogue:
        operands["bias"] = random(n, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])])
    if "add_residual" in epilogue:
        operands["residual"] = random(*lead, m, n, dtype=dtype)
    if "mul_other" in epilogue:
        operands["other"] = random(*lead, m, n, dtype=dtype)
    optional = [operands.get(name) for name in ("bias", "residual", "other")]

    def product(a, b, bias):
        b = b.transpose(-1, -2) if nk else b
        if batch > 1:
            return torch.bmm(a, b) if bias is None else torch.bmm(a, b) + bias
        return a @ b if bias is None else torch.addmm(bias, a, b)

    def expression(a, b, bias, residual, other):
        return finish(product(a, b, bias), epilogue, residual, other)

    rest = [e for e in epilogue if e != "bias"]
    vendors, bare, compiled = {"cublas": lambda: product(a, b, optional[0])}, set(), {}
    if rest:
        bare.add("cublas")
        vendors["torch_eager"] = lambda: expression(a, b, *optional)
        compiled["inductor"] = (expression, (a, b, *optional))
        if rest == ["add_residual"] and optional[0] is None and batch == 1:
            vendors["cublas_addmm"] = lambda: torch.addmm(optional[1], a, b.t() if nk else b)
        if rest == ["relu"] and optional[0] is not None and batch == 1:
            vendors["cublaslt_relu"] = lambda: torch._addmm_activation(optional[0], a, b.t() if nk else b, use_gelu=False)
    whole = (expression, (a, b, *optional))
    if m == 1:  # what makes torch.compile's matrix times vector as quick as memory
        compiled["inductor_cdt"] = (*whole, {"options": {"coordinate_descent_tuning": True}})
    return Case(operands, ["d"], lambda: [expression(*floats([a, b, *optional]))], vendors, compiled, bare, whole)


def conv3d_patchify(dims, attributes):
    l, e = dims["l"], dims["e"]
    patch = (dims["c"], dims["t"], dims["ph"], dims["pw"])
    k, dtype = math.prod(patch), DTYPES[attributes["dtype"]]
    x, weight = random(l, k, dtype=dtype), random(e, k, dtype=dtype, scale=k**-0.5)
    operands = {"x": x, "weight": weight, "y": empty(l, e, dtype=dtype)}
    bias = None
    if "bias" in words(attributes):
        bias = operands["bias"] = random(e, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])])
    x5, w5 = x.view(l, *patch), weight.view(e, *patch)
    vendors = {
        "cublas": lambda: F.linear(x, weight, bias),
        "cudnn_conv3d": lambda: F.conv3d(x5, w5, bias, stride=patch[1:]).view(l, e),
    }
    return Case(operands, ["y"], lambda: [F.linear(*floats([x, weight, bias]))], vendors)


def nhwc(*shape, dtype, scale=1.0):
    """A tensor of shape [n, h, w, c] in memory, and the same as [n, c, h, w] view."""
    t = random(*shape, dtype=dtype, scale=scale)
    return t, t.permute(0, 3, 1, 2)


def conv2d(dims, attributes):
    if attributes.get("layout", "nhwc") != "nhwc":
        return None
    n, c, h, w, k, r, s = (dims[name] for name in ("n", "c", "h", "w", "k", "r", "s"))
    stride, pad, dil, groups = dims.get("stride", 1), dims.get("pad", 0), dims.get("dil", 1), dims.get("groups", 1)
    p = (h + 2 * pad - dil * (r - 1) - 1) // stride + 1
    q = (w + 2 * pad - dil * (s - 1) - 1) // stride + 1
    epilogue, dtype = words(attributes), DTYPES[attributes["dtype"]]
    if "scale_shift" in epilogue:
        return None
    x, x_view = nhwc(n, h, w, c, dtype=dtype)
    weight, w_view = nhwc(k, r, s, c // groups, dtype=dtype, scale=(c // groups * r * s) ** -0.5)
    operands = {"x": x, "weight": weight, "y": empty(n, p, q, k, dtype=dtype)}
    residual = None
    if "bias" in epilogue:
        operands["bias"] = random(k, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])])
    if "add_residual" in epilogue:
        operands["residual"], residual = nhwc(n, p, q, k, dtype=dtype)
    bias = operands.get("bias")
    back = lambda y: y.permute(0, 2, 3, 1)

    def expression(x, weight, bias, residual):
        return back(finish(F.conv2d(x, weight, bias, stride, pad, dil, groups), epilogue, residual))

    arguments = (x_view, w_view, bias, residual)
    rest = [e for e in epilogue if e != "bias"]
    vendors, bare = {"cudnn": lambda: back(F.conv2d(x_view, w_view, bias, stride, pad, dil, groups))}, set()
    compiled = {"inductor": (expression, arguments)}
    shape = ([stride] * 2, [pad] * 2, [dil] * 2, groups)
    if rest:
        bare.add("cudnn")
        vendors["torch_eager"] = lambda: expression(*arguments)
    if rest == ["relu"] and bias is not None:
        vendors["cudnn_fused"] = lambda: back(torch.cudnn_convolution_relu(x_view, w_view, bias, *shape))
    if rest == ["add_residual", "relu"] and bias is not None:
        vendors["cudnn_fused"] = lambda: back(torch.cudnn_convolution_add_relu(x_view, w_view, residual, 1.0, bias, *shape))
    if groups > 1:  # cuDNN is often quicker on the planar layout there
        x_planar, w_planar = x_view.contiguous(), w_view.contiguous()
        r_planar = None if residual is None else residual.contiguous()
        vendors["torch_eager_nchw"] = lambda: expression(x_planar, w_planar, bias, r_planar)
        compiled["inductor_nchw"] = (expression, (x_planar, w_planar, bias, r_planar))
    if r == s == 1 and stride == 1 and pad == 0 and groups == 1:
        rows, matrix = x.view(-1, c), weight.view(k, c)
        r_rows = None if residual is None else operands["residual"].view(-1, k)

        def as_gemm(rows, matrix, bias, residual):
            return finish(F.linear(rows, matrix, bias), epilogue, residual).view(n, p, q, k)

        vendors["cublas_1x1"] = lambda: as_gemm(rows, matrix, bias, r_rows)
        compiled["inductor_1x1"] = (as_gemm, (rows, matrix, bias, r_rows))
        if rest == ["relu"] and bias is not None:
            vendors["cublaslt_1x1_relu"] = lambda: torch._addmm_activation(bias, rows, matrix.t(), use_gelu=False).view(n, p, q, k)
    return Case(operands, ["y"], lambda: [expression(*floats(arguments))], vendors, compiled, bare, (expression, arguments))


def multi_dilation_conv(dims, attributes):
    if attributes.get("layout", "nhwc") != "nhwc" or words(attributes) != ["bias", "silu"]:
        return None
    n, c, h, w, k, r = (dims[name] for name in ("n", "c", "h", "w", "k", "r"))
    dilations, dtype = [int(d) for d in attributes["dils"].split(",")], DTYPES[attributes["dtype"]]
    x, x_view = nhwc(n, h, w, c, dtype=dtype)
    weight, w_view = nhwc(k, r, r, c, dtype=dtype, scale=(c * r * r) ** -0.5)
    bias = random(k, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])])
    operands = {"x": x, "weight": weight, "bias": bias, "y": empty(n, h, w, len(dilations) * k, dtype=dtype)}

    # The vendor's side keeps its outputs apart: it is not charged for a concatenation.
    def branches(x, weight, bias):
        return [F.silu(F.conv2d(x, weight, bias, 1, d * (r // 2), d)) for d in dilations]

    def reference():
        return [torch.cat(branches(*floats([x_view, w_view, bias])), 1).permute(0, 2, 3, 1)]

    vendors = {"torch_eager": lambda: torch.cat(branches(x_view, w_view, bias), 1).permute(0, 2, 3, 1)}
    case = Case(operands, ["y"], reference, vendors, {"inductor_branches": (branches, (x_view, w_view, bias))})
    case.vendors["cudnn_branches"] = lambda: branches(x_view, w_view, bias)
    return case


def gptq_gemm(dims, attributes):
    m, n, k = dims["m"], dims["n"], dims["k"]
    group = int(dims.get("group_size", attributes.get("group_size", 128)))
    if (int(attributes.get("bits", dims.get("bits", 4))), group) != (4, 128) or int(attributes.get("desc_act", 0)):
        return None
    dtype, groups = DTYPES[attributes["dtype"]], k // group
    q = torch.randint(0, 16, (k, n), device="cuda", dtype=torch.int32)
    scales = ((torch.rand(groups, n, device="cuda") * 0.5 + 0.5) * k**-0.5 / 4).to(dtype)
    qweight = torch.zeros(k // 8, n, device="cuda", dtype=torch.int32)
    for i in range(8):
        qweight |= q[i::8] << (4 * i)
    stored_zero = 8 if int(attributes.get("v2", 0)) else 7
    packed_zero = sum(stored_zero << (4 * i) for i in range(8))
    qzeros = torch.full((groups, n // 8), packed_zero, device="cuda", dtype=torch.int64).to(torch.int32)
    x = random(m, k, dtype=dtype)
    bias = random(n, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])]) if "bias" in words(attributes) else None
    operands = {"x": x, "qweight": qweight, "qzeros": qzeros, "scales": scales, "y": empty(m, n, dtype=dtype),
                "g_idx": (torch.arange(k, device="cuda") // group).to(torch.int32)}
    if bias is not None:
        operands["bias"] = bias

    def dequantised(qweight, scales):
        shifts = torch.arange(0, 32, 4, device="cuda", dtype=torch.int32)
        values = ((qweight[:, None, :] >> shifts[None, :, None]) & 15).reshape(k, n)
        return ((values - 8).to(scales.dtype).view(groups, group, n) * scales[:, None, :]).view(k, n)

    def expanded(x, qweight, scales, bias):
        weight = dequantised(qweight, scales)
        return x @ weight if bias is None else torch.addmm(bias, x, weight)

    columns = dequantised(qweight, scales).t().contiguous()
    nibbles = q.t().contiguous().to(torch.uint8)
    nibbles = (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).contiguous()
    del q
    tiny = torch.ops.aten._convert_weight_to_int4pack(nibbles, 8)
    tiny_scales = torch.stack([scales.to(torch.bfloat16), torch.zeros_like(scales, dtype=torch.bfloat16)], -1).contiguous()
    x_bf16, bias_bf16 = x.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16)

    def tinygemm():
        y = torch.ops.aten._weight_int4pack_mm(x_bf16, tiny, group, tiny_scales)
        return y if bias_bf16 is None else y + bias_bf16

    vendors = {"cublas_predequantised": lambda: F.linear(x, columns, bias), "int4_tinygemm": tinygemm}
    return Case(operands, ["y"], lambda: [F.linear(*floats([x, columns, bias]))], vendors,
                {"inductor_dequant_cublas": (expanded, (x, qweight, scales, bias))})


def mhc_sinkhorn(logits, repeat, eps):
    x = torch.softmax(logits, -1) + eps
    x = x / (x.sum(-2, keepdim=True) + eps)
    for _ in range(repeat - 1):
        x = x / (x.sum(-1, keepdim=True) + eps)
        x = x / (x.sum(-2, keepdim=True) + eps)
    return x


def mhc_mix(residual, fn, eps=1e-6):
    flat = residual.flatten(1).to(fn.dtype)
    return (flat @ fn.t()) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + eps)


def mhc_pre_expression(residual, fn, scale, base, eps=1e-6):
    t, n, _ = residual.shape
    mix = mhc_mix(residual, fn)
    pre = torch.sigmoid(mix[:, :n] * scale[0] + base[:n]) + eps
    post = 2.0 * torch.sigmoid(mix[:, n:2 * n] * scale[1] + base[n:2 * n])
    comb = mhc_sinkhorn((mix[:, 2 * n:] * scale[2] + base[2 * n:]).view(t, n, n), 20, eps)
    return [post, comb, (pre[..., None] * residual.to(fn.dtype)).sum(1).to(residual.dtype)]


def mhc_post_expression(x, residual, post, comb):
    out = post[..., None] * x[:, None].to(post.dtype)
    for i in range(residual.shape[1]):
        out = out + comb[:, i, :, None] * residual[:, i, None].to(post.dtype)
    return [out.to(residual.dtype)]


def hc_head_expression(residual, fn, scale, base, eps=1e-6):
    gate = torch.sigmoid(mhc_mix(residual, fn) * scale[0] + base) + eps
    return [(gate[..., None] * residual.to(fn.dtype)).sum(1).to(residual.dtype)]


def mhc_fused_expression(x, residual, post, comb, fn, scale, base):
    streams = mhc_post_expression(x, residual, post, comb)[0]
    return [streams] + mhc_pre_expression(streams, fn, scale, base)


def mhc(op):
    def case(dims, attributes):
        t, h = dims["t"], dims["h"]
        n = int(dims.get("n", attributes.get("n", 4)))
        if attributes.get("norm", "none") != "none":
            return None
        rows = n if op == "hc_head" else n * n + 2 * n
        bf16 = torch.bfloat16
        residual, x = random(t, n, h, dtype=bf16), random(t, h, dtype=bf16)
        fn, base = random(rows, n * h, scale=(n * h) ** -0.5), random(rows)
        scale = torch.tensor([0.7] if op == "hc_head" else [0.7, 1.1, 1.3], device="cuda")
        post, comb = torch.rand(t, n, device="cuda") * 2, torch.softmax(random(t, n, n), -2)
        mixes = {"post": lambda: empty(t, n, dtype=torch.float32), "comb": lambda: empty(t, n, n, dtype=torch.float32)}
        streams, vector = (lambda: empty(t, n, h, dtype=bf16)), (lambda: empty(t, h, dtype=bf16))
        made = {"post_mix": mixes["post"], "comb_mix": mixes["comb"], "post_mix_out": mixes["post"], "comb_mix_out": mixes["comb"],
                "layer_input": vector, "collapsed": vector, "streams": streams, "residual_out": streams}
        inputs = {"residual": residual, "fn": fn, "scale": scale, "base": base, "x": x, "post_mix": post, "comb_mix": comb}
        expression, arguments, outputs = {
            "mhc_pre": (mhc_pre_expression, ("residual", "fn", "scale", "base"), ("post_mix", "comb_mix", "layer_input")),
            "mhc_post": (mhc_post_expression, ("x", "residual", "post_mix", "comb_mix"), ("streams",)),
            "hc_head": (hc_head_expression, ("residual", "fn", "scale", "base"), ("collapsed",)),
            "mhc_fused_post_pre": (mhc_fused_expression, ("x", "residual", "post_mix", "comb_mix", "fn", "scale", "base"),
                                   ("residual_out", "post_mix_out", "comb_mix_out", "layer_input")),
        }[op]
        values = tuple(inputs[name] for name in arguments)
        operands = dict(zip(arguments, values)) | {name: made[name]() for name in outputs}

        def reference():  # in float64 where that is small; the streams are rounded between the two halves
            if t > 512:
                return expression(*values)
            wide = [v.double() for v in values]
            if op != "mhc_fused_post_pre":
                return expression(*wide)
            streams = mhc_post_expression(*wide[:4])[0].to(bf16)
            return [streams] + mhc_pre_expression(streams.double(), *wide[4:])

        return Case(operands, list(outputs), reference, {"torch_eager": lambda: expression(*values)},
                    {"inductor": (expression, values)})

    return case


def rms(x, weight, eps=1e-6):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


def rmsnorm(dims, attributes):
    rows, cols, dtype = dims["rows"], dims["cols"], DTYPES[attributes["dtype"]]
    x, w = random(rows, cols, dtype=dtype), random(cols, dtype=dtype)
    return Case({"x": x, "weight": w, "y": empty(rows, cols, dtype=dtype)}, ["y"], lambda: [rms(x.float(), w.float())],
                {"torch_fused": lambda: F.rms_norm(x, (cols,), w, 1e-6)}, {"inductor": (rms, (x, w))})


def add_rmsnorm(dims, attributes):
    rows, cols, dtype = dims["rows"], dims["cols"], DTYPES[attributes["dtype"]]
    x, residual, w = random(rows, cols, dtype=dtype), random(rows, cols, dtype=dtype), random(cols, dtype=dtype)

    def expression(x, residual, w):
        s = (x.float() + residual.float()).to(x.dtype)
        return [s, rms(s, w)]

    def eager():
        s = x + residual
        return [s, F.rms_norm(s, (cols,), w, 1e-6)]

    # kgen adds in place: its own copy, so that the vendor's operand stays.
    return Case({"x": x, "residual": residual.clone(), "weight": w, "y": empty(rows, cols, dtype=dtype)}, ["residual", "y"],
                lambda: [t.float() for t in expression(x, residual, w)], {"torch_add_rms_norm": eager},
                {"inductor": (expression, (x, residual, w))}, in_place=True)


def rmsnorm_gemm(dims, attributes):
    m, n, k = dims["m"], dims["n"], dims["k"]
    epilogue, dtype, gated = words(attributes), DTYPES[attributes["dtype"]], int(attributes.get("gated", 0))
    if dims.get("batch", 1) > 1 or "add_c" in epilogue:
        return None
    a, norm, b = random(m, k, dtype=dtype), random(k, dtype=dtype), random((1 + gated) * n, k, dtype=dtype, scale=k**-0.5)
    operands = {"a": a, "norm": norm, "b": b, "d": empty(m, n, dtype=DTYPES[attributes.get("out_dtype", attributes["dtype"])])}
    if "bias" in epilogue:
        operands["bias"] = random(n, dtype=DTYPES[attributes.get("bias_dtype", attributes["dtype"])])
    if "add_residual" in epilogue:
        operands["residual"] = random(m, n, dtype=dtype)
    if "mul_other" in epilogue:
        operands["other"] = random(m, n, dtype=dtype)
    optional = [operands.get(name) for name in ("bias", "residual", "other")]

    def expression(a, norm, b, bias, residual, other):
        y = rms(a, norm) @ b.t()
        if gated:
            return finish(y[:, :n], epilogue) * y[:, n:]
        return finish(y if bias is None else y + bias, epilogue, residual, other)

    def eager():
        y = F.rms_norm(a, (k,), norm, 1e-6) @ b.t()
        if gated:
            return finish(y[:, :n], epilogue) * y[:, n:]
        return finish(y if optional[0] is None else y + optional[0], epilogue, *optional[1:])

    whole = (expression, (a, norm, b, *optional))
    compiled = {"inductor": whole}
    if m == 1:
        compiled["inductor_cdt"] = (*whole, {"options": {"coordinate_descent_tuning": True}})
    return Case(operands, ["d"], lambda: [expression(*floats([a, norm, b, *optional]))], {"torch_eager": eager}, compiled, set(), whole)


def layernorm(dims, attributes):
    rows, cols, dtype = dims["rows"], dims["cols"], DTYPES[attributes["dtype"]]
    x, w, b = random(rows, cols, dtype=dtype), random(cols, dtype=dtype), random(cols, dtype=dtype)
    norm = lambda x, w, b: F.layer_norm(x, (cols,), w, b, 1e-6)
    return Case({"x": x, "weight": w, "bias": b, "y": empty(rows, cols, dtype=dtype)}, ["y"], lambda: [norm(*floats([x, w, b]))],
                {"torch_fused": lambda: norm(x, w, b)}, {"inductor": (norm, (x, w, b))})


def softmax(dims, attributes):
    rows, cols, dtype = dims["rows"], dims["cols"], DTYPES[attributes["dtype"]]
    out = DTYPES[attributes.get("out_dtype", attributes["dtype"])]
    x = random(rows, cols, dtype=dtype)
    expression = lambda x: torch.softmax(x, -1, dtype=out)
    return Case({"x": x, "y": empty(rows, cols, dtype=out)}, ["y"], lambda: [torch.softmax(x.float(), -1)],
                {"torch_fused": lambda: expression(x)}, {"inductor": (expression, (x,))})


def silu_and_mul(dims, attributes):
    rows, cols, dtype = dims["rows"], dims["cols"], DTYPES[attributes["dtype"]]
    x = random(rows, 2 * cols, dtype=dtype)

    def expression(x):
        return (F.silu(x[:, :cols].float()) * x[:, cols:].float()).to(x.dtype)

    return Case({"x": x, "y": empty(rows, cols, dtype=dtype)}, ["y"], lambda: [expression(x.float())],
                {"torch_eager": lambda: F.silu(x[:, :cols]) * x[:, cols:]}, {"inductor": (expression, (x,))})


def elementwise(dims, attributes):
    rows, cols, dtype = dims["rows"], dims["cols"], DTYPES[attributes["dtype"]]
    text = attributes["expr"]
    shapes = {"x": (rows, cols), "y": (rows, cols), "bias": (cols,), "scale": (rows,), "shift": (rows,)}
    expression = {
        "x+y": lambda x, y: x + y,
        "gelu_erf(x+bias)": lambda x, bias: F.gelu(x.float() + bias.float()).to(x.dtype),
        "quick_gelu(x)": lambda x: (x.float() * torch.sigmoid(1.702 * x.float())).to(x.dtype),
        "relu(x*scale[row]+shift[row])":
            lambda x, scale, shift: torch.relu(x.float() * scale[:, None] + shift[:, None]).to(x.dtype),
    }.get(text)
    if expression is None:
        return None
    names = [name for name in dict.fromkeys(re.findall(r"[a-z_]+", text)) if name in shapes]
    values = [random(*shapes[name], dtype=torch.float32 if name in ("scale", "shift") else dtype) for name in names]
    operands = dict(zip(names, values)) | {"out": empty(rows, cols, dtype=dtype)}
    return Case(operands, ["out"], lambda: [expression(*floats(values))], {"torch_eager": lambda: expression(*values)},
                {"inductor": (expression, tuple(values))})


def rope(dims, attributes):
    s, heads, d = dims["s"], dims["heads"], dims["d"]
    rotary, dtype = dims.get("rotary_dim", d), DTYPES[attributes["dtype"]]
    x = random(s, heads, d, dtype=dtype)
    angle = torch.arange(s).double()[:, None] * 10000.0 ** (-torch.arange(0, rotary, 2).double() / rotary)[None]
    cos, sin = angle.cos().float().cuda(), angle.sin().float().cuda()

    def expression(x, cos, sin):
        wide, c, s = x.float(), cos[:, None], sin[:, None]
        if attributes["style"] == "neox":
            a, b = wide[..., :rotary // 2], wide[..., rotary // 2:rotary]
            turned = torch.cat([a * c - b * s, b * c + a * s], -1)
        else:
            a, b = wide[..., 0:rotary:2], wide[..., 1:rotary:2]
            turned = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
        return torch.cat([turned, wide[..., rotary:]], -1).to(x.dtype)

    positions = torch.arange(s, device="cuda", dtype=torch.int32 if attributes.get("position_dtype", "int32") == "int32" else torch.int64)
    operands = {"x": x, "cos": cos, "sin": sin, "positions": positions, "y": empty(s, heads, d, dtype=dtype)}
    return Case(operands, ["y"], lambda: [expression(x.float(), cos, sin)], {"torch_eager": lambda: expression(x, cos, sin)},
                {"inductor": (expression, (x, cos, sin))})


def embedding(dims, attributes):
    rows, cols, vocab, dtype = dims["rows"], dims["cols"], dims["vocab"], DTYPES[attributes["dtype"]]
    table = random(vocab, cols, dtype=dtype)
    ids = torch.randint(0, vocab, (rows,), device="cuda", dtype=torch.int32 if attributes.get("id_dtype") == "int32" else torch.int64)
    return Case({"ids": ids, "table": table, "y": empty(rows, cols, dtype=dtype)}, ["y"], lambda: [F.embedding(ids, table)],
                {"torch_fused": lambda: F.embedding(ids, table)})


def maxpool2d(dims, attributes):
    if attributes.get("layout", "nhwc") != "nhwc":
        return None
    n, c, h, w, pad = dims.get("n", 1), dims["c"], dims["h"], dims["w"], dims.get("pad", 0)
    r = dims.get("r", 3)
    dtype, stride = DTYPES[attributes["dtype"]], dims.get("stride", 1)
    x, view = nhwc(n, h, w, c, dtype=dtype)
    planar = view.contiguous()
    pool = lambda x: F.max_pool2d(x, r, stride, pad)
    back = lambda y: y.permute(0, 2, 3, 1)
    shape = back(pool(view)).shape
    return Case({"x": x, "y": empty(*shape, dtype=dtype)}, ["y"], lambda: [back(pool(view.float()))],
                {"torch_nhwc": lambda: back(pool(view)), "torch_nchw": lambda: back(pool(planar))},
                {"inductor_nhwc": (lambda x: back(pool(x)), (view,)), "inductor_nchw": (lambda x: back(pool(x)), (planar,))})


def avgpool2d_global(dims, attributes):
    if attributes.get("layout", "nhwc") != "nhwc":
        return None
    n, c, h, w, dtype = dims.get("n", 1), dims["c"], dims["h"], dims["w"], DTYPES[attributes["dtype"]]
    x, view = nhwc(n, h, w, c, dtype=dtype)
    planar = view.contiguous()
    pool = lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1)
    return Case({"x": x, "y": empty(n, c, dtype=dtype)}, ["y"], lambda: [pool(view.float())],
                {"torch_nhwc": lambda: pool(view), "torch_nchw": lambda: pool(planar)},
                {"inductor_nhwc": (pool, (view,)), "inductor_nchw": (pool, (planar,))})


def sdpa(query, key, value, causal, scale=None):
    """PyTorch's fused backends on [b, heads, s, d] views."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    grouped = query.shape[1] != key.shape[1]

    def way(backend):
        def call():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped)
        return call

    backends = {"sdpa_flash": SDPBackend.FLASH_ATTENTION, "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION}
    if not grouped:
        backends["sdpa_efficient"] = SDPBackend.EFFICIENT_ATTENTION
    return {name: way(backend) for name, backend in backends.items()}


def attention(dims, attributes):
    b, hq, sq = dims["b"], dims["hq"], dims["sq"]
    hkv, skv = dims.get("hkv", hq), dims.get("skv", sq)
    d = int(attributes.get("d", dims.get("d", 0)))
    dv = int(attributes.get("dv", dims.get("dv", 0))) or d
    dtype, causal = DTYPES[attributes["dtype"]], bool(int(attributes.get("causal", 0)))
    q, k, v = random(b, hq, sq, d, dtype=dtype), random(b, hkv, skv, d, dtype=dtype), random(b, hkv, skv, dv, dtype=dtype)

    def plain(q, k, v):
        return torch.softmax((q @ k.transpose(-1, -2)) * d**-0.5, -1) @ v

    # Of long sequences 256 rows in all heads are compared: the first, the last and some between.
    long = b * hq * sq * skv > 1 << 29
    rows = torch.arange(sq, device="cuda")
    if long:
        rows = torch.cat([rows[:64], rows[64:-64][torch.randperm(sq - 128, device="cuda")[:128]].sort()[0], rows[-64:]])

    def reference():
        kk, vv = (t.float().repeat_interleave(hq // hkv, 1) for t in (k, v))
        scores = (q[:, :, rows].float() @ kk.transpose(-1, -2)) * d**-0.5
        if causal:
            hidden = torch.arange(skv, device="cuda")[None] > rows[:, None] + (skv - sq)
            scores = scores.masked_fill(hidden, float("-inf"))
        return [torch.softmax(scores, -1) @ vv]

    vendors, compiled = sdpa(q, k, v, causal), {}
    if d % 8 != 0 and not causal:
        vendors["torch_eager"] = lambda: plain(q, k, v)
        compiled["inductor"] = (plain, (q, k, v))
        vendors["sdpa_padded"] = lambda: F.scaled_dot_product_attention(
            F.pad(q, (0, 8 - d % 8)), F.pad(k, (0, 8 - d % 8)), v, scale=d**-0.5)
    return Case({"q": q, "k": k, "v": v, "o": empty(b, hq, sq, dv, dtype=dtype)}, ["o"], reference, vendors, compiled,
                pick=(lambda outputs: [o[:, :, rows] for o in outputs]) if long else None)


def decode_attention(dims, attributes):
    b, hq, smax = dims["b"], dims["hq"], dims["smax"]
    hkv, seq = dims.get("hkv", hq), dims.get("seq", smax)
    d, dtype = int(attributes.get("d", dims.get("d", 0))), DTYPES[attributes["dtype"]]
    q = random(b, hq, d, dtype=dtype)
    k, v = random(b, hkv, smax, d, dtype=dtype), random(b, hkv, smax, d, dtype=dtype)
    lengths = torch.full((b,), seq, device="cuda", dtype=torch.int32)
    key, value, group = k[:, :, :seq], v[:, :, :seq], hq // hkv

    def reference():
        q4 = q.float().view(b, hkv, group, d)
        return [(torch.softmax(q4 @ key.float().transpose(-1, -2) * d**-0.5, -1) @ value.float()).view(b, hq, d)]

    vendors = {name: (lambda call: lambda: call().view(b, hq, d))(call) for name, call in sdpa(q[:, :, None], key, value, False).items()}
    if group > 1:  # the group's heads as query rows of one head: the same values, one read of the cache
        rows = sdpa(q.view(b, hkv, group, d), key, value, False)
        vendors |= {name + "_rows": (lambda call: lambda: call().reshape(b, hq, d))(call) for name, call in rows.items()}
    return Case({"q": q, "k_cache": k, "v_cache": v, "lengths": lengths, "o": empty(b, hq, d, dtype=dtype)}, ["o"], reference, vendors)


CASES = {
    "gemm": gemm, "conv3d_patchify": conv3d_patchify, "conv2d": conv2d, "multi_dilation_conv": multi_dilation_conv,
    "gptq_gemm": gptq_gemm, "rmsnorm_gemm": rmsnorm_gemm, "mhc_pre": mhc("mhc_pre"), "mhc_post": mhc("mhc_post"), "hc_head": mhc("hc_head"),
    "mhc_fused_post_pre": mhc("mhc_fused_post_pre"), "rmsnorm": rmsnorm, "add_rmsnorm": add_rmsnorm, "layernorm": layernorm,
    "softmax": softmax, "silu_and_mul": silu_and_mul, "elementwise": elementwise, "rope": rope, "embedding": embedding,
    "maxpool2d": maxpool2d, "avgpool2d_global": avgpool2d_global, "attention": attention, "decode_attention": decode_attention,
}
