"""Names of data sets: their grammar, the papers' spellings, what is known without reading, what is refused."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from layouts import levels, load, write_cifar10, write_tree

from lib import datasets
from lib.core.errors import UsageError, UserError
from lib.datasets import catalogue, names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cifar10", ("cifar10", None, False, None, "")),
        ("cifar10:test", ("cifar10", None, False, "test", "")),
        ("waterbirds:validation", ("waterbirds", None, False, "val", "")),
        ("cifar10-c/fog-3", ("cifar10", None, True, None, "fog-3")),
        ("mnist-wo9", ("mnist", 9, False, None, "")),
        ("mnistwo9:ood", ("mnist", 9, False, "ood", "")),
        ("fashionwo0", ("fashionmnist", 0, False, None, "")),
        ("cifar100coarsewo4", ("cifar100coarse", 4, False, None, "")),
        ("imgnet100wo2:ood", ("imagenet100", 2, False, "ood", "")),
        ("aug10-imgnet100wo0", ("imagenet100", 0, False, None, "")),
        ("aug10-imgnet100", ("imagenet100", None, False, None, "")),
        ("cifar10-wo12-c:ood/jpeg_compression-5", ("cifar10", 12, True, "ood", "jpeg_compression-5")),
        ("outlier_exposure", ("300k", None, False, None, "")),
        ("300k", ("300k", None, False, None, "")),
        ("cifar5m", ("cifar5m", None, False, None, "")),
        ("my-c", ("my-c", None, False, None, "")),
    ],
)
def test_names_follow_the_grammar_and_the_papers_spellings(text, expected):
    data = names.parse(text)
    assert (data.base, data.held_out, data.corrupted, data.split, data.variant) == expected
    assert names.parse(str(data)) == data


def test_names_with_paths():
    assert names.parse("folder=a/b c:train") == names.DataName("folder", split="train", path="a/b c")
    assert names.parse("npy=../x.npy") == names.DataName("npy", path="../x.npy")
    assert names.parse("npy=../x.npy").name == "x" and str(names.parse("npy=../x.npy")) == "npy=../x.npy"


@pytest.mark.parametrize(
    "text", ["", "../etc", "a/b", "cifar10:", "cifar10/fog-3", "folder=", ".hidden", "a:b:c", "aug01-imgnet100"]
)
def test_malformed_names_are_errors_of_the_command_line(text):
    with pytest.raises(UsageError):
        names.parse(text)


def test_unknown_names_splits_corruptions_and_classes_are_refused_with_a_way_out(tmp_path):
    for text, words in {
        "cifar11": "did you mean cifar10",
        "digits:val": "digits has train, test",
        "digits:ood": "digits-wo0:ood",
        "digits-c/fig-3": "did you mean fog",
        "digits-c/fog-6": "1, 2, 3, 4 or 5",
        "digits-c": "digits-c/fog-3",
    }.items():
        with pytest.raises(UsageError, match=words):
            datasets.check(text, tmp_path)
    with pytest.raises(UserError, match="digits has no class 10; its classes are 0 to 9"):
        datasets.check("digits-wo10", tmp_path)


def test_checking_names_needs_no_torch():
    code = """
import sys
from lib import datasets
datasets.check("digits-wo3-c:ood/fog-3", "data")
assert datasets.sources("digits", "data") == []
datasets.known("data")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_splits_of_a_set_are_known_without_reading_it(tmp_path):
    assert datasets.splits("digits", tmp_path) == ("train", "test")
    assert datasets.splits("digits:test", tmp_path) == ("test",)
    assert datasets.splits("digits-wo3", tmp_path) == ("train", "test", "ood")
    write_tree(tmp_path / "pets", ("train", "val"))
    assert datasets.splits("pets", tmp_path) == ("train", "val")
    write_tree(tmp_path / "undivided", ("",))
    assert datasets.splits("undivided-wo1", tmp_path) == ("all", "ood")


def test_every_registered_set_is_in_the_catalogue_and_resolves():
    for name, target in datasets.DATASETS.items():
        assert name in catalogue.KNOWN
        assert callable(datasets.resolve(target))
    assert set(catalogue.KNOWN) - set(datasets.DATASETS) == {"cifar10-c", "cifar100-c", "imagenet-c"}
    assert datasets.known("nowhere")["digits"][1] == "built in"
    command = "python exec_data.py prepare cifar10 -data nowhere downloads it there"
    assert datasets.known("nowhere")["cifar10"][1] == command


def test_absent_and_half_present_sets_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"the data root .*nowhere does not exist.*prepare cifar10"):
        datasets.check("cifar10", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"not under .*prepare svhn"):
        datasets.check("svhn", tmp_path)
    write_cifar10(tmp_path)
    datasets.check("cifar10", tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(UserError, match=r"only part of it.*test_batch missing.*prepare cifar10"):
        datasets.check("cifar10", tmp_path)
    with pytest.raises(UserError, match="300K_random_images.npy of the outlier-exposure authors"):
        datasets.check("300k", tmp_path)


FIVES = tuple(str(number) for number in range(0, 50, 5))


@pytest.mark.parametrize(
    ("classes", "number", "left_out"),
    [
        (FIVES, 5, "5"),
        (FIVES, 45, "45"),
        ([str(number) for number in range(1, 13)], 3, "3"),
        ([str(number) for number in range(1, 13)], 12, "12"),
        (["001", "002", "010"], 2, "002"),
        (["03", "3", "4"], 3, "3"),
        (["ant", "bee", "3"], 2, "bee"),
        (["bee", "ant", "cow"], 0, "ant"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "table"])
def test_a_class_is_held_out_by_its_number_where_classes_are_numbers_else_by_its_position(
    tmp_path, classes, number, left_out, form
):
    if form == "folder":
        write_tree(tmp_path / "set", classes=classes, count=1)
    else:
        write_tree(tmp_path / "set" / "images", classes=classes, count=1)
        lines = [f"images/{part}/{name}/0.png,{name},{part}" for part in ("train", "test") for name in classes]
        (tmp_path / "set" / "labels.csv").write_text("\n".join(["path,label,split", *lines]))
    whole, name = load("set", tmp_path, "train"), f"set-wo{number}"
    position = whole.classes.index(left_out)
    for part in ("train", "test"):
        seen = load(f"{name}:{part}", tmp_path)
        assert set(whole.classes) - set(seen.classes) == {left_out} and len(seen) == len(classes) - 1
        assert seen.original_labels == tuple(label for label in range(len(classes)) if label != position)
        assert [whole.classes[seen.original_labels[label]] for label in seen.labels] == [
            seen.classes[label] for label in seen.labels
        ]
    unseen = load(f"{name}:ood", tmp_path)
    assert (unseen.classes, len(unseen), unseen.original_labels) == ((left_out,), 2, (position,))
    assert torch.equal(unseen.images[:1], whole.subset(whole.labels == position).images)
    assert load(f"{name}-k2:train", tmp_path).classes == seen.classes[:2]
    assert load(f"{name}-c:ood/contrast-1", tmp_path).classes == (left_out,)


def test_a_number_that_names_no_class_is_refused_with_those_there_are(tmp_path):
    write_tree(tmp_path / "fives", classes=FIVES, count=1)
    write_tree(tmp_path / "pets", count=1)
    for text, words in {
        "fives-wo3": "fives has no class 3; its classes are 0, 10, 15, 20, 25, 30, 35, 40, 45, 5$",
        "pets-wo2": "pets has no class 2; its classes are counted from 0 in this order: cat, dog$",
    }.items():
        with pytest.raises(UserError, match=words):
            datasets.check(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "why", "way_out"),
    [
        ("my set", "names take no spaces", "folder='data/my set'"),
        ("my set:train", "names take no spaces", "folder='data/my set:train'"),
        ("data/my set", "names take no spaces", "folder='data/my set'"),
        ("data/caf\u00e9", "names take letters from a to z, digits and _ . + - only", "folder='data/caf\u00e9'"),
        ("data/pets:test", "a path is no name", "folder=data/pets:test"),
        ("data/birds", "a path is no name", "csv=data/birds/labels.csv"),
        ("data/birds/labels.csv", "a path is no name", "csv=data/birds/labels.csv"),
        ('my "x".npy', "names take no spaces", "npy='data/my \"x\".npy'"),
        ("my x.npy", "names take no spaces", "npy='data/my x.npy'"),
    ],
)
def test_data_that_have_no_name_are_named_by_their_path(tmp_path, monkeypatch, text, why, way_out):
    monkeypatch.chdir(tmp_path)
    for name in ("my set", "caf\u00e9", "pets", "birds/images"):
        write_tree(tmp_path / "data" / name, count=1)
    (tmp_path / "data" / "birds" / "labels.csv").write_text("path,label\nimages/test/cat/0.png,cat\n")
    for name in ("my x.npy", 'my "x".npy'):
        np.save(tmp_path / "data" / name, levels(4, 8, 8))
    with pytest.raises(UsageError, match=f"names no data set: {re.escape(why)}; say ") as refused:
        names.parse(text)
    assert way_out in str(refused.value)
    assert len(load(way_out.replace("'", ""), tmp_path, "all" if "csv" in way_out or "npy" in way_out else "test"))


@pytest.mark.parametrize("text", ["", "cifar10-c/fog", "digits:Test", "data/nothing"])
def test_what_is_no_path_of_data_is_not_taken_for_one(text):
    with pytest.raises(UsageError, match="names no data set; the form is"):
        names.parse(text)
