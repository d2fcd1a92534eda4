"""Repeating the run that a record describes, and comparing what comes out with it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lib import results
from lib.errors import UserError

CLOCKS = ("seconds", "images_per_second", "time_id", "time_ood")  # columns that no two runs share
MOST = 5  # differences that are told


def rerun(path: Path) -> str:
    """Runs the record's command again, in this working directory, in place of the record."""
    _run(path, results.read(path), "--overwrite")
    return f"{path} was made again"


def check(path: Path) -> str:
    """Runs the command into a folder of its own and compares the rows; raises `UserError` where they differ."""
    record = results.read(path)
    with tempfile.TemporaryDirectory() as folder:
        apart = ["--results-dir", folder, *(["--models-dir", folder] if record["experiment"] == "train" else [])]
        _run(path, record, *apart, "--overwrite")
        made = [again for _, again in results.records(folder, (record["experiment"],))]
    tolerance = results.tolerance(record)
    found = differences(record["rows"], made[0]["rows"], tolerance)
    if found:
        more = f", and {len(found) - MOST} more" if len(found) > MOST else ""
        raise UserError(f"{path}: repeated, {'; '.join(found[:MOST])}{more}, beyond its tolerance of {tolerance:g}")
    return f"{path}: repeated, all {len(record['rows'])} rows agree within its tolerance of {tolerance:g}"


def differences(before: list[dict], after: list[dict], tolerance: float) -> list[str]:
    """What differs between two lists of rows, as sentences; numbers below 1 by so much, larger ones by that share."""
    if len(before) != len(after):
        return [f"{len(after)} rows instead of {len(before)}"]
    found = []
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        for column in dict.fromkeys([*one, *other]):
            if column not in CLOCKS and not _agree(one.get(column), other.get(column), tolerance):
                found.append(f"{column} of row {number} is {other.get(column)} instead of {one.get(column)}")
    return found


def _agree(one, other, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return abs(one - other) <= tolerance * max(1, abs(one), abs(other)) if numbers else one == other


def _run(path: Path, record: dict, *further: str) -> None:
    command = record["command"]
    script = Path(__file__).resolve().parents[1] / command[0]
    if not script.is_file():
        raise UserError(f"{path}: its command {command[0]} is no script of the suite")
    threads = {"OMP_NUM_THREADS": str(record["environment"]["threads"])} if record["environment"].get("threads") else {}
    done = subprocess.run([sys.executable, str(script), *command[1:], *further], env={**os.environ, **threads})
    if done.returncode:
        raise UserError(f"{path}: its command failed with exit status {done.returncode}")
