"""Whether our mean and a published one can be of the same thing: a t-test in which both have the noise of seeds.

A published number is a mean of m runs, too, of one where the paper names no more. Under exact reproduction the difference of
the means has the variance sigma^2 (1/n + 1/m), whatever n is; an interval of our mean alone leaves out the 1/m.
"""

import itertools
import math

LEVEL = 0.95
APART = 5.0  # deviations that a comparison has to tell apart
POWER = 0.8  # as often as that


def margin(
    deviation: float | None, n: int, published_runs: int = 1, published_deviation: float | None = None
) -> float | None:
    """How far the means of n and m runs are apart at most in 95 % of exact reproductions.

    deviation             the sample deviation of our n runs, None of a single one
    published_deviation   that of the m = published_runs runs behind the published number, where the paper states it

    Student's t with the pooled variance: t * s * sqrt(1/n + 1/m), with n - 1 degrees of freedom and m - 1 more where both
    deviations are known. None where neither is.
    """
    degrees, squares = 0, 0.0
    for spread, count in ((deviation, n), (published_deviation, published_runs)):
        if spread is not None and count > 1:
            degrees += count - 1
            squares += (count - 1) * spread**2
    return _quantile(degrees) * math.sqrt(squares / degrees * (1 / n + 1 / published_runs)) if degrees else None


def tells(n: int, published_runs: int = 1, stated: bool = False) -> bool:
    """Whether that t-test finds a difference of five deviations in four of five cases at least.

    stated   whether the deviation of the published runs is known
    """
    from scipy.special import nctdtr

    degrees = n - 1 + (published_runs - 1 if stated else 0)
    if degrees < 1:
        return False
    shift = APART / math.sqrt(1 / n + 1 / published_runs)
    return 1 - float(nctdtr(degrees, shift, _quantile(degrees))) >= POWER


def enough(published_runs: int = 1, stated: bool = False) -> int:
    """The least number of seeds that tells five deviations apart."""
    return next(n for n in itertools.count(1) if tells(n, published_runs, stated))


def _quantile(degrees: int) -> float:
    from scipy.special import stdtrit  # tables of one seed need no scipy

    return float(stdtrit(degrees, (1 + LEVEL) / 2))
