"""Robust accuracy: never above the accuracy, worse with more attacks, resumable, from the command line."""

import json

import numpy as np
import pytest
import torch
from conftest import script
from torch import nn

from lib.attacks import robust_accuracy
from lib.attacks.pgd import Ball
from lib.attacks.robust_accuracy import Attack
from lib.core.errors import UserError
from lib.datasets.batching import Batching
from lib.datasets.split import Split

BATCHES = Batching(batch_size=16, quiet=True)


@pytest.fixture
def linear():
    """Two classes told apart by whether the mean of the pixels is above a half."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.zeros_(network[1].bias)
    with torch.no_grad():
        network[1].weight[0], network[1].weight[1] = -1 / 8, 1 / 8
        network[1].bias[0] = 8 * 0.5 * 2
    return network


@pytest.fixture
def data():
    """Images at every brightness; those from 128 on are of class 1. The first is labelled wrongly."""
    images = torch.arange(0, 255, 5, dtype=torch.uint8)[:, None, None, None].expand(51, 1, 8, 8).contiguous()
    labels = (images[:, 0, 0, 0] >= 128).long()
    labels[0] = 1
    return Split("brightness", "test", images, labels, classes=("dark", "bright"))


def survivors(network, data, folder, norm, radius, **changes):
    options = {"steps": 20, "step_size": radius / 4, **changes}
    return robust_accuracy.robust_images(
        network, data, Attack(name="pgd", ball=Ball(norm, radius), **options), BATCHES, folder
    )


@pytest.mark.parametrize("norm, radius, shift", [("2", 0.8, 0.1), ("inf", 0.1, 0.1)])
def test_images_survive_where_the_boundary_is_further_than_the_radius(linear, data, tmp_path, norm, radius, shift):
    brightness = data.images[:, 0, 0, 0].double() / 255
    expected = (brightness - 0.5).abs() > shift
    expected[0] = False  # wrong from the beginning
    assert torch.equal(survivors(linear, data, tmp_path, norm, radius), expected)
    assert int(expected.sum()) == 40


def test_more_restarts_and_steps_never_help_the_network(linear, data, tmp_path):
    weak = survivors(linear, data, tmp_path, "2", 0.8, steps=1, step_size=0.4)
    more = survivors(linear, data, tmp_path, "2", 0.8, steps=1, step_size=0.4, restarts=4)
    assert bool((more <= weak).all()) and int(survivors(linear, data, tmp_path, "2", 0.8).sum()) <= int(more.sum())


def test_what_finished_batches_came_to_is_not_computed_again(linear, data, tmp_path, monkeypatch):
    calls, whole = [], robust_accuracy._pgd
    monkeypatch.setattr(robust_accuracy, "_pgd", lambda *words: calls.append(1) or whole(*words))

    def interrupted(*words):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return whole(*words)

    expected = survivors(linear, data, tmp_path / "a", "2", 0.8)
    assert len(calls) == 4
    calls.clear()
    monkeypatch.setattr(robust_accuracy, "_pgd", interrupted)
    with pytest.raises(KeyboardInterrupt):
        survivors(linear, data, tmp_path / "b", "2", 0.8)
    calls.clear()
    monkeypatch.setattr(robust_accuracy, "_pgd", lambda *words: calls.append(1) or whole(*words))
    assert torch.equal(survivors(linear, data, tmp_path / "b", "2", 0.8), expected) and len(calls) == 2
    survivors(linear, data, tmp_path / "b", "2", 0.9)
    assert len(calls) == 6


def test_eval_reports_accuracy_under_attack(trained):
    done = script(
        "exec_eval.py",
        "models/a/model_2.pt",
        "--attack",
        "pgd",
        "--eps",
        0.5,
        "--restarts",
        2,
        "--max-examples",
        100,
        "--name",
        "robust",
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((trained / "results" / "eval" / "robust.json").read_text())
    arrays = np.load(trained / "results" / "eval" / "robust.npz")
    whole = record["rows"][0]
    assert 0 <= whole["robust_accuracy"] <= whole["accuracy"]
    assert whole["robust_accuracy"] == arrays["robust_digits-test"].mean()
    classes = [row for row in record["rows"] if row["subset"].startswith("class:")]
    assert sum(row["robust_accuracy"] * row["n"] for row in classes) == pytest.approx(whole["robust_accuracy"] * 100)


@pytest.mark.parametrize(
    "words, status, message",
    [
        (("--attack", "pgd"), 2, "--eps is required"),
        (("--eps", "1"), 2, "--attack is required"),
        (("--attack", "pgd", "--eps", "0"), 2, "--eps 0.0: 0.0 is not above 0"),
        (("--attack", "fgsm", "--eps", "1"), 2, "--attack fgsm"),
    ],
)
def test_bad_settings_of_an_attack_are_one_sentence(trained, words, status, message):
    done = script("exec_eval.py", "models/a/model_2.pt", *words, cwd=trained)
    assert done.returncode == status and message in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("attack", ["apgd", "aa"])
def test_an_attack_of_the_optional_library_is_stronger_or_its_absence_is_a_sentence(linear, data, tmp_path, attack):
    try:
        robust_accuracy.check(attack)
    except UserError as error:
        assert "pip install pyautoattack" in str(error)
        return
    images = data.subset(torch.arange(17, 33))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    labels = network(images.images.float() / 255).argmax(1)
    images = Split("own", "test", images.images, labels, classes=tuple("abcdefghijkl"))
    ours, theirs = (
        robust_accuracy.robust_images(
            network, images, Attack(name=name, ball=Ball("2", 0.5), steps=10, step_size=0.2), BATCHES, tmp_path
        )
        for name in ("pgd", attack)
    )
    assert int(theirs.sum()) <= int(ours.sum()) < 16
