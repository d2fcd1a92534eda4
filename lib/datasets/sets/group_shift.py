"""Waterbirds, CelebA and MultiCelebA: labels that go with a background or an attribute in training, and groups of both.

Intermediate-layers paper, sections 3.2 to 3.4. Positions in a split follow the order of the tables.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lib.core.errors import UserError
from lib.datasets import Options, catalogue
from lib.datasets.split import Split
from lib.datasets.storage import csv_tables
from lib.datasets.storage.folders import from_listing
from lib.datasets.storage.image_folders import Listing

SPLITS = ("train", "val", "test")  # by number
BIRDS, PLACES = ("landbird", "waterbird"), ("land", "water")
HAIR, SEXES = ("not blond", "blond"), ("female", "male")
CHEEKBONES = ("low cheekbones", "high cheekbones")
BIASES = ("old female", "young female", "old male", "young male")  # by young + 2 male

# MultiCelebA keeps of the training images of each (cheekbones, young + 2 male) the first so many; None: all.
MULTI_TRAIN = {(1, 1): None, (1, 3): 2200, (1, 0): 2200, (1, 2): 110, (0, 1): 40, (0, 3): 800, (0, 0): 800, (0, 2): 16220}


@dataclass(frozen=True)
class ImageTable:
    """The images of all splits: n files, and for each the number of its split, its label and its attribute (n,).

    The attribute is what goes with the label in training: the place of a bird, the sex of a face.
    """

    files: list[str]
    split: np.ndarray
    label: np.ndarray
    attribute: np.ndarray


def waterbirds(root: Path, split: str, options: Options) -> Split:
    """Two kinds of birds on two backgrounds: 4,795, 1,199 and 5,794 images; group = 2 waterbird + water.

    The official folder: `metadata.csv`, which lists `<species>/<image>.jpg`. 95% of the training images show a bird on its
    own background; in "val" and "test" half of each kind do. 56 training images are of the rarest group, waterbirds on land.
    """
    (folder,) = catalogue.require("waterbirds", catalogue.KNOWN["waterbirds"], root)
    file = folder / "metadata.csv"
    table = prepared(file)
    csv_tables.require_images(file, folder, table.files)
    return _grouped("waterbirds", split, folder, table, BIRDS, PLACES, options)


def celeba(root: Path, split: str, options: Options) -> Split:
    """Faces, blond or not, of women and men: 162,770, 19,867 and 19,962; group = 2 blond + male, the rarest blond men."""
    folder, attributes, partition = catalogue.require("celeba", catalogue.KNOWN["celeba"], root)
    table = next((prepared(file) for file in (attributes, partition) if file.name == "metadata.csv"), None)
    table = table or faces(attributes, partition, "Blond_Hair", ("Male",))
    csv_tables.require_images(attributes, folder, table.files)
    return _grouped("celeba", split, folder, table, HAIR, SEXES, options)


def multiceleba(root: Path, split: str, options: Options) -> Split:
    """Faces with high cheekbones or without, young or old, women or men: 66,898, 19,867 and 19,962; eight groups.

    Group = 4 high cheekbones + young + 2 male. Age and sex go with the label in training; "val" and "test" are CelebA's.
    Unless the name says otherwise images are made square by "square".
    """
    folder, attributes, partition = catalogue.require("multiceleba", catalogue.KNOWN["multiceleba"], root)
    table = faces(attributes, partition, "High_Cheekbones", ("Young", "Male"))
    csv_tables.require_images(attributes, folder, table.files)
    options = replace(options, transform=options.transform or "square")
    whole = _grouped("multiceleba", split, folder, table, CHEEKBONES, BIASES, options)
    return whole.subset(torch.from_numpy(first_of_each(whole.groups.numpy()))) if split == "train" else whole


def first_of_each(groups: np.ndarray) -> np.ndarray:
    """The positions of MultiCelebA's training images among CelebA's, whose groups (n,) are 4 high cheekbones + bias."""
    kept = [np.flatnonzero(groups == 4 * label + bias)[:most] for (label, bias), most in MULTI_TRAIN.items()]
    return np.sort(np.concatenate(kept))


def prepared(file: Path) -> ImageTable:
    """The table `metadata.csv` of group-DRO and DFR."""
    columns = csv_tables.read(file, ("img_filename", "y", "split", "place"))
    return ImageTable(
        columns["img_filename"],
        *(
            np.array(csv_tables.integers(file, columns, column, allowed))
            for column, allowed in (("split", (0, 1, 2)), ("y", (0, 1)), ("place", (0, 1)))
        ),
    )


def faces(attributes: Path, partition: Path, label: str, biases: tuple[str, ...]) -> ImageTable:
    """CelebA's own lists with one attribute as label and others, the first counting 1, the second 2, as attribute."""
    columns = csv_tables.read(attributes, ("image_id", label, *biases))
    parts = csv_tables.read(partition, ("image_id", "partition"))
    if columns["image_id"] != parts["image_id"]:
        raise UserError(f"{partition}: lists other images than {attributes}, or in another order; unpack both again")
    split = np.array(csv_tables.integers(partition, parts, "partition", (0, 1, 2)))
    values = {
        name: (np.array(csv_tables.integers(attributes, columns, name, (-1, 1))) + 1) // 2 for name in (label, *biases)
    }
    attribute = np.sum([2**bit * values[name] for bit, name in enumerate(biases)], axis=0)
    return ImageTable(columns["image_id"], split, values[label], attribute)


def _grouped(
    name: str,
    split: str,
    folder: Path,
    table: ImageTable,
    classes: tuple[str, ...],
    attributes: tuple[str, ...],
    options: Options,
) -> Split:
    """One split of the table; group = (number of attributes) x label + attribute."""
    chosen = np.flatnonzero(table.split == SPLITS.index(split))
    if not len(chosen):
        raise UserError(f"{name}:{split}: the table lists no image of this split")
    labels, groups = table.label[chosen], len(attributes) * table.label[chosen] + table.attribute[chosen]
    listing = Listing(folder, tuple(table.files[row] for row in chosen), tuple(labels.tolist()), classes)
    names = tuple(f"{label}, {attribute}" for label in classes for attribute in attributes)
    return replace(
        from_listing(name, split, listing, options),
        groups=torch.from_numpy(groups).long(),
        group_names=names,
        augmentation="group-dro",
    )
