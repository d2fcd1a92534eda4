"""One table per experiment: what its records measured, runs that differ only in their seeds in one line."""

import statistics

from lib.runs.columns import Summary
from lib.runs.command_lines import Experiments
from lib.tables import record_library
from lib.tables.record_library import Library, RecordedRun


def summarised(experiments: Experiments) -> list[str]:
    """The experiments that have a table."""
    return [name for name, experiment in experiments.items() if experiment.configuration.summary is not None]


def rows(experiment: str, library: Library, seeds: tuple[int, ...] = ()) -> list[dict]:
    """Per network, setting and key: of each measured column the mean, the sample deviation, and how many runs.

    The deviation of a single run does not exist and is left empty: one seed is shown as one seed. Where lines differ in
    nothing else, `setting` says in what, `code` of which versions of the code several are mixed, and
    `version` that a line is of an earlier version of the method.
    """
    summary, groups = library.experiments[experiment].configuration.summary, {}
    if summary is None:
        raise ValueError(f"{experiment} has no table")
    for run in library.of(experiment):
        for row in filter(summary.shown, run.rows):
            if seeds and not set(run.seeds(row)) <= set(seeds):
                continue
            about = {"run": _title(run, row), **{column: row.get(column) for column in summary.keys}}
            identity = run.identity(row)
            key = (tuple(about.values()), record_library.key(identity))
            groups.setdefault(key, (about, identity, {}))[2].setdefault(run.instance(row), {})[run] = row
    found = [
        _line(summary, about, [(latest := record_library.latest(runs), runs[latest]) for runs in instances.values()])
        for about, _, instances in groups.values()
    ]
    for line, setting in zip(found, _settings(list(groups.values())), strict=True):
        line["setting"] = setting
    kept = [column for column in (found[0] if found else ()) if any(line[column] not in (None, "") for line in found)]
    return [{column: line[column] for column in kept} for line in found]


def _line(summary: Summary, about: dict, members: list[tuple[RecordedRun, dict]]) -> dict:
    line = {"run": about["run"], "setting": "", **about}
    for column in summary.measured:
        numbers = [row[column] for _, row in members if row.get(column) is not None]
        line[column] = numbers[0] if len(set(numbers)) == 1 else statistics.fmean(numbers) if numbers else None
        line[f"{column} sd"] = statistics.stdev(numbers) if len(numbers) > 1 else None
    codes = sorted({run.code for run, _ in members})
    version = "of an earlier version" if any(run.earlier for run, _ in members) else ""
    return {**line, "runs": len(members), "code": " ".join(codes) if len(codes) > 1 else "", "version": version}


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
