"""What training sees of a data set: class subsets by name, and the statistics of images as the network sees them."""

import pytest
import torch
from conftest import ROOT, SHARED_DATA

from lib import datasets
from lib.core.errors import UserError
from lib.datasets import names
from lib.datasets.split import Split, fit
from lib.datasets.statistics import channel_statistics


def random_split(shape=(40, 3, 12, 12)) -> Split:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Split("random", "train", images, torch.arange(len(images)) % 5, classes=tuple("abcde"))


@pytest.mark.parametrize("size, padding", [(None, 0), (12, 3), (31, 0), (24, 12), (7, 2)])
def test_statistics_are_those_of_the_enlarged_and_padded_images(size, padding):
    split = random_split()
    seen = torch.nn.functional.pad(fit(split.images.double() / 255, None, size), (padding,) * 4)  # what a network sees
    mean, std = channel_statistics(split, size=size, padding=padding)
    assert mean == pytest.approx(seen.mean((0, 2, 3)).tolist(), rel=1e-6)
    assert std == pytest.approx(seen.std((0, 2, 3), correction=0).tolist(), rel=1e-6)
    _, own = channel_statistics(split, size=size, padding=padding, per_image=True)
    assert own == pytest.approx(seen.std((2, 3)).mean(0).tolist(), rel=1e-6)


def test_padding_to_twice_the_side_divides_the_mean_by_four():
    """Check 28 of the hyperplane paper's page: CIFAR at 112 in a black frame of 56."""
    split = random_split()
    plain, _ = channel_statistics(split, size=112)
    padded, _ = channel_statistics(split, size=112, padding=56)
    assert padded == pytest.approx([value / 4 for value in plain], rel=1e-9)


def test_a_constant_channel_cannot_be_normalised():
    split = random_split()
    split.images[:, 1] = 7
    with pytest.raises(UserError, match="constant"):
        channel_statistics(split)


@pytest.mark.skipif(not (SHARED_DATA / "MNIST" / "raw").exists(), reason="no SHARED_DATA")
def test_the_two_deviations_of_mnist_are_the_published_ones():
    """Check 28: .3015 is the mean of the images' own deviations, .3081 the deviation over all pixels."""
    split = datasets.load("mnist", SHARED_DATA, "train")
    mean, std = channel_statistics(split)
    _, own = channel_statistics(split, per_image=True)
    assert (mean[0], std[0], own[0]) == pytest.approx((0.1307, 0.3081, 0.3015), abs=1e-3)


@pytest.mark.parametrize(
    "text, base, held_out, kept, seed",
    [
        ("cifar100-k10", "cifar100", None, 10, None),
        ("digits-k5s3:test", "digits", None, 5, 3),
        ("mnistwo9-k4s0", "mnist", 9, 4, 0),
        ("digits-wo3-k2-c/fog-3", "digits", 3, 2, None),
        ("300k", "300k", None, None, None),
    ],
)
def test_names_of_class_subsets(text, base, held_out, kept, seed):
    data = names.parse(text)
    assert (data.base, data.held_out, data.kept, data.kept_seed) == (base, held_out, kept, seed)
    assert names.parse(str(data)) == data


@pytest.mark.parametrize("name", ["digits-k4", "digits-k4s1", "digits-k4s2", "digits-wo0-k4s1", "digits-k4s1-c/fog-1"])
def test_all_splits_of_a_class_subset_share_classes_and_order(name):
    """Check 24: for any seed, none included."""
    train, test = (datasets.load(name, ROOT / "data", split) for split in ("train", "test"))
    assert train.classes == test.classes and len(train.classes) == 4 and train.name == name.partition("/")[0]
    whole = {split: datasets.load("digits", ROOT / "data", split) for split in ("train", "test")}
    for split in (train, test):
        assert split.labels.unique().tolist() == [0, 1, 2, 3]
        truth = whole[split.split].labels[torch.isin(whole[split.split].indices, split.indices)]
        assert [str(label) for label in truth.tolist()] == [split.classes[label] for label in split.labels]
    assert (train.classes == ("0", "1", "2", "3")) == (name == "digits-k4")


@pytest.mark.parametrize("name", ["digits-k11", "digits-k0", "digits-wo3-k10"])
def test_more_classes_than_there_are_cannot_be_kept(name):
    with pytest.raises(UserError, match="classes cannot be kept; there are"):
        datasets.check(name, ROOT / "data")
