"""Images that are decoded or corrupted only once it is known which of them are wanted: `--max-examples` of a large set."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lib.datasets.split import Split, join
from lib.datasets.storage.lazy_images import LazyImages

UNKNOWN = ""  # augmentation of a split whose images are not made: it follows from how they are kept


class PendingImages(LazyImages):
    """n images of which none is read yet; `make(positions)` gives the split of those at some positions.

    `subset` and `joined` only note which are wanted; `made` then makes these. No shape is known, and none can be taken.
    """

    shape = (0, 0, 0)

    def __init__(self, count: int, make: Callable[[np.ndarray], Split]):
        self.count, self.make = count, make

    def __len__(self) -> int:
        return self.count

    def subset(self, positions: np.ndarray) -> "PendingImages":
        chosen = np.asarray(positions)
        return PendingImages(len(chosen), lambda wanted: self.make(chosen[wanted]))

    def joined(self, other: LazyImages) -> "LazyImages":
        """These images, then the others, of which both are pending."""
        if not isinstance(other, PendingImages):
            return super().joined(other)
        ours, theirs = self, other

        def make(wanted: np.ndarray) -> Split:
            first = wanted < len(ours)
            if first.all():
                return ours.make(wanted)
            if not first.any():
                return theirs.make(wanted - len(ours))
            both = join(ours.make(wanted[first]), theirs.make(wanted[~first] - len(ours)))
            return both.subset(np.argsort(np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])))

        return PendingImages(len(ours) + len(theirs), make)


def made(split: Split) -> Split:
    """The split with its images read, where they are pending."""
    if not isinstance(split.images, PendingImages):
        return split
    whole = split.images.make(np.arange(len(split)))
    return replace(split, images=whole.images, augmentation=split.augmentation or whole.augmentation)
