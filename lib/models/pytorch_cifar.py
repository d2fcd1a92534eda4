"""The ResNet-18 of the pytorch-cifar project, whose checkpoints the intermediate-layer paper probes on CIFAR-100.

The numbers are those of `resnet18`; keys and form differ: shortcuts are called `shortcut.0` and `shortcut.1`, the head
is `linear`, and ReLU and the 4x4 pool are functional, so that the network has fewer modules to probe. 32 px only.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from lib.models.parts import require_size


def pytorch_cifar_resnet18(classes: int, channels: int, image_size: int) -> nn.Module:
    return PytorchCifarResNet18(classes, channels)


class PytorchCifarResNet18(nn.Module):
    """(n, channels, 32, 32) -> (n, classes); PyTorch's default initialisation, as in that project."""

    def __init__(self, classes: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, 32)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, (n, inward, h, w) -> (n, outward, h/stride, w/stride)."""

    def __init__(self, inward: int, outward: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outward)
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outward)
        self.shortcut = nn.Sequential()
        if stride != 1 or inward != outward:
            conv = nn.Conv2d(inward, outward, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outward))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))
