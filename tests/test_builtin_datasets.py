"""The built-in sets, and the class that a set holds out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA
from layouts import load, write_cifar10, write_cifar100

from lib import datasets
from lib.datasets import catalogue
from lib.datasets.split import Split
from lib.datasets.subsets import hold_out


def test_digits_are_a_fixed_stratified_split_of_the_originals():
    from sklearn.datasets import load_digits

    train, test = datasets.load("digits", "data", "train"), datasets.load("digits", "data")
    assert (len(train), len(test), train.split, test.split) == (1442, 355, "train", "test")
    assert sorted(torch.cat([train.indices, test.indices]).tolist()) == list(range(1797))
    assert (train.channels, train.height, train.width) == (1, 32, 32)
    original = load_digits()
    assert torch.equal(test.labels, torch.from_numpy(original.target)[test.indices])
    shrunk = test.images.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((1, 4, 5))
    assert np.corrcoef(shrunk.flatten(), original.images[test.indices].ravel())[0, 1] > 0.95
    assert (test.labels.bincount() / 355 - train.labels.bincount() / 1442).abs().max() < 0.005


def test_patches_for_training_and_testing_share_no_pixel():
    from sklearn.datasets import load_sample_images

    train, test = datasets.load("patches", "data", "train"), datasets.load("patches:test", "data")
    assert (len(train), len(test), train.classes) == (1150, 750, ("china", "flower"))
    china = torch.tensor(load_sample_images().images[0]).permute(2, 0, 1)
    assert torch.equal(train.images[1], china[:, :32, 16:48])
    assert torch.equal(train.images[22], china[:, :32, 352:384])  # the last of a row ends before column 384
    assert torch.equal(test.images[0], china[:, :32, 384:416])


def test_digits_and_patches_are_exactly_scikit_learns():
    """They are read from its installed files, without importing it."""
    from sklearn.datasets import load_digits, load_sample_images

    originals = load_digits()
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(originals.images).float()[:, None] * (255 / 16), scale_factor=4, mode="bilinear"
    )
    for part in ("train", "test"):
        found = datasets.load("digits", "data", part)
        assert torch.equal(found.images, enlarged.round().byte()[found.indices])
        assert torch.equal(found.labels, torch.from_numpy(originals.target)[found.indices])
    assert [*originals.target_names.astype(str)] == list(found.classes)
    photographs = load_sample_images()
    for part, columns in (("train", slice(0, 384)), ("test", slice(384, 640))):
        found = datasets.load("patches", "data", part)
        windows = [
            photograph[:, columns][y : y + 32, x : x + 32]
            for photograph in photographs.images
            for y in range(0, photograph.shape[0] - 31, 16)
            for x in range(0, photograph[:, columns].shape[1] - 31, 16)
        ]
        assert torch.equal(found.images, torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2))
        assert found.labels.bincount().tolist() == [len(windows) // 2] * 2
        assert [Path(name).stem for name in photographs.filenames] == list(found.classes)


def test_a_held_out_class_is_gone_from_both_splits_and_makes_up_the_ood_split():
    full = {part: datasets.load("digits", "data", part) for part in ("train", "test")}
    for part, split in full.items():
        seen = datasets.load("digits-wo3", "data", part)
        assert len(seen) == int((split.labels != 3).sum())
        assert seen.classes == tuple("012456789")
        original = torch.tensor(seen.original_labels)[seen.labels]
        assert torch.equal(original, split.labels[split.labels != 3])
        assert torch.equal(seen.labels, original - (original > 3).long())
    unseen = datasets.load("digits-wo3:ood", "data")
    expected = torch.cat([split.images[split.labels == 3] for split in full.values()])
    assert torch.equal(unseen.images, expected)
    assert (unseen.split, unseen.classes, unseen.original_labels) == ("ood", ("3",), (3,))
    assert len(unseen.indices.unique()) == len(unseen)


def test_cifar10wo0_renames_the_last_label_and_keeps_the_rest(tmp_path):
    write_cifar10(tmp_path)
    full, seen = load("cifar10", tmp_path, "train"), load("cifar10wo0", tmp_path, "train")
    old = full.labels[full.labels != 0]
    assert torch.equal(seen.labels, torch.where(old == 9, 0, old))
    assert seen.classes == ("c9", *(f"c{i}" for i in range(1, 9)))
    assert torch.equal(torch.tensor(seen.original_labels)[seen.labels], old)
    lowered = load("cifar10-wo1", tmp_path, "train")
    assert lowered.classes == ("c0", *(f"c{i}" for i in range(2, 10)))
    assert load("cifar10wo0", tmp_path).name == "cifar10-wo0"


@pytest.mark.parametrize(
    "base, classes, images, k, sizes",
    [
        ("cifar10", 10, (50_000, 10_000), 0, (45_000, 9_000, 6_000)),
        ("cifar10", 10, (50_000, 10_000), 9, (45_000, 9_000, 6_000)),
        ("cifar100coarse", 20, (50_000, 10_000), 4, (47_500, 9_500, 3_000)),
    ],
)
def test_cifar_without_a_class_has_the_sizes_of_the_paper(tmp_path, monkeypatch, base, classes, images, k, sizes):
    def balanced(root, split, options):
        n = images[split == "test"]
        return Split(
            base,
            split,
            torch.zeros(n, 3, 1, 1, dtype=torch.uint8),
            torch.arange(n) % classes,
            classes=tuple(f"c{label}" for label in range(classes)),
        )

    monkeypatch.setattr(f"lib.datasets.sets.cifar.{base}", balanced)
    monkeypatch.setattr(catalogue, "missing", lambda root, known: [])
    splits = [load(f"{base}wo{k}", tmp_path, part) for part in ("train", "test", "ood")]
    assert tuple(map(len, splits)) == sizes and splits[2].classes == (f"c{k}",)
    for split in splits[:2]:
        assert split.labels.unique().tolist() == list(range(classes - 1))
        assert set(split.original_labels) == set(range(classes)) - {k}


def test_cifar100wosp_leaves_one_fine_class_of_every_coarse_class_out(tmp_path):
    write_cifar100(tmp_path)
    train, test, unseen = (load(f"cifar100wosp1{part}", tmp_path, "train") for part in ("", ":test", ":ood"))
    assert (len(train.classes), len(unseen.classes), train.classes) == (80, 20, test.classes)
    assert sorted(train.original_labels + unseen.original_labels) == list(range(100))
    assert sorted(label // 5 for label in unseen.original_labels) == list(range(20))  # write_cifar100: five of each
    assert train.labels.unique().tolist() == list(range(80)) and len(unseen) == 40
    assert torch.equal(torch.tensor(train.original_labels)[train.labels], torch.tensor(sorted(train.original_labels)))
    assert unseen.original_labels != load("cifar100wosp2:ood", tmp_path).original_labels
    assert train.name == "cifar100-wosp1" and datasets.splits("cifar100wosp1", tmp_path) == ("train", "test", "ood")


@pytest.mark.parametrize("name, channels", [("uniform", 3), ("uniform-grey", 1)])
def test_uniform_noise_follows_from_the_position_alone_and_has_every_level(tmp_path, name, channels):
    found = load(name, tmp_path, image_size=28)
    assert found.images.shape == (channels, 28, 28) and len(found) == 10_000 and bool((found.labels == -1).all())
    some = next(found.stored(torch.tensor([7, 3])))
    assert torch.equal(found.subset([3]).images.take(np.array([0]))[0], some[1]) and not torch.equal(some[0], some[1])
    levels_seen = next(found.stored(torch.arange(100))).flatten().bincount(minlength=256).double()
    assert float((levels_seen / levels_seen.sum() - 1 / 256).abs().max()) < 1e-3


@pytest.mark.skipif(not (SHARED_DATA / "MNIST" / "raw").is_dir(), reason="needs SHARED_DATA")
def test_mnist_without_a_digit_has_the_sizes_of_the_paper():
    sizes = [54077, 53258, 54042, 53869, 54158, 54579, 54082, 53735, 54149, 54051]
    unseen = [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    train, test = datasets.load("mnist", SHARED_DATA, "train"), datasets.load("mnist", SHARED_DATA, "test")
    assert [len(hold_out(train, k)) for k in range(10)] == sizes
    assert [int((train.labels == k).sum() + (test.labels == k).sum()) for k in range(10)] == unseen
    assert len(datasets.load("mnistwo9:ood", SHARED_DATA)) == unseen[9]
    assert train.statistics() == (pytest.approx((0.1307,), abs=1e-4), pytest.approx((0.3081,), abs=1e-4))
