"""How well scores separate in- from out-of-distribution images.

A score is higher for outliers, everywhere in the suite, and no measure turns it round: an AUROC below 0.5 says that the
score is lower for outliers. Arrays are (n,) or (n, L), L scores of the same images; results are floats or (L,).
OpenOOD's conventions: in-distribution images are the positive class of the FPR and of "AUPR-in".
"""

import numpy as np

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


def fpr_at_tpr(inside: Scores, outside: Scores, tpr: float = 0.95) -> np.ndarray:
    """The share of outliers taken for inliers where `tpr` of the inliers are kept, in [0, 1], lower is better.

    The threshold is the floor(tpr n)-th lowest inlier's score; outliers strictly below it count.
    """
    return _by_column(lambda a, b: _fpr(a, b, tpr), inside, outside)


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
    inside, outside = np.asarray(inside, float), np.asarray(outside, float)
    if np.isnan(inside).any() or np.isnan(outside).any():
        raise ValueError("scores contain NaN")
    if inside.ndim == 1:
        return measure(inside, outside)
    return np.array([measure(a, b) for a, b in zip(inside.T, outside.T, strict=True)])


def _auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    ordered = np.sort(inside)
    below = np.searchsorted(ordered, outside, "left").astype(np.int64)
    up_to = np.searchsorted(ordered, outside, "right").astype(np.int64)
    return float((below.sum() + up_to.sum()) / (2 * len(inside) * len(outside)))


def _fpr(inside: np.ndarray, outside: np.ndarray, tpr: float) -> float:
    kept = max(int(tpr * len(inside) + 1e-9), 1)  # 0.95 * 100 is 94.999...
    return float((outside < np.sort(inside)[kept - 1]).mean())


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """The sum over distinct thresholds of precision times the gain in recall; positives score high."""
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(order < len(positive))
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # the end of each run of equal scores
    hits, taken = hits[last], np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0) * (hits / taken)).sum() / len(positive))
