"""Right answers and nearest-category scores by chance: answers in another order, the same for all networks and spaces."""

import numpy as np
import pytest

from lib.core.randomness import numpy_generator
from lib.experiments.config.ncg import NcgConfig
from lib.experiments.ncg import ncg
from lib.metrics.answer_null import answer_null
from lib.metrics.permutation_null import COLUMNS, calibrate
from lib.runs import cli

SHARES = np.array([0.35, 0.25, 0.15, 0.1, 0.05, 0.05, 0.05])


def alike(draw, first, share):
    """Labels of which so many are the first ones and the others are drawn anew."""
    return np.where(draw.random(len(first)) < share, first, draw.choice(len(SHARES), len(first), p=SHARES))


def unrelated(draw, sizes=(200, 150)):
    """Answers of two networks that agree, beside nearest labels of three spaces that agree, about other things."""
    pairs = []
    for n in sizes:
        answers = draw.choice(len(SHARES), n, p=SHARES)
        nearest = draw.choice(len(SHARES), n, p=SHARES[::-1])
        spaces = [nearest, alike(draw, nearest, 0.7), alike(draw, nearest, 0.4)]
        pairs += [(one, space) for one in (answers, alike(draw, answers, 0.6)) for space in spaces]
    return pairs


def found_by_chance(problems, seed):
    """In how many problems some score has p_best of 0.05 or less."""
    draw = np.random.default_rng(seed)
    return sum(answer_null(unrelated(draw), 99, number).p_best.min() <= 0.05 for number in range(problems)) / problems


def test_a_draw_is_the_score_of_the_answers_in_another_order_the_same_for_as_many_images():
    pairs = unrelated(np.random.default_rng(0), (30, 50))
    orders = {
        n: [draw.permutation(n) for _ in range(40)] for n, draw in ((n, numpy_generator(3, "null", n)) for n in (30, 50))
    }
    slow = [[sum(a[o[i]] == b[i] for i in range(len(b))) / len(b) for o in orders[len(b)]] for a, b in pairs]
    expected, null = calibrate(np.array([np.mean(a == b) for a, b in pairs]), np.array(slow).T), answer_null(pairs, 40, 3)
    assert null.mean == pytest.approx(expected.mean) and null.q95 == pytest.approx(expected.q95)
    assert (null.p == expected.p).all() and (null.p_best == expected.p_best).all()


def test_the_best_of_scores_that_go_together_is_found_by_chance_in_one_case_of_twenty():
    assert abs(found_by_chance(200, 0) - 0.05) < 3 * 0.0154


@pytest.mark.slow
def test_the_rate_over_a_thousand_problems_is_five_percent():
    rate = found_by_chance(1000, 1)
    print(rate)
    assert abs(rate - 0.05) <= 0.014


def test_answers_that_follow_the_nearest_label_are_found_and_the_others_are_not():
    draw = np.random.default_rng(2)
    pairs = unrelated(draw)
    pairs[4] = alike(draw, pairs[4][1], 0.3), pairs[4][1]
    null = answer_null(pairs, 199, 0)
    assert null.p_best[4] == 1 / 200 and np.delete(null.p_best, 4).min() > 0.05
    independent = [np.bincount(a, minlength=7) @ np.bincount(b, minlength=7) / len(a) ** 2 for a, b in pairs]
    assert null.mean == pytest.approx(independent, abs=0.01)


def test_rows_have_the_null_of_their_answers_and_no_other_number_changes(nine, monkeypatch):
    monkeypatch.chdir(nine)
    words = [
        "models/wo9/model_2.pt",
        "-ood",
        "digits-wo9:ood",
        "digits-c/fog-3",
        "--space",
        "pixel",
        "feature",
        "--quiet",
        "-gpu",
        "-1",
    ]
    words += ["--against", "models/wo9/init.pt"]
    plain, found = (ncg(cli.parse(NcgConfig, [*words, *more])) for more in ((), ("--null", "19")))
    assert [{name: one for name, one in row.items() if name not in COLUMNS} for row in found.rows] == plain.rows
    whole = [row for row in found.rows if row["subset"] == "all"]
    assert all((row["subset"] == "all") == ("p_best" in row) for row in found.rows)
    pairs = []
    for row in whole:
        key = {"ood": "digits-wo9-ood"}.get(row["split"], "test" if row["in_distribution"] else "digits-c-fog-3")
        side = "" if row["against"] else "_against"
        pairs.append((found.arrays[f"predictions_{key}{side}"], found.arrays[f"nearest_labels_{row['space']}_{key}"]))
    for row, expected in zip(whole, answer_null(pairs, 19, 0).columns(), strict=True):
        assert {name: row[name] for name in COLUMNS} == pytest.approx(expected)
