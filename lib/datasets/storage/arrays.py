"""Images in `.npy` files, memory-mapped: a user's own array (`npy=PATH`), and the 300,000 random images.

The latter are the auxiliary outliers of the stitching paper, section 6.
"""

from pathlib import Path

import numpy as np
import torch

from lib.core import files
from lib.core.errors import UserError
from lib.datasets import Options, catalogue
from lib.datasets.split import Split

MOST_CLASSES = 100_000


def npy(root: Path, split: str, options: Options) -> Split:
    """The array at `options.path`, uint8 (n, h, w, c) or (n, h, w), with c = 1 or 3.

    Labels are the integers (n,) in `<stem>_labels.npy` beside it, from 0, or -1 for unlabelled; without that file every
    image is unlabelled. Classes are called by their numbers.
    """
    path = options.stated_path
    images = as_images(map_array(path), path)
    beside = path.with_name(f"{path.stem}_labels.npy")
    if not beside.is_file():
        return Split(path.stem, split, images, torch.full((len(images),), -1))
    labels = read_labels(beside, len(images))
    if len(labels) and not -1 <= labels.min() <= labels.max() < MOST_CLASSES:
        wrong = labels.min() if labels.min() < -1 else labels.max()
        raise UserError(f"{beside}: label {wrong}; labels are 0, 1, ... or -1 for unlabelled")
    classes = tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))
    return Split(path.stem, split, images, torch.from_numpy(labels), classes=classes)


def random_images(root: Path, split: str, options: Options) -> Split:
    """300,000 natural images, 3 x 32 x 32, unlabelled: `300K_random_images.npy` under the root or under `oe`."""
    (file,) = catalogue.require("300k", catalogue.KNOWN["300k"], root)
    images = as_images(map_array(file), file)
    return Split("300k", split, images, torch.full((len(images),), -1), augmentation="crop-flip")


def map_array(file: Path) -> np.ndarray:
    """The memory-mapped array; the mapping is private, so that nothing written to it reaches the file."""
    try:
        return np.load(file, mmap_mode="c", allow_pickle=False)
    except files.NO_ARRAYS as error:
        raise UserError(f"{file}: cannot be read as an array ({error}); is it whole?") from None


def as_images(array: np.ndarray, file: Path) -> torch.Tensor:
    """A view (n, c, h, w) of an array of images."""
    if array.dtype != np.uint8:
        raise UserError(f"{file}: values of type {array.dtype}; images are unsigned bytes (uint8), 0 to 255")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape[1:]:
        raise UserError(f"{file}: shape {array.shape}; images are (n, h, w), (n, h, w, 1) or (n, h, w, 3)")
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def read_labels(file: Path, n: int) -> np.ndarray:
    """Integer labels (n,) as int64."""
    labels = np.asarray(map_array(file))
    if labels.dtype.kind not in "iu":
        raise UserError(f"{file}: values of type {labels.dtype}; labels are integers")
    if labels.shape != (n,):
        raise UserError(f"{file}: shape {labels.shape}, but there are {n} images")
    return labels.astype(np.int64)
