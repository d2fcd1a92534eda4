"""Searching and merging ten thousand records: by the index beside reading every record, and folders of four machines in one.

    python benchmarks/record_library.py [COUNT]

The records are of probes, with 20 rows of 13 columns each. The plain way of a question is to read every record; the plain
way of merging is to copy the folders over one another, which loses what differs. The index is there already: making it takes
as long as the plain way of a question, once, and is printed.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.timing import compared, seconds
from lib.experiments import EXPERIMENTS
from lib.runs import command_lines, records
from lib.tables import record_index, record_merge, record_queries

MACHINES, ROWS = 4, 20
FILTERS = ("layer=layer1.2", "network=models/n3")


def main(count: int = 10_000) -> None:
    """Prints the seconds of both ways, and notes them for the table of all benchmarks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        machines = [folder / f"machine{number}" for number in range(MACHINES)]
        for number in range(count):
            write(machines[number % MACHINES], number)

        def copy() -> None:
            for machine in machines:
                shutil.copytree(machine, folder / "copied", dirs_exist_ok=True)
            os.sync()

        plain = seconds(copy)
        ours = seconds(lambda: record_merge.merge(machines, folder / "merged", EXPERIMENTS))
        there = len(list((folder / "merged" / "probe").glob("*.json")))
        report(f"merging {count} records of {MACHINES} folders", plain, ours, f"{there} records, 0 lost")

        first = seconds(lambda: search(folder))
        begin = time.perf_counter()
        slow = read_all(folder / "merged")
        plain = time.perf_counter() - begin
        begin = time.perf_counter()
        found = search(folder)
        ours = time.perf_counter() - begin
        agreement = "the same row" if abs(found - slow) < 1e-12 else f"{found} instead of {slow}"
        print(f"the first question, which makes the index: {first:.2f} s")
        report(f"the best of {count} records that fit two conditions", plain, ours, agreement)


def report(job: str, plain: float, ours: float, agreement: str) -> None:
    """Prints a comparison and notes it."""
    print(f"{job}: plain {plain:.2f} s, ours {ours:.2f} s; {agreement}", flush=True)
    compared(job, plain, ours, agreement=agreement)


def write(folder: Path, number: int) -> None:
    """The record of a probe, all of its numbers drawn from `number`."""
    rows = [
        {
            "probe": "zero-shot",
            "layer": f"layer{place // 4}.{place % 4}",
            "data": "digits",
            "split": "test",
            "variant": "",
            "origin": "built-in",
            "group": "all",
            "seed": number % 5,
            "accuracy": (number * 7919 + place * 31) % 10007 / 10007,
            "se": 0.01,
            "n": 355,
            "dim": 64,
            "lr": 1e-3,
        }
        for place in range(ROWS)
    ]
    config = {"model_path": f"models/n{number % 50}/model_4.pt", "dataset": "digits", "seed": [number % 5]}
    record = {
        "schema": records.SCHEMA,
        "experiment": "probe",
        "revision": EXPERIMENTS["probe"].revision,
        "config": config,
        "command": command_lines.command(EXPERIMENTS, "probe", config).split()[1:],
        "inputs": {},
        "environment": {},
        "started": f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}+00:00",
        "seconds": {},
        "rows": rows,
    }
    path = folder / "probe" / f"r{number:05}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1))


def search(folder: Path) -> float:
    """The answer by the index, which is brought up to date first."""
    index = record_index.Index(str(folder / "merged"), EXPERIMENTS, str(folder / "cache"))
    query = record_queries.parse(FILTERS, EXPERIMENTS)
    return record_queries.best(index, "accuracy", query).rows[0]["accuracy"]


def read_all(folder: Path) -> float:
    """The answer from every record."""
    return max(
        row["accuracy"]
        for _, record in records.records(folder, {"probe": EXPERIMENTS["probe"]})
        if record["config"]["model_path"].startswith("models/n3/")
        for row in record["rows"]
        if row["layer"] == "layer1.2"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
