"""Splits made from splits: without a class, with some classes only, and a validation part taken from training.

Sources: the nearest-category paper, section 2 (held-out classes); the hyperplane paper, section 4 (class subsets and
validation splits, corrected as its defects D3 to D6 demand).
"""

from dataclasses import replace

import torch

from lib.core.errors import UserError
from lib.core.randomness import generator
from lib.datasets.split import Split


def hold_out(split: Split, *unseen: int, last_becomes_zero: bool = False) -> Split:
    """The split without the classes `unseen`.

    Labels above each are lowered by one; with `last_becomes_zero` (without class 0) the last label becomes 0 and the others
    stay. `original_labels` leads back from a new label to the old one.
    """
    _require_classes(split, unseen)
    kept = [label for label in range(len(split.classes)) if label not in unseen]
    if last_becomes_zero:
        kept = [kept[-1], *kept[:-1]]
    return _keep(split, kept)


def only_classes(split: Split, *kept: int) -> Split:
    """The images of these classes, which are numbered in this order and keep their names."""
    _require_classes(split, kept)
    return _keep(split, list(kept))


def class_subset(split: Split, count: int, seed: int | None) -> Split:
    """The images of `count` classes, relabelled 0, ..., count-1: the first ones, or a draw that depends on `seed` only.

    Training, validation and test splits of a set therefore agree on the classes and on their order.
    """
    available = len(split.classes)
    if not 1 <= count <= available:
        raise UserError(f"{count} classes of {split.name}: it has {available}")
    order = torch.arange(available) if seed is None else torch.randperm(available, generator=generator(seed, "classes"))
    return _keep(split, order[:count].tolist())


def in_classes(split: Split, classes: tuple[str, ...]) -> Split:
    """The split with its labels numbered as in `classes`, if its own are some of them, in any order; else as it is.

    The other classes have no images. Classes are told apart by their names.
    """
    if (
        split.classes == classes
        or not split.classes
        or len(set(classes)) < len(classes)
        or not set(split.classes) <= {*classes}
    ):
        return split
    new = torch.tensor([*(classes.index(name) for name in split.classes), -1])  # one more, so that the label -1 stays -1
    return replace(split, labels=new.to(split.labels.device)[split.labels], classes=classes, original_labels=())


def validation_split(split: Split, fraction: float, seed: int, stratified: bool = False) -> tuple[Split, Split]:
    """A random part of floor(n * fraction) images as validation set, and the rest: (train, val), in original order.

    Stratified, every class gives its share, rounded down or up so that the sizes add up.
    """
    if not 0 < fraction < 1:
        raise UserError(f"a validation fraction of {fraction}: it lies strictly between 0 and 1")
    n = len(split)
    count = int(n * fraction + 1e-9)  # 100 * 0.29 is 28.999...
    order = torch.randperm(n, generator=generator(seed, "validation split"))
    if stratified:
        labels = split.labels.cpu()[order]
        order = torch.cat([order[labels == label][:share] for label, share in _shares(labels, fraction, count).items()])
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[order[:count]] = True
    if not 0 < count < n:
        raise UserError(f"{split.name}:{split.split}: {fraction} of {n} images leaves one side of the split empty")
    return split.subset(~chosen), replace(split.subset(chosen), split="val")


def _shares(labels: torch.Tensor, fraction: float, count: int) -> dict[int, int]:
    """How many of each label: the exact share rounded down, and the largest remainders up until `count` is reached."""
    present, sizes = labels.unique(return_counts=True)
    exact = sizes.double() * fraction
    shares = (exact + 1e-9).floor().long()
    order = (shares - exact).argsort(stable=True)
    shares[order[: count - int(shares.sum())]] += 1
    return dict(zip(present.tolist(), shares.tolist(), strict=True))


def _keep(split: Split, kept: list[int]) -> Split:
    """The images of the classes `kept`, which are numbered in that order."""
    new = torch.full((len(split.classes) + 1,), -1)  # one more, so that the label -1 stays -1
    new[kept] = torch.arange(len(kept))
    labels = new[split.labels.cpu()]
    subset = split.subset(labels >= 0)
    old = split.original_labels or tuple(range(len(split.classes)))
    return replace(
        subset,
        labels=labels[labels >= 0].to(split.labels.device),
        classes=tuple(split.classes[label] for label in kept),
        original_labels=tuple(old[label] for label in kept),
    )


def _require_classes(split: Split, wanted: tuple[int, ...]) -> None:
    if not split.classes:
        raise UserError(f"{split.name}: has no classes, so that none can be held out")
    for k in wanted:
        if not 0 <= k < len(split.classes):
            raise UserError(f"{split.name}: no class {k}; its classes are 0 to {len(split.classes) - 1}")
