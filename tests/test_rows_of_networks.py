"""Whose a row is: weights of another run, repeated trainings, folders that were trained anew, absolute paths."""

import json

import pytest
import records
from table_records import EVERY, GAINS, fill, gain_row, known, library, ncg_row, read, started

from lib.tables import (
    compare,
)
from lib.tables.papers.spec import PaperTable, Value


def test_weights_of_another_run_are_told_from_those_of_the_networks_own(tmp_path):
    drop = PaperTable("", {"layer": "layer"}, "reinit", {"source": "0"}, metric="relative_drop")
    far = PaperTable("", {"layer": "layer"}, "projections", metric="l2_distance")
    for seed in range(3):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        initial = f"models/t{min(seed, 1)}/init.pt"  # the third's is the second's
        records.write(
            tmp_path,
            "reinit",
            f"r{seed}",
            [{"layer": "conv", "source": "0", "relative_drop": 0.1 + seed}],
            model_path=path,
            inits_from=(initial,),
            inputs={name: known(name) for name in (path, initial)},
        )
        records.write(
            tmp_path,
            "projections",
            f"p{seed}",
            [{"layer": "conv", "checkpoint": path, "l2_distance": 0.1 + seed}],
            model_path=(path,),
            init_from=initial,
        )
    for table in (drop, far):
        assert [(line.values, line.setting) for line in fill(tmp_path, table, {})] == [
            ([0.1, 1.1], ""),
            ([2.1], "weights from models/t1/init.pt"),
        ]


def test_rows_stay_with_the_training_that_had_begun_when_they_were_made(tmp_path):
    start = {"model_path": "models/t/init.pt", "inputs": {"models/t/init.pt": known("same")}}
    records.training(tmp_path, "t", epochs=2)
    records.write(
        tmp_path, "eval", "e", [{"subset": "all", "model": "models/t/init.pt"}], started="2026-01-02T00:00:00+00:00", **start
    )
    (tmp_path / "results/train/t.json").rename(tmp_path / "results/train/first.json")
    records.training(tmp_path, "t", epochs=1)  # the same seed: the same initial weights
    later = json.loads((tmp_path / "results/train/t.json").read_text())
    (tmp_path / "results/train/t.json").write_text(json.dumps(later | {"started": "2026-01-03T00:00:00+00:00"}))
    for path in (tmp_path / "results" / "train").iterdir():
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"outputs": {"models/t/init.pt": known("same")}}))
    (run,) = library(tmp_path).of("eval")
    assert run.networks(run.rows[0])["net"].training["epochs"] == 2


def test_probes_that_differ_in_their_seed_alone_are_runs_of_one_thing_and_not_one_run_repeated(tmp_path):
    path, foreign = records.training(tmp_path, "t", seed=7), "models/foreign.pt"
    for place, network in enumerate((path, foreign)):
        for seed in range(2):
            records.write(tmp_path, "probe", f"p{place}{seed}", [gain_row(0.1 + seed)], model_path=network, seed=(seed,))
    for line in fill(tmp_path, GAINS, {}):
        assert line.values == [0.1, 1.1] and line.networks == 1 and "repeated" not in line.note
    (line,) = fill(tmp_path, GAINS, {}, seeds=(1,))  # a foreign network is known by the seeds of its probes
    assert line.values == [1.1] and line.network == foreign
    records.write(tmp_path, "probe", "both", [gain_row(0.6)], model_path=path, seed=(0, 1))
    assert sorted((line.n, line.setting) for line in fill(tmp_path, GAINS, {}, seeds=(7,))) == [
        (1, "seeds in one number 2"),
        (2, ""),
    ]


def test_networks_of_stored_features_share_a_cell_where_their_backbones_differ_in_seed_only(tmp_path):
    for seed, (epochs, value) in enumerate(((70, 0.6), (70, 0.8), (8, 0.1))):
        backbone = records.training(tmp_path, f"b{seed}", seed=seed, epochs=epochs)
        path = records.training(
            tmp_path, f"m{seed}", seed=seed, model_type="LargeMLP", dataset=f"features={backbone}:flatten:mnist-wo0"
        )
        records.write(
            tmp_path,
            "ncg",
            f"n{seed}",
            [ncg_row(path, value, space="feature", train="mnist-wo0@flatten", data="mnist-wo0@flatten")],
            model_path=path,
        )
    found = [line for line in compare.compare(EVERY["ncg/feature"], {}, library(tmp_path)) if line.values]
    assert {line.labels for line in found} == {("M-0", "NCG", "nat")} and sorted(line.n for line in found) == [1, 2]
    assert max(found, key=lambda line: line.n).mean == pytest.approx(0.7)


def test_what_a_network_is_compared_with_matters_where_the_cell_says_so_only(tmp_path):
    paths = [records.training(tmp_path, f"t{seed}", seed=seed) for seed in range(2)]
    robust = records.training(tmp_path, "r", dataset="imagenet100", model_type="ResNet50", loss="trades", eps=2.0)
    natural = records.training(tmp_path, "n", dataset="imagenet100", model_type="ResNet50")
    records.write(
        tmp_path,
        "ncg",
        "both",
        [ncg_row(paths[0], 0.3, against=paths[1]), ncg_row(paths[1], 0.5)],
        model_path=paths[0],
        against=paths[1],
    )
    records.write(tmp_path, "ncg", "one", [ncg_row(paths[1], 0.5)], model_path=paths[1])
    records.write(
        tmp_path,
        "ncg",
        "cells",
        [ncg_row(robust, None, subset="cells", train="imagenet100", difference=0.03)],
        model_path=robust,
        against=natural,
    )
    (line,) = fill(tmp_path)
    assert sorted(line.values) == [0.3, 0.5]
    found = [line for line in compare.compare(EVERY["ncg/table4"], {}, library(tmp_path)) if line.values]
    assert [(line.labels, line.mean) for line in found] == [(("ImageNet-100-C", "pixel", "difference"), 0.03)]
    assert "comp" not in found[0].note


def test_a_foreign_network_is_known_by_its_path_alone(tmp_path):
    table = PaperTable("", {"set": (Value("M-0"),)}, "ncg", {"space": "pixel"}, metric="ncg")
    for path in ("models/f0.pt", "models/f1.pt"):
        records.write(tmp_path, "ncg", path[7:9], [ncg_row(path, 0.3)], model_path=path)
    assert [line.network for line in fill(tmp_path, table, {})] == ["models/f0.pt", "models/f1.pt"]


def test_records_are_of_the_latest_training_of_their_folder_that_was_there_when_they_read_it(tmp_path):
    path = "models/t/model_70.pt"
    for name, loss, day in (("z-first", "trades", 2), ("a-second", "ce", 4)):  # by name the first one comes last
        row = {"epoch": 70, "best": True}
        records.write(
            tmp_path,
            "train",
            name,
            [row],
            model_type="CNN002",
            dataset="mnist-wo0",
            epochs=70,
            loss=loss,
            directory="t",
            seed=0,
            **started(day),
        )
    for day in (1, 3, 5):
        read(tmp_path, f"n{day}", path, day, value=day)
    known = library(tmp_path)
    assert known.network(path).training["loss"] == "ce"
    losses = {run.rows[0]["ncg"]: run.networks(run.rows[0])["net"].training.get("loss") for run in known.of("ncg")}
    assert losses == {1: None, 3: "trades", 5: "ce"}
    assert sorted(line.mean for line in fill(tmp_path)) == [3, 5]


def test_a_checkpoint_of_another_hash_than_the_training_left_is_not_of_that_training(tmp_path):
    path = records.training(tmp_path, "t", **started(3))
    for day, content in ((1, "b"), (2, "a"), (4, "a"), (5, "b")):  # what was read first is what the training left
        read(tmp_path, f"n{day}", path, day, content, value=day)
    known = library(tmp_path)
    networks = {run.rows[0]["ncg"]: run.networks(run.rows[0])["net"] for run in known.of("ncg")}
    assert {day: bool(network.training) for day, network in networks.items()} == {1: False, 2: True, 4: True, 5: False}
    assert networks[1].identity == networks[5].identity == {"path": path, "content": "bbbbbbbb"}
    told = tmp_path / "results/train/t.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"outputs": {path: {"sha256": "b" * 64, "bytes": 1}}}))
    known = library(tmp_path)
    assert [run.rows[0]["ncg"] for run in known.of("ncg") if run.networks(run.rows[0])["net"].training] == [1, 5]


def test_a_network_is_the_same_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = records.training(tmp_path, "t")
    for number, spelt in enumerate((path, str(tmp_path / path), "t/model_70.pt")):
        read(tmp_path, f"n{number}", spelt, number + 1)
    (line,) = fill(tmp_path)
    assert line.n == line.networks == 1 and "2 repeated runs" in line.note
    elsewhere = records.training(tmp_path, "t", seed=1, models_dir=str(tmp_path / "scratch"))
    assert library(tmp_path).network(str(tmp_path / "scratch/t/model_70.pt")).seed == 1 and elsewhere == path
