"""Intervals of AUROC and FPR that hold for scores of any distribution and for few images: no normal approximation.

The idea of stating AUROC and FPR with what calibration on few images leaves open is that of conformal AUROC and FPR (Novello
et al., "Out-of-Distribution Detection Should Use Conformal Prediction (and Vice-versa?)", 2024), which take bands around the
whole distribution of the inliers' scores (Bates et al., "Testing for Outliers with Conformal p-values", Annals of Statistics
2023). For the two numbers themselves there is more to be had: the bounds here need one threshold, or no band at all. Scores
are higher for outliers, and fixed before the images were drawn: what was chosen or fitted on these images has no guarantee.
"""

from functools import lru_cache

import numpy as np
from scipy import stats

from lib.metrics.ood_detection import Scores

COLUMNS = ("auroc_low", "auroc_high", "fpr95_low", "fpr95_high")
STEPS = 60  # of a bisection in [0, 1]


def auroc_interval(auroc: np.ndarray, n: int, m: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of AUROCs (L,) of n inliers and m outliers, in [0, 1]: the truth is inside with `level` or more.

    All A with min(n, m) KL(auroc, A) <= log(2 / (1 - level)), KL the divergence of one coin from another: Chernoff's bound
    for two-sample U-statistics (Hoeffding 1963, inequality 2.1 and section 5b), ties by half included. With 1,000 images of
    either side it is 0.043 to either side of 0.5, where bands (Dvoretzky, Kiefer & Wolfowitz; Massart 1990) have 0.094; near
    1 it is narrower.
    """
    auroc, reach = np.asarray(auroc, float), np.log(2 / (1 - level)) / min(n, m)
    return _farthest(auroc, np.zeros_like(auroc), reach), _farthest(auroc, np.ones_like(auroc), reach)


def fpr_interval(inside: Scores, outside: Scores, tpr: float = 0.95, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of the share of outliers taken for inliers where `tpr` of all inliers are kept, in [0, 1], (L,) each.

    inside (n, L), outside (m, L), n and m at least 1. The share is that of all outliers at or below the `tpr` quantile of
    all inliers. That quantile lies between two of the inliers' scores by the binomial distribution of how many are below;
    the upper one is a threshold that keeps `tpr` of new inliers whatever images it was calibrated on, but in a quarter of
    1 - level (Vovk 2012, conditional validity of conformal predictors). Outliers below a given threshold are binomial:
    Clopper & Pearson's bounds (1934), wrong in another quarter of 1 - level. The truth is inside with `level` or more. The
    upper bound is 1 for so few inliers that all may lie below the quantile: at 95 % 86 are needed.
    """
    inside, outside = np.sort(np.asarray(inside, float), axis=0), np.asarray(outside, float)
    n, m, tail = len(inside), len(outside), (1 - level) / 4
    lower, upper = _places(n, tpr, tail)
    below = (outside <= inside[lower - 1]).sum(0) if lower else np.zeros(inside.shape[1:], int)
    above = (outside <= inside[upper - 1]).sum(0) if upper <= n else np.full(inside.shape[1:], m)
    with np.errstate(invalid="ignore"):
        low = np.where(below > 0, stats.beta.ppf(tail, below, m - below + 1), 0.0)
        high = np.where(above < m, stats.beta.ppf(1 - tail, above + 1, m - above), 1.0)
    return low, high


def columns(inside: Scores, outside: Scores, auroc: float) -> dict[str, float | None]:
    """What a row says of one score, (n,) and (m,), with this AUROC: `COLUMNS`."""
    ends = *auroc_interval(np.asarray(auroc), len(inside), len(outside)), *fpr_interval(inside, outside)
    return {name: float(end) for name, end in zip(COLUMNS, ends, strict=True)}


@lru_cache(maxsize=8)
def _places(n: int, tpr: float, tail: float) -> tuple[int, int]:
    """The numbers l and u of the ordered scores, from 1, that the quantile lies between; 0 and n + 1 are none.

    P(l-th > quantile) = P(fewer than l at or below it) and P(u-th < quantile) = P(u or more below it), each `tail` or less.
    """
    counts = np.arange(n + 1)
    lower = int((stats.binom.cdf(counts, n, tpr) <= tail).sum())
    upper = int((stats.binom.sf(counts - 1, n, tpr) > tail).sum())
    return lower, upper


def _farthest(share: np.ndarray, end: np.ndarray, reach: float) -> np.ndarray:
    """The number between a share and 0 or 1 from which the share diverges by `reach`; the end itself if by less there."""
    near, far = share.copy(), end.copy()
    for _ in range(STEPS):
        middle = (near + far) / 2
        outside = _divergence(share, middle) > reach
        near, far = np.where(outside, near, middle), np.where(outside, middle, far)
    return far


def _divergence(share: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of a coin with this share from one with another: KL, in nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(share > 0, share * np.log(share / other), 0.0)
        tails = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - other)), 0.0)
    return heads + tails
