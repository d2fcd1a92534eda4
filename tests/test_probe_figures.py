"""The bars of exec_probe.py's figures: intervals that hold the mean of other trainings, and that say what they are over."""

import numpy as np
import pytest

from lib.plots import probe as plots
from lib.probing import evaluation


def cell(layer: str, seed: int | None, accuracy: float, **values) -> dict:
    """A row about a layer of the trained network."""
    about = {"probe": "probe", "network": "trained", "data": "d", "variant": "fog-5", "split": "test", "group": "all"}
    about |= {"reduce": "gap", "selected_by": "ood-val", "n": 400, "se": (accuracy * (1 - accuracy) / 400) ** 0.5}
    return evaluation.row(**about | {"layer": layer, "seed": seed, "accuracy": accuracy} | values)


def bars(figure) -> list[float]:
    """How far the bars of a figure's first line reach."""
    (segments,) = [part.get_segments() for part in figure.axes[0].containers[0].lines[2]]
    return [(high[1] - low[1]) / 2 for low, high in segments]


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_bars_hold_the_mean_over_all_seeds_in_19_of_20_cases(seeds):
    drawn = np.random.default_rng(0).normal(0.7, 0.02, (1000, seeds))
    cells = [[cell("a", seed, value) for seed, value in enumerate(values)] for values in drawn]
    means, reaches = plots._means(cells)
    assert (abs(means - 0.7) <= reaches).mean() == pytest.approx(0.95, abs=0.02)


def test_bars_over_seeds_are_students_and_those_of_one_seed_are_over_its_images():
    several = [cell(layer, seed, value) for layer in "ab" for seed, value in ((0, 0.6), (1, 0.8))]
    figure = plots.of_rows(several, "t", 0.1)["layers"]
    assert bars(figure) == pytest.approx([12.706 * 0.1] * 2, rel=1e-4)
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "bars: 95 % intervals (Student's) over 2 seeds"
    once = plots.of_rows([row for row in several if row["seed"] == 0], "t", 0.1)["layers"]
    assert bars(once) == pytest.approx([1.96 * (0.24 / 400) ** 0.5] * 2, rel=1e-3)
    (legend,) = once.legends
    assert legend.get_title().get_text() == "bars: 95 % intervals over images, without the noise of training"
    (chance,) = [line for line in once.axes[0].lines if line.get_label() == "chance"]
    assert list(chance.get_ydata()) == [0.1, 0.1]


def test_data_sets_of_one_seed_are_no_repetitions():
    rows = [cell("a", seed, 0.6 + 0.1 * place + 0.01 * seed, variant=f"v-{place}") for place in range(3) for seed in (0, 1)]
    (mean,), (reach,) = plots._means([rows])
    assert mean == pytest.approx(0.705) and reach == pytest.approx(12.706 * 0.005, rel=1e-4)
    (_,), (reach,) = plots._means([[row for row in rows if row["seed"] == 0]])
    assert reach == pytest.approx(1.96 * np.mean([row["se"] for row in rows if row["seed"] == 0]))


@pytest.mark.parametrize("seeds, over", [(1, "images, without the noise of training"), (3, "seeds and images (3 seeds)")])
def test_bars_of_gains_say_what_they_are_over_and_accuracies_at_a_share_are_students(seeds, over):
    rows = [
        cell("a", None, 0.7, probe="gain", gain=0.1, gain_low=-0.1, gain_high=0.3, baseline=0.6, se=0.01, n_seeds=seeds)
        | {"variant": variant, "fraction": share, "over": over.partition(",")[0].partition(" (")[0]}
        for variant in ("fog-5", "snow-5")
        for share in (0.1, 0.2)
    ]
    found = plots.of_rows(rows + [cell("a", 0, 0.7, fraction=share) for share in (0.1, 0.2)], "t", 0.1)
    assert over in found["gains"].axes[0].get_xlabel()
    quantile = {1: 1.96, 3: 4.3027}[seeds]
    assert bars(found["fractions"]) == pytest.approx([quantile * 0.01] * 2, rel=1e-4)


def test_figures_of_what_was_chosen_on_test_images_say_that_they_are_upper_bounds():
    rows = [cell(layer, 0, 0.7, selected_by="oracle") for layer in "ab"]
    gains = [
        cell(
            "a",
            None,
            0.7,
            probe="gain",
            selected_by="oracle",
            gain=0.1,
            gain_low=0.0,
            gain_high=0.2,
            n_seeds=1,
            over="images",
        )
        | {"variant": variant}
        for variant in ("fog-5", "snow-5")
    ]
    found = plots.of_rows(rows + gains, "t", 0.1)
    assert "oracle, an upper bound" in " ".join(found["layers"].get_suptitle().split())
    assert "oracle, an upper bound" in " ".join(found["gains"].get_suptitle().split())
