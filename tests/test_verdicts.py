"""Verdicts of a paper's table: how often an exact reproduction is judged apart, and a difference is found."""

import numpy as np
import pytest
from scipy import stats

from lib.tables import compare, verdicts
from lib.tables.papers.published import Published
from lib.tables.papers.spec import Cell

CELL = Cell((), {}, {}, {}, "ncg")


def judged(ours: np.ndarray, theirs: np.ndarray, stated: bool) -> list[str]:
    """The verdicts of our runs (trials, n) on the means of published runs (trials, m), whose deviation is stated or not."""
    made = []
    for own, other in zip(ours, theirs, strict=True):
        deviation = float(other.std(ddof=1)) if stated else None
        known = Published(float(other.mean()), "", "", "", runs=len(other), deviation=deviation)
        made.append(compare.Comparison((), CELL, known, values=own.tolist()).verdict)
    return made


@pytest.mark.parametrize("m", [1, 3, 5])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 20])
def test_an_exact_reproduction_is_judged_apart_in_a_twentieth_of_all_cases(n, m):
    draw = np.random.default_rng(100 * n + m)
    for stated in (False, True) if m > 1 else (False,):
        words = judged(draw.normal(size=(600, n)), draw.normal(size=(600, m)), stated)
        assert stats.binomtest(sum(word in ("above", "below") for word in words), 600, 0.05).pvalue > 1e-3


@pytest.mark.parametrize("m", [1, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10])
def test_what_is_five_deviations_away_rarely_agrees(n, m):
    draw = np.random.default_rng(100 * n + m)
    for stated in (False, True) if m > 1 else (False,):
        words = judged(draw.normal(5, size=(600, n)), draw.normal(size=(600, m)), stated)
        assert words.count("agrees") <= 0.2 * 600 + 3 * (600 * 0.2 * 0.8) ** 0.5
        assert "agrees" not in words or verdicts.tells(n, m, stated)
        if verdicts.tells(n, m, stated):
            assert "too few seeds" not in words


def test_the_margin_is_students_with_the_pooled_deviation():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=6), draw.normal(size=4)
    margin = verdicts.margin(x.std(ddof=1), 6, 4, y.std(ddof=1))
    assert margin is not None
    interval = stats.ttest_ind(x, y).confidence_interval(0.95)
    assert margin == pytest.approx((interval.high - interval.low) / 2)
    assert verdicts.margin(None, 1, 1) is None and verdicts.margin(None, 1, 5, 0.1) is not None


def test_enough_seeds_are_the_fewest_that_tell():
    for m, stated in ((1, False), (3, False), (5, True)):
        least = verdicts.enough(m, stated)
        assert verdicts.tells(least, m, stated) and not any(verdicts.tells(n, m, stated) for n in range(1, least))
    assert verdicts.enough() == 4


def test_runs_that_are_equal_by_chance_do_not_judge_until_they_are_enough():
    known = Published(0.5, "", "", "")
    assert compare.Comparison((), CELL, known, values=[0.6, 0.6]).verdict == "too few seeds"
    assert compare.Comparison((), CELL, known, values=[0.6] * 4).verdict == "above"
