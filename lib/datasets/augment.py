"""Training augmentation on whole batches, on the device the images are on.

Each function takes images float (b, c, h, w) in [0, 1] and a generator on the same device, and returns images of the
same shape. Source: the stitching paper, section 6.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from lib.core.errors import UsageError
from lib.core.randomness import generator, stream
from lib.core.registry import near, resolve
from lib.datasets.catalogue import AUGMENTATIONS
from lib.datasets.split import Split
from lib.datasets.storage.lazy_images import DecodedImages

PADDING = 4  # pixels that a window may leave the image by
LEAST_AREA = {"imagenet": 0.08, "group-dro": 0.7}  # share of the image that a random crop keeps


def for_epoch(
    split: Split, name: str, seed: int, *key: str | int, device: str | torch.device = "cpu"
) -> tuple[Split, Callable[[torch.Tensor, int], torch.Tensor] | None]:
    """What one epoch iterates over: the split, and the `augment` to give to its `batches`.

    `key` names the epoch (and the rank); each step draws from a stream of its own, so that an epoch can be resumed at
    any step. "imagenet" and "group-dro" crop images that are decoded as needed while decoding, at full resolution.
    """
    if name not in AUGMENTATIONS:
        raise UsageError(f"--augmentation {name}: no such augmentation; {near(name, AUGMENTATIONS)}")
    if name == "none":
        return split, None
    if name in LEAST_AREA and isinstance(split.images, DecodedImages):
        return replace(split, images=split.images.random_crops(stream(seed, "augmentation", *key), LEAST_AREA[name])), None
    function = resolve(AUGMENTATIONS[name])

    def augment(images: torch.Tensor, step: int) -> torch.Tensor:
        return function(images, generator(seed, "augmentation", *key, step, device=device))

    return split, augment


def none(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The images themselves."""
    return images


def flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random window of the original size in the image padded with 4 black pixels on each side."""
    top, left = _offsets(images, generator)
    return _windows(images, top, left[:, None] + torch.arange(images.shape[3], device=images.device))


def crop_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """`crop`, and half of the images mirrored: the usual augmentation of CIFAR."""
    top, left = _offsets(images, generator)
    columns = torch.arange(images.shape[3], device=images.device).expand(len(images), -1)
    mirrored = torch.rand(len(images), 1, device=images.device, generator=generator) < 0.5
    return _windows(images, top, left[:, None] + torch.where(mirrored, columns.flip(1), columns))


def affine(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotation and horizontal shear within 5 degrees and scaling by 0.9 to 1.1, edges continued; bilinear."""
    angle, shear, scale = torch.rand(3, len(images), device=images.device, generator=generator).unbind()
    angle, shear, scale = ((2 * angle - 1) * math.radians(5), (2 * shear - 1) * math.radians(5), 0.9 + 0.2 * scale)
    rows = torch.stack(
        [
            angle.cos(),
            angle.sin() + shear.tan(),
            torch.zeros_like(angle),
            -angle.sin(),
            angle.cos(),
            torch.zeros_like(angle),
        ],
        1,
    )
    return _warp(images, rows.view(-1, 2, 3) / scale.view(-1, 1, 1))


def rotate_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotation within 15 degrees, black where nothing was, as the stitching paper's large CIFARs; bilinear; then `flip`."""
    angle = (2 * torch.rand(len(images), device=images.device, generator=generator) - 1) * math.radians(15)
    zero = torch.zeros_like(angle)
    rows = torch.stack([angle.cos(), angle.sin(), zero, -angle.sin(), angle.cos(), zero], 1)
    return flip(_warp(images, rows.view(-1, 2, 3), "zeros"), generator)


def resized_crop_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A window of 8% to 100% of the area, 3:4 to 4:3 in shape, stretched to the full size; then `flip`."""
    return _resized_crop_flip(images, generator, LEAST_AREA["imagenet"])


def large_crop_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same with windows of at least 70% of the area, as group-DRO and DFR train (intermediate-layers paper, 3.2)."""
    return _resized_crop_flip(images, generator, LEAST_AREA["group-dro"])


def _resized_crop_flip(images: torch.Tensor, generator: torch.Generator, least: float) -> torch.Tensor:
    b = len(images)
    area, shape, x, y = torch.rand(4, b, device=images.device, generator=generator).unbind()
    area, ratio = least + (1 - least) * area, torch.exp((2 * shape - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    zero = torch.zeros_like(area)
    # Output coordinates run over [-1, 1]; a window of relative width s may be centred within +-(1 - s).
    rows = torch.stack([width, zero, (2 * x - 1) * (1 - width), zero, height, (2 * y - 1) * (1 - height)], 1)
    return flip(_warp(images, rows.view(-1, 2, 3)), generator)


def _offsets(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(2 * PADDING + 1, (2, len(images)), device=images.device, generator=generator)


def _windows(images: torch.Tensor, top: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Of each padded image the rows top, ..., top+h-1 and the columns `columns` (b, w), in one gather."""
    b, c, h, w = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    rows = top[:, None] + torch.arange(h, device=images.device)
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    return padded.flatten(2).gather(2, pixels.view(b, 1, h * w).expand(-1, c, -1)).view(b, c, h, w)


def _warp(images: torch.Tensor, rows: torch.Tensor, outside: str = "border") -> torch.Tensor:
    """Each image resampled at the affine image of its own grid; rows (b, 2, 3); `outside` as `grid_sample` pads."""
    grid = F.affine_grid(rows.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)
