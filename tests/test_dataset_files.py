"""MNIST, CIFAR, SVHN, CIFAR-5m, random images and arrays as their files hold them, and files that are broken."""

import contextlib
import gzip
import io
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA
from layouts import (
    levels,
    load,
    write_cifar10,
    write_cifar100,
    write_mnist,
)
from PIL import Image
from scipy.io import loadmat, savemat

from lib.core.errors import UserError
from lib.datasets.storage import arrays, export, mat_files


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


@pytest.mark.skipif(not (SHARED_DATA / "cifar10_jpeg.tar.gz").is_file(), reason="needs SHARED_DATA")
def test_real_jpegs_are_decoded_as_pillow_does(tmp_path):
    expected = []
    with tarfile.open(SHARED_DATA / "cifar10_jpeg.tar.gz") as archive:
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


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_an_archive_of_arrays_is_one_sentence_that_says_what_it_holds(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        np.savez(file, pictures=levels(6, 8, 8), kinds=np.arange(6))
    words = "holds pictures, kinds, not one array: save the one with the images as x.npy .* labels as x_labels.npy"
    with pytest.raises(UserError, match=words):
        load(f"npy={tmp_path}/{name}", tmp_path)
    with pytest.raises(UserError, match=words):
        export.export(f"npy={tmp_path}/{name}", tmp_path, tmp_path / "y.npy", tmp_path / "cache")
    np.save(tmp_path / "z.npy", levels(6, 8, 8))
    with open(tmp_path / "z_labels.npy", "wb") as file:
        np.savez(file)
    with pytest.raises(UserError, match="z_labels.npy: an archive that holds nothing"):
        load(f"npy={tmp_path}/z.npy", tmp_path)
