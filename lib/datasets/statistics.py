"""Mean and standard deviation of each channel, of the images as a network sees them: enlarged, padded, then normalised.

The hyperplane paper, section 4. Bilinear interpolation is linear and separable, so that the moments of enlarged images
follow from the small ones: with Y = A X B', the sum of Y is a'X b and that of its squares <A'A X B'B, X>.
"""

import torch
import torch.nn.functional as F

from lib.core.errors import UserError
from lib.datasets.split import Split

MOST_LAZY = 10_000  # images, evenly spread, that stand for a split whose images are read or decoded as needed


def channel_statistics(
    split: Split, *, size: int | None = None, padding: int = 0, per_image: bool = False, workers: int = 0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, standard deviation) per channel in [0, 1] over all pixels of the training images.

    size, padding   the square to which images are interpolated, and the black pixels around it
    per_image       the deviation is the mean over the images of each one's own (unbiased), as the paper has it, which
                    leaves out how images differ from one another
    """
    if split.lazy and len(split) > MOST_LAZY:
        split = split.subset((torch.arange(MOST_LAZY, dtype=torch.float64) * (len(split) / MOST_LAZY)).long())
    sized = size not in (None, split.height) or size not in (None, split.width)
    if not (sized or padding or per_image or split.lazy):
        mean, std = split.statistics()
    else:
        rows = _interpolation(split.height, size or split.height)
        columns = _interpolation(split.width, size or split.width)
        pixels = (len(rows) + 2 * padding) * (len(columns) + 2 * padding)
        moments = [_moments(images, rows, columns, pixels) for images in split.stored(workers=workers)]
        means, squares = (torch.cat(parts) for parts in zip(*moments, strict=True))  # (n, c) each
        variances = (squares - means.square()).clamp(min=0) * (pixels / (pixels - 1))
        total = means.mean(0)
        deviation = variances.sqrt().mean(0) if per_image else (squares.mean(0) - total.square()).clamp(min=0).sqrt()
        mean, std = tuple(total.tolist()), tuple(deviation.tolist())
    if min(std) == 0:
        raise UserError(f"{split.name}: a channel of the training images is constant, so that it cannot be normalised")
    return mean, std


def _moments(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, pixels: int):
    """Mean and mean square of every image's channels, (b, c) float64, when interpolated and padded to `pixels`."""
    values = images.double() / 255
    means = torch.einsum("h,nchw,w->nc", rows.sum(0), values, columns.sum(0)) / pixels
    spread = (rows.T @ rows) @ values @ (columns.T @ columns)
    return means, (spread * values).sum((2, 3)) / pixels


def _interpolation(length: int, size: int) -> torch.Tensor:
    """The matrix (size, length) of `split.fit`'s interpolation along one side."""
    basis = torch.eye(length, dtype=torch.float64)[None, None]  # a column per pixel
    if size == length:
        return basis[0, 0]
    return F.interpolate(basis, (size, length), mode="bilinear", align_corners=False, antialias=size < length)[0, 0]
