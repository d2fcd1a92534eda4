"""Data sets of the intermediate-layers paper: groups, coloured digits, ImageNet's relatives, official corrupted arrays.

Every official layout is built here, small but exact.
"""

import csv
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED_DATA, script
from PIL import Image
from test_datasets import (
    levels,
    load,
    tar,
    write_cifar10,
    write_cifar100,
    write_corrupted,
    write_image,
    write_mnist,
    write_tree,
)
from torchvision import transforms

from lib import datasets
from lib.core.errors import UsageError, UserError
from lib.datasets import catalogue, corruptions, names
from lib.datasets.sets import colored_mnist, group_shift, imagenet16
from lib.datasets.sets.colored_mnist import Colouring
from lib.datasets.sets.imagenet import WNIDS_100
from lib.datasets.storage import download, image_folders, verify
from lib.experiments import EXPERIMENTS
from lib.experiments.config.data import DataConfig
from lib.experiments.config.eval import EvalConfig
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.probe import probe
from lib.models import checkpoints
from lib.models.class_groups import pooled
from lib.probing.evaluation import accuracy_rows
from lib.probing.roles import divide
from lib.runs import cli
from lib.runs import script as script_
from lib.runs.loading import answering

WATERBIRDS = "waterbird_complete95_forest2water2"
COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
ATTRIBUTES = ("Blond_Hair", "High_Cheekbones", "Male", "Young", "Smiling")


# --- small files of exactly the official layouts


def write_waterbirds(root: Path, counts=((3, 1, 1, 2), (1, 1, 1, 1), (2, 2, 1, 1)), size=(120, 100), species=3) -> Path:
    """`counts[split][group]` images, all hard links to one file per group; returns the folder."""
    folder = root / WATERBIRDS
    for group in range(4):
        write_image(root / f"{group}.jpg", size)
    for number in range(species):
        (folder / f"{number + 1:03d}.Species").mkdir(parents=True)
    lines = []
    for split, groups in enumerate(counts):
        for group, count in enumerate(groups):
            for _ in range(count):
                file = f"{len(lines) % species + 1:03d}.Species/{len(lines):05d}.jpg"
                os.link(root / f"{group}.jpg", folder / file)
                lines.append((len(lines) + 1, file, group // 2, split, group % 2, "/b/bamboo_forest/1.jpg"))
    np.random.default_rng(0).shuffle(lines)
    write_csv(folder / "metadata.csv", COLUMNS, lines)
    return folder


def write_csv(file: Path, header, lines) -> None:
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *lines])


def write_celeba(root: Path, values: np.ndarray, parts, form: str = "txt", pictures: bool = True) -> list[str]:
    """Attributes (n, 5) of 0 and 1 in the order of ATTRIBUTES, and partitions (n,); `form` is "txt", "csv" or "metadata"."""
    folder, files = root / "celeba", [f"{number:06d}.jpg" for number in range(1, len(values) + 1)]
    folder.mkdir(parents=True)
    for file in files if pictures else ():
        write_image(folder / "img_align_celeba" / file, (178, 218))
    signs = np.where(values, 1, -1)
    if form == "metadata":
        lines = [(i, file, v[0], part, v[2]) for i, (file, v, part) in enumerate(zip(files, values, parts, strict=True))]
        write_csv(folder / "metadata.csv", ("", "img_filename", "y", "split", "place"), lines)
    elif form == "csv":
        write_csv(
            folder / "list_attr_celeba.csv",
            ("image_id", *ATTRIBUTES),
            [(file, *row) for file, row in zip(files, signs, strict=True)],
        )
        write_csv(folder / "list_eval_partition.csv", ("image_id", "partition"), zip(files, parts, strict=True))
    else:
        rows = "\n".join(f"{file} " + " ".join(f"{sign:2d}" for sign in row) for file, row in zip(files, signs, strict=True))
        (folder / "list_attr_celeba.txt").write_text(f"{len(files)}\n{' '.join(ATTRIBUTES)}\n{rows}\n")
        lines = "\n".join(f"{file} {part}" for file, part in zip(files, parts, strict=True))
        (folder / "list_eval_partition.txt").write_text(lines + "\n")
    return files


FACES = np.array([(label >> 3 & 1, label >> 2 & 1, label >> 1 & 1, label & 1, 0) for label in range(16)] * 2)
PARTS = [0] * 20 + [1] * 6 + [2] * 6


def write_imagenet(root: Path, wnids, parts=("train", "val"), count: int = 1) -> None:
    write_tree(root / "imagenet", parts, wnids, count=count, size=(110, 100))


def write_cue_conflict(root: Path) -> None:
    for label, shape in enumerate(imagenet16.CATEGORIES):
        for texture in (shape, imagenet16.CATEGORIES[label - 1]):
            write_image(root / "cue-conflict" / shape / f"{shape}1-{texture}2.png", (224, 224))
        write_image(root / "silhouette" / shape / f"{shape}1.png", (224, 224))


def one_of_each_category() -> dict[str, str]:
    """A WordNet id of ILSVRC 2012 per category."""
    from timm.data import ImageNetInfo

    there = set(ImageNetInfo().label_names())
    return {name: next(wnid for wnid in wnids if wnid in there) for name, wnids in imagenet16.WNIDS_16.items()}


# --- Waterbirds, CelebA, MultiCelebA


def test_waterbirds_has_the_published_splits_and_groups(tmp_path):
    entry = catalogue.KNOWN["waterbirds"]
    write_waterbirds(tmp_path, entry.groups, size=(8, 8), species=200)
    found = {split: load("waterbirds", tmp_path, split) for split in entry.splits}
    assert tuple(map(len, found.values())) == entry.sizes == (4795, 1199, 5794)
    assert tuple(tuple(split.groups.bincount().tolist()) for split in found.values()) == entry.groups
    assert all(torch.equal(split.groups // 2, split.labels) for split in found.values())
    train = found["train"]
    assert train.group_names == ("landbird, land", "landbird, water", "waterbird, land", "waterbird, water")
    # who answers the background is right on 95% in training and on half in testing, and never in groups 1 and 2
    background = train.groups % 2
    assert (background == train.labels).double().mean().item() == pytest.approx(0.949948, abs=1e-6)
    assert (found["test"].groups % 2 == found["test"].labels).double().mean() == 0.5
    assert [(split.labels == 0).double().mean().item() for split in found.values()] == pytest.approx(
        [0.767883, 0.778148, 0.778391], abs=1e-6
    )
    findings = verify.verify("waterbirds", tmp_path, cache_dir=tmp_path / "cache")
    assert [finding.good for finding in findings] == [True] * 6


def test_waterbirds_follows_its_table(tmp_path):
    folder = write_waterbirds(tmp_path)
    with open(folder / "metadata.csv") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == "1"]
    found = load("waterbirds:val", tmp_path)
    assert (found.name, found.split, found.classes) == ("waterbirds", "val", ("landbird", "waterbird"))
    assert [file.relative_to(folder).as_posix() for file in found.images.files] == [line["img_filename"] for line in lines]
    assert found.labels.tolist() == [int(line["y"]) for line in lines]
    assert found.groups.tolist() == [2 * int(line["y"]) + int(line["place"]) for line in lines]
    assert datasets.splits("waterbirds", tmp_path) == ("train", "val", "test")


def official_faces() -> tuple[np.ndarray, np.ndarray]:
    """Attributes (202,599, 5) with the published counts of hair and sex, and enough faces for MultiCelebA; partitions."""
    cheeks = {  # of the training images: (high cheekbones, male, young) -> how many
        (1, 0, 1): 44528,
        (1, 0, 0): 8000,
        (0, 0, 1): 25000,
        (0, 0, 0): 16981,
        (1, 1, 1): 15000,
        (1, 1, 0): 10000,
        (0, 1, 1): 23261,
        (0, 1, 0): 20000,
    }
    rows, parts, draw = [], [], np.random.default_rng(0)
    for part, counts in enumerate(catalogue.KNOWN["celeba"].groups):
        for group, count in enumerate(counts):
            rows.append(
                np.column_stack(
                    [np.full(count, group // 2), np.zeros(count, int), np.full(count, group % 2), np.zeros((count, 2), int)]
                )
            )
        parts += [part] * sum(counts)
    values = np.concatenate(rows)
    for male in (0, 1):
        members = draw.permutation(np.flatnonzero(values[:162770, 2] == male))
        start = 0
        for (high, of, young), count in cheeks.items():
            if of == male:
                values[members[start : start + count], 1], values[members[start : start + count], 3] = high, young
                start += count
        assert start == len(members)
    order = np.concatenate([draw.permutation(162770), np.arange(162770, len(values))])
    return values[order], np.array(parts)


def test_celeba_and_multiceleba_have_the_published_sizes(tmp_path):
    values, parts = official_faces()
    write_celeba(tmp_path, values, parts, pictures=False)
    lists = [tmp_path / "celeba" / f"list_{name}.txt" for name in ("attr_celeba", "eval_partition")]
    found, entry = group_shift.faces(*lists, "Blond_Hair", ("Male",)), catalogue.KNOWN["celeba"]
    counts = [np.bincount((2 * found.label + found.attribute)[found.split == part]) for part in range(3)]
    assert tuple(tuple(count.tolist()) for count in counts) == entry.groups
    assert tuple(int(count.sum()) for count in counts) == entry.sizes == (162770, 19867, 19962)

    found = group_shift.faces(*lists, "High_Cheekbones", ("Young", "Male"))
    chosen = group_shift.first_of_each((4 * found.label + found.attribute)[found.split == 0])
    assert len(chosen) == catalogue.KNOWN["multiceleba"].sizes[0] == 66898
    # (young, male, high cheekbones) -> how many of the first are taken, image by image
    left = {
        (1, 0, 1): 44528,
        (1, 1, 1): 2200,
        (0, 0, 1): 2200,
        (0, 1, 1): 110,
        (1, 0, 0): 40,
        (1, 1, 0): 800,
        (0, 0, 0): 800,
        (0, 1, 0): 16220,
    }
    slow = []
    for position, (_, high, male, young, _) in enumerate(values[:162770].tolist()):
        if left[young, male, high]:
            left[young, male, high] -= 1
            slow.append(position)
    assert chosen.tolist() == slow


@pytest.mark.parametrize("form", ["txt", "csv", "metadata"])
def test_celeba_is_read_in_every_form_of_its_lists(tmp_path, form):
    files = write_celeba(tmp_path, FACES, PARTS, form)
    for split, rows in (("train", range(20)), ("val", range(20, 26)), ("test", range(26, 32))):
        found = load("celeba", tmp_path, split, image_size=8)
        assert [file.name for file in found.images.files] == [files[row] for row in rows]
        assert found.labels.tolist() == [FACES[row][0] for row in rows]
        assert [found.group_names[group] for group in found.groups] == [
            f"{'blond' if FACES[row][0] else 'not blond'}, {'male' if FACES[row][2] else 'female'}" for row in rows
        ]
    if form != "metadata":
        found = load("multiceleba:test", tmp_path, image_size=8)
        assert found.groups.tolist() == [4 * FACES[row][1] + FACES[row][3] + 2 * FACES[row][2] for row in range(26, 32)]
        assert [found.group_names[group] for group in found.groups] == [
            f"{'high' if FACES[row][1] else 'low'} cheekbones, {'young' if FACES[row][3] else 'old'} "
            f"{'male' if FACES[row][2] else 'female'}"
            for row in range(26, 32)
        ]
        train = load("multiceleba", tmp_path, "train", image_size=8)
        assert train.indices.tolist() == list(range(20)) and len(train.group_names) == 8


SHORTER = [transforms.Resize(73), transforms.CenterCrop(64)]
SQUASH = [transforms.Resize((73, 73)), transforms.CenterCrop(64)]
SQUARE = [transforms.CenterCrop(178), transforms.Resize(64)]


@pytest.mark.parametrize(
    "name, steps",
    [
        ("celeba", SHORTER),
        ("celeba-shorter", SHORTER),
        ("celeba-squash", SQUASH),
        ("celeba-square", SQUARE),
        ("multiceleba", SQUARE),
        ("multiceleba-squash", SQUASH),
    ],
)
def test_a_name_states_how_large_images_become_squares(tmp_path, name, steps):
    write_celeba(tmp_path, FACES, PARTS)
    compose = transforms.Compose([*steps, transforms.PILToTensor()])
    for part, classes in ((f"{name}:test", 2), (f"{name}-wo0:ood", 1)):
        found = load(part, tmp_path, image_size=64)
        assert found.name == part.partition(":")[0] and len(found.classes) == classes
        expected = torch.stack([compose(Image.open(file)) for file in found.images.files])
        assert torch.equal(torch.cat([images for images, _, _ in found.batches(5)]), expected / 255)


def test_transforms_belong_to_registered_sets_of_large_images(tmp_path):
    assert names.parse("waterbirds-squash-wo1:val") == names.DataName("waterbirds", 1, split="val", transform="squash")
    for text in ("waterbirds-squash:val", "imagenet-square-k3", "celeba-squash-c/fog-3"):
        assert str(names.parse(text)) == text
    write_tree(tmp_path / "my-square")
    assert load("my-square", tmp_path).name == "my-square"
    with pytest.raises(UserError, match="digits-squash: -squash is for large images"):
        load("digits-squash", tmp_path)
    write_waterbirds(tmp_path)
    clean, fogged = (load(f"waterbirds-squash{end}", tmp_path, image_size=32) for end in ("", "-c/contrast-5"))
    assert torch.equal(next(fogged.batches(6))[0], corruptions.corrupt(clean.images.take(np.arange(6)), "contrast", 5) / 255)


def test_wrong_columns_and_missing_images_are_listed_in_one_sentence(tmp_path):
    folder = write_waterbirds(tmp_path)
    absent = sorted(file for file in folder.rglob("*.jpg"))[:5]
    for file in absent:
        file.unlink()
    with pytest.raises(UserError) as caught:
        load("waterbirds", tmp_path)
    listed = [part.strip(" ;") for part in str(caught.value).split(f"{folder}: ")[1].split("; unpack")[0].split(",")]
    assert "5 of its 17 images" in str(caught.value) and listed[-1] == "..." and len(listed) == 4
    assert set(listed[:3]) < {file.relative_to(folder).as_posix() for file in absent}

    whole = (folder / "metadata.csv").read_text()
    for change, words in {
        whole.replace("img_filename", "file").replace(",place,", ",where,"): "lacks the columns img_filename, place; it has",
        whole.replace(".jpg,1,", ".jpg,2,"): r"column y is 0 or 1, but not for 7 of 17 images: .*\.jpg has '2', .*, \.\.\.$",
        whole + "18,x.jpg,0\n": "1 of 18 images have not one value for each of the 6 columns: images 18$",
        COLUMNS[0]: "lacks the columns",
        ",".join(COLUMNS): "lists no image",
        "": "cannot be read as a table",
    }.items():
        (folder / "metadata.csv").write_text(change)
        with pytest.raises(UserError, match=words) as caught:
            load("waterbirds", tmp_path)
        assert "\n" not in str(caught.value)
    (folder / "metadata.csv").unlink()
    with pytest.raises(UserError, match="metadata.csv: cannot be read as a table .*No such file"):
        load("waterbirds", tmp_path)


def test_lists_of_celeba_that_do_not_belong_together_are_refused(tmp_path):
    write_celeba(tmp_path, FACES, PARTS)
    file = tmp_path / "celeba" / "list_eval_partition.txt"
    whole = file.read_text()
    file.write_text(whole.replace("000003.jpg", "000300.jpg"))
    with pytest.raises(UserError, match="lists other images than .*list_attr_celeba.txt"):
        load("celeba", tmp_path)
    file.write_text("\n".join(line for line in whole.splitlines() if not line.endswith("1")))
    attributes = tmp_path / "celeba" / "list_attr_celeba.txt"
    attributes.write_text("\n".join(attributes.read_text().splitlines()[:22] + attributes.read_text().splitlines()[28:]))
    with pytest.raises(UserError, match="celeba:val: the table lists no image of this split"):
        load("celeba:val", tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="only part of it .*list_eval_partition.* put list_attr_celeba and"):
        datasets.check("celeba", tmp_path)


# --- coloured digits


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


# --- ImageNet's relatives


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


# --- official corrupted arrays


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


# --- every registered set


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
    found = {row["data"]: row for row in rows(tmp_path, "eval") if row["subset"] == "all"}
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


# --- putting them in place


def test_archives_that_lie_under_the_root_are_unpacked_and_kept(tmp_path):
    folder = write_waterbirds(tmp_path / "source")
    files = {file.relative_to(folder.parent).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    root = tmp_path / "data"
    root.mkdir()
    (root / f"{WATERBIRDS}.tar.gz").write_bytes(tar(files))
    assert download.prepare("waterbirds-squash", root) == [root / WATERBIRDS]
    assert len(load("waterbirds", root, "train")) == 7 and (root / f"{WATERBIRDS}.tar.gz").is_file()
    write_tree(tmp_path / "source" / "imagenet-a", ("",), ("n01", "n02"))
    (root / "imagenet-a.tar").write_bytes(
        tar(
            {
                f"imagenet-a/{name}/{number}.png": (tmp_path / "source" / "imagenet-a" / name / f"{number}.png").read_bytes()
                for name in ("n01", "n02")
                for number in range(3)
            }
        )
    )
    download.prepare("imagenet-a", root)
    assert load("imagenet-a", root).classes == ("n01", "n02")
    words = "imagenet-r: cannot be downloaded from here; put the authors' imagenet-r.tar into .*, and .* -data .* unpacks it"
    with pytest.raises(UserError, match=words):
        download.prepare("imagenet-r", root)


def test_the_faces_are_checked_and_unpacked_beside_their_lists(tmp_path, monkeypatch):
    files = write_celeba(tmp_path / "source", FACES, PARTS)
    root, source = tmp_path / "data", tmp_path / "source" / "celeba"
    (root / "celeba").mkdir(parents=True)
    for file in source.glob("*.txt"):
        (root / "celeba" / file.name).write_text(file.read_text())
    packed = root / "celeba" / "img_align_celeba.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in files:
            archive.write(source / "img_align_celeba" / file, f"img_align_celeba/{file}")
    with pytest.raises(UserError, match="img_align_celeba.zip: the MD5 is .* instead of 00d2c5bc6d35e252742224ab0c1e8fcb"):
        download.prepare("celeba", root)
    assert not (root / "celeba" / "img_align_celeba").exists()
    monkeypatch.setattr(download, "checked", lambda archive, file: file)
    download.prepare("multiceleba", root)
    assert len(load("celeba:test", root)) == 6


def test_a_cut_off_archive_leaves_nothing_and_says_so(tmp_path):
    (tmp_path / f"{WATERBIRDS}.tar.gz").write_bytes(tar({f"{WATERBIRDS}/metadata.csv": levels(4000).tobytes()})[:900])
    with pytest.raises(UserError, match=f"{WATERBIRDS}.tar.gz: cannot be unpacked"):
        download.prepare("waterbirds", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{WATERBIRDS}.tar.gz"]


# --- from the command line


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    """A working directory with a small Waterbirds under `data`, and a network trained on it for an epoch."""
    folder = tmp_path_factory.mktemp("birds")
    write_waterbirds(folder / "data", ((20, 6, 4, 14), (5, 5, 5, 5), (6, 6, 0, 4)))
    done = script(
        "exec_train.py", "small_cnn", "-d", "waterbirds-squash", "-dir", "a", "-e", 1, "--image-size", 32, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def rows(folder: Path, experiment: str) -> list[dict]:
    file = max((folder / "results" / experiment).glob("*.json"), key=os.path.getmtime)
    return json.loads(file.read_text())["rows"]


def test_training_validates_on_the_sets_own_validation_split(birds):
    (row,) = rows(birds, "train")
    assert (row["selected_on"], row["n_val"]) == ("waterbirds-squash:val accuracy", 20)


def test_evaluation_and_probes_name_the_worst_group_and_a_missing_one(birds):
    done = script("exec_eval.py", "models/a/model_1.pt", "-d", "waterbirds-squash", "-d", "waterbirds-squash:val", cwd=birds)
    assert done.returncode == 0 and "no image of group waterbird, land" in done.stderr, done.stderr
    found = {(row["split"], row["subset"]): row for row in rows(birds, "eval")}
    groups = [
        found["val", f"group:{name}"]
        for name in ("landbird, land", "landbird, water", "waterbird, land", "waterbird, water")
    ]
    assert [row["n"] for row in groups] == [5] * 4 and found["test", "group:waterbird, land"]["n"] == 0
    for split in ("test", "val"):
        ((name, worst),) = [(subset, row) for (part, subset), row in found.items() if part == split and "worst" in subset]
        there = {
            subset: row["accuracy"]
            for (part, subset), row in found.items()
            if part == split and "group:" in subset and "worst" not in subset and row["n"]
        }
        assert worst["accuracy"] == min(there.values()) == there[name.replace("worst ", "")]

    done = script("exec_probe.py", "models/a/model_1.pt", "-ood", "waterbirds-squash", "-l", "avgpool", "-e", 1, cwd=birds)
    assert done.returncode == 0 and "no test image of group waterbird, land" in done.stderr, done.stderr
    probed = rows(birds, "probe")
    assert any(row["group"] and row["group"].startswith("worst: ") for row in probed)


def test_data_shows_groups_and_channels(birds, monkeypatch):
    monkeypatch.chdir(birds)
    write_mnist(birds / "data")
    for name, figures in (("waterbirds", 3), ("cmnist-domainbed", 6)):
        script_.run(EXPERIMENTS, "data", cli.parse(DataConfig, ["show", name, "--quiet"]), ["exec_data.py", "show", name])
        assert len(list((birds / "results" / "data").glob("*.png"))) == figures
    counts = {
        (row["data"], row["split"], row["subset"]): row["n"]
        for file in (birds / "results" / "data").glob("*.json")
        for row in json.loads(file.read_text())["rows"]
    }
    assert counts["waterbirds", "train", "group:landbird, water"] == 6
    assert counts["waterbirds", "test", "group:waterbird, land"] == 0
    assert counts["cmnist-domainbed", "val", "all"] == 6
