"""Types that are torchvision's networks under the papers' names: ResNets of any size, VGGs and AlexNet.

Stitching and OOD layers (`tv_resnet*`), hyperplanes section 4 (`vgg*`, `alexnet`), nearest category (`ResNet50`).
Structure, names, keys and initialisation are torchvision's; for other than three channels the first convolution is new.
"""

from torch import nn
from torchvision import models

from lib.models.parts import with_channels


def tv_resnet18(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.resnet18(num_classes=classes), channels)


def tv_resnet34(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.resnet34(num_classes=classes), channels)


def tv_resnet50(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.resnet50(num_classes=classes), channels)


def tv_resnet101(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.resnet101(num_classes=classes), channels)


def tv_resnet152(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.resnet152(num_classes=classes), channels)


def vgg11(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg11(num_classes=classes), channels)


def vgg13(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg13(num_classes=classes), channels)


def vgg16(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg16(num_classes=classes), channels)


def vgg19(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg19(num_classes=classes), channels)


def vgg11bn(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg11_bn(num_classes=classes), channels)


def vgg13bn(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg13_bn(num_classes=classes), channels)


def vgg16bn(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg16_bn(num_classes=classes), channels)


def vgg19bn(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.vgg19_bn(num_classes=classes), channels)


def vgg19_orig(classes: int, channels: int, image_size: int) -> nn.Module:
    """VGG-19 as Simonyan & Zisserman first drew it: every weight from N(0, 0.01^2), every bias 0."""
    network = with_channels(models.vgg19(num_classes=classes, init_weights=False), channels)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def alexnet(classes: int, channels: int, image_size: int) -> nn.Module:
    return with_channels(models.alexnet(num_classes=classes), channels)
