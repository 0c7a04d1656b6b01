"""Small models: what the back end must find in them, and how it is checked."""
import pathlib
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F


class Bottleneck(nn.Module):
    """ResNet's, with batch norms, activations in place and the shortcut."""

    def __init__(self, c=256, m=64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, m, 1, bias=False), nn.BatchNorm2d(m)
        self.conv2, self.bn2 = nn.Conv2d(m, m, 3, padding=1, bias=False), nn.BatchNorm2d(m)
        self.conv3, self.bn3 = nn.Conv2d(m, c, 1, bias=False), nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)
        for norm in (self.bn1, self.bn2, self.bn3):
            norm.running_mean.normal_(0, 0.1), norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias, 0, 0.2)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x
        return self.relu(y)


class VitBlock(nn.Module):
    def __init__(self, d=768, heads=12):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d, 1e-6), nn.LayerNorm(d, 1e-6)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        b, s, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class RmsNorm(nn.Module):
    def __init__(self, d, eps=1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(d) + 0.5), eps

    def forward(self, x):
        h = x.float()
        return self.weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class DecoderBlock(nn.Module):
    """Llama's, one token, over a static cache with its mask."""

    def __init__(self, d=1024, heads=16, kv=4, ffn=2816, rows=256):
        super().__init__()
        self.heads, self.kv, self.d = heads, kv, d // heads
        self.norm1, self.norm2 = RmsNorm(d), RmsNorm(d)
        self.q, self.k, self.v = (nn.Linear(d, n * self.d, bias=False) for n in (heads, kv, kv))
        self.o = nn.Linear(d, d, bias=False)
        self.gate, self.up, self.down = nn.Linear(d, ffn, bias=False), nn.Linear(d, ffn, bias=False), nn.Linear(ffn, d, bias=False)
        self.register_buffer("rows", torch.arange(rows))
        self.register_buffer("k_cache", torch.randn(1, kv, rows, self.d)), self.register_buffer("v_cache", torch.randn(1, kv, rows, self.d))

    def forward(self, x, position):
        b = x.shape[0]
        h = self.norm1(x)
        q = self.q(h).view(b, 1, self.heads, self.d).transpose(1, 2)
        k = self.k(h).view(b, 1, self.kv, self.d).transpose(1, 2)
        v = self.v(h).view(b, 1, self.kv, self.d).transpose(1, 2)
        self.k_cache.index_copy_(2, position, k)
        self.v_cache.index_copy_(2, position, v)
        mask = (self.rows[None, :] <= position[:, None])[None, None]
        a = F.scaled_dot_product_attention(q, self.k_cache, self.v_cache, attn_mask=mask, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).reshape(b, 1, -1))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Dilated(nn.Module):
    """DocLayout-YOLO's G2L block: one weight at three dilations, a shared 1x1, a gate, a mix."""

    def __init__(self, c=96, k=5, dils=(1, 2, 3)):
        super().__init__()
        self.dils = dils
        self.conv, self.bn = nn.Conv2d(c, c, k, bias=False), nn.BatchNorm2d(c)
        self.pw, self.pw_bn = nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)
        self.gate, self.gate_bn = nn.Conv2d(3 * c, 3 * c, 1, groups=3 * c, bias=False), nn.BatchNorm2d(3 * c)
        self.mix, self.mix_bn = nn.Conv2d(3 * c, c, 1, groups=c, bias=False), nn.BatchNorm2d(c)
        for norm in (self.bn, self.pw_bn, self.gate_bn, self.mix_bn):
            norm.running_mean.normal_(0, 0.1), norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias, 0, 0.2)

    def forward(self, x):
        pad = self.conv.kernel_size[0] // 2
        z = [F.silu(self.bn(F.conv2d(x, self.conv.weight, padding=d * pad, dilation=d))) for d in self.dils]
        cat = torch.cat([F.silu(self.pw_bn(self.pw(t))) for t in z], 1)
        gated = cat * torch.sigmoid(F.silu(self.gate_bn(self.gate(cat))))
        return x + F.silu(self.mix_bn(self.mix(gated)))


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv3d(3, 1280, (2, 14, 14), (2, 14, 14), bias=False)

    def forward(self, x):
        return self.proj(x.view(-1, 3, 2, 14, 14)).view(-1, 1280)


def blocks(device, dtype):
    """(name, model, inputs, operators that must be found)"""
    torch.manual_seed(0)

    def put(model, *inputs, nhwc=False):
        model = model.eval().to(device)
        model = model.to(dtype)
        inputs = [item.to(device) if not item.is_floating_point() else item.to(device, dtype) for item in inputs]
        if nhwc:
            model, inputs = model.to(memory_format=torch.channels_last), [i.to(memory_format=torch.channels_last) for i in inputs]
        return model, inputs

    with torch.no_grad():
        yield "bottleneck nhwc", *put(Bottleneck(), torch.randn(1, 256, 56, 56), nhwc=True), {"conv2d": 3}
        yield "bottleneck nchw", *put(Bottleneck(), torch.randn(1, 256, 56, 56)), {"conv2d": 3}
        yield "vit block", *put(VitBlock(), torch.randn(1, 197, 768)), {"gemm": 4, "layernorm": 2, "attention": 1}
        yield "decoder block", *put(DecoderBlock(), torch.randn(1, 1, 1024), torch.tensor([200])), {"decode_attention": 1, "rmsnorm_gemm": 4, "gemm": 2}
        yield "G2L block nhwc", *put(Dilated(), torch.randn(1, 96, 40, 31), nhwc=True), {"multi_dilation_conv": 1, "g2l_tail": 1}
        for folder in (pathlib.Path(__file__).parents[2] / "examples/models", pathlib.Path(__file__).parent / "models"):
            sys.path.insert(0, str(folder))
        import mhc
        stack = mhc.Mhc(device=device, dtype="bf16", layers=2, **({} if device == "cuda" else {"hidden": 64}))
        yield "mHC stack", stack.module(), list(stack.inputs()), {"mhc_pre": 1, "mhc_fused_post_pre": 3, "mhc_post": 1, "hc_head": 1}
        yield "patch embedding", *put(Patches(), torch.randn(1024, 1176)), {"conv3d_patchify": 1}
