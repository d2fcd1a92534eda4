"""Corrupted images, `<name>-c/<corruption>-<severity>`: the official arrays where there are any, else made here.

CIFAR-10-C and CIFAR-100-C (Zenodo 2535967 and 3555552) cover the test splits of their sets, the intermediate-layer
paper, section 3.1, has their layout; ImageNet-C (Zenodo 2235448) has a folder per cell. `Split.origin` says "official" or
"generated": a table must not mix the two.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lib.core import cache_folders, checked_arrays
from lib.core.errors import UserError
from lib.core.registry import resolve
from lib.datasets import Options, corruptions, names
from lib.datasets.names import DataName
from lib.datasets.sets import cifar, imagenet
from lib.datasets.split import Split, check_labels
from lib.datasets.storage.arrays import as_images, map_array, read_labels
from lib.datasets.storage.folders import map_cached
from lib.datasets.storage.lazy_images import LazyImages
from lib.datasets.storage.pending import UNKNOWN, PendingImages, made

CHUNK = 1000  # images that are corrupted at once


def load(data: DataName, target: str, root: Path, split: str, files: list[Path], options: Options) -> Split:
    """The split under the corruption that `data` names, read from the official `files` if there are any."""
    kind, severity = names.corruption(data)
    if files and files[0].is_dir():
        corrupted = imagenet.corrupted(data.base, files[0], options)
    elif files:
        corrupted = official(data.base, files, severity, root, options)
    else:
        clean = check_labels(resolve(target)(root, split, options))
        corrupted = (_pending if options.pending else generated)(clean, kind, severity, options.cache)
    return replace(corrupted, name=data.name, variant=data.short_variant)


def official(base: str, files: list[Path], severity: int, root: Path, options: Options) -> Split:
    """One severity of an official array, of which only that fifth is read: severity s is its s-th fifth."""
    array = map_array(files[0])
    labels = read_labels(files[1], len(array))
    images, n = as_images(array, files[0]), len(array) // 5
    if len(array) % 5 or not (labels.reshape(5, n) == labels[:n]).all():
        raise UserError(f"{files[1]}: the labels of the five severities are not the same")
    classes = _classes(base, root, labels)
    if base == "cifar100coarse":
        labels = cifar.cifar100coarse(root, "test", options).labels.numpy()
        if len(labels) != n:
            raise UserError(f"{files[0]}: {n} images per severity, but the test split of cifar100 has {len(labels)}")
    part = images[(severity - 1) * n : severity * n].contiguous()
    return Split(
        base, "test", part, torch.from_numpy(labels[:n]), classes=classes, origin="official", augmentation="crop-flip"
    )


def generated(split: Split, kind: str, severity: int, cache: Path) -> Split:
    """The split with every image corrupted; an image's draws follow from its original position.

    Images in memory are corrupted once and kept under `cache`, by content; lazy ones whenever they are fetched.
    """
    clean = split.images
    if isinstance(clean, LazyImages):
        images = CorruptedImages(clean, kind, severity, split.indices.numpy())
        return replace(split, images=images, origin="generated", augmentation="none")
    file = cache_folders.folder(cache, "corrupted") / f"{_digest(split, kind)}-{kind.rpartition(':')[2]}-{severity}.npy"
    images = map_cached(file)
    if images is None:

        def fill(array: np.ndarray) -> None:
            for start in range(0, len(split), CHUNK):
                rows = slice(start, start + CHUNK)
                array[rows] = corruptions.corrupt(clean[rows], kind, severity, ids=split.indices[rows]).numpy()

        images = torch.from_numpy(checked_arrays.kept(file, tuple(clean.shape), np.uint8, fill))
    return replace(split, images=images, origin="generated")


def _pending(split: Split, kind: str, severity: int, cache: Path) -> Split:
    """The split whose images are corrupted once it is known which are wanted: each depends on its position alone."""

    def make(wanted: np.ndarray) -> Split:
        return generated(made(split.subset(wanted)), kind, severity, cache)

    return replace(split, images=PendingImages(len(split), make), origin="generated", augmentation=UNKNOWN)


class CorruptedImages(LazyImages):
    """The corrupted versions of images that are fetched batch by batch."""

    def __init__(self, images: LazyImages, kind: str, severity: int, ids: np.ndarray):
        self.images, self.kind, self.severity, self.ids, self.shape = images, kind, severity, ids, images.shape
        self.transform = images.transform

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        return corruptions.corrupt(self.images.take(positions), self.kind, self.severity, ids=self.ids[positions])


def _classes(base: str, root: Path, labels: np.ndarray) -> tuple[str, ...]:
    """The names in the clean data set's own list; the numbers where it is not there."""
    try:
        return cifar.class_names(base, root)
    except UserError:
        return tuple(str(label) for label in range(int(labels.max()) + 1))


def _digest(split: Split, kind: str) -> str:
    """What the corrupted images depend on: the clean ones, their positions, and the code."""
    clean = split.images_in_memory
    digest = hashlib.sha256(repr(tuple(clean.shape)).encode())
    for code in sorted((Path(__file__).parent / "corruptions").glob("*.py")):
        digest.update(code.read_bytes())
    if own := corruptions.own_file(kind):
        digest.update(own.read_bytes())
    digest.update(split.indices.numpy())
    for images in clean.split(CHUNK):
        digest.update(images.contiguous().numpy())
    return digest.hexdigest()
