"""Augmentation acts on batches, keeps shape and range, and draws anew at each step of each epoch."""

import pytest
import torch
from layouts import toy

from lib import datasets
from lib.core.errors import UsageError
from lib.core.randomness import generator
from lib.datasets import augment


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_augmentations_keep_shape_and_range_and_can_be_repeated(name, shape):
    images = torch.rand(16, *shape)
    function = datasets.resolve(augment.AUGMENTATIONS[name])
    once, again = (function(images, generator(0, "a")) for _ in range(2))
    assert once.shape == images.shape and once.dtype == images.dtype
    assert once.min() >= 0 and once.max() <= 1
    assert torch.equal(once, again)
    assert torch.equal(once, images) == (name == "none")


def test_crops_are_windows_of_the_padded_image_and_half_of_them_are_mirrored():
    images = torch.rand(400, 3, 9, 7)
    padded = torch.nn.functional.pad(images, (4,) * 4)
    windows = padded.unfold(2, 9, 1).unfold(3, 7, 1).flatten(2, 3)  # (n, 3, 81, 9, 7)
    both = torch.stack([windows, windows.flip(-1)], 2)  # as they are, and mirrored
    for function in (augment.crop, augment.crop_flip):
        found = function(images, generator(1, "a"))[:, :, None, None]
        places = (both == found).all(-1).all(-1).all(1)  # (n, 2, 81)
        assert places.any(2).any(1).all()
        mirrored = (~places[:, 0].any(1)).sum()
        corners = set(places.any(1).int().argmax(1).tolist())
        assert len(corners) > 75  # of 81
        assert mirrored == 0 if function is augment.crop else 150 < mirrored < 250


def test_warping_by_a_quarter_turn_turns_the_image():
    images = torch.rand(2, 3, 8, 8)
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0]]).expand(2, -1, -1)
    assert torch.allclose(augment._warp(images, quarter), images.rot90(-1, (2, 3)), atol=1e-5)


def test_each_step_of_each_epoch_draws_its_own_augmentation():
    split, images = toy(8), torch.rand(8, 3, 8, 8)
    _, first = augment.for_epoch(split, "crop-flip", 0, 1)
    _, second = augment.for_epoch(split, "crop-flip", 0, 2)
    assert torch.equal(first(images, 5), first(images, 5))
    assert not torch.equal(first(images, 5), first(images, 6))
    assert not torch.equal(first(images, 5), second(images, 5))
    assert augment.for_epoch(split, "none", 0)[1] is None
    with pytest.raises(UsageError, match="--augmentation crop-flap.*crop-flip"):
        augment.for_epoch(split, "crop-flap", 0)
