"""Scores from several layers, from the last layer, and early exits: known answers and invariances."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from lib.core.errors import UsageError, UserError
from lib.datasets import openood, overlap
from lib.datasets.batching import Batching
from lib.datasets.split import Split
from lib.metrics import multiple_testing, ood_detection
from lib.models import cutting
from lib.models.normalized import Normalized
from lib.ood import aggregate, comparison, early_exit, last_layer, standardize
from lib.ood.flags import AGGREGATORS, BASELINES
from lib.ood.layer_energies import layer_energies


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def energies(n: int, seed: int, layers: int = 5, shift: float = 0.0) -> np.ndarray:
    """Correlated energies of layers with very different means and scales."""
    draw = rng(seed)
    common = draw.normal(size=(n, 1))
    own = draw.normal(size=(n, layers)) + shift * np.array([1, -1, 0.5, 0, 2])[:layers]
    return (common + own) * 10.0 ** np.arange(-2, layers - 2) - 5 * np.arange(layers)


FITTED_BY = [name for name in AGGREGATORS if name != "oracle"]


def fitted(name: str, inside, outliers):
    return aggregate.fit(name, inside, outliers if name == "logreg" else None)


def test_standardised_energies_have_mean_0_and_deviation_1_in_every_layer():
    scale = standardize.standardise(energies(400, 1))
    assert np.allclose(scale.fitted.mean(0), 0, atol=1e-5) and np.allclose(scale.fitted.std(0), 1, atol=1e-5)


def test_a_constant_layer_has_no_scale_and_is_left_out():
    inside = energies(100, 1)
    inside[:, 2] = -7.6246
    scale = standardize.standardise(inside)
    assert scale.kept.tolist() == [True, True, False, True, True] and np.isfinite(scale.z(energies(9, 2))).all()
    with pytest.raises(UserError, match="no layer's energy varies"):
        standardize.standardise(np.ones((5, 3)))


@pytest.mark.parametrize("n, layers", [(50, 3), (300, 5)])
def test_mean_mahalanobis_distance_of_the_fitting_images_is_known(n, layers):
    inside = energies(n, 3, layers)
    assert aggregate.maha(inside, shrunk=False)(inside).mean() == pytest.approx(layers * (n - 1) / n, rel=1e-3)


def test_the_mean_of_one_layer_is_that_layer():
    inside, outside, fit = energies(300, 1, 1), energies(200, 2, 1, 1.0), energies(150, 3, 1)
    score = aggregate.mean(fit)
    assert ood_detection.auroc(score(inside), score(outside)) == pytest.approx(
        ood_detection.auroc(inside, outside)[0], abs=1e-9
    )


@pytest.mark.parametrize("name", FITTED_BY)
def test_aggregates_ignore_shift_and_positive_scale_of_every_layer(name):
    fit, inside = energies(150, 1), energies(120, 2)
    outside, validation = energies(90, 3, shift=1.0), energies(80, 4, shift=1.0)

    def found(change):
        score = fitted(name, change(fit), change(validation))
        return ood_detection.auroc(score(change(inside)), score(change(outside)))

    factor, offset = 2.0 ** np.array([-3, 0, 5, 2, -1]), np.array([3, -100, 0.5, 0, 1e3])
    assert found(lambda e: e * factor + offset) == pytest.approx(found(lambda e: e), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in FITTED_BY if name != "mean"])
def test_direction_free_aggregates_find_outliers_on_either_side(name):
    fit, inside = energies(400, 1), energies(300, 2)
    outside = energies(300, 3, shift=4.0)
    score = fitted(name, fit, energies(200, 5, shift=4.0))
    assert ood_detection.auroc(score(inside), score(outside)) > 0.95


def test_knn_aggregate_is_the_distance_to_the_50th_neighbour():
    fit, points = energies(120, 1), energies(40, 2, shift=1.0)
    scale = standardize.standardise(fit)
    expected = NearestNeighbors(n_neighbors=50).fit(scale.fitted).kneighbors(scale.z(points))[0][:, -1]
    assert np.allclose(aggregate.knn(fit)(points), expected, atol=1e-4)
    with pytest.raises(UserError, match="no 50th neighbour"):
        aggregate.knn(fit[:30])


def test_fisher_of_one_layer_counts_the_fitting_images_that_are_as_extreme():
    fit, point = np.arange(99.0)[:, None], np.array([[2.0]])
    assert aggregate.fisher(fit)(point)[0] == pytest.approx(-2 * math.log(2 * 4 / 100))
    assert aggregate.fisher(fit)(np.array([[49.0]]))[0] == pytest.approx(0)


def test_the_oracle_is_the_best_layer_with_the_best_sign_and_says_what_it_is():
    inside, outside = energies(200, 1), energies(200, 2, shift=1.0)
    found = aggregate.oracle([str(layer) for layer in range(5)], inside, outside)
    auroc = ood_detection.auroc(inside, outside)
    assert ood_detection.auroc(found.inside, found.outside) == pytest.approx(max(auroc.max(), 1 - auroc.min()))
    assert "upper bound" in found.about["needs"] and found.about["chosen_layer"] == "4"


def test_ranks_are_strictly_increasing_also_beyond_all_fitted_scores():
    fit = np.abs(rng(1).normal(size=(20, 1)))
    scores = np.linspace(0, 20, 300)[:, None]
    found = standardize.ranks(scores, fit)[:, 0]
    assert (np.diff(found) > 0).all() and found.min() >= 0 and found.max() < 1


# The last layer.


def head(n: int = 400, d: int = 12, k: int = 4) -> last_layer.LastLayer:
    """Features of k classes behind a ReLU, and a linear layer that tells them apart."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % k
    centres = 4 * torch.rand(k, d, generator=draw)
    features = (centres[labels] + 0.5 * torch.randn(n, d, generator=draw)).relu()
    weight, bias = centres - centres.mean(0), -0.1 * torch.arange(k)
    return last_layer.LastLayer(weight, bias.float(), features, features @ weight.T + bias, labels)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_score_outliers_higher_and_each_image_by_itself(name):
    known = head()
    score = last_layer.fit(name, known)
    strange = torch.full((50, 12), 1.2) + 0.3 * torch.rand(50, 12, generator=torch.Generator().manual_seed(1))
    features = torch.cat([known.features[:100], strange])
    logits = features @ known.weight.T + known.bias
    found = score(features, logits)
    assert found.shape == (150,) and torch.isfinite(found).all()
    if name != "ash":  # which multiplies even features most: its premise, few high ones, takes wider layers
        assert ood_detection.auroc(found[:100].numpy(), found[100:].numpy()) > 0.8
    assert torch.allclose(score(features[40:41], logits[40:41]).double(), found[40:41].double(), rtol=1e-4)


def test_logit_scores_equal_their_formulas():
    known = head()
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0], [100.0, 0.0, 0.0, 0.0]])
    found = {name: last_layer.fit(name, known)(torch.zeros(2, 12), logits) for name in ("msp", "max_logit", "energy")}
    assert found["msp"][0].item() == pytest.approx(-math.log(logits.softmax(1)[0].max().item()), rel=1e-5)
    assert found["msp"][1] < found["msp"][0] and found["max_logit"].tolist() == [-2, -100]
    assert found["energy"][0].item() == pytest.approx(-math.log(sum(math.exp(x) for x in (2, 1, 0, -1))), rel=1e-6)


def test_mahalanobis_equals_a_loop_over_classes():
    from sklearn.covariance import ledoit_wolf

    known = head(60)
    features, labels = known.features.double().numpy(), known.labels.numpy()
    means = np.stack([features[labels == k].mean(0) for k in range(4)])
    covariance = ledoit_wolf(features - means[labels], assume_centered=True)[0]
    expected = [min((f - m) @ np.linalg.inv(covariance) @ (f - m) for m in means) for f in features[:7]]
    assert np.allclose(last_layer.mahalanobis(known)(known.features[:7], None), expected, rtol=1e-6)


def test_vim_gives_features_in_the_principal_subspace_no_virtual_logit():
    known = head()
    score = last_layer.vim(known)
    d = known.features.shape[1]
    origin = -(torch.linalg.pinv(known.weight.double(), rtol=1e-6) @ known.bias.double())
    centred = known.features.double() - origin
    principal = torch.linalg.eigh(centred.T @ centred)[1][:, -d // 2 :]
    inside = (origin + 3 * principal[:, -1])[None].float()
    logits = inside @ known.weight.T + known.bias
    assert score(inside, logits).item() == pytest.approx(-logits.double().logsumexp(1).item(), abs=1e-3)


def test_react_without_anything_to_clip_is_the_energy_and_ash_keeps_the_sum():
    known = head()
    small = 0.1 * known.features[:5]
    logits = small @ known.weight.T + known.bias
    assert torch.allclose(last_layer.react(known)(small, logits), -logits.logsumexp(1), atol=1e-5)
    one = torch.zeros(1, 12)
    one[0, 3] = 2.0  # all of the sum is kept, so the factor is e
    expected = -((math.e * one) @ known.weight.T + known.bias).logsumexp(1)
    assert torch.allclose(last_layer.ash(known)(one, None), expected, atol=1e-5)


def published_ash(features, percentile: int = 90):
    """ASH-S of an image's d features as its published code has it: k = d - round(d percentile / 100) are kept."""
    d = features.shape[1]
    k = d - int(np.round(d * percentile / 100.0))
    values, places = torch.topk(features, k, dim=1)
    kept = torch.zeros_like(features).scatter_(1, places, values)
    return kept * torch.exp(features.sum(1) / kept.sum(1))[:, None]


@pytest.mark.parametrize("d", [10, 12, 25, 32, 64, 512, 2048])
def test_ash_is_that_of_the_published_code(d):
    features = torch.rand(7, d, generator=torch.Generator().manual_seed(d))
    weight = torch.randn(4, d, generator=torch.Generator().manual_seed(0)) / d
    known = last_layer.LastLayer(weight, torch.zeros(4), features, features @ weight.T, torch.arange(7) % 4)
    expected = -(published_ash(features) @ weight.T).logsumexp(1)
    assert torch.allclose(last_layer.ash(known)(features, None), expected, atol=1e-4)


def test_ash_keeps_no_more_features_where_some_tie():
    d = 32
    weight = torch.eye(d)  # the logits are the features that are kept, times the factor
    features = torch.ones(1, d)
    known = last_layer.LastLayer(weight, torch.zeros(d), features, features, torch.zeros(1, dtype=torch.int64))
    found = last_layer.ash(known)(features, None).item()
    factor = math.exp(32 / 3)  # 32 - round(28.8) = 3 of 32 are kept
    assert found == pytest.approx(-factor - math.log(3 + 29 * math.exp(-factor)), rel=1e-5)


def test_vim_warns_where_it_turns_round_and_refuses_features_without_a_residual():
    known = head()
    low = known.bias - 500
    negative = last_layer.LastLayer(known.weight, low, known.features, known.features @ known.weight.T + low, known.labels)
    with pytest.warns(UserWarning, match="--baselines vim: the largest logits .* have mean -.*ViM turns round"):
        last_layer.vim(negative)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last_layer.vim(known)
    flat = torch.zeros(400, 12)
    flat[:, 0] = known.features[:, 0]
    weight = known.weight * (torch.arange(12) == 0)  # the origin lies in the subspace, too
    with pytest.raises(UserError, match="--baselines vim: the features .* have nothing outside their principal subspace"):
        last_layer.vim(last_layer.LastLayer(weight, known.bias, flat, flat @ weight.T + known.bias, known.labels))


def test_covariances_of_too_few_images_are_refused_and_those_of_enough_have_an_inverse():
    with pytest.raises(UserError, match="--aggregate maha: 2 fitting images give a covariance without an inverse"):
        aggregate.maha(energies(2, 1))
    assert np.isfinite(aggregate.maha(energies(3, 1))(energies(9, 2))).all()
    assert np.isfinite(aggregate.maha(energies(2, 1, layers=1))(energies(9, 2, layers=1))).all()
    known = head(4)  # one image of every class: each is its class's mean
    with pytest.raises(UserError, match="--baselines mahalanobis: 4 fitting images give a covariance without an inverse"):
        last_layer.mahalanobis(known)


def test_baselines_refuse_what_they_cannot_use():
    known = head()
    zeros = torch.zeros(400, dtype=torch.int64)
    one_class = last_layer.LastLayer(known.weight, known.bias, known.features, known.logits, zeros)
    with pytest.raises(UserError, match="1 classes; it takes two or more"):
        last_layer.mahalanobis(one_class)
    with pytest.raises(UserError, match="not behind a ReLU"):
        last_layer.ash(last_layer.LastLayer(known.weight, known.bias, known.features - 5, known.logits, known.labels))


# Comparing with the final layer.


def test_delong_covariance_agrees_with_the_bootstrap():
    draw = rng(4)
    n, m = 150, 120
    common = draw.normal(size=(n + m, 1))
    scores = common + draw.normal(size=(n + m, 3)) + np.r_[np.zeros(n), np.ones(m)][:, None] * np.array([0.4, 0.9, 1.5])
    inside, outside = scores[:n], scores[n:]
    errors = np.sqrt(np.diag(ood_detection.placements(inside, outside).covariance()))
    draws = np.array(
        [ood_detection.auroc(inside[draw.integers(n, size=n)], outside[draw.integers(m, size=m)]) for _ in range(2000)]
    )
    assert np.allclose(errors, draws.std(0), rtol=0.1)
    covariance = ood_detection.placements(inside, outside).covariance()
    assert np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) == pytest.approx(
        (draws[:, 0] - draws[:, 1]).std(), rel=0.1
    )


def test_placements_are_shares_of_pairs_and_their_mean_is_the_auroc():
    inside, outside = rng(1).integers(0, 5, (20, 2)).astype(float), rng(2).integers(1, 6, (30, 2)).astype(float)
    placed = ood_detection.placements(inside, outside)
    pair = (outside[None] > inside[:, None]) + 0.5 * (outside[None] == inside[:, None])
    assert np.allclose(placed.inside, pair.mean(1)) and np.allclose(placed.outside, pair.mean(0))
    assert np.allclose(placed.auroc, ood_detection.auroc(inside, outside), atol=1e-15)


def test_paired_tests_have_their_level_and_find_what_is_there():
    draw, rejected = rng(5), 0
    for _ in range(400):
        scores = draw.normal(size=(60, 1)) + draw.normal(size=(60, 2))
        scores[30:] += 0.7
        rejected += ood_detection.delong_against(ood_detection.placements(scores[:30], scores[30:]), 1)[1][0] < 0.05
    assert rejected / 400 == pytest.approx(0.05, abs=0.035)
    far = np.c_[rng(1).normal(size=200), rng(2).normal(size=200)]
    beyond = np.c_[rng(3).normal(3, size=200), rng(4).normal(size=200)]
    difference, p = ood_detection.delong_against(ood_detection.placements(far, beyond), 1)
    assert difference[0] > 0.4 and p[0] < 1e-20 and difference[1] == 0 and p[1] == 1


def test_a_score_tested_against_itself_or_a_monotone_copy_differs_by_nothing():
    inside, outside = rng(1).normal(size=(50, 1)), rng(2).normal(1, size=(40, 1))
    copies = [np.c_[part, np.exp(part)] for part in (inside, outside)]
    difference, p = ood_detection.delong_against(ood_detection.placements(*copies), 1)
    assert difference.tolist() == [0, 0] and p.tolist() == [1, 1]


@pytest.mark.parametrize("n, m", [(1, 50), (2, 50), (50, 2), (2, 2)])
def test_fewer_than_three_images_have_no_interval_no_sign_and_no_test(n, m):
    rows = comparison.layer_rows(energies(n, 1), energies(m, 2, shift=9.0), energies(30, 3), 4)
    comparison.mark_signs([rows])
    for row in rows:
        assert 0 <= row["auroc"] <= 1 and not row["sign_certain"]
        assert all(row[column] is None for column in ("se_delong", "ci_low", "ci_high", "sign", "p", "p_holm"))


def test_a_layer_that_says_the_same_of_all_images_has_no_certain_sign_and_lets_every_outlier_pass():
    inside, outside, fit = energies(50, 1), energies(40, 2), energies(30, 3)
    for part in (inside, outside, fit):
        part[:, 1] = -4.0
    rows = comparison.layer_rows(inside, outside, fit, 4)
    comparison.mark_signs([rows])
    dead = rows[1]
    assert (dead["auroc"], dead["fpr95"], dead["sign_certain"]) == (0.5, 1.0, False) and dead["ci_low"] < 0.45


def test_comparison_corrects_over_the_other_layers_and_leaves_out_what_does_not_exist():
    inside, outside = energies(80, 1), energies(70, 2, shift=1.0)
    rows = comparison.layer_rows(inside, outside, energies(60, 3), final=3)
    p = [row["p"] for row in rows]
    assert p[3] is None and rows[3]["p_holm"] is None and rows[3]["vs_final"] == 0
    assert np.allclose(
        [row["p_holm"] for row in rows if row["p"] is not None], multiple_testing.holm(np.array(p[:3] + p[4:]))
    )


def test_signs_agree_only_between_sets_whose_intervals_leave_out_a_half():
    inside, fit = energies(300, 1), energies(100, 9)
    above, below = energies(300, 2, shift=2.0), energies(300, 3, shift=-2.0)
    tables = [comparison.layer_rows(inside, part, fit, 4) for part in (above, below)]
    comparison.mark_signs(tables)
    assert [row["sign_agrees"] for row in tables[0]] == [False, False, False, None, False]


# Early exit.


@pytest.mark.parametrize("exits", [1, 5])
def test_false_alarms_of_all_exits_together_have_the_calibrated_rate(exits):
    names = [str(number) for number in range(exits)]
    rule = early_exit.calibrate(energies(4000, 1, exits), energies(4000, 3, exits), 0.05, names)
    fresh = energies(8000, 2, exits)
    alarms = (rule.exits(fresh) < exits).mean()
    # both the threshold, from 4,000 images, and the fresh images vary
    assert alarms == pytest.approx(0.05, abs=2 * math.sqrt(0.05 * 0.95 * (1 / 8000 + 1 / 4000)))


def test_thresholds_of_each_exit_by_itself_would_give_more_false_alarms():
    fit, fresh = rng(1).normal(size=(4000, 10)), rng(2).normal(size=(4000, 10))
    separate = (np.abs(fresh) > np.quantile(np.abs(fit), 0.95, axis=0)).any(1).mean()
    joint = (early_exit.calibrate(fit[:2000], fit[2000:], 0.05, list("abcdefghij")).exits(fresh) < 10).mean()
    assert separate == pytest.approx(1 - 0.95**10, abs=0.03) and joint < 0.065


def test_rates_that_the_images_cannot_resolve_are_refused():
    with pytest.raises(UserError, match="--early-exit 0.001: 50 images calibrate no rate below"):
        early_exit.calibrate(energies(50, 1), energies(50, 2), 0.001, list("abcde"))


def test_false_alarms_have_their_rate_where_the_network_fits_its_training_images_better_than_others():
    names, rates = list("abcde"), {"unseen": [], "trained on": []}
    for seed in range(100):
        trained_on = 0.8 * rng(seed).normal(size=(400, 5))  # images that are learnt have energies of a narrower range
        unseen, test = rng(1000 + seed).normal(size=(2, 200, 5))
        rule = early_exit.calibrate(trained_on, unseen, 0.05, names)
        rates["unseen"].append((rule.exits(test) < 5).mean())
        rule = early_exit.calibrate(trained_on[:200], trained_on[200:], 0.05, names)
        rates["trained on"].append((rule.exits(test) < 5).mean())
    # the rate of one calibration varies with its 200 images, that of its test with 200 more
    assert np.mean(rates["unseen"]) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 * 2 / 200 / 100))
    assert np.mean(rates["trained on"]) > 0.15


def test_early_exits_are_at_chance_where_nothing_tells_and_their_interval_holds_the_rate():
    found, held = [], []
    for seed in range(100):
        fit, unseen, inside, outside = rng(seed).normal(size=(4, 150, 5))
        rule = early_exit.calibrate(fit, unseen, 0.1, list("abcde"))
        row = early_exit.report(rule, inside, outside, np.linspace(0.2, 1, 5))[-1]
        fresh = (rule.exits(rng(999).normal(size=(20000, 5))) < 5).mean()  # the rate of this very rule
        found.append(row["auroc"])
        held.append(row["false_alarms_low"] <= fresh <= row["false_alarms_high"])
        assert row["alpha"] == 0.1 and row["false_alarms_low"] <= row["false_alarms"] <= row["false_alarms_high"]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / 10) and np.mean(held) >= 0.88


class Small(nn.Module):
    """A residual network whose layers count the images they see."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner, self.last, self.head = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(4, 3),
        )
        self.act, self.end = nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = self.end(self.last(x + self.inner(x)))
        return self.head(x.mean((2, 3)))


def small_and_its_rule(alpha=0.3):
    network = Normalized(Small(), (0.5,) * 3, (0.25,) * 3).eval()
    names = ["stem", "act", "last", "end", "head"]
    images = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), cutting.record(network, names, reduce=early_exit.energy) as outputs:
        network(images)
        found = torch.cat([outputs[name] for name in names], 1).numpy()
    return network, names, images, found, early_exit.calibrate(found[0::2], found[1::2], alpha, names)


def test_early_exits_equal_those_computed_from_all_energies_and_spare_the_rest_of_the_pass():
    network, names, images, found, rule = small_and_its_rule()
    pieces = cutting.pieces(network, names)
    expected = rule.exits(found)
    assert 0.15 < (expected < 5).mean() < 0.45
    seen = {}
    hooks = [
        getattr(network.body, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, seen.get(name, 0) + len(output))
        )
        for name in names
    ]
    left, logits = early_exit.run(pieces, rule, images)
    for hook in hooks:
        hook.remove()
    assert (left.numpy() == expected).mean() > 0.995  # rounding may differ with the size of the batch
    staying = left == 5
    with torch.no_grad():
        assert torch.allclose(logits, network(images)[staying], atol=1e-5)
    assert seen["stem"] == 400 and seen["last"] == int((left >= 2).sum()) and seen["head"] == int((left >= 4).sum())


def test_a_batch_that_all_leaves_ends_there():
    network, names, images, found, rule = small_and_its_rule()
    everyone = early_exit.Rule(rule.scale, -1.0, 1.0)
    left, logits = early_exit.run(cutting.pieces(network, names), everyone, images[:7])
    assert left.tolist() == [0] * 7 and len(logits) == 0


def test_the_report_adds_up():
    _, names, _, found, rule = small_and_its_rule()
    macs = np.array([0.2, 0.2, 0.9, 0.9, 1.0])
    rows = early_exit.report(rule, found, found + 3 * found.std(0), macs)
    assert len(rows) == 6 and sum(row["exited_id"] for row in rows[:-1]) == pytest.approx(rows[-1]["false_alarms"])
    assert rows[-1]["detected"] > rows[-1]["false_alarms"] and rows[-1]["mac_ood"] < rows[-1]["mac_id"] <= 1
    spent = np.append(macs, 1)[rule.exits(found)].mean()
    assert rows[-1]["mac_id"] == pytest.approx(spent)
    assert all(earlier["detected"] <= later["detected"] for earlier, later in zip(rows[:-2], rows[1:-1], strict=True))


def test_exits_are_cuts_without_the_containers_of_other_cuts():
    network = Normalized(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        )
    )
    listed = cutting.layers(network, torch.zeros(1, 3, 8, 8))
    assert early_exit.possible_exits(listed) == ["0", "1.0", "1.1", "2", "3", "4"]
    assert early_exit.default_exits(listed) == ["1.0", "3", "4"]
    assert len(cutting.pieces(network, ["0", "1.1", "4"])) == 4


# Sets of outliers.


def test_near_and_far_expand_to_those_of_openood_that_are_there(tmp_path):
    (tmp_path / "textures").mkdir()
    with pytest.warns(UserWarning, match="without mnist, svhn, places365"):
        assert openood.expand(("far", "patches"), "cifar10", tmp_path) == ["textures", "patches"]
    with pytest.raises(UserError, match="none of cifar100, tinyimagenet is under"):
        openood.expand(("near",), "cifar10", tmp_path)
    with pytest.raises(UsageError, match="no such group for digits"):
        openood.expand(("near",), "digits:test", tmp_path)
    with pytest.raises(UsageError, match="depends on -d"):
        openood.expand(("far",), "", tmp_path)
    assert openood.group("cifar10", "svhn") == "far" and openood.group("imagenet200", "ninco") == "near"
    assert openood.group("digits", "svhn") is None


def test_a_corrupted_set_expands_to_every_corruption_and_severity(tmp_path):
    found = openood.expand(("digits-c", "cifar10-c:test/fog-3"), "", tmp_path)
    assert len(found) == 19 * 5 + 1 and found[0] == "digits-c/gaussian_noise-1" and found[-1] == "cifar10-c:test/fog-3"
    (tmp_path / "mine-c").mkdir()
    assert openood.expand(("mine-c",), "", tmp_path) == ["mine-c"]


def test_a_groups_row_is_the_mean_over_its_sets():
    rows = [
        {"group": "far", "layer": "a", "T": 1.0, "score": "energy", "ood": name, "auroc": value, "se": 0.1, "id": "x"}
        for name, value in (("svhn", 0.6), ("mnist", 0.8))
    ]
    (found,) = comparison.group_rows(rows, "far")
    assert found["auroc"] == pytest.approx(0.7) and found["members"] == "svhn+mnist" and "se" not in found


def test_shared_images_are_counted():
    def split(images):
        return Split(name="x", split="all", images=images, labels=torch.zeros(len(images), dtype=torch.int64))

    images = torch.randint(0, 256, (9, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert overlap.shared(split(images), split(images[[2, 5]])) == 2
    assert overlap.shared(split(images[:4]), split(images[4:])) == 0
    assert overlap.shared(split(images), split(images[:, :, :2])) == 0


@pytest.mark.parametrize(
    "wrong, layers, sentence",
    [
        (
            math.nan,
            ["stem", "last"],
            r"the energies of layer stem are NaN or infinite for 9 of 9 images of noise:all \(first: image 5\)",
        ),
        (math.inf, ["last", "head"], "the energies of layer last are NaN or infinite for 9 of 9 images"),
        (math.inf, ["head"], "the energies of layer head are NaN or infinite for 9 of 9 images"),
    ],
)
def test_energies_that_are_not_finite_are_refused_by_layer_and_image(wrong, layers, sentence):
    network = Normalized(Small()).eval()
    network.body.stem.bias.data[0] = wrong
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    split = Split("noise", "all", images, torch.zeros(9, dtype=torch.int64), indices=torch.arange(5, 14))
    with pytest.raises(UserError, match=sentence):
        layer_energies(network, split, layers, Batching(batch_size=4, quiet=True))


def test_logits_that_are_not_finite_are_refused_where_no_layers_energy_tells():
    network = Normalized(Small()).eval()
    network.body.head.bias.data[1] = -math.inf  # its exponential is 0: the energy does not notice
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    split = Split("noise", "all", images, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(UserError, match="the network's logits are NaN or infinite for 3 of 3 images of noise:all"):
        layer_energies(network, split, ["stem", "head"], Batching(batch_size=4, quiet=True))


def test_watching_the_last_layer_sees_its_input_and_the_logits():
    network = Normalized(Small()).eval()
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    split = Split(name="noise", split="all", images=images, labels=torch.zeros(5, dtype=torch.int64))
    found = layer_energies(
        network,
        split,
        ["stem"],
        Batching(batch_size=2, quiet=True),
        head="head",
        watch=lambda features, logits: {"features": features.clone()},
    )
    features, logits = found.watched["features"], found.logits
    assert features.shape == (5, 4) and torch.allclose(network.body.head(features), logits, atol=1e-6)
