"""Fully connected networks, of images or of stored features (n, d, 1, 1).

`mlp`, the control of the hyperplanes paper (section 4; its structure is Ahn et al. 2019's): pixels to 4096, three linear
bottlenecks 4096-1024-4096 and the head: eight linear layers, Kaiming normal fan-out with bias 0. After the first and after
each bottleneck come dropout 0.2, batch norm (in `mlp_bn`) and ReLU.

`LargeMLP` and `LargeMLPv4`, the heads of the nearest-category paper (its page, section 3.3): three hidden layers of 256 and
of 1024 with ReLU, in PyTorch's default initialisation.
"""

from torch import nn

from lib.models.parts import chain, kaiming_fan_out


def mlp(classes: int, channels: int, image_size: int) -> nn.Module:
    return _mlp(classes, channels * image_size**2, batch_norm=False)


def mlp_bn(classes: int, channels: int, image_size: int) -> nn.Module:
    return _mlp(classes, channels * image_size**2, batch_norm=True)


def large_mlp(classes: int, channels: int, image_size: int) -> nn.Module:
    return _plain(classes, channels * image_size**2, width=256)


def large_mlp_v4(classes: int, channels: int, image_size: int) -> nn.Module:
    return _plain(classes, channels * image_size**2, width=1024)


def _plain(classes: int, inward: int, width: int) -> nn.Module:
    hidden = []
    for before in (inward, width, width):
        hidden += [nn.Linear(before, width), nn.ReLU(inplace=True)]
    return chain(flatten=nn.Flatten(), hidden=nn.Sequential(*hidden), fc=nn.Linear(width, classes))


def _mlp(classes: int, pixels: int, batch_norm: bool, width: int = 4096, bottleneck: int = 1024) -> nn.Module:
    def block(*layers: nn.Module) -> nn.Module:
        norm = [nn.BatchNorm1d(width)] if batch_norm else []
        return nn.Sequential(*layers, nn.Dropout(0.2), *norm, nn.ReLU(inplace=True))

    blocks = [block(nn.Linear(pixels, width))]
    # No non-linearity inside: a block is a linear map of rank at most 1024.
    blocks += [block(nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)) for _ in range(3)]
    network = chain(flatten=nn.Flatten(), blocks=nn.Sequential(*blocks), fc=nn.Linear(width, classes))
    return kaiming_fan_out(network, nn.Linear)
