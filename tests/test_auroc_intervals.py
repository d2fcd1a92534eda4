"""Intervals of AUROCs: how often they hold the truth, how wide they are, and what they are at the ends."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from lib.metrics import ood_detection


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def newcombe(auroc, n: int, m: int):
    """Method 5 of Newcombe 2006: Hanley & McNeil's variance, with (n + m) / 2 for either size, at every A of a grid."""
    grid = 1 / (1 + np.exp(-np.linspace(-13, 13, 4000)))
    weight = (n + m) / 2 - 1
    spread = grid * (1 - grid) * (1 + weight * ((1 - grid) / (2 - grid) + grid / (1 + grid))) / (n * m)
    inside = np.abs(auroc[:, None] - grid) <= 1.96 * np.sqrt(spread)
    low, high = grid[inside.argmax(1)], grid[len(grid) - 1 - inside[:, ::-1].argmax(1)]
    return np.where(auroc > 0, low, 0), np.where(auroc < 1, high, 1)


def on_the_logit_scale(auroc, error):
    """DeLong's interval, symmetric on the logit scale: a point at 0 and 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logit, reach = np.log(auroc / (1 - auroc)), 1.96 * error / (auroc * (1 - auroc))
        low, high = (1 / (1 + np.exp(-(logit + step))) for step in (-reach, reach))
    return np.where(reach > 0, low, auroc), np.where(reach > 0, high, auroc)


@pytest.mark.parametrize("n, m", [(50, 50), (500, 500), (500, 10), (1000, 5), (5, 1000)])
@pytest.mark.parametrize("truth", [0.5, 0.9, 0.99, 0.999])
def test_intervals_hold_the_truth_up_to_the_ends_and_are_hardly_wider_than_the_best_that_do(n, m, truth):
    draw, repeats = rng(6), 500
    outside = draw.normal(math.sqrt(2) * norm.ppf(truth), size=(m, repeats))
    placed = ood_detection.placements(draw.normal(size=(n, repeats)), outside)
    # the variance (repeats,) of each AUROC, which is the diagonal of the covariance
    error = np.sqrt(placed.inside.var(0, ddof=1) / n + placed.outside.var(0, ddof=1) / m)
    assert np.allclose(error[:5] ** 2, np.diag(placed.covariance())[:5])
    found = [
        ood_detection.interval(placed.auroc, error, n, m),
        ood_detection.interval(placed.auroc, np.zeros(repeats), n, m),
        newcombe(placed.auroc, n, m),
        on_the_logit_scale(placed.auroc, error),
    ]
    held = [((low <= truth) & (truth <= high)).mean() for low, high in found]
    width = [(high - low).mean() for low, high in found]
    assert held[0] >= 0.93
    best = min(wide for wide, share in zip(width, held, strict=True) if share >= 0.93)
    assert width[0] <= 1.3 * best
    assert (found[0][0] >= 0).all() and (found[0][0] <= placed.auroc).all()
    assert (placed.auroc <= found[0][1]).all() and (found[0][1] <= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("n, m", [(50, 50), (500, 500), (50, 500), (500, 50), (500, 10), (10, 500), (1000, 5), (5, 1000)])
@pytest.mark.parametrize("other, least", [("equal", 0.945), ("wide", 0.84), ("exponential", 0.74)])
def test_intervals_hold_what_their_description_says(n, m, other, least):
    draw, repeats = rng(7), 2000
    for truth in (0.5, 0.7, 0.9, 0.95, 0.99, 0.999):
        if other == "exponential":
            inside = draw.exponential(size=(n, repeats))
            outside = draw.exponential(truth / (1 - truth), size=(m, repeats))
        else:
            deviation = 3 if other == "wide" else 1
            inside = draw.normal(size=(n, repeats))
            outside = draw.normal(math.hypot(1, deviation) * norm.ppf(truth), deviation, size=(m, repeats))
        placed = ood_detection.placements(inside, outside)
        error = np.sqrt(placed.inside.var(0, ddof=1) / n + placed.outside.var(0, ddof=1) / m)
        low, high = ood_detection.interval(placed.auroc, error, n, m)
        assert ((low <= truth) & (truth <= high)).mean() >= least, (truth, other)


def test_an_interval_solves_its_equation_turns_round_with_the_score_and_has_a_width_at_the_ends():
    auroc, error = np.array([0.0, 0.3, 0.5, 0.99, 1.0]), np.array([0.0, 0.0, 0.2, 0.001, 0.0])
    low, high = ood_detection.interval(auroc, error, 40, 30)
    other_low, other_high = ood_detection.interval(1 - auroc, error, 40, 30)
    assert np.allclose(low, 1 - other_high) and np.allclose(high, 1 - other_low)
    assert low[0] == 0 and high[-1] == 1 and 0.02 < high[0] < 0.06 and high[2] - low[2] > 0.5
    # of an AUROC of 1/2 the variance is that of Mann & Whitney, (n + m + 1) / 12 n m
    assert ood_detection._normal_deviation(np.array(0.5), 40, 30) == pytest.approx(math.sqrt(71 / (12 * 40 * 30)))
    assert 0.3 - low[1] - 0.5 / 1200 == pytest.approx(1.959964 * ood_detection._normal_deviation(low[1], 40, 30), abs=1e-9)
