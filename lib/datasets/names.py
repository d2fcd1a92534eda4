"""The names of data sets: `name[:split][/variant]`, `folder=PATH[:split]`, and likewise `csv=`, `npy=`, `hf=`
(Hugging Face), `wds=` (tar shards), and `features=BACKBONE:LAYER:DATASET`.

A name may carry four endings, in this order: `-squash`, `-square` or `-shorter` states how large images of a registered set
become squares (TRANSFORMS; intermediate-layers paper, sections 3.2 and 3.3), `-wo<k>` leaves class k out (see
`held_out_class`) and `-wosp<seed>` one fine class, drawn, of every coarse class of CIFAR-100 (nearest-category paper,
section 2), `-k<n>` keeps the first n classes and `-k<n>s<seed>` a draw of n (hyperplane paper, section 4), and `-c`, always
with a variant, asks for corrupted images: `cifar10`, `mnist-wo9:ood`, `cifar100-k10s3`, `waterbirds-squash:val`,
`cifar10-c/fog-3`, `digits-wo3-c:test/contrast-5`. A corruption of one's own is `digits-c/path/to/file.py:function-3`.
Free of torch, so that a command line can be checked at once.
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.core.errors import UsageError
from lib.datasets import corruptions
from lib.datasets.catalogue import KNOWN, TRANSFORMS

FORM = (
    "name[:split][/variant], folder=PATH[:split], csv=PATH[:split], npy=PATH, hf=PATH[:split] or wds=PATH[:split], such as "
    "cifar10:test or cifar10-c/fog-3"
)
LOCATED = ("folder", "csv", "npy", "hf", "wds")  # the kinds of sets that are named by a path
FILES = (".csv", ".npy", ".parquet", ".arrow", ".tar")
KINDS = {".csv": "csv", ".npy": "npy", ".npz": "npy", ".parquet": "hf", ".arrow": "hf", ".tar": "wds"}  # by suffix
TABLES_OF_FOLDERS = ("labels", "metadata")  # a table that is called so is named after its folder
FEATURES_FORM = "features=BACKBONE:LAYER:DATASET, such as features=models/a/model_5.pt:flatten:mnist-wo9"

# The papers' own spellings.
ALIASES = {
    "fashion": "fashionmnist",
    "fashion_mnist": "fashionmnist",
    "fashion-mnist": "fashionmnist",
    "outlier_exposure": "300k",
    "imagenet1k": "imagenet",
    "imagenet_mem": "imagenet",  # kept in memory or not is no matter of the name
    "imgnet100": "imagenet100",
    "tiny_imagenet": "tinyimagenet",
    "tiny-imagenet-200": "tinyimagenet",
}
# Their held-out-class sets have no hyphen: mnistwo9, cifar100coarsewo4.
HELD_OUT_WITHOUT_HYPHEN = re.compile(r"(mnist|fashion|fashionmnist|cifar10|cifar100|cifar100coarse|imgnet100)wo(\d+)")
# A prefix of theirs says how images are loaded. aug10 is the only one they describe: resized to 128, centre crop of 112.
LOADED = re.compile(r"(aug\d+)-(imgnet100.*)")
LOADED_SIZES = {"aug10": 112}
# Sets whose images they enlarge, and the side; for training they turn them by up to 15 degrees and mirror them. Their
# cifar100_large tests at 244 px, which is a slip of theirs: it is 224 here.
LARGE = {"cifar10_large": ("cifar10", 224), "cifar100_large": ("cifar100", 224)}
LARGE_AUGMENTATION = "rotate-flip"
ONE_OF_EACH = re.compile(r"(cifar100)-?wosp(\d+)")
COARSE_CLASSES = 20
NAME = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_.+-]*)(?::([a-z][a-z0-9_]*))?"  # a name and a split
    r"(?:/((?:[^:]+\.py:)?[A-Za-z0-9_]+-\d+))?"  # a corruption, or a function in a file, and a severity
)
SPLIT_ALIASES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class DataName:
    """A parsed name; `base` is a registered one, a folder under the root, or one of LOCATED, which have a path."""

    base: str
    held_out: int | None = None
    corrupted: bool = False
    split: str | None = None
    variant: str = ""
    path: str | None = None
    kept: int | None = None  # the number of classes that are kept
    kept_seed: int | None = None  # of their draw; None: the first ones
    transform: str = ""  # a name in TRANSFORMS; "": the set's own
    drawn_out: int | None = None  # the seed of a draw of one fine class of every coarse class, all held out
    features: tuple[str, str] | None = None  # what stands for the images: their features by a checkpoint, at a layer

    @property
    def unseen(self) -> int:
        """How many classes are held out, and make up the split "ood"."""
        return COARSE_CLASSES if self.drawn_out is not None else int(self.held_out is not None)

    @property
    def images(self) -> "DataName":
        """The name of the images behind stored features; of images their own."""
        return replace(self, features=None)

    @property
    def name(self) -> str:
        """The name without split and variant, as records carry it: no path, but its last part."""
        if self.features is not None:
            return f"{self.images.name}@{self.features[1]}"
        if self.path is not None:
            path = Path(self.path.partition(",")[0] if self.base == "hf" else self.path)
            if self.base == "csv" and path.stem in TABLES_OF_FOLDERS and path.parent.name:
                path = path.parent
            return path.name if self.base == "folder" or path.suffix not in FILES else path.stem
        transform = f"-{self.transform}" if self.transform else ""
        without = f"-wosp{self.drawn_out}" if self.drawn_out is not None else ""
        without += "" if self.held_out is None else f"-wo{self.held_out}"
        kept = "" if self.kept is None else f"-k{self.kept}" + ("" if self.kept_seed is None else f"s{self.kept_seed}")
        return self.base + transform + without + kept + ("-c" if self.corrupted else "")

    @property
    def short_variant(self) -> str:
        """The variant as rows carry it: of a corruption of one's own no path, but `blur.py:my_blur-3`."""
        return self.variant.rpartition("/")[2]

    @property
    def label(self) -> str:
        """The name with split and variant, without a path: `shapes:test` of `csv=a/shapes/labels.csv:test`."""
        return self.name + (f":{self.split}" if self.split else "") + (f"/{self.short_variant}" if self.variant else "")

    def __str__(self) -> str:
        if self.features is not None:
            return f"features={':'.join(self.features)}:{self.images}"
        whole = self.name if self.path is None else f"{self.base}={self.path}"
        return whole + (f":{self.split}" if self.split else "") + (f"/{self.variant}" if self.variant else "")


def parse(text: str) -> DataName:
    """The parts of a data set's name; aliases are replaced by the names they stand for."""
    kind, equals, rest = text.partition("=")
    if equals and kind == "features":
        words = rest.split(":", 2)
        if len(words) < 3 or not all(words) or words[2].startswith("features="):
            raise UsageError(f"{text}: stored features are named {FEATURES_FORM}")
        return replace(parse(words[2]), features=(words[0], words[1]))
    if equals and kind in LOCATED:
        located = re.fullmatch(r"(.*?)(?::([a-z][a-z0-9_]*))?", rest, re.DOTALL)
        if not located or not located[1]:
            raise UsageError(f"{text}: no path after {kind}=; data sets are named {FORM}")
        path, split = located.groups()
        return DataName(kind, split=SPLIT_ALIASES.get(split, split), path=path)
    match = re.fullmatch(
        r"([A-Za-z0-9_][A-Za-z0-9_.+-]*)(?::([a-z][a-z0-9_]*))?(?:/((?:[^:]+\.py:)?[A-Za-z0-9_]+-\d+))?", text
    )
    if not match:
        raise UsageError(f"{text!r} names no data set{_by_path(text)}; the form is {FORM}")
    name, split, variant = match.groups()
    if variant and not name.endswith("-c"):
        raise UsageError(f"{text}: corrupted images are named {name}-c/{variant}")
    base = name.removesuffix("-c") if variant else name
    held_out = drawn_out = kept = kept_seed = None
    if match := re.fullmatch(r"(.+)-k(\d+)(?:s(\d+))?", base):
        base, kept, kept_seed = match[1], int(match[2]), int(match[3]) if match[3] else None
    if base in LARGE:
        base = LARGE[base][0]
    if match := LOADED.fullmatch(base):
        if match[1] not in LOADED_SIZES:
            raise UsageError(f"{text}: of the prefixes of {match[2]} only {', '.join(LOADED_SIZES)} is known")
        base = match[2]
    if match := HELD_OUT_WITHOUT_HYPHEN.fullmatch(base) or re.fullmatch(r"(.+)-wo(\d+)", base):
        base, held_out = match[1], int(match[2])
    elif match := ONE_OF_EACH.fullmatch(base):
        base, drawn_out = match[1], int(match[2])
    base, transform = _without_transform(ALIASES.get(base, base))
    return DataName(
        base,
        held_out,
        bool(variant),
        SPLIT_ALIASES.get(split, split),
        variant or "",
        kept=kept,
        kept_seed=kept_seed,
        drawn_out=drawn_out,
        transform=transform,
    )


def _by_path(text: str) -> str:
    """Of data that cannot be called by a name: why, and how their path names them; "" for what may be meant otherwise."""
    place, _, split = text.partition(":")
    split = f":{split}" if split else ""
    if re.search(r"\s", place):
        why = "names take no spaces"
    elif re.search(r"[^A-Za-z0-9_.+=/-]", place):
        why = "names take letters from a to z, digits and _ . + - only"
    elif "/" in place and os.path.exists(place):
        why = "a path is no name"
    else:
        return ""
    path = place if "/" in place else f"data/{place}"
    kind = KINDS.get(Path(path).suffix.lower())
    table = "" if kind else f", or csv={shlex.quote(f'{path}/labels.csv{split}')} where that table is"
    return f": {why}; say {kind or 'folder'}={shlex.quote(path + split)}{table}"


def held_out_class(number: int, classes: Sequence[str]) -> int | None:
    """The position of the class that `-wo<number>` leaves out, None if there is none.

    Where the names of all classes are whole numbers it is the one of this name, else the one at this position, from 0.
    """
    if not are_numbers(classes):
        return number if number < len(classes) else None
    called = [position for position, name in enumerate(classes) if int(name) == number]
    exactly = [position for position in called if classes[position] == str(number)]
    return next(iter(exactly or called), None)


def are_numbers(values: Sequence[str]) -> bool:
    """Whether all of them are whole numbers, as names of classes then are by their value."""
    return all(re.fullmatch(r"-?\d{1,18}", value) for value in values)


def loaded_size(text: str) -> int | None:
    """The side to which images are decoded or enlarged, where the name says it: `aug10-...`, `cifar10_large`."""
    if enlarged(text):
        return LARGE[_base(text)][1]
    match = LOADED.fullmatch(text)
    return LOADED_SIZES.get(match[1]) if match else None


def enlarged(text: str) -> bool:
    """Whether the name is one of `LARGE`, of whatever split."""
    return _base(text) in LARGE


def _base(text: str) -> str:
    return text.partition(":")[0]


def undivided(text: str) -> str:
    """The name without its split, for asking for another one: `csv=a.csv:test` is `csv=a.csv`, `digits:test` is `digits`."""
    data = parse(text)
    if data.features is not None:
        return text
    return text.partition(":")[0] if data.path is None else str(replace(data, split=None))


def subset(text: str, classes: int, seed: int | None = None) -> str:
    """The name of so many classes of the data set `text`: the first ones, or a draw."""
    data = parse(text)
    if data.path is not None:
        raise UsageError(f"{text}: class subsets are of data sets with a name, such as a folder under data/")
    if data.kept is not None:
        raise UsageError(f"{text}: it is a class subset already")
    return str(replace(data, kept=classes, kept_seed=seed))


def _without_transform(base: str) -> tuple[str, str]:
    """Only the names of registered sets have such an ending: a folder may be called `my-square`."""
    rest, _, last = base.rpartition("-")
    rest = ALIASES.get(rest, rest)
    return (rest, last) if last in TRANSFORMS and rest in KNOWN else (base, "")


def expand(text: str) -> tuple[str, ...]:
    """The names that one word stands for: `digits-c` and `digits-c/3` are all 19 corruptions at severity 5 and 3."""
    match = re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9_.+-]*-c(?::[a-z][a-z0-9_]*)?)(?:/(\d))?", text)
    if not match:
        return (text,)
    severity = int(match[2] or corruptions.SEVERITIES[-1])
    if severity not in corruptions.SEVERITIES:
        raise UsageError(f"{text}: severities are {corruptions.SEVERITIES[0]} to {corruptions.SEVERITIES[-1]}")
    return tuple(f"{match[1]}/{kind}-{severity}" for kind in corruptions.CORRUPTIONS)


def corruption(data: DataName) -> tuple[str, int]:
    """The corruption and severity (1 to 5) that the variant names."""
    kind, _, severity = data.variant.rpartition("-")
    corruptions.check(kind, int(severity))
    return kind, int(severity)
