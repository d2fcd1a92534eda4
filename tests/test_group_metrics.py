"""Group accuracies with the counts of Waterbirds, the bootstrap of gains, and scores of displacement with their nulls."""

import math
from statistics import NormalDist

import pytest
import torch

from lib.metrics.group_accuracy import adjusted_average, adjusted_standard_error, group_accuracies, paired_gain, worst_group
from lib.metrics.shift_sensitivity import (
    BLOCK,
    debiased_variation,
    distances,
    divisions,
    energies,
    energy_distance,
    moment_ratio,
    null,
    pairwise_ratio,
    ratios,
    row_space_share,
    total_variation,
)

TRAIN, VAL, TEST = (3498, 184, 56, 1057), (467, 466, 133, 133), (2255, 2255, 642, 642)


def images(counts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(groups, label, place) of that many images per group = 2 label + place."""
    groups = torch.arange(4).repeat_interleave(torch.tensor(counts))
    return groups, groups // 2, groups % 2


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_answering_the_background_is_worst_group_zero_and_half_right_where_it_is_balanced():
    for counts, expected in ((TRAIN, 4555 / 4795), (TEST, 0.5)):
        groups, label, place = images(counts)
        correct = label == place
        accuracies, sizes = group_accuracies(correct, groups, 4)
        assert worst_group(accuracies)[0] == 0 and tuple(sizes.tolist()) == counts
        assert correct.double().mean().item() == pytest.approx(expected, abs=1e-6)
        assert adjusted_average(accuracies, torch.tensor(TRAIN)).item() == pytest.approx(0.949948, abs=1e-6)


@pytest.mark.parametrize("counts, expected", [(TRAIN, 0.767883), (VAL, 0.778148), (TEST, 0.778391)])
def test_a_constant_answer_has_the_frequency_of_its_class(counts, expected):
    groups, label, _ = images(counts)
    accuracies, sizes = group_accuracies(label == 0, groups, 4)
    assert worst_group(accuracies)[0] == 0
    assert ((accuracies * sizes).sum() / sizes.sum()).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "groups, expected",
    [
        ((0.9951, 0.8789, 0.7383, 0.9642), 0.98084),
        ((0.9916, 0.8758, 0.8489, 0.9673), 0.98011),
        ((0.9942, 0.8661, 0.7492, 0.9673), 0.98052),
    ],
)
def test_the_adjusted_average_weights_groups_as_in_training(groups, expected):
    accuracies = torch.tensor(groups, dtype=torch.float64)
    assert adjusted_average(accuracies, torch.tensor(TRAIN)).item() == pytest.approx(expected, abs=5e-5)
    error = adjusted_standard_error(accuracies, torch.tensor(TRAIN), torch.tensor(TEST))
    slow = sum((n / 4795) ** 2 * a * (1 - a) / m for n, a, m in zip(TRAIN, groups, TEST, strict=True)) ** 0.5
    assert error == pytest.approx(slow)


def test_a_group_without_images_is_never_the_worst():
    accuracies, sizes = group_accuracies(torch.tensor([True, False, True]), torch.tensor([0, 0, 2]), 3)
    assert sizes.tolist() == [2, 0, 1] and math.isnan(accuracies[1])
    assert worst_group(accuracies)[1] == 0
    assert adjusted_average(accuracies, torch.tensor([1, 5, 1])).item() == pytest.approx(0.75)


def test_the_interval_of_a_gain_is_that_of_paired_differences():
    draw = torch.Generator().manual_seed(0)
    second = torch.rand(2000, generator=draw) < 0.6
    first = second ^ (torch.rand(2000, generator=draw) < 0.1)
    gain, low, high = paired_gain([first], [second], [torch.arange(2000)])
    difference = first.double() - second.double()
    error = difference.std().item() / 2000**0.5
    assert gain == pytest.approx(difference.mean().item())
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15) and low < gain < high
    assert paired_gain([first], [first], [torch.arange(2000)]) == (0, 0, 0)
    groups = [torch.arange(2000) % 2]
    worst = [min(correct[groups[0] == group].double().mean() for group in (0, 1)) for correct in (first, second)]
    found = paired_gain([first], [second], [torch.arange(2000)], groups=groups)
    assert found[0] == pytest.approx((worst[0] - worst[1]).item())
    sizes = torch.tensor([3, 1])
    means = [
        sum(weight * correct[groups[0] == group].double().mean() for group, weight in ((0, 0.75), (1, 0.25)))
        for correct in (first, second)
    ]
    gain, low, high = paired_gain([first], [second], [torch.arange(2000)], groups=groups, sizes=sizes)
    assert gain == pytest.approx((means[0] - means[1]).item()) and low < gain < high


def trainings(seeds: int, deviation: float, n: int, draw: torch.Generator) -> list[list[torch.Tensor]]:
    """Answers (n,) of two classifiers per seed, right on 70 and 68 % of the same images, give or take `deviation`."""
    hardness, answers = torch.rand(n, generator=draw), []
    for accuracy in (0.70, 0.68):
        own = [
            torch.where(torch.rand(n, generator=draw) < 0.9, hardness, torch.rand(n, generator=draw)) for _ in range(seeds)
        ]
        answers.append([one < accuracy + deviation * torch.randn((), generator=draw) for one in own])
    return answers


@pytest.mark.parametrize("seeds, deviation", [(2, 0.02), (3, 0.01), (5, 0.02), (3, 0.0)])
def test_the_interval_of_a_gain_over_several_seeds_holds_the_gain_of_other_trainings(seeds, deviation):
    draw, ids, held = torch.Generator().manual_seed(0), [torch.arange(1000)] * seeds, 0
    for number in range(200):
        first, second = trainings(seeds, deviation, 1000, draw)
        _, low, high = paired_gain(first, second, ids, seeds=seeds, draws=400, seed=number)
        held += low <= 0.02 <= high
    assert held / 200 >= 0.93


def test_the_interval_over_two_data_sets_counts_each_training_once():
    draw = torch.Generator().manual_seed(0)
    first, second = trainings(2, 0.02, 500, draw)
    ids = [torch.arange(500)] * 2
    once = paired_gain(first, second, ids, seeds=2)
    assert paired_gain(first * 2, second * 2, ids * 2, seeds=2) == pytest.approx(once)


@pytest.mark.parametrize(
    "right, wrong", [((0.8,) * 4, (0.7, 0.9, 0.9, 0.9)), ((0.8, 0.9, 0.9, 0.9), (0.7,) * 4), ((0.8,) * 4, (0.7,) * 4)]
)
def test_the_interval_between_worst_groups_holds_the_truth_where_several_groups_are_equal(right, wrong):
    draw, groups, held = torch.Generator().manual_seed(0), torch.arange(4).repeat_interleave(200), 0
    for number in range(250):
        hardness = torch.rand(800, generator=draw)
        other = torch.where(torch.rand(800, generator=draw) < 0.8, hardness, torch.rand(800, generator=draw))
        first, second = (one < torch.tensor(shares)[groups] for one, shares in ((hardness, right), (other, wrong)))
        _, low, high = paired_gain([first], [second], [torch.arange(800)], groups=[groups], draws=400, seed=number)
        held += low <= 0.1 <= high
    assert held / 250 >= 0.9


def test_variation_is_zero_for_the_same_images_one_for_disjoint_ones_and_symmetric():
    x, y = normal(200, 3, 0), normal(150, 3, 1, shift=100)
    assert torch.equal(total_variation(x, x), torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(total_variation(x, y), torch.ones(3, dtype=torch.float64))
    assert torch.equal(total_variation(x, y - 99), total_variation(y - 99, x))


def test_the_plug_in_variation_has_the_known_bias_and_the_debiased_one_has_not():
    x, moved, again = normal(1000, 300, 0), normal(1000, 300, 1, shift=0.5), normal(1000, 300, 2)
    assert total_variation(x, moved).mean().item() == pytest.approx(0.212, abs=0.005)
    assert total_variation(x, again).mean().item() == pytest.approx(0.104, abs=0.005)
    uniform = [torch.rand(1000, 300, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)]
    assert total_variation(*uniform).mean().item() == pytest.approx(0.123, abs=0.005)
    assert debiased_variation(x, moved).mean().item() == pytest.approx(0.19741, abs=0.005)
    assert debiased_variation(x, again).mean().item() == pytest.approx(0, abs=0.01)


def test_the_debiased_variation_is_right_for_atoms_and_rectified_units():
    def rectified(zeros, seed):
        draw = torch.Generator().manual_seed(seed)
        positive = -torch.rand(1000, 300, generator=draw).log()
        return torch.where(torch.rand(1000, 300, generator=draw) < zeros, 0.0, positive)

    zero, one = torch.zeros(1000, 2), torch.ones(1000, 2)
    assert torch.equal(debiased_variation(zero, one), torch.ones(2, dtype=torch.float64))
    coins = [
        (torch.rand(1000, 300, generator=torch.Generator().manual_seed(seed)) < share).float()
        for seed, share in ((0, 0.3), (1, 0.5))
    ]
    assert debiased_variation(*coins).mean().item() == pytest.approx(0.2, abs=0.01)
    assert debiased_variation(rectified(0.7, 0), rectified(0.5, 1)).mean().item() == pytest.approx(0.2, abs=0.01)
    assert debiased_variation(rectified(0.7, 2), rectified(0.7, 3)).mean().item() == pytest.approx(0, abs=0.01)


def test_the_debiased_variation_is_that_of_the_distributions_in_any_order_and_with_rows_far_away():
    """Two classes, ten apart, each moved by 2: the variation is that of N(0, 1) and N(2, 1)."""
    true, units, classes = 2 * NormalDist().cdf(1) - 1, 200, torch.arange(1000)[:, None] % 2 * 10.0
    x, y = normal(1000, units, 0) + classes, normal(1000, units, 1, shift=2) + classes
    assert debiased_variation(x, y).mean().item() == pytest.approx(true, abs=0.02)
    for order in (torch.argsort(classes[:, 0], stable=True), torch.randperm(1000)):
        assert debiased_variation(x[order], y).mean().item() == pytest.approx(true, abs=0.02)
    x, y = normal(999, units, 0), normal(1001, units, 1, shift=2)
    y[0] = 1e4
    assert debiased_variation(x, y).mean().item() == pytest.approx(true, abs=0.02)


def test_variations_weigh_every_row_alike_and_refuse_what_is_not_finite():
    three = torch.tensor([[0.0], [1.0], [0.0]])
    assert total_variation(three, torch.tensor([[0.0], [1.0]])).item() == pytest.approx(1 / 6)
    for value in (float("nan"), float("inf")):
        for variation in (total_variation, debiased_variation):
            with pytest.raises(ValueError, match="NaN or infinite"):
                variation(three, torch.tensor([[0.0], [value]]))


def test_s_ignores_scale_and_rotation_and_is_zero_for_the_same_images():
    x, y = normal(60, 5, 0), normal(50, 5, 1, shift=1)
    rotation = torch.linalg.qr(normal(5, 5, 2).double()).Q
    for score in (pairwise_ratio, moment_ratio):
        assert score(7 * x.double() @ rotation, 7 * y.double() @ rotation) == pytest.approx(score(x, y), rel=1e-5)
    assert pairwise_ratio(x, x, same=True) == pytest.approx(0, abs=1e-9)
    assert pairwise_ratio(x, y) > 0.2


def test_the_moment_formula_is_the_mean_of_squared_distances():
    x, y = normal(40, 4, 0).double(), 2 * normal(30, 4, 1, shift=0.3).double()
    across = torch.stack([(a - b).square().sum() for a in x for b in y]).mean()
    within = torch.stack([(a - b).square().sum() for a in x for b in x]).sum() / (40 * 39)
    assert moment_ratio(x, y) == pytest.approx((across / within - 1).item(), rel=1e-5)


def test_scores_without_a_shift_lie_in_their_null_bands_and_with_one_above():
    x, same, moved = normal(200, 6, 0), normal(180, 6, 1), normal(180, 6, 2, shift=0.5)
    for score in (pairwise_ratio, energy_distance, moment_ratio):
        low, high = torch.quantile(null(score, x, same), torch.tensor([0.005, 0.995])).tolist()
        assert low - 0.02 <= score(x, same) <= high + 0.02 and score(x, moved) > null(score, x, moved).max()


def test_scores_of_many_divisions_are_those_of_each():
    x, y = normal(60, 6, 0).double(), normal(50, 6, 1, shift=0.3).double()
    between, drawn = distances(x, y), divisions(60, 50, 3)
    pooled = torch.cat([x, y])
    assert torch.allclose(between, torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist"), atol=1e-7)
    for score, found in (
        (pairwise_ratio, ratios(between, drawn)),
        (moment_ratio, ratios(between.square(), drawn)),
        (energy_distance, energies(between, drawn)),
    ):
        assert torch.allclose(null(score, x, y, draws=3).double(), found, atol=1e-6)
    assert drawn.sum(1).tolist() == [60] * 3
    wide = normal(20, 3 * BLOCK // 2, 2)
    assert torch.allclose(distances(wide[:8], wide[8:]), torch.cdist(wide.double(), wide.double()), atol=1e-6)


def test_the_energy_distance_is_at_most_one_and_zero_for_equal_distributions():
    assert energy_distance(normal(100, 2, 0), normal(100, 2, 1, shift=1e4)) == pytest.approx(1, abs=1e-3)
    assert energy_distance(normal(500, 2, 0), normal(500, 2, 1)) == pytest.approx(0, abs=0.02)


def test_the_share_in_the_row_space_is_one_along_the_weights_and_zero_across():
    weights = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    before = normal(10, 3, 0)
    assert row_space_share(before, before + torch.tensor([2.0, 0, 0]), weights) == pytest.approx(1)
    assert row_space_share(before, before + torch.tensor([0, 1.0, 1.0]), weights) == pytest.approx(0)
    both = weights + torch.tensor([0, 5.0, 0])  # the same for every class: no prediction changes
    assert row_space_share(before, before + torch.tensor([0, 1.0, 0]), both) == pytest.approx(0, abs=1e-9)
