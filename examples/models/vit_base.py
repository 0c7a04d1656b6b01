"""ViT-base-patch16-224, one image: 12 layers of 12 heads, 197 tokens of 768."""
import torch
import torch.nn.functional as F
from torch import nn

from common import Model, randomize


class Block(nn.Module):
    def __init__(self, dim, heads, ffn, place):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-12, **place)
        self.qkv = nn.Linear(dim, 3 * dim, **place)
        self.out = nn.Linear(dim, dim, **place)
        self.norm2 = nn.LayerNorm(dim, eps=1e-12, **place)
        self.fc1 = nn.Linear(dim, ffn, **place)
        self.fc2 = nn.Linear(ffn, dim, **place)

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(o.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        self.patch = nn.Conv2d(3, model.dim, model.patch, model.patch, **place)
        self.first = nn.Parameter(torch.empty(1, 1, model.dim, **place))
        self.position = nn.Parameter(torch.empty(1, model.tokens, model.dim, **place))
        self.blocks = nn.ModuleList(Block(model.dim, model.heads, model.ffn, place) for _ in range(model.layers))
        self.norm = nn.LayerNorm(model.dim, eps=1e-12, **place)
        self.head = nn.Linear(model.dim, model.classes, **place)

    def forward(self, image):
        patches = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.first, patches], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


class VitBase(Model):
    name = "vit_base"
    what = "ViT-base, one image of 224 x 224, bf16"
    layers, dim, heads, ffn, classes, size, patch = 12, 768, 12, 3072, 1000, 224, 16
    gigabytes = 1.5

    @property
    def grid(self):
        return self.size // self.patch

    @property
    def tokens(self):
        return self.grid ** 2 + 1

    def module(self):
        return randomize(Vit(self, self.place))

    def inputs(self):
        torch.manual_seed(2)
        return (torch.randn(1, 3, self.size, self.size, **self.place).contiguous(memory_format=torch.channels_last),)

    def kernels(self, kgen, module):
        dim, heads, tokens, grid = self.dim, self.heads, self.tokens, self.grid
        weight = module.patch.weight.permute(0, 2, 3, 1).contiguous()
        start = module.first[0] + module.position[0, :1]  # the class token does not depend on the image
        position = module.position[0, 1:].view(1, grid, grid, dim)
        x0 = torch.empty(tokens, dim, **self.place)
        x0[:1] = start

        def run(image):
            x = x0
            kgen.conv2d(image.permute(0, 2, 3, 1), weight, module.patch.bias, residual=position, epilogue="bias,add_residual",
                        stride=self.patch, out=x[1:].view(1, grid, grid, dim))
            for block in module.blocks:
                y = kgen.layernorm(x, block.norm1.weight, block.norm1.bias, eps=1e-12)
                qkv = kgen.gemm(y, block.qkv.weight, bias=block.qkv.bias).view(1, tokens, 3, heads, -1)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)
                o = torch.empty(1, tokens, heads, dim // heads, **self.place)
                kgen.attention(q, k, v, out=o.transpose(1, 2))
                x = kgen.gemm(o.view(tokens, dim), block.out.weight, bias=block.out.bias, residual=x)
                y = kgen.layernorm(x, block.norm2.weight, block.norm2.bias, eps=1e-12)
                y = kgen.gemm(y, block.fc1.weight, bias=block.fc1.bias, activation="gelu_erf")
                x = kgen.gemm(y, block.fc2.weight, bias=block.fc2.bias, residual=x)
            y = kgen.layernorm(x[:1], module.norm.weight, module.norm.bias, eps=1e-12)
            return kgen.gemm(y, module.head.weight, bias=module.head.bias)

        return run

    def problems(self):
        dim, heads, t, ffn = self.dim, self.heads, self.tokens, self.ffn
        d = dim // heads
        patch, added = {"c": 3, "r": self.patch, "s": self.patch}, ["bias", "add_residual"]
        yield "conv2d", {"layout": "nhwc", "epilogue": added}, {"n": 1, "h": self.size, "w": self.size, "k": dim, "stride": self.patch, **patch}
        yield "layernorm", {}, {"rows": t, "cols": dim}
        yield "gemm", {"epilogue": ["bias"]}, {"m": t, "n": 3 * dim, "k": dim}
        joined = {"ldq": 3 * dim, "ldk": 3 * dim, "ldv": 3 * dim, "ldo": dim}
        joined.update({f"head_stride_{x}": d for x in "qkvo"})
        yield "attention", {"d": d}, {"b": 1, "hq": heads, "sq": t, **joined}
        yield "gemm", {"epilogue": added}, {"m": t, "n": dim, "k": dim}
        yield "gemm", {"epilogue": ["bias", "gelu_erf"]}, {"m": t, "n": ffn, "k": dim}
        yield "gemm", {"epilogue": added}, {"m": t, "n": dim, "k": ffn}
        yield "layernorm", {}, {"rows": 1, "cols": dim}
        yield "gemm", {"epilogue": ["bias"]}, {"m": 1, "n": self.classes, "k": dim}


MODELS = [VitBase]
TINY = {"vit_base": {"layers": 1, "dim": 32, "heads": 2, "ffn": 64, "classes": 10, "size": 32}}
