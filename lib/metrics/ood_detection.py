"""How well scores separate in- from out-of-distribution images.

A score is higher for outliers, everywhere in the suite, and no measure turns it round: an AUROC below 0.5 says that the
score is lower for outliers. Arrays are (n,) or (n, L), L scores of the same images; results are floats or (L,).
As in OpenOOD in-distribution images are the positive class of the FPR and of "AUPR-in".
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, owens_t

Scores = np.ndarray


def auroc(inside: Scores, outside: Scores) -> np.ndarray:
    """P(outlier's score > inlier's) + P(tie) / 2, in [0, 1]; inside (n, L), outside (m, L). O((n + m) log n)."""
    return _by_column(_auroc, inside, outside)


def auroc_standard_error(auroc: np.ndarray, n: int, m: int) -> np.ndarray:
    """Hanley & McNeil 1982, eq. 1, for n inliers and m outliers."""
    auroc = np.asarray(auroc, float)
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (m - 1) * (q1 - auroc**2) + (n - 1) * (q2 - auroc**2)
    return np.sqrt(np.maximum(variance, 0) / (n * m))


@dataclass(frozen=True)
class Placements:
    """Where every image's scores lie among those of the other set: all that AUROCs and their covariances need.

    inside (n, L): the share of outliers that score higher than this inlier, ties by half; outside (m, L): the share of
    inliers that score lower than this outlier. auroc (L,) is the mean of either.
    """

    inside: np.ndarray
    outside: np.ndarray
    auroc: np.ndarray

    def covariance(self) -> np.ndarray:
        """The covariance (L, L) of the AUROCs; DeLong, DeLong & Clarke-Pearson 1988, eq. 5. Needs n, m of 2 or more."""
        parts = (np.atleast_2d(np.cov(part, rowvar=False)) / len(part) for part in (self.inside, self.outside))
        return sum(parts)


def placements(inside: Scores, outside: Scores) -> Placements:
    """The placements of scores (n, L) and (m, L), or (n,) and (m,). O(L (n + m) log(n + m))."""
    inside, outside = _checked(inside, outside)
    n, m = len(inside), len(outside)
    columns = list(zip(np.atleast_2d(inside.T), np.atleast_2d(outside.T), strict=True))
    above = np.stack([m - _below(np.sort(outliers), inliers) for inliers, outliers in columns], 1)
    below = np.stack([_below(np.sort(inliers), outliers) for inliers, outliers in columns], 1)
    return Placements(above / m, below / n, below.sum(0) / (n * m))  # sums of halves are exact


def interval(
    auroc: np.ndarray, standard_error: np.ndarray, n: int, m: int, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The interval (low, high) of AUROCs (L,) of n inliers and m outliers, in [0, 1]; NaN for fewer than 3 of either.

    All A with |auroc - A| - 1 / (2 n m) <= z r sd(A): a score interval (as Newcombe 2006 makes them of Hanley & McNeil's
    variance) with half a pair for continuity, so that it has a width at 0 and 1 too. sd(A) is that of normal scores of
    equal variance; where DeLong's `standard_error` (L,) is larger than sd(auroc), r is their ratio, else 1, so that scores
    of unequal variances and other shapes are mostly held as well. Simulated at 95 %, A from 0.5 to 0.999, 50 to 500 images
    a side, 10 with 500, 5 with 1000: normal scores of equal variance are held in 0.950 to 0.975, at most 1.09 times as wide
    as with r = 1; those of 3 times the deviation on one side in 0.84 or more, exponential ones in 0.90 or more, but for
    A = 0.999 with 500 a side, where it is 0.76.
    """
    auroc = np.asarray(auroc, float)
    if min(n, m) < FEWEST:
        return np.full_like(auroc, np.nan), np.full_like(auroc, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(standard_error) / _normal_deviation(auroc, n, m)
    reach = ndtri(0.5 + level / 2) * np.where(ratio > 1, ratio, 1.0)  # 0 / 0, of AUROCs of 0 and 1, is 1
    half = 0.5 / (n * m)
    return _lowest(auroc - half, reach, n, m), 1 - _lowest(1 - auroc - half, reach, n, m)


FEWEST = 3  # images of either side, for an interval, a sign or a test


def _normal_deviation(auroc: np.ndarray, n: int, m: int) -> np.ndarray:
    """The standard deviation of the AUROC of normal scores of equal variance whose true AUROC is `auroc`; exact.

    Of three scores, two of one side and one of the other, both pairs are in order with probability Phi2(d, d; 1/2) =
    Phi(d) - 2 T(d, 1 / sqrt(3)), d = Phi^-1(auroc), T Owen's function (1956).
    """
    d = ndtri(auroc)
    both = ndtr(d) - 2 * owens_t(d, 1 / np.sqrt(3))
    variance = auroc * (1 - auroc) + (n + m - 2) * (both - auroc**2)
    return np.sqrt(np.maximum(variance, 0) / (n * m))


def _lowest(auroc: np.ndarray, reach: np.ndarray, n: int, m: int) -> np.ndarray:
    """The lowest A with auroc - A <= reach sd(A), 0 for auroc < 0; by bisection: the sides cross once below auroc < 1."""
    low, high = np.zeros_like(auroc), np.maximum(auroc, 0)
    for _ in range(60):
        middle = (low + high) / 2
        outside = auroc - middle > reach * _normal_deviation(middle, n, m)
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return high


def delong_against(placed: Placements, reference: int) -> tuple[np.ndarray, np.ndarray]:
    """(difference, p) of each AUROC against that of column `reference`, (L,) each: the paired test of DeLong et al.

    Two-sided. Scores whose placements are the same differ by 0 with p = 1; p of the reference itself is 1.
    """
    covariance = placed.covariance()
    difference = placed.auroc - placed.auroc[reference]
    own = np.diag(covariance)
    variance = np.maximum(own + own[reference] - 2 * covariance[:, reference], 0)
    # where rounding is all that is left of the variance, the two scores order the images alike
    variance[variance < 1e-12 * (own + own[reference])] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(difference == 0, 0.0, np.abs(difference) / np.sqrt(variance))
    return difference, 2 * ndtr(-z)


def fpr_at_tpr(inside: Scores, outside: Scores, tpr: float = 0.95) -> np.ndarray:
    """The share of outliers taken for inliers where `tpr` of the inliers are kept, in [0, 1], lower is better.

    The threshold is the floor(tpr n)-th lowest inlier's score. Outliers at or below it count: what ties with the last
    inlier that is kept is not told apart from it, and a score that is the same for all images has 1.
    """
    return _by_column(lambda a, b: _fpr(a, b, tpr), inside, outside)


def fpr_at_nearest_recall(inside: Scores, outside: Scores, recall: float = 0.95) -> np.ndarray:
    """The share of outliers taken for inliers at the threshold whose share of kept inliers is nearest to `recall`.

    In [0, 1], lower is better. As published with energy fine-tuning (Liu et al., NeurIPS 2020): thresholds are the scores of
    both sets, what lies on one is kept, and of those with equal recall the highest counts.
    """
    return _by_column(lambda a, b: _fpr_nearest(a, b, recall), inside, outside)


def average_precision_in(inside: Scores, outside: Scores) -> np.ndarray:
    """AUPR-in: area under precision and recall of the inliers, by low scores; n / (n + m) by chance."""
    return _by_column(lambda a, b: _average_precision(-a, -b), inside, outside)


def average_precision_out(inside: Scores, outside: Scores) -> np.ndarray:
    """AUPR-out: area under precision and recall of the outliers, by high scores; m / (n + m) by chance."""
    return _by_column(lambda a, b: _average_precision(b, a), inside, outside)


def deviation(scores: Scores, fitted: Scores) -> np.ndarray:
    """|score - median| / MAD of the inliers in `fitted`: high on either side, so that no direction must be known.

    scores (n, L), fitted (f, L) of images that no measure is made on. A score that is constant in `fitted` deviates by
    0 where it has that value and infinitely elsewhere.
    """
    median = np.median(fitted, axis=0)
    mad = np.median(np.abs(fitted - median), axis=0)
    distance = np.abs(scores - median)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / mad)


def _by_column(measure, inside: Scores, outside: Scores):
    inside, outside = _checked(inside, outside)
    if inside.ndim == 1:
        return measure(inside, outside)
    return np.array([measure(a, b) for a, b in zip(inside.T, outside.T, strict=True)])


def _checked(inside: Scores, outside: Scores) -> tuple[np.ndarray, np.ndarray]:
    inside, outside = np.asarray(inside, float), np.asarray(outside, float)
    if np.isnan(inside).any() or np.isnan(outside).any():
        raise ValueError("scores contain NaN")
    return inside, outside


def _auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    return float(_below(np.sort(inside), outside).sum() / (len(inside) * len(outside)))


def _below(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many of the `ordered` lie below each value, equal ones by half."""
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def _fpr(inside: np.ndarray, outside: np.ndarray, tpr: float) -> float:
    kept = max(int(tpr * len(inside) + 1e-9), 1)  # 0.95 * 100 is 94.999...
    return float((outside <= np.sort(inside)[kept - 1]).mean())


def _fpr_nearest(inside: np.ndarray, outside: np.ndarray, recall: float) -> float:
    thresholds = np.unique(np.concatenate([inside, outside]))
    kept = np.searchsorted(np.sort(inside), thresholds, "right")
    thresholds = thresholds[: np.searchsorted(kept, len(inside)) + 1]  # beyond the first that keeps all nothing is gained
    shares = kept[: len(thresholds)][::-1] / len(inside)
    chosen = thresholds[::-1][np.argmin(np.abs(shares - recall))]
    return float((outside <= chosen).mean())


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """The sum over distinct thresholds of precision times the gain in recall; positives score high."""
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(order < len(positive))
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # the end of each run of equal scores
    hits, taken = hits[last], np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0) * (hits / taken)).sum() / len(positive))
