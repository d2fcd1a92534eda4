"""Pre-activation residual networks (He et al. 2016b) and wide ones (Zagoruyko & Komodakis 2016).

The stitching paper's `preact_resnet*` and `wide_resnet_*` (those of DeepMind's adversarially robust networks, with Swish),
and `liu2020_wrn` (WRN-40-2 of energy-based OOD detection); the nearest-category paper's `WRN_40_10`. Modules have the names
of those codes, so that their checkpoints load. Those codes normalise images inside the network; here the wrapper does. The
last pool is over the whole map: at 32 px that is their 4x4 or 8x8 pool, and other sizes work too.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from lib.models.parts import chain, kaiming_fan_out


def preact_resnet18(classes: int, channels: int, image_size: int) -> nn.Module:
    return _preact_resnet((2, 2, 2, 2), classes, channels)


def preact_resnet34(classes: int, channels: int, image_size: int) -> nn.Module:
    return _preact_resnet((3, 4, 6, 3), classes, channels)


def wide_resnet_28_10(classes: int, channels: int, image_size: int) -> nn.Module:
    return _padded_wide_resnet(28, 10, classes, channels)


def wide_resnet_34_10(classes: int, channels: int, image_size: int) -> nn.Module:
    return _padded_wide_resnet(34, 10, classes, channels)


def liu2020_wrn(classes: int, channels: int, image_size: int) -> nn.Module:
    """WRN-40-2 without dropout (Liu et al. 2020, energy-based OOD detection)."""
    return _wide_resnet(40, 2, classes, channels)


def wrn_40_10(classes: int, channels: int, image_size: int) -> nn.Module:
    return _wide_resnet(40, 10, classes, channels)


class PaddedConv(nn.Conv2d):
    """A 3x3 convolution of maps padded by one on every side, or where it strides on the right and below only."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__(inward, outward, 3, stride, bias=False)
        self.sides = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.sides))


class PreactBlock(nn.Module):
    """norm, Swish, 3x3, norm, Swish, 3x3: (n, inward, h, w) -> (n, outward, h/stride, w/stride).

    The shortcut is x; where the width changes it is a strided 3x3 convolution of x, not of the activated x.
    """

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(inward)
        self.relu_0 = nn.SiLU()
        self.conv_2d_1 = PaddedConv(inward, outward, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outward)
        self.relu_1 = nn.SiLU()
        self.conv_2d_2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.shortcut = PaddedConv(inward, outward, stride) if inward != outward or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = self.conv_2d_1(self.relu_0(self.batchnorm_0(x)))
        return self.conv_2d_2(self.relu_1(self.batchnorm_1(out))) + shortcut


class PaddedWideBlock(nn.Module):
    """norm, Swish, 3x3, norm, Swish, 3x3, where the width changes with a 1x1 convolution of the activated x as shortcut."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(inward)
        self.relu_0 = nn.SiLU()
        self.conv_0 = PaddedConv(inward, outward, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outward)
        self.relu_1 = nn.SiLU()
        self.conv_1 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inward, outward, 1, stride, bias=False) if inward != outward else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu_0(self.batchnorm_0(x))
        out = self.conv_1(self.relu_1(self.batchnorm_1(self.conv_0(active))))
        return (x if self.shortcut is None else self.shortcut(active)) + out


class WideBlock(nn.Module):
    """norm, ReLU, 3x3, norm, ReLU, 3x3, padded alike on all sides; the shortcut as in `PaddedWideBlock`."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inward)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outward)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(inward, outward, 1, stride, bias=False) if inward != outward else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return (x if self.convShortcut is None else self.convShortcut(active)) + out


def _stages(block: type[nn.Module], widths: tuple[int, ...], depths: tuple[int, ...]) -> list[nn.Sequential]:
    """Stages of so many blocks; the first keeps the size, the others halve it."""
    stages = []
    for number, (inward, outward, depth) in enumerate(zip(widths, widths[1:], depths, strict=False)):
        blocks = [block(inward, outward, 2 if number else 1)]
        stages.append(nn.Sequential(*blocks, *(block(outward, outward, 1) for _ in range(depth - 1))))
    return stages


def _preact_resnet(depths: tuple[int, ...], classes: int, channels: int) -> nn.Module:
    stages = _stages(PreactBlock, (64, 64, 128, 256, 512), depths)
    return _network(
        {"conv_2d": nn.Conv2d(channels, 64, 3, padding=1, bias=False)}
        | {f"layer_{number}": stage for number, stage in enumerate(stages)}
        | _padded_end(512, classes)
    )


def _padded_wide_resnet(depth: int, factor: int, classes: int, channels: int) -> nn.Module:
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    groups = [chain(block=stage) for stage in _stages(PaddedWideBlock, widths, ((depth - 4) // 6,) * 3)]
    return _network(
        {"init_conv": nn.Conv2d(channels, 16, 3, padding=1, bias=False), "layer": nn.Sequential(*groups)}
        | _padded_end(widths[-1], classes)
    )


def _wide_resnet(depth: int, factor: int, classes: int, channels: int) -> nn.Module:
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    stages = _stages(WideBlock, widths, ((depth - 4) // 6,) * 3)
    return _network(
        {"conv1": nn.Conv2d(channels, 16, 3, padding=1, bias=False)}
        | {f"block{number}": chain(layer=stage) for number, stage in enumerate(stages, 1)}
        | {"bn1": nn.BatchNorm2d(widths[-1]), "relu": nn.ReLU()}
        | _pool()
        | {"fc": nn.Linear(widths[-1], classes)}
    )


def _padded_end(width: int, classes: int) -> dict[str, nn.Module]:
    return {"batchnorm": nn.BatchNorm2d(width), "relu": nn.SiLU()} | _pool() | {"logits": nn.Linear(width, classes)}


def _pool() -> dict[str, nn.Module]:
    return {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}


def _network(modules: dict[str, nn.Module]) -> nn.Module:
    return kaiming_fan_out(chain(**modules), nn.Conv2d)
