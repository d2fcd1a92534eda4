"""A thousand classes: what is printed, what is drawn, and what the record has."""

import numpy as np
import torch

from lib.datasets.split import Split
from lib.experiments import eval as evaluation
from lib.experiments.config.eval import EvalConfig
from lib.plots import confusion
from lib.runs.records import Result


def test_the_classes_of_the_largest_shares_are_drawn_with_what_goes_elsewhere():
    counts = np.diag(np.full(1000, 10))
    for true, predicted, wrong in ((7, 900, 9), (400, 3, 8), (401, 999, 7)):
        counts[true, true] -= wrong
        counts[true, predicted] += wrong
    counts[7, 7], counts[7, 500] = 0, 1
    assert confusion.most_confused(counts / 10, 4) == [3, 7, 400, 900]
    figure = confusion.confusion(counts, tuple(map(str, range(1000))), "t")
    axes, shares = figure.axes[0], figure.axes[0].images[0].get_array()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == 30 and {"7", "900", "400", "3", "401", "999"} <= set(names)
    assert [label.get_text() for label in axes.get_xticklabels()] == [*names, "any other"]
    assert np.allclose(shares.sum(1), 100)
    assert "the 30 of 1000 classes that are confused" in " ".join(figure.get_suptitle().split())
    seven = names.index("7")
    assert np.isclose(shares[seven, names.index("900")], 90) and np.isclose(shares[seven, -1], 0 if "500" in names else 10)
    whole = confusion.confusion(counts[:100, :100], tuple(map(str, range(100))), "t")
    assert whole.axes[0].images[0].get_array().shape == (100, 100)


def test_the_worst_classes_are_printed_and_the_record_has_all():
    labels = torch.arange(2000) % 1000
    logits = torch.nn.functional.one_hot(torch.where(labels % 50 == 0, (labels + 1) % 1000, labels), 1000).float()
    split = Split(
        "many", "test", torch.zeros(2000, 1, 1, 1, dtype=torch.uint8), labels, classes=tuple(f"c{k}" for k in range(1000))
    )
    rows = evaluation._rows(split, logits, labels, None, EvalConfig(model_path="x"))
    hidden = {id(row) for row in evaluation._better_classes(rows)}
    shown = [row["subset"] for row in rows if id(row) not in hidden]
    assert shown == ["all", *(f"class:c{k}" for k in range(0, 1000, 50))] and len(rows) == 1001
    result = Result(rows, columns=("subset", "n", "accuracy"), printed=lambda row: id(row) not in hidden)
    text = result.text().splitlines()
    assert len(text) == 2 + 21 + 1 and text[-1] == "980 more rows are in the record"
