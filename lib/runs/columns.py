"""What is known of the columns of an experiment's rows: which are numbers, and what tables have to know of the others.

Every configuration declares its `columns`, beside its flags, and the `summary` that tables print of its records.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Columns:
    """The columns of an experiment's rows by kind; every value may be None where it does not exist.

    network    the column that names the network a row is of, where rows of one run are of several
    roles      columns that name the two networks of a row
    images     columns that say which images a row is of: rows that differ in them are of different things
    sets       those of them that name data sets; several are joined by ", " or "+"
    shared     the name that experiments share -> the column here
    """

    numbers: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    truths: frozenset[str] = frozenset()
    network: str = ""
    roles: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        numbers: str = "",
        words: str = "",
        truths: str = "",
        network: str = "",
        roles: str = "",
        images: str = "",
        sets: str = "",
        shared: Mapping[str, str] | None = None,
    ) -> "Columns":
        """The columns from lists of their names, which are separated by spaces."""
        return cls(
            numbers=frozenset(numbers.split()),
            words=frozenset(words.split()),
            truths=frozenset(truths.split()),
            network=network,
            roles=tuple(roles.split()),
            images=tuple(images.split()),
            sets=tuple(sets.split()),
            shared=shared or {},
        )

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
