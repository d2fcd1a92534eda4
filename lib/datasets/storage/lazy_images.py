"""Images that stay on disk: decoded or copied batch by batch, by the loader's workers where there are any.

Every class answers `len`, `shape` (c, h, w), `take(positions)`, `subset(positions)` and can be pickled.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.core.errors import UserError
from lib.core.randomness import numpy_generator
from lib.core.registry import resolve
from lib.datasets.catalogue import TRANSFORMS
from lib.datasets.storage.crops import as_rgb, open_image, random_resized_crop
from lib.datasets.storage.tensor_images import open_jpeg


class LazyImages:
    """What the classes below have in common; `shape` is (c, h, w)."""

    shape: tuple[int, int, int]
    transform = ""  # how image files became squares, a name in TRANSFORMS

    def __len__(self) -> int:
        raise NotImplementedError

    def take(self, positions: np.ndarray) -> torch.Tensor:
        """The images at `positions` (b,), uint8 (b, c, h, w)."""
        raise NotImplementedError

    def subset(self, positions: np.ndarray) -> "LazyImages":
        return ChosenImages(self, np.asarray(positions))

    def joined(self, other: "LazyImages") -> "LazyImages":
        """These images, then the others."""
        return JoinedImages([self, other])


class DecodedImages(LazyImages):
    """Image files, decoded to RGB, resized and cropped to a square of `size` pixels.

    For evaluation as `transform` has it, a name in TRANSFORMS; with a `crop_seed` the crop is that of
    `random_resized_crop`, of at least the share `least` of the area, each drawn from a generator of its own, so that
    neither workers nor order change it. `upright`: turned as their EXIF data say. `decoder`: a name in `catalogue.DECODERS`.
    """

    decoder = "pil"  # of the instance only where it is another: what is kept of such images is found by their attributes

    def __init__(self, files: Sequence[Path], size: int, transform: str = "shorter", upright: bool = False):
        self.files, self.transform, self.upright = list(files), transform, upright
        self.shape = (3, size, size)
        self.crop_seed: int | None = None
        self.least = 0.0

    def __len__(self) -> int:
        return len(self.files)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        batch = np.empty((len(positions), *self.shape[1:], 3), np.uint8)
        for row, position in zip(batch, positions, strict=True):
            row[:] = self._decode(int(position))
        return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()

    def subset(self, positions: np.ndarray) -> "DecodedImages":
        return self._of([self.files[int(position)] for position in positions])

    def joined(self, other: LazyImages) -> LazyImages:
        """These images, then the others, resized alike."""
        return self._of(self.files + other.files) if isinstance(other, DecodedImages) else super().joined(other)

    def random_crops(self, seed: int, least: float) -> "DecodedImages":
        """The same files with this epoch's random crops and mirrorings."""
        cropped = self._of(self.files)
        cropped.crop_seed, cropped.least = seed, least
        return cropped

    def _of(self, files: list[Path]) -> "DecodedImages":
        alike = DecodedImages(files, self.shape[1], self.transform, self.upright)
        alike.crop_seed, alike.least = self.crop_seed, self.least
        return alike.decoded_by(self.decoder)

    def decoded_by(self, decoder: str) -> "DecodedImages":
        """These images, from now on by the decoder of this name."""
        if decoder != self.decoder:
            self.decoder = decoder
        return self

    def _decode(self, position: int) -> Any:
        """The square, as an image of Pillow's or a `TensorImage`."""
        file, size = self.files[position], self.shape[1]
        image: Any = open_jpeg(file, self.upright) if self.decoder == "torchvision" else None
        if image is None:
            with open_image(file, self.upright) as opened:
                image = as_rgb(opened)
        if self.crop_seed is None:
            return resolve(TRANSFORMS[self.transform])(image, size)
        return random_resized_crop(image, size, numpy_generator(self.crop_seed, "crop", position), self.least)


class MappedImages(LazyImages):
    """A memory-mapped array of colour images (n, h, w, 3), uint8."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.shape = (array.shape[3], *array.shape[1:3])

    def __len__(self) -> int:
        return len(self.array)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.array[positions].transpose(0, 3, 1, 2)))


class JoinedImages(LazyImages):
    """Several sources behind one another."""

    def __init__(self, parts: Sequence[LazyImages]):
        self.parts, self.shape, self.transform = list(parts), parts[0].shape, parts[0].transform
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def take(self, positions: np.ndarray) -> torch.Tensor:
        positions = np.asarray(positions)
        source = np.searchsorted(self.ends, positions, side="right")
        images = torch.empty((len(positions), *self.shape), dtype=torch.uint8)
        for number in np.unique(source):
            rows = np.flatnonzero(source == number)
            start = self.ends[number] - len(self.parts[number])
            images[torch.from_numpy(rows)] = self.parts[number].take(positions[rows] - start)
        return images


class ChosenImages(LazyImages):
    """The images of another source at the given positions."""

    def __init__(self, images: LazyImages, positions: np.ndarray):
        self.images, self.positions, self.shape, self.transform = images, positions, images.shape, images.transform

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        return self.images.take(self.positions[positions])

    def subset(self, positions: np.ndarray) -> "ChosenImages":
        return ChosenImages(self.images, self.positions[positions])


def batches(
    images: LazyImages, batches_of_positions: Sequence[np.ndarray], workers: int, prefetch: int, pin: bool
) -> Iterator[torch.Tensor]:
    """The images of each batch in turn, fetched by `workers` processes (0: this one)."""
    if workers <= 0:
        yield from map(images.take, batches_of_positions)
        return
    loader = torch.utils.data.DataLoader(
        _WholeBatches(images),
        batch_sampler=[positions.tolist() for positions in batches_of_positions],
        collate_fn=_only,
        num_workers=workers,
        prefetch_factor=prefetch,
        pin_memory=pin,
        worker_init_fn=_one_thread,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _WholeBatches(torch.utils.data.Dataset):
    """What the loader wants: one call per batch rather than per image."""

    def __init__(self, images: LazyImages):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, positions: list[int]) -> list[torch.Tensor | UserError]:
        try:
            return [self.images.take(np.asarray(positions))]
        except UserError as error:  # handed over as it is: the loader would raise it with a traceback for its text
            return [error]


def _only(batches: list[torch.Tensor | UserError]) -> torch.Tensor | UserError:
    (batch,) = batches
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
