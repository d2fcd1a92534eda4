"""Stored features in the place of images, `features=BACKBONE:LAYER:DATASET`: what a frozen network makes of a data set.

The nearest-category paper, section 2: the activations of one layer, flattened and not rescaled, (n, d, 1, 1). A network that
was trained on them states whose they are in its description, and takes no others. BACKBONE is a checkpoint, or TYPE@PATH for
a file without a sidecar, such as a published robust network.

Free of torch: here are their names and checks; `lib.representations.feature_split` computes them.
"""

from typing import TYPE_CHECKING, Protocol

from lib import models
from lib.core.errors import UsageError, UserError
from lib.datasets import names

if TYPE_CHECKING:
    from lib.datasets.split import Split
    from lib.models.checkpoints import Description

SHOWN_DIGITS = 12  # of the hash of a checkpoint, in errors


class ImageFlags(Protocol):
    """The options of a training that are for images, and whose they are."""

    @property
    def dataset(self) -> str: ...
    @property
    def model_type(self) -> str: ...
    @property
    def augmentation(self) -> str: ...
    @property
    def image_size(self) -> int | None: ...
    @property
    def upscale(self) -> bool: ...
    @property
    def upscale_padding(self) -> bool: ...
    @property
    def pixel_shuffle(self) -> bool: ...
    @property
    def per_image_std(self) -> bool: ...
    @property
    def outliers(self) -> str: ...


def check_taken(taken: bool, name: str) -> None:
    """Raises `UsageError` if the data set is one of stored features and they are not taken by the script."""
    if names.parse(name).features is not None and not taken:
        raise UsageError(f"{name}: stored features take the place of images in exec_train.py, exec_eval.py and exec_ncg.py")


def backbone(text: str) -> tuple[str, str]:
    """Path and type of the backbone: `TYPE@PATH` for a file without a sidecar, else the path alone."""
    kind, at, path = text.partition("@")
    return (path, kind) if at and kind in models.MODELS else (text, "")


def check_training(config: ImageFlags) -> None:
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


def check_whose(split: "Split", description: "Description", name: str) -> None:
    """Raises `UserError` for stored features of another network or layer than those that this one was trained on."""
    if description.features != split.features:
        has, takes = (f"features of {_shortened(of)}" if of else "images" for of in (split.features, description.features))
        raise UserError(f"-d {name}: it has {has}, the network takes {takes}")


def as_trained(name: str, description: "Description") -> str:
    """The data set as the network takes it: images go through the backbone whose features it was trained on, if any."""
    if not description.features or names.parse(name).features is not None:
        return name
    trained_on = names.parse(description.dataset).features
    return name if trained_on is None else f"features={':'.join(trained_on)}:{name}"


def _shortened(whose: str) -> str:
    """The layer, and the first digits of the hash."""
    layer, of, sha256 = whose.rpartition(" of ")
    return layer + of + sha256[:SHOWN_DIGITS]
