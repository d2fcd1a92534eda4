"""Every script on built-in data, as a user calls it; every mistake one sentence."""

import json
import os

import numpy as np
import pytest
from conftest import SHARED_DATA, script


def record(folder, experiment: str) -> dict:
    return json.loads(max((folder / "results" / experiment).glob("*.json"), key=os.path.getmtime).read_text())


def test_eval_gives_a_row_per_data_set_class_and_group_and_a_figure(trained):
    done = script("exec_eval.py", "models/a/model_2.pt", "-d", "digits", "-d", "digits:train", "--save-logits", cwd=trained)
    assert done.returncode == 0, done.stderr
    found = record(trained, "eval")
    whole = [row for row in found["rows"] if row["subset"] == "all"]
    assert [(row["data"], row["split"], row["n"]) for row in whole] == [("digits", "test", 355), ("digits", "train", 1442)]
    classes = [row for row in found["rows"] if row["split"] == "test" and row["subset"].startswith("class:")]
    total = sum(row["accuracy"] * row["n"] for row in classes)
    assert len(classes) == 10 and total / 355 == pytest.approx(whole[0]["accuracy"])
    assert whole[0]["top5"] > whole[0]["accuracy"] and 0 <= whole[0]["ece"] <= 1
    path = trained / done.stdout.strip().splitlines()[-1]
    arrays = np.load(path.with_suffix(".npz"))
    assert (arrays["logits_digits-test"].argmax(1) == arrays["labels_digits-test"]).mean() == whole[0]["accuracy"]
    assert len(list(path.parent.glob(f"{path.stem}-*.png"))) == 2
    assert found["inputs"]["models/a/model_2.pt"]["sha256"]


def test_a_checkpoint_knows_its_data_and_evaluates_as_in_training(trained):
    assert script("exec_eval.py", "a/model_2.pt", cwd=trained).returncode == 0
    whole = record(trained, "eval")["rows"][0]
    epochs = record(trained, "train")["rows"]
    assert whole["accuracy"] == epochs[1]["val_accuracy"] and whole["loss"] == pytest.approx(epochs[1]["val_loss"], rel=1e-5)


def test_ood_layers_gives_a_row_per_layer_set_and_temperature(trained):
    done = script(
        "exec_ood_layers.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "-ood",
        "patches",
        "digits",
        "-T",
        "1",
        "10",
        "-b",
        "50",
        cwd=trained,
    )
    assert done.returncode == 0 and "is the in-distribution set itself" in done.stderr, done.stderr
    found = record(trained, "ood_layers")
    rows = found["rows"]
    keys = [(row["layer"], row["ood"], row["T"]) for row in rows]
    assert len(keys) == len(set(keys)) == 9 * 2 * 2
    for row in rows:
        assert row["n_id"] == 355 and row["fit_on"] == "digits:train" and 0 < row["mac_fraction"] <= 1
        assert row["auroc_oracle_sign"] == pytest.approx(max(row["auroc"], 1 - row["auroc"]))
        assert row["sign"] == (1 if row["auroc"] >= 0.5 else -1)
        if row["ood"] == "digits":
            assert row["auroc"] == 0.5 and row["auroc_two_sided"] == 0.5
    arrays = np.load(next((trained / "results" / "ood_layers").glob("*.npz")))
    assert arrays["energies_id"].shape == (355, 9, 2) and list(arrays["layers"])[-1] == "classifier.6"
    assert len(list((trained / "results" / "ood_layers").glob("*.png"))) == 2


@pytest.mark.parametrize("patterns, count", [(("all",), 21), (("cuts",), 21), (("features.0", "classifier.*"), 6)])
def test_ood_layers_takes_names_globs_cuts_and_all(trained, patterns, count):
    done = script(
        "exec_ood_layers.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "-ood",
        "patches",
        "--layers",
        *patterns,
        "--max-examples",
        "40",
        "--overwrite",
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    assert (
        len(record(trained, "ood_layers")["rows"]) == count
    )  # dropout and what else changes nothing is no layer of its own


def test_list_layers_shows_cuts_shapes_and_costs(trained):
    done = script("exec_ood_layers.py", "models/a/model_2.pt", "--list-layers", cwd=trained)
    assert done.returncode == 0 and "6x32x32" in done.stdout and "55296" in done.stdout
    done = script("exec_train.py", "resnet20", "-d", "digits", "-dir", "b", "--list-layers", cwd=trained)
    assert done.returncode == 0 and "layer3.2" in done.stdout


def test_plan_says_what_would_be_done_and_does_nothing(trained):
    done = script("exec_train.py", "lenet", "-d", "digits", "-dir", "planned", "--plan", cwd=trained)
    assert done.returncode == 0 and "models/planned/model_100.pt" in done.stdout
    assert not (trained / "models" / "planned").exists()


def test_data_is_listed_and_shown_with_a_contact_sheet(trained):
    done = script("exec_data.py", "list", cwd=trained)
    assert done.returncode == 0 and "digits" in done.stdout and "exec_data.py prepare cifar10" in done.stdout
    done = script("exec_data.py", "verify", "digits", cwd=trained)
    assert done.returncode == 0 and "1,442" in done.stdout, done.stdout + done.stderr
    done = script("exec_data.py", "show", "digits-wo3", cwd=trained)
    assert done.returncode == 0, done.stderr
    rows = [row for row in record(trained, "data")["rows"] if row["subset"] == "all"]
    assert {row["split"]: row["n"] for row in rows} == {"train": 1295, "test": 319, "ood": 183}
    assert len(list((trained / "results" / "data").glob("*.png"))) == 3


def test_tables_come_from_the_records_and_a_record_can_be_run_again(trained):
    done = script("exec_eval.py", "models/a/model_1.pt", "-d", "digits", "--name", "again", cwd=trained)
    assert done.returncode == 0
    before = record(trained, "eval")
    done = script("exec_tables.py", "--rerun", "results/eval/again.json", cwd=trained)
    assert done.returncode == 0 and "was made again" in done.stdout, done.stderr
    after = json.loads((trained / "results" / "eval" / "again.json").read_text())
    assert after["rows"] == before["rows"] and after["started"] >= before["started"]
    done = script("exec_tables.py", "train", "eval", cwd=trained)
    assert done.returncode == 0 and "## train" in done.stdout and f"{after['rows'][0]['accuracy']:.4f}" in done.stdout


def test_runs_and_checkpoints_are_listed(trained):
    done = script("exec_eval.py", "--list", cwd=trained)
    assert done.returncode == 0 and "models/a/model_2.pt" in done.stdout and "results/train/" in done.stdout


def test_a_converted_checkpoint_evaluates_like_the_original(trained):
    import torch

    state = torch.load(trained / "models" / "a" / "model_2.pt", weights_only=True)
    torch.save({"model": state, "object": argparse_namespace()}, trained / "old.pth")
    done = script("exec_eval.py", "old.pth", "lenet", "-d", "digits", cwd=trained)
    assert done.returncode == 1 and "convert-checkpoint" in done.stderr
    assert script("exec_data.py", "convert-checkpoint", "old.pth", "new.pt", cwd=trained).returncode == 0
    described = json.loads((trained / "models" / "a" / "model_2.json").read_text())
    done = script(
        "exec_eval.py",
        "new.pt",
        "lenet",
        "-d",
        "digits",
        "--mean",
        *map(str, described["mean"]),
        "--std",
        *map(str, described["std"]),
        cwd=trained,
    )
    assert done.returncode == 0 and record(trained, "eval")["rows"][0]["accuracy"] == described["metrics"]["val_accuracy"]


def argparse_namespace():
    """Something that plain unpickling needs code for, as old training scripts left it in their checkpoints."""
    import argparse

    return argparse.Namespace(lr=0.1)


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        (("exec_eval.py", "models/a/model_9.pt"), 1, ("models/a/model_9.pt: no such checkpoint", "model_2.pt")),
        (("exec_eval.py", "models/a"), 1, ("is a folder with",)),
        (("exec_eval.py", "-d", "digits"), 2, ("MODEL_PATH is required",)),
        (("exec_eval.py", "models/a/model_2.pt", "resnet20"), 1, ("is a lenet, not a resnet20",)),
        (("exec_eval.py", "models/a/model_2.pt", "-d", "digits-bg"), 1, ("it has 2 classes, the network 10",)),
        (("exec_eval.py", "models/a/model_2.pt", "-d", "digits-wo12"), 1, ("no class 12",)),
        (("exec_eval.py", "models/a/model_2.pt", "-d", "folder=nowhere"), 1, ("nowhere",)),
        (("exec_eval.py", "models/a/model_2.pt", "--mean", "0.5"), 2, ("--mean and --std go together",)),
        (("exec_ood_layers.py", "models/a/model_2.pt"), 2, ("-ood is required",)),
        (
            ("exec_ood_layers.py", "models/a/model_2.pt", "-ood", "patches", "--layers", "features.99"),
            1,
            ("features.99", "did you mean features.9"),
        ),
        (("exec_ood_layers.py", "models/a/model_2.pt", "-ood", "patches", "-T", "0"), 2, ("-T 0.0", "not above 0")),
        (("exec_data.py", "shw", "digits"), 2, ("did you mean show",)),
        (("exec_data.py", "show"), 2, ("show takes 1 arguments",)),
        (("exec_tables.py", "--rerun", "nothing.json"), 1, ("nothing.json",)),
        (("exec_eval.py", "models/a/model_2.pt", "--results-dir", "models/a/model_2.pt"), 1, ("cannot write",)),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_status(trained, words, status, fragments):
    done = script(*words, cwd=trained)
    assert done.returncode == status and all(fragment in done.stderr for fragment in fragments), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr


needs_shared_data = pytest.mark.skipif(not (SHARED_DATA / "fashion_mnist_900.npy").exists(), reason="no SHARED_DATA")


@needs_shared_data
def test_real_outliers_are_told_from_digits(trained):
    fashion, images = SHARED_DATA / "fashion_mnist_900.npy", SHARED_DATA / "imagenet_sample_64.npy"
    done = script(
        "exec_ood_layers.py", "models/a/model_2.pt", "-d", "digits", "-ood", f"npy={fashion}", f"npy={images}", cwd=trained
    )
    assert done.returncode == 0, done.stderr
    rows = record(trained, "ood_layers")["rows"]
    assert {row["n_ood"] for row in rows} == {900, 1000}
    assert max(row["auroc_two_sided"] for row in rows if row["n_ood"] == 900) > 0.8
