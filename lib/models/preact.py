"""Pre-activation residual networks (He et al. 2016b) and wide ones (Zagoruyko & Komodakis 2016).

The stitching paper's `preact_resnet*` and `wide_resnet_*`, both with Swish, and `liu2020_wrn` (WRN-40-2 of energy-based
OOD detection); the nearest-category paper's `WRN_40_10`. Those codes normalise images inside the network; here the
wrapper does. The last pool is over the whole map: at 32 px that is their 4x4 or 8x8 pool, and other sizes work too.
Wide networks have the names of published WRN checkpoints: conv1, block1.layer.0, ..., bn1, relu, fc and `convShortcut`.
"""

from torch import Tensor, nn

from lib.models.parts import chain, kaiming_fan_out


def preact_resnet18(classes: int, channels: int, image_size: int) -> nn.Module:
    return _preact_resnet((2, 2, 2, 2), classes, channels)


def preact_resnet34(classes: int, channels: int, image_size: int) -> nn.Module:
    return _preact_resnet((3, 4, 6, 3), classes, channels)


def wide_resnet_28_10(classes: int, channels: int, image_size: int) -> nn.Module:
    return _wide_resnet(28, 10, nn.SiLU, classes, channels)


def wide_resnet_34_10(classes: int, channels: int, image_size: int) -> nn.Module:
    return _wide_resnet(34, 10, nn.SiLU, classes, channels)


def liu2020_wrn(classes: int, channels: int, image_size: int) -> nn.Module:
    """WRN-40-2 without dropout (Liu et al. 2020, energy-based OOD detection)."""
    return _wide_resnet(40, 2, nn.ReLU, classes, channels)


def wrn_40_10(classes: int, channels: int, image_size: int) -> nn.Module:
    return _wide_resnet(40, 10, nn.ReLU, classes, channels)


class PreactBlock(nn.Module):
    """norm, activation, 3x3, norm, activation, 3x3: (n, inward, h, w) -> (n, outward, h/stride, w/stride).

    Where the width changes, the shortcut is a convolution of the activated input; it is the identity of x elsewhere.
    With `asymmetric`, strided convolutions are padded on the right and below only (as TensorFlow's "same").
    """

    def __init__(self, inward: int, outward: int, stride: int, activation, shortcut_kernel=1, asymmetric=False):
        super().__init__()
        asymmetric = asymmetric and stride == 2
        padding = 0 if asymmetric else 1
        self.bn1 = nn.BatchNorm2d(inward)
        self.relu1 = activation()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if asymmetric else nn.Identity()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, padding, bias=False)
        self.bn2 = nn.BatchNorm2d(outward)
        self.relu2 = activation()
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.convShortcut = None
        if inward != outward:
            padding = padding if shortcut_kernel == 3 else 0
            self.convShortcut = nn.Conv2d(inward, outward, shortcut_kernel, stride, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.pad(self.relu1(self.bn1(x)))
        shortcut = x if self.convShortcut is None else self.convShortcut(out)
        return shortcut + self.conv2(self.relu2(self.bn2(self.conv1(out))))


def _preact_resnet(depths, classes, channels) -> nn.Module:
    widths, stages = (64, 64, 128, 256, 512), {}
    for number, depth in enumerate(depths, start=1):
        inward, outward, stride = widths[number - 1], widths[number], 1 if number == 1 else 2
        first = PreactBlock(inward, outward, stride, nn.SiLU, shortcut_kernel=3, asymmetric=True)
        stages[f"layer{number}"] = nn.Sequential(
            first, *(PreactBlock(outward, outward, 1, nn.SiLU) for _ in range(depth - 1))
        )
    return _network(stages, 64, 512, nn.SiLU, classes, channels)


def _wide_resnet(depth, factor, activation, classes, channels) -> nn.Module:
    widths, groups = (16, 16 * factor, 32 * factor, 64 * factor), {}
    for number in (1, 2, 3):
        inward, outward, stride = widths[number - 1], widths[number], 1 if number == 1 else 2
        blocks = [PreactBlock(inward, outward, stride, activation)]
        blocks += [PreactBlock(outward, outward, 1, activation) for _ in range((depth - 4) // 6 - 1)]
        groups[f"block{number}"] = chain(layer=nn.Sequential(*blocks))
    return _network(groups, 16, widths[-1], activation, classes, channels)


def _network(stages, stem, features, activation, classes, channels) -> nn.Module:
    network = chain(
        conv1=nn.Conv2d(channels, stem, 3, padding=1, bias=False),
        **stages,
        bn1=nn.BatchNorm2d(features),
        relu=activation(),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(features, classes),
    )
    return kaiming_fan_out(network, nn.Conv2d)
