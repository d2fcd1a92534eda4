"""The nearest-category score and what it is compared with."""

import math

import numpy as np
import pytest
import sklearn.metrics
from scipy import stats

from lib import datasets
from lib.metrics import nearest_category as ncg
from lib.metrics.kaplan_meier import restricted_mean
from lib.nearest_category import rows
from lib.nearest_category.neighbors import Points, table


def labels(seed: int, n: int = 500, classes: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, n)


@pytest.mark.parametrize(
    "n, hits, classes, statistic",
    [
        (7877, 880, 9, 0.02934175448),
        (6958, 4615, 9, 21478.315051),
        (6000, 4771, 9, 28426.8691875),
        (1350, 183, 99, 2124.9606122),
    ],
)
def test_chi_square_has_the_published_statistics(n, hits, classes, statistic):
    assert ncg.chi_square(n, hits, classes)[0] == pytest.approx(statistic, rel=1e-7)
    expected = stats.chisquare([n - hits, hits], [n * (classes - 1) / classes, n / classes])
    assert ncg.chi_square(n, hits, classes) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_chi_square_of_digit_one_is_not_significant():
    assert ncg.chi_square(7877, 880, 9)[1] == pytest.approx(0.86399232, rel=1e-7)


@pytest.mark.parametrize("hits", [0, 10])
def test_all_hits_and_no_hits_have_finite_measures(hits):
    predicted, nearest = np.arange(10) % 5, (np.arange(10) + (hits == 0)) % 5
    assert int((predicted == nearest).sum()) == hits
    statistic, p = ncg.chi_square(10, hits, 5)
    low, high = ncg.wilson(hits, 10)
    assert np.isfinite(statistic) and 0 <= p <= 1 and (low == 0) == (hits == 0) and (high == 1) == (hits == 10)
    assert 0 < high - low < 0.5 and ncg.kappa(predicted, nearest) == (1 if hits else -0.25)
    assert ncg.conditional_accuracy(predicted == 0, predicted == nearest)["p_welch"] is None


def test_wilson_is_the_interval_of_scipy():
    for hits, n in [(1, 20), (880, 7877), (19, 20)]:
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert ncg.wilson(hits, n) == pytest.approx((expected.low, expected.high))
    assert ncg.wilson(0, 0) == (0, 1)


def test_kappa_is_cohens():
    predicted, nearest = labels(0), np.where(labels(1) < 3, labels(0), labels(2))
    assert ncg.kappa(predicted, nearest) == pytest.approx(sklearn.metrics.cohen_kappa_score(predicted, nearest))
    assert ncg.kappa(np.zeros(9, int), np.zeros(9, int)) is None


def test_a_constant_classifier_scores_the_share_of_its_label_and_the_best_one_the_majority():
    nearest = labels(3)
    for label in range(7):
        constant = np.full(len(nearest), label)
        share = (nearest == label).mean()
        assert (constant == nearest).mean() == share
        assert ncg.independence(constant, nearest) == pytest.approx(share)
        assert ncg.kappa(constant, nearest) == pytest.approx(0, abs=1e-12)
    assert ncg.majority(nearest) == max((nearest == label).mean() for label in range(7))


def test_the_nearest_neighbour_itself_scores_one_and_a_constant_the_share_of_its_label():
    """The nearest-category page, section 8, check 1, through the rows: images of an unseen class, and of seen ones."""
    training = datasets.load("digits-wo3", "data", "train")
    for part in ("ood", "test"):
        queries = datasets.load("digits-wo3", "data", part)
        found = table(Points("queries", queries.images), Points("training", training.images), training.labels, 9)
        nearest = found.nearest().labels.numpy()

        def scored(predicted, found=found, nearest=nearest):
            return rows.rows({}, predicted, nearest, found, 255, classes=9, seed=0)

        whole, *fifths = scored(nearest)
        assert whole["hits"] == whole["n"] == len(queries) and whole["ncg"] == 1.0 == whole["kappa"]
        assert all(fifth["ncg"] == 1.0 for fifth in fifths) and whole["p_permutation"] < 1e-3
        for label in range(9):
            assert scored(np.full(len(queries), label))[0]["hits"] == int((nearest == label).sum())
        order = np.random.default_rng(0).permutation(9)
        predicted = np.random.default_rng(1).integers(0, 9, len(queries))
        assert scored(order[predicted], nearest=order[nearest])[0]["hits"] == scored(predicted)[0]["hits"]


def test_one_relabelling_of_training_labels_and_predictions_changes_nothing():
    predicted, nearest = labels(4), np.where(labels(5) < 3, labels(4), labels(6))
    order = np.random.default_rng(0).permutation(7)
    for measure in (
        ncg.kappa,
        ncg.independence,
        lambda predicted, nearest: ncg.majority(nearest),
        lambda predicted, nearest: (predicted == nearest).sum(),
    ):
        assert measure(order[predicted], order[nearest]) == pytest.approx(measure(predicted, nearest), rel=1e-12)


@pytest.mark.parametrize("classes", [3, 12], ids=["from tables", "from orders"])
def test_the_permutation_p_is_that_of_permuting_the_predictions(classes):
    generator = np.random.default_rng(0)
    predicted = labels(7, 40, classes)
    nearest = np.where(np.arange(40) < 18 // classes, predicted, labels(10, 40, classes))
    hits = (predicted == nearest).sum()
    slow = np.mean([(generator.permutation(predicted) == nearest).sum() >= hits for _ in range(20_000)])
    assert 0.02 < slow < 0.5
    assert ncg.permutation_p(predicted, nearest, np.random.default_rng(1)) == pytest.approx(slow, abs=0.02)
    assert ncg.permutation_p(predicted, predicted, np.random.default_rng(1)) == 1 / 10_001
    constant = np.zeros(40, int)
    assert ncg.permutation_p(constant, nearest, np.random.default_rng(1)) == 1


def test_only_images_that_one_network_hits_decide_the_paired_comparison():
    counts = [50, 8, 1, 40]
    ours, theirs = np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)
    found = ncg.paired(ours, theirs)
    assert (found["gained"], found["lost"]) == (8, 1)
    assert found["p_paired"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert ncg.paired(ours, ours)["p_paired"] == 1


@pytest.mark.parametrize("n", [3, 5, 103])
def test_distance_bins_partition_the_images_from_near_to_far(n):
    distances = np.random.default_rng(0).random(n)
    bins = ncg.distance_bins(distances)
    assert len(bins) == 5 and sorted(np.concatenate(bins)) == list(range(n))
    assert max(map(len, bins)) - min(map(len, bins)) <= 1
    filled = [distances[part] for part in bins if len(part)]
    assert all(near.max() <= far.min() for near, far in zip(filled, filled[1:], strict=False))


def test_accuracies_on_hits_and_misses_make_the_whole():
    generator = np.random.default_rng(0)
    hits = generator.random(300) < 0.3
    correct = generator.random(300) < np.where(hits, 0.8, 0.4)
    found = ncg.conditional_accuracy(correct, hits)
    whole = found["accuracy_hits"] * hits.mean() + found["accuracy_misses"] * (1 - hits.mean())
    assert whole == pytest.approx(correct.mean(), abs=1e-12)
    expected = stats.ttest_ind(correct[hits].astype(float), correct[~hits], equal_var=False, alternative="greater")
    assert found["p_welch"] == pytest.approx(expected.pvalue) and found["p_welch"] < 0.01
    assert ncg.conditional_accuracy(correct, ~hits)["p_welch"] > 0.99
    nothing = ncg.conditional_accuracy(correct, np.ones(300, bool))
    assert nothing["accuracy_misses"] is None and nothing["p_welch"] is None


def test_hits_that_are_all_right_beside_misses_that_are_all_wrong_are_significant():
    hits = np.arange(10) < 6
    found = ncg.conditional_accuracy(hits, hits)
    assert found["accuracy_hits"] == 1 and found["accuracy_misses"] == 0
    assert found["p_welch"] == pytest.approx(1 / math.comb(10, 6))  # the one choice of six images out of ten
    assert ncg.conditional_accuracy(~hits, hits)["p_welch"] == pytest.approx(1)
    assert ncg.conditional_accuracy(np.ones(10, bool), hits)["p_welch"] == pytest.approx(1)
    few = np.arange(4) < 2
    assert ncg.conditional_accuracy(few, few)["p_welch"] == pytest.approx(1 / 6)


def test_slopes_are_those_of_least_squares_over_a_quarter_of_the_level():
    levels, values = np.arange(1, 6), np.array([0.9, 0.85, 0.7, 0.66, 0.5])
    found = ncg.slope(levels, values)
    assert found[0] == pytest.approx(np.polyfit(levels / 4, values, 1)[0])
    flat = (0.0, found[1])
    differ = ncg.slopes_differ(found, flat, 5)
    assert differ["p_slope_less"] < 0.01 and differ["p_slope_two_sided"] == pytest.approx(2 * differ["p_slope_less"])
    assert ncg.slopes_differ(flat, flat, 5)["p_slope_two_sided"] == 1
    expected = stats.ttest_ind_from_stats(found[0], found[1] * 2, 4, 0, found[1] * 2, 4, alternative="less")
    assert differ["p_slope_less"] == pytest.approx(expected.pvalue)  # four and four observations have six degrees, too


def test_cells_are_compared_one_by_one():
    found = ncg.compare_cells([0.2, 0.3, 0.1], [0.1, 0.3, 0.0])
    assert found["cells_above"] == 2 and found["difference"] == pytest.approx(0.2 / 3)
    assert found["difference_se"] == pytest.approx(np.std([0.1, 0, 0.1], ddof=1) / np.sqrt(3))
    assert found["ratio"] == pytest.approx(1.5) and found["ratio_se"] == pytest.approx(0.5)  # 2 and 1: theirs is never 0
    alone = ncg.compare_cells([0.2], [0.0])
    assert alone["ratio"] is None and alone["difference_se"] is None and alone["cells_above"] == 1


def test_the_kaplan_meier_mean_is_the_mean_if_all_is_observed_and_scipys_area_if_not():
    generator = np.random.default_rng(0)
    values = generator.exponential(size=200).round(1)
    assert restricted_mean(values, np.ones(200, bool)) == pytest.approx(values.mean())
    observed = generator.random(200) < 0.7
    estimate = stats.ecdf(stats.CensoredData(uncensored=values[observed], right=values[~observed])).sf
    times = np.concatenate([[0], estimate.quantiles])
    area = (np.diff(times) * np.concatenate([[1], estimate.probabilities[:-1]])).sum()
    assert restricted_mean(values, observed) == pytest.approx(area)
    assert restricted_mean(values, observed) > values.mean()
