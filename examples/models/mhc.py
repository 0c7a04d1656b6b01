"""A stack of manifold-constrained hyper-connections (4 streams of 4096, two sublayers a layer, as DeepSeek-V4-Flash has them). What
stands between them is the RMS norm of each sublayer's input, so that the hyper-connections are what is timed.

kgen's form: mhc_pre, then one mhc_fused_post_pre between every two sublayers with the norm in it, mhc_post and hc_head."""
import torch
import torch.nn.functional as F
from torch import nn

from common import Model

EPS, REPEAT, POST = 1e-6, 20, 2.0


def gates(streams, fn, scale, base):
    """(mixes, n): the projections of the normalised streams."""
    flat = streams.flatten(1).float()
    return F.linear(flat, fn) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + EPS)


def collapse(streams, gate):
    return (gate[:, :, None] * streams.float()).sum(1).to(streams.dtype)


def pre(streams, fn, scale, base):
    """A sublayer's input, and how its output is spread: (post [t, n], comb [t, source, destination])."""
    n = streams.shape[1]
    mixes = gates(streams, fn, scale, base)
    gate = torch.sigmoid(mixes[:, :n] * scale[0] + base[:n]) + EPS
    post = POST * torch.sigmoid(mixes[:, n:2 * n] * scale[1] + base[n:2 * n])
    comb = (mixes[:, 2 * n:] * scale[2] + base[2 * n:]).view(-1, n, n)
    comb = torch.softmax(comb, -1) + EPS
    comb = comb / (comb.sum(1, keepdim=True) + EPS)
    for _ in range(REPEAT - 1):
        comb = comb / (comb.sum(2, keepdim=True) + EPS)
        comb = comb / (comb.sum(1, keepdim=True) + EPS)
    return collapse(streams, gate), post, comb


def spread(x, streams, post, comb):
    wide = post[:, :, None] * x[:, None].float() + torch.einsum("tij,tih->tjh", comb, streams.float())
    return wide.to(streams.dtype)


class Sublayer(nn.Module):
    def __init__(self, model, rows):
        super().__init__()
        wide = {"device": model.device, "dtype": torch.float32}
        self.fn = nn.Parameter(torch.randn(rows, model.streams * model.hidden, **wide) * (model.streams * model.hidden) ** -0.5, requires_grad=False)
        self.scale = nn.Parameter(torch.tensor([0.7, 1.1, 1.3] if rows > model.streams else [0.7], **wide), requires_grad=False)
        self.base = nn.Parameter(torch.randn(rows, **wide), requires_grad=False)
        self.norm = nn.Parameter(1 + 0.1 * torch.randn(model.hidden, **model.place), requires_grad=False)


class Stack(nn.Module):
    def __init__(self, model):
        super().__init__()
        n = model.streams
        self.sublayers = nn.ModuleList(Sublayer(model, n * n + 2 * n) for _ in range(2 * model.layers))
        self.head = Sublayer(model, n)

    def forward(self, streams):
        for part in self.sublayers:
            x, post, comb = pre(streams, part.fn, part.scale, part.base)
            x = F.rms_norm(x, part.norm.shape, part.norm, EPS)
            streams = spread(x, streams, post, comb)
        head = self.head
        mixes = gates(streams, head.fn, head.scale, head.base)
        return collapse(streams, torch.sigmoid(mixes * head.scale[0] + head.base) + EPS)


class Mhc(Model):
    name = "mhc_t1"
    what = "mHC stack of 8 layers, 4 streams of 4096, 1 token, bf16"
    layers, tokens, streams, hidden, gigabytes = 8, 1, 4, 4096, 1.5

    def module(self):
        torch.manual_seed(1)
        return Stack(self).eval()

    def inputs(self):
        torch.manual_seed(2)
        return (torch.randn(self.tokens, self.streams, self.hidden, **self.place),)

    def kernels(self, kgen, module):
        def run(streams):
            for index, part in enumerate(module.sublayers):
                own = {"fn": part.fn, "scale": part.scale, "base": part.base, "norm_weight": part.norm, "norm": "round_first"}
                if index == 0:
                    post, comb, x = kgen.mhc_pre(streams, **own)
                else:
                    streams, post, comb, x = kgen.mhc_fused_post_pre(x, streams, post, comb, **own)
            streams = kgen.mhc_post(x, streams, post, comb)
            return kgen.hc_head(streams, module.head.fn, module.head.scale, module.head.base)

        return run

    def problems(self):
        attributes, dims = {"n": self.streams}, {"t": self.tokens, "h": self.hidden}
        yield "mhc_pre", {**attributes, "norm": "round_first"}, dims
        yield "mhc_fused_post_pre", {**attributes, "norm": "round_first"}, dims
        yield "mhc_post", attributes, dims
        yield "hc_head", attributes, dims


class Mhc4096(Mhc):
    name = "mhc_t4096"
    what = "mHC stack of 8 layers, 4 streams of 4096, 4096 tokens, bf16"
    tokens, gigabytes = 4096, 4


MODELS = [Mhc, Mhc4096]
TINY = {"mhc_t1": {"layers": 2, "hidden": 64}, "mhc_t4096": {"layers": 1, "hidden": 64, "tokens": 5}}
