"""Corrupted sets: the official arrays and folders, and those that are generated."""

import os

import numpy as np
import pytest
import torch
from layouts import load, write_cifar10, write_cifar100, write_corrupted, write_tree
from PIL import Image

from lib import datasets
from lib.core.errors import UserError
from lib.datasets import corruptions
from lib.datasets.sets.imagenet import WNIDS_100
from lib.datasets.storage import verify


def test_official_corruptions_are_read_at_their_severity_only(tmp_path):
    write_cifar10(tmp_path)
    array = write_corrupted(tmp_path, "CIFAR-10-C", 20, 10)
    for severity in (1, 3, 5):
        found = load(f"cifar10-c/fog-{severity}", tmp_path)
        expected = torch.from_numpy(array[(severity - 1) * 20 : severity * 20]).permute(0, 3, 1, 2)
        assert torch.equal(found.images, expected)
        assert torch.equal(found.labels, load("cifar10", tmp_path).labels)
        assert (found.name, found.split) == ("cifar10-c", "test")
        assert (found.variant, found.origin) == (f"fog-{severity}", "official")
    without = load("cifar10-wo0-c/fog-3", tmp_path)
    assert len(without) == 18 and without.origin == "official"
    files = [tmp_path / "CIFAR-10-C" / file for file in ("fog.npy", "labels.npy")]
    assert datasets.sources("cifar10-c/fog-3", tmp_path) == files
    assert load("cifar10-wo0-c:ood/fog-3", tmp_path).origin == "generated"
    assert load("cifar10-c:train/fog-3", tmp_path).origin == "generated"


def test_official_corruptions_need_no_clean_images_but_the_coarse_labels_do(tmp_path):
    array = write_corrupted(tmp_path, "CIFAR-100-C", 100, 100)
    assert load("cifar100-c/snow-1", tmp_path).classes == tuple(str(i) for i in range(100))
    with pytest.raises(UserError, match="cifar100coarse: "):
        load("cifar100coarse-c/snow-1", tmp_path)
    write_cifar100(tmp_path)
    coarse = load("cifar100coarse-c/snow-1", tmp_path)
    assert coarse.labels.tolist() == [i // 5 for i in range(100)] and coarse.classes[3] == "s3"
    assert torch.equal(coarse.images, torch.from_numpy(array[:100]).permute(0, 3, 1, 2))


def test_a_missing_or_cut_off_official_array_is_an_error(tmp_path):
    write_cifar10(tmp_path)
    write_corrupted(tmp_path, "CIFAR-10-C", 20, 10)
    (tmp_path / "CIFAR-10-C" / "fog.npy").unlink()
    with pytest.raises(UserError, match="fog.npy is missing; python exec_data.py prepare cifar10-c"):
        datasets.check("cifar10-c/fog-3", tmp_path)
    snow = tmp_path / "CIFAR-10-C" / "snow.npy"
    snow.write_bytes(snow.read_bytes()[:1000])
    with pytest.raises(UserError, match="snow.npy: cannot be read as an array"):
        load("cifar10-c/snow-3", tmp_path)


@pytest.mark.parametrize("category", ["", "weather/"])
def test_imagenet_c_is_read_with_or_without_its_categories_and_not_cropped_again(tmp_path, category):

    cell = tmp_path / "ImageNet-C" / f"{category}fog" / "3"
    write_tree(cell, ("",), ["n00000001", *WNIDS_100], count=1, size=(112, 112))
    write_tree(tmp_path, ("imagenet/train", "imagenet/val"), ["n00000001", *WNIDS_100], count=1, size=(100, 100))
    whole, hundred = (load(f"{name}-c/fog-3", tmp_path, image_size=56) for name in ("imagenet", "imagenet100"))
    assert (len(whole), len(hundred), hundred.classes) == (101, 100, WNIDS_100)
    assert (hundred.origin, hundred.variant, hundred.split, hundred.name) == ("official", "fog-3", "val", "imagenet100-c")
    expected = np.asarray(Image.open(cell / WNIDS_100[0] / "0.png").resize((56, 56), Image.Resampling.BILINEAR))
    assert np.array_equal(next(hundred.stored())[0].permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(hundred.subset([0]).images.take(np.array([0]))[0].permute(1, 2, 0).numpy(), expected)
    assert load("aug10-imgnet100", tmp_path).height == 112 and load("imgnet100", tmp_path).height == 224
    without = load("aug10-imgnet100wo0-c/fog-3", tmp_path, image_size=56)
    assert len(without) == 99 and without.classes == WNIDS_100[1:] and without.origin == "official"
    assert datasets.sources("imagenet100-c/fog-3", tmp_path) == [cell]
    with pytest.raises(UserError, match="fog/4 is missing; unpack the archives"):
        load("imagenet100-c/fog-4", tmp_path)


def test_generated_corruptions_are_kept_and_say_so(tmp_path, monkeypatch):
    found = load("digits-c/gaussian_noise-3", tmp_path)
    clean = load("digits", tmp_path)
    assert (found.origin, found.variant, found.name) == ("generated", "gaussian_noise-3", "digits-c")
    assert torch.equal(found.labels, clean.labels)
    expected = corruptions.corrupt(clean.images, "gaussian_noise", 3, ids=clean.indices)
    assert torch.equal(found.images, expected)
    without = load("digits-wo3-c/gaussian_noise-3", tmp_path)
    assert torch.equal(without.images, found.images[found.labels != 3])
    monkeypatch.setattr(corruptions, "corrupt", None)
    assert torch.equal(load("digits-c/gaussian_noise-3", tmp_path).images, expected)


def test_large_images_are_corrupted_as_they_are_decoded(tmp_path):
    write_tree(tmp_path / "large", size=(120, 100))
    clean, found = load("large", tmp_path, image_size=32), load("large-c/contrast-5", tmp_path, image_size=32)
    expected = corruptions.corrupt(clean.images.take(np.arange(6)), "contrast", 5)
    assert torch.equal(next(found.batches(6))[0], expected / 255)
    assert found.origin == "generated"


def test_official_arrays_of_full_size_are_mapped_and_one_severity_is_read(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    array = np.lib.format.open_memmap(folder / "fog.npy", "w+", np.uint8, (50000, 32, 32, 3))  # sparse: 150 MB that are not
    array[20000], array[29999], array[30000] = 3, 4, 5
    array.flush()
    np.save(folder / "labels.npy", np.tile((np.arange(10000) % 10).astype(np.uint8), 5))
    found = load("cifar10-c/fog-3", tmp_path)
    assert len(found) == 10000 and found.images.shape[1:] == (3, 32, 32)
    assert found.images.untyped_storage().nbytes() == 30_720_000
    assert (found.images[0].unique().tolist(), found.images[-1].unique().tolist()) == ([3], [4])
    assert load("cifar10-c/fog-4", tmp_path).images[0].unique().tolist() == [5]
    assert found.labels.bincount().tolist() == [1000] * 10
    for kind in corruptions.CORRUPTIONS:
        if kind != "fog":
            os.link(folder / "fog.npy", folder / f"{kind}.npy")
    findings = verify.verify("cifar10-c/fog-3", tmp_path)
    assert all(finding.good for finding in findings) and findings[-1].what == "images per class"
    np.save(folder / "labels.npy", np.arange(50000) % 7)
    assert [finding.found for finding in verify.verify("cifar10-c/fog-3", tmp_path)[-2:]] == ["1", "1428, 1429"]


@pytest.mark.parametrize("kind", ["gaussian_noise", "shot_noise", "impulse_noise", "contrast"])
def test_the_distance_to_the_clean_images_grows_with_severity(tmp_path, kind):
    write_cifar10(tmp_path)
    clean = load("cifar10", tmp_path)
    blocks = [corruptions.corrupt(clean.images, kind, severity) for severity in corruptions.SEVERITIES]
    write_corrupted(tmp_path, "CIFAR-10-C", 20, 10)
    np.save(tmp_path / "CIFAR-10-C" / f"{kind}.npy", torch.cat(blocks).permute(0, 2, 3, 1).numpy())
    distances = []
    for severity in corruptions.SEVERITIES:
        found = load(f"cifar10-c/{kind}-{severity}", tmp_path)
        assert found.origin == "official" and torch.equal(found.labels, clean.labels)
        distances.append((found.images.float() - clean.images.float()).square().mean().sqrt().item())
    assert distances == sorted(distances) and distances[0] > 0
