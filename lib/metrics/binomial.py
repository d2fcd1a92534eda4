"""Exact probabilities of counts. Free of torch.

Under any symmetric initialisation a filter points to either side with probability 1/2, so that the number that point away
from a direction is binomial (`filter_projections`).
"""

from scipy import stats


def interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval (Clopper & Pearson 1934) of a probability that came true `count` times in n."""
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, count, n - count + 1) if count > 0 else 0.0
    high = stats.beta.ppf(1 - tail, count + 1, n - count) if count < n else 1.0
    return float(low), float(high)


def p_value(count: int, n: int) -> float:
    """Two-sided exact p-value of `count` in n under probability 1/2."""
    return float(stats.binomtest(count, n).pvalue)


def null_band(n: int, level: float = 0.95) -> tuple[float, float]:
    """Where the share of n lies with probability `level` or more if each is as likely to count as not."""
    tail = (1 - level) / 2
    return float(stats.binom.ppf(tail, n, 0.5) / n), float(stats.binom.ppf(1 - tail, n, 0.5) / n)
