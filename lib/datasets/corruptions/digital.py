"""The digital ones among the CIFAR-10-C corruptions: contrast, saturation, pixels, JPEG and elastic deformation.

Source and conventions: `lib.datasets.corruptions`; images float32 (n, c, h, w) in [0, 1].
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from lib.datasets.corruptions import filters as filters
from lib.datasets.corruptions.draws import Draws


def contrast(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Values pulled towards the mean of their image and channel."""
    factor = np.float32((0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1])
    mean = images.reshape(*images.shape[:2], -1).mean(axis=2, dtype=np.float64).astype(np.float32)[..., None, None]
    return (images - mean) * factor + mean


def saturate(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """The saturation of hue, saturation, value multiplied and added to; severities 1 and 2 take colour away.

    With value V = max and chroma C = max - min, a channel is V - V S (V - channel)/C, and only S changes. Greys have no
    hue and take that of hue 0, red, so at severities 4 and 5 they turn pinkish; an image of one channel is RGB here.
    """
    multiplier, addend = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    value = images.max(axis=1, keepdims=True)
    chroma = value - images.min(axis=1, keepdims=True)
    below = np.divide(value - images, chroma, out=np.zeros_like(images), where=chroma > 0)  # in [0, 1]
    below[:, 1:] += chroma == 0
    saturation = np.divide(chroma, value, out=np.zeros_like(value), where=value > 0)
    saturation = np.clip(saturation * np.float32(multiplier) + np.float32(addend), 0, 1)
    return value - value * saturation * below


def pixelate(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Box-resized to a part of the size and back. Pillow's box has no fractional weights: pixels are in or out."""
    scale = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    height, width = images.shape[2:]
    coarse = int(width * scale), int(height * scale)
    return _through_pillow(
        images, lambda image: image.resize(coarse, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
    )


def jpeg_compression(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Written as JPEG, with halved colour resolution, and read back."""
    quality = (80, 65, 58, 50, 40)[severity - 1]

    def written_and_read(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _through_pillow(images, written_and_read)


def elastic_transform(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A random affine map, then at severities 2 to 5 a smooth random displacement, both linearly interpolated.

    The affine map takes three points around the centre to places up to `jitter` pixels away in each direction (the
    OpenCV of the time rounded coordinates to 1/32 pixel, here they are exact); the displacement is white noise under a
    Gaussian.
    """
    alpha, sigma, jitter = ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96))[
        severity - 1
    ]
    n, _, height, width = images.shape
    y, x = np.mgrid[:height, :width]
    centre, arm = np.array([width // 2, height // 2]), min(height, width) // 3
    before = centre + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + draws.uniform((3, 2), -jitter, jitter)
    inverse = np.linalg.solve(np.concatenate([after, np.ones((n, 3, 1))], axis=2), np.broadcast_to(before, (n, 3, 2)))
    at = [
        inverse[:, 0, i, None, None] * x + inverse[:, 1, i, None, None] * y + inverse[:, 2, i, None, None] for i in range(2)
    ]
    moved = _sampled(images, *at, align_corners=True)  # mirrored about the outermost pixels, as OpenCV does
    if alpha == 0:
        return moved
    shift = alpha * filters.gaussian(draws.uniform((2, height, width), -1, 1), sigma, truncate=3, border="reflect")
    return _sampled(moved, x + shift[:, 0], y + shift[:, 1], align_corners=False)  # about the edges, as SciPy does


def _sampled(images: np.ndarray, x: np.ndarray, y: np.ndarray, align_corners: bool) -> np.ndarray:
    """Images (n, c, h, w) at the pixel coordinates x, y (n, h, w), mirrored outside and linearly interpolated."""
    height, width = images.shape[2:]
    if align_corners:
        grid = np.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], axis=-1)
    else:
        grid = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=-1)
    grid = torch.from_numpy(grid.astype(np.float32))
    return torch.nn.functional.grid_sample(
        torch.from_numpy(images), grid, mode="bilinear", padding_mode="reflection", align_corners=align_corners
    ).numpy()


def _through_pillow(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Each image changed as an 8-bit Pillow image, RGB or grey."""
    levels = np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    levels = np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in levels])
    changed = changed.reshape(len(images), *images.shape[2:], -1).transpose(0, 3, 1, 2)
    return changed.astype(np.float32) / np.float32(255)
