"""Every registered set, in its official layout, keeps the contract of a split, and networks are evaluated on it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import (
    FACES,
    PARTS,
    levels,
    load,
    one_of_each_category,
    write_celeba,
    write_cifar10,
    write_cifar100,
    write_cue_conflict,
    write_image,
    write_mnist,
    write_tree,
    write_waterbirds,
)
from records import newest

from lib import datasets
from lib.core.errors import UserError
from lib.datasets import catalogue
from lib.datasets.sets import imagenet16
from lib.datasets.sets.imagenet import WNIDS_100
from lib.datasets.storage import image_folders
from lib.experiments import EXPERIMENTS
from lib.experiments.config.eval import EvalConfig
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.probe import probe
from lib.models import checkpoints
from lib.probing.roles import divide
from lib.runs import cli
from lib.runs import script as script_


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    """A data root in which every registered set is, in its official layout."""
    root = tmp_path_factory.mktemp("everything")
    for folder in ("MNIST", "FashionMNIST", "KMNIST"):
        write_mnist(root, folder)
    write_cifar10(root)
    write_cifar100(root)
    from scipy.io import savemat

    for part in ("train", "test"):
        savemat(root / f"{part}_32x32.mat", {"X": levels(32, 32, 3, 10), "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
    (root / "cifar5m").mkdir()
    for number in range(6):
        np.savez(root / "cifar5m" / f"part{number}.npz", X=levels(10, 32, 32, 3), Y=np.arange(10))
    np.save(root / "300K_random_images.npy", levels(10, 32, 32, 3))
    write_waterbirds(root)
    write_celeba(root, FACES, PARTS)
    wnids = sorted({*one_of_each_category().values(), *WNIDS_100})
    write_tree(root / "imagenet", ("train", "val"), wnids, count=1, size=(98, 97))
    for letter in "ar":
        write_tree(root / f"imagenet-{letter}", ("",), wnids[:3], count=1, size=(98, 97))
    write_cue_conflict(root)
    tiny = root / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        write_image(tiny / "train" / name / "images" / f"{name}_0.JPEG", (64, 64))
        write_image(tiny / "val" / "images" / f"{name}.JPEG", (64, 64))
    (tiny / "val" / "val_annotations.txt").write_text("n01.JPEG\tn01\t0\t0\t1\t1\nn02.JPEG\tn02\t0\t0\t1\t1\n")
    for name in ("textures", "places365", "inaturalist", "ssb_hard", "ninco", "openimage_o"):
        write_image(root / name / "1.jpg", (98, 97))
    return root


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_every_registered_set_keeps_the_contract_of_a_split(everything, name):
    seen = []
    for part in datasets.splits(name, everything):
        found = load(name, everything, part, image_size=16)
        assert (found.name, found.split, len(found) > 0) == (name, part, True)
        assert found.classes or (found.labels == -1).all()
        assert found.labels.min() >= -1 and found.labels.max() < max(len(found.classes), 1)
        assert found.groups.min() >= 0 and found.groups.max() < max(len(found.group_names), 1)
        assert len(found.indices.unique()) == len(found)
        assert found.augmentation in catalogue.AUGMENTATIONS
        images, labels, _ = next(found.subset([len(found) - 1]).batches(1))
        assert images.shape == (1, found.channels, found.height, found.width) and 0 <= images.min() <= images.max() <= 1
        assert labels.tolist() == found.labels[-1:].tolist()
        seen.append((len(found.classes), found.group_names))
    assert len(set(seen)) == 1  # splits agree on classes and groups
    entry = catalogue.KNOWN[name]
    assert not entry.sizes or len(entry.sizes) == len(entry.splits or ("all",))
    assert all(sum(groups) == size for groups, size in zip(entry.groups, entry.sizes, strict=False))


@pytest.mark.parametrize("name", [name for name in datasets.DATASETS if datasets.shape(name)])
def test_a_registered_name_says_classes_channels_and_size_before_anything_is_read(everything, name):
    known = datasets.shape(name)
    found = load(name, everything, datasets.splits(name, everything)[0])
    assert (known.channels, known.side) == (found.channels, max(found.height, found.width))
    few = name.startswith(("imagenet", "tinyimagenet")) and name not in (
        "imagenet16",
        "imagenet100",
    )  # a folder for some classes
    assert known.classes == len(found.classes) or (few and known.classes > len(found.classes))


def test_so_do_names_of_some_of_its_classes_and_no_others_do(everything):
    for name in ("mnist-wo9", "cifar100-k7s1", "cifar10_large", "digits"):
        found = load(name, everything, "train")
        assert datasets.shape(name).classes == len(found.classes)
    assert datasets.shape("cifar10_large").side == 224 and datasets.shape("cifar100wosp1").classes == 80
    assert [datasets.shape(name) for name in ("300k", "folder=x", "nothing", "cifar10-k11")] == [None] * 4


def test_a_network_of_imagenets_classes_is_evaluated_on_the_sets_of_fewer_classes(everything, tmp_path, monkeypatch):
    wnids = image_folders.class_folders(everything / "imagenet" / "train")
    description = checkpoints.Description(
        architecture="small_cnn", classes=wnids, channels=3, image_size=32, dataset="imagenet"
    )
    network = checkpoints.fresh(description, 0, "init").eval()
    checkpoints.save(tmp_path / "models" / "a" / "init.pt", network, description)
    monkeypatch.chdir(tmp_path)
    sets = ("cue-conflict", "silhouette", "imagenet-a", "imagenet16:val")
    words = [
        "a/init.pt",
        *[word for name in sets for word in ("-d", name)],
        "-data",
        str(everything),
        "--save-logits",
        "--quiet",
    ]
    script_.run(EXPERIMENTS, "eval", cli.parse(EvalConfig, words), ["exec_eval.py", *words])
    found = {row["data"]: row for row in newest(tmp_path, "eval")["rows"] if row["subset"] == "all"}
    members = [wnid for wnids_of in imagenet16.WNIDS_16.values() for wnid in wnids_of if wnid in wnids]
    assert [found[name.partition(":")[0]]["n"] for name in sets] == [32, 16, 3, len(members)]
    logits = np.load(next((tmp_path / "results" / "eval").glob("*.npz")))
    split = load("cue-conflict", everything, image_size=32)
    with torch.no_grad():
        whole = network(next(split.batches(32))[0]).exp()
    mine = [[wnids.index(wnid) for wnid in imagenet16.WNIDS_16[name] if wnid in wnids] for name in split.classes]
    means = torch.stack([whole[:, outputs].mean(1) for outputs in mine], 1)
    assert torch.allclose(torch.from_numpy(logits["logits_cue-conflict-test"]), means.log(), atol=1e-4)
    assert found["cue-conflict"]["accuracy"] == (means.argmax(1) == split.labels).double().mean()
    words = [
        "a/init.pt",
        "-d",
        "imagenet16",
        "-ood",
        "cue-conflict",
        "-l",
        "avgpool",
        "-e",
        "1",
        "--roles",
        "paper",
        "--select",
        "none",
        "-data",
        str(everything),
        "--quiet",
    ]
    head = [row for row in probe(cli.parse(ProbeConfig, words)).rows if row["probe"] == "head" and row["group"] == "all"]
    tested = divide(split.indices, "zero-shot", "paper", seed=0).positions(split, "test")
    right = int((means.argmax(1) == split.labels)[tested].sum())
    assert [(row["n"], row["correct"]) for row in head] == [(len(tested), right)]
    with pytest.raises(UserError, match="are not the .* of imagenet .*; -d imagenet16 has them"):
        probe(cli.parse(ProbeConfig, ["a/init.pt", "-ood", "silhouette", "-l", "avgpool", "-data", str(everything)]))
