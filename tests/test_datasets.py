"""Data sets: names, splits, batches, the official layouts, what is derived from a split, and what is refused."""

import contextlib
import gzip
import hashlib
import http.server
import io
import math
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.stats import chisquare
from torchvision import transforms

from lib import datasets
from lib.core.errors import UsageError, UserError
from lib.core.randomness import generator
from lib.datasets import augment, catalogue, corruptions, names
from lib.datasets.label_noise import label_noise, pixel_shuffle
from lib.datasets.split import Split, fit, join
from lib.datasets.storage import arrays, download, folders, mat_files, unpack, verify
from lib.datasets.storage.lazy_images import DecodedImages
from lib.datasets.subsets import class_subset, hold_out, validation_split

REPOSITORY = Path(__file__).parent.parent
SHARED = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
RANDOM = np.random.default_rng(0)


def levels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def toy(n: int = 60, classes: int = 3, shape: tuple[int, ...] = (3, 8, 8)) -> Split:
    labels = torch.arange(n) % classes
    return Split("toy", "train", torch.from_numpy(levels(n, *shape)), labels, classes=tuple("abcdefghij"[:classes]))


def load(text: str, root: Path, split: str | None = None, **options) -> Split:
    return datasets.load(text, root, split, cache_dir=root / "cache", **options)


# --- small files of exactly the official layouts


def write_idx(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    file.write_bytes(header + array.tobytes())


def write_mnist(root: Path, folder: str = "MNIST") -> dict[str, np.ndarray]:
    written = {}
    for part, n in (("train", 40), ("t10k", 20)):
        written[part] = levels(n, 28, 28)
        write_idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", written[part])
        write_idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return written


def write_cifar10(root: Path) -> dict[str, np.ndarray]:
    folder, written = root / "cifar-10-batches-py", {}
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        written[file] = levels(20, 3072)
        batch = {"data": written[file], "labels": [i % 10 for i in range(20)], "batch_label": file, "filenames": []}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}, protocol=2))
    return written


def write_cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("train", "test"):
        fine = [i % 100 for i in range(100)]
        batch = {"data": levels(100, 3072), "fine_labels": fine, "coarse_labels": [i // 5 for i in fine]}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": [f"s{i}" for i in range(20)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))


def write_corrupted(root: Path, folder: str, n: int, classes: int) -> np.ndarray:
    (root / folder).mkdir(parents=True, exist_ok=True)
    array = levels(5 * n, 32, 32, 3)
    for name in corruptions.CORRUPTIONS:
        np.save(root / folder / f"{name}.npy", array)
    np.save(root / folder / "labels.npy", np.tile(np.arange(n, dtype=np.uint8) % classes, 5))
    return array


def write_image(file: Path, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    Image.fromarray(levels(height, width) if mode == "L" else levels(height, width, 3)).save(file)


def write_tree(folder: Path, parts=("train", "test"), classes=("cat", "dog"), count: int = 3, **options) -> None:
    for part in parts:
        for name in classes:
            for number in range(count):
                write_image(folder / part / name / f"{number}.png", **options)


# --- names


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
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


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


# --- splits and batches


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


# --- built-in sets


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


# --- held-out classes


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


@pytest.mark.skipif(not (SHARED / "MNIST" / "raw").is_dir(), reason="needs SHARED_DATA")
def test_mnist_without_a_digit_has_the_sizes_of_the_paper():
    sizes = [54077, 53258, 54042, 53869, 54158, 54579, 54082, 53735, 54149, 54051]
    unseen = [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    train, test = datasets.load("mnist", SHARED, "train"), datasets.load("mnist", SHARED, "test")
    assert [len(hold_out(train, k)) for k in range(10)] == sizes
    assert [int((train.labels == k).sum() + (test.labels == k).sum()) for k in range(10)] == unseen
    assert len(datasets.load("mnistwo9:ood", SHARED)) == unseen[9]
    assert train.statistics() == (pytest.approx((0.1307,), abs=1e-4), pytest.approx((0.3081,), abs=1e-4))


# --- files


def test_mnist_reads_idx_files_packed_or_not(tmp_path):
    written = write_mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    packed = raw / "t10k-images-idx3-ubyte"
    packed.with_name(packed.name + ".gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    for split, part in (("train", "train"), ("test", "t10k")):
        found = load("mnist", tmp_path, split)
        assert torch.equal(found.images[:, 0], torch.from_numpy(written[part]))
        assert found.labels.tolist() == [i % 10 for i in range(len(found))]
    write_mnist(tmp_path, "FashionMNIST")
    assert load("fashion", tmp_path).classes[9] == "Ankle boot"
    whole = (raw / "train-images-idx3-ubyte").read_bytes()
    (raw / "train-images-idx3-ubyte").write_bytes(whole[:1000])
    with pytest.raises(UserError, match="has 1000 bytes instead of 31376"):
        load("mnist", tmp_path, "train")


def test_cifar_reads_the_pickled_batches(tmp_path):
    written = write_cifar10(tmp_path)
    train, test = load("cifar10", tmp_path, "train"), load("cifar10", tmp_path)
    assert torch.equal(test.images.flatten(1), torch.from_numpy(written["test_batch"]))
    assert len(train) == 100 and torch.equal(train.images[20].flatten(), torch.from_numpy(written["data_batch_2"][0]))
    assert test.classes == tuple(f"c{i}" for i in range(10))
    write_cifar100(tmp_path)
    fine, coarse = load("cifar100", tmp_path), load("cifar100coarse", tmp_path)
    assert torch.equal(coarse.labels, fine.labels // 5) and torch.equal(coarse.images, fine.images)
    assert (fine.classes[99], coarse.classes[19]) == ("f99", "s19")


class Malicious:
    def __reduce__(self):
        return os.system, ("echo harmful",)


def test_cifar_batches_that_are_cut_off_or_name_functions_are_refused(tmp_path):
    write_cifar10(tmp_path)
    file = tmp_path / "cifar-10-batches-py" / "test_batch"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="test_batch: cannot be read"):
        load("cifar10", tmp_path)
    file.write_bytes(pickle.dumps({"data": Malicious()}))
    with pytest.raises(UserError, match="which no batch of images does"):
        load("cifar10", tmp_path)
    file.write_bytes(pickle.dumps({"data": levels(4, 3072), "labels": [0, 1, 2, 10]}))
    with pytest.raises(UserError, match="image 3 has label 10, but labels are 0 to 9"):
        load("cifar10", tmp_path)
    file.write_bytes(pickle.dumps({"data": levels(0, 3072), "labels": []}))
    with pytest.raises(UserError, match="cifar10:test holds no image"):
        load("cifar10", tmp_path)


def test_svhn_reads_matlab_files_and_calls_ten_zero(tmp_path):
    images = levels(32, 32, 3, 12)
    for part in ("train", "test"):
        savemat(tmp_path / f"{part}_32x32.mat", {"X": images, "y": np.array([[*range(1, 11), 1, 2]], np.uint8).T})
    found = load("svhn", tmp_path)
    assert found.labels.tolist() == [*range(1, 10), 0, 1, 2]
    assert torch.equal(found.images[5], torch.from_numpy(images[..., 5]).permute(2, 0, 1))
    (tmp_path / "test_32x32.mat").write_bytes((tmp_path / "test_32x32.mat").read_bytes()[:5000])
    with pytest.raises(UserError, match="test_32x32.mat: cannot be read"):
        load("svhn", tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, packed):
    written = {"X": levels(5, 4, 3, 7), "y": np.arange(7.0)[:, None], "z": np.float32([[0.5, -2]]), "one": np.int64([[9]])}
    savemat(tmp_path / "x.mat", written, do_compression=packed)
    found, known = mat_files.arrays(tmp_path / "x.mat"), loadmat(tmp_path / "x.mat")
    for name, values in written.items():
        assert np.array_equal(found[name], known[name]) and found[name].dtype == known[name].dtype == values.dtype


def test_a_broken_matlab_file_is_refused_and_ends_no_process(tmp_path):
    """A wrong byte in the name of a stored type made SciPy's reader leave its buffer."""
    savemat(tmp_path / "x.mat", {"X": levels(4, 4, 3, 2), "y": np.ones((2, 1))})
    whole = (tmp_path / "x.mat").read_bytes()
    for place in range(126, len(whole)):
        for value in (0, 14, 255):
            (tmp_path / "x.mat").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with contextlib.suppress(ValueError):
                assert all(array.size <= len(whole) for array in mat_files.arrays(tmp_path / "x.mat").values())


@pytest.mark.parametrize("spelling", ["cifar5m_part{}.npz", "part{}.npz"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_cifar5m_joins_its_parts_without_reading_them(tmp_path, spelling, save):
    parts = [levels(4 + i, 32, 32, 3) for i in range(6)]
    (tmp_path / "cifar5m").mkdir()
    for number, part in enumerate(parts):
        save(tmp_path / "cifar5m" / spelling.format(number), X=part, Y=np.arange(len(part)))
    found = load("cifar5m", tmp_path, "train")
    everything = torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2)
    assert len(found) == len(everything) and found.lazy
    assert all(isinstance(part.array, np.memmap) for part in found.images.parts)
    order = torch.randperm(len(found))
    images = torch.cat([images for images, _, _ in found.batches(7, order=order)])
    assert torch.equal(images, everything[order] / 255)
    assert torch.equal(next(found.subset([30, 2]).batches(2))[0], everything[[30, 2]] / 255)
    write_cifar10(tmp_path)
    assert torch.equal(load("cifar5m", tmp_path).images, load("cifar10", tmp_path).images)


@pytest.mark.parametrize("folder", ["", "oe"])
def test_the_random_images_are_one_undivided_unlabelled_set(tmp_path, folder):
    array = levels(20, 32, 32, 3)
    (tmp_path / folder).mkdir(exist_ok=True)
    np.save(tmp_path / folder / "300K_random_images.npy", array)
    with pytest.warns(UserWarning, match="not divided into splits"):
        found = load("outlier_exposure", tmp_path, "train")
    assert (found.name, found.split) == ("300k", "all")
    assert torch.equal(found.images, torch.from_numpy(array).permute(0, 3, 1, 2))
    assert found.labels.unique().tolist() == [-1]


def test_arrays_are_mapped_with_optional_labels(tmp_path):
    grey, colour = levels(6, 20, 24), levels(6, 8, 8, 3)
    np.save(tmp_path / "grey.npy", grey)
    np.save(tmp_path / "colour.npy", colour)
    np.save(tmp_path / "colour_labels.npy", np.array([0, 2, 1, -1, 0, 2], np.int8))
    unlabelled, labelled = load(f"npy={tmp_path}/grey.npy", tmp_path), load(f"npy={tmp_path}/colour.npy", tmp_path)
    assert torch.equal(unlabelled.images, torch.from_numpy(grey)[:, None]) and set(unlabelled.labels.tolist()) == {-1}
    assert labelled.labels.tolist() == [0, 2, 1, -1, 0, 2] and labelled.classes == ("0", "1", "2")
    assert isinstance(arrays.map_array(tmp_path / "grey.npy"), np.memmap)
    unlabelled.images.zero_()
    assert np.array_equal(np.load(tmp_path / "grey.npy"), grey)  # the mapping is private


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((4, 8, 8), np.float32), None, "type float32; images are unsigned bytes"),
        (np.zeros((4, 64), np.uint8), None, r"shape \(4, 64\)"),
        (np.zeros((4, 8, 8, 2), np.uint8), None, r"shape \(4, 8, 8, 2\)"),
        (np.zeros((0, 8, 8), np.uint8), None, "holds no image"),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(3, int), "there are 4 images"),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(4), "labels are integers"),
        (np.zeros((4, 8, 8), np.uint8), np.array([0, 1, -2, 0]), "label -2"),
        (np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 10**9, 0]), "label 1000000000"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_refused(tmp_path, images, labels, words):
    np.save(tmp_path / "x.npy", images)
    if labels is not None:
        np.save(tmp_path / "x_labels.npy", labels)
    with pytest.raises(UserError, match=words):
        load(f"npy={tmp_path}/x.npy", tmp_path)


def test_an_array_that_is_cut_off_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", levels(10, 8, 8))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:300])
    with pytest.raises(UserError, match="is it whole"):
        load(f"npy={tmp_path}/x.npy", tmp_path)


# --- folders of images


def test_small_images_are_decoded_once_and_kept(tmp_path, monkeypatch):
    write_tree(tmp_path / "pets")
    first = load("pets", tmp_path, "train")
    assert first.classes == ("cat", "dog") and first.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.asarray(Image.open(tmp_path / "pets" / "train" / "dog" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(first.images[4], expected)
    monkeypatch.setattr(folders, "_decode_all", None)
    assert torch.equal(load(f"folder={tmp_path}/pets:train", tmp_path).images, first.images)
    monkeypatch.undo()
    write_image(tmp_path / "pets" / "train" / "dog" / "1.png")
    os.utime(tmp_path / "pets" / "train" / "dog" / "1.png", (1, 1))
    assert not torch.equal(load("pets", tmp_path, "train").images, first.images)
    assert load("pets", tmp_path).split == "test"


def test_a_broken_cache_file_is_made_again(tmp_path):
    write_tree(tmp_path / "pets")
    first = load("pets", tmp_path).images.clone()
    (cached,) = (tmp_path / "cache" / "decoded").iterdir()
    cached.write_bytes(cached.read_bytes()[:200])
    assert torch.equal(load("pets", tmp_path).images, first)
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 1  # and no temporary file is left


def test_grey_folders_have_one_channel_and_mixed_ones_three(tmp_path):
    write_tree(tmp_path / "grey", mode="L")
    write_tree(tmp_path / "mixed", mode="L")
    write_image(tmp_path / "mixed" / "test" / "dog" / "9.png")
    assert load("grey", tmp_path).images.shape == (6, 1, 32, 32)
    assert load("mixed", tmp_path).images.shape == (7, 3, 32, 32)


@pytest.mark.parametrize("size", [(300, 200), (100, 150), (224, 224)])
def test_large_images_are_resized_and_cropped_as_torchvision_does(tmp_path, size):
    write_tree(tmp_path / "large", count=2, size=size)
    found = load("large", tmp_path, image_size=64)
    assert isinstance(found.images, DecodedImages) and found.augmentation == "imagenet"
    resize, crop = transforms.Resize(round(64 * 256 / 224)), transforms.CenterCrop(64)
    steps = transforms.Compose([resize, crop, transforms.PILToTensor()])
    expected = torch.stack([steps(Image.open(file)) for file in found.images.files])
    assert torch.equal(torch.cat([images for images, _, _ in found.batches(3)]), expected / 255)
    assert found.statistics()[0] == pytest.approx((expected / 255).mean((0, 2, 3)).tolist(), abs=1e-6)


def test_random_crops_depend_on_seed_and_image_but_not_on_workers_or_order(tmp_path):
    write_tree(tmp_path / "large", ("train",), size=(120, 100))
    split = load("large", tmp_path, "train", image_size=32)
    crops, in_loader = augment.for_epoch(split, "imagenet", 0, 1)
    assert in_loader is None
    images = torch.cat([images for images, _, _ in crops.batches(6)])
    order = torch.tensor([5, 0, 3, 1, 2, 4])
    shuffled = torch.cat([images for images, _, _ in crops.batches(2, order=order, workers=1)])
    assert torch.equal(shuffled, images[order])
    later, _ = augment.for_epoch(split, "imagenet", 0, 2)
    assert not torch.equal(next(later.batches(6))[0], images)


def test_images_of_unequal_size_are_decoded_as_needed(tmp_path):
    write_tree(tmp_path / "mixed", size=(40, 30))
    write_image(tmp_path / "mixed" / "test" / "cat" / "9.png", size=(20, 30))
    assert load("mixed", tmp_path, image_size=32).images.shape == (3, 32, 32)
    assert not list((tmp_path / "cache" / "decoded").iterdir())


@pytest.mark.parametrize(("size", "workers"), [((32, 32), 0), ((120, 100), 0), ((120, 100), 1)])
def test_a_corrupt_image_is_named_in_one_sentence(tmp_path, size, workers):
    write_tree(tmp_path / "pets", size=size)
    broken = tmp_path / "pets" / "test" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(UserError, match=r"dog/1.png: cannot be decoded as an image") as caught:
        list(load("pets", tmp_path).batches(6, workers=workers))
    assert "\n" not in str(caught.value)


def test_folders_with_odd_layouts(tmp_path):
    write_tree(tmp_path / "valid", ("training", "validation"))
    assert (load("valid", tmp_path).split, len(load("valid:train", tmp_path))) == ("val", 6)
    write_tree(tmp_path / "undivided", ("",))
    with pytest.warns(UserWarning, match="undivided is not divided"):
        found = load("undivided", tmp_path, "train")
    assert (found.split, len(found), found.classes) == ("all", 6, ("cat", "dog"))
    assert len(load("undivided-wo0:ood", tmp_path)) == 3
    write_image(tmp_path / "flat" / "a.png")
    assert load("flat", tmp_path).labels.tolist() == [-1]
    with pytest.raises(UserError, match="flat has no class 0"):
        datasets.check("flat-wo0", tmp_path)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither class folders nor images"):
        load("empty", tmp_path)
    write_tree(tmp_path / "gap")
    (tmp_path / "gap" / "train" / "eel").mkdir()
    with pytest.raises(UserError, match="eel: holds no image"):
        load("gap", tmp_path, "train")
    with pytest.raises(UserError, match="test: its class folders differ.*lacks eel"):
        load("gap", tmp_path)
    write_tree(tmp_path / "once", ("train",))
    with pytest.raises(UsageError, match="no split test; once has train"):
        load("once", tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        datasets.check(f"folder={tmp_path}/nowhere", tmp_path)
    with pytest.raises(UserError, match="pets has no class 2"):
        write_tree(tmp_path / "pets")
        datasets.check("pets-wo2", tmp_path)
    (tmp_path / "MNIST").mkdir()
    with pytest.raises(UsageError, match="did you mean mnist"):
        datasets.check("MNIST", tmp_path)


@pytest.mark.parametrize("parts", [("imagenet/train", "imagenet/val"), ("training_data", "validation_data")])
def test_imagenet_has_either_spelling_of_its_folders(tmp_path, parts):
    from lib.datasets.sets.imagenet import WNIDS_100

    wnids = sorted(["n00000001", *WNIDS_100])
    write_tree(tmp_path, parts, wnids, count=1, size=(100, 100))
    train, val = load("imagenet", tmp_path, "train", image_size=32), load("imagenet", tmp_path)
    assert (train.split, val.split, train.classes) == ("train", "val", tuple(wnids))
    hundred = load("imgnet100", tmp_path)
    assert hundred.classes == WNIDS_100 and hundred.labels.tolist() == list(range(100))
    assert len(load("imagenet100-wo7:ood", tmp_path)) == 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs SHARED_DATA")
def test_the_hundred_classes_are_the_published_list():
    from lib.datasets.sets.imagenet import WNIDS_100

    assert list(WNIDS_100) == (SHARED / "imagenet100_wnids.txt").read_text().split()


def test_tiny_imagenet_takes_its_validation_labels_from_the_annotations(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    for name in ("n02", "n01"):
        for number in range(2):
            write_image(folder / "train" / name / "images" / f"{name}_{number}.JPEG", (64, 64))
        (folder / "train" / name / f"{name}_boxes.txt").write_text("")
    lines = []
    for number, name in enumerate(("n02", "n01", "n02")):
        write_image(folder / "val" / "images" / f"val_{number}.JPEG", (64, 64))
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t1\t1\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    train, val = load("tinyimagenet", tmp_path, "train"), load("tinyimagenet", tmp_path)
    assert (train.images.shape, train.labels.tolist()) == ((4, 3, 64, 64), [0, 0, 1, 1])
    assert (val.labels.tolist(), val.classes, val.split) == ([1, 0, 1], ("n01", "n02"), "val")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn03\n")
    with pytest.raises(UserError, match="line 1 names no class"):
        load("tinyimagenet", tmp_path)


@pytest.mark.parametrize("name", ["textures", "places365", "inaturalist", "ssb_hard", "ninco", "openimage_o"])
def test_openood_sets_are_all_images_below_a_folder(tmp_path, name):
    write_image(tmp_path / name / "a" / "b" / "1.jpg", (100, 120))
    write_image(tmp_path / name / "2.jpg", (64, 64))
    found = load(name, tmp_path, image_size=32)
    assert (len(found), found.split, found.classes, set(found.labels.tolist())) == (2, "all", (), {-1})
    assert next(found.batches(2))[0].shape == (2, 3, 32, 32)


# --- corrupted sets


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
    from lib.datasets.sets.imagenet import WNIDS_100

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


# --- label noise, shuffled pixels, subsets


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


# --- augmentation


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
    for function in (augment.crop, augment.crop_flip):
        mirrored, corners = 0, set()
        for image, window in zip(padded, function(images, generator(1, "a")), strict=True):
            places = [
                (flip, y, x)
                for flip in (0, 1)
                for y in range(9)
                for x in range(9)
                if torch.equal(image[:, y : y + 9, x : x + 7], window.flip(-1) if flip else window)
            ]
            assert places
            mirrored += places[0][0]
            corners.add(places[0][1:])
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


# --- fetching


def tar(entries: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def cifar10_archive(tmp_path: Path) -> bytes:
    write_cifar10(tmp_path / "source")
    folder = tmp_path / "source" / "cifar-10-batches-py"
    return tar({f"cifar-10-batches-py/{file.name}": file.read_bytes() for file in folder.iterdir()})


def serve(monkeypatch, tmp_path: Path, content: bytes, md5: str | None = None) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    url = (tmp_path / "cifar-10-python.tar.gz").as_uri()
    archive = download.Archive((url,), md5 or hashlib.md5(content).hexdigest(), "cifar-10-batches-py")
    monkeypatch.setattr(download, "archives", lambda name: [archive])


def test_prepare_downloads_checks_and_unpacks(tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path, cifar10_archive(tmp_path))
    root, seen = tmp_path / "data", []
    files = download.prepare("cifar10-wo0:ood", root, lambda *progress: seen.append(progress))
    assert len(files) == 7 and seen[-1][1] == seen[-1][2]
    assert len(load("cifar10", root)) == 20
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]  # nothing is left behind
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    download.prepare("cifar10", root)
    assert len(load("cifar10", root)) == 20
    monkeypatch.setattr(download, "archives", None)  # what is whole is not fetched again
    assert download.prepare("cifar10", root) == files


def test_prepare_unpacks_single_files(tmp_path, monkeypatch):
    write_mnist(tmp_path / "source")
    archives = []
    for file in sorted((tmp_path / "source" / "MNIST" / "raw").iterdir()):
        packed = tmp_path / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes()))
        archives.append(download.Archive((packed.as_uri(),), download.file_md5(packed), f"MNIST/raw/{file.name}"))
    monkeypatch.setattr(download, "archives", lambda name: archives)
    download.prepare("mnist", tmp_path / "data")
    assert len(load("mnist", tmp_path / "data", "train")) == 40


def test_a_wrong_checksum_leaves_nothing(tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path, cifar10_archive(tmp_path), md5="0" * 32)
    with pytest.raises(UserError, match="the MD5 is .* instead of 000"):
        download.prepare("cifar10", tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_sets_that_cannot_be_downloaded_say_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match="imagenet: cannot be downloaded from here; put its class folders into"):
        download.prepare("imagenet", tmp_path)
    assert download.prepare("digits", tmp_path) == []
    assert download.registered("cifar100-c/fog-3") == "cifar100-c"
    with pytest.raises(UserError, match="not a registered data set"):
        download.prepare("pets", tmp_path)


def test_the_addresses_of_all_downloads_are_known():
    for name, entry in catalogue.KNOWN.items():
        if entry.obtain == catalogue.PREPARE:
            for archive in download.archives(name):
                assert len(archive.md5) == (0 if name == "waterbirds" else 32)  # none is published
                assert archive.urls and download._beneath(archive.target, entry)


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves `content`, from the middle if asked, and breaks off after `most` bytes."""

    content, most, asked = b"", 10**9, []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.asked.append(start)
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.most])

    def log_message(self, *arguments):
        pass


def test_an_interrupted_download_continues_where_it_stopped(tmp_path):
    Ranges.content, Ranges.most, Ranges.asked = levels(5000).tobytes(), 2000, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.bin?download=1"
        archive = download.Archive((url,), hashlib.md5(Ranges.content).hexdigest(), "x.bin")
        for _ in range(2):
            with pytest.raises(UserError, match="x.bin: download failed .*the same command tries it again"):
                download.download(archive, tmp_path)
        assert download.download(archive, tmp_path).read_bytes() == Ranges.content
        assert Ranges.asked == [0, 2000, 4000]
        (tmp_path / "x.bin").rename(tmp_path / "x.bin.part")  # stopped after the last byte
        assert download.download(archive, tmp_path).read_bytes() == Ranges.content
        server.shutdown()


@pytest.mark.parametrize("name", ["/etc/harm", "../harm", "a/../../harm"])
def test_archives_cannot_write_outside_their_folder(tmp_path, name):
    (tmp_path / "x.tar.gz").write_bytes(tar({name: b"harm"}))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"harm")
    for file in ("x.tar.gz", "x.zip"):
        inside = tmp_path / f"inside-{file}"
        inside.mkdir()
        with pytest.raises(UserError, match="outside the folder"):
            unpack.unpack(tmp_path / file, inside, "x")
        assert not list(inside.iterdir())


def test_links_and_bombs_are_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UserError, match="is a link"):
        unpack.unpack(tmp_path / "link.tar", tmp_path, "x")
    for file, content in (("bomb.tar.gz", tar({"x": bytes(1 << 24)})), ("bomb.gz", gzip.compress(bytes(1 << 24)))):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(UserError, match="more than is plausible"):
            unpack.unpack(tmp_path / file, tmp_path, "x")
    (tmp_path / "cut.tar.gz").write_bytes(tar({"x": levels(5000).tobytes()})[:1000])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack.unpack(tmp_path / "cut.tar.gz", tmp_path, "x")


def test_verify_counts_images_and_compares_checksums(tmp_path):
    assert all(finding.good for finding in verify.verify("digits", tmp_path, cache_dir=tmp_path / "cache"))
    write_cifar10(tmp_path)
    findings = {finding.what: finding for finding in verify.verify("cifar10", tmp_path)}
    assert not findings["md5 of test_batch"].good
    assert (findings["images in train"].expected, findings["images in train"].found) == ("50,000", "100")
    write_corrupted(tmp_path, "CIFAR-10-C", 20, 10)
    assert not any(finding.good for finding in verify.verify("cifar10-c/fog-3", tmp_path))
    write_tree(tmp_path / "large", size=(120, 100))
    for name in ("large", f"folder={tmp_path}/large", f"folder={tmp_path}/large:test"):
        assert [f.found for f in verify.verify(name, tmp_path)] == ["6", "6"]
    broken = tmp_path / "large" / "test" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(UserError, match="dog/1.png: cannot be decoded"):
        verify.verify("large", tmp_path)


@pytest.mark.skipif(not (SHARED / "MNIST" / "raw").is_dir(), reason="needs SHARED_DATA")
def test_the_real_mnist_is_whole():
    assert all(finding.good for finding in verify.verify("mnist", SHARED))


@pytest.mark.skipif(not (SHARED / "cifar10_jpeg.tar.gz").is_file(), reason="needs SHARED_DATA")
def test_real_jpegs_are_decoded_as_pillow_does(tmp_path):
    expected = []
    with tarfile.open(SHARED / "cifar10_jpeg.tar.gz") as archive:
        for member in archive:
            if member.isreg():
                content = archive.extractfile(member).read()
                place = tmp_path / "cifar10-jpeg" / "all" / f"{len(expected)}.jpg"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                expected.append(np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1))
            if len(expected) == 10:
                break
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load("cifar10-jpeg", tmp_path).images, np.stack(expected))
