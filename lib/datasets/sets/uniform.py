"""Uniform noise as images from elsewhere (nearest-category paper, sections 1.9 and 5): every level of every pixel alike.

An image follows from its position alone, in 8 bits, at the size that the network takes.
"""

from pathlib import Path

import numpy as np
import torch

from lib.core.randomness import numpy_generator
from lib.datasets import Options
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import LazyImages

COUNT = 10_000


def uniform(root: Path, split: str, options: Options) -> Split:
    """10,000 unlabelled colour images."""
    return _split("uniform", split, UniformImages(3, options.image_size))


def uniform_grey(root: Path, split: str, options: Options) -> Split:
    """10,000 unlabelled grey images."""
    return _split("uniform-grey", split, UniformImages(1, options.image_size))


class UniformImages(LazyImages):
    """Noise of `size` pixels a side, drawn as it is asked for."""

    def __init__(self, channels: int, size: int):
        self.shape = (channels, size, size)

    def __len__(self) -> int:
        return COUNT

    def take(self, positions: np.ndarray) -> torch.Tensor:
        draws = [
            numpy_generator(0, "uniform", int(position)).integers(0, 256, self.shape, np.uint8) for position in positions
        ]
        return torch.from_numpy(np.stack(draws))


def _split(name: str, split: str, images: UniformImages) -> Split:
    return Split(name, split, images, torch.full((COUNT,), -1))
