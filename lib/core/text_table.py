"""Rows as tables of text. Knows rows only."""

import collections
import itertools
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lib.core.terminal import command, wrapped

Cells = list[list[str]]
LONGEST = 60  # rows of a table that is printed at the end of a run
LONG = 32  # columns of a cell that is said below the table where it comes again and again
NARROWEST = 16  # columns to which a cell of several words is narrowed at most


def text(
    rows: list[dict],
    columns: tuple[str, ...] = (),
    most: int | None = None,
    always: Callable[[dict], object] = lambda row: False,
    *,
    width: int | None = None,
    rest: str = "in the record",
) -> str:
    """An aligned table of the rows, numbers to four digits; of more than `most` rows the middle is left out.

    Rows for which `always` holds are all shown, however many they are.

    width  of the lines; None for any. What all rows share is then said once above the table, what many share in a heading
           or a note, cells of several words are continued below, a single row is a line per column, and columns that still
           do not fit are left out, the last first, and named below the table
    rest   where the rows and columns are that were left out, as the end of a sentence
    """
    if not rows:
        return "no rows"
    columns = columns or tuple(dict.fromkeys(key for row in rows for key in row))
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    numeric = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    shown = [True] * len(rows)
    if most is not None and len(rows) > most:
        others = [number for number, row in enumerate(rows) if not always(row)]
        room = max(0, most - (len(rows) - len(others)))
        for number in others[room // 2 : len(others) - (room - room // 2)]:
            shown[number] = False
    table = _Table(columns, cells, numeric, shown)
    if width is None or table.width <= width:
        return "\n".join(table.lines(rest))
    if len(rows) == 1:
        return "\n".join(_upright(columns, cells[0], width))
    return _fitted(table, width, rest)


def cell(value: object) -> str:
    """One value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    return str(value)


@dataclass(frozen=True)
class _Table:
    """Columns, the cells of all rows, which columns are of numbers, which rows are shown."""

    columns: tuple[str, ...]
    cells: Cells
    numeric: list[bool]
    shown: list[bool]

    @property
    def widths(self) -> list[int]:
        """The width of every column."""
        kept = [list(self.columns), *itertools.compress(self.cells, self.shown)]
        return [max(len(line[place]) for line in kept) for place in range(len(self.columns))]

    @property
    def width(self) -> int:
        """The width of a line."""
        return sum(self.widths) + 2 * (len(self.columns) - 1)

    def only(self, places: Sequence[int]) -> "_Table":
        """The table with some of its columns."""
        columns = tuple(self.columns[place] for place in places)
        cells = [[line[place] for place in places] for line in self.cells]
        return _Table(columns, cells, [self.numeric[place] for place in places], self.shown)

    def lines(self, rest: str, widths: list[int] | None = None, headings: Sequence[str] = ()) -> list[str]:
        """The table, cells that are wider than their column continued below, and a line for rows that are left out.

        headings  a line above each row, or "" for none
        """
        widths = widths or self.widths

        def line(words: Sequence[str]) -> str:
            return "  ".join(
                word.rjust(width) if right else word.ljust(width)
                for word, width, right in zip(words, widths, self.numeric, strict=True)
            ).rstrip()

        def lines(words: Sequence[str]) -> list[str]:
            if len(words) == 1 and words[0].startswith("python "):  # to be copied
                return command(words[0], widths[0]).splitlines()
            parts = [_parts(word, width) for word, width in zip(words, widths, strict=True)]
            return [line(several) for several in itertools.zip_longest(*parts, fillvalue="")]

        found = [line(self.columns), line(["-" * width for width in widths])]
        heads = headings or [""] * len(self.cells)
        rows = zip(self.shown, self.cells, heads, strict=True)
        above = ""  # the heading of a row that is left out
        for is_shown, several in itertools.groupby(rows, key=lambda row: row[0]):
            part = [(words, heading) for _, words, heading in several]
            if is_shown:
                for words, heading in part:
                    found += [*filter(None, [heading or above]), *lines(words)]
                    above = ""
            else:
                found.append(f"... {len(part)} more rows {rest} ...")
                above = next((heading for _, heading in reversed(part) if heading), "")
        return found


def _parts(word: str, width: int) -> list[str]:
    """A cell in lines of at most the width, cut between words only."""
    if len(word) <= width:
        return [word]
    return textwrap.wrap(word, width, break_long_words=False, break_on_hyphens=False)


def _fitted(table: _Table, width: int, rest: str) -> str:
    """The table within a width that is too small for it."""
    shared = [place for place, values in enumerate(zip(*table.cells, strict=True)) if len(set(values)) == 1]
    if len(shared) == len(table.columns):
        shared = shared[1:]
    said = [f"{table.columns[place]} = {table.cells[0][place]}" for place in shared if table.cells[0][place]]
    table = table.only([place for place in range(len(table.columns)) if place not in shared])
    headings = _headings(table) if table.width > width else []
    if headings:
        headings, table = [wrapped(heading, width) for heading in headings], table.only(range(1, len(table.columns)))
    table, notes = _noted(table) if table.width > width else (table, [])
    kept = len(table.columns)
    while kept > 1 and sum(_narrowed(table.only(range(kept)), width)) + 2 * (kept - 1) > width:
        kept -= 1
    left_out, table = table.columns[kept:], table.only(range(kept))
    lines = table.lines(rest, _narrowed(table, width), headings)
    if said:
        lines = [wrapped(f"in all rows: {'; '.join(said)}", width), "", *lines]
    lines += [wrapped(note, width) for note in notes]
    if left_out:
        lines.append(wrapped(f"{len(left_out)} more column{'s'[: len(left_out) > 1]} {rest}: {', '.join(left_out)}", width))
    return "\n".join(lines)


def _headings(table: _Table) -> list[str]:
    """The first column as headings of the rows below, "" where a row is of the heading above; none where values are numbers,
    or would be headings of few rows.
    """
    values = [f"{table.columns[0]} {line[0]}" for line in table.cells]
    found = ["" if value == before else value for before, value in zip(["", *values], values, strict=False)]
    seldom = 3 * len([heading for heading in found if heading]) <= len(found)
    return found if seldom and not table.numeric[0] and len(table.columns) > 1 else []


def _narrowed(table: _Table, width: int) -> list[int]:
    """The widths of the columns, the widest of words narrowed as far as the width asks for it and words allow."""
    widths, excess = table.widths, table.width - width
    least = []
    for place, column in enumerate(table.columns):
        kept = [column, *(line[place] for line in itertools.compress(table.cells, table.shown))]
        longest = max(len(word) for text in kept for word in text.split() or [""])
        least.append(widths[place] if table.numeric[place] else min(widths[place], max(longest, NARROWEST)))
    while excess > 0 and (wide := [place for place in range(len(widths)) if widths[place] > least[place]]):
        widths[max(wide, key=lambda place: widths[place])] -= 1
        excess -= 1
    return widths


def _noted(table: _Table) -> tuple[_Table, list[str]]:
    """The table with [1], [2], ... for long cells that come again and again, and what these numbers stand for."""
    counts = collections.Counter(word for line in table.cells for word in line if len(word) > LONG)
    numbers = {word: f"[{number}]" for number, word in enumerate((word for word in counts if counts[word] > 2), 1)}
    cells = [[numbers.get(word, word) for word in line] for line in table.cells]
    return replace(table, cells=cells), [f"{number} {word}" for word, number in numbers.items()]


def _upright(columns: tuple[str, ...], words: list[str], width: int) -> list[str]:
    """The only row, a line per column."""
    margin = max(map(len, columns)) + 2
    return [
        wrapped(f"{column.ljust(margin)}{word}".rstrip(), width, " " * margin)
        for column, word in zip(columns, words, strict=True)
        if word
    ]
