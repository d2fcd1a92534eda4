"""The zoo: every type of network by name, and the one function that builds it.

A type is a name of `MODELS` (the papers' own spellings), `tv:<name>` (any torchvision classifier), `timm:<name>` (any
timm model) or `path/to/file.py:function` (one's own network). Networks are bare: they take images that are already
normalised, so what some papers normalise inside their networks is left out here and lives in `normalized.Normalized`.
Layer names are module paths, and stages and blocks are modules called exactly once, so that a network can be cut there.

To add a type: a function `f(classes, channels, image_size) -> nn.Module` in the file of its family, and an entry below.
Nothing here imports torch before `build` is called.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib.core.errors import UsageError, UserError
from lib.core.registry import near, resolve
from lib.models import paper_names

if TYPE_CHECKING:
    from torch import nn

MODELS = {
    # ResNets with the CIFAR stem (stitching)
    "resnet18": "lib.models.resnet:resnet18",
    "resnet34": "lib.models.resnet:resnet34",
    "resnet50": "lib.models.resnet:resnet50",
    "resnet101": "lib.models.resnet:resnet101",
    "resnet152": "lib.models.resnet:resnet152",
    "wide_resnet50_2": "lib.models.resnet:wide_resnet50_2",
    "wide_resnet101_2": "lib.models.resnet:wide_resnet101_2",
    "resnext50_32x4d": "lib.models.resnet:resnext50_32x4d",
    "resnext101_32x8d": "lib.models.resnet:resnext101_32x8d",
    "resnet18_samewidth": "lib.models.resnet:resnet18_samewidth",
    "resnet18_samesize": "lib.models.resnet:resnet18_samesize",
    "resnet18_samewidth_samesize": "lib.models.resnet:resnet18_samewidth_samesize",
    # other ResNets for 32 px (intermediate layers; He et al. 2016)
    "cifar_resnet18_maxpool": "lib.models.resnet:cifar_resnet18_maxpool",
    "pytorch_cifar_resnet18": "lib.models.pytorch_cifar:pytorch_cifar_resnet18",
    "pytorch_cifar_resnet50": "lib.models.pytorch_cifar:pytorch_cifar_resnet50",
    "resnet20": "lib.models.resnet:resnet20",
    # torchvision's ResNets (stitching on ImageNet, OOD layers; nearest category)
    "tv_resnet18": "lib.models.torchvision_nets:tv_resnet18",
    "tv_resnet34": "lib.models.torchvision_nets:tv_resnet34",
    "tv_resnet50": "lib.models.torchvision_nets:tv_resnet50",
    "tv_resnet101": "lib.models.torchvision_nets:tv_resnet101",
    "tv_resnet152": "lib.models.torchvision_nets:tv_resnet152",
    "ResNet50": "lib.models.torchvision_nets:tv_resnet50",
    "ResNet50Norm01": "lib.models.torchvision_nets:tv_resnet50",
    "ResNet50Norm02": "lib.models.torchvision_nets:tv_resnet50",
    # pre-activation ResNets, plain and wide (stitching; nearest category)
    "preact_resnet18": "lib.models.preact:preact_resnet18",
    "preact_resnet34": "lib.models.preact:preact_resnet34",
    "wide_resnet_28_10": "lib.models.preact:wide_resnet_28_10",
    "wide_resnet_34_10": "lib.models.preact:wide_resnet_34_10",
    "liu2020_wrn": "lib.models.preact:liu2020_wrn",
    "WRN_40_10": "lib.models.preact:wrn_40_10",
    # networks without skip connections (hyperplanes; stitching's small_cnn; nearest category's CNN002)
    "vgg11": "lib.models.torchvision_nets:vgg11",
    "vgg13": "lib.models.torchvision_nets:vgg13",
    "vgg16": "lib.models.torchvision_nets:vgg16",
    "vgg19": "lib.models.torchvision_nets:vgg19",
    "vgg11bn": "lib.models.torchvision_nets:vgg11bn",
    "vgg13bn": "lib.models.torchvision_nets:vgg13bn",
    "vgg16bn": "lib.models.torchvision_nets:vgg16bn",
    "vgg19bn": "lib.models.torchvision_nets:vgg19bn",
    "vgg19_orig": "lib.models.torchvision_nets:vgg19_orig",
    "alexnet": "lib.models.torchvision_nets:alexnet",
    "lenet": "lib.models.small:lenet",
    "small_cnn": "lib.models.small:small_cnn",
    "CNN002": "lib.models.small:cnn002",
    "mlp": "lib.models.mlp:mlp",
    "mlp_bn": "lib.models.mlp:mlp_bn",
    "LargeMLP": "lib.models.mlp:large_mlp",
    "LargeMLPv4": "lib.models.mlp:large_mlp_v4",
    # vision transformers (stitching)
    "vit_tiny_patch4_32": "lib.models.vit:vit_tiny_patch4_32",
    "vit_small_patch4_32": "lib.models.vit:vit_small_patch4_32",
    "vit_medium_patch4_32": "lib.models.vit:vit_medium_patch4_32",
    "vit_base_patch4_32": "lib.models.vit:vit_base_patch4_32",
    "vit_large_patch4_32": "lib.models.vit:vit_large_patch4_32",
    "vit_huge_patch4_32": "lib.models.vit:vit_huge_patch4_32",
    "vit_giant_patch4_32": "lib.models.vit:vit_giant_patch4_32",
    "vit_gigantic_patch4_32": "lib.models.vit:vit_gigantic_patch4_32",
    "vit_tiny_patch16_224": "lib.models.vit:vit_tiny_patch16_224",
    "vit_small_patch16_224": "lib.models.vit:vit_small_patch16_224",
    "vit_medium_patch16_224": "lib.models.vit:vit_medium_patch16_224",
    "vit_base_patch16_224": "lib.models.vit:vit_base_patch16_224",
    "vit_large_patch16_224": "lib.models.vit:vit_large_patch16_224",
    "vit_huge_patch16_224": "lib.models.vit:vit_huge_patch16_224",
    "vit_giant_patch16_224": "lib.models.vit:vit_giant_patch16_224",
    "vit_gigantic_patch16_224": "lib.models.vit:vit_gigantic_patch16_224",
}

# Classifiers of what a layer of another network puts out, maps or tokens; `channels` is its width, `image_size` that of the
# images which the other network takes (stitching)
REPRESENTATIONS = {
    "repr_cls_resnet18": "lib.models.representation_classifiers:repr_cls_resnet18",
    "repr_cls_resnet34": "lib.models.representation_classifiers:repr_cls_resnet34",
    "repr_cls_resnet50": "lib.models.representation_classifiers:repr_cls_resnet50",
    "repr_cls_resnet101": "lib.models.representation_classifiers:repr_cls_resnet101",
    "repr_cls_resnet152": "lib.models.representation_classifiers:repr_cls_resnet152",
    "repr_cls_resnet20": "lib.models.representation_classifiers:repr_cls_resnet20",
    "repr_cls_vit_tiny": "lib.models.representation_classifiers:repr_cls_vit_tiny",
    "repr_cls_vit_small": "lib.models.representation_classifiers:repr_cls_vit_small",
    "repr_cls_vit_medium": "lib.models.representation_classifiers:repr_cls_vit_medium",
    "repr_cls_vit_base": "lib.models.representation_classifiers:repr_cls_vit_base",
    "repr_cls_vit_large": "lib.models.representation_classifiers:repr_cls_vit_large",
    "repr_cls_vit_huge": "lib.models.representation_classifiers:repr_cls_vit_huge",
    "repr_cls_vit_giant": "lib.models.representation_classifiers:repr_cls_vit_giant",
    "repr_cls_vit_gigantic": "lib.models.representation_classifiers:repr_cls_vit_gigantic",
}

LIBRARIES = {
    "tv": "lib.models.external:torchvision_network",
    "timm": "lib.models.external:timm_network",
    "probe": "lib.models.probe_network:network",
}
PATTERNS = ("tv:<torchvision name>", "timm:<timm name>", "probe:<type>@<layer>@<reducer>", "path/to/file.py:function")

_CIFAR_STEM = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnet18_samewidth",
    "resnet18_samesize",
    "resnet18_samewidth_samesize",
    "pytorch_cifar_resnet18",
    "pytorch_cifar_resnet50",
)
_VITS = ("tiny", "small", "medium", "base", "large", "huge", "giant", "gigantic")

# The square input sizes of the types that cannot take any size.
SIZES = {
    **dict.fromkeys(_CIFAR_STEM, (32,)),
    **{f"vit_{size}_patch4_32": (32,) for size in _VITS},
    **{f"vit_{size}_patch16_224": (224,) for size in _VITS},
}

# The least size of the types whose pooling would leave nothing of a smaller image.
SMALLEST = {
    **{f"vgg{depth}{bn}": 32 for depth in (11, 13, 16, 19) for bn in ("", "bn")},
    "vgg19_orig": 32,
    "alexnet": 63,
    "lenet": 8,
    "small_cnn": 8,
    "CNN002": 16,
}

# The types that take vectors, such as stored features, as well as images.
OF_VECTORS = ("mlp", "mlp_bn", "LargeMLP", "LargeMLPv4")

# Where the published weights of a type come from; `tv:` and `timm:` types are their own source.
WEIGHTS = {
    "tv_resnet18": "tv:resnet18",
    "tv_resnet34": "tv:resnet34",
    "tv_resnet50": "tv:resnet50",
    "tv_resnet101": "tv:resnet101",
    "tv_resnet152": "tv:resnet152",
    "ResNet50": "tv:resnet50",
    "alexnet": "tv:alexnet",
    **{f"vgg{depth}": f"tv:vgg{depth}" for depth in (11, 13, 16, 19)},
    **{f"vgg{depth}bn": f"tv:vgg{depth}_bn" for depth in (11, 13, 16, 19)},
    **{f"vit_{size}_patch16_224": f"timm:vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")},
}


def check(name: str) -> None:
    """Raise a `UsageError` if `name` is no type; what follows `tv:` and `timm:` is only looked up when it is built."""

    name = paper_names.architecture(name)
    library, _, rest = name.partition(":")
    if name in MODELS or (library in LIBRARIES and rest):
        return
    if name in REPRESENTATIONS:
        raise UsageError(f"type {name} takes what a layer puts out, not images: exec_ood_detector.py -m trains it")
    path, _, function = name.rpartition(":")
    if path.endswith(".py") and function:
        if not Path(path).is_file():
            raise UsageError(f"type {name}: there is no file {path} (relative to {Path.cwd()})")
        return
    if name.endswith(".py"):
        raise UsageError(f"type {name}: say which of its functions builds the network, as in {name}:network")
    raise UsageError(f"type {name!r} is neither of this suite nor {' nor '.join(PATTERNS)}; {near(name, MODELS)}")


def every_type() -> str:
    """All types, as a clause."""
    return f"types are {', '.join([*MODELS, *PATTERNS])}"


def takes(name: str) -> str:
    """What a classifier of representations takes: "maps" (n, c, h, w) or "tokens" (n, t, c)."""
    return "tokens" if name.startswith("repr_cls_vit") else "maps"


class Pretrained(NamedTuple):
    """A network with published weights, and the normalisation they were trained with: a number per channel."""

    network: "nn.Module"
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build(name: str, classes: int, channels: int = 3, image_size: int = 32) -> "nn.Module":
    """The network of type `name`: normalised (n, channels, image_size, image_size) -> (n, classes).

    Weights are drawn from torch's global generator. Raises a `UserError` for what the architecture cannot take.
    """
    if name not in REPRESENTATIONS:
        check(name)
    _check_shape(name, classes, channels, image_size)
    library, _, rest = name.partition(":")
    if name in MODELS or name in REPRESENTATIONS:
        return resolve((MODELS | REPRESENTATIONS)[name])(classes, channels, image_size)
    if library in LIBRARIES:
        return resolve(LIBRARIES[library])(rest, classes, channels, image_size)
    return resolve("lib.models.external:file_network")(name, classes, channels, image_size)


def build_pretrained(name: str, classes: int, channels: int = 3, image_size: int = 32) -> Pretrained:
    """The network that `build` builds with the weights of torchvision (`DEFAULT`) or timm.

    A head for another number of classes stays as drawn, with a warning. Raises a `UserError` also for weights that do not
    exist, do not fit or cannot be downloaded.
    """
    library, _, _ = name.partition(":")
    source = name if library in ("tv", "timm") else WEIGHTS.get(name)
    if source is None:
        check(name)
        published = ", ".join([*WEIGHTS, *PATTERNS[:2]])
        raise UserError(f"--pretrained: no weights are published for {name}; they are for {published}")
    network = build(name, classes, channels, image_size)
    return Pretrained(network, *resolve("lib.models.pretrained:load")(network, source, classes, channels, image_size))


def check_vectors(name: str) -> None:
    """Raise a `UsageError` unless type `name` takes vectors, or is somebody's own."""
    if name not in OF_VECTORS and ".py:" not in name:
        raise UsageError(f"type {name} takes images; stored features are for {', '.join(OF_VECTORS)}")


def accepted_size(name: str, size: int) -> int:
    """The size at which a network of type `name` takes images of this size: enlarged where it must, never shrunk."""
    accepted = [larger for larger in SIZES.get(name, ()) if larger >= size]
    if name in SIZES and not accepted:
        sizes = " or ".join(map(str, SIZES[name]))
        raise UserError(
            f"{name} takes images of {sizes} px and these have {size}; --image-size shrinks them, and the tv_ "
            "types take any size"
        )
    return max(accepted[0] if accepted else size, SMALLEST.get(name, 1))


def _check_shape(name: str, classes: int, channels: int, image_size: int) -> None:
    if classes < 2:
        raise UserError(f"{name} with {classes} classes: a classifier needs at least 2")
    if channels < 1:
        raise UserError(f"{name} with {channels} channels: images have at least 1")
    wanted, least = SIZES.get(name), SMALLEST.get(name, 1)
    if wanted and image_size not in wanted:
        sizes = " or ".join(f"{size} x {size}" for size in wanted)
        way_out = "resize them or choose a type without a fixed size, such as tv_resnet18"
        raise UserError(f"{name} takes {sizes} images, not {image_size} x {image_size}: {way_out}")
    if image_size < least:
        limit = f"at least {least} x {least}, not {image_size} x {image_size}"
        raise UserError(f"{name} takes images of {limit}: enlarge them or choose another type")
