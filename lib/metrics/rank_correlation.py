"""Rank correlation of two measures of the same n things, its chance under permutation, and what a third explains of it.

Arrays are (n,). Correlations are in [-1, 1], and None where they do not exist: fewer than three things, or a measure
that does not vary.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln
from scipy.stats import kendalltau, rankdata, spearmanr

EXACT = 8  # up to so many things all orders are counted: 40,320
TOLERANCE = 1e-12  # orders whose correlations differ by rounding only are as extreme as one another
LEVEL = 0.05  # a p that cannot reach it is none
STEEPEST = 50.0  # as good as in the order of the other measure
EXCHANGES = 50  # rounds of exchanges that make an order independent of the one it comes from
NOTHING = 1e-9  # of n: what is left of ranks that another measure explains wholly is rounding


class Chance(NamedTuple):
    """A p-value, and the smallest that so many values could have given; both None without a correlation.

    p is None where `least` is above 0.05, as for 4 things without ties: it tells nothing, however large the correlation.
    """

    p: float | None
    least: float | None


def _chance(p: float, least: float) -> Chance:
    return Chance(p if least <= LEVEL else None, least)


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of the ranks; ties share their mean rank."""
    return _pearson(rankdata(x), rankdata(y))


def spearman_p(x: np.ndarray, y: np.ndarray, draws: int = 9999, seed: int = 0) -> Chance:
    """Two-sided: the share of orders of x whose |correlation| is at least the observed one; exact up to n = 8.

    Beyond, of `draws` random orders, the observed one counted among them.
    """
    return _permutation_p(rankdata(x), rankdata(y), draws, seed)


def spearman_one_sided(x: np.ndarray, y: np.ndarray) -> tuple[float | None, Chance]:
    """Spearman's correlation, and the one-sided p-value of it, by Student's t.

    No p is below that of the one order, or of those equal by ties, that agrees wholly.
    """
    return _one_sided(x, y, spearmanr)


def kendall_one_sided(x: np.ndarray, y: np.ndarray) -> tuple[float | None, Chance]:
    """The same for Kendall's tau-b; exact for few things without ties, else by the normal distribution."""
    return _one_sided(x, y, kendalltau)


def partial_spearman(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float | None:
    """The correlation of the residuals of the ranks of x and y after a regression on the ranks of `given`."""
    return _pearson(*_residuals(x, y, given))


def partial_spearman_p(x: np.ndarray, y: np.ndarray, given: np.ndarray, draws: int = 1999, seed: int = 0) -> Chance:
    """Two-sided: how likely orders that follow `given` as x does are to have at least the observed |correlation|.

    The conditional permutation test of Berrett, Wang, Barber & Samworth 2020, here of ranks whose order has a probability
    proportional to exp(t ranks . ranks of given). Exact over all orders up to n = 8, beyond by `draws` of them. Orders
    taken with equal chances, or residuals in another order, call measures related that share nothing but `given`.
    """
    left, other = _residuals(x, y, given)
    if _pearson(left, other) is None:
        return Chance(None, None)
    basis = _explaining(given)
    explained = basis @ np.linalg.pinv(basis)

    def partial(orders: np.ndarray) -> np.ndarray:
        rest = orders - orders @ explained
        rest[np.abs(rest).max(1) < NOTHING * len(x)] = 0
        return _rows_pearson(rest, other)

    ranks, depth = rankdata(x), rankdata(given)
    tilt = _tilt(ranks, depth)
    if len(x) <= EXACT:
        orders = np.array(list(itertools.permutations(ranks)))
        closeness = tilt * (orders @ depth)
        weights = np.exp(closeness - closeness.max())
    else:
        orders = np.concatenate([_follow(ranks, depth, tilt, draws, np.random.default_rng(seed)), ranks[None]])
        weights = np.ones(len(orders))
    return _share(np.abs(partial(orders)), abs(partial(ranks[None]).item()), weights)


def _tilt(ranks: np.ndarray, depth: np.ndarray) -> float:
    """The t of `partial_spearman_p` under which two things that share two ranks most likely have them as they do."""
    one, two = np.triu_indices(len(ranks), 1)
    agreeing = (ranks[one] - ranks[two]) * (depth[one] - depth[two])

    def slope(t: float) -> float:
        return float(agreeing @ expit(-t * agreeing))

    return brentq(slope, -STEEPEST, STEEPEST) if slope(-STEEPEST) > 0 > slope(STEEPEST) else STEEPEST * np.sign(slope(0))


def _follow(ranks: np.ndarray, depth: np.ndarray, tilt: float, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Orders (draws, n) of the ranks with probabilities proportional to exp(tilt orders . depth), by exchanges in pairs."""
    orders, rows, half = np.repeat(ranks[None], draws, 0), np.arange(draws)[:, None], len(ranks) // 2
    for _ in range(EXCHANGES):
        places = generator.permuted(np.broadcast_to(np.arange(len(ranks)), orders.shape), axis=1)
        one, two = places[:, :half], places[:, half : 2 * half]
        gain = (orders[rows, two] - orders[rows, one]) * (depth[one] - depth[two])
        swapped = generator.random(one.shape) < expit(tilt * gain)
        orders[rows, one], orders[rows, two] = (
            np.where(swapped, orders[rows, two], orders[rows, one]),
            np.where(swapped, orders[rows, one], orders[rows, two]),
        )
    return orders


def _explaining(given) -> np.ndarray:
    return np.stack([np.ones(len(given)), rankdata(given)], 1)


def _residuals(x, y, given) -> tuple[np.ndarray, np.ndarray]:
    basis = _explaining(given)
    ranks = np.stack([rankdata(x), rankdata(y)], 1)
    left = ranks - basis @ np.linalg.lstsq(basis, ranks, rcond=None)[0]
    left[:, np.abs(left).max(0, initial=0) < NOTHING * len(left)] = 0  # explained wholly: no rounding is correlated
    return left[:, 0], left[:, 1]


def _one_sided(x, y, test) -> tuple[float | None, Chance]:
    if _pearson(rankdata(x), rankdata(y)) is None:
        return None, Chance(None, None)
    result, least = test(x, y), _agreeing_share(x, y)
    # as Ding, Denain & Steinhardt 2021: half the two-sided p, or what is left of it
    p = float(result.pvalue / 2 if result.statistic > 0 else 1 - result.pvalue / 2)
    return float(result.statistic), _chance(max(p, least), least)


def _agreeing_share(x, y) -> float:
    """The share of orders of x in which it rises wherever y does, equal values in any order: 1 / n! without ties."""
    together = np.unique(np.stack([np.sort(x), np.sort(y)]), axis=1, return_counts=True)[1]
    ties = [np.unique(values, return_counts=True)[1] for values in (x, y)]
    ways = sum(gammaln(counts + 1).sum() for counts in ties) - gammaln(together + 1).sum()
    return math.exp(ways - gammaln(len(x) + 1))


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    x, y = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    scale = math.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / scale, -1, 1)) if len(x) > 2 and scale > 0 else None


def _rows_pearson(rows: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The correlation (m,) of each row of (m, n) with y; 0 for rows that do not vary."""
    rows, y = rows - rows.mean(1, keepdims=True), y - y.mean()
    scale = np.sqrt((rows * rows).sum(1) * (y @ y))
    return np.where(scale > 0, rows @ y, 0) / np.where(scale > 0, scale, 1)


def _permutation_p(x: np.ndarray, y: np.ndarray, draws: int, seed: int) -> Chance:
    if _pearson(x, y) is None:
        return Chance(None, None)
    if len(x) <= EXACT:
        orders = np.array(list(itertools.permutations(x)))
    else:
        generator = np.random.default_rng(seed)
        orders = np.concatenate([generator.permuted(np.broadcast_to(x, (draws, len(x))), axis=1), x[None]])
    return _share(np.abs(_rows_pearson(orders, y)), abs(_rows_pearson(x[None], y).item()), np.ones(len(orders)))


def _share(found: np.ndarray, observed: float, weights: np.ndarray) -> Chance:
    """The share, by weights (m,), of correlations (m,) of at least the observed one, and of those as great as any."""
    shares = (float(weights[found >= bound * (1 - TOLERANCE)].sum() / weights.sum()) for bound in (observed, found.max()))
    return _chance(*shares)
