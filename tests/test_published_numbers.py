"""The papers' numbers as they are kept, and the tables they belong to."""

import re

import pytest
import yaml
from table_records import EVERY

from lib.experiments import EXPERIMENTS
from lib.tables import (
    TESTS,
    compare,
    papers,
)
from lib.tables.papers import published


def test_published_numbers_have_a_place_a_source_and_a_tag():
    for block in yaml.safe_load(published.FILE.read_text()):
        assert set(block) <= {"table", "source", "tag", "percent", "tolerance", "columns", "values", "runs", "deviations"}
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
    assert known["ncg/table3"]["I-2", "covered", "nat"].text == "at most .0045"
    assert known["ncg/table3"]["M-0", "covered", "nat"].text == "0 or nearly"
    for digit in range(10):
        assert known["ncg/distance"][f"M-{digit}", "NCG"] == known["ncg/pixel"][f"M-{digit}", "NCG", "nat"]
    missing_one = known["ilc/fig5"]["Waterbirds", "base head"]
    assert missing_one.value is None and missing_one.text == "not found"


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
                assert field in (fields if role == "config" else {"features", "file", *EXPERIMENTS["train"].fields}), (
                    condition
                )
