"""Definitions of the columns of an experiment's rows, and what tables need to know about them.

Every experiment defines its `COLUMNS` in `lib/experiments/columns/`, a file per script; its configuration refers to them and
states the `summary` that tables print of its records. `docs/` shows the definitions on the page of each script.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Column:
    """The definition of a column.

    meaning    what its values are of, in a sentence or less
    unit       of a number: "fraction", "images", "seconds", "nats", "" for a number without a unit
    least      the smallest value that is possible, None where there is no bound
    most       the largest one
    better     "higher" or "lower" where that is the better result, "" where neither is
    """

    meaning: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    better: str = ""

    def range(self) -> str:
        """The possible values in words: "0 to 1", "at least 0", or nothing where there is no bound."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None:
            return f"at least {self.least:g}"
        return f"at most {self.most:g}" if self.most is not None else ""

    def described(self) -> str:
        """The meaning, with unit, range and direction where it has them."""
        notes = ", ".join(filter(None, [self.unit, self.range(), self.better and f"{self.better} is better"]))
        return self.meaning + (f" ({notes})" if notes else "")

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range, up to rounding in the last digits of float32."""
        slack = 1e-6 * max(1.0, abs(value))
        return (self.least is None or value >= self.least - slack) and (self.most is None or value <= self.most + slack)


def share(meaning: str, better: str = "") -> Column:
    """A column of fractions, 0 to 1."""
    return Column(meaning, "fraction", 0, 1, better)


def count(meaning: str, unit: str = "images") -> Column:
    """A column of whole numbers, 0 or more."""
    return Column(meaning, unit, 0)


def probability(meaning: str) -> Column:
    """A column of p-values: small where chance alone does not explain the result."""
    return Column(meaning, "p-value", 0, 1)


DATA = {
    "data": Column("name of the data set"),
    "split": Column("split of the data set: train, val, test, or all for a set that is not divided"),
    "variant": Column("corruption and severity, or another variant of the data set; empty for the images as they are"),
    "origin": Column("`official` for an archive's own images, `generated` for corruptions that this suite computed"),
}


@dataclass(frozen=True)
class Columns:
    """The columns of an experiment's rows by kind, name -> definition; every value may be None where it does not exist.

    network    the column that names the network a row is of, where rows of one run are of several
    roles      columns that name the two networks of a row
    images     columns that say which images a row is of: rows that differ in them are of different things
    sets       those of them that name data sets; several are joined by ", " or "+"
    shared     the name that experiments share -> the column here
    """

    numbers: Mapping[str, Column] = field(default_factory=dict)
    words: Mapping[str, Column] = field(default_factory=dict)
    truths: Mapping[str, Column] = field(default_factory=dict)
    network: str = ""
    roles: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def defined(self) -> dict[str, Column]:
        """All definitions: those of words first, then of numbers, then of what is true or false."""
        return {**self.words, **self.numbers, **self.truths}

    def problem(self, row: Mapping) -> tuple[str, str] | None:
        """The first column whose value is of another kind, and what is wrong with it; None if none is.

        Columns that are not declared may hold anything.
        """
        for name, value in row.items():
            if value is None:
                continue
            if name in self.numbers and (isinstance(value, bool) or not isinstance(value, int | float)):
                return name, f"{value!r}, no number"
            if name in self.words and not isinstance(value, str):
                return name, f"{value!r}, no word"
            if name in self.truths and not isinstance(value, bool):
                return name, f"{value!r}, neither true nor false"
        return None


@dataclass(frozen=True)
class Summary:
    """What the table of an experiment shows: the columns that say what a row is of, those measured, and of which rows."""

    keys: tuple[str, ...]
    measured: tuple[str, ...]
    shown: Callable[[dict], object] = lambda row: True

    @classmethod
    def of(cls, keys: str, measured: str, shown: Callable[[dict], object] = lambda row: True) -> "Summary":
        """The summary from lists of columns, which are separated by spaces."""
        return cls(tuple(keys.split()), tuple(measured.split()), shown)
