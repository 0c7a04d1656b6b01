"""Every operator: operands, the call, and its float64 reference in torch."""
import math
import torch
import torch.nn.functional as F

BF, HALF = torch.bfloat16, torch.float16


def cases(device):
    g = torch.Generator(device="cpu").manual_seed(0)

    def rnd(*shape, dtype=BF, scale=1.0):
        return (torch.randn(*shape, generator=g) * scale).to(dtype).to(device)

    def ints(lo, hi, *shape, dtype=torch.int32):
        return torch.randint(lo, hi, shape, generator=g).to(dtype).to(device)

    gelu, silu = F.gelu, F.silu
    nchw = lambda t: t.permute(0, 3, 1, 2)
    nhwc = lambda t: t.permute(0, 2, 3, 1)
    rms = lambda x, w, eps=1e-6: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * w
    out = []

    def case(name, call, ref, tol, **operands):
        out.append((name, call, ref, tol, operands))

    a, b, bias = rnd(197, 768), rnd(768, 768, scale=0.04), rnd(768)
    case("gemm", lambda o, a, b, bias: o.gemm(a, b, bias=bias, activation="gelu_erf"),
         lambda a, b, bias: gelu(a @ b.T + bias), 6e-3, a=a, b=b, bias=bias)
    case("gemm", lambda o, a, b, bias, residual: o.gemm(a, b, bias=bias, residual=residual),
         lambda a, b, bias, residual: a @ b.T + bias + residual, 6e-3, a=a.view(1, 197, 768), b=b, bias=bias,
         residual=rnd(1, 197, 768))
    case("gemm", lambda o, a, b: o.gemm(a, b), lambda a, b: a @ b.T, 6e-3, a=rnd(1, 4096), b=rnd(4096, 4096, scale=0.02))
    case("gemm", lambda o, a, b: o.gemm(a, b, b_layout="kn", out_dtype="fp32"), lambda a, b: a @ b, 1e-4,
         a=rnd(3, 64, 256, dtype=HALF), b=rnd(3, 256, 128, dtype=HALF))
    case("rmsnorm_gemm", lambda o, a, norm, b: o.rmsnorm_gemm(a, norm, b), lambda a, norm, b: rms(a, norm) @ b.T, 6e-3,
         a=rnd(1, 4096), norm=rnd(4096), b=rnd(4096, 4096, scale=0.02))
    case("conv2d", lambda o, x, weight, bias: o.conv2d(x, weight, bias, activation="relu", pad=1),
         lambda x, weight, bias: nhwc(F.relu(F.conv2d(nchw(x), nchw(weight), bias, padding=1))), 6e-3,
         x=rnd(1, 56, 56, 64), weight=rnd(64, 3, 3, 64, scale=0.05), bias=rnd(64))
    case("conv2d", lambda o, x, weight, scale, shift: o.conv2d(x, weight, scale=scale, shift=shift, layout="nchw",
                                                               activation="silu", pad=4, dil=2),
         lambda x, weight, scale, shift: silu(F.conv2d(x, weight, padding=4, dilation=2) * scale[:, None, None]
                                              + shift[:, None, None]), 6e-3,
         x=rnd(1, 96, 40, 31), weight=rnd(96, 96, 5, 5, scale=0.02), scale=rnd(96, dtype=torch.float32),
         shift=rnd(96, dtype=torch.float32))
    case("multi_dilation_conv", lambda o, x, weight, bias: o.multi_dilation_conv(x, weight, bias, dils=[1, 2, 3],
                                                                               activation="silu"),
         lambda x, weight, bias: torch.cat([nhwc(silu(F.conv2d(nchw(x), nchw(weight), bias, padding=2 * d, dilation=d)))
                                            for d in (1, 2, 3)], -1), 6e-3,
         x=rnd(1, 40, 31, 96), weight=rnd(96, 5, 5, 96, scale=0.02), bias=rnd(96))

    def g2l(z, wp, bp, gate_a, gate_b, wm, bm, x):
        v = torch.cat([silu(part @ wp.T + bp) for part in z.split(96, -1)], -1)
        gated = v * torch.sigmoid(silu(gate_a * v + gate_b))
        return x + silu((gated.view(*gated.shape[:-1], 96, 3) * wm).sum(-1) + bm)

    case("g2l_tail", lambda o, **k: o.g2l_tail(**k), g2l, 6e-3, z=rnd(1, 40, 31, 288), wp=rnd(96, 96, scale=0.1), bp=rnd(96),
         gate_a=rnd(288, dtype=torch.float32), gate_b=rnd(288, dtype=torch.float32), wm=rnd(96, 3), bm=rnd(96),
         x=rnd(1, 40, 31, 96))
    case("conv3d_patchify", lambda o, x, weight: o.conv3d_patchify(x, weight), lambda x, weight: x @ weight.flatten(1).T, 6e-3,
         x=rnd(1024, 1176), weight=rnd(1280, 3, 2, 14, 14, scale=0.03))

    def gptq(x, qweight, qzeros, scales, bias):
        shifts = torch.arange(0, 32, 4, device=x.device)
        q = ((qweight.long()[:, None] >> shifts[None, :, None]) & 15).flatten(0, 1)
        zero = ((qzeros.long()[:, :, None] >> shifts) & 15).flatten(1) + 1
        rows = torch.arange(q.shape[0], device=x.device) // 128
        return x @ (scales[rows] * (q - zero[rows])) + bias

    for m in (1, 64):
        case("gptq_gemm", lambda o, **k: o.gptq_gemm(**k, group_size=128, frozen=True), gptq, 4e-3, x=rnd(m, 3584, dtype=HALF),
             qweight=ints(-2 ** 31, 2 ** 31, 448, 3584), qzeros=ints(-2 ** 31, 2 ** 31, 28, 448),
             scales=rnd(28, 3584, dtype=HALF, scale=0.002), bias=rnd(3584, dtype=HALF))

    def attention(q, k, v, lengths=None, causal=True):
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if causal:
            s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril(), -math.inf)
        if lengths is not None:
            s = s.masked_fill(torch.arange(s.shape[-1], device=s.device) >= lengths[:, None, None, None].long(), -math.inf)
        return s.softmax(-1) @ v

    heads = lambda t: t.transpose(1, 2)
    case("attention", lambda o, q, k, v: o.attention(q, k, v, causal=1), attention, 8e-3, q=heads(rnd(1, 197, 12, 64)),
         k=heads(rnd(1, 197, 4, 64)), v=heads(rnd(1, 197, 4, 64)))
    case("decode_attention", lambda o, q, lengths, k_cache, v_cache: o.decode_attention(q, lengths, k_cache, v_cache),
         lambda q, lengths, k_cache, v_cache: attention(q[:, :, None], k_cache, v_cache, lengths, False)[:, :, 0], 8e-3,
         q=rnd(2, 28, 128), lengths=torch.tensor([700, 1024], dtype=torch.int32, device=device), k_cache=rnd(2, 4, 1024, 128),
         v_cache=rnd(2, 4, 1024, 128))
    x, w = rnd(64, 4096), rnd(4096)
    case("rmsnorm", lambda o, x, weight: o.rmsnorm(x, weight, eps=1e-5), lambda x, weight: rms(x, weight, 1e-5), 6e-3, x=x, weight=w)
    case("add_rmsnorm", lambda o, x, residual, weight: (o.add_rmsnorm(x, residual, weight), residual),
         lambda x, residual, weight: (rms((x + residual).to(BF).double(), weight), x + residual), 6e-3, x=x,
         residual=rnd(64, 4096), weight=w)
    case("layernorm", lambda o, x, weight, bias: o.layernorm(x, weight, bias, eps=1e-12),
         lambda x, weight, bias: F.layer_norm(x, (768,), weight, bias, 1e-12), 6e-3, x=a, weight=bias, bias=rnd(768))
    case("softmax", lambda o, x: o.softmax(x), lambda x: x.softmax(-1), 6e-3, x=x)
    case("silu_and_mul", lambda o, x: o.silu_and_mul(x), lambda x: silu(x[:, :4096]) * x[:, 4096:], 6e-3, x=rnd(64, 8192))

    def rope(x, positions, cos, sin):
        c, s = cos[positions.long()][:, None], sin[positions.long()][:, None]
        p, q = x.chunk(2, -1)
        return torch.cat([p * c - q * s, q * c + p * s], -1)

    angle = torch.arange(4096, dtype=torch.float64)[:, None] * 1e6 ** (-torch.arange(64, dtype=torch.float64) / 64)
    case("rope", lambda o, x, positions, cos, sin: o.rope(x, positions, cos, sin, style="neox"), rope, 6e-3,
         x=rnd(64, 28, 128), positions=ints(0, 4096, 64), cos=angle.cos().float().to(device), sin=angle.sin().float().to(device))
    case("embedding", lambda o, ids, table: o.embedding(ids, table), lambda ids, table: table[ids], 0,
         ids=ints(0, 1000, 4, 16, dtype=torch.int64), table=rnd(1000, 4096))
    case("elementwise", lambda o, x, y, bias: o.elementwise(x=x, y=y, bias=bias, expr="silu(x)*y + bias"),
         lambda x, y, bias: silu(x) * y + bias, 6e-3, x=x, y=rnd(64, 4096), bias=w)
    case("concat", lambda o, p, q, r: o.concat(p, q, r), lambda p, q, r: torch.cat([p, q, r], -1), 0, p=rnd(1, 40, 31, 96),
         q=rnd(1, 40, 31, 96), r=rnd(1, 40, 31, 96))
    case("transpose", lambda o, x: o.transpose(x), lambda x: x.transpose(1, 2), 0, x=rnd(2, 96, 1240))
    case("maxpool2d", lambda o, x: o.maxpool2d(x, r=3, stride=2, pad=1), lambda x: nhwc(F.max_pool2d(nchw(x), 3, 2, 1)), 0,
         x=rnd(1, 112, 112, 64))
    case("avgpool2d_global", lambda o, x: o.avgpool2d_global(x), lambda x: x.mean((1, 2)), 6e-3, x=rnd(2, 7, 7, 512))
    case("upsample_nearest2x", lambda o, x: o.upsample_nearest2x(x),
         lambda x: x.repeat_interleave(2, 1).repeat_interleave(2, 2), 0, x=rnd(1, 20, 31, 96))

    def mixes(r, fn):
        f = r.flatten(1)
        return f @ fn.T * torch.rsqrt((f * f).mean(-1, keepdim=True) + 1e-6)

    def pre(residual, fn, scale, base):
        t, n, _ = residual.shape
        m = mixes(residual, fn)
        gate = torch.sigmoid(m[:, :n] * scale[0] + base[:n]) + 1e-6
        post = 2 * torch.sigmoid(m[:, n:2 * n] * scale[1] + base[n:2 * n])
        comb = (m[:, 2 * n:] * scale[2] + base[2 * n:]).view(t, n, n).softmax(-1) + 1e-6
        comb = comb / (comb.sum(1, keepdim=True) + 1e-6)
        for _ in range(19):
            comb = comb / (comb.sum(2, keepdim=True) + 1e-6)
            comb = comb / (comb.sum(1, keepdim=True) + 1e-6)
        return post[..., None], comb, torch.einsum("tn,tnh->th", gate, residual)

    def post(x, residual, post_mix, comb_mix):
        return post_mix * x[:, None] + torch.einsum("tij,tih->tjh", comb_mix, residual)

    f32 = torch.float32
    streams = dict(residual=rnd(16, 4, 1024), fn=rnd(24, 4096, dtype=f32, scale=1 / 64),
                   scale=torch.tensor([0.7, 1.1, 1.3], device=device), base=rnd(24, dtype=f32))
    spread = dict(x=rnd(16, 1024), residual=rnd(16, 4, 1024), post_mix=rnd(16, 4, 1, dtype=f32).abs(),
                  comb_mix=rnd(16, 4, 4, dtype=f32).abs())
    case("mhc_pre", lambda o, **k: o.mhc_pre(**k), pre, 6e-3, **streams)
    case("mhc_post", lambda o, **k: o.mhc_post(**k), post, 6e-3, **spread)

    def fused(x, residual, post_mix, comb_mix, fn, scale, base):
        mixed = post(x, residual, post_mix, comb_mix).to(BF).double()
        return (mixed, *pre(mixed, fn, scale, base))

    case("mhc_fused_post_pre", lambda o, **k: o.mhc_fused_post_pre(**k), fused, 6e-3, **spread,
         **{k: streams[k] for k in ("fn", "scale", "base")})
    case("hc_head", lambda o, **k: o.hc_head(**k),
         lambda residual, fn, scale, base: torch.einsum("tn,tnh->th", torch.sigmoid(mixes(residual, fn) * scale[0] + base) + 1e-6,
                                                        residual), 6e-3,
         residual=streams["residual"], fn=rnd(4, 4096, dtype=f32, scale=1 / 64), scale=torch.tensor([0.7], device=device),
         base=rnd(4, dtype=f32))
    return out
