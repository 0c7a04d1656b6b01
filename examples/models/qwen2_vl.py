"""Qwen2-VL's vision encoder on one page of 1036 x 1036 (5476 patches), and its patch embedding alone."""
import torch
import torch.nn.functional as F
from torch import nn

from common import Model, randomize

EPS = 1e-6


class PatchEmbed(nn.Module):
    """As the model has it: a Conv3d whose kernel is its stride, on patches that lie flattened in rows."""

    def __init__(self, dim, place):
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (2, 14, 14), (2, 14, 14), bias=False, **place)

    def forward(self, patches):
        return self.proj(patches.view(-1, 3, 2, 14, 14)).view(patches.shape[0], -1)


class Block(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        dim, self.heads = model.dim, model.heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=EPS, **place), nn.LayerNorm(dim, eps=EPS, **place)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, **place), nn.Linear(dim, dim, **place)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim, **place), nn.Linear(4 * dim, dim, **place)

    @staticmethod
    def turn(x, cos, sin):
        a, b = x.float().chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)

    def forward(self, x, cos, sin):
        q, k, v = self.qkv(self.norm1(x)).view(x.shape[0], 3, self.heads, -1).unbind(1)
        q, k = self.turn(q, cos, sin), self.turn(k, cos, sin)
        o = F.scaled_dot_product_attention(q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None])
        x = x + self.out(o[0].transpose(0, 1).reshape(x.shape))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y))


class Encoder(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        self.embed = PatchEmbed(model.dim, place)
        self.blocks = nn.ModuleList(Block(model, place) for _ in range(model.layers))
        self.norm = nn.LayerNorm(model.dim, eps=EPS, **place)
        self.merge1, self.merge2 = nn.Linear(4 * model.dim, 4 * model.dim, **place), nn.Linear(4 * model.dim, model.text, **place)

    def forward(self, patches, cos, sin):
        x = self.embed(patches)
        for block in self.blocks:
            x = block(x, cos[:, None], sin[:, None])
        return self.merge2(F.gelu(self.merge1(self.norm(x).view(x.shape[0] // 4, -1))))


class Qwen2VL(Model):
    name = "qwen2_vl_vision"
    what = "Qwen2-VL's vision encoder, 5476 patches, bf16"
    layers, dim, heads, side, text, gigabytes = 32, 1280, 16, 74, 1536, 4
    mixed = True

    @property
    def patches(self):
        return self.side ** 2

    def module(self):
        return randomize(Encoder(self, self.place))

    def inputs(self):
        """Patches in merge order (2 x 2 neighbours follow one another), and the angles of their rows and columns."""
        torch.manual_seed(2)
        patches = torch.randn(self.patches, 1176, **self.place)
        grid = torch.arange(self.side)
        at = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).view(self.side // 2, 2, self.side // 2, 2, 2)
        at = at.transpose(1, 2).reshape(-1, 2).double()
        quarter = self.dim // self.heads // 4
        angle = (at[:, :, None] * 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)).flatten(1)
        return patches, angle.cos().float().to(self.device), angle.sin().float().to(self.device)

    def kernels(self, kgen, module):
        dim, heads, count = self.dim, self.heads, self.patches
        head = dim // heads
        rows = torch.arange(count, device=self.device, dtype=torch.int32)

        def run(patches, cos, sin):
            x = kgen.conv3d_patchify(patches, module.embed.proj.weight)
            for block in module.blocks:
                y = kgen.layernorm(x, block.norm1.weight, block.norm1.bias, eps=EPS)
                qkv = kgen.gemm(y, block.qkv.weight, bias=block.qkv.bias).view(count, 3 * heads, head)
                turned = qkv[:, :2 * heads]
                kgen.rope(turned, rows, cos, sin, style="neox", out=turned)
                q, k, v = qkv.transpose(0, 1)[None].chunk(3, 1)
                o = torch.empty(count, heads, head, **self.place)
                kgen.attention(q, k, v, out=o.transpose(0, 1)[None])
                x = kgen.gemm(o.view(count, dim), block.out.weight, bias=block.out.bias, residual=x)
                y = kgen.layernorm(x, block.norm2.weight, block.norm2.bias, eps=EPS)
                y = kgen.gemm(y, block.fc1.weight, bias=block.fc1.bias, activation="quick_gelu")
                x = kgen.gemm(y, block.fc2.weight, bias=block.fc2.bias, residual=x)
            y = kgen.layernorm(x, module.norm.weight, module.norm.bias, eps=EPS).view(count // 4, -1)
            y = kgen.gemm(y, module.merge1.weight, bias=module.merge1.bias, activation="gelu_erf")
            return kgen.gemm(y, module.merge2.weight, bias=module.merge2.bias)

        return run

    def problems(self):
        dim, heads, head, t, add = self.dim, self.heads, self.dim // self.heads, self.patches, ["bias", "add_residual"]
        yield "conv3d_patchify", {}, {"l": t, "c": 3, "t": 2, "ph": 14, "pw": 14, "e": dim}
        yield "layernorm", {}, {"rows": t, "cols": dim}
        yield "gemm", {"epilogue": ["bias"]}, {"m": t, "n": 3 * dim, "k": dim}
        yield "rope", {"style": "neox"}, {"s": t, "heads": 2 * heads, "d": head, "max_position": t, "ldx": 3 * dim, "ldy": 3 * dim}
        joined = {"ldq": 3 * dim, "ldk": 3 * dim, "ldv": 3 * dim, "ldo": dim}
        joined.update({f"head_stride_{x}": head for x in "qkvo"})
        yield "attention", {"d": head}, {"b": 1, "hq": heads, "sq": t, **joined}
        yield "gemm", {"epilogue": add}, {"m": t, "n": dim, "k": dim}
        yield "gemm", {"epilogue": ["bias", "quick_gelu"]}, {"m": t, "n": 4 * dim, "k": dim}
        yield "gemm", {"epilogue": add}, {"m": t, "n": dim, "k": 4 * dim}
        yield "elementwise", {"expr": "quick_gelu(x)"}, {"rows": t, "cols": 4 * dim}  # where torch makes the product
        yield "gemm", {"epilogue": ["bias", "gelu_erf"]}, {"m": t // 4, "n": 4 * dim, "k": 4 * dim}
        yield "gemm", {"epilogue": ["bias"]}, {"m": t // 4, "n": self.text, "k": 4 * dim}


class Qwen2VLPatchEmbed(Qwen2VL):
    name = "qwen2_vl_patch_embed"
    what = "Qwen2-VL's patch embedding (a Conv3d) alone, 5476 patches, bf16"
    gigabytes, mixed = 1.5, False

    def module(self):
        return randomize(PatchEmbed(self.dim, self.place))

    def inputs(self):
        return super().inputs()[:1]

    def kernels(self, kgen, module):
        return lambda patches: kgen.conv3d_patchify(patches, module.proj.weight)

    def problems(self):
        return [next(super().problems())]


MODELS = [Qwen2VL, Qwen2VLPatchEmbed]
TINY = {"qwen2_vl_vision": {"layers": 1, "dim": 64, "heads": 2, "side": 6, "text": 48},
        "qwen2_vl_patch_embed": {"dim": 64, "side": 6}}
