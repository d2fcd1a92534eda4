"""ImageNet-A and -R, cue conflict, silhouettes and the sixteen categories."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SHARED_DATA
from layouts import load, one_of_each_category, write_cue_conflict, write_image, write_imagenet, write_tree

from lib import datasets
from lib.core.errors import UsageError, UserError
from lib.datasets.sets import imagenet16
from lib.models import checkpoints
from lib.models.class_groups import pooled
from lib.probing.evaluation import accuracy_rows
from lib.runs.loading import answering


@pytest.mark.parametrize("letter, subset", [("a", "imagenet200a"), ("r", "imagenet200")])
def test_imagenet_a_and_r_go_with_imagenets_images_of_their_classes(tmp_path, letter, subset):
    wnids = ("n01440764", "n02690373", "n03041632")
    write_imagenet(tmp_path, ("n00000001", *wnids))
    write_tree(tmp_path / f"imagenet-{letter}", ("",), wnids[1:], count=2, size=(110, 100))
    (tmp_path / f"imagenet-{letter}" / "README.txt").write_text("as in the official archive")
    found = load(f"imagenet-{letter}", tmp_path, image_size=32)
    assert (found.classes, found.labels.tolist(), found.split) == (wnids[1:], [0, 0, 1, 1], "test")
    inside = load(subset, tmp_path, "train", image_size=32)
    assert inside.classes == found.classes and [file.parent.name for file in inside.images.files] == list(wnids[1:])
    with pytest.raises(UsageError, match="no split train"):
        datasets.check(f"imagenet-{letter}:train", tmp_path)


def test_cue_conflict_and_silhouettes_have_sixteen_categories_and_say_whose_texture_it_is(tmp_path):
    write_cue_conflict(tmp_path)
    found, shapes = load("cue-conflict", tmp_path, image_size=32), load("silhouette", tmp_path, image_size=32)
    assert found.classes == shapes.classes == imagenet16.CATEGORIES and len(found.classes) == 16
    assert found.labels.tolist() == [label for label in range(16) for _ in range(2)]
    assert [found.images.files[i].stem.split("-")[1][:-1] == found.classes[found.labels[i]] for i in range(32)] == [
        group == 1 for group in found.groups
    ]
    assert found.groups.bincount().tolist() == [16, 16]
    write_image(tmp_path / "cue-conflict" / "cat" / "cat1-cow2.png", (224, 224))
    with pytest.raises(UserError, match="cat1-cow2.png: is not called <shape><n>-<texture><m>.png"):
        load("cue-conflict", tmp_path)
    for file in (tmp_path / "silhouette" / "oven").iterdir():
        file.unlink()
    (tmp_path / "silhouette" / "oven").rmdir()
    with pytest.raises(UserError, match="lacks the class folders oven"):
        load("silhouette", tmp_path)


def test_groups_that_training_does_not_have_give_no_adjusted_average(tmp_path):
    write_cue_conflict(tmp_path)
    split = load("cue-conflict", tmp_path, image_size=32)
    found = accuracy_rows(split.groups == 0, split, torch.arange(32), torch.tensor([100]))
    assert [(row["group"], row["accuracy"]) for row in found] == [
        ("all", 0.5),
        ("another's texture", 1),
        ("its own texture", 0),
        ("worst: its own texture", 0),
    ]


def test_imagenet16_joins_the_classes_of_a_category(tmp_path):
    wnids = [*one_of_each_category().values(), "n02708093", "n02123045"]  # another clock, another cat
    write_imagenet(tmp_path, sorted({*wnids, "n01440764"}))
    found = load("imagenet16:train", tmp_path, image_size=32)
    assert found.classes == imagenet16.CATEGORIES and len(found) == len(set(wnids))
    for file, label in zip(found.images.files, found.labels, strict=True):
        assert file.parent.name in imagenet16.WNIDS_16[found.classes[label]]
    for file in (tmp_path / "imagenet" / "train" / imagenet16.WNIDS_16["knife"][0]).iterdir():
        file.unlink()
    (tmp_path / "imagenet" / "train" / imagenet16.WNIDS_16["knife"][0]).rmdir()
    with pytest.raises(UserError, match="lacks the class folders of knife"):
        load("imagenet16:train", tmp_path)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs SHARED_DATA")
def test_the_sixteen_categories_are_the_published_lists():
    published = json.loads((SHARED_DATA / "imagenet16_wnids.json").read_text())
    assert {name: list(wnids) for name, wnids in imagenet16.WNIDS_16.items()} == published


def test_the_outputs_of_a_class_are_found_by_name_or_by_their_order_in_ilsvrc():
    thousand = tuple(map(str, range(1000)))
    found = dict(zip(imagenet16.CATEGORIES, imagenet16.members(imagenet16.CATEGORIES, thousand), strict=True))
    assert sum(map(len, found.values())) == 207
    assert {name: sorted(found[name]) for name in ("airplane", "bear", "car", "clock", "keyboard", "knife", "oven")} == {
        "airplane": [404],
        "bear": [294, 295, 296, 297],
        "car": [436, 511, 817],
        "clock": [409, 530, 892],
        "keyboard": [508, 878],
        "knife": [499],
        "oven": [766],
    }
    assert imagenet16.members(("n01443537", "n01484850"), thousand) == ((1,), (2,))
    assert imagenet16.members(("n02", "n01"), ("n01", "n02")) == ()  # no WordNet ids
    assert imagenet16.members(("n00000002", "n00000001"), ("n00000001", "n00000002")) == ((1,), (0,))
    assert imagenet16.members(("n00000003",), ("n00000001", "n00000002")) == ()
    assert imagenet16.members(tuple("0123456789"), thousand) == ()  # MNIST's classes are no outputs of ImageNet


def test_pooled_logits_decide_for_the_highest_mean_probability():
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)).double() * 3
    members = ((4,), (0, 7), (1, 2, 8))
    table = torch.tensor([[4, -1, -1], [0, 7, -1], [1, 2, 8]])
    probabilities = logits.softmax(1)
    slow = torch.tensor([[sum(row[j] for j in outputs) / len(outputs) for outputs in members] for row in probabilities])
    found = pooled(logits, table)
    assert torch.equal(found.argmax(1), slow.argmax(1))
    assert torch.allclose(found.softmax(1), slow / slow.sum(1, keepdim=True))
    assert torch.equal(pooled(logits, torch.tensor([[3], [5]])), logits[:, [3, 5]])


def test_classes_that_are_none_of_imagenets_are_refused(tmp_path):
    description = checkpoints.Description(
        architecture="small_cnn", classes=tuple(map(str, range(1000))), channels=1, image_size=32
    )
    checkpoint = checkpoints.Checkpoint(Path("x"), checkpoints.fresh(description, 0, "init"), description)
    with pytest.raises(UserError, match="-d digits: it has 10 classes, the network 1000"):
        answering(checkpoint, datasets.load("digits", tmp_path), "digits")
