"""p-values of several tests of one family."""

from collections.abc import Sequence

import numpy as np


def holm(p: np.ndarray | Sequence[float]) -> np.ndarray:
    """p-values (k,) such that rejecting those below alpha makes one error or more with probability at most alpha.

    Holm 1979: step down from the smallest, multiplied by the number of those that are left; at most 1. NaN stands for a
    test that was not made: it stays NaN and is not counted.
    """
    p = np.asarray(p, float)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted
