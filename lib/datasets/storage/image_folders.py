"""Folders of images in the ImageFolder layout: which splits, classes and files they hold. Free of torch.

`<folder>/train/<class>/*.jpg` beside `test` or `val` folders, or `<folder>/<class>/*.jpg`, or images without classes.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from lib.core import files
from lib.core.errors import UserError
from lib.core.registry import misspelt
from lib.core.text import as_bytes

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPELLINGS = {
    "train": ("train", "training", "training_data"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "validation_data"),
}


@dataclass(frozen=True)
class Listing:
    """The images of one split: paths relative to `folder` in the order of the split, and a class number for each."""

    folder: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]  # -1 where there are no classes
    classes: tuple[str, ...]


def splits(folder: Path) -> dict[str, Path]:
    """The split folders that are there; empty for a folder that is not divided."""
    require_folder(folder)
    folders = {}
    for split, spellings in SPELLINGS.items():
        for spelling in spellings:
            if (folder / spelling).is_dir():
                folders.setdefault(split, folder / spelling)
    return folders


def listing(folder: Path, split: str, only: tuple[str, ...] = ()) -> Listing:
    """The files of a split ("all" where the folder is not divided); its classes are those of the training split.

    With `only`, the files of these classes, in this order.
    """
    divided = splits(folder)
    inside = divided[split] if divided else folder
    classes = class_folders(inside)
    if only:
        if lacking := sorted(set(only) - set(classes)):
            raise UserError(f"{inside}: lacks the class folders {', '.join(lacking[:3])}")
        classes = only
    elif "train" in divided and split != "train":
        _require_equal(class_folders(divided["train"]), classes, divided["train"], inside)
    if not classes:
        images = tuple(files_below(inside))
        if not images:
            raise UserError(f"{inside}: holds neither class folders nor images")
        return Listing(inside, images, (-1,) * len(images), ())
    of_classes, labels = [], []
    for label, name in enumerate(classes):
        below = [f"{name}/{file}" for file in files_below(inside / name)]
        if not below:
            raise UserError(f"{inside / name}: holds no image ({', '.join(SUFFIXES)}); remove the folder or fill it")
        of_classes += below
        labels += [label] * len(below)
    return Listing(inside, tuple(of_classes), tuple(labels), classes)


def class_folders(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders inside."""
    with os.scandir(folder) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))


def files_below(folder: Path) -> list[str]:
    """Every image at any depth, sorted, relative to `folder`, with forward slashes."""
    return sorted(files.below(folder, SUFFIXES))


def manifest(listing: Listing) -> str:
    """A digest of the names of the files and what they are recognised by: what a cache of their contents is keyed by."""
    digest = hashlib.sha256(as_bytes(repr(listing.classes)))
    for file in listing.files:
        digest.update(as_bytes(f"{file}\0{files.identity(os.stat(listing.folder / file))}\n"))
    return digest.hexdigest()


def require_folder(folder: Path) -> None:
    """An error unless the folder is there."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"there is no such folder{misspelt(folder)}"
        raise UserError(f"{folder}: {what}; an image folder holds train/<class>/*.jpg and test/<class>/*.jpg")


def _require_equal(expected: tuple[str, ...], actual: tuple[str, ...], first: Path, second: Path) -> None:
    if expected == actual:
        return
    lacking, extra = sorted(set(expected) - set(actual)), sorted(set(actual) - set(expected))
    parts = [f"lacks {', '.join(lacking[:3])}"] if lacking else []
    parts += [f"adds {', '.join(extra[:3])}"] if extra else []
    raise UserError(f"{second}: its class folders differ from those of {first}: it {' and '.join(parts)}")
