"""Tables that list images: the columns that are needed, their values, and whether every image is there. Free of torch.

A table is read as column -> values, a string per image, in the order of its lines.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from lib.core.errors import UserError
from lib.core.text import some
from lib.datasets.storage import image_folders


def read(file: Path, columns: tuple[str, ...]) -> dict[str, list[str]]:
    """The `columns` of a `.csv` file with a header, or of CelebA's own `.txt` lists.

    Raises a UserError that names the columns that are lacking, or the lines that have too few or too many values.
    """
    try:
        text = file.read_text("utf-8")
        header, *lines = _csv(text) if file.suffix == ".csv" else _celeba(text)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as a table ({error}); unpack it again") from None
    if lacking := [column for column in columns if column not in header]:
        raise UserError(f"{file}: lacks the columns {', '.join(lacking)}; it has {some(header, 8)}")
    if uneven := [str(number) for number, line in enumerate(lines, 1) if len(line) != len(header)]:
        raise UserError(
            f"{file}: {len(uneven):,} of {len(lines):,} images have not one value for each of the {len(header)} "
            f"columns: images {some(uneven)}"
        )
    if not lines:
        raise UserError(f"{file}: lists no image")
    positions = [header.index(column) for column in columns]
    return {column: [line[position] for line in lines] for column, position in zip(columns, positions, strict=True)}


def integers(file: Path, table: dict[str, list[str]], column: str, allowed: tuple[int, ...]) -> list[int]:
    """The values of a column as numbers, each one of `allowed`; images that have another are listed."""
    numbers = {str(number): number for number in allowed}
    names = next(iter(table.values()))  # the first column that was asked for
    if wrong := [f"{name} has {value!r}" for name, value in zip(names, table[column], strict=True) if value not in numbers]:
        raise UserError(
            f"{file}: column {column} is {' or '.join(numbers)}, but not for {len(wrong):,} of {len(names):,} "
            f"images: {some(wrong)}"
        )
    return [numbers[value] for value in table[column]]


def require_images(file: Path, folder: Path, names: Sequence[str]) -> None:
    """An error that lists the images of the table that are not below the folder."""
    there = set(image_folders.files_below(folder))
    if absent := [name for name in names if name not in there]:
        raise UserError(
            f"{file}: {len(absent):,} of its {len(names):,} images are not under {folder}: {some(absent)}; "
            "unpack the archive again"
        )


def _csv(text: str) -> list[list[str]]:
    return [line for line in csv.reader(text.splitlines()) if line]


def _celeba(text: str) -> list[list[str]]:
    """Values between blanks. The attributes have two lines above: a count, and names for all columns but the first."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and len(lines[0]) == 1:
        return [["image_id", *lines[1]], *lines[2:]]
    return [["image_id", "partition"], *lines]
