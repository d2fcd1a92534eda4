"""Gains of layers by chance: answers change places with the last layer's, and the best layer is found so in 5 %."""

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from lib.core.errors import UsageError
from lib.core.randomness import numpy_generator
from lib.experiments.config.probe import ProbeConfig
from lib.experiments.probe import probe as experiment
from lib.metrics.exchange_null import exchanged
from lib.metrics.permutation_null import COLUMNS, calibrate
from lib.probing.scores import score
from lib.runs import cli


def right_answers(draw, layers, n, accuracies):
    """Whether n images are right by every layer, (layers, n): hard images are so for all, neighbours are alike."""
    hard, noise, values = draw.normal(size=n), draw.normal(size=n), []
    for _ in range(layers):
        noise = 0.6 * noise + 0.8 * draw.normal(size=n)
        values.append(np.sqrt(0.6) * hard + np.sqrt(0.4) * noise)
    return (np.array(values) < ndtri(np.broadcast_to(accuracies, layers))[:, None]).astype(float)


def found_by_chance(problems, seed, n=300, accuracies=0.8, layers=12):
    """In how many problems the best layer has p_best of 0.05 or less though none is better than the last one."""
    draw, found = np.random.default_rng(seed), 0
    for _ in range(problems):
        correct = right_answers(draw, layers, n, accuracies)
        found += exchanged((correct[:-1] - correct[-1]).T, 99, draw).p_best.min() <= 0.05
    return found / problems


def test_a_draw_is_the_accuracies_where_answers_have_changed_places_on_the_same_images_for_all_layers():
    draw = np.random.default_rng(0)
    correct = right_answers(draw, 4, 50, [0.9, 0.7, 0.8, 0.7])
    null = exchanged((correct[:-1] - correct[-1]).T / 50, 60, np.random.default_rng(1))
    stays = np.random.default_rng(1).integers(0, 2, (60, 50), np.int8).astype(bool)
    slow = np.array(
        [
            [np.where(one, layer, correct[-1]).mean() - np.where(one, correct[-1], layer).mean() for layer in correct[:-1]]
            for one in stays
        ]
    )
    expected = calibrate(correct[:-1].mean(1) - correct[-1].mean(), slow)
    assert null.mean == pytest.approx(expected.mean) and null.q95 == pytest.approx(expected.q95)
    assert (null.p == expected.p).all() and (null.p_best == expected.p_best).all()
    assert null.p_best[0] < 0.05 < null.p_best[1]


def test_signs_drawn_in_parts_are_as_many_as_asked_for(monkeypatch):
    gains = np.random.default_rng(0).normal(size=(40, 3))
    monkeypatch.setattr("lib.metrics.exchange_null.NUMBERS", 40 * 7)
    assert exchanged(gains + 5, 60, np.random.default_rng(1)).p.tolist() == [1 / 61] * 3


def test_the_best_of_correlated_layers_is_better_than_the_last_by_chance_in_one_case_of_twenty():
    assert abs(found_by_chance(300, 0) - 0.05) < 3 * 0.0126


@pytest.mark.slow
@pytest.mark.parametrize(("n", "accuracies"), [(100, 0.8), (300, 0.8), (100, 0.95), (1000, 0.95)])
def test_the_rate_over_a_thousand_problems_is_five_percent(n, accuracies):
    rate = found_by_chance(1000, 0, n, accuracies)
    print(rate)
    assert abs(rate - 0.05) <= 0.014


def test_layers_that_are_worse_do_not_raise_the_rate_of_those_that_are_equal():
    assert found_by_chance(300, 1, accuracies=[0.3, 0.5, *[0.8] * 10]) < 0.05 + 3 * 0.0126


def test_labels_in_another_order_would_find_equal_layers_better():
    draw, found = np.random.default_rng(2), 0
    for _ in range(200):
        right = right_answers(draw, 12, 300, 0.8).astype(bool)
        labels = draw.integers(0, 10, 300)
        answers = np.where(right, labels, (labels + draw.integers(1, 10, right.shape)) % 10)
        gains = [
            (answers == one).mean(1)[:-1] - (answers == one).mean(1)[-1]
            for one in (labels, *(draw.permutation(labels) for _ in range(99)))
        ]
        found += calibrate(gains[0], np.array(gains[1:])).p_best.min() <= 0.05
    print(found / 200)
    assert found / 200 > 0.25


@pytest.mark.slow
def test_exchanges_would_find_equal_worst_groups_different_where_they_are_not_the_same_groups():
    draw, found, problems, layers, kinds, n = np.random.default_rng(3), 0, 500, 6, 4, 400
    groups = np.arange(n) % kinds
    members = np.eye(kinds)[groups] / (n / kinds)
    accuracies = np.where(np.arange(layers)[:, None] % kinds == groups, 0.8, 0.9)
    for _ in range(problems):
        hard = np.sqrt(0.6) * draw.normal(size=n) + np.sqrt(0.4) * draw.normal(size=(layers, n))
        correct = (hard < ndtri(accuracies)).astype(float)
        by_group, gains = correct @ members, correct[:-1] - correct[-1]
        middle, signs = (by_group[:-1] + by_group[-1]) / 2, draw.integers(0, 2, (99, n)) * 2 - 1
        half = np.einsum("dn,ln,ng->dlg", signs, gains, members, optimize=True) / 2
        drawn = (middle + half).min(2) - (middle - half).min(2)
        found += calibrate(by_group[:-1].min(1) - by_group[-1].min(), drawn).p_best.min() <= 0.05
    print(found / problems)
    assert found / problems > 0.1


WORDS = ("models/a/model_2.pt", "-ood", "digits-c/fog-3", "digits-c/contrast-3", "-l", "features.*", "-s", "0", "1")


def rows(*words):
    return experiment(cli.parse(ProbeConfig, [*words, "--quiet", "-gpu", "-1", "-e", "2", "--reduce", "gap"])).rows


def test_probes_have_the_null_of_their_answers_and_no_other_number_changes(trained, monkeypatch):
    monkeypatch.chdir(trained)
    seen = []

    def spy(study, *others):
        seen.append((study, score(study, *others)))
        return seen[-1][1]

    monkeypatch.setattr("lib.experiments.probe.score", spy)
    words = (*WORDS, "--select", "last-but-one", "oracle")
    plain, found = rows(*words), rows(*words, "--null", "19")
    assert [{name: one for name, one in row.items() if name not in COLUMNS} for row in found] == plain
    study, scores = seen[-1]
    sites = [site for site, learnt in scores[0].correct if learnt == 0]

    def slow(numbers):
        """Means over OOD sets and seeds; versions of an image and answers of both seeds change places together."""
        gains = {}
        for number in numbers:
            test = study.data.shifts[number].test
            for at, seed in enumerate(study.seeds):
                positions = study.tested(number, seed)
                right = torch.stack([scores[number].correct[site, at]["test"][0][positions] for site in sites]).double()
                each = (right[:-1] - right[-1]) / len(positions) / len(numbers) / 2
                for column, one in zip(each.T, test.indices[positions].tolist(), strict=True):
                    gains[one] = gains.get(one, 0) + column.numpy()
        ordered = np.array([gains[one] for one in sorted(gains)])
        return exchanged(ordered, 19, numpy_generator(0, "null", len(ordered))).columns()

    for number, shift in enumerate(study.data.shifts):
        expected = slow([number])
        probes = [row for row in found if row["probe"] == "probe" and row["variant"] == shift.test.variant]
        for row in probes:
            at = [site.tap.layer for site in sites].index(row["layer"])
            said = {name: row[name] for name in COLUMNS}
            assert said == (pytest.approx(expected[at]) if at < len(expected) else dict.fromkeys(COLUMNS))
    expected = slow([0, 1])[-1]
    mean = next(row for row in found if row["probe"] == "gain" and row["variant"] == "mean")
    assert {name: mean[name] for name in COLUMNS} == pytest.approx(expected)  # of the layer before the last one


def test_worst_groups_settings_chosen_on_the_test_images_and_several_chosen_layers_have_no_null(
    trained, grouped, monkeypatch
):
    monkeypatch.chdir(trained)
    found = rows(*WORDS, "-lr", "1e-3", "1e-2", "--select", "last-but-one", "oracle", "--null", "19")
    of_rule = {
        rule: [row for row in found if row["probe"] == "probe" and row["selected_by"] == rule]
        for rule in ("last-but-one", "oracle")
    }
    assert any(row["p_best"] is not None for row in of_rule["last-but-one"])
    assert all(row.get("p_best") is None for row in of_rule["oracle"])
    chosen = [row for row in rows(*WORDS, "--select", "oracle", "--null", "19") if row["probe"] == "gain" and row["layer"]]
    assert all((row.get("p_best") is None) == (len(row["layer"].split()) > 1) for row in chosen)
    monkeypatch.chdir(grouped)
    words = ("models/bg/model_6.pt", "-ood", "digits-bg", "-l", "pool2", "pool3", "--select", "id-val", "--null", "19")
    assert all("p_best" not in row for row in rows(*words))
    adjusted = [row for row in rows(*words, "--metric", "adjusted") if row.get("p_best") is not None]
    assert {row["group"] for row in adjusted} == {"adjusted"}


def test_too_few_exchanges_are_refused():
    with pytest.raises(UsageError, match=r"--null 18: p of so few exchanges is never 0\.05 or less; 19 are the least"):
        cli.parse(ProbeConfig, ["a.pt", "--null", "18"])
