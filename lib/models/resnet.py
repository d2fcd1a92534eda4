"""Residual networks for small images: a 3x3 stem of stride 1 in front of blocks like torchvision's.

He et al. 2016. Here are the variants of the stitching paper (Balogh & Jelasity 2025), whose 4x4 average pool makes them
32 px only; PyTorch_CIFAR10's, which keeps the max-pool (intermediate layers); and ResNet-20 (He et al., section 4.2).
Names and keys are torchvision's: conv1, bn1, relu, (maxpool,) layer1.0, ..., avgpool, fc. Convolutions are Kaiming
normal fan-out, batch norms start at 1 and 0.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from lib.models.parts import FixedSize, chain, kaiming_fan_out
from lib.models.residual_blocks import BasicBlock, Bottleneck

WIDTHS = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)


def resnet18(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(BasicBlock, (2, 2, 2, 2), classes, channels)


def resnet34(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(BasicBlock, (3, 4, 6, 3), classes, channels)


def resnet50(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(Bottleneck, (3, 4, 6, 3), classes, channels)


def resnet101(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(Bottleneck, (3, 4, 23, 3), classes, channels)


def resnet152(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(Bottleneck, (3, 8, 36, 3), classes, channels)


def wide_resnet50_2(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(Bottleneck, (3, 4, 6, 3), classes, channels, base_width=128)


def wide_resnet101_2(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(Bottleneck, (3, 4, 23, 3), classes, channels, base_width=128)


def resnext50_32x4d(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(Bottleneck, (3, 4, 6, 3), classes, channels, groups=32, base_width=4)


def resnext101_32x8d(classes: int, channels: int, image_size: int) -> nn.Module:
    return _cifar_resnet(Bottleneck, (3, 4, 23, 3), classes, channels, groups=32, base_width=8)


def resnet18_samewidth(classes: int, channels: int, image_size: int) -> nn.Module:
    """Every stage 64 wide, on maps of 32, 16, 8 and 4 px."""
    return _cifar_resnet(BasicBlock, (2, 2, 2, 2), classes, channels, widths=(64,) * 4)


def resnet18_samesize(classes: int, channels: int, image_size: int) -> nn.Module:
    """No striding: every stage works on 32 x 32 maps, which costs 11.4 GMAC per image."""
    return _cifar_resnet(BasicBlock, (2, 2, 2, 2), classes, channels, strides=(1,) * 4)


def resnet18_samewidth_samesize(classes: int, channels: int, image_size: int) -> nn.Module:
    """Every stage (64, 32, 32): all blocks pass the same shape."""
    return _cifar_resnet(BasicBlock, (2, 2, 2, 2), classes, channels, widths=(64,) * 4, strides=(1,) * 4)


def cifar_resnet18_maxpool(classes: int, channels: int, image_size: int) -> nn.Module:
    """PyTorch_CIFAR10's ResNet-18: the 3x3 stem keeps the max-pool, so 32 px are 16 x 16 after it; any size."""
    stem = _stem(channels, 64, maxpool=nn.MaxPool2d(3, stride=2, padding=1))
    stages = _stages(BasicBlock, (2, 2, 2, 2), WIDTHS, STRIDES, 64)
    return kaiming_fan_out(chain(**stem, **stages, **_head(nn.AdaptiveAvgPool2d(1), 512, classes)), nn.Conv2d)


def resnet20(classes: int, channels: int, image_size: int) -> nn.Module:
    """Three stages of three blocks, 16, 32 and 64 wide, with parameter-free shortcuts (option A); any size."""
    stages = {}
    for number, (inward, width, stride) in enumerate(((16, 16, 1), (16, 32, 2), (32, 64, 2)), start=1):
        first = BasicBlock(inward, width, stride, PadShortcut(width - inward) if stride > 1 else None)
        stages[f"layer{number}"] = nn.Sequential(first, BasicBlock(width, width), BasicBlock(width, width))
    head = _head(nn.AdaptiveAvgPool2d(1), 64, classes)
    return kaiming_fan_out(chain(**_stem(channels, 16), **stages, **head), nn.Conv2d)


class PadShortcut(nn.Module):
    """Option A of He et al. 2016: every second row and column, between channels of zeros."""

    def __init__(self, extra: int):
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c + extra, h/2, w/2)."""
        before = self.extra // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.extra - before))


def _cifar_resnet(block, depths, classes, channels, *, widths=WIDTHS, strides=STRIDES, groups=1, base_width=64):
    stages = _stages(block, depths, widths, strides, 64, groups, base_width)
    last_map = 32
    for stride in strides:
        last_map //= stride
    # 4x4; without strides it has to be 32x32, so that the head's input is as wide as the last stage.
    head = _head(nn.AvgPool2d(last_map), widths[-1] * block.expansion, classes)
    return kaiming_fan_out(FixedSize(32, {**_stem(channels, 64), **stages, **head}), nn.Conv2d)


def _stem(channels: int, width: int, **pool: nn.Module) -> dict[str, nn.Module]:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return {"conv1": conv, "bn1": nn.BatchNorm2d(width), "relu": nn.ReLU(inplace=True), **pool}


def _stages(block, depths, widths, strides, inward, groups=1, base_width=64) -> dict[str, nn.Module]:
    stages = {}
    for number, (depth, width, stride) in enumerate(zip(depths, widths, strides, strict=True), start=1):
        blocks, outward = [], width * block.expansion
        for _ in range(depth):
            shortcut = None
            if stride != 1 or inward != outward:
                conv = nn.Conv2d(inward, outward, 1, stride, bias=False)
                shortcut = nn.Sequential(conv, nn.BatchNorm2d(outward))
            blocks.append(block(inward, width, stride, shortcut, groups, base_width))
            inward, stride = outward, 1
        stages[f"layer{number}"] = nn.Sequential(*blocks)
    return stages


def _head(pool: nn.Module, features: int, classes: int) -> dict[str, nn.Module]:
    return {"avgpool": pool, "flatten": nn.Flatten(), "fc": nn.Linear(features, classes)}
