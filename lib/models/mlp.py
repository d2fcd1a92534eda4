"""Fully connected networks, of images or of stored features (n, d, 1, 1).

`mlp`, the control of the hyperplanes paper (section 4; its structure is Ahn et al. 2019's): pixels to 4096, three linear
bottlenecks 4096-1024-4096 and the head: eight linear layers, Kaiming normal fan-out with bias 0. After the first and after
each bottleneck come dropout 0.2, batch norm (in `mlp_bn`) and ReLU.

`LargeMLP` and `LargeMLPv4`, the heads of the nearest-category paper (its page, section 3.3): three hidden layers of 256 and
of 1024 with ReLU, in PyTorch's default initialisation. Modules have the names of the papers' codes.
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
    return chain(
        flatten=nn.Flatten(),
        hidden=nn.Linear(inward, width),
        relu=nn.ReLU(inplace=True),
        hidden2=nn.Linear(width, width),
        relu2=nn.ReLU(inplace=True),
        hidden3=nn.Linear(width, width),
        relu3=nn.ReLU(inplace=True),
        fc=nn.Linear(width, classes),
    )


def _mlp(classes: int, pixels: int, batch_norm: bool, width: int = 4096, bottleneck: int = 1024) -> nn.Module:
    def block(**layers: nn.Module) -> nn.Module:
        norm = {"bn": nn.BatchNorm1d(width)} if batch_norm else {}
        return chain(**layers, dropout=nn.Dropout(0.2), **norm, relu=nn.ReLU(inplace=True))

    blocks = {"hidden1": block(fc=nn.Linear(pixels, width))}
    for number in (2, 3, 4):  # no non-linearity inside: a block is a linear map of rank at most 1024
        blocks[f"hidden{number}"] = block(fc1=nn.Linear(width, bottleneck), fc2=nn.Linear(bottleneck, width))
    network = chain(flatten=nn.Flatten(), **blocks, classifier=nn.Linear(width, classes))
    return kaiming_fan_out(network, nn.Linear)
