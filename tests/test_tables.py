"""The papers' tables from made-up records whose numbers are known, and every way in which runs may share a cell or not."""

import csv
import html.parser
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import types

import pytest
import records
import torch
import yaml
from conftest import ROOT, script
from scipy import stats

from lib import models
from lib.experiments import EXPERIMENTS
from lib.models import cutting
from lib.probing import evaluation
from lib.runs import cli, command_lines
from lib.runs import records as runs_records
from lib.tables import (
    TESTS,
    compare,
    formats,
    missing_runs,
    paper_rows,
    papers,
    record_library,
    rerun,
    summaries,
)
from lib.tables.papers import published
from lib.tables.papers.spec import PaperTable, Value

EVERY = papers.chosen(())


def library(folder) -> record_library.Library:
    return record_library.Library(runs_records.records(folder / "results", EXPERIMENTS), EXPERIMENTS)


def ncg_row(path: str, value: float, **changes) -> dict:
    return {
        "model": path,
        "train": "mnist-wo0",
        "data": "mnist-wo0",
        "split": "ood",
        "variant": "",
        "origin": "",
        "space": "pixel",
        "subset": "all",
        "in_distribution": False,
        "n": 6903,
        "ncg": value,
        "accuracy": None,
        "ncg_low": value and value - 0.01,
        "ncg_high": value and value + 0.01,
    } | changes


NCG = PaperTable(
    "",
    {"set": (Value("M-0", {"net.dataset": "mnist-wo0"}),)},
    "ncg",
    {"space": "pixel", "subset": "all", "in_distribution": False},
    {"net.epochs": 70},
    metric="ncg",
    interval=("ncg_low", "ncg_high"),
)
KNOWN = {("M-0",): published.Published(0.36, "0.36", "a source", "NB", 0.005)}


def fill(folder, table=NCG, known=KNOWN, seeds=()) -> list[compare.Comparison]:
    return compare.compare(table, known, library(folder), seeds)


def three_seeds(folder, values=(0.30, 0.36, 0.39), **changes) -> None:
    for seed, (place, value) in enumerate(zip("abc", values, strict=True)):
        path = records.training(folder, f"{place}/{seed}", seed=seed)
        records.write(folder, "ncg", f"n{seed}", [ncg_row(path, value, **changes)], model_path=path, seed=seed)


# ------------------------------------------------------------------------------------------------------ published numbers


def test_published_numbers_have_a_place_a_source_and_a_tag():
    for block in yaml.safe_load(published.FILE.read_text()):
        assert set(block) <= {"table", "source", "tag", "percent", "tolerance", "columns", "values"}
        assert block["source"] and block["tag"] in published.TAGS and block["table"] in EVERY
        for values in block["values"].values():
            assert all(isinstance(value, int | float | str) for value in values)
            assert len(values) == len(block["columns"]) == len(set(map(str, block["columns"])))
    for name, found in published.read().items():
        known = papers.spec.cells(EVERY[name])
        for labels, number in found.items():
            assert any(compare._fits(labels, cell.labels) for cell in known), (name, labels)
            assert (number.value is None) == (re.fullmatch(r"[-\d.e]+", number.text) is None)
            assert number.tolerance >= 0 and (number.value is None or abs(number.value) < 1e5)


def test_numbers_are_those_of_the_papers_pages_in_the_units_of_records():
    known = published.read()
    assert known["ncg/pixel"]["M-0", "NCG", "AT(2)"].value == 0.457
    assert known["ilc/fig5"]["Waterbirds", "best layer"].value == 0.871
    assert known["ilc/fig3"]["CIFAR-100-C", "ViT", "gain"].value == -0.002
    assert known["oodlayers/layers"]["layer1.0.bn2", "oracle sign"].value == 0.944
    assert known["oodlayers/openood"]["CIFAR-10", "vim", "far"].value == 0.9348
    assert known["ncg/chi-square"]["M-1", "hits"].value == 880 and known["ncg/chi-square"]["M-1", "n"].value == 7877
    assert known["ilc/fig4"]["CMNIST", "0.25", "best layer"].value == 0.952
    assert known["ilc/fig4"]["CelebA", "0.03", "gain"].tolerance == pytest.approx(0.0005)
    assert known["ilc/fig6"]["CIFAR-10-C", "ResNet-18", "last layer"].value == 0.631
    assert known["ncg/table3"]["M-4", "distance", "TR(2)"].text == "5.64 to 5.89"
    assert known["ncg/table3"]["I-2", "covered", "nat"].text == "0 to .0045"
    for digit in range(10):
        assert known["ncg/distance"][f"M-{digit}", "NCG"] == known["ncg/pixel"][f"M-{digit}", "NCG", "nat"]
    missing_one = known["ilc/fig5"]["Waterbirds", "base head"]
    assert missing_one.value is None and missing_one.text == "not found"


# ------------------------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize("name", EVERY)
def test_a_table_is_well_formed(name):
    table = EVERY[name]
    found = papers.spec.cells(table)
    shown = {"run", "setting", "ours", "95 % interval", "n", "published", "difference", "verdict", "note", "published in"}
    assert not shown & set(table.axes) and len({cell.labels for cell in found}) == len(found)
    for cell in found:
        assert cell.lacks or cell.experiment in (*EXPERIMENTS, *TESTS) and cell.metric
        fields = EXPERIMENTS[cell.experiment].fields if cell.experiment in EXPERIMENTS else {}
        for condition in (*cell.where, *cell.setup, *cell.run):
            role, dot, field = condition.rpartition(".")
            if dot and fields:
                assert field in (fields if role == "config" else {"features", *EXPERIMENTS["train"].fields}), condition


def test_every_missing_command_is_one_that_its_script_takes_and_folders_do_not_clash(tmp_path):
    empty, folders, commands = library(tmp_path), {}, []
    for name, table in EVERY.items():
        commands += missing_runs.commands(name.partition("/")[0], compare.compare(table, {}, empty), empty)
    for command in dict.fromkeys(commands):
        words = shlex.split(command)
        experiment = words[1].removeprefix("exec_").removesuffix(".py")
        config = cli.parse(EXPERIMENTS[experiment].configuration, words[2:])
        again = shlex.split(command_lines.command(EXPERIMENTS, experiment, vars(config)))
        assert cli.parse(EXPERIMENTS[experiment].configuration, again[2:]) == config
        if experiment == "train":
            assert folders.setdefault(config.directory, command) == command
    assert len(folders) > 100


def test_missing_commands_name_layers_that_their_networks_have(tmp_path):
    types_, asked = {}, set()
    for name, table in EVERY.items():
        for command in missing_runs.commands(
            name.partition("/")[0], compare.compare(table, {}, library(tmp_path)), library(tmp_path)
        ):
            words = shlex.split(command)
            config = cli.parse(EXPERIMENTS[words[1][len("exec_") : -len(".py")]].configuration, words[2:])
            if words[1] == "exec_train.py":
                types_[f"models/{config.directory}/model_{config.epochs}.pt"] = config.model_type
            elif words[1] == "exec_probe.py" and config.layers != ("cuts",):
                asked.add((types_[config.model_path], config.layers))
            elif words[1] == "exec_ood_detector.py":
                asked.add((types_[config.source_path], config.layer))
    for model_type, layers in sorted(asked):
        listed = cutting.layers(models.build(model_type, 10).eval(), torch.zeros(1, 3, 32, 32))
        found = cutting.select([layer.name for layer in listed if layer.shape], layers, {})
        assert layers == ("blocks.*",) or all(name.count(".") < 2 for name in found), found  # no parts of blocks
    assert {"pytorch_cifar_resnet18", "vit_tiny_patch4_32", "tv_resnet50"} <= {model_type for model_type, _ in asked}


def test_the_missing_command_of_a_cell_fills_it(tmp_path):
    lines = fill(tmp_path)
    assert [line.verdict for line in lines] == [compare.NOT_MEASURED]
    table = EVERY["ncg/pixel"]
    lines = [line for line in compare.compare(table, {}, library(tmp_path)) if line.labels == ("M-0", "NCG", "TR(2)")]
    train, score = missing_runs.commands("ncg", lines, library(tmp_path))
    config = cli.parse(EXPERIMENTS["train"].configuration, shlex.split(train)[2:])
    path = records.training(
        tmp_path,
        config.directory,
        **{
            name: value
            for name, value in vars(config).items()
            if name not in ("directory", "model_type", "dataset", "epochs")
        },
    )
    asked = cli.parse(EXPERIMENTS["ncg"].configuration, shlex.split(score)[2:])
    assert asked.model_path == path
    records.write(tmp_path, "ncg", "n", [ncg_row(path, 0.4)], **vars(asked))  # what the command's run would leave
    (line,) = [line for line in compare.compare(table, published.read()["ncg/pixel"], library(tmp_path)) if line.values]
    assert line.labels == ("M-0", "NCG", "TR(2)") and line.mean == 0.4 and line.verdict == "below"
    assert line.difference == pytest.approx(0.4 - 0.457) and line.low == pytest.approx(0.39) and not line.note
    assert not missing_runs.commands("ncg", [line], library(tmp_path))
    again, scored = missing_runs.commands("ncg", [line], library(tmp_path), (0, 1))  # seed 0 is there
    assert again.replace(" -s 1", "") == train.replace("-s0", "-s1") and scored == score.replace("-s0/", "-s1/") + " -s 1"


def test_a_training_that_is_there_is_not_asked_for_again(tmp_path):
    path = records.training(tmp_path, "mine", dataset="cifar10", model_type="resnet18", epochs=100)
    lines = [line for line in compare.compare(EVERY["stitching/e2"], {}, library(tmp_path)) if "DM" in line.labels]
    first, *_ = missing_runs.commands("stitching", lines, library(tmp_path))
    assert not first.startswith("python exec_train.py resnet18") and first.count(path) in (0, 2)
    assert any(command.count(path) == 2 for command in missing_runs.commands("stitching", lines, library(tmp_path)))


def trained_as(folder, command: str, directory: str, **changes) -> str:
    """The record that a missing training would leave, in another folder and with changes; its last checkpoint's path."""
    config = vars(cli.parse(EXPERIMENTS["train"].configuration, shlex.split(command)[2:])) | changes
    return records.training(folder, directory, **{name: value for name, value in config.items() if name != "directory"})


def heads(folder, name: str, *labels: str) -> list[str]:
    """The commands that one cell of a table on stored features lacks: backbone, head, score."""
    lines = [line for line in compare.compare(EVERY[name], {}, library(folder)) if line.labels == labels]
    return missing_runs.commands("ncg", lines, library(folder))


def test_a_head_on_stored_features_that_is_there_is_not_asked_for_again(tmp_path):
    backbone, *_ = heads(tmp_path, "ncg/feature", "M-0", "NCG", "nat")
    path = trained_as(tmp_path, backbone, "mine")
    head, score = heads(tmp_path, "ncg/feature", "M-0", "NCG", "nat")
    assert f"features={path}:flatten:mnist-wo0" in head
    path = trained_as(tmp_path, head, "head")
    (score,) = heads(tmp_path, "ncg/feature", "M-0", "NCG", "nat")
    assert score == f"python exec_ncg.py {path}"


def test_heads_and_networks_are_trained_as_the_paper_has_it(tmp_path):
    def flags(name, *labels):
        return [
            cli.parse(EXPERIMENTS["train"].configuration, shlex.split(command)[2:])
            for command in heads(tmp_path, name, *labels)
            if "exec_train.py" in command
        ]

    for name, labels, rate in (
        ("feature", ("I-0", "NCG", "nat"), 0.1),
        ("feature", ("I-0", "NCG", "TR(2)"), 0.01),
        ("feature", ("I-0", "NCG", "TR(4)"), 0.1),
        ("feature", ("M-0", "NCG", "TR(2)"), 0.01),
        ("chi-square", ("I-0", "hits"), 0.01),
        ("chi-square", ("M-0", "hits"), 0.01),
    ):
        backbone, head = flags(f"ncg/{name}", *labels)
        assert head.learning_rate == rate and backbone.learning_rate == 0.01, labels
        assert backbone.unnormalize == (labels[0] == "M-0") and backbone.loss == "ce"
    assert backbone.mean == () and flags("ncg/pixel", "C10-0", "NCG", "nat")[0].unnormalize
    assert flags("ncg/pixel", "I-0", "NCG", "nat")[0].mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "changes, told", [({}, ""), ({"unnormalize": False}, "unnormalize False, not True"), ({"epochs": 8}, "epochs 8, not 70")]
)
def test_networks_normalised_otherwise_than_the_papers_are_not_judged(tmp_path, changes, told):
    path = trained_as(tmp_path, heads(tmp_path, "ncg/pixel", "M-0", "NCG", "nat")[0], "mine", **changes)
    records.write(tmp_path, "ncg", "n", [ncg_row(path, 0.362)], model_path=path)
    (line,) = [
        line for line in compare.compare(EVERY["ncg/pixel"], published.read()["ncg/pixel"], library(tmp_path)) if line.n
    ]
    assert line.verdict == (compare.OTHER if told else "agrees") and told in line.note


def test_a_head_has_a_rate_and_a_backbone_that_its_cell_asks_for():
    def cell(name, *labels):
        return next(cell for cell in papers.spec.cells(EVERY[name]) if cell.labels == labels)

    for name, labels in (("ncg/feature", ("I-0", "NCG", "nat")), ("ncg/chi-square", ("C10-0", "hits"))):
        asked = cell(name, *labels).setup
        assert papers.spec.matches(70, asked["backbone.epochs"]) and not papers.spec.matches(8, asked["backbone.epochs"])
        assert asked["backbone.loss"] == ("ce", None)
    assert not papers.spec.matches(0.01, cell("ncg/feature", "I-0", "NCG", "nat").setup["net.learning_rate"])
    assert not papers.spec.matches(0.1, cell("ncg/chi-square", "I-0", "hits").setup["net.learning_rate"])


@pytest.mark.parametrize(
    "dataset, changes, told",
    [
        ("cifar10", {"epochs": 1}, "epochs 1, not 100"),
        ("cifar5m", {"epochs": 100}, "max examples None, not 50000"),
        ("cifar5m", {"epochs": 100, "max_examples": 50000}, ""),
    ],
)
def test_anchors_are_networks_trained_to_the_end_on_as_many_images(tmp_path, dataset, changes, told):
    path = records.training(tmp_path, "r", dataset=dataset, model_type="resnet18", **changes)
    records.write(
        tmp_path,
        "eval",
        "e",
        [{"data": "cifar10", "split": "test", "variant": "", "origin": "", "subset": "all", "n": 10000, "accuracy": 0.3}],
        model_path=path,
    )
    known = published.read()["stitching/anchors"]
    (line,) = [line for line in compare.compare(EVERY["stitching/anchors"], known, library(tmp_path)) if line.n]
    assert line.verdict == (compare.OTHER if told else "below") and told in line.note


def test_a_cell_lacks_the_seeds_that_none_of_its_lines_has(tmp_path):
    table = EVERY["ncg/pixel"]

    def asked(*seeds):
        lines = compare.compare(table, {}, library(tmp_path), seeds)
        return missing_runs.commands(
            "ncg", [line for line in lines if line.labels == ("M-0", "NCG", "nat")], library(tmp_path), seeds
        )

    setup = {name.removeprefix("net."): value for name, value in {**papers.ncg.EVERYWHERE, **papers.ncg.PIXEL["M"]}.items()}
    path = records.training(tmp_path, "short", seed=0, **{**setup, "epochs": 8})
    records.write(tmp_path, "ncg", "short", [ncg_row(path, 0.1)], model_path=path)
    for seed, where in ((1, "test-1"), (2, "test-2")):  # lines of their own, by the contents of the data
        path = records.training(tmp_path, where, seed=seed, **setup)
        records.write(
            tmp_path,
            "ncg",
            where,
            [ncg_row(path, 0.3)],
            model_path=path,
            inputs={"mnist-wo0": {"sha256": str(seed) * 64, "bytes": 1, "files": 1}},
        )
    assert not asked() and not asked(1, 2)
    assert len(asked(0, 1, 2)) == 2 and all("s0" in command for command in asked(0, 1, 2))  # 8 epochs are not the paper's


def test_a_number_that_many_records_give_is_there_for_every_seed(tmp_path):
    known = library(tmp_path)
    known.derive(
        "specificity",
        [tmp_path / "one.json", tmp_path / "two.json"],
        [{"data": "digits", "index": "cka", "setting": "100 images", "layer": "mean", "spearman": 0.5, "kendall": 0.4}],
    )
    lines = [line for line in compare.compare(EVERY["stitching/e5"], {}, known, (0, 1)) if "CKA" in line.labels]
    assert all(line.n == 1 for line in lines) and not missing_runs.commands("stitching", lines, known, (0, 1))


def test_cells_that_are_made_from_records_ask_for_the_runs_that_leave_them(tmp_path):
    def asked(name, *labels):
        lines = [line for line in compare.compare(EVERY[name], {}, library(tmp_path)) if set(labels) <= set(line.labels)]
        return [shlex.split(command)[1:] for command in missing_runs.commands("stitching", lines, library(tmp_path))]

    one, two = (f"models/stitching/resnet18-cifar10-s{seed}/model_100.pt" for seed in (0, 1))
    trainings, (first, second, index) = asked("stitching/e5", "CKA")[:2], asked("stitching/e5", "CKA")[2:]
    assert [words[0] for words in trainings] == ["exec_train.py"] * 2
    assert first[:2] == ["exec_probe.py", one] and second[:2] == ["exec_probe.py", two]
    assert index[:3] == ["exec_similarity.py", one, two]
    stitch = asked("stitching/e6", "TLM")[-1]
    assert stitch[:3] == ["exec_stitch.py", one, two] and "--front-stitch-rank" in stitch
    *_, detector, stitch, judged = asked("stitching/e3", "DM", "ResNet-18, CIFAR-10")
    assert detector[:2] == ["exec_ood_detector.py", two] and stitch[0] == "exec_stitch.py" and "pinv" in stitch
    assert judged == ["exec_stitch_ood.py", "results/stitch"]


# ------------------------------------------------------------------------------------- cells and the rows of real runs

LAND_AND_WATER = ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")


def probe_rows(data: str, variant: str = "", groups=(), right=(0.9,), **about) -> list[dict]:
    """The rows that a probe run has of one layer: of all images, of each group, the worst and adjusted; `right` by group."""
    where = torch.arange(100 * len(right)) // 100
    correct = torch.arange(100 * len(right)) % 100 < (torch.tensor(right)[where] * 100).round()
    split = types.SimpleNamespace(groups=where, group_names=groups)
    whole = {
        "probe": "probe",
        "network": "trained",
        "layer": "layer4",
        "reduce": "flatten",
        "protocol": "zero-shot",
        "split": "test",
        "seed": 0,
        "selected_by": "ood-val",
    } | about
    return [
        evaluation.row(data=data, variant=variant, **whole) | one
        for one in evaluation.accuracy_rows(correct, split, torch.arange(len(correct)), torch.tensor([70, 10, 10, 10]))
    ]


def measured(folder, name: str) -> dict:
    """What a table shows of the records: labels -> the mean of the only line that is measured there."""
    found = [line for line in compare.compare(EVERY[name], {}, library(folder)) if line.values]
    assert len({line.labels for line in found}) == len(found)
    return {line.labels: pytest.approx(line.mean) for line in found}


def test_the_worst_group_of_a_layer_and_of_the_head_fills_its_cell(tmp_path):
    path = records.training(tmp_path, "w", dataset="waterbirds", model_type="tv_resnet50")
    by_group = {"groups": LAND_AND_WATER, "right": (0.99, 0.86, 0.7, 0.96)}
    records.write(
        tmp_path,
        "probe",
        "p",
        [
            *probe_rows("waterbirds", **by_group),
            *probe_rows("waterbirds", **by_group, probe="head", layer="fc", selected_by=None),
        ],
        model_path=path,
    )
    assert measured(tmp_path, "ilc/fig8") == {("Waterbirds", "zero-shot", "layer4"): 0.7}
    assert measured(tmp_path, "ilc/fig5") == {("Waterbirds", "base head"): 0.7}


def test_sensitivity_is_shown_for_every_group(tmp_path):
    path = records.training(tmp_path, "w", dataset="celeba", model_type="tv_resnet50")
    records.write(
        tmp_path,
        "probe",
        "p",
        [
            evaluation.row(
                probe="sensitivity",
                network="trained",
                data="celeba",
                variant="",
                split="test",
                protocol="zero-shot",
                layer="layer4",
                reduce="flatten",
                group=name,
                n=100,
            )
            | {"s": value, "s_null_low": 0.0, "s_null_high": 0.1}
            for name, value in (("dark, female", 0.2), ("blond, male", 0.8))
        ],
        model_path=path,
        sensitivity=True,
    )
    assert measured(tmp_path, "ilc/fig9") == {
        ("CelebA", "layer4", "dark, female"): 0.2,
        ("CelebA", "layer4", "blond, male"): 0.8,
    }


def test_corruptions_of_a_layer_are_joined_and_the_row_of_the_mean_is_what_choosing_gained(tmp_path):
    path = records.training(tmp_path, "c", dataset="cifar10", model_type="cifar_resnet18_maxpool")
    collapse = {"probe": "collapse", "network": "trained", "layer": "layer4", "reduce": "flatten", "group": "all"}
    gains = [
        evaluation.row(
            probe="gain",
            network="trained",
            data="cifar10-c",
            variant=variant,
            split="test",
            group="all",
            protocol="zero-shot",
            selected_by="ood-val",
            accuracy=value,
            baseline=0.5,
            gain=value - 0.5,
        )
        for variant, value in (("fog-5", 0.6), ("snow-5", 0.8), ("mean", 0.7))
    ]
    records.write(
        tmp_path,
        "probe",
        "p",
        [
            *probe_rows("cifar10-c", "fog-5", right=(0.6,)),
            *probe_rows("cifar10-c", "snow-5", right=(0.8,)),
            *probe_rows("cifar10-c", "fog-5", right=(0.1,), selected_by="id-val"),
            *gains,
            *(
                evaluation.row(data=data, variant=variant, split=split, nc1=value, **collapse)
                for data, variant, split, value in (
                    ("cifar10", "", "train", 1.0),
                    ("cifar10-c", "fog-5", "test", 2.0),
                    ("cifar10-c", "snow-5", "test", 4.0),
                )
            ),
        ],
        model_path=path,
        ood=["cifar10-c"],
    )
    records.write(tmp_path, "probe", "i", probe_rows("cifar10", protocol="id", selected_by="none"), model_path=path)
    assert measured(tmp_path, "ilc/fig8") == {("CIFAR-10-C", "zero-shot", "layer4"): 0.7}
    assert measured(tmp_path, "ilc/fig18") == {("CIFAR-10-C", "ID", "layer4"): 0.9, ("CIFAR-10-C", "OOD", "layer4"): 0.7}
    assert measured(tmp_path, "ilc/fig22") == {("CIFAR-10-C", "ID", "layer4"): 1, ("CIFAR-10-C", "OOD", "layer4"): 3}
    assert measured(tmp_path, "ilc/fig6") == {
        ("CIFAR-10-C", "ResNet-18", label): value
        for label, value in (("last layer", 0.5), ("best layer", 0.7), ("gain", 0.2))
    }


def test_accuracy_in_distribution_is_that_of_the_last_layer_with_groups_as_in_training(tmp_path):
    for data, changes in (("waterbirds", {"groups": LAND_AND_WATER, "right": (0.9, 0.5, 0.5, 0.5)}), ("cifar10", {})):
        path = records.training(tmp_path, data, dataset=data, model_type="tv_resnet50")
        records.write(
            tmp_path,
            "probe",
            data,
            [
                row
                for layer, rule in (("layer3", "none"), ("avgpool", "none"), ("layer3", "id-val"), ("avgpool", "id-val"))
                for row in probe_rows(data, protocol="id", selected_by=rule, layer=layer, **changes)
            ],
            model_path=path,
            protocol="id",
        )
    assert measured(tmp_path, "ilc/fig1") == {("Waterbirds", "ID last layer"): 0.78, ("CIFAR-10", "ID last layer"): 0.9}


def test_data_sets_are_counted_by_their_test_images_and_corruptions_by_name_and_variant(tmp_path):
    for data, variant, splits in (
        ("waterbirds", "", {"train": 4795, "val": 1199, "test": 5794}),
        ("cifar10-c", "fog-5", {"test": 10000}),
    ):
        records.write(
            tmp_path,
            "data",
            data,
            [
                {"data": data, "variant": variant, "split": split, "origin": "", "subset": "all", "n": n}
                for split, n in splits.items()
            ],
            action="show",
            arguments=[data],
        )
    assert measured(tmp_path, "ilc/table2") == {("Waterbirds",): 5794, ("CIFAR-10-C",): 10000}


def test_every_corruption_and_level_is_a_cell_of_its_own(tmp_path):
    path = records.training(tmp_path, "i", dataset="imagenet100", model_type="ResNet50")
    records.write(
        tmp_path,
        "ncg",
        "n",
        [
            ncg_row(path, value, train="imagenet100", data="imagenet100-c", split="test", variant=variant)
            for variant, value in (("contrast-1", 0.047), ("contrast-2", 0.062), ("zoom_blur-1", 0.048), ("fog-1", 0.9))
        ],
        model_path=path,
    )
    assert measured(tmp_path, "ncg/corruptions") == {
        ("contrast-1", "nat"): 0.047,
        ("contrast-2", "nat"): 0.062,
        ("zoom_blur-1", "nat"): 0.048,
    }
    assert published.read()["ncg/corruptions"]["zoom_blur-5", "TR(2)"].value == 0.069


# -------------------------------------------------------------------------------------------------- what shares a cell


def test_runs_that_differ_in_seed_alone_are_one_cell_in_whatever_folders_they_lie(tmp_path):
    three_seeds(tmp_path)
    (line,) = fill(tmp_path)
    assert line.n == line.networks == 3 and line.mean == pytest.approx(0.35)
    assert line.deviation == pytest.approx(((0.05**2 + 0.01**2 + 0.04**2) / 2) ** 0.5)
    half = stats.t.ppf(0.975, 2) * line.deviation / 3**0.5
    assert (line.low, line.high) == pytest.approx((0.35 - half, 0.35 + half)) and line.interval_of == "seeds"
    assert line.difference == pytest.approx(-0.01) and line.verdict == "agrees" and not line.note
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


GAINS = PaperTable("", {"set": (Value("fog", {"probe": "gain"}),)}, "probe", metric="gain")


def gain_row(value: float, **changes) -> dict:
    return {
        "probe": "gain",
        "data": "cifar10-c",
        "split": "test",
        "variant": "fog-5",
        "origin": "official",
        "group": "all",
        "seed": None,
        "gain": value,
    } | changes


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
    [("official", "below", ""), ("generated", compare.OTHER, "generated"), (None, compare.OTHER, "unknown")],
)
def test_only_official_corruptions_are_judged_by_numbers_of_the_official_archive(tmp_path, origin, verdict, word):
    records.write(tmp_path, "probe", "p", [gain_row(0.1, origin=origin)], model_path=records.training(tmp_path, "t"))
    (line,) = fill(tmp_path, GAINS, {("fog",): published.Published(0.36, "0.36", "a source", "NB")})
    assert line.verdict == verdict and (line.difference is None) == bool(word)
    assert line.note == (f"{compare.OTHER}: {word} corruptions, not the official archive" if word else "")


def test_counts_out_of_other_totals_are_not_judged(tmp_path):
    path = records.training(tmp_path, "t")
    cells_row, slope = ncg_row(path, 0.3, subset="cells", n_cells=95, cells_above=95), ncg_row(path, 0.3, subset="slope")
    records.write(tmp_path, "ncg", "n", [cells_row, slope, slope], model_path=path)
    for total, verdict in ((75, compare.OTHER), (95, "above")):
        table = PaperTable(
            "", {"set": (Value("M-0"),)}, "ncg", {"subset": "cells"}, {"n_cells": total}, metric="cells_above"
        )
        (line,) = fill(tmp_path, table)
        assert line.verdict == verdict and line.note == ("other set-up: n cells 95, not 75" if total == 75 else "")
    for total, verdict in ((15, compare.OTHER), (2, "above")):
        table = PaperTable("", {"set": (Value("M-0"),)}, "ncg", {"subset": "slope"}, {"rows": total}, metric=len)
        (line,) = fill(tmp_path, table)
        assert line.verdict == verdict and line.note == ("other set-up: rows 2, not 15" if total == 15 else "")


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


def known(content: str) -> dict:
    """What a record says of a file that it read."""
    return {"sha256": content, "bytes": 1, "files": 1}


def test_weights_of_another_run_are_told_from_those_of_the_networks_own(tmp_path):
    drop = PaperTable("", {"layer": "layer"}, "reinit", {"source": "0"}, metric="relative_drop")
    far = PaperTable("", {"layer": "layer"}, "projections", metric="l2_distance")
    for seed in range(3):
        path = records.training(tmp_path, f"t{seed}", seed=seed)
        initial = f"models/t{min(seed, 1)}/init.pt"  # the third's is the second's
        records.write(
            tmp_path,
            "reinit",
            f"r{seed}",
            [{"layer": "conv", "source": "0", "relative_drop": 0.1 + seed}],
            model_path=path,
            inits_from=(initial,),
            inputs={name: known(name) for name in (path, initial)},
        )
        records.write(
            tmp_path,
            "projections",
            f"p{seed}",
            [{"layer": "conv", "checkpoint": path, "l2_distance": 0.1 + seed}],
            model_path=(path,),
            init_from=initial,
        )
    for table in (drop, far):
        assert [(line.values, line.setting) for line in fill(tmp_path, table, {})] == [
            ([0.1, 1.1], ""),
            ([2.1], "weights from models/t1/init.pt"),
        ]


def test_rows_stay_with_the_training_that_had_begun_when_they_were_made(tmp_path):
    start = {"model_path": "models/t/init.pt", "inputs": {"models/t/init.pt": known("same")}}
    records.training(tmp_path, "t", epochs=2)
    records.write(
        tmp_path, "eval", "e", [{"subset": "all", "model": "models/t/init.pt"}], started="2026-01-02T00:00:00+00:00", **start
    )
    (tmp_path / "results/train/t.json").rename(tmp_path / "results/train/first.json")
    records.training(tmp_path, "t", epochs=1)  # the same seed: the same initial weights
    later = json.loads((tmp_path / "results/train/t.json").read_text())
    (tmp_path / "results/train/t.json").write_text(json.dumps(later | {"started": "2026-01-03T00:00:00+00:00"}))
    for path in (tmp_path / "results" / "train").iterdir():
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"outputs": {"models/t/init.pt": known("same")}}))
    (run,) = library(tmp_path).of("eval")
    assert run.networks(run.rows[0])["net"].training["epochs"] == 2


def test_probes_that_differ_in_their_seed_alone_are_runs_of_one_thing_and_not_one_run_repeated(tmp_path):
    path, foreign = records.training(tmp_path, "t", seed=7), "models/foreign.pt"
    for place, network in enumerate((path, foreign)):
        for seed in range(2):
            records.write(tmp_path, "probe", f"p{place}{seed}", [gain_row(0.1 + seed)], model_path=network, seed=(seed,))
    for line in fill(tmp_path, GAINS, {}):
        assert line.values == [0.1, 1.1] and line.networks == 1 and "repeated" not in line.note
    (line,) = fill(tmp_path, GAINS, {}, seeds=(1,))  # a foreign network is known by the seeds of its probes
    assert line.values == [1.1] and line.network == foreign
    records.write(tmp_path, "probe", "both", [gain_row(0.6)], model_path=path, seed=(0, 1))
    assert sorted((line.n, line.setting) for line in fill(tmp_path, GAINS, {}, seeds=(7,))) == [
        (1, "seeds in one number 2"),
        (2, ""),
    ]


def test_networks_of_stored_features_share_a_cell_where_their_backbones_differ_in_seed_only(tmp_path):
    for seed, (epochs, value) in enumerate(((70, 0.6), (70, 0.8), (8, 0.1))):
        backbone = records.training(tmp_path, f"b{seed}", seed=seed, epochs=epochs)
        path = records.training(
            tmp_path, f"m{seed}", seed=seed, model_type="LargeMLP", dataset=f"features={backbone}:flatten:mnist-wo0"
        )
        records.write(
            tmp_path,
            "ncg",
            f"n{seed}",
            [ncg_row(path, value, space="feature", train="mnist-wo0@flatten", data="mnist-wo0@flatten")],
            model_path=path,
        )
    found = [line for line in compare.compare(EVERY["ncg/feature"], {}, library(tmp_path)) if line.values]
    assert {line.labels for line in found} == {("M-0", "NCG", "nat")} and sorted(line.n for line in found) == [1, 2]
    assert max(found, key=lambda line: line.n).mean == pytest.approx(0.7)


def test_what_a_network_is_compared_with_matters_where_the_cell_says_so_only(tmp_path):
    paths = [records.training(tmp_path, f"t{seed}", seed=seed) for seed in range(2)]
    robust = records.training(tmp_path, "r", dataset="imagenet100", model_type="ResNet50", loss="trades", eps=2.0)
    natural = records.training(tmp_path, "n", dataset="imagenet100", model_type="ResNet50")
    records.write(
        tmp_path,
        "ncg",
        "both",
        [ncg_row(paths[0], 0.3, against=paths[1]), ncg_row(paths[1], 0.5)],
        model_path=paths[0],
        against=paths[1],
    )
    records.write(tmp_path, "ncg", "one", [ncg_row(paths[1], 0.5)], model_path=paths[1])
    records.write(
        tmp_path,
        "ncg",
        "cells",
        [ncg_row(robust, None, subset="cells", train="imagenet100", difference=0.03)],
        model_path=robust,
        against=natural,
    )
    (line,) = fill(tmp_path)
    assert sorted(line.values) == [0.3, 0.5]
    found = [line for line in compare.compare(EVERY["ncg/table4"], {}, library(tmp_path)) if line.values]
    assert [(line.labels, line.mean) for line in found] == [(("ImageNet-100-C", "pixel", "difference"), 0.03)]
    assert "comp" not in found[0].note


def test_a_foreign_network_is_known_by_its_path_alone(tmp_path):
    table = PaperTable("", {"set": (Value("M-0"),)}, "ncg", {"space": "pixel"}, metric="ncg")
    for path in ("models/f0.pt", "models/f1.pt"):
        records.write(tmp_path, "ncg", path[7:9], [ncg_row(path, 0.3)], model_path=path)
    assert [line.network for line in fill(tmp_path, table, {})] == ["models/f0.pt", "models/f1.pt"]


def started(day: int) -> dict:
    return {"started": f"2026-01-0{day}T00:00:00+00:00"}


def read(folder, name: str, path: str, day: int, content: str = "", value: float = 0.3) -> None:
    records.write(
        folder,
        "ncg",
        name,
        [ncg_row(path, value)],
        model_path=path,
        **started(day),
        inputs={path: {"sha256": content * 64, "bytes": 1, "files": 1}} if content else {},
    )


def test_records_are_of_the_latest_training_of_their_folder_that_was_there_when_they_read_it(tmp_path):
    path = "models/t/model_70.pt"
    for name, loss, day in (("z-first", "trades", 2), ("a-second", "ce", 4)):  # by name the first one comes last
        row = {"epoch": 70, "best": True}
        records.write(
            tmp_path,
            "train",
            name,
            [row],
            model_type="CNN002",
            dataset="mnist-wo0",
            epochs=70,
            loss=loss,
            directory="t",
            seed=0,
            **started(day),
        )
    for day in (1, 3, 5):
        read(tmp_path, f"n{day}", path, day, value=day)
    known = library(tmp_path)
    assert known.network(path).training["loss"] == "ce"
    losses = {run.rows[0]["ncg"]: run.networks(run.rows[0])["net"].training.get("loss") for run in known.of("ncg")}
    assert losses == {1: None, 3: "trades", 5: "ce"}
    assert sorted(line.mean for line in fill(tmp_path)) == [3, 5]


def test_a_checkpoint_of_another_hash_than_the_training_left_is_not_of_that_training(tmp_path):
    path = records.training(tmp_path, "t", **started(3))
    for day, content in ((1, "b"), (2, "a"), (4, "a"), (5, "b")):  # what was read first is what the training left
        read(tmp_path, f"n{day}", path, day, content, value=day)
    known = library(tmp_path)
    networks = {run.rows[0]["ncg"]: run.networks(run.rows[0])["net"] for run in known.of("ncg")}
    assert {day: bool(network.training) for day, network in networks.items()} == {1: False, 2: True, 4: True, 5: False}
    assert networks[1].identity == networks[5].identity == {"path": path, "content": "bbbbbbbb"}
    told = tmp_path / "results/train/t.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"outputs": {path: {"sha256": "b" * 64, "bytes": 1}}}))
    known = library(tmp_path)
    assert [run.rows[0]["ncg"] for run in known.of("ncg") if run.networks(run.rows[0])["net"].training] == [1, 5]


def test_a_network_is_the_same_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = records.training(tmp_path, "t")
    for number, spelt in enumerate((path, str(tmp_path / path), "t/model_70.pt")):
        read(tmp_path, f"n{number}", spelt, number + 1)
    (line,) = fill(tmp_path)
    assert line.n == line.networks == 1 and "2 repeated runs" in line.note
    elsewhere = records.training(tmp_path, "t", seed=1, models_dir=str(tmp_path / "scratch"))
    assert library(tmp_path).network(str(tmp_path / "scratch/t/model_70.pt")).seed == 1 and elsewhere == path


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
def test_without_an_interval_a_run_agrees_within_the_tolerance(tmp_path, value, verdict):
    path = records.training(tmp_path, "t")
    records.write(tmp_path, "ncg", "n", [ncg_row(path, value, ncg_low=None)], model_path=path)
    assert [line.verdict for line in fill(tmp_path)] == [verdict]


@pytest.mark.parametrize(
    "columns, over, verdict",
    [
        (("ncg_low", "ncg_high"), "images", "agrees"),
        (("mass_low", "mass_high"), "filters", "agrees"),
        (("q05", "q95"), "filters, 5 % to 95 %", "below"),
        (("s_null_low", "s_null_high"), "draws of the null", "below"),
    ],
)
def test_an_interval_says_what_it_is_over_and_only_one_of_the_number_judges(tmp_path, columns, over, verdict):
    path = records.training(tmp_path, "t")
    records.write(tmp_path, "ncg", "n", [ncg_row(path, 0.3, **dict(zip(columns, (0.2, 0.4), strict=True)))], model_path=path)
    table = PaperTable("", {"set": (Value("M-0"),)}, "ncg", metric="ncg", interval=columns)
    (line,) = fill(tmp_path, table)
    assert (line.low, line.high, line.interval_of, line.verdict) == (0.2, 0.4, over, verdict)


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


# ----------------------------------------------------------------------------------------------------------------- formats


class Cells(html.parser.HTMLParser):
    """The texts of a table's cells, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


LATEX_BACK = {written: letter for letter, written in formats.LATEX.items()}


def parsed(kind: str, text: str) -> list[list[str]]:
    if kind == "html":
        return Cells(text).rows
    if kind == "csv":
        return list(csv.reader(io.StringIO(text)))
    lines = text.splitlines()
    if kind == "md":
        body = [line for line in lines if line.startswith("|") and not line.startswith("|---")]
        return [[word.strip().replace(r"\|", "|") for word in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]
    body = [line.removesuffix(r" \\") for line in lines if line.endswith(r" \\")]
    written = "|".join(sorted(map(re.escape, LATEX_BACK), key=len, reverse=True))
    return [
        [re.sub(written, lambda found: LATEX_BACK[found[0]], word) for word in re.split(r"(?<!\\) ?& ?", line)]
        for line in body
    ]


@pytest.mark.parametrize("kind", ["md", "latex", "csv", "html"])
def test_a_format_says_what_the_table_holds(kind):
    found = [
        {"layer": "a_1", "ours": "50 % ± 0.1", "note": "x | y & z < #{$}~^\\ ü"},
        {"layer": "b", "ours": "", "note": "1"},
    ]
    text = formats.write(kind, formats.PrintedTable("t", "title", found, found, "a note"))
    assert parsed(kind, text) == [["layer", "ours", "note"], *[list(row.values()) for row in found]]


def test_csv_has_every_digit(tmp_path):
    three_seeds(tmp_path, (1 / 3, 0.1, 0.2))
    full = paper_rows.raw(["set"], fill(tmp_path))
    text = formats.write("csv", formats.PrintedTable("t", "title", [], full))
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["mean"]) == (1 / 3 + 0.1 + 0.2) / 3 and row["n"] == "3" and row["tag"] == "NB"
    assert row["records"].count(".json") == 3 and float(row["published"]) == 0.36


# ------------------------------------------------------------------------------------------------------- the command line


def tables(folder, *words):
    return script("exec_tables.py", *words, cwd=folder)


def test_tables_from_the_command_line_in_files_and_without_torch(tmp_path):
    three_seeds(tmp_path, (0.3, 0.36, 0.39))
    done = tables(tmp_path, "ncg/pixel", "--format", "csv", "--out", "made")
    assert done.returncode == 0 and done.stdout.strip() == "made/ncg-pixel.csv", done.stderr
    found = [row for row in csv.DictReader(open(tmp_path / "made/ncg-pixel.csv")) if row["n"] != "0"]
    assert [(row["set"], row["measure"], row["method"], row["n"]) for row in found] == [("M-0", "NCG", "nat", "3")]
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); sys.modules['torch'] = None; "
        f"sys.argv = ['exec_tables.py', 'ncg/pixel', 'train']; "
        f"runpy.run_path({str(ROOT / 'exec_tables.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "0.3500 ± 0.0458" in done.stdout and "## train" in done.stdout, done.stderr


def test_measured_leaves_out_the_cells_and_tables_without_a_record(tmp_path):
    three_seeds(tmp_path)
    done = tables(tmp_path, "ncg/pixel", "ncg/table3", "--measured")
    assert done.returncode == 0 and "not measured" not in done.stdout and "table3" not in done.stdout
    assert [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("M-")] == [["M-0", "NCG", "nat"]]
    assert tables(tmp_path, "ncg/table3", "--measured").stdout == "no records under results/ that fill these tables\n"


@pytest.mark.parametrize(
    "words, status, told",
    [
        (("ilc/fig5", "--measured", "--missing"), 2, ("--measured", "--missing")),
        (("ilc/fig5", "--missing", "--format", "csv"), 2, ("--missing", "--format")),
        (("--network", "models/a", "--report", "r.html"), 2, ("--network --report", "one of them")),
        (("eval", "--missing"), 2, ("--missing is for the papers' tables",)),
        (("ilc/fig55",), 2, ("ilc/fig55", "ilc/fig5")),
        (("evil",), 2, ("evil", "eval")),
        (("--check",), 2, ("--rerun",)),
        (("eval", "--format", "xml"), 2, ("--format xml",)),
        (("--network", "models/none.pt"), 1, ("models/none.pt",)),
        (("ilc/fig5", "--out", "file/x"), 1, ("file/x",)),
        (("--report", "file/x.html"), 1, ("file/x.html",)),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, words, status, told):
    (tmp_path / "file").write_text("")
    done = tables(tmp_path, *words)
    assert done.returncode == status and len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in told), done.stderr


def test_a_broken_record_is_named_and_the_others_go_on(tmp_path):
    three_seeds(tmp_path)
    whole = (tmp_path / "results/ncg/n0.json").read_text()
    (tmp_path / "results/ncg/n1.json").write_text(whole[:100])
    (tmp_path / "results/ncg/n9.json").write_text("[]")
    done = tables(tmp_path, "ncg/pixel")
    assert done.returncode == 0 and "n1.json: not a whole record" in done.stderr and "n9.json" in done.stderr
    assert "0.3450 ± 0.0636" in done.stdout


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda record: record["rows"][0].update(ncg="0.5"), "ncg of row 0 is '0.5', no number"),
        (lambda record: record["rows"][0].update(accuracy=True), "accuracy of row 0 is True, no number"),
        (lambda record: record.update(inputs={"mnist": {"sha256": "a"}}), "file mnist has no hash and size"),
        (lambda record: record["seconds"].update(total="1"), "seconds are not all numbers"),
        (lambda record: record.update(command=[1]), "command is not all words"),
    ],
)
def test_a_record_with_values_of_the_wrong_kind_is_named_and_left_out(tmp_path, change, told):
    three_seeds(tmp_path)
    path = tmp_path / "results/ncg/n1.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    done = tables(tmp_path, "ncg/pixel", "ncg")
    assert done.returncode == 0 and f"n1.json: not a valid record: {told}; left out" in done.stderr
    assert "0.3450 ± 0.0636" in done.stdout


def test_every_number_of_a_table_is_declared_as_one_beside_its_experiment():
    for name in summaries.summarised(EXPERIMENTS):
        shown = EXPERIMENTS[name].configuration.summary
        declared = EXPERIMENTS[name].columns
        assert set(shown.measured) <= declared.numbers, name
        assert set(shown.keys) <= declared.numbers | declared.words | declared.truths, name
    for table in EVERY.values():
        for cell in papers.spec.cells(table):
            read = {*cell.interval, *([cell.metric] if isinstance(cell.metric, str) and cell.metric else [])}
            if cell.experiment in EXPERIMENTS:
                assert read <= EXPERIMENTS[cell.experiment].columns.numbers, cell.labels


def test_missing_prints_commands_and_nothing_else(tmp_path):
    done = tables(tmp_path, "hyperplanes/f3", "--missing", "--seeds", "0", "1")
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0 and len(lines) == len(set(lines)) == 13 and lines[6] == missing_runs.AFTER
    assert [line.split()[1] for line in lines] == ["exec_train.py"] * 6 + ["then,"] + ["exec_reinit.py"] * 6
    assert sum("-s 1" in line for line in lines) == 6


def test_no_stage_of_the_missing_commands_reads_what_it_leaves(tmp_path):
    for paper in papers.PAPERS:
        done = tables(tmp_path, paper, "--missing")
        made, scripts_ = set(), set()
        for stage in done.stdout.strip().split(f"\n{missing_runs.AFTER}\n"):
            commands = [shlex.split(line) for line in stage.splitlines()]
            read = {word for words in commands for word in re.findall(r"models/[^:\s]*\.pt", shlex.join(words))}
            assert all(path.rpartition("/")[0] in made for path in read) and not scripts_ & {"exec_stitch_ood.py"}
            made |= {"models/" + words[words.index("-dir") + 1] for words in commands if words[1] == "exec_train.py"}
            scripts_ |= {words[1] for words in commands}
        assert len(made) > 2 and (paper != "stitching" or [words[1] for words in commands] == ["exec_stitch_ood.py"])


def test_a_reader_who_has_read_enough_is_no_error(tmp_path):
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'exec_tables.py'))} --missing | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and not done.stderr


# ------------------------------------------------------------------------------------------------------------------ reruns


def test_a_repeated_run_is_compared_with_its_record(trained):
    done = script("exec_eval.py", "models/a/model_2.pt", "-d", "digits", "--name", "checked", cwd=trained)
    path = trained / "results/eval/checked.json"
    before = path.read_text()
    done = tables(trained, "--rerun", path, "--check")
    assert done.returncode == 0 and "agree within its tolerance of 1e-06" in done.stdout, done.stderr
    record = json.loads(before)
    assert record["tolerance"] == 1e-6
    record["rows"][0]["accuracy"] += 1e-3
    path.write_text(json.dumps(record))
    done = tables(trained, "--rerun", path, "--check")
    assert done.returncode == 1 and "accuracy of row 0 is" in done.stderr and len(json.loads(path.read_text())["rows"]) == 11
    path.unlink()


def test_a_record_is_made_again_where_it_lies_and_a_copy_is_refused(trained, tmp_path):
    done = script(
        "exec_eval.py",
        "models/a/model_2.pt",
        "-d",
        "digits",
        "--max-examples",
        "20",
        "--results-dir",
        tmp_path / "kept",
        cwd=trained,
    )
    path = tmp_path / done.stdout.strip().splitlines()[-1]
    copy = shutil.copy(path, tmp_path)
    moved = shutil.copytree(tmp_path / "kept", tmp_path / "moved") / "eval" / path.name
    before, there = path.read_text(), json.loads(moved.read_text())
    moved.write_text(json.dumps(there | {"rows": []}))
    done = tables(trained, "--rerun", copy)
    assert done.returncode == 1 and "a copy of a record" in done.stderr
    done = tables(trained, "--rerun", moved)
    assert done.returncode == 0 and json.loads(moved.read_text())["rows"] == there["rows"] and path.read_text() == before


def test_a_check_leaves_the_checkpoints_that_are_there_as_they_are(trained, tmp_path):
    shutil.copytree(trained / "models" / "a", tmp_path / "models" / "a")
    small = "--max-examples", "60", "--quiet"
    for name, *words in (
        ("train", "mlp", "-d", "features=a/model_2.pt:features.4:digits", "-dir", "checks/mlp", "-e", 1),
        (
            "ood_detector",
            "a/model_2.pt",
            "auto",
            "features.4",
            "-m",
            "repr_cls_resnet20",
            "-e",
            1,
            "-fe",
            0,
            "-dir",
            "checks/detector",
            "-fdir",
            tmp_path / "models/checks",
        ),
        ("probe", "a/model_2.pt", "-l", "features.4", "--export", "checks/cut", "--select", "id-val", "-e", 1),
    ):
        done = script(f"exec_{name}.py", *words, *small, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}
        record = tmp_path / done.stdout.strip().splitlines()[-1]
        done = tables(tmp_path, "--rerun", record, "--check")
        assert done.returncode == 0 and "agree within" in done.stdout, (name, done.stderr)
        assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "models").rglob("*")} == before, name


def test_differences_are_beyond_the_tolerance_and_clocks_do_not_count():
    before = [{"layer": "a", "auroc": 0.5, "n": 1000, "seconds": 1.0, "best": True}]
    assert not rerun.differences(before, [before[0] | {"auroc": 0.5 + 9e-7, "seconds": 9.0}], 1e-6)
    assert not rerun.differences(before, [before[0] | {"n": 1000.0005}], 1e-6)
    for change in ({"auroc": 0.51}, {"n": 1001}, {"layer": "b"}, {"best": False}, {"auroc": None}, {"new": 1}):
        assert len(rerun.differences(before, [before[0] | change], 1e-6)) == 1, change
    assert rerun.differences(before, [], 1) == ["0 rows instead of 1"]
