"""Repeating the run that a record describes, and comparing what comes out with it."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from lib.core.errors import UserError
from lib.runs import records
from lib.runs.command_lines import Experiment, Experiments

# columns that no two runs share: clocks, where a detector lies, and which record had a stitch already
OWN = ("seconds", "images_per_second", "time_id", "time_ood", "detector", "taken_from")
MOST = 5  # differences that are told


def rerun(path: Path, experiments: Experiments) -> str:
    """Runs the record's command again, in this working directory, in place of the record.

    Raises `UserError` where it is not a record that its command would write.
    """
    record, _ = _read(path, experiments)
    if path.absolute().parent.name != record["experiment"]:
        raise UserError(f"{path}: a copy of a record; the record itself lies in a folder {record['experiment']}")
    before = path.stat().st_mtime_ns
    _run(path, record, "--results-dir", os.path.relpath(path.absolute().parent.parent), "--overwrite")
    if path.stat().st_mtime_ns == before:
        raise UserError(f"{path}: its command wrote a record of another name beside it")
    return f"{path} was made again"


def check(path: Path, experiments: Experiments) -> str:
    """Runs the command into a folder of its own and compares the rows; raises `UserError` where they differ."""
    record, experiment = _read(path, experiments)
    if records.revision(record) < experiment.revision:
        raise UserError(f"{path}: of an earlier version of the method, whose numbers were other; --rerun makes it again")
    with tempfile.TemporaryDirectory() as folder:
        aside = _aside(record, experiment.configuration.aside, Path(folder) / "models")
        _run(path, record, "--results-dir", folder, *aside, "--overwrite")
        made = [again for _, again in records.records(folder, {record["experiment"]: experiment})]
    tolerance = records.tolerance(record)
    found = differences(record["rows"], made[0]["rows"], tolerance)
    if found:
        more = f", and {len(found) - MOST} more" if len(found) > MOST else ""
        raise UserError(f"{path}: repeated, {'; '.join(found[:MOST])}{more}, beyond its tolerance of {tolerance:g}")
    return f"{path}: repeated, all {len(record['rows'])} rows agree within its tolerance of {tolerance:g}"


def _read(path: Path, experiments: Experiments) -> tuple[dict, Experiment]:
    """The record, and the experiment that it is of."""
    record = records.read(path)
    if record["experiment"] not in experiments:
        raise UserError(f"{path}: the record of an experiment {record['experiment']}, which the suite has not")
    return record, experiments[record["experiment"]]


def _aside(record: dict, flags: tuple[str, ...], models: Path) -> list[str]:
    """Those flags, with links in the folder `models` to the checkpoints there are.

    A run reads through these, and replaces them.
    """
    if "{models}" in flags:
        there = Path(record["config"].get("models_dir", "models"))
        for file in there.rglob("[!.]*"):
            if file.is_file():
                link = models / file.relative_to(there)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
    return [str(models) if flag == "{models}" else flag for flag in flags]


def differences(before: list[dict], after: list[dict], tolerance: float) -> list[str]:
    """What differs between two lists of rows, as sentences; numbers below 1 by so much, larger ones by that share."""
    if len(before) != len(after):
        return [f"{len(after)} rows instead of {len(before)}"]
    found = []
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        for column in dict.fromkeys([*one, *other]):
            if column not in OWN and not _agree(one.get(column), other.get(column), tolerance):
                found.append(f"{column} of row {number} is {other.get(column)} instead of {one.get(column)}")
    return found


def _agree(one, other, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return abs(one - other) <= tolerance * max(1, abs(one), abs(other)) if numbers else one == other


def _run(path: Path, record: dict, *further: str) -> None:
    command = record["command"]
    script = _script(command[0]) if command else None
    if script is None:
        raise UserError(f"{path}: its command {' '.join(command[:1])} is no script of the suite")
    threads = {"OMP_NUM_THREADS": str(record["environment"]["threads"])} if record["environment"].get("threads") else {}
    done = subprocess.run([sys.executable, str(script), *command[1:], *further], env={**os.environ, **threads})
    if done.returncode:
        raise UserError(f"{path}: its command failed with exit status {done.returncode}")


def _script(name: str) -> str | None:
    """The file of a script of the suite, in the checkout or where it is installed; None for any other name."""
    if not re.fullmatch(r"exec_\w+\.py", name):
        return None
    module = importlib.util.find_spec(name.removesuffix(".py"))
    return module.origin if module else None
