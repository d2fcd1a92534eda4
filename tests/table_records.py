"""Records with known numbers, and the tables that the chapters on tables make of them."""

import records
from conftest import script

from lib.experiments import EXPERIMENTS
from lib.runs import records as runs_records
from lib.tables import (
    compare,
    papers,
    record_library,
)
from lib.tables.papers import published
from lib.tables.papers.spec import PaperTable, Value

EVERY = papers.chosen(())


def library(folder) -> record_library.Library:
    return record_library.Library(runs_records.records(folder / "results", EXPERIMENTS), EXPERIMENTS)


def ncg_row(path: str, value: float, **changes) -> dict:
    return {
        "model": path,
        "train": "mnist-wo0",
        "data": "mnist-wo0",
        "split": "ood",
        "variant": "",
        "origin": "",
        "space": "pixel",
        "subset": "all",
        "in_distribution": False,
        "n": 6903,
        "ncg": value,
        "accuracy": None,
        "ncg_low": value and value - 0.01,
        "ncg_high": value and value + 0.01,
    } | changes


NCG = PaperTable(
    "",
    {"set": (Value("M-0", {"net.dataset": "mnist-wo0"}),)},
    "ncg",
    {"space": "pixel", "subset": "all", "in_distribution": False},
    {"net.epochs": 70},
    metric="ncg",
    interval=("ncg_low", "ncg_high"),
)


KNOWN = {("M-0",): published.Published(0.36, "0.36", "a source", "NB", 0.005)}


def fill(folder, table=NCG, known=KNOWN, seeds=()) -> list[compare.Comparison]:
    return compare.compare(table, known, library(folder), seeds)


def three_seeds(folder, values=(0.30, 0.36, 0.39), **changes) -> None:
    for seed, (place, value) in enumerate(zip("abc", values, strict=True)):
        path = records.training(folder, f"{place}/{seed}", seed=seed)
        records.write(folder, "ncg", f"n{seed}", [ncg_row(path, value, **changes)], model_path=path, seed=seed)


GAINS = PaperTable("", {"set": (Value("fog", {"probe": "gain"}),)}, "probe", metric="gain")


def gain_row(value: float, **changes) -> dict:
    return {
        "probe": "gain",
        "data": "cifar10-c",
        "split": "test",
        "variant": "fog-5",
        "origin": "official",
        "group": "all",
        "seed": None,
        "gain": value,
    } | changes


def known(content: str) -> dict:
    """What a record says of a file that it read."""
    return {"sha256": content, "bytes": 1, "files": 1}


def started(day: int) -> dict:
    return {"started": f"2026-01-0{day}T00:00:00+00:00"}


def read(folder, name: str, path: str, day: int, content: str = "", value: float = 0.3) -> None:
    records.write(
        folder,
        "ncg",
        name,
        [ncg_row(path, value)],
        model_path=path,
        **started(day),
        inputs={path: {"sha256": content * 64, "bytes": 1, "files": 1}} if content else {},
    )


def tables(folder, *words):
    return script("exec_tables.py", *words, cwd=folder)
