"""How far a shift displaces representations.

Intermediate-layers paper, section 2.5. Rows are images: x (n, d) before the shift (training points), y (m, d) after it.
Every score is higher for a larger displacement, and each comes with what it is where there is no shift: sampling alone
makes TVD positive. `null` draws that by dealing the pooled rows out anew.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lib.randomness import generator

BINS = 50
REACH = 3  # bins on either side whose differences give a bin its sign, in `debiased_variation`


def pairwise_ratio(x: Tensor, y: Tensor, same: bool = False) -> float:
    """S of the paper: mean distance of pairs (x, y) over that of pairs within x, less one; 0 without a shift.

    Euclidean; a point is not paired with itself. `same`: the rows of y are those of x, so the cross pairs (i, i) do not
    count either. Unchanged by rotations and scalings of the features.
    """
    within = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    across = within if same else torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    n = len(x)
    pairs = n * (n - 1) if same else n * len(y)
    return (across.sum() / pairs / (within.sum() / (n * (n - 1))) - 1).item()


def moment_ratio(x: Tensor, y: Tensor) -> float:
    """S with squared distances, from means and variances alone: O(n d).

    E|a - b|^2 = |mean a - mean b|^2 + tr cov a + tr cov b; within x it is 2 tr cov x n / (n - 1).
    """
    x, y = x.double(), y.double()
    spread_x, spread_y = x.var(0, correction=0).sum(), y.var(0, correction=0).sum()
    across = (x.mean(0) - y.mean(0)).square().sum() + spread_x + spread_y
    return (across / (2 * spread_x * len(x) / (len(x) - 1)) - 1).item()


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| without self-pairs, over 2 E|a - b|: about 0 for equal distributions, at most 1.

    Szekely & Rizzo 2013; unbiased in its numerator, so it can be slightly negative.
    """
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    across = torch.cdist(x, y).mean()
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return ((2 * across - within) / (2 * across)).item()


def total_variation(x: Tensor, y: Tensor, bins: int = BINS) -> Tensor:
    """Per unit (d,) half the L1 distance of the histograms of x and y over their common range, in [0, 1].

    The notebooks' plug-in estimate: equal distributions do not give 0 but, with 1,000 rows and 50 bins, about 0.1.
    """
    p, q = _histograms(x, y, bins)
    return 0.5 * (p - q).abs().sum(0)


def debiased_variation(x: Tensor, y: Tensor, bins: int = BINS) -> Tensor:
    """Total variation per unit (d,) without the floor of sampling: about 0 for equal distributions.

    Each bin's difference is counted with the sign that the bins beside it have on average, not with its own: noise then
    cancels, and where densities differ over more than a bin the sign is right. Can be slightly negative.
    """
    p, q = _histograms(x, y, bins)
    difference = p - q
    padded = torch.nn.functional.pad(difference.T[:, None], (REACH, REACH))
    kernel = difference.new_ones(1, 1, 2 * REACH + 1)
    kernel[0, 0, REACH] = 0
    around = torch.nn.functional.conv1d(padded, kernel)[:, 0].T
    return 0.5 * (difference * around.sign()).sum(0)


def null(score: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, draws: int = 40, seed: int = 0) -> Tensor:
    """The scores (draws,) of random divisions of the pooled rows into len(x) and len(y)."""
    pooled = torch.cat([x, y])
    return torch.tensor([score(pooled[first], pooled[second]) for first, second in _divisions(len(x), len(y), draws, seed)])


def pairwise_null(x: Tensor, y: Tensor, draws: int = 40, seed: int = 0) -> Tensor:
    """`null` of `pairwise_ratio`, whose distances are computed once for all divisions."""
    pooled = torch.cat([x, y]).double()
    distances = torch.cdist(pooled, pooled)
    found = []
    for first, second in _divisions(len(x), len(y), draws, seed):
        within = distances[first][:, first].sum() / (len(x) * (len(x) - 1))
        found.append((distances[first][:, second].mean() / within - 1).item())
    return torch.tensor(found)


def _divisions(n: int, m: int, draws: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    draw = generator(seed, "null")
    for _ in range(draws):
        order = torch.randperm(n + m, generator=draw)
        yield order[:n], order[n:]


def row_space_share(before: Tensor, after: Tensor, weights: Tensor) -> float:
    """Of the squared displacement of paired rows (n, d), the share inside the row space of a probe's weights (k, d).

    In [0, 1]. Adding one vector to all rows of the weights changes no prediction, so their mean is taken out.
    """
    centred = weights.double() - weights.double().mean(0)
    _, lengths, right = torch.linalg.svd(centred, full_matrices=False)
    right = right[lengths > 1e-10 * lengths[0]]
    moved = (after - before).double()
    return ((moved @ right.T).square().sum() / moved.square().sum().clamp_min(1e-300)).item()


def _histograms(x: Tensor, y: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Shares (bins, d) of either set per bin of the range that both have together; units that never change fill one."""
    low, high = torch.minimum(x.amin(0), y.amin(0)), torch.maximum(x.amax(0), y.amax(0))
    width = torch.where(high > low, high - low, 1.0)
    shares = []
    for rows in (x, y):
        place = ((rows - low) / width * bins).long().clamp_(0, bins - 1)
        counts = torch.zeros(bins, rows.shape[1], dtype=torch.float64)
        shares.append(counts.scatter_add_(0, place, torch.ones(place.shape, dtype=torch.float64)) / len(rows))
    return shares[0], shares[1]
