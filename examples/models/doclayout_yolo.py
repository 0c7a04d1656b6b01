"""The backbone of DocLayout-YOLO (yolov10m-doclayout) with its G2L blocks, one US Letter page at 1280 x 992, fp16, channels last.

kgen's form: batch norms folded; the three dilated branches of a block are one multi_dilation_conv and what follows them one
g2l_tail; no concatenation is a kernel, for every part writes its channels of the whole."""
import torch
import torch.nn.functional as F
from torch import nn

from common import Model, folded, randomize


class Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(self, c, k, r=1, stride=1, groups=1, act=True, place=None):
        super().__init__()
        self.conv = nn.Conv2d(c, k, r, stride, r // 2, groups=groups, bias=False, **place)
        self.norm = nn.BatchNorm2d(k, **place)
        self.act = act

    def forward(self, x):
        y = self.norm(self.conv(x))
        return F.silu(y) if self.act else y


class Bottleneck(nn.Module):
    def __init__(self, c, place):
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c, 3, place=place), Conv(c, c, 3, place=place)

    def forward(self, x):
        return x + self.cv2(self.cv1(x))


class G2L(nn.Module):
    """Three dilations of one convolution, a pointwise one, a gate, a mix of three channels (OPS.md b.2)."""

    def __init__(self, c, r, dilations, place):
        super().__init__()
        self.c, self.r, self.dilations = c, r, dilations
        self.dilated, self.point = Conv(c, c, r, place=place), Conv(c, c, place=place)
        self.gate = Conv(3 * c, 3 * c, groups=3 * c, place=place)
        self.mix = Conv(3 * c, c, groups=c, place=place)

    def forward(self, x):
        branches = []
        for d in self.dilations:
            z = F.conv2d(x, self.dilated.conv.weight, None, 1, d * (self.r // 2), d)
            branches.append(self.point(F.silu(self.dilated.norm(z))))
        cat = torch.cat(branches, 1)
        return x + self.mix(cat * torch.sigmoid(self.gate(cat)))


class G2LBottleneck(nn.Module):
    def __init__(self, c, r, dilations, place):
        super().__init__()
        self.cv1, self.g2l, self.cv2 = Conv(c, c, 3, place=place), G2L(c, r, dilations, place), Conv(c, c, 3, place=place)

    def forward(self, x):
        return x + self.cv2(self.g2l(self.cv1(x)))


class Cib(nn.Module):
    def __init__(self, c, place):
        super().__init__()
        self.parts = nn.Sequential(Conv(c, c, 3, groups=c, place=place), Conv(c, 2 * c, place=place),
                                   Conv(2 * c, 2 * c, 3, groups=2 * c, place=place), Conv(2 * c, c, place=place),
                                   Conv(c, c, 3, groups=c, place=place))

    def forward(self, x):
        return x + self.parts(x)


class Csp(nn.Module):
    """1x1, a chain of parts on half of the channels, all joined, 1x1."""

    def __init__(self, c, k, parts, place):
        super().__init__()
        self.half = k // 2
        self.cv1, self.cv2 = Conv(c, k, place=place), Conv((2 + len(parts)) * self.half, k, place=place)
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        for part in self.parts:
            y.append(part(y[-1]))
        return self.cv2(torch.cat(y, 1))


class Down(nn.Module):
    def __init__(self, c, k, place):
        super().__init__()
        self.cv1, self.cv2 = Conv(c, k, place=place), Conv(k, k, 3, 2, groups=k, act=False, place=place)

    def forward(self, x):
        return self.cv2(self.cv1(x))


class Sppf(nn.Module):
    def __init__(self, c, place):
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c // 2, place=place), Conv(2 * c, c, place=place)

    def forward(self, x):
        y = [self.cv1(x)]
        for _ in range(3):
            y.append(F.max_pool2d(y[-1], 5, 1, 2))
        return self.cv2(torch.cat(y, 1))


class Psa(nn.Module):
    """Half of the channels through attention over all pixels and a small MLP. qkv: all q, all k, all v."""

    def __init__(self, c, heads, place):
        super().__init__()
        self.c, self.heads = c // 2, heads
        half = self.c
        self.cv1, self.cv2 = Conv(c, c, place=place), Conv(c, c, place=place)
        self.qkv = Conv(half, 2 * half, act=False, place=place)
        self.pe = Conv(half, half, 3, groups=half, act=False, place=place)
        self.proj = Conv(half, half, act=False, place=place)
        self.ffn1, self.ffn2 = Conv(half, 2 * half, place=place), Conv(2 * half, half, act=False, place=place)

    def forward(self, x):
        a, b = self.cv1(x).chunk(2, 1)
        n, c, h, w = b.shape
        q, k, v = self.qkv(b).split([c // 2, c // 2, c], 1)
        rows = [t.reshape(n, self.heads, -1, h * w).transpose(2, 3) for t in (q, k, v)]
        o = F.scaled_dot_product_attention(*rows).transpose(2, 3).reshape(n, c, h, w)
        b = b + self.proj(o + self.pe(v))
        b = b + self.ffn2(self.ffn1(b))
        return self.cv2(torch.cat([a, b], 1))


class Backbone(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        w, heads = model.width, model.heads
        self.parts = nn.Sequential(
            Conv(3, w, 3, 2, place=place), Conv(w, 2 * w, 3, 2, place=place),
            Csp(2 * w, 2 * w, [Bottleneck(w, place) for _ in range(2)], place), Conv(2 * w, 4 * w, 3, 2, place=place),
            Csp(4 * w, 4 * w, [G2LBottleneck(2 * w, 5, (1, 2, 3), place) for _ in range(4)], place), Down(4 * w, 8 * w, place),
            Csp(8 * w, 8 * w, [G2LBottleneck(4 * w, 3, (1, 3, 5), place) for _ in range(4)], place), Down(8 * w, 12 * w, place),
            Csp(12 * w, 12 * w, [Cib(6 * w, place) for _ in range(4)], place), Sppf(12 * w, place), Psa(12 * w, heads, place))

    def forward(self, x):
        return self.parts(x)


class Calls:
    """kgen's form of the parts above, on [n, h, w, c] tensors. Each writes into `out` where one is given."""

    def __init__(self, kgen, weights):
        self.kgen, self.weights = kgen, weights

    def conv(self, part, x, **keywords):
        weight, bias = self.weights[part]
        epilogue = ["bias"] + ["silu"] * part.act + ["add_residual"] * ("residual" in keywords)
        return self.kgen.conv2d(x, weight, bias, stride=part.conv.stride[0], pad=part.conv.padding[0], groups=part.conv.groups,
                                epilogue=epilogue, **keywords)

    def new(self, x, channels):
        return x.new_empty(*x.shape[:3], channels)

    def run(self, part, x, **keywords):
        return getattr(self, type(part).__name__.lower())(part, x, **keywords)

    def bottleneck(self, part, x, out):
        return self.conv(part.cv2, self.conv(part.cv1, x), residual=x, out=out)

    def g2lbottleneck(self, part, x, out):
        y, block = self.conv(part.cv1, x), part.g2l
        (weight, bias), (point, point_bias) = self.weights[block.dilated], self.weights[block.point]
        (gate, gate_bias), (mix, mix_bias) = self.weights[block.gate], self.weights[block.mix]
        z = self.kgen.multi_dilation_conv(y, weight, bias, dils=block.dilations, activation="silu")
        y = self.kgen.g2l_tail(z=z, wp=point.view(block.c, block.c), bp=point_bias, gate_a=gate, gate_b=gate_bias,
                               wm=mix.view(block.c, 3), bm=mix_bias, x=y)
        return self.conv(part.cv2, y, residual=x, out=out)

    def cib(self, part, x, out):
        y = x
        for conv in part.parts[:-1]:
            y = self.conv(conv, y)
        return self.conv(part.parts[-1], y, residual=x, out=out)

    def csp(self, part, x):
        half = part.half
        whole = self.new(x, (2 + len(part.parts)) * half)
        self.conv(part.cv1, x, out=whole[..., :2 * half])
        for index, step in enumerate(part.parts, 1):
            self.run(step, whole[..., index * half:(index + 1) * half], out=whole[..., (index + 1) * half:(index + 2) * half])
        return self.conv(part.cv2, whole)

    def down(self, part, x):
        return self.conv(part.cv2, self.conv(part.cv1, x))

    def sppf(self, part, x):
        half = x.shape[3] // 2
        whole = self.new(x, 4 * half)
        self.conv(part.cv1, x, out=whole[..., :half])
        for index in range(3):
            x, y = (whole[..., at * half:(at + 1) * half] for at in (index, index + 1))
            self.kgen.maxpool2d(x, r=5, stride=1, pad=2, out=y)
        return self.conv(part.cv2, whole)

    def psa(self, part, x):
        half, heads = part.c, part.heads
        whole = self.conv(part.cv1, x)
        b = whole[..., half:]
        qkv = self.conv(part.qkv, b)
        n, h, w, _ = x.shape
        q, k, v = (t.reshape(n, h * w, heads, -1).transpose(1, 2) for t in qkv.split([half // 2, half // 2, half], 3))
        o = self.new(x, half)
        self.kgen.attention(q, k, v, out=o.view(n, h * w, heads, -1).transpose(1, 2))
        o = self.conv(part.pe, qkv[..., half:], residual=o)
        b = self.conv(part.proj, o, residual=b)
        self.conv(part.ffn2, self.conv(part.ffn1, b), residual=b, out=whole[..., half:])
        return self.conv(part.cv2, whole)


class DocLayout(Model):
    name = "doclayout_yolo"
    what = "DocLayout-YOLO's backbone, one page of 1280 x 992, fp16, channels last"
    dtype = "fp16"
    width, heads, height, breadth, gigabytes = 48, 4, 1280, 992, 3
    freezing = True

    def module(self):
        net = randomize(Backbone(self, self.place).to(memory_format=torch.channels_last))
        with torch.no_grad():
            for part in net.modules():
                if isinstance(part, Conv):  # SiLU of a normal value has a mean square of 0.36
                    part.conv.weight.mul_(1.6 if part.act else 1)
                if isinstance(part, (Bottleneck, G2LBottleneck)):
                    part.cv2.norm.weight.mul_(0.25)
                if isinstance(part, Cib):
                    part.parts[-1].norm.weight.mul_(0.25)
        return net

    def inputs(self):
        torch.manual_seed(2)
        return (torch.rand(1, 3, self.height, self.breadth, **self.place).contiguous(memory_format=torch.channels_last),)

    def kernels(self, kgen, module):
        weights = {part: folded(part.conv, part.norm) for part in module.modules() if isinstance(part, Conv)}
        for part in module.modules():
            if isinstance(part, G2L):  # a scale and a shift in float32
                weight, bias = weights[part.gate]
                weights[part.gate] = weight.flatten().float(), bias.float()
        calls = Calls(kgen, weights)

        def run(image):
            x = image.permute(0, 2, 3, 1)
            for part in module.parts:
                x = calls.run(part, x)
            return x.permute(0, 3, 1, 2)

        return run

    def problems(self):
        found = {}

        def add(op, attributes, **dims):
            entry = (op, attributes, dims)
            found.setdefault(str(entry), entry)

        def conv(c, k, h, w, r=1, stride=1, groups=1, act=True, added=False, **strides):
            epilogue = ["bias"] + ["silu"] * act + ["add_residual"] * added
            add("conv2d", {"layout": "nhwc", "epilogue": epilogue}, n=1, c=c, h=h, w=w, k=k, r=r, s=r, stride=stride, pad=r // 2,
                groups=groups, **strides)
            return (h + 2 * (r // 2) - r) // stride + 1, (w + 2 * (r // 2) - r) // stride + 1

        def csp(c, k, h, w, count, part):
            half = k // 2
            whole = (2 + count) * half
            conv(c, k, h, w, ldy=whole)
            part(half, whole)
            conv(whole, k, h, w)

        def g2l(r, dilations):
            def part(c, ld):
                conv(c, c, h, w, 3, ldx=ld)
                add("multi_dilation_conv", {"layout": "nhwc", "dils": list(dilations), "epilogue": ["bias", "silu"]}, n=1, c=c, h=h, w=w,
                    k=c, r=r, s=r)
                add("g2l_tail", {"bias": 1}, n=1, h=h, w=w, c=c)
                conv(c, c, h, w, 3, added=True, ldy=ld, ldr=ld)
            return part

        def plain(c, ld):
            conv(c, c, h, w, 3, ldx=ld)
            conv(c, c, h, w, 3, added=True, ldy=ld, ldr=ld)

        def cib(c, ld):
            conv(c, c, h, w, 3, groups=c, ldx=ld)
            conv(c, 2 * c, h, w)
            conv(2 * c, 2 * c, h, w, 3, groups=2 * c)
            conv(2 * c, c, h, w)
            conv(c, c, h, w, 3, groups=c, added=True, ldy=ld, ldr=ld)

        def down(c, k, h, w):
            conv(c, k, h, w)
            return conv(k, k, h, w, 3, 2, groups=k, act=False)

        x = self.width
        h, w = conv(3, x, self.height, self.breadth, 3, 2)
        h, w = conv(x, 2 * x, h, w, 3, 2)
        csp(2 * x, 2 * x, h, w, 2, plain)
        h, w = conv(2 * x, 4 * x, h, w, 3, 2)
        csp(4 * x, 4 * x, h, w, 4, g2l(5, (1, 2, 3)))
        h, w = down(4 * x, 8 * x, h, w)
        csp(8 * x, 8 * x, h, w, 4, g2l(3, (1, 3, 5)))
        h, w = down(8 * x, 12 * x, h, w)
        csp(12 * x, 12 * x, h, w, 4, cib)
        c, half = 12 * x, 6 * x
        conv(c, half, h, w, ldy=2 * c)
        add("maxpool2d", {"layout": "nhwc"}, n=1, c=half, h=h, w=w, r=5, stride=1, pad=2, ldx=2 * c, ldy=2 * c)
        conv(2 * c, c, h, w)
        conv(c, c, h, w)
        conv(half, c, h, w, act=False, ldx=c)
        d, dv = half // 2 // self.heads, half // self.heads
        add("attention", {"d": d, "dv": dv}, b=1, hq=self.heads, sq=h * w, ldq=c, ldk=c, ldv=c, ldo=half, head_stride_q=d, head_stride_k=d,
            head_stride_v=dv, head_stride_o=dv)
        conv(half, half, h, w, 3, groups=half, act=False, added=True, ldx=c)
        conv(half, half, h, w, act=False, added=True, ldr=c)
        conv(half, c, h, w)
        conv(c, half, h, w, act=False, added=True, ldy=c)
        yield from found.values()


MODELS = [DocLayout]
TINY = {"doclayout_yolo": {"width": 12, "heads": 2, "height": 96, "breadth": 64}}
