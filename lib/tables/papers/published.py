"""The published numbers of `published.yaml`, each with its source and with its tag on the paper's page.

A block of the file holds numbers of one table, source and tag: `values` maps the headings of a row, joined by " / ", to
its number, or to a list of numbers along `columns`. Numbers are written as the source prints them; `percent: true`
makes fractions of them. "not found" is a value: nothing is known, and nothing is made up. `tolerance`, in the same unit, is
what reading off a figure or rounding can have moved. Where the source says that its numbers are means, `runs` is of how
many, and `deviations`, laid out as `values`, has the sample deviations of those runs.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("published.yaml")
NOT_FOUND = "not found"
# the tags of the papers' pages: what they are is said at the head of the file
TAGS = ("P2", "FIG", "OUT", "NB", "CALC", "web", "fig", "untagged")


@dataclass(frozen=True)
class Published:
    """A published number, or words; `value` is in the unit of the records, a fraction for accuracies and rates.

    runs        the number of runs that it is the mean of; 1 where the source names no more
    deviation   their sample deviation, where the source states it
    """

    value: float | None
    text: str
    source: str
    tag: str
    tolerance: float = 0.0
    runs: int = 1
    deviation: float | None = None


@functools.cache
def read(path: Path = FILE) -> dict[str, dict[tuple[str, ...], Published]]:
    """table (`paper/table`) -> headings -> what is published there."""
    found: dict[str, dict[tuple[str, ...], Published]] = {}
    for block in yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        table, unit = found.setdefault(block["table"], {}), 0.01 if block.get("percent") else 1
        deviations = dict(_entries(block, block.get("deviations", {})))
        for where, value in _entries(block, block["values"]):
            if where in table:
                raise ValueError(f"{path}: {block['table']} has {' / '.join(where)} twice")
            number = None if isinstance(value, str) else round(value * unit, 10)
            table[where] = Published(
                number,
                value if number is None else f"{number:.10g}",
                block["source"],
                block["tag"],
                block.get("tolerance", 0) * unit,
                block.get("runs", 1),
                deviations[where] * unit if where in deviations else None,
            )
    return found


def _entries(block: dict, values: dict) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(headings, value) of everything in `values`."""
    for row, entry in values.items():
        labels = tuple(str(row).split(" / "))
        if "columns" in block:
            yield from (((*labels, str(column)), value) for column, value in zip(block["columns"], entry, strict=True))
        else:
            yield labels, entry
