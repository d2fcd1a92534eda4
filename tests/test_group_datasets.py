"""Waterbirds, CelebA and MultiCelebA: sizes, groups, tables, transforms, and what is refused."""

import csv

import numpy as np
import pytest
import torch
from layouts import (
    COLUMNS,
    FACES,
    PARTS,
    load,
    write_celeba,
    write_tree,
    write_waterbirds,
)
from PIL import Image
from torchvision import transforms

from lib import datasets
from lib.core.errors import UserError
from lib.datasets import catalogue, corruptions, names
from lib.datasets.sets import group_shift
from lib.datasets.storage import verify


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
