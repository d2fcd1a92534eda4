"""Measures of detection and classification: known answers, invariances, slow second implementations."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn import metrics

from lib.metrics import classification, multiple_testing, ood_detection


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("scores", [rng().normal(size=200), np.ones(50), rng().integers(0, 3, 100)])
def test_a_set_against_itself_is_at_chance(scores):
    assert ood_detection.auroc(scores, scores) == pytest.approx(0.5, abs=1e-12)


def test_separated_sets_have_auroc_one_and_swapped_zero():
    low, high = np.arange(10.0), np.arange(20.0, 35.0)
    assert ood_detection.auroc(low, high) == 1 and ood_detection.auroc(high, low) == 0
    assert ood_detection.fpr_at_tpr(low, high) == 0 and ood_detection.fpr_at_tpr(high, low) == 1


@pytest.mark.parametrize("shift, expected", [(0.5, 0.6382), (1, 0.7602), (2, 0.9214)])
def test_auroc_of_shifted_gaussians(shift, expected):
    inside, outside = rng(1).normal(size=100_000), rng(2).normal(shift, size=100_000)
    assert ood_detection.auroc(inside, outside) == pytest.approx(expected, abs=0.004)


def test_auroc_turns_round_with_the_sign_and_ignores_monotone_maps():
    inside, outside = rng(1).normal(size=300), rng(2).normal(0.4, size=200)
    raw = ood_detection.auroc(inside, outside)
    assert raw + ood_detection.auroc(-inside, -outside) == pytest.approx(1, abs=1e-12)
    for transform in (np.exp, lambda s: 3 * s + 1):
        assert ood_detection.auroc(transform(inside), transform(outside)) == pytest.approx(raw, abs=1e-12)


def test_auroc_counts_correctly_ordered_pairs():
    inside, outside = rng(1).integers(0, 6, 30), rng(2).integers(1, 8, 40)
    pairs = [(b > a) + 0.5 * (a == b) for a in inside for b in outside]
    assert ood_detection.auroc(inside, outside) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("rounded", [False, True])
def test_41_columns_at_once_equal_scikit_learn(rounded):
    inside, outside = rng(1).normal(size=(400, 41)), rng(2).normal(rng(3).normal(size=41), size=(300, 41))
    if rounded:
        inside, outside = inside.round(1), outside.round(1)
    labels = np.r_[np.zeros(400), np.ones(300)]
    columns = np.concatenate([inside, outside]).T
    assert np.allclose(ood_detection.auroc(inside, outside), [metrics.roc_auc_score(labels, c) for c in columns], atol=1e-12)
    assert np.allclose(
        ood_detection.average_precision_out(inside, outside),
        [metrics.average_precision_score(labels, c) for c in columns],
        atol=1e-12,
    )
    assert np.allclose(
        ood_detection.average_precision_in(inside, outside),
        [metrics.average_precision_score(1 - labels, -c) for c in columns],
        atol=1e-12,
    )


@pytest.mark.parametrize("n, m, repeats", [(1000, 2600, 1500), pytest.param(10000, 26032, 2000, marks=pytest.mark.slow)])
def test_under_the_null_the_deviation_and_the_flip_bias_are_as_computed(n, m, repeats):
    draw = rng(5)
    found = np.array([ood_detection.auroc(draw.normal(size=n), draw.normal(size=m)) for _ in range(repeats)])
    sigma = np.sqrt((n + m + 1) / (12 * n * m))  # 0.0034 for the large sets
    assert found.std() == pytest.approx(sigma, rel=0.1)
    flipped = np.maximum(found, 1 - found).mean()  # 0.5027
    assert flipped == pytest.approx(0.5 + sigma * np.sqrt(2 / np.pi), abs=4 * sigma / np.sqrt(repeats))


@pytest.mark.parametrize(
    "auroc, m, expected",
    [
        (0.5, 26032, 0.0034),
        (0.778, 26032, 0.0025),
        (0.944, 26032, 0.0011),
        (0.5, 10000, 0.0041),
        (0.778, 10000, 0.0033),
        (0.944, 10000, 0.0017),
    ],
)
def test_standard_error_of_hanley_and_mcneil(auroc, m, expected):
    assert ood_detection.auroc_standard_error(auroc, 10000, m) == pytest.approx(expected, abs=6e-5)


def test_fpr_at_tpr_known_answers():
    inside, outside = rng(1).normal(size=100_000), rng(2).normal(3, size=100_000)
    assert ood_detection.fpr_at_tpr(inside, outside) == pytest.approx(1 - norm.cdf(3 - norm.ppf(0.95)), abs=0.01)
    assert ood_detection.fpr_at_tpr(inside, inside) == pytest.approx(0.95, abs=0.01)
    assert ood_detection.fpr_at_tpr(np.arange(100.0), np.arange(100.0)) == pytest.approx(0.95)


def test_ties_are_not_told_apart_by_the_false_positive_rate():
    assert ood_detection.fpr_at_tpr(np.ones(50), np.ones(40)) == 1
    inside, outside = rng(1).integers(0, 6, 200).astype(float), rng(2).integers(2, 9, 300).astype(float)
    kept = np.sort(inside)[: int(0.95 * 200)].max()
    assert ood_detection.fpr_at_tpr(inside, outside) == np.mean([score <= kept for score in outside])


def test_deviation_is_high_on_either_side_and_needs_no_scale():
    fitted = rng(1).normal(2, 3, size=(500, 2))
    scores = np.array([[-10.0, 2.0], [14.0, 2.0], [2.0, 2.0]])
    found = ood_detection.deviation(scores, fitted)
    assert found[0, 0] > 3 and found[1, 0] > 3 and found[2, 0] < 0.2
    assert np.allclose(ood_detection.deviation(5 * scores - 7, 5 * fitted - 7), found)
    constant = ood_detection.deviation(np.array([[1.0], [2.0]]), np.ones((9, 1)))
    assert constant[0] == 0 and np.isinf(constant[1])


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        ood_detection.auroc(np.array([1.0, np.nan]), np.zeros(2))


def test_holm_by_hand():
    assert multiple_testing.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert multiple_testing.holm([0.9, 0.8]).tolist() == [1, 1] and multiple_testing.holm([]).tolist() == []


def test_holm_does_not_count_tests_that_were_not_made():
    found = multiple_testing.holm([0.03, np.nan, 0.01, np.nan])
    assert found == pytest.approx([0.03, np.nan, 0.02, np.nan], nan_ok=True)


LOGITS = torch.tensor([[2.0, 1, 0], [0, 3, 1], [1, 0, 4], [5, 0, 1]])


def test_accuracy_leaves_out_unlabelled_images():
    assert classification.accuracy(LOGITS, torch.tensor([0, 1, 1, -1])) == pytest.approx(2 / 3)
    assert classification.accuracy(LOGITS, torch.full((4,), -1)) is None
    assert classification.top_k_correct(LOGITS, torch.tensor([1, 0, 1, 2]), 2) == 2


def test_a_network_that_knows_nothing_has_loss_log_k():
    assert classification.cross_entropy(torch.zeros(5, 10), torch.arange(5)) == pytest.approx(2.302585, abs=1e-6)


def test_confusion_counts_each_pair():
    logits, labels = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 5
    expected = metrics.confusion_matrix(labels, logits.argmax(1))
    assert np.array_equal(classification.confusion(logits, labels, 5).numpy(), expected)


def test_calibration_error_equals_a_loop_over_bins():
    logits = 2 * torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(2))
    confidence, predicted = logits.double().softmax(1).max(1)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = (predicted == labels)[inside].double().mean() - confidence[inside].mean()
            expected += inside.double().mean().item() * abs(gap.item())
    assert classification.calibration_error(logits, labels) == pytest.approx(expected, abs=1e-9)


def test_a_certain_and_correct_network_is_calibrated():
    labels = torch.arange(4)
    assert classification.calibration_error(100 * torch.eye(4), labels) == pytest.approx(0, abs=1e-9)
    assert classification.calibration_error(100 * torch.eye(4), labels.flip(0)) == pytest.approx(1, abs=1e-9)
