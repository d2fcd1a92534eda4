"""Scores of several layers through the command line, on built-in data; every mistake one sentence."""

import json
import os
import re
import shutil
import warnings

import drawn
import numpy as np
import pytest
import torch
from conftest import script
from layouts import write_cifar10, write_cifar100, write_image, write_mnist

from lib import datasets, models
from lib.experiments.config.ood_layers import OodLayersConfig
from lib.experiments.ood_layers import ood_layers
from lib.models import checkpoints
from lib.plots import ood_layers as plots
from lib.runs import cli
from lib.runs.records import Result

AGGREGATES = ("mean", "absmean", "sq", "maha", "knn", "fisher", "max", "logreg", "oracle")
BASELINES = ("msp", "max_logit", "energy", "knn", "mahalanobis", "vim", "react", "ash")


def record(folder, experiment: str) -> tuple[dict, dict]:
    """The latest record and its arrays."""
    path = max((folder / "results" / experiment).glob("*.json"), key=os.path.getmtime)
    return json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))


def call(*words) -> Result:
    """What the script's function answers to the script's arguments."""
    return ood_layers(cli.parse(OodLayersConfig, [*map(str, words), "--quiet"]))


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """A working directory of these tests' own, with the suite's small network."""
    place = tmp_path_factory.mktemp("ood")
    shutil.copytree(trained / "models", place / "models")
    return place


@pytest.fixture(scope="module")
def measured(folder):
    """Everything at once: outliers of two kinds, two temperatures, an early exit."""
    done = script(
        "exec_ood_layers.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "-ood",
        "patches",
        "digits-c/contrast-5",
        "digits-c/contrast-1",
        "--aggregate",
        *AGGREGATES,
        "--val-ood",
        "patches:train",
        "--baselines",
        "all",
        "--choose",
        "mixture,jigsaw,transfer",
        "--early-exit",
        "0.1",
        "-T",
        "1",
        "4",
        "--max-examples",
        "300",
        "--name",
        "everything",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return *record(folder, "ood_layers"), folder


def test_one_layer_set_temperature_and_score_has_one_row(measured):
    rows = measured[0]["rows"]
    keys = [(row["layer"], row["ood"], row["variant"], row["T"], row["score"]) for row in rows]
    assert len(keys) == len(set(keys))
    patches = [row for row in rows if row["ood"] == "patches"]
    assert {row["score"] for row in patches if row["layer"] == "all layers" and row["T"] == 4} == set(AGGREGATES)
    # the last layer's energy at T = 1 has its row among the layers
    last = {row["score"] for row in patches if row["layer"] == "classifier.6" and "chosen" not in row["score"]}
    # ViM needs more directions than half of the features, which some processors' weights do not leave
    assert {*BASELINES, "early exit"} - last <= {"vim"} and last <= {*BASELINES, "early exit"}
    assert (
        all(row["needs"] for row in rows) and "upper bound" in next(row for row in rows if row["score"] == "oracle")["needs"]
    )


def test_every_comparison_is_with_the_final_layer_and_corrected(measured):
    rows = [row for row in measured[0]["rows"] if row["score"] == "energy" and row["T"] == 1 and row["ood"] == "patches"]
    final = next(row for row in rows if row["layer"] == "classifier.6")
    assert final["p"] is None and final["vs_final"] == 0
    for row in rows:
        assert row["ci_low"] <= row["auroc"] <= row["ci_high"]
        assert row["vs_final"] == pytest.approx(row["auroc"] - final["auroc"], abs=1e-12)
        assert row is final or row["p"] <= row["p_holm"] <= 1


def test_the_oracle_is_no_worse_than_any_layer_and_regrets_are_not_negative(measured):
    rows = [row for row in measured[0]["rows"] if row["ood"] == "patches" and row["T"] == 1]
    oracle = next(row for row in rows if row["score"] == "oracle")
    layers = [row for row in rows if row["score"] == "energy"]
    assert oracle["auroc"] == pytest.approx(max(row["auroc_oracle_sign"] for row in layers))
    chosen = [row for row in rows if "chosen" in row["score"]]
    assert len(chosen) == 2 + 2 * 2
    # transfer is measured within halves of the images, the best layer on all of them
    assert all(row["regret"] >= (-0.01 if "chosen_on" in row else -1e-12) for row in chosen)
    assert {row["chosen_on"] for row in chosen if "chosen_on" in row} == {"digits-c/contrast-5", "digits-c/contrast-1"}


def test_corrupted_sets_carry_corruption_and_severity_and_have_one_figure(measured):
    rows = [row for row in measured[0]["rows"] if row["ood"] == "digits-c"]
    assert {(row["corruption"], row["severity"], row["variant"]) for row in rows} == {
        ("contrast", 5, "contrast-5"),
        ("contrast", 1, "contrast-1"),
    }
    figures = {path.stem for path in (measured[2] / "results" / "ood_layers").glob("everything*.png")}
    maps = {"everything-digits-c", "everything-digits-c-T4"}  # a figure per temperature
    assert figures == {"everything-patches", "everything-exits"} | maps


def test_early_exits_are_counted_timed_and_kept(measured):
    found, arrays, _ = measured
    rows = [row for row in found["rows"] if row["score"] == "early exit" and row["ood"] == "patches"]
    assert [row["layer"] for row in rows] == [*arrays["exit_layers"], f"{len(rows) - 1} exits"]
    whole = rows[-1]
    assert whole["alpha"] == 0.1 and whole["mac_ood"] < whole["mac_id"] and whole["time_ood"] > 0
    assert whole["false_alarms_low"] <= 0.1 <= whole["false_alarms_high"] and whole["false_alarms_high"] < 0.25
    exits = arrays["exits_patches"]
    assert exits.shape == (300,) and exits.max() <= len(rows) - 1
    assert (exits < len(rows) - 1).mean() == pytest.approx(whole["detected"], abs=0.02)  # made in batches that shrink
    assert arrays["exits_id"].shape == (150,) and arrays["knn_patches"].shape == (300,)


def test_half_of_the_test_images_calibrate_early_exits_and_are_left_out_of_their_rows_alone(measured):
    found, arrays, _ = measured
    tested = arrays["exit_positions_id"]
    assert len(set(tested)) == 150 and tested.max() < 300
    right = arrays["predictions_id"] == arrays["labels_id"]
    for row in found["rows"]:
        if row["score"] == "early exit":
            assert (row["n_id"], row["n_calibrated"], row["calibrated_on"]) == (150, 150, "digits:test, a half")
            assert row["id_accuracy"] == pytest.approx(right[tested].mean())
        else:
            assert row["n_id"] == 300 and row["id_accuracy"] == pytest.approx(right.mean())


def test_early_exits_that_are_calibrated_on_images_of_the_training_say_so(folder, monkeypatch):
    monkeypatch.chdir(folder)
    words = ("models/a/model_2.pt", "-ood", "patches", "--max-examples", 100, "-l", "classifier.6", "--early-exit", 0.1)
    with pytest.warns(UserWarning, match="--fit-on digits:train: the network was trained on these images"):
        rows = call(*words, "-d", "digits", "--fit-on", "digits:train").rows
    assert (rows[-1]["n_id"], rows[-1]["n_calibrated"], rows[-1]["calibrated_on"]) == (100, 50, "digits:train, a half")
    with pytest.warns(UserWarning, match="-d digits:train: the network was trained on these images"):
        call(*words, "-d", "digits:train")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call(*words, "-d", "digits")
    assert not [warning for warning in said if "trained on" in str(warning.message)]


def test_a_choice_that_has_no_other_set_to_be_tested_on_says_so(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.warns(UserWarning, match="--choose transfer is left out: there is no other OOD set"):
        call("models/a/model_2.pt", "-ood", "patches", "-l", "classifier.*", "--choose", "transfer", "--max-examples", 40)


def test_outliers_of_a_set_that_the_network_was_trained_on_are_warned_of_and_marked(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    words = ("models/a/model_2.pt", "-l", "classifier.6", "--max-examples", 40, "--aggregate", "mean")
    with pytest.warns(UserWarning, match="-ood digits-wo9:ood: the network was trained on digits, so that these images"):
        found = call(*words, "-d", "patches", "-ood", "digits-wo9:ood", "uniform-grey", "digits-c/fog-5")
    assert {(row["ood"], row["seen_in_training"]) for row in found.rows} == {
        ("digits-wo9", True),
        ("uniform-grey", False),
        ("digits-c", False),
    }
    assert "seen_in_training" in found.columns
    assert "seen_in_training" not in call(*words, "-d", "digits", "-ood", "uniform-grey").columns
    shutil.copy(folder / "models/a/model_2.pt", tmp_path / "bare.pt")  # without a sidecar nothing is known
    rows = call(tmp_path / "bare.pt", "lenet", *words[1:], "-d", "patches", "-ood", "digits").rows
    assert {row["seen_in_training"] for row in rows} == {None}


def test_a_set_is_no_outlier_of_itself_and_the_command_says_so(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.warns(UserWarning, match="-ood digits:test is the in-distribution set itself: every AUROC is 0.5"):
        rows = call(
            "models/a/model_2.pt",
            "-d",
            "digits",
            "-ood",
            "digits:test",
            "--max-examples",
            60,
            "--aggregate",
            "mean,maha,max",
        ).rows
    assert {row["auroc"] for row in rows} == {0.5} and {row["p"] for row in rows} <= {None, 1.0}
    assert {row["auroc_two_sided"] for row in rows if row["score"] == "energy"} == {0.5}


def test_near_and_far_have_rows_of_their_members_and_of_their_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (write_cifar10, write_cifar100, write_mnist):
        write(tmp_path / "data")
    for number in range(3):
        write_image(tmp_path / "data" / "textures" / f"{number}.png")
    torch.manual_seed(0)
    torch.save(models.build("lenet", 10, 3).state_dict(), "bare.pt")
    with pytest.warns(UserWarning, match="-ood (near|far): without"):
        found = call(
            "bare.pt",
            "lenet",
            "-d",
            "cifar10",
            "-ood",
            "near",
            "far",
            "--aggregate",
            "mean",
            "--mean",
            0.5,
            0.5,
            0.5,
            "--std",
            0.2,
            0.2,
            0.2,
        )
    for word, members in (("near", ["cifar100"]), ("far", ["mnist", "textures"])):
        for score, layer in (("energy", "features.0"), ("mean", "all layers")):
            (whole,) = (row for row in found.rows if row["ood"] == word and (row["score"], row["layer"]) == (score, layer))
            parts = [
                row["auroc"]
                for row in found.rows
                if row["ood"] in members and (row["score"], row["layer"], row["group"]) == (score, layer, word)
            ]
            assert whole["members"] == "+".join(members) and whole["auroc"] == pytest.approx(sum(parts) / len(members))
    made = drawn.of("ood_layers", OodLayersConfig(model_path="x", ood=("patches",)), found)
    assert set(made) == {"cifar100", "mnist", "textures", "signs"}


def test_near_and_far_are_those_of_the_data_that_the_network_was_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path / "data")
    write_cifar100(tmp_path / "data")
    description = checkpoints.Description(
        architecture="lenet",
        classes=tuple("0123456789"),
        channels=3,
        image_size=32,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        dataset="cifar10",
    )
    checkpoints.save(tmp_path / "model_1.pt", checkpoints.fresh(description, 0, "init"), description)
    config = cli.parse(OodLayersConfig, ["model_1.pt", "-ood", "near"])
    with pytest.warns(UserWarning, match="-ood near: without tinyimagenet"):
        assert "cifar100" in config.inputs()
        assert {row["ood"] for row in ood_layers(config).rows} == {"cifar100", "near"}


def test_exits_of_many_corruptions_are_drawn_by_severity():
    layers, draw = ["first", "second"], np.random.default_rng(0)
    sets = {
        f"digits-c/{kind}-{severity}": {"ood": "digits-c", "corruption": kind, "severity": severity}
        for kind in ("fog", "snow", "frost")
        for severity in (1, 2, 3)
    }
    sets["patches"] = {"ood": "patches", "corruption": None}
    left = {name: draw.integers(0, 3, 40) for name in sets}
    figure = plots.exits(layers, draw.integers(0, 3, 50), left, sets, "title")
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in figure.axes[0].containers}
    assert list(heights) == ["in-distribution", *(f"digits-c, severity {severity}" for severity in (1, 2, 3)), "patches"]
    second = np.concatenate([left[f"digits-c/{kind}-2"] for kind in ("fog", "snow", "frost")])
    assert heights["digits-c, severity 2"] == pytest.approx([(second == exit).mean() for exit in range(3)])


def test_a_network_trained_against_outliers_warns_when_they_are_its_test(folder):
    done = script(
        "exec_train.py",
        "lenet",
        "-d",
        "digits",
        "-dir",
        "against",
        "-e",
        1,
        "--loss",
        "energy_layers",
        "--outliers",
        "patches",
        "--energy-layers",
        "features.*,classifier.6",
        "--form",
        "contrastive",
        "--max-examples",
        130,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    sidecar = json.loads((folder / "models" / "against" / "model_1.json").read_text())
    assert sidecar["config"]["outliers"] == "patches" and sidecar["config"]["form"] == "contrastive"
    done = script(
        "exec_ood_layers.py",
        "models/against/model_1.pt",
        "-d",
        "digits",
        "-ood",
        "patches:train",
        "patches",
        "--max-examples",
        130,
        cwd=folder,
    )
    assert done.returncode == 0
    assert "-ood patches:train: 130 of its images are outliers that the network was trained on" in done.stderr
    assert "-ood patches:" not in done.stderr.replace("-ood patches:train", "")


MODEL = ("exec_ood_layers.py", "models/a/model_2.pt", "-d", "digits", "-ood")
TRAIN = ("exec_train.py", "lenet", "-d", "digits", "-dir", "bad")


UNTRACED = """
from torch import nn

class Turning(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x if x.mean() > 0 else -x)  # which images these are decides the path

def turning(classes, channels, image_size):
    return Turning(nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes)))
"""


def test_a_network_that_cannot_be_traced_has_no_cuts_to_name_or_to_stop_at(tmp_path):
    (tmp_path / "networks.py").write_text(UNTRACED)
    done = script(
        "exec_train.py", "networks.py:turning", "-d", "digits", "-dir", "t", "-e", "1", "--max-examples", "50", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for words, fragment in (
        (("--early-exit", "0.1"), "no cuts at which a pass could stop"),
        (("-l", "cuts"), "it cannot be traced; name layers, such as inside"),
    ):
        of = ("models/t/model_1.pt", "networks.py:turning", "-ood", "patches", "--max-examples", "50")
        done = script("exec_ood_layers.py", *of, *words, cwd=tmp_path)
        assert done.returncode == 1 and fragment in done.stderr, done.stderr


def test_a_network_whose_activations_overflow_is_refused_with_the_layer_and_the_image(folder):
    state = torch.load(folder / "models/a/model_2.pt", weights_only=True)
    torch.save({name: 1e30 * value if "weight" in name else value for name, value in state.items()}, folder / "large.pt")
    words = ("large.pt", "lenet", "-d", "digits", "-ood", "patches", "--max-examples", "20", "--mean", "0.3", "--std", "0.3")
    done = script("exec_ood_layers.py", *words, cwd=folder)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert re.search(r"the energies of layer features\.\d are NaN or infinite for 20 of 20 images of digits", done.stderr)


def test_a_single_outlier_has_its_bars_without_an_interval(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    np.save(tmp_path / "one.npy", datasets.load("digits:test", "data").images[60, 0].numpy()[None])
    found = call("models/a/model_2.pt", "-ood", f"npy={tmp_path}/one.npy", "--max-examples", "50")
    assert (None, None) in {(row["ci_low"], row["ci_high"]) for row in found.rows}
    assert "" in drawn.of("ood_layers", OodLayersConfig(model_path="x", ood=("patches",)), found)


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        ((*MODEL, "patches", "--aggregate", "man"), 2, ("--aggregate man", "did you mean")),
        ((*MODEL, "patches", "--aggregate", "logreg"), 2, ("logreg needs --val-ood",)),
        (
            (*MODEL, "patches", "--aggregate", "logreg", "--val-ood", "patches"),
            1,
            ("--val-ood patches: 750 of its images are also in -ood patches",),
        ),
        ((*MODEL, "near"), 2, ("no such group for digits",)),
        ((*MODEL[:2], "-ood", "near"), 2, ("no such group for digits",)),
        ((*MODEL, "digits-c/mist-3"), 2, ("mist: no such corruption",)),
        ((*MODEL, "patches", "--early-exit", "1.5"), 2, ("--early-exit 1.5", "between 0 and 1")),
        ((*MODEL, "patches", "--exits", "features.0"), 2, ("--exits is for --early-exit",)),
        ((*MODEL, "patches", "--early-exit", "0.1", "--exits", "features"), 1, ("--exits features: a pass can stop at",)),
        ((*MODEL, "patches", "--aggregate", "knn", "--fit-examples", "20"), 1, ("--fit-examples: 20 images", "50th")),
        ((*MODEL, "patches", "--aggregate", "maha", "--fit-examples", "2"), 1, ("--aggregate maha: 2 fitting images",)),
        ((*TRAIN, "--loss", "energy_layers"), 2, ("needs --outliers",)),
        ((*TRAIN, "--outliers", "patches"), 2, ("--outliers is for --loss energy_layers",)),
        (
            (*TRAIN, "--loss", "energy_layers", "--outliers", "patches", "--margins-in", "raw"),
            2,
            ("needs --energy-margins",),
        ),
        (
            (*TRAIN, "--loss", "energy_layers", "--outliers", "patches", "--energy-margins", "4", "1"),
            2,
            ("--energy-margins 4.0 1.0",),
        ),
        ((*TRAIN, "--loss", "energy_layers", "--outliers", "digits:test"), 1, ("355 of its images are in digits:test",)),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_status(folder, words, status, fragments):
    done = script(*words, cwd=folder)
    assert done.returncode == status and all(fragment in done.stderr for fragment in fragments), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
