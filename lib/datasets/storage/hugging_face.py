"""Data sets of Hugging Face's `datasets`, an optional package: on the hub, saved to disk, or as parquet and arrow files.

Named `hf=WHERE[,image=COLUMN][,label=COLUMN][,group=COLUMN][,config=NAME][,revision=COMMIT][:split]`. Free of torch; the
package is imported only where such a name is used.
"""

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.core import files
from lib.core.errors import UsageError, UserError
from lib.core.registry import near
from lib.datasets.names import SPLIT_ALIASES
from lib.datasets.storage.packed import PackedImages

KEYS = ("image", "label", "group", "config", "revision")
LABELS = ("label", "labels", "class", "target", "fine_label")  # columns that are looked for where none is given
SUFFIXES = (".parquet", ".arrow")


@dataclass(frozen=True)
class TableRow:
    """The image of one row; every process opens the table for itself."""

    where: str
    split: str
    row: int
    column: str
    fingerprint: str  # of the whole table, by `datasets`

    def __str__(self) -> str:
        return f"hf={self.where}:{self.split}, row {self.row}"

    @property
    def identity(self) -> str:
        """What it is recognised by without being read."""
        return f"{self.fingerprint} {self.split} {self.column} {self.row}"

    def read(self) -> bytes:
        value = _tables(*_opened(self.where))[self.split][self.row][self.column]
        return value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()


def options(where: str) -> tuple[str, dict[str, str]]:
    """The place, and the columns and other words that are given behind it."""
    place, *words = where.split(",")
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := [key for key in given if key not in KEYS]:
        raise UsageError(f"hf={where}: {unknown[0]}= is none of {', '.join(f'{key}=' for key in KEYS)}")
    return place, given


def images(where: str) -> PackedImages:
    """What the data set holds, its images unread. Raises `UserError` where a column cannot be found, by name."""
    return _images(*_opened(where))


@functools.lru_cache(maxsize=4)
def _images(where: str, identity: str) -> PackedImages:
    place, given = options(where)
    tables = _tables(where, identity)
    features = next(iter(tables.values())).features
    column = _column(where, "image", given, [name for name, feature in features.items() if _is_image(feature)], features)
    by_type = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    named = [name for name in LABELS if name in features]
    label = _column(where, "label", given, (by_type if len(by_type) == 1 else named or by_type)[:1], features, needed=False)
    group = _column(where, "group", given, ["group"] if "group" in features else [], features, needed=False)
    names = tuple(getattr(features[label], "names", None) or ()) if label else ()
    members = {
        split: [TableRow(where, split, row, column, table._fingerprint) for row in range(len(table))]
        for split, table in tables.items()
    }
    labels, groups = (
        {split: [_text(value) for value in table[name]] if name else [""] * len(table) for split, table in tables.items()}
        for name in (label, group)
    )
    return PackedImages(members, labels, groups, names, tuple(_files(place, tables)))


def _text(value: Any) -> str:
    """A label or group as text; nothing is the label of an image without one."""
    return "-1" if value is None else str(value)


def _opened(where: str) -> tuple[str, str]:
    """The place and what it is recognised by: names and times of its files where it lies on this disk."""
    place = Path(options(where)[0])
    if not place.exists():
        return where, ""
    there = [place / name for name in files.below(place)] if place.is_dir() else [place]
    return where, "\n".join(f"{file} {files.identity(file.stat())}" for file in there)


@functools.lru_cache(maxsize=4)
def _tables(where: str, identity: str) -> dict[str, Any]:
    """The tables by split, images as bytes."""
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"hf={where} needs the optional package datasets: pip install datasets")
    library: Any = importlib.import_module("datasets")
    place, given = options(where)
    path = Path(place)
    library.disable_progress_bars()
    try:
        if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            found = library.load_from_disk(place)
        elif path.is_file() and path.suffix == ".arrow":
            found = library.Dataset.from_file(place)
        elif path.is_file():
            found = library.load_dataset("parquet", data_files=place, split="train")
        else:
            more = {key: given[word] for word, key in (("config", "name"), ("revision", "revision")) if word in given}
            found = library.load_dataset(place, **more)
    except Exception as error:  # of the hub, of its libraries, or of the disk
        raise UserError(
            f"hf={where}: cannot be opened: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ) from None
    if not hasattr(found, "keys"):
        found = {"all": found}
    tables = {}
    for split, table in found.items():
        for name, feature in table.features.items():
            if _is_image(feature):
                table = table.cast_column(name, library.Image(decode=False))
        tables[SPLIT_ALIASES.get(str(split), str(split))] = table
    return tables


def _is_image(feature: Any) -> bool:
    """Whether a column holds images: declared as such, or as bytes and path."""
    return type(feature).__name__ == "Image" or (isinstance(feature, dict) and {"bytes", "path"} <= feature.keys())


def _column(where: str, what: str, given: dict[str, str], found: list[str], features: Any, needed: bool = True) -> str:
    """The column that is given, else the only one that is found; "" for one that need not be there."""
    name = given.get(what)
    if name is not None:
        if name not in features:
            raise UsageError(f"hf={where}: there is no column {name}; {near(name, list(features))}")
        return name
    if len(found) > 1 or (needed and not found):
        which = f"may be {' or '.join(found)}" if found else f"is none of {', '.join(features)}"
        raise UsageError(f"hf={where}: the column of its {what}s {which}; say hf={where},{what}=COLUMN")
    return found[0] if found else ""


def _files(place: str, tables: dict[str, Any]) -> list[Path]:
    """The files behind the tables: those at the place, of a set of the hub those that were downloaded."""
    if Path(place).exists():
        return [Path(place)]
    return sorted({Path(file["filename"]) for table in tables.values() for file in table.cache_files})
