"""The commands of the runs that a table lacks: each fills its cell, and none repeats what is there."""

import shlex

import pytest
import records
import torch
from table_records import EVERY, fill, library, ncg_row

from lib import models
from lib.experiments import EXPERIMENTS
from lib.models import cutting
from lib.runs import cli, command_lines
from lib.tables import (
    compare,
    missing_runs,
    papers,
)
from lib.tables.papers import published

pytestmark = pytest.mark.usefixtures("one_parser_for_a_script")


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
    listed = {
        model_type: cutting.layers(models.build(model_type, 10).eval(), torch.zeros(1, 3, 32, 32))
        for model_type in sorted({model_type for model_type, _ in asked})
    }
    for model_type, layers in sorted(asked):
        found = cutting.select([layer.name for layer in listed[model_type] if layer.shape], layers, {})
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
    assert line.labels == ("M-0", "NCG", "TR(2)") and line.mean == 0.4 and line.verdict == compare.TOO_FEW
    assert line.difference == pytest.approx(0.4 - 0.457) and line.low == pytest.approx(0.39) and "other" not in line.note
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
    assert line.verdict == (compare.OTHER if told else compare.TOO_FEW) and told in line.note


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
    assert line.verdict == (compare.OTHER if told else compare.TOO_FEW) and told in line.note


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
