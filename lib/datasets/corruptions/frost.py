"""Frost, one of the CIFAR-10-C corruptions, with drawn textures in the place of the original's photographs.

The original lays a random crop of one of five photographs of frosted glass over each image (it has six, and an index
that never reaches the last). They are not part of this suite: the textures here are a SUBSTITUTE, ice ferns drawn at
random with a fixed seed, from sparse to closed. Never compare numbers on them with numbers on the official `frost`.

Source and conventions: `lib.datasets.corruptions`; images float32 (n, 3, h, w) in [0, 1], grey ones repeated to RGB.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

from lib.datasets.corruptions import filters as filters
from lib.datasets.corruptions.draws import Draws

TEXTURES = 5
OVERSAMPLING = 3
DARK, ICE = np.array([[38, 52, 74], [236, 244, 255]], np.float32) / np.float32(255)


def frost(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A weighted sum of the image and a crop of a texture of frost."""
    image_weight, frost_weight = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    height, width = images.shape[2:]
    ice = textures(max(256, 2 * max(height, width)))
    side = ice.shape[-1]
    which, top, left = np.floor(draws.uniform((3,)) * [TEXTURES, side - height, side - width]).astype(int).T
    rows = (top[:, None] + np.arange(height))[:, None, :, None]
    columns = (left[:, None] + np.arange(width))[:, None, None, :]
    crops = ice[which[:, None, None, None], np.arange(3)[None, :, None, None], rows, columns]
    return np.float32(image_weight) * images + np.float32(frost_weight) * crops


@functools.lru_cache(maxsize=2)
def textures(side: int) -> np.ndarray:
    """Five drawn textures (5, 3, side, side), float32 in [0, 1], from ferns on dark glass to a nearly closed cover."""
    generator = np.random.default_rng(2019)
    return np.stack([_texture(side, cover, generator) for cover in np.linspace(0.4, 1, TEXTURES)])


def _texture(side: int, cover: float, generator: np.random.Generator) -> np.ndarray:
    """Ice (3, side, side): rime, which is smooth noise of all scales, and over it ferns in proportion to `cover`."""
    rime = sum(
        scale * filters.gaussian(generator.standard_normal((1, 1, side, side)), scale, border="wrap")[0, 0]
        for scale in (1, 2, 4, 8, 16)
    )
    rime = np.clip(0.5 + rime / (4 * rime.std()), 0, 1)
    canvas = Image.new("L", (side * OVERSAMPLING, side * OVERSAMPLING))
    pencil = ImageDraw.Draw(canvas)
    for _ in range(round(cover * side * side / 120)):
        _fern(pencil, generator.uniform(0, side, 2), generator.uniform(0, 2 * np.pi), generator.gamma(2, 9), generator)
    ferns = np.asarray(canvas.resize((side, side), Image.Resampling.LANCZOS), dtype=np.float64) / 255
    ice = np.clip(0.8 * cover * rime + ferns * (0.3 + 0.7 * rime), 0, 1).astype(np.float32)
    return DARK[:, None, None] + (ICE - DARK)[:, None, None] * ice


def _fern(
    pencil: ImageDraw.ImageDraw, start: np.ndarray, angle: float, length: float, generator: np.random.Generator
) -> None:
    """A stem of `length` pixels with ribs on both sides at 60 degrees, the angle of ice, shorter towards the tip."""
    level, bend, spacing = generator.uniform(90, 255), generator.normal(0, 0.015), 3.0
    at = start
    for travelled in np.arange(0, length, spacing):
        heading = angle + bend * travelled
        tip = at + spacing * np.array([np.cos(heading), np.sin(heading)])
        _line(pencil, at, tip, level, 4)
        for side in (-1, 1):
            rib, out = 0.4 * (length - travelled) * generator.uniform(0.2, 1), heading + side * np.pi / 3
            _line(pencil, tip, tip + rib * np.array([np.cos(out), np.sin(out)]), level * generator.uniform(0.5, 1), 3)
        at = tip


def _line(pencil: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, level: float, width: int) -> None:
    """A line between points in pixels; `width` in parts of a pixel, OVERSAMPLING to one."""
    pencil.line([*(OVERSAMPLING * start), *(OVERSAMPLING * end)], fill=int(level), width=width)
