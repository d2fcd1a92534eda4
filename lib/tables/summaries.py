"""A table per experiment: the measures of its records, with runs that differ only in their seeds in one line."""

import statistics
from collections.abc import Iterable

from lib.core.errors import UsageError
from lib.core.registry import near
from lib.runs.columns import Summary
from lib.runs.command_lines import Experiments
from lib.tables import record_library
from lib.tables.record_library import Instance, Library, Origin, RecordedRun


def summarised(experiments: Experiments) -> list[str]:
    """The experiments that have a table."""
    return [name for name, experiment in experiments.items() if experiment.configuration.summary is not None]


def rows(experiment: str, library: Library, seeds: tuple[int, ...] = (), group_by: str = "") -> list[dict]:
    """The rows of `lines`."""
    return lines(experiment, library, seeds, group_by)[0]


def lines(
    experiment: str, library: Library, seeds: tuple[int, ...] = (), group_by: str = ""
) -> tuple[list[dict], list[Origin]]:
    """Per network, setting and key: of each measured column the mean, the sample deviation, and how many runs.

    With `group_by`, a column of the rows such as `role`, the layers of a run that share its value are one row, their mean;
    `layers` is how many they are. No row, where no row of the experiment has this column.

    The deviation of a single run does not exist and is left empty: one seed is shown as one seed. Where lines differ in
    nothing else, `setting` says in what, `code` of which versions of the code several are mixed, and
    `version` that a line is of an earlier version of the method. The second list has what each row is of.
    """
    summary, groups = library.experiments[experiment].configuration.summary, {}
    if summary is None:
        raise ValueError(f"{experiment} has no table")
    keys = summary.keys
    if group_by:
        keys = (*(key for key in keys if not key.endswith("layer") and key != group_by), group_by, "layers")
    for run in library.of(experiment):
        shown = filter(summary.shown, run.rows)
        for row in _grouped(shown, keys, summary.measured, group_by) if group_by else shown:
            if seeds and not set(run.seeds(row)) <= set(seeds):
                continue
            about = {"run": _title(run, row), **{column: row.get(column) for column in keys}}
            identity = run.identity(row)
            key = (tuple(about.values()), record_library.key(identity))
            members = groups.setdefault(key, (about, identity, {}))[2].setdefault(run.instance(row), {})
            members.setdefault(run, []).append(row)
    found = [
        _line(
            summary, about, {name: (latest := record_library.latest(runs), runs[latest]) for name, runs in instances.items()}
        )
        for about, _, instances in groups.values()
    ]
    for line, setting in zip(found, _settings(list(groups.values())), strict=True):
        line["setting"] = setting
    kept = [column for column in (found[0] if found else ()) if any(line[column] not in (None, "") for line in found)]
    origins = [
        record_library.joined(run.origin(rows[0]) for runs in instances.values() for run, rows in runs.items())
        for _, _, instances in groups.values()
    ]
    return [{column: line[column] for column in kept} for line in found], origins


def _grouped(shown: Iterable[dict], keys: tuple[str, ...], measured: tuple[str, ...], group_by: str) -> list[dict]:
    """One row for all that agree in the keys, with the means of what was measured; rows without the column are left out."""
    groups: dict[tuple, list[dict]] = {}
    for row in shown:
        if row.get(group_by) is not None:
            groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return [{**members[0], **_means(members, measured), "layers": len(members)} for members in groups.values()]


def grouped(lines: list[dict], measured: tuple[str, ...], group_by: str) -> list[dict]:
    """The lines of a table of layers, those with the same value of a column made one, their mean, and how many they are.

    Raises `UsageError` where the lines have no such column.
    """
    if not any(line.get(group_by) is not None for line in lines):
        others = [column for column in (lines[0] if lines else ()) if column not in ("layer", *measured)]
        raise UsageError(f"--group-by {group_by}: the table has no such column; {near(group_by, others)}")
    groups: dict[object, list[dict]] = {}
    for line in lines:
        groups.setdefault(line.get(group_by), []).append(line)
    return [
        {group_by: value, "layers": len(members), **_means(members, measured)}
        for value, members in groups.items()
        if value is not None
    ]


def _means(members: list[dict], measured: tuple[str, ...]) -> dict[str, float | None]:
    numbers = {column: [row[column] for row in members if row.get(column) is not None] for column in measured}
    return {column: statistics.fmean(values) if values else None for column, values in numbers.items()}


def _line(summary: Summary, about: dict, instances: dict[Instance, tuple[RecordedRun, list[dict]]]) -> dict:
    """One line. Seeds of one network's evaluation are no networks: of several networks each counts once, by its mean.

    Rows of one record that nothing tells apart, such as draws of fresh weights, each count.
    """
    line = {"run": about["run"], "setting": "", **about}
    of_networks: dict[tuple[str, ...], list[dict]] = {}
    for (networks, _), (_, rows) in instances.items():
        of_networks.setdefault(networks, []).extend(rows)
    several = len(of_networks) > 1
    for column in summary.measured:
        numbers = record_library.of_networks(
            [row[column] for row in rows if row.get(column) is not None] for rows in of_networks.values()
        )
        line[column] = record_library.mean(numbers) if numbers else None
        line[f"{column} sd"] = statistics.stdev(numbers) if len(numbers) > 1 else None
    count = len(of_networks) if several else sum(map(len, of_networks.values()))
    runs = [run for run, _ in instances.values()]
    codes = sorted({run.code for run in runs})
    version = "of an earlier version" if any(run.earlier for run in runs) else ""
    one = "1" if count > 1 and not several and any(of_networks) else ""
    return {**line, "runs": count, "networks": one, "code": " ".join(codes) if len(codes) > 1 else "", "version": version}


def _settings(groups: list[tuple]) -> list[str]:
    """What distinguishes lines that look alike."""
    alike: dict[tuple, list[int]] = {}
    for place, (about, _, _) in enumerate(groups):
        alike.setdefault(tuple(about.values()), []).append(place)
    found = [""] * len(groups)
    for places in alike.values():
        for place, words in zip(places, record_library.differences([groups[place][1] for place in places]), strict=True):
            found[place] = words
    return found


def _title(run: RecordedRun, row: dict) -> str:
    """The networks that a row is of."""
    return " and ".join(dict.fromkeys(map(str, run.subjects(row).values())))
