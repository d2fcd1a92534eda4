"""The data sets that need no files: scikit-learn's digits, and patches of its two sample photographs as outliers."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

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
    from sklearn.datasets import load_digits  # slow to import, and only the built-in sets need it

    data = load_digits()
    draw = numpy_generator(0, "digits", "test split")
    is_test = np.zeros(len(data.target), bool)
    for label in range(10):
        members = draw.permutation(np.flatnonzero(data.target == label))
        is_test[members[: int(TEST_FRACTION * len(members))]] = True
    indices = torch.from_numpy(np.flatnonzero(is_test if split == "test" else ~is_test))
    images = torch.from_numpy(data.images).float()[indices, None] * (255 / 16)
    images = F.interpolate(images, scale_factor=4, mode="bilinear", align_corners=False).round().to(torch.uint8)
    labels = torch.from_numpy(data.target)[indices].to(torch.int64)
    return Split("digits", split, images, labels, indices=indices, classes=_NUMBERS, augmentation="crop")


def patches(root: Path, split: str, options: Options) -> Split:
    """Patches of a Chinese pavilion and of a flower, 3 x 32 x 32: 1,150 for training and 750 for testing.

    Cut at steps of 16 pixels, for training from the left 384 columns of both photographs and for testing from the
    right 256, so that the splits share no pixel.
    """
    from sklearn.datasets import load_sample_images

    images, labels, names = [], [], ("china", "flower")
    bunch = load_sample_images()
    for label, photograph in enumerate(bunch.images):
        part = photograph[:, :TRAIN_COLUMNS] if split == "train" else photograph[:, TRAIN_COLUMNS:]
        windows = torch.from_numpy(np.ascontiguousarray(part)).unfold(0, PATCH, STRIDE).unfold(1, PATCH, STRIDE)
        images.append(windows.reshape(-1, 3, PATCH, PATCH))
        labels += [label] * len(images[-1])
    return Split("patches", split, torch.cat(images), torch.tensor(labels), classes=names, augmentation="crop-flip")


_NUMBERS = tuple(str(digit) for digit in range(10))
