"""What stitches are by chance: direct matching to the end network's activations for other images.

A draw permutes the images of the end network, the same way for all pairs of layers and ranks, and matches anew: with few
images and many channels least squares brings ||ZV - Y||^2 / ||Y||^2 far down whatever the source is. What a source explains
is the squared norm of its whitened products with the target, so that no draw solves anything; whitened directions are of one
length, so that single precision does.

A stitch trained by the task loss would have to be trained anew in every draw. Its answers to test images, which it has not
learnt from, are held against their labels in another order instead (`lib.metrics.answer_null`): a weaker question, of being
right at all.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from lib.metrics import image_permutations
from lib.metrics.image_permutations import Permutations
from lib.metrics.permutation_null import Null, calibrate
from lib.stitching.least_squares import CUTOFF


def explained(
    x: Tensor, y: Tensor, bases: Sequence[Tensor | None], parts: Sequence[Permutations]
) -> tuple[np.ndarray, np.ndarray]:
    """What the best V and b explain of y[order[i]] = x[i] V + b, for every order and basis, and what remains of nothing.

    x (n, p, c), y (n, p, d): p rows of n images. A basis (c, r) has the directions of x that V may use; None for all. The
    first, (orders, bases), is in units of the squares of y around its mean; the second, (bases,), are these over all squares
    of y, so that ||x V + b - y||^2 / ||y||^2 is (1 - first) second.
    """
    x, y = x.double(), y.double()
    least, squares = torch.finfo(torch.float64).tiny, y.square().sum()
    x, y = x - x.mean((0, 1)), y - y.mean((0, 1))
    spread, covariance, columns = y.square().sum(), x.flatten(0, 1).T @ x.flatten(0, 1), []
    for basis in bases:
        values, vectors = torch.linalg.eigh(covariance if basis is None else basis.T @ covariance @ basis)
        kept = values > CUTOFF * values[-1].clamp_min(0)
        white = vectors[:, kept] / values[kept].sqrt()
        white = x @ (white if basis is None else basis @ white)
        moments = itertools.chain.from_iterable(image_permutations.cross_moments(white, y, part) for part in parts)
        found = [one.square().sum() for one in moments]
        columns.append(torch.stack(found) / spread.clamp_min(least))
    share = (spread / squares.clamp_min(least)).expand(len(bases))
    return torch.stack(columns, 1).cpu().numpy(), share.cpu().numpy()


def residual_null(
    problems: Iterable[tuple[Tensor, Tensor, Sequence[Tensor | None]]], permutations: Sequence[Permutations]
) -> Null:
    """The null of ||x V + b - y||^2 / ||y||^2 of all pairs (x, y) and their bases in turn, as `explained` takes them.

    Low is more than chance. permutations: the first one is that of the images as they are, so that what is observed is
    computed as the draws are, and rounding tells it from none (`image_permutations.around_circles`).
    """
    parts = [explained(*problem, permutations) for problem in problems]
    lines, share = np.concatenate([part[0] for part in parts], 1), np.concatenate([part[1] for part in parts])
    null = calibrate(lines[0], lines[1:])
    return Null((1 - null.mean) * share, (1 - null.q95) * share, null.p, null.p_best)
