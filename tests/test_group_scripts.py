"""Waterbirds from the command line: training, evaluation, probes, and what exec_data.py shows."""

import json
from pathlib import Path

import pytest
from conftest import script
from layouts import (
    write_mnist,
    write_waterbirds,
)
from records import newest

from lib.experiments import EXPERIMENTS
from lib.experiments.config.data import DataConfig
from lib.runs import cli
from lib.runs import script as script_


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    """A working directory with a small Waterbirds under `data`, and a network trained on it for an epoch."""
    folder = tmp_path_factory.mktemp("birds")
    write_waterbirds(folder / "data", ((20, 6, 4, 14), (5, 5, 5, 5), (6, 6, 0, 4)))
    done = script(
        "exec_train.py", "small_cnn", "-d", "waterbirds-squash", "-dir", "a", "-e", 1, "--image-size", 32, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_training_validates_on_the_sets_own_validation_split(birds):
    (row,) = newest(birds, "train")["rows"]
    assert (row["selected_on"], row["n_val"]) == ("waterbirds-squash:val accuracy", 20)


def test_evaluation_and_probes_name_the_worst_group_and_a_missing_one(birds):
    done = script("exec_eval.py", "models/a/model_1.pt", "-d", "waterbirds-squash", "-d", "waterbirds-squash:val", cwd=birds)
    assert done.returncode == 0 and "no image of group waterbird, land" in done.stderr, done.stderr
    found = {(row["split"], row["subset"]): row for row in newest(birds, "eval")["rows"]}
    groups = [
        found["val", f"group:{name}"]
        for name in ("landbird, land", "landbird, water", "waterbird, land", "waterbird, water")
    ]
    assert [row["n"] for row in groups] == [5] * 4 and found["test", "group:waterbird, land"]["n"] == 0
    for split in ("test", "val"):
        ((name, worst),) = [(subset, row) for (part, subset), row in found.items() if part == split and "worst" in subset]
        there = {
            subset: row["accuracy"]
            for (part, subset), row in found.items()
            if part == split and "group:" in subset and "worst" not in subset and row["n"]
        }
        assert worst["accuracy"] == min(there.values()) == there[name.replace("worst ", "")]

    done = script("exec_probe.py", "models/a/model_1.pt", "-ood", "waterbirds-squash", "-l", "avgpool", "-e", 1, cwd=birds)
    assert done.returncode == 0 and "no test image of group waterbird, land" in done.stderr, done.stderr
    probed = newest(birds, "probe")["rows"]
    assert any(row["group"] and row["group"].startswith("worst: ") for row in probed)


def test_data_shows_groups_and_channels(birds, monkeypatch):
    monkeypatch.chdir(birds)
    write_mnist(birds / "data")
    for name, figures in (("waterbirds", 3), ("cmnist-domainbed", 6)):
        script_.run(EXPERIMENTS, "data", cli.parse(DataConfig, ["show", name, "--quiet"]), ["exec_data.py", "show", name])
        assert len(list((birds / "results" / "data").glob("*.png"))) == figures
    counts = {
        (row["data"], row["split"], row["subset"]): row["n"]
        for file in (birds / "results" / "data").glob("*.json")
        for row in json.loads(file.read_text())["rows"]
    }
    assert counts["waterbirds", "train", "group:landbird, water"] == 6
    assert counts["waterbirds", "test", "group:waterbird, land"] == 0
    assert counts["cmnist-domainbed", "val", "all"] == 6
