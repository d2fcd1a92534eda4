"""Images in `.npy` files, memory-mapped: a user's own array (`npy=PATH`), and the 300,000 random images.

The latter are the auxiliary outliers of the stitching paper, section 6.
"""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lib.core import files
from lib.core.errors import UserError
from lib.core.text import some
from lib.datasets import Options, catalogue
from lib.datasets.split import Split
from lib.datasets.storage.deep_images import warn_if_dark

MOST_CLASSES = 100_000
CHUNK = 1000  # images that are converted at once
IMPORT = "python exec_data.py import npy={file} NEW.npy"


def npy(root: Path, split: str, options: Options) -> Split:
    """The array at `options.path`, uint8 (n, h, w, c) or (n, h, w), with c = 1 or 3.

    Labels are the integers (n,) in `<stem>_labels.npy` beside it, from 0, or -1 for unlabelled; without that file every
    image is unlabelled. Classes are called by their numbers. Groups are in `<stem>_groups.npy`, numbers from 0 or names.
    """
    path = options.stated_path
    return described(path, split, as_images(map_array(path), path))


def described(path: Path, split: str, images: torch.Tensor) -> Split:
    """The images of an array at `path`, with the labels and groups that lie beside it."""
    found = Split(path.stem, split, images, torch.full((len(images),), -1))
    labels, groups = (path.with_name(f"{path.stem}_{what}.npy") for what in ("labels", "groups"))
    if labels.is_file():
        numbers = read_labels(labels, len(images))
        if len(numbers) and not -1 <= numbers.min() <= numbers.max() < MOST_CLASSES:
            wrong = numbers.min() if numbers.min() < -1 else numbers.max()
            raise UserError(f"{labels}: label {wrong}; labels are 0, 1, ... or -1 for unlabelled")
        if 0 not in numbers and 1 in numbers:
            warnings.warn(
                f"{labels}: labels begin at 1, so that class 0 is empty and counts as a class; if that is not meant, save "
                "the labels less one",
                stacklevel=2,
            )
        classes = tuple(str(label) for label in range(int(numbers.max(initial=-1)) + 1))
        found = replace(found, labels=torch.from_numpy(numbers), classes=classes)
    if groups.is_file():
        numbers, group_names = read_groups(groups, len(images))
        found = replace(found, groups=torch.from_numpy(numbers), group_names=group_names)
    return found


def random_images(root: Path, split: str, options: Options) -> Split:
    """300,000 natural images, 3 x 32 x 32, unlabelled: `300K_random_images.npy` under the root or under `oe`."""
    (file,) = catalogue.require("300k", catalogue.KNOWN["300k"], root)
    images = as_images(map_array(file), file)
    return Split("300k", split, images, torch.full((len(images),), -1), augmentation="crop-flip")


def map_array(file: Path) -> np.ndarray:
    """The memory-mapped array; the mapping is private, so that nothing written to it reaches the file."""
    try:
        loaded = np.load(file, mmap_mode="c", allow_pickle=False)
    except files.NO_ARRAYS as error:
        raise UserError(f"{file}: cannot be read as an array ({error}); is it whole?") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        held = some(loaded.files, 8) or "nothing"
    raise UserError(
        f"{file}: an archive that holds {held}, not one array: save the one with the images as {file.stem}.npy and, if "
        f"there are any, labels as {file.stem}_labels.npy and groups as {file.stem}_groups.npy, with np.save"
    )


def as_images(array: np.ndarray, file: Path) -> torch.Tensor:
    """A view (n, c, h, w) of an array of images. Raises `UserError` for what has to be converted first, with the command."""
    first = _channels_first(array.shape)
    last = not first and array.ndim in (3, 4) and 0 not in array.shape[1:] and array.shape[3:] in ((), (1,), (3,))
    way_out = f"; {IMPORT.format(file=file)} converts them" if first or last else ""
    if array.dtype != np.uint8:
        if way_out:
            scaling(array, file)
        raise UserError(f"{file}: values of type {array.dtype}; images are unsigned bytes (uint8), 0 to 255{way_out}")
    if not last:
        form = f"{array.shape}, channels first" if first else array.shape
        raise UserError(f"{file}: shape {form}; images are (n, h, w), (n, h, w, 1) or (n, h, w, 3){way_out}")
    return torch.from_numpy(array if array.ndim == 4 else array[..., None]).permute(0, 3, 1, 2)


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and 0 not in shape[1:] and shape[3] not in (1, 3) and shape[1] in (1, 3)


def converted(array: np.ndarray, file: Path) -> tuple[torch.Tensor, str]:
    """Images uint8 (n, c, h, w) of an array of another form, and in words what their values were taken as.

    Floats in [0, 1], floats that are whole numbers from 0 to 255, 16 bits, truth values, channels first. Raises a
    `UserError` for values or shapes that do not say what they are.
    """
    scale, words = scaling(array, file)
    if array.dtype == np.uint16 and array.size:
        warn_if_dark(str(file), int(array.max()))
    levels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), CHUNK):
        levels[start : start + CHUNK] = np.rint(array[start : start + CHUNK].astype(np.float64) * scale)
    if _channels_first(levels.shape):
        levels = levels.transpose(0, 2, 3, 1)
    return as_images(levels, file), words


def scaling(array: np.ndarray, file: Path) -> tuple[float, str]:
    """What the values of images are multiplied by to be levels from 0 to 255, and what they were taken as, in words.

    Raises a `UserError` for values that do not say what they are.
    """
    low, high = (float(array.min()), float(array.max())) if array.size and array.dtype.kind in "fiub" else (0.0, 0.0)
    kind = array.dtype.kind
    if array.dtype == bool:
        return 255.0, "truth values"
    if kind == "f" and 0 <= low <= high <= 1:
        return 255.0, "floats in [0, 1]"
    if kind == "f" and 0 <= low <= high <= 255 and _whole(array):
        return 1.0, "floats that are whole numbers from 0 to 255, as they are"
    if array.dtype == np.uint16:
        return 1 / 257, "16 bits, 0 to 65,535"
    if kind in "iu" and 0 <= low <= high <= 255:
        return 1.0, "integers from 0 to 255, as they are"
    values = f" from {low:g} to {high:g}" if kind in "fiub" else ""
    values += ", not all of them whole numbers" if kind == "f" and 0 <= low <= high <= 255 else ""
    raise UserError(
        f"{file}: values of type {array.dtype}{values}; what can be converted are floats in [0, 1], whole numbers from 0 to "
        "255, 16 bits without sign, truth values"
    )


def _whole(array: np.ndarray) -> bool:
    parts = (array[start : start + CHUNK] for start in range(0, len(array), CHUNK))
    return all(bool((part == np.rint(part)).all()) for part in parts)


def read_groups(file: Path, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Groups (n,) as int64, and their names: the sorted texts of the file, or 0, 1, ... where it holds numbers."""
    groups = np.asarray(map_array(file))
    if groups.shape != (n,):
        raise UserError(f"{file}: shape {groups.shape}, but there are {n} images")
    if groups.dtype.kind == "U":
        texts, numbers = np.unique(groups, return_inverse=True)
        return numbers.astype(np.int64), tuple(texts.tolist())
    if groups.dtype.kind not in "iu" or (n and not 0 <= groups.min() <= groups.max() < MOST_CLASSES):
        raise UserError(f"{file}: groups are the integers 0, 1, ... or texts")
    return groups.astype(np.int64), tuple(str(group) for group in range(int(groups.max(initial=-1)) + 1))


def read_labels(file: Path, n: int) -> np.ndarray:
    """Integer labels (n,) as int64."""
    labels = np.asarray(map_array(file))
    if labels.dtype.kind not in "iu":
        raise UserError(f"{file}: values of type {labels.dtype}; labels are integers")
    if labels.shape != (n,):
        raise UserError(f"{file}: shape {labels.shape}, but there are {n} images")
    return labels.astype(np.int64)
