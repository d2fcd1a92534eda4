"""Which of several scores may be the best one, and by how much one is better than a reference, after a look at all of them.

Of k scores of the same images with their covariance. The set is what is left when every score has been tested for being the
best: score i is left out where some other one is higher by more than differences from i come to by chance, at the 95 %
quantile of the largest studentised difference. So the set holds the best one with 95 % probability, whatever the others are:
if i is the best, no true difference from it is above 0. It is the inversion of comparisons with the best (Hsu 1984) with the
joint distribution of correlated scores in place of the worst case. We prefer it to the model confidence set (Hansen, Lunde &
Nason 2011), which drops one score after another and speaks of all of the best where several are equal: a layer is asked
about by itself here, and none is kept or lost by what happened to another before it.

Scores that are means over several trainings are uncertain between seeds too. So few seeds do not tell how the noise of one
layer goes with that of another, so there every pair has a quantile of its own, for as many comparisons as are made
(Bonferroni): Cochran's, the normal one of images and Student's with seeds - 1 degrees of freedom, weighed by the variances.
"""

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from scipy.special import ndtri, stdtrit

from lib.core.randomness import numpy_generator

LEVEL = 0.95
DRAWS = 4000  # behind a quantile
ROUNDING = 1e-12  # of the two variances: less is no variance


def best_set(scores: np.ndarray, covariance: np.ndarray, between: np.ndarray | None = None, seeds: int = 1) -> np.ndarray:
    """Which of the scores (k,), higher is better, may be the best: (k,) truths, at least one of them true.

    covariance (k, k) of the scores as means over images: differences are taken to be normal. With several seeds also that of
    the means over seeds, `between` (k, k). Scores that do not differ on any image share their place.
    """
    if seeds > 1 and between is not None:
        rows = range(len(scores))
        reaches = (_reaches(covariance, between, seeds, one, len(scores) - 1) for one in rows)
        return np.array([(scores - scores[one] <= reach + ROUNDING).all() for one, reach in zip(rows, reaches, strict=True)])
    noise = cache(lambda: _noise(covariance))
    return np.array([_may_be_best(scores, covariance, one, noise) for one in range(len(scores))])


def _may_be_best(scores: np.ndarray, covariance: np.ndarray, one: int, noise: Callable[[], np.ndarray]) -> bool:
    """Whether no other score is higher than this one by more than all differences from it come to in 95 %."""
    error = _errors(covariance, one)
    distance, moving = _studentised(scores - scores[one], error).max(), np.flatnonzero(error > 0)
    if distance <= ndtri(LEVEL) or not len(moving):
        return bool(distance <= ndtri(LEVEL))  # the quantile of the largest of several is higher
    if distance > -ndtri((1 - LEVEL) / len(moving)):
        return False  # and not as high as that of independent ones
    drawn = noise()
    largest = ((drawn[:, moving] - drawn[:, [one]]) / error[moving]).max(1)
    return bool(distance <= np.quantile(largest, LEVEL))


def gain_bounds(
    scores: np.ndarray,
    covariance: np.ndarray,
    references: np.ndarray,
    between: np.ndarray | None = None,
    seeds: int = 1,
) -> np.ndarray:
    """By how much each score (k,) is above the highest of some references at least: (k,), all hold at once with 95 %.

    references: the numbers of some of the scores. A bound so holds for whichever score was picked, by these very scores too.
    """
    others = np.setdiff1d(np.arange(len(scores)), references)
    if seeds > 1 and between is not None:
        count = max(len(others) * len(references), 1)
        reaches = np.stack([_reaches(covariance, between, seeds, one, count) for one in references])
        return (scores - scores[references, None] - reaches).min(0)
    errors = np.stack([_errors(covariance, one) for one in references])  # (r, k)
    noise, reach = _noise(covariance), 0.0
    largest = np.full(len(noise), -np.inf)
    for one, error in zip(references, errors, strict=True):
        moving = others[error[others] > 0]
        if len(moving):
            largest = np.maximum(largest, ((noise[:, moving] - noise[:, [one]]) / error[moving]).max(1))
    if np.isfinite(largest).all():
        reach = max(float(np.quantile(largest, LEVEL)), 0.0)
    return (scores - scores[references, None] - reach * errors).min(0)


def _reaches(covariance: np.ndarray, between: np.ndarray, seeds: int, one: int, count: int) -> np.ndarray:
    """What differences (k,) from a score stay below, each but in (1 - 95 %) / count of cases: Cochran's approximation."""
    images, trainings = _errors(covariance, one) ** 2, _errors(between, one) ** 2
    tail = (1 - LEVEL) / max(count, 1)
    total = np.maximum(images + trainings, np.finfo(float).tiny)
    return (-ndtri(tail) * images - stdtrit(seeds - 1, tail) * trainings) / np.sqrt(total)


def _errors(covariance: np.ndarray, one: int) -> np.ndarray:
    """The standard errors (k,) of the differences from a score; 0 where rounding is all that is left."""
    own = np.diag(covariance)
    variance = own + own[one] - 2 * covariance[one]
    return np.sqrt(np.where(variance > ROUNDING * (own + own[one]), variance, 0))


def _studentised(differences: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Differences over their errors; one without an error is none, or beyond all errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(differences) < ROUNDING, 0, differences / errors)


def _noise(covariance: np.ndarray) -> np.ndarray:
    """Normal draws (`DRAWS`, k) with this covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return _normal(len(covariance)) @ (vectors * np.sqrt(np.maximum(values, 0))).T


@lru_cache(maxsize=8)
def _normal(k: int) -> np.ndarray:
    return numpy_generator(0, "best set", k).standard_normal((DRAWS, k))
