"""The table of one network's layers."""

import shlex

import numpy as np
import pytest
import records
from conftest import script
from table_records import CUTS, library, network, tables

from lib.experiments import EXPERIMENTS
from lib.runs import cli
from lib.tables import layer_order, network_overview, summaries

# ---------------------------------------------------------------------------------------------------------- one network


def test_measures_of_one_network_stand_side_by_side_per_layer(tmp_path):
    path = network(tmp_path)
    found = network_overview.tables(path, library(tmp_path))
    layers, pairs, empty = found.tables
    assert [row["layer"] for row in layers.rows] == ["conv1", *CUTS, "fc"]
    third = layers.rows[3]
    assert third["energy AUROC"] == pytest.approx(0.3 + 0.1) and third["two-sided AUROC"] == pytest.approx(0.9)
    assert third["filter bias"] == pytest.approx(0.04)
    assert third["similarity (CKA)"] == 0.8 and third["NCG"] is None
    assert layers.rows[0]["similarity (CKA)"] is None and layers.rows[-1]["energy AUROC"] == pytest.approx(0.8)
    rho = {(row["measure"], row["and"]): row for row in pairs.rows}
    assert rho["energy AUROC", "filter bias"]["spearman"] == -1 and rho["energy AUROC", "filter bias"]["n"] == 6
    wavering = rho["energy AUROC", "similarity (CKA)"]
    assert wavering["spearman"] == pytest.approx(1 - 6 * 44 / (6 * 35)) and wavering["low"] < wavering["spearman"]
    assert {row["column"] for row in empty.rows} == {"OOD probe gain", "stitching penalty", "NCG", "re-initialisation drop"}
    assert found.matrix[1][6] == -1 and found.matrix[0] == [None] * 8
    over, below = found.figure().axes[:2]
    told = {line.get_label().partition(":")[0] for line in over.lines}  # what was measured, and nothing else
    assert told == {"energy AUROC", "two-sided AUROC", "similarity (CKA)", "filter bias"}
    (colours,) = below.images
    names = [label.get_text().replace("\n", " ") for label in below.get_xticklabels()]
    assert colours.get_clim() == (-1, 1) and set(names) <= told
    assert colours.get_array()[names.index("energy AUROC"), names.index("filter bias")] == -1


def test_a_probes_gain_is_over_the_deepest_layer(tmp_path):
    path = network(tmp_path)
    row = {"probe": "probe", "network": "trained", "group": "all", "rank": None, "selected_by": "none"}
    probed = (("layer1.0", 0.5), ("layer2.1", 0.7), ("layer3.1", 0.6))
    records.write(
        tmp_path,
        "probe",
        "b",
        [{**row, "protocol": "zero-shot", "layer": layer, "accuracy": value} for layer, value in probed],
        model_path=path,
    )
    layers = network_overview.tables(path, library(tmp_path)).tables[0].rows
    assert [round(row["OOD probe gain"], 6) for row in layers if row["OOD probe gain"] is not None] == [-0.1, 0.1, 0]


def test_the_page_says_in_how_many_data_sets_a_layer_may_be_the_best_and_rings_it(tmp_path):
    path = network(tmp_path)
    row = {"probe": "probe", "network": "trained", "group": "all", "rank": None, "selected_by": "none"}
    may_be = {"layer1.0": (True, True, True), "layer2.1": (True, True, False), "layer3.1": (False, False, None)}
    records.write(
        tmp_path,
        "probe",
        "b",
        [
            {
                **row,
                "protocol": "zero-shot",
                "variant": f"fog-{number}",
                "layer": layer,
                "accuracy": 0.5,
                "in_best_set": there,
            }
            for layer, truths in may_be.items()
            for number, there in enumerate(truths)
        ],
        model_path=path,
    )
    found = network_overview.tables(path, library(tmp_path))
    shares = {row["layer"]: row["may be best (probes)"] for row in found.tables[0].rows}
    assert shares["layer1.0"] == 1 and shares["layer2.1"] == pytest.approx(2 / 3) and shares["layer3.1"] == 0
    assert shares["fc"] is None and "may be best (AUROC)" not in found.tables[0].rows[0]
    over = found.figure().axes[0]
    rings = {tuple(place) for marks in over.collections for place in np.asarray(marks.get_offsets())}
    layers = [row["layer"] for row in found.tables[0].rows]
    assert {layers[int(x)] for x, _ in rings} == {"layer1.0", "layer2.1"} and "may be the best" in over.get_title()


def test_a_probes_gain_compares_probes_on_the_same_images(tmp_path):
    path = network(tmp_path)
    row = {
        "probe": "probe",
        "network": "trained",
        "group": "all",
        "rank": None,
        "selected_by": "none",
        "protocol": "zero-shot",
        "data": "digits-c",
    }
    easy = [{**row, "variant": "fog-5", "layer": layer, "accuracy": 0.9} for layer in ("layer1.0", "layer2.1", "layer3.1")]
    records.write(tmp_path, "probe", "easy", easy, model_path=path)
    records.write(
        tmp_path, "probe", "hard", [{**row, "variant": "fog-1", "layer": "layer3.1", "accuracy": 0.3}], model_path=path
    )
    layers = network_overview.tables(path, library(tmp_path)).tables[0].rows
    assert [row["OOD probe gain"] for row in layers if row["OOD probe gain"] is not None] == [0, 0, 0]


def test_runs_of_other_settings_are_no_part_of_a_mean_and_are_named(tmp_path):
    path = network(tmp_path)
    row = {"score": "energy", "T": 1.0, "ood": "patches", "layer": "fc", "auroc": 0.1}
    before = network_overview.tables(path, library(tmp_path)).tables[0]
    records.write(tmp_path, "ood_layers", "trial", [row], model_path=path, ood=["patches"], max_examples=5)
    after = network_overview.tables(path, library(tmp_path)).tables[0]
    assert after.rows == before.rows
    assert "energy AUROC: runs with defaults; left out are 1 with ood_layers" not in before.note
    assert "energy AUROC: runs with defaults; left out are 1 with max_examples 5" in after.note


def test_only_a_sibling_is_what_a_network_is_compared_with(tmp_path):
    path = network(tmp_path)
    other = records.training(tmp_path, "short", epochs=8, model_type="resnet18", dataset="cifar10", seed=1)
    records.write(
        tmp_path,
        "stitch",
        "s",
        [
            {"front_layer": cut, "end_layer": cut, "stitch_rank": None, "pinv_rank": None, "null": None, "penalty": 0.5}
            for cut in CUTS
        ],
        front_path=other,
        end_path=path,
    )
    layers, *_ = network_overview.tables(path, library(tmp_path)).tables
    assert all(row["stitching penalty"] is None for row in layers.rows)
    assert sum(row["similarity (CKA)"] is not None for row in layers.rows) == len(CUTS)


def test_the_commands_for_empty_columns_are_commands_and_name_the_sibling(tmp_path):
    path = network(tmp_path)
    empty = network_overview.tables(path, library(tmp_path)).tables[-1].rows
    for row in empty:
        words = shlex.split(row["command"])
        cli.parse(EXPERIMENTS[words[1].removeprefix("exec_").removesuffix(".py")].configuration, words[2:])
        assert path in row["command"]
    assert sum(row["column"] == "NCG" for row in empty) == 6
    stitch = next(row["command"] for row in empty if row["column"] == "stitching penalty")
    assert "models/r1/model_70.pt models/r0/model_70.pt" in stitch and "-d cifar10" in stitch


def test_a_measure_that_takes_a_run_per_layer_is_asked_for_where_it_lacks(tmp_path):
    path = network(tmp_path)
    records.write(
        tmp_path,
        "ncg",
        "n",
        [{"space": "feature", "subset": "all", "in_distribution": False, "ncg": 0.5, "layer": CUTS[2], "model": path}],
        model_path=path,
    )
    empty = network_overview.tables(path, library(tmp_path)).tables[-1].rows
    asked = [row["command"].split()[-1] for row in empty if row["column"] == "NCG"]
    assert asked == [cut for cut in CUTS if cut != CUTS[2]]


def test_a_network_without_a_sibling_is_given_the_training_of_one(tmp_path):
    path = records.training(tmp_path, "only", model_type="resnet20", dataset="digits", epochs=3)
    records.write(
        tmp_path,
        "reinit",
        "r",
        [{"layer": "conv1", "status": "measured", "source": "rand", "relative_drop": 0.2}],
        model_path=path,
    )
    commands = [row["command"] for row in network_overview.tables(path, library(tmp_path)).tables[-1].rows]
    assert any(
        command.startswith("python exec_train.py resnet20") and "-s 1" in command and "-e 3" in command
        for command in commands
    )


def test_the_commands_for_a_network_of_ones_own_trust_its_file(tmp_path):
    path = records.training(tmp_path, "own", model_type="nets/own.py:tiny", dataset="digits", epochs=3)
    row = {"layer": "conv1", "status": "measured", "source": "rand", "relative_drop": 0.2}
    records.write(tmp_path, "reinit", "r", [row], model_path=path)
    asked = [row["command"] for row in network_overview.tables(path, library(tmp_path)).tables[-1].rows]
    assert len(asked) > 4
    for command in asked:  # a training names the file itself
        assert ("--trust nets/own.py" in command) != command.startswith("python exec_train.py nets/own.py:tiny")


def test_measures_that_only_rise_with_depth_have_no_small_adjusted_or_partial_p():
    generator = np.random.default_rng(0)
    layers = [str(number) for number in range(7)]
    found = []
    for _ in range(40):
        noise = generator.normal(size=(6, 7))
        columns = {str(number): dict(zip(layers, 2 * np.arange(7) + row, strict=True)) for number, row in enumerate(noise)}
        found.append(network_overview._correlations(columns, layers)[0])
    assert all(len(rows) == 15 and all(row["n"] == 7 for row in rows) for rows in found)
    for name, low, high in (("p_value", 0.9, 1.0), ("partial_p_holm", 0.0, 0.1)):
        assert low <= np.mean([any((row[name] or 1) < 0.05 for row in rows) for rows in found]) <= high
    for row in (row for rows in found for row in rows if row["p_value"]):
        assert row["p_least"] <= row["p_value"] <= row["p_holm"] and row["p_least"] == pytest.approx(2 / 5040)


def test_the_interval_of_a_rank_correlation_is_that_of_fishers_z():
    low, high = network_overview.interval(0.5, 28)
    assert (low, high) == pytest.approx((0.1327, 0.7466), abs=2e-4)  # tanh(0.5493 -+ 1.96 sqrt(1.125 / 25))
    assert network_overview.interval(1.0, 5) is None


def test_layers_keep_the_order_of_every_experiment():
    assert layer_order.merged([["a", "c", "e"], ["a", "b", "c"], ["c", "d", "e"]]) == ["a", "b", "c", "d", "e"]
    assert layer_order.merged([["a", "b"], ["b", "a", "c"]]) == ["a", "b", "c"]
    assert layer_order.units([["conv1", "x.0.conv1", "x.0.bn1", "x.1.conv1", "fc"], ["x.0", "x.1"]], ["x.0", "x.1"]) == [
        "conv1",
        "x.0",
        "x.1",
        "fc",
    ]
    assert layer_order.within("x.10.conv1", ["x.1", "x.10", "x"]) == "x.10"


def test_runs_of_one_experiment_on_other_layers_keep_the_order_of_the_network(tmp_path):
    path = network(tmp_path)
    last = {"layer": "fc", "score": "energy", "T": 1.0, "auroc": 0.9, "auroc_two_sided": 0.9, "ood": "svhn"}
    records.write(tmp_path, "ood_layers", "a", [last], model_path=path)  # read before "o", which begins with conv1
    layers = [row["layer"] for row in network_overview.tables(path, library(tmp_path)).tables[0].rows]
    assert layers == ["conv1", *CUTS, "fc"]


def test_a_stage_stands_behind_its_blocks():
    stages, blocks = ["x", "y", "fc"], ["conv1", "x.0.conv1", "x.1", "y.0", "fc"]
    cuts = [*stages, "x.0", "x.1", "y.0"]
    assert layer_order.units([stages, blocks], cuts) == ["conv1", "x.0", "x.1", "x", "y.0", "y", "fc"]


def test_the_networks_table_from_the_command_line(tmp_path):
    path = network(tmp_path)
    path = path.removeprefix("models/")
    done = script("exec_tables.py", "--network", path, "--format", "md", "--out", "made", cwd=tmp_path)
    assert done.returncode == 0 and "figure: made/r0-model_70.png" in done.stdout, done.stderr
    assert {file.name for file in (tmp_path / "made").iterdir()} == {
        "r0-model_70.png",
        "r0-model_70-layers.md",
        "r0-model_70-correlations.md",
        "r0-model_70-missing.md",
    }


def test_layers_of_one_role_are_averaged_in_tables_of_experiments_and_of_a_network(tmp_path):
    measured = {"conv1": ("convolution", 0.5), "bn1": ("norm", 0.6), "conv2": ("convolution", 0.9)}
    for seed, more in ((0, 0.0), (1, 0.02)):
        rows = [
            {
                "id": "digits",
                "ood": "patches",
                "layer": layer,
                "role": role,
                "score": "energy",
                "T": 1.0,
                "auroc": value + more,
            }
            for layer, (role, value) in measured.items()
        ]
        trained = records.training(tmp_path, f"r{seed}", seed=seed)
        records.write(tmp_path, "ood_layers", f"o{seed}", rows, model_path=trained)
        path = trained
    lines = {line["role"]: line for line in summaries.rows("ood_layers", library(tmp_path), (), "role")}
    assert set(lines) == {"convolution", "norm"} and "layer" not in lines["norm"]
    assert lines["convolution"]["layers"] == 2 and lines["convolution"]["runs"] == 2
    assert lines["convolution"]["auroc"] == pytest.approx(0.71)  # the mean of .70 and .72
    assert lines["convolution"]["auroc sd"] == pytest.approx(0.02 / 2**0.5)
    done = tables(tmp_path, "--network", path, "--group-by", "role", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("convolution,2,") and ",0.72," in line for line in done.stdout.splitlines())
    unknown = tables(tmp_path, "--network", path, "--group-by", "rule")
    assert unknown.returncode == 2 and "--group-by rule: the table has no such column; did you mean role?" in unknown.stderr
    nothing = tables(tmp_path, "ood_layers", "--group-by", "rule")
    assert nothing.returncode == 1 and "no record that is shown has rows with this column" in nothing.stderr
