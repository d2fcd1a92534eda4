"""Every column of every experiment's rows has a definition, every definition a row, and numbers lie in the stated range."""

import json
import re
import shutil

import pages
import pytest
from conftest import script
from layouts import write_cifar10, write_cifar100

from lib.experiments import EXPERIMENTS
from lib.experiments.config.similarity import MEASURES
from lib.runs.columns import Column, share

FEW = ("--max-examples", 120)
A, B, BG, NINE, INIT, DEEP = (
    f"models/{name}.pt" for name in ("a/model_1", "b/model_1", "bg/model_1", "wo9/model_4", "wo9/init", "deep/init")
)
BRIEF = ("-lr", "3e-3", "--image-size", 16, "--max-examples", 300, "-gpu", -1, "--quiet")
ROBUST = ("--loss", "at", "--eps", 0.5, "--attack-steps", 1)
TRAININGS = [
    ("small_cnn", "-d", "digits-bg", "-dir", "bg", "-e", 1, *BRIEF),
    ("small_cnn", "-d", "digits-wo9", "-dir", "wo9", "-e", 4, *ROBUST, *BRIEF[:2], *BRIEF[4:]),
    ("resnet20", "-d", "digits", "-dir", "deep", "-e", 1, *BRIEF),
]
INTO = (A, B, "auto", "auto", "pool1,pool2", "pool1,pool2", "-d", "digits", *FEW)
RANKS = ("--front-stitch-rank", 4, "--front-pinv-rank", 4)
PROBE = ("--reduce", "gap", "-e", 2, *FEW)
DETECTOR = ("-m", "repr_cls_resnet20", "-d", "digits", "-ftoodd", "patches", "-e", 1, "-fe", 1)

TIED = """
from torch import nn

def tied(classes, channels, image_size):
    made = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    made[2].weight = made[1].weight
    return made.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)])
"""

# experiment -> command lines that are as varied as it takes for every column to have a value in one of their rows
COMMANDS = {
    "data": [("show", "digits-bg"), ("show", "digits-c/fog-3")],
    "train": [("small_cnn", "-d", "digits", "-dir", "t", "-e", 1, "--train-acc", *FEW)],
    "eval": [(A, "-d", "digits", "digits-c/fog-3", "--attack", "pgd", "--eps", 0.5, "--attack-steps", 2, *FEW)],
    "ood_layers": [
        (A, "-ood", "patches", "digits-c/fog-3", "--aggregate", "oracle", "--choose", "transfer", "--conformal", *FEW),
        (A, "-ood", "patches", "--early-exit", 0.2, *FEW),
        (A, "-d", "cifar10", "-ood", "near", "-l", "all"),
    ],
    "probe": [
        (A, "-ood", "digits-c/fog-5", "digits-c/fog-3", "-l", "pool1,pool2,fc", "-s", 0, 1, "--null", 19, *PROBE),
        (A, "-l", "pool1,pool2", "-ranks", 2, *PROBE),
        (A, "-ood", "digits-c/fog-5", "--protocol", "few-shot", "--fraction", 0.2, "-l", "all", *PROBE),
        (BG, "-ood", "digits-bg", "-l", "pool1,pool2", "--sensitivity", "--baselines", "dfr,collapse", *PROBE),
    ],
    "stitch": [
        (*INTO, "-i", "pinv", "-e", 0, "--null", "--permutations", 19, *RANKS, "--name", "least-squares"),
        (*INTO, "-i", "rand", "-e", 1),
        (*INTO, "-i", "rand", "-e", 1, "--no-save"),
        (*INTO, "-i", "rand", "-e", 1, "--match-at", "flatten", "--null", "--sender", "noise"),
        (DEEP, DEEP, "auto", "auto", "layer?,layer?.?", "layer?,layer?.?", "-d", "digits", "-i", "eye", "-e", 0, *FEW),
    ],
    "ood_detector": [(B, "auto", "pool2", *DETECTOR, "-dir", "detector", *FEW)],
    "stitch_ood": [("results/stitch/least-squares.json", "-scd", "patches", *FEW)],
    "similarity": [
        (
            DEEP,
            DEEP,
            "auto",
            "auto",
            "layer?,layer?.?",
            "layer?,layer?.?",
            "-n",
            40,
            "-m1r",
            2,
            "-m2r",
            2,
            "--bootstrap",
            2,
            "--null",
            19,
            "--measures",
            *MEASURES,
        )
    ],
    "projections": [("models/a", "--normalize"), ("small_cnn", "--random", 1), ("tied.py:tied", "--random", 1)],
    "reinit": [(A, "-d", "digits-c/fog-3", "--inits-from", "models/a", "--rand", 2, "-l", "cuts", "--criticality", *FEW)],
    "ncg": [
        (NINE, "--against", INIT, "--corruptions", "fog", "--radius", 2, "--null", 19, *FEW),
        (NINE, "--space", "feature", "--backbone", INIT, *FEW),
    ],
}

# of a record, as docs/records.md lists them
FIELDS = set(
    re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", (pages.DOCS / "records.md").read_text(), re.MULTILINE)))
)


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    """A working directory with all networks that the commands name, and a few images called CIFAR's."""
    place = tmp_path_factory.mktemp("columns")
    shutil.copytree(pair / "models", place / "models")
    for words in TRAININGS:
        done = script("exec_train.py", *words, cwd=place)
        assert done.returncode == 0, done.stderr
    (place / "tied.py").write_text(TIED)
    write_cifar10(place / "data")
    write_cifar100(place / "data")
    return place


@pytest.mark.parametrize("experiment", COMMANDS)
def test_columns_and_definitions_are_the_same_and_numbers_lie_in_their_ranges(experiment, folder):
    rows = []
    for words in COMMANDS[experiment]:
        cpu = () if experiment == "projections" else ("-gpu", -1)  # reads weights only
        done = script(f"exec_{experiment}.py", *words, *cpu, "--quiet", cwd=folder)
        assert done.returncode == 0, done.stderr
        record = json.loads((folder / done.stdout.splitlines()[-1]).read_text())
        assert set(record) <= FIELDS
        rows += record["rows"]
    columns = EXPERIMENTS[experiment].columns
    written = {name for row in rows for name, value in row.items() if value not in (None, "")}
    assert {name for row in rows for name in row} - set(columns.defined) == set()
    assert set(columns.defined) - written == set()
    outside = [
        (name, row[name])
        for name, column in columns.numbers.items()
        for row in rows
        if row.get(name) is not None and not column.holds(row[name])
    ]
    assert not outside


def test_every_experiment_with_rows_is_run():
    assert set(COMMANDS) == {name for name, experiment in EXPERIMENTS.items() if experiment.columns.defined}


@pytest.mark.parametrize("experiment", COMMANDS)
def test_a_definition_is_a_phrase_with_a_known_direction(experiment):
    for name, column in EXPERIMENTS[experiment].columns.defined.items():
        assert len(column.meaning) > 8 and not column.meaning.endswith("."), name
        assert column.better in ("", "higher", "lower"), name


def test_a_range_holds_what_it_states():
    assert share("of images").range() == "0 to 1" and Column("x", least=0).range() == "at least 0"
    assert Column("x", most=1).range() == "at most 1" and Column("x").range() == ""
    assert share("of images").holds(1 + 1e-9) and not share("of images").holds(1.01)
    assert not Column("x", least=0).holds(-0.1) and Column("x", least=0).holds(1e9)


@pytest.mark.parametrize("experiment", COMMANDS)
def test_the_page_of_a_script_shows_its_flags_and_columns(experiment):
    text = (pages.DOCS / pages.PAGES[experiment]).read_text()
    assert f"<!-- columns of {experiment} -->" in text and f"<!-- flags of {experiment} -->" in text
    assert "`--overwrite`" in text
    assert pages.present(text) == text, "python tests/readme.py writes the tables"


def test_the_glossary_has_the_columns_of_all_scripts():
    text = pages.GLOSSARY.read_text()
    assert "| `auroc` | " in text and pages.present(text) == text, "python tests/readme.py writes the table"
