"""One split of a data set: images, labels and groups, and its batches.

Images are uint8 (n, c, h, w), in memory, memory-mapped, or `LazyImages`; `batches` turns them into floats in [0, 1] on
the device, with the channels and the size that the network takes. Normalising is the network's first layer. Stored
features take the place of images as float32 (n, d, 1, 1), and `batches` leaves them as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F

from lib.core.errors import UserError
from lib.datasets.storage import lazy_images
from lib.datasets.storage.lazy_images import LazyImages

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
CHUNK = 4096  # images per step wherever a whole split is passed through
NOT_GIVEN = torch.empty(0, dtype=torch.int64)  # in the place of values that follow from the number of images


@dataclass(frozen=True)
class Split:
    """n images with their labels, groups and original positions."""

    name: str  # as in records: "cifar10", "mnist-wo9", "cifar10-c"
    split: str  # "train", "test", "val", "ood", or "all" where the set is not divided
    images: torch.Tensor | LazyImages  # uint8 (n, c, h, w); float32 (n, d, 1, 1) for stored features
    labels: torch.Tensor  # int64 (n,), -1 = unlabelled
    groups: torch.Tensor = NOT_GIVEN  # int64 (n,); zeros unless given
    indices: torch.Tensor = NOT_GIVEN  # int64 (n,), positions in the original split; 0, ..., n-1 unless given
    classes: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    variant: str = ""  # the corruption, "fog-3"
    origin: str = ""  # of a corrupted set: "official" or "generated"
    augmentation: str = "none"  # the customary training augmentation, a name in AUGMENTATIONS
    original_labels: tuple[int, ...] = field(default=())  # label -> label before classes were left out; () = itself
    features: str = ""  # of stored features: the layer, and the SHA-256 of the checkpoint that made them

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.groups is NOT_GIVEN:
            object.__setattr__(self, "groups", torch.zeros(n, dtype=torch.int64))
        if self.indices is NOT_GIVEN:
            object.__setattr__(self, "indices", torch.arange(n))
        kind = torch.float32 if self.features else torch.uint8
        if isinstance(self.images, torch.Tensor) and (self.images.ndim != 4 or self.images.dtype != kind):
            raise ValueError(f"images {tuple(self.images.shape)} {self.images.dtype}: not {kind} (n, c, h, w)")
        for what in ("labels", "groups", "indices"):
            values = getattr(self, what)
            if tuple(values.shape) != (n,) or values.dtype != torch.int64:
                raise ValueError(f"{what} {tuple(values.shape)} {values.dtype}: not int64 ({n},)")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def lazy(self) -> bool:
        """Whether the images are fetched batch by batch instead of lying in (mapped) memory."""
        return isinstance(self.images, LazyImages)

    @property
    def images_in_memory(self) -> torch.Tensor:
        """The images, where they lie in (mapped) memory. Raises `ValueError` for lazy ones."""
        if isinstance(self.images, LazyImages):
            raise ValueError(f"{self.name}:{self.split}: its images are fetched batch by batch")
        return self.images

    @property
    def channels(self) -> int:
        return self.images.shape[-3]

    @property
    def height(self) -> int:
        return self.images.shape[-2]

    @property
    def width(self) -> int:
        return self.images.shape[-1]

    def subset(self, positions: torch.Tensor | np.ndarray | Sequence[int]) -> "Split":
        """The split at `positions`: int64 (m,) in any order, or a mask (n,)."""
        chosen = torch.as_tensor(positions)
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().squeeze(1)
        chosen = chosen.to(torch.int64)
        if isinstance(self.images, LazyImages):
            images = self.images.subset(chosen.cpu().numpy())
        else:
            images = self.images[chosen.to(self.images.device)]
        labels, groups, indices = (values[chosen.to(values.device)] for values in (self.labels, self.groups, self.indices))
        return replace(self, images=images, labels=labels, groups=groups, indices=indices)

    def spread(self, most: int) -> "Split":
        """At most `most` of the images, evenly spread over the split."""
        return self if len(self) <= most else self.subset(torch.arange(most) * len(self) // most)

    def to(self, device: str | torch.device) -> "Split":
        """The split with its tensors on `device`; lazy images stay where they are."""
        return replace(
            self,
            images=self.images if isinstance(self.images, LazyImages) else self.images.to(device),
            labels=self.labels.to(device),
            groups=self.groups.to(device),
            indices=self.indices.to(device),
        )

    def batches(
        self,
        batch_size: int,
        *,
        device: str | torch.device = "cpu",
        order: torch.Tensor | None = None,
        channels: int | None = None,
        size: int | None = None,
        augment: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
        workers: int = 0,
        prefetch: int = 2,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Images (b, c, h, w) float32 in [0, 1] and labels (b,) on `device`, and positions (b,) on the CPU.

        In `order` (int64 positions, by default 0, ..., n-1); the last batch may be smaller. `channels` and `size` as in
        `fit`; then `augment(images, step)` with the number of the batch. `workers` and `prefetch` serve lazy images.
        """
        device, n = torch.device(device), len(self)
        order = None if order is None else torch.as_tensor(order, dtype=torch.int64).cpu()
        labels = _on(device, self.labels if order is None else self.labels[_on(self.labels.device, order)])
        positions = torch.arange(n) if order is None else order
        stored = self.stored(order, batch_size, workers, prefetch, pin=device.type == "cuda")
        parts = zip(stored, labels.split(batch_size), positions.split(batch_size), strict=False)
        for step, (images, part_labels, part) in enumerate(parts):
            images = fit(as_floats(images.to(device, non_blocking=True).contiguous()), channels, size)
            if augment is not None:
                images = augment(images, step)
            yield images, part_labels, part

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, in [0, 1]; exact, from integer sums."""
        total, squares = [0] * self.channels, [0] * self.channels
        for images in self.stored():
            values = images.transpose(0, 1).flatten(1).to(torch.int64)
            total = [a + b for a, b in zip(total, values.sum(1).tolist(), strict=True)]
            squares = [a + b for a, b in zip(squares, values.square().sum(1).tolist(), strict=True)]
        pixels = len(self) * self.height * self.width
        mean = tuple(a / pixels / 255 for a in total)
        # The numerator n*sum(x^2) - sum(x)^2 is an exact integer, so that no digits cancel.
        std = tuple((pixels * b - a * a) ** 0.5 / pixels / 255 for a, b in zip(total, squares, strict=True))
        return mean, std

    def stored(
        self,
        order: torch.Tensor | None = None,
        batch_size: int = CHUNK,
        workers: int = 0,
        prefetch: int = 2,
        pin: bool = False,
    ) -> Iterator[torch.Tensor]:
        """The images as they are kept, uint8 (b, c, h, w), in `order`; in memory they stay on their own device."""
        if isinstance(self.images, LazyImages):
            order = torch.arange(len(self)) if order is None else order
            batches = [part.numpy() for part in order.split(batch_size)] if len(order) else []
            yield from lazy_images.batches(self.images, batches, workers, prefetch, pin)
        elif order is None:
            yield from self.images.split(batch_size) if len(self) else ()
        else:
            for rows in _on(self.images.device, order).split(batch_size) if len(order) else ():
                yield self.images[rows]


def _on(device: torch.device, values: torch.Tensor) -> torch.Tensor:
    """The values on the device; nobody waits until they have arrived on a GPU."""
    return values.to(device, non_blocking=device.type == "cuda")


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """Images (b, c, h, w) as they are kept -> float32, in [0, 1]; stored features as they are."""
    return images.float() if images.is_floating_point() else images.float().div_(255)


def fit(images: torch.Tensor, channels: int | None = None, size: int | None = None) -> torch.Tensor:
    """Floats (b, c, h, w) with the channels and the square size (None: as they are) that a network takes.

    Grey images are repeated in every channel; of colour images a one-channel network gets the luma (ITU-R 601). Other
    sizes are reached by bilinear interpolation, antialiased when shrinking.
    """
    have = images.shape[1]
    if channels is not None and channels != have:
        if have == 1:
            images = images.expand(-1, channels, -1, -1)
        elif (have, channels) == (3, 1):
            weights = _on(images.device, torch.tensor(LUMA, dtype=images.dtype))
            images = (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)
        else:
            raise UserError(f"images of {have} channels cannot be given to a network that takes {channels}")
    height, width = images.shape[-2:]
    if size is not None and (height, width) != (size, size):
        shrinks = height > size or width > size
        images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
        images = images.clamp_(0, 1)
    return images


def join(first: Split, second: Split) -> Split:
    """Both splits behind one another, under the first one's name; images of one shape."""
    ours, theirs = first.images, second.images
    if ours.shape[-3:] != theirs.shape[-3:]:
        raise UserError(f"{first.name}: {first.split} and {second.split} have images of different shapes")
    if isinstance(ours, LazyImages) and isinstance(theirs, LazyImages):
        images = ours.joined(theirs)
    elif isinstance(ours, LazyImages) or isinstance(theirs, LazyImages):
        raise UserError(f"{first.name}: only one of {first.split} and {second.split} is decoded from files as needed")
    else:
        images = torch.cat([ours, theirs])
    return replace(
        first,
        images=images,
        labels=torch.cat([first.labels, second.labels]),
        groups=torch.cat([first.groups, second.groups]),
        indices=torch.cat([first.indices, second.indices]),
    )


def check_labels(split: Split) -> Split:
    """The split itself, if it has images and each label is -1 or the number of a class."""
    if not len(split):
        raise UserError(f"{split.name}:{split.split} holds no image")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < -1 or high >= len(split.classes):
        wrong = low if low < -1 else high
        position = int((split.labels == wrong).nonzero()[0])
        known = f"0 to {len(split.classes) - 1}" if split.classes else "absent"
        raise UserError(f"{split.name}:{split.split}: image {position} has label {wrong}, but labels are {known}")
    return split
