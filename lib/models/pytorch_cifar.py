"""The ResNets of the pytorch-cifar project: ResNet-18, whose checkpoints the intermediate-layer paper probes on CIFAR-100,
and ResNet-50, the form of the robust CIFAR-10 checkpoints that the nearest-category paper uses.

The numbers are those of `resnet18` and `resnet50`; keys and form differ: shortcuts are called `shortcut.0` and `shortcut.1`,
the head is `linear`, and ReLU and the 4x4 pool are functional, so that the network has fewer modules to probe. 32 px only.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from lib.models.parts import require_size


def pytorch_cifar_resnet18(classes: int, channels: int, image_size: int) -> nn.Module:
    return PytorchCifarResNet(classes, channels, PytorchCifarBasicBlock, (2, 2, 2, 2))


def pytorch_cifar_resnet50(classes: int, channels: int, image_size: int) -> nn.Module:
    return PytorchCifarResNet(classes, channels, PytorchCifarBottleneck, (3, 4, 6, 3))


class PytorchCifarResNet(nn.Module):
    """(n, channels, 32, 32) -> (n, classes); PyTorch's default initialisation, as in that project."""

    def __init__(
        self,
        classes: int,
        channels: int,
        block: "type[PytorchCifarBasicBlock] | type[PytorchCifarBottleneck]",
        depths: tuple[int, ...],
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inward, stages = 64, []
        for depth, width, stride in zip(depths, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            blocks = []
            for number in range(depth):
                blocks.append(block(inward, width, 1 if number else stride))
                inward = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(inward, classes)

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, 32)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


class PytorchCifarBasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, (n, inward, h, w) -> (n, outward, h/stride, w/stride)."""

    expansion = 1

    def __init__(self, inward: int, outward: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outward)
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outward)
        self.shortcut = _shortcut(inward, outward, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class PytorchCifarBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, (n, inward, h, w) -> (n, 4 width, h/stride, w/stride)."""

    expansion = 4

    def __init__(self, inward: int, width: int, stride: int):
        super().__init__()
        outward = self.expansion * width
        self.conv1 = nn.Conv2d(inward, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outward, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outward)
        self.shortcut = _shortcut(inward, outward, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return F.relu(out + self.shortcut(x))


def _shortcut(inward: int, outward: int, stride: int) -> nn.Sequential:
    if stride == 1 and inward == outward:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inward, outward, 1, stride, bias=False), nn.BatchNorm2d(outward))
