"""A cell of a paper's table says the same of its runs in whatever order they are found."""

import itertools

import pytest
import records
from table_records import library

from lib.tables import compare
from lib.tables.papers.published import Published
from lib.tables.papers.spec import PaperTable, Value

# the mean over two corruptions, as the paper has it
TABLE = PaperTable(
    "",
    {"set": (Value("C", {"probe": "probe"}, {"rows": 2}),)},
    "probe",
    metric=lambda rows: sum(row["accuracy"] for row in rows) / len(rows),
)
KNOWN = {("C",): Published(0.5, "0.5", "a source", "P", 0.1)}


def write(folder, name: str, seed: int, accuracies: tuple[float, ...]) -> None:
    path = records.training(folder, f"{name}/{seed}", seed=seed)
    rows = [
        {"probe": "probe", "data": "cifar10", "split": "test", "group": "all", "seed": None, "accuracy": accuracy}
        for accuracy in accuracies
    ]
    records.write(folder, "probe", name, rows, model_path=path)


@pytest.mark.parametrize("order", list(itertools.permutations("ab")))
def test_a_run_with_fewer_rows_than_the_paper_is_named_whichever_comes_first(tmp_path, order):
    for seed, (name, accuracies) in enumerate(zip(order, ((0.4, 0.6), (0.5,)), strict=True)):
        write(tmp_path, name, seed, accuracies)
    (line,) = compare.compare(TABLE, KNOWN, library(tmp_path))
    assert line.n == 2 and line.verdict == compare.OTHER and line.note == "other set-up: rows 1, not 2"


def test_runs_that_depart_in_several_ways_are_all_named(tmp_path):
    for seed, (name, accuracies) in enumerate((("a", (0.4, 0.5, 0.6)), ("b", (0.5,)), ("c", (0.4, 0.6)))):
        write(tmp_path, name, seed, accuracies)
    (line,) = compare.compare(TABLE, KNOWN, library(tmp_path))
    assert line.note == "other set-up: rows 1 or 3, not 2"
