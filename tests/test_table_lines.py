"""The lines of a cell: seeds, verdicts, intervals, stitches, and tables over many records."""

from dataclasses import replace

import pytest
import records
from table_records import EVERY, KNOWN, NCG, fill, library, ncg_row

from lib.tables import (
    compare,
    missing_runs,
    summaries,
)
from lib.tables.papers.spec import PaperTable, Value


def test_several_rows_of_one_record_in_one_cell_are_called_ambiguous(tmp_path):
    path = records.training(tmp_path, "t")
    records.write(tmp_path, "ncg", "n", [ncg_row(path, 0.3), ncg_row(path, 0.4)], model_path=path)
    (line,) = fill(tmp_path)
    assert "ambiguous" in line.note


def test_a_function_reads_all_rows_of_a_run(tmp_path):
    path = records.training(tmp_path, "t")
    records.write(tmp_path, "ncg", "n", [ncg_row(path, 0.3), ncg_row(path, 0.5)], model_path=path)
    table = PaperTable(
        "", {"set": (Value("M-0"),)}, "ncg", metric=lambda found: sum(row["ncg"] for row in found) / len(found)
    )
    (line,) = fill(tmp_path, table, {})
    assert line.mean == pytest.approx(0.4) and line.n == 1 and "ambiguous" not in line.note


def test_open_axes_have_the_headings_of_the_rows_after_the_published_ones(tmp_path):
    path = records.training(tmp_path, "t")
    records.write(
        tmp_path, "ncg", "n", [ncg_row(path, 0.3, subset="quintile:2"), ncg_row(path, 0.5, subset="new")], model_path=path
    )
    table = PaperTable("", {"part": "subset", "set": (Value("M-0"),)}, "ncg", metric="ncg")
    known = {("quintile:2", "M-0"): KNOWN["M-0",], ("all", "M-0"): KNOWN["M-0",]}
    lines = fill(tmp_path, table, known)
    assert [(line.labels[0], line.mean) for line in lines] == [("quintile:2", 0.3), ("all", None), ("new", 0.5)]


@pytest.mark.parametrize("value, verdict", [(0.354, "below"), (0.3551, "agrees"), (0.3649, "agrees"), (0.366, "above")])
def test_a_number_without_noise_agrees_within_the_tolerance_at_any_number_of_runs(tmp_path, value, verdict):
    for seed in range(2):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        records.write(tmp_path, "ncg", f"n{seed}", [ncg_row(path, value)], model_path=path)
        assert [line.verdict for line in fill(tmp_path, replace(NCG, exact=True))] == [verdict]
        assert [line.verdict for line in fill(tmp_path)] == [compare.TOO_FEW]


@pytest.mark.parametrize(
    "columns, over",
    [
        (("ncg_low", "ncg_high"), "images"),
        (("mass_low", "mass_high"), "filters"),
        (("q05", "q95"), "filters, 5 % to 95 %"),
        (("s_null_low", "s_null_high"), "draws of the null"),
    ],
)
def test_an_interval_of_one_run_says_what_it_is_over_and_does_not_judge(tmp_path, columns, over):
    path = records.training(tmp_path, "t")
    records.write(tmp_path, "ncg", "n", [ncg_row(path, 0.3, **dict(zip(columns, (0.2, 0.4), strict=True)))], model_path=path)
    table = PaperTable("", {"set": (Value("M-0"),)}, "ncg", metric="ncg", interval=columns)
    (line,) = fill(tmp_path, table)
    assert (line.low, line.high, line.interval_of, line.verdict) == (0.2, 0.4, over, compare.TOO_FEW)


@pytest.mark.parametrize(
    "training, evaluation, file, told",
    [
        ({"max_examples": 500}, {}, "model_70.pt", "max examples 500"),
        ({"noise": 0.4}, {}, "model_70.pt", "noise 0.4"),
        ({"ema": 0.999}, {}, "model_70.pt", "ema 0.999"),
        ({}, {"max_examples": 100}, "model_70.pt", "max examples 100"),
        ({}, {"image_size": 14}, "model_70.pt", "image size 14"),
        ({}, {}, "model_10.pt", "file model_10.pt"),
        ({}, {}, "init.pt", "file init.pt"),
    ],
)
def test_runs_on_part_of_the_data_or_altered_ones_are_another_set_up_whether_the_table_names_it_or_not(
    tmp_path, training, evaluation, file, told
):
    for seed in range(5):
        path = records.training(tmp_path, f"t{seed}", seed=seed, **training).replace("model_70.pt", file)
        records.write(tmp_path, "ncg", f"n{seed}", [ncg_row(path, 0.36 + seed / 1e3)], model_path=path, **evaluation)
    (line,) = fill(tmp_path)
    assert (line.verdict, line.note) == (compare.OTHER, f"other set-up: {told}") and not line.as_published


def test_seeds_of_one_networks_evaluation_judge_nothing_and_of_several_networks_each_counts_once(tmp_path):
    for network in range(5):
        path = records.training(tmp_path, f"t{network}", seed=network)
        for seed in range(3):
            value = 0.3 + network / 100 + seed / 1000
            records.write(tmp_path, "ncg", f"n{network}{seed}", [ncg_row(path, value)], model_path=path, seed=seed)
        if not network:
            (line,) = fill(tmp_path)
            assert (line.n, line.networks, line.verdict) == (3, 1, compare.TOO_FEW)
            assert line.interval_of == "seeds of one network's evaluation"
            (summary,) = summaries.rows("ncg", library(tmp_path))
            assert (summary["runs"], summary["networks"]) == (3, "1")
    (line,) = fill(tmp_path)
    assert (line.n, line.networks, line.verdict) == (5, 5, "agrees")
    assert line.values == pytest.approx([0.301, 0.311, 0.321, 0.331, 0.341])
    assert "of each network the mean of 3 seeds of the evaluation" in line.note
    (summary,) = summaries.rows("ncg", library(tmp_path))
    assert summary["runs"] == 5 and summary["ncg sd"] == pytest.approx(line.deviation)


def test_networks_of_other_contents_of_a_data_set_share_no_line(tmp_path):
    for seed, content in enumerate(("a", "a", "b")):
        inputs = {"csv=labels.csv": {"sha256": content * 64, "bytes": 1}}
        records.write(
            tmp_path,
            "train",
            f"t{seed}",
            [{"epoch": 1, "train_accuracy": 0.9, "val_accuracy": 0.5 + seed / 10, "selected_on": "test", "best": True}],
            inputs=inputs,
            directory=f"t{seed}",
            seed=seed,
            dataset="csv=labels.csv",
            model_type="small_cnn",
            epochs=1,
        )
    found = summaries.rows("train", library(tmp_path))
    assert [(row["runs"], row["val_accuracy"]) for row in found] == [(2, 0.55), (1, 0.7)]
    assert [row["setting"] for row in found] == [
        "net content of csv=labels.csv aaaaaaaa",
        "net content of csv=labels.csv bbbbbbbb",
    ]


def test_rows_of_one_record_that_nothing_tells_apart_are_all_counted(tmp_path):
    rows = [{"checkpoint": "lenet", "layer": "conv1", "mass": mass} for mass in (0.3, 0.4, 0.8)]
    records.write(tmp_path, "projections", "p", rows, model_path=("lenet",), random=3, dataset="digits")
    (row,) = summaries.rows("projections", library(tmp_path))
    assert (row["runs"], row["mass"]) == (3, pytest.approx(0.5)) and row["mass sd"] == pytest.approx(0.2646, abs=1e-4)


def test_cells_without_an_experiment_say_so_and_are_never_commands(tmp_path):
    (line,) = compare.compare(EVERY["ilc/fig10"], {}, library(tmp_path))
    assert line.verdict == compare.NO_EXPERIMENT and not missing_runs.commands("ilc", [line], library(tmp_path))


def test_the_two_networks_of_a_stitch_are_told_from_a_network_stitched_to_itself(tmp_path):
    paths = [
        records.training(tmp_path, f"r{seed}", seed=seed, model_type="resnet18", dataset="cifar10", epochs=100)
        for seed in range(2)
    ]
    row = {
        "front_layer": "layer1.0",
        "end_layer": "layer2.0",
        "type": "rc2c_pre",
        "init": "pinv",
        "trained": False,
        "stitch_rank": None,
        "pinv_rank": None,
        "data": "cifar10",
        "split": "test",
        "n": 10,
        "seed": 0,
    }
    for name, ends, value in (("same", (0, 0), 0.9), ("cross", (0, 1), 0.5), ("back", (1, 0), 0.7)):
        records.write(
            tmp_path,
            "stitch",
            name,
            [row | {"accuracy": value}],
            front_path=paths[ends[0]],
            end_path=paths[ends[1]],
            init="pinv",
            epochs=0,
        )
    for table, values in (("e1", [0.7, 0.5]), ("e2", [0.9])):
        found = [line for line in compare.compare(EVERY[f"stitching/{table}"], {}, library(tmp_path)) if line.values]
        assert [line.values for line in found] == [values] and found[0].labels[2:] == ("layer1.0", "layer2.0")


@pytest.mark.parametrize("kept", [True, False])
def test_stitches_that_were_made_otherwise_are_other_lines_of_what_judges_them(tmp_path, kept):
    one, two = (
        records.training(tmp_path, f"r{seed}", seed=seed, model_type="resnet18", dataset="cifar10") for seed in range(2)
    )
    for samples, value in ((10, 0.5), (1000, 0.9)):
        row = {
            "front_layer": "layer1.0",
            "end_layer": "layer2.0",
            "stitch_rank": None,
            "pinv_rank": None,
            "init": "pinv",
            "trained": False,
            "epochs": 0,
            "samples": samples,
            "seed": 0,
        }
        made = records.write(
            tmp_path,
            "stitch",
            f"s{samples}",
            [row],
            front_path=one,
            end_path=two,
            init="pinv",
            epochs=0,
            pinv_samples=str(samples),
        )
        if not kept:
            made.unlink()
        records.write(
            tmp_path,
            "stitch_ood",
            f"o{samples}",
            [row | {"kind": "stitched", "front": one, "end": two, "auroc": value, "record": f"results/stitch/{made.name}"}],
            stitch_run=("results/stitch",),
        )
    found = [line for line in compare.compare(EVERY["stitching/e3"], {}, library(tmp_path)) if line.values]
    assert [line.values for line in found] == [[0.5], [0.9]] and all("repeated" not in line.note for line in found)
    assert "samples 1000" in found[1].setting and all(line.labels[1] == "DM" for line in found)


def test_what_is_computed_from_many_records_has_its_table(tmp_path):
    known = library(tmp_path)
    known.derive(
        "specificity",
        [tmp_path / "one.json", tmp_path / "two.json"],
        [
            {"data": "digits", "index": index, "setting": "100 images", "layer": layer, "spearman": value, "kendall": None}
            for index, layer, value in (("cka", "mean", 0.5), ("cka", "layer1", 0.9), ("dm", "mean", 0.7))
        ],
    )
    found = [line for line in compare.compare(EVERY["stitching/e5"], {}, known) if line.values]
    assert [(line.labels, line.mean, line.note) for line in found] == [
        (("digits", "CKA", "100 images", "Spearman"), 0.5, ""),
        (("digits", "DM", "100 images", "Spearman"), 0.7, ""),
    ]
    assert found[0].n == 1 and found[0].records == [tmp_path / "one.json", tmp_path / "two.json"]


def test_an_experiments_table_joins_seeds_and_tells_settings_apart(tmp_path):
    for seed, value in enumerate((0.5, 0.7)):
        path = records.training(tmp_path, f"x{seed}", seed=seed, epochs=3)
        row = {
            "data": "digits",
            "split": "test",
            "variant": "",
            "origin": "",
            "subset": "all",
            "n": 355,
            "accuracy": value,
            "loss": 1.0,
            "ece": 0.1,
        }
        records.write(tmp_path, "eval", f"e{seed}", [row], model_path=path)
        records.write(tmp_path, "eval", f"f{seed}", [row | {"accuracy": 0.1}], model_path=path, max_examples=10)
    found = summaries.rows("eval", library(tmp_path))
    assert [(row["accuracy"], row["runs"]) for row in found] == [(0.6, 2), (0.1, 2)]
    assert found[0]["accuracy sd"] == pytest.approx(0.02**0.5) and found[1]["setting"] == "eval max_examples 10"
    assert len({row["run"] for row in found}) == 1


def test_a_line_says_what_readers_find_it_by(tmp_path):
    paths = [records.training(tmp_path, f"r{seed}", seed=seed, dataset="cifar10", model_type="resnet20") for seed in (0, 1)]
    rows = [
        {"data": data, "split": "test", "variant": variant, "subset": "all", "n": 9, "accuracy": 0.5}
        for data, variant in (("cifar10", ""), ("cifar10-c", "fog-3"))
    ]
    written = [
        records.write(tmp_path, "eval", f"e{seed}", rows, model_path=path, dataset=["cifar10", "cifar10-c/fog-3"])
        for seed, path in enumerate(paths)
    ]
    found, origins = summaries.lines("eval", library(tmp_path))
    assert [(row["data"], row["runs"]) for row in found] == [("cifar10", 2), ("cifar10-c", 2)]
    network = ("resnet20 cifar10, 70 epochs",)
    assert [(one.experiments, one.networks, one.sets) for one in origins] == [
        (("eval",), network, ("cifar10",)),
        (("eval",), network, ("cifar10-c",)),
    ]
    assert [set(one.records) for one in origins] == [set(written)] * 2
    # without a column that names a data set: the one that the run was given, else the one that the network learnt
    _, (training, *_) = summaries.lines("train", library(tmp_path))
    assert training.sets == ("cifar10",)
    records.write(
        tmp_path, "projections", "p", [{"layer": "conv1", "mass": 0.5, "checkpoint": paths[0]}], model_path=[paths[0]]
    )
    _, (projection,) = summaries.lines("projections", library(tmp_path))
    assert projection.sets == ("cifar10",) and projection.networks == network
