"""The published numbers of `published.yaml`, each with its source and with its tag on the paper's page.

A block of the file holds numbers of one table, source and tag: `values` maps the headings of a row, joined by " / ", to
its number, or to a list of numbers along `columns`. Numbers are written as the source prints them; `percent: true`
makes fractions of them. "not found" is a value: nothing is known, and nothing is made up. `tolerance`, in the same unit, is
what reading off a figure or rounding can have moved.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("published.yaml")
NOT_FOUND = "not found"
# the tags of the papers' pages: what they are is said at the head of the file
TAGS = ("P2", "FIG", "OUT", "NB", "CALC", "web", "fig", "untagged")


@dataclass(frozen=True)
class Published:
    """A published number, or words; `value` is in the unit of the records, a fraction for accuracies and rates."""

    value: float | None
    text: str
    source: str
    tag: str
    tolerance: float = 0.0


@functools.cache
def read(path: Path = FILE) -> dict[str, dict[tuple[str, ...], Published]]:
    """table (`paper/table`) -> headings -> what is published there."""
    found: dict[str, dict[tuple[str, ...], Published]] = {}
    for block in yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        table, unit = found.setdefault(block["table"], {}), 0.01 if block.get("percent") else 1
        for row, values in block["values"].items():
            labels = tuple(str(row).split(" / "))
            entries = {labels: values}
            if "columns" in block:
                entries = {(*labels, str(column)): value for column, value in zip(block["columns"], values, strict=True)}
            for where, value in entries.items():
                if where in table:
                    raise ValueError(f"{path}: {block['table']} has {' / '.join(where)} twice")
                number = None if isinstance(value, str) else round(value * unit, 10)
                table[where] = Published(
                    number,
                    value if number is None else f"{number:.10g}",
                    block["source"],
                    block["tag"],
                    block.get("tolerance", 0) * unit,
                )
    return found
