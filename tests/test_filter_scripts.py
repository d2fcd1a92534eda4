"""exec_projections.py and exec_reinit.py on the built-in digits, and their mistakes, one sentence each."""

import json
import shutil
from pathlib import Path

import drawn
import numpy as np
import pytest
import torch
from conftest import script

from lib import datasets, models
from lib.core import trusted_files
from lib.core.errors import Interrupted, UserError
from lib.datasets.batching import Batching
from lib.experiments.config.projections import ProjectionsConfig, _beside
from lib.experiments.config.reinit import ReinitConfig
from lib.experiments.projections import projections
from lib.experiments.reinit import reinit
from lib.metrics import classification, filter_projections
from lib.models import checkpoints
from lib.reinit import rows as reinit_rows
from lib.reinit import sweep
from lib.reinit.weight_sources import Source
from lib.runs import cli, records
from lib.training import loop

EXPERIMENTS = {"projections": (ProjectionsConfig, projections), "reinit": (ReinitConfig, reinit)}


def call(name: str, *words) -> records.Result:
    """What a script's function answers to the script's arguments."""
    configuration, experiment = EXPERIMENTS[name]
    return experiment(cli.parse(configuration, [*map(str, words), "--quiet"]))


def rows_of(done, folder) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return json.loads((folder / done.stdout.strip().splitlines()[-1]).read_text())["rows"]


@pytest.fixture
def here(trained, monkeypatch):
    """The working directory with models/a: a lenet on the digits, epochs 0, 1 and 2."""
    monkeypatch.chdir(trained)
    return trained


def state(path) -> dict:
    return torch.load(path, weights_only=True)


def test_projections_of_a_run_give_a_row_per_epoch_and_layer(trained):
    done = script(
        "exec_projections.py", "models/a", "--normalize", "--with-linear", "--paper-json", "--name", "run", cwd=trained
    )
    rows = rows_of(done, trained)
    assert [(row["epoch"], row["layer"]) for row in rows[:2]] == [(0, "features.0"), (0, "features.2")]
    assert len(rows) == 3 * (9 + 1) and {row["epoch"] for row in rows} == {0, 1, 2}
    arrays = np.load(trained / "results/projections/run.npz")
    start = state(trained / "models/a/init.pt")
    for epoch, name in ((0, "init"), (2, "model_2")):
        weights = state(trained / f"models/a/{name}.pt")
        for row in (row for row in rows if row["epoch"] == epoch and row["layer"] != "net"):
            weight = weights[row["layer"] + ".weight"]
            cosines = weight.flatten(1).double()
            cosines = (cosines.sum(1) / cosines.norm(dim=1) / cosines.shape[1] ** 0.5).numpy()
            assert arrays[f"{row['checkpoint']}/{row['layer']}"] == pytest.approx(cosines, abs=1e-6)
            assert row["mass"] == (cosines <= 0).mean() and row["mean"] == pytest.approx(cosines.mean(), abs=1e-6)
            assert row["mass_low"] <= row["mass"] <= row["mass_high"] and row["p_value"] <= row["p_holm"] <= 1
            assert row["q05"] <= row["q25"] <= row["q50"] <= row["q75"] <= row["q95"]
            moved = (weight - start[row["layer"] + ".weight"]).norm() / start[row["layer"] + ".weight"].norm()
            assert row["l2_distance"] == pytest.approx(moved.item(), rel=1e-4)
            assert (row["filters"], row["dim"]) == (len(weight), weight[0].numel())
    assert [row["filters"] for row in rows if row["layer"] == "net"] == [386] * 3
    document = json.loads((trained / "results/projections/run/a-model_2.json").read_text())
    assert list(document) == ["0", "1", "2", "3", "net", "arch", "dataset", "epoch", "seed"]
    first = document["0"]["1"]
    row = next(row for row in rows if (row["epoch"], row["stage"], row["block"]) == (2, "0", "1"))
    assert (first["mass"], first["mean"], first["l2_dist"]) == (row["mass"], row["mean"], row["l2_distance"])
    assert len(first["projections"]) == 6 and len(document["net"]["projections"]) == 386
    assert (document["arch"], document["dataset"], document["epoch"], document["seed"]) == ("lenet", "digits", "2", "0")
    figures = {path.name for path in (trained / "results/projections").glob("run*.png")}
    assert figures == {"run.png", "run-mass.png", "run-distance.png"}


def test_a_fresh_network_is_what_training_starts_from_with_that_seed(here):  # check 17
    initial = state("models/a/init.pt")  # of seed 0
    found = call("projections", "lenet", "--random", 2, "-s", 0, "-d", "digits")
    assert {(row["draw"], row["epoch"]) for row in found.rows} == {(0, 0), (1, 0)}
    assert set(drawn.of("projections", ProjectionsConfig(model_path=("lenet",), random=2), found)) == {"", "mass"}
    for layer in ("features.0", "features.12"):
        expected = filter_projections.projections(initial[layer + ".weight"])
        assert (found.arrays[f"random-0/{layer}"] == expected).all()
        assert (found.arrays[f"random-1/{layer}"] != expected).all()


def test_files_without_a_sidecar_need_their_type_and_get_their_epochs_from_their_names(here, recwarn):
    weights = state("models/a/model_2.pt")
    torch.save({"model_state_dict": {f"module.{key}": value for key, value in weights.items()}}, "lenet_1.tar")
    torch.save(state("models/a/init.pt"), "lenet_init_0.pt")
    rows = call("projections", "lenet_init_0.pt", "lenet_1.tar", "lenet", "--init-from", "lenet_init_0.pt").rows
    assert [row["epoch"] for row in rows if row["layer"] == "net"] == [0, 2]
    assert rows[0]["l2_distance"] == 0 < next(row for row in rows if row["epoch"] == 2)["l2_distance"]
    assert not [warning for warning in recwarn if "normal" in str(warning.message)]  # no image is normalised


def test_projections_are_folded_with_the_batch_normalisations(here):
    rows = call("projections", "resnet20", "--random", 1, "--fold-bn").rows
    plain = call("projections", "resnet20", "--random", 1).rows
    assert all(row["folded"] for row in rows) and not any(row["folded"] for row in plain)
    # fresh statistics and gammas are 1: all filters shrink by sqrt(1 + epsilon), none turns round
    assert [row["mass"] for row in rows] == [row["mass"] for row in plain]
    assert rows[0]["mean"] == pytest.approx(plain[0]["mean"] / (1 + 1e-5) ** 0.5, rel=1e-6)


UNTRACKED = """
from torch import nn

def make(classes, channels, size):
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
"""


def test_a_batch_normalisation_without_running_statistics_is_not_folded_and_is_named(here):
    Path("untracked.py").write_text(UNTRACKED)
    trusted_files.trust("untracked.py")
    plain = call("projections", "untracked.py:make", "--random", 1, "-d", "digits")
    assert [row["layer"] for row in plain.rows] == ["0", "net"]
    with pytest.raises(UserError, match="1 keeps no running statistics, so it cannot be folded into 0"):
        call("projections", "untracked.py:make", "--random", 1, "-d", "digits", "--fold-bn")


def test_the_linear_maps_of_a_vision_transformer_are_layers_too(here):
    rows = call("projections", "vit_tiny_patch4_32", "--random", 1, "--with-linear", "-d", "digits").rows
    body = models.build("vit_tiny_patch4_32", 10, 1)
    expected = [name for name, module in body.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert [row["layer"] for row in rows] == [*expected, "net"] and {row["stage"] for row in rows[:-1]} == {"0"}
    assert [row["dim"] for row in rows[:-1]] == [body.get_submodule(name).weight[0].numel() for name in expected]


def test_published_weights_are_those_of_epoch_minus_one(here, monkeypatch):
    asked = []

    def drawn(*words):  # instead of a download
        asked.append(words)
        return models.Pretrained(models.build(*words), (), ())

    monkeypatch.setattr(models, "build_pretrained", drawn)
    rows = call("projections", "alexnet", "--pretrained").rows
    assert ("alexnet", 1000, 3, 224) in asked
    assert len(rows) == 6 and {(row["checkpoint"], row["epoch"]) for row in rows} == {("pretrained", -1)}


@pytest.mark.parametrize(
    "words, shape",
    [
        (("alexnet", "-d", "imagenet", "--pretrained"), (1000, 3, 224)),
        (("lenet", "--random", 1, "-d", "mnist"), (10, 1, 28)),
        (("lenet", "-d", "cifar100-k10"), (10, 3, 32)),
        (("--arch", "lenet", "--dataset", "mnistwo9"), (9, 1, 28)),
    ],
)
def test_networks_for_a_registered_set_need_none_of_its_images(tmp_path, monkeypatch, words, shape):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "build_pretrained", lambda *words: models.Pretrained(models.build(*words), (), ()))
    built = []
    build = models.build
    monkeypatch.setattr(models, "build", lambda *given: built.append(given[1:]) or build(*given))
    found = call("projections", *words)
    assert set(built) == {shape} and cli.parse(ProjectionsConfig, [*map(str, words), "--quiet"]).inputs() == {}
    assert {row["draw"] for row in found.rows} == ({None} if "--pretrained" in words else {0})


def test_a_type_alone_is_one_fresh_network(here):
    assert cli.parse(ProjectionsConfig, ["lenet", "-d", "digits"]) == cli.parse(
        ProjectionsConfig, ["lenet", "-d", "digits", "--random", "1"]
    )
    assert cli.parse(ProjectionsConfig, ["models/a", "lenet"]).random == 0


@pytest.mark.parametrize("folder, said", [("out/mnist/noise_20/lenet/3", ("mnist", "3")), ("loose", ("", None))])
def test_snapshots_of_the_papers_code_have_their_initial_weights_data_set_and_seed(tmp_path, monkeypatch, folder, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    torch.manual_seed(0)
    weights = models.build("lenet", 10, 1, 28).state_dict()
    torch.save(weights, f"{folder}/lenet_init_0.pt")
    torch.save({key: 1.5 * value for key, value in weights.items()}, f"{folder}/lenet_20.pt")
    found = call("projections", "--load-from", f"{folder}/lenet_20.pt", "--arch", "lenet", "--paper-json")
    assert {row["epoch"] for row in found.rows} == {20}
    assert [row["l2_distance"] for row in found.rows[:-1]] == pytest.approx(6 * [0.5], rel=1e-5)
    (document,) = found.documents.values()
    assert (document["dataset"], document.get("seed")) == said
    given = call("projections", f"{folder}/lenet_20.pt", "lenet", "--paper-json", "-d", "kmnist", "-s", 5)
    (document,) = given.documents.values()
    assert (document["dataset"], document["seed"]) == (said[0] or "kmnist", said[1] or "5")


def test_initial_weights_are_looked_for_under_the_names_of_the_papers_code(tmp_path):
    for name in ("vgg11_init_0", "vgg13_pretrained_0", "vgg11_pretrained_0"):
        (tmp_path / f"{name}.pt").touch()
    pairs = {
        "vgg11_40.pt": "vgg11_init_0.pt",
        "vgg11_39.tar": "vgg11_init_0.pt",
        "vgg13_39.tar": "vgg13_pretrained_0.pt",
        "vgg11_pretrained_40.pt": "vgg11_pretrained_0.pt",
        "vgg11_init_0.pt": "vgg11_init_0.pt",
        "model_5.pt": None,
    }
    for name, initial in pairs.items():
        found = _beside(tmp_path / name)
        assert (found and found.name) == initial
    (tmp_path / "init.pt").touch()
    assert _beside(tmp_path / "vgg11_40.pt") == tmp_path / "init.pt"


def naive_accuracy(layer: str, source: str) -> float:
    """Of the whole network with that layer's tensors loaded from another epoch."""
    loaded = checkpoints.load("models/a/model_2.pt")
    other = state(f"models/a/{source}.pt")
    loaded.network.body.load_state_dict(
        {key: value for key, value in other.items() if key.startswith(layer + ".")}, strict=False
    )
    split = datasets.load("digits", "data", "test")
    logits = loop.predict(
        loaded.network,
        split,
        Batching(batch_size=64, size=loaded.description.image_size, channels=loaded.description.channels, quiet=True),
    )
    return classification.accuracy(logits, split.labels)


def test_reinit_gives_a_row_per_layer_and_source_and_leaves_out_what_is_missing(here):
    (here / "inits.txt").write_text("models/a/init.pt\n\nmodels/a/model_9.pt\nmodels/a/model_1.pt\nmodels/a/model_2.pt\n")
    done = script(
        "exec_reinit.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "--inits-from",
        "inits.txt",
        "--rand",
        "2",
        "--layers",
        "all",
        "--criticality",
        "--fit-examples",
        "40",
        "--paper-json",
        "--name",
        "heat",
        cwd=here,
    )
    rows = rows_of(done, here)
    assert "models/a/model_9.pt is missing" in done.stderr
    assert [row["source"] for row in rows if row["status"] == "missing"] == ["models/a/model_9.pt"]
    cells = [row for row in rows if row["status"] in ("measured", "unchanged")]
    assert len({(row["layer"], row["source"]) for row in cells}) == len(cells) == 9 * 4
    assert {row["source"] for row in cells} == {"0", "1", "2", "rand"}
    intact = json.loads((here / "models/a/model_2.json").read_text())["metrics"]["val_accuracy"]
    for row in cells:
        assert row["intact_accuracy"] == intact and row["n"] == 355
        assert row["relative_drop"] == pytest.approx((intact - row["accuracy"]) / intact, abs=1e-12)
        assert row["se"] == pytest.approx((row["accuracy"] * (1 - row["accuracy"]) / 355) ** 0.5)
        if row["source"] == "2":  # check 13
            assert (row["status"], row["accuracy"], row["relative_drop"], row["l2_distance"]) == ("unchanged", intact, 0, 0)
        assert (row["accuracy_sd"] is not None) == (row["source"] == "rand")
    assert any(row["criticality"] is not None for row in cells)
    for layer, source, name in (("features.0", "0", "init"), ("classifier.3", "1", "model_1")):
        found = next(row for row in cells if (row["layer"], row["source"]) == (layer, source))
        assert found["accuracy"] == naive_accuracy(layer, name)
    analysis = [row for row in rows if row["status"] == "analysis"]
    assert {row["predictor"] for row in analysis} >= {"bias", "bias_z", "abs_mean", "l2_distance"}
    assert all(
        row["layers"] == 9 and -1 <= row["spearman"] <= 1 and 0 < row["p_value"] <= 1
        for row in analysis
        if row["source"] == "0" and row["predictor"] != "criticality"
    )
    document = json.loads((here / "results/reinit/heat/reinit_model_2.json").read_text())
    assert list(document["init_from_epoch"]) == ["0", "1", "2", "rand"] and document["epoch"] == "2"
    assert document["init_from_epoch"]["0"] == [100 * row["accuracy"] for row in cells if row["source"] == "0"]
    assert document["top1_test"] == 100 * intact and document["top5_test"] >= document["top1_test"]
    assert (here / "results/reinit/heat.png").exists() and not list(here.glob("results/reinit/*.partial"))
    done = script("exec_tables.py", "reinit", "projections", cwd=here)
    assert done.returncode == 0 and "spearman" in done.stdout, done.stderr


def test_a_fresh_draw_of_the_first_convolution_costs_a_trained_network_its_answers(tmp_path, monkeypatch):  # check 30
    monkeypatch.chdir(tmp_path)
    done = script("exec_train.py", "small_cnn", "-d", "digits", "-dir", "c", "-e", 4, "-lr", "3e-3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = call("reinit", "models/c/model_4.pt", "--rand", "--layers", "conv1").rows[0]
    assert row["intact_accuracy"] > 0.8 and row["intact_accuracy"] - row["accuracy"] > 3 * row["se"]


def test_the_relative_drop_is_that_of_the_paper():  # checks 16 and 26
    counts = sweep.Counts(100, torch.tensor([80, 100]), torch.tensor([[[40, 100]], [[80, 100]], [[88, 100]]]))
    facts = {name: {"layer": name, "index": 0} for name in "abc"}
    rows = reinit_rows.rows({"n": 100, "classes": 3}, facts, [Source("0", 0, {})], [[{}], [{}], [{}]], counts, {})
    assert [row["relative_drop"] for row in rows] == pytest.approx([0.5, 0, -0.1], abs=1e-12)
    assert all(row["top5_accuracy"] is None for row in rows)


def test_three_classes_have_no_top_five(tmp_path, monkeypatch):  # check 26
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    np.save("images.npy", generator.integers(0, 255, (30, 32, 32, 3), dtype=np.uint8))
    np.save("images_labels.npy", np.arange(30) % 3)
    torch.save(models.build("lenet", 3, 3).state_dict(), "three.pt")
    found = call(
        "reinit",
        "three.pt",
        "lenet",
        "-d",
        "npy=images.npy",
        "--rand",
        "--mean",
        0.5,
        0.5,
        0.5,
        "--std",
        0.5,
        0.5,
        0.5,
        "--paper-json",
    )
    rows = [row for row in found.rows if row["status"] == "measured"]
    assert len(rows) == 6 and all(row["top5_accuracy"] is None and row["draws"] == 1 for row in rows)
    assert found.documents["reinit_three"]["top5_test"] is None


@pytest.mark.parametrize("option", ["--upscale", "--upscale-padding"])
def test_flags_say_of_a_file_without_a_sidecar_what_its_sidecar_said(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    few = ("-d", "digits", "--subsample-classes", 3, "--class-sample-seed", 1, option, "--max-examples", 12, "-b", 6)
    done = script("exec_train.py", "lenet", "-dir", "a", "-e", 1, "-lr", "1e-2", *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    torch.save(state("models/a/model_1.pt"), "bare.pt")
    described = json.loads((tmp_path / "models/a/model_1.json").read_text())
    assert described["dataset"] == "digits-k3s1"
    normalised = ("--mean", *described["mean"], "--std", *described["std"])
    asked = ("--rand", 1, "-l", "features.0", "--stack", 1)
    rows = call("reinit", "models/a/model_1.pt", *asked, "--max-examples", 12).rows
    assert call("reinit", "bare.pt", "lenet", *asked, *few, *normalised).rows == rows
    assert {row["data"] for row in rows} == {"digits-k3s1"}
    with pytest.raises(UserError, match="--image-size/--upscale: .* comes with its images' size"):
        call("reinit", "models/a/model_1.pt", *asked, "--image-size", 64)


def test_normalisations_can_be_replaced_and_recalibrated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(models.build("resnet20", 10, 1).state_dict(), f"r_{seed}.pt")
    ran, stacks, run, drops = [], [], sweep.run, []

    def watched(network, split, units, cells, batching, **options):
        ran.append([set(row[0]) for row in cells])
        stacks.append(options["stacked"])
        return run(network, split, units, cells, batching, **options)

    monkeypatch.setattr(sweep, "run", watched)
    for flags in ((), ("--what", "weights+bn"), ("--recalibrate-bn", "--fit-examples", 32)):
        rows = call(
            "reinit",
            "r_0.pt",
            "resnet20",
            "-d",
            "digits",
            "--mean",
            0.5,
            "--std",
            0.5,
            "--inits-from",
            "r_1.pt",
            "--layers",
            "layer1.0.conv1",
            "layer2.0",
            "--max-examples",
            64,
            *flags,
        ).rows
        rows = [row for row in rows if row["status"] == "measured"]
        assert [row["layer"] for row in rows] == ["layer1.0.conv1", "layer2.0"]
        assert rows[1]["mass"] is None  # a block has no filters of its own
        assert (rows[0]["what"], rows[0]["recalibrated"]) == (flags[1] if "--what" in flags else "weights", len(flags) == 3)
        drops.append([row["accuracy"] for row in rows])
    assert drops[0] == drops[1]  # fresh normalisations are alike
    assert stacks == [8, 8, 1]  # what follows is the same for all sources, unless it is calibrated for each
    assert [len(row[0]) for row in ran] == [1, 5, 1 + 3 * 18]  # all but bn1, with their number of batches


def test_a_sweep_that_was_stopped_continues(here, monkeypatch):
    words = ("models/a/model_2.pt", "-d", "digits", "--inits-from", "models/a/init.pt", "-b", 50, "--name", "stopped")
    expected = call("reinit", *words).rows
    seen, right = [], sweep._right

    def interrupted(*answers):
        seen.append(1)
        if len(seen) > 20:
            raise Interrupted("stopped")
        return right(*answers)

    monkeypatch.setattr(sweep, "_right", interrupted)
    with pytest.raises(Interrupted):
        call("reinit", *words)
    partial = here / "results/reinit/stopped.partial"
    assert torch.load(partial, weights_only=True)["images"] == 100  # two batches of seven answers
    seen.clear()
    monkeypatch.setattr(sweep, "_right", lambda *answers: seen.append(1) or right(*answers))
    assert call("reinit", *words).rows == expected
    assert len(seen) == 6 * 7 and not partial.exists()  # 255 images are six batches


def test_a_partial_sweep_of_other_files_is_not_continued(here):
    config = ReinitConfig(
        model_path="models/a/model_2.pt", dataset="digits", inits_from=("models/a/init.pt",), quiet=True, max_examples=50
    )
    expected = reinit(config).rows
    partial = records.place(config, "reinit").beside(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    for content in ("{", json.dumps({"key": "another", "images": 50, "intact": [0, 0], "cells": [[[0, 0]]] * 6})):
        partial.write_text(content)
        assert reinit(config).rows == expected and not partial.exists()


def test_sources_whose_files_are_called_alike_have_labels_of_their_own(here):
    for place in ("x/a", "y/a", "z/a"):
        (here / "models" / place).mkdir(parents=True)
        shutil.copy(here / "models/a/init.pt", here / "models" / place / "init.pt")
        shutil.copy(here / "models/a/init.json", here / "models" / place / "init.json")
    given = tuple(f"models/{place}/init.pt" for place in ("x/a", "y/a", "z/a"))
    config = ReinitConfig(
        model_path="models/a/model_2.pt",
        dataset="digits",
        inits_from=given,
        layers=("features.0",),
        quiet=True,
        max_examples=50,
    )
    assert list(dict.fromkeys(row["source"] for row in reinit(config).rows)) == ["0", "0 a/init", "0 z/a/init"]


MISTAKES = [
    (("projections",), 2, "MODEL_PATH is required"),
    (("projections", "models/a", "--random", 1), 2, "--random and --pretrained need a type"),
    (("projections", "models/a", "resnet20"), 1, "is a lenet, not a resnet20"),
    (("projections", "models/a", "--fold-bn"), 1, "--fold-bn: no layer of lenet is followed by a batch normalisation"),
    (("projections", "models/a/model_9.pt"), 1, "models/a/model_9.pt: no such checkpoint"),
    (("projections", "mlp", "--random", 1), 1, "--with-linear takes its linear layers"),
    (("projections", "models/a/model_1.pt", "--init-from", "models/a/none.pt"), 1, "models/a/none.pt: no such checkpoint"),
    (("projections", "models"), 1, "models: a folder without snapshots"),
    (("reinit", "models/a/model_2.pt"), 2, "--inits-from or --rand is required"),
    (("reinit", "models/a/model_2.pt", "--rand", "--layers", "features.1"), 1, "features.1: ReLU owns no weights"),
    (("reinit", "models/a/model_2.pt", "--rand", "--layers", "features.99"), 1, "no layer is called so"),
    (("reinit", "models/a/model_2.pt", "--inits-from", "gone.pt"), 1, "gone.pt: none of its files is there"),
    (("reinit", "models/a/model_2.pt", "--inits-from", "other.pt"), 1, "other.pt is no lenet"),
    (("reinit", "models/a/model_2.pt", "--rand", "-d", "digits-bg"), 1, "2 classes, the network 10"),
    (("reinit", "models/a/model_2.pt", "--rand", "-d", "digits-wo3:ood"), 1, "it needs at least 2"),
    (("reinit", "models/a/model_2.pt", "--rand", "--criticality"), 1, "--criticality needs --inits-from"),
    (("reinit", "models/a/model_2.pt", "--rand", "--fold-pool"), 1, "--fold-pool: the network has no average pool"),
    (("reinit", "models/a/model_2.pt", "--rand", "0.5"), 2, "'0.5' is not a whole number"),
    (("reinit", "models/a/model_2.pt", "--rand", "--subsample-classes", "3"), 2, "is about -d, which must be given"),
    (("reinit", "models/a/model_2.pt", "--rand", "-d", "digits-k3", "--subsample-classes", "2"), 2, "subset already"),
    (("reinit", "models/a/model_2.pt", "--rand", "--upscale", "--image-size", "64"), 2, "exclude one another"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("words, status, sentence", MISTAKES)
def test_a_mistake_is_one_sentence_with_its_exit_status(here, words, status, sentence):
    if "other.pt" in words:
        torch.save({"weight": torch.zeros(2, 2)}, "other.pt")
    with pytest.raises(UserError) as error:
        call(*words)
    assert error.value.status == status and sentence in str(error.value) and "\n" not in str(error.value)
