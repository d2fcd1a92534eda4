"""Stored features in the place of images, `features=BACKBONE:LAYER:DATASET`: what a frozen network makes of a data set.

The nearest-category paper, section 2: the activations of one layer, flattened and not rescaled, (n, d, 1, 1). A network that
was trained on them states whose they are in its description, and takes no others. BACKBONE is a checkpoint, or TYPE@PATH for
a file without a sidecar, such as a published robust network.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from lib import models
from lib.core import files
from lib.core.errors import UsageError, UserError
from lib.datasets import names

if TYPE_CHECKING:
    from lib.datasets.split import Split
    from lib.models.checkpoints import Checkpoint, Description


def check_taken(config, name: str) -> None:
    """Raises `UsageError` if the data set is one of stored features and the script of this configuration takes none."""
    if names.parse(name).features is not None and not config.takes_features:
        raise UsageError(f"{name}: stored features take the place of images in exec_train.py, exec_eval.py and exec_ncg.py")


def backbone(text: str) -> tuple[str, str]:
    """Path and type of the backbone: `TYPE@PATH` for a file without a sidecar, else the path alone."""
    kind, at, path = text.partition("@")
    return (path, kind) if at and kind in models.MODELS else (text, "")


def check_training(config) -> None:
    """Raises `UsageError` for options of a training on stored features that are for images."""
    models.check_vectors(config.model_type)
    for_images = {
        "--augmentation": config.augmentation not in ("auto", "none"),
        "--image-size": config.image_size,
        "--upscale": config.upscale,
        "--upscale-padding": config.upscale_padding,
        "--pixel-shuffle": config.pixel_shuffle,
        "--per-image-std": config.per_image_std,
        "--outliers": config.outliers,
    }
    for name, given in for_images.items():
        if given:
            raise UsageError(f"{name} is for images, not for the stored features of -d {config.dataset}")


def made(network: "Checkpoint", layer: str, images: "Split", name: str, **passing) -> "Split":
    """The split of that name with the network's activations at the layer, float32 (n, d, 1, 1), for its images.

    `passing` as in `features.collect`: they are computed once and kept in the cache.
    """
    from lib.representations import features

    described, tap = network.description, features.Tap(layer, "flatten")
    check_whose(images, described, images.name)
    found = features.collect(
        network.network,
        images,
        [tap],
        exact=(tap,),
        channels=described.channels,
        size=described.image_size,
        label=f"features of {images.name}",
        **passing,
    ).features[tap]
    return replace(
        images,
        name=name,
        images=found.rows()[:, :, None, None],
        augmentation="none",
        features=f"{layer} of {files.sha256(network.path)}",
    )


def check_whose(split: "Split", description: "Description", name: str) -> None:
    """Raises `UserError` for stored features of another network or layer than those that this one was trained on."""
    if description.features != split.features:
        has, takes = (f"features of {_shortened(of)}" if of else "images" for of in (split.features, description.features))
        raise UserError(f"-d {name}: it has {has}, the network takes {takes}")


def as_trained(name: str, description: "Description") -> str:
    """The data set as the network takes it: images go through the backbone whose features it was trained on, if any."""
    if not description.features or names.parse(name).features is not None:
        return name
    return f"features={':'.join(names.parse(description.dataset).features)}:{name}"


def _shortened(whose: str) -> str:
    """The layer, and twelve digits of the hash."""
    layer, of, sha256 = whose.rpartition(" of ")
    return layer + of + sha256[:12]
