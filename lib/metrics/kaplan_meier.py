"""Means of what was not always observed: a radius that no attack found is known to be no smaller than what was tried."""

import numpy as np


def restricted_mean(values: np.ndarray, observed: np.ndarray) -> float:
    """The Kaplan-Meier mean up to the largest value; values (n,) that were not observed are lower bounds.

    The area under the product-limit estimate of P(value > t); the plain mean if all were observed. If the largest value
    is a bound, the mean is one, too.
    """
    order = np.lexsort((~observed, values))  # of equal values the observed come first
    values, observed = np.asarray(values, float)[order], observed[order]
    n = len(values)
    # the share that survives before each value
    factors = 1 - observed / np.arange(n, 0, -1)
    survival = np.concatenate([[1.0], np.cumprod(factors)[:-1]])
    return float((np.diff(values, prepend=0.0) * survival).sum())
