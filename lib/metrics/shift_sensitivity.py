"""How far a shift displaces representations.

Intermediate-layers paper, section 2.5. Rows are images: x (n, d) before the shift (training points), y (m, d) after it.
Every score is higher for a larger displacement, and each comes with what it is where there is no shift: sampling alone
makes TVD positive. That is drawn by dealing the pooled rows out anew.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lib.core.randomness import generator

BINS = 50  # of equal width, the notebooks'
QUANTILES = 20  # bins of equal shares, in `debiased_variation`
BLOCK = 4096  # features whose distances are summed at a time
REACH = 3  # bins on either side that have a say in a bin's sign, in `debiased_variation`
VOICE = 2.0  # standard errors that each of them says at most


def pairwise_ratio(x: Tensor, y: Tensor, same: bool = False) -> float:
    """S of the paper: mean distance of pairs (x, y) over that of pairs within x, less one; 0 without a shift.

    Euclidean; a point is not paired with itself. `same`: the rows of y are those of x, so the cross pairs (i, i) do not
    count either. Unchanged by rotations and scalings of the features.
    """
    between = distances(x, y)
    if same:
        n, across = len(x), between[: len(x), len(x) :]
        return ((across.sum() - across.trace()) / between[:n, :n].sum() - 1).item()
    return ratios(between, division(len(x), len(y))).item()


def moment_ratio(x: Tensor, y: Tensor) -> float:
    """S with squared distances, from means and variances alone: O(n d).

    E|a - b|^2 = |mean a - mean b|^2 + tr cov a + tr cov b; within x it is 2 tr cov x n / (n - 1).
    """
    moved = (x.mean(0, dtype=torch.float64) - y.mean(0, dtype=torch.float64)).square().sum()
    spread_x, spread_y = (rows.var(0, correction=0).double().sum() for rows in (x, y))
    return ((moved + spread_x + spread_y) / (2 * spread_x * len(x) / (len(x) - 1)) - 1).item()


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| without self-pairs, over 2 E|a - b|: about 0 for equal distributions, at most 1.

    Szekely & Rizzo 2013; unbiased in its numerator, so it can be slightly negative.
    """
    return energies(distances(x, y), division(len(x), len(y))).item()


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n + m, n + m), float64, of the rows of x, then of y.

    From Gram matrices of blocks of centred features: memory does not grow with d.
    """
    gram = torch.zeros(len(x) + len(y), len(x) + len(y), dtype=torch.float64)
    for mine, other in zip(x.split(BLOCK, 1), y.split(BLOCK, 1), strict=True):
        part = torch.cat([mine, other]).double()
        part -= part.mean(0)
        gram.addmm_(part, part.T)
    squares = gram.diagonal()
    return (squares[:, None] + squares - 2 * gram).clamp_min(0).sqrt().fill_diagonal_(0)


def ratios(between: Tensor, members: Tensor) -> Tensor:
    """`pairwise_ratio` (draws,) of divisions of N rows with these distances (N, N); members (draws, N): who is of x.

    With squared distances it is `moment_ratio`.
    """
    within, across, _ = _means(between, members)
    return across / within - 1


def energies(between: Tensor, members: Tensor) -> Tensor:
    """`energy_distance` (draws,) of divisions of N rows with these distances (N, N); members (draws, N): who is of x."""
    within_x, across, within_y = _means(between, members)
    return (2 * across - within_x - within_y) / (2 * across)


def division(n: int, m: int) -> Tensor:
    """The division (1, n + m) into the first n rows and the others."""
    return (torch.arange(n + m) < n)[None]


def divisions(n: int, m: int, draws: int, seed: int = 0) -> Tensor:
    """Random divisions (draws, n + m) of pooled rows into n and m: what scores are there without a shift."""
    draw = generator(seed, "null")
    members = torch.zeros(draws, n + m, dtype=torch.bool)
    for one in members:
        one[torch.randperm(n + m, generator=draw)[:n]] = True
    return members


def total_variation(x: Tensor, y: Tensor, bins: int = BINS) -> Tensor:
    """Per unit (d,) half the L1 distance of the histograms of x and y over their common range, in [0, 1].

    The notebooks' plug-in estimate: equal distributions do not give 0 but, with 1,000 rows and 50 bins, about 0.1; and one
    row far from all others leaves these a single bin. Raises `ValueError` for values that are not finite.
    """
    _require_finite(x, y)
    low, high = torch.minimum(x.amin(0), y.amin(0)), torch.maximum(x.amax(0), y.amax(0))
    width = torch.where(high > low, high - low, 1.0)  # units that never change fill one bin
    p, q = (_shares(((rows - low) / width * bins).long().clamp_(0, bins - 1), bins, len(rows)) for rows in (x, y))
    return 0.5 * (p - q).abs().sum(0)


def debiased_variation(x: Tensor, y: Tensor, bins: int = QUANTILES, seed: int = 0) -> Tensor:
    """Total variation per unit (d,) without the floor of sampling: about 0 for equal distributions.

    A bin's difference is not counted with its own sign, in which noise adds up, but with one that other rows give: a random
    half of the rows says it for the other half, in that bin and in those beside it, none of which says more than `VOICE`
    standard errors. So it is right for densities as for atoms, such as a rectified unit has at zero. Bins hold equal shares
    of the pooled rows, whatever the distances between these. Can be slightly negative. Raises `ValueError` for values that
    are not finite.
    """
    _require_finite(x, y)
    draw, binned = generator(seed, "halves"), _quantile_bins(x, y, bins)
    parts = [rows[torch.randperm(len(rows), generator=draw)].tensor_split(2) for rows in binned]
    kernel = torch.ones(1, 1, 2 * REACH + 1, dtype=torch.float64)
    kernel[0, 0, REACH] = 0
    found = torch.zeros(x.shape[1], dtype=torch.float64)
    for mine, others in ((0, 1), (1, 0)):
        told = _standardised(*((_shares(part[others], bins, len(part[others])), len(part[others])) for part in parts))
        padded = torch.nn.functional.pad(told.clamp(-VOICE, VOICE).T[:, None], (REACH, REACH))
        told = told + torch.nn.functional.conv1d(padded, kernel)[:, 0].T
        p, q = (_shares(part[mine], bins, len(rows)) for part, rows in zip(parts, binned, strict=True))
        found += 0.5 * ((p - q) * told.sign()).sum(0)
    return found


def null(score: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, draws: int = 40, seed: int = 0) -> Tensor:
    """The scores (draws,) of random divisions of the pooled rows into len(x) and len(y)."""
    pooled = torch.cat([x, y])
    return torch.tensor([score(pooled[mine], pooled[~mine]) for mine in divisions(len(x), len(y), draws, seed)])


def row_space_share(before: Tensor, after: Tensor, weights: Tensor) -> float:
    """Of the squared displacement of paired rows (n, d), the share inside the row space of a probe's weights (k, d).

    In [0, 1]. Adding one vector to all rows of the weights changes no prediction, so their mean is taken out.
    """
    centred = weights.double() - weights.double().mean(0)
    _, lengths, right = torch.linalg.svd(centred, full_matrices=False)
    right = right[lengths > 1e-10 * lengths[0]]
    moved = (after - before).double()
    return ((moved @ right.T).square().sum() / moved.square().sum().clamp_min(1e-300)).item()


def _means(between: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean distances (draws,) within x, from x to y and within y, without self-pairs."""
    mine = members.double()
    n, m = mine.sum(1), (1 - mine).sum(1)
    of_mine = mine @ between
    within, across = (of_mine * mine).sum(1), (of_mine * (1 - mine)).sum(1)
    return within / (n * (n - 1)), across / (n * m), (between.sum() - within - 2 * across) / (m * (m - 1))


def _require_finite(*parts: Tensor) -> None:
    if not all(bool(part.isfinite().all()) for part in parts):
        raise ValueError("values are NaN or infinite: they have no histogram")


def _quantile_bins(x: Tensor, y: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """The bins (n, d) and (m, d) of rows, 0 to bins - 1, between the quantiles of the pooled rows of each unit.

    A value that several quantiles are equal to has a bin of its own.
    """
    pooled = torch.cat([x, y]).T.contiguous()
    places = torch.arange(1, bins) * pooled.shape[1] // bins
    edges = pooled.sort(1).values[:, places].contiguous()
    below, upto = (torch.searchsorted(edges, pooled, right=right) for right in (False, True))
    first, second = (upto - (upto - below > 1).long()).T.split([len(x), len(y)])
    return first, second


def _shares(bin_of: Tensor, bins: int, whole: int) -> Tensor:
    """Counts (bins, d) of rows (n, d) in each bin, over `whole`."""
    counts = torch.zeros(bins, bin_of.shape[1], dtype=torch.float64)
    return counts.scatter_add_(0, bin_of, torch.ones(bin_of.shape, dtype=torch.float64)) / max(whole, 1)


def _standardised(one: tuple[Tensor, int], two: tuple[Tensor, int]) -> Tensor:
    """The difference of shares (bins, d), each of so many rows, in standard errors; 0 where both are empty."""
    (p, n), (q, m) = one, two
    variance = p * (1 - p) / max(n, 1) + q * (1 - q) / max(m, 1)
    return (p - q) / variance.clamp_min(1 / max(n, m) ** 2).sqrt()
