"""The cells of a paper's table, filled from records: ours beside the published number, with difference and verdict.

Runs of one thing (`lib.tables.record_library`) are one line with mean, sample deviation and number; runs of different things
never share a line, and versions of the code that do are named in its note.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from lib.tables import record_library
from lib.tables.papers.published import NOT_FOUND, Published
from lib.tables.papers.spec import Cell, Table, cells, matches, satisfies
from lib.tables.record_library import Library, Run

# the first column of an interval that a single run has -> what it is over, other than images
OVER = {"mass_low": "filters", "q05": "filters, 5 % to 95 %", "s_null_low": "draws of the null"}
SPREADS = ("q05", "s_null_low")  # those that are no intervals of the number
NO_EXPERIMENT, NOT_MEASURED, OTHER = "no experiment fills this", "not measured", "other set-up"


@dataclass
class Line:
    """One thing measured for one cell, or a cell that is empty.

    low, high    the 95 % interval of the mean: Student's over seeds, of one run its own; `interval_of` says over what
    networks     how many different networks the n values are of
    departed     the run did something else than the paper that a flag can change
    generated    corrupted images are not known to be the official ones, whose numbers then say nothing of them
    """

    labels: tuple[str, ...]
    cell: Cell
    network: str = ""
    setting: str = ""
    values: list[float] = field(default_factory=list)
    networks: int = 0
    low: float | None = None
    high: float | None = None
    interval_of: str = ""
    published: Published | None = None
    verdict: str = ""
    note: str = ""
    records: list = field(default_factory=list)
    seeds: set = field(default_factory=set)
    departed: bool = False
    generated: bool = False

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample deviation; that of a single run does not exist."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the published number, where there are both and they are of the same images."""
        known = self.published.value if self.published else None
        return None if self.mean is None or known is None or self.generated else self.mean - known


@dataclass
class _Group:
    """The values of one cell and one thing."""

    identity: dict
    runs: dict = field(default_factory=dict)  # instance -> record -> rows


def fill(
    table: Table, published: dict[tuple[str, ...], Published], library: Library, seeds: tuple[int, ...] = ()
) -> list[Line]:
    """The lines of a table in the order of its cells; open axes have the published headings first, then those measured."""
    lines, every_cell = [], cells(table)
    names = list(dict.fromkeys(name for cell in every_cell for name in cell.where))
    rows = {
        experiment: _alike(experiment, names, library, seeds)
        for experiment in dict.fromkeys(cell.experiment for cell in every_cell)
        if experiment
    }
    for cell in every_cell:
        found = _measured(table, cell, rows.get(cell.experiment, ()))
        known = [labels for labels in published if _fits(labels, cell.labels)]
        every = list(dict.fromkeys([*known, *found])) or [tuple(label or "-" for label in cell.labels)]
        for labels in every:
            groups = list(found.get(labels, {}).values())
            settings = record_library.differences([group.identity for group in groups])
            made = [_line(labels, cell, group, setting) for group, setting in zip(groups, settings, strict=True)]
            for line in made or [Line(labels, cell)]:
                line.published = published.get(labels)
                line.verdict, reason = _verdict(line)
                line.note = "; ".join(part for part in (reason, line.note) if part)
                lines.append(line)
    return lines


def _alike(experiment: str, names: list[str], library: Library, seeds: tuple[int, ...]) -> list[tuple[dict, list]]:
    """The rows of an experiment by all that the cells of a table ask of them, so that each answer is looked for once."""
    own = [name for name in names if "." not in name and name != "same_network"]
    found: dict[str, tuple[dict, list]] = {}
    for run in library.of(experiment):
        for row in run.rows:
            if seeds and not set(run.seeds(row)) <= set(seeds):
                continue
            about = run.about(row)
            facts = {name: run.column(row, name) if name in own else about.get(name) for name in names}
            found.setdefault(repr(facts), (facts, []))[1].append((run, row))
    return list(found.values())


def _measured(table: Table, cell: Cell, alike: Iterable[tuple[dict, list]]) -> dict[tuple, dict[str, _Group]]:
    """labels -> identity -> its group."""
    found: dict[tuple, dict[str, _Group]] = {}
    opened = [column for column in table.axes.values() if isinstance(column, str)]
    compared = {name.partition(".")[0] for name in (*cell.where, *cell.setup)}
    joined: dict[tuple, tuple[dict, list[dict]]] = {}  # the rows of each number, and their settings
    for run, row in (member for facts, members in alike if satisfies(facts, cell.where) for member in members):
        measured = not isinstance(cell.metric, str) or row.get(cell.metric) is not None
        if not measured or any(run.column(row, column) is None for column in opened):
            continue
        headings = iter(opened)
        labels = tuple(str(run.column(row, next(headings))) if label is None else label for label in cell.labels)
        about = run.about(row)
        fixed = {name: about.get(name) for name in cell.setup if name.startswith("config.")}  # selections, too
        settings = run.settings(row, compared) | fixed
        alone = id(row) if isinstance(cell.metric, str) else None
        key = labels, run, run.instance(row, compared), record_library.key(settings), alone
        joined.setdefault(key, (settings, []))[1].append(row)
    for (labels, run, instance, _, alone), (settings, rows) in joined.items():
        identity = settings | run.images(rows, joined=alone is None)
        group = found.setdefault(labels, {}).setdefault(record_library.key(identity), _Group(identity))
        group.runs.setdefault(instance, {}).setdefault(run, []).extend(rows)
    return found


def _line(labels: tuple, cell: Cell, group: _Group, setting: str) -> Line:
    line, ambiguous, repeated = Line(labels, cell, setting=setting), 0, 0
    rows: list[tuple[Run, dict]] = []
    for records in group.runs.values():
        run = record_library.latest(records)
        members, repeated = records[run], repeated + len(records) - 1
        if isinstance(cell.metric, str):
            ambiguous += len(members) > 1
            value = members[0][cell.metric]
        else:
            value = cell.metric(members)
        if value is None:
            continue
        line.values.append(float(value))
        line.records.extend(run.sources)
        line.seeds.update(run.seeds(members[0]))
        rows.append((run, members[0]))
    if not rows:
        return line
    line.networks = len({paths for paths, _ in group.runs})
    line.network = " and ".join(dict.fromkeys(map(str, rows[0][0].subjects(rows[0][1]).values())))
    codes = sorted({run.code for run, _ in rows})
    origins = {_origin(row) for _, row in rows}
    line.generated = not origins <= {"", "official"}
    departed = _departures(cell, *rows[0], len(members))
    line.departed = any("." in name for name in departed)
    departed |= {origin: f"{origin} corruptions, not the official archive" for origin in sorted(origins - {"", "official"})}
    notes = [f"{OTHER}: {', '.join(departed.values())}" if departed else ""]
    notes += [f"several versions of the code: {', '.join(codes)}"] if len(codes) > 1 else []
    notes += [f"{repeated} repeated runs, of which the latest counts"] if repeated else []
    notes += [f"ambiguous: {ambiguous} records have several rows for this cell, the first is shown"] if ambiguous else []
    line.note = "; ".join(filter(None, notes))
    line.low, line.high, line.interval_of = _interval(line, cell, [row for _, row in rows])
    return line


def _departures(cell: Cell, run: Run, row: dict, count: int) -> dict[str, str]:
    """What the run did otherwise than the paper, as words; `count`: the rows that its number is made from."""
    facts = run.facts(row) | {"rows": count}
    return {
        name: f"{name.rpartition('.')[2].replace('_', ' ')} {facts.get(name)}, not {_first(wanted)}"
        for name, wanted in cell.setup.items()
        if wanted is not None and not matches(facts.get(name), wanted)
    }


def _origin(row: dict) -> str:
    """Where the corrupted images of a row are from: "official", "generated" or "unknown"; "" of other images."""
    corrupted = any(str(row.get(column) or "").endswith("-c") for column in record_library.SETS)
    return row.get("origin") or ("unknown" if corrupted else "")


def _first(wanted):
    return wanted[0] if isinstance(wanted, tuple) and wanted else wanted


def _interval(line: Line, cell: Cell, rows: list[dict]) -> tuple[float | None, float | None, str]:
    if line.n > 1:
        from scipy.special import stdtrit  # tables of one seed need no scipy

        half = float(stdtrit(line.n - 1, 0.975)) * line.deviation / math.sqrt(line.n)
        return line.mean - half, line.mean + half, "seeds"
    low, high = (rows[0].get(column) for column in cell.interval) if cell.interval else (None, None)
    return (low, high, OVER.get(cell.interval[0], "images")) if None not in (low, high) else (None, None, "")


def _verdict(line: Line) -> tuple[str, str]:
    """The verdict, and the reason where a cell is empty."""
    known = line.published
    if line.cell.lacks or not line.cell.experiment:
        return NO_EXPERIMENT, line.cell.lacks
    if not line.values:
        return NOT_MEASURED, ""
    if known is None or known.value is None:
        return (f"published: {NOT_FOUND}" if known is None or known.text == NOT_FOUND else "published as words"), ""
    if line.note.startswith(OTHER):
        return OTHER, ""
    spread = line.interval_of != "seeds" and line.cell.interval[:1] and line.cell.interval[0] in SPREADS
    low, high = (line.mean, line.mean) if line.low is None or spread else (line.low, line.high)
    if low - known.tolerance <= known.value <= high + known.tolerance:
        return "agrees", ""
    return ("above" if line.mean > known.value else "below"), ""


def _fits(labels: Iterable[str], wanted: tuple[str | None, ...]) -> bool:
    labels = tuple(labels)
    return len(labels) == len(wanted) and all(want in (None, label) for label, want in zip(labels, wanted, strict=True))
