"""Classifiers of representations: their input is the output of a layer of another network, maps or tokens.

Stitching paper, section 4.1 of its code. `channels` is the width of the representation and `image_size` the side of the
images that the other network takes. The published ones are for images of 32 px only: here the head pools over whatever
size there is, and maps are enlarged to 64 px at most, so that photographs cost no more than they need.
"""

import math
from collections.abc import Callable

from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from lib.models import resnet
from lib.models.parts import chain
from lib.models.vit import SHAPES

LARGEST = 64  # side of the maps that a ResNet here works on


def repr_cls_resnet18(classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet(resnet.resnet18, classes, channels, image_size)


def repr_cls_resnet34(classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet(resnet.resnet34, classes, channels, image_size)


def repr_cls_resnet50(classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet(resnet.resnet50, classes, channels, image_size)


def repr_cls_resnet101(classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet(resnet.resnet101, classes, channels, image_size)


def repr_cls_resnet152(classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet(resnet.resnet152, classes, channels, image_size)


def repr_cls_resnet20(classes: int, channels: int, image_size: int) -> nn.Module:
    return _resnet(resnet.resnet20, classes, channels, image_size)


def repr_cls_vit_tiny(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["tiny"], classes, channels)


def repr_cls_vit_small(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["small"], classes, channels)


def repr_cls_vit_medium(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["medium"], classes, channels)


def repr_cls_vit_base(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["base"], classes, channels)


def repr_cls_vit_large(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["large"], classes, channels)


def repr_cls_vit_huge(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["huge"], classes, channels)


def repr_cls_vit_giant(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["giant"], classes, channels)


def repr_cls_vit_gigantic(classes: int, channels: int, image_size: int) -> nn.Module:
    return TokenClassifier(*SHAPES["gigantic"], classes, channels)


class Enlarge(nn.Module):
    """Maps (n, c, h, w) -> (n, c, side, side), bilinear."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        return F.interpolate(maps, (self.side, self.side), mode="bilinear", align_corners=False)


class LayerNorm(nn.LayerNorm):
    """With the epsilon that the transformers of timm have."""

    def __init__(self, width: int, **placed) -> None:
        super().__init__(width, eps=1e-6, **placed)


class TokenClassifier(nn.Module):
    """Tokens (n, t, d) -> (n, classes): pre-norm transformer blocks without positions and without a class token of its own.

    It answers from the first token where that is the source's class token, as it is unless t is a square number, and from
    the mean of the tokens otherwise.
    """

    def __init__(self, width: int, depth: int, heads: int, classes: int, channels: int) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, width) if channels != width else nn.Identity()
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)))
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, classes)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        features = self.norm(self.blocks(self.embed(tokens)))
        square = math.isqrt(tokens.shape[1]) ** 2 == tokens.shape[1]
        return self.head(features.mean(1) if square else features[:, 0])


def _resnet(make: Callable, classes: int, channels: int, image_size: int) -> nn.Module:
    """A ResNet with the CIFAR stem on maps as large as the images, up to `LARGEST`."""
    parts = dict(make(classes, channels, 32).named_children())
    return chain(enlarge=Enlarge(min(image_size, LARGEST)), **parts | {"avgpool": nn.AdaptiveAvgPool2d(1)})
