"""docs/published_calls.md: every command on its right runs at small size, and what it says of every flag is so."""

import dataclasses
import re
import shlex

import pytest
import torch
from conftest import ROOT, script

from lib import models
from lib.datasets.names import parse as data_name
from lib.experiments import EXPERIMENTS
from lib.experiments.config.train import TrainConfig
from lib.runs import cli, published_flags

PAGE = (ROOT / "docs/published_calls.md").read_text()
CHAPTERS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PAPERS = ("Stitching", "Nearest categories", "Filters and criticality", "OOD layers", "Intermediate layers")

# what the page says of large data and networks, said of the built-in
SMALLER = {
    "cifar10": "digits",
    "cifar10-c": "digits-c/fog-3",
    "imagenet": "digits",
    "waterbirds": "digits-bg",
    "svhn": "patches",
    "outlier_exposure": "patches",
    "mnistwo9": "digits-wo9",
    "mnistwo9:train": "digits-wo9:train",
    "mnistwo9:test": "digits-wo9:test",
    "repr_cls_resnet18": "repr_cls_resnet20",
    "vgg19": "lenet",
    "mlp_bn": "lenet",
    **dict.fromkeys(("resnet18", "tv_resnet18", "tv_resnet50", "cifar_resnet18_maxpool"), "resnet20"),
    **{word: "1" for word in ("300", "100", "70", "50", "30", "10")},
    **{word: "32" for word in ("1024", "512", "256", "128")},
    "40": "3",
}


def smaller(word: str) -> str:
    """A word of the page's commands at small size."""
    if word in SMALLER:
        return SMALLER[word]
    if word.startswith("features="):
        word = word.replace("mnistwo9", "digits-wo9")
    return re.sub(r"model_(\d+)\.pt", lambda found: f"model_{SMALLER[found[1]]}.pt", word)


def commands(paper: str) -> list[list[str]]:
    """The words of the commands in the middle column of a paper's table, in order."""
    rows = [line.split(" | ")[1] for line in CHAPTERS[paper].splitlines() if line.startswith("| ") and "exec_" in line]
    return [shlex.split(call) for row in rows for call in re.findall(r"`(exec_.*?)`", row)]


@pytest.mark.parametrize("paper", PAPERS)
def test_every_command_of_the_page_is_one_that_the_suite_takes(paper, one_parser_for_a_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, *words in commands(paper):
        cli.parse(EXPERIMENTS[name.removeprefix("exec_").removesuffix(".py")].configuration, [*words, "--quiet"])


def files_of_the_papers(folder):
    """What the commands take from the published code: a snapshot with the state of its optimiser, and a list of paths."""
    torch.manual_seed(0)
    network = models.build("lenet", 10, 1, 32)
    state = {
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": torch.optim.SGD(network.parameters()).state_dict(),
    }
    torch.save({"epoch": 1, **state, "scheduler_state_dict": {}}, folder / "vgg19_1.tar")
    (folder / "inits.txt").write_text("models/hyperplanes/vgg19/init.pt\nmodels/hyperplanes/vgg19/model_1.pt\n")


LONG = ("Stitching", "Nearest categories")  # eleven commands each


@pytest.mark.parametrize("paper", [pytest.param(paper, marks=pytest.mark.slow if paper in LONG else ()) for paper in PAPERS])
def test_the_commands_of_a_paper_run_one_after_another(paper, tmp_path):
    files_of_the_papers(tmp_path)
    for name, *words in commands(paper):
        words = [smaller(word) for word in words]
        if name not in ("exec_projections.py", "exec_tables.py"):
            words += ["--max-examples", "120", "-gpu", "-1"]
        if name == "exec_train.py":
            words += [] if {"-e", "--epochs"} & {*words} else ["-e", "1"]
            words += ["--image-size", "16"] if "resnet20" in words else []
        words += [] if name == "exec_tables.py" else ["--quiet"]
        done = script(name, *words, cwd=tmp_path)
        assert done.returncode == 0, (name, words, done.stderr)


def test_the_page_has_a_line_for_every_script_and_experiment_of_the_papers():
    published = [line.split(" | ")[0] for paper in PAPERS for line in CHAPTERS[paper].splitlines() if line.startswith("| `")]
    scripts = """exec_train exec_eval exec_stitch exec_collect_results exec_probe exec_compute_low_rank_sim_metrics
        exec_train_representation_classifier exec_eval_stitcher_ood misc/imagenet_train_main train compute_projections
        reinit_weights run main"""
    assert {found[1] for line in published if (found := re.match(r"\| `(\S+?)\.py", line))} >= set(scripts.split())
    for experiment in ("oos_repr", "out_of_sample", "get_preds", "ood_robustness_correct"):
        assert any(f"--experiment {experiment} " in line for line in published)


def flag_rows() -> list[tuple[str, str, str]]:
    """(our script, their flag, what the page says of it)."""
    rows = []
    for ours, table in re.findall(
        r"^### .*?: `exec_(\w+)\.py`\n(.*?)(?=^### |\Z)", CHAPTERS["Every flag"], re.MULTILINE | re.DOTALL
    ):
        for line in table.splitlines():
            if line.startswith("| `"):
                theirs, verdict, _ = line.removeprefix("| ").split(" | ", 2)
                rows += [(ours, word, verdict) for word in re.findall(r"`(\S+)`", theirs)]
    return rows


def verdict(configuration: type, word: str) -> str:
    """What becomes of a paper's flag in a script."""
    own = {name for field in dataclasses.fields(configuration) for name in cli.spellings(field)}
    own |= {"--no-" + name.removeprefix("--") for name in own}
    names, hyphened = {field.name for field in dataclasses.fields(configuration)}, word.replace("_", "-")
    if word in own:
        return "same"
    if hyphened in own or published_flags.meant(hyphened, names):
        return "accepted"
    return "no effect" if hyphened in published_flags.without_effect(names) else "different"


@pytest.mark.parametrize("ours", sorted({row[0] for row in flag_rows()}))
def test_what_the_page_says_of_a_flag_is_what_becomes_of_it(ours):
    configuration = EXPERIMENTS[ours].configuration
    # flags of ours that have the same spelling and another use
    known = {"--resume": "different", "--radius": "different", "--mod-only-stitch": "no effect"}
    for script_, word, said in flag_rows():
        if script_ == ours:
            assert said == known.get(word, verdict(configuration, word)), (word, said)


@pytest.mark.parametrize("recipe", ["stitching", "ncg", "hyperplanes", "lir"])
def test_a_run_by_a_recipe_is_the_run_with_its_flags_spelt_out(recipe):
    spelt = {
        "stitching": "-o adam -lr 1e-3 -wd 1e-5 -b 64 -e 100 --momentum 0 --unnormalize -sf 1",
        "ncg": "-lr .01 -b 64 -wd 0 --augmentation none -rlre 60 120 -o sgd -e 300",
        "hyperplanes": "-o sgd -lr 1e-3 -wd 1e-4 -b 128 -e 20 --augmentation none --per-image-std",
        "lir": "-o sgd -lr .1 -wd 5e-4 -b 128 -e 100 -sched cosine",
    }[recipe]
    more = ["-o", "sgd", "-e", "300"] if recipe == "ncg" else []
    by_recipe, by_flags = (
        cli.identity(cli.parse(TrainConfig, ["lenet", "-d", "digits", "-dir", "a", *words]))
        for words in (["--recipe", recipe, *more], spelt.split())
    )
    assert by_recipe == by_flags


@pytest.mark.parametrize(
    "words, expected",
    [
        (
            "lenet --recipe hyperplanes -lr .01 -wd 0 --augmentation",
            dict(learning_rate=0.01, weight_decay=0, augmentation="auto"),
        ),
        ("lenet --recipe hyperplanes -o adam", dict(optimizer="adam", weight_decay=0.0)),
        ("lenet --recipe hyperplanes --mean .5 --std .2", dict(mean=(0.5,), per_image_std=False)),
        ("lenet --recipe hyperplanes --lr-step 7", dict(schedule="step", lr_step=7)),
        ("tv_resnet18 -d imagenet_mem --recipe stitching", dict(schedule="step", epochs=90, mean=(0.485, 0.456, 0.406))),
        ("lenet --recipe stitching --pretrained", dict(unnormalize=False)),
        ("ce-vtor2-CNN002 -e 70", dict(milestones=(40, 50, 60), weight_decay=0.0, recipe="ncg", learning_rate=0.01)),
        ("ce-vtor2-CNN002 -e 70 -rlre 5 -wd 1e-3", dict(milestones=(5,), weight_decay=1e-3)),
        ("ce-vtor2-CNN002 -e 70 --recipe lir", dict(milestones=(), schedule="cosine", unnormalize=True)),
    ],
)
def test_any_flag_wins_over_a_recipe_and_strings_imply_theirs(words, expected):
    config = cli.parse(TrainConfig, [*words.split(), "-dir", "a"])
    assert {name: getattr(config, name) for name in expected} == expected
    assert data_name(config.dataset).base in ("cifar10", "imagenet")


def test_a_recipe_is_visible_in_the_plan_and_its_settings_in_the_record(tmp_path):
    words = ("ce-vtor2-LargeMLP", "-d", "digits", "-dir", "a", "--max-examples", 32, "-e", 1, "--image-size", 8)
    done = script("exec_train.py", *words, "--plan", cwd=tmp_path)
    assert "recipe:     ncg" in done.stdout and "milestones = 20 30" in done.stdout
    done = script("exec_train.py", *words, cwd=tmp_path)
    assert '"milestones"' in (tmp_path / done.stdout.strip().splitlines()[-1]).read_text()
