"""Coloured digits: the colour goes with the label in training and not in testing; groups of both, 2 label + colour.

Intermediate-layers paper, section 3.5. One generator makes the paper's coloured MNIST, whose exact strength of correlation
is not published, and DomainBed's (Arjovsky et al. 2019, Gulrajani & Lopez-Paz 2021).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.core.randomness import numpy_generator
from lib.datasets import Options
from lib.datasets.sets import builtin, mnist
from lib.datasets.split import Split
from lib.datasets.subsets import validation_split

VALIDATION = 1 / 6  # of the training images: 10,000 of MNIST's
COLOURS = ("red", "green")
RED_GREEN = np.array([[255, 0, 0], [0, 255, 0]])


@dataclass(frozen=True)
class Colouring:
    """How digits become coloured ones.

    below_five     the label of the digits 0 to 4; the others have the other label of 0 and 1
    label_noise    probability of a wrong label, in all splits
    train_flips    probability that the colour is not that of the label, per environment; images take turns in them
    test_flip      the same in "val" and "test"
    channels       3: red or green ink on grey; 2: the digit is in the first or second channel, on black
    background     its level, 0 to 255
    """

    below_five: int = 0
    label_noise: float = 0.0
    train_flips: tuple[float, ...] = (0.05,)
    test_flip: float = 0.5
    channels: int = 3
    background: int = 128


PAPER = Colouring()  # its 5% are ours
DOMAINBED = Colouring(1, 0.25, (0.1, 0.2), 0.9, 2, 0)


def cmnist(root: Path, split: str, options: Options) -> Split:
    """MNIST in red and green on grey, 3 x 28 x 28: 50,000, 10,000 and 10,000; the label says whether it is five or more."""
    return coloured("cmnist", mnist.mnist, root, split, options, PAPER)


def cmnist_domainbed(root: Path, split: str, options: Options) -> Split:
    """DomainBed's, 2 x 28 x 28: the label says whether the digit is below five, for three quarters of the images."""
    return coloured("cmnist-domainbed", mnist.mnist, root, split, options, DOMAINBED)


def digits_colour(root: Path, split: str, options: Options) -> Split:
    """scikit-learn's digits as in `cmnist`, 3 x 32 x 32: 1,202, 240 and 355."""
    return coloured("digits-colour", builtin.digits, root, split, options, PAPER)


def coloured(
    name: str,
    source: Callable[[Path, str, Options], Split],
    root: Path,
    split: str,
    options: Options,
    colouring: Colouring,
    seed: int = 0,
) -> Split:
    """The digits of `source`, a loading function; "val" is a sixth of its training images, coloured as those of "test"."""
    digits = source(root, "test" if split == "test" else "train", options)
    if split != "test":
        digits = validation_split(digits, VALIDATION, seed)[split == "val"]
    noise, flip = numpy_generator(seed, name, split).random((2, len(digits)))
    below = digits.labels.numpy() < 5
    labels = np.where(below, colouring.below_five, 1 - colouring.below_five) ^ (noise < colouring.label_noise)
    flips = np.resize(colouring.train_flips, len(digits)) if split == "train" else colouring.test_flip
    colours = labels ^ (flip < flips)
    classes = ("below five", "five or more")[:: -1 if colouring.below_five else 1]
    return Split(
        name,
        split,
        torch.from_numpy(_ink(digits.images_in_memory[:, 0].numpy(), colours, colouring)),
        torch.from_numpy(labels),
        groups=torch.from_numpy(2 * labels + colours),
        indices=digits.indices,
        classes=classes,
        group_names=tuple(f"{label}, {colour}" for label in classes for colour in COLOURS),
    )


def _ink(digits: np.ndarray, colours: np.ndarray, colouring: Colouring) -> np.ndarray:
    """Grey digits (n, h, w) in the colours (n,), 0 or 1; uint8 (n, channels, h, w)."""
    ink = RED_GREEN[colours, : colouring.channels, None, None]
    share = digits[:, None].astype(np.float32) / 255
    return np.rint(colouring.background * (1 - share) + ink * share).astype(np.uint8)
