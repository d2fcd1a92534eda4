"""Folders of images: decoded once into a memory-mapped array if small and of one size, else decoded as needed."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lib.core import cache_folders, checked_arrays
from lib.datasets import Options
from lib.datasets.split import Split
from lib.datasets.storage import image_folders
from lib.datasets.storage.crops import open_image
from lib.datasets.storage.lazy_images import DecodedImages

SMALL = 96  # pixels: the largest side of images that are kept decoded
CHUNK = 2048  # files per task


def folder(root: Path, split: str, options: Options) -> Split:
    """An ImageFolder tree (see `image_folders`); labels follow the sorted names of the class folders."""
    path = options.stated_path
    return from_listing(path.name, split, image_folders.listing(path, split), options)


def from_listing(name: str, split: str, listing: image_folders.Listing, options: Options) -> Split:
    """The images of the listing, grey (1, h, w) if all are, else colour; large ones 3 x `image_size` x `image_size`."""
    images = decoded(listing, cache_folders.folder(options.cache, "decoded"))
    lazy = images is None
    if lazy:
        files = [listing.folder / file for file in listing.files]
        images = DecodedImages(files, options.image_size, options.transform or "shorter")
    augmentation = "imagenet" if lazy else "crop-flip"
    labels = torch.tensor(listing.labels, dtype=torch.int64)
    return Split(name, split, images, labels, classes=listing.classes, augmentation=augmentation)


def decoded(listing: image_folders.Listing, cache: Path) -> torch.Tensor | None:
    """All images as uint8 (n, c, h, w), memory-mapped from the cache; None if they are large or differ in size."""
    with open_image(listing.folder / listing.files[0]) as first:
        width, height, grey = *first.size, first.mode in ("1", "L")
    if max(width, height) > SMALL:
        return None
    file = cache / f"{image_folders.manifest(listing)}.npy"
    mapped = map_cached(file)
    if mapped is None:
        for channels in (1, 3) if grey else (3,):
            shape = (len(listing.files), channels, height, width)
            try:
                return torch.from_numpy(checked_arrays.kept(file, shape, np.uint8, partial(_decode_all, listing)))
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


def _decode_all(listing: image_folders.Listing, array: np.ndarray) -> None:
    """Decodes every file into `array` (n, c, h, w); Pillow lets go of the interpreter while it decodes."""
    n, channels, height, width = array.shape
    mode = "L" if channels == 1 else "RGB"

    def decode(start: int) -> None:
        for row in range(start, min(start + CHUNK, n)):
            with open_image(listing.folder / listing.files[row]) as image:
                if image.size != (width, height):
                    raise _Differs(colour_only=False)
                if channels == 1 and image.mode not in ("1", "L"):
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
