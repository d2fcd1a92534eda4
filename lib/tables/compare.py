"""The cells of a paper's table, filled from records: ours beside the published number, with difference and verdict.

Runs of one thing (`lib.tables.record_library`) are one comparison with mean, sample deviation and number; runs of different
things never share one, and versions of the code that do are named in its note.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.tables import record_library, verdicts
from lib.tables.papers.published import NOT_FOUND, Published
from lib.tables.papers.spec import Cell, PaperTable, cells, matches, satisfies
from lib.tables.record_library import Instance, Library, RecordedRun

# the first column of an interval that a single run has -> what it is over, other than images
OVER = {"mass_low": "filters", "q05": "filters, 5 % to 95 %", "s_null_low": "draws of the null"}
ROUNDING = 1e-9  # of sums of floating-point numbers
NO_EXPERIMENT, NOT_MEASURED = "no experiment fills this", "not measured"
# verdicts of numbers that are shown and not judged
OTHER, EARLIER, TOO_FEW = "other set-up", "earlier version", "too few seeds"

# flags of an experiment by which it is of other images than the paper's
IMAGES = ("max_examples", "image_size", "upscale", "upscale_padding", "subsample_classes")
# flags of trainings by which a network is none of a paper's, unless its table names them
ALTERED = (
    *IMAGES,
    "split",
    "noise",
    "pixel_shuffle",
    "epoch_images",
    "augmentation",
    "outliers",
    "resume_from",
    "label_smoothing",
    "ema",
    "kill_plateaus",
    "file",  # of an epoch before the last, which no flag sets
)

Labels = tuple[str, ...]


@dataclass
class Comparison:
    """One thing measured for one cell, or a cell that is empty: ours beside the published number.

    low, high    the 95 % interval of the mean: Student's over seeds, of one run its own; `interval_of` says over what
    networks     how many different networks the n values are of; several of one network are of seeds of its evaluation
    departures   what a run did otherwise than the paper, in words, by the name of the setting
    generated    corrupted images are not known to be the official ones, whose numbers then say nothing of them
    earlier      the runs are of an earlier version of the method, whose numbers have been corrected since
    notes        what else a reader should know, in words
    """

    labels: Labels
    cell: Cell
    published: Published | None = None
    network: str = ""
    setting: str = ""
    values: list[float] = field(default_factory=list)
    networks: int = 0
    low: float | None = None
    high: float | None = None
    interval_of: str = ""
    records: list[Path] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)
    departures: dict[str, str] = field(default_factory=dict)
    generated: bool = False
    earlier: bool = False
    notes: tuple[str, ...] = ()

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

    @property
    def as_published(self) -> bool:
        """Whether the runs did what the paper did, as far as a flag can change it, in the present version of the method."""
        return not self.earlier and not any("." in name for name in self.departures)

    @property
    def verdict(self) -> str:
        """Whether both numbers can be of the same thing (`lib.tables.verdicts`), or why nothing is judged."""
        if self.cell.lacks or not self.cell.experiment:
            return NO_EXPERIMENT
        mean, known = self.mean, self.published
        if mean is None:
            return NOT_MEASURED
        if known is None or known.value is None:
            return f"published: {NOT_FOUND}" if known is None or known.text == NOT_FOUND else "published as words"
        if self.earlier:
            return EARLIER
        if self.departures:
            return OTHER
        if self._of_one_network and not self.cell.exact:
            return TOO_FEW  # seeds of its evaluation say nothing of how networks differ
        margin, gap = self.margin, abs(mean - known.value) - known.tolerance
        if margin is not None and gap > margin + ROUNDING and (margin > 0 or self._tells):
            return "above" if mean > known.value else "below"
        return "agrees" if self._tells else TOO_FEW

    @property
    def margin(self) -> float | None:
        """How far both numbers are apart at most in 95 % of exact reproductions; None where that is unknown."""
        if self.cell.exact:
            return 0.0
        known = self.published
        return verdicts.margin(self.deviation, self.n, known.runs, known.deviation) if known and self.n else None

    @property
    def _of_one_network(self) -> bool:
        return self.n > self.networks == 1 and bool(self.network)

    @property
    def _tells(self) -> bool:
        """Whether there are seeds enough to find a difference of five deviations, or none are needed."""
        known = self.published
        return self.cell.exact or (known is not None and verdicts.tells(self.n, known.runs, known.deviation is not None))

    @property
    def note(self) -> str:
        """Everything a reader should know, as one line."""
        if self.verdict == NO_EXPERIMENT:
            return self.cell.lacks
        earlier = "of an earlier version of the method; its command runs it again" if self.earlier else ""
        other = f"{OTHER}: {', '.join(self.departures.values())}" if self.departures else ""
        few = ""
        if self.published and self.verdict == TOO_FEW:
            enough = verdicts.enough(self.published.runs, self.published.deviation is not None)
            few = f"{enough} {'networks' if self._of_one_network else 'seeds'} tell a difference of five deviations"
        return "; ".join(filter(None, (earlier, other, few, *self.notes)))


@dataclass(frozen=True)
class _Number:
    """What the rows that make one number have in common; `row` is the one row where each row is a number."""

    labels: Labels
    run: RecordedRun
    instance: Instance
    settings: str
    row: int | None


@dataclass
class _Group:
    """The rows of one cell and one thing, by what tells its runs apart and by record."""

    identity: dict
    runs: dict[Instance, dict[RecordedRun, list[dict]]] = field(default_factory=dict)


def compare(
    table: PaperTable, published: Mapping[Labels, Published], library: Library, seeds: tuple[int, ...] = ()
) -> list[Comparison]:
    """The comparisons of a table in the order of its cells.

    Open axes have the published headings first, then those measured; only runs of these seeds count, if there are any.
    """
    comparisons, every_cell = [], cells(table)
    opened = [column for column in table.axes.values() if isinstance(column, str)]
    names = list(dict.fromkeys(name for cell in every_cell for name in cell.where))
    rows = {
        experiment: _alike(experiment, names, library, seeds)
        for experiment in dict.fromkeys(cell.experiment for cell in every_cell)
        if experiment
    }
    for cell in every_cell:
        groups_of = _measured(table, cell, rows.get(cell.experiment, ()))
        known = [labels for labels in published if _fits(labels, cell.labels)]
        for labels in list(dict.fromkeys([*known, *groups_of])) or [tuple(label or "-" for label in cell.labels)]:
            groups = list(groups_of.get(labels, {}).values())
            settings = record_library.differences([group.identity for group in groups])
            comparisons += [
                _comparison(labels, cell, opened, published.get(labels), group, setting)
                for group, setting in zip(groups, settings, strict=True)
            ] or [Comparison(labels, cell, published.get(labels))]
    return comparisons


def _alike(experiment: str, names: list[str], library: Library, seeds: tuple[int, ...]) -> list[tuple[dict, list]]:
    """The rows of an experiment by all that the cells of a table ask of them, so that each answer is looked for once."""
    own = [name for name in names if "." not in name and name != "same_network"]
    alike: dict[str, tuple[dict, list]] = {}
    for run in library.of(experiment):
        for row in run.rows:
            if seeds and not set(run.seeds(row)) <= set(seeds):
                continue
            about = run.about(row)
            facts = {name: run.column(row, name) if name in own else about.get(name) for name in names}
            alike.setdefault(repr(facts), (facts, []))[1].append((run, row))
    return list(alike.values())


def _measured(table: PaperTable, cell: Cell, alike: Iterable[tuple[dict, list]]) -> dict[Labels, dict[str, _Group]]:
    """labels -> identity -> its group."""
    opened = [column for column in table.axes.values() if isinstance(column, str)]
    compared = {name.partition(".")[0] for name in (*cell.where, *cell.setup)}
    joined: dict[_Number, tuple[dict, list[dict]]] = {}  # the settings and the rows of each number
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
        number = _Number(labels, run, run.instance(row, compared), record_library.key(settings), alone)
        joined.setdefault(number, (settings, []))[1].append(row)
    groups_of: dict[Labels, dict[str, _Group]] = {}
    for number, (settings, rows) in joined.items():
        identity = settings | number.run.images(rows, joined=number.row is None)
        group = groups_of.setdefault(number.labels, {}).setdefault(record_library.key(identity), _Group(identity))
        group.runs.setdefault(number.instance, {}).setdefault(number.run, []).extend(rows)
    return groups_of


def _comparison(
    labels: Labels, cell: Cell, opened: Iterable[str], published: Published | None, group: _Group, setting: str
) -> Comparison:
    comparison = Comparison(labels, cell, published, setting=setting)
    counted, ambiguous, repeated = [], 0, 0  # counted: run, its rows
    values: dict[tuple[str, ...], list[float]] = {}  # of each network, or of all networks of a row
    for (networks, _), records in group.runs.items():
        run = record_library.latest(records)
        rows, repeated = records[run], repeated + len(records) - 1
        if isinstance(cell.metric, str):
            ambiguous += len(rows) > 1
            value = rows[0][cell.metric]
        else:
            value = cell.metric(rows)
        if value is None:
            continue
        values.setdefault(networks, []).append(float(value))
        comparison.records.extend(run.sources)
        comparison.seeds.update(run.seeds(rows[0]))
        counted.append((run, rows))
    if not counted:
        return comparison
    first, first_rows = counted[0]
    comparison.values = record_library.of_networks(values.values())
    comparison.networks = len(values)
    comparison.network = " and ".join(dict.fromkeys(map(str, first.subjects(first_rows[0]).values())))
    comparison.earlier = any(run.earlier for run, _ in counted)
    origins = {_origin(run, rows[0]) for run, rows in counted} - {"", "official"}
    comparison.generated = bool(origins)
    unlike = {name: words for run, rows in counted for name, words in _unlike(cell, opened, run, rows[0]).items()}
    comparison.departures = (
        unlike
        | _departures(cell, counted)
        | {origin: f"{origin} corruptions, not the official archive" for origin in sorted(origins)}
    )
    codes = sorted({run.code for run, _ in counted})
    comparison.notes = tuple(
        note
        for note, due in (
            (f"several versions of the code: {', '.join(codes)}", len(codes) > 1),
            (f"{repeated} repeated runs, of which the latest counts", repeated),
            (f"of each network the mean of {_counts(values)} seeds of the evaluation", len(counted) > comparison.n),
            (f"ambiguous: {ambiguous} records have several rows for this cell, the first is shown", ambiguous),
        )
        if due
    )
    comparison.low, comparison.high, comparison.interval_of = _interval(comparison, first, first_rows[0])
    return comparison


def _departures(cell: Cell, counted: list[tuple[RecordedRun, list[dict]]]) -> dict[str, str]:
    """What any of the runs did otherwise than the paper, in words, by the name of the setting.

    `rows` is the number of rows that a run's number is made from.
    """
    departures = {}
    for name, wanted in cell.setup.items():
        if wanted is None:
            continue
        facts = [(run.facts(rows[0]) | {"rows": len(rows)}).get(name) for run, rows in counted]
        other = sorted({str(fact) for fact in facts if not matches(fact, wanted)})
        if other:
            first = wanted[0] if isinstance(wanted, tuple) and wanted else wanted
            departures[name] = f"{name.rpartition('.')[2].replace('_', ' ')} {' or '.join(other)}, not {first}"
    return departures


def _unlike(cell: Cell, opened: Iterable[str], run: RecordedRun, row: dict) -> dict[str, str]:
    """What a run, or the training of its networks, did that a paper does only where its cell says so, as `_departures`."""
    named = {name.rpartition(".")[2] for name in (*cell.where, *cell.setup, *cell.run, *opened)}
    if named & {"epoch", "model"}:
        named.add("file")
    found = {f"config.{name}": value for name, value in run.setting.items() if name in IMAGES}
    for role, network in run.subjects(row).items():
        found |= {f"{role}.{name}": value for name, value in network.identity.items() if name in ALTERED}
    words = {key: (key.rpartition(".")[2], value) for key, value in found.items()}
    return {key: f"{name.replace('_', ' ')} {value}" for key, (name, value) in words.items() if name not in named}


def _counts(values: dict[tuple[str, ...], list[float]]) -> str:
    """How many values networks have, such as "5" or "3 to 5"."""
    counts = sorted({len(own) for own in values.values()})
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


def _origin(run: RecordedRun, row: dict) -> str:
    """Where the corrupted images of a row are from: "official", "generated" or "unknown"; "" of other images."""
    corrupted = any(str(row.get(column) or "").endswith("-c") for column in run.columns.sets)
    return row.get("origin") or ("unknown" if corrupted else "")


def _interval(comparison: Comparison, run: RecordedRun, row: dict) -> tuple[float | None, float | None, str]:
    """The 95 % interval and what it is over: Student's over several seeds, else that of the single run's row.

    Student's ends where the column's range does: few seeds would have a share above 1, or a correlation below -1.
    """
    mean, deviation, columns = comparison.mean, comparison.deviation, comparison.cell.interval
    if mean is not None and deviation is not None:
        from scipy.special import stdtrit  # tables of one seed need no scipy

        half = float(stdtrit(comparison.n - 1, 0.975)) * deviation / math.sqrt(comparison.n)
        metric = comparison.cell.metric
        column = run.columns.numbers.get(metric) if isinstance(metric, str) else None
        least, most = (column.least, column.most) if column else (None, None)
        low = mean - half if least is None else max(mean - half, least)
        high = mean + half if most is None else min(mean + half, most)
        return low, high, "seeds of one network's evaluation" if comparison._of_one_network else "seeds"
    low, high = (row.get(column) for column in columns) if columns else (None, None)
    over = OVER.get(columns[0]) or row.get("over") or "images" if columns else ""
    return (low, high, over) if columns and None not in (low, high) else (None, None, "")


def _fits(labels: Iterable[str], wanted: tuple[str | None, ...]) -> bool:
    labels = tuple(labels)
    return len(labels) == len(wanted) and all(want in (None, label) for label, want in zip(labels, wanted, strict=True))
