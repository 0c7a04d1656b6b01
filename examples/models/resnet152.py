"""ResNet-152, one image, channels last. kgen's form has the batch norms folded and relu and shortcut in the convolutions."""
import torch
import torch.nn.functional as F
from torch import nn

from common import Model, folded, randomize


class ConvNorm(nn.Module):
    def __init__(self, c, k, r, stride, place):
        super().__init__()
        self.conv = nn.Conv2d(c, k, r, stride, r // 2, bias=False, **place)
        self.norm = nn.BatchNorm2d(k, **place)

    def forward(self, x):
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    def __init__(self, c, planes, stride, place):
        super().__init__()
        self.conv1 = ConvNorm(c, planes, 1, 1, place)
        self.conv2 = ConvNorm(planes, planes, 3, stride, place)
        self.conv3 = ConvNorm(planes, 4 * planes, 1, 1, place)
        self.down = ConvNorm(c, 4 * planes, 1, stride, place) if stride != 1 or c != 4 * planes else None

    def forward(self, x):
        y = F.relu(self.conv1(x))
        y = F.relu(self.conv2(y))
        return F.relu(self.conv3(y) + (x if self.down is None else self.down(x)))


class Net(nn.Module):
    def __init__(self, model, place):
        super().__init__()
        self.stem = ConvNorm(3, model.width, 7, 2, place)
        blocks, c = [], model.width
        for stage, count in enumerate(model.blocks):
            planes = model.width << stage
            for index in range(count):
                blocks.append(Bottleneck(c, planes, 2 if index == 0 and stage > 0 else 1, place))
                c = 4 * planes
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Linear(c, model.classes, **place)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ResNet152(Model):
    name = "resnet152"
    what = "ResNet-152, one image of 224 x 224, bf16, channels last"
    blocks, width, classes, size = (3, 8, 36, 3), 64, 1000, 224
    gigabytes = 1.5
    freezing = True

    def module(self):
        net = randomize(Net(self, self.place).to(memory_format=torch.channels_last))
        with torch.no_grad():  # relu halves the squares; a block changes its input by little
            for block in net.blocks:
                block.conv2.conv.weight.mul_(2 ** 0.5)
                block.conv3.conv.weight.mul_(2 ** 0.5)
                block.conv3.norm.weight.mul_(0.25)
        return net

    def inputs(self):
        torch.manual_seed(2)
        return (torch.randn(1, 3, self.size, self.size, **self.place).contiguous(memory_format=torch.channels_last),)

    def kernels(self, kgen, module):
        weights = {part: folded(part.conv, part.norm) for part in module.modules() if isinstance(part, ConvNorm)}

        def conv(part, x, **keywords):
            weight, bias = weights[part]
            return kgen.conv2d(x, weight, bias, stride=part.conv.stride[0], pad=part.conv.padding[0], **keywords)

        def run(image):
            x = conv(module.stem, image.permute(0, 2, 3, 1), activation="relu")
            x = kgen.maxpool2d(x, r=3, stride=2, pad=1)
            for block in module.blocks:
                shortcut = x if block.down is None else conv(block.down, x)
                y = conv(block.conv1, x, activation="relu")
                y = conv(block.conv2, y, activation="relu")
                x = conv(block.conv3, y, residual=shortcut, epilogue="bias,add_residual,relu")
            return kgen.gemm(kgen.avgpool2d_global(x), module.fc.weight, bias=module.fc.bias)

        return run

    def problems(self):
        found = {}

        def conv(c, h, k, r, stride, *epilogue):
            dims = {"n": 1, "c": c, "h": h, "w": h, "k": k, "r": r, "s": r, "stride": stride, "pad": r // 2}
            entry = ("conv2d", {"layout": "nhwc", "epilogue": ["bias", *epilogue]}, dims)
            found[str(entry)] = entry
            return (h + 2 * (r // 2) - r) // stride + 1

        h = conv(3, self.size, self.width, 7, 2, "relu")
        pool = {"n": 1, "c": self.width, "h": h, "w": h, "r": 3, "stride": 2, "pad": 1}
        h, c = (h - 1) // 2 + 1, self.width
        for stage, count in enumerate(self.blocks):
            planes = self.width << stage
            for index in range(count):
                stride = 2 if index == 0 and stage > 0 else 1
                if stride != 1 or c != 4 * planes:
                    conv(c, h, 4 * planes, 1, stride)
                conv(c, h, planes, 1, 1, "relu")
                h = conv(planes, h, planes, 3, stride, "relu")
                conv(planes, h, 4 * planes, 1, 1, "add_residual", "relu")
                c = 4 * planes
        yield from found.values()
        yield "maxpool2d", {"layout": "nhwc"}, pool
        yield "avgpool2d_global", {"layout": "nhwc"}, {"n": 1, "c": c, "h": h, "w": h}
        yield "gemm", {"epilogue": ["bias"]}, {"m": 1, "n": self.classes, "k": c}


MODELS = [ResNet152]
TINY = {"resnet152": {"blocks": (1, 2, 1, 1), "width": 8, "classes": 10, "size": 64}}
