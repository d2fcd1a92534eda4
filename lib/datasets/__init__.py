"""Data sets by name: `load("cifar10", "data", "train")` is a `Split`.

Importing this package, `check` and `sources` need no torch, so that a command line is checked before it is loaded.
A data set is a function (root, split, options) -> Split, an entry in DATASETS and one in `entries.KNOWN`; a folder of
images under the data root needs neither.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.core.errors import UsageError, UserError
from lib.core.registry import near, resolve
from lib.core.text import some
from lib.datasets import catalogue, corruptions, names
from lib.datasets.names import DataName, parse
from lib.datasets.storage import image_folders, image_tables

if TYPE_CHECKING:
    from lib.datasets.split import Split

DATASETS = {
    "digits": "lib.datasets.sets.builtin:digits",
    "digits-bg": "lib.datasets.sets.digits_background:digits_background",
    "digits-colour": "lib.datasets.sets.colored_mnist:digits_colour",
    "patches": "lib.datasets.sets.builtin:patches",
    "mnist": "lib.datasets.sets.mnist:mnist",
    "fashionmnist": "lib.datasets.sets.mnist:fashionmnist",
    "kmnist": "lib.datasets.sets.mnist:kmnist",
    "cmnist": "lib.datasets.sets.colored_mnist:cmnist",
    "cmnist-domainbed": "lib.datasets.sets.colored_mnist:cmnist_domainbed",
    "cifar10": "lib.datasets.sets.cifar:cifar10",
    "cifar100": "lib.datasets.sets.cifar:cifar100",
    "cifar100coarse": "lib.datasets.sets.cifar:cifar100coarse",
    "uniform": "lib.datasets.sets.uniform:uniform",
    "uniform-grey": "lib.datasets.sets.uniform:uniform_grey",
    "svhn": "lib.datasets.sets.svhn:svhn",
    "cifar5m": "lib.datasets.sets.cifar5m:cifar5m",
    "300k": "lib.datasets.storage.arrays:random_images",
    "waterbirds": "lib.datasets.sets.group_shift:waterbirds",
    "celeba": "lib.datasets.sets.group_shift:celeba",
    "multiceleba": "lib.datasets.sets.group_shift:multiceleba",
    "imagenet": "lib.datasets.sets.imagenet:imagenet",
    "imagenet16": "lib.datasets.sets.imagenet16:imagenet16",
    "imagenet100": "lib.datasets.sets.imagenet:imagenet100",
    "imagenet200": "lib.datasets.sets.imagenet:imagenet200",
    "imagenet200a": "lib.datasets.sets.imagenet:imagenet200a",
    "imagenet-a": "lib.datasets.sets.imagenet:imagenet_a",
    "imagenet-r": "lib.datasets.sets.imagenet:imagenet_r",
    "cue-conflict": "lib.datasets.sets.imagenet16:cue_conflict",
    "silhouette": "lib.datasets.sets.imagenet16:silhouette",
    "tinyimagenet": "lib.datasets.sets.imagenet:tinyimagenet",
    "textures": "lib.datasets.sets.imagenet:textures",
    "places365": "lib.datasets.sets.imagenet:places365",
    "inaturalist": "lib.datasets.sets.imagenet:inaturalist",
    "ssb_hard": "lib.datasets.sets.imagenet:ssb_hard",
    "ninco": "lib.datasets.sets.imagenet:ninco",
    "openimage_o": "lib.datasets.sets.imagenet:openimage_o",
}

# What finds the images of sets that are no files of their own, and their labels.
PACKED = {"hf": "lib.datasets.storage.hugging_face:images", "wds": "lib.datasets.storage.packed:of_shards"}

SHOWN = 20  # classes in an error, before "..."


@dataclass(frozen=True)
class Options:
    """Options of a loading function, besides root and split."""

    cache: Path  # where decoded and generated images are kept
    image_size: int = 224  # of images that are too large, or too unequal, to be kept decoded
    path: Path | None = None  # of a set that is named by one, of a folder under the root or the table in it
    transform: str = ""  # a name in TRANSFORMS; "": the set's own
    pending: bool = False  # whether images are decoded and corrupted only once it is known which are wanted
    upright: bool = False  # whether images are turned as their EXIF data say; published sets are used as they are stored
    decoder: str = "pil"  # of files that are decoded as they are needed, a name in DECODERS

    @property
    def stated_path(self) -> Path:
        """`path`, of a set that has one. Raises `ValueError` for any other."""
        if self.path is None:
            raise ValueError("only sets that are named by one, and folders under the root, have a path")
        return self.path


def known(root: str | Path = "data") -> dict[str, tuple[str, str]]:
    """Every registered name -> (what it is, how to get it: a command, a sentence, "built in" or "present")."""
    root = Path(root)
    described = {}
    for name, entry in catalogue.KNOWN.items():
        present = entry.files and not catalogue.missing(root, entry)
        described[name] = (entry.about, "present" if present else catalogue.way_out(name, entry, root))
    return described


def check(text: str, root: str | Path, split: str | None = None) -> None:
    """An error unless `text` names a data set that is there, with that split and variant. Reads no image."""
    _locate(parse(text), Path(root), split)


@dataclass(frozen=True)
class Shape:
    """The number of classes, and the channels and side of the images, of a registered data set."""

    classes: int
    channels: int
    side: int


def shape(text: str) -> Shape | None:
    """The shape of a registered data set by its name, without reading files; None where only its files tell."""
    data = parse(text)
    entry = catalogue.KNOWN.get(data.base)
    if entry is None or entry.classes is None or data.base not in DATASETS or data.features is not None:
        return None
    classes = entry.classes - data.unseen
    if data.kept is not None and data.kept > classes:
        return None  # reading it says so
    channels, side = catalogue.SHAPES.get(data.base, catalogue.DECODED)
    return Shape(data.kept or classes, channels, names.loaded_size(text) or side)


def splits(text: str, root: str | Path) -> tuple[str, ...]:
    """The split that `text` states, else every split of the set, "ood" last; ("all",) for a set that is not divided.

    Stored features are divided as their images are.
    """
    data = parse(text).images
    source = _locate(data, Path(root), None, anything=True)
    return (source.split,) if data.split else source.splits


def sources(text: str, root: str | Path) -> list[Path]:
    """The files or folders that the data set is read from; none for a built-in set."""
    return _locate(parse(text), Path(root), None, anything=True).files


def load(
    text: str,
    root: str | Path,
    split: str | None = None,
    *,
    image_size: int | None = None,
    cache_dir: str | Path | None = None,
    most: int | None = None,
    decoder: str = "pil",
) -> "Split":
    """The split that `text` names, else `split`, else "test".

    A set that is not divided answers with all of itself, named "all", and a warning. A set with "train" and "val" only
    answers "test" with "val". `image_size` (default: 112 for aug10-, else 224) is the size to which large images are
    decoded. Decoded and generated images are kept under `cache_folder(cache_dir)`.
    `most` images at most, evenly spread over the split; others are not decoded. `decoder` (a name in `catalogue.DECODERS`)
    decodes those that are decoded as they are needed.
    """
    data, root = parse(text), Path(root)
    source = _locate(data, root, split)
    if source.split == "all" and (data.split or split) not in (None, "all"):
        warnings.warn(
            f"{data.name} is not divided into splits: all of it is used as {data.split or split}, so that fitting "
            "and testing on it share images",
            stacklevel=2,
        )
    size = image_size or names.loaded_size(text) or 224
    upright = data.base not in DATASETS
    options = Options(cache_folder(cache_dir), size, source.path, data.transform, upright=upright, decoder=decoder)
    return resolve("lib.datasets.variants:load")(data, source.target, root, source.split, source.parts, options, most)


def cache_folder(given: str | Path | None) -> Path:
    """The folder of decoded and generated images: the one that is given, else $CACHE_DIR, else .cache.

    The scripts always give theirs, --cache-dir; the variable is for whoever calls `load` without one.
    """
    return Path(given or os.environ.get("CACHE_DIR") or ".cache")


@dataclass(frozen=True)
class _Source:
    """What a data set is read from, and by which function."""

    target: str  # the loading function
    split: str  # as the data set calls it
    parts: tuple[str, ...]  # the splits to read: this one, or for "ood" those that the unseen class is taken from
    files: list[Path]
    splits: tuple[str, ...] = ("all",)  # every split there is
    path: Path | None = None


def _locate(data: DataName, root: Path, split: str | None, anything: bool = False) -> _Source:
    """Where the data set is and what loads it; `anything`: whichever splits there are, unless the name states one."""
    if data.features is not None:
        raise UsageError(f"{data}: stored features take the place of images in exec_train.py, exec_eval.py and exec_ncg.py")
    wanted = data.split or split or "test"
    if data.base == "npy" and data.path is not None:
        return _locate_array(data, Path(data.path), _choose(data, (), wanted))
    if data.base in DATASETS:
        entry, path, target = catalogue.KNOWN[data.base], None, DATASETS[data.base]
        splits, classes, class_names, files = entry.splits, entry.classes, None, None
    else:
        path = root / data.base if data.path is None else Path(data.path)
        if data.path is None and (not path.is_dir() or data.base.lower() in DATASETS):  # "MNIST", torchvision's
            raise _unknown(data, root)
        path, target, splits, class_names, files = _own(data, path)
        classes = len(class_names)
    if data.held_out is not None and classes is not None:
        _require_class(data, classes, class_names)
    there = None if classes is None else classes - data.unseen
    if data.kept is not None and (data.kept < 1 or (there is not None and data.kept > there)):
        raise UserError(f"{data.name}: {data.kept} classes cannot be kept" + (f"; there are {there}" if there else ""))
    if anything and not data.split and splits and wanted not in splits and not (wanted == "test" and "val" in splits):
        wanted = splits[0]
    chosen = _choose(data, splits, wanted)
    parts = (chosen,) if chosen != "ood" else tuple(_choose(data, splits, part) for part in splits[:2]) or ("all",)
    if data.corrupted:
        official = catalogue.official_corruption(data.base, *names.corruption(data), chosen, root)
        # the coarse labels are in no official file, and belong to the clean images
        if official and data.base != "cifar100coarse":
            files = official
        elif official:
            files = [*official, *catalogue.require(data.base, catalogue.KNOWN[data.base], root)]
    if files is None:
        files = catalogue.require(data.base, catalogue.KNOWN[data.base], root)
    if data.corrupted and (own := corruptions.own_file(names.corruption(data)[0])):
        if not own.is_file():
            raise UserError(f"{data}: there is no file {own}")
        files = [*files, own]
    every = (splits or ("all",)) + (("ood",) if data.unseen else ())
    return _Source(target, chosen, parts, files, every, path)


def _own(data: DataName, path: Path) -> tuple[Path, str, tuple[str, ...], tuple[str, ...], list[Path]]:
    """A user's own table or folder at `path`: what it is read from, by which function, its splits and classes, its files."""
    if data.base in ("hf", "wds"):
        packed = resolve(PACKED[data.base])(str(path))
        splits = tuple(packed.members) if set(packed.members) != {"all"} else ()
        values = dict.fromkeys(label for labels in packed.labels.values() for label in labels if label not in ("", "-1"))
        classes = tuple(dict.fromkeys(packed.class_names)) or tuple(values)
        return path, f"lib.datasets.storage.folders:{data.base}", splits, classes, list(packed.sources)
    in_folder = image_tables.of_folder(path) if data.base != "csv" and path.is_dir() else None
    if data.base == "folder" and in_folder:
        raise UserError(f"{data}: its labels are in the table {in_folder}: say csv={in_folder}")
    if data.base == "csv" and path.is_dir():
        path /= image_tables.FILE
    if data.base == "csv" or in_folder:
        table = image_tables.read(in_folder or path)
        return table.file, "lib.datasets.storage.folders:table", table.split_names, table.classes, table.sources
    folders = image_folders.splits(path)
    classes = image_folders.class_folders(next(iter(folders.values()), path))
    if len(classes) == 1 and not folders and (tables := sorted(path.glob("*.csv"))):
        raise UserError(
            f"{data}: one folder {classes[0]} beside {tables[0].name} is no set of classes; a table with the columns path "
            f"and label (and, if wanted, group, split) is read by csv={tables[0]}"
        )
    return path, "lib.datasets.storage.folders:folder", tuple(folders), classes, [path]


def _require_class(data: DataName, count: int, class_names: tuple[str, ...] | None) -> None:
    """An error unless the class that is held out is one of `count`; their names, None where only files tell them."""
    called = tuple(map(str, range(count))) if class_names is None else class_names
    if data.held_out is None or names.held_out_class(data.held_out, called) is not None:
        return
    if class_names is None or not count:
        its = f"its classes are 0 to {count - 1}" if count else "it has no classes"
    elif names.are_numbers(called):
        its = f"its classes are {some(called, SHOWN)}"
    else:
        its = f"its classes are counted from 0 in this order: {some(called, SHOWN)}"
    raise UserError(f"{data.name}: {data.base} has no class {data.held_out}; {its}")


def _choose(data: DataName, splits: tuple[str, ...], wanted: str) -> str:
    if wanted == "ood":
        if data.unseen:
            return "ood"
        raise UsageError(f"{data}: only sets with a held-out class have a split ood, such as {data.base}-wo0:ood")
    if not splits:
        return "all"
    if wanted == "test" and "test" not in splits and "val" in splits:
        return "val"
    if wanted not in splits:
        ood = ", ood" if data.unseen else ""
        raise UsageError(f"{data}: no split {wanted}; {data.name} has {', '.join(splits)}{ood}")
    return wanted


def _locate_array(data: DataName, path: Path, split: str) -> _Source:
    if not path.is_file():
        raise UserError(f"{data}: there is no file {path}")
    beside = (path.with_name(f"{path.stem}_{what}.npy") for what in ("labels", "groups"))
    files = [path, *(file for file in beside if file.is_file())]
    return _Source("lib.datasets.storage.arrays:npy", split, (split,), files, path=path)


def _unknown(data: DataName, root: Path) -> UserError:
    if data.base.endswith("-c") and not data.variant:
        return UsageError(
            f"{data}: which corruption? say for instance {data.base}/fog-3 (severities 1 to 5); known are "
            f"{', '.join(corruptions.CORRUPTIONS)}, and your own path/to/file.py:function"
        )
    folders = image_folders.class_folders(root) if root.is_dir() else ()
    candidates = [*DATASETS, *names.ALIASES, *(name for name in folders if name.lower() not in DATASETS)]
    no_folder = "" if data.base in folders else f", and no folder {root / data.base}"
    return UsageError(f"{data}: no such data set{no_folder}; {_nearest(data.base, candidates)}")


def _nearest(name: str, candidates: list[str]) -> str:
    """The near names and then, or only, all registered ones."""
    hint = near(name, candidates)
    every = f"known are {', '.join(DATASETS)}, folder=PATH and npy=PATH"
    return f"{hint} {every}" if hint.startswith("did you mean") else every
