"""Spaces for distances between images: pixels, or features of a layer, not rescaled.

The nearest-category paper, section 2. Pixel distances are in [0, 1] units of the images as the data set has them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib.core import files
from lib.core.errors import UserError
from lib.datasets import names
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import LazyImages
from lib.models import cutting
from lib.models.checkpoints import Checkpoint
from lib.models.normalized import Normalized
from lib.nearest_category.neighbors import Points
from lib.representations import finite, passes


@dataclass(frozen=True)
class Space:
    """points(split); `unit`, which a distance is divided by in what rows show; `about`, what rows say of the space.

    of_inputs      whether it is the space of what the network takes, in which its boundary can be sought
    network        whose activations it is of, at the layer `about["layer"]`; None for what is stored
    of_activations those of a split -> its points, so that a pass that is made for something else serves, too
    """

    name: str
    points: Callable[[Split], Points]
    unit: float
    about: dict
    of_inputs: bool = False
    network: Normalized | None = None
    of_activations: Callable[[Split, Tensor], Points] | None = None


def of_pixels() -> Space:
    """Distances of images, exact integers in the table."""
    return Space(
        "pixel", lambda split: Points(title(split), pixels(split)), 255, {"layer": None, "backbone": None}, of_inputs=True
    )


def of_stored_features(dataset: str) -> Space:
    """Distances of the stored features that the network takes, by the name of its data set."""
    stored = names.parse(dataset).features
    if stored is None:
        raise UserError(f"-d {dataset}: it does not name stored features")
    path, layer = stored
    return Space(
        "feature",
        lambda split: Points(
            title(split), finite.check(pixels(split), f"-d {dataset}: its features", split), split.features
        ),
        1,
        {"layer": layer, "backbone": path},
        of_inputs=True,
    )


def of_layer(backbone: Checkpoint, layer: str, batching: Batching) -> Space:
    """Distances of the activations of a layer, by default the last cut before the last linear layer."""
    layer = layer or _last_cut(backbone.network)
    cutting.check_names(backbone.network, [layer])
    units = f"features of {layer} of {files.sha256(backbone.path)[:12]}"

    def of_activations(split: Split, features: Tensor) -> Points:
        return Points(title(split), finite.check(features, f"layer {layer} of {backbone.path}: its features", split), units)

    def points(split: Split) -> Points:
        return of_activations(split, passes.features(backbone.network, split, layer, batching))

    about = {"layer": layer, "backbone": str(backbone.path)}
    return Space("feature", points, 1, about, network=backbone.network, of_activations=of_activations)


def pixels(split: Split) -> Tensor:
    """All images of a split, or stored features, as they are kept, in memory."""
    if isinstance(split.images, LazyImages):
        parts = np.array_split(np.arange(len(split)), len(split) // 4096 + 1)
        return torch.cat([split.images.take(part) for part in parts])
    return split.images


def title(split: Split) -> str:
    """A split by name, as errors and progress show it."""
    return f"{split.name}:{split.split}" + (f"/{split.variant}" if split.variant else "")


def _last_cut(network: Normalized) -> str:
    """The deepest layer at which the network can be cut in front of its last linear layer."""
    linear = [name for name, module in network.body.named_modules() if isinstance(module, nn.Linear)]
    cuts = cutting.cuts(network)
    before = cuts[: cuts.index(linear[-1])] if linear and linear[-1] in cuts else []
    if not before:
        raise UserError("--layer is required: the network has no cut in front of a last linear layer")
    return before[-1]
