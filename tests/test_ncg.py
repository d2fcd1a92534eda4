"""exec_ncg.py on built-in data: rows, arrays and figures; every mistake one sentence."""

import json
import shutil

import drawn
import numpy as np
import pytest
from conftest import script

from lib import datasets
from lib.core.errors import UserError
from lib.experiments.config.ncg import NcgConfig
from lib.experiments.ncg import ncg
from lib.metrics import nearest_category
from lib.runs import cli


@pytest.fixture(scope="module")
def folder(nine):
    return nine


def ask(folder, *words):
    """The result of the experiment, in this process."""
    where = ("--models-dir", str(folder / "models"), "--cache-dir", str(folder / ".cache"), "--quiet", "-gpu", "-1")
    return ncg(cli.parse(NcgConfig, [*map(str, words), *where]))


def choose(rows, **wanted):
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


BOTH = (
    "models/wo9/model_2.pt",
    "-d",
    "digits-wo9",
    "--space",
    "pixel",
    "feature",
    "--layer",
    "flatten",
    "--against",
    "models/wo9/init.pt",
)


@pytest.fixture(scope="module")
def both_spaces(folder):
    done = script("exec_ncg.py", *BOTH, cwd=folder)
    assert done.returncode == 0, done.stderr
    path = folder / done.stdout.strip().splitlines()[-1]
    return json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))


def test_the_held_out_class_is_searched_in_the_training_images(both_spaces):
    record, arrays = both_spaces
    training, unseen = datasets.load("digits-wo9", "data", "train"), datasets.load("digits-wo9:ood", "data")
    (row,) = choose(record["rows"], space="pixel", split="ood", subset="all", model="models/wo9/model_2.pt")
    images, others = (split.images.flatten(1).numpy().astype(np.int64) for split in (training, unseen))
    distances = np.stack([((images - other) ** 2).sum(1) for other in others])
    nearest = distances.argmin(1)
    assert np.array_equal(arrays["neighbors_pixel_digits-wo9-ood"], nearest)
    assert row["sum_squared_distance"] == distances.min(1).sum() and row["n"] == 180
    assert row["mean_distance"] == pytest.approx(np.sqrt(distances.min(1)).mean() / 255)
    labels = training.labels.numpy()[nearest]
    hits = arrays["predictions_digits-wo9-ood"] == labels
    assert row["hits"] == hits.sum() and row["ncg"] == hits.mean() and row["chance"] == 1 / 9
    assert row["majority"] == np.bincount(labels).max() / 180 and row["accuracy"] is None
    against = arrays["predictions_digits-wo9-ood_against"] == labels
    assert row["ncg_against"] == against.mean()
    assert {key: row[key] for key in ("gained", "lost", "p_paired")} == nearest_category.paired(hits, against)
    (other,) = choose(record["rows"], space="pixel", split="ood", subset="all", model="models/wo9/init.pt")
    assert other["ncg"] == against.mean() and "ncg_against" not in other and row["against"] == "models/wo9/init.pt"


def test_the_score_of_seen_classes_differs_from_the_accuracy_of_their_neighbours_by_no_more_than_the_errors(both_spaces):
    record, _ = both_spaces
    found = choose(record["rows"], split="test", subset="all")
    assert len(found) == 4  # two networks in two spaces
    for row in found:
        assert row["in_distribution"] and abs(row["ncg"] - row["accuracy_1nn"]) <= 1 - row["accuracy"] + 1e-12
    assert found[0]["accuracy"] > 0.5 and found[0]["accuracy_1nn"] > 0.95


def test_quintiles_partition_the_images_from_near_to_far(both_spaces):
    record, _ = both_spaces
    for space in ("pixel", "feature"):
        whole, *parts = choose(record["rows"], space=space, split="ood", model="models/wo9/model_2.pt")
        assert [part["subset"] for part in parts] == [f"quintile:{number}" for number in range(1, 6)]
        assert sum(part["hits"] for part in parts) == whole["hits"] and [part["n"] for part in parts] == [36] * 5
        means = [part["mean_distance"] for part in parts]
        assert means == sorted(means) and np.mean(means) == pytest.approx(whole["mean_distance"])


def test_features_are_those_of_the_named_layer(both_spaces):
    record, arrays = both_spaces
    (row,) = choose(record["rows"], space="feature", split="ood", subset="all", model="models/wo9/model_2.pt")
    assert row["layer"] == "flatten" and row["backbone"] == "models/wo9/model_2.pt"
    assert not np.array_equal(arrays["neighbors_feature_digits-wo9-ood"], arrays["neighbors_pixel_digits-wo9-ood"])
    assert row["sum_squared_distance"] == pytest.approx(arrays["squared_distances_feature_digits-wo9-ood"].sum())


def test_figures_lie_beside_the_record_and_a_repetition_returns_at_once(folder, both_spaces):
    assert len(list((folder / "results" / "ncg").glob("*.png"))) >= 2
    done = script("exec_ncg.py", *BOTH, cwd=folder)
    assert done.returncode == 0 and "already there" in done.stderr


def test_the_engines_give_the_same_answers(folder):
    answers = []
    for engine in ("faiss", "torch"):
        shutil.rmtree(folder / ".cache" / "neighbors", ignore_errors=True)
        answers.append(ask(folder, "wo9/model_2.pt", "--engine", engine, "--max-examples", 150).arrays)
    assert answers[0].keys() == answers[1].keys()
    assert all(np.array_equal(answers[0][key], answers[1][key]) for key in answers[0])


def test_a_network_of_all_classes_answers_in_its_own_numbers(trained):
    with pytest.warns(UserWarning, match="digits-wo3:ood: .*a/model_2.pt was trained on images of these classes"):
        found = ask(trained, "a/model_2.pt", "-d", "digits-wo3")
    (test,) = choose(found.rows, split="test", subset="all")
    whole = datasets.load("digits:test", "data")
    kept = whole.labels != 3
    (unseen,) = choose(found.rows, split="ood", subset="all")
    assert unseen["chance"] == 0.1 and test["n"] == int(kept.sum())
    assert test["accuracy"] == np.mean(found.arrays["predictions_test"] == whole.labels[kept].numpy())
    seen = datasets.load("digits:train", "data").labels
    labels = seen[seen != 3].numpy()[found.arrays["neighbors_pixel_digits-wo3-ood"]]
    assert unseen["seen_in_training"] and test["seen_in_training"]
    assert 3 not in labels and unseen["ncg"] == np.mean(found.arrays["predictions_digits-wo3-ood"] == labels)


def test_rows_say_whether_the_network_was_trained_on_the_images_classes(folder):
    found = ask(
        folder, "wo9/model_2.pt", "-d", "digits-wo9", "-ood", "digits-wo9:ood", "uniform-grey", "digits-wo9-c:test/fog-3"
    )
    told = [(row["data"], row["split"] == "ood", row["seen_in_training"]) for row in choose(found.rows, subset="all")]
    assert sorted(told) == [  # the test images as they are and in fog, the class held out, noise
        ("digits-wo9", False, True),
        ("digits-wo9", True, False),
        ("digits-wo9-c", False, True),
        ("uniform-grey", False, False),
    ]
    with pytest.warns(UserWarning, match="was trained on images of these classes"):
        of_all = ask(folder, "wo9/model_2.pt", "-d", "digits-wo9", "-ood", "digits:train")
    assert choose(of_all.rows, split="train", subset="all")[0]["seen_in_training"]
    untrained = ask(folder, "wo9/init.pt", "-d", "digits-wo9", "-ood", "digits-wo9:ood")
    assert not any(row["seen_in_training"] for row in untrained.rows)


def test_corrupted_images_have_a_row_per_level_and_their_slopes(folder):
    found = ask(
        folder,
        "wo9/model_2.pt",
        "-d",
        "digits-wo9",
        "--corruptions",
        "contrast",
        "--against",
        "wo9/init.pt",
        "--max-examples",
        200,
    )
    ours = str(folder / "models/wo9/model_2.pt")
    cells = choose(found.rows, data="digits-wo9-c", subset="all", model=ours)
    assert [cell["variant"] for cell in cells] == [f"contrast-{level}" for level in range(1, 6)]
    for cell in cells:
        assert cell["n"] == 200 and cell["accuracy"] is not None
        parts = (cell["accuracy_hits"] or 0) * cell["ncg"] + (cell["accuracy_misses"] or 0) * (1 - cell["ncg"])
        assert parts == pytest.approx(cell["accuracy"], abs=1e-12)
    slopes = choose(found.rows, subset="slope")
    assert len(slopes) == 2 and slopes[0]["variant"] == "contrast"
    expected = np.polyfit(np.arange(1, 6) / 4, [cell["ncg"] for cell in cells], 1)[0]
    assert slopes[0]["slope_ncg"] == pytest.approx(expected) and "p_slope_less_ncg" in slopes[1]
    over_cells, theirs = choose(found.rows, subset="cells")
    r = np.corrcoef([cell["mean_distance"] for cell in cells], [cell["accuracy"] for cell in cells])[0, 1]
    assert over_cells["r_distance_accuracy"] == pytest.approx(r) and over_cells["n_cells"] == 5
    assert over_cells["welch"] == sum(cell["p_welch"] < 0.05 for cell in cells)
    differences = [cell["ncg"] - cell["ncg_against"] for cell in cells]
    assert over_cells["difference"] == pytest.approx(np.mean(differences)) and "difference" not in theirs
    assert over_cells["cells_above"] == sum(difference > 0 for difference in differences)
    for number in range(1, 6):
        fifths = [
            row for row in found.rows if row["subset"] == f"quintile:{number}" and row["variant"] and row["model"] == ours
        ]
        significant = sum(row["p_welch"] is not None and row["p_welch"] < 0.05 for row in fifths)
        assert over_cells[f"welch_quintile_{number}"] == significant and len(fifths) == 5
        for row in fifths:  # recombination inside the fifth, with the right rows
            parts = (row["accuracy_hits"] or 0) * row["ncg"] + (row["accuracy_misses"] or 0) * (1 - row["ncg"])
            assert parts == pytest.approx(row["accuracy"], abs=1e-12)
    made = drawn.of("ncg", NcgConfig(), found)
    assert set(made) == {"", "quintiles", "corruptions"}
    panels = made["corruptions"].axes
    assert len(panels) == 4 and [panel.get_ylabel() for panel in panels] == ["score, pixel space", "accuracy"] * 2
    assert len({panel.get_title() for panel in panels}) == 2  # a row per network
    printed = found.text()
    assert "slope" not in printed and f"{len(slopes) + 2} rows of other columns are in the record" in printed
    arrays = found.arrays
    assert np.array_equal(arrays["labels_digits-wo9-c-test-contrast-5"], arrays["labels_test"])


def test_corrupted_images_of_other_classes_have_their_own_slopes_and_no_accuracy(folder):
    levels = [f"digits-c/contrast-{level}" for level in (5, 1, 3)]
    found = ask(folder, "wo9/model_2.pt", "-ood", *levels, "--corruptions", "contrast", "--max-examples", 100)
    slope, other = choose(found.rows, subset="slope")
    over_cells, _ = choose(found.rows, subset="cells")
    assert (slope["data"], other["data"]) == ("digits-c", "digits-wo9-c") and "slope_accuracy" in other
    panel = drawn.of("ncg", NcgConfig(), found)["corruptions"].axes[0]
    assert [[*bars.lines[0].get_xdata()] for bars in panel.containers] == [[1, 3, 5], [1, 2, 3, 4, 5]]
    assert "slope_ncg" in slope and "slope_accuracy" not in slope and over_cells["n_cells"] == 3
    assert not {"r_distance_accuracy", "welch"} & over_cells.keys()


def test_corrupted_test_images_and_corrupted_unseen_ones_have_slopes_of_their_own(folder):
    kinds = [f"digits-wo9-c:ood/fog-{level}" for level in (1, 3, 5)]
    unseen = ask(folder, "wo9/model_2.pt", "-d", "digits-wo9", "-ood", *kinds).rows
    both = ask(folder, "wo9/model_2.pt", "-d", "digits-wo9", "-ood", *kinds, "--corruptions", "fog").rows
    assert [row["split"] for row in choose(both, subset="slope")] == ["ood", "test"]
    assert choose(both, subset="slope", split="ood") == choose(unseen, subset="slope")
    assert [row["n_cells"] for row in choose(both, subset="cells")] == [3, 5]


def test_the_radius_is_measured_at_the_neighbours_the_network_gets_right_and_at_the_images(folder, monkeypatch):
    monkeypatch.setattr("lib.experiments.ncg.RADIUS_STEPS", 20)  # how near they come is tested with the attacks
    found = ask(
        folder, "wo9/model_2.pt", "-d", "digits-wo9", "--radius", 4, "--max-examples", 150, "--against", "wo9/init.pt"
    )
    ours = str(folder / "models/wo9/model_2.pt")
    at_neighbours, at_images = choose(found.rows, subset="radius", model=ours)
    arrays, key = found.arrays, "digits-wo9-ood"
    assert at_neighbours["n"] == 4 and at_images["n"] == 4 and at_neighbours["attack_success"] == 1
    chosen = arrays[f"indices_at_neighbours_{key}"]
    assert set(chosen) <= set(arrays[f"neighbors_pixel_{key}"]) and len(set(chosen)) == 4
    radius = arrays[f"radius_at_neighbours_{key}"]
    assert at_neighbours["radius_mean"] == pytest.approx(radius.mean()) == pytest.approx(at_neighbours["radius_km"])
    assert at_neighbours["won_ddn"] + at_neighbours["won_fab"] == 4
    distances = np.sqrt(arrays[f"squared_distances_pixel_{key}"]) / 255
    nearest = arrays[f"neighbors_pixel_{key}"]
    attached = [(distances[row], radius[list(chosen).index(place)]) for row, place in enumerate(nearest) if place in chosen]
    assert at_neighbours["n_attached"] == len(attached)
    assert at_neighbours["covered"] == np.mean([distance < limit for distance, limit in attached])
    # a boundary that is further than the neighbour cannot be crossed on the way to it
    assert at_images["covered"] <= at_images["segment_unchanged"] <= 1
    assert set(drawn.of("ncg", NcgConfig(), found)) == {"", "quintiles", "radius"}
    for row in choose(found.rows, subset="radius", model=str(folder / "models/wo9/init.pt")):
        assert row["n"] == 0 or (row["attack_success"] == 0 and row["radius_mean"] is None and row["radius_km"] > 1)


def test_fewer_images_than_quintiles_leave_some_empty(folder):
    found = ask(folder, "wo9/model_2.pt", "-d", "digits-wo9", "--max-examples", 3)
    parts = [row for row in choose(found.rows, split="ood") if row["subset"] != "all"]
    assert [part["n"] for part in parts] == [1, 1, 1, 0, 0] and parts[4]["ncg"] is None


@pytest.mark.parametrize(
    "words, status, fragments",
    [
        (("wo9/model_2.pt", "-d", "digits-wo12"), 1, ("digits has no class 12",)),
        (("wo9/model_2.pt", "-d", "digits", "-ood", "digits"), 1, ("it has 10 classes", "has 9")),
        (("wo9/model_2.pt", "-d", "patches", "-ood", "digits"), 1, ("it has 2 classes", "has 9")),
        (("wo9/model_2.pt", "-d", "digits-wo9", "-ood", "patches"), 1, ("patches:test has shape 3 x 32 x 32",)),
        (("wo9/model_2.pt", "-d", "digits-wo9:train"), 2, ("without a split",)),
        (("wo9/model_2.pt", "--layer", "flatten"), 2, ("--space feature",)),
        (("wo9/model_2.pt", "--space", "feature", "--layer", "flaten"), 1, ("did you mean flatten",)),
        (("wo9/model_2.pt", "--space", "pixels"), 2, ("did you mean pixel",)),
        (("wo9/model_2.pt", "--space", "feature", "--radius", "5"), 2, ("--radius is measured in --space pixel",)),
        (("wo9/model_2.pt", "--corruptions", "fogg"), 2, ("did you mean fog",)),
        (("wo9/model_2.pt", "--against", "wo9/model_7.pt"), 1, ("model_7.pt: no such checkpoint",)),
        (("wo9/model_2.pt", "--against", "wo9/../wo9/model_2.pt"), 2, ("the network itself",)),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_status(folder, words, status, fragments):
    with pytest.raises(UserError) as caught:
        ask(folder, *words)
    sentence = str(caught.value)
    assert caught.value.status == status and all(fragment in sentence for fragment in fragments) and "\n" not in sentence


def test_a_set_without_a_held_out_class_needs_other_images(trained):
    done = script("exec_ncg.py", "models/a/model_2.pt", cwd=trained)
    assert done.returncode == 1 and "digits holds no class out" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_tables_show_the_score_beside_its_null_rates(folder, both_spaces):
    done = script("exec_tables.py", "ncg", cwd=folder)
    assert done.returncode == 0 and "majority" in done.stdout and "independence" in done.stdout


def test_tables_take_trainings_that_differ_in_seed_and_folder_together(tmp_path):
    for seed in (0, 1):
        done = script(
            "exec_train.py",
            "lenet",
            "-d",
            "digits-wo9",
            "-dir",
            f"s{seed}",
            "-s",
            seed,
            "-e",
            1,
            "--max-examples",
            200,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    for words in (("models/s0/model_1.pt", "--against", "models/s1/model_1.pt"), ("models/s1/model_1.pt",)):
        assert script("exec_ncg.py", *words, "--max-examples", 200, cwd=tmp_path).returncode == 0
    rows = [
        row
        for path in (tmp_path / "results" / "ncg").glob("*.json")
        for row in json.loads(path.read_text())["rows"]
        if row["subset"] == "all" and row["split"] == "ood"
    ]
    assert len(rows) == 3 and {row["network_seed"] for row in rows} == {0, 1}
    scores = {row["network_seed"]: row["ncg"] for row in rows}
    (line,) = [line.split() for line in script("exec_tables.py", "ncg", cwd=tmp_path).stdout.splitlines() if " ood " in line]
    assert line[-1] == "2" and f"{np.mean(list(scores.values())):.4f}" in line
    assert f"{np.std(list(scores.values()), ddof=1):.4f}" in line
