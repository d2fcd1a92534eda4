"""Spatter, one of the CIFAR-10-C corruptions: drops of water at severities 1 to 3, of mud at 4 and 5.

The original makes the water's relief with OpenCV: the distances to the outlines that Canny's detector finds, equalised
and embossed, all in 8 bits. Those functions are written out here for batches, in integers, from their definitions.
Differences: distances are sums of OpenCV's 5 x 5 chamfer moves in fixed point, and builds of OpenCV that add them up in
floating point truncate another way in up to 0.6 % of the relief's pixels; an image without a single drop is left as it
is, where the original divides by zero; levels beyond 255 stay there, where the original wraps around.

Source and conventions: `lib.datasets.corruptions`; images float32 (n, 3, h, w) in [0, 1], grey ones repeated to RGB.
"""

import numpy as np
import scipy.ndimage

from lib.datasets.corruptions import filters as filters
from lib.datasets.corruptions.draws import Draws

WATER = np.array([175, 238, 238], np.float32).reshape(1, 3, 1, 1) / np.float32(255)  # pale turquoise
MUD = np.array([63, 42, 20], np.float32).reshape(1, 3, 1, 1) / np.float32(255)
BOX = np.ones((3, 3))
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
FARTHEST = 20
STRAIGHT, DIAGONAL, KNIGHT = (round(length * 65536) for length in (1, 1.4, 2.1969))
# The moves that lead down the image: from how many rows above, how many columns to the right, and how long.
DOWN = (
    (1, 0, STRAIGHT),
    (1, -1, DIAGONAL),
    (1, 1, DIAGONAL),
    (2, -1, KNIGHT),
    (2, 1, KNIGHT),
    (1, -2, KNIGHT),
    (1, 2, KNIGHT),
)


def spatter(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Drops where smoothed noise exceeds a threshold. Water brightens along its relief, mud covers.

    The original names its channels blue, green, red throughout and never swaps them, so on its RGB images the colours
    come out as meant.
    """
    mean, deviation, sigma, threshold, strength, mud = (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    )[severity - 1]
    liquid = filters.gaussian(draws.normal((1, *images.shape[2:]), mean, deviation), sigma)
    if mud:
        cover = filters.gaussian((liquid > threshold).astype(np.float32), strength)
        cover = np.where(cover < 0.8, 0, cover)
        return images * (1 - cover) + MUD * cover
    liquid = np.where(liquid < threshold, 0, np.minimum(liquid * 255, 255)).astype(np.int32)
    drops = (liquid * relief(liquid)).astype(np.float32)
    highest = drops.max(axis=(2, 3), keepdims=True)
    drops *= np.divide(np.float32(strength), highest, out=np.zeros_like(highest), where=highest > 0)
    return images + drops * WATER


def relief(levels: np.ndarray) -> np.ndarray:
    """The relief (n, 1, h, w) in 0 to 255 of drops: their outlines' distance, equalised, lit from the upper left."""
    distance = np.minimum(chamfer_distance(canny(levels, 50, 150)), FARTHEST << 16)
    distance = filters.correlate(distance, BOX) // (9 << 16)
    embossed = np.clip(filters.correlate(equalized(distance), EMBOSS), 0, 255)
    return (filters.correlate(embossed, BOX) + 4) // 9  # rounded


def canny(levels: np.ndarray, low: int, high: int) -> np.ndarray:
    """Edges (n, 1, h, w), bool, of integer levels (n, 1, h, w): Canny 1986 as OpenCV has it.

    3 x 3 Sobel gradients, |dx| + |dy| as their size, maxima along the gradient's direction, which is horizontal,
    vertical or diagonal; those above `low` are edges if connected to one above `high`.
    """
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    dx, dy = (filters.correlate(levels.astype(np.int64), kernel, border="edge") for kernel in (sobel, sobel.T))
    size = np.abs(dx) + np.abs(dy)
    height, width = levels.shape[2:]
    padded = np.pad(size, ((0, 0), (0, 0), (1, 1), (1, 1)))

    def beside(down, right):
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    # tan 22.5 degrees in units of 2^-15; tan 67.5 is 2 more
    shallow = np.abs(dx) * 13573
    horizontal = np.abs(dy) << 15 < shallow
    vertical = np.abs(dy) << 15 > shallow + (np.abs(dx) << 16)
    falling = (dx < 0) == (dy < 0)
    largest = np.where(
        horizontal,
        (size > beside(0, -1)) & (size >= beside(0, 1)),
        np.where(
            vertical,
            (size > beside(-1, 0)) & (size >= beside(1, 0)),
            np.where(
                falling, (size > beside(-1, -1)) & (size > beside(1, 1)), (size > beside(-1, 1)) & (size > beside(1, -1))
            ),
        ),
    )
    candidates = largest & (size > low)
    labels, count = scipy.ndimage.label(candidates, structure=np.ones((1, 1, 3, 3)) * _SAME_IMAGE)
    strong = np.zeros(count + 1, dtype=bool)
    strong[labels[candidates & (size > high)]] = True
    return strong[labels]


# Neighbours in an array (n, 1, h, w) that lie in the same image: none across the first two axes.
_SAME_IMAGE = np.array([0, 1, 0]).reshape(3, 1, 1, 1) * np.array([0, 1, 0]).reshape(1, 3, 1, 1)


def chamfer_distance(marked: np.ndarray) -> np.ndarray:
    """Length (n, 1, h, w), in pixels * 2^16, of the shortest path of 5 x 5 chamfer moves to a marked pixel.

    Borgefors 1986, "Distance transformations in digital images": one pass down the image, one up. Within a row a path
    only goes right, so its part of the minimum is a running one.
    """
    far = np.int64(1) << 40
    distance = np.where(marked, 0, far)
    for _ in range(2):
        distance = _downwards(distance)[..., ::-1, ::-1]
    return np.ascontiguousarray(distance)


def _downwards(distance: np.ndarray) -> np.ndarray:
    height, width = distance.shape[2:]
    padded = np.pad(distance, ((0, 0), (0, 0), (2, 0), (2, 2)), constant_values=np.int64(1) << 40)
    across = STRAIGHT * np.arange(width)
    for y in range(2, height + 2):
        nearest = padded[..., y, 2 : 2 + width]
        for up, right, length in DOWN:
            nearest = np.minimum(nearest, padded[..., y - up, 2 + right : 2 + right + width] + length)
        padded[..., y, 2 : 2 + width] = np.minimum.accumulate(nearest - across, axis=-1) + across
    return padded[..., 2:, 2 : 2 + width]


def equalized(levels: np.ndarray) -> np.ndarray:
    """Levels (n, 1, h, w) in 0 to FARTHEST, spread over 0 to 255 by their cumulative histogram; the lowest is 0."""
    n, _, height, width = levels.shape
    bins = FARTHEST + 1
    flat = levels.reshape(n, -1)
    counts = np.bincount((flat + bins * np.arange(n)[:, None]).ravel(), minlength=n * bins).reshape(n, bins)
    lowest = np.take_along_axis(counts, (counts > 0).argmax(axis=1)[:, None], axis=1)
    rest = height * width - lowest
    scale = np.float32(255) / np.maximum(rest, 1).astype(np.float32)
    table = np.rint((counts.cumsum(axis=1) - lowest).astype(np.float32) * scale).astype(np.int64)
    table = np.where(rest > 0, np.maximum(table, 0), np.arange(bins))  # one level only: nothing to spread
    return np.take_along_axis(table, flat, axis=1).reshape(levels.shape)
