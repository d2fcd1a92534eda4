"""Folders of images in the ImageFolder layout: which splits, classes and files they hold. Free of torch.

`<folder>/train/<class>/*.jpg` beside `test` or `val` folders, or `<folder>/<class>/*.jpg`, or images without classes.
"""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.core import files
from lib.core.errors import UserError
from lib.core.registry import misspelt
from lib.core.text import as_bytes, some

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SUFFIXES = (*JPEG_SUFFIXES, ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")  # of a .gif the first frame
TEXTS = (".txt", ".md", ".rst", ".html", ".pdf", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml")  # lie beside images
SHOWN = 10  # classes in a message, before "..."
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
    members: tuple = ()  # images that are no files of their own: what is `read`, has an `identity` and a name as text

    def image(self, row: int) -> Any:
        """What the image is opened from."""
        return self.members[row] if self.members else self.folder / self.files[row]

    def at(self, positions: Iterable[int]) -> "Listing":
        """The images at these positions."""
        chosen = list(positions)
        files, labels, members = (tuple(v[row] for row in chosen if v) for v in (self.files, self.labels, self.members))
        return replace(self, files=files, labels=labels, members=members)


def splits(folder: Path) -> dict[str, Path]:
    """The split folders that are there; empty for a folder that is not divided.

    In whatever case, `Train` or `TRAIN`; a single one beside other folders must be in small letters, else it is a class.
    """
    require_folder(folder)
    there, found = class_folders(folder), {}
    for split, spellings in SPELLINGS.items():
        for spelling in spellings:
            if alike := [name for name in there if name.lower() == spelling]:
                found.setdefault(split, folder / (spelling if spelling in alike else alike[0]))
    if len(found) == 1 < len(there) and not any(path.name.islower() for path in found.values()):
        return {}
    return found


def listing(folder: Path, split: str, only: tuple[str, ...] = ()) -> Listing:
    """The files of a split ("all" where the folder is not divided); its classes are those of the training split.

    Of these another split may lack some, which a warning names; without a training split the first one stands for it. With
    `only`, the files of these classes, in this order.
    """
    divided = splits(folder)
    inside = divided[split] if divided else folder
    first = next(iter(divided.values()), folder)
    there = class_folders(inside)
    if only and (lacking := sorted(set(only) - set(there))):
        raise UserError(f"{inside}: lacks the class folders {', '.join(lacking[:3])}")
    classes = only or class_folders(first)
    if not only:
        _require_known(there, classes, inside, first)
    if not classes:
        images, others = _images_and_others(inside)
        if not images:
            raise UserError(f"{inside}: holds neither class folders nor images{_but(others)}")
        _warn_of(others, inside)
        return Listing(inside, tuple(images), (-1,) * len(images), ())
    of_classes, labels, passed_over, absent = [], [], Counter(), []
    for label, name in enumerate(classes):
        below, others = _images_and_others(inside / name) if name in there else ([], Counter())
        if not below and (only or inside == first):
            raise UserError(
                f"{inside / name}: holds no image ({', '.join(SUFFIXES)}){_but(others)}; remove the folder or fill it"
            )
        of_classes += [f"{name}/{file}" for file in below]
        labels += [label] * len(below)
        passed_over += others
        absent += [] if below else [name]
    _warn_of(passed_over, inside)
    if not labels:
        raise UserError(f"{inside}: holds no image of the classes of {first}{_but(passed_over)}")
    if absent:
        warnings.warn(
            f"{inside}: has no image of {len(absent)} of the {len(classes)} classes of {first}, by which its labels are "
            f"numbered: {some(absent, SHOWN)}",
            stacklevel=2,
        )
    return Listing(inside, tuple(of_classes), tuple(labels), classes)


def class_folders(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders inside, without litter."""
    with os.scandir(folder) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not files.is_litter(entry.name)))


def files_below(folder: Path) -> list[str]:
    """Every image at any depth, sorted, relative to `folder`, with forward slashes."""
    return sorted(files.below(folder, SUFFIXES))


def by_suffix(counts: Counter[str]) -> str:
    """Files of no image by their suffix, in words: `300 .heic, 4 without a suffix`."""
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in counts.most_common())


def _images_and_others(folder: Path) -> tuple[list[str], Counter[str]]:
    """The `files_below`, and the suffixes of the files that are neither images nor texts about them."""
    images, others = [], Counter()
    for file in files.below(folder):
        suffix = Path(file).suffix.lower()
        if suffix in SUFFIXES:
            images.append(file)
        elif suffix not in TEXTS and Path(file).stem.lower() not in ("readme", "license"):
            others[suffix] += 1
    return sorted(images), others


def _but(others: Counter[str]) -> str:
    return f", but {by_suffix(others)}" if others else ""


def _warn_of(others: Counter[str], folder: Path) -> None:
    if others:
        warnings.warn(
            f"{folder}: files that are no images by their suffix are left out: {by_suffix(others)}; images are "
            f"{', '.join(SUFFIXES)}: convert or rename those that are meant",
            stacklevel=3,
        )


def manifest(listing: Listing, *how: object) -> str:
    """A digest of the names of the files and what they are recognised by, and of `how` they are read: a cache's key."""
    digest = hashlib.sha256(repr((listing.classes, *how)).encode())
    for member in listing.members:
        digest.update(as_bytes(f"{member}\0{member.identity}\n"))
    for file in listing.files:
        digest.update(as_bytes(f"{file}\0{files.identity(os.stat(listing.folder / file))}\n"))
    return digest.hexdigest()


def require_folder(folder: Path) -> None:
    """An error unless the folder is there."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"there is no such folder{misspelt(folder)}"
        raise UserError(f"{folder}: {what}; an image folder holds train/<class>/*.jpg and test/<class>/*.jpg")


def _require_known(there: tuple[str, ...], known: tuple[str, ...], inside: Path, first: Path) -> None:
    """An error unless the class folders inside a split are among those of the first one, or neither has any."""
    if extra := sorted(set(there) - set(known)):
        raise UserError(
            f"{inside}: {first} lacks its class folders {some(extra, SHOWN)}: put images of these classes there too, or "
            f"take them out; folder={inside} reads the images as a set of their own"
        )
    if known and not there:
        raise UserError(f"{inside}: holds no class folders, but {first} does, such as {known[0]}")
