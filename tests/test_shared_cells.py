"""What shares a line of a cell and what never does: seeds, splits, settings, contents, corruptions, flags."""

import pytest
import records
from scipy import stats
from table_records import GAINS, fill, gain_row, ncg_row, three_seeds

from lib.tables import (
    compare,
    paper_rows,
)
from lib.tables.papers import published
from lib.tables.papers.spec import PaperTable, Value


def test_runs_that_differ_in_seed_alone_are_one_cell_in_whatever_folders_they_lie(tmp_path):
    three_seeds(tmp_path)
    (line,) = fill(tmp_path)
    assert line.n == line.networks == 3 and line.mean == pytest.approx(0.35)
    assert line.deviation == pytest.approx(((0.05**2 + 0.01**2 + 0.04**2) / 2) ** 0.5)
    half = stats.t.ppf(0.975, 2) * line.deviation / 3**0.5
    assert (line.low, line.high) == pytest.approx((0.35 - half, 0.35 + half)) and line.interval_of == "seeds"
    assert line.difference == pytest.approx(-0.01) and line.verdict == compare.TOO_FEW
    assert line.margin == pytest.approx(stats.t.ppf(0.975, 2) * line.deviation * (1 / 3 + 1) ** 0.5)
    assert line.note == "4 seeds tell a difference of five deviations"
    assert "CNN002 mnist-wo0" in line.network and not line.setting
    (line,) = fill(tmp_path, seeds=(0, 2))
    assert line.values == [0.30, 0.39]


@pytest.mark.parametrize(
    "changes, config, word",
    [
        ({"split": "test"}, {}, "split test"),
        ({"origin": "generated"}, {}, "origin generated"),
        ({}, {"max_examples": 100}, "max_examples 100"),
    ],
)
def test_other_splits_origins_and_settings_never_share_a_cell(tmp_path, changes, config, word):
    three_seeds(tmp_path)
    path = records.training(tmp_path, "d", seed=3)
    records.write(tmp_path, "ncg", "other", [ncg_row(path, 0.9, **changes)], model_path=path, **config)
    other, together = sorted(fill(tmp_path), key=lambda line: line.n)
    assert (other.n, together.n) == (1, 3) and word in other.setting and word not in together.setting


def test_networks_trained_otherwise_never_share_a_cell_and_are_not_judged(tmp_path):
    three_seeds(tmp_path)
    path = records.training(tmp_path, "short", seed=0, epochs=8)
    records.write(tmp_path, "ncg", "short", [ncg_row(path, 0.36)], model_path=path)
    (short,) = [line for line in fill(tmp_path) if line.n == 1]
    assert short.verdict == compare.OTHER and "epochs 8, not 70" in short.note and short.difference == 0
    assert "net epochs 8" in short.setting


def test_other_contents_of_a_data_set_never_share_a_cell(tmp_path):
    for seed, content in enumerate(("1" * 64, "1" * 64, "2" * 64)):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        records.write(
            tmp_path,
            "ncg",
            f"n{seed}",
            [ncg_row(path, 0.3)],
            model_path=path,
            inputs={"mnist-wo0": {"sha256": content, "bytes": 1, "files": 1}},
        )
    assert sorted(line.n for line in fill(tmp_path)) == [1, 2]


CORRUPTED = PaperTable(
    "",
    {"set": (Value("C", {"probe": "probe"}),)},
    "probe",
    metric=lambda found: sum(row["accuracy"] for row in found) / len(found),
)


def corrupted(folder, name: str, path: str, accuracies: dict, origin: str = "official", files: bool = True) -> None:
    """The record of probes on corrupted images, a file per corruption."""
    rows = [gain_row(0.1, probe="probe", variant=kind, origin=origin, accuracy=value) for kind, value in accuracies.items()]
    rows += [gain_row(0.1, variant="mean", origin=origin)] if len(accuracies) > 1 else []
    records.write(
        folder,
        "probe",
        name,
        rows,
        model_path=path,
        ood=tuple(accuracies),
        inputs={f"cifar10-c/{kind}": {"sha256": kind, "bytes": 1, "files": 1} for kind in accuracies if files},
    )


@pytest.mark.parametrize("files", [True, False])
def test_a_mean_over_corruptions_is_one_line_and_that_over_others_another(tmp_path, files):
    for seed, kinds in enumerate(({"fog-5": 0.2, "contrast-5": 0.4}, {"fog-5": 0.4, "contrast-5": 0.6}, {"fog-5": 0.9})):
        corrupted(tmp_path, f"p{seed}", records.training(tmp_path, f"t{seed}", seed=seed), kinds, files=files)
    both, fog = fill(tmp_path, CORRUPTED, {})
    assert both.mean == pytest.approx(0.4) and both.n == 2 and "over contrast-5 fog-5" in both.setting
    assert fog.values == [0.9] and "over fog-5" in fog.setting


@pytest.mark.parametrize("table", [GAINS, CORRUPTED])
def test_official_and_generated_corruptions_of_probes_are_two_lines_in_their_mean_too(tmp_path, table):
    for seed, origin in enumerate(("official", "generated")):
        corrupted(
            tmp_path,
            origin,
            records.training(tmp_path, f"t{seed}", seed=seed),
            {"fog-5": 0.2, "contrast-5": 0.4},
            origin=origin,
        )
    lines = fill(tmp_path, table, {})
    assert [line.n for line in lines] == [1, 1] and "origin generated" in "".join(line.setting for line in lines)


@pytest.mark.parametrize(
    "origin, verdict, word",
    [("official", compare.TOO_FEW, ""), ("generated", compare.OTHER, "generated"), (None, compare.OTHER, "unknown")],
)
def test_only_official_corruptions_are_judged_by_numbers_of_the_official_archive(tmp_path, origin, verdict, word):
    records.write(tmp_path, "probe", "p", [gain_row(0.1, origin=origin)], model_path=records.training(tmp_path, "t"))
    (line,) = fill(tmp_path, GAINS, {("fog",): published.Published(0.36, "0.36", "a source", "NB")})
    assert line.verdict == verdict and (line.difference is None) == bool(word)
    assert not word or line.note == f"{compare.OTHER}: {word} corruptions, not the official archive"


def test_counts_out_of_other_totals_are_not_judged(tmp_path):
    path = records.training(tmp_path, "t")
    cells_row, slope = ncg_row(path, 0.3, subset="cells", n_cells=95, cells_above=95), ncg_row(path, 0.3, subset="slope")
    records.write(tmp_path, "ncg", "n", [cells_row, slope, slope], model_path=path)
    for total, verdict in ((75, compare.OTHER), (95, compare.TOO_FEW)):
        table = PaperTable(
            "", {"set": (Value("M-0"),)}, "ncg", {"subset": "cells"}, {"n_cells": total}, metric="cells_above"
        )
        (line,) = fill(tmp_path, table)
        assert line.verdict == verdict and (line.note == "other set-up: n cells 95, not 75") == (total == 75)
    for total, verdict in ((15, compare.OTHER), (2, compare.TOO_FEW)):
        table = PaperTable("", {"set": (Value("M-0"),)}, "ncg", {"subset": "slope"}, {"rows": total}, metric=len)
        (line,) = fill(tmp_path, table)
        assert line.verdict == verdict and (line.note == "other set-up: rows 2, not 15") == (total == 15)


def test_the_contents_of_the_files_behind_a_mean_tell_lines_apart(tmp_path):
    for seed, first in enumerate("ab"):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        records.write(
            tmp_path,
            "probe",
            f"p{seed}",
            [gain_row(0.1, variant=kind) for kind in ("fog-5", "snow-5", "mean")],
            model_path=path,
            inputs={f"cifar10-c/{kind}-5": {"sha256": first * 64, "bytes": 1, "files": 1} for kind in ("fog", "snow")},
        )
    table = PaperTable("", {"set": (Value("mean", {"variant": "mean"}),)}, "probe", metric="gain")
    assert ["content of cifar10-c/fog-5 aaaaaaaa" in line.setting for line in fill(tmp_path, table, {})] == [True, False]


def test_a_group_of_outliers_is_of_its_members(tmp_path):
    table = PaperTable("", {"outliers": (Value("near", {"ood": "near"}),)}, "ood_layers", metric="auroc")
    for seed, members in enumerate(("cifar100+tinyimagenet", "cifar100")):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        records.write(
            tmp_path,
            "ood_layers",
            f"o{seed}",
            [{"ood": "near", "members": members, "auroc": 0.5 + seed}],
            model_path=path,
            ood=("near",),
        )
    assert [(line.values, line.setting) for line in fill(tmp_path, table, {})] == [
        ([0.5], "members cifar100+tinyimagenet"),
        ([1.5], "members cifar100"),
    ]


def test_versions_of_the_code_that_share_a_cell_are_named(tmp_path):
    for seed in range(2):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        records.write(tmp_path, "ncg", f"n{seed}", [ncg_row(path, 0.3)], model_path=path, commit=str(seed) * 40)
    (line,) = fill(tmp_path)
    assert line.n == 2 and "several versions of the code: 00000000, 11111111" in line.note


def test_a_repeated_run_counts_once_and_seeds_of_one_network_are_told_from_networks(tmp_path):
    path = records.training(tmp_path, "t")
    for number in range(2):
        records.write(
            tmp_path,
            "ncg",
            f"n{number}",
            [ncg_row(path, 0.3 + number)],
            model_path=path,
            started=f"2026-01-0{number + 1}T00:00:00+00:00",
        )
    (line,) = fill(tmp_path)
    assert line.values == [1.3] and "1 repeated runs" in line.note
    records.write(tmp_path, "ncg", "n2", [ncg_row(path, 0.5)], model_path=path, seed=5)
    (line,) = fill(tmp_path)
    assert sorted(line.values) == [0.5, 1.3] and line.networks == 1
    assert paper_rows.shown(["set"], [line])[0]["n"] == "2 (1 network)"


def test_an_interval_over_seeds_ends_where_the_numbers_do(tmp_path):
    for seed, share in enumerate((0.99, 0.95, 0.999)):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        records.write(tmp_path, "ncg", f"n{seed}", [ncg_row(path, share)], model_path=path)
    (line,) = fill(tmp_path)
    half = stats.t.ppf(0.975, 2) * line.deviation / 3**0.5
    assert line.mean + half > 1 and (line.low, line.high) == pytest.approx((line.mean - half, 1.0))


def test_a_training_that_was_repeated_in_another_folder_counts_once(tmp_path):
    for number, folder in enumerate("ab"):
        path = records.training(tmp_path, folder, snapshot_every=number)  # which files stay changes no network
        records.write(
            tmp_path, "ncg", folder, [ncg_row(path, 0.36)], model_path=path, started=f"2026-01-0{number + 1}T00:00:00+00:00"
        )
    (line,) = fill(tmp_path)
    assert (line.n, line.networks, line.interval_of, line.setting) == (1, 1, "images", "") and "1 repeated runs" in line.note


def test_flags_that_add_rows_split_no_others(tmp_path):
    for seed, radius in enumerate((0, 5, 300)):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        radii = [ncg_row(path, None, subset="radius", at="images", radius_mean=1.0 + seed)] if radius else []
        records.write(tmp_path, "ncg", f"n{seed}", [ncg_row(path, 0.3 + seed), *radii], model_path=path, radius=radius)
    (line,) = fill(tmp_path)
    assert line.n == 3 and not line.setting
    radius = PaperTable("", {"set": (Value("M-0", {"subset": "radius"}),)}, "ncg", metric="radius_mean")
    assert [(line.values, line.setting) for line in fill(tmp_path, radius, {})] == [
        ([2.0], "ncg radius 5"),
        ([3.0], "ncg radius 300"),
    ]


@pytest.mark.parametrize("over", ["seeds and images", None])
def test_the_interval_of_a_gain_is_over_what_its_row_says(tmp_path, over):
    row = gain_row(0.1, gain_low=0.0, gain_high=0.2, over=over)
    records.write(tmp_path, "probe", "p", [row], model_path=records.training(tmp_path, "t"))
    value = Value("fog", {"probe": "gain"}, metric="gain", interval=("gain_low", "gain_high"))
    (line,) = fill(tmp_path, PaperTable("", {"set": (value,)}, "probe"), {})
    assert (line.low, line.high, line.interval_of) == (0.0, 0.2, over or "images")
