"""Coloured digits follow their parameters."""

import math

import pytest
import torch
from conftest import SHARED_DATA
from layouts import load, write_mnist

from lib import datasets
from lib.datasets.sets import colored_mnist
from lib.datasets.sets.colored_mnist import Colouring


@pytest.mark.parametrize("colouring", [colored_mnist.PAPER, colored_mnist.DOMAINBED, Colouring(0, 0.1, (0.3,), 0.6, 3, 0)])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_coloured_digits_follow_their_parameters(colouring, split):
    def source(root, part, options):
        n = 60000
        images, labels = torch.full((n, 1, 2, 2), 255, dtype=torch.uint8), torch.arange(n) % 10
        images[:, :, 0] = 0
        return datasets.resolve("lib.datasets.split:Split")("source", part, images, labels, classes=tuple("0123456789"))

    found = colored_mnist.coloured("x", source, None, split, None, colouring)
    assert len(found) == {"train": 50000, "val": 10000, "test": 60000}[split]
    assert found.images.shape[1:] == (colouring.channels, 2, 2)
    below, colours = found.indices % 10 < 5, found.groups % 2
    assert torch.equal(found.groups // 2, found.labels)
    truth = torch.where(below, colouring.below_five, 1 - colouring.below_five)
    assert found.classes[colouring.below_five] == "below five"
    rates = {(found.labels != truth).double().mean().item(): colouring.label_noise}
    if split == "train":
        environments = len(colouring.train_flips)
        for number, flip in enumerate(colouring.train_flips):
            rates[(colours != found.labels)[number::environments].double().mean().item()] = flip
    else:
        rates[(colours != found.labels).double().mean().item()] = colouring.test_flip
    for rate, probability in rates.items():
        assert abs(rate - probability) <= 4 * math.sqrt(probability * (1 - probability) / len(found) * 2)
    for image, colour in zip(found.images[:50], colours, strict=False):
        assert (image[:, 0] == colouring.background).all()  # no ink
        assert image[:, 1, 0].tolist() == [255 * (channel == colour) for channel in range(colouring.channels)]
    again = colored_mnist.coloured("x", source, None, split, None, colouring)
    other = colored_mnist.coloured("x", source, None, split, None, colouring, seed=1)
    assert torch.equal(again.images, found.images) and torch.equal(again.groups, found.groups)
    assert not torch.equal(other.groups, found.groups)


def test_coloured_mnist_takes_its_digits_from_mnist(tmp_path):
    write_mnist(tmp_path)
    digits = {part: load("mnist", tmp_path, part) for part in ("train", "test")}
    for name in ("cmnist", "cmnist-domainbed"):
        found = {part: load(name, tmp_path, part) for part in ("train", "val", "test")}
        assert sorted(torch.cat([found["train"].indices, found["val"].indices]).tolist()) == list(range(40))
        for part, split in found.items():
            ink = digits["test" if part == "test" else "train"].images[split.indices, 0]
            colours = split.groups % 2
            if name == "cmnist":
                expected = (255 * ink.double() / 255 + 128 * (1 - ink.double() / 255)).round()
                assert (split.images[torch.arange(len(split)), colours] - expected).abs().max() <= 1
            else:
                assert torch.equal(split.images[torch.arange(len(split)), colours], ink)
                assert not split.images[torch.arange(len(split)), 1 - colours].any()
    digits_colour = datasets.load("digits-colour", tmp_path, "train")
    assert digits_colour.images.shape == (1202, 3, 32, 32) and len(digits_colour.group_names) == 4


@pytest.mark.skipif(not (SHARED_DATA / "MNIST" / "raw").is_dir(), reason="needs SHARED_DATA")
def test_the_real_coloured_mnist_has_the_digits_of_mnist():
    assert datasets.load("cmnist", SHARED_DATA).labels.bincount().tolist() == [5139, 4861]
