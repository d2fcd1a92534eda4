"""Nulls that hold after a look at all layers: draws equal brute force, and the best layer is found by chance in 5 %."""

import numpy as np
import pytest
import torch

from lib.metrics import image_permutations
from lib.metrics.permutation_null import calibrate
from lib.representations import similarity

MEASURES = (*similarity.GRAM_MEASURES, *similarity.WHOLE_GRAM_MEASURES, *similarity.MOMENT_MEASURES)


def activations(*shape, seed=0):
    """Channels of falling variance, float32, as a network would put them out."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values * torch.logspace(0, -1, shape[1]).view(-1, *[1] * (len(shape) - 2)) + 0.3


def correlated_layers(count, n, seed):
    """Layers (n, d) of one network about nothing but their own noise: each is the one before, mixed, with new noise."""
    generator = torch.Generator().manual_seed(seed)
    layers, values = {}, torch.randn(n, 6, generator=generator)
    for number in range(count):
        width = 3 + 2 * number
        values = torch.tanh(values @ torch.randn(values.shape[1], width, generator=generator))
        values = values + 0.3 * torch.randn(n, width, generator=generator)
        layers[f"l{number}"] = similarity.representation(values)
    return layers


def permutations(n, count, seed):
    return image_permutations.draw(n, count, torch.Generator().manual_seed(seed))


def found_by_chance(seed, measures, n=30, layers=3, draws=19):
    """Whether for each measure the best pair of layers has p_best of 0.05 or less, in a problem without any relation."""
    first, second = (correlated_layers(layers, n, 2 * seed + side) for side in range(2))
    ranks = {name: [layer.width] for name, layer in first.items()}
    rows = similarity.grid(first, second, measures, ranks, ranks, permutations(n, draws, seed))
    return {name: min(row[f"{name}_p_best"] for row in rows) <= 0.05 for name in measures}


def test_the_null_counts_the_draws_and_the_highest_standardised_number_of_each():
    draw = np.random.default_rng(0)
    observed, drawn = draw.normal(size=4) + [0, 1, 2, 0], draw.normal(size=(50, 4)) * [1, 2, 3, 0]
    observed[3] = 0.0  # a column that nothing moves
    null, every = calibrate(observed, drawn), np.vstack([observed, drawn])
    for column in range(3):
        assert null.p[column] == sum(line[column] >= observed[column] for line in every) / 51
        assert null.mean[column] == pytest.approx(np.mean([line[column] for line in drawn]))
        assert null.q95[column] == pytest.approx(np.quantile(drawn[:, column], 0.95))
        units = [(line[:3] - every[:, :3].mean(0)) / every[:, :3].std(0) for line in every]
        assert null.p_best[column] == sum(max(*unit, 0) >= units[0][column] for unit in units) / 51 >= null.p[column]
    assert null.p[3] == null.p_best[3] == 1


def test_a_number_that_does_not_exist_has_no_null_and_changes_no_other():
    draw = np.random.default_rng(1)
    observed, drawn = draw.normal(size=3), draw.normal(size=(30, 3))
    alone, beside = calibrate(observed[:2], drawn[:, :2]), calibrate(np.r_[observed[:2], np.nan], drawn)
    assert np.isnan([beside.mean[2], beside.q95[2], beside.p[2], beside.p_best[2]]).all()
    assert (beside.p[:2] == alone.p).all() and (beside.p_best[:2] == alone.p_best).all()
    assert np.isnan(calibrate(observed[:0], drawn[:, :0]).p).all()


@pytest.mark.parametrize("draws", [19, 24])
@pytest.mark.parametrize("second", [(24, 6, 3, 3), (24, 5, 2, 2)], ids=["positions", "images"])
def test_every_draw_equals_the_index_of_the_second_networks_images_in_another_order(second, draws):
    first, other = activations(24, 6, 3, 3), activations(*second, seed=1)
    other = other + first if second == first.shape else other
    layers, ranks = {"a": similarity.representation(first)}, {"a": [6, 2]}
    theirs, their_ranks = {"b": similarity.representation(other)}, {"b": [5, 3]}
    drawn = permutations(24, draws, seed=2)
    assert (drawn.circle is None) == (draws == 24)  # more than there are shifts
    rows = similarity.grid(layers, theirs, MEASURES, ranks, their_ranks, drawn)
    slow = [
        similarity.grid(layers, {"b": similarity.representation(other[order])}, MEASURES, ranks, their_ranks)
        for order in drawn.orders
    ]
    plain = similarity.grid(layers, theirs, MEASURES, ranks, their_ranks)  # keeps no Gram matrix for CKA
    for number, row in enumerate(rows):
        for name in MEASURES:
            assert row[name] == pytest.approx(plain[number][name], abs=1e-12), name
            values, turn = np.array([one[number][name] for one in slow]), -1 if name in similarity.DISTANCES else 1
            assert row[f"{name}_null_mean"] == pytest.approx(values.mean(), abs=1e-5), name
            assert row[f"{name}_null_q95"] == pytest.approx(turn * np.quantile(turn * values, 0.95), abs=1e-5), name
            assert row[f"{name}_p_null"] == (1 + sum(turn * (values - row[name]) >= -1e-9)) / (draws + 1), name
            assert row[f"{name}_p_null"] <= row[f"{name}_p_best"], name


def test_shifts_around_a_circle_are_permutations_that_leave_no_image_its_partner_and_make_their_moments():
    drawn, n = permutations(17, 16, seed=0), 17
    for order in drawn.orders:
        assert sorted(order.tolist()) == list(range(n)) and not (order == torch.arange(n)).any()
    first = drawn.orders[drawn.steps.tolist().index(1)]
    assert (first[first] == drawn.orders[drawn.steps.tolist().index(2)]).all()  # a group
    x, y = (activations(n, 4, 2, 3, seed=seed).flatten(2).transpose(1, 2).double() for seed in (0, 1))
    for order, moments in zip(drawn.orders, image_permutations.cross_moments(x, y, drawn), strict=True):
        slow = sum(x[i].T @ y[order[i]] for i in range(n))
        assert torch.allclose(moments, slow, atol=1e-4 * slow.abs().max().item())


def test_a_relation_is_found_and_without_permutations_there_is_no_null():
    first = correlated_layers(3, 30, 0)
    ranks = {name: [layer.width] for name, layer in first.items()}
    rows = similarity.grid(first, first, ("cka", "procrustes"), ranks, ranks, permutations(30, 19, 0))
    same = [row for row in rows if row["layer1"] == row["layer2"]]
    assert all(row["cka_p_best"] == row["procrustes_p_best"] == 0.05 for row in same)
    assert not any("null" in column for row in similarity.grid(first, first, ("cka",), ranks, ranks) for column in row)


def test_the_best_of_correlated_layers_is_found_by_chance_in_one_case_of_twenty():
    found = [found_by_chance(seed, ("cka", "procrustes"), n=16, layers=2) for seed in range(200)]
    for name in ("cka", "procrustes"):
        assert abs(sum(one[name] for one in found) / 200 - 0.05) < 3 * (0.05 * 0.95 / 200) ** 0.5, name


@pytest.mark.slow
def test_the_rate_of_every_index_is_five_percent_in_a_thousand_problems():
    found = [found_by_chance(seed, MEASURES, n=24) for seed in range(1000)]
    rates = {name: sum(one[name] for one in found) / 1000 for name in MEASURES}
    print(rates)
    assert all(abs(rate - 0.05) <= 0.014 for rate in rates.values()), rates
