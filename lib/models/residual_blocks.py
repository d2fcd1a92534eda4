"""Residual blocks with torchvision's names, keys and arithmetic (He et al. 2016; Xie et al. 2017 with groups).

Written here, because importing torchvision takes longer than small experiments on these networks do. The sum inside a
block is a module `add`, as in the stitching paper's code, once a layer of that name is asked for (`name_sums`).
"""

import fnmatch
from collections.abc import Iterable

from torch import Tensor, nn


class Sum(nn.Module):
    """The sum of two tensors of one shape."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Block(nn.Module):
    """What residual blocks share: the sum of their branch and their shortcut, before the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.add: nn.Module | None = None

    def summed(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Both (n, c, h, w); without a module of its own the branch's memory is used again."""
        return branch.add_(shortcut) if self.add is None else self.add(branch, shortcut)


def name_sums(network: nn.Module, layers: Iterable[str]) -> None:
    """Makes the sums that layers such as `layer1.0.add`, or globs with that ending, name modules of the network.

    They are no modules of it before, so that no list of all layers changes for those who do not ask; names of no sum are
    left for others to refuse. Weights, their names and all outputs stay the same.
    """
    wanted = [name for name in layers if name.endswith(".add")]
    for name, module in network.named_modules():
        if isinstance(module, Block) and any(fnmatch.fnmatchcase(f"{name}.add", pattern) for pattern in wanted):
            module.add = Sum()


class BasicBlock(Block):
    """Two 3x3 convolutions and a shortcut: (n, inward, h, w) -> (n, width, h/stride, w/stride)."""

    expansion = 1

    def __init__(
        self,
        inward: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        if groups != 1 or base_width != 64:
            raise ValueError("a basic block has neither groups nor another width")
        super().__init__()
        self.conv1 = nn.Conv2d(inward, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        # the shortcut after the convolutions: so the layers are numbered
        return self.relu(self.summed(out, x if self.downsample is None else self.downsample(x)))


class Bottleneck(Block):
    """1x1, 3x3 with the stride, 1x1, and a shortcut: (n, inward, h, w) -> (n, 4 width, h/stride, w/stride)."""

    expansion = 4

    def __init__(
        self,
        inward: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        super().__init__()
        inner = width * base_width // 64 * groups
        self.conv1 = nn.Conv2d(inward, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(self.summed(out, x if self.downsample is None else self.downsample(x)))
