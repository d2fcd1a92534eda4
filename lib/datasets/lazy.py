"""Images that stay on disk: decoded or copied batch by batch, by the loader's workers where there are any.

Every class answers `len`, `shape` (c, h, w), `take(positions)`, `subset(positions)` and can be pickled.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lib.errors import UserError
from lib.randomness import numpy_generator


class LazyImages:
    """What the classes below have in common; `shape` is (c, h, w)."""

    shape: tuple[int, int, int]

    def __len__(self) -> int:
        raise NotImplementedError

    def take(self, positions: np.ndarray) -> torch.Tensor:
        """The images at `positions` (b,), uint8 (b, c, h, w)."""
        raise NotImplementedError

    def subset(self, positions: np.ndarray) -> "LazyImages":
        return ChosenImages(self, np.asarray(positions))


class DecodedImages(LazyImages):
    """Image files, decoded to RGB, resized and cropped to a square of `size` pixels.

    For evaluation the shorter side becomes 256/224 of the size, then the centre is kept (the ImageNet convention), which
    images that were `cropped` so before are spared; with a `crop_seed` the crop is that of `random_resized_crop` and half
    the images are mirrored, each drawn from a generator of its own, so that neither workers nor order change it.
    """

    def __init__(self, files: Sequence[Path], size: int, crop_seed: int | None = None, cropped: bool = False):
        self.files, self.crop_seed, self.cropped = list(files), crop_seed, cropped
        self.shape = (3, size, size)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        batch = np.empty((len(positions), *self.shape[1:], 3), np.uint8)
        for row, position in zip(batch, positions, strict=True):
            row[:] = self._decode(int(position))
        return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()

    def subset(self, positions: np.ndarray) -> "DecodedImages":
        files = [self.files[int(position)] for position in positions]
        return DecodedImages(files, self.shape[1], self.crop_seed, self.cropped)

    def random_crops(self, seed: int) -> "DecodedImages":
        """The same files with this epoch's random crops and mirrorings."""
        return DecodedImages(self.files, self.shape[1], seed)

    def _decode(self, position: int) -> Image.Image:
        file, size = self.files[position], self.shape[1]
        with open_image(file) as image:
            image = image.convert("RGB")
        if self.cropped:
            return image.resize((size, size), Image.Resampling.BILINEAR)
        if self.crop_seed is None:
            return centre_crop(image, size)
        return random_resized_crop(image, size, numpy_generator(self.crop_seed, "crop", position))


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
        self.parts, self.shape = list(parts), parts[0].shape
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
        self.images, self.positions, self.shape = images, positions, images.shape

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, positions: np.ndarray) -> torch.Tensor:
        return self.images.take(self.positions[positions])

    def subset(self, positions: np.ndarray) -> "ChosenImages":
        return ChosenImages(self.images, self.positions[positions])


def open_image(file: Path) -> Image.Image:
    """The decoded image; a file that is none, or is cut off, is an error that names it."""
    try:
        image = Image.open(file)
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: cannot be decoded as an image ({error}); replace or remove it") from None
    return image


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The shorter side resized to 256/224 of `size`, then the central square."""
    width, height = image.size
    short = round(size * 256 / 224)
    width, height = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def random_resized_crop(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """A crop of 8% to 100% of the area and 3:4 to 4:3 in shape, resized to a square, mirrored half the time."""
    width, height = image.size
    area = width * height * generator.uniform(0.08, 1.0, 10)
    ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3), 10))
    widths, heights = np.rint(np.sqrt(area * ratio)).astype(int), np.rint(np.sqrt(area / ratio)).astype(int)
    fits = np.flatnonzero((widths > 0) & (widths <= width) & (heights > 0) & (heights <= height))
    if len(fits):
        w, h = int(widths[fits[0]]), int(heights[fits[0]])
        left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
    else:  # an extremely long image: its central part
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    box = (left, top, left + w, top + h)
    image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else image


def batches(
    images: LazyImages, batches_of_positions: Sequence[np.ndarray], workers: int, prefetch: int, pin: bool
) -> Iterator[torch.Tensor]:
    """The images of each batch in turn, fetched by `workers` processes (0: this one)."""
    if workers <= 0:
        yield from map(images.take, batches_of_positions)
        return
    loader = torch.utils.data.DataLoader(
        _WholeBatches(images),
        batch_sampler=list(batches_of_positions),
        collate_fn=_itself,
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

    def __getitems__(self, positions: np.ndarray) -> torch.Tensor | UserError:
        try:
            return self.images.take(np.asarray(positions))
        except UserError as error:  # handed over as it is: the loader would raise it with a traceback for its text
            return error


def _itself(batch: torch.Tensor) -> torch.Tensor:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
