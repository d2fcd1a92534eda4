"""The weather among the CIFAR-10-C corruptions, but for frost: snow, fog and brightness.

Source and conventions: `lib.datasets.corruptions`; images float32 (n, c, h, w) in [0, 1].
"""

import numpy as np

from lib.datasets.corruptions import filters as filters
from lib.datasets.corruptions.draws import Draws


def snow(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A whitened image with flakes: noise magnified, thresholded and blurred along its fall, added twice.

    The second time it is turned by 180 degrees, as in the original. The layer passes through 8 bits on its way.
    """
    mean, deviation, zoom, threshold, radius, sigma, blend = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    layer = filters.mean_zoom(draws.normal((1, *images.shape[2:]), mean, deviation), [zoom])
    layer = np.where(layer < threshold, 0, np.clip(layer, 0, 1))
    layer = np.floor(layer * 255) / np.float32(255)
    layer = filters.motion(layer, radius, sigma, draws.uniform((1,), -135, -45)[:, 0])
    whitened = np.maximum(images, grey(images) * np.float32(1.5) + np.float32(0.5))
    return np.float32(blend) * images + np.float32(1 - blend) * whitened + layer + layer[..., ::-1, ::-1]


def fog(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A fractal cloud added, and the sum scaled back to the range of the image."""
    strength, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    height, width = images.shape[2:]
    cloud = plasma(1 << (max(height, width) - 1).bit_length(), decay, draws)[:, None, :height, :width]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    # A black image has no range to scale back to and stays black.
    return (images + np.float32(strength) * cloud) * (brightest / (brightest + np.float32(strength)))


def brightness(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """An addition to the value of hue, saturation, value: colours are scaled until the largest has grown by `more`."""
    more = np.float32((0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1])
    value = images.max(axis=1, keepdims=True)
    brighter = np.minimum(value + more, 1)
    scale = np.divide(brighter, value, out=np.zeros_like(value), where=value > 0)
    return np.where(value > 0, images * scale, brighter)


def plasma(side: int, decay: float, draws: Draws) -> np.ndarray:
    """Clouds (n, side, side), float32 in [0, 1]: the diamond-square fractal on a torus, `side` a power of two.

    Every midpoint is the mean of its four neighbours and a uniform error, whose half-width shrinks by `decay` from each
    step to the next; the original multiplies its amplitude in twice, so it shrinks by decay squared.
    """
    errors = draws.uniform((side * side - 1,), -1, 1)
    cloud = np.zeros((len(errors), side, side))
    amplitude, step, used = 100.0, side, 0

    def midpoints(neighbours):
        nonlocal used
        count = neighbours[0].size
        error = errors[:, used : used + count].reshape(neighbours.shape)
        used += count
        return neighbours / 4 + amplitude**2 * error

    while step >= 2:
        half = step // 2
        corners = cloud[:, ::step, ::step]
        above = corners + np.roll(corners, -1, axis=2)
        centres = cloud[:, half::step, half::step] = midpoints(above + np.roll(above, -1, axis=1))
        cloud[:, ::step, half::step] = midpoints(above + centres + np.roll(centres, 1, axis=1))
        beside = corners + np.roll(corners, -1, axis=1)
        cloud[:, half::step, ::step] = midpoints(beside + centres + np.roll(centres, 1, axis=2))
        step, amplitude = half, amplitude / decay
    cloud -= cloud.min(axis=(1, 2), keepdims=True)
    return (cloud / cloud.max(axis=(1, 2), keepdims=True)).astype(np.float32)


def grey(images: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma (n, 1, h, w); of a grey image, itself."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, i : i + 1] for i in range(3))
    return np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
