"""Folders of images: decoded once into a memory-mapped array if small and of one size, else decoded as needed."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lib.core import cache_folders, checked_arrays
from lib.core.errors import UserError
from lib.datasets import Options
from lib.datasets.split import Split
from lib.datasets.storage import deep_images, hugging_face, image_folders, image_tables, packed, pending
from lib.datasets.storage.crops import open_image
from lib.datasets.storage.lazy_images import DecodedImages
from lib.datasets.storage.pending import PendingImages

SMALL = 96  # pixels: the largest side of images that are kept decoded
CHUNK = 2048  # files per task
DECODING = 2  # one more when the same files give other pixels, so that arrays of before are not taken


def folder(root: Path, split: str, options: Options) -> Split:
    """An ImageFolder tree (see `image_folders`); labels follow the sorted names of the class folders."""
    path = options.stated_path
    return from_listing(path.name, split, image_folders.listing(path, split), options)


def table(root: Path, split: str, options: Options) -> Split:
    """The images of one split of a table (see `image_tables`), with the classes and groups of all of it."""
    path = options.stated_path
    listed = image_tables.read(path)
    rows = listed.rows(split)
    whole = image_folders.Listing(path.parent, listed.paths, listed.labels, listed.classes)
    images = from_listing(path.stem, split, whole.at(rows), options)
    if not listed.group_names:
        return images
    return replace(images, groups=torch.tensor([listed.groups[row] for row in rows]), group_names=listed.group_names)


def hf(root: Path, split: str, options: Options) -> Split:
    """A Hugging Face data set (see `hugging_face`)."""
    return _packed(hugging_face.images(str(options.stated_path)), split, options)


def wds(root: Path, split: str, options: Options) -> Split:
    """Tar shards in WebDataset's layout (see `packed`)."""
    return _packed(packed.of_shards(str(options.stated_path)), split, options)


def _packed(found: packed.PackedImages, split: str, options: Options) -> Split:
    """One split, with the classes and groups of all; classes are `class_names` where labels are numbers, else the labels."""
    path, known = options.stated_path, found.class_names
    labels, classes = _numbered(found.labels, split)
    if known and all(name.lstrip("-").isdigit() for name in classes):
        numbers = [int(name) for name in classes]
        if wrong := [number for number in numbers if not 0 <= number < len(known)]:
            raise UserError(f"{path}: label {wrong[0]}, but there are {len(known)} names of classes")
        labels, classes = tuple(numbers[label] if label >= 0 else -1 for label in labels), known
    groups, group_names = _numbered(found.groups, split)
    members = tuple(found.members[split])
    listing = image_folders.Listing(path.parent, (), labels, classes, members)
    images = from_listing(path.name, split, listing, options)
    return replace(images, groups=torch.tensor(groups), group_names=group_names) if group_names else images


def _numbered(values: dict[str, list[str]], split: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The values of a split as numbers, and what the numbers of all splits stand for; -1 and () without values."""
    everything = [value for part in values.values() for value in part]
    if not any(everything):
        return (-1,) * len(values[split]), ()
    _, names = image_tables.numbered(everything)
    number = {name: position for position, name in enumerate(names)}
    return tuple(number.get(value, -1) for value in values[split]), names


def from_listing(name: str, split: str, listing: image_folders.Listing, options: Options) -> Split:
    """The images of the listing, grey (1, h, w) if all are, else colour; large ones 3 x `image_size` x `image_size`.

    With `options.pending` nothing is decoded before `pending.made`.
    """
    classes, labels = listing.classes, torch.tensor(listing.labels, dtype=torch.int64)
    if options.pending:
        at_once = replace(options, pending=False)
        images = PendingImages(len(labels), lambda wanted: from_listing(name, split, listing.at(wanted), at_once))
        return Split(name, split, images, labels, classes=classes, augmentation=pending.UNKNOWN)
    deep_images.warn_of_dark_files(f"{name}:{split}", len(labels), listing.image)
    images = decoded(listing, cache_folders.folder(options.cache, "decoded"), options.upright)
    lazy = images is None
    if lazy:
        files = [listing.image(row) for row in range(len(listing.labels))]
        images = DecodedImages(files, options.image_size, options.transform or "shorter", options.upright)
        images = images.decoded_by(options.decoder)
    augmentation = "imagenet" if lazy else "crop-flip"
    return Split(name, split, images, labels, classes=classes, augmentation=augmentation)


def decoded(listing: image_folders.Listing, cache: Path, upright: bool = False) -> torch.Tensor | None:
    """All images as uint8 (n, c, h, w), memory-mapped from the cache; None if they are large or differ in size."""
    with open_image(listing.image(0), upright) as first:
        width, height, grey = *first.size, first.mode == "L"
    if max(width, height) > SMALL:
        return None
    file = cache / f"{image_folders.manifest(listing, DECODING, upright)}.npy"
    mapped = map_cached(file)
    if mapped is None:
        for channels in (1, 3) if grey else (3,):
            shape = (len(listing.labels), channels, height, width)
            try:
                fill = partial(_decode_all, listing, upright=upright)
                return torch.from_numpy(checked_arrays.kept(file, shape, np.uint8, fill))
            except _Differs as difference:
                if not (difference.colour_only and channels == 1):
                    return None
    return mapped


def map_cached(file: Path) -> torch.Tensor | None:
    """The array in a cache file, or None if it is not there or not whole."""
    kept = checked_arrays.read(file)
    return None if kept is None else torch.from_numpy(kept[0])


class _Differs(Exception):
    def __init__(self, colour_only: bool):
        super().__init__()
        self.colour_only = colour_only


def _decode_all(listing: image_folders.Listing, array: np.ndarray, upright: bool) -> None:
    """Decodes every file into `array` (n, c, h, w); Pillow lets go of the interpreter while it decodes."""
    n, channels, height, width = array.shape
    mode = "L" if channels == 1 else "RGB"

    def decode(start: int) -> None:
        for row in range(start, min(start + CHUNK, n)):
            with open_image(listing.image(row), upright) as image:
                if image.size != (width, height):
                    raise _Differs(colour_only=False)
                if channels == 1 and image.mode != "L":
                    raise _Differs(colour_only=True)
                pixels = np.asarray(image if image.mode == mode else image.convert(mode))
            array[row] = pixels if channels == 1 else pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        tasks = [pool.submit(decode, start) for start in range(0, n, CHUNK)]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
