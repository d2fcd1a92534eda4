"""Classes are matched by their names, in whatever order a network has them; an image without a label counts nowhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import script
from PIL import Image

from lib import datasets
from lib.models import checkpoints

ORDER = "3190452876"  # of the classes of a network
MACHINE = ("-gpu", "-1", "--overwrite")


@pytest.fixture(scope="module")
def turned(trained):
    """The network of digits, and the same one with its answers in another order, and with classes called by letters."""
    path = trained / "models" / "a" / "model_2.pt"
    loaded = checkpoints.load(path)
    state = loaded.network.body.state_dict()
    places = [loaded.description.classes.index(name) for name in ORDER]
    head = [key for key, value in list(state.items())[-2:] if len(value) == len(ORDER)]
    assert len(head) == 2
    loaded.network.body.load_state_dict(state | {key: state[key][places] for key in head})
    checkpoints.save(path.with_name("turned.pt"), loaded.network, replace(loaded.description, classes=tuple(ORDER)))
    checkpoints.save(path.with_name("letters.pt"), loaded.network, replace(loaded.description, classes=tuple("abcdefghij")))
    for letter in "abcdefghik":
        place = trained / "data" / "letters" / letter
        place.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((32, 32), 25 * number, np.uint8)).save(place / f"{number}.png")
    return trained


def rows(folder, *words) -> list[dict]:
    done = script(*words, *MACHINE, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / done.stdout.strip().splitlines()[-1]).read_text())["rows"]


@pytest.mark.parametrize(
    "command, chosen, measures",
    [
        (("exec_eval.py", "{}", "-d", "digits"), {"subset": "all"}, ("accuracy", "loss")),
        (("exec_ncg.py", "{}", "-d", "digits", "-ood", "digits-c:test/fog-3"), {"subset": "all"}, ("ncg", "accuracy")),
        (("exec_ncg.py", "{}", "-d", "digits-wo4"), {"subset": "all"}, ("ncg", "accuracy")),
        (
            ("exec_ncg.py", "models/a/model_1.pt", "-d", "digits", "-ood", "digits-c:test/fog-3", "--against", "{}"),
            {"subset": "all"},
            ("ncg", "ncg_against"),
        ),
        (
            ("exec_probe.py", "{}", "-d", "digits", "-l", "features.7", "-e", "1", "--max-examples", "300"),
            {"probe": "head"},
            ("accuracy",),
        ),
        (
            ("exec_stitch.py", "{}", "{}", "auto", "auto", "features.7", "features.7", "auto", "-d", "digits")
            + ("-i", "rand", "-e", "2", "--max-examples", "300"),
            {"stitch": 0},
            ("accuracy",),
        ),
        (
            ("exec_reinit.py", "{}", "-d", "digits-wo0", "--inits-from", "models/a/init.pt", "--criticality")
            + ("-l", "features.*", "--max-examples", "300"),
            {"status": "measured"},
            ("accuracy", "criticality"),
        ),
    ],
    ids=["eval", "ncg", "ncg-held-out", "ncg-against", "probe", "stitch", "reinit"],
)
def test_a_network_whose_classes_stand_in_another_order_has_the_same_numbers(turned, command, chosen, measures):
    first, second = (
        [
            [row.get(measure) for measure in measures]
            for row in rows(turned, *(word.format(f"models/a/{name}.pt") for word in command))
            if all(row.get(column) == value for column, value in chosen.items())
        ]
        for name in ("model_2", "turned")
    )
    assert first and all(None not in row for row in first if len(row) == 1)
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, abs=0.01)  # rounding, and what stitches have learnt by it


@pytest.mark.parametrize(
    "words",
    [
        ("exec_eval.py", "models/a/letters.pt"),
        ("exec_ncg.py", "models/a/letters.pt", "-ood", "digits"),
        ("exec_probe.py", "models/a/letters.pt", "-l", "features.7"),
        ("exec_stitch.py", "models/a/letters.pt", "models/a/letters.pt", "auto", "auto", "features.7", "features.7", "auto"),
        ("exec_reinit.py", "models/a/letters.pt", "--rand", "1"),
    ],
    ids=lambda words: words[0],
)
def test_as_many_classes_of_other_names_are_refused_by_name(turned, words):
    done = script(*words, "-d", "letters", *MACHINE, cwd=turned)
    assert done.returncode == 1 and "classes that the network does not have: k" in done.stderr, done.stderr


def test_numbers_for_names_go_by_their_places_with_a_warning(turned):
    done = script("exec_eval.py", "models/a/letters.pt", "-d", "digits", *MACHINE, cwd=turned)
    assert done.returncode == 0 and "it goes by their places" in done.stderr


@pytest.fixture(scope="module")
def unlabelled(turned):
    """Two arrays of digits in two groups: some images of the first have no label, the second lacks these images."""
    split = datasets.load("digits:test", turned)
    images, labels = split.images[:200, 0].numpy(), split.labels[:200].numpy().copy()
    groups = np.arange(200) % 2
    unknown = (np.arange(200) % 3 == 0) & (groups == 1)
    for name, kept in (("some", np.ones(200, bool)), ("whole", ~unknown)):
        np.save(turned / f"{name}.npy", images[kept])
        np.save(turned / f"{name}_labels.npy", np.where(unknown, -1, labels)[kept])
        np.save(turned / f"{name}_groups.npy", groups[kept])
    return turned


def test_images_without_a_label_are_in_no_accuracy_and_no_group(unlabelled):
    some, whole = (
        rows(unlabelled, "exec_eval.py", "models/a/model_2.pt", "-d", f"npy={name}.npy") for name in ("some", "whole")
    )
    assert [(row["subset"], row["n"], row["accuracy"]) for row in some] == [
        (row["subset"], row["n"], row["accuracy"]) for row in whole
    ]
    some, whole = (
        next(
            row
            for row in rows(unlabelled, "exec_ncg.py", "models/a/model_2.pt", "-d", "digits", "-ood", f"npy={name}.npy")
            if row["data"] == name and row["subset"] == "all"
        )
        for name in ("some", "whole")
    )
    assert (some["n"], whole["n"]) == (200, 167)
    for measure in ("accuracy", "accuracy_1nn", "accuracy_hits", "accuracy_misses", "p_welch"):
        assert some[measure] == whole[measure] is not None
