"""What holds of layers after one has looked at the AUROCs of all of them, on the very images that they are measured on.

OOD-layers paper, claim C2: the best layer is another one for every kind of outlier, so that one is always picked after the
fact. The energy's sign is picked with it: the AUROC meant here is that of the better sign, `auroc_oracle_sign`.
"""

from functools import lru_cache

import numpy as np
from scipy.stats import rankdata

from lib.core import randomness
from lib.metrics import ood_detection, permutation_null
from lib.metrics.best_set import best_set, gain_bounds
from lib.metrics.ood_detection import Placements

DRAWS = 199  # permutations of the two groups
COLUMNS = ("null_mean", "null_q95", "p_null", "p_best", "in_best_set", "in_best_set_two_sided", "gain_bound")


def after_selection(inside: np.ndarray, outside: np.ndarray, two_sided: Placements, final: int, seed: int = 0) -> list[dict]:
    """The columns `COLUMNS` of every layer, from energies (n, L), (m, L) and the placements of two-sided scores.

    null_mean, null_q95, p_null   of auroc_oracle_sign where in- and out-of-distribution images are dealt out anew
    p_best                        the same after a look at all layers
    in_best_set                   whether the layer may have the highest auroc_oracle_sign: one of the set has, with 95 %
    in_best_set_two_sided         the same of auroc_two_sided
    gain_bound                    auroc_oracle_sign is at least so much above that of layer `final`, of all layers at once
                                  with 95 %; None for `final` itself

    All None with fewer than 3 images of either side.
    """
    if min(len(inside), len(outside)) < ood_detection.FEWEST:
        return [dict.fromkeys(COLUMNS) for _ in inside.T]
    null = auroc_null(inside, outside, seed)
    placed = ood_detection.placements(inside, outside)
    within, bounds = of_either_sign(placed, final)
    columns = {
        "null_mean": null.mean + 0.5,
        "null_q95": null.q95 + 0.5,
        "p_null": null.p,
        "p_best": null.p_best,
        "in_best_set": within,
        "in_best_set_two_sided": best_set(two_sided.auroc, two_sided.covariance()),
    }
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*(one.tolist() for one in columns.values()), strict=True)
    ]
    for number, row in enumerate(rows):
        row["gain_bound"] = None if number == final else bounds[number].item()
    return rows


def auroc_null(inside: np.ndarray, outside: np.ndarray, seed: int = 0, draws: int = DRAWS) -> permutation_null.Null:
    """The null of |AUROC - 1/2| of scores (n, L) and (m, L): who is in distribution is dealt out anew, for all L alike."""
    n, m = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]), axis=0)
    members = np.concatenate([np.arange(n + m)[None] >= n, _deals(n, m, draws, seed)])
    sums = members.astype(float) @ (ranks - (n + m + 1) / 2)  # of the outliers, from the middle: 0 for an AUROC of 1/2
    strength = np.abs(sums) / (n * m)
    return permutation_null.calibrate(strength[0], strength[1:])


def of_either_sign(placed: Placements, final: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of L layers may be the best with the better sign, (L,), and lower bounds (L,) of what each is above `final`.

    Both signs of every layer are scores of their own, so that a sign that the images do not tell is no certain one.
    """
    layers, covariance = len(placed.auroc), placed.covariance()
    both = np.concatenate([placed.auroc, 1 - placed.auroc])
    signed = np.block([[covariance, -covariance], [-covariance, covariance]])
    up, down = best_set(both, signed).reshape(2, layers)
    bounds = gain_bounds(both, signed, np.array([final, final + layers]))
    return up | down, np.maximum(bounds[:layers], bounds[layers:])


@lru_cache(maxsize=2)
def _deals(n: int, m: int, draws: int, seed: int) -> np.ndarray:
    """Random divisions (draws, n + m) of images into n and m: true for the m."""
    draw = randomness.numpy_generator(seed, "null", n, m)
    members = np.zeros((draws, n + m), bool)
    for one in members:
        one[draw.permutation(n + m)[:m]] = True
    return members
