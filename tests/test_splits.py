"""Splits: batches, statistics, subsets, label noise, shuffled pixels, validation splits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from layouts import load, toy, write_tree
from scipy.stats import chisquare
from torchvision import transforms

from lib.core.errors import UserError
from lib.datasets.label_noise import label_noise, pixel_shuffle
from lib.datasets.split import fit, join
from lib.datasets.subsets import class_subset, validation_split


def test_batches_give_every_image_once_as_floats_between_0_and_1():
    split = toy(10)
    found = list(split.batches(4))
    assert [len(images) for images, _, _ in found] == [4, 4, 2]
    images, labels, positions = (torch.cat(part) for part in zip(*found, strict=True))
    assert images.dtype == torch.float32
    assert torch.equal(images, split.images / 255)
    assert torch.equal(labels, split.labels)
    assert torch.equal(positions, torch.arange(10))


def test_batches_follow_the_order_and_number_the_augmentation():
    split, order, seen = toy(10), torch.tensor([7, 0, 7, 3, 9]), []
    found = list(split.batches(2, order=order, augment=lambda images, step: seen.append(step) or images))
    assert torch.equal(torch.cat([images for images, _, _ in found]), split.images[order] / 255)
    assert torch.equal(torch.cat([labels for _, labels, _ in found]), split.labels[order])
    assert torch.equal(torch.cat([positions for _, _, positions in found]), order)
    assert seen == [0, 1, 2]
    assert list(split.batches(2, order=torch.tensor([], dtype=torch.int64))) == []


def test_images_are_fitted_to_the_network():
    grey, colour = torch.rand(2, 1, 28, 28), torch.rand(2, 3, 32, 32)
    assert torch.equal(fit(grey, 3)[:, 2:], grey)
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    assert torch.allclose(fit(colour, 1)[:, 0], luma)
    for size in (16, 64):
        expected = transforms.functional.resize(colour, [size, size], antialias=True)
        assert torch.allclose(fit(colour, 3, size), expected, atol=1e-6)
    assert fit(colour, 3, 32) is colour
    with pytest.raises(UserError, match="3 channels.*takes 4"):
        fit(colour, 4)


def test_statistics_are_those_over_all_pixels():
    split = toy(50)
    mean, std = split.statistics()
    values = split.images.double() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), abs=1e-12)
    constant = replace(split, images=torch.full_like(split.images, 51))
    assert constant.statistics() == (pytest.approx((0.2,) * 3), (0.0,) * 3)


def test_a_subset_keeps_labels_groups_and_original_positions_together():
    split = replace(toy(10), groups=torch.arange(10) * 2)
    chosen = split.subset([8, 1]).subset(torch.tensor([False, True]))
    assert (chosen.labels.tolist(), chosen.groups.tolist(), chosen.indices.tolist()) == ([1], [2], [1])
    assert torch.equal(chosen.images[0], split.images[1])
    both = join(split.subset([0]), split.subset([5]))
    assert both.indices.tolist() == [0, 5]


@pytest.mark.parametrize("ratio", [0, 0.1, 0.4, 0.8, 1])
def test_label_noise_hits_its_share_and_always_misses_the_label(ratio):
    split = toy(50000, 10, (1, 1, 1))
    noisy = label_noise(split, ratio, 7)
    changed = noisy.labels != split.labels
    assert abs(changed.double().mean() - ratio) <= 4 * math.sqrt(ratio * (1 - ratio) / len(split))
    if ratio:
        shifts = (noisy.labels - split.labels)[changed] % 10
        assert chisquare(shifts.bincount(minlength=10)[1:]).pvalue > 1e-3
    assert torch.equal(noisy.labels, label_noise(split, ratio, 7).labels)
    part = split.subset(torch.arange(0, 50000, 3))
    assert torch.equal(label_noise(part, ratio, 7).labels, noisy.labels[::3])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_pixel_shuffle_permutes_each_image_its_own_way_for_all_channels(shape):
    split = toy(12, shape=shape)
    same = replace(split, images=split.images[:1].expand(12, -1, -1, -1).contiguous())
    shuffled = pixel_shuffle(same, 3)
    pixels = shuffled.images.flatten(2).mT.tolist()  # (n, pixels, channels)
    assert all(sorted(image) == sorted(same.images[0].flatten(1).T.tolist()) for image in pixels)
    assert len(shuffled.images.flatten(1).unique(dim=0)) == 12
    assert torch.equal(pixel_shuffle(same, 3).images, shuffled.images)
    assert torch.equal(pixel_shuffle(same.subset([4]), 3).images, shuffled.images[4:5])


def test_pixel_shuffle_of_decoded_images_is_the_same_at_every_reading(tmp_path):
    write_tree(tmp_path / "large", size=(120, 100))
    split = load("large", tmp_path, image_size=32)
    shuffled = pixel_shuffle(split, 3)
    decoded = replace(split, images=split.images.take(np.arange(6)))
    expected = pixel_shuffle(decoded, 3).images / 255
    assert torch.equal(next(shuffled.batches(6))[0], expected)
    assert torch.equal(next(shuffled.subset([4, 1]).batches(2))[0], expected[[4, 1]])


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.29, 0.5, 0.99])
def test_validation_splits_are_disjoint_complete_and_of_the_stated_size(fraction, stratified):
    split = replace(toy(1000), labels=torch.tensor([0] * 700 + [1] * 203 + [2] * 97))  # sorted, as folders are
    train, val = validation_split(split, fraction, 5, stratified)
    assert len(val) == math.floor(round(1000 * fraction, 6)) and val.split == "val"
    assert sorted(torch.cat([train.indices, val.indices]).tolist()) == list(range(1000))
    if stratified:
        assert (val.labels.bincount(minlength=3) - fraction * split.labels.bincount()).abs().max() <= 1
    else:
        assert len(val.labels.unique()) == 3
    assert torch.equal(validation_split(split, fraction, 5, stratified)[1].indices, val.indices)
    assert not torch.equal(validation_split(split, fraction, 6, stratified)[1].indices, val.indices)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_class_subsets_agree_between_splits(seed):
    train, test = toy(60, 10), replace(toy(30, 10), split="test")
    parts = [class_subset(split, 4, seed) for split in (train, test)]
    assert parts[0].classes == parts[1].classes and parts[0].original_labels == parts[1].original_labels
    for part, split in zip(parts, (train, test), strict=True):
        assert torch.equal(torch.tensor(part.original_labels)[part.labels], split.labels[part.indices])
        assert set(part.labels.tolist()) == {0, 1, 2, 3}
    if seed is None:
        assert parts[0].classes == train.classes[:4]
    with pytest.raises(UserError, match="it has 10"):
        class_subset(train, 11, seed)
