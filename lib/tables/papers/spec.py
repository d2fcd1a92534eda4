"""How a paper's table or figure is described: which rows of which records its cells are, and what the paper did.

Conditions and settings are dictionaries over what `record_library.RecordedRun.facts` knows of a row: a column of it
(`layer`), a flag of the run (`config.init`), a setting of the network's training (`net.epochs`; `front.` and `end.` where
there are two).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

Facts = dict[str, Any]
# a column of the row, or a function from all rows of one record that are of the cell to a number
Metric = str | Callable[[list[dict]], float | None]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is read from the rows of a cell.

    metric    a column of the row, or a function of all rows of a run
    interval  the columns with its interval in a single run
    lacks     why no experiment of the suite fills the cell
    before    the runs whose records the cell is made from, where its experiment reads records: (experiment, flags) each
    exact     the number is without the noise of seeds: a count of images, a measure of the data alone
    """

    metric: Metric = ""
    interval: tuple[str, str] | tuple[()] = ()
    lacks: str = ""
    before: tuple[tuple[str, Facts], ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class Value(Reading):
    """A heading: a row or column of a table.

    where   what rows must satisfy: a value, a tuple of which one, or a pattern such as "worst: *"
    setup   what the paper did, None where that was not found; runs that did something else are shown, and not judged
    run     further flags of the command that fills the cell: `config.ood` and the like; "{net.folder}" and "{net.file}" in
            them stand for the folder and the last epoch of a network
    """

    label: str
    where: Facts = field(default_factory=dict)
    setup: Facts = field(default_factory=dict)
    run: Facts = field(default_factory=dict)
    experiment: str = ""


@dataclass(frozen=True)
class PaperTable(Reading):
    """A table or figure of a paper.

    axes    name -> headings; or the column of rows whose values are the headings
    note    what a reader should know
    """

    title: str
    axes: dict[str, tuple[Value, ...] | str] = field(default_factory=dict)
    experiment: str = ""
    where: Facts = field(default_factory=dict)
    setup: Facts = field(default_factory=dict)
    run: Facts = field(default_factory=dict)
    note: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Cell(Reading):
    """A combination of headings; the labels of open axes are None until rows tell them."""

    labels: tuple[str | None, ...]
    where: Facts
    setup: Facts
    run: Facts
    experiment: str


def cells(table: PaperTable) -> list[Cell]:
    """All combinations of a table's headings, the last axis running fastest."""
    found = [
        Cell(
            (),
            table.where,
            table.setup,
            table.run,
            table.experiment,
            metric=table.metric,
            interval=table.interval,
            lacks=table.lacks,
            before=table.before,
            exact=table.exact,
        )
    ]
    for headings in table.axes.values():
        if isinstance(headings, str):
            found = [replace(cell, labels=(*cell.labels, None)) for cell in found]
        else:
            found = [_narrowed(cell, value) for cell in found for value in headings]
    return found


def _narrowed(cell: Cell, value: Value) -> Cell:
    lacks = value.lacks or cell.lacks
    return Cell(
        (*cell.labels, value.label),
        cell.where | value.where,
        cell.setup | value.setup,
        cell.run | value.run,
        "" if lacks else value.experiment or cell.experiment,
        metric=value.metric or cell.metric,
        interval=value.interval or cell.interval,
        lacks=lacks,
        before=cell.before + value.before,
        exact=cell.exact or value.exact,
    )


def satisfies(facts, where: Facts) -> bool:
    """Whether a row is as the condition demands."""
    return all(matches(facts.get(name), wanted) for name, wanted in where.items())


def matches(value, wanted) -> bool:
    """Whether a value is the wanted one, one of a tuple, or of the pattern."""
    if isinstance(wanted, tuple):
        return any(matches(value, one) for one in wanted)
    if value == wanted:
        return isinstance(value, bool) == isinstance(wanted, bool)
    pattern = isinstance(wanted, str) and ("*" in wanted or "?" in wanted)
    return pattern and isinstance(value, str) and fnmatchcase(value, wanted)
