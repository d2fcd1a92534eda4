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
CUTS = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]


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


def network(folder) -> str:
    """A network whose energies rise, whose bias falls and whose similarity to its sibling wavers over six blocks."""
    path, sibling = (
        records.training(folder, f"r{seed}", seed=seed, model_type="resnet20", dataset="cifar10") for seed in range(2)
    )
    records.write(
        folder,
        "ood_layers",
        "o",
        [
            {"layer": layer, "score": "energy", "T": 1.0, "auroc": 0.1 * number + shift, "auroc_two_sided": 0.9, "ood": ood}
            for ood, shift in (("svhn", 0.0), ("mnist", 0.2))
            for number, layer in enumerate(["conv1", *(f"{cut}.bn2" for cut in CUTS), "fc"])
        ],
        model_path=path,
    )
    records.write(
        folder,
        "projections",
        "p",
        [
            {"layer": f"{cut}.conv{inner}", "checkpoint": path, "folded": False, "mass": 0.5 + sign * 0.01 * (6 - number)}
            for number, cut in enumerate(CUTS)
            for inner, sign in ((1, 1), (2, -1))
        ]
        + [{"layer": "net", "checkpoint": path, "folded": False, "mass": 0.9}],
        model_path=[path],
    )
    records.write(
        folder,
        "similarity",
        "s",
        [
            {"layer1": one, "layer2": two, "rank1": None, "rank2": None, "cka": value if one == two else 0.99}
            for one, value in zip(CUTS, (0.9, 0.2, 0.8, 0.3, 0.7, 0.4), strict=True)
            for two in CUTS
        ],
        model1_path=path,
        model2_path=sibling,
    )
    return path
