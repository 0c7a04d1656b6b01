"""A decoder of Llama-2-7B's shape: one token with 208 in the cache, and a prompt of 512 tokens. The graph of a step serves every
position: it is read from a tensor, as is what counts of the cache.

In kgen's form a decode step has its norms in the products behind them, silu and gate in the product of w1 and w3, and the
residual added by wo and w2."""
import torch
import torch.nn.functional as F
from torch import nn

from common import Model, randomize, rope_table

EPS = 1e-5


class Norm(nn.Module):
    def __init__(self, dim, place):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, **place))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, EPS)


def linear(k, n, place):
    return nn.Linear(k, n, bias=False, **place)


class Layer(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        dim = model.dim
        self.heads, self.head = model.heads, dim // model.heads
        self.norm1, self.norm2 = Norm(dim, place), Norm(dim, place)
        self.wqkv, self.wo = linear(dim, 3 * dim, place), linear(dim, dim, place)
        self.w13, self.w2 = linear(dim, 2 * model.ffn, place), linear(model.ffn, dim, place)
        self.register_buffer("cache", torch.empty(2 * self.heads, model.longest, self.head, **place))  # keys, then values

    def turn(self, x, cos, sin):
        """Rotates neighbours, in float32."""
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(x.dtype)

    def forward(self, x, positions, cos, sin, mask):
        tokens = x.shape[0]
        q, k, v = self.wqkv(self.norm1(x)).view(tokens, 3, self.heads, self.head).unbind(1)
        q, k = self.turn(q, cos, sin), self.turn(k, cos, sin)
        self.cache[:, positions] = torch.cat([k, v], 1).transpose(0, 1)
        if mask is None:
            o = F.scaled_dot_product_attention(q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], is_causal=True)
        else:
            keys, values = self.cache[None].chunk(2, 1)
            o = F.scaled_dot_product_attention(q.transpose(0, 1)[None], keys, values, attn_mask=mask)
        x = x + self.wo(o[0].transpose(0, 1).reshape(tokens, -1))
        gate, up = self.w13(self.norm2(x)).chunk(2, -1)
        return x + self.w2(F.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        self.prefill = model.tokens > 1
        self.embed = nn.Embedding(model.vocab, model.dim, **place)
        self.layers = nn.ModuleList(Layer(model, place) for _ in range(model.layers))
        self.norm, self.head = Norm(model.dim, place), linear(model.dim, model.vocab, place)
        cos, sin = rope_table(4096, model.dim // model.heads, 10000.0, place["device"])
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, tokens, positions):
        x = self.embed(tokens)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        mask = None
        if not self.prefill:
            mask = (torch.arange(self.layers[0].cache.shape[1], device=tokens.device) <= positions)[None, None, None]
        for layer in self.layers:
            x = layer(x, positions, cos, sin, mask)
        return self.head(self.norm(x[-1:]))


class Llama(Model):
    layers, dim, heads, ffn, vocab = 32, 4096, 32, 11008, 32000

    def module(self):
        decoder = randomize(Decoder(self, self.place))
        torch.manual_seed(3)
        decoder.embed.weight.normal_()
        for layer in decoder.layers:
            layer.cache.normal_()
        return decoder


class LlamaDecode(Llama):
    name = "llama2_7b_decode"
    what = "Llama-2-7B, one token, 208 in the cache, bf16"
    tokens, longest, gigabytes = 1, 208, 14.5

    def inputs(self):
        return torch.tensor([3], device=self.device), torch.tensor([self.longest - 1], device=self.device)

    def kernels(self, kgen, module):
        heads, head = self.heads, self.dim // self.heads

        def run(tokens, positions):
            rows, lengths = positions.int(), (positions + 1).int()
            x = kgen.embedding(tokens, module.embed.weight)
            for layer in module.layers:
                qkv = kgen.rmsnorm_gemm(x, layer.norm1.weight, layer.wqkv.weight, eps=EPS).view(1, 3 * heads, head)
                turned = qkv[:, :2 * heads]
                kgen.rope(turned, rows, module.cos, module.sin, style="gptj", out=turned)
                layer.cache.index_copy_(1, positions, qkv[0, heads:, None])
                keys, values = layer.cache[None].chunk(2, 1)
                o = kgen.decode_attention(qkv[:, :heads], lengths, keys, values)
                x = kgen.gemm(o.view(1, -1), layer.wo.weight, residual=x)
                y = kgen.rmsnorm_gemm(x, layer.norm2.weight, layer.w13.weight, activation="silu", gated=1, eps=EPS)
                x = kgen.gemm(y, layer.w2.weight, residual=x)
            return kgen.rmsnorm_gemm(x, module.norm.weight, module.head.weight, eps=EPS)

        return run

    def problems(self):
        dim, ffn, heads, head, add = self.dim, self.ffn, self.heads, self.dim // self.heads, {"epilogue": ["add_residual"]}
        yield "embedding", {"id_dtype": "int64"}, {"rows": 1, "cols": dim, "vocab": self.vocab}
        yield "rmsnorm_gemm", {}, {"m": 1, "n": 3 * dim, "k": dim}
        yield "rope", {"style": "gptj"}, {"s": 1, "heads": 2 * heads, "d": head}
        yield "decode_attention", {"d": head}, {"b": 1, "hq": heads, "smax": self.longest}
        yield "gemm", add, {"m": 1, "n": dim, "k": dim}
        yield "rmsnorm_gemm", {"epilogue": ["silu"], "gated": 1}, {"m": 1, "n": ffn, "k": dim}
        yield "gemm", add, {"m": 1, "n": dim, "k": ffn}
        yield "rmsnorm_gemm", {}, {"m": 1, "n": self.vocab, "k": dim}


class LlamaPrefill(Llama):
    name = "llama2_7b_prefill"
    what = "Llama-2-7B, a prompt of 512 tokens, bf16"
    tokens, longest, gigabytes = 512, 512, 15
    mixed = True

    def inputs(self):
        torch.manual_seed(2)
        return torch.randint(0, self.vocab, (self.tokens,), device=self.device), torch.arange(self.tokens, device=self.device)

    def kernels(self, kgen, module):
        heads, head, count = self.heads, self.dim // self.heads, self.tokens

        def run(tokens, positions):
            rows = positions.int()
            x = kgen.embedding(tokens, module.embed.weight)
            for layer in module.layers:
                y = kgen.rmsnorm(x, layer.norm1.weight, eps=EPS)
                qkv = kgen.gemm(y, layer.wqkv.weight).view(count, 3 * heads, head)
                turned = qkv[:, :2 * heads]
                kgen.rope(turned, rows, module.cos, module.sin, style="gptj", out=turned)
                layer.cache.index_copy_(1, positions, qkv[:, heads:].transpose(0, 1))
                q, k, v = qkv.transpose(0, 1)[None].chunk(3, 1)
                o = torch.empty(count, heads, head, **self.place)
                kgen.attention(q, k, v, causal=1, out=o.transpose(0, 1)[None])
                x = kgen.gemm(o.view(count, -1), layer.wo.weight, residual=x)
                y = kgen.rmsnorm(x, layer.norm2.weight, eps=EPS)
                y = kgen.silu_and_mul(kgen.gemm(y, layer.w13.weight))
                x = kgen.gemm(y, layer.w2.weight, residual=x)
            return kgen.rmsnorm_gemm(x[-1:], module.norm.weight, module.head.weight, eps=EPS)

        return run

    def problems(self):
        dim, ffn, heads, head, t = self.dim, self.ffn, self.heads, self.dim // self.heads, self.tokens
        yield "embedding", {"id_dtype": "int64"}, {"rows": t, "cols": dim, "vocab": self.vocab}
        yield "rmsnorm", {}, {"rows": t, "cols": dim}
        yield "gemm", {}, {"m": t, "n": 3 * dim, "k": dim}
        yield "rope", {"style": "gptj"}, {"s": t, "heads": 2 * heads, "d": head, "ldx": 3 * dim, "ldy": 3 * dim}
        joined = {"ldq": 3 * dim, "ldk": 3 * dim, "ldv": 3 * dim, "ldo": dim}
        joined.update({f"head_stride_{x}": head for x in "qkvo"})
        yield "attention", {"d": head, "causal": 1}, {"b": 1, "hq": heads, "sq": t, **joined}
        yield "gemm", {"epilogue": ["add_residual"]}, {"m": t, "n": dim, "k": dim}
        yield "gemm", {}, {"m": t, "n": 2 * ffn, "k": dim}
        yield "silu_and_mul", {}, {"rows": t, "cols": ffn}
        yield "gemm", {"epilogue": ["add_residual"]}, {"m": t, "n": dim, "k": ffn}
        yield "rmsnorm_gemm", {}, {"m": 1, "n": self.vocab, "k": dim}


MODELS = [LlamaDecode, LlamaPrefill]
TINY = {"llama2_7b_decode": {"layers": 2, "dim": 64, "heads": 2, "ffn": 96, "vocab": 100, "longest": 24},
        "llama2_7b_prefill": {"layers": 2, "dim": 64, "heads": 2, "ffn": 96, "vocab": 100, "longest": 24, "tokens": 24}}
