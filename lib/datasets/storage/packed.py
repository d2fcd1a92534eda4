"""Images that are no files of their own: members of tar shards in WebDataset's layout, rows of a Hugging Face data set.

Free of torch. Members of a shard with one name before the first dot are one sample: `000017.jpg`, `000017.cls`. The shards
are read once in sequence to find them; their images are then fetched by their place in the file.
"""

import functools
import json
import re
import tarfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lib.core import files
from lib.core.errors import UserError
from lib.core.text import readable
from lib.datasets.names import SPLIT_ALIASES
from lib.datasets.storage import image_folders

LABELS = ("cls", "txt")  # a number or the name of a class
NAMES = "classes.txt"  # beside the shards: the name of class k on line k, counted from 0
SPLIT = re.compile(r"(train|training|test|testing|val|valid|validation)(?![a-z])", re.IGNORECASE)
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class TarMember:
    """One image in a shard."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{readable(str(self.shard))}: {self.name}"

    @property
    def identity(self) -> str:
        """What it is recognised by without being read."""
        return f"{self.name} {self.offset} {files.identity(self.shard.stat())}"

    def read(self) -> bytes:
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class PackedImages:
    """The images of every split with the values of their labels and groups; empty where there are none."""

    members: dict[str, list] = field(default_factory=dict)  # split -> what is `read`
    labels: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()  # of labels that are numbers; () = the numbers themselves
    sources: tuple[Path, ...] = ()


def shards(where: str) -> list[Path]:
    """The tar files of a folder, of a pattern such as `x-{0000..0009}.tar` or `x-*.tar`, or the file itself, sorted."""
    path = Path(where)
    if path.is_dir():
        found = sorted(path / name for name in files.below(path, (".tar",)))
    elif match := RANGE.search(where):
        numbers = range(int(match[1]), int(match[2]) + 1)
        found = [Path(f"{where[: match.start()]}{number:0{len(match[1])}d}{where[match.end() :]}") for number in numbers]
    else:
        found = sorted(path.parent.glob(path.name)) if set("*?") & set(path.name) else [path]
    if absent := [file for file in found if not file.is_file()]:
        raise UserError(f"wds={where}: there is no file {absent[0]}")
    if not found:
        raise UserError(f"wds={where}: holds no shard (.tar)")
    return found


def of_shards(where: str) -> PackedImages:
    """What the shards at `where` hold. Raises `UserError` where some samples have a label or a group and others none.

    Splits are folders or beginnings of the shards' names, `train/`, `test-0001.tar`; without them all is "all".
    """
    found = shards(where)
    return _of_shards(where, tuple(found), tuple(files.identity(file.stat()) for file in found))


@functools.lru_cache(maxsize=4)
def _of_shards(where: str, found: tuple[Path, ...], identities: tuple[str, ...]) -> PackedImages:
    parts = [_split_of(where, file) for file in found]
    if "all" in parts:
        parts = ["all"] * len(found)
    members: dict[str, list] = {}
    labels: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for file, split in zip(found, parts, strict=True):
        for member, label, group in _samples(file):
            members.setdefault(split, []).append(member)
            labels.setdefault(split, []).append(label)
            groups.setdefault(split, []).append(group)
    if not members:
        raise UserError(f"wds={where}: its shards hold no image ({', '.join(image_folders.SUFFIXES)})")
    for what, values in (("label", labels), ("group", groups)):
        everything = [value for split in values.values() for value in split]
        if "" in everything and any(everything):
            split = next(split for split in values if "" in values[split])
            raise UserError(f"{members[split][values[split].index('')]}: has no {what}, but other samples have one")
    names = found[0].parent / NAMES
    named = names.is_file()
    class_names = tuple(names.read_text(encoding="utf-8").splitlines()) if named else ()
    return PackedImages(members, labels, groups, class_names, (*found, *([names] if named else [])))


def _split_of(where: str, file: Path) -> str:
    inside = file.relative_to(where).parts[:-1] if Path(where).is_dir() else ()
    for word in (*inside, file.name):
        if match := SPLIT.match(word):
            name = match[1].lower()
            return SPLIT_ALIASES.get(name, name)
    return "all"


def _samples(shard: Path) -> list[tuple[TarMember, str, str]]:
    """Every image of a shard with its label and group, "" where there is none."""
    images: dict[str, TarMember] = {}
    values: dict[str, dict[str, str]] = {}
    others: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                path = Path(member.name)
                if not member.isfile() or any(files.is_litter(part) for part in path.parts):
                    continue
                stem, _, kind = path.name.partition(".")
                key, kind = (path.parent / stem).as_posix(), kind.lower()
                if f".{kind.rpartition('.')[2]}" in image_folders.SUFFIXES:
                    if key in images:
                        raise UserError(f"{shard}: sample {key} has two images, {images[key].name} and {member.name}")
                    images[key] = TarMember(shard, member.name, member.offset_data, member.size)
                elif kind in (*LABELS, "json"):
                    content = tar.extractfile(member)
                    text = content.read().decode("utf-8") if content else ""
                    values.setdefault(key, {}).update(_values(kind, text))
                else:
                    others[key] = f".{kind}" if kind else ""
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        hint = "; a compressed one has to be unpacked to .tar first" if shard.suffix != ".tar" else ""
        raise UserError(f"{shard}: cannot be read as a tar shard ({error}){hint}") from None
    if lost := Counter(suffix for key, suffix in others.items() if key not in images):
        warnings.warn(
            f"{shard}: samples without an image are left out: {image_folders.by_suffix(lost)}; images are "
            f"{', '.join(image_folders.SUFFIXES)}",
            stacklevel=2,
        )
    return [
        (image, next((found[kind] for kind in (*LABELS, "label") if found.get(kind)), ""), found.get("group", ""))
        for key, image in images.items()
        for found in [values.get(key, {})]
    ]


def _values(kind: str, text: str) -> dict[str, str]:
    """What a member beside an image says: its label, or of JSON `label` or `cls`, and `group`."""
    if kind != "json":
        return {kind: text.strip()}
    content = json.loads(text)
    if not isinstance(content, dict):
        return {}
    return {
        name: str(content[word])
        for word, name in (("cls", "label"), ("label", "label"), ("group", "group"))
        if word in content
    }
