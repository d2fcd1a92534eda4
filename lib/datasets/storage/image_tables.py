"""A user's own table of images: a `.csv` file with a path, a label and, if wanted, groups and a split for each.

The columns are `path` (relative to the table's folder), `label`, `split`, and for groups `group` or any that begin with
`group_`; others are passed over. The first line names them; commas, semicolons or tabs separate values. Free of torch.
"""

import csv
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from lib.core import files
from lib.core.errors import UserError
from lib.core.text import some
from lib.datasets.names import SPLIT_ALIASES, are_numbers

FILE = "labels.csv"  # a folder with this table is read by it
FIRST_SPLITS = ("train", "test", "val")  # the order of those that are there; others follow in the order of the table
KEPT_FOR_OTHERS = ("all", "ood")  # splits that have a meaning for every data set
LONGEST_FIELD = 1 << 20


@dataclass(frozen=True)
class ImageTable:
    """The n images of a table in the order of its lines; `groups` and `splits` are empty without these columns."""

    file: Path
    paths: tuple[str, ...]  # relative to the folder of the file, or absolute
    labels: tuple[int, ...]  # -1 = unlabelled
    classes: tuple[str, ...]  # of all splits together, in the order of numbers if all are, else of the alphabet
    groups: tuple[int, ...]
    group_names: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def split_names(self) -> tuple[str, ...]:
        """Every split there is; none for a table that is not divided."""
        return tuple(dict.fromkeys((*(split for split in FIRST_SPLITS if split in self.splits), *self.splits)))

    def rows(self, split: str) -> list[int]:
        """The positions of a split's images, of all of them for "all"."""
        return [row for row in range(len(self.paths)) if split == "all" or self.splits[row] == split]

    @property
    def sources(self) -> list[Path]:
        """The table itself, and every file that it lists."""
        return [self.file, *(self.file.parent / path for path in self.paths)]


def of_folder(folder: Path) -> Path | None:
    """The table that a folder is read by: its `labels.csv`, if that has the columns path and label; else None."""
    file = folder / FILE
    if not file.is_file():
        return None
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as lines:
        first = lines.readline(LONGEST_FIELD)
    return file if _separator(first) else None


def read(file: Path) -> ImageTable:
    """The table in a file. Raises a `UserError` that names the lines on which something is wrong."""
    try:
        return _read(file, files.identity(file.stat()))
    except OSError as error:
        raise UserError(f"{file}: cannot be read as a table of images ({error.strerror or error})") from None


@functools.lru_cache(maxsize=8)
def _read(file: Path, identity: str) -> ImageTable:
    lines = _lines(file)
    _, header = lines[0]
    wanted = (
        "path",
        "label",
        *(name for name in header if name in ("split", "groups") or re.fullmatch(r"group(_.*)?", name)),
    )
    places = {name: header.index(name) for name in dict.fromkeys(wanted)}
    wrong: list[str] = []
    values: dict[str, list[str]] = {name: [] for name in places}
    first_line: dict[str, int] = {}
    for number, line in lines[1:]:
        if problem := _problem(file, header, line, places, first_line):
            wrong.append(f"line {number} {problem}")
            continue
        first_line[line[places["path"]].strip()] = number
        for name, place in places.items():
            values[name].append(line[place].strip())
    if wrong:
        raise UserError(f"{file}: {some(wrong)}" + (f" ({len(wrong):,} lines in all)" if len(wrong) > 1 else ""))
    if not values["path"]:
        raise UserError(f"{file}: lists no image")
    labels, classes = numbered(values["label"])
    kinds = [values[name] for name in places if name not in ("path", "label", "split")]
    joined = [", ".join(parts) for parts in zip(*kinds, strict=True)]
    groups, group_names = numbered(joined, unlabelled=False)
    splits = tuple(_split(value) for value in values.get("split", ()))
    return ImageTable(file, tuple(values["path"]), labels, classes, groups, group_names, splits)


def _lines(file: Path) -> list[tuple[int, list[str]]]:
    """The lines that hold anything, with their numbers; the first is the header, in small letters."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        separator = _separator(text.partition("\n")[0])
        if not separator:
            raise UserError(f"{file}: the first line must name the columns path and label (and, if wanted, group, split)")
        reader = csv.reader(text.splitlines(keepends=True), delimiter=separator)
        lines = [(reader.line_num, line) for line in reader if any(value.strip() for value in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as a table of images ({error}); save it as CSV in UTF-8") from None
    header = [name.strip().lower() for name in lines[0][1]]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError(f"{file}: two columns are called {twice[0]}")
    return [(lines[0][0], header), *lines[1:]]


def _separator(header: str) -> str:
    """What stands between the columns of a header line with path and label; "" for any other line."""
    for separator in ",;\t":
        names = [name.strip().strip('"').lower() for name in header.split(separator)]
        if "path" in names and "label" in names:
            return separator
    return ""


def _problem(file: Path, header: list[str], line: list[str], places: dict[str, int], first_line: dict[str, int]) -> str:
    """What is wrong with one line, "" if nothing is."""
    if len(line) != len(header):
        return f"has {len(line)} values for {len(header)} columns"
    if empty := [name for name, place in places.items() if not line[place].strip()]:
        return f"has no {empty[0]}"
    path = line[places["path"]].strip()
    if path in first_line:
        return f"lists {path}, as line {first_line[path]} does"
    if "split" in places and not re.fullmatch(r"[a-z][a-z0-9_]*", _split(line[places["split"]])):
        return f"has split {line[places['split']].strip()!r}; splits are words such as train, val, test"
    if "split" in places and _split(line[places["split"]]) in KEPT_FOR_OTHERS:
        return f"has split {line[places['split']].strip()!r}, which stands for something else: give it another name"
    return "" if (file.parent / path).is_file() else f"lists {path}, but there is no file {file.parent / path}"


def _split(value: str) -> str:
    word = value.strip().lower()
    return SPLIT_ALIASES.get(word, word)


def numbered(values: list[str], unlabelled: bool = True) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """A number for each value, and the values by number; where all values are integers -1 is no class but unlabelled."""
    numeric = are_numbers(values)
    names = sorted(set(values), key=lambda value: (int(value) if numeric else 0, value))
    if numeric and unlabelled:
        names = [name for name in names if name != "-1"]
    number = {name: position for position, name in enumerate(names)}
    return tuple(number.get(value, -1) for value in values), tuple(names)
