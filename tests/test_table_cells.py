"""Rows as the scripts write them fill the papers' cells."""

import types

import pytest
import records
import torch
from table_records import EVERY, library, ncg_row

from lib.probing import evaluation
from lib.tables import (
    compare,
)
from lib.tables.papers import published

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
