"""Means and deviations per channel, in [0, 1] units, that published networks normalise images by. Free of torch."""

CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Mean and deviation per channel of the types whose published networks normalise inside, by numbers that are not in their
# files; a sidecar or flags win over them.
NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "preact_resnet18": CIFAR10,
    "preact_resnet34": CIFAR10,
    "wide_resnet_28_10": CIFAR10,
    "wide_resnet_34_10": CIFAR10,
    "liu2020_wrn": (
        tuple(value / 255 for value in (125.3, 123.0, 113.9)),
        tuple(value / 255 for value in (63.0, 62.1, 66.7)),
    ),
    "ResNet50Norm01": IMAGENET,
    "ResNet50Norm02": CIFAR10,
}
