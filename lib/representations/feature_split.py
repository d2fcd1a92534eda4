"""The split of a data set with what a frozen network makes of its images in their place (`feature_dataset`)."""

from dataclasses import replace
from pathlib import Path

from lib.core import files
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.models.checkpoints import Checkpoint
from lib.representations.feature_dataset import check_whose
from lib.representations.features import Storage, Tap, collect, reducers_of


def of_images(
    images: Split, network: Checkpoint, layer: str, name: str, batching: Batching, cache_dir: str | Path | None
) -> Split:
    """The split of that name with the network's activations at the layer, float32 (n, d, 1, 1), for its images.

    They are computed once and kept in the cache.
    """
    tap = Tap(layer, "flatten")
    check_whose(images, network.description, images.name)
    storage = Storage(cache_dir=cache_dir, exact=(tap,))
    label = f"features of {images.name}"
    rows = collect(network.network, images, reducers_of([tap]), batching, storage, label=label).features[tap].rows()
    return replace(
        images,
        name=name,
        images=rows.unflatten(1, (-1, 1, 1)),
        augmentation="none",
        features=f"{layer} of {files.sha256(network.path)}",
    )
