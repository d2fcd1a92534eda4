"""JPEGs by torchvision's decoder and torch's resizing: faster than Pillow's, and a level off in few pixels."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lib.datasets.storage.image_folders import JPEG_SUFFIXES


class TensorImage:
    """A colour image (3, h, w), uint8, with what the transforms of `lib.datasets.storage.crops` ask of Pillow's.

    Resizing is bilinear and antialiased, whatever the transform asks for: it asks for that.
    """

    mode = "RGB"

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    @property
    def height(self) -> int:
        return self.pixels.shape[1]

    def resize(self, size: tuple[int, int], resample: Image.Resampling = Image.Resampling.BILINEAR) -> "TensorImage":
        """The image with another width and height."""
        if size == self.size:
            return self
        resized = F.interpolate(self.pixels[None], size[::-1], mode="bilinear", align_corners=False, antialias=True)
        return TensorImage(resized[0])

    def crop(self, box: tuple[int, int, int, int]) -> "TensorImage":
        """The part from left and top to right and bottom, inside the image."""
        left, top, right, bottom = box
        return TensorImage(self.pixels[:, top:bottom, left:right])

    def transpose(self, method: Image.Transpose) -> "TensorImage":
        """The image mirrored left to right."""
        if method != Image.Transpose.FLIP_LEFT_RIGHT:
            raise ValueError(f"{method}: only FLIP_LEFT_RIGHT")
        return TensorImage(self.pixels.flip(2))

    def __array__(self, *words: Any, **more: Any):
        return self.pixels.permute(1, 2, 0).numpy().__array__(*words, **more)


def open_jpeg(file: Any, upright: bool = False) -> TensorImage | None:
    """A JPEG file, decoded; None for what else there is, and what cannot be decoded so: Pillow then has its say."""
    if not isinstance(file, Path) or file.suffix.lower() not in JPEG_SUFFIXES:
        return None
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        data = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
        pixels = torch.as_tensor(decode_jpeg(data, ImageReadMode.UNCHANGED, apply_exif_orientation=upright))
    except (OSError, RuntimeError, ValueError):
        return None
    return TensorImage(pixels.expand(3, -1, -1)) if len(pixels) in (1, 3) else None  # four: printers' colours
