"""Small convolutional networks: LeNet (hyperplanes, section 4), small_cnn (stitching) and CNN002 (nearest category)."""

import math

from torch import nn

from lib.models.parts import chain


def lenet(classes: int, channels: int, image_size: int) -> nn.Module:
    """Three pairs of 3x3 convolutions, 6, 16 and 64 wide, and three linear layers; Xavier uniform, gain sqrt 2."""
    features: list[nn.Module] = []
    inward = channels
    for width in (6, 16, 64):
        features += [nn.Conv2d(inward, width, 3, padding=1), nn.ReLU(inplace=True)]
        features += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        inward = width
    classifier = nn.Sequential(
        nn.Linear(576, 120),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(84, classes),
    )
    # The pool is the identity at 28 px and makes other sizes fit.
    network = chain(
        features=nn.Sequential(*features),
        avgpool=nn.AdaptiveAvgPool2d(3),
        flatten=nn.Flatten(),
        classifier=classifier,
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=nn.init.calculate_gain("relu"))
            _zero_bias(module)
    return network


def small_cnn(classes: int, channels: int, image_size: int) -> nn.Module:
    """Batch norm of the images, four 3x3 convolutions of 16 to 128, the first three with a max-pool, and a global mean."""
    modules: dict[str, nn.Module] = {"bn": nn.BatchNorm2d(channels)}
    widths = (channels, 16, 32, 64, 128)
    for number, (inward, width) in enumerate(zip(widths, widths[1:], strict=False), 1):
        modules |= {f"conv{number}": nn.Conv2d(inward, width, 3, padding=1), f"relu{number}": nn.ReLU(inplace=True)}
        if number < 4:
            modules[f"pool{number}"] = nn.MaxPool2d(2)
    return chain(**modules, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(128, classes))


def cnn002(classes: int, channels: int, image_size: int) -> nn.Module:
    """Four unpadded 3x3 convolutions and three linear layers; at 28 px the flattened features are 1024.

    Convolutions are Kaiming normal (fan-in) with bias 0; the last linear layer starts at zero, so every fresh network
    answers with equal logits. Modules have the names of the paper's code.
    """
    features: dict[str, nn.Module] = {}
    widths = (channels, 32, 32, 64, 64)
    for number, (inward, width) in enumerate(zip(widths, widths[1:], strict=False), 1):
        conv = nn.Conv2d(inward, width, 3)
        nn.init.kaiming_normal_(conv.weight)
        _zero_bias(conv)
        features |= {f"conv{number}": conv, f"relu{number}": nn.ReLU(inplace=True)}
        if number % 2 == 0:
            features[f"maxpool{number // 2}"] = nn.MaxPool2d(2)
    side = ((image_size - 4) // 2 - 4) // 2
    last = nn.Linear(200, classes)
    nn.init.zeros_(last.weight)
    _zero_bias(last)
    classifier = chain(
        fc1=nn.Linear(64 * side**2, 200),
        relu1=nn.ReLU(inplace=True),
        drop=nn.Dropout(0.5),
        fc2=nn.Linear(200, 200),
        relu2=nn.ReLU(inplace=True),
        fc3=last,
    )
    return chain(feature_extractor=chain(**features), flatten=nn.Flatten(), classifier=classifier)


def cnn002_image_size(width: int) -> int:
    """The least side of the images of a CNN002 whose linear layers take so many features."""
    return 4 * math.isqrt(width // 64) + 12


def _zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
