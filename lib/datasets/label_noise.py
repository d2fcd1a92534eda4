"""Training sets that can only be memorised: wrong labels, and permuted pixels.

The hyperplane paper, section 4; Zhang et al. 2017. Every draw belongs to an image's original position, so that it does
not depend on which images are left. Validation and test splits are simply not given to these functions.
"""

from dataclasses import replace

import numpy as np
import torch

from lib.core.errors import UserError
from lib.core.randomness import numpy_generator, stream
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import LazyImages


def label_noise(split: Split, ratio: float, seed: int) -> Split:
    """Each label is hit with probability `ratio` and then moved by 1, ..., k-1 classes (modulo k), all alike.

    A label that is hit is therefore always wrong: a ratio of 1 leaves none right, where Zhang et al. leave one in k.
    Unlabelled images stay so.
    """
    if not 0 <= ratio <= 1:
        raise UserError(f"a label noise of {ratio}: the share of wrong labels is between 0 and 1")
    k = len(split.classes)
    if k < 2:
        raise UserError(f"{split.name}: wrong labels need at least two classes, and it has {k}")
    indices = split.indices.cpu().numpy()
    count = int(indices.max(initial=-1)) + 1  # of positions
    hit = numpy_generator(seed, "label noise").random(count)[indices] < ratio
    shift = 1 + (numpy_generator(seed, "label noise", "class").random(count)[indices] * (k - 1)).astype(np.int64)
    labels = split.labels.cpu().numpy()
    noisy = np.where(hit & (labels >= 0), (labels + shift) % k, labels)
    return replace(split, labels=torch.from_numpy(noisy).to(split.labels.device))


def pixel_shuffle(split: Split, seed: int) -> Split:
    """Every image with its pixels in an order of its own, the same for all channels and at every reading.

    This is "random pixels" of Zhang et al. The order is applied to the stored image; any augmentation comes after it.
    """
    stored = split.images
    if isinstance(stored, LazyImages):
        return replace(split, images=ShuffledImages(stored, split.indices.cpu().numpy(), seed))
    images = stored.cpu()
    shuffled = torch.empty(images.shape, dtype=torch.uint8)
    for row, (image, index) in enumerate(zip(images, split.indices.tolist(), strict=True)):
        shuffled[row] = _shuffle(image, index, seed)
    return replace(split, images=shuffled.to(stored.device))


class ShuffledImages(LazyImages):
    """`pixel_shuffle` of images that are fetched batch by batch."""

    def __init__(self, images: LazyImages, indices: np.ndarray, seed: int):
        self.images, self.indices, self.seed, self.shape = images, indices, seed, images.shape

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        images = self.images.take(positions)
        indices = self.indices[positions].tolist()
        return torch.stack([_shuffle(image, index, self.seed) for image, index in zip(images, indices, strict=True)])


def _shuffle(image: torch.Tensor, index: int, seed: int) -> torch.Tensor:
    # a counter-based generator: its start costs a tenth of that of a seeded one
    draw = np.random.Generator(np.random.Philox(key=[stream(seed, "pixel shuffle"), index]))
    order = torch.from_numpy(draw.permutation(image.shape[-2] * image.shape[-1]))
    return image.flatten(1)[:, order].view_as(image)
