"""A decoder of Qwen2.5-7B-GPTQ's shape: one token with 208 in the cache; weights of 4 bits, groups of 128, symmetric.

torch gets the same weights dequantised to fp16, which is what there is to do without a kernel for 4 bits. kgen's form multiplies
with the packed weights and adds the residual in the norms."""
import torch
import torch.nn.functional as F
from torch import nn

from common import Model, randomize, rope_table
from llama2_7b import Norm

EPS, GROUP = 1e-6, 128


class GptqLinear(nn.Module):
    """The tensors of a GPTQ checkpoint: 8 values of 4 bits a word along k, a scale for each group, zero 8 (stored as 7)."""

    def __init__(self, k, n, bias, place):
        super().__init__()
        device = place["device"]
        self.k, self.n = k, n
        self.register_buffer("qweight", torch.randint(-2 ** 31, 2 ** 31, (k // 8, n), device=device, dtype=torch.int64).to(torch.int32))
        self.register_buffer("qzeros", torch.full((k // GROUP, n // 8), 0x77777777, device=device, dtype=torch.int32))
        self.register_buffer("scales", ((torch.rand(k // GROUP, n, device=device) + 0.5) * k ** -0.5 / 4.6).to(place["dtype"]))
        self.bias = nn.Parameter(torch.empty(n, **place)) if bias else None

    def dequantised(self):
        shifts = torch.arange(0, 32, 4, device=self.qweight.device, dtype=torch.int32)
        values = ((self.qweight[:, None] >> shifts[:, None]) & 15).view(-1, GROUP, self.n) - 8
        weight = (values.to(self.scales.dtype) * self.scales[:, None]).view(self.k, self.n).t().contiguous()
        layer = nn.Linear(1, 1, bias=False)
        layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), self.bias
        layer.in_features, layer.out_features = self.k, self.n
        return layer


class Layer(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        self.heads, self.shared, self.head = model.heads, model.shared, model.head
        self.norm1, self.norm2 = Norm(model.dim, place), Norm(model.dim, place)
        q, kv = model.heads * model.head, model.shared * model.head
        self.qkv = GptqLinear(model.dim, q + 2 * kv, True, place)
        self.out = GptqLinear(q, model.dim, False, place)
        self.gate_up = GptqLinear(model.dim, 2 * model.ffn, False, place)
        self.down = GptqLinear(model.ffn, model.dim, False, place)
        self.register_buffer("cache", torch.empty(2 * model.shared, model.longest, model.head, **place))  # keys, then values

    @staticmethod
    def turn(x, cos, sin):
        a, b = x.float().chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)

    def forward(self, x, positions, cos, sin, mask):
        qkv = self.qkv(self.norm1(x)).view(-1, self.heads + 2 * self.shared, self.head)
        q, k, v = qkv.split([self.heads, self.shared, self.shared], 1)
        q, k = self.turn(q, cos, sin), self.turn(k, cos, sin)
        self.cache[:, positions] = torch.cat([k, v], 1).transpose(0, 1)
        keys, values = self.cache[None].chunk(2, 1)
        o = F.scaled_dot_product_attention(q.transpose(0, 1)[None], keys, values, attn_mask=mask, enable_gqa=True)
        x = x + self.out(o[0].transpose(0, 1).flatten(1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        self.embed = nn.Embedding(model.vocab, model.dim, **place)
        self.layers = nn.ModuleList(Layer(model, place) for _ in range(model.layers))
        self.norm, self.head = Norm(model.dim, place), nn.Linear(model.dim, model.vocab, bias=False, **place)
        cos, sin = rope_table(4096, model.head, 1e6, place["device"])
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, tokens, positions):
        x = self.embed(tokens)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        mask = (torch.arange(self.layers[0].cache.shape[1], device=tokens.device) <= positions)[None, None, None]
        for layer in self.layers:
            x = layer(x, positions, cos, sin, mask)
        return self.head(self.norm(x))


class QwenGptq(Model):
    name = "qwen2_5_7b_gptq_decode"
    what = "Qwen2.5-7B-GPTQ-Int4, one token, 208 in the cache; torch: dequantised fp16"
    dtype = "fp16"
    layers, dim, heads, shared, head, ffn, vocab, longest = 28, 3584, 28, 4, 128, 18944, 152064, 208
    gigabytes = 16

    def packed(self):
        torch.manual_seed(4)
        decoder = randomize(Decoder(self, self.place))
        decoder.embed.weight.normal_()
        for layer in decoder.layers:
            layer.cache.normal_()
        return decoder

    def module(self):
        decoder = self.packed()
        for layer in decoder.layers:
            for name, part in list(layer.named_children()):
                if isinstance(part, GptqLinear):
                    setattr(layer, name, part.dequantised())
        return decoder

    def inputs(self):
        return torch.tensor([3], device=self.device), torch.tensor([self.longest - 1], device=self.device)

    def kernels(self, kgen, module):
        heads, shared, head = self.heads, self.shared, self.head

        def linear(layer, x):
            return kgen.gptq_gemm(x, layer.qweight, layer.qzeros, layer.scales, bias=layer.bias, sym=1)

        def run(tokens, positions):
            rows, lengths = positions.int(), (positions + 1).int()
            x = kgen.embedding(tokens, module.embed.weight)
            y = kgen.rmsnorm(x, module.layers[0].norm1.weight, eps=EPS)
            for index, layer in enumerate(module.layers):
                qkv = linear(layer.qkv, y).view(1, heads + 2 * shared, head)
                turned = qkv[:, :heads + shared]
                kgen.rope(turned, rows, module.cos, module.sin, style="neox", out=turned)
                layer.cache.index_copy_(1, positions, qkv[0, heads:, None])
                keys, values = layer.cache[None].chunk(2, 1)
                o = kgen.decode_attention(qkv[:, :heads], lengths, keys, values)
                y = kgen.add_rmsnorm(linear(layer.out, o.view(1, -1)), residual=x, weight=layer.norm2.weight, eps=EPS)
                y = linear(layer.down, kgen.silu_and_mul(linear(layer.gate_up, y)))
                norm = module.norm if index + 1 == len(module.layers) else module.layers[index + 1].norm1
                y = kgen.add_rmsnorm(y, residual=x, weight=norm.weight, eps=EPS)
            return kgen.gemm(y, module.head.weight)

        return run

    def problems(self):
        dim, ffn, q, kv = self.dim, self.ffn, self.heads * self.head, self.shared * self.head
        four = {"bits": 4, "group_size": GROUP, "sym": 1}
        yield "embedding", {"id_dtype": "int64"}, {"rows": 1, "cols": dim, "vocab": self.vocab}
        yield "rmsnorm", {}, {"rows": 1, "cols": dim}
        yield "gptq_gemm", {**four, "epilogue": ["bias"]}, {"m": 1, "n": q + 2 * kv, "k": dim}
        yield "rope", {"style": "neox"}, {"s": 1, "heads": self.heads + self.shared, "d": self.head}
        yield "decode_attention", {"d": self.head}, {"b": 1, "hq": self.heads, "hkv": self.shared, "smax": self.longest}
        yield "gptq_gemm", four, {"m": 1, "n": dim, "k": q}
        yield "add_rmsnorm", {}, {"rows": 1, "cols": dim}
        yield "gptq_gemm", four, {"m": 1, "n": 2 * ffn, "k": dim}
        yield "silu_and_mul", {}, {"rows": 1, "cols": ffn}
        yield "gptq_gemm", four, {"m": 1, "n": dim, "k": ffn}
        yield "gemm", {}, {"m": 1, "n": self.vocab, "k": dim}


MODELS = [QwenGptq]
TINY = {"qwen2_5_7b_gptq_decode": {"layers": 2, "dim": 256, "heads": 4, "shared": 2, "head": 64, "ffn": 256, "vocab": 96, "longest": 24}}
