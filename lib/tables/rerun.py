"""Repeats the run that a record describes, and compares the results."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from lib.core import trusted_files
from lib.core.errors import UntrustedFile, UserError
from lib.runs import cli, records
from lib.runs.command_lines import Experiment, Experiments

# columns that no two runs share: clocks, where a detector lies, and which record had a stitch already
OWN = ("seconds", "images_per_second", "time_id", "time_ood", "detector", "taken_from")
MOST = 5  # differences that are told


def rerun(path: Path, experiments: Experiments, trusted: tuple[str, ...] = ()) -> str:
    """Runs the record's command again, in this working directory, in place of the record.

    trusted   the Python files that the record may name as types of networks

    Raises `UserError` where it is not a record that its command would write, `UntrustedFile` for another Python file.
    """
    record, _ = _read(path, experiments, trusted)
    if path.absolute().parent.name != record["experiment"]:
        raise UserError(f"{path}: a copy of a record; the record itself lies in a folder {record['experiment']}")
    before = path.stat().st_mtime_ns
    _run(path, record, trusted, "--results-dir", os.path.relpath(path.absolute().parent.parent), "--overwrite")
    if path.stat().st_mtime_ns == before:
        raise UserError(f"{path}: its command wrote a record of another name beside it")
    return f"{path} was made again"


def check(path: Path, experiments: Experiments, trusted: tuple[str, ...] = ()) -> str:
    """Runs the command into a folder of its own and compares the rows; raises `UserError` where they differ.

    trusted   the Python files that the record may name as types of networks
    """
    record, experiment = _read(path, experiments, trusted)
    if records.revision(record) < experiment.revision:
        raise UserError(f"{path}: of an earlier version of the method, whose numbers were other; --rerun makes it again")
    with tempfile.TemporaryDirectory() as folder:
        aside = _aside(record, experiment.configuration.aside, Path(folder) / "models")
        _run(path, record, trusted, "--results-dir", folder, *aside, "--overwrite")
        made = [again for _, again in records.records(folder, {record["experiment"]: experiment})]
    tolerance = records.tolerance(record)
    found = differences(record["rows"], made[0]["rows"], tolerance)
    if found:
        more = f", and {len(found) - MOST} more" if len(found) > MOST else ""
        raise UserError(f"{path}: repeated, {'; '.join(found[:MOST])}{more}, beyond its tolerance of {tolerance:g}")
    return f"{path}: repeated, all {len(record['rows'])} rows agree within its tolerance of {tolerance:g}"


def _read(path: Path, experiments: Experiments, trusted: tuple[str, ...]) -> tuple[dict, Experiment]:
    """The record, whose command is one of its experiment and runs no code but trusted files; and the experiment."""
    record = records.read(path)
    name, command = record["experiment"], record["command"]
    if name not in experiments:
        raise UserError(f"{path}: the record of an experiment {name}, which the suite has not")
    if command[:1] != [f"exec_{name}.py"]:
        raise UserError(f"{path}: its command {' '.join(command[:1])} is not the suite's script exec_{name}.py")
    try:
        config = cli.parse(experiments[name].configuration, command[1:])
    except (UserError, SystemExit) as error:  # --help exits
        raise UserError(f"{path}: its command {shlex.join(command)} is refused: {error}") from None
    if not config.repeatable():
        raise UserError(f"{path}: its command {shlex.join(command)} makes no record; it is not run")
    allowed = {Path(file).resolve() for file in trusted}
    for file in [*trusted_files.named(command[1:]), *config.trust]:
        if Path(file).resolve() not in allowed:
            raise UntrustedFile(f"{path}: its command would run {file}", file)
    return record, experiments[name]


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


def _run(path: Path, record: dict, trusted: tuple[str, ...], *further: str) -> None:
    name, *words = record["command"]
    script = Path(__file__).resolve().parents[2] / name  # beside lib, in the checkout and where it is installed
    if not script.is_file():
        raise UserError(f"{path}: {script} is not there")
    threads = {"OMP_NUM_THREADS": str(record["environment"]["threads"])} if record["environment"].get("threads") else {}
    trust = ["--trust", *trusted] if trusted else []
    done = subprocess.run([sys.executable, str(script), *words, *further, *trust], env={**os.environ, **threads})
    if done.returncode:
        raise UserError(f"{path}: its command failed with exit status {done.returncode}")
