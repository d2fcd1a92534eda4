"""Small convolutional networks: LeNet (hyperplanes, section 4), small_cnn (stitching) and CNN002 (nearest category)."""

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
    """Batch norm of the images, four 3x3 convolutions, 16 to 128 wide, each with a max-pool, and a global mean."""
    features: list[nn.Module] = [nn.BatchNorm2d(channels)]
    inward = channels
    for width in (16, 32, 64, 128):
        features += [nn.Conv2d(inward, width, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        inward = width
    return chain(
        features=nn.Sequential(*features),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(128, classes),
    )


def cnn002(classes: int, channels: int, image_size: int) -> nn.Module:
    """Four unpadded 3x3 convolutions and three linear layers; at 28 px the flattened features are 1024.

    Convolutions are Kaiming normal (fan-in) with bias 0; the last linear layer starts at zero, so every fresh network
    answers with equal logits.
    """
    features = nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
    side = ((image_size - 4) // 2 - 4) // 2
    hidden = nn.Linear(64 * side**2, 200), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(200, 200), nn.ReLU(inplace=True)
    last = nn.Linear(200, classes)
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            _zero_bias(module)
    nn.init.zeros_(last.weight)
    _zero_bias(last)
    return chain(features=features, flatten=nn.Flatten(), classifier=nn.Sequential(*hidden, last))


def _zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
