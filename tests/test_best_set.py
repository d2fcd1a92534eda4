"""What is said of layers after a look at all of them holds: the set of the best, bounds of gains, and AUROCs by chance."""

import numpy as np
import pytest
from scipy.special import ndtri

from lib.experiments.config.ood_layers import OodLayersConfig
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.ood_layers import ood_layers
from lib.experiments.probe import probe as experiment
from lib.metrics import ood_detection
from lib.metrics.best_set import best_set, gain_bounds
from lib.ood import selection
from lib.probing.scores import score
from lib.runs import cli


def right_answers(draw, layers, n, accuracies, shared=0.7):
    """Whether n images are right by every layer, (layers, n); layers go together."""
    hard = np.sqrt(shared) * draw.normal(size=n) + np.sqrt(1 - shared) * draw.normal(size=(layers, n))
    return (hard < ndtri(np.broadcast_to(accuracies, layers))[:, None]).astype(float)


def covariance(correct):
    return np.cov(correct) / correct.shape[1]


def energies(draw, n, layers, shift=0.0):
    """Energies (n, layers) that go together, moved by so much in every layer."""
    return draw.normal(size=(n, 1)) + 0.7 * draw.normal(size=(n, layers)) + shift


def test_the_set_holds_each_of_several_equal_layers_in_nineteen_of_twenty_and_drops_a_bad_one():
    draw, held, dropped = np.random.default_rng(0), [], []
    for _ in range(300):
        correct = right_answers(draw, 6, 200, [0.9, 0.9, 0.9, 0.9, 0.9, 0.6])
        within = best_set(correct.mean(1), covariance(correct))
        held.append(within[0])
        dropped.append(not within[5])
    assert 0.95 - 3 * 0.0126 < np.mean(held) < 1 and np.mean(dropped) == 1


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_set_over_seeds_holds_a_best_layer_and_bounds_hold_whatever_the_noise_of_training(seeds):
    draw, held, bounded = np.random.default_rng(9), [], []
    for _ in range(300):
        hard, accuracies = draw.normal(size=150), 0.8 + 0.04 * draw.normal(size=(seeds, 6))  # of every training
        correct = np.stack([(0.8 * hard + 0.6 * draw.normal(size=(6, 150)) < ndtri(one)[:, None]) for one in accuracies])
        by_seed, between = correct.mean(2), np.cov(correct.mean(2), rowvar=False) / seeds
        scores, spread = by_seed.mean(0), covariance(correct.mean(0))
        held.append(best_set(scores, spread, between, seeds)[0])
        bounded.append((gain_bounds(scores, spread, np.array([5]), between, seeds)[:5] <= 0).all())
    assert np.mean(held) > 0.95 - 3 * 0.0126 and np.mean(bounded) > 0.95 - 3 * 0.0126


def test_layers_that_never_differ_share_their_place_and_one_alone_is_the_set():
    draw = np.random.default_rng(1)
    correct = right_answers(draw, 3, 400, [0.9, 0.5, 0.5])
    twice = np.concatenate([correct, correct[:1]])
    assert best_set(twice.mean(1), covariance(twice)).tolist() == [True, False, False, True]
    assert best_set(np.array([0.3]), np.array([[0.01]])).tolist() == [True]
    assert best_set(np.array([1.0, 1.0, 0.5]), np.zeros((3, 3))).tolist() == [True, True, False]
    assert gain_bounds(np.array([1.0, 0.5]), np.zeros((2, 2)), np.array([1])).tolist() == [0.5, 0.0]


def test_the_set_depends_neither_on_the_order_of_the_layers_nor_on_scale():
    draw = np.random.default_rng(2)
    correct = right_answers(draw, 8, 150, np.linspace(0.7, 0.8, 8))
    scores, spread, order = correct.mean(1), covariance(correct), np.random.default_rng(3).permutation(8)
    within = best_set(scores, spread)
    assert 1 < within.sum() < 8
    assert (best_set(100 * scores, 1e4 * spread) == within).all()
    assert (best_set(scores[order], spread[np.ix_(order, order)]) == within[order]).mean() >= 7 / 8  # a close call may turn


def test_bounds_hold_for_whichever_layer_was_picked_and_a_single_interval_would_not():
    draw, held, alone = np.random.default_rng(4), [], []
    for _ in range(400):
        correct = right_answers(draw, 10, 300, 0.8)
        scores, spread = correct.mean(1), covariance(correct)
        picked = int(scores[:-1].argmax())
        held.append(gain_bounds(scores, spread, np.array([9]))[picked] <= 0)
        error = np.sqrt(spread[picked, picked] + spread[9, 9] - 2 * spread[picked, 9])
        alone.append(scores[picked] - scores[9] - 1.645 * error <= 0)
    assert np.mean(held) > 0.95 - 3 * 0.011 and np.mean(alone) < 0.85


def test_the_null_of_aurocs_deals_out_the_images_anew_for_all_layers_alike():
    draw = np.random.default_rng(5)
    inside, outside = energies(draw, 40, 3), np.round(energies(draw, 25, 3, 0.4), 1)
    null, pooled = selection.auroc_null(inside, outside, draws=50), np.concatenate([inside, outside])
    slow = np.stack(
        [np.abs(ood_detection.auroc(pooled[~members], pooled[members]) - 0.5) for members in selection._deals(40, 25, 50, 0)]
    )
    observed = np.abs(ood_detection.auroc(inside, outside) - 0.5)
    assert null.mean == pytest.approx(slow.mean(0)) and null.q95 == pytest.approx(np.quantile(slow, 0.95, axis=0))
    assert null.p.tolist() == [
        (1 + (column >= value - 1e-9).sum()) / 51 for column, value in zip(slow.T, observed, strict=True)
    ]


def rate_by_chance(problems, seed):
    """In how many problems without outliers the best layer, with the better sign, has p_best of 0.05 or less."""
    draw, found = np.random.default_rng(seed), 0
    for number in range(problems):
        null = selection.auroc_null(energies(draw, 50, 12), energies(draw, 40, 12), seed=number, draws=99)
        found += null.p_best.min() <= 0.05
    return found / problems


def test_the_best_of_correlated_layers_separates_nothing_in_one_case_of_twenty():
    assert abs(rate_by_chance(300, 6) - 0.05) < 3 * 0.0126


@pytest.mark.slow
def test_the_rate_over_a_thousand_problems_is_five_percent():
    assert abs(rate_by_chance(1000, 7) - 0.05) <= 0.014


def test_a_layer_that_tells_outliers_by_low_energies_is_the_best_and_its_bound_is_above_the_final_one():
    draw = np.random.default_rng(8)
    inside, outside = energies(draw, 300, 4), energies(draw, 300, 4)
    outside[:, 1] -= 3
    two_sided = ood_detection.placements(*(ood_detection.deviation(part, inside) for part in (inside, outside)))
    rows = selection.after_selection(inside, outside, two_sided, final=3)
    assert [row["in_best_set"] for row in rows] == [False, True, False, False]
    assert rows[1]["gain_bound"] > 0.3 and rows[3]["gain_bound"] is None and rows[0]["gain_bound"] < 0
    assert rows[1]["p_best"] == 1 / 200 and 0.5 < rows[1]["null_mean"] < rows[1]["null_q95"] < 0.56
    few = selection.after_selection(inside[:2], outside, two_sided, final=3)
    assert all(value is None for row in few for value in row.values())


def captured(monkeypatch, words):
    """The rows of a study of probes, and the scores and covariances that its sets of best layers were made of."""
    seen = []

    def spy(scores, covariance, between=None, seeds=1):
        seen.append((scores, covariance, seeds))
        return best_set(scores, covariance, between, seeds)

    monkeypatch.setattr("lib.metrics.best_set.best_set", spy)
    return experiment(cli.parse(ProbeConfig, [*words, "--quiet", "-gpu", "-1", "-e", "2", "--reduce", "gap"])).rows, seen


def test_sets_of_probes_are_of_the_accuracies_and_errors_of_the_rows(trained, monkeypatch):
    monkeypatch.chdir(trained)
    words = ("models/a/model_2.pt", "-ood", "digits-c/fog-3", "-l", "features.*", "--select", "id-val", "oracle")
    found, seen = captured(monkeypatch, words)
    for rule in ("id-val", "oracle"):
        probes = [row for row in found if row["probe"] == "probe" and row["selected_by"] == rule]
        gain = next(row for row in found if row["probe"] == "gain" and row["selected_by"] == rule)
        of_rule = [one for one in seen if one[0].tolist() == pytest.approx([row["accuracy"] for row in probes])]
        assert of_rule and np.sqrt(np.diag(of_rule[0][1])) == pytest.approx([row["se"] for row in probes])
        assert gain["best_set"].split() == [row["layer"] for row in probes if row["in_best_set"]]
        assert gain["gain_bound"] <= gain["gain"]
    best = max((row for row in probes), key=lambda row: row["accuracy"])
    assert best["in_best_set"] and gain["selected_by"] == "oracle" and gain["layer"] == best["layer"]
    assert gain["gain_bound"] < gain["gain_low"] or gain["gain"] == 0  # it pays for having looked


def test_sets_of_adjusted_averages_are_of_their_errors_and_worst_groups_have_none(grouped, monkeypatch):
    monkeypatch.chdir(grouped)
    words = ("models/bg/model_6.pt", "-ood", "digits-bg", "-l", "pool2", "pool3", "avgpool", "--select", "id-val")
    found, seen = captured(monkeypatch, (*words, "--metric", "adjusted"))
    adjusted = [row for row in found if row["probe"] == "probe" and row["group"] == "adjusted"]
    assert seen[0][0].tolist() == pytest.approx([row["accuracy"] for row in adjusted])
    assert np.sqrt(np.diag(seen[0][1])) == pytest.approx([row["se"] for row in adjusted])
    assert all((row["in_best_set"] is not None) == (row["group"] == "adjusted") for row in found if row["probe"] == "probe")
    found, seen = captured(monkeypatch, words)
    assert not seen and all(row["in_best_set"] is row["best_set"] is row["gain_bound"] is None for row in found)


def test_a_bound_of_a_gain_is_of_one_layer_over_seeds_and_ood_sets(trained, monkeypatch):
    monkeypatch.chdir(trained)
    sets = ("-ood", "digits-c/fog-3", "digits-c/contrast-3", "-s", "0", "1")
    found, seen = captured(monkeypatch, ("models/a/model_2.pt", *sets, "-l", "features.*", "--select", "last-but-one"))
    assert {seeds for _, _, seeds in seen} == {2}
    gains = [row for row in found if row["probe"] == "gain"]
    assert len(gains) == 3 and all(row["gain_bound"] <= row["gain"] for row in gains)  # the layer is fixed beforehand
    found, _ = captured(monkeypatch, ("models/a/model_2.pt", *sets, "-l", "features.*", "--select", "oracle"))
    for row in found:
        if row["probe"] == "gain" and row["variant"] != "mean":
            assert (row["gain_bound"] is None) == (len(row["layer"].split()) > 1)


def coverage(draw_one, best, resamples, seed):
    """In how many resamples the set holds the best layer of all the images, whether bounds hold, and the median size."""
    draw, held, bounded, sizes = np.random.default_rng(seed), 0, 0, []
    for _ in range(resamples):
        within, holds = draw_one(draw)
        held, bounded = held + bool(within[best]), bounded + bool(holds)
        sizes.append(int(within.sum()))
    return held / resamples, bounded / resamples, float(np.median(sizes))


def of_energies(inside, outside, resamples, seed=0):
    """`coverage` over resamples of the images of both groups: energies (n, L) and (m, L) stand for all images there are."""
    strength = np.abs(ood_detection.auroc(inside, outside) - 0.5)
    final = inside.shape[1] - 1

    def draw_one(draw):
        placed = ood_detection.placements(*(part[draw.integers(0, len(part), len(part))] for part in (inside, outside)))
        within, bounds = selection.of_either_sign(placed, final)
        return within, (np.delete(bounds, final) <= np.delete(strength - strength[final], final) + 1e-12).all()

    return coverage(draw_one, int(strength.argmax()), resamples, seed)


def of_answers(correct, resamples, seed=0):
    """`coverage` over resamples of the images: whether each is right by every layer, (layers, n)."""
    accuracy, last = correct.mean(1), len(correct) - 1

    def draw_one(draw):
        drawn = correct[:, draw.integers(0, correct.shape[1], correct.shape[1])]
        spread = np.cov(drawn, bias=True) / drawn.shape[1]
        bounds = gain_bounds(drawn.mean(1), spread, np.array([last]))
        return best_set(drawn.mean(1), spread), (bounds <= accuracy - accuracy[last] + 1e-12).all()

    return coverage(draw_one, int(accuracy.argmax()), resamples, seed)


@pytest.mark.slow
def test_sets_hold_the_best_layer_in_ninetyfive_percent_of_2000_resamples_of_a_run_on_outliers(trained, monkeypatch):
    monkeypatch.chdir(trained)
    words = ["models/a/model_2.pt", "-ood", "patches", "digits-c/fog-5", "digits-c/shot_noise-1", "-l", "cuts"]
    arrays = ood_layers(cli.parse(OodLayersConfig, [*words, "--quiet", "-gpu", "-1"])).arrays
    for other in (name for name in arrays if name.startswith("energies_") and name not in ("energies_id", "energies_fit")):
        held, bounded, size = of_energies(arrays["energies_id"][..., 0], arrays[other][..., 0], 2000)
        print(f"{other}: held {held:.4f}, bounds {bounded:.4f}, median size {size:g} of {len(arrays['layers'])}")
        assert held >= 0.95 and bounded >= 0.95 - 3 * 0.0049, other


@pytest.mark.slow
def test_sets_hold_the_best_layer_in_ninetyfive_percent_of_2000_resamples_of_a_run_of_probes(trained, monkeypatch):
    monkeypatch.chdir(trained)
    kept = []
    monkeypatch.setattr("lib.experiments.probe.score", lambda *given: kept.extend(score(*given)) or kept)
    words = ["models/a/model_2.pt", "-ood", "digits-c/fog-5", "digits-c/shot_noise-1", "-l", "cuts", "--reduce", "gap"]
    experiment(cli.parse(ProbeConfig, [*words, "--quiet", "-gpu", "-1", "-e", "5"]))
    for number, scored in enumerate(kept):
        correct = np.stack([by_split["test"][0].numpy() for by_split in scored.correct.values()]).astype(float)
        held, bounded, size = of_answers(correct, 2000)
        print(f"OOD set {number}: held {held:.4f}, bounds {bounded:.4f}, median size {size:g} of {len(correct)}")
        assert held >= 0.95 and bounded >= 0.95 - 3 * 0.0049, number
