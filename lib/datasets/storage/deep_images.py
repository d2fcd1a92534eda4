"""Images of 12 bits or less in files or arrays of 16: scaled by their type they are nearly black, which a warning says."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FULL = 1 << 16
DARK = 1 << 12  # a highest value below this is a sixteenth of white
LOOKED_AT = 8  # images of a set, evenly spread


def is_deep(image: Image.Image) -> bool:
    """Whether the values of an image, decoded or not, have 16 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def warn_if_dark(name: str, highest: int, of: str = "16-bit images") -> None:
    """A warning where the highest value of the images called `name` is so low that they are seen as black."""
    if 0 < highest < DARK:
        top = 1 << max(8, highest.bit_length())
        warnings.warn(
            f"{name}: the highest value of {of} is {highest:,} of {FULL - 1:,}, so that they are nearly black; if "
            f"{top - 1:,} stands for white, save them with their values times {FULL // top}",
            stacklevel=3,
        )


def warn_of_dark_files(name: str, count: int, image: Callable[[int], Any]) -> None:
    """That warning for `count` image files, of which a few are opened, and those of 16 bits decoded.

    image    row -> what is opened (see `crops.open_image`)
    """
    rows = np.linspace(0, count - 1, min(LOOKED_AT, count)).round().astype(int).tolist()
    found = [highest for row in rows if (highest := _highest(image(row))) is not None]
    if found:
        warn_if_dark(name, max(found), "16-bit images" if len(rows) == count else f"{len(found)} of its 16-bit images")


def _highest(file: Any) -> int | None:
    """The highest value of an image of 16 bits, None for any other and for what cannot be decoded."""
    try:
        with Image.open(file if isinstance(file, Path) else io.BytesIO(file.read())) as image:
            return int(np.asarray(image).max()) if is_deep(image) else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
