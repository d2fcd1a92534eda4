"""Rank correlation of two measures of the same n things, its chance under permutation, and what a third explains of it.

Arrays are (n,). Correlations are in [-1, 1], and None where they do not exist: fewer than three things, or a measure
that does not vary.
"""

import itertools
import math

import numpy as np
from scipy.stats import kendalltau, rankdata, spearmanr

EXACT = 8  # up to so many things all orders are counted: 40,320
TOLERANCE = 1e-12  # orders whose correlations differ by rounding only are as extreme as one another


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of the ranks; ties share their mean rank."""
    return _pearson(rankdata(x), rankdata(y))


def spearman_p(x: np.ndarray, y: np.ndarray, draws: int = 9999, seed: int = 0) -> float | None:
    """Two-sided: the share of orders of x whose |correlation| is at least the observed one; exact up to n = 8.

    Beyond, of `draws` random orders, the observed one counted among them.
    """
    return _permutation_p(rankdata(x), rankdata(y), draws, seed)


def spearman_one_sided(x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """Spearman's correlation, and the chance of at least as high a one for unrelated measures: by Student's t."""
    return _one_sided(x, y, spearmanr)


def kendall_one_sided(x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """The same for Kendall's tau-b; exact for few things without ties, else by the normal distribution."""
    return _one_sided(x, y, kendalltau)


def partial_spearman(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float | None:
    """The correlation of what is left of the ranks of x and y once those of `given` are regressed out of both."""
    return _pearson(*_residuals(x, y, given))


def partial_spearman_p(x: np.ndarray, y: np.ndarray, given: np.ndarray, draws: int = 9999, seed: int = 0) -> float | None:
    """As `spearman_p`, by orders of what is left of x."""
    return _permutation_p(*_residuals(x, y, given), draws, seed)


def _residuals(x, y, given) -> tuple[np.ndarray, np.ndarray]:
    basis = np.stack([np.ones(len(given)), rankdata(given)], 1)
    ranks = np.stack([rankdata(x), rankdata(y)], 1)
    left = ranks - basis @ np.linalg.lstsq(basis, ranks, rcond=None)[0]
    left[:, np.abs(left).max(0, initial=0) < 1e-9 * len(left)] = 0  # explained wholly: no rounding is correlated
    return left[:, 0], left[:, 1]


def _one_sided(x, y, test) -> tuple[float | None, float | None]:
    if _pearson(rankdata(x), rankdata(y)) is None:
        return None, None
    result = test(x, y)
    # as Ding, Denain & Steinhardt 2021: half the two-sided p, or what is left of it
    return float(result.statistic), float(result.pvalue / 2 if result.statistic > 0 else 1 - result.pvalue / 2)


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    x, y = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    scale = math.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / scale, -1, 1)) if len(x) > 2 and scale > 0 else None


def _permutation_p(x: np.ndarray, y: np.ndarray, draws: int, seed: int) -> float | None:
    if _pearson(x, y) is None:
        return None
    x, y = x - x.mean(), y - y.mean()
    observed = abs(x @ y) * (1 - TOLERANCE)
    if len(x) <= EXACT:
        orders = np.array(list(itertools.permutations(x)))
        return float((np.abs(orders @ y) >= observed).mean())
    generator = np.random.default_rng(seed)
    orders = generator.permuted(np.broadcast_to(x, (draws, len(x))), axis=1)
    return float(((np.abs(orders @ y) >= observed).sum() + 1) / (draws + 1))
