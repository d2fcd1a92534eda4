"""Distribution-free intervals of AUROC and FPR hold the truth whatever the scores are, and are as they are defined."""

import math

import numpy as np
import pytest
from scipy import stats

from lib.experiments.config.ood_layers import OodLayersConfig
from lib.experiments.ood_layers import ood_layers
from lib.metrics import distribution_free, ood_detection
from lib.runs import cli

SIZES = [(50, 50), (100, 100), (500, 500), (100, 1000), (1000, 20)]


def problem(draw, kind, moved, n, m, repeats):
    """Scores (n, repeats) and (m, repeats) of a kind, and the true AUROC and FPR."""
    if kind == "exponential":
        scale = 1 + 3 * moved
        scores = draw.exponential(size=(n, repeats)), draw.exponential(scale, size=(m, repeats))
        return *scores, scale / (1 + scale), 1 - 0.05 ** (1 / scale)
    deviation = 3 if kind == "wide" else 1
    inside, outside = draw.normal(size=(n, repeats)), draw.normal(moved, deviation, size=(m, repeats))
    if kind != "rounded":
        auroc = stats.norm.cdf(moved / math.hypot(1, deviation))
        return inside, outside, auroc, stats.norm.cdf((stats.norm.ppf(0.95) - moved) / deviation)
    grid = np.arange(-12, 16)
    ours, theirs = (stats.norm.cdf(grid + 0.5 - at) - stats.norm.cdf(grid - 0.5 - at) for at in (0, moved))
    below = np.cumsum(ours)
    fpr = theirs[: (below >= 0.95).argmax() + 1].sum()
    return np.round(inside), np.round(outside), (theirs * (below - ours / 2)).sum(), fpr


def coverage(kind, moved, n, m, repeats, seed=0):
    """In which shares of problems the intervals of AUROC and FPR hold the truth."""
    inside, outside, auroc, fpr = problem(np.random.default_rng(seed), kind, moved, n, m, repeats)
    ends = distribution_free.auroc_interval(ood_detection.auroc(inside, outside), n, m)
    both = (auroc, ends), (fpr, distribution_free.fpr_interval(inside, outside))
    return [((low <= truth + 1e-12) & (truth <= high + 1e-12)).mean() for truth, (low, high) in both]


@pytest.mark.parametrize("kind", ["normal", "wide", "exponential", "rounded"])
def test_intervals_hold_the_truth_in_nineteen_of_twenty_problems_or_more(kind):
    for moved in (0, 1.5, 3.5):
        assert min(coverage(kind, moved, 100, 100, 200)) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("n, m", SIZES)
@pytest.mark.parametrize("kind", ["normal", "wide", "exponential", "rounded"])
def test_intervals_hold_the_truth_over_two_thousand_problems(kind, n, m):
    for moved in (0, 1.5, 3.5):
        held = coverage(kind, moved, n, m, 2000, seed=1)
        print(moved, held)
        assert min(held) >= 0.95


def test_the_ends_of_an_auroc_diverge_from_it_by_the_bound_and_it_lies_between_them():
    shares = np.array([0.0, 0.2, 0.5, 0.97, 1.0])
    low, high = distribution_free.auroc_interval(shares, 300, 80)
    reach = math.log(40) / 80
    for share, ends in zip(shares, zip(low, high, strict=True), strict=True):
        for end in ends:
            diverges = stats.entropy([share, 1 - share], [end, 1 - end]) if 0 < end < 1 else None
            assert diverges == pytest.approx(reach, abs=1e-9) if diverges is not None else end == share
    assert low[0] == 0 and high[-1] == 1 and high[0] == pytest.approx(1 - math.exp(-reach)) == 1 - low[-1]
    assert (low[1:-1] < shares[1:-1]).all() and (high[1:-1] > shares[1:-1]).all()
    half = distribution_free.auroc_interval(np.array(0.5), 1000, 1000)[1] - 0.5
    assert half == pytest.approx(0.043, abs=1e-3) and half < 2 * math.sqrt(math.log(4 / 0.05) / 2000) / 2


def test_the_quantile_of_the_inliers_lies_between_the_two_places_as_often_as_the_binomial_says():
    lower, upper = distribution_free._places(200, 0.95, 0.0125)
    # the score at place k is above the quantile if fewer than k are at or below it
    assert stats.binom.cdf(lower - 1, 200, 0.95) <= 0.0125 < stats.binom.cdf(lower, 200, 0.95)
    assert stats.binom.sf(upper - 1, 200, 0.95) <= 0.0125 < stats.binom.sf(upper - 2, 200, 0.95)
    assert distribution_free._places(85, 0.95, 0.0125)[1] == 86 and distribution_free._places(86, 0.95, 0.0125)[1] == 86
    assert distribution_free._places(3, 0.95, 0.0125)[0] == 2  # two or three of three at or below it in 0.993


def test_the_bounds_of_an_fpr_are_exact_binomial_ones_at_the_two_thresholds():
    draw = np.random.default_rng(3)
    inside, outside = draw.normal(size=(200, 2)), draw.normal(1, size=(90, 2))
    low, high = distribution_free.fpr_interval(inside, outside)
    lower, upper = distribution_free._places(200, 0.95, 0.0125)
    for column in range(2):
        ordered = sorted(inside[:, column])
        counts = [(outside[:, column] <= ordered[place - 1]).sum() for place in (lower, upper)]
        exact = [stats.binomtest(int(count), 90).proportion_ci(0.975, "exact") for count in counts]
        assert low[column] == pytest.approx(exact[0].low) and high[column] == pytest.approx(exact[1].high)
    few = distribution_free.fpr_interval(inside[:85], outside)
    assert few[1].tolist() == [1, 1] and (few[0] <= high).all()
    same = distribution_free.fpr_interval(np.zeros((200, 1)), np.zeros((90, 1)))
    assert same[1] == 1 and same[0] > 0.9
    apart = distribution_free.fpr_interval(np.zeros((200, 1)), np.ones((90, 1)))
    assert apart[0] == 0 and apart[1] < 0.06


def test_rows_have_intervals_but_what_was_chosen_on_the_test_images_and_no_other_number_changes(trained, monkeypatch):
    monkeypatch.chdir(trained)
    words = [
        "models/a/model_2.pt",
        "-ood",
        "digits-c/fog-3",
        "-T",
        "1",
        "2",
        "-l",
        "features.*",
        "--aggregate",
        "mean",
        "oracle",
    ]
    words += ["--layer-detectors", "knn", "--choose", "entropy", "--quiet", "-gpu", "-1"]
    plain, found = (ood_layers(cli.parse(OodLayersConfig, [*words, *more])) for more in ((), ("--conformal",)))
    names = distribution_free.COLUMNS
    assert [{name: one for name, one in row.items() if name not in names} for row in found.rows] == plain.rows
    assert not any(name in row for row in plain.rows for name in names)
    for row in found.rows:
        assert (row.get("auroc_low") is None) == (row["score"] == "oracle"), row["score"]
        if row.get("auroc_low") is not None:
            assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
            assert row["fpr95_low"] <= row["fpr95"] <= row["fpr95_high"]
    layers = found.arrays["layers"].tolist()
    for number, temperature in enumerate((1, 2)):
        for row in found.rows:
            if row["score"] == "energy" and row["T"] == temperature and row["layer"] in layers:
                one = [
                    found.arrays[f"energies_{key}"][:, layers.index(row["layer"]), number]
                    for key in ("id", "digits-c/fog-3")
                ]
                assert {name: row[name] for name in names} == pytest.approx(distribution_free.columns(*one, row["auroc"]))
