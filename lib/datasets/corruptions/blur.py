"""The blurs among the CIFAR-10-C corruptions: Gaussian, out of focus, through glass, of motion and of zooming.

Source and conventions: `lib.datasets.corruptions`; images float32 (n, c, h, w) in [0, 1].
"""

import numpy as np

from lib.datasets.corruptions import filters as filters
from lib.datasets.corruptions.draws import Draws


def gaussian_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A Gaussian filter of the given standard deviation in pixels."""
    return filters.gaussian(images, (0.4, 0.6, 0.7, 0.8, 1)[severity - 1])


def defocus_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """The mean over a disk, the aperture's image. A radius below 1 leaves its anti-aliasing alone to blur."""
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    return filters.correlate(images, disk(radius, sigma))


def glass_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Pixels replaced by neighbours, between two Gaussian filters.

    The original scans from the last row and column to the third, and its swap of a pixel with the one at an offset in
    {-1, 0} x {-1, 0} copies: both names are views of one array, so both pixels take the neighbour's value. A pixel then
    only ever reads one that the scan has not reached, and a whole scan is a single gather.
    """
    sigma, scans = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    n, channels, height, width = images.shape
    blurred = np.floor(filters.gaussian(images, sigma) * 255 + np.float32(1e-3)) / np.float32(255)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    for _ in range(scans):
        offsets = np.zeros((n, 2, height, width), dtype=int)
        offsets[..., 2:, 2:] = np.floor(draws.uniform((2, height - 2, width - 2), -1, 1))
        source = (rows + offsets[:, 0]) * width + columns + offsets[:, 1]
        moved = np.take_along_axis(blurred.reshape(n, channels, -1), source.reshape(n, 1, -1), axis=2)
        blurred = moved.reshape(images.shape)
    return filters.gaussian(blurred, sigma)


def motion_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A trail within 45 degrees of the horizontal."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    return filters.motion(images, radius, sigma, draws.uniform((1,), -45, 45)[:, 0])


def zoom_blur(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """The mean of the image and of its magnifications by `zoom_factors(severity)`."""
    return filters.mean_zoom(images, [1, *zoom_factors(severity)])  # the first factor is 1 as well: twice the image


def zoom_factors(severity: int) -> np.ndarray:
    """1, 1.01, ... below the stop, which rounding lets in at severities 1 and 2: 7, 12, 16, 21 and 26 factors."""
    return np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)


def disk(radius: float, sigma: float) -> np.ndarray:
    """Weights (7, 7) of the points within `radius` < 2 of the centre, softened by a 3 x 3 Gaussian; the sum is 1."""
    reach = np.arange(-3, 4)
    inside = (reach[:, None] ** 2 + reach**2 <= radius**2) * 1.0
    soft = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    soft = np.outer(soft, soft) / soft.sum() ** 2
    weights = filters.correlate((inside / inside.sum())[None, None], soft)[0, 0]
    return np.where(weights > 1e-9, weights, 0)
