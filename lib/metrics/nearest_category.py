"""Nearest-category generalisation: how often a network gives an image the label of its nearest training example.

Yang et al. 2023, TMLR; the null rates and paired tests are those of the nearest-category paper, sections 2 and 6.4. Labels
are integer arrays (n,): `predicted` what the network answers, `nearest` the label of the nearest training example.
"""

import math

import numpy as np
from scipy import stats

Labels = np.ndarray


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a rate, in [0, 1]; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z = stats.norm.ppf((1 + level) / 2)
    rate, spread = hits / n, z * z / n
    middle = rate + spread / 2
    half = z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n))
    # at the ends the interval is closed, whatever is lost in rounding
    low = 0.0 if hits == 0 else (middle - half) / (1 + spread)
    high = 1.0 if hits == n else (middle + half) / (1 + spread)
    return low, high


def majority(nearest: Labels) -> float:
    """The share of the most frequent nearest label: the score of the best constant classifier."""
    return float(np.bincount(nearest).max() / len(nearest))


def independence(predicted: Labels, nearest: Labels) -> float:
    """sum_k P(predicted = k) P(nearest = k): the score if the answers had nothing to do with the neighbours."""
    classes = int(max(predicted.max(), nearest.max())) + 1
    counts = [np.bincount(labels, minlength=classes).astype(float) for labels in (predicted, nearest)]
    return float(counts[0] @ counts[1] / len(nearest) ** 2)


def kappa(predicted: Labels, nearest: Labels) -> float | None:
    """Cohen's kappa: 1 for full agreement, 0 for that of independence; None if both are one and the same constant."""
    expected = independence(predicted, nearest)
    return float(((predicted == nearest).mean() - expected) / (1 - expected)) if expected < 1 else None


def chi_square(n: int, hits: int, classes: int) -> tuple[float, float]:
    """(statistic, p) of the paper's test of hits and misses against a chance of 1 / classes; two-sided, 1 degree."""
    expected = n / classes
    statistic = (hits - expected) ** 2 / expected + (hits - expected) ** 2 / (n - expected)
    return statistic, float(stats.chi2.sf(statistic, 1))


def permutation_p(predicted: Labels, nearest: Labels, generator: np.random.Generator, draws: int = 10_000) -> float:
    """P(as many hits or more | the predictions in any order), one-sided, by random draws.

    A draw is a random table with the same margins, or, of many classes, the predictions in a random order: what is cheaper.
    """
    classes = int(max(predicted.max(), nearest.max())) + 1
    tables = stats.random_table(np.bincount(predicted, minlength=classes), np.bincount(nearest, minlength=classes))
    by_table = classes**2 < len(predicted)
    size = classes**2 if by_table else len(predicted)
    hits, reached, left = int((predicted == nearest).sum()), 0, draws
    while left:
        count = min(left, max(1, 10**7 // size))
        if by_table:
            drawn = tables.rvs(count, random_state=generator).reshape(count, classes, classes)
            found = np.trace(drawn, axis1=1, axis2=2)
        else:
            orders = generator.permuted(np.broadcast_to(predicted, (count, len(predicted))), axis=1)
            found = (orders == nearest).sum(1)
        reached += int((found >= hits).sum())
        left -= count
    return (reached + 1) / (draws + 1)


def paired(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """Two networks' hits (n,) on the same images: images that only one of them hits, and the exact binomial p of it."""
    gained, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {"gained": gained, "lost": lost, "p_paired": float(p)}


def distance_bins(distances: np.ndarray, bins: int = 5) -> list[np.ndarray]:
    """The positions of the images in `bins` parts of equal size, from near to far; a part may be empty if n < bins."""
    return np.array_split(np.argsort(distances, kind="stable"), bins)


def conditional_accuracy(correct: np.ndarray, hits: np.ndarray) -> dict:
    """Accuracy where the answer is the nearest label and where it is not, None where there is none; Welch's one-sided p.

    Where all hits are alike and all misses are, so that Welch's statistic does not exist, p is Fisher's exact one. correct,
    hits: boolean (n,), of the same images in the same order.
    """
    inside, outside = correct[hits], correct[~hits]
    measures = {
        "accuracy_hits": float(inside.mean()) if len(inside) else None,
        "accuracy_misses": float(outside.mean()) if len(outside) else None,
        "p_welch": None,
    }
    if min(len(inside), len(outside)) > 1:
        spreads = [part.var(ddof=1) / len(part) for part in (inside, outside)]
        if sum(spreads) > 0:
            t = (inside.mean() - outside.mean()) / math.sqrt(sum(spreads))
            degrees = sum(spreads) ** 2 / (spreads[0] ** 2 / (len(inside) - 1) + spreads[1] ** 2 / (len(outside) - 1))
            measures["p_welch"] = float(stats.t.sf(t, degrees))
        else:
            chance = stats.hypergeom(len(correct), int(correct.sum()), len(inside))
            measures["p_welch"] = float(chance.sf(inside.sum() - 1))
    return measures


def slope(levels: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """(slope, standard error) of a measure over level / 4, as in the paper, by least squares; three levels or more."""
    fitted = stats.linregress(np.asarray(levels, float) / 4, np.asarray(values, float))
    return float(fitted.slope), float(fitted.stderr)


def slopes_differ(ours: tuple[float, float], theirs: tuple[float, float], levels: int) -> dict:
    """Two-sample t-test of (slope, standard error): p that ours is smaller by chance, and two-sided.

    Two regressions over so many levels have 2 (levels - 2) degrees of freedom; the paper's code has 2 (levels - 1).
    """
    error, difference = math.hypot(ours[1], theirs[1]), ours[0] - theirs[0]
    if error == 0:
        return {"p_slope_less": None, "p_slope_two_sided": None}
    t, degrees = difference / error, 2 * (levels - 2)
    return {"p_slope_less": float(stats.t.cdf(t, degrees)), "p_slope_two_sided": float(2 * stats.t.sf(abs(t), degrees))}


def compare_cells(ours: list[float], theirs: list[float]) -> dict:
    """Two networks' scores over the same cells: in how many ours is higher; mean difference and ratio, with standard errors.

    Cells where theirs is 0 have no ratio; an error needs two cells.
    """
    x, y = np.asarray(ours, float), np.asarray(theirs, float)
    measures: dict[str, float | int | None] = {"cells_above": int((x > y).sum())}
    for name, values in (("difference", x - y), ("ratio", x[y > 0] / y[y > 0])):
        measures[name] = float(values.mean()) if len(values) else None
        measures[f"{name}_se"] = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return measures


def correlation(x: list[float], y: list[float]) -> float | None:
    """Pearson's r, in [-1, 1]; None for fewer than two values or where one side is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])
