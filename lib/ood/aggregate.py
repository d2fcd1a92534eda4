"""One score from the energies of all layers: the candidates for "Ag-EBO" of Guglielmo & Masana, CVWW 2025.

The paper's own rule is not published; these are the ones of our specification (section 2.6), so their numbers are ours.
An aggregator is fitted to the energies (f, L) of in-distribution images and gives a function of energies (n, L) to scores
(n,), higher for outliers. Each is invariant to shifting and positively scaling any layer's energies.
"""

from collections.abc import Callable

import numpy as np

from lib.core.errors import UserError
from lib.core.registry import resolve
from lib.metrics import ood_detection
from lib.ood import comparison, standardize
from lib.ood.flags import AGGREGATORS

EnergyScore = Callable[[np.ndarray], np.ndarray]  # energies (n, L) -> (n,)

ORACLE_NEEDS = "labels of the test outliers: an upper bound"
NEIGHBOURS = 50


def needs(name: str) -> str:
    """The data that an aggregator needs, as its rows say it."""
    special = {
        "logreg": "ID images and validation outliers",
        "mean": "ID images, one sign for all layers",
        "oracle": ORACLE_NEEDS,
    }
    return special.get(name, "ID images")


def fit(name: str, inside: np.ndarray, outliers: np.ndarray | None = None) -> EnergyScore:
    """The aggregator `name`, not the oracle, fitted to in-distribution (f, L), and for logreg also outliers' energies."""
    function = resolve(AGGREGATORS[name])
    return function(inside, outliers) if name == "logreg" else function(inside)


def mean(inside: np.ndarray) -> EnergyScore:
    """The mean z: supposes that outliers have the higher energy in every layer."""
    scale = standardize.standardise(inside)
    return lambda energies: scale.z(energies).mean(1)


def absmean(inside: np.ndarray) -> EnergyScore:
    """The mean |z|."""
    scale = standardize.standardise(inside)
    return lambda energies: np.abs(scale.z(energies)).mean(1)


def sq(inside: np.ndarray) -> EnergyScore:
    """The sum of z^2."""
    scale = standardize.standardise(inside)
    return lambda energies: (scale.z(energies) ** 2).sum(1)


def maha(inside: np.ndarray, shrunk: bool = True) -> EnergyScore:
    """The squared Mahalanobis distance with the layers' covariance, shrunk after Ledoit & Wolf 2004.

    Shrinking is towards a multiple of the identity, which is no matter of units because it is done on z. Not `shrunk`: the
    sample covariance, with f - 1. Raises `UserError` for images too few to have one with an inverse.
    """
    scale = standardize.standardise(inside)
    if shrunk:
        precision = standardize.shrunk_precision(scale.fitted, "--aggregate maha")
    else:
        precision = np.linalg.inv(np.atleast_2d(np.cov(scale.fitted, rowvar=False)))

    def score(energies: np.ndarray) -> np.ndarray:
        z = scale.z(energies)
        return ((z @ precision) * z).sum(1)

    return score


def knn(inside: np.ndarray) -> EnergyScore:
    """The distance in z-space to the 50th nearest in-distribution image."""
    scale = standardize.standardise(inside)
    nearest = neighbour_distance(scale.fitted)
    return lambda energies: nearest(scale.z(energies))


def fisher(inside: np.ndarray) -> EnergyScore:
    """Fisher's combination -2 sum log p, p the two-sided share of in-distribution energies as extreme: (k + 1)/(f + 1)."""
    scale = standardize.standardise(inside)
    ordered, f = np.sort(scale.fitted, 0), len(scale.fitted)

    def score(energies: np.ndarray) -> np.ndarray:
        z = scale.z(energies)
        total = np.zeros(len(z))
        for column, values in zip(ordered.T, z.T, strict=True):
            up_to, at_least = np.searchsorted(column, values, "right"), f - np.searchsorted(column, values, "left")
            total = total - 2 * np.log(np.minimum(2 * (np.minimum(up_to, at_least) + 1) / (f + 1), 1))
        return total

    return score


def largest(inside: np.ndarray) -> EnergyScore:
    """The largest rank of |z| over the layers."""
    scale = standardize.standardise(inside)
    fitted = np.abs(scale.fitted)
    return lambda energies: standardize.ranks(np.abs(scale.z(energies)), fitted).max(1)


def logreg(inside: np.ndarray, outliers: np.ndarray) -> EnergyScore:
    """Logistic regression on z between in-distribution images and validation outliers, both sides weighing the same."""
    from sklearn.linear_model import LogisticRegression

    scale = standardize.standardise(inside)
    other = scale.z(outliers)
    sides = np.r_[np.zeros(len(scale.fitted)), np.ones(len(other))]
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(np.concatenate([scale.fitted, other]), sides)
    return lambda energies: model.decision_function(scale.z(energies))


def oracle(layers: list[str], inside: np.ndarray, outside: np.ndarray) -> comparison.Score:
    """The energy of the single layer, with the sign, that is best on the test pair itself: an upper bound, and no test."""
    auroc = ood_detection.auroc(inside, outside)
    best = int(np.argmax(np.abs(auroc - 0.5)))
    sign = 1 if auroc[best] >= 0.5 else -1
    about = {"layer": "all layers", "score": "oracle", "needs": ORACLE_NEEDS, "chosen_layer": layers[best]}
    return comparison.Score(about, sign * inside[:, best], sign * outside[:, best], tested=False)


def neighbour_distance(bank: np.ndarray) -> EnergyScore:
    """The Euclidean distance to the 50th nearest of a bank (f, d); exact, in float32."""
    if len(bank) < NEIGHBOURS:
        raise UserError(f"--fit-examples: {len(bank)} images have no {NEIGHBOURS}th neighbour, which knn needs")
    import faiss

    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(np.ascontiguousarray(bank, np.float32))

    def score(points: np.ndarray) -> np.ndarray:
        squares, _ = index.search(np.ascontiguousarray(points, np.float32), NEIGHBOURS)
        return np.sqrt(np.maximum(squares[:, -1], 0)).astype(np.float64)

    return score
