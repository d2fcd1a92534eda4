"""Linear image filters on batches: a small kernel, a Gaussian, a line at an angle of each image's own, a zoom.

They follow, border rule by border rule, the OpenCV, scikit-image, ImageMagick and SciPy functions that the CIFAR-10-C
corruptions were made with. Images are float32 (n, c, h, w); an image's result does not depend on the batch.
"""

import functools
from collections.abc import Iterable
from typing import Literal

import numpy as np
import scipy.ndimage
import scipy.sparse


def correlate(images: np.ndarray, kernel: np.ndarray, border: Literal["reflect", "edge"] = "reflect") -> np.ndarray:
    """Sum over kernel (kh, kw) of weights times neighbours, centred; (n, c, h, w) of the images' type.

    The border "reflect" mirrors about the outermost pixels (OpenCV's reflect-101), "edge" repeats them.
    """
    top, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    height, width = images.shape[-2:]
    padded = np.pad(images, ((0, 0), (0, 0), (top, top), (left, left)), mode=border)
    filtered = np.zeros_like(images)
    for (y, x), weight in np.ndenumerate(kernel.astype(images.dtype)):
        if weight:
            filtered += weight * padded[..., y : y + height, x : x + width]
    return filtered


def gaussian(images: np.ndarray, sigma: float, truncate: float = 4.0, border: str = "nearest") -> np.ndarray:
    """`skimage.filters.gaussian` over the last two axes; `sigma` in pixels, cut off after `truncate` of them."""
    return scipy.ndimage.gaussian_filter(images, sigma, axes=(-2, -1), truncate=truncate, mode=border)


def motion(images: np.ndarray, radius: int, sigma: float, angles: np.ndarray) -> np.ndarray:
    """ImageMagick's motion blur, rounded to 8 bits: a one-sided Gaussian of 2 radius + 1 taps along a line.

    angles (n,) in degrees, clockwise from the right: every pixel becomes the mean of those in that direction, the edge
    pixels standing for what lies outside.
    """
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    weights = weights[weights > 1e-7]  # what is left out is far below an 8-bit level
    height, width = images.shape[-2:]
    # Sorted by angle, images that share a tap's offset lie side by side and are shifted together.
    order = np.argsort(angles, kind="stable")
    radians = np.deg2rad(angles[order])
    reach = len(weights) - 1
    padded = np.pad(images[order], ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    blurred = np.zeros_like(images)
    for tap, weight in enumerate(weights):
        down = np.ceil(tap * np.sin(radians) - 0.5).astype(int)
        right = np.ceil(tap * np.cos(radians) - 0.5).astype(int)
        starts = np.flatnonzero(np.diff(down, prepend=reach + 1) | np.diff(right, prepend=reach + 1))
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            top, left = reach + down[start], reach + right[start]
            blurred[start:stop] += weight * padded[start:stop, :, top : top + height, left : left + width]
    result = np.empty_like(blurred)
    result[order] = np.floor(blurred * 255 + np.float32(0.5)) / np.float32(255)
    return result


def mean_zoom(images: np.ndarray, factors: Iterable[float]) -> np.ndarray:
    """The mean of the images magnified by each of `factors` (>= 1) about their centre, linearly interpolated.

    A mean of zooms is one linear map of the pixels with a dozen weights for each, applied as a sparse matrix.
    """
    height, width = images.shape[-2:]
    matrix = _mean_zoom_matrix(height, width, tuple(float(factor) for factor in factors))
    pixels = images.reshape(-1, height * width).T
    return np.ascontiguousarray((matrix @ pixels).T).reshape(images.shape)


@functools.lru_cache(maxsize=16)
def _mean_zoom_matrix(height: int, width: int, factors: tuple[float, ...]) -> scipy.sparse.csr_array:
    total = sum(
        scipy.sparse.kron(_zoom_matrix(height, factor), _zoom_matrix(width, factor), format="csr") for factor in factors
    )
    return (total / len(factors)).astype(np.float32)


def _zoom_matrix(size: int, factor: float) -> scipy.sparse.csr_array:
    """(size, size) weights of `scipy.ndimage.zoom`, order 1, along one axis of a centre crop; the result is cut."""
    crop = int(np.ceil(size / factor))
    zoomed = round(crop * factor)
    trim = (zoomed - size) // 2
    at = (np.arange(size) + trim) * (crop - 1) / (zoomed - 1)
    low = np.minimum(at.astype(int), crop - 2)
    rows, first = np.arange(size), (size - crop) // 2
    weights, columns = np.stack([1 - (at - low), at - low]), np.stack([low, low + 1]) + first
    return scipy.sparse.csr_array((weights.ravel(), (np.tile(rows, 2), columns.ravel())), shape=(size, size))
