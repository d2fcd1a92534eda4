"""From an image file to a square of pixels: decoding, the transforms for evaluation, random crops for training.

The transforms are those of the intermediate-layers paper, sections 3.2 and 3.3. A transform takes a decoded image and the
side of the square; its name in `catalogue.TRANSFORMS` may be part of a data set's name.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lib.core.errors import UserError
from lib.core.text import readable
from lib.datasets.storage.deep_images import is_deep

MARGIN = 256 / 224  # side before the crop, over the side that is kept


def open_image(file: Any, upright: bool = False) -> Image.Image:
    """The decoded image in 8 bits a channel, grey ("L") or colour ("RGB"), as bright as its type says.

    16 bits are scaled to 8, floats are in [0, 1]. An image whose colour is one and the same is drawn on white by its alpha,
    with a warning; else alpha is left out. `upright`: turned as the EXIF data say. Raises a `UserError` that names the file
    for one that is no image, is cut off, or has values whose range nothing says.

    file    a path, or what has `read()` and a name as text (see `packed`)
    """
    name = readable(str(file))
    try:
        image = Image.open(file if isinstance(file, Path) else io.BytesIO(file.read()))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: cannot be decoded as an image ({error}); replace or remove it") from None
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image, name)
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        *colours, alpha = np.ptp(np.asarray(layers), axis=(0, 1))
        if alpha and not any(colours):
            warnings.warn("images whose only content is their alpha channel are drawn on white", stacklevel=2)
            return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in colour; one that is, as it is and not copied."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """A grey image of 16 bits, or of floats in [0, 1], in 8 bits, rounded."""
    values = np.asarray(image)
    if is_deep(image):
        levels = values.astype(np.float64) / 257
    else:
        low, high = float(values.min()), float(values.max())
        if image.mode == "I" or not 0 <= low <= high <= 1:
            values_of = f"{'32-bit integers' if image.mode == 'I' else 'floats'} from {low:g} to {high:g}"
            raise UserError(f"{name}: {values_of}; images have 8 or 16 bits, or floats in [0, 1]: convert it")
        levels = values.astype(np.float64) * 255
    return Image.fromarray(np.rint(levels).astype(np.uint8))


def shorter(image: Image.Image, size: int) -> Image.Image:
    """The shorter side resized to 256/224 of `size`, then the central square: ImageNet's, and the paper's notebooks'."""
    width, height = image.size
    short = round(size * MARGIN)
    shape = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    return _central(image.resize(shape, Image.Resampling.BILINEAR), size)


def squash(image: Image.Image, size: int) -> Image.Image:
    """Both sides resized to 256/224 of `size`, whatever their ratio, then the central square: group-DRO's for Waterbirds.

    Deep feature reweighting (DFR), whose checkpoints the paper probes, takes it for CelebA too.
    """
    side = round(size * MARGIN)
    return _central(image.resize((side, side), Image.Resampling.BILINEAR), size)


def square(image: Image.Image, size: int) -> Image.Image:
    """The largest central square, resized: group-DRO's for CelebA, whose images are 178 x 218."""
    return _central(image, min(image.size)).resize((size, size), Image.Resampling.BILINEAR)


def _central(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def random_resized_crop(image: Image.Image, size: int, generator: np.random.Generator, least: float) -> Image.Image:
    """A crop of `least` to all of the area and 3:4 to 4:3 in shape, resized to a square, mirrored half the time."""
    width, height = image.size
    area = width * height * generator.uniform(least, 1.0, 10)
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
