"""Images whose background goes with the label in training and does not in testing, in groups.

Group = 2 label + place, as in Waterbirds (intermediate-layers paper, section 3.2).
"""

from pathlib import Path

import numpy as np
import torch

from lib.core.randomness import numpy_generator
from lib.datasets import Options
from lib.datasets.sets import builtin
from lib.datasets.split import Split

AGREES = 0.95  # share of the training images whose background is their class's, as in Waterbirds
VALIDATION = 0.25  # of the digits that are not for testing
PLACES = ("meadow", "sea")


def digits_background(root: Path, split: str, options: Options) -> Split:
    """The digits on a green or a blue background, 3 x 32 x 32; the label says whether the digit is below five.

    In "train" the background is the class's own in 95% of the images of either class; in "val" and "test" in half of
    them. Three quarters of the 1,442 training digits are for training, the others are "val"; positions are those of
    scikit-learn's set. Everything is a fixed draw.
    """
    source = builtin.digits(root, "test" if split == "test" else "train", options)
    draw = numpy_generator(0, "digits-bg", split)
    if split != "test":
        order = numpy_generator(0, "digits-bg", "validation").permutation(len(source))
        count = round(VALIDATION * len(source))
        source = source.subset(np.sort(order[:count] if split == "val" else order[count:]))
    labels = (source.labels >= 5).long()
    places = _places(labels.numpy(), AGREES if split == "train" else 0.5, draw)
    images = _on_backgrounds(source.images_in_memory[:, 0].numpy(), places, draw)
    classes = ("below five", "five or more")
    groups = 2 * labels + torch.from_numpy(places)
    names = tuple(f"{label}, {place}" for label in classes for place in PLACES)
    return Split(
        "digits-bg",
        split,
        images,
        labels,
        groups=groups,
        indices=source.indices,
        classes=classes,
        group_names=names,
        augmentation="none",
    )


def _places(labels: np.ndarray, agrees: float, draw: np.random.Generator) -> np.ndarray:
    """Per image its background, 0 or 1: exactly the share `agrees` of each class is on its own, to the image."""
    places = labels.copy()
    for label in (0, 1):
        members = draw.permutation(np.flatnonzero(labels == label))
        other = members[round(agrees * len(members)) :]
        places[other] = 1 - label
    return places


def _on_backgrounds(digits: np.ndarray, places: np.ndarray, draw: np.random.Generator) -> torch.Tensor:
    """White digits (n, h, w) over waves: upright and green for place 0, level and blue for place 1; uint8 (n, 3, h, w)."""
    n, height, width = digits.shape
    across = np.arange(width)[None, None, :] * np.ones((1, height, 1))
    down = np.arange(height)[None, :, None] * np.ones((1, 1, width))
    phase, period = draw.uniform(0, 2 * np.pi, (n, 1, 1)), draw.uniform(5, 11, (n, 1, 1))
    waves = np.sin(np.where(places[:, None, None] == 0, across, down) * 2 * np.pi / period + phase)
    brightness = 0.45 + 0.12 * waves + draw.normal(0, 0.04, (n, height, width))
    tints = np.array([[0.55, 1.0, 0.45], [0.4, 0.65, 1.0]])[places]
    background = brightness[:, None] * tints[:, :, None, None]
    ink = digits[:, None].astype(np.float64) / 255
    return torch.from_numpy(np.rint(255 * np.clip(background * (1 - ink) + ink, 0, 1)).astype(np.uint8))
