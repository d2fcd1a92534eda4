"""Stitches by chance: matched to activations of other images, and held against labels in another order."""

import numpy as np
import pytest
import torch

from lib.experiments.config.stitch import StitchConfig
from lib.experiments.stitch import stitch as experiment
from lib.metrics import image_permutations
from lib.metrics.answer_null import answer_null
from lib.metrics.permutation_null import COLUMNS, calibrate
from lib.runs import cli
from lib.stitching import chance, layer, least_squares

ENDS = tuple(f"_{name}" for name in COLUMNS)


def activations(draw, n=30, c=6, positions=2):
    """Maps (n, c, h, w) of falling variance, as a network would put them out."""
    return torch.from_numpy(draw.normal(size=(n, c, positions, positions)) * np.logspace(0, -1, c)[:, None, None] + 0.3)


def permutations(n, count, seed):
    return image_permutations.around_circles(n, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "count"), [(12, 5), (12, 11), (12, 12), (12, 30), (3, 19), (1, 19)])
def test_shifts_around_circles_are_different_permutations_and_the_first_leaves_all_in_place(n, count):
    parts = permutations(n, count, 0)
    orders = torch.cat([part.orders for part in parts])
    assert (orders[0] == torch.arange(n)).all() and count < len(orders) <= count + len(parts)
    assert len({len(part.orders) for part in parts}) == 1
    assert all(sorted(order) == list(range(n)) for order in orders.tolist())
    for part in parts:
        assert len({tuple(order) for order in part.orders.tolist()}) == len(part.orders)
    x, y = (torch.from_numpy(np.random.default_rng(side).normal(size=(n, 2, 3))) for side in (0, 1))
    moments = torch.stack([one for part in parts for one in image_permutations.cross_moments(x, y, part)])
    slow = torch.stack([torch.einsum("npc,npd->cd", x, y[order]) for order in orders])
    assert torch.allclose(moments, slow, atol=1e-5)


def network(draw, layers, n):
    """Rows (n, 4, c) of the layers of one network about nothing but their own noise: each is the one before, mixed."""
    values, found = draw.normal(size=(n, 4, 5)), []
    for number in range(layers):
        values = np.tanh(values @ draw.normal(size=(values.shape[2], 4 + number)))
        values = values + 0.3 * draw.normal(size=values.shape)
        found.append(torch.from_numpy(values))
    return found


def found_by_chance(problems, seed, n=24, layers=3, draws=19):
    """In how many problems some pair of layers has p_best of 0.05 or less, though neither network knows the other."""
    draw, found = np.random.default_rng(seed), 0
    for number in range(problems):
        front, end = network(draw, layers, n), network(draw, layers, n)
        grid = [(x, y, (None, torch.eye(x.shape[2], dtype=torch.float64)[:, :2])) for x in front for y in end]
        found += chance.residual_null(grid, permutations(n, draws, number)).p_best.min() <= 0.05
    return found / problems


@pytest.mark.parametrize("draws", [19, 40])
@pytest.mark.parametrize("target", [(5, 2), (5, 4)], ids=["same size", "enlarged"])
def test_every_draw_equals_direct_matching_to_the_end_networks_images_in_another_order(draws, target):
    draw = np.random.default_rng(0)
    x, y = activations(draw), activations(draw, c=target[0], positions=target[1])
    if target[1] == 2:
        y = y + 0.5 * x[:, :5]
    orders = permutations(30, draws, 1)
    every = torch.cat([part.orders for part in orders])
    assert len(orders) == (2 if draws == 40 else 1) and len(every) in (draws + 1, draws + 2)
    kind = "c2c" if target[1] == 2 else "rc2c_pre"
    stitch = layer.Stitch(kind, (6, 2, 2), (target[0], target[1], target[1]), upsample="bilinear")

    def solved(other):
        """Residuals of the suite's own direct matching, of all directions and of two."""
        statistics = least_squares.Statistics({("a", "b"): stitch}, ranks=True)
        statistics.add({"a": x}, {"b": other})
        problem, basis = statistics.problem("a", "b"), statistics.components("a", 2)[1]
        both = least_squares.exact(problem), least_squares.exact(problem, basis)
        return [problem.residual(one.weight, one.bias) for one in both], basis

    observed, basis = solved(y)
    slow = np.array([solved(y[order])[0] for order in every[1:]])
    null = chance.residual_null([(stitch.rows_of_source(x), stitch.rows_of_target(y), (None, basis))], orders)
    expected = calibrate(-np.array(observed), -slow)
    assert null.mean == pytest.approx(slow.mean(0), abs=1e-5)
    assert null.q95 == pytest.approx(np.quantile(slow, 0.05, axis=0), abs=1e-5)
    assert (null.p == expected.p).all() and (null.p_best == expected.p_best).all()


def test_the_best_of_correlated_pairs_of_layers_matches_by_chance_in_one_case_of_twenty():
    assert abs(found_by_chance(200, 0, n=20, layers=2) - 0.05) < 3 * 0.0154


@pytest.mark.slow
@pytest.mark.parametrize("draws", [19, 99])  # around one circle, in five orders
def test_the_rate_over_a_thousand_problems_is_five_percent(draws):
    rate = found_by_chance(1000, 1, draws=draws)
    print(rate)
    assert abs(rate - 0.05) <= 0.014


def test_as_many_channels_as_images_match_by_chance_as_well_as_ever():
    draw = np.random.default_rng(2)
    x = torch.from_numpy(draw.normal(size=(20, 1, 30)))
    null = chance.residual_null([(x, x[:, :, :4] + 1, (None,))], permutations(20, 19, 0))
    assert null.mean == pytest.approx([0], abs=1e-6) and null.p.tolist() == [1] == null.p_best.tolist()


WORDS = ("models/a/model_1.pt", "models/b/model_1.pt", "auto", "auto", "pool1,pool2", "pool1,pool2", "-d", "digits")


def rows(*words):
    return experiment(cli.parse(StitchConfig, [*WORDS, *words, "--quiet", "-gpu", "-1"])).rows


def test_rows_have_the_nulls_of_their_answers_and_residuals_and_no_other_number_changes(pair, monkeypatch):
    monkeypatch.chdir(pair)
    seen = []

    def spy(pairs, *others):
        seen.append((pairs, answer_null(pairs, *others)))
        return seen[-1][1]

    monkeypatch.setattr("lib.experiments.stitch.answer_null", spy)
    words = ("-i", "pinv", "-e", "0", "--null", "--front-stitch-rank", "8", "4", "--front-pinv-rank", "8", "4")
    plain, found = rows(*words), rows(*words, "--permutations", "19")
    own = [{name: one for name, one in row.items() if not name.endswith(ENDS)} for row in found]
    assert own == plain and {row["null"] for row in plain} == {None, "untrained", "shuffled"}
    stitches = [row for row in found if row["null"] is None]
    assert not any(name.endswith(ENDS) for row in found if row["null"] for name in row)
    ((pairs, null),) = seen
    for row, (answers, labels), columns in zip(stitches, pairs, null.columns(), strict=True):
        assert row["accuracy"] == pytest.approx((answers == labels).mean())
        assert {name: row[f"accuracy_{name}"] for name in COLUMNS} == columns
    by_rank = {}
    for row in stitches:
        said = [row[f"matching_residual_{name}"] for name in COLUMNS]
        assert by_rank.setdefault((row["front_layer"], row["end_layer"], row["pinv_rank"]), said) == said
        # layers of two networks of the same images have more to do with each other than with other images
        assert row["matching_residual"] < row["matching_residual_null_q95"] < row["matching_residual_null_mean"]
        assert row["matching_residual_p_best"] == 0.05
    assert len(by_rank) == 8


def test_a_trained_stitch_has_the_null_of_its_answers_alone(pair, monkeypatch):
    monkeypatch.chdir(pair)
    found = rows("-i", "rand", "-e", "1", "--permutations", "19", "--max-examples", "200")
    assert all(row["accuracy_null_mean"] <= row["accuracy_null_q95"] and row["accuracy_p_best"] >= 0.05 for row in found)
    assert not any(name.startswith("matching_residual_") for row in found for name in row)
