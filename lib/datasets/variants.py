"""From a parsed name to a split: the base set, its corrupted version, and its versions with fewer classes.

Held-out classes follow the nearest-category paper, section 2; class subsets the hyperplane paper, section 4.
"""

from dataclasses import replace
from functools import reduce
from pathlib import Path

import torch

from lib.core.errors import UserError
from lib.core.registry import resolve
from lib.datasets import Options, catalogue, corrupted, names
from lib.datasets.names import DataName
from lib.datasets.sets import cifar
from lib.datasets.split import Split, check_labels, join
from lib.datasets.storage.pending import made
from lib.datasets.subsets import class_subset, hold_out, only_classes

# Where the paper renames the last label to 0 and keeps the rest, instead of lowering the labels above k by one.
LAST_BECOMES_ZERO = {("cifar10", 0), ("cifar100coarse", 0)}


def load(
    data: DataName, target: str, root: Path, split: str, parts: tuple[str, ...], options: Options, most: int | None
) -> Split:
    """The split `split` of the set that `data` names, from the splits `parts` that the function `target` loads.

    With `most` at most so many of its images, evenly spread over it; no other is decoded or corrupted.
    """
    whole = _whole(data, target, root, split, parts, options if most is None else replace(options, pending=True))
    if most is not None and most < len(whole):
        whole = whole.subset((torch.arange(most, dtype=torch.float64) * (len(whole) / most)).long())
    whole = made(whole)
    if data.transform and getattr(whole.images, "transform", "") != data.transform:
        raise UserError(
            f"{data}: -{data.transform} is for large images, which are decoded as they are needed; those of "
            f"{data.base} are read as they are"
        )
    return whole


def _whole(data: DataName, target: str, root: Path, split: str, parts: tuple[str, ...], options: Options) -> Split:
    loaded = []
    for part in parts:
        if data.corrupted:
            # official arrays cover test splits only, and are not mixed with generated ones
            official = catalogue.official_corruption(data.base, *names.corruption(data), split, root)
            loaded.append(corrupted.load(data, target, root, part, official, options))
        else:
            loaded.append(replace(resolve(target)(root, part, options), name=data.name))
        check_labels(loaded[-1])
    if data.drawn_out is not None:
        without = cifar.one_of_each(root, data.drawn_out)
    else:
        without = () if data.held_out is None else (_held_out(data, data.held_out, loaded[0].classes),)
    if split == "ood":
        return unseen(loaded, *without)
    whole = loaded[0]
    if without:
        whole = hold_out(whole, *without, last_becomes_zero=(data.base, data.held_out) in LAST_BECOMES_ZERO)
    return whole if data.kept is None else class_subset(whole, data.kept, data.kept_seed)


def _held_out(data: DataName, number: int, classes: tuple[str, ...]) -> int:
    """The label of the class that the name holds out; the splits of a set agree on their classes."""
    label = names.held_out_class(number, classes)
    if label is None:
        raise UserError(f"{data.name}: no class {number}; there are {len(classes)} classes")
    return label


def unseen(splits: list[Split], *classes: int) -> Split:
    """Every image of these classes: those of the training split, then those of the test split.

    Positions in the second split are raised by the length of the first; the classes, now 0, 1, ..., keep their names.
    """
    parts, start = [], 0
    for split in splits:
        parts.append(only_classes(replace(split, indices=split.indices + start), *classes))
        start += int(split.indices.max()) + 1
    return replace(reduce(join, parts), split="ood")
