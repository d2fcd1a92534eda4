"""The data sets that need no files: scikit-learn's digits, and patches of its two sample photographs as outliers."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lib.core.errors import UserError
from lib.core.randomness import numpy_generator
from lib.datasets import Options
from lib.datasets.split import Split

TEST_FRACTION = 0.2
PATCH, STRIDE = 32, 16
TRAIN_COLUMNS = 384  # of the 640 columns of each photograph


def digits(root: Path, split: str, options: Options) -> Split:
    """1,797 digits of ten classes, 1 x 32 x 32: 1,442 for training and 355 for testing, a fifth of every class.

    The 8x8 images have values 0 to 16, here scaled to 0 to 255 and enlarged fourfold by bilinear interpolation. The
    division is a fixed draw, the same for every seed of every run.
    """
    with gzip.open(_installed("data/digits.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",")  # 64 pixels in rows, and the class
    pixels, target = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
    draw = numpy_generator(0, "digits", "test split")
    is_test = np.zeros(len(target), bool)
    for label in range(10):
        members = draw.permutation(np.flatnonzero(target == label))
        is_test[members[: int(TEST_FRACTION * len(members))]] = True
    indices = torch.from_numpy(np.flatnonzero(is_test if split == "test" else ~is_test))
    images = torch.from_numpy(pixels).float()[indices, None] * (255 / 16)
    images = F.interpolate(images, scale_factor=4, mode="bilinear", align_corners=False).round().to(torch.uint8)
    labels = torch.from_numpy(target)[indices].to(torch.int64)
    return Split("digits", split, images, labels, indices=indices, classes=_NUMBERS, augmentation="crop")


def patches(root: Path, split: str, options: Options) -> Split:
    """Patches of a Chinese pavilion and of a flower, 3 x 32 x 32: 1,150 for training and 750 for testing.

    Cut at steps of 16 pixels, for training from the left 384 columns of both photographs and for testing from the
    right 256, so that the splits share no pixel.
    """
    images, labels, names = [], [], ("china", "flower")
    for label, name in enumerate(names):
        photograph = np.asarray(Image.open(_installed(f"images/{name}.jpg")))
        part = photograph[:, :TRAIN_COLUMNS] if split == "train" else photograph[:, TRAIN_COLUMNS:]
        windows = torch.from_numpy(np.ascontiguousarray(part)).unfold(0, PATCH, STRIDE).unfold(1, PATCH, STRIDE)
        images.append(windows.reshape(-1, 3, PATCH, PATCH))
        labels += [label] * len(images[-1])
    return Split("patches", split, torch.cat(images), torch.tensor(labels), classes=names, augmentation="crop-flip")


def _installed(path: str) -> Path:
    """A file of scikit-learn's data sets; importing scikit-learn itself takes longer than small experiments."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("the built-in data sets are scikit-learn's: pip install scikit-learn")
    return Path(package.origin).parent / "datasets" / path


_NUMBERS = tuple(str(digit) for digit in range(10))
