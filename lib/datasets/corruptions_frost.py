"""Frost, one of the CIFAR-10-C corruptions, with drawn textures in the place of the original's photographs.

The original lays a random crop of one of five photographs of frosted glass over each image (it has six, and an index that
never reaches the last). They are not part of this suite: the textures here are a SUBSTITUTE, ice ferns drawn at random
with a fixed seed, in the photographs' range of densities. Never compare numbers on it with those on the official `frost`.

Source and conventions: `lib.datasets.corruptions`; images float32 (n, 3, h, w) in [0, 1], grey ones repeated to RGB.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

from lib.datasets import corruptions_filters as filters
from lib.datasets.corruptions_draws import Draws

TEXTURES = 5
OVERSAMPLING = 3
DARK, ICE = np.float32([52, 70, 96]) / np.float32(255), np.float32([236, 244, 255]) / np.float32(255)


def frost(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A weighted sum of the image and a crop of a texture of frost."""
    image_weight, frost_weight = ((1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45))[severity - 1]
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
    """Five drawn textures (5, 3, side, side), float32 in [0, 1], from sparse ferns on dark glass to a closed white cover."""
    generator = np.random.default_rng(2019)
    return np.stack([_texture(side, cover, generator) for cover in np.linspace(0.3, 1, TEXTURES)])


def _texture(side: int, cover: float, generator: np.random.Generator) -> np.ndarray:
    """Ice (3, side, side): rime, which is smooth noise of all scales, and above it ferns in proportion to `cover`."""
    rime = sum(scale * filters.gaussian(generator.standard_normal((1, 1, side, side)), scale, border="wrap")[0, 0]
               for scale in (1, 2, 4, 8, 16))
    rime = (rime - rime.min()) / (rime.max() - rime.min())
    canvas = Image.new("L", (side * OVERSAMPLING, side * OVERSAMPLING))
    pencil = ImageDraw.Draw(canvas)
    for _ in range(round(cover * side * side / 400)):
        start = generator.uniform(0, side, 2)
        _fern(pencil, start, generator.uniform(0, 2 * np.pi), generator.uniform(8, 40), generator.integers(90, 256), generator)
    ferns = np.asarray(canvas.resize((side, side), Image.Resampling.LANCZOS), dtype=np.float64) / 255
    ice = np.clip(cover * rime + ferns * (0.4 + 0.6 * rime), 0, 1).astype(np.float32)
    return DARK[:, None, None] + (ICE - DARK)[:, None, None] * ice


def _fern(pencil: ImageDraw.ImageDraw, start: np.ndarray, angle: float, length: float, level: int,
          generator: np.random.Generator) -> None:
    """A stem of `length` pixels with ribs on both sides at 60 degrees, the angle of ice, shortening towards the tip."""
    bend = generator.normal(0, 0.01)
    at, spacing = start, 2.0
    for travelled in np.arange(0, length, spacing):
        heading = angle + bend * travelled
        tip = at + spacing * np.array([np.cos(heading), np.sin(heading)])
        _line(pencil, at, tip, level)
        rib = 0.4 * (length - travelled) * generator.uniform(0.5, 1)
        for side in (-1, 1):
            out = heading + side * np.pi / 3
            _line(pencil, tip, tip + rib * np.array([np.cos(out), np.sin(out)]), round(0.8 * level))
        at = tip


def _line(pencil: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, level: int) -> None:
    pencil.line([*(OVERSAMPLING * start), *(OVERSAMPLING * end)], fill=int(level), width=2)
